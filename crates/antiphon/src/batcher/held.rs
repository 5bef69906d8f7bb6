//! Requests that are not in line yet: word from elsewhere may answer them, and they wait for it for a moment at most.

use std::collections::BTreeMap;
use std::time::Instant;

use super::line::Waiting;
use crate::options::Priority;

/// A request that waits for word.
pub(super) struct Held<Job> {
    pub(super) tenant: Box<str>,
    pub(super) priority: Priority,
    pub(super) waiting: Waiting<Job>,
    /// Then it gets in line without.
    pub(super) until: Instant,
}

/// Those requests by number.
pub(super) struct Lobby<Job> {
    held: BTreeMap<u64, Held<Job>>,
    next: u64,
}

impl<Job> Default for Lobby<Job> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), next: 0 }
    }
}

impl<Job> Lobby<Job> {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Its number.
    pub(super) fn push(&mut self, held: Held<Job>) -> u64 {
        self.next += 1;
        self.held.insert(self.next, held);
        self.next
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Held<Job>> {
        self.held.remove(&number)
    }

    /// Lets none wait longer than until then.
    #[cfg(test)]
    pub(super) fn hurry(&mut self, until: Instant) {
        self.held.values_mut().for_each(|held| held.until = until);
    }

    /// When the first one stops waiting for word.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.held.values().map(|held| held.until).min()
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.held.values().map(|held| &held.waiting.job)
    }

    /// Takes those that fit.
    pub(super) fn remove(&mut self, fits: impl Fn(&Held<Job>) -> bool) -> Vec<Held<Job>> {
        self.held.extract_if(.., |_, held| fits(held)).map(|(_, held)| held).collect()
    }

    /// Those that fit get a higher priority when they get in line.
    pub(super) fn raise(&mut self, fits: impl Fn(&Job) -> bool, priority: Priority) {
        for held in self.held.values_mut().filter(|held| fits(&held.waiting.job)) {
            held.priority = held.priority.max(priority);
        }
    }
}
