//! Analyses of many texts, and how long they took.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Progress;
use super::metrics::{quantile_ms, rounded};
use crate::engine::Engine;
use crate::error::Result;
use crate::reply::Analysis;

/// How long texts took.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Speed {
    /// Median time of one text, each waited for.
    pub p50_ms: f64,
    /// The time that 99 of 100 texts stayed below.
    pub p99_ms: f64,
    /// Texts a second when they come in batches.
    pub texts_per_second: f64,
}

/// How much an intent's ranking holds.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Ranking {
    /// What a host gets.
    Best,
    /// Every label.
    Whole,
}

/// Analyses texts, given with the numbers of their lines: one by one for the latency, in batches for the rate.
pub(super) fn analyze(
    engine: &Engine,
    texts: &[(usize, &str)],
    ranking: Ranking,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<(Vec<Analysis>, Speed)> {
    let mut progress = Progress { done: 0, total: 2 * texts.len() };
    let mut advance = |texts: usize| {
        progress.done += texts;
        on_progress(progress);
    };
    let mut latencies = Vec::with_capacity(texts.len());
    for (line, text) in texts {
        let started = Instant::now();
        engine.analyze_blocking(text).map_err(|error| error.context(format_args!("line {line}")))?;
        latencies.push(started.elapsed());
        advance(1);
    }
    let mut analyses = Vec::with_capacity(texts.len());
    let started = Instant::now();
    for batch in texts.chunks(BATCH) {
        let batch: Vec<&str> = batch.iter().map(|(_, text)| *text).collect();
        analyses.extend(match ranking {
            Ranking::Best => engine.analyze_batch_blocking(&batch)?,
            Ranking::Whole => engine.rank(&batch).wait()?,
        });
        advance(batch.len());
    }
    let seconds = started.elapsed().as_secs_f64();
    let speed = Speed {
        p50_ms: rounded(quantile_ms(&latencies, 0.5)),
        p99_ms: rounded(quantile_ms(&latencies, 0.99)),
        texts_per_second: (texts.len() as f64 / seconds.max(1e-9)).round(),
    };
    Ok((analyses, speed))
}

/// Texts that go through the encoder together.
const BATCH: usize = 32;
