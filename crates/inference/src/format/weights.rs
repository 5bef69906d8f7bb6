//! Named tensors of one model: a compact table per file, checked before it is handed out.

use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::Dtype;
use crate::format::dequantize;
use crate::format::files::Content;

/// The tensors of a model, over one file or several.
#[derive(Default)]
pub struct Weights {
    shards: Vec<Shard>,
    /// Rows of the matrices of layers have one scale each, and are meant to be multiplied with rows that have one, too.
    pub(crate) one_scale: bool,
}

/// One tensor of a file.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// How elements are stored.
    pub dtype: Dtype,
    /// Row-major, outermost dimension first, for every file format.
    pub shape: &'a [usize],
    shard: &'a Shard,
    index: usize,
}

/// One file: its content and what is where in it.
pub(crate) struct Shard {
    file: String,
    content: Content,
    table: Table,
    /// The BLAKE3 of what stands before the data, and of each tensor's elements as soon as somebody has read them all.
    header: blake3::Hash,
    elements: Vec<OnceLock<blake3::Hash>>,
}

/// What a header says about the tensors of one file. Names and shapes lie end to end in two buffers, so that a table
/// takes less memory than the header it was read from.
pub(crate) struct Table {
    data_start: usize,
    names: String,
    dims: Vec<usize>,
    entries: Vec<Entry>,
    by_name: Vec<u32>,
}

/// How much a table will hold, counted before anything is allocated.
#[derive(Clone, Copy, Default)]
pub(crate) struct Capacity {
    pub(crate) tensors: usize,
    pub(crate) dims: usize,
    pub(crate) name_bytes: usize,
}

/// Name and dims end where the next entry's begin; `start..end` counts from the start of the data.
struct Entry {
    name_end: u32,
    dims_end: u32,
    dtype: Dtype,
    start: usize,
    end: usize,
}

impl Weights {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.shards.iter().find_map(|shard| shard.tensor(name))
    }

    /// The tensor of this name, which has to have this shape.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is missing or shaped otherwise.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let Some(tensor) = self.tensor(name) else {
            return Err(Error::invalid(format!("tensor {}: missing, expected {shape:?}", quote(name))));
        };
        if tensor.shape != shape {
            return Err(Error::invalid(format!(
                "tensor {}: expected {shape:?}, file has {:?} {}",
                quote(name),
                tensor.shape,
                tensor.dtype
            )));
        }
        Ok(tensor)
    }

    /// All names, by file, in alphabetical order within a file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(Shard::names)
    }

    /// Adds a file; no name may stand in two files.
    pub(crate) fn push(&mut self, shard: Shard) -> Result<()> {
        for other in &self.shards {
            if let Some(name) = shard.names().find(|name| other.table.find(name).is_some()) {
                return Err(Error::invalid(format!(
                    "tensor {}: in {} and in {}, expected in one file",
                    quote(name),
                    quote(&other.file),
                    quote(&shard.file)
                )));
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    /// The fingerprint of a file, by its number: what stands before the data, and the elements of every tensor in their order.
    /// Reads what was not read before.
    pub(crate) fn fingerprint(&self, shard: usize) -> Result<blake3::Hash> {
        let shard = &self.shards[shard];
        let mut order: Vec<usize> = (0..shard.table.entries.len()).collect();
        order.sort_unstable_by_key(|&index| shard.table.entries[index].start);
        let mut hasher = blake3::Hasher::new();
        hasher.update(shard.header.as_bytes());
        for index in order {
            let tensor = shard.at(index);
            if shard.elements[index].get().is_none() {
                tensor.pieces(PIECE_BYTES, |_| Ok(()))?;
            }
            hasher.update(shard.elements[index].get().expect("it was read").as_bytes());
        }
        Ok(hasher.finalize())
    }

    /// Bytes of all elements.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().flat_map(|shard| &shard.table.entries).map(Entry::len).sum()
    }

    /// How many files there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Presents every U8 tensor of two dimensions as what its rows are: Q8_0 blocks of 34 bytes for 32 elements.
    pub(crate) fn present_q8_0(&mut self) -> Result<()> {
        let (elements, bytes) = Dtype::Q8_0.block();
        for shard in &mut self.shards {
            let table = &mut shard.table;
            for index in 0..table.entries.len() {
                let dims = table.dims_range(index);
                if table.entries[index].dtype != Dtype::U8 || dims.len() != 2 {
                    continue;
                }
                let columns = table.dims[dims.end - 1];
                if !columns.is_multiple_of(bytes) {
                    return Err(Error::invalid(format!(
                        "{}: tensor {}: rows of {columns} bytes, expected Q8_0 blocks of {bytes}",
                        quote(&shard.file),
                        quote(table.name(index)),
                    )));
                }
                table.dims[dims.end - 1] = columns / bytes * elements;
                table.entries[index].dtype = Dtype::Q8_0;
            }
        }
        Ok(())
    }
}

impl TensorView<'_> {
    /// Bytes of all elements: exactly as many as `dtype` and `shape` need.
    #[expect(clippy::len_without_is_empty, reason = "a size in bytes; no tensor is a collection")]
    pub fn len(&self) -> usize {
        self.shard.table.entries[self.index].len()
    }

    /// The elements as bytes, `step` of them at a time and what is left at last. They are read from the file now, unless it is in
    /// memory, and hashed for the model's fingerprint when that has not happened.
    ///
    /// # Errors
    /// What `each` refuses; [`ErrorKind::Io`] when the file cannot be read any more.
    ///
    /// # Panics
    /// If `step` is 0.
    pub fn pieces(&self, step: usize, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Shard { content, table, elements, .. } = self.shard;
        let Entry { start, end, .. } = table.entries[self.index];
        let range = table.data_start + start..table.data_start + end;
        let known = &elements[self.index];
        if known.get().is_some() {
            return content.pieces(range, step, each);
        }
        let mut hasher = blake3::Hasher::new();
        content.pieces(range, step, |piece| {
            hasher.update(piece);
            each(piece)
        })?;
        known.get_or_init(|| hasher.finalize());
        Ok(())
    }

    /// The elements as numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a type that is not dequantized here, [`ErrorKind::OutOfBudget`] when there is not
    /// enough memory; as [`TensorView::pieces`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let (elements, bytes) = self.dtype.block();
        let mut out = Vec::new();
        out.try_reserve_exact(self.len() / bytes * elements).map_err(|error| {
            Error::new(ErrorKind::OutOfBudget, format!("tensor {}: no memory to unpack it", quote(self.name)))
                .with_source(error)
        })?;
        let unsupported = || {
            let what = format!(
                "tensor {}: elements of type {} cannot be read as numbers",
                quote(self.name),
                self.dtype
            );
            Error::new(ErrorKind::Unsupported, what)
        };
        self.pieces(PIECE_BYTES / bytes * bytes, |piece| {
            dequantize::extend(&mut out, self.dtype, piece).then_some(()).ok_or_else(unsupported)
        })?;
        Ok(out)
    }
}

impl Shard {
    /// Joins a file with the table that was read from its first bytes and checked against its length.
    pub(crate) fn new(file: &str, start: &[u8], content: Content, table: Table) -> Self {
        let header = blake3::hash(&start[..table.data_start]);
        let elements = table.entries.iter().map(|_| OnceLock::new()).collect();
        Self { file: file.to_owned(), content, table, header, elements }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.table.by_name.iter().map(|&index| self.table.name(index as usize))
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.table.find(name).map(|index| self.at(index))
    }

    fn at(&self, index: usize) -> TensorView<'_> {
        TensorView {
            name: self.table.name(index),
            dtype: self.table.entries[index].dtype,
            shape: &self.table.dims[self.table.dims_range(index)],
            shard: self,
            index,
        }
    }
}

impl Entry {
    fn len(&self) -> usize {
        self.end - self.start
    }
}

impl Table {
    /// An empty table with room for exactly what was counted.
    pub(crate) fn with_capacity(capacity: Capacity) -> Self {
        Self {
            data_start: 0,
            names: String::with_capacity(capacity.name_bytes),
            dims: Vec::with_capacity(capacity.dims),
            entries: Vec::with_capacity(capacity.tensors),
            by_name: Vec::new(),
        }
    }

    /// Adds a tensor whose elements lie at `start..end` of the data.
    ///
    /// # Errors
    /// The reason, when shape, type and place contradict each other.
    pub(crate) fn push(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        start: usize,
        end: usize,
    ) -> std::result::Result<(), String> {
        let needed = Self::bytes(dtype, shape)?;
        let held = end
            .checked_sub(start)
            .ok_or_else(|| format!("data from {start} to {end}, expected an end after its start"))?;
        if held != needed {
            return Err(format!(
                "{shape:?} {dtype} takes {needed} bytes, data from {start} to {end} has {held}"
            ));
        }
        check_name(name, MAX_NAME_BYTES)?;
        self.names.push_str(name);
        self.dims.extend_from_slice(shape);
        let fits = "headers are capped far below 4 GiB";
        self.entries.push(Entry {
            name_end: self.names.len().try_into().expect(fits),
            dims_end: self.dims.len().try_into().expect(fits),
            dtype,
            start,
            end,
        });
        Ok(())
    }

    /// Bytes that a tensor takes.
    ///
    /// # Errors
    /// The reason, when the number does not fit or is not whole.
    pub(crate) fn bytes(dtype: Dtype, shape: &[usize]) -> std::result::Result<usize, String> {
        let elements = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let elements = elements.ok_or_else(|| format!("shape {shape:?} overflows"))?;
        dtype
            .bytes(elements)
            .ok_or_else(|| format!("shape {shape:?} is not a whole number of {dtype} blocks or overflows"))
    }

    /// Checks the whole: names differ, and the tensors, each padded to `alignment`, cover the data without overlap, hole
    /// or rest.
    pub(crate) fn finish(
        mut self,
        file: &str,
        data_start: usize,
        data_len: usize,
        alignment: usize,
    ) -> Result<Self> {
        self.data_start = data_start;
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();

        order.sort_unstable_by_key(|&index| {
            let entry = &self.entries[index as usize];
            (entry.start, entry.end)
        });
        let mut expected = 0;
        for &index in &order {
            let (name, entry) = (self.name(index as usize), &self.entries[index as usize]);
            let fail = |what: String| {
                Err(Error::invalid(format!("{}: tensor {}: {what}", quote(file), quote(name))))
            };
            if entry.start < expected {
                return fail(format!(
                    "overlaps another: starts at byte {} of the data, expected {expected}",
                    entry.start
                ));
            }
            if entry.start > expected {
                return fail(format!(
                    "leaves a hole: starts at byte {} of the data, expected {expected}",
                    entry.start
                ));
            }
            if entry.end > data_len {
                return fail(format!(
                    "ends at byte {} of the data, which is cut off after {data_len}",
                    entry.end
                ));
            }
            expected = entry.end.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        }
        if data_len > expected {
            return Err(Error::invalid(format!(
                "{}: {} bytes follow the last tensor, expected the file to end there",
                quote(file),
                data_len - expected
            )));
        }

        order.sort_unstable_by_key(|&index| self.name(index as usize));
        if let Some(pair) =
            order.windows(2).find(|pair| self.name(pair[0] as usize) == self.name(pair[1] as usize))
        {
            let name = self.name(pair[0] as usize);
            return Err(Error::invalid(format!("{}: tensor {}: named twice", quote(file), quote(name))));
        }
        self.by_name = order;
        Ok(self)
    }

    fn find(&self, name: &str) -> Option<usize> {
        let place = self.by_name.binary_search_by_key(&name, |&index| self.name(index as usize)).ok()?;
        Some(self.by_name[place] as usize)
    }

    fn name(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].name_end);
        &self.names[start as usize..self.entries[index].name_end as usize]
    }

    fn dims_range(&self, index: usize) -> std::ops::Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].dims_end);
        start as usize..self.entries[index].dims_end as usize
    }
}

/// Refuses names that are empty, longer than any real one, or hold what cannot be printed.
pub(crate) fn check_name(name: &str, max_bytes: usize) -> std::result::Result<(), String> {
    if !(1..=max_bytes).contains(&name.len()) {
        return Err(format!("name of {} bytes, expected 1 to {max_bytes}", name.len()));
    }
    if name.contains(char::is_control) {
        return Err(format!("name {} with control characters", quote(name)));
    }
    Ok(())
}

/// Elements that are read at a time where nobody wants them in another measure.
const PIECE_BYTES: usize = 1 << 18;
/// Longer names are refused; real ones stay below a tenth of this.
const MAX_NAME_BYTES: usize = 1024;
