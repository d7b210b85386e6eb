//! An ingest segment that is open for reading, shared by those who read it.
//!
//! Invariants: what was verified of a frame is remembered for as long as the segment is open, which
//! is not longer than its file stays as it is ([`super::segment`] sees to that by the file's version
//! stamp); whoever writes the records anew does not rely on it. A file that is still being written
//! is opened afresh by each reader.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{FrameHeader, HEADER_BYTES};
use super::walk::{self, FrameAt, Source};
use crate::checked::Checked;
use crate::chunk::{Chunk, ChunkMeta, OpenPart, Text, TopicList};
use crate::damage::{Damage, DamageKind};
use crate::limits::SEGMENT_OPEN_BYTES;
use crate::run_table::RunTable;
use crate::topic::Topic;

/// A segment whose frames were found.
pub(super) struct OpenSegment {
    path: PathBuf,
    source: Source,
    frames: Vec<FrameAt>,
    metas: Vec<ChunkMeta>,
    damage: Vec<Damage>,
    /// Of the state that its file was in.
    checked: Checked,
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
                topics: TopicList::default(),
            })
            .collect();
        let checked = Checked::new(frames.len(), 0);
        Self { path, source, frames, metas, damage, checked }
    }

    /// What it keeps in memory, bytes, about.
    pub(super) fn memory_bytes(&self) -> usize {
        SEGMENT_OPEN_BYTES + self.frames.len() * (size_of::<FrameAt>() + size_of::<ChunkMeta>())
    }

    /// Whether a part of its file was gone when it was read.
    pub(super) fn is_poisoned(&self) -> bool {
        self.source.is_poisoned()
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

    fn text_of(&self, frame: &FrameAt, is_verified: bool) -> Result<Text, DamageKind> {
        let span = frame.header.text_span();
        let bytes = self.span(frame, span.clone())?;
        if !is_verified {
            frame.header.check_text(&bytes).map_err(walk::damage_kind)?;
        }
        match (&self.source, bytes) {
            (Source::Mapped(map), _) => {
                let start = frame.offset as usize + span.start;
                Ok(Text::Mapped(Arc::clone(map), start..start + span.len()))
            }
            (Source::File(_), bytes) => Ok(Text::Owned(Arc::new(bytes.into_owned()))),
        }
    }

    /// Reads a frame; `believes` what was verified before.
    fn read_frame(&self, index: usize, believes: bool) -> Result<Chunk, Damage> {
        let frame = &self.frames[index];
        let is_verified = believes && self.checked.is_text_verified(index);
        let chunk = self.table_of(frame).and_then(|table| {
            let text = self.text_of(frame, is_verified)?;
            self.unless_poisoned(Chunk { table, text })
        });
        self.note(index, chunk)
    }

    /// Remembers whether a frame is whole.
    fn note<T>(&self, index: usize, read: Result<T, DamageKind>) -> Result<T, Damage> {
        match read {
            Ok(read) => {
                self.checked.block_is_whole(index);
                Ok(read)
            }
            Err(kind) => {
                self.checked.block_is_bad(index);
                Err(self.damage_of(&self.frames[index], kind))
            }
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
        self.read_frame(index, false)
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
        self.note(index, checked)
    }
}

/// An open segment as one of its readers sees it.
pub(super) struct Frames {
    open: Arc<OpenSegment>,
    /// Whether what was verified is believed to be whole still.
    believes: bool,
}

impl Frames {
    /// For queries: a frame is verified once, and again if a record of it is shown.
    pub(super) const fn believing(open: Arc<OpenSegment>) -> Self {
        Self { open, believes: true }
    }

    /// For those who write the records anew.
    pub(super) const fn verifying(open: Arc<OpenSegment>) -> Self {
        Self { open, believes: false }
    }
}

impl OpenPart for Frames {
    fn chunks(&self) -> &[ChunkMeta] {
        self.open.chunks()
    }

    fn topics(&self) -> &[Topic] {
        self.open.topics()
    }

    fn damage(&self) -> &[Damage] {
        self.open.damage()
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        self.open.read_frame(index, self.believes)
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        self.open.read_table(index)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        self.open.verify(index)
    }
}
