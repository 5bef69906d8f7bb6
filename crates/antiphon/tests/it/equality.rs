//! The same bytes, always: for any thread count, batch size, chunk of a prompt, neighbour and state of the prefix blocks.

use antiphon::{Analysis, CacheMode, Engine, EngineConfig, Event, Message, Request};
use serde_json::Value;

use crate::open;

/// A hundred validation questions, each as the second turn of a conversation; half of the answers are sampled.
fn requests() -> Vec<Request> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/evaluation/responses.jsonl");
    let lines = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Value> = lines.lines().take(100).map(|line| serde_json::from_str(line).unwrap()).collect();
    let text =
        |row: usize, message: usize| rows[row % rows.len()]["messages"][message]["content"].as_str().unwrap();
    let request = |index: usize| {
        // Neighbours share a beginning, of another length each time.
        let history =
            [Message::user(text(index / 4, 0)), Message::assistant(text(index / 4, 1).repeat(index / 4 % 3))];
        let request = Request::new(text(index, 0)).history(history).max_tokens(6).cache(CacheMode::Bypass);
        if index.is_multiple_of(2) {
            request
        } else {
            request.temperature(0.9).top_p(0.95).seed(index as u64)
        }
    };
    (0..rows.len()).map(request).collect()
}

/// Analysis and text of each answer, all asked at once.
fn answers(engine: &Engine, requests: &[Request]) -> Vec<(Analysis, String)> {
    let streams: Vec<_> = requests.iter().map(|request| engine.stream(request.clone()).unwrap()).collect();
    let answer = |stream: antiphon::ReplyStream| match stream.into_iter().last().unwrap().unwrap() {
        Event::Done(reply) => (reply.analysis().unwrap(), reply.response),
        other => panic!("{other:?}"),
    };
    streams.into_iter().map(answer).collect()
}

#[test]
fn answers_are_equal_for_any_threads_batch_chunk_and_prefix() {
    let requests = requests();
    let config = |threads, batch, chunk: usize| {
        let mut config = EngineConfig::default().threads(threads).max_concurrent(batch);
        config.batcher.prompt_chunk_tokens = chunk;
        open(config)
    };
    let expected = answers(&config(1, 1, 4096), &requests);
    for threads in [1, 2] {
        for (batch, chunk) in [(1, 16), (2, 16), (2, 128), (7, 16), (7, 37), (7, 128), (16, 16), (16, 1024)] {
            let engine = config(threads, batch, chunk);
            for prefixes in ["cold", "warm"] {
                let equal = answers(&engine, &requests) == expected;
                assert!(
                    equal,
                    "{threads} threads, batches of {batch}, chunks of {chunk}, {prefixes} prefixes"
                );
            }
        }
    }
}
