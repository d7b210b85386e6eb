//! Retention, turn by turn: store segments expire, and with them what of the ingest side could not be
//! read for as long as records are kept.
//!
//! Invariants: as those of [`crate::store::retention`]; nothing of the ingest side goes while the clock
//! is not trusted, and a restart ends no pause ([`crate::store::clock_note`]). A failure makes it wait; a
//! change of state is news once.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ingest::log::Now;
use crate::ingest::registry::Registry;
use crate::store::catalogue::Catalogue;
use crate::store::clock_note::{CLOCK_NOTE_FILE, ClockNote};
use crate::store::retention::{ClockWatch, RetentionLimits};
use crate::store::retention_run::{Retention, RetentionTurn};

use super::Node;

/// Time between looks at what has expired, ms.
const BEAT_MS: u64 = 1_000;
/// The same after a failure.
const BACK_OFF_MS: u64 = 10_000;

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The clock was set, or is far ahead of the newest record: nothing expires by age.
    ClockDistrusted,
    /// Records expire by age again.
    ClockTrusted,
    /// What has expired stays: the inventory can be neither read nor written.
    Held,
    /// It was removed for that, and files go without it.
    InventoryGivenUp,
    /// Something failed.
    Failing,
    /// Nothing fails any more.
    WorksAgain,
}

/// What a turn did.
#[derive(Debug, Default)]
pub struct Expired {
    /// What became of store segments, and what failed on either side.
    pub done: RetentionTurn,
    /// Files of the ingest side that are gone: they could not be read for too long.
    pub unreadable: Vec<PathBuf>,
    /// What is otherwise than it was.
    pub news: Vec<News>,
}

/// See the module page.
pub struct Expiring {
    retention: Retention,
    note: ClockNote,
    retain_ms: u64,
    catalogue: Arc<Catalogue>,
    ingest: Option<Arc<Registry>>,
    next_ms: u64,
    is_paused: bool,
    is_held: bool,
    is_failing: bool,
}

impl Expiring {
    /// Of a node that keeps records, from now on; `None` for one that does not.
    pub fn start(node: &Node, limits: RetentionLimits, now: Now) -> Option<Self> {
        let catalogue = Arc::clone(&node.store.as_ref()?.catalogue);
        let now_ms = now.monotonic_us / 1000;
        let watch = ClockWatch::start(now_ms, now.wall_ms, node.newest_ms);
        Some(Self {
            note: ClockNote::of(Arc::clone(catalogue.directory())),
            retention: Retention::new(limits, watch),
            retain_ms: limits.retain_ms,
            catalogue,
            ingest: node.ingest.as_ref().map(|ingest| Arc::clone(&ingest.registry)),
            next_ms: 0,
            is_paused: false,
            is_held: false,
            is_failing: false,
        })
    }

    /// When it is to be turned again, milliseconds of the monotonic clock.
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Does what is due; `None`: nothing was yet.
    pub fn turn(&mut self, now: Now) -> Option<Expired> {
        let now_ms = now.monotonic_us / 1000;
        if now_ms < self.next_ms {
            return None;
        }
        let mut turn = Expired::default();
        let found = self.note.find();
        if matches!(found, Ok(Some(true))) {
            self.retention.clock_was_set(now_ms);
        }
        // Until it is known whether the clock may be trusted, nothing goes by its age.
        self.retention.set_unsure(found.is_err());
        turn.done = self.retention.turn(&self.catalogue, now_ms, now.wall_ms);
        if let Err(error) = found {
            turn.done.failed.push(("look for", self.note_path(), error));
            return Some(self.ended(now_ms, turn, self.is_paused));
        }
        // What would have been the oldest is not missed when the oldest goes for want of room.
        let newest_gone_ms = turn.done.trashed.iter().map(|gone| gone.last.ms()).max();
        if let Some((ingest, until_ms)) = self.ingest.as_ref().zip(newest_gone_ms) {
            ingest.let_go_missing(until_ms);
        }
        if let Some(ingest) = self.ingest.as_ref().filter(|_| !turn.done.is_paused) {
            let horizon_ms = now.wall_ms.saturating_sub(self.retain_ms);
            let (gone, errors) = ingest.expire_unread(horizon_ms);
            turn.unreadable = gone;
            ingest.let_go_missing(horizon_ms);
            let errors = errors.into_iter().map(|e| (e.operation, e.path, e.error));
            turn.done.failed.extend(errors);
        }
        if let Err(error) = self.note.keep(turn.done.is_paused) {
            turn.done.failed.push(("make or remove", self.note_path(), error));
        }
        let is_paused = turn.done.is_paused;
        Some(self.ended(now_ms, turn, is_paused))
    }

    fn note_path(&self) -> PathBuf {
        self.catalogue.directory().path.join(CLOCK_NOTE_FILE)
    }

    /// What is otherwise than after the turn before, and when the next one is due.
    fn ended(&mut self, now_ms: u64, mut turn: Expired, is_paused: bool) -> Expired {
        let is_failing = !turn.done.failed.is_empty();
        self.next_ms = now_ms + if is_failing { BACK_OFF_MS } else { BEAT_MS };
        if std::mem::replace(&mut self.is_paused, is_paused) != is_paused {
            turn.news.push(if is_paused { News::ClockDistrusted } else { News::ClockTrusted });
        }
        if !std::mem::replace(&mut self.is_held, turn.done.is_held) && turn.done.is_held {
            turn.news.push(News::Held);
        }
        if turn.done.has_given_up {
            turn.news.push(News::InventoryGivenUp);
        }
        if std::mem::replace(&mut self.is_failing, is_failing) != is_failing {
            turn.news.push(if is_failing { News::Failing } else { News::WorksAgain });
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::StoreSide;
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::StoreDirectory;
    use crate::store::name::IdSource;
    use crate::store::recover::recover;
    use crate::store::retention::CLOCK_PAUSE_MS;
    use crate::store::testing::{SMALL, directory, record, write};
    use std::path::Path;

    const DAY_MS: u64 = 86_400_000;
    const LIMITS: RetentionLimits =
        RetentionLimits { retain_ms: 7 * DAY_MS, purge_ms: DAY_MS, size_bytes_max: None };

    #[test]
    fn a_restart_does_not_end_the_pause_after_the_clock_was_set() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &[record(1, 0)]);
        let start_ms = segment.meta().last.ms();
        drop(segment);
        // A record that was stamped meanwhile makes the clock look right.
        let life = |newest_ms, now| {
            let catalogue = Arc::new(recover(&directory, start_ms).unwrap().catalogue);
            let store = Some(StoreSide { catalogue });
            Expiring::start(&Node { ingest: None, store, newest_ms }, LIMITS, now).unwrap()
        };
        let at = |monotonic_ms: u64, wall_ms| Now { monotonic_us: monotonic_ms * 1000, wall_ms };
        let ahead_ms = start_ms + 9 * DAY_MS;
        let went = |turn: Option<Expired>| {
            let done = turn.expect("it is due").done;
            assert!(done.failed.is_empty());
            (done.is_paused, done.trashed.len())
        };
        let mut first = life(start_ms, at(0, start_ms));
        assert_eq!(went(first.turn(at(0, start_ms))), (false, 0));
        assert_eq!(went(first.turn(at(1_000, ahead_ms))), (true, 0));
        let mut second = life(ahead_ms, at(50, ahead_ms));
        assert_eq!(went(second.turn(at(50, ahead_ms))), (true, 0));
        // Set right by another restart: nothing is gone.
        let mut third = life(ahead_ms, at(20, start_ms));
        assert_eq!(went(third.turn(at(20, start_ms))), (true, 0));
        let later = at(20 + CLOCK_PAUSE_MS, start_ms + CLOCK_PAUSE_MS);
        assert_eq!(went(third.turn(later)), (false, 0));
        // A clock that stays where it was set is believed in the end, whatever is started.
        let mut fourth = life(start_ms, at(10, start_ms));
        assert_eq!(went(fourth.turn(at(10, start_ms))), (false, 0));
        assert_eq!(went(fourth.turn(at(2_000, ahead_ms))), (true, 0));
        let mut fifth = life(ahead_ms, at(0, ahead_ms));
        assert_eq!(went(fifth.turn(at(0, ahead_ms))), (true, 0));
        let later = at(CLOCK_PAUSE_MS, ahead_ms + CLOCK_PAUSE_MS);
        assert_eq!(went(fifth.turn(later)), (false, 1));
    }

    #[test]
    fn while_the_note_cannot_be_looked_up_records_go_by_size_and_not_by_age() {
        let sim = SimStorage::new(1);
        sim.create_dir_all(Path::new("/store")).unwrap();
        let storage = Arc::new(sim.clone());
        let directory = StoreDirectory::new(storage, "/store".into(), IdSource::seeded(1));
        let directory = Arc::new(directory);
        let segments = [0, 1].map(|n| write(&directory, SMALL, &[record(1, n)]));
        let start_ms = segments[1].meta().last.ms();
        let size_bytes_max = Some(segments[1].meta().file_bytes);
        drop(segments);
        sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(CLOCK_NOTE_FILE));
        let catalogue = Arc::new(recover(&directory, start_ms).unwrap().catalogue);
        let store = Some(StoreSide { catalogue: Arc::clone(&catalogue) });
        let node = Node { ingest: None, store, newest_ms: start_ms + 8 * DAY_MS };
        let at = |s: u64| Now { monotonic_us: s * 1_000_000, wall_ms: start_ms + 8 * DAY_MS };
        let limits = RetentionLimits { size_bytes_max, ..LIMITS };
        let mut expiring = Expiring::start(&node, limits, at(0)).unwrap();
        let turn = expiring.turn(at(0)).unwrap();
        assert!(turn.done.is_paused && turn.news == [News::Failing]);
        assert_eq!(turn.done.failed.len(), 1);
        assert_eq!((turn.done.surplus_count, catalogue.totals().segment_count), (1, 1));
        sim.clear_faults();
        let turn = expiring.turn(at(BACK_OFF_MS / 1000)).unwrap();
        assert_eq!((turn.news, turn.done.is_paused), (vec![News::WorksAgain], false));
        assert_eq!(catalogue.totals().segment_count, 0, "and now by age");
    }
    #[test]
    fn what_keeps_expired_records_is_told_once_and_that_it_was_given_up() {
        let sim = SimStorage::new(1);
        sim.create_dir_all(Path::new("/store")).unwrap();
        let storage = Arc::new(sim.clone());
        let directory = StoreDirectory::new(storage, "/store".into(), IdSource::seeded(1));
        let directory = Arc::new(directory);
        let start_ms = write(&directory, SMALL, &[record(1, 0)]).meta().last.ms();
        let catalogue = Arc::new(recover(&directory, start_ms).unwrap().catalogue);
        let store = Some(StoreSide { catalogue });
        let node = Node { ingest: None, store, newest_ms: start_ms + 8 * DAY_MS };
        let at = |s: u64| Now { monotonic_us: s * 1_000_000, wall_ms: start_ms + 8 * DAY_MS };
        let mut expiring = Expiring::start(&node, LIMITS, at(0)).unwrap();
        sim.fail(Fault::random(Call::Create, 1.0, FaultError::Io).of("INVENTORY"));
        let mut turn = |s| {
            let turn = expiring.turn(at(s)).unwrap();
            (turn.news, turn.done.trashed.len())
        };
        assert_eq!(turn(0), (vec![News::Held, News::Failing], 0));
        assert_eq!(turn(300), (vec![], 0));
        assert_eq!(turn(600), (vec![News::InventoryGivenUp], 1));
        sim.clear_faults();
        assert_eq!(turn(700), (vec![News::WorksAgain], 0));
    }
}
