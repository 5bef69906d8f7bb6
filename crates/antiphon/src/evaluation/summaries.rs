//! Summaries: how much they have in common with those that people wrote, beside the first three sentences of the text.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::metrics::{quantile_ms, rounded};
use super::{Dataset, Progress};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::summary::{SummaryOptions, split};

/// What was measured of summaries.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SummariesReport {
    /// Texts.
    pub examples: usize,
    /// Mean ROUGE-L of summaries of three sentences.
    pub rouge_l: f64,
    /// Mean ROUGE-L of the first three sentences.
    pub lead_3_rouge_l: f64,
    /// Median time of one text.
    pub p50_ms: f64,
    /// Texts a second, one after the other.
    pub texts_per_second: f64,
}

pub(super) fn measure(
    engine: &Engine,
    data: &Dataset,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<SummariesReport> {
    let total = data.len();
    let (mut ours, mut lead, mut latencies) = (0.0, 0.0, Vec::with_capacity(total));
    for (done, record) in data.records().iter().enumerate() {
        let (text, reference) = (record.string("dialogue")?, record.string("summary")?);
        let started = Instant::now();
        let summary = engine
            .summarize_blocking(text, SummaryOptions::default().sentences(SENTENCES))
            .map_err(|error: Error| error.context(format_args!("line {}", record.line)))?;
        latencies.push(started.elapsed());
        let first = split::render(split::sentences(text).iter().take(SENTENCES));
        ours += rouge_l(&summary, reference);
        lead += rouge_l(&first, reference);
        on_progress(Progress { done: done + 1, total });
    }
    let seconds: f64 = latencies.iter().map(|latency| latency.as_secs_f64()).sum();
    Ok(SummariesReport {
        examples: total,
        rouge_l: rounded(ours / total as f64),
        lead_3_rouge_l: rounded(lead / total as f64),
        p50_ms: rounded(quantile_ms(&latencies, 0.5)),
        texts_per_second: (total as f64 / seconds.max(1e-9)).round(),
    })
}

/// The F1 of the longest common subsequence of lower-cased words (Lin 2004); a word is a run of letters and digits.
fn rouge_l(candidate: &str, reference: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let (candidate, reference) = (words(candidate), words(reference));
    // 2PR / (P + R) with P = common / candidate and R = common / reference.
    let both = candidate.len() + reference.len();
    if both == 0 { 0.0 } else { 2.0 * longest_common(&candidate, &reference) as f64 / both as f64 }
}

/// The length of the longest common subsequence.
fn longest_common(a: &[String], b: &[String]) -> usize {
    // Of what was read of `a` with each beginning of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (place, other) in b.iter().enumerate() {
            let above = lengths[place + 1];
            lengths[place + 1] = if word == other { diagonal + 1 } else { above.max(lengths[place]) };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

/// Sentences of a summary, ours and the baseline's.
const SENTENCES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_rouge(candidate: &str, reference: &str, expected: f64) {
        for (a, b) in [(candidate, reference), (reference, candidate)] {
            assert!((rouge_l(a, b) - expected).abs() < 1e-12, "{a} | {b}: {}", rouge_l(a, b));
        }
    }

    #[test]
    fn rouge_l_is_what_it_is_by_hand() {
        // Common: police the gunman (not `killed`, which stands elsewhere): 3 of 4 and of 4.
        assert_rouge("police kill the gunman", "police killed the gunman", 0.75);
        // Common: the gunman: 2 of 4 and 4.
        assert_rouge("the gunman kill police", "police killed the gunman", 0.5);
        // Common: a c e: P 3/5, R 3/3.
        assert_rouge("a b c d e", "a c e", 0.75);
        // Order counts: one of two.
        assert_rouge("b a", "a b", 0.5);
    }

    #[test]
    fn case_and_punctuation_do_not_count() {
        assert_rouge("#Person1#: Don't!", "person1 DON T", 1.0);
        assert_rouge("Grüße, Zoë", "grüße zoë", 1.0);
        assert_rouge("", "a", 0.0);
        assert_rouge("…", "!", 0.0);
    }
}
