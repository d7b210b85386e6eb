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
use std::time::{Duration, Instant};

use engine::damage::Damage;
use engine::ingest::registry::{ClaimLimits, ClaimToken, FileError, Registry};
use engine::ingest::segment::SegmentState;
use engine::store::catalogue::Catalogue;
use engine::store::compaction::{CompactionLimits, Reason, room_wanted_bytes};
use engine::store::compaction_run::{CompactionError, compact};
use engine::store::gather::{Available, GatherLimits, GatherState};
use engine::store::gather_run::{Claimed, ClaimedInput, GatherRun, IngestSource, Turn};
use engine::store::retention::RetentionLimits;
use engine::store::writer::WriterOptions;
use engine::ulid::Ulid;
use net::metrics::NodeMetrics;
use net::shard::Clock;

use super::data::{Data, tell_damage};
use super::doors::Doors;
use super::expiry::Expiry;
use super::host::Wanted;
use super::pressure::Pressure;
use super::vitals::{Role, Vitals};

/// Time between looks for something to compact.
const COMPACTION_PAUSE: Duration = Duration::from_millis(500);
/// Time before a failed compaction is tried again.
const COMPACTION_BACK_OFF: Duration = Duration::from_secs(10);

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

/// The ingest side of this process, as gathering sees it.
pub(super) struct LocalIngest {
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) clock: Clock,
    /// Nothing waits for company any more: the node is being emptied.
    draining: Arc<AtomicBool>,
    /// Since when something has been waiting to be gathered.
    flushed_since_ms: Mutex<Option<u64>>,
}

impl LocalIngest {
    pub(super) fn new(
        data: &Data,
        metrics: Arc<NodeMetrics>,
        clock: Clock,
        draining: Arc<AtomicBool>,
    ) -> Self {
        let registry = Arc::clone(&data.registry);
        Self { registry, metrics, clock, draining, flushed_since_ms: Mutex::default() }
    }
}

impl IngestSource for LocalIngest {
    fn available(&self, now_ms: u64) -> Available {
        let rows = self.registry.list();
        let flushed =
            rows.iter().filter(|row| row.state == SegmentState::Flushed && row.is_offered);
        let (count, bytes) =
            flushed.fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.content.text_bytes));
        let mut since = self.flushed_since_ms.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if count == 0 { None } else { since.or(Some(now_ms)) };
        let oldest_age_ms = match *since {
            Some(_) if self.draining.load(Ordering::Acquire) => u64::MAX,
            since => since.map_or(0, |since| now_ms.saturating_sub(since)),
        };
        Available { count, bytes, oldest_age_ms }
    }

    fn claim(&self, bytes_max: u64, count_max: usize, now_ms: u64) -> io::Result<Claimed> {
        let limits = ClaimLimits { segments_max: count_max, text_bytes_max: bytes_max };
        let claim = self.registry.claim(limits, now_ms);
        *self.flushed_since_ms.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let named = |refused: FileError| io::Error::new(refused.error.kind(), refused.to_string());
        let token = claim.token;
        let (segments, errors) = claim.into_parts().map_err(named)?;
        tell_errors(&errors);
        Ok(Claimed { token, inputs: segments.into_iter().map(ClaimedInput::from).collect() })
    }

    fn renew(&self, token: ClaimToken, now_ms: u64) -> usize {
        let renewed = self.registry.renew(token, now_ms);
        tell_errors(&renewed.errors);
        renewed.open
    }

    fn commit(&self, token: ClaimToken, inputs: &[u128], _now_ms: u64) {
        let ids: Vec<Ulid> = inputs.iter().map(|&id| Ulid(id)).collect();
        let committed = self.registry.commit(token, &ids, self.clock.now().wall_ms);
        let ingest = &self.metrics.ingest;
        ingest.committed_segments.inc_by(committed.segments);
        ingest.committed_bytes.inc_by(committed.text_bytes);
        tell_errors(&committed.errors);
    }

    fn fail(&self, token: ClaimToken, _now_ms: u64) {
        let failed = self.registry.fail(token);
        self.metrics.ingest.failed_segments.inc_by(failed.segments);
        tell_errors(&failed.errors);
    }

    fn unread(&self, token: ClaimToken, input: u128, damage: &[Damage], now_ms: u64) {
        if self.registry.note_unread(token, Ulid(input), damage, now_ms)
            && let Some(refused) = damage.iter().find(|damage| damage.refusal().is_some())
        {
            tracing::error!("{refused}; the file stays as it is and is read again");
        }
    }

    fn set_aside(&self, token: ClaimToken, input: u128, damage: &[Damage]) {
        match self.registry.set_aside(token, Ulid(input), damage) {
            Ok(true) => tracing::error!(
                segment = %Ulid(input),
                spans = damage.len(),
                "what could be read of an ingest segment is stored; the file is kept as .damaged, \
                 answers say what is missing, and it comes back when it reads well again"
            ),
            // Somebody else decides about it.
            Ok(false) => {}
            Err(error) => tracing::error!("{error}"),
        }
    }
}

fn tell_errors(errors: &[FileError]) {
    for error in errors {
        tracing::error!("{error}");
    }
}

/// What gathering and compaction work with.
#[derive(Clone)]
pub(super) struct StoreParts {
    /// Who shares the process's descriptors.
    pub(super) descriptors: Wanted,
    pub(super) source: Arc<LocalIngest>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) limits: GatherLimits,
    pub(super) writer: WriterOptions,
    pub(super) delay: Duration,
    pub(super) doors: Arc<Doors>,
    pub(super) compaction: CompactionLimits,
    pub(super) retention: RetentionLimits,
    /// The newest stamp on disk at the start, ms.
    pub(super) newest_ms: u64,
    pub(super) backlog_max_bytes: u64,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) clock: Clock,
    pub(super) replicas_missing: Arc<AtomicBool>,
    pub(super) stop: Arc<StopFlag>,
    /// Ends gathering between two chunks.
    pub(super) cancel: Arc<AtomicBool>,
    /// Ends compaction between two chunks.
    pub(super) cancel_compaction: Arc<AtomicBool>,
    pub(super) vitals: Arc<Vitals>,
}

impl StoreParts {
    fn holds_back(&self, pressure: &mut Pressure) -> bool {
        let now_ms = self.clock.now().monotonic_us / 1000;
        let pauses = self.metrics.ingest.pauses.get();
        let backlog_bytes = self.source.registry.backlog_bytes();
        pressure.holds_back(now_ms, pauses, backlog_bytes, self.backlog_max_bytes)
    }
}

/// Starts the gathering threads and the compaction thread.
pub(super) fn spawn(consumers: usize, parts: &StoreParts) -> io::Result<Vec<JoinHandle<()>>> {
    let gathers = (0..consumers).map(|number| spawn_gather(number, parts.clone()));
    let threads = gathers.chain([spawn_compaction(parts.clone())]).collect();
    // Nobody waits for its end: a read that hangs must not keep the node from stopping.
    super::read_again::spawn(parts.clone())?;
    threads
}

fn spawn_compaction(parts: StoreParts) -> io::Result<JoinHandle<()>> {
    let pulse = parts.vitals.pulse("compact", Role::Compaction);
    std::thread::Builder::new().name("compact".into()).spawn(move || {
        let mut expiry = Expiry::start(parts.retention, parts.clock, parts.newest_ms);
        let mut compaction = Compaction::default();
        let mut pause = COMPACTION_PAUSE;
        while !parts.stop.wait(pause) {
            if parts.doors.is_ground_lost() {
                continue;
            }
            pulse.begin();
            for (path, error) in parts.catalogue.sweep().failed {
                tracing::error!("{} was replaced but cannot be removed: {error}", path.display());
            }
            // Before compaction, so that it merges nothing that has expired.
            expiry.turn(&parts.catalogue, &parts.source.registry, parts.clock, &parts.metrics);
            pulse.begin();
            pause = compaction.turn(&parts);
            pulse.rest();
        }
    })
}

/// Compaction, turn by turn.
#[derive(Default)]
struct Compaction {
    pressure: Pressure,
    failing: bool,
    /// The next compaction finds no room.
    lacks_room: bool,
    not_before: Option<Instant>,
}

impl Compaction {
    /// Compacts once if there is something to do; says how long to pause.
    fn turn(&mut self, parts: &StoreParts) -> Duration {
        if parts.holds_back(&mut self.pressure) {
            return parts.delay;
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return COMPACTION_PAUSE;
        }
        match compact_once(parts) {
            Ok(found) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("compaction works again");
                }
                self.tell_wanted(parts, found);
                // There may be more to do: look again at once.
                if found { Duration::ZERO } else { COMPACTION_PAUSE }
            }
            Err(CompactionError::Cancelled) => COMPACTION_PAUSE,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("compaction failed: {error}; it is tried again later");
                }
                if let CompactionError::Damaged(damage) = &error {
                    tell_damage(damage, &parts.metrics);
                }
                parts.metrics.store.compact_failures.inc();
                self.not_before = Some(Instant::now() + COMPACTION_BACK_OFF);
                COMPACTION_PAUSE
            }
        }
    }
}

impl Compaction {
    /// A compaction that waits for room on the disk is told: once, and as long as it waits by a
    /// gauge.
    fn tell_wanted(&mut self, parts: &StoreParts, found: bool) {
        let limits = limits(parts);
        let wanted = if found || limits.room_bytes >= limits.segment_bytes_max {
            None
        } else {
            let snapshot = parts.catalogue.snapshot();
            let whole = snapshot.iter().filter(|segment| !segment.is_damaged());
            room_wanted_bytes(&whole.map(|s| *s.meta()).collect::<Vec<_>>(), &limits)
        };
        parts.metrics.store.compact_wanted_bytes.set(wanted.unwrap_or(0) as i64);
        if wanted.is_some() == std::mem::replace(&mut self.lacks_room, wanted.is_some()) {
            return;
        }
        if let Some(wanted_bytes) = wanted {
            let room_bytes = limits.room_bytes;
            tracing::warn!(
                wanted_bytes,
                room_bytes,
                "a compaction waits for room on the disk of --store.path; smaller ones go on"
            );
        } else {
            tracing::info!("no compaction waits for room any more");
        }
    }
}

/// What a compaction may do now.
fn limits(parts: &StoreParts) -> CompactionLimits {
    CompactionLimits { room_bytes: parts.doors.compaction_bytes(), ..parts.compaction }
}

/// Whether there was something to compact.
fn compact_once(parts: &StoreParts) -> Result<bool, CompactionError> {
    let start = Instant::now();
    let limits = limits(parts);
    let Some(done) = compact(&parts.catalogue, &limits, parts.writer, &parts.cancel_compaction)?
    else {
        return Ok(false);
    };
    let store = &parts.metrics.store;
    let spent = match done.plan.reason {
        Reason::Overlap => &store.compact_overlapping_seconds,
        Reason::Tier => &store.compact_sequential_seconds,
    };
    spent.observe(start.elapsed().as_secs_f64());
    parts.metrics.disk_written_compaction.inc_by(done.output.file_bytes);
    tracing::debug!(
        inputs = done.plan.inputs.len(),
        copied_slabs = done.copied_slab_count,
        duplicates = done.duplicate_count,
        file_bytes = done.output.file_bytes,
        "compacted store segments"
    );
    Ok(true)
}

fn spawn_gather(number: usize, parts: StoreParts) -> io::Result<JoinHandle<()>> {
    let name = format!("gather-{number}");
    let pulse = parts.vitals.pulse(&*name, Role::Gather);
    std::thread::Builder::new().name(name).spawn(move || {
        let mut gather = GatherRun::new(
            parts.limits,
            Arc::clone(&parts.source) as Arc<dyn IngestSource>,
            Arc::clone(&parts.catalogue),
            Arc::clone(&parts.cancel),
        )
        .writing(parts.writer);
        let clock = || parts.clock.now().monotonic_us / 1000;
        let mut failing = false;
        let mut pressure = Pressure::default();
        let mut pause = parts.delay;
        while !parts.stop.wait(pause) {
            pause = parts.delay;
            if parts.doors.is_ground_lost() || parts.holds_back(&mut pressure) {
                continue;
            }
            pulse.begin();
            let turn = gather.turn(&clock);
            tell(&parts, &turn, &mut failing);
            pulse.rest();
            if turn.goes_on {
                pause = Duration::ZERO;
            }
            let missing = gather.state() == GatherState::ReplicasMissing;
            if parts.replicas_missing.swap(missing, Ordering::AcqRel) != missing && missing {
                tracing::warn!(
                    "replicas are missing: --store.segment-replication-factor is larger than the \
                     number of stores, so records stay on the ingest side; queries are answered \
                     from there"
                );
            }
        }
    })
}

fn tell(parts: &StoreParts, turn: &Turn, failing: &mut bool) {
    let store = &parts.metrics.store;
    for (segment, inputs) in &turn.published {
        store.consumed_segments.inc_by(*inputs as u64);
        store.consumed_bytes.inc_by(segment.text_bytes);
        store.replicated_segments.inc();
        store.replicated_bytes.inc_by(segment.text_bytes);
        parts.metrics.disk_written_gather.inc_by(segment.file_bytes);
        tracing::debug!(
            inputs,
            records = segment.record_count,
            text_bytes = segment.text_bytes,
            "published a store segment"
        );
    }
    tell_damage(&turn.damage, &parts.metrics);
    if let Some(error) = &turn.error {
        if !*failing {
            tracing::error!("gathering failed: {error}; it is tried again with pauses");
        }
        *failing = true;
    } else if !turn.published.is_empty() && std::mem::take(failing) {
        tracing::info!("gathering works again");
    }
}

/// Gathers everything that is flushed, until nothing is left or the time is over.
pub(super) fn drain(parts: &StoreParts, deadline: Instant) {
    let limits = GatherLimits { target_bytes: 1, target_age_ms: 0, ..parts.limits };
    let mut gather = GatherRun::new(
        limits,
        Arc::clone(&parts.source) as Arc<dyn IngestSource>,
        Arc::clone(&parts.catalogue),
        Arc::clone(&parts.cancel),
    )
    .writing(parts.writer);
    let clock = || parts.clock.now().monotonic_us / 1000;
    let mut failing = false;
    let may_go_on = || Instant::now() < deadline && !parts.doors.is_ground_lost();
    while may_go_on() && parts.source.available(clock()).count > 0 {
        let turn = gather.turn(&clock);
        tell(parts, &turn, &mut failing);
        if !turn.goes_on {
            break;
        }
    }
}

/// Lets go of the files of everything that is stored or replaced, now that nobody reads it.
pub(super) fn sweep(parts: &StoreParts) {
    if parts.doors.is_ground_lost() {
        return;
    }
    for error in parts.source.registry.sweep(parts.clock.now().wall_ms) {
        tracing::error!("{error}");
    }
    parts.catalogue.sweep();
}
