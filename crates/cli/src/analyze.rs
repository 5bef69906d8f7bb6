//! `antiphon analyze`: what messages mean, as JSON lines.

use std::path::{Path, PathBuf};

use antiphon::{Engine, Error, ErrorKind, Result};
use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::input;
use crate::options::Common;
use crate::output::{Outcome, Output, json};

#[derive(Args)]
#[command(group = ArgGroup::new("source").required(true).args(["text", "input"]))]
pub(crate) struct Options {
    /// The message; `-` reads it from standard input
    text: Option<String>,
    /// Messages: a file of JSON lines, each {"text": "…"} or a string
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub(crate) fn run(common: &Common, options: Options, output: &mut Output) -> Outcome {
    let config = common.engine_config()?;
    let Some(path) = options.input else {
        let text = input::text(options.text.unwrap_or_default())?;
        return output.json(&Engine::open(config)?.analyze_blocking(&text)?);
    };
    let (places, texts): (Vec<usize>, Vec<String>) = read_lines(&path)?.into_iter().unzip();
    let engine = Engine::open(config)?;
    // All of it or nothing: a failure in the last line leaves standard output empty.
    let mut lines = Vec::with_capacity(texts.len());
    let bar = progress(texts.len());
    for (places, batch) in places.chunks(BATCH).zip(texts.chunks(BATCH)) {
        let analyses = engine.analyze_batch_blocking(batch).map_err(|error| {
            let refused = batch
                .iter()
                .zip(places)
                .find_map(|(text, place)| Some((place, engine.analyze_blocking(text).err()?)));
            refused.map_or(error, |(place, error)| {
                Error::new(error.kind(), format!("file `{}`: line {place}: {error}", path.display()))
            })
        })?;
        for analysis in &analyses {
            lines.push(json(analysis)?);
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    lines.iter().try_for_each(|line| output.line(line))
}

/// A line of the input: the data sets' `text`, or a bare string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Record { text: String },
    Text(String),
}

/// The texts with the numbers of their lines; empty lines are skipped.
fn read_lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let content = input::file(path, input::LINES_BYTES, ErrorKind::InvalidText)?;
    let lines = (1..).zip(content.lines()).filter(|(_, line)| !line.trim().is_empty());
    let texts: Vec<(usize, String)> = lines
        .map(|(number, line)| match serde_json::from_str(line) {
            Ok(Line::Record { text } | Line::Text(text)) => Ok((number, text)),
            Err(_) => {
                let what = format!(
                    "file `{}`: line {number}: expected {{\"text\": \"…\"}} or a JSON string",
                    path.display()
                );
                Err(Error::new(ErrorKind::InvalidArgument, what))
            }
        })
        .collect::<Result<_>>()?;
    if texts.is_empty() {
        let what = format!("file `{}` has no lines, expected messages", path.display());
        return Err(Error::new(ErrorKind::InvalidText, what));
    }
    Ok(texts)
}

/// A bar on standard error, if that is a terminal and there is something to wait for.
fn progress(texts: usize) -> ProgressBar {
    if texts <= BATCH {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} texts, {eta} left")
        .expect("the template is well-formed");
    ProgressBar::new(texts as u64).with_style(style)
}

/// Texts that go through the encoder together.
const BATCH: usize = 32;
