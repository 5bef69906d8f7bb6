//! `format::gguf`: the faults of FAULTS 12 to 14 and the recipes of its section 3.2, and candle as oracle.

use std::fs;
use std::io::Cursor;

use antiphon_inference::error::ErrorKind;
use antiphon_inference::format::{Dtype, GgufMetadata, Package};
use candle_core::Device;
use candle_core::quantized::gguf_file::Content;

use crate::build::{Case, Gguf, Random, assert_borrowed, assert_same, elements, expect_error, fingerprint};

const F32: u32 = 0;
const I8: u32 = 24;

#[test]
fn malformed_files_are_refused_by_name() {
    let header = |version: u32| Gguf(b"GGUF".to_vec()).u32(version).u64(0).u64(0).0;
    let key = |value_type: u32| Gguf::new(0, 1).key("some.key", value_type);
    let tensor = |dims: &[u64], ggml_type: u32, offset: u64, data: usize| {
        Gguf::new(1, 0).tensor("a.weight", dims, ggml_type, offset).pad(32).bytes(vec![0; data]).0
    };
    let two = |names: [&str; 2], offset: u64, data: usize| {
        Gguf::new(2, 0)
            .tensor(names[0], &[8], F32, 0)
            .tensor(names[1], &[8], F32, offset)
            .pad(32)
            .bytes(vec![0; data])
            .0
    };
    let nested = |levels: usize| {
        let array = key(9);
        (0..levels).fold(array, |gguf, _| gguf.u32(9).u64(1)).u32(0).u64(0).0
    };
    let aligned = |alignment: u32| Gguf::new(0, 1).key_u32("general.alignment", alignment).0;

    let cases = [
        Case::invalid("empty file", vec![], "does not begin with `GGUF`"),
        Case::invalid("12 bad magic", b"GGUG\x03\0\0\0".to_vec(), "does not begin with `GGUF`"),
        Case::invalid("gg-4bytes", b"GGUF".to_vec(), "`version` takes 4 bytes, only 0 follow"),
        Case::unsupported("12 version 0", header(0), "GGUF version 0"),
        Case::unsupported("12 version 1", header(1), "GGUF version 1"),
        Case::unsupported("12 version 4", header(4), "GGUF version 4, expected 2 or 3"),
        Case::unsupported("12 version big-endian", header(3 << 24), "(big-endian)"),
        Case::invalid("12 no counts", Gguf(b"GGUF".to_vec()).u32(3).0, "`tensors` takes 8 bytes"),
        Case::invalid(
            "gg-nt: -1",
            Gguf::new(u64::MAX, 0).0,
            "18446744073709551615 `tensors`, expected at most 100000",
        ),
        Case::invalid("gg-nt: 2^61", Gguf::new(1 << 61, 0).0, "2305843009213693952 `tensors`"),
        Case::invalid("gg-nt: more than fit", Gguf::new(100, 0).0, "100 of `tensors` do not fit the 8 bytes"),
        Case::invalid("gg-nkv: -1", Gguf::new(0, u64::MAX).0, "18446744073709551615 `metadata keys`"),
        Case::invalid(
            "gg-nkv: allocation wraps",
            Gguf::new(0, u64::MAX / 48 - 1).0,
            "`metadata keys`, expected at most",
        ),
        Case::invalid(
            "gg-nkv: more than fit",
            Gguf::new(0, 16_384).0,
            "16384 of `metadata keys` do not fit the 0 bytes",
        ),
        Case::invalid(
            "12 key size -1",
            Gguf::new(0, 1).u64(u64::MAX).bytes([0; 32]).0,
            "`metadata key` takes 18446744073709551615 bytes",
        ),
        Case::invalid(
            "gg-str: key of 2^32",
            Gguf::new(0, 1).u64(1 << 32).bytes([0; 32]).0,
            "`metadata key` takes 4294967296 bytes",
        ),
        Case::invalid(
            "gg-str: value of 2^64-1",
            key(8).u64(u64::MAX).0,
            "`some.key` takes 18446744073709551615 bytes",
        ),
        Case::invalid("gg-str: not UTF-8", key(8).string(b"\xFF").0, "`some.key` is not UTF-8"),
        Case::invalid("12 empty key", Gguf::new(0, 1).key("", 4).u32(1).0, "metadata key: name of 0 bytes"),
        Case::invalid(
            "12 key of 65536 bytes",
            Gguf::new(0, 1).key("k".repeat(65_536), 4).u32(1).0,
            "metadata key: name of 65536 bytes",
        ),
        Case::invalid(
            "12 key with NUL",
            Gguf::new(0, 1).key("k\0", 4).u32(1).0,
            "name `k\\0` with control characters",
        ),
        Case::invalid(
            "12 key not UTF-8",
            Gguf::new(0, 1).key(b"\xC3", 4).u32(1).0,
            "`metadata key` is not UTF-8",
        ),
        Case::invalid("12 bad type", key(13).u32(1).0, "`some.key`: value type 13"),
        Case::invalid("12 bad array type", key(9).u32(255).u64(1).0, "`some.key`: value type 255"),
        Case::invalid("12 bool of 2", key(7).bytes([2]).0, "`some.key`: bool of 2"),
        Case::invalid(
            "12 bool of 2 in an array",
            key(9).u32(7).u64(3).bytes([0, 1, 2]).0,
            "`some.key`: bool of 2",
        ),
        Case::invalid("12 value cut off", key(10).u32(1).0, "`some.key` takes 8 bytes, only 4 follow"),
        Case::invalid(
            "gg-dupkey",
            Gguf::new(0, 2).key_u32("a.key", 1).key_u32("a.key", 2).0,
            "`a.key`: stands twice",
        ),
        Case::invalid(
            "gg-arr",
            key(9).u32(4).u64(u64::MAX / 64).0,
            "288230376151711743 of `some.key` do not fit the 0 bytes",
        ),
        Case::invalid(
            "gg-arr: strings",
            key(9).u32(8).u64(3).string("a").0,
            "3 of `some.key` do not fit the 9 bytes",
        ),
        Case::invalid("13 gg-nest: 5 levels", nested(5), "`some.key`: arrays nest deeper than 4"),
        Case::invalid("13 gg-nest: 65 levels", nested(65), "`some.key`: arrays nest deeper than 4"),
        Case::invalid("13 gg-nest: 200 000 levels", nested(200_000), "`some.key`: arrays nest deeper than 4"),
        Case::invalid(
            "gg-align0",
            aligned(0),
            "`general.alignment`: u32 0, expected an integer from 8 to 65536",
        ),
        Case::invalid("gg-align0: 4", aligned(4), "`general.alignment`: u32 4"),
        Case::invalid(
            "gg-align0: 13",
            aligned(13),
            "`general.alignment`: u32 13, expected a u32 that is a power of two",
        ),
        Case::invalid("gg-align0: 2^31", aligned(1 << 31), "`general.alignment`: u32 2147483648"),
        Case::invalid(
            "gg-align0: i32",
            Gguf::new(0, 1).key("general.alignment", 5).u32(32).0,
            "`general.alignment`: i32 32",
        ),
        Case::invalid(
            "gg-align0: string",
            Gguf::new(0, 1).key_string("general.alignment", "32").0,
            "`general.alignment`: string `32`",
        ),
        Case::invalid(
            "gg-align0: inconsistent",
            Gguf::new(2, 1)
                .key_u32("general.alignment", 64)
                .tensor("a", &[8], F32, 0)
                .tensor("b", &[8], F32, 32)
                .pad(64)
                .bytes([0; 128])
                .0,
            "tensor `b`: starts at byte 32 of the data, expected a multiple of 64",
        ),
        Case::invalid(
            "gg-ndims: 0",
            Gguf::new(1, 0).tensor("a.weight", &[], F32, 0).bytes([0; 64]).0,
            "`a.weight`: 0 dimensions",
        ),
        Case::invalid(
            "gg-ndims: 5",
            tensor(&[1; 5], F32, 0, 32),
            "`a.weight`: 5 dimensions, expected 1 to 4",
        ),
        Case::invalid("gg-ndims: 9", tensor(&[1; 9], F32, 0, 32), "`a.weight`: 9 dimensions"),
        Case::invalid(
            "gg-ndims: -1",
            Gguf::new(1, 0).string("a.weight").u32(u32::MAX).bytes([0; 64]).0,
            "`a.weight`: 4294967295 dimensions",
        ),
        Case::invalid("12 dimension 0", tensor(&[32, 0], F32, 0, 32), "`a.weight`: a dimension of 0"),
        Case::invalid("12 dimension -1", tensor(&[u64::MAX, 2], F32, 0, 32), "overflows"),
        Case::invalid(
            "gg-shape: 2^40 by 2^40",
            tensor(&[1 << 40, 1 << 40], F32, 0, 32),
            "`a.weight`: shape [1099511627776, 1099511627776] overflows",
        ),
        Case::invalid("gg-shape: bytes wrap", tensor(&[(1 << 42) + 1, 1 << 20], F32, 0, 32), "overflows"),
        Case::invalid(
            "gg-shape: sum wraps",
            Gguf::new(2, 0)
                .tensor("a", &[(1 << 63) - 64], I8, 0)
                .tensor("b", &[(1 << 63) - 64], I8, (1 << 63) - 64)
                .pad(32)
                .0,
            "tensor `a`: ends at byte 9223372036854775744 of the data, which is cut off",
        ),
        Case::invalid(
            "12 rows of broken blocks",
            tensor(&[48, 2], 2, 0, 64),
            "rows of 48 elements, expected whole Q4_0 blocks",
        ),
        Case::invalid(
            "gg-offset: 2^64-32",
            tensor(&[8], F32, u64::MAX - 31, 32),
            "`a.weight`: 32 bytes from 18446744073709551584 overflow",
        ),
        Case::invalid(
            "gg-offset: not aligned",
            tensor(&[8], F32, 4, 36),
            "starts at byte 4 of the data, expected a multiple of 32",
        ),
        Case::invalid("gg-offset: hole", tensor(&[8], F32, 32, 64), "leaves a hole"),
        Case::invalid("gg-offset: two at one", two(["a", "b"], 0, 32), "overlaps another"),
        Case::invalid(
            "gg-offset: one byte short",
            tensor(&[8], F32, 0, 31),
            "`a.weight`: ends at byte 32 of the data, which is cut off after 31",
        ),
        Case::invalid("12 no data", Gguf::new(1, 0).tensor("a.weight", &[8], F32, 0).0, "cut off after 0"),
        Case::invalid("12 trailing data", tensor(&[8], F32, 0, 64), "32 bytes follow the last tensor"),
        Case::invalid("gg-dupkey: tensor", two(["a", "a"], 32, 64), "tensor `a`: named twice"),
        Case::invalid(
            "12 name not UTF-8",
            Gguf::new(1, 0).tensor(b"\xFF", &[8], F32, 0).pad(32).bytes([0; 32]).0,
            "`tensor name` is not UTF-8",
        ),
        Case::invalid(
            "12 name of 1025 bytes",
            Gguf::new(1, 0).tensor("n".repeat(1025), &[8], F32, 0).pad(32).bytes([0; 32]).0,
            "name of 1025 bytes",
        ),
        Case::unsupported(
            "gg-types: 255",
            tensor(&[8], 255, 0, 32),
            "`a.weight`: GGML type 255 is not known",
        ),
        Case::unsupported(
            "gg-types: withdrawn",
            tensor(&[32], 4, 0, 32),
            "`a.weight`: GGML type 4 is not known",
        ),
        Case::invalid(
            "gg-types: tokens of ints",
            Gguf::new(0, 1).key("tokenizer.ggml.tokens", 9).u32(4).u64(1).u32(1).0,
            "`tokenizer.ggml.tokens`: an array of u32, expected an array of strings",
        ),
        Case::invalid(
            "14 scores as u8",
            Gguf::new(0, 1).key("tokenizer.ggml.scores", 9).u32(0).u64(1).bytes([1]).0,
            "`tokenizer.ggml.scores`: an array of u8, expected an array of floats",
        ),
        Case::invalid(
            "14 token_type too short",
            Gguf::new(0, 2)
                .key_strings("tokenizer.ggml.tokens", &["a", "b"])
                .key("tokenizer.ggml.token_type", 9)
                .u32(5)
                .u64(1)
                .u32(1)
                .0,
            "`tokenizer.ggml.token_type`: 1 items, expected 2",
        ),
        Case::invalid(
            "gg-tmpl: 65 KB",
            Gguf::new(0, 1).key_string("tokenizer.chat_template", &"x".repeat(65_537)).0,
            "a chat template of 65537 bytes, expected at most 65536",
        ),
        Case::unsupported(
            "29 zip",
            b"PK\x03\x04\x14\0\0\0".to_vec(),
            "pickle and zip formats are not supported",
        ),
        Case::unsupported(
            "29 pickle",
            b"\x80\x04\x95\0\0\0\0".to_vec(),
            "pickle and zip formats are not supported",
        ),
    ];
    let hparams = |name: &'static str, keys: &[(&str, u32)], says| {
        let gguf = Gguf::new(0, 1 + keys.len() as u64).key_string("general.architecture", "llama");
        let gguf = keys.iter().fold(gguf, |gguf, (key, value)| gguf.key_u32(&format!("llama.{key}"), *value));
        Case::invalid(name, gguf.0, says)
    };
    let heads = [("embedding_length", 64), ("attention.head_count", 4)];
    let contradictions = [
        hparams(
            "gg-hparams: block_count 0",
            &[("block_count", 0)],
            "`llama.block_count`: u32 0, expected an integer from 1 to 512",
        ),
        hparams("gg-hparams: block_count 513", &[("block_count", 513)], "`llama.block_count`: u32 513"),
        hparams(
            "gg-hparams: block_count 2^31",
            &[("block_count", 1 << 31)],
            "`llama.block_count`: u32 2147483648",
        ),
        hparams(
            "gg-hparams: head_count 0",
            &[("attention.head_count", 0)],
            "`llama.attention.head_count`: u32 0",
        ),
        hparams(
            "gg-hparams: head_count_kv 5",
            &[heads[1], ("attention.head_count_kv", 5)],
            "`llama.attention.head_count_kv`: u32 5, expected an integer from 1 to 4",
        ),
        hparams(
            "14 rope.dimension_count 17",
            &[heads[0], heads[1], ("rope.dimension_count", 17)],
            "`llama.rope.dimension_count`: u32 17, expected an integer from 1 to 16",
        ),
        Case::invalid(
            "gg-hparams: vocab_size",
            Gguf::new(0, 3)
                .key_string("general.architecture", "llama")
                .key_u32("llama.vocab_size", 3)
                .key_strings("tokenizer.ggml.tokens", &["a", "b"])
                .0,
            "`llama.vocab_size`: u32 3, expected an integer from 2 to 2",
        ),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("model.gguf");
    for case in cases.into_iter().chain(contradictions) {
        case.check(&file, &file);
    }
}

#[test]
fn metadata_is_typed_and_errors_name_key_value_and_type() {
    let gguf = Gguf::new(0, 12)
        .key_string("general.name", "tiny")
        .key_u32("a.count", 7)
        .key("a.small", 1)
        .bytes([0xFE])
        .key("a.long", 10)
        .u64(u64::MAX)
        .key_f32("a.eps", 1e-5)
        .key("a.double", 12)
        .bytes(0.5f64.to_le_bytes())
        .key_f32("a.nan", f32::NAN)
        .key("a.flag", 7)
        .bytes([1])
        .key_strings("a.words", &["x", "", "é"])
        .key("a.ids", 9)
        .u32(3)
        .u64(2)
        .bytes([1, 0, 0xFF, 0xFF])
        .key("a.scores", 9)
        .u32(6)
        .u64(1)
        .bytes((-1.5f32).to_le_bytes())
        .key("a.nested", 9)
        .u32(9)
        .u64(1)
        .u32(0)
        .u64(1)
        .bytes([5]);
    let package = open(&gguf.0);
    let metadata = package.gguf.as_ref().expect("it is GGUF");
    assert_eq!(metadata.keys().count(), 12);
    assert_eq!(metadata.str("general.name").expect("a string"), "tiny");
    assert_eq!(metadata.u32("a.count").expect("an integer"), 7);
    assert_eq!(metadata.f32("a.eps").expect("a float"), 1e-5);
    assert_eq!(metadata.f32("a.double").expect("a float"), 0.5);
    assert!(metadata.bool("a.flag").expect("a bool"));
    assert_eq!(metadata.strings("a.words").expect("strings"), ["x", "", "é"]);
    assert_eq!(metadata.integers("a.ids").expect("integers"), [1, -1]);
    assert_eq!(metadata.floats("a.scores").expect("floats"), [-1.5]);
    assert_eq!(metadata.opt_usize_in("a.none", 1..=2).expect("it may be missing"), None);

    let invalid = |result: antiphon_inference::error::Result<()>, says: &str| {
        expect_error(says, result, ErrorKind::Invalid, &["`tiny.gguf`: metadata", says]);
    };
    invalid(metadata.u32("a.none").map(|_| ()), "`a.none`: missing, expected an integer");
    invalid(
        metadata.u32("a.small").map(|_| ()),
        "`a.small`: i8 -2, expected an integer from 0 to 4294967295",
    );
    invalid(metadata.u32("a.long").map(|_| ()), "`a.long`: u64 18446744073709551615");
    invalid(metadata.u32("a.eps").map(|_| ()), "`a.eps`: f32 0.00001");
    invalid(
        metadata.usize_in("a.count", 8..=9).map(|_| ()),
        "`a.count`: u32 7, expected an integer from 8 to 9",
    );
    invalid(metadata.f32("a.nan").map(|_| ()), "`a.nan`: f32 NaN");
    invalid(metadata.str("a.count").map(|_| ()), "`a.count`: u32 7, expected a string");
    invalid(metadata.bool("general.name").map(|_| ()), "`general.name`: string `tiny`, expected a bool");
    invalid(metadata.u32("a.words").map(|_| ()), "`a.words`: an array, expected an integer");
    invalid(metadata.strings("a.ids").map(|_| ()), "`a.ids`: an array of i16, expected an array of strings");
    invalid(metadata.integers("a.nested").map(|_| ()), "`a.nested`: an array of array");
    invalid(metadata.floats("a.eps").map(|_| ()), "`a.eps`: f32, expected an array of floats");
}

#[test]
fn every_type_reads_as_candle_reads_it() {
    // Type number, elements and bytes of a block, and whether it can be read as numbers here.
    let types = [
        (0, 1, 4, true),
        (1, 1, 2, true),
        (30, 1, 2, true),
        (2, 32, 18, true),
        (3, 32, 20, true),
        (6, 32, 22, true),
        (7, 32, 24, true),
        (8, 32, 34, true),
        (10, 256, 84, false),
        (11, 256, 110, false),
        (12, 256, 144, true),
        (13, 256, 176, true),
        (14, 256, 210, true),
    ];
    let mut random = Random(3);
    let mut gguf = Gguf::new(types.len() as u64, 1).key_u32("general.alignment", 32);
    let mut data = Gguf(Vec::new());
    for (id, block, bytes, _) in types {
        let blocks_per_row = if block == 1 { 5 } else { 3 };
        gguf = gguf.tensor(format!("t{id}"), &[blocks_per_row * block, 2], id, data.0.len() as u64);
        data = data.bytes(random.bytes(blocks_per_row as usize * 2 * bytes)).pad(32);
    }
    let file = gguf.pad(32).bytes(data.0).0;
    let package = open(&file);
    let mut reader = Cursor::new(&file);
    let content = Content::read(&mut reader).expect("it is valid");
    for (id, block, _, is_numbers) in types {
        let name = format!("t{id}");
        let ours = package.weights.tensor(&name).expect("it was written");
        let theirs = content.tensor(&mut reader, &name, &Device::Cpu).expect("it was written");
        assert_eq!(ours.shape, theirs.shape().dims(), "{name}");
        assert_eq!(elements(ours), &*theirs.data().expect("on the CPU"), "{name}");
        assert_eq!(
            (ours.dtype.block().0, ours.dtype.block().1),
            (block as usize, theirs.dtype().type_size()),
            "{name}"
        );
        match ours.to_f32() {
            Ok(values) => {
                assert!(is_numbers, "{name}");
                let theirs = theirs
                    .dequantize(&Device::Cpu)
                    .and_then(|t| t.flatten_all())
                    .and_then(|t| t.to_vec1::<f32>());
                assert_same(&name, &values, &theirs.expect("all types are known to it"));
            }
            Err(error) => {
                assert!(!is_numbers && error.kind() == ErrorKind::Unsupported, "{name}: {error}");
                assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
            }
        }
    }
}

#[test]
fn a_shape_is_presented_outermost_first() {
    let file = Gguf::new(1, 0).tensor("a", &[32, 3, 2], 8, 0).pad(32).bytes(vec![1; 6 * 34]).pad(32).0;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("tiny.Q8_0.gguf");
    fs::write(&path, &file).expect("writable");
    let package = Package::open(&path).expect("it is valid");
    assert_eq!((package.name.as_str(), fingerprint(&package)), ("tiny.Q8_0", fingerprint(&open(&file))));
    let tensor = package.weights.expect("a", &[2, 3, 32]).expect("it has that shape");
    assert_eq!((tensor.dtype, tensor.len()), (Dtype::Q8_0, 6 * 34));
}

#[test]
fn a_large_header_is_refused_within_its_own_size_and_a_megabyte() {
    let tensors = 20_000u64;
    let gguf = (0..tensors).fold(Gguf::new(tensors, 0), |gguf, i| {
        gguf.tensor(if i + 1 == tensors { "t0".to_owned() } else { format!("t{i}") }, &[8], F32, i * 32)
    });
    let many_tensors = gguf.pad(32).bytes(vec![0; tensors as usize * 32]).0;
    let keys = 16_384u64;
    let gguf =
        (0..keys).fold(Gguf::new(0, keys), |gguf, i| gguf.key(format!("k{}", i % (keys - 1)), 0).bytes([1]));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("model.gguf");
    Case::invalid("many keys", gguf.0, "`k0`: stands twice").check(&file, &file);
    fs::write(&file, &many_tensors).expect("writable");
    let (result, peak) = crate::allocations::peak(|| Package::open(&file));
    expect_error("many tensors", result.map(|_| ()), ErrorKind::Invalid, &["`t0`: named twice"]);
    assert!(peak <= many_tensors.len() + (1 << 20), "{peak} bytes for a file of {}", many_tensors.len());
}

#[test]
fn a_header_is_read_however_long_it_is() {
    let words: Vec<String> = (0..400_000).map(|i| format!("word number {i}")).collect();
    let file = Gguf::new(1, 1)
        .key_strings("tokenizer.ggml.tokens", &words.iter().map(String::as_str).collect::<Vec<_>>())
        .tensor("a", &[8], F32, 0)
        .pad(32)
        .bytes(1.5f32.to_le_bytes().repeat(8))
        .0;
    assert!(file.len() > 9 << 20);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("long.gguf");
    fs::write(&path, &file).expect("writable");
    let package = Package::open(&path).expect("it is valid");
    let metadata = package.gguf.as_ref().expect("it is GGUF");
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").expect("they are strings"), words);
    assert_eq!(package.weights.expect("a", &[8]).and_then(|t| t.to_f32()).expect("floats"), [1.5; 8]);
    // Cut inside the header, it is refused as what it is.
    fs::write(&path, &file[..6 << 20]).expect("writable");
    expect_error("cut", Package::open(&path).map(|_| ()), ErrorKind::Invalid, &["bytes, only", "follow"]);
}

#[test]
fn mutated_files_never_panic_and_read_as_candle_reads_them() {
    let whole = Gguf::new(2, 5)
        .key_string("general.architecture", "llama")
        .key_u32("llama.block_count", 2)
        .key_strings("tokenizer.ggml.tokens", &["a", "bc"])
        .key("tokenizer.ggml.scores", 9)
        .u32(6)
        .u64(2)
        .bytes([0; 8])
        .key("x.flag", 7)
        .bytes([1])
        .tensor("a.weight", &[32, 2], 8, 0)
        .tensor("b", &[8], F32, 96)
        .pad(32)
        .bytes(vec![1; 68])
        .pad(32)
        .bytes([2; 32])
        .0;
    let mut random = Random(4);
    let mut accepted = 0;
    for _ in 0..50_000 {
        let file: &'static [u8] = random.mutate(&whole).leak();
        let Ok(package) = Package::from_bundle("tiny", &[("tiny.gguf", file)]) else { continue };
        accepted += 1;
        read_everything(package.gguf.as_ref().expect("it is GGUF"));
        let mut reader = Cursor::new(file);
        let content = Content::read(&mut reader);
        for name in package.weights.names() {
            let ours = package.weights.tensor(name).expect("it was named");
            assert_borrowed(ours, file);
            // Candle does not know every type.
            let Ok(content) = &content else { continue };
            let theirs =
                content.tensor(&mut reader, name, &Device::Cpu).expect("what we accept, others accept");
            assert_eq!(
                (ours.shape, &*elements(ours)),
                (theirs.shape().dims(), &*theirs.data().expect("on the CPU"))
            );
        }
    }
    assert!(accepted > 100, "only {accepted} were accepted: the mutations are too coarse to test anything");
}

/// Asks for every key as every type; none may panic.
fn read_everything(metadata: &GgufMetadata) {
    for key in metadata.keys() {
        let read = [
            metadata.u32(key).is_ok(),
            metadata.f32(key).is_ok(),
            metadata.bool(key).is_ok(),
            metadata.str(key).is_ok(),
            metadata.strings(key).is_ok(),
            metadata.integers(key).is_ok(),
            metadata.floats(key).is_ok(),
            metadata.bools(key).is_ok(),
        ];
        // An empty array reads as any array.
        assert!(read.iter().filter(|read| **read).count() <= 4, "{key}");
    }
}

fn open(file: &[u8]) -> Package {
    Package::from_bundle("tiny", &[("tiny.gguf", file.to_vec().leak())]).expect("it is valid")
}
