//! A conversation that remembers its turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use antiphon::{Error, ErrorKind, Request};
use pyo3::prelude::*;

use crate::engine::utf8;
use crate::error::check_process;
use crate::gate::{Visit, let_go};
use crate::plugins::asking;
use crate::stream::{Stream, json};

/// A conversation: each answer knows the turns before it.
#[pyclass(frozen, module = "antiphon._native")]
pub(crate) struct Conversation {
    conversation: Mutex<Option<antiphon::Conversation>>,
    pid: u32,
}

impl Conversation {
    pub(crate) fn new(conversation: antiphon::Conversation) -> Self {
        Self { conversation: Mutex::new(Some(conversation)), pid: std::process::id() }
    }
}

#[pymethods]
impl Conversation {
    /// Says something; the answer comes as a stream.
    fn say(&self, py: Python<'_>, request: &[u8]) -> PyResult<Stream> {
        let _visit = Visit::new(py);
        self.with(py, |conversation| {
            conversation.say(Request::from_json(utf8("request", request)?)?).map(Stream::new)
        })
    }

    /// The turns so far, as JSON.
    fn history(&self, py: Python<'_>) -> PyResult<String> {
        let _visit = Visit::new(py);
        self.with(py, |conversation| json(&conversation.history()))
    }

    /// Forgets all turns but those it began with.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        let _visit = Visit::new(py);
        self.with(py, |conversation| {
            conversation.reset();
            Ok(())
        })
    }

    /// Lets go of it. Its streams go on.
    fn close(&self, py: Python<'_>) {
        let _visit = Visit::new(py);
        let _ = asking(py, || {
            check_process(self.pid)?;
            drop(self.lock().take());
            Ok(())
        });
    }
}

impl Conversation {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut antiphon::Conversation) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        asking(py, || {
            check_process(self.pid)?;
            let closed = || Error::new(ErrorKind::Closed, "the conversation is closed");
            work(self.lock().as_mut().ok_or_else(closed)?)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<antiphon::Conversation>> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let_go(self.conversation.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}
