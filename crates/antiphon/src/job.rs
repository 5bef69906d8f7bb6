//! A request on its way through the engine.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};

use crate::analyst::Prepared;
use crate::cache::{Cache, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Flight, late};
use crate::options::{CacheMode, Priority, RequestOptions};
use crate::reply::{
    Analysis, CacheOutcome, Degraded, Event, FinishReason, Generation, Metadata, NlpProcessing, Reply, Repro,
    Timings, TokenLogprob, Usage,
};
use crate::request::{Generate, Message, Request};
use crate::responder::Voice;

/// A request, where its events go, and what is known of it so far.
pub(crate) struct Job {
    pub(crate) ask: Ask,
    pub(crate) flight: Arc<Flight>,
    /// Who is to answer.
    pub(crate) voice: Voice,
    /// Where a finished answer may be kept.
    pub(crate) key: Option<Key>,
    /// What its first subscriber allows it.
    pub(crate) allowed: Duration,
    pub(crate) seed: u64,
    pub(crate) analysis: Option<Analysis>,
    pub(crate) times: Times,
    /// Chunks so far.
    chunks: u64,
    /// Chunks that a stage has to see before anybody else; none where they are told as they come.
    held: Option<Vec<Event>>,
}

/// What is asked.
pub(crate) enum Ask {
    /// Understand and answer.
    Process(Box<Request>, Prepared),
    /// Answer alone.
    Generate(Box<Generate>),
}

/// What a subscriber allows and asks for, besides the answer.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) submitted: Instant,
    /// From submission to end.
    pub(crate) allowed: Duration,
    pub(crate) priority: Priority,
    pub(crate) cache: CacheMode,
}

/// When things happened.
pub(crate) struct Times {
    pub(crate) submitted: Instant,
    pub(crate) admitted: Option<Instant>,
    pub(crate) analysed: Option<Instant>,
    pub(crate) first_token: Option<Instant>,
}

/// How a job ended.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) response: String,
    pub(crate) finish_reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) model: String,
    pub(crate) degraded: Option<Degraded>,
}

impl Job {
    pub(crate) fn new(ask: Ask, flight: Arc<Flight>, voice: Voice, key: Option<Key>, terms: &Terms) -> Self {
        let Terms { submitted, allowed, .. } = *terms;
        let options = ask.options();
        // Sampled without a seed: draw one. `RandomState` is the standard library's source of random bits.
        let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(submitted));
        let times = Times { submitted, admitted: None, analysed: None, first_token: None };
        Self { ask, flight, voice, key, allowed, seed, analysis: None, times, chunks: 0, held: None }
    }

    /// The same, its chunks held back until they are let go.
    pub(crate) fn holding(mut self, holds: bool) -> Self {
        self.held = holds.then(Vec::new);
        self
    }

    pub(crate) fn options(&self) -> &RequestOptions {
        self.ask.options()
    }

    pub(crate) fn tenant(&self) -> &str {
        self.ask.tenant()
    }

    /// Sends the next piece of the answer.
    pub(crate) fn tell(&mut self, content: String, logprobs: Option<Vec<TokenLogprob>>) {
        let chunk = Event::Chunk { content, index: self.chunks, logprobs };
        self.chunks += 1;
        match &mut self.held {
            Some(held) => held.push(chunk),
            None => self.flight.push(chunk),
        }
    }

    /// Whether anybody may have seen a piece of the answer.
    pub(crate) fn has_told(&self) -> bool {
        self.chunks > 0 && self.held.is_none()
    }

    /// Whether its pieces are held back.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Forgets the pieces that nobody has seen.
    pub(crate) fn take_back(&mut self) {
        if let Some(held) = &mut self.held {
            held.clear();
            self.chunks = 0;
        }
    }

    /// Tells what was held back.
    pub(crate) fn let_go(&mut self) {
        self.held.take().into_iter().flatten().for_each(|chunk| self.flight.push(chunk));
    }

    /// Ends the flight with an error.
    pub(crate) fn fail(self, error: Error) {
        self.flight.fail(error);
    }

    /// Its deadline passed before there was anything to show.
    pub(crate) fn late(&self) -> Error {
        late(self.allowed)
    }

    /// Ends the flight with an answer that another engine gave to an equal request.
    pub(crate) fn serve(self, mut events: Vec<Event>) {
        let Some(Event::Done(mut reply)) = events.pop() else { return };
        freshen(&mut reply, CacheOutcome::Shared, self.times.submitted);
        events.into_iter().for_each(|event| self.flight.push(event));
        self.flight.land(Event::Done(reply));
    }

    /// Ends the flight with an older answer, as its own can not be had.
    pub(crate) fn serve_stale(self, events: &[Event]) {
        let Some((Event::Done(reply), events)) = events.split_last() else { return };
        let mut reply = reply.clone();
        freshen(&mut reply, CacheOutcome::Hit, self.times.submitted);
        reply.metadata.response_generation.degraded = Some(Degraded::Cache);
        // Its analysis has been told.
        let chunks = events.iter().filter(|event| matches!(event, Event::Chunk { .. }));
        chunks.for_each(|chunk| self.flight.push(chunk.clone()));
        self.flight.land(Event::Done(reply));
    }

    /// Ends the flight with a reply. A whole answer is kept before it is told: whoever has seen the end finds it again.
    pub(crate) fn finish(mut self, outcome: Outcome, fingerprints: &BTreeMap<String, String>, cache: &Cache) {
        let whole = outcome.is_whole() && outcome.degraded.is_none();
        let done = Event::Done(self.reply(outcome, fingerprints));
        if let Some(key) = self.key.take().filter(|_| whole) {
            let mut events = self.flight.events();
            events.push(done.clone());
            cache.insert(key, events);
        }
        self.flight.land(done);
    }

    /// The reply, were it to end like this. What is held back is not in it.
    pub(crate) fn reply(&self, mut outcome: Outcome, fingerprints: &BTreeMap<String, String>) -> Reply {
        if self.is_held() {
            outcome.response.clear();
        }
        self.whole_reply(outcome, fingerprints)
    }

    /// The same, for a stage: with what is held back.
    pub(crate) fn whole_reply(&self, outcome: Outcome, fingerprints: &BTreeMap<String, String>) -> Reply {
        let options = self.options();
        let sampled = options.temperature > 0.0;
        let generation = Generation {
            model: outcome.model,
            finish_reason: outcome.finish_reason,
            usage: outcome.usage,
            cache: CacheOutcome::Miss,
            degraded: outcome.degraded,
            timings_ms: self.times.to_timings(),
            repro: Repro {
                engine: crate::VERSION.into(),
                models: fingerprints.clone(),
                seed: sampled.then_some(self.seed).or(options.seed),
            },
        };
        let analysis = self.analysis.clone();
        let label = |of: fn(&Analysis) -> &str| {
            analysis.as_ref().map_or(String::new(), |analysis| of(analysis).to_owned())
        };
        Reply {
            response: outcome.response,
            confidence: analysis.as_ref().map_or(0.0, |analysis| analysis.intent.confidence),
            intent: label(|analysis| &analysis.intent.label),
            sentiment: label(|analysis| &analysis.sentiment.label),
            entities: analysis.as_ref().map_or(Vec::new(), |analysis| analysis.entities.clone()),
            metadata: Metadata {
                nlp_processing: analysis
                    .as_ref()
                    .map(|analysis| NlpProcessing { tokens: analysis.tokens, truncated: analysis.truncated }),
                intent_analysis: analysis.as_ref().map(|analysis| analysis.intent.clone()),
                sentiment_analysis: analysis.map(|analysis| analysis.sentiment),
                response_generation: generation,
                timestamp: timestamp(),
            },
        }
    }
}

/// A request always ends: one that is lost on its way, to a panic, ends as a bug of ours.
impl Drop for Job {
    fn drop(&mut self) {
        self.flight.fail(Error::new(ErrorKind::Internal, "the request was lost on its way"));
    }
}

impl Outcome {
    /// A request that ended before it began.
    pub(crate) fn nothing() -> Self {
        Self {
            response: String::new(),
            finish_reason: FinishReason::Cancelled,
            usage: Usage::default(),
            model: String::new(),
            degraded: None,
        }
    }

    /// Whether nothing cut it short.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.finish_reason, FinishReason::Stop | FinishReason::Length)
    }
}

impl Ask {
    pub(crate) fn tenant(&self) -> &str {
        match self {
            Self::Process(request, _) => &request.tenant_id,
            Self::Generate(request) => &request.tenant_id,
        }
    }

    /// The text that is analysed; empty where none is.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Process(request, _) => &request.message,
            Self::Generate(_) => "",
        }
    }

    /// What a request holds while it waits: its texts, and what an engine keeps for each.
    pub(crate) fn bytes(&self) -> usize {
        let texts = match self {
            // The message is there three times: as it came, cut into tokens for the analyst, and for the shared tier.
            Self::Process(request, message) => {
                2 * request.message.capacity()
                    + message.bytes()
                    + messages_bytes(&request.history)
                    + map_bytes(&request.context)
            }
            Self::Generate(request) => {
                messages_bytes(&request.messages) + request.prompt.as_ref().map_or(0, String::capacity)
            }
        };
        let options = self.options();
        let stops: usize = options.stop.iter().map(String::capacity).sum();
        texts + stops + options.logit_bias.len() * 2 * size_of::<(u32, f32)>() + WAITING_BYTES
    }

    /// About how many tokens the request needs, for the bound of the queue: four bytes a token is usual in English.
    pub(crate) fn estimated_tokens(&self) -> usize {
        let bytes = match self {
            Self::Process(request, _) => {
                request.message.len()
                    + request.history.iter().map(|message| message.content.len()).sum::<usize>()
            }
            Self::Generate(request) => {
                request.messages.iter().map(|message| message.content.len()).sum::<usize>()
                    + request.prompt.as_ref().map_or(0, String::len)
            }
        };
        bytes / 4 + self.options().max_tokens
    }

    pub(crate) fn options(&self) -> &RequestOptions {
        match self {
            Self::Process(request, _) => &request.options,
            Self::Generate(request) => &request.options,
        }
    }
}

impl Times {
    /// From submission to a place in the batch, and to the first token.
    pub(crate) fn waits(&self) -> (Duration, Option<Duration>) {
        let since = |moment: Instant| moment.saturating_duration_since(self.submitted);
        (self.admitted.map_or(Duration::ZERO, since), self.first_token.map(since))
    }

    /// How long it has had a place.
    pub(crate) fn service(&self) -> Duration {
        self.admitted.unwrap_or(self.submitted).elapsed()
    }

    fn to_timings(&self) -> Timings {
        let now = Instant::now();
        let admitted = self.admitted.unwrap_or(now);
        let analysed = self.analysed.unwrap_or(admitted);
        let first_token = self.first_token.unwrap_or(now);
        let between = |from: Instant, to: Instant| {
            let ms = to.saturating_duration_since(from).as_secs_f64() * 1e3;
            (ms * 1e3).round() / 1e3
        };
        Timings {
            queue: between(self.submitted, admitted),
            analysis: between(admitted, analysed),
            prefill: between(analysed, first_token),
            first_token: between(self.submitted, first_token),
            decode: between(first_token, now),
            total: between(self.submitted, now),
        }
    }
}

/// A recorded answer as a fresh reply: the time of day, the timings and where it came from are new.
pub(crate) fn replay(mut events: Vec<Event>, submitted: Instant) -> Result<Vec<Event>> {
    let Some(Event::Done(reply)) = events.last_mut() else {
        return Err(Error::new(ErrorKind::Internal, "a recorded answer has no end"));
    };
    freshen(reply, CacheOutcome::Hit, submitted);
    Ok(events)
}

/// Another's reply as that of a request which was submitted then.
pub(crate) fn freshen(reply: &mut Reply, cache: CacheOutcome, submitted: Instant) {
    let total = (submitted.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    reply.metadata.timestamp = timestamp();
    let generation = &mut reply.metadata.response_generation;
    generation.timings_ms = Timings { first_token: total, total, ..Timings::default() };
    generation.cache = cache;
}

fn messages_bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| size_of::<Message>() + message.content.capacity()).sum()
}

/// About what a map of JSON holds: keys and values by their text, and what trees have around them.
fn map_bytes(map: &Map<String, Value>) -> usize {
    let entry =
        |(key, value): (&String, &Value)| key.len() + 4 * value.to_string().len() + 2 * size_of::<Value>();
    map.iter().map(entry).sum()
}

/// A job, its flight with one view, its key and its stream, besides texts.
const WAITING_BYTES: usize = size_of::<Job>() + size_of::<Request>() + size_of::<Flight>() + 512;

fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
