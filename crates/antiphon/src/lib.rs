//! Conversational AI as an embedded library: what SQLite is to databases.
//!
//! A host hands an [`Engine`] a message and gets back what it means (intent, sentiment, entities) and an answer, token by
//! token, computed in this process by models that are part of the library. There is no server, no runtime, no network.
//!
//! ```
//! use antiphon::{Engine, EngineConfig, Event, Request};
//!
//! let engine = Engine::open(EngineConfig::default())?;
//! let analysis = engine.analyze_blocking("Where is order 4711?")?;
//! assert_eq!(analysis.entities[0].value, "4711");
//!
//! for event in engine.stream(Request::new("Hello, I need help with my account").max_tokens(32))? {
//!     match event? {
//!         Event::Analysis(analysis) => assert_eq!(analysis.intent.label, "help_request"),
//!         Event::Chunk { content, .. } => assert!(!content.is_empty()),
//!         Event::Done(reply) => assert_eq!(reply.sentiment, "neutral"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), antiphon::Error>(())
//! ```
//!
//! The folders are the words of one message's way: [`cache`](CacheStats) → `batcher` → `analyst` → `responder` → reply.

mod analyst;
mod batcher;
mod breaker;
mod cache;
mod compute;
mod config;
mod conversation;
mod engine;
mod error;
pub mod evaluation;
mod flight;
mod handle;
#[cfg(all(test, antiphon_loom))]
mod interleavings;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod job;
mod json;
mod memory;
mod observe;
mod options;
mod passes;
pub mod plugin;
mod registry;
mod reply;
mod request;
mod responder;
mod review;
mod shared;
mod stream;
mod summary;
mod sync;
mod ticket;

pub use breaker::BreakerState;
pub use cache::{CacheStats, ResponseCache};
pub use config::{BatcherConfig, BreakerConfig, CacheConfig, EngineConfig, ModelSource, QuotaConfig, Secret};
pub use conversation::{Conversation, ConversationConfig};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use observe::{Check, CheckResult, Configuration, Diagnosis, Health, HealthStatus};
pub use options::{CacheMode, Overflow, Priority, RequestOptions};
pub use registry::{ModelInfo, ModelStatus};
pub use reply::{
    Analysis, CacheOutcome, Degraded, Entity, Event, FinishReason, Generation, Intent, Metadata,
    NlpProcessing, Ranked, Reply, Repro, Sentiment, Timings, TokenLogprob, Usage,
};
pub use request::{Generate, Message, Request, Role};
pub use stream::{Canceller, Events, ReplyFuture, ReplyStream};
pub use summary::{SummaryMethod, SummaryOptions};
pub use ticket::Ticket;

/// The version of this library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
