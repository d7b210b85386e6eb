//! Whether new records are taken, and why not: what the keeper and the disks' judge find out, shards
//! obey (by the gate) and servers tell. Also how much room there is for compaction.
//!
//! Invariants: the gate is closed exactly while a reason to close it holds; nothing may be promised
//! before all know that it may not.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ulid::Ulid;

use super::Side;
use super::names::LostSegments;

/// Closed while the node must not take more. Shards look at it each turn.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    closed: Arc<AtomicBool>,
    withheld: Arc<AtomicBool>,
}

impl Gate {
    /// Closes or opens it; says whether that changed anything.
    pub fn set_closed(&self, closed: bool) -> bool {
        self.closed.swap(closed, Ordering::AcqRel) != closed
    }

    /// Has shards acknowledge nothing as durable, or go on with it: what they write may be nowhere.
    pub fn set_withheld(&self, withheld: bool) {
        self.withheld.store(withheld, Ordering::Release);
    }

    /// Whether nothing that is synced from now on may be acknowledged.
    pub fn is_withheld(&self) -> bool {
        self.withheld.load(Ordering::Acquire)
    }

    /// Whether shards must not take more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// What is low on a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LowSpace {
    /// It turned out to be full: this could not be written.
    Full(String),
    /// There is no room for new records above its reserve.
    BelowReserve {
        /// Whose.
        side: Side,
        /// A directory on it.
        path: PathBuf,
        /// The reserve, bytes.
        free_min_bytes: u64,
    },
}

/// What keeps a node from its work; sentences are those of whoever found it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A directory is not the one that was locked.
    TakenAway(String),
    /// Files were deleted while they were written, and what they held is not written anew yet.
    FilesDeleted,
    /// Files of complete segments were taken away; what comes is taken all the same.
    SegmentsLost(LostSegments),
    /// A disk fails.
    DiskTrouble(String),
    /// The process lacks descriptors or memory.
    Shortage(String),
    /// There is too little space.
    LowSpace(LowSpace),
    /// No segment can be made, and not for want of space.
    Starved(String),
    /// No mark of stamps is on disk: nothing may be numbered.
    Unmarked,
    /// The backlog is full.
    BacklogFull,
}

#[derive(Debug, Default)]
struct State {
    starved: Option<String>,
    shortage: Option<String>,
    is_backlog_full: bool,
    is_unmarked: bool,
    low_space: Option<LowSpace>,
    taken_away: [Option<String>; 2],
    deleted_files: Vec<Ulid>,
    lost_segments: [Option<LostSegments>; 2],
    trouble: [Option<String>; 2],
}

impl State {
    fn taken_away(&self, side: Side) -> Option<Reason> {
        let is_file_deleted = side == Side::Ingest && !self.deleted_files.is_empty();
        let taken_away = self.taken_away[side as usize].clone().map(Reason::TakenAway);
        taken_away.or_else(|| is_file_deleted.then_some(Reason::FilesDeleted))
    }

    fn trouble(&self, side: Side) -> Option<Reason> {
        self.trouble[side as usize].clone().map(Reason::DiskTrouble)
    }

    /// Whether the disk, or want of descriptors, keeps shards from what they need.
    fn is_disk_failing(&self) -> bool {
        self.shortage.is_some()
            || self.low_space.is_some()
            || self.is_unmarked
            || self.taken_away(Side::Ingest).is_some()
            || self.trouble[Side::Ingest as usize].is_some()
    }
}

/// See the module page.
#[derive(Debug)]
pub struct Doors {
    gate: Gate,
    /// The lock keeps threads from moving the gate past each other.
    state: Mutex<State>,
    /// Room for the output of a compaction, bytes.
    compaction_bytes: AtomicU64,
}

impl Default for Doors {
    fn default() -> Self {
        let compaction_bytes = AtomicU64::new(u64::MAX);
        Self { gate: Gate::default(), state: Mutex::default(), compaction_bytes }
    }
}

impl Doors {
    /// What shards look at.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and moves the gate.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        let is_withheld = state.taken_away(Side::Ingest).is_some();
        // First: nothing may be promised in between.
        self.gate.set_withheld(is_withheld);
        self.gate.set_closed(state.is_disk_failing() || state.is_backlog_full);
        changed
    }

    /// No segment can be made, as the words say; `None`: they can. Says whether that changed anything.
    /// The gate stays as it is: a shard without a segment stops by itself.
    pub fn set_starved(&self, words: Option<String>) -> bool {
        self.change(|state| {
            let is_starved = words.is_some();
            std::mem::replace(&mut state.starved, words).is_some() != is_starved
        })
    }

    /// The process lacks descriptors or memory, as the words say; `None`: it does not.
    pub fn set_shortage(&self, words: Option<String>) {
        self.change(|state| state.shortage = words);
    }

    /// What was taken away of each directory, as the words say. Says whether that is news.
    pub fn set_taken_away(&self, words: [Option<String>; 2]) -> bool {
        self.change(|state| {
            let is_news = state.taken_away != words;
            state.taken_away = words;
            is_news
        })
    }

    /// Segments whose files were deleted while they were written; none: all that they held is written
    /// anew.
    pub fn set_deleted_files(&self, deleted: Vec<Ulid>) {
        self.change(|state| state.deleted_files = deleted);
    }

    /// Segments whose records are in files without a name only.
    pub fn deleted_files(&self) -> Vec<Ulid> {
        self.state().deleted_files.clone()
    }

    /// Files of complete segments of each side were taken away. What comes is taken all the same.
    pub fn set_lost_segments(&self, lost: [Option<LostSegments>; 2]) {
        self.change(|state| state.lost_segments = lost);
    }

    /// Whether this directory is not the one that the node works on: nothing in it may be touched.
    pub fn is_taken_away(&self, side: Side) -> bool {
        self.state().taken_away[side as usize].is_some()
    }

    /// The same of either.
    pub fn is_ground_lost(&self) -> bool {
        self.state().taken_away.iter().any(Option::is_some)
    }

    /// Says whether that changed anything.
    pub fn set_backlog_full(&self, is_full: bool) -> bool {
        self.change(|state| std::mem::replace(&mut state.is_backlog_full, is_full) != is_full)
    }

    /// Nothing may be numbered, or it may again.
    pub fn set_unmarked(&self, is_unmarked: bool) {
        self.change(|state| state.is_unmarked = is_unmarked);
    }

    /// There is too little space; `None`: there is enough.
    pub fn set_low_space(&self, low: Option<LowSpace>) {
        self.change(|state| state.low_space = low);
    }

    /// The disk of a directory is in trouble, as the words say; `None`: it is well.
    pub fn set_disk_trouble(&self, side: Side, words: Option<String>) {
        self.change(|state| state.trouble[side as usize] = words);
    }

    /// What a compaction may write from now on, bytes.
    pub fn set_compaction_bytes(&self, bytes: u64) {
        self.compaction_bytes.store(bytes, Ordering::Release);
    }

    /// Room for the output of a compaction, bytes.
    pub fn compaction_bytes(&self) -> u64 {
        self.compaction_bytes.load(Ordering::Acquire)
    }

    /// Whether the disk, or want of descriptors, keeps the node from taking records.
    pub fn is_disk_failing(&self) -> bool {
        let state = self.state();
        state.starved.is_some() || state.is_disk_failing()
    }

    /// What is wrong with the disk that takes new records, or lacking.
    pub fn ingest_trouble(&self) -> Option<Reason> {
        let state = self.state();
        state
            .taken_away(Side::Ingest)
            .or_else(|| state.trouble(Side::Ingest))
            .or_else(|| state.shortage.clone().map(Reason::Shortage))
    }

    /// Whether both disks let the node do its work, and hold what they should.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.starved.is_none()
            && !state.is_disk_failing()
            && state.taken_away(Side::Store).is_none()
            && state.lost_segments.iter().all(Option::is_none)
            && state.trouble.iter().all(Option::is_none)
    }

    /// Everything that keeps the node from taking records.
    pub fn reasons(&self) -> Vec<Reason> {
        let state = self.state();
        let mut reasons: Vec<Reason> =
            Side::ALL.into_iter().filter_map(|side| state.taken_away(side)).collect();
        reasons.extend(state.lost_segments.iter().flatten().cloned().map(Reason::SegmentsLost));
        reasons.extend(Side::ALL.into_iter().filter_map(|side| state.trouble(side)));
        reasons.extend(state.shortage.clone().map(Reason::Shortage));
        reasons.extend(state.low_space.clone().map(Reason::LowSpace));
        reasons.extend(state.starved.clone().map(Reason::Starved));
        reasons.extend(state.is_unmarked.then_some(Reason::Unmarked));
        reasons.extend(state.is_backlog_full.then_some(Reason::BacklogFull));
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_closed_while_any_reason_holds() {
        let doors = Doors::default();
        assert!(doors.set_backlog_full(true) && !doors.set_backlog_full(true));
        let low = LowSpace::Full("low".into());
        doors.set_low_space(Some(low.clone()));
        assert!(doors.set_backlog_full(false));
        assert!(doors.gate().is_closed() && doors.is_disk_failing());
        assert_eq!(doors.reasons(), [Reason::LowSpace(low)]);
        doors.set_low_space(None);
        assert!(!doors.gate().is_closed() && doors.reasons().is_empty());
        doors.set_unmarked(true);
        assert!(doors.gate().is_closed() && doors.is_disk_failing());
        doors.set_unmarked(false);
        assert!(!doors.gate().is_closed() && !doors.is_disk_failing());
        doors.set_shortage(Some("no descriptors".into()));
        assert!(doors.gate().is_closed() && doors.is_disk_failing() && !doors.is_ready());
        assert_eq!(doors.ingest_trouble(), Some(Reason::Shortage("no descriptors".into())));
        doors.set_shortage(None);
        assert!(!doors.gate().is_closed() && doors.is_ready() && doors.reasons().is_empty());
        assert!(doors.set_taken_away([None, Some("the store".into())]));
        assert!(!doors.gate().is_closed() && !doors.gate().is_withheld() && !doors.is_ready());
        assert!(doors.set_taken_away([Some("all".into()), None]) && doors.is_ground_lost());
        assert!(doors.gate().is_closed() && doors.gate().is_withheld() && doors.is_disk_failing());
        assert!(doors.set_taken_away([None, None]) && !doors.set_taken_away([None, None]));
        doors.set_deleted_files(vec![Ulid::MIN]);
        assert!(doors.gate().is_withheld() && !doors.is_ground_lost() && !doors.is_ready());
        doors.set_deleted_files(Vec::new());
        let lost =
            LostSegments { side: Side::Store, path: "/store/a".into(), files: 1, records: 7 };
        doors.set_lost_segments([None, Some(lost.clone())]);
        assert!(!doors.gate().is_closed() && !doors.is_disk_failing() && !doors.is_ready());
        assert_eq!(doors.reasons(), [Reason::SegmentsLost(lost)]);
        doors.set_lost_segments([None, None]);
        assert!(!doors.gate().is_closed() && !doors.gate().is_withheld() && doors.is_ready());
        assert!(doors.set_starved(Some("none".into())) && doors.is_disk_failing());
        assert!(!doors.gate().is_closed(), "a shard without a segment stops by itself");
    }
}
