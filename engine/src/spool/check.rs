//! Checks a spool offline and read-only: every entry with its lines, and whether entries are
//! missing between them.
//!
//! Invariants: nothing is written, not even the mark; memory holds one entry and one range per
//! stretch of consecutive entries, of which there are at most `STRETCHES_MAX`; a damaged entry
//! of which there is a whole copy (a failed sync makes one) costs nothing. What a damaged place
//! below the mark has cost nobody can tell: it was handed over, or passed over and told.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::entry::{EntryHeader, FILE_HEADER_BYTES, file_header};
use super::file::{At, SpoolFile};
use super::mark::{self, Found, MARK_FILE};
use super::{DAMAGED_SUFFIX, Here, is_set_aside, read_here, sequence_of};
use crate::damage::{Damage, DamageKind};
use crate::storage::Refusal;
use crate::storage::{Entry, Open, Storage};

/// Stretches of entries that are told apart. Beyond it (a spool that somebody made up) copies and
/// missing entries are not recognized.
const STRETCHES_MAX: usize = 1 << 16;

/// What a file of a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolFileKind {
    /// Entries.
    Entries,
    /// Entries of a file that was set aside because something in it is damaged.
    SetAside,
    /// The mark: up to where everything is handed over.
    Mark,
}

impl SpoolFileKind {
    /// What this name promises in a spool's directory.
    pub fn of(name: &str) -> Option<Self> {
        if sequence_of(name).is_some() {
            return Some(Self::Entries);
        }
        let stem = name.strip_suffix(DAMAGED_SUFFIX).filter(|_| is_set_aside(name));
        if stem.is_some_and(|stem| sequence_of(&format!("{stem}spool")).is_some()) {
            return Some(Self::SetAside);
        }
        (name == MARK_FILE).then_some(Self::Mark)
    }
}

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub kind: SpoolFileKind,
    /// Its length, bytes.
    pub file_bytes: u64,
    /// Lines in its whole entries.
    pub line_count: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// What was found out about a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedSpool {
    /// Its files, in no particular order.
    pub files: Vec<CheckedFile>,
    /// Whole entries that are not handed over.
    pub waiting_entries: u64,
    /// Lines in them.
    pub waiting_lines: u64,
}

/// Whether this is the listing of a spool's directory.
pub fn is_spool(entries: &[Entry]) -> bool {
    let kinds = entries.iter().filter(|entry| entry.is_file);
    let mut kinds = kinds.filter_map(|e| SpoolFileKind::of(e.name.as_deref()?));
    // A file named `mark` may be anybody's.
    kinds.any(|kind| kind != SpoolFileKind::Mark)
}

/// Checks the files of a spool that are among these entries of its directory.
pub fn check_spool(storage: &dyn Storage, directory: &Path, entries: &[Entry]) -> CheckedSpool {
    let mut check = Check::default();
    let mut files = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_file) {
        let Some(name) = entry.name.as_deref() else { continue };
        let path = directory.join(name);
        match SpoolFileKind::of(name) {
            Some(SpoolFileKind::Mark) => check.mark(storage, path, entry.len_bytes),
            Some(kind) => files.push((kind, path, entry.len_bytes)),
            None => {}
        }
    }
    // Files that were set aside come last: what waits in a file that is in use waits there.
    files.sort_by(|(a, a_path, _), (b, b_path, _)| {
        let last = |kind| kind == SpoolFileKind::SetAside;
        (last(*a), a_path).cmp(&(last(*b), b_path))
    });
    let begins_at_0 = files.first().is_some_and(|(_, path, _)| sequence_in(path) == 0);
    check.from = match check.mark_state {
        // Nothing was ever released.
        MarkState::Whole(0) | MarkState::None if begins_at_0 => Some(0),
        // Files may be gone that the mark did not know to be released yet.
        _ => None,
    };
    for (kind, path, file_bytes) in files {
        check.file(storage, kind, path, file_bytes);
    }
    check.finish()
}

/// Checks one file by itself: what it should join on to is not known.
pub fn check_spool_file(storage: &dyn Storage, path: &Path, file_bytes: u64) -> CheckedSpool {
    let mut check = Check::default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match SpoolFileKind::of(name) {
        Some(SpoolFileKind::Mark) => check.mark(storage, path.to_owned(), file_bytes),
        Some(kind) => check.file(storage, kind, path.to_owned(), file_bytes),
        None => {}
    }
    check.finish()
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum MarkState {
    #[default]
    None,
    Damaged,
    /// Entries with smaller numbers are handed over.
    Whole(u64),
}

/// Consecutive entries whose headers, or more, are whole; the key of its map is the first number.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    end: u64,
    lines_before: u64,
    lines_end: u64,
    /// Where its first entry is: file, offset.
    place: (usize, u64),
}

type Stretches = BTreeMap<u64, Stretch>;

/// A damaged place, before it is known what else there is.
struct Place {
    file: usize,
    damage: Damage,
    costs: Costs,
}

enum Costs {
    /// The entry with this header.
    Entry(EntryHeader),
    /// What is between these two entries; `None` where the file begins or ends.
    Between(Option<u64>, Option<u64>),
    /// Nothing, or what nobody can tell.
    Known,
}

#[derive(Default)]
struct Check {
    files: Vec<CheckedFile>,
    mark_state: MarkState,
    /// The first entry that there should be, if that is known.
    from: Option<u64>,
    headers: Stretches,
    whole: Stretches,
    places: Vec<Place>,
    waiting: (u64, u64),
}

impl Check {
    fn released(&self) -> u64 {
        if let MarkState::Whole(released) = self.mark_state { released } else { 0 }
    }

    fn mark(&mut self, storage: &dyn Storage, path: PathBuf, file_bytes: u64) {
        let read = storage.open(&path, Open::Read).and_then(|file| mark::read(&*file));
        let damaged = |records, kind| Damage {
            path: path.clone(),
            offset: 0,
            len_bytes: file_bytes,
            range: None,
            records,
            kind,
        };
        let mut damage = Vec::new();
        self.mark_state = match read {
            Ok((_, released, Found::Good)) if file_bytes > 0 => MarkState::Whole(released),
            Ok((_, released, Found::OneSlot)) => {
                let kind = DamageKind::Malformed("slot of the mark: lines may be sent twice");
                damage.push(damaged(Some(0), kind));
                MarkState::Whole(released)
            }
            Ok((_, _, Found::Good)) => MarkState::None,
            Ok((_, _, Found::Damaged)) => {
                let kind = DamageKind::Malformed("mark: lines may be sent twice");
                damage.push(damaged(Some(0), kind));
                MarkState::Damaged
            }
            Err(e) => {
                damage.push(damaged(Some(0), DamageKind::Unread(Refusal::from(&e))));
                MarkState::Damaged
            }
        };
        let kind = SpoolFileKind::Mark;
        self.files.push(CheckedFile { path, kind, file_bytes, line_count: 0, damage });
    }

    fn file(&mut self, storage: &dyn Storage, kind: SpoolFileKind, path: PathBuf, file_bytes: u64) {
        let number = self.files.len();
        self.files.push(CheckedFile {
            path: path.clone(),
            kind,
            file_bytes,
            line_count: 0,
            damage: Vec::new(),
        });
        if let Err((offset, error)) = self.walk(storage, number) {
            let len_bytes = file_bytes.saturating_sub(offset);
            let kind = DamageKind::Unread(Refusal::from(&error));
            let damage = Damage { path, offset, len_bytes, range: None, records: None, kind };
            self.places.push(Place { file: number, damage, costs: Costs::Known });
        }
    }

    /// Goes through a file; an error comes with its place.
    fn walk(&mut self, storage: &dyn Storage, number: usize) -> Result<(), (u64, io::Error)> {
        let path = self.files[number].path.clone();
        let at_start = |e: io::Error| (0, e);
        let file = storage.open(&path, Open::Read).map_err(at_start)?;
        let len_bytes = file.len().map_err(at_start)?;
        self.files[number].file_bytes = len_bytes;
        let file = SpoolFile::new(sequence_in(&path), path, file, len_bytes);
        self.check_header(number, &file).map_err(at_start)?;
        let (mut offset, mut previous) = (0, None);
        loop {
            let (here, found) = read_here(&file, offset).map_err(|e| (offset, e))?;
            match here {
                Here::End => return Ok(()),
                // A forwarder that was killed before its first entry: the next one removes it.
                Here::Bad { kind: DamageKind::Malformed(_), .. }
                    if found == 0 && len_bytes < FILE_HEADER_BYTES =>
                {
                    return Ok(());
                }
                Here::Bad { until, kind } => {
                    let is_version = matches!(kind, DamageKind::Version(_));
                    let next = match file.look(until).map_err(|e| (until, e))? {
                        At::Entry(header) => Some(header.number),
                        _ => None,
                    };
                    let costs = match (is_version, found) {
                        (true, _) => Costs::Known,
                        (false, _) => Costs::Between(previous, next),
                    };
                    self.bad(number, found..until, kind, costs);
                    offset = until;
                }
                Here::Entry(header, bytes) => {
                    self.entry(number, found, &header, bytes.is_some());
                    previous = Some(header.number);
                    offset = found + header.total_bytes();
                }
            }
        }
    }

    /// A whole header has to be the one of this file.
    fn check_header(&mut self, number: usize, file: &SpoolFile) -> io::Result<()> {
        if file.first_offset()?.is_err() {
            return Ok(());
        }
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        file.file.read_exact_at(&mut bytes, 0)?;
        if bytes != file_header(file.sequence) {
            let kind = DamageKind::Repairable("file name");
            self.bad(number, 0..0, kind, Costs::Known);
            if let Some(place) = self.places.last_mut() {
                place.damage.records = Some(0);
            }
        }
        Ok(())
    }

    fn bad(&mut self, number: usize, span: Range<u64>, kind: DamageKind, costs: Costs) {
        let path = self.files[number].path.clone();
        let len_bytes = span.end - span.start;
        let (range, records) = (None, None);
        let damage = Damage { path, offset: span.start, len_bytes, range, records, kind };
        self.places.push(Place { file: number, damage, costs });
    }

    fn entry(&mut self, number: usize, offset: u64, header: &EntryHeader, is_whole: bool) {
        add(&mut self.headers, header, (number, offset));
        if !is_whole {
            let kind = DamageKind::Checksum("lines of a spool entry");
            let span = offset..offset + header.total_bytes();
            return self.bad(number, span, kind, Costs::Entry(*header));
        }
        self.files[number].line_count += header.lines;
        let is_waiting = self.files[number].kind == SpoolFileKind::Entries
            && header.number >= self.released()
            && !holds(&self.whole, header.number);
        if is_waiting {
            self.waiting = (self.waiting.0 + 1, self.waiting.1 + header.lines);
        }
        add(&mut self.whole, header, (number, offset));
    }

    fn finish(mut self) -> CheckedSpool {
        let released = self.released();
        let mut told: Vec<Range<u64>> = Vec::new();
        for mut place in std::mem::take(&mut self.places) {
            match place.costs {
                Costs::Known => {}
                Costs::Entry(header) => {
                    place.damage.records = if holds(&self.whole, header.number) {
                        Some(0)
                    } else {
                        (header.number >= released).then_some(header.lines)
                    };
                }
                Costs::Between(after, before) => {
                    let missed = self.missed(after, before);
                    if let Some(missed) = &missed {
                        told.push(missed.clone());
                    }
                    let seen = missed.filter(|m| m.is_empty() || m.end > released);
                    place.damage.records = seen.and_then(|m| self.lines_in(m));
                }
            }
            self.files[place.file].damage.push(place.damage);
        }
        self.tell_missing(&told);
        CheckedSpool {
            files: self.files,
            waiting_entries: self.waiting.0,
            waiting_lines: self.waiting.1,
        }
    }

    /// Numbers of the entries that a bad place between two others may have held.
    fn missed(&self, after: Option<u64>, before: Option<u64>) -> Option<Range<u64>> {
        let from = match (after, before) {
            (Some(after), _) => after + 1,
            (None, Some(before)) => {
                let known = self.headers.range(..before).next_back();
                known.map(|(_, stretch)| stretch.end.min(before)).or(self.from)?
            }
            (None, None) => return None,
        };
        let until = match before {
            Some(before) => before,
            None => *self.headers.range(from..).next()?.0,
        };
        (from <= until).then_some(from..until)
    }

    /// Lines of the entries with these numbers that are nowhere; `None`: that cannot be told.
    fn lines_in(&self, numbers: Range<u64>) -> Option<u64> {
        let mut lines = 0;
        for (gap, before, after) in self.gaps() {
            if gap.start < numbers.end && gap.end > numbers.start {
                lines += after.lines_before.checked_sub(before)?;
            }
        }
        Some(lines)
    }

    /// Entries that are missing between others: their numbers, the lines up to the first, and the
    /// stretch behind them.
    fn gaps(&self) -> impl Iterator<Item = (Range<u64>, u64, &Stretch)> {
        let mut end = self.from.map(|from| (from, 0));
        self.headers.iter().filter_map(move |(first, stretch)| {
            let before = end.replace((stretch.end, stretch.lines_end));
            let (number, lines) = before.filter(|(number, _)| number < first)?;
            Some((number..*first, lines, stretch))
        })
    }

    /// Tells of entries that are missing where nothing is damaged: a file is gone.
    fn tell_missing(&mut self, told: &[Range<u64>]) {
        if self.headers.len() >= STRETCHES_MAX {
            return;
        }
        let mut found = Vec::new();
        for (gap, lines, stretch) in self.gaps() {
            let is_told = told.iter().any(|t| t.start < gap.end && t.end > gap.start);
            if is_told || gap.end <= self.released() {
                continue;
            }
            let (file, offset) = stretch.place;
            let records = stretch.lines_before.checked_sub(lines);
            let kind = DamageKind::Truncated("entries before this one");
            let path = self.files[file].path.clone();
            found.push((file, Damage { path, offset, len_bytes: 0, range: None, records, kind }));
        }
        for (file, damage) in found {
            self.files[file].damage.push(damage);
        }
    }
}

fn sequence_in(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    u64::from_str_radix(stem, 16).unwrap_or_default()
}

fn holds(stretches: &Stretches, number: u64) -> bool {
    stretches.range(..=number).next_back().is_some_and(|(_, stretch)| stretch.end > number)
}

/// Adds an entry to the stretches; one that is there already changes nothing.
fn add(stretches: &mut Stretches, header: &EntryHeader, place: (usize, u64)) {
    let number = header.number;
    if holds(stretches, number) {
        return;
    }
    let mut stretch = Stretch {
        end: number + 1,
        lines_before: header.lines_before,
        lines_end: header.lines_before + header.lines,
        place,
    };
    if let Some(next) = stretches.remove(&(number + 1)) {
        (stretch.end, stretch.lines_end) = (next.end, next.lines_end);
    }
    let has_room = stretches.len() < STRETCHES_MAX;
    match stretches.range_mut(..number).next_back() {
        Some((_, before)) if before.end == number => {
            (before.end, before.lines_end) = (stretch.end, stretch.lines_end);
        }
        _ if has_room => {
            stretches.insert(number, stretch);
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
