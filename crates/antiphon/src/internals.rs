//! The response cache without an engine, for this repository's benchmarks. No part of the interface: it may change at any time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Found, Key};
use crate::config::CacheConfig;
use crate::flight::Flight;
use crate::reply::Event;

/// The key of one request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AnswerKey(Key);

impl AnswerKey {
    /// The key of the request with a number.
    pub fn new(number: u64) -> Self {
        Self(Key::numbered("tenant", number))
    }
}

/// Answers by key, in so many bytes.
#[expect(missing_debug_implementations, reason = "for benchmarks alone")]
pub struct Answers {
    cache: Cache,
    flight: Arc<Flight>,
    deadline: Instant,
}

impl Answers {
    /// Bounded by bytes and by number.
    pub fn new(max_bytes: u64, max_entries: usize) -> Self {
        let config = CacheConfig { max_bytes, max_entries, ..CacheConfig::default() };
        let deadline = Instant::now() + Duration::from_secs(3600);
        Self {
            cache: Cache::new(&config, None, false),
            flight: Flight::new(deadline, Arc::default()),
            deadline,
        }
    }

    /// The answer, if it is there.
    pub fn get(&self, key: &AnswerKey) -> Option<Arc<[Event]>> {
        match self.cache.find(&key.0, &self.flight, self.deadline) {
            Found::Answer(events) => Some(events),
            Found::Flight(..) | Found::Nothing => None,
        }
    }

    /// Keeps an answer, as the engine does when it is finished.
    pub fn insert(&self, key: AnswerKey, events: Vec<Event>) {
        self.cache.insert(key.0, events);
    }
}
