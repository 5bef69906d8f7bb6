//! What a subscriber holds: a view of a flight, read as a future, by blocking, or pushed into a callback.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::error::{Error, Result};
use crate::flight::{Flight, Wanted};
use crate::observe::Meter;
use crate::reply::{Event, Reply};

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
    meter: Option<Meter>,
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
    /// The reader of a view, which exists already: a flight without one is given up.
    pub(crate) fn new(engine: KeepAlive, flight: Arc<Flight>, view: usize) -> Self {
        Self { _engine: engine, flight, view, meter: None }
    }

    /// The same, counted when it ends.
    pub(crate) fn metered(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
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
        std::future::poll_fn(|context| self.poll(Wanted::Next, context))
    }

    /// Waits for the next event, at most `timeout`: `Pending` when it did not come in time.
    pub fn next_blocking(&mut self, timeout: Duration) -> Poll<Option<Result<Event>>> {
        self.wait(Wanted::Next, Instant::now().checked_add(timeout))
    }

    /// Ends the work, for a consumer that has enough: the last event is still a reply, with what there was, finish reason
    /// `cancelled`. A stream that has ended by itself stays as it is.
    ///
    /// ```
    /// # use antiphon::{Engine, EngineConfig, Event, FinishReason, Request};
    /// # let engine = Engine::open(EngineConfig::default())?;
    /// let mut stream = engine.stream(Request::new("Hello, I need help with my account"))?;
    /// stream.stop();
    /// let Some(Event::Done(reply)) = stream.into_iter().last().transpose()? else { unreachable!() };
    /// assert_eq!(reply.finish_reason(), FinishReason::Cancelled);
    /// # Ok::<(), antiphon::Error>(())
    /// ```
    pub fn stop(&self) {
        if self.flight.check_process().is_ok() {
            self.flight.stop(self.view);
        }
    }

    /// Waits for the reply.
    pub(crate) fn last(&mut self) -> Result<Reply> {
        match self.wait(Wanted::Last, None) {
            Poll::Ready(item) => reply_of(item),
            Poll::Pending => Err(Error::cancelled()),
        }
    }

    /// Waits for the next event; none after the last one.
    pub(crate) fn next_event(&mut self) -> Option<Result<Event>> {
        match self.wait(Wanted::Next, None) {
            Poll::Ready(item) => item,
            Poll::Pending => None,
        }
    }

    fn wait(&mut self, wanted: Wanted, until: Option<Instant>) -> Poll<Option<Result<Event>>> {
        match self.flight.check_process() {
            Ok(()) => {
                let item = self.flight.wait(self.view, wanted, until);
                self.counted(item)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn counted(&mut self, item: Poll<Option<Result<Event>>>) -> Poll<Option<Result<Event>>> {
        if let Some(meter) = &mut self.meter {
            match &item {
                Poll::Ready(Some(Ok(Event::Done(reply)))) => meter.finish(reply.finish_reason()),
                Poll::Ready(Some(Err(error))) => meter.fail(error),
                _ => {}
            }
        }
        item
    }

    fn poll(&mut self, wanted: Wanted, context: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        match self.flight.check_process() {
            Ok(()) => {
                let item = self.flight.read(self.view, wanted, context.waker());
                self.counted(item)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// Where to look how far this stream was read, after it is gone.
    pub(crate) fn bookmark(&self) -> Bookmark {
        Bookmark { flight: Arc::clone(&self.flight), view: self.view }
    }
}

impl Stream for ReplyStream {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(Wanted::Next, context)
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
        if self.flight.check_process().is_ok() {
            self.flight.leave(self.view);
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
        if self.flight.check_process().is_ok() {
            self.flight.cancel(self.view);
        }
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
        stream.poll(Wanted::Last, context).map(reply_of)
    }
}

/// What the last event of a stream says; one that was read before is gone.
fn reply_of(last: Option<Result<Event>>) -> Result<Reply> {
    match last {
        Some(Ok(Event::Done(reply))) => Ok(reply),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) | None => Err(Error::cancelled()),
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
        self.flight.is_open(self.view)
    }

    /// The events that were read.
    pub(crate) fn read(&self) -> Vec<Event> {
        self.flight.read_by(self.view)
    }
}
