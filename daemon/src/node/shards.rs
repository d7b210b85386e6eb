//! Makes the shards: one per core, each with its log, its tail file and its listeners.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use engine::ingest::log::{ShardLog, ShardLogOptions};
use engine::ingest::registry::Registry;
use engine::ingest::stamp::Ceiling;
use engine::ingest::topics::TopicChoice;
use engine::node::IngestSide;
use engine::ulid::PART_MAX;
use net::budget::PerAddress;
use net::driver::{Descriptor, DriverKind};
use net::shard::{Keeper, ShardParts};

use super::common::Common;
use super::data::random_seed;
use super::disks::Side;
use super::keeper::KeeperHandle;
use super::{Ending, Endings};
use crate::config::{IngestConfig, TopicMode};
use crate::lock::Inode;

/// What all shards have in common.
pub(super) struct Wiring<'a> {
    pub(super) common: &'a Common,
    pub(super) config: &'a IngestConfig,
    pub(super) cores: &'a [usize],
    pub(super) driver: DriverKind,
    /// No stamp is below it, ms.
    pub(super) floor_ms: u64,
    pub(super) ceiling: Ceiling,
    pub(super) side: &'a IngestSide,
    pub(super) keeper: Arc<KeeperHandle>,
}

/// A shard's tail file at its full length, so that writing to it needs no space later. Without one
/// the shard writes small batches as frames, which costs the disk more and loses nothing.
fn open_tail(registry: &Registry, keeper: &KeeperHandle, shard: usize) -> Option<Descriptor> {
    let opened = registry
        .prepare_tail(shard)
        .and_then(|path| Ok((std::fs::OpenOptions::new().write(true).open(&path)?, path)));
    match opened {
        Ok((file, path)) => {
            if let Ok(metadata) = file.metadata() {
                keeper.watch_tail(shard, path, Inode::of(&metadata));
            }
            Some(Descriptor::new(file.into()))
        }
        Err(error) => {
            tracing::warn!(
                shard,
                "no tail file: {error}; small batches are written to the segment at once"
            );
            None
        }
    }
}

/// Starts one shard per core, each with one listener of each port.
pub(super) fn spawn(
    wiring: &Wiring<'_>,
    fast: Vec<TcpListener>,
    durable: Vec<TcpListener>,
    endings: &Endings,
) -> io::Result<Vec<JoinHandle<()>>> {
    let choice = match &wiring.config.topic_mode {
        TopicMode::Static(topic) => TopicChoice::Static(topic.clone()),
        TopicMode::Dynamic => TopicChoice::FirstWord,
    };
    let addresses = PerAddress::new(wiring.config.connections_per_address_max);
    let common = wiring.common;
    // There is one where there is a shard.
    let Some(hub) = &common.hub else { return Ok(Vec::new()) };
    let mut threads = Vec::new();
    for (index, (fast, durable)) in fast.into_iter().zip(durable).enumerate() {
        let tail = open_tail(&wiring.side.registry, &wiring.keeper, index);
        let ingest = wiring.config;
        let options = ShardLogOptions {
            frame_text_target: wiring.side.registry.options().frame_text_target,
            alignment_bytes: wiring.side.registry.options().alignment_bytes,
            record_size_max: ingest.max_record_size_bytes,
            flush_interval_us: ingest.flush_interval.as_micros() as u64,
            segment_flush_size_bytes: ingest.segment_flush_size_bytes,
            segment_flush_age_us: ingest.segment_flush_age.as_micros() as u64,
            topics: Arc::clone(&wiring.side.topics),
            ceiling: wiring.ceiling.clone(),
        };
        let parts = ShardParts {
            index,
            driver: wiring.driver,
            core: wiring.cores.get(index).copied(),
            fast,
            durable,
            log: ShardLog::new(options, random_seed() & PART_MAX, wiring.floor_ms),
            tail,
            topics: choice.clone(),
            framing: ingest.framing,
            record_size_max: ingest.max_record_size_bytes,
            unfinished_line_after_us: ingest.unfinished_line_after.map(|d| d.as_micros() as u64),
            partial_bytes_max: ingest.partial_max_bytes / wiring.cores.len(),
            connections_max: wiring.config.connections_max,
            addresses: addresses.clone(),
            keeper: Arc::clone(&wiring.keeper) as Arc<dyn Keeper>,
            placement: common.placement.clone(),
            gate: common.doors.gate(),
            hub: hub.clone(),
            metrics: Arc::clone(&common.metrics),
            clock: common.clock,
            authority: common.auth_file.authority().clone(),
            disk: common.disks.watch(Side::Ingest),
        };
        let endings = endings.clone();
        threads.push(net::shard::spawn(parts, move |result| {
            if let Err(error) = result {
                // The main thread waits for this until the end.
                let _ = endings.send(Ending::ShardFailed(index, error));
            }
        })?);
    }
    Ok(threads)
}
