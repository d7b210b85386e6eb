//! Order-independent fingerprints of many records.
//!
//! Each record is hashed to 128 bits; the hashes are added up. Two collections with equal count,
//! bytes and sum hold the same records the same number of times, whatever their order: a missing,
//! a duplicated or an altered record changes the sum (a sum, unlike an exclusive or, also sees
//! pairs). The hash is two lanes of 64 × 64 → 128 bit multiplication in the manner of wyhash
//! (<https://github.com/wangyi-fudan/wyhash>): strong against chance, not against malice.

use memchr::memchr;

const KEYS: [u64; 4] =
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

/// Count, bytes and sum of hashes of a collection of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest {
    pub(crate) records: u64,
    /// Bytes of the records without their newlines.
    pub(crate) bytes: u64,
    sum: u128,
}

impl Digest {
    /// Takes one record, without its newline.
    #[inline]
    pub(crate) fn add(&mut self, record: &[u8]) {
        self.records += 1;
        self.bytes += record.len() as u64;
        self.sum = self.sum.wrapping_add(hash(record));
    }

    /// The fingerprint as hexadecimal text, for reports.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// 128 bits that name a record.
#[inline]
pub(crate) fn hash(record: &[u8]) -> u128 {
    let (mut low, mut high) = (KEYS[0], KEYS[1] ^ record.len() as u64);
    let (blocks, rest) = record.as_chunks::<16>();
    for block in blocks {
        (low, high) = step(low, high, *block);
    }
    if !rest.is_empty() {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        (low, high) = step(low, high, block);
    }
    let low_end = multiply(low ^ KEYS[2], high ^ KEYS[3]);
    let high_end = multiply(high ^ KEYS[0] ^ record.len() as u64, low ^ KEYS[2]);
    (u128::from(high_end) << 64) | u128::from(low_end)
}

#[inline]
fn step(low: u64, high: u64, block: [u8; 16]) -> (u64, u64) {
    let block = u128::from_le_bytes(block);
    let (first, second) = (block as u64, (block >> 64) as u64);
    (
        multiply(first ^ KEYS[2] ^ low, second ^ KEYS[3]).wrapping_add(high),
        multiply(second ^ KEYS[0] ^ high, first ^ KEYS[1]).wrapping_add(low.rotate_left(29)),
    )
}

#[inline]
fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Cuts a stream of bytes into records as a node does: at newlines, and a line longer than the
/// largest record every so many bytes. What is behind the last newline is a record too.
#[derive(Debug)]
pub(crate) struct RecordCutter {
    rest: Vec<u8>,
    record_bytes_max: usize,
}

impl RecordCutter {
    pub(crate) const fn new(record_bytes_max: usize) -> Self {
        Self { rest: Vec::new(), record_bytes_max }
    }

    /// Takes the next bytes and hands out the records that are complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.rest.is_empty() && end <= self.record_bytes_max {
                each(&bytes[..end]);
            } else {
                self.extend(&bytes[..end], each);
                each(&self.rest);
                self.rest.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes, each);
    }

    /// Hands out the unfinished last line, if there is one.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(&[u8])) {
        if !self.rest.is_empty() {
            each(&self.rest);
            self.rest.clear();
        }
    }

    /// Adds bytes of one line; more than a record's worth of it is handed out at once.
    fn extend(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        while self.rest.len() + bytes.len() > self.record_bytes_max {
            let take = self.record_bytes_max - self.rest.len();
            self.rest.extend_from_slice(&bytes[..take]);
            each(&self.rest);
            self.rest.clear();
            bytes = &bytes[take..];
        }
        self.rest.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest_of(records: &[Vec<u8>]) -> Digest {
        let mut digest = Digest::default();
        for record in records {
            digest.add(record);
        }
        digest
    }

    proptest! {
        #[test]
        fn order_does_not_matter_but_every_record_does(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..50),
            index: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let whole = digest_of(&records);
            let mut reversed = records.clone();
            reversed.reverse();
            prop_assert_eq!(whole, digest_of(&reversed));

            let at = index.index(records.len());
            let mut missing = records.clone();
            missing.remove(at);
            prop_assert_ne!(whole.sum, digest_of(&missing).sum);

            let mut duplicated = records.clone();
            duplicated.push(records[at].clone());
            prop_assert_ne!(whole.sum, digest_of(&duplicated).sum);

            let mut altered = records.clone();
            if let Some(byte) = altered[at].last_mut() {
                *byte ^= 1 << bit;
                prop_assert_ne!(whole.sum, digest_of(&altered).sum);
            }
        }

        #[test]
        fn records_are_cut_alike_however_the_bytes_arrive(
            bytes in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..60),
            cut in 1usize..9,
            record_bytes_max in 1usize..5,
        ) {
            let mut expected: Vec<Vec<u8>> = Vec::new();
            let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            let last = lines.pop().unwrap_or_default();
            for line in lines {
                if line.is_empty() {
                    expected.push(Vec::new());
                }
                expected.extend(line.chunks(record_bytes_max).map(<[u8]>::to_vec));
            }
            expected.extend(last.chunks(record_bytes_max).map(<[u8]>::to_vec));

            let mut cutter = RecordCutter::new(record_bytes_max);
            let mut found: Vec<Vec<u8>> = Vec::new();
            for piece in bytes.chunks(cut) {
                cutter.push(piece, &mut |record| found.push(record.to_vec()));
            }
            cutter.finish(&mut |record| found.push(record.to_vec()));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn swapping_bytes_between_records_is_seen() {
        let (a, b) = (vec![b"ab".to_vec(), b"cd".to_vec()], vec![b"ac".to_vec(), b"bd".to_vec()]);
        assert_ne!(digest_of(&a).sum, digest_of(&b).sum);
        assert_ne!(hash(b""), hash(b"\0"));
        assert_ne!(hash(&[0; 16]), hash(&[0; 32]));
    }
}
