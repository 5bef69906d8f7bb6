//! The GGUF container: magic, version, counts, metadata, tensor infos, padding, data. Versions 2 and 3, little-endian.
//!
//! Strings and arrays stay where they are in the file; the reader walks over them once and keeps places.

use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::files::Content;
use crate::format::foreign;
use crate::format::gguf_metadata::{Entry, GgufMetadata, ValueType};
use crate::format::weights::{Capacity, Shard, Table, check_name};
use crate::format::{Bytes, Dtype};

/// Reads a file's header and checks every claim in it against the file's length.
pub(crate) fn read(file: &str, content: Content) -> Result<(GgufMetadata, Shard)> {
    check_start(file, &content.start(foreign::START_BYTES)?, content.len())?;
    // Nothing says how long a header is before it is read.
    let mut wanted = FIRST_BYTES;
    loop {
        let start = content.start(wanted as u64)?;
        let mut cursor =
            Cursor { file, bytes: &start, len: content.len() as usize, position: MAGIC.len(), wanted: 0 };
        match header(&mut cursor, &start) {
            Err(_) if cursor.wanted > start.len() => wanted = cursor.wanted.max(4 * wanted),
            Err(error) => return Err(error),
            Ok((metadata, table)) => return Ok((metadata, Shard::new(file, &start, content, table))),
        }
    }
}

fn header(cursor: &mut Cursor<'_>, start: &Bytes) -> Result<(GgufMetadata, Table)> {
    let (file, len) = (cursor.file, cursor.len);
    match cursor.u32("version")? {
        2 | 3 => {}
        version => {
            let order = if version.swap_bytes() <= 3 { " (big-endian)" } else { "" };
            let message =
                format!("{}: GGUF version {version}{order}, expected 2 or 3, little-endian", quote(file));
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    }
    let tensors = cursor.count("tensors", MIN_TENSOR_INFO_BYTES, MAX_TENSORS)?;
    let keys = cursor.count("metadata keys", MIN_ENTRY_BYTES, MAX_KEYS)?;

    let mut entries = Vec::with_capacity(keys);
    for _ in 0..keys {
        entries.push(entry(cursor)?);
    }
    let metadata = GgufMetadata::new(file, start.clone(), entries)?;
    let alignment = alignment(&metadata)?;

    let infos_start = cursor.position;
    let mut capacity = Capacity { tensors, ..Capacity::default() };
    for _ in 0..tensors {
        let info = tensor_info(cursor)?;
        capacity.name_bytes += info.name.len();
        capacity.dims += info.dims;
    }
    let infos_end = std::mem::replace(&mut cursor.position, infos_start);
    let data_start = infos_end.next_multiple_of(alignment).min(len);
    cursor.hold(data_start)?;
    let mut table = Table::with_capacity(capacity);
    for _ in 0..tensors {
        let TensorInfo { name, shape, dims, dtype, offset } = tensor_info(cursor)?;
        let shape = &shape[..dims];
        let fail = |what: String| Error::invalid(format!("{}: tensor {}: {what}", quote(file), quote(name)));
        // Blocks do not reach over the end of a row.
        if !shape[dims - 1].is_multiple_of(dtype.block().0) {
            return Err(fail(format!("rows of {} elements, expected whole {dtype} blocks", shape[dims - 1])));
        }
        if !offset.is_multiple_of(alignment) {
            return Err(fail(format!(
                "starts at byte {offset} of the data, expected a multiple of {alignment}"
            )));
        }
        let size = Table::bytes(dtype, shape).map_err(fail)?;
        let end =
            offset.checked_add(size).ok_or_else(|| fail(format!("{size} bytes from {offset} overflow")))?;
        table.push(name, dtype, shape, offset, end).map_err(fail)?;
    }
    let table = table.finish(file, data_start, len - data_start, alignment)?;
    metadata.check()?;
    Ok((metadata, table))
}

/// Refuses a file by its first bytes; what looks like another format is named.
pub(crate) fn check_start(file: &str, start: &[u8], _len: u64) -> Result<()> {
    if start.starts_with(MAGIC) {
        return Ok(());
    }
    foreign::refuse(file, start)?;
    Err(Error::invalid(format!("{}: does not begin with `GGUF`", quote(file))))
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Entry> {
    let key = cursor.string("metadata key")?;
    check_name(key, MAX_KEY_BYTES).map_err(|what| cursor.fail(format!("metadata key: {what}")))?;
    let key_end = cursor.position;
    let value_type = cursor.value_type(key)?;
    let entry = Entry { key: (key_end - key.len(), key.len() as u32), value_type, value: cursor.position };
    skip(cursor, value_type, key, 0)?;
    Ok(entry)
}

/// Walks over a value, checking all that can be wrong with it.
fn skip(cursor: &mut Cursor<'_>, value_type: ValueType, key: &str, depth: usize) -> Result<()> {
    match value_type {
        ValueType::String => drop(cursor.string(key)?),
        ValueType::Array if depth == MAX_ARRAY_DEPTH => {
            return Err(cursor.fail(format!("{}: arrays nest deeper than {MAX_ARRAY_DEPTH}", quote(key))));
        }
        ValueType::Array => {
            let item = cursor.value_type(key)?;
            let count = cursor.count(key, item.min_bytes(), usize::MAX)?;
            match item {
                ValueType::String | ValueType::Array => {
                    (0..count).try_for_each(|_| skip(cursor, item, key, depth + 1))?;
                }
                _ => {
                    let items = cursor.take(count * item.min_bytes(), key)?;
                    check_bools(cursor, item, items, key)?;
                }
            }
        }
        _ => {
            let value = cursor.take(value_type.min_bytes(), key)?;
            check_bools(cursor, value_type, value, key)?;
        }
    }
    Ok(())
}

fn check_bools(cursor: &Cursor<'_>, value_type: ValueType, bytes: &[u8], key: &str) -> Result<()> {
    match bytes.iter().find(|byte| **byte > 1) {
        Some(byte) if value_type == ValueType::Bool => {
            Err(cursor.fail(format!("{}: bool of {byte}, expected 0 or 1", quote(key))))
        }
        _ => Ok(()),
    }
}

struct TensorInfo<'a> {
    name: &'a str,
    /// Outermost first; `dims` of them count.
    shape: [usize; MAX_DIMS],
    dims: usize,
    dtype: Dtype,
    offset: usize,
}

fn tensor_info<'a>(cursor: &mut Cursor<'a>) -> Result<TensorInfo<'a>> {
    let name = cursor.string("tensor name")?;
    let dims = cursor.u32("number of dimensions")? as usize;
    if !(1..=MAX_DIMS).contains(&dims) {
        return Err(
            cursor.fail(format!("tensor {}: {dims} dimensions, expected 1 to {MAX_DIMS}", quote(name)))
        );
    }
    let mut shape = [0; MAX_DIMS];
    for dim in shape[..dims].iter_mut().rev() {
        *dim = cursor.size("dimension")?;
        if *dim == 0 {
            return Err(cursor.fail(format!("tensor {}: a dimension of 0, expected at least 1", quote(name))));
        }
    }
    let id = cursor.u32("tensor type")?;
    let dtype = Dtype::from_ggml(id).ok_or_else(|| {
        let message = format!("{}: tensor {}: GGML type {id} is not known", quote(cursor.file), quote(name));
        Error::new(ErrorKind::Unsupported, message)
    })?;
    let offset = cursor.size("tensor offset")?;
    Ok(TensorInfo { name, shape, dims, dtype, offset })
}

fn alignment(metadata: &GgufMetadata) -> Result<usize> {
    let Some(value_type) = metadata.value_type(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    let alignment = metadata.usize_in(ALIGNMENT, MIN_ALIGNMENT..=MAX_ALIGNMENT)?;
    if value_type != ValueType::U32 || !alignment.is_power_of_two() {
        return Err(metadata
            .fail(ALIGNMENT, format!("{value_type} {alignment}, expected a u32 that is a power of two")));
    }
    Ok(alignment)
}

/// A place in the file that only moves over bytes that are there.
struct Cursor<'a> {
    file: &'a str,
    /// The first bytes of the file.
    bytes: &'a [u8],
    /// Bytes of the whole file.
    len: usize,
    position: usize,
    /// How many of the first bytes would have been enough for what failed.
    wanted: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let rest = self.len - self.position;
        if len > rest {
            return Err(self.fail(format!("{} takes {len} bytes, only {rest} follow", quote(what))));
        }
        self.hold(self.position + len)?;
        let taken = &self.bytes[self.position..][..len];
        self.position += len;
        Ok(taken)
    }

    /// Sees to it that so many of the first bytes are here.
    fn hold(&mut self, end: usize) -> Result<()> {
        if end > self.bytes.len() {
            self.wanted = end;
            return Err(self.fail(format!("{end} bytes are to be read first")));
        }
        Ok(())
    }

    fn word<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("that many were taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.word(what).map(u32::from_le_bytes)
    }

    fn size(&mut self, what: &str) -> Result<usize> {
        let size = u64::from_le_bytes(self.word(what)?);
        usize::try_from(size)
            .map_err(|_| self.fail(format!("{} of {size} does not fit this machine", quote(what))))
    }

    /// A number of things that take at least `min_bytes` each.
    fn count(&mut self, what: &str, min_bytes: usize, max: usize) -> Result<usize> {
        let count = self.size(what)?;
        let rest = self.len - self.position;
        if count > max {
            return Err(self.fail(format!("{count} {}, expected at most {max}", quote(what))));
        }
        if count > rest / min_bytes {
            return Err(
                self.fail(format!("{count} of {} do not fit the {rest} bytes that follow", quote(what)))
            );
        }
        Ok(count)
    }

    fn string(&mut self, what: &str) -> Result<&'a str> {
        let len = self.size(what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.fail(format!("{} is not UTF-8", quote(what))))
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType> {
        let id = self.u32(key)?;
        ValueType::from_id(id)
            .ok_or_else(|| self.fail(format!("{}: value type {id} is not known", quote(key))))
    }

    fn fail(&self, what: String) -> Error {
        Error::invalid(format!("{}: at byte {}: {what}", quote(self.file), self.position))
    }
}

const MAGIC: &[u8] = b"GGUF";
/// The header of a model with a vocabulary of 50,000.
const FIRST_BYTES: usize = 4 << 20;
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: usize = 32;
const MIN_ALIGNMENT: usize = 8;
const MAX_ALIGNMENT: usize = 1 << 16;
const MAX_TENSORS: usize = 100_000;
/// Hundreds of times what real files have.
const MAX_KEYS: usize = 16_384;
/// What the format's own description allows.
const MAX_KEY_BYTES: usize = 65_535;
const MAX_DIMS: usize = 4;
const MAX_ARRAY_DEPTH: usize = 4;
/// A key's length and one byte, the value's type and one byte.
const MIN_ENTRY_BYTES: usize = 8 + 1 + 4 + 1;
/// A name's length and one byte, dimensions and one of them, type, offset.
const MIN_TENSOR_INFO_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;
