//! One answer in the making: what is still to be read, what was written, and the events it sends.

use std::time::Instant;

use antiphon_inference::decoder::Row;
use antiphon_inference::kv::{BlockPool, BlockTable};
use antiphon_inference::sampling::{Logits, LogitsBuf, Sampler, Sampling};
use antiphon_inference::stop::StopFilter;
use antiphon_inference::tokenizer::Detokenizer;

use super::Responder;
use crate::error::Result;
use crate::job::{Job, Outcome};
use crate::reply::{FinishReason, TokenLogprob, Usage};

/// A request that the decoder works on.
pub(crate) struct Sequence {
    pub(crate) job: Job,
    /// Reserved for the whole sequence; none while it waits for blocks.
    table: Option<BlockTable>,
    /// The prompt, then what was written.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Tokens whose key/value rows are there.
    read: usize,
    /// Tokens of the prompt whose rows were there already.
    cached: usize,
    /// Most tokens that may be written.
    limit: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stops: StopFilter,
    /// Everything that was sent.
    response: String,
    /// Log-probabilities of tokens whose text is still held back.
    logprobs: Vec<TokenLogprob>,
}

/// What a sequence is made of besides its request, checked before the request joins the batch.
pub(crate) struct Draft {
    prompt: Vec<u32>,
    limit: usize,
    sampler: Sampler,
    stops: StopFilter,
}

impl Draft {
    pub(crate) fn new(job: &Job, prompt: Vec<u32>, responder: &Responder) -> Result<Self> {
        let options = job.options();
        Ok(Self {
            limit: options.max_tokens.min(responder.context_tokens - prompt.len()),
            sampler: Sampler::new(sampling(job), responder.decoder.config().vocab)?,
            stops: StopFilter::new(options.stop.clone())?,
            prompt,
        })
    }

    /// Positions the sequence can come to need.
    pub(crate) fn tokens_needed(&self) -> usize {
        self.prompt.len() + self.limit
    }
}

impl Sequence {
    pub(crate) fn new(job: Job, draft: Draft, responder: &Responder) -> Self {
        let Draft { prompt, limit, mut sampler, stops } = draft;
        sampler.accept_prompt(&prompt);
        Self {
            job,
            table: None,
            prompt_tokens: prompt.len(),
            tokens: prompt,
            read: 0,
            cached: 0,
            limit,
            sampler,
            detokenizer: responder.tokenizer.detokenizer(),
            stops,
            response: String::new(),
            logprobs: Vec::new(),
        }
    }

    /// Takes its blocks from the pool, sharing those of an equal beginning. False: there are not enough now.
    pub(crate) fn take_blocks(&mut self, pool: &mut BlockPool) -> bool {
        if self.table.is_none() {
            let needed = self.prompt_tokens + self.limit;
            self.table = pool.reserve_shared(self.job.tenant(), &self.tokens, needed);
            self.cached = self.table.as_ref().map_or(0, BlockTable::cached_tokens);
            self.read = self.cached;
        }
        self.table.is_some()
    }

    /// Gives its blocks back. Their rows may serve a later sequence that begins alike, the next turn above all.
    pub(crate) fn return_blocks(&mut self, pool: &mut BlockPool) {
        self.publish(pool);
        self.table.take().into_iter().for_each(|table| pool.release(table));
    }

    /// Lets others find the whole blocks that were written so far.
    fn publish(&mut self, pool: &mut BlockPool) {
        if let Some(table) = &mut self.table {
            pool.publish(table, &self.tokens[..self.read]);
        }
    }

    /// Whether it has its blocks.
    pub(crate) fn is_active(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the prompt is still being read.
    pub(crate) fn is_reading(&self) -> bool {
        self.read < self.prompt_tokens
    }

    /// Of the next token that is read.
    pub(crate) fn position(&self) -> usize {
        self.read
    }

    /// What there is, if it ended now.
    pub(crate) fn outcome(&self, finish_reason: FinishReason, model: &str) -> Outcome {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.written(),
            cached_tokens: self.cached,
            total_tokens: self.tokens.len(),
        };
        Outcome {
            response: self.response.clone(),
            finish_reason,
            usage,
            model: model.to_owned(),
            degraded: None,
        }
    }

    fn written(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// The rows of the next step: the last token written, or up to `chunk` tokens of the prompt. Logits are wanted after
    /// the last token that is known.
    pub(crate) fn rows(&self, chunk: usize) -> impl Iterator<Item = Row<'_>> {
        let end = self.tokens.len().min(self.read + chunk);
        let table = self.table.as_ref().expect("a sequence in the batch has its blocks");
        (self.read..end).map(move |position| Row {
            token: self.tokens[position],
            position: position as u32,
            table,
            wants_logits: position + 1 == self.tokens.len(),
        })
    }

    /// Says that the rows of the last step are there; true when no known token is left to be read.
    pub(crate) fn advance(&mut self, rows: usize, pool: &mut BlockPool) -> bool {
        self.read += rows;
        if self.read <= self.prompt_tokens {
            self.publish(pool);
        }
        self.read == self.tokens.len()
    }

    /// Takes the next token from the logits and sends what can be shown. Says why the answer ends, if it does.
    pub(crate) fn write(
        &mut self,
        logits: Logits<'_>,
        responder: &Responder,
    ) -> Result<Option<FinishReason>> {
        self.job.times.first_token.get_or_insert_with(Instant::now);
        let token = self.choose(logits)?;
        if responder.is_end(token) {
            return self.end(FinishReason::Stop).map(Some);
        }
        self.sampler.accept(token);
        self.tokens.push(token);
        if let Some(top) = self.job.options().logprobs {
            self.logprobs.push(self.logprob(logits, token, top, responder)?);
        }
        let piece = self.detokenizer.push(token)?;
        let outcome = self.stops.push(&piece);
        self.send(outcome.emit);
        if outcome.stopped {
            return Ok(Some(FinishReason::Stop));
        }
        if self.written() == self.limit {
            return self.end(FinishReason::Length).map(Some);
        }
        Ok(None)
    }

    /// The token that the sampler chooses; where that would break a character apart, the one it chooses of those that would
    /// not. A small model loses its way among the bytes of rare characters.
    fn choose(&mut self, logits: Logits<'_>) -> Result<u32> {
        let token = self.sampler.sample(logits)?;
        if self.detokenizer.fits(token)? {
            return Ok(token);
        }
        let mut whole = logits.values().to_vec();
        for (id, logit) in (0..).zip(&mut whole) {
            if !self.detokenizer.fits(id)? {
                *logit = f32::NEG_INFINITY;
            }
        }
        let none_fits = whole.iter().all(|logit| *logit == f32::NEG_INFINITY);
        if none_fits { Ok(token) } else { Ok(self.sampler.sample(LogitsBuf::new(whole).view())?) }
    }

    fn logprob(
        &self,
        logits: Logits<'_>,
        token: u32,
        top: usize,
        responder: &Responder,
    ) -> Result<TokenLogprob> {
        let likely = self.sampler.log_probabilities(logits, token, top)?;
        let named = |id: u32, logprob: f64, top| {
            let token = responder.tokenizer.token(id).unwrap_or_default();
            TokenLogprob { id, token, logprob, top }
        };
        let top = likely.top.iter().map(|&(id, logprob)| named(id, logprob, Vec::new())).collect();
        Ok(named(token, likely.chosen, top))
    }

    /// Sends what was held back.
    fn end(&mut self, reason: FinishReason) -> Result<FinishReason> {
        let rest = self.detokenizer.finish();
        let outcome = self.stops.push(&rest);
        let mut text = outcome.emit;
        if !outcome.stopped {
            text.push_str(&self.stops.finish());
        }
        self.send(text);
        Ok(if outcome.stopped { FinishReason::Stop } else { reason })
    }

    fn send(&mut self, content: String) {
        if content.is_empty() {
            return;
        }
        self.response.push_str(&content);
        let logprobs = self.job.options().logprobs.map(|_| std::mem::take(&mut self.logprobs));
        self.job.tell(content, logprobs);
    }
}

fn sampling(job: &Job) -> Sampling {
    let options = job.options();
    Sampling {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        repetition_penalty: options.repetition_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        logit_bias: options.logit_bias.clone(),
        seed: job.seed,
    }
}
