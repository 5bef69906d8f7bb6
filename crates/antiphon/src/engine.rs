//! The engine: what a host opens, asks and closes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::analyst::Prepared;
use crate::batcher::{Closing, Place};
use crate::breaker::BreakerState;
use crate::cache::{BUDGET, Found, Key, ResponseCache, SHARED_TIER, Task};
use crate::config::EngineConfig;
use crate::conversation::{Conversation, ConversationConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Flight, late};
use crate::handle::Handle;
use crate::job::{Ask, Job, Terms, replay};
use crate::observe::{Diagnosis, Endpoint, Health, Meter};
use crate::options::{CacheMode, RequestOptions};
use crate::passes::{self, Quick};
use crate::plugin::Plugins;
use crate::registry::ModelInfo;
use crate::reply::{Analysis, Event, Reply};
use crate::request::{Generate, Request, check_text};
use crate::responder::Voice;
use crate::responder::backend::Backend;
use crate::shared::Shared;
use crate::stream::{ReplyFuture, ReplyStream};
use crate::summary::{self, SummaryOptions};
use crate::ticket::{Answer, Ticket, ticket};
use pollster::block_on;

/// Conversational AI inside this process. Cheap to clone; any number of threads may use one engine.
///
/// Every call comes in two forms: one that returns a future, which any executor can await, and a blocking twin. No runtime
/// is needed and none is started. When the last clone and the last stream are gone, the engine closes.
///
/// ```
/// use antiphon::{Engine, EngineConfig, Request};
///
/// let engine = Engine::open(EngineConfig::default())?;
/// let reply = engine.process_blocking(Request::new("Hello, I need help with my account").max_tokens(32))?;
/// assert_eq!(reply.intent, "help_request");
/// # Ok::<(), antiphon::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Handle>);

impl Engine {
    /// Loads the models and starts the compute thread.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] names a key; model kinds (-201 to -206) name a file.
    pub fn open(config: EngineConfig) -> Result<Self> {
        Self::open_with(config, Plugins::new())
    }

    /// The same, with what the host puts into the engine.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(config: EngineConfig, plugins: Plugins) -> Result<Self> {
        Ok(Self(Handle::open(config, plugins)?))
    }

    /// What a text means.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidText`] for a text with nothing in it, [`ErrorKind::InputTooLong`] for one above the limit.
    pub fn analyze(&self, text: &str) -> impl Future<Output = Result<Analysis>> + Send + use<> {
        let ticket = self.submit_texts(Endpoint::Analyze, &[text], Quick::Analyze);
        async move { ticket.await.and_then(only) }
    }

    /// Blocking twin of [`Engine::analyze`].
    ///
    /// # Errors
    /// As [`Engine::analyze`].
    pub fn analyze_blocking(&self, text: &str) -> Result<Analysis> {
        self.submit_texts(Endpoint::Analyze, &[text], Quick::Analyze).wait().and_then(only)
    }

    /// What texts mean, in as few passes as they fit in; between passes other requests have their turn. One bad text fails
    /// the call, which names its index. Dropping the ticket ends the work.
    ///
    /// # Errors
    /// As [`Engine::analyze`].
    pub fn analyze_batch<T: AsRef<str>>(&self, texts: &[T]) -> Ticket<Vec<Analysis>> {
        self.submit_texts(Endpoint::Analyze, texts, Quick::Analyze)
    }

    /// Blocking twin of [`Engine::analyze_batch`].
    ///
    /// # Errors
    /// As [`Engine::analyze`].
    pub fn analyze_batch_blocking<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Analysis>> {
        self.analyze_batch(texts).wait()
    }

    /// Vectors of texts: unit length, the analyst's dimension; near in meaning is near in angle.
    ///
    /// # Errors
    /// As [`Engine::analyze`].
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Ticket<Vec<Vec<f32>>> {
        self.submit_texts(Endpoint::Embed, texts, Quick::Embed)
    }

    /// Blocking twin of [`Engine::embed`].
    ///
    /// # Errors
    /// As [`Engine::analyze`].
    pub fn embed_blocking<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>> {
        self.embed(texts).wait()
    }

    /// A summary of a text or a dialogue of any length: its most telling sentences in their order, or, where the engine's
    /// responder is an instruct model of the host's own, that model's words (see
    /// [`SummaryMethod`](crate::SummaryMethod)). A dialogue has its turns on lines of their own, each behind its speaker's
    /// name and a colon; sentences that are chosen keep their speakers.
    ///
    /// The text is read in slices, between which other requests have their turn. Dropping the future ends the work; so does
    /// closing or draining the engine, which takes no further slice.
    ///
    /// ```
    /// use antiphon::{Engine, EngineConfig, SummaryOptions};
    ///
    /// let engine = Engine::open(EngineConfig::default().responder(None))?;
    /// let dialogue = "Agent: Hello, how can I help?\nAnna: My parcel with the blue lamp has not arrived.\nAgent: Okay.";
    /// let summary = engine.summarize_blocking(dialogue, SummaryOptions::default().sentences(1))?;
    /// assert_eq!(summary, "Anna: My parcel with the blue lamp has not arrived.");
    /// # Ok::<(), antiphon::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidText`] for a text with nothing in it, [`ErrorKind::InvalidArgument`] for an option out of its
    /// range, [`ErrorKind::BackendUnavailable`] without the model that the method needs; and what the model's work ended
    /// with, such as [`ErrorKind::Overloaded`] or [`ErrorKind::Closed`].
    pub fn summarize(
        &self,
        text: &str,
        options: SummaryOptions,
    ) -> impl Future<Output = Result<String>> + Send + use<> {
        summary::summarize(self.clone(), text.to_owned(), options)
    }

    /// Blocking twin of [`Engine::summarize`].
    ///
    /// # Errors
    /// As [`Engine::summarize`].
    pub fn summarize_blocking(&self, text: &str, options: SummaryOptions) -> Result<String> {
        block_on(self.summarize(text, options))
    }

    /// Understands and answers a message.
    ///
    /// # Errors
    /// Validation kinds (-101 to -105), [`ErrorKind::Overloaded`], [`ErrorKind::DeadlineExceeded`] and others of
    /// [`ErrorKind`].
    pub fn process(&self, request: Request) -> ReplyFuture {
        ReplyFuture::new(self.stream(request))
    }

    /// Blocking twin of [`Engine::process`].
    ///
    /// # Errors
    /// As [`Engine::process`].
    pub fn process_blocking(&self, request: Request) -> Result<Reply> {
        self.stream(request)?.last()
    }

    /// Understands and answers a message, as it comes. Returns at once.
    ///
    /// # Errors
    /// As [`Engine::process`]; what goes wrong later is the stream's last event.
    pub fn stream(&self, request: Request) -> Result<ReplyStream> {
        self.metered(Endpoint::Process, || {
            self.check_process()?;
            let shared = &self.0.shared;
            let (submitted, limits) = (Instant::now(), shared.limits());
            request.validate(&limits)?;
            let request = shared.stages.before(request, &limits)?;
            let voice = shared.choose(&request.options)?;
            let analyst = shared.analyst()?;
            shared.charge(&request.tenant_id, request.user_id.as_deref())?;
            let key = shared.key(&request.options, |origin| Key::process(&request, origin), voice);
            self.fly(self.terms(&request.options, submitted), voice, key, || {
                let message = analyst.prepare(request.message.clone())?;
                Ok(Ask::Process(Box::new(request), message))
            })
        })
    }

    /// Understands and answers a message, calling `consumer` on this thread with every event. `Break` stops the work; the
    /// reply then has what there was, finish reason `cancelled`.
    ///
    /// # Errors
    /// As [`Engine::process`].
    pub fn on_event(
        &self,
        request: Request,
        consumer: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Reply> {
        push(self.stream(request)?, consumer)
    }

    /// Continues chat turns, without analysis.
    ///
    /// # Errors
    /// As [`Engine::process`], and [`ErrorKind::BackendUnavailable`] without a responder.
    pub fn generate(&self, request: Generate) -> ReplyFuture {
        ReplyFuture::new(self.generate_stream(request))
    }

    /// Blocking twin of [`Engine::generate`].
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_blocking(&self, request: Generate) -> Result<Reply> {
        self.generate_stream(request)?.last()
    }

    /// Continues chat turns as they come. Returns at once.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn generate_stream(&self, request: Generate) -> Result<ReplyStream> {
        self.metered(Endpoint::Generate, || {
            self.check_process()?;
            let shared = &self.0.shared;
            let (submitted, limits) = (Instant::now(), shared.limits());
            request.validate(&limits)?;
            let request = shared.stages.before_generate(request, &limits)?;
            let voice = shared.choose(&request.options)?;
            if voice == Voice::Template {
                let what = "no responder is configured, expected one";
                return Err(Error::new(ErrorKind::BackendUnavailable, what));
            }
            shared.charge(&request.tenant_id, request.user_id.as_deref())?;
            let key = shared.key(&request.options, |origin| Key::generate(&request, origin), voice);
            let terms = self.terms(&request.options, submitted);
            self.fly(terms, voice, key, || Ok(Ask::Generate(Box::new(request))))
        })
    }

    /// Continues chat turns, calling `consumer` on this thread with every event, as [`Engine::on_event`].
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn on_generate_event(
        &self,
        request: Generate,
        consumer: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Reply> {
        push(self.generate_stream(request)?, consumer)
    }

    /// A conversation that remembers its turns.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for ids out of their range.
    pub fn conversation(&self, config: ConversationConfig) -> Result<Conversation> {
        self.check_process()?;
        Conversation::new(self.clone(), config)
    }

    /// The response cache.
    pub fn cache(&self) -> ResponseCache<'_> {
        ResponseCache(self)
    }

    /// The models that are loaded, and the host's generators.
    pub fn models(&self) -> Vec<ModelInfo> {
        let shared = &self.0.shared;
        // After a `fork` a lock may be held by a thread that the child does not have.
        let is_ours = self.check_process().is_ok();
        let state = |backend: &Backend| if is_ours { backend.state() } else { BreakerState::Closed };
        let generators =
            shared.generators.iter().map(|backend| ModelInfo::of_generator(&backend.name, state(backend)));
        shared.models.iter().cloned().chain(generators).collect()
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.0.shared.threads
    }

    /// The instruction set that the kernels were chosen for.
    pub fn kernels(&self) -> &'static str {
        self.0.shared.isa.name()
    }

    /// How the engine is.
    pub fn health(&self) -> Health {
        Health::of(self)
    }

    /// What the engine counted and what it holds, as the text that Prometheus reads; nothing in a child process.
    ///
    /// ```
    /// # use antiphon::{Engine, EngineConfig};
    /// let engine = Engine::open(EngineConfig::default())?;
    /// engine.analyze_blocking("Where is order 4711?")?;
    /// let text = engine.metrics_text();
    /// assert!(text.contains(r#"ai_requests_total{endpoint="analyze",status="success"} 1"#));
    /// # Ok::<(), antiphon::Error>(())
    /// ```
    pub fn metrics_text(&self) -> String {
        if self.check_process().is_err() {
            return String::new();
        }
        self.0.shared.metrics.text(&self.0.shared)
    }

    /// Takes a backend for a working one again, whose circuit breaker is open: a generator by its name, or `shared_tier`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where the engine has no such backend.
    pub fn reset_breaker(&self, backend: &str) -> Result<()> {
        self.check_process()?;
        let shared = &self.0.shared;
        if let Some(generator) = shared.generators.iter().find(|generator| generator.name == backend) {
            generator.reset();
            return Ok(());
        }
        match &shared.cache.tier {
            Some(tier) if backend == SHARED_TIER => tier.reset(),
            _ => {
                let known: Vec<String> = shared.breakers().map(|(name, _)| name).collect();
                let what = format!("no such backend, expected one of: {}", known.join(", "));
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
        }
        Ok(())
    }

    /// Whether the engine takes requests.
    pub fn ready(&self) -> bool {
        self.check_process().is_ok() && self.0.shared.queue.closing().is_none()
    }

    /// Tests every part on this thread and says what to do about what failed; each responder writes a few tokens.
    pub fn diagnose(&self) -> Diagnosis {
        Diagnosis::of(self)
    }

    /// Takes no new requests and waits until those under way have ended, at most `timeout`; then closes.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] when some had not ended; they end now with `closed`.
    pub fn drain(&self, timeout: Duration) -> Result<()> {
        self.check_process()?;
        let shared = &self.0.shared;
        shared.queue.close(Closing::Draining);
        let drained = shared.wait_stopped(Some(timeout));
        self.close()?;
        if drained {
            return Ok(());
        }
        let what = format!("drain: requests were still running after {} ms", timeout.as_millis());
        Err(Error::new(ErrorKind::DeadlineExceeded, what))
    }

    /// Ends everything: new calls and running work end with `closed`. Further calls do nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`] in a child process.
    pub fn close(&self) -> Result<()> {
        self.check_process()?;
        self.0.close();
        Ok(())
    }

    pub(crate) fn check_process(&self) -> Result<()> {
        self.0.shared.check_process()
    }

    /// As [`Engine::analyze_batch`], with every label in the rankings of the intents.
    pub(crate) fn rank<T: AsRef<str>>(&self, texts: &[T]) -> Ticket<Vec<Analysis>> {
        self.submit_texts(Endpoint::Analyze, texts, Quick::Rank)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    fn submit_texts<T: AsRef<str>, R>(
        &self,
        endpoint: Endpoint,
        texts: &[T],
        quick: impl FnOnce(Vec<Prepared>, Answer<Vec<R>>) -> Quick,
    ) -> Ticket<Vec<R>> {
        let prepared = || {
            self.check_process()?;
            let analyst = self.0.shared.analyst()?;
            let limits = self.0.shared.limits();
            let prepare = |(index, text): (usize, &T)| {
                let place = || if texts.len() > 1 { format!("text {index}") } else { "text".into() };
                let text = text.as_ref();
                check_text(&place(), text)?;
                limits.check_chars(&place(), text)?;
                analyst.prepare(text.to_owned()).map_err(|error| error.context(place()))
            };
            texts.iter().enumerate().map(prepare).collect::<Result<Vec<_>>>()
        };
        let meter = Meter::start(&self.0.shared.metrics, endpoint);
        let (ticket, answer) = ticket();
        let submitted = prepared().and_then(|texts| {
            self.0.shared.queue.submit_quick(passes::bytes(&texts), || quick(texts, answer))
        });
        let ticket = match submitted {
            Ok(()) => ticket,
            Err(error) => Ticket::ready(Err(error)),
        };
        ticket.metered(meter)
    }

    /// A stream that is counted, or the error that it never was.
    fn metered(
        &self,
        endpoint: Endpoint,
        stream: impl FnOnce() -> Result<ReplyStream>,
    ) -> Result<ReplyStream> {
        let mut meter = Meter::start(&self.0.shared.metrics, endpoint);
        let stream = meter.check(stream())?;
        Ok(stream.metered(meter))
    }

    /// What a request may take that was submitted then, with the engine's own limit.
    pub(crate) fn terms(&self, options: &RequestOptions, submitted: Instant) -> Terms {
        let longest = Duration::from_millis(self.0.shared.config.batcher.timeout_ms);
        let RequestOptions { priority, cache, .. } = *options;
        Terms { submitted, allowed: options.deadline(longest), priority, cache }
    }

    /// The stream of an answer that is kept, of an equal request under way, or else of the work that `ask` describes.
    pub(crate) fn fly(
        &self,
        terms: Terms,
        voice: Voice,
        key: Option<Key>,
        ask: impl FnOnce() -> Result<Ask>,
    ) -> Result<ReplyStream> {
        let shared = &self.0.shared;
        if shared.queue.closing().is_some() {
            return Err(Error::closed());
        }
        let deadline = terms.submitted + terms.allowed;
        if deadline <= Instant::now() {
            return Err(late(terms.allowed));
        }
        let flight = Flight::new(deadline, shared.queue.attention());
        let stream = |flight, view| Ok(ReplyStream::new(self.0.clone(), flight, view));
        if let Some(key) = key.as_ref().filter(|_| terms.cache == CacheMode::Use) {
            match shared.cache.find(key, &flight, deadline) {
                Found::Answer(events) => {
                    return stream(Flight::recorded(replay(events.to_vec(), terms.submitted)?), 0);
                }
                Found::Flight(joined, view) => {
                    shared.queue.hasten(|job| Arc::ptr_eq(&job.flight, &joined), terms.priority, deadline);
                    return stream(joined, view);
                }
                Found::Nothing => {}
            }
        }
        let job = |ask, key| {
            Job::new(ask, Arc::clone(&flight), voice, key, &terms).holding(shared.stages.holds_back())
        };
        // From here on others may have joined: whatever goes wrong is told to them, too.
        let submitted = shared.queue.check_room().and_then(|()| ask()).and_then(|ask| {
            let (tenant, tokens, bytes) = (ask.tenant().into(), ask.estimated_tokens(), ask.bytes());
            let place = Place { tenant, priority: terms.priority, tokens, bytes, deadline };
            let elsewhere = shared.cache.tier.as_ref().filter(|_| terms.cache == CacheMode::Use);
            let (Some(tier), Some(sought)) = (elsewhere, key.clone()) else {
                return shared.queue.submit(place, || job(ask, key));
            };
            let message = ask.message().into();
            let number = shared.queue.submit_held(place, Instant::now() + BUDGET, || job(ask, key))?;
            if !tier.submit(Task::Find { number, key: sought, message }) {
                shared.queue.let_in(number);
            }
            Ok(())
        });
        match submitted {
            Ok(()) => stream(flight, 0),
            Err(error) => {
                flight.fail(error.clone());
                Err(error)
            }
        }
    }
}

fn push(mut stream: ReplyStream, mut consumer: impl FnMut(Event) -> ControlFlow<()>) -> Result<Reply> {
    while let Some(event) = stream.next_event() {
        let event = event?;
        let reply = if let Event::Done(reply) = &event { Some(reply.clone()) } else { None };
        let wish = consumer(event);
        match reply {
            Some(reply) => return Ok(reply),
            None if wish.is_break() => {
                stream.stop();
                return stream.last();
            }
            None => {}
        }
    }
    Err(Error::cancelled())
}

fn only<T>(values: Vec<T>) -> Result<T> {
    let missing = || Error::new(ErrorKind::Internal, "a pass gave no answer for a text");
    values.into_iter().next().ok_or_else(missing)
}
