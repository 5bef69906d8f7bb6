//! What threads of the engine have to tell, in a line at whose other end a thread of Python's waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A line. Its lock is held for moments and never by one who waits for the interpreter, so anybody may take it.
pub(crate) struct Line<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
}

struct State<T> {
    entries: VecDeque<T>,
    /// Threads that wait for an entry.
    idle: usize,
    closed: bool,
}

impl<T> Line<T> {
    /// A line of so many entries at most.
    pub(crate) const fn new(most: usize) -> Self {
        let state = State { entries: VecDeque::new(), idle: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), most }
    }

    /// Adds an entry; false where the line is closed or full.
    pub(crate) fn push(&self, entry: T) -> bool {
        let mut state = self.lock();
        if state.closed || state.entries.len() >= self.most {
            return false;
        }
        state.entries.push_back(entry);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Waits until there is an entry; false when none will come any more.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.lock();
        state.idle += 1;
        while state.entries.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        !state.entries.is_empty()
    }

    /// The first entry, and whether nobody is left to take the next one.
    pub(crate) fn first(&self) -> Option<(T, bool)> {
        let mut state = self.lock();
        let entry = state.entries.pop_front()?;
        Some((entry, state.idle <= state.entries.len()))
    }

    /// All entries there are.
    pub(crate) fn all(&self) -> VecDeque<T> {
        std::mem::take(&mut self.lock().entries)
    }

    /// Ends the line, once its entries are taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
