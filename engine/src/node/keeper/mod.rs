//! The keeper looks after ingest segment files so that shards never do: it prepares segments ahead
//! of need, seals those that are full, lets go of those that are stored, keeps the mark of stamps and the
//! topics on disk, and closes the doors while the backlog is full or the disk is nearly so.
//!
//! Invariants: a segment is handed to a shard only when its name is durable; a request stays open
//! until a segment can be made; new files never touch the disk's reserve while records are taken,
//! and files that wait unused are given back while they are refused; file errors are told once per
//! change of state, not per try. While the directory is not the one that was locked nothing in it is
//! touched. Opening a file for a shard's ring is somebody else's ([`Effect::Lend`]).

mod ground;
mod space;
mod store_only;
mod values;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ingest::known_topics::{TOPICS_FILE, TopicKeeper};
use crate::ingest::log::Now;
use crate::ingest::registry::{FileError, Registry};
use crate::ingest::segment::Segment;
use crate::ingest::stamp_mark::{STAMP_MARK_FILE, StampKeeper};
use crate::storage::{File, Refusal};
use crate::ulid::Ulid;

use super::doors::Doors;
use super::{IngestSide, Side};

pub use space::SpaceParts;
use space::SpaceWatch;
pub use store_only::StoreKeeper;
pub use values::{Effect, Event, Happened, SealedFor, Surroundings, TooSmall};

/// Time between looks at timeouts, pins and the backlog, microseconds.
const BEAT_US: u64 = 20_000;
/// Time between tries while no segment can be made, microseconds.
const RETRY_US: u64 = 500_000;
/// Time between looks at the free space of the disk, microseconds.
const SPACE_BEAT_US: u64 = 200_000;
/// Segments prepared at a time, so that their names share one directory sync.
const PREPARED_AT_A_TIME: usize = 2;
/// Time between looks whether directories and files are where they were, microseconds: for so long
/// records may be acknowledged that somebody has just deleted with their directory.
const GROUND_BEAT_US: u64 = 200_000;

/// What the keeper works with.
pub struct KeeperOptions {
    /// The file systems.
    pub space: SpaceParts,
    /// What may wait to be gathered, bytes.
    pub backlog_max_bytes: u64,
    /// Length at which a segment is complete, bytes.
    pub flush_size_bytes: u64,
}

/// A segment that a shard writes.
struct Lent {
    shard: usize,
    segment: Arc<Segment>,
    identity: u128,
    /// Its bytes, whoever deletes its name.
    source: Arc<dyn File>,
    is_lost: bool,
}

impl Lent {
    fn has_lost_name(&self, around: &dyn Surroundings) -> bool {
        around.has_lost_name(&self.segment.path(), self.identity)
    }
}

/// See the module page.
pub struct Keeper {
    registry: Arc<Registry>,
    stamps: Arc<Mutex<StampKeeper>>,
    topics: Arc<Mutex<TopicKeeper>>,
    doors: Arc<Doors>,
    space: SpaceWatch,
    backlog_max_bytes: u64,
    flush_size_bytes: u64,
    effects: VecDeque<Effect>,
    happened: Vec<Happened>,
    ready: Vec<Arc<Segment>>,
    waiting: VecDeque<usize>,
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
    tails: Vec<(usize, PathBuf, u128)>,
    /// A file without a name could not be written anew when it was tried last.
    rescue_failing: bool,
    /// The mark of stamps could not be moved when it was tried last.
    stamps_failing: bool,
    /// The topics could not be written when that was tried last.
    topics_failing: bool,
    /// The node is stopping.
    is_stopping: bool,
    next_us: u64,
    next_ground_us: u64,
    next_try_us: u64,
    next_space_us: u64,
    next_stamps_us: u64,
    next_topics_us: u64,
}

impl Keeper {
    /// Of the side that takes records. The first turn prepares segments.
    pub fn new(side: &IngestSide, doors: Arc<Doors>, options: KeeperOptions) -> Self {
        let KeeperOptions { space, backlog_max_bytes, flush_size_bytes } = options;
        let is_kept = side.topic_keeper.lock().unwrap_or_else(PoisonError::into_inner).is_kept();
        Self {
            registry: Arc::clone(&side.registry),
            stamps: Arc::clone(&side.stamps),
            topics: Arc::clone(&side.topic_keeper),
            space: SpaceWatch::new(space, Arc::clone(&doors)),
            doors,
            backlog_max_bytes,
            flush_size_bytes,
            effects: VecDeque::new(),
            happened: Vec::new(),
            ready: Vec::new(),
            waiting: VecDeque::new(),
            open_failing: false,
            frugal: false,
            told: Vec::new(),
            lent: Vec::new(),
            orphans: Vec::new(),
            tails: Vec::new(),
            rescue_failing: false,
            stamps_failing: false,
            // That was told at the start.
            topics_failing: !is_kept,
            is_stopping: false,
            next_us: 0,
            next_ground_us: 0,
            next_try_us: 0,
            next_space_us: 0,
            next_stamps_us: 0,
            next_topics_us: 0,
        }
    }

    /// What is sealed from now on is sealed for a stop.
    pub const fn note_stopping(&mut self) {
        self.is_stopping = true;
    }

    /// When it is to be turned again at the latest, microseconds of the monotonic clock.
    pub fn next_us(&self) -> u64 {
        self.next_us
    }

    /// What others have to do next.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What happened since this was asked last.
    pub fn take_happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    /// Takes what a shard asks, or an answer.
    pub fn take(&mut self, event: Event, now: Now, around: &dyn Surroundings) {
        match event {
            Event::WantSegment(shard) => self.waiting.push_back(shard),
            Event::Tail(shard, path, identity) => self.tails.push((shard, path, identity)),
            Event::Seal(segment, len_bytes) => {
                let why = if len_bytes >= self.flush_size_bytes {
                    SealedFor::Size
                } else if self.is_stopping {
                    SealedFor::Stop
                } else {
                    SealedFor::Age
                };
                self.seal(&segment, len_bytes, why, now, around);
            }
            Event::Abandon(segment, len_bytes, error) => {
                let failed = FileError { operation: "write", path: segment.path(), error };
                if failed.is_full_disk() {
                    let full = self.space.note_full(&failed);
                    self.happened.push(full);
                }
                let FileError { path, error, .. } = failed;
                self.happened.push(Happened::WriteFailed { path, len_bytes, error });
                self.seal(&segment, len_bytes, SealedFor::Failure, now, around);
            }
            Event::Lent { shard, segment, source, identity } => {
                self.open_failing = false;
                let is_lent = self.lent.iter().any(|lent| lent.segment.id() == segment.id());
                assert!(!is_lent, "{segment:?} is written by one shard");
                self.lent.push(Lent { shard, segment, identity, source, is_lost: false });
            }
            Event::NotLent { shard, segment, error } => {
                self.not_lent(shard, segment, error, now);
            }
        }
        self.next_us = now.monotonic_us;
    }

    fn not_lent(&mut self, shard: usize, segment: Arc<Segment>, error: io::Error, now: Now) {
        self.waiting.push_front(shard);
        let path = segment.path();
        if error.kind() == io::ErrorKind::NotFound {
            // Its name is gone, or another's: another one is made.
            self.registry.forget_unused(&segment);
        } else {
            // Back to its place.
            self.ready.push(segment);
        }
        // No further try before the pause is over.
        self.next_try_us = now.monotonic_us + RETRY_US;
        // Want of descriptors is told by who judges the disks.
        let is_told = Refusal::from(&error).is_exhaustion();
        if !is_told && !std::mem::replace(&mut self.open_failing, true) {
            self.happened.push(Happened::NotOpened(path, error));
        }
    }

    fn seal(
        &mut self,
        segment: &Arc<Segment>,
        len_bytes: u64,
        why: SealedFor,
        now: Now,
        around: &dyn Surroundings,
    ) {
        let oldest_ms = segment.content().range.map_or(now.wall_ms, |(first, _)| first.ms());
        let age_ms = now.wall_ms.saturating_sub(oldest_ms);
        self.happened.push(Happened::Sealed { why, len_bytes, age_ms });
        self.keep_topics(now);
        let at = self.lent.iter().position(|lent| Arc::ptr_eq(&lent.segment, segment));
        let lent = at.map(|at| self.lent.swap_remove(at));
        if let Some(lent) = lent.filter(|lent| lent.has_lost_name(around)) {
            self.happened.push(Happened::NameLost(segment.path()));
            self.orphans.push((lent, len_bytes));
            self.look_at_ground(now, around);
        } else if let Err(error) = self.registry.flush(segment, len_bytes, now.wall_ms) {
            self.happened.push(Happened::NotFlushed(error));
        }
    }

    /// Hands out segments and looks after all that is due. What others have to do for that comes by
    /// [`Keeper::next_effect`], and is answered whenever it is done.
    pub fn turn(&mut self, now: Now, around: &dyn Surroundings) {
        self.serve(now);
        if self.effects.is_empty() {
            if self.ready.is_empty() && self.waiting.is_empty() && !self.is_away() {
                self.prepare(now);
            }
            self.look_after(now, around);
            self.next_us = now.monotonic_us + BEAT_US;
        } else {
            // Shards wait for it, and for nothing else.
            self.next_us = now.monotonic_us;
        }
    }

    /// The last look, once shards have ended.
    pub fn end(&mut self, now: Now, around: &dyn Surroundings) {
        self.look_at_ground(now, around);
        if !self.is_away() {
            let errors = self.registry.tidy(now.wall_ms);
            self.tell(errors);
        }
    }

    fn is_away(&self) -> bool {
        self.doors.is_taken_away(Side::Ingest)
    }

    /// Hands segments to the shards that wait.
    fn serve(&mut self, now: Now) {
        if self.is_away() {
            return;
        }
        while !self.waiting.is_empty() && now.monotonic_us >= self.next_try_us {
            if self.ready.is_empty() {
                self.prepare(now);
            }
            let Some(segment) = self.ready.pop() else { return };
            let Some(shard) = self.waiting.pop_front() else { return };
            assert_eq!(segment.written_len(), 0, "{segment:?} is handed out unused");
            self.effects.push_back(Effect::Lend { shard, segment });
        }
    }

    fn prepare(&mut self, now: Now) {
        if now.monotonic_us < self.next_try_us {
            return;
        }
        let count = self.segments_to_prepare();
        if count == 0 {
            self.next_try_us = now.monotonic_us + SPACE_BEAT_US;
            return;
        }
        match self.registry.prepare(count, now.wall_ms) {
            Ok(prepared) => {
                self.ready.extend(prepared);
                self.space.note_made();
                if self.doors.set_starved(None) {
                    self.happened.push(Happened::HasSegments);
                }
            }
            Err(error) => {
                self.next_try_us = now.monotonic_us + RETRY_US;
                if error.is_full_disk() {
                    let full = self.space.note_full(&error);
                    self.happened.push(full);
                    return;
                }
                // Want of descriptors is told by who judges the disks.
                let is_wanting = Refusal::from(&error.error).is_exhaustion();
                let words = format!("no ingest segment can be made: {error}");
                if !is_wanting && self.doors.set_starved(Some(words)) {
                    self.happened.push(Happened::NoSegments(error));
                }
            }
        }
    }

    /// As many as there is room for: of those that are wanted ahead of need, or, while records are
    /// refused, of those that shards still wait for.
    fn segments_to_prepare(&mut self) -> usize {
        let is_refusing = self.space.look(self.reclaimable_bytes(), &mut self.happened);
        let allowed = self.space.segments_allowed();
        let allowed = allowed.saturating_add(self.registry.pool_segments());
        if !is_refusing {
            return PREPARED_AT_A_TIME.max(self.waiting.len()).min(allowed);
        }
        let proof = usize::from(self.space.should_try());
        self.waiting.len().max(proof).min(allowed)
    }

    /// Files that wait unused, bytes.
    fn reclaimable_bytes(&self) -> u64 {
        let ready: u64 = self.ready.iter().map(|segment| segment.file_len()).sum();
        ready + self.registry.pool_bytes()
    }

    /// Refuses records in time; while they are refused, nothing waits unused.
    fn look_at_space(&mut self, now: Now) {
        if now.monotonic_us < self.next_space_us {
            return;
        }
        self.next_space_us = now.monotonic_us + SPACE_BEAT_US;
        let is_refusing = self.space.look(self.reclaimable_bytes(), &mut self.happened);
        if is_refusing != self.frugal {
            self.frugal = is_refusing;
            let errors = self.registry.set_frugal(is_refusing);
            self.tell(errors);
        }
        if is_refusing && self.space.should_try() {
            self.prepare(now);
        } else if is_refusing {
            let kept = self.waiting.len().min(self.ready.len());
            for unused in self.ready.drain(kept..) {
                if let Err(error) = self.registry.flush(&unused, 0, now.wall_ms) {
                    self.happened.push(Happened::FileFailed(error));
                }
            }
        }
    }

    /// Keeps the mark of stamps ahead of what shards stamp. Where it cannot be moved they go on below
    /// it; without any mark of this life they take nothing.
    fn keep_stamps(&mut self, now: Now, around: &dyn Surroundings) {
        if now.monotonic_us < self.next_stamps_us {
            return;
        }
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let sync_dir = || self.registry.sync_names();
        let kept = stamps.keep(now.wall_ms, around.stamped_ms(), &sync_dir);
        self.doors.set_unmarked(!stamps.is_started());
        drop(stamps);
        if let Err(error) = kept {
            self.next_stamps_us = now.monotonic_us + RETRY_US;
            if !std::mem::replace(&mut self.stamps_failing, true) {
                let path = self.registry.options().directory.join(STAMP_MARK_FILE);
                self.happened.push(Happened::MarkNotWritten(path, error));
            }
        } else if std::mem::take(&mut self.stamps_failing) {
            self.happened.push(Happened::MarkWritten);
        }
    }

    /// Keeps on disk which topics there are. Before a segment is available to others its own are known
    /// by more than by it; where the disk refuses that, the segment goes on all the same: what waits for
    /// it may be what fills the disk.
    fn keep_topics(&mut self, now: Now) {
        if now.monotonic_us < self.next_topics_us || self.is_away() {
            return;
        }
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = topics.keep(&self.registry);
        drop(topics);
        if let Err(error) = kept {
            self.next_topics_us = now.monotonic_us + RETRY_US;
            if !std::mem::replace(&mut self.topics_failing, true) {
                let path = self.registry.options().directory.join(TOPICS_FILE);
                self.happened.push(Happened::TopicsNotWritten(path, error));
            }
        } else if std::mem::take(&mut self.topics_failing) {
            self.happened.push(Happened::TopicsWritten);
        }
    }

    fn look_after(&mut self, now: Now, around: &dyn Surroundings) {
        if now.monotonic_us >= self.next_ground_us {
            self.next_ground_us = now.monotonic_us + GROUND_BEAT_US;
            self.look_at_ground(now, around);
        }
        if self.is_away() {
            // What is there may be somebody else's.
            return self.look_at_backlog();
        }
        self.keep_stamps(now, around);
        if self.topics_failing {
            self.keep_topics(now);
        }
        let (expired, errors) = self.registry.expire(now.monotonic_us / 1000);
        self.happened.extend(expired.into_iter().map(Happened::ClaimLapsed));
        let tidied = self.registry.tidy(now.wall_ms);
        self.tell(errors.into_iter().chain(tidied).collect());
        self.look_at_space(now);
        self.look_at_backlog();
    }

    fn look_at_backlog(&mut self) {
        let (backlog_bytes, max) = (self.registry.backlog_bytes(), self.backlog_max_bytes);
        // Opens again a sixteenth below, so that it does not flutter.
        let has_room = backlog_bytes < max - max / 16;
        if backlog_bytes >= max && self.doors.set_backlog_full(true) {
            self.happened.push(Happened::BacklogFull { backlog_bytes });
        } else if has_room && self.doors.set_backlog_full(false) {
            self.happened.push(Happened::BacklogHasRoom { backlog_bytes });
        }
    }

    /// Tells what failed: the first time, not each time that it is tried again.
    fn tell(&mut self, errors: Vec<FileError>) {
        let failing: Vec<_> = errors.iter().map(|e| (e.operation, e.path.clone())).collect();
        for (error, what) in errors.into_iter().zip(&failing) {
            if !self.told.contains(what) {
                self.happened.push(Happened::FileFailed(error));
            }
        }
        self.told = failing;
    }

    /// Segments whose records are in files without a name only.
    fn deleted_files(&self) -> Vec<Ulid> {
        let lent = self.lent.iter().filter(|lent| lent.is_lost);
        let lost = lent.chain(self.orphans.iter().map(|(lent, _)| lent));
        lost.map(|lent| lent.segment.id()).collect()
    }
}

#[cfg(test)]
mod tests;
