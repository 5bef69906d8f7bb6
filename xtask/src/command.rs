//! Other programs: started with their output passed through, or with it read.

use std::path::Path;
use std::process::{Command, Stdio};

/// Cargo in a folder, with the words of `line`: the cargo that runs this program, so the toolchain stays the same.
pub(crate) fn cargo(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).args(line.split_whitespace());
    command
}

/// Runs to the end with the output passed through; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

/// Runs to the end beside something else: what it writes is shown when it has ended.
pub(crate) fn aside(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{}: {e}", shown(command)))?;
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(format!("{}: {}", shown(command), output.status)) }
}

/// Runs to the end and gives what it wrote to stdout; stderr is passed through.
pub(crate) fn stdout(command: &mut Command) -> Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{}: {}", shown(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{}: output is not UTF-8: {e}", shown(command)))
}

/// Whether the program can be started at all: it is there, and `--version` succeeds.
pub(crate) fn answers(command: &mut Command) -> bool {
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    format!("`{}`", words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" "))
}
