//! Opening a spool: what an earlier life left.
//!
//! Invariants: no file of an earlier life is written to; numbers go on behind the last one found
//! and the mark; files that hold no entry and no other bytes are removed, unknown ones are told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::FILE_HEADER_BYTES;
use super::file::{At, SpoolFile};
use super::mark::{Found, MARK_FILE, Mark};
use super::{Cursor, Spool, is_set_aside, sequence_of};
use crate::damage::{Damage, DamageKind};
use crate::storage::{Open, Storage};

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
        let mut unknown = Vec::new();
        let mut set_aside = 0;
        let mut sequences = Vec::new();
        let mut sequence_next = 0;
        for entry in storage.list(&directory)? {
            let name = entry.name.unwrap_or_else(|| "a name that is not UTF-8".to_owned());
            match sequence_of(&name) {
                Some(sequence) if entry.is_file => sequences.push(sequence),
                _ if is_set_aside(&name) => {
                    set_aside += 1;
                    // Its number is not given again, so that nothing takes its place.
                    let number = u64::from_str_radix(name.split('.').next().unwrap_or(""), 16);
                    sequence_next = sequence_next.max(number.map_or(0, |n| n.saturating_add(1)));
                }
                _ if name == MARK_FILE || name == "LOCK" => {}
                _ => unknown.push(name),
            }
        }
        sequences.sort_unstable();
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
        if found == Found::Damaged {
            spool.damage.push(Damage {
                path: spool.directory.join(MARK_FILE),
                offset: 0,
                len_bytes: 0,
                range: None,
                records: Some(0),
                kind: DamageKind::Malformed("mark: lines may be sent twice"),
            });
        }
        let mut totals = Totals { number_next: spool.mark.released, ..Totals::default() };
        for sequence in sequences {
            spool.adopt(sequence, &mut totals)?;
            spool.sequence_next = spool.sequence_next.max(sequence.saturating_add(1));
        }
        spool.number_next = totals.number_next;
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

    /// Takes over a file of an earlier life.
    fn adopt(&mut self, sequence: u64, totals: &mut Totals) -> io::Result<()> {
        let path = self.directory.join(format!("{sequence:016x}.{}", super::FILE_SUFFIX));
        let file = self.storage.open(&path, Open::Read)?;
        let len_bytes = file.len()?;
        let mut file = SpoolFile {
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
        };
        let mut offset = file.begin()?;
        loop {
            match file.look(offset)? {
                At::End => break,
                At::Bad { until } => offset = until,
                At::Entry(header) => {
                    offset += header.total_bytes();
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
        if file.entries_end == 0 && len_bytes <= FILE_HEADER_BYTES {
            return self.storage.remove(&file.path);
        }
        self.files.push_back(file);
        Ok(())
    }
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
