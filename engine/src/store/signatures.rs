//! The signatures of an open segment's slabs: where they lie, and asking all of them.
//!
//! Invariants: only blocks that a signature which is whole rules out are left out; a page is
//! verified once in each state of the file ([`Checked`]); asking allocates a bit per block,
//! however many slabs there are.

use std::ops::Range;

use crate::checked::Checked;
use crate::search::required::Required;
use crate::signature::{Bits, Filter, Matrix, Rows, SIGNATURE_SCHEME, Shape};
use crate::storage::Map;

use super::block::BLOCK_FOLD_EXTRAS;
use super::blocks::OpenSlab;

/// Rows that are asked of most blocks before they are ruled out.
const ROWS_AHEAD: usize = 6;

/// One slab's.
#[derive(Debug)]
pub(super) struct SlabSignatures {
    /// The section in the file, bytes.
    offset: u64,
    len: u64,
    crc: u32,
    /// `None`: the trailer describes none that is possible.
    shape: Option<Shape>,
    /// Its first bit in [`Checked::signatures`].
    first_bit: usize,
    /// The slab's blocks among those of the segment.
    blocks: Range<usize>,
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    /// Of those slabs that have one which this program reads.
    pub(super) slabs: Vec<SlabSignatures>,
    /// Blocks with characters that without regard to case are `k` or `s` but are other bytes.
    fold_extras: Option<Bits>,
    verified_bits: usize,
}

impl Signatures {
    /// Those of some slabs; `flags` are those of their blocks.
    pub(super) fn of(slabs: &[OpenSlab], flags: impl ExactSizeIterator<Item = u16>) -> Self {
        let mut this = Self::default();
        let mut extras = Bits::none(flags.len());
        let flagged = flags.enumerate().filter(|(_, flags)| flags & BLOCK_FOLD_EXTRAS != 0);
        flagged.for_each(|(block, _)| extras.insert(block));
        this.fold_extras = (!extras.is_empty()).then_some(extras);
        this.slabs.reserve_exact(slabs.len());
        for slab in slabs {
            let Some(trailer) = slab.trailer.filter(|_| slab.is_indexed) else { continue };
            let section = trailer.signatures;
            if section.len == 0 || trailer.signature_scheme != SIGNATURE_SCHEME {
                continue;
            }
            let shape =
                Shape::new(section.len, trailer.signature_rows, slab.blocks.len() as u32).ok();
            this.slabs.push(SlabSignatures {
                offset: slab.offset.saturating_add(section.offset),
                len: section.len,
                crc: section.crc,
                shape,
                first_bit: this.verified_bits,
                blocks: slab.blocks.clone(),
            });
            this.verified_bits += shape.map_or(0, |shape| shape.verified_bits());
        }
        this
    }

    /// What it takes in memory, bytes; what was verified is counted with those of the segment.
    pub(super) fn memory_bytes(&self) -> usize {
        let extras = self.fold_extras.as_ref().map_or(0, Bits::memory_bytes);
        self.slabs.capacity() * size_of::<SlabSignatures>() + extras
    }

    /// Bits that remember what of them was verified.
    pub(super) const fn verified_bits(&self) -> usize {
        self.verified_bits
    }

    /// Which of the blocks, which are those of whole slabs, may hold what is required; and the span
    /// of a signature that was found damaged, if one was.
    pub(super) fn candidates(
        &self,
        file: &Map,
        checked: &Checked,
        (blocks, required): (&Range<usize>, &Required),
    ) -> (Bits, Option<Range<u64>>) {
        let rows = Rows::of(required);
        let mut found = Bits::all(blocks.len());
        let mut bad = None;
        let is_asked = |of: &Range<usize>| of.start >= blocks.start && of.end <= blocks.end;
        let asked = || self.slabs.iter().filter(|slab| is_asked(&slab.blocks));
        let first = rows.first(ROWS_AHEAD);
        // What the kernel was told of is there until it needs the memory: one page tells.
        let is_gone = asked().next().is_some_and(|slab| slab.is_gone(&first, file, checked));
        asked().for_each(|slab| slab.will_ask(&first, file, checked, is_gone));
        for slab in asked() {
            let span = slab.offset..slab.offset.saturating_add(slab.len);
            let Some(matrix) = slab.matrix(file, checked) else {
                bad.get_or_insert(span);
                continue;
            };
            let mut filter = Filter::new(matrix);
            for from in (0..slab.blocks.len()).step_by(64) {
                let block = slab.blocks.start + from;
                let extras = self.fold_extras.as_ref().map_or(0, |extras| extras.word_at(block));
                let kept = filter.candidates(&rows, from, extras);
                let count = (slab.blocks.len() - from).min(64) as u32;
                let ruled_out = !kept & (u64::MAX >> (u64::BITS - count));
                found.remove_word(block - blocks.start, ruled_out);
            }
            if filter.is_damaged() {
                bad.get_or_insert(span);
            }
        }
        (found, bad)
    }
}

impl SlabSignatures {
    /// Whether the first of these rows of which the kernel was told is not in memory any more.
    fn is_gone(&self, rows: &[usize], file: &Map, checked: &Checked) -> bool {
        let Some(shape) = self.shape else { return false };
        let mut told = shape
            .spans_of(rows)
            .skip(1)
            .filter(|(bit, _)| checked.announced().get(self.first_bit + bit));
        let start = self.offset as usize;
        told.next().is_some_and(|(_, span)| !file.is_resident(start + span.start..start + span.end))
    }

    /// Has the kernel read what asking these rows needs and it was not told of before (`is_gone`: or
    /// was), for all slabs at once: one page after the other would take the disk's time for each.
    fn will_ask(&self, rows: &[usize], file: &Map, checked: &Checked, is_gone: bool) {
        let Some(shape) = self.shape else { return };
        for (bit, span) in shape.spans_of(rows) {
            let (bit, start) = (self.first_bit + bit, self.offset as usize + span.start);
            if (is_gone || !checked.announced().get(bit)) && start + span.len() <= file.len() {
                file.will_need(start, span.len());
                checked.announced().set(bit);
            }
        }
    }

    fn matrix<'a>(&self, file: &'a [u8], checked: &'a Checked) -> Option<Matrix<'a>> {
        let end = self.offset.checked_add(self.len)?;
        let section = file.get(self.offset as usize..end as usize)?;
        let verified = (checked.signatures(), self.first_bit);
        Matrix::remembered(section, self.crc, self.shape?, verified).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::signature::MatrixBuilder;
    use crate::storage::Paging;

    const BLOCKS: usize = 40;
    const SLABS: usize = 3;

    /// Pages that come into memory when the system is told of them.
    #[derive(Default)]
    struct Told {
        is_gone: AtomicBool,
        calls: AtomicUsize,
        spans: Mutex<Vec<Range<usize>>>,
    }

    impl Paging for Told {
        fn is_resident(&self) -> bool {
            !self.is_gone.load(Ordering::SeqCst)
        }

        fn fetch(&self) {}

        fn will_need(&self, bytes: Range<usize>) {
            self.is_gone.store(false, Ordering::SeqCst);
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.spans.lock().unwrap().push(bytes);
        }
    }

    /// Slabs of many pages of signatures.
    fn signatures() -> (Signatures, Vec<u8>) {
        let (mut this, mut file) = (Signatures::default(), Vec::new());
        for slab in 0..SLABS {
            let mut builder = MatrixBuilder::default();
            for block in 0..BLOCKS {
                let word = |word| {
                    format!("{slab}-{block}-{:x} ", 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(word))
                };
                builder.push((0..2_000).map(word).collect::<String>().as_bytes());
            }
            let stored = builder.finish(1 << 40, 10).unwrap();
            let len = stored.bytes.len() as u64;
            let shape = Shape::new(len, stored.rows, BLOCKS as u32).unwrap();
            this.slabs.push(SlabSignatures {
                offset: file.len() as u64,
                len,
                crc: stored.crc,
                shape: Some(shape),
                first_bit: this.verified_bits,
                blocks: slab * BLOCKS..(slab + 1) * BLOCKS,
            });
            this.verified_bits += shape.verified_bits();
            file.extend(stored.bytes);
        }
        (this, file)
    }

    #[test]
    fn the_system_is_told_of_a_page_once_and_again_when_it_let_it_go() {
        let (signatures, file) = signatures();
        let pages = Arc::new(Told::default());
        let map = Map::paged(file, Arc::clone(&pages) as Arc<dyn Paging>);
        let checked = Checked::new(SLABS * BLOCKS, signatures.verified_bits());
        let ask = |text: &str| {
            let required = Required::of_literal(text.as_bytes());
            let told = pages.calls.load(Ordering::SeqCst);
            let all = 0..SLABS * BLOCKS;
            let (found, bad) = signatures.candidates(&map, &checked, (&all, &required));
            assert!(bad.is_none());
            (found.iter().count(), pages.calls.load(Ordering::SeqCst) - told)
        };
        let (found, told) = ask("absent-and-long-enough");
        assert!(found < 5 && told > SLABS, "checksums and rows of {SLABS} slabs: {told}");
        assert_eq!(ask("absent-and-long-enough").1, 0, "they are there");
        let (_, told_of_others) = ask("otherwise-absent-text");
        assert!((1..=told).contains(&told_of_others), "of what is new only: {told_of_others}");

        pages.is_gone.store(true, Ordering::SeqCst);
        assert_eq!(ask("absent-and-long-enough").1, told, "the system needed the memory");
        assert_eq!(ask("absent-and-long-enough").1, 0);
        let spans = pages.spans.lock().unwrap();
        assert!(spans.iter().all(|span| !span.is_empty() && span.end <= map.len()));
    }
}
