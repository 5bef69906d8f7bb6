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

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::request::Generate;

/// What a host puts into an engine when it opens it with [`Engine::open_with`](crate::Engine::open_with).
#[derive(Clone, Default)]
pub struct Plugins {
    pub(crate) shared_tier: Option<Arc<dyn SharedTier>>,
    pub(crate) generators: Vec<Arc<dyn Generator>>,
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
