//! `format::package`: what a model consists of and in which state it may be; the faults of FAULTS 20, 24, 26 and 29.

use std::fs;
use std::path::Path;

use antiphon_inference::error::ErrorKind::{self, Invalid, NotFound, Unsupported};
use antiphon_inference::format::{Dtype, Package};
use serde_json::json;

use crate::allocations;
use crate::build::{Random, elements, entry, expect_error, f32_tensors, fingerprint, safetensors};
use crate::directories::{bundle_of, check_faults, manifested, model, write_index};

#[test]
fn a_directory_is_read_whole() {
    let directory = model();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("writable");
    write("tokenizer.json", "{\"any\": 1}");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}"#,
    );
    write("generation_config.json", r#"{"temperature": 0.6}"#);
    fs::write(
        directory.path().join("heads.safetensors"),
        f32_tensors(&[("intent.weight", "1,2", &[3.0, 4.0])]),
    )
    .expect("writable");
    let package = Package::open(directory.path()).expect("it is whole");
    assert_eq!(package.config, json!({"hidden_size": 2}));
    assert_eq!(&**package.tokenizer.as_ref().expect("it is there"), b"{\"any\": 1}");
    assert_eq!(package.chat_template.as_deref(), Some("d"));
    assert_eq!(package.generation_config, Some(json!({"temperature": 0.6})));
    assert_eq!(package.weights.names().collect::<Vec<_>>(), ["a.weight", "intent.weight"]);
    assert_eq!(
        package.weights.expect("a.weight", &[2]).and_then(|t| t.to_f32()).expect("a float"),
        [1.0, 2.0]
    );
    assert!(package.manifest.is_none() && package.gguf.is_none());
    expect_error("no manifest", package.verify(), NotFound, &["antiphon.json"]);

    // The template's own file goes first, and a change of any file changes the fingerprint.
    write("chat_template.jinja", "file");
    let changed = Package::open(directory.path()).expect("it is whole");
    assert_eq!(changed.chat_template.as_deref(), Some("file"));
    assert_ne!(fingerprint(&changed), fingerprint(&package));
    assert_eq!(changed.file_bytes, package.file_bytes + 4);
}

#[test]
fn missing_and_foreign_files_are_named() {
    let remove =
        |name: &'static str| move |path: &Path| fs::remove_file(path.join(name)).expect("it was there");
    let rename = |to: &'static str| {
        move |path: &Path| fs::rename(path.join("model.safetensors"), path.join(to)).expect("it was there")
    };
    let write = |name: &'static str, bytes: &'static [u8]| {
        move |path: &Path| fs::write(path.join(name), bytes).expect("writable")
    };
    check_faults(
        &model,
        &[
            (
                "no directory",
                &|path| fs::remove_dir_all(path).expect("it was there"),
                NotFound,
                &["not found"],
            ),
            (
                "a file's directory",
                &|path| {
                    fs::remove_dir_all(path).expect("it was there");
                    fs::write(path, "GGU").expect("writable")
                },
                Invalid,
                &["does not begin with `GGUF`"],
            ),
            ("no config", &remove("config.json"), NotFound, &["config.json", "not found"]),
            ("no weights", &remove("model.safetensors"), NotFound, &["model.safetensors", "not found"]),
            (
                "29 .bin",
                &rename("pytorch_model.bin"),
                Unsupported,
                &["`pytorch_model.bin`: pickle and zip formats are not supported, convert to safetensors"],
            ),
            ("29 .keras", &rename("model.keras"), Unsupported, &["`model.keras`: pickle"]),
            ("29 .npz", &rename("weights.NPZ"), Unsupported, &["`weights.NPZ`: pickle"]),
            (
                "29 renamed zip",
                &write("model.safetensors", b"PK\x03\x04\x14\0\0\0\0\0"),
                Unsupported,
                &["`model.safetensors`: pickle"],
            ),
            (
                "template of 65 KB",
                &|path| fs::write(path.join("chat_template.jinja"), vec![b'x'; 65_537]).expect("writable"),
                Invalid,
                &["`chat_template.jinja`: 65537 bytes, expected at most 65536"],
            ),
            (
                "template in the config",
                &|path| {
                    fs::write(
                        path.join("tokenizer_config.json"),
                        json!({"chat_template": "x".repeat(65_537)}).to_string(),
                    )
                    .expect("writable")
                },
                Invalid,
                &["`tokenizer_config.json`: a chat template of 65537 bytes"],
            ),
            (
                "template not UTF-8",
                &write("chat_template.jinja", b"\xFF"),
                Invalid,
                &["`chat_template.jinja`: is not UTF-8"],
            ),
            (
                "template a number",
                &write("tokenizer_config.json", br#"{"chat_template": 1}"#),
                Invalid,
                &["`tokenizer_config.json`: `chat_template`"],
            ),
            (
                "no default template",
                &write("tokenizer_config.json", br#"{"chat_template": [{"name": "x", "template": "y"}]}"#),
                Invalid,
                &["one named `default`"],
            ),
            (
                "tokenizer_config an array",
                &write("tokenizer_config.json", b"[]"),
                Invalid,
                &["`tokenizer_config.json`: expected a JSON object"],
            ),
            (
                "heads with a known name",
                &|path| {
                    fs::copy(path.join("model.safetensors"), path.join("heads.safetensors"))
                        .map(drop)
                        .expect("writable")
                },
                Invalid,
                &["`a.weight`: in `model.safetensors` and in `heads.safetensors`"],
            ),
        ],
    );
    let directory = model();
    let file = directory.path().join("model.safetensors");
    expect_error(
        "one file",
        Package::open(&file).map(|_| ()),
        Unsupported,
        &["model.safetensors", "a single file"],
    );
    expect_error(
        "under a file",
        Package::open(&file.join("x")).map(|_| ()),
        ErrorKind::Io,
        &["model.safetensors/x"],
    );
    expect_error("name with NUL", Package::open(Path::new("a\0b")).map(|_| ()), ErrorKind::Io, &["`a\\0b`"]);
    fs::rename(&file, directory.path().join("model.pt")).expect("it was there");
    expect_error(
        "29 .pt",
        Package::open(&directory.path().join("model.pt")).map(|_| ()),
        Unsupported,
        &["`model.pt`: pickle"],
    );
}

#[test]
fn a_file_is_refused_by_its_size_and_start_before_there_is_memory_for_it() {
    let directory = model();
    let path = directory.path();
    let sparse = |name: &str| {
        let file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path.join(name))
            .expect("writable");
        file.set_len(1 << 40).expect("the file system has sparse files");
    };
    let refused = |path: &Path, says: &[&str]| {
        let (result, peak) = allocations::peak(|| Package::open(path).map(|_| ()));
        expect_error(says[0], result, Invalid, says);
        assert!(peak < 1 << 20, "{}: {peak} bytes", says[0]);
    };
    sparse("model.safetensors");
    refused(path, &["`model.safetensors`: a header of 0 bytes"]);
    sparse("model.gguf");
    refused(&path.join("model.gguf"), &["`model.gguf`: does not begin with `GGUF`"]);
    for (name, most) in
        [("config.json", "1048576"), ("tokenizer.json", "134217728"), ("antiphon.json", "1048576")]
    {
        sparse(name);
        refused(path, &[&format!("`{name}`: 1099511627776 bytes, expected at most {most}")]);
        fs::write(path.join(name), "{}").expect("writable");
    }
}

#[test]
fn q8_0_matrices_are_presented_as_what_they_are() {
    // One row of two blocks: scale 0.5 with quants 0 to 31, scale 1 with quants -1.
    let block = |scale: f32, quants: &[i8; 32]| {
        let quants = quants.iter().map(|q| *q as u8);
        half::f16::from_f32(scale).to_le_bytes().into_iter().chain(quants).collect::<Vec<u8>>()
    };
    let row = [block(0.5, &std::array::from_fn(|i| i as i8)), block(1.0, &[-1; 32])].concat();
    let header = format!("{{{},{}}}", entry("m", "U8", "1,68", 0, 68), entry("flat", "U8", "3", 68, 71));
    let file: &'static [u8] = safetensors(header, &[row, vec![7; 3]].concat()).leak();
    let open = |config: &'static str, file| {
        Package::from_bundle("m", &[("config.json", config.as_bytes()), ("model.safetensors", file)])
    };
    let config = r#"{"quantization_config": {"quant_method": "q8_0", "block_size": 32}}"#;
    let package = open(config, file).expect("it is valid");
    let tensor = package.weights.expect("m", &[1, 64]).expect("it has that shape");
    assert_eq!(tensor.dtype, Dtype::Q8_0);
    let values = tensor.to_f32().expect("it can be read");
    assert_eq!((values[3], values[31], values[32], values[63]), (1.5, 15.5, -1.0, -1.0));
    assert_eq!(package.weights.expect("flat", &[3]).expect("left alone").dtype, Dtype::U8);
    let plain = open("{}", file).expect("it is valid");
    assert_eq!(plain.weights.expect("m", &[1, 68]).expect("left alone").dtype, Dtype::U8);

    let refused =
        |config, says: &str, kind| expect_error(config, open(config, file).map(|_| ()), kind, &[says]);
    refused(
        r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#,
        "`quant_method` is `gptq`, expected q8_0",
        Unsupported,
    );
    refused(
        r#"{"quantization_config": {"quant_method": "q8_0", "block_size": 64}}"#,
        "`block_size` is `64`",
        Invalid,
    );
    refused(
        r#"{"quantization_config": {"quant_method": "q8_0", "block_size": 32, "scales": "tensor"}}"#,
        "`scales` is `tensor`, expected block or row",
        Unsupported,
    );
    refused(r#"{"quantization_config": {"quant_method": "q8_0"}}"#, "`block_size` is missing", Invalid);
    refused(r#"{"quantization_config": "q8_0"}"#, "`quantization_config` is `", Invalid);
    let broken: &'static [u8] =
        safetensors(format!("{{{}}}", entry("m", "U8", "1,33", 0, 33)), &[0; 33]).leak();
    expect_error(
        "rows",
        open(config, broken).map(|_| ()),
        Invalid,
        &["tensor `m`: rows of 33 bytes, expected Q8_0 blocks of 34"],
    );
}

#[test]
fn an_open_package_does_not_depend_on_the_names_of_its_files() {
    let directory = model();
    let package = Package::open(directory.path()).expect("it is whole");
    fs::remove_dir_all(directory.path()).expect("it was there");
    assert_eq!(
        package.weights.expect("a.weight", &[2]).and_then(|t| t.to_f32()).expect("a float"),
        [1.0, 2.0]
    );
}

#[test]
fn a_file_that_is_cut_before_its_tensors_were_read_is_named() {
    let (directory, listed) = (model(), manifested());
    let package = Package::open(directory.path()).expect("it is whole");
    let checked = Package::open(listed.path()).expect("it is whole");
    for directory in [&directory, &listed] {
        fs::write(directory.path().join("model.safetensors"), "cut").expect("writable");
    }
    let tensor = package.weights.expect("a.weight", &[2]).expect("the header was read");
    expect_error("cut", tensor.to_f32(), ErrorKind::Io, &["model.safetensors", "no longer"]);
    expect_error("cut", package.fingerprint(), ErrorKind::Io, &["model.safetensors", "no longer"]);
    // What a manifest vouches for was read when it was checked.
    checked.weights.expect("a.weight", &[2]).and_then(|t| t.to_f32()).expect("it is in memory");
}

#[test]
fn weights_are_read_piece_by_piece_and_hashed_on_the_way() {
    let values: Vec<f32> = (0..1 << 20).map(|i| i as f32).collect();
    let directory = model();
    let path = directory.path();
    fs::write(path.join("model.safetensors"), f32_tensors(&[("a.weight", "1048576", &values)]))
        .expect("writable");
    let (package, opened) = allocations::peak(|| Package::open(path).expect("it is whole"));
    assert!(opened < 100_000, "{opened} bytes to open it");
    let tensor = package.weights.tensor("a.weight").expect("it is there");
    let mut sum = 0;
    let (_, read) = allocations::peak(|| {
        tensor.pieces(1 << 16, |piece| {
            sum += piece.iter().map(|byte| usize::from(*byte)).sum::<usize>();
            Ok(())
        })
    });
    assert!(read < 100_000, "{read} bytes to read it");
    assert_eq!(sum, elements(tensor).iter().map(|byte| usize::from(*byte)).sum::<usize>());
    // Whoever reads, in pieces of whatever size, and when: the fingerprint is that of the content.
    let untouched = Package::open(path).expect("it is whole");
    let bundled = Package::from_bundle("m", &bundle_of(path)).expect("it is whole");
    assert_eq!(fingerprint(&package), fingerprint(&untouched));
    assert_eq!(fingerprint(&package), fingerprint(&bundled));
    let mut other = values;
    other[77] = 0.5;
    fs::write(path.join("model.safetensors"), f32_tensors(&[("a.weight", "1048576", &other)]))
        .expect("writable");
    assert_ne!(fingerprint(&Package::open(path).expect("it is whole")), fingerprint(&package));
}

#[test]
fn a_file_that_is_replaced_meanwhile_is_read_old_or_new() {
    let directory = model();
    let path = directory.path();
    let versions =
        [f32_tensors(&[("a.weight", "2", &[1.0, 2.0])]), f32_tensors(&[("a.weight", "2", &[3.0, 4.0])])];
    let fingerprints = versions.each_ref().map(|version| {
        fs::write(path.join("model.safetensors"), version).expect("writable");
        fingerprint(&Package::open(path).expect("it is whole"))
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in versions.iter().cycle() {
                fs::write(path.join("new"), version).expect("writable");
                fs::rename(path.join("new"), path.join("model.safetensors")).expect("writable");
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..1000 {
            let package = Package::open(path).expect("it is whole at all times");
            let values = package.weights.expect("a.weight", &[2]).and_then(|t| t.to_f32()).expect("a float");
            let version = usize::from(values == [3.0, 4.0]);
            assert_eq!(fingerprint(&package), fingerprints[version]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn mutated_texts_never_panic() {
    let directory = manifested();
    fs::write(
        directory.path().join("tokenizer_config.json"),
        r#"{"chat_template": [{"name": "default", "template": "d"}]}"#,
    )
    .expect("writable");
    write_index(directory.path(), json!({"a.weight": "shard.safetensors"}));
    let whole = bundle_of(directory.path());
    let mut random = Random(5);
    let texts = ["antiphon.json", "config.json", "tokenizer_config.json", "model.safetensors.index.json"];
    let mut accepted = [0; 4];
    for round in 0..10_000 {
        let mut bundle = whole.clone();
        // Where the index is tried, it is what leads to the weights.
        let text = texts[round % texts.len()];
        for (name, bytes) in &mut bundle {
            match *name {
                "model.safetensors" if text.ends_with(".index.json") => *name = "shard.safetensors",
                name if name == text => *bytes = random.mutate(bytes).leak(),
                _ => {}
            }
        }
        accepted[round % texts.len()] += usize::from(Package::from_bundle("m", &bundle).is_ok());
    }
    assert!(accepted.iter().all(|accepted| (1..2_500).contains(accepted)), "{accepted:?} of 2500 accepted");
}
