//! The life cycle of segment files: prepared, active, flushed, pending, gone.
//!
//! Invariants: a file that is handed out has a durable name. A segment is in exactly one state at
//! any moment, and a snapshot shows all of them: what is not gone is never missing from it. Nothing
//! is committed but under a claim that named it, and once. A committed file is reused or removed only when nobody else holds its handle; reuse gives it a new
//! name and so a new incarnation. Only a file that this process made, and in which no write or sync
//! has failed, is reused: after a failed sync the system may have dropped more of a file (its
//! length, say) than a later sync that succeeds would bring to the disk. Names that were given before a failed sync of
//! the directory are never believed. A failed operation leaves state and name as they were; nothing
//! is forgotten because its file is not where it was: it may come back.
//!
//! File operations run one at a time under a lock of their own, on the caller's thread (never a
//! shard's); the lock on the state is never held across one, so snapshots do not wait for the disk.

mod anew;
#[cfg(test)]
mod claim_tests;
mod claims;
mod consume;
#[cfg(test)]
mod frugal_tests;
mod missing;
mod tails;
mod tails_aside;
mod unread;
mod values;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::damage::Damage;
use crate::ingest::segment::{Content, Extent, Segment, SegmentFile, SegmentState, file_name};
use crate::random::Random;
use crate::storage::{Open, write_anew};
use crate::ulid::{MS_MAX, Ulid};

pub use claims::ClaimToken;
use claims::Claims;
use missing::Missed;
pub(super) use tails::{bad_slot, bad_slots, newest_in, unread_slot};
pub(super) use tails_aside::{FoundAside, PutAside};
pub use unread::{Look, Pinned};
use unread::{Trouble, is_offered};
pub use values::{
    Backlog, Claim, ClaimLimits, Committed, Failed, FileError, RegistryOptions, Renewed,
    SegmentInfo, text_capacity,
};

/// How long a flushed file keeps its full length although it uses less than half, milliseconds.
const TRIM_AFTER_MS: u64 = 10_000;

struct Inner {
    /// Every segment that is not gone, pool and what leaves apart.
    segments: BTreeMap<Ulid, Held>,
    claims: Claims,
    /// Flushed ones by first record.
    queue: BTreeSet<(Ulid, Ulid)>,
    /// Committed, but a reader still held them.
    leaving: Vec<Arc<Segment>>,
    /// Sealed, but the rename failed; with their lengths.
    unflushed: Vec<(Arc<Segment>, u64)>,
    /// Flushed files that use less than half of their length, and when they were flushed.
    untrimmed: VecDeque<(u64, Ulid)>,
    /// What kept a file from being made where others were: told when it is tidied up next.
    not_made: Option<FileError>,
    /// Prepared files for the next takers; their names may not be durable yet.
    pool: Vec<PooledFile>,
    /// Tail files that may hold records which are nowhere else.
    tails: Vec<tails::UnreadTail>,
    /// Damaged ones that were put aside, by age.
    tails_aside: Vec<tails_aside::TailAside>,
    /// Tail files that were put aside, but perhaps not durably: no other is made under their names.
    nameless_tails: Vec<PathBuf>,
    /// What waited for this life and is not there.
    missed: Missed,
    /// No record that was found at the start is newer, milliseconds since 1970.
    started_ms: u64,
    /// State of the id generator.
    random: Random,
    /// Space is short: nothing goes to the pool.
    is_frugal: bool,
}

struct Held {
    segment: Arc<Segment>,
    /// Whose it is, unless that claim has lapsed. A pending one that is nobody's is to be released.
    claim: Option<ClaimToken>,
    trouble: Option<Trouble>,
    /// What answers lack of it though it is offered as it is.
    told: Vec<Damage>,
}

#[derive(Debug, Clone, Copy)]
struct PooledFile {
    id: Ulid,
    len_bytes: u64,
}

/// The segments of a node.
pub struct Registry {
    options: RegistryOptions,
    /// Which directory had the name of ours at the start, if that could be told.
    ground: Option<u128>,
    /// Held across file operations.
    operation: Mutex<()>,
    inner: Mutex<Inner>,
}

impl Registry {
    /// A registry of an ingest directory with nothing in it; see
    /// [`recover`](crate::ingest::recover::recover) for one that may hold files.
    pub fn new(options: RegistryOptions) -> Self {
        let inner = Inner {
            segments: BTreeMap::new(),
            claims: Claims::new(options.seed),
            queue: BTreeSet::new(),
            leaving: Vec::new(),
            unflushed: Vec::new(),
            untrimmed: VecDeque::new(),
            not_made: None,
            pool: Vec::new(),
            random: Random::new(options.seed),
            is_frugal: false,
            tails: Vec::new(),
            tails_aside: Vec::new(),
            nameless_tails: Vec::new(),
            missed: Missed::default(),
            started_ms: 0,
        };
        let ground = options.storage.identity(&options.directory).ok();
        Self { options, ground, operation: Mutex::default(), inner: Mutex::new(inner) }
    }

    /// What it works with.
    pub const fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// State is consistent between statements that can panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_operation(&self) -> MutexGuard<'_, ()> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: Ulid, state: SegmentState) -> PathBuf {
        self.options.directory.join(file_name(id, state))
    }

    /// A new segment id: time, then 80 random bits.
    pub(super) fn new_id(&self, now_ms: u64) -> Ulid {
        let mut inner = self.lock();
        let (high, low) = (inner.random.next_u64(), inner.random.next_u64());
        let random = (u128::from(high) << 64 | u128::from(low)) & ((1 << 80) - 1);
        Ulid((u128::from(now_ms.min(MS_MAX)) << 80) | random)
    }

    /// Enters a segment that was found on disk.
    pub(super) fn adopt(&self, file: SegmentFile) -> Arc<Segment> {
        let segment = Arc::new(Segment::new(&self.options, file));
        let mut inner = self.lock();
        enter(&mut inner, &segment);
        segment
    }

    /// Recovery has renamed this segment: it is flushed.
    pub(super) fn offer(&self, segment: &Segment) {
        enqueue(&mut self.lock(), segment);
    }

    /// Recovery could not give this segment the state flushed: tidying up will, or, since it is nobody's,
    /// the expiry.
    pub(super) fn flush_later(&self, segment: Arc<Segment>, len_bytes: u64) {
        if segment.state() == SegmentState::Active {
            self.lock().unflushed.push((segment, len_bytes));
        }
    }

    /// Makes `count` files ready to be written, their names durable. Fewer are returned when one cannot
    /// be made, which the next [`Registry::tidy`] tells; an error means none.
    pub fn prepare(&self, count: usize, now_ms: u64) -> Result<Vec<Arc<Segment>>, FileError> {
        let _operation = self.lock_operation();
        let mut files = self.take_pooled(count);
        let mut error = None;
        while files.len() < count && error.is_none() {
            match self.create_file(now_ms) {
                Ok(file) => files.push(file),
                Err(e) => error = Some(e),
            }
        }
        if files.is_empty() {
            return error.map_or(Ok(Vec::new()), Err);
        }
        if let Err(error) = self.sync_directory() {
            self.remove_unused(files);
            let path = self.options.directory.clone();
            return Err(FileError { operation: "sync the directory", path, error });
        }
        let mut inner = self.lock();
        inner.not_made = error.or(inner.not_made.take());
        let made = files.into_iter().map(|file| {
            let file = SegmentFile {
                id: file.id,
                state: SegmentState::Active,
                cut: None,
                extent: Extent::Published,
                file_len: file.len_bytes,
                written_len: 0,
                content: Content::default(),
            };
            let segment = Arc::new(Segment::new(&self.options, file));
            let is_new = !inner.segments.contains_key(&segment.id());
            assert!(is_new, "{segment:?} is handed out once");
            enter(&mut inner, &segment);
            segment
        });
        Ok(made.collect())
    }

    /// Makes the names durable that somebody else gave in the directory. A failure is told to whoever
    /// waits for other names.
    pub fn sync_names(&self) -> io::Result<()> {
        let _operation = self.lock_operation();
        self.sync_directory()
    }

    /// Makes names durable. After a failure a name that was given since the last success may never
    /// reach the disk, though later syncs succeed: files that wait for their first use are made anew
    /// under other names, and the others' files are not used again.
    fn sync_directory(&self) -> io::Result<()> {
        let synced = self.options.storage.sync_dir(&self.options.directory);
        if synced.is_err() {
            let mut inner = self.lock();
            let pool = std::mem::take(&mut inner.pool);
            let held = inner.segments.values().map(|held| &held.segment);
            held.chain(&inner.leaving).for_each(|segment| segment.doubt_name());
            drop(inner);
            self.remove_unused(pool);
        }
        synced
    }

    /// Gives a small file of the directory new bytes at once, its name durable: written under `new_name`,
    /// then renamed. After an error it says what it said before, or what it is to say.
    pub(super) fn put(&self, name: &str, new_name: &str, bytes: &[u8]) -> io::Result<()> {
        let _operation = self.lock_operation();
        let (storage, directory) = (&self.options.storage, &self.options.directory);
        let (new, path) = (directory.join(new_name), directory.join(name));
        write_anew(&**storage, &new, &path, &[(0, bytes)]).inspect_err(|_| {
            // Best effort: its space may be what is lacking.
            let _ = storage.remove(&new);
        })?;
        self.sync_directory()
    }

    /// Removes files that nobody wrote to. What stays is removed at the next start.
    fn remove_unused(&self, files: Vec<PooledFile>) {
        for file in files {
            let _ = self.options.storage.remove(&self.path(file.id, SegmentState::Active));
        }
    }

    /// While space is short no file is kept for later; those that wait are removed.
    pub fn set_frugal(&self, is_frugal: bool) -> Vec<FileError> {
        let _operation = self.lock_operation();
        self.lock().is_frugal = is_frugal;
        let pool = if is_frugal { self.take_pooled(usize::MAX) } else { Vec::new() };
        let mut errors = Vec::new();
        for file in pool {
            let path = self.path(file.id, SegmentState::Active);
            match self.options.storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.lock().pool.push(file);
                    errors.push(FileError { operation: "remove", path, error });
                }
                _ => {}
            }
        }
        errors
    }

    fn take_pooled(&self, count: usize) -> Vec<PooledFile> {
        let mut inner = self.lock();
        let keep = inner.pool.len().saturating_sub(count);
        inner.pool.split_off(keep)
    }

    fn create_file(&self, now_ms: u64) -> Result<PooledFile, FileError> {
        let id = self.new_id(now_ms);
        let path = self.path(id, SegmentState::Active);
        let len_bytes = self.options.file_bytes();
        let storage = &self.options.storage;
        let made = storage.open(&path, Open::CreateNew).and_then(|file| {
            file.allocate(len_bytes).inspect_err(|_| {
                // Best effort: what stays is an empty file that recovery tells.
                let _ = storage.remove(&path);
            })
        });
        match made {
            Ok(()) => Ok(PooledFile { id, len_bytes }),
            Err(error) => Err(FileError { operation: "make", path, error }),
        }
    }

    /// A shard has sealed a segment at `len_bytes`: it is complete and available. Nothing in it:
    /// its file goes back to the pool. After an error [`Registry::tidy`] tries again.
    pub fn flush(
        &self,
        segment: &Arc<Segment>,
        len_bytes: u64,
        now_ms: u64,
    ) -> Result<(), FileError> {
        let _operation = self.lock_operation();
        self.flush_file(segment, len_bytes, now_ms)
    }

    fn flush_file(
        &self,
        segment: &Arc<Segment>,
        len_bytes: u64,
        now_ms: u64,
    ) -> Result<(), FileError> {
        if segment.state() != SegmentState::Active {
            return Ok(());
        }
        if len_bytes == 0 || segment.content().records == 0 {
            let unused = self.lock().segments.remove(&segment.id()).is_some();
            if unused {
                self.retire(segment, now_ms)?;
            }
            return Ok(());
        }
        if segment.has_failed() {
            segment.end_at(len_bytes);
        }
        if let Err(error) = self.move_segment(segment, SegmentState::Flushed, "flush") {
            let mut inner = self.lock();
            if inner.segments.contains_key(&segment.id()) {
                inner.unflushed.push((Arc::clone(segment), len_bytes));
            }
            return Err(error);
        }
        // What recovery found may be damaged: its bytes stay.
        if len_bytes < segment.file_len() / 2 && segment.is_written_here() {
            self.lock().untrimmed.push_back((now_ms, segment.id()));
        }
        Ok(())
    }

    /// Cuts flushed files that nobody has claimed for a while to what they use. Not at once: a
    /// file of full length can be used again as it is, which costs the disk less.
    fn trim_files(&self, now_ms: u64) {
        loop {
            let mut inner = self.lock();
            let is_due = |at: u64| now_ms.saturating_sub(at) >= TRIM_AFTER_MS;
            let Some(&(at, id)) = inner.untrimmed.front() else { return };
            if !is_due(at) {
                return;
            }
            inner.untrimmed.pop_front();
            let Some(held) = inner.segments.get(&id) else { continue };
            let segment = Arc::clone(&held.segment);
            if segment.state() == SegmentState::Pending {
                inner.untrimmed.push_back((now_ms, id));
                continue;
            }
            drop(inner);
            let len_bytes = segment.written_len();
            let file = self.options.storage.open(&segment.path(), Open::Write);
            // Space only: a failure costs some of it until the segment is gone.
            if file.and_then(|file| file.set_len(len_bytes)).is_ok() {
                segment.set_file_len(len_bytes);
            }
        }
    }

    /// Tries the renames again that failed when their segments were sealed.
    fn flush_again(&self, now_ms: u64) -> Vec<FileError> {
        let unflushed = std::mem::take(&mut self.lock().unflushed);
        let again = unflushed.iter().map(|(s, len_bytes)| self.flush_file(s, *len_bytes, now_ms));
        again.filter_map(Result::err).collect()
    }

    /// Renames, then enters the new state.
    fn move_segment(
        &self,
        segment: &Arc<Segment>,
        to: SegmentState,
        operation: &'static str,
    ) -> Result<(), FileError> {
        let key = queue_key(segment);
        if let Err(error) = segment.move_to(to) {
            let is_flushing = segment.state() == SegmentState::Active;
            if error.kind() == io::ErrorKind::NotFound && !is_flushing {
                self.note_absent(segment, &error);
            }
            return Err(FileError { operation, path: segment.path(), error });
        }
        let mut inner = self.lock();
        inner.queue.remove(&key);
        enqueue(&mut inner, segment);
        Ok(())
    }

    /// What a consumer has stored that took all of these.
    #[cfg(test)]
    pub(super) fn all_of(&self, ids: &[Ulid]) -> Vec<crate::store::gather_run::StoredInput> {
        let coverage = |id| self.held(id).map(|segment| segment.coverage()).unwrap_or_default();
        let stored =
            |&id: &Ulid| crate::store::gather_run::StoredInput { id: id.0, coverage: coverage(id) };
        ids.iter().map(stored).collect()
    }

    #[cfg(test)]
    pub(super) fn held(&self, id: Ulid) -> Option<Arc<Segment>> {
        self.lock().segments.get(&id).map(|held| Arc::clone(&held.segment))
    }

    /// To be called now and then: recycles or removes what was committed while readers held it,
    /// flushes what could not be flushed before, gives unused space of waiting files back.
    pub fn tidy(&self, now_ms: u64) -> Vec<FileError> {
        let _operation = self.lock_operation();
        let mut errors = self.flush_again(now_ms);
        errors.extend(self.lock().not_made.take());
        errors.extend(self.keep_missing(now_ms).err());
        self.trim_files(now_ms);
        errors.extend(self.retire_committed(now_ms));
        errors
    }

    fn retire_committed(&self, now_ms: u64) -> Vec<FileError> {
        let candidates = std::mem::take(&mut self.lock().leaving);
        let mut errors = Vec::new();
        let mut stay = Vec::new();
        for segment in candidates {
            // Nobody can get a new handle: it is in no list.
            if Arc::strong_count(&segment) > 1 {
                stay.push(segment);
                continue;
            }
            if let Err(error) = self.retire(&segment, now_ms) {
                errors.push(error);
                stay.push(segment);
            }
        }
        self.lock().leaving.extend(stay);
        errors
    }

    /// Gives a file a new life in the pool, or removes it.
    fn retire(&self, segment: &Segment, now_ms: u64) -> Result<(), FileError> {
        let (path, len_bytes) = (segment.path(), segment.file_len());
        let is_gone = !self.lock().segments.contains_key(&segment.id());
        assert!(is_gone, "{segment:?} is in use: only the file of one that has gone is let go of");
        let pooled: u64 = self.lock().pool.iter().map(|file| file.len_bytes).sum();
        let is_full_length = len_bytes == self.options.file_bytes();
        let has_room = pooled + len_bytes <= self.options.pool_bytes_max && !self.lock().is_frugal;
        if segment.is_reusable() && is_full_length && has_room {
            let new_id = self.new_id(now_ms);
            let renamed =
                self.options.storage.rename(&path, &self.path(new_id, SegmentState::Active));
            match renamed {
                Err(error) if self.is_taken_away(&path, &error) => return Ok(()),
                renamed => renamed,
            }
            .map_err(|error| FileError { operation: "recycle", path, error })?;
            self.lock().pool.push(PooledFile { id: new_id, len_bytes });
            return Ok(());
        }
        match self.options.storage.remove(&path) {
            // Gone is what was wanted, whoever did it.
            Err(error) if !self.is_taken_away(&path, &error) => {
                Err(FileError { operation: "remove", path, error })
            }
            _ => Ok(()),
        }
    }

    /// A segment that is this claim's, or was when it lapsed and is nobody's now.
    fn claimed(&self, token: ClaimToken, id: Ulid) -> Option<Arc<Segment>> {
        let inner = self.lock();
        let held = inner.segments.get(&id).filter(|_| inner.claims.holds(token, id))?;
        held.claim.is_none_or(|claim| claim == token).then(|| Arc::clone(&held.segment))
    }

    /// Every segment with records in it that is not set aside.
    pub fn snapshot(&self) -> Vec<Arc<Segment>> {
        shown(&self.lock())
    }

    /// Every complete segment that is not set aside, also where nothing that can be read is in it.
    pub fn named(&self) -> Vec<Arc<Segment>> {
        let inner = self.lock();
        let all = inner.segments.values().map(|held| &held.segment);
        let is_named =
            |s: &&Arc<Segment>| [SegmentState::Flushed, SegmentState::Pending].contains(&s.state());
        all.filter(is_named).cloned().collect()
    }

    /// What waits.
    pub fn backlog(&self) -> Backlog {
        let inner = self.lock();
        let mut backlog = Backlog::default();
        for (&id, held) in &inner.segments {
            let segment = &held.segment;
            // What nobody can take would hold senders up for ever.
            if !is_offered(&inner, id) {
                continue;
            }
            // A name may claim more than is there.
            backlog.len_bytes += segment.written_len().min(segment.file_len());
            backlog.segments += u64::from(segment.state() != SegmentState::Active);
            if let Some((first, _)) = segment.content().range {
                let oldest = backlog.oldest_ms.unwrap_or(u64::MAX).min(first.ms());
                backlog.oldest_ms = Some(oldest);
            }
        }
        backlog
    }

    /// Frames of all segments that are not gone, bytes.
    pub fn backlog_bytes(&self) -> u64 {
        self.backlog().len_bytes
    }

    /// Stamp of the oldest record on the ingest side, milliseconds since 1970.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.backlog().oldest_ms
    }

    /// Prepared files that wait for a taker.
    pub fn pool_segments(&self) -> usize {
        self.lock().pool.len()
    }

    /// Prepared files that wait for a taker, bytes.
    pub fn pool_bytes(&self) -> u64 {
        self.lock().pool.iter().map(|file| file.len_bytes).sum()
    }

    /// One row for each segment, by id.
    pub fn list(&self) -> Vec<SegmentInfo> {
        let inner = self.lock();
        let row = |(&id, held): (&Ulid, &Held)| SegmentInfo {
            id,
            state: held.segment.state(),
            len_bytes: held.segment.written_len(),
            content: held.segment.content(),
            progress_ms: held.claim.and_then(|claim| inner.claims.progress_ms(claim)),
            is_offered: is_offered(&inner, id),
        };
        inner.segments.iter().map(row).collect()
    }
}

fn shown(inner: &Inner) -> Vec<Arc<Segment>> {
    let all = inner.segments.values().map(|held| &held.segment);
    let is_shown =
        |s: &&Arc<Segment>| s.content().records > 0 && s.state() != SegmentState::Damaged;
    all.filter(is_shown).cloned().collect()
}

/// A flushed segment that consumers may have is one that they find.
fn enqueue(inner: &mut Inner, segment: &Segment) {
    if segment.state() == SegmentState::Flushed && is_offered(inner, segment.id()) {
        inner.queue.insert(queue_key(segment));
    }
}

fn queue_key(segment: &Segment) -> (Ulid, Ulid) {
    (segment.content().range.map_or(Ulid::MAX, |(first, _)| first), segment.id())
}

fn enter(inner: &mut Inner, segment: &Arc<Segment>) {
    let held = Held { segment: Arc::clone(segment), claim: None, trouble: None, told: Vec::new() };
    inner.segments.insert(segment.id(), held);
    enqueue(inner, segment);
}
