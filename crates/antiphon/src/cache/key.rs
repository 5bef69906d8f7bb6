//! What makes two requests equal: everything that can change the answer, and the tenant.

use std::collections::BTreeMap;

use crate::options::RequestOptions;
use crate::request::{Generate, Message, Request};

/// A cryptographic hash over tagged, length-prefixed fields, beside the tenant it belongs to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key {
    tenant: Box<str>,
    hash: [u8; 32],
}

impl Key {
    /// The key of a message, or none when an equal request need not get an equal answer.
    ///
    /// Every field is named: a new one does not compile until somebody has decided where it belongs.
    pub(crate) fn process(request: &Request, origin: &Origin) -> Option<Self> {
        let Request { message, tenant_id, user_id, conversation_id, history, context, options } = request;
        let mut hasher = Fields::new("process", origin);
        hasher.person(origin, user_id, conversation_id);
        hasher.field("message", message.as_bytes());
        hasher.messages(history);
        hasher.field("context", serde_json::to_string(context).ok()?.as_bytes());
        hasher.options(options)?;
        Some(hasher.finish(tenant_id))
    }

    /// The key of a continuation.
    pub(crate) fn generate(request: &Generate, origin: &Origin) -> Option<Self> {
        let Generate { messages, prompt, tenant_id, user_id, conversation_id, options } = request;
        let mut hasher = Fields::new("generate", origin);
        hasher.person(origin, user_id, conversation_id);
        hasher.messages(messages);
        hasher.field("prompt", &[u8::from(prompt.is_some())]);
        hasher.field("prompt", prompt.as_deref().unwrap_or_default().as_bytes());
        hasher.options(options)?;
        Some(hasher.finish(tenant_id))
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn tenant_bytes(&self) -> usize {
        self.tenant.len()
    }

    /// All of it, with the tenant first.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = (self.tenant.len() as u32).to_le_bytes();
        [&length, self.tenant.as_bytes(), &self.hash].concat()
    }

    /// What it is called in a shared tier, where other programs have their names, too. Tells nobody the tenant.
    pub(crate) fn name(&self) -> String {
        format!("antiphon:1:{}", blake3::hash(&self.bytes()).to_hex())
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn numbered(tenant: &str, number: u64) -> Self {
        Self { tenant: tenant.into(), hash: *blake3::hash(&number.to_le_bytes()).as_bytes() }
    }
}

/// Who answers.
pub(crate) struct Origin {
    /// Fingerprints by role.
    pub(crate) models: BTreeMap<String, String>,
    /// Where prompts are cut and answers end.
    pub(crate) context_tokens: Option<usize>,
    /// How many stages of the host look at requests and answers: an engine without them shares no answer with one that has some.
    pub(crate) stages: usize,
    /// Whether code of the host takes part, which may answer each user and conversation in its own way.
    pub(crate) is_personal: bool,
}

struct Fields(blake3::Hasher);

impl Fields {
    fn new(kind: &str, origin: &Origin) -> Self {
        let mut fields = Self(blake3::Hasher::new());
        fields.field("engine", crate::VERSION.as_bytes());
        fields.field("kind", kind.as_bytes());
        for (role, fingerprint) in &origin.models {
            fields.field(role, fingerprint.as_bytes());
        }
        let context =
            origin.context_tokens.map_or(Vec::new(), |tokens| (tokens as u64).to_le_bytes().to_vec());
        fields.field("context_tokens", &context);
        fields.field("stages", &(origin.stages as u64).to_le_bytes());
        fields
    }

    fn field(&mut self, tag: &str, value: &[u8]) {
        for part in [tag.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn person(&mut self, origin: &Origin, user: &Option<String>, conversation: &Option<String>) {
        for (tag, id) in
            [("user", user), ("conversation", conversation)].into_iter().filter(|_| origin.is_personal)
        {
            self.field(tag, &[u8::from(id.is_some())]);
            self.field(tag, id.as_deref().unwrap_or_default().as_bytes());
        }
    }

    fn messages(&mut self, messages: &[Message]) {
        self.field("messages", &(messages.len() as u64).to_le_bytes());
        for Message { role, content } in messages {
            self.field(role.name(), content.as_bytes());
        }
    }

    /// None when the answer is drawn at random, or is not to be kept.
    fn options(&mut self, options: &RequestOptions) -> Option<()> {
        let RequestOptions {
            max_tokens,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            seed,
            stop,
            logprobs,
            response_format,
            overflow,
            model,
            // Who waits how long for the answer does not change it.
            deadline_ms: _,
            priority: _,
            cache: _,
        } = options;
        if !options.is_deterministic() {
            return None;
        }
        // Numbers go in by their bits; an absent one is no bytes.
        let bits = |x: &Option<f32>| x.map_or(Vec::new(), |x| x.to_bits().to_le_bytes().to_vec());
        let whole = |x: Option<u64>| x.map_or(Vec::new(), |x| x.to_le_bytes().to_vec());
        self.field("max_tokens", &whole(Some(*max_tokens as u64)));
        self.field("temperature", &bits(&Some(*temperature)));
        self.field("top_k", &whole(top_k.map(|k| k as u64)));
        self.field("top_p", &bits(top_p));
        self.field("min_p", &bits(min_p));
        self.field("repetition_penalty", &bits(&Some(*repetition_penalty)));
        self.field("presence_penalty", &bits(&Some(*presence_penalty)));
        self.field("frequency_penalty", &bits(&Some(*frequency_penalty)));
        for (token, bias) in logit_bias {
            self.field("logit_bias", &[token.to_le_bytes(), bias.to_bits().to_le_bytes()].concat());
        }
        self.field("seed", &whole(*seed));
        for text in stop {
            self.field("stop", text.as_bytes());
        }
        self.field("logprobs", &whole(logprobs.map(|n| n as u64)));
        self.field(
            "response_format",
            response_format.as_ref().map_or(String::new(), |v| v.to_string()).as_bytes(),
        );
        self.field("overflow", format!("{overflow:?}").as_bytes());
        self.field("model", model.as_deref().unwrap_or_default().as_bytes());
        Some(())
    }

    fn finish(self, tenant: &str) -> Key {
        Key { tenant: tenant.into(), hash: *self.0.finalize().as_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{CacheMode, Overflow, Priority};

    fn origin(analyst: &str, is_personal: bool) -> Origin {
        let models = BTreeMap::from([("analyst".into(), analyst.into())]);
        Origin { models, context_tokens: Some(1024), stages: 0, is_personal }
    }

    fn key(request: &Request) -> Key {
        Key::process(request, &origin("1", false)).unwrap()
    }

    #[test]
    fn every_field_that_can_change_the_answer_changes_the_key() {
        let base = || Request::new("Hello");
        let bias = |id| RequestOptions { logit_bias: BTreeMap::from([(id, 1.0)]), ..Default::default() };
        let penalty = RequestOptions { presence_penalty: 0.5, ..Default::default() };
        let different = [
            Request::new("Hello "),
            base().tenant("b"),
            base().history([Message::user("x")]),
            base().history([Message::assistant("x")]),
            base().history([Message::user("x"), Message::user("")]),
            base().context("previous_intent", "x"),
            base().max_tokens(1),
            base().temperature(0.5).seed(1),
            base().temperature(0.5).seed(2),
            base().top_k(1),
            base().top_p(0.5),
            base().min_p(0.5),
            base().options(penalty),
            base().options(bias(1)),
            base().options(bias(2)),
            base().stop("x"),
            base().stop("x").stop("y"),
            base().stop("xy"),
            base().logprobs(1),
            base().overflow(Overflow::Error),
            base().model("other"),
        ];
        let mut keys: Vec<Key> = different.iter().map(key).collect();
        keys.push(key(&base()));
        keys.push(Key::process(&base(), &origin("2", false)).unwrap());
        let shorter = Origin { context_tokens: Some(512), ..origin("1", false) };
        keys.push(Key::process(&base(), &shorter).unwrap());
        let staged = Origin { stages: 1, ..origin("1", false) };
        keys.push(Key::process(&base(), &staged).unwrap());
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[index + 1..].contains(key), "{index}");
        }
    }

    #[test]
    fn who_waits_how_long_does_not_change_the_key() {
        let base = Request::new("Hello");
        let same =
            base.clone().priority(Priority::High).cache(CacheMode::Refresh).user("u").conversation("c");
        assert_eq!(key(&base), key(&same));
        assert_eq!(key(&base), key(&base.clone().deadline(std::time::Duration::from_secs(1))));
    }

    #[test]
    fn faults_85_a_drawn_answer_has_no_key() {
        assert!(Key::process(&Request::new("x").temperature(1.0), &origin("1", false)).is_none());
    }

    #[test]
    fn where_code_of_the_host_answers_user_and_conversation_change_the_key() {
        let requests = [
            Request::new("x"),
            Request::new("x").user(""),
            Request::new("x").user("u"),
            Request::new("x").conversation("u"),
            Request::new("x").user("u").conversation("c"),
        ];
        let keys: Vec<Key> =
            requests.iter().map(|request| Key::process(request, &origin("1", true)).unwrap()).collect();
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[index + 1..].contains(key), "{index}");
        }
    }
}
