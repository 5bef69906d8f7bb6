//! The bytes in the program are the bytes that the manifests vouch for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use antiphon_models::{ANALYST, RESPONDER};
use serde_json::Value;
use sha2::{Digest, Sha256};

type Files = [(&'static str, &'static [u8])];

#[test]
fn every_file_of_the_analyst_has_the_size_and_checksum_of_its_manifest() {
    check("analyst", ANALYST, 12 << 20);
}

#[test]
fn every_file_of_the_responder_has_the_size_and_checksum_of_its_manifest() {
    check("responder", RESPONDER, 14 << 20);
}

fn check(model: &str, files: &Files, most: usize) {
    let manifest: Value = serde_json::from_slice(bytes(files, "antiphon.json").unwrap()).unwrap();
    let listed = manifest["files"].as_array().unwrap();
    for entry in listed {
        let path = entry["path"].as_str().unwrap();
        let bytes =
            bytes(files, path).unwrap_or_else(|| panic!("{model}: {path} is listed and not handed out"));
        assert_eq!(entry["bytes"], bytes.len(), "{model}: size of {path}");
        let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry["sha256"], *sha256, "{model}: checksum of {path}");
    }
    let listed: BTreeSet<&str> = listed.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    let vouched: BTreeSet<&str> =
        files.iter().map(|(name, _)| *name).filter(|name| *name != "antiphon.json").collect();
    assert_eq!(listed, vouched, "{model}: files of the manifest and files handed out");

    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(total <= most, "{model}: {total} bytes, at most {most} belong in the repository");
}

fn bytes(files: &Files, name: &str) -> Option<&'static [u8]> {
    files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes)
}
