//! What an automaton works with, kept between the scans of one expression.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use regex_automata::meta;

use crate::limits::EXPRESSION_IDLE_CACHES_BYTES_MAX;

/// What all caches that are not in use hold, bytes. One number for the process, because it is the
/// memory of the process that it bounds.
static IDLE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Automaton caches that are not in use: at most one for each scan thread, and over all
/// expressions at most [`EXPRESSION_IDLE_CACHES_BYTES_MAX`].
#[derive(Default)]
pub(super) struct CachePool {
    /// With their sizes.
    free: Mutex<Vec<(usize, meta::Cache)>>,
}

impl CachePool {
    /// One that is free, or a new one.
    pub(super) fn take(&self, regex: &meta::Regex) -> meta::Cache {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some((bytes, cache)) = free else { return regex.create_cache() };
        IDLE_BYTES.fetch_sub(bytes, Relaxed);
        cache
    }

    /// Keeps one for the next, as far as there is room.
    pub(super) fn give(&self, cache: meta::Cache) {
        let bytes = cache.memory_usage();
        if IDLE_BYTES.fetch_add(bytes, Relaxed) + bytes > EXPRESSION_IDLE_CACHES_BYTES_MAX {
            IDLE_BYTES.fetch_sub(bytes, Relaxed);
            return;
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push((bytes, cache));
    }
}

impl Drop for CachePool {
    fn drop(&mut self) {
        let free = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        IDLE_BYTES.fetch_sub(free.iter().map(|(bytes, _)| bytes).sum(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::Input;

    #[test]
    fn caches_that_wait_for_their_next_use_stay_within_their_bound() {
        let text = "words of many kinds, 123 of them\n".repeat(10);
        let regex = meta::Regex::new(r"(\w+ ){3,9}\pL*").unwrap();
        let pools: Vec<_> = (0..2_000).map(|_| CachePool::default()).collect();
        let mut used = 0;
        for pool in &pools {
            let mut cache = pool.take(&regex);
            assert!(regex.search_with(&mut cache, &Input::new(&text)).is_some());
            used += cache.memory_usage();
            pool.give(cache);
        }
        assert!(used > EXPRESSION_IDLE_CACHES_BYTES_MAX, "{used}");
        let idle = |pool: &CachePool| {
            pool.free.lock().unwrap().iter().map(|(bytes, _)| bytes).sum::<usize>()
        };
        let held: usize = pools.iter().map(idle).sum();
        assert!(held > 0 && held <= EXPRESSION_IDLE_CACHES_BYTES_MAX, "{held}");
    }
}
