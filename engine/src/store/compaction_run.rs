//! Carries out a compaction plan: many segments become one.
//!
//! Slabs are the unit. One that overlaps no other of the group and is well filled is copied byte
//! for byte after every byte of it was verified; the others are merged and encoded again.
//!
//! Invariants: the output is durable and in the catalogue before any input leaves it; inputs are read
//! through no map; those of which records are damaged are not replaced, but marked, and never compacted
//! again; those of which the storage refused a read are left alone for some plans and then tried again;
//! those that share their id with another file are left alone, too, for they are named by it;
//! as many records come out as went in, less copies, and the same ones, as far as footers tell (checked
//! before publishing); what comes out belongs to the volume of what went in.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::damage::Damage;
use crate::limits::SLAB_COPY_TEXT_MIN;
use crate::ulid::Ulid;

use super::blocks::OpenSlab;
use super::catalogue::Catalogue;
use super::compaction::{CompactionLimits, Plan, plan};
use super::coverage::Coverage;
use super::footer::{Inputs, SlabEntry};
use super::merge::{MergeError, MergeInput, merge};
use super::name::SegmentId;
use super::segment::{OpenSegment, SegmentMeta, SegmentView, StoreSegment};
use super::slab::SlabTrailer;
use super::writer::{Compression, SegmentWriter, WriteError, WriterOptions};

/// What a compaction did.
#[derive(Debug)]
pub struct Compacted {
    /// What was merged, and why.
    pub plan: Plan,
    /// The new segment.
    pub output: SegmentMeta,
    /// Records that were there more than once.
    pub duplicate_count: u64,
    /// Slabs that were copied as they are.
    pub copied_slab_count: u64,
}

/// Why a compaction did not succeed. The inputs are as they were.
#[derive(Debug)]
pub enum CompactionError {
    /// It was cancelled.
    Cancelled,
    /// The output could not be written.
    Write(WriteError),
    /// Records of these inputs are damaged; they are marked and left alone from now on.
    Damaged(Vec<Damage>),
    /// The storage refused these reads: nothing is known of the inputs, which are tried again later.
    Unread(Vec<Damage>),
    /// The output would hold another number of records than the inputs: a defect of ours.
    CountsDiffer,
    /// The output lacks records of its inputs, as far as their footers tell.
    RecordsDiffer,
}

impl fmt::Display for CompactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Write(error) => error.fmt(f),
            Self::Damaged(damage) => {
                write!(f, "{} damaged spans in segments to be compacted", damage.len())?;
                damage.first().map_or(Ok(()), |first| write!(f, ": {first}"))
            }
            Self::Unread(refused) => {
                write!(f, "segments to be compacted cannot be read in {} places", refused.len())?;
                refused.first().map_or(Ok(()), |first| write!(f, ": {first}"))
            }
            Self::RecordsDiffer => {
                f.write_str("a compaction's output does not hold what its inputs held, dropped")
            }
            Self::CountsDiffer => f.write_str("a compaction's output did not add up, dropped"),
        }
    }
}

impl std::error::Error for CompactionError {}

impl From<WriteError> for CompactionError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// Plans and carries out one compaction. `None`: nothing is worth it now.
pub fn compact(
    catalogue: &Catalogue,
    limits: &CompactionLimits,
    options: WriterOptions,
    cancel: &AtomicBool,
) -> Result<Option<Compacted>, CompactionError> {
    let candidates = candidates(catalogue);
    let metas: Vec<_> = candidates.iter().map(|s| as_written(*s.meta(), options)).collect();
    let Some(plan) = plan(&metas, catalogue.open_volume(), limits) else { return Ok(None) };
    let inputs: Vec<_> =
        candidates.into_iter().filter(|s| plan.inputs.contains(&s.meta().id)).collect();
    let Some(volume) = inputs.first().and_then(|input| input.meta().volume) else {
        return Ok(None);
    };
    let is_of_it = |input: &Arc<StoreSegment>| input.meta().volume.map(|v| v.id) == Some(volume.id);
    assert!(inputs.iter().all(is_of_it), "compaction crosses no volume: {:?}", plan.inputs);
    let writer = SegmentWriter::new(catalogue.directory(), options).in_volume(volume);
    let (held, duplicate_count, copied_slab_count) = (Vec::new(), 0, 0);
    let mut run = Run { inputs, held, writer, cancel, duplicate_count, copied_slab_count };
    for step in steps(&run.open()?) {
        run.step(step)?;
    }
    run.publish(catalogue, plan).map(Some)
}

/// Segments that may be merged. Those that share their id with another, as a copy under a changed name
/// does, stay as they are: what replaces them says so by id, and would take the other one with it.
pub(crate) fn mergeable(catalogue: &Catalogue) -> Vec<Arc<StoreSegment>> {
    let snapshot = catalogue.snapshot();
    let mut of_id: HashMap<SegmentId, u32> = HashMap::with_capacity(snapshot.len());
    snapshot.iter().for_each(|s| *of_id.entry(s.meta().id).or_default() += 1);
    let may_be_merged =
        |s: &&Arc<StoreSegment>| of_id[&s.meta().id] == 1 && !s.is_damaged() && !s.is_unread();
    snapshot.iter().filter(may_be_merged).cloned().collect()
}

/// Those of them that stopped no merge a moment ago.
fn candidates(catalogue: &Catalogue) -> Vec<Arc<StoreSegment>> {
    let mut candidates = mergeable(catalogue);
    candidates.retain(|segment| !segment.is_shunned());
    candidates
}

/// A segment as planning should see it: not smaller than what merging makes of it. That matters where
/// it was compressed and is to be no more.
fn as_written(meta: SegmentMeta, options: WriterOptions) -> SegmentMeta {
    let at_least = match options.compression {
        Compression::None => meta.text_bytes,
        Compression::Zstd(_) => 0,
    };
    SegmentMeta { file_bytes: meta.file_bytes.max(at_least), ..meta }
}

/// A slab and the input that it lies in.
#[derive(Clone)]
struct Source {
    input: usize,
    segment: Arc<OpenSegment>,
    slab: OpenSlab,
    first: Ulid,
    last: Ulid,
}

/// What is done with consecutive slabs.
enum Step {
    Copy(Box<Source>, SlabTrailer),
    Merge(Vec<Source>),
}

/// Sorts the slabs into those to be copied and groups of those to be merged.
fn steps(inputs: &[Arc<OpenSegment>]) -> Vec<Step> {
    let mut sources = Vec::new();
    for (input, segment) in inputs.iter().enumerate() {
        for slab in segment.slabs() {
            let Some((first, last)) = segment.range_of(slab) else { continue };
            let (segment, slab) = (Arc::clone(segment), slab.clone());
            sources.push(Source { input, segment, slab, first, last });
        }
    }
    sources.sort_by_key(|source| source.first);
    let mut clusters: Vec<Vec<Source>> = Vec::new();
    let mut reach = None;
    for source in sources {
        let last = source.last;
        match clusters.last_mut() {
            Some(cluster) if reach.is_some_and(|reach| reach >= source.first) => {
                cluster.push(source);
            }
            _ => clusters.push(vec![source]),
        }
        reach = reach.max(Some(last));
    }
    let mut steps: Vec<Step> = Vec::new();
    for cluster in clusters {
        let trailer = match cluster.as_slice() {
            [alone] if alone.slab.is_indexed => alone.slab.trailer,
            _ => None,
        };
        match (trailer, steps.last_mut()) {
            (Some(trailer), _) if trailer.text_bytes >= SLAB_COPY_TEXT_MIN => {
                steps.extend(
                    cluster.into_iter().map(|source| Step::Copy(Box::new(source), trailer)),
                );
            }
            (_, Some(Step::Merge(group))) => group.extend(cluster),
            _ => steps.push(Step::Merge(cluster)),
        }
    }
    steps
}

struct Run<'a> {
    inputs: Vec<Arc<StoreSegment>>,
    /// What their footers say that they hold.
    held: Vec<Option<Coverage>>,
    writer: SegmentWriter,
    cancel: &'a AtomicBool,
    duplicate_count: u64,
    copied_slab_count: u64,
}

impl Run<'_> {
    fn open(&mut self) -> Result<Vec<Arc<OpenSegment>>, CompactionError> {
        let mut opened = Vec::with_capacity(self.inputs.len());
        let mut lost = Vec::new();
        for (number, segment) in self.inputs.iter().enumerate() {
            match segment.open_with_coverage() {
                Ok((open, coverage)) => {
                    self.held.push(coverage);
                    let damage = open.damage().iter().filter(|d| d.loses_records());
                    lost.extend(damage.map(|damage| (number, damage.clone())));
                    opened.push(open);
                }
                Err(unreadable) => lost.push((number, unreadable)),
            }
        }
        if lost.is_empty() { Ok(opened) } else { Err(self.lost(lost)) }
    }

    /// Records of some inputs, by their numbers, did not come.
    fn lost(&self, lost: Vec<(usize, Damage)>) -> CompactionError {
        let (refused, damaged): (Vec<_>, Vec<_>) =
            lost.into_iter().partition(|(_, damage)| damage.refusal().is_some());
        for (number, _) in &refused {
            self.inputs[*number].shun();
        }
        for (number, _) in &damaged {
            self.inputs[*number].mark_damaged();
        }
        let values = |of: Vec<(usize, Damage)>| of.into_iter().map(|(_, damage)| damage).collect();
        if damaged.is_empty() {
            CompactionError::Unread(values(refused))
        } else {
            CompactionError::Damaged(values(damaged))
        }
    }

    fn step(&mut self, step: Step) -> Result<(), CompactionError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(CompactionError::Cancelled);
        }
        match step {
            Step::Copy(source, trailer) => self.copy(*source, trailer),
            Step::Merge(sources) => self.merge(sources),
        }
    }

    fn copy(&mut self, source: Source, trailer: SlabTrailer) -> Result<(), CompactionError> {
        let entry = SlabEntry { offset: source.slab.offset, trailer };
        let Ok(mut bytes) = source.segment.bytes() else { return self.merge(vec![source]) };
        match self.writer.copy_slab(&mut bytes, source.segment.path(), &entry) {
            Ok(()) => {
                self.copied_slab_count += 1;
                Ok(())
            }
            // A part that others can replace may be broken: block by block it is seen what is.
            Err(WriteError::Damaged(_)) => self.merge(vec![source]),
            Err(error) => Err(error.into()),
        }
    }

    fn merge(&mut self, sources: Vec<Source>) -> Result<(), CompactionError> {
        let owners: Vec<usize> = sources.iter().map(|source| source.input).collect();
        let input = |source: &Source| MergeInput {
            part: Box::new(SegmentView::of_slab(&source.segment, &source.slab)),
            path: source.segment.path().to_owned(),
        };
        let inputs = sources.iter().map(input).collect();
        let goes_on = || !self.cancel.load(Ordering::Relaxed);
        let report = merge(inputs, &mut self.writer, &goes_on).map_err(|e| match e {
            MergeError::Cancelled => CompactionError::Cancelled,
            MergeError::Write(error) => CompactionError::Write(error),
        })?;
        self.duplicate_count += report.duplicate_count;
        let lost: Vec<_> = report.damage.into_iter().filter(|(_, d)| d.loses_records()).collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(self.lost(lost.into_iter().map(|(number, damage)| (owners[number], damage)).collect()))
    }

    fn publish(self, catalogue: &Catalogue, plan: Plan) -> Result<Compacted, CompactionError> {
        let expected: u64 = self.inputs.iter().map(|s| s.meta().record_count).sum();
        let store = plan.inputs.clone();
        let sealed = self.writer.seal(Inputs { ingest: Vec::new(), store })?;
        let sealed = sealed.ok_or(CompactionError::CountsDiffer)?;
        if sealed.footer().record_count() + self.duplicate_count != expected {
            return Err(CompactionError::CountsDiffer);
        }
        assert_eq!(self.inputs.len(), self.held.len(), "each input is compared with the output");
        // Where two records cannot be told apart, counts have to do.
        let holds = &sealed.footer().coverage;
        let is_known = |input: &&Coverage| holds.is_known_in_full() && input.is_known_in_full();
        let lacks = |held: &Option<Coverage>| {
            held.as_ref().filter(is_known).is_some_and(|input| !input.is_within(holds))
        };
        let lacking = self.inputs.iter().zip(&self.held).filter(|(_, held)| lacks(held));
        if lacking.inspect(|(input, _)| input.shun()).count() > 0 {
            return Err(CompactionError::RecordsDiffer);
        }
        let segment = sealed.publish()?;
        let output = *segment.meta();
        catalogue.publish(vec![segment], &self.inputs);
        let (duplicate_count, copied_slab_count) = (self.duplicate_count, self.copied_slab_count);
        Ok(Compacted { plan, output, duplicate_count, copied_slab_count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{IdentityKeeper, NodeId, Side};
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::storage::watched::Watched;
    use crate::store::StoreDirectory;
    use crate::store::name::{IdSource, Name};
    use crate::store::recover::recover;
    use crate::store::testing::{Record, SMALL, append_all, directory, read_all, record, write};
    use crate::store::volume::{Volume, VolumeId, VolumeLimits};
    use std::fs;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn records(stream: u64, from: u64, to: u64) -> Vec<Record> {
        (from..to).map(|n| record(stream, n)).collect()
    }

    /// Small segments with small limits: four of a class are merged.
    fn limits() -> CompactionLimits {
        CompactionLimits { group_max: 4, small_group_max: 4, ..CompactionLimits::default() }
    }

    fn contents(catalogue: &Catalogue) -> Vec<Record> {
        let snapshot = catalogue.snapshot();
        snapshot.iter().flat_map(|segment| read_all(segment).0).collect()
    }

    struct Fixture {
        temp: tempfile::TempDir,
        catalogue: Catalogue,
    }

    /// Of a volume that nobody adds to.
    fn fixture(segments: &[Vec<Record>], options: WriterOptions) -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segments = segments.iter().map(|records| write(&directory, options, records));
        let segments = segments.collect();
        Fixture { temp, catalogue: Catalogue::new(directory, segments, Ulid::MIN) }
    }

    /// Of the volume that is open.
    fn fixture_of_open(segments: &[Vec<Record>], options: WriterOptions) -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let storage = Arc::clone(&directory.storage);
        let identity = IdentityKeeper::open(storage, temp.path(), Side::Store, NodeId(1));
        directory.is_of(identity.unwrap().keeper);
        let segments = segments.iter().map(|records| write(&directory, options, records));
        let segments = segments.collect();
        Fixture { temp, catalogue: Catalogue::new(directory, segments, Ulid::MIN) }
    }

    #[test]
    fn segments_become_one_without_copies_and_their_files_go() {
        let parts = [records(1, 0, 30), records(1, 20, 40), records(2, 0, 25), records(1, 60, 80)];
        let f = fixture(&parts, SMALL);
        let compacted = compact(&f.catalogue, &limits(), SMALL, &NEVER).unwrap().unwrap();
        assert_eq!((compacted.duplicate_count, compacted.copied_slab_count), (10, 0));
        let mut model = parts.concat();
        model.sort();
        model.dedup();
        assert_eq!(contents(&f.catalogue), model);
        assert_eq!(f.catalogue.remove_replaced().removed_count, 4);
        assert_eq!(fs::read_dir(f.temp.path()).unwrap().count(), 1);
        assert!(compact(&f.catalogue, &limits(), SMALL, &NEVER).unwrap().is_none());
    }

    #[test]
    fn small_segments_of_the_volume_that_is_added_to_wait_until_it_is_closed() {
        let parts = [records(1, 0, 20), records(1, 20, 40)];
        let f = fixture_of_open(&parts, SMALL);
        let catalogue = &f.catalogue;
        let open = catalogue.snapshot()[0].meta().volume;
        assert_eq!(catalogue.open_volume(), open.map(|volume| volume.id));
        assert!(compact(catalogue, &limits(), SMALL, &NEVER).unwrap().is_none());

        let due = VolumeLimits { bytes_max: 1, age_ms_max: u64::MAX };
        catalogue.tick_volume(0, &due);
        assert_eq!(catalogue.open_volume(), None);
        assert!(compact(catalogue, &limits(), SMALL, &NEVER).unwrap().is_some());
        assert_eq!(contents(catalogue), parts.concat());
    }

    #[test]
    fn what_rots_behind_its_verification_gets_no_fresh_checksum() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Arc::new(Watched { before_read: Arc::new(|| ()), rots: true });
        let (path, ids) = (temp.path().to_owned(), IdSource::seeded(3));
        let directory = Arc::new(StoreDirectory::new(storage, path, ids));
        let parts: Vec<_> = (0..4).map(|n| records(1, n * 20, n * 20 + 20)).collect();
        let segments = parts.iter().map(|records| write(&directory, SMALL, records)).collect();
        let catalogue = Catalogue::new(directory, segments, Ulid::MIN);
        assert_eq!(contents(&catalogue), parts.concat(), "a query has verified everything");
        let rotten = catalogue.snapshot()[1].path().to_owned();
        let mut bytes = fs::read(&rotten).unwrap();
        let at = bytes.windows(5).position(|w| w == b"1.22:").unwrap();
        bytes[at] = b'9';
        fs::write(&rotten, bytes).unwrap();
        let told = compact(&catalogue, &limits(), SMALL, &NEVER);
        assert!(matches!(told, Err(CompactionError::Damaged(_))), "{told:?}");
        let kept = catalogue.snapshot();
        assert_eq!(kept.len(), 4, "nothing was written anew");
        assert!(kept[1].is_damaged());
    }

    #[test]
    fn well_filled_slabs_that_overlap_nothing_are_copied_byte_for_byte() {
        let long = |from: u64, to: u64| {
            let mut records = records(1, from, to);
            for record in &mut records {
                record.line.resize(500_000, b'l');
            }
            records
        };
        // The last two overlap.
        let parts = [long(0, 10), long(10, 20), long(20, 30), long(29, 39)];
        let options = WriterOptions::default();
        let f = fixture(&parts, options);
        let before = fs::read(f.catalogue.snapshot()[1].path()).unwrap();
        let compacted = compact(&f.catalogue, &limits(), options, &NEVER).unwrap().unwrap();
        assert_eq!((compacted.duplicate_count, compacted.copied_slab_count), (1, 2));
        let segment = f.catalogue.snapshot()[0].clone();
        assert_eq!(read_all(&segment), (long(0, 39), Vec::new()));
        let open = segment.open_shared().unwrap();
        let after = fs::read(segment.path()).unwrap();
        let slab = &open.slabs()[1];
        let (at, len) = (slab.offset as usize, slab.trailer.unwrap().len as usize);
        assert!(after[at..at + len] == before[..len]);
    }

    #[test]
    fn an_input_that_cannot_be_read_is_left_alone_for_a_while_and_then_tried_again() {
        let sim = SimStorage::new(1);
        let path = std::path::Path::new("/store");
        sim.create_dir_all(path).unwrap();
        let (storage, ids) = (Arc::new(sim.clone()), IdSource::seeded(3));
        let directory = Arc::new(StoreDirectory::new(storage, path.to_owned(), ids));
        let parts: Vec<_> = (0..5).map(|n| records(1, n * 20, n * 20 + 20)).collect();
        let segments: Vec<_> = parts.iter().map(|part| write(&directory, SMALL, part)).collect();
        let refused = Arc::clone(&segments[1]);
        let catalogue = Catalogue::new(directory, segments, Ulid::MIN);
        let path_part = refused.path().file_name().unwrap().to_str().unwrap().to_owned();
        sim.fail(Fault { path_part, ..Fault::random(Call::Read, 1.0, FaultError::Io) });
        let told = compact(&catalogue, &limits(), SMALL, &NEVER);
        assert!(matches!(told, Err(CompactionError::Unread(_))), "{told:?}");
        assert!(!refused.is_damaged(), "nothing is known of it");
        assert_eq!(catalogue.snapshot().len(), 5);
        let others = compact(&catalogue, &limits(), SMALL, &NEVER).unwrap().unwrap();
        assert!(!others.plan.inputs.contains(&refused.meta().id), "others get their turn");
        sim.clear_faults();
        let tried_again = (0..100).position(|_| !refused.is_shunned());
        assert!(tried_again.is_some_and(|plans| plans < 32), "after some seconds: {tried_again:?}");
        let mut found = contents(&catalogue);
        found.sort();
        assert_eq!(found, parts.concat());
    }

    #[test]
    fn a_damaged_input_stops_the_merge_and_is_left_alone_from_then_on() {
        let parts: Vec<_> = (0..5).map(|n| records(1, n * 20, n * 20 + 20)).collect();
        let f = fixture(&parts, SMALL);
        let path = f.catalogue.snapshot()[1].path().to_owned();
        let mut bytes = fs::read(&path).unwrap();
        bytes[230] ^= 1;
        fs::write(&path, bytes).unwrap();
        let before = contents(&f.catalogue);
        let result = compact(&f.catalogue, &limits(), SMALL, &NEVER);
        assert!(matches!(result, Err(CompactionError::Damaged(damage)) if damage.len() == 1));
        assert_eq!(contents(&f.catalogue), before);
        let compacted = compact(&f.catalogue, &limits(), SMALL, &NEVER).unwrap().unwrap();
        assert_eq!(compacted.plan.inputs.len(), 4);
        f.catalogue.remove_replaced();
        let mut after = contents(&f.catalogue);
        after.sort();
        assert_eq!(after, before);
        assert!(path.exists());
        assert_eq!(fs::read_dir(f.temp.path()).unwrap().count(), 2);
    }

    /// A healthy segment beside another file of its id: what there is of others becomes one, and both stay.
    fn two_of_an_id(bytes_of_other: &dyn Fn(&Arc<StoreDirectory>) -> Vec<u8>, named_from: u64) {
        let temp = tempfile::tempdir().unwrap();
        let store = directory(temp.path());
        let parts: Vec<_> = (1..6).map(|n| records(1, n * 20, n * 20 + 20)).collect();
        let written: Vec<_> = parts.iter().map(|part| write(&store, SMALL, part)).collect();
        let (id, path) = (written[1].meta().id, written[1].path().to_owned());
        let (first, last) = (record(1, named_from).ulid, record(1, named_from + 9).ulid);
        let other = temp.path().join(Name::Flushed { first, last, id }.to_string());
        let bytes = bytes_of_other(&store);
        fs::write(&other, &bytes).unwrap();
        drop(written);

        let catalogue = recover(&store, 0).unwrap().catalogue;
        let compacted = compact(&catalogue, &limits(), SMALL, &NEVER).unwrap().unwrap();
        assert_eq!(compacted.plan.inputs.len(), 4);
        assert!(!compacted.plan.inputs.contains(&id));
        assert_eq!(catalogue.remove_replaced().removed_count, 4);
        assert!(path.exists());
        assert_eq!(fs::read(&other).unwrap(), bytes);
        assert_eq!(catalogue.snapshot().len(), 3);
        assert!(compact(&catalogue, &limits(), SMALL, &NEVER).unwrap().is_none());
    }

    #[test]
    fn a_file_of_the_same_id_that_is_damaged_is_merged_with_nothing_and_stops_nobody() {
        for named_from in [0, 200] {
            two_of_an_id(&|_| b"no segment".to_vec(), named_from);
        }
    }

    #[test]
    fn a_file_of_the_same_id_from_another_volume_is_merged_with_nothing_and_stops_nobody() {
        for from in [0, 200] {
            let of_other_volume = |store: &Arc<StoreDirectory>| {
                let volume = Volume { id: VolumeId(2), opener: NodeId(1), opened_ms: 1 };
                let mut writer = SegmentWriter::new(store, SMALL).in_volume(volume);
                append_all(&mut writer, &records(1, from, from + 20));
                let segment = writer.finish(Inputs::default()).unwrap().unwrap();
                let bytes = fs::read(segment.path()).unwrap();
                fs::remove_file(segment.path()).unwrap();
                bytes
            };
            two_of_an_id(&of_other_volume, from);
        }
    }

    #[test]
    fn a_broken_index_is_healed_by_compaction() {
        let parts: Vec<_> = (0..4).map(|n| records(1, n * 20, n * 20 + 20)).collect();
        let f = fixture(&parts, SMALL);
        let snapshot = f.catalogue.snapshot();
        let at = snapshot[0].open_shared().unwrap().slabs()[0].trailer.unwrap().index.offset;
        let mut bytes = fs::read(snapshot[0].path()).unwrap();
        bytes[at as usize + 5] ^= 1;
        fs::write(snapshot[0].path(), bytes).unwrap();
        drop(snapshot);
        compact(&f.catalogue, &limits(), SMALL, &NEVER).unwrap().unwrap();
        assert_eq!(read_all(&f.catalogue.snapshot()[0]), (parts.concat(), Vec::new()));
    }

    #[test]
    fn compressed_segments_are_planned_at_the_size_that_they_grow_to_when_it_is_turned_off() {
        let long = |n: u64| {
            let mut records = records(1, n * 5, n * 5 + 5);
            for record in &mut records {
                record.line.resize(50_000, b'l');
            }
            records
        };
        let parts: Vec<_> = (0..4).map(long).collect();
        let options = WriterOptions::default();
        let f = fixture_of_open(&parts, options);
        let stored: u64 = f.catalogue.snapshot().iter().map(|s| s.meta().file_bytes).sum();
        assert!(stored < 20_000, "{stored}");
        let tight = CompactionLimits { room_bytes: 900_000, ..limits() };
        let as_is = WriterOptions { compression: Compression::None, ..options };
        assert!(compact(&f.catalogue, &tight, as_is, &NEVER).unwrap().is_none(), "no room");
        let done = compact(&f.catalogue, &limits(), as_is, &NEVER).unwrap().unwrap();
        assert!(done.output.file_bytes >= 1_000_000, "not compressed any more");
        assert_eq!(contents(&f.catalogue), parts.concat());
    }

    #[test]
    fn a_cancelled_compaction_changes_nothing() {
        let parts: Vec<_> = (0..4).map(|n| records(1, n * 20, n * 20 + 20)).collect();
        let f = fixture(&parts, SMALL);
        let result = compact(&f.catalogue, &limits(), SMALL, &AtomicBool::new(true));
        assert!(matches!(result, Err(CompactionError::Cancelled)));
        assert_eq!(fs::read_dir(f.temp.path()).unwrap().count(), 4);
        assert_eq!(contents(&f.catalogue), parts.concat());
    }
}
