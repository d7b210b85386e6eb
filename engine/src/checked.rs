//! What was verified of a segment's blocks or frames, and which of them are bad: three bits each.
//!
//! Invariants: belongs to one state of the file (its version stamp); a bad block counts as not
//! verified, so that the next read looks at all of it again.

use std::sync::atomic::{AtomicU64, Ordering};

/// One bit per block.
#[derive(Debug, Default)]
struct Bitmap(Vec<AtomicU64>);

impl Bitmap {
    fn new(len: usize) -> Self {
        Self((0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn get(&self, index: usize) -> bool {
        self.0[index / 64].load(Ordering::Acquire) & (1 << (index % 64)) != 0
    }

    fn set(&self, index: usize) {
        self.0[index / 64].fetch_or(1 << (index % 64), Ordering::Release);
    }

    fn clear(&self, index: usize) {
        self.0[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release);
    }
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    blocks: usize,
    tables: Bitmap,
    texts: Bitmap,
    bad: Bitmap,
}

impl Checked {
    /// Of so many blocks nothing is known.
    pub(crate) fn new(blocks: usize) -> Self {
        let [tables, texts, bad] = [(); 3].map(|()| Bitmap::new(blocks));
        Self { blocks, tables, texts, bad }
    }

    /// How many blocks there are.
    pub(crate) const fn blocks(&self) -> usize {
        self.blocks
    }

    /// Whether the block's text was verified.
    pub(crate) fn is_text_verified(&self, block: usize) -> bool {
        self.texts.get(block)
    }

    /// Whether the block's run table was verified and nothing of it is known to be damaged.
    pub(crate) fn is_countable(&self, block: usize) -> bool {
        self.tables.get(block) && !self.bad.get(block)
    }

    /// Whether the block was damaged when it was read last.
    pub(crate) fn is_bad(&self, block: usize) -> bool {
        self.bad.get(block)
    }

    /// The block's run table was verified.
    pub(crate) fn table_is_whole(&self, block: usize) {
        self.tables.set(block);
    }

    /// The block's run table and its text were verified.
    pub(crate) fn block_is_whole(&self, block: usize) {
        self.tables.set(block);
        self.texts.set(block);
        self.bad.clear(block);
    }

    /// The block could not be read.
    pub(crate) fn block_is_bad(&self, block: usize) {
        self.bad.set(block);
        self.tables.clear(block);
        self.texts.clear(block);
    }
}
