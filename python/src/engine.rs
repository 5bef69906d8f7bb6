//! The engine: opening, asking, looking after, closing.

use std::sync::Arc;
use std::time::Duration;

use antiphon::{ConversationConfig, EngineConfig, Error, ErrorKind, Generate, Request, SummaryOptions};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::calls::{Calls, Notes};
use crate::conversation::Conversation;
use crate::error::check_process;
use crate::gate::{Visit, let_go};
use crate::pending::{Pending, Value, aside};
use crate::plugins::{Parts, Plugins, asking};
use crate::stream::{Stream, json};

/// An engine with its models. Any number of threads may use it at once.
#[pyclass(frozen, module = "antiphon._native", weakref)]
pub(crate) struct Engine {
    /// Some, until it is dropped.
    engine: Option<antiphon::Engine>,
    plugins: Arc<Plugins>,
    pid: u32,
}

#[pymethods]
impl Engine {
    /// Opens an engine: its configuration as JSON, and what the host puts into it.
    #[new]
    fn new(py: Python<'_>, config: &[u8], plugins: Parts) -> PyResult<Self> {
        let _visit = Visit::new(py);
        let plugins = Arc::new(Plugins::new(plugins));
        let (config, behind) = (config.to_owned(), Plugins::behind(&plugins));
        let engine = aside(py, move || {
            antiphon::Engine::open_with(EngineConfig::from_json(utf8("configuration", &config)?)?, behind)
        })?;
        Ok(Self { engine: Some(engine), plugins, pid: std::process::id() })
    }

    /// Calls of plugins, to be made by threads of Python's; none without such plugins.
    fn calls(&self) -> Option<Calls> {
        self.plugins.has_calls().then(|| Calls::new(Arc::clone(&self.plugins)))
    }

    /// What observers are to be told; none without observers.
    fn notes(&self) -> Option<Notes> {
        self.plugins.has_notes().then(|| Notes::new(Arc::clone(&self.plugins)))
    }

    /// What a text means.
    fn analyze(&self, py: Python<'_>, text: &str) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            let analysis = engine.analyze(text);
            Ok(Pending::new(async move { Ok(Value::Text(json(&analysis.await?)?)) }))
        })
    }

    /// What texts mean.
    fn analyze_batch(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask_at_length(py, texts.len() > MANY, move |engine| {
            let analyses = engine.analyze_batch(&texts);
            Ok(Pending::new(async move { Ok(Value::Text(json(&analyses.await?)?)) }))
        })
    }

    /// Vectors of texts.
    fn embed(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask_at_length(py, texts.len() > MANY, move |engine| {
            let vectors = engine.embed(&texts);
            Ok(Pending::new(async move { Ok(Value::Vectors(vectors.await?)) }))
        })
    }

    /// A summary of a text.
    fn summarize(&self, py: Python<'_>, text: &str, options: &[u8]) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            let options = SummaryOptions::from_json(utf8("summary options", options)?)?;
            let summary = engine.summarize(text, options);
            Ok(Pending::new(async move { Ok(Value::Text(summary.await?)) }))
        })
    }

    /// Understands and answers a message.
    fn process(&self, py: Python<'_>, request: &[u8]) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            let reply = engine.process(Request::from_json(utf8("request", request)?)?);
            Pending::begun(async move { Ok(Value::Text(json(&reply.await?)?)) })
        })
    }

    /// Understands and answers a message, as it comes.
    fn stream(&self, py: Python<'_>, request: &[u8]) -> PyResult<Stream> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| engine.stream(Request::from_json(utf8("request", request)?)?).map(Stream::new))
    }

    /// Continues chat turns.
    fn generate(&self, py: Python<'_>, request: &[u8]) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            let reply = engine.generate(Generate::from_json(utf8("request", request)?)?);
            Pending::begun(async move { Ok(Value::Text(json(&reply.await?)?)) })
        })
    }

    /// Continues chat turns, as they come.
    fn generate_stream(&self, py: Python<'_>, request: &[u8]) -> PyResult<Stream> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            engine.generate_stream(Generate::from_json(utf8("request", request)?)?).map(Stream::new)
        })
    }

    /// A conversation that remembers its turns.
    fn conversation(&self, py: Python<'_>, options: &[u8]) -> PyResult<Conversation> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            let options = ConversationConfig::from_json(utf8("conversation", options)?)?;
            engine.conversation(options).map(Conversation::new)
        })
    }

    /// The models, as JSON.
    fn models(&self, py: Python<'_>) -> PyResult<String> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| json(&engine.models()))
    }

    /// How the engine is, as JSON.
    fn health(&self, py: Python<'_>) -> PyResult<String> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| json(&engine.health()))
    }

    /// Tests every part; as JSON.
    fn diagnose(&self, py: Python<'_>) -> PyResult<String> {
        let _visit = Visit::new(py);
        self.ask_at_length(py, true, |engine| json(&engine.diagnose()))
    }

    /// What the engine counted, as the text that Prometheus reads.
    fn metrics(&self, py: Python<'_>) -> PyResult<String> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| Ok(engine.metrics_text()))
    }

    /// Whether it takes requests.
    fn ready(&self) -> bool {
        self.engine.as_ref().is_some_and(antiphon::Engine::ready)
    }

    /// What the response cache holds and how it has served, as JSON.
    fn cache_stats(&self, py: Python<'_>) -> PyResult<String> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| json(&engine.cache().stats()))
    }

    /// Forgets the answers of a tenant; of all without one.
    #[pyo3(signature = (tenant=None))]
    fn cache_clear(&self, py: Python<'_>, tenant: Option<&str>) -> PyResult<()> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            engine.cache().clear(tenant);
            Ok(())
        })
    }

    /// Sets the bound on the bytes of the response cache.
    fn cache_resize(&self, py: Python<'_>, max_bytes: u64) -> PyResult<()> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            engine.cache().resize(max_bytes);
            Ok(())
        })
    }

    /// Answers a request ahead of its time.
    fn cache_warm(&self, py: Python<'_>, request: &[u8]) -> PyResult<Pending> {
        let _visit = Visit::new(py);
        self.ask(py, |engine| {
            let warm = engine.cache().warm(Request::from_json(utf8("request", request)?)?);
            Pending::begun(async move { warm.await.map(|()| Value::Nothing) })
        })
    }

    /// Takes no new requests, waits until those under way have ended, at most so long, then closes.
    fn drain(&self, py: Python<'_>, timeout_ms: u64) -> PyResult<()> {
        let _visit = Visit::new(py);
        let plugins = Arc::clone(&self.plugins);
        self.ask_at_length(py, true, move |engine| {
            let drained = engine.drain(Duration::from_millis(timeout_ms));
            plugins.close();
            drained
        })
    }

    /// Ends everything.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let _visit = Visit::new(py);
        let closed = self.ask(py, antiphon::Engine::close);
        self.plugins.close();
        closed
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.plugins.traverse(visit)
    }

    fn __clear__(&self) {
        self.plugins.forget();
    }
}

impl Engine {
    /// Asks the engine, outside of the interpreter.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&antiphon::Engine) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        asking(py, || {
            // Not all that is asked looks: what takes locks but asks for nothing does not.
            check_process(self.pid)?;
            let closed = || Error::new(ErrorKind::Closed, "the engine is closed");
            work(self.engine.as_ref().ok_or_else(closed)?)
        })
    }

    /// The same, on a thread of its own where that takes long: Ctrl-C ends the wait for it.
    fn ask_at_length<T: Send + 'static>(
        &self,
        py: Python<'_>,
        takes_long: bool,
        work: impl FnOnce(&antiphon::Engine) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        if !takes_long {
            return self.ask(py, work);
        }
        let engine = self.ask(py, |engine| Ok(engine.clone()))?;
        aside(py, move || work(&engine))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.plugins.close();
        let_go(self.engine.take());
    }
}

/// Text that Python has encoded.
pub(crate) fn utf8<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|error| {
        let what = format!("{what} is not UTF-8 from byte {} on", error.valid_up_to());
        Error::new(ErrorKind::InvalidText, what)
    })
}

/// More texts than are cut into tokens in a moment.
const MANY: usize = 256;
