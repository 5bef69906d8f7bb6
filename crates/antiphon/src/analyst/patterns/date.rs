//! Dates that exist: `2026-03-01`, `3/14/2026`, `1st of March`, `next Friday`, `tomorrow`.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::context::{
    after, cue_before, ends_whole, is_any, stands_alone, starts_whole, word_after, word_before, words_before,
};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    numeric(text, candidates);
    named(text, candidates);
    relative(text, candidates);
}

/// `2026-03-01`, `01.03.2026`, `3/1/26`, and `on 3/1`.
fn numeric(text: &str, candidates: &mut Vec<Candidate>) {
    static NUMERIC: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?x-u)(?P<y>[0-9]{4})(?P<s1>[./-])(?P<m>[0-9]{1,2})(?P<s2>[./-])(?P<d>[0-9]{1,2})
              | (?P<month>0?[1-9]|1[0-2])/(?P<year>20[0-9]{2})\b
              | (?P<a>[0-9]{1,2})(?P<s3>[./-])(?P<b>[0-9]{1,2})(?:(?P<s4>[./-])(?P<c>[0-9]{4}|[0-9]{2}))?",
        )
    });
    for groups in NUMERIC.captures_iter(text) {
        let range = groups.get_match().range();
        let number = |name| groups.name(name).and_then(|part| part.as_str().parse::<u32>().ok());
        let same = |one, two| groups.name(one).map(|s| s.as_str()) == groups.name(two).map(|s| s.as_str());
        let confidence = if let (Some(year), Some(month), Some(day)) = (number("y"), number("m"), number("d"))
        {
            (same("s1", "s2") && is_year(year) && exists(Some(year), month, day)).then_some(0.98)
        } else if let (Some(a), Some(b)) = (number("a"), number("b")) {
            match number("c") {
                Some(year) if same("s3", "s4") => numeric_with_year(&groups, a, b, year),
                Some(_) => None,
                None if is_expiry(text, &range, &groups, a) => Some(0.9),
                None => is_announced(text, &range, &groups, a, b).then_some(0.8),
            }
        } else {
            groups.name("month").map(|_| 0.9)
        };
        if let Some(confidence) = confidence.filter(|_| is_whole_or_before_time(text, &range)) {
            candidates.push(Candidate::new(Kind::Date, range, confidence));
        }
    }
}

/// Either order of day and month counts; with points a two-digit year needs two-digit neighbours (`1.2.34` is a version).
fn numeric_with_year(groups: &Captures<'_>, a: u32, b: u32, year: u32) -> Option<f64> {
    let width = |name| groups.name(name).map_or(0, |part| part.len());
    let short = width("c") == 2;
    let full_year = if short { 2000 + year } else { year };
    let version_like = short && &groups["s3"] == "." && (width("a") < 2 || width("b") < 2);
    let holds = exists(Some(full_year), a, b) || exists(Some(full_year), b, a);
    (holds && is_year(full_year) && !version_like).then_some(if short { 0.9 } else { 0.97 })
}

/// `expires 09/27`: month and year.
fn is_expiry(text: &str, range: &Range<usize>, groups: &Captures<'_>, month: u32) -> bool {
    &groups["s3"] == "/"
        && (1..=12).contains(&month)
        && groups["b"].len() == 2
        && cue_before(text, range.start, 3, EXPIRING)
}

/// `on 3/14` is a date, `3/4 cup` and `24/7` are not.
fn is_announced(text: &str, range: &Range<usize>, groups: &Captures<'_>, a: u32, b: u32) -> bool {
    &groups["s3"] == "/"
        && (exists(None, a, b) || exists(None, b, a))
        && (a, b) != (24, 7)
        && cue_before(text, range.start, 1, BEFORE_DATE)
        && !is_any(word_after(text, range.end), MEASURES)
}

/// With the month's name, a weekday before it or not; also a month or a year alone after `in`, `since`, ….
fn named(text: &str, candidates: &mut Vec<Candidate>) {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        let weekday = format!(r"(?:(?:{WEEKDAY}|mon|tues?|wed|thurs?|thu|fri|sat|sun)\.?,?\ (?:the\ )?)?");
        let month = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)";
        let first = r"(?:[0-9]{1,2}(?:st|nd|rd|th)?(?:\ ?(?:-|–)\ ?|\ to\ ))?";
        let last = r"(?:\ ?(?:-|–)\ ?[0-9]{1,2}(?:st|nd|rd|th)?\b)?";
        expression(&format!(
            r"(?ix-u)\b(?:
                {weekday}{first}(?P<d1>[0-9]{{1,2}})(?P<o1>st|nd|rd|th)?[\ -]?(?:of\ )?(?P<m1>{month})\b\.?(?:(?:,\ ?|\ |-)(?P<y1>[0-9]{{4}})\b)?
              | {weekday}(?P<m2>{month})\b\.?\ ?(?:the\ )?(?P<d2>[0-9]{{1,2}})(?P<o2>st|nd|rd|th)?\b{last}(?:,?\ (?P<y2>[0-9]{{4}})\b)?
              | (?P<m3>{month})\b\.?(?:,?\ (?P<y3>[0-9]{{4}})\b)?
              | (?P<y4>(?:19|20)[0-9]{{2}})
              )",
        ))
    });
    for groups in NAMED.captures_iter(text) {
        let range = groups.get_match().range();
        // The point of an abbreviation belongs to the date only inside it.
        let range = if text[range.clone()].ends_with('.') { range.start..range.end - 1 } else { range };
        let text_of =
            |names: [&str; 3]| names.iter().find_map(|name| groups.name(name)).map(|part| part.as_str());
        let month_name = text_of(["m1", "m2", "m3"]);
        let day = text_of(["d1", "d2", "d2"]).and_then(|day| day.parse().ok());
        let year = text_of(["y1", "y2", "y3"]).and_then(|year| year.parse().ok());
        let ordinal = groups.name("o1").is_some() || groups.name("o2").is_some();
        let confidence = match (month_name.and_then(month_number), day) {
            (Some(month), Some(day)) => {
                let is_word = month_name
                    .is_some_and(|name| is_any(name, WORDS_TOO) && name.starts_with(char::is_lowercase));
                let sure =
                    !is_word || ordinal || year.is_some() || cue_before(text, range.start, 1, BEFORE_DATE);
                (sure && year.is_none_or(is_year) && exists(year, month, day)).then_some(0.97)
            }
            (Some(_), None) => match year {
                Some(year) => is_year(year).then_some(0.95),
                None => month_name.is_some_and(|name| is_month(text, &range, name)).then_some(0.85),
            },
            (None, _) => (cue_before(text, range.start, 1, BEFORE_YEAR)
                || links(text, range.start, |word| word.len() == 4 && word.starts_with(['1', '2'])))
            .then_some(0.7),
        };
        if let Some(confidence) = confidence.filter(|_| is_whole_or_before_time(text, &range)) {
            candidates.push(Candidate::new(Kind::Date, range, confidence));
        }
    }
}

/// `October` is nothing else; `in May`, `since march`, `in Feb and Apr` are told by the word before.
fn is_month(text: &str, range: &Range<usize>, name: &str) -> bool {
    let capital = name.starts_with(char::is_uppercase);
    let is_word = is_any(name, WORDS_TOO);
    let cues = if is_word && !capital { BEFORE_MONTH_IN_LOWER_CASE } else { BEFORE_MONTH };
    is_any(name, NOTHING_ELSE)
        || cue_before(text, range.start, 1, cues)
        || (capital || !is_word)
            && links(text, range.start, |word| month_number(word).is_some() && word.len() <= 9)
}

/// Whether `and`, `or` or `to` before `at` joins to another such word: `from 1998 to 2004`.
fn links(text: &str, at: usize, is_such: impl Fn(&str) -> bool) -> bool {
    let mut words = words_before(text, at);
    words.next().is_some_and(|word| is_any(word, &["and", "or", "to"])) && words.next().is_some_and(is_such)
}

/// Seen from today: `tomorrow`, `next week`, `last Friday`, `3 days ago`, `in two weeks`; and `the 5th`.
fn relative(text: &str, candidates: &mut Vec<Candidate>) {
    static RELATIVE: LazyLock<Regex> = LazyLock::new(|| {
        let count = r"(?:[0-9]{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)";
        let unit = r"(?:days?|weeks?|months?|years?)";
        expression(&format!(
            r"(?ix-u)\b(?:
                day\ (?:after\ tomorrow|before\ yesterday)
              | today | tomm?orr?ow | yesterday | tonight | tmrw | tmr
              | last\ night | this\ (?:morning|afternoon|evening)
              | (?:this\ )?(?:next|last|this|past|coming|following)\ (?:{WEEKDAY}|week(?:end)?|month|quarter|year)
              | {WEEKDAY}s?
              | (?P<in>in\ {count}\ {unit})
              | {count}\ {unit}\ (?:ago|from\ (?:now|today))
              )\b"
        ))
    });
    static ORDINAL: LazyLock<Regex> = LazyLock::new(|| {
        expression(&format!(
            r"(?ix-u)\b(?:(?P<weekday>(?:{WEEKDAY}|mon|tues?|wed|thurs?|thu|fri|sat|sun),?)\ (?:the\ )?|the\ )
              (?P<ordinal>(?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)\b(?P<of>\ of\ (?:this|next|last|the)\ month\b)?)"
        ))
    });
    static SHORT: LazyLock<Regex> =
        LazyLock::new(|| expression(r"(?i-u)\b(?:mon|tues?|wed|thurs?|thu|fri|sat|sun)\b"));
    for groups in RELATIVE.captures_iter(text) {
        let range = groups.get_match().range();
        let joined = after(text, range.end).is_some_and(|c| c == '_');
        // `Black Friday` is a feast, `in ten years of trade` and `in a day or two` are none of the calendar's.
        let feast = is_any(word_before(text, range.start), FEASTS);
        let vague = groups.name("in").is_some() && is_any(word_after(text, range.end), &["of", "or"]);
        if stands_alone(text, &range) && !joined && !feast && !vague {
            candidates.push(Candidate::new(Kind::Date, range, 0.93));
        }
    }
    for groups in ORDINAL.captures_iter(text) {
        let (Some(ordinal), Some(day)) = (groups.name("ordinal"), groups.name("day")) else { continue };
        let weekday = groups.name("weekday");
        let range = weekday.map_or(ordinal.start(), |weekday| weekday.start())..ordinal.end();
        // `on the 5th`, and not `on the 5th floor`.
        let next = word_after(text, range.end);
        let announced = cue_before(text, groups.get_match().start(), 1, BEFORE_ORDINAL)
            && (next.is_empty() || is_any(next, AFTER_ORDINAL));
        let real = day.as_str().parse().is_ok_and(|day: u32| (1..=31).contains(&day));
        if real
            && (weekday.is_some() || groups.name("of").is_some() || announced)
            && stands_alone(text, &range)
        {
            candidates.push(Candidate::new(Kind::Date, range, 0.85));
        }
    }
    for shape in SHORT.find_iter(text) {
        if is_short_weekday(text, &shape.range()) && stands_alone(text, &shape.range()) {
            candidates.push(Candidate::new(Kind::Date, shape.range(), 0.8));
        }
    }
}

/// `Mon-Fri`, `on Tue`, `by thu`; but `sat on`, `the sun`, `wed in spring` are words.
fn is_short_weekday(text: &str, range: &Range<usize>) -> bool {
    let name = &text[range.clone()];
    let capital = name.starts_with(char::is_uppercase) && !name.ends_with(char::is_uppercase);
    let joins = |c: char| matches!(c, '-' | '–' | '/');
    let (left, right) =
        (text[..range.start].trim_end_matches(joins), text[range.end..].trim_start_matches(joins));
    let left_day = left.len() < range.start && is_weekday(word_before(left, left.len()));
    let right_day = right.len() < text.len() - range.end && is_weekday(word_after(right, 0));
    let is_word = is_any(name, &["sat", "sun", "wed"]);
    left_day
        || right_day
        || (capital || !is_word) && cue_before(text, range.start, 1, BEFORE_WEEKDAY)
        || capital && links(text, range.start, is_weekday)
}

fn is_weekday(word: &str) -> bool {
    is_any(word, WEEKDAYS)
}

/// `2026-01-01T10:00` holds a date that a letter touches; nothing else may.
fn is_whole_or_before_time(text: &str, range: &Range<usize>) -> bool {
    let rest = &text.as_bytes()[range.end..];
    let time_follows = matches!(rest, [b'T' | b't', digit, ..] if digit.is_ascii_digit());
    let other = is_any(word_before(text, range.start), NUMBERED_THINGS);
    let marked = text[..range.start].ends_with(['$', '€', '£', '#']);
    let starts = starts_whole(text, range.start)
        || text[..range.start].ends_with('-') && is_any(word_before(text, range.start), &["mid"]);
    !other && !marked && starts && (time_follows || ends_whole(text, range.end))
}

fn month_number(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase();
    let index = MONTHS.iter().position(|month| name.starts_with(month))?;
    u32::try_from(index + 1).ok()
}

/// Whether the calendar has that day; without a year, in a leap year.
fn exists(year: Option<u32>, month: u32, day: u32) -> bool {
    let leap = year.is_none_or(|year| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// Years that people write about with four digits.
fn is_year(year: u32) -> bool {
    (1000..=2999).contains(&year)
}

const WEEKDAY: &str = "(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)";
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
#[rustfmt::skip]
const WEEKDAYS: &[&str] = &[
    "mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun", "monday", "tuesday", "wednesday",
    "thursday", "friday", "saturday", "sunday",
];
/// Month names that nothing else has.
const NOTHING_ELSE: &[&str] =
    &["january", "february", "july", "september", "october", "november", "december"];
/// Month names that are other words in lower case.
const WORDS_TOO: &[&str] = &["may", "march", "mar", "august", "dec", "sep", "jan"];
const BEFORE_DATE: &[&str] = &[
    "on", "by", "since", "until", "till", "before", "after", "from", "due", "dated", "date", "to", "through",
    "around",
];
const BEFORE_MONTH: &[&str] = &[
    "in", "since", "until", "till", "by", "last", "next", "this", "of", "from", "before", "after", "during",
    "through", "every", "early", "late", "mid", "between",
];
const BEFORE_YEAR: &[&str] =
    &["in", "since", "until", "till", "by", "year", "from", "before", "after", "during"];
const BEFORE_MONTH_IN_LOWER_CASE: &[&str] =
    &["in", "since", "until", "till", "during", "early", "late", "mid", "last", "next"];
const BEFORE_ORDINAL: &[&str] =
    &["on", "by", "until", "till", "since", "from", "before", "after", "to", "between", "and", "or", "for"];
#[rustfmt::skip]
const AFTER_ORDINAL: &[&str] = &[
    "and", "or", "at", "to", "but", "please", "pls", "when", "if", "i", "we", "you", "it", "they", "with", "is", "was",
    "because", "so", "then", "until", "instead", "thanks", "around", "before", "after", "not", "via", "by", "in", "for",
];
const BEFORE_WEEKDAY: &[&str] = &[
    "on", "by", "until", "till", "since", "from", "before", "after", "next", "last", "this", "every", "due",
];
/// Words before a weekday that make it a feast or a shop.
const FEASTS: &[&str] = &[
    "black", "good", "cyber", "ash", "easter", "giving", "maundy", "palm", "shrove", "super", "tgi", "ruby",
];
const EXPIRING: &[&str] =
    &["exp", "expiry", "expires", "expire", "expired", "expiring", "expiration", "valid", "thru"];
/// Words that number what looks like a date: a release, a bank's sort code.
const NUMBERED_THINGS: &[&str] = &["version", "v", "release", "code", "part", "serial", "model", "section"];
#[rustfmt::skip]
const MEASURES: &[&str] = &[
    "cup", "cups", "of", "inch", "inches", "mile", "miles", "teaspoon", "tablespoon", "tsp", "tbsp", "lb", "lbs",
    "hours",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_that_the_calendar_has_exist() {
        for (year, month, day) in [(2026, 2, 28), (2024, 2, 29), (2000, 2, 29), (2026, 12, 31), (2026, 4, 30)]
        {
            assert!(exists(Some(year), month, day), "{year}-{month}-{day}");
        }
        for (year, month, day) in [
            (2026, 2, 30),
            (2026, 2, 29),
            (1900, 2, 29),
            (2026, 4, 31),
            (2026, 13, 1),
            (2026, 0, 1),
            (2026, 1, 0),
        ] {
            assert!(!exists(Some(year), month, day), "{year}-{month}-{day}");
        }
        assert!(exists(None, 2, 29));
    }
}
