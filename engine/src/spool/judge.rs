//! The one judge of what is found on disk, for [`super::check`] and for a forwarder that opens its
//! spool: which entries there are, what is damaged, what that costs, and what nobody can tell.
//!
//! Invariants: nothing is written; memory holds one entry and one range per stretch of consecutive
//! entries, of which there are at most `STRETCHES_MAX`; what could not be read is neither damaged
//! nor missing; a cost that nobody can tell is `None`, never 0. A damaged entry of which there is a
//! whole copy (a failed sync makes one) costs nothing. What a damaged place below the mark has cost
//! nobody can tell: it was handed over, or passed over and told.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::check::{CheckedFile, CheckedSpool, SpoolFileKind};
use super::entry::{EntryHeader, FILE_HEADER_BYTES, file_header};
use super::file::{At, Reader, SpoolFile};
use super::mark::{self, Found};
use super::reading::{Here, here_at};
use crate::damage::{Damage, DamageKind};
use crate::storage::{Entry, Refusal, Storage};

/// Stretches of entries that are told apart. Beyond it (a spool that somebody made up) copies and
/// missing entries are not recognized.
const STRETCHES_MAX: usize = 1 << 16;

/// Tries to read a file before it counts as one that cannot be read now.
pub(super) const READ_TRIES: u32 = 4;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Headers: where the entries are, and what is missing between them.
    Headers,
    /// Everything.
    Payloads,
}

/// What there is.
pub(super) struct Judged {
    pub(super) checked: CheckedSpool,
    /// What is known of each file, in the same order.
    pub(super) facts: Vec<Facts>,
    pub(super) mark: Found,
    /// Behind the last entry: its number, and the lines up to there.
    pub(super) end: (u64, u64),
    /// The first entry that is not handed over, and the lines before it.
    pub(super) first_waiting: Option<(u64, u64)>,
    /// Numbers of entries that are nowhere and were told.
    pub(super) missing: Vec<Range<u64>>,
    /// Whether entries may be missing behind the last one.
    pub(super) end_is_unknown: bool,
}

/// What is known of one file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// Its first entry and the number behind its last one; `None` without entries.
    pub(super) numbers: Option<(u64, u64)>,
    /// From where on it could not be read.
    pub(super) unread: Option<(u64, Refusal)>,
}

/// Judges the files of a spool that are among these entries of its directory.
pub(super) fn judge(
    storage: &dyn Storage,
    directory: &Path,
    entries: &[Entry],
    depth: Depth,
) -> Judged {
    let mut judge = Judge::new(depth);
    let mut files = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_file) {
        let Some(name) = entry.name.as_deref() else { continue };
        let path = directory.join(name);
        match SpoolFileKind::of(name) {
            Some(SpoolFileKind::Mark) => judge.mark(storage, path, entry.len_bytes),
            Some(kind) => files.push((kind, path, entry.len_bytes)),
            None => {}
        }
    }
    // Files that are not in use come last: what waits in one that is waits there.
    files.sort_by(|(a, a_path, _), (b, b_path, _)| {
        let last = |kind| kind != SpoolFileKind::Entries;
        (last(*a), a_path).cmp(&(last(*b), b_path))
    });
    let begins_at_0 = files.first().is_some_and(|(_, path, _)| sequence_in(path) == 0);
    judge.from = match judge.mark {
        Found::Good(slot) | Found::OneSlot(slot) => {
            let lines = Some(slot.lines).filter(|lines| *lines > 0 || slot.released == 0);
            Some((slot.released, lines))
        }
        // Nothing was ever released, unless somebody removed the mark.
        Found::None => Some((0, begins_at_0.then_some(0))),
        Found::Damaged | Found::Unread(_) => None,
    };
    for (kind, path, file_bytes) in files {
        judge.file(storage, kind, path, file_bytes);
    }
    judge.finish()
}

/// Judges one file by itself.
pub(super) fn judge_file(storage: &dyn Storage, path: &Path, file_bytes: u64) -> CheckedSpool {
    let mut judge = Judge::new(Depth::Payloads);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match SpoolFileKind::of(name) {
        Some(SpoolFileKind::Mark) => judge.mark(storage, path.to_owned(), file_bytes),
        Some(kind) => judge.file(storage, kind, path.to_owned(), file_bytes),
        None => {}
    }
    judge.finish().checked
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
    /// What a file without a single entry held.
    Emptied,
    /// Nobody can tell what is behind this entry: it could not be read.
    Unread(Option<u64>),
    /// Nothing, or what nobody can tell.
    Known,
}

struct Judge {
    depth: Depth,
    files: Vec<CheckedFile>,
    facts: Vec<Facts>,
    mark: Found,
    /// The first entry that there should be and the lines before it, as far as that is known.
    from: Option<(u64, Option<u64>)>,
    headers: Stretches,
    whole: Stretches,
    places: Vec<Place>,
    waiting: (u64, u64),
    end: (u64, u64),
    /// The first entry that is not handed over, and the lines before it.
    first_waiting: Option<(u64, u64)>,
}

/// Entries that are missing between others.
struct Gap<'a> {
    numbers: Range<u64>,
    /// Lines in them, where that can be told.
    lines: Option<u64>,
    behind: &'a Stretch,
}

impl Judge {
    const fn new(depth: Depth) -> Self {
        Self {
            depth,
            files: Vec::new(),
            facts: Vec::new(),
            mark: Found::None,
            from: None,
            headers: Stretches::new(),
            whole: Stretches::new(),
            places: Vec::new(),
            waiting: (0, 0),
            end: (0, 0),
            first_waiting: None,
        }
    }

    fn released(&self) -> u64 {
        self.mark.slot().unwrap_or_default().released
    }

    fn add_file(&mut self, path: PathBuf, kind: SpoolFileKind, file_bytes: u64) -> usize {
        let damage = Vec::new();
        self.files.push(CheckedFile { path, kind, file_bytes, line_count: 0, damage });
        self.facts.push(Facts::default());
        self.files.len() - 1
    }

    fn mark(&mut self, storage: &dyn Storage, path: PathBuf, file_bytes: u64) {
        self.mark = mark::find(storage, &path);
        for _ in 1..READ_TRIES {
            if matches!(self.mark, Found::Unread(_)) {
                self.mark = mark::find(storage, &path);
            }
        }
        let kind = match self.mark {
            Found::Good(_) | Found::None => None,
            Found::OneSlot(_) => {
                Some(DamageKind::Malformed("slot of the mark: lines may be sent twice"))
            }
            Found::Damaged => Some(DamageKind::Malformed("mark: lines may be sent twice")),
            Found::Unread(refusal) => Some(DamageKind::Unread(refusal)),
        };
        let number = self.add_file(path.clone(), SpoolFileKind::Mark, file_bytes);
        if let Some(kind) = kind {
            let (len_bytes, records) = (file_bytes, Some(0));
            let damage = Damage { path, offset: 0, len_bytes, range: None, records, kind };
            self.files[number].damage.push(damage);
        }
    }

    fn file(&mut self, storage: &dyn Storage, kind: SpoolFileKind, path: PathBuf, file_bytes: u64) {
        let number = self.add_file(path.clone(), kind, file_bytes);
        let mut walk = Walk::default();
        let mut outcome = self.walk(storage, number, &mut walk);
        for _ in 1..READ_TRIES {
            if outcome.is_err() {
                outcome = self.walk(storage, number, &mut walk);
            }
        }
        if let Err(error) = outcome {
            let refusal = Refusal::from(&error);
            if refusal.is_absence() {
                // Removed since it was listed: what is missing by that is told with the rest.
                self.files[number].file_bytes = 0;
                return;
            }
            self.facts[number].unread = Some((walk.offset, refusal));
            let span = walk.offset..file_bytes.max(walk.offset);
            self.bad(number, span, DamageKind::Unread(refusal), Costs::Unread(walk.previous));
        }
    }

    /// Goes on through a file from where `walk` stands.
    fn walk(&mut self, storage: &dyn Storage, number: usize, walk: &mut Walk) -> io::Result<()> {
        let path = self.files[number].path.clone();
        let file_bytes = self.files[number].file_bytes;
        let mut file = SpoolFile::new(sequence_in(&path), path, None, file_bytes);
        let reader = file.reader(storage)?;
        file.len_bytes = reader.file.len()?;
        self.files[number].file_bytes = file.len_bytes;
        let reader = Reader { len_bytes: file.len_bytes, ..reader };
        if !walk.is_begun {
            self.check_header(number, file.sequence, &reader)?;
            walk.is_begun = true;
        }
        loop {
            let (here, found) = here_at(&reader, walk.offset, self.depth == Depth::Payloads)?;
            match here {
                Here::End => break,
                // No room for an entry.
                Here::Bad { .. } if found == 0 && file.len_bytes < FILE_HEADER_BYTES => break,
                Here::Bad { until, kind } => {
                    let is_version = matches!(kind, DamageKind::Version(_));
                    let next = match reader.look(until)? {
                        At::Entry(header) => Some(header.number),
                        _ => None,
                    };
                    let costs = match (is_version, found) {
                        (true, _) => Costs::Known,
                        (false, _) => Costs::Between(walk.previous, next),
                    };
                    self.bad(number, found..until, kind, costs);
                    walk.offset = until;
                    walk.is_bad = true;
                }
                Here::Entry(header, bytes) => {
                    let is_whole = self.depth == Depth::Headers || bytes.is_some();
                    self.entry(number, found, &header, is_whole);
                    walk.previous = Some(header.number);
                    walk.offset = found + header.total_bytes();
                }
            }
        }
        if walk.previous.is_none() && !walk.is_bad {
            let kind = DamageKind::Truncated("spool file: it holds no entry");
            self.bad(number, 0..0, kind, Costs::Emptied);
        }
        Ok(())
    }

    /// A whole header has to be the one of this file.
    fn check_header(&mut self, number: usize, sequence: u64, reader: &Reader) -> io::Result<()> {
        if reader.first_offset()?.is_err() {
            return Ok(());
        }
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        reader.file.read_exact_at(&mut bytes, 0)?;
        if bytes != file_header(sequence) && self.depth == Depth::Payloads {
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
        let numbers = &mut self.facts[number].numbers;
        let (first, end) = numbers.unwrap_or((u64::MAX, 0));
        *numbers = Some((first.min(header.number), end.max(header.number + 1)));
        let kind = self.files[number].kind;
        if kind == SpoolFileKind::Entries {
            if header.number >= self.end.0 {
                self.end = (header.number + 1, header.lines_before + header.lines);
            }
            if header.number >= self.released()
                && self.first_waiting.is_none_or(|(first, _)| header.number < first)
            {
                self.first_waiting = Some((header.number, header.lines_before));
            }
        }
        if !is_whole {
            let kind = DamageKind::Checksum("lines of a spool entry");
            let span = offset..offset + header.total_bytes();
            return self.bad(number, span, kind, Costs::Entry(*header));
        }
        self.files[number].line_count += header.lines;
        let waits = match kind {
            SpoolFileKind::Entries => header.number >= self.released(),
            SpoolFileKind::PassedOver { from } => header.number >= from,
            SpoolFileKind::SetAside | SpoolFileKind::Mark => false,
        };
        if waits && !holds(&self.whole, header.number) {
            self.waiting = (self.waiting.0 + 1, self.waiting.1 + header.lines);
        }
        add(&mut self.whole, header, (number, offset));
    }

    fn finish(mut self) -> Judged {
        let mut told: Vec<Range<u64>> = Vec::new();
        let mut missing = Vec::new();
        let mut end_is_unknown = false;
        for mut place in std::mem::take(&mut self.places) {
            let is_used = self.files[place.file].kind == SpoolFileKind::Entries;
            match place.costs {
                Costs::Known => {}
                Costs::Entry(header) => {
                    place.damage.records = if holds(&self.whole, header.number) {
                        Some(0)
                    } else {
                        (header.number >= self.released()).then_some(header.lines)
                    };
                }
                Costs::Unread(after) => {
                    // Whatever is missing next to it may be in it.
                    let from = after.map_or(0, |after| after + 1).max(self.number_before(&place));
                    told.push(from..self.next_number(from).unwrap_or(u64::MAX));
                }
                Costs::Between(after, before) => {
                    let missed = match (after, before) {
                        // Nothing is left of the file.
                        (None, None) => self.missed_by_all_of(&place),
                        _ => self.missed(after, before),
                    };
                    place.damage.records = self.cost(missed.as_ref());
                    // What is behind it shows that it was finished once.
                    if place.damage.kind == DamageKind::Unfinished
                        && place.damage.records.is_some_and(|lines| lines > 0)
                    {
                        place.damage.kind = DamageKind::Truncated("last entry");
                    }
                    end_is_unknown |= is_used && missed.is_none();
                    missing.extend(missed.clone());
                    told.extend(missed);
                }
                Costs::Emptied => {
                    let missed = self.missed_by_all_of(&place);
                    if !is_used || missed.as_ref().is_some_and(Range::is_empty) {
                        // Begun, and nothing came of it: its neighbours join.
                        continue;
                    }
                    place.damage.records = self.cost(missed.as_ref());
                    end_is_unknown |= missed.is_none();
                    missing.extend(missed.clone());
                    told.extend(missed);
                }
            }
            self.files[place.file].damage.push(place.damage);
        }
        missing.extend(self.tell_missing(&told));
        let (waiting_entries, waiting_lines) = self.waiting;
        Judged {
            checked: CheckedSpool { files: self.files, waiting_entries, waiting_lines },
            facts: self.facts,
            mark: self.mark,
            end: self.end,
            first_waiting: self.first_waiting,
            missing,
            end_is_unknown,
        }
    }

    /// Lines of entries with these numbers; `None`: that cannot be told.
    fn cost(&self, missed: Option<&Range<u64>>) -> Option<u64> {
        let missed = missed.filter(|m| m.is_empty() || m.end > self.released())?;
        if missed.is_empty() { Some(0) } else { self.lines_in(missed) }
    }

    /// Behind the entries of the files before that of `place`, or of what is released.
    fn number_before(&self, place: &Place) -> u64 {
        let before = self.facts[..place.file].iter().filter_map(|facts| facts.numbers);
        let end = before.map(|(_, end)| end).max();
        end.or(self.from.map(|(number, _)| number)).unwrap_or(0)
    }

    /// Numbers of the entries between the files before that of `place` and what is behind it.
    fn missed_by_all_of(&self, place: &Place) -> Option<Range<u64>> {
        let from = self.number_before(place);
        self.next_number(from).map(|next| from..next)
    }

    /// The first entry there is with this number or a higher one.
    fn next_number(&self, from: u64) -> Option<u64> {
        if holds(&self.headers, from) {
            return Some(from);
        }
        self.headers.range(from..).next().map(|(first, _)| *first)
    }

    /// Numbers of the entries that a bad place between two others may have held.
    fn missed(&self, after: Option<u64>, before: Option<u64>) -> Option<Range<u64>> {
        let from = match (after, before) {
            (Some(after), _) => after + 1,
            (None, Some(before)) => {
                let known = self.headers.range(..before).next_back();
                let from = self.from.map(|(number, _)| number);
                known.map(|(_, stretch)| stretch.end.min(before)).or(from)?
            }
            (None, None) => return None,
        };
        let until = match before {
            Some(before) => before,
            None => self.next_number(from)?,
        };
        Some(from.min(until)..until)
    }

    /// Lines of the entries with these numbers that are nowhere; `None`: that cannot be told.
    fn lines_in(&self, numbers: &Range<u64>) -> Option<u64> {
        let mut lines = 0;
        for gap in self.gaps() {
            if gap.numbers.start < numbers.end && gap.numbers.end > numbers.start {
                lines += gap.lines?;
            }
        }
        Some(lines)
    }

    /// Entries that are missing before and between others. A gap without lines says nothing: a life
    /// that could not tell how much was missing left a number out, or it was a part of a line.
    fn gaps(&self) -> impl Iterator<Item = Gap<'_>> {
        let from = self.from;
        let mut end = from;
        self.headers.iter().filter_map(move |(first, behind)| {
            let before = end.replace((behind.end, Some(behind.lines_end)));
            // What is handed over is not missing.
            let before =
                before.map(|before| from.filter(|from| from.0 > before.0).unwrap_or(before));
            let (number, lines_before) = before.filter(|(number, _)| number < first)?;
            let lines = lines_before.and_then(|before| behind.lines_before.checked_sub(before));
            let lines = lines.filter(|lines| *lines > 0);
            Some(Gap { numbers: number..*first, lines, behind })
        })
    }

    /// Tells of entries that are missing where nothing is damaged: a file is gone.
    fn tell_missing(&mut self, told: &[Range<u64>]) -> Vec<Range<u64>> {
        if self.headers.len() >= STRETCHES_MAX {
            return Vec::new();
        }
        let passed_over = |gap: &Range<u64>, file: &CheckedFile| match file.kind {
            SpoolFileKind::PassedOver { from } => gap.contains(&from),
            _ => false,
        };
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for gap in self.gaps() {
            let Gap { numbers, lines: records, behind } = gap;
            let is_told = told.iter().any(|t| t.start < numbers.end && t.end > numbers.start);
            let waits = self.files.iter().any(|file| passed_over(&numbers, file));
            if is_told || waits || numbers.end <= self.released() {
                continue;
            }
            let (file, offset) = behind.place;
            let kind = DamageKind::Truncated("entries before this one");
            let path = self.files[file].path.clone();
            found.push((file, Damage { path, offset, len_bytes: 0, range: None, records, kind }));
            missing.push(numbers);
        }
        for (file, damage) in found {
            self.files[file].damage.push(damage);
        }
        missing
    }
}

/// How far a file was gone through.
#[derive(Debug, Default)]
struct Walk {
    /// Whether its header was looked at.
    is_begun: bool,
    offset: u64,
    /// The last entry.
    previous: Option<u64>,
    is_bad: bool,
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
