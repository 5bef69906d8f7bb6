//! Payment cards by their last four digits.
//!
//! The four digits are the entity. A whole card number is none of our kinds and is kept from being taken for one.

use std::sync::LazyLock;

use regex::Regex;

use super::context::{after, before, bounded, id_ends, is_any, words_before};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    last_digits(text, candidates);
    whole_numbers(text, candidates);
}

fn last_digits(text: &str, candidates: &mut Vec<Candidate>) {
    static ENDING: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:
                (?P<ending>end(?:s|ing|ed)?(?:\ (?:in|with|on|w/))?|(?:card|visa|mastercard|amex|maestro|discover)(?:\ (?:number|no\.?))?)
              | last\ (?:(?:four|4)(?:\ digits?)?|digits)(?:\ (?:of|on|for)\ (?:(?:my|the|your|that|this)\ )?(?:(?:credit|debit|bank)\ )?(?:card|visa|mastercard|amex))?
              )(?:\ (?:is|are|was|were|being))?\ ?:?\ ?(?:\#|\*|•)*(?P<digits>[0-9]{4})\b",
        )
    });
    static MASKED: LazyLock<Regex> =
        LazyLock::new(|| expression(r"(?-u)(?:(?:•|·|●|∙|\*|X|x){2,4}[\ -]?){1,4}(?P<digits>[0-9]{4})\b"));
    static NEXT: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"^(?i-u)(?:,\ ?|,?\ (?:and|or|not|&|but\ not)\ )(?:the\ one\ )?(?:ending\ (?:in\ |with\ )?)?(?P<digits>[0-9]{4})\b",
        )
    });
    for groups in ENDING.captures_iter(text).chain(MASKED.captures_iter(text)) {
        let (start, Some(digits)) = (groups.get_match().start(), groups.name("digits")) else { continue };
        let mut range = digits.range();
        // The nearest word that has last digits says whose they are; `ends in 2025` without a card is a year.
        let owner = words_before(text, start)
            .take(10)
            .find(|word| is_any(word, CARDS) || is_any(word, OTHER_ENDINGS));
        let needs_card = groups.name("ending").is_some_and(|cue| cue.as_str().starts_with(['e', 'E']));
        let of_a_card = owner.map_or(!needs_card, |owner| is_any(owner, CARDS));
        if !of_a_card || before(text, start).is_some_and(char::is_alphanumeric) {
            continue;
        }
        // `cards ending in 1111 and 2222`
        while id_ends(text, range.end) {
            let end = range.end;
            candidates.push(Candidate::new(Kind::CardLast4, range, 0.96));
            match NEXT.captures(bounded(text, end)).and_then(|next| next.name("digits").map(|d| d.range())) {
                Some(next) => range = end + next.start..end + next.end,
                None => break,
            }
        }
    }
}

fn whole_numbers(text: &str, candidates: &mut Vec<Candidate>) {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?-u)\b[0-9]{4}(?:[\ -][0-9]{4}){2}[\ -][0-9]{1,7}\b|\b3[47][0-9]{2}[\ -][0-9]{6}[\ -][0-9]{5}\b",
        )
    });
    for shape in WHOLE.find_iter(text) {
        let touches = after(text, shape.end()).is_some_and(|c| c == '-');
        if !touches {
            candidates.push(Candidate::new(Kind::Other, shape.range(), 1.0));
        }
    }
}

const CARDS: &[&str] =
    &["card", "cards", "visa", "mastercard", "amex", "maestro", "discover", "debit", "credit"];
#[rustfmt::skip]
const OTHER_ENDINGS: &[&str] = &[
    "phone", "mobile", "cell", "ssn", "social", "iban", "account", "acct", "passport", "order", "invoice", "gift",
];
