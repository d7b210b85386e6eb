//! The buffer that a shard fills with one frame and that is then written as it stands.
//!
//! Invariants: a [`FrameBuffer`] that was finished is written as it stands; text that readers still
//! hold is never overwritten (the buffer copies itself first).

use std::ops::Range;
use std::sync::Arc;

use super::{ALIGNMENT_MAX, FrameHeader, HEADER_BYTES};
use crate::limits::{DICTIONARY_TOPICS_MAX, FRAME_TABLE_BYTES_MAX};
use crate::run_table::{Run, RunTable};
use crate::topic::Topic;

/// Memory alignment of buffers: enough for every direct-I/O device that is known.
const MEMORY_ALIGNMENT: usize = 4096;
/// Most bytes that one run takes in an encoded table: stream 1, topic 3, time 7, counter 6, count
/// 5, text length 5.
const RUN_BYTES_MAX: usize = 27;
/// Most bytes of a table without topics and runs: three counts and some streams.
const TABLE_BASE_BYTES: usize = 128;
/// Most bytes of a topic in a dictionary.
const TOPIC_BYTES_MAX: usize = crate::limits::TOPIC_LEN_MAX + 1;

/// Where a finished frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlace {
    /// Life of the segment file.
    pub incarnation: u64,
    /// Number of the frame in the segment.
    pub number: u32,
    /// Whether it ends the segment.
    pub is_last: bool,
    /// Direct-I/O alignment, bytes; a power of two from [`ALIGNMENT_MIN`](super::ALIGNMENT_MIN) to [`ALIGNMENT_MAX`].
    pub alignment_bytes: usize,
}

/// Room for one frame at an address that direct I/O accepts. Filled with `push`,
/// completed with `finish`, then written as it stands.
#[derive(Debug, Clone)]
pub struct FrameBuffer {
    bytes: Arc<[u8]>,
    /// First aligned byte: the header's place.
    start: usize,
    text_capacity: usize,
    text_len: usize,
    table: RunTable,
    /// Upper bound of the encoded table, bytes.
    table_bound: usize,
    record_count: u64,
    /// Checksum of the text so far, taken while it is still in the core's cache.
    text_crc: crc32fast::Hasher,
    /// Length of the finished frame; 0 while it is being filled.
    len: usize,
}

/// Bytes of memory behind a buffer of this text capacity.
const fn buffer_bytes(text_capacity: usize) -> usize {
    let frame = HEADER_BYTES + text_capacity + FRAME_TABLE_BYTES_MAX;
    frame + ALIGNMENT_MAX + MEMORY_ALIGNMENT
}

/// The longest frame that a buffer of this text capacity can make: what a segment needs as slack
/// behind its flush size, bytes.
pub const fn frame_len_max(text_capacity: usize, alignment_bytes: usize) -> usize {
    (HEADER_BYTES + text_capacity + FRAME_TABLE_BYTES_MAX).next_multiple_of(alignment_bytes)
}

fn aligned_zeros(len: usize) -> (Arc<[u8]>, usize) {
    let bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    // The offset is a hint that may be refused; direct I/O then fails and is told as such.
    let start = bytes.as_ptr().align_offset(MEMORY_ALIGNMENT);
    (bytes, if start < MEMORY_ALIGNMENT { start } else { 0 })
}

impl AsRef<[u8]> for FrameBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl FrameBuffer {
    /// An empty buffer for `text_capacity` bytes of text; allocates and touches its memory once.
    pub fn new(text_capacity: usize) -> Self {
        Self::with_memory(text_capacity, buffer_bytes(text_capacity))
    }

    /// A buffer for a frame without records, which merely ends its segment.
    pub(in crate::ingest) fn end_mark(alignment_bytes: usize) -> Self {
        let frame_bytes = HEADER_BYTES.next_multiple_of(alignment_bytes);
        Self::with_memory(0, frame_bytes + MEMORY_ALIGNMENT)
    }

    /// A frame of records that were read elsewhere, ready to be finished. There is room for their
    /// table, however long it is.
    pub fn of(table: &RunTable, text: &[u8]) -> Self {
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        let frame_bytes = HEADER_BYTES + text.len() + encoded.len();
        let mut frame =
            Self::with_memory(text.len(), frame_bytes + ALIGNMENT_MAX + MEMORY_ALIGNMENT);
        let at = frame.start + HEADER_BYTES;
        frame.bytes_mut()[at..at + text.len()].copy_from_slice(text);
        frame.text_len = text.len();
        frame.text_crc.update(text);
        frame.record_count = table.record_count();
        frame.table = table.clone();
        frame.table_bound = FRAME_TABLE_BYTES_MAX;
        frame
    }

    fn with_memory(text_capacity: usize, bytes: usize) -> Self {
        let (bytes, start) = aligned_zeros(bytes);
        Self {
            bytes,
            start,
            text_capacity,
            text_len: 0,
            table: RunTable::default(),
            table_bound: TABLE_BASE_BYTES,
            record_count: 0,
            text_crc: crc32fast::Hasher::new(),
            len: 0,
        }
    }

    /// Text that it has room for when it is empty, bytes.
    pub const fn text_capacity(&self) -> usize {
        self.text_capacity
    }

    /// Memory behind a buffer of this text capacity, bytes.
    pub const fn memory_bytes(text_capacity: usize) -> usize {
        buffer_bytes(text_capacity)
    }

    /// Text bytes that one more run may bring; 0 when the run table has no room for one.
    pub const fn room(&self) -> usize {
        if self.table_bound + RUN_BYTES_MAX + TOPIC_BYTES_MAX > FRAME_TABLE_BYTES_MAX {
            return 0;
        }
        self.text_capacity - self.text_len
    }

    /// Whether it holds no record.
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Records that were pushed.
    pub const fn record_count(&self) -> u64 {
        self.record_count
    }

    /// Text that was pushed.
    pub fn text(&self) -> &[u8] {
        &self.bytes[self.text_span()]
    }

    /// Runs of the text.
    pub const fn table(&self) -> &RunTable {
        &self.table
    }

    /// The shared memory, and where the text lies in it.
    pub fn shared_text(&self) -> (Arc<[u8]>, Range<usize>) {
        (Arc::clone(&self.bytes), self.text_span())
    }

    const fn text_span(&self) -> Range<usize> {
        let start = self.start + HEADER_BYTES;
        start..start + self.text_len
    }

    /// Adds a topic that is not in the dictionary yet; says its index.
    pub(in crate::ingest) fn add_topic(&mut self, topic: &Topic) -> u16 {
        self.table_bound += topic.as_str().len() + 1;
        assert!(self.table.topics.len() < DICTIONARY_TOPICS_MAX, "a topic's index fits its run");
        self.table.topics.push(topic.clone());
        (self.table.topics.len() - 1) as u16
    }

    #[cfg(test)]
    /// Appends whole lines as a run. The caller keeps to [`FrameBuffer::room`].
    pub(in crate::ingest) fn push(&mut self, text: &[u8], run: Run) {
        assert!(text.len() <= self.text_capacity - self.text_len, "a run fits its frame");
        debug_assert_eq!(run.text_len as usize, text.len());
        self.spare()[..text.len()].copy_from_slice(text);
        self.take_spare(run);
    }

    /// The memory behind the text, as much as more text may take.
    pub(in crate::ingest) fn spare(&mut self) -> &mut [u8] {
        self.make_unique();
        let start = self.start + HEADER_BYTES;
        let span = start + self.text_len..start + self.text_capacity;
        &mut self.bytes_mut()[span]
    }

    /// Makes a run of the first bytes that were put into [`FrameBuffer::spare`]: whole lines, within
    /// [`FrameBuffer::room`]. Says them.
    pub(in crate::ingest) fn take_spare(&mut self, run: Run) -> &[u8] {
        let at = self.start + HEADER_BYTES + self.text_len;
        self.text_len += run.text_len as usize;
        assert!(self.text_len <= self.text_capacity, "a run fits its frame");
        self.record_count += u64::from(run.count);
        let runs = self.table.runs.len();
        self.table.push(run);
        self.table_bound += (self.table.runs.len() - runs) * RUN_BYTES_MAX;
        let text = &self.bytes[at..at + run.text_len as usize];
        self.text_crc.update(text);
        text
    }

    /// Moves to memory that nobody else reads; `start` may change.
    fn make_unique(&mut self) {
        if Arc::get_mut(&mut self.bytes).is_some() {
            return;
        }
        let (mut bytes, start) = aligned_zeros(self.bytes.len());
        let used = self.text_len + HEADER_BYTES;
        let target = Arc::get_mut(&mut bytes).expect("it was made just now");
        target[start..start + used].copy_from_slice(&self.bytes[self.start..self.start + used]);
        (self.bytes, self.start) = (bytes, start);
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        Arc::get_mut(&mut self.bytes).expect("the caller made it unique")
    }

    /// Completes the frame: table, padding, header with checksums. Can be done again for another
    /// place when the first write failed.
    pub fn finish(&mut self, place: FramePlace) {
        let mut table = Vec::new();
        if !self.is_empty() {
            self.table.encode(&mut table);
        }
        let (first, last) = self.table.range().unwrap_or_default();
        let described = (self.table.record_count(), self.table.text_len());
        let holds = (self.record_count, self.text_len as u64);
        assert_eq!(described, holds, "the run table of a frame describes its records and text");
        let payload = HEADER_BYTES + self.text_len + table.len();
        let len = payload.next_multiple_of(place.alignment_bytes);
        assert!(self.start + len <= self.bytes.len(), "the bound of the table holds");
        let header = FrameHeader {
            incarnation: place.incarnation,
            number: place.number,
            chunk: None,
            is_last: place.is_last,
            text_len: self.text_len as u32,
            table_len: table.len() as u32,
            record_count: self.record_count as u32,
            len_bytes: len as u32,
            first,
            last,
            text_crc: self.text_crc.clone().finalize(),
            table_crc: crc32fast::hash(&table),
        };
        let text_len = self.text_len;
        self.make_unique();
        let start = self.start;
        let bytes = &mut self.bytes_mut()[start..start + len];
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        bytes[HEADER_BYTES + text_len..payload].copy_from_slice(&table);
        bytes[payload..].fill(0);
        self.len = len;
    }

    /// The finished frame, padding included; empty before `finish`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// Empties the buffer for its next frame.
    pub(in crate::ingest) fn clear(&mut self) {
        self.text_len = 0;
        self.record_count = 0;
        self.text_crc.reset();
        self.len = 0;
        self.table.topics.clear();
        self.table.runs.clear();
        self.table_bound = TABLE_BASE_BYTES;
    }

    /// Whether no reader holds its memory.
    pub(in crate::ingest) fn is_unshared(&mut self) -> bool {
        Arc::get_mut(&mut self.bytes).is_some()
    }
}
