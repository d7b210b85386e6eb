//! Opening a spool: what an earlier life left.
//!
//! Invariants: no file of an earlier life is written to; numbers go on behind the last one found
//! and the mark; what is damaged or missing is what [`super::judge`] says; a file that cannot be read
//! stays what it is and is read again; only files that hold no entry and no other bytes are removed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::SpoolFileKind;
use super::entry::FILE_HEADER_BYTES;
use super::file::{SpoolFile, naming};
use super::judge::{Depth, Judged, judge};
use super::mark::{Found, MARK_FILE, Mark};
use super::passed_over::PassedOver;
use super::{
    Cursor, FILE_NUMBERS_MAX, SEQUENCE_END, Spool, is_set_aside, passed_over, sequence_of,
};
use crate::damage::{Damage, DamageKind};
use crate::storage::{Entry, Storage};

/// A spool and what was found.
pub struct Opened {
    /// The spool.
    pub spool: Spool,
    /// Names in its directory that are none of ours.
    pub unknown: Vec<String>,
    /// Files that were set aside because they are damaged.
    pub set_aside: usize,
}

/// What a spool's directory holds beside what is judged.
#[derive(Default)]
struct Names {
    /// No file has this number or a higher one: none takes its place.
    sequence_next: u64,
    set_aside: usize,
    passed_over: Vec<PassedOver>,
    unknown: Vec<String>,
}

impl Names {
    fn of(directory: &Path, entries: &[Entry]) -> Self {
        let mut names = Self::default();
        for entry in entries {
            let name = entry.name.as_deref().unwrap_or("a name that is not UTF-8");
            let taken = match (sequence_of(name), passed_over(name)) {
                (Some(sequence), _) if entry.is_file => Some(sequence),
                (_, Some((sequence, from))) if entry.is_file => {
                    let (path, len_bytes) = (directory.join(name), entry.len_bytes);
                    names.passed_over.push(PassedOver { sequence, from, path, len_bytes });
                    Some(sequence)
                }
                _ if is_set_aside(name) => {
                    names.set_aside += 1;
                    let number = u64::from_str_radix(name.split('.').next().unwrap_or(""), 16);
                    number.ok().filter(|n| *n < SEQUENCE_END)
                }
                _ if name == MARK_FILE || name == "LOCK" => None,
                _ => {
                    names.unknown.push(name.to_owned());
                    None
                }
            };
            names.sequence_next = names.sequence_next.max(taken.map_or(0, |sequence| sequence + 1));
        }
        names
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
        let entries = storage.list(&directory)?;
        let Names { sequence_next, set_aside, passed_over, unknown } =
            Names::of(&directory, &entries);
        let judged = judge(&*storage, &directory, &entries, Depth::Headers);
        refuse_forbidden(&judged)?;
        let mark = Mark::new(directory.join(MARK_FILE), judged.mark);
        let mut spool = Self {
            cursor: Cursor { number: mark.released, ..Cursor::default() },
            storage,
            directory,
            bytes_max,
            files: std::collections::VecDeque::new(),
            passed_over,
            is_writing: false,
            sequence_next,
            number_next: 0,
            lines_next: 0,
            rewrite_from: None,
            mark,
            unreleased: std::collections::VecDeque::new(),
            lines_released: 0,
            damage: Vec::new(),
            told: BTreeSet::new(),
            told_missing: Vec::new(),
            nameless: BTreeSet::new(),
            names_next: 0,
        };
        spool.adopt(judged)?;
        spool.read_again();
        spool.drop_released()?;
        Ok(Opened { spool, unknown, set_aside })
    }

    /// Takes over what earlier lives left.
    fn adopt(&mut self, judged: Judged) -> io::Result<()> {
        let released = self.mark.released;
        let (mut number_next, mut lines_next) = judged.end;
        if number_next <= released {
            number_next = released;
            lines_next = judged.mark.slot().unwrap_or_default().lines.max(lines_next);
        }
        // Reading begins at the mark, or at the first entry there is: what is missing between was
        // told, or nobody can tell because the mark is gone.
        if let Some((first, lines)) = judged.first_waiting {
            self.told_missing.push(released..first);
            self.cursor.lines_before = (first == released).then_some(lines);
        }
        self.lines_released = judged.first_waiting.map_or(lines_next, |(_, lines)| lines);
        self.told_missing.extend(judged.missing);
        let is_unread = |file: &SpoolFile| file.is_unread;
        for (checked, facts) in judged.checked.files.into_iter().zip(judged.facts) {
            if checked.kind == SpoolFileKind::SetAside {
                continue;
            }
            let has_none = facts.numbers.is_none() && facts.unread.is_none();
            if checked.kind == SpoolFileKind::Entries {
                let name = checked.path.file_name().and_then(|name| name.to_str());
                let sequence = name.and_then(sequence_of).unwrap_or_default();
                if has_none && checked.file_bytes <= FILE_HEADER_BYTES {
                    match self.storage.remove(&checked.path) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                        _ => {}
                    }
                } else {
                    let mut file = SpoolFile::new(sequence, checked.path, None, checked.file_bytes);
                    (file.entries_first, file.entries_end) = facts.numbers.unwrap_or((u64::MAX, 0));
                    file.is_unread = facts.unread.is_some();
                    file.is_damaged = checked.damage.iter().any(is_in_the_file);
                    self.files.push_back(file);
                }
            }
            let spans = checked.damage.iter().filter(|d| d.refusal().is_none() && d.len_bytes > 0);
            self.told.extend(spans.map(|damage| (damage.path.clone(), damage.offset)));
            self.damage.extend(checked.damage);
        }
        // The next life sees by it that nobody can tell what was here.
        let mut number_behind = number_next + u64::from(judged.end_is_unknown);
        if self.files.iter().any(is_unread) {
            // Nobody can tell what numbers there are in files that cannot be read, but none is as high.
            let above_all_files =
                self.sequence_next.saturating_mul(FILE_NUMBERS_MAX).min(SEQUENCE_END);
            number_behind = above_all_files.max(number_next + 1);
        }
        if number_behind > number_next {
            self.told_missing.push(number_next..number_behind);
        }
        (self.number_next, self.lines_next) = (number_behind, lines_next);
        Ok(())
    }
}

/// Whether the file will be set aside for it: something in it is damaged, as opposed to missing before
/// it, not readable now, or of no consequence.
fn is_in_the_file(damage: &Damage) -> bool {
    let is_harmless = damage.kind == DamageKind::Unfinished && damage.records == Some(0);
    damage.len_bytes > 0 && damage.refusal().is_none() && !is_harmless
}

/// Nothing is wrong with a file that this user may not read: the operator can help.
fn refuse_forbidden(judged: &Judged) -> io::Result<()> {
    let mark = match judged.mark {
        Found::Unread(refusal) => Some(refusal),
        _ => None,
    };
    for (file, facts) in judged.checked.files.iter().zip(&judged.facts) {
        let refusal = match file.kind {
            SpoolFileKind::Mark => mark,
            SpoolFileKind::SetAside => None,
            _ => facts.unread.map(|(_, refusal)| refusal),
        };
        let is_forbidden = |kind| kind == io::ErrorKind::PermissionDenied;
        if let Some(refusal) = refusal.filter(|refusal| is_forbidden(refusal.kind())) {
            return Err(naming(&file.path, &refusal.into()));
        }
    }
    Ok(())
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
