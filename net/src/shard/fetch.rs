//! Which frames are brought back into the page cache once they are written: those that queries will
//! soon ask for, told by queries that came lately.
//!
//! Frames are written past the page cache. Where queries go on, the next one would wait until what
//! was taken since the last one is read back, behind all that is being written. Where there are none,
//! the disk is left to the writes.

use engine::ulid::Ulid;

/// How long after a query frames are fetched for the next one.
const FETCH_US: u64 = 10_000_000;

/// Where a frame is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) segment: Ulid,
    pub(super) offset_bytes: u64,
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    asked_us: Option<u64>,
}

impl Fetching {
    /// A query asks what the shard holds.
    pub(super) const fn asked(&mut self, now_us: u64) {
        self.asked_us = Some(now_us);
    }

    /// Whether a frame that is written now is fetched.
    pub(super) fn is_wanted(&self, now_us: u64) -> bool {
        self.asked_us.is_some_and(|at| now_us.saturating_sub(at) < FETCH_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_fetched_for_a_while_after_each_query() {
        let mut fetching = Fetching::default();
        assert!(!fetching.is_wanted(0), "nobody asks");
        fetching.asked(1_000);
        assert!(fetching.is_wanted(1_000) && fetching.is_wanted(FETCH_US + 999));
        assert!(!fetching.is_wanted(FETCH_US + 1_000), "nobody goes on asking");
    }
}
