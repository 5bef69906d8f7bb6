//! How good the models are, measured on a labelled file: what `antiphon eval` prints.
//!
//! Everything is measured through the engine, as a host gets it. The definitions:
//!
//! - **accuracy**: the share of examples whose label was found. An in-scope text called out of scope is wrong, and `oos` and
//!   `out_of_scope` both name the label of texts out of scope. A label that the head does not have is wrong each time and
//!   listed in `unknown_labels`.
//! - **macro_f1**, **macro_recall**: means over the labels that occur in the file.
//! - **ece**: the expected calibration error of the best label's probability, over 15 bins of equal width. For intents it is
//!   taken over in-scope texts and before the threshold: a probability is a statement about a label, and where a text has no
//!   right label there is nothing for it to come true on; how well the threshold separates is what `out_of_scope` says.
//! - **restrict_labels**: the probability of labels that do not occur in the file is shared out among those that do, and the
//!   threshold is held against what comes of it, if texts out of scope occur.
//! - **precision**, **recall**, **f1** of entities: over all entities of the file, right when span and type are exactly
//!   those of the file.
//! - **true_of_ten**: the share of dialogues whose true answer, its end included, has a lower perplexity per token than each
//!   of nine other answers of its category (of the file, where a category has not so many). What is said of greedy answers
//!   is of those that [`Engine::process`] gives.
//! - **rouge_l**: the mean F1 of the longest common subsequence of lower-cased words (runs of letters and digits) with the
//!   reference summary. **lead_3_rouge_l** is that of the text's first three sentences, cut and joined as summaries are.
//! - **p50_ms**, **p99_ms**: of one text after the other, as a waiting caller sees it; **texts_per_second**: of batches.
//!
//! ```
//! use antiphon::evaluation::{Dataset, EvaluationOptions, Report, Task, evaluate};
//! use antiphon::{Engine, EngineConfig};
//!
//! let engine = Engine::open(EngineConfig::default().responder(None))?;
//! let data = Dataset::from_jsonl(r#"{"text": "Where is my order?", "label": "order_status"}"#)?;
//! let Report::Intent(report) = evaluate(&engine, Task::Intent, &data, &EvaluationOptions::default(), |_| ())? else {
//!     unreachable!("the task was intent");
//! };
//! assert_eq!((report.examples, report.accuracy), (1, 1.0)); // `order_status` is an alias of `track_order`
//! # Ok::<(), antiphon::Error>(())
//! ```

mod dataset;
mod entities;
mod intent;
mod labels;
mod metrics;
mod responses;
mod sentiment;
mod speed;
mod summaries;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::dataset::Dataset;
pub use self::entities::{EntitiesReport, EntityScore};
pub use self::intent::{IntentReport, OutOfScope};
pub use self::responses::{Conditioned, ResponsesReport};
pub use self::sentiment::SentimentReport;
pub use self::speed::Speed;
pub use self::summaries::SummariesReport;
use crate::engine::Engine;
use crate::error::Result;

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Task {
    /// What the user wants: records `{"text", "label"}`.
    Intent,
    /// How the user feels: records `{"text", "label"}`.
    Sentiment,
    /// What the message names: records `{"tokens", "tags"}` or `{"text", "entities"}`.
    Entities,
    /// What the responder answers: records `{"messages"}` that end with a true answer, with their `"category"`.
    Responses,
    /// What is left of a text in three sentences: records `{"dialogue", "summary"}`.
    Summaries,
}

/// How labels are read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EvaluationOptions {
    /// The tasks that the file serves, which decides whose `label` is (see [`Self::tasks`]). Default: the one measured.
    pub tasks: Vec<Task>,
    /// The model chooses only among the labels that occur in the file; found entities of other types are dropped.
    pub restrict_labels: bool,
    /// Labels of the file and what they are called here; an empty name drops the record, or the entity.
    pub map: BTreeMap<String, String>,
    /// Leaves handles out of texts that are given as tokens: `@` with the token after it, and tokens that begin with `@`.
    pub without_handles: bool,
}

/// What was measured: one JSON object.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "task", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Report {
    /// Of intents.
    Intent(IntentReport),
    /// Of sentiments.
    Sentiment(SentimentReport),
    /// Of entities.
    Entities(EntitiesReport),
    /// Of answers.
    Responses(ResponsesReport),
    /// Of summaries.
    Summaries(SummariesReport),
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
}

/// Measures one task on a file.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) names the line of a record that is of no use for the
/// task; and what the engine says of a text, with its line.
pub fn evaluate(
    engine: &Engine,
    task: Task,
    data: &Dataset,
    options: &EvaluationOptions,
    mut on_progress: impl FnMut(Progress),
) -> Result<Report> {
    let on_progress = &mut on_progress;
    Ok(match task {
        Task::Intent => Report::Intent(intent::measure(engine, data, options, on_progress)?),
        Task::Sentiment => Report::Sentiment(sentiment::measure(engine, data, options, on_progress)?),
        Task::Entities => Report::Entities(entities::measure(engine, data, options, on_progress)?),
        Task::Responses => Report::Responses(responses::measure(engine, data, on_progress)?),
        Task::Summaries => Report::Summaries(summaries::measure(engine, data, on_progress)?),
    })
}

impl Task {
    /// The name in JSON and at the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Sentiment => "sentiment",
            Self::Entities => "entities",
            Self::Responses => "responses",
            Self::Summaries => "summaries",
        }
    }

    /// Whether a text has one label.
    const fn is_classification(self) -> bool {
        matches!(self, Self::Intent | Self::Sentiment)
    }
}

impl EvaluationOptions {
    /// The tasks that the file serves. A record's label stands under the name of its task (`intent`, `sentiment`) or under
    /// `label`, which belongs to the first of these tasks that has no name of its own in the record.
    pub fn tasks(mut self, tasks: impl Into<Vec<Task>>) -> Self {
        self.tasks = tasks.into();
        self
    }

    /// Whether the model chooses only among the labels that occur in the file. Out of scope is among them only if it occurs.
    pub fn restrict_labels(mut self, restrict: bool) -> Self {
        self.restrict_labels = restrict;
        self
    }

    /// What a label of the file is called here; an empty name drops the record, or the entity.
    pub fn map(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.map.insert(from.into(), to.into());
        self
    }

    /// Whether handles are left out of texts that are given as tokens: `@` with the token after it, and tokens that begin
    /// with `@`.
    pub fn without_handles(mut self, without: bool) -> Self {
        self.without_handles = without;
        self
    }
}
