//! What was encoded lately: the turns of a conversation come again with each new one.

use std::sync::{Mutex, PoisonError};

use blake3::{Hash, Hasher};
use lru::LruCache;

use super::Part;

/// The tokens of parts that were encoded lately, the least recently used out first. Good from any thread.
///
/// Parts are known by a hash, and an owner finds only what was encoded for it.
pub struct Memo(Mutex<Known>);

struct Known {
    parts: LruCache<Hash, Tokens>,
    bytes: usize,
}

/// What a part became.
struct Tokens {
    ids: Box<[u32]>,
    /// What follows begins afresh: the part ended with an added token, and the model cares.
    fresh: bool,
}

impl Memo {
    /// The most that one holds.
    pub const BYTES: usize = 512 << 10;

    /// The name of a part that begins afresh, or does not.
    pub(super) fn name(owner: &str, part: &Part<'_>, fresh: bool) -> Hash {
        let (kind, text) = match part {
            Part::Template(text) => (0, text),
            Part::User(text) => (1, text),
        };
        let mut hasher = Hasher::new();
        hasher.update(&(owner.len() as u64).to_le_bytes()).update(owner.as_bytes());
        hasher.update(&[kind, fresh.into()]).update(text.as_bytes()).finalize()
    }

    /// Appends the tokens of the part of this name, and says whether what follows begins afresh.
    pub(super) fn recall(&self, name: &Hash, ids: &mut Vec<u32>) -> Option<bool> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = known.parts.get(name)?;
        ids.extend_from_slice(&tokens.ids);
        Some(tokens.fresh)
    }

    /// Knows the part of this name from now on.
    pub(super) fn keep(&self, name: Hash, ids: &[u32], fresh: bool) {
        let tokens = Tokens { ids: ids.into(), fresh };
        // One that pushed most others out would seldom come again.
        if tokens.bytes() > Self::BYTES / 4 {
            return;
        }
        let known = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.bytes += tokens.bytes();
        if let Some(before) = known.parts.put(name, tokens) {
            known.bytes -= before.bytes(); // another thread has just kept it, too
        }
        while known.bytes > Self::BYTES
            && let Some((_, oldest)) = known.parts.pop_lru()
        {
            known.bytes -= oldest.bytes();
        }
    }
}

impl Default for Memo {
    fn default() -> Self {
        Self(Mutex::new(Known { parts: LruCache::unbounded(), bytes: 0 }))
    }
}

impl Tokens {
    fn bytes(&self) -> usize {
        size_of_val::<[u32]>(&self.ids) + ENTRY_BYTES
    }
}

/// About what an entry takes beside its tokens: the name twice, the list's links, a place in the map, the allocator's own.
const ENTRY_BYTES: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_recalled_by_its_owner_until_it_is_the_oldest() {
        let memo = Memo::default();
        let name = |text: &str| Memo::name("acme", &Part::User(text), false);
        memo.keep(name("one"), &[1, 2], true);
        let mut ids = vec![7];
        assert_eq!(memo.recall(&name("one"), &mut ids), Some(true));
        assert_eq!(ids, [7, 1, 2]);
        for other in [
            name("two"),
            Memo::name("acme", &Part::User("one"), true),
            Memo::name("acme", &Part::Template("one"), false),
            Memo::name("acm", &Part::User("eone"), false),
        ] {
            assert_eq!(memo.recall(&other, &mut ids), None);
        }
        memo.keep(name("large"), &vec![0; Memo::BYTES / 16 * 5], false);
        assert_eq!(memo.recall(&name("large"), &mut ids), None, "it would push the others out");
        for i in 0..Memo::BYTES / ENTRY_BYTES {
            memo.keep(name(&i.to_string()), &[i as u32], false);
            memo.keep(name(&i.to_string()), &[i as u32], false);
            if i == 1000 {
                assert!(memo.recall(&name("one"), &mut ids).is_some());
            }
        }
        let known = memo.0.into_inner().unwrap();
        assert!(known.bytes <= Memo::BYTES && known.bytes > Memo::BYTES - 2 * ENTRY_BYTES);
        assert_eq!(known.bytes, known.parts.iter().map(|(_, tokens)| tokens.bytes()).sum::<usize>());
        assert!(!known.parts.contains(&name("0")) && known.parts.contains(&name("one")));
    }
}
