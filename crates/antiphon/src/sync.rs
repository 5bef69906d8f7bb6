//! What threads meet with, in those parts where they do: the standard library's, or loom's, which tries every order
//! (`cargo xtask test interleavings`).

#[cfg(antiphon_loom)]
pub(crate) use loom::sync::atomic::{AtomicUsize, fence};
#[cfg(antiphon_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(antiphon_loom)]
use loom::thread;
#[cfg(not(antiphon_loom))]
pub(crate) use std::sync::atomic::{AtomicUsize, fence};
#[cfg(not(antiphon_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(antiphon_loom))]
use std::thread;

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

/// Wakes the thread that made it from [`park`].
pub(crate) fn thread_waker() -> Waker {
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Blocks until this thread is woken, or for so long; maybe shorter. In a model no time ever passes.
pub(crate) fn park(longest: Duration) {
    #[cfg(not(antiphon_loom))]
    thread::park_timeout(longest);
    #[cfg(antiphon_loom)]
    {
        let _ = longest;
        thread::park();
    }
}
