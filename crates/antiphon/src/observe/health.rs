//! Health: cheap, no inference, for a load balancer that asks every second.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::breaker::BreakerState;
use crate::engine::Engine;

/// How the engine is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// In one word.
    pub status: HealthStatus,
    /// Whether it takes requests.
    pub ready: bool,
    /// Since it was opened.
    pub uptime_ms: u64,
    /// Requests that ended with an error, cancelled ones not counted.
    pub error_count: u64,
    /// What is not as it should be.
    pub diagnostics: Vec<String>,
}

/// How the engine is, in one word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Everything works.
    Healthy,
    /// It answers, but something is missing.
    Degraded,
    /// It does not answer.
    Unhealthy,
}

impl Health {
    pub(crate) fn of(engine: &Engine) -> Self {
        let shared = engine.shared();
        let ready = engine.ready();
        let mut diagnostics = Vec::new();
        if engine.check_process().is_err() {
            diagnostics.push("the engine was opened in another process".to_owned());
        } else if !ready {
            diagnostics.push("the engine is closed or closing".to_owned());
        }
        if shared.analyst.is_none() {
            diagnostics.push("no analyst is configured: messages cannot be analysed".to_owned());
        }
        if shared.config.responder.is_none() && shared.generators.is_empty() {
            diagnostics.push("no responder is configured: answers come from templates".to_owned());
        }
        // After a `fork` a lock may be held by a thread that the child does not have.
        if ready {
            for (backend, state) in shared.breakers().filter(|(_, state)| *state != BreakerState::Closed) {
                let state = state.name();
                diagnostics.push(format!("the backend {backend} is down: its circuit breaker is {state}"));
            }
            let waiting = shared.queue.load().waiting;
            if waiting >= shared.config.batcher.max_queue {
                diagnostics.push(format!("the queue is full: {waiting} requests wait"));
            }
        }
        let status = match (ready, diagnostics.is_empty()) {
            (false, _) => HealthStatus::Unhealthy,
            (true, true) => HealthStatus::Healthy,
            (true, false) => HealthStatus::Degraded,
        };
        let uptime_ms = shared.opened.elapsed().as_millis() as u64;
        Self { status, ready, uptime_ms, error_count: shared.errors.load(Ordering::Relaxed), diagnostics }
    }
}
