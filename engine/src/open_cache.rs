//! Segments that are kept open between queries, so that the next one need not find their blocks or
//! frames, validate and map them again; and what of them was verified, which is remembered though they are
//! closed.
//!
//! Invariants: what the segments of one cache keep is bounded ([`SEGMENTS_OPEN_BYTES_MAX`],
//! [`SEGMENTS_OPEN_MAX`]); a segment whose handle goes is not held here, and costs no other its place;
//! of those that do not fit the ones that were not used since they were looked at last are closed first
//! (CLOCK).
//!
//! What is open is shared as long as the file is in the state that it was opened in; what was verified is
//! believed in that state alone.
//!
//! Not here: how many may be open ([`crate::caches`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::checked::Checked;
use crate::limits::{SEGMENTS_OPEN_BYTES_MAX, SEGMENTS_OPEN_MAX};

/// What is known of one segment in the last state that its file was seen in: what is open of it, for as
/// long as somebody reads it or it is kept, and what was verified, which stays.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    /// Held while the file is opened.
    seen: Mutex<Seen<T>>,
    /// What is kept open though nobody reads it: under a lock of its own, for whoever closes it waits for
    /// no file.
    kept: Mutex<Option<Arc<T>>>,
    is_used: AtomicBool,
}

#[derive(Debug)]
struct Seen<T> {
    /// Which state of its file.
    stamp: u128,
    open: Weak<T>,
    /// Longer than it is open: where more segments wait than may be open, every query opens them anew.
    checked: Arc<Checked>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let seen = Seen { stamp: 0, open: Weak::new(), checked: Arc::default() };
        Self { seen: Mutex::new(seen), kept: Mutex::new(None), is_used: AtomicBool::new(false) }
    }
}

/// What is open of a segment.
pub(crate) trait Opened {
    /// What was verified of it.
    fn checked(&self) -> &Arc<Checked>;
    /// It was just opened; and what was verified before in this state of its file, if it was seen in it.
    fn begin(&mut self, before: Option<&Arc<Checked>>);
    /// Whether who comes later is to open the file anew.
    fn is_faulty(&self) -> bool;
    /// What it keeps in memory, bytes, about.
    fn memory_bytes(&self) -> usize;
}

struct Entry<T> {
    slot: Weak<Slot<T>>,
    bytes: usize,
}

/// What is kept open, in the order in which it is looked at when there is too much.
pub(crate) struct OpenCache<T> {
    queue: Mutex<Kept<T>>,
    bytes_max: usize,
}

/// What is kept open: see [`OpenCache`].
struct Kept<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    count_max: usize,
}

impl<T> Kept<T> {
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
        let queue = Kept { entries: VecDeque::new(), bytes: 0, count_max };
        Self { queue: Mutex::new(queue), bytes_max }
    }

    /// Sets how many may be open; where that is fewer than before, all that nobody reads is closed.
    pub(crate) fn set_count_max(&self, count_max: usize) {
        let before = std::mem::replace(&mut lock(&self.queue).count_max, count_max);
        if count_max < before {
            self.close_all();
        }
    }

    fn is_full(&self, queue: &Kept<T>) -> bool {
        queue.bytes > self.bytes_max || queue.entries.len() > queue.count_max
    }

    /// Keeps `open`, which takes `bytes`, in its slot as long as there is room.
    fn keep(&self, slot: &Arc<Slot<T>>, open: &Arc<T>, bytes: usize) {
        slot.is_used.store(true, Ordering::Relaxed);
        let before = lock(&slot.kept).replace(Arc::clone(open));
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
                Some(slot) => closed.push(lock(&slot.kept).take()),
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
        drop(slots.map(|slot| lock(&slot.kept).take()).collect::<Vec<_>>());
    }
}

impl<T: Opened> OpenCache<T> {
    /// Shares what is open of this state of the file, or opens it; keeps it open as long as there is room.
    pub(crate) fn share<E>(
        &self,
        slot: &Arc<Slot<T>>,
        stamp: u128,
        open: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut seen = lock(&slot.seen);
        let is_same = seen.stamp == stamp;
        let shared = seen.open.upgrade().filter(|open| is_same && !open.is_faulty());
        let open = if let Some(shared) = shared {
            shared
        } else {
            let mut open = open()?;
            let is_believed = is_same && seen.checked.is_like(open.checked());
            open.begin(is_believed.then_some(&seen.checked));
            let open = Arc::new(open);
            let checked = Arc::clone(open.checked());
            *seen = Seen { stamp, open: Arc::downgrade(&open), checked };
            open
        };
        drop(seen);
        if !open.is_faulty() {
            self.keep(slot, &open, open.memory_bytes());
        }
        Ok(open)
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

    #[derive(Debug)]
    struct Part {
        checked: Arc<Checked>,
        believed: Option<Arc<Checked>>,
        is_faulty: bool,
    }

    impl Part {
        fn of(blocks: usize, is_faulty: bool) -> Self {
            Self { checked: Arc::new(Checked::new(blocks, 0)), believed: None, is_faulty }
        }
    }

    impl Opened for Part {
        fn checked(&self) -> &Arc<Checked> {
            &self.checked
        }

        fn begin(&mut self, before: Option<&Arc<Checked>>) {
            self.believed = before.cloned();
        }

        fn is_faulty(&self) -> bool {
            self.is_faulty
        }

        fn memory_bytes(&self) -> usize {
            10
        }
    }

    #[test]
    fn what_is_open_is_shared_and_what_was_verified_believed_in_the_same_state_of_the_file_alone() {
        let (cache, slot) = (OpenCache::bounded(30, 9), Arc::<Slot<Part>>::default());
        let share = |stamp, blocks, is_faulty| {
            cache.share(&slot, stamp, || Ok::<_, ()>(Part::of(blocks, is_faulty))).unwrap()
        };
        let first = share(7, 3, false);
        assert!(first.believed.is_none(), "nothing was verified before");
        assert!(Arc::ptr_eq(&first, &share(7, 3, false)));
        cache.close_all();
        assert!(Arc::ptr_eq(&first, &share(7, 3, false)), "somebody reads it");
        let checked = Arc::clone(first.checked());
        drop(first);
        cache.close_all();
        let again = share(7, 3, true);
        assert!(Arc::ptr_eq(again.believed.as_ref().unwrap(), &checked));
        let after_fault = share(7, 3, false);
        assert!(!Arc::ptr_eq(&again, &after_fault), "one that is faulty is shared by nobody");
        assert!(share(8, 3, false).believed.is_none(), "the file is another one");
        cache.close_all();
        assert!(share(8, 4, false).believed.is_none(), "it is found to have other blocks");
        let refused = cache.share(&slot, 9, || Err::<Part, _>("refused"));
        assert_eq!(refused.err(), Some("refused"));
        assert!(share(8, 4, false).believed.is_none(), "and is still open as it was");
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
