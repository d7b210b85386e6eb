//! What a shard that stops without having written everything has left in its tail file.
//!
//! Invariants: counts only what a sync has brought to the disk and a start will find again.

use std::io;
use std::path::Path;

use super::tail;
use crate::storage::{Open, Storage};
use crate::ulid::Ulid;

/// Syncs the tail file of a shard that writes no more; says how many records from `first` on it holds.
pub fn sync_and_count(
    storage: &dyn Storage,
    directory: &Path,
    shard: usize,
    first: Ulid,
) -> io::Result<u64> {
    let file = storage.open(&directory.join(tail::file_name(shard)), Open::Write)?;
    file.sync()?;
    let mut runs = Vec::new();
    for slot in 0..tail::SLOTS {
        let content = tail::read_slot(&*file, slot)?.content;
        runs.extend(content.into_iter().flat_map(|content| content.table.runs));
    }
    // A run's records count up: those before `first` are safe elsewhere.
    Ok(runs
        .iter()
        .filter(|run| run.last() >= first)
        .map(|run| {
            let before = first.0.saturating_sub(run.first.0);
            u64::from(run.count).saturating_sub(u64::try_from(before).unwrap_or(u64::MAX))
        })
        .sum())
}
