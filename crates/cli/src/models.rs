//! `antiphon models`: what is there, and is it whole.

use antiphon::{Check, CheckResult, Engine, Error, ErrorKind};
use clap::{Args, Subcommand};

use crate::options::Common;
use crate::output::{Outcome, Output};

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// The configured models [default]
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare every file with its manifest's checksum
    Verify {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(common: &Common, options: Options, output: &mut Output) -> Outcome {
    match options.action.unwrap_or(Action::List { json: false }) {
        Action::List { json } => list(common, json, output),
        Action::Verify { json } => verify(common, json, output),
    }
}

fn list(common: &Common, as_json: bool, output: &mut Output) -> Outcome {
    let models = Engine::open(common.engine_config()?)?.models();
    if as_json {
        return output.json(&models);
    }
    for model in &models {
        let mebibytes = model.bytes as f64 / f64::from(1 << 20);
        output.line(&format!(
            "{:<16} {:<10} {:<12} {:>8.1} MiB  {}",
            model.model_name, model.version, model.task, mebibytes, model.fingerprint
        ))?;
    }
    Ok(())
}

/// A folder's files were held against its manifest when the engine opened; the diagnosis does so for bundled ones, too.
fn verify(common: &Common, as_json: bool, output: &mut Output) -> Outcome {
    let engine = Engine::open(common.engine_config()?)?;
    let checks = engine.diagnose().checks;
    let checks: Vec<Check> = checks.into_iter().filter(|check| check.name.starts_with("files of ")).collect();
    if let Some(broken) = checks.iter().find(|check| check.result != CheckResult::Success) {
        return Err(Error::new(ErrorKind::IntegrityMismatch, broken.message.as_str()).into());
    }
    if as_json {
        return output.json(&checks);
    }
    checks.iter().try_for_each(|check| output.line(&format!("ok  {:<20} {}", check.name, check.message)))
}
