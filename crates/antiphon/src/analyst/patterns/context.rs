//! The words around a candidate, never further away than a fixed number of bytes.

use std::ops::Range;

/// Bytes looked at before and after a candidate.
const REACH: usize = 64;
/// What holds a number, a date or a word together.
const JOINTS: [char; 6] = ['.', ',', ':', '/', '-', '\''];

/// The words before `at`, the nearest first.
pub(super) fn words_before(text: &str, at: usize) -> impl Iterator<Item = &str> {
    let from = text.floor_char_boundary(at.saturating_sub(REACH));
    words(text[from..at].rsplit(is_gap))
}

/// The words after `at`, the nearest first.
pub(super) fn words_after(text: &str, at: usize) -> impl Iterator<Item = &str> {
    words(bounded(text, at).split(is_gap))
}

/// The word right before `at`, empty where there is none.
pub(super) fn word_before(text: &str, at: usize) -> &str {
    words_before(text, at).next().unwrap_or("")
}

/// The word right after `at`: only blanks may lie between.
pub(super) fn word_after(text: &str, at: usize) -> &str {
    let rest = bounded(text, at).trim_start();
    &rest[..rest.find(is_gap).unwrap_or(rest.len())]
}

/// The next few words of the text: enough for the longest id.
pub(super) fn bounded(text: &str, at: usize) -> &str {
    &text[at..text.floor_char_boundary(text.len().min(at + REACH))]
}

/// Whether one of the `reach` words before `at` is in `cues` (lower case).
pub(super) fn cue_before(text: &str, at: usize, reach: usize, cues: &[&str]) -> bool {
    words_before(text, at).take(reach).any(|word| is_any(word, cues))
}

/// Whether one of the `reach` words after `at` is in `cues` (lower case).
pub(super) fn cue_after(text: &str, at: usize, reach: usize, cues: &[&str]) -> bool {
    words_after(text, at).take(reach).any(|word| is_any(word, cues))
}

/// Whether a word is in a list of lower-case words; either apostrophe will do.
pub(super) fn is_any(word: &str, list: &[&str]) -> bool {
    let plain = |c: char| if c == '’' { '\'' } else { c.to_ascii_lowercase() };
    list.iter().any(|entry| word.chars().map(plain).eq(entry.chars()))
}

/// Whether no letter, digit or underscore touches the range.
pub(super) fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    !before(text, range.start).is_some_and(joins) && !after(text, range.end).is_some_and(joins)
}

/// Whether the range is not a piece of something longer with points, colons, slashes or hyphens: `1.2` in `1.2.3`.
pub(super) fn is_whole(text: &str, range: &Range<usize>) -> bool {
    starts_whole(text, range.start) && ends_whole(text, range.end)
}

/// The left half of [`is_whole`].
pub(super) fn starts_whole(text: &str, at: usize) -> bool {
    match before(text, at) {
        None => true,
        Some(c) if c.is_alphanumeric() || c == '_' => false,
        Some(c) if JOINTS.contains(&c) || c == '@' => {
            !before(text, at - c.len_utf8()).is_some_and(|earlier| earlier.is_alphanumeric())
        }
        Some(_) => true,
    }
}

/// The right half of [`is_whole`].
pub(super) fn ends_whole(text: &str, at: usize) -> bool {
    match after(text, at) {
        None => true,
        Some(c) if c.is_alphanumeric() || c == '_' => false,
        Some(c) if JOINTS.contains(&c) => {
            !after(text, at + c.len_utf8()).is_some_and(|next| next.is_ascii_digit())
        }
        Some(_) => true,
    }
}

/// Whether an id ends here: not cut out of an address, a time, an amount or something longer.
pub(super) fn id_ends(text: &str, at: usize) -> bool {
    let mut rest = text[at..].chars();
    match (rest.next(), rest.next()) {
        (Some(c), _) if c.is_alphanumeric() || matches!(c, '_' | '@' | '%' | '$' | '€') => false,
        (Some('.' | ':' | ',' | '-' | '\'' | '/'), Some(next)) => !next.is_alphanumeric(),
        _ => true,
    }
}

pub(super) fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

pub(super) fn after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

pub(super) fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn words<'a>(parts: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    parts.map(|part| part.trim_matches(['\'', '’'])).filter(|word| !word.is_empty())
}

fn is_gap(c: char) -> bool {
    !c.is_alphanumeric() && c != '\'' && c != '’'
}
