//! What a host can put into an engine.
//!
//! A plugin is foreign code on an engine's way: one that fails, blocks or panics costs what its trait says, never the host.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use antiphon::plugin::{PluginError, Plugins, SharedTier};
//! use antiphon::{Engine, EngineConfig, Request};
//!
//! /// A tier in this process; a real one would talk to a server.
//! #[derive(Default)]
//! struct Shelf(Mutex<HashMap<Vec<u8>, Vec<u8>>>);
//!
//! impl SharedTier for Shelf {
//!     fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PluginError> {
//!         Ok(self.0.lock().unwrap().get(key).cloned())
//!     }
//!     fn put(&self, key: &[u8], value: &[u8], _ttl: Duration) -> Result<(), PluginError> {
//!         self.0.lock().unwrap().insert(key.into(), value.into());
//!         Ok(())
//!     }
//!     fn remove(&self, key: &[u8]) -> Result<(), PluginError> {
//!         self.0.lock().unwrap().remove(key);
//!         Ok(())
//!     }
//! }
//!
//! let plugins = Plugins::new().shared_tier(Arc::new(Shelf::default()));
//! let engine = Engine::open_with(EngineConfig::default(), plugins)?;
//! engine.process_blocking(Request::new("Hello").max_tokens(8))?;
//! # Ok::<(), antiphon::Error>(())
//! ```

pub(crate) mod desk;
pub(crate) mod stages;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::reply::Reply;
use crate::request::{Generate, Request};

/// What a host puts into an engine when it opens it with [`Engine::open_with`](crate::Engine::open_with).
#[derive(Clone, Default)]
pub struct Plugins {
    pub(crate) shared_tier: Option<Arc<dyn SharedTier>>,
    pub(crate) generators: Vec<Arc<dyn Generator>>,
    pub(crate) stages: Vec<Arc<dyn Stage>>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

impl Plugins {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A cache tier that engines share. It goes before the one that `cache.shared_tier` names.
    pub fn shared_tier(mut self, tier: Arc<dyn SharedTier>) -> Self {
        self.shared_tier = Some(tier);
        self
    }

    /// A model of the host's own, by its name for `options.model`; the first one answers where `responder` is null.
    pub fn add_generator(mut self, generator: Arc<dyn Generator>) -> Self {
        self.generators.push(generator);
        self
    }

    /// Someone who looks at requests and answers. Requests meet stages in the order in which they were added, answers in
    /// the opposite one.
    pub fn add_stage(mut self, stage: Arc<dyn Stage>) -> Self {
        self.stages.push(stage);
        self
    }

    /// Someone who is told what happens; any number of them.
    pub fn add_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }
}

/// A cache tier that engines share: a store of bytes by key, in another process or machine.
///
/// The engine asks it for an answer that its own cache does not have, and gives it every answer that it keeps. It trusts
/// nothing that comes back: a value carries its whole key and a checksum, and what does not fit is a miss.
///
/// # Threads
/// Called from a few threads of the engine, never from the caller's and never from the one that computes. A request waits
/// for `get` at most 20 ms, then it is computed; a failure, a panic or a call that took longer counts against the tier, and
/// after `breaker.failure_threshold` of them in a row it is left alone for a second, or for `breaker.reset_after_ms` if that
/// is less. A call that never returns costs its thread.
pub trait SharedTier: Send + Sync {
    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// Whatever went wrong; the request goes on without it.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PluginError>;

    /// Keeps a value for about `ttl`, in place of an older one.
    ///
    /// # Errors
    /// Whatever went wrong; the value is not kept.
    fn put(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), PluginError>;

    /// Forgets a key; one that is not there is no error.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn remove(&self, key: &[u8]) -> Result<(), PluginError>;
}

/// A model of the host's own: one behind a network, for instance. The engine analyses, queues, caches and streams around it.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::sync::Arc;
///
/// use antiphon::plugin::{Generator, PluginError, Plugins};
/// use antiphon::{Engine, EngineConfig, Generate, Request};
///
/// struct Parrot;
///
/// impl Generator for Parrot {
///     fn name(&self) -> &str {
///         "parrot"
///     }
///     fn generate(
///         &self,
///         request: &Generate,
///         write: &mut dyn FnMut(&str) -> ControlFlow<()>,
///     ) -> Result<(), PluginError> {
///         for word in request.messages.last().map_or("", |turn| &turn.content).split_inclusive(' ') {
///             if write(word).is_break() {
///                 break;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let plugins = Plugins::new().add_generator(Arc::new(Parrot));
/// let engine = Engine::open_with(EngineConfig::default(), plugins)?;
/// let reply = engine.process_blocking(Request::new("Where is my parcel?").model("parrot"))?;
/// assert_eq!(reply.response, "Where is my parcel?");
/// # Ok::<(), antiphon::Error>(())
/// ```
///
/// # Threads
/// Called from threads of the engine, as many at once as `batcher.max_concurrent`. It may block: deadlines and cancels end
/// the request without it, and it learns of them by `Break` from its next `write`. A call that never returns costs its
/// thread.
///
/// # When it fails
/// A failure or a panic before the first piece is answered from the cache (up to `cache.stale_seconds` past its time), else
/// by a template from the analysis, else with [`BackendUnavailable`](crate::ErrorKind::BackendUnavailable); one after it ends
/// the stream with [`PluginFailed`](crate::ErrorKind::PluginFailed). After `breaker.failure_threshold` failures in a row
/// (nothing before a deadline of a second or more is one, too) it is not called for `breaker.reset_after_ms`.
pub trait Generator: Send + Sync {
    /// What `options.model` calls it: of a-z, 0-9, '.', '_', '-', at most 64, beginning with a letter or digit. Cached answers
    /// belong to the name: one that answers in another way than before should have another (`clerk-2`).
    fn name(&self) -> &str;

    /// Writes the answer to the last turn, in pieces as they come. Of the options those that shape text are its to heed;
    /// stop texts, the deadline and the cache are looked after.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn generate(
        &self,
        request: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError>;
}

/// Someone who looks at every request before it is answered, and at every answer before it is told: moderation, redaction,
/// enrichment. Analyses, embeddings and extracts are no answers.
///
/// ```
/// use std::sync::Arc;
///
/// use antiphon::plugin::{PluginError, Plugins, Stage};
/// use antiphon::{Engine, EngineConfig, Reply, Request};
///
/// struct Discreet;
///
/// impl Stage for Discreet {
///     fn before(&self, request: &mut Request) -> Result<(), PluginError> {
///         if request.message.contains("lawyer") {
///             return Err(PluginError::new("a matter for people"));
///         }
///         Ok(())
///     }
///     fn after(&self, reply: &Reply) -> Result<Option<String>, PluginError> {
///         Ok((reply.intent == "goodbye").then(|| "Thank you, and goodbye!".to_owned()))
///     }
/// }
///
/// let plugins = Plugins::new().add_stage(Arc::new(Discreet));
/// let engine = Engine::open_with(EngineConfig::default(), plugins)?;
/// assert_eq!(engine.process_blocking(Request::new("Bye, have a nice day!"))?.response, "Thank you, and goodbye!");
/// assert!(engine.process_blocking(Request::new("My lawyer will write to you.")).is_err());
/// # Ok::<(), antiphon::Error>(())
/// ```
///
/// # The cache
/// An answer is looked for by the request as the stages left it, and kept as they left it; one that is found is not looked at
/// again. Answers are then not shared between users, nor between conversations. Engines that share a tier have equal stages.
///
/// # When it fails
/// It is on the safe side: a failure or a panic of either function ends the request with
/// [`PluginFailed`](crate::ErrorKind::PluginFailed), and nothing of the answer is told.
pub trait Stage: Send + Sync {
    /// Looks at a request, and may change it: its message, its turns, its context, its options. Of a request to
    /// [`generate`](crate::Engine::generate) the message is the last turn or the prompt, and the history the turns before it.
    ///
    /// Called on the thread that asks, before the call returns; its time counts against the request's deadline.
    ///
    /// # Errors
    /// Why the request is refused; the words go to observers.
    fn before(&self, request: &mut Request) -> Result<(), PluginError> {
        let _ = request;
        Ok(())
    }

    /// Whether [`Stage::after`] is called. Answers are then held back: they come as one piece, or in their own pieces at once,
    /// when all stages have seen them. A stage that looks at requests alone says false, and answers come as they are written.
    fn holds_back(&self) -> bool {
        true
    }

    /// Looks at an answer, and may put another text in its place. One that was cut short is not told at all.
    ///
    /// Called on threads of the engine, as many at once as `batcher.max_concurrent`. It may block, but must not ask the engine
    /// for an answer, which would wait for this one's place: deadlines and cancels end the request without it. A call that
    /// never returns costs its thread.
    ///
    /// # Errors
    /// Why the answer must not be told; the words go to observers.
    fn after(&self, reply: &Reply) -> Result<Option<String>, PluginError> {
        let _ = reply;
        Ok(None)
    }
}

/// Someone who is told what happens in an engine. No text of a user is in what is told.
///
/// # Threads
/// Called from the thread on which it happens, the computing one too: an observer must not block, and not call the engine.
/// One that panics is not called again.
pub trait Observer: Send + Sync {
    /// A line for a log.
    fn log(&self, level: Level, target: &str, message: &str) {
        let _ = (level, target, message);
    }

    /// Something that happened, with its numbers. `request`: one has ended; `breaker`: a backend was given up or came back.
    fn event(&self, name: &str, fields: &Value) {
        let _ = (name, fields);
    }
}

/// How much a line of a log matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(i32)]
pub enum Level {
    /// Somebody should look.
    Error = 1,
    /// It works, but not as it should.
    Warn = 2,
    /// Good to know.
    Info = 3,
    /// For whoever looks for something.
    Debug = 4,
}

/// What went wrong in a plugin, in its own words. The words go to observers, never into a reply.
#[derive(Debug)]
pub struct PluginError(String);

impl PluginError {
    /// What went wrong, without a user's text or a secret.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for PluginError {}

/// Code that writes more than this has lost its way.
pub(crate) const MOST_BYTES: usize = 1 << 20;
