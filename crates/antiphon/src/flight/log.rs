//! Events in the order they came, and how they end.

use super::list::List;
use crate::error::{Error, Result};
use crate::reply::Event;

/// Events that were written, and the end.
pub(super) struct Log(List<Entry>);

enum Entry {
    Event(Event),
    /// The last event and the end, at one moment: whoever has read the one sees the other.
    Last(Event),
    /// The end of a log that broke off.
    Failed(Error),
}

impl Log {
    pub(super) fn new() -> Self {
        Self(List::new(FIRST_ROOM))
    }

    /// A log that has ended, with the last of the events.
    ///
    /// # Panics
    /// If there are none.
    pub(super) fn recorded(mut events: Vec<Event>) -> Self {
        let last = events.pop().expect("an answer has a last event");
        let entries: Vec<Entry> = events.into_iter().map(Entry::Event).chain([Entry::Last(last)]).collect();
        Self(List::from(entries))
    }

    pub(super) fn push(&self, event: Event) {
        self.append(Entry::Event(event));
    }

    pub(super) fn land(&self, last: Event) {
        self.append(Entry::Last(last));
    }

    pub(super) fn fail(&self, error: Error) {
        self.append(Entry::Failed(error));
    }

    /// Behind an end nothing is written.
    fn append(&self, entry: Entry) {
        self.0.push_unless(entry, Entry::is_end);
    }

    /// How many entries there are: events, and the error of a log that broke off.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the log ended with so many entries.
    pub(super) fn ends_at(&self, len: usize) -> bool {
        len.checked_sub(1).and_then(|last| self.0.get(last)).is_some_and(Entry::is_end)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends_at(self.len())
    }

    /// An entry, if it is written.
    pub(super) fn get(&self, at: usize) -> Option<Result<&Event>> {
        self.0.get(at).map(Entry::read)
    }

    /// The events among the first entries.
    pub(super) fn events(&self, entries: usize) -> impl Iterator<Item = &Event> {
        self.0.first(entries).filter_map(|entry| entry.read().ok())
    }
}

impl Entry {
    fn is_end(&self) -> bool {
        matches!(self, Entry::Last(_) | Entry::Failed(_))
    }

    fn read(&self) -> Result<&Event> {
        match self {
            Entry::Event(event) | Entry::Last(event) => Ok(event),
            Entry::Failed(error) => Err(error.clone()),
        }
    }
}

/// An analysis, a few tokens and a reply.
const FIRST_ROOM: usize = 16;
