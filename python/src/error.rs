//! What went wrong, as the exceptions of `antiphon/_errors.py`.

use std::any::Any;

use antiphon::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The exception of an error: of the class that belongs to its number.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let retry_after_ms = error.retry_after().map(|after| after.as_millis() as u64);
    let exception = MAKE
        .import(py, "antiphon._errors", "from_native")
        .and_then(|make| make.call1((error.kind().code(), error.to_string(), retry_after_ms)));
    exception.map_or_else(|failure| failure, PyErr::from_value)
}

/// What a panic is to a caller.
pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Error {
    // What a panic says may hold anything; where it happened is in the panic hook's output, which is the host's.
    let known = panic.downcast_ref::<&'static str>().copied().unwrap_or("no more is known");
    Error::new(ErrorKind::Internal, format!("a bug of this library: {known}"))
}

/// After `fork` a lock of this module may be held by a thread that the child does not have.
pub(crate) fn check_process(pid: u32) -> Result<(), Error> {
    if pid == std::process::id() {
        return Ok(());
    }
    let what = "the engine was opened in another process, expected one opened after fork";
    Err(Error::new(ErrorKind::Forked, what))
}

/// Number, name, platform type, severity, retryable and hint of every kind.
pub(crate) type KindRow = (i32, &'static str, &'static str, &'static str, bool, &'static str);

/// Every kind of error the library has, for the test that holds the package's classes against them.
#[pyfunction]
pub(crate) fn error_kinds() -> Vec<KindRow> {
    let row = |kind: &ErrorKind| {
        (kind.code(), kind.name(), kind.platform_type(), kind.severity(), kind.is_retryable(), kind.hint())
    };
    ErrorKind::ALL.iter().map(row).collect()
}
