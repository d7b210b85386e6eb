//! Segments that are kept open between queries, so that the next one need not find their blocks or
//! frames, validate and map them again.
//!
//! Invariants: what the segments of one cache keep is bounded ([`SEGMENTS_OPEN_BYTES_MAX`]), whichever
//! directory they lie in; a segment whose handle goes is not held here; of those that do not fit the
//! ones that were not used since they were looked at last are closed first (CLOCK).
//!
//! Not here: whether what is open is still what the file holds, which whoever opens it asks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::limits::SEGMENTS_OPEN_BYTES_MAX;

/// What one segment keeps open.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    open: Mutex<Option<Arc<T>>>,
    is_used: AtomicBool,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { open: Mutex::new(None), is_used: AtomicBool::new(false) }
    }
}

struct Entry<T> {
    slot: Weak<Slot<T>>,
    bytes: usize,
}

/// What is kept open, in the order in which it is looked at when there is too much.
pub(crate) struct OpenCache<T> {
    queue: Mutex<Queue<T>>,
    bytes_max: usize,
}

struct Queue<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> OpenCache<T> {
    /// An empty one with the default bound.
    pub(crate) const fn new() -> Self {
        Self::with_bytes_max(SEGMENTS_OPEN_BYTES_MAX)
    }

    const fn with_bytes_max(bytes_max: usize) -> Self {
        Self { queue: Mutex::new(Queue { entries: VecDeque::new(), bytes: 0 }), bytes_max }
    }

    /// Keeps `open`, which takes `bytes`, in its slot as long as there is room.
    pub(crate) fn keep(&self, slot: &Arc<Slot<T>>, open: &Arc<T>, bytes: usize) {
        slot.is_used.store(true, Ordering::Relaxed);
        let before = lock(&slot.open).replace(Arc::clone(open));
        if before.is_some_and(|before| Arc::ptr_eq(&before, open)) {
            return;
        }
        let mut closed = Vec::new();
        let mut queue = lock(&self.queue);
        queue.bytes += bytes;
        queue.entries.push_back(Entry { slot: Arc::downgrade(slot), bytes });
        while queue.bytes > self.bytes_max
            && let Some(entry) = queue.entries.pop_front()
        {
            match entry.slot.upgrade() {
                Some(slot) if slot.is_used.swap(false, Ordering::Relaxed) => {
                    queue.entries.push_back(entry);
                    continue;
                }
                Some(slot) => closed.push(lock(&slot.open).take()),
                None => {}
            }
            queue.bytes -= entry.bytes;
        }
        // Closing files takes its time: without the lock.
        drop(queue);
        drop(closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_again_stays_and_the_whole_is_bounded() {
        let cache = OpenCache::with_bytes_max(30);
        let slots: Vec<Arc<Slot<usize>>> = (0..9).map(|_| Arc::default()).collect();
        let open: Vec<Arc<usize>> = (0..9).map(Arc::new).collect();
        let is_open = |i: usize| Arc::strong_count(&open[i]) > 1;
        for i in 0..9 {
            cache.keep(&slots[i], &open[i], 10);
            if i > 2 {
                cache.keep(&slots[3], &open[3], 10);
            }
            assert!((0..9).filter(|&i| is_open(i)).count() <= 3);
        }
        assert!(is_open(3) && is_open(8));
        assert!(!is_open(0) && !is_open(4));
    }

    #[test]
    fn a_slot_that_goes_takes_what_it_keeps_with_it() {
        let cache = OpenCache::with_bytes_max(30);
        let (slot, open) = (Arc::default(), Arc::new(1));
        cache.keep(&slot, &open, 10);
        assert_eq!(Arc::strong_count(&open), 2);
        drop(slot);
        assert_eq!(Arc::strong_count(&open), 1);
    }
}
