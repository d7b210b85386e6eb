//! An ingest segment that is open for reading, shared by those who read it.
//!
//! Invariants: what was verified of a frame is remembered for as long as the segment's file stays as it
//! is, open or not ([`super::segment`] sees to that by the file's version stamp, and opens it anew for
//! whoever writes the records anew); a fault costs the frame that it is
//! in, whichever reader meets it. A file that is still being written is opened afresh by each reader.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{FrameHeader, HEADER_BYTES};
use super::walk::{self, FrameAt, Source};
use crate::checked::Checked;
use crate::chunk::{Chunk, ChunkMeta, OpenPart, Text, TopicList};
use crate::damage::{Damage, DamageKind};
use crate::known_damage::KnownDamage;
use crate::limits::SEGMENT_OPEN_BYTES;
use crate::open_cache::Opened;
use crate::run_table::RunTable;
use crate::storage::{File, Map, Refusal, read_into};
use crate::topic::Topic;

/// A segment whose frames were found.
pub(crate) struct OpenSegment {
    path: PathBuf,
    source: Mutex<Source>,
    /// Of what is mapped: to map it anew after a fault.
    file: Option<Arc<dyn File>>,
    frames: Vec<FrameAt>,
    metas: Vec<ChunkMeta>,
    damage: Vec<Damage>,
    /// Of the state that its file was in.
    checked: Arc<Checked>,
    /// What answers are to tell of it without reading it.
    known: Arc<KnownDamage>,
    /// The text that was read last by system calls: once nobody holds it any more, the next one is read
    /// into its buffer, so that who reads frame after frame allocates and clears nothing.
    last_read: Mutex<Option<Arc<Vec<u8>>>>,
}

impl OpenSegment {
    pub(super) fn new(
        path: PathBuf,
        source: Source,
        file: Option<Arc<dyn File>>,
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
                topics: TopicList::default(),
            })
            .collect();
        let checked = Arc::new(Checked::new(frames.len(), 0));
        let (source, last_read) = (Mutex::new(source), Mutex::default());
        let known = Arc::default();
        Self { path, source, file, frames, metas, damage, checked, known, last_read }
    }

    /// What is found damaged is remembered there.
    pub(super) fn telling(self, known: &Arc<KnownDamage>) -> Self {
        Self { known: Arc::clone(known), ..self }
    }

    /// Whether a part of its file was gone when its frames were looked for.
    pub(super) fn is_poisoned(&self) -> bool {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).is_poisoned()
    }

    fn fresh_map(&self) -> Result<Source, DamageKind> {
        let file = self.file.as_ref().ok_or(DamageKind::Truncated("segment"))?;
        let map = file.map().map_err(|e| DamageKind::Unread(Refusal::from(&e)))?;
        Ok(Source::Mapped(Arc::new(map)))
    }

    /// What is read; mapped anew after a fault.
    fn source(&self) -> Result<Source, DamageKind> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.is_poisoned() {
            *source = self.fresh_map()?;
        }
        Ok(source.clone())
    }

    /// Runs `read`; once more, on the file itself, if somebody met a fault of its map meanwhile: pages
    /// that vanish under a map read as zeros, so whatever was found in them is void, and a map does
    /// not say whether bytes are gone or could not be read.
    fn with_source<T>(
        &self,
        read: impl Fn(&Source) -> Result<T, DamageKind>,
    ) -> Result<T, DamageKind> {
        let source = self.source()?;
        let result = read(&source);
        match &self.file {
            Some(file) if source.is_poisoned() => read(&Source::File(Arc::clone(file))),
            _ => result,
        }
    }

    fn damage_of(&self, frame: &FrameAt, kind: DamageKind) -> Damage {
        frame.damage(&self.path, kind)
    }

    fn read_frame(&self, index: usize) -> Result<Chunk, Damage> {
        let frame = &self.frames[index];
        let is_verified = self.checked.is_text_verified(index);
        let chunk = self.with_source(|source| match source {
            Source::Mapped(map) => mapped_chunk(map, source, frame, is_verified),
            Source::File(file) => self.chunk_of_file(&**file, index, is_verified),
        });
        match chunk {
            // Of what was verified before somebody else may know better by now.
            Ok(chunk) if is_verified => Ok(chunk),
            chunk => self.note(index, chunk),
        }
    }

    /// Text and table of a frame, read in one go.
    fn chunk_of_file(
        &self,
        file: &dyn File,
        index: usize,
        is_verified: bool,
    ) -> Result<Chunk, DamageKind> {
        let frame = &self.frames[index];
        let (text, table) = (frame.header.text_span(), frame.header.table_span());
        let span = frame.offset + text.start as u64..frame.offset + table.end as u64;
        let mut bytes = self.buffer();
        read_into(file, &mut bytes, &span).map_err(|e| DamageKind::Unread(Refusal::from(&e)))?;
        if bytes.len() < text.len() + table.len() {
            return Err(DamageKind::Truncated("frame text"));
        }
        let table = frame.header.decode_table(&bytes[text.len()..]).map_err(walk::damage_kind)?;
        if !is_verified {
            frame.header.check_text(&bytes[..text.len()]).map_err(walk::damage_kind)?;
        }
        bytes.truncate(text.len());
        let bytes = Arc::new(bytes);
        let is_last = index + 1 == self.frames.len();
        *self.last_read() = (!is_last).then(|| Arc::clone(&bytes));
        Ok(Chunk { table, text: Text::Owned(bytes) })
    }

    fn last_read(&self) -> MutexGuard<'_, Option<Arc<Vec<u8>>>> {
        self.last_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next frame is read into.
    fn buffer(&self) -> Vec<u8> {
        self.last_read().take().and_then(|last| Arc::try_unwrap(last).ok()).unwrap_or_default()
    }

    /// Remembers whether a frame is whole.
    fn note<T>(&self, index: usize, read: Result<T, DamageKind>) -> Result<T, Damage> {
        match read {
            Ok(read) => {
                self.checked.block_is_whole(index);
                self.known.forget(index);
                Ok(read)
            }
            Err(kind) => {
                let damage = self.damage_of(&self.frames[index], kind);
                self.checked.block_is_bad(index);
                if damage.refusal().is_none() {
                    self.known.add(index, &damage, self.metas[index].text_len);
                }
                Err(damage)
            }
        }
    }
}

impl Opened for OpenSegment {
    fn checked(&self) -> &Arc<Checked> {
        &self.checked
    }

    fn begin(&mut self, before: Option<&Arc<Checked>>) {
        if let Some(before) = before {
            self.checked = Arc::clone(before);
            self.known.opened_again(&self.damage);
        } else {
            self.known.begin(&self.damage);
        }
    }

    /// It is read without a map, because a part of the file was gone underneath one.
    fn is_faulty(&self) -> bool {
        self.file.is_none()
    }

    fn memory_bytes(&self) -> usize {
        SEGMENT_OPEN_BYTES + self.frames.len() * (size_of::<FrameAt>() + size_of::<ChunkMeta>())
    }
}

/// A span of a frame, whole.
fn span_of<'s>(
    source: &'s Source,
    frame: &FrameAt,
    span: Range<usize>,
) -> Result<Cow<'s, [u8]>, DamageKind> {
    let len = span.len();
    let offset = frame.offset + span.start as u64;
    let bytes = source.read(offset, len).map_err(|e| DamageKind::Unread(Refusal::from(&e)))?;
    if bytes.len() < len {
        return Err(DamageKind::Truncated("frame text"));
    }
    Ok(bytes)
}

pub(super) fn table_of(source: &Source, frame: &FrameAt) -> Result<RunTable, DamageKind> {
    let bytes = span_of(source, frame, frame.header.table_span())?;
    frame.header.decode_table(&bytes).map_err(walk::damage_kind)
}

fn mapped_chunk(
    map: &Arc<Map>,
    source: &Source,
    frame: &FrameAt,
    is_verified: bool,
) -> Result<Chunk, DamageKind> {
    let table = table_of(source, frame)?;
    let span = frame.header.text_span();
    let bytes = span_of(source, frame, span.clone())?;
    if !is_verified {
        frame.header.check_text(&bytes).map_err(walk::damage_kind)?;
    }
    let start = frame.offset as usize + span.start;
    Ok(Chunk { table, text: Text::Mapped(Arc::clone(map), start..start + span.len()) })
}

/// Checks all of a frame.
pub(super) fn verify(source: &Source, frame: &FrameAt) -> Result<(), DamageKind> {
    let header = FrameHeader::decode(&span_of(source, frame, 0..HEADER_BYTES)?);
    if header.map_err(walk::damage_kind)? != frame.header {
        return Err(DamageKind::Malformed("frame header"));
    }
    table_of(source, frame)?;
    let text = span_of(source, frame, frame.header.text_span())?;
    frame.header.check_text(&text).map_err(walk::damage_kind)
}

/// An open segment as each of its readers has it.
pub(super) struct Frames(pub(super) Arc<OpenSegment>);

impl OpenPart for Frames {
    fn chunks(&self) -> &[ChunkMeta] {
        &self.0.metas
    }

    fn topics(&self) -> &[Topic] {
        &[]
    }

    fn damage(&self) -> &[Damage] {
        &self.0.damage
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        self.0.read_frame(index)
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        let frame = &self.0.frames[index];
        let table = self.0.with_source(|source| table_of(source, frame));
        table.map_err(|kind| self.0.damage_of(frame, kind))
    }

    fn is_bad(&self, index: usize) -> bool {
        self.0.checked.is_bad(index)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        let frame = &self.0.frames[index];
        let verified = self.0.with_source(|source| verify(source, frame));
        self.0.note(index, verified)
    }
}
