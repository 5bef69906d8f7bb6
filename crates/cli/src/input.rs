//! Texts and files that a user names: read whole, bounded, and UTF-8.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use antiphon::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

/// A text of the command line; `-` stands for standard input, without its last line break.
pub(crate) fn text(argument: String) -> Result<String> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut text = utf8(
        read("standard input", std::io::stdin().lock(), TEXT_BYTES)?,
        "standard input",
        ErrorKind::InvalidText,
    )?;
    if text.ends_with('\n') {
        text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
    }
    Ok(text)
}

/// A file as text.
pub(crate) fn file(path: &Path, limit: u64, kind: ErrorKind) -> Result<String> {
    let name = format!("file `{}`", path.display());
    let file = File::open(path)
        .map_err(|error| Error::new(ErrorKind::Io, format!("{name}: {error}, expected a readable file")))?;
    utf8(read(&name, file, limit)?, &name, kind)
}

/// A JSON file; `what` names what was expected in it.
pub(crate) fn json_file<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    parse(&file(path, TEXT_BYTES, ErrorKind::InvalidArgument)?, &format!("file `{}`", path.display()), what)
}

/// JSON; the message tells where it is wrong and never what stands there.
pub(crate) fn parse<T: DeserializeOwned>(json: &str, name: &str, what: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{name}: line {line}, column {column}: expected {what}"),
        )
    })
}

fn read(name: &str, source: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Io, format!("{name}: {error}, expected a readable file")))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(
            ErrorKind::InputTooLong,
            format!("{name}: expected at most {limit} bytes, there are more"),
        ));
    }
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>, name: &str, kind: ErrorKind) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::new(kind, format!("{name}: byte {at} begins no UTF-8 sequence, expected UTF-8 text"))
    })
}

/// Most bytes of a text and of a file with chat turns.
pub(crate) const TEXT_BYTES: u64 = 16 << 20;
/// Most bytes of a file of lines.
pub(crate) const LINES_BYTES: u64 = 1 << 30;
/// Most bytes of a configuration.
pub(crate) const CONFIG_BYTES: u64 = 1 << 20;
