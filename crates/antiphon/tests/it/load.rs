//! More callers than places.

use antiphon::{EngineConfig, ErrorKind, Event, Priority, Request};

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
