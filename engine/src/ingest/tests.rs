//! Log, registry and recovery together, on real files.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::check::check_segment;
use super::frame::{ALIGNMENT_MIN, FrameHeader, HEADER_BYTES};
use super::log::{Effect, Now, ShardLog, ShardLogOptions};
use super::recover::{Note, Recovered, recover};
use super::registry::{ClaimLimits, Registry, RegistryOptions};
use super::segment::{SegmentState, file_name, parse_file_name};
use super::tail;
use super::topics::{TopicChoice, TopicSet};
use crate::chunk::Part;
use crate::damage::Damage;
use crate::limits::{FRAME_TABLE_BYTES_MAX, TAIL_SLOT_BYTES};
use crate::run_table::{Run, RunTable};
use crate::storage::{Open, OsStorage, Storage};
use crate::topic::Topic;
use crate::ulid::Ulid;

type Records = BTreeMap<Ulid, Vec<u8>>;

const ALL: ClaimLimits = ClaimLimits { segments_max: usize::MAX, text_bytes_max: u64::MAX };

/// In memory where the machine has such a place: thousands of syncs are not what is tested.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).unwrap()
}

fn options(directory: &Path) -> RegistryOptions {
    /// Every start has its own, as a node has.
    static SEED: AtomicU64 = AtomicU64::new(42);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    RegistryOptions {
        flush_size_bytes: 64 << 10,
        pool_bytes_max: 4 << 20,
        ..RegistryOptions::new(Arc::new(OsStorage), directory.to_path_buf(), seed)
    }
}

fn recovered(directory: &Path) -> Recovered {
    recover(options(directory), &HashSet::new(), 9_000_000).unwrap()
}

/// What a part gives, and what it says is damaged.
fn read_part(part: &dyn Part) -> (Records, Vec<Damage>) {
    let mut records = Records::new();
    let open = match part.open() {
        Ok(open) => open,
        Err(damage) => return (records, vec![damage]),
    };
    let mut damage = open.damage().to_vec();
    for index in 0..open.chunks().len() {
        match open.read(index) {
            Err(found) => {
                assert!(open.verify(index).is_err());
                damage.push(found);
            }
            Ok(chunk) => {
                assert_eq!(open.verify(index), Ok(()));
                assert_eq!(open.read_table(index).unwrap(), chunk.table);
                for (run, span) in chunk.table.spans() {
                    let lines = chunk.text[span].split_inclusive(|&b| b == b'\n');
                    for (i, line) in lines.enumerate() {
                        let before = records.insert(run.first.plus(i as u64), line.to_vec());
                        assert_eq!(before, None, "a record is in a part once");
                    }
                }
            }
        }
    }
    (records, damage)
}

/// Everything in a registry; damage is not expected.
fn read_all(registry: &Registry) -> Records {
    let mut all = Records::new();
    for segment in registry.snapshot() {
        let (records, damage) = read_part(&*segment);
        assert_eq!(damage, []);
        assert_eq!(segment.records(), records.len() as u64);
        all.extend(records);
    }
    all
}

/// A shard whose effects are carried out at once.
struct Shard {
    log: ShardLog,
    tail: Arc<dyn crate::storage::File>,
    now: Now,
    appended: Records,
}

impl Shard {
    fn start(registry: &Registry, newest_ms: u64, stream: u64) -> Self {
        let directory = &registry.options().directory;
        let tail_path = tail::prepare(&OsStorage, directory, 0).unwrap();
        let options = ShardLogOptions {
            segment_flush_size_bytes: registry.options().flush_size_bytes,
            ..ShardLogOptions::new(Arc::new(TopicSet::new(9)))
        };
        Self {
            log: ShardLog::new(options, stream, newest_ms),
            tail: OsStorage.open(&tail_path, Open::Write).unwrap(),
            now: Now { monotonic_us: 1_000_000, wall_ms: 1_700_000_000_000 },
            appended: Records::new(),
        }
    }

    fn append(&mut self, lines: &str) {
        let topic = TopicChoice::Static(Topic::new(b"web").unwrap());
        let stamped = self.log.append(lines.as_bytes(), &topic, self.now);
        for (i, line) in lines.as_bytes().split_inclusive(|&b| b == b'\n').enumerate() {
            self.appended.insert(stamped.first.plus(i as u64), line.to_vec());
        }
    }

    fn advance(&mut self, us: u64) {
        self.now.monotonic_us += us;
        self.now.wall_ms += us / 1000;
    }

    fn work(&mut self, registry: &Registry) {
        let storage = &registry.options().storage;
        while let Some(effect) = self.log.next_effect(self.now) {
            match effect {
                Effect::WantSegment => {
                    let made = registry.prepare(1, self.now.wall_ms).unwrap();
                    self.log.on_segment(made.into_iter().next().unwrap());
                }
                Effect::Write { token, segment, offset_bytes, frame } => {
                    let file = storage.open(&segment.path(), Open::Write).unwrap();
                    file.write_all_at(frame.as_bytes(), offset_bytes).unwrap();
                    self.log.on_written(token, Ok(frame.as_bytes().len()));
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    self.tail.write_all_at(&bytes, offset_bytes).unwrap();
                    self.log.on_tail_written(token, Ok(bytes.len()));
                }
                Effect::Sync { token, .. } => self.log.on_synced(token, Ok(())),
                Effect::Seal { segment, len_bytes } => {
                    registry.flush(&segment, len_bytes, self.now.wall_ms).unwrap();
                }
                Effect::Abandon { error, .. } => panic!("{error}"),
            }
        }
    }

    fn stop(&mut self, registry: &Registry) {
        self.log.shut_down();
        self.work(registry);
        assert!(self.log.is_idle());
    }
}

fn lines(count: usize, len: usize) -> String {
    let lines: Vec<String> = (0..count).map(|i| format!("{i:0len$}\n")).collect();
    lines.concat()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn states(directory: &Path) -> Vec<SegmentState> {
    let mut states: Vec<SegmentState> =
        names(directory).iter().filter_map(|n| Some(parse_file_name(n)?.1)).collect();
    states.sort();
    states
}

#[test]
fn after_a_kill_every_flushed_record_is_found_again_once() {
    let directory = scratch();
    let mut registry = recovered(directory.path()).registry;
    let mut all = Records::new();
    let mut newest_ms = 0;
    for life in 0..4 {
        let mut shard = Shard::start(&registry, newest_ms, 100 + life);
        for round in 0..3 {
            shard.append(&lines(if round == 1 { 2500 } else { 3 }, 40));
            shard.work(&registry);
            shard.advance(20_000);
            shard.work(&registry);
        }
        all.append(&mut shard.appended.clone());
        // Killed here: nothing is sealed.
        drop(shard);
        let found = recovered(directory.path());
        assert!(found.report.is_empty(), "{:?}", found.report);
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        assert_eq!(found.tail_records, 3, "the youngest were in the tail file only");
        assert_eq!(read_all(&found.registry), all);
        newest_ms = found.newest_ms;
        assert_eq!(newest_ms, all.keys().last().unwrap().ms());
        let again = recovered(directory.path());
        assert_eq!(read_all(&again.registry), all, "recovering twice changes nothing");
        assert_eq!(again.tail_records, 0);
        registry = again.registry;
    }
}

#[test]
fn a_clean_stop_seals_everything_and_leaves_no_unused_file_behind() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append(&lines(5000, 30));
    shard.work(&registry);
    shard.advance(30_000);
    shard.stop(&registry);
    assert_eq!(shard.log.durable_end(), 5000);
    let all = shard.appended.clone();
    assert_eq!(read_all(&registry), all);
    assert!(registry.list().iter().all(|row| row.state == SegmentState::Flushed));
    let found = recovered(directory.path());
    assert_eq!((found.tail_records, found.torn_bytes()), (0, 0));
    assert_eq!(read_all(&found.registry), all);
    assert_eq!(found.registry.pool_bytes(), 0);
    assert!(!states(directory.path()).contains(&SegmentState::Active), "unused files are removed");
}

#[test]
fn a_segment_lives_from_prepared_to_recycled() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append(&lines(900, 999));
    shard.work(&registry);
    shard.advance(20_000);
    shard.stop(&registry);
    let all = shard.appended.clone();
    drop(shard);

    let claim = registry.claim(ALL, 1000);
    assert!(claim.errors.is_empty());
    let ids: Vec<Ulid> = claim.segments.iter().map(|s| s.id()).collect();
    drop(claim);
    assert_eq!(registry.claim(ALL, 1000).segments.len(), 0, "claimed once");
    assert_eq!(read_all(&registry), all, "pending ones are still found");
    assert_eq!(registry.expire(1000 + 59_999).0, []);
    let (late, errors) = registry.expire(1000 + 60_000);
    assert_eq!((late, errors.len()), (ids.clone(), 0));
    assert_eq!(registry.commit(&ids, 70_000).len(), 0);
    assert_eq!(read_all(&registry), all, "an expired claim commits nothing");

    let claim = registry.claim(ALL, 80_000);
    let pin = Arc::clone(&claim.segments[0]);
    drop(claim);
    assert!(registry.commit(&ids, 80_000).is_empty());
    assert!(registry.snapshot().is_empty());
    assert_eq!(registry.backlog_bytes(), 0);
    let (pinned, damage) = read_part(&*pin);
    assert_eq!((pinned, damage), (all, vec![]), "a reader keeps what it holds");
    assert!(registry.sweep(80_000).is_empty());
    assert_eq!(states(directory.path()).iter().filter(|&&s| s == SegmentState::Pending).count(), 1);
    let pooled_before = registry.pool_bytes();
    drop(pin);
    assert!(registry.sweep(80_000).is_empty());
    assert_eq!(states(directory.path()), [SegmentState::Active; 2]);
    assert!(registry.pool_bytes() > pooled_before);

    let pooled = registry.pool_bytes();
    let again = registry.prepare(1, 90_000).unwrap();
    assert!(registry.pool_bytes() < pooled, "the file is used again");
    assert!(!ids.contains(&again[0].id()), "under a new name");
    assert!(again[0].path().exists());
    assert_eq!(read_part(&*again[0]), (Records::new(), vec![]), "and nothing of it comes back");
    let found = recovered(directory.path());
    assert!(found.registry.snapshot().is_empty());
    assert!(found.notes.is_empty() && found.report.is_empty());
}

#[test]
fn a_file_in_which_a_sync_failed_or_that_was_found_at_start_is_not_used_again() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("one\n");
    shard.log.want_durable();
    let mut abandoned = None;
    while abandoned.is_none() {
        match shard.log.next_effect(shard.now).expect("the failure is dealt with") {
            Effect::WantSegment => {
                let made = registry.prepare(1, 1).unwrap();
                shard.log.on_segment(made.into_iter().next().unwrap());
            }
            Effect::Write { token, segment, offset_bytes, frame } => {
                let file = OsStorage.open(&segment.path(), Open::Write).unwrap();
                file.write_all_at(frame.as_bytes(), offset_bytes).unwrap();
                shard.log.on_written(token, Ok(frame.as_bytes().len()));
            }
            Effect::Sync { token, .. } => {
                shard.log.on_synced(token, Err(std::io::ErrorKind::Other.into()));
            }
            Effect::Abandon { segment, len_bytes, .. } => {
                registry.flush(&segment, len_bytes, 1).unwrap();
                abandoned = Some(segment.id());
            }
            other => panic!("{other:?}"),
        }
    }
    let id = abandoned.unwrap();
    assert_eq!(registry.claim(ALL, 1).segments.len(), 1);
    let pooled = registry.pool_bytes();
    assert!(registry.commit(&[id], 1).is_empty());
    assert_eq!(registry.pool_bytes(), pooled);
    assert!(!states(directory.path()).contains(&SegmentState::Pending), "it is gone");
    // The record is rewritten elsewhere.
    shard.advance(6_000_000);
    shard.stop(&registry);
    let found = recovered(directory.path());
    assert_eq!(read_all(&found.registry), shard.appended);
    let ids: Vec<Ulid> = found.registry.list().iter().map(|row| row.id).collect();
    drop(found.registry.claim(ALL, 1));
    assert!(found.registry.commit(&ids, 1).is_empty());
    assert_eq!((found.registry.list().len(), found.registry.pool_bytes()), (0, 0));
}

#[test]
fn the_pool_is_bounded_and_prepare_makes_durable_names_for_the_rest() {
    let directory = scratch();
    let registry = Registry::new(options(directory.path()));
    let file_bytes = registry.options().file_bytes();
    let made = registry.prepare(6, 1).unwrap();
    assert_eq!(made.len(), 6);
    for segment in &made {
        assert_eq!(fs::metadata(segment.path()).unwrap().len(), file_bytes);
        registry.flush(segment, 0, 1).unwrap();
    }
    assert_eq!(registry.pool_bytes(), (4 << 20) / file_bytes * file_bytes);
    let kept = usize::try_from((4 << 20) / file_bytes).unwrap();
    assert_eq!(names(directory.path()).len(), kept);
}

#[test]
fn claims_take_the_oldest_records_first_within_their_limits() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..6 {
        shard.append(&lines(1000, 99));
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
    }
    shard.stop(&registry);
    let limits = ClaimLimits { segments_max: 2, text_bytes_max: u64::MAX };
    let mut order = Vec::new();
    loop {
        let claim = registry.claim(limits, 5);
        assert!(claim.segments.len() <= 2);
        if claim.segments.is_empty() {
            break;
        }
        order.extend(claim.segments.iter().map(|s| s.range().0));
    }
    assert_eq!(order.len(), 6);
    assert!(order.is_sorted());
    let ids: Vec<Ulid> = registry.list().iter().map(|row| row.id).collect();
    assert!(registry.fail(&ids).is_empty());
    let tiny = ClaimLimits { segments_max: 9, text_bytes_max: 1 };
    assert_eq!(registry.claim(tiny, 5).segments.len(), 1, "one is always allowed");
}

#[test]
fn a_segment_whose_file_was_deleted_is_told_once_and_costs_no_other() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..2 {
        shard.append(&lines(1000, 99));
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
    }
    shard.stop(&registry);
    let gone = registry.snapshot().remove(0);
    fs::remove_file(gone.path()).unwrap();
    assert!(gone.open().is_err());
    let claim = registry.claim(ALL, 5);
    assert_eq!((claim.segments.len(), claim.errors.len()), (1, 1));
    registry.fail(&[claim.segments[0].id()]);
    let claim = registry.claim(ALL, 5);
    assert_eq!((claim.segments.len(), claim.errors.len()), (1, 0));
}

#[test]
fn a_small_segment_that_waits_gives_its_unused_space_back() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("small\n");
    shard.stop(&registry);
    let flushed_ms = shard.now.wall_ms;
    let segment = registry.snapshot().remove(0);
    let len = || fs::metadata(segment.path()).unwrap().len();
    assert_eq!(len(), registry.options().file_bytes());
    registry.sweep(flushed_ms + 9_999);
    assert_eq!(len(), registry.options().file_bytes());
    drop(registry.claim(ALL, 5));
    registry.sweep(flushed_ms + 10_000);
    assert_eq!(len(), registry.options().file_bytes(), "somebody is about to store it");
    registry.fail(&[segment.id()]);
    registry.sweep(flushed_ms + 20_000);
    assert_eq!(len(), segment.written_len());
    assert_eq!(read_all(&registry), shard.appended);
}

#[test]
fn a_flush_that_failed_is_tried_again() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("one\n");
    shard.work(&registry);
    let active = directory
        .path()
        .join(names(directory.path()).into_iter().find(|n| n.ends_with(".active")).unwrap());
    let id = parse_file_name(active.file_name().unwrap().to_str().unwrap()).unwrap().0;
    // A folder in the way of the new name, with something in it, refuses the rename.
    let obstacle = directory.path().join(file_name(id, SegmentState::Flushed));
    fs::create_dir_all(obstacle.join("x")).unwrap();
    shard.log.shut_down();
    let mut sealed = None;
    while let Some(effect) = shard.log.next_effect(shard.now) {
        match effect {
            Effect::Write { token, segment, offset_bytes, frame } => {
                let file = OsStorage.open(&segment.path(), Open::Write).unwrap();
                file.write_all_at(frame.as_bytes(), offset_bytes).unwrap();
                shard.log.on_written(token, Ok(frame.as_bytes().len()));
            }
            Effect::Sync { token, .. } => shard.log.on_synced(token, Ok(())),
            Effect::Seal { segment, len_bytes } if len_bytes > 0 => {
                sealed = Some((segment, len_bytes));
            }
            Effect::WriteTail { token, bytes, .. } => {
                shard.log.on_tail_written(token, Ok(bytes.len()));
            }
            _ => {}
        }
    }
    let (segment, len_bytes) = sealed.unwrap();
    assert!(registry.flush(&segment, len_bytes, 1).is_err());
    assert_eq!(registry.sweep(2).len(), 1);
    assert_eq!(read_all(&registry), shard.appended, "it stays readable meanwhile");
    fs::remove_dir_all(&obstacle).unwrap();
    assert_eq!(registry.sweep(3).len(), 0);
    assert_eq!(segment.state(), SegmentState::Flushed);
    assert_eq!(registry.claim(ALL, 4).segments.len(), 1);
}

#[test]
fn a_damaged_segment_is_set_aside_and_stays_through_restarts() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("one\n");
    shard.stop(&registry);
    let id = registry.claim(ALL, 5).segments[0].id();
    registry.set_aside(id).unwrap();
    assert!(registry.snapshot().is_empty());
    let found = recovered(directory.path());
    assert!(found.registry.snapshot().is_empty());
    assert!(directory.path().join(file_name(id, SegmentState::Damaged)).exists());
}

#[test]
fn what_is_not_ours_is_left_alone_and_told_once() {
    let directory = scratch();
    let at = |name: &str| directory.path().join(name);
    let id = Ulid::from_parts(5, 6, 7);
    let foreign = [
        "notes.txt".to_owned(),
        "x.flushed".to_owned(),
        "01ARZ3NDEKTSV4RRFFQ69G5FAV.other".to_owned(),
        "01arz3ndektsv4rrffq69g5fav.flushed".to_owned(),
        "shard-01.tail".to_owned(),
        file_name(id, SegmentState::Active),
        file_name(id.plus(1), SegmentState::Flushed),
    ];
    for name in &foreign {
        fs::write(at(name), b"something that somebody keeps here\n".repeat(9)).unwrap();
    }
    let empty = [file_name(id.plus(2), SegmentState::Active), "empty".to_owned()];
    for name in &empty {
        fs::write(at(name), b"").unwrap();
    }
    let folders = [file_name(id.plus(3), SegmentState::Pending), "shard-0.tail".to_owned()];
    for name in &folders {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("LOCK"), b"1\n").unwrap();
    let before = names(directory.path());
    let found = recovered(directory.path());
    assert_eq!(names(directory.path()), before);
    let told: HashSet<PathBuf> = found
        .notes
        .iter()
        .map(|note| match note {
            Note::Unknown(path) => path.clone(),
            other => panic!("{other}"),
        })
        .collect();
    let expected: HashSet<PathBuf> =
        foreign.iter().chain(&empty).chain(&folders).map(|name| at(name)).collect();
    assert_eq!(told, expected);
    assert_eq!(found.notes.len(), expected.len());
    for name in &foreign {
        assert_eq!(fs::read(at(name)).unwrap().len(), 9 * 35);
    }
}

#[test]
fn segments_that_the_store_has_are_not_brought_back_nor_are_their_tail_chunks() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("old\n");
    shard.work(&registry);
    shard.advance(20_000);
    shard.work(&registry);
    let with_old_in_it = fs::read(directory.path().join(tail::file_name(0))).unwrap();
    shard.append(&lines(900, 99));
    shard.work(&registry);
    shard.advance(20_000);
    shard.work(&registry);
    shard.append("young\n");
    shard.advance(20_000);
    shard.work(&registry);
    let stored: HashSet<u128> = registry.list().iter().map(|row| row.id.0).collect();
    // The slot of the frame that has become part of the segment, once more.
    let tail_path = directory.path().join(tail::file_name(0));
    let mut bytes = fs::read(&tail_path).unwrap();
    bytes[..TAIL_SLOT_BYTES].copy_from_slice(&with_old_in_it[..TAIL_SLOT_BYTES]);
    fs::write(&tail_path, bytes).unwrap();
    let found = recover(options(directory.path()), &stored, 5).unwrap();
    let left: Vec<Vec<u8>> = read_all(&found.registry).into_values().collect();
    assert_eq!(left, [b"young\n"], "which was in no frame that the store could take");
    assert!(found.notes.iter().all(|n| matches!(n, Note::AlreadyStored(_))));
    assert_eq!(found.notes.len(), stored.len());
    assert_eq!(states(directory.path()), [SegmentState::Flushed]);
}

#[test]
fn a_tail_file_with_records_that_could_not_be_saved_is_not_emptied() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("young\n");
    shard.work(&registry);
    shard.advance(20_000);
    shard.work(&registry);
    assert!(tail::prepare(&OsStorage, directory.path(), 0).is_err());
    assert_eq!(recovered(directory.path()).tail_records, 1);
    assert!(tail::prepare(&OsStorage, directory.path(), 0).is_ok());
}

/// A flushed file of three frames, its bytes, and each frame's span and records.
struct Specimen {
    path: PathBuf,
    bytes: Vec<u8>,
    frames: Vec<(std::ops::Range<usize>, std::ops::Range<usize>, Records)>,
}

fn specimen(directory: &Path) -> Specimen {
    let registry = recovered(directory).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("start\n");
    shard.work(&registry);
    for round in ["a", "b", "c"] {
        shard.append(&format!("{round} one\n{round}\n\n{round} the third\n"));
        shard.log.want_durable();
        shard.work(&registry);
    }
    shard.stop(&registry);
    let segment = registry.snapshot().remove(0);
    let path = segment.path();
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(segment.written_len() as usize);
    let all = read_part(&*segment).0;
    assert_eq!(all, shard.appended);
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let header = FrameHeader::decode(&bytes[at..]).unwrap();
        let own = all.range(header.first..=header.last);
        let own = own.map(|(k, v)| (*k, v.clone())).collect();
        let own = if header.record_count == 0 { Records::new() } else { own };
        frames.push((at..at + header.table_span().end, at..at + header.len_bytes as usize, own));
        at += header.len_bytes as usize;
    }
    assert_eq!(frames.len(), 4);
    for name in names(directory) {
        fs::remove_file(directory.join(name)).unwrap();
    }
    Specimen { path, bytes, frames }
}

/// Recovers a directory that holds just these bytes; compares with what must be left.
fn check_damaged(specimen: &Specimen, bytes: &[u8], state: SegmentState, what: &str) {
    let directory = specimen.path.parent().unwrap();
    let id = parse_file_name(specimen.path.file_name().unwrap().to_str().unwrap()).unwrap().0;
    fs::write(directory.join(file_name(id, state)), bytes).unwrap();
    let found = recovered(directory);
    let mut damage = found.report;
    damage.extend(found.torn);
    let mut left = Records::new();
    for segment in found.registry.snapshot() {
        let (records, more) = read_part(&*segment);
        left.extend(records);
        damage.extend(more);
    }
    let mut lost = 0;
    for (payload, _, records) in &specimen.frames {
        let is_intact = bytes.get(payload.clone()) == Some(&specimen.bytes[payload.clone()]);
        for (ulid, record) in records {
            if let Some(found) = left.remove(ulid) {
                assert_eq!(&found, record, "{what}");
            } else {
                assert!(!is_intact, "{what}: a record of an undamaged frame is lost");
                lost += 1;
            }
        }
    }
    assert!(left.is_empty(), "{what}: records are invented");
    let is_told = !damage.is_empty() || !found.notes.is_empty();
    assert!(lost == 0 || is_told, "{what}: {lost} records are lost and not told");
    for name in names(directory) {
        fs::remove_file(directory.join(name)).unwrap();
    }
}

#[test]
fn every_flipped_byte_of_a_segment_costs_at_most_its_frame_and_is_told() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    for at in 0..specimen.bytes.len() {
        let mut bytes = specimen.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let states = [SegmentState::Flushed, SegmentState::Active, SegmentState::Pending];
        check_damaged(&specimen, &bytes, states[at % 3], &format!("flip at {at}"));
        if at % ALIGNMENT_MIN < HEADER_BYTES {
            check_damaged(&specimen, &bytes, SegmentState::Flushed, &format!("flip at {at}"));
        }
    }
}

#[test]
fn every_cut_of_a_segment_costs_what_is_behind_it_and_is_told() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    for len in 0..specimen.bytes.len() {
        let states = [SegmentState::Flushed, SegmentState::Active];
        for state in states {
            let what = format!("{state:?} cut to {len}");
            check_damaged(&specimen, &specimen.bytes[..len], state, &what);
        }
    }
}

#[test]
fn every_flipped_byte_and_cut_of_a_tail_file_invents_nothing_and_keeps_the_segments() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for round in ["a", "b"] {
        shard.append(&format!("{round} one\n{round}\n"));
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
    }
    let tail_path = directory.path().join(tail::file_name(0));
    let bytes = fs::read(&tail_path).unwrap();
    let used = bytes.iter().rposition(|&b| b != 0).unwrap() + 1;
    assert!(used < 400, "two chunks in the first slot");
    for name in names(directory.path()) {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    let mut best = 0;
    for at in 0..2 * used {
        let mut damaged = bytes.clone();
        if at < used {
            damaged[at] ^= 1 << (at % 8);
        } else {
            damaged.truncate(at - used);
        }
        fs::write(&tail_path, &damaged).unwrap();
        let found = recovered(directory.path());
        let left = read_all(&found.registry);
        best = best.max(left.len());
        assert!(left.iter().all(|(ulid, record)| shard.appended.get(ulid) == Some(record)));
        assert!(at >= used || left.len() < 4, "a flip at {at} goes unnoticed");
        assert!(!left.is_empty() || at >= used || !found.report.is_empty(), "{at} is told");
        for name in names(directory.path()) {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
    }
    assert_eq!(best, 2, "a whole first chunk survives damage to the second");
}

#[test]
fn a_tail_slot_counts_when_its_frame_got_no_further_than_its_header() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    let (_, span, records) = &specimen.frames[1];
    let mut bytes = specimen.bytes.clone();
    let header = FrameHeader::decode(&bytes[span.clone()]).unwrap();
    let table = header.check_payload(&bytes[span.clone()]).unwrap();
    let text = bytes[span.clone()][header.text_span()].to_vec();
    bytes[span.start + HEADER_BYTES] ^= 1;
    fs::write(&specimen.path, &bytes).unwrap();
    let (incarnation, frame_number) = (header.incarnation, header.number);
    let place = tail::ChunkPlace { incarnation, frame_number, chunk_number: 0 };
    let tail_path = directory.path().join(tail::file_name(0));
    fs::write(&tail_path, tail::encode_chunk(&place, &table, &text)).unwrap();
    let found = recovered(directory.path());
    assert_eq!(found.tail_records, records.len() as u64);
    let mut left = Records::new();
    for segment in found.registry.snapshot() {
        left.extend(read_part(&*segment).0);
    }
    let all: Records = specimen.frames.iter().flat_map(|(_, _, own)| own.clone()).collect();
    assert_eq!(left, all);
}

#[test]
fn a_tail_slot_full_of_runs_is_saved_whole() {
    let directory = scratch();
    let mut table = RunTable::default();
    let mut text = Vec::new();
    for i in 0..14_000u64 {
        let name = format!("t{}", i % 700);
        let topic = table.topic_index(&Topic::new(name.as_bytes()).unwrap()).unwrap();
        // Each from a stream of its own: no shard does that, but a file may say so.
        table.push(Run { first: Ulid::from_parts(5, i, 0), count: 1, text_len: 1, topic });
        text.push(b'\n');
    }
    let place = tail::ChunkPlace { incarnation: 1, frame_number: 0, chunk_number: 0 };
    let chunk = tail::encode_chunk(&place, &table, &text);
    assert!(chunk.len() > FRAME_TABLE_BYTES_MAX && chunk.len() < TAIL_SLOT_BYTES);
    fs::write(directory.path().join(tail::file_name(3)), &chunk).unwrap();
    let found = recovered(directory.path());
    assert_eq!(found.tail_records, 14_000);
    assert_eq!(read_all(&found.registry).len(), 14_000);
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_frame_and_frames_of_an_earlier_life_stay_gone() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    let id = parse_file_name(specimen.path.file_name().unwrap().to_str().unwrap()).unwrap().0;
    let second = &specimen.frames[1].1;
    let mut bytes = specimen.bytes[..second.end].to_vec();
    // The second frame is torn at a sector; behind it lies an earlier life.
    bytes[second.start + 120..].fill(0x55);
    let mut earlier = specimen.bytes[specimen.frames[2].1.clone()].to_vec();
    let mut header = FrameHeader::decode(&earlier).unwrap();
    header.incarnation ^= 1;
    earlier[..HEADER_BYTES].copy_from_slice(&header.encode());
    bytes.extend_from_slice(&earlier);
    fs::write(directory.path().join(file_name(id, SegmentState::Active)), &bytes).unwrap();
    let found = recovered(directory.path());
    assert_eq!(found.report, []);
    assert_eq!(found.torn_bytes(), second.len() as u64);
    assert_eq!(read_all(&found.registry), specimen.frames[0].2);
    assert_eq!(names(directory.path()), [file_name(id, SegmentState::Flushed)]);
}

#[test]
fn a_torn_frame_whose_records_a_tail_file_has_loses_nothing() {
    for (more, expected) in [("", Some(0)), ("not flushed\nto it\n", Some(2))] {
        let directory = scratch();
        let registry = recovered(directory.path()).registry;
        let mut shard = Shard::start(&registry, 0, 5);
        shard.append("one\ntwo\nthree\n");
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
        let saved = shard.appended.clone();
        if !more.is_empty() {
            shard.append(more);
        }
        shard.log.want_durable();
        shard.work(&registry);
        drop(shard);
        let id = registry.snapshot()[0].id();
        let path = directory.path().join(file_name(id, SegmentState::Active));
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEADER_BYTES] ^= 1;
        fs::write(&path, bytes).unwrap();

        let checked = check_segment(&OsStorage, &path, id, SegmentState::Active).unwrap();
        let found = recovered(directory.path());
        assert_eq!(checked.damage, found.torn);
        assert_eq!(found.torn.iter().map(|t| t.records).collect::<Vec<_>>(), [expected]);
        assert_eq!(found.torn[0].loses_records(), expected != Some(0));
        assert_eq!(read_all(&found.registry), saved);
        assert_eq!(recovered(directory.path()).torn, [], "told once");
    }
}

#[path = "fuzz_tests.rs"]
mod fuzz;
