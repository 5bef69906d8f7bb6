//! What observers, metrics and errors are told, and what they are not: a user's text.

use std::sync::{Arc, Mutex};

use antiphon::plugin::{Level, Observer, Plugins};
use antiphon::{Engine, EngineConfig, Generate, Message, Request};
use serde_json::Value;

/// Writes down everything.
#[derive(Default)]
struct Scribe(Mutex<Vec<String>>);

impl Observer for Scribe {
    fn log(&self, level: Level, target: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{level:?} {target} {message}"));
    }

    fn event(&self, name: &str, fields: &Value) {
        self.0.lock().unwrap().push(format!("{name} {fields}"));
    }
}

/// Panics at whatever it is told.
struct Nervous;

impl Observer for Nervous {
    fn event(&self, _: &str, _: &Value) {
        panic!("the observer's own bug");
    }
}

const CANARY: &str = "zebrafink4711";

#[test]
fn an_observer_is_told_of_each_request_and_one_that_panics_costs_nothing() {
    let scribe = Arc::<Scribe>::default();
    let plugins = Plugins::new().add_observer(Arc::new(Nervous)).add_observer(Arc::clone(&scribe) as _);
    let engine = Engine::open_with(EngineConfig::default(), plugins).unwrap();
    engine.process_blocking(Request::new("Hello").max_tokens(4)).unwrap();
    engine.analyze_blocking("Hello").unwrap();
    engine.analyze_blocking(" ").unwrap_err();
    let told = scribe.0.lock().unwrap().clone();
    let ended = |endpoint: &str, status: &str| {
        let fits =
            |line: &&String| line.contains(endpoint) && line.contains(&format!(r#""status":"{status}""#));
        told.iter().filter(fits).count()
    };
    assert_eq!(
        (ended("process", "success"), ended("analyze", "success"), ended("analyze", "invalid_text")),
        (1, 1, 1),
        "{told:?}"
    );
}

#[test]
fn no_text_of_a_user_is_in_metrics_events_health_or_errors() {
    let scribe = Arc::<Scribe>::default();
    let plugins = Plugins::new().add_observer(Arc::clone(&scribe) as _);
    let config = EngineConfig::from_json(r#"{"max_message_chars": 200}"#).unwrap();
    let engine = Engine::open_with(config, plugins).unwrap();
    let mut shown = Vec::new();
    let request = || Request::new(format!("Where is order {CANARY}?")).max_tokens(4);
    engine.process_blocking(request()).unwrap();
    engine.generate_blocking(Generate::messages([Message::user(CANARY)]).max_tokens(4)).unwrap();
    let bad = [
        Request::new(CANARY.repeat(50)),
        request().model(CANARY),
        request().stop(CANARY.repeat(100)),
        request().context(CANARY, "x".repeat(5000)),
        request().tenant(CANARY.repeat(100)),
    ];
    for request in bad {
        let error = engine.process_blocking(request).unwrap_err();
        shown.push(format!("{error} {error:?} {}", serde_json::to_string(&error).unwrap()));
    }
    shown.push(Request::from_json(&format!(r#"{{"message": {{"{CANARY}": 1}}}}"#)).unwrap_err().to_string());
    shown.push(engine.metrics_text());
    shown.push(serde_json::to_string(&engine.health()).unwrap());
    shown.push(serde_json::to_string(&engine.diagnose()).unwrap());
    shown.extend(scribe.0.lock().unwrap().iter().cloned());
    for text in shown {
        assert!(!text.contains(CANARY), "{text}");
    }
}
