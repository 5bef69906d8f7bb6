//! Where generators of the host run: threads of their own kind, what they take up and what they have written.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::breaker::{Breaker, BreakerState};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Observers;
use crate::plugin::{Generator, PluginError};
use crate::request::Generate;

/// A generator and how it has done.
pub(crate) struct Backend {
    generator: Arc<dyn Generator>,
    pub(crate) name: String,
    breaker: Breaker,
    observers: Arc<Observers>,
}

/// Where the generators' threads find work.
pub(crate) struct Desk {
    tasks: Mutex<Tasks>,
    changed: Condvar,
    /// Threads are started when they are needed, and not more than these.
    most_threads: usize,
    /// Tells the compute thread that there is something to read.
    news: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Tasks {
    waiting: VecDeque<Task>,
    threads: usize,
    idle: usize,
    closed: bool,
}

type Task = (Arc<Backend>, Generate, Arc<Inbox>);

/// What a generator has written and the compute thread has not yet read.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Letters>);

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

    fn run(&self, request: &Generate, inbox: &Inbox, news: &dyn Fn()) {
        let mut write = |piece: &str| {
            let mut letters = inbox.lock();
            if letters.unwanted || letters.text.len() + piece.len() > MOST_BYTES {
                return ControlFlow::Break(());
            }
            letters.text.push_str(piece);
            drop(letters);
            news();
            ControlFlow::Continue(())
        };
        let ended = catch_unwind(AssertUnwindSafe(|| self.generator.generate(request, &mut write)))
            .unwrap_or_else(|_| Err(PluginError::new("it panicked")));
        inbox.lock().ended = Some(ended);
        news();
    }
}

impl Desk {
    pub(crate) fn new(most_threads: usize, news: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (tasks, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { tasks, changed, most_threads, news: Box::new(news) })
    }

    /// Hands out an answer to be made.
    pub(super) fn add(
        self: &Arc<Self>,
        backend: Arc<Backend>,
        request: Generate,
        inbox: Arc<Inbox>,
    ) -> Result<()> {
        let mut tasks = self.lock();
        if tasks.idle <= tasks.waiting.len() && tasks.threads < self.most_threads {
            let desk = Arc::clone(self);
            match antiphon_kernels::spawn("antiphon-generator", move || desk.serve()) {
                Ok(_) => tasks.threads += 1,
                // Those that are there will come to it.
                Err(_) if tasks.threads > 0 => {}
                Err(error) => {
                    let what = format!("starting a thread failed: {error}");
                    return Err(Error::with_source(ErrorKind::Io, what, error));
                }
            }
        }
        tasks.waiting.push_back((backend, request, inbox));
        drop(tasks);
        self.changed.notify_one();
        Ok(())
    }

    /// Runs on each of the generators' threads until the desk closes.
    fn serve(&self) {
        while let Some((backend, request, inbox)) = self.next() {
            backend.run(&request, &inbox, &self.news);
        }
    }

    /// Nobody wants that answer any more, begun or not.
    pub(super) fn forget(&self, inbox: &Arc<Inbox>) {
        inbox.lock().unwanted = true;
        self.lock().waiting.retain(|(_, _, other)| !Arc::ptr_eq(other, inbox));
    }

    /// The threads end when they have nothing under way. Nobody waits for them: a generator may never return.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Task> {
        let mut tasks = self.lock();
        loop {
            if tasks.closed {
                return None;
            }
            if let Some(task) = tasks.waiting.pop_front() {
                task.2.lock().begun = true;
                return Some(task);
            }
            tasks.idle += 1;
            tasks = self.changed.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            tasks.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// What was written since the last time, and how it ended, if it has.
    pub(super) fn take(&self) -> (String, Option<Result<(), PluginError>>) {
        let mut letters = self.lock();
        (std::mem::take(&mut letters.text), letters.ended.take())
    }

    pub(super) fn is_begun(&self) -> bool {
        self.lock().begun
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A generator that goes on for longer has lost its way.
pub(super) const MOST_BYTES: usize = 1 << 20;
