//! `format::manifest`: the faults of FAULTS 21, 22, 25 and 42, in directories and bundles.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use antiphon_inference::error::ErrorKind::{IntegrityMismatch, Invalid, Unsupported};
use antiphon_inference::format::Package;
use serde_json::json;

use crate::build::{assert_borrowed, expect_error, f32_tensors, fingerprint};
use crate::directories::{bundle_of, check_faults, manifested};

#[test]
fn a_manifest_has_to_match_its_directory() {
    let edit = |edit: fn(&mut serde_json::Value)| {
        move |path: &Path| {
            let file = path.join("antiphon.json");
            let mut manifest =
                serde_json::from_slice(&fs::read(&file).expect("readable")).expect("it is JSON");
            edit(&mut manifest);
            fs::write(&file, manifest.to_string()).expect("writable");
        }
    };
    let digest = |digest: &'static str| {
        move |path: &Path| {
            let file = path.join("antiphon.json");
            let mut manifest: serde_json::Value =
                serde_json::from_slice(&fs::read(&file).expect("readable")).expect("it is JSON");
            manifest["files"][0]["sha256"] = digest.into();
            fs::write(&file, manifest.to_string()).expect("writable");
        }
    };
    let write = |name: &'static str, text: &'static str| {
        move |path: &Path| fs::write(path.join(name), text).expect("writable")
    };
    let package = Package::open(manifested().path()).expect("it is whole");
    let manifest = package.manifest.as_ref().expect("it is there");
    assert_eq!(
        (package.name.as_str(), manifest.task.as_str(), manifest.files.len()),
        ("tiny", "analysis", 3)
    );
    let intent = &manifest.heads["intent"];
    assert_eq!((intent.labels.len(), intent.temperature, intent.tensors.as_str()), (2, 1.5, "intent"));
    assert_eq!(intent.aliases["account_help"], "help_request");

    check_faults(
        &manifested,
        &[
            (
                "25 size",
                &write("README.md", "longer than before"),
                IntegrityMismatch,
                &["`README.md`: 18 bytes, the manifest has 4"],
            ),
            (
                "25 hash",
                &write("README.md", "HELP"),
                IntegrityMismatch,
                &["`README.md`: sha256", "the manifest has"],
            ),
            (
                "25 hash of the config",
                &write("config.json", r#"{"hidden_size":4}"#),
                IntegrityMismatch,
                &["`config.json`: sha256"],
            ),
            (
                "25 missing file",
                &|path| fs::remove_file(path.join("README.md")).expect("it was there"),
                IntegrityMismatch,
                &["`README.md`: missing, but listed"],
            ),
            ("25 unlisted file", &write("extra.txt", ""), IntegrityMismatch, &["`extra.txt`: not listed"]),
            (
                "25 unlisted directory",
                &|path| fs::create_dir(path.join("extra")).expect("writable"),
                IntegrityMismatch,
                &["`extra`: not listed"],
            ),
            (
                "25 duplicate path",
                &edit(|manifest| {
                    let file = manifest["files"][0].clone();
                    manifest["files"].as_array_mut().expect("an array").push(file)
                }),
                Invalid,
                &["stands twice"],
            ),
            (
                "25 path differing by case",
                &edit(|manifest| {
                    let mut file = manifest["files"][0].clone();
                    file["path"] = "readme.MD".into();
                    manifest["files"].as_array_mut().expect("an array").push(file)
                }),
                Invalid,
                &["path `readme.MD` stands twice"],
            ),
            (
                "25 newer schema",
                &edit(|manifest| manifest["schema"] = 2.into()),
                Unsupported,
                &["`antiphon.json`: schema 2, expected 1"],
            ),
            (
                "25 schema a string",
                &edit(|manifest| manifest["schema"] = "1".into()),
                Invalid,
                &["`schema` is"],
            ),
            ("25 no schema", &write("antiphon.json", "{}"), Invalid, &["`schema` is missing"]),
            (
                "25 above 1 MB",
                &|path| fs::write(path.join("antiphon.json"), vec![b' '; (1 << 20) + 1]).expect("writable"),
                Invalid,
                &["`antiphon.json`: 1048577 bytes, expected at most 1048576"],
            ),
            (
                "25 manifest a link",
                &|path| {
                    let outside = path.with_extension("outside");
                    fs::rename(path.join("antiphon.json"), &outside).expect("writable");
                    symlink(&outside, path.join("antiphon.json")).expect("writable")
                },
                Invalid,
                &["antiphon.json`: links to a place outside"],
            ),
            (
                "25 unknown key",
                &edit(|manifest| manifest["licenze"] = "MIT".into()),
                Invalid,
                &["`antiphon.json`: unknown field `licenze`"],
            ),
            (
                "25 missing key",
                &edit(|manifest| drop(manifest.as_object_mut().expect("an object").remove("licence"))),
                Invalid,
                &["missing field `licence`"],
            ),
            (
                "25 duplicate key",
                &write("antiphon.json", r#"{"schema": 1, "schema": 1}"#),
                Invalid,
                &["duplicate key `schema`"],
            ),
            (
                "25 negative size",
                &edit(|manifest| manifest["files"][0]["bytes"] = (-1).into()),
                Invalid,
                &["integer `-1`"],
            ),
            (
                "22 path-digest: 63",
                &digest("00000000000000000000000000000000000000000000000000000000000000"),
                Invalid,
                &["sha256", "expected 64 lower-case hexadecimal digits"],
            ),
            (
                "22 path-digest: 65",
                &digest("00000000000000000000000000000000000000000000000000000000000000000"),
                Invalid,
                &["expected 64 lower-case"],
            ),
            (
                "22 path-digest: upper case",
                &digest("ABCDEF0000000000000000000000000000000000000000000000000000000000"),
                Invalid,
                &["expected 64 lower-case"],
            ),
            (
                "22 path-digest: path",
                &digest("sha256-../../../../etc/passwd"),
                Invalid,
                &["sha256 `sha256-../../../../etc/passwd`"],
            ),
            (
                "11 path upwards",
                &edit(|manifest| manifest["files"][0]["path"] = "../x".into()),
                Invalid,
                &["path `../x`, expected the plain name"],
            ),
            (
                "11 hidden path",
                &edit(|manifest| manifest["files"][0]["path"] = ".x".into()),
                Invalid,
                &["path `.x`"],
            ),
            (
                "11 the manifest itself",
                &edit(|manifest| manifest["files"][0]["path"] = "antiphon.json".into()),
                Invalid,
                &["is the manifest itself"],
            ),
            ("21 name", &edit(|manifest| manifest["name"] = "../Tiny".into()), Invalid, &["name `../Tiny`"]),
            (
                "42 no labels",
                &edit(|manifest| manifest["heads"]["intent"]["labels"] = json!([])),
                Invalid,
                &["head `intent`: 0 labels"],
            ),
            (
                "42 label twice",
                &edit(|manifest| manifest["heads"]["intent"]["labels"] = json!(["a", "a"])),
                Invalid,
                &["head `intent`: label or alias `a` stands twice"],
            ),
            (
                "42 label with NUL",
                &edit(|manifest| manifest["heads"]["intent"]["labels"] = json!(["a\0", "b"])),
                Invalid,
                &["label `a\\0`"],
            ),
            (
                "42 alias of nothing",
                &edit(|manifest| manifest["heads"]["intent"]["aliases"] = json!({"x": "y"})),
                Invalid,
                &["aliases of `y`"],
            ),
            (
                "head temperature",
                &edit(|manifest| manifest["heads"]["intent"]["temperature"] = 0.into()),
                Invalid,
                &["temperature 0"],
            ),
            (
                "head threshold",
                &edit(|manifest| manifest["heads"]["intent"]["threshold"] = 2.into()),
                Invalid,
                &["threshold 2"],
            ),
            (
                "encoder",
                &edit(|manifest| manifest["encoder"] = "sha256:0".into()),
                Invalid,
                &["encoder `sha256:0`"],
            ),
        ],
    );
}

#[test]
fn a_bundle_is_borrowed_and_has_the_fingerprint_of_its_directory() {
    let directory = manifested();
    let package = Package::open(directory.path()).expect("it is whole");
    let bundle = bundle_of(directory.path());
    let bundled = Package::from_bundle("other", &bundle).expect("it is whole");
    assert_eq!((bundled.name.as_str(), fingerprint(&bundled)), ("tiny", fingerprint(&package)));
    assert!(fingerprint(&package).starts_with("blake3:") && fingerprint(&package).len() == 7 + 64);
    let file = bundle.iter().find(|(name, _)| *name == "model.safetensors").expect("it is there").1;
    let tensor = bundled.weights.tensor("a.weight").expect("it is there");
    assert_borrowed(tensor, file);
    bundled.verify().expect("its checksums are right");
    package.verify().expect("its checksums are right");
}

#[test]
fn verify_finds_what_a_bundle_does_not_check_at_open() {
    let directory = manifested();
    let bundle = bundle_of(directory.path());
    let with = |name: &'static str, bytes: &'static [u8]| {
        let mut bundle: Vec<_> = bundle.iter().copied().filter(|(known, _)| *known != name).collect();
        bundle.push((name, bytes));
        Package::from_bundle("m", &bundle)
    };
    let swapped = f32_tensors(&[("a.weight", "2", &[1.0, 3.0])]).leak();
    let package = with("model.safetensors", swapped).expect("it is well-formed");
    expect_error("swapped", package.verify(), IntegrityMismatch, &["`model.safetensors`: sha256"]);
    let package = with("extra.txt", b"x").expect("it is well-formed");
    expect_error("extra", package.verify(), IntegrityMismatch, &["`extra.txt`: not listed"]);
    expect_error(
        "size",
        with("config.json", b"{ }").map(|_| ()),
        IntegrityMismatch,
        &["`config.json`: 3 bytes, the manifest has"],
    );
    let without: Vec<_> = bundle.iter().copied().filter(|(name, _)| *name != "README.md").collect();
    let package = Package::from_bundle("m", &without).expect("the model does not need it");
    expect_error("missing", package.verify(), IntegrityMismatch, &["`README.md`: missing"]);
}
