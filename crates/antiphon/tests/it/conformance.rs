//! The conformance files through the interface in Rust, which also records them.
//!
//! `ANTIPHON_BLESS=1` writes what the library says now into the files; look at the difference before you commit it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use antiphon::plugin::{Generator, PluginError, Plugins};
use antiphon::{
    Conversation, ConversationConfig, Engine, EngineConfig, Error, ErrorKind, Event, Generate, ReplyStream,
    Request, SummaryOptions,
};
use serde::Serialize;
use serde_json::{Value, json};

use self::format::{File, Interface, Outcome, Place, Step, list};

#[path = "../conformance/format.rs"]
mod format;
#[path = "../conformance/layout.rs"]
mod layout;

/// A `&str` is UTF-8.
const LACKING: [&str; 1] = ["raw_bytes"];

/// Kinds that no case provokes, and where they are tested instead.
const ELSEWHERE: [(ErrorKind, &str); 3] = [
    (ErrorKind::Forked, "needs a second process: fork.rs"),
    (ErrorKind::HubUnavailable, "this build has no hub; a source that names one is invalid_config"),
    (ErrorKind::Internal, "a bug of ours, which no call provokes"),
];

#[test]
fn every_call_of_the_files_ends_as_it_was_recorded() {
    let mut differences = Vec::new();
    for mut file in File::all() {
        let outcomes = file.play(&LACKING, Rust::default);
        if std::env::var_os("ANTIPHON_BLESS").is_some() {
            outcomes.iter().for_each(|(place, outcome)| record(&mut file, *place, outcome));
            replace(&file.path, &layout::print(&file.json));
        }
        differences.extend(outcomes.iter().filter_map(|(place, outcome)| file.difference(*place, outcome)));
        if std::fs::read_to_string(&file.path).unwrap() != layout::print(&file.json) {
            differences.push(format!("{} is not laid out as it is recorded", file.path.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_files_provoke_every_kind_of_error_but_those_that_are_tested_elsewhere() {
    let files = File::all();
    let provoked: BTreeSet<String> = files.iter().flat_map(kinds).collect();
    for kind in ErrorKind::ALL {
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == kind);
        assert_ne!(provoked.contains(kind.name()), elsewhere, "{}", kind.name());
    }
}

#[test]
fn there_are_at_least_sixty_cases_and_no_two_have_one_name() {
    let files = File::all();
    let names: Vec<String> =
        files.iter().flat_map(|file| (0..file.cases().len()).map(|case| file.name_of(case))).collect();
    assert!(names.len() >= 60, "{}", names.len());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

/// An engine, and what a case has opened on it.
#[derive(Default)]
struct Rust {
    conversation: Option<Conversation>,
    left: Vec<ReplyStream>,
    engine: Option<Engine>,
}

impl Interface for Rust {
    fn call(&mut self, step: &Step) -> Outcome {
        match step.call() {
            "open" => self.open(step),
            "conversation" => {
                let options = step.json("options").map(|json| ConversationConfig::from_json(&json));
                let conversation = options
                    .unwrap_or_else(|| Ok(ConversationConfig::default()))
                    .and_then(|options| self.engine().conversation(options));
                outcome(conversation.map(|conversation| self.conversation = Some(conversation)))
            }
            "say" => {
                let conversation = self.conversation.as_mut().expect("a step `conversation` goes before");
                let stream = request(step).and_then(|request| conversation.say(request));
                Ok(self.read(stream, step))
            }
            "stream" if step.get("stop_after").is_some() => Ok(self.push(step)),
            "stream" => {
                let stream = request(step).and_then(|request| self.engine().stream(request));
                Ok(self.read(stream, step))
            }
            "read" => {
                let stream = self.left.pop().expect("a step with `leave_after` goes before");
                Ok(stream.into_iter().map(event).collect())
            }
            _ => self.ask(step),
        }
    }
}

impl Rust {
    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the case opens an engine")
    }

    fn open(&mut self, step: &Step) -> Outcome {
        let plugins = step
            .texts("plugins")
            .into_iter()
            .fold(Plugins::new(), |plugins, name| plugins.add_generator(Arc::new(Named(name.to_owned()))));
        let config =
            step.json("config").map_or(Ok(EngineConfig::default()), |json| EngineConfig::from_json(&json));
        let engine = config.and_then(|config| Engine::open_with(config, plugins));
        outcome(engine.map(|engine| self.engine = Some(engine)))
    }

    /// Calls that leave nothing open.
    fn ask(&self, step: &Step) -> Outcome {
        let engine = self.engine();
        let text = || step.text("text").unwrap();
        match step.call() {
            "analyze" => outcome(engine.analyze_blocking(text())),
            "analyze_batch" => outcome(engine.analyze_batch_blocking(&step.texts("texts"))),
            "process" => outcome(request(step).and_then(|request| engine.process_blocking(request))),
            "generate" => {
                let request = Generate::from_json(&step.json("request").unwrap());
                outcome(request.and_then(|request| engine.generate_blocking(request)))
            }
            "summarize" => {
                let options = step.json("options").map(|json| SummaryOptions::from_json(&json));
                let options = options.unwrap_or_else(|| Ok(SummaryOptions::default()));
                outcome(options.and_then(|options| engine.summarize_blocking(text(), options)))
            }
            "embed" => outcome(engine.embed_blocking(&[text()]).map(|vectors| fnv1a(&vectors[0]))),
            "cache_stats" => outcome(Ok(engine.cache().stats())),
            "cache_clear" => {
                engine.cache().clear(step.text("tenant"));
                outcome(Ok(()))
            }
            "cache_resize" => {
                engine.cache().resize(step.number("max_bytes").unwrap());
                outcome(Ok(()))
            }
            "cache_warm" => outcome(request(step).and_then(|request| engine.cache().warm_blocking(request))),
            "models" => outcome(Ok(engine.models())),
            "health" => outcome(Ok(engine.health())),
            "ready" => outcome(Ok(engine.ready())),
            "drain" => outcome(engine.drain(Duration::from_millis(step.number("timeout_ms").unwrap()))),
            "close" => outcome(engine.close()),
            other => panic!("no such call: {other}"),
        }
    }

    /// The events of a stream, as far as the step reads it.
    fn read(&mut self, stream: antiphon::Result<ReplyStream>, step: &Step) -> Value {
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => return vec![event(Err(error))].into(),
        };
        let first = step.number("leave_after").or(step.number("cancel_after"));
        let mut events = Vec::new();
        for _ in 0..first.unwrap_or(0) {
            let Poll::Ready(Some(next)) = stream.next_blocking(Duration::MAX) else { break };
            events.push(event(next));
        }
        if step.get("leave_after").is_some() {
            self.left.push(stream);
            return events.into();
        }
        if step.get("cancel_after").is_some() {
            stream.canceller().cancel();
        }
        events.extend(stream.into_iter().map(event));
        events.into()
    }

    /// The end of a stream whose consumer stops at an event.
    fn push(&self, step: &Step) -> Value {
        let mut left = step.number("stop_after").unwrap();
        let consumer = |_: Event| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let reply = request(step).and_then(|request| self.engine().on_event(request, consumer));
        vec![event(reply.map(Event::Done))].into()
    }
}

/// A generator of the README's table.
struct Named(String);

impl Generator for Named {
    fn name(&self) -> &str {
        &self.0
    }

    fn generate(
        &self,
        request: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        let wait = |write: &mut dyn FnMut(&str) -> ControlFlow<()>| {
            while write("").is_continue() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        match self.0.as_str() {
            "parrot" => {
                let turn = &request.messages.last().expect("a turn").content;
                let _ = turn.split_inclusive(' ').try_for_each(write);
                Ok(())
            }
            "mute" => Err(PluginError::new("it is mute")),
            "breaks_off" => {
                let _ = write("one ");
                Err(PluginError::new("it broke off"))
            }
            "stalls" => {
                let _ = write("one ");
                wait(write)
            }
            "broods" => wait(write),
            other => panic!("no such generator: {other}"),
        }
    }
}

/// Writes an outcome down.
fn record(file: &mut File, (case, step): Place, outcome: &Outcome) {
    let step = file.json["cases"][case]["steps"][step].as_object_mut().expect("a step is an object");
    let (key, other, value) = match outcome {
        Ok(value) => ("gives", "fails", value),
        Err(error) => ("fails", "gives", error),
    };
    step.remove(other);
    step.insert(key.into(), value.clone());
}

/// Puts a text in the place of a file, at one moment: another test may be reading it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// The kinds of all errors that were recorded.
fn kinds(file: &File) -> Vec<String> {
    let steps = (0..file.cases().len()).flat_map(|case| file.steps(case));
    let errors = steps.flat_map(|step| {
        let events = step.get("gives").map(list).unwrap_or_default().to_vec();
        let events = events.into_iter().filter_map(|event| event.get("error").cloned());
        step.get("fails").cloned().into_iter().chain(events).collect::<Vec<_>>()
    });
    errors.filter_map(|error| Some(error["kind"].as_str()?.to_owned())).collect()
}

/// The event that a stream which failed ends with, in every interface.
fn error_event(error: Value) -> Value {
    json!({"type": "error", "error": error})
}

/// A vector by its length and the FNV-1a hash of its bytes.
fn fnv1a(vector: &[f32]) -> Value {
    let bytes = vector.iter().flat_map(|number| number.to_le_bytes());
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
    json!({"dimension": vector.len(), "fnv1a": format!("{hash:016x}")})
}

fn request(step: &Step) -> antiphon::Result<Request> {
    Request::from_json(&step.json("request").unwrap())
}

fn event(event: antiphon::Result<Event>) -> Value {
    event.map_or_else(|error| error_event(value(&error)), |event| value(&event))
}

fn outcome(result: Result<impl Serialize, Error>) -> Outcome {
    result.map(|value| self::value(&value)).map_err(|error| value(&error))
}

/// The JSON that the library prints.
fn value(value: &impl Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}
