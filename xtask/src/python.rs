//! The Python package: built as it is shipped, installed where nothing else of ours is, and tested there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::command::{aside, run};

/// Builds the wheel, installs it into an environment of its own below `target`, and runs every check of the package there.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let home = root.join("target/tools/python");
    let here = |line: &str| {
        let mut words = line.split_whitespace();
        let mut command = Command::new(home.join("bin").join(words.next().unwrap_or_default()));
        command.current_dir(root).args(words);
        command
    };
    if !home.join("bin/pip").exists() {
        let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home));
        made.map_err(|why| format!("no virtual environment (Debian: install python3-venv): {why}"))?;
    }
    run(here("pip install --quiet --disable-pip-version-check").args(TOOLS))?;
    // What an older build left would be as good to pip.
    let wheels = root.join("target/wheels");
    _ = fs::remove_dir_all(&wheels);
    run(here("maturin build --release --locked --manifest-path python/Cargo.toml --out").arg(&wheels))?;
    let wheel = only_file(&wheels)?;
    run(here("abi3audit --strict").arg(&wheel))?;
    // Two calls: the wheel itself in place of one of the same version, and what it needs where that is missing.
    run(here("pip install --quiet --disable-pip-version-check --force-reinstall --no-deps").arg(&wheel))?;
    let with_tests = format!("{}[test]", wheel.display());
    run(here("pip install --quiet --disable-pip-version-check -r python/examples/requirements.txt")
        .arg(with_tests))?;
    let check = |folder: &str, line| {
        let mut check = here(line);
        check.current_dir(root.join(folder));
        check
    };
    run(&mut check("python/examples", "mypy --strict --python-version 3.10 ai_service tests ray_batch.py"))?;
    // Beside each other, because much of both is waiting. The package's not in `python`, where it lies as it is written and
    // not as it is built.
    thread::scope(|scope| {
        let examples = scope
            .spawn(|| aside(&mut check("python/examples", "python -m pytest -q ai_service/tests tests")));
        let package = run(&mut check("python/tests", "pytest"));
        package.and(examples.join().unwrap_or_else(|_| Err("a panic in the test command".to_owned())))
    })
}

fn only_file(folder: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match files.as_slice() {
        [file] => Ok(file.clone()),
        files => Err(format!("{} has {} wheels, expected one", folder.display(), files.len())),
    }
}

/// What builds the wheel, and what looks whether it uses no more of Python than it says. Pinned, so that they do the same
/// tomorrow.
const TOOLS: [&str; 2] = ["maturin==1.16.0", "abi3audit==0.0.26"];
