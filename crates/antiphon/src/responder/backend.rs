//! A generator of the host, how it has done, and one answer in its hands.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::breaker::{Breaker, BreakerState};
use crate::observe::Observers;
use crate::plugin::desk::Task;
use crate::plugin::{Generator, MOST_BYTES, PluginError};
use crate::request::Generate;

/// A generator and how it has done.
pub(crate) struct Backend {
    generator: Arc<dyn Generator>,
    pub(crate) name: String,
    breaker: Breaker,
    observers: Arc<Observers>,
}

/// An answer that a generator makes.
pub(super) struct Writing {
    pub(super) backend: Arc<Backend>,
    request: Generate,
    letters: Mutex<Letters>,
}

/// What was written and the compute thread has not yet read.
#[derive(Default)]
struct Letters {
    text: String,
    ended: Option<Result<(), PluginError>>,
    /// A thread has taken it up.
    begun: bool,
    /// Nobody reads any more.
    unwanted: bool,
}

impl Backend {
    pub(crate) fn new(generator: Arc<dyn Generator>, breaker: Breaker, observers: Arc<Observers>) -> Self {
        Self { name: generator.name().to_owned(), generator, breaker, observers }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    pub(super) fn admits(&self) -> bool {
        self.breaker.admits(Instant::now())
    }

    /// Takes the generator for a working one again.
    pub(crate) fn reset(&self) {
        self.succeed("it was reset");
    }

    pub(super) fn succeed(&self, why: &str) {
        if self.breaker.succeed() {
            self.observers.breaker(&self.name, BreakerState::Closed, why);
        }
    }

    pub(super) fn fail(&self, why: &str) {
        if self.breaker.fail(Instant::now()) {
            self.observers.breaker(&self.name, BreakerState::Open, why);
        }
    }
}

impl Writing {
    pub(super) fn new(backend: Arc<Backend>, request: Generate) -> Arc<Self> {
        Arc::new(Self { backend, request, letters: Mutex::default() })
    }

    /// What was written since the last time, and how it ended, if it has.
    pub(super) fn take(&self) -> (String, Option<Result<(), PluginError>>) {
        let mut letters = self.lock();
        (std::mem::take(&mut letters.text), letters.ended.take())
    }

    pub(super) fn is_begun(&self) -> bool {
        self.lock().begun
    }

    /// The generator learns of it by its next `write`.
    pub(super) fn give_up(&self) {
        self.lock().unwanted = true;
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task for Writing {
    fn run(&self, news: &dyn Fn()) {
        self.lock().begun = true;
        let mut write = |piece: &str| {
            let mut letters = self.lock();
            if letters.unwanted || letters.text.len() + piece.len() > MOST_BYTES {
                return ControlFlow::Break(());
            }
            letters.text.push_str(piece);
            drop(letters);
            news();
            ControlFlow::Continue(())
        };
        let generator = &self.backend.generator;
        let ended = catch_unwind(AssertUnwindSafe(|| generator.generate(&self.request, &mut write)))
            .unwrap_or_else(|_| Err(PluginError::new("it panicked")));
        self.lock().ended = Some(ended);
        news();
    }
}
