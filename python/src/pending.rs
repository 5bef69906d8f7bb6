//! An answer that comes later: waited for by a thread, or by an event loop.

use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use antiphon::{Error, ErrorKind};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::error::{check_process, raise};
use crate::gate::{Visit, inside, let_go, outside};
use crate::waiter::waker;

/// An answer that comes later. Letting go of it ends its work.
#[pyclass(frozen, module = "antiphon._native")]
pub(crate) struct Pending {
    work: Mutex<Option<Work>>,
    cancelled: AtomicBool,
    alarm: Arc<Alarm>,
    pid: u32,
}

type Work = Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;

/// What work can come to.
pub(crate) enum Value {
    Nothing,
    Text(String),
    Vectors(Vec<Vec<f32>>),
}

impl Pending {
    pub(crate) fn new(work: impl Future<Output = Result<Value, Error>> + Send + 'static) -> Self {
        Self {
            work: Mutex::new(Some(Box::pin(work))),
            cancelled: AtomicBool::new(false),
            alarm: Arc::default(),
            pid: std::process::id(),
        }
    }

    /// The same of work that may have failed already, which is said at once: where a stage refused it, on its own thread.
    pub(crate) fn begun(
        work: impl Future<Output = Result<Value, Error>> + Send + 'static,
    ) -> Result<Self, Error> {
        let mut work = Box::pin(work);
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(Self::new(work)),
            Poll::Ready(value) => value.map(|value| Self::new(ready(Ok(value)))),
        }
    }
}

#[pymethods]
impl Pending {
    /// Waits for the answer on this thread.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _visit = Visit::new(py);
        let value = patiently(py, |until| check_process(self.pid).map(|()| self.wait_until(until)));
        if value.is_err() {
            // Ctrl-C: a traceback would keep the work for longer than who waited for it.
            self.cancel();
        }
        self.give(py, value?)
    }

    /// The answer, or False when it is not there: then a future is woken when it may be.
    #[pyo3(signature = (waiter=None))]
    fn poll(&self, py: Python<'_>, waiter: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let _visit = Visit::new(py);
        let look = || {
            check_process(self.pid)?;
            Ok(self.look(&mut *try_lock(&self.work)?, &waker(waiter)))
        };
        match inside(look).map_err(|error| raise(py, &error))? {
            Poll::Pending => false.into_py_any(py),
            Poll::Ready(value) => self.give(py, value),
        }
    }

    /// Ends the work: who waits for it is told so.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.alarm.wake_by_ref();
        // Nobody waits on a thread: then the work goes at once.
        if self.pid == std::process::id()
            && let Ok(mut work) = self.work.try_lock()
        {
            let work = work.take();
            let_go(work);
        }
    }
}

impl Pending {
    /// Waits at most so long.
    fn wait_until(&self, until: Option<Instant>) -> Poll<Result<Value, Error>> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = Waker::from(Arc::clone(&self.alarm));
        loop {
            match self.look(&mut work, &waker) {
                Poll::Pending if self.alarm.wait(until) => {}
                looked => return looked,
            }
        }
    }

    fn look(&self, work: &mut Option<Work>, waker: &Waker) -> Poll<Result<Value, Error>> {
        if self.cancelled.load(Ordering::Acquire) {
            return Poll::Ready(Err(cancelled()));
        }
        match work {
            Some(work) => work.as_mut().poll(&mut Context::from_waker(waker)),
            None => {
                let what = "the answer was taken before, expected one call for it";
                Poll::Ready(Err(Error::new(ErrorKind::InvalidArgument, what)))
            }
        }
    }

    fn give(&self, py: Python<'_>, value: Result<Value, Error>) -> PyResult<Py<PyAny>> {
        if let Ok(mut work) = self.work.try_lock() {
            let work = work.take();
            let_go(work);
        }
        match value.map_err(|error| raise(py, &error))? {
            Value::Nothing => Ok(py.None()),
            Value::Text(text) => text.into_py_any(py),
            Value::Vectors(vectors) => vectors.into_py_any(py),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let_go(self.work.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Waits on this thread, in slices between which Ctrl-C is looked for, where this thread is the one to hear of it.
pub(crate) fn patiently<T: Send>(
    py: Python<'_>,
    wait: impl Fn(Option<Instant>) -> Result<Poll<T>, Error> + Sync,
) -> PyResult<T> {
    let mut hears_signals = true;
    loop {
        let until = hears_signals.then(|| Instant::now() + SLICE);
        match outside(py, || wait(until)).map_err(|error| raise(py, &error))? {
            Poll::Ready(value) => return Ok(value),
            Poll::Pending => {
                py.check_signals()?;
                hears_signals = is_main_thread(py)?;
            }
        }
    }
}

/// Does work that cannot be interrupted on a thread of its own, and waits for it as for an answer. After Ctrl-C it goes on, for
/// nobody.
pub(crate) fn aside<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let (give, take) = channel();
    let work = move || {
        // Who asked may have gone.
        let _ = give.send(inside(work));
    };
    let spawned = std::thread::Builder::new().name("antiphon-aside".into()).spawn(work);
    spawned.map_err(|error| {
        raise(py, &Error::new(ErrorKind::Io, format!("starting a thread failed: {error}")))
    })?;
    let take = Mutex::new(take);
    let done = patiently(py, |until| {
        let take = take.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.map_or(LONG, |until| until.saturating_duration_since(Instant::now()));
        match take.recv_timeout(left) {
            Ok(done) => Ok(Poll::Ready(done)),
            Err(RecvTimeoutError::Timeout) => Ok(Poll::Pending),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(ErrorKind::Internal, "a thread ended early"))
            }
        }
    })?;
    done.map_err(|error| raise(py, &error))
}

/// What another thread is using now.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>, Error> {
    match mutex.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            let what = "another thread waits for the same answer, expected one at a time";
            Err(Error::new(ErrorKind::InvalidArgument, what))
        }
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the request was cancelled")
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    threading.call_method0("main_thread")?.getattr("ident")?.eq(threading.call_method0("get_ident")?)
}

/// Wakes a thread.
#[derive(Default)]
struct Alarm {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    /// Waits until it has rung since the last time; false when that took too long.
    fn wait(&self, until: Option<Instant>) -> bool {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            let left = until.map_or(LONG, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            rung = self.changed.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *rung = false;
        true
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// So long a signal waits at most.
const SLICE: Duration = Duration::from_millis(50);
/// As good as for ever.
const LONG: Duration = Duration::from_secs(3600);
