//! What is left of a frame behind the last good one of a segment that was being written.
//!
//! It was cut short by the end of its process or power, or it was damaged later: its bytes do not
//! tell which. The first is usual and nobody was promised the records; the second may cost some
//! that were. So it is told, unless there is nothing of this life of the file at all.
//!
//! Invariants: zeros and bytes of an earlier life (which anyone may have sent) are nothing; what a
//! tail file restores is not lost.

use std::path::Path;

use super::frame::FrameHeader;
use super::tail::SlotContent;
use crate::damage::{Damage, DamageKind};
use crate::ulid::Ulid;

/// The place behind the last good frame.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) offset: u64,
    pub(super) incarnation: u64,
    /// Of the frame that would come next.
    pub(super) number: u32,
    /// Where its first record would be at the earliest.
    pub(super) after: Ulid,
}

/// The first ULID behind a record's; headers may claim any.
pub(super) const fn behind(last: Ulid) -> Ulid {
    Ulid(last.0.saturating_add(1))
}

/// An unfinished or damaged last frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Torn {
    incarnation: u64,
    number: u32,
    /// Whether its header is whole: then length, range and records are known.
    has_header: bool,
    pub(super) damage: Damage,
}

impl Torn {
    /// Looks at what stands at `place`; `start` is as much of a header as the file holds there.
    pub(super) fn find(place: &Place<'_>, start: &[u8]) -> Option<Self> {
        let header = FrameHeader::decode(start).ok();
        let is_ours = match &header {
            Some(header) => header.incarnation == place.incarnation,
            None => FrameHeader::is_likely(start, place.incarnation, place.number),
        };
        if !is_ours {
            return None;
        }
        let damage = Damage {
            path: place.path.to_path_buf(),
            offset: place.offset,
            len_bytes: header.map_or(0, |h| u64::from(h.len_bytes)),
            range: Some(header.map_or((place.after, Ulid::MAX), |h| (h.first, h.last))),
            records: header.map(|h| u64::from(h.record_count)),
            kind: DamageKind::Unfinished,
        };
        let has_header = header.is_some();
        let (incarnation, number) = (place.incarnation, place.number);
        Some(Self { incarnation, number, has_header, damage })
    }

    /// A file that was cut behind its last good frame; one that is being written never ends there.
    pub(super) fn of_cut_file(place: &Place<'_>) -> Self {
        let damage = Damage {
            path: place.path.to_path_buf(),
            offset: place.offset,
            len_bytes: 0,
            range: Some((place.after, Ulid::MAX)),
            records: None,
            kind: DamageKind::Truncated("segment"),
        };
        let (incarnation, number) = (place.incarnation, place.number);
        Self { incarnation, number, has_header: false, damage }
    }

    /// Takes into account that the records of a tail file's slot are saved. A slot has the first
    /// records of its frame, up to the last flush.
    pub(super) fn restore(&mut self, slot: &SlotContent) {
        let Some((first, last)) = slot.table.range() else { return };
        let Some((torn_first, torn_last)) = self.damage.range else { return };
        let is_its = slot.incarnation == self.incarnation && slot.frame_number == self.number;
        if !self.has_header {
            if is_its {
                self.damage.range = Some((behind(last), Ulid::MAX));
            }
            return;
        }
        // A copy that a stopped recovery began to make is in no frame of the slot's segment.
        let covers_start = first <= torn_first && torn_first <= last;
        if !covers_start || first.stream() != torn_first.stream() {
            return;
        }
        if torn_last <= last {
            self.damage.records = Some(0);
            self.damage.kind = DamageKind::Repairable("last frame");
        } else {
            let saved = last.counter().saturating_sub(torn_first.counter()) + 1;
            self.damage.records = self.damage.records.map(|n| n.saturating_sub(saved));
            self.damage.range = Some((behind(last), torn_last));
        }
    }
}
