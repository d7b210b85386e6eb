//! How text and run tables are stored: as they are, or as one zstd frame.
//!
//! Invariants: what zstd makes hardly smaller is stored as it is, so that reading it costs nothing;
//! encoding and decoding allocate nothing once their buffers have grown to the size of a block
//! (run tables apart, which are few); decoding never writes more than the length that it was told
//! and fails unless it is exactly that. Checksums are elsewhere: they are of the bytes as stored,
//! so that what is decoded here was verified before.

use std::fmt;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{compress_bound, get_frame_content_size};

use crate::decoded::{DecodedText, Decoders};
use crate::limits::{PACKED_TABLE_BYTES_MIN, RUN_TABLE_BYTES_MAX};
use crate::run_table::RunTable;

/// Codec id: the bytes as they are.
pub const CODEC_NONE: u8 = 0;
/// Codec id: one zstd frame that says its content's length.
pub const CODEC_ZSTD: u8 = 1;

/// How a writer stores what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// zstd of this level, 1 to 19, where it makes a block smaller.
    Zstd(u8),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

/// A block's two parts as they are stored.
#[derive(Debug)]
pub(super) struct Encoded<'a> {
    pub(super) table_codec: u8,
    pub(super) table: &'a [u8],
    pub(super) codec: u8,
    pub(super) text: &'a [u8],
}

/// Encodes block after block with the same context and buffers.
pub(super) struct Encoder {
    /// `None`: nothing is compressed.
    compressor: Option<Compressor<'static>>,
    table: Vec<u8>,
    packed_table: Vec<u8>,
    packed_text: Vec<u8>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// A level that zstd refuses stores everything as it is.
    pub(super) fn new(compression: Compression) -> Self {
        let compressor = match compression {
            Compression::None => None,
            Compression::Zstd(level) => Compressor::new(i32::from(level)).ok(),
        };
        let [table, packed_table, packed_text] = [const { Vec::new() }; 3];
        Self { compressor, table, packed_table, packed_text }
    }

    /// A block as it is to be stored.
    pub(super) fn encode<'a>(&'a mut self, table: &RunTable, text: &'a [u8]) -> Encoded<'a> {
        self.table.clear();
        table.encode(&mut self.table);
        let Self { compressor, table, packed_table, packed_text } = self;
        let (mut table_codec, mut codec) = (CODEC_NONE, CODEC_NONE);
        if let Some(compressor) = compressor {
            let is_long = table.len() > PACKED_TABLE_BYTES_MIN;
            if is_long && pack(compressor, table, packed_table) <= table.len() / 4 * 3 {
                table_codec = CODEC_ZSTD;
            }
            if pack(compressor, text, packed_text) <= text.len() / 16 * 15 {
                codec = CODEC_ZSTD;
            }
        }
        Encoded {
            table_codec,
            table: if table_codec == CODEC_ZSTD { packed_table } else { table },
            codec,
            text: if codec == CODEC_ZSTD { packed_text } else { text },
        }
    }
}

/// Compresses; says into how many bytes. What zstd does not take does not get smaller.
fn pack(compressor: &mut Compressor<'_>, raw: &[u8], into: &mut Vec<u8>) -> usize {
    into.clear();
    into.reserve(compress_bound(raw.len()));
    compressor.compress_to_buffer(raw, into).unwrap_or(usize::MAX)
}

/// Bytes are not what was encoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotDecodable;

/// Decodes a text of exactly `len` bytes.
pub(super) fn decode_text(
    decoders: &Decoders,
    stored: &[u8],
    len: usize,
) -> Result<DecodedText, NotDecodable> {
    if content_size(stored) != Some(len) {
        return Err(NotDecodable);
    }
    decoders.text(len, |buffer| unpack(decoders, stored, (len, buffer)))
}

/// Decodes a run table, whose length the frame itself says.
pub(super) fn decode_table(decoders: &Decoders, stored: &[u8]) -> Result<Vec<u8>, NotDecodable> {
    let len = content_size(stored).filter(|&len| len <= RUN_TABLE_BYTES_MAX);
    let len = len.ok_or(NotDecodable)?;
    let mut table = Vec::with_capacity(len);
    unpack(decoders, stored, (len, &mut table))?;
    Ok(table)
}

/// What a frame says of its content, before anything is allocated for it.
fn content_size(stored: &[u8]) -> Option<usize> {
    usize::try_from(get_frame_content_size(stored).ok()??).ok()
}

/// Writes at most as much as the buffer has room for; fails unless it was `len` bytes.
fn unpack(
    decoders: &Decoders,
    stored: &[u8],
    (len, buffer): (usize, &mut Vec<u8>),
) -> Result<(), NotDecodable> {
    match decoders.unpack(stored, buffer) {
        Ok(written) if written == len => Ok(()),
        _ => Err(NotDecodable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_table::Run;
    use crate::topic::Topic;
    use crate::ulid::Ulid;
    use proptest::prelude::*;

    fn decode_text(stored: &[u8], len: usize) -> Result<DecodedText, NotDecodable> {
        super::decode_text(&Decoders::default(), stored, len)
    }

    fn decode_table(stored: &[u8]) -> Result<Vec<u8>, NotDecodable> {
        super::decode_table(&Decoders::default(), stored)
    }

    fn table(runs: u64) -> RunTable {
        let mut table = RunTable::default();
        table.topics.push(Topic::new(b"t").unwrap());
        for n in 0..runs {
            let first = Ulid::from_parts(1_700_000_000_000 + n, 1, n * 3);
            table.runs.push(Run { first, count: 3, text_len: 40, topic: 0 });
        }
        table
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 1).unwrap()
    }

    #[test]
    fn what_is_encoded_decodes_with_every_level() {
        let text = b"a line like any other\n".repeat(5000);
        let runs = table(5000);
        let mut raw = Vec::new();
        runs.encode(&mut raw);
        for level in [1, 3, 19] {
            let mut encoder = Encoder::new(Compression::Zstd(level));
            for _ in 0..2 {
                let encoded = encoder.encode(&runs, &text);
                assert_eq!((encoded.codec, encoded.table_codec), (CODEC_ZSTD, CODEC_ZSTD));
                assert!(encoded.text.len() < text.len() / 100);
                assert_eq!(&*decode_text(encoded.text, text.len()).unwrap(), text);
                assert_eq!(decode_table(encoded.table).unwrap(), raw);
            }
        }
        let mut encoder = Encoder::new(Compression::None);
        let encoded = encoder.encode(&runs, &text);
        assert_eq!((encoded.codec, encoded.table_codec), (CODEC_NONE, CODEC_NONE));
        assert!(encoded.text == text && encoded.table == raw);
    }

    #[test]
    fn what_gets_hardly_smaller_and_short_tables_are_stored_as_they_are() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(100_000)
        .collect();
        let mut encoder = Encoder::new(Compression::Zstd(1));
        let encoded = encoder.encode(&table(100), &noise);
        assert_eq!((encoded.codec, encoded.table_codec), (CODEC_NONE, CODEC_NONE));
        assert!(encoded.text == noise);
    }

    #[test]
    fn a_frame_that_holds_more_or_less_than_it_should_is_refused() {
        let packed = zstd(&[b'x'; 1000]);
        assert_eq!(&*decode_text(&packed, 1000).unwrap(), [b'x'; 1000]);
        for len in [0, 1, 999, 1001, 17 << 20] {
            assert!(decode_text(&packed, len).is_err(), "{len}");
        }
        // A bomb behind what was promised, and one that promises too much.
        let two = [packed, zstd(&vec![0; 200 << 20])].concat();
        assert!(decode_text(&two, 1000).is_err());
        assert!(decode_table(&two).is_err());
        assert!(decode_table(&zstd(&vec![0; RUN_TABLE_BYTES_MAX + 1])).is_err());
        // A frame that does not say its length, and what is no frame.
        let silent = zstd::stream::encode_all(&[b'x'; 1000][..], 1).unwrap();
        assert!(matches!(get_frame_content_size(&silent), Ok(None)));
        assert!(decode_text(&silent, 1000).is_err() && decode_table(&silent).is_err());
        assert!(decode_text(b"", 0).is_err() && decode_table(b"no frame").is_err());
    }

    proptest! {
        #[test]
        fn texts_round_trip(lines in proptest::collection::vec("[ab]{0,30}", 1..200)) {
            let text = lines.join("\n").into_bytes();
            let mut encoder = Encoder::new(Compression::default());
            let encoded = encoder.encode(&table(1), &text);
            if encoded.codec == CODEC_ZSTD {
                let decoded = decode_text(encoded.text, text.len()).unwrap();
                prop_assert_eq!(&*decoded, &text[..]);
            } else {
                prop_assert_eq!(encoded.text, &text[..]);
            }
        }

        #[test]
        fn no_changed_byte_makes_decoding_panic(at: prop::sample::Index, to: u8) {
            let mut packed = zstd(&b"some text that repeats, repeats, repeats\n".repeat(50));
            let at = at.index(packed.len());
            packed[at] = to;
            let _ = decode_text(&packed, 2050);
            let _ = decode_table(&packed);
        }
    }
}
