//! What is known to be damaged in a segment, so that answers can say so without meeting it again.
//!
//! Invariants: bounded; belongs to one state of the file (its version stamp): a file that was
//! changed starts anew; asking never waits for storage; what the storage refused is no damage: it is
//! told until the file was opened again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::damage::Damage;

/// Blocks remembered of one segment. More than that many are met again by who reads them.
const BLOCKS_MAX: usize = 256;

/// See the page of the module.
#[derive(Debug, Default)]
pub(crate) struct KnownDamage {
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
    /// What was refused when the file was opened last.
    refused: Vec<Damage>,
    /// By reads, per block; and the length of its text, bytes.
    blocks: BTreeMap<usize, (Damage, u32)>,
}

impl KnownDamage {
    /// The file was opened in a new state: only this much is known of it.
    pub(crate) fn begin(&self, structure: &[Damage]) {
        let lost = structure.iter().filter(|d| d.loses_records()).cloned();
        let mut found = self.lock();
        (found.refused, found.structure) = lost.partition(|d| d.refusal().is_some());
        found.blocks.clear();
        self.note(&found);
    }

    /// The file was opened once more in the same state.
    pub(crate) fn opened_again(&self, structure: &[Damage]) {
        let lost = structure.iter().filter(|d| d.loses_records() && d.refusal().is_some());
        let mut found = self.lock();
        found.refused = lost.cloned().collect();
        self.note(&found);
    }

    /// The file could not be opened.
    pub(crate) fn refused(&self, damage: &Damage) {
        let mut found = self.lock();
        found.refused = vec![damage.clone()];
        self.note(&found);
    }

    /// Whether the file, or a part of it, could not be read when it was opened last.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_any.load(Ordering::Acquire) && !self.lock().refused.is_empty()
    }

    /// A block could not be read; its text is so long.
    pub(crate) fn add(&self, block: usize, damage: &Damage, text_len: u32) {
        let mut found = self.lock();
        if found.blocks.len() < BLOCKS_MAX {
            found.blocks.insert(block, (damage.clone(), text_len));
        }
        self.note(&found);
    }

    /// A block could be read after all.
    pub(crate) fn forget(&self, block: usize) {
        if self.is_any.load(Ordering::Acquire) {
            let mut found = self.lock();
            found.blocks.remove(&block);
            self.note(&found);
        }
    }

    /// Text of the blocks that could not be read, bytes.
    pub(crate) fn lost_text_bytes(&self) -> u64 {
        self.lost_text_bytes.load(Ordering::Acquire)
    }

    /// All of it.
    pub(crate) fn list(&self) -> Vec<Damage> {
        if !self.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let found = self.lock();
        let blocks = found.blocks.values().map(|(damage, _)| damage);
        found.structure.iter().chain(&found.refused).chain(blocks).cloned().collect()
    }

    fn note(&self, found: &Found) {
        let is_any =
            !found.structure.is_empty() || !found.refused.is_empty() || !found.blocks.is_empty();
        self.is_any.store(is_any, Ordering::Release);
        let bytes = found.blocks.values().map(|(_, text_len)| u64::from(*text_len)).sum();
        self.lost_text_bytes.store(bytes, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
