//! Key/value memory: one pool of blocks for all live sequences of a decoder, bounded in bytes, outside the model.

use antiphon_kernels::{KV_BLOCK, KvStore};

use crate::decoder::DecoderConfig;
use crate::error::{Error, ErrorKind, Result};

/// The blocks of one decoder's keys and values. Sequences reserve what they can come to need before they start, so a
/// running sequence never runs out.
pub struct BlockPool {
    store: KvStore,
    free: Vec<u32>,
    block_bytes: usize,
}

/// The blocks that one sequence owns, in order of position. Give it back with [`BlockPool::release`].
#[derive(Debug)]
pub struct BlockTable(Vec<u32>);

impl BlockPool {
    /// A pool of as many blocks as fit in `budget_bytes`, and no more than `max_tokens` positions can use.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBudget`] when not even one block fits.
    pub fn new(config: &DecoderConfig, budget_bytes: usize, max_tokens: usize) -> Result<Self> {
        let block_bytes = KvStore::block_bytes(config.layers, config.kv_heads, config.head_dim);
        let blocks = (budget_bytes / block_bytes).min(blocks_for(max_tokens));
        if blocks == 0 {
            return Err(Error::new(
                ErrorKind::OutOfBudget,
                format!("key/value pool: one block needs {block_bytes} bytes, the limit is {budget_bytes}"),
            ));
        }
        let store = KvStore::new(config.layers, config.kv_heads, config.head_dim, blocks)
            .map_err(|error| Error::new(ErrorKind::OutOfBudget, format!("key/value pool: {error}")))?;
        // Handed out from the end: low blocks first.
        let free = (0..blocks as u32).rev().collect();
        Ok(Self { store, free, block_bytes })
    }

    /// Takes blocks for `tokens` positions, or nothing when there are not enough free ones now.
    pub fn reserve(&mut self, tokens: usize) -> Option<BlockTable> {
        let left = self.free.len().checked_sub(blocks_for(tokens))?;
        Some(BlockTable(self.free.split_off(left)))
    }

    /// Takes a sequence's blocks back.
    pub fn release(&mut self, table: BlockTable) {
        self.free.extend(table.0.into_iter().rev());
    }

    /// Positions that fit in the whole pool, used or not.
    pub fn capacity_tokens(&self) -> usize {
        self.store.blocks() * KV_BLOCK
    }

    /// Bytes of the blocks that sequences hold now.
    pub fn used_bytes(&self) -> usize {
        (self.store.blocks() - self.free.len()) * self.block_bytes
    }

    /// Bytes of the whole pool.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    pub(crate) fn store(&mut self) -> &mut KvStore {
        &mut self.store
    }
}

impl BlockTable {
    /// The block ids, in order of position.
    pub fn blocks(&self) -> &[u32] {
        &self.0
    }
}

fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(KV_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DecoderConfig {
        DecoderConfig::tiny()
    }

    #[test]
    fn blocks_come_back() {
        let mut pool = BlockPool::new(&config(), 1 << 20, 64).unwrap();
        assert_eq!(pool.capacity_tokens(), 64);
        let a = pool.reserve(17).unwrap();
        assert_eq!(a.blocks(), [1, 0]);
        assert!(pool.reserve(33).is_none(), "two blocks are left, three are asked for");
        assert!(pool.used_bytes() > 0);
        pool.release(a);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.reserve(64).unwrap().blocks().len(), 4);
    }

    #[test]
    fn a_budget_below_one_block_is_refused() {
        let error = BlockPool::new(&config(), 10, 64).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    }
}
