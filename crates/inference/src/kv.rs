//! Key/value memory: one pool of blocks for all live sequences of a decoder, bounded in bytes, outside the model.
//!
//! A block whose rows are all written can serve every later sequence that begins with the same tokens. Such blocks are found
//! by a chain of hashes: a block's hash covers its tokens and the hash of the block before it, so an equal hash means an
//! equal beginning. The first link is the owner's name, so that one tenant never finds (nor times) another's blocks. A block
//! that no sequence holds stays findable until its place is needed; least recently used goes first.

use std::collections::{BTreeMap, HashMap};

use antiphon_kernels::{KV_BLOCK, KvStore};

use crate::decoder::DecoderConfig;
use crate::error::{Error, ErrorKind, Result};

/// The blocks of one decoder's keys and values. Sequences reserve what they can come to need before they start, so a
/// running sequence never runs out.
pub struct BlockPool {
    store: KvStore,
    free: Vec<u32>,
    /// What is known of each block, by its id.
    blocks: Vec<Block>,
    /// Whole blocks by the hash of their beginning.
    known: HashMap<Hash, u32>,
    /// Blocks that no sequence holds and that can be found, by the moment they were let go.
    idle: BTreeMap<u64, u32>,
    /// Counts what is let go: the order in which idle blocks are given up.
    clock: u64,
    block_bytes: usize,
}

#[derive(Clone, Default)]
struct Block {
    /// Sequences that hold it.
    holders: u32,
    /// Where it is in `known`.
    hash: Option<Hash>,
    /// Where it is in `idle`.
    idle_since: Option<u64>,
}

type Hash = blake3::Hash;

/// The blocks that one sequence holds, in order of position. Give it back with [`BlockPool::release`].
#[derive(Debug)]
pub struct BlockTable {
    blocks: Vec<u32>,
    /// The chain of hashes so far: the owner's, then one for each whole block whose tokens are known.
    chain: Vec<Hash>,
    cached_tokens: usize,
}

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
        Ok(Self {
            store,
            // Handed out from the end: low blocks first.
            free: (0..blocks as u32).rev().collect(),
            blocks: vec![Block::default(); blocks],
            known: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            block_bytes,
        })
    }

    /// Takes blocks for `tokens` positions, or nothing when there are not enough free ones now.
    pub fn reserve(&mut self, tokens: usize) -> Option<BlockTable> {
        self.reserve_after(Vec::new(), blocks_for(tokens), Vec::new())
    }

    /// Takes blocks for `tokens` positions of which the first are `prompt`'s; those that the pool still has of an equal
    /// beginning of the same `owner` are shared. At least the last token of the prompt is left to be computed.
    pub fn reserve_shared(&mut self, owner: &str, prompt: &[u32], tokens: usize) -> Option<BlockTable> {
        let mut chain = vec![blake3::hash(owner.as_bytes())];
        let mut shared = Vec::new();
        for tokens in prompt[..prompt.len().saturating_sub(1)].chunks_exact(KV_BLOCK) {
            let hash = link(chain.last().expect("it begins with the owner"), tokens);
            let Some(&block) = self.known.get(&hash) else { break };
            chain.push(hash);
            shared.push(block);
        }
        self.reserve_after(shared, blocks_for(tokens), chain)
    }

    fn reserve_after(&mut self, shared: Vec<u32>, count: usize, chain: Vec<Hash>) -> Option<BlockTable> {
        let fresh = count.saturating_sub(shared.len());
        let idle_shared = shared.iter().filter(|&&block| self.blocks[block as usize].holders == 0).count();
        if self.free.len() + self.idle.len() - idle_shared < fresh {
            return None;
        }
        let cached_tokens = shared.len() * KV_BLOCK;
        for &block in &shared {
            self.hold(block);
        }
        let mut blocks = shared;
        for _ in 0..fresh {
            let block = self.free.pop().unwrap_or_else(|| self.give_up());
            self.hold(block);
            blocks.push(block);
        }
        Some(BlockTable { blocks, chain, cached_tokens })
    }

    /// Says which tokens a sequence's rows were written for, from its beginning: whole blocks can be found from now on. Does
    /// nothing for a table that was reserved without an owner.
    pub fn publish(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        let Some(done) = table.chain.len().checked_sub(1) else { return };
        for (index, tokens) in tokens.chunks_exact(KV_BLOCK).enumerate().skip(done) {
            let hash = link(&table.chain[index], tokens);
            table.chain.push(hash);
            // Another sequence may have written the same at the same time: one of the two is enough.
            let block = table.blocks[index];
            self.known.entry(hash).or_insert_with(|| {
                self.blocks[block as usize].hash = Some(hash);
                block
            });
        }
    }

    /// Takes a sequence's blocks back.
    pub fn release(&mut self, table: BlockTable) {
        // From the last to the first, so that the end of a beginning is given up before its start.
        for block in table.blocks.into_iter().rev() {
            let state = &mut self.blocks[block as usize];
            state.holders -= 1;
            if state.holders > 0 {
                continue;
            }
            if state.hash.is_none() {
                self.free.push(block);
                continue;
            }
            self.clock += 1;
            state.idle_since = Some(self.clock);
            self.idle.insert(self.clock, block);
        }
    }

    fn hold(&mut self, block: u32) {
        let state = &mut self.blocks[block as usize];
        state.holders += 1;
        if let Some(since) = state.idle_since.take() {
            self.idle.remove(&since);
        }
    }

    /// The idle block that was let go first, for another use.
    fn give_up(&mut self) -> u32 {
        let (_, block) = self.idle.pop_first().expect("there is an idle block: the caller counted");
        let state = &mut self.blocks[block as usize];
        state.idle_since = None;
        if let Some(hash) = state.hash.take() {
            self.known.remove(&hash);
        }
        block
    }

    /// Positions that fit in the whole pool, used or not.
    pub fn capacity_tokens(&self) -> usize {
        self.store.blocks() * KV_BLOCK
    }

    /// Bytes of the blocks that sequences hold now.
    pub fn used_bytes(&self) -> usize {
        (self.store.blocks() - self.free.len() - self.idle.len()) * self.block_bytes
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
        &self.blocks
    }

    /// Positions from the beginning whose rows were there already.
    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens
    }
}

/// The hash of a beginning that ends with these tokens.
fn link(before: &Hash, tokens: &[u32]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes());
    for token in tokens {
        hasher.update(&token.to_le_bytes());
    }
    hasher.finalize()
}

fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(KV_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(tokens: usize) -> BlockPool {
        BlockPool::new(&DecoderConfig::tiny(), 1 << 20, tokens).unwrap()
    }

    fn prompt(length: usize) -> Vec<u32> {
        (0..length as u32).collect()
    }

    #[test]
    fn blocks_come_back() {
        let mut pool = pool(64);
        assert_eq!(pool.capacity_tokens(), 64);
        let a = pool.reserve(17).unwrap();
        assert_eq!(a.blocks(), [0, 1]);
        assert!(pool.reserve(33).is_none(), "two blocks are left, three are asked for");
        assert!(pool.used_bytes() > 0);
        pool.release(a);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.reserve(64).unwrap().blocks().len(), 4);
    }

    #[test]
    fn a_budget_below_one_block_is_refused() {
        let error = BlockPool::new(&DecoderConfig::tiny(), 10, 64).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
    }

    #[test]
    fn an_equal_beginning_is_shared_while_it_is_in_use_and_after() {
        let mut pool = pool(160);
        let text = prompt(40);
        let mut first = pool.reserve_shared("a", &text, 48).unwrap();
        assert_eq!(first.cached_tokens(), 0);
        pool.publish(&mut first, &text[..20]);
        let second = pool.reserve_shared("a", &text, 48).unwrap();
        assert_eq!((second.cached_tokens(), second.blocks()[0]), (16, first.blocks()[0]));
        pool.publish(&mut first, &text);
        pool.release(first);
        pool.release(second);
        assert_eq!(pool.used_bytes(), 0, "idle blocks are nobody's");
        let third = pool.reserve_shared("a", &text, 48).unwrap();
        assert_eq!(third.cached_tokens(), 32);
        let mut other = text.clone();
        other[3] += 1;
        assert_eq!(
            pool.reserve_shared("a", &other, 48).unwrap().cached_tokens(),
            0,
            "the first block differs"
        );
    }

    #[test]
    fn the_last_token_is_always_computed() {
        let mut pool = pool(64);
        let text = prompt(32);
        let mut table = pool.reserve_shared("a", &text, 33).unwrap();
        pool.publish(&mut table, &text);
        pool.release(table);
        assert_eq!(pool.reserve_shared("a", &text, 33).unwrap().cached_tokens(), 16);
    }

    #[test]
    fn tenants_never_share() {
        let mut pool = pool(128);
        let text = prompt(20);
        let mut table = pool.reserve_shared("a", &text, 32).unwrap();
        pool.publish(&mut table, &text);
        assert_eq!(pool.reserve_shared("b", &text, 32).unwrap().cached_tokens(), 0);
        assert_eq!(pool.reserve_shared("a", &text, 32).unwrap().cached_tokens(), 16);
    }

    #[test]
    fn what_was_used_longest_ago_is_given_up_first_and_ends_before_starts() {
        let mut pool = pool(64);
        let texts = [prompt(33), prompt(33).into_iter().map(|token| token + 100).collect()];
        for text in &texts {
            let mut table = pool.reserve_shared("a", text, 32).unwrap();
            pool.publish(&mut table, &text[..32]);
            pool.release(table);
        }
        let held = pool.reserve(16).unwrap();
        assert_eq!(
            pool.reserve_shared("a", &texts[0], 16).unwrap().cached_tokens(),
            16,
            "its second block went"
        );
        assert!(pool.reserve_shared("a", &texts[1], 33).is_none(), "two are shared, and no third is free");
        pool.release(held);
        assert_eq!(pool.reserve_shared("a", &texts[1], 33).unwrap().cached_tokens(), 32);
    }

    #[test]
    fn two_that_write_the_same_at_once_keep_their_own_blocks() {
        let mut pool = pool(64);
        let text = prompt(17);
        let (mut a, mut b) =
            (pool.reserve_shared("a", &text, 17).unwrap(), pool.reserve_shared("a", &text, 17).unwrap());
        assert_ne!(a.blocks()[0], b.blocks()[0]);
        pool.publish(&mut a, &text);
        pool.publish(&mut b, &text);
        pool.release(a);
        pool.release(b);
        assert_eq!((pool.used_bytes(), pool.idle.len(), pool.free.len()), (0, 1, 3));
    }
}
