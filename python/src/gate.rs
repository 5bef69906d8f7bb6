//! Out of the interpreter and back.
//!
//! Before Python 3.14 a thread that comes back into an interpreter that has begun to end is ended on the spot, and a process
//! whose thread has frames of Rust below it aborts. So the module's exit hook shuts this gate. Who is outside then stays there
//! for good, and so does whoever comes later; those who are within a call of this module are waited for, until they have
//! returned to Python.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::time::{Duration, Instant};

use antiphon::Error;
use pyo3::prelude::*;

use crate::error::{from_panic, raise};

/// A call of this module by a thread that is in the interpreter. Every call begins with one.
pub(crate) struct Visit(());

impl Visit {
    pub(crate) fn new(py: Python<'_>) -> Self {
        VISITS.fetch_add(1, Ordering::SeqCst);
        if must_stay_out() {
            py.detach(stay_out);
        }
        Self(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        VISITS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs work outside of the interpreter, within a visit. A panic of it is an error.
pub(crate) fn outside<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let outcome = py.detach(|| {
        VISITS.fetch_sub(1, Ordering::SeqCst);
        let outcome = catch_unwind(AssertUnwindSafe(work));
        VISITS.fetch_add(1, Ordering::SeqCst);
        if must_stay_out() {
            stay_out();
        }
        outcome
    });
    outcome.unwrap_or_else(|panic| Err(from_panic(&*panic)))
}

/// Runs work that takes no time, within the interpreter. A panic of it is an error, too: pyo3's own exception for one is none
/// that `except Exception` catches.
pub(crate) fn inside<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(from_panic(&*panic)))
}

/// Lets go of something of the engine's, for which its threads may have to end.
pub(crate) fn let_go<T: Send>(value: Option<T>) {
    let Some(value) = value else { return };
    let mut value = Some(value);
    // Collected by a thread that is in the interpreter; one that is not has nobody to hold up.
    let _ = Python::try_attach(|py| {
        let _visit = Visit::new(py);
        outside(py, || {
            drop(value.take());
            Ok(())
        })
    });
}

/// Shuts the gate: called by the thread that ends the interpreter, to which alone it stays open.
#[pyfunction]
pub(crate) fn leave(py: Python<'_>) {
    LEAVES.set(true);
    SHUT.store(true, Ordering::SeqCst);
    py.detach(|| {
        // A host's own code may be within a visit, a stage of its: that is not waited for without an end.
        let until = Instant::now() + PATIENCE;
        while VISITS.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A child process after `fork` has none of the threads that were here.
#[pyfunction]
pub(crate) fn forked() {
    VISITS.store(0, Ordering::SeqCst);
}

/// Panics, for the test of what becomes of it.
#[pyfunction]
pub(crate) fn panic(py: Python<'_>, is_outside: bool) -> PyResult<()> {
    let _visit = Visit::new(py);
    let work = || -> Result<(), Error> { std::panic::panic_any("for a test") };
    let panicked = if is_outside { outside(py, work) } else { inside(work) };
    panicked.map_err(|error| raise(py, &error))
}

fn must_stay_out() -> bool {
    SHUT.load(Ordering::SeqCst) && !LEAVES.get()
}

fn stay_out() {
    VISITS.fetch_sub(1, Ordering::SeqCst);
    loop {
        std::thread::park();
    }
}

/// The interpreter is ending.
static SHUT: AtomicBool = AtomicBool::new(false);
/// How many threads are within a call of this module, and not outside.
static VISITS: AtomicIsize = AtomicIsize::new(0);

const PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// This thread ends the interpreter.
    static LEAVES: Cell<bool> = const { Cell::new(false) };
}
