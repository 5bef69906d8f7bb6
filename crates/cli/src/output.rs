//! Standard output: one locked, buffered writer for results, and how a command fails.

use std::io::{BufWriter, ErrorKind as IoKind, StdoutLock, Write};

use antiphon::{Analysis, Error, ErrorKind};
use serde::Serialize;

/// Why a command ended early.
pub(crate) enum Failure {
    /// Something went wrong: to be told on standard error.
    Error(Error),
    /// The reading end of standard output was closed: nothing to tell.
    ReaderGone,
}

/// What a command gives back.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The only way to standard output.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    wrote: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { out: BufWriter::new(std::io::stdout().lock()), wrote: false }
    }

    /// Text as it stands.
    pub(crate) fn text(&mut self, text: &str) -> Outcome {
        self.wrote = true;
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// A line.
    pub(crate) fn line(&mut self, line: &str) -> Outcome {
        self.text(line)?;
        self.text("\n")
    }

    /// A value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Outcome {
        self.line(&json(value)?)
    }

    /// What an analysis says, in a few aligned lines.
    pub(crate) fn analysis(&mut self, analysis: &Analysis) -> Outcome {
        let Analysis { intent, sentiment, entities, .. } = analysis;
        self.line(&format!("intent     {} ({:.2})", intent.label, intent.confidence))?;
        self.line(&format!("sentiment  {} ({:.2})", sentiment.label, sentiment.confidence))?;
        for (index, entity) in entities.iter().enumerate() {
            let title = if index == 0 { "entities" } else { "" };
            self.line(&format!("{title:<9}  {} {:?} ({:.2})", entity.kind, entity.value, entity.confidence))?;
        }
        Ok(())
    }

    /// Shows what was written so far.
    pub(crate) fn flush(&mut self) -> Outcome {
        Ok(self.out.flush()?)
    }

    /// Whether anything was written.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote
    }
}

/// A value as JSON on one line.
pub(crate) fn json(value: &impl Serialize) -> Outcome<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("output: {error}")).into())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            IoKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Error(Error::new(ErrorKind::Io, format!("standard output: {error}"))),
        }
    }
}
