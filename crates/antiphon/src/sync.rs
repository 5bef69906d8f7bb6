//! The locks of those parts where threads meet: the standard library's, or loom's, which tries every order
//! (`cargo xtask test interleavings`).

#[cfg(antiphon_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(antiphon_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
