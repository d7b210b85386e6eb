//! Carries out what [`retention`](super::retention) decides, on one thread.
//!
//! Invariants: as those of the plan and of the [`trash`](super::trash); a failed step is told,
//! and the next turn tries it again; one turn does at most a bounded number of rounds.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::storage::Refusal;

use super::catalogue::Catalogue;
use super::inventory::INVENTORY_FILE;
use super::retention::{ClockWatch, Kept, RetentionLimits, RetentionPlan, Stock, plan};
use super::segment::StoreSegment;
use super::trash::{Moved, Trashed};
use super::volume::VolumeLimits;

/// Rounds of one turn: expired segments go to the trash in the first, and where the size asks for
/// it they leave it in the next; the last finds nothing to do.
const ROUNDS_MAX: usize = 4;
/// Time between two saves of the inventory while nothing is let go, milliseconds: what was published
/// since the last one is not missed if it vanishes.
const SAVE_EVERY_MS: u64 = 10_000;
/// How long files wait that are to go while the inventory can be neither read nor written, milliseconds
/// of the monotonic clock; then it is given up. On a full disk it is given up at once.
const INVENTORY_PATIENCE_MS: u64 = 600_000;

/// Less free room counts as a full disk, bytes: it may be too little for an inventory.
const ROOM_BYTES_MIN: u64 = 1 << 20;

/// What is done with the inventory, in words.
const KEEP: &str = "read or write";

/// What a turn did, for logs and metrics.
#[derive(Debug, Default)]
pub struct RetentionTurn {
    /// Segments that left the catalogue because of their age.
    pub expired_count: u64,
    /// Segments that left it because the directory holds too much.
    pub surplus_count: u64,
    /// Files that were moved to the trash.
    pub trashed: Vec<Trashed>,
    /// Files that were purged.
    pub purged: Vec<Trashed>,
    /// What was tried on which file and why it failed.
    pub failed: Vec<(&'static str, PathBuf, io::Error)>,
    /// The wall clock was set: nothing goes by age.
    pub is_paused: bool,
    /// Files are to go and stay, because the inventory can be neither read nor written.
    pub is_held: bool,
    /// The inventory was removed, so that they can go.
    pub has_given_up: bool,
}

/// See the module page.
#[derive(Debug)]
pub struct Retention {
    limits: RetentionLimits,
    watch: ClockWatch,
    /// It is not known whether the clock was set before the start.
    is_unsure: bool,
    /// When the inventory is saved again at the latest, monotonic milliseconds.
    save_ms: u64,
    /// Since when files wait for the inventory, monotonic milliseconds.
    waits_since_ms: Option<u64>,
}

impl Retention {
    /// Ready to turn; `watch` has seen the clocks at the start.
    pub const fn new(limits: RetentionLimits, watch: ClockWatch) -> Self {
        Self { limits, watch, is_unsure: false, save_ms: 0, waits_since_ms: None }
    }

    /// The clock was set not long before the start.
    pub const fn clock_was_set(&mut self, monotonic_ms: u64) {
        self.watch = self.watch.set_lately(monotonic_ms);
    }

    /// Whether it is not known yet if the clock was set before the start: nothing expires by age.
    pub const fn set_unsure(&mut self, is_unsure: bool) {
        self.is_unsure = is_unsure;
    }

    /// Lets expire and purges what is due. Both clocks in milliseconds, the wall clock's since
    /// 1970.
    pub fn turn(
        &mut self,
        catalogue: &Catalogue,
        monotonic_ms: u64,
        wall_ms: u64,
    ) -> RetentionTurn {
        let is_paused = !self.watch.is_trusted(monotonic_ms, wall_ms) || self.is_unsure;
        // What is to expire together is kept together.
        catalogue.tick_volume(wall_ms, &VolumeLimits::of_retention(self.limits.retain_ms));
        let mut turn = RetentionTurn { is_paused, ..RetentionTurn::default() };
        if !is_paused {
            catalogue.set_horizon(wall_ms.saturating_sub(self.limits.retain_ms));
        }
        for _ in 0..ROUNDS_MAX {
            let now_ms = (!is_paused).then_some(wall_ms);
            let due = self.due(catalogue, now_ms);
            assert!(
                !is_paused || due.expired.is_empty(),
                "nothing expires while the clock is not trusted: {}",
                due.expired[0].path().display()
            );
            turn.expired_count += due.expired.len() as u64;
            turn.surplus_count += due.surplus.len() as u64;
            catalogue.retire(&due.expired);
            catalogue.retire(&due.surplus);
            catalogue.let_go_trashed(&due.purged);
            // Who holds one keeps its file where it is.
            drop((due.expired, due.surplus));
            self.keep_inventory(catalogue, monotonic_ms, &mut turn);
            let moved = catalogue.move_to_trash(wall_ms);
            let purged = catalogue.purge(&due.purged);
            let is_done = moved.done.is_empty() && purged.done.is_empty();
            let has_failed = !moved.failed.is_empty() || !purged.failed.is_empty();
            let Moved { done, failed } = moved;
            turn.trashed.extend(done);
            turn.failed.extend(failed);
            turn.purged.extend(purged.done);
            turn.failed.extend(purged.failed);
            if is_done || has_failed {
                break;
            }
        }
        turn
    }

    /// Saves the inventory, if it is time: before files go that it speaks of, and now and then.
    fn keep_inventory(
        &mut self,
        catalogue: &Catalogue,
        monotonic_ms: u64,
        turn: &mut RetentionTurn,
    ) {
        let is_settled = catalogue.is_settled();
        if is_settled && monotonic_ms < self.save_ms {
            return;
        }
        self.save_ms = monotonic_ms + SAVE_EVERY_MS;
        let Err(error) = catalogue.save_inventory() else {
            (self.waits_since_ms, turn.is_held) = (None, false);
            return;
        };
        let path = catalogue.directory().path.join(INVENTORY_FILE);
        if !is_settled {
            let given_up = self.give_up_inventory(catalogue, monotonic_ms, &error);
            turn.is_held = !matches!(given_up, Ok(true));
            turn.has_given_up |= !turn.is_held;
            if let Err(error) = given_up {
                turn.failed.push(("remove", path, error));
                return;
            }
        }
        turn.failed.push((KEEP, path, error));
    }

    /// Files wait for the inventory, which was refused like this: removes it, if it is time; says whether
    /// it did.
    fn give_up_inventory(
        &mut self,
        catalogue: &Catalogue,
        monotonic_ms: u64,
        error: &io::Error,
    ) -> io::Result<bool> {
        let since_ms = *self.waits_since_ms.get_or_insert(monotonic_ms);
        let refusal = Refusal::from(error);
        let is_hopeless = refusal.is_no_room() || refusal.is_no_file() || is_full(catalogue);
        let is_over = is_hopeless || monotonic_ms.saturating_sub(since_ms) >= INVENTORY_PATIENCE_MS;
        if is_over {
            catalogue.forget_inventory()?;
            self.waits_since_ms = None;
        }
        Ok(is_over)
    }

    fn due(&self, catalogue: &Catalogue, now_ms: Option<u64>) -> Due {
        let (segments, trash) = (catalogue.snapshot(), catalogue.trash());
        let kept: Vec<Kept> = segments.iter().map(kept_of).collect();
        let leaving_bytes = catalogue.leaving_bytes();
        let stock = Stock { kept: &kept, trash: &trash, leaving_bytes };
        let RetentionPlan { expired, surplus, purged } = plan(&stock, &self.limits, now_ms);
        let published =
            |places: Vec<usize>| places.iter().map(|at| Arc::clone(&segments[*at])).collect();
        let purged = purged.iter().map(|at| trash[*at].clone()).collect();
        Due { expired: published(expired), surplus: published(surplus), purged }
    }
}

/// What goes next.
struct Due {
    expired: Vec<Arc<StoreSegment>>,
    surplus: Vec<Arc<StoreSegment>>,
    purged: Vec<Trashed>,
}

/// Whether an inventory could not be written for want of room, whatever else keeps it from that.
fn is_full(catalogue: &Catalogue) -> bool {
    let directory = catalogue.directory();
    let space = directory.storage.space(&directory.path);
    space.is_ok_and(|space| space.total_bytes > 0 && space.free_bytes < ROOM_BYTES_MIN)
}

fn kept_of(segment: &Arc<StoreSegment>) -> Kept {
    let meta = segment.meta();
    Kept { id: meta.id, last: segment.reach(), file_bytes: meta.file_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::recover::recover;
    use crate::store::testing::{Record, SMALL, directory, read_all, record, write};
    use crate::ulid::Ulid;
    use std::fs;

    const DAY_MS: u64 = 86_400_000;
    const LIMITS: RetentionLimits =
        RetentionLimits { retain_ms: 7 * DAY_MS, purge_ms: DAY_MS, size_bytes_max: None };

    fn records(from: u64, to: u64) -> Vec<Record> {
        (from..to).map(|n| record(1, n)).collect()
    }

    fn names(path: &std::path::Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_segment_goes_to_the_trash_after_its_time_and_from_there_after_its_time() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 20));
        let newest_ms = segment.meta().last.ms();
        let catalogue = Catalogue::new(Arc::clone(&directory), vec![segment], Ulid::MIN);
        let mut clock = (0, newest_ms);
        let mut retention = Retention::new(LIMITS, ClockWatch::start(0, newest_ms, newest_ms));
        let mut turn = |catalogue: &Catalogue, ms: u64| {
            clock = (clock.0 + ms, clock.1 + ms);
            let turn = retention.turn(catalogue, clock.0, clock.1);
            assert!(turn.failed.is_empty());
            (turn.trashed.len(), turn.purged.len(), turn.is_paused)
        };
        assert_eq!(turn(&catalogue, 7 * DAY_MS - 1), (0, 0, false));
        assert_eq!(turn(&catalogue, 1), (1, 0, false));
        assert!(catalogue.snapshot().is_empty());
        assert_eq!(turn(&catalogue, DAY_MS - 1), (0, 0, false));
        // A restart changes nothing: the time is in the name.
        let again = recover(&directory, 0).unwrap();
        assert!(again.catalogue.snapshot().is_empty());
        assert_eq!(again.catalogue.trash(), catalogue.trash());
        assert_eq!(again.newest.ms(), newest_ms, "stamps go on behind what has expired");
        assert!(again.notes.is_empty() && again.damage.is_empty());
        assert_eq!(turn(&again.catalogue, 1), (0, 1, false));
        assert_eq!(names(temp.path()), Vec::<String>::new());
    }

    #[test]
    fn what_was_trashed_by_hand_counts_from_the_start_and_can_be_taken_back() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 20));
        let name = segment.path().file_name().unwrap().to_str().unwrap().to_owned();
        let trashed = segment.path().with_extension("trashed");
        fs::rename(segment.path(), &trashed).unwrap();
        let recovered = recover(&directory, 5_000).unwrap();
        assert!(recovered.catalogue.snapshot().is_empty());
        assert_eq!(recovered.catalogue.trash()[0].at_ms, 5_000);
        fs::rename(&trashed, temp.path().join(&name)).unwrap();
        let recovered = recover(&directory, 6_000).unwrap();
        assert_eq!(read_all(&recovered.catalogue.snapshot()[0]).0, records(0, 20));
    }

    #[test]
    fn a_segment_that_cannot_be_read_expires_by_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 20));
        let newest_ms = segment.meta().last.ms();
        let len = fs::read(segment.path()).unwrap().len();
        for (bytes, what) in [(vec![0; len], "zeros"), (b"x".to_vec(), "cut")] {
            fs::write(segment.path(), bytes).unwrap();
            let recovered = recover(&directory, 0).unwrap();
            let watch = ClockWatch::start(0, newest_ms, newest_ms);
            let mut retention = Retention::new(LIMITS, watch);
            let mut turn = |ms: u64| {
                let turn = retention.turn(&recovered.catalogue, ms, newest_ms + ms);
                assert!(turn.failed.is_empty());
                (turn.trashed.len(), turn.purged.len())
            };
            assert_eq!(turn(7 * DAY_MS - 1), (0, 0), "{what}");
            assert_eq!(turn(7 * DAY_MS), (1, 0), "{what}");
            assert_eq!(turn(8 * DAY_MS), (0, 1), "{what}");
            assert_eq!(names(temp.path()), [INVENTORY_FILE]);
        }
    }

    #[test]
    fn a_clock_set_far_ahead_and_right_again_costs_nothing() {
        const HOUR_MS: u64 = 3_600_000;
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 20));
        let start_ms = segment.meta().last.ms();
        let catalogue = Catalogue::new(directory, vec![segment], Ulid::MIN);
        let mut retention = Retention::new(LIMITS, ClockWatch::start(0, start_ms, start_ms));
        let mut trashed = |monotonic_ms: u64, ahead_ms: u64| {
            let turn = retention.turn(&catalogue, monotonic_ms, start_ms + monotonic_ms + ahead_ms);
            assert_eq!(turn.purged.len(), 0);
            (turn.is_paused, turn.trashed.len())
        };
        assert_eq!(trashed(1_000, 0), (false, 0));
        for minute in 1..50 {
            assert_eq!(trashed(minute * 60_000, 30 * DAY_MS), (true, 0));
        }
        // Set right again: that is a step, too.
        assert_eq!(trashed(50 * 60_000, 0), (true, 0));
        assert_eq!(trashed(50 * 60_000 + HOUR_MS, 0), (false, 0), "nothing has expired");
        // A clock that stays where it was set is believed in the end.
        assert_eq!(trashed(3 * HOUR_MS, 8 * DAY_MS), (true, 0));
        assert_eq!(trashed(4 * HOUR_MS, 8 * DAY_MS), (false, 1));
    }

    #[test]
    fn too_large_a_directory_loses_its_oldest_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segments: Vec<_> =
            (0..5).map(|n| write(&directory, SMALL, &records(n * 20, n * 20 + 20))).collect();
        let bytes: Vec<u64> = segments.iter().map(|s| s.meta().file_bytes).collect();
        let max = bytes[3] + bytes[4] + 1;
        let limits = RetentionLimits { size_bytes_max: Some(max), ..LIMITS };
        let catalogue = Catalogue::new(directory, segments, Ulid::MIN);
        let mut retention = Retention::new(limits, ClockWatch::default());
        let turn = retention.turn(&catalogue, 0, 0);
        assert_eq!((turn.surplus_count, turn.expired_count), (3, 0));
        assert_eq!((turn.trashed.len(), turn.purged.len()), (3, 3));
        let left: Vec<Record> =
            catalogue.snapshot().iter().flat_map(|segment| read_all(segment).0).collect();
        assert_eq!(left, records(60, 100));
        assert_eq!(names(temp.path()).len(), 2);
        let turn = retention.turn(&catalogue, 1, 1);
        assert!(turn.trashed.is_empty() && turn.purged.is_empty());
    }
}
