//! Answers: how much better the true one is than others, and what greedy ones look like.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::dataset::Dialogue;
use super::metrics::{rounded, share};
use super::{Dataset, Progress};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{CacheMode, RequestOptions};
use crate::reply::FinishReason;
use crate::request::{Generate, Message, Request};
use crate::responder::Responder;
use crate::responder::Voice;
use crate::responder::score::{Score, Scorer};

/// What was measured of answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ResponsesReport {
    /// Dialogues.
    pub examples: usize,
    /// Share of dialogues whose true answer has a lower perplexity than each of nine others.
    pub true_of_ten: Conditioned,
    /// Perplexity per token of all true answers, their ends included.
    pub perplexity: Conditioned,
    /// Share of greedy answers that end by themselves within 128 tokens.
    pub ended_by_themselves: f64,
    /// Share of the greedy answers' runs of four tokens that stood before in the same answer.
    pub repeated_4grams: f64,
    /// Greedy answers that contain `{{`.
    pub with_placeholder: usize,
    /// Mean length of the greedy answers.
    pub mean_tokens: f64,
}

/// A figure with and without the analysis in the system text.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Conditioned {
    /// The prompt as [`Engine::process`] makes it, from the analyst's own analysis.
    pub with_analysis: f64,
    /// The dialogue without a system text.
    pub message_alone: f64,
}

pub(super) fn measure(
    engine: &Engine,
    data: &Dataset,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<ResponsesReport> {
    let shared = engine.shared();
    let Voice::Responder(index) = shared.choose(&RequestOptions::default())? else {
        let what = "no responder is configured, expected one";
        return Err(Error::new(ErrorKind::BackendUnavailable, what));
    };
    let responder = &shared.responders[index];
    let dialogues: Vec<Dialogue> =
        data.records().iter().map(super::dataset::Record::dialogue).collect::<Result<_>>()?;
    let answers = Answers::new(&dialogues, responder)?;
    let kv_bytes = shared.config.kv_cache_bytes as usize;
    let mut scorer = Scorer::new(responder, shared.threads, shared.isa, kv_bytes)?;

    let (mut conditioned, mut alone, mut greedy) = (Ranks::default(), Ranks::default(), Greedy::default());
    let total = dialogues.len();
    for (done, dialogue) in dialogues.iter().enumerate() {
        let mut one = || {
            let candidates = answers.candidates(dialogue);
            let analysis = engine.analyze_blocking(&dialogue.message)?;
            let request = Request::new(&dialogue.message)
                .history(dialogue.history.clone())
                .max_tokens(MAX_TOKENS)
                .cache(CacheMode::Bypass);
            conditioned.add(&scorer.score(&responder.prompt(&request, &analysis)?, &candidates)?);
            let mut turns = dialogue.history.clone();
            turns.push(Message::user(&dialogue.message));
            let turns = Generate::messages(turns).max_tokens(MAX_TOKENS);
            alone.add(&scorer.score(&responder.continuation(&turns)?, &candidates)?);
            let reply = engine.process_blocking(request)?;
            let ended = reply.metadata.response_generation.finish_reason == FinishReason::Stop;
            let tokens = responder.tokenizer.encode_text(&reply.response)?;
            greedy.add(ended, &tokens, reply.response.contains("{{"));
            Ok(())
        };
        one().map_err(|error: Error| error.context(format_args!("line {}", dialogue.line)))?;
        on_progress(Progress { done: done + 1, total });
    }
    let both = |of: fn(&Ranks) -> f64| Conditioned {
        with_analysis: rounded(of(&conditioned)),
        message_alone: rounded(of(&alone)),
    };
    Ok(ResponsesReport {
        examples: total,
        true_of_ten: both(|ranks| share(ranks.first, ranks.examples).unwrap_or(0.0)),
        perplexity: both(|ranks| ranks.truth.perplexity()),
        ended_by_themselves: rounded(share(greedy.ended, total).unwrap_or(0.0)),
        repeated_4grams: rounded(share(greedy.repeated, greedy.runs).unwrap_or(0.0)),
        with_placeholder: greedy.with_placeholder,
        mean_tokens: rounded(share(greedy.tokens, total).unwrap_or(0.0)),
    })
}

/// The answers of a file: their tokens with the end, and which belong to a category.
struct Answers<'a> {
    tokens: BTreeMap<&'a str, Vec<u32>>,
    by_category: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Answers<'a> {
    fn new(dialogues: &'a [Dialogue], responder: &Responder) -> Result<Self> {
        let (mut tokens, mut by_category) = (BTreeMap::new(), BTreeMap::<_, BTreeSet<_>>::new());
        let end = responder.tokenizer.eos_ids().first();
        for dialogue in dialogues {
            let mut ids = responder.tokenizer.encode_text(&dialogue.answer)?;
            ids.extend(end);
            tokens.insert(dialogue.answer.as_str(), ids);
            by_category.entry(dialogue.category.as_str()).or_default().insert(dialogue.answer.as_str());
        }
        if tokens.len() < 2 {
            let what = "every record has the same answer, expected others to compare with";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(Self { tokens, by_category })
    }

    /// The true answer, then nine others: of the same category if it has so many, else of the whole file. Which ones is
    /// decided by a hash of the line and the answer, so it is the same each time.
    fn candidates(&self, dialogue: &Dialogue) -> Vec<&[u32]> {
        let truth = dialogue.answer.as_str();
        let category = &self.by_category[dialogue.category.as_str()];
        let mut others: Vec<&str> = if category.len() > OTHERS {
            category.iter().copied().collect()
        } else {
            self.tokens.keys().copied().collect()
        };
        others.retain(|other| *other != truth);
        others.sort_by_cached_key(|other| {
            *blake3::Hasher::new()
                .update(&dialogue.line.to_le_bytes())
                .update(other.as_bytes())
                .finalize()
                .as_bytes()
        });
        others.truncate(OTHERS);
        std::iter::once(truth).chain(others).map(|answer| self.tokens[answer].as_slice()).collect()
    }
}

/// Where the true answers stand.
#[derive(Default)]
struct Ranks {
    examples: usize,
    first: usize,
    /// All true answers together.
    truth: Score,
}

impl Ranks {
    /// Scores of one dialogue's candidates, the true one first. A tie is not won.
    fn add(&mut self, scores: &[Score]) {
        let truth = scores[0];
        self.examples += 1;
        self.first += usize::from(scores[1..].iter().all(|other| truth.perplexity() < other.perplexity()));
        self.truth = self.truth.plus(truth);
    }
}

/// What greedy answers look like.
#[derive(Debug, Default, PartialEq)]
struct Greedy {
    ended: usize,
    tokens: usize,
    runs: usize,
    repeated: usize,
    with_placeholder: usize,
}

impl Greedy {
    fn add(&mut self, ended: bool, tokens: &[u32], placeholder: bool) {
        let runs = tokens.windows(4);
        let distinct: HashSet<&[u32]> = runs.clone().collect();
        self.ended += usize::from(ended);
        self.tokens += tokens.len();
        self.runs += runs.len();
        self.repeated += runs.len() - distinct.len();
        self.with_placeholder += usize::from(placeholder);
    }
}

/// Longest greedy answer.
const MAX_TOKENS: usize = 128;

/// Answers that the true one is compared with.
const OTHERS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_runs_of_four_are_counted_from_the_second_time_on() {
        let mut greedy = Greedy::default();
        greedy.add(true, &[1, 2, 3, 4, 1, 2, 3, 4, 1], false);
        // Runs: 1234 2341 3412 4123 1234 2341: two of six stood before.
        assert_eq!(greedy, Greedy { ended: 1, tokens: 9, runs: 6, repeated: 2, with_placeholder: 0 });
        greedy.add(false, &[1, 2, 3], true);
        assert_eq!(greedy, Greedy { ended: 1, tokens: 12, runs: 6, repeated: 2, with_placeholder: 1 });
    }

    #[test]
    fn the_true_answer_wins_by_its_perplexity_per_token_and_not_by_a_tie() {
        let score = |log_probability: f64, tokens| Score { log_probability, tokens };
        let mut ranks = Ranks::default();
        ranks.add(&[score(-8.0, 8), score(-3.0, 2)]); // longer, but likelier for each token
        ranks.add(&[score(-2.0, 2), score(-2.0, 2)]);
        assert_eq!((ranks.examples, ranks.first), (2, 1));
        assert!((ranks.truth.perplexity() - std::f64::consts::E).abs() < 1e-12);
    }
}
