//! Integration tests of the engine with the bundled models, one module per subject.

#![cfg(feature = "bundled")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod analysis;
mod axum;
mod batch;
mod cancel;
mod cards;
mod config;
mod conformance;
mod control;
mod conversation;
mod deadline;
mod equality;
mod evaluation;
mod faults;
mod fork;
mod generate;
mod generator;
mod load;
mod metrics;
mod observe;
mod process;
#[cfg(feature = "redis")]
mod redis;
mod reference;
mod serving;
mod sharing;
mod stages;
mod stream;
mod summary;
mod support;
mod tier;

use std::path::Path;
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

/// The files of the bundled responder, to be altered: without its manifest, which would notice.
fn responder_files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/responder");
    for file in
        std::fs::read_dir(bundled).unwrap().flatten().filter(|file| file.file_name() != "antiphon.json")
    {
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}
