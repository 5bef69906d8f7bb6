//! A value that comes later: a future for those who have a runtime, a blocking wait for those who have not.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result, check_process};
use crate::observe::Meter;

/// The receiving side. Dropping it tells the compute thread that nobody waits.
#[must_use = "dropping a ticket cancels its work"]
pub struct Ticket<T> {
    shared: Arc<Shared<T>>,
    meter: Option<Meter>,
}

/// The sending side. Dropping it unanswered gives the error `closed`.
pub(crate) struct Answer<T>(Arc<Shared<T>>);

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
    abandoned: AtomicBool,
}

struct Slot<T> {
    value: Option<Result<T>>,
    waker: Option<Waker>,
    /// The process that waits here: after `fork` nobody will answer.
    pid: u32,
}

/// Both sides.
pub(crate) fn ticket<T>() -> (Ticket<T>, Answer<T>) {
    let slot = Mutex::new(Slot { value: None, waker: None, pid: std::process::id() });
    let shared = Arc::new(Shared { slot, filled: Condvar::new(), abandoned: AtomicBool::new(false) });
    (Ticket { shared: Arc::clone(&shared), meter: None }, Answer(shared))
}

impl<T> Ticket<T> {
    /// A ticket that has its answer.
    pub(crate) fn ready(value: Result<T>) -> Self {
        let (ticket, answer) = ticket();
        answer.send(value);
        ticket
    }

    /// The same, counted when it ends.
    pub(crate) fn metered(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Waits for the value on this thread.
    ///
    /// # Errors
    /// Whatever the work ended with.
    pub fn wait(mut self) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let mut slot = shared.lock();
        loop {
            if let Some(value) = slot.value.take() {
                return self.counted(value);
            }
            check_process(slot.pid)?;
            slot = shared.filled.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn counted(&mut self, value: Result<T>) -> Result<T> {
        if let Some(meter) = &mut self.meter {
            match &value {
                Ok(_) => meter.succeed(),
                Err(error) => meter.fail(error),
            }
        }
        value
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = Arc::clone(&self.shared);
        let mut slot = shared.lock();
        match slot.value.take() {
            Some(value) => Poll::Ready(self.counted(value)),
            None => {
                if let Err(error) = check_process(slot.pid) {
                    return Poll::Ready(Err(error));
                }
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
    }
}

impl<T> Answer<T> {
    pub(crate) fn send(self, value: Result<T>) {
        self.0.fill(value);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.abandoned.load(Ordering::Acquire)
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.0.fill(Err(Error::closed()));
    }
}

impl<T> Shared<T> {
    /// The first value counts.
    fn fill(&self, value: Result<T>) {
        let waker = {
            let mut slot = self.lock();
            if slot.value.is_some() {
                return;
            }
            slot.value = Some(value);
            slot.waker.take()
        };
        self.filled.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
