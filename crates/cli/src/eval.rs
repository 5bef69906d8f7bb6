//! `antiphon eval`: how good the models are on a labelled file.

use std::path::PathBuf;

use antiphon::evaluation::{Dataset, EvaluationOptions, Progress, Task, evaluate};
use antiphon::{Engine, Error, ErrorKind, ModelSource};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::input;
use crate::options::{Common, named};
use crate::output::{Outcome, Output};

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure: several, separated by commas, give a result each
    #[arg(long, required = true, value_delimiter = ',', value_parser = named::<Task>(TASKS))]
    task: Vec<Task>,
    /// Labelled records, JSON lines of {"text", "label"}; {"tokens", "tags"} or {"text", "entities"}; {"messages"};
    /// {"dialogue", "summary"}
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The model to measure: a model directory, for responses also a .gguf file [default: the engine's]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Choose only among the labels that occur in the file; found entities of other types are dropped
    #[arg(long)]
    restrict_labels: bool,
    /// Labels of the file and what they are called here, separated by commas; with nothing behind the `=` they are dropped
    #[arg(long, value_name = "FROM=TO", value_delimiter = ',', value_parser = renaming)]
    map: Vec<(String, String)>,
    /// Leave handles out of texts that are given as tokens: `@` with the token after it
    #[arg(long)]
    without_handles: bool,
    /// Only every Nth record
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one())]
    every: usize,
    /// Leave out so many records at the beginning: with `--every 2`, 0 and 1 are the two halves of a file
    #[arg(long, value_name = "N", default_value = "0")]
    offset: usize,
    /// At most so many records
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    limit: Option<usize>,
    /// Print the figures as one JSON object a task
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(common: &Common, options: &Options, output: &mut Output) -> Outcome {
    let file = |error: Error| match error.kind() {
        ErrorKind::BackendUnavailable => error,
        kind => Error::new(kind, format!("file `{}`: {error}", options.data.display())),
    };
    let content = input::file(&options.data, input::LINES_BYTES, ErrorKind::InvalidText)?;
    let data = Dataset::from_jsonl(&content)
        .and_then(|data| data.part(options.every, options.offset, options.limit.unwrap_or(usize::MAX)))
        .map_err(file)?;
    let mut config = common.engine_config()?;
    let answers = options.task.contains(&Task::Responses);
    if answers && options.model.is_some() && options.task.iter().any(|task| *task != Task::Responses) {
        let what = "--model is one model, expected --task responses alone with it";
        return Err(Error::new(ErrorKind::InvalidArgument, what).into());
    }
    if let Some(source) = options.model.clone().map(ModelSource::Path) {
        config = if answers { config.responder(source) } else { config.analyst(source) };
    }
    if !answers && !options.task.contains(&Task::Summaries) {
        // No responder takes part: opening is quicker without.
        config = config.responder(None);
    }
    let engine = Engine::open(config)?;

    let mut how = EvaluationOptions::default()
        .tasks(options.task.as_slice())
        .restrict_labels(options.restrict_labels)
        .without_handles(options.without_handles);
    how.map = options.map.iter().cloned().collect();
    // All of it or nothing: a failure in the last task leaves standard output empty.
    let mut reports = Vec::with_capacity(options.task.len());
    for &task in &options.task {
        let bar = progress_bar();
        let report = evaluate(&engine, task, &data, &how, |progress| show(&bar, progress)).map_err(file)?;
        bar.finish_and_clear();
        reports.push(report);
    }
    for report in reports {
        if options.json {
            output.json(&report)?;
        } else {
            let figures = serde_json::to_value(&report)
                .map_err(|error| Error::new(ErrorKind::Internal, format!("report: {error}")))?;
            lines("", &figures)
                .iter()
                .try_for_each(|(name, figure)| output.line(&format!("{name:<28} {figure}")))?;
        }
    }
    Ok(())
}

/// A report for people: names and figures; figures that belong together share a line.
fn lines(name: &str, report: &Value) -> Vec<(String, String)> {
    let Value::Object(fields) = report else { return vec![(name.to_owned(), text(report))] };
    if !name.is_empty() && !fields.values().any(Value::is_object) {
        let figures: Vec<String> =
            fields.iter().map(|(key, value)| format!("{key} {}", text(value))).collect();
        return vec![(name.to_owned(), figures.join(", "))];
    }
    fields.iter().flat_map(|(key, value)| lines(&key.replace('_', " "), value)).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        figure => figure.to_string(),
    }
}

/// `FROM=TO`
fn renaming(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("expected FROM=TO".into()),
    }
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// A bar on standard error, if that is a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left")
        .expect("the template is well-formed");
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total as u64);
    bar.set_position(progress.done as u64);
}

const TASKS: &[&str] = &["intent", "sentiment", "entities", "responses", "summaries"];
