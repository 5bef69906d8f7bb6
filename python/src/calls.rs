//! Calls of plugins: what threads of the engine ask, and threads of Python's answer.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon::plugin::PluginError;
use antiphon::{Error, ErrorKind};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::error::raise;
use crate::gate::{Visit, outside};
use crate::plugins::{Pair, Plugins};

/// What is to be called.
pub(crate) enum Task {
    Get { key: Vec<u8> },
    Put { key: Vec<u8>, value: Vec<u8>, ttl: Duration },
    Remove { key: Vec<u8> },
    Generate { generator: usize, request: String },
    After { stage: usize, reply: String },
}

/// What a function gave.
pub(crate) enum Answer {
    Nothing,
    Bytes(Vec<u8>),
    Text(String),
}

/// A call in the line.
pub(crate) struct Asked {
    task: Task,
    said: Sender<Said>,
    wants_more: Receiver<bool>,
}

enum Said {
    Piece(String),
    End(Result<Answer, String>),
}

/// What observers are to be told.
pub(crate) enum Note {
    Log { level: &'static str, target: String, message: String },
    Event { name: String, fields: String },
}

/// Has a call made by a thread of Python's, and waits for it; `write` is given the pieces of a text.
pub(crate) fn ask(
    plugins: &Plugins,
    task: Task,
    mut write: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Answer, PluginError> {
    let ((said, heard), (more, wants_more)) = (channel(), channel());
    if !plugins.calls.push(Asked { task, said, wants_more }) {
        return Err(PluginError::new("the engine is closed"));
    }
    loop {
        match heard.recv() {
            Ok(Said::Piece(piece)) => {
                // Who does not listen for it has gone already.
                let _ = more.send(write(&piece).is_continue());
            }
            Ok(Said::End(end)) => return end.map_err(PluginError::new),
            Err(_) => return Err(PluginError::new("the call was given up")),
        }
    }
}

/// Calls of plugins that are to be made.
#[pyclass(frozen, module = "antiphon._native")]
pub(crate) struct Calls(Arc<Plugins>);

impl Calls {
    pub(crate) fn new(plugins: Arc<Plugins>) -> Self {
        Self(plugins)
    }
}

#[pymethods]
impl Calls {
    /// Waits for a call, and gives it with whether nobody is left to take the next one; none when there will be no more.
    fn take(&self, py: Python<'_>) -> PyResult<Option<(Call, bool)>> {
        let _visit = Visit::new(py);
        while outside(py, || Ok(self.0.calls.wait())).map_err(|error| raise(py, &error))? {
            // Another thread may have been faster.
            let Some((asked, is_last)) = self.0.calls.first() else { continue };
            let Some(function) = self.0.function(py, &asked.task) else { continue };
            let Asked { task, said, wants_more } = asked;
            let wants_more = Mutex::new(wants_more);
            return Ok(Some((Call { function, task, said, wants_more }, is_last)));
        }
        Ok(None)
    }
}

/// One call of a plugin.
#[pyclass(frozen, module = "antiphon._native")]
pub(crate) struct Call {
    /// The host's function.
    #[pyo3(get)]
    function: Py<PyAny>,
    task: Task,
    said: Sender<Said>,
    wants_more: Mutex<Receiver<bool>>,
}

#[pymethods]
impl Call {
    /// What it is: get, put, remove, generate or after.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.task {
            Task::Get { .. } => "get",
            Task::Put { .. } => "put",
            Task::Remove { .. } => "remove",
            Task::Generate { .. } => "generate",
            Task::After { .. } => "after",
        }
    }

    /// What the function takes; a request or a reply as JSON.
    #[getter]
    fn arguments(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _visit = Visit::new(py);
        match &self.task {
            Task::Get { key } | Task::Remove { key } => (PyBytes::new(py, key),).into_py_any(py),
            Task::Put { key, value, ttl } => {
                (PyBytes::new(py, key), PyBytes::new(py, value), ttl.as_secs_f64()).into_py_any(py)
            }
            Task::Generate { request: json, .. } | Task::After { reply: json, .. } => (json,).into_py_any(py),
        }
    }

    /// Writes a piece of a text; false when no more is wanted.
    fn write(&self, py: Python<'_>, piece: &str) -> PyResult<bool> {
        let _visit = Visit::new(py);
        let wants_more = outside(py, || {
            let gone = || Error::new(ErrorKind::Closed, "nobody waits for this text");
            self.said.send(Said::Piece(piece.to_owned())).map_err(|_| gone())?;
            let wants_more = self.wants_more.lock().unwrap_or_else(PoisonError::into_inner);
            wants_more.recv().map_err(|_| gone())
        });
        wants_more.map_err(|error| raise(py, &error))
    }

    /// Gives what the function gave.
    #[pyo3(signature = (value=None))]
    fn answer(&self, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let answer = match value {
            None => Answer::Nothing,
            Some(text) if text.is_instance_of::<PyString>() => Answer::Text(text.extract()?),
            Some(bytes) => Answer::Bytes(bytes.extract()?),
        };
        self.end(Ok(answer));
        Ok(())
    }

    /// Says why there is no answer.
    fn fail(&self, why: &str) {
        self.end(Err(why.to_owned()));
    }
}

impl Call {
    fn end(&self, end: Result<Answer, String>) {
        // Who asked may have gone.
        let _ = self.said.send(Said::End(end));
    }
}

/// What observers are to be told, in its order.
#[pyclass(frozen, module = "antiphon._native")]
pub(crate) struct Notes(Arc<Plugins>);

impl Notes {
    pub(crate) fn new(plugins: Arc<Plugins>) -> Self {
        Self(plugins)
    }
}

#[pymethods]
impl Notes {
    /// Waits for notes, and gives all there are: ("log", level, target, message) or ("event", name, JSON); none at the end.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<PyAny>>>> {
        let _visit = Visit::new(py);
        if !outside(py, || Ok(self.0.notes.wait())).map_err(|error| raise(py, &error))? {
            return Ok(None);
        }
        let show = |note| match note {
            Note::Log { level, target, message } => ("log", level, target, message).into_py_any(py),
            Note::Event { name, fields } => ("event", name, fields).into_py_any(py),
        };
        self.0.notes.all().into_iter().map(show).collect::<PyResult<_>>().map(Some)
    }

    /// The observers' functions: log and event, where there are.
    fn observers(&self, py: Python<'_>) -> Vec<Pair> {
        let _visit = Visit::new(py);
        self.0.observers(py)
    }
}
