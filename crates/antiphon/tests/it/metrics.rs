//! What the engine counts.

use antiphon::{EngineConfig, ErrorKind, Request};

use crate::open;

/// The value of a sample.
pub(crate) fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

#[test]
fn every_request_is_counted_once_by_how_it_ended() {
    let engine = open(EngineConfig::default());
    engine.analyze_blocking("Where is order 4711?").unwrap();
    assert_eq!(engine.analyze_blocking(" ").unwrap_err().kind(), ErrorKind::InvalidText);
    let request = || Request::new("Hello, I need help with my account").max_tokens(8);
    engine.process_blocking(request()).unwrap();
    engine.process_blocking(request()).unwrap();
    drop(engine.stream(request().temperature(1.0).seed(1)).unwrap());
    drop(engine.process(request().max_tokens(9)));
    let text = engine.metrics_text();
    let requests = |endpoint: &str, status: &str| {
        value(&text, &format!("ai_requests_total{{endpoint=\"{endpoint}\",status=\"{status}\"}}"))
    };
    assert_eq!(requests("analyze", "success"), Some(1.0));
    assert_eq!(requests("analyze", "invalid_text"), Some(1.0));
    assert_eq!(requests("process", "success"), Some(2.0));
    assert_eq!(requests("process", "cancelled"), Some(2.0));
    assert_eq!(value(&text, "antiphon_cache_hits_total"), Some(1.0));
    assert_eq!(value(&text, "ai_request_duration_seconds_count{endpoint=\"process\"}"), Some(4.0));
    assert!(value(&text, "antiphon_tokens_total{kind=\"completion\"}").unwrap() >= 8.0);
    assert!(value(&text, "antiphon_memory_bytes{part=\"weights\"}").unwrap() > 1e6);
    assert!(value(&text, "ai_model_accuracy{model_name=\"analyst\"}").unwrap() > 0.5);
}

#[test]
fn the_names_that_hosts_alert_on_are_there() {
    let engine = open(EngineConfig::from_json(r#"{"quota": {"requests": 1, "window_ms": 60000}}"#).unwrap());
    engine.process_blocking(Request::new("Hello").max_tokens(2)).unwrap();
    assert_eq!(engine.process_blocking(Request::new("Hello")).unwrap_err().kind(), ErrorKind::QuotaExceeded);
    let text = engine.metrics_text();
    for name in [
        "ai_requests_total",
        "ai_request_duration_seconds",
        "ai_model_accuracy",
        "antiphon_cache_hits_total",
        "antiphon_cache_misses_total",
        "antiphon_cache_joined_total",
        "antiphon_cache_evictions_total",
        "antiphon_cache_expired_total",
        "antiphon_cache_bytes",
        "antiphon_cache_entries",
        "antiphon_queue_depth",
        "antiphon_queue_wait_seconds",
        "antiphon_running_requests",
        "antiphon_rejected_total{reason=\"quota_exceeded\"}",
        "antiphon_batch_size",
        "antiphon_tokens_total",
        "antiphon_first_token_seconds",
        "antiphon_memory_bytes",
    ] {
        assert!(text.contains(&format!("\n{name}")), "{name} is missing in\n{text}");
    }
}

#[test]
fn no_text_of_a_user_is_in_the_metrics() {
    let engine = open(EngineConfig::default());
    let secret = "kumquat-xylophone";
    let request = Request::new(format!("My name is {secret}")).tenant(secret).user(secret).max_tokens(4);
    engine.process_blocking(request.clone().stop(secret)).unwrap();
    engine.process_blocking(request.model(secret)).unwrap_err();
    assert!(!engine.metrics_text().contains("kumquat"));
}
