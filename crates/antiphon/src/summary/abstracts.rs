//! Summaries in the words of an instruct model: a long text is read in parts that fit its context, and what it says of the
//! parts is summarized again.

use std::time::Instant;

use super::split::{Sentence, render};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Ask;
use crate::options::{CacheMode, Overflow};
use crate::reply::FinishReason;
use crate::request::{Generate, Message};
use crate::responder::{Responder, Voice};
use crate::stream::ReplyFuture;

/// How much goes into one prompt, and how much comes out.
struct Plan<'a> {
    responder: &'a Responder,
    wanted: usize,
    /// Tokens of text in one prompt.
    text_tokens: usize,
    answer_tokens: usize,
}

/// A summary of about `wanted` sentences by the responder of this index.
pub(super) async fn write(
    engine: &Engine,
    responder: usize,
    sentences: &[Sentence<'_>],
    wanted: usize,
) -> Result<String> {
    let plan = Plan::new(&engine.shared().responders[responder], wanted)?;
    let mut parts: Vec<String> = sentences.iter().map(|sentence| render([sentence])).collect();
    loop {
        let prompts = plan.prompts(&parts)?;
        let last = prompts.len() <= 1;
        parts.clear();
        for prompt in prompts {
            let summary = plan.ask(engine, responder, &prompt).await?;
            if last {
                return Ok(summary);
            }
            // Two of them fit into a prompt, so each round has at most about half the prompts of the one before.
            let summary = plan.cut(&summary, plan.text_tokens / 2)?;
            parts.extend((!summary.is_empty()).then(|| summary.to_owned()));
        }
        if parts.is_empty() {
            return Ok(String::new());
        }
    }
}

impl<'a> Plan<'a> {
    fn new(responder: &'a Responder, wanted: usize) -> Result<Self> {
        let context = responder.context_tokens;
        let answer_tokens = wanted.saturating_mul(SENTENCE_TOKENS).clamp(1, (context / 4).max(1));
        let mut plan = Self { responder, wanted, text_tokens: 0, answer_tokens };
        let around = responder.continuation(&plan.request("x"))?.len();
        // Joints between the parts are not counted one by one.
        plan.text_tokens = (context - context / 16).saturating_sub(around + answer_tokens);
        if plan.text_tokens < MIN_TEXT_TOKENS {
            let what = format!(
                "a context of {context} tokens leaves {} for the text to summarize, expected at least {MIN_TEXT_TOKENS} \
                 (model `{}`)",
                plan.text_tokens, responder.name
            );
            return Err(Error::new(ErrorKind::ContextFull, what));
        }
        Ok(plan)
    }

    /// The parts, one a line, as few texts as the context allows.
    fn prompts(&self, parts: &[String]) -> Result<Vec<String>> {
        let mut prompts: Vec<String> = Vec::new();
        let mut room = 0;
        for part in parts {
            let mut rest = part.as_str();
            while !rest.is_empty() {
                // Only a sentence that no prompt holds is cut.
                let piece = self.cut(rest, self.text_tokens - 1)?;
                let tokens = self.tokens(piece)? + 1;
                match prompts.last_mut() {
                    Some(prompt) if tokens <= room => {
                        prompt.push('\n');
                        prompt.push_str(piece);
                    }
                    _ => {
                        prompts.push(piece.to_owned());
                        room = self.text_tokens;
                    }
                }
                room -= tokens.min(room);
                rest = rest[piece.len()..].trim_start();
            }
        }
        Ok(prompts)
    }

    /// As much of a text as surely has at most so many tokens.
    fn cut<'t>(&self, text: &'t str, tokens: usize) -> Result<&'t str> {
        // No token is shorter than a byte.
        if text.len() <= tokens || text.len() <= MEASURED_BYTES && self.tokens(text)? <= tokens {
            return Ok(text);
        }
        let end = text.floor_char_boundary(tokens);
        let blank = text[..end].rfind(char::is_whitespace).filter(|&blank| blank > 0);
        Ok(&text[..blank.unwrap_or(end)])
    }

    fn tokens(&self, text: &str) -> Result<usize> {
        Ok(self.responder.tokenizer.encode_text(text)?.len())
    }

    fn request(&self, text: &str) -> Generate {
        let length = match self.wanted {
            1 => "in one sentence".to_owned(),
            wanted => format!("in at most {wanted} sentences"),
        };
        let instruction = "You summarize texts and dialogues. You answer with the summary alone, in the language of the text.";
        let task = format!("Summarize the following {length}.\n\n{text}");
        // Not cached: a summary belongs to no tenant.
        Generate::messages([Message::system(instruction), Message::user(task)])
            .max_tokens(self.answer_tokens)
            .overflow(Overflow::Error)
            .cache(CacheMode::Bypass)
    }

    async fn ask(&self, engine: &Engine, responder: usize, text: &str) -> Result<String> {
        let (submitted, shared) = (Instant::now(), engine.shared());
        let request = shared.stages.before_generate(self.request(text), &shared.limits())?;
        let terms = engine.terms(&request.options, submitted);
        let stream =
            engine.fly(terms, Voice::Responder(responder), None, || Ok(Ask::Generate(Box::new(request))));
        let reply = ReplyFuture::new(stream).await?;
        match reply.finish_reason() {
            FinishReason::Stop | FinishReason::Length => Ok(reply.response.trim().to_owned()),
            FinishReason::Cancelled => Err(Error::cancelled()),
            FinishReason::Deadline => {
                let what = "the deadline passed before the summary was complete (`batcher.timeout_ms`)";
                Err(Error::new(ErrorKind::DeadlineExceeded, what))
            }
        }
    }
}

/// Tokens that a sentence of a summary may take.
const SENTENCE_TOKENS: usize = 48;
/// With less text in a prompt there is nothing to summarize.
const MIN_TEXT_TOKENS: usize = 64;
/// A longer text is cut without counting its tokens.
const MEASURED_BYTES: usize = 1 << 16;
