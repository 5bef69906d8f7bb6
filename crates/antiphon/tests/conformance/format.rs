//! The conformance files, as the runners in Rust read them. README.md beside this file describes them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// One interface, with what a case has opened through it. Dropping it closes all of that.
pub(crate) trait Interface {
    /// Makes the call of a step.
    fn call(&mut self, step: &Step) -> Outcome;
}

/// What a call gives, or the error it fails with, both as JSON.
pub(crate) type Outcome = Result<Value, Value>;

/// A case and a step of it, by their numbers.
pub(crate) type Place = (usize, usize);

/// A file of cases.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) json: Value,
}

/// A step of a case: a call with what it takes, and how it is to end.
pub(crate) struct Step(Map<String, Value>);

impl File {
    /// All files, by name.
    pub(crate) fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../antiphon/tests/conformance");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let mut paths: Vec<PathBuf> = entries.filter(is_json).collect();
        paths.sort();
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            Self { path, json }
        };
        paths.into_iter().map(read).collect()
    }

    /// Plays the cases that need nothing of what is `lacking`, each through an interface of its own, and gives how each
    /// step ended, made comparable.
    pub(crate) fn play<I: Interface>(
        &self,
        lacking: &[&str],
        mut interface: impl FnMut() -> I,
    ) -> Vec<(Place, Outcome)> {
        let mut outcomes = Vec::new();
        for case in (0..self.cases().len()).filter(|case| !self.needs(*case, lacking)) {
            let mut interface = interface();
            let steps = self.steps(case);
            if steps[0].call() != "open" {
                let opened = interface.call(&self.opening());
                assert!(opened.is_ok(), "{}: {opened:?}", self.name_of(case));
            }
            for (number, step) in steps.iter().enumerate() {
                let outcome = interface.call(step).map(comparable).map_err(comparable);
                outcomes.push(((case, number), outcome));
            }
        }
        outcomes
    }

    pub(crate) fn cases(&self) -> &[Value] {
        list(&self.json["cases"])
    }

    pub(crate) fn steps(&self, case: usize) -> Vec<Step> {
        let steps = list(&self.cases()[case]["steps"]).iter();
        steps.map(|step| Step(step.as_object().expect("a step is an object").clone())).collect()
    }

    /// For messages: the file and the name of a case.
    pub(crate) fn name_of(&self, case: usize) -> String {
        let file = self.path.file_name().expect("a file has a name").to_string_lossy();
        format!("{file}: {}", self.cases()[case]["name"].as_str().expect("a case has a name"))
    }

    /// How an outcome differs from the one that was recorded, if it does.
    pub(crate) fn difference(&self, (case, step): Place, outcome: &Outcome) -> Option<String> {
        let recorded = self.steps(case)[step].recorded();
        if recorded.as_ref() == Some(outcome) {
            return None;
        }
        let show = |outcome: &Outcome| match outcome {
            Ok(value) => format!("gives {value}"),
            Err(error) => format!("fails {error}"),
        };
        let recorded = recorded.map_or_else(|| "nothing".into(), |recorded| show(&recorded));
        let place = format!("{}, step {}", self.name_of(case), step + 1);
        Some(format!("{place}\n  recorded: {recorded}\n  but it:   {}", show(outcome)))
    }

    /// The step that opens the engine of a case which does not do so itself.
    fn opening(&self) -> Step {
        let config = self.json.get("config").map(|config| ("config".to_owned(), config.clone()));
        Step([("call".to_owned(), "open".into())].into_iter().chain(config).collect())
    }

    fn needs(&self, case: usize, lacking: &[&str]) -> bool {
        list(&self.cases()[case]["needs"]).iter().any(|need| {
            let need = need.as_str().expect("a need is a name");
            assert!(NEEDS.contains(&need), "{}: no such need: {need}", self.name_of(case));
            lacking.contains(&need)
        })
    }
}

impl Step {
    pub(crate) fn call(&self) -> &str {
        self.text("call").expect("a step has a call")
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).map(|value| value.as_str().expect("a text"))
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).map(|value| value.as_u64().expect("a whole number"))
    }

    pub(crate) fn texts(&self, key: &str) -> Vec<&str> {
        let texts = self.get(key).map(list).unwrap_or_default();
        texts.iter().map(|text| text.as_str().expect("a text")).collect()
    }

    /// JSON text to hand in: as it stands under `KEY_text`, or that of the value under `key`.
    pub(crate) fn json(&self, key: &str) -> Option<String> {
        let verbatim = self.text(&format!("{key}_text")).map(str::to_owned);
        verbatim.or_else(|| self.get(key).map(Value::to_string))
    }

    fn recorded(&self) -> Option<Outcome> {
        let error = self.get("fails").map(|error| Err(error.clone()));
        error.or_else(|| self.get("gives").map(|value| Ok(value.clone())))
    }
}

/// Without what is another in each run, build or training.
fn comparable(value: Value) -> Value {
    let entry = |(key, value): (String, Value)| {
        let is_free = FREE.contains(&key.as_str()) && !value.is_null();
        (key, if is_free { 0.into() } else { comparable(value) })
    };
    match value {
        Value::Object(map) => map.into_iter().map(entry).collect(),
        Value::Array(items) => items.into_iter().map(comparable).collect(),
        Value::String(text) if text.starts_with("blake3:") => "blake3:".into(),
        other => other,
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Keys under which a value need only be there.
const FREE: [&str; 9] = [
    "timestamp",
    "timings_ms",
    "retry_after_ms",
    "uptime_ms",
    "bytes",
    "engine",
    "version",
    "config",
    "performance_metrics",
];

/// What a case may need.
const NEEDS: [&str; 9] = [
    "json_options",
    "json_requests",
    "explicit_defaults",
    "raw_bytes",
    "plugins",
    "logprobs",
    "open_streams",
    "push",
    "closed_engine",
];
