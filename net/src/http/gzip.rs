//! A gzip body (RFC 1952): members one behind the other, decoded in bounded steps.
//!
//! What the format says is checked and what is wrong is named: a header that is none, a checksum or
//! a length that does not fit, bytes behind the last member. Zeros behind it are padding, as tape
//! drives and `gzip` itself have it.
//!
//! Invariants: a step puts out at most what there is room for; nothing is taken from the text of a
//! member whose checksum is wrong but what was handed out before its end was seen.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Why bytes are no gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GzipError {
    /// A member begins with something else than a header of gzip.
    Header,
    /// Its compressed data make no sense.
    Data,
    /// The text is not what was compressed: its CRC is another.
    Checksum,
    /// Or its length is.
    Length,
    /// Something stands behind the last member that is none, nor zeros.
    Garbage,
}

impl GzipError {
    /// Completes "the body is not valid gzip: …".
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Header => "it does not begin with a gzip header",
            Self::Data => "its compressed data are damaged",
            Self::Checksum => "the checksum (CRC) of what it unpacks to is wrong",
            Self::Length => "the length of what it unpacks to is wrong",
            Self::Garbage => "behind its last member stands something that is no gzip",
        }
    }
}

/// Bits of a header's flags.
const HAS_CRC: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xE0;

/// Where in the format the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The ten bytes with which a member begins; so many were seen.
    Fixed(usize),
    /// Two bytes of length, the low one first; which of them, and what is known.
    ExtraLength(u16, bool),
    /// So many bytes of extra data.
    Extra(u16),
    /// Text up to a zero.
    Name,
    /// The same.
    Comment,
    /// So many bytes of a header's checksum.
    HeaderCrc(u8),
    Data,
    /// The eight bytes with which a member ends; so many were seen.
    Trailer(usize),
    /// Behind a member.
    Between,
    /// Zeros up to the end.
    Padding,
}

/// See the module page.
pub(super) struct Gzip {
    place: Place,
    flags: u8,
    inflate: Decompress,
    crc: Crc,
    trailer: [u8; 8],
    /// Inside a member nothing has ended yet: behind its data more may come without more input.
    may_hold_more: bool,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Fixed(0),
            flags: 0,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            trailer: [0; 8],
            may_hold_more: false,
        }
    }

    /// Takes bytes from `input` and puts text into `out` until the one is empty or the other full.
    /// Says how much of `out` was filled.
    pub(super) fn step(&mut self, input: &mut &[u8], out: &mut [u8]) -> Result<usize, GzipError> {
        let mut made = 0;
        loop {
            if self.place == Place::Data {
                if made == out.len() || (input.is_empty() && !self.may_hold_more) {
                    return Ok(made);
                }
                made += self.inflate(input, &mut out[made..])?;
            } else {
                let Some((&byte, rest)) = input.split_first() else { return Ok(made) };
                *input = rest;
                self.place = self.framing(byte)?;
            }
        }
    }

    /// Whether a body may end here.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.place, Place::Between | Place::Padding)
    }

    fn inflate(&mut self, input: &mut &[u8], out: &mut [u8]) -> Result<usize, GzipError> {
        let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, out, FlushDecompress::None);
        let status = status.map_err(|_| GzipError::Data)?;
        let taken = (self.inflate.total_in() - taken) as usize;
        let made = (self.inflate.total_out() - made) as usize;
        *input = &input[taken..];
        self.crc.update(&out[..made]);
        self.may_hold_more = made == out.len();
        match status {
            Status::StreamEnd => self.place = Place::Trailer(0),
            // Otherwise its caller would go round for ever.
            _ if taken == 0 && made == 0 && !input.is_empty() => return Err(GzipError::Data),
            Status::Ok | Status::BufError => {}
        }
        Ok(made)
    }

    /// Reads one byte around the data.
    fn framing(&mut self, byte: u8) -> Result<Place, GzipError> {
        const FIXED: [u8; 3] = [0x1F, 0x8B, 8];
        Ok(match self.place {
            Place::Between | Place::Padding if byte == 0 => Place::Padding,
            Place::Between if byte == FIXED[0] => Place::Fixed(1),
            Place::Between | Place::Padding => return Err(GzipError::Garbage),
            Place::Fixed(at) => {
                let fits = match at {
                    0..=2 => byte == FIXED[at],
                    3 => byte & RESERVED == 0,
                    _ => true,
                };
                if !fits {
                    return Err(GzipError::Header);
                }
                if at == 3 {
                    self.flags = byte;
                }
                if at == 9 { self.behind_fixed() } else { Place::Fixed(at + 1) }
            }
            Place::ExtraLength(_, false) => Place::ExtraLength(byte.into(), true),
            Place::ExtraLength(low, true) => match u16::from(byte) << 8 | low {
                0 => self.behind_extra(),
                len => Place::Extra(len),
            },
            Place::Extra(1) => self.behind_extra(),
            Place::Extra(left) => Place::Extra(left - 1),
            Place::Name if byte == 0 => self.behind_name(),
            Place::Comment if byte == 0 => self.behind_comment(),
            Place::Name | Place::Comment => self.place,
            Place::HeaderCrc(1) => self.begin_data(),
            Place::HeaderCrc(left) => Place::HeaderCrc(left - 1),
            Place::Trailer(at) => {
                self.trailer[at] = byte;
                if at < 7 { Place::Trailer(at + 1) } else { self.check()? }
            }
            Place::Data => Place::Data,
        })
    }

    fn behind_fixed(&mut self) -> Place {
        if self.flags & HAS_EXTRA != 0 { Place::ExtraLength(0, false) } else { self.behind_extra() }
    }

    fn behind_extra(&mut self) -> Place {
        if self.flags & HAS_NAME != 0 { Place::Name } else { self.behind_name() }
    }

    fn behind_name(&mut self) -> Place {
        if self.flags & HAS_COMMENT != 0 { Place::Comment } else { self.behind_comment() }
    }

    fn behind_comment(&mut self) -> Place {
        if self.flags & HAS_CRC != 0 { Place::HeaderCrc(2) } else { self.begin_data() }
    }

    fn begin_data(&mut self) -> Place {
        self.inflate.reset(false);
        self.crc.reset();
        self.may_hold_more = false;
        Place::Data
    }

    fn check(&self) -> Result<Place, GzipError> {
        let trailer = u64::from_le_bytes(self.trailer);
        if trailer as u32 != self.crc.sum() {
            return Err(GzipError::Checksum);
        }
        if (trailer >> 32) as u32 != self.crc.amount() {
            return Err(GzipError::Length);
        }
        Ok(Place::Between)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn decode(body: &[u8], piece_len: usize) -> Result<(Vec<u8>, bool), GzipError> {
        let (mut gzip, mut all, mut out) = (Gzip::new(), Vec::new(), [0; 100]);
        for mut piece in body.chunks(piece_len) {
            loop {
                let made = gzip.step(&mut piece, &mut out)?;
                all.extend_from_slice(&out[..made]);
                if made == 0 && piece.is_empty() {
                    break;
                }
            }
        }
        Ok((all, gzip.is_whole()))
    }

    fn member(text: &[u8]) -> Vec<u8> {
        let mut writer = GzBuilder::new()
            .extra(&b"more"[..])
            .filename("name")
            .comment("said")
            .write(Vec::new(), Compression::default());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_wrong_is_told_and_padding_is_taken() {
        let text = b"some text, some more text\n".repeat(50);
        let good = member(&text);
        let end = good.len();
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] ^= byte;
            bad
        };
        let head = 10 + 2 + 4 + 5 + 5;
        // A kind of block that there is not.
        let mut bad_data = good.clone();
        bad_data[head] |= 0x06;
        // A checksum of the header, which nobody writes and nobody checks.
        let mut with_crc = good.clone();
        with_crc[3] |= HAS_CRC;
        with_crc.splice(head..head, [1, 2]);
        for (body, expected) in [
            (good.clone(), Ok((text.clone(), true))),
            (with_crc, Ok((text.clone(), true))),
            ([&good[..], &[0; 700]].concat(), Ok((text.clone(), true))),
            ([&good[..], &good[..]].concat(), Ok((text.repeat(2), true))),
            (good[..end - 1].to_vec(), Ok((text.clone(), false))),
            (good[..head].to_vec(), Ok((Vec::new(), false))),
            (Vec::new(), Ok((Vec::new(), false))),
            (with(end - 8, 1), Err(GzipError::Checksum)),
            (with(end - 1, 1), Err(GzipError::Length)),
            (with(0, 1), Err(GzipError::Header)),
            (with(2, 1), Err(GzipError::Header)),
            (with(3, 0x80), Err(GzipError::Header)),
            (bad_data, Err(GzipError::Data)),
            ([&good[..], b"x"].concat(), Err(GzipError::Garbage)),
            ([&good[..], &[0, 0, 0x1F]].concat(), Err(GzipError::Garbage)),
            ([&good[..], &[0x1F, 0]].concat(), Err(GzipError::Header)),
            (b"plain text\n".to_vec(), Err(GzipError::Header)),
        ] {
            for piece_len in [1, 3, 1 << 20] {
                assert_eq!(decode(&body, piece_len), expected, "in pieces of {piece_len}");
            }
        }
    }
}
