//! Telephone numbers: as many digits as a number has, grouped as people group them.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::context::{after, digits, is_any, is_whole, words_before};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    static PHONE: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?i-u)(?:\+|\(\+?)?[0-9](?:[0-9]|[\ ()./-]{1,2}[0-9]){5,18}(?:,?\ ?(?:x|ext\.?|extension)\ ?[0-9]{1,5})?",
        )
    });
    // Letters on the keys, behind a toll-free prefix.
    static LETTERS: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?-u)\b(?:1[ -])?8(?:00|33|44|55|66|77|88)[ -](?P<keys>[A-Z0-9]+(?:-[A-Z0-9]+)*)\b")
    });
    for groups in LETTERS.captures_iter(text) {
        let keys = groups.name("keys").map_or("", |keys| keys.as_str());
        let letters = keys.bytes().filter(u8::is_ascii_uppercase).count();
        if letters >= 3
            && (7..=10).contains(&(letters + digits(keys)))
            && is_whole(text, &groups.get_match().range())
        {
            candidates.push(Candidate::new(Kind::Phone, groups.get_match().range(), 0.9));
        }
    }
    for shape in PHONE.find_iter(text) {
        let number = Number::read(shape.as_str());
        // The nearest word that says what is numbered decides.
        let mut near = words_before(text, shape.start()).take(5).enumerate();
        let said = near.find(|(_, word)| is_any(word, CUES) || is_any(word, OTHERS));
        let announced = said.is_some_and(|(_, word)| is_any(word, CUES));
        let other = !announced && !number.international && said.is_some_and(|(distance, _)| distance < 2);
        let Some(confidence) = number.confidence(announced).filter(|_| !other) else { continue };
        let range = shape.range();
        if stands_apart(text, &range) {
            candidates.push(Candidate::new(Kind::Phone, range, confidence));
        }
    }
}

/// Not a piece of a longer number, and not an amount, a handle or a numbered thing.
fn stands_apart(text: &str, range: &Range<usize>) -> bool {
    let marked =
        text[..range.start].ends_with(['$', '#', '+', '€', '£', '=']) || text[range.end..].starts_with('%');
    // `555-0182-B` is the number of a part.
    let part =
        text[range.end..].starts_with('-') && after(text, range.end + 1).is_some_and(char::is_alphanumeric);
    !marked && !part && is_whole(text, range)
}

/// The digits of a candidate in groups, as separators and brackets part them.
struct Number<'a> {
    international: bool,
    balanced: bool,
    /// Some separator other than a blank.
    punctuated: bool,
    groups: Vec<&'a str>,
}

impl<'a> Number<'a> {
    fn read(shape: &'a str) -> Self {
        let without_extension = shape.split(['x', 'X', 'e', 'E']).next().unwrap_or(shape);
        let brackets = |c| without_extension.matches(c).count();
        Self {
            international: without_extension.trim_start_matches('(').starts_with('+'),
            balanced: brackets('(') == brackets(')') && brackets('(') <= 1,
            punctuated: without_extension.contains(['-', '.', '(']),
            groups: without_extension
                .split(|c: char| !c.is_ascii_digit())
                .filter(|g| !g.is_empty())
                .collect(),
        }
    }

    /// None where it cannot be a number; lower where only the grouping speaks for it.
    fn confidence(&self, announced: bool) -> Option<f64> {
        let digits: usize = self.groups.iter().map(|group| group.len()).sum();
        let first = self.groups.first()?;
        let lengths: Vec<usize> = self.groups.iter().map(|group| group.len()).collect();
        let trunk = first.starts_with('0') && !first.starts_with("00");
        // A digit by itself is a country code or a count; a dialling code may part one more off.
        let single = lengths.iter().filter(|&&length| length == 1).count();
        let scattered = !self.international && single > usize::from(*first == "1" || announced && trunk);
        if !self.balanced || !(7..=15).contains(&digits) || scattered {
            return None;
        }
        if self.international {
            return (digits >= 8 && !first.starts_with('0')).then_some(0.97);
        }
        if announced && !is_card(&lengths) && !is_date(&lengths) {
            return Some(0.95);
        }
        match lengths.as_slice() {
            [3, 3, 4] | [1, 3, 3, 4] if digits == 10 || *first == "1" => Some(0.95),
            [3, 4] if self.punctuated => Some(0.75),
            [5, 5] if first.starts_with(['6', '7', '8', '9']) => Some(0.75),
            [4, 3, 3] if *first == "1300" || *first == "1800" => Some(0.85),
            [10] if is_north_american(first) => Some(0.7),
            [10 | 11] if trunk => Some(0.75),
            [head, rest @ ..] if trunk && !rest.is_empty() && *head >= 2 && (9..=11).contains(&digits) => {
                Some(0.9)
            }
            _ => None,
        }
    }
}

/// Area code and exchange of the North American plan begin with 2 to 9.
fn is_north_american(digits: &str) -> bool {
    let digits = digits.as_bytes();
    digits[0] >= b'2' && digits[3] >= b'2'
}

fn is_card(lengths: &[usize]) -> bool {
    matches!(lengths, [4, 4, 4, ..] | [4, 6, 4 | 5])
}

fn is_date(lengths: &[usize]) -> bool {
    matches!(lengths, [4, 1 | 2, 1 | 2] | [1 | 2, 1 | 2, 4])
}

/// Words that announce a telephone number.
#[rustfmt::skip]
const CUES: &[&str] = &[
    "phone", "telephone", "tel", "call", "mobile", "cell", "cellphone", "fax", "dial", "text", "sms", "whatsapp",
    "ring", "contact", "hotline", "reach", "callback", "called", "calling", "mob", "landline", "telefon",
];
/// Words that announce another number.
#[rustfmt::skip]
const OTHERS: &[&str] = &[
    "invoice", "account", "order", "ticket", "case", "reference", "code", "pin", "id", "ssn", "card", "serial", "part",
    "model", "isbn", "imei", "policy", "claim", "tracking", "booking", "coordinates", "steps", "version",
];
