//! A list that only grows. Whoever appends waits for no reader, and no reader for anyone.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use crate::sync::AtomicUsize;

/// Items stay where they are written: they lie in runs, of which each has room for as many as all before it.
pub(super) struct List<T> {
    runs: [OnceLock<Box<[OnceLock<T>]>>; RUNS],
    first_room: usize,
    /// Items that are written; there is no gap before the last of them.
    len: AtomicUsize,
}

impl<T> List<T> {
    /// A list whose first run has room for so many items, once there is one.
    ///
    /// # Panics
    /// If that is none.
    pub(super) fn new(first_room: usize) -> Self {
        assert!(first_room > 0, "room for an item");
        Self { runs: [const { OnceLock::new() }; RUNS], first_room, len: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// An item, if it is written.
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        let (run, before) = self.run_of(at);
        self.runs[run].get()?[at - before].get()
    }

    /// The first `count` items, as far as they are written.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = &T> {
        (0..count).map_while(|at| self.get(at))
    }

    /// Writes an item behind all others, unless that which it would stand behind is the last one. When several write, each
    /// takes the first place that is free.
    pub(super) fn push_unless(&self, mut item: T, is_last: impl Fn(&T) -> bool) {
        let mut at = self.len();
        while !at.checked_sub(1).and_then(|before| self.get(before)).is_some_and(&is_last) {
            match self.place(at).set(item) {
                Ok(()) => {
                    self.len.fetch_max(at + 1, Ordering::AcqRel);
                    return;
                }
                Err(back) => (item, at) = (back, at + 1),
            }
        }
    }

    pub(super) fn push(&self, item: T) {
        self.push_unless(item, |_| false);
    }

    /// Where an item goes.
    fn place(&self, at: usize) -> &OnceLock<T> {
        let (run, before) = self.run_of(at);
        let room = before.max(self.first_room);
        &self.runs[run].get_or_init(|| (0..room).map(|_| OnceLock::new()).collect())[at - before]
    }

    /// The run of an item, and how many items there are before the run.
    fn run_of(&self, at: usize) -> (usize, usize) {
        match (at / self.first_room).checked_ilog2() {
            None => (0, 0),
            Some(doublings) => (doublings as usize + 1, self.first_room << doublings),
        }
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        let list = Self { len: AtomicUsize::new(items.len()), ..Self::new(items.len().max(1)) };
        if !items.is_empty() {
            list.runs[0].get_or_init(|| items.into_iter().map(OnceLock::from).collect());
        }
        list
    }
}

/// Room for eight million items and more: nobody writes so many tokens, or has so many readers.
const RUNS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &List<u64>) -> Vec<u64> {
        list.first(list.len()).copied().collect()
    }

    #[test]
    fn items_come_back_in_order_from_run_to_run() {
        for first_room in [1, 3, 16] {
            let list = List::new(first_room);
            for item in 0..1000 {
                assert!(list.get(item as usize).is_none());
                list.push(item);
                assert_eq!(list.get(item as usize), Some(&item));
            }
            assert_eq!(all(&list), (0..1000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_list_goes_on_behind_what_it_was_made_of() {
        for count in [0, 1, 17] {
            let list = List::from((0..count).collect::<Vec<u64>>());
            (count..100).for_each(|item| list.push(item));
            assert_eq!(all(&list), (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn behind_the_last_one_nothing_is_written() {
        let list = List::new(4);
        (0..10).for_each(|item| list.push_unless(item, |item| *item == 5));
        assert_eq!(all(&list), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn of_many_that_write_at_once_each_has_a_place() {
        let list = List::new(1);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let list = &list;
                scope.spawn(move || (0..500).for_each(|index| list.push(writer * 500 + index)));
            }
        });
        let mut found = all(&list);
        for writer in 0..4 {
            assert!(
                found.iter().filter(|item| **item / 500 == writer).is_sorted(),
                "what one writes stays in order"
            );
        }
        found.sort_unstable();
        assert_eq!(found, (0..2000).collect::<Vec<_>>());
    }
}
