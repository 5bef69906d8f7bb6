//! What callers and the compute thread share: the queue, the cache, the models, the counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use antiphon_kernels::Isa;

use crate::analyst::Analyst;
use crate::batcher::Queue;
use crate::batcher::quota::Quota;
use crate::breaker::BreakerState;
use crate::cache::{Cache, Key, Origin, SHARED_TIER};
use crate::config::EngineConfig;
use crate::error::{Error, ErrorKind, Result, check_process};
use crate::job::Job;
use crate::observe::Metrics;
use crate::options::{CacheMode, RequestOptions};
use crate::passes::Quick;
use crate::plugin::stages::Stages;
use crate::registry::ModelInfo;
use crate::request::Limits;
use crate::responder::backend::Backend;
use crate::responder::{Responder, Voice};

/// What callers and the compute thread share.
pub(crate) struct Shared {
    pub(crate) queue: Queue<Quick, Job>,
    pub(crate) cache: Cache,
    pub(crate) analyst: Option<Arc<Analyst>>,
    pub(crate) fingerprints: BTreeMap<String, String>,
    pub(crate) responders: Vec<Arc<Responder>>,
    /// Generators of the host.
    pub(crate) generators: Vec<Arc<Backend>>,
    /// Stages of the host.
    pub(crate) stages: Stages,
    pub(crate) config: EngineConfig,
    pub(crate) models: Vec<ModelInfo>,
    pub(crate) threads: usize,
    pub(crate) isa: Isa,
    pub(crate) weight_bytes: usize,
    pub(crate) text_bytes: usize,
    pub(crate) kv_bytes: usize,
    pub(crate) scratch_bytes: AtomicUsize,
    pub(crate) errors: AtomicU64,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) opened: Instant,
    pub(crate) quota: Option<Quota>,
    /// The process that opened the engine; its threads are not in any other.
    pub(crate) pid: u32,
    pub(crate) stopped: (Mutex<bool>, Condvar),
}

impl Shared {
    /// The engine's threads stay behind in a `fork`; a child would wait for them for ever.
    pub(crate) fn check_process(&self) -> Result<()> {
        check_process(self.pid)
    }

    pub(crate) fn max_concurrent(&self) -> usize {
        self.config.batcher.max_concurrent
    }

    /// Fingerprints of the models that take part in an answer, by role.
    pub(crate) fn fingerprints(&self, voice: Voice) -> BTreeMap<String, String> {
        let mut fingerprints = self.fingerprints.clone();
        let responder = match voice {
            Voice::Template => return fingerprints,
            Voice::Responder(index) => self.responders[index].fingerprint.clone(),
            Voice::Generator(index) => format!("generator:{}", self.generators[index].name),
        };
        fingerprints.insert("responder".to_owned(), responder);
        fingerprints
    }

    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_scratch(&self, bytes: usize) {
        self.scratch_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Says that the compute thread has ended.
    pub(crate) fn note_stopped(&self) {
        *self.stopped.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopped.1.notify_all();
    }

    pub(crate) fn wait_stopped(&self, timeout: Option<Duration>) -> bool {
        let stopped = self.stopped.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = timeout.unwrap_or(Duration::MAX).min(LONGEST_WAIT);
        let wait = self.stopped.1.wait_timeout_while(stopped, timeout, |stopped| !*stopped);
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            message_chars: self.config.max_message_chars,
            history_messages: self.config.max_history_messages,
        }
    }

    pub(crate) fn analyst(&self) -> Result<&Analyst> {
        let missing = || Error::new(ErrorKind::BackendUnavailable, "no analyst is configured, expected one");
        self.analyst.as_deref().ok_or_else(missing)
    }

    /// Who is to answer: whom the request names, or the engine's own responder, or the host's first generator.
    pub(crate) fn choose(&self, options: &RequestOptions) -> Result<Voice> {
        let voice = match &options.model {
            None if self.config.responder.is_some() => Voice::Responder(0),
            None if !self.generators.is_empty() => Voice::Generator(0),
            None => Voice::Template,
            Some(name) => self.named(name)?,
        };
        if let Voice::Responder(index) = voice
            && let vocab = self.responders[index].decoder.config().vocab
            && let Some(id) = options.logit_bias.keys().find(|&&id| id as usize >= vocab)
        {
            let what = format!("`logit_bias` has token {id}, expected below {vocab}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(voice)
    }

    fn named(&self, name: &str) -> Result<Voice> {
        let responders = self.responders.iter().map(|responder| responder.name.as_str());
        let generators = self.generators.iter().map(|backend| backend.name.as_str());
        let responder = responders.clone().position(|known| known == name).map(Voice::Responder);
        let generator = || generators.clone().position(|known| known == name).map(Voice::Generator);
        responder.or_else(generator).ok_or_else(|| {
            let names: Vec<&str> = responders.chain(generators.clone()).collect();
            let expected = match names.as_slice() {
                [] => "null: none is configured".to_owned(),
                names => format!("one of: {}", names.join(", ")),
            };
            let what = format!("`model` names no responder, expected {expected}");
            Error::new(ErrorKind::UnknownModel, what)
        })
    }

    /// The backends that may fail, and whether they are asked.
    pub(crate) fn breakers(&self) -> impl Iterator<Item = (String, BreakerState)> {
        let tier = self.cache.tier.iter().map(|tier| (SHARED_TIER.to_owned(), tier.state()));
        tier.chain(self.generators.iter().map(|backend| (backend.name.clone(), backend.state())))
    }

    pub(crate) fn charge(&self, tenant: &str, user: Option<&str>) -> Result<()> {
        self.quota.as_ref().map_or(Ok(()), |quota| quota.charge(tenant, user))
    }

    /// Where the answer may be found or kept, if it may.
    pub(crate) fn key(
        &self,
        options: &RequestOptions,
        key: impl FnOnce(&Origin) -> Option<Key>,
        voice: Voice,
    ) -> Option<Key> {
        let wanted = options.cache != CacheMode::Bypass && voice != Voice::Template;
        let origin = || Origin {
            models: self.fingerprints(voice),
            context_tokens: match voice {
                Voice::Responder(index) => Some(self.responders[index].context_tokens),
                Voice::Generator(_) | Voice::Template => None,
            },
            stages: self.stages.len(),
            is_personal: !self.generators.is_empty() || self.stages.len() > 0,
        };
        wanted.then(|| key(&origin())).flatten()
    }
}

/// `Condvar` cannot wait for the longest `Duration`.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);
