//! A copy of what a log takes, for those who follow it live: before any of it is on disk.
//!
//! Invariants: costs nothing while nobody follows; holds what was appended since it was taken last,
//! which is at most what a shard takes in one turn.

use super::ShardLog;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// Records that follow each other: one topic, one millisecond, ULIDs that count up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TappedRun {
    /// The first one.
    pub first: Ulid,
    /// How many.
    pub count: u32,
    /// Length of their text, LFs included, bytes.
    pub text_len: u32,
    /// Their topic.
    pub topic: Topic,
}

/// Records in ULID order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tapped {
    /// Their runs.
    pub runs: Vec<TappedRun>,
    /// The runs' text, one behind the other; each record with its LF.
    pub text: Vec<u8>,
}

impl Tapped {
    /// How many records.
    pub fn record_count(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// What it takes in memory, bytes: of many short records of many topics the runs are most of it.
    pub fn held_bytes(&self) -> usize {
        self.text.len() + self.runs.len() * size_of::<TappedRun>()
    }

    /// Adds a run behind what is there.
    pub fn push(&mut self, first: Ulid, count: u32, topic: &Topic, text: &[u8]) {
        let text_len = text.len() as u32;
        self.runs.push(TappedRun { first, count, text_len, topic: topic.clone() });
        self.text.extend_from_slice(text);
    }
}

impl ShardLog {
    /// Takes what was appended since this was asked last, and goes on copying for `epoch`, or for
    /// nobody. What was copied for another epoch is dropped: it may have gaps.
    pub fn tap(&mut self, epoch: Option<u64>) -> Tapped {
        let before = self.tap.take();
        self.tap = epoch.map(|epoch| (epoch, Tapped::default()));
        before
            .filter(|(before, _)| Some(*before) == epoch)
            .map(|(_, tapped)| tapped)
            .unwrap_or_default()
    }

    /// Milliseconds below which no record will be stamped any more: at least `wall_ms`.
    pub fn promise_ms(&mut self, wall_ms: u64) -> u64 {
        self.stamper.rise_to(wall_ms)
    }
}
