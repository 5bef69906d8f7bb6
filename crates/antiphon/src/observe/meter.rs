//! One request of a host, from its call to its end.

use std::sync::Arc;
use std::time::Instant;

use super::Metrics;
use crate::error::{Error, ErrorKind, Result};
use crate::reply::FinishReason;

/// One request of a host, counted once: when the host learns how it ended, or leaves before.
pub(crate) struct Meter {
    metrics: Arc<Metrics>,
    endpoint: Endpoint,
    since: Instant,
    ended: bool,
}

/// What a host calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Endpoint {
    Process,
    Generate,
    Analyze,
    Embed,
}

impl Meter {
    pub(crate) fn start(metrics: &Arc<Metrics>, endpoint: Endpoint) -> Self {
        Self { metrics: Arc::clone(metrics), endpoint, since: Instant::now(), ended: false }
    }

    /// It has an answer.
    pub(crate) fn succeed(&mut self) {
        self.end("success");
    }

    /// It has an answer that is whole, or was cut.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        self.end(match reason {
            FinishReason::Stop | FinishReason::Length => "success",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Deadline => "deadline",
        });
    }

    pub(crate) fn fail(&mut self, error: &Error) {
        let kind = error.kind();
        let refused =
            [ErrorKind::Overloaded, ErrorKind::QuotaExceeded, ErrorKind::OutOfBudget, ErrorKind::Closed];
        if !self.ended && refused.contains(&kind) {
            self.metrics.note_rejected(kind.name());
        }
        self.end(kind.name());
    }

    /// What a call returns, counted if that is its end.
    pub(crate) fn check<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.fail(error))
    }

    fn end(&mut self, status: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.metrics.note_end(self.endpoint.name(), status, self.since.elapsed());
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end("cancelled");
    }
}

impl Endpoint {
    const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Generate => "generate",
            Self::Analyze => "analyze",
            Self::Embed => "embed",
        }
    }
}
