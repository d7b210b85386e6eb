//! The bit matrix of a slab: a row for each hash of a gram, a column for each block.
//!
//! Bit-sliced: the bits of a row lie side by side, so that a query reads one short piece of memory
//! per gram however many blocks there are. Row `r` of `n` blocks is bits `r n` to `r n + n - 1`,
//! counted from the lowest bit of the first byte; so a matrix of one block is a plain bitmap.
//! Behind the rows stands the crc32 of each of their pages of 4 KiB, so that reading a few rows
//! verifies a few pages.
//!
//! Invariants: the number of rows is [`SIGNATURE_ROWS_MAX`] over a power of two, the largest that
//! keeps the matrix within its share of what the slab takes; hostile lengths are refused before
//! anything is read; a page is believed only after its checksum was verified, in this state of its file.

use std::ops::Range;

use crate::bitmap::Bitmap;
use crate::damage::DamageKind;
use crate::limits::{SIGNATURE_ROWS_MAX, SLAB_BLOCKS_MAX};

use super::grams::BlockSignature;

/// How grams are made, hashed and laid out: this module and its neighbours.
pub const SIGNATURE_SCHEME: u32 = 1;
/// Fewest rows: those of three words.
const ROWS_MIN: usize = SIGNATURE_ROWS_MAX >> 10;
/// A matrix is folded until it is about as full as this: below, its bits are not worth their place.
const FULL_PERCENT: u64 = 25;
/// Bytes that one checksum covers.
const PAGE_BYTES: usize = 4 << 10;
const CRC_BYTES: usize = 4;
const NAME: &str = "signature matrix";

/// Collects the signatures of a slab's blocks.
#[derive(Default)]
pub struct MatrixBuilder {
    blocks: Vec<BlockSignature>,
}

/// A matrix as it is stored.
#[derive(Debug, Default)]
pub struct StoredMatrix {
    /// Rows.
    pub rows: u32,
    /// Rows and checksums of their pages.
    pub bytes: Vec<u8>,
    /// crc32 of the checksums.
    pub crc: u32,
}

impl MatrixBuilder {
    /// Adds the next block, which is whole lines.
    pub fn push(&mut self, text: &[u8]) {
        self.blocks.push(BlockSignature::of_text(text));
    }

    /// The matrix of a slab whose blocks take so many bytes, of which it may have so many percent;
    /// `None` where even the smallest would be too much.
    pub fn finish(mut self, stored_bytes: u64, percent: u64) -> Option<StoredMatrix> {
        let count = self.blocks.len();
        let bits_max = stored_bytes * 8 * percent / 100;
        let mut rows = SIGNATURE_ROWS_MAX;
        while rows > ROWS_MIN && ((rows * count) as u64 > bits_max || self.is_sparse(rows)) {
            self.blocks.iter_mut().for_each(BlockSignature::fold);
            rows /= 2;
        }
        if count == 0 || (rows * count) as u64 > bits_max {
            return None;
        }
        let mut bytes = self.transposed(rows);
        let crcs: Vec<u8> =
            bytes.chunks(PAGE_BYTES).flat_map(|page| crc32fast::hash(page).to_le_bytes()).collect();
        bytes.extend_from_slice(&crcs);
        Some(StoredMatrix { rows: rows as u32, bytes, crc: crc32fast::hash(&crcs) })
    }

    /// Whether half the rows would not be too full.
    fn is_sparse(&self, rows: usize) -> bool {
        let set: u64 = self.blocks.iter().map(BlockSignature::count).sum();
        // At worst no two bits fall together.
        2 * set * 100 <= (rows * self.blocks.len()) as u64 * FULL_PERCENT
    }

    fn transposed(self, rows: usize) -> Vec<u8> {
        let mut out = BitWriter::with_capacity((rows * self.blocks.len()).div_ceil(8));
        let mut tiles: Vec<[u64; 64]> = vec![[0; 64]; self.blocks.len().div_ceil(64)];
        for word in 0..rows / 64 {
            for (tile, blocks) in tiles.iter_mut().zip(self.blocks.chunks(64)) {
                tile.fill(0);
                for (to, block) in tile.iter_mut().zip(blocks) {
                    *to = block.words()[word];
                }
                transpose(tile);
            }
            for row in 0..64 {
                for (tile, blocks) in tiles.iter().zip(self.blocks.chunks(64)) {
                    out.push(tile[row], blocks.len() as u32);
                }
            }
        }
        out.finish()
    }
}

/// Swaps rows and columns of 64 × 64 bits (Warren, Hacker's Delight, §7-3).
fn transpose(tile: &mut [u64; 64]) {
    let (mut width, mut mask) = (32, u64::MAX >> 32);
    while width > 0 {
        for at in (0..64).filter(|at| at & width == 0) {
            let swapped = (tile[at] >> width ^ tile[at + width]) & mask;
            tile[at] ^= swapped << width;
            tile[at + width] ^= swapped;
        }
        width /= 2;
        mask ^= mask << width;
    }
}

/// Bits side by side, lowest first.
struct BitWriter {
    bytes: Vec<u8>,
    open: u64,
    open_bits: u32,
}

impl BitWriter {
    fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + 8), open: 0, open_bits: 0 }
    }

    /// Appends the lowest `count` bits (1 to 64); the others are zero.
    fn push(&mut self, bits: u64, count: u32) {
        self.open |= bits << self.open_bits;
        let together = self.open_bits + count;
        if together < u64::BITS {
            self.open_bits = together;
            return;
        }
        self.bytes.extend_from_slice(&self.open.to_le_bytes());
        self.open = bits.checked_shr(u64::BITS - self.open_bits).unwrap_or(0);
        self.open_bits = together - u64::BITS;
    }

    fn finish(mut self) -> Vec<u8> {
        let rest = self.open_bits.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.open.to_le_bytes()[..rest]);
        self.bytes
    }
}

/// How a matrix is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    blocks: usize,
    /// How often the rows were halved.
    folded: u32,
    /// Bytes of the rows.
    len: usize,
}

impl Shape {
    /// That of a section of so many bytes that a trailer describes.
    pub fn new(section_len: u64, rows: u32, blocks: u32) -> Result<Self, DamageKind> {
        let (rows, blocks) = (rows as usize, blocks as usize);
        if !is_possible(rows, blocks) {
            return Err(DamageKind::Malformed(NAME));
        }
        let folded = (SIGNATURE_ROWS_MAX / rows).trailing_zeros();
        let shape = Self { blocks, folded, len: (rows * blocks).div_ceil(8) };
        if section_len != (shape.len + shape.pages() * CRC_BYTES) as u64 {
            return Err(DamageKind::Malformed(NAME));
        }
        Ok(shape)
    }

    const fn pages(&self) -> usize {
        self.len.div_ceil(PAGE_BYTES)
    }

    /// Bits that remember what of it was verified: one for the checksums, one for each page.
    pub const fn verified_bits(&self) -> usize {
        1 + self.pages()
    }

    /// Bytes of the section that asking these rows reads: checksums, and the pages of the rows, each with
    /// its bit among [`Shape::verified_bits`].
    pub fn spans_of(&self, rows: &[usize]) -> impl Iterator<Item = (usize, Range<usize>)> {
        let crcs = self.len..self.len + self.pages() * CRC_BYTES;
        let pages = rows.iter().map(|row| (row >> self.folded) * self.blocks / 8 / PAGE_BYTES);
        let span = |page: usize| page * PAGE_BYTES..self.len.min((page + 1) * PAGE_BYTES);
        std::iter::once((0, crcs)).chain(pages.map(move |page| (1 + page, span(page))))
    }
}

/// What was verified of a matrix.
enum Verified<'a> {
    Now(Bitmap),
    /// Its bits start at some bit of what is remembered of the whole segment.
    Ever(&'a Bitmap, usize),
}

impl Verified<'_> {
    const fn at(&self, bit: usize) -> (&Bitmap, usize) {
        match self {
            Self::Now(bits) => (bits, bit),
            Self::Ever(bits, start) => (bits, *start + bit),
        }
    }
}

/// A matrix of a mapped slab.
pub struct Matrix<'a> {
    /// The rows.
    bytes: &'a [u8],
    crcs: &'a [u8],
    crc: u32,
    shape: Shape,
    verified: Verified<'a>,
}

impl<'a> Matrix<'a> {
    /// The matrix of a section that a trailer describes, with its checksums verified.
    pub fn new(section: &'a [u8], crc: u32, rows: u32, blocks: u32) -> Result<Self, DamageKind> {
        let shape = Shape::new(section.len() as u64, rows, blocks)?;
        let verified = Verified::Now(Bitmap::new(shape.verified_bits()));
        Self::of_shape(section, crc, shape, verified)
    }

    /// The same where its bits of `verified`, from bit `start` on, tell what need not be verified
    /// again.
    pub(crate) fn remembered(
        section: &'a [u8],
        crc: u32,
        shape: Shape,
        (verified, start): (&'a Bitmap, usize),
    ) -> Result<Self, DamageKind> {
        Self::of_shape(section, crc, shape, Verified::Ever(verified, start))
    }

    fn of_shape(
        section: &'a [u8],
        crc: u32,
        shape: Shape,
        verified: Verified<'a>,
    ) -> Result<Self, DamageKind> {
        let (bytes, crcs) =
            section.split_at_checked(shape.len).ok_or(DamageKind::Truncated(NAME))?;
        let this = Self { bytes, crcs, crc, shape, verified };
        this.verify_once(0, || crc32fast::hash(this.crcs) == this.crc)?;
        Ok(this)
    }

    /// Blocks.
    pub const fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Which of the 64 blocks from block `from` on may hold a gram, given by its row among
    /// [`SIGNATURE_ROWS_MAX`]; bits behind the last block mean nothing.
    pub fn row(&self, row: usize, from: usize) -> Result<u64, DamageKind> {
        let start = (row >> self.shape.folded) * self.shape.blocks + from;
        let end = start + (self.shape.blocks - from).min(64);
        for page in start / 8 / PAGE_BYTES..=(end - 1) / 8 / PAGE_BYTES {
            self.verify(page)?;
        }
        Ok(read_bits(self.bytes, start))
    }

    /// Verifies all of it.
    pub fn verify_all(&self) -> Result<(), DamageKind> {
        (0..self.shape.pages()).try_for_each(|page| self.verify(page))
    }

    fn verify(&self, page: usize) -> Result<(), DamageKind> {
        self.verify_once(1 + page, || {
            let start = page * PAGE_BYTES;
            let bytes = &self.bytes[start..self.bytes.len().min(start + PAGE_BYTES)];
            let crc = self.crcs.get(page * CRC_BYTES..(page + 1) * CRC_BYTES);
            crc == Some(&crc32fast::hash(bytes).to_le_bytes())
        })
    }

    fn verify_once(&self, bit: usize, is_whole: impl FnOnce() -> bool) -> Result<(), DamageKind> {
        let (verified, bit) = self.verified.at(bit);
        if !verified.get(bit) {
            if !is_whole() {
                return Err(DamageKind::Checksum(NAME));
            }
            verified.set(bit);
        }
        Ok(())
    }
}

/// Whether a matrix can have so many rows and blocks.
pub fn is_possible(rows: usize, blocks: usize) -> bool {
    let folded = SIGNATURE_ROWS_MAX.checked_div(rows).unwrap_or(0);
    folded.is_power_of_two()
        && rows >= ROWS_MIN
        && folded * rows == SIGNATURE_ROWS_MAX
        && (1..=SLAB_BLOCKS_MAX).contains(&blocks)
}

/// Sixty-four bits from bit `at` on; zeros behind the end.
fn read_bits(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at / 8..).unwrap_or_default();
    let low = if let Some(low) = rest.first_chunk() {
        u64::from_le_bytes(*low)
    } else {
        let mut buffer = [0; 8];
        buffer[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(buffer)
    };
    let high = rest.get(8).map_or(0, |&byte| u64::from(byte));
    let shift = at % 8;
    // Twice, for a shift by all 64 bits is none.
    low >> shift | high << (63 - shift) << 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::grams::rows_of_literal;
    use proptest::prelude::*;

    fn text(block: usize, words: usize) -> Vec<u8> {
        let word = |n: usize| format!("{:08x} ", (block * 7919 + n).wrapping_mul(0x9E37_79B9));
        (0..words).map(word).collect::<String>().into_bytes()
    }

    fn stored(blocks: usize, words: usize, stored_bytes: u64) -> Option<StoredMatrix> {
        let mut builder = MatrixBuilder::default();
        (0..blocks).for_each(|block| builder.push(&text(block, words)));
        builder.finish(stored_bytes, 10)
    }

    fn open(stored: &StoredMatrix, blocks: usize) -> Matrix<'_> {
        Matrix::new(&stored.bytes, stored.crc, stored.rows, blocks as u32).unwrap()
    }

    #[test]
    fn what_is_told_to_be_read_for_some_rows_is_what_they_read() {
        let blocks = 32;
        let stored = stored(blocks, 4_000, 16 << 20).unwrap();
        let shape = Shape::new(stored.bytes.len() as u64, stored.rows, blocks as u32).unwrap();
        let rows: Vec<usize> = rows_of_literal(b"deadbeefcafe").collect();
        let told: Vec<_> = shape.spans_of(&rows).collect();
        assert!(told.len() == 1 + rows.len() && shape.pages() > 100);
        // Everything else may be anything.
        let mut bytes = vec![0xA5; stored.bytes.len()];
        for (_, span) in &told {
            bytes[span.clone()].copy_from_slice(&stored.bytes[span.clone()]);
        }
        let verified = Bitmap::new(shape.verified_bits());
        let matrix = Matrix::remembered(&bytes, stored.crc, shape, (&verified, 0)).unwrap();
        assert!(rows.iter().all(|&row| matrix.row(row, 0).is_ok()));
        assert!(told.iter().all(|(bit, _)| verified.get(*bit)));
    }

    #[test]
    fn rows_say_which_blocks_hold_a_gram_however_many_blocks_there_are() {
        for blocks in [1, 2, 7, 63, 64, 65, 130, 200] {
            let stored = stored(blocks, 200, 1 << 40).unwrap();
            let matrix = open(&stored, blocks);
            for block in 0..blocks {
                let rows: Vec<usize> = rows_of_literal(&text(block, 200)).collect();
                let mut found = Vec::new();
                for from in (0..blocks).step_by(64) {
                    let row = |&row| matrix.row(row, from).unwrap();
                    let bits = rows.iter().map(row).fold(u64::MAX, |bits, row| bits & row);
                    let real = (from..blocks).take(64);
                    found.extend(real.filter(|block| bits >> (block - from) & 1 == 1));
                }
                assert_eq!(found, [block], "of {blocks}");
            }
        }
    }

    #[test]
    fn a_matrix_keeps_to_its_share_or_is_left_out() {
        let large = stored(10, 5_000, 1 << 40).unwrap();
        let bytes = 100_000;
        let small = stored(10, 5_000, bytes).unwrap();
        assert!(small.rows < large.rows);
        assert!(small.bytes.len() as u64 <= bytes * 11 / 100);
        assert!(stored(10, 5_000, 10).is_none() && stored(0, 0, 1 << 40).is_none());
        let sparse = stored(10, 3, 1 << 40).unwrap();
        assert_eq!(sparse.rows as usize, ROWS_MIN, "{} rows for few grams", sparse.rows);
    }

    #[test]
    fn every_flipped_byte_is_noticed_and_hostile_shapes_are_refused() {
        let stored = stored(5, 40, 1 << 40).unwrap();
        for at in 0..stored.bytes.len() {
            let mut bytes = stored.bytes.clone();
            bytes[at] ^= 0x10;
            let opened = Matrix::new(&bytes, stored.crc, stored.rows, 5);
            assert!(opened.and_then(|matrix| matrix.verify_all()).is_err(), "byte {at}");
        }
        let refused = |rows, blocks| Matrix::new(&stored.bytes, stored.crc, rows, blocks).is_err();
        assert!(!refused(stored.rows, 5));
        for (rows, blocks) in [(0, 5), (1, 5), (stored.rows, 0), (stored.rows, 6), (u32::MAX, 1)] {
            assert!(refused(rows, blocks), "{rows} × {blocks}");
        }
        assert!(refused(stored.rows, u32::MAX));
    }

    proptest! {
        #[test]
        fn transposing_swaps_rows_and_columns(words in proptest::collection::vec(any::<u64>(), 64)) {
            let before: [u64; 64] = words.try_into().unwrap();
            let mut after = before;
            transpose(&mut after);
            for (row, bits) in before.iter().enumerate() {
                for (column, swapped) in after.iter().enumerate() {
                    prop_assert_eq!(bits >> column & 1, swapped >> row & 1);
                }
            }
        }

        #[test]
        fn bits_are_read_as_they_were_written(
            pieces in proptest::collection::vec((any::<u64>(), 1..=64u32), 0..20),
        ) {
            let mut writer = BitWriter::with_capacity(0);
            let cut = |bits: u64, count: u32| bits & (u64::MAX >> (64 - count));
            for &(bits, count) in &pieces {
                writer.push(cut(bits, count), count);
            }
            let bytes = writer.finish();
            let mut at = 0;
            for (bits, count) in pieces {
                prop_assert_eq!(cut(read_bits(&bytes, at), count), cut(bits, count));
                at += count as usize;
            }
            prop_assert_eq!(bytes.len(), at.div_ceil(8));
        }
    }
}
