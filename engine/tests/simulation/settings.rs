//! A node as small as a simulation wants it: its directories, its limits, and what every start sets anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::headroom::HeadroomLimits;
use engine::identity::NodeId;
use engine::ingest::log::ShardLogOptions;
use engine::ingest::registry::{Registry, RegistryOptions};
use engine::ingest::stamp::Ceiling;
use engine::ingest::topics::TopicSet;
use engine::node::Side;
use engine::node::compacting::CompactingOptions;
use engine::node::gathering::GatheringOptions;
use engine::node::keeper::{KeeperOptions, SpaceParts};
use engine::node::opening::{NodeOptions, TopicOptions};
use engine::storage::Storage;
use engine::storage::sim::SimStorage;
use engine::store::StoreDirectory;
use engine::store::compaction::CompactionLimits;
use engine::store::gather::GatherLimits;
use engine::store::name::IdSource;
use engine::store::retention::RetentionLimits;
use engine::store::writer::WriterOptions;
use engine::topic::Topic;

pub(crate) const INGEST: &str = "/data/ingest";
pub(crate) const STORE: &str = "/data/store";

/// Longest record, bytes: longer than any that a simulation sends, short enough that files and buffers
/// are small.
const RECORD_SIZE_MAX: usize = 16 << 10;
/// Text of a frame after which it is written, bytes.
const FRAME_TEXT_TARGET: usize = 16 << 10;

/// A disk with durable, empty data directories.
pub(crate) fn empty_disk(seed: u64) -> SimStorage {
    let sim = SimStorage::new(seed);
    for directory in [INGEST, STORE] {
        sim.create_dir_all(Path::new(directory)).unwrap();
    }
    sim.sync_dir(Path::new("/")).unwrap();
    sim.sync_dir(Path::new("/data")).unwrap();
    sim
}

/// Nothing expires.
const FOR_EVER: RetentionLimits =
    RetentionLimits { retain_ms: u64::MAX, purge_ms: u64::MAX, size_bytes_max: None };

/// What is set apart from node to node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) shards: usize,
    pub(crate) flush_size_bytes: u64,
    pub(crate) pool_bytes_max: u64,
    /// Longest time that a compacted segment spans.
    pub(crate) compaction_span_ms: u64,
    pub(crate) retention: RetentionLimits,
    /// New for every start: streams and file names come from it.
    pub(crate) seed: u64,
}

impl Settings {
    pub(crate) const fn small(seed: u64) -> Self {
        Self {
            shards: 2,
            flush_size_bytes: 8 << 10,
            pool_bytes_max: 4 << 20,
            compaction_span_ms: u64::MAX,
            retention: FOR_EVER,
            seed,
        }
    }
}

/// Both sides, as small as the settings say.
pub(crate) fn options(storage: &Arc<dyn Storage>, settings: Settings) -> NodeOptions {
    let ids = IdSource::seeded(settings.seed << 20);
    let store = StoreDirectory::new(Arc::clone(storage), PathBuf::from(STORE), ids);
    let ingest = RegistryOptions {
        flush_size_bytes: settings.flush_size_bytes,
        pool_bytes_max: settings.pool_bytes_max,
        caches: Arc::clone(&store.caches),
        record_size_max: RECORD_SIZE_MAX,
        frame_text_target: FRAME_TEXT_TARGET,
        ..RegistryOptions::new(Arc::clone(storage), PathBuf::from(INGEST), settings.seed)
    };
    let new_id = |side| NodeId(u128::from(settings.seed) << 8 | side);
    let own = Some(Topic::new(b"default").unwrap());
    NodeOptions {
        ingest: Some(ingest),
        topics: TopicOptions { max: 8, own, ..TopicOptions::default() },
        store: Some(Arc::new(store)),
        new_ingester: new_id(1),
        new_store: new_id(2),
    }
}

/// Records are refused when the next segment does not fit.
pub(crate) fn keeper_options(registry: &Registry) -> KeeperOptions {
    let options = registry.options();
    let limits = HeadroomLimits { free_min_bytes: Some(0), segment_bytes: options.file_bytes() };
    let watched = vec![(Side::Ingest, options.directory.clone())];
    KeeperOptions {
        space: SpaceParts { storage: Arc::clone(&options.storage), watched, limits },
        backlog_max_bytes: u64::MAX,
        flush_size_bytes: options.flush_size_bytes,
    }
}

/// Whatever is flushed is gathered at once.
pub(crate) fn gathering() -> GatheringOptions {
    let limits =
        GatherLimits { target_age_ms: 0, replication_factor: 1, ..GatherLimits::default() };
    GatheringOptions { limits, writer: WriterOptions::default(), pause_ms: 100 }
}

/// Few segments are worth a compaction.
pub(crate) fn compacting(settings: Settings) -> CompactingOptions {
    let limits = CompactionLimits {
        group_max: 4,
        small_group_max: 4,
        group_min: 2,
        depth_max: 2,
        span_ms_max: settings.compaction_span_ms,
        ..CompactionLimits::default()
    };
    let writer = WriterOptions::default();
    CompactingOptions { limits, writer, held_back_pause_ms: 100, cancel: Arc::default() }
}

/// Segments that are soon old.
pub(crate) fn log_options(
    settings: Settings,
    topics: &Arc<TopicSet>,
    ceiling: Ceiling,
) -> ShardLogOptions {
    ShardLogOptions {
        segment_flush_size_bytes: settings.flush_size_bytes,
        segment_flush_age_us: 60_000,
        record_size_max: RECORD_SIZE_MAX,
        frame_text_target: FRAME_TEXT_TARGET,
        ceiling,
        ..ShardLogOptions::new(Arc::clone(topics))
    }
}
