//! A stream is a log of events with a cursor per subscriber.
//!
//! The compute thread appends to a [`Flight`]; subscribers read it through views, each at its own pace: as a future, as a
//! blocking wait, or pushed into a callback. A flight belongs to no caller: it runs while it has a subscriber that still
//! wants it, and the last one to leave cancels it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::error::{Error, Result, check_process};
use crate::reply::{Event, Reply};

/// One piece of work and the events it has made so far.
pub(crate) struct Flight {
    log: Mutex<Log>,
    changed: Condvar,
    /// Nobody wants more: layers and the scheduler read it.
    interrupt: AtomicBool,
    /// The process it flies in. After a `fork` the log may be locked by a thread that the child does not have.
    pid: u32,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    /// Set once: the log is complete, or broke off with an error after its events.
    end: Option<Result<()>>,
    views: Vec<View>,
    /// The last leaving subscriber wants a reply with what there is.
    stopped: bool,
}

#[derive(Default)]
struct View {
    cursor: usize,
    /// Ends this view alone, before the log does.
    error: Option<Error>,
    /// Nothing more is read: the end was delivered, or the subscriber left.
    closed: bool,
    waker: Option<Waker>,
}

/// How a flight's last subscriber left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Departure {
    /// It is still there.
    None,
    /// It wants a reply with what there is.
    Stopped,
    /// It wants nothing.
    Cancelled,
}

impl Flight {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Log::default())
    }

    /// A flight that has landed: its events are replayed to whoever subscribes.
    pub(crate) fn recorded(events: Vec<Event>) -> Arc<Self> {
        Self::with(Log { events, end: Some(Ok(())), ..Log::default() })
    }

    fn with(log: Log) -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::new(log),
            changed: Condvar::new(),
            interrupt: AtomicBool::new(false),
            pid: std::process::id(),
        })
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

    /// Read by layers while they compute for this flight alone.
    pub(crate) fn interrupt(&self) -> &AtomicBool {
        &self.interrupt
    }

    pub(crate) fn departure(&self) -> Departure {
        if !self.interrupt.load(Ordering::Acquire) {
            Departure::None
        } else if self.lock().stopped {
            Departure::Stopped
        } else {
            Departure::Cancelled
        }
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn change(&self, edit: impl FnOnce(&mut Log)) {
        let wakers: Vec<Waker> = {
            let mut log = self.lock();
            edit(&mut log);
            log.views.iter_mut().filter_map(|view| view.waker.take()).collect()
        };
        self.changed.notify_all();
        // Foreign code: called without the lock.
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// The next thing that `view` is to read, if it is there.
    fn take(&mut self, view: usize) -> Poll<Option<Result<Event>>> {
        let Log { events, end, views, .. } = self;
        let view = &mut views[view];
        if view.closed {
            return Poll::Ready(None);
        }
        if let Some(error) = view.error.take() {
            view.closed = true;
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(event) = events.get(view.cursor) {
            view.cursor += 1;
            return Poll::Ready(Some(Ok(event.clone())));
        }
        match end {
            None => Poll::Pending,
            Some(result) => {
                view.closed = true;
                Poll::Ready(result.clone().err().map(Err))
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.views.iter().any(|view| !view.closed && view.error.is_none())
    }
}

/// An answer as it comes. Dropping it cancels the work.
///
/// Read it in one of three ways: `async` through [`ReplyStream::next`] or [`futures_core::Stream`], blocking through
/// [`ReplyStream::next_blocking`] or as an iterator, or pushed by [`Engine::on_event`](crate::Engine::on_event). It
/// needs no runtime.
#[must_use = "dropping a stream cancels its work"]
pub struct ReplyStream {
    _engine: KeepAlive,
    flight: Arc<Flight>,
    view: usize,
}

/// A stream keeps its engine open; it asks nothing else of it.
pub(crate) type KeepAlive = Arc<dyn Send + Sync>;

/// Cancels a stream from any thread.
#[derive(Clone)]
pub struct Canceller {
    flight: Arc<Flight>,
    view: usize,
}

impl ReplyStream {
    pub(crate) fn subscribe(engine: KeepAlive, flight: Arc<Flight>) -> Self {
        let view = {
            let mut log = flight.lock();
            log.views.push(View::default());
            log.views.len() - 1
        };
        Self { _engine: engine, flight, view }
    }

    /// A handle that cancels this stream from any thread.
    pub fn canceller(&self) -> Canceller {
        Canceller { flight: Arc::clone(&self.flight), view: self.view }
    }

    /// The next event; none after the last one.
    #[allow(
        clippy::should_implement_trait,
        reason = "the name that every async stream has; it returns a future"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<Event>>> + '_ {
        std::future::poll_fn(|context| self.poll(context))
    }

    /// Waits for the next event, at most `timeout`: `Pending` when it did not come in time.
    pub fn next_blocking(&mut self, timeout: Duration) -> Poll<Option<Result<Event>>> {
        self.wait(Instant::now().checked_add(timeout))
    }

    /// Ends the work and waits for the reply with what there is, finish reason `cancelled`.
    pub(crate) fn stop(mut self) -> Result<Reply> {
        {
            let mut log = self.flight.lock();
            log.stopped = true;
            if log.end.is_none() {
                self.flight.interrupt.store(true, Ordering::Release);
            }
        }
        self.last()
    }

    /// Waits for the reply.
    pub(crate) fn last(&mut self) -> Result<Reply> {
        while let Some(event) = self.next_event() {
            if let Event::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::cancelled())
    }

    /// Waits for the next event; none after the last one.
    pub(crate) fn next_event(&mut self) -> Option<Result<Event>> {
        match self.wait(None) {
            Poll::Ready(item) => item,
            Poll::Pending => None,
        }
    }

    fn wait(&mut self, until: Option<Instant>) -> Poll<Option<Result<Event>>> {
        if let Err(error) = check_process(self.flight.pid) {
            return Poll::Ready(Some(Err(error)));
        }
        let mut log = self.flight.lock();
        loop {
            let taken = log.take(self.view);
            if taken.is_ready() {
                return taken;
            }
            log = match until {
                None => self.flight.changed.wait(log).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Poll::Pending;
                    }
                    self.flight.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        if let Err(error) = check_process(self.flight.pid) {
            return Poll::Ready(Some(Err(error)));
        }
        let mut log = self.flight.lock();
        let taken = log.take(self.view);
        if taken.is_pending() {
            log.views[self.view].waker = Some(context.waker().clone());
        }
        taken
    }

    /// Where to look how far this stream was read, after it is gone.
    pub(crate) fn bookmark(&self) -> Bookmark {
        Bookmark { flight: Arc::clone(&self.flight), view: self.view }
    }
}

impl Stream for ReplyStream {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl IntoIterator for ReplyStream {
    type Item = Result<Event>;
    type IntoIter = Events;

    fn into_iter(self) -> Events {
        Events(self)
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        if check_process(self.flight.pid).is_err() {
            return;
        }
        let mut log = self.flight.lock();
        log.views[self.view].closed = true;
        log.views[self.view].waker = None;
        if !log.is_wanted() && log.end.is_none() {
            self.flight.interrupt.store(true, Ordering::Release);
        }
    }
}

/// A stream read by blocking.
pub struct Events(ReplyStream);

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_event()
    }
}

impl Canceller {
    /// Ends the stream with the error `cancelled`: when this returns, the next read is that error.
    pub fn cancel(&self) {
        if check_process(self.flight.pid).is_err() {
            return;
        }
        let waker = {
            let mut log = self.flight.lock();
            let view = &mut log.views[self.view];
            if view.closed {
                return;
            }
            view.error = Some(Error::cancelled());
            let waker = view.waker.take();
            if !log.is_wanted() && log.end.is_none() {
                self.flight.interrupt.store(true, Ordering::Release);
            }
            waker
        };
        self.flight.changed.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The reply of a stream, as a future. Dropping it cancels the work.
#[must_use = "futures do nothing unless awaited, and dropping this one cancels its work"]
pub struct ReplyFuture(Result<ReplyStream, Option<Error>>);

impl ReplyFuture {
    pub(crate) fn new(stream: Result<ReplyStream>) -> Self {
        Self(stream.map_err(Some))
    }
}

impl Future for ReplyFuture {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = match &mut self.0 {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(error.take().unwrap_or_else(Error::cancelled))),
        };
        loop {
            match stream.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Event::Done(reply)))) => return Poll::Ready(Ok(reply)),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Err(Error::cancelled())),
            }
        }
    }
}

/// Remembers a stream that a conversation has handed out.
pub(crate) struct Bookmark {
    flight: Arc<Flight>,
    view: usize,
}

impl Bookmark {
    /// Whether the stream is still being read.
    pub(crate) fn is_open(&self) -> bool {
        let log = self.flight.lock();
        // Whoever has read the last event need not ask for the nothing after it.
        let view = &log.views[self.view];
        let at_end = log.end.is_some() && view.cursor == log.events.len();
        !(view.closed || at_end)
    }

    /// The events that were read.
    pub(crate) fn read(&self) -> Vec<Event> {
        let log = self.flight.lock();
        log.events[..log.views[self.view].cursor].to_vec()
    }
}
