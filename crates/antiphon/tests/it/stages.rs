//! Stages of the host: they see requests before anybody answers and answers before anybody reads them, and fail on the safe side.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use antiphon::plugin::{Generator, Level, Observer, PluginError, Plugins, Stage};
use antiphon::{
    CacheMode, CacheOutcome, Degraded, Engine, EngineConfig, ErrorKind, Event, FinishReason, Generate,
    Message, Reply, Request,
};

use crate::tier::outcome;

/// Repeats all turns, so that a test sees what a generator was told.
struct Echo;

impl Generator for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn generate(
        &self,
        request: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        let said = request.messages.iter().filter(|turn| turn.role.name() != "system");
        for content in request.prompt.iter().chain(said.map(|turn| &turn.content)) {
            if content == "break off" {
                let _ = write("half ");
                return Err(PluginError::new("broken off"));
            }
            let _ = write(content);
            let _ = write("|");
        }
        Ok(())
    }
}

type Before = dyn Fn(&mut Request) -> Result<(), PluginError> + Send + Sync;
type After = dyn Fn(&Reply) -> Result<Option<String>, PluginError> + Send + Sync;

/// A stage of closures, and how often it was called.
struct Staged {
    before: Box<Before>,
    after: Option<Box<After>>,
    seen: AtomicUsize,
    reviewed: AtomicUsize,
}

impl Stage for Staged {
    fn before(&self, request: &mut Request) -> Result<(), PluginError> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        (self.before)(request)
    }

    fn holds_back(&self) -> bool {
        self.after.is_some()
    }

    fn after(&self, reply: &Reply) -> Result<Option<String>, PluginError> {
        self.reviewed.fetch_add(1, Ordering::Relaxed);
        self.after.as_ref().map_or(Ok(None), |after| after(reply))
    }
}

fn before(with: impl Fn(&mut Request) -> Result<(), PluginError> + Send + Sync + 'static) -> Arc<Staged> {
    let counts = (AtomicUsize::new(0), AtomicUsize::new(0));
    Arc::new(Staged { before: Box::new(with), after: None, seen: counts.0, reviewed: counts.1 })
}

fn after(
    with: impl Fn(&Reply) -> Result<Option<String>, PluginError> + Send + Sync + 'static,
) -> Arc<Staged> {
    let counts = (AtomicUsize::new(0), AtomicUsize::new(0));
    let after: Box<After> = Box::new(with);
    Arc::new(Staged { before: Box::new(|_| Ok(())), after: Some(after), seen: counts.0, reviewed: counts.1 })
}

fn shouts(reply: &Reply) -> Result<Option<String>, PluginError> {
    Ok(Some(reply.response.to_uppercase()))
}

fn open(config: EngineConfig, stages: &[Arc<Staged>]) -> Engine {
    let plugins = Plugins::new().add_generator(Arc::new(Echo));
    let plugins = stages.iter().fold(plugins, |plugins, stage| plugins.add_stage(Arc::clone(stage) as _));
    Engine::open_with(config.responder(None), plugins).unwrap()
}

fn echoes(stages: &[Arc<Staged>]) -> Engine {
    open(EngineConfig::default(), stages)
}

fn ask(engine: &Engine, message: &str) -> Reply {
    engine.process_blocking(Request::new(message)).unwrap()
}

/// Chunks, and how the stream ended.
fn read(engine: &Engine, request: Request) -> (Vec<String>, Result<Reply, ErrorKind>) {
    let (mut chunks, mut end) = (Vec::new(), Err(ErrorKind::Cancelled));
    for event in engine.stream(request).unwrap() {
        match event {
            Ok(Event::Chunk { content, index, .. }) => {
                assert_eq!(index, chunks.len() as u64);
                chunks.push(content);
            }
            Ok(Event::Done(reply)) => end = Ok(reply),
            Ok(_) => {}
            Err(error) => end = Err(error.kind()),
        }
    }
    (chunks, end)
}

#[test]
fn a_request_is_answered_as_the_stages_left_it() {
    let discreet = before(|request| {
        let hide = |text: &str| text.replace("4711", "####");
        request.message = hide(&request.message);
        request.history.iter_mut().for_each(|turn| turn.content = hide(&turn.content));
        Ok(())
    });
    let polite = before(|request| {
        request.message.push_str(" please");
        Ok(())
    });
    let engine = echoes(&[discreet, polite]);
    let request =
        Request::new("Order 4711").history([Message::user("It is 4711"), Message::assistant("Is it?")]);
    let (chunks, end) = read(&engine, request);
    assert_eq!(chunks.concat(), "It is ####|Is it?|Order #### please|");
    assert_eq!(end.unwrap().entities, [], "the analysis sees no number either");
    let turns = Generate::messages([Message::assistant("4711?"), Message::user("4711!")]);
    assert_eq!(engine.generate_blocking(turns).unwrap().response, "####?|####! please|");
    assert_eq!(engine.generate_blocking(Generate::prompt("4711 and")).unwrap().response, "#### and please|");
}

#[test]
fn an_answer_is_told_as_the_stages_left_it_in_the_opposite_order() {
    let quotes = after(|reply| Ok(Some(format!("<{}>", reply.response))));
    let (first, second) = (after(shouts), quotes);
    let engine = echoes(&[Arc::clone(&first), second]);
    let (chunks, end) = read(&engine, Request::new("Hello there"));
    let reply = end.unwrap();
    assert_eq!((chunks, reply.response.as_str()), (vec!["<HELLO THERE|>".to_owned()], "<HELLO THERE|>"));
    assert_eq!((reply.finish_reason(), reply.intent.as_str()), (FinishReason::Stop, "greeting"));

    let again = ask(&engine, "Hello there");
    assert_eq!((outcome(&again), again.response.as_str()), (CacheOutcome::Hit, "<HELLO THERE|>"));
    let counts = [&first.seen, &first.reviewed].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [2, 1], "what is kept was seen");
    let other = engine.process_blocking(Request::new("Hello there").user("somebody else")).unwrap();
    assert_eq!(outcome(&other), CacheOutcome::Miss, "a stage may treat each user in its way");
    let turns = Generate::messages([Message::user("well")]);
    assert_eq!(engine.generate_blocking(turns).unwrap().response, "<WELL|>");
}

#[test]
fn an_answer_that_stages_leave_alone_comes_in_its_own_pieces_and_at_once_if_none_wants_to_see_it() {
    let request = || Request::new("Hello, I need help with my account").max_tokens(12).logprobs(1);
    let config = || EngineConfig::default().threads(1);
    let alone = Engine::open(config()).unwrap();
    let events = |engine: &Engine| -> Vec<Event> {
        let events = engine.stream(request()).unwrap().into_iter().map(Result::unwrap);
        events.filter(|event| !matches!(event, Event::Done(_))).collect()
    };
    let plain = events(&alone);
    assert!(plain.len() > 4);
    for stage in [before(|_| Ok(())), after(|_| Ok(None))] {
        let staged = Engine::open_with(config(), Plugins::new().add_stage(stage)).unwrap();
        assert_eq!(events(&staged), plain);
    }
}

#[test]
fn a_stage_that_refuses_fails_or_panics_ends_the_request_and_tells_nothing() {
    #[derive(Default)]
    struct Words(Mutex<Vec<String>>);
    impl Observer for Words {
        fn log(&self, level: Level, _: &str, message: &str) {
            assert_eq!(level, Level::Warn);
            self.0.lock().unwrap().push(message.to_owned());
        }
    }
    let mood = Arc::new(Mutex::new("well"));
    let act = |mood: &Mutex<&str>, own: &str| {
        let mood = *mood.lock().unwrap();
        if mood.strip_suffix(" panics") == Some(own) {
            std::panic::resume_unwind(Box::new("a bug"));
        }
        if mood == own { Err(PluginError::new("the canary died")) } else { Ok(()) }
    };
    let moods = [Arc::clone(&mood), Arc::clone(&mood)];
    let [of_before, of_after] = moods;
    let counts = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stage = Arc::new(Staged {
        before: Box::new(move |_| act(&of_before, "before")),
        after: Some(Box::new(move |_| act(&of_after, "after").map(|()| None))),
        seen: counts.0,
        reviewed: counts.1,
    });
    let words = Arc::<Words>::default();
    let plugins = Plugins::new()
        .add_generator(Arc::new(Echo))
        .add_stage(Arc::clone(&stage) as _)
        .add_observer(Arc::clone(&words) as _);
    let engine = Engine::open_with(EngineConfig::default().responder(None), plugins).unwrap();
    for bad in ["before", "before panics", "after", "after panics"] {
        *mood.lock().unwrap() = bad;
        for _ in 0..2 {
            let told = AtomicUsize::new(0);
            let error = engine
                .on_event(Request::new("Hello"), |event| {
                    told.fetch_add(usize::from(matches!(event, Event::Chunk { .. })), Ordering::Relaxed);
                    ControlFlow::Continue(())
                })
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PluginFailed, "{bad}");
            assert!(!error.to_string().contains("canary"), "{error}");
            assert_eq!(told.into_inner(), 0);
        }
    }
    let told = words.0.lock().unwrap().join("\n");
    assert!(told.contains("the canary died") && told.contains("it panicked"), "{told}");
    *mood.lock().unwrap() = "well";
    assert_eq!(outcome(&ask(&engine, "Hello")), CacheOutcome::Miss, "nothing of them was kept");
}

#[test]
fn a_request_that_a_stage_spoils_names_what_it_spoiled() {
    let engine = echoes(&[before(|request| {
        request.message.clear();
        Ok(())
    })]);
    let error = engine.process_blocking(Request::new("Hello")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidText);
    assert!(error.to_string().starts_with("after a stage: message is empty"), "{error}");
}

#[test]
fn nothing_of_an_answer_that_is_cut_short_is_told() {
    let config = EngineConfig::default().max_concurrent(2);
    let engine = open(
        config,
        &[after(|_| {
            loop {
                std::thread::park()
            }
        })],
    );
    let request = || Request::new("Hello").cache(CacheMode::Bypass);
    // More than there are threads and places.
    for _ in 0..5 {
        let (chunks, end) = read(&engine, request().deadline(Duration::from_millis(100)));
        assert_eq!((chunks, end.unwrap_err()), (vec![], ErrorKind::DeadlineExceeded));
    }
    let stopped = engine.on_event(request(), |_| ControlFlow::Break(())).unwrap();
    assert_eq!((stopped.response.as_str(), stopped.finish_reason()), ("", FinishReason::Cancelled));
    let mut stream = engine.stream(request()).unwrap();
    assert!(matches!(
        stream.next_blocking(Duration::from_secs(60)),
        Poll::Ready(Some(Ok(Event::Analysis(_))))
    ));
    stream.canceller().cancel();
    let read = stream.next_blocking(Duration::from_secs(60));
    assert!(matches!(read, Poll::Ready(Some(Err(error))) if error.is_cancelled()));
    assert_eq!(engine.analyze_blocking("Where is order 4711?").unwrap().entities[0].value, "4711");
    engine.close().unwrap();
}

#[test]
fn a_deadline_cuts_one_view_of_an_answer_that_others_wait_for() {
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let engine = echoes(&[after(move |_| {
        gate.lock().unwrap().recv().unwrap();
        Ok(None)
    })]);
    let patient = engine.stream(Request::new("Hello")).unwrap();
    let hasty = engine.process_blocking(Request::new("Hello").deadline(Duration::from_millis(100)));
    assert_eq!(hasty.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    open_gate.send(()).unwrap();
    assert!(matches!(patient.into_iter().last(), Some(Ok(Event::Done(reply))) if reply.response == "Hello|"));
}

#[test]
fn equal_requests_at_once_are_answered_and_seen_once() {
    let stage = after(|reply| {
        std::thread::sleep(Duration::from_millis(50));
        shouts(reply)
    });
    let engine = echoes(&[Arc::clone(&stage)]);
    let streams: Vec<_> = (0..100).map(|_| engine.stream(Request::new("Hello")).unwrap()).collect();
    for stream in streams {
        let Some(Ok(Event::Done(reply))) = stream.into_iter().last() else { panic!("no end") };
        assert_eq!(reply.response, "HELLO|");
    }
    assert_eq!(stage.reviewed.load(Ordering::Relaxed), 1);
}

#[test]
fn a_stages_time_counts_against_the_deadline() {
    let slow = before(|_| {
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    });
    let engine = echoes(&[slow]);
    let request = Request::new("Hello").deadline(Duration::from_millis(10));
    assert_eq!(engine.process_blocking(request).unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    let reply = ask(&engine, "Hello");
    assert!(reply.metadata.response_generation.timings_ms.total >= 30.0);
}

#[test]
fn stages_see_what_stands_in_for_an_answer_and_nothing_of_the_one_that_broke_off() {
    let engine = echoes(&[after(shouts)]);
    let (chunks, end) = read(&engine, Request::new("break off"));
    let reply = end.unwrap();
    assert_eq!(reply.metadata.response_generation.degraded, Some(Degraded::Template));
    assert_eq!(chunks, [reply.response.to_uppercase()]);
    assert_eq!(reply.response, chunks[0]);
}
