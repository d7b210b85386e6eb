//! What expires, what goes to the trash and what is purged from there: a pure function of what
//! there is and of the time.
//!
//! - By age: a segment whose newest record is as old as the retention goes to the trash; a file
//!   that has been in the trash for the purge time goes for good.
//! - By size: while the directory holds more than it may, the trash is purged first, oldest
//!   first, before its time; then the oldest segments follow, through the trash and out of it.
//!
//! Invariants: nothing unexpired goes unless the size asks for it, and then only the oldest and
//! no more of it than needed; nothing goes by age while the clock is not trusted. The size rule
//! looks at no clock, so it goes on then. Temporary files and replaced segments that are still
//! read do not count: they go by themselves, what is purged does not come back.

use crate::ulid::Ulid;

use super::name::SegmentId;
use super::trash::Trashed;

/// What an operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionLimits {
    /// Age of a segment's newest record at which it goes to the trash, milliseconds.
    pub retain_ms: u64,
    /// Time in the trash before a file is purged, milliseconds.
    pub purge_ms: u64,
    /// What the store directory may hold, trash included, bytes; `None`: no bound.
    pub size_bytes_max: Option<u64>,
}

/// A published segment, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its identity.
    pub id: SegmentId,
    /// Its newest record; of a damaged segment the one that its name gives.
    pub last: Ulid,
    /// Its file, bytes.
    pub file_bytes: u64,
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Stock<'a> {
    /// Published segments.
    pub kept: &'a [Kept],
    /// Files in the trash.
    pub trash: &'a [Trashed],
    /// Segments that have expired, but are still held by queries, bytes.
    pub leaving_bytes: u64,
}

/// What is to be done. Of two with the same id, one of which is a copy under another name, each goes in its
/// own time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Published segments that have expired: their places in the list.
    pub expired: Vec<usize>,
    /// Published segments that go because the directory holds too much: the same.
    pub surplus: Vec<usize>,
    /// Files to be purged: their places in the list of the trash.
    pub purged: Vec<usize>,
}

/// The next step. `now_ms` is the wall clock, milliseconds since 1970; `None` while it is not
/// trusted. Applied again and again, with everything it asks for done, it comes to an end.
pub fn plan(stock: &Stock<'_>, limits: &RetentionLimits, now_ms: Option<u64>) -> RetentionPlan {
    let mut plan = RetentionPlan::default();
    if let Some(now_ms) = now_ms {
        let is_expired = |kept: &Kept| expires_ms(kept.last, limits) <= now_ms;
        plan.expired = (0..stock.kept.len()).filter(|at| is_expired(&stock.kept[*at])).collect();
        let is_due = |file: &Trashed| purge_due_ms(file, limits, now_ms) <= now_ms;
        plan.purged = (0..stock.trash.len()).filter(|at| is_due(&stock.trash[*at])).collect();
    }
    if let Some(max) = limits.size_bytes_max {
        plan_size(stock, max, &mut plan);
    }
    plan
}

const fn expires_ms(last: Ulid, limits: &RetentionLimits) -> u64 {
    last.ms().saturating_add(limits.retain_ms)
}

/// A time of trashing that is yet to come was taken from a clock that was wrong: the records
/// themselves then say when they should have expired.
const fn purge_due_ms(file: &Trashed, limits: &RetentionLimits, now_ms: u64) -> u64 {
    let since_ms = if file.at_ms <= now_ms { file.at_ms } else { expires_ms(file.last, limits) };
    since_ms.saturating_add(limits.purge_ms)
}

fn plan_size(stock: &Stock<'_>, max: u64, plan: &mut RetentionPlan) {
    let in_trash: u64 = stock.trash.iter().map(|file| file.file_bytes).sum();
    let kept: u64 = stock.kept.iter().map(|kept| kept.file_bytes).sum();
    let mut excess = (in_trash + kept + stock.leaving_bytes).saturating_sub(max);
    let mut trash: Vec<_> = stock.trash.iter().enumerate().collect();
    trash.sort_by_key(|(_, file)| (file.last, file.id));
    // What goes by age counts first, so that nothing more goes than has to.
    let (due, early): (Vec<_>, Vec<_>) =
        trash.into_iter().partition(|(at, _)| plan.purged.contains(at));
    excess = excess.saturating_sub(due.iter().map(|(_, file)| file.file_bytes).sum::<u64>());
    for (at, file) in early {
        if excess == 0 {
            return;
        }
        plan.purged.push(at);
        excess = excess.saturating_sub(file.file_bytes);
    }
    // What is on its way to the trash will be purged there, if it is still too much then.
    excess = excess.saturating_sub(stock.leaving_bytes);
    let mut segments: Vec<_> = stock.kept.iter().enumerate().collect();
    segments.sort_by_key(|(_, kept)| (kept.last, kept.id));
    let (expired, unexpired): (Vec<_>, Vec<_>) =
        segments.into_iter().partition(|(at, _)| plan.expired.contains(at));
    excess = excess.saturating_sub(expired.iter().map(|(_, kept)| kept.file_bytes).sum::<u64>());
    for (at, kept) in unexpired {
        if excess == 0 {
            return;
        }
        plan.surplus.push(at);
        excess = excess.saturating_sub(kept.file_bytes);
    }
}

/// A difference between the clocks from which on the wall clock counts as set, milliseconds.
pub const CLOCK_STEP_MS: u64 = 10 * 60 * 1000;
/// How long it is not trusted then, milliseconds of the monotonic clock.
pub const CLOCK_PAUSE_MS: u64 = 60 * 60 * 1000;
/// How far the clock may be ahead of the newest record at a start without counting as set: a node
/// may well have been off for a day.
pub const START_GAP_MS: u64 = 24 * 60 * 60 * 1000;

/// Watches the wall clock for steps. Also a machine that slept shows one; waiting does no harm.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockWatch {
    last: Option<(u64, u64)>,
    trusted_from_ms: u64,
}

impl ClockWatch {
    /// A watch from now on. A clock that is more than a day ahead of the newest record on disk
    /// (`newest_ms`, 0 where there is none) may be wrong: it counts as set.
    pub const fn start(monotonic_ms: u64, wall_ms: u64, newest_ms: u64) -> Self {
        let is_far = newest_ms > 0 && wall_ms.saturating_sub(newest_ms) > START_GAP_MS;
        let trusted_from_ms = if is_far { monotonic_ms + CLOCK_PAUSE_MS } else { 0 };
        Self { last: Some((monotonic_ms, wall_ms)), trusted_from_ms }
    }

    /// The same of a clock that was set before the start, and not long before.
    #[must_use]
    pub const fn set_lately(self, monotonic_ms: u64) -> Self {
        Self { trusted_from_ms: monotonic_ms.saturating_add(CLOCK_PAUSE_MS), ..self }
    }

    /// Takes a reading of both clocks; says whether the wall clock is to be trusted.
    pub fn is_trusted(&mut self, monotonic_ms: u64, wall_ms: u64) -> bool {
        if let Some((monotonic_before, wall_before)) = self.last {
            let expected =
                wall_before.saturating_add(monotonic_ms.saturating_sub(monotonic_before));
            if wall_ms.abs_diff(expected) > CLOCK_STEP_MS {
                self.trusted_from_ms = monotonic_ms.saturating_add(CLOCK_PAUSE_MS);
            }
        }
        self.last = Some((monotonic_ms, wall_ms));
        monotonic_ms >= self.trusted_from_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    const LIMITS: RetentionLimits =
        RetentionLimits { retain_ms: 1_000, purge_ms: 100, size_bytes_max: None };

    fn kept(id: u64, last_ms: u64, file_bytes: u64) -> Kept {
        Kept { id: SegmentId(id), last: Ulid::from_parts(last_ms, 1, id), file_bytes }
    }

    fn trashed(id: u64, last_ms: u64, at_ms: u64, file_bytes: u64) -> Trashed {
        let Kept { id, last, file_bytes } = kept(id, last_ms, file_bytes);
        Trashed { id, path: PathBuf::from(id.to_string()), last, file_bytes, at_ms }
    }

    #[test]
    fn a_segment_expires_by_its_newest_record_and_a_file_by_its_time_in_the_trash() {
        let kept = [kept(1, 1_000, 1), kept(2, 1_001, 1)];
        let trash = [trashed(3, 5, 1_900, 1), trashed(4, 5, 1_901, 1)];
        let stock = Stock { kept: &kept, trash: &trash, leaving_bytes: 0 };
        let now = plan(&stock, &LIMITS, Some(2_000));
        assert_eq!((now.expired, now.surplus, now.purged), (vec![0], vec![], vec![0]));
        assert_eq!(plan(&stock, &LIMITS, None), RetentionPlan::default(), "the clock was set");
        let forever = RetentionLimits { retain_ms: u64::MAX, purge_ms: u64::MAX, ..LIMITS };
        assert_eq!(plan(&stock, &forever, Some(u64::MAX - 1)), RetentionPlan::default());
    }

    #[test]
    fn a_time_of_trashing_to_come_is_not_believed() {
        let trash = [trashed(1, 500, 9_999_999, 1)];
        let stock = Stock { kept: &[], trash: &trash, leaving_bytes: 0 };
        assert!(plan(&stock, &LIMITS, Some(1_599)).purged.is_empty());
        assert_eq!(plan(&stock, &LIMITS, Some(1_600)).purged, [0]);
    }

    #[test]
    fn copies_of_one_id_go_each_in_its_own_time() {
        let kept = [kept(1, 1_000, 1), kept(1, 1_001, 1)];
        let trash = [trashed(3, 5, 1_901, 1), trashed(3, 5, 1_900, 1)];
        let stock = Stock { kept: &kept, trash: &trash, leaving_bytes: 0 };
        let now = plan(&stock, &LIMITS, Some(2_000));
        assert_eq!((now.expired, now.purged), (vec![0], vec![1]));
        let sized = RetentionLimits { size_bytes_max: Some(1), ..LIMITS };
        let now = plan(&stock, &sized, None);
        assert_eq!((now.surplus, now.purged), (vec![0], vec![0, 1]));
    }

    #[test]
    fn too_much_costs_the_trash_first_then_the_oldest_and_no_more_than_needed() {
        let kept = [kept(2, 3_000, 40), kept(1, 2_000, 40), kept(3, 4_000, 40)];
        let trash = [trashed(11, 20, 9, 10), trashed(10, 10, 9, 10)];
        let sized = |max| RetentionLimits { size_bytes_max: Some(max), ..LIMITS };
        let step = |stock: &Stock<'_>, max| plan(stock, &sized(max), None);
        let stock = Stock { kept: &kept, trash: &trash, leaving_bytes: 0 };
        assert_eq!(step(&stock, 140), RetentionPlan::default());
        assert_eq!(step(&stock, 139).purged, [1]);
        assert_eq!(step(&stock, 120).purged, [1, 0]);
        assert!(step(&stock, 120).surplus.is_empty());
        assert_eq!(step(&stock, 119).surplus, [1]);
        assert_eq!(step(&stock, 79).surplus, [1, 0]);
        // What is on its way already counts as gone.
        let stock = Stock { kept: &kept[..1], trash: &[], leaving_bytes: 40 };
        assert_eq!(step(&stock, 60), RetentionPlan::default());
        assert_eq!(step(&stock, 39).surplus, [0]);
    }

    #[test]
    fn a_clock_that_was_set_is_trusted_after_an_hour_by_the_other_clock() {
        for step in [CLOCK_STEP_MS as i64 + 1, -(CLOCK_STEP_MS as i64) - 1] {
            let wall = |ms: u64| 1_700_000_000_000_u64 + ms;
            let set = |ms: u64| wall(ms).checked_add_signed(step).unwrap();
            let mut watch = ClockWatch::start(0, wall(0), wall(0));
            assert!(watch.is_trusted(1_000, wall(1_000)));
            assert!(watch.is_trusted(2_000, wall(2_000 + CLOCK_STEP_MS)), "as much is allowed");
            let mut watch = ClockWatch::start(0, wall(0), wall(0));
            assert!(!watch.is_trusted(1_000, set(1_000)));
            assert!(!watch.is_trusted(CLOCK_PAUSE_MS, set(CLOCK_PAUSE_MS)));
            assert!(watch.is_trusted(1_000 + CLOCK_PAUSE_MS, set(1_000 + CLOCK_PAUSE_MS)));
            assert!(!watch.is_trusted(2_000 + CLOCK_PAUSE_MS, wall(0)), "set again");
        }
    }

    #[test]
    fn a_clock_far_ahead_of_the_newest_record_is_not_trusted_at_a_start() {
        let day = START_GAP_MS;
        assert!(ClockWatch::start(5, 3 * day, 2 * day).is_trusted(6, 3 * day));
        assert!(ClockWatch::start(5, 3 * day, 0).is_trusted(6, 3 * day), "nothing is there");
        let mut watch = ClockWatch::start(5, 3 * day + 1, 2 * day);
        assert!(!watch.is_trusted(6, 3 * day + 2));
        assert!(watch.is_trusted(5 + CLOCK_PAUSE_MS, 3 * day + CLOCK_PAUSE_MS));
    }

    proptest! {
        /// Applied until it asks for nothing: within the bound, and what is gone is the oldest.
        #[test]
        fn it_ends_within_the_bound_and_keeps_the_newest(
            segments in proptest::collection::vec((0..5_000u64, 1..100u64), 0..40),
            max in 0..2_000u64,
            now_ms in proptest::option::of(0..8_000u64),
        ) {
            let limits = RetentionLimits { size_bytes_max: Some(max), ..LIMITS };
            let mut stock: Vec<Kept> =
                segments.iter().zip(0..).map(|(&(ms, bytes), id)| kept(id, ms, bytes)).collect();
            let (mut trash, mut surplus) = (Vec::new(), Vec::new());
            for turn in 0.. {
                prop_assert!(turn < 4, "it ends");
                let view = Stock { kept: &stock, trash: &trash, leaving_bytes: 0 };
                let plan = plan(&view, &limits, now_ms);
                if plan == RetentionPlan::default() {
                    break;
                }
                let mut places = 0..;
                trash.retain(|_| places.next().is_some_and(|at| !plan.purged.contains(&at)));
                let mut left = Vec::new();
                for (at, segment) in stock.into_iter().enumerate() {
                    if plan.surplus.contains(&at) {
                        surplus.push(segment);
                    }
                    if plan.surplus.contains(&at) || plan.expired.contains(&at) {
                        let (at_ms, bytes) = (now_ms.unwrap_or(0), segment.file_bytes);
                        trash.push(trashed(segment.id.0, segment.last.ms(), at_ms, bytes));
                    } else {
                        left.push(segment);
                    }
                }
                stock = left;
            }
            let left: u64 = stock.iter().map(|s| s.file_bytes).sum();
            let in_trash: u64 = trash.iter().map(|t| t.file_bytes).sum();
            prop_assert!(left + in_trash <= max);
            if let Some(newest_gone) = surplus.iter().max_by_key(|s| (s.last, s.id)) {
                prop_assert!(stock.iter().all(|s| (s.last, s.id) > (newest_gone.last, newest_gone.id)));
                prop_assert!(left + newest_gone.file_bytes > max, "no more than needed");
            }
            if let Some(now_ms) = now_ms {
                prop_assert!(stock.iter().all(|s| s.last.ms() + 1_000 > now_ms));
            }
        }
    }
}
