//! Faults of caches and queues, named after their cases.

use std::time::Duration;

use antiphon::{
    CacheMode, CacheOutcome, Engine, EngineConfig, ErrorKind, Event, FinishReason, ReplyStream, Request,
    RequestOptions,
};

use crate::open;

/// Greedy, and as long as it may be: it never takes the token that ends a turn of the bundled responder.
fn long(tokens: usize) -> Request {
    let mut options = RequestOptions::default();
    options.logit_bias.insert(3, -100.0);
    Request::new("Hello, I need help with my account").options(options).max_tokens(tokens)
}

/// An engine whose queue holds requests back until so many wait, so that the test decides when they run.
fn held(batch: usize, max_queue: usize) -> Engine {
    let config = format!(
        r#"{{"batcher": {{"max_concurrent": {batch}, "window_ms": 10000, "max_queue": {max_queue}, "max_queue_tokens": 1000000000,
            "timeout_ms": 600000}}}}"#
    );
    open(EngineConfig::from_json(&config).unwrap())
}

fn text(stream: ReplyStream) -> String {
    let events: Vec<Event> = stream.into_iter().collect::<Result<_, _>>().unwrap();
    let Some(Event::Done(reply)) = events.last() else { panic!("no end") };
    reply.response.clone()
}

#[test]
fn faults_81_of_a_thousand_equal_requests_the_first_may_leave_at_any_time() {
    let engine = held(2, 10);
    let mut streams: Vec<ReplyStream> = (0..1000).map(|_| engine.stream(long(64)).unwrap()).collect();
    assert_eq!((engine.cache().stats().misses, engine.cache().stats().joined), (1, 999));
    streams[0].canceller().cancel();
    drop(streams.drain(..500));
    let _other = engine.stream(long(1)).unwrap();
    let texts: Vec<String> = streams.into_iter().map(text).collect();
    assert_eq!(texts.len(), 500);
    assert!(texts.iter().all(|other| *other == texts[0] && !other.is_empty()));
    assert_eq!(engine.cache().stats().misses, 2);
}

#[test]
fn faults_83_a_replay_goes_on_when_its_entry_is_gone() {
    let engine = open(EngineConfig::default());
    let first = engine.process_blocking(long(32)).unwrap();
    let mut replay = engine.stream(long(32)).unwrap();
    let _ = replay.next_blocking(Duration::from_secs(60));
    engine.cache().clear(None);
    let reply = replay.into_iter().find_map(|event| match event.unwrap() {
        Event::Done(reply) => Some(reply),
        _ => None,
    });
    let reply = reply.unwrap();
    assert_eq!(
        (reply.metadata.response_generation.cache, reply.response),
        (CacheOutcome::Hit, first.response)
    );
}

#[test]
fn faults_84_what_is_kept_is_whole_wherever_streams_are_cut() {
    let whole = open(EngineConfig::default()).process_blocking(long(200)).unwrap();
    for events in 0..20 {
        let engine = open(EngineConfig::default());
        let mut cut = engine.stream(long(200)).unwrap();
        for _ in 0..events {
            let _ = cut.next_blocking(Duration::from_secs(60));
        }
        drop(cut);
        // Late before it begins, or a hit if the cut came too late to cut.
        let _ = engine.process_blocking(long(200).deadline(Duration::from_nanos(1)));
        let again = engine.process_blocking(long(200)).unwrap();
        assert_eq!(
            (again.response, again.metadata.response_generation.finish_reason),
            (whole.response.clone(), FinishReason::Length)
        );
    }
}

#[test]
fn faults_87_a_full_queue_says_how_long_it_is_and_when_to_come_back() {
    let engine = held(5, 2);
    let waiting: Vec<_> = (0..2).map(|_| engine.stream(long(8).cache(CacheMode::Bypass)).unwrap()).collect();
    let error = engine.stream(long(8).cache(CacheMode::Bypass)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.to_string().contains("2 requests") && error.retry_after().is_some(), "{error}");
    assert_eq!(waiting.len(), 2);
}

#[test]
fn faults_91_ten_thousand_that_wait_all_hear_of_the_end() {
    let engine = held(1024, 20_000);
    let waiting: Vec<_> =
        (0..10_000).map(|_| engine.stream(long(8).cache(CacheMode::Bypass)).unwrap()).collect();
    engine.close().unwrap();
    engine.close().unwrap();
    // A few may have been answered before.
    let told = waiting.into_iter().filter_map(|stream| stream.into_iter().find_map(Result::err));
    let closed = told.map(|error| assert_eq!(error.kind(), ErrorKind::Closed)).count();
    assert!(closed > 0);
    let text = engine.metrics_text();
    assert!(
        text.contains(&format!(r#"ai_requests_total{{endpoint="process",status="closed"}} {closed}"#)),
        "{text}"
    );
    let answered = format!(r#"ai_requests_total{{endpoint="process",status="success"}} {}"#, 10_000 - closed);
    assert!(closed == 10_000 || text.contains(&answered), "{text}");
}
