//! Record identity. A ULID of ours is 48-bit milliseconds ‖ 40-bit stream ‖ 40-bit counter, most
//! significant first, so that numeric order, byte order and the order of the 26-character text
//! form (Crockford base 32, <https://github.com/ulid/spec>) are one and the same.
//!
//! Invariants: a stream is one shard in one life of its process; its counter grows by one per
//! record across milliseconds and topics and is never reset, so `(stream, counter)` alone names a
//! record and a missing one is provable. Inside one stream milliseconds never go back.

use std::fmt;
use std::str::FromStr;

/// Crockford's base 32.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Bits of the counter and of the stream.
const PART_BITS: u32 = 40;
/// Largest stream id and largest counter.
pub const PART_MAX: u64 = (1 << PART_BITS) - 1;
/// Largest millisecond stamp: the year 10889.
pub const MS_MAX: u64 = (1 << 48) - 1;
/// Bytes of a ULID on disk (big-endian).
pub const ULID_BYTES: usize = 16;
/// Characters of a ULID as text.
pub const ULID_TEXT_LEN: usize = 26;

/// The identity of a record; see the module page for its layout.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ulid(pub u128);

impl Ulid {
    /// The smallest ULID.
    pub const MIN: Self = Self(0);
    /// The largest ULID.
    pub const MAX: Self = Self(u128::MAX);

    /// Joins the three parts; each is cut to its width.
    pub const fn from_parts(ms: u64, stream: u64, counter: u64) -> Self {
        Self(
            (((ms & MS_MAX) as u128) << (2 * PART_BITS))
                | (((stream & PART_MAX) as u128) << PART_BITS)
                | (counter & PART_MAX) as u128,
        )
    }

    /// The smallest ULID of a millisecond.
    pub const fn first_of_ms(ms: u64) -> Self {
        Self::from_parts(if ms > MS_MAX { MS_MAX } else { ms }, 0, 0)
    }

    /// The largest ULID of a millisecond.
    pub const fn last_of_ms(ms: u64) -> Self {
        Self::from_parts(if ms > MS_MAX { MS_MAX } else { ms }, PART_MAX, PART_MAX)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn ms(self) -> u64 {
        (self.0 >> (2 * PART_BITS)) as u64
    }

    /// The stream that numbered the record.
    pub const fn stream(self) -> u64 {
        (self.0 >> PART_BITS) as u64 & PART_MAX
    }

    /// The record's number in its stream.
    pub const fn counter(self) -> u64 {
        self.0 as u64 & PART_MAX
    }

    /// The ULID `n` records later in the same run. The caller stays inside the run, so the
    /// counter cannot overflow into the stream.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0 + n as u128)
    }

    /// Sixteen bytes, most significant first.
    pub const fn to_bytes(self) -> [u8; ULID_BYTES] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`Ulid::to_bytes`].
    pub const fn from_bytes(bytes: [u8; ULID_BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Writes the 26-character text form, without allocation.
    pub fn encode(self, out: &mut [u8; ULID_TEXT_LEN]) {
        let mut rest = self.0;
        for slot in out.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
    }

    /// The same where `out` holds the text of `before`: only characters that differ are written,
    /// one or two of neighbours.
    pub fn encode_over(self, before: Self, out: &mut [u8; ULID_TEXT_LEN]) {
        let (mut rest, mut changed) = (self.0, self.0 ^ before.0);
        for slot in out.iter_mut().rev() {
            if changed == 0 {
                return;
            }
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
            changed >>= 5;
        }
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ULID_TEXT_LEN];
        self.encode(&mut text);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({}ms {:x}#{})", self.ms(), self.stream(), self.counter())
    }
}

/// The text is not a ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAUlid;

impl fmt::Display for NotAUlid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a ULID: 26 characters of Crockford base 32 are expected")
    }
}

impl std::error::Error for NotAUlid {}

impl FromStr for Ulid {
    type Err = NotAUlid;

    fn from_str(text: &str) -> Result<Self, NotAUlid> {
        ::ulid::Ulid::from_string(text).map(|id| Self(id.0)).map_err(|_| NotAUlid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_of_a_known_ulid_is_pinned() {
        let id = Ulid::from_parts(1_700_000_000_000, 0x12_3456_789A, 42);
        assert_eq!(id.to_string(), ::ulid::Ulid(id.0).to_string());
        assert_eq!((id.ms(), id.stream(), id.counter()), (1_700_000_000_000, 0x12_3456_789A, 42));
    }

    proptest! {
        #[test]
        fn text_round_trips_and_agrees_with_the_ulid_crate(raw: u128) {
            let id = Ulid(raw);
            prop_assert_eq!(id.to_string(), ::ulid::Ulid(raw).to_string());
            prop_assert_eq!(id.to_string().parse::<Ulid>(), Ok(id));
        }

        #[test]
        fn text_written_over_that_of_another_is_the_same(before: u128, other: u128, bits in 0..128u32) {
            let id = Ulid(before ^ (other >> bits));
            let (mut over, mut whole) = ([0; ULID_TEXT_LEN], [0; ULID_TEXT_LEN]);
            Ulid(before).encode(&mut over);
            id.encode_over(Ulid(before), &mut over);
            id.encode(&mut whole);
            prop_assert_eq!(over, whole);
        }

        #[test]
        fn byte_text_and_numeric_order_agree(a: u128, b: u128) {
            let (a, b) = (Ulid(a), Ulid(b));
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
