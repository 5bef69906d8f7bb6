//! Stop strings in a stream: text is held back as long as it could become one, so that no part of one ever shows.

use crate::error::{Error, ErrorKind, Result};

/// Ends a text before the first stop string that is complete.
///
/// Where the text stops depends on the text alone, not on how it was cut into chunks: the stop string that is complete
/// first counts, and of those that are complete at once the longest.
#[derive(Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    /// The end of the text that could still become a stop string.
    held: String,
    stopped: bool,
}

/// What one chunk of text leads to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StopOutcome {
    /// Text that is certain not to belong to a stop string.
    pub emit: String,
    /// A stop string is complete; nothing more will be emitted.
    pub stopped: bool,
}

impl StopFilter {
    /// A filter for `stops`; none lets everything through.
    ///
    /// # Errors
    /// `InvalidArgument` for more than [`MAX_STOPS`] strings, or one that is empty or longer than [`MAX_STOP_BYTES`].
    pub fn new(stops: Vec<String>) -> Result<Self> {
        let refuse = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        if stops.len() > MAX_STOPS {
            return refuse(format!("stop: {} strings, at most {MAX_STOPS} are allowed", stops.len()));
        }
        for (index, stop) in stops.iter().enumerate() {
            if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
                return refuse(format!(
                    "stop[{index}]: {} bytes, expected 1 to {MAX_STOP_BYTES}",
                    stop.len()
                ));
            }
        }
        Ok(Self { stops, held: String::new(), stopped: false })
    }

    /// Takes the next chunk; after a stop string nothing is emitted any more.
    pub fn push(&mut self, text: &str) -> StopOutcome {
        if self.stopped {
            return StopOutcome { emit: String::new(), stopped: true };
        }
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        if let Some((_, start)) = found.min() {
            self.stopped = true;
            let mut emit = std::mem::take(&mut self.held);
            emit.truncate(start);
            return StopOutcome { emit, stopped: true };
        }
        let certain = self.held.len() - self.open_suffix();
        let open = self.held.split_off(certain);
        StopOutcome { emit: std::mem::replace(&mut self.held, open), stopped: false }
    }

    /// The text that was held back, if no stop string came of it.
    pub fn finish(&mut self) -> String {
        if self.stopped { String::new() } else { std::mem::take(&mut self.held) }
    }

    /// The length of the longest end of the text that begins a stop string.
    fn open_suffix(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0).min(self.held.len());
        let bytes = self.held.as_bytes();
        let begins = |length: &usize| {
            let suffix = &bytes[bytes.len() - length..];
            self.stops.iter().any(|stop| stop.as_bytes().starts_with(suffix))
        };
        (1..=longest).rev().find(begins).unwrap_or(0)
    }
}

/// How many stop strings a request may have.
pub const MAX_STOPS: usize = 16;
/// How long a stop string may be.
pub const MAX_STOP_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(stops: &[&str]) -> StopFilter {
        StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect()).unwrap()
    }

    fn run(stops: &[&str], chunks: &[&str]) -> (String, bool) {
        let mut filter = filter(stops);
        let mut text = String::new();
        for chunk in chunks {
            let outcome = filter.push(chunk);
            text.push_str(&outcome.emit);
            if outcome.stopped {
                return (text, true);
            }
        }
        text.push_str(&filter.finish());
        (text, false)
    }

    #[test]
    fn a_stop_string_split_over_five_chunks_never_shows() {
        assert_eq!(run(&["<|end|>"], &["hi <", "|e", "n", "d|", "> more"]), ("hi ".to_owned(), true));
        assert_eq!(run(&["<|end|>"], &["hi <|e", "nough"]), ("hi <|enough".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".to_owned(), true));
    }

    #[test]
    fn a_stop_string_inside_multi_byte_text_is_found_on_code_points() {
        assert_eq!(run(&["é€"], &["caf", "é", "€", "x"]), ("caf".to_owned(), true));
        assert_eq!(run(&["é€"], &["caf", "é", "è"]), ("caféè".to_owned(), false));
    }

    #[test]
    fn where_the_text_stops_does_not_depend_on_the_chunks() {
        let text = "xxabcdyyabc";
        for stops in [&["abcd", "bc"][..], &["bc", "abc"], &["yyab", "abcd", "d"], &["zz"]] {
            let whole = run(stops, &[text]);
            for cut in 0..=text.len() {
                assert_eq!(run(stops, &[&text[..cut], &text[cut..]]), whole, "{stops:?} cut at {cut}");
            }
            let single: Vec<&str> = text.split("").collect();
            assert_eq!(run(stops, &single), whole, "{stops:?}");
        }
    }

    #[test]
    fn empty_too_long_and_too_many_stop_strings_are_refused_by_name() {
        let refused = |stops: Vec<String>| StopFilter::new(stops).unwrap_err();
        let empty = refused(vec!["a".to_owned(), String::new()]);
        assert_eq!(empty.kind(), ErrorKind::InvalidArgument);
        assert_eq!(empty.to_string(), "stop[1]: 0 bytes, expected 1 to 256");
        assert_eq!(refused(vec!["x".repeat(257)]).kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            refused(vec!["x".to_owned(); 10_000]).to_string(),
            "stop: 10000 strings, at most 16 are allowed"
        );
    }

    #[test]
    fn nothing_is_emitted_after_a_stop() {
        let mut filter = filter(&["!"]);
        assert!(filter.push("a!b").stopped);
        assert_eq!(filter.push("c"), StopOutcome { emit: String::new(), stopped: true });
        assert_eq!(filter.finish(), "");
    }
}
