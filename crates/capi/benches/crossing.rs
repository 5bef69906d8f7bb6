//! What the border costs: `cargo bench -p antiphon-capi --bench crossing`.
//!
//! Getters and pulled events in C, and the same events read in Rust, in turns in one run. Nothing fails on a clock.
#![allow(clippy::print_stdout, reason = "what it is for")]
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use antiphon::plugin::{Generator, PluginError, Plugins};
use antiphon::{CacheMode, Engine, EngineConfig, Event, Generate, Request};

const PIECES: u32 = 200;
const ROUNDS: u32 = 10;

fn main() {
    let program = compile();
    println!("{:<40} {:>10}", "nanoseconds, the best of its rounds", "");
    for turn in 1..=3 {
        println!("turn {turn}");
        println!("  {:<38} {:>10.1}", "an event, in Rust", in_rust());
        let output = Command::new(&program).args([PIECES.to_string(), ROUNDS.to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (name, nanoseconds) = line.split_once(' ').unwrap();
            println!("  {name:<38} {nanoseconds:>10}");
        }
    }
}

/// The generator of the C program.
struct Pieces;

impl Generator for Pieces {
    fn name(&self) -> &str {
        "pieces"
    }

    fn generate(
        &self,
        _: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        for _ in 0..PIECES {
            if write("a piece ").is_break() {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// Nanoseconds for each event of a stream that is complete before it is read.
fn in_rust() -> f64 {
    let plugins = Plugins::new().add_generator(Arc::new(Pieces));
    let engine = Engine::open_with(EngineConfig::default(), plugins).unwrap();
    let round = || {
        let request = Request::new("Hello").model("pieces").max_tokens(2000).cache(CacheMode::Bypass);
        let mut stream = engine.stream(request).unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(PIECES) * 400 + 20_000));
        let (begin, mut events) = (Instant::now(), 0);
        while let Poll::Ready(Some(event)) = stream.next_blocking(Duration::MAX) {
            events += u32::from(matches!(event.unwrap(), Event::Chunk { .. }));
        }
        begin.elapsed().as_nanos() as f64 / f64::from(events)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// Builds the library and the program that is linked with it.
fn compile() -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let build = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--quiet", "-p", "antiphon-capi", "--target-dir"])
        .arg(&target)
        .current_dir(folder)
        .status();
    assert!(build.unwrap().success());
    let (library, program) = (target.join("release"), target.join("release/crossing"));
    let compile = Command::new("cc")
        .args(["-std=gnu11", "-O2", "-I"])
        .arg(folder.join("../../include"))
        .arg(folder.join("tests/programs/crossing.c"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(&library)
        .arg("-lantiphon")
        .arg(format!("-Wl,-rpath,{}", library.display()))
        .status();
    assert!(compile.unwrap().success());
    program
}
