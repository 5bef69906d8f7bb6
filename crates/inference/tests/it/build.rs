//! Builds model files byte by byte, whole ones and malformed ones.

use std::path::Path;

use antiphon_inference::error::{ErrorKind, Result};
use antiphon_inference::format::{Package, TensorView};

use crate::allocations;

/// A file that has to be refused.
pub(crate) struct Case {
    /// The number or recipe of the fault it stands for.
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: ErrorKind,
    /// What the message has to name.
    pub(crate) says: &'static str,
}

impl Case {
    pub(crate) fn invalid(name: &'static str, bytes: Vec<u8>, says: &'static str) -> Self {
        Self { name, bytes, kind: ErrorKind::Invalid, says }
    }

    pub(crate) fn unsupported(name: &'static str, bytes: Vec<u8>, says: &'static str) -> Self {
        Self { name, bytes, kind: ErrorKind::Unsupported, says }
    }

    /// Writes the file to `file` and opens `model`: the error has the kind and names file and fault, and before it came no
    /// more was allocated than the files hold and one megabyte.
    pub(crate) fn check(&self, file: &Path, model: &Path) {
        std::fs::write(file, &self.bytes).expect("the test's directory is writable");
        let (result, peak) = allocations::peak(|| Package::open(model));
        let name = file.file_name().expect("a file").to_string_lossy();
        expect_error(self.name, result, self.kind, &[&name, self.says]);
        let most = self.bytes.len() + (1 << 20);
        assert!(peak <= most, "{}: {peak} bytes allocated, expected at most {most}", self.name);
    }
}

/// Asserts kind and words of an error.
pub(crate) fn expect_error<T>(case: &str, result: Result<T>, kind: ErrorKind, says: &[&str]) {
    let error = match result {
        Ok(_) => panic!("{case}: accepted"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), kind, "{case}: {error}");
    for word in says {
        assert!(error.to_string().contains(word), "{case}: `{error}` does not say `{word}`");
    }
    assert!(error.to_string().len() < 1000, "{case}: a message of {} bytes", error.to_string().len());
}

/// The same bits, or both not a number.
pub(crate) fn assert_same(name: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{name}[{at}]: {a} and {b}");
    }
}

/// A safetensors file with this header and data.
pub(crate) fn safetensors(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A header's entry.
pub(crate) fn entry(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
}

/// Tensors of `f32`, one after the other, as a safetensors file.
pub(crate) fn f32_tensors(tensors: &[(&str, &str, &[f32])]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len() as u64;
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        entries.push(entry(name, "F32", shape, start, data.len() as u64));
    }
    safetensors(format!("{{{}}}", entries.join(",")), &data)
}

/// Writes GGUF piece by piece.
pub(crate) struct Gguf(pub(crate) Vec<u8>);

impl Gguf {
    pub(crate) fn new(tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    pub(crate) fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(value.to_le_bytes())
    }

    pub(crate) fn string(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.u64(text.len() as u64).bytes(text)
    }

    /// A key and its value's type; the value is to follow.
    pub(crate) fn key(self, key: impl AsRef<[u8]>, value_type: u32) -> Self {
        self.string(key).u32(value_type)
    }

    pub(crate) fn key_u32(self, key: &str, value: u32) -> Self {
        self.key(key, 4).u32(value)
    }

    pub(crate) fn key_f32(self, key: &str, value: f32) -> Self {
        self.key(key, 6).bytes(value.to_le_bytes())
    }

    pub(crate) fn key_string(self, key: &str, value: &str) -> Self {
        self.key(key, 8).string(value)
    }

    /// A key and an array of strings.
    pub(crate) fn key_strings(self, key: &str, values: &[&str]) -> Self {
        let array = self.key(key, 9).u32(8).u64(values.len() as u64);
        values.iter().fold(array, |gguf, value| gguf.string(value))
    }

    /// A tensor info; dims innermost first, as the file has them.
    pub(crate) fn tensor(self, name: impl AsRef<[u8]>, dims: &[u64], ggml_type: u32, offset: u64) -> Self {
        let info = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(info, |gguf, dim| gguf.u64(*dim)).u32(ggml_type).u64(offset)
    }

    /// Fills up to a multiple of `alignment`.
    pub(crate) fn pad(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }
}

/// Numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// `bytes` with a few of them changed, cut off, doubled or put elsewhere.
    pub(crate) fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut mutated = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(mutated.len());
            match self.below(8) {
                0 => mutated[at] = self.next() as u8,
                1 => mutated[at] = [0, 1, 0x7F, 0x80, 0xFF][self.below(5)],
                2 => mutated[at] ^= 1 << self.below(8),
                // Digits, brackets and commas of JSON headers.
                3 => mutated[at] = b"0123456789-.eE\"{}[],: "[self.below(22)],
                4 => mutated.truncate(at.max(1)),
                5 => mutated.insert(at, self.next() as u8),
                6 => drop(mutated.remove(at)),
                _ => {
                    let len = self.below(16).min(mutated.len() - at);
                    let to = self.below(mutated.len() - len + 1);
                    mutated.copy_within(at..at + len, to);
                }
            }
            if mutated.is_empty() {
                break;
            }
        }
        mutated
    }
}

/// A tensor's elements, read in pieces of an odd size.
pub(crate) fn elements(tensor: TensorView<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    let taken = tensor.pieces(7, |piece| {
        all.extend_from_slice(piece);
        Ok(())
    });
    taken.expect("they can be read");
    assert_eq!(all.len(), tensor.len());
    all
}

/// The elements are those of this file in memory, not a copy.
pub(crate) fn assert_borrowed(tensor: TensorView<'_>, file: &[u8]) {
    let borrowed = tensor.pieces(usize::MAX, |piece| {
        assert!(file.as_ptr_range().start <= piece.as_ptr_range().start);
        assert!(piece.as_ptr_range().end <= file.as_ptr_range().end);
        Ok(())
    });
    borrowed.expect("they are in memory");
}

pub(crate) fn fingerprint(package: &Package) -> String {
    package.fingerprint().expect("its files can be read").to_owned()
}
