//! What all parts of a node have in common: what is held, where shards sit, the doors, who watches
//! what, and whether it is ending.
//!
//! Invariants: there is one of it in a node, made before any part, and shared by all; a part has beside
//! it only what is its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::node::doors::Doors;
use engine::node::draining::Draining;
use engine::node::pressure::Load;
use engine::node::{IngestSide, Node};
use engine::search::Searcher;
use engine::storage::{OsStorage, Storage};
use net::follow::Hub;
use net::metrics::NodeMetrics;
use net::shard::{Clock, Placement};

use super::auth_file::AuthFile;
use super::disks::Disks;
use super::ground::Grounds;
use super::host::Wanted;
use super::keeper_words::Is;
use super::store_work::StopFlag;
use super::vitals::{Role, Vitals};
use super::{NodeError, refused};

/// See the module page.
pub(super) struct Common {
    /// What is held.
    pub(super) node: Node,
    /// How others name it, `host:port`: where it answers HTTP.
    pub(super) address: String,
    /// Where, as it was when it was locked.
    pub(super) grounds: Grounds,
    pub(super) placement: Placement,
    pub(super) doors: Arc<Doors>,
    /// What shards take, for those who follow it; none on a node without shards.
    pub(super) hub: Option<Hub>,
    /// A signal came.
    pub(super) stopping: AtomicBool,
    /// No new records until a restart.
    pub(super) draining: Draining,
    /// There are fewer stores than copies to make.
    pub(super) replicas_missing: AtomicBool,
    /// What may wait to be gathered, bytes.
    pub(super) backlog_max_bytes: u64,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) vitals: Vitals,
    pub(super) disks: Arc<Disks>,
    /// Who may do what.
    pub(super) auth_file: AuthFile,
    /// Who shares the process's descriptors.
    pub(super) descriptors: Wanted,
    /// Ends what is done with files in the background.
    pub(super) work_ends: StopFlag,
}

/// Text of records that are not in the store, bytes; so much of it is in the memory of shards, which is to
/// be asked for before: records move that way, and none is overlooked.
pub(super) fn unstored_bytes(side: &IngestSide, memory_bytes: i64) -> i64 {
    let held = side.registry.snapshot();
    memory_bytes + held.iter().map(|segment| segment.content().text_bytes as i64).sum::<i64>()
}

/// What a node has before anything of it runs.
pub(super) struct Foundation {
    pub(super) node: Node,
    pub(super) address: String,
    pub(super) grounds: Grounds,
    pub(super) disks: Disks,
    pub(super) auth_file: AuthFile,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) backlog_max_bytes: u64,
    pub(super) descriptors: Wanted,
}

impl Common {
    /// With the threads that watch the disks.
    pub(super) fn start(shards: usize, foundation: Foundation) -> Result<Self, NodeError> {
        let Foundation { node, address, grounds, disks, auth_file, metrics, .. } = foundation;
        let (backlog_max_bytes, descriptors) =
            (foundation.backlog_max_bytes, foundation.descriptors);
        let placement = Placement::new(shards).map_err(refused("an event descriptor"))?;
        let common = Self {
            node,
            address,
            grounds,
            hub: (shards > 0).then(|| Hub::new(placement.clone())),
            placement,
            doors: Arc::default(),
            stopping: AtomicBool::new(false),
            draining: Draining::default(),
            replicas_missing: AtomicBool::new(false),
            backlog_max_bytes,
            clock: disks.clock(),
            metrics,
            vitals: Vitals::default(),
            disks: Arc::new(disks),
            auth_file,
            descriptors,
            work_ends: StopFlag::default(),
        };
        let storage = Arc::new(OsStorage) as Arc<dyn Storage>;
        common
            .disks
            .spawn(&storage, &common.doors, &common.metrics)
            .map_err(refused("a thread"))?;
        Ok(common)
    }

    /// Watches the threads whose pulses are made elsewhere.
    pub(super) fn watch(&self, searcher: &Searcher) {
        for (number, seat) in self.placement.seats().iter().enumerate() {
            self.vitals.watch(format!("shard-{number}"), Role::Shard, Arc::clone(&seat.pulse));
        }
        for (number, pulse) in searcher.pulses().iter().enumerate() {
            self.vitals.watch(format!("scan-{number}"), Role::Scan, Arc::clone(pulse));
        }
        if let Some(hub) = &self.hub {
            self.vitals.watch("follow", Role::Follow, hub.pulse());
        }
    }

    /// What it is.
    pub(super) const fn is(&self) -> Is {
        Is::of(&self.node)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn is_replica_missing(&self) -> bool {
        self.replicas_missing.load(Ordering::Acquire)
    }

    /// The time of the monotonic clock, milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().monotonic_us / 1000
    }

    /// The newest stamp that a shard has given, whether or not its record was taken, ms; 0: none yet.
    pub(super) fn newest_stamped_ms(&self) -> u64 {
        let seats = self.placement.seats().iter();
        seats.map(|seat| seat.stamped_ms.load(Ordering::Acquire)).max().unwrap_or(0)
    }

    /// Time until then.
    pub(super) fn until(&self, next_ms: u64) -> Duration {
        Duration::from_millis(next_ms.saturating_sub(self.now_ms()))
    }

    /// What waits on the ingest side, bytes.
    pub(super) fn backlog_bytes(&self) -> u64 {
        self.node.ingest.as_ref().map_or(0, |side| side.registry.backlog_bytes())
    }

    /// What the ingest side has to do.
    pub(super) fn load(&self) -> Load {
        Load {
            pauses: self.metrics.ingest.pauses.get(),
            backlog_bytes: self.backlog_bytes(),
            backlog_max_bytes: self.backlog_max_bytes,
        }
    }
}
