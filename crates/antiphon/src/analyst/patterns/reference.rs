//! What a host looks things up by: orders, accounts, the last digits of a card.
//!
//! Ids have no shape of their own, so a cue word (`order`, `tracking number`) or a `#` has to stand before them.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::context::{after, before, cue_before, is_any, stands_alone, word_after, words_before};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    orders(text, candidates);
    accounts(text, candidates);
    cards(text, candidates);
}

/// The id alone is the entity, with its `#` where it has one.
fn orders(text: &str, candidates: &mut Vec<Candidate>) {
    static CUED: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:orders?|purchases?|tracking|shipments?|package|parcel|delivery|consignment|confirmation|booking|reservation|reference|ref)
              (?:\ (?:with\ )?(?:the\ )?(?P<named>number|no\b\.?|num\b\.?|nr\b\.?|id|code|reference|ref\b\.?))?
              (?:\ (?:is|was)\b|\ ?[:=])?\ *\(?",
        )
    });
    // A carrier's number with its blanks, or one word.
    static ID: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"^(?i-u)(?:1Z(?:\ ?[0-9A-Z]{2,4}){4,9}\b|[0-9]{4}(?:\ [0-9]{4}){4}(?:\ [0-9]{2})?\b|#?[A-Z0-9][A-Z0-9]*(?:[-_/][A-Z0-9]+)*)",
        )
    });
    static NEXT: LazyLock<Regex> = LazyLock::new(|| expression(r"^(?i-u)\ ?(?:,|&|and\b|or\b)\ ?(?:and\ )?"));
    static MARKED: LazyLock<Regex> = LazyLock::new(|| expression(r"(?-u)#[A-Z0-9][A-Z0-9]*(?:-[A-Z0-9]+)*"));
    static UPS: LazyLock<Regex> = LazyLock::new(|| expression(r"(?-u)1Z[0-9A-Z]{16}"));

    for cue in CUED.captures_iter(text) {
        let cue_range = cue.get_match().range();
        if before(text, cue_range.start).is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let explicit = cue.name("named").is_some() || text[cue_range.clone()].contains([':', '=']);
        let mut at = cue_range.end;
        // `orders 4711, 4712 and 4713`
        while let Some(id) = ID.find(bounded(text, at)) {
            let range = at..at + id.end();
            if !is_order_id(text, &range, explicit) || is_quantity(text, cue_range.start, &range) {
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
    for shape in MARKED.find_iter(text) {
        let range = shape.range();
        let digits = shape.as_str().bytes().filter(u8::is_ascii_digit).count();
        let other = words_before(text, range.start).take(2).any(|word| is_any(word, NUMBERED_THINGS));
        if digits >= 3 && !other && id_ends(text, &range) && stands_alone(text, &range) {
            candidates.push(Candidate::new(Kind::OrderId, range, 0.85));
        }
    }
    for shape in UPS.find_iter(text).filter(|shape| stands_alone(text, &shape.range())) {
        candidates.push(Candidate::new(Kind::OrderId, shape.range(), 0.95));
    }
}

/// Ids hold a digit. Plain digits without `number` or `#` need four of them: `order 2 pizzas` names none.
fn is_order_id(text: &str, range: &Range<usize>, explicit: bool) -> bool {
    let id = text[range.clone()].trim_start_matches('#');
    let digits = id.bytes().filter(u8::is_ascii_digit).count();
    let letters = id.bytes().filter(u8::is_ascii_alphabetic).count();
    let marked = explicit || text[range.clone()].starts_with('#');
    let enough = if letters == 0 {
        digits >= if marked { 2 } else { 4 }
    } else {
        digits >= 2 && digits + letters >= 4
    };
    // `order 2nd`, `order 10kg`, `delivery 5pm`: a count with its unit.
    let counted =
        letters > 0 && !marked && id.starts_with(|c: char| c.is_ascii_digit()) && letters <= 2 && digits <= 3;
    enough && !counted && id.len() <= 40 && id_ends(text, range)
}

/// Not cut out of an address, a time, an amount or something longer.
fn id_ends(text: &str, range: &Range<usize>) -> bool {
    let mut rest = text[range.end..].chars();
    match (rest.next(), rest.next()) {
        (Some(c), _) if c.is_alphanumeric() || matches!(c, '_' | '@' | '%' | '$' | '€' | '/') => false,
        (Some('.' | ':' | ',' | '-' | '\''), Some(next)) => !next.is_alphanumeric(),
        _ => true,
    }
}

/// `I want to order 5000 boxes`: a verb before the digits, a plural behind them.
fn is_quantity(text: &str, cue_start: usize, range: &Range<usize>) -> bool {
    let after = word_after(text, range.end);
    let plural = after.len() > 3
        && after.ends_with('s')
        && !is_any(after, &["this", "does", "contains", "arrives", "needs"]);
    text[range.clone()].bytes().all(|b| b.is_ascii_digit())
        && plural
        && cue_before(text, cue_start, 1, VERB_SUBJECTS)
}

/// The plain word counts; with a number behind it the number is part of the value. So does a bank's own form, the IBAN.
fn accounts(text: &str, candidates: &mut Vec<Candidate>) {
    static ACCOUNT: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?P<word>accounts?|acct|acc|a/c)\b\.?
              (?P<number>
                (?P<named>\ (?:number|no\b\.?|num\b\.?|nr\b\.?|id))?(?:\ (?:is|was|ending\ (?:in|with))|\ ?[:=])?\ ?
                (?:\#|(?:\*|x|•){2,12}[\ -]?)?(?:[A-Z]{1,4}-?)?[0-9]+(?:[\ -]?[0-9]+){0,8}
              )?",
        )
    });
    static IBAN: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?i-u)\b[a-z]{2}[0-9]{2}(?:\ ?[a-z0-9]{4}){2,7}(?:\ ?[a-z0-9]{1,4})?\b")
    });

    for groups in ACCOUNT.captures_iter(text) {
        let whole = groups.get_match().range();
        let Some(word) = groups.name("word").map(|word| word.range()) else { continue };
        let digits =
            groups.name("number").map_or(0, |n| n.as_str().bytes().filter(u8::is_ascii_digit).count());
        let needed =
            if groups.name("named").is_some() || text[whole.clone()].contains(['#', ':']) { 3 } else { 4 };
        if digits >= needed && id_ends(text, &whole) && stands_alone(text, &whole) {
            candidates.push(Candidate::new(Kind::Account, whole, 0.97));
        } else if word.len() > 3 && stands_alone(text, &word) && is_noun(text, &word) {
            candidates.push(Candidate::new(Kind::Account, word, 0.98));
        }
    }
    for shape in IBAN.find_iter(text).filter(|shape| stands_alone(text, &shape.range())) {
        let compact: Vec<u8> = shape.as_str().bytes().filter(|&b| b != b' ').collect();
        // Mixed into a sentence, four-letter words look like a group; the checksum tells.
        match (15..=34).contains(&compact.len()) && iban_remainder(&compact) == 1 {
            true => candidates.push(Candidate::new(Kind::Account, shape.range(), 0.99)),
            false if compact[4..].iter().all(u8::is_ascii_digit) => {
                candidates.push(Candidate::new(Kind::Other, shape.range(), 1.0));
            }
            false => {}
        }
    }
}

/// Not `on account of`, `take into account`, `to account for`.
fn is_noun(text: &str, word: &Range<usize>) -> bool {
    let previous = words_before(text, word.start).next().unwrap_or("");
    let next = word_after(text, word.end);
    let phrase = is_any(previous, &["into"]) || is_any(previous, &["on"]) && is_any(next, &["of"]);
    let verb = is_any(next, &["for"])
        && (is_any(previous, VERB_SUBJECTS) || is_any(previous, &["it", "this", "that"]));
    let idiom = is_any(previous, &["all"]) && text[word.clone()].ends_with(['s', 'S']);
    !phrase && !verb && !idiom
}

/// ISO 7064: the first four characters moved behind, letters as 10 to 35, modulo 97; 1 for a valid one.
fn iban_remainder(compact: &[u8]) -> u32 {
    compact[4..].iter().chain(&compact[..4]).fold(0, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        letter => (remainder * 100 + u32::from(letter.to_ascii_lowercase() - b'a') + 10) % 97,
    })
}

/// The four digits are the entity. A whole card number is none of our kinds and is kept from being taken for one.
fn cards(text: &str, candidates: &mut Vec<Candidate>) {
    static ENDING: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:
                (?P<ending>end(?:s|ing|ed)?\ (?:in|with|on)|(?:card|visa|mastercard|amex|maestro|discover)(?:\ (?:number|no\.?))?)
              | last\ (?:four|4)(?:\ digits?)?(?:\ (?:of|on|for)\ (?:(?:my|the|your|that|this)\ )?(?:(?:credit|debit|bank)\ )?(?:card|visa|mastercard|amex))?
              )(?:\ (?:is|are|was|were|being))?\ ?:?\ ?(?:\#|\*|•)*(?P<digits>[0-9]{4})\b",
        )
    });
    static MASKED: LazyLock<Regex> =
        LazyLock::new(|| expression(r"(?-u)(?:(?:•|·|●|∙|\*|X|x){2,4}[\ -]?){1,4}(?P<digits>[0-9]{4})\b"));
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?-u)\b[0-9]{4}(?:[\ -][0-9]{4}){2}[\ -][0-9]{1,7}\b|\b3[47][0-9]{2}[\ -][0-9]{6}[\ -][0-9]{5}\b",
        )
    });

    for groups in ENDING.captures_iter(text).chain(MASKED.captures_iter(text)) {
        let (start, Some(digits)) = (groups.get_match().start(), groups.name("digits")) else { continue };
        let range = digits.range();
        // The nearest word that has last digits says whose they are; `ends in 2025` without a card is a year.
        let owner =
            words_before(text, start).take(6).find(|word| is_any(word, CARDS) || is_any(word, OTHER_ENDINGS));
        let needs_card = groups.name("ending").is_some_and(|cue| cue.as_str().starts_with(['e', 'E']));
        let of_a_card = owner.map_or(!needs_card, |owner| is_any(owner, CARDS));
        let whole = id_ends(text, &range) && !before(text, start).is_some_and(char::is_alphanumeric);
        if whole && of_a_card {
            candidates.push(Candidate::new(Kind::CardLast4, range, 0.96));
        }
    }
    for shape in WHOLE.find_iter(text) {
        let touches = after(text, shape.end()).is_some_and(|c| c == '-');
        if !touches {
            candidates.push(Candidate::new(Kind::Other, shape.range(), 1.0));
        }
    }
}

/// The next few words of the text: enough for the longest id.
fn bounded(text: &str, at: usize) -> &str {
    &text[at..text.floor_char_boundary(text.len().min(at + 64))]
}

/// Words after which a `#` numbers something that is not an order.
const NUMBERED_THINGS: &[&str] = &[
    "invoice",
    "bill",
    "ticket",
    "case",
    "issue",
    "room",
    "apartment",
    "apt",
    "suite",
    "unit",
    "flight",
    "channel",
    "page",
    "chapter",
    "pr",
    "bug",
    "color",
    "colour",
    "gate",
    "seat",
    "policy",
    "claim",
];
/// Words that make `order` and `account` behind them a verb.
const VERB_SUBJECTS: &[&str] =
    &["to", "i", "you", "we", "they", "can", "can't", "cannot", "could", "must", "will", "would", "not"];
const CARDS: &[&str] = &["card", "visa", "mastercard", "amex", "maestro", "discover", "debit", "credit"];
const OTHER_ENDINGS: &[&str] = &[
    "phone", "mobile", "cell", "ssn", "social", "iban", "account", "acct", "passport", "order", "invoice",
    "gift",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iban_checksum_tells_a_real_one_from_a_typo() {
        assert_eq!(iban_remainder(b"DE89370400440532013000"), 1);
        assert_eq!(iban_remainder(b"gb82west12345698765432"), 1);
        assert_ne!(iban_remainder(b"DE88370400440532013000"), 1);
    }
}
