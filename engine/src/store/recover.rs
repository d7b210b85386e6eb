//! Opens a store directory after a start, an orderly one or not.
//!
//! Invariants: it always succeeds if the directory can be listed; nothing is removed but what is
//! provably ours and superfluous (a segment that was being written; a segment that another one
//! replaces, after every byte of that other one was verified, and that it has the same records); everything unknown, unreadable or
//! damaged stays as it is and is told once. A segment that cannot be read is known by its name, so
//! that answers over it say so and it expires; where the storage refused to read it, nothing is
//! concluded, and [`Catalogue::read_again`] tries for as long as it lives.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chunk::OpenPart;
use crate::damage::Damage;
use crate::ingest::recover::{AlreadyStored, Taken};
use crate::storage::{Bytes, FileBytes, Open, Refusal};
use crate::ulid::Ulid;

use super::StoreDirectory;
use super::catalogue::{Catalogue, Found};
use super::footer::Inputs;
use super::inventory::{Holdings, InventoryKeeper, Present};
use super::name::{Name, SegmentId};
use super::segment::{Loaded, SegmentView, StoreSegment};
use super::slab::SLAB_MAGIC;
use super::trash::Trashed;

/// What was found in a directory beside whole segments.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub path: PathBuf,
    /// What it is or what was done with it.
    pub kind: NoteKind,
}

/// The kinds of notes.
#[derive(Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// Not a file of ours: left alone.
    Unknown,
    /// A name of ours, but not a file, or its contents are not ours: left alone.
    NotOurs,
    /// A segment whose name or identity is not what its footer says; it is used.
    Misnamed,
    /// A segment that was being written when the process ended: removed.
    UnfinishedRemoved,
    /// A segment that another one replaces: removed.
    ReplacedRemoved,
    /// A segment that another one claims to replace, but not provably: both are used.
    ReplacedKept,
    /// It could not be read: left alone. Of segments nothing is concluded from that.
    Unread(Refusal),
    /// A superfluous file that could not be removed.
    NotRemoved(io::ErrorKind),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match self.kind {
            NoteKind::Unknown => f.write_str("not a file of ours, left alone"),
            NoteKind::NotOurs => f.write_str("named like a file of ours but is none, left alone"),
            NoteKind::Misnamed => f.write_str("its name is not what its footer says"),
            NoteKind::UnfinishedRemoved => f.write_str("was not finished, removed"),
            NoteKind::ReplacedRemoved => f.write_str("was replaced by another segment, removed"),
            NoteKind::ReplacedKept => f.write_str(
                "is kept, the segment that replaces it is not whole, or lacks records of it",
            ),
            NoteKind::Unread(refusal) => write!(f, "cannot be read, left alone: {refusal}"),
            NoteKind::NotRemoved(kind) => write!(f, "superfluous, but cannot be removed: {kind}"),
        }
    }
}

/// The directory cannot be used at all.
#[derive(Debug)]
pub struct RecoverError {
    /// The directory.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open the store directory {}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for RecoverError {}

/// A store that was opened.
pub struct Recovered {
    /// Its segments.
    pub catalogue: Catalogue,
    /// Its newest record, whoever has stamped it.
    pub newest: Ulid,
    /// What is damaged, as far as indexes and footers show it.
    pub damage: Vec<Damage>,
    /// What else was found.
    pub notes: Vec<Note>,
    replaced_ingest: HashMap<u128, Vec<(Taken, Arc<StoreSegment>)>>,
    present: Present,
}

impl Recovered {
    /// What the store says of what is missing elsewhere; to be asked once.
    pub(crate) fn take_holdings(&mut self) -> Holdings {
        self.catalogue.holdings(std::mem::take(&mut self.present))
    }

    /// Which of these ingest segments, found on disk, are superfluous, should they hold no other records
    /// than the digests name, because those are in the store: their commit was interrupted. The store
    /// segments that say so are verified in full first; where that is refused, the ingest segments are
    /// not superfluous, and are gathered once more.
    pub fn superfluous_ingest(&self, found: &[u128]) -> AlreadyStored {
        let mut verified: HashMap<SegmentId, bool> = HashMap::new();
        let mut is_whole = |segment: &Arc<StoreSegment>| {
            *verified.entry(segment.meta().id).or_insert_with(|| is_whole(segment) == Ok(true))
        };
        let mut superfluous = AlreadyStored::new();
        for id in found {
            for (taken, segment) in self.replaced_ingest.get(id).into_iter().flatten() {
                if is_whole(segment) {
                    superfluous.entry(*id).or_default().push(taken.clone());
                }
            }
        }
        superfluous
    }
}

/// Opens a store directory, which is made if it is not there. What lies in the trash without a
/// time in its name counts as trashed at `now_ms` (milliseconds since 1970).
pub fn recover(directory: &Arc<StoreDirectory>, now_ms: u64) -> Result<Recovered, RecoverError> {
    let failed = |error| RecoverError { path: directory.path.clone(), error };
    directory.storage.create_dir_all(&directory.path).map_err(failed)?;
    // A segment that was renamed right before a kill may not have a durable name yet: without one
    // nothing may be removed because this segment replaces it.
    directory.sync().map_err(failed)?;
    let mut entries = directory.storage.list(&directory.path).map_err(failed)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut recovery = Recovery {
        directory,
        loaded: Vec::new(),
        in_trash: Vec::new(),
        damage: vec![],
        notes: vec![],
    };
    for entry in entries {
        let Some(text) = entry.name else {
            recovery.note(directory.path.join("(a name that is not UTF-8)"), NoteKind::Unknown);
            continue;
        };
        let path = directory.path.join(&text);
        match Name::parse(&text) {
            None => recovery.note(path, NoteKind::Unknown),
            Some(Name::Lock | Name::Probe | Name::Identity | Name::ClockNote | Name::Inventory) => {
            }
            // Opening it is refused, and all that the name tells of is missing.
            Some(Name::Flushed { last, .. }) if !entry.is_file => recovery.segment(path, last, 0),
            Some(_) if !entry.is_file => recovery.note(path, NoteKind::NotOurs),
            Some(Name::Writing(_)) if entry.len_bytes == 0 => {
                recovery.note(path, NoteKind::NotOurs);
            }
            Some(Name::Writing(_)) => recovery.unfinished(path),
            Some(Name::Flushed { last, .. }) => recovery.segment(path, last, entry.len_bytes),
            Some(name @ Name::Trashed { .. }) => recovery.trashed(path, name, entry.len_bytes),
        }
    }
    Ok(recovery.finish(now_ms))
}

struct Recovery<'a> {
    directory: &'a Arc<StoreDirectory>,
    /// Segments with the last record that their names give.
    loaded: Vec<(Loaded, Ulid)>,
    /// Files in the trash; their contents where they can be read.
    in_trash: Vec<(Option<Loaded>, Trashed)>,
    damage: Vec<Damage>,
    notes: Vec<Note>,
}

impl Recovery<'_> {
    fn note(&mut self, path: PathBuf, kind: NoteKind) {
        self.notes.push(Note { path, kind });
    }

    /// Removes a superfluous file and notes it.
    fn remove(&mut self, path: &Path, kind: NoteKind) -> bool {
        let result = self.directory.storage.remove(path);
        let kind = match &result {
            Ok(()) => kind,
            Err(e) => NoteKind::NotRemoved(e.kind()),
        };
        self.note(path.to_owned(), kind);
        result.is_ok()
    }

    fn unfinished(&mut self, path: PathBuf) {
        let start = self.directory.caches.with_room(|| {
            let file = self.directory.storage.open(&path, Open::Read);
            let file = file.map_err(|e| Refusal::from(&e))?;
            let mut bytes = FileBytes::new(file)?;
            Ok(bytes.read(0..SLAB_MAGIC.len() as u64)? == SLAB_MAGIC)
        });
        match start {
            Ok(true) => {
                self.remove(&path, NoteKind::UnfinishedRemoved);
            }
            Ok(false) => self.note(path, NoteKind::NotOurs),
            Err(refusal) => self.note(path, NoteKind::Unread(refusal)),
        }
    }

    /// A published segment. One of which nothing can be read is there, too: what it held is told
    /// as missing, and it expires.
    fn segment(&mut self, path: PathBuf, named_last: Ulid, file_bytes: u64) {
        match StoreSegment::load(self.directory, &path) {
            Ok(loaded) => {
                if loaded.misnamed {
                    self.note(path, NoteKind::Misnamed);
                }
                self.damage.extend(loaded.damage.iter().cloned());
                self.loaded.push((loaded, named_last));
            }
            Err(damage) => {
                let directory = self.directory;
                let segment = StoreSegment::unreadable(directory, &path, file_bytes, &damage);
                self.damage.push(damage.clone());
                let (coverage, inputs, misnamed) = (None, Inputs::default(), false);
                self.loaded.extend(segment.map(|segment| {
                    let damage = vec![damage];
                    (Loaded { segment, coverage, inputs, misnamed, damage }, named_last)
                }));
            }
        }
    }

    /// A file in the trash. Its damage concerns nobody any more, but what it replaced may not come
    /// back in its place.
    fn trashed(&mut self, path: PathBuf, name: Name, file_bytes: u64) {
        let Name::Trashed { last, id, at_ms, .. } = name else { return };
        let loaded = match StoreSegment::load(self.directory, &path) {
            Ok(loaded) => Some(loaded),
            Err(damage) => {
                if let Some(refusal) = damage.refusal() {
                    self.note(path.clone(), NoteKind::Unread(refusal));
                }
                None
            }
        };
        // Without a time in the name it is decided when recovery ends.
        let at_ms = at_ms.unwrap_or(u64::MAX);
        self.in_trash.push((loaded, Trashed { id, path, last, file_bytes, at_ms }));
    }

    /// Removes the segments that others replace, even if those are in the trash by now.
    fn remove_replaced(&mut self) {
        let mut removed: HashSet<PathBuf> = HashSet::new();
        let by: Vec<_> = self
            .loaded
            .iter()
            .map(|(loaded, _)| loaded)
            .chain(self.in_trash.iter().filter_map(|(loaded, _)| loaded.as_ref()))
            .filter(|loaded| !loaded.inputs.store.is_empty())
            .map(|loaded| {
                let replaced = loaded.inputs.store.clone();
                (Arc::clone(&loaded.segment), replaced, loaded.coverage.clone())
            })
            .collect();
        for (segment, replaced, coverage) in by {
            let mut there = Vec::new();
            for (loaded, _) in &self.loaded {
                let (id, path) = (loaded.segment.meta().id, loaded.segment.path());
                if replaced.contains(&id) && id != segment.meta().id && !removed.contains(path) {
                    let old = loaded.coverage.as_ref().zip(coverage.as_ref());
                    // What cannot be read of the old one says nothing against the new one. Of several files
                    // of one id it is not known which that is.
                    let is_all =
                        old.map_or_else(|| self.is_alone(id), |(old, new)| old.is_within(new));
                    there.push((path.to_owned(), is_all));
                }
            }
            // Reading all of it is worth it only here, after an interrupted compaction.
            let whole = if there.is_empty() { Ok(false) } else { is_whole(&segment) };
            if let Err(refusal) = whole {
                self.note(segment.path().to_owned(), NoteKind::Unread(refusal));
            }
            for (path, is_all) in there {
                if whole != Ok(true) || !is_all {
                    self.note(path, NoteKind::ReplacedKept);
                } else if self.remove(&path, NoteKind::ReplacedRemoved) {
                    removed.insert(path);
                }
            }
        }
        // Not by id: a copy under another name may have the same one, and stay.
        self.loaded.retain(|(loaded, _)| !removed.contains(loaded.segment.path()));
    }

    /// Whether no other file has this id.
    fn is_alone(&self, id: SegmentId) -> bool {
        self.loaded.iter().filter(|(loaded, _)| loaded.segment.meta().id == id).count() == 1
    }

    /// What lies in the directory.
    fn present(&self) -> Present {
        let mut present = Present::default();
        let named = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
            name.and_then(|name| name.segment()).map(|(first, last, _)| (first, last))
        };
        for (loaded, _) in &self.loaded {
            if let Some(range) = named(loaded.segment.path()) {
                present.add(loaded.coverage.as_ref(), range);
            }
        }
        for (loaded, trashed) in &self.in_trash {
            if let Some(range) = named(&trashed.path) {
                let coverage = loaded.as_ref().and_then(|loaded| loaded.coverage.as_ref());
                present.add(coverage, range);
            }
        }
        present
    }

    fn finish(mut self, now_ms: u64) -> Recovered {
        let newest = |(loaded, named): &(Loaded, Ulid)| {
            // A segment that is cut held records up to the one that its name gives.
            let is_short = loaded.segment.is_damaged() || loaded.segment.is_unread();
            let cut = is_short && !loaded.misnamed;
            if cut { loaded.segment.meta().last.max(*named) } else { loaded.segment.meta().last }
        };
        let in_trash = self.in_trash.iter().map(|(_, trashed)| trashed.last);
        let newest = self.loaded.iter().map(newest).chain(in_trash).max().unwrap_or(Ulid::MIN);
        self.remove_replaced();
        // Best effort: what comes back after a power loss is removed again.
        let _ = self.directory.sync();
        let mut present = self.present();
        let mut replaced_ingest: HashMap<u128, Vec<_>> = HashMap::new();
        let mut replaces = |loaded: Loaded| {
            let holds = Arc::new(loaded.coverage.unwrap_or_default());
            for input in loaded.inputs.ingest {
                let named = replaced_ingest.entry(input.id).or_default();
                let taken = Taken { digest: input.digest, holds: Arc::clone(&holds) };
                named.push((taken, Arc::clone(&loaded.segment)));
            }
            loaded.segment
        };
        let mut segments = Vec::with_capacity(self.loaded.len());
        let mut trash = Vec::with_capacity(self.in_trash.len());
        for (loaded, mut trashed) in self.in_trash {
            loaded.map(&mut replaces);
            if trashed.at_ms == u64::MAX {
                trashed.at_ms = now_ms;
            }
            trash.push(trashed);
        }
        for (loaded, _) in self.loaded {
            segments.push(replaces(loaded));
        }
        let directory = Arc::clone(self.directory);
        let (inventory, missing) = InventoryKeeper::open(Arc::clone(&directory), &mut present);
        self.damage.extend(missing);
        let found = Found { trash, inventory: Some(inventory), now_ms };
        let catalogue = Catalogue::found(directory, segments, newest, found);
        let (damage, notes) = (self.damage, self.notes);
        Recovered { catalogue, newest, damage, notes, replaced_ingest, present }
    }
}

/// Whether every byte of a segment that means something verifies. An error: the storage refused to
/// tell.
pub(crate) fn is_whole(segment: &Arc<StoreSegment>) -> Result<bool, Refusal> {
    let verdict = |damage: Damage| damage.refusal().map_or(Ok(false), Err);
    let open = match segment.open_alone() {
        Ok(open) => SegmentView::of_all(open),
        Err(damage) => return verdict(damage),
    };
    if let Some(damage) = open.damage().first() {
        return verdict(damage.clone());
    }
    for index in 0..open.chunks().len() {
        if let Err(damage) = open.verify(index) {
            return verdict(damage);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Part;
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::catalogue::ReadAgain;
    use crate::store::coverage::{Coverage, Digest, Interval};
    use crate::store::footer::IngestInput;
    use crate::store::name::IdSource;
    use crate::store::testing::{Record, SMALL, append_all, directory, read_all, record, write};
    use crate::store::writer::SegmentWriter;
    use std::fs;

    fn records(from: u64, to: u64) -> Vec<Record> {
        (from..to).map(|n| record(1, n)).collect()
    }

    fn input(id: u128) -> IngestInput {
        IngestInput { id, digest: Digest(id + 1) }
    }

    /// Those in a segment that holds these.
    fn stored(ids: &[u128], held: &[Record]) -> AlreadyStored {
        let runs = held.iter().filter_map(|record| Interval::of_range(record.ulid, record.ulid, 1));
        let holds = Arc::new(Coverage::of(runs.collect()));
        let taken = |id| Taken { digest: input(id).digest, holds: Arc::clone(&holds) };
        ids.iter().map(|&id| (id, vec![taken(id)])).collect()
    }

    fn contents(recovered: &Recovered) -> Vec<Record> {
        let snapshot = recovered.catalogue.snapshot();
        snapshot.iter().flat_map(|segment| read_all(segment).0).collect()
    }

    fn kinds(recovered: &Recovered) -> Vec<&NoteKind> {
        recovered.notes.iter().map(|note| &note.kind).collect()
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_empty_store() {
        let temp = tempfile::tempdir().unwrap();
        let recovered = recover(&directory(&temp.path().join("data/store")), 0).unwrap();
        assert_eq!(recovered.catalogue.totals().segment_count, 0);
        assert_eq!(recovered.newest, Ulid::MIN);
    }

    #[test]
    fn segments_come_back_and_unfinished_ones_go() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        write(&directory, SMALL, &records(20, 40));
        write(&directory, SMALL, &records(0, 20));
        let mut writer = SegmentWriter::new(&directory, SMALL);
        append_all(&mut writer, &records(40, 60));
        let sealed = writer.seal(Inputs::default()).unwrap().unwrap();
        let unfinished = sealed.path().to_owned();
        std::mem::forget(sealed);
        fs::write(temp.path().join("LOCK"), "1\n").unwrap();

        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(contents(&recovered), records(0, 40));
        assert_eq!(recovered.newest, record(1, 39).ulid);
        assert_eq!(kinds(&recovered), [&NoteKind::UnfinishedRemoved]);
        assert!(!unfinished.exists());
        assert_eq!(recovered.damage, Vec::new());
    }

    #[test]
    fn what_is_not_ours_is_left_alone_and_told_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 20));
        let ulid = Ulid::from_parts(1, 1, 1);
        let ours = |id: u64| Name::Flushed { first: ulid, last: ulid, id: SegmentId(id) };
        let files = [
            ("notes.txt".to_owned(), "x"),
            ("junk.flushed".to_owned(), "x"),
            ("x.writing".to_owned(), ""),
            (Name::Writing(SegmentId(1)).to_string(), "not a segment"),
            (Name::Writing(SegmentId(2)).to_string(), ""),
            (ours(3).to_string(), ""),
            (ours(4).to_string(), "not a segment"),
        ];
        for (name, text) in &files {
            fs::write(temp.path().join(name), text).unwrap();
        }
        fs::create_dir(temp.path().join(ours(5).to_string())).unwrap();
        let before = fs::read_dir(temp.path()).unwrap().count();
        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), before);
        assert_eq!(contents(&recovered), records(0, 20));
        assert_eq!(recovered.newest, segment.meta().last);
        assert_eq!(recovered.notes.len(), 5);
        // What was published was not empty: emptied, its records are missing by its name.
        assert_eq!(recovered.damage.len(), 3);
        assert_eq!(recovered.damage[2].kind, crate::damage::DamageKind::NotAFile);
        assert!(recovered.damage[2].path.ends_with(ours(5).to_string()));
        assert!(recovered.damage[0].path.ends_with(ours(3).to_string()));
        assert!(recovered.damage[1].path.ends_with(ours(4).to_string()));
    }

    #[test]
    fn a_replaced_segment_goes_only_if_its_replacement_is_whole() {
        for break_at in [None, Some(230)] {
            let temp = tempfile::tempdir().unwrap();
            let directory = directory(temp.path());
            let a = write(&directory, SMALL, &records(0, 20));
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records(0, 30));
            let inputs = Inputs { ingest: vec![input(77), input(78)], store: vec![a.meta().id] };
            let b = writer.finish(inputs).unwrap().unwrap();
            if let Some(at) = break_at {
                let mut bytes = fs::read(b.path()).unwrap();
                bytes[at] ^= 1;
                fs::write(b.path(), bytes).unwrap();
            }
            let recovered = recover(&directory, 0).unwrap();
            let superfluous = recovered.superfluous_ingest(&[5, 77, 78]);
            if break_at.is_some() {
                assert_eq!(kinds(&recovered), [&NoteKind::ReplacedKept]);
                assert_eq!(recovered.catalogue.totals().segment_count, 2);
                assert!(superfluous.is_empty());
            } else {
                assert_eq!(kinds(&recovered), [&NoteKind::ReplacedRemoved]);
                assert_eq!(contents(&recovered), records(0, 30));
                assert!(!a.path().exists());
                assert_eq!(superfluous, stored(&[77, 78], &records(0, 30)));
            }
        }
    }

    #[test]
    fn a_replaced_segment_goes_only_if_its_replacement_has_all_its_records() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let a = write(&directory, SMALL, &records(0, 20));
        let mut writer = SegmentWriter::new(&directory, SMALL);
        append_all(&mut writer, &[records(0, 19), records(20, 30)].concat());
        let inputs = Inputs { ingest: Vec::new(), store: vec![a.meta().id] };
        writer.finish(inputs).unwrap().unwrap();
        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(kinds(&recovered), [&NoteKind::ReplacedKept]);
        assert!(a.path().exists());
    }

    /// Both have the id of what was replaced.
    #[test]
    fn a_copy_under_another_name_does_not_go_along_with_what_is_replaced() {
        for is_damaged in [true, false] {
            let (sim, directory) = on_sim(&[records(0, 20)]);
            let a = recover(&directory, 0).unwrap().catalogue.snapshot()[0].path().to_owned();
            let name = a.file_name().unwrap().to_str().and_then(Name::parse).unwrap();
            let (first, _, id) = name.segment().unwrap();
            let last = record(1, 25).ulid;
            let copy = a.with_file_name(Name::Flushed { first, last, id }.to_string());
            let bytes = if is_damaged { vec![0; 500] } else { sim.read_file(&a).unwrap() };
            sim.open(&copy, Open::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records(0, 30));
            writer.finish(Inputs { ingest: Vec::new(), store: vec![id] }).unwrap().unwrap();
            // One that cannot be removed is there, too.
            let name = copy.file_name().unwrap().to_str().unwrap();
            sim.fail(Fault::random(Call::Remove, 1.0, FaultError::Io).of(name));
            let recovered = recover(&directory, 0).unwrap();
            let published: Vec<_> =
                recovered.catalogue.snapshot().iter().map(|s| s.path().to_owned()).collect();
            assert!(published.contains(&copy) && published.len() == 2, "{published:?}");
            assert!(sim.files().contains(&copy) && !sim.files().contains(&a));
        }
    }

    #[test]
    fn a_segment_renamed_right_before_a_kill_is_durable_once_it_was_recovered() {
        let sim = SimStorage::new(1);
        let path = Path::new("/store");
        sim.create_dir_all(path).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        let directory = |sim: &SimStorage| {
            let (storage, ids) = (Arc::new(sim.clone()), IdSource::seeded(1));
            Arc::new(StoreDirectory::new(storage, path.to_owned(), ids))
        };
        let mut writer = SegmentWriter::new(&directory(&sim), SMALL);
        append_all(&mut writer, &records(0, 20));
        let sealed =
            writer.seal(Inputs { ingest: vec![input(77)], store: vec![] }).unwrap().unwrap();
        // The rename is the last thing that happens.
        sim.crash_at(sim.calls() + 2);
        assert!(sealed.publish().is_err());

        let killed = sim.kill();
        killed.fail(Fault::random(Call::SyncDir, 1.0, FaultError::Io));
        assert!(recover(&directory(&killed), 0).is_err(), "without a durable name nothing goes on");
        killed.clear_faults();
        let recovered = recover(&directory(&killed), 0).unwrap();
        assert_eq!(recovered.superfluous_ingest(&[77]), stored(&[77], &records(0, 20)));
        for seed in 0..20 {
            let recovered = recover(&directory(&killed.crash(seed)), 0).unwrap();
            assert_eq!(contents(&recovered), records(0, 20), "power loss {seed}");
        }
    }

    #[test]
    fn a_segment_without_its_end_is_used_and_told_and_stamps_go_on_behind_it() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 30));
        let bytes = fs::read(segment.path()).unwrap();
        fs::write(segment.path(), &bytes[..bytes.len() / 2]).unwrap();
        let recovered = recover(&directory, 0).unwrap();
        let back = contents(&recovered);
        assert!(!back.is_empty() && back == records(0, back.len() as u64));
        assert_eq!(recovered.newest, record(1, 29).ulid);
        assert_eq!(recovered.catalogue.totals().damaged_count, 1);
        assert!(recovered.damage.iter().any(Damage::loses_records));
    }

    #[test]
    fn what_cannot_be_read_is_there_by_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        write(&directory, SMALL, &records(0, 20));
        let lost = write(&directory, SMALL, &records(20, 40));
        let len = fs::read(lost.path()).unwrap().len();
        fs::write(lost.path(), vec![0; len]).unwrap();
        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(recovered.damage.len(), 1);
        assert_eq!(recovered.newest, lost.meta().last, "stamps go on behind it");
        let snapshot = recovered.catalogue.snapshot();
        let [whole, unreadable] = &snapshot[..] else { panic!("{}", snapshot.len()) };
        assert_eq!(read_all(whole).0, records(0, 20));
        assert!(unreadable.is_damaged() && unreadable.meta().file_bytes == len as u64);
        assert_eq!(unreadable.range(), (lost.meta().first, lost.meta().last));
        assert_eq!((unreadable.records(), unreadable.text_bytes()), (0, 0));
        // An answer over its span says so, before anybody has tried to open it again.
        let known = unreadable.known_damage();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].range, Some(unreadable.range()));
        assert!(known[0].loses_records());
    }

    #[test]
    fn what_could_not_be_read_at_the_start_is_read_as_soon_as_that_works() {
        let sim = SimStorage::new(1);
        let path = Path::new("/store");
        sim.create_dir_all(path).unwrap();
        let (storage, ids) = (Arc::new(sim.clone()), IdSource::seeded(1));
        let directory = Arc::new(StoreDirectory::new(storage, path.to_owned(), ids));
        write(&directory, SMALL, &records(0, 20));
        sim.fail(Fault { path_part: "flushed".into(), ..Fault::nth(1, FaultError::Io) });
        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(recovered.damage.len(), 1);
        let segment = &recovered.catalogue.snapshot()[0];
        assert_eq!(segment.known_damage().len(), 1);
        assert_eq!(read_all(segment).0, records(0, 20));
        assert_eq!(segment.known_damage(), []);
    }

    /// A store of some segments on a simulated disk.
    fn on_sim(parts: &[Vec<Record>]) -> (SimStorage, Arc<StoreDirectory>) {
        let sim = SimStorage::new(1);
        let path = Path::new("/store");
        sim.create_dir_all(path).unwrap();
        let (storage, ids) = (Arc::new(sim.clone()), IdSource::seeded(1));
        let directory = Arc::new(StoreDirectory::new(storage, path.to_owned(), ids));
        for records in parts {
            write(&directory, SMALL, records);
        }
        (sim, directory)
    }

    #[test]
    fn what_could_not_be_read_at_the_start_comes_back_by_itself_with_all_that_is_known_of_it() {
        let parts = [records(0, 20), records(20, 40), records(40, 60)];
        for call in [Call::Open, Call::Read, Call::Len] {
            let (sim, directory) = on_sim(&parts);
            sim.fail(Fault::random(call, 1.0, FaultError::Io));
            let recovered = recover(&directory, 0).unwrap();
            let catalogue = &recovered.catalogue;
            assert_eq!(recovered.newest, record(1, 59).ulid, "stamps go on behind it");
            let totals = catalogue.totals();
            assert_eq!((totals.segment_count, totals.unread_count), (3, 3), "{call:?}");
            assert_eq!((totals.damaged_count, totals.record_count), (0, 0), "no damage is known");
            for (segment, records) in catalogue.snapshot().iter().zip(&parts) {
                let known = segment.known_damage();
                assert_eq!(known.len(), 1);
                assert_eq!(known[0].range, Some((records[0].ulid, records[19].ulid)));
                assert!(known[0].refusal().is_some() && known[0].loses_records());
            }
            assert_eq!(catalogue.read_again().refused_count, 3, "as long as it is refused");
            sim.clear_faults();
            let before = catalogue.snapshot();
            assert_eq!(catalogue.read_again().back.len(), 3);
            assert_eq!(contents(&recovered), records(0, 60));
            let totals = catalogue.totals();
            assert_eq!((totals.unread_count, totals.record_count), (0, 60), "{call:?}");
            assert!(catalogue.snapshot().iter().all(|segment| segment.known_damage().is_empty()));
            assert_eq!(read_all(&before[0]).0, parts[0], "who pinned it reads it, too");
            assert_eq!(catalogue.read_again(), ReadAgain::default());
            // A handle from before is one of the same file.
            catalogue.retire(&before);
            catalogue.save_inventory().unwrap();
            assert_eq!(catalogue.move_to_trash(1).done, [], "a query may still open it");
            drop(before);
            assert_eq!(catalogue.move_to_trash(2).done.len(), 3);
        }
    }

    #[test]
    fn where_a_part_could_not_be_read_the_rest_is_there_and_nothing_is_called_damaged() {
        let parts = [records(0, 300)];
        let (sim, directory) = on_sim(&parts);
        let mut incomplete = 0;
        for nth in 1.. {
            // So many in a row: a single one is made up for by reading another way.
            for _ in 0..6 {
                sim.fail(Fault { call: Some(Call::Read), ..Fault::nth(nth, FaultError::Io) });
            }
            let recovered = recover(&directory, 0).unwrap();
            let is_struck = !sim.has_faults();
            sim.clear_faults();
            let segment = &recovered.catalogue.snapshot()[0];
            assert!(!segment.is_damaged(), "read {nth}");
            let told = recovered.damage.iter().any(Damage::loses_records);
            assert_eq!(segment.is_unread(), told, "read {nth}: {:?}", recovered.damage);
            assert!(told || segment.meta().record_count == 300, "read {nth}: a silent gap");
            incomplete += u64::from(told);
            assert_eq!(contents(&recovered), parts[0], "read {nth}: the fault is over");
            recovered.catalogue.read_again();
            assert_eq!(recovered.catalogue.totals().record_count, 300);
            if !is_struck {
                break;
            }
        }
        assert!(incomplete > 0);
    }

    #[test]
    fn nothing_is_removed_because_of_what_could_not_be_read() {
        let (sim, directory) = on_sim(&[records(0, 20)]);
        let a = recover(&directory, 0).unwrap().catalogue.snapshot()[0].clone();
        let mut writer = SegmentWriter::new(&directory, SMALL);
        append_all(&mut writer, &records(0, 30));
        let inputs = Inputs { ingest: vec![input(77)], store: vec![a.meta().id] };
        let sealed = writer.seal(inputs).unwrap().unwrap();
        let unfinished = {
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records(50, 60));
            writer.seal(Inputs::default()).unwrap().unwrap()
        };
        sealed.publish().unwrap();
        let files = sim.files();
        sim.fail(Fault::random(Call::Read, 1.0, FaultError::Io));
        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(recovered.superfluous_ingest(&[77]), AlreadyStored::new());
        assert_eq!(sim.files(), files, "all are where they were");
        assert!(kinds(&recovered).iter().all(|kind| matches!(kind, NoteKind::Unread(_))));
        sim.clear_faults();
        let recovered = recover(&directory, 0).unwrap();
        assert_eq!(recovered.superfluous_ingest(&[77]), stored(&[77], &records(0, 30)));
        assert_eq!(contents(&recovered), records(0, 30));
        drop(unfinished);
    }

    #[test]
    fn what_a_segment_in_the_trash_replaced_does_not_come_back() {
        for is_broken in [false, true] {
            let temp = tempfile::tempdir().unwrap();
            let directory = directory(temp.path());
            let a = write(&directory, SMALL, &records(0, 20));
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records(0, 30));
            let inputs = Inputs { ingest: vec![input(77)], store: vec![a.meta().id] };
            let b = writer.finish(inputs).unwrap().unwrap();
            let (first, last, id) = (b.meta().first, b.meta().last, b.meta().id);
            let name = Name::Trashed { first, last, id, at_ms: Some(5) };
            let trashed = temp.path().join(name.to_string());
            fs::rename(b.path(), &trashed).unwrap();
            if is_broken {
                let mut bytes = fs::read(&trashed).unwrap();
                bytes[230] ^= 1;
                fs::write(&trashed, bytes).unwrap();
            }
            let recovered = recover(&directory, 9).unwrap();
            assert_eq!(contents(&recovered).is_empty(), !is_broken, "nothing unproven is removed");
            assert_eq!(a.path().exists(), is_broken);
            assert_eq!(recovered.superfluous_ingest(&[77]).is_empty(), is_broken);
            assert_eq!(recovered.newest, last);
            assert_eq!(recovered.damage, Vec::new(), "what has expired damages nobody");
            let trash = recovered.catalogue.trash();
            assert_eq!((trash.len(), trash[0].at_ms, trash[0].id), (1, 5, id));
        }
    }
}
