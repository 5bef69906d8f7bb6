//! One piece of work, as a log of events that any number of subscribers read at their own pace.
//!
//! The compute thread appends; each subscriber has a view. A flight belongs to no caller: it goes on while it has a
//! subscriber that still wants it, the last one to leave ends it, and a subscriber's own deadline cuts only its own view.
//!
//! Between a token and its readers there is no lock: one that a subscriber has, and the host has taken its core from, would hold
//! up all who compute. The [`Log`] is written without one, and so is a [`Bell`] rung. What subscribers want stands under a
//! lock that is theirs: it is looked at when one leaves, or is late.

mod bell;
mod list;
mod log;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use self::bell::Bell;
use self::list::List;
use self::log::Log;
use crate::error::{Error, ErrorKind, Result};
use crate::job::freshen;
use crate::reply::{CacheOutcome, Event, FinishReason, Reply};
use crate::shared::LONGEST_WAIT;
use crate::sync::{Mutex, MutexGuard, fence, park, thread_waker};

/// One piece of work and the events it has made so far.
pub(crate) struct Flight {
    log: Log,
    views: Mutex<Views>,
    /// One for each view.
    bells: List<Bell>,
    /// Nobody wants more: layers and the scheduler read it.
    interrupt: AtomicBool,
    /// Raised with `interrupt`, for whoever looks after all flights.
    attention: Arc<Attention>,
    /// The earliest deadline of a view, by [`to_ticks`]; looked at before the lock is taken.
    earliest: AtomicU64,
    /// The process it flies in. After a `fork` the views may be locked by a thread that the child does not have.
    pid: u32,
}

/// The subscribers, and how the last one left.
struct Views {
    all: Vec<View>,
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
        Self::with(Log::new(), deadline, attention)
    }

    /// A flight that has landed: its events, of which the last is the reply, are replayed to its one view.
    pub(crate) fn recorded(events: Vec<Event>) -> Arc<Self> {
        Self::with(Log::recorded(events), far_away(), Arc::default())
    }

    fn with(log: Log, deadline: Instant, attention: Arc<Attention>) -> Arc<Self> {
        let all = vec![View::new(deadline, false)];
        Arc::new(Self {
            log,
            views: Mutex::new(Views { all, departure: Departure::None }),
            bells: List::from(vec![Bell::default()]),
            interrupt: AtomicBool::new(false),
            attention,
            earliest: AtomicU64::new(to_ticks(deadline)),
            pid: std::process::id(),
        })
    }

    /// Another view, from the first event on; none when the flight has been given up or has ended. A whole answer is in the
    /// cache before its flight ends, so one that ended is joined for nothing, or for an answer that was not worth keeping.
    pub(crate) fn join(&self, deadline: Instant) -> Option<usize> {
        let mut views = self.lock();
        if views.departure != Departure::None || self.log.has_ended() {
            return None;
        }
        views.all.push(View::new(deadline, true));
        self.bells.push(Bell::default());
        self.earliest.fetch_min(to_ticks(deadline), Ordering::AcqRel);
        Some(views.all.len() - 1)
    }

    pub(crate) fn push(&self, event: Event) {
        self.log.push(event);
        self.ring();
    }

    /// The last event and the end, at one moment: whoever has read the one sees the other.
    pub(crate) fn land(&self, done: Event) {
        self.log.land(done);
        self.ring();
    }

    /// Breaks the flight off, unless it has ended.
    pub(crate) fn fail(&self, error: Error) {
        self.log.fail(error);
        self.ring();
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
        let mut views = self.lock();
        let count = self.log.len();
        if self.log.ends_at(count) || views.departure != Departure::None {
            return woken;
        }
        if !views.all.iter().any(|view| view.is_wanted() && view.deadline > now) {
            // Whoever looks after the flights is looking: nobody need be told.
            self.give_up(&mut views, Departure::Late);
            self.attention.note();
            return woken;
        }
        let written = self.log.events(count).any(|event| matches!(event, Event::Chunk { .. }));
        let open = |(_, view): &(usize, &mut View)| !view.closed && view.ending.is_none();
        for (number, view) in views.all.iter_mut().enumerate().filter(open) {
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
            woken.0.extend(self.bell(number).take());
        }
        let next = views.all.iter().filter(|view| view.is_wanted()).map(|view| view.deadline).min();
        self.earliest.store(next.map_or(u64::MAX, to_ticks), Ordering::Release);
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
        self.log.events(self.log.len()).cloned().collect()
    }

    /// Whether this process may touch the flight.
    pub(crate) fn check_process(&self) -> Result<()> {
        crate::error::check_process(self.pid)
    }

    /// What a view is to read, if it is there; else its waker is kept, in place of one that it had.
    pub(crate) fn read(&self, view: usize, wanted: Wanted, waker: &Waker) -> Poll<Option<Result<Event>>> {
        let taken = self.take(view, wanted);
        if taken.is_ready() {
            return taken;
        }
        // Without the lock: what rings just now is answered by the waker, which is foreign code.
        self.bell(view).hang(waker, wanted == Wanted::Last);
        // Who writes looks for bells after writing: of the two, one sees what the other did.
        fence(Ordering::SeqCst);
        let taken = self.take(view, wanted);
        if taken.is_ready() {
            drop(self.bell(view).take());
        }
        taken
    }

    /// Waits for what a view is to read. One thread at a time waits for a view.
    pub(crate) fn wait(
        &self,
        view: usize,
        wanted: Wanted,
        until: Option<Instant>,
    ) -> Poll<Option<Result<Event>>> {
        let mut taken = self.take(view, wanted);
        if taken.is_ready() {
            return taken;
        }
        let waker = thread_waker();
        loop {
            let left = until.map_or(LONGEST_WAIT, |until| until.saturating_duration_since(Instant::now()));
            if taken.is_ready() || left.is_zero() {
                drop(self.bell(view).take());
                return taken;
            }
            taken = self.read(view, wanted, &waker);
            if taken.is_pending() {
                park(left);
            }
        }
    }

    fn take(&self, view: usize, wanted: Wanted) -> Poll<Option<Result<Event>>> {
        self.lock().all[view].take(&self.log, wanted)
    }

    /// The subscriber is gone.
    pub(crate) fn leave(&self, view: usize) {
        let mut views = self.lock();
        views.all[view].closed = true;
        let given_up = self.give_up_if_unwanted(&mut views);
        drop(views);
        drop(self.bell(view).take());
        self.attention.raise_if(given_up);
    }

    /// The subscriber wants the error `cancelled`, and nothing after it.
    pub(crate) fn cancel(&self, view: usize) {
        let mut views = self.lock();
        let subscriber = &mut views.all[view];
        // Who has read the last event has had its end.
        if subscriber.closed || self.log.ends_at(subscriber.cursor) {
            return;
        }
        subscriber.ending = Some((subscriber.cursor, Err(Error::cancelled())));
        let given_up = self.give_up_if_unwanted(&mut views);
        drop(views);
        self.bell(view).ring(true);
        self.attention.raise_if(given_up);
    }

    /// The subscriber wants a reply with what there is.
    pub(crate) fn stop(&self, view: usize) {
        let mut views = self.lock();
        if self.log.has_ended() {
            return;
        }
        views.all[view].stopping = true;
        if views.all.iter().any(View::is_wanted) {
            self.earliest.store(0, Ordering::Release);
        } else {
            self.give_up(&mut views, Departure::Stopped);
        }
        drop(views);
        self.attention.raise_if(true);
    }

    /// Whether a view has something left to read.
    pub(crate) fn is_open(&self, view: usize) -> bool {
        let views = self.lock();
        let view = &views.all[view];
        // Whoever has read the last event need not ask for the nothing after it.
        let has_more = !self.log.has_ended() || matches!(self.log.get(view.cursor), Some(Ok(_)));
        !view.closed && has_more
    }

    /// The events that a view has read.
    pub(crate) fn read_by(&self, view: usize) -> Vec<Event> {
        let read = self.lock().all[view].cursor;
        self.log.events(read).cloned().collect()
    }

    fn give_up_if_unwanted(&self, views: &mut Views) -> bool {
        let is_unwanted = !self.log.has_ended() && !views.all.iter().any(View::is_wanted);
        if is_unwanted {
            let is_stopped = |view: &View| view.stopping && !view.closed && view.ending.is_none();
            let stopped = views.all.iter().any(is_stopped);
            self.give_up(views, if stopped { Departure::Stopped } else { Departure::Cancelled });
        }
        is_unwanted
    }

    fn give_up(&self, views: &mut Views, departure: Departure) {
        views.departure = departure;
        self.interrupt.store(true, Ordering::Release);
    }

    /// Wakes those who wait for what was written.
    fn ring(&self) {
        fence(Ordering::SeqCst);
        let has_ended = self.log.has_ended();
        self.bells.first(self.bells.len()).for_each(|bell| bell.ring(has_ended));
    }

    fn bell(&self, view: usize) -> &Bell {
        self.bells.get(view).expect("each view has a bell")
    }

    fn lock(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn new(deadline: Instant, joined: bool) -> Self {
        let since = Instant::now();
        Self { cursor: 0, since, deadline, joined, stopping: false, ending: None, closed: false }
    }

    fn is_wanted(&self) -> bool {
        !self.closed && !self.stopping && self.ending.is_none()
    }

    /// What it is to read, if it is there.
    fn take(&mut self, log: &Log, wanted: Wanted) -> Poll<Option<Result<Event>>> {
        if self.closed {
            return Poll::Ready(None);
        }
        let len = log.len();
        let has_ended = log.ends_at(len);
        let readable = self.ending.as_ref().map_or(len, |(count, _)| *count);
        if wanted == Wanted::Last {
            // The last entry of a log that has ended is wanted; an ending of one's own stands beside the log.
            let is_last = self.ending.is_none() && has_ended;
            self.cursor = self.cursor.max(readable.saturating_sub(usize::from(is_last)));
        }
        if self.cursor < readable {
            let entry = log.get(self.cursor).map(|entry| entry.map(|event| self.own(event)));
            self.cursor += 1;
            self.closed = matches!(entry, Some(Err(_)));
            return Poll::Ready(entry);
        }
        if let Some((_, ending)) = self.ending.take() {
            self.closed = true;
            return Poll::Ready(Some(ending.map(|event| *event)));
        }
        self.closed = has_ended;
        if has_ended { Poll::Ready(None) } else { Poll::Pending }
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
        let landed = Flight::recorded(crate::reply::tests::answer_about("order 4711", "4711"));
        assert!(landed.join(far_away()).is_none());
        let failed = flight();
        failed.fail(Error::cancelled());
        assert!(failed.join(far_away()).is_none());
    }
}
