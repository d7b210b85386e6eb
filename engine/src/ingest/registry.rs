//! The life cycle of segment files: prepared, active, flushed, pending, gone.
//!
//! Invariants: a file that is handed out has a durable name. A segment is in exactly one state at
//! any moment, and a snapshot shows all of them: what is not gone is never missing from it. A
//! committed file is reused or removed only when nobody else holds its handle; reuse gives it a new
//! name and so a new incarnation. Damaged files are set aside, never deleted. A failed operation
//! leaves state and name as they were; a segment whose file somebody deleted is forgotten and told.
//!
//! File operations run one at a time under a lock of their own, on the caller's thread (never a
//! shard's); the lock on the state is never held across one, so snapshots do not wait for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame;
use super::segment::{Content, Extent, Segment, SegmentFile, SegmentState, file_name};
use super::stamp::split_mix;
use crate::limits::{FRAME_TEXT_TARGET, RECYCLE_POOL_BYTES_MAX};
use crate::storage::{Open, Storage};
use crate::ulid::{MS_MAX, Ulid};

/// What a registry works with.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Where the files are.
    pub storage: Arc<dyn Storage>,
    /// The ingest directory.
    pub directory: PathBuf,
    /// Size from which a shard seals a segment, bytes.
    pub flush_size_bytes: u64,
    /// Longest record, bytes, without LF.
    pub record_size_max: usize,
    /// Direct-I/O alignment, bytes.
    pub alignment_bytes: usize,
    /// How long a consumer may hold a segment, milliseconds.
    pub pending_timeout_ms: u64,
    /// Most bytes of recycled files that wait for their next life.
    pub pool_bytes_max: u64,
    /// Random, new for every start: segment ids come from it.
    pub seed: u64,
}

impl RegistryOptions {
    /// Options with the defaults of the flags.
    pub fn new(storage: Arc<dyn Storage>, directory: PathBuf, seed: u64) -> Self {
        Self {
            storage,
            directory,
            flush_size_bytes: crate::limits::SEGMENT_FLUSH_SIZE,
            record_size_max: crate::limits::RECORD_SIZE_MAX,
            alignment_bytes: crate::limits::FRAME_ALIGNMENT,
            pending_timeout_ms: 60_000,
            pool_bytes_max: RECYCLE_POOL_BYTES_MAX,
            seed,
        }
    }

    /// Length of a prepared file: the last frame may begin right below the flush size, and an end
    /// mark may follow it.
    pub fn file_bytes(&self) -> u64 {
        let text_capacity = text_capacity(self.record_size_max);
        let slack = frame::frame_len_max(text_capacity, self.alignment_bytes) as u64;
        (self.flush_size_bytes + slack + self.alignment_bytes as u64).next_multiple_of(4096)
    }
}

/// Text that a frame has room for: the target, or one longest record with its LF.
pub const fn text_capacity(record_size_max: usize) -> usize {
    if record_size_max + 1 > FRAME_TEXT_TARGET { record_size_max + 1 } else { FRAME_TEXT_TARGET }
}

/// A file operation of the registry failed. State and name are as they were before.
#[derive(Debug)]
pub struct FileError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

impl FileError {
    /// Whether the disk (or quota) is full: it can be tried again when space returns.
    pub fn is_full_disk(&self) -> bool {
        matches!(self.error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.path.display(), self.error)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// How much a consumer takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimits {
    /// Most segments.
    pub segments_max: usize,
    /// Most bytes of text; one segment is always allowed.
    pub text_bytes_max: u64,
}

/// What a claim brought.
#[derive(Debug, Default)]
pub struct Claim {
    /// Claimed, oldest records first.
    pub segments: Vec<Arc<Segment>>,
    /// Files that could not be claimed; they stay flushed.
    pub errors: Vec<FileError>,
}

/// A row of the state listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Id.
    pub id: Ulid,
    /// State.
    pub state: SegmentState,
    /// Bytes of frames.
    pub len_bytes: u64,
    /// Records and text.
    pub content: Content,
    /// When a consumer claimed it, milliseconds since 1970.
    pub claimed_ms: Option<u64>,
}

/// Segments that wait for a consumer or are held by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Segments flushed or pending.
    pub segments: u64,
    /// Frames of all segments that are not gone, active ones included, bytes.
    pub len_bytes: u64,
    /// Stamp of the oldest record, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

#[derive(Default)]
struct Inner {
    /// Every segment that is not gone, pool and sweep list apart.
    segments: BTreeMap<Ulid, Held>,
    /// Flushed ones by first record.
    queue: BTreeSet<(Ulid, Ulid)>,
    /// Committed, but a reader still held them.
    sweep: Vec<Arc<Segment>>,
    /// Prepared files for the next takers.
    pool: Vec<PooledFile>,
    /// Whether a pooled file's name is not durable yet.
    pool_needs_sync: bool,
    /// State of the id generator.
    random: u64,
}

struct Held {
    segment: Arc<Segment>,
    claimed_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct PooledFile {
    id: Ulid,
    len_bytes: u64,
}

/// The segments of a node.
pub struct Registry {
    options: RegistryOptions,
    /// Held across file operations.
    operation: Mutex<()>,
    inner: Mutex<Inner>,
}

impl Registry {
    /// A registry of an ingest directory with nothing in it; see
    /// [`recover`](super::recover::recover) for one that may hold files.
    pub fn new(options: RegistryOptions) -> Self {
        let inner = Inner { random: options.seed, ..Inner::default() };
        Self { options, operation: Mutex::default(), inner: Mutex::new(inner) }
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
        let mut next = || {
            inner.random = inner.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            split_mix(inner.random)
        };
        let (high, low) = (next(), next());
        let random = (u128::from(high) << 64 | u128::from(low)) & ((1 << 80) - 1);
        Ulid((u128::from(now_ms.min(MS_MAX)) << 80) | random)
    }

    /// Enters a segment that was found on disk.
    pub(super) fn adopt(&self, file: SegmentFile) -> Arc<Segment> {
        let storage = Arc::clone(&self.options.storage);
        let segment = Arc::new(Segment::new(storage, &self.options.directory, file));
        let mut inner = self.lock();
        enter(&mut inner, &segment);
        segment
    }

    /// Enters a prepared file that was found unused.
    pub(super) fn adopt_unused(&self, id: Ulid, len_bytes: u64) -> Result<(), FileError> {
        self.retire(id, SegmentState::Active, len_bytes, id.ms())
    }

    /// Makes `count` files ready to be written, their names durable. Fewer are returned when the
    /// disk fills up meanwhile; an error means none.
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
        if let Err(error) = self.options.storage.sync_dir(&self.options.directory) {
            let mut inner = self.lock();
            inner.pool.extend(files);
            inner.pool_needs_sync = true;
            let path = self.options.directory.clone();
            return Err(FileError { operation: "sync the directory", path, error });
        }
        let mut inner = self.lock();
        inner.pool_needs_sync = false;
        let made = files.into_iter().map(|file| {
            let file = SegmentFile {
                id: file.id,
                state: SegmentState::Active,
                extent: Extent::Published,
                file_len: file.len_bytes,
                written_len: 0,
                content: Content::default(),
            };
            let storage = Arc::clone(&self.options.storage);
            let segment = Arc::new(Segment::new(storage, &self.options.directory, file));
            enter(&mut inner, &segment);
            segment
        });
        Ok(made.collect())
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
    /// its file goes back to the pool.
    pub fn flush(
        &self,
        segment: &Arc<Segment>,
        len_bytes: u64,
        now_ms: u64,
    ) -> Result<(), FileError> {
        let _operation = self.lock_operation();
        if segment.state() != SegmentState::Active {
            return Ok(());
        }
        if len_bytes == 0 || segment.content().records == 0 {
            let unused = self.lock().segments.remove(&segment.id()).is_some();
            if unused {
                self.retire(segment.id(), SegmentState::Active, segment.file_len(), now_ms)?;
            }
            return Ok(());
        }
        self.move_segment(segment, SegmentState::Flushed, "flush")?;
        let file_len = segment.file_len();
        if len_bytes < file_len / 2 {
            // Space only: a failure costs some of it until the segment is gone.
            let path = self.path(segment.id(), SegmentState::Flushed);
            let cut = self.options.storage.open(&path, Open::Write);
            if cut.and_then(|file| file.set_len(len_bytes)).is_ok() {
                segment.set_file_len(len_bytes);
            }
        }
        Ok(())
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
            if error.kind() == io::ErrorKind::NotFound {
                // Somebody deleted the file; the error tells it, once.
                let mut inner = self.lock();
                inner.segments.remove(&segment.id());
                inner.queue.remove(&key);
            }
            return Err(FileError { operation, path: segment.path(), error });
        }
        let mut inner = self.lock();
        if to == SegmentState::Flushed {
            inner.queue.insert(key);
        } else {
            inner.queue.remove(&key);
        }
        if let Some(held) = inner.segments.get_mut(&segment.id()) {
            held.claimed_ms = None;
        }
        Ok(())
    }

    /// Claims flushed segments for a consumer, oldest records first.
    pub fn claim(&self, limits: ClaimLimits, now_ms: u64) -> Claim {
        let _operation = self.lock_operation();
        let mut claim = Claim::default();
        for segment in self.choose(limits) {
            match self.move_segment(&segment, SegmentState::Pending, "claim") {
                Ok(()) => {
                    if let Some(held) = self.lock().segments.get_mut(&segment.id()) {
                        held.claimed_ms = Some(now_ms);
                    }
                    claim.segments.push(segment);
                }
                Err(error) => claim.errors.push(error),
            }
        }
        claim
    }

    fn choose(&self, limits: ClaimLimits) -> Vec<Arc<Segment>> {
        let inner = self.lock();
        let mut chosen: Vec<Arc<Segment>> = Vec::new();
        let mut text_bytes = 0;
        for (_, id) in &inner.queue {
            let Some(held) = inner.segments.get(id) else { continue };
            let size = held.segment.content().text_bytes;
            let fits = chosen.is_empty() || text_bytes + size <= limits.text_bytes_max;
            if chosen.len() >= limits.segments_max || !fits {
                break;
            }
            text_bytes += size;
            chosen.push(Arc::clone(&held.segment));
        }
        chosen
    }

    fn held(&self, id: Ulid) -> Option<Arc<Segment>> {
        self.lock().segments.get(&id).map(|held| Arc::clone(&held.segment))
    }

    fn pending(&self, id: Ulid) -> Option<Arc<Segment>> {
        self.held(id).filter(|s| s.state() == SegmentState::Pending)
    }

    /// The consumer has stored and published these: their files are recycled or removed as soon
    /// as no reader holds them. Segments that are not pending (their claim expired, and they will
    /// be stored again) are left alone. An error leaves its segment to a later [`Registry::sweep`].
    pub fn commit(&self, ids: &[Ulid], now_ms: u64) -> Vec<FileError> {
        let _operation = self.lock_operation();
        let mut inner = self.lock();
        for &id in ids {
            let Some(held) = inner.segments.get(&id) else { continue };
            if held.segment.state() == SegmentState::Pending {
                if let Some(held) = inner.segments.remove(&id) {
                    inner.sweep.push(held.segment);
                }
            }
        }
        drop(inner);
        self.sweep_files(now_ms)
    }

    /// Recycles or removes what was committed while readers held it.
    pub fn sweep(&self, now_ms: u64) -> Vec<FileError> {
        let _operation = self.lock_operation();
        self.sweep_files(now_ms)
    }

    fn sweep_files(&self, now_ms: u64) -> Vec<FileError> {
        let candidates = std::mem::take(&mut self.lock().sweep);
        let mut errors = Vec::new();
        let mut stay = Vec::new();
        for segment in candidates {
            // Nobody can get a new handle: it is in no list.
            if Arc::strong_count(&segment) > 1 {
                stay.push(segment);
                continue;
            }
            let state = segment.state();
            if let Err(error) = self.retire(segment.id(), state, segment.file_len(), now_ms) {
                errors.push(error);
                stay.push(segment);
            }
        }
        self.lock().sweep.extend(stay);
        errors
    }

    /// Gives a file a new life in the pool, or removes it.
    fn retire(
        &self,
        id: Ulid,
        state: SegmentState,
        len_bytes: u64,
        now_ms: u64,
    ) -> Result<(), FileError> {
        let path = self.path(id, state);
        let pooled: u64 = self.lock().pool.iter().map(|file| file.len_bytes).sum();
        let is_full_length = len_bytes == self.options.file_bytes();
        if is_full_length && pooled + len_bytes <= self.options.pool_bytes_max {
            let new_id = self.new_id(now_ms);
            let renamed =
                self.options.storage.rename(&path, &self.path(new_id, SegmentState::Active));
            renamed.map_err(|error| FileError { operation: "recycle", path, error })?;
            let mut inner = self.lock();
            inner.pool.push(PooledFile { id: new_id, len_bytes });
            inner.pool_needs_sync = true;
            return Ok(());
        }
        match self.options.storage.remove(&path) {
            // Gone is what was wanted, whoever did it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError { operation: "remove", path, error })
            }
            _ => Ok(()),
        }
    }

    /// The consumer could not store these: they are available again.
    pub fn fail(&self, ids: &[Ulid]) -> Vec<FileError> {
        let _operation = self.lock_operation();
        self.fail_files(ids)
    }

    fn fail_files(&self, ids: &[Ulid]) -> Vec<FileError> {
        let pending = ids.iter().filter_map(|&id| self.pending(id));
        let moved = pending.map(|s| self.move_segment(&s, SegmentState::Flushed, "release"));
        moved.filter_map(Result::err).collect()
    }

    /// Makes segments available again whose consumer held them too long; says which.
    pub fn expire(&self, now_ms: u64) -> (Vec<Ulid>, Vec<FileError>) {
        let _operation = self.lock_operation();
        let timeout_ms = self.options.pending_timeout_ms;
        let inner = self.lock();
        let is_late =
            |h: &Held| h.claimed_ms.is_some_and(|at| now_ms >= at.saturating_add(timeout_ms));
        let late: Vec<Ulid> =
            inner.segments.iter().filter(|(_, held)| is_late(held)).map(|(&id, _)| id).collect();
        drop(inner);
        let errors = self.fail_files(&late);
        (late, errors)
    }

    /// Keeps a damaged segment's file under `.damaged` for inspection; it is no longer searched or
    /// offered. Its readable records were stored before.
    pub fn set_aside(&self, id: Ulid) -> Result<(), FileError> {
        let _operation = self.lock_operation();
        if let Some(segment) = self.held(id) {
            self.move_segment(&segment, SegmentState::Damaged, "set aside")?;
            self.lock().segments.remove(&id);
        }
        Ok(())
    }

    /// Every segment with records in it, for a query.
    pub fn snapshot(&self) -> Vec<Arc<Segment>> {
        let inner = self.lock();
        let all = inner.segments.values().map(|held| &held.segment);
        all.filter(|s| s.content().records > 0).cloned().collect()
    }

    /// What waits.
    pub fn backlog(&self) -> Backlog {
        let inner = self.lock();
        let mut backlog = Backlog::default();
        for held in inner.segments.values() {
            let segment = &held.segment;
            backlog.len_bytes += segment.written_len();
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
            claimed_ms: held.claimed_ms,
        };
        inner.segments.iter().map(row).collect()
    }
}

fn queue_key(segment: &Segment) -> (Ulid, Ulid) {
    (segment.content().range.map_or(Ulid::MAX, |(first, _)| first), segment.id())
}

fn enter(inner: &mut Inner, segment: &Arc<Segment>) {
    if segment.state() == SegmentState::Flushed {
        inner.queue.insert(queue_key(segment));
    }
    inner.segments.insert(segment.id(), Held { segment: Arc::clone(segment), claimed_ms: None });
}
