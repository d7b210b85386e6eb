//! Files that could not be read: passed over, so that what is behind them gets on, and read again
//! until they can be.
//!
//! Invariants: such a file keeps every byte; its name says which of its entries wait, since the mark
//! goes past them; what it holds is appended behind everything else, and only once that is durable
//! the file goes. Entries may come twice if that breaks off, never not at all.

use std::io;
use std::path::PathBuf;

use super::entry::EntryHeader;
use super::file::{Reader, SpoolFile};
use super::reading::{Here, here_at};
use super::{AppendError, DAMAGED_SUFFIX, Entry, Spool};
use crate::damage::{Damage, DamageKind};
use crate::storage::Refusal;

/// Suffix of their names.
const SUFFIX: &str = ".unread";

/// A file that was passed over.
#[derive(Debug, Clone)]
pub(super) struct PassedOver {
    pub(super) sequence: u64,
    /// Its entries from this number on wait: those before it are on their way, or handed over.
    pub(super) from: u64,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
}

/// Sequence and first waiting entry of a file of this name.
pub(super) fn parse(name: &str) -> Option<(u64, u64)> {
    let (sequence, from) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |digits: &str| {
        let is_ours =
            digits.len() == 16 && digits.bytes().all(|b| b"0123456789abcdef".contains(&b));
        is_ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    Some((number(sequence)?, number(from)?))
}

/// What going through such a file yields.
struct Step {
    header: EntryHeader,
    /// `None`: their checksum does not match.
    bytes: Option<Vec<u8>>,
}

impl Spool {
    /// Passes over the file that is being read.
    pub(super) fn pass_over(&mut self, index: usize, refusal: Refusal) -> io::Result<()> {
        let file = &self.files[index];
        let (sequence, from, len_bytes) = (file.sequence, self.cursor.number, file.len_bytes);
        // What was read and is not handed over yet waits as well, should this life end.
        let named = self.unreleased.front().map_or(from, |(number, _)| from.min(*number));
        let path = self.directory.join(format!("{sequence:016x}-{named:016x}{SUFFIX}"));
        self.storage.rename(&file.path, &path)?;
        if let Some(handle) = &file.file {
            // Written in this life, and nobody will ask for another sync. If it fails, the lines are
            // as those of any file that cannot be read.
            let _ = handle.sync();
        }
        let until = if file.is_unread { u64::MAX } else { file.entries_end };
        self.told_missing.push(from..until);
        self.damage.push(Damage {
            path: path.clone(),
            offset: self.cursor.offset,
            len_bytes: len_bytes.saturating_sub(self.cursor.offset),
            range: None,
            records: None,
            kind: DamageKind::Unread(refusal),
        });
        self.passed_over.push(PassedOver { sequence, from, path, len_bytes });
        self.files.remove(index);
        self.is_writing &= index < self.files.len();
        self.cursor.offset = 0;
        self.cursor.lines_before = None;
        Ok(())
    }

    /// Reads again what was passed over; what can be read now waits behind everything else. Says
    /// whether there was any.
    pub fn read_again(&mut self) -> bool {
        let mut any = false;
        for mut passed in std::mem::take(&mut self.passed_over) {
            match self.take_back(&mut passed) {
                Ok(()) => any = true,
                // Somebody removed it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(_) => self.passed_over.push(passed),
            }
        }
        any
    }

    fn take_back(&mut self, passed: &mut PassedOver) -> io::Result<()> {
        let file = SpoolFile::new(passed.sequence, passed.path.clone(), None, 0);
        let mut reader = file.reader(&*self.storage)?;
        reader.len_bytes = reader.file.len()?;
        // All of it first: a file that breaks off again would come twice.
        let from = passed.from;
        self.go_through(&reader, passed, |_, _| Ok(()))?;
        passed.from = from;
        let damage = self.go_through(&reader, passed, |spool, step| {
            let Step { header, bytes: Some(bytes) } = step else { return Ok(()) };
            let EntryHeader { lines, starts_line, ends_line, .. } = header;
            let entry = Entry { bytes, lines, starts_line, ends_line };
            match spool.append(&entry, true) {
                Ok(_) => Ok(()),
                Err(AppendError::Io(e)) => Err(e),
                Err(AppendError::Full) => Err(io::ErrorKind::StorageFull.into()),
            }
        })?;
        if let Some(job) = self.sync_job()? {
            let outcome = job.run();
            let failed = outcome.as_ref().err().map(Refusal::from);
            self.on_synced(job, outcome)?;
            if let Some(refusal) = failed {
                return Err(refusal.into());
            }
        }
        if damage.is_empty() {
            self.storage.remove(&passed.path)?;
        } else {
            let name = format!("{:016x}.{DAMAGED_SUFFIX}", passed.sequence);
            self.storage.rename(&passed.path, &self.directory.join(name))?;
            self.damage.extend(damage);
        }
        Ok(())
    }

    /// Hands out the entries that wait, and notes in `passed` which do no more; what is damaged.
    fn go_through(
        &mut self,
        reader: &Reader,
        passed: &mut PassedOver,
        mut take: impl FnMut(&mut Self, Step) -> io::Result<()>,
    ) -> io::Result<Vec<Damage>> {
        let mut damage: Vec<Damage> = Vec::new();
        let path = passed.path.clone();
        let mut offset = 0;
        let mut before: Option<(u64, u64)> = None;
        loop {
            let (here, at) = here_at(reader, offset, true)?;
            match here {
                Here::End => return Ok(damage),
                Here::Bad { until, kind } => {
                    let (len_bytes, range, records) = (until - at, None, None);
                    let path = path.clone();
                    damage.push(Damage { path, offset: at, len_bytes, range, records, kind });
                    offset = until;
                }
                Here::Entry(header, bytes) => {
                    offset = at + header.total_bytes();
                    let lost = before.and_then(|(number, lines)| {
                        match header.number.saturating_sub(number) {
                            0 => Some(0),
                            _ => header.lines_before.checked_sub(lines).filter(|lines| *lines > 0),
                        }
                    });
                    if let Some(last) = damage.last_mut().filter(|last| last.records.is_none()) {
                        last.records = lost;
                    }
                    before = Some((header.number + 1, header.lines_before + header.lines));
                    if header.number < passed.from {
                        continue;
                    }
                    if bytes.is_none() {
                        let kind = DamageKind::Checksum("lines of a spool entry");
                        let (len_bytes, range) = (header.total_bytes(), None);
                        let (path, records) = (path.clone(), Some(header.lines));
                        damage.push(Damage { path, offset: at, len_bytes, range, records, kind });
                    }
                    take(self, Step { header, bytes })?;
                    passed.from = header.number + 1;
                }
            }
        }
    }
}
