//! Answers as they come.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use antiphon::{Event, FinishReason, Reply, Request};
use futures_core::Stream;

use crate::engine;
use pollster::block_on;

const MESSAGE: &str = "Hello, I need help with my account";

fn check_order(events: &[Event]) -> &Reply {
    assert!(matches!(events[0], Event::Analysis(_)));
    let (last, chunks) = events[1..].split_last().unwrap();
    let mut text = String::new();
    for (expected, event) in chunks.iter().enumerate() {
        let Event::Chunk { content, index, .. } = event else { panic!("{event:?}") };
        assert_eq!(*index, expected as u64);
        assert!(!content.is_empty());
        text.push_str(content);
    }
    let Event::Done(reply) = last else { panic!("{last:?}") };
    assert_eq!(reply.response, text);
    reply
}

#[test]
fn a_stream_is_one_analysis_then_chunks_then_done() {
    let events: Result<Vec<Event>, _> = engine().stream(Request::new(MESSAGE)).unwrap().into_iter().collect();
    let events = events.unwrap();
    let reply = check_order(&events);
    assert!(events.len() > 4, "an answer of several tokens comes in several chunks");
    assert_eq!(reply.response, engine().process_blocking(Request::new(MESSAGE)).unwrap().response);
}

#[test]
fn a_replayed_stream_has_the_same_events() {
    let events = || -> Vec<Event> {
        engine()
            .stream(Request::new("Replay this").max_tokens(20))
            .unwrap()
            .into_iter()
            .map(Result::unwrap)
            .collect()
    };
    let (first, second) = (events(), events());
    check_order(&second);
    assert_eq!(first[..first.len() - 1], second[..second.len() - 1]);
}

#[test]
fn an_async_stream_gives_the_same_events() {
    block_on(async {
        let mut stream = engine().stream(Request::new(MESSAGE)).unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event.unwrap());
        }
        check_order(&events);
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn the_waker_is_called_when_a_stream_becomes_readable() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut stream = engine().stream(Request::new("Wake me").max_tokens(64)).unwrap();
    let mut pending = 0;
    loop {
        let mut context = std::task::Context::from_waker(&waker);
        match std::pin::Pin::new(&mut stream).poll_next(&mut context) {
            Poll::Ready(Some(Ok(Event::Done(_)))) => break,
            Poll::Ready(Some(event)) => drop(event.unwrap()),
            Poll::Ready(None) => panic!("no end"),
            Poll::Pending => {
                pending += 1;
                while count.0.load(Ordering::Relaxed) < pending {
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[test]
fn a_blocking_wait_gives_up_in_time() {
    // Admission holds a lone request back, so nothing can have come yet.
    let config = antiphon::EngineConfig::from_json(r#"{"batcher": {"window_ms": 1000}}"#).unwrap();
    let engine = crate::open(config);
    let mut stream = engine.stream(Request::new(MESSAGE)).unwrap();
    assert!(stream.next_blocking(Duration::from_millis(1)).is_pending());
    let first = stream.next_blocking(Duration::from_secs(60));
    assert!(matches!(first, Poll::Ready(Some(Ok(Event::Analysis(_))))), "{first:?}");
}

#[test]
fn pushed_events_are_those_of_the_stream() {
    let mut events = Vec::new();
    let reply = engine()
        .on_event(Request::new(MESSAGE), |event| {
            events.push(event);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(check_order(&events), &reply);
}

#[test]
fn stream_ends_when_callback_breaks() {
    for stop_after in [1, 2, 5] {
        let mut calls = 0;
        let mut text = String::new();
        let request = Request::new("Stop after some events").max_tokens(200).logprobs(0).seed(stop_after);
        let reply = engine()
            .on_event(request, |event| {
                calls += 1;
                if let Event::Chunk { content, .. } = event {
                    text.push_str(&content);
                }
                if calls == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(calls, stop_after, "called no more");
        assert!(reply.response.starts_with(&text));
        let reason = reply.finish_reason();
        assert!(matches!(reason, FinishReason::Cancelled | FinishReason::Stop), "{reason:?}");
    }
}

#[test]
fn a_panic_in_a_callback_reaches_the_caller_and_the_engine_goes_on() {
    let panicked = std::panic::catch_unwind(|| {
        engine().on_event(Request::new("Panic on this"), |_| {
            std::panic::resume_unwind(Box::new("the host's own panic"))
        })
    });
    assert!(panicked.is_err());
    engine().process_blocking(Request::new("And go on").max_tokens(4)).unwrap();
}

#[test]
fn stop_strings_end_the_answer_and_never_show() {
    let whole = engine().process_blocking(Request::new(MESSAGE)).unwrap().response;
    let words: Vec<&str> = whole.split(' ').collect();
    let stop = format!(" {} {}", words[2], words[3]);
    let expected = &whole[..whole.find(&stop).unwrap()];
    let events: Vec<Event> =
        engine().stream(Request::new(MESSAGE).stop(&stop)).unwrap().into_iter().map(Result::unwrap).collect();
    let reply = check_order(&events);
    assert_eq!(reply.response, expected);
    assert_eq!(reply.finish_reason(), FinishReason::Stop);
}

#[test]
fn an_answer_ends_by_length() {
    let reply = engine().process_blocking(Request::new(MESSAGE).max_tokens(3)).unwrap();
    assert_eq!(reply.finish_reason(), FinishReason::Length);
    assert_eq!(reply.metadata.response_generation.usage.completion_tokens, 3);
}

#[test]
fn log_probabilities_come_with_their_tokens() {
    let mut tokens = Vec::new();
    for event in engine().stream(Request::new(MESSAGE).max_tokens(10).logprobs(3)).unwrap() {
        if let Event::Chunk { logprobs, .. } = event.unwrap() {
            tokens.extend(logprobs.unwrap());
        }
    }
    assert_eq!(tokens.len(), 10);
    for token in tokens {
        assert!(token.logprob <= 0.0);
        assert_eq!(token.top.len(), 3);
        assert_eq!(token.top[0].id, token.id, "a greedy token is the likeliest");
        assert!(token.top[0].logprob >= token.top[1].logprob);
    }
}
