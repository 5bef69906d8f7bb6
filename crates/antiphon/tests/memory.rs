//! What an engine holds beside what its ledger says, as the allocator of the process counts it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use antiphon::{CacheMode, Engine, EngineConfig, Generate, Message, Request};

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_ledger_says_what_the_engine_holds() {
    let before = HELD.load(Ordering::Relaxed);
    let config = r#"{"cache": {"max_bytes": 4000000}, "kv_cache_bytes": 8388608}"#;
    let engine = Engine::open(EngineConfig::from_json(config).unwrap()).unwrap();
    compare(&engine, before, "opened");
    for number in 0..400 {
        let text = format!("Where is order {}? {}", 4711 + number, "It is late. ".repeat(number % 7));
        let request = Request::new(text.as_str()).max_tokens(4);
        match number % 4 {
            0 => drop(engine.process_blocking(request.cache(CacheMode::Bypass)).unwrap()),
            1 => drop(engine.analyze_blocking(&text).unwrap()),
            2 => drop(
                engine.generate_blocking(Generate::messages([Message::user(text)]).max_tokens(4)).unwrap(),
            ),
            _ => drop(engine.process_blocking(request).unwrap()),
        }
    }
    compare(&engine, before, "used");
}

fn compare(engine: &Engine, before: usize, when: &str) {
    let text = engine.metrics_text();
    let parts = text.lines().filter_map(|line| line.strip_prefix("antiphon_memory_bytes{part=\""));
    let parts: Vec<(&str, usize)> = parts
        .filter_map(|line| line.split_once("\"} "))
        .filter_map(|(part, bytes)| Some((part, bytes.parse().ok()?)))
        .collect();
    assert_eq!(parts.len(), 6, "{parts:?}");
    let ledger: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    let held = HELD.load(Ordering::Relaxed) - before;
    let ratio = ledger as f64 / held as f64;
    assert!((0.9..1.1).contains(&ratio), "{when}: the ledger says {ledger}, {held} are held: {parts:?}");
}
