//! Admission: what waits, in which order, and what is refused.
//!
//! Submission is a queue behind one mutex. The compute thread sleeps on its condition variable; deadlines are the time-outs of
//! that wait, so there is no timer thread.

mod held;
mod line;
pub(crate) mod quota;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use self::held::{Held, Lobby};
use self::line::{Line, Waiting};
use crate::config::BatcherConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::flight::Attention;
use crate::options::Priority;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// What waits to be computed.
pub(crate) struct Queue<Quick, Job> {
    state: Mutex<State<Quick, Job>>,
    changed: Condvar,
    limits: BatcherConfig,
    /// Most bytes of requests that may wait.
    max_bytes: usize,
    /// Somebody has left, somewhere.
    attention: Arc<Attention>,
    /// Something was written elsewhere.
    news: AtomicBool,
}

struct State<Quick, Job> {
    /// Analyses and embeddings: passes, no place in the batch.
    quick: VecDeque<Quick>,
    /// Those of them that were taken and have not ended.
    quick_running: usize,
    /// Answers, one line for each priority, low first.
    lines: [Line<Job>; 3],
    /// Answers that may come from elsewhere.
    lobby: Lobby<Job>,
    /// In the lines and in the lobby.
    waiting: usize,
    waiting_tokens: usize,
    /// Theirs, and of the texts that wait for their pass.
    waiting_bytes: usize,
    /// No deadline of a waiting request is earlier.
    next_deadline: Option<Instant>,
    closing: Option<Closing>,
    /// Mean time from admission to end; none before the first.
    mean_service: Option<Duration>,
    running: usize,
}

/// Where a request stands in line.
pub(crate) struct Place {
    pub(crate) tenant: Box<str>,
    pub(crate) priority: Priority,
    /// About how many it will need.
    pub(crate) tokens: usize,
    /// What it holds while it waits.
    pub(crate) bytes: usize,
    pub(crate) deadline: Instant,
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
    /// Bytes of the requests in the queue, and of texts that wait for their pass.
    pub(crate) bytes: usize,
}

impl<Quick, Job> Queue<Quick, Job> {
    pub(crate) fn new(limits: BatcherConfig, max_bytes: usize) -> Self {
        let state = State {
            quick: VecDeque::new(),
            quick_running: 0,
            lines: Default::default(),
            lobby: Lobby::default(),
            waiting: 0,
            waiting_tokens: 0,
            waiting_bytes: 0,
            next_deadline: None,
            closing: None,
            mean_service: None,
            running: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            limits,
            max_bytes,
            attention: Arc::default(),
            news: AtomicBool::new(false),
        }
    }

    /// Raised by a flight whose last subscriber leaves.
    pub(crate) fn attention(&self) -> Arc<Attention> {
        Arc::clone(&self.attention)
    }

    /// Refuses while there is no room for any request, before somebody prepares one.
    pub(crate) fn check_room(&self) -> Result<()> {
        let state = self.open()?;
        if state.waiting >= self.limits.max_queue { Err(self.overloaded(&state)) } else { Ok(()) }
    }

    /// Adds work of passes, whose texts hold so many bytes until it ends.
    pub(crate) fn submit_quick(&self, bytes: usize, quick: impl FnOnce() -> Quick) -> Result<()> {
        let mut state = self.open()?;
        let callers = state.quick.len() + state.quick_running;
        if callers >= self.limits.max_queue {
            let what =
                format!("{callers} callers wait for their texts, the limit is {}", self.limits.max_queue);
            return Err(self.refused(&state, ErrorKind::Overloaded, what));
        }
        self.check_bytes(&state, bytes)?;
        state.quick.push_back(quick());
        state.waiting_bytes += bytes;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Adds a request, unless the queue is full or the request could not begin before its deadline.
    pub(crate) fn submit(&self, place: Place, job: impl FnOnce() -> Job) -> Result<()> {
        let mut state = self.open()?;
        self.check(&state, &place)?;
        state.count_in(&place);
        let Place { tenant, priority, tokens, bytes, .. } = place;
        let waiting = Waiting { job: job(), tokens, bytes, since: Instant::now() };
        state.lines[priority as usize].push(tenant, waiting);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The same, but the request gets in line only at `until`, or when it is let in before; under the number that is given
    /// it can be taken out.
    pub(crate) fn submit_held(&self, place: Place, until: Instant, job: impl FnOnce() -> Job) -> Result<u64> {
        let mut state = self.open()?;
        self.check(&state, &place)?;
        state.count_in(&place);
        let Place { tenant, priority, tokens, bytes, .. } = place;
        let waiting = Waiting { job: job(), tokens, bytes, since: Instant::now() };
        let number = state.lobby.push(Held { tenant, priority, waiting, until });
        drop(state);
        self.changed.notify_one();
        Ok(number)
    }

    /// Nothing is to be waited for any longer.
    pub(crate) fn let_in(&self, number: u64) {
        let mut state = self.lock();
        if let Some(held) = state.lobby.take(number) {
            state.line_up(held);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Takes out a request that got its answer from elsewhere; none when it did not wait that long.
    pub(crate) fn take_held(&self, number: u64) -> Option<Job> {
        let mut state = self.lock();
        let held = state.lobby.take(number)?;
        state.count_out(held.waiting.tokens, held.waiting.bytes);
        Some(held.waiting.job)
    }

    /// A waiting request that fits has got another subscriber, who may be in more of a hurry.
    pub(crate) fn hasten(&self, fits: impl Fn(&Job) -> bool, priority: Priority, deadline: Instant) {
        let mut state = self.lock();
        state.hasten(deadline);
        state.lobby.raise(&fits, priority);
        let wanted = priority as usize;
        for line in 0..wanted {
            let raised = state.lines[line].remove(&fits);
            for (tenant, waiting) in raised {
                state.lines[wanted].push(tenant, waiting);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Says that something was written elsewhere.
    pub(crate) fn tell(&self) {
        // With the lock, so that it cannot come between a look and the sleep after it.
        let state = self.lock();
        self.news.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until there is something to do for an engine that has nothing to compute: work for one of `places` in the batch,
    /// the end of a window, a deadline, news, or `until`, which is none when nothing at all is under way.
    pub(crate) fn wait(&self, places: usize, until: Option<Instant>) {
        let mut state = self.lock();
        state.line_up_overdue();
        let has_work = |state: &State<Quick, Job>| {
            state.is_ending(places, until.is_none())
                || !state.quick.is_empty()
                || self.attention.is_raised()
                || self.news.swap(false, Ordering::AcqRel)
                || (places > 0 && state.is_ripe(&self.limits, places))
        };
        while !has_work(&state) {
            // Looked up anew each time: whoever woke us may have brought the first request.
            let next = state.next_moment(&self.limits, places);
            let Some(moment) = next.into_iter().chain(until).min() else {
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

    /// Takes all work of passes that has come.
    pub(crate) fn take_quick(&self) -> VecDeque<Quick> {
        let mut state = self.lock();
        state.quick_running += state.quick.len();
        std::mem::take(&mut state.quick)
    }

    /// Says that one of those who were taken has ended, whose texts held so many bytes.
    pub(crate) fn end_quick(&self, bytes: usize) {
        let mut state = self.lock();
        state.quick_running -= 1;
        state.waiting_bytes -= bytes;
    }

    /// Takes the next `places` requests. With a window, a request that is not urgent waits for others until it is that old.
    pub(crate) fn take(&self, places: usize) -> Vec<Job> {
        let mut state = self.lock();
        state.line_up_overdue();
        if state.closing.is_none() && !state.is_ripe(&self.limits, places) {
            return Vec::new();
        }
        std::iter::from_fn(|| state.pop()).take(places).collect()
    }

    /// Takes those requests out of the queue that are `gone`, if any can be: after somebody left or a deadline passed.
    pub(crate) fn sweep(
        &self,
        now: Instant,
        gone: impl Fn(&Job) -> bool,
        deadline: impl Fn(&Job) -> Instant,
    ) -> Vec<Job> {
        let mut state = self.lock();
        let attention = self.attention.take();
        if !attention && state.next_deadline.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let removed = state.remove(gone);
        let jobs = state.lines.iter().flat_map(Line::jobs).chain(state.lobby.jobs());
        state.next_deadline = jobs.map(deadline).min();
        removed
    }

    /// Takes everything out of the queue.
    pub(crate) fn clear(&self) -> Vec<Job> {
        self.lock().remove(|_| true)
    }

    /// Says how many requests run now, and how long one took that has ended.
    pub(crate) fn report(&self, running: usize, ended: Option<Duration>) {
        let mut state = self.lock();
        state.running = running;
        if let Some(took) = ended {
            // Exponential mean over about eight requests.
            state.mean_service = Some(state.mean_service.map_or(took, |mean| mean * 7 / 8 + took / 8));
        }
    }

    pub(crate) fn close(&self, how: Closing) {
        let mut state = self.lock();
        if state.closing != Some(Closing::Now) {
            state.closing = Some(how);
        }
        // Nothing is to be waited for any longer.
        state.lobby.remove(|_| true).into_iter().for_each(|held| state.line_up(held));
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn closing(&self) -> Option<Closing> {
        self.lock().closing
    }

    /// Whether nothing waits, neither for its place nor for its pass.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.waiting + state.quick.len() + state.quick_running == 0
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        Load { waiting: state.waiting, running: state.running, bytes: state.waiting_bytes }
    }

    fn open(&self) -> Result<MutexGuard<'_, State<Quick, Job>>> {
        let state = self.lock();
        if state.closing.is_some() { Err(Error::closed()) } else { Ok(state) }
    }

    /// Whether there is room for a request, and hope.
    fn check(&self, state: &State<Quick, Job>, place: &Place) -> Result<()> {
        let full = state.waiting >= self.limits.max_queue
            || (state.waiting > 0 && state.waiting_tokens + place.tokens > self.limits.max_queue_tokens);
        if full {
            return Err(self.overloaded(state));
        }
        self.check_bytes(state, place.bytes)?;
        let now = Instant::now();
        let ahead = state.lines[place.priority as usize..].iter().map(Line::len).sum::<usize>();
        if now + self.expected_wait(state, ahead) > place.deadline {
            return Err(self.hopeless(state, place.deadline.saturating_duration_since(now)));
        }
        Ok(())
    }

    fn check_bytes(&self, state: &State<Quick, Job>, bytes: usize) -> Result<()> {
        let needed = state.waiting_bytes + bytes;
        if needed <= self.max_bytes {
            return Ok(());
        }
        let what = format!(
            "requests that wait would hold {needed} bytes, the limit under `memory_limit_bytes` is {}",
            self.max_bytes
        );
        Err(self.refused(state, ErrorKind::OutOfBudget, what))
    }

    /// How long a request waits that has so many before it, at the rate of late. Nothing while there is a free place.
    fn expected_wait(&self, state: &State<Quick, Job>, ahead: usize) -> Duration {
        let places = self.limits.max_concurrent;
        if state.running + ahead < places {
            return Duration::ZERO;
        }
        state.mean_service.unwrap_or_default() * (ahead + 1) as u32 / places as u32
    }

    fn overloaded(&self, state: &State<Quick, Job>) -> Error {
        let what = format!(
            "the queue is full: {} requests of {} tokens wait, the limits are {} and {}",
            state.waiting, state.waiting_tokens, self.limits.max_queue, self.limits.max_queue_tokens
        );
        self.refused(state, ErrorKind::Overloaded, what)
    }

    fn hopeless(&self, state: &State<Quick, Job>, allowed: Duration) -> Error {
        let what = format!(
            "{} requests wait, and this one could not begin within its deadline of {} ms",
            state.waiting,
            allowed.as_millis()
        );
        self.refused(state, ErrorKind::Overloaded, what)
    }

    fn refused(&self, state: &State<Quick, Job>, kind: ErrorKind, what: String) -> Error {
        let wait = self.expected_wait(state, state.waiting);
        let retry_after = wait.clamp(Duration::from_millis(1), Duration::from_secs(60));
        Error::with_retry_after(kind, what, retry_after)
    }

    fn lock(&self) -> MutexGuard<'_, State<Quick, Job>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Quick, Job> State<Quick, Job> {
    /// The next in line. A request that has waited for [`AGEING`] counts as one of the next priority that came just now, so
    /// none is starved.
    fn pop(&mut self) -> Option<Job> {
        let rank = |(priority, line): (usize, &Line<Job>)| {
            let since = line.next_since()?;
            Some((since.checked_sub(AGEING * priority as u32).unwrap_or(since), priority))
        };
        // At equal ranks the higher priority: `min_by_key` takes the first of equals.
        let best = self.lines.iter().enumerate().rev().filter_map(rank).min_by_key(|(rank, _)| *rank);
        let next = self.lines[best?.1].pop()?;
        self.count_out(next.tokens, next.bytes);
        Some(next.job)
    }

    fn count_in(&mut self, place: &Place) {
        self.waiting += 1;
        self.waiting_tokens += place.tokens;
        self.waiting_bytes += place.bytes;
        self.hasten(place.deadline);
    }

    fn count_out(&mut self, tokens: usize, bytes: usize) {
        self.waiting -= 1;
        self.waiting_tokens -= tokens;
        self.waiting_bytes -= bytes;
    }

    fn line_up(&mut self, held: Held<Job>) {
        self.lines[held.priority as usize].push(held.tenant, held.waiting);
    }

    /// Those who have waited for word long enough get in line.
    fn line_up_overdue(&mut self) {
        let now = Instant::now();
        if self.lobby.earliest().is_some_and(|until| until <= now) {
            self.lobby.remove(|held| held.until <= now).into_iter().for_each(|held| self.line_up(held));
        }
    }

    fn remove(&mut self, gone: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut removed = Vec::new();
        for line in &mut self.lines {
            removed.extend(line.remove(&gone).into_iter().map(|(_, waiting)| waiting));
        }
        let held = self.lobby.remove(|held| gone(&held.waiting.job));
        removed.extend(held.into_iter().map(|held| held.waiting));
        removed.iter().for_each(|waiting| self.count_out(waiting.tokens, waiting.bytes));
        removed.into_iter().map(|waiting| waiting.job).collect()
    }

    fn hasten(&mut self, deadline: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
    }

    /// When a waiting request is to be looked at again: at the end of its window, at its deadline, without word.
    fn next_moment(&self, limits: &BatcherConfig, places: usize) -> Option<Instant> {
        let window = self.oldest().filter(|_| places > 0);
        let window = window.map(|since| since + Duration::from_millis(limits.window_ms));
        [window, self.next_deadline, self.lobby.earliest()].into_iter().flatten().min()
    }

    /// Whether the engine ends now, or drains and has something to take or nothing left.
    fn is_ending(&self, places: usize, is_idle: bool) -> bool {
        match self.closing {
            None => false,
            Some(Closing::Draining) => is_idle || (places > 0 && self.waiting > 0),
            Some(Closing::Now) => true,
        }
    }

    /// Whether admission should take what waits: the batch is full, or the window of one has passed.
    fn is_ripe(&self, limits: &BatcherConfig, places: usize) -> bool {
        let window = Duration::from_millis(limits.window_ms);
        self.waiting - self.lobby.len() >= places.max(1)
            || self.oldest().is_some_and(|since| since.elapsed() >= window)
    }

    fn oldest(&self) -> Option<Instant> {
        self.lines.iter().filter_map(Line::oldest).min()
    }
}

/// A request of the next lower priority that came so much earlier goes first.
const AGEING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(max_queue: usize, window_ms: u64) -> Queue<(), u32> {
        let limits = BatcherConfig { max_queue, max_queue_tokens: 100, window_ms, ..Default::default() };
        Queue::new(limits, 1000)
    }

    fn place(priority: Priority, tokens: usize) -> Place {
        let deadline = Instant::now() + Duration::from_secs(60);
        Place { tenant: "a".into(), priority, tokens, bytes: 100, deadline }
    }

    fn submit(queue: &Queue<(), u32>, job: u32, priority: Priority, tokens: usize) -> Result<()> {
        queue.submit(place(priority, tokens), || job)
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
            submit(&queue, job, priority, 1).unwrap();
        }
        assert_eq!(queue.take(2), [3, 5]);
        assert_eq!(queue.take(9), [2, 4, 1]);
    }

    #[test]
    fn faults_89_a_request_that_has_waited_long_goes_before_higher_priorities() {
        let queue = queue(10, 0);
        submit(&queue, 1, Priority::Low, 1).unwrap();
        submit(&queue, 2, Priority::High, 1).unwrap();
        queue.lock().lines[Priority::Low as usize].age(AGEING * 2);
        assert_eq!(queue.take(2), [1, 2]);
    }

    #[test]
    fn faults_87_a_full_queue_refuses_with_the_time_to_come_back() {
        let queue = queue(2, 0);
        submit(&queue, 1, Priority::Normal, 1).unwrap();
        submit(&queue, 2, Priority::Normal, 1).unwrap();
        let error = submit(&queue, 3, Priority::High, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.retry_after().is_some());
        queue.attention.note();
        assert_eq!(sweep(&queue, |&job| job == 1), [1]);
        submit(&queue, 3, Priority::Normal, 1).unwrap();
    }

    fn sweep(queue: &Queue<(), u32>, gone: impl Fn(&u32) -> bool) -> Vec<u32> {
        let now = Instant::now();
        queue.sweep(now, gone, |_| now + Duration::from_secs(60))
    }

    #[test]
    fn a_sweep_looks_only_when_somebody_left_or_a_deadline_passed() {
        let queue = queue(10, 0);
        submit(&queue, 1, Priority::Normal, 1).unwrap();
        assert!(sweep(&queue, |_| true).is_empty());
        queue.attention.note();
        assert_eq!(sweep(&queue, |_| true), [1]);
        let soon = Instant::now() + Duration::from_millis(1);
        queue.submit(Place { deadline: soon, ..place(Priority::Normal, 1) }, || 2).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(sweep(&queue, |_| true), [2]);
        assert_eq!(queue.load(), Load::default());
    }

    #[test]
    fn what_cannot_begin_before_its_deadline_is_refused_at_once() {
        let queue = queue(10, 0);
        fn soon() -> Place {
            Place { deadline: Instant::now() + Duration::from_millis(500), ..place(Priority::Normal, 1) }
        }
        queue.report(BatcherConfig::default().max_concurrent, Some(Duration::from_secs(10)));
        let error = queue.submit(soon(), || 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)), "a fifth of ten seconds");
        queue.report(0, None);
        queue.submit(soon(), || 1).unwrap();
    }

    #[test]
    fn a_subscriber_in_a_hurry_moves_the_request_up() {
        let queue = queue(10, 0);
        submit(&queue, 1, Priority::Normal, 1).unwrap();
        submit(&queue, 2, Priority::Low, 1).unwrap();
        queue.hasten(|&job| job == 2, Priority::High, Instant::now());
        queue.hasten(|&job| job == 1, Priority::Low, Instant::now());
        assert_eq!(queue.take(2), [2, 1]);
    }

    #[test]
    fn tokens_bound_the_queue_but_one_request_always_fits() {
        let queue = queue(10, 0);
        submit(&queue, 1, Priority::Normal, 1000).unwrap();
        assert_eq!(submit(&queue, 2, Priority::Normal, 1).unwrap_err().kind(), ErrorKind::Overloaded);
        assert_eq!(queue.take(1), [1]);
        submit(&queue, 2, Priority::Normal, 99).unwrap();
    }

    #[test]
    fn bytes_bound_the_queue_and_come_back() {
        let queue = queue(10, 0);
        let large = || Place { bytes: 600, ..place(Priority::Normal, 1) };
        queue.submit(large(), || 1).unwrap();
        let error = queue.submit(large(), || 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
        assert!(error.to_string().contains("1200") && error.to_string().contains("1000"), "{error}");
        assert_eq!(queue.load().bytes, 600);
        assert_eq!(queue.take(1), [1]);
        assert_eq!(queue.load().bytes, 0);
        queue.submit(large(), || 2).unwrap();
    }

    #[test]
    fn a_window_holds_a_lone_request_back_until_the_batch_is_full() {
        let queue = queue(10, 10_000);
        submit(&queue, 1, Priority::Normal, 1).unwrap();
        assert!(queue.take(2).is_empty());
        submit(&queue, 2, Priority::Normal, 1).unwrap();
        assert_eq!(queue.take(2), [1, 2]);
    }

    #[test]
    fn a_sleeper_is_woken_by_the_end_of_the_window_of_a_request_that_came_later() {
        let queue = queue(10, 30);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while queue.take(2).is_empty() {
                    queue.wait(2, None);
                }
            });
            std::thread::sleep(Duration::from_millis(10));
            submit(&queue, 1, Priority::Normal, 1).unwrap();
            sleeper.join().unwrap();
        });
    }

    #[test]
    fn who_waits_for_word_gets_in_line_without_it_or_is_taken_out() {
        let queue = queue(10, 0);
        let held = |job, ms| {
            let until = Instant::now() + Duration::from_millis(ms);
            queue.submit_held(place(Priority::Normal, 30), until, || job).unwrap()
        };
        let [answered, let_in, _late] = [held(1, 60_000), held(2, 60_000), held(3, 60_000)];
        assert_eq!(queue.load().waiting, 3);
        assert!(queue.take(9).is_empty());
        assert_eq!(submit(&queue, 4, Priority::Normal, 30).unwrap_err().kind(), ErrorKind::Overloaded);
        assert_eq!(queue.take_held(answered), Some(1));
        assert_eq!(queue.take_held(answered), None);
        queue.let_in(let_in);
        assert_eq!(queue.take(9), [2]);
        queue.lock().lobby.hurry(Instant::now() + Duration::from_millis(20));
        queue.wait(5, None);
        assert_eq!(queue.take(9), [3], "it was woken by the end of the wait");
        assert_eq!(queue.load(), Load::default());
    }

    #[test]
    fn without_a_free_place_a_sleeper_is_woken_by_news_and_its_own_deadline_alone() {
        let queue = queue(10, 0);
        submit(&queue, 1, Priority::Normal, 1).unwrap();
        queue.wait(0, Some(Instant::now() + Duration::from_millis(5)));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| queue.wait(0, None));
            queue.tell();
            sleeper.join().unwrap();
        });
        queue.wait(1, None);
        assert_eq!(queue.take(1), [1]);
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = queue(10, 0);
        queue.close(Closing::Draining);
        assert_eq!(submit(&queue, 1, Priority::Normal, 1).unwrap_err().kind(), ErrorKind::Closed);
        queue.close(Closing::Now);
        queue.close(Closing::Draining);
        assert_eq!(queue.closing(), Some(Closing::Now));
    }
}
