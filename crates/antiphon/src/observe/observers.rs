//! What is told to the host's observers, and to whoever subscribes to `tracing`. No text of a user is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::breaker::BreakerState;
use crate::plugin::{Level, Observer};

/// The observers of an engine. Each line goes to `tracing`, too, where nobody listens unless the host does.
#[derive(Default)]
pub(crate) struct Observers(Vec<Guarded>);

/// An observer that is not called again once it has panicked.
struct Guarded {
    observer: Arc<dyn Observer>,
    broken: AtomicBool,
}

impl Observers {
    pub(crate) fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        let guard = |observer| Guarded { observer, broken: AtomicBool::new(false) };
        Self(observers.into_iter().map(guard).collect())
    }

    pub(crate) fn log(&self, level: Level, target: &'static str, message: &str) {
        // `tracing` wants levels and targets that are known when it is compiled.
        match level {
            Level::Error => tracing::error!(name: "antiphon", source = target, "{message}"),
            Level::Warn => tracing::warn!(name: "antiphon", source = target, "{message}"),
            Level::Info => tracing::info!(name: "antiphon", source = target, "{message}"),
            Level::Debug => tracing::debug!(name: "antiphon", source = target, "{message}"),
        }
        self.each(|observer| observer.log(level, target, message));
    }

    /// A backend was given up, or came back.
    pub(crate) fn breaker(&self, backend: &str, state: BreakerState, why: &str) {
        let (level, what) = match state {
            BreakerState::Closed => (Level::Info, "is used again"),
            BreakerState::HalfOpen | BreakerState::Open => (Level::Warn, "is left alone for a while"),
        };
        self.log(level, "antiphon::breaker", &format!("{backend} {what}: {why}"));
        self.event("breaker", || json!({"backend": backend, "state": state, "reason": why}));
    }

    /// A request has ended.
    pub(crate) fn request(&self, endpoint: &str, status: &str, duration_ms: f64) {
        tracing::debug!(endpoint, status, duration_ms, "request");
        self.event("request", || json!({"endpoint": endpoint, "status": status, "duration_ms": duration_ms}));
    }

    fn event(&self, name: &str, fields: impl FnOnce() -> Value) {
        if !self.0.is_empty() {
            let fields = fields();
            self.each(|observer| observer.event(name, &fields));
        }
    }

    fn each(&self, call: impl Fn(&dyn Observer)) {
        for Guarded { observer, broken } in &self.0 {
            let whole = || catch_unwind(AssertUnwindSafe(|| call(&**observer))).is_ok();
            if !broken.load(Ordering::Relaxed) && !whole() {
                broken.store(true, Ordering::Relaxed);
            }
        }
    }
}
