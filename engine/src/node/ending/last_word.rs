//! What is said of a stop: how it went, and what it has lost.
//!
//! Invariants: what is not known to be there is not told to be there. Which of a shard's records are on the
//! disk after all is not always known: what can be lost is told.

use std::path::Path;

use crate::ingest::left_in_tail::sync_and_count;
use crate::ingest::promises::NotOnDisk;
use crate::storage::Storage;

/// Records that a stop leaves behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Their senders take them for safe, or never wanted to know.
    pub records: u64,
    /// Their senders were not told that they are safe.
    pub awaited_records: u64,
}

impl Lost {
    /// Records that were taken and that nobody will find again, as far as can be known: those that
    /// `shards` did not get to sync, less those that their tail files in this directory keep, which are
    /// synced for that. Nobody may write to them any more.
    pub fn count(storage: &dyn Storage, directory: &Path, shards: &[NotOnDisk]) -> Self {
        let of_shard = |(shard, left): (usize, &NotOnDisk)| {
            let first = left.unsynced.first.filter(|_| left.unsynced.records > 0);
            let kept = first.map(|first| sync_and_count(storage, directory, shard, first));
            Self::of(*left, kept.and_then(Result::ok).unwrap_or(0))
        };
        shards.iter().enumerate().map(of_shard).fold(Self::default(), Self::plus)
    }

    /// Everything that shards did not get to sync.
    pub(super) fn all(shards: &[NotOnDisk]) -> Self {
        shards.iter().map(|shard| Self::of(*shard, 0)).fold(Self::default(), Self::plus)
    }

    /// Of a shard of whose unsynced records so many were found on the disk after all. Which these are
    /// is not known: what can be lost is told.
    fn of(shard: NotOnDisk, kept_records: u64) -> Self {
        let gone = shard.unsynced.records.saturating_sub(kept_records);
        let records = gone.min(shard.unsynced.records.saturating_sub(shard.awaited_records));
        Self { records, awaited_records: gone - records }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            awaited_records: self.awaited_records + other.awaited_records,
        }
    }
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastWord {
    /// How long it took, ms.
    pub spent_ms: u64,
    /// What waits for the next start to be gathered, bytes.
    pub waiting_bytes: u64,
    /// Records whose files were taken away; `None`: nobody knows.
    pub not_found: Option<u64>,
    /// Records that are not on the disk.
    pub lost: Lost,
    /// Everything that had to end has ended, and all that had to be written was tried.
    pub is_whole: bool,
}

impl Default for LastWord {
    /// Nothing is known to be bad yet.
    fn default() -> Self {
        let (spent_ms, waiting_bytes) = (0, 0);
        Self { spent_ms, waiting_bytes, not_found: None, lost: Lost::default(), is_whole: true }
    }
}

/// Why a stop is none in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// So many records that were taken are not on the disk.
    NotOnDisk(u64),
    /// So many are in files that were taken away.
    TakenAway(u64),
    /// Nobody knows whether all that was taken is there.
    NotLookedUp,
}

impl LastWord {
    /// What to end with, if not in good order.
    pub const fn failure(&self) -> Option<Failure> {
        match self.not_found {
            Some(records) if records > 0 => Some(Failure::TakenAway(records)),
            _ if self.lost.records > 0 => Some(Failure::NotOnDisk(self.lost.records)),
            None => Some(Failure::NotLookedUp),
            Some(_) => None,
        }
    }

    /// Nothing waits: all that was taken is in the store.
    pub const fn is_all_stored(&self) -> bool {
        self.waiting_bytes == 0 && self.is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::log::Unsynced;

    #[test]
    fn what_senders_wait_for_is_not_lost_with_the_rest() {
        let shard = |records, awaited_records| NotOnDisk {
            unsynced: Unsynced { records, first: None },
            awaited_records,
        };
        let lost = |records, awaited_records| Lost { records, awaited_records };
        assert_eq!(Lost::of(shard(0, 0), 0), lost(0, 0));
        assert_eq!(Lost::of(shard(9, 0), 0), lost(9, 0));
        assert_eq!(Lost::of(shard(9, 9), 0), lost(0, 9));
        assert_eq!(Lost::of(shard(9, 7), 0), lost(2, 7));
        assert_eq!(Lost::of(shard(9, 7), 8), lost(1, 0), "it may be one of the two");
        assert_eq!(Lost::of(shard(9, 7), 9), lost(0, 0));
        assert_eq!(Lost::all(&[shard(9, 7), shard(1, 0)]), lost(3, 7));
    }

    #[test]
    fn what_is_not_known_to_be_there_is_not_told_to_be_there() {
        let failure = |not_found, records| {
            let lost = Lost { records, awaited_records: 0 };
            LastWord { waiting_bytes: 9, not_found, lost, ..LastWord::default() }.failure()
        };
        assert_eq!(failure(Some(0), 0), None);
        assert_eq!(failure(None, 0), Some(Failure::NotLookedUp));
        assert_eq!(failure(None, 3), Some(Failure::NotOnDisk(3)));
        assert_eq!(failure(Some(0), 3), Some(Failure::NotOnDisk(3)));
        assert_eq!(failure(Some(7), 3), Some(Failure::TakenAway(7)));
    }
}
