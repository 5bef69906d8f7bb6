//! Times of day: `5pm`, `17:30`, `10 o'clock`, `half past six`, `noon`.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::context::{before, ends_whole, is_whole, stands_alone};
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    // Hour, minutes, seconds, half of the day, offset or zone.
    static CLOCK: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?x-u)(?P<hour>[0-9]{1,2})
              (?:[:.](?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]{1,9})?)?)?
              (?:\ ?(?P<half>[aApP](?:\.[mM]\.|[mM]\b)))?
              (?:(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})|\ (?P<zone>UTC|GMT|[ECMP][SD]T|CES?T|BST|IST)\b)?",
        )
    });
    static SPOKEN: LazyLock<Regex> = LazyLock::new(|| {
        expression(
            r"(?ix-u)\b(?:
                (?:[0-9]{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\ ?o(?:'|’|`)?\ ?clock
              | (?:half\ past|(?:a\ )?quarter\ (?:past|to|till|after)|(?:five|ten|twenty)\ (?:past|to))\ 
                (?:[0-9]{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)
                (?:\ ?(?:am|pm))?
              | noon | midnight | midday
              )\b",
        )
    });
    for groups in CLOCK.captures_iter(text) {
        let range = groups.get_match().range();
        // In `2026-01-01T10:00` the T parts date and time; it is the only letter that may touch.
        let after_date = text[..range.start].ends_with(['T', 't'])
            && before(text, range.start - 1).is_some_and(|c| c.is_ascii_digit());
        let alone = if after_date { ends_whole(text, range.end) } else { is_whole(text, &range) };
        if alone && is_clock(&groups) {
            candidates.push(Candidate::new(Kind::Time, range, 0.97));
        }
    }
    for shape in SPOKEN.find_iter(text) {
        let hour = shape.as_str().split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
        let in_range = hour.is_none_or(|hour| hour.parse().is_ok_and(|hour: u32| (1..=12).contains(&hour)));
        if in_range && stands_alone(text, &shape.range()) {
            candidates.push(Candidate::new(Kind::Time, shape.range(), 0.95));
        }
    }
}

/// In range, and marked as a time: minutes after a colon, or a half of the day.
fn is_clock(groups: &Captures<'_>) -> bool {
    let part = |name| groups.name(name).and_then(|part| part.as_str().parse::<u32>().ok());
    let Some(hour) = part("hour") else { return false };
    let colon = groups.get(0).is_some_and(|whole| whole.as_str().contains(':'));
    let minutes =
        part("minute").is_none_or(|minute| minute < 60) && part("second").is_none_or(|second| second < 61);
    match (groups.name("half"), part("minute")) {
        (Some(_), _) => (1..=12).contains(&hour) && minutes,
        (None, Some(_)) => hour < 24 && minutes && colon,
        (None, None) => false,
    }
}
