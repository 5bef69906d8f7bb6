//! Threads that are still under way, although the run they belong to is over.
//!
//! A thread that the host has taken a core from holds nobody up: others compute its piece again, the run ends without it, and
//! its result counts for nothing ([`crate::executor`]). All it touches by then is what is its own, and weights. So weights are
//! not freed while such a thread is under way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads of all pools of the process that are under way so.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A thread is about to be left to itself. Before the run ends, so before anybody can free a matrix of it.
pub(crate) fn begin() {
    UNDER_WAY.fetch_add(1, Ordering::AcqRel);
}

/// It was not left, or it is done.
pub(crate) fn end() {
    UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
}

/// Waits until nobody is under way. False if somebody still is after a second: a thread that does not exist in this copy of the
/// process, or one that gets no core. After that nobody waits again until it is done.
pub(crate) fn all_done() -> bool {
    let since = Instant::now();
    while UNDER_WAY.load(Ordering::Acquire) != 0 {
        if HOPELESS.load(Ordering::Relaxed) || since.elapsed() > Duration::from_secs(1) {
            HOPELESS.store(true, Ordering::Relaxed);
            return false;
        }
        std::thread::yield_now();
    }
    HOPELESS.store(false, Ordering::Relaxed);
    true
}

/// Somebody waited in vain.
static HOPELESS: AtomicBool = AtomicBool::new(false);
