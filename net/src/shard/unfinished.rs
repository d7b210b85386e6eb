//! When a line whose end does not come is made a record (`--ingest.unfinished-line-after`).
//!
//! Invariants: only time in which the shard was reading counts, for the end of the line may lie in the
//! socket: not while reading is stopped, nor while the shard itself stood still. All connections are
//! looked at no more often than every [`LOOK_US`]. Decides only; `now` is passed in.

/// Least time between two looks at all connections, microseconds.
const LOOK_US: u64 = 50_000;
/// A turn that took longer may have left something unread, microseconds: turns begin every 100 ms.
const TURN_US_MAX: u64 = 500_000;

/// See the module page. Times are of the monotonic clock, in microseconds.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
pub(super) struct Unfinished {
    /// How long is waited; `None`: for ever.
    after_us: Option<u64>,
    look_at_us: u64,
    /// Since when everything is read as it comes.
    reading_since_us: u64,
    turned_us: u64,
}

impl Unfinished {
    pub(super) const fn new(after_us: Option<u64>) -> Self {
        Self { after_us, look_at_us: 0, reading_since_us: 0, turned_us: 0 }
    }

    /// To be called in every turn; whether unfinished lines are to be looked at in this one. Those that
    /// [`Unfinished::is_over`] is then not asked about are not there, or begin from now on.
    pub(super) fn is_time(&mut self, now_us: u64, is_reading: bool) -> bool {
        let Some(after_us) = self.after_us else { return false };
        let stood_still = now_us.saturating_sub(self.turned_us) > TURN_US_MAX;
        self.turned_us = now_us;
        if stood_still || !is_reading {
            self.reading_since_us = now_us;
            return false;
        }
        let is_time = now_us >= self.look_at_us;
        if is_time {
            self.look_at_us = now_us + after_us.max(LOOK_US);
        }
        is_time
    }

    /// Whether a line to which nothing was added since then has waited for long enough.
    pub(super) fn is_over(&mut self, since_us: u64, now_us: u64) -> bool {
        let Some(after_us) = self.after_us else { return false };
        let due_us = since_us.max(self.reading_since_us) + after_us;
        if due_us > now_us {
            self.look_at_us = self.look_at_us.min(due_us.max(now_us + LOOK_US));
        }
        due_us <= now_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    /// When a line that waits since the millisecond 50 is over, of turns every 100 ms up to two seconds;
    /// in those of `stopped` nothing is read, those of `missed` are not made.
    fn over(
        after: Option<u64>,
        stopped: std::ops::Range<u64>,
        missed: std::ops::Range<u64>,
    ) -> Option<u64> {
        let mut unfinished = Unfinished::new(after.map(|ms| ms * MS));
        (0..=2_000).step_by(100).filter(|ms| !missed.contains(ms)).find(|ms| {
            let now_us = ms * MS;
            unfinished.is_time(now_us, !stopped.contains(ms))
                && *ms >= 50
                && unfinished.is_over(50 * MS, now_us)
        })
    }

    #[test]
    fn a_line_waits_as_long_as_was_said() {
        assert_eq!(over(Some(200), 0..0, 0..0), Some(300));
        assert_eq!(over(Some(1_000), 0..0, 0..0), Some(1_100));
        assert_eq!(over(None, 0..0, 0..0), None);
    }

    #[test]
    fn time_in_which_nothing_was_read_does_not_count() {
        assert_eq!(over(Some(500), 300..900, 0..0), Some(1_300));
        assert_eq!(over(Some(500), 0..0, 300..1_200), Some(1_700), "it stood still until then");
    }

    #[test]
    fn connections_are_not_looked_at_all_the_time() {
        let mut unfinished = Unfinished::new(Some(100 * MS));
        let mut looks = 0;
        for ms in 0..10_000 {
            if unfinished.is_time(ms * MS, true) {
                looks += 1;
                // Each time another line is about to be due.
                assert!(!unfinished.is_over((ms * MS).saturating_sub(99 * MS), ms * MS));
            }
        }
        assert!((100..=201).contains(&looks), "{looks}");
    }
}
