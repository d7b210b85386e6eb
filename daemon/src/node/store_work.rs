//! The store's threads: gathering what shards have flushed, and compacting what was gathered and
//! letting it expire.
//!
//! Invariants: one turn's errors are told and counted, and the next turn goes on; told to stop,
//! gathering first takes what has been flushed, for as long as it is given time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::node::compacting::{Compacting, CompactingOptions, Happened};
use engine::node::ending::Rest;
use engine::node::expiring::Expiring;
use engine::node::gathering::{Gathering, GatheringOptions, Happened as Gathered};
use engine::node::local_ingest::LocalIngest;
use engine::store::catalogue::Catalogue;
use engine::store::compaction::Reason;
use engine::store::compaction_run::CompactionError;
use engine::store::gather::GatherState;
use engine::store::retention::RetentionLimits;
use net::metrics::NodeMetrics;

use super::common::Common;
use super::data::tell_damage;
use super::expiry;
use super::vitals::Role;

/// Time between looks while a directory is taken away.
const GROUND_PAUSE: Duration = Duration::from_millis(500);

/// A flag that threads can wait on.
#[derive(Default)]
pub(super) struct StopFlag {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl StopFlag {
    /// Sets it and wakes everybody.
    pub(super) fn set(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it is set or the time is over; says whether it is set.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, at_most, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What gathering and compaction work with.
#[derive(Clone)]
pub(super) struct StoreParts {
    pub(super) common: Arc<Common>,
    /// What this node takes itself, if it does.
    pub(super) source: Option<Arc<LocalIngest>>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) gathering: GatheringOptions,
    pub(super) compaction: CompactingOptions,
    pub(super) retention: RetentionLimits,
    /// Ends gathering between two chunks.
    pub(super) cancel: Arc<AtomicBool>,
}

/// Starts the gathering threads and the compaction thread.
pub(super) fn spawn(consumers: usize, parts: &StoreParts) -> io::Result<Vec<JoinHandle<()>>> {
    let gathers = parts.source.iter().flat_map(|source| {
        (0..consumers).map(|number| spawn_gather(number, parts.clone(), source))
    });
    gathers.chain([spawn_compaction(parts.clone())]).collect()
}

fn spawn_compaction(parts: StoreParts) -> io::Result<JoinHandle<()>> {
    let common = Arc::clone(&parts.common);
    let pulse = common.vitals.pulse("compact", Role::Compaction);
    std::thread::Builder::new().name("compact".into()).spawn(move || {
        let clock = || common.clock.now();
        let mut expiring = Expiring::start(&common.node, parts.retention, clock());
        let mut compacting = Compacting::start(
            Arc::clone(&parts.catalogue),
            parts.compaction.clone(),
            common.now_ms(),
        );
        while !common.work_ends.wait(common.until(compacting.next_ms())) {
            if common.doors.is_ground_lost() {
                common.work_ends.wait(GROUND_PAUSE);
                continue;
            }
            pulse.begin();
            // Before compaction, so that it merges nothing that has expired.
            if let Some(turn) = expiring.as_mut().and_then(|expiring| expiring.turn(clock())) {
                expiry::tell(&turn, &common.metrics);
            }
            pulse.begin();
            let happened = compacting.turn(&clock, common.doors.compaction_bytes(), common.load());
            for happened in &happened {
                tell_compaction(happened, &common.metrics);
            }
            common.metrics.store.compact_wanted_bytes.set(compacting.wanted_bytes() as i64);
            pulse.rest();
        }
    })
}

fn tell_compaction(happened: &Happened, metrics: &NodeMetrics) {
    let store = &metrics.store;
    match happened {
        Happened::NotRemoved(path, error) => {
            tracing::error!("{} was replaced but cannot be removed: {error}", path.display());
        }
        Happened::Compacted { done, spent_us } => {
            let spent = match done.plan.reason {
                Reason::Overlap => &store.compact_overlapping_seconds,
                Reason::Tier => &store.compact_sequential_seconds,
            };
            spent.observe(*spent_us as f64 / 1e6);
            metrics.disk_written_compaction.inc_by(done.output.file_bytes);
            tracing::debug!(
                inputs = done.plan.inputs.len(),
                copied_slabs = done.copied_slab_count,
                duplicates = done.duplicate_count,
                file_bytes = done.output.file_bytes,
                "compacted store segments"
            );
        }
        Happened::WorksAgain => tracing::info!("compaction works again"),
        Happened::Failed { error, is_news } => {
            if *is_news {
                tracing::error!("compaction failed: {error}; it is tried again later");
            }
            if let CompactionError::Damaged(damage) = error {
                tell_damage(damage, metrics);
            }
            store.compact_failures.inc();
        }
        Happened::LacksRoom { wanted_bytes, room_bytes } => tracing::warn!(
            wanted_bytes,
            room_bytes,
            "a compaction waits for room on the disk of --store.path; smaller ones go on"
        ),
        Happened::HasRoom => tracing::info!("no compaction waits for room any more"),
    }
}

fn spawn_gather(
    number: usize,
    parts: StoreParts,
    source: &Arc<LocalIngest>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("gather-{number}");
    let (common, source) = (Arc::clone(&parts.common), Arc::clone(source));
    let pulse = common.vitals.pulse(&*name, Role::Gather);
    std::thread::Builder::new().name(name).spawn(move || {
        let mut gathering = parts.gathering(source, parts.gathering);
        loop {
            // What is under way comes to its end, unless it is cancelled.
            let is_stopping = common.work_ends.wait(common.until(gathering.next_ms()));
            if is_stopping && !gathering.is_busy() {
                return;
            }
            if !gathering.is_busy() && common.doors.is_ground_lost() {
                common.work_ends.wait(parts.delay());
                continue;
            }
            pulse.begin();
            parts.gather(&mut gathering);
            if !gathering.is_busy() {
                pulse.rest();
            }
            let missing = gathering.state() == GatherState::ReplicasMissing;
            if common.replicas_missing.swap(missing, Ordering::AcqRel) != missing && missing {
                tracing::warn!(
                    "replicas are missing: --store.segment-replication-factor is larger than the \
                     number of stores, so records stay on the ingest side; queries are answered \
                     from there"
                );
            }
        }
    })
}

impl StoreParts {
    fn gathering(&self, source: Arc<LocalIngest>, options: GatheringOptions) -> Gathering {
        Gathering::start(source, Arc::clone(&self.catalogue), options, self.common.now_ms())
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.gathering.pause_ms)
    }

    /// Gathers on by a piece.
    fn gather(&self, gathering: &mut Gathering) {
        if self.cancel.load(Ordering::Acquire) {
            gathering.cancel();
        }
        let now = self.common.clock.now();
        for happened in gathering.turn(now, &|| self.common.load()) {
            tell_gather(&happened, &self.common.metrics);
        }
    }
}

fn tell_gather(happened: &Gathered, metrics: &NodeMetrics) {
    let (store, ingest) = (&metrics.store, &metrics.ingest);
    match happened {
        Gathered::Published { segment, inputs } => {
            store.consumed_segments.inc_by(*inputs as u64);
            store.consumed_bytes.inc_by(segment.text_bytes);
            store.replicated_segments.inc();
            store.replicated_bytes.inc_by(segment.text_bytes);
            metrics.disk_written_gather.inc_by(segment.file_bytes);
            tracing::debug!(
                inputs,
                records = segment.record_count,
                text_bytes = segment.text_bytes,
                "published a store segment"
            );
        }
        Gathered::Committed { segments, text_bytes } => {
            ingest.committed_segments.inc_by(*segments);
            ingest.committed_bytes.inc_by(*text_bytes);
        }
        Gathered::Returned { segments } => {
            ingest.failed_segments.inc_by(*segments);
        }
        Gathered::Damaged(damage) => tell_damage(damage, metrics),
        Gathered::Unread(refused) => {
            tracing::error!("{refused}; the file stays as it is and is read again");
        }
        Gathered::SetAside { segment, spans } => tracing::error!(
            %segment,
            spans,
            "what could be read of an ingest segment is stored; the file is kept as .damaged, \
             answers say what is missing, and it comes back when it reads well again"
        ),
        Gathered::FileFailed(error) => tracing::error!("{error}"),
        Gathered::Failed { error, is_news: true } => {
            tracing::error!("gathering failed: {error}; it is tried again with pauses");
        }
        Gathered::Failed { is_news: false, .. } => {}
        Gathered::WorksAgain => tracing::info!("gathering works again"),
    }
}

/// Has everything that is flushed go to the store, until nothing is left or the time is over
/// (milliseconds of the monotonic clock).
pub(super) fn drain(parts: &StoreParts, deadline_ms: u64) {
    let Some(source) = parts.source.clone() else { return };
    let (common, catalogue) = (&parts.common, Arc::clone(&parts.catalogue));
    let (doors, options) = (Arc::clone(&common.doors), parts.gathering);
    let mut rest = Rest::start(source, catalogue, doors, options, deadline_ms, common.now_ms());
    while !rest.is_over() {
        if parts.cancel.load(Ordering::Acquire) {
            rest.cancel();
        }
        for happened in rest.turn(common.clock.now()) {
            tell_gather(&happened, &common.metrics);
        }
    }
}

/// Lets go of the files of everything that is stored or replaced, now that nobody reads it.
pub(super) fn let_go_of_files(common: &Common) {
    if common.doors.is_ground_lost() {
        return;
    }
    if let Some(side) = &common.node.ingest {
        for error in side.registry.tidy(common.clock.now().wall_ms) {
            tracing::error!("{error}");
        }
    }
    if let Some(side) = &common.node.store {
        side.catalogue.remove_replaced();
        if let Err(error) = side.catalogue.save_inventory() {
            tracing::warn!("the inventory of the store cannot be written: {error}");
        }
    }
}
