//! The ledger: how the memory limit is shared out before anything is allocated.

use std::sync::Arc;

use antiphon_kernels::KvStore;

use crate::config::EngineConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::responder::Responder;

/// What each part may use. Caches shrink first, then key/value rows, down to one context for each responder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    pub(crate) kv_bytes_each: usize,
    pub(crate) cache_bytes: usize,
    /// Requests and texts that wait.
    pub(crate) queue_bytes: usize,
}

impl Plan {
    /// `model_bytes`: weights, vocabularies and patterns.
    pub(crate) fn new(
        config: &EngineConfig,
        model_bytes: usize,
        responders: &[Arc<Responder>],
    ) -> Result<Self> {
        let needs: Vec<usize> = responders.iter().map(|responder| one_context(responder)).collect();
        let limit = config.memory_limit_bytes.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self::share(
            limit,
            model_bytes,
            &needs,
            config.kv_cache_bytes as usize,
            config.cache.max_bytes as usize,
        )
    }

    /// `needs`: bytes of one context for each responder.
    fn share(
        limit: Option<usize>,
        model_bytes: usize,
        needs: &[usize],
        kv_bytes: usize,
        cache_bytes: usize,
    ) -> Result<Self> {
        let count = needs.len().max(1);
        let kv_wanted = kv_bytes / count;
        let Some(limit) = limit else {
            return Ok(Self { kv_bytes_each: kv_wanted, cache_bytes, queue_bytes: usize::MAX });
        };
        let fixed = model_bytes + SCRATCH_BYTES + QUEUE_BYTES;
        let kv_least = needs.iter().copied().max().unwrap_or(0).min(kv_wanted);
        let needed = fixed + kv_least * needs.len();
        let Some(spare) = limit.checked_sub(needed) else {
            let what = format!("configuration key `memory_limit_bytes` is {limit}, the models need {needed}");
            return Err(Error::new(ErrorKind::OutOfBudget, what));
        };
        let cache_bytes = cache_bytes.min(spare);
        let kv_bytes_each =
            if needs.is_empty() { 0 } else { kv_wanted.min(kv_least + (spare - cache_bytes) / count) };
        // What nobody else wants is room for callers with many texts.
        let queue_bytes = limit - (fixed - QUEUE_BYTES) - cache_bytes - kv_bytes_each * needs.len();
        Ok(Self { kv_bytes_each, cache_bytes, queue_bytes })
    }
}

fn one_context(responder: &Responder) -> usize {
    let config = responder.decoder.config();
    let blocks = responder.context_tokens.div_ceil(antiphon_kernels::KV_BLOCK);
    blocks.saturating_mul(KvStore::block_bytes(config.layers, config.kv_heads, config.head_dim))
}

/// Activations of the longest pass, thread stacks as far as they are touched, stream logs.
const SCRATCH_BYTES: usize = 20 << 20;

/// Requests that wait, under a limit: at least 1000 of 4 KB.
const QUEUE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn without_a_limit_everybody_gets_what_was_asked() {
        let plan = Plan::share(None, 10 * MIB, &[MIB, MIB], 256 * MIB, 50 * MIB).unwrap();
        assert_eq!((plan.kv_bytes_each, plan.cache_bytes), (128 * MIB, 50 * MIB));
        assert_eq!(plan.queue_bytes, usize::MAX);
    }

    #[test]
    fn a_limit_never_gives_out_more_than_there_is() {
        for limit in [36 * MIB, 40 * MIB, 100 * MIB, 500 * MIB] {
            let plan = Plan::share(Some(limit), 10 * MIB, &[MIB, MIB], 256 * MIB, 50 * MIB).unwrap();
            let given = SCRATCH_BYTES + plan.queue_bytes + 2 * plan.kv_bytes_each + plan.cache_bytes;
            assert!(10 * MIB + given <= limit, "{limit}");
            assert!(plan.kv_bytes_each >= MIB);
        }
    }

    #[test]
    fn faults_30_a_limit_that_is_too_small_says_what_is_needed() {
        let error = Plan::share(Some(MIB), 10 * MIB, &[MIB], 256 * MIB, 50 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
        assert!(error.to_string().contains(&(35 * MIB).to_string()), "{error}");
    }
}
