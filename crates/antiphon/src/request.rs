//! What a caller asks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::options::{CacheMode, Overflow, Priority, RequestOptions, out_of_range};

/// A message to understand and answer.
///
/// ```
/// # use antiphon::Request;
/// # use std::time::Duration;
/// let request = Request::new("Where is order 4711?").tenant("acme").max_tokens(64).deadline(Duration::from_secs(2));
/// let same = Request::from_json(r#"{"message": "Where is order 4711?", "tenant_id": "acme",
///     "options": {"max_tokens": 64, "deadline_ms": 2000}}"#)?;
/// assert_eq!(request, same);
/// # Ok::<(), antiphon::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Request {
    /// The message. Text of a user: it never becomes a control token.
    pub message: String,
    /// Whose request it is; answers are never shared between tenants. Default: `default`.
    #[serde(default = "default_tenant")]
    pub tenant_id: String,
    /// The user, for quotas.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The conversation, for the host's own bookkeeping.
    #[serde(default)]
    pub conversation_id: Option<String>,
    /// Earlier turns, oldest first.
    #[serde(default)]
    pub history: Vec<Message>,
    /// At most 4 KiB. `previous_intent` is told to the responder.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// How to answer.
    #[serde(default)]
    pub options: RequestOptions,
}

/// Chat turns to continue, without analysis.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Generate {
    /// The turns, oldest first. All roles' content is text of a user: it never becomes a control token.
    pub messages: Vec<Message>,
    /// Text to continue as it stands, without a chat template, in place of `messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Whose request it is. Default: `default`.
    #[serde(default = "default_tenant")]
    pub tenant_id: String,
    /// The user, for quotas.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The conversation, for the host's own bookkeeping.
    #[serde(default)]
    pub conversation_id: Option<String>,
    /// How to answer.
    #[serde(default)]
    pub options: RequestOptions,
}

/// One turn of a conversation.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions of the host.
    System,
    /// The user.
    User,
    /// The answering side.
    Assistant,
}

/// What the engine's configuration allows a request.
pub(crate) struct Limits {
    pub(crate) message_chars: usize,
    pub(crate) history_messages: usize,
}

impl Request {
    /// A request with every default.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            tenant_id: default_tenant(),
            user_id: None,
            conversation_id: None,
            history: Vec::new(),
            context: Map::new(),
            options: RequestOptions::default(),
        }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names an unknown key or a value of the wrong type.
    pub fn from_json(json: &str) -> Result<Self> {
        json::read(ErrorKind::InvalidArgument, "request", json)
    }

    /// Earlier turns, oldest first.
    pub fn history(mut self, messages: impl Into<Vec<Message>>) -> Self {
        self.history = messages.into();
        self
    }

    /// One value of the context.
    pub fn context(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }

    pub(crate) fn validate(&self, limits: &Limits) -> Result<()> {
        check_text("message", &self.message)?;
        limits.check_chars("message", &self.message)?;
        check_history("history", &self.history, limits)?;
        let bytes = serde_json::to_string(&self.context).map_or(usize::MAX, |json| json.len());
        if bytes > CONTEXT_BYTES {
            return Err(out_of_range("context", format_args!("{bytes} bytes"), "at most 4096 bytes"));
        }
        check_ids(&self.tenant_id, &self.user_id, &self.conversation_id)?;
        self.options.validate()
    }

    pub(crate) fn previous_intent(&self) -> Option<&str> {
        self.context.get("previous_intent").and_then(Value::as_str)
    }
}

impl Generate {
    /// The turns of a message with all else as it asks.
    pub(crate) fn of(request: Request, messages: Vec<Message>) -> Self {
        let Request { tenant_id, user_id, conversation_id, options, .. } = request;
        Self { messages, prompt: None, tenant_id, user_id, conversation_id, options }
    }

    /// Chat turns to continue.
    pub fn messages(messages: impl Into<Vec<Message>>) -> Self {
        Self {
            messages: messages.into(),
            prompt: None,
            tenant_id: default_tenant(),
            user_id: None,
            conversation_id: None,
            options: RequestOptions::default(),
        }
    }

    /// Text to continue as it stands, without a chat template.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self { prompt: Some(text.into()), ..Self::messages([]) }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names an unknown key or a value of the wrong type.
    pub fn from_json(json: &str) -> Result<Self> {
        json::read(ErrorKind::InvalidArgument, "request", json)
    }

    pub(crate) fn validate(&self, limits: &Limits) -> Result<()> {
        match &self.prompt {
            Some(prompt) if self.messages.is_empty() => check_text("prompt", prompt)?,
            Some(_) => return Err(out_of_range("prompt", format_args!("set"), "either prompt or messages")),
            None if self.messages.is_empty() => {
                return Err(out_of_range("messages", format_args!("empty"), "at least one message"));
            }
            None => check_history("messages", &self.messages, limits)?,
        }
        check_ids(&self.tenant_id, &self.user_id, &self.conversation_id)?;
        self.options.validate()
    }
}

impl Message {
    /// A turn.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }

    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// A turn of the answering side.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// Instructions of the host.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }
}

impl Role {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Limits {
    pub(crate) fn check_chars(&self, name: &str, text: &str) -> Result<()> {
        let (chars, limit) = (text.chars().count(), self.message_chars);
        if chars <= limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InputTooLong,
            format!("{name}: {chars} characters, expected at most {limit}"),
        ))
    }
}

/// The setters that both kinds of request have.
macro_rules! setters {
    ($request:ty) => {
        impl $request {
            /// Whose request it is.
            pub fn tenant(mut self, id: impl Into<String>) -> Self {
                self.tenant_id = id.into();
                self
            }

            /// The user, for quotas.
            pub fn user(mut self, id: impl Into<String>) -> Self {
                self.user_id = Some(id.into());
                self
            }

            /// The conversation, for the host's own bookkeeping.
            pub fn conversation(mut self, id: impl Into<String>) -> Self {
                self.conversation_id = Some(id.into());
                self
            }

            /// All options at once.
            pub fn options(mut self, options: RequestOptions) -> Self {
                self.options = options;
                self
            }

            /// Longest answer in tokens.
            pub fn max_tokens(mut self, tokens: usize) -> Self {
                self.options.max_tokens = tokens;
                self
            }

            /// 0 is greedy; 0 to 2.
            pub fn temperature(mut self, temperature: f32) -> Self {
                self.options.temperature = temperature;
                self
            }

            /// Only the so many likeliest tokens.
            pub fn top_k(mut self, k: usize) -> Self {
                self.options.top_k = Some(k);
                self
            }

            /// Only the likeliest tokens that make up this share.
            pub fn top_p(mut self, p: f32) -> Self {
                self.options.top_p = Some(p);
                self
            }

            /// Only tokens at least so likely relative to the likeliest.
            pub fn min_p(mut self, p: f32) -> Self {
                self.options.min_p = Some(p);
                self
            }

            /// Seed of a sampled answer.
            pub fn seed(mut self, seed: u64) -> Self {
                self.options.seed = Some(seed);
                self
            }

            /// One more text that ends the answer.
            pub fn stop(mut self, text: impl Into<String>) -> Self {
                self.options.stop.push(text.into());
                self
            }

            /// Log-probabilities of the tokens and of so many alternatives.
            pub fn logprobs(mut self, alternatives: usize) -> Self {
                self.options.logprobs = Some(alternatives);
                self
            }

            /// Time for queue, prompt and answer together.
            pub fn deadline(mut self, time: Duration) -> Self {
                self.options.deadline_ms = Some(time.as_millis().try_into().unwrap_or(u64::MAX));
                self
            }

            /// Who goes first when requests wait.
            pub fn priority(mut self, priority: Priority) -> Self {
                self.options.priority = priority;
                self
            }

            /// Whether a cached answer may serve.
            pub fn cache(mut self, mode: CacheMode) -> Self {
                self.options.cache = mode;
                self
            }

            /// What happens to a history that does not fit.
            pub fn overflow(mut self, overflow: Overflow) -> Self {
                self.options.overflow = overflow;
                self
            }

            /// A name from `models()`.
            pub fn model(mut self, name: impl Into<String>) -> Self {
                self.options.model = Some(name.into());
                self
            }
        }
    };
}
setters!(Request);
setters!(Generate);

/// Refuses a text with nothing in it.
pub(crate) fn check_text(name: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        let what = if text.is_empty() { "is empty" } else { "is only white space" };
        return Err(Error::new(ErrorKind::InvalidText, format!("{name} {what}, expected a text")));
    }
    Ok(())
}

fn check_history(name: &str, messages: &[Message], limits: &Limits) -> Result<()> {
    let (count, limit) = (messages.len(), limits.history_messages);
    if count > limit {
        return Err(out_of_range(
            name,
            format_args!("{count} messages"),
            &format!("at most {limit} messages"),
        ));
    }
    Ok(())
}

pub(crate) fn check_ids(tenant: &str, user: &Option<String>, conversation: &Option<String>) -> Result<()> {
    let ids = [
        ("tenant_id", Some(tenant)),
        ("user_id", user.as_deref()),
        ("conversation_id", conversation.as_deref()),
    ];
    for (name, id) in ids {
        let Some(id) = id else { continue };
        if id.is_empty() || id.len() > ID_BYTES || id.chars().any(char::is_control) {
            let bytes = id.len();
            let expected = "1 to 256 bytes without control characters";
            return Err(out_of_range(name, format_args!("{bytes} bytes"), expected));
        }
    }
    Ok(())
}

fn default_tenant() -> String {
    "default".into()
}

const CONTEXT_BYTES: usize = 4096;
const ID_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { message_chars: 4000, history_messages: 100 };

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let documented = r#"{"message": "Hello", "tenant_id": "default", "history": [], "context": {},
            "options": {"max_tokens": 256, "temperature": 0.0, "top_k": null, "top_p": null, "min_p": null,
            "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {},
            "seed": null, "stop": [], "logprobs": null, "response_format": null,
            "deadline_ms": null, "priority": "normal", "cache": "use", "overflow": "truncate_oldest", "model": null}}"#;
        let request = Request::from_json(documented).unwrap();
        assert_eq!(request, Request::new("Hello"));
        request.validate(&LIMITS).unwrap();
    }

    #[test]
    fn faults_37_an_option_out_of_its_range_is_named() {
        for (option, value) in [
            ("max_tokens", "0"),
            ("temperature", "-1"),
            ("temperature", "1e39"),
            ("top_k", "0"),
            ("top_p", "0"),
            ("top_p", "2"),
            ("min_p", "-0.5"),
            ("repetition_penalty", "0"),
            ("presence_penalty", "3"),
            ("logit_bias", r#"{"1": 101}"#),
            ("stop", r#"[""]"#),
            ("logprobs", "21"),
            ("response_format", r#"{"type": "json_object"}"#),
            ("deadline_ms", "0"),
        ] {
            let json = format!(r#"{{"message": "x", "options": {{"{option}": {value}}}}}"#);
            let error = Request::from_json(&json).and_then(|request| request.validate(&LIMITS)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{json}");
            assert!(error.to_string().contains(&format!("`{option}`")), "{json}: {error}");
        }
        let nan = Request::new("x").temperature(f32::NAN).validate(&LIMITS).unwrap_err();
        assert_eq!(nan.to_string(), "`temperature` is NaN, expected 0 to 2");
        for json in
            [r#"{"max_tokens": -1}"#, r#"{"max_tokens": 18446744073709551616}"#, r#"{"n": 1000000000}"#]
        {
            let json = format!(r#"{{"message": "x", "options": {json}}}"#);
            assert_eq!(Request::from_json(&json).unwrap_err().kind(), ErrorKind::InvalidArgument, "{json}");
        }
    }

    #[test]
    fn faults_38_stop_strings_are_bounded() {
        let stops = Request::new("x")
            .options(RequestOptions { stop: vec!["a".into(); 10_000], ..Default::default() });
        assert!(
            stops
                .validate(&LIMITS)
                .unwrap_err()
                .to_string()
                .contains("`stop` is 10000 texts, expected at most 16")
        );
    }

    #[test]
    fn faults_41_ids_are_bounded() {
        for id in ["", "a\nb", &"a".repeat(1 << 20)] {
            let error = Request::new("x").tenant(id).validate(&LIMITS).unwrap_err();
            assert!(error.to_string().contains("`tenant_id`"), "{error}");
            assert!(error.to_string().len() < 200);
        }
    }

    #[test]
    fn an_unknown_key_is_named_and_a_string_of_the_user_is_not() {
        let error = Request::from_json(r#"{"message": "x", "mesage": "canary"}"#).unwrap_err();
        assert!(error.to_string().contains("`mesage`") && !error.to_string().contains("canary"));
        let error = Request::from_json(r#"{"message": "x", "history": "my \"canary\" text"}"#).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[test]
    fn texts_that_say_nothing_are_refused() {
        for text in ["", " ", "\n\t\u{2003}"] {
            assert_eq!(Request::new(text).validate(&LIMITS).unwrap_err().kind(), ErrorKind::InvalidText);
        }
        let long = Request::new("ä".repeat(4001)).validate(&LIMITS).unwrap_err();
        assert_eq!(long.kind(), ErrorKind::InputTooLong);
        assert_eq!(long.to_string(), "message: 4001 characters, expected at most 4000");
        let many = Request::new("x").history(vec![Message::user("y"); 101]).validate(&LIMITS).unwrap_err();
        assert!(many.to_string().contains("`history` is 101 messages"));
    }
}
