//! One deadline over queue, prompt and answer.

use std::time::Duration;

use antiphon::{EngineConfig, ErrorKind, Event, FinishReason, Request};

use crate::{engine, open};

fn endless(seed: u64) -> Request {
    Request::new("Tell me a long story about everything").max_tokens(900).temperature(2.0).seed(seed)
}

#[test]
fn a_late_answer_comes_back_as_far_as_it_got() {
    // Some seeds end early by themselves, and machines differ in speed: one answer that is cut is enough.
    let tries = [100, 50, 25, 12, 6, 3].into_iter().flat_map(|ms| (0..20).map(move |seed| (ms, seed)));
    let cut = tries.into_iter().find_map(|(ms, seed)| {
        let reply = engine().process_blocking(endless(seed).deadline(Duration::from_millis(ms))).ok()?;
        (reply.finish_reason() == FinishReason::Deadline).then_some(reply)
    });
    let cut = cut.expect("an answer that was cut");
    assert!(!cut.response.is_empty());
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_an_error() {
    let engine = open(EngineConfig::default().max_concurrent(1));
    let mut running = engine.stream(endless(1)).unwrap().into_iter();
    assert!(matches!(running.next(), Some(Ok(Event::Analysis(_)))));
    let error =
        engine.process_blocking(Request::new("Hello").deadline(Duration::from_millis(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.is_retryable());
}

#[test]
fn the_configured_time_out_bounds_every_request() {
    let config = EngineConfig::from_json(r#"{"batcher": {"timeout_ms": 40}}"#).unwrap();
    let engine = open(config);
    let outcome = engine.process_blocking(endless(3).deadline(Duration::from_secs(3600)));
    match outcome {
        Ok(reply) => assert!(reply.metadata.response_generation.timings_ms.total < 10_000.0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::DeadlineExceeded),
    }
}
