//! Twenty thousand requests of all kinds: what the process has grown by beside what the ledger says, and whether it goes on
//! growing.
//!
//! `cargo bench -p antiphon-benches --bench endurance [-- REQUESTS]` (20000)
#![allow(clippy::print_stdout, reason = "a command for people: its output is its result")]

use std::error::Error;

use antiphon::{CacheMode, ConversationConfig, Engine, EngineConfig, Generate, Message, Request};
use antiphon_benches::measure::resident_bytes;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let requests: usize = std::env::args().filter_map(|word| word.parse().ok()).next_back().unwrap_or(20_000);
    let before = resident_bytes();
    let config = r#"{"cache": {"max_bytes": 4000000}, "kv_cache_bytes": 33554432}"#;
    let engine = Engine::open(EngineConfig::from_json(config)?)?;
    println!("{:>10} {:>14} {:>14} {:>8}", "requests", "grown, bytes", "ledger", "ratio");
    let (early, mut at_early) = (requests / 10, 0);
    for number in 1..=requests {
        one(&engine, number)?;
        if number == early {
            at_early = resident_bytes();
        }
        if number.is_multiple_of(requests / 10) {
            let (grown, ledger) = (resident_bytes() - before, ledger(&engine));
            println!("{number:>10} {grown:>14} {ledger:>14} {:>8.3}", ledger as f64 / grown as f64);
        }
    }
    let later = resident_bytes() as i64 - at_early as i64;
    println!(
        "from request {early} to {requests}: {later} bytes more, {:.2} %",
        100.0 * later as f64 / at_early as f64
    );
    Ok(())
}

/// One request of the mix.
fn one(engine: &Engine, number: usize) -> Outcome {
    let text = || format!("Where is order {}? {}", 4711 + number, "It is late. ".repeat(number % 7));
    match number % 10 {
        0 => drop(engine.analyze_blocking(&text())?),
        // Equal ones come again.
        1 | 2 => drop(
            engine.process_blocking(Request::new(format!("I want {} back", number % 50)).max_tokens(16))?,
        ),
        3 => {
            let mut stream = engine.stream(Request::new(text()).cache(CacheMode::Bypass))?;
            drop(stream.next());
            stream.canceller().cancel();
        }
        4 => {
            let mut talk = engine.conversation(ConversationConfig::default())?;
            for turn in ["Hello", "I need help with my account", "I forgot my password"] {
                drop(talk.say(Request::new(turn).max_tokens(12))?.into_iter().last());
            }
        }
        5 => {
            let turns =
                [Message::user("Hi"), Message::assistant("Hello! How can I help?"), Message::user(text())];
            drop(engine.generate_blocking(
                Generate::messages(&turns).max_tokens(16).temperature(0.8).seed(number as u64),
            )?);
        }
        // Refused: longer than a message may be.
        6 => drop(engine.process_blocking(Request::new("x".repeat(200_000)))),
        _ => drop(engine.process_blocking(Request::new(text()).max_tokens(16))?),
    }
    Ok(())
}

/// What the engine says that it holds.
fn ledger(engine: &Engine) -> usize {
    let text = engine.metrics_text();
    let parts = text.lines().filter(|line| line.starts_with("antiphon_memory_bytes{"));
    parts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}
