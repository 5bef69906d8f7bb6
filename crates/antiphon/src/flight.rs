//! One piece of work, as a log of events that any number of subscribers read at their own pace.
//!
//! The compute thread appends; each subscriber has a view. A flight belongs to no caller: it goes on while it has a
//! subscriber that still wants it, the last one to leave ends it, and a subscriber's own deadline cuts only its own view.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::job::freshen;
use crate::reply::{CacheOutcome, Event, FinishReason, Reply};
use crate::shared::LONGEST_WAIT;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// One piece of work and the events it has made so far.
pub(crate) struct Flight {
    log: Mutex<Log>,
    changed: Condvar,
    /// Nobody wants more: layers and the scheduler read it.
    interrupt: AtomicBool,
    /// Raised with `interrupt`, for whoever looks after all flights.
    attention: Arc<Attention>,
    /// The earliest deadline of a view, by [`to_ticks`]; looked at before the lock is taken.
    earliest: AtomicU64,
    /// The process it flies in. After a `fork` the log may be locked by a thread that the child does not have.
    pid: u32,
}

struct Log {
    events: Vec<Event>,
    /// Set once: the log is complete, or broke off with an error after its events.
    end: Option<Result<()>>,
    views: Vec<View>,
    /// Threads that wait for the log to change: without one, nobody need be told.
    sleepers: usize,
    /// Threads that wait for an end alone.
    patient_sleepers: usize,
    departure: Departure,
}

/// A subscriber's place in the log.
struct View {
    cursor: usize,
    since: Instant,
    deadline: Instant,
    /// Came when the work had begun for another.
    joined: bool,
    /// Wants a reply with what there is, while others go on.
    stopping: bool,
    /// Ends this view alone, after so many events.
    ending: Option<(usize, Result<Box<Event>>)>,
    /// Nothing more is read: the end was delivered, or the subscriber left.
    closed: bool,
    waker: Option<Waker>,
    /// The waker waits for the end alone.
    patient: bool,
}

/// What a view is read for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// The next event.
    Next,
    /// The last event; those before it are skipped, and nobody is woken for them.
    Last,
}

/// Wakers to be called when this is dropped: they are foreign code, and may call back in.
#[must_use = "whoever waits is woken when this is dropped, which must be without a lock"]
pub(crate) struct Woken(Vec<Waker>);

impl Drop for Woken {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Somebody has left, somewhere: raised by flights, looked at by whoever looks after all of them.
#[derive(Default)]
pub(crate) struct Attention {
    raised: AtomicBool,
    /// Wakes that one, where it may sleep while flights are under way.
    tell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Attention {
    /// Calls `tell`, without a lock, whenever somebody leaves.
    pub(crate) fn on_raise(&self, tell: impl Fn() + Send + Sync + 'static) {
        // The first one counts; there is no second.
        let _ = self.tell.set(Box::new(tell));
    }

    pub(crate) fn note(&self) {
        self.raised.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> bool {
        self.raised.swap(false, Ordering::AcqRel)
    }

    fn raise_if(&self, has_left: bool) {
        if has_left {
            self.note();
            self.tell.get().into_iter().for_each(|tell| tell());
        }
    }
}

/// How a flight's last subscriber left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Departure {
    /// It is still there.
    None,
    /// It wants a reply with what there is.
    Stopped,
    /// It could wait no longer.
    Late,
    /// It wants nothing.
    Cancelled,
}

impl Flight {
    /// A flight with its first view, which has number 0.
    pub(crate) fn new(deadline: Instant, attention: Arc<Attention>) -> Arc<Self> {
        Self::with(Vec::new(), None, deadline, attention)
    }

    /// A flight that has landed: its events are replayed to its one view.
    pub(crate) fn recorded(events: Vec<Event>) -> Arc<Self> {
        Self::with(events, Some(Ok(())), far_away(), Arc::default())
    }

    fn with(
        events: Vec<Event>,
        end: Option<Result<()>>,
        deadline: Instant,
        attention: Arc<Attention>,
    ) -> Arc<Self> {
        let views = vec![View::new(deadline, false)];
        Arc::new(Self {
            log: Mutex::new(Log {
                events,
                end,
                views,
                sleepers: 0,
                patient_sleepers: 0,
                departure: Departure::None,
            }),
            changed: Condvar::new(),
            interrupt: AtomicBool::new(false),
            attention,
            earliest: AtomicU64::new(to_ticks(deadline)),
            pid: std::process::id(),
        })
    }

    /// Another view, from the first event on; none when the flight has been given up or has ended. A whole answer is in the
    /// cache before its flight ends, so one that ended is joined for nothing, or for an answer that was not worth keeping.
    pub(crate) fn join(&self, deadline: Instant) -> Option<usize> {
        let mut log = self.lock();
        if log.departure != Departure::None || log.end.is_some() {
            return None;
        }
        log.views.push(View::new(deadline, true));
        self.earliest.fetch_min(to_ticks(deadline), Ordering::AcqRel);
        Some(log.views.len() - 1)
    }

    pub(crate) fn push(&self, event: Event) {
        self.change(|log| log.events.push(event));
    }

    /// The last event and the end, at one moment: whoever has read the one sees the other.
    pub(crate) fn land(&self, done: Event) {
        self.change(|log| {
            if log.end.is_none() {
                log.events.push(done);
                log.end = Some(Ok(()));
            }
        });
    }

    /// Breaks the flight off, unless it has ended.
    pub(crate) fn fail(&self, error: Error) {
        self.change(|log| {
            log.end.get_or_insert(Err(error));
        });
    }

    /// Ends the views that are late or stopped, each with the `partial` reply for its reason; a late one with an error when
    /// nothing was written yet. When no other would be left the flight is given up instead, and ends for all of them.
    ///
    /// Gives those who are to be woken: they are, when the caller drops it, where it holds no lock.
    pub(crate) fn prune(&self, now: Instant, partial: impl Fn(FinishReason) -> Reply) -> Woken {
        let mut woken = Woken(Vec::new());
        if self.earliest.load(Ordering::Acquire) > to_ticks(now) {
            return woken;
        }
        let mut log = self.lock();
        if log.end.is_some() || log.departure != Departure::None {
            return woken;
        }
        if !log.views.iter().any(|view| view.is_wanted() && view.deadline > now) {
            // Whoever looks after the flights is looking: nobody need be told.
            self.give_up(&mut log, Departure::Late);
            self.attention.note();
            return woken;
        }
        let count = log.events.len();
        let written = log.events.iter().any(|event| matches!(event, Event::Chunk { .. }));
        for view in log.views.iter_mut().filter(|view| !view.closed && view.ending.is_none()) {
            let reply = if view.stopping {
                Ok(partial(FinishReason::Cancelled))
            } else if view.deadline > now {
                continue;
            } else if written {
                Ok(partial(FinishReason::Deadline))
            } else {
                Err(late(view.deadline - view.since))
            };
            let ending = reply.map(|reply| Box::new(Event::Done(view.freshened(reply))));
            view.ending = Some((count, ending));
            woken.0.extend(view.waker.take());
        }
        let next = log.views.iter().filter(|view| view.is_wanted()).map(|view| view.deadline).min();
        self.earliest.store(next.map_or(u64::MAX, to_ticks), Ordering::Release);
        let sleepers = log.sleepers + log.patient_sleepers;
        self.wake(log, sleepers, None);
        woken
    }

    /// The earliest deadline of a view.
    pub(crate) fn next_deadline(&self) -> Instant {
        from_ticks(self.earliest.load(Ordering::Acquire))
    }

    /// Read by layers while they compute for this flight alone.
    pub(crate) fn interrupt(&self) -> &AtomicBool {
        &self.interrupt
    }

    pub(crate) fn departure(&self) -> Departure {
        if self.interrupt.load(Ordering::Acquire) { self.lock().departure } else { Departure::None }
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Whether this process may touch the log.
    pub(crate) fn check_process(&self) -> Result<()> {
        crate::error::check_process(self.pid)
    }

    /// What a view is to read, if it is there.
    pub(crate) fn read(&self, view: usize, wanted: Wanted, waker: &Waker) -> Poll<Option<Result<Event>>> {
        let mut log = self.lock();
        let taken = log.take(view, wanted);
        if taken.is_pending() {
            log.views[view].waker = Some(waker.clone());
            log.views[view].patient = wanted == Wanted::Last;
        }
        taken
    }

    /// Waits for what a view is to read.
    pub(crate) fn wait(
        &self,
        view: usize,
        wanted: Wanted,
        until: Option<Instant>,
    ) -> Poll<Option<Result<Event>>> {
        let mut log = self.lock();
        loop {
            let taken = log.take(view, wanted);
            if taken.is_ready() {
                return taken;
            }
            let left = until.map_or(LONGEST_WAIT, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Poll::Pending;
            }
            *log.sleepers(wanted) += 1;
            log = self.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
            *log.sleepers(wanted) -= 1;
        }
    }

    /// The subscriber is gone.
    pub(crate) fn leave(&self, view: usize) {
        let mut log = self.lock();
        log.views[view].closed = true;
        log.views[view].waker = None;
        let given_up = self.give_up_if_unwanted(&mut log);
        drop(log);
        self.attention.raise_if(given_up);
    }

    /// The subscriber wants the error `cancelled`, and nothing after it.
    pub(crate) fn cancel(&self, view: usize) {
        let mut log = self.lock();
        let has_landed = matches!(log.end, Some(Ok(())));
        let count = log.events.len();
        let subscriber = &mut log.views[view];
        // Who has read the last event has had its end.
        if subscriber.closed || (has_landed && subscriber.cursor == count) {
            return;
        }
        subscriber.ending = Some((subscriber.cursor, Err(Error::cancelled())));
        let waker = subscriber.waker.take();
        let given_up = self.give_up_if_unwanted(&mut log);
        let sleepers = log.sleepers + log.patient_sleepers;
        self.wake(log, sleepers, waker);
        self.attention.raise_if(given_up);
    }

    /// The subscriber wants a reply with what there is.
    pub(crate) fn stop(&self, view: usize) {
        let mut log = self.lock();
        if log.end.is_some() {
            return;
        }
        log.views[view].stopping = true;
        if log.views.iter().any(View::is_wanted) {
            self.earliest.store(0, Ordering::Release);
        } else {
            self.give_up(&mut log, Departure::Stopped);
        }
        drop(log);
        self.attention.raise_if(true);
    }

    /// Whether a view has something left to read.
    pub(crate) fn is_open(&self, view: usize) -> bool {
        let log = self.lock();
        let view = &log.views[view];
        // Whoever has read the last event need not ask for the nothing after it.
        let at_end = log.end.is_some() && view.cursor == log.events.len();
        !(view.closed || at_end)
    }

    /// The events that a view has read.
    pub(crate) fn read_by(&self, view: usize) -> Vec<Event> {
        let log = self.lock();
        log.events[..log.views[view].cursor].to_vec()
    }

    fn give_up_if_unwanted(&self, log: &mut Log) -> bool {
        let is_unwanted = log.end.is_none() && !log.views.iter().any(View::is_wanted);
        if is_unwanted {
            let is_stopped = |view: &View| view.stopping && !view.closed && view.ending.is_none();
            let stopped = log.views.iter().any(is_stopped);
            self.give_up(log, if stopped { Departure::Stopped } else { Departure::Cancelled });
        }
        is_unwanted
    }

    fn give_up(&self, log: &mut Log, departure: Departure) {
        log.departure = departure;
        self.interrupt.store(true, Ordering::Release);
    }

    fn change(&self, edit: impl FnOnce(&mut Log)) {
        let mut log = self.lock();
        edit(&mut log);
        let has_ended = log.end.is_some();
        let hears = log.views.iter_mut().filter(|view| has_ended || !view.patient);
        let wakers: Vec<Waker> = hears.filter_map(|view| view.waker.take()).collect();
        let sleepers = log.sleepers + if has_ended { log.patient_sleepers } else { 0 };
        self.wake(log, sleepers, wakers);
    }

    /// Wakers are foreign code: they are called without the lock.
    fn wake(&self, log: MutexGuard<'_, Log>, sleepers: usize, wakers: impl IntoIterator<Item = Waker>) {
        drop(log);
        if sleepers > 0 {
            self.changed.notify_all();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn sleepers(&mut self, wanted: Wanted) -> &mut usize {
        match wanted {
            Wanted::Next => &mut self.sleepers,
            Wanted::Last => &mut self.patient_sleepers,
        }
    }

    fn take(&mut self, view: usize, wanted: Wanted) -> Poll<Option<Result<Event>>> {
        let Self { events, end, views, .. } = self;
        let view = &mut views[view];
        if view.closed {
            return Poll::Ready(None);
        }
        let readable = view.ending.as_ref().map_or(events.len(), |(count, _)| *count);
        if wanted == Wanted::Last {
            // Of a flight that has landed the last event is in the log; any other end stands beside it.
            let is_last = view.ending.is_none() && matches!(end, Some(Ok(())));
            view.cursor = view.cursor.max(readable.saturating_sub(usize::from(is_last)));
        }
        if view.cursor < readable {
            let event = view.own(&events[view.cursor]);
            view.cursor += 1;
            return Poll::Ready(Some(Ok(event)));
        }
        if let Some((_, ending)) = view.ending.take() {
            view.closed = true;
            return Poll::Ready(Some(ending.map(|event| *event)));
        }
        match end {
            None => Poll::Pending,
            Some(result) => {
                view.closed = true;
                Poll::Ready(result.clone().err().map(Err))
            }
        }
    }
}

impl View {
    fn new(deadline: Instant, joined: bool) -> Self {
        let since = Instant::now();
        Self {
            cursor: 0,
            since,
            deadline,
            joined,
            stopping: false,
            ending: None,
            closed: false,
            waker: None,
            patient: false,
        }
    }

    fn is_wanted(&self) -> bool {
        !self.closed && !self.stopping && self.ending.is_none()
    }

    /// An event as this subscriber sees it.
    fn own(&self, event: &Event) -> Event {
        match event {
            Event::Done(reply) => Event::Done(self.freshened(reply.clone())),
            other => other.clone(),
        }
    }

    fn freshened(&self, mut reply: Reply) -> Reply {
        if self.joined {
            freshen(&mut reply, CacheOutcome::Joined, self.since);
        }
        reply
    }
}

/// A deadline that passed before there was anything to show.
pub(crate) fn late(allowed: Duration) -> Error {
    let what = format!("the deadline of {} ms passed before the first token", allowed.as_millis());
    Error::new(ErrorKind::DeadlineExceeded, what)
}

/// Microseconds since the first flight of the process.
fn to_ticks(moment: Instant) -> u64 {
    moment.saturating_duration_since(*FIRST).as_micros() as u64
}

fn from_ticks(ticks: u64) -> Instant {
    FIRST.checked_add(Duration::from_micros(ticks)).unwrap_or_else(far_away)
}

fn far_away() -> Instant {
    Instant::now() + LONGEST_WAIT
}

static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);

#[cfg(test)]
mod tests {
    use super::*;

    fn flight() -> Arc<Flight> {
        Flight::new(far_away(), Arc::default())
    }

    #[test]
    fn whoever_stops_keeps_the_wish_for_a_reply_when_the_others_leave() {
        let flight = flight();
        let other = flight.join(far_away()).unwrap();
        flight.stop(0);
        assert_eq!(flight.departure(), Departure::None, "another still wants more");
        flight.leave(other);
        assert_eq!(flight.departure(), Departure::Stopped);
    }

    #[test]
    fn the_last_one_to_leave_gives_the_flight_up_and_nobody_joins_it_then() {
        let flight = flight();
        let other = flight.join(far_away()).unwrap();
        flight.cancel(0);
        assert_eq!(flight.departure(), Departure::None);
        flight.leave(other);
        assert_eq!(flight.departure(), Departure::Cancelled);
        assert!(flight.join(far_away()).is_none());
    }

    #[test]
    fn nobody_joins_a_flight_that_has_ended() {
        let landed = Flight::recorded(Vec::new());
        assert!(landed.join(far_away()).is_none());
        let failed = flight();
        failed.fail(Error::cancelled());
        assert!(failed.join(far_away()).is_none());
    }
}
