//! How to answer: the options of a request, their defaults and their ranges.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use antiphon_inference::sampling::MAX_TOP;
use antiphon_inference::stop::{MAX_STOP_BYTES, MAX_STOPS};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// How to answer. Every default is the one of [`RequestOptions::default`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RequestOptions {
    /// Longest answer in tokens, 1 to 1,048,576. Default: 256.
    pub max_tokens: usize,
    /// 0 is greedy; 0 to 2. Default: 0.
    pub temperature: f32,
    /// Only the so many likeliest tokens, at least 1. Default: all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that make up this share, above 0 to 1. Default: all.
    pub top_p: Option<f32>,
    /// Only tokens at least so likely relative to the likeliest, 0 to 1. Default: all.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens that occurred, above 0 to 10. Default: 1, off.
    pub repetition_penalty: f32,
    /// Subtracted once from tokens that occurred in the answer, -2 to 2. Default: 0.
    pub presence_penalty: f32,
    /// Subtracted for each time a token occurred in the answer, -2 to 2. Default: 0.
    pub frequency_penalty: f32,
    /// Added to the logits of tokens by id, -100 to 100. Default: none.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Seed of a sampled answer. Default: drawn, and reported in `repro.seed`.
    pub seed: Option<u64>,
    /// Texts that end the answer and are not part of it; at most 16 of 1 to 256 bytes. Default: none.
    pub stop: Vec<String>,
    /// With each chunk, log-probabilities of its tokens and of so many alternatives, 0 to 20. Default: none.
    pub logprobs: Option<usize>,
    /// Only null so far.
    pub response_format: Option<Value>,
    /// Time for queue, prompt and answer together. Default: the batcher's `timeout_ms`, which also bounds it.
    pub deadline_ms: Option<u64>,
    /// Who goes first when requests wait. Default: normal.
    pub priority: Priority,
    /// Whether a cached answer may serve. Default: use.
    pub cache: CacheMode,
    /// What happens to a history that does not fit. Default: the oldest turns are left out, never the system text.
    pub overflow: Overflow,
    /// A name from `models()`. Default: the engine's responder.
    pub model: Option<String>,
}

/// Who goes first when requests wait.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After all others.
    Low,
    /// In the order of arrival.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// Whether a cached answer may serve.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Take a cached answer, keep a new one.
    #[default]
    Use,
    /// Compute anew and keep the answer.
    Refresh,
    /// Neither take nor keep.
    Bypass,
}

/// What happens to a history that does not fit the context.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The request is refused.
    Error,
    /// The oldest turns are left out, never the system text.
    #[default]
    TruncateOldest,
}

impl RequestOptions {
    /// Whether equal requests get equal answers: greedy, or sampled with a seed of the caller.
    pub(crate) fn is_deterministic(&self) -> bool {
        self.temperature == 0.0 || self.seed.is_some()
    }

    pub(crate) fn deadline(&self, longest: Duration) -> Duration {
        self.deadline_ms.map_or(longest, |ms| Duration::from_millis(ms).min(longest))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        number("max_tokens", self.max_tokens as f64, 1.0..=1_048_576.0)?;
        number("temperature", self.temperature.into(), 0.0..=2.0)?;
        if let Some(k) = self.top_k {
            number("top_k", k as f64, 1.0..=4_294_967_295.0)?;
        }
        if let Some(p) = self.top_p {
            number("top_p", p.into(), f64::MIN_POSITIVE..=1.0)?;
        }
        if let Some(p) = self.min_p {
            number("min_p", p.into(), 0.0..=1.0)?;
        }
        number("repetition_penalty", self.repetition_penalty.into(), f64::from(f32::MIN_POSITIVE)..=10.0)?;
        number("presence_penalty", self.presence_penalty.into(), -2.0..=2.0)?;
        number("frequency_penalty", self.frequency_penalty.into(), -2.0..=2.0)?;
        number("logit_bias", self.logit_bias.len() as f64, 0.0..=1024.0)?;
        for bias in self.logit_bias.values() {
            number("logit_bias", f64::from(*bias), -100.0..=100.0)?;
        }
        let stops = self.stop.len();
        if stops > MAX_STOPS {
            let expected = format!("at most {MAX_STOPS}");
            return Err(out_of_range("stop", format_args!("{stops} texts"), &expected));
        }
        for stop in &self.stop {
            if !(1..=MAX_STOP_BYTES).contains(&stop.len()) {
                let bytes = stop.len();
                let expected = format!("1 to {MAX_STOP_BYTES} bytes each");
                return Err(out_of_range("stop", format_args!("a text of {bytes} bytes"), &expected));
            }
        }
        if let Some(alternatives) = self.logprobs {
            number("logprobs", alternatives as f64, 0.0..=MAX_TOP as f64)?;
        }
        if self.response_format.is_some() {
            return Err(out_of_range("response_format", format_args!("set"), "null"));
        }
        if let Some(ms) = self.deadline_ms {
            number("deadline_ms", ms as f64, 1.0..=9e15)?;
        }
        Ok(())
    }
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
            stop: Vec::new(),
            logprobs: None,
            response_format: None,
            deadline_ms: None,
            priority: Priority::default(),
            cache: CacheMode::default(),
            overflow: Overflow::default(),
            model: None,
        }
    }
}

fn number(name: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    // The smallest positive number stands for "above 0".
    let low = if *range.start() > 0.0 && *range.start() < 1e-30 {
        "above 0".into()
    } else {
        range.start().to_string()
    };
    Err(out_of_range(name, format_args!("{value}"), &format!("{low} to {}", range.end())))
}

pub(crate) fn out_of_range(name: &str, value: fmt::Arguments<'_>, expected: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("`{name}` is {value}, expected {expected}"))
}
