//! A segment: the handle of one ingest file, shared by the shard that writes it, the registry that
//! moves it and the readers that pin it.
//!
//! Invariants: what lies below the published length is whole frames that never change; a reader of
//! a segment that is not complete looks at those bytes only, and by pread, never through a map. The
//! file's name follows the state under one lock, so a handle opens its file whatever the registry
//! does meanwhile; a file is recycled or removed only when no handle but the registry's is left.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{FrameHeader, HEADER_BYTES};
use super::walk::{self, Ending, FrameAt, Source, WalkOptions};
use crate::chunk::{Chunk, ChunkMeta, OpenPart, Part, Text};
use crate::damage::{Damage, DamageKind};
use crate::run_table::RunTable;
use crate::storage::{File, Open, Storage};
use crate::topic::Topic;
use crate::ulid::{ULID_TEXT_LEN, Ulid};

/// State of a segment; its file's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentState {
    /// Prepared or being written.
    Active,
    /// Complete and available to a consumer.
    Flushed,
    /// Claimed by a consumer.
    Pending,
    /// Its readable records were taken, its damage was told; kept for inspection.
    Damaged,
}

impl SegmentState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Active, Self::Flushed, Self::Pending, Self::Damaged];

    /// The extension, without its dot; also the state's name in words.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Flushed => "flushed",
            Self::Pending => "pending",
            Self::Damaged => "damaged",
        }
    }
}

/// File name of a segment.
pub fn file_name(id: Ulid, state: SegmentState) -> String {
    format!("{id}.{}", state.extension())
}

/// The inverse of [`file_name`]; `None` for any other name.
pub fn parse_file_name(name: &str) -> Option<(Ulid, SegmentState)> {
    let (text, extension) = name.split_once('.')?;
    let state = SegmentState::ALL.into_iter().find(|s| s.extension() == extension)?;
    let id: Ulid = text.parse().ok().filter(|_| text.len() == ULID_TEXT_LEN)?;
    // Other spellings (lower case) name other files.
    (id.to_string() == text).then_some((id, state))
}

/// Life of the file that is named by this segment id: frames carry it.
pub const fn incarnation(id: Ulid) -> u64 {
    id.0 as u64
}

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
    /// Found on disk after a start: a frame marked last has to end it.
    Found,
}

/// The shared handle of a segment.
pub struct Segment {
    id: Ulid,
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    extent: Extent,
    /// Length of the file, bytes.
    file_len: AtomicU64,
    /// Whole frames below it are readable.
    written_len: AtomicU64,
    has_failed: AtomicBool,
    state: Mutex<SegmentState>,
    content: Mutex<Content>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", file_name(self.id, self.state()), self.written_len())
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
    pub(super) extent: Extent,
    pub(super) file_len: u64,
    pub(super) written_len: u64,
    pub(super) content: Content,
}

impl Segment {
    pub(super) fn new(storage: Arc<dyn Storage>, directory: &Path, file: SegmentFile) -> Self {
        Self {
            id: file.id,
            directory: directory.to_path_buf(),
            storage,
            extent: file.extent,
            file_len: AtomicU64::new(file.file_len),
            written_len: AtomicU64::new(file.written_len),
            has_failed: AtomicBool::new(false),
            state: Mutex::new(file.state),
            content: Mutex::new(file.content),
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
        self.is_written_here() && !self.has_failed.load(Ordering::Acquire)
    }

    /// Its state.
    pub fn state(&self) -> SegmentState {
        *lock(&self.state)
    }

    /// Where its file is now. A shard opens it by this path when it is handed the segment: the
    /// name does not change before the shard has it sealed.
    pub fn path(&self) -> PathBuf {
        self.path_in(self.state())
    }

    fn path_in(&self, state: SegmentState) -> PathBuf {
        self.directory.join(file_name(self.id, state))
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
        lock(&self.content).add(added.records, added.text_bytes, added.range);
        self.written_len.store(written_len, Ordering::Release);
    }

    /// Renames the file to its next state.
    pub(super) fn move_to(&self, to: SegmentState) -> io::Result<()> {
        let mut state = lock(&self.state);
        self.storage.rename(&self.path_in(*state), &self.path_in(to))?;
        *state = to;
        Ok(())
    }

    fn read_damage(&self, error: &io::Error) -> Damage {
        Damage {
            path: self.path(),
            offset: 0,
            len_bytes: self.written_len(),
            range: self.content().range,
            records: Some(self.content().records),
            kind: DamageKind::Io(error.kind()),
        }
    }

    /// Opens its file, whatever its name is.
    pub(super) fn open_file(&self) -> io::Result<Arc<dyn File>> {
        // Held so that the name stays while the file is opened.
        let state = lock(&self.state);
        self.storage.open(&self.path_in(*state), Open::Read)
    }

    fn source(&self) -> io::Result<(Source, u64, Ending)> {
        let state = lock(&self.state);
        let file = self.storage.open(&self.path_in(*state), Open::Read)?;
        let written = self.written_len();
        if *state == SegmentState::Active {
            return Ok((Source::File(file), written, Ending::Limit));
        }
        let map = Arc::new(file.map()?);
        Ok(match self.extent {
            Extent::Published => (Source::Mapped(map), written, Ending::Limit),
            Extent::Found => {
                let len = map.len() as u64;
                (Source::Mapped(map), len, Ending::LastFrame)
            }
        })
    }

    /// Opens it for reading; see [`Part::open`].
    pub fn open_frames(&self) -> Result<OpenSegment, Damage> {
        let (source, limit, ending) = self.source().map_err(|e| self.read_damage(&e))?;
        let path = self.path();
        let options = WalkOptions {
            path: &path,
            incarnation: self.incarnation(),
            limit,
            ending,
            check_payloads: false,
        };
        let walk = walk::walk(&source, &options).map_err(|e| self.read_damage(&e))?;
        Ok(OpenSegment::new(path, source, walk.frames, walk.damage))
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
        self.content().text_bytes
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        Ok(Box::new(self.open_frames()?))
    }

    fn is_stored(&self) -> bool {
        false
    }
}

/// A segment whose frames were found.
pub struct OpenSegment {
    path: PathBuf,
    source: Source,
    frames: Vec<FrameAt>,
    metas: Vec<ChunkMeta>,
    damage: Vec<Damage>,
}

impl OpenSegment {
    pub(super) fn new(
        path: PathBuf,
        source: Source,
        mut frames: Vec<FrameAt>,
        damage: Vec<Damage>,
    ) -> Self {
        frames.retain(|f| f.header.record_count > 0);
        let metas = frames
            .iter()
            .map(|FrameAt { header, .. }| ChunkMeta {
                first: header.first,
                last: header.last,
                record_count: header.record_count,
                text_len: header.text_len,
                topics: Vec::new(),
            })
            .collect();
        Self { path, source, frames, metas, damage }
    }

    fn damage_of(&self, frame: &FrameAt, kind: DamageKind) -> Damage {
        Damage {
            path: self.path.clone(),
            offset: frame.offset,
            len_bytes: u64::from(frame.header.len_bytes),
            range: Some((frame.header.first, frame.header.last)),
            records: Some(u64::from(frame.header.record_count)),
            kind,
        }
    }

    /// A span of a frame, whole.
    fn span(
        &self,
        frame: &FrameAt,
        span: std::ops::Range<usize>,
    ) -> Result<std::borrow::Cow<'_, [u8]>, DamageKind> {
        let len = span.len();
        let offset = frame.offset + span.start as u64;
        let bytes = self.source.read(offset, len).map_err(|e| DamageKind::Io(e.kind()))?;
        if bytes.len() < len {
            return Err(DamageKind::Truncated("frame text"));
        }
        Ok(bytes)
    }

    fn table_of(&self, frame: &FrameAt) -> Result<RunTable, DamageKind> {
        let bytes = self.span(frame, frame.header.table_span())?;
        frame.header.decode_table(&bytes).map_err(walk::damage_kind)
    }

    fn text_of(&self, frame: &FrameAt) -> Result<Text, DamageKind> {
        let span = frame.header.text_span();
        let bytes = self.span(frame, span.clone())?;
        frame.header.check_text(&bytes).map_err(walk::damage_kind)?;
        match (&self.source, bytes) {
            (Source::Mapped(map), _) => {
                let start = frame.offset as usize + span.start;
                Ok(Text::Mapped(Arc::clone(map), start..start + span.len()))
            }
            (Source::File(_), bytes) => Ok(Text::Owned(Arc::new(bytes.into_owned()))),
        }
    }

    /// Pages that vanished under a map read as zeros: whatever was found in them is void.
    fn unless_poisoned<T>(&self, value: T) -> Result<T, DamageKind> {
        if self.source.is_poisoned() {
            return Err(DamageKind::Truncated("segment"));
        }
        Ok(value)
    }
}

impl OpenPart for OpenSegment {
    fn chunks(&self) -> &[ChunkMeta] {
        &self.metas
    }

    fn topics(&self) -> &[Topic] {
        &[]
    }

    fn damage(&self) -> &[Damage] {
        &self.damage
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        let frame = &self.frames[index];
        let chunk = self.table_of(frame).and_then(|table| {
            let text = self.text_of(frame)?;
            self.unless_poisoned(Chunk { table, text })
        });
        chunk.map_err(|kind| self.damage_of(frame, kind))
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        let frame = &self.frames[index];
        let table = self.table_of(frame).and_then(|table| self.unless_poisoned(table));
        table.map_err(|kind| self.damage_of(frame, kind))
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        let frame = &self.frames[index];
        let header =
            self.span(frame, 0..HEADER_BYTES).and_then(|bytes| match FrameHeader::decode(&bytes) {
                Ok(header) if header == frame.header => Ok(()),
                Ok(_) => Err(DamageKind::Malformed("frame header")),
                Err(e) => Err(walk::damage_kind(e)),
            });
        let checked = header.and_then(|()| {
            self.table_of(frame)?;
            let text = self.span(frame, frame.header.text_span())?;
            frame.header.check_text(&text).map_err(walk::damage_kind)?;
            self.unless_poisoned(())
        });
        checked.map_err(|kind| self.damage_of(frame, kind))
    }
}
