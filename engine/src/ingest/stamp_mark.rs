//! The mark of stamps: a time above which this ingester has given no stamp out. It lies in a small file
//! of the ingest directory, so that ULIDs never go back, whatever the clock does, whatever became of
//! the records, and on shards that were idle. `docs/format-ingest.md` has the byte table.
//!
//! Invariants: the mark on disk is synced, in both of its copies, before a stamp above the one before
//! may be given: the mark is ahead of the clock and moved before it is reached, so that no shard waits
//! for it; where it cannot be moved in time stamps stay at it and go on counting. After a start
//! every stamp lies above the mark that was found. One whole copy is enough; that both are damaged,
//! or that the file cannot be read, is not that there is none: the caller must not go on then.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::stamp::Ceiling;
use crate::damage::{Damage, DamageKind};
use crate::limits::{STAMPS_AHEAD_MS, STAMPS_ROOM_MS};
use crate::storage::{File, Open, Refusal, Storage};
use crate::ulid::MS_MAX;

/// Name of the file.
pub const STAMP_MARK_FILE: &str = "STAMPS";
/// Its name until it is whole for the first time.
pub const STAMP_MARK_NEW_FILE: &str = "STAMPS.new";
/// First bytes of a copy.
pub const STAMP_MARK_MAGIC: [u8; 4] = *b"OKS1";
/// Length of a copy, bytes.
pub const COPY_BYTES: usize = 16;
/// Where each copy starts: on a page and a sector of its own.
const COPY_OFFSETS: [u64; 2] = [0, 4096];

/// Why a mark cannot be relied on.
#[derive(Debug)]
pub enum MarkError {
    /// It cannot be read.
    Unread(PathBuf, io::Error),
    /// Neither copy is whole.
    Damaged(PathBuf),
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::Unread(path, error) => {
                write!(f, "{} cannot be read: {error}", path.display())?;
                path
            }
            Self::Damaged(path) => {
                write!(f, "{} is damaged, in both of its copies", path.display())?;
                path
            }
        };
        write!(
            f,
            "; it says which times were given to records, and without it new ones might sort before \
             old ones. Mend the disk or restore the file; if it is lost, move {} away: the node then \
             goes on behind the newest record that it finds",
            path.display()
        )
    }
}

impl std::error::Error for MarkError {}

/// What a mark's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    /// No stamp above it was given out, milliseconds since 1970.
    pub mark_ms: u64,
    /// Which copies are whole.
    pub whole: [bool; 2],
    /// Which of the others could not be read, and why: they may be whole.
    pub unread: [Option<Refusal>; 2],
}

/// Reads a mark; `None`: neither copy is whole.
pub fn read_mark(file: &dyn File) -> io::Result<Option<ReadMark>> {
    let (mut marks, mut unread, mut refused) = ([None; 2], [None; 2], None);
    for (copy, offset) in COPY_OFFSETS.into_iter().enumerate() {
        let mut bytes = [0; COPY_BYTES];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => marks[copy] = decode(&bytes),
            // The file was cut: this copy is damaged.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                unread[copy] = Some(Refusal::from(&error));
                refused = Some(error);
            }
        }
    }
    // The higher one is always sound: it may be of a move that did not end.
    match (marks.iter().flatten().max(), refused) {
        (Some(&mark_ms), _) => {
            Ok(Some(ReadMark { mark_ms, whole: marks.map(|mark| mark.is_some()), unread }))
        }
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// Checks a mark's file, offline and read-only. It holds no record; while one copy is whole nothing is
/// lost.
pub fn check_mark(storage: &dyn Storage, path: &Path) -> io::Result<Vec<Damage>> {
    let found = read_mark(&*storage.open(path, Open::Read)?)?;
    let whole = found.map_or([false; 2], |found| found.whole);
    let damage = |copy: usize| Damage {
        path: path.to_owned(),
        offset: COPY_OFFSETS[copy],
        len_bytes: COPY_BYTES as u64,
        range: None,
        records: Some(0),
        kind: match found.map(|found| found.unread[copy]) {
            Some(Some(refusal)) => DamageKind::Bypassed(refusal),
            Some(None) => DamageKind::Repairable("copy of the mark of stamps"),
            None => DamageKind::Checksum("mark of stamps"),
        },
    };
    Ok((0..2).filter(|&copy| !whole[copy]).map(damage).collect())
}

/// One copy of a mark.
pub fn encode(mark_ms: u64) -> [u8; COPY_BYTES] {
    let mut out = [0; COPY_BYTES];
    out[..4].copy_from_slice(&STAMP_MARK_MAGIC);
    out[8..].copy_from_slice(&mark_ms.to_le_bytes());
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; COPY_BYTES]) -> Option<u64> {
    let (head, mark) = bytes.split_at(8);
    let is_whole =
        head[..4] == STAMP_MARK_MAGIC && head[4..] == crc32fast::hash(mark).to_le_bytes();
    let mark_ms = u64::from_le_bytes(mark.try_into().ok()?);
    is_whole.then_some(mark_ms).filter(|&ms| ms <= MS_MAX)
}

/// The mark's file.
struct MarkFile {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    file: Option<Arc<dyn File>>,
    /// The copy that is written first: one that is not whole, where there is one.
    first: usize,
}

impl MarkFile {
    /// Makes the mark durable in both copies, one after the other. After an error the copy that was
    /// not being written is as it was.
    fn write(&mut self, mark_ms: u64) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return self.create(mark_ms) };
        for copy in [self.first, 1 - self.first] {
            self.first = copy;
            file.write_all_at(&encode(mark_ms), COPY_OFFSETS[copy])?;
            file.sync()?;
        }
        Ok(())
    }

    /// Under its name the file was never anything but whole.
    fn create(&mut self, mark_ms: u64) -> io::Result<()> {
        let path = self.directory.join(STAMP_MARK_FILE);
        let new = self.directory.join(STAMP_MARK_NEW_FILE);
        match self.storage.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.storage.open(&new, Open::CreateNew)?;
        for offset in COPY_OFFSETS {
            file.write_all_at(&encode(mark_ms), offset)?;
        }
        file.sync()?;
        self.storage.rename(&new, &path)?;
        self.storage.sync_dir(&self.directory)?;
        // The handle follows the name.
        self.file = Some(file);
        Ok(())
    }
}

/// Keeps the mark ahead of what shards stamp.
pub struct StampKeeper {
    file: MarkFile,
    ceiling: Ceiling,
    /// What the disk says in both copies; `None`: that of the last life, or nothing yet.
    mark_ms: Option<u64>,
    /// Below it no stamp is given in this life.
    floor_ms: u64,
}

/// An opened mark.
pub struct OpenedMark {
    /// What moves it on.
    pub keeper: StampKeeper,
    /// A copy is damaged; the other one holds.
    pub has_damaged_copy: bool,
    /// A copy could not be read; the other one holds.
    pub unread_copy: Option<Refusal>,
}

impl StampKeeper {
    /// Reads the mark of an ingest directory that exists. There is none in a directory of another
    /// version, or in a new one.
    pub fn open(storage: Arc<dyn Storage>, directory: &Path) -> Result<OpenedMark, MarkError> {
        let path = directory.join(STAMP_MARK_FILE);
        let unread = |error| MarkError::Unread(path.clone(), error);
        let file = match storage.open(&path, Open::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unread(error)),
        };
        let found = match &file {
            Some(file) => {
                let found = read_mark(&**file).map_err(unread)?;
                Some(found.ok_or_else(|| MarkError::Damaged(path.clone()))?)
            }
            None => None,
        };
        let unread_copy = found.and_then(|found| found.unread.into_iter().flatten().next());
        let has_damaged_copy =
            unread_copy.is_none() && found.is_some_and(|found| found.whole != [true; 2]);
        let first = usize::from(found.is_some_and(|found| !found.whole[1]));
        let file = MarkFile { storage, directory: directory.to_owned(), file, first };
        let floor_ms = found.map_or(0, |found| (found.mark_ms + 1).min(MS_MAX));
        let ceiling = Ceiling::at(0);
        let keeper = Self { file, ceiling, mark_ms: None, floor_ms };
        Ok(OpenedMark { keeper, has_damaged_copy, unread_copy })
    }

    /// Raises the floor above the newest record that was found: there may be records from before there
    /// was a mark. To be called before anything is stamped.
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

    /// To be called some fifty times a second. Moves the mark if it is time; `newest_ms` is the newest stamp that was given in this life, 0
    /// before the first. After an error stamps stay where they may be; it is to be called again.
    pub fn keep(&mut self, wall_ms: u64, newest_ms: u64) -> io::Result<()> {
        self.ceiling.tick(wall_ms);
        let base_ms = newest_ms.max(self.floor_ms);
        let Some(mark_ms) = next_mark(self.mark_ms, wall_ms, base_ms) else { return Ok(()) };
        self.file.write(mark_ms)?;
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
            Some(mark_ms) if last_ms < mark_ms => self.file.write(last_ms),
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
