//! What stands in a spool file: its header, and entries of a header and lines.
//!
//! See `docs/format-spool.md`. Invariants: a header that passes its own checksum has lengths
//! within bounds; bytes are decoded here and nowhere else.

use crate::limits::SPOOL_ENTRY_BYTES_MAX;

/// First bytes of a spool file.
pub(super) const FILE_MAGIC: [u8; 8] = *b"OKLSPOOL";
/// First bytes of an entry.
pub(super) const ENTRY_MAGIC: [u8; 4] = *b"OKSE";
/// Length of a file's header, bytes.
pub(super) const FILE_HEADER_BYTES: u64 = 32;
/// Length of an entry's header, bytes.
pub(super) const ENTRY_HEADER_BYTES: usize = 48;
/// Version of the format.
pub(super) const VERSION: u16 = 1;

const STARTS_LINE: u32 = 1;
const ENDS_LINE: u32 = 2;

/// Header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) number: u64,
    /// Lines that ended before it since the spool was made.
    pub(super) lines_before: u64,
    pub(super) lines: u64,
    pub(super) len_bytes: u32,
    pub(super) payload_crc: u32,
    pub(super) starts_line: bool,
    pub(super) ends_line: bool,
}

impl EntryHeader {
    /// Header and payload, bytes.
    pub(super) const fn total_bytes(&self) -> u64 {
        ENTRY_HEADER_BYTES as u64 + self.len_bytes as u64
    }

    pub(super) fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut out = [0; ENTRY_HEADER_BYTES];
        let flags =
            u32::from(self.starts_line) * STARTS_LINE + u32::from(self.ends_line) * ENDS_LINE;
        out[..4].copy_from_slice(&ENTRY_MAGIC);
        out[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.len_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.lines_before.to_le_bytes());
        out[32..40].copy_from_slice(&self.lines.to_le_bytes());
        out[40..44].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[..4] != ENTRY_MAGIC || crc32fast::hash(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        let flags = u32_at(bytes, 40);
        let header = Self {
            payload_crc: u32_at(bytes, 8),
            len_bytes: u32_at(bytes, 12),
            number: u64_at(bytes, 16),
            lines_before: u64_at(bytes, 24),
            lines: u64_at(bytes, 32),
            starts_line: flags & STARTS_LINE != 0,
            ends_line: flags & ENDS_LINE != 0,
        };
        let in_bounds = header.len_bytes as usize <= SPOOL_ENTRY_BYTES_MAX
            && header.lines <= u64::from(header.len_bytes)
            && header.number < u64::MAX
            && header.lines_before.checked_add(header.lines).is_some()
            && flags <= STARTS_LINE + ENDS_LINE;
        in_bounds.then_some(header)
    }
}

/// The header of a spool file.
pub(super) fn file_header(sequence: u64) -> [u8; FILE_HEADER_BYTES as usize] {
    let mut out = [0; FILE_HEADER_BYTES as usize];
    out[..8].copy_from_slice(&FILE_MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32fast::hash(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What the first bytes of a file say: its version, where they are whole.
pub(super) fn file_version(bytes: &[u8]) -> Option<u16> {
    let bytes: &[u8; FILE_HEADER_BYTES as usize] = bytes.first_chunk()?;
    let whole = bytes[..8] == FILE_MAGIC && crc32fast::hash(&bytes[..28]) == u32_at(bytes, 28);
    whole.then(|| u16::from_le_bytes([bytes[8], bytes[9]]))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_none_without_panic(bytes: Vec<u8>) {
            let _ = (EntryHeader::decode(&bytes), file_version(&bytes));
        }

        #[test]
        fn a_header_comes_back_and_no_flipped_bit_goes_unseen(
            number in 0..u64::MAX, lines in 0..10u64, starts: bool, ends: bool, bit in 0..ENTRY_HEADER_BYTES * 8,
        ) {
            let header = EntryHeader {
                number, lines_before: 7, lines, len_bytes: 10, payload_crc: 3,
                starts_line: starts, ends_line: ends,
            };
            let mut bytes = header.encode();
            prop_assert_eq!(EntryHeader::decode(&bytes), Some(header));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(EntryHeader::decode(&bytes), None);
        }
    }
}
