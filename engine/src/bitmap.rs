//! Bits that threads set and read without a lock.
//!
//! Invariants: as many bits as it was made for; asking for one beyond them is a bug of the caller.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the page of the module.
#[derive(Debug, Default)]
pub(crate) struct Bitmap(Vec<AtomicU64>);

impl Bitmap {
    /// So many bits, none of them set.
    pub(crate) fn new(len: usize) -> Self {
        Self((0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn get(&self, index: usize) -> bool {
        self.0[index / 64].load(Ordering::Acquire) & (1 << (index % 64)) != 0
    }

    pub(crate) fn set(&self, index: usize) {
        self.0[index / 64].fetch_or(1 << (index % 64), Ordering::Release);
    }

    pub(crate) fn clear(&self, index: usize) {
        self.0[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release);
    }
}
