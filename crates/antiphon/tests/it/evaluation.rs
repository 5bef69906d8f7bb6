//! What the models are measured by.

use std::path::Path;

use antiphon::evaluation::{
    Dataset, EntitiesReport, EvaluationOptions, IntentReport, Progress, Report, ResponsesReport,
    SentimentReport, Task, evaluate,
};
use antiphon::{EngineConfig, ErrorKind, Result};
use serde_json::{Value, json};

use crate::{engine, open};

fn lines(records: &[Value]) -> Dataset {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    Dataset::from_jsonl(&lines.join("\n")).unwrap()
}

fn measure(task: Task, records: &[Value], options: &EvaluationOptions) -> Result<Report> {
    evaluate(engine(), task, &lines(records), options, |_| ())
}

fn intents(records: &[Value], options: &EvaluationOptions) -> IntentReport {
    match measure(Task::Intent, records, options).unwrap() {
        Report::Intent(report) => report,
        other => panic!("{other:?}"),
    }
}

fn sentiments(records: &[Value], options: &EvaluationOptions) -> SentimentReport {
    match measure(Task::Sentiment, records, options).unwrap() {
        Report::Sentiment(report) => report,
        other => panic!("{other:?}"),
    }
}

fn entities(records: &[Value], options: &EvaluationOptions) -> EntitiesReport {
    match measure(Task::Entities, records, options).unwrap() {
        Report::Entities(report) => report,
        other => panic!("{other:?}"),
    }
}

fn text(text: &str, label: &str) -> Value {
    json!({"text": text, "label": label, "more": [1, null]})
}

fn plain() -> EvaluationOptions {
    EvaluationOptions::default()
}

const FOREIGN: &str = "who won the world cup in 1998";

#[test]
fn right_wrong_and_foreign_intents_are_counted() {
    assert!(engine().analyze_blocking(FOREIGN).unwrap().intent.out_of_scope);
    let records = [
        text("Hello, I need help with my account", "help_request"),
        text("where is my order", "order_status"), // an alias of the head
        text("where is my order", "cancel_order"),
        text(FOREIGN, "oos"),
        text(FOREIGN, "out_of_scope"),
        text(FOREIGN, "track_order"),
        text("where is my order", "no_such_intent"),
        text("where is my order", "oos"),
    ];
    let report = intents(&records, &plain());
    assert_eq!(report.examples, 8);
    assert_eq!(report.accuracy, 0.5);
    assert_eq!(report.in_scope_accuracy, Some(0.4));
    assert_eq!(report.out_of_scope.recall, Some(0.6667));
    assert_eq!(report.out_of_scope.precision, Some(0.6667));
    assert_eq!(report.unknown_labels, ["no_such_intent"]);
    // F1: help_request 1, track_order 1 of 2 + 4, cancel_order 0, no_such_intent 0, out_of_scope 2 of 3 + 3.
    let f1 = (1.0 + 2.0 / 6.0 + 0.0 + 0.0 + 4.0 / 6.0) / 5.0;
    assert!((report.macro_f1 - f1).abs() < 1e-4, "{report:?}");
    assert!(report.speed.p50_ms > 0.0 && report.speed.p99_ms >= report.speed.p50_ms);
    assert!(report.speed.texts_per_second > 0.0);
}

#[test]
fn the_map_renames_and_drops_labels_and_aliases_apply_behind_it() {
    let records = [
        text("where is my order", "wo"),
        text("where is my order", "dropped"),
        text("where is my order", "cancel_order"),
    ];
    let options = plain().map("wo", "order_status").map("dropped", "").map("cancel_order", "track_order");
    let report = intents(&records, &options);
    assert_eq!((report.examples, report.accuracy, report.macro_f1), (2, 1.0, 1.0));
    let error = measure(Task::Intent, &records[1..2], &options).unwrap_err();
    assert_eq!(error.to_string(), "no record has a label for `intent`, expected one");
}

#[test]
fn restricted_to_the_labels_of_the_file_an_intent_is_one_of_them() {
    let records = [text(FOREIGN, "track_order"), text("where is my order", "track_order")];
    assert_eq!(intents(&records, &plain()).accuracy, 0.5);
    let only = intents(&records, &plain().restrict_labels(true));
    // One label: it is always chosen, and for certain.
    assert_eq!((only.accuracy, only.ece, only.out_of_scope.precision), (1.0, Some(0.0), None));
    let foreign = [text(FOREIGN, "oos"), text(FOREIGN, "track_order"), text(FOREIGN, "weather")];
    let with_foreign = intents(&foreign, &plain().restrict_labels(true));
    assert!(with_foreign.out_of_scope.recall.is_some());
}

#[test]
fn sentiments_are_measured_restricted_and_mapped() {
    let records = [
        text("I love this, thank you so much!", "positive"),
        text("This is terrible, I am so angry", "negative"),
        text("where is my order", "positive"),
        text("where is my order", "mixed"),
    ];
    let report = sentiments(&records, &plain().map("mixed", ""));
    assert_eq!((report.examples, report.accuracy), (3, 0.6667));
    assert_eq!(report.macro_recall, 0.75);
    assert_eq!(report.macro_f1, 0.8333);
    assert!(report.unknown_labels.is_empty());
    assert_eq!(sentiments(&records, &plain()).unknown_labels, ["mixed"]);
    let two = sentiments(&records[..3], &plain().restrict_labels(true));
    let analysis = engine().analyze_blocking("where is my order").unwrap();
    let right = analysis.sentiment.scores["positive"] > analysis.sentiment.scores["negative"];
    assert_eq!(two.accuracy, if right { 1.0 } else { 0.6667 });
}

#[test]
fn one_file_can_serve_two_tasks() {
    let record = json!({"text": "where is my order", "label": "track_order", "sentiment": "neutral"});
    let options = plain().tasks([Task::Intent, Task::Sentiment]);
    assert_eq!(intents(std::slice::from_ref(&record), &options).accuracy, 1.0);
    assert_eq!(sentiments(&[record], &options).accuracy, 1.0);
}

#[test]
fn entities_of_both_formats_are_matched_by_code_points() {
    let given = "Grüße! Wo ist “order 4711”? Schreib an zoë.b@example.com 😀";
    let analysis = engine().analyze_blocking(given).unwrap();
    let found: Vec<Value> =
        analysis.entities.iter().map(|entity| serde_json::to_value(entity).unwrap()).collect();
    assert!(found.iter().any(|entity| entity["type"] == "order_id"), "{found:?}");
    let record = json!({"text": given, "entities": found});
    let report = entities(std::slice::from_ref(&record), &plain());
    assert_eq!((report.all.precision, report.all.recall, report.all.f1), (1.0, 1.0, 1.0));
    assert_eq!(report.all.support, found.len());

    // A character beside it is wrong.
    let mut shifted = record;
    for entity in shifted["entities"].as_array_mut().unwrap() {
        entity["start"] = json!(entity["start"].as_u64().unwrap() + 1);
    }
    assert_eq!(entities(&[shifted], &plain()).all.f1, 0.0);

    let tokens = json!({"tokens": ["Wo", "ist", "order", "4711", "–", "Grüße", "!"],
        "tags": ["O", "O", "O", "B-ORDER", "O", "O", "O"]});
    let report = entities(&[tokens], &plain().map("ORDER", "order_id"));
    assert_eq!(report.per_type["order_id"].f1, 1.0, "{report:?}");
}

#[test]
fn found_entities_of_types_the_file_does_not_have_are_dropped_when_restricted() {
    let record = json!({"text": "order 4711 for me@example.com", "entities": [
        {"type": "mail", "start": 15, "end": 29}, {"type": "junk", "start": 0, "end": 5}]});
    let options = plain().map("mail", "email").map("junk", "");
    let all = entities(std::slice::from_ref(&record), &options);
    assert_eq!((all.all.precision, all.all.recall), (0.5, 1.0));
    assert_eq!(all.per_type["order_id"].support, 0);
    let restricted = entities(&[record], &options.restrict_labels(true));
    assert_eq!((restricted.all.precision, restricted.all.recall), (1.0, 1.0));
    assert_eq!(restricted.per_type.len(), 1);
}

#[test]
fn usual_names_of_types_are_those_of_the_head() {
    let found = engine().analyze_blocking("My name is John Smith").unwrap().entities;
    assert_eq!((found[0].kind.as_str(), found[0].value.as_str()), ("person", "John Smith"));
    let record =
        json!({"tokens": ["My", "name", "is", "John", "Smith"], "tags": ["O", "O", "O", "B-PER", "I-PER"]});
    assert_eq!(entities(std::slice::from_ref(&record), &plain()).per_type["person"].f1, 1.0);
    let mapped = entities(&[record], &plain().map("PER", "artist"));
    assert_eq!(mapped.per_type["artist"].recall, 0.0, "the map comes first");
}

#[test]
fn answers_are_held_against_others_and_looked_at() {
    let dialogue = |question: &str, answer: &str| {
        json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "category": "C"})
    };
    // What the model answers itself is what it finds likeliest, whatever the others are.
    let own = |question: &str| {
        let request = antiphon::Request::new(question).max_tokens(128);
        engine().process_blocking(request).unwrap().response
    };
    let (hello, order) = ("Hello, I need help with my account", "Please cancel order 90210");
    let records = [
        dialogue(hello, &own(hello)),
        dialogue(order, &own(order)),
        dialogue(hello, "Zebras purple the quickly nor {{x}} of under hat."),
    ];
    let report = |records: &[Value]| -> ResponsesReport {
        match measure(Task::Responses, records, &plain()).unwrap() {
            Report::Responses(report) => report,
            other => panic!("{other:?}"),
        }
    };
    let all = report(&records);
    assert_eq!(all.examples, 3);
    assert_eq!(all.true_of_ten.with_analysis, 0.6667);
    assert_eq!((all.ended_by_themselves, all.with_placeholder), (1.0, 0));
    assert!(all.mean_tokens > 3.0 && all.repeated_4grams < 0.5);
    let likely = report(&records[..2]);
    assert!(likely.perplexity.with_analysis < all.perplexity.with_analysis);
    assert!(likely.perplexity.with_analysis < likely.perplexity.message_alone);
    assert_eq!(report(&records), all, "the same file gives the same figures");
    let error = measure(Task::Responses, &records[..1], &plain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn records_of_no_use_are_named_by_their_line() {
    let good = text("hello", "greeting");
    for (task, bad, why) in [
        (Task::Intent, json!({"text": "canary"}), "line 2: expected `label`"),
        (Task::Sentiment, json!({"label": "canary"}), "line 2: expected `text`"),
        (Task::Intent, text(" ", "canary"), "line 2: text is only white space"),
        (Task::Intent, text(&"canary ".repeat(1000), "x"), "line 2: text: 7000 characters"),
        (Task::Entities, json!({"tokens": ["canary"], "tags": ["B-X", "O"]}), "line 2: 2 `tags`"),
        (Task::Responses, json!({"messages": "canary"}), "line 1: expected `messages`"),
    ] {
        let error = measure(task, &[good.clone(), bad], &plain()).unwrap_err().to_string();
        assert!(error.starts_with(why) && !error.contains("canary"), "{error}");
    }
    let error = measure(Task::Entities, &[good], &plain()).unwrap_err();
    assert_eq!(error.to_string(), "no record has an entity, expected one");
}

#[test]
fn without_the_model_of_the_task_nothing_is_measured() {
    let record = lines(&[text("hello", "greeting")]);
    let bare = open(EngineConfig::default().analyst(None).responder(None));
    for task in [Task::Intent, Task::Sentiment, Task::Entities, Task::Responses] {
        let error = evaluate(&bare, task, &record, &plain(), |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{task:?}");
    }
}

#[test]
fn progress_reaches_its_end_step_by_step() {
    let record = lines(&[text("hello", "greeting"), text("bye", "goodbye")]);
    let mut seen: Vec<Progress> = Vec::new();
    evaluate(engine(), Task::Intent, &record, &plain(), |progress| seen.push(progress)).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done));
    assert_eq!(seen.last().unwrap().done, seen.last().unwrap().total);
}

#[test]
fn reports_have_the_shape_that_hosts_read() {
    let report = measure(Task::Intent, &[text("where is my order", "track_order")], &plain()).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "task",
        "examples",
        "accuracy",
        "macro_f1",
        "ece",
        "p50_ms",
        "p99_ms",
        "texts_per_second",
        "in_scope_accuracy",
        "out_of_scope",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(json["task"], "intent");
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn a_copied_analyst_measures_as_the_bundled_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/analyst");
    let copy = open(EngineConfig::default().analyst(antiphon::ModelSource::Path(folder)).responder(None));
    let record = [text("where is my order", "track_order"), text(FOREIGN, "weather")];
    let Report::Intent(theirs) = evaluate(&copy, Task::Intent, &lines(&record), &plain(), |_| ()).unwrap()
    else {
        panic!("the task was intent");
    };
    let ours = intents(&record, &plain());
    assert_eq!((theirs.accuracy, theirs.ece, theirs.macro_f1), (ours.accuracy, ours.ece, ours.macro_f1));
}
