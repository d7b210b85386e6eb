//! What automata work with, kept between the scans of one expression.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use regex_automata::meta;

use crate::limits::EXPRESSION_IDLE_CACHES_BYTES_MAX;

/// What may be kept of automata that are not in use, over all expressions that share it: at most
/// [`EXPRESSION_IDLE_CACHES_BYTES_MAX`]. Clones are the same.
#[derive(Clone, Default)]
pub struct AutomatonMemory {
    idle_bytes: Arc<AtomicUsize>,
}

impl AutomatonMemory {
    /// Takes room; `false`: there is none.
    fn take(&self, bytes: usize) -> bool {
        let before = self.idle_bytes.fetch_add(bytes, Relaxed);
        let fits = before + bytes <= EXPRESSION_IDLE_CACHES_BYTES_MAX;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.idle_bytes.fetch_sub(bytes, Relaxed);
    }
}

impl fmt::Debug for AutomatonMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes idle", self.idle_bytes.load(Relaxed))
    }
}

/// Automaton caches of one expression that are not in use: at most one for each scan thread.
#[derive(Default)]
pub(super) struct CachePool {
    memory: AutomatonMemory,
    /// With their sizes.
    free: Mutex<Vec<(usize, meta::Cache)>>,
}

impl CachePool {
    /// An empty one that keeps as much as others leave it.
    pub(super) fn within(memory: &AutomatonMemory) -> Self {
        Self { memory: memory.clone(), free: Mutex::default() }
    }

    /// Whether it shares this memory with others.
    pub(super) fn is_within(&self, memory: &AutomatonMemory) -> bool {
        Arc::ptr_eq(&self.memory.idle_bytes, &memory.idle_bytes)
    }

    /// One that is free, or a new one.
    pub(super) fn take(&self, regex: &meta::Regex) -> meta::Cache {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some((bytes, cache)) = free else { return regex.create_cache() };
        self.memory.give_back(bytes);
        cache
    }

    /// Keeps one for the next, as far as there is room.
    pub(super) fn give(&self, cache: meta::Cache) {
        let bytes = cache.memory_usage();
        if self.memory.take(bytes) {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push((bytes, cache));
        }
    }
}

impl Drop for CachePool {
    fn drop(&mut self) {
        let free = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.memory.give_back(free.iter().map(|(bytes, _)| bytes).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::Input;

    fn idle(pool: &CachePool) -> usize {
        pool.free.lock().unwrap().iter().map(|(bytes, _)| bytes).sum()
    }

    #[test]
    fn caches_that_wait_for_their_next_use_stay_within_their_bound_and_cost_no_other_node_its_own()
    {
        let text = "words of many kinds, 123 of them\n".repeat(10);
        let regex = meta::Regex::new(r"(\w+ ){3,9}\pL*").unwrap();
        let [memory, of_another] = [AutomatonMemory::default(), AutomatonMemory::default()];
        let pools: Vec<_> = (0..2_000).map(|_| CachePool::within(&memory)).collect();
        let mut used = 0;
        for pool in &pools {
            let mut cache = pool.take(&regex);
            assert!(regex.search_with(&mut cache, &Input::new(&text)).is_some());
            used += cache.memory_usage();
            pool.give(cache);
        }
        assert!(used > EXPRESSION_IDLE_CACHES_BYTES_MAX, "{used}");
        let held: usize = pools.iter().map(idle).sum();
        assert!(held > 0 && held <= EXPRESSION_IDLE_CACHES_BYTES_MAX, "{held}");
        let pool = CachePool::within(&of_another);
        pool.give(pool.take(&regex));
        assert!(idle(&pool) > 0, "there is room of its own");
        drop((pools, pool));
        let left = [memory, of_another].map(|memory| memory.idle_bytes.load(Relaxed));
        assert_eq!(left, [0, 0], "what is gone holds nothing");
    }
}
