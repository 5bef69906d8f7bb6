//! The C interface. `include/antiphon.h` is made from these files by `tests/it/header.rs`.
//!
//! An export does three things: it looks at what it was given, calls the core, and hands out what came of it. Whatever happens
//! inside, no panic leaves it: see `guard`.

#![allow(non_camel_case_types, reason = "the names that C sees")]
#![allow(unsafe_code, reason = "pointers of foreign code; every use states what the header asks for")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the header says for each function what its pointers have to be"
)]
#![allow(unreachable_pub, reason = "exports are reached from C")]

mod answer;
mod callbacks;
mod conversation;
mod engine;
mod error;
mod event;
mod guard;
mod handle;
mod plugins;
mod probe;
mod request;
mod stream;
mod text;

#[cfg(panic = "abort")]
compile_error!("the C library needs panic = \"unwind\"");
