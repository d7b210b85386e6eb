//! A node: what is held of records on both sides, and everything that is decided about it. In the
//! daemon threads turn it, in the simulator a seed does; what they turn is the same.
//!
//! - [`opening`]: both directories found again after a stop of any kind;
//! - [`pinning`]: what a query pins, in its order, and what is known to be missing;
//! - [`keeper`]: the files of ingest segments, the mark of stamps, the topics and the disk's space, and by them the
//!   [`doors`]: whether records are taken;
//! - [`gathering`], from the [`local_ingest`]: flushed ingest segments become store segments;
//! - [`compacting`] and [`expiring`]: what becomes of store segments, held back by [`pressure`];
//! - [`draining`] and [`ending`]: a node is emptied while it runs; how it stops;
//! - [`reading_again`]: what could not be read is tried again, and [`names`] of files are looked up.
//!
//! Invariants: a node has either side or both, and keeps and shows only what it is. Nothing here
//! starts a thread, waits, reads a clock, logs or counts: storage, time and seeds are arguments, what
//! happened is a value that whoever turns it tells, and each worker says when it wants to be turned
//! next.

pub mod compacting;
pub mod doors;
pub mod draining;
pub mod ending;
pub mod expiring;
pub mod gathering;
pub mod keeper;
pub mod local_ingest;
pub mod names;
pub mod opening;
pub mod pinning;
pub mod pressure;
pub mod reading_again;

use std::sync::{Arc, Mutex};

use crate::ingest::known_topics::TopicKeeper;
use crate::ingest::registry::Registry;
use crate::ingest::stamp_mark::StampKeeper;
use crate::ingest::topics::TopicSet;
use crate::store::catalogue::Catalogue;

/// See the module page. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    /// What takes records, if it does.
    pub ingest: Option<IngestSide>,
    /// What keeps them, if it does.
    pub store: Option<StoreSide>,
    /// The newest record's stamp on disk at the start, milliseconds since 1970; 0 without one.
    pub newest_ms: u64,
}

/// Which side of a node, and so which directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that takes records.
    Ingest,
    /// The one that keeps them.
    Store,
}

impl Side {
    /// Both, in the order in which records move.
    pub const ALL: [Self; 2] = [Self::Ingest, Self::Store];
}

/// The side that takes records.
#[derive(Clone)]
pub struct IngestSide {
    /// Its segments.
    pub registry: Arc<Registry>,
    /// What was stamped, and what may be.
    pub stamps: Arc<Mutex<StampKeeper>>,
    /// The topics of all shards: its own, if it has one, and those that are known of before.
    pub topics: Arc<TopicSet>,
    /// What keeps them on disk.
    pub topic_keeper: Arc<Mutex<TopicKeeper>>,
}

/// The side that keeps them.
#[derive(Clone)]
pub struct StoreSide {
    /// Its segments.
    pub catalogue: Arc<Catalogue>,
}

#[cfg(test)]
mod ingester_tests;
