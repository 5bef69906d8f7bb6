//! The stages of an engine: each looks at requests before they are answered, and at answers before they are told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::desk::Task;
use super::{Level, MOST_BYTES, PluginError, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Observers;
use crate::reply::Reply;
use crate::request::{Generate, Limits, Message, Request};

/// The stages of an engine.
#[derive(Clone)]
pub(crate) struct Stages {
    stages: Arc<[Arc<dyn Stage>]>,
    /// One of them wants to see answers.
    holds_back: bool,
    observers: Arc<Observers>,
}

/// An answer in the hands of the stages.
pub(crate) struct Review {
    stages: Stages,
    reply: Reply,
    verdict: Mutex<Option<Verdict>>,
}

/// What may be told: the answer as it is, or another text.
pub(crate) type Verdict = Result<Option<String>>;

impl Stages {
    pub(crate) fn new(stages: Vec<Arc<dyn Stage>>, observers: Arc<Observers>) -> Self {
        let holds_back = stages.iter().any(|stage| stage.holds_back());
        Self { stages: stages.into(), holds_back, observers }
    }

    pub(crate) fn len(&self) -> usize {
        self.stages.len()
    }

    pub(crate) fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// The request as the stages leave it, in the order in which they were added.
    pub(crate) fn before(&self, mut request: Request, limits: &Limits) -> Result<Request> {
        for stage in self.stages.iter() {
            self.guard("refused the request, or failed", || stage.before(&mut request))?;
            request.validate(limits).map_err(|error| error.context("after a stage"))?;
        }
        Ok(request)
    }

    /// The same for chat turns or a prompt, which stages see as a request.
    pub(crate) fn before_generate(&self, generate: Generate, limits: &Limits) -> Result<Generate> {
        if self.stages.is_empty() {
            return Ok(generate);
        }
        let Generate { mut messages, prompt, tenant_id, user_id, conversation_id, options } = generate;
        let last = messages.pop();
        let message = prompt.as_deref().or(last.as_ref().map(|last| last.content.as_str()));
        let mut request = Request::new(message.unwrap_or_default()).history(messages).options(options);
        (request.tenant_id, request.user_id, request.conversation_id) = (tenant_id, user_id, conversation_id);
        let seen = self.before(request, limits)?;

        let (message, mut messages) = (seen.message.clone(), seen.history.clone());
        messages.extend(last.map(|last| Message::new(last.role, message.as_str())));
        let mut generate = Generate::of(seen, messages);
        generate.prompt = prompt.map(|_| message);
        Ok(generate)
    }

    /// What may be told of an answer, in the opposite order.
    fn after(&self, mut reply: Reply) -> Verdict {
        let mut replaced = false;
        for stage in self.stages.iter().rev().filter(|stage| stage.holds_back()) {
            let text = self.guard("kept the answer back, or failed", || stage.after(&reply))?;
            if text.as_ref().is_some_and(|text| text.len() > MOST_BYTES) {
                return Err(self.failed("wrote too much", &format!("more than {MOST_BYTES} bytes")));
            }
            replaced |= text.is_some();
            reply.response = text.unwrap_or(reply.response);
        }
        Ok(replaced.then_some(reply.response))
    }

    /// Calls a stage. Its own words go to observers: they might quote the request.
    fn guard<T>(&self, what: &str, call: impl FnOnce() -> Result<T, PluginError>) -> Result<T> {
        let outcome = catch_unwind(AssertUnwindSafe(call));
        outcome
            .unwrap_or_else(|_| Err(PluginError::new("it panicked")))
            .map_err(|error| self.failed(what, &error.to_string()))
    }

    fn failed(&self, what: &str, why: &str) -> Error {
        self.observers.log(Level::Warn, "antiphon::stage", &format!("a stage {what}: {why}"));
        Error::new(ErrorKind::PluginFailed, format!("a stage {what}"))
    }
}

impl Review {
    pub(crate) fn new(stages: &Stages, reply: Reply) -> Arc<Self> {
        Arc::new(Self { stages: stages.clone(), reply, verdict: Mutex::default() })
    }

    /// What the stages said, once, if they have.
    pub(crate) fn take(&self) -> Option<Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Task for Review {
    fn run(&self, news: &dyn Fn()) {
        let verdict = self.stages.after(self.reply.clone());
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        news();
    }
}
