//! Reading entries in the order of their numbers, over whatever is damaged.
//!
//! Invariants: a damaged span is told once, by [`super::judge`] or, where it came about later, here,
//! with what it cost where the entry behind it tells; a place that cannot be read is no damage: it is
//! tried again, then its file is passed over ([`super::passed_over`]) so that others get on.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::entry::EntryHeader;
use super::file::{At, Reader};
use super::{Entry, Spool};
use crate::damage::{Damage, DamageKind};
use crate::storage::Refusal;

/// Tries to read a place before its file is passed over: some seconds at a caller's pace.
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
            let is_unread = file.is_unread;
            let read = if is_unread { self.know(self.cursor.file) } else { Ok(()) };
            let read = read.and_then(|()| {
                here_at(&self.reader_at(self.cursor.file)?, self.cursor.offset, true)
            });
            let (at, offset) = match read {
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
                    let place = (self.files[self.cursor.file].path.clone(), offset);
                    if !self.told.contains(&place) {
                        self.cursor.damage = Some(self.damaged_here(offset, until - offset, kind));
                    }
                    self.cursor.offset = until;
                }
            }
        }
    }

    /// Opens a file for reading; the one that is being read stays open.
    fn reader_at(&mut self, index: usize) -> io::Result<Reader> {
        let file = &self.files[index];
        if let Some((sequence, open)) = &self.cursor.open
            && *sequence == file.sequence
        {
            return Ok(Reader { file: Arc::clone(open), len_bytes: file.len_bytes });
        }
        let reader = file.reader(&*self.storage)?;
        self.cursor.open = Some((file.sequence, Arc::clone(&reader.file)));
        Ok(reader)
    }

    /// Finds out what a file holds that could not be read when the spool was opened.
    fn know(&mut self, index: usize) -> io::Result<()> {
        let mut reader = self.reader_at(index)?;
        reader.len_bytes = reader.file.len()?;
        let (mut first, mut end) = (u64::MAX, 0);
        for entry in reader.entries() {
            let (_, header) = entry?;
            (first, end) = (first.min(header.number), end.max(header.number + 1));
        }
        let file = &mut self.files[index];
        (file.entries_first, file.entries_end, file.len_bytes) = (first, end, reader.len_bytes);
        file.is_unread = false;
        Ok(())
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
        for (index, file) in self.files.iter().enumerate().filter(|(_, file)| {
            // What one holds that cannot be read now is found when it can.
            !file.is_unread && file.entries_first < numbers.end && file.entries_end > numbers.start
        }) {
            let reader = file.reader(&*self.storage)?;
            for entry in reader.entries() {
                let (offset, header) = entry?;
                let is_better = numbers.contains(&header.number)
                    && best.is_none_or(|(lowest, _)| header.number < lowest);
                if is_better && reader.payload(offset, &header)?.is_some() {
                    best = Some((header.number, (index, offset)));
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
        let missed = self.cursor.number..header.number;
        let lost = if missed.is_empty() {
            Some(0)
        } else {
            // No lines between numbers that are missing: a life that could not tell left one out.
            let before = self.cursor.lines_before;
            let lost = before.and_then(|before| header.lines_before.checked_sub(before));
            lost.filter(|lines| *lines > 0)
        };
        let is_told = |told: &Range<u64>| told.start <= missed.start && told.end >= missed.end;
        if !missed.is_empty()
            && self.cursor.damage.is_none()
            && !self.told_missing.iter().any(is_told)
        {
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

    /// A place that cannot be read is tried again by the next calls, then its file is passed over. A
    /// shortage of the process would hit every other file as well: it is waited for.
    fn on_read_error(&mut self, error: &io::Error) -> io::Result<()> {
        self.cursor.open = None;
        self.cursor.failures = self.cursor.failures.saturating_add(1);
        let refusal = Refusal::from(error);
        if self.cursor.failures < READ_TRIES || refusal.is_shortage() {
            return Err(refusal.into());
        }
        self.cursor.failures = 0;
        self.tell_pending(None);
        if refusal.is_absence() {
            self.forget_file(self.cursor.file);
            return Ok(());
        }
        self.pass_over(self.cursor.file, refusal)
    }

    /// Somebody removed a file: what it held is missing, and told as such by the entry behind it.
    fn forget_file(&mut self, index: usize) {
        let Some(file) = self.files.remove(index) else { return };
        let kind = DamageKind::Truncated("spool: the file is gone");
        let path = file.path;
        let (offset, len_bytes, range, records) = (self.cursor.offset, 0, None, None);
        self.cursor.damage = Some(Damage { path, offset, len_bytes, range, records, kind });
        self.cursor.offset = 0;
        self.is_writing &= index < self.files.len();
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

/// Reads at `offset` (0: at the beginning) and says where that is; lines only if they are wanted.
pub(super) fn here_at(reader: &Reader, offset: u64, wants_lines: bool) -> io::Result<(Here, u64)> {
    let offset = if offset > 0 {
        offset
    } else {
        match reader.first_offset()? {
            Ok(first) => first,
            Err(version) => {
                let kind = version
                    .map_or(DamageKind::Malformed("spool file's header"), DamageKind::Version);
                let until = match kind {
                    DamageKind::Version(_) => reader.len_bytes,
                    _ => reader.find_entry(0)?,
                };
                // An empty file is one whose power went first.
                let here = if until == 0 { Here::End } else { Here::Bad { until, kind } };
                return Ok((here, 0));
            }
        }
    };
    let here = match reader.look(offset)? {
        At::Entry(header) if wants_lines => Here::Entry(header, reader.payload(offset, &header)?),
        At::Entry(header) => Here::Entry(header, None),
        At::End => Here::End,
        At::Bad { until } if until == reader.len_bytes => {
            Here::Bad { until, kind: DamageKind::Unfinished }
        }
        At::Bad { until } => Here::Bad { until, kind: DamageKind::Malformed("spool entry") },
    };
    Ok((here, offset))
}
