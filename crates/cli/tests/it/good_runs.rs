//! What the commands are for.

use serde_json::Value;
use tempfile::tempdir;

use crate::run::{antiphon, antiphon_reading, model, write};

const HELLO: &str = "Hello, I need help with my account";

#[test]
fn the_first_message_of_the_readme_is_understood_and_answered() {
    let reply = antiphon(&["process", HELLO, "--json"]).json();
    assert_eq!(reply["intent"], "help_request", "{reply}");
    assert!(reply["confidence"].as_f64() > Some(0.5), "{reply}");
    let entity = &reply["entities"][0];
    assert_eq!((&entity["type"], &entity["value"]), (&"account".into(), &"account".into()), "{reply}");
    assert_eq!((entity["start"].as_u64(), entity["end"].as_u64()), (Some(27), Some(34)));
    assert!(!reply["response"].as_str().unwrap().trim().is_empty());
    let generation = &reply["metadata"]["response_generation"];
    assert_eq!(generation["degraded"], Value::Null);
    assert!(generation["usage"]["completion_tokens"].as_u64() > Some(0));
    assert!(reply["metadata"]["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn without_a_responder_a_template_answers_and_says_so() {
    let reply = antiphon(&["process", HELLO, "--json", "--responder", "none"]).json();
    assert_eq!(reply["metadata"]["response_generation"]["degraded"], "template", "{reply}");
    assert!(reply["response"].as_str().unwrap().contains("account"), "{reply}");
}

#[test]
fn people_read_a_short_block_and_the_answer() {
    let text = antiphon(&["process", HELLO]).done();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("intent     help_request ("), "{text}");
    assert!(lines[1].starts_with("sentiment  "), "{text}");
    assert!(lines[2].starts_with("entities   account \"account\" ("), "{text}");
    let streamed = antiphon(&["process", HELLO, "--stream"]).done();
    assert_eq!(streamed, text);
}

#[test]
fn a_stream_is_one_analysis_then_chunks_then_done() {
    let events = antiphon(&["process", HELLO, "--stream", "--json"]).json_lines();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let (first, rest) = kinds.split_first().unwrap();
    let (last, chunks) = rest.split_last().unwrap();
    assert_eq!((*first, *last), ("analysis", "done"));
    assert!(!chunks.is_empty() && chunks.iter().all(|kind| *kind == "chunk"), "{kinds:?}");
    let pieces = &events[1..events.len() - 1];
    let indices: Vec<u64> = pieces.iter().map(|event| event["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, (0..pieces.len() as u64).collect::<Vec<_>>());
    let text: String = pieces.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(events[events.len() - 1]["reply"]["response"], text);
    assert_eq!(
        events[0]["analysis"]["intent"],
        events[events.len() - 1]["reply"]["metadata"]["intent_analysis"]
    );
}

#[test]
fn standard_input_is_the_message_without_its_line_break() {
    let from_input = antiphon_reading(format!("{HELLO}\n").as_bytes(), &["analyze", "-"]).json();
    assert_eq!(from_input, antiphon(&["analyze", HELLO]).json());
}

#[test]
fn every_request_option_is_taken() {
    let dir = tempdir().unwrap();
    let history = write(
        dir.path(),
        "history.json",
        r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]"#,
    );
    let run = || {
        antiphon(&[
            "process",
            HELLO,
            "--json",
            "--max-tokens",
            "4",
            "--temperature",
            "0.8",
            "--top-k",
            "20",
            "--top-p",
            "0.9",
            "--min-p",
            "0.01",
            "--repetition-penalty",
            "1.1",
            "--presence-penalty",
            "-0.1",
            "--frequency-penalty",
            "0.1",
            "--logit-bias",
            "5=-1.5",
            "--logit-bias",
            "6=2",
            "--seed",
            "7",
            "--stop",
            "zebra",
            "--stop",
            "-x",
            "--logprobs",
            "2",
            "--deadline-ms",
            "20000",
            "--priority",
            "high",
            "--cache",
            "bypass",
            "--overflow",
            "error",
            "--tenant",
            "acme",
            "--user",
            "u",
            "--conversation",
            "c",
            "--context",
            r#"{"previous_intent": "greeting"}"#,
            "--history",
            &history,
            "--threads",
            "1",
        ])
        .json()
    };
    let reply = run();
    let generation = &reply["metadata"]["response_generation"];
    assert_eq!(generation["repro"]["seed"], 7, "{reply}");
    assert!(generation["usage"]["completion_tokens"].as_u64() <= Some(4), "{reply}");
    assert_eq!(run()["response"], reply["response"], "the same seed gives the same answer");
}

#[test]
fn a_configuration_may_be_json_or_toml() {
    let dir = tempdir().unwrap();
    let json = write(dir.path(), "a.json", r#"{"threads": 1, "max_message_chars": 5}"#);
    let toml = write(dir.path(), "a.toml", "threads = 1\nmax_message_chars = 5\n");
    for config in [json, toml] {
        antiphon(&["analyze", "too long", "--config", &config])
            .refused(1, "8 characters, expected at most 5");
        antiphon(&["--config", &config, "analyze", "short"]).json();
    }
}

#[test]
fn models_are_found_below_the_models_folder() {
    let folder = model("");
    let options = ["--models", folder.to_str().unwrap(), "--analyst", "analyst", "--responder", "responder"];
    let bundled = antiphon(&["process", HELLO, "--json"]).json();
    let loaded = antiphon(&[&["process", HELLO, "--json"][..], &options].concat()).json();
    assert_eq!(loaded["response"], bundled["response"]);
    assert_eq!(
        loaded["metadata"]["response_generation"]["repro"],
        bundled["metadata"]["response_generation"]["repro"],
        "the same bytes have the same fingerprints"
    );
}

#[test]
fn analyses_come_as_json_lines_in_the_order_of_the_input() {
    let dir = tempdir().unwrap();
    let texts = [HELLO, "Where is order 4711?", "Thank you, that was great!"];
    let mut content: String =
        texts.iter().map(|text| format!("{{\"text\": {text:?}, \"label\": \"ignored\"}}\n")).collect();
    content.push_str("\n\"a bare string\"\n");
    let path = write(dir.path(), "texts.jsonl", content.repeat(20));
    let lines = antiphon(&["analyze", "--input", &path]).json_lines();
    assert_eq!(lines.len(), 80);
    assert_eq!(lines[0]["intent"]["label"], "help_request");
    let order = &lines[1]["entities"][0];
    assert_eq!((&order["type"], &order["value"]), (&"order_id".into(), &"4711".into()));
    for line in &lines {
        let ranking = line["intent"]["ranking"].as_array().unwrap();
        assert!((1..=5).contains(&ranking.len()));
    }
    // A batch says what each text says alone.
    assert_eq!(lines[2], antiphon(&["analyze", texts[2]]).json());
    assert_eq!(lines[0], lines[76]);
}

#[test]
fn generation_answers_a_prompt_a_dialogue_and_a_raw_text() {
    let dir = tempdir().unwrap();
    let turns = write(
        dir.path(),
        "turns.json",
        r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I cancel my order?"}]"#,
    );
    let reply = antiphon(&["generate", "--messages", &turns, "--json", "--max-tokens", "12"]).json();
    assert!(reply["metadata"]["response_generation"]["usage"]["prompt_tokens"].as_u64() > Some(5));
    assert_eq!(reply["intent"], "");
    let answer =
        antiphon(&["generate", "--prompt", "How do I cancel my order?", "--max-tokens", "12"]).done();
    assert!(!answer.trim().is_empty());
    let responder = model("responder");
    let named = [
        "generate",
        "--prompt",
        "How do I cancel my order?",
        "--max-tokens",
        "12",
        "--model",
        responder.to_str().unwrap(),
    ];
    assert_eq!(antiphon(&named).done(), answer);
    antiphon(&["generate", "--raw", "--prompt", "Once upon a time", "--max-tokens", "4"]).done();
}

#[test]
fn a_chat_answers_each_line_and_ends_with_its_input() {
    let dialogue = format!("{HELLO}\n\n/reset\nWhere is order 4711?\n/quit\nnever read\n");
    let run = antiphon_reading(dialogue.as_bytes(), &["chat", "--max-tokens", "24"]);
    assert_eq!(run.stderr, "");
    assert!(run.done().lines().count() >= 2);
    // A turn that fails does not end the conversation.
    let run = antiphon_reading(b"\xff\nhello\n", &["chat", "--max-tokens", "8"]);
    assert!(run.stderr.contains("UTF-8"), "{}", run.stderr);
    assert!(!run.done().trim().is_empty());
}

#[test]
fn models_are_listed_and_verified() {
    let listed = antiphon(&["models", "list", "--json"]).json();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|model| model["model_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["analyst", "responder"]);
    for model in listed.as_array().unwrap() {
        assert_eq!(model["status"], "available");
        assert!(model["fingerprint"].as_str().unwrap().starts_with("blake3:"));
        assert!(model["bytes"].as_u64() > Some(0));
    }
    assert_eq!(antiphon(&["models"]).done().lines().count(), 2);
    let verified = antiphon(&["models", "verify"]).done();
    assert!(verified.contains("analyst") && verified.contains("responder"), "{verified}");
}

#[test]
fn the_doctor_reports_in_the_shape_that_hosts_know() {
    let diagnosis = antiphon(&["doctor", "--json"]).json();
    let checks = diagnosis["checks"].as_array().unwrap();
    assert!(!checks.is_empty());
    for check in checks {
        assert_eq!(check["result"], "success", "{check}");
        assert!(
            check["name"].is_string() && check["message"].is_string() && check["duration_ms"].is_number()
        );
    }
    assert_eq!(diagnosis["configuration"]["valid"], true);
    assert!(diagnosis["server_status"]["status"].is_string());
    assert!(diagnosis["recommendations"].is_array() && diagnosis["timestamp"].is_string());
    assert!(antiphon(&["doctor"]).done().lines().all(|line| !line.starts_with("FAILED")));
}

#[test]
fn the_bench_prints_the_figures_that_hosts_compare() {
    let figures = antiphon(&[
        "bench",
        "--json",
        "--prompt-tokens",
        "8",
        "--decode-tokens",
        "4",
        "--batch",
        "2",
        "--threads",
        "1",
    ])
    .json();
    for key in [
        "open_ms",
        "first_token_ms",
        "second_turn_first_token_ms",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "batch_decode_tokens_per_second",
    ] {
        assert!(figures[key].as_f64() > Some(0.0), "{key}: {figures}");
    }
    for section in ["analysis", "process"] {
        let (p50, p99) = (figures[section]["p50_ms"].as_f64(), figures[section]["p99_ms"].as_f64());
        assert!(p50 > Some(0.0) && p99 >= p50, "{section}: {figures}");
    }
    assert!(figures["cache_hit"]["p50_us"].as_f64() > Some(0.0));
    assert_eq!((figures["batch"].as_u64(), figures["threads"].as_u64()), (Some(2), Some(1)));
    assert!(
        figures["cpu"].is_string()
            && figures["kernels"].is_string()
            && figures["versions"]["antiphon"].is_string()
    );
    if cfg!(target_os = "linux") {
        assert!(figures["peak_rss_bytes"].as_u64() > Some(1 << 20));
    }
}
