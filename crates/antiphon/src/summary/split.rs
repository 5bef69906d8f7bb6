//! Texts and dialogues cut into sentences: the boundaries of Unicode's annex 29, mended where they fall behind an
//! abbreviation, with the turns of a dialogue kept apart and their speakers known.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// A sentence, and who says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sentence<'a> {
    /// As it stands in the text, line breaks included.
    pub(crate) text: &'a str,
    /// The label of the turn, where the text is a dialogue.
    pub(crate) speaker: Option<&'a str>,
    /// Sentences of one turn or one paragraph stand together.
    pub(crate) turn: usize,
}

/// The sentences of a text, in order. A text that is not blank has at least one.
pub(crate) fn sentences(text: &str) -> Vec<Sentence<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let labels = speakers(&lines);
    let mut sentences = Vec::new();
    let mut speaker = None;
    for (turn, block) in blocks(&lines, &labels).into_iter().enumerate() {
        let first = lines[block.start];
        let (label, start) = match label(first).filter(|(label, _)| labels.contains(label)) {
            Some((label, rest)) => (Some(label), rest),
            None => (None, first),
        };
        // Behind its label a dialogue's turn goes on over lines without one.
        speaker = label.or(speaker);
        let last = lines[block.end - 1];
        let stretch = &text[offset(text, start)..offset(text, last) + last.len()];
        for piece in pieces(stretch) {
            // Some transcripts change speakers within a line.
            let inner = if labels.is_empty() { None } else { label_of(piece, &labels) };
            let piece = inner.map_or(piece, |(label, rest)| {
                speaker = Some(label);
                rest
            });
            if !piece.is_empty() {
                sentences.push(Sentence { text: piece, speaker, turn });
            }
        }
    }
    if sentences.is_empty() {
        // Labels with nothing behind them.
        sentences.push(Sentence { text: text.trim(), speaker: None, turn: 0 });
    }
    sentences
}

/// Several sentences as one text: turns on lines of their own behind their speakers, the rest as running text.
pub(crate) fn render<'a>(sentences: impl IntoIterator<Item = &'a Sentence<'a>>) -> String {
    let mut out = String::new();
    let mut last: Option<&Sentence<'_>> = None;
    for sentence in sentences {
        let same_turn =
            last.is_some_and(|last| last.turn == sentence.turn && last.speaker == sentence.speaker);
        match sentence.speaker {
            Some(speaker) if !same_turn => {
                out.push_str(if last.is_some() { "\n" } else { "" });
                out.push_str(speaker);
                out.push_str(": ");
            }
            _ => out.push_str(last.map_or("", |last| joint(&out, last.turn == sentence.turn))),
        }
        let mut words = sentence.text.split_whitespace();
        out.push_str(words.next().unwrap_or_default());
        for word in words {
            out.push(' ');
            out.push_str(word);
        }
        last = Some(sentence);
    }
    out
}

/// What goes between a sentence and the next.
fn joint(before: &str, same_turn: bool) -> &'static str {
    match before.chars().next_back() {
        // Their full stops have their own room.
        Some('。' | '！' | '？') => "",
        // A heading or an item of a list.
        Some(c) if !same_turn && c.is_alphanumeric() => "\n",
        _ => " ",
    }
}

/// The labels at the beginnings of lines, if there are so many that the text must be a dialogue.
fn speakers<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let filled = lines.iter().filter(|line| !line.trim().is_empty()).count();
    let labelled: Vec<&str> = lines.iter().filter_map(|line| Some(label(line)?.0)).collect();
    if labelled.len() < 2 || labelled.len() * DIALOGUE_SHARE < filled {
        return Vec::new();
    }
    let mut labels = labelled;
    labels.sort_unstable();
    labels.dedup();
    labels.truncate(MAX_SPEAKERS);
    labels
}

/// `Speaker: text`, `#Person1#: text`: the label and what is behind it.
fn label(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let (colon, sign) = line.char_indices().take(LABEL_CHARS).find(|(_, c)| matches!(c, ':' | '：'))?;
    let (label, rest) = (line[..colon].trim_end(), &line[colon + sign.len_utf8()..]);
    let is_name = label.chars().all(|c| c.is_alphanumeric() || " ._-'’#()&/".contains(c))
        && label.chars().any(char::is_alphabetic)
        && label.split(' ').count() <= LABEL_WORDS;
    // `12:30`, `https://…` are no labels.
    let apart = sign != ':' || rest.is_empty() || rest.starts_with(char::is_whitespace);
    (is_name && apart).then(|| (label, rest.trim_start()))
}

/// A known label at the beginning of a sentence.
fn label_of<'a>(piece: &'a str, labels: &[&str]) -> Option<(&'a str, &'a str)> {
    label(piece).filter(|(label, _)| labels.binary_search(label).is_ok())
}

/// Runs of lines that belong together: a turn, a paragraph, an item of a list, a heading.
fn blocks(lines: &[&str], labels: &[&str]) -> Vec<Range<usize>> {
    let mut blocks: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (index, line) in lines.iter().enumerate() {
        if line.trim().is_empty() {
            open = false;
            continue;
        }
        let turn = label_of(line, labels).is_some();
        match blocks.last_mut() {
            Some(block) if open && !turn && !begins_anew(lines[index - 1], line) => block.end = index + 1,
            _ => blocks.push(index..index + 1),
        }
        open = true;
    }
    blocks
}

/// Whether a line cannot be the rest of the one before it.
fn begins_anew(before: &str, line: &str) -> bool {
    let (before, line) = (before.trim_end(), line.trim_start());
    let item = line.starts_with(['-', '*', '•', '–', '#', '>', '|'])
        || line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['.', ')'])
            && line.starts_with(|c: char| c.is_ascii_digit());
    // A short line without an end is a heading or an item, unless the next one goes on in lower case.
    let cut_short = before.chars().count() < WRAP_CHARS && !line.starts_with(char::is_lowercase);
    item || cut_short
}

/// Sentences of a stretch without speakers. Line breaks inside it are blanks.
fn pieces(stretch: &str) -> Vec<&str> {
    // The same length in bytes, so that places in one are places in the other.
    let flat: String = stretch.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).collect();
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (start, piece) in flat.split_sentence_bound_indices() {
        let end = start + piece.len();
        let says_something = piece.contains(char::is_alphanumeric);
        match pieces.last_mut() {
            Some(last) if open || !says_something => last.end = end,
            _ => pieces.push(start..end),
        }
        let next = &flat[end..];
        open = ends_in_abbreviation(piece)
            || ends_in_day(piece) && MONTHS.iter().any(|month| next.starts_with(month));
    }
    pieces.into_iter().map(|range| stretch[range].trim()).filter(|piece| !piece.is_empty()).collect()
}

/// `Dr.`, `e.g.`, `J.`: the full stop does not end a sentence.
fn ends_in_abbreviation(piece: &str) -> bool {
    let Some(body) = piece.trim_end().strip_suffix('.') else { return false };
    let word =
        body.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '“')).next().unwrap_or_default();
    let initial = word.rsplit('.').next().is_some_and(|letter| {
        let mut letters = letter.chars();
        letters.next().is_some_and(|c| c.is_uppercase() && c != 'I') && letters.next().is_none()
    });
    initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// `am 3.`, before a month.
fn ends_in_day(piece: &str) -> bool {
    let body = piece.trim_end().strip_suffix('.').unwrap_or_default();
    matches!(body.len() - body.trim_end_matches(|c: char| c.is_ascii_digit()).len(), 1 | 2)
}

/// Where a part of a text begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// Words whose full stop is followed by a name or a number rather than by a new sentence.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "rev", "hon", "gen", "col", "capt", "lt", "sgt", "vs",
    "e.g", "i.e", "cf", "fig", "approx", "dept", "est", "bzw", "z.b", "ca", "nr", "mme", "mlle",
];

/// Of languages that write the day of a month with a full stop.
const MONTHS: &[&str] = &[
    "Januar",
    "Jänner",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];

/// One line in so many has to begin with a label for a text to be a dialogue.
const DIALOGUE_SHARE: usize = 3;
const MAX_SPEAKERS: usize = 1024;
const LABEL_CHARS: usize = 40;
const LABEL_WORDS: usize = 4;
/// Shorter lines were not broken by a margin.
const WRAP_CHARS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|sentence| sentence.text).collect()
    }

    fn said(text: &str) -> Vec<(Option<&str>, &str)> {
        sentences(text).into_iter().map(|sentence| (sentence.speaker, sentence.text)).collect()
    }

    #[test]
    fn sentences_end_where_they_end_and_not_behind_abbreviations() {
        assert_eq!(
            texts("Dr. J. Smith paid 3.50 to Mr. Ng. Is that all? It is!  So it goes..."),
            ["Dr. J. Smith paid 3.50 to Mr. Ng.", "Is that all?", "It is!", "So it goes..."]
        );
        assert_eq!(
            texts("Es kam am 3. Mai an. Am 12. war es weg."),
            ["Es kam am 3. Mai an.", "Am 12. war es weg."]
        );
        assert_eq!(texts("会议在星期一举行。大家同意了！"), ["会议在星期一举行。", "大家同意了！"]);
        assert_eq!(texts("no end"), ["no end"]);
        assert_eq!(texts("  ... ?! "), ["... ?!"]);
    }

    #[test]
    fn a_line_broken_by_a_margin_goes_on_and_a_heading_does_not() {
        let text = "Results\n\nThe first quarter was better than anybody in the company\nhad hoped for. Sales rose.\n\n- one item\n- another item\n2. a third";
        assert_eq!(
            texts(text),
            [
                "Results",
                "The first quarter was better than anybody in the company\nhad hoped for.",
                "Sales rose.",
                "- one item",
                "- another item",
                "2. a third"
            ]
        );
    }

    #[test]
    fn turns_of_a_dialogue_know_their_speakers() {
        let dialogue = "Dr. Weiß: Good day. How are you?\r\n#Person2#: Fine: really.\nAnd you?\n\nDr. Weiß:\nAnna Maria：好。";
        assert_eq!(
            said(dialogue),
            [
                (Some("Dr. Weiß"), "Good day."),
                (Some("Dr. Weiß"), "How are you?"),
                (Some("#Person2#"), "Fine: really."),
                (Some("#Person2#"), "And you?"),
                (Some("Anna Maria"), "好。"),
            ]
        );
        let turns: Vec<usize> = sentences(dialogue).iter().map(|sentence| sentence.turn).collect();
        assert_eq!((turns[0], turns[1]), (turns[0], turns[0]));
        assert!(turns[2] > turns[1] && turns[4] > turns[3]);
    }

    #[test]
    fn a_known_speaker_within_a_line_begins_to_speak() {
        let text = "Patient: No. Doctor: Any pain? Note: none.\nDoctor: Good.";
        let expected =
            [("Patient", "No."), ("Doctor", "Any pain?"), ("Doctor", "Note: none."), ("Doctor", "Good.")];
        assert_eq!(said(text), expected.map(|(speaker, text)| (Some(speaker), text)));
    }

    #[test]
    fn times_addresses_and_a_single_colon_make_no_dialogue() {
        for text in [
            "12:30 lunch\n13:30 coffee",
            "https://a.example\nhttps://b.example",
            "Note: this is prose.\nIt goes on.\nAnd on.\nAnd on.",
        ] {
            assert!(said(text).iter().all(|(speaker, _)| speaker.is_none()), "{text}");
        }
    }

    #[test]
    fn sentences_are_joined_again_by_turn() {
        let dialogue = "A: One.  Two.\nB: Three.\nA: Four.";
        assert_eq!(render(&sentences(dialogue)), "A: One. Two.\nB: Three.\nA: Four.");
        assert_eq!(render(&sentences("One\ttwo.\nThree.")), "One two. Three.");
        assert_eq!(render(&sentences("Title\n\nOne.\n\nTwo.")), "Title\nOne. Two.");
        assert_eq!(render(&sentences("会议。同意！")), "会议。同意！");
    }

    #[test]
    fn texts_at_the_edge_of_text_are_cut_without_loss() {
        for text in
            ["a", "\u{301}", "\0", ":", "A:", "A:\nB:", "\u{feff}x", "😀. 😀.", ". . .", "\u{85}a\u{2028}b"]
        {
            assert!(!sentences(text).is_empty(), "{text:?}");
            let together: String = sentences(text).iter().map(|sentence| sentence.text).collect();
            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
            assert!(letters(text).ends_with(&letters(&together)), "{text:?}: {together:?}");
        }
    }
}
