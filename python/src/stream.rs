//! An answer as it comes.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use antiphon::{Canceller, Error, ErrorKind, Event, ReplyStream};
use futures_core::Stream as _;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use serde::Serialize;

use crate::error::{check_process, raise};
use crate::gate::{Visit, inside, let_go, outside};
use crate::pending::{patiently, try_lock};
use crate::waiter::waker;

/// An answer as it comes. Letting go of it ends its work.
#[pyclass(frozen, module = "antiphon._native")]
pub(crate) struct Stream {
    stream: Mutex<Option<ReplyStream>>,
    /// Beside the lock, which a thread that waits for the next event holds.
    canceller: Canceller,
    pid: u32,
}

/// Its type, a chunk's text and index, and as JSON a chunk's log-probabilities, the analysis or the reply.
type EventParts = (&'static str, Option<String>, Option<u64>, Option<String>);

impl Stream {
    pub(crate) fn new(stream: ReplyStream) -> Self {
        let canceller = stream.canceller();
        Self { stream: Mutex::new(Some(stream)), canceller, pid: std::process::id() }
    }
}

#[pymethods]
impl Stream {
    /// Waits for the next event on this thread; none after the last one.
    fn next(&self, py: Python<'_>) -> PyResult<Option<EventParts>> {
        let _visit = Visit::new(py);
        let next = patiently(py, |until| {
            check_process(self.pid)?;
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            let mut stream = self.lock();
            let next = open(&mut stream)?.next_blocking(left);
            Ok(next.map(parts))
        });
        if next.is_err() {
            // Ctrl-C: a traceback would keep the stream for longer than its reader.
            self.canceller.cancel();
        }
        next?.map_err(|error| raise(py, &error))
    }

    /// The next event, none after the last one, or False when it is not there: then a future is woken when it may be.
    #[pyo3(signature = (waiter=None))]
    fn poll(&self, py: Python<'_>, waiter: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let _visit = Visit::new(py);
        let look = || {
            check_process(self.pid)?;
            let mut stream = try_lock(&self.stream)?;
            let stream = Pin::new(open(&mut stream)?);
            match stream.poll_next(&mut Context::from_waker(&waker(waiter))) {
                Poll::Pending => Ok(None),
                Poll::Ready(next) => Ok(Some(parts(next)?)),
            }
        };
        match inside(look).map_err(|error| raise(py, &error))? {
            None => false.into_py_any(py),
            Some(next) => next.into_py_any(py),
        }
    }

    /// Ends the work; the last event is a reply with what there was.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let _visit = Visit::new(py);
        let stopped = outside(py, || {
            check_process(self.pid)?;
            open(&mut self.lock()).map(|stream| stream.stop())
        });
        stopped.map_err(|error| raise(py, &error))
    }

    /// Ends the stream with the error `cancelled`, from any thread at any time.
    fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Lets go of the stream, whose work ends.
    fn close(&self, py: Python<'_>) {
        let _visit = Visit::new(py);
        if self.pid != std::process::id() {
            return;
        }
        // Whoever waits for its next event holds the lock until there is one.
        if self.stream.try_lock().is_err() {
            self.canceller.cancel();
        }
        let _ = outside(py, || {
            drop(self.lock().take());
            Ok(())
        });
    }
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, Option<ReplyStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let_go(self.stream.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn open(stream: &mut Option<ReplyStream>) -> Result<&mut ReplyStream, Error> {
    stream.as_mut().ok_or_else(|| Error::new(ErrorKind::Closed, "the stream is closed"))
}

fn parts(next: Option<Result<Event, Error>>) -> Result<Option<EventParts>, Error> {
    let Some(event) = next.transpose()? else { return Ok(None) };
    let parts = match event {
        Event::Analysis(analysis) => ("analysis", None, None, Some(json(&analysis)?)),
        Event::Chunk { content, index, logprobs, .. } => {
            ("chunk", Some(content), Some(index), logprobs.as_ref().map(json).transpose()?)
        }
        Event::Done(reply) => ("done", None, None, Some(json(&reply)?)),
        _ => {
            return Err(Error::new(ErrorKind::Internal, "an event of a kind that this module does not know"));
        }
    };
    Ok(Some(parts))
}

/// A value as JSON text.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("writing JSON failed: {error}")))
}
