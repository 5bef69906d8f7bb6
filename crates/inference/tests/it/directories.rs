//! Model directories to make bad, and how.

use std::fs;
use std::path::Path;
use std::process::Command;

use antiphon_inference::error::ErrorKind;
use antiphon_inference::format::Package;
use serde_json::json;
use tempfile::TempDir;

use crate::build::{expect_error, f32_tensors};

/// What makes a good model directory bad, and the error that has to follow.
pub(crate) type Fault<'a> = (&'a str, &'a dyn Fn(&Path), ErrorKind, &'a [&'a str]);

pub(crate) fn check_faults(whole: &dyn Fn() -> TempDir, faults: &[Fault<'_>]) {
    for (name, fault, kind, says) in faults {
        let directory = whole();
        // A level below, so that what is put beside it goes away with it.
        let path = directory.path().join("model");
        copy(directory.path(), &path);
        Package::open(&path).expect("it is whole before");
        fault(&path);
        expect_error(name, Package::open(&path).map(|_| ()), *kind, says);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("writable");
    for file in fs::read_dir(from)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file())
    {
        fs::copy(&file, to.join(file.file_name().expect("a file"))).expect("writable");
    }
}

/// A directory with a config and weights.
pub(crate) fn model() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("config.json"), r#"{"hidden_size":2}"#).expect("writable");
    fs::write(directory.path().join("model.safetensors"), f32_tensors(&[("a.weight", "2", &[1.0, 2.0])]))
        .expect("writable");
    directory
}

/// The same with a README and a manifest.
pub(crate) fn manifested() -> TempDir {
    let directory = model();
    fs::write(directory.path().join("README.md"), "help").expect("writable");
    let file = |name: &str| {
        use sha2::Digest;
        let bytes = fs::read(directory.path().join(name)).expect("readable");
        let sha256: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"path": name, "sha256": sha256, "bytes": bytes.len()})
    };
    let manifest = json!({
        "schema": 1, "name": "tiny", "version": "0.1.0", "task": "analysis", "licence": "MIT",
        "files": [file("README.md"), file("config.json"), file("model.safetensors")],
        "heads": {"intent": {"labels": ["help_request", "other"], "aliases": {"account_help": "help_request"},
                             "temperature": 1.5, "threshold": 0.25, "tensors": "intent"}},
        "card": {"accuracy": 0.5},
    });
    fs::write(directory.path().join("antiphon.json"), manifest.to_string()).expect("writable");
    directory
}

pub(crate) fn write_index(path: &Path, weight_map: serde_json::Value) {
    let index = json!({"metadata": {"total_size": 12}, "weight_map": weight_map});
    fs::write(path.join("model.safetensors.index.json"), index.to_string()).expect("writable");
}

/// All files of a directory as if the program carried them.
pub(crate) fn bundle_of(path: &Path) -> Vec<(&'static str, &'static [u8])> {
    let entries = fs::read_dir(path).expect("readable").map(|entry| entry.expect("readable").path());
    let file = |path: std::path::PathBuf| -> (&'static str, &'static [u8]) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name.leak(), fs::read(path).expect("readable").leak())
    };
    entries.map(file).collect()
}

pub(crate) fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("it can be run").success());
}
