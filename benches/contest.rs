//! What `peers` asks of a contestant and how it answers: a task a line on its input, a result a line on its output, in JSON.
//!
//! A contestant is one engine with one model and one number of threads. It opens the model with its first task, which may be
//! timed, and keeps it.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::measure::median;

/// What can go wrong in a bench: it is told and ends it.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Something to be timed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Task {
    /// Open the model, read a prompt and choose the token after it.
    FirstToken {
        /// Length of the prompt.
        tokens: usize,
    },
    /// Read a prompt and choose the token after it.
    Prompt {
        /// Length of the prompt.
        tokens: usize,
    },
    /// Write so many tokens after a context of so many, or those of so many seconds.
    Decode {
        /// Tokens that were read before; reading them is not timed.
        context: usize,
        /// Tokens to write in each stream.
        tokens: usize,
        /// Streams that are written at once.
        streams: usize,
        /// Time after which it is enough.
        seconds: f64,
    },
    /// Encode a batch, as often as so many seconds allow.
    Encode {
        /// Texts in the batch.
        texts: usize,
        /// Tokens of each.
        tokens: usize,
        /// Time after which it is enough.
        seconds: f64,
    },
    /// Tell the most memory that was ever resident.
    Memory,
    /// Read so many bytes over and over.
    Read {
        /// Size of the buffer.
        bytes: usize,
    },
    /// Multiply 8-bit numbers in registers.
    Multiply,
}

/// What a contestant is started with: its model, its threads, and the streams it has to have room for.
///
/// # Errors
/// The words are others.
pub fn arguments() -> Outcome<(PathBuf, usize, usize)> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, streams] = words.as_slice() else {
        return Err("expected MODEL THREADS STREAMS".into());
    };
    Ok((model.into(), threads.parse()?, streams.parse()?))
}

/// Answers one task after another until the input ends.
///
/// # Errors
/// The first that a task has, or a line that is none.
pub fn serve(mut answer: impl FnMut(Task) -> Outcome<Value>) -> Outcome {
    for line in io::stdin().lock().lines() {
        let result = answer(serde_json::from_str(&line?)?)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{result}")?;
        out.flush()?;
    }
    Ok(())
}

/// How long it takes to find the token after a prompt, and which one it is: engines that compute the same agree on it.
///
/// # Errors
/// The work's.
pub fn timed(work: impl FnOnce() -> Outcome<u32>) -> Outcome<Value> {
    let start = Instant::now();
    let token = work()?;
    Ok(json!({"seconds": start.elapsed().as_secs_f64(), "token": token}))
}

/// Takes steps one after another, and tells the seconds between their ends.
///
/// # Errors
/// The first that a step has.
pub fn stepped(steps: usize, seconds: f64, mut step: impl FnMut() -> Outcome) -> Outcome<Value> {
    let mut gaps = Vec::with_capacity(steps);
    let start = Instant::now();
    let mut last = start;
    while gaps.len() < steps && (gaps.len() < FEWEST || (last - start).as_secs_f64() < seconds) {
        step()?;
        let now = Instant::now();
        gaps.push((now - last).as_secs_f64());
        last = now;
    }
    Ok(json!({"steps": gaps.len(), "seconds": (last - start).as_secs_f64(), "gaps": gaps}))
}

/// Repeats a call for so many seconds, and tells the median of what it took.
///
/// # Errors
/// The first that a call has.
pub fn repeated(seconds: f64, mut call: impl FnMut() -> Outcome) -> Outcome<Value> {
    let start = Instant::now();
    let mut spans = Vec::new();
    while spans.len() < 3 || start.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        call()?;
        spans.push(begun.elapsed().as_secs_f64());
    }
    Ok(json!({"calls": spans.len(), "seconds": median(spans.into_iter())}))
}

/// The tokens of every prompt: numbers without a pattern that a cache could find.
pub fn token(stream: usize, position: usize, vocab: usize) -> u32 {
    ((position * 7919 + stream * 104_729 + 1) % vocab) as u32
}

/// Memory of this process, mapped files included, as Linux counts it.
#[derive(Clone, Copy)]
pub struct Resident {
    now: usize,
    peak: usize,
}

impl Resident {
    /// What it is at this moment.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
            kilobytes.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0) * 1024
        };
        Self { now: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// What came on top since `before`: what stays, and the most there ever was.
    pub fn since(self, before: Self) -> Value {
        json!({"bytes": self.now - before.now, "peak_bytes": self.peak - before.now})
    }
}

/// Tokens that each stream has room for.
pub const ROOM: usize = 2048;
/// Steps that are taken however slow they are.
const FEWEST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_after_their_number_or_their_time() {
        let taken = |steps, seconds| {
            stepped(steps, seconds, || Ok(())).expect("steps without errors")["steps"].as_u64()
        };
        assert_eq!(taken(64, 1e9), Some(64));
        assert_eq!(taken(64, 0.0), Some(FEWEST as u64));
    }
}
