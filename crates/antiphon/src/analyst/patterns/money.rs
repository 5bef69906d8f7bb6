//! Amounts of money: a number with a currency symbol, code or word.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::context::{before, is_any, is_whole, stands_alone, word_after};
use super::{Candidate, Kind, expression};

/// 5, 5.99, 1,234.50, 1.234,50, 1 234: digits, groups of three, one decimal part.
const AMOUNT: &str = r"(?:[0-9]{1,3}(?:[,.' ][0-9]{3})+(?:[.,][0-9]{1,2})?|[0-9]+(?:[.,][0-9]{1,2})?)";
const SCALE: &str = r"(?:\ ?(?:k|m|mm|bn|thousand|million|billion)\b)?";
const SYMBOL: &str = r"(?:(?:US|CA|AU|NZ|HK|C|A)?\$|€|£|¥|₹|₩|₽|₺|₪|฿|₿|₴|₫|zł)";
const CODE: &str = r"(?:usd|eur|gbp|jpy|inr|chf|cad|aud|nzd|cny|rmb|sek|nok|dkk|pln|czk|huf|brl|mxn|sgd|hkd|krw|zar|rub|ils|thb|btc)";
const WORD: &str = r"(?:dollars?|bucks?|euros?|pounds?|quid|cents?|pence|yen|rupees?|francs?|pesos?|yuan|shekels?|kron(?:or|er)|zloty)";
const SPELLED: &str = r"(?:a|an|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|half)";

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    static SYMBOL_FIRST: LazyLock<Regex> =
        LazyLock::new(|| expression(&format!(r"(?i-u){SYMBOL}\ ?{AMOUNT}{SCALE}(?:\ (?:{WORD}|{CODE})\b)?")));
    static AMOUNT_FIRST: LazyLock<Regex> = LazyLock::new(|| {
        expression(&format!(r"(?i-u){AMOUNT}{SCALE}(?:\ ?(?:{SYMBOL}|{CODE}\b)|[\ -]?(?:us\ )?{WORD}\b)"))
    });
    static CODE_FIRST: LazyLock<Regex> =
        LazyLock::new(|| expression(&format!(r"(?i-u)\b{CODE}\ ?{AMOUNT}{SCALE}")));
    static SPELLED_OUT: LazyLock<Regex> = LazyLock::new(|| {
        expression(&format!(r"(?i-u)\b{SPELLED}(?:(?:[\ -]| and ){SPELLED}){{0,6}}[\ -]{WORD}\b"))
    });
    for (form, spelled) in
        [(&SYMBOL_FIRST, false), (&AMOUNT_FIRST, false), (&CODE_FIRST, false), (&SPELLED_OUT, true)]
    {
        for shape in form.find_iter(text) {
            let range = shape.range();
            if is_whole(text, &range) && is_amount(text, &range) {
                candidates.push(Candidate::new(Kind::Money, range, if spelled { 0.93 } else { 0.98 }));
            }
        }
    }
}

/// A price, not a weight (`5 pounds of rice`), and not the tail of something else (`covid-19 $`, `x#5$`).
fn is_amount(text: &str, range: &Range<usize>) -> bool {
    let value = &text[range.clone()];
    let pounds = value.len() >= 5 && value.to_ascii_lowercase().contains("pound");
    let weight = pounds && is_any(word_after(text, range.end), &["of", "heavier", "lighter", "overweight"]);
    let marked = before(text, range.start).is_some_and(|c| matches!(c, '#' | '$' | '€' | '£'));
    !weight && !marked && stands_alone(text, range)
}
