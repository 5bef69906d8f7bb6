//! What queries look back on: blocks of sixteen positions, from wherever they are.

use crate::kv::{KV_BLOCK, KvCells, padded};
use crate::memory::LINE;
use crate::plane::Plane;
use crate::simd::{LANES, Simd};

/// The positions a query looks back on.
pub(super) trait History: Copy {
    type Block: HistoryBlock;

    /// Loading converts.
    const CONVERTS: bool;

    /// The block of positions `16 * index ..`.
    fn block(self, index: usize) -> Self::Block;
}

/// Sixteen positions of one head.
pub(super) trait HistoryBlock: Copy {
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
}

/// A block that is asked for ahead of time: it may come from memory.
pub(super) trait Ask: Copy {
    /// Element `d` of the keys.
    fn ask_key<S: Simd>(self, s: S, d: usize);

    /// The value at `slot`.
    fn ask_value<S: Simd>(self, s: S, slot: usize);
}

/// Nothing is asked for.
impl Ask for () {
    #[inline(always)]
    fn ask_key<S: Simd>(self, _s: S, _d: usize) {}

    #[inline(always)]
    fn ask_value<S: Simd>(self, _s: S, _slot: usize) {}
}

#[derive(Clone, Copy)]
pub(super) struct CachedHistory<'a> {
    pub(super) cells: KvCells,
    pub(super) layer: usize,
    pub(super) head: usize,
    pub(super) table: &'a [u32],
}

#[derive(Clone, Copy)]
pub(super) struct CachedBlock {
    keys: *const u16,
    values: *const u16,
    value_stride: usize,
}

impl History for CachedHistory<'_> {
    type Block = CachedBlock;

    const CONVERTS: bool = true;

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
}

impl Ask for CachedBlock {
    #[inline(always)]
    fn ask_key<S: Simd>(self, s: S, d: usize) {
        s.prefetch(self.keys.wrapping_add(d * KV_BLOCK).cast());
    }

    #[inline(always)]
    fn ask_value<S: Simd>(self, s: S, slot: usize) {
        for start in (0..self.value_stride).step_by(LINE / size_of::<u16>()) {
            s.prefetch(self.values.wrapping_add(slot * self.value_stride + start).cast());
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct SpanHistory {
    pub(super) v: Plane,
    pub(super) keys: Plane,
    pub(super) head_count: usize,
    pub(super) first_block: usize,
    pub(super) first_row: usize,
    pub(super) head: usize,
    pub(super) head_dim: usize,
}

#[derive(Clone, Copy)]
pub(super) struct SpanBlock {
    keys: *const f32,
    values: *const f32,
    value_stride: usize,
    head_dim: usize,
}

impl History for SpanHistory {
    type Block = SpanBlock;

    const CONVERTS: bool = false;

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
}

/// It was just written, so it is near.
impl Ask for SpanBlock {
    #[inline(always)]
    fn ask_key<S: Simd>(self, _s: S, _d: usize) {}

    #[inline(always)]
    fn ask_value<S: Simd>(self, _s: S, _slot: usize) {}
}

/// Keys or values of a few blocks that were converted, from block `first` on.
#[derive(Clone, Copy)]
pub(super) struct NearHistory {
    pub(super) at: *mut f32,
    pub(super) first: usize,
    pub(super) head_dim: usize,
}

/// The keys of a block, or its values.
#[derive(Clone, Copy)]
pub(super) struct NearBlock {
    at: *mut f32,
    value_stride: usize,
}

impl NearHistory {
    /// Converts the keys of a block.
    ///
    /// # Safety
    /// There is room for the block of this index; it is complete.
    #[inline(always)]
    pub(super) unsafe fn convert_keys<S: Simd>(self, s: S, index: usize, block: impl HistoryBlock) {
        let near = self.block(index);
        for d in 0..self.head_dim {
            // SAFETY: a near block has as many lines of keys as any other.
            unsafe { s.store(block.key(s, d), near.at.add(d * KV_BLOCK)) };
        }
    }

    /// Converts the values of a block's first `stored` positions.
    ///
    /// # Safety
    /// There is room for the block of this index; it is complete, and so many of its positions are stored.
    #[inline(always)]
    pub(super) unsafe fn convert_values<S: Simd>(
        self,
        s: S,
        index: usize,
        block: impl HistoryBlock,
        stored: usize,
    ) {
        let NearBlock { at, value_stride } = self.block(index);
        for slot in 0..stored {
            for start in (0..value_stride).step_by(LANES) {
                // SAFETY: a near block has as many rows of values as any other.
                unsafe { s.store(block.value(s, slot, start), at.add(slot * value_stride + start)) };
            }
        }
    }
}

impl History for NearHistory {
    type Block = NearBlock;

    const CONVERTS: bool = false;

    #[inline(always)]
    fn block(self, index: usize) -> NearBlock {
        let value_stride = padded(self.head_dim);
        NearBlock { at: self.at.wrapping_add((index - self.first) * value_stride * KV_BLOCK), value_stride }
    }
}

impl HistoryBlock for NearBlock {
    #[inline(always)]
    unsafe fn key<S: Simd>(self, s: S, d: usize) -> S::F32 {
        // SAFETY: a block has head_dim lines of 16 keys.
        unsafe { s.load(self.at.add(d * KV_BLOCK)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, slot: usize, start: usize) -> S::F32 {
        // SAFETY: value rows are padded to whole vectors.
        unsafe { s.load(self.at.add(slot * self.value_stride + start)) }
    }
}
