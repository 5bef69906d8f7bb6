//! How to summarize: the options, their defaults and their ranges.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::options::out_of_range;

/// How long a summary is to be, and how it comes about.
///
/// ```
/// # use antiphon::SummaryOptions;
/// let options = SummaryOptions::from_json(r#"{"share": 0.2, "method": "extractive"}"#)?;
/// assert_eq!(options, SummaryOptions::default().share(0.2).method(antiphon::SummaryMethod::Extractive));
/// # Ok::<(), antiphon::Error>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SummaryOptions {
    /// Sentences of the summary, at least 1. Default: 3, where no `share` is given.
    pub sentences: Option<usize>,
    /// The share of the text's sentences that the summary has, above 0 to 1; in place of `sentences`.
    pub share: Option<f32>,
    /// Whose words it is made of. Default: auto.
    pub method: SummaryMethod,
}

/// Whose words a summary is made of.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SummaryMethod {
    /// `abstractive` when the engine's responder is an instruct model of the host's own (it has a chat template, and it has
    /// no `antiphon.json` or one whose card says `"instruct": true`), else `extractive`. The configuration alone decides: a
    /// model that fails is an error, never a reason for the other method.
    #[default]
    Auto,
    /// The text's own: its most telling sentences, in their order.
    Extractive,
    /// The responder's: it is told the text and asked for a summary of about the length.
    Abstractive,
}

impl SummaryOptions {
    /// Reads options from a JSON object.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the key, its value and what was expected.
    pub fn from_json(json: &str) -> Result<Self> {
        // A map first: serde would take a list of values in the order of the fields, too.
        let keys: Map<String, Value> = serde_json::from_str(json)
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "summary options: expected a JSON object"))?;
        for (key, value) in &keys {
            let (fits, expected) = match key.as_str() {
                "sentences" => (read::<Option<usize>>(value), "a whole number of at least 1, or null"),
                "share" => (read::<Option<f32>>(value), "a number above 0 to 1, or null"),
                "method" => (read::<SummaryMethod>(value), "auto, extractive or abstractive"),
                _ => {
                    let what = format!(
                        "unknown summary option `{}`, expected sentences, share or method",
                        short(key)
                    );
                    return Err(Error::new(ErrorKind::InvalidArgument, what));
                }
            };
            if !fits {
                return Err(out_of_range(key, format_args!("{}", short(&value.to_string())), expected));
            }
        }
        let options: Self = serde_json::from_value(keys.into())
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, format!("summary options: {error}")))?;
        options.validate()?;
        Ok(options)
    }

    /// Sentences of the summary.
    pub fn sentences(mut self, sentences: usize) -> Self {
        self.sentences = Some(sentences);
        self
    }

    /// The share of the text's sentences that the summary has, in place of a number.
    pub fn share(mut self, share: f32) -> Self {
        self.share = Some(share);
        self
    }

    /// Whose words it is made of.
    pub fn method(mut self, method: SummaryMethod) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.sentences == Some(0) {
            return Err(out_of_range("sentences", format_args!("0"), "at least 1"));
        }
        if let Some(share) = self.share {
            if !(share > 0.0 && share <= 1.0) {
                return Err(out_of_range("share", format_args!("{share}"), "above 0 to 1"));
            }
            if let Some(sentences) = self.sentences {
                let expected = "null: a share is given in its place";
                return Err(out_of_range("sentences", format_args!("{sentences}"), expected));
            }
        }
        Ok(())
    }

    /// How many of the text's sentences the summary has; at least one of them, at most all.
    pub(crate) fn wanted(&self, sentences: usize) -> usize {
        let wanted = match (self.sentences, self.share) {
            (Some(wanted), _) => wanted,
            (None, Some(share)) => (f64::from(share) * sentences as f64).round() as usize,
            (None, None) => SENTENCES,
        };
        wanted.clamp(1, sentences.max(1))
    }
}

fn read<T: for<'de> Deserialize<'de>>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// The beginning of a text, for a message.
fn short(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// Sentences of a summary whose length nobody chose.
const SENTENCES: usize = 3;
const SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let documented = r#"{"sentences": null, "share": null, "method": "auto"}"#;
        assert_eq!(SummaryOptions::from_json(documented).unwrap(), SummaryOptions::default());
        assert_eq!(SummaryOptions::from_json("{}").unwrap().wanted(100), 3);
        let json = serde_json::to_string(&SummaryOptions::default().sentences(2)).unwrap();
        assert_eq!(SummaryOptions::from_json(&json).unwrap().sentences, Some(2));
    }

    #[test]
    fn a_share_is_rounded_and_at_least_one_sentence() {
        let wanted = |share: f32, sentences| SummaryOptions::default().share(share).wanted(sentences);
        assert_eq!((wanted(0.25, 10), wanted(0.5, 9), wanted(0.01, 10), wanted(1.0, 7)), (3, 5, 1, 7));
        assert_eq!(SummaryOptions::default().sentences(5).wanted(2), 2);
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_what_was_expected() {
        for (json, says) in [
            (r#"{"sentences": 0}"#, "`sentences` is 0, expected at least 1"),
            (r#"{"sentences": -2}"#, "`sentences` is -2, expected a whole number of at least 1, or null"),
            (r#"{"sentences": 1.5}"#, "`sentences` is 1.5, expected a whole number"),
            (r#"{"sentences": "3"}"#, "`sentences` is \"3\", expected a whole number"),
            (r#"{"share": 0}"#, "`share` is 0, expected above 0 to 1"),
            (r#"{"share": 1.5}"#, "`share` is 1.5, expected above 0 to 1"),
            (r#"{"share": "all"}"#, "`share` is \"all\", expected a number"),
            (r#"{"method": "magic"}"#, "`method` is \"magic\", expected auto, extractive or abstractive"),
            (r#"{"sentences": 3, "share": 0.5}"#, "`sentences` is 3, expected null"),
            (r#"{"length": 3}"#, "unknown summary option `length`, expected sentences, share or method"),
            ("[3]", "expected a JSON object"),
            ("", "expected a JSON object"),
        ] {
            let error = SummaryOptions::from_json(json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{json}");
            assert!(error.to_string().contains(says), "{json}: {error}");
        }
        let nan = SummaryOptions::default().share(f32::NAN).validate().unwrap_err();
        assert_eq!(nan.to_string(), "`share` is NaN, expected above 0 to 1");
    }
}
