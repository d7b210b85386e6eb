//! What is known to be damaged in a segment, so that answers can say so without meeting it again.
//!
//! Invariants: bounded; belongs to one state of the file (its version stamp): a file that was
//! changed starts anew; asking never waits for storage.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::damage::Damage;

/// Blocks remembered of one segment. More than that many are met again by who reads them.
const BLOCKS_MAX: usize = 256;

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct KnownDamage {
    /// Whether there is any, so that nobody takes the lock for nothing.
    is_any: AtomicBool,
    /// Text of the blocks, bytes.
    lost_text_bytes: AtomicU64,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// By header, index and footer.
    structure: Vec<Damage>,
    /// By reads, per block; and the length of its text, bytes.
    blocks: BTreeMap<usize, (Damage, u32)>,
}

impl KnownDamage {
    /// The file was opened in a new state: only this much is known of it.
    pub(super) fn begin(&self, structure: &[Damage]) {
        let mut found = self.lock();
        found.structure = structure.iter().filter(|d| d.loses_records()).cloned().collect();
        found.blocks.clear();
        self.note(&found);
    }

    /// A block could not be read; its text is so long.
    pub(super) fn add(&self, block: usize, damage: &Damage, text_len: u32) {
        let mut found = self.lock();
        if found.blocks.len() < BLOCKS_MAX {
            found.blocks.insert(block, (damage.clone(), text_len));
        }
        self.note(&found);
    }

    /// A block could be read after all.
    pub(super) fn forget(&self, block: usize) {
        if self.is_any.load(Ordering::Acquire) {
            let mut found = self.lock();
            found.blocks.remove(&block);
            self.note(&found);
        }
    }

    /// Text of the blocks that could not be read, bytes.
    pub(super) fn lost_text_bytes(&self) -> u64 {
        self.lost_text_bytes.load(Ordering::Acquire)
    }

    /// All of it.
    pub(super) fn list(&self) -> Vec<Damage> {
        if !self.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let found = self.lock();
        let blocks = found.blocks.values().map(|(damage, _)| damage);
        found.structure.iter().chain(blocks).cloned().collect()
    }

    fn note(&self, found: &Found) {
        let is_any = !found.structure.is_empty() || !found.blocks.is_empty();
        self.is_any.store(is_any, Ordering::Release);
        let bytes = found.blocks.values().map(|(_, text_len)| u64::from(*text_len)).sum();
        self.lost_text_bytes.store(bytes, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
