//! The requests of one priority: first come, first served for each tenant, and the tenants take turns.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// A request in line.
pub(super) struct Waiting<Job> {
    pub(super) job: Job,
    pub(super) tokens: usize,
    pub(super) bytes: usize,
    pub(super) since: Instant,
}

/// A line for each tenant, and whose turn it is.
pub(super) struct Line<Job> {
    /// Tenants that have something in line, the next one first.
    turns: VecDeque<Box<str>>,
    tenants: HashMap<Box<str>, VecDeque<Waiting<Job>>>,
    len: usize,
}

impl<Job> Default for Line<Job> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), tenants: HashMap::new(), len: 0 }
    }
}

impl<Job> Line<Job> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, tenant: Box<str>, waiting: Waiting<Job>) {
        self.len += 1;
        if let Some(line) = self.tenants.get_mut(&tenant) {
            return line.push_back(waiting);
        }
        self.turns.push_back(tenant.clone());
        self.tenants.insert(tenant, VecDeque::from([waiting]));
    }

    /// Since when the next one has waited.
    pub(super) fn next_since(&self) -> Option<Instant> {
        self.tenants[self.turns.front()?].front().map(|waiting| waiting.since)
    }

    /// Takes the next one; its tenant goes to the end of the turns.
    pub(super) fn pop(&mut self) -> Option<Waiting<Job>> {
        let tenant = self.turns.pop_front()?;
        let line = self.tenants.get_mut(&tenant)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        self.len -= 1;
        next
    }

    /// Since when the longest waiting one has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.tenants.values().filter_map(VecDeque::front).map(|waiting| waiting.since).min()
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.tenants.values().flatten().map(|waiting| &waiting.job)
    }

    /// Makes all of it so much older.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: std::time::Duration) {
        self.tenants.values_mut().flatten().for_each(|waiting| waiting.since -= by);
    }

    /// Takes those that fit, with their tenants.
    pub(super) fn remove(&mut self, fits: impl Fn(&Job) -> bool) -> Vec<(Box<str>, Waiting<Job>)> {
        let mut removed = Vec::new();
        for (tenant, line) in &mut self.tenants {
            for _ in 0..line.len() {
                let waiting = line.pop_front().expect("as many as counted");
                if fits(&waiting.job) {
                    removed.push((tenant.clone(), waiting));
                } else {
                    line.push_back(waiting);
                }
            }
        }
        self.len -= removed.len();
        self.tenants.retain(|_, line| !line.is_empty());
        self.turns.retain(|tenant| self.tenants.contains_key(tenant));
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(entries: &[(&str, u32)]) -> Line<u32> {
        let mut line = Line::default();
        for &(tenant, job) in entries {
            line.push(tenant.into(), Waiting { job, tokens: 1, bytes: 1, since: Instant::now() });
        }
        line
    }

    fn drain(mut line: Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.pop()).map(|waiting| waiting.job).collect()
    }

    #[test]
    fn tenants_take_turns() {
        let line = line(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)]);
        assert_eq!(drain(line), [1, 4, 5, 2, 6, 3]);
    }

    #[test]
    fn removing_keeps_the_order_and_forgets_empty_tenants() {
        let mut line = line(&[("a", 1), ("b", 2), ("a", 3), ("a", 4)]);
        let removed = line.remove(|&job| job == 2 || job == 3);
        assert_eq!(removed.len(), 2);
        assert_eq!((line.len(), line.turns.len()), (2, 1));
        assert_eq!(drain(line), [1, 4]);
    }
}
