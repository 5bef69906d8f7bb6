//! Counters and gauges of one engine, as the text that Prometheus reads. Nothing is global: a second engine in the process
//! counts for itself. No text of a user is ever a label.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::Observers;
use crate::reply::Usage;
use crate::shared::Shared;

/// What an engine counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    rejected: Family<[Label; 1], Counter>,
    queue_wait: Histogram,
    first_token: Histogram,
    batch_size: Histogram,
    tokens: Family<[Label; 1], Counter>,
    readings: Readings,
    observers: Arc<Observers>,
}

/// A name and its value.
type Label = (&'static str, &'static str);

/// What is counted elsewhere, and read when somebody looks.
struct Readings {
    accuracy: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
    hits: Counter,
    misses: Counter,
    joined: Counter,
    shared_hits: Counter,
    evictions: Counter,
    expired: Counter,
    cache_bytes: Gauge,
    cache_entries: Gauge,
    queue_depth: Gauge,
    running: Gauge,
    memory: Family<[Label; 1], Gauge>,
    breakers: Family<[(&'static str, String); 1], Gauge>,
}

impl Metrics {
    pub(crate) fn new(observers: Arc<Observers>) -> Self {
        let mut registry = Registry::default();
        let book = &mut registry;
        Self {
            requests: add(
                book,
                "ai_requests",
                "Requests by what was called and how they ended",
                Family::default(),
            ),
            durations: add(
                book,
                "ai_request_duration_seconds",
                "From the call to its end",
                Family::new_with_constructor(seconds),
            ),
            readings: Readings {
                accuracy: add(
                    book,
                    "ai_model_accuracy",
                    "What a model's card says, 0 to 1",
                    Family::default(),
                ),
                hits: add(book, "antiphon_cache_hits", "Answers from the cache", Counter::default()),
                misses: add(
                    book,
                    "antiphon_cache_misses",
                    "Requests without an answer there",
                    Counter::default(),
                ),
                joined: add(
                    book,
                    "antiphon_cache_joined",
                    "Requests that joined an equal one",
                    Counter::default(),
                ),
                shared_hits: add(
                    book,
                    "antiphon_cache_shared_hits",
                    "Answers from the shared tier",
                    Counter::default(),
                ),
                evictions: add(
                    book,
                    "antiphon_cache_evictions",
                    "Answers that made room",
                    Counter::default(),
                ),
                expired: add(book, "antiphon_cache_expired", "Answers that grew too old", Counter::default()),
                cache_bytes: add(book, "antiphon_cache_bytes", "Bytes of the cache", Gauge::default()),
                cache_entries: add(book, "antiphon_cache_entries", "Answers in the cache", Gauge::default()),
                queue_depth: add(book, "antiphon_queue_depth", "Requests that wait", Gauge::default()),
                running: add(book, "antiphon_running_requests", "Requests in the batch", Gauge::default()),
                memory: add(book, "antiphon_memory_bytes", "Bytes by what holds them", Family::default()),
                breakers: add(
                    book,
                    "antiphon_breaker_state",
                    "Whether a backend is asked: 0 yes (closed), 1 on trial (half open), 2 no (open)",
                    Family::default(),
                ),
            },
            rejected: add(book, "antiphon_rejected", "Requests that were refused, by why", Family::default()),
            queue_wait: add(
                book,
                "antiphon_queue_wait_seconds",
                "From the call to a place in the batch",
                seconds(),
            ),
            first_token: add(
                book,
                "antiphon_first_token_seconds",
                "From the call to the first token",
                seconds(),
            ),
            batch_size: add(
                book,
                "antiphon_batch_size",
                "Sequences in a step",
                Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]),
            ),
            tokens: add(
                book,
                "antiphon_tokens",
                "Tokens read, written, and found read already",
                Family::default(),
            ),
            observers,
            registry,
        }
    }

    /// A request that the batch has let go.
    pub(crate) fn note_answer(&self, queue: Duration, first_token: Option<Duration>, usage: Usage) {
        self.queue_wait.observe(queue.as_secs_f64());
        first_token.iter().for_each(|time| self.first_token.observe(time.as_secs_f64()));
        for (kind, count) in [
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
            ("cached", usage.cached_tokens),
        ] {
            self.tokens.get_or_create(&[("kind", kind)]).inc_by(count as u64);
        }
    }

    /// A step of so many sequences.
    pub(crate) fn note_step(&self, sequences: usize) {
        self.batch_size.observe(sequences as f64);
    }

    /// All of it as text.
    pub(crate) fn text(&self, shared: &Shared) -> String {
        self.readings.read(shared);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a string cannot fail");
        text
    }

    /// A request that was refused.
    pub(super) fn note_rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&[("reason", reason)]).inc();
    }

    /// A request that ended.
    pub(super) fn note_end(&self, endpoint: &'static str, status: &'static str, took: Duration) {
        self.requests.get_or_create(&[("endpoint", endpoint), ("status", status)]).inc();
        self.durations.get_or_create(&[("endpoint", endpoint)]).observe(took.as_secs_f64());
        self.observers.request(endpoint, status, took.as_secs_f64() * 1e3);
    }
}

impl Readings {
    fn read(&self, shared: &Shared) {
        let stats = shared.cache.stats();
        let counts = [
            (&self.hits, stats.hits),
            (&self.misses, stats.misses),
            (&self.joined, stats.joined),
            (&self.shared_hits, stats.shared_hits),
            (&self.evictions, stats.evicted),
            (&self.expired, stats.expired),
        ];
        counts.into_iter().for_each(|(counter, value)| counter.inner().store(value, Ordering::Relaxed));
        let load = shared.queue.load();
        let gauges = [
            (&self.cache_bytes, stats.bytes as usize),
            (&self.cache_entries, stats.entries),
            (&self.queue_depth, load.waiting),
            (&self.running, load.running),
        ];
        gauges.into_iter().for_each(|(gauge, value)| _ = gauge.set(value as i64));
        for (part, bytes) in [
            ("weights", shared.weight_bytes),
            ("text", shared.text_bytes),
            ("key_value", shared.kv_bytes),
            ("scratch", shared.scratch_bytes.load(Ordering::Relaxed)),
            ("cache", stats.bytes as usize),
            ("queue", load.bytes),
        ] {
            self.memory.get_or_create(&[("part", part)]).set(bytes as i64);
        }
        for (backend, state) in shared.breakers() {
            self.breakers.get_or_create(&[("backend", backend)]).set(state as i64);
        }
        for model in &shared.models {
            if let Some(accuracy) = model.accuracy() {
                self.accuracy.get_or_create(&[("model_name", model.model_name.clone())]).set(accuracy);
            }
        }
    }
}

/// Registers a metric and hands it back. The registry adds `_total` to the names of counters.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// From a tenth of a millisecond to about half a minute, in factors of two.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 2.0, 19))
}
