//! Generators of the host: they answer, fail, panic, block and come back, and no request is lost over it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use antiphon::plugin::{Generator, PluginError, Plugins};
use antiphon::{
    CacheMode, CacheOutcome, Degraded, Engine, EngineConfig, ErrorKind, Event, FinishReason, Generate,
    Message, Reply, Request, Role,
};

use crate::support::eventually;
use crate::tier::{Breakers, outcome};

/// Repeats the last turn word by word, unless it is told to do something else.
#[derive(Default)]
struct Parrot {
    mood: Mutex<Mood>,
    calls: AtomicUsize,
    /// Calls that were told that nobody listens any more.
    told: AtomicUsize,
}

#[derive(Clone, Copy, Default)]
enum Mood {
    #[default]
    Well,
    Fails,
    Panics,
    FailsHalfway,
    Blocks,
    NeverStops,
    WritesOnce,
}

impl Parrot {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

impl Generator for Parrot {
    fn name(&self) -> &str {
        "parrot"
    }

    fn generate(
        &self,
        request: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap();
        let turn = request.messages.last().unwrap();
        assert_eq!(turn.role, Role::User);
        match mood {
            Mood::Fails => return Err(PluginError::new("the canary died")),
            Mood::Panics => panic!("the plugin's own bug"),
            Mood::Blocks => loop {
                std::thread::park();
            },
            Mood::NeverStops => {
                while write("on and ").is_continue() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.told.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Mood::WritesOnce => {
                let _ = write("once ");
                loop {
                    std::thread::park();
                }
            }
            Mood::Well | Mood::FailsHalfway => {}
        }
        for word in turn.content.split_inclusive(' ') {
            if write(word).is_break() {
                return Ok(());
            }
            if matches!(mood, Mood::FailsHalfway) {
                return Err(PluginError::new("the canary died"));
            }
        }
        Ok(())
    }
}

fn open(config: EngineConfig) -> (Engine, Arc<Parrot>, Arc<Breakers>) {
    let (parrot, breakers) = (Arc::<Parrot>::default(), Arc::<Breakers>::default());
    let plugins =
        Plugins::new().add_generator(Arc::clone(&parrot) as _).add_observer(Arc::clone(&breakers) as _);
    (Engine::open_with(config.responder(None), plugins).unwrap(), parrot, breakers)
}

fn ask(engine: &Engine, message: &str) -> Reply {
    engine.process_blocking(Request::new(message)).unwrap()
}

fn degraded(reply: &Reply) -> Option<Degraded> {
    reply.metadata.response_generation.degraded
}

#[test]
fn a_generator_answers_between_analysis_and_cache() {
    let (engine, parrot, _) = open(EngineConfig::default());
    let message = "Where is order 4711?";
    let events: Vec<Event> =
        engine.stream(Request::new(message)).unwrap().into_iter().collect::<Result<_, _>>().unwrap();
    assert!(matches!(&events[0], Event::Analysis(analysis) if analysis.entities[0].value == "4711"));
    let Some(Event::Done(reply)) = events.last() else { panic!("{events:?}") };
    assert_eq!((reply.response.as_str(), reply.finish_reason()), (message, FinishReason::Stop));
    assert_eq!(reply.metadata.response_generation.model, "parrot");
    assert_eq!(outcome(&ask(&engine, message)), CacheOutcome::Hit);
    assert_eq!(parrot.calls.load(Ordering::Relaxed), 1);
    let other = Request::new(message).user("somebody else");
    assert_eq!(
        outcome(&engine.process_blocking(other).unwrap()),
        CacheOutcome::Miss,
        "it may answer each in its way"
    );

    let turns = [Message::user("one two three")];
    let reply = engine.generate_blocking(Generate::messages(turns).stop("three")).unwrap();
    assert_eq!(reply.response, "one two ");
    assert!(engine.models().iter().any(|model| model.model_name == "parrot"));
    assert_eq!(engine.health().diagnostics, Vec::<String>::new());
}

#[test]
fn a_generator_stands_beside_the_engines_own_responder() {
    let plugins = Plugins::new().add_generator(Arc::<Parrot>::default());
    let engine = Engine::open_with(EngineConfig::default(), plugins).unwrap();
    let request = || Request::new("Hello there").max_tokens(8);
    assert_eq!(engine.process_blocking(request().model("parrot")).unwrap().response, "Hello there");
    assert_ne!(engine.process_blocking(request()).unwrap().response, "Hello there");
    let error = engine.process_blocking(request().model("cockatoo")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownModel);
    assert!(error.to_string().contains("responder, parrot"), "{error}");
}

#[test]
fn a_generator_that_fails_is_stood_in_for_by_the_cache_then_by_a_template_then_by_an_error() {
    for mood in [Mood::Fails, Mood::Panics] {
        let mut config = EngineConfig::default();
        config.cache.ttl_seconds = 0;
        let (engine, parrot, _) = open(config);
        let known = ask(&engine, "Where is my parcel?");
        parrot.set(mood);
        let stale = ask(&engine, "Where is my parcel?");
        assert_eq!((degraded(&stale), outcome(&stale)), (Some(Degraded::Cache), CacheOutcome::Hit));
        assert_eq!(stale.response, known.response);

        let unknown = ask(&engine, "I want my money back");
        assert_eq!(degraded(&unknown), Some(Degraded::Template));
        assert!(unknown.response.contains("get refund"), "{}", unknown.response);
        assert_eq!(unknown.metadata.response_generation.model, "template");

        let error = engine.generate_blocking(Generate::messages([Message::user("Hi")])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
        assert!(error.to_string().contains("parrot") && !error.to_string().contains("canary"), "{error}");
        parrot.set(Mood::Well);
        assert_eq!(degraded(&ask(&engine, "I want my money back")), None, "a stand-in is not kept");
    }
}

#[test]
fn five_failures_in_a_row_open_the_breaker_and_a_success_or_a_hand_closes_it() {
    let (engine, parrot, breakers) = open(EngineConfig::default());
    parrot.set(Mood::Fails);
    for number in 0..12 {
        assert_eq!(degraded(&ask(&engine, &format!("Where is order {number}?"))), Some(Degraded::Template));
    }
    assert_eq!(parrot.calls.load(Ordering::Relaxed), 5);
    assert_eq!(breakers.states(), ["open"]);
    let health = engine.health();
    assert!(health.ready && health.diagnostics[0].contains("parrot"), "{health:?}");
    assert!(engine.metrics_text().contains(r#"antiphon_breaker_state{backend="parrot"} 2"#));
    parrot.set(Mood::Well);
    assert_eq!(degraded(&ask(&engine, "Hello")), Some(Degraded::Template), "it is left alone");
    engine.reset_breaker("parrot").unwrap();
    assert_eq!(degraded(&ask(&engine, "Hello")), None);
    assert_eq!(breakers.states(), ["open", "closed"]);
}

#[test]
fn a_generator_that_fails_after_its_first_words_ends_the_stream_with_an_error() {
    let (engine, parrot, _) = open(EngineConfig::default());
    parrot.set(Mood::FailsHalfway);
    let mut text = String::new();
    let mut last = None;
    for event in engine.stream(Request::new("one two")).unwrap() {
        match event {
            Ok(Event::Chunk { content, .. }) => text.push_str(&content),
            Ok(_) => {}
            Err(error) => last = Some(error.kind()),
        }
    }
    assert_eq!((text.as_str(), last), ("one ", Some(ErrorKind::PluginFailed)));
}

#[test]
fn faults_88_deadlines_and_cancels_do_not_wait_for_a_generator_that_blocks() {
    let (engine, parrot, _) = open(EngineConfig::default().max_concurrent(2));
    parrot.set(Mood::Blocks);
    let late = || Request::new("Hello").cache(CacheMode::Bypass).deadline(Duration::from_millis(100));
    // More than there are threads and places.
    for _ in 0..5 {
        assert_eq!(engine.process_blocking(late()).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    }
    let mut stream = engine.stream(Request::new("Hello").cache(CacheMode::Bypass)).unwrap();
    assert!(matches!(stream.next_blocking(Duration::from_secs(60)), std::task::Poll::Ready(Some(Ok(_)))));
    stream.canceller().cancel();
    let read = stream.next_blocking(Duration::from_secs(60));
    assert!(matches!(read, std::task::Poll::Ready(Some(Err(error))) if error.is_cancelled()));
    let analysis = engine.analyze_blocking("Where is order 4711?").unwrap();
    assert_eq!(analysis.entities[0].value, "4711", "others go on");
    engine.close().unwrap();
}

#[test]
fn whoever_leaves_is_told_to_the_generator_and_a_deadline_gives_what_there_is() {
    let (engine, parrot, _) = open(EngineConfig::default());
    parrot.set(Mood::NeverStops);
    let request = || Request::new("Hello").cache(CacheMode::Bypass);
    let mut stream = engine.stream(request()).unwrap();
    while !matches!(
        stream.next_blocking(Duration::from_secs(60)),
        std::task::Poll::Ready(Some(Ok(Event::Chunk { .. })))
    ) {}
    drop(stream);
    eventually("the generator is told", || parrot.told.load(Ordering::Relaxed) == 1);

    let reply = engine.process_blocking(request().deadline(Duration::from_secs(3))).unwrap();
    assert_eq!(reply.finish_reason(), FinishReason::Deadline);
    assert!(reply.response.starts_with("on and "));

    let mut seen = 0;
    let reply = engine
        .on_event(request(), |event| {
            seen += usize::from(matches!(event, Event::Chunk { .. }));
            if seen < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    assert_eq!(reply.finish_reason(), FinishReason::Cancelled);
    eventually("all are told", || parrot.told.load(Ordering::Relaxed) == 3);
}

#[test]
fn whoever_leaves_a_silent_generator_is_let_go_at_once() {
    let mut config = EngineConfig::default().max_concurrent(2);
    config.batcher.timeout_ms = 3_600_000;
    let (engine, parrot, _) = open(config);
    parrot.set(Mood::WritesOnce);
    let request = || Request::new("Hello").cache(CacheMode::Bypass);
    let reply = engine.on_event(request(), |event| match event {
        Event::Chunk { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(reply.unwrap().response, "once ", "an hour before its deadline");
    // Its place is free, though its thread is lost.
    let mut stream = engine.stream(request()).unwrap();
    assert!(matches!(stream.next_blocking(Duration::from_secs(60)), std::task::Poll::Ready(Some(Ok(_)))));
    drop(stream);
    engine.drain(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_name_that_is_taken_or_none_is_refused() {
    struct Named(&'static str);
    impl Generator for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn generate(
            &self,
            _: &Generate,
            _: &mut dyn FnMut(&str) -> ControlFlow<()>,
        ) -> Result<(), PluginError> {
            Ok(())
        }
    }
    for names in [&["responder"][..], &["shared_tier"], &["a b"], &[""], &["a", "a"]] {
        let plugins = names.iter().fold(Plugins::new(), |all, name| all.add_generator(Arc::new(Named(name))));
        let error = Engine::open_with(EngineConfig::default(), plugins).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{names:?}");
    }
}
