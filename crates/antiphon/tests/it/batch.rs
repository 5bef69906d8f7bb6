//! Callers with many texts, and everybody else.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use antiphon::{Analysis, Engine, EngineConfig, ErrorKind, Request, Ticket};

use crate::open;
use crate::support::eventually;

/// Work for many passes.
fn many(engine: &Engine, texts: usize) -> Ticket<Vec<Analysis>> {
    let texts: Vec<String> = (0..texts).map(|number| format!("Where is order {number}, please?")).collect();
    engine.analyze_batch(&texts)
}

fn is_ready<T>(ticket: &mut Ticket<T>) -> bool {
    matches!(Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}

/// What the ledger has for requests and texts that wait.
fn waiting_bytes(engine: &Engine) -> usize {
    let text = engine.metrics_text();
    let line = text.lines().find_map(|line| line.strip_prefix(r#"antiphon_memory_bytes{part="queue"} "#));
    line.expect("the ledger has a part for what waits").parse().unwrap()
}

#[test]
fn a_lone_message_an_answer_and_vectors_do_not_wait_for_a_large_batch() {
    let engine = open(EngineConfig::default());
    let mut batch = many(&engine, 20_000);
    assert_eq!(engine.analyze_blocking("I want a refund").unwrap().intent.label, "get_refund");
    assert_eq!(engine.embed_blocking(&["I want a refund"]).unwrap().len(), 1);
    assert!(engine.process_blocking(Request::new("Hello").max_tokens(5)).is_ok());
    assert!(!is_ready(&mut batch), "the batch went first");
    assert!(waiting_bytes(&engine) > 1_000_000);
    drop(batch);
    eventually("the texts of who has left are forgotten", || waiting_bytes(&engine) == 0);
}

#[test]
fn callers_beyond_the_limit_are_refused_until_one_is_through() {
    let engine = open(EngineConfig::default().max_queue(2));
    let held = [many(&engine, 20_000), many(&engine, 20_000)];
    let error = engine.analyze_blocking("Hello").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.retry_after().is_some());
    drop(held);
    eventually("there is room again", || engine.analyze_blocking("Hello").is_ok());
    for _ in 0..50 {
        assert!(
            engine.analyze_blocking("Hello").is_ok(),
            "whoever is through has left before its answer comes"
        );
    }
}

#[test]
fn texts_that_would_not_fit_under_the_limit_are_refused() {
    let engine = open(EngineConfig::default().memory_limit_bytes(64 << 20));
    let error = many(&engine, 200_000).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    assert!(error.to_string().contains("memory_limit_bytes"), "{error}");
    assert_eq!(many(&engine, 100).wait().unwrap().len(), 100);
}

#[test]
fn drain_waits_for_a_batch_and_close_ends_it() {
    let engine = open(EngineConfig::default());
    let batch = many(&engine, 500);
    engine.drain(Duration::from_secs(60)).unwrap();
    assert_eq!(batch.wait().unwrap().len(), 500);

    let engine = open(EngineConfig::default());
    let batch = many(&engine, 20_000);
    engine.close().unwrap();
    assert_eq!(batch.wait().unwrap_err().kind(), ErrorKind::Closed);
}
