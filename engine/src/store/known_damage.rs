//! What is known to be damaged in a segment, so that answers can say so without meeting it again.
//!
//! Invariants: bounded; belongs to one state of the file (its version stamp): a file that was
//! changed starts anew; asking never waits for storage.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::damage::Damage;

/// Blocks remembered of one segment. More than that many are met again by who reads them.
const BLOCKS_MAX: usize = 256;

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct KnownDamage {
    /// Whether there is any, so that nobody takes the lock for nothing.
    is_any: AtomicBool,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// By header, index and footer.
    structure: Vec<Damage>,
    /// By reads, per block.
    blocks: BTreeMap<usize, Damage>,
}

impl KnownDamage {
    /// The file was opened in a new state: only this much is known of it.
    pub(super) fn begin(&self, structure: &[Damage]) {
        let mut found = self.lock();
        found.structure = structure.iter().filter(|d| d.loses_records()).cloned().collect();
        found.blocks.clear();
        self.note(&found);
    }

    /// A block could not be read.
    pub(super) fn add(&self, block: usize, damage: &Damage) {
        let mut found = self.lock();
        if found.blocks.len() < BLOCKS_MAX {
            found.blocks.insert(block, damage.clone());
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

    /// Whether a block could not be read when that was tried last.
    pub(super) fn is_bad(&self, block: usize) -> bool {
        self.is_any.load(Ordering::Acquire) && self.lock().blocks.contains_key(&block)
    }

    /// All of it.
    pub(super) fn list(&self) -> Vec<Damage> {
        if !self.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let found = self.lock();
        found.structure.iter().chain(found.blocks.values()).cloned().collect()
    }

    fn note(&self, found: &Found) {
        let is_any = !found.structure.is_empty() || !found.blocks.is_empty();
        self.is_any.store(is_any, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
