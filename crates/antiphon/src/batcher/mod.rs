//! Admission: what waits, in which order, and what is refused.
//!
//! Submission is a queue behind one mutex. The compute thread sleeps on its condition variable; deadlines are the time-outs of
//! that wait, so there is no timer thread.

pub(crate) mod quota;

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::BatcherConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Priority;

/// What waits to be computed.
pub(crate) struct Queue<Quick, Job> {
    state: Mutex<State<Quick, Job>>,
    changed: Condvar,
    limits: BatcherConfig,
}

struct State<Quick, Job> {
    /// Analyses and embeddings: one pass, no place in the batch.
    quick: VecDeque<Quick>,
    /// Answers, one line for each priority, low first.
    lines: [VecDeque<Waiting<Job>>; 3],
    waiting: usize,
    waiting_tokens: usize,
    closing: Option<Closing>,
    /// Mean time from submission to end, for advice to the refused.
    mean_service: Duration,
    running: usize,
}

struct Waiting<Job> {
    job: Job,
    tokens: usize,
    since: Instant,
}

impl<Quick, Job> State<Quick, Job> {
    /// When a waiting request is to be looked at again: at the end of its window, at its deadline.
    fn next_moment(&self, limits: &BatcherConfig, deadline: impl Fn(&Job) -> Instant) -> Option<Instant> {
        let window = Duration::from_millis(limits.window_ms);
        let moment = |waiting: &Waiting<Job>| deadline(&waiting.job).min(waiting.since + window);
        self.lines.iter().flatten().map(moment).min()
    }

    /// Whether admission should take what waits: the batch is full, or the window of one has passed.
    fn is_ripe(&self, limits: &BatcherConfig, places: usize) -> bool {
        let window = Duration::from_millis(limits.window_ms);
        self.waiting >= places.max(1)
            || self.lines.iter().flatten().any(|waiting| waiting.since.elapsed() >= window)
    }
}

/// How the engine ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Closing {
    /// No new work; what is there is finished.
    Draining,
    /// Everything ends now.
    Now,
}

/// What waits at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Load {
    /// Requests in the queue.
    pub(crate) waiting: usize,
    /// Requests in the batch.
    pub(crate) running: usize,
}

impl<Quick, Job> Queue<Quick, Job> {
    pub(crate) fn new(limits: BatcherConfig) -> Self {
        let state = State {
            quick: VecDeque::new(),
            lines: Default::default(),
            waiting: 0,
            waiting_tokens: 0,
            closing: None,
            mean_service: Duration::from_millis(100),
            running: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), limits }
    }

    /// Adds work that takes one pass.
    pub(crate) fn submit_quick(&self, quick: Quick) -> Result<()> {
        let mut state = self.open()?;
        if state.quick.len() >= self.limits.max_queue {
            return Err(self.overloaded(&state));
        }
        state.quick.push_back(quick);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a request that will need about `tokens`.
    pub(crate) fn submit(&self, job: Job, priority: Priority, tokens: usize) -> Result<()> {
        let mut state = self.open()?;
        let full = state.waiting >= self.limits.max_queue
            || (state.waiting > 0 && state.waiting_tokens + tokens > self.limits.max_queue_tokens);
        if full {
            return Err(self.overloaded(&state));
        }
        state.waiting += 1;
        state.waiting_tokens += tokens;
        state.lines[priority as usize].push_back(Waiting { job, tokens, since: Instant::now() });
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits until there is something to do for an idle engine: work, the end of a window, the `deadline` of a request.
    pub(crate) fn wait(&self, deadline: impl Fn(&Job) -> Instant) {
        let mut state = self.lock();
        while state.closing.is_none()
            && state.quick.is_empty()
            && !state.is_ripe(&self.limits, self.limits.max_concurrent)
        {
            // Looked up anew each time: whoever woke us may have brought the first request.
            let Some(moment) = state.next_moment(&self.limits, &deadline) else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes all one-pass work.
    pub(crate) fn take_quick(&self) -> VecDeque<Quick> {
        std::mem::take(&mut self.lock().quick)
    }

    /// Takes the next `places` requests, by priority, then arrival. With a window, a request that is not urgent waits for
    /// others until it is that old.
    pub(crate) fn take(&self, places: usize) -> Vec<Job> {
        let mut state = self.lock();
        if state.closing.is_none() && !state.is_ripe(&self.limits, places) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        while taken.len() < places {
            let Some(next) = state.lines.iter_mut().rev().find_map(VecDeque::pop_front) else { break };
            state.waiting -= 1;
            state.waiting_tokens -= next.tokens;
            taken.push(next.job);
        }
        taken
    }

    /// Takes requests out of the queue that meet a condition: cancelled ones, late ones.
    pub(crate) fn remove(&self, mut condition: impl FnMut(&Job) -> bool) -> Vec<Job> {
        let mut state = self.lock();
        let mut removed = Vec::new();
        for line in 0..state.lines.len() {
            let waiting = std::mem::take(&mut state.lines[line]);
            for item in waiting {
                if condition(&item.job) {
                    state.waiting -= 1;
                    state.waiting_tokens -= item.tokens;
                    removed.push(item.job);
                } else {
                    state.lines[line].push_back(item);
                }
            }
        }
        removed
    }

    /// Says how many requests run now, and how long one took that has ended.
    pub(crate) fn report(&self, running: usize, ended: Option<Duration>) {
        let mut state = self.lock();
        state.running = running;
        if let Some(took) = ended {
            // Exponential mean over about eight requests.
            state.mean_service = state.mean_service * 7 / 8 + took / 8;
        }
    }

    pub(crate) fn close(&self, how: Closing) {
        let mut state = self.lock();
        if state.closing != Some(Closing::Now) {
            state.closing = Some(how);
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn closing(&self) -> Option<Closing> {
        self.lock().closing
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        Load { waiting: state.waiting, running: state.running }
    }

    fn open(&self) -> Result<MutexGuard<'_, State<Quick, Job>>> {
        let state = self.lock();
        if state.closing.is_some() { Err(Error::closed()) } else { Ok(state) }
    }

    fn overloaded(&self, state: &State<Quick, Job>) -> Error {
        let rounds = state.waiting.div_ceil(self.limits.max_concurrent).max(1);
        let retry_after =
            (state.mean_service * rounds as u32).clamp(Duration::from_millis(1), Duration::from_secs(60));
        let what = format!(
            "the queue is full: {} requests of {} tokens wait, the limits are {} and {}",
            state.waiting, state.waiting_tokens, self.limits.max_queue, self.limits.max_queue_tokens
        );
        Error::with_retry_after(ErrorKind::Overloaded, what, retry_after)
    }

    fn lock(&self) -> MutexGuard<'_, State<Quick, Job>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(max_queue: usize, window_ms: u64) -> Queue<(), u32> {
        let limits = BatcherConfig { max_queue, max_queue_tokens: 100, window_ms, ..Default::default() };
        Queue::new(limits)
    }

    #[test]
    fn higher_priority_goes_first_and_equals_in_order_of_arrival() {
        let queue = queue(10, 0);
        for (job, priority) in [
            (1, Priority::Low),
            (2, Priority::Normal),
            (3, Priority::High),
            (4, Priority::Normal),
            (5, Priority::High),
        ] {
            queue.submit(job, priority, 1).unwrap();
        }
        assert_eq!(queue.take(2), [3, 5]);
        assert_eq!(queue.take(9), [2, 4, 1]);
    }

    #[test]
    fn a_full_queue_refuses_with_the_time_to_come_back() {
        let queue = queue(2, 0);
        queue.submit(1, Priority::Normal, 1).unwrap();
        queue.submit(2, Priority::Normal, 1).unwrap();
        let error = queue.submit(3, Priority::High, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.retry_after().is_some());
        assert_eq!(queue.remove(|&job| job == 1), [1]);
        queue.submit(3, Priority::Normal, 1).unwrap();
    }

    #[test]
    fn tokens_bound_the_queue_but_one_request_always_fits() {
        let queue = queue(10, 0);
        queue.submit(1, Priority::Normal, 1000).unwrap();
        assert_eq!(queue.submit(2, Priority::Normal, 1).unwrap_err().kind(), ErrorKind::Overloaded);
        assert_eq!(queue.take(1), [1]);
        queue.submit(2, Priority::Normal, 99).unwrap();
    }

    #[test]
    fn a_window_holds_a_lone_request_back_until_the_batch_is_full() {
        let queue = queue(10, 10_000);
        queue.submit(1, Priority::Normal, 1).unwrap();
        assert!(queue.take(2).is_empty());
        queue.submit(2, Priority::Normal, 1).unwrap();
        assert_eq!(queue.take(2), [1, 2]);
    }

    #[test]
    fn a_sleeper_is_woken_by_the_end_of_the_window_of_a_request_that_came_later() {
        let queue = queue(10, 30);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while queue.take(2).is_empty() {
                    queue.wait(|_| Instant::now() + Duration::from_secs(3600));
                }
            });
            std::thread::sleep(Duration::from_millis(10));
            queue.submit(1, Priority::Normal, 1).unwrap();
            sleeper.join().unwrap();
        });
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = queue(10, 0);
        queue.close(Closing::Draining);
        assert_eq!(queue.submit(1, Priority::Normal, 1).unwrap_err().kind(), ErrorKind::Closed);
        queue.close(Closing::Now);
        queue.close(Closing::Draining);
        assert_eq!(queue.closing(), Some(Closing::Now));
    }
}
