//! Finding an ingest directory's records again after a stop of any kind.
//!
//! Invariants: nothing is decided from bytes that were not read, nor from a map. Nothing is deleted
//! but files of ours that hold no record (or all of whose records a store says it has); what is not ours or
//! not understood is left alone and told once; what could not be read is left as it is and handed to
//! the registry, which tells it in every answer and reads it again. A segment that was being written
//! is not written to: its new name says where its frames end. A tail file is emptied only when what
//! it held is durable in a segment. Running it twice, or being stopped inside it, changes nothing:
//! copies that it makes carry the same ULIDs.

mod tails;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::examine::{Depth, Found, Verdict, examine};
use super::known_topics::{KnownTopics, TOPICS_FILE, TOPICS_NEW_FILE};
use super::open;
use super::registry::{FileError, Registry, RegistryOptions};
use super::segment::{Content, Extent, FileName, Segment, SegmentFile, SegmentState};
use super::stamp_mark::{STAMP_MARK_FILE, STAMP_MARK_NEW_FILE};
use super::tail;
use super::tail::slot::BackedFrame;
use super::torn::Torn;
use super::waiting::{WAITING_FILE, WAITING_NEW_FILE};
use super::walk::{FrameAt, Source, Walk};
use crate::damage::{Damage, DamageKind};
use crate::identity::{IDENTITY_FILE, IDENTITY_NEW_FILE};
use crate::storage::{Entry, File, Open, Storage};
use crate::store::coverage::{Coverage, Digest};
use crate::store::name::{PROBE_NAME, PROBE_RENAMED_NAME};
use crate::ulid::Ulid;

/// Name of the lock file, which is not recovery's business.
pub const LOCK_FILE: &str = "LOCK";

/// Files of ours that hold no record: not recovery's business either.
const NOT_RECOVERYS: [&str; 11] = [
    LOCK_FILE,
    PROBE_NAME,
    PROBE_RENAMED_NAME,
    STAMP_MARK_FILE,
    STAMP_MARK_NEW_FILE,
    IDENTITY_FILE,
    IDENTITY_NEW_FILE,
    TOPICS_FILE,
    TOPICS_NEW_FILE,
    WAITING_FILE,
    WAITING_NEW_FILE,
];

/// What was found.
pub struct Recovered {
    /// Every segment with records, flushed.
    pub registry: Registry,
    /// The newest stamp on disk, milliseconds since 1970; 0 if there is no record.
    pub newest_ms: u64,
    /// Topics of all records that could be read.
    pub topics: KnownTopics,
    /// Damage, and what could not be read ([`Damage::refusal`]); the files stay as they are.
    pub report: Vec<Damage>,
    /// Things worth a line in the log.
    pub notes: Vec<Note>,
    /// Records saved from tail files.
    pub tail_records: u64,
    /// Unfinished or damaged last frames of segments that were being written, which are cut off, and the
    /// same of tail files. Those that a tail file restored have lost nothing.
    pub torn: Vec<Damage>,
}

impl Recovered {
    /// Bytes of unfinished frames, as far as their headers told.
    pub fn torn_bytes(&self) -> u64 {
        self.torn.iter().map(|torn| torn.len_bytes).sum()
    }
}

/// What a store has of ingest segments.
pub type AlreadyStored = HashMap<u128, Vec<Taken>>;

/// What a segment of the store says it has of an ingest segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Names the coverage that it took.
    pub digest: Digest,
    /// What it holds itself.
    pub holds: Arc<Coverage>,
}

/// Something that is not damage but should be told once.
#[derive(Debug)]
pub enum Note {
    /// Not a file of ours (or one that was never used): left alone.
    Unknown(PathBuf),
    /// Another file of the segment for which that one is taken: put aside under this name.
    Double(PathBuf, String),
    /// A damaged tail file that was put aside, and of which there are too many younger ones: removed.
    GivenUp(PathBuf),
    /// A tail file that was put aside reads well again: what it holds is saved, and it is removed.
    Mended(PathBuf),
    /// A segment that the store has: removed.
    AlreadyStored(PathBuf),
    /// A segment that the store says it has, but it holds other records than were taken: kept.
    HoldsOthers(PathBuf),
    /// An operation failed; what it was to do is done at a later start.
    Failed(FileError),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "{} is not ours and is left alone", path.display()),
            Self::Double(path, taken) => write!(
                f,
                "{} was put aside under this name: {taken} is another file of the same segment, and has no \
                 fewer records; compare them and take this one away",
                path.display()
            ),
            Self::GivenUp(path) => write!(
                f,
                "{} was removed: there are too many younger damaged tail files, and answers do not tell \
                 any more what it lacked",
                path.display()
            ),
            Self::Mended(path) => write!(
                f,
                "{} reads well: what it holds is in segments now, and it was removed",
                path.display()
            ),
            Self::AlreadyStored(path) => {
                write!(f, "{} is in the store already and was removed", path.display())
            }
            Self::HoldsOthers(path) => write!(
                f,
                "{} holds other records than the store has of it; it is kept, and gathered again",
                path.display()
            ),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Recovers the directory of `options`, made if it is missing. `already_stored` are segments that
/// the store has replaced, with what it took of them: they go if that is all that they hold. An error
/// means that the directory itself cannot be used.
pub fn recover(
    options: RegistryOptions,
    already_stored: &AlreadyStored,
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
            topics: KnownTopics::default(),
            report: Vec::new(),
            notes: Vec::new(),
            tail_records: 0,
            torn: Vec::new(),
        },
        torn: Vec::new(),
        torn_tails: Vec::new(),
    };
    let doubles = recovery.find_doubles(&entries);
    let mut tails = Vec::new();
    for entry in entries
        .iter()
        .filter(|entry| entry.name.as_deref().is_none_or(|name| !doubles.contains(name)))
    {
        recovery.take_entry(entry, &mut tails);
    }
    recovery.take_tails(&tails);
    recovery.take_topics();
    recovery.remove_superfluous();
    let newest_ms = recovery.found.newest_ms.max(now_ms);
    recovery.found.registry.started(newest_ms);
    recovery.storage.sync_dir(&directory).map_err(failed("sync the directory"))?;
    let torn = recovery.torn.into_iter().map(|torn| torn.damage);
    recovery.found.torn = torn.chain(recovery.torn_tails).collect();
    Ok(recovery.found)
}

/// A segment that was found and its frames, as their headers say.
struct Life {
    segment: Arc<Segment>,
    frames: Vec<FrameAt>,
}

/// Whether the frame that a slot backs is among those of this incarnation, whole, with all that the slot
/// tells of. The frame's payload is read: a write that failed may have brought its header to the disk
/// and no more.
pub(super) fn holds(
    incarnation: u64,
    frames: &[FrameAt],
    open: impl FnOnce() -> io::Result<Arc<dyn File>>,
    backed: &BackedFrame,
) -> bool {
    let (first, last) = backed.range;
    let frame = frames.iter().find(|frame| frame.header.number == backed.number);
    let Some(FrameAt { offset, header }) = frame.filter(|_| incarnation == backed.incarnation)
    else {
        return false;
    };
    let mut bytes = vec![0; header.table_span().end];
    let read = open().and_then(|file| file.read_exact_at(&mut bytes, *offset));
    let has_range = header.first <= first && last <= header.last;
    has_range && read.is_ok() && header.check_payload(&bytes).is_ok()
}

struct Recovery<'a> {
    storage: Arc<dyn Storage>,
    already_stored: &'a AlreadyStored,
    now_ms: u64,
    lives: Vec<Life>,
    /// Files of segments that the store has. They go last: they tell which tail slots it has too.
    superfluous: Vec<PathBuf>,
    /// Until the tail files are read too, nobody knows what they cost.
    torn: Vec<Torn>,
    /// Bad ends of tail files.
    torn_tails: Vec<Damage>,
    found: Recovered,
}

impl Recovery<'_> {
    fn directory(&self) -> &Path {
        &self.found.registry.options().directory
    }

    fn take_entry(&mut self, entry: &Entry, tails: &mut Vec<Entry>) {
        let Some(name) = &entry.name else {
            let path = self.directory().join("(a name that is not UTF-8)");
            self.found.notes.push(Note::Unknown(path));
            return;
        };
        let is_new_tail = tail::is_new_file_name(name);
        let is_new = is_new_tail || [TOPICS_NEW_FILE, WAITING_NEW_FILE].contains(&name.as_str());
        if is_new && entry.is_file {
            let path = self.directory().join(name);
            // It was not finished, and means nothing.
            if let Err(error) = self.storage.remove(&path) {
                self.fail("remove", path, error);
            }
        }
        if NOT_RECOVERYS.contains(&name.as_str()) || (is_new_tail && entry.is_file) {
            return;
        }
        match FileName::parse(name) {
            Some(name) if entry.is_file => self.take_segment(name),
            Some(name) => self.keep_stranger(name),
            None if tail::is_file_name(name) || tail::parse_aside_file_name(name).is_some() => {
                tails.push(entry.clone());
            }
            _ => self.found.notes.push(Note::Unknown(self.directory().join(name))),
        }
    }

    /// Further files of a segment, which somebody has put there: the one with the most records is taken for
    /// it, and the others are put aside and told.
    fn find_doubles(&mut self, entries: &[Entry]) -> HashSet<String> {
        let mut files: BTreeMap<Ulid, Vec<(FileName, bool)>> = BTreeMap::new();
        for entry in entries {
            if let Some(name) = entry.name.as_deref().and_then(FileName::parse) {
                files.entry(name.id).or_default().push((name, entry.is_file));
            }
        }
        let mut doubles = HashSet::new();
        for files in files.into_values().filter(|files| files.len() > 1) {
            // `None`: it cannot be read now, and may have them all.
            let records_of = |(name, is_file): &(FileName, bool)| {
                let path = self.directory().join(name.to_string());
                let found = is_file.then(|| self.examine(*name, &path));
                match found {
                    Some(Ok(Verdict::Records(found))) => Some(found.content.records),
                    Some(Ok(Verdict::Unread(_)) | Err(_)) => None,
                    Some(Ok(_)) | None => Some(0),
                }
            };
            let ranked = files.into_iter().map(|file| {
                Some((records_of(&file)?, file.0.state == SegmentState::Flushed, file.0))
            });
            let Some(mut files) = ranked.collect::<Option<Vec<_>>>() else { continue };
            files.sort_by_key(|(records, is_flushed, _)| (*records, *is_flushed));
            // Where there is no record in any of them, none is a segment's for sure.
            let Some((1.., _, taken)) = files.pop() else { continue };
            for (.., name) in files {
                let path = self.directory().join(name.to_string());
                // Out of the way: the segment may be given that name later.
                let aside = self.directory().join(format!("{name}.double"));
                match self.storage.rename_new(&path, &aside) {
                    Ok(()) => self.found.notes.push(Note::Double(aside, taken.to_string())),
                    Err(error) => self.fail("rename", path, error),
                }
                doubles.insert(name.to_string());
            }
        }
        doubles
    }

    fn take_segment(&mut self, name: FileName) {
        let path = self.directory().join(name.to_string());
        if let Some(taken) = self.already_stored.get(&name.id.0)
            && self.take_stored(name, &path, taken)
        {
            self.superfluous.push(path);
            return;
        }
        let state = name.state;
        match self.examine(name, &path) {
            Ok(Verdict::Records(found)) if is_aside(state) && !found.walk.damage.is_empty() => {
                self.keep_aside(name, found);
            }
            Ok(Verdict::Records(found)) => self.keep_segment(name, &path, found),
            Ok(Verdict::Unread(found)) => self.keep_unread(name, found),
            // Not used again: a sync of it may have failed before the stop. One that ended early goes
            // only if nothing of this life was ever on the disk.
            Ok(Verdict::Unused(torn))
                if state == SegmentState::Active
                    || (!is_aside(state)
                        && name.cut.is_some_and(|cut| cut.sure == 0)
                        && torn.is_empty()) =>
            {
                self.torn.extend(torn);
                if let Err(error) = self.storage.remove(&path) {
                    self.fail("remove", path, error);
                }
            }
            // Its first frame is the damaged one: told as what it is, and left alone too.
            Ok(Verdict::Foreign(torn)) if state == SegmentState::Active && !torn.is_empty() => {
                self.torn.extend(torn);
            }
            // One that was never used may be empty.
            Ok(Verdict::TooShort) if state == SegmentState::Active => {
                self.found.notes.push(Note::Unknown(path));
            }
            // It had records, or may have had some.
            Ok(Verdict::Unused(_) | Verdict::Foreign(_) | Verdict::TooShort) => {
                self.keep_unusable(name);
            }
            Err(error) => {
                let segment = self.adopt(name, &Found::default());
                let damage = segment.unread(&error);
                self.has_trouble(&segment, vec![damage]);
            }
        }
    }

    /// A read that fails once may succeed at once.
    fn examine(&self, name: FileName, path: &Path) -> io::Result<Verdict> {
        let depth = if is_aside(name.state) { Depth::Frames } else { Depth::Headers };
        match examine(&*self.storage, path, name, None, depth) {
            Err(_) | Ok(Verdict::Unread(_)) => examine(&*self.storage, path, name, None, depth),
            examined => examined,
        }
    }

    /// The store has taken this of the segment: remembers just which frames that is. If there is damage
    /// in it, or it holds other records, it may hold more than the store has, and is kept: says no.
    fn take_stored(&mut self, name: FileName, path: &Path, taken: &[Taken]) -> bool {
        let found = match self.examine(name, path) {
            Ok(Verdict::Records(found)) => found,
            // What cannot be read of it is no proof that the store has all of it.
            Ok(Verdict::Unused(torn)) => {
                return torn.is_empty() && name.cut.is_none_or(|cut| cut.sure == 0);
            }
            Ok(_) | Err(_) => return false,
        };
        if !found.walk.damage.is_empty() {
            return false;
        }
        let file = SegmentFile {
            id: name.id,
            state: name.state,
            cut: name.cut,
            extent: Extent::Found,
            file_len: found.file_len,
            written_len: found.walk.end,
            content: Content::default(),
        };
        let segment = Segment::new(self.found.registry.options(), file);
        segment.found(&found);
        // It has taken just this, and has it.
        let (own, digest) = (segment.coverage(), segment.coverage().digest());
        let is_stored = |taken: &Taken| Some(taken.digest) == digest && own.is_within(&taken.holds);
        if !taken.iter().any(is_stored) {
            self.found.notes.push(Note::HoldsOthers(path.to_path_buf()));
            return false;
        }
        self.lives.push(Life { segment: Arc::new(segment), frames: found.walk.frames });
        true
    }

    /// Learns the topics of what is in segments; what cannot be read of them is told elsewhere.
    fn take_topics(&mut self) {
        for Life { segment, frames } in &self.lives {
            let Ok(file) = segment.open_file() else { continue };
            let source = Source::File(file);
            for frame in frames.iter().filter(|frame| frame.header.record_count > 0) {
                let table = open::table_of(&source, frame).ok();
                for topic in table.into_iter().flat_map(|table| table.topics) {
                    self.found.topics.add_record(topic, frame.header.last.ms());
                }
            }
        }
    }

    fn remove_superfluous(&mut self) {
        for path in std::mem::take(&mut self.superfluous) {
            match self.storage.remove(&path) {
                Ok(()) => self.found.notes.push(Note::AlreadyStored(path)),
                Err(error) => self.fail("remove", path, error),
            }
        }
    }

    fn adopt(&mut self, name: FileName, found: &Found) -> Arc<Segment> {
        self.saw(found.content);
        let segment = self.found.registry.adopt(SegmentFile {
            id: name.id,
            state: name.state,
            cut: name.cut,
            extent: Extent::Found,
            file_len: found.file_len,
            written_len: found.walk.end,
            content: found.content,
        });
        segment.found(found);
        segment
    }

    /// What cannot be read of a segment is told, and read again by whoever looks after the registry.
    fn has_trouble(&mut self, segment: &Arc<Segment>, damage: Vec<Damage>) {
        self.found.registry.has_trouble(segment, &damage);
        self.found.report.extend(damage);
    }

    /// Nobody knows all that it holds: it stays as it is. What was found in it is readable.
    fn keep_unread(&mut self, name: FileName, found: Found) {
        let segment = self.adopt(name, &found);
        let Walk { damage, frames, .. } = found.walk;
        self.has_trouble(&segment, damage);
        self.lives.push(Life { segment, frames });
    }

    /// Set aside before, and damaged still.
    fn keep_aside(&mut self, name: FileName, found: Found) {
        let segment = self.adopt(name, &found);
        self.has_trouble(&segment, found.walk.damage);
    }

    /// Something that is no file has the name of one that may have held records.
    fn keep_stranger(&mut self, name: FileName) {
        let segment = self.adopt(name, &Found::default());
        let damage = segment.whole_damage(DamageKind::NotAFile);
        self.has_trouble(&segment, vec![damage]);
    }

    /// Nothing in it is a record.
    fn keep_unusable(&mut self, name: FileName) {
        let segment = self.adopt(name, &Found::default());
        let damage = segment.whole_damage(DamageKind::Malformed("segment"));
        self.has_trouble(&segment, vec![damage]);
    }

    fn keep_segment(&mut self, name: FileName, path: &Path, found: Found) {
        let segment = self.adopt(name, &found);
        if name.state == SegmentState::Active {
            // Readable as it is, whether the disk has it or not.
            let opened = self.storage.open(path, Open::Write);
            match opened.and_then(|file| file.sync()) {
                Ok(()) => segment.synced(found.walk.end),
                Err(error) => self.fail("sync", path.to_path_buf(), error),
            }
        }
        self.found.registry.tell(&segment, &found.walk.damage);
        let Walk { frames, damage, torn, end, .. } = found.walk;
        self.torn.extend(torn);
        self.found.report.extend(damage);
        if name.state != SegmentState::Flushed {
            if let Err(error) = segment.move_to(SegmentState::Flushed) {
                self.fail("rename", path.to_path_buf(), error);
                self.found.registry.flush_later(Arc::clone(&segment), end);
            } else {
                self.found.registry.offer(&segment);
            }
        }
        self.lives.push(Life { segment, frames });
    }

    fn saw(&mut self, content: Content) {
        if let Some((_, last)) = content.range {
            self.found.newest_ms = self.found.newest_ms.max(last.ms());
        }
    }

    fn fail(&mut self, operation: &'static str, path: PathBuf, error: io::Error) {
        self.found.notes.push(Note::Failed(FileError { operation, path, error }));
    }
}

fn is_aside(state: SegmentState) -> bool {
    state == SegmentState::Damaged
}
