//! Segments that are kept open between queries, so that the next one need not find their blocks or
//! frames, validate and map them again.
//!
//! Invariants: what the segments of one cache keep is bounded ([`SEGMENTS_OPEN_BYTES_MAX`],
//! [`SEGMENTS_OPEN_MAX`]); a segment whose handle goes is not held here, and costs no other its place;
//! of those that do not fit the ones that were not used since they were looked at last are closed first
//! (CLOCK).
//!
//! Not here: whether what is open is still what the file holds, which whoever opens it asks; how many
//! may be open ([`crate::caches`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::limits::{SEGMENTS_OPEN_BYTES_MAX, SEGMENTS_OPEN_MAX};

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
    count_max: usize,
}

impl<T> Queue<T> {
    fn forget_gone(&mut self) {
        self.entries.retain(|entry| entry.slot.strong_count() > 0);
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Default for OpenCache<T> {
    fn default() -> Self {
        Self::bounded(SEGMENTS_OPEN_BYTES_MAX, SEGMENTS_OPEN_MAX)
    }
}

impl<T> OpenCache<T> {
    fn bounded(bytes_max: usize, count_max: usize) -> Self {
        let queue = Queue { entries: VecDeque::new(), bytes: 0, count_max };
        Self { queue: Mutex::new(queue), bytes_max }
    }

    /// Sets how many may be open; where that is fewer than before, all that nobody reads is closed.
    pub(crate) fn set_count_max(&self, count_max: usize) {
        let before = std::mem::replace(&mut lock(&self.queue).count_max, count_max);
        if count_max < before {
            self.close_all();
        }
    }

    fn is_full(&self, queue: &Queue<T>) -> bool {
        queue.bytes > self.bytes_max || queue.entries.len() > queue.count_max
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
        if self.is_full(&queue) {
            queue.forget_gone();
        }
        while self.is_full(&queue)
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

    /// Closes all of them that nobody reads.
    pub(crate) fn close_all(&self) {
        let mut queue = lock(&self.queue);
        let entries = std::mem::take(&mut queue.entries);
        queue.bytes = 0;
        drop(queue);
        let slots = entries.iter().filter_map(|entry| entry.slot.upgrade());
        drop(slots.map(|slot| lock(&slot.open).take()).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_again_stays_and_the_whole_is_bounded() {
        let cache = OpenCache::bounded(30, 9);
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
    fn no_more_are_kept_than_may_be_open_however_small() {
        let cache = OpenCache::bounded(30, 4);
        let slots: Vec<Arc<Slot<usize>>> = (0..9).map(|_| Arc::default()).collect();
        let open: Vec<Arc<usize>> = (0..9).map(Arc::new).collect();
        for i in 0..9 {
            cache.keep(&slots[i], &open[i], 1);
        }
        assert_eq!(open.iter().filter(|open| Arc::strong_count(open) > 1).count(), 4);
    }

    #[test]
    fn one_that_is_gone_costs_no_other_its_place() {
        let cache = OpenCache::bounded(30, 9);
        let [a, b, c, d]: [Arc<Slot<usize>>; 4] = Default::default();
        let open: Vec<Arc<usize>> = (0..4).map(Arc::new).collect();
        cache.keep(&a, &open[0], 10);
        cache.keep(&b, &open[1], 10);
        cache.keep(&c, &open[2], 10);
        drop(b);
        cache.keep(&d, &open[3], 10);
        let is_open = |i: usize| Arc::strong_count(&open[i]) > 1;
        assert!(is_open(0) && !is_open(1) && is_open(2) && is_open(3));
    }

    #[test]
    fn all_that_nobody_reads_is_closed_at_once() {
        let cache = OpenCache::bounded(30, 9);
        let slots: [Arc<Slot<usize>>; 2] = Default::default();
        let open = [Arc::new(1), Arc::new(2)];
        cache.keep(&slots[0], &open[0], 10);
        cache.keep(&slots[1], &open[1], 10);
        cache.close_all();
        assert!(open.iter().all(|open| Arc::strong_count(open) == 1));
        cache.keep(&slots[0], &open[0], 30);
        assert_eq!(Arc::strong_count(&open[0]), 2, "there is room again");
    }

    #[test]
    fn what_one_node_closes_another_one_keeps() {
        let caches = [OpenCache::bounded(30, 9), OpenCache::bounded(30, 9)];
        let slots: [[Arc<Slot<usize>>; 3]; 2] = Default::default();
        let open: [[Arc<usize>; 3]; 2] = Default::default();
        for (cache, (slots, open)) in caches.iter().zip(slots.iter().zip(&open)) {
            slots.iter().zip(open).for_each(|(slot, open)| cache.keep(slot, open, 10));
        }
        let kept = |node: usize| open[node].iter().filter(|o| Arc::strong_count(o) > 1).count();
        assert_eq!((kept(0), kept(1)), (3, 3), "each has its own room");
        caches[0].set_count_max(1);
        assert_eq!((kept(0), kept(1)), (0, 3));
        caches[1].close_all();
        caches[0].keep(&slots[0][0], &open[0][0], 10);
        assert_eq!((kept(0), kept(1)), (1, 0));
    }

    #[test]
    fn a_slot_that_goes_takes_what_it_keeps_with_it() {
        let cache = OpenCache::bounded(30, 9);
        let (slot, open) = (Arc::default(), Arc::new(1));
        cache.keep(&slot, &open, 10);
        assert_eq!(Arc::strong_count(&open), 2);
        drop(slot);
        assert_eq!(Arc::strong_count(&open), 1);
    }
}
