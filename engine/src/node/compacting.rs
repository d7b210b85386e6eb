//! Compaction, turn by turn: one is carried out if there is something to compact, then files of replaced
//! segments go.
//!
//! Invariants: at most one compaction a turn; nothing new is begun while shards need the disk
//! ([`super::pressure`]); after a failure it waits; a compaction that waits for room does not keep
//! smaller ones from going on. A change of state is told once, a failure each time.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::ingest::log::Now;
use crate::store::catalogue::Catalogue;
use crate::store::compaction::{CompactionLimits, room_wanted_bytes};
use crate::store::compaction_run::{Compacted, CompactionError, compact, mergeable};
use crate::store::writer::WriterOptions;

use super::pressure::{Load, Pressure};

/// Time between looks for something to compact, ms.
const PAUSE_MS: u64 = 500;
/// Time before a failed compaction is tried again, ms.
const BACK_OFF_MS: u64 = 10_000;

/// How a node compacts.
#[derive(Clone)]
pub struct CompactingOptions {
    /// What is worth it; the room is given with each turn.
    pub limits: CompactionLimits,
    /// How segments are written.
    pub writer: WriterOptions,
    /// Time between looks while it is held back, ms.
    pub held_back_pause_ms: u64,
    /// Ends a compaction between two chunks.
    pub cancel: Arc<AtomicBool>,
}

/// What happened in a turn.
#[derive(Debug)]
pub enum Happened {
    /// A replaced segment's file cannot be removed; it is tried again.
    NotRemoved(PathBuf, io::Error),
    /// Segments became one.
    Compacted {
        /// Which, and what of them.
        done: Compacted,
        /// What it took, microseconds.
        spent_us: u64,
    },
    /// The first success since a failure.
    WorksAgain,
    /// It failed, and is tried again later.
    Failed {
        /// Why.
        error: CompactionError,
        /// The one before did not.
        is_news: bool,
    },
    /// A compaction would be worth it, but finds no room for what it writes.
    LacksRoom {
        /// What it would take, bytes.
        wanted_bytes: u64,
        /// What there is, bytes.
        room_bytes: u64,
    },
    /// No compaction waits for room any more.
    HasRoom,
}

/// See the module page.
pub struct Compacting {
    catalogue: Arc<Catalogue>,
    options: CompactingOptions,
    pressure: Pressure,
    is_failing: bool,
    /// What the next compaction would take, bytes, where there is no room for it.
    wanted_bytes: Option<u64>,
    not_before_ms: u64,
    next_ms: u64,
}

impl Compacting {
    /// From now on, milliseconds of the monotonic clock.
    pub fn start(catalogue: Arc<Catalogue>, options: CompactingOptions, now_ms: u64) -> Self {
        Self {
            catalogue,
            options,
            pressure: Pressure::default(),
            is_failing: false,
            wanted_bytes: None,
            not_before_ms: 0,
            next_ms: now_ms + PAUSE_MS,
        }
    }

    /// When it is to be turned again, milliseconds of the monotonic clock.
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// What the next compaction would take, bytes, where there is no room for it; else 0.
    pub fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes.unwrap_or(0)
    }

    /// Compacts once if there is something to compact; says what happened, in order. `room_bytes`: what
    /// may be written now.
    pub fn turn(&mut self, clock: &dyn Fn() -> Now, room_bytes: u64, load: Load) -> Vec<Happened> {
        let start_ms = clock().monotonic_us / 1000;
        let mut happened = Vec::new();
        self.next_ms = start_ms + PAUSE_MS;
        if self.pressure.holds_back(start_ms, load) {
            self.next_ms = start_ms + self.options.held_back_pause_ms;
        } else if start_ms >= self.not_before_ms {
            self.compact(clock, room_bytes, &mut happened);
        }
        let removals = self.catalogue.remove_replaced().failed.into_iter();
        happened.extend(removals.map(|(path, error)| Happened::NotRemoved(path, error)));
        happened
    }

    fn compact(&mut self, clock: &dyn Fn() -> Now, room_bytes: u64, happened: &mut Vec<Happened>) {
        let limits = CompactionLimits { room_bytes, ..self.options.limits };
        let start_us = clock().monotonic_us;
        let result = compact(&self.catalogue, &limits, self.options.writer, &self.options.cancel);
        let end_us = clock().monotonic_us;
        let end_ms = end_us / 1000;
        self.next_ms = end_ms + PAUSE_MS;
        match result {
            Ok(done) => {
                if std::mem::take(&mut self.is_failing) {
                    happened.push(Happened::WorksAgain);
                }
                let is_found = done.is_some();
                if let Some(done) = done {
                    let spent_us = end_us.saturating_sub(start_us);
                    happened.push(Happened::Compacted { done, spent_us });
                    // There may be more to do: look again at once.
                    self.next_ms = end_ms;
                }
                happened.extend(self.note_wanted(&limits, is_found));
            }
            Err(CompactionError::Cancelled) => {}
            Err(error) => {
                let is_news = !std::mem::replace(&mut self.is_failing, true);
                happened.push(Happened::Failed { error, is_news });
                self.not_before_ms = end_ms + BACK_OFF_MS;
            }
        }
    }

    /// Notes whether a compaction waits for room; what is new about it.
    fn note_wanted(&mut self, limits: &CompactionLimits, is_found: bool) -> Option<Happened> {
        let wanted_bytes = if is_found || limits.room_bytes >= limits.segment_bytes_max {
            None
        } else {
            let mergeable = mergeable(&self.catalogue);
            let metas: Vec<_> = mergeable.iter().map(|s| *s.meta()).collect();
            room_wanted_bytes(&metas, self.catalogue.open_volume(), limits)
        };
        let before = std::mem::replace(&mut self.wanted_bytes, wanted_bytes);
        match (before, wanted_bytes) {
            (None, Some(wanted_bytes)) => {
                let room_bytes = limits.room_bytes;
                Some(Happened::LacksRoom { wanted_bytes, room_bytes })
            }
            (Some(_), None) => Some(Happened::HasRoom),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::StoreDirectory;
    use crate::store::name::IdSource;
    use crate::store::testing::{SMALL, record, write};
    use crate::ulid::Ulid;

    struct Fixture {
        sim: SimStorage,
        catalogue: Arc<Catalogue>,
        compacting: Compacting,
    }

    /// Segments of which each four become one.
    fn with_segments(count: u64) -> Fixture {
        let sim = SimStorage::new(1);
        let path = PathBuf::from("/store");
        sim.create_dir_all(&path).unwrap();
        let (storage, ids) = (Arc::new(sim.clone()), IdSource::seeded(3));
        let directory = Arc::new(StoreDirectory::new(storage, path, ids));
        let records = |n| (n * 20..n * 20 + 20).map(|n| record(1, n)).collect::<Vec<_>>();
        let segments = (0..count).map(|n| write(&directory, SMALL, &records(n))).collect();
        let catalogue = Arc::new(Catalogue::new(directory, segments, Ulid::MIN));
        let limits = CompactionLimits { group_max: 4, small_group_max: 4, ..Default::default() };
        let options = CompactingOptions {
            limits,
            writer: SMALL,
            held_back_pause_ms: 25,
            cancel: Arc::default(),
        };
        Fixture {
            sim,
            compacting: Compacting::start(Arc::clone(&catalogue), options, 0),
            catalogue,
        }
    }

    impl Fixture {
        fn turn(&mut self, now_ms: u64, room_bytes: u64) -> Vec<Happened> {
            let now = Now { monotonic_us: now_ms * 1000, wall_ms: now_ms };
            self.compacting.turn(&|| now, room_bytes, Load::default())
        }
    }

    #[test]
    fn it_goes_on_at_once_while_there_is_something_to_compact_and_then_looks_now_and_then() {
        let mut f = with_segments(4);
        let happened = f.turn(7, u64::MAX);
        assert!(matches!(happened[..], [Happened::Compacted { .. }]), "{happened:?}");
        assert_eq!((f.compacting.next_ms(), f.catalogue.snapshot().len()), (7, 1));
        assert_eq!(f.sim.files().len(), 1, "what was replaced is gone");
        assert!(f.turn(7, u64::MAX).is_empty());
        assert_eq!(f.compacting.next_ms(), 7 + PAUSE_MS);
    }

    #[test]
    fn a_failure_is_told_and_tried_again_after_a_pause() {
        let mut f = with_segments(4);
        f.sim.fail(Fault::random(Call::Create, 1.0, FaultError::Io));
        for (start_ms, is_first) in [(0, true), (BACK_OFF_MS, false)] {
            let happened = f.turn(start_ms, u64::MAX);
            let [Happened::Failed { is_news, .. }] = happened[..] else { panic!("{happened:?}") };
            assert_eq!(is_news, is_first);
            assert!(f.turn(start_ms + BACK_OFF_MS - 1, u64::MAX).is_empty(), "not yet");
        }
        f.sim.clear_faults();
        let happened = f.turn(2 * BACK_OFF_MS, u64::MAX);
        let is_over = matches!(happened[..], [Happened::WorksAgain, Happened::Compacted { .. }]);
        assert!(is_over, "{happened:?}");
    }

    #[test]
    fn a_compaction_without_room_is_told_once_until_it_has_some() {
        let mut f = with_segments(4);
        let happened = f.turn(0, 10);
        let [Happened::LacksRoom { wanted_bytes, room_bytes: 10 }] = happened[..] else {
            panic!("{happened:?}")
        };
        assert_eq!(f.compacting.wanted_bytes(), wanted_bytes);
        assert!(f.turn(500, 10).is_empty());
        let happened = f.turn(1000, u64::MAX);
        let is_over = matches!(happened[..], [Happened::Compacted { .. }, Happened::HasRoom]);
        assert!(is_over, "{happened:?}");
        assert_eq!(f.compacting.wanted_bytes(), 0);
    }

    #[test]
    fn room_is_wanted_only_for_what_can_be_merged() {
        let mut f = with_segments(4);
        for unread in &f.catalogue.snapshot()[1..] {
            let name = unread.path().file_name().unwrap().to_str().unwrap().to_owned();
            f.sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(&name));
            assert!(unread.open_alone().is_err() && unread.is_unread());
        }
        assert!(f.turn(0, 10).is_empty(), "one is too few");
        assert_eq!(f.compacting.wanted_bytes(), 0);
    }

    #[test]
    fn nothing_is_begun_while_shards_wait_for_the_disk() {
        let mut f = with_segments(4);
        let burst = Load { pauses: 1, backlog_bytes: 0, backlog_max_bytes: 100 };
        let at = |ms: u64| move || Now { monotonic_us: ms * 1000, wall_ms: ms };
        assert!(f.compacting.turn(&at(7), u64::MAX, burst).is_empty());
        assert_eq!(f.compacting.next_ms(), 7 + 25);
        assert_eq!(f.compacting.turn(&at(1000), u64::MAX, burst).len(), 1);
    }
}
