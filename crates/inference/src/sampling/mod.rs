//! From logits to the next token: penalties, bias, temperature, top-k, top-p, min-p, in that order.
//!
//! The same logits, settings and seed give the same token on every machine: sums run in one fixed order in `f64`, `exp`
//! and `ln` are not the platform's (which may differ in the last bit), ties go to the lower number, and the random number of
//! a step depends on the seed and the step alone, not on what was drawn before.

mod logits;
mod math;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::ops::RangeInclusive;

use antiphon_kernels::ops;

pub use self::logits::{Logits, LogitsBuf};
use self::math::{ln, uniform};
use crate::error::{Error, ErrorKind, Result};

/// How to choose among the next tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy, 1 follows the model; 0 to 2. Default 0.
    pub temperature: f32,
    /// Only the `k` likeliest tokens; at least 1. Default all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability; above 0, up to 1. Default all.
    pub top_p: Option<f32>,
    /// Only tokens at least this probable relative to the likeliest; 0 to 1. Default all.
    pub min_p: Option<f32>,
    /// Makes tokens of the prompt and the answer less likely above 1, more likely below; above 0, up to 10. Default 1.
    pub repetition_penalty: f32,
    /// Taken off the logit of each token of the answer; -2 to 2. Default 0.
    pub presence_penalty: f32,
    /// Taken off the logit for each time the token is in the answer; -2 to 2. Default 0.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens; -100 to 100. Default none.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Where the random numbers come from. Default 0.
    pub seed: u64,
}

/// Chooses the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Sampling,
    vocab: usize,
    /// How many tokens have been chosen.
    step: u64,
    /// Tokens of the prompt (zero) and of the answer (how often).
    counts: HashMap<u32, u32>,
    /// Logits after penalties and bias.
    adjusted: LogitsBuf,
    /// The tokens that top-k leaves, and their logits, likeliest first; and the runs that they were found in.
    kept: Vec<(u32, f32)>,
    runs: Vec<(u32, f32)>,
    /// Of the kept, or of all.
    weights: Vec<f32>,
    /// Tokens with their weights, likeliest first where an order is needed.
    candidates: Vec<(u32, f64)>,
}

/// Log-probabilities of one step, under the model itself: before penalties, bias and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbabilities {
    /// Of the token that was chosen.
    pub chosen: f64,
    /// The likeliest tokens and theirs, in order.
    pub top: Vec<(u32, f64)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether tokens that occurred are less likely, or likelier.
    fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether single tokens are made less likely, or likelier.
    fn adjusts(&self) -> bool {
        self.penalizes() || !self.logit_bias.is_empty()
    }

    /// Whether no token is cut off, however unlikely it is.
    fn leaves_all(&self) -> bool {
        self.top_k.is_none()
            && self.top_p.is_none_or(|top_p| top_p >= 1.0)
            && self.min_p.is_none_or(|min_p| min_p <= 0.0)
    }

    /// Checks every field's range; token numbers have to be below `vocab`.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the field, its value and the range.
    pub fn check(&self, vocab: usize) -> Result<()> {
        within("temperature", self.temperature, 0.0..=2.0)?;
        if let Some(top_k) = self.top_k.filter(|top_k| *top_k == 0) {
            return Err(refused("top_k", top_k, "at least 1"));
        }
        if let Some(top_p) = self.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            return Err(refused("top_p", top_p, "above 0 and up to 1"));
        }
        within("min_p", self.min_p.unwrap_or(0.0), 0.0..=1.0)?;
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 10.0) {
            return Err(refused("repetition_penalty", self.repetition_penalty, "above 0 and up to 10"));
        }
        within("presence_penalty", self.presence_penalty, -2.0..=2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?;
        for (&id, &bias) in &self.logit_bias {
            if id as usize >= vocab {
                return Err(refused(
                    "logit_bias",
                    format_args!("token {id}"),
                    format_args!("a token below {vocab}"),
                ));
            }
            within("logit_bias", bias, -100.0..=100.0)?;
        }
        Ok(())
    }
}

impl Sampler {
    /// A sampler for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// As [`Sampling::check`].
    pub fn new(settings: Sampling, vocab: usize) -> Result<Self> {
        settings.check(vocab)?;
        Ok(Self {
            settings,
            vocab,
            step: 0,
            counts: HashMap::new(),
            adjusted: LogitsBuf::default(),
            kept: Vec::new(),
            runs: Vec::new(),
            weights: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Tells the tokens of the prompt: the repetition penalty applies to them.
    pub fn accept_prompt(&mut self, ids: &[u32]) {
        if self.settings.repetition_penalty != 1.0 {
            ids.iter().for_each(|&id| _ = self.counts.entry(id).or_insert(0));
        }
    }

    /// Tells a token of the answer: all penalties apply to it.
    pub fn accept(&mut self, id: u32) {
        *self.counts.entry(id).or_insert(0) += 1;
    }

    /// Chooses the next token. Of greedy settings, and with top-k, few logits are looked at.
    ///
    /// # Errors
    /// `Invalid` if a logit is NaN or plus infinity, or all are minus infinity; `InvalidArgument` for a wrong length.
    pub fn sample(&mut self, logits: Logits<'_>) -> Result<u32> {
        let likeliest = self.check_logits(logits)?;
        let step = self.step;
        self.step += 1;
        if !self.settings.adjusts() {
            return Ok(self.choose(logits, likeliest, step));
        }
        let mut adjusted = std::mem::take(&mut self.adjusted);
        self.adjust(logits, &mut adjusted);
        let likeliest = self.check_logits(adjusted.view())?;
        let token = self.choose(adjusted.view(), likeliest, step);
        self.adjusted = adjusted;
        Ok(token)
    }

    /// Chooses among sound logits, of which the greatest is known.
    fn choose(&mut self, logits: Logits<'_>, likeliest: (u32, f32), step: u64) -> u32 {
        if self.settings.temperature == 0.0 {
            return likeliest.0;
        }
        self.weigh(logits, likeliest.1);
        let share = uniform(self.settings.seed, step);
        if self.settings.leaves_all() {
            draw((0..).zip(self.weights.iter().copied().map(f64::from)), share)
        } else {
            draw(self.candidates.iter().copied(), share)
        }
    }

    /// The log-probabilities of `chosen` and of the `top` likeliest tokens under the model's own logits.
    ///
    /// # Errors
    /// As [`Self::sample`]; `InvalidArgument` for a token beyond the vocabulary or more than [`MAX_TOP`].
    pub fn log_probabilities(&self, logits: Logits<'_>, chosen: u32, top: usize) -> Result<LogProbabilities> {
        let (_, greatest) = self.check_logits(logits)?;
        if chosen as usize >= self.vocab {
            return Err(refused("chosen", chosen, format_args!("a token below {}", self.vocab)));
        }
        if top > MAX_TOP {
            return Err(refused("logprobs", top, format_args!("0 to {MAX_TOP}")));
        }
        let mut weights: Vec<f32> = logits.values().iter().map(|logit| logit - greatest).collect();
        ops::exp(&mut weights);
        let shift = f64::from(greatest) + ln(weights.iter().copied().map(f64::from).sum());
        let (mut runs, mut kept) = (Vec::new(), Vec::new());
        logits.greatest(top, &mut runs, &mut kept);
        let log_probability = |logit: f32| f64::from(logit) - shift;
        Ok(LogProbabilities {
            chosen: log_probability(logits.values()[chosen as usize]),
            top: kept.into_iter().map(|(id, logit)| (id, log_probability(logit))).collect(),
        })
    }

    /// Applies penalties and bias.
    fn adjust(&self, logits: Logits<'_>, adjusted: &mut LogitsBuf) {
        adjusted.copy_from(logits);
        let settings = &self.settings;
        let counts = Some(&self.counts).filter(|_| settings.penalizes());
        for (&id, &count) in counts.into_iter().flatten() {
            adjusted.edit(id, |logit| {
                // dividing a negative logit would make the token likelier
                let repeated = if logit > 0.0 {
                    logit / settings.repetition_penalty
                } else {
                    logit * settings.repetition_penalty
                };
                let penalty = settings.presence_penalty + settings.frequency_penalty * count as f32;
                if count > 0 { repeated - penalty } else { repeated }
            });
        }
        for (&id, &bias) in &settings.logit_bias {
            adjusted.edit(id, |logit| logit + bias);
        }
    }

    /// Makes weights of the logits, the likeliest having weight one, and fills `candidates` with the tokens that remain, if some do
    /// not; in order where the settings ask for one.
    fn weigh(&mut self, logits: Logits<'_>, greatest: f32) {
        let Sampling { temperature, min_p, .. } = self.settings;
        let top_k = self.settings.top_k.filter(|top_k| *top_k < self.vocab);
        let top_p = self.settings.top_p.filter(|top_p| *top_p < 1.0).map(f64::from);
        let weight = |logit: &f32| (logit - greatest) / temperature;
        self.weights.clear();
        if let Some(top_k) = top_k {
            logits.greatest(top_k, &mut self.runs, &mut self.kept);
            self.weights.extend(self.kept.iter().map(|(_, logit)| weight(logit)));
        } else {
            self.weights.extend(logits.values().iter().map(weight));
        }
        ops::exp(&mut self.weights);
        if self.settings.leaves_all() {
            return;
        }
        let weights = self.weights.iter().copied().map(f64::from);
        let total: f64 = weights.clone().sum();
        let mut least = f64::from(min_p.unwrap_or(0.0));
        if let Some(top_p) = top_p {
            // tokens below this share cannot be needed: all of them together stay below what is cut off
            let count = weights.clone().filter(|weight| *weight > 0.0).count();
            least = least.max(total * (1.0 - top_p) / count as f64);
        }
        let id = |index: usize| if top_k.is_some() { self.kept[index].0 } else { index as u32 };
        let remaining = weights.enumerate().filter(|(_, weight)| *weight > 0.0 && *weight >= least);
        self.candidates.clear();
        self.candidates.extend(remaining.map(|(index, weight)| (id(index), weight)));
        if let Some(top_p) = top_p {
            self.candidates.sort_unstable_by(likelier);
            let mut sum = 0.0;
            let enough = self.candidates.iter().position(|(_, weight)| {
                sum += weight;
                sum >= top_p * total
            });
            self.candidates.truncate(enough.map_or(self.candidates.len(), |last| last + 1));
        }
    }

    /// The likeliest token and its logit, if the logits are sound.
    fn check_logits(&self, logits: Logits<'_>) -> Result<(u32, f32)> {
        let (step, values) = (self.step, logits.values());
        if values.len() != self.vocab {
            let expected = format_args!("one for each of {} tokens", self.vocab);
            return Err(refused("logits", values.len(), expected));
        }
        match logits.likeliest() {
            None => {
                let is_unsound = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
                let id = values.iter().position(is_unsound).unwrap_or_default();
                let what = format!(
                    "step {step}: the logit of token {id} is {}, expected a finite number",
                    values[id]
                );
                Err(Error::invalid(what))
            }
            Some((_, f32::NEG_INFINITY)) => {
                let what = format!("step {step}: every logit is minus infinity, expected a finite one");
                Err(Error::invalid(what))
            }
            Some(likeliest) => Ok(likeliest),
        }
    }
}

/// The token at this share of all weights, 0 to 1, of which one is above 0.
fn draw(weights: impl Iterator<Item = (u32, f64)> + Clone, share: f64) -> u32 {
    let target = share * weights.clone().map(|(_, weight)| weight).sum::<f64>();
    let (mut sum, mut last) = (0.0, 0);
    for (id, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        sum += weight;
        last = id;
        if sum > target {
            break;
        }
    }
    // `target` is below the sum of all, which is the same sum: only rounding of the product leads to the last one
    last
}

/// Keeps the `count` likeliest, in order.
fn keep_first<T: Copy + Into<f64>>(candidates: &mut Vec<(u32, T)>, count: usize) {
    if count < candidates.len() {
        if count > 0 {
            candidates.select_nth_unstable_by(count - 1, likelier);
        }
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(likelier);
}

/// Descending weight, then ascending number: a total order, so that sorting cannot depend on the input's order.
fn likelier<T: Copy + Into<f64>>(a: &(u32, T), b: &(u32, T)) -> Ordering {
    b.1.into().total_cmp(&a.1.into()).then(a.0.cmp(&b.0))
}

fn within(name: &str, value: f32, range: RangeInclusive<f32>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refused(name, value, format_args!("{} to {}", range.start(), range.end())))
}

fn refused(name: &str, value: impl Display, expected: impl Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} is {value}, expected {expected}"))
}

/// How many likeliest tokens [`Sampler::log_probabilities`] lists at most.
pub const MAX_TOP: usize = 20;

#[cfg(test)]
mod tests;
