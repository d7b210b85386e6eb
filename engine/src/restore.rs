//! Adopts copied segments into a store directory: verified in full, copied under a temporary name,
//! synced, renamed.
//!
//! A store segment is copied as it is; one from the trash is published again. Ingest segments (of
//! a dead node, or copied from a running one) go through the same recovery as at a node's start,
//! in a scratch directory of their own, tail files included, and are merged into a new store
//! segment.
//!
//! Invariants: what is given is only read, through no map; nothing that is damaged is adopted, unless
//! `salvage` was asked for, which adopts the readable records; where the storage refuses a read,
//! nothing is concluded, adopted or set aside; what the store
//! holds already, record by record, is not adopted again; a file that is found damaged in the
//! store under the name of a whole copy is set aside, never removed. The new segments claim to
//! replace nothing: a copied ingest segment may be an early part of one that lives on elsewhere.

mod salvage;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chunk::{OpenPart, Part};
use crate::damage::{Damage, DamageKind};
use crate::fsck;
use crate::identity::{IDENTITY_FILE, IDENTITY_NEW_FILE};
use crate::ingest::check::{Checked, check_segment, check_tail};
use crate::ingest::known_topics::{TOPICS_FILE, TOPICS_NEW_FILE};
use crate::ingest::registry::RegistryOptions;
use crate::ingest::segment::{SegmentState, parse_file_name};
use crate::ingest::stamp_mark::{STAMP_MARK_FILE, STAMP_MARK_NEW_FILE};
use crate::ingest::tail;
use crate::ingest::waiting::{WAITING_FILE, WAITING_NEW_FILE};
use crate::storage::{FileBytes, Open, Storage};
use crate::store::StoreDirectory;
use crate::store::footer::Inputs;
use crate::store::merge::{MergeError, MergeInput, merge};
use crate::store::name::{Name, SegmentId};
use crate::store::recover::{RecoverError, is_whole};
use crate::store::segment::{Loaded, StoreSegment};
use crate::store::volume::Volume;
use crate::store::writer::{SegmentWriter, WriteError, WriterOptions};
use crate::ulid::Ulid;

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Ingest segments that are recovered and merged at a time: bounds open files and scratch space.
const INGEST_AT_A_TIME: usize = 32;

/// What became of one file.
#[derive(Debug)]
pub enum Verdict {
    /// Its records, so many, are in the store now.
    Adopted(u64),
    /// The store held all of its records already, or a better copy was given, too.
    AlreadyThere,
    /// It holds no record.
    Empty,
    /// It is damaged: nothing of it was taken.
    Damaged(Vec<Damage>),
    /// It is damaged, and none of its records can be read: there was nothing to salvage.
    Lost(Vec<Damage>),
    /// It is damaged, and of its records so many could be read and were not in the store yet.
    Salvaged {
        /// Records that are in the store now.
        records: u64,
        /// What is damaged.
        damage: Vec<Damage>,
    },
    /// It was set aside as damaged by the node that it comes from: nothing of it was taken.
    SetAside,
    /// It is no segment.
    NotOurs,
    /// It could not be read, or the store could not be written.
    Failed(String),
}

/// What kind of file a name promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// A store segment, published or in the trash.
    Store,
    /// A segment of the ingest side.
    Ingest(Ulid, SegmentState),
    /// A tail file, which belongs to the ingest segments beside it.
    Tail,
    /// A tail file that was set aside because it is damaged.
    TailAside,
    /// Nothing that could be restored (a lock, an unfinished store segment), and no loss either.
    Nothing,
    /// No file of ours.
    Unknown,
}

impl Given {
    /// What the name of this file promises.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if let Some((id, state)) = parse_file_name(name) {
            return Self::Ingest(id, state);
        }
        if tail::is_file_name(name) {
            return Self::Tail;
        }
        if tail::parse_aside_file_name(name).is_some() {
            return Self::TailAside;
        }
        // Of another node; this one has its own stamps, topics and identity.
        let stamps = [STAMP_MARK_FILE, STAMP_MARK_NEW_FILE, TOPICS_FILE, TOPICS_NEW_FILE];
        let others = [IDENTITY_FILE, IDENTITY_NEW_FILE, WAITING_FILE, WAITING_NEW_FILE];
        if stamps.contains(&name) || others.contains(&name) {
            return Self::Nothing;
        }
        match Name::parse(name) {
            Some(Name::Flushed { .. } | Name::Trashed { .. }) => Self::Store,
            Some(_) => Self::Nothing,
            None => Self::Unknown,
        }
    }
}

/// A store directory that takes segments in. Its lock is the caller's business.
pub struct Restore {
    directory: Arc<StoreDirectory>,
    held: Vec<Arc<StoreSegment>>,
    /// The newest record of each segment that was made.
    adopted: Vec<Ulid>,
    /// Of the segments that are made: nobody adds to it later.
    volume: Volume,
    salvages: bool,
}

impl Restore {
    /// Opens the store directory as a node would at `now_ms` (milliseconds since 1970).
    pub fn open(directory: Arc<StoreDirectory>, now_ms: u64) -> Result<Self, RecoverError> {
        let recovered = crate::store::recover::recover(&directory, now_ms)?;
        let held = recovered.catalogue.snapshot().iter().cloned().collect();
        let (adopted, volume) = (Vec::new(), directory.lone_volume());
        Ok(Self { directory, held, adopted, volume, salvages: false })
    }

    /// The newest record of each segment that the store has got: what retention counts from.
    pub fn adopted(&self) -> &[Ulid] {
        &self.adopted
    }

    fn hold_adopted(&mut self, segment: Option<Arc<StoreSegment>>) {
        self.adopted.extend(segment.iter().map(|segment| segment.meta().last));
        self.held.extend(segment);
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        &self.directory.storage
    }

    /// Adopts a store segment, also one from the trash: that one is published again.
    pub fn store_segment(&mut self, path: &Path) -> Verdict {
        match self.try_store_segment(path) {
            Ok(verdict) => verdict,
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    fn try_store_segment(&mut self, path: &Path) -> io::Result<Verdict> {
        let parsed = Name::parse(name_of(path)).and_then(|name| name.segment());
        let Some((first, last, id)) = parsed else { return Ok(Verdict::NotOurs) };
        let part = match StoreSegment::load(&self.directory, path) {
            Ok(Loaded { segment, damage, .. }) => {
                if let Some(refusal) = damage.iter().find_map(Damage::refusal) {
                    return Err(refusal.into());
                }
                segment
            }
            // Refused by the storage, for want of rights say: that is no damage.
            Err(Damage { kind: DamageKind::Unread(refusal), .. }) => return Err(refusal.into()),
            Err(Damage { kind: kind @ DamageKind::NotAFile, .. }) => {
                return Ok(Verdict::Failed(kind.to_string()));
            }
            Err(damage) => return Ok(self.refused(vec![damage])),
        };
        let records = part.records();
        if self.holds(&*part)? {
            return Ok(Verdict::AlreadyThere);
        }
        let temporary = Temporary {
            storage: Arc::clone(self.storage()),
            path: self.directory.path.join(self.temporary_name()),
        };
        copy(&**self.storage(), path, &temporary.path)?;
        // The copy is what is adopted, so the copy is what is verified, under the name it came by.
        let mut bytes = FileBytes::new(self.storage().open(&temporary.path, Open::Read)?)?;
        let damage = fsck::check_store_bytes(path, &mut bytes).1;
        drop(bytes);
        if let Some(refusal) = damage.iter().find_map(Damage::refusal) {
            return Err(refusal.into());
        }
        if !damage.is_empty() {
            drop(temporary);
            return self.on_damaged(&part, damage);
        }
        let target = self.directory.path.join(Name::Flushed { first, last, id }.to_string());
        self.set_aside(&target, id)?;
        let before = self.directory.before_name();
        self.storage().rename(&temporary.path, &target)?;
        if let Err(error) = self.directory.sync_since(before) {
            // A name that may not last is none that a later run may believe.
            self.storage().remove(&target)?;
            return Err(error);
        }
        if let Ok(loaded) = StoreSegment::load(&self.directory, &target) {
            self.hold_adopted(Some(loaded.segment));
        }
        Ok(Verdict::Adopted(records))
    }

    fn temporary_name(&self) -> String {
        Name::Writing(SegmentId(self.directory.ids.next_id())).to_string()
    }

    /// Makes room for a whole copy where the store has a damaged one.
    fn set_aside(&mut self, target: &Path, id: SegmentId) -> io::Result<()> {
        let same = self.held.iter().filter(|segment| segment.meta().id == id);
        if let Some(refusal) = same.map(is_whole).find_map(Result::err) {
            return Err(refusal.into());
        }
        self.held.retain(|segment| segment.meta().id != id);
        let mut aside = target.as_os_str().to_owned();
        aside.push(".damaged");
        match self.storage().rename(target, Path::new(&aside)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Adopts ingest segments and the tail files beside them. `scratch` is an empty directory of
    /// the caller's, whose files this removes again. Every file gets its verdict, tail files
    /// aside.
    pub fn ingest_segments(
        &mut self,
        paths: &[PathBuf],
        scratch: &Path,
        on_verdict: &mut dyn FnMut(&Path, Verdict),
    ) {
        let (tails, segments): (Vec<_>, Vec<_>) =
            paths.iter().partition(|path| Given::of(path) == Given::Tail);
        let mut good = Vec::new();
        for (path, checked) in self.best_copies(&segments, on_verdict) {
            let damage: Vec<_> = checked.damage.into_iter().filter(|d| !is_expected(d)).collect();
            if damage.is_empty() {
                good.push((path, checked.record_count));
            } else {
                on_verdict(&path, Verdict::Damaged(damage));
            }
        }
        // A tail file's records belong to segments that were being written: in one batch with them.
        good.sort_by_key(|(path, _)| {
            !matches!(Given::of(path), Given::Ingest(_, SegmentState::Active))
        });
        let mut tails = tails.into_iter().cloned().collect::<Vec<_>>();
        let mut batches = good.chunks(INGEST_AT_A_TIME);
        loop {
            let batch = batches.next().unwrap_or_default();
            let tails = std::mem::take(&mut tails);
            if batch.is_empty() && tails.is_empty() {
                return;
            }
            match self.batch(batch, &tails, scratch) {
                Ok((adopted, damaged)) => {
                    for (path, verdict) in damaged {
                        on_verdict(&path, verdict);
                    }
                    for (path, records) in batch {
                        let id = parse_file_name(name_of(path)).map(|(id, _)| id);
                        let verdict = match (records, id) {
                            (0, _) => Verdict::Empty,
                            (_, Some(id)) if adopted.contains(&id) => Verdict::Adopted(*records),
                            _ => Verdict::AlreadyThere,
                        };
                        on_verdict(path, verdict);
                    }
                }
                Err(words) => {
                    for (path, _) in batch {
                        on_verdict(path, Verdict::Failed(words.clone()));
                    }
                }
            }
        }
    }

    /// Checks segments, and of several copies of one (it grew while it was copied, or changed its
    /// state) keeps the one with most records.
    fn best_copies(
        &self,
        paths: &[&PathBuf],
        on_verdict: &mut dyn FnMut(&Path, Verdict),
    ) -> Vec<(PathBuf, Checked)> {
        let mut best: BTreeMap<Ulid, (PathBuf, Checked)> = BTreeMap::new();
        let mut others = Vec::new();
        for path in paths {
            let (id, state) = match Given::of(path) {
                Given::Ingest(id, state) => (id, state),
                given => {
                    let is_aside = given == Given::TailAside;
                    on_verdict(path, if is_aside { Verdict::SetAside } else { Verdict::NotOurs });
                    continue;
                }
            };
            if state == SegmentState::Damaged {
                on_verdict(path, Verdict::SetAside);
                continue;
            }
            let checked = match check_segment(&**self.storage(), path, id, state) {
                Ok(checked) => checked,
                Err(error) => {
                    on_verdict(path, Verdict::Failed(error.to_string()));
                    continue;
                }
            };
            let rank = |(path, checked): &(PathBuf, Checked)| {
                let sealed = !matches!(Given::of(path), Given::Ingest(_, SegmentState::Active));
                (checked.damage.iter().all(is_expected), checked.record_count, sealed)
            };
            let new = ((*path).clone(), checked);
            match best.remove(&id) {
                Some(old) if rank(&old) >= rank(&new) => {
                    best.insert(id, old);
                    others.push((id, new));
                }
                old => {
                    best.insert(id, new);
                    others.extend(old.map(|old| (id, old)));
                }
            }
        }
        let is_whole = |checked: &Checked| checked.damage.iter().all(is_expected);
        for (id, (path, checked)) in others {
            // Where even the best one is damaged, nothing of it is there.
            let is_there = best.get(&id).is_some_and(|(_, best)| is_whole(best));
            let verdict =
                if is_there { Verdict::AlreadyThere } else { Verdict::Damaged(checked.damage) };
            on_verdict(&path, verdict);
        }
        best.into_values().collect()
    }

    /// Recovers segments in the scratch directory and merges those of which the store lacks
    /// something; says which, and which tail files are damaged. The error is in words.
    fn batch(
        &mut self,
        segments: &[(PathBuf, u64)],
        tails: &[PathBuf],
        scratch: &Path,
    ) -> Result<(HashSet<Ulid>, Vec<(PathBuf, Verdict)>), String> {
        let storage = Arc::clone(self.storage());
        let guard = Scratch { storage: &storage, directory: scratch };
        for path in segments.iter().map(|(path, _)| path).chain(tails) {
            let target = scratch.join(path.file_name().unwrap_or_default());
            copy(&*storage, path, &target).map_err(|e| format!("cannot be copied: {e}"))?;
        }
        let seed = self.directory.ids.next_id();
        let options = RegistryOptions::new(Arc::clone(&storage), scratch.to_owned(), seed);
        let recovered = crate::ingest::recover::recover(options, &HashMap::new(), 0)
            .map_err(|error| error.to_string())?;
        // They were whole a moment ago: what cannot be read now failed to be read.
        let unread = recovered.report.iter().find(|d| matches!(d.kind, DamageKind::Unread(_)));
        if let Some(damage) = unread {
            return Err(damage.to_string());
        }
        let damaged = self.damaged_tails(tails, recovered.report);
        let found = recovered.registry.snapshot();
        let is_found = |path: &Path| {
            let id = parse_file_name(name_of(path)).map(|(id, _)| id);
            found.iter().any(|segment| Some(segment.id()) == id)
        };
        if let Some((path, _)) = segments.iter().find(|(p, records)| *records > 0 && !is_found(p)) {
            return Err(format!("{} was not recovered", path.display()));
        }
        let mut inputs = Vec::new();
        let mut adopted = HashSet::new();
        for segment in found {
            let is_wanted = segment.content().records > 0;
            if is_wanted && !self.holds(&*segment).map_err(|e| e.to_string())? {
                let part = segment.open_to_move().map_err(|damage| damage.to_string())?;
                adopted.insert(segment.id());
                inputs.push(MergeInput { part, path: segment.path() });
            }
        }
        if inputs.is_empty() {
            return Ok((adopted, damaged));
        }
        let writer = SegmentWriter::new(&self.directory, WriterOptions::default());
        let mut writer = writer.in_volume(self.volume);
        let report = merge(inputs, &mut writer, &|| true).map_err(|e| match e {
            MergeError::Cancelled => "cancelled".to_owned(),
            MergeError::Write(error) => error.to_string(),
        })?;
        if let Some((_, damage)) = report.damage.iter().find(|(_, d)| d.loses_records()) {
            return Err(format!("cannot be read: {damage}"));
        }
        let finish = |error: WriteError| error.to_string();
        let made = writer.finish(Inputs::default()).map_err(finish)?;
        self.hold_adopted(made);
        drop(guard);
        Ok((adopted, damaged))
    }

    /// Tail files of which recovery found something damaged, and put them aside.
    fn damaged_tails(&self, tails: &[PathBuf], report: Vec<Damage>) -> Vec<(PathBuf, Verdict)> {
        let verdict = |path: &PathBuf| {
            let start = format!("{}.", name_of(path));
            let is_its = |damage: &&Damage| name_of(&damage.path).starts_with(&start);
            let damage =
                report.iter().filter(is_its).map(|d| Damage { path: path.clone(), ..d.clone() });
            let damage: Vec<Damage> = damage.collect();
            let records =
                check_tail(&**self.storage(), path).map_or(0, |checked| checked.record_count);
            (!damage.is_empty()).then(|| (path.clone(), Verdict::Salvaged { records, damage }))
        };
        tails.iter().filter_map(verdict).collect()
    }

    /// Whether the store has every record of a part, readable. An error: the part cannot be read.
    fn holds(&self, part: &dyn Part) -> io::Result<bool> {
        let near = self.near(part.range());
        if near.is_empty() {
            return Ok(false);
        }
        match part.open_to_move() {
            Ok(open) => Ok((0..open.chunks().len()).all(|chunk| is_held(&*open, chunk, &near))),
            Err(damage) => damage.refusal().map_or(Ok(false), |refusal| Err(refusal.into())),
        }
    }

    /// What the store has in this range.
    fn near(&self, (first, last): (Ulid, Ulid)) -> Vec<Box<dyn OpenPart>> {
        let near = self.held.iter().filter(|segment| {
            let (held_first, held_last) = segment.range();
            held_first <= last && held_last >= first
        });
        near.filter_map(|segment| segment.open_to_move().ok()).collect()
    }
}

/// Whether every record of a chunk is in one of these parts, in chunks that can be read.
fn is_held(part: &dyn OpenPart, chunk: usize, holders: &[Box<dyn OpenPart>]) -> bool {
    let Ok(table) = part.read_table(chunk) else { return false };
    let Some((first, last)) = table.range() else { return true };
    let mut spans: Vec<(u128, u128)> = Vec::new();
    for holder in holders {
        let chunks = holder.chunks();
        let from = chunks.partition_point(|meta| meta.last < first);
        for (index, _) in chunks.iter().enumerate().skip(from).take_while(|(_, m)| m.first <= last)
        {
            if let Ok(chunk) = holder.read(index) {
                let runs = chunk.table.runs.iter();
                spans.extend(runs.map(|run| (run.first.0, run.first.0 + u128::from(run.count))));
            }
        }
    }
    spans.sort_unstable();
    table.runs.iter().all(|run| {
        let (mut at, end) = (run.first.0, run.first.0 + u128::from(run.count));
        for &(from, to) in &spans {
            if from > at || at >= end {
                break;
            }
            at = at.max(to);
        }
        at >= end
    })
}

/// What a whole copy of a segment that was being written may show.
const fn is_expected(damage: &Damage) -> bool {
    matches!(damage.kind, DamageKind::Unfinished) || !damage.loses_records()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// Copies a file and syncs the copy.
fn copy(storage: &dyn Storage, from: &Path, to: &Path) -> io::Result<()> {
    let source = storage.open(from, Open::Read)?;
    let target = storage.open(to, Open::CreateNew)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        match source.read_at(&mut buffer, at)? {
            0 => break,
            n => {
                target.write_all_at(&buffer[..n], at)?;
                at += n as u64;
            }
        }
    }
    target.sync()
}

/// A file that goes away unless it was renamed.
struct Temporary {
    storage: Arc<dyn Storage>,
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: an unfinished segment is removed when the store is opened.
        let _ = self.storage.remove(&self.path);
    }
}

/// Empties the scratch directory when a batch is over.
struct Scratch<'a> {
    storage: &'a Arc<dyn Storage>,
    directory: &'a Path,
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        for entry in self.storage.list(self.directory).unwrap_or_default() {
            if let Some(name) = entry.name {
                // The caller removes the directory with what is left.
                let _ = self.storage.remove(&self.directory.join(name));
            }
        }
    }
}

#[cfg(test)]
mod tests;
