//! Frames: the checksummed unit of an ingest segment, and the buffer that a shard fills with one.
//!
//! A frame is a 96-byte header, text, run table, zero padding up to the alignment of direct I/O;
//! `docs/format-ingest.md` §3 has it byte by byte. A tail chunk is the same without padding.
//!
//! Invariants: the header is believed only behind its checksum, text and table only behind theirs;
//! lengths are bounded before anything is allocated or sliced. A [`FrameBuffer`] that was finished
//! is written as it stands; text that readers still hold is never overwritten (the buffer copies
//! itself first).

use std::ops::Range;
use std::sync::Arc;

use crate::limits::{CHUNK_TEXT_MAX, FRAME_TABLE_BYTES_MAX, RUN_TABLE_BYTES_MAX};
use crate::run_table::{Run, RunTable};
use crate::topic::Topic;
use crate::ulid::{ULID_BYTES, Ulid};

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 96;
/// First bytes of every frame and tail chunk.
pub const MAGIC: [u8; 4] = *b"OKLF";
/// The version that is written.
pub const VERSION: u16 = 1;
/// Frames start at multiples of this, whatever larger alignment the writer's disk asked for.
pub const ALIGNMENT_MIN: usize = 512;
/// Largest alignment, bytes: bounds the padding that a header may claim.
pub const ALIGNMENT_MAX: usize = 1 << 16;

/// Bytes of a header that are known beforehand: magic, incarnation and frame number.
const KNOWN_BYTES: usize = 16;
const FLAG_TAIL: u16 = 1;
const FLAG_LAST: u16 = 2;
/// Memory alignment of buffers: enough for every direct-I/O device that is known.
const MEMORY_ALIGNMENT: usize = 4096;
/// Most bytes that one run takes in an encoded table: stream 1, topic 3, time 7, counter 6, count
/// 5, text length 5.
const RUN_BYTES_MAX: usize = 27;
/// Most bytes of a table without topics and runs: three counts and some streams.
const TABLE_BASE_BYTES: usize = 128;
/// Most bytes of a topic in a dictionary.
const TOPIC_BYTES_MAX: usize = crate::limits::TOPIC_LEN_MAX + 1;

/// The header of a frame or tail chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Life of the file that the frame belongs to.
    pub incarnation: u64,
    /// Position of the frame in its segment: 0, 1, 2 …
    pub number: u32,
    /// For a tail chunk: its position among the chunks of the frame.
    pub chunk: Option<u32>,
    /// Whether no frame follows in this segment.
    pub is_last: bool,
    /// Text, LFs included, bytes.
    pub text_len: u32,
    /// Encoded run table, bytes.
    pub table_len: u32,
    /// Records; 0 only in a last frame that merely ends its segment.
    pub record_count: u32,
    /// Header, text, table and padding, bytes: the next frame starts there.
    pub len_bytes: u32,
    /// First record.
    pub first: Ulid,
    /// Last record.
    pub last: Ulid,
    /// crc32 of the text.
    pub text_crc: u32,
    /// crc32 of the encoded run table.
    pub table_crc: u32,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAFrame {
    /// Fewer bytes than a header, or than the header claims; names the part.
    Truncated(&'static str),
    /// They do not start like a frame.
    Magic,
    /// A checksum does not match; names the part.
    Checksum(&'static str),
    /// A frame of a version that this program does not read.
    Version(u16),
    /// A field has an impossible value; names it.
    Malformed(&'static str),
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn ulid_at(bytes: &[u8], at: usize) -> Ulid {
    Ulid::from_bytes(std::array::from_fn(|i| bytes[at + i]))
}

impl FrameHeader {
    /// Where the text lies in the frame.
    pub const fn text_span(&self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.text_len as usize
    }

    /// Where the run table lies in the frame.
    pub const fn table_span(&self) -> Range<usize> {
        let start = HEADER_BYTES + self.text_len as usize;
        start..start + self.table_len as usize
    }

    /// Writes the header with its checksum.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let flags = if self.chunk.is_some() { FLAG_TAIL } else { 0 }
            | if self.is_last { FLAG_LAST } else { 0 };
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&flags.to_le_bytes());
        out[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        out[16..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..24].copy_from_slice(&self.chunk.unwrap_or(0).to_le_bytes());
        out[24..28].copy_from_slice(&self.text_len.to_le_bytes());
        out[28..32].copy_from_slice(&self.table_len.to_le_bytes());
        out[32..36].copy_from_slice(&self.record_count.to_le_bytes());
        out[36..40].copy_from_slice(&self.len_bytes.to_le_bytes());
        out[40..40 + ULID_BYTES].copy_from_slice(&self.first.to_bytes());
        out[56..56 + ULID_BYTES].copy_from_slice(&self.last.to_bytes());
        out[84..88].copy_from_slice(&self.text_crc.to_le_bytes());
        out[88..92].copy_from_slice(&self.table_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..92]);
        out[92..96].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads and checks the header at the start of `bytes`; the payload is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAFrame> {
        let Some((bytes, _)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(NotAFrame::Truncated("frame header"));
        };
        if bytes[..4] != MAGIC {
            return Err(NotAFrame::Magic);
        }
        if crc32fast::hash(&bytes[..92]) != u32_at(bytes, 92) {
            return Err(NotAFrame::Checksum("frame header"));
        }
        let (version, flags) = (u16_at(bytes, 4), u16_at(bytes, 6));
        if version != VERSION {
            return Err(NotAFrame::Version(version));
        }
        let chunk = u32_at(bytes, 20);
        let is_tail = flags & FLAG_TAIL != 0;
        let header = Self {
            incarnation: u64_at(bytes, 8),
            number: u32_at(bytes, 16),
            chunk: is_tail.then_some(chunk),
            is_last: flags & FLAG_LAST != 0,
            text_len: u32_at(bytes, 24),
            table_len: u32_at(bytes, 28),
            record_count: u32_at(bytes, 32),
            len_bytes: u32_at(bytes, 36),
            first: ulid_at(bytes, 40),
            last: ulid_at(bytes, 56),
            text_crc: u32_at(bytes, 84),
            table_crc: u32_at(bytes, 88),
        };
        if flags & !(FLAG_TAIL | FLAG_LAST) != 0 || (!is_tail && chunk != 0) {
            return Err(NotAFrame::Malformed("flags of the frame header"));
        }
        if bytes[72..84].iter().any(|&b| b != 0) {
            return Err(NotAFrame::Malformed("reserved bytes of the frame header"));
        }
        header.check_sizes().map_err(NotAFrame::Malformed)?;
        Ok(header)
    }

    /// Whether bytes that are not a header may have been this one: most of what it must say is
    /// there. Nobody who sent an earlier life's text knew the incarnation, and half of it counts.
    pub(super) fn is_likely(bytes: &[u8], incarnation: u64, number: u32) -> bool {
        let mut known = [0; KNOWN_BYTES];
        known[..4].copy_from_slice(&MAGIC);
        known[4..12].copy_from_slice(&incarnation.to_le_bytes());
        known[12..].copy_from_slice(&number.to_le_bytes());
        let found = bytes.iter().take(4).chain(bytes.iter().skip(8).take(KNOWN_BYTES - 4));
        let same = found.zip(&known).filter(|(found, known)| found == known).count();
        same >= KNOWN_BYTES - 4
    }

    fn check_sizes(&self) -> Result<(), &'static str> {
        let payload = u64::from(self.text_len) + u64::from(self.table_len) + HEADER_BYTES as u64;
        let len = u64::from(self.len_bytes);
        if self.text_len as usize > CHUNK_TEXT_MAX || self.table_len as usize > RUN_TABLE_BYTES_MAX
        {
            return Err("payload length of the frame header");
        }
        let padding_fits = match self.chunk {
            Some(_) => len == payload,
            None => {
                len >= payload
                    && len - payload < ALIGNMENT_MAX as u64
                    && len % ALIGNMENT_MIN as u64 == 0
            }
        };
        if !padding_fits {
            return Err("length of the frame header");
        }
        let is_end_mark = self.is_last && self.text_len == 0 && self.table_len == 0;
        match self.record_count {
            0 if is_end_mark => Ok(()),
            0 => Err("record count of the frame header"),
            n if self.text_len < n => Err("record count of the frame header"),
            _ if self.first > self.last => Err("ULID range of the frame header"),
            _ => Ok(()),
        }
    }

    /// Checks the text against its checksum. `text` is what [`FrameHeader::text_span`] names.
    pub fn check_text(&self, text: &[u8]) -> Result<(), NotAFrame> {
        if crc32fast::hash(text) != self.text_crc {
            return Err(NotAFrame::Checksum("frame text"));
        }
        if text.last().is_some_and(|&b| b != b'\n') {
            return Err(NotAFrame::Malformed("frame text"));
        }
        Ok(())
    }

    /// Reads and checks the run table. `table` is what [`FrameHeader::table_span`] names.
    pub fn decode_table(&self, table: &[u8]) -> Result<RunTable, NotAFrame> {
        if crc32fast::hash(table) != self.table_crc {
            return Err(NotAFrame::Checksum("frame run table"));
        }
        if self.record_count == 0 {
            return Ok(RunTable::default());
        }
        let totals = (u64::from(self.record_count), u64::from(self.text_len));
        let table = RunTable::decode(table, totals.0, totals.1)
            .map_err(|_| NotAFrame::Malformed("frame run table"))?;
        if table.range() != Some((self.first, self.last)) {
            return Err(NotAFrame::Malformed("ULID range of the frame header"));
        }
        Ok(table)
    }

    /// Checks the whole frame at the start of `bytes`, which begins with this header.
    pub fn check_payload(&self, bytes: &[u8]) -> Result<RunTable, NotAFrame> {
        let text = bytes.get(self.text_span()).ok_or(NotAFrame::Truncated("frame text"))?;
        let table = bytes.get(self.table_span()).ok_or(NotAFrame::Truncated("frame run table"))?;
        self.check_text(text)?;
        self.decode_table(table)
    }
}

/// Where a finished frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlace {
    /// Life of the segment file.
    pub incarnation: u64,
    /// Number of the frame in the segment.
    pub number: u32,
    /// Whether it ends the segment.
    pub is_last: bool,
    /// Direct-I/O alignment, bytes; a power of two from [`ALIGNMENT_MIN`] to [`ALIGNMENT_MAX`].
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
    pub(super) fn end_mark(alignment_bytes: usize) -> Self {
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
    pub(super) fn add_topic(&mut self, topic: &Topic) -> u16 {
        self.table_bound += topic.as_str().len() + 1;
        self.table.topics.push(topic.clone());
        (self.table.topics.len() - 1) as u16
    }

    /// Appends whole lines as a run. The caller keeps to [`FrameBuffer::room`].
    pub(super) fn push(&mut self, text: &[u8], run: Run) {
        assert!(text.len() <= self.text_capacity - self.text_len, "a run fits its frame");
        debug_assert_eq!(run.text_len as usize, text.len());
        self.make_unique();
        let at = self.start + HEADER_BYTES + self.text_len;
        self.bytes_mut()[at..at + text.len()].copy_from_slice(text);
        self.text_len += text.len();
        self.record_count += u64::from(run.count);
        let runs = self.table.runs.len();
        self.table.push(run);
        self.table_bound += (self.table.runs.len() - runs) * RUN_BYTES_MAX;
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
            text_crc: crc32fast::hash(self.text()),
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
    pub(super) fn clear(&mut self) {
        self.text_len = 0;
        self.record_count = 0;
        self.len = 0;
        self.table.topics.clear();
        self.table.runs.clear();
        self.table_bound = TABLE_BASE_BYTES;
    }

    /// Whether no reader holds its memory.
    pub(super) fn is_unshared(&mut self) -> bool {
        Arc::get_mut(&mut self.bytes).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(lines: &[u8]) -> FrameBuffer {
        let mut frame = FrameBuffer::new(1000);
        let topic = frame.add_topic(&Topic::new(b"web").unwrap());
        let count = memchr::memchr_iter(b'\n', lines).count() as u32;
        let first = Ulid::from_parts(1_700_000_000_000, 0x0A_0B0C_0D0E, 7);
        frame.push(lines, Run { first, count, text_len: lines.len() as u32, topic });
        frame
    }

    const PLACE: FramePlace = FramePlace {
        incarnation: 0x1122_3344_5566_7788,
        number: 3,
        is_last: true,
        alignment_bytes: 512,
    };

    /// Sixteen bytes a line, as the worked examples of the format page show them.
    fn dump(bytes: &[u8]) -> String {
        let line = |(i, row): (usize, &[u8])| {
            let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
            format!("{:04x}  {}\n", i * 16, hex.join(" "))
        };
        bytes.chunks(16).enumerate().map(line).collect()
    }

    #[test]
    fn the_worked_examples_of_the_format_page_are_what_is_written() {
        const PAGE: &str = include_str!("../../../docs/format-ingest.md");
        let mut frame = frame(b"GET /\n\n");
        frame.finish(PLACE);
        let bytes = frame.as_bytes();
        assert_eq!((bytes.len(), &bytes[128..]), (512, &[0; 384][..]));
        assert!(PAGE.contains(&dump(&bytes[..128])), "frame:\n{}", dump(&bytes[..128]));
        let mut mark = FrameBuffer::end_mark(512);
        mark.finish(FramePlace { number: 4, ..PLACE });
        let mark = &mark.as_bytes()[..HEADER_BYTES];
        assert!(PAGE.contains(&dump(mark)), "end mark:\n{}", dump(mark));
        let place = crate::ingest::tail::ChunkPlace {
            incarnation: PLACE.incarnation,
            frame_number: 3,
            chunk_number: 0,
        };
        let chunk = crate::ingest::tail::encode_chunk(&place, frame.table(), frame.text());
        assert!(PAGE.contains(&dump(&chunk)), "tail chunk:\n{}", dump(&chunk));
    }

    #[test]
    fn a_buffer_shared_with_a_reader_is_copied_before_it_changes() {
        let mut frame = frame(b"one\n");
        let (shared, span) = frame.shared_text();
        frame.clear();
        let topic = frame.add_topic(&Topic::new(b"t").unwrap());
        let first = Ulid::from_parts(1, 1, 1);
        frame.push(b"two\n", Run { first, count: 1, text_len: 4, topic });
        assert_eq!(&shared[span], b"one\n");
        assert_eq!(frame.text(), b"two\n");
        let (shared, span) = frame.shared_text();
        frame.finish(PLACE);
        assert_eq!(&shared[span], b"two\n");
        assert_eq!(frame.as_bytes().as_ptr().align_offset(512), 0);
        let header = FrameHeader::decode(frame.as_bytes()).unwrap();
        assert_eq!(header.check_payload(frame.as_bytes()).as_ref(), Ok(frame.table()));
    }

    #[test]
    fn an_end_mark_is_a_frame_without_records() {
        let mut mark = FrameBuffer::end_mark(4096);
        mark.finish(FramePlace { alignment_bytes: 4096, ..PLACE });
        assert_eq!(mark.as_bytes().len(), 4096);
        let header = FrameHeader::decode(mark.as_bytes()).unwrap();
        assert_eq!((header.record_count, header.is_last), (0, true));
        assert_eq!(header.check_payload(mark.as_bytes()), Ok(RunTable::default()));
        let open = FrameHeader { is_last: false, ..header };
        assert!(matches!(FrameHeader::decode(&open.encode()), Err(NotAFrame::Malformed(_))));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_found() {
        let mut frame = frame(b"GET /\n\n");
        frame.finish(PLACE);
        for bit in 0..128 * 8 {
            let mut bytes = frame.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let checked = FrameHeader::decode(&bytes).and_then(|h| h.check_payload(&bytes));
            assert!(checked.is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_header_with_a_good_checksum_is_a_panic(
            fields in proptest::array::uniform32(any::<u8>()), tail in proptest::collection::vec(any::<u8>(), 0..200), wild: bool,
        ) {
            let mut frame = frame(b"GET /\n\n");
            frame.finish(PLACE);
            let mut bytes = frame.as_bytes().to_vec();
            for (i, field) in fields.into_iter().enumerate() {
                if wild || field < 60 {
                    bytes[6 + i * 2] = field;
                }
            }
            let crc = crc32fast::hash(&bytes[..92]);
            bytes[92..96].copy_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&tail);
            if let Ok(header) = FrameHeader::decode(&bytes) {
                let _ = header.check_payload(&bytes);
                prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
            }
        }
    }
}
