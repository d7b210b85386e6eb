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
        asked().for_each(|slab| slab.will_ask(&first, file, checked));
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
    /// Has the kernel read what asking these rows needs and nobody has asked before, for all slabs at
    /// once: one page after the other would take the disk's time for each.
    fn will_ask(&self, rows: &[usize], file: &Map, checked: &Checked) {
        let Some(shape) = self.shape else { return };
        for (bit, span) in shape.spans_of(rows) {
            let start = self.offset as usize + span.start;
            if !checked.signatures().get(self.first_bit + bit) && start + span.len() <= file.len() {
                file.will_need(start, span.len());
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
