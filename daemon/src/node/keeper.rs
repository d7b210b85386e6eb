//! The keeper looks after ingest segment files so that shards never do: it prepares segments ahead
//! of need, seals those that are full, lets go of those that are stored, and closes the doors while
//! the backlog is full or the disk is nearly so.
//!
//! Invariants: a segment is handed to a shard only when its name is durable; a request stays open
//! until a segment can be made; new files never touch the disk's reserve while records are taken,
//! and files that wait unused are given back while they are refused; file errors are told once per
//! change of state, not per try.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::ingest::registry::{FileError, Registry};
use engine::ingest::segment::Segment;
use engine::ingest::stamp_mark::{STAMP_MARK_FILE, StampKeeper};
use engine::pulse::Pulse;
use engine::storage::{DiskWatch, Refusal};
use net::metrics::NodeMetrics;
use net::shard::inbox::Message;
use net::shard::{Clock, Keeper, Placement};

use super::disks::Side;
use super::doors::Doors;
use super::ground::Grounds;
use super::lent::{self, Lent};
use super::lock::Inode;
use super::space::SpaceWatch;

/// Time between looks at timeouts, pins and the backlog.
const BEAT: Duration = Duration::from_millis(20);
/// Time between tries while no segment can be made.
const RETRY: Duration = Duration::from_millis(500);
/// Time between looks at the free space of the disk.
const SPACE_BEAT: Duration = Duration::from_millis(200);
/// Segments prepared at a time, so that their names share one directory sync.
const PREPARED_AT_A_TIME: usize = 2;
/// Time between looks whether directories and files are where they were: for so long records may be
/// acknowledged that somebody has just deleted with their directory.
const GROUND_BEAT: Duration = Duration::from_millis(200);

enum Job {
    WantSegment(usize),
    Seal(Arc<Segment>, u64),
    Abandon(Arc<Segment>, u64, io::Error),
    /// A shard writes to this tail file.
    Tail(usize, PathBuf, Inode),
    Stop,
}

/// What the keeper works with.
pub(super) struct KeeperParts {
    pub(super) registry: Arc<Registry>,
    pub(super) stamps: Arc<Mutex<StampKeeper>>,
    pub(super) placement: Placement,
    pub(super) doors: Arc<Doors>,
    pub(super) space: SpaceWatch,
    pub(super) clock: Clock,
    pub(super) backlog_max_bytes: u64,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) flush_size_bytes: u64,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) disk: Arc<DiskWatch>,
    pub(super) grounds: Grounds,
}

/// The shards' side.
pub(super) struct KeeperHandle {
    jobs: Sender<Job>,
}

impl Keeper for KeeperHandle {
    fn want_segment(&self, shard: usize) {
        self.leave(Job::WantSegment(shard));
    }

    fn seal(&self, segment: Arc<Segment>, len_bytes: u64) {
        self.leave(Job::Seal(segment, len_bytes));
    }

    fn abandon(&self, segment: Arc<Segment>, len_bytes: u64, error: io::Error) {
        self.leave(Job::Abandon(segment, len_bytes, error));
    }
}

impl KeeperHandle {
    /// Looks from now on whether a shard's tail file is where it was.
    pub(super) fn watch_tail(&self, shard: usize, path: PathBuf, inode: Inode) {
        self.leave(Job::Tail(shard, path, inode));
    }

    /// Ends the thread after everything that was asked before.
    pub(super) fn stop(&self) {
        self.leave(Job::Stop);
    }

    fn leave(&self, job: Job) {
        // The keeper outlives its shards; a job after its end has nobody to serve.
        let _ = self.jobs.send(job);
    }
}

/// Starts the keeper's thread.
pub(super) fn spawn(parts: KeeperParts) -> io::Result<(Arc<KeeperHandle>, JoinHandle<()>)> {
    let (sender, jobs) = channel();
    let worker = Worker {
        parts,
        jobs,
        ready: Vec::new(),
        waiting: Vec::new(),
        direct_refused: false,
        open_failing: false,
        frugal: false,
        told: Vec::new(),
        lent: Vec::new(),
        orphans: Vec::new(),
        tails: Vec::new(),
        next_ground_us: 0,
        rescue_failing: false,
        next_try_us: 0,
        next_space_us: 0,
        next_stamps_us: 0,
        stamps_failing: false,
    };
    let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || worker.run())?;
    Ok((Arc::new(KeeperHandle { jobs: sender }), thread))
}

struct Worker {
    parts: KeeperParts,
    jobs: Receiver<Job>,
    ready: Vec<Arc<Segment>>,
    waiting: Vec<usize>,
    direct_refused: bool,
    /// A segment could not be opened when it was tried last.
    open_failing: bool,
    /// Records are refused: nothing is kept ready.
    frugal: bool,
    /// What failed when files were last looked after.
    told: Vec<(&'static str, PathBuf)>,
    /// What shards write, and may go on to.
    lent: Vec<Lent>,
    /// Sealed up to so many bytes, but their files have no name, or their directory has not.
    orphans: Vec<(Lent, u64)>,
    /// Tail files, by shard.
    tails: Vec<(usize, PathBuf, Inode)>,
    next_ground_us: u64,
    /// A file without a name could not be written anew when it was tried last.
    rescue_failing: bool,
    next_try_us: u64,
    next_space_us: u64,
    next_stamps_us: u64,
    /// The mark of stamps could not be moved when it was tried last.
    stamps_failing: bool,
}

impl Worker {
    fn run(mut self) {
        let pulse = Arc::clone(&self.parts.pulse);
        pulse.begin();
        self.keep_stamps();
        self.prepare();
        loop {
            pulse.rest();
            let job = self.jobs.recv_timeout(BEAT);
            pulse.begin();
            match job {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.serve();
            self.look_after();
        }
        pulse.rest();
        self.look_at_ground(u64::MAX);
        if !self.parts.doors.is_taken_away(Side::Ingest) {
            let errors = self.parts.registry.sweep(self.parts.clock.now().wall_ms);
            self.tell(errors);
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::WantSegment(shard) => self.waiting.push(shard),
            Job::Tail(shard, path, inode) => self.tails.push((shard, path, inode)),
            Job::Seal(segment, len_bytes) => {
                let ingest = &self.parts.metrics.ingest;
                if len_bytes >= self.parts.flush_size_bytes {
                    ingest.flushes_by_size.inc();
                } else if self.parts.stopping.load(Ordering::Acquire) {
                    ingest.flushes_by_shutdown.inc();
                } else {
                    ingest.flushes_by_age.inc();
                }
                self.seal(&segment, len_bytes);
            }
            Job::Abandon(segment, len_bytes, error) => {
                tracing::error!(
                    segment = %segment.path().display(),
                    "writing failed: {error}; the segment is closed after {len_bytes} good bytes \
                     and what was not acknowledged goes to another"
                );
                self.parts.metrics.ingest.flushes_by_failure.inc();
                let failed = FileError { operation: "write", path: segment.path(), error };
                if failed.is_full_disk() {
                    self.parts.space.note_full(&failed);
                }
                self.seal(&segment, len_bytes);
            }
            Job::Stop => {}
        }
    }

    fn seal(&mut self, segment: &Arc<Segment>, len_bytes: u64) {
        let wall_ms = self.parts.clock.now().wall_ms;
        let ingest = &self.parts.metrics.ingest;
        ingest.flush_size_bytes.observe(len_bytes as f64);
        let oldest_ms = segment.content().range.map_or(wall_ms, |(first, _)| first.ms());
        let age_ms = wall_ms.saturating_sub(oldest_ms);
        ingest.flush_age_seconds.observe(age_ms as f64 / 1e3);
        let at = self.lent.iter().position(|lent| Arc::ptr_eq(&lent.segment, segment));
        let lent = at.map(|at| self.lent.swap_remove(at));
        if let Some(lent) = lent.filter(Lent::has_lost_name) {
            tracing::error!(
                segment = %segment.path().display(),
                "cannot be marked as flushed: its file was taken away; its records stay readable, \
                 and it is tried again"
            );
            self.orphans.push((lent, len_bytes));
            self.look_at_ground(u64::MAX);
        } else if let Err(error) = self.parts.registry.flush(segment, len_bytes, wall_ms) {
            tracing::error!(
                segment = %segment.path().display(),
                "cannot be marked as flushed: {error}; its records stay readable, and it is tried \
                 again"
            );
        }
    }

    /// Hands segments to the shards that wait.
    fn serve(&mut self) {
        let now_us = self.parts.clock.now().monotonic_us;
        if self.parts.doors.is_taken_away(Side::Ingest) {
            return;
        }
        while !self.waiting.is_empty() && now_us >= self.next_try_us {
            if self.ready.is_empty() {
                self.prepare();
            }
            let Some(segment) = self.ready.pop() else { break };
            match self.lend(&segment) {
                Ok(file) => {
                    self.open_failing = false;
                    let shard = self.waiting.remove(0);
                    let message = Message::Segment(segment, file);
                    self.parts.placement.seats()[shard].inbox.send(message);
                }
                Err(error) => {
                    // Want of descriptors is told by who judges the disks.
                    let is_news = !Refusal::from(&error).is_exhaustion()
                        && !std::mem::replace(&mut self.open_failing, true);
                    if is_news {
                        tracing::error!(
                            segment = %segment.path().display(),
                            "cannot be opened for writing: {error}; it is tried again"
                        );
                    }
                    if error.kind() == io::ErrorKind::NotFound {
                        // Its name is gone, or another's: another one is made.
                        self.parts.registry.forget_unused(&segment);
                    } else {
                        // Back to its place.
                        self.ready.push(segment);
                    }
                    // No further try before the pause is over.
                    self.next_try_us = now_us + RETRY.as_micros() as u64;
                    break;
                }
            }
        }
        if self.ready.is_empty() && self.waiting.is_empty() {
            self.prepare();
        }
    }

    fn prepare(&mut self) {
        let now = self.parts.clock.now();
        if now.monotonic_us < self.next_try_us {
            return;
        }
        let count = self.segments_to_prepare();
        if count == 0 {
            self.next_try_us = now.monotonic_us + SPACE_BEAT.as_micros() as u64;
            return;
        }
        match self.parts.registry.prepare(count, now.wall_ms) {
            Ok(prepared) => {
                self.ready.extend(prepared);
                self.parts.space.note_made();
                if self.parts.doors.set_starved(None) {
                    tracing::info!("ingest segments can be made again; senders go on");
                }
            }
            Err(error) => {
                self.next_try_us = now.monotonic_us + RETRY.as_micros() as u64;
                if error.is_full_disk() {
                    self.parts.space.note_full(&error);
                    return;
                }
                // Want of descriptors is told by who judges the disks.
                let is_wanting = Refusal::from(&error.error).is_exhaustion();
                let words = format!("no ingest segment can be made: {error}");
                if !is_wanting && self.parts.doors.set_starved(Some(words)) {
                    tracing::error!(
                        "no ingest segment can be made: {error}; senders wait until that works \
                         again (mend the disk, or give --ingest.path another one)"
                    );
                }
            }
        }
    }

    /// As many as there is room for: of those that are wanted ahead of need, or, while records are
    /// refused, of those that shards still wait for.
    fn segments_to_prepare(&mut self) -> usize {
        let refusing = self.parts.space.look(self.reclaimable_bytes());
        let allowed = self.parts.space.segments_allowed();
        let allowed = allowed.saturating_add(self.parts.registry.pool_segments());
        if !refusing {
            return PREPARED_AT_A_TIME.max(self.waiting.len()).min(allowed);
        }
        let proof = usize::from(self.parts.space.should_try());
        self.waiting.len().max(proof).min(allowed)
    }

    /// Files that wait unused, bytes.
    fn reclaimable_bytes(&self) -> u64 {
        let ready: u64 = self.ready.iter().map(|segment| segment.file_len()).sum();
        ready + self.parts.registry.pool_bytes()
    }

    /// Opens a segment for the shard that waits longest, and for oneself.
    fn lend(&mut self, segment: &Arc<Segment>) -> io::Result<OwnedFd> {
        let (path, storage) = (segment.path(), &self.parts.registry.options().storage);
        let for_writing = || lent::for_writing(&path, &mut self.direct_refused);
        let file = (&*path, segment.file_len());
        let (source, file) = lent::open(&**storage, &self.parts.disk, file, for_writing)?;
        let inode = Inode::of(&file.metadata()?);
        let (shard, segment) = (self.waiting[0], Arc::clone(segment));
        self.lent.push(Lent { shard, segment, inode, source, is_lost: false });
        Ok(file.into())
    }

    /// Refuses records in time; while they are refused, nothing waits unused.
    fn look_at_space(&mut self, now_us: u64) {
        if now_us < self.next_space_us {
            return;
        }
        self.next_space_us = now_us + SPACE_BEAT.as_micros() as u64;
        let refusing = self.parts.space.look(self.reclaimable_bytes());
        if refusing != self.frugal {
            self.frugal = refusing;
            let errors = self.parts.registry.set_frugal(refusing);
            self.tell(errors);
        }
        if refusing && self.parts.space.should_try() {
            self.prepare();
        } else if refusing {
            let wall_ms = self.parts.clock.now().wall_ms;
            for unused in self.ready.drain(self.waiting.len().min(self.ready.len())..) {
                if let Err(error) = self.parts.registry.flush(&unused, 0, wall_ms) {
                    tracing::error!("{error}");
                }
            }
        }
    }

    /// Keeps the mark of stamps ahead of what shards stamp. Where it cannot be moved they go on below
    /// it; without any mark of this life they take nothing.
    fn keep_stamps(&mut self) {
        let now = self.parts.clock.now();
        if now.monotonic_us < self.next_stamps_us {
            return;
        }
        let seats = self.parts.placement.seats().iter();
        let stamped_ms = seats.map(|seat| seat.stamped_ms.load(Ordering::Acquire)).max();
        let mut stamps = self.parts.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = stamps.keep(now.wall_ms, stamped_ms.unwrap_or(0));
        self.parts.doors.set_unmarked(!stamps.is_started());
        drop(stamps);
        if let Err(error) = kept {
            self.next_stamps_us = now.monotonic_us + RETRY.as_micros() as u64;
            if !std::mem::replace(&mut self.stamps_failing, true) {
                let path = self.parts.registry.options().directory.join(STAMP_MARK_FILE);
                tracing::error!(
                    "{} cannot be written: {error}; until it can, the times of new records stand \
                     still, and after a start none are taken",
                    path.display()
                );
            }
        } else if std::mem::take(&mut self.stamps_failing) {
            tracing::info!("the mark of stamps can be written again");
        }
    }

    /// Closes the doors while a directory is not the one that was locked. Files in it that shards
    /// write and that have no name any more are abandoned, and what they hold is written anew.
    fn look_at_ground(&mut self, now_us: u64) {
        if now_us < self.next_ground_us {
            return;
        }
        if now_us < u64::MAX {
            self.next_ground_us = now_us + GROUND_BEAT.as_micros() as u64;
        }
        let [ingest, store] = self.parts.grounds.look();
        let is_ours = ingest.is_none();
        let words: Vec<String> = [&ingest, &store].into_iter().flatten().cloned().collect();
        if self.parts.doors.set_taken_away([ingest, store]) {
            let words = words.join("; ");
            if words.is_empty() {
                tracing::info!("the directories are where they were");
            } else if is_ours {
                tracing::error!("{words}; records wait on the ingest side meanwhile");
            } else {
                tracing::error!("{words}; nothing is acknowledged meanwhile");
            }
        }
        if !is_ours {
            return;
        }
        let has_lost = |lent: &&mut Lent| !lent.is_lost && lent.has_lost_name();
        let lost = self.lent.iter_mut().filter(has_lost).map(|lent| {
            lent.is_lost = true;
            (lent.shard, lent.segment.path(), lent.segment.id())
        });
        let lost: Vec<_> = lost.collect();
        // First: nothing more is acknowledged until all of it is written anew.
        self.tell_doors();
        let seats = self.parts.placement.seats();
        for (shard, path, id) in lost {
            tracing::error!(
                "{} was deleted while it was written: what it held is written anew",
                path.display()
            );
            seats[shard].inbox.send(Message::LostSegment(id));
        }
        for (shard, path, _) in self.tails.extract_if(.., |(_, path, inode)| inode.has_lost(path)) {
            tracing::warn!(
                "{} was deleted: small batches are written to the segment at once until a restart",
                path.display()
            );
            seats[shard].inbox.send(Message::LostTail);
        }
        self.rescue_orphans();
        self.tell_doors();
    }

    fn tell_doors(&self) {
        let lent = self.lent.iter().filter(|lent| lent.is_lost);
        let lost = lent.chain(self.orphans.iter().map(|(lent, _)| lent));
        self.parts.doors.set_lost_files(lost.map(|lent| lent.segment.id()).collect());
    }

    /// Gives sealed segments without a name their place again: under a name of their own, for the one
    /// that they had may be somebody else's by now.
    fn rescue_orphans(&mut self) {
        let wall_ms = self.parts.clock.now().wall_ms;
        let registry = Arc::clone(&self.parts.registry);
        for (lent, len_bytes) in std::mem::take(&mut self.orphans) {
            let segment = &lent.segment;
            if !lent.has_lost_name() {
                // What fails here is tried again by the registry's sweep.
                if let Err(error) = registry.flush(segment, len_bytes, wall_ms) {
                    tracing::error!("{error}; it is tried again");
                }
            } else if len_bytes == 0 || segment.content().records == 0 {
                registry.forget_unused(segment);
            } else if let Err(error) =
                registry.write_anew(segment, len_bytes, &lent.source, wall_ms)
            {
                if !std::mem::replace(&mut self.rescue_failing, true) {
                    tracing::error!("{error}; it is tried again");
                }
                self.orphans.push((lent, len_bytes));
                continue;
            }
            self.rescue_failing = false;
        }
    }

    fn look_after(&mut self) {
        let now = self.parts.clock.now();
        self.look_at_ground(now.monotonic_us);
        if self.parts.doors.is_taken_away(Side::Ingest) {
            // What is there may be somebody else's.
            return self.look_at_backlog();
        }
        self.keep_stamps();
        let (expired, errors) = self.parts.registry.expire(now.monotonic_us / 1000);
        for segment in expired {
            tracing::warn!(
                %segment,
                "was claimed and not committed in time; it is available again"
            );
        }
        let swept = self.parts.registry.sweep(now.wall_ms);
        self.tell(errors.into_iter().chain(swept).collect());
        self.look_at_space(now.monotonic_us);
        self.look_at_backlog();
    }

    fn look_at_backlog(&self) {
        let (backlog_bytes, max) =
            (self.parts.registry.backlog_bytes(), self.parts.backlog_max_bytes);
        // Opens again a sixteenth below, so that it does not flutter.
        let has_room = backlog_bytes < max - max / 16;
        let full_gauge = &self.parts.metrics.ingest.backlog_full;
        if backlog_bytes >= max && self.parts.doors.set_backlog_full(true) {
            full_gauge.set(1);
            tracing::warn!(
                backlog_bytes,
                "the backlog is full: senders wait until the store has caught up \
                 (--ingest.backlog-max-size)"
            );
        } else if has_room && self.parts.doors.set_backlog_full(false) {
            full_gauge.set(0);
            tracing::info!(backlog_bytes, "the backlog has room again");
        }
    }

    /// Tells what failed: the first time, not each time that it is tried again.
    fn tell(&mut self, errors: Vec<FileError>) {
        let failing: Vec<_> = errors.iter().map(|e| (e.operation, e.path.clone())).collect();
        for (error, what) in errors.iter().zip(&failing) {
            if !self.told.contains(what) {
                tracing::error!("{error}; it is tried again");
            }
        }
        self.told = failing;
    }
}
