//! What the operator is told of connections: each change once, and never many lines at a time.
//!
//! Pure: time is passed in. Invariants: at most [`LINES_MAX`] lines at once and one per
//! [`LINE_INTERVAL`] after that, whatever ingesters do; what was left out is counted and told with
//! the next line; why an address cannot be used at all is told once for each reason.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Lines that may follow each other at once.
const LINES_MAX: u32 = 8;
/// After that one more per this time.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// Addresses of which the last reason is remembered; what others say is told as it changes.
const PLACES_MAX: usize = 64;

/// What is to be told, with the number of changes that were not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// There was a connection, and now there is none.
    Lost(u64),
    /// There was no connection yet.
    Unreachable(u64),
    /// This address will not do, or says nothing.
    Unusable(u64),
}

/// What was told.
#[derive(Debug)]
pub(crate) struct Talk {
    /// The last state that was told; `None` before the first.
    told_connected: Option<bool>,
    /// Reasons by address.
    reasons: BTreeMap<String, String>,
    lines_left: u32,
    refilled_at: Instant,
    left_out: u64,
}

impl Talk {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            told_connected: None,
            reasons: BTreeMap::new(),
            lines_left: LINES_MAX,
            refilled_at: now,
            left_out: 0,
        }
    }

    /// There is a connection. `Some`, to be told: how many changes were not.
    pub(crate) fn on_connected(&mut self, now: Instant) -> Option<u64> {
        if self.told_connected == Some(true) {
            return None;
        }
        let left_out = self.take_line(now)?;
        self.told_connected = Some(true);
        Some(left_out)
    }

    /// A connection, or a try to make one, failed at `place`; `is_its_answer`: not by chance, but
    /// because of what is there.
    pub(crate) fn on_failed(
        &mut self,
        place: &str,
        why: &str,
        is_its_answer: bool,
        now: Instant,
    ) -> Option<Line> {
        let is_news = is_its_answer && self.reasons.get(place).is_none_or(|told| told != why);
        let line = match self.told_connected {
            Some(true) => Line::Lost,
            _ if is_news => Line::Unusable,
            None => Line::Unreachable,
            Some(false) => return None,
        };
        let left_out = self.take_line(now)?;
        self.told_connected = Some(false);
        if is_news && (self.reasons.len() < PLACES_MAX || self.reasons.contains_key(place)) {
            self.reasons.insert(place.to_owned(), why.to_owned());
        }
        Some(line(left_out))
    }

    /// Whether one more line may be told, and what was left out before it.
    fn take_line(&mut self, now: Instant) -> Option<u64> {
        let refill = now.duration_since(self.refilled_at).as_millis() / LINE_INTERVAL.as_millis();
        if refill > 0 {
            let refill = u32::try_from(refill).unwrap_or(u32::MAX);
            self.lines_left = self.lines_left.saturating_add(refill).min(LINES_MAX);
            self.refilled_at = now;
        }
        let Some(left) = self.lines_left.checked_sub(1) else {
            self.left_out += 1;
            return None;
        };
        self.lines_left = left;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let now = Instant::now();
        let mut talk = Talk::new(now);
        assert_eq!(talk.on_failed("a", "refused", false, now), Some(Line::Unreachable(0)));
        assert_eq!(talk.on_failed("b", "gone", false, now), None);
        assert_eq!(talk.on_failed("b", "speaks HTTP", true, now), Some(Line::Unusable(0)));
        assert_eq!(talk.on_failed("b", "speaks HTTP", true, now), None);
        assert_eq!(talk.on_failed("c", "speaks HTTP", true, now), Some(Line::Unusable(0)));
        assert_eq!(talk.on_connected(now), Some(0));
        assert_eq!(talk.on_connected(now), None);
        assert_eq!(talk.on_failed("a", "closed", false, now), Some(Line::Lost(0)));
        assert_eq!(talk.on_failed("b", "speaks HTTP", true, now), None, "it was told before");
    }

    #[test]
    fn an_ingester_that_comes_and_goes_all_the_time_fills_no_log() {
        let start = Instant::now();
        let mut talk = Talk::new(start);
        let (mut told, mut left_out) = (0, 0);
        for ms in (0..8000).step_by(20) {
            let now = start + Duration::from_millis(ms);
            let connected = talk.on_connected(now);
            let lost = talk.on_failed("a", "closed", false, now);
            told += u64::from(connected.is_some()) + u64::from(lost.is_some());
            left_out += connected.unwrap_or(0);
            left_out += if let Some(Line::Lost(n)) = lost { n } else { 0 };
        }
        assert!((8..=12).contains(&told), "{told}");
        assert!(left_out > 100, "{left_out}");
        // Once it stays, that is told.
        let connected = talk.on_connected(start + Duration::from_secs(12));
        let is_told = talk.told_connected == Some(true);
        assert!(is_told && connected.is_none_or(|n| n > 0));
    }
}
