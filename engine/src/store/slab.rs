//! A slab: header, up to 1,024 blocks, block index, signature matrix, entry table, trailer. Self-contained and
//! position-independent (every offset counts from the slab's start), so that compaction copies it
//! as it is.
//!
//! Invariants: the slab's random id is in its header, in each block header, in the index and in
//! the trailer; header, blocks and sections start at the block alignment. The trailer's bytes
//! stand once more in the segment's footer: either of the two is enough to find everything.

use crate::damage::DamageKind;
use crate::limits::{
    BLOCK_ALIGNMENT, ENTRY_TABLE_BYTES_MAX, SLAB_BLOCKS_MAX, SLAB_INDEX_BYTES_MAX,
};
use crate::ulid::Ulid;

use super::fields::{Put, Take, ends_with_checksum};
use super::index::IndexBounds;

/// First bytes of a slab, and so of a store segment.
pub const SLAB_MAGIC: [u8; 8] = *b"\x89OKLSLB\n";
/// First bytes of a slab trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"\x89OKLEND\n";
/// Version of slab header and trailer.
pub const SLAB_VERSION: u16 = 1;
/// Length of a slab header, bytes.
pub const SLAB_HEADER_LEN: usize = 64;
/// Length of a slab trailer, bytes.
pub const TRAILER_LEN: usize = 192;

/// A slab header: the magic, the version, the id, zeros, a checksum.
pub fn encode_slab_header(slab_id: u64) -> Vec<u8> {
    let mut put = Put(Vec::with_capacity(SLAB_HEADER_LEN));
    put.bytes(&SLAB_MAGIC).u16(SLAB_VERSION).u16(0).u32(0).u64(slab_id);
    put.0.resize(SLAB_HEADER_LEN - 4, 0);
    put.checksum();
    put.0
}

/// Reads a slab header off the front of `bytes`: the slab's id.
pub fn decode_slab_header(bytes: &[u8]) -> Result<u64, DamageKind> {
    const SHORT: DamageKind = DamageKind::Truncated("slab header");
    let bytes = bytes.get(..SLAB_HEADER_LEN).ok_or(SHORT)?;
    let mut take = Take(bytes);
    if take.bytes(SLAB_MAGIC.len()) != Some(&SLAB_MAGIC) {
        return Err(DamageKind::Malformed("slab header"));
    }
    if !ends_with_checksum(bytes) {
        return Err(DamageKind::Checksum("slab header"));
    }
    let version = take.u16().ok_or(SHORT)?;
    if version != SLAB_VERSION {
        return Err(DamageKind::Version(version));
    }
    take.u16().and(take.u32()).and_then(|_| take.u64()).ok_or(SHORT)
}

/// Where a section lies in its slab.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Section {
    /// From the slab's start, bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// crc32 of them.
    pub crc: u32,
}

/// What a slab's trailer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlabTrailer {
    /// The slab's random id.
    pub slab_id: u64,
    /// The whole slab, trailer included, bytes.
    pub len: u64,
    /// Blocks.
    pub block_count: u32,
    /// Reserved, 0: later readers ignore what they do not know.
    pub flags: u32,
    /// Records.
    pub record_count: u64,
    /// Text, LFs included, bytes.
    pub text_bytes: u64,
    /// First record.
    pub first: Ulid,
    /// Last record.
    pub last: Ulid,
    /// The block index.
    pub index: Section,
    /// The signature matrix; empty when there is none. Its checksum covers those of its pages.
    pub signatures: Section,
    /// Rows of the matrix; 0 when there is none.
    pub signature_rows: u32,
    /// How grams are made and hashed; 0 when there is no matrix.
    pub signature_scheme: u32,
    /// How many entries each block holds; empty when that is not told.
    pub entries: Section,
}

impl SlabTrailer {
    /// The trailer as stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut put = Put(Vec::with_capacity(TRAILER_LEN));
        put.bytes(&TRAILER_MAGIC).u16(SLAB_VERSION).u16(0).u32(self.flags);
        put.u64(self.slab_id).u64(self.len).u32(self.block_count).u32(0);
        put.u64(self.record_count).u64(self.text_bytes).ulid(self.first).ulid(self.last);
        for section in [&self.index, &self.signatures] {
            put.u64(section.offset).u64(section.len).u32(section.crc);
        }
        put.u32(0).u32(self.signature_rows).u32(self.signature_scheme);
        put.u64(self.entries.offset).u64(self.entries.len).u32(self.entries.crc);
        put.0.resize(TRAILER_LEN - 4, 0);
        put.checksum();
        put.0
    }

    /// Reads a trailer off the front of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamageKind> {
        const SHORT: DamageKind = DamageKind::Truncated("slab trailer");
        let bytes = bytes.get(..TRAILER_LEN).ok_or(SHORT)?;
        let mut take = Take(bytes);
        if take.bytes(TRAILER_MAGIC.len()) != Some(&TRAILER_MAGIC) {
            return Err(DamageKind::Malformed("slab trailer"));
        }
        if !ends_with_checksum(bytes) {
            return Err(DamageKind::Checksum("slab trailer"));
        }
        let version = take.u16().ok_or(SHORT)?;
        if version != SLAB_VERSION {
            return Err(DamageKind::Version(version));
        }
        let trailer = Self::fields(&mut take).ok_or(SHORT)?;
        if trailer.is_possible() { Ok(trailer) } else { Err(DamageKind::Malformed("slab trailer")) }
    }

    fn fields(take: &mut Take<'_>) -> Option<Self> {
        let section = |take: &mut Take<'_>| {
            Some(Section { offset: take.u64()?, len: take.u64()?, crc: take.u32()? })
        };
        take.u16()?;
        let flags = take.u32()?;
        let (slab_id, len, block_count) = (take.u64()?, take.u64()?, take.u32()?);
        take.u32()?;
        let this = Self {
            slab_id,
            len,
            block_count,
            flags,
            record_count: take.u64()?,
            text_bytes: take.u64()?,
            first: take.ulid()?,
            last: take.ulid()?,
            index: section(take)?,
            signatures: section(take)?,
            signature_rows: take.u32().and_then(|_| take.u32())?,
            signature_scheme: take.u32()?,
            entries: section(take)?,
        };
        Some(this)
    }

    /// Whether the fields can be true together.
    fn is_possible(&self) -> bool {
        let aligned = |offset: u64| offset.is_multiple_of(BLOCK_ALIGNMENT as u64);
        let sections_end = self.len.checked_sub(TRAILER_LEN as u64);
        let inside = |section: &Section| {
            let end = section.offset.checked_add(section.len);
            aligned(section.offset)
                && section.offset >= SLAB_HEADER_LEN as u64
                && end.is_some_and(|end| sections_end.is_some_and(|max| end <= max))
        };
        aligned(self.len)
            && (1..=SLAB_BLOCKS_MAX as u32).contains(&self.block_count)
            && self.record_count >= u64::from(self.block_count)
            && self.text_bytes >= self.record_count
            && self.first <= self.last
            && self.index.len <= SLAB_INDEX_BYTES_MAX as u64
            && inside(&self.index)
            && inside(&self.signatures)
            && self.entries.len <= ENTRY_TABLE_BYTES_MAX as u64
            && (self.entries.len == 0 || inside(&self.entries))
            && self.is_in_order()
    }

    /// Whether sections that lie inside follow each other.
    const fn is_in_order(&self) -> bool {
        let Self { index, signatures, entries, .. } = self;
        index.offset + index.len <= signatures.offset
            && (entries.len == 0 || signatures.offset + signatures.len <= entries.offset)
    }

    /// What the slab's index must agree with.
    pub const fn index_bounds(&self) -> IndexBounds {
        IndexBounds {
            slab_id: self.slab_id,
            block_count: self.block_count,
            blocks_start: SLAB_HEADER_LEN as u64,
            blocks_end: self.index.offset,
            record_count: self.record_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trailer() -> SlabTrailer {
        SlabTrailer {
            slab_id: 5,
            len: 4096,
            block_count: 2,
            flags: 0,
            record_count: 10,
            text_bytes: 100,
            first: Ulid(7),
            last: Ulid(70),
            index: Section { offset: 1024, len: 300, crc: 1 },
            signatures: Section { offset: 1344, len: 0, crc: 0 },
            entries: Section { offset: 1344, len: 70, crc: 3 },
            ..SlabTrailer::default()
        }
    }

    #[test]
    fn a_trailer_round_trips_and_every_flipped_bit_is_noticed() {
        let bytes = trailer().encode();
        assert_eq!(bytes.len(), TRAILER_LEN);
        assert_eq!(SlabTrailer::decode(&bytes), Ok(trailer()));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SlabTrailer::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sections_outside_the_slab_are_refused() {
        let outside = [
            Section { offset: 4096, len: 0, crc: 0 },
            Section { offset: 1024, len: u64::MAX, crc: 0 },
            Section { offset: 1000, len: 1, crc: 0 },
            Section { offset: 0, len: 1, crc: 0 },
        ];
        for section in outside {
            let bytes = SlabTrailer { index: section, ..trailer() }.encode();
            assert!(SlabTrailer::decode(&bytes).is_err(), "{section:?}");
            let bytes = SlabTrailer { entries: section, ..trailer() }.encode();
            assert_eq!(SlabTrailer::decode(&bytes).is_ok(), section.len == 0, "{section:?}");
        }
    }

    #[test]
    fn sections_that_do_not_follow_each_other_are_refused() {
        let of = |index: u64, signatures: u64, entries: u64| {
            let mut trailer = trailer();
            (trailer.index.offset, trailer.entries.offset) = (index, entries);
            trailer.signatures = Section { offset: signatures, len: 100, crc: 0 };
            SlabTrailer::decode(&trailer.encode()).is_ok()
        };
        assert!(of(1024, 1344, 1472) && of(64, 384, 512));
        for (index, signatures, entries) in
            [(1024, 1280, 1472), (1472, 1344, 1792), (1024, 1344, 1408), (1024, 1344, 64)]
        {
            assert!(!of(index, signatures, entries), "{index} {signatures} {entries}");
        }
    }

    #[test]
    fn a_header_names_its_slab() {
        let bytes = encode_slab_header(0xfeed);
        assert_eq!(bytes.len(), SLAB_HEADER_LEN);
        assert_eq!(decode_slab_header(&bytes), Ok(0xfeed));
        assert!(decode_slab_header(&bytes[..63]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(mut bytes: Vec<u8>) {
            bytes.splice(..0, TRAILER_MAGIC);
            let _ = SlabTrailer::decode(&bytes);
            bytes.splice(..8, SLAB_MAGIC);
            let _ = decode_slab_header(&bytes);
        }
    }
}
