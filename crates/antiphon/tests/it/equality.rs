//! The same bytes, always: for any thread count, batch size, neighbour and cache state.

use antiphon::{CacheMode, EngineConfig, Event, Request};

use crate::open;

const MESSAGES: &[&str] = &[
    "Hello, I need help with my account",
    "Where is order 4711?",
    "I want my money back!",
    "hi there",
    "thank you so much",
    "What payment methods do you accept, and can I pay with a card ending in 4242 tomorrow at 5pm?",
    "I want to talk to a human",
];

fn requests() -> Vec<Request> {
    let sampled = |(index, message): (usize, &&str)| {
        let request = Request::new(*message).max_tokens(24).cache(CacheMode::Bypass);
        if index % 2 == 0 { request } else { request.temperature(0.9).top_p(0.95).seed(index as u64) }
    };
    MESSAGES.iter().cycle().take(16).enumerate().map(sampled).collect()
}

/// Analysis and text of each answer, all asked at once.
fn answers(engine: &antiphon::Engine, requests: &[Request]) -> Vec<(antiphon::Analysis, String)> {
    let streams: Vec<_> = requests.iter().map(|request| engine.stream(request.clone()).unwrap()).collect();
    let answer = |stream: antiphon::ReplyStream| match stream.into_iter().last().unwrap().unwrap() {
        Event::Done(reply) => (reply.analysis().unwrap(), reply.response),
        other => panic!("{other:?}"),
    };
    streams.into_iter().map(answer).collect()
}

#[test]
fn answers_are_equal_for_any_thread_count_and_batch() {
    let requests = requests();
    let alone = open(EngineConfig::default().threads(1).max_concurrent(1));
    let expected = answers(&alone, &requests);
    for threads in [1, 2] {
        for batch in [1, 2, 7, 16] {
            let engine = open(EngineConfig::default().threads(threads).max_concurrent(batch));
            assert!(answers(&engine, &requests) == expected, "{threads} threads, batches of {batch}");
        }
    }
}
