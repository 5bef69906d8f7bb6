//! The conformance files through the header, by a program in C that is told what to call, line by line.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use self::format::{File, Interface, Outcome, Step};
use crate::host::{Linking, Program, libraries, root};

#[path = "../../../antiphon/tests/conformance/format.rs"]
mod format;

/// A request is built key by key, and an event has no log-probabilities.
const LACKING: [&str; 2] = ["json_requests", "logprobs"];

/// Keys of a request whose values are text as it stands.
const VERBATIM: [&str; 7] =
    ["tenant_id", "user_id", "conversation_id", "priority", "cache", "overflow", "model"];

#[test]
fn every_call_of_the_conformance_files_ends_as_it_does_in_rust() {
    let program = Program::compile("conformance", Linking::Shared, &[]);
    let mut differences = Vec::new();
    for file in File::all() {
        let outcomes = file.play(&LACKING, || C::start(&program));
        differences.extend(outcomes.iter().filter_map(|(place, outcome)| file.difference(*place, outcome)));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A running program, for one case.
struct C {
    process: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl C {
    fn start(program: &Program) -> Self {
        let mut command = Command::new(&program.path);
        command.env("LD_LIBRARY_PATH", libraries()).current_dir(root().join("crates/antiphon"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (asks, answers) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, asks, answers: BufReader::new(answers) }
    }
}

impl Interface for C {
    fn call(&mut self, step: &Step) -> Outcome {
        let asks = self.asks.as_mut().expect("the program runs");
        asks.write_all(lines(step).as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let (how, json) = answer.split_once(' ').unwrap_or_else(|| panic!("{}: {answer:?}", step.call()));
        let json = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {answer}"));
        match how {
            "gives" => Ok(json),
            "fails" => Err(json),
            other => panic!("{}: {other}", step.call()),
        }
    }
}

impl Drop for C {
    fn drop(&mut self) {
        self.asks = None;
        let status = self.process.wait();
        if !std::thread::panicking() {
            assert!(status.unwrap().success(), "the program in C failed");
        }
    }
}

/// What the program is told: the request in parts, then the call.
fn lines(step: &Step) -> String {
    let mut lines = String::new();
    if let Some(request) = step.get("request") {
        build(request, step.text("message_hex"), &mut lines);
    }
    lines.push_str(step.call());
    let arguments: Vec<String> = match step.call() {
        "open" => {
            let plugins = step.texts("plugins").into_iter().map(str::to_owned);
            [optional(step.json("config"))].into_iter().chain(plugins).collect()
        }
        "analyze" | "embed" => {
            let bytes = step.text("text_hex").map(|digits| format!("x{digits}"));
            vec![bytes.unwrap_or_else(|| hex(step.text("text").unwrap()))]
        }
        "analyze_batch" => step.texts("texts").into_iter().map(hex).collect(),
        "summarize" => vec![hex(step.text("text").unwrap()), optional(step.json("options"))],
        "conversation" => vec![optional(step.json("options"))],
        "cache_clear" => vec![optional(step.text("tenant").map(str::to_owned))],
        "cache_resize" => vec![step.number("max_bytes").unwrap().to_string()],
        "drain" => vec![step.number("timeout_ms").unwrap().to_string()],
        _ => ["leave_after", "cancel_after", "stop_after"]
            .into_iter()
            .filter_map(|how| Some(format!("{how} {}", step.number(how)?)))
            .collect(),
    };
    arguments.iter().for_each(|argument| write!(lines, " {argument}").unwrap());
    lines.push('\n');
    lines
}

fn build(request: &Value, message_hex: Option<&str>, lines: &mut String) {
    let message = hex(request["message"].as_str().unwrap_or_default());
    let message = message_hex.map_or(message, |digits| format!("x{digits}"));
    writeln!(lines, "request {message}").unwrap();
    let keys = request.as_object().unwrap().iter().filter(|(key, _)| *key != "options");
    let options = request.get("options").and_then(Value::as_object).into_iter().flatten();
    for (key, value) in keys.chain(options) {
        match (key.as_str(), value) {
            ("message", _) => {}
            ("history" | "messages", Value::Array(turns)) => {
                for turn in turns {
                    let [role, content] = ["role", "content"].map(|key| turn[key].as_str().unwrap());
                    writeln!(lines, "turn {role} {}", hex(content)).unwrap();
                }
            }
            (key, Value::String(text)) if VERBATIM.contains(&key) => {
                writeln!(lines, "set {key} {}", hex(text)).unwrap();
            }
            (key, value) => writeln!(lines, "set {key} {}", hex(&value.to_string())).unwrap(),
        }
    }
}

fn optional(text: Option<String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| hex(&text))
}

fn hex(text: &str) -> String {
    text.bytes().fold("x".to_owned(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    })
}
