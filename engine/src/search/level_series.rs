//! Matching records over time, by level: those of each, and those that tell none.
//!
//! Invariants: the series of a span add up to all of it; what is held does not grow with the records. A
//! level is that of the record's own bytes ([`crate::levels`]), whether they were read or a store segment
//! tells of its entries ([`crate::entries`]).

use super::consumer::Histogram;
use super::reading::RecordTally;
use super::spec::Stats;
use crate::entries::{CountedEntries, LEVELS};
use crate::levels::level;
use crate::ulid::Ulid;

/// What records of one level there are in each bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelSeries {
    /// Which of [`LEVELS`]; `None`: records that tell none.
    pub level: Option<usize>,
    /// As many as in the histogram of all.
    pub counts: Vec<u64>,
}

/// A histogram of all, and one of each level that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelHistogram {
    /// Of all.
    pub all: Histogram,
    /// The worst first; records without a level last.
    pub series: Vec<LevelSeries>,
}

/// Counts them.
#[derive(Debug)]
pub struct LevelTally {
    all: Histogram,
    /// In the order of [`LEVELS`]; empty where there is none.
    levels: [Vec<u64>; LEVELS.len()],
}

impl LevelTally {
    pub(super) const fn new(all: Histogram) -> Self {
        Self { all, levels: [const { Vec::new() }; LEVELS.len()] }
    }

    fn add(&mut self, level: Option<usize>, ms: u64, records: u64) {
        let (bucket, buckets) = (self.all.bucket(ms), self.all.counts.len());
        let Some(count) = self.all.counts.get_mut(bucket) else { return };
        *count += records;
        let Some(counts) = level.and_then(|level| self.levels.get_mut(level)) else { return };
        if counts.is_empty() {
            counts.resize(buckets, 0);
        }
        counts[bucket] += records;
    }

    /// What was counted.
    pub fn result(self, stats: Stats) -> LevelHistogram {
        let Self { mut all, levels } = self;
        all.stats = stats;
        let mut rest = all.counts.clone();
        let mut series = Vec::new();
        for (level, counts) in levels.into_iter().enumerate().rev() {
            rest.iter_mut().zip(&counts).for_each(|(rest, count)| *rest -= count);
            if !counts.is_empty() {
                series.push(LevelSeries { level: Some(level), counts });
            }
        }
        if rest.iter().any(|&count| count > 0) {
            series.push(LevelSeries { level: None, counts: rest });
        }
        LevelHistogram { all, series }
    }
}

impl RecordTally for LevelTally {
    fn count(&mut self, id: Ulid, record: &[u8]) {
        self.add(level(record), id.ms(), 1);
    }

    // They are of one bucket: that of the last of them.
    fn count_entries(&mut self, entries: &CountedEntries) {
        self.add(Some(entries.level), entries.count.latest_ms, entries.count.entries);
    }
}
