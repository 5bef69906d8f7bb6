//! Attention over rows of spans and over cached positions: the pieces that a step falls into.

mod history;
mod softmax;

use std::ops::Range;

use self::history::{CachedHistory, SpanHistory};
pub(crate) use self::softmax::Heads;
use crate::isa::Kernel;
use crate::kv::{KV_BLOCK, KvCells, KvRow, MAX_HEAD_DIM};
use crate::plane::Plane;
use crate::rope::RopeTable;
use crate::simd::Simd;

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

/// Rotates queries and keys of some rows and heads; queries go to `rotated`, keys and values into the store.
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
    pub(crate) heads: Range<usize>,
    pub(crate) kv_heads: Range<usize>,
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
            // SAFETY: rows of planes have their width, whole heads; q, k and v are complete; these heads of the row of `rotated` and
            // of the row's position in the store belong to this piece alone, as no two rows of a step share a position
            // of a block (`Program::check_store`).
            unsafe {
                let of = |plane: Plane, head: usize| {
                    assert!((head + 1) * head_dim <= plane.width());
                    plane.row(row).add(head * head_dim)
                };
                for head in self.heads.clone() {
                    let q = std::slice::from_raw_parts(of(self.q, head), head_dim);
                    let rotated = std::slice::from_raw_parts_mut(of(self.rotated, head), head_dim);
                    self.rope.rotate(position, q, rotated);
                }
                for head in self.kv_heads.clone() {
                    let k = std::slice::from_raw_parts(of(self.k, head), head_dim);
                    let v = std::slice::from_raw_parts(of(self.v, head), head_dim);
                    self.rope.rotate(position, k, key);
                    self.cells.store(s, (block, self.layer, head), slot, key, v);
                }
            }
        }
    }
}
