//! The mark: up to which entry everything is handed over.
//!
//! Two slots are written in turn, each with its checksum, so that one is whole whatever tears the
//! other. Invariants: it is never ahead of what was handed over. It may be behind after a power
//! loss: then entries are sent again; but no file goes before a mark that knows it is durable. One
//! that could not be read is not written to before it could.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{u32_at, u64_at};
use crate::storage::{File, Open, Refusal, Storage};

/// Name of the file.
pub(super) const MARK_FILE: &str = "mark";
const SLOT_MAGIC: [u8; 4] = *b"OKSM";
const SLOT_BYTES: usize = 32;
/// Each slot in a sector of its own.
const SLOT_DISTANCE: u64 = 512;

/// What a mark says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// How often it was written.
    writes: u64,
    /// Entries with smaller numbers are handed over.
    pub(super) released: u64,
    /// Lines in these; 0: not noted.
    pub(super) lines: u64,
}

/// The mark's file.
pub(super) struct Mark {
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    writes: u64,
    /// Entries with smaller numbers are handed over.
    pub(super) released: u64,
    /// Lines in these; 0: not noted.
    lines: u64,
    /// Whether the file says so: a write may have failed.
    is_written: bool,
    /// Entries for which that is durable.
    durable: u64,
    /// The last write that is.
    durable_write: Option<u64>,
    /// Whether its name is.
    is_named: bool,
    /// Whether a sync failed: what it should have covered is written again before the next.
    sync_failed: bool,
    /// Whether there may be one that could not be read.
    is_unread: bool,
}

/// What was found of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole one.
    Good(Slot),
    /// There is none.
    None,
    /// One slot is damaged: it may have been the newer one.
    OneSlot(Slot),
    /// No slot is whole: entries that were handed over may be sent again.
    Damaged,
    /// It cannot be read now.
    Unread(Refusal),
}

impl Found {
    /// What it says.
    pub(super) fn slot(self) -> Option<Slot> {
        match self {
            Self::Good(slot) | Self::OneSlot(slot) => Some(slot),
            Self::None | Self::Damaged | Self::Unread(_) => None,
        }
    }
}

impl Mark {
    /// The mark of a spool, as [`find`] found it.
    pub(super) fn new(path: PathBuf, found: Found) -> Self {
        let Slot { writes, released, lines } = found.slot().unwrap_or_default();
        Self {
            path,
            file: None,
            writes,
            released,
            lines,
            is_written: false,
            durable: 0,
            durable_write: None,
            is_named: false,
            sync_failed: false,
            is_unread: matches!(found, Found::Unread(_)),
        }
    }

    /// Moves it forward; `lines`: in all entries before, 0 where that is not known.
    pub(super) fn advance(
        &mut self,
        storage: &dyn Storage,
        released: u64,
        lines: u64,
    ) -> io::Result<()> {
        (self.released, self.lines, self.is_written) = (released, lines, false);
        self.write(storage)
    }

    fn write(&mut self, storage: &dyn Storage) -> io::Result<()> {
        if self.is_unread {
            match find(storage, &self.path) {
                Found::Unread(refusal) => return Err(refusal.into()),
                found => self.writes = found.slot().unwrap_or_default().writes,
            }
            self.is_unread = false;
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(match storage.open(&self.path, Open::Write) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    storage.open(&self.path, Open::CreateNew)?
                }
                opened => opened?,
            }),
        };
        let mut writes = self.writes + 1;
        if self.durable_write.is_some_and(|durable| durable % 2 == writes % 2) {
            // The slot that a power loss leaves stays until another one is as safe.
            writes += 1;
        }
        let slot = Slot { writes, released: self.released, lines: self.lines };
        file.write_all_at(&encode(slot), (slot.writes % 2) * SLOT_DISTANCE)?;
        (self.writes, self.is_written) = (slot.writes, true);
        Ok(())
    }

    /// Makes durable that entries below `released` are handed over, unless that is so already.
    pub(super) fn make_durable(
        &mut self,
        storage: &dyn Storage,
        directory: &Path,
        released: u64,
    ) -> io::Result<()> {
        if released <= self.durable {
            return Ok(());
        }
        if std::mem::take(&mut self.sync_failed) {
            // Under a new name, and all of it: a later sync tells nothing of what an earlier one lost.
            self.file = None;
            match storage.remove(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.sync_failed = true;
                    return Err(e);
                }
                _ => (self.is_named, self.durable_write) = (false, None),
            }
        }
        if self.file.is_none() || !self.is_written {
            self.write(storage)?;
        }
        let synced = match &self.file {
            Some(file) => file.sync(),
            None => Ok(()),
        };
        let named = if self.is_named { Ok(()) } else { storage.sync_dir(directory) };
        if let Err(e) = synced.and(named) {
            self.sync_failed = true;
            return Err(e);
        }
        (self.is_named, self.durable) = (true, self.released);
        self.durable_write = Some(self.writes);
        Ok(())
    }
}

/// What the mark's file at `path` says, and in what state it is.
pub(super) fn find(storage: &dyn Storage, path: &Path) -> Found {
    let read = || {
        let file = storage.open(path, Open::Read)?;
        let len = file.len()?;
        let mut slots = Vec::new();
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            if len >= slot * SLOT_DISTANCE + SLOT_BYTES as u64 {
                file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE)?;
                slots.push(bytes);
            }
        }
        io::Result::Ok((len, slots))
    };
    let (len, slots) = match read() {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Found::None,
        Err(e) => return Found::Unread(Refusal::from(&e)),
    };
    let newest = slots.iter().filter_map(decode).max();
    // One that was never written is zeros.
    let is_bad = |bytes: &&[u8; SLOT_BYTES]| decode(bytes).is_none() && **bytes != [0; SLOT_BYTES];
    match newest {
        None if len == 0 => Found::None,
        None => Found::Damaged,
        Some(slot) if slots.iter().filter(is_bad).count() == 0 => Found::Good(slot),
        Some(slot) => Found::OneSlot(slot),
    }
}

fn encode(slot: Slot) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    out[..4].copy_from_slice(&SLOT_MAGIC);
    out[8..16].copy_from_slice(&slot.writes.to_le_bytes());
    out[16..24].copy_from_slice(&slot.released.to_le_bytes());
    out[24..32].copy_from_slice(&slot.lines.to_le_bytes());
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Slot> {
    let whole = bytes[..4] == SLOT_MAGIC && crc32fast::hash(&bytes[8..]) == u32_at(bytes, 4);
    let [writes, released, lines] = [8, 16, 24].map(|at| u64_at(bytes, at));
    whole.then_some(Slot { writes, released, lines })
}
