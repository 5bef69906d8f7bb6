//! Weights of formats that run code or unpack themselves when they are read: refused by name and by content.

use crate::error::{Error, ErrorKind, Result, quote};

/// Refuses bytes that begin like a zip, pickle, NumPy, HDF5 or gzip file.
pub(crate) fn refuse(file: &str, bytes: &[u8]) -> Result<()> {
    // A pickle begins with its protocol, 2 to 5. The first length of a safetensors file can look the same, so callers
    // come here only after that reading has failed.
    let is_pickle = matches!(bytes, [0x80, 2..=5, ..]);
    if is_pickle || MAGICS.iter().any(|magic| bytes.starts_with(magic)) {
        Err(unsupported(file))
    } else {
        Ok(())
    }
}

/// Whether a file of this name holds weights that are not read.
pub(crate) fn is_foreign_name(file: &str) -> bool {
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

pub(crate) fn unsupported(file: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{}: pickle and zip formats are not supported, convert to safetensors", quote(file)),
    )
}

/// Bytes at the start of a file that are enough to see what it is.
pub(crate) const START_BYTES: u64 = 64;
const MAGICS: &[&[u8]] = &[b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"\x89HDF", b"\x1f\x8b"];
const EXTENSIONS: &[&str] =
    &["bin", "pt", "pth", "pkl", "pickle", "ckpt", "npy", "npz", "zip", "keras", "h5"];
