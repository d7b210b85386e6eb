//! Numbering: which ULID a record gets.
//!
//! Invariants: ULIDs of one stamper strictly grow, whatever the clock does: a stamp is the maximum
//! of the clock, the newest stamp of any shard of the node and the floor that was found at start. The
//! clock counts only as far as the ceiling, which the disk knows of: a stamp that is above it would not
//! be remembered. A batch lies in one millisecond and one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::random::split_mix;
use crate::ulid::{MS_MAX, PART_MAX, Ulid};

/// Up to where the clock is followed, and how far the shards have come; shared by all shards of a node.
#[derive(Debug, Clone)]
pub struct Ceiling(Arc<Bounds>);

/// Milliseconds since 1970.
#[derive(Debug)]
struct Bounds {
    ceiling: AtomicU64,
    /// Of all shards: one that was idle while the clock was ahead goes on above what the others gave.
    newest: AtomicU64,
}

impl Ceiling {
    /// At this time, milliseconds since 1970.
    pub fn at(ms: u64) -> Self {
        Self(Arc::new(Bounds { ceiling: AtomicU64::new(ms), newest: AtomicU64::new(0) }))
    }

    /// None.
    pub fn unbounded() -> Self {
        Self::at(MS_MAX)
    }

    /// It never comes down.
    pub fn raise(&self, ms: u64) {
        self.0.ceiling.fetch_max(ms, Ordering::AcqRel);
    }

    /// Lets stamps go on, by a millisecond each time that it is called, while the clock is behind them:
    /// records of different shards would all have the same one, and no order by which anybody who has
    /// seen one could ask for what came after it.
    pub fn tick(&self, wall_ms: u64) {
        let newest = self.0.newest.load(Ordering::Acquire);
        if wall_ms < newest && newest < self.ms() {
            self.0.newest.fetch_max(newest + 1, Ordering::AcqRel);
        }
    }

    fn ms(&self) -> u64 {
        self.0.ceiling.load(Ordering::Acquire)
    }

    /// The newest stamp of any shard, this one included.
    fn newest_with(&self, ms: u64) -> u64 {
        let newest = self.0.newest.load(Ordering::Acquire);
        // Most often somebody has come as far within this millisecond: then nothing is written.
        if ms <= newest {
            return newest;
        }
        self.0.newest.fetch_max(ms, Ordering::AcqRel).max(ms)
    }
}

/// Gives out the ULIDs of one shard.
#[derive(Debug, Clone)]
pub struct Stamper {
    ceiling: Ceiling,
    stream: u64,
    /// Counter of the next record in the stream.
    counter: u64,
    last_ms: u64,
}

impl Stamper {
    /// `stream` is random; no stamp is below `floor_ms`.
    pub fn new(stream: u64, floor_ms: u64, ceiling: Ceiling) -> Self {
        Self { ceiling, stream: stream & PART_MAX, counter: 0, last_ms: floor_ms.min(MS_MAX) }
    }

    /// ULID of the first of `count` records that arrived now; the others follow by counting up.
    pub fn stamp(&mut self, count: u64, wall_ms: u64) -> Ulid {
        self.rise_to(wall_ms);
        if count > PART_MAX + 1 - self.counter {
            self.next_stream();
        }
        let first = Ulid::from_parts(self.last_ms, self.stream, self.counter);
        self.counter += count;
        first
    }

    /// The counter is used up: another stream, from the next millisecond on, since its number may
    /// be smaller.
    fn next_stream(&mut self) {
        self.stream = split_mix(self.stream) & PART_MAX;
        self.counter = 0;
        self.last_ms = (self.last_ms + 1).min(MS_MAX);
    }

    /// Gives no stamp below this time any more; says below which one it will not: that of the newest
    /// stamp, if it is later.
    pub fn rise_to(&mut self, wall_ms: u64) -> u64 {
        let own = self.last_ms.max(wall_ms.min(self.ceiling.ms())).min(MS_MAX);
        self.last_ms = self.ceiling.newest_with(own);
        self.last_ms
    }

    /// How far the next stamp is ahead of the clock, milliseconds: after the clock was set back.
    pub const fn ahead_ms(&self, wall_ms: u64) -> u64 {
        self.last_ms.saturating_sub(wall_ms)
    }

    /// The newest stamp.
    pub const fn newest_ms(&self) -> u64 {
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamper(stream: u64, floor_ms: u64) -> Stamper {
        Stamper::new(stream, floor_ms, Ceiling::unbounded())
    }

    #[test]
    fn stamps_stay_at_the_ceiling_and_go_on_counting_until_it_is_raised() {
        let ceiling = Ceiling::at(1_000);
        let mut stamper = Stamper::new(7, 500, ceiling.clone());
        let first = stamper.stamp(2, 5_000);
        assert_eq!((first.ms(), stamper.rise_to(6_000)), (1_000, 1_000));
        assert_eq!(stamper.stamp(1, 6_000), first.plus(2));
        ceiling.raise(5_500);
        ceiling.raise(900);
        assert_eq!(stamper.stamp(1, 6_000).ms(), 5_500);
        assert_eq!(Stamper::new(7, 7_000, ceiling).stamp(1, 1).ms(), 7_000, "the floor holds");
    }

    #[test]
    fn a_clock_that_steps_back_an_hour_never_takes_ulids_back() {
        let mut stamper = stamper(7, 0);
        let before = stamper.stamp(10, 10_000_000);
        let after = stamper.stamp(1, 10_000_000 - 3_600_000);
        assert_eq!(after, before.plus(10));
        assert_eq!(stamper.ahead_ms(10_000_000 - 3_600_000), 3_600_000);
        assert_eq!(stamper.ahead_ms(10_000_001), 0);
    }

    #[test]
    fn a_shard_that_was_idle_while_the_clock_was_ahead_goes_on_above_the_others() {
        let ceiling = Ceiling::unbounded();
        let mut shards = [1, 2].map(|stream| Stamper::new(stream, 0, ceiling.clone()));
        let ahead = shards[0].stamp(1, 10_000_000);
        let later = shards[1].stamp(1, 10_000_000 - 3_600_000);
        assert!(later.ms() >= ahead.ms() && shards[0].stamp(1, 5).ms() >= later.ms());
        assert_eq!(shards[1].stamp(1, 10_000_001).ms(), 10_000_001);
    }

    #[test]
    fn time_goes_on_slowly_while_the_clock_is_behind_and_never_beyond_the_ceiling() {
        let ceiling = Ceiling::at(1_002);
        let mut shards = [1, 2].map(|stream| Stamper::new(stream, 0, ceiling.clone()));
        ceiling.tick(5);
        let mut newest = shards[0].stamp(1, 1_000);
        for expected in [1_001, 1_002, 1_002] {
            ceiling.tick(5);
            let other = shards[1].stamp(1, 5);
            assert!(other.ms() == expected && (expected > 1_001 || other > newest));
            newest = shards[0].stamp(1, 5);
            assert_eq!(newest.ms(), expected);
        }
        ceiling.raise(2_000);
        ceiling.tick(1_002);
        assert_eq!(shards[0].stamp(1, 5).ms(), 1_002, "the clock is not behind");
    }

    #[test]
    fn what_it_has_risen_to_holds_whatever_the_clock_does() {
        let mut stamper = stamper(7, 500);
        assert_eq!(stamper.rise_to(400), 500);
        assert_eq!(stamper.rise_to(600), 600);
        assert_eq!(stamper.stamp(1, 550).ms(), 600);
    }

    #[test]
    fn stamps_start_behind_what_is_on_disk() {
        let mut stamper = stamper(7, 500);
        assert_eq!(stamper.stamp(1, 3).ms(), 500);
        assert_eq!(stamper.stamp(1, 501).ms(), 501);
    }

    #[test]
    fn a_used_up_counter_starts_another_stream_in_order() {
        let mut stamper = stamper(PART_MAX, 0);
        stamper.counter = PART_MAX - 1;
        let last = stamper.stamp(2, 5).plus(1);
        let next = stamper.stamp(1, 5);
        assert!(next > last, "{next:?} follows {last:?}");
        assert_ne!(next.stream(), last.stream());
        assert_eq!(next.counter(), 0);
    }
}
