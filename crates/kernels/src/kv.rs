//! Keys and values of past positions, in blocks of 16 positions, as f16.
//!
//! All layers of a block lie together, so that a block can be shared, copied or given back as one thing. For each
//! layer and head of a block:
//!
//! ```text
//! keys    [head_dim][16 positions]              a score of 16 positions needs no sum across lanes
//! values  [16 positions][head_dim, padded to 16]
//! ```

use crate::matrix::ShapeError;
use crate::memory::Aligned;
use crate::simd::{LANES, Simd};

/// Positions of a block.
pub const KV_BLOCK: usize = LANES;

/// The largest head the attention kernels take.
pub const MAX_HEAD_DIM: usize = 256;

/// Room for the keys and values of many sequences; which block belongs to whom is the caller's business.
pub struct KvStore {
    memory: Aligned,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    blocks: usize,
}

/// One row of a step: whose it is and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct KvRow<'a> {
    /// Ids of the sequence's blocks, for positions 0..16, 16..32 and so on.
    pub table: &'a [u32],
    /// The row's position in its sequence.
    pub position: u32,
}

impl KvStore {
    /// Makes room for `blocks` blocks. Memory is taken from the system as blocks are used.
    ///
    /// # Errors
    /// A size of 0, `head_dim` above [`MAX_HEAD_DIM`], or no memory.
    pub fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        blocks: usize,
    ) -> Result<KvStore, ShapeError> {
        for (name, value) in [("layers", layers), ("kv_heads", kv_heads), ("head_dim", head_dim)] {
            if value == 0 {
                return Err(ShapeError::new(format!("key/value store: {name} is 0, expected at least 1")));
            }
        }
        if head_dim > MAX_HEAD_DIM {
            return Err(ShapeError::new(format!(
                "key/value store: head_dim is {head_dim}, expected at most {MAX_HEAD_DIM}"
            )));
        }
        if blocks > u32::MAX as usize {
            return Err(ShapeError::new(format!(
                "key/value store: {blocks} blocks, expected at most 2^32 - 1"
            )));
        }
        let bytes = layers
            .checked_mul(kv_heads)
            .and_then(|heads| heads.checked_mul(head_bytes(head_dim)))
            .and_then(|block| block.checked_mul(blocks));
        let memory = bytes.and_then(Aligned::zeroed).ok_or_else(|| {
            ShapeError::new(format!(
                "key/value store: no memory for {blocks} blocks of {layers} layers, {kv_heads} heads of {head_dim}"
            ))
        })?;
        Ok(KvStore { memory, layers, kv_heads, head_dim, blocks })
    }

    /// Blocks there is room for.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Bytes of one block of such a model; `usize::MAX` where that does not fit.
    pub fn block_bytes(layers: usize, kv_heads: usize, head_dim: usize) -> usize {
        layers.saturating_mul(kv_heads).saturating_mul(head_bytes(head_dim))
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    pub(crate) fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim
    }

    pub(crate) fn cells(&mut self) -> KvCells {
        KvCells {
            at: self.memory.as_mut_ptr(),
            layers: self.layers,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            blocks: self.blocks,
        }
    }
}

/// A store as the pieces of a step see it.
#[derive(Clone, Copy)]
pub(crate) struct KvCells {
    at: *mut u8,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    blocks: usize,
}

impl KvCells {
    pub(crate) fn head_dim(self) -> usize {
        self.head_dim
    }

    /// Keys of one head in one block: head_dim lines of 16.
    #[inline(always)]
    pub(crate) fn keys(self, block: u32, layer: usize, head: usize) -> *mut u16 {
        let block = block as usize;
        assert!(block < self.blocks && layer < self.layers && head < self.kv_heads);
        let index = (block * self.layers + layer) * self.kv_heads + head;
        // SAFETY: within the store, as asserted.
        unsafe { self.at.add(index * head_bytes(self.head_dim)).cast() }
    }

    /// Values of one head in one block: 16 rows of `padded(head_dim)`.
    #[inline(always)]
    pub(crate) fn values(self, block: u32, layer: usize, head: usize) -> *mut u16 {
        // SAFETY: the values stand behind the keys.
        unsafe { self.keys(block, layer, head).add(self.head_dim * KV_BLOCK) }
    }

    /// Stores one position of one head.
    ///
    /// # Safety
    /// `key` and `value` have head_dim values; no other thread touches this position of this block and layer.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(
        self,
        s: S,
        (block, layer, head): (u32, usize, usize),
        slot: usize,
        key: &[f32],
        value: &[f32],
    ) {
        assert!(slot < KV_BLOCK && key.len() == self.head_dim && value.len() == self.head_dim);
        let (keys, values) = (self.keys(block, layer, head), self.values(block, layer, head));
        for start in (0..self.head_dim).step_by(LANES) {
            let n = (self.head_dim - start).min(LANES);
            let mut halves = [0u16; LANES];
            // SAFETY: `n` values from `start` on are in both slices; the position's cells are in the store, whose
            // value rows are padded to 16.
            unsafe {
                s.store_f16(s.load_first(n, key[start..].as_ptr()), halves.as_mut_ptr());
                for (i, half) in halves[..n].iter().enumerate() {
                    keys.add((start + i) * KV_BLOCK + slot).write(*half);
                }
                let value = s.load_first(n, value[start..].as_ptr());
                s.store_f16(value, values.add(slot * padded(self.head_dim) + start));
            }
        }
    }
}

/// head_dim rounded up to whole vectors.
#[inline(always)]
pub(crate) const fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Keys and values of one head in one block.
fn head_bytes(head_dim: usize) -> usize {
    KV_BLOCK.saturating_mul(head_dim.saturating_add(padded(head_dim))).saturating_mul(size_of::<u16>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_blocks_times_block_bytes() {
        let store = KvStore::new(3, 2, 24, 5).expect("small");
        assert_eq!(KvStore::block_bytes(3, 2, 24), 3 * 2 * 16 * (24 + 32) * 2);
        assert_eq!((store.blocks(), store.bytes()), (5, 5 * KvStore::block_bytes(3, 2, 24)));
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for (layers, heads, dim, blocks) in [
            (0, 1, 8, 1),
            (1, 0, 8, 1),
            (1, 1, 0, 1),
            (1, 1, 257, 1),
            (usize::MAX, 2, 64, 9),
            (1, 1, 64, 1 << 60),
        ] {
            assert!(KvStore::new(layers, heads, dim, blocks).is_err());
        }
    }
}
