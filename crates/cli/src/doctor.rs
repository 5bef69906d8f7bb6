//! `antiphon doctor`: a self-test, and what could be better.

use antiphon::{CheckResult, Engine};
use clap::Args;

use crate::options::Common;
use crate::output::{Outcome, Output};

#[derive(Args)]
pub(crate) struct Options {
    /// Print the diagnosis as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(common: &Common, options: &Options, output: &mut Output) -> Outcome {
    let engine = Engine::open(common.engine_config()?)?;
    let diagnosis = engine.diagnose();
    if options.json {
        return output.json(&diagnosis);
    }
    for check in &diagnosis.checks {
        let mark = match check.result {
            CheckResult::Success => "ok",
            CheckResult::Failed => "FAILED",
            CheckResult::Timeout => "TIMEOUT",
        };
        output.line(&format!("{mark:<8} {:<16} {}", check.name, check.message))?;
    }
    for issue in &diagnosis.configuration.issues {
        output.line(&format!("config   {issue}"))?;
    }
    for recommendation in &diagnosis.recommendations {
        output.line(&format!("advice   {recommendation}"))?;
    }
    Ok(())
}
