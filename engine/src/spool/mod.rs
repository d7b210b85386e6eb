//! A forwarder's spool: lines that wait on disk, in order, until an ingester has them.
//!
//! Entries (some whole lines, or a part of a long one) are appended to numbered files, read from
//! the front, and released once they are handed over; a file goes when all of it is released. The
//! format is in `docs/format-spool.md`.
//!
//! Invariants: entries come out in the order of their numbers, each once, and none that was not
//! appended; an appended entry survives a kill, a synced one a power loss; what is damaged is told,
//! costs the entries that it hits, and its file is set aside, never removed; what cannot be read is
//! no damage: it is passed over if need be, and read again until it can. A restart never
//! writes to the files of an earlier life, and a failed sync is never retried: what it should have
//! covered is written once more, to another file. A file that somebody takes away under it is no safe
//! place: that is a failed sync of all of it, and at the end an error. Knows no clock: when to sync is the caller's
//! business.

pub mod check;
mod entry;
mod file;
#[cfg(test)]
mod fuzz_tests;
mod judge;
#[cfg(test)]
mod live_tests;
mod mark;
mod names;
mod passed_over;
mod reading;
mod recover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::entry::{ENTRY_HEADER_BYTES, EntryHeader, FILE_HEADER_BYTES, file_header};
use self::file::SpoolFile;
use self::mark::Mark;
use self::passed_over::{PassedOver, parse as passed_over};
use self::reading::{Here, here_at};
use crate::damage::Damage;
use crate::limits::{SPOOL_ENTRY_BYTES_MAX, SPOOL_FILE_BYTES_MAX};
use crate::storage::{File, Open, Refusal, Storage};

pub use self::names::{NamesFound, NamesJob, NamesSeen};
pub use self::recover::Opened;

const FILE_SUFFIX: &str = "spool";
const DAMAGED_SUFFIX: &str = "damaged";

/// No file has this number or a higher one.
const SEQUENCE_END: u64 = 1 << 63;

/// Entries of file *s* have numbers below (*s* + 1) times this, far more than fit: so the names of files
/// that cannot be read tell which numbers are free.
const FILE_NUMBERS_MAX: u64 = 1 << 32;

/// Lines that are appended or read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The bytes, LFs included.
    pub bytes: Vec<u8>,
    /// Lines that end in them.
    pub lines: u64,
    /// Whether the first byte begins a line.
    pub starts_line: bool,
    /// Whether the last byte is an LF.
    pub ends_line: bool,
}

/// Why an entry was not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The spool holds as much as it may.
    Full,
    /// The storage refused; nothing of the entry is kept. It may be tried again.
    Io(io::Error),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the spool is full"),
            Self::Io(e) => write!(f, "the spool cannot be written: {e}"),
        }
    }
}

impl std::error::Error for AppendError {}

/// A sync to be made without holding the spool.
pub struct SyncJob {
    first: u64,
    files: Vec<FileToSync>,
    storage: Arc<dyn Storage>,
    directory: Option<PathBuf>,
}

/// A file of which so many bytes are to be made durable.
struct FileToSync {
    sequence: u64,
    len_bytes: u64,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
}

impl SyncJob {
    /// Makes it; [`io::ErrorKind::NotFound`]: a file has lost its name, and no start will find it. Blocks.
    pub fn run(&self) -> io::Result<()> {
        for FileToSync { path, file, len_bytes, .. } in &self.files {
            match file {
                Some(file) => file.sync()?,
                None => self.storage.open(path, Open::Read)?.sync()?,
            }
            find(&*self.storage, path, *len_bytes)?;
        }
        self.directory.as_ref().map_or(Ok(()), |path| self.storage.sync_dir(path))
    }
}

/// Where reading goes on.
#[derive(Default)]
struct Cursor {
    /// Index of the file.
    file: usize,
    /// Offset in it; 0: at its beginning.
    offset: u64,
    /// Number of the next entry.
    number: u64,
    /// Lines before it, where that is known.
    lines_before: Option<u64>,
    /// Failed reads of this place.
    failures: u32,
    /// A damaged span whose cost the next entry tells.
    damage: Option<Damage>,
    /// The file that is being read, by its sequence number.
    open: Option<(u64, Arc<dyn File>)>,
}

/// The spool.
pub struct Spool {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    bytes_max: u64,
    files: VecDeque<SpoolFile>,
    /// Files that could not be read: their entries wait beside the others.
    passed_over: Vec<PassedOver>,
    /// Whether the last file takes more entries.
    is_writing: bool,
    sequence_next: u64,
    number_next: u64,
    lines_next: u64,
    /// The first file that a failed sync should have covered and that is not copied yet.
    rewrite_from: Option<u64>,
    cursor: Cursor,
    mark: Mark,
    /// Entries that were read and not released: number, lines up to its end.
    unreleased: VecDeque<(u64, u64)>,
    lines_released: u64,
    damage: Vec<Damage>,
    /// Damaged spans that were told when it was opened, and numbers of entries that are missing.
    told: BTreeSet<(PathBuf, u64)>,
    told_missing: Vec<Range<u64>>,
    /// Files that have lost their names and cannot be written again.
    nameless: BTreeSet<u64>,
    /// Where the next look at names begins.
    names_next: u64,
}

impl Spool {
    /// Entries that are not released.
    pub const fn pending_entries(&self) -> u64 {
        self.number_next - self.mark.released
    }

    /// Files that cannot be read now: how many lines in them wait is not known.
    pub const fn unread_files(&self) -> usize {
        self.passed_over.len()
    }

    /// Lines in the entries that are not released, as far as they are known.
    pub const fn pending_lines(&self) -> u64 {
        self.lines_next.saturating_sub(self.lines_released)
    }

    /// Bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        let passed_over: u64 = self.passed_over.iter().map(|file| file.len_bytes).sum();
        self.files.iter().map(|f| f.len_bytes).sum::<u64>() + passed_over
    }

    /// Whether an eighth of what it may hold is free.
    pub fn has_ample_room(&self) -> bool {
        self.disk_bytes() <= self.bytes_max - self.bytes_max / 8
    }

    /// Whether every entry was read.
    pub fn is_read(&self) -> bool {
        self.cursor.number >= self.number_next
            || (self.cursor.file >= self.files.len() && !self.is_writing)
    }

    /// What was found damaged since the last call.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// Appends behind everything else; says the entry's number. With `beyond_limit` only the disk
    /// itself is a limit. An empty spool takes any entry.
    pub fn append(&mut self, entry: &Entry, beyond_limit: bool) -> Result<u64, AppendError> {
        assert!(entry.bytes.len() <= SPOOL_ENTRY_BYTES_MAX, "an entry is a record at most");
        let header = EntryHeader {
            number: self.number_next,
            lines_before: self.lines_next,
            lines: entry.lines,
            len_bytes: entry.bytes.len() as u32,
            payload_crc: crc32fast::hash(&entry.bytes),
            starts_line: entry.starts_line,
            ends_line: entry.ends_line,
        };
        let is_full = self.disk_bytes() + header.total_bytes() > self.bytes_max;
        if is_full && !beyond_limit && self.pending_entries() > 0 {
            return Err(AppendError::Full);
        }
        if let Some(first) = self.rewrite_from {
            self.write_again(first).map_err(AppendError::Io)?;
        }
        let written = self.write(&header, &entry.bytes);
        let written = match written {
            // The file that was written is no longer: it may go, and nobody else will see to that.
            Err(error) if is_full_disk(&error) && self.make_room() => {
                self.write(&header, &entry.bytes)
            }
            written => written,
        };
        written.map_err(AppendError::Io)?;
        self.number_next += 1;
        self.lines_next += entry.lines;
        Ok(header.number)
    }

    fn write(&mut self, header: &EntryHeader, bytes: &[u8]) -> io::Result<()> {
        let file_bytes_max = SPOOL_FILE_BYTES_MAX.min(self.bytes_max / 8);
        if let Some(last) = self.files.back()
            && last.entries_end > 0
            && last.len_bytes + header.total_bytes() > file_bytes_max
        {
            self.is_writing = false;
        }
        if !self.is_writing {
            self.begin_file()?;
        }
        let mut record = Vec::with_capacity(ENTRY_HEADER_BYTES + bytes.len());
        record.extend_from_slice(&header.encode());
        record.extend_from_slice(bytes);
        let file = self.files.back_mut().expect("a file was begun");
        let handle = Arc::clone(file.file.as_ref().expect("a file that is written is open"));
        if let Err(e) = handle.write_all_at(&record, file.len_bytes) {
            // What came of the entry lies behind the file's used length; the next one goes elsewhere.
            self.is_writing = false;
            let cut = handle.set_len(file.len_bytes);
            if cut.is_err() && file.entries_end == 0 {
                file.is_damaged = true;
            }
            self.drop_last_if_empty();
            return Err(e);
        }
        file.len_bytes += record.len() as u64;
        file.entries_first = file.entries_first.min(header.number);
        file.entries_end = file.entries_end.max(header.number + 1);
        Ok(())
    }

    fn begin_file(&mut self) -> io::Result<()> {
        self.sequence_next = self.sequence_next.max(self.number_next.div_ceil(FILE_NUMBERS_MAX));
        let (sequence, path, file) = loop {
            let sequence = self.sequence_next;
            let path = self.directory.join(format!("{sequence:016x}.{FILE_SUFFIX}"));
            match self.storage.open(&path, Open::CreateNew) {
                // The name of something that is none of ours.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.sequence_next += 1,
                opened => break (sequence, path, opened?),
            }
        };
        self.sequence_next = sequence + 1;
        self.files.push_back(SpoolFile::new(sequence, path, Some(Arc::clone(&file)), 0));
        if let Err(e) = file.write_all_at(&file_header(sequence), 0) {
            self.drop_last_if_empty();
            return Err(e);
        }
        let made = self.files.back_mut().expect("just pushed");
        made.len_bytes = FILE_HEADER_BYTES;
        self.is_writing = true;
        Ok(())
    }

    /// Removes a file that never got an entry.
    fn drop_last_if_empty(&mut self) {
        if let Some(last) = self.files.back()
            && last.entries_end == 0
            && self.storage.remove(&last.path).is_ok()
        {
            self.files.pop_back();
            if self.cursor.file >= self.files.len() {
                self.cursor.file = self.files.len();
                self.cursor.offset = 0;
            }
        }
    }

    /// Entries with numbers below `before` are handed over: they are not read again, and files
    /// that hold no others go.
    pub fn release(&mut self, before: u64) -> io::Result<()> {
        if before <= self.mark.released {
            return Ok(());
        }
        assert!(before <= self.number_next, "entry {} was never appended", before - 1);
        let mut lines = 0;
        while let Some((number, lines_end)) = self.unreleased.front()
            && *number < before
        {
            self.lines_released = *lines_end;
            lines = if number + 1 == before { *lines_end } else { 0 };
            self.unreleased.pop_front();
        }
        let marked = self.mark.advance(&*self.storage, before, lines);
        let dropped = self.drop_released();
        marked.and(dropped)
    }

    /// Removes files of which everything is released, once the mark that says so is durable; damaged
    /// ones are set aside, and what could not be read stays. Where a full disk has no room for the mark
    /// the file makes it, and goes first: that is an error, too, though nothing remains to be done.
    fn drop_released(&mut self) -> io::Result<()> {
        let mut without_room = Ok(());
        while self.cursor.file > 0 || self.front_is_done() {
            let Some(front) = self.files.front() else { break };
            if front.is_unread || front.entries_end > self.mark.released {
                break;
            }
            let marked = self.mark.make_durable(&*self.storage, &self.directory, front.entries_end);
            let makes_room = marked.as_ref().is_err_and(is_full_disk) && !front.is_damaged;
            if makes_room {
                without_room = without_room.and(marked);
            } else {
                marked?;
            }
            if front.is_damaged {
                let aside = front.path.with_extension(DAMAGED_SUFFIX);
                self.storage.rename(&front.path, &aside)?;
            } else {
                self.storage.remove(&front.path)?;
            }
            // Its bytes stay on the disk for as long as it is open.
            self.cursor.open.take_if(|(sequence, _)| *sequence == front.sequence);
            self.files.pop_front();
            if self.cursor.file > 0 {
                self.cursor.file -= 1;
            } else {
                self.cursor.offset = 0;
            }
            if makes_room {
                self.mark.make_durable(&*self.storage, &self.directory, self.mark.released)?;
            }
        }
        without_room
    }

    /// Removes what is released and still there; says whether that was something.
    fn make_room(&mut self) -> bool {
        let before = self.files.len();
        // What else could not be done is tried again with the next release.
        let _ = self.drop_released();
        self.files.len() < before
    }

    /// Whether the file that is being read has been read to its end and takes no more entries.
    fn front_is_done(&self) -> bool {
        let front = self.files.front();
        let is_read = front.is_some_and(|f| !f.is_unread && self.cursor.offset >= f.len_bytes);
        is_read && !(self.is_writing && self.files.len() == 1)
    }

    /// Nothing more will be appended or read: if everything is handed over, removes the last file,
    /// too; makes the mark durable.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.is_read() && self.unreleased.is_empty() {
            // The last entries may have been damaged: nobody will release those.
            self.release(self.number_next)?;
            self.lines_released = self.lines_next;
            self.is_writing = false;
            while self.read_next()?.is_some() {}
            self.drop_released()?;
        }
        self.mark.make_durable(&*self.storage, &self.directory, self.mark.released)?;
        // What a failed sync should have covered is in another file.
        let kept = self.files.iter().filter(|file| !file.is_unread && !file.sync_failed);
        kept.filter(|file| file.entries_end > self.mark.released)
            .try_for_each(|file| find(&*self.storage, &file.path, file.len_bytes))
    }

    /// What must be synced to make everything durable; `None` if everything is. Fails if what an
    /// earlier sync lost still cannot be written again.
    pub fn sync_job(&mut self) -> io::Result<Option<SyncJob>> {
        if let Some(first) = self.rewrite_from {
            self.write_again(first)?;
        }
        let at_risk = |f: &&SpoolFile| {
            let is_whole = !f.sync_failed && !f.is_unread;
            is_whole && (f.synced_bytes < f.len_bytes || !f.is_named)
        };
        let Some(first) = self.files.iter().find(at_risk).map(|f| f.sequence) else {
            return Ok(None);
        };
        let files = self.files.iter().filter(at_risk);
        let files = files.map(|f| FileToSync {
            sequence: f.sequence,
            len_bytes: f.len_bytes,
            path: f.path.clone(),
            file: f.file.clone(),
        });
        let files = files.collect();
        let unnamed = self.files.iter().any(|f| !f.is_named && !f.sync_failed && !f.is_unread);
        let directory = unnamed.then(|| self.directory.clone());
        Ok(Some(SyncJob { first, files, storage: Arc::clone(&self.storage), directory }))
    }

    /// Whether a file of a job is no longer there because all of it was handed over meanwhile. That it was not
    /// found is then no fault: the job is to be made again.
    pub fn has_let_go_of(&self, job: &SyncJob) -> bool {
        let is_here = |sequence| self.files.iter().any(|file| file.sequence == sequence);
        job.files.iter().any(|file| !is_here(file.sequence))
    }

    /// Takes the outcome of a job. After a failure what it should have covered is written once
    /// more, to a new file; the error says that this failed, too: then it is in the page cache
    /// only.
    pub fn on_synced(&mut self, job: SyncJob, outcome: io::Result<()>) -> io::Result<()> {
        let named = job.directory.is_some();
        match outcome {
            Ok(()) => {
                let written = self.files.back().filter(|_| self.is_writing).map(|f| f.sequence);
                for FileToSync { sequence, len_bytes, .. } in job.files {
                    if let Some(file) = self.files.iter_mut().find(|f| f.sequence == sequence) {
                        file.synced_bytes = file.synced_bytes.max(len_bytes);
                        file.is_named |= named;
                        if file.synced_bytes >= file.len_bytes && written != Some(sequence) {
                            file.file = None;
                        }
                    }
                }
                Ok(())
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    // What was synced before is in a file that nobody will find, too.
                    let files = self.files.iter_mut().filter(|f| f.sequence >= job.first);
                    files.for_each(|file| file.is_named = false);
                }
                self.write_again(job.first).map_err(|_| error)
            }
        }
    }

    /// Copies the entries that a failed sync should have made durable behind all others. Until
    /// that has worked nothing else is appended, so that the copies keep their place.
    fn write_again(&mut self, first: u64) -> io::Result<()> {
        self.rewrite_from = Some(first);
        // Later files were in the same job, or began after it: copied as well, to keep the order.
        let from = self.files.iter().position(|f| f.sequence >= first).unwrap_or(self.files.len());
        let until = self.files.len();
        self.is_writing = false;
        for index in from..until {
            self.files[index].sync_failed = true;
        }
        for index in from..until {
            let known = &self.files[index];
            if known.is_unread {
                continue;
            }
            let mut offset = if known.is_named { known.synced_bytes } else { 0 };
            let reader = known.reader(&*self.storage)?;
            loop {
                let (at, found) = here_at(&reader, offset, true)?;
                match at {
                    Here::End => break,
                    Here::Bad { until, .. } => offset = until,
                    Here::Entry(header, bytes) => {
                        offset = found + header.total_bytes();
                        if header.number >= self.mark.released
                            && let Some(bytes) = bytes
                        {
                            self.write(&header, &bytes)?;
                        }
                    }
                }
            }
        }
        for index in from..until {
            self.files[index].file = None;
        }
        self.rewrite_from = None;
        Ok(())
    }
}

fn is_full_disk(error: &io::Error) -> bool {
    Refusal::from(error).is_no_room()
}

/// Whether the next start finds so much under this name: an error if it does not. What cannot be looked
/// up now is not gone.
fn find(storage: &dyn Storage, path: &Path, len_bytes: u64) -> io::Result<()> {
    let gone = |what: &str| {
        let words = format!("{}: {what}: somebody has taken it away", path.display());
        Err(io::Error::new(io::ErrorKind::NotFound, words))
    };
    match storage.open(path, Open::Read).and_then(|file| file.len()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => gone("nothing has its name"),
        Ok(found) if found < len_bytes => gone("another file has its name"),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether this file of a spool's directory holds entries, and its sequence number.
fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(FILE_SUFFIX)?.strip_suffix('.')?;
    let is_ours = digits.len() == 16 && digits.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let sequence = is_ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    sequence.filter(|sequence| *sequence < SEQUENCE_END)
}

/// Whether a file was set aside.
fn is_set_aside(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == DAMAGED_SUFFIX)
}
