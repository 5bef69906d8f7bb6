//! The response cache beside others: the same keys, the same answers, the same room. Ours does more on a miss: it registers
//! the request, so that equal ones join it.
//!
//! `cargo bench -p antiphon-benches --bench cache`
#![allow(clippy::print_stdout, reason = "a command for people: its output is its result")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use antiphon::Event;
use antiphon::internals::{AnswerKey, Answers};
use antiphon_benches::Comparison;
use serde_json::json;

fn main() {
    let keys: Vec<AnswerKey> = (0..KEYS).map(AnswerKey::new).collect();
    println!("{OPERATIONS} operations; medians, and the ratio with its quartiles");
    println!("{:<42} {:>13} {:>13} {:>7}", "", "ours", "theirs", "ratio");
    let ours: Make = || Box::new(Answers::new(ROOM as u64, FITTING));
    let others: [(&str, Make); 3] = [
        ("Mutex<LruCache>", || Box::new(Mutex::new(lru::LruCache::new(FITTING.try_into().expect("not 0"))))),
        ("moka::sync", || Box::new(moka())),
        ("quick_cache", || Box::new(quick_cache())),
    ];
    for (name, theirs) in others {
        for threads in [1, 2] {
            for (kind, share_of_gets, spread) in [
                ("hits", 100, FITTING as u64 / 2),
                ("inserts", 0, KEYS),
                ("hits and inserts, 9 to 1", 90, KEYS),
            ] {
                let (ours, theirs) = (ours(), theirs());
                keys[..spread as usize].iter().for_each(|key| {
                    ours.insert(key.clone(), ANSWER.clone());
                    theirs.insert(key.clone(), ANSWER.clone());
                });
                let run =
                    |cache: &dyn Kept| operations(cache, &keys[..spread as usize], threads, share_of_gets);
                let compared = Comparison::measure(|| run(&*ours), || run(&*theirs));
                println!("{:<42} {compared}", format!("{name}, threads: {threads}, {kind}"));
            }
        }
    }
}

type Make = fn() -> Box<dyn Kept>;

/// What a cache has to do.
trait Kept: Sync {
    fn get(&self, key: &AnswerKey) -> Option<Arc<[Event]>>;
    fn insert(&self, key: AnswerKey, events: Vec<Event>);
}

impl Kept for Answers {
    fn get(&self, key: &AnswerKey) -> Option<Arc<[Event]>> {
        self.get(key)
    }

    fn insert(&self, key: AnswerKey, events: Vec<Event>) {
        self.insert(key, events);
    }
}

/// Bounded by number alone: bytes and age are what ours adds.
impl Kept for Mutex<lru::LruCache<AnswerKey, Arc<[Event]>>> {
    fn get(&self, key: &AnswerKey) -> Option<Arc<[Event]>> {
        self.lock().expect("no panic").get(key).cloned()
    }

    fn insert(&self, key: AnswerKey, events: Vec<Event>) {
        drop(self.lock().expect("no panic").put(key, events.into()));
    }
}

fn moka() -> moka::sync::Cache<AnswerKey, Arc<[Event]>> {
    moka::sync::Cache::builder()
        .max_capacity(ROOM as u64)
        .weigher(|_, events: &Arc<[Event]>| weight(events) as u32)
        .time_to_live(std::time::Duration::from_secs(3600))
        .build()
}

impl Kept for moka::sync::Cache<AnswerKey, Arc<[Event]>> {
    fn get(&self, key: &AnswerKey) -> Option<Arc<[Event]>> {
        self.get(key)
    }

    fn insert(&self, key: AnswerKey, events: Vec<Event>) {
        self.insert(key, events.into());
    }
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<AnswerKey, Arc<[Event]>> for Weight {
    fn weight(&self, _: &AnswerKey, events: &Arc<[Event]>) -> u64 {
        weight(events) as u64
    }
}

fn quick_cache() -> quick_cache::sync::Cache<AnswerKey, Arc<[Event]>, Weight> {
    quick_cache::sync::Cache::with_weighter(FITTING, ROOM as u64, Weight)
}

impl Kept for quick_cache::sync::Cache<AnswerKey, Arc<[Event]>, Weight> {
    fn get(&self, key: &AnswerKey) -> Option<Arc<[Event]>> {
        self.get(key)
    }

    fn insert(&self, key: AnswerKey, events: Vec<Event>) {
        self.insert(key, events.into());
    }
}

/// So many operations by all threads together; how many found something.
fn operations(cache: &dyn Kept, keys: &[AnswerKey], threads: u64, share_of_gets: u64) -> u64 {
    let found = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let found = &found;
            scope.spawn(move || {
                let (mut state, mut hits) = (thread + 1, 0);
                for _ in 0..OPERATIONS / threads {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let key = &keys[(state >> 20) as usize % keys.len()];
                    if state % 100 < share_of_gets {
                        hits += u64::from(cache.get(key).is_some());
                    } else {
                        cache.insert(key.clone(), ANSWER.clone());
                    }
                }
                found.fetch_add(hits, Ordering::Relaxed);
            });
        }
    });
    found.into_inner()
}

/// A short answer in pieces.
fn answer() -> Vec<Event> {
    let piece =
        |index| serde_json::from_value(json!({"type": "chunk", "content": "a few words ", "index": index}));
    (0..PIECES).map(|index| piece(index).expect("an event")).collect()
}

fn weight(events: &[Event]) -> usize {
    events.len() * (size_of::<Event>() + 32)
}

static ANSWER: LazyLock<Vec<Event>> = LazyLock::new(answer);
const KEYS: u64 = 10_000;
/// Answers that fit.
const FITTING: usize = 1000;
const PIECES: u64 = 4;
/// Bytes for about as many.
const ROOM: usize = FITTING * (PIECES as usize * (size_of::<Event>() + 32) + 300);
const OPERATIONS: u64 = 20_000;
