//! Whether new records are taken, and why not: what the keeper and the disks' judge find out, shards
//! obey (by the gate) and HTTP tells. Also how much room there is for compaction.
//!
//! Invariants: the gate is closed exactly while a reason to close it holds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::ulid::Ulid;
use net::shard::Gate;

use super::disks::Side;

/// See the module page.
#[derive(Debug)]
pub(super) struct Doors {
    gate: Gate,
    /// Why no segment can be made, if it is not for want of space.
    starved: Mutex<Option<String>>,
    /// What the process lacks, for the operator.
    shortage: Mutex<Option<String>>,
    backlog_full: AtomicBool,
    /// No mark of stamps is on disk yet: nothing may be numbered.
    unmarked: AtomicBool,
    disk_low: AtomicBool,
    /// What is low, for the operator.
    disk_words: Mutex<String>,
    /// What was taken away of each directory, for the operator.
    taken_away: Mutex<[Option<String>; 2]>,
    /// Files that were deleted while they were written, and what they held is not written anew.
    lost_files: Mutex<Vec<Ulid>>,
    /// Complete segments whose files were taken away, by side, for the operator.
    lost_segments: Mutex<[Option<String>; 2]>,
    /// What is wrong with the disk of each directory, for the operator.
    trouble: Mutex<[Option<String>; 2]>,
    /// Room for the output of a compaction, bytes.
    compaction_bytes: AtomicU64,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            gate: Gate::default(),
            starved: Mutex::default(),
            shortage: Mutex::default(),
            backlog_full: AtomicBool::new(false),
            unmarked: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
            disk_words: Mutex::default(),
            taken_away: Mutex::default(),
            lost_files: Mutex::default(),
            lost_segments: Mutex::default(),
            trouble: Mutex::default(),
            compaction_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

impl Doors {
    /// What shards look at.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// No segment can be made, as `words` say; `None`: they can. Says whether that changed anything.
    pub(super) fn set_starved(&self, words: Option<String>) -> bool {
        let is_starved = words.is_some();
        std::mem::replace(&mut *lock(&self.starved), words).is_some() != is_starved
    }

    /// The process lacks descriptors or memory, as `words` say; `None`: it does not.
    pub(super) fn set_shortage(&self, words: Option<String>) {
        *lock(&self.shortage) = words;
        self.move_gate();
    }

    /// What was taken away of each directory, as the words say. Says whether that is news.
    pub(super) fn set_taken_away(&self, words: [Option<String>; 2]) -> bool {
        let before = std::mem::replace(&mut *lock(&self.taken_away), words.clone());
        self.move_gate();
        before != words
    }

    /// Segments whose files were deleted while they were written; none: all that they held is written
    /// anew.
    pub(super) fn set_lost_files(&self, lost: Vec<Ulid>) {
        *lock(&self.lost_files) = lost;
        self.move_gate();
    }

    /// Segments whose records are in files without a name only.
    pub(super) fn lost_files(&self) -> Vec<Ulid> {
        lock(&self.lost_files).clone()
    }

    /// Files of complete segments were taken away, as the words of each side say. What comes is taken
    /// all the same.
    pub(super) fn set_lost_segments(&self, words: [Option<String>; 2]) {
        *lock(&self.lost_segments) = words;
    }

    fn taken_away(&self, side: Side) -> Option<String> {
        let is_file_lost = side == Side::Ingest && !lock(&self.lost_files).is_empty();
        lock(&self.taken_away)[side as usize].clone().or_else(|| {
            is_file_lost.then(|| {
                "files of --ingest.path were deleted while they were written: what they held is \
                 written anew"
                    .into()
            })
        })
    }

    /// Whether this directory is not the one that the node works on: nothing in it may be touched.
    pub(super) fn is_taken_away(&self, side: Side) -> bool {
        lock(&self.taken_away)[side as usize].is_some()
    }

    /// The same of either.
    pub(super) fn is_ground_lost(&self) -> bool {
        lock(&self.taken_away).iter().any(Option::is_some)
    }

    fn is_short(&self) -> bool {
        lock(&self.shortage).is_some()
    }

    /// Says whether that changed anything.
    pub(super) fn set_backlog_full(&self, full: bool) -> bool {
        let changed = self.backlog_full.swap(full, Ordering::AcqRel) != full;
        self.move_gate();
        changed
    }

    /// Nothing may be numbered, or it may again.
    pub(super) fn set_unmarked(&self, unmarked: bool) {
        if self.unmarked.swap(unmarked, Ordering::AcqRel) != unmarked {
            self.move_gate();
        }
    }

    /// There is too little space, as `words` say; `None`: there is enough.
    pub(super) fn set_disk_low(&self, words: Option<String>) {
        self.disk_low.store(words.is_some(), Ordering::Release);
        *lock(&self.disk_words) = words.unwrap_or_default();
        self.move_gate();
    }

    /// The disk of a directory is in trouble, as `words` say; `None`: it is well.
    pub(super) fn set_disk_trouble(&self, side: Side, words: Option<String>) {
        self.trouble()[side as usize] = words;
        self.move_gate();
    }

    fn trouble(&self) -> MutexGuard<'_, [Option<String>; 2]> {
        lock(&self.trouble)
    }

    /// The lock keeps threads from moving it past each other.
    fn move_gate(&self) {
        let trouble = self.trouble();
        let withheld = self.taken_away(Side::Ingest).is_some();
        // First: nothing may be promised in between.
        self.gate.set_withheld(withheld);
        let closed = withheld
            || trouble[Side::Ingest as usize].is_some()
            || self.is_short()
            || self.backlog_full.load(Ordering::Acquire)
            || self.unmarked.load(Ordering::Acquire)
            || self.disk_low.load(Ordering::Acquire);
        self.gate.set_closed(closed);
    }

    pub(super) fn set_compaction_bytes(&self, bytes: u64) {
        self.compaction_bytes.store(bytes, Ordering::Release);
    }

    /// Room for the output of a compaction, bytes.
    pub(super) fn compaction_bytes(&self) -> u64 {
        self.compaction_bytes.load(Ordering::Acquire)
    }

    /// Whether the disk, or want of descriptors, keeps the node from taking records.
    pub(super) fn is_disk_failing(&self) -> bool {
        lock(&self.starved).is_some()
            || self.is_short()
            || self.disk_low.load(Ordering::Acquire)
            || self.unmarked.load(Ordering::Acquire)
            || self.taken_away(Side::Ingest).is_some()
            || self.trouble()[Side::Ingest as usize].is_some()
    }

    /// What is wrong with the disk that takes new records, or lacking.
    pub(super) fn ingest_trouble(&self) -> Option<String> {
        self.taken_away(Side::Ingest)
            .or_else(|| self.trouble()[Side::Ingest as usize].clone())
            .or_else(|| lock(&self.shortage).clone())
    }

    /// Whether both disks let the node do its work, and hold what they should.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_disk_failing()
            && self.taken_away(Side::Store).is_none()
            && lock(&self.lost_segments).iter().all(Option::is_none)
            && self.trouble().iter().all(Option::is_none)
    }

    /// Everything that keeps the node from taking records, a sentence each.
    pub(super) fn reasons(&self) -> Vec<String> {
        let taken_away = Side::ALL.into_iter().filter_map(|side| self.taken_away(side));
        let mut reasons: Vec<String> = taken_away.collect();
        reasons.extend(lock(&self.lost_segments).iter().flatten().cloned());
        reasons.extend(self.trouble().iter().flatten().cloned());
        reasons.extend(lock(&self.shortage).clone());
        if self.disk_low.load(Ordering::Acquire) {
            reasons.push(lock(&self.disk_words).clone());
        }
        reasons.extend(lock(&self.starved).clone());
        if self.unmarked.load(Ordering::Acquire) {
            reasons.push("the mark of stamps cannot be written: the disk is failing".into());
        }
        if self.backlog_full.load(Ordering::Acquire) {
            reasons.push("the backlog is full: senders wait for the store".into());
        }
        reasons
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_closed_while_any_reason_holds() {
        let doors = Doors::default();
        assert!(doors.set_backlog_full(true) && !doors.set_backlog_full(true));
        doors.set_disk_low(Some("low".into()));
        assert!(doors.set_backlog_full(false));
        assert!(doors.gate().is_closed() && doors.is_disk_failing());
        assert_eq!(doors.reasons(), ["low"]);
        doors.set_disk_low(None);
        assert!(!doors.gate().is_closed() && doors.reasons().is_empty());
        doors.set_unmarked(true);
        assert!(doors.gate().is_closed() && doors.is_disk_failing());
        doors.set_unmarked(false);
        assert!(!doors.gate().is_closed() && !doors.is_disk_failing());
        doors.set_shortage(Some("no descriptors".into()));
        assert!(doors.gate().is_closed() && doors.is_disk_failing() && !doors.is_ready());
        assert_eq!(doors.ingest_trouble().as_deref(), Some("no descriptors"));
        doors.set_shortage(None);
        assert!(!doors.gate().is_closed() && doors.is_ready() && doors.reasons().is_empty());
        assert!(doors.set_taken_away([None, Some("the store".into())]));
        assert!(!doors.gate().is_closed() && !doors.gate().is_withheld() && !doors.is_ready());
        assert!(doors.set_taken_away([Some("all".into()), None]) && doors.is_ground_lost());
        assert!(doors.gate().is_closed() && doors.gate().is_withheld() && doors.is_disk_failing());
        assert!(doors.set_taken_away([None, None]) && !doors.set_taken_away([None, None]));
        doors.set_lost_files(vec![Ulid::MIN]);
        assert!(doors.gate().is_withheld() && !doors.is_ground_lost() && !doors.is_ready());
        doors.set_lost_files(Vec::new());
        doors.set_lost_segments([None, Some("a segment".into())]);
        assert!(!doors.gate().is_closed() && !doors.is_disk_failing() && !doors.is_ready());
        assert_eq!(doors.reasons(), ["a segment"]);
        doors.set_lost_segments([None, None]);
        assert!(!doors.gate().is_closed() && !doors.gate().is_withheld() && doors.is_ready());
        assert!(doors.set_starved(Some("none".into())) && doors.is_disk_failing());
        assert!(!doors.gate().is_closed(), "a shard without a segment stops by itself");
    }
}
