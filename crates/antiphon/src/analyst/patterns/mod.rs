//! Entities that have a shape: addresses, amounts, moments, references.
//!
//! Each file knows one family: a regular expression proposes, a validator decides (a date has to exist, a host has to
//! be one, an id needs its cue word). Where candidates overlap, one rule: **the longer wins, then the more specific
//! kind** (the order of [`Kind`]). The time is linear in the text: the expressions run in one pass each, and a
//! validator looks at the candidate and at a bounded stretch before and after it.

mod account;
mod card;
mod contact;
mod context;
mod date;
#[cfg(test)]
mod grammar;
mod money;
mod number;
mod order;
mod phone;
#[cfg(test)]
mod sentences;
mod time;

use std::collections::BTreeMap;
use std::ops::Range;

use regex::Regex;

/// An entity found by its shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// The entity type as hosts see it: `email`, `order_id`, ….
    pub kind: &'static str,
    /// Where it is, in UTF-8 bytes.
    pub range: Range<usize>,
    /// How sure the pattern is, 0 to 1.
    pub confidence: f64,
}

/// All entities of a text that have a shape, in order of appearance, none overlapping another.
pub(crate) fn find(text: &str) -> Vec<Found> {
    let mut candidates = Vec::new();
    order::find(text, &mut candidates);
    account::find(text, &mut candidates);
    card::find(text, &mut candidates);
    contact::find(text, &mut candidates);
    phone::find(text, &mut candidates);
    money::find(text, &mut candidates);
    date::find(text, &mut candidates);
    time::find(text, &mut candidates);
    number::find(text, &mut candidates);
    choose(candidates)
}

/// The kinds, the more specific first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    CardLast4,
    OrderId,
    Account,
    Email,
    Url,
    Phone,
    Money,
    Date,
    Time,
    /// Recognised and none of ours (a whole card number): keeps its parts from being taken, and is not reported.
    Other,
    Number,
}

impl Kind {
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Kind::CardLast4 => "card_last4",
            Kind::OrderId => "order_id",
            Kind::Account => "account",
            Kind::Email => "email",
            Kind::Url => "url",
            Kind::Phone => "phone",
            Kind::Money => "money",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Other => return None,
            Kind::Number => "number",
        })
    }
}

/// What a family proposes after its validator agreed.
struct Candidate {
    kind: Kind,
    range: Range<usize>,
    confidence: f64,
}

impl Candidate {
    fn new(kind: Kind, range: Range<usize>, confidence: f64) -> Self {
        Self { kind, range, confidence }
    }
}

/// Longer first, then more specific, then earlier; each taken if nothing taken before overlaps it.
fn choose(mut candidates: Vec<Candidate>) -> Vec<Found> {
    candidates.sort_by_key(|c| (std::cmp::Reverse(c.range.len()), c.kind, c.range.start));
    let mut taken: BTreeMap<usize, Candidate> = BTreeMap::new();
    for candidate in candidates {
        // Those taken do not overlap, so the last one that starts before our end decides.
        let nearest = taken.range(..candidate.range.end).next_back();
        if nearest.is_none_or(|(_, other)| other.range.end <= candidate.range.start) {
            taken.insert(candidate.range.start, candidate);
        }
    }
    taken
        .into_values()
        .filter_map(|c| Some(Found { kind: c.kind.name()?, range: c.range, confidence: c.confidence }))
        .collect()
}

/// About what the compiled expressions hold, with the tables that matching fills: an estimate. `tests/memory.rs` holds the
/// whole ledger against the allocator.
pub(crate) const BYTES: usize = 1 << 20;

/// Compiles an expression that is written in this module.
fn expression(source: &str) -> Regex {
    Regex::new(source).expect("the expression is a constant and was compiled by the tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: Kind, range: Range<usize>) -> Candidate {
        Candidate::new(kind, range, 0.9)
    }

    #[test]
    fn longer_candidate_wins_then_the_more_specific_kind() {
        let found = choose(vec![
            candidate(Kind::Number, 0..4),
            candidate(Kind::Phone, 0..12),
            candidate(Kind::OrderId, 20..24),
            candidate(Kind::Number, 20..24),
        ]);
        let kinds: Vec<_> = found.iter().map(|f| (f.kind, f.range.clone())).collect();
        assert_eq!(kinds, [("phone", 0..12), ("order_id", 20..24)]);
    }

    #[test]
    fn other_shapes_keep_their_parts_and_are_not_reported() {
        assert!(choose(vec![candidate(Kind::Other, 0..19), candidate(Kind::Number, 0..4)]).is_empty());
    }

    #[test]
    fn time_grows_linearly_with_the_text() {
        // Many bytes of each shape that could tempt a pattern into looking twice.
        #[rustfmt::skip]
        let units = [
            "a", "1", "@", "a@", "1.", "1-", "1 ", "#", "$", "$1", "order 1 ", "account ", "•", "http://", "é",
            ":", "a.", "1:1", "9am-", "1 to ", "5-", "the 1st ", "order, ", "#1", "card 1111, ", "mon/", "'",
            "one ", "may ", "GB82 ", "1Z ", "a.b/", "1-800-A-",
        ];
        for unit in units {
            let text = unit.repeat(100_000 / unit.len());
            let started = std::time::Instant::now();
            let found = find(&text);
            assert!(started.elapsed().as_secs_f64() < 2.0, "{unit:?} took {:?}", started.elapsed());
            assert!(found.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start), "{unit:?}");
        }
    }
}
