//! Whether this node's clock agrees with those of the others: by their median, so that one clock that is
//! wrong, be it ours or another's, misleads nobody.

use crate::limits::{CLOCK_OFF_FOR_MS, CLOCK_OFF_MS};

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    off_since_ms: Option<u64>,
    is_told: bool,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Off(i64),
    Right,
}

/// By how much the clocks of a cluster are ahead of ours, milliseconds: the median of all, ours (0) too.
pub(crate) fn median_ms(mut distances_ms: Vec<i64>) -> i64 {
    distances_ms.push(0);
    distances_ms.sort_unstable();
    // Of an even number the one that is nearer to ours.
    let middle = &distances_ms[(distances_ms.len() - 1) / 2..=distances_ms.len() / 2];
    middle.iter().copied().min_by_key(|distance| distance.unsigned_abs()).unwrap_or(0)
}

impl Clocks {
    /// Judges anew.
    pub(crate) fn judge(&mut self, distances_ms: Vec<i64>, now_ms: u64) -> Option<Change> {
        let median = median_ms(distances_ms);
        if median.unsigned_abs() < CLOCK_OFF_MS {
            self.off_since_ms = None;
            return std::mem::take(&mut self.is_told).then_some(Change::Right);
        }
        let since_ms = *self.off_since_ms.get_or_insert(now_ms);
        let is_news = !self.is_told && since_ms + CLOCK_OFF_FOR_MS <= now_ms;
        self.is_told |= is_news;
        is_news.then_some(Change::Off(median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_clock_that_is_a_day_ahead_misleads_nobody_but_is_told_to_its_node() {
        const DAY_MS: i64 = 86_400_000;
        // Of five nodes, as one of the four sees it, and as the fifth does.
        assert_eq!(median_ms(vec![3, DAY_MS, -4, 1]), 1);
        assert_eq!(median_ms(vec![-DAY_MS; 4]), -DAY_MS);
        // Of two nobody knows who is wrong; ours is believed.
        assert_eq!(median_ms(vec![DAY_MS]), 0);
        assert_eq!(median_ms(vec![]), 0);
    }

    #[test]
    fn a_distance_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let mut clocks = Clocks::default();
        let ahead = || vec![5_000; 2];
        assert_eq!(clocks.judge(ahead(), 0), None);
        assert_eq!(clocks.judge(vec![0; 2], 5_000), None);
        assert_eq!(clocks.judge(ahead(), 6_000), None);
        assert_eq!(clocks.judge(ahead(), 15_999), None);
        assert_eq!(clocks.judge(ahead(), 16_000), Some(Change::Off(5_000)));
        assert_eq!(clocks.judge(ahead(), 30_000), None);
        assert_eq!(clocks.judge(vec![10; 2], 31_000), Some(Change::Right));
        assert_eq!(clocks.judge(vec![10; 2], 32_000), None);
    }
}
