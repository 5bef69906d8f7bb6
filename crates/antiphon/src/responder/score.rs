//! How likely given answers are: the decoder reads them and its own next words are held against theirs.

use std::sync::atomic::AtomicBool;

use antiphon_inference::decoder::Row;
use antiphon_inference::kv::{BlockPool, BlockTable};
use antiphon_inference::sampling::{Logits, LogitsBuf, Sampler, Sampling};
use antiphon_kernels::{Arena, Isa, Pool};

use super::Responder;
use crate::error::{Error, ErrorKind, Result};

/// Reads prompts and answers beside the batch, with threads and key/value rows of its own.
pub(crate) struct Scorer<'a> {
    responder: &'a Responder,
    pool: Pool,
    arena: Arena,
    blocks: BlockPool,
    table: BlockTable,
    /// Prompt and answer together.
    room: usize,
    sampler: Sampler,
}

/// How likely an answer is after a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Score {
    /// Sum of the tokens' log-probabilities.
    pub(crate) log_probability: f64,
    pub(crate) tokens: usize,
}

impl<'a> Scorer<'a> {
    /// Key/value rows for one context, as far as `kv_bytes` go.
    pub(crate) fn new(responder: &'a Responder, threads: usize, isa: Isa, kv_bytes: usize) -> Result<Self> {
        let config = responder.decoder.config();
        let pool = Pool::new(threads, isa).map_err(|error| {
            let what = format!("starting {threads} threads failed: {error}");
            Error::with_source(ErrorKind::Io, what, error)
        })?;
        let mut blocks = BlockPool::new(config, kv_bytes, responder.context_tokens)?;
        let room = responder.context_tokens.min(blocks.capacity_tokens());
        let table = blocks.reserve(room).expect("the pool is new and has this capacity");
        let sampler = Sampler::new(Sampling::default(), config.vocab)?;
        Ok(Self { responder, pool, arena: Arena::new(), blocks, table, room, sampler })
    }

    /// How likely each answer is after the prompt, which is read once. An answer that does not fit is read as far as there
    /// is room.
    pub(crate) fn score(&mut self, prompt: &[u32], answers: &[&[u32]]) -> Result<Vec<Score>> {
        let room = self.room.saturating_sub(prompt.len());
        let mut first = LogitsBuf::default();
        self.read(prompt, 0, prompt.len() - 1, |_, logits, _| {
            first = logits.into();
            Ok(())
        })?;
        let mut scores = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = &answer[..answer.len().min(room)];
            let [head, ..] = answer else {
                scores.push(Score::default());
                continue;
            };
            let mut sum = self.sampler.log_probabilities(first.view(), *head, 0)?.chosen;
            // Each answer overwrites the rows of the one before; rows behind a position are not looked at.
            self.read(&answer[..answer.len() - 1], prompt.len(), 0, |index, logits, sampler| {
                sum += sampler.log_probabilities(logits, answer[index + 1], 0)?.chosen;
                Ok(())
            })?;
            scores.push(Score { log_probability: sum, tokens: answer.len() });
        }
        Ok(scores)
    }

    /// Reads tokens from a position on; tells the logits after each from the `wanted`th.
    fn read(
        &mut self,
        tokens: &[u32],
        position: usize,
        wanted: usize,
        mut tell: impl FnMut(usize, Logits<'_>, &Sampler) -> Result<()>,
    ) -> Result<()> {
        let never = AtomicBool::new(false);
        for start in (0..tokens.len()).step_by(CHUNK) {
            let chunk = start..tokens.len().min(start + CHUNK);
            let row = |index: usize| Row {
                token: tokens[index],
                position: (position + index) as u32,
                table: &self.table,
                wants_logits: index >= wanted,
            };
            let rows: Vec<Row<'_>> = chunk.clone().map(row).collect();
            let decoder = &self.responder.decoder;
            let logits = decoder.step(&mut self.pool, &mut self.arena, &mut self.blocks, &rows, &never)?;
            for (row, index) in chunk.filter(|&index| index >= wanted).enumerate() {
                let logits = logits.as_ref().expect("rows of the chunk want logits");
                tell(index, logits.row(row), &self.sampler)?;
            }
        }
        Ok(())
    }
}

impl Score {
    /// How many tokens a guess is among, on average: e to the power of minus the mean log-probability.
    pub(crate) fn perplexity(&self) -> f64 {
        (-self.log_probability / self.tokens.max(1) as f64).exp()
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            log_probability: self.log_probability + other.log_probability,
            tokens: self.tokens + other.tokens,
        }
    }
}

/// Tokens of one step: a bound on its scratch.
const CHUNK: usize = 128;

#[cfg(all(test, feature = "bundled"))]
mod tests {
    use super::*;
    use crate::config::ModelSource;
    use crate::registry;
    use crate::{CacheMode, Engine, EngineConfig, Event, Generate, Message};

    #[test]
    fn an_answer_scores_what_was_reported_when_it_was_written() {
        let config = EngineConfig::default().analyst(None);
        let package = registry::open("responder", &ModelSource::Bundled, &config).unwrap();
        let responder = Responder::load(&package, "responder".into(), None, 1).unwrap();
        let request = Generate::messages([Message::user("How do I cancel my order?")])
            .max_tokens(24)
            .logprobs(0)
            .cache(CacheMode::Bypass);
        let (mut tokens, mut sum) = (Vec::new(), 0.0);
        for event in Engine::open(config).unwrap().generate_stream(request.clone()).unwrap() {
            if let Event::Chunk { logprobs: Some(logprobs), .. } = event.unwrap() {
                tokens.extend(logprobs.iter().map(|token| token.id));
                sum += logprobs.iter().map(|token| token.logprob).sum::<f64>();
            }
        }
        assert!(tokens.len() > 5);

        let mut scorer = Scorer::new(&responder, 1, Isa::detect(), 1 << 26).unwrap();
        let prompt = responder.continuation(&request).unwrap();
        let strange: Vec<u32> = tokens.iter().rev().copied().collect();
        let scores = scorer.score(&prompt, &[&strange, &tokens, &tokens[..1], &[]]).unwrap();
        assert_eq!((scores[1].log_probability, scores[1].tokens), (sum, tokens.len()));
        assert!(scores[0].perplexity() > 2.0 * scores[1].perplexity());
        assert_eq!((scores[2].tokens, scores[3]), (1, Score::default()));
    }

    #[test]
    fn an_answer_without_room_is_read_as_far_as_it_fits() {
        let config = EngineConfig::default();
        let package = registry::open("responder", &ModelSource::Bundled, &config).unwrap();
        let responder = Responder::load(&package, "responder".into(), Some(16), 1).unwrap();
        let mut scorer = Scorer::new(&responder, 1, Isa::detect(), 1 << 26).unwrap();
        let scores = scorer.score(&[5; 10], &[&[6; 100], &[6; 6]]).unwrap();
        assert_eq!(scores[0], scores[1]);
        assert_eq!(scores[0].tokens, 6);
    }
}
