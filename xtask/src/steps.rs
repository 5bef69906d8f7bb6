//! `cargo xtask test`: every check of the repository, in all its languages, behind one command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{fs, io};

use crate::command::{answers, cargo, run, stdout};
use crate::{documents, layers, python};

/// The checks, in the order they run. A new one is a line here.
const STEPS: &[(&str, Step)] = &[
    ("tools", |_| tools()),
    ("layers", |here| Ok(layers::check(here.root)?)),
    ("format", |here| here.cargo("fmt --all --check")),
    ("lints", |here| {
        here.cargo(
            "clippy --release --workspace --all-targets --features antiphon/redis --locked -- -D warnings",
        )
    }),
    ("rust", rust),
    ("aarch64", aarch64),
    ("interleavings", interleavings),
    ("documentation", documentation),
    ("documents", |here| Ok(documents::check(here.root)?)),
    ("first-command", |here| Ok(documents::first_command(here.root)?)),
    ("example", example),
    ("go", go),
    ("python", python_package),
    ("recipes", recipes),
    ("dependencies", dependencies),
];
type Step = fn(&Here<'_>) -> Result<(), Unmet>;

/// What one run was asked to do.
#[derive(Debug, PartialEq)]
pub(crate) struct Selection {
    /// Long tests too: those marked `#[ignore]`.
    long: bool,
    /// Only these steps; all of them when empty.
    only: Vec<String>,
}

impl Selection {
    /// Reads the words after `cargo xtask test`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (options, only): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("--"));
        if let Some(option) = options.iter().find(|option| **option != "--long") {
            return Err(format!("unknown option `{option}`, expected `--long`"));
        }
        if let Some(name) = only.iter().find(|name| !STEPS.iter().any(|(step, _)| step == *name)) {
            let steps: Vec<&str> = STEPS.iter().map(|(step, _)| *step).collect();
            return Err(format!("unknown step `{name}`, expected one of: {}", steps.join(", ")));
        }
        Ok(Self { long: !options.is_empty(), only: only.into_iter().map(str::to_owned).collect() })
    }

    fn has(&self, step: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == step)
    }
}

/// Runs the steps one after another, all of them even if one fails, and closes with `N passed, N failed`.
/// Gives whether none failed.
pub(crate) fn test(root: &Path, selection: &Selection) -> bool {
    let here = Here { root, long: selection.long };
    let mut report = Vec::new();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, step) in STEPS.iter().filter(|(name, _)| selection.has(name)) {
        println!("==> {name}");
        let start = Instant::now();
        let (counter, line) = match step(&here) {
            Ok(()) => (&mut passed, format!("passed   {name}")),
            Err(Unmet::Failed(why)) => (&mut failed, format!("FAILED   {name}: {why}")),
            Err(Unmet::Skipped(why)) => (&mut skipped, format!("skipped  {name}: {why}")),
        };
        *counter += 1;
        report.push(format!("{:>5.0} s  {line}", start.elapsed().as_secs_f64()));
    }
    println!("\n{}", report.join("\n"));
    match skipped {
        0 => println!("{passed} passed, {failed} failed"),
        _ => println!("{passed} passed, {failed} failed, {skipped} skipped"),
    }
    failed == 0
}

/// Why a step did not pass.
enum Unmet {
    Failed(String),
    /// What it needs is not on this machine.
    Skipped(String),
}

impl From<String> for Unmet {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// What every step knows.
struct Here<'a> {
    root: &'a Path,
    long: bool,
}

impl Here<'_> {
    /// Runs cargo with the words of `line`.
    fn cargo(&self, line: &str) -> Result<(), Unmet> {
        Ok(run(&mut cargo(self.root, line))?)
    }

    /// Where cargo puts what it has built.
    fn release(&self) -> Result<PathBuf, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(self.root.join("target"), PathBuf::from);
        std::path::absolute(target.join("release")).map_err(|error| error.to_string())
    }
}

/// What the other steps need: components of the toolchain, which rustup can add, and a C compiler.
fn tools() -> Result<(), Unmet> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let added = || run(Command::new("rustup").args(["component", "add", component])).is_ok();
        if !answers(&mut cargo(Path::new("."), subcommand)) && !added() {
            let message =
                format!("`cargo {subcommand}` is missing: add the component `{component}` to the toolchain");
            return Err(Unmet::Failed(message));
        }
    }
    if !answers(&mut Command::new("cc")) {
        return Err(Unmet::Failed(
            "no C compiler `cc`, which a dependency needs: install gcc or clang".to_owned(),
        ));
    }
    Ok(install(PACKAGES)?)
}

/// Adds the packages of programs that do not answer.
fn install(packages: &[(&str, &str)]) -> Result<(), String> {
    let missing = || packages.iter().filter(|(program, _)| !answers(&mut Command::new(program)));
    let packages: Vec<&str> = missing().map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let packages = packages.join(" ");
    let install = format!("apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}");
    if run(Command::new("sh").args(["-c", &install])).is_err() || missing().next().is_some() {
        return Err(format!("missing, and installing these packages of Debian needs root: {packages}"));
    }
    Ok(())
}

/// Programs that tests start, and the packages of Debian they come in: a real store for the shared tier, and what watches and
/// builds C programs.
const PACKAGES: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("valgrind", "valgrind"),
    ("strace", "strace"),
    ("cmake", "cmake"),
    ("pkg-config", "pkg-config"),
    ("abidiff", "abigail-tools"),
];

fn rust(here: &Here<'_>) -> Result<(), Unmet> {
    let long = if here.long { " -- --include-ignored" } else { "" };
    here.cargo(&format!("test --release --workspace --features antiphon/redis --locked{long}"))
}

/// The kernels' instructions of 64-bit ARM, on another processor under emulation.
fn aarch64(here: &Here<'_>) -> Result<(), Unmet> {
    if cfg!(target_arch = "aarch64") {
        return Ok(()); // the step `rust` has run them
    }
    let added = run(Command::new("rustup").args(["target", "add", ARM]));
    added
        .map_err(|why| Unmet::Skipped(format!("the standard library for {ARM} could not be added: {why}")))?;
    install(ARM_PACKAGES).map_err(Unmet::Skipped)?;
    let skipped: String = NOT_EMULATED.iter().map(|name| format!(" --skip {name}")).collect();
    let line =
        format!("test --release --locked -p antiphon-kernels --lib --test it --target {ARM} --{skipped}");
    let mut test = cargo(here.root, &line);
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64 -L /usr/aarch64-linux-gnu");
    Ok(run(&mut test)?)
}

const ARM: &str = "aarch64-unknown-linux-gnu";

/// What links programs for ARM, with the C library they need, and what runs them.
const ARM_PACKAGES: &[(&str, &str)] = &[
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
    ("qemu-aarch64", "qemu-user"),
];

/// Tests that look at their threads through `/proc`, where they find the emulator's as well.
const NOT_EMULATED: &[&str] =
    &["workers_are_named_and_gone_after_the_drop", "threads_started_with_signals_blocked"];

/// Models of the parts where threads meet, in many orders: with another flag, so in a folder of their own. They are small, so
/// that what builds fastest is best.
fn interleavings(here: &Here<'_>) -> Result<(), Unmet> {
    let line =
        "test --locked -p antiphon -p antiphon-kernels --lib --target-dir target/loom -- interleavings";
    let mut test = cargo(here.root, line);
    Ok(run(test.env("RUSTFLAGS", "--cfg antiphon_loom").env("CARGO_PROFILE_DEV_DEBUG", "0"))?)
}

/// The reference pages build without a warning: no broken link, nothing public without a word about it.
fn documentation(here: &Here<'_>) -> Result<(), Unmet> {
    // The command, the C library and the core share the name `antiphon`, and one page would overwrite the other.
    let line = "doc --release --workspace --exclude antiphon-capi --features antiphon/redis --no-deps --lib --locked";
    let mut doc = cargo(here.root, line);
    Ok(run(doc.env("RUSTDOCFLAGS", "-D warnings"))?)
}

/// The conversation of the README runs: as a part of what the step `rust` has built, so that nothing is built again.
fn example(here: &Here<'_>) -> Result<(), Unmet> {
    here.cargo("build --release --workspace --features antiphon/redis --locked --example conversation")?;
    Ok(run(&mut Command::new(here.release()?.join("examples/conversation")))?)
}

/// The Go package, its examples and their tests under the race detector, against this build of the C library.
fn go(here: &Here<'_>) -> Result<(), Unmet> {
    let go = |words: &str| {
        let mut go = Command::new("go");
        go.current_dir(here.root.join("bindings/go")).args(words.split_whitespace());
        go
    };
    if !go("version").output().is_ok_and(|output| output.status.success()) {
        return Err(Unmet::Skipped("go is not installed".to_owned()));
    }
    here.cargo("build --release --locked -p antiphon-capi")?;
    let libraries = here.release()?;
    let unformatted =
        stdout(Command::new("gofmt").current_dir(here.root.join("bindings/go")).args(["-l", "."]))?;
    if !unformatted.is_empty() {
        return Err(Unmet::Failed(format!("not as gofmt writes it: {}", unformatted.replace('\n', " "))));
    }
    // Counted, or Go would take an earlier result: it does not see that the C library has changed.
    let mut runs = vec![("vet ./...", ""), ("test -count=1 -race ./...", "")];
    if here.long {
        runs.extend([("test -count=1 ./...", ""), ("test -count=1 ./...", "cgocheck2")]);
        runs.push(("test -count=1 -timeout 60m . -long", ""));
    }
    for (words, experiment) in runs {
        let mut go = go(words);
        go.env("CGO_CFLAGS", format!("-I{}", here.root.join("include").display()));
        go.env("CGO_LDFLAGS", format!("-L{}", libraries.display())).env("LD_LIBRARY_PATH", &libraries);
        run(go.env("GOEXPERIMENT", experiment))?;
    }
    Ok(())
}

/// The Python package, the service that runs on it, and what both say about their types.
fn python_package(here: &Here<'_>) -> Result<(), Unmet> {
    if !answers(&mut Command::new("python3")) {
        return Err(Unmet::Skipped("python3 is not installed".to_owned()));
    }
    Ok(python::test(here.root)?)
}

/// The training recipes are Python: every file must compile, and their tests that need no training must pass.
fn recipes(here: &Here<'_>) -> Result<(), Unmet> {
    if !answers(&mut Command::new("python3")) {
        return Err(Unmet::Skipped("python3 is not installed".to_owned()));
    }
    let folder = here.root.join("models/recipes");
    let files = python_files(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let compile = "import sys\nfor p in sys.argv[1:]: compile(open(p, encoding='utf-8').read(), p, 'exec')";
    run(Command::new("python3").args(["-c", compile]).args(&files))?;
    if files.iter().any(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_"))) {
        run(Command::new("python3").current_dir(&folder).args(["-B", "-m", "unittest", "discover"]))?;
    }
    Ok(())
}

fn python_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "py")).collect())
}

/// Licences, bans and sources of everything in the lock file, by the rules of `deny.toml`.
fn dependencies(here: &Here<'_>) -> Result<(), Unmet> {
    let tools = here.root.join("target/tools");
    let cargo_deny = tools.join("bin/cargo-deny");
    if !cargo_deny.exists() {
        println!("installing cargo-deny {CARGO_DENY} into target/tools, about a minute");
        // Unoptimised: it builds in a third of the time and runs for a second.
        let line = format!("install cargo-deny --version {CARGO_DENY} --quiet --locked --debug --root");
        let mut install = cargo(here.root, &line);
        run(install.arg(&tools).env("CARGO_PROFILE_DEV_DEBUG", "0"))
            .map_err(|why| Unmet::Skipped(format!("cargo-deny could not be installed: {why}")))?;
    }
    let check = ["--locked", "check", "bans", "licenses", "sources"];
    Ok(run(Command::new(cargo_deny).current_dir(here.root).args(check))?)
}

/// Pinned, so that the rules mean the same tomorrow.
const CARGO_DENY: &str = "0.20.2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_words_select_every_step() {
        let all = Selection::parse(&[]).unwrap();
        assert!(STEPS.iter().all(|(name, _)| all.has(name)) && !all.long);
    }

    #[test]
    fn named_steps_run_alone() {
        let some = Selection::parse(&["layers", "--long"]).unwrap();
        assert!(some.has("layers") && !some.has("rust") && some.long);
    }

    #[test]
    fn unknown_words_are_refused_by_name() {
        assert!(Selection::parse(&["--fast"]).unwrap_err().contains("--fast"));
        assert!(Selection::parse(&["ruts"]).unwrap_err().contains("`ruts`"));
    }
}
