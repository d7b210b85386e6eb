//! What a query pins of a node, in the order in which records move: the shards' memory first, then the
//! ingest segments, then the store segments.
//!
//! Invariants: a record is shown in its new place before it leaves the old one, so that each is pinned
//! at least once (copies are dropped by ULID); what is known to be missing is pinned with the rest.
//! Whoever pins has the shards' answers before it asks for what is in files; a shard that gave none is
//! told, never waited for here.

use std::sync::Arc;

use crate::chunk::Part;
use crate::damage::Damage;
use crate::ingest::memory::MemoryPart;

use super::Node;

/// What shards said that their memory holds. To be asked for before [`Memories::pin`].
#[derive(Default)]
pub struct Memories {
    parts: Vec<Arc<dyn Part>>,
    silent: Vec<usize>,
}

/// What was pinned.
#[derive(Default)]
pub struct Pinned {
    /// Everything that can be searched.
    pub parts: Vec<Arc<dyn Part>>,
    /// What of the ingest side cannot be read, and what was in the store and is in no file.
    pub lost: Vec<Damage>,
    /// Shards that did not say what they hold.
    pub silent: Vec<usize>,
}

impl Memories {
    /// What a shard holds.
    pub fn add(&mut self, memory: MemoryPart) {
        if !memory.is_empty() {
            self.parts.push(Arc::new(memory));
        }
    }

    /// This shard does not say what it holds.
    pub fn note_silent(&mut self, shard: usize) {
        self.silent.push(shard);
    }

    /// Pins what is in files.
    pub fn pin(self, node: &Node) -> Pinned {
        let mut pinned = Pinned { parts: self.parts, lost: Vec::new(), silent: self.silent };
        if let Some(ingest) = &node.ingest {
            let held = ingest.registry.pin();
            pinned.parts.extend(held.segments.into_iter().map(|s| s as Arc<dyn Part>));
            pinned.lost = held.lost;
        }
        if let Some(store) = &node.store {
            pinned.lost.extend(store.catalogue.holes().iter().cloned());
            let held = store.catalogue.snapshot();
            pinned.parts.extend(held.iter().map(|s| Arc::clone(s) as Arc<dyn Part>));
        }
        pinned
    }
}
