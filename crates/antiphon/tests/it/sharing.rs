//! Equal requests at once: one flies, the others join it; and equal beginnings are read once.

use std::sync::Barrier;
use std::time::Duration;

use antiphon::{
    CacheMode, CacheOutcome, Engine, EngineConfig, ErrorKind, Event, FinishReason, Generate, Message, Reply,
    ReplyStream, Request, RequestOptions, Usage,
};

use crate::open;

/// Greedy, so that it may be shared, and long: it never takes the token that ends a turn of the bundled responder.
fn long() -> Request {
    let mut options = RequestOptions::default();
    options.logit_bias.insert(3, -100.0);
    Request::new("Hello, I need help with my account").options(options).max_tokens(400)
}

fn text_of(events: &[Event]) -> String {
    let content = |event: &Event| match event {
        Event::Chunk { content, .. } => Some(content.clone()),
        _ => None,
    };
    events.iter().filter_map(content).collect()
}

#[test]
fn a_hundred_equal_requests_are_one_inference() {
    let engine = open(EngineConfig::default());
    let barrier = Barrier::new(100);
    let streams: Vec<Vec<Event>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    engine.stream(long()).unwrap().into_iter().collect::<Result<Vec<_>, _>>().unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let stats = engine.cache().stats();
    assert_eq!((stats.misses, stats.joined + stats.hits, stats.stored), (1, 99, 1));
    let texts: Vec<String> = streams.iter().map(|events| text_of(events)).collect();
    assert!(texts.iter().all(|text| *text == texts[0] && !text.is_empty()));
    let outcomes: Vec<_> = streams
        .iter()
        .map(|events| match events.last() {
            Some(Event::Done(reply)) => (reply.metadata.response_generation.cache, reply.response.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(outcomes.iter().filter(|(cache, _)| *cache == CacheOutcome::Miss).count(), 1);
    assert!(outcomes.iter().all(|(_, response)| *response == texts[0]));
}

#[test]
fn a_flight_belongs_to_no_caller() {
    let engine = open(EngineConfig::default());
    let mut first = engine.stream(long()).unwrap();
    let others: Vec<_> = (0..99).map(|_| engine.stream(long()).unwrap()).collect();
    let _ = first.next_blocking(Duration::from_secs(60));
    drop(first);
    let texts: Vec<String> = others
        .into_iter()
        .map(|stream| text_of(&stream.into_iter().collect::<Result<Vec<_>, _>>().unwrap()))
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0] && !text.is_empty()));
    assert_eq!(engine.cache().stats().misses, 1);
}

#[test]
fn tenants_do_not_join_each_other() {
    let engine = open(EngineConfig::default());
    let streams: Vec<_> = ["a", "b"].map(|tenant| engine.stream(long().tenant(tenant)).unwrap()).into();
    assert_eq!((engine.cache().stats().misses, engine.cache().stats().joined), (2, 0));
    drop(streams);
}

/// An engine whose queue holds a lone request back until another comes, so that the test decides when it runs.
fn held() -> Engine {
    open(EngineConfig::from_json(r#"{"batcher": {"max_concurrent": 2, "window_ms": 10000}}"#).unwrap())
}

/// The other one.
fn release(engine: &Engine) -> ReplyStream {
    engine.stream(Request::new("Thank you").max_tokens(1)).unwrap()
}

#[test]
fn whoever_cancels_leaves_alone_and_the_last_one_ends_the_work() {
    let engine = held();
    let (mut one, two) = (engine.stream(long()).unwrap(), engine.stream(long()).unwrap());
    assert_eq!(engine.cache().stats().joined, 1);
    one.canceller().cancel();
    let error = one.next_blocking(Duration::ZERO);
    assert!(matches!(error, std::task::Poll::Ready(Some(Err(error))) if error.is_cancelled()));
    drop(two);
    // Nobody is left, so a third one flies itself.
    let three = engine.stream(long()).unwrap();
    assert_eq!(engine.cache().stats().joined, 1);
    let _other = release(&engine);
    assert!(!text_of(&three.into_iter().collect::<Result<Vec<_>, _>>().unwrap()).is_empty());
}

#[test]
fn a_subscribers_own_deadline_cuts_only_its_own_view() {
    let engine = held();
    let patient = engine.stream(long()).unwrap();
    let hurried = engine.stream(long().deadline(Duration::from_millis(1))).unwrap();
    let error = hurried.into_iter().find_map(Result::err).expect("it is late in the queue");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let _other = release(&engine);
    let events: Vec<Event> = patient.into_iter().collect::<Result<_, _>>().unwrap();
    let Some(Event::Done(reply)) = events.last() else { panic!("no end") };
    assert_ne!(reply.finish_reason(), FinishReason::Deadline);
    assert_eq!(engine.cache().stats().joined, 1);
}

fn usage_of(reply: &Reply) -> Usage {
    reply.metadata.response_generation.usage
}

fn chat(turns: usize) -> Generate {
    let sentence =
        "I ordered two blue lamps and one of them arrived with a broken foot, what can I do about it now?";
    let messages = (0..turns).map(|turn| {
        let content = format!("{turn}. {sentence}");
        if turn % 2 == 0 { Message::user(content) } else { Message::assistant(content) }
    });
    Generate::messages(messages.collect::<Vec<_>>()).max_tokens(8)
}

#[test]
fn an_equal_beginning_is_read_once_and_the_answer_is_the_same() {
    let warm = open(EngineConfig::default());
    let cold = open(EngineConfig::default());
    let first = warm.generate_blocking(chat(9)).unwrap();
    assert_eq!(usage_of(&first).cached_tokens, 0);
    let second = warm.generate_blocking(chat(11)).unwrap();
    let usage = usage_of(&second);
    assert!(usage.cached_tokens >= usage_of(&first).prompt_tokens / 2, "{usage:?}");
    assert!(usage.cached_tokens < usage.prompt_tokens);
    let fresh = cold.generate_blocking(chat(11)).unwrap();
    assert_eq!((usage_of(&fresh).cached_tokens, fresh.response), (0, second.response));
    let other = warm.generate_blocking(chat(11).tenant("other")).unwrap();
    assert_eq!(usage_of(&other).cached_tokens, 0, "tenants share nothing");
}

#[test]
fn a_warmed_answer_is_a_hit_and_what_is_never_kept_is_refused() {
    let engine = open(EngineConfig::default());
    let request = || Request::new("Where is my order?").max_tokens(8);
    engine.cache().warm_blocking(request()).unwrap();
    engine.cache().warm_blocking(request()).unwrap();
    let reply = engine.process_blocking(request()).unwrap();
    assert_eq!(reply.metadata.response_generation.cache, CacheOutcome::Hit);
    assert_eq!((engine.cache().stats().stored, engine.cache().stats().misses), (1, 1));
    for never in [request().temperature(0.7), request().cache(CacheMode::Bypass)] {
        assert_eq!(engine.cache().warm_blocking(never).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
