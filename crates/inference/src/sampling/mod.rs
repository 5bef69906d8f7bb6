//! From logits to the next token: penalties, bias, temperature, top-k, top-p, min-p, in that order.
//!
//! The same logits, settings and seed give the same token on every machine: sums run in one fixed order in `f64`, `exp`
//! and `ln` are not the platform's (which may differ in the last bit), ties go to the lower number, and the random number of
//! a step depends on the seed and the step alone, not on what was drawn before.

mod math;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::ops::RangeInclusive;

use antiphon_kernels::ops;

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
    /// Logits after penalties and bias, then weights.
    adjusted: Vec<f32>,
    /// The tokens that top-k leaves, and their logits, likeliest first.
    kept: Vec<(u32, f32)>,
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
        let (adjusted, kept, candidates) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { settings, vocab, step: 0, counts: HashMap::new(), adjusted, kept, candidates })
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

    /// Chooses the next token. `logits` has one number for each token; minus infinity rules a token out.
    ///
    /// # Errors
    /// `Invalid` if a logit is NaN or plus infinity, or all are minus infinity; `InvalidArgument` for a wrong length.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let first = self.check_logits(logits)?;
        let step = self.step;
        self.step += 1;
        let is_greedy = self.settings.temperature == 0.0;
        if is_greedy && !self.settings.penalizes() && self.settings.logit_bias.is_empty() {
            return Ok(first);
        }
        self.adjust(logits);
        if is_greedy {
            return Ok(likeliest(&self.adjusted).0);
        }
        self.weigh();
        let share = uniform(self.settings.seed, step);
        Ok(if self.settings.leaves_all() {
            draw((0..).zip(self.adjusted.iter().copied().map(f64::from)), share)
        } else {
            draw(self.candidates.iter().copied(), share)
        })
    }

    /// The log-probabilities of `chosen` and of the `top` likeliest tokens under the model's own logits.
    ///
    /// # Errors
    /// As [`Self::sample`]; `InvalidArgument` for a token beyond the vocabulary or more than [`MAX_TOP`].
    pub fn log_probabilities(&self, logits: &[f32], chosen: u32, top: usize) -> Result<LogProbabilities> {
        self.check_logits(logits)?;
        if chosen as usize >= self.vocab {
            return Err(refused("chosen", chosen, format_args!("a token below {}", self.vocab)));
        }
        if top > MAX_TOP {
            return Err(refused("logprobs", top, format_args!("0 to {MAX_TOP}")));
        }
        let greatest = likeliest(logits).1;
        let mut weights: Vec<f32> = logits.iter().map(|logit| logit - greatest).collect();
        ops::exp(&mut weights);
        let shift = f64::from(greatest) + ln(weights.iter().copied().map(f64::from).sum());
        let mut order: Vec<(u32, f64)> =
            (0..).zip(logits.iter().map(|&logit| f64::from(logit) - shift)).collect();
        keep_first(&mut order, top);
        Ok(LogProbabilities { chosen: f64::from(logits[chosen as usize]) - shift, top: order })
    }

    /// Applies penalties and bias.
    fn adjust(&mut self, logits: &[f32]) {
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        let settings = &self.settings;
        let counts = Some(&self.counts).filter(|_| settings.penalizes());
        for (&id, &count) in counts.into_iter().flatten() {
            let Some(logit) = self.adjusted.get_mut(id as usize).filter(|logit| logit.is_finite()) else {
                continue;
            };
            // dividing a negative logit would make the token likelier
            *logit = if *logit > 0.0 {
                *logit / settings.repetition_penalty
            } else {
                *logit * settings.repetition_penalty
            };
            if count > 0 {
                *logit -= settings.presence_penalty + settings.frequency_penalty * count as f32;
            }
            *logit = logit.clamp(f32::MIN, f32::MAX);
        }
        for (&id, &bias) in &settings.logit_bias {
            let logit = &mut self.adjusted[id as usize];
            *logit = if logit.is_finite() { (*logit + bias).clamp(f32::MIN, f32::MAX) } else { *logit };
        }
    }

    /// Makes weights of the logits, the likeliest having weight one, and fills `candidates` with the tokens that remain, if some do
    /// not; in order where the settings ask for one.
    fn weigh(&mut self) {
        let greatest = likeliest(&self.adjusted).1;
        let Sampling { temperature, min_p, .. } = self.settings;
        let top_k = self.settings.top_k.filter(|top_k| *top_k < self.adjusted.len());
        let top_p = self.settings.top_p.filter(|top_p| *top_p < 1.0).map(f64::from);
        // Of a large vocabulary few tokens are looked at twice: the others are not even weighed.
        if let Some(top_k) = top_k {
            keep_greatest(&self.adjusted, top_k, &mut self.kept);
            self.adjusted.clear();
            self.adjusted.extend(self.kept.iter().map(|(_, logit)| logit));
        }
        self.adjusted.iter_mut().for_each(|logit| *logit = (*logit - greatest) / temperature);
        ops::exp(&mut self.adjusted);
        if self.settings.leaves_all() {
            return;
        }
        let weights = self.adjusted.iter().copied().map(f64::from);
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

    /// The likeliest token, if the logits are sound.
    fn check_logits(&self, logits: &[f32]) -> Result<u32> {
        if logits.len() != self.vocab {
            return Err(refused(
                "logits",
                logits.len(),
                format_args!("one for each of {} tokens", self.vocab),
            ));
        }
        let step = self.step;
        match ops::largest(logits) {
            None => {
                let is_unsound = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
                let id = logits.iter().position(is_unsound).unwrap_or_default();
                let what = format!(
                    "step {step}: the logit of token {id} is {}, expected a finite number",
                    logits[id]
                );
                Err(Error::invalid(what))
            }
            Some((_, f32::NEG_INFINITY)) => {
                let what = format!("step {step}: every logit is minus infinity, expected a finite one");
                Err(Error::invalid(what))
            }
            Some((id, _)) => Ok(id as u32),
        }
    }
}

/// The greatest of logits that were found sound, and its token, the lowest of equals.
fn likeliest(logits: &[f32]) -> (u32, f32) {
    let (id, greatest) = ops::largest(logits).expect("sound logits, at least one");
    (id as u32, greatest)
}

/// The `count` greatest logits above minus infinity and their tokens, in order: of equals the lower number goes first.
fn keep_greatest(logits: &[f32], count: usize, kept: &mut Vec<(u32, f32)>) {
    kept.clear();
    // What a logit has to exceed, as so many at least as great come before it.
    let mut least = f32::NEG_INFINITY;
    for (start, logits) in (0..).step_by(RUN).zip(logits.chunks(RUN)) {
        // Nearly always there is none: comparing all of a run takes no branches.
        if !logits.iter().fold(false, |any, logit| any | (*logit > least)) {
            continue;
        }
        kept.extend((start..).zip(logits.iter().copied()).filter(|(_, logit)| *logit > least));
        if kept.len() >= count + ROOM {
            kept.select_nth_unstable_by(count - 1, likelier);
            kept.truncate(count);
            least = kept[count - 1].1;
        }
    }
    keep_first(kept, count);
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

/// Logits that are compared together, and how many are gathered beyond those wanted before the lesser ones are dropped.
const RUN: usize = 64;
const ROOM: usize = 256;
/// How many likeliest tokens [`Sampler::log_probabilities`] lists at most.
pub const MAX_TOP: usize = 20;

#[cfg(test)]
mod tests;
