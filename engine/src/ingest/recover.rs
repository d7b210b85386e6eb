//! Finding an ingest directory's records again after a stop of any kind.
//!
//! Invariants: nothing is deleted but files of ours that hold no record (or whose records a store
//! says it has); what is not ours, not readable or not understood is left alone and told once. A
//! tail file is emptied only when what it held is durable in a segment. Running it twice, or being
//! stopped inside it, changes nothing: copies that it makes carry the same ULIDs.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{ALIGNMENT_MIN, FrameBuffer, FramePlace, HEADER_BYTES};
use super::registry::{FileError, Registry, RegistryOptions};
use super::segment::{
    Content, Extent, Segment, SegmentFile, SegmentState, file_name, incarnation, parse_file_name,
};
use super::stamp_mark::{STAMP_MARK_FILE, STAMP_MARK_NEW_FILE};
use super::tail::{self, SlotContent, SlotState};
use super::torn::Torn;
use super::walk::{self, Ending, FrameAt, Source, Walk, WalkOptions};
use crate::damage::{Damage, DamageKind};
use crate::limits::TAIL_SLOT_BYTES;
use crate::storage::Refusal;
use crate::storage::{Entry, File, Open, Storage};
use crate::store::name::{PROBE_NAME, PROBE_RENAMED_NAME};
use crate::ulid::Ulid;

/// Name of the lock file, which is not recovery's business.
pub const LOCK_FILE: &str = "LOCK";

/// What was found.
pub struct Recovered {
    /// Every segment with records, flushed.
    pub registry: Registry,
    /// The newest stamp on disk, milliseconds since 1970; 0 if there is no record.
    pub newest_ms: u64,
    /// Damage; the files stay as they are.
    pub report: Vec<Damage>,
    /// Things worth a line in the log.
    pub notes: Vec<Note>,
    /// Records saved from tail files.
    pub tail_records: u64,
    /// Unfinished or damaged last frames of segments that were being written; they are cut off.
    /// Those that a tail file restored have lost nothing.
    pub torn: Vec<Damage>,
}

impl Recovered {
    /// Bytes of unfinished frames, as far as their headers told.
    pub fn torn_bytes(&self) -> u64 {
        self.torn.iter().map(|torn| torn.len_bytes).sum()
    }
}

/// Something that is not damage but should be told once.
#[derive(Debug)]
pub enum Note {
    /// Not a file of ours (or one that was never used): left alone.
    Unknown(PathBuf),
    /// A segment that the store has: removed.
    AlreadyStored(PathBuf),
    /// An operation failed; what it was to do is done at a later start.
    Failed(FileError),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "{} is not ours and is left alone", path.display()),
            Self::AlreadyStored(path) => {
                write!(f, "{} is in the store already and was removed", path.display())
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Recovers the directory of `options`, made if it is missing. `already_stored` are segments that
/// the store has replaced. An error means that the directory itself cannot be used.
#[expect(clippy::implicit_hasher, reason = "one caller, one hasher")]
pub fn recover(
    options: RegistryOptions,
    already_stored: &HashSet<u128>,
    now_ms: u64,
) -> Result<Recovered, FileError> {
    let directory = options.directory.clone();
    let storage = Arc::clone(&options.storage);
    let failed = |operation| {
        let path = directory.clone();
        move |error| FileError { operation, path, error }
    };
    storage.create_dir_all(&directory).map_err(failed("make the directory"))?;
    let mut entries = storage.list(&directory).map_err(failed("list the directory"))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut recovery = Recovery {
        storage,
        already_stored,
        now_ms,
        lives: Vec::new(),
        superfluous: Vec::new(),
        found: Recovered {
            registry: Registry::new(options),
            newest_ms: 0,
            report: Vec::new(),
            notes: Vec::new(),
            tail_records: 0,
            torn: Vec::new(),
        },
        torn: Vec::new(),
    };
    let mut tails = Vec::new();
    for entry in &entries {
        recovery.take_entry(entry, &mut tails);
    }
    for name in tails {
        recovery.take_tail(&name);
    }
    recovery.remove_superfluous();
    recovery.storage.sync_dir(&directory).map_err(failed("sync the directory"))?;
    recovery.found.torn = recovery.torn.into_iter().map(|torn| torn.damage).collect();
    Ok(recovery.found)
}

/// A segment that was found and its frames, as their headers say.
struct Life {
    segment: Arc<Segment>,
    frames: Vec<FrameAt>,
}

impl Life {
    /// Whether it holds what a tail slot holds. The frame's payload is read: a write that failed
    /// may have brought its header to the disk and no more.
    fn holds(&self, content: &SlotContent) -> bool {
        let Some((first, last)) = content.table.range() else { return true };
        let mut frames = self.frames.iter().filter(|f| f.header.number == content.frame_number);
        self.segment.incarnation() == content.incarnation
            && frames.any(|frame| {
                let FrameAt { offset, header } = frame;
                let mut bytes = vec![0; header.table_span().end];
                let file = self.segment.open_file();
                let read = file.and_then(|file| file.read_exact_at(&mut bytes, *offset));
                let has_range = header.first <= first && last <= header.last;
                has_range && read.is_ok() && header.check_payload(&bytes).is_ok()
            })
    }
}

struct Recovery<'a> {
    storage: Arc<dyn Storage>,
    already_stored: &'a HashSet<u128>,
    now_ms: u64,
    lives: Vec<Life>,
    /// Files of segments that the store has. They go last: they tell which tail slots it has too.
    superfluous: Vec<PathBuf>,
    /// Until the tail files are read too, nobody knows what they cost.
    torn: Vec<Torn>,
    found: Recovered,
}

/// What a segment file turned out to be.
enum Verdict {
    /// It has records.
    Records(Box<Walk>, u64),
    /// It is ours, but without a record that is whole.
    Unused(Vec<Torn>),
    /// It does not start like one of ours.
    Foreign(Vec<Torn>),
}

impl Recovery<'_> {
    fn directory(&self) -> &Path {
        &self.found.registry.options().directory
    }

    fn take_entry(&mut self, entry: &Entry, tails: &mut Vec<String>) {
        let Some(name) = &entry.name else {
            let path = self.directory().join("(a name that is not UTF-8)");
            self.found.notes.push(Note::Unknown(path));
            return;
        };
        let not_recoverys =
            [LOCK_FILE, PROBE_NAME, PROBE_RENAMED_NAME, STAMP_MARK_FILE, STAMP_MARK_NEW_FILE];
        if not_recoverys.contains(&name.as_str()) {
            return;
        }
        match parse_file_name(name) {
            // Set aside before; it stays.
            Some((_, SegmentState::Damaged)) if entry.is_file => {}
            Some((id, state)) if entry.is_file => self.take_segment(id, state),
            None if entry.is_file && tail::is_file_name(name) => tails.push(name.clone()),
            _ => self.found.notes.push(Note::Unknown(self.directory().join(name))),
        }
    }

    fn take_segment(&mut self, id: Ulid, state: SegmentState) {
        let path = self.directory().join(file_name(id, state));
        if self.already_stored.contains(&id.0) && self.take_stored(id, state, &path) {
            self.superfluous.push(path);
            return;
        }
        // A read that fails once may succeed the next time; until the next start nobody else tries.
        let examined = self.examine(id, state, &path).or_else(|_| self.examine(id, state, &path));
        match examined {
            Ok(Verdict::Records(walk, file_len)) => {
                self.keep_segment(id, state, &path, *walk, file_len);
            }
            // Not used again: a sync of it may have failed before the stop.
            Ok(Verdict::Unused(torn)) if state == SegmentState::Active => {
                self.torn.extend(torn);
                if let Err(error) = self.storage.remove(&path) {
                    self.fail("remove", path, error);
                }
            }
            // A flushed segment had records once.
            Ok(Verdict::Unused(_)) => {
                self.found.report.push(whole_file_damage(path, DamageKind::Malformed("segment")));
            }
            // Its first frame is the damaged one: told as what it is, and left alone too.
            Ok(Verdict::Foreign(torn)) if !torn.is_empty() => self.torn.extend(torn),
            Ok(Verdict::Foreign(_)) => self.found.notes.push(Note::Unknown(path)),
            Err(error) => {
                self.found
                    .report
                    .push(whole_file_damage(path, DamageKind::Unread(Refusal::from(&error))));
            }
        }
    }

    /// The store has what could be read of this segment: remembers just which frames that is. If
    /// there is damage in it, it may hold more than the store has, and is kept: says no.
    fn take_stored(&mut self, id: Ulid, state: SegmentState, path: &Path) -> bool {
        let Ok(verdict) = self.examine(id, state, path) else { return false };
        let Verdict::Records(walk, file_len) = verdict else {
            return matches!(verdict, Verdict::Unused(_));
        };
        if !walk.damage.is_empty() {
            return false;
        }
        let file = SegmentFile {
            id,
            state,
            extent: Extent::Found,
            file_len,
            written_len: walk.end,
            content: Content::default(),
        };
        let segment = Segment::new(Arc::clone(&self.storage), self.directory(), file);
        self.lives.push(Life { segment: Arc::new(segment), frames: walk.frames });
        true
    }

    fn remove_superfluous(&mut self) {
        for path in std::mem::take(&mut self.superfluous) {
            match self.storage.remove(&path) {
                Ok(()) => self.found.notes.push(Note::AlreadyStored(path)),
                Err(error) => self.fail("remove", path, error),
            }
        }
    }

    fn examine(&self, id: Ulid, state: SegmentState, path: &Path) -> io::Result<Verdict> {
        let file = self.storage.open(path, Open::Read)?;
        let file_len = file.len()?;
        let mut start = [0; HEADER_BYTES];
        match file.read_exact_at(&mut start, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Verdict::Foreign(Vec::new()));
            }
            read => read?,
        }
        let is_torn = state == SegmentState::Active;
        let options = WalkOptions {
            path,
            incarnation: incarnation(id),
            limit: file_len,
            ending: if is_torn { Ending::Torn } else { Ending::LastFrame },
            // Of a flushed file readers check what they read.
            check_payloads: is_torn,
        };
        let walk = walk::walk(&Source::Mapped(Arc::new(file.map()?)), &options)?;
        let has_records = walk.frames.iter().any(|f| f.header.record_count > 0);
        Ok(match (has_records, walk::starts_like_ours(&start, &options)) {
            (true, _) => Verdict::Records(Box::new(walk), file_len),
            (false, true) => Verdict::Unused(walk.torn),
            (false, false) => Verdict::Foreign(walk.torn),
        })
    }

    fn keep_segment(
        &mut self,
        id: Ulid,
        state: SegmentState,
        path: &Path,
        walk: Walk,
        file_len: u64,
    ) {
        let mut content = Content::default();
        for frame in &walk.frames {
            let header = &frame.header;
            if header.record_count > 0 {
                let range = Some((header.first, header.last));
                content.add(u64::from(header.record_count), u64::from(header.text_len), range);
            }
        }
        self.saw(content);
        if state == SegmentState::Active {
            // Readable as it is; the next start tries again.
            if let Err(error) = end_segment(&*self.storage, path, id, &walk) {
                self.fail("end", path.to_path_buf(), error);
            }
        }
        self.torn.extend(walk.torn);
        self.found.report.extend(walk.damage);
        let flushed = self.directory().join(file_name(id, SegmentState::Flushed));
        let mut now_in = SegmentState::Flushed;
        if state != SegmentState::Flushed
            && let Err(error) = self.storage.rename(path, &flushed)
        {
            self.fail("rename", path.to_path_buf(), error);
            now_in = state;
        }
        let file = SegmentFile {
            id,
            state: now_in,
            extent: Extent::Found,
            file_len,
            written_len: walk.end,
            content,
        };
        let segment = self.found.registry.adopt(file);
        if now_in != SegmentState::Flushed {
            self.found.registry.flush_later(Arc::clone(&segment), walk.end);
        }
        self.lives.push(Life { segment, frames: walk.frames });
    }

    fn saw(&mut self, content: Content) {
        if let Some((_, last)) = content.range {
            self.found.newest_ms = self.found.newest_ms.max(last.ms());
        }
    }

    fn fail(&mut self, operation: &'static str, path: PathBuf, error: io::Error) {
        self.found.notes.push(Note::Failed(FileError { operation, path, error }));
    }

    /// Saves what a tail file holds, then empties it.
    fn take_tail(&mut self, name: &str) {
        let path = self.directory().join(name);
        let opened = self.storage.open(&path, Open::Write).and_then(|file| {
            let slots = read_slots(&*file)?;
            Ok((file, slots))
        });
        let (file, slots) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.found
                    .report
                    .push(whole_file_damage(path, DamageKind::Unread(Refusal::from(&error))));
                return;
            }
        };
        for (index, slot) in slots.into_iter().enumerate() {
            match slot {
                Ok(content) if self.is_needed(&content) => {
                    if let Err(error) = self.save_tail(&content) {
                        // The file keeps it for the next start, and is not used until then.
                        self.found.notes.push(Note::Failed(error));
                        return;
                    }
                    for torn in &mut self.torn {
                        torn.restore(&content);
                    }
                }
                Ok(_) | Err(SlotState::Empty) => {}
                Err(SlotState::Unreadable) => {
                    let offset = tail::slot_offset(index);
                    let kind = DamageKind::Checksum("tail chunk");
                    self.found
                        .report
                        .push(Damage { offset, ..whole_file_damage(path.clone(), kind) });
                }
            }
        }
        // Synced, so that a loss of power does not bring back what was there before.
        let emptied = (0..tail::SLOTS)
            .try_for_each(|slot| file.write_all_at(&[0; HEADER_BYTES], tail::slot_offset(slot)))
            .and_then(|()| file.sync());
        if let Err(error) = emptied {
            self.fail("empty", path, error);
        }
    }

    /// Whether the frame that a slot backs is missing from its segment, or holds other records.
    fn is_needed(&self, content: &SlotContent) -> bool {
        !self.lives.iter().any(|life| life.holds(content))
    }

    /// Writes a slot's records as a segment of their own: no file that was written before is
    /// touched, and the order of records inside each segment stays.
    fn save_tail(&mut self, slot: &SlotContent) -> Result<(), FileError> {
        let id = self.found.registry.new_id(self.now_ms);
        let mut frame = FrameBuffer::of(&slot.table, &slot.text);
        let alignment_bytes = self.found.registry.options().alignment_bytes;
        let place =
            FramePlace { incarnation: incarnation(id), number: 0, is_last: true, alignment_bytes };
        frame.finish(place);
        let len = frame.as_bytes().len() as u64;
        let active = self.directory().join(file_name(id, SegmentState::Active));
        let flushed = self.directory().join(file_name(id, SegmentState::Flushed));
        let storage = &self.storage;
        let saved = storage
            .open(&active, Open::CreateNew)
            .and_then(|file| {
                file.write_all_at(frame.as_bytes(), 0)?;
                file.sync()
            })
            .and_then(|()| storage.rename(&active, &flushed))
            .and_then(|()| storage.sync_dir(self.directory()));
        if let Err(error) = saved {
            // Best effort: the tail file still has the records.
            let _ = self.storage.remove(&active);
            return Err(FileError {
                operation: "save the tail file's records as",
                path: flushed,
                error,
            });
        }
        let content = Content {
            records: frame.record_count(),
            text_bytes: slot.text.len() as u64,
            range: slot.table.range(),
        };
        self.saw(content);
        self.found.tail_records += content.records;
        let file = SegmentFile {
            id,
            state: SegmentState::Flushed,
            extent: Extent::Found,
            file_len: len,
            written_len: len,
            content,
        };
        self.found.registry.adopt(file);
        Ok(())
    }
}

fn whole_file_damage(path: PathBuf, kind: DamageKind) -> Damage {
    Damage { path, offset: 0, len_bytes: 0, range: None, records: None, kind }
}

/// Makes a segment that was being written complete and durable: an end mark goes behind the last
/// whole frame, over the torn one if there is one.
fn end_segment(storage: &dyn Storage, path: &Path, id: Ulid, walk: &Walk) -> io::Result<()> {
    let file = storage.open(path, Open::Write)?;
    if !walk.is_complete {
        let mut mark = FrameBuffer::end_mark(ALIGNMENT_MIN);
        mark.finish(FramePlace {
            incarnation: incarnation(id),
            number: walk.frames.last().map_or(0, |f| f.header.number.saturating_add(1)),
            is_last: true,
            alignment_bytes: ALIGNMENT_MIN,
        });
        file.write_all_at(mark.as_bytes(), walk.end)?;
    }
    file.sync()
}

/// Both slots; a file that is shorter has fewer bytes in them.
fn read_slots(file: &dyn File) -> io::Result<Vec<Result<SlotContent, SlotState>>> {
    let len = file.len()?.min(tail::FILE_BYTES);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.chunks(TAIL_SLOT_BYTES).map(tail::decode_slot).collect())
}
