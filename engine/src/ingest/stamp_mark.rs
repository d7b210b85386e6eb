//! The mark of stamps: a time above which this ingester has given no stamp out. It lies in a small file
//! of the ingest directory, so that ULIDs never go back, whatever the clock does, whatever became of
//! the records, and on shards that were idle. `docs/format-ingest.md` has the byte table.
//!
//! Invariants: the mark on disk is synced, in both of its copies, before a stamp above the one before
//! may be given: the mark is ahead of the clock and moved before it is reached, so that no shard waits
//! for it; where it cannot be moved in time stamps stay at it and go on counting. After a start
//! every stamp lies above the mark that was found. The ingester's identity is on disk before the first
//! mark is. One whole copy is enough; that both are damaged, or that the file cannot be read, is not
//! that there is none: the caller must not go on then ([`crate::twin`]).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::stamp::Ceiling;
use crate::damage::Damage;
use crate::identity::{IDENTITY_FILE, Identity, IdentityKeeper};
use crate::limits::{STAMPS_AHEAD_MS, STAMPS_ROOM_MS};
use crate::storage::{Refusal, Storage};
use crate::twin::{self, SyncDir, Twin, TwinError, TwinFile};
use crate::ulid::MS_MAX;

/// Name of the file.
pub const STAMP_MARK_FILE: &str = "STAMPS";
/// Its name until it is whole for the first time.
pub const STAMP_MARK_NEW_FILE: &str = "STAMPS.new";

/// No stamp above it was given out, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StampMark(pub u64);

impl Twin for StampMark {
    const FILE: &'static str = STAMP_MARK_FILE;
    const NEW_FILE: &'static str = STAMP_MARK_NEW_FILE;
    const MAGIC: [u8; 4] = *b"OKS1";
    const PAYLOAD_BYTES: usize = 8;
    const WHAT: &'static str = "mark of stamps";
    const WHAT_COPY: &'static str = "copy of the mark of stamps";

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes());
    }

    fn take(payload: &[u8]) -> Option<Self> {
        let ms = u64::from_le_bytes(payload.try_into().ok()?);
        (ms <= MS_MAX).then_some(Self(ms))
    }

    fn belongs_with(&self, _other: &Self) -> bool {
        true
    }
}

/// Why a mark cannot be relied on.
#[derive(Debug)]
pub struct MarkError(TwinError);

impl MarkError {
    /// Whether the storage did not give what it has: it may do so soon.
    pub const fn is_refusal(&self) -> bool {
        matches!(self.0, TwinError::Unread(..))
    }
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; it says which times were given to records, and without it new ones might sort \
             before old ones. Mend the disk or restore the file; if it is lost, move {} away: the \
             node then goes on behind the newest record of its ingest side, and with its clock",
            self.0,
            self.0.path().display()
        )
    }
}

impl std::error::Error for MarkError {}

/// Checks a mark's file, offline and read-only. It holds no record; while one copy is whole nothing is
/// lost.
pub fn check_mark(storage: &dyn Storage, path: &Path) -> io::Result<Vec<Damage>> {
    Ok(twin::check::<StampMark>(storage, path)?.1)
}

/// Keeps the mark ahead of what shards stamp.
pub struct StampKeeper {
    /// Whose stamps they are: on disk before the first one.
    ingester: IdentityKeeper,
    file: TwinFile<StampMark>,
    ceiling: Ceiling,
    /// What the disk says in both copies; `None`: that of the last life, or nothing yet.
    mark_ms: Option<u64>,
    /// Below it no stamp is given in this life.
    floor_ms: u64,
}

/// A mark that was read.
pub struct OpenedMark {
    file: TwinFile<StampMark>,
    floor_ms: u64,
    /// A copy is damaged; the other one holds.
    pub has_damaged_copy: bool,
    /// A copy could not be read; the other one holds.
    pub unread_copy: Option<Refusal>,
}

impl OpenedMark {
    /// Reads the mark of an ingest directory that exists. There is none in a directory of another
    /// version, or in a new one.
    pub fn open(storage: Arc<dyn Storage>, directory: &Path) -> Result<Self, MarkError> {
        let (file, found) = TwinFile::<StampMark>::open(storage, directory).map_err(MarkError)?;
        Ok(Self {
            file,
            floor_ms: found.map_or(0, |found| (found.value.0 + 1).min(MS_MAX)),
            has_damaged_copy: found.is_some_and(|found| found.has_damaged_copy()),
            unread_copy: found.and_then(|found| found.unread_copy()),
        })
    }

    /// What moves it on.
    pub fn kept_by(self, ingester: IdentityKeeper) -> StampKeeper {
        let Self { file, floor_ms, .. } = self;
        StampKeeper { ingester, file, ceiling: Ceiling::at(0), mark_ms: None, floor_ms }
    }
}

impl StampKeeper {
    /// Whose stamps they are.
    pub const fn ingester(&self) -> Identity {
        self.ingester.identity()
    }

    /// Raises the floor above the newest record of the ingest side: there may be records from before
    /// there was a mark. Those of a store may be copies of what others have stamped, and say nothing.
    /// To be called before anything is stamped.
    pub fn start_above(&mut self, newest_ms: u64) {
        if newest_ms > 0 {
            self.floor_ms = self.floor_ms.max(newest_ms.saturating_add(1).min(MS_MAX));
        }
    }

    /// Every stamp of this life is at or above it, milliseconds since 1970.
    pub const fn floor_ms(&self) -> u64 {
        self.floor_ms
    }

    /// What stampers stay below.
    pub fn ceiling(&self) -> Ceiling {
        self.ceiling.clone()
    }

    /// Whether a mark of this life is on disk: before that nothing may be stamped.
    pub const fn is_started(&self) -> bool {
        self.mark_ms.is_some()
    }

    /// To be called some fifty times a second. Moves the mark if it is time; `newest_ms` is the newest
    /// stamp that was given in this life, 0 before the first; `sync_dir` syncs the ingest directory. After
    /// an error stamps stay where they may be; it is to be called again.
    pub fn keep(&mut self, wall_ms: u64, newest_ms: u64, sync_dir: SyncDir<'_>) -> io::Result<()> {
        self.ceiling.tick(wall_ms);
        let base_ms = newest_ms.max(self.floor_ms);
        let is_marked = self.mark_ms.is_none_or(|mark_ms| newest_ms <= mark_ms);
        assert!(is_marked, "stamps reach {newest_ms}, the mark on disk {:?}", self.mark_ms);
        let Some(mark_ms) = next_mark(self.mark_ms, wall_ms, base_ms) else { return Ok(()) };
        let begun = self.ingester.start(sync_dir);
        begun.map_err(|e| io::Error::new(e.kind(), format!("{IDENTITY_FILE} beside it: {e}")))?;
        let goes_on = self.mark_ms.is_none_or(|before| before <= mark_ms);
        assert!(
            goes_on && base_ms <= mark_ms,
            "the mark {mark_ms} is ahead of stamps and of itself"
        );
        self.file.write(&StampMark(mark_ms), sync_dir)?;
        self.mark_ms = Some(mark_ms);
        // A stamper whose counter is used up goes one beyond it.
        self.ceiling.raise(mark_ms - 1);
        Ok(())
    }

    /// Nothing is stamped any more, and nothing was above `newest_ms`: the next life need not start
    /// ahead of the clock.
    pub fn close(&mut self, newest_ms: u64) -> io::Result<()> {
        let last_ms = newest_ms.max(self.floor_ms.saturating_sub(1));
        match self.mark_ms.take() {
            // Its file is there: it was written before.
            Some(mark_ms) if last_ms < mark_ms => self.file.write(&StampMark(last_ms), &|| Ok(())),
            _ => Ok(()),
        }
    }
}

/// Where the mark is to be, if it is time to move it. It is ahead of the clock, and of the newest stamp
/// by a little: after the clock was set back stamps rise only as followers wait for them.
fn next_mark(mark_ms: Option<u64>, wall_ms: u64, newest_ms: u64) -> Option<u64> {
    let ahead =
        |share: u64| (wall_ms + STAMPS_AHEAD_MS / share).max(newest_ms + STAMPS_ROOM_MS / share);
    let is_due = mark_ms.is_none_or(|mark_ms| mark_ms < ahead(2).min(MS_MAX));
    is_due.then(|| ahead(1).min(MS_MAX))
}

#[cfg(test)]
#[path = "stamp_mark_tests.rs"]
mod tests;
