//! Stop means stop.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use antiphon::{CacheMode, EngineConfig, ErrorKind, Event, Generate, Message, ModelSource, Request};

use crate::{engine, open};

fn long(seed: u64) -> Request {
    // Hot sampling seldom ends by itself.
    Request::new("Tell me a long story about everything").max_tokens(500).temperature(2.0).seed(seed)
}

#[test]
fn after_cancel_the_next_read_is_the_error() {
    let mut stream = engine().stream(long(1)).unwrap();
    let canceller = stream.canceller();
    assert!(matches!(
        stream.next_blocking(Duration::from_secs(60)),
        Poll::Ready(Some(Ok(Event::Analysis(_))))
    ));
    std::thread::spawn(move || canceller.cancel()).join().unwrap();
    let Poll::Ready(Some(Err(error))) = stream.next_blocking(Duration::ZERO) else { panic!("not cancelled") };
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(matches!(stream.next_blocking(Duration::ZERO), Poll::Ready(None)));
}

#[test]
fn after_cancel_returned_no_event_is_read() {
    for round in 0..50 {
        let cancelled = AtomicBool::new(false);
        let mut stream = engine().stream(long(round)).unwrap();
        let canceller = stream.canceller();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(round * 97));
                canceller.cancel();
                cancelled.store(true, Ordering::SeqCst);
            });
            loop {
                let before = cancelled.load(Ordering::SeqCst);
                match stream.next_blocking(Duration::from_secs(60)) {
                    Poll::Ready(Some(Ok(Event::Done(_)))) => break,
                    Poll::Ready(Some(Ok(_))) => assert!(!before),
                    Poll::Ready(Some(Err(error))) => break assert!(error.is_cancelled()),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
}

#[test]
fn a_reader_may_cancel_its_own_stream() {
    let engine = open(EngineConfig::default());
    let mut calls = 0;
    let mut stream = engine.stream(long(3)).unwrap();
    let canceller = stream.canceller();
    while let Poll::Ready(Some(event)) = stream.next_blocking(Duration::from_secs(60)) {
        calls += 1;
        match event {
            Ok(_) => canceller.cancel(),
            Err(error) => assert!(error.is_cancelled()),
        }
    }
    assert_eq!(calls, 2, "one event, then the error");
}

#[test]
fn a_dropped_stream_makes_room_for_the_next() {
    let engine = open(EngineConfig::default().max_concurrent(1));
    for seed in 0..20 {
        drop(engine.stream(long(seed)).unwrap());
    }
    let reply = engine.process_blocking(Request::new("Hello").max_tokens(4)).unwrap();
    assert!(reply.metadata.response_generation.timings_ms.queue < 5_000.0);
}

#[test]
fn faults_88_a_cancelled_request_in_the_queue_ends_at_once() {
    let engine = open(EngineConfig::default().max_concurrent(1));
    let _running = engine.stream(long(1)).unwrap();
    let mut waiting = engine.stream(long(2)).unwrap();
    waiting.canceller().cancel();
    let Poll::Ready(Some(Err(error))) = waiting.next_blocking(Duration::ZERO) else {
        panic!("not cancelled")
    };
    assert!(error.is_cancelled());
}

#[test]
fn faults_91_close_ends_everything_with_closed() {
    let config = r#"{"batcher": {"max_queue": 2000, "max_queue_tokens": 1000000, "max_concurrent": 2}}"#;
    let engine = open(EngineConfig::from_json(config).unwrap());
    let streams: Vec<_> = (0..200).map(|seed| engine.stream(long(seed)).unwrap()).collect();
    engine.close().unwrap();
    engine.close().unwrap();
    let mut closed = 0;
    for stream in streams {
        match stream.into_iter().last().expect("a stream ends") {
            Ok(event) => assert!(matches!(event, Event::Done(_)), "those that were quicker"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed);
                closed += 1;
            }
        }
    }
    assert!(closed > 100, "{closed} of 200");
    assert!(!engine.ready());
    assert_eq!(engine.process_blocking(Request::new("x")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(engine.analyze_blocking("x").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn drain_lets_running_work_end() {
    let engine = open(EngineConfig::default());
    let stream = engine.stream(Request::new("Hello, I need help with my account").max_tokens(40)).unwrap();
    engine.drain(Duration::from_secs(60)).unwrap();
    let events: Vec<Event> = stream.into_iter().map(Result::unwrap).collect();
    assert!(matches!(events.last(), Some(Event::Done(_))));
    assert_eq!(engine.process_blocking(Request::new("x")).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn an_engine_dropped_before_its_stream_goes_on() {
    let engine = open(EngineConfig::default());
    let stream = engine.stream(Request::new("Hello").max_tokens(8)).unwrap();
    drop(engine);
    assert!(matches!(stream.into_iter().last(), Some(Ok(Event::Done(_)))));
}

#[test]
fn a_break_is_not_an_error() {
    let reply = engine().on_event(long(9), |_| ControlFlow::Break(())).unwrap();
    assert_eq!(reply.finish_reason(), antiphon::FinishReason::Cancelled);
}

/// A prompt of 2,000 tokens, cancelled wherever it happens to be: its rows come back each time, so that a prompt which
/// needs all of the pool can still be read.
#[test]
fn a_long_prompt_cancelled_at_fifty_points_gives_its_rows_back() {
    let files = crate::responder_files();
    let path = files.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = 3072.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let source = ModelSource::Path(files.path().to_owned());
    // Room for one such sequence, and no second.
    let engine = open(EngineConfig::default().responder(source).max_concurrent(1));
    // Each with a beginning of its own, so that none finds rows of another.
    let request = |number: usize| {
        let turn = |turn| {
            format!("{number}, {turn}: where is my order, when will it come, and how long will it take?")
        };
        let turns: Vec<Message> = (0..99).map(|at| Message::user(turn(at))).collect();
        Generate::messages(turns).max_tokens(64).cache(CacheMode::Bypass)
    };
    let whole = engine.generate_blocking(request(1000)).unwrap();
    let usage = whole.metadata.response_generation.usage;
    assert!(usage.prompt_tokens >= 2000, "{usage:?}");
    for point in 0..50 {
        let mut stream = engine.generate_stream(request(point)).unwrap();
        std::thread::sleep(Duration::from_micros(400) * point as u32);
        stream.canceller().cancel();
        let read = stream.next_blocking(Duration::from_secs(60));
        assert!(matches!(&read, Poll::Ready(Some(Err(error))) if error.is_cancelled()), "{read:?}");
    }
    let again = engine.generate_blocking(request(1000)).unwrap();
    assert_eq!(again.response, whole.response);
}
