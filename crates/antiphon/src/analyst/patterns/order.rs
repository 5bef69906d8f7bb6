//! Orders, purchases, bookings and shipments by their ids.
//!
//! Ids have no shape of their own, so a cue word (`order`, `tracking number`) or a `#` has to stand before them; a few
//! forms speak for themselves. The cue and the `#` announce the id and are no part of it.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::context::{
    before, bounded, cue_before, digits, id_ends, is_any, stands_alone, word_after, word_before, words_before,
};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    cued(text, candidates);
    marked(text, candidates);
    evident(text, candidates);
}

/// `order 4711`, `tracking number: 1Z…`, `orders 4711, 4712 and 4713`.
fn cued(text: &str, candidates: &mut Vec<Candidate>) {
    static CUE: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:orders?|purchases?(?:\ orders?)?|po|tracking|shipments?|shipping|packages?|parcels?|delivery|consignment|confirmation|bookings?|reservations?|reference|ref)\b\.?
              (?P<named>(?:(?:\ ?\(|[\ -]|\ with\ )?(?:the\ )?(?:numbers?\b|no\b\.?|num\b\.?|nr\b\.?|nº|n°|№|id\b|code\b|reference\b|ref\b\.?)){0,2})
              (?:\ (?:is|was|are)\b|\ ?[:=,])?\ *(?:\(|\x22|'|“|‘)?\#?",
        )
    });
    // A carrier's number with its blanks, or one word.
    static ID: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"^(?-u)(?:1Z(?:\ ?[0-9A-Z]){16}\b|[0-9]{4}(?:\ [0-9]{4}){4}(?:\ [0-9]{2})?\b|[A-Za-z0-9]+(?:[-_/][A-Za-z0-9]+)*)",
        )
    });
    static NEXT: LazyLock<Regex> =
        LazyLock::new(|| expression(r"^(?i-u)\ ?(?:,|&|\+|and\b|or\b)\ ?(?:(?:and|or)\ )?\#?"));

    for groups in CUE.captures_iter(text) {
        let cue = groups.get_match();
        let joined = |c: char| c.is_alphanumeric() || matches!(c, '_' | '#' | '/' | '@');
        if before(text, cue.start()).is_some_and(joined) {
            continue;
        }
        let named = groups.name("named").is_some_and(|named| !named.is_empty());
        let explicit = named || cue.as_str().contains([':', '=', '#']);
        // A record locator may have no digit; in a sentence of capitals every word could be one.
        let locator = explicit && cue.as_str().contains(|c: char| c.is_ascii_lowercase());
        let mut at = cue.end();
        while let Some(id) = ID.find(bounded(text, at)) {
            let range = at..at + id.end();
            let accepted = is_order_id(&text[range.clone()], explicit)
                || locator && id.as_str().len() == 6 && id.as_str().bytes().all(|b| b.is_ascii_uppercase());
            if !accepted
                || !id_ends(text, range.end)
                || !explicit && is_ordering(text, cue.start(), cue.as_str(), &range)
            {
                break;
            }
            at = range.end;
            candidates.push(Candidate::new(Kind::OrderId, range, 0.97));
            match NEXT.find(bounded(text, at)) {
                Some(next) => at += next.end(),
                None => break,
            }
        }
    }
}

/// `#10442` where no other numbered thing stands before it.
fn marked(text: &str, candidates: &mut Vec<Candidate>) {
    static MARKED: LazyLock<Regex> =
        LazyLock::new(|| expression(r"(?-u)#(?P<id>[A-Z]{0,4}-?[0-9][A-Z0-9]*(?:-[A-Z0-9]+)*)"));
    for groups in MARKED.captures_iter(text) {
        let Some(id) = groups.name("id") else { continue };
        let other =
            words_before(text, groups.get_match().start()).take(2).any(|word| is_any(word, NUMBERED_THINGS));
        if digits(id.as_str()) >= 3 && !other && id_ends(text, id.end()) && stands_alone(text, &id.range()) {
            candidates.push(Candidate::new(Kind::OrderId, id.range(), 0.85));
        }
    }
}

/// The numbers of a parcel service and of a shop that nothing else looks like.
fn evident(text: &str, candidates: &mut Vec<Candidate>) {
    static EVIDENT: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?-u)\b(?:1Z(?:[0-9A-Z]{16}|[0-9a-z]{16})|[0-9]{3}-[0-9]{7}-[0-9]{7})\b")
    });
    for shape in EVIDENT.find_iter(text) {
        if stands_alone(text, &shape.range()) && id_ends(text, shape.end()) {
            candidates.push(Candidate::new(Kind::OrderId, shape.range(), 0.95));
        }
    }
}

/// Ids hold a digit. Plain digits without `number` or `#` need four of them: `order 2 pizzas` names none.
fn is_order_id(id: &str, explicit: bool) -> bool {
    static CALENDAR: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"^(?-u)(?:[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[/-][0-9]{1,2}(?:[/-][0-9]{2,4})?)$")
    });
    let (digits, letters) = (digits(id), id.bytes().filter(u8::is_ascii_alphabetic).count());
    let enough = if letters == 0 {
        digits >= if explicit { 2 } else { 4 }
    } else {
        digits >= 2 && digits + letters >= 4
    };
    // `order 2nd`, `order 10kg`, `delivery 5pm`: a count with its unit.
    let counted = letters > 0 && id.starts_with(|c: char| c.is_ascii_digit()) && letters <= 2 && digits <= 3;
    // `delivery iPhone14`: a name with a number.
    let name = letters > digits && id.contains(|c: char| c.is_ascii_lowercase());
    enough && (explicit || !counted && !name) && id.len() <= 40 && !CALENDAR.is_match(id)
}

/// `we'd order 1500 a month`, `I want to order 5000 boxes`: a verb, or at least what looks like one before a quantity.
fn is_ordering(text: &str, cue_start: usize, cue: &str, id: &Range<usize>) -> bool {
    if !is_any(cue.trim_end(), &["order", "purchase"]) || !text.as_bytes()[id.start].is_ascii_digit() {
        return false;
    }
    let mut words = words_before(text, cue_start);
    let (previous, earlier) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let verb = is_any(previous, SUBJECTS) || is_any(previous, &["to"]) && is_any(earlier, WISHES);
    let after = word_after(text, id.end);
    let plural = after.len() > 3
        && after.ends_with('s')
        && !is_any(after, &["this", "does", "contains", "arrives", "needs", "was", "has"]);
    let counts = plural || is_any(after, &["a", "an", "per", "of", "more"]);
    verb || counts && cue_before(text, cue_start, 1, AUXILIARIES)
        || is_any(word_before(text, cue_start), &["minimum"])
}

/// Words after which a `#` numbers something that is not an order.
#[rustfmt::skip]
const NUMBERED_THINGS: &[&str] = &[
    "invoice", "bill", "ticket", "case", "issue", "room", "apartment", "apt", "suite", "unit", "flight", "channel",
    "page", "chapter", "pr", "bug", "color", "colour", "gate", "seat", "policy", "claim", "serial", "part", "model",
    "item", "sku", "episode", "version", "build", "step", "question", "house", "floor", "lot", "job", "coupon",
    "account", "acct", "acc", "ac", "id", "customer", "client", "member", "membership", "phone", "card", "code", "pin",
];
/// Subjects that make `order` behind them a verb.
const SUBJECTS: &[&str] = &[
    "i", "you", "we", "they", "i'd", "you'd", "we'd", "they'd", "i'll", "you'll", "we'll", "they'll",
    "can't", "cannot", "couldn't", "don't", "didn't", "won't", "let's",
];
/// What one does before `to order`; `changes to order 4711` is about an order.
const WISHES: &[&str] = &[
    "want", "wanted", "like", "need", "needed", "have", "had", "going", "able", "how", "try", "tried",
    "trying", "plan", "wish", "love", "order", "ready", "possible", "us", "me",
];
/// They stand before the verb, and before the noun in a question.
const AUXILIARIES: &[&str] =
    &["to", "can", "could", "must", "will", "would", "not", "may", "might", "should"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_counts_are_no_ids() {
        for id in ["4711", "AB-1234", "113542617735902", "2025-88", "K3J9PL", "9f3b21c8"] {
            assert!(is_order_id(id, false), "{id}");
        }
        for id in ["12", "2nd", "10kg", "2026-03-01", "3/14", "iPhone14", "pizza"] {
            assert!(!is_order_id(id, false), "{id}");
        }
    }
}
