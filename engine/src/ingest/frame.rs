//! Frames: the checksummed unit of an ingest segment, and the buffer that a shard fills with one.
//!
//! A frame is a 96-byte header, text, run table, zero padding up to the alignment of direct I/O;
//! `docs/format-ingest.md` §3 has it byte by byte. A tail chunk is the same without padding.
//!
//! Invariants: the header is believed only behind its checksum, text and table only behind theirs;
//! lengths are bounded before anything is allocated or sliced.

mod buffer;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::limits::{CHUNK_TEXT_MAX, RUN_TABLE_BYTES_MAX};
use crate::run_table::RunTable;
use crate::ulid::{ULID_BYTES, Ulid};

pub use buffer::{FrameBuffer, FramePlace, frame_len_max};

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
