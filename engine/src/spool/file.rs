//! One spool file: what is known of it, and where its entries are.
//!
//! Invariants: reads stay below the file's known length; a damaged span ends at the next header
//! that passes its checksum, wherever that is. A file is open only while it is written, not yet
//! synced, or being read: a spool may have more files than the process may have open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{
    ENTRY_HEADER_BYTES, ENTRY_MAGIC, EntryHeader, FILE_HEADER_BYTES, VERSION, file_version,
};
use crate::limits::SPOOL_SCAN_BYTES;
use crate::storage::{File, Open, Storage};

/// An error that says on which file.
pub(super) fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A file of the spool.
pub(super) struct SpoolFile {
    /// Its place among the others; also its name.
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    /// Its handle, while it is written or not synced.
    pub(super) file: Option<Arc<dyn File>>,
    /// Bytes in use.
    pub(super) len_bytes: u64,
    /// Of these, synced.
    pub(super) synced_bytes: u64,
    /// Whether its name is durable.
    pub(super) is_named: bool,
    /// Whether a sync failed: there will be no other.
    pub(super) sync_failed: bool,
    /// The lowest number of its entries.
    pub(super) entries_first: u64,
    /// Behind the highest number of its entries; 0 without entries.
    pub(super) entries_end: u64,
    /// Whether something in it is damaged.
    pub(super) is_damaged: bool,
    /// Whether it could not be read to its end when the spool was opened: what it holds is not
    /// known, and `entries_end` no more than a bound.
    pub(super) is_unread: bool,
}

impl SpoolFile {
    /// A file of which nothing is known but its length.
    pub(super) fn new(
        sequence: u64,
        path: PathBuf,
        file: Option<Arc<dyn File>>,
        len_bytes: u64,
    ) -> Self {
        Self {
            sequence,
            path,
            file,
            len_bytes,
            synced_bytes: 0,
            is_named: false,
            sync_failed: false,
            entries_first: u64::MAX,
            entries_end: 0,
            is_damaged: false,
            is_unread: false,
        }
    }

    /// Reads it as far as it is in use.
    pub(super) fn reader(&self, storage: &dyn Storage) -> io::Result<Reader> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => storage.open(&self.path, Open::Read)?,
        };
        Ok(Reader { file, len_bytes: self.len_bytes })
    }
}

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At {
    /// An entry with this header, whole as far as its length goes.
    Entry(EntryHeader),
    /// Nothing more.
    End,
    /// Bytes that are no entry, up to this offset.
    Bad {
        /// Where the next entry, or the end of the file, is.
        until: u64,
    },
}

/// An open file.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) file: Arc<dyn File>,
    /// Bytes in use.
    pub(super) len_bytes: u64,
}

impl Reader {
    /// What stands at `offset`.
    pub(super) fn look(&self, offset: u64) -> io::Result<At> {
        if offset >= self.len_bytes {
            return Ok(At::End);
        }
        match self.header_at(offset)? {
            Some(header) => Ok(At::Entry(header)),
            None => Ok(At::Bad { until: self.find_entry(offset + 1)? }),
        }
    }

    /// The first offset that may hold an entry; behind whatever stands in place of a header.
    pub(super) fn first_offset(&self) -> io::Result<Result<u64, Option<u16>>> {
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        if self.len_bytes < FILE_HEADER_BYTES {
            return Ok(Err(None));
        }
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(match file_version(&bytes) {
            Some(VERSION) => Ok(FILE_HEADER_BYTES),
            other => Err(other),
        })
    }

    /// Where its entries begin.
    pub(super) fn begin(&self) -> io::Result<u64> {
        Ok(match self.first_offset()? {
            Ok(first) => first,
            // Another version: nothing in it is read, and it is set aside.
            Err(Some(_)) => self.len_bytes,
            Err(None) => self.find_entry(0)?,
        })
    }

    /// Every entry by its header, with its offset.
    pub(super) fn entries(&self) -> impl Iterator<Item = io::Result<(u64, EntryHeader)>> + '_ {
        let mut next = self.begin();
        std::iter::from_fn(move || {
            loop {
                let offset = match &next {
                    Ok(offset) => *offset,
                    Err(_) => {
                        return Some(Err(std::mem::replace(&mut next, Ok(self.len_bytes)).err()?));
                    }
                };
                match self.look(offset) {
                    Ok(At::Entry(header)) => {
                        next = Ok(offset + header.total_bytes());
                        return Some(Ok((offset, header)));
                    }
                    Ok(At::Bad { until }) => next = Ok(until),
                    Ok(At::End) => return None,
                    Err(e) => next = Err(e),
                }
            }
        })
    }

    fn header_at(&self, offset: u64) -> io::Result<Option<EntryHeader>> {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        if self.len_bytes < offset + ENTRY_HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, offset)?;
        let header = EntryHeader::decode(&bytes);
        Ok(header.filter(|h| offset + h.total_bytes() <= self.len_bytes))
    }

    /// The next entry at or behind `from`, or the end.
    pub(super) fn find_entry(&self, from: u64) -> io::Result<u64> {
        let mut at = from;
        let mut buffer = vec![0; SPOOL_SCAN_BYTES];
        while at < self.len_bytes {
            let room = usize::try_from(self.len_bytes - at).unwrap_or(usize::MAX);
            let window = &mut buffer[..room.min(SPOOL_SCAN_BYTES)];
            self.file.read_exact_at(window, at)?;
            for found in memchr::memmem::find_iter(window, &ENTRY_MAGIC) {
                let offset = at + found as u64;
                if self.header_at(offset)?.is_some() {
                    return Ok(offset);
                }
            }
            // A magic may straddle two windows.
            let step = window.len().saturating_sub(ENTRY_MAGIC.len() - 1).max(1);
            at += step as u64;
        }
        Ok(self.len_bytes)
    }

    /// The payload behind `header` at `offset`, if its checksum matches.
    pub(super) fn payload(&self, offset: u64, header: &EntryHeader) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; header.len_bytes as usize];
        self.file.read_exact_at(&mut bytes, offset + ENTRY_HEADER_BYTES as u64)?;
        Ok((crc32fast::hash(&bytes) == header.payload_crc).then_some(bytes))
    }
}
