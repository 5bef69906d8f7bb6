//! Every failure this crate reports: a kind to act on, a message that names the thing and what was expected.

use std::error::Error as StdError;
use std::fmt;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, directory or tensor that was named is not there.
    NotFound,
    /// A file is not what its format asks for, or its parts contradict each other.
    Invalid,
    /// Bytes differ from what the manifest promises.
    IntegrityMismatch,
    /// Well-formed, but of a kind this crate does not run.
    Unsupported,
    /// The operating system refused.
    Io,
    /// More memory would be needed than there is.
    OutOfBudget,
    /// A caller's argument is out of range.
    InvalidArgument,
    /// The text is longer than the limit.
    InputTooLong,
    /// The sequence does not fit the model's context.
    ContextFull,
    /// The text cannot be processed as text.
    InvalidText,
    /// The work was stopped from outside.
    Interrupted,
    /// A bug of ours.
    Internal,
}

/// Every failure this crate reports: one word wide, cheap to return.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`. The message names the thing and what was expected: lower case, no full stop, no user's text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What a caller can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Shorthand for [`ErrorKind::Invalid`], the kind that readers report most.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A piece of a file inside a message: escaped, in backticks, cut after 80 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    format!("`{quoted}`")
}

const QUOTED_CHARS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_wide_and_keeps_its_source() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let error = Error::new(ErrorKind::Io, "`x`: cannot be read").with_source("disk on fire");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.to_string(), "`x`: cannot be read");
        assert_eq!(error.source().expect("a source was given").to_string(), "disk on fire");
    }

    #[test]
    fn quoted_text_is_escaped_and_cut() {
        assert_eq!(quote("a\nb"), "`a\\nb`");
        assert_eq!(quote(&"9".repeat(5000)), format!("`{}…`", "9".repeat(80)));
    }
}
