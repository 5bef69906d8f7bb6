//! Attention: softmax over past positions, sixteen at a time, in one pass.
//!
//! A query walks over blocks of sixteen positions from position 0 on, keeps the largest score so far, and rescales
//! what it has when a block brings a larger one. The order depends on positions alone, so a prompt may be cut into
//! chunks anywhere without changing a bit. Keys lie transposed (a line holds one element of sixteen positions), so
//! scores need no sums across lanes; up to four queries share each key and value that is loaded.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::ops::Range;

use crate::isa::Kernel;
use crate::kv::{KV_BLOCK, KvCells, KvRow, MAX_HEAD_DIM, padded};
use crate::math::exp;
use crate::memory::LINE;
use crate::plane::{Plane, QuantPlane};
use crate::quant::{self, BLOCK};
use crate::rope::RopeTable;
use crate::simd::{LANES, Simd};

/// What the pieces of one attention have in common.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) q: Plane,
    pub(crate) out: Plane,
    pub(crate) quantized: Option<QuantPlane>,
    pub(crate) head_dim: usize,
}

/// Some heads of some rows of one sequence over its cached positions. The heads share one key/value head.
pub(crate) struct CachedPiece<'a> {
    pub(crate) common: Heads,
    pub(crate) cells: KvCells,
    pub(crate) layer: usize,
    pub(crate) kv_head: usize,
    pub(crate) kv_rows: &'a [KvRow<'a>],
    pub(crate) rows: Range<usize>,
    pub(crate) heads: Range<usize>,
}

impl Kernel for CachedPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let CachedPiece { cells, layer, kv_head, kv_rows, .. } = self;
        let table = kv_rows[self.rows.start].table;
        let history = CachedHistory { cells, layer, head: kv_head, table };
        self.common.attend(s, history, self.rows, self.heads, |row| kv_rows[row].position as usize + 1);
    }
}

/// One head of some rows of a span over the whole span.
pub(crate) struct SpanPiece {
    pub(crate) common: Heads,
    pub(crate) v: Plane,
    /// Rows are (block, head): the transposed keys, all heads of a block together.
    pub(crate) keys: Plane,
    pub(crate) head_count: usize,
    pub(crate) first_block: usize,
    pub(crate) span: Range<usize>,
    pub(crate) rows: Range<usize>,
    pub(crate) head: usize,
}

impl Kernel for SpanPiece {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SpanPiece { v, keys, head_count, first_block, ref span, head, .. } = self;
        let head_dim = self.common.head_dim;
        let history = SpanHistory { v, keys, head_count, first_block, first_row: span.start, head, head_dim };
        self.common.attend(s, history, self.rows, head..head + 1, |_| span.len());
    }
}

/// Transposes the keys of up to sixteen rows of a span, for all heads.
pub(crate) struct PackPiece {
    pub(crate) k: Plane,
    pub(crate) keys: Plane,
    pub(crate) head_count: usize,
    pub(crate) head_dim: usize,
    pub(crate) block: usize,
    pub(crate) rows: Range<usize>,
}

impl Kernel for PackPiece {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.rows.len() <= KV_BLOCK && self.keys.width() == self.head_dim * KV_BLOCK);
        for head in 0..self.head_count {
            let keys = self.keys.row(self.block * self.head_count + head);
            // SAFETY: a row of `keys` has head_dim lines of 16, which belong to this piece; a row of `k` has all heads.
            unsafe {
                for d in 0..self.head_dim {
                    s.store(s.zero(), keys.add(d * KV_BLOCK));
                }
                for (slot, row) in self.rows.clone().enumerate() {
                    let k = self.k.row(row).add(head * self.head_dim);
                    for d in 0..self.head_dim {
                        keys.add(d * KV_BLOCK + slot).write(k.add(d).read());
                    }
                }
            }
        }
    }
}

/// Rotates queries and keys of some rows; queries go to `rotated`, keys and values into the store.
pub(crate) struct StorePiece<'a> {
    pub(crate) q: Plane,
    pub(crate) k: Plane,
    pub(crate) v: Plane,
    pub(crate) rotated: Plane,
    pub(crate) rope: &'a RopeTable,
    pub(crate) cells: KvCells,
    pub(crate) layer: usize,
    pub(crate) kv_rows: &'a [KvRow<'a>],
    pub(crate) rows: Range<usize>,
}

impl Kernel for StorePiece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head_dim = self.cells.head_dim();
        let mut key = [0.0; MAX_HEAD_DIM];
        let key = &mut key[..head_dim];
        for row in self.rows {
            let position = self.kv_rows[row].position as usize;
            let (block, slot) = (self.kv_rows[row].table[position / KV_BLOCK], position % KV_BLOCK);
            // SAFETY: rows of planes have their width, whole heads; q, k and v are complete; the row of `rotated` and
            // the row's position in the store belong to this piece alone, as no two rows of a step share a position
            // of a block (`Program::check_store`).
            unsafe {
                let q = std::slice::from_raw_parts(self.q.row(row), self.q.width());
                let k = std::slice::from_raw_parts(self.k.row(row), self.k.width());
                let v = std::slice::from_raw_parts(self.v.row(row), self.v.width());
                let rotated = std::slice::from_raw_parts_mut(self.rotated.row(row), self.rotated.width());
                for (q, rotated) in q.chunks_exact(head_dim).zip(rotated.chunks_exact_mut(head_dim)) {
                    self.rope.rotate(position, q, rotated);
                }
                for (head, (k, v)) in k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim)).enumerate() {
                    self.rope.rotate(position, k, key);
                    self.cells.store(s, (block, self.layer, head), slot, key, v);
                }
            }
        }
    }
}

/// The positions a query looks back on.
trait History: Copy {
    type Block: HistoryBlock;

    /// The block of positions `16 * index ..`.
    fn block(self, index: usize) -> Self::Block;
}

/// Sixteen positions of one head.
trait HistoryBlock: Copy {
    /// Element `d` of sixteen keys.
    ///
    /// # Safety
    /// `d < head_dim`, and the block is complete.
    unsafe fn key<S: Simd>(self, s: S, d: usize) -> S::F32;

    /// Elements `start..start + 16` of the value at `slot`, zeroes behind the last one.
    ///
    /// # Safety
    /// `start < head_dim`, the slot was stored, and the block is complete.
    unsafe fn value<S: Simd>(self, s: S, slot: usize, start: usize) -> S::F32;

    /// Asks for the block's memory ahead of time.
    fn prefetch<S: Simd>(self, s: S, head_dim: usize);
}

#[derive(Clone, Copy)]
struct CachedHistory<'a> {
    cells: KvCells,
    layer: usize,
    head: usize,
    table: &'a [u32],
}

#[derive(Clone, Copy)]
struct CachedBlock {
    keys: *const u16,
    values: *const u16,
    value_stride: usize,
}

impl History for CachedHistory<'_> {
    type Block = CachedBlock;

    #[inline(always)]
    fn block(self, index: usize) -> CachedBlock {
        let block = self.table[index];
        CachedBlock {
            keys: self.cells.keys(block, self.layer, self.head),
            values: self.cells.values(block, self.layer, self.head),
            value_stride: padded(self.cells.head_dim()),
        }
    }
}

impl HistoryBlock for CachedBlock {
    #[inline(always)]
    unsafe fn key<S: Simd>(self, s: S, d: usize) -> S::F32 {
        // SAFETY: a block has head_dim lines of 16 keys.
        unsafe { s.load_f16(self.keys.add(d * KV_BLOCK)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, slot: usize, start: usize) -> S::F32 {
        // SAFETY: value rows are padded to whole vectors.
        unsafe { s.load_f16(self.values.add(slot * self.value_stride + start)) }
    }

    #[inline(always)]
    fn prefetch<S: Simd>(self, s: S, head_dim: usize) {
        let bytes = KV_BLOCK * (head_dim + self.value_stride) * size_of::<u16>();
        for offset in (0..bytes).step_by(LINE) {
            s.prefetch(self.keys.cast::<u8>().wrapping_add(offset)); // values stand behind the keys
        }
    }
}

#[derive(Clone, Copy)]
struct SpanHistory {
    v: Plane,
    keys: Plane,
    head_count: usize,
    first_block: usize,
    first_row: usize,
    head: usize,
    head_dim: usize,
}

#[derive(Clone, Copy)]
struct SpanBlock {
    keys: *const f32,
    values: *const f32,
    value_stride: usize,
    head_dim: usize,
}

impl History for SpanHistory {
    type Block = SpanBlock;

    #[inline(always)]
    fn block(self, index: usize) -> SpanBlock {
        let values = self.v.row(self.first_row + index * KV_BLOCK);
        SpanBlock {
            keys: self.keys.row((self.first_block + index) * self.head_count + self.head),
            // SAFETY: a row of values has all heads.
            values: unsafe { values.add(self.head * self.head_dim) },
            value_stride: self.v.stride(),
            head_dim: self.head_dim,
        }
    }
}

impl HistoryBlock for SpanBlock {
    #[inline(always)]
    unsafe fn key<S: Simd>(self, s: S, d: usize) -> S::F32 {
        // SAFETY: a block has head_dim lines of 16 keys.
        unsafe { s.load(self.keys.add(d * KV_BLOCK)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, slot: usize, start: usize) -> S::F32 {
        let n = (self.head_dim - start).min(LANES);
        // SAFETY: `n` elements of the head are left from `start` on.
        unsafe { s.load_first(n, self.values.add(slot * self.value_stride + start)) }
    }

    #[inline(always)]
    fn prefetch<S: Simd>(self, _s: S, _head_dim: usize) {} // just written, so still near
}

/// One head of one row.
#[derive(Clone, Copy)]
struct Query {
    q: *const f32,
    out: *mut f32,
    /// It sees positions `0..visible`.
    visible: usize,
}

impl Heads {
    /// Attends with each head of each row, four at a time.
    #[inline(always)]
    fn attend<S: Simd, H: History>(
        self,
        s: S,
        history: H,
        rows: Range<usize>,
        heads: Range<usize>,
        visible: impl Fn(usize) -> usize,
    ) {
        let head_dim = self.head_dim;
        assert!(head_dim <= MAX_HEAD_DIM && heads.end * head_dim <= self.q.width());
        assert!(self.q.width() == self.out.width());
        let query = |index: usize| {
            let (row, head) = (rows.start + index / heads.len(), heads.start + index % heads.len());
            // SAFETY: the head lies within the row, as asserted.
            let (q, out) =
                unsafe { (self.q.row(row).add(head * head_dim), self.out.row(row).add(head * head_dim)) };
            Query { q, out, visible: visible(row) }
        };
        let count = rows.len() * heads.len();
        let mut first = 0;
        while first < count {
            let far = first == 0;
            match count - first {
                1 => attend_tile::<S, H, 1, 8, 4>(s, history, far, head_dim, |j| query(first + j)),
                2 => attend_tile::<S, H, 2, 4, 2>(s, history, far, head_dim, |j| query(first + j)),
                3 => attend_tile::<S, H, 3, 2, 1>(s, history, far, head_dim, |j| query(first + j)),
                _ => attend_tile::<S, H, 4, 2, 1>(s, history, far, head_dim, |j| query(first + j)),
            }
            first += 4;
        }
        if let Some(quantized) = self.quantized {
            let blocks = heads.start * head_dim / BLOCK..heads.end * head_dim / BLOCK;
            // SAFETY: these heads of these rows belong to this piece and were just written by it.
            unsafe { quant::quantize(s, self.out, quantized, rows, blocks) };
        }
    }
}

/// Q queries over one history, with scores of as many blocks together as there are registers for.
#[inline(always)]
fn attend_tile<S: Simd, H: History, const Q: usize, const WIDE: usize, const NARROW: usize>(
    s: S,
    history: H,
    far: bool,
    head_dim: usize,
    query: impl Fn(usize) -> Query,
) {
    let queries = std::array::from_fn(query);
    if S::WIDE {
        s.call(Tile::<H, Q, WIDE> { history, far, head_dim, queries });
    } else {
        s.call(Tile::<H, Q, NARROW> { history, far, head_dim, queries });
    }
}

/// Q queries over one history; scores of B blocks are computed together, so that enough sums are under way.
struct Tile<H, const Q: usize, const B: usize> {
    history: H,
    /// The history comes from memory: no other tile has just read it.
    far: bool,
    head_dim: usize,
    queries: [Query; Q],
}

impl<H: History, const Q: usize, const B: usize> Kernel for Tile<H, Q, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = s.splat(1.0 / (self.head_dim as f32).sqrt());
        let longest = self.queries.iter().map(|query| query.visible).max().unwrap_or(0);
        let block_count = longest.div_ceil(KV_BLOCK);
        let mut states =
            [State { largest: f32::NEG_INFINITY, total: s.zero(), sums: [s.zero(); MAX_CHUNKS] }; Q];
        for first in (0..block_count).step_by(B) {
            let n = (block_count - first).min(B);
            let mut blocks = [self.history.block(first); B];
            for (i, block) in blocks.iter_mut().enumerate().take(n) {
                *block = self.history.block(first + i);
            }
            if self.far {
                for next in first + B..(first + 2 * B).min(block_count) {
                    self.history.block(next).prefetch(s, self.head_dim);
                }
            }
            let mut scores = [[s.zero(); Q]; B];
            for d in 0..self.head_dim {
                let mut q = [s.zero(); Q];
                for j in 0..Q {
                    // SAFETY: a query has head_dim elements.
                    q[j] = s.splat(unsafe { self.queries[j].q.add(d).read() });
                }
                for i in 0..B {
                    // SAFETY: d < head_dim; blocks are complete before this step.
                    let key = unsafe { blocks[i].key(s, d) };
                    for j in 0..Q {
                        scores[i][j] = s.fma(q[j], key, scores[i][j]);
                    }
                }
            }
            for i in 0..n {
                let mut counts = [0; Q];
                for j in 0..Q {
                    scores[i][j] = s.mul(scores[i][j], scale);
                    counts[j] = self.queries[j].visible.saturating_sub((first + i) * KV_BLOCK).min(KV_BLOCK);
                }
                absorb(s, blocks[i], &scores[i], &counts, self.head_dim, &mut states);
            }
        }
        for (query, state) in self.queries.iter().zip(&states) {
            let inverse = s.splat(1.0 / s.sum(state.total));
            for (chunk, start) in (0..self.head_dim).step_by(LANES).enumerate() {
                let n = (self.head_dim - start).min(LANES);
                // SAFETY: the output has head_dim elements, which belong to this piece.
                unsafe { s.store_first(n, s.mul(state.sums[chunk], inverse), query.out.add(start)) };
            }
        }
    }
}

/// What a query has gathered so far.
#[derive(Clone, Copy)]
struct State<V> {
    largest: f32,
    /// Sum of weights, by lane.
    total: V,
    /// Sum of weighted values.
    sums: [V; MAX_CHUNKS],
}

#[repr(align(64))]
struct Weights<const Q: usize>([[f32; KV_BLOCK]; Q]);

/// Takes one block into the states; query j sees its first `counts[j]` positions.
#[inline(always)]
fn absorb<S: Simd, B: HistoryBlock, const Q: usize>(
    s: S,
    block: B,
    scores: &[S::F32; Q],
    counts: &[usize; Q],
    head_dim: usize,
    states: &mut [State<S::F32>; Q],
) {
    let chunks = head_dim.div_ceil(LANES);
    let mut weights = Weights([[0.0; KV_BLOCK]; Q]);
    for j in 0..Q {
        if counts[j] == 0 {
            continue;
        }
        let state = &mut states[j];
        let scores = s.first(counts[j], scores[j], s.splat(f32::NEG_INFINITY));
        let largest = s.largest(scores);
        if largest > state.largest {
            let shrink = exp(s, s.splat(state.largest - largest));
            state.largest = largest;
            state.total = s.mul(state.total, shrink);
            for sum in &mut state.sums[..chunks] {
                *sum = s.mul(*sum, shrink);
            }
        }
        let weight = exp(s, s.sub(scores, s.splat(state.largest)));
        state.total = s.add(state.total, weight);
        // SAFETY: a row of weights has 16 places.
        unsafe { s.store(weight, weights.0[j].as_mut_ptr()) };
    }
    // As many vectors of each query as there are registers for.
    let together = if S::WIDE { 4 } else { 4 / Q };
    let mut chunk = 0;
    while together >= 4 && chunk + 4 <= chunks {
        weigh::<S, B, Q, 4>(s, block, &weights, counts, chunk, states);
        chunk += 4;
    }
    while together >= 2 && chunk + 2 <= chunks {
        weigh::<S, B, Q, 2>(s, block, &weights, counts, chunk, states);
        chunk += 2;
    }
    while chunk < chunks {
        weigh::<S, B, Q, 1>(s, block, &weights, counts, chunk, states);
        chunk += 1;
    }
}

/// Adds the weighted values of a block, C vectors of the head from `chunk` on. Slots that a query does not see are
/// not touched: they may hold anything.
#[inline(always)]
fn weigh<S: Simd, B: HistoryBlock, const Q: usize, const C: usize>(
    s: S,
    block: B,
    weights: &Weights<Q>,
    counts: &[usize; Q],
    chunk: usize,
    states: &mut [State<S::F32>; Q],
) {
    let mut sums = [[s.zero(); C]; Q];
    for j in 0..Q {
        for c in 0..C {
            sums[j][c] = states[j].sums[chunk + c];
        }
    }
    let mut shared = KV_BLOCK;
    for &count in counts {
        shared = shared.min(count);
    }
    for slot in 0..shared {
        for c in 0..C {
            // SAFETY: the chunk is within the head; every query sees the slot, so it was stored.
            let value = unsafe { block.value(s, slot, (chunk + c) * LANES) };
            for j in 0..Q {
                sums[j][c] = s.fma(s.splat(weights.0[j][slot]), value, sums[j][c]);
            }
        }
    }
    for j in 0..Q {
        for slot in shared..counts[j] {
            for c in 0..C {
                // SAFETY: the chunk is within the head; this query sees the slot, so it was stored.
                let value = unsafe { block.value(s, slot, (chunk + c) * LANES) };
                sums[j][c] = s.fma(s.splat(weights.0[j][slot]), value, sums[j][c]);
            }
        }
        for c in 0..C {
            states[j].sums[chunk + c] = sums[j][c];
        }
    }
}

const MAX_CHUNKS: usize = MAX_HEAD_DIM / LANES;
