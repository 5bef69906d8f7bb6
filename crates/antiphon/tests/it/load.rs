//! More callers than places.

use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use antiphon::{CacheMode, EngineConfig, ErrorKind, Event, Priority, ReplyStream, Request};

use crate::open;

#[test]
fn a_full_queue_refuses_with_advice_and_loses_nothing() {
    let engine = open(EngineConfig::default().max_concurrent(1).max_queue(4));
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for seed in 0..50 {
        match engine.stream(Request::new("Hello there").max_tokens(30).temperature(1.0).seed(seed)) {
            Ok(stream) => accepted.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded);
                assert!(error.retry_after().is_some());
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && accepted.len() + refused == 50);
    for stream in accepted {
        assert!(matches!(stream.into_iter().last(), Some(Ok(Event::Done(_)))));
    }
}

#[test]
fn threads_share_an_engine() {
    let engine = open(EngineConfig::default());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let engine = engine.clone();
            scope.spawn(move || {
                for round in 0..5 {
                    let request = Request::new(format!("Where is order {thread}{round}?"))
                        .max_tokens(8)
                        .priority(Priority::High);
                    let reply = engine.process_blocking(request).unwrap();
                    assert!(
                        reply
                            .entities
                            .iter()
                            .any(|entity| entity.value.contains(&format!("{thread}{round}")))
                    );
                    engine.analyze_blocking("I love it").unwrap();
                }
            });
        }
    });
}

#[test]
fn a_quota_refuses_the_user_who_used_it_up() {
    let engine = open(EngineConfig::from_json(r#"{"quota": {"requests": 2, "window_ms": 60000}}"#).unwrap());
    let ask = |user: &str| engine.process_blocking(Request::new("Hello").max_tokens(2).user(user));
    ask("a").unwrap();
    ask("a").unwrap();
    assert_eq!(ask("a").unwrap_err().kind(), ErrorKind::QuotaExceeded);
    ask("b").unwrap();
}

#[test]
fn books_balance_over_many_streams_and_cancels() {
    balance(500, 2);
}

#[test]
#[ignore = "long: half a minute"]
fn books_balance_over_ten_thousand_streams_and_a_hundred_thousand_cancels() {
    balance(10_000, 10);
}

/// Opens `open` streams again and again, cancels every one of them at some time, and counts how all ended.
fn balance(open: usize, rounds: usize) {
    let config = format!(
        r#"{{"batcher": {{"max_queue": {open}, "max_queue_tokens": 1000000000, "timeout_ms": 600000}}}}"#
    );
    let engine = crate::open(EngineConfig::from_json(&config).unwrap());
    let (mut started, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut streams: Vec<ReplyStream> = Vec::with_capacity(open);
        for number in 0..open {
            started += 1;
            let request = Request::new(format!("Hello {number}")).max_tokens(64).cache(CacheMode::Bypass);
            match engine.stream(request) {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Overloaded);
                    refused += 1;
                }
            }
        }
        // Cancelled in another order than they came, from another thread, while the first are being answered.
        std::thread::scope(|scope| {
            let cancellers: Vec<_> = streams.iter().map(ReplyStream::canceller).collect();
            scope.spawn(move || {
                let step = (cancellers.len() * 5 / 8).max(1) | 1;
                (0..cancellers.len()).for_each(|i| cancellers[i * step % cancellers.len()].cancel());
            });
            for stream in streams {
                let ends = stream
                    .into_iter()
                    .filter(|event| !matches!(event, Ok(Event::Analysis(_) | Event::Chunk { .. })));
                assert_eq!(ends.count(), 1);
            }
        });
    }
    let text = engine.metrics_text();
    let ended = |status: &str| {
        let name = format!(r#"ai_requests_total{{endpoint="process",status="{status}"}}"#);
        crate::metrics::value(&text, &name).unwrap_or(0.0) as usize
    };
    let [done, cancelled, late] = [ended("success"), ended("cancelled"), ended("deadline")];
    assert_eq!(started, done + cancelled + late + refused, "{done} {cancelled} {late} {refused}");
    assert_eq!(ended("overloaded"), refused);
    engine.drain(Duration::from_secs(60)).unwrap();
}

/// Callers that read, cancel, drop, hurry and stop at random: whatever they do, each stream ends once.
#[test]
fn every_request_ends_in_exactly_one_way() {
    let engine = open(EngineConfig::default().max_queue(64).max_concurrent(4));
    let ended = Mutex::new([0_usize; 5]);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (engine, ended) = (&engine, &ended);
            scope.spawn(move || {
                let mut state = thread + 1;
                for _ in 0..120 {
                    let outcome = one_caller(engine, &mut state);
                    ended.lock().unwrap()[outcome] += 1;
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap();
    assert_eq!(ended.iter().sum::<usize>(), 8 * 120);
    assert!(ended[..4].iter().all(|&count| count > 0), "done, cancelled, late and dropped: {ended:?}");
    // The engine is as good as new.
    let reply = engine.process_blocking(Request::new("Hello").max_tokens(4)).unwrap();
    assert!(reply.metadata.response_generation.usage.completion_tokens > 0);
    engine.drain(std::time::Duration::from_secs(30)).unwrap();
}

/// 0 done, 1 cancelled, 2 late, 3 dropped, 4 refused.
fn one_caller(engine: &antiphon::Engine, state: &mut u64) -> usize {
    let mut random = |limit: u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % limit
    };
    let mut request = Request::new("Tell me about everything").max_tokens(1 + random(60) as usize);
    request = request.temperature(1.5).seed(random(1 << 20));
    if random(3) == 0 {
        request = request.deadline(std::time::Duration::from_millis(1 + random(4)));
    }
    let mut stream = match engine.stream(request) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::DeadlineExceeded => return 2, // on a busy machine, before it is there
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Overloaded);
            return 4;
        }
    };
    let canceller = stream.canceller();
    let (cancel_at, drop_at) = (random(60), random(60));
    for step in 0.. {
        if step == drop_at {
            return 3;
        }
        if step == cancel_at {
            canceller.cancel();
        }
        match stream.next_blocking(std::time::Duration::from_secs(60)) {
            Poll::Ready(Some(Ok(Event::Done(_)))) => {
                assert!(matches!(stream.next_blocking(std::time::Duration::ZERO), Poll::Ready(None)));
                return 0;
            }
            Poll::Ready(Some(Ok(_))) => assert!(step < cancel_at),
            Poll::Ready(Some(Err(error))) => {
                assert!(matches!(stream.next_blocking(std::time::Duration::ZERO), Poll::Ready(None)));
                return if error.is_cancelled() { 1 } else { 2 };
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!("a stream ends")
}
