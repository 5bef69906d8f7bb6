//! Which files of a directory are read: links, special files, indexes; the faults of FAULTS 11 and 23.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use antiphon_inference::error::ErrorKind::{self, Invalid, NotFound};
use antiphon_inference::format::Package;
use serde_json::json;

use crate::build::{expect_error, f32_tensors};
use crate::directories::{check_faults, mkfifo, model, write_index};

#[test]
fn only_regular_files_within_the_directory_are_read() {
    let instead = |with: fn(&Path)| {
        move |path: &Path| {
            let file = path.join("config.json");
            fs::remove_file(&file).expect("it was there");
            with(&file);
        }
    };
    let outside = tempfile::NamedTempFile::new().expect("a temporary file");
    let outside = outside.path().to_owned();
    check_faults(
        &model,
        &[
            (
                "23 link outside",
                &|path| {
                    fs::remove_file(path.join("config.json")).expect("it was there");
                    fs::write(&outside, "{}").expect("writable");
                    symlink(&outside, path.join("config.json")).expect("writable")
                },
                Invalid,
                &["config.json`: links to a place outside"],
            ),
            (
                "23 link upwards",
                &instead(|file| symlink("../../../../../../etc/passwd", file).expect("writable")),
                Invalid,
                &["config.json`: links to a place outside"],
            ),
            (
                "23 dangling link",
                &instead(|file| symlink("nothing", file).expect("writable")),
                Invalid,
                &["config.json`: links to nothing"],
            ),
            (
                "23 link to itself",
                &instead(|file| symlink("config.json", file).expect("writable")),
                ErrorKind::Io,
                &["config.json`"],
            ),
            (
                "23 link to a device",
                &instead(|file| symlink("/dev/zero", file).expect("writable")),
                Invalid,
                &["config.json`: links to a place outside"],
            ),
            ("23 FIFO", &instead(mkfifo), Invalid, &["config.json`: not a regular file"]),
            (
                "23 socket",
                &instead(|file| drop(std::os::unix::net::UnixListener::bind(file).expect("writable"))),
                Invalid,
                &["config.json`: not a regular file"],
            ),
            (
                "23 directory",
                &instead(|file| fs::create_dir(file).expect("writable")),
                Invalid,
                &["config.json`: not a regular file"],
            ),
            (
                "23 linked directory",
                &|path| {
                    // A folder that is a link may be named, but nothing in it may lead out.
                    fs::remove_file(path.join("model.safetensors")).expect("it was there");
                    symlink("/dev", path.join("model.safetensors")).expect("writable");
                },
                Invalid,
                &["model.safetensors`: links to a place outside"],
            ),
        ],
    );
    expect_error(
        "device",
        Package::open(Path::new("/dev/zero")).map(|_| ()),
        Invalid,
        &["/dev/zero`: not a regular file"],
    );
}

#[test]
fn links_within_the_directory_or_its_hub_cache_are_followed() {
    // Within the directory, hard links, and a directory that is named by a link.
    let directory = model();
    let file = directory.path().join("model.safetensors");
    fs::rename(&file, directory.path().join("blob")).expect("it was there");
    symlink("blob", &file).expect("writable");
    fs::hard_link(directory.path().join("config.json"), directory.path().join("generation_config.json"))
        .expect("writable");
    let other = tempfile::tempdir().expect("a temporary directory");
    symlink(directory.path(), other.path().join("current")).expect("writable");
    let package = Package::open(&other.path().join("current")).expect("all links stay within");
    assert_eq!(package.generation_config, Some(package.config));

    // A hub cache: snapshots/<revision> links to blobs of the same repository, not of another.
    let cache = tempfile::tempdir().expect("a temporary directory");
    let snapshot = cache.path().join("models--owner--name/snapshots/0123abcd");
    fs::create_dir_all(&snapshot).expect("writable");
    for repository in ["models--owner--name", "models--other--name"] {
        let blobs = cache.path().join(repository).join("blobs");
        fs::create_dir_all(&blobs).expect("writable");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(directory.path().join(name), blobs.join(name)).expect("writable");
        }
    }
    symlink("../../blobs/config.json", snapshot.join("config.json")).expect("writable");
    symlink("../../blobs/model.safetensors", snapshot.join("model.safetensors")).expect("writable");
    Package::open(&snapshot).expect("the links stay within the repository");
    fs::remove_file(snapshot.join("config.json")).expect("it was there");
    symlink("../../../models--other--name/blobs/config.json", snapshot.join("config.json"))
        .expect("writable");
    expect_error(
        "other repository",
        Package::open(&snapshot).map(|_| ()),
        Invalid,
        &["config.json`: links to a place outside"],
    );
}

#[test]
fn an_index_leads_to_shards_within_the_directory_only() {
    let sharded = || {
        let directory = model();
        let path = directory.path();
        fs::rename(path.join("model.safetensors"), path.join("model-00001-of-00002.safetensors"))
            .expect("it was there");
        fs::write(path.join("model-00002-of-00002.safetensors"), f32_tensors(&[("b", "1", &[5.0])]))
            .expect("writable");
        write_index(
            path,
            json!({"a.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}),
        );
        directory
    };
    let package = Package::open(sharded().path()).expect("it is whole");
    assert_eq!(package.weights.names().collect::<Vec<_>>(), ["a.weight", "b"]);
    assert_eq!(package.weights.expect("b", &[1]).and_then(|t| t.to_f32()).expect("a float"), [5.0]);

    let map = |map: serde_json::Value| move |path: &Path| write_index(path, map.clone());
    let to = |file: &str| map(json!({"a.weight": "model-00001-of-00002.safetensors", "b": file}));
    check_faults(
        &sharded,
        &[
            (
                "11 upwards",
                &to("../../etc/passwd.safetensors"),
                Invalid,
                &["index.json`: tensor `b`: path `../../etc/passwd.safetensors`"],
            ),
            (
                "11 no extension",
                &to("passwd"),
                Invalid,
                &["tensor `b`: path", "expected a .safetensors file"],
            ),
            (
                "11 absolute",
                &to("/etc/x.safetensors"),
                Invalid,
                &["path `/etc/x.safetensors`, expected the plain name"],
            ),
            ("11 backslash", &to("..\\x.safetensors"), Invalid, &["path `..\\\\x.safetensors`"]),
            ("11 percent", &to("%2e%2e%2fx.safetensors"), Invalid, &["expected the plain name"]),
            ("11 NUL", &to("x\0.safetensors"), Invalid, &["expected the plain name"]),
            (
                "11 300 bytes",
                &to(&format!("{}.safetensors", "x".repeat(300))),
                Invalid,
                &["expected the plain name"],
            ),
            ("11 itself", &to("model.safetensors.index.json"), Invalid, &["expected a .safetensors file"]),
            ("11 a number", &map(json!({"b": 1})), Invalid, &["tensor `b`: path `1`"]),
            ("11 nothing", &map(json!({})), Invalid, &["0 files"]),
            (
                "11 no map",
                &|path| fs::write(path.join("model.safetensors.index.json"), "{}").expect("writable"),
                Invalid,
                &["`weight_map` is missing"],
            ),
            (
                "11 missing shard",
                &to("model-00003-of-00002.safetensors"),
                NotFound,
                &["`model-00003-of-00002.safetensors`: not found"],
            ),
            (
                "11 FIFO",
                &|path| {
                    let file = path.join("model-00002-of-00002.safetensors");
                    fs::remove_file(&file).expect("it was there");
                    mkfifo(&file)
                },
                Invalid,
                &["model-00002-of-00002.safetensors`: not a regular file"],
            ),
            (
                "11 device",
                &|path| {
                    let file = path.join("model-00002-of-00002.safetensors");
                    fs::remove_file(&file).expect("it was there");
                    symlink("/dev/zero", &file).expect("writable")
                },
                Invalid,
                &["links to a place outside"],
            ),
            (
                "11 two shards, one tensor",
                &|path| {
                    fs::write(
                        path.join("model-00002-of-00002.safetensors"),
                        f32_tensors(&[("b", "1", &[5.0]), ("a.weight", "1", &[5.0])]),
                    )
                    .expect("writable")
                },
                Invalid,
                &[
                    "tensor `a.weight`: mapped to `model-00001-of-00002.safetensors`, but `model-00002-of-00002.safetensors` has it too",
                ],
            ),
            (
                "11 wrong shard",
                &map(
                    json!({"a.weight": "model-00002-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}),
                ),
                Invalid,
                &["tensor `a.weight`: mapped to `model-00002-of-00002.safetensors`, which lacks it"],
            ),
            (
                "11 unmapped",
                &map(
                    json!({"b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}),
                ),
                Invalid,
                &["tensor `a.weight`: in `model-00001-of-00002.safetensors`, but not mapped"],
            ),
            (
                "7 cut shard",
                &|path| {
                    let file = path.join("model-00002-of-00002.safetensors");
                    let bytes = fs::read(&file).expect("readable");
                    fs::write(&file, &bytes[..bytes.len() - 1]).expect("writable")
                },
                Invalid,
                &[
                    "`model-00002-of-00002.safetensors`: tensor `b`: ends at byte 4 of the data, which is cut off after 3",
                ],
            ),
        ],
    );
}
