//! `format::safetensors`: the faults of FAULTS 1 to 11 and the recipes of its section 3.1, and candle as oracle.

use std::fs;
use std::path::Path;

use antiphon_inference::error::ErrorKind;
use antiphon_inference::format::{Dtype, Package};
use candle_core::{DType, Device};

use crate::build::{
    Case, Random, assert_borrowed, assert_same, elements, entry, expect_error, f32_tensors, safetensors,
};

#[test]
fn malformed_files_are_refused_by_name() {
    let header = |entries: &[String]| format!("{{{}}}", entries.join(","));
    let one = |dtype: &str, shape: &str, start, end| header(&[entry("a.weight", dtype, shape, start, end)]);
    let length = |length: u64, rest: &[u8]| [&length.to_le_bytes(), rest].concat();
    let two = |b: (u64, u64), data: usize| {
        let entries = [entry("a", "F32", "2", 0, 8), entry("b", "F32", "2", b.0, b.1)];
        safetensors(header(&entries), &vec![0; data])
    };
    let whole = safetensors(one("F32", "2,2", 0, 16), &[0; 16]);
    let shared: Vec<String> = (0..1000).map(|i| entry(&format!("weight_{i}"), "F32", "2", 0, 8)).collect();
    let empty: Vec<String> = (0..=100_000).map(|i| entry(&format!("w{i}"), "F32", "0", 0, 0)).collect();
    let step = (1 << 61) - 1;
    let wrapping: Vec<String> = (0..8)
        .map(|i| entry(&format!("w{i}"), "F4", &(2 * step).to_string(), i * step, (i + 1) * step))
        .collect();
    let zip = b"PK\x05\x06".iter().chain(&[0; 18]).copied().collect::<Vec<u8>>();

    let cases = [
        Case::invalid("1 empty file", vec![], "0 bytes, a header needs at least 8"),
        Case::invalid("1 st-len: 7 bytes", vec![1; 7], "7 bytes, a header needs at least 8"),
        Case::invalid("2 st-len: 2^63", length(1 << 63, b"{}"), "a header of 9223372036854775808 bytes"),
        Case::invalid("2 st-len: 100 000 001", length(100_000_001, b"{}"), "a header of 100000001 bytes"),
        Case::invalid("2 st-len: file + 1", length(3, b"{}"), "a header of 3 bytes, but only 2 follow"),
        Case::invalid("2 st-len: 0", length(0, b"{}"), "a header of 0 bytes that is not a JSON object"),
        Case::invalid(
            "3 header of spaces",
            safetensors(vec![b' '; (16 << 20) + 1], &[]),
            "expected at most 16777216",
        ),
        Case::invalid(
            "3 st-bloat",
            safetensors(header(&empty), &[]),
            "100001 tensors, expected at most 100000",
        ),
        Case::invalid("3 st-10M", safetensors(header(&shared), &[0; 8]), "overlaps another"),
        Case::invalid("4 invalid UTF-8", safetensors(b"{\"a\xFF\":1}", &[]), "invalid UTF-8 after byte 3"),
        Case::invalid("4 not an object", safetensors("[1]", &[]), "not a JSON object"),
        Case::invalid("4 cut JSON", safetensors(r#"{"a":"#, &[]), "EOF while parsing"),
        Case::invalid("4 text after the object", safetensors("{} {}", &[]), "trailing characters"),
        Case::invalid(
            "4 deep arrays",
            safetensors(format!("{{\"a\":{}", "[".repeat(200_000)), &[]),
            "nests deeper than 64",
        ),
        Case::invalid("4 deep objects", safetensors("{\"a\":".repeat(200_000), &[]), "nests deeper than 64"),
        Case::invalid(
            "5 st-wrap",
            safetensors(one("F32", "4194305,4194305,211106198978564", 0, 16), &[0; 16]),
            "`a.weight`: shape [4194305, 4194305, 211106198978564] overflows",
        ),
        Case::invalid(
            "5 bytes wrap",
            safetensors(one("F64", "2305843009213693952", 0, 0), &[]),
            "`a.weight`: shape",
        ),
        Case::invalid(
            "6 st-addwrap",
            safetensors(header(&wrapping), &[]),
            "`w0`: ends at byte 2305843009213693951",
        ),
        Case::invalid("7 overlap", two((4, 12), 12), "tensor `b`: overlaps another"),
        Case::invalid("7 hole", two((12, 20), 20), "tensor `b`: leaves a hole"),
        Case::invalid("7 hole at the start", safetensors(one("F32", "1", 4, 8), &[0; 8]), "leaves a hole"),
        Case::invalid("7 end before start", two((16, 8), 16), "tensor `b`: data from 16 to 8"),
        Case::invalid("7 trailing bytes", two((8, 16), 17), "1 bytes follow the last tensor"),
        Case::invalid(
            "7 st-short: one byte",
            two((8, 16), 15),
            "tensor `b`: ends at byte 16 of the data, which is cut off",
        ),
        Case::invalid(
            "7 st-short: 4096 bytes",
            safetensors(one("U8", "8192", 0, 8192), &[0; 4096]),
            "`a.weight`: ends at byte 8192 of the data, which is cut off after 4096",
        ),
        Case::invalid("7 st-poly", [whole.as_slice(), &zip].concat(), "22 bytes follow the last tensor"),
        Case::invalid(
            "8 st-dup: name",
            safetensors(header(&[entry("a", "U8", "1", 0, 1), entry("a", "U8", "1", 1, 2)]), &[0; 2]),
            "`a`: named twice",
        ),
        Case::invalid(
            "8 st-dup: escaped name",
            safetensors(header(&[entry("a", "U8", "1", 0, 1), entry("\\u0061", "U8", "1", 1, 2)]), &[0; 2]),
            "`a`: named twice",
        ),
        Case::invalid(
            "8 st-dup: metadata",
            safetensors(r#"{"__metadata__":{},"__metadata__":{}}"#, &[]),
            "duplicate key `__metadata__`",
        ),
        Case::invalid(
            "8 st-dup: metadata as tensor",
            safetensors(header(&[entry("__metadata__", "U8", "1", 0, 1)]), &[0]),
            "expected a string",
        ),
        Case::invalid(
            "8 st-dup: key in metadata",
            safetensors(r#"{"__metadata__":{"a":"","a":""}}"#, &[]),
            "duplicate key `a`",
        ),
        Case::invalid(
            "8 st-dup: field",
            safetensors(r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, &[0]),
            "tensor `a`: duplicate field `dtype`",
        ),
        Case::invalid(
            "9 st-dtype: unknown",
            safetensors(one("NOTADTYPE", "1", 0, 1), &[0]),
            "`a.weight`: dtype `NOTADTYPE`",
        ),
        Case::invalid(
            "9 st-dtype: half a byte",
            safetensors(one("F4", "3", 0, 1), &[0]),
            "not a whole number of F4 blocks",
        ),
        Case::invalid(
            "9 dtype and offsets",
            safetensors(one("F32", "2", 0, 4), &[0; 4]),
            "[2] F32 takes 8 bytes, data from 0 to 4 has 4",
        ),
        Case::invalid(
            "9 negative size",
            safetensors(one("F32", "-1", 0, 4), &[0; 4]),
            "tensor `a.weight`: invalid value: integer `-1`",
        ),
        Case::invalid(
            "9 float size",
            safetensors(one("F32", "1.0", 0, 4), &[0; 4]),
            "tensor `a.weight`: invalid type",
        ),
        Case::invalid(
            "9 size beyond 64 bits",
            safetensors(one("U8", "18446744073709551616", 0, 1), &[0]),
            "tensor `a.weight`: invalid type",
        ),
        Case::invalid(
            "9 nine sizes",
            safetensors(one("U8", "1,1,1,1,1,1,1,1,1", 0, 1), &[0]),
            "a shape of at most 8 sizes",
        ),
        Case::invalid(
            "9 three offsets",
            safetensors(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}"#, &[0]),
            "tensor `a`: ",
        ),
        Case::invalid(
            "9 unknown field",
            safetensors(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":1}}"#, &[0]),
            "tensor `a`: unknown field `extra`",
        ),
        Case::invalid(
            "9 missing field",
            safetensors(r#"{"a":{"dtype":"U8","shape":[1]}}"#, &[0]),
            "missing field `data_offsets`",
        ),
        Case::invalid(
            "9 fields as an array",
            safetensors(r#"{"a":["U8",[1],[0,1]]}"#, &[0]),
            "expected an object with dtype",
        ),
        Case::invalid(
            "9 empty name",
            safetensors(header(&[entry("", "U8", "1", 0, 1)]), &[0]),
            "name of 0 bytes",
        ),
        Case::invalid(
            "9 name with NUL",
            safetensors(header(&[entry("a\\u0000", "U8", "1", 0, 1)]), &[0]),
            "name `a\\0` with control characters",
        ),
        Case::invalid(
            "9 name of 1025 bytes",
            safetensors(header(&[entry(&"n".repeat(1025), "U8", "1", 0, 1)]), &[0]),
            "name of 1025 bytes",
        ),
        Case::unsupported(
            "29 pickle",
            b"\x80\x02cposix\nsystem\nq\x00X\x06\x00\x00\x00canaryq\x01\x85q\x02Rq\x03.".to_vec(),
            "pickle and zip formats are not supported, convert to safetensors",
        ),
        Case::unsupported(
            "29 zip",
            b"PK\x03\x04\x14\x00\x00\x00\x08\x00archive/data.pkl".to_vec(),
            "pickle and zip",
        ),
        Case::unsupported("29 npy", b"\x93NUMPY\x01\x00\x76\x00{'descr'".to_vec(), "pickle and zip"),
        Case::unsupported("29 keras (HDF5)", b"\x89HDF\r\n\x1a\n\x00\x00\x00\x00".to_vec(), "pickle and zip"),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("config.json"), "{}").expect("writable");
    for case in cases {
        case.check(&directory.path().join("model.safetensors"), directory.path());
    }
    assert!(!Path::new("canary").exists());
}

#[test]
fn a_large_header_is_refused_within_its_own_size_and_a_megabyte() {
    // As many tensors as are accepted, wrong only in the last: everything was read before it is found.
    let mut entries: Vec<String> =
        (0..99_999).map(|i| entry(&format!("w{i}"), "U8", "1", i, i + 1)).collect();
    entries.push(entry("w0", "U8", "1", 99_999, 100_000));
    let file = safetensors(format!("{{{}}}", entries.join(",")), &[0; 100_000]);
    let file: &'static [u8] = file.leak();
    let (result, peak) = crate::allocations::peak(|| {
        Package::from_bundle("m", &[("config.json", b"{}"), ("model.safetensors", file)])
    });
    expect_error(
        "duplicate",
        result.map(|_| ()),
        ErrorKind::Invalid,
        &["model.safetensors", "`w0`: named twice"],
    );
    assert!(peak <= file.len() + (1 << 20), "{peak} bytes for a file of {}", file.len());
}

#[test]
fn valid_files_read_as_candle_reads_them() {
    let mut random = Random(1);
    let types =
        [("F64", 8, DType::F64), ("F32", 4, DType::F32), ("F16", 2, DType::F16), ("BF16", 2, DType::BF16)];
    let (mut entries, mut data) = (vec![r#""__metadata__":{"format":"pt"}"#.to_owned()], Vec::new());
    for (dtype, bytes, _) in types {
        for (shape, elements) in [("", 1), ("0", 0), ("7", 7), ("3,5", 15), ("2,1,3,1", 6)] {
            let start = data.len() as u64;
            data.extend(random.bytes(elements * bytes));
            entries.push(entry(&format!("{dtype}.{shape}"), dtype, shape, start, data.len() as u64));
        }
    }
    let file: &'static [u8] = safetensors(format!("{{{}}}   ", entries.join(",")), &data).leak();
    let package = Package::from_bundle("m", &[("config.json", b"{}"), ("model.safetensors", file)])
        .expect("it is valid");
    let oracle = candle_core::safetensors::load_buffer(file, &Device::Cpu).expect("it is valid");
    assert_eq!(package.weights.names().count(), oracle.len());
    for name in package.weights.names() {
        let (ours, theirs) = (package.weights.tensor(name).expect("it was named"), &oracle[name]);
        assert_eq!(ours.shape, theirs.dims(), "{name}");
        let theirs = theirs.to_dtype(DType::F32).expect("a float").flatten_all().expect("any shape");
        let theirs = theirs.to_vec1::<f32>().expect("one dimension");
        assert_same(name, &ours.to_f32().expect("a float"), &theirs);
    }
}

#[test]
fn other_types_are_views_that_cannot_be_read_as_numbers() {
    let entries =
        [entry("i", "I64", "2", 0, 16), entry("b", "BOOL", "3", 16, 19), entry("f", "F8_E4M3", "1", 19, 20)];
    let file: &'static [u8] = safetensors(format!("{{{}}}", entries.join(",")), &[1; 20]).leak();
    let package = Package::from_bundle("m", &[("config.json", b"{}"), ("model.safetensors", file)])
        .expect("it is valid");
    let tensor = package.weights.tensor("i").expect("it is there");
    assert_eq!((tensor.dtype, tensor.shape, elements(tensor)), (Dtype::I64, &[2][..], vec![1; 16]));
    assert_eq!(elements(package.weights.tensor("b").expect("it is there")), [1; 3]);
    expect_error("I64", tensor.to_f32(), ErrorKind::Unsupported, &["`i`", "I64"]);
}

#[test]
fn a_missing_or_misshapen_tensor_is_named_with_both_shapes() {
    let file: &'static [u8] = f32_tensors(&[("layers.3.mlp.up_proj.weight", "2,3", &[f32::NAN; 6])]).leak();
    let package = Package::from_bundle("m", &[("config.json", b"{}"), ("model.safetensors", file)])
        .expect("it is valid");
    let name = "layers.3.mlp.up_proj.weight";
    let misshapen = package.weights.expect(name, &[2, 4]).map(|_| ());
    expect_error(
        "9",
        misshapen,
        ErrorKind::Invalid,
        &["`layers.3.mlp.up_proj.weight`: expected [2, 4], file has [2, 3] F32"],
    );
    expect_error(
        "9",
        package.weights.expect("x", &[1]).map(|_| ()),
        ErrorKind::Invalid,
        &["`x`: missing, expected [1]"],
    );
    // 10: what is not a number loads; it is the sampler that refuses it.
    let values =
        package.weights.expect(name, &[2, 3]).and_then(|tensor| tensor.to_f32()).expect("it is valid");
    assert!(values.iter().all(|value| value.is_nan()));
}

#[test]
fn mutated_files_never_panic_and_never_show_bytes_outside() {
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let whole = f32_tensors(&[
        ("embed.weight", "4,3", &values[..12]),
        ("norm", "4", &values[..4]),
        ("b", "2,4", &values[..8]),
    ]);
    let mut random = Random(2);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let file: &'static [u8] = random.mutate(&whole).leak();
        let Ok(package) = Package::from_bundle("m", &[("config.json", b"{}"), ("model.safetensors", file)])
        else {
            continue;
        };
        accepted += 1;
        let oracle =
            candle_core::safetensors::SliceSafetensors::new(file).expect("what we accept, others accept");
        let views = oracle.tensors();
        assert_eq!(package.weights.names().count(), views.len());
        for (name, theirs) in views {
            let ours = package.weights.tensor(&name).expect("both have the same names");
            assert_borrowed(ours, file);
            assert_eq!((ours.shape, &*elements(ours)), (theirs.shape(), theirs.data()));
        }
    }
    assert!(accepted > 100, "only {accepted} were accepted: the mutations are too coarse to test anything");
}
