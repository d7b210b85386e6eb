//! Records that a shard holds in memory, as a [`Part`]: frames not yet published in their segment
//! and a copy of the one being filled.
//!
//! Invariants: a snapshot never changes; what it shares with the shard's buffers keeps those from
//! being overwritten. Nothing here can be damaged.

use std::sync::Arc;

use super::frame::FrameBuffer;
use crate::chunk::{Chunk, ChunkMeta, OpenPart, Part, Text, TopicList};
use crate::damage::Damage;
use crate::run_table::RunTable;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// A shard's memory at one moment.
#[derive(Debug, Clone, Default)]
pub struct MemoryPart {
    chunks: Arc<Vec<(ChunkMeta, Chunk)>>,
}

impl MemoryPart {
    /// Frames in ULID order (text is shared, tables are copied) and a copy of the staged one.
    pub(super) fn new<'a>(
        frames: impl Iterator<Item = &'a FrameBuffer>,
        staging: &FrameBuffer,
    ) -> Self {
        let mut chunks = Vec::new();
        for frame in frames {
            let (bytes, span) = frame.shared_text();
            push(&mut chunks, frame.table().clone(), Text::Shared(bytes, span));
        }
        let copy = Arc::new(staging.text().to_vec());
        push(&mut chunks, staging.table().clone(), Text::Owned(copy));
        Self { chunks: Arc::new(chunks) }
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

fn push(chunks: &mut Vec<(ChunkMeta, Chunk)>, table: RunTable, text: Text) {
    if let Some((first, last)) = table.range() {
        let meta = ChunkMeta {
            first,
            last,
            record_count: table.record_count() as u32,
            text_len: text.len() as u32,
            topics: TopicList::default(),
        };
        chunks.push((meta, Chunk { table, text }));
    }
}

impl Part for MemoryPart {
    fn range(&self) -> (Ulid, Ulid) {
        match (self.chunks.first(), self.chunks.last()) {
            (Some((first, _)), Some((last, _))) => (first.first, last.last),
            _ => (Ulid::MAX, Ulid::MIN),
        }
    }

    fn records(&self) -> u64 {
        self.chunks.iter().map(|(meta, _)| u64::from(meta.record_count)).sum()
    }

    fn text_bytes(&self) -> u64 {
        self.chunks.iter().map(|(meta, _)| u64::from(meta.text_len)).sum()
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        let metas = self.chunks.iter().map(|(meta, _)| meta.clone()).collect();
        Ok(Box::new(OpenMemory { part: self.clone(), metas }))
    }

    fn is_stored(&self) -> bool {
        false
    }
}

struct OpenMemory {
    part: MemoryPart,
    metas: Vec<ChunkMeta>,
}

impl OpenPart for OpenMemory {
    fn chunks(&self) -> &[ChunkMeta] {
        &self.metas
    }

    fn topics(&self) -> &[Topic] {
        &[]
    }

    fn damage(&self) -> &[Damage] {
        &[]
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        Ok(self.part.chunks[index].1.clone())
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        Ok(self.part.chunks[index].1.table.clone())
    }

    fn may_be_counted(&self, _index: usize) -> bool {
        true
    }

    fn verify(&self, _index: usize) -> Result<(), Damage> {
        Ok(())
    }
}
