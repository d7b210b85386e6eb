//! What request heads that have not come to their end hold, over all connections.
//!
//! A head may have 64 KiB, and a client may take its time over it; thousands of clients that do both
//! would hold hundreds of megabytes. So what a head has beyond a little comes out of a budget of
//! all, and a head that finds none left is refused.
//!
//! Invariants: an account gives back what it took when its head is whole, and when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::limits::HTTP_HEAD_BYTES_FREE;

/// The budget.
#[derive(Debug)]
pub(super) struct HeadBytes {
    left: AtomicUsize,
}

impl HeadBytes {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }
}

/// One connection's part in it.
#[derive(Debug)]
pub(super) struct HeadAccount {
    of: Arc<HeadBytes>,
    /// Bytes of the head that is being read.
    read: AtomicUsize,
    taken: AtomicUsize,
    /// A request is being answered: what is read belongs to its body.
    is_serving: AtomicBool,
}

impl HeadAccount {
    pub(super) fn new(of: &Arc<HeadBytes>) -> Self {
        Self {
            of: Arc::clone(of),
            read: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            is_serving: AtomicBool::new(false),
        }
    }

    /// So many bytes were read; whether they may be kept.
    pub(super) fn read(&self, bytes: usize) -> bool {
        if self.is_serving.load(Relaxed) {
            return true;
        }
        let read = self.read.load(Relaxed) + bytes;
        self.read.store(read, Relaxed);
        let taken = self.taken.load(Relaxed);
        let more = read.saturating_sub(HTTP_HEAD_BYTES_FREE).saturating_sub(taken);
        let left = self.of.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(more));
        if left.is_ok() {
            self.taken.store(taken + more, Relaxed);
        }
        left.is_ok()
    }

    /// The head is whole.
    pub(super) fn serve(&self) {
        self.is_serving.store(true, Relaxed);
        self.give_back();
    }

    /// The next bytes are those of the next head.
    pub(super) fn served(&self) {
        self.is_serving.store(false, Relaxed);
    }

    fn give_back(&self) {
        self.read.store(0, Relaxed);
        self.of.left.fetch_add(self.taken.swap(0, Relaxed), Relaxed);
    }
}

impl Drop for HeadAccount {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_heads_are_free_and_large_ones_share() {
        let all = HeadBytes::new(1_000);
        let (one, two) = (HeadAccount::new(&all), HeadAccount::new(&all));
        assert!(one.read(HTTP_HEAD_BYTES_FREE) && two.read(HTTP_HEAD_BYTES_FREE));
        assert!(one.read(600) && !two.read(600), "no room for both");
        one.serve();
        assert!(one.read(1 << 30), "a body is no head");
        one.served();
        let three = HeadAccount::new(&all);
        assert!(three.read(HTTP_HEAD_BYTES_FREE + 500) && three.read(500) && !three.read(1));
        drop((one, two, three));
        assert_eq!(all.left.load(Relaxed), 1_000);
    }
}
