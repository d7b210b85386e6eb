//! An open part that is held for as long as it is read.
//!
//! Invariants: the part's handle lives as long as what was opened of it. The ingest side writes new
//! records over the file of a segment that nobody holds any more, so an open part without its
//! handle would show them in place of its own.

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;

use super::scan::ScanSpec;
use crate::chunk::{Candidates, ChunkMeta, OpenPart, Part};
use crate::damage::Damage;
use crate::signature::Bits;
use crate::ulid::Ulid;

/// See the page of the module.
pub(super) struct PinnedPart {
    open: Box<dyn OpenPart>,
    candidates: Candidates,
    /// Whether it is searched: it has text that is not known to be lost.
    pub(super) has_text: bool,
    pin: Arc<dyn Part>,
}

impl PinnedPart {
    /// Opens a part for records that are asked for, between these two. May read and map.
    pub(super) fn open(
        part: Arc<dyn Part>,
        spec: &ScanSpec,
        bounds: (Ulid, Ulid),
    ) -> Result<Self, Damage> {
        let open = part.open()?;
        let mut candidates = open.candidates(spec.chain.required());
        if spec.entries.is_some() {
            without_entries(&*open, spec, bounds, &mut candidates);
        }
        let has_text = part.text_bytes() > 0;
        Ok(Self { open, candidates, has_text, pin: part })
    }

    /// The file that it lies in.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        self.pin.file_path()
    }

    /// Whether a chunk may hold a record that has what is required.
    pub(super) fn is_candidate(&self, index: usize) -> bool {
        self.candidates.blocks.as_ref().is_none_or(|bits| bits.contains(index))
    }

    /// Of some chunks those between the first and the last that may; none if none may.
    pub(super) fn narrowed(&self, chunks: Range<usize>) -> Range<usize> {
        let Some(bits) = &self.candidates.blocks else { return chunks };
        let first = bits.next_from(chunks.start).filter(|&first| first < chunks.end);
        let last = bits.last_before(chunks.end).filter(|&last| last >= chunks.start);
        first.zip(last).map_or(chunks.start..chunks.start, |(first, last)| first..last + 1)
    }

    /// Damage for which more chunks may than need be.
    pub(super) const fn signature_damage(&self) -> Option<&Damage> {
        self.candidates.damage.as_ref()
    }
}

/// Which chunks may hold records between two.
pub(super) fn within(chunks: &[ChunkMeta], (low, high): (Ulid, Ulid)) -> Range<usize> {
    let start = chunks.partition_point(|chunk| chunk.last < low);
    start..chunks.partition_point(|chunk| chunk.first <= high).max(start)
}

/// Takes those chunks out that are told to hold none of the entries that are asked for.
fn without_entries(
    open: &dyn OpenPart,
    spec: &ScanSpec,
    bounds: (Ulid, Ulid),
    candidates: &mut Candidates,
) {
    let chunks = open.chunks();
    let blocks = candidates.blocks.get_or_insert_with(|| Bits::all(chunks.len()));
    let damage = open.entries(within(chunks, bounds), &mut |chunk, rows| {
        if !rows.iter().any(|row| spec.wants_entries(row)) {
            blocks.remove(chunk);
        }
    });
    candidates.damage = candidates.damage.take().or(damage);
}

impl Deref for PinnedPart {
    type Target = dyn OpenPart;

    fn deref(&self) -> &Self::Target {
        &*self.open
    }
}
