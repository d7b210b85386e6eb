//! Writes one store segment, front to back, from runs in ULID order and from whole slabs.
//!
//! Invariants: nothing is kept in memory but the open block, the open slab's index and the
//! footer; records come in strictly rising ULID order (checked); a run is cut only at a line
//! boundary and only because its block is full; until [`SealedSegment::publish`] there is
//! nothing but a temporary file, which is removed on every error.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::damage::{Damage, DamageKind};
use crate::limits::{
    BLOCK_TEXT_TARGET, DICTIONARY_TOPICS_MAX, FOOTER_TOPICS_MAX, SEGMENT_SLABS_MAX,
    SIGNATURE_SHARE_PERCENT, SLAB_BLOCK_TOPICS_MAX, SLAB_BLOCKS_MAX, SLAB_BLOCKS_TARGET,
};
use crate::run_table::Run;
use crate::signature::{MatrixBuilder, SIGNATURE_SCHEME};
use crate::storage::{Bytes, Refusal};
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::StoreDirectory;
pub use super::codec::Compression;
use super::codec::Encoder;
use super::coverage::{Coverage, CoverageBuilder, Interval};
use super::entry_table::EntryTableBuilder;
use super::footer::{Footer, Inputs, SlabEntry};
use super::index::{Block, SlabIndex, TopicStats};
use super::name::{Name, SegmentId};
use super::open::{verify_block, verify_sections};
use super::open_block::OpenBlock;
pub use super::open_block::TopicCache;
use super::output::Output;
use super::segment::StoreSegment;
use super::slab::{
    SLAB_HEADER_LEN, Section, SlabTrailer, TRAILER_LEN, decode_slab_header, encode_slab_header,
};
use super::volume::Volume;
pub use super::write_error::WriteError;

/// How segments are written; tests make the sizes small.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Text after which a block ends, bytes.
    pub block_text_target: usize,
    /// Blocks after which a slab ends.
    pub slab_blocks_max: usize,
    /// What a slab's signatures may take beside its blocks, percent; 0: there are none.
    pub signature_percent: u64,
    /// How text is stored.
    pub compression: Compression,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            block_text_target: BLOCK_TEXT_TARGET,
            slab_blocks_max: SLAB_BLOCKS_TARGET,
            signature_percent: SIGNATURE_SHARE_PERCENT,
            compression: Compression::default(),
        }
    }
}

/// Records to append: (part of) a run of some source.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// First ULID, record count and the topic's index in `topics`; its text length is not used.
    pub run: Run,
    /// As many lines as the run counts.
    pub text: &'a [u8],
    /// The source's topic dictionary.
    pub topics: &'a [Topic],
}

#[derive(Default)]
struct OpenSlab {
    id: u64,
    offset: u64,
    index: SlabIndex,
    signatures: MatrixBuilder,
    entries: EntryTableBuilder,
    topics: HashMap<Topic, u16>,
    block_topics: usize,
}

/// A segment being written.
pub struct SegmentWriter {
    options: WriterOptions,
    output: Output,
    id: SegmentId,
    block: OpenBlock,
    encoder: Encoder,
    slab: Option<OpenSlab>,
    slabs: Vec<SlabEntry>,
    topics: BTreeMap<Topic, TopicStats>,
    topics_complete: bool,
    last: Option<Ulid>,
    /// Of what was taken.
    coverage: CoverageBuilder,
    /// `None`: one of its own.
    volume: Option<Volume>,
}

impl SegmentWriter {
    /// Starts a segment in a volume of its own; the file is made by the first write.
    pub fn new(directory: &Arc<StoreDirectory>, options: WriterOptions) -> Self {
        let id = SegmentId(directory.ids.next_id());
        let path = directory.path.join(Name::Writing(id).to_string());
        Self {
            options,
            output: Output::new(Arc::clone(directory), path),
            id,
            block: OpenBlock::new(),
            encoder: Encoder::new(options.compression),
            slab: None,
            slabs: Vec::new(),
            topics: BTreeMap::new(),
            topics_complete: true,
            last: None,
            coverage: CoverageBuilder::default(),
            volume: None,
        }
    }

    /// The segment belongs to this volume.
    #[must_use]
    pub const fn in_volume(mut self, volume: Volume) -> Self {
        self.volume = Some(volume);
        self
    }

    /// The last record taken.
    pub const fn last(&self) -> Option<Ulid> {
        self.last
    }

    /// Bytes of the file so far, about; at most, for the open block is not compressed yet.
    pub fn written_bytes(&self) -> u64 {
        self.output.position() + self.block.text.len() as u64
    }

    /// Appends records: all of them, or none if the piece is not what it claims.
    pub fn append(&mut self, piece: &Piece<'_>, cache: &mut TopicCache) -> Result<(), WriteError> {
        if self.last.is_some_and(|last| last >= piece.run.first) {
            return Err(WriteError::OutOfOrder);
        }
        if count_lines(piece.text) != Some(u64::from(piece.run.count)) {
            return Err(WriteError::NotLines);
        }
        let (mut run, mut text) = (piece.run, piece.text);
        while !text.is_empty() {
            let target = self.options.block_text_target;
            let room = target.saturating_sub(self.block.text.len());
            let (cut_at, count) = match fitting(text, room) {
                Some(_) if text.len() <= room => (text.len(), run.count),
                Some(cut_at) => (cut_at, count_lines(&text[..cut_at]).unwrap_or(0) as u32),
                None if !self.block.is_empty() => {
                    self.finish_block()?;
                    continue;
                }
                // A record longer than a block is a block of its own.
                None => (memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1), 1),
            };
            let topic = self.block.topic_index(piece.topics, piece.run.topic, cache);
            let Some(topic) = topic else {
                self.finish_block()?;
                continue;
            };
            let taken = Run { first: run.first, count, text_len: cut_at as u32, topic };
            self.block.push(taken, &text[..cut_at]);
            self.coverage.add(Interval::of_run(&taken));
            self.last = Some(taken.last());
            text = &text[cut_at..];
            run.count -= count;
            run.first = run.first.plus(u64::from(count));
            if self.block.text.len() >= target {
                self.finish_block()?;
            }
        }
        Ok(())
    }

    /// Copies a slab as it is, piece by piece, each verified right before it is written. `source`
    /// are the bytes of the file that it lies in. After an error nothing of it was taken.
    pub fn copy_slab(
        &mut self,
        source: &mut dyn Bytes,
        path: &Path,
        entry: &SlabEntry,
    ) -> Result<(), WriteError> {
        let trailer = entry.trailer;
        if self.last.is_some_and(|last| last >= trailer.first) {
            return Err(WriteError::OutOfOrder);
        }
        self.finish_block()?;
        self.finish_slab()?;
        let offset = self.output.position();
        self.push_slab(SlabEntry { offset, trailer })?;
        let copied = self.copy_verified(source, entry).map_err(|error| match error {
            CopyError::Damaged(kind) => {
                let range = Some((trailer.first, trailer.last));
                let (offset, len_bytes) = (entry.offset, trailer.len);
                let path = path.to_owned();
                WriteError::Damaged(Damage { path, offset, len_bytes, range, records: None, kind })
            }
            CopyError::Write(error) => error,
        });
        match copied {
            Ok((index, coverage)) => {
                self.add_topics(&index.topics);
                coverage.intervals().iter().for_each(|interval| self.coverage.add(*interval));
                self.last = Some(trailer.last);
                Ok(())
            }
            Err(error) => {
                self.slabs.pop();
                self.output.rewind(offset);
                Err(error)
            }
        }
    }

    fn copy_verified(
        &mut self,
        source: &mut dyn Bytes,
        entry: &SlabEntry,
    ) -> Result<(SlabIndex, Coverage), CopyError> {
        let SlabEntry { offset: start, trailer } = *entry;
        // Where the blocks are is said behind them.
        let sections = start + trailer.index.offset..start + trailer.len;
        let sections = source.read(sections)?.to_vec();
        let index = verify_sections(&sections, &trailer)?;
        let header = source.read(start..start + SLAB_HEADER_LEN as u64)?;
        if decode_slab_header(header)? != trailer.slab_id {
            return Err(DamageKind::Malformed("slab header").into());
        }
        self.output.put(header)?;
        let decoders = self.output.directory().caches.decoders.clone();
        let mut coverage = CoverageBuilder::default();
        let mut at = SLAB_HEADER_LEN as u64;
        for block in &index.blocks {
            let stored = block.header.stored_len();
            let bytes = source.read(start + block.offset..start + block.offset + stored)?;
            if block.offset != at || bytes.len() as u64 != stored {
                return Err(DamageKind::Malformed("block index").into());
            }
            let table = verify_block(&decoders, bytes, &block.header)?;
            table.runs.iter().for_each(|run| coverage.add(Interval::of_run(run)));
            self.output.put(bytes)?;
            at += stored;
        }
        if at != trailer.index.offset {
            return Err(DamageKind::Malformed("block index").into());
        }
        self.output.put(&sections)?;
        Ok((index, coverage.finish()))
    }

    fn push_slab(&mut self, entry: SlabEntry) -> Result<(), WriteError> {
        if self.slabs.len() >= SEGMENT_SLABS_MAX {
            return Err(WriteError::Full);
        }
        self.slabs.push(entry);
        Ok(())
    }

    fn add_topics(&mut self, stats: &[TopicStats]) {
        for stats in stats {
            if let Some(known) = self.topics.get_mut(&stats.topic) {
                known.add(stats);
            } else if self.topics.len() < FOOTER_TOPICS_MAX {
                self.topics.insert(stats.topic.clone(), stats.clone());
            } else {
                self.topics_complete = false;
            }
        }
    }

    /// The slab that the open block goes to: the open one if the block's topics fit.
    fn slab_for_block(&mut self) -> Result<OpenSlab, WriteError> {
        let topics = &self.block.table.topics;
        let fits = self.slab.as_ref().is_some_and(|slab| {
            let new = topics.iter().filter(|t| !slab.topics.contains_key(*t)).count();
            slab.topics.len() + new <= DICTIONARY_TOPICS_MAX
                && slab.block_topics + topics.len() <= SLAB_BLOCK_TOPICS_MAX
        });
        if !fits {
            self.finish_slab()?;
        }
        if let Some(slab) = self.slab.take() {
            return Ok(slab);
        }
        let id = self.output.directory().ids.next_id();
        let slab = OpenSlab { id, offset: self.output.position(), ..OpenSlab::default() };
        self.output.put(&encode_slab_header(id))?;
        Ok(slab)
    }

    fn finish_block(&mut self) -> Result<(), WriteError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut slab = self.slab_for_block()?;
        let number = slab.index.blocks.len() as u32;
        let (header, encoded) = self.block.seal(slab.id, number, &mut self.encoder);
        let offset = self.output.position() - slab.offset;
        self.output.put(&header.encode())?;
        self.output.put(encoded.table)?;
        self.output.put(encoded.text)?;
        self.output.pad()?;
        let mut topics = Vec::with_capacity(self.block.table.topics.len());
        for stats in self.block.topic_stats() {
            let next = slab.index.topics.len() as u16;
            let number = *slab.topics.entry(stats.topic.clone()).or_insert(next);
            topics.push(number);
            match slab.index.topics.get_mut(usize::from(number)) {
                Some(known) => known.add(&stats),
                None => slab.index.topics.push(stats),
            }
        }
        topics.sort_unstable();
        slab.block_topics += topics.len();
        slab.index.blocks.push(Block { offset, header, topics: topics.into() });
        if self.options.signature_percent > 0 {
            slab.signatures.push(&self.block.text);
        }
        slab.entries.push(&self.block.table, &self.block.text);
        let full = slab.index.blocks.len() >= self.options.slab_blocks_max.min(SLAB_BLOCKS_MAX);
        self.slab = Some(slab);
        self.block.clear();
        if full { self.finish_slab() } else { Ok(()) }
    }

    /// Ends the open slab; the open block, if any, goes to the next one.
    fn finish_slab(&mut self) -> Result<(), WriteError> {
        let Some(slab) = self.slab.take() else { return Ok(()) };
        let blocks = &slab.index.blocks;
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let (first, last) = (first.header.first, last.header.last);
        let bytes = slab.index.to_bytes(slab.id);
        let index = Section {
            offset: self.output.position() - slab.offset,
            len: bytes.len() as u64,
            crc: crc32fast::hash(&bytes),
        };
        self.output.put(&bytes)?;
        self.output.pad()?;
        let offset = self.output.position() - slab.offset;
        let matrix = slab.signatures.finish(index.offset, self.options.signature_percent);
        let matrix = matrix.unwrap_or_default();
        self.output.put(&matrix.bytes)?;
        self.output.pad()?;
        let signatures = Section { offset, len: matrix.bytes.len() as u64, crc: matrix.crc };
        let entries = self.put_section(slab.offset, &slab.entries.finish())?;
        let scheme = if matrix.rows > 0 { SIGNATURE_SCHEME } else { 0 };
        let trailer = SlabTrailer {
            slab_id: slab.id,
            len: self.output.position() - slab.offset + TRAILER_LEN as u64,
            block_count: blocks.len() as u32,
            flags: 0,
            record_count: blocks.iter().map(|b| u64::from(b.header.record_count)).sum(),
            text_bytes: blocks.iter().map(|b| u64::from(b.header.text_len)).sum(),
            first,
            last,
            index,
            signatures,
            signature_rows: matrix.rows,
            signature_scheme: scheme,
            entries,
        };
        self.output.put(&trailer.encode())?;
        self.add_topics(&slab.index.topics);
        self.push_slab(SlabEntry { offset: slab.offset, trailer })
    }

    /// Appends a section to the slab that begins at `start`; none where it is empty.
    fn put_section(&mut self, start: u64, bytes: &[u8]) -> Result<Section, WriteError> {
        if bytes.is_empty() {
            return Ok(Section::default());
        }
        let offset = self.output.position() - start;
        self.output.put(bytes)?;
        self.output.pad()?;
        Ok(Section { offset, len: bytes.len() as u64, crc: crc32fast::hash(bytes) })
    }

    /// Ends the segment and syncs it under its temporary name. `None`: it holds no record, and no
    /// file is left.
    pub fn seal(mut self, inputs: Inputs) -> Result<Option<SealedSegment>, WriteError> {
        self.finish_block()?;
        self.finish_slab()?;
        let record_count = self.slabs.iter().map(|slab| slab.trailer.record_count).sum();
        let footer = Footer {
            id: self.id,
            volume: self.volume.unwrap_or_else(|| self.output.directory().lone_volume()),
            slabs: self.slabs,
            topics: self.topics.into_values().collect(),
            topics_complete: self.topics_complete,
            coverage: self.coverage.finish().of_records(record_count),
            inputs,
        };
        let Some((first, last)) = footer.range() else { return Ok(None) };
        assert!(footer.is_readable(self.output.position()), "{} would be refused", footer.id);
        self.output.put(&footer.encode())?;
        self.output.sync()?;
        let name = Name::Flushed { first, last, id: footer.id };
        Ok(Some(SealedSegment { output: self.output, name, footer }))
    }

    /// Ends, syncs and publishes the segment.
    pub fn finish(self, inputs: Inputs) -> Result<Option<Arc<StoreSegment>>, WriteError> {
        self.seal(inputs)?.map(SealedSegment::publish).transpose()
    }
}

/// Why a slab was not copied.
enum CopyError {
    Damaged(DamageKind),
    Write(WriteError),
}

impl From<DamageKind> for CopyError {
    fn from(kind: DamageKind) -> Self {
        Self::Damaged(kind)
    }
}

impl From<Refusal> for CopyError {
    fn from(refusal: Refusal) -> Self {
        Self::Damaged(refusal.into())
    }
}

impl From<WriteError> for CopyError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// A segment that is complete and durable but has no name yet. Dropping it removes it.
pub struct SealedSegment {
    output: Output,
    name: Name,
    footer: Footer,
}

impl SealedSegment {
    /// The temporary file: what is copied to other stores.
    pub fn path(&self) -> &Path {
        self.output.path()
    }

    /// What it holds and replaces.
    pub const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Renames it and makes the name durable: from now on it survives.
    pub fn publish(self) -> Result<Arc<StoreSegment>, WriteError> {
        let directory = Arc::clone(self.output.directory());
        let path = directory.path.join(self.name.to_string());
        let file_bytes = self.output.position();
        self.output.publish(&path)?;
        Ok(StoreSegment::of_footer(&directory, path, &self.footer, file_bytes))
    }
}

/// How many bytes of whole lines fit into `room`; `None` when not even one line does.
fn fitting(text: &[u8], room: usize) -> Option<usize> {
    if text.len() <= room {
        return Some(text.len());
    }
    memchr::memrchr(b'\n', &text[..room]).map(|at| at + 1)
}

/// Lines of a text; `None` when the last one has no end.
fn count_lines(text: &[u8]) -> Option<u64> {
    (text.last() == Some(&b'\n')).then(|| memchr::memchr_iter(b'\n', text).count() as u64)
}
