//! The node as its HTTP server sees it: snapshots, appends, health.
//!
//! Invariants: a snapshot pins the shards' memory first, then the ingest segments, then the store
//! segments, because records move in that order: each is seen at least once, and once after copies
//! are dropped by ULID. A shard that does not answer is told as missing, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::damage::Damage;
use engine::follow::{StreamFormat, Wanted};
use engine::identity::Identity;
use engine::ingest::segment::SegmentState;
use engine::node::doors::Doors;
use engine::node::draining::{Left, Stuck};
use engine::node::pinning::{Memories, Pinned};
use engine::node::{IngestSide, StoreSide};
use engine::search::{Missing, Searcher, Snapshot};
use engine::topic::Topic;
use engine::ulid::Ulid;
use net::backend::{
    AppendError, Appended, Appender, Backend, ClusterState, DrainState, FollowError, Following,
    Health, IngestSegments, LocalView, Pending, SegmentCount, SegmentOverview, StoreSegments, View,
};
use net::limits::PIN_WITHIN;
use net::metrics::StoreMetrics;
use net::shard::Placement;
use net::shard::inbox::{Append, Message};
use tokio::sync::oneshot;

use super::cluster;
use super::common::{Common, unstored_bytes};
use super::keeper_words::{Is, reason};

/// How long an append waits for room before the client is told to come again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon one that waits learns that the disk fails.
const DOORS_BEAT: Duration = Duration::from_millis(100);

/// What the node shares with its servers.
pub(super) struct NodeBackend {
    pub(super) common: Arc<Common>,
    /// Who the ingest side is, if there is one.
    pub(super) ingester: Option<Identity>,
    pub(super) searcher: Arc<Searcher>,
    pub(super) record_size_max: usize,
    /// No stamp of this life is below it, ms.
    pub(super) floor_ms: u64,
    pub(super) next_shard: AtomicUsize,
}

impl NodeBackend {
    /// The newest stamp that this node has given, ms; 0: none yet.
    fn newest_stamp_ms(&self) -> u64 {
        let shards =
            self.common.placement.seats().iter().map(|s| s.newest_ms.load(Ordering::Acquire));
        shards.max().unwrap_or(0)
    }

    /// Levels of the ingest side; `memory` bytes are in shards, the oldest of them is of that time, ms.
    fn measure_ingest(&self, side: &IngestSide, memory: i64, oldest_memory_ms: u64) {
        let (registry, metrics) = (&side.registry, &self.common.metrics);
        let ingest = &metrics.ingest;
        ingest.topics.set(side.topics.len() as i64);
        ingest.backlog_bytes.set(registry.backlog_bytes() as i64);
        ingest.unread_segments.set(registry.unread_files() as i64);
        ingest.damaged_segments.set(registry.damaged_files() as i64);
        ingest.missing_records.set(registry.missing_records() as i64);
        ingest.backlog_limit_bytes.set(self.common.backlog_max_bytes as i64);
        ingest.unindexed_bytes.set(unstored_bytes(side, memory));
        let now_ms = self.common.clock.now().wall_ms;
        let oldest_ms = oldest_memory_ms.min(registry.oldest_ms().unwrap_or(now_ms));
        let age_seconds = now_ms.saturating_sub(oldest_ms.min(now_ms)) as f64 / 1e3;
        ingest.unstored_age_seconds.set(age_seconds);
        metrics.queue_depth("flushed_segments").set(registry.backlog().segments as i64);
    }

    fn reasons(&self) -> Vec<String> {
        let (is, doors) = (self.common.is(), self.common.doors.reasons());
        let mut reasons: Vec<String> = doors.iter().map(|found| reason(found, is)).collect();
        reasons.extend(self.common.vitals.reasons());
        if self.common.auth_file.trouble().is_some() {
            // Everybody may read this: what is wrong stands in the log.
            reasons.push(
                "the file of --auth.file cannot be used: what it said before holds (the log says why)"
                    .into(),
            );
        }
        if self.common.is_replica_missing() {
            reasons.push(
                "replicas are missing: the replication factor is larger than the number of \
                 stores; records stay on the ingest side"
                    .into(),
            );
        }
        let store = self.common.node.store.as_ref();
        let missing = store.map_or(0, |side| side.catalogue.missing_records());
        if missing > 0 {
            reasons.push(format!(
                "{missing} records were stored and are in no file: a store segment was taken away; \
                 put it back, answers over its time are incomplete until then"
            ));
        }
        let ingest = self.common.node.ingest.as_ref();
        let missing = ingest.map_or(0, |side| side.registry.missing_records());
        if missing > 0 {
            reasons.push(format!(
                "{missing} records waited to be stored and are in no file: ingest segments were taken \
                 away; put them back and start the node again, answers over their time are incomplete \
                 until then"
            ));
        }
        reasons.extend(damage_reason(
            ingest.map_or(0, |side| side.registry.damaged_files()),
            store.map_or(0, |side| side.catalogue.totals().damaged_count),
        ));
        if self.common.draining.is_begun() {
            reasons.push("the node is draining: it takes no new records until a restart".into());
        }
        if self.common.is_stopping() {
            reasons.push("the node is stopping".into());
        }
        reasons
    }
}

impl Backend for NodeBackend {
    fn pin(&self) -> Pending<Box<dyn View>> {
        let replies: Vec<_> = self
            .common
            .placement
            .seats()
            .iter()
            .map(|seat| {
                let (reply, memory) = oneshot::channel();
                seat.inbox.send(Message::Snapshot(reply));
                memory
            })
            .collect();
        let (node, searcher) = (self.common.node.clone(), Arc::clone(&self.searcher));
        let address = self.common.address.clone();
        Box::pin(async move {
            let mut memories = Memories::default();
            let deadline = tokio::time::Instant::now() + PIN_WITHIN;
            for (shard, reply) in replies.into_iter().enumerate() {
                match tokio::time::timeout_at(deadline, reply).await {
                    Ok(Ok(memory)) => memories.add(memory),
                    Ok(Err(_)) | Err(_) => memories.note_silent(shard),
                }
            }
            let view = LocalView::new(searcher, snapshot_of(memories.pin(&node), &address));
            Box::new(view) as Box<dyn View>
        })
    }

    fn follow(&self, mut wanted: Wanted, format: StreamFormat) -> Result<Following, FollowError> {
        let hub = self.common.hub.as_ref().ok_or(FollowError::NoIngester)?;
        wanted.chain = self.searcher.adopt(wanted.chain);
        Ok(hub.follow(wanted, format))
    }

    fn newest_ms(&self) -> u64 {
        self.newest_stamp_ms().max(self.common.node.newest_ms)
    }

    fn appender(
        &self,
        topic: Option<Topic>,
        is_awaited: bool,
    ) -> Result<Box<dyn Appender>, AppendError> {
        if self.common.node.ingest.is_none() {
            return Err(AppendError::NoIngester);
        }
        if self.common.is_stopping() {
            return Err(AppendError::ShuttingDown);
        }
        if self.common.draining.is_begun() {
            return Err(AppendError::Draining);
        }
        if let Some(refusal) = refusal(&self.common.doors) {
            return Err(refusal);
        }
        let shards = self.common.placement.seats().len();
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed) % shards;
        Ok(Box::new(ShardAppender {
            placement: self.common.placement.clone(),
            shard,
            topic,
            is_awaited,
            end: Arc::default(),
            doors: Arc::clone(&self.common.doors),
        }))
    }

    fn max_record_size_bytes(&self) -> usize {
        self.record_size_max
    }

    fn health(&self) -> Health {
        Health { failing: self.common.vitals.is_failing(), reasons: self.reasons() }
    }

    fn readiness(&self) -> Health {
        let failing = !self.common.doors.is_ready()
            || self.common.vitals.is_failing()
            || self.common.is_stopping()
            || self.common.draining.is_begun();
        Health { failing, reasons: self.reasons() }
    }

    fn segment_state(&self) -> SegmentOverview {
        let mut state = SegmentOverview::default();
        if let Some(ingester) = self.ingester {
            (state.ingest.id, state.ingest.boot) = (ingester.id.to_string(), ingester.boot);
        }
        if let Some(side) = &self.common.node.ingest {
            show_ingest(side, &mut state.ingest);
        }
        if let Some(side) = &self.common.node.store {
            show_store(side, &mut state.store);
            state.store.gather = if self.common.is_replica_missing() {
                "replicas missing".into()
            } else {
                "working".into()
            };
        }
        state
    }

    fn cluster_state(&self) -> ClusterState {
        cluster::state(&self.common, self.ingester)
    }

    fn drain(&self) -> DrainState {
        if self.common.draining.begin() {
            tracing::info!(
                "draining: no new records are taken, all that is held goes to the store"
            );
            for seat in self.common.placement.seats() {
                seat.inbox.send(Message::Drain);
            }
        }
        self.drain_state().unwrap_or_default()
    }

    fn drain_state(&self) -> Option<DrainState> {
        if !self.common.draining.is_begun() {
            return None;
        }
        let seats = self.common.placement.seats().iter();
        let shards = seats.filter(|seat| !seat.drained.load(Ordering::Acquire)).count() as u64;
        let left = Left::of(&self.common.node, shards, self.common.is_replica_missing());
        let Left { segments, bytes, .. } = left;
        let stuck = left.stuck.map(|stuck| match stuck {
            Stuck::ReplicasMissing => "replicas are missing: nothing can go to the store (a node \
                                       on its own needs --store.segment-replication-factor 1)"
                .to_owned(),
            Stuck::NoStore => {
                "this node keeps nothing itself, and no store takes what it holds".into()
            }
            Stuck::Unread(files) => format!(
                "{files} ingest files cannot be read; they are read again, and the log says why"
            ),
        });
        Some(DrainState { done: left.is_done(), shards, segments, bytes, stuck })
    }

    fn metrics_text(&self) -> String {
        // Levels are read in the order in which records move, so that none is overlooked.
        let memory = self.common.metrics.shard_memory_bytes.get();
        let seats = self.common.placement.seats().iter();
        let oldest_memory_ms = seats.map(|seat| seat.oldest_ms.load(Ordering::Acquire)).min();
        let oldest_memory_ms = oldest_memory_ms.unwrap_or(u64::MAX);
        if let Some(side) = &self.common.node.ingest {
            self.measure_ingest(side, memory, oldest_memory_ms);
        }
        if let Some(side) = &self.common.node.store {
            measure_store(side, &self.common.metrics.store);
        }
        self.common.metrics.store.replicas_missing.set(i64::from(self.common.is_replica_missing()));
        let deferred = self.common.metrics.shard_deferred.get();
        self.common.metrics.queue_depth("shard_deferred").set(deferred);
        let abandoned = &self.common.metrics.query.abandoned_bytes;
        abandoned.inc_by(self.searcher.abandoned_bytes().saturating_sub(abandoned.get()));
        // What the store holds may be copies of what others have stamped.
        let stamped_ms = self.newest_stamp_ms().max(self.floor_ms);
        let ahead = stamped_ms.saturating_sub(self.common.clock.now().wall_ms);
        self.common.metrics.clock_ahead_seconds.set(ahead as f64 / 1e3);
        self.common.metrics.encode()
    }
}

fn measure_store(side: &StoreSide, metrics: &StoreMetrics) {
    let totals = side.catalogue.totals();
    metrics.segments.set(totals.segment_count as i64);
    metrics.bytes.set(totals.file_bytes as i64);
    metrics.text_bytes.set(totals.text_bytes as i64);
    metrics.unread_segments.set(totals.unread_count as i64);
    metrics.missing_records.set(side.catalogue.missing_records() as i64);
    metrics.trash_segments.set(totals.trash_count as i64);
    metrics.trash_bytes.set(totals.trash_bytes as i64);
}

fn show_ingest(side: &IngestSide, shown: &mut IngestSegments) {
    for segment in side.registry.list() {
        let count = match segment.state {
            _ if !segment.is_offered && segment.state != SegmentState::Damaged => &mut shown.unread,
            SegmentState::Active => &mut shown.active,
            SegmentState::Flushed => &mut shown.flushed,
            SegmentState::Pending => &mut shown.pending,
            SegmentState::Damaged => &mut shown.damaged,
        };
        count.segments += 1;
        count.bytes += segment.len_bytes;
    }
    let (registry, prepared) = (&side.registry, &mut shown.prepared);
    (prepared.segments, prepared.bytes) = (registry.pool_segments() as u64, registry.pool_bytes());
}

fn show_store(side: &StoreSide, shown: &mut StoreSegments) {
    if let Some(store) = side.catalogue.directory().identity() {
        (shown.id, shown.boot) = (store.id.to_string(), store.boot);
    }
    let totals = side.catalogue.totals();
    shown.flushed = SegmentCount { segments: totals.segment_count, bytes: totals.file_bytes };
    shown.trashed = SegmentCount { segments: totals.trash_count, bytes: totals.trash_bytes };
    (shown.damaged, shown.unread) = (totals.damaged_count, totals.unread_count);
    shown.records = totals.record_count;
}

/// Segments that hold damage, of which answers tell what they lack.
fn damage_reason(ingest: usize, store: u64) -> Option<String> {
    let sides = match (ingest, store) {
        (0, 0) => return None,
        (_, 0) => format!("ingest files are damaged and kept as .damaged: {ingest}"),
        (0, _) => format!("store segments hold damage: {store}"),
        _ => format!(
            "ingest files are damaged and kept as .damaged: {ingest}; store segments hold damage: \
             {store}"
        ),
    };
    Some(format!(
        "{sides}; answers over their time are incomplete, the log and `oklogd fsck` name the files"
    ))
}

/// What was pinned, as search takes it.
fn snapshot_of(pinned: Pinned, node: &str) -> Snapshot {
    let silent = pinned.silent.into_iter().map(|shard| Missing {
        from: Ulid::MIN,
        to: Ulid::MAX,
        node: node.to_owned(),
        reason: format!("shard {shard} does not say what it holds in memory"),
        damage: None,
    });
    let missing = silent.chain(pinned.lost.iter().map(|damage| lost(damage, node))).collect();
    Snapshot { parts: pinned.parts, missing }
}

/// What cannot be read of the ingest side, for an answer.
fn lost(damage: &Damage, node: &str) -> Missing {
    let (from, to) = damage.range.unwrap_or((Ulid::MIN, Ulid::MAX));
    Missing { from, to, node: node.to_owned(), reason: damage.to_string(), damage: None }
}

/// Takes the records of one request into one shard.
struct ShardAppender {
    placement: Placement,
    shard: usize,
    topic: Option<Topic>,
    is_awaited: bool,
    /// Log position behind the last append that was answered.
    end: Arc<AtomicU64>,
    doors: Arc<Doors>,
}

/// Why the disk takes no records, where it does not.
fn refusal(doors: &Doors) -> Option<AppendError> {
    match doors.ingest_trouble() {
        // What it says is the same of all who take records.
        Some(trouble) => Some(AppendError::Storage(reason(&trouble, Is::Both))),
        None => doors.is_disk_failing().then_some(AppendError::DiskFull),
    }
}

/// Waits for `work`; gives up when its time is over, or as soon as the disk is known to fail.
async fn in_time<T>(
    doors: &Doors,
    work: impl Future<Output = Option<T>>,
) -> Result<T, AppendError> {
    let mut work = std::pin::pin!(work);
    let start = tokio::time::Instant::now();
    loop {
        if let Ok(done) = tokio::time::timeout(DOORS_BEAT, &mut work).await {
            return done.ok_or(AppendError::ShuttingDown);
        }
        if let Some(refusal) = refusal(doors) {
            return Err(refusal);
        }
        if start.elapsed() >= APPEND_TIMEOUT {
            return Err(AppendError::Overloaded);
        }
    }
}

impl Appender for ShardAppender {
    fn append(&mut self, lines: Bytes) -> Pending<Result<Appended, AppendError>> {
        let (placement, shard, topic) = (self.placement.clone(), self.shard, self.topic.clone());
        let (end, doors) = (Arc::clone(&self.end), Arc::clone(&self.doors));
        let is_awaited = self.is_awaited;
        Box::pin(async move {
            if let Some(refusal) = refusal(&doors) {
                return Err(refusal);
            }
            let work = async {
                let (reply, stamped) = oneshot::channel();
                let message = Message::Append(Append { lines, topic, is_awaited, reply });
                placement.seats()[shard].inbox.send(message);
                stamped.await.ok()
            };
            let stamped = in_time(&doors, work).await?;
            end.store(stamped.end, Ordering::Release);
            let (records, first, last) = (stamped.records, stamped.first, stamped.last);
            Ok(Appended { records, first, last })
        })
    }

    fn trouble(&self) -> Pending<AppendError> {
        let doors = Arc::clone(&self.doors);
        Box::pin(async move {
            loop {
                if let Some(refusal) = refusal(&doors) {
                    return refusal;
                }
                tokio::time::sleep(DOORS_BEAT).await;
            }
        })
    }

    fn durable(&mut self) -> Pending<Result<(), AppendError>> {
        let (reply, done) = oneshot::channel();
        let end = self.end.load(Ordering::Acquire);
        self.placement.seats()[self.shard].inbox.send(Message::Durable(end, reply));
        let doors = Arc::clone(&self.doors);
        Box::pin(async move { in_time(&doors, async { done.await.ok() }).await })
    }
}
