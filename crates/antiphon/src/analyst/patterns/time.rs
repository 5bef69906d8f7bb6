//! Times of day: `5pm`, `17:30`, `9-11am`, `10 o'clock`, `half past six`, `noon`, `tomorrow at 10`.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::context::{
    before, cue_after, cue_before, ends_whole, is_any, is_whole, stands_alone, starts_whole, word_after,
    word_before,
};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    clocks(text, candidates);
    ranges(text, candidates);
    spoken(text, candidates);
    bare_hours(text, candidates);
}

/// `5pm`, `17:30`, `10:00:00Z`, `9 AM EST`.
fn clocks(text: &str, candidates: &mut Vec<Candidate>) {
    static CLOCK: LazyLock<Regex> =
        LazyLock::new(|| expression(&format!(r"(?x-u){HOUR}{MINUTES}(?:\ ?(?P<half>{HALF}))?{ZONE}")));
    for groups in CLOCK.captures_iter(text) {
        let range = groups.get_match().range();
        // In `2026-01-01T10:00` the T parts date and time; it is the only letter that may touch.
        let after_date = text[..range.start].ends_with(['T', 't'])
            && before(text, range.start - 1).is_some_and(|c| c.is_ascii_digit());
        let alone = if after_date { ends_whole(text, range.end) } else { is_whole(text, &range) };
        if alone && is_clock(&groups) && (groups.name("half").is_some() || !is_ratio(text, &range)) {
            candidates.push(Candidate::new(Kind::Time, range, 0.97));
        }
    }
}

/// `9am-5pm` is two times, `9-11am` is one.
fn ranges(text: &str, candidates: &mut Vec<Candidate>) {
    static RANGE: LazyLock<Regex> = LazyLock::new(|| {
        let from =
            format!(r"(?P<from>(?P<hour>[0-9]{{1,2}})(?::(?P<minute>[0-9]{{2}}))?(?:\ ?(?P<half>{HALF}))?)");
        let to = format!(
            r"(?P<to>(?P<hour2>[0-9]{{1,2}})(?::(?P<minute2>[0-9]{{2}}))?(?:\ ?(?P<half2>{HALF}))?{ZONE})"
        );
        expression(&format!(r"(?x-u){from}(?:\ ?(?:-|–|—)\ ?|\ to\ ){to}"))
    });
    for groups in RANGE.captures_iter(text) {
        let range = groups.get_match().range();
        let number = |name| groups.name(name).and_then(|part| part.as_str().parse::<u32>().ok());
        let holds = |hour, minute, half: &str| {
            let hours = if groups.name(half).is_some() { 1..13 } else { 0..24 };
            number(hour).is_some_and(|hour| hours.contains(&hour))
                && number(minute).is_none_or(|minute| minute < 60)
        };
        let real = holds("hour", "minute", "half") && holds("hour2", "minute2", "half2");
        if !real || !starts_whole(text, range.start) || !ends_whole(text, range.end) {
            continue;
        }
        let marked = |half, minute| groups.name(half).is_some() || groups.name(minute).is_some();
        match (marked("half", "minute"), marked("half2", "minute2"), groups.name("half2").is_some()) {
            (true, true, _) => {
                let ends = ["from", "to"].into_iter().filter_map(|end| groups.name(end));
                candidates.extend(ends.map(|end| Candidate::new(Kind::Time, end.range(), 0.95)));
            }
            (false, _, true) if number("hour").is_some_and(|hour| hour <= 12) => {
                candidates.push(Candidate::new(Kind::Time, range, 0.95));
            }
            _ => {}
        }
    }
}

/// `10 o'clock`, `half past six`, `noon`.
fn spoken(text: &str, candidates: &mut Vec<Candidate>) {
    static SPOKEN: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:
                (?:[0-9]{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\ ?o(?:'|’|`)?\ ?clock
              | (?:half\ past|quarter\ (?:past|to|till|after)|(?:five|ten|twenty(?:[\ -]five)?)\ (?:past|to)|(?:5|10|20|25)\ past)\ 
                (?:[0-9]{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)
                (?:\ ?(?:am|pm))?
              | noon | midnight | midday
              )\b",
        )
    });
    for shape in SPOKEN.find_iter(text) {
        let hour = shape.as_str().split(|c: char| !c.is_ascii_digit()).rfind(|part| !part.is_empty());
        let in_range = hour.is_none_or(|hour| hour.parse().is_ok_and(|hour: u32| (1..=12).contains(&hour)));
        if in_range && stands_alone(text, &shape.range()) {
            candidates.push(Candidate::new(Kind::Time, shape.range(), 0.95));
        }
    }
}

/// A number of one or two digits after `at`, with a word for the day beside it: `tomorrow at 10`, `at 9 on Monday`.
fn bare_hours(text: &str, candidates: &mut Vec<Candidate>) {
    static HOUR_AFTER: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?i-u)\b(?:at|around|by|before|after|until|till)\ (?P<hour>[1-9]|1[0-2])\b")
    });
    for groups in HOUR_AFTER.captures_iter(text) {
        let Some(hour) = groups.name("hour").map(|hour| hour.range()) else { continue };
        let next = word_after(text, hour.end);
        let day_follows = is_any(next, DAYS)
            || is_any(next, &["on", "in"]) && cue_after(text, hour.end, 3, DAYS)
            || is_any(next, &["sharp"]);
        let day_precedes = is_any(word_before(text, groups.get_match().start()), DAYS)
            && (next.is_empty() || is_any(next, AFTER_HOUR));
        if (day_follows || day_precedes) && is_whole(text, &hour) && ends_a_number(text, hour.end) {
            candidates.push(Candidate::new(Kind::Time, hour, 0.85));
        }
    }
}

/// Not `at 5% today`, `at 5€`.
fn ends_a_number(text: &str, at: usize) -> bool {
    let rest = text[at..].trim_start();
    !rest.starts_with(['%', '$', '€', '£', '+', '*', '°'])
}

/// In range, and marked as a time: minutes after a colon, or a half of the day.
fn is_clock(groups: &Captures<'_>) -> bool {
    let part = |name| groups.name(name).and_then(|part| part.as_str().parse::<u32>().ok());
    let Some(hour) = part("hour") else { return false };
    let colon = groups.get_match().as_str().contains(':');
    let minutes =
        part("minute").is_none_or(|minute| minute < 60) && part("second").is_none_or(|second| second < 61);
    match (groups.name("half"), part("minute")) {
        (Some(_), _) => (1..=12).contains(&hour) && minutes,
        (None, Some(_)) => hour < 24 && minutes && colon,
        (None, None) => false,
    }
}

/// `mix it 1:10`, `a 16:10 screen`, `John 3:16`, `2:15 in the video`, `a run of 2:45 minutes`.
fn is_ratio(text: &str, range: &Range<usize>) -> bool {
    cue_before(text, range.start, 3, RATIOS)
        || is_any(word_before(text, range.start), BOOKS)
        || is_any(word_after(text, range.end), RATIOS)
        || is_any(word_after(text, range.end), UNITS)
        || cue_after(text, range.end, 3, RECORDINGS)
        || cue_before(text, range.start, 3, RECORDINGS)
}

const HOUR: &str = r"(?P<hour>[0-9]{1,2})";
const MINUTES: &str = r"(?:[:.](?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]{1,9})?)?)?";
const HALF: &str = r"[aApP](?:\.[mM]\.|\.?[mM]\b)";
const ZONE: &str = r"(?:(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})|\ (?P<zone>UTC|GMT|[ECMP][SD]?T|[CEW]ES?T|BST|IST|MSK|JST|SGT|HKT|A[EWC][SD]T|NZ[SD]T)\b)?";
#[rustfmt::skip]
const DAYS: &[&str] = &[
    "today", "tomorrow", "tonight", "yesterday", "tmrw", "morning", "evening", "afternoon", "night", "monday",
    "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
];
/// What may follow an hour that is said after its day.
const AFTER_HOUR: &[&str] =
    &["and", "or", "please", "pls", "if", "when", "but", "for", "on", "then", "instead", "thanks", "ok"];
#[rustfmt::skip]
const RATIOS: &[&str] = &[
    "ratio", "ratios", "scale", "scales", "scaled", "aspect", "mix", "mixed", "dilute", "diluted", "screen", "score",
    "scored", "won", "lost", "beat", "win", "verse", "chapter", "odds",
];
#[rustfmt::skip]
const BOOKS: &[&str] = &[
    "genesis", "exodus", "psalm", "psalms", "proverbs", "isaiah", "matthew", "mark", "luke", "john", "acts", "romans",
    "corinthians", "hebrews", "revelation", "surah",
];
const UNITS: &[&str] =
    &["minutes", "minute", "mins", "min", "hours", "hrs", "seconds", "long", "left", "remaining"];
const RECORDINGS: &[&str] =
    &["video", "clip", "movie", "film", "song", "track", "recording", "episode", "podcast"];
