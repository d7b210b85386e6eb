//! Reading entries in the order of their numbers, over whatever is damaged.
//!
//! Invariants: a damaged span is passed over and told once, with what it cost where the entry behind it
//! tells; a place that cannot be read is tried again before it is given up.

use std::io;
use std::ops::Range;

use super::entry::EntryHeader;
use super::file::{At, SpoolFile};
use super::{Entry, Spool};
use crate::damage::{Damage, DamageKind};
use crate::storage::Refusal;

/// Tries to read a place before it is given up: some seconds at a caller's pace.
const READ_TRIES: u32 = 20;

impl Spool {
    /// The next entry that was not read yet, with its number.
    pub fn read_next(&mut self) -> io::Result<Option<(u64, Entry)>> {
        loop {
            let Some(file) = self.files.get(self.cursor.file) else {
                if self.jump(self.cursor.number..self.number_next)? {
                    continue;
                }
                self.tell_pending(None);
                return Ok(None);
            };
            let (at, offset) = match read_here(file, self.cursor.offset) {
                Ok(found) => found,
                Err(e) => {
                    self.on_read_error(&e)?;
                    continue;
                }
            };
            match at {
                Here::Entry(header, bytes) => {
                    // Up to and with this one another file may have what is missed here.
                    let missed = self.cursor.number..header.number + u64::from(bytes.is_none());
                    if !missed.is_empty() && self.jump(missed)? {
                        continue;
                    }
                    self.cursor.offset = offset + header.total_bytes();
                    self.cursor.failures = 0;
                    if let Some(entry) = self.accept(offset, header, bytes) {
                        return Ok(Some((header.number, entry)));
                    }
                }
                Here::End if self.cursor.file + 1 == self.files.len() && self.is_writing => {
                    self.cursor.offset = offset;
                    self.tell_pending(None);
                    return Ok(None);
                }
                Here::End => {
                    self.cursor.file += 1;
                    self.cursor.offset = 0;
                }
                Here::Bad { until, kind } => {
                    self.tell_pending(None);
                    self.cursor.damage = Some(self.damaged_here(offset, until - offset, kind));
                    self.cursor.offset = until;
                }
            }
        }
    }

    /// Goes on reading where the next of these numbers is, if it is anywhere: after a failed sync
    /// entries are in two files, and either may have been damaged by a power loss. A search that fails is made again by the
    /// next calls, then given up.
    fn jump(&mut self, numbers: Range<u64>) -> io::Result<bool> {
        match self.find_next(numbers) {
            Ok(None) => Ok(false),
            Ok(Some((file, offset))) => {
                (self.cursor.file, self.cursor.offset) = (file, offset);
                Ok(true)
            }
            Err(error) => {
                self.cursor.failures += 1;
                if self.cursor.failures < READ_TRIES {
                    return Err(error);
                }
                self.cursor.failures = 0;
                Ok(false)
            }
        }
    }

    /// Where the whole entry with the lowest of these numbers is.
    pub(super) fn find_next(&self, numbers: Range<u64>) -> io::Result<Option<(usize, u64)>> {
        let mut best: Option<(u64, (usize, u64))> = None;
        for (index, file) in self
            .files
            .iter()
            .enumerate()
            .filter(|(_, f)| f.entries_first < numbers.end && f.entries_end > numbers.start)
        {
            for entry in file.entries() {
                let is_whole = entry.and_then(|(offset, header)| {
                    let is_better = numbers.contains(&header.number)
                        && best.is_none_or(|(lowest, _)| header.number < lowest);
                    let found = is_better && file.payload(offset, &header)?.is_some();
                    Ok(found.then_some((header.number, (index, offset))))
                });
                match is_whole {
                    Ok(found) => best = found.or(best),
                    // Told before: what lies behind is found in no other way.
                    Err(_) if file.is_damaged => break,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(best.map(|(_, place)| place))
    }

    /// Judges an entry by its number and payload.
    fn accept(
        &mut self,
        offset: u64,
        header: EntryHeader,
        bytes: Option<Vec<u8>>,
    ) -> Option<Entry> {
        if header.number < self.cursor.number {
            // Released before the last stop, or written twice after a failed sync.
            return None;
        }
        let lost =
            self.cursor.lines_before.map(|before| header.lines_before.saturating_sub(before));
        if header.number > self.cursor.number && self.cursor.damage.is_none() {
            let kind = DamageKind::Truncated("entries before this one");
            self.cursor.damage = Some(Damage {
                path: self.files[self.cursor.file].path.clone(),
                offset,
                len_bytes: 0,
                range: None,
                records: None,
                kind,
            });
        }
        if header.number == self.cursor.number {
            self.forgive_unfinished();
        }
        self.tell_pending(lost);
        self.cursor.number = header.number + 1;
        let lines_end = header.lines_before + header.lines;
        self.cursor.lines_before = Some(lines_end);
        let Some(bytes) = bytes else {
            let kind = DamageKind::Checksum("lines of a spool entry");
            let mut damage = self.damaged_here(offset, header.total_bytes(), kind);
            damage.records = Some(header.lines);
            self.damage.push(damage);
            return None;
        };
        self.unreleased.push_back((header.number, lines_end));
        let EntryHeader { lines, starts_line, ends_line, .. } = header;
        Some(Entry { bytes, lines, starts_line, ends_line })
    }

    /// Damage in the file that is being read, which will be set aside.
    fn damaged_here(&mut self, offset: u64, len_bytes: u64, kind: DamageKind) -> Damage {
        let file = &mut self.files[self.cursor.file];
        file.is_damaged = true;
        Damage { path: file.path.clone(), offset, len_bytes, range: None, records: None, kind }
    }

    /// The end of a file is torn, and the next entry shows that nothing was lost there.
    fn forgive_unfinished(&mut self) {
        if let Some(damage) = &self.cursor.damage
            && damage.kind == DamageKind::Unfinished
            && let Some(file) = self.files.iter_mut().find(|f| f.path == damage.path)
        {
            file.is_damaged = false;
        }
    }

    fn tell_pending(&mut self, records: Option<u64>) {
        if let Some(mut damage) = self.cursor.damage.take() {
            damage.records = records;
            self.damage.push(damage);
        }
    }

    /// A place that cannot be read is tried again by the next calls, then the rest of its file is
    /// given up.
    fn on_read_error(&mut self, error: &io::Error) -> io::Result<()> {
        self.cursor.failures += 1;
        if self.cursor.failures < READ_TRIES {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        self.cursor.failures = 0;
        self.tell_pending(None);
        let is_last = self.cursor.file + 1 == self.files.len();
        let len_bytes = self.files[self.cursor.file].len_bytes;
        let offset = self.cursor.offset;
        let kind = DamageKind::Unread(Refusal::from(error));
        self.cursor.damage =
            Some(self.damaged_here(offset, len_bytes.saturating_sub(offset), kind));
        self.cursor.offset = len_bytes;
        if is_last {
            self.is_writing = false;
        }
        Ok(())
    }
}

/// What is read at a place.
pub(super) enum Here {
    /// An entry; without bytes where their checksum does not match.
    Entry(EntryHeader, Option<Vec<u8>>),
    End,
    Bad {
        until: u64,
        kind: DamageKind,
    },
}

/// Reads at `offset` (0: at the beginning) and says where that is.
pub(super) fn read_here(file: &SpoolFile, offset: u64) -> io::Result<(Here, u64)> {
    let offset = if offset > 0 {
        offset
    } else {
        match file.first_offset()? {
            Ok(first) => first,
            Err(version) => {
                let kind = version
                    .map_or(DamageKind::Malformed("spool file's header"), DamageKind::Version);
                let until = match kind {
                    DamageKind::Version(_) => file.len_bytes,
                    _ => file.find_entry(0)?,
                };
                // An empty file is one whose power went first.
                let here = if until == 0 { Here::End } else { Here::Bad { until, kind } };
                return Ok((here, 0));
            }
        }
    };
    let here = match file.look(offset)? {
        At::Entry(header) => Here::Entry(header, file.payload(offset, &header)?),
        At::End => Here::End,
        At::Bad { until } if until == file.len_bytes => {
            Here::Bad { until, kind: DamageKind::Unfinished }
        }
        At::Bad { until } => Here::Bad { until, kind: DamageKind::Malformed("spool entry") },
    };
    Ok((here, offset))
}
