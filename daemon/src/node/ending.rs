//! How a node stops: no new records, shards write out, the store takes what it can in the time that it
//! is given, then the process ends.
//!
//! Invariants: it ends within `--shutdown-timeout` and a moment, whatever hangs: what does not end by
//! itself is cancelled, and what cannot be cancelled is left to the end of the process, as a kill
//! would. The last word is true: records that were taken and are not on disk are counted, and make
//! the exit code 1, if their senders take them for safe. The directories stay locked for as long as a thread may still write to them.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::ingest::left_in_tail::sync_and_count;
use engine::ingest::promises::NotOnDisk;
use engine::ingest::stamp_mark::StampKeeper;
use engine::storage::OsStorage;
use net::shard::Placement;
use net::shard::inbox::Message;
use net::shard::placement::Seat;

use super::common::Common;
use super::ground::records_not_found;
use super::store_work::{self, StoreParts};
use super::{Node, NodeError, Taking};

/// How long what is cancelled at the deadline may take to put away what it has begun.
const CANCEL_GRACE: Duration = Duration::from_millis(300);
/// How long the last small writes of a stop may take.
const DISK_PATIENCE: Duration = Duration::from_millis(500);
/// How long it may take to look whether what waits is where the next start looks for it: what is not
/// known by then makes the exit code 1, and a busy machine is none that lost something.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// The part of the time that open HTTP requests may take of it.
const HTTP_SHARE: u32 = 4;

impl Node {
    /// Stops in good order. An error: not everything that was taken is on disk.
    pub(super) fn shut_down(self) -> Result<(), NodeError> {
        let start = Instant::now();
        let deadline = start + self.config.shutdown_timeout;
        self.common.stopping.store(true, Ordering::Release);
        // It is begun anew after the next start, and others need the time now.
        if let Some(store) = &self.store {
            store.compaction.cancel.store(true, Ordering::Release);
        }
        // Streams have no end of their own.
        self.common.hub.stop();
        let mut all_ended = join_until(self.follow_thread, deadline);
        all_ended &= self.control.stop(start + self.config.shutdown_timeout / HTTP_SHARE);
        end_shards(&self.common);
        if let Some(taking) = self.taking {
            all_ended &= taking.end(&self.common, start, deadline);
        }
        let stamps = self.common.node.ingest.as_ref().map(|side| Arc::clone(&side.stamps));
        if let Some(stamps) = stamps.filter(|_| all_ended && !self.common.doors.is_ground_lost()) {
            all_ended &= close_stamps(&self.common, stamps);
        }
        self.common.work_ends.set();
        all_ended &= finish_work(&self.common, self.store, self.work_threads, deadline);
        let (placement, ingest) = (self.common.placement.clone(), self.config.ingest);
        let not_on_disk = within(move || {
            let directory = ingest.map(|side| side.path);
            directory.map_or_else(Lost::default, |path| records_not_on_disk(&placement, &path))
        });
        all_ended &= not_on_disk.is_some();
        let lost = not_on_disk.unwrap_or_else(|| unsynced_records(&self.common.placement));
        let (seconds, waiting_bytes) = (start.elapsed().as_secs_f64(), self.common.backlog_bytes());
        let look = move || records_not_found(&self.common);
        let not_found = within_time(LOOK_PATIENCE, look);
        if !all_ended {
            // The process ends now, and with it the locks.
            std::mem::forget(self.locks);
        }
        let is_whole = all_ended;
        LastWord { seconds, waiting_bytes, not_found, lost, is_whole }.tell()
    }
}

impl Taking {
    /// Has shards and their keeper end; says whether they have.
    fn end(self, common: &Common, start: Instant, deadline: Instant) -> bool {
        let memory = &common.metrics.shard_memory_bytes;
        let mut patience = Patience { deadline, held_bytes: memory.get(), since: start };
        let mut shards_ended = true;
        for shard in self.shards {
            shards_ended &= join_while(shard, || {
                patience.lasts(memory.get(), common.doors.is_disk_failing(), Instant::now())
            });
        }
        // Everything that shards have sealed is flushed once the keeper has ended.
        self.keeper.stop();
        join_until(self.keeper_thread, deadline) && shards_ended
    }
}

/// How it went.
struct LastWord {
    seconds: f64,
    waiting_bytes: u64,
    /// Records whose files were taken away; `None`: nobody knows.
    not_found: Option<u64>,
    lost: Lost,
    /// Every thread has ended.
    is_whole: bool,
}

impl LastWord {
    /// Tells it; an error where something is lost.
    fn tell(self) -> Result<(), NodeError> {
        let Self { seconds, waiting_bytes, not_found, lost, is_whole } = self;
        let mut failed = None;
        if lost.records > 0 {
            let rest = if not_found == Some(0) {
                "; what else waits is on disk and is taken up at the next start"
            } else {
                ""
            };
            tracing::error!(
                seconds,
                waiting_bytes,
                not_on_disk = lost.records,
                "stopped, but records that were taken are not on disk: the disk took no more in \
                 time{rest}"
            );
            failed = Some(NodeError::NotOnDisk(lost.records));
        }
        match not_found {
            Some(0) => {}
            Some(records) => {
                let not_found = records;
                tracing::error!(seconds, not_found, "stopped, but not all that was taken is there");
                failed = Some(NodeError::TakenAway(records));
            }
            None => {
                tracing::error!(
                    seconds,
                    waiting_bytes,
                    "stopped, but whether all that was taken is there is not known: the disk did \
                     not say in time"
                );
                failed = failed.or(Some(NodeError::NotLookedUp));
            }
        }
        if lost.awaited_records > 0 {
            tracing::warn!(
                awaited_records = lost.awaited_records,
                "records are not on disk whose senders were not told that they are: who counts \
                 acknowledgements sends them again"
            );
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let words = if waiting_bytes == 0 && is_whole {
            "stopped; nothing waits, all is in the store"
        } else {
            "stopped; what waits is on disk and is taken up at the next start"
        };
        tracing::info!(seconds, waiting_bytes, "{words}");
        Ok(())
    }
}

/// Has shards write out what they hold. Before that a look: it may come to be nowhere.
fn end_shards(common: &Arc<Common>) {
    let looking = Arc::clone(common);
    if let Some(taken_away) = within(move || looking.grounds.look()) {
        common.doors.set_taken_away(taken_away);
    }
    for seat in common.placement.seats() {
        seat.inbox.send(Message::ShutDown);
    }
}

/// Does something that the disk may keep for ever; `None`: it was not done in time.
fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    within_time(DISK_PATIENCE, work)
}

fn within_time<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, done) = channel();
    let work = move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    };
    std::thread::Builder::new().name("last-writes".into()).spawn(work).ok()?;
    done.recv_timeout(patience).ok()
}

/// The next life need not start ahead of the clock; says whether the disk let that be written in time.
fn close_stamps(common: &Common, stamps: Arc<Mutex<StampKeeper>>) -> bool {
    let stamped_ms = common.newest_stamped_ms();
    let closed =
        within(move || stamps.lock().unwrap_or_else(PoisonError::into_inner).close(stamped_ms));
    if let Some(Err(error)) = &closed {
        tracing::warn!("the mark of stamps cannot be written: {error}");
    }
    closed.is_some()
}

/// Records that a stop leaves behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lost {
    /// Their senders take them for safe, or never wanted to know.
    records: u64,
    /// Their senders were not told that they are safe.
    awaited_records: u64,
}

impl Lost {
    /// Of a shard of whose unsynced records so many were found on the disk after all. Which these are
    /// is not known: what can be lost is told.
    fn of(shard: NotOnDisk, kept_records: u64) -> Self {
        let gone = shard.unsynced.records.saturating_sub(kept_records);
        let records = gone.min(shard.unsynced.records.saturating_sub(shard.awaited_records));
        Self { records, awaited_records: gone - records }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            awaited_records: self.awaited_records + other.awaited_records,
        }
    }
}

/// Records that shards did not get to sync.
fn unsynced_records(placement: &Placement) -> Lost {
    let shards = placement.seats().iter().map(|seat| Lost::of(seat.unsynced(), 0));
    shards.fold(Lost::default(), Lost::plus)
}

/// Records that were taken and that nobody will find again, as far as can be known: those that shards
/// did not get to sync, less those that their tail files keep.
fn records_not_on_disk(placement: &Placement, directory: &Path) -> Lost {
    let of_shard = |(shard, seat): (usize, &Seat)| {
        let left = seat.unsynced();
        let first = left.unsynced.first.filter(|_| left.unsynced.records > 0);
        let kept = first.map(|first| sync_and_count(&OsStorage, directory, shard, first));
        Lost::of(left, kept.and_then(Result::ok).unwrap_or(0))
    };
    placement.seats().iter().enumerate().map(of_shard).fold(Lost::default(), Lost::plus)
}

/// Lets gathering take what it can until the deadline, then cancels it; then lets go of files, and keeps
/// in mind what is published. Says whether every thread has ended.
fn finish_work(
    common: &Arc<Common>,
    store: Option<StoreParts>,
    threads: Vec<JoinHandle<()>>,
    deadline: Instant,
) -> bool {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(work).ok()
    };
    let drain = store
        .clone()
        .and_then(|parts| spawn("drain", Box::new(move || store_work::drain(&parts, deadline))));
    let threads: Vec<JoinHandle<()>> = threads.into_iter().chain(drain).collect();
    while Instant::now() < deadline && !threads.iter().all(JoinHandle::is_finished) {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    if let Some(parts) = store {
        parts.cancel.store(true, Ordering::Release);
    }
    let grace = deadline.max(Instant::now()) + CANCEL_GRACE;
    // Each is waited for, whatever became of the others.
    let ended: Vec<bool> = threads.into_iter().map(|thread| join_until(thread, grace)).collect();
    // Behind the last of them that may have published something.
    let common = Arc::clone(common);
    let letting_go = spawn("let-go", Box::new(move || store_work::let_go_of_files(&common)));
    let grace = deadline.max(Instant::now() + DISK_PATIENCE);
    let is_let_go = letting_go.is_none_or(|thread| join_until(thread, grace));
    ended.into_iter().all(|ended| ended) && is_let_go
}

/// How long shards that cannot write are waited for while the disk is what keeps them from it.
const FULL_DISK_PATIENCE: Duration = Duration::from_secs(3);

/// For how long shards that write out are waited for.
struct Patience {
    deadline: Instant,
    /// What only their memory holds, and since when as much.
    held_bytes: i64,
    since: Instant,
}

impl Patience {
    /// Whether to wait on: up to the deadline, but on a disk that takes nothing only as long as
    /// something moves. What tail files hold is taken up at the next start, and nobody was promised
    /// the rest.
    fn lasts(&mut self, held_bytes: i64, is_disk_failing: bool, now: Instant) -> bool {
        if held_bytes != self.held_bytes || !is_disk_failing {
            (self.held_bytes, self.since) = (held_bytes, now);
        }
        now < self.deadline && now.duration_since(self.since) < FULL_DISK_PATIENCE
    }
}

/// Waits for a thread that should be ending; one that does not is left to the end of the process. Says
/// whether it has ended.
pub(super) fn join_until(thread: JoinHandle<()>, deadline: Instant) -> bool {
    join_while(thread, || Instant::now() < deadline)
}

fn join_while(thread: JoinHandle<()>, mut lasts: impl FnMut() -> bool) -> bool {
    while !thread.is_finished() {
        if !lasts() {
            tracing::warn!(thread = thread.thread().name(), "did not end in time");
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    // It has ended; a panic would have ended the process.
    let _ = thread.join();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ingest::log::Unsynced;

    #[test]
    fn what_senders_wait_for_is_not_lost_with_the_rest() {
        let shard = |records, awaited_records| NotOnDisk {
            unsynced: Unsynced { records, first: None },
            awaited_records,
        };
        let lost = |records, awaited_records| Lost { records, awaited_records };
        assert_eq!(Lost::of(shard(0, 0), 0), lost(0, 0));
        assert_eq!(Lost::of(shard(9, 0), 0), lost(9, 0));
        assert_eq!(Lost::of(shard(9, 9), 0), lost(0, 9));
        assert_eq!(Lost::of(shard(9, 7), 0), lost(2, 7));
        assert_eq!(Lost::of(shard(9, 7), 8), lost(1, 0), "it may be one of the two");
        assert_eq!(Lost::of(shard(9, 7), 9), lost(0, 0));
    }

    #[test]
    fn what_is_not_known_to_be_there_is_not_told_to_be_there() {
        let told = |not_found, records| {
            let lost = Lost { records, awaited_records: 0 };
            LastWord { seconds: 1.0, waiting_bytes: 9, not_found, lost, is_whole: true }.tell()
        };
        assert!(told(Some(0), 0).is_ok());
        assert!(matches!(told(None, 0), Err(NodeError::NotLookedUp)));
        assert!(matches!(told(None, 3), Err(NodeError::NotOnDisk(3))));
        assert!(matches!(told(Some(0), 3), Err(NodeError::NotOnDisk(3))));
        assert!(matches!(told(Some(7), 3), Err(NodeError::TakenAway(7))));
    }

    #[test]
    fn shards_are_waited_for_until_the_deadline_unless_a_full_disk_takes_nothing() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let new = || Patience { deadline: at(30_000), held_bytes: 50, since: start };
        let mut patience = new();
        assert!(patience.lasts(50, false, at(29_999)) && !patience.lasts(50, false, at(30_000)));
        let mut patience = new();
        assert!(patience.lasts(50, true, at(2_999)) && !patience.lasts(50, true, at(3_000)));
        assert!(patience.lasts(40, true, at(3_001)), "something moved");
        assert!(patience.lasts(40, true, at(6_000)) && !patience.lasts(40, true, at(6_001)));
    }
}
