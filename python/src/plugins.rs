//! What a host puts into an engine: functions of Python's behind the core's traits.
//!
//! Threads of the engine do not call them. They put a call into a line and wait for its answer; threads of Python's take the
//! calls and make them (`calls`). So the engine never waits for the interpreter where it computes, and no frame of ours lies
//! below a host's function when the interpreter ends.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon::plugin::{Generator, Level, Observer, PluginError, SharedTier, Stage};
use antiphon::{Error, ErrorKind, Generate, Reply, Request};
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use serde_json::Value;

use crate::calls::{Answer, Asked, Note, Task, ask};
use crate::error::raise;
use crate::gate::{Visit, outside};
use crate::line::Line;

/// The functions of plugins, as `antiphon/_plugins.py` found them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Parts {
    /// `get`, `put`, `remove`.
    tier: Option<(Py<PyAny>, Py<PyAny>, Py<PyAny>)>,
    /// Name and `generate`.
    generators: Vec<(String, Py<PyAny>)>,
    /// `before` and `after`, where there are.
    stages: Vec<Pair>,
    /// `log` and `event`, where there are.
    observers: Vec<Pair>,
}

/// Two functions, each of which may be missing.
pub(crate) type Pair = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// What a host put into an engine.
pub(crate) struct Plugins {
    /// None once a cycle of theirs has been collected.
    parts: Mutex<Option<Parts>>,
    pub(crate) calls: Line<Asked>,
    pub(crate) notes: Line<Note>,
}

impl Plugins {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Mutex::new(Some(parts)), calls: Line::new(usize::MAX), notes: Line::new(MOST_NOTES) }
    }

    /// The same as the core knows them.
    pub(crate) fn behind(all: &Arc<Self>) -> antiphon::plugin::Plugins {
        let mut plugins = antiphon::plugin::Plugins::new();
        let parts = all.lock();
        let Some(parts) = &*parts else { return plugins };
        if parts.tier.is_some() {
            plugins = plugins.shared_tier(Arc::new(PyTier(Arc::clone(all))));
        }
        for (index, (name, _)) in parts.generators.iter().enumerate() {
            plugins = plugins.add_generator(Arc::new(PyGenerator {
                all: Arc::clone(all),
                index,
                name: name.clone(),
            }));
        }
        for (index, (before, after)) in parts.stages.iter().enumerate() {
            let (has_before, has_after) = (before.is_some(), after.is_some());
            plugins =
                plugins.add_stage(Arc::new(PyStage { all: Arc::clone(all), index, has_before, has_after }));
        }
        if !parts.observers.is_empty() {
            plugins = plugins.add_observer(Arc::new(PyObserver(Arc::clone(all))));
        }
        plugins
    }

    /// Whether threads of Python's are needed for calls.
    pub(crate) fn has_calls(&self) -> bool {
        self.lock().as_ref().is_some_and(|parts| {
            let holds_back = parts.stages.iter().any(|(_, after)| after.is_some());
            parts.tier.is_some() || !parts.generators.is_empty() || holds_back
        })
    }

    pub(crate) fn has_notes(&self) -> bool {
        self.lock().as_ref().is_some_and(|parts| !parts.observers.is_empty())
    }

    /// The function that a call is for.
    pub(crate) fn function(&self, py: Python<'_>, task: &Task) -> Option<Py<PyAny>> {
        let parts = self.lock();
        let parts = parts.as_ref()?;
        let function = match task {
            Task::Get { .. } => &parts.tier.as_ref()?.0,
            Task::Put { .. } => &parts.tier.as_ref()?.1,
            Task::Remove { .. } => &parts.tier.as_ref()?.2,
            Task::Generate { generator, .. } => &parts.generators.get(*generator)?.1,
            Task::After { stage, .. } => parts.stages.get(*stage)?.1.as_ref()?,
        };
        Some(function.clone_ref(py))
    }

    /// The observers' functions; none once they are collected.
    pub(crate) fn observers(&self, py: Python<'_>) -> Vec<Pair> {
        let copy = |part: &Option<Py<PyAny>>| part.as_ref().map(|part| part.clone_ref(py));
        let parts = self.lock();
        parts.iter().flat_map(|parts| &parts.observers).map(|(log, event)| (copy(log), copy(event))).collect()
    }

    /// Ends the threads that make calls.
    pub(crate) fn close(&self) {
        self.calls.close();
        self.notes.close();
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(parts) = self.parts.try_lock() else { return Ok(()) };
        let Some(parts) = &*parts else { return Ok(()) };
        if let Some((get, put, remove)) = &parts.tier {
            visit.call(get)?;
            visit.call(put)?;
            visit.call(remove)?;
        }
        for (_, generate) in &parts.generators {
            visit.call(generate)?;
        }
        for (first, second) in parts.stages.iter().chain(&parts.observers) {
            visit.call(first)?;
            visit.call(second)?;
        }
        Ok(())
    }

    pub(crate) fn forget(&self) {
        let parts = self.lock().take();
        drop(parts);
    }

    fn before(&self, py: Python<'_>, stage: usize) -> Option<Py<PyAny>> {
        let parts = self.lock();
        Some(parts.as_ref()?.stages.get(stage)?.0.as_ref()?.clone_ref(py))
    }

    /// Held for moments, by threads in the interpreter.
    fn lock(&self) -> MutexGuard<'_, Option<Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct PyTier(Arc<Plugins>);

impl SharedTier for PyTier {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PluginError> {
        match ask(&self.0, Task::Get { key: key.into() }, nowhere)? {
            Answer::Bytes(value) => Ok(Some(value)),
            Answer::Nothing => Ok(None),
            Answer::Text(_) => Err(PluginError::new("get gave str, expected bytes or None")),
        }
    }

    fn put(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), PluginError> {
        ask(&self.0, Task::Put { key: key.into(), value: value.into(), ttl }, nowhere).map(drop)
    }

    fn remove(&self, key: &[u8]) -> Result<(), PluginError> {
        ask(&self.0, Task::Remove { key: key.into() }, nowhere).map(drop)
    }
}

struct PyGenerator {
    all: Arc<Plugins>,
    index: usize,
    name: String,
}

impl Generator for PyGenerator {
    fn name(&self) -> &str {
        &self.name
    }

    fn generate(
        &self,
        request: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        let request = plugin_json(request)?;
        ask(&self.all, Task::Generate { generator: self.index, request }, write).map(drop)
    }
}

struct PyStage {
    all: Arc<Plugins>,
    index: usize,
    has_before: bool,
    has_after: bool,
}

impl Stage for PyStage {
    fn before(&self, request: &mut Request) -> Result<(), PluginError> {
        if !self.has_before {
            return Ok(());
        }
        let json = plugin_json(request)?;
        // On the thread that asks, which is one of Python's.
        let looked = Python::try_attach(|py| -> PyResult<Option<String>> {
            let _visit = Visit::new(py);
            let Some(before) = self.all.before(py, self.index) else { return Ok(None) };
            before.call1(py, (json,))?.extract(py)
        });
        match looked {
            None => Err(PluginError::new("before was not called: the interpreter is ending")),
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(json))) => {
                *request = Request::from_json(&json)
                    .map_err(|error| PluginError::new(format!("before gave no request: {error}")))?;
                Ok(())
            }
            Some(Err(raised)) => {
                let what = Python::try_attach(|py| name_of(py, &raised)).unwrap_or_default();
                RAISED.set(Some(raised));
                Err(PluginError::new(format!("before raised {what}")))
            }
        }
    }

    fn holds_back(&self) -> bool {
        self.has_after
    }

    fn after(&self, reply: &Reply) -> Result<Option<String>, PluginError> {
        let reply = plugin_json(reply)?;
        match ask(&self.all, Task::After { stage: self.index, reply }, nowhere)? {
            Answer::Text(text) => Ok(Some(text)),
            Answer::Nothing => Ok(None),
            Answer::Bytes(_) => Err(PluginError::new("after gave bytes, expected str or None")),
        }
    }
}

struct PyObserver(Arc<Plugins>);

impl Observer for PyObserver {
    fn log(&self, level: Level, target: &str, message: &str) {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        self.0.notes.push(Note::Log { level, target: target.into(), message: message.into() });
    }

    fn event(&self, name: &str, fields: &Value) {
        self.0.notes.push(Note::Event { name: name.into(), fields: fields.to_string() });
    }
}

/// Asks an engine on a thread of Python's, outside of the interpreter. Where a stage has raised meanwhile, its exception is the
/// error's cause; one that is no failure, such as KeyboardInterrupt, goes through.
pub(crate) fn asking<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    RAISED.set(None);
    let outcome = outside(py, work);
    let raised = RAISED.take();
    let error = match outcome {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let exception = raise(py, &error);
    if let Some(raised) = raised.filter(|_| error.kind() == ErrorKind::PluginFailed) {
        if !raised.is_instance_of::<PyException>(py) {
            return Err(raised);
        }
        exception.set_cause(py, Some(raised));
    }
    Err(exception)
}

fn nowhere(_: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn name_of(py: Python<'_>, raised: &PyErr) -> String {
    raised.get_type(py).name().map_or_else(|_| "an exception".to_owned(), |name| name.to_string())
}

fn plugin_json(value: &impl serde::Serialize) -> Result<String, PluginError> {
    serde_json::to_string(value).map_err(|error| PluginError::new(format!("writing JSON failed: {error}")))
}

/// An observer that is slower than the engine is told no more than it can hear.
const MOST_NOTES: usize = 10_000;

thread_local! {
    /// What a stage raised within the call that this thread makes.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}
