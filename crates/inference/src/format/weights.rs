//! Named tensors of one model: a compact table per file, checked before it is handed out.

use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::dequantize;
use crate::format::{Bytes, Dtype};

/// The tensors of a model, over one file or several.
#[derive(Default)]
pub struct Weights {
    shards: Vec<Shard>,
}

/// One tensor inside a file's bytes.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    /// The tensor's name.
    pub name: &'a str,
    /// How elements are stored.
    pub dtype: Dtype,
    /// Row-major, outermost dimension first, for every file format.
    pub shape: &'a [usize],
    /// The elements: exactly as many bytes as `dtype` and `shape` need.
    pub bytes: &'a [u8],
}

/// One file: its bytes and what is where in them.
pub(crate) struct Shard {
    file: String,
    bytes: Bytes,
    table: Table,
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
    /// The elements as numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a type that is not dequantized here, [`ErrorKind::OutOfBudget`] when there is not
    /// enough memory.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let (elements, bytes) = self.dtype.block();
        let mut out = Vec::new();
        out.try_reserve_exact(self.bytes.len() / bytes * elements).map_err(|error| {
            Error::new(ErrorKind::OutOfBudget, format!("tensor {}: no memory to unpack it", quote(self.name)))
                .with_source(error)
        })?;
        if dequantize::extend(&mut out, self.dtype, self.bytes) {
            Ok(out)
        } else {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "tensor {}: elements of type {} cannot be read as numbers",
                    quote(self.name),
                    self.dtype
                ),
            ))
        }
    }
}

impl Shard {
    /// Joins a file's bytes with the table that was read from them and checked against their length.
    pub(crate) fn new(file: &str, bytes: Bytes, table: Table) -> Self {
        Self { file: file.to_owned(), bytes, table }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.table.by_name.iter().map(|&index| self.table.name(index as usize))
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let index = self.table.find(name)?;
        let entry = &self.table.entries[index];
        let data = &self.bytes[self.table.data_start..];
        Some(TensorView {
            name: self.table.name(index),
            dtype: entry.dtype,
            shape: &self.table.dims[self.table.dims_range(index)],
            bytes: &data[entry.start..entry.end],
        })
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

/// Longer names are refused; real ones stay below a tenth of this.
const MAX_NAME_BYTES: usize = 1024;
