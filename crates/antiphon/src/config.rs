//! What a host can set, checked once when the engine opens.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, RangeInclusive};
use std::path::{Path, PathBuf};

use antiphon_inference::format::is_model_name;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::json;

/// The engine's configuration. Every key is optional; unknown keys are refused. JSON and TOML spell it alike.
///
/// ```
/// # use antiphon::EngineConfig;
/// let config = EngineConfig::from_json(r#"{"threads": 2, "batcher": {"max_concurrent": 8}}"#)?;
/// assert_eq!(config, EngineConfig::default().threads(2).max_concurrent(8));
/// let error = EngineConfig::from_json(r#"{"thread": 2}"#).unwrap_err();
/// assert!(error.to_string().contains("`thread`"));
/// # Ok::<(), antiphon::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Where relative paths of models begin. Default: the working directory.
    pub models_dir: Option<PathBuf>,
    /// The encoder that understands messages. Default: the bundled one.
    pub analyst: Option<ModelSource>,
    /// The decoder that answers. Default: the bundled one. Null: answers come from templates.
    pub responder: Option<ModelSource>,
    /// Further responders by the name that `options.model` uses.
    pub responders: BTreeMap<String, ModelSource>,
    /// A folder with a intent head trained on the analyst's encoder, in place of its own. Default: none.
    pub intent: Option<ModelSource>,
    /// A folder with a sentiment head trained on the analyst's encoder, in place of its own. Default: none.
    pub sentiment: Option<ModelSource>,
    /// A folder with an entity head trained on the analyst's encoder, in place of its own. Default: none.
    pub entities: Option<ModelSource>,
    /// Threads that compute, 1 to 256. Default: the CPU quota of the process.
    pub threads: Option<usize>,
    /// Ceiling for weights, key/value rows, scratch, cache and waiting requests together. Default: none.
    pub memory_limit_bytes: Option<u64>,
    /// Longest prompt and answer together, at most what the model was made for. Default: the model's.
    pub context_tokens: Option<usize>,
    /// Memory for key/value rows of all running requests. Default: 256 MiB (taken as needed by the model's context).
    pub kv_cache_bytes: u64,
    /// Longest message in code points. Default: 4000.
    pub max_message_chars: usize,
    /// Longest history in messages. Default: 100.
    pub max_history_messages: usize,
    /// The response cache.
    pub cache: CacheConfig,
    /// Admission of requests.
    pub batcher: BatcherConfig,
    /// Requests allowed per tenant and user. Default: no limit.
    pub quota: Option<QuotaConfig>,
    /// The circuit breaker around foreign backends.
    pub breaker: BreakerConfig,
    /// `cpu` is the only device so far.
    pub device: String,
}

/// The response cache: bounded by bytes, entries and age.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// Most bytes of keys, values and overhead; 0 switches the cache off. Default: 50 MiB.
    pub max_bytes: u64,
    /// Most entries. Default: 1000.
    pub max_entries: usize,
    /// Time to live. Default: 3600.
    pub ttl_seconds: u64,
    /// How long past its time to live an entry may serve a degraded answer, inside the byte bound. Default: 86400. Without
    /// a generator of the host, which can fail, it has no effect.
    pub stale_seconds: u64,
    /// A tier that engines share, `redis://[user:password@]host[:port][/db]` (feature `redis`). Default: none.
    pub shared_tier: Option<Secret>,
    /// What answers in the shared tier are sealed with, at least 16 bytes and the same for all engines that share it: without
    /// it, whoever can write there can answer in the engine's name. Default: none.
    pub shared_tier_key: Option<Secret>,
}

/// A text that is not shown in logs; written out by serde as it is.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"…\"")
    }
}

/// Admission: what may wait and what may run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BatcherConfig {
    /// Requests that run at once, 1 to 1024. Default: 5.
    pub max_concurrent: usize,
    /// Requests that may wait. Default: 256.
    pub max_queue: usize,
    /// Tokens (prompt and answer, estimated) that may wait. Default: 65536.
    pub max_queue_tokens: usize,
    /// How long admission may hold a request back to form a batch. Default: 0.
    pub window_ms: u64,
    /// Deadline of a request that sets none. Default: 30000.
    pub timeout_ms: u64,
    /// Tokens of a prompt that one step reads at most, 16 to 4096: more use the kernels better, fewer let a new request begin
    /// sooner. While others write, a step reads as few as keep it near its usual time. Default: 128.
    pub prompt_chunk_tokens: usize,
}

/// Requests allowed per tenant and user in a sliding window.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct QuotaConfig {
    /// Requests per window, at least 1.
    pub requests: usize,
    /// Length of the window, at least 1.
    pub window_ms: u64,
}

/// When a backend that can fail counts as down: a generator of the host, or the shared tier (which is tried again after a
/// second at most).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row that open the circuit. Default: 5.
    pub failure_threshold: u32,
    /// How long it stays open. Default: 60000.
    pub reset_after_ms: u64,
}

/// Where a model comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String", into = "String")]
pub enum ModelSource {
    /// The model inside the library (feature `bundled`).
    Bundled,
    /// A directory in the Hugging Face layout, or a `.gguf` file.
    Path(PathBuf),
    /// `owner/name[@revision][/file.gguf]` on the model hub.
    Hub(String),
}

impl EngineConfig {
    /// Reads a configuration from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] names the key.
    pub fn from_json(json: &str) -> Result<Self> {
        json::read(ErrorKind::InvalidConfig, "configuration", json)
    }

    /// Where relative paths of models begin.
    pub fn models_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.models_dir = Some(dir.into());
        self
    }

    /// The encoder that understands messages.
    pub fn analyst(mut self, source: impl Into<Option<ModelSource>>) -> Self {
        self.analyst = source.into();
        self
    }

    /// The decoder that answers; `None`: answers come from templates.
    pub fn responder(mut self, source: impl Into<Option<ModelSource>>) -> Self {
        self.responder = source.into();
        self
    }

    /// A further responder by the name that `options.model` uses.
    pub fn add_responder(mut self, name: impl Into<String>, source: ModelSource) -> Self {
        self.responders.insert(name.into(), source);
        self
    }

    /// Threads that compute, 1 to 256.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Ceiling for weights, key/value rows, scratch and cache together.
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// Longest prompt and answer together.
    pub fn context_tokens(mut self, tokens: usize) -> Self {
        self.context_tokens = Some(tokens);
        self
    }

    /// Memory for key/value rows.
    pub fn kv_cache_bytes(mut self, bytes: u64) -> Self {
        self.kv_cache_bytes = bytes;
        self
    }

    /// Longest message in code points.
    pub fn max_message_chars(mut self, chars: usize) -> Self {
        self.max_message_chars = chars;
        self
    }

    /// Requests that run at once, 1 to 1024.
    pub fn max_concurrent(mut self, requests: usize) -> Self {
        self.batcher.max_concurrent = requests;
        self
    }

    /// Requests that may wait.
    pub fn max_queue(mut self, requests: usize) -> Self {
        self.batcher.max_queue = requests;
        self
    }

    /// A tier that engines share, `redis://…`.
    pub fn shared_tier(mut self, url: &str) -> Self {
        self.cache.shared_tier = Some(url.into());
        self
    }

    /// What answers in the shared tier are sealed with.
    pub fn shared_tier_key(mut self, key: &str) -> Self {
        self.cache.shared_tier_key = Some(key.into());
        self
    }

    /// Most bytes of the response cache; 0 switches it off.
    pub fn cache_max_bytes(mut self, bytes: u64) -> Self {
        self.cache.max_bytes = bytes;
        self
    }

    /// Checks every value. The engine does so when it opens.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] names the key, the value and the range.
    pub fn validate(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            in_range("threads", threads as u64, 1..=256)?;
        }
        if let Some(tokens) = self.context_tokens {
            in_range("context_tokens", tokens as u64, 16..=1 << 22)?;
        }
        in_range("kv_cache_bytes", self.kv_cache_bytes, 1 << 16..=1 << 44)?;
        in_range("max_message_chars", self.max_message_chars as u64, 1..=1 << 20)?;
        in_range("max_history_messages", self.max_history_messages as u64, 0..=1 << 20)?;
        in_range("cache.max_bytes", self.cache.max_bytes, 0..=1 << 44)?;
        in_range("cache.max_entries", self.cache.max_entries as u64, 0..=1 << 32)?;
        in_range("cache.ttl_seconds", self.cache.ttl_seconds, 0..=FOREVER_SECONDS)?;
        in_range("cache.stale_seconds", self.cache.stale_seconds, 0..=FOREVER_SECONDS)?;
        in_range("batcher.max_concurrent", self.batcher.max_concurrent as u64, 1..=1024)?;
        in_range("batcher.max_queue", self.batcher.max_queue as u64, 1..=1 << 20)?;
        in_range("batcher.max_queue_tokens", self.batcher.max_queue_tokens as u64, 1..=1 << 40)?;
        in_range("batcher.window_ms", self.batcher.window_ms, 0..=10_000)?;
        in_range("batcher.timeout_ms", self.batcher.timeout_ms, 1..=FOREVER_SECONDS * 1000)?;
        in_range("batcher.prompt_chunk_tokens", self.batcher.prompt_chunk_tokens as u64, 16..=4096)?;
        in_range("breaker.failure_threshold", self.breaker.failure_threshold.into(), 1..=1 << 20)?;
        in_range("breaker.reset_after_ms", self.breaker.reset_after_ms, 1..=FOREVER_SECONDS * 1000)?;
        if let Some(quota) = self.quota {
            in_range("quota.requests", quota.requests as u64, 1..=1 << 20)?;
            in_range("quota.window_ms", quota.window_ms, 1..=FOREVER_SECONDS * 1000)?;
        }
        if self.device != "cpu" {
            return Err(invalid("device", format_args!("{:?}", self.device), "\"cpu\""));
        }
        if let Some(key) = &self.cache.shared_tier_key {
            let what = format_args!("a text of {} bytes", key.len());
            if !(16..=1024).contains(&key.len()) {
                return Err(invalid("cache.shared_tier_key", what, "16 to 1024 bytes"));
            }
        }
        if self.cache.shared_tier.is_some() && !cfg!(feature = "redis") {
            let expected = "null: this build is without the feature `redis`";
            return Err(invalid("cache.shared_tier", format_args!("set"), expected));
        }
        for name in self.responders.keys() {
            if !is_model_name(name) {
                return Err(invalid(
                    "responders",
                    format_args!("a key of {} bytes", name.len()),
                    "names of a-z, 0-9, '.', '_', '-', at most 64, beginning with a letter or digit",
                ));
            }
        }
        Ok(())
    }

    /// The trained heads by their slot; the bundled ones are the analyst's own.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&str, &ModelSource)> {
        let slots = [("intent", &self.intent), ("sentiment", &self.sentiment), ("entities", &self.entities)];
        let set = slots.into_iter().filter_map(|(slot, source)| Some((slot, source.as_ref()?)));
        set.filter(|(_, source)| **source != ModelSource::Bundled)
    }

    /// The path of a model, beginning at `models_dir` when it is relative.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        match &self.models_dir {
            Some(dir) => dir.join(path),
            None => path.to_owned(),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        let bundled = cfg!(feature = "bundled").then_some(ModelSource::Bundled);
        Self {
            models_dir: None,
            analyst: bundled.clone(),
            responder: bundled,
            responders: BTreeMap::new(),
            intent: None,
            sentiment: None,
            entities: None,
            threads: None,
            memory_limit_bytes: None,
            context_tokens: None,
            kv_cache_bytes: 256 << 20,
            max_message_chars: 4000,
            max_history_messages: 100,
            cache: CacheConfig::default(),
            batcher: BatcherConfig::default(),
            quota: None,
            breaker: BreakerConfig::default(),
            device: "cpu".into(),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_bytes: 50 << 20,
            max_entries: 1000,
            ttl_seconds: 3600,
            stale_seconds: 86_400,
            shared_tier: None,
            shared_tier_key: None,
        }
    }
}

impl Default for BatcherConfig {
    fn default() -> Self {
        Self {
            max_concurrent: 5,
            max_queue: 256,
            max_queue_tokens: 65_536,
            window_ms: 0,
            timeout_ms: 30_000,
            prompt_chunk_tokens: 128,
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failure_threshold: 5, reset_after_ms: 60_000 }
    }
}

impl From<String> for ModelSource {
    fn from(text: String) -> Self {
        match text.strip_prefix("hub:") {
            Some(id) => Self::Hub(id.to_owned()),
            None if text == "bundled" => Self::Bundled,
            None => Self::Path(text.into()),
        }
    }
}

impl From<&str> for ModelSource {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<ModelSource> for String {
    fn from(source: ModelSource) -> Self {
        match source {
            ModelSource::Bundled => "bundled".into(),
            ModelSource::Path(path) => path.to_string_lossy().into_owned(),
            ModelSource::Hub(id) => format!("hub:{id}"),
        }
    }
}

fn in_range(key: &str, value: u64, range: RangeInclusive<u64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(invalid(key, format_args!("{value}"), &format!("{} to {}", range.start(), range.end())))
}

fn invalid(key: &str, value: std::fmt::Arguments<'_>, expected: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("configuration key `{key}` is {value}, expected {expected}"))
}

/// A hundred years: long enough for anybody, short enough for `Instant` arithmetic.
const FOREVER_SECONDS: u64 = 100 * 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let documented = r#"{"models_dir": null, "analyst": "bundled", "responder": "bundled", "responders": {},
            "intent": null, "sentiment": null, "entities": null,
            "threads": null, "memory_limit_bytes": null, "context_tokens": null, "kv_cache_bytes": 268435456,
            "max_message_chars": 4000, "max_history_messages": 100,
            "cache": {"max_bytes": 52428800, "max_entries": 1000, "ttl_seconds": 3600, "stale_seconds": 86400, "shared_tier": null, "shared_tier_key": null},
            "batcher": {"max_concurrent": 5, "max_queue": 256, "max_queue_tokens": 65536, "window_ms": 0, "timeout_ms": 30000},
            "quota": null, "breaker": {"failure_threshold": 5, "reset_after_ms": 60000}, "device": "cpu"}"#;
        assert_eq!(EngineConfig::from_json(documented).unwrap(), EngineConfig::default());
        EngineConfig::default().validate().unwrap();
    }

    #[test]
    fn bad_values_are_named_with_their_range() {
        for (json, needle) in [
            (r#"{"threads": 0}"#, "`threads` is 0, expected 1 to 256"),
            (r#"{"batcher": {"max_concurrent": 0}}"#, "`batcher.max_concurrent` is 0"),
            (r#"{"device": "gpu"}"#, "`device`"),
            (r#"{"cache": {"shared_tier_key": "secret"}}"#, "`cache.shared_tier_key`"),
            (r#"{"quota": {"requests": 0, "window_ms": 1}}"#, "`quota.requests` is 0"),
            (r#"{"responders": {"../x": "bundled"}}"#, "`responders`"),
        ] {
            let error = EngineConfig::from_json(json).and_then(|config| config.validate()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(needle), "{error}");
            assert!(!error.to_string().contains("secret"));
        }
        for json in
            [r#"{"batcher": {"max_concurent": 8}}"#, r#"{"threads": "two"}"#, r#"{"threads": -1}"#, "[]", ""]
        {
            assert_eq!(EngineConfig::from_json(json).unwrap_err().kind(), ErrorKind::InvalidConfig, "{json}");
        }
    }

    #[test]
    fn names_of_models_are_not_paths() {
        for good in ["responder", "qwen2.5-0.5b", "a"] {
            assert!(is_model_name(good), "{good}");
        }
        for bad in
            ["", ".", "../x", "/abs", "a/b", "a\\b", "A", "x\0", "x\n", &"a".repeat(65), "%2e%2e", "-a"]
        {
            assert!(!is_model_name(bad), "{bad:?}");
        }
    }
}
