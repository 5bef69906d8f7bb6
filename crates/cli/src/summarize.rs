//! `antiphon summarize`: what a text or a dialogue comes down to.

use std::path::{Path, PathBuf};

use antiphon::{Engine, ErrorKind, SummaryMethod, SummaryOptions};
use clap::Args;
use serde_json::json;

use crate::input;
use crate::options::{Common, named};
use crate::output::{Outcome, Output};

#[derive(Args)]
pub(crate) struct Options {
    /// The text, UTF-8; a dialogue has a line `Speaker: …` for each turn [default: standard input, as is `-`]
    file: Option<PathBuf>,
    /// Sentences of the summary [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "share")]
    sentences: Option<usize>,
    /// The share of the text's sentences that the summary has, above 0 to 1
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    share: Option<f32>,
    /// Whose words it is made of: the text's, the responder's, or the responder's where it is an instruct model
    #[arg(long, value_parser = named::<SummaryMethod>(&["auto", "extractive", "abstractive"]))]
    method: Option<SummaryMethod>,
    /// Print {"summary": …}
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(common: &Common, options: &Options, output: &mut Output) -> Outcome {
    let config = common.engine_config()?;
    let text = match options.file.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => input::file(path, input::TEXT_BYTES, ErrorKind::InvalidText)?,
        None => input::text("-".to_owned())?,
    };
    let mut how = SummaryOptions::default();
    how.sentences = options.sentences;
    how.share = options.share;
    how.method = options.method.unwrap_or_default();
    let summary = Engine::open(config)?.summarize_blocking(&text, how)?;
    if options.json { output.json(&json!({"summary": summary})) } else { output.line(&summary) }
}
