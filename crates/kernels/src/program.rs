//! Recording what one forward pass computes.

use std::ops::Range;

use crate::kv::{KV_BLOCK, KvRow, KvStore, MAX_HEAD_DIM};
use crate::matrix::{Matrix, TILE};
use crate::memory::LINE;
use crate::quant::{BLOCK, QUANT_BLOCK_BYTES};
use crate::rope::RopeTable;
use crate::rows::RowOp;
use crate::step::{After, Op, RowGroup, Step};

/// The steps of one forward pass, recorded once and then run by all threads together.
///
/// Values are handles: each is written by exactly one operation, and operations read values of earlier ones. The
/// caller says what to compute; pieces, order, buffers and threads are the pool's business.
///
/// # Panics
/// The recording methods panic where shapes do not fit together or an index is out of range: those are mistakes of
/// the program, not of its input. Whoever takes indices from users checks them first.
#[derive(Default)]
pub struct Program<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) slots: Vec<Slot>,
    checkpoint_pending: bool,
}

/// Rows of f32 that an operation writes, or some columns of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    pub(crate) slot: usize,
    pub(crate) offset: usize,
    rows: usize,
    width: usize,
}

/// A buffer: how large it is and when it is needed.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) rows: usize,
    /// f32 values, or blocks of a quantized row.
    pub(crate) width: usize,
    pub(crate) stride_bytes: usize,
    /// The step that writes it and the last that reads it.
    pub(crate) written: usize,
    pub(crate) read: usize,
    pub(crate) kept: bool,
    /// The values themselves are wanted, not only their quantized forms.
    pub(crate) stored: bool,
    /// Of a quantized row: it has one scale.
    pub(crate) one_scale: bool,
    /// Quantized forms.
    quantized: Vec<Quantized>,
}

/// Columns of a value (first, count) as int8.
#[derive(Clone, Copy, Debug)]
struct Quantized {
    columns: (usize, usize),
    one_scale: bool,
    slot: usize,
}

impl Value {
    /// Rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn width(self) -> usize {
        self.width
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If the range is empty or not within the width.
    pub fn columns(self, range: Range<usize>) -> Value {
        assert!(range.start < range.end && range.end <= self.width, "columns {range:?} of {}", self.width);
        Value { offset: self.offset + range.start, width: range.len(), ..self }
    }
}

impl<'a> Program<'a> {
    /// A program without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows of a table, `[ids, k]`.
    pub fn embed(&mut self, table: &'a Matrix, ids: &'a [u32]) -> Value {
        check_indices("id", ids, table.n());
        self.rows_op(RowOp::Embed { table, ids }, ids.len(), table.k())
    }

    /// a + b.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        let (a, b) = (self.check(a), self.check(b));
        assert_eq!((a.rows, a.width), (b.rows, b.width), "terms of one shape");
        self.rows_op(RowOp::Add { a, b }, a.rows, a.width)
    }

    /// The same row added to each row.
    pub fn add_row(&mut self, a: Value, row: &'a [f32]) -> Value {
        let a = self.check(a);
        assert_eq!(a.width, row.len(), "a row as wide as the value");
        self.rows_op(RowOp::AddRow { a, row }, a.rows, a.width)
    }

    /// x w^T + bias, `[rows, n]`.
    pub fn linear(&mut self, x: Value, w: &'a Matrix, bias: Option<&'a [f32]>) -> Value {
        self.linear_op(x, w, bias, After::Store, w.n())
    }

    /// x w^T, `[rows, n]`, and of each 32 columns ([`Matrix::TILE_ROWS`]) the largest, `[rows, ceil(n / 32)]`: NaN where one is NaN
    /// or plus infinity. Whoever looks for large values need not look at all.
    pub fn linear_and_peaks(&mut self, x: Value, w: &'a Matrix) -> (Value, Value) {
        let product = self.linear(x, w, None);
        let (step, slot) = (self.slots[product.slot].written, self.new_slot(product.rows, w.tile_count()));
        (self.slots[slot].written, self.slots[slot].read) = (step, step);
        self.steps[step].peaks = Some(slot);
        (product, Value { slot, offset: 0, rows: product.rows, width: w.tile_count() })
    }

    /// gelu(x w^T + bias) with the exact (erf) GELU.
    pub fn linear_gelu(&mut self, x: Value, w: &'a Matrix, bias: Option<&'a [f32]>) -> Value {
        self.linear_op(x, w, bias, After::Gelu, w.n())
    }

    /// x w^T + bias + residual.
    pub fn linear_add(&mut self, x: Value, w: &'a Matrix, bias: Option<&'a [f32]>, residual: Value) -> Value {
        let residual = self.check(residual);
        assert_eq!((residual.rows, residual.width), (x.rows, w.n()), "a residual of the product's shape");
        self.linear_op(x, w, bias, After::Add(residual), w.n())
    }

    /// silu(x gate^T) * (x up^T), `[rows, n / 2]`; the matrix has the rows of gate, then those of up.
    pub fn swiglu(&mut self, x: Value, gate_up: &'a Matrix) -> Value {
        assert!(gate_up.n().is_multiple_of(2), "gate and up of one size");
        let width = gate_up.n() / 2;
        if width.is_multiple_of(TILE) {
            return self.linear_op(x, gate_up, None, After::SwiGlu, width);
        }
        let x = self.linear(x, gate_up, None);
        let x = self.check(x);
        self.rows_op(RowOp::SiluMul { x }, x.rows, width)
    }

    /// x / sqrt(mean(x^2) + eps) * weight, for each row.
    pub fn rms_norm(&mut self, x: Value, weight: &'a [f32], eps: f32) -> Value {
        let x = self.check(x);
        assert_eq!(x.width, weight.len(), "a weight for each column");
        self.rows_op(RowOp::RmsNorm { x, weight, eps }, x.rows, x.width)
    }

    /// (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, for each row.
    pub fn layer_norm(&mut self, x: Value, weight: &'a [f32], bias: &'a [f32], eps: f32) -> Value {
        let x = self.check(x);
        assert_eq!((x.width, x.width), (weight.len(), bias.len()), "a weight and a bias for each column");
        self.rows_op(RowOp::LayerNorm { x, weight, bias, eps }, x.rows, x.width)
    }

    /// The named rows, in that order.
    pub fn select(&mut self, x: Value, rows: &'a [u32]) -> Value {
        let x = self.check(x);
        check_indices("row", rows, x.rows);
        self.rows_op(RowOp::Select { x, rows }, rows.len(), x.width)
    }

    /// The mean row of each span; no span is empty.
    pub fn mean(&mut self, x: Value, spans: &'a [Range<usize>]) -> Value {
        let x = self.check(x);
        for span in spans {
            assert!(span.start < span.end && span.end <= x.rows, "span {span:?} of {} rows", x.rows);
        }
        self.rows_op(RowOp::Mean { x, spans }, spans.len(), x.width)
    }

    /// Bidirectional attention inside each span of rows (an unpadded batch of sequences): `[rows, heads * head_dim]`.
    /// The spans follow each other and cover all rows.
    pub fn attend(&mut self, q: Value, k: Value, v: Value, heads: usize, spans: &'a [Range<usize>]) -> Value {
        let (q, k, v) = (self.check(q), self.check(k), self.check(v));
        assert_eq!((q.rows, q.width), (k.rows, k.width), "queries and keys of one shape");
        assert_eq!((q.rows, q.width), (v.rows, v.width), "queries and values of one shape");
        let head_dim = head_dim(q.width, heads);
        let mut end = 0;
        for span in spans {
            assert!(
                span.start == end && span.end >= end,
                "span {span:?} starts where the last one ends, at {end}"
            );
            end = span.end;
        }
        assert_eq!(end, q.rows, "spans cover all rows");
        let chunks = |span: &Range<usize>, most: usize| {
            let span = span.clone();
            span.clone().step_by(most).map(move |start| start..(start + most).min(span.end))
        };
        let blocks: Vec<Range<usize>> = spans.iter().flat_map(|span| chunks(span, KV_BLOCK)).collect();
        let mut groups = Vec::new();
        let mut first_block = 0;
        for span in spans {
            groups.extend(chunks(span, ROWS_OF_GROUP).map(|rows| RowGroup {
                rows,
                span: span.clone(),
                first_block,
            }));
            first_block += span.len().div_ceil(KV_BLOCK);
        }
        let keys = self.new_slot(blocks.len() * heads, head_dim * KV_BLOCK);
        self.push(Op::PackKeys { k, heads, head_dim, blocks }, keys);
        let out = self.new_slot(q.rows, q.width);
        self.push(Op::Attend { q, v, keys, heads, head_dim, groups }, out)
    }

    /// Rotates q and k by `rope`, and stores k and v of each row at (layer, its table, its position). Returns the rotated queries,
    /// `[rows, heads * head_dim]`, for [`Self::attend_cached`]. k and v: `[rows, kv_heads * head_dim]`. No two rows share a
    /// position of a block.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are one operation's inputs and none has a natural partner"
    )]
    pub fn store_cached(
        &mut self,
        q: Value,
        k: Value,
        v: Value,
        heads: usize,
        kv_heads: usize,
        layer: usize,
        rope: &'a RopeTable,
        rows: &'a [KvRow<'a>],
    ) -> Value {
        let (q, k, v) = (self.check(q), self.check(k), self.check(v));
        let head_dim = cached_head_dim(q, heads, kv_heads, rows);
        assert_eq!((k.rows, k.width), (q.rows, kv_heads * head_dim), "keys of kv_heads heads");
        assert_eq!((v.rows, v.width), (q.rows, kv_heads * head_dim), "values of kv_heads heads");
        assert_eq!(rope.head_dim(), head_dim, "a table for heads of this size");
        for KvRow { position, .. } in rows {
            assert!((*position as usize) < rope.positions(), "position {position} of {}", rope.positions());
        }
        let rotated = self.new_slot(q.rows, q.width);
        self.push(Op::Store { q, k, v, rope, layer, kv_heads, head_dim, rows }, rotated)
    }

    /// Causal attention over cached rows, `[rows, heads * head_dim]`: row r attends to positions `0..=position` of its table. The
    /// queries are rotated; keys and values of these rows are stored, maybe with those of others.
    pub fn attend_cached(
        &mut self,
        rotated: Value,
        heads: usize,
        kv_heads: usize,
        layer: usize,
        rows: &'a [KvRow<'a>],
    ) -> Value {
        let rotated = self.check(rotated);
        let head_dim = cached_head_dim(rotated, heads, kv_heads, rows);
        let out = self.new_slot(rotated.rows, rotated.width);
        let groups = groups_of_one_table(rows);
        self.push(Op::AttendCached { rotated, layer, heads, kv_heads, head_dim, rows, groups }, out)
    }

    /// Between layers: here the interrupt is read.
    pub fn checkpoint(&mut self) {
        self.checkpoint_pending = true;
    }

    /// The value stays readable in the arena after the run.
    pub fn keep(&mut self, v: Value) -> Value {
        self.check(v);
        (self.slots[v.slot].kept, self.slots[v.slot].stored) = (true, true);
        v
    }

    /// What the steps ask of the key/value store of a run.
    ///
    /// # Panics
    /// If a step needs a store and there is none, or it has other sizes, or a row names a block that it has not, or
    /// two rows of a step share a position of a block.
    pub(crate) fn check_store(&self, store: Option<&KvStore>) {
        let mut checked: *const [KvRow<'_>] = &[];
        for step in &self.steps {
            let (layer, kv_heads, head_dim, rows, stores) = match step.op {
                Op::Store { layer, kv_heads, head_dim, rows, .. } => (layer, kv_heads, head_dim, rows, true),
                Op::AttendCached { layer, kv_heads, head_dim, rows, .. } => {
                    (layer, kv_heads, head_dim, rows, false)
                }
                _ => continue,
            };
            let store = store.expect("a program with cached attention runs with a key/value store");
            assert!(layer < store.layers(), "layer {layer} of {}", store.layers());
            assert_eq!((kv_heads, head_dim), (store.kv_heads(), store.head_dim()), "heads as in the store");
            if std::ptr::eq(checked, rows) {
                continue; // every layer has the same rows
            }
            let mut places = Vec::with_capacity(rows.len());
            let (mut table, mut known): (&[u32], usize) = (&[], 0);
            for row in rows {
                if !std::ptr::eq(table, row.table) {
                    (table, known) = (row.table, 0);
                }
                let (index, slot) = (row.position as usize / KV_BLOCK, row.position as usize % KV_BLOCK);
                for &block in &table[known.min(index)..=index] {
                    assert!((block as usize) < store.blocks(), "block {block} of {}", store.blocks());
                }
                known = known.max(index + 1);
                places.push((table[index], slot));
            }
            if stores {
                checked = rows;
                places.sort_unstable();
                assert!(
                    places.windows(2).all(|pair| pair[0] != pair[1]),
                    "two rows share a position of a block"
                );
            }
        }
    }

    fn rows_op(&mut self, op: RowOp<'a, Value>, rows: usize, width: usize) -> Value {
        let out = self.new_slot(rows, width);
        self.push(Op::Rows(op), out)
    }

    fn linear_op(
        &mut self,
        x: Value,
        w: &'a Matrix,
        bias: Option<&'a [f32]>,
        after: After,
        width: usize,
    ) -> Value {
        let x = self.check(x);
        assert_eq!(x.width, w.k(), "as many columns as the matrix has inputs");
        assert!(bias.is_none_or(|bias| bias.len() == w.n()), "a bias for each output");
        let quantized = (!w.is_float()).then(|| self.quantized(x, w.takes_one_scale()));
        let out = self.new_slot(x.rows, width);
        self.slots[out].stored = false; // until something reads it
        self.push(Op::Linear { x, quantized, w, bias, after }, out)
    }

    /// The slot of `x` as int8: made by the step that writes `x` if that can be, else by a step of its own.
    fn quantized(&mut self, x: Value, one_scale: bool) -> usize {
        let columns = (x.offset, x.width);
        let same = |known: &&Quantized| known.columns == columns && known.one_scale == one_scale;
        if let Some(known) = self.slots[x.slot].quantized.iter().find(same) {
            return known.slot;
        }
        let blocks = x.width / BLOCK;
        let slot = self.slots.len();
        let stride_bytes = (blocks * QUANT_BLOCK_BYTES).next_multiple_of(LINE);
        self.slots.push(Slot { stride_bytes, one_scale, ..Slot::new(x.rows, blocks) });
        let written = self.slots[x.slot].written;
        let whole = columns == (0, self.slots[x.slot].width);
        let step = &self.steps[written];
        if whole && step.quantized.is_none() && step.op.can_quantize(one_scale) {
            self.steps[written].quantized = Some(slot);
            self.slots[slot].written = written;
        } else {
            self.push(Op::Quantize { x }, slot);
        }
        self.slots[x.slot].quantized.push(Quantized { columns, one_scale, slot });
        slot
    }

    fn new_slot(&mut self, rows: usize, width: usize) -> usize {
        assert!(rows > 0, "a value has rows");
        self.slots.push(Slot::new(rows, width));
        self.slots.len() - 1
    }

    fn push(&mut self, op: Op<'a>, out: usize) -> Value {
        let step = self.steps.len();
        op.for_each_input(|slot| (self.slots[slot].read, self.slots[slot].stored) = (step, true));
        (self.slots[out].written, self.slots[out].read) = (step, step);
        let Slot { rows, width, .. } = self.slots[out];
        let checkpoint = std::mem::take(&mut self.checkpoint_pending);
        self.steps.push(Step { op, out, quantized: None, peaks: None, checkpoint });
        Value { slot: out, offset: 0, rows, width }
    }

    /// # Panics
    /// If `v` is no value of this program.
    fn check(&self, v: Value) -> Value {
        let slot = self.slots.get(v.slot).expect("a value of this program");
        assert!(v.rows == slot.rows && v.offset + v.width <= slot.width, "a value of this program");
        v
    }
}

impl Slot {
    fn new(rows: usize, width: usize) -> Slot {
        let stride_bytes = (width * size_of::<f32>()).next_multiple_of(LINE);
        Slot {
            rows,
            width,
            stride_bytes,
            written: 0,
            read: 0,
            kept: false,
            stored: true,
            one_scale: false,
            quantized: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        if !self.stored {
            return 0;
        }
        self.rows.checked_mul(self.stride_bytes).expect("values fit in memory")
    }
}

fn head_dim(width: usize, heads: usize) -> usize {
    assert!(heads > 0 && width.is_multiple_of(heads), "{width} columns in {heads} heads");
    let head_dim = width / heads;
    assert!(head_dim <= MAX_HEAD_DIM, "head_dim is {head_dim}, expected at most {MAX_HEAD_DIM}");
    head_dim
}

/// The width of a head of cached attention.
///
/// # Panics
/// If heads are not shared evenly, or rows have no place.
fn cached_head_dim(q: Value, heads: usize, kv_heads: usize, rows: &[KvRow<'_>]) -> usize {
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads} key/value heads");
    assert_eq!(rows.len(), q.rows, "a place for each row");
    for KvRow { table, position } in rows {
        assert!(
            (*position as usize) < table.len() * KV_BLOCK,
            "position {position} in {} blocks",
            table.len()
        );
    }
    head_dim(q.width, heads)
}

fn check_indices(name: &str, indices: &[u32], count: usize) {
    for &index in indices {
        assert!((index as usize) < count, "{name} {index} of {count}");
    }
}

/// Rows with one table, in groups of about one size and at most `ROWS_OF_GROUP` rows.
fn groups_of_one_table(rows: &[KvRow<'_>]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for run in rows.chunk_by(|a, b| std::ptr::eq(a.table, b.table)) {
        let count = run.len().div_ceil(ROWS_OF_GROUP);
        let bound = |i: usize| start + i * run.len() / count;
        groups.extend((0..count).map(|i| bound(i)..bound(i + 1)));
        start += run.len();
    }
    groups
}

/// Rows of one sequence that a piece of an attention takes at most: enough to use what is loaded, few enough to share out.
const ROWS_OF_GROUP: usize = 16;
