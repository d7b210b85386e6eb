//! The mark: up to which entry everything is handed over.
//!
//! Two slots are written in turn, each with its checksum, so that one is whole whatever tears the
//! other. Invariants: it is never ahead of what was handed over. It may be behind after a power
//! loss, because it is not synced on its own: then entries are sent again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::entry::{u32_at, u64_at};
use super::file::naming;
use crate::storage::{File, Open, Storage};

/// Name of the file.
pub(super) const MARK_FILE: &str = "mark";
const SLOT_MAGIC: [u8; 4] = *b"OKSM";
const SLOT_BYTES: usize = 32;
/// Each slot in a sector of its own.
const SLOT_DISTANCE: u64 = 512;

/// The mark's file.
pub(super) struct Mark {
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    writes: u64,
    /// Entries with smaller numbers are handed over.
    pub(super) released: u64,
}

/// What was found of a mark.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole one, or none because the spool is new.
    Good,
    /// One slot cannot be read: it may have been the newer one.
    OneSlot,
    /// No slot is whole: entries that were handed over may be sent again.
    Damaged,
}

impl Mark {
    /// Reads the mark of a spool.
    pub(super) fn open(storage: &dyn Storage, path: PathBuf) -> io::Result<(Self, Found)> {
        let mut mark = Self { path, file: None, writes: 0, released: 0 };
        let file = match storage.open(&mark.path, Open::Write) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((mark, Found::Good)),
            Err(e) => return Err(naming(&mark.path, &e)),
        };
        let found;
        (mark.writes, mark.released, found) = read(&*file)?;
        mark.file = Some(file);
        Ok((mark, found))
    }

    /// Moves it forward.
    pub(super) fn advance(&mut self, storage: &dyn Storage, released: u64) -> io::Result<()> {
        self.released = released;
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(storage.open(&self.path, Open::CreateNew)?),
        };
        let writes = self.writes + 1;
        file.write_all_at(&encode(writes, released), (writes % 2) * SLOT_DISTANCE)?;
        self.writes = writes;
        Ok(())
    }

    /// Makes it durable, so that a restart sends nothing again.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync())
    }
}

/// What a mark's file says: how often it was written, up to where everything is handed over, and in
/// what state it is.
pub(super) fn read(file: &dyn File) -> io::Result<(u64, u64, Found)> {
    let (mut newest, mut whole, mut bad) = ((0, 0), 0, 0);
    let len = file.len()?;
    for slot in 0..2 {
        let mut bytes = [0; SLOT_BYTES];
        if len < slot * SLOT_DISTANCE + SLOT_BYTES as u64 {
            continue;
        }
        // A slot that cannot be read is as good as a torn one.
        let is_read = file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE).is_ok();
        if let Some(slot) = decode(&bytes) {
            whole += 1;
            newest = newest.max(slot);
        } else {
            // One that was never written is zeros.
            bad += u64::from(!is_read || bytes != [0; SLOT_BYTES]);
        }
    }
    let found = match (whole, bad) {
        (0, _) if len > 0 => Found::Damaged,
        (_, 0) => Found::Good,
        _ => Found::OneSlot,
    };
    Ok((newest.0, newest.1, found))
}

fn encode(writes: u64, released: u64) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    out[..4].copy_from_slice(&SLOT_MAGIC);
    out[8..16].copy_from_slice(&writes.to_le_bytes());
    out[16..24].copy_from_slice(&released.to_le_bytes());
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, u64)> {
    let whole = bytes[..4] == SLOT_MAGIC && crc32fast::hash(&bytes[8..]) == u32_at(bytes, 4);
    whole.then(|| (u64_at(bytes, 8), u64_at(bytes, 16)))
}
