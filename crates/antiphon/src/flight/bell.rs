//! Who waits for a log to grow, and is woken without a lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;

/// A subscriber's waker. One at a time waits with it.
#[derive(Default)]
pub(super) struct Bell {
    waker: AtomicWaker,
    /// It waits for the end alone.
    is_patient: AtomicBool,
}

impl Bell {
    /// Wakes this one from now on, in place of another. Whoever waits looks again after this, with a fence between.
    pub(super) fn hang(&self, waker: &Waker, is_patient: bool) {
        self.is_patient.store(is_patient, Ordering::Relaxed);
        self.waker.register(waker);
    }

    /// Wakes whoever waits, if that is what it waits for.
    pub(super) fn ring(&self, has_ended: bool) {
        if has_ended || !self.is_patient.load(Ordering::Relaxed) {
            self.waker.wake();
        }
    }

    /// Nobody is woken any more.
    pub(super) fn take(&self) -> Option<Waker> {
        self.waker.take()
    }
}
