//! Chores of the repository: `cargo xtask test` runs every check, `cargo xtask layers` only the import arrows.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: its output is its result"
)]

mod command;
mod documents;
mod layers;
mod python;
mod steps;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test [--long] [STEP ...]   every check of the repository, or the named steps
       cargo xtask layers                     who may import whom, read from `cargo metadata`";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test", ref options @ ..] => {
            steps::Selection::parse(options).map(|selection| steps::test(root, &selection))
        }
        ["layers"] => layers::check(root).map(|()| true),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
