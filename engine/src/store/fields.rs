//! Fixed-width little-endian fields, as all headers and the footer of a store segment use them.
//! ULIDs and identities of 128 bits are big-endian, so that their bytes sort like their values.
//! The reader says `None` at the end and never panics. Small files of them are read whole.

use std::io;
use std::path::Path;

use crate::damage::DamageKind;
use crate::storage::{Open, Storage};
use crate::ulid::{ULID_BYTES, Ulid};

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Put(pub(crate) Vec<u8>);

impl Put {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn ulid(&mut self, value: Ulid) -> &mut Self {
        self.bytes(&value.to_bytes())
    }

    pub(crate) fn u128(&mut self, value: u128) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends the checksum of everything before it.
    pub(crate) fn checksum(&mut self) -> &mut Self {
        let crc = crc32fast::hash(&self.0);
        self.u32(crc)
    }
}

/// Takes fields off the front of bytes.
#[derive(Debug)]
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn ulid(&mut self) -> Option<Ulid> {
        self.array::<ULID_BYTES>().map(Ulid::from_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }
}

/// Whether the last four bytes are the checksum of those before them.
pub(crate) fn ends_with_checksum(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<4>()
        .is_some_and(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(*crc))
}

/// The fields of a small file: behind its magic and version, to be taken up to its checksum, which holds.
/// `part` says what it is, for people.
pub(crate) fn decode_small<'a, T>(
    bytes: &'a [u8],
    (magic, version): (&[u8; 8], u16),
    part: &'static str,
    take_fields: impl FnOnce(&mut Take<'a>) -> Option<T>,
) -> Result<T, DamageKind> {
    let mut take = Take(bytes);
    if take.bytes(magic.len()) != Some(magic) {
        return Err(DamageKind::Malformed(part));
    }
    if !ends_with_checksum(bytes) {
        return Err(DamageKind::Checksum(part));
    }
    let found = take.u16().ok_or(DamageKind::Malformed(part))?;
    if found != version {
        return Err(DamageKind::Version(found));
    }
    take_fields(&mut take).filter(|_| take.0.len() == 4).ok_or(DamageKind::Malformed(part))
}

/// The bytes of a file that has at most so many, or what is wrong with it; `None`: there is none. `part`
/// says what it is, for people.
pub(crate) fn read_small(
    storage: &dyn Storage,
    path: &Path,
    bytes_max: u64,
    part: &'static str,
) -> io::Result<Option<Result<Vec<u8>, DamageKind>>> {
    let file = match storage.open(path, Open::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let len = file.len()?;
    if len > bytes_max {
        return Ok(Some(Err(DamageKind::Malformed(part))));
    }
    let mut bytes = vec![0; len as usize];
    match file.read_exact_at(&mut bytes, 0) {
        // It has become shorter meanwhile.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Some(Err(DamageKind::Truncated(part))))
        }
        read => read.map(|()| Some(Ok(bytes))),
    }
}

/// The next multiple of the block alignment.
pub(crate) const fn aligned(len: u64) -> u64 {
    len.next_multiple_of(crate::limits::BLOCK_ALIGNMENT as u64)
}
