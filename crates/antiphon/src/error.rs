//! One numbered list of failures, the same in every language.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use antiphon_inference::error as inference;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// `Result` with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure this library reports. Cheap to clone; the message never holds a user's text.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What went wrong, as a stable number. 1xx: the caller. 2xx: the machine or the files. 3xx: this run. 9xx: a bug of ours.
///
/// A number is never given out twice. -304 (training_failed) is taken.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument or option is out of its range.
    InvalidArgument = -101,
    /// A text is empty, white space, or not UTF-8.
    InvalidText = -102,
    /// A text is longer than the limit.
    InputTooLong = -103,
    /// The prompt does not fit the model's context.
    ContextFull = -104,
    /// `options.model` names no configured model.
    UnknownModel = -105,
    /// A configuration value is out of its range, or a key is unknown.
    InvalidConfig = -106,
    /// The engine is closed or closing.
    Closed = -107,
    /// The engine was opened in another process; open one after `fork`.
    Forked = -108,
    /// A tenant's or user's quota is used up.
    QuotaExceeded = -109,
    /// No such model file or directory.
    ModelNotFound = -201,
    /// A model's files are malformed or disagree with each other.
    ModelInvalid = -202,
    /// A model's bytes are not the ones its manifest lists.
    IntegrityMismatch = -203,
    /// A model needs something this build does not have.
    UnsupportedModel = -204,
    /// The operating system failed a read or a thread.
    Io = -205,
    /// The request or model does not fit the memory limit.
    OutOfBudget = -206,
    /// The model hub cannot be reached.
    HubUnavailable = -207,
    /// A plugin of the host failed.
    PluginFailed = -208,
    /// The queue is full.
    Overloaded = -301,
    /// The deadline passed before there was anything to show.
    DeadlineExceeded = -302,
    /// The work was cancelled.
    Cancelled = -303,
    /// Nothing can answer: no responder is loaded or its circuit is open.
    BackendUnavailable = -305,
    /// A bug of this library.
    Internal = -901,
}

impl Error {
    /// An error of a kind, with a message that names the thing, the value and what was expected.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), retry_after: None, source: None }))
    }

    pub(crate) fn with_retry_after(
        kind: ErrorKind,
        message: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), retry_after: Some(retry_after), source: None }))
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            retry_after: None,
            source: Some(Box::new(source)),
        }))
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the request was cancelled")
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the engine is closed")
    }

    /// The same failure with the place it happened in front.
    pub(crate) fn context(self, place: impl fmt::Display) -> Self {
        let message = format!("{place}: {}", self.0.message);
        let retry_after = self.0.retry_after;
        Self(Arc::new(Inner { kind: self.0.kind, message, retry_after, source: Some(Box::new(self)) }))
    }

    /// The kind, whose [`code`](ErrorKind::code) is the same in every language.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// Whether the work was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == ErrorKind::Cancelled
    }

    /// When to try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        self.0.kind.hint()
    }
}

impl ErrorKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: &'static [ErrorKind] = &[
        Self::InvalidArgument,
        Self::InvalidText,
        Self::InputTooLong,
        Self::ContextFull,
        Self::UnknownModel,
        Self::InvalidConfig,
        Self::Closed,
        Self::Forked,
        Self::QuotaExceeded,
        Self::ModelNotFound,
        Self::ModelInvalid,
        Self::IntegrityMismatch,
        Self::UnsupportedModel,
        Self::Io,
        Self::OutOfBudget,
        Self::HubUnavailable,
        Self::PluginFailed,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::BackendUnavailable,
        Self::Internal,
    ];

    /// The number.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The error type of the chat platform's services.
    pub const fn platform_type(self) -> &'static str {
        self.row().1
    }

    /// The severity of the chat platform's services.
    pub const fn severity(self) -> &'static str {
        self.row().2
    }

    /// Whether the same call can succeed later.
    pub const fn is_retryable(self) -> bool {
        self.row().3
    }

    /// What to do about it.
    pub const fn hint(self) -> &'static str {
        self.row().4
    }

    /// Name, platform type, severity, retryable, hint.
    const fn row(self) -> (&'static str, &'static str, &'static str, bool, &'static str) {
        match self {
            Self::InvalidArgument => (
                "invalid_argument",
                "VALIDATION",
                "LOW",
                false,
                "correct the argument that the message names",
            ),
            Self::InvalidText => {
                ("invalid_text", "VALIDATION", "LOW", false, "send a text in UTF-8 with something in it")
            }
            Self::InputTooLong => (
                "input_too_long",
                "VALIDATION",
                "LOW",
                false,
                "shorten the text or raise the configured limit",
            ),
            Self::ContextFull => (
                "context_full",
                "VALIDATION",
                "LOW",
                false,
                "shorten the history, lower max_tokens, or set overflow to truncate_oldest",
            ),
            Self::UnknownModel => (
                "unknown_model",
                "VALIDATION",
                "MEDIUM",
                false,
                "use a name from models(), or configure the model",
            ),
            Self::InvalidConfig => (
                "invalid_config",
                "VALIDATION",
                "HIGH",
                false,
                "correct the configuration key that the message names",
            ),
            Self::Closed => ("closed", "SYSTEM", "MEDIUM", false, "open a new engine"),
            Self::Forked => {
                ("forked", "SYSTEM", "HIGH", false, "open the engine in the child process, after fork")
            }
            Self::QuotaExceeded => {
                ("quota_exceeded", "RATE_LIMIT", "MEDIUM", true, "wait for the time in retry_after_ms")
            }
            Self::ModelNotFound => {
                ("model_not_found", "SYSTEM", "HIGH", false, "check the path of the model")
            }
            Self::ModelInvalid => (
                "model_invalid",
                "SYSTEM",
                "HIGH",
                false,
                "get the model's files again; they are not well-formed",
            ),
            Self::IntegrityMismatch => (
                "integrity_mismatch",
                "SYSTEM",
                "CRITICAL",
                false,
                "get the model's files again; they are not those its manifest lists",
            ),
            Self::UnsupportedModel => (
                "unsupported_model",
                "SYSTEM",
                "HIGH",
                false,
                "convert the model, or use a supported architecture",
            ),
            Self::Io => ("io", "SYSTEM", "HIGH", true, "check permissions, disk and limits of the process"),
            Self::OutOfBudget => {
                ("out_of_budget", "SYSTEM", "HIGH", true, "raise the memory limit or ask for less")
            }
            Self::HubUnavailable => {
                ("hub_unavailable", "NETWORK", "MEDIUM", true, "try again later or use local files")
            }
            Self::PluginFailed => ("plugin_failed", "API", "MEDIUM", true, "look at the plugin's own log"),
            Self::Overloaded => {
                ("overloaded", "RATE_LIMIT", "MEDIUM", true, "wait for the time in retry_after_ms")
            }
            Self::DeadlineExceeded => {
                ("deadline_exceeded", "API", "MEDIUM", true, "allow more time or lower the load")
            }
            Self::Cancelled => ("cancelled", "API", "LOW", false, "nothing to do: the caller asked for it"),
            Self::BackendUnavailable => {
                ("backend_unavailable", "API", "HIGH", true, "configure a responder, or try again later")
            }
            Self::Internal => ("internal", "UNKNOWN", "CRITICAL", false, "report this; the engine goes on"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}, {:?})", self.0.kind.name(), self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.0.kind;
        let mut out = serializer.serialize_struct("Error", 8)?;
        out.serialize_field("code", &kind.code())?;
        out.serialize_field("kind", kind.name())?;
        out.serialize_field("type", kind.platform_type())?;
        out.serialize_field("severity", kind.severity())?;
        out.serialize_field("message", &self.0.message)?;
        out.serialize_field("retryable", &kind.is_retryable())?;
        out.serialize_field("retry_after_ms", &self.0.retry_after.map(|after| after.as_millis() as u64))?;
        out.serialize_field("hint", kind.hint())?;
        out.end()
    }
}

impl From<inference::Error> for Error {
    fn from(error: inference::Error) -> Self {
        use inference::ErrorKind as From;
        let kind = match error.kind() {
            From::NotFound => ErrorKind::ModelNotFound,
            From::Invalid => ErrorKind::ModelInvalid,
            From::IntegrityMismatch => ErrorKind::IntegrityMismatch,
            From::Unsupported => ErrorKind::UnsupportedModel,
            From::Io => ErrorKind::Io,
            From::OutOfBudget => ErrorKind::OutOfBudget,
            From::InvalidArgument => ErrorKind::InvalidArgument,
            From::InvalidText => ErrorKind::InvalidText,
            From::InputTooLong => ErrorKind::InputTooLong,
            From::ContextFull => ErrorKind::ContextFull,
            From::Interrupted => ErrorKind::Cancelled,
            _ => ErrorKind::Internal,
        };
        let message = error.to_string();
        Self::with_source(kind, message, error)
    }
}

/// An engine's threads stay behind in a `fork`; a child would wait for them for ever.
///
/// `pid` is the process that opened the engine.
pub(crate) fn check_process(pid: u32) -> Result<()> {
    if pid == std::process::id() {
        return Ok(());
    }
    let what = "the engine was opened in another process, expected one opened after fork";
    Err(Error::new(ErrorKind::Forked, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_number_and_name() {
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            for other in &ErrorKind::ALL[index + 1..] {
                assert_ne!(kind.code(), other.code());
                assert_ne!(kind.name(), other.name());
            }
        }
    }

    #[test]
    fn an_error_serializes_in_the_shape_hosts_know() {
        let error =
            Error::with_retry_after(ErrorKind::Overloaded, "queue: 256 requests", Duration::from_millis(120));
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"code": -301, "kind": "overloaded", "type": "RATE_LIMIT", "severity": "MEDIUM",
                "message": "queue: 256 requests", "retryable": true, "retry_after_ms": 120,
                "hint": "wait for the time in retry_after_ms"})
        );
    }
}
