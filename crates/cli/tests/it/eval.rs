//! `antiphon eval`: figures of labelled files, and what is no labelled file.

use tempfile::tempdir;

use crate::run::{antiphon, model, write};

const INTENTS: &str = r#"{"text": "Where is my order?", "label": "order_status"}
{"text": "Hello, I need help with my account", "label": "cancel_order"}
{"text": "please cancel my order", "label": "stop"}
{"text": "I want a refund", "label": "junk"}
"#;

#[test]
fn intents_are_printed_in_the_shape_that_hosts_read() {
    let dir = tempdir().unwrap();
    let data = write(dir.path(), "a.jsonl", INTENTS);
    let arguments = ["eval", "--task", "intent", "--data", &data, "--map", "stop=cancel_order,junk="];
    let run = antiphon(&[&arguments[..], &["--json"]].concat());
    assert_eq!(run.stderr, "");
    let shape = r#"{"task":"intent","examples":3,"accuracy":0.6667,"macro_f1":0.8333,"ece":"#;
    assert!(run.stdout.starts_with(shape), "{}", run.stdout);
    let report = run.json();
    assert_eq!(report["in_scope_accuracy"], 0.6667);
    assert!(report["out_of_scope"]["recall"].is_null());
    for key in ["p50_ms", "p99_ms", "texts_per_second"] {
        assert!(report[key].as_f64() > Some(0.0), "{key}: {report}");
    }
    let table = antiphon(&arguments).done();
    assert!(table.lines().any(|line| line.split_whitespace().eq(["accuracy", "0.6667"])), "{table}");
    assert!(table.contains("out of scope") && table.contains("recall -"), "{table}");
}

#[test]
fn several_tasks_give_an_object_each_in_their_order() {
    let dir = tempdir().unwrap();
    let record = r#"{"text": "Where is order 4711?", "label": "track_order", "sentiment": "neutral",
        "entities": [{"type": "order_id", "start": 15, "end": 19, "value": "4711"}]}"#;
    let data = write(dir.path(), "a.jsonl", record.replace('\n', ""));
    let tasks = ["eval", "--task", "entities,sentiment", "--task", "intent", "--data", &data, "--json"];
    let reports = antiphon(&tasks).json_lines();
    let names: Vec<&str> = reports.iter().map(|report| report["task"].as_str().unwrap()).collect();
    assert_eq!(names, ["entities", "sentiment", "intent"]);
    assert_eq!(reports[0]["per_type"]["order_id"]["f1"], 1.0);
    assert_eq!((&reports[0]["f1"], &reports[2]["accuracy"]), (&1.0.into(), &1.0.into()));
    assert!(reports[1]["macro_recall"].is_number());
}

#[test]
fn parts_of_a_file_and_other_models_can_be_measured() {
    let dir = tempdir().unwrap();
    let data = write(dir.path(), "a.jsonl", INTENTS);
    let analyst = model("analyst");
    let eval = |more: &[&str]| {
        let arguments = ["eval", "--task", "intent", "--data", &data, "--json"];
        antiphon(&[&arguments[..], more].concat()).json()
    };
    let first = eval(&["--every", "2", "--restrict-labels"]);
    assert_eq!((first["examples"].as_u64(), first["accuracy"].as_f64()), (Some(2), Some(0.5)));
    let other =
        eval(&["--every", "2", "--offset", "1", "--limit", "1", "--model", analyst.to_str().unwrap()]);
    assert_eq!((other["examples"].as_u64(), other["accuracy"].as_f64()), (Some(1), Some(0.0)));
}

#[test]
fn answers_are_measured() {
    let dir = tempdir().unwrap();
    let dialogue = |answer: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "Where is my order?"}},
            {{"role": "assistant", "content": "{answer}"}}], "category": "ORDER"}}"#
        )
        .replace('\n', "")
    };
    let records =
        format!("{}\n{}\n", dialogue("Please tell me its number."), dialogue("xqz {{Name}} bnm wrt."));
    let data = write(dir.path(), "a.jsonl", records);
    let responder = model("responder");
    let arguments = ["eval", "--task", "responses", "--data", &data, "--json", "--model"];
    let report = antiphon(&[&arguments[..], &[responder.to_str().unwrap()]].concat()).json();
    assert_eq!(report["examples"], 2);
    assert_eq!(report["true_of_ten"]["with_analysis"], 0.5);
    for key in ["ended_by_themselves", "repeated_4grams", "with_placeholder", "mean_tokens"] {
        assert!(report[key].is_number(), "{key}: {report}");
    }
    antiphon(&[
        "eval",
        "--task",
        "responses,intent",
        "--data",
        &data,
        "--model",
        responder.to_str().unwrap(),
    ])
    .refused(1, "--model");
}

#[test]
fn wrong_usage_is_status_two() {
    let dir = tempdir().unwrap();
    let data = write(dir.path(), "a.jsonl", INTENTS);
    antiphon(&["eval", "--task", "intent"]).refused(2, "--data");
    antiphon(&["eval", "--data", &data]).refused(2, "--task");
    for (option, value) in [
        ("task", "intents"),
        ("task", "intent,"),
        ("task", ""),
        ("map", "order_status"),
        ("map", "=x"),
        ("map", "a=b,,c=d"),
        ("every", "0"),
        ("offset", "-1"),
        ("limit", "0"),
    ] {
        let given = format!("--{option}={value}");
        let arguments = if option == "task" {
            vec!["eval", "--data", &data, &given]
        } else {
            vec!["eval", "--task", "intent", "--data", &data, &given]
        };
        antiphon(&arguments).refused(2, option);
    }
}

#[test]
fn files_of_no_use_are_named_and_never_repeated() {
    let dir = tempdir().unwrap();
    let eval = |task: &str, data: &str| antiphon(&["eval", "--json", "--task", task, "--data", data]);
    eval("intent", "/nonexistent/absent.jsonl").refused(1, "absent.jsonl");
    for (name, task, content, why) in [
        ("a.jsonl", "intent", &b""[..], "no lines"),
        (
            "b.jsonl",
            "intent",
            b"{\"text\": \"canary\", \"label\": \"x\"}\n\ncanary\n",
            "line 3: expected a JSON object",
        ),
        ("c.jsonl", "intent", b"[\"canary\"]\n", "line 1: expected a JSON object"),
        ("d.jsonl", "sentiment", b"{\"text\": \"canary\"}\n", "line 1: expected `label`"),
        ("e.jsonl", "intent", b"{\"text\": \"canary\", \"label\": [\"x\"]}\n", "line 1: expected `label`"),
        ("f.jsonl", "entities", b"{\"text\": \"canary\", \"label\": \"x\"}\n", "no record has an entity"),
        ("g.jsonl", "entities", b"{\"tokens\": [\"canary\"], \"tags\": [\"X\"]}\n", "line 1: `tags`"),
        ("h.jsonl", "responses", b"{\"text\": \"canary\"}\n", "line 1: expected `messages`"),
        ("i.jsonl", "intent", b"{\"text\": \"canary \xff\"}\n", "UTF-8"),
        // The second task fails: nothing of the first is printed.
        (
            "j.jsonl",
            "intent,entities",
            b"{\"text\": \"canary\", \"label\": \"x\", \"entities\": 7}\n",
            "line 1: expected `entities`",
        ),
    ] {
        let path = write(dir.path(), name, content);
        let message = eval(task, &path).refused(1, why);
        assert!(message.contains(name) && !message.contains("canary"), "{message}");
    }
    let one = write(dir.path(), "k.jsonl", INTENTS);
    antiphon(&["eval", "--task", "intent", "--data", &one, "--offset", "9"]).refused(1, "leaves none");
    antiphon(&["eval", "--task", "intent", "--data", &one, "--model", "/nonexistent/model"])
        .refused(1, "/nonexistent/model");
    antiphon(&["eval", "--task", "intent", "--data", &one, "--analyst", "none"]).refused(1, "no analyst");
}
