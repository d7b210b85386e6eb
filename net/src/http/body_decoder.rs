//! Content codings of request bodies, decoded in bounded steps.
//!
//! Invariants: one step puts out at most [`DECODE_STEP_BYTES`] whatever the input claims, so a
//! small body that unpacks to a huge one never occupies more than a step; a body that ends
//! inside its coding is an error.

use std::fmt;
use std::io;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::gzip::{Gzip, GzipError};
use crate::limits::{
    DECODE_STEP_BYTES, DECODER_WINDOW_BYTES_MAX, GZIP_DECODER_BYTES, ZSTD_WINDOW_LOG_MAX,
};

/// Decodes one body.
pub(super) enum BodyDecoder {
    Identity,
    Gzip(Box<Gzip>),
    Zstd { decoder: Box<Decoder<'static>>, place: ZstdPlace },
}

/// Where a zstd body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZstdPlace {
    /// Nothing has come.
    Start,
    /// In a frame.
    Frame,
    /// Behind a frame.
    Between,
    /// Zeros up to the end.
    Padding,
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// The coding is not one of ours; names it.
    Unknown(String),
    /// The bytes are not gzip.
    Gzip(GzipError),
    /// The bytes are not of the coding.
    Broken(&'static str, io::Error),
    /// Something stands behind the last frame of zstd that is none, nor zeros.
    ZstdGarbage,
    /// The body ends too early.
    Truncated(&'static str),
    /// The decoder takes nothing more.
    Stuck,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(
                    f,
                    "Content-Encoding: {name:?} is not valid; valid is identity, gzip or zstd"
                )
            }
            Self::Gzip(error) => write!(f, "the body is not valid gzip: {}", error.words()),
            Self::ZstdGarbage => f.write_str(
                "the body is not valid zstd: behind its last frame stands something that is no zstd",
            ),
            Self::Broken(name, error) => write!(f, "the body is not valid {name}: {error}"),
            Self::Stuck => f.write_str("the body cannot be decoded further"),
            Self::Truncated(name) => write!(f, "the body ends before its {name} stream does"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl BodyDecoder {
    /// What it may hold beside a step, bytes: a window, and the blocks or tables that go with it.
    pub(super) const fn window_bytes(&self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip(_) => GZIP_DECODER_BYTES,
            Self::Zstd { .. } => DECODER_WINDOW_BYTES_MAX,
        }
    }

    /// For the value of `Content-Encoding`.
    pub(super) fn new(coding: &str) -> Result<Self, DecodeError> {
        match coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(Gzip::new()))),
            "zstd" => {
                let broken = |error| DecodeError::Broken("zstd", error);
                let mut decoder = Decoder::new().map_err(broken)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .map_err(broken)?;
                Ok(Self::Zstd { decoder: Box::new(decoder), place: ZstdPlace::Start })
            }
            _ => Err(DecodeError::Unknown(coding.chars().take(80).collect())),
        }
    }

    /// Whether bodies stay as they are.
    pub(super) const fn is_identity(&self) -> bool {
        matches!(self, Self::Identity)
    }

    /// Decodes some of `input`, removes that from it, and leaves the result in `out`, which is
    /// cleared first. To be called until `input` is empty and `out` stays empty.
    pub(super) fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        out.clear();
        let given = input.len();
        match self {
            Self::Identity => {
                let (now, later) = input.split_at(input.len().min(DECODE_STEP_BYTES));
                out.extend_from_slice(now);
                *input = later;
            }
            Self::Gzip(gzip) => {
                out.resize(DECODE_STEP_BYTES, 0);
                let made = gzip.step(input, out).map_err(DecodeError::Gzip)?;
                out.truncate(made);
            }
            Self::Zstd { decoder, place } => {
                if matches!(place, ZstdPlace::Between | ZstdPlace::Padding) {
                    *place = skip_padding(*place, input)?;
                }
                out.resize(DECODE_STEP_BYTES, 0);
                let mut source = InBuffer::around(input);
                let mut target = OutBuffer::around(out.as_mut_slice());
                if !source.src.is_empty() || *place == ZstdPlace::Frame {
                    let hint = decoder
                        .run(&mut source, &mut target)
                        .map_err(|error| DecodeError::Broken("zstd", error))?;
                    *place = if hint == 0 { ZstdPlace::Between } else { ZstdPlace::Frame };
                }
                let (used, made) = (source.pos(), target.pos());
                out.truncate(made);
                *input = &input[used..];
            }
        }
        if given > 0 && input.len() == given && out.is_empty() {
            // Neither decoder does this; if one did, its caller would go round for ever.
            return Err(DecodeError::Stuck);
        }
        Ok(())
    }

    /// Checks that the body is whole.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self {
            Self::Zstd { place: ZstdPlace::Frame, .. } => Err(DecodeError::Truncated("zstd")),
            Self::Gzip(gzip) if !gzip.is_whole() => Err(DecodeError::Truncated("gzip")),
            Self::Identity | Self::Zstd { .. } | Self::Gzip(_) => Ok(()),
        }
    }
}

/// Removes the zeros behind a frame of zstd. Only zeros may follow the first, and only a frame
/// may follow a frame otherwise: each begins with a byte that tells.
fn skip_padding(place: ZstdPlace, input: &mut &[u8]) -> Result<ZstdPlace, DecodeError> {
    let zeros = input.iter().take_while(|&&byte| byte == 0).count();
    *input = &input[zeros..];
    let is_padding = place == ZstdPlace::Padding || zeros > 0;
    match (is_padding, input.first()) {
        (false, None | Some(0x28 | 0x50..=0x5F)) => Ok(ZstdPlace::Between),
        (true, None) => Ok(ZstdPlace::Padding),
        _ => Err(DecodeError::ZstdGarbage),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
        match coding {
            "gzip" => gzip(bytes),
            "zstd" => zstd::encode_all(bytes, 1).unwrap(),
            _ => bytes.to_vec(),
        }
    }

    fn decode(coding: &str, body: &[u8], piece_len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = BodyDecoder::new(coding)?;
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for mut piece in body.chunks(piece_len) {
            loop {
                decoder.step(&mut piece, &mut out)?;
                assert!(out.len() <= DECODE_STEP_BYTES, "{coding}: {}", out.len());
                all.extend_from_slice(&out);
                if piece.is_empty() && out.is_empty() {
                    break;
                }
            }
        }
        decoder.finish()?;
        Ok(all)
    }

    #[test]
    fn bodies_come_back_whatever_their_coding_and_pieces() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for coding in ["", "identity", "gzip", "zstd"] {
            for piece_len in [1 << 20, 1000, 7] {
                let body =
                    encode(coding, &plain[..if piece_len == 7 { 20_000 } else { plain.len() }]);
                let expected = &plain[..if piece_len == 7 { 20_000 } else { plain.len() }];
                assert_eq!(decode(coding, &body, piece_len).unwrap(), expected, "{coding}");
            }
        }
    }

    #[test]
    fn several_members_or_frames_are_one_body() {
        for coding in ["gzip", "zstd"] {
            let body = [encode(coding, b"one\n"), encode(coding, b""), encode(coding, b"two\n")];
            assert_eq!(decode(coding, &body.concat(), 5).unwrap(), b"one\ntwo\n", "{coding}");
        }
    }

    #[test]
    fn zeros_behind_a_body_are_padding_and_anything_else_is_named() {
        for coding in ["gzip", "zstd"] {
            let body = encode(coding, b"some lines\nof text\n");
            for piece_len in [1, 7, 1 << 20] {
                let padded = [&body[..], &[0; 600]].concat();
                assert_eq!(decode(coding, &padded, piece_len).unwrap(), b"some lines\nof text\n");
                for garbage in [&b"x"[..], b"\0\0x", b"\0\x1F\x8B", b"\0\x28\xB5\x2F\xFD", b"GET /"]
                {
                    let bad = [&body[..], garbage].concat();
                    let error = decode(coding, &bad, piece_len).unwrap_err().to_string();
                    assert!(error.contains("behind its last"), "{coding}: {error}");
                }
            }
        }
        let mut body = encode("gzip", b"text\n");
        let at = body.len() - 8;
        body[at] ^= 1;
        assert!(decode("gzip", &body, 9).unwrap_err().to_string().contains("checksum (CRC)"));
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(b"text\n").unwrap();
        let mut body = encoder.finish().unwrap();
        let at = body.len() - 1;
        body[at] ^= 1;
        assert!(decode("zstd", &body, 9).unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn a_bomb_comes_out_in_steps() {
        let plain = vec![b'\n'; 20 << 20];
        for coding in ["gzip", "zstd"] {
            assert_eq!(
                decode(coding, &encode(coding, &plain), 1 << 20).unwrap().len(),
                plain.len()
            );
        }
    }

    proptest::proptest! {
        /// Changed and cut bodies, in pieces: each step stays bounded and the end comes.
        #[test]
        fn fuzz_bodies(
            coding in proptest::sample::select(vec!["gzip", "zstd", "identity"]),
            text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3_000),
            repeats in 1..20usize,
            changes in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), 0..=255u8),
                0..4,
            ),
            kept in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
            piece_len in 1..700usize,
        ) {
            let text = text.repeat(repeats);
            let whole = encode(coding, &text);
            let mut body = whole.clone();
            for (at, byte) in changes.iter().filter(|_| !whole.is_empty()) {
                body[at.index(whole.len())] = *byte;
            }
            body.truncate(kept.map_or(whole.len(), |kept| kept.index(whole.len() + 1)));
            let decoded = decode(coding, &body, piece_len);
            if body == whole {
                proptest::prop_assert_eq!(decoded.unwrap(), text);
            } else if let Ok(decoded) = decoded {
                // A checksum may be changed to what it was, or not be there at all (zstd).
                proptest::prop_assert!(decoded.len() <= 64 << 20);
            }
        }
    }

    #[test]
    fn flipped_bytes_end_one_way_or_the_other() {
        for coding in ["gzip", "zstd"] {
            let body = encode(coding, b"some lines\nof text\n");
            for at in 0..body.len() {
                for flip in [1, 0x80, 0xFF] {
                    let mut body = body.clone();
                    body[at] ^= flip;
                    let longest = 1 << 20;
                    assert!(decode(coding, &body, 4).map_or(true, |all| all.len() < longest));
                }
            }
        }
    }

    #[test]
    fn cut_and_broken_bodies_are_refused_at_every_length() {
        for coding in ["gzip", "zstd"] {
            let body = encode(coding, b"some lines\nof text\n");
            for len in 1..body.len() {
                assert!(decode(coding, &body[..len], 4).is_err(), "{coding} {len}");
            }
            assert!(decode(coding, b"neither of both", 4).is_err());
        }
        assert!(matches!(BodyDecoder::new("br"), Err(DecodeError::Unknown(_))));
    }
}
