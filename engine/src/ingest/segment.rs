//! A segment: the handle of one ingest file, shared by the shard that writes it, the registry that
//! moves it and the readers that pin it.
//!
//! Invariants: what lies below the published length is whole frames that never change; a reader of
//! a segment that is not complete looks at those bytes only, and by pread, never through a map. The
//! file's name follows the state under one lock, so a handle opens its file whatever the registry
//! does meanwhile; a file is recycled or removed only when no handle but the registry's is left.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::covered::{self, Covered};
use super::examine::{Depth, Found, Verdict, examine};
pub use super::name::{Cut, FileName, SegmentState, file_name, incarnation, parse_file_name};
use super::open::{Frames, OpenSegment};
use super::registry::RegistryOptions;
use super::walk::{self, Ending, Source, WalkOptions};
use crate::caches::Caches;
use crate::chunk::{OpenPart, Part};
use crate::damage::{Damage, DamageKind};
use crate::known_damage::KnownDamage;
use crate::open_cache::Slot;
use crate::storage::Refusal;
use crate::storage::{File, Open, Storage};
use crate::store::coverage::Coverage;
use crate::ulid::Ulid;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    /// Records.
    pub records: u64,
    /// Text, LFs included, bytes.
    pub text_bytes: u64,
    /// First and last record, unless it is empty.
    pub range: Option<(Ulid, Ulid)>,
}

impl Content {
    /// Adds what follows.
    pub fn add(&mut self, records: u64, text_bytes: u64, range: Option<(Ulid, Ulid)>) {
        self.records += records;
        self.text_bytes += text_bytes;
        if let Some((first, last)) = range {
            let before = self.range.map_or(first, |(first, _)| first);
            self.range = Some((before, last));
        }
    }
}

/// How the end of a segment's file is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Frames up to the published length.
    Published,
    /// Found on disk after a start: a frame marked last has to end it, or its name says where.
    Found,
}

/// How a file's bytes are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// By system calls, which say whether they succeeded: by all who decide something.
    File,
    /// Through a map: by queries.
    Map,
}

/// The shared handle of a segment.
pub struct Segment {
    id: Ulid,
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    caches: Arc<Caches>,
    extent: Extent,
    /// Length of the file, bytes.
    file_len: AtomicU64,
    /// Whole frames below it are readable.
    written_len: AtomicU64,
    /// Bytes below it are on the disk, as far as this process saw to that.
    synced_len: AtomicU64,
    has_failed: AtomicBool,
    /// Its name on the disk may be another one than we gave it.
    is_doubtful: AtomicBool,
    /// A consumer takes what can be read of it.
    is_partly_taken: AtomicBool,
    /// Something of it was not read: it may hold more than its content says.
    is_partly_known: AtomicBool,
    label: Mutex<Label>,
    /// Held while the file is renamed or opened by its name, so that the name stays: as long as the
    /// disk takes, and so by nobody who only asks for the state.
    naming: Mutex<()>,
    content: Mutex<Content>,
    /// Which records those are.
    covered: Mutex<Covered>,
    slot: Arc<Slot<OpenSegment>>,
    /// What readers of the complete file have met.
    known: Arc<KnownDamage>,
}

/// Its file's name but for the id.
#[derive(Debug, Clone, Copy)]
struct Label {
    state: SegmentState,
    cut: Option<Cut>,
    /// What the next name has in place of that.
    cut_next: Option<Cut>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name(), self.written_len())
    }
}

/// Plain values are valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the registry knows of a file when it makes a handle.
pub(super) struct SegmentFile {
    pub(super) id: Ulid,
    pub(super) state: SegmentState,
    /// As in its name.
    pub(super) cut: Option<Cut>,
    pub(super) extent: Extent,
    pub(super) file_len: u64,
    pub(super) written_len: u64,
    pub(super) content: Content,
}

impl Segment {
    pub(super) fn new(options: &RegistryOptions, file: SegmentFile) -> Self {
        let mut covered = Covered::default();
        covered.add(file.content.records, file.content.range);
        Self {
            id: file.id,
            directory: options.directory.clone(),
            storage: Arc::clone(&options.storage),
            caches: Arc::clone(&options.caches),
            extent: file.extent,
            file_len: AtomicU64::new(file.file_len),
            written_len: AtomicU64::new(file.written_len),
            synced_len: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(false),
            is_partly_taken: AtomicBool::new(false),
            is_partly_known: AtomicBool::new(false),
            label: Mutex::new(Label { state: file.state, cut: file.cut, cut_next: file.cut }),
            naming: Mutex::default(),
            content: Mutex::new(file.content),
            covered: Mutex::new(covered),
            slot: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Its id; the file's name starts with it.
    pub const fn id(&self) -> Ulid {
        self.id
    }

    /// Life of its file.
    pub const fn incarnation(&self) -> u64 {
        incarnation(self.id)
    }

    /// Whether this process wrote it, and so knows its length.
    pub(super) fn is_written_here(&self) -> bool {
        self.extent == Extent::Published
    }

    /// A write or sync in it has failed.
    pub(super) fn mark_failed(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    /// Whether its file can be used again: what was asked of the disk for it was done.
    pub(super) fn is_reusable(&self) -> bool {
        let is_whole = !self.has_failed.load(Ordering::Acquire);
        self.is_written_here() && is_whole && !self.is_doubtful.load(Ordering::Acquire)
    }

    /// A sync of its directory failed: on the disk it may keep a name that it had before.
    pub(super) fn doubt_name(&self) {
        self.is_doubtful.store(true, Ordering::Release);
    }

    /// Whether a consumer takes what can be read, because the disk has refused the rest for long.
    pub fn is_partly_taken(&self) -> bool {
        self.is_partly_taken.load(Ordering::Acquire)
    }

    pub(super) fn take_all_or_nothing(&self, is_wanted: bool) {
        self.is_partly_taken.store(!is_wanted, Ordering::Release);
    }

    /// Its state.
    pub fn state(&self) -> SegmentState {
        lock(&self.label).state
    }

    /// Its last good frame ends at `end` and is not marked as the last: its next name says so, and up to
    /// where it is known to be on the disk.
    pub(super) fn end_at(&self, end: u64) {
        let mut label = lock(&self.label);
        let known = label.cut.map_or(0, |cut| cut.sure).max(self.synced_len());
        label.cut_next = Some(Cut { end, sure: known.min(end) });
    }

    /// Its bytes are on the disk up to `len_bytes`.
    pub(super) fn synced(&self, len_bytes: u64) {
        self.synced_len.fetch_max(len_bytes, Ordering::AcqRel);
        let end = lock(&self.label).cut_next.map(|cut| cut.end);
        if let Some(end) = end {
            self.end_at(end);
        }
    }

    fn synced_len(&self) -> u64 {
        self.synced_len.load(Ordering::Acquire)
    }

    /// Whether a write or sync in it has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Where its file is now. A shard opens it by this path when it is handed the segment: the
    /// name does not change before the shard has it sealed.
    pub fn path(&self) -> PathBuf {
        self.path_of(self.name())
    }

    /// Name of its file now.
    pub(super) fn name(&self) -> FileName {
        self.name_by(*lock(&self.label))
    }

    const fn name_by(&self, label: Label) -> FileName {
        FileName { id: self.id, state: label.state, cut: label.cut }
    }

    fn path_of(&self, name: FileName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    /// Bytes of whole frames that are written.
    pub fn written_len(&self) -> u64 {
        self.written_len.load(Ordering::Acquire)
    }

    /// Length of its file, bytes.
    pub fn file_len(&self) -> u64 {
        self.file_len.load(Ordering::Acquire)
    }

    pub(super) fn set_file_len(&self, len_bytes: u64) {
        self.file_len.store(len_bytes, Ordering::Release);
    }

    /// What it holds so far.
    pub fn content(&self) -> Content {
        *lock(&self.content)
    }

    /// Makes the frames up to `written_len` readable. Called by the writing shard, in order.
    pub(super) fn publish(&self, written_len: u64, added: Content) {
        assert!(written_len > self.written_len(), "what is readable grows, and never changes");
        lock(&self.content).add(added.records, added.text_bytes, added.range);
        lock(&self.covered).add(added.records, added.range);
        self.written_len.store(written_len, Ordering::Release);
    }

    /// Renames the file to its next state. What somebody has put there under that name stays: it may be
    /// all that is left of it.
    pub(super) fn move_to(&self, to: SegmentState) -> io::Result<()> {
        assert!(to != SegmentState::Active, "{self:?}: a complete segment is not written again");
        let _naming = lock(&self.naming);
        let label = *lock(&self.label);
        let next = Label { state: to, cut: label.cut_next, cut_next: label.cut_next };
        let (now, then) = (self.name_by(label), self.name_by(next));
        if now != then {
            self.storage.rename_new(&self.path_of(now), &self.path_of(then))?;
        }
        *lock(&self.label) = next;
        Ok(())
    }

    /// What all of it is missing for.
    pub(super) fn whole_damage(&self, kind: DamageKind) -> Damage {
        let content = self.content();
        // Its id tells nothing of its records: frames that could not be written elsewhere come into a
        // segment that was named after they were stamped, and the clock may have been set back.
        let unknown = (Ulid::MIN, Ulid::MAX);
        let is_known = content.range.is_some() && !self.is_partly_known.load(Ordering::Acquire);
        Damage {
            path: self.path(),
            offset: 0,
            len_bytes: self.written_len(),
            range: content.range.filter(|_| is_known).or(Some(unknown)),
            records: is_known.then_some(content.records),
            kind,
        }
    }

    /// All of it, because of an error of reading.
    pub(super) fn unread(&self, error: &io::Error) -> Damage {
        self.whole_damage(Refusal::from(error).into())
    }

    /// Reads its file in full, whatever its name is.
    pub(super) fn examine(&self, depth: Depth) -> io::Result<Verdict> {
        let name = self.name();
        let written_len = self.is_written_here().then(|| self.written_len());
        examine(&*self.storage, &self.path_of(name), name, written_len, depth)
    }

    /// Which records it holds: as they were written, or found.
    pub(super) fn coverage(&self) -> Coverage {
        let known = lock(&self.covered).known();
        known.or_else(|| self.read_coverage()).unwrap_or_else(Coverage::unknown)
    }

    /// The same, read anew where others have found what it holds: a header that could not be read then
    /// may be read now.
    pub(super) fn coverage_now(&self) -> Coverage {
        if self.is_written_here() {
            return self.coverage();
        }
        self.read_coverage().unwrap_or_else(Coverage::unknown)
    }

    /// Which records can be read of it now: none where it cannot be opened.
    pub(super) fn readable_coverage(&self) -> Coverage {
        self.read_coverage().unwrap_or_default()
    }

    fn read_coverage(&self) -> Option<Coverage> {
        self.open_to_move().ok().map(|open| covered::readable(&*open))
    }

    /// What a file that another process left turned out to hold.
    pub(super) fn found(&self, found: &Found) {
        if self.is_written_here() {
            return;
        }
        let is_read = found.walk.refusal().is_none();
        *lock(&self.content) = found.content;
        let covered = Covered::of(&found.walk.frames);
        *lock(&self.covered) = covered;
        self.is_partly_known.store(!is_read, Ordering::Release);
        self.file_len.store(found.file_len, Ordering::Release);
        let (cut, end) = (self.name().cut, found.walk.end);
        let written_len = match cut {
            // A walk that was refused knows no end but the one in the name.
            Some(cut) if !is_read => cut.end,
            // Readers are to meet what is not whole any more.
            Some(cut) => end.max(cut.sure),
            None => end,
        };
        self.written_len.store(written_len, Ordering::Release);
        if is_read && !found.walk.is_complete && self.may_be_cut() && end >= written_len {
            self.end_at(end);
        }
    }

    /// Whether it is as its process left it: no last frame need end it. What was set aside ends where
    /// its name says: what of it is not whole was whole once.
    fn may_be_cut(&self) -> bool {
        let label = lock(&self.label);
        match label.state {
            SegmentState::Active => true,
            SegmentState::Damaged => false,
            SegmentState::Flushed | SegmentState::Pending => label.cut.is_some(),
        }
    }

    /// Opens its file, whatever its name is.
    pub(super) fn open_file(&self) -> io::Result<Arc<dyn File>> {
        let _naming = lock(&self.naming);
        self.storage.open(&self.path(), Open::Read)
    }

    /// Opens it, or shares it with those who have it open.
    fn open_shared(&self) -> io::Result<Arc<OpenSegment>> {
        let (path, file, is_active) = self.open_named()?;
        if is_active {
            return self.find_frames(path, file, true, Reading::File).map(Arc::new);
        }
        let stamp = file.version_stamp()?;
        self.caches.ingest.share(&self.slot, stamp, || {
            let open = self.find_frames(path.clone(), Arc::clone(&file), false, Reading::Map)?;
            // Where a part was gone frames may not have been found that are there: the file knows.
            let is_whole = !open.is_poisoned();
            let open =
                if is_whole { open } else { self.find_frames(path, file, false, Reading::File)? };
            Ok(open.telling(&self.known))
        })
    }

    /// Opens it for nobody else, who writes its records anew: nothing that was verified before is
    /// believed, and nothing that a map shows.
    fn open_alone(&self) -> io::Result<OpenSegment> {
        let (path, file, is_active) = self.open_named()?;
        self.find_frames(path, file, is_active, Reading::File)
    }

    /// Its file, by the name that it has now, and whether it is still written.
    fn open_named(&self) -> io::Result<(PathBuf, Arc<dyn File>, bool)> {
        let _naming = lock(&self.naming);
        let name = self.name();
        let path = self.path_of(name);
        let file = self.storage.open(&path, Open::Read)?;
        Ok((path, file, name.state == SegmentState::Active))
    }

    fn find_frames(
        &self,
        path: PathBuf,
        file: Arc<dyn File>,
        is_active: bool,
        how: Reading,
    ) -> io::Result<OpenSegment> {
        let (limit, ending) = match self.extent {
            Extent::Published => (self.written_len(), Ending::Limit),
            Extent::Found if is_active => (file.len()?, Ending::Torn),
            Extent::Found if self.name().cut.is_some() => (self.written_len(), Ending::Limit),
            Extent::Found => (file.len()?, Ending::LastFrame),
        };
        let source = match how {
            Reading::File => (Source::File(file), None),
            Reading::Map => (Source::Mapped(Arc::new(file.map()?)), Some(file)),
        };
        Ok(self.walk(path, source, limit, ending))
    }

    fn walk(
        &self,
        path: PathBuf,
        (source, file): (Source, Option<Arc<dyn File>>),
        limit: u64,
        ending: Ending,
    ) -> OpenSegment {
        let incarnation = self.incarnation();
        let check_payloads = ending == Ending::Torn;
        let options = WalkOptions { path: &path, incarnation, limit, ending, check_payloads };
        let walk = walk::walk(&source, &options);
        OpenSegment::new(path, source, file, walk.frames, walk.damage)
    }
}

impl Part for Segment {
    fn range(&self) -> (Ulid, Ulid) {
        self.content().range.unwrap_or((Ulid::MAX, Ulid::MIN))
    }

    fn records(&self) -> u64 {
        self.content().records
    }

    fn text_bytes(&self) -> u64 {
        self.content().text_bytes.saturating_sub(self.known.lost_text_bytes())
    }

    fn known_damage(&self) -> Vec<Damage> {
        // It may have been renamed since.
        let known = self.known.list().into_iter();
        known.map(|damage| Damage { path: self.path(), ..damage }).collect()
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        let open = self.open_shared().map_err(|e| self.unread(&e))?;
        Ok(Box::new(Frames(open)))
    }

    fn open_to_move(&self) -> Result<Box<dyn OpenPart>, Damage> {
        let open = self.open_alone().map_err(|e| self.unread(&e))?;
        Ok(Box::new(Frames(Arc::new(open))))
    }

    fn file_path(&self) -> Option<PathBuf> {
        Some(self.path())
    }

    fn is_stored(&self) -> bool {
        false
    }
}
