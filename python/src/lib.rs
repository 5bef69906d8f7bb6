//! The native half of the package `antiphon`: the engine behind a few private classes, which `antiphon/` makes pleasant.
//!
//! Values cross as JSON text, which either side writes once and reads once. Two rules keep interpreter and engine from waiting
//! for each other. A call leaves the interpreter while it computes, waits or lets go of something (`gate`). And a thread of
//! the engine never enters it: what it has to tell goes into a line (`line`), at whose other end a thread of Python's waits.

mod calls;
mod conversation;
mod engine;
mod error;
mod gate;
mod line;
mod pending;
mod plugins;
mod stream;
mod waiter;

use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// The engine of the package `antiphon`. Private: what is in here may change with every version.
#[pymodule(gil_used = true)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::calls::Call;
    #[pymodule_export]
    use crate::calls::Calls;
    #[pymodule_export]
    use crate::calls::Notes;
    #[pymodule_export]
    use crate::conversation::Conversation;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::error::error_kinds;
    #[pymodule_export]
    use crate::gate::{forked, leave, panic};
    #[pymodule_export]
    use crate::pending::Pending;
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::waiter::take_waiters;

    /// The version of the library.
    #[pymodule_export]
    const VERSION: &str = antiphon::VERSION;

    #[pymodule_init]
    fn check(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::check_interpreter(module.py())
    }
}

/// A process has one interpreter that this module serves; each has a module `sys` of its own. From Python 3.12 on this is
/// refused before it comes here.
fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    static SERVED: OnceLock<usize> = OnceLock::new();
    let own = py.import("sys")?.as_ptr().addr();
    if *SERVED.get_or_init(|| own) == own {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "antiphon does not support subinterpreters: import it in the main interpreter alone",
    ))
}

#[cfg(panic = "abort")]
compile_error!("the Python module needs panic = \"unwind\"");
