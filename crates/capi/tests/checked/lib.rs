//! The library, with checks that a release leaves out: the same sources, but for `probe`.
#![allow(non_camel_case_types, reason = "the names that C sees")]
#![allow(unsafe_code, reason = "pointers of foreign code; every use states what the header asks for")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the header says for each function what its pointers have to be"
)]
#![allow(unreachable_pub, reason = "exports are reached from C")]

#[path = "../../src/answer.rs"]
mod answer;
#[path = "../../src/callbacks.rs"]
mod callbacks;
#[path = "../../src/conversation.rs"]
mod conversation;
#[path = "../../src/engine.rs"]
mod engine;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/event.rs"]
mod event;
#[path = "../../src/guard.rs"]
mod guard;
#[path = "../../src/handle.rs"]
mod handle;
#[path = "../../src/plugins.rs"]
mod plugins;
mod probe;
#[path = "../../src/request.rs"]
mod request;
#[path = "../../src/stream.rs"]
mod stream;
#[path = "../../src/text.rs"]
mod text;
