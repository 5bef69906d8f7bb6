//! Finished answers, kept for equal requests: least recently used out first, never more bytes than the bound. And those
//! under way, for equal requests to join.
//!
//! One mutex around `lru::LruCache` with values behind `Arc`: exact order, exact bound.

mod key;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod tier;

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use lru::LruCache;
use serde::{Deserialize, Serialize};

pub(crate) use self::key::{Key, Origin};
use self::record::Opened;
#[cfg(feature = "redis")]
pub(crate) use self::redis::Redis;
pub(crate) use self::tier::{BUDGET, SHARED_TIER, THREADS, Task, Tier};
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::flight::Flight;
use crate::options::{CacheMode, Priority};
use crate::reply::{Entity, Event, Ranked, Reply};
use crate::request::Request;
use crate::sync::{Mutex, MutexGuard};

/// The response cache of an engine, as its host sees it. In a child process it is empty, and stays so.
///
/// ```
/// # use antiphon::{Engine, EngineConfig};
/// let engine = Engine::open(EngineConfig::default())?;
/// engine.cache().clear(Some("acme"));
/// assert_eq!(engine.cache().stats().entries, 0);
/// # Ok::<(), antiphon::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct ResponseCache<'a>(pub(crate) &'a Engine);

impl ResponseCache<'_> {
    /// What it holds and how it has served.
    pub fn stats(&self) -> CacheStats {
        self.cache().map_or_else(CacheStats::default, Cache::stats)
    }

    /// Forgets the answers of a tenant, or all. A shared tier keeps its own until their time is over.
    pub fn clear(&self, tenant: Option<&str>) {
        if let Some(cache) = self.cache() {
            cache.clear(tenant);
        }
    }

    /// Sets the bound on bytes; 0 switches it off.
    pub fn resize(&self, max_bytes: u64) {
        if let Some(cache) = self.cache() {
            cache.resize(usize::try_from(max_bytes).unwrap_or(usize::MAX));
        }
    }

    /// Answers a request ahead of its time, so that an equal one is a hit: at low priority, and not at all when the answer is
    /// there. Dropping the future ends the work.
    ///
    /// ```
    /// # use antiphon::{Engine, EngineConfig, Request};
    /// let engine = Engine::open(EngineConfig::default())?;
    /// let request = || Request::new("What are your opening hours?").max_tokens(16);
    /// engine.cache().warm_blocking(request())?;
    /// engine.process_blocking(request())?;
    /// assert_eq!(engine.cache().stats().hits, 1);
    /// # Ok::<(), antiphon::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a request whose answer is never kept (a sampled
    /// one, one that bypasses the cache); else as [`Engine::process`].
    pub fn warm(&self, request: Request) -> impl Future<Output = Result<()>> + Send + use<> {
        let reply = lasting(request).map(|request| self.0.process(request));
        async move {
            reply?.await?;
            Ok(())
        }
    }

    /// Blocking twin of [`ResponseCache::warm`].
    ///
    /// # Errors
    /// As [`ResponseCache::warm`].
    pub fn warm_blocking(&self, request: Request) -> Result<()> {
        self.0.process_blocking(lasting(request)?)?;
        Ok(())
    }

    /// None in a child process, where its lock may be held by a thread that is not there.
    fn cache(&self) -> Option<&Cache> {
        self.0.check_process().is_ok().then(|| &self.0.shared().cache)
    }
}

/// The request in no hurry, if its answer may be kept.
fn lasting(request: Request) -> Result<Request> {
    let options = &request.options;
    if options.cache == CacheMode::Bypass || !options.is_deterministic() {
        let what =
            "the answer would never be kept, expected `temperature` 0 or a `seed`, and `cache` not bypass";
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    Ok(request.priority(Priority::Low))
}

/// What one mutex guards.
pub(crate) struct Cache {
    state: Mutex<State>,
    ttl: Duration,
    /// How long past its time an answer may serve where none can be had.
    stale: Duration,
    /// What other engines share with this one.
    pub(crate) tier: Option<Arc<Tier>>,
}

struct State {
    entries: LruCache<Key, Entry>,
    /// Answers under way. One that has ended without an answer to keep stays until it is looked for or swept.
    flights: HashMap<Key, Weak<Flight>>,
    /// Sweep the flights when there are so many.
    sweep_at: usize,
    max_bytes: usize,
    max_entries: usize,
    bytes: usize,
    counts: Counts,
}

struct Entry {
    events: Arc<[Event]>,
    bytes: usize,
    stored: Instant,
    /// Somebody has found it too old.
    is_expired: bool,
}

#[derive(Default)]
struct Counts {
    hits: u64,
    misses: u64,
    joined: u64,
    shared_hits: u64,
    stored: u64,
    evicted: u64,
    expired: u64,
}

/// What the cache has for a request.
pub(crate) enum Found {
    /// A finished answer.
    Answer(Arc<[Event]>),
    /// An equal request under way, and the view of it.
    Flight(Arc<Flight>, usize),
    /// Nothing: the request flies itself, and others may join it.
    Nothing,
}

/// What the cache holds and how it has served.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// Answers served from the cache.
    pub hits: u64,
    /// Requests it had no answer for itself.
    pub misses: u64,
    /// Requests that joined an equal one under way.
    pub joined: u64,
    /// Among the misses, answers served from the shared tier.
    pub shared_hits: u64,
    /// Answers kept.
    pub stored: u64,
    /// Answers that made room for others.
    pub evicted: u64,
    /// Answers that grew too old.
    pub expired: u64,
    /// Answers held now.
    pub entries: usize,
    /// Bytes of keys, values and overhead held now.
    pub bytes: u64,
    /// The bound on bytes.
    pub max_bytes: u64,
    /// Hits among hits, misses and joined requests; 0 before the first.
    pub hit_rate: f64,
}

impl Cache {
    /// `may_degrade`: a backend answers that can fail, so answers are kept past their time.
    pub(crate) fn new(config: &CacheConfig, tier: Option<Arc<Tier>>, may_degrade: bool) -> Self {
        let state = State {
            // The order of use comes from the crate, the bounds are ours: bytes count first.
            entries: LruCache::unbounded(),
            flights: HashMap::new(),
            sweep_at: FEW_FLIGHTS,
            max_bytes: config.max_bytes as usize,
            max_entries: config.max_entries,
            bytes: 0,
            counts: Counts::default(),
        };
        let stale = Duration::from_secs(if may_degrade { config.stale_seconds } else { 0 });
        Self { state: Mutex::new(state), ttl: Duration::from_secs(config.ttl_seconds), stale, tier }
    }

    /// An answer that is young enough, or a flight to join until `deadline`. If there is neither, `own` is the flight that
    /// others will join, at one moment: of equal requests that come at once, exactly one flies.
    pub(crate) fn find(&self, key: &Key, own: &Arc<Flight>, deadline: Instant) -> Found {
        let mut state = self.lock();
        if let Some(events) = state.young(key, self.ttl, self.stale) {
            state.counts.hits += 1;
            return Found::Answer(events);
        }
        let flight = state.flights.get(key).and_then(Weak::upgrade);
        if let Some((flight, view)) =
            flight.and_then(|flight| Some((Arc::clone(&flight), flight.join(deadline)?)))
        {
            state.counts.joined += 1;
            return Found::Flight(flight, view);
        }
        state.counts.misses += 1;
        state.flights.insert(key.clone(), Arc::downgrade(own));
        if state.flights.len() >= state.sweep_at {
            state.flights.retain(|_, flight| flight.strong_count() > 0);
            state.sweep_at = (state.flights.len() * 2).max(FEW_FLIGHTS);
        }
        Found::Nothing
    }

    /// An answer of any age that is not too old to serve where none can be had.
    pub(crate) fn find_stale(&self, key: &Key) -> Option<Arc<[Event]>> {
        let mut state = self.lock();
        let entry = state.entries.get(key).filter(|entry| entry.stored.elapsed() < self.ttl + self.stale)?;
        Some(Arc::clone(&entry.events))
    }

    /// Keeps an answer, for other engines too.
    pub(crate) fn insert(&self, key: Key, events: Vec<Event>) {
        let events: Arc<[Event]> = events.into();
        self.put(key.clone(), Arc::clone(&events), Instant::now());
        if let Some(tier) = &self.tier {
            // A tier that is busy or down does without.
            tier.submit(Task::Keep { key, events });
        }
    }

    /// Keeps an answer of another engine, which is as old here as it was there.
    pub(crate) fn insert_shared(&self, key: Key, Opened { events, age }: &Opened) {
        let now = Instant::now();
        self.put(key, events.as_slice().into(), now.checked_sub(*age).unwrap_or(now));
    }

    /// A request was served from the shared tier.
    pub(crate) fn note_shared_hit(&self) {
        self.lock().counts.shared_hits += 1;
    }

    /// What is larger than the whole cache is not kept.
    fn put(&self, key: Key, events: Arc<[Event]>, stored: Instant) {
        let bytes = ENTRY_OVERHEAD + key.tenant_bytes() + events.iter().map(event_bytes).sum::<usize>();
        let mut state = self.lock();
        state.flights.remove(&key);
        if state.entries.peek(&key).is_some_and(|entry| entry.stored > stored) {
            return;
        }
        state.remove(&key);
        if bytes > state.max_bytes || state.max_entries == 0 {
            return;
        }
        // Room first: the bound holds at every moment.
        let (max_bytes, max_entries) = (state.max_bytes - bytes, state.max_entries - 1);
        state.shrink(max_bytes, max_entries);
        state.bytes += bytes;
        state.counts.stored += 1;
        state.entries.put(key, Entry { events, bytes, stored, is_expired: false });
    }

    /// Forgets the answers of a tenant, or all.
    pub(crate) fn clear(&self, tenant: Option<&str>) {
        let mut state = self.lock();
        let keys: Vec<Key> = state.entries.iter().map(|(key, _)| key.clone()).collect();
        for key in keys.iter().filter(|key| tenant.is_none_or(|tenant| key.tenant() == tenant)) {
            state.remove(key);
        }
    }

    /// Sets the bound on bytes.
    pub(crate) fn resize(&self, max_bytes: usize) {
        let mut state = self.lock();
        state.max_bytes = max_bytes;
        let max_entries = state.max_entries;
        state.shrink(max_bytes, max_entries);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let state = self.lock();
        let Counts { hits, misses, joined, shared_hits, stored, evicted, expired } = state.counts;
        let asked = hits + misses + joined;
        CacheStats {
            hits,
            misses,
            joined,
            shared_hits,
            stored,
            evicted,
            expired,
            entries: state.entries.len(),
            bytes: state.bytes as u64,
            max_bytes: state.max_bytes as u64,
            hit_rate: if asked == 0 { 0.0 } else { hits as f64 / asked as f64 },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The events of an entry that is not past its time to live; one that is goes, unless it may serve stale.
    fn young(&mut self, key: &Key, ttl: Duration, stale: Duration) -> Option<Arc<[Event]>> {
        let entry = self.entries.get_mut(key)?;
        let age = entry.stored.elapsed();
        if age < ttl {
            return Some(Arc::clone(&entry.events));
        }
        self.counts.expired += u64::from(!std::mem::replace(&mut entry.is_expired, true));
        if age >= ttl + stale {
            self.remove(key);
        }
        None
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= entry.bytes;
        }
    }

    fn shrink(&mut self, max_bytes: usize, max_entries: usize) {
        while self.bytes > max_bytes || self.entries.len() > max_entries {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.bytes -= entry.bytes;
            self.counts.evicted += 1;
        }
    }
}

/// Bytes that an event holds, on the heap and in the entry's slice.
fn event_bytes(event: &Event) -> usize {
    let heap = match event {
        Event::Analysis(analysis) => {
            ranking_bytes(&analysis.intent.ranking) + entity_bytes(&analysis.entities) + FEW_STRINGS
        }
        Event::Chunk { content, logprobs, .. } => {
            let tokens = logprobs.iter().flatten();
            let count = tokens.map(|token| 1 + token.top.len()).sum::<usize>();
            content.capacity().max(STRING_BLOCK)
                + count * (size_of::<crate::reply::TokenLogprob>() + STRING_BLOCK)
        }
        Event::Done(reply) => reply_bytes(reply),
    };
    size_of::<Event>() + heap
}

fn reply_bytes(reply: &Reply) -> usize {
    let ranking = reply.metadata.intent_analysis.as_ref().map_or(0, |intent| ranking_bytes(&intent.ranking));
    reply.response.capacity() + ranking + entity_bytes(&reply.entities) + 2 * FEW_STRINGS
}

fn ranking_bytes(ranking: &[Ranked]) -> usize {
    ranking.iter().map(|ranked| size_of::<Ranked>() + ranked.label.capacity().max(STRING_BLOCK)).sum()
}

fn entity_bytes(entities: &[Entity]) -> usize {
    let strings = |entity: &Entity| {
        entity.kind.capacity().max(STRING_BLOCK) + entity.value.capacity().max(STRING_BLOCK)
    };
    entities.iter().map(|entity| size_of::<Entity>() + strings(entity)).sum()
}

/// A small string's block on the heap, allocator overhead included.
const STRING_BLOCK: usize = 32;

/// Labels, scores and fingerprints that every analysis or reply has.
const FEW_STRINGS: usize = 512;

/// Flights are swept for ended ones at twice as many as the last sweep left, and not below.
const FEW_FLIGHTS: usize = 64;

/// The entry itself: key, list links, hash table slot.
const ENTRY_OVERHEAD: usize = size_of::<Key>() + size_of::<Entry>() + 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, number: u64) -> Key {
        Key::numbered(tenant, number)
    }

    fn chunk(bytes: usize) -> Vec<Event> {
        vec![Event::Chunk { content: "x".repeat(bytes), index: 0, logprobs: None }]
    }

    fn get(cache: &Cache, key: &Key) -> Option<Arc<[Event]>> {
        let deadline = Instant::now() + Duration::from_secs(60);
        match cache.find(key, &Flight::new(deadline, Arc::default()), deadline) {
            Found::Answer(events) => Some(events),
            Found::Flight(..) | Found::Nothing => None,
        }
    }

    fn cache(max_bytes: u64, max_entries: usize, ttl_seconds: u64) -> Cache {
        Cache::new(
            &CacheConfig { max_bytes, max_entries, ttl_seconds, ..CacheConfig::default() },
            None,
            false,
        )
    }

    #[test]
    fn faults_80_the_bound_holds_for_every_size() {
        let cache = cache(10_000, 1000, 3600);
        for number in 0..1000 {
            cache.insert(key("a", number), chunk((number as usize * 37) % 3000));
            let stats = cache.stats();
            assert!(stats.bytes <= stats.max_bytes);
        }
        assert!(cache.stats().evicted > 0);
        cache.insert(key("a", 1), chunk(20_000));
        assert!(get(&cache, &key("a", 1)).is_none(), "larger than the whole cache");
        cache.resize(0);
        assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
    }

    #[test]
    fn faults_80_the_bound_holds_at_every_moment_of_a_million_operations_from_sixteen_threads() {
        let cache = cache(20_000, 1000, 3600);
        let exceeded = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..16_u64 {
                let (cache, exceeded) = (&cache, &exceeded);
                scope.spawn(move || {
                    let mut state = thread + 1;
                    for _ in 0..1_000_000 / 16 {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let random = state >> 33;
                        let key = key("a", random % 300);
                        match random >> 9 & 0xff {
                            0 => cache.clear(Some("a")),
                            1 => cache.resize(10_000 + (random % 20_000) as usize),
                            2..100 => cache.insert(key, chunk((random % 2000) as usize)),
                            _ => drop(get(cache, &key)),
                        }
                        let stats = cache.stats();
                        let fits = stats.bytes <= stats.max_bytes && stats.entries <= 1000;
                        exceeded.fetch_add(usize::from(!fits), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(exceeded.into_inner(), 0);
        cache.clear(None);
        assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = cache(1 << 20, 2, 3600);
        cache.insert(key("a", 1), chunk(1));
        cache.insert(key("a", 2), chunk(1));
        assert!(get(&cache, &key("a", 1)).is_some());
        cache.insert(key("a", 3), chunk(1));
        assert!(get(&cache, &key("a", 2)).is_none());
        assert!(get(&cache, &key("a", 1)).is_some());
    }

    #[test]
    fn faults_82_an_entry_of_age_zero_is_expired_at_once() {
        let cache = cache(1 << 20, 10, 0);
        cache.insert(key("a", 1), chunk(1));
        assert!(get(&cache, &key("a", 1)).is_none());
        let stats = cache.stats();
        assert_eq!((stats.expired, stats.misses, stats.entries, stats.bytes), (1, 1, 0, 0));
    }

    #[test]
    fn an_answer_past_its_time_serves_only_where_none_can_be_had() {
        let config = CacheConfig { ttl_seconds: 0, stale_seconds: 60, ..CacheConfig::default() };
        let cache = Cache::new(&config, None, true);
        cache.insert(key("a", 1), chunk(1));
        assert!(get(&cache, &key("a", 1)).is_none());
        assert!(get(&cache, &key("a", 1)).is_none());
        assert!(cache.find_stale(&key("a", 1)).is_some());
        assert_eq!((cache.stats().expired, cache.stats().entries), (1, 1));
        assert!(cache.find_stale(&key("b", 1)).is_none(), "another tenant");
    }

    #[test]
    fn a_tenant_is_cleared_alone() {
        let cache = cache(1 << 20, 10, 3600);
        cache.insert(key("a", 1), chunk(1));
        cache.insert(key("b", 1), chunk(1));
        cache.clear(Some("a"));
        assert!(get(&cache, &key("a", 1)).is_none());
        assert!(get(&cache, &key("b", 1)).is_some());
    }

    #[test]
    fn of_equal_requests_one_flies_and_the_others_join_it() {
        let cache = cache(1 << 20, 10, 3600);
        let deadline = Instant::now() + Duration::from_secs(60);
        let flights: Vec<_> = (0..3).map(|_| Flight::new(deadline, Arc::default())).collect();
        assert!(matches!(cache.find(&key("a", 1), &flights[0], deadline), Found::Nothing));
        for other in &flights[1..] {
            let Found::Flight(joined, view) = cache.find(&key("a", 1), other, deadline) else {
                panic!("nothing to join")
            };
            assert!(Arc::ptr_eq(&joined, &flights[0]) && view > 0);
        }
        assert!(matches!(cache.find(&key("b", 1), &flights[1], deadline), Found::Nothing), "another tenant");
        flights[0].fail(crate::Error::cancelled());
        assert!(
            matches!(cache.find(&key("a", 1), &flights[2], deadline), Found::Nothing),
            "a failed one is joined by none"
        );
        let stats = cache.stats();
        assert_eq!((stats.joined, stats.misses, stats.hits), (2, 3, 0));
    }

    #[test]
    fn flights_that_are_gone_leave_no_trace() {
        let cache = cache(1 << 20, 10, 3600);
        let deadline = Instant::now() + Duration::from_secs(60);
        for number in 0..10_000 {
            let own = Flight::new(deadline, Arc::default());
            assert!(matches!(cache.find(&key("a", number), &own, deadline), Found::Nothing));
        }
        assert!(cache.lock().flights.len() <= 2 * FEW_FLIGHTS);
    }
}
