//! A node that is emptied: it takes no new records, and all that its ingest side holds goes to its store.
//!
//! Invariants: once begun it lasts until the node ends. What is left is counted in the order in which
//! records move (memory, ingest segments, store), so that none is overlooked: *done* is never said while
//! one of them is anywhere else than in the store, or may be in a file that cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Node;

/// Whether a node is being emptied. Clones are the same node's.
#[derive(Debug, Clone, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// Begins; says whether it had not begun before: then shards are to write out what they hold, and to
    /// take nothing more.
    pub fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Whether it has begun: no new records are taken, and nothing that is flushed waits for company.
    pub fn is_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What of a node is still to go to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Shards that still write out.
    pub shards: u64,
    /// Ingest segments with records that are not in the store.
    pub segments: u64,
    /// Their text, bytes.
    pub bytes: u64,
    /// Why it cannot go on by itself, if it cannot.
    pub stuck: Option<Stuck>,
    /// Files that cannot be read at present, and may hold records.
    pub unread: usize,
}

/// Why emptying a node does not come to an end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// There are fewer stores than copies to make.
    ReplicasMissing,
    /// So many files cannot be read, and nothing else is left.
    Unread(usize),
    /// The node keeps nothing itself, and no store takes what it holds.
    NoStore,
}

impl Left {
    /// Of a node whose shards were asked before whether they still write out; `is_replica_missing` as
    /// gathering says.
    pub fn of(node: &Node, shards: u64, is_replica_missing: bool) -> Self {
        let Some(side) = &node.ingest else {
            return Self { shards, segments: 0, bytes: 0, stuck: None, unread: 0 };
        };
        // Before the others: what can be read meanwhile is among them.
        let unread = side.registry.unread_files();
        let held = side.registry.snapshot();
        let bytes = held.iter().map(|segment| segment.content().text_bytes).sum();
        let segments = held.len() as u64;
        let left = Self { shards, segments, bytes, stuck: None, unread };
        let gets_on = || {
            let rows = side.registry.list();
            let is_offered = |id| rows.iter().any(|row| row.id == id && row.is_offered);
            held.iter().any(|segment| is_offered(segment.id()))
        };
        let stuck = if !left.is_done() && is_replica_missing {
            Some(Stuck::ReplicasMissing)
        } else if unread > 0 && shards == 0 && !gets_on() {
            Some(Stuck::Unread(unread))
        } else if shards == 0 && segments > 0 && node.store.is_none() {
            Some(Stuck::NoStore)
        } else {
            None
        };
        Self { stuck, ..left }
    }

    /// Nothing is left on the ingest side.
    pub const fn is_done(&self) -> bool {
        self.shards == 0 && self.segments == 0 && self.unread == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeId;
    use crate::ingest::registry::RegistryOptions;
    use crate::node::opening::{self, NodeOptions, TopicOptions};
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use std::path::{Path, PathBuf};

    /// A node that takes records and keeps none.
    fn ingester(sim: &SimStorage) -> Node {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        sim.create_dir_all(Path::new("/ingest")).unwrap();
        let ingest = RegistryOptions::new(storage, PathBuf::from("/ingest"), 5);
        let [new_ingester, new_store] = [NodeId(1), NodeId(2)];
        let topics = TopicOptions::default();
        let options =
            NodeOptions { ingest: Some(ingest), topics, store: None, new_ingester, new_store };
        opening::open(options, 1_000, &mut |_| {}).unwrap().node
    }

    #[test]
    fn draining_begins_once_and_lasts() {
        let draining = Draining::default();
        assert!(!draining.is_begun());
        assert!(draining.clone().begin() && !draining.begin() && draining.is_begun());
    }

    #[test]
    fn a_node_is_not_empty_while_a_tail_file_cannot_be_read() {
        let sim = SimStorage::new(1);
        ingester(&sim).ingest.unwrap().registry.prepare_tail(0).unwrap();
        sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(".tail"));
        let node = ingester(&sim);
        let left = Left::of(&node, 0, false);
        assert!(!left.is_done());
        assert_eq!((left.unread, left.stuck), (1, Some(Stuck::Unread(1))));
        sim.clear_faults();
        node.ingest.as_ref().unwrap().registry.look_again(60_000);
        let left = Left::of(&node, 0, false);
        assert!(left.is_done() && left.stuck.is_none());
        let left = Left::of(&node, 1, false);
        assert!(!left.is_done() && left.stuck.is_none(), "a shard writes out");
    }
}
