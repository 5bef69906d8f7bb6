//! Who waits in an event loop. A waker puts its future into a line, and one thread of Python's tells the loops.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};

use pyo3::prelude::*;

use crate::error::raise;
use crate::gate::{Visit, outside};
use crate::line::Line;

/// A waker that has an `asyncio.Future` woken, once.
pub(crate) fn waker(waiter: Option<Py<PyAny>>) -> Waker {
    match waiter {
        Some(waiter) => Waker::from(Arc::new(Waiter { line: line(), future: Mutex::new(Some(waiter)) })),
        None => Waker::noop().clone(),
    }
}

/// Waits for futures that are to be woken, and gives all there are.
#[pyfunction]
pub(crate) fn take_waiters(py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
    let _visit = Visit::new(py);
    let line = line();
    outside(py, || Ok(line.wait())).map_err(|error| raise(py, &error))?;
    Ok(line.all().into())
}

struct Waiter {
    line: &'static Line<Py<PyAny>>,
    future: Mutex<Option<Py<PyAny>>>,
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(future) = self.future.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.line.push(future);
        }
    }
}

/// The line of this process. After a `fork` the one before may be locked by a thread that the child does not have, so each
/// process has its own, behind that of its parent.
///
/// Called in the interpreter alone, where no other thread can be forking.
fn line() -> &'static Line<Py<PyAny>> {
    static FIRST: OnceLock<Own> = OnceLock::new();
    let mut own = FIRST.get_or_init(Own::new);
    while own.pid != std::process::id() {
        own = own.child.get_or_init(|| Box::new(Own::new()));
    }
    &own.line
}

struct Own {
    pid: u32,
    line: Line<Py<PyAny>>,
    child: OnceLock<Box<Own>>,
}

impl Own {
    fn new() -> Self {
        Self { pid: std::process::id(), line: Line::new(usize::MAX), child: OnceLock::new() }
    }
}
