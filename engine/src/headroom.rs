//! When new records are refused for want of disk space: a pure decision over measured room.
//!
//! A node keeps a reserve free: what gathering and compaction need to drain the backlog, and what
//! the system needs. New records are refused while the next ingest segment would not fit above
//! it, and taken again when there is some more than that, so that a disk at its edge does not
//! flutter. Ingest segments are allocated in advance: files that wait unused count as room, for
//! they are given back while records are refused.
//!
//! Invariants: refusing begins before the reserve is touched by ingest; a disk that turned out to
//! be full although it looked as if it was not (a quota, inodes) is only believed again after a
//! segment was made. Knows no disk and no clock.

use crate::storage::Space;

/// The reserve unless one is set: this much, or a twentieth of the file system where that is less.
pub const FREE_MIN_BYTES: u64 = 1 << 30;
const FREE_MIN_PART: u64 = 20;

/// What the decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadroomLimits {
    /// The reserve of each file system, bytes; `None`: see [`FREE_MIN_BYTES`].
    pub free_min_bytes: Option<u64>,
    /// Length of a prepared ingest segment, bytes.
    pub segment_bytes: u64,
}

/// A file system that holds data, measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What the system says of it.
    pub space: Space,
    /// Files that wait unused and can be removed, bytes.
    pub reclaimable_bytes: u64,
}

/// What is reckoned with where a file system does not say how large it is, bytes: more than any has, and
/// what a metric can still show.
const UNTOLD_BYTES: u64 = i64::MAX as u64;

impl Room {
    /// What ingest may reckon with, bytes.
    pub const fn usable_bytes(&self) -> u64 {
        let bytes = self.free_bytes().saturating_add(self.reclaimable_bytes);
        // What waits unused beside room without a bound is no more of it.
        if bytes > UNTOLD_BYTES { UNTOLD_BYTES } else { bytes }
    }

    /// Free bytes. A size of 0 is that of file systems without one, as of ramfs: whether there is room is
    /// learned by writing.
    const fn free_bytes(&self) -> u64 {
        if self.space.total_bytes == 0 { UNTOLD_BYTES } else { self.space.free_bytes }
    }
}

/// What the rooms say, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// The file system that is nearest to its reserve: its place among those measured.
    pub tightest: usize,
    /// Its free bytes, as the system says them.
    pub free_bytes: u64,
    /// Bytes that ingest may still take before new records are refused.
    pub until_refusal_bytes: u64,
    /// Room, bytes, from which on records are taken again once they are refused.
    pub resume_bytes: u64,
    /// The state is another one than before.
    pub has_changed: bool,
}

/// See the module page.
#[derive(Debug, Clone, Copy)]
pub struct Headroom {
    limits: HeadroomLimits,
    is_refusing: bool,
    /// The disk was full; only a segment that was made proves otherwise.
    needs_proof: bool,
}

impl Headroom {
    /// Nothing is refused yet.
    pub const fn new(limits: HeadroomLimits) -> Self {
        Self { limits, is_refusing: false, needs_proof: false }
    }

    /// The reserve of a file system, bytes.
    pub fn free_min_bytes(&self, total_bytes: u64) -> u64 {
        let default = FREE_MIN_BYTES.min(total_bytes / FREE_MIN_PART);
        self.limits.free_min_bytes.unwrap_or(default)
    }

    /// Whether new records are refused.
    pub const fn is_refusing(&self) -> bool {
        self.is_refusing
    }

    /// Whether there seems to be room, and a segment should be made to prove it.
    pub fn should_try(&self, rooms: &[Room]) -> bool {
        self.needs_proof && rooms.iter().all(|room| room.usable_bytes() >= self.resume_bytes(room))
    }

    /// Room below which new records are refused: the reserve and one segment.
    fn floor_bytes(&self, room: &Room) -> u64 {
        self.free_min_bytes(room.space.total_bytes).saturating_add(self.limits.segment_bytes)
    }

    fn resume_bytes(&self, room: &Room) -> u64 {
        let slack = self.free_min_bytes(room.space.total_bytes) / 4;
        self.floor_bytes(room).saturating_add(slack.max(2 * self.limits.segment_bytes))
    }

    /// Room, bytes, from which on records are taken again once they are refused, if a file system
    /// cannot have so much even with all data of the node gone: `own_bytes` of it are that data.
    pub fn unreachable_bytes(&self, room: &Room, own_bytes: u64) -> Option<u64> {
        let resume_bytes = self.resume_bytes(room);
        let most_bytes = room.usable_bytes().saturating_add(own_bytes);
        (resume_bytes > most_bytes).then_some(resume_bytes)
    }

    /// Looks at every file system that holds data (each once); `None` where there is none.
    pub fn look(&mut self, rooms: &[Room]) -> Option<Judgement> {
        let left = |room: &Room| room.usable_bytes().saturating_sub(self.floor_bytes(room));
        let (tightest, room) =
            rooms.iter().enumerate().min_by_key(|(_, room)| (left(room), room.usable_bytes()))?;
        let (until_refusal_bytes, resume_bytes) = (left(room), self.resume_bytes(room));
        let before = self.is_refusing;
        if rooms.iter().any(|room| room.usable_bytes() < self.floor_bytes(room)) {
            self.is_refusing = true;
        } else if rooms.iter().all(|room| room.usable_bytes() >= self.resume_bytes(room)) {
            self.is_refusing = self.needs_proof;
        }
        Some(Judgement {
            tightest,
            free_bytes: room.space.free_bytes,
            until_refusal_bytes: if self.is_refusing { 0 } else { until_refusal_bytes },
            resume_bytes,
            has_changed: before != self.is_refusing,
        })
    }

    /// A write found the disk full. Says whether that is news.
    pub const fn note_full(&mut self) -> bool {
        self.needs_proof = true;
        !std::mem::replace(&mut self.is_refusing, true)
    }

    /// A segment was made: the disk is not full, whatever was seen before.
    pub const fn note_made(&mut self) {
        self.needs_proof = false;
    }

    /// How many new segments may be made now without touching the reserve. While records are
    /// refused a shard that still holds some may have one from its upper half, so that they are
    /// safe.
    pub fn segments_allowed(&self, ingest: &Room) -> u64 {
        let reserve = self.free_min_bytes(ingest.space.total_bytes);
        let kept = if self.is_refusing { reserve / 2 } else { reserve };
        ingest.free_bytes().saturating_sub(kept) / self.limits.segment_bytes.max(1)
    }

    /// Room for the output of a compaction, bytes: what would not have new records refused, for a
    /// compaction gives its inputs back only when it is done. While they are refused, a quarter
    /// of the reserve, so that small segments do not pile up; the rest is for gathering.
    pub fn compaction_bytes(&self, store: &Room) -> u64 {
        if self.is_refusing {
            let quarter = self.free_min_bytes(store.space.total_bytes) / 4;
            return quarter.min(store.free_bytes() / 2);
        }
        store.free_bytes().saturating_sub(self.floor_bytes(store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: HeadroomLimits =
        HeadroomLimits { free_min_bytes: Some(100 * MIB), segment_bytes: 10 * MIB };

    fn room(free: u64, reclaimable: u64) -> Room {
        let space = Space { free_bytes: free * MIB, total_bytes: 10_000 * MIB };
        Room { space, reclaimable_bytes: reclaimable * MIB }
    }

    #[test]
    fn the_reserve_is_a_twentieth_but_at_most_a_gibibyte() {
        let headroom = Headroom::new(HeadroomLimits { free_min_bytes: None, ..LIMITS });
        assert_eq!(headroom.free_min_bytes(100 * MIB), 5 * MIB);
        assert_eq!(headroom.free_min_bytes(1 << 40), FREE_MIN_BYTES);
        assert_eq!(Headroom::new(LIMITS).free_min_bytes(1), 100 * MIB);
    }

    #[test]
    fn records_are_refused_before_the_reserve_and_taken_again_well_above_it() {
        let mut headroom = Headroom::new(LIMITS);
        let look = |headroom: &mut Headroom, free, reclaimable| {
            let judgement = headroom.look(&[room(free, reclaimable)]).unwrap();
            (headroom.is_refusing(), judgement.has_changed, judgement.until_refusal_bytes / MIB)
        };
        assert_eq!(look(&mut headroom, 130, 0), (false, false, 20));
        assert_eq!(look(&mut headroom, 105, 5), (false, false, 0), "a prepared file is room");
        assert_eq!(look(&mut headroom, 104, 5), (true, true, 0));
        assert_eq!(look(&mut headroom, 134, 0), (true, false, 0), "not yet");
        assert_eq!(look(&mut headroom, 135, 0), (false, true, 25));
        assert_eq!(look(&mut headroom, 111, 0), (false, false, 1));
    }

    #[test]
    fn a_full_disk_that_looks_empty_is_believed_after_a_segment_was_made() {
        let mut headroom = Headroom::new(LIMITS);
        assert!(headroom.note_full());
        assert!(!headroom.note_full(), "told once");
        let plenty = [room(5_000, 0)];
        assert!(!headroom.look(&plenty).unwrap().has_changed);
        assert!(headroom.is_refusing() && headroom.should_try(&plenty));
        assert!(!headroom.should_try(&[room(5, 0)]));
        headroom.note_made();
        assert!(headroom.look(&plenty).unwrap().has_changed);
        assert!(!headroom.is_refusing());
    }

    #[test]
    fn a_disk_that_can_never_have_room_again_is_known_before_it_is_full() {
        let headroom = Headroom::new(LIMITS);
        assert_eq!(headroom.unreachable_bytes(&room(100, 5), 29 * MIB), Some(135 * MIB));
        assert_eq!(headroom.unreachable_bytes(&room(100, 5), 30 * MIB), None);
    }

    #[test]
    fn a_file_system_that_does_not_say_its_size_is_believed_to_have_room_until_it_is_full() {
        let space = Space { free_bytes: 0, total_bytes: 0 };
        let untold = Room { space, reclaimable_bytes: 300 * MIB };
        for free_min_bytes in [None, Some(0), Some(100 * MIB)] {
            let mut headroom = Headroom::new(HeadroomLimits { free_min_bytes, ..LIMITS });
            assert_eq!(headroom.unreachable_bytes(&untold, 0), None);
            let judgement = headroom.look(&[untold]).unwrap();
            assert!(!headroom.is_refusing() && judgement.until_refusal_bytes > 1 << 50);
            assert!(i64::try_from(judgement.until_refusal_bytes).is_ok(), "a metric shows it");
            assert!(headroom.segments_allowed(&untold) > 1 << 20);
            assert!(headroom.compaction_bytes(&untold) > 1 << 50);
            headroom.note_full();
            headroom.look(&[untold]);
            assert!(headroom.is_refusing() && headroom.should_try(&[untold]));
            headroom.note_made();
            headroom.look(&[untold]);
            assert!(!headroom.is_refusing());
            headroom.look(&[untold, room(5, 0)]);
            assert!(headroom.is_refusing(), "another one says how full it is");
        }
    }

    #[test]
    fn the_tighter_of_two_file_systems_decides() {
        let mut headroom = Headroom::new(LIMITS);
        let judgement = headroom.look(&[room(5_000, 0), room(50, 0)]).unwrap();
        assert_eq!((judgement.tightest, judgement.has_changed), (1, true));
        assert_eq!(judgement.free_bytes, 50 * MIB);
        assert_eq!(Headroom::new(LIMITS).look(&[]), None);
    }

    #[test]
    fn new_segments_leave_the_reserve_alone_and_half_of_it_in_need() {
        let mut headroom = Headroom::new(LIMITS);
        assert_eq!(headroom.segments_allowed(&room(129, 0)), 2);
        assert_eq!(headroom.segments_allowed(&room(109, 50)), 0, "waiting files come first");
        headroom.look(&[room(80, 0)]);
        assert_eq!(headroom.segments_allowed(&room(80, 0)), 3);
        assert_eq!(headroom.segments_allowed(&room(59, 0)), 0);
    }

    #[test]
    fn a_compaction_does_not_make_records_be_refused() {
        let mut headroom = Headroom::new(LIMITS);
        assert_eq!(headroom.compaction_bytes(&room(150, 0)), 40 * MIB);
        assert_eq!(headroom.compaction_bytes(&room(105, 50)), 0);
        headroom.look(&[room(90, 0)]);
        assert_eq!(headroom.compaction_bytes(&room(90, 0)), 25 * MIB);
        assert_eq!(headroom.compaction_bytes(&room(20, 0)), 10 * MIB);
    }

    proptest! {
        /// Where records are taken, there is a segment to be had above the reserve.
        #[test]
        fn taking_means_that_the_next_segment_fits(
            rooms in proptest::collection::vec((0..400u64, 0..50u64), 1..20),
        ) {
            let mut headroom = Headroom::new(LIMITS);
            for (free, reclaimable) in rooms {
                let room = room(free, reclaimable);
                headroom.look(&[room]);
                if !headroom.is_refusing() {
                    let usable = room.usable_bytes();
                    prop_assert!(usable >= LIMITS.free_min_bytes.unwrap() + LIMITS.segment_bytes);
                }
            }
        }
    }
}
