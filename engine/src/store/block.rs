//! A block: the checksummed unit of a store segment. Header, run table, text, zeros up to the
//! block alignment; `docs/format-store.md` §6 has the byte table.
//!
//! Invariants: a block holds whole lines and is self-describing: its run table has a topic
//! dictionary of its own; text and table have checksums of their own, so that a table can be
//! read alone; the header names the slab (by a random id) and its number in it, so that text that
//! looks like a header is never taken for one.

use std::borrow::Cow;

use crate::damage::DamageKind;
use crate::decoded::{DecodedText, Decoders};
use crate::limits::{CHUNK_TEXT_MAX, RUN_TABLE_BYTES_MAX};
use crate::run_table::RunTable;
use crate::ulid::Ulid;

use super::codec::{self, CODEC_NONE, CODEC_ZSTD};
use super::fields::{Put, Take, aligned, ends_with_checksum};

/// First bytes of a block header.
pub const BLOCK_MAGIC: [u8; 8] = *b"\x89OKLBLK\n";
/// Version of the block header.
pub const BLOCK_VERSION: u16 = 1;
/// Length of a block header, bytes.
pub const BLOCK_HEADER_LEN: usize = 96;

/// Flag: the text holds a character beyond ASCII that without regard to case is an ASCII letter
/// (U+212A, U+017F), which the block's signature does not know as such.
pub const BLOCK_FOLD_EXTRAS: u16 = 1;

/// What a block header says, which the slab's index repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The slab it belongs to.
    pub slab_id: u64,
    /// Its place in the slab, from 0.
    pub number: u32,
    /// How the text is encoded.
    pub codec: u8,
    /// How the run table is encoded.
    pub table_codec: u8,
    /// [`BLOCK_FOLD_EXTRAS`]; the others are reserved, 0: readers ignore what they do not know.
    pub flags: u16,
    /// Records.
    pub record_count: u32,
    /// Runs in the table.
    pub run_count: u32,
    /// Topics in the table's dictionary.
    pub topic_count: u32,
    /// Text when decoded, LFs included, bytes.
    pub text_len: u32,
    /// Text as stored, bytes.
    pub encoded_len: u32,
    /// Run table as stored, bytes.
    pub table_len: u32,
    /// First record.
    pub first: Ulid,
    /// Last record.
    pub last: Ulid,
    /// crc32 of the text as stored.
    pub text_crc: u32,
    /// crc32 of the run table as stored.
    pub table_crc: u32,
}

impl BlockHeader {
    /// The header as stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut put = Put(Vec::with_capacity(BLOCK_HEADER_LEN));
        put.bytes(&BLOCK_MAGIC).u16(BLOCK_VERSION).u8(self.codec).u8(self.table_codec);
        put.u16(self.flags).u16(0).u64(self.slab_id).u32(self.number);
        put.u32(self.record_count).u32(self.run_count).u32(self.topic_count);
        put.u32(self.text_len).u32(self.encoded_len).u32(self.table_len);
        put.ulid(self.first).ulid(self.last);
        put.u32(self.text_crc).u32(self.table_crc).checksum();
        assert_eq!(put.0.len(), BLOCK_HEADER_LEN);
        put.0
    }

    /// Reads a header off the front of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamageKind> {
        const SHORT: DamageKind = DamageKind::Truncated("block header");
        let bytes = bytes.get(..BLOCK_HEADER_LEN).ok_or(SHORT)?;
        let mut take = Take(bytes);
        if take.bytes(BLOCK_MAGIC.len()) != Some(&BLOCK_MAGIC) {
            return Err(DamageKind::Malformed("block header"));
        }
        if !ends_with_checksum(bytes) {
            return Err(DamageKind::Checksum("block header"));
        }
        let version = take.u16().ok_or(SHORT)?;
        if version != BLOCK_VERSION {
            return Err(DamageKind::Version(version));
        }
        let header = Self::fields(&mut take).ok_or(SHORT)?;
        header.validate().map(|()| header)
    }

    fn fields(take: &mut Take<'_>) -> Option<Self> {
        let (codec, table_codec, flags, _) = (take.u8()?, take.u8()?, take.u16()?, take.u16()?);
        Some(Self {
            codec,
            table_codec,
            flags,
            slab_id: take.u64()?,
            number: take.u32()?,
            record_count: take.u32()?,
            run_count: take.u32()?,
            topic_count: take.u32()?,
            text_len: take.u32()?,
            encoded_len: take.u32()?,
            table_len: take.u32()?,
            first: take.ulid()?,
            last: take.ulid()?,
            text_crc: take.u32()?,
            table_crc: take.u32()?,
        })
    }

    /// Whether the fields can be true together. Lengths beyond the file are for the caller, who
    /// knows the file.
    pub fn validate(&self) -> Result<(), DamageKind> {
        let possible = self.record_count > 0
            && self.run_count > 0
            && self.run_count <= self.record_count
            && self.text_len >= self.record_count
            && self.text_len as usize <= CHUNK_TEXT_MAX
            && self.encoded_len as usize <= CHUNK_TEXT_MAX
            && (self.codec != CODEC_NONE || self.encoded_len == self.text_len)
            && self.table_len as usize <= RUN_TABLE_BYTES_MAX
            && self.first <= self.last;
        if possible { Ok(()) } else { Err(DamageKind::Malformed("block header")) }
    }

    /// Bytes of header, table and text, without the padding.
    pub const fn used_len(&self) -> u64 {
        BLOCK_HEADER_LEN as u64 + self.table_len as u64 + self.encoded_len as u64
    }

    /// Bytes that the block takes in its slab.
    pub const fn stored_len(&self) -> u64 {
        aligned(self.used_len())
    }

    /// Whether this program can decode it.
    pub fn check_codecs(&self) -> Result<(), DamageKind> {
        match (self.codec, self.table_codec) {
            (CODEC_NONE | CODEC_ZSTD, CODEC_NONE | CODEC_ZSTD) => Ok(()),
            _ => Err(DamageKind::Unsupported("a codec of a later version")),
        }
    }

    /// Verifies and reads the run table.
    pub fn decode_table(&self, decoders: &Decoders, stored: &[u8]) -> Result<RunTable, DamageKind> {
        self.check_codecs()?;
        if crc32fast::hash(stored) != self.table_crc {
            return Err(DamageKind::Checksum("run table"));
        }
        let (records, text_len) = (u64::from(self.record_count), u64::from(self.text_len));
        let malformed = DamageKind::Malformed("run table");
        let table = match self.table_codec {
            CODEC_ZSTD => {
                let table = codec::decode_table(decoders, stored);
                Cow::Owned(table.map_err(|_| malformed.clone())?)
            }
            _ => Cow::Borrowed(stored),
        };
        let table = RunTable::decode(&table, records, text_len).map_err(|_| malformed)?;
        let agrees = table.range() == Some((self.first, self.last))
            && table.runs.len() == self.run_count as usize
            && table.topics.len() == self.topic_count as usize;
        if agrees { Ok(table) } else { Err(DamageKind::Malformed("run table")) }
    }

    /// Decodes a text that is stored as zstd. It was verified before, or is verified after.
    pub fn decode_text(
        &self,
        decoders: &Decoders,
        stored: &[u8],
    ) -> Result<DecodedText, DamageKind> {
        codec::decode_text(decoders, stored, self.text_len as usize)
            .map_err(|_| DamageKind::Malformed("text of a block"))
    }

    /// Verifies the text as stored.
    pub fn check_text(&self, stored: &[u8]) -> Result<(), DamageKind> {
        self.check_codecs()?;
        if crc32fast::hash(stored) == self.text_crc {
            Ok(())
        } else {
            Err(DamageKind::Checksum("text of a block"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> BlockHeader {
        BlockHeader {
            slab_id: 0x1122_3344_5566_7788,
            number: 7,
            codec: CODEC_NONE,
            table_codec: CODEC_NONE,
            flags: 0,
            record_count: 10,
            run_count: 2,
            topic_count: 1,
            text_len: 300,
            encoded_len: 300,
            table_len: 21,
            first: Ulid::from_parts(1_700_000_000_000, 1, 5),
            last: Ulid::from_parts(1_700_000_000_001, 1, 14),
            text_crc: 1,
            table_crc: 2,
        }
    }

    #[test]
    fn a_header_round_trips_and_is_padded_to_the_alignment() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), BLOCK_HEADER_LEN);
        assert_eq!(BlockHeader::decode(&bytes), Ok(header()));
        assert_eq!((header().used_len(), header().stored_len()), (417, 448));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn codecs_of_later_versions_are_refused_by_name() {
        let later = BlockHeader { codec: 2, encoded_len: 99, ..header() };
        assert_eq!(BlockHeader::decode(&later.encode()), Ok(later), "the container knows it");
        assert!(matches!(later.check_text(b""), Err(DamageKind::Unsupported(_))));
        let later = BlockHeader { table_codec: 9, ..header() };
        assert!(matches!(
            later.decode_table(&Decoders::default(), b""),
            Err(DamageKind::Unsupported(_))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(mut bytes: Vec<u8>) {
            let _ = BlockHeader::decode(&bytes);
            bytes.splice(..0, BLOCK_MAGIC);
            let _ = BlockHeader::decode(&bytes);
        }
    }
}
