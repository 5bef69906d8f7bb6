//! Requests that come four times as fast as they can be answered: what is answered, how soon the rest is refused, how soon all
//! is as before.
//!
//! `cargo bench -p antiphon-benches --bench overload [-- SECONDS]` (60)
#![allow(clippy::print_stdout, reason = "a command for people: its output is its result")]

use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use antiphon::{CacheMode, Engine, EngineConfig, ErrorKind, FinishReason, Reply, ReplyFuture, Request};
use antiphon_benches::measure::{median, quantile};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let seconds = std::env::args().filter_map(|word| word.parse().ok()).next_back().unwrap_or(60);
    let config = format!(r#"{{"batcher": {{"max_queue": 64, "timeout_ms": {TIMEOUT_MS}}}}}"#);
    let engine = Engine::open(EngineConfig::from_json(&config)?)?;
    let usual =
        median((0..50).map(|number| alone(&engine, number)).collect::<Outcome<Vec<_>>>()?.into_iter());
    let capacity = capacity(&engine, Duration::from_secs(5));
    println!("can do {capacity:.0}/s, one alone takes {:.1} ms", 1e3 * usual);

    let Overload { came, ends, refusals } = overload(&engine, capacity * 4.0, Duration::from_secs(seconds))?;
    let recovered = recovery(&engine, usual)?;
    let whole = ends.iter().filter(|(_, whole)| *whole).count() as f64 / seconds as f64;
    let slowest = ends.iter().map(|(took, _)| *took).fold(0.0, f64::max);
    println!("{came} came in {seconds} s");
    println!("answered whole    {whole:.0}/s, {:.0} % of what it can do", 100.0 * whole / capacity);
    println!("refused           {}, after {:.3} ms (p99)", refusals.len(), 1e3 * quantile(&refusals, 0.99));
    println!("the slowest ended after {:.0} ms of {TIMEOUT_MS} allowed", 1e3 * slowest);
    println!("as before         after {:.0} ms", 1e3 * recovered);
    Ok(())
}

/// Seconds that one request takes.
fn alone(engine: &Engine, number: usize) -> Outcome<f64> {
    let since = Instant::now();
    engine.process_blocking(request(number))?;
    Ok(since.elapsed().as_secs_f64())
}

/// Answers a second while enough callers keep the batch full.
fn capacity(engine: &Engine, time: Duration) -> f64 {
    let (done, started) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while started.elapsed() < time {
                    let reply = engine.process_blocking(request(done.load(Ordering::Relaxed)));
                    done.fetch_add(usize::from(is_whole(&reply)), Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner() as f64 / started.elapsed().as_secs_f64()
}

struct Overload {
    came: usize,
    /// Seconds until each request that was taken ended, and whether with a whole answer.
    ends: Vec<(f64, bool)>,
    /// Seconds until each of the others was refused.
    refusals: Vec<f64>,
}

/// Requests come at their rate, whatever becomes of earlier ones.
fn overload(engine: &Engine, rate: f64, time: Duration) -> Outcome<Overload> {
    let (sender, receiver) = mpsc::channel::<(Instant, ReplyFuture)>();
    let receiver = Arc::new(Mutex::new(receiver));
    let readers: Vec<_> = (0..96)
        .map(|_| {
            let receiver = Arc::clone(&receiver);
            std::thread::spawn(move || {
                let mut ends = Vec::new();
                loop {
                    let next = receiver.lock().expect("no panic").recv();
                    let Ok((since, reply)) = next else { return ends };
                    let reply = pollster::block_on(reply);
                    ends.push((since.elapsed().as_secs_f64(), is_whole(&reply)));
                }
            })
        })
        .collect();
    let (mut refusals, started, mut came) = (Vec::new(), Instant::now(), 0);
    while started.elapsed() < time {
        let due = Duration::from_secs_f64(f64::from(came) / rate);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let since = Instant::now();
        let mut reply = engine.process(request(came as usize));
        match Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => sender.send((since, reply))?,
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Overloaded => {
                refusals.push(since.elapsed().as_secs_f64());
            }
            Poll::Ready(Err(error)) => return Err(error.into()),
            Poll::Ready(Ok(_)) => return Err("an answer that bypasses the cache came at once".into()),
        }
        came += 1;
    }
    drop(sender);
    let ends = readers.into_iter().map(|reader| reader.join().map_err(|_| "a thread panicked"));
    let ends = ends.collect::<Result<Vec<_>, _>>()?.concat();
    Ok(Overload { came: came as usize, ends, refusals })
}

/// Seconds until three requests in a row take at most half as long again as they usually do.
fn recovery(engine: &Engine, usual: f64) -> Outcome<f64> {
    let (since, mut in_a_row, mut number) = (Instant::now(), 0, 0);
    while in_a_row < 3 {
        number += 1;
        in_a_row = if alone(engine, number)? < 1.5 * usual { in_a_row + 1 } else { 0 };
        if since.elapsed() > Duration::from_secs(60) {
            return Err("a minute later it is still slow".into());
        }
    }
    Ok(since.elapsed().as_secs_f64())
}

fn is_whole(reply: &antiphon::Result<Reply>) -> bool {
    reply.as_ref().is_ok_and(|reply| reply.finish_reason() != FinishReason::Deadline)
}

fn request(number: usize) -> Request {
    Request::new(format!("Where is order {number}?")).max_tokens(32).cache(CacheMode::Bypass)
}

const TIMEOUT_MS: u64 = 1000;
