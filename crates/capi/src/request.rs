//! What is asked.

use std::ffi::c_char;
use std::sync::OnceLock;

use antiphon::{Error, ErrorKind, Generate, Message, Request, Role};
use serde_json::{Map, Value};

use crate::error::antiphon_error;
use crate::guard::{boxed, free, guard, lent, lent_mut, place, quietly};
use crate::text::{Text, antiphon_text, json, read, read_c};

/// A message with its options. One thread at a time; a call that takes it as `const` copies what it needs.
pub struct antiphon_request {
    /// Its history are the turns that were added.
    request: Request,
    prompt: Option<String>,
    /// Options that were set, by name.
    options: Map<String, Value>,
    json: OnceLock<Text>,
}

/// A request: for `antiphon_generate`, which can do without a message, it may be empty. Freed with antiphon_request_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_request_new(
    message: *const c_char,
    len: usize,
    out: *mut *mut antiphon_request,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for a place, and for `len` readable bytes.
        let (out, message) = unsafe { (place(out, "out")?, read("message", message, len)?) };
        *out = boxed(antiphon_request::new(Request::new(message), None, Map::new()));
        Ok(0)
    })
}

/// Sets one key of the request or of its options. Text as it stands for `tenant_id`, `user_id`, `conversation_id`, `priority`
/// ("low", "normal", "high"), `cache` ("use", "refresh", "bypass"), `overflow` ("error", "truncate_oldest") and `model`; JSON
/// for all others: `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`, `seed`, `stop`, `deadline_ms`, `context`,
/// `message` (for a stage that changes it), ...
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_request_set(
    request: *mut antiphon_request,
    key: *const c_char,
    value: *const c_char,
    len: usize,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for a request that nobody else uses, a text that ends in NUL, and `len` readable bytes.
        let (request, key, value) =
            unsafe { (lent_mut(request, "request")?, read_c("key", key)?, read("value", value, len)?) };
        request.set(key, value)?;
        Ok(0)
    })
}

/// Adds a turn, `role` being "system", "user" or "assistant": an earlier one for `antiphon_process`; for `antiphon_generate`
/// one to continue, the request's message, if there is one, being the last of the user's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_request_add_message(
    request: *mut antiphon_request,
    role: *const c_char,
    content: *const c_char,
    len: usize,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for a request that nobody else uses, a text that ends in NUL, and `len` readable bytes.
        let (request, role, content) =
            unsafe { (lent_mut(request, "request")?, read_c("role", role)?, read("content", content, len)?) };
        let roles = [Role::System, Role::User, Role::Assistant];
        let role = roles.into_iter().find(|known| known.name() == role).ok_or_else(|| {
            let what = "role is none of these, expected one: system, user, assistant";
            Error::new(ErrorKind::InvalidArgument, what)
        })?;
        request.request.history.push(Message::new(role, content));
        request.json = OnceLock::new();
        Ok(0)
    })
}

/// The request as a JSON object: what a generator reads. Lent until the request is changed or freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_request_json(request: *const antiphon_request) -> antiphon_text {
    quietly(antiphon_text::EMPTY, || {
        // SAFETY: NULL or a request that lives.
        let Ok(request) = (unsafe { lent(request, "request") }) else { return antiphon_text::EMPTY };
        request.json.get_or_init(|| json(&request.request).unwrap_or_default().as_str().into()).lend()
    })
}

/// Frees a request; NULL is fine. Answers that were asked for with it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_request_free(request: *mut antiphon_request) {
    // SAFETY: NULL or a request that lives.
    unsafe { free(request) };
}

impl antiphon_request {
    fn new(request: Request, prompt: Option<String>, options: Map<String, Value>) -> Self {
        Self { request, prompt, options, json: OnceLock::new() }
    }

    /// What a stage looks at.
    pub(crate) fn of(request: Request) -> Self {
        // Keys that are set later come beside those that are set.
        let options = match serde_json::to_value(&request.options) {
            Ok(Value::Object(options)) => options,
            _ => Map::new(),
        };
        Self::new(request, None, options)
    }

    /// What a generator is told: the turns, the last one being the message.
    pub(crate) fn of_generate(request: &Generate) -> Self {
        let mut turns = request.messages.clone();
        let message = turns.pop().map(|turn| turn.content).unwrap_or_default();
        let mut told = Request::new(message).history(turns).options(request.options.clone());
        told.tenant_id.clone_from(&request.tenant_id);
        told.user_id.clone_from(&request.user_id);
        told.conversation_id.clone_from(&request.conversation_id);
        Self::new(told, request.prompt.clone(), Map::new())
    }

    pub(crate) fn to_process(&self) -> Request {
        self.request.clone()
    }

    pub(crate) fn to_generate(&self) -> Generate {
        let Request { message, tenant_id, user_id, conversation_id, history, options, .. } =
            self.request.clone();
        let mut generate = Generate::messages(history).options(options);
        if !message.is_empty() {
            generate.messages.push(Message::user(message));
        }
        generate.prompt.clone_from(&self.prompt);
        (generate.tenant_id, generate.user_id, generate.conversation_id) =
            (tenant_id, user_id, conversation_id);
        generate
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let parsed = if VERBATIM.contains(&key) {
            Value::from(value)
        } else {
            serde_json::from_str(value).map_err(|error| {
                let what = format!("key `{key}`: not JSON at byte {}, expected JSON", error.column());
                Error::new(ErrorKind::InvalidArgument, what)
            })?
        };
        // The core reads it: it knows what every key takes, and keeps users' text out of messages.
        if OF_THE_REQUEST.contains(&key) {
            // The later one of equal keys counts.
            let keys = Map::from_iter([("message".to_owned(), "-".into()), (key.to_owned(), parsed)]);
            let read = Request::from_json(&Value::from(keys).to_string())?;
            match key {
                "message" => self.request.message = read.message,
                "tenant_id" => self.request.tenant_id = read.tenant_id,
                "user_id" => self.request.user_id = read.user_id,
                "conversation_id" => self.request.conversation_id = read.conversation_id,
                "context" => self.request.context = read.context,
                _ => self.request.history = read.history,
            }
        } else if key == "prompt" {
            let text = parsed.as_str().map(str::to_owned);
            let what = "key `prompt`: expected a JSON string";
            self.prompt = Some(text.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, what))?);
        } else {
            let mut options = self.options.clone();
            options.insert(key.to_owned(), parsed);
            let keys = serde_json::json!({"message": "-", "options": options});
            self.request.options = Request::from_json(&keys.to_string())?.options;
            self.options = options;
        }
        self.json = OnceLock::new();
        Ok(())
    }
}

/// Keys whose values are text as it stands.
const VERBATIM: [&str; 7] =
    ["tenant_id", "user_id", "conversation_id", "priority", "cache", "overflow", "model"];
/// Keys that are no options.
const OF_THE_REQUEST: [&str; 6] =
    ["message", "tenant_id", "user_id", "conversation_id", "context", "history"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_the_core_reads_them() {
        let mut request = antiphon_request::new(Request::new("Hello"), None, Map::new());
        for (key, value) in [
            ("tenant_id", "acme"),
            ("priority", "high"),
            ("max_tokens", "7"),
            ("stop", r#"["\n"]"#),
            ("context", r#"{"previous_intent": "greeting"}"#),
            ("message", r#""Hello!""#),
        ] {
            request.set(key, value).unwrap();
        }
        let same = Request::from_json(
            r#"{"message": "Hello!", "tenant_id": "acme", "context": {"previous_intent": "greeting"},
                "options": {"priority": "high", "max_tokens": 7, "stop": ["\n"]}}"#,
        );
        assert_eq!(request.to_process(), same.unwrap());
        for (key, value, expected) in [
            ("colour", "1", "unknown key `colour`"),
            ("max_tokens", "many", "key `max_tokens`: not JSON"),
            ("max_tokens", r#""canary""#, "expected a whole number"),
            ("priority", "canary", "expected one of"),
            ("prompt", "7", "expected a JSON string"),
        ] {
            let error = request.set(key, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(
                error.to_string().contains(expected) && !error.to_string().contains("canary\""),
                "{error}"
            );
        }
        assert_eq!(request.to_process().options.max_tokens, 7, "a bad value changes nothing");
    }
}
