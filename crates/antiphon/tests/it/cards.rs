//! The cards of the bundled models: what they say of the fixed samples in models/evaluation is measured again.

use std::path::{Path, PathBuf};

use antiphon::evaluation::{Dataset, EvaluationOptions, Task, evaluate};
use antiphon::{Engine, EngineConfig};
use serde_json::{Map, Value};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// The figures of a card's sample, without the command that made them.
fn card(model: &str, sample: &str) -> Map<String, Value> {
    let manifest = std::fs::read_to_string(models().join(model).join("antiphon.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let mut figures = manifest["card"]["sample"][sample].as_object().unwrap().clone();
    figures.remove("command").unwrap();
    figures
}

fn measured(task: Task, file: &str, every: usize, options: &EvaluationOptions) -> Map<String, Value> {
    let text = std::fs::read_to_string(models().join("evaluation").join(file)).unwrap();
    let data = Dataset::from_jsonl(&text).unwrap().part(every, 0, usize::MAX).unwrap();
    let engine = Engine::open(EngineConfig::default()).unwrap();
    let report = evaluate(&engine, task, &data, options, |_| ()).unwrap();
    let mut figures = serde_json::to_value(report).unwrap().as_object().unwrap().clone();
    // What depends on the machine is no part of a card.
    figures.retain(|key, _| !key.ends_with("_ms") && !key.ends_with("_per_second"));
    figures
}

#[test]
fn the_analysts_card_says_what_is_measured() {
    let plain = EvaluationOptions::default();
    let names = EvaluationOptions::default().restrict_labels(true).map("MISC", "");
    assert_eq!(measured(Task::Intent, "intent.jsonl", 1, &plain), card("analyst", "intent"));
    assert_eq!(measured(Task::Sentiment, "sentiment.jsonl", 1, &plain), card("analyst", "sentiment"));
    assert_eq!(measured(Task::Entities, "entities.jsonl", 1, &names), card("analyst", "entities"));
    assert_eq!(measured(Task::Summaries, "summaries.jsonl", 1, &plain), card("analyst", "summaries"));
}

#[test]
fn the_responders_card_says_what_is_measured() {
    let plain = EvaluationOptions::default();
    assert_eq!(measured(Task::Responses, "responses.jsonl", 8, &plain), card("responder", "responses"));
}
