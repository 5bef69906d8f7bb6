//! Diagnosis: every part is tried, and what failed comes with advice.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use antiphon_kernels::{Isa, available_threads};
use serde::{Deserialize, Serialize};

use super::Health;
use crate::batcher::Load;
use crate::breaker::BreakerState;
use crate::cache::CacheStats;
use crate::config::{EngineConfig, ModelSource};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::options::CacheMode;
use crate::registry;
use crate::reply::Event;
use crate::request::{Generate, Message};
use crate::stream::ReplyStream;

/// What a self-test found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
    /// What was tried.
    pub checks: Vec<Check>,
    /// Whether the configuration makes sense here.
    pub configuration: Configuration,
    /// The engine's health.
    pub server_status: Health,
    /// What to do.
    pub recommendations: Vec<String>,
}

/// One thing that was tried.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What.
    pub name: String,
    /// How it went.
    pub result: CheckResult,
    /// How long it took.
    pub duration_ms: f64,
    /// What was seen.
    pub message: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// As it should.
    Success,
    /// Not as it should.
    Failed,
    /// Not in time.
    Timeout,
}

/// Whether a configuration makes sense on this machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Configuration {
    /// No issues.
    pub valid: bool,
    /// What does not.
    pub issues: Vec<String>,
}

impl Diagnosis {
    pub(crate) fn of(engine: &Engine) -> Self {
        // Nothing else can be tried in a child process: it has none of the engine's threads, and they may hold its locks.
        if let Err(forked) = engine.check_process() {
            return Self::with(engine, vec![check("process", || Err(forked))]);
        }
        let shared = engine.shared();
        let mut checks = vec![check("processor", || Ok(processor(engine)))];
        // Before the requests of this diagnosis.
        checks.push(check("load", || {
            let Load { waiting, running, .. } = shared.queue.load();
            Ok(format!("{waiting} requests wait, {running} run"))
        }));
        for (slot, source) in slots(&shared.config) {
            checks.push(check(&format!("files of {slot}"), || integrity(slot, source, &shared.config)));
        }
        if shared.analyst.is_some() {
            checks.push(check("analysis", || {
                let analysis = engine.analyze_blocking("Hello")?;
                Ok(format!("{} tokens in one pass", analysis.tokens))
            }));
        }
        for responder in &shared.responders {
            checks.push(check(&format!("generation by {}", responder.name), || {
                generation(engine, &responder.name)
            }));
        }
        if let Some(responder) = shared.responders.first() {
            checks.push(check("batch", || batch(engine, &responder.name)));
        }
        checks.push(check("cache", || Ok(cache(engine))));
        if let Some(tier) = &shared.cache.tier {
            checks.push(check("shared tier", || tier.probe()));
        }
        for (backend, state) in shared.breakers() {
            checks.push(check(&format!("breaker of {backend}"), || match state {
                BreakerState::Closed => Ok("closed: it is asked".to_owned()),
                _ => Err(Error::new(ErrorKind::BackendUnavailable, format!("it is {}", state.name()))),
            }));
        }
        checks.push(check("memory", || Ok(memory(engine))));
        Self::with(engine, checks)
    }

    fn with(engine: &Engine, checks: Vec<Check>) -> Self {
        let issues = issues(engine);
        let failed = checks.iter().filter(|check| check.result != CheckResult::Success);
        let mut recommendations: Vec<String> =
            failed.map(|check| format!("{}: {}", check.name, check.message)).collect();
        recommendations.extend(issues.iter().cloned());
        Self {
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            checks,
            configuration: Configuration { valid: issues.is_empty(), issues },
            server_status: Health::of(engine),
            recommendations,
        }
    }
}

fn check(name: &str, run: impl FnOnce() -> Result<String>) -> Check {
    let started = Instant::now();
    let (result, message) = match run() {
        Ok(message) => (CheckResult::Success, message),
        Err(error) if error.kind() == ErrorKind::DeadlineExceeded => {
            (CheckResult::Timeout, error.to_string())
        }
        Err(error) => (CheckResult::Failed, format!("{error}; {}", error.hint())),
    };
    let duration_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    Check { name: name.to_owned(), result, duration_ms, message }
}

fn slots(config: &EngineConfig) -> impl Iterator<Item = (&str, &ModelSource)> {
    let own = [("analyst", &config.analyst), ("responder", &config.responder)];
    let own = own.into_iter().filter_map(|(slot, source)| Some((slot, source.as_ref()?)));
    own.chain(config.heads()).chain(config.responders.iter().map(|(name, source)| (name.as_str(), source)))
}

/// Reads the files again and holds them against their manifest.
fn integrity(slot: &str, source: &ModelSource, config: &EngineConfig) -> Result<String> {
    let package = registry::open(slot, source, config)?;
    if package.manifest.is_none() {
        return Ok(format!("{} bytes, no manifest to check against", package.file_bytes));
    }
    package.verify().map_err(|error| Error::from(error).context(slot))?;
    Ok(format!("{} bytes as the manifest lists them", package.file_bytes))
}

fn generation(engine: &Engine, model: &str) -> Result<String> {
    let request = Generate::messages([Message::user("Hello")])
        .model(model)
        .max_tokens(4)
        .cache(CacheMode::Bypass)
        .deadline(Duration::from_secs(10));
    let reply = engine.generate_blocking(request)?;
    let usage = reply.metadata.response_generation.usage;
    Ok(format!("{} tokens read, {} written", usage.prompt_tokens, usage.completion_tokens))
}

/// Several at once, and each alone: the same tokens, or this machine computes wrongly.
fn batch(engine: &Engine, model: &str) -> Result<String> {
    let request = |text: &&str| {
        let request = Generate::messages([Message::user(*text)]).model(model).max_tokens(8);
        request.cache(CacheMode::Bypass).deadline(Duration::from_secs(10))
    };
    let last = |stream: ReplyStream| match stream.into_iter().last() {
        Some(Ok(Event::Done(reply))) => Ok(reply.response),
        Some(Err(error)) => Err(error),
        other => Err(Error::new(
            ErrorKind::Internal,
            format!("a stream ended with {}", other.map_or("nothing", |_| "an event")),
        )),
    };
    let streams: Vec<_> =
        AT_ONCE.iter().map(|text| engine.generate_stream(request(text))).collect::<Result<_>>()?;
    let at_once: Vec<_> = streams.into_iter().map(last).collect::<Result<_>>()?;
    for (text, answer) in AT_ONCE.iter().zip(at_once) {
        if engine.generate_blocking(request(text))?.response != answer {
            return Err(Error::new(
                ErrorKind::Internal,
                "an answer beside others differs from the same answer alone",
            ));
        }
    }
    Ok(format!("{} answers at once as each alone", AT_ONCE.len()))
}

fn cache(engine: &Engine) -> String {
    let CacheStats { entries, bytes, max_bytes, hit_rate, .. } = engine.shared().cache.stats();
    format!(
        "{entries} answers in {bytes} of {max_bytes} bytes, {:.0} % of requests found theirs",
        100.0 * hit_rate
    )
}

fn processor(engine: &Engine) -> String {
    let shared = engine.shared();
    format!("{} kernels, {} threads of {} allowed", shared.isa.name(), shared.threads, available_threads())
}

fn memory(engine: &Engine) -> String {
    let shared = engine.shared();
    format!(
        "weights {}, vocabularies and patterns {}, key/value rows {}, scratch {}, cache {}, queue {} bytes",
        shared.weight_bytes,
        shared.text_bytes,
        shared.kv_bytes,
        shared.scratch_bytes.load(Ordering::Relaxed),
        shared.cache.stats().bytes,
        shared.queue.load().bytes
    )
}

fn issues(engine: &Engine) -> Vec<String> {
    let shared = engine.shared();
    let mut issues = Vec::new();
    let allowed = available_threads();
    if shared.threads > allowed {
        let threads = shared.threads;
        issues.push(format!(
            "`threads` is {threads}, but the process may use {allowed} CPUs: lower it or leave it null"
        ));
    }
    if shared.isa == Isa::Portable {
        issues.push("the processor has neither AVX2, AVX-512 nor NEON: answers will be slow".into());
    }
    if shared.config.batcher.max_queue < shared.config.batcher.max_concurrent {
        issues.push("`batcher.max_queue` is below `batcher.max_concurrent`: the batch may run empty".into());
    }
    issues
}

/// Questions of different lengths.
const AT_ONCE: [&str; 4] = [
    "Hello",
    "Where is my order?",
    "I want my money back, please",
    "How do I change my address, and how long does it take?",
];
