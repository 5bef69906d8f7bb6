//! The counters through which threads of a run meet, and waiting: the standard library's, or loom's, which tries every order.

#[cfg(antiphon_loom)]
pub(crate) use loom::{sync::atomic::AtomicU64, thread::yield_now};
#[cfg(not(antiphon_loom))]
pub(crate) use std::{sync::atomic::AtomicU64, thread::yield_now};
