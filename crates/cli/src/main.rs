//! The `antiphon` command: the library at the terminal.
//!
//! Results go to standard output, everything else to standard error. Exit status 0: done; 1: failed, with one line that
//! names the thing, what was expected and what to do, and nothing on standard output; 2: wrong usage.

mod analyze;
mod bench;
mod chat;
mod doctor;
mod eval;
mod generate;
mod input;
mod models;
mod options;
mod output;
mod process;
mod summarize;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::options::Common;
use crate::output::{Failure, Output};

/// Conversational AI as an embedded library: intent, sentiment, entities and a streamed answer, computed locally.
#[derive(Parser)]
#[command(name = "antiphon", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Understand one message and answer it
    Process(process::Options),
    /// Talk at the terminal
    Chat(chat::Options),
    /// Understand messages: one JSON line each
    Analyze(analyze::Options),
    /// Continue a prompt or a list of chat turns, without analysis
    Generate(generate::Options),
    /// The most telling sentences of a text or a dialogue
    Summarize(summarize::Options),
    /// How good the models are on a labelled file
    Eval(eval::Options),
    /// Which models there are, and whether they are whole
    Models(models::Options),
    /// What it costs on this machine: tokens a second, latencies, load time, memory
    Bench(bench::Options),
    /// Test this installation and say what could be better
    Doctor(doctor::Options),
}

fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    let mut output = Output::new();
    let outcome = match command {
        Command::Process(options) => process::run(&common, options, &mut output),
        Command::Chat(options) => chat::run(&common, options, &mut output),
        Command::Analyze(options) => analyze::run(&common, options, &mut output),
        Command::Generate(options) => generate::run(&common, options, &mut output),
        Command::Summarize(options) => summarize::run(&common, &options, &mut output),
        Command::Eval(options) => eval::run(&common, &options, &mut output),
        Command::Models(options) => models::run(&common, options, &mut output),
        Command::Bench(options) => bench::run(&common, &options, &mut output),
        Command::Doctor(options) => doctor::run(&common, &options, &mut output),
    };
    match outcome.and_then(|()| output.flush()) {
        // Whoever read our output has read enough.
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Error(error)) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "error: {error} ({})", error.hint());
            ExitCode::FAILURE
        }
    }
}
