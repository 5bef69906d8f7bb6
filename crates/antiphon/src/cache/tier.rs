//! The tier that engines share, behind the engine's own cache: asked for answers that this does not have, given those that
//! it keeps.
//!
//! Two threads of its own make the calls, so neither a caller nor the compute thread ever waits for one. A request waits in
//! the batcher's lobby for at most [`BUDGET`]; then it gets in line as if there were no tier.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Key;
use super::record::{Flaw, Opened, Seal};
use crate::breaker::{Breaker, BreakerState};
use crate::config::{BreakerConfig, CacheConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Observers;
use crate::plugin::{Level, PluginError, SharedTier};
use crate::reply::Event;

/// A shared tier and what is to be asked of it.
pub(crate) struct Tier {
    backend: Arc<dyn SharedTier>,
    breaker: Breaker,
    seal: Seal,
    ttl: Duration,
    tasks: Mutex<Tasks>,
    changed: Condvar,
    observers: Arc<Observers>,
    /// Values that came back and were no answer to their key.
    flawed: AtomicU64,
}

struct Tasks {
    waiting: VecDeque<(Instant, Task)>,
    /// When a call came back.
    returned: Instant,
    closed: bool,
}

/// What is to be done with the tier.
pub(crate) enum Task {
    /// A request that is held under this number may find its answer there.
    Find { number: u64, key: Key, message: Box<str> },
    /// An answer to keep.
    Keep { key: Key, events: Arc<[Event]> },
    /// Somebody wants to know whether it answers.
    Probe(SyncSender<Result<(), PluginError>>),
}

impl Tier {
    pub(crate) fn new(
        backend: Arc<dyn SharedTier>,
        cache: &CacheConfig,
        breaker: BreakerConfig,
        observers: Arc<Observers>,
    ) -> Self {
        // A trial costs a request next to nothing, so it need not wait as long as one of a backend that answers.
        let reset_after_ms = breaker.reset_after_ms.min(TRIAL_MS);
        Self {
            backend,
            breaker: Breaker::new(BreakerConfig { reset_after_ms, ..breaker }),
            seal: Seal::new(cache.shared_tier_key.as_deref()),
            ttl: Duration::from_secs(cache.ttl_seconds),
            tasks: Mutex::new(Tasks { waiting: VecDeque::new(), returned: Instant::now(), closed: false }),
            changed: Condvar::new(),
            observers,
            flawed: AtomicU64::new(0),
        }
    }

    /// Hands a task to the threads; false when they have too much to do, or the tier is down: it is not done then.
    pub(crate) fn submit(&self, task: Task) -> bool {
        if self.state() == BreakerState::Open {
            return false;
        }
        let now = Instant::now();
        let mut tasks = self.lock();
        // Who has waited for the whole budget waits no longer; and if no call came back for long, none may ever.
        let is_overdue = |since: &Instant| *since + BUDGET < now;
        let is_stuck =
            tasks.returned + STUCK < now && tasks.waiting.front().is_some_and(|(since, _)| is_overdue(since));
        tasks.waiting.retain(|(since, task)| matches!(task, Task::Keep { .. }) || !is_overdue(since));
        let accepted = !tasks.closed && tasks.waiting.len() < MAX_TASKS;
        if accepted {
            tasks.waiting.push_back((now, task));
        }
        drop(tasks);
        self.changed.notify_one();
        if is_stuck {
            self.note_failure("its calls do not return");
        }
        accepted
    }

    /// Runs on each of the tier's threads until it closes. `found` gets what there is for a held request, or none.
    pub(crate) fn run(&self, found: impl Fn(u64, Key, Option<Opened>)) {
        while let Some((since, task)) = self.next() {
            let work = || match task {
                // It waits no longer.
                Task::Find { .. } if since.elapsed() > BUDGET => {}
                Task::Find { number, key, message } => {
                    let opened = self.find(&key, &message);
                    found(number, key, opened);
                }
                Task::Keep { key, events } => self.keep(&key, &events),
                // Nobody may be waiting for it any more.
                Task::Probe(answer) => _ = answer.try_send(self.backend.get(b"antiphon:1:probe").map(drop)),
            };
            // Wakers of the host run in here, too.
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                self.observers.log(Level::Error, TARGET, "a panic in a thread of the shared tier");
            }
            self.lock().returned = Instant::now();
        }
    }

    /// The threads end when they have nothing under way. Nobody waits for them: a call into foreign code may never end.
    pub(crate) fn close(&self) {
        let mut tasks = self.lock();
        tasks.closed = true;
        tasks.waiting.clear();
        drop(tasks);
        self.changed.notify_all();
    }

    /// Asks for something that is not there, on a thread of the tier.
    pub(crate) fn probe(&self) -> Result<String> {
        let (sender, answer) = sync_channel(1);
        let down = || Error::new(ErrorKind::PluginFailed, "the shared tier is left alone for a while");
        if !self.submit(Task::Probe(sender)) {
            return Err(down());
        }
        match answer.recv_timeout(PROBE) {
            Ok(Ok(())) => {
                let flawed = self.flawed.load(Ordering::Relaxed);
                Ok(format!("it answers; {flawed} of its values were no answers to their keys"))
            }
            Ok(Err(error)) => Err(Error::new(ErrorKind::PluginFailed, format!("the shared tier: {error}"))),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(ErrorKind::PluginFailed, "the shared tier is busy, or panicked"))
            }
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("the shared tier gave no answer within {} ms", PROBE.as_millis());
                Err(Error::new(ErrorKind::DeadlineExceeded, what))
            }
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// Takes the tier for a working one again.
    pub(crate) fn reset(&self) {
        if self.breaker.succeed() {
            self.tell(BreakerState::Closed, "it was reset");
        }
    }

    fn find(&self, key: &Key, message: &str) -> Option<Opened> {
        let name = key.name();
        let record = self.call(|| self.backend.get(name.as_bytes()))??;
        let opened = self.seal.open(&record, key, message, self.ttl, SystemTime::now());
        // An old answer may be young enough for others.
        if let Err(flaw) = opened.as_ref().map_err(|flaw| *flaw).map(drop)
            && flaw != Flaw::Age
        {
            self.flawed.fetch_add(1, Ordering::Relaxed);
            let what = format!("a value is no answer to its key ({flaw:?}): it is removed");
            self.observers.log(Level::Warn, TARGET, &what);
            self.call(|| self.backend.remove(name.as_bytes()));
        }
        opened.ok()
    }

    fn keep(&self, key: &Key, events: &[Event]) {
        if let Some(record) = self.seal.close(key, events, SystemTime::now()) {
            self.call(|| self.backend.put(key.name().as_bytes(), &record, self.ttl));
        }
    }

    /// One call into foreign code, if the breaker admits it: its value, when it came in time.
    fn call<T>(&self, call: impl FnOnce() -> Result<T, PluginError>) -> Option<T> {
        let started = Instant::now();
        if !self.breaker.admits(started) {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(call))
            .unwrap_or_else(|_| Err(PluginError::new("it panicked")))
            .and_then(|value| match started.elapsed() {
                took if took <= BUDGET => Ok(value),
                took => Err(PluginError::new(format!("it took {} ms", took.as_millis()))),
            });
        match result {
            Ok(value) => {
                if self.breaker.succeed() {
                    self.tell(BreakerState::Closed, "it answers again");
                }
                Some(value)
            }
            Err(error) => {
                self.note_failure(&error.to_string());
                None
            }
        }
    }

    fn note_failure(&self, why: &str) {
        if self.breaker.fail(Instant::now()) {
            self.tell(BreakerState::Open, why);
        }
    }

    /// One line for each change of state, however many requests there are.
    fn tell(&self, state: BreakerState, why: &str) {
        self.observers.breaker(SHARED_TIER, state, why);
    }

    fn next(&self) -> Option<(Instant, Task)> {
        let mut tasks = self.lock();
        loop {
            if let Some(task) = tasks.waiting.pop_front() {
                return Some(task);
            }
            if tasks.closed {
                return None;
            }
            tasks = self.changed.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a request waits for the tier.
pub(crate) const BUDGET: Duration = Duration::from_millis(20);

/// What the tier is called where backends have names.
pub(crate) const SHARED_TIER: &str = "shared_tier";

/// Threads that call the tier.
pub(crate) const THREADS: usize = 2;

/// An open breaker lets a trial through after so long.
const TRIAL_MS: u64 = 1000;

/// Threads from which nothing was heard for so long, while something waits, are lost in foreign code.
const STUCK: Duration = Duration::from_millis(100);

/// How long a diagnosis waits for it.
const PROBE: Duration = Duration::from_secs(1);

/// More wait only where the tier is slower than the engine: what comes then goes without it.
const MAX_TASKS: usize = 1024;

const TARGET: &str = "antiphon::cache::tier";
