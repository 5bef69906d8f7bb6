//! Accounts: by their number where it is given, otherwise by the plain word.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::context::{before, digits, id_ends, is_any, stands_alone, word_after, word_before, words_after};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    accounts(text, candidates);
    ibans(text, candidates);
}

fn accounts(text: &str, candidates: &mut Vec<Candidate>) {
    // Digits with hyphens, or in groups that a unit (`3 days ago`) is not taken for.
    static ACCOUNT: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:(?P<word>accounts?|acct|acc|a/c)\b\.?|(?:customer|client|member(?:ship)?|subscriber|ac)\b)
              (?:
                (?P<named>\ ?\(?\ ?(?:number|no\b\.?|num\b\.?|nr\b\.?|id\b|\#))?
                (?:\ (?:is|are|was)\b|,?\ (?:that\ )?end(?:s|ing)\b(?:\ (?:in|with|on)\b)?|\ ?[:=])?
                \ ?\#?(?:(?:\*|x|•){2,12}[\ -]?)?
                (?P<id>(?:[A-Z]{1,4}-?)?(?:[0-9]{2,6}(?:\ [0-9]{3,6})+(?:\ [0-9]{1,2})?|[0-9]+(?:-[0-9]+)*))
              )?",
        )
    });
    for groups in ACCOUNT.captures_iter(text) {
        let whole = groups.get_match().range();
        let word = groups.name("word").map(|word| word.range());
        // Cut out of a path, a tag or a name in a program.
        if before(text, whole.start)
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '/' | '#' | '@' | '.'))
        {
            continue;
        }
        let named = groups.name("named").is_some() || text[whole.clone()].contains(['#', ':']);
        let id = groups.name("id").filter(|id| {
            let enough = digits(id.as_str()) >= if named { 3 } else { 4 };
            enough && (named || word.is_some()) && id_ends(text, id.end())
        });
        if let Some(id) = id {
            candidates.push(Candidate::new(Kind::Account, id.range(), 0.97));
        } else if let Some(word) = word.filter(|word| stands_alone(text, word) && is_noun(text, word)) {
            candidates.push(Candidate::new(Kind::Account, word, 0.98));
        }
    }
}

/// Not `on account of`, `take into account`, `to account for`, `an account of what happened`, `account manager`.
fn is_noun(text: &str, word: &Range<usize>) -> bool {
    let (previous, next) = (word_before(text, word.start), word_after(text, word.end));
    let short = word.len() <= 3 && !text[word.clone()].contains('/');
    let phrase = is_any(previous, &["into"]) || is_any(previous, &["on"]) && is_any(next, &["of"]);
    let verb = is_any(next, &["for"]) && is_any(previous, BEFORE_VERB);
    let idiom = is_any(previous, &["all"]) && is_any(&text[word.clone()], &["accounts"]);
    let report = is_any(next, &["of"])
        && words_after(text, word.end)
            .nth(1)
            .is_some_and(|told| is_any(told, &["what", "how", "why", "when", "events"]));
    !short && !phrase && !verb && !idiom && !report && !is_any(next, OFFICES)
}

/// A bank's own form of an account number, with its blanks.
fn ibans(text: &str, candidates: &mut Vec<Candidate>) {
    static IBAN: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?i-u)\b[a-z]{2}[0-9]{2}(?:\ ?[a-z0-9]{4}){2,7}(?:\ ?[a-z0-9]{1,4})?\b")
    });
    for shape in IBAN.find_iter(text).filter(|shape| stands_alone(text, &shape.range())) {
        // Short words behind look like its last groups; the checksum tells where it ends.
        let ends = std::iter::once(shape.len()).chain(shape.as_str().rmatch_indices(' ').map(|(at, _)| at));
        let compact = |end: usize| shape.as_str()[..end].bytes().filter(|&b| b != b' ').collect::<Vec<u8>>();
        let valid = |end: &usize| {
            let compact = compact(*end);
            (15..=34).contains(&compact.len()) && iban_remainder(&compact) == 1
        };
        if let Some(end) = ends.into_iter().find(valid) {
            candidates.push(Candidate::new(Kind::Account, shape.start()..shape.start() + end, 0.99));
        } else if compact(shape.len())[4..].iter().all(u8::is_ascii_digit) {
            candidates.push(Candidate::new(Kind::Other, shape.range(), 1.0));
        }
    }
}

/// ISO 7064: the first four characters moved behind, letters as 10 to 35, modulo 97; 1 for a valid one.
fn iban_remainder(compact: &[u8]) -> u32 {
    compact[4..].iter().chain(&compact[..4]).fold(0, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        letter => (remainder * 100 + u32::from(letter.to_ascii_lowercase() - b'a') + 10) % 97,
    })
}

/// Words between which and `for` stands the verb.
#[rustfmt::skip]
const BEFORE_VERB: &[&str] = &[
    "to", "i", "you", "we", "they", "he", "she", "it", "this", "that", "which", "can", "can't", "cannot", "could",
    "couldn't", "must", "will", "won't", "would", "wouldn't", "should", "shouldn't", "may", "might", "do", "don't",
    "does", "doesn't", "did", "didn't", "not",
];
/// Persons and offices that are called after accounts.
#[rustfmt::skip]
const OFFICES: &[&str] = &[
    "manager", "managers", "executive", "executives", "director", "rep", "reps", "representative", "representatives",
    "department", "dept", "team", "receivable", "payable",
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
