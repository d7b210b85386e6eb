//! Opening a spool: what an earlier life left.
//!
//! Invariants: no file of an earlier life is written to; numbers go on behind the last one found
//! and the mark; files that hold no entry and no other bytes are removed, unknown ones are told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{ENTRY_HEADER_BYTES, FILE_HEADER_BYTES};
use super::file::{At, SpoolFile, naming};
use super::mark::{Found, MARK_FILE, Mark};
use super::{Cursor, SEQUENCE_END, Spool, is_set_aside, sequence_of};
use crate::damage::{Damage, DamageKind};
use crate::storage::Refusal;
use crate::storage::{Open, Storage};

/// Tries to read a file at the start before it is given up.
pub(super) const OPEN_TRIES: u32 = 4;

/// A spool and what was found.
pub struct Opened {
    /// The spool.
    pub spool: Spool,
    /// Names in its directory that are none of ours.
    pub unknown: Vec<String>,
    /// Files that were set aside because they are damaged.
    pub set_aside: usize,
}

/// What the headers of all files say together.
#[derive(Default)]
struct Totals {
    number_next: u64,
    lines_next: u64,
    /// Lines before the first entry that is not released.
    lines_released: Option<u64>,
    /// No entry of what cannot be read has this number or a higher one.
    unread_below: u64,
}

/// What a spool's directory holds.
#[derive(Default)]
struct Names {
    /// Files of entries, ascending.
    sequences: Vec<u64>,
    /// No file that was set aside has this number or a higher one: none takes its place.
    sequence_next: u64,
    set_aside: usize,
    unknown: Vec<String>,
}

impl Names {
    fn read(storage: &dyn Storage, directory: &Path) -> io::Result<Self> {
        let mut names = Self::default();
        for entry in storage.list(directory)? {
            let name = entry.name.unwrap_or_else(|| "a name that is not UTF-8".to_owned());
            match sequence_of(&name) {
                Some(sequence) if entry.is_file => names.sequences.push(sequence),
                _ if is_set_aside(&name) => {
                    names.set_aside += 1;
                    let number = u64::from_str_radix(name.split('.').next().unwrap_or(""), 16);
                    let number = number.ok().filter(|n| *n < SEQUENCE_END);
                    names.sequence_next = names.sequence_next.max(number.map_or(0, |n| n + 1));
                }
                _ if name == MARK_FILE || name == "LOCK" => {}
                _ => names.unknown.push(name),
            }
        }
        names.sequences.sort_unstable();
        Ok(names)
    }
}

impl Spool {
    /// Opens the spool in `directory`, which is made if need be; it may hold `bytes_max`.
    pub fn open(
        storage: Arc<dyn Storage>,
        directory: PathBuf,
        bytes_max: u64,
    ) -> io::Result<Opened> {
        storage.create_dir_all(&directory)?;
        sync_names(&*storage, &directory)?;
        let Names { sequences, sequence_next, set_aside, unknown } =
            Names::read(&*storage, &directory)?;
        let (mark, found) = Mark::open(&*storage, directory.join(MARK_FILE))?;
        let mut spool = Self {
            cursor: Cursor { number: mark.released, ..Cursor::default() },
            storage,
            directory,
            bytes_max,
            files: std::collections::VecDeque::new(),
            is_writing: false,
            sequence_next,
            number_next: 0,
            lines_next: 0,
            rewrite_from: None,
            mark,
            unreleased: std::collections::VecDeque::new(),
            lines_released: 0,
            damage: Vec::new(),
        };
        let told = match found {
            Found::Good => None,
            Found::OneSlot => Some("one of two slots of the mark: lines may be sent twice"),
            Found::Damaged => Some("mark: lines may be sent twice"),
        };
        if let Some(told) = told {
            spool.damage.push(Damage {
                path: spool.directory.join(MARK_FILE),
                offset: 0,
                len_bytes: 0,
                range: None,
                records: Some(0),
                kind: DamageKind::Malformed(told),
            });
        }
        let mut totals = Totals { number_next: spool.mark.released, ..Totals::default() };
        for sequence in sequences {
            spool.adopt(sequence, &mut totals)?;
            spool.sequence_next = spool.sequence_next.max(sequence + 1);
        }
        // What cannot be read now may be read later: its numbers are not given again.
        spool.number_next = totals.number_next.max(totals.unread_below);
        spool.lines_next = totals.lines_next;
        spool.lines_released = totals.lines_released.unwrap_or(totals.lines_next);
        spool.start_reading(found)?;
        spool.drop_released()?;
        Ok(Opened { spool, unknown, set_aside })
    }

    /// Reading begins at the mark, or at the first entry there is: the mark may be lost, and after a
    /// power loss it may be behind the removal of files that it knew to be released.
    fn start_reading(&mut self, found: Found) -> io::Result<()> {
        let is_whole =
            self.mark.released == 0 && self.files.front().is_some_and(|f| f.sequence == 0);
        if is_whole && found == Found::Good {
            // Nothing was ever released.
            self.cursor.lines_before = Some(0);
            return Ok(());
        }
        let Some((file, offset)) = self.find_next(self.mark.released..u64::MAX)? else {
            return Ok(());
        };
        let At::Entry(header) = self.files[file].look(offset)? else { return Ok(()) };
        if header.number == self.mark.released {
            self.cursor.lines_before = Some(header.lines_before);
        }
        self.cursor.number = header.number;
        Ok(())
    }

    /// Takes over a file of an earlier life. One that cannot be read is told and does not stop the
    /// others.
    fn adopt(&mut self, sequence: u64, totals: &mut Totals) -> io::Result<()> {
        let path = self.directory.join(format!("{sequence:016x}.{}", super::FILE_SUFFIX));
        let open = || {
            let file = self.storage.open(&path, Open::Read)?;
            Ok((file.len()?, file))
        };
        let (len_bytes, file) = match tried(open) {
            Ok(opened) => opened,
            // Nothing is wrong with the file: the operator can help.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(naming(&path, &e)),
            Err(e) => return self.set_aside(&path, &e),
        };
        let mut file = SpoolFile::new(sequence, path, file, len_bytes);
        let mut offset = 0;
        if let Err(e) = tried(|| self.walk(&mut file, &mut offset, totals)) {
            if file.entries_end == 0 {
                return self.set_aside(&file.path, &e);
            }
            // Reading comes to that place once more, and tells what it costs.
            self.damage.push(unreadable(&file.path, offset, &e));
            file.is_damaged = true;
            let entries_max = len_bytes.saturating_sub(offset) / ENTRY_HEADER_BYTES as u64 + 1;
            file.entries_end = file.entries_end.saturating_add(entries_max);
            totals.unread_below = totals.unread_below.max(file.entries_end);
        }
        if file.entries_end == 0 && len_bytes <= FILE_HEADER_BYTES {
            return self.storage.remove(&file.path);
        }
        self.files.push_back(file);
        Ok(())
    }

    /// Takes the headers of a file into account; `offset` says how far that went.
    fn walk(&self, file: &mut SpoolFile, offset: &mut u64, totals: &mut Totals) -> io::Result<()> {
        if *offset == 0 {
            *offset = file.begin()?;
        }
        loop {
            match file.look(*offset)? {
                At::End => return Ok(()),
                At::Bad { until } => *offset = until,
                At::Entry(header) => {
                    *offset += header.total_bytes();
                    file.entries_first = file.entries_first.min(header.number);
                    file.entries_end = file.entries_end.max(header.number + 1);
                    if header.number >= totals.number_next {
                        totals.number_next = header.number + 1;
                        totals.lines_next = header.lines_before + header.lines;
                    }
                    if header.number >= self.mark.released && totals.lines_released.is_none() {
                        totals.lines_released = Some(header.lines_before);
                    }
                }
            }
        }
    }

    /// A file of which nothing can be read keeps its bytes under another name.
    fn set_aside(&mut self, path: &Path, error: &io::Error) -> io::Result<()> {
        let aside = path.with_extension(super::DAMAGED_SUFFIX);
        self.storage.rename(path, &aside).map_err(|_| naming(path, error))?;
        self.damage.push(unreadable(path, 0, error));
        Ok(())
    }
}

/// Tries a few times.
fn tried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut outcome = call();
    for _ in 1..OPEN_TRIES {
        if outcome.is_ok() {
            break;
        }
        outcome = call();
    }
    outcome
}

fn unreadable(path: &Path, offset: u64, error: &io::Error) -> Damage {
    let (path, kind) = (path.to_owned(), DamageKind::Unread(Refusal::from(error)));
    Damage { path, offset, len_bytes: 0, range: None, records: None, kind }
}

/// Makes the directory's own name durable, and those above it, which may be as new. One that this
/// user may not open was there before.
fn sync_names(storage: &dyn Storage, directory: &Path) -> io::Result<()> {
    for above in directory.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match storage.sync_dir(above) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}
