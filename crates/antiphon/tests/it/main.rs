//! Integration tests of the engine with the bundled models, one module per subject.

#![cfg(feature = "bundled")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod analysis;
mod cancel;
mod cards;
mod config;
mod control;
mod conversation;
mod deadline;
mod equality;
mod evaluation;
mod faults;
mod fork;
mod generate;
mod load;
mod metrics;
mod process;
mod reference;
mod serving;
mod sharing;
mod stream;
mod summary;

use std::sync::OnceLock;

use antiphon::{Engine, EngineConfig};

/// One engine for the tests that need no setting of their own.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| open(EngineConfig::default()))
}

fn open(config: EngineConfig) -> Engine {
    Engine::open(config).expect("the bundled models load")
}
