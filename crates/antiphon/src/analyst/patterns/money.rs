//! Amounts of money: a number with a currency symbol, code or word.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::context::{before, cue_after, cue_before, ends_whole, is_any, is_whole, stands_alone, word_after};
use super::{Candidate, Kind, expression};

/// 5, 5.99, 1,234.50, 1.234,50, 1 234: digits, groups of three, one decimal part.
const AMOUNT: &str = r"(?:[0-9]{1,3}(?:[,.' ][0-9]{3})+(?:[.,][0-9]{1,2})?|[0-9]+(?:[.,][0-9]{1,2})?)";
const SCALE: &str = r"(?:\ ?(?:k|m|mm|bn|thousand|million|billion)\b)?";
const SYMBOL: &str = r"(?:(?:US|CA|AU|NZ|HK|C|A|R)?\$|€|£|¥|₹|₩|₽|₺|₪|฿|₿|₴|₫|¢|zł)";
const CODE: &str = r"(?:usd|eur|gbp|jpy|inr|chf|cad|aud|nzd|cny|rmb|sek|nok|dkk|pln|czk|huf|brl|mxn|sgd|hkd|krw|zar|rub|ils|thb|btc|aed|sar|ngn|kes|idr|myr|uah)";
const WORD: &str = r"(?:dollars?|bucks?|euros?|pounds?|quid|cents?|pence|yen|rupees?|francs?|pesos?|yuan|shekels?|kron(?:or|er)|kr|zloty|grand|tenners?|fivers?)";
const SPELLED: &str = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|half)";
/// The second number of a range under one mark: `$5-10`.
const UP_TO: &str = r"(?:\ ?(?:-|–)\ ?";
/// The small coins of an amount in words: `45 dollars and 20 cents`.
const COINS: &str = r"(?:(?:\ and)?\ (?:[0-9]{1,2}|SPELLED(?:[\ -]SPELLED)?)\ ?(?:cents?|pence|p)\b)?";

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    static SYMBOL_FIRST: LazyLock<Regex> = LazyLock::new(|| {
        expression(&format!(
            r"(?i-u){SYMBOL}\ ?{AMOUNT}{SCALE}{UP_TO}{AMOUNT}{SCALE})?(?:\ (?:{WORD}|{CODE})\b)?"
        ))
    });
    static AMOUNT_FIRST: LazyLock<Regex> = LazyLock::new(|| {
        let coins = COINS.replace("SPELLED", SPELLED);
        expression(&format!(
            r"(?i-u){AMOUNT}(?:(?:\ ?(?:-|–)\ ?|\ to\ ){AMOUNT})?{SCALE}(?:\ ?(?:{SYMBOL}|{CODE}\b)|[\ -]?(?:us\ )?{WORD}\b{coins}|(?-i:p)\b)"
        ))
    });
    static CODE_FIRST: LazyLock<Regex> = LazyLock::new(|| {
        expression(&format!(
            r"(?i-u)\b(?:{CODE}|kr\.?|(?-i:[Rr]s)\.?)\ ?{AMOUNT}{SCALE}{UP_TO}{AMOUNT}{SCALE})?"
        ))
    });
    static SPELLED_OUT: LazyLock<Regex> = LazyLock::new(|| {
        let coins = COINS.replace("SPELLED", SPELLED);
        expression(&format!(
            r"(?ix-u)\b(?:
                  (?:half\ )?an?(?:\ (?:hundred|thousand|million)(?:(?:[\ -]|\ and\ ){SPELLED}){{0,5}})?
                | {SPELLED}(?:(?:[\ -]|\ and\ ){SPELLED}){{0,6}}
              )[\ -]{WORD}\b{coins}"
        ))
    });
    for (form, confidence) in [(&AMOUNT_FIRST, 0.98), (&CODE_FIRST, 0.98), (&SPELLED_OUT, 0.93)] {
        for shape in form.find_iter(text) {
            if is_whole(text, &shape.range()) && is_amount(text, &shape.range()) {
                candidates.push(Candidate::new(Kind::Money, shape.range(), confidence));
            }
        }
    }
    for shape in SYMBOL_FIRST.find_iter(text) {
        // The sign itself parts the amount from what stands before it: `4711/$5`.
        if ends_whole(text, shape.end()) && is_amount(text, &shape.range()) {
            candidates.push(Candidate::new(Kind::Money, shape.range(), 0.98));
        }
    }
}

/// A price, not a weight (`5 pounds of rice`) or a picture (`720p`), and not the tail of something else (`covid-19 $`,
/// `x#5$`).
fn is_amount(text: &str, range: &Range<usize>) -> bool {
    let value = text[range.clone()].to_ascii_lowercase();
    let next = word_after(text, range.end);
    let weight = (value.ends_with("pound") || value.ends_with("pounds"))
        && (is_any(next, WEIGHED)
            || cue_before(text, range.start, 4, WEIGHING)
            || cue_after(text, range.end, 3, WEIGHTS));
    let load = value.ends_with("pound") && is_any(next, LOADS);
    let notion = value.starts_with("a ") && is_any(next, &["value", "amount", "sign", "figure", "store"]);
    let piano = value.ends_with("grand") && (value == "a grand" || is_any(next, GRAND_THINGS));
    let picture = value
        .strip_suffix('p')
        .is_some_and(|pence| pence.bytes().rev().take_while(u8::is_ascii_digit).count() > 2);
    let marked = before(text, range.start).is_some_and(|c| matches!(c, '#' | '$' | '€' | '£'));
    !weight && !load && !notion && !piano && !picture && !marked && stands_alone(text, range)
}

const WEIGHED: &[&str] = &["of", "heavier", "lighter", "overweight"];
#[rustfmt::skip]
const WEIGHING: &[&str] = &[
    "weigh", "weighs", "weighed", "weight", "weighing", "lose", "lost", "gain", "gained", "heavy", "kilos", "kilograms",
    "kg", "ounces", "grams",
];
const WEIGHTS: &[&str] = &["kilos", "kilograms", "kg", "ounces", "grams", "heavy"];
#[rustfmt::skip]
const LOADS: &[&str] = &[
    "bag", "bags", "sack", "sacks", "box", "boxes", "parcel", "package", "dumbbell", "dumbbells", "kettlebell",
    "weight", "weights", "plate", "plates", "load",
];
const GRAND_THINGS: &[&str] =
    &["piano", "pianos", "prix", "slam", "slams", "children", "kids", "opening", "total"];
