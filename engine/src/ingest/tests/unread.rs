//! What cannot be read is neither empty nor torn nor gone: it stays as it is, is told, and comes back.

use super::*;
use crate::limits::{UNREAD_GIVEN_UP_MS, UNREAD_PAUSE_MS_MAX, WORSE_PAUSE_MS};
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};

pub(super) const INGEST: &str = "/ingest";

pub(super) fn disk() -> SimStorage {
    let sim = SimStorage::new(7);
    sim.create_dir_all(Path::new(INGEST)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

pub(super) fn recovered_on(sim: &SimStorage) -> Recovered {
    let storage = Arc::new(sim.clone());
    let options = RegistryOptions { storage, ..options(Path::new(INGEST)) };
    recover(options, &HashMap::new(), 1_700_000_000_000).unwrap()
}

pub(super) fn segment_files(sim: &SimStorage) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e != "tail");
    sim.files().into_iter().filter(is_segment).collect()
}

/// Some frames of records, and a shard that was killed or stopped behind them.
fn written(sim: &SimStorage, is_killed: bool) -> Records {
    let registry = recovered_on(sim).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..40 {
        shard.append(&lines(2, 300));
        shard.log.want_durable();
        shard.work(&registry);
    }
    if !is_killed {
        shard.stop(&registry);
    }
    shard.appended
}

/// What the registry shows; what it lacks is covered by what it says is lost.
fn check_told(registry: &Registry, all: &Records) -> Records {
    let pinned = registry.pin();
    let (mut found, mut lost) = (Records::new(), pinned.lost);
    for segment in &pinned.segments {
        let (records, damage) = read_part(&**segment);
        found.extend(records);
        lost.extend(damage);
    }
    for (ulid, record) in all {
        let is_told = lost.iter().any(|d| d.range.is_none_or(|(a, b)| (a..=b).contains(ulid)));
        assert!(found.get(ulid).is_none_or(|found| found == record), "{ulid} is altered");
        assert!(found.contains_key(ulid) || is_told, "{ulid} is missing in silence");
    }
    assert!(found.keys().all(|ulid| all.contains_key(ulid)), "invented");
    found
}

#[test]
fn a_span_that_cannot_be_read_costs_no_more_than_itself_and_comes_back() {
    for is_killed in [true, false] {
        let whole = disk();
        let all = written(&whole, is_killed);
        let path = segment_files(&whole)
            .into_iter()
            .find(|path| whole.read_file(path).unwrap().starts_with(&crate::ingest::frame::MAGIC));
        let path = path.unwrap();
        let end = whole.read_file(&path).unwrap().len() as u64;
        let spans =
            [0..end, 0..1, 512..5_000, 4_096..8_192, 8_192..end, 30_000..30_001, 70_000..end];
        for span in spans {
            let sim = whole.kill();
            let before = sim.read_file(&path).unwrap();
            sim.make_unreadable(&path.to_string_lossy(), span.clone());
            let found = recovered_on(&sim);
            assert_eq!(sim.read_file(&path).unwrap(), before, "{span:?}: the file stays as it is");
            let left = check_told(&found.registry, &all);
            let is_met = !found.registry.pin().lost.is_empty();
            // Of a flushed one readers tell what they meet.
            assert!(is_met || !is_killed || left.len() == all.len(), "{span:?}");
            assert_eq!(is_met, found.report.iter().any(|d| d.refusal().is_some()), "{span:?}");
            if span.end < end && span.start > 0 {
                assert!(left.len() > all.len() / 2, "{span:?}: what is around it is found");
            }
            let mut now_ms = 0;
            for _ in 0..5 {
                now_ms += UNREAD_PAUSE_MS_MAX;
                assert_eq!(found.registry.look_again(now_ms).returned, [], "{span:?}");
                assert_eq!(sim.read_file(&path).unwrap(), before, "{span:?}");
                assert_eq!(check_told(&found.registry, &all), left, "{span:?}");
            }
            sim.make_readable();
            let returned = found.registry.look_again(now_ms + UNREAD_PAUSE_MS_MAX).returned;
            assert_eq!(returned.len(), usize::from(is_met), "{span:?}");
            assert_eq!(found.registry.pin().lost, [], "{span:?}");
            assert_eq!(read_all(&found.registry), all, "{span:?}");
            let again = recovered_on(&sim.kill());
            assert_eq!((again.report, read_all(&again.registry)), (vec![], all.clone()));
            assert_eq!(again.registry.claim(ALL, 1).segments.len(), 1);
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_known_and_comes_back() {
    for error in [FaultError::Io, FaultError::TooManyFiles, FaultError::NoMemory] {
        for is_killed in [true, false] {
            let sim = disk();
            let all = written(&sim, is_killed);
            let sim = sim.kill();
            let names = sim.files();
            sim.fail(Fault::random(Call::Open, 1.0, error));
            let found = recovered_on(&sim);
            assert_eq!(sim.files(), names, "{error:?}: nothing is renamed or removed");
            assert_eq!(check_told(&found.registry, &all), Records::new());
            assert!(found.registry.prepare_tail(0).is_err(), "its slots may hold records");
            found.registry.look_again(1);
            assert_eq!(found.registry.claim(ALL, 1).segments.len(), 0);
            sim.clear_faults();
            found.registry.look_again(1 + UNREAD_PAUSE_MS_MAX);
            assert_eq!((found.registry.pin().lost, read_all(&found.registry)), (vec![], all));
            assert!(found.registry.prepare_tail(0).is_ok());
        }
    }
}

/// A disk as a kill leaves it while a record is in the tail file alone, and that record.
fn killed_with_a_young_tail() -> (SimStorage, Records) {
    let sim = disk();
    let registry = recovered_on(&sim).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("young\n");
    shard.work(&registry);
    shard.advance(20_000);
    shard.work(&registry);
    (sim.kill(), shard.appended)
}

#[test]
fn a_tail_slot_that_cannot_be_read_is_neither_empty_nor_emptied() {
    let (sim, appended) = killed_with_a_young_tail();
    let path = Path::new(INGEST).join(tail::file_name(0));
    let before = sim.read_file(&path).unwrap();
    sim.make_unreadable(".tail", 0..1);
    let found = recovered_on(&sim);
    assert_eq!(found.tail_records, 0);
    assert_eq!(check_told(&found.registry, &appended), Records::new());
    assert!(found.registry.prepare_tail(0).is_err());
    assert!(tail::prepare(&sim, Path::new(INGEST), 0).is_err());
    assert_eq!(found.registry.look_again(1).tail_records, 0);
    assert_eq!(sim.read_file(&path).unwrap(), before);
    let checked = crate::ingest::check::check_tail(&sim, &path).unwrap();
    assert!(checked.damage[0].refusal().is_some());
    sim.make_readable();
    assert_eq!(found.registry.look_again(1 + UNREAD_PAUSE_MS_MAX).tail_records, 1);
    assert_eq!((found.registry.pin().lost, read_all(&found.registry)), (vec![], appended));
    assert!(found.registry.prepare_tail(0).is_ok());
}

#[test]
fn tail_records_that_cannot_be_saved_at_the_start_are_told_and_saved_later() {
    let (sim, appended) = killed_with_a_young_tail();
    sim.fail(Fault::random(Call::Create, 1.0, FaultError::NoSpace));
    let found = recovered_on(&sim);
    assert_eq!(check_told(&found.registry, &appended), Records::new());
    assert_eq!(found.registry.look_again(1).errors.len(), 1);
    sim.clear_faults();
    found.registry.look_again(1 + UNREAD_PAUSE_MS_MAX);
    assert_eq!((found.registry.pin().lost, read_all(&found.registry)), (vec![], appended));
}

#[test]
fn a_segment_that_a_consumer_could_not_read_is_offered_again_when_it_can_be() {
    let sim = disk();
    let all = written(&sim, false);
    let sim = sim.kill();
    let registry = recovered_on(&sim).registry;
    let refuse = |now_ms: u64| {
        let claim = registry.claim(ALL, now_ms);
        let segment = claim.segments.first()?;
        let damage = segment.open_to_move().err();
        let is_partly_taken = segment.is_partly_taken();
        registry.note_unread(claim.token, segment.id(), &[damage.expect("it is refused")], now_ms);
        assert!(registry.fail(claim.token).errors.is_empty());
        Some(is_partly_taken)
    };
    for error in [FaultError::TooManyFiles, FaultError::Io] {
        sim.fail(Fault::random(Call::Open, 1.0, error));
        assert_eq!(refuse(0), Some(false));
        assert!(!registry.pin().lost.is_empty());
        let mut offered = Vec::new();
        for now_ms in (0..UNREAD_GIVEN_UP_MS + 20_000).step_by(1_000) {
            registry.look_again(now_ms);
            offered.extend(refuse(now_ms));
            if offered == [true] {
                break;
            }
        }
        // What the process lacks is never held against a file.
        let is_given_up = error == FaultError::Io;
        assert_eq!(offered, vec![true; usize::from(is_given_up)], "{error:?}");
        sim.clear_faults();
        registry.look_again(2 * UNREAD_GIVEN_UP_MS);
        assert_eq!((registry.pin().lost, read_all(&registry)), (vec![], all.clone()));
    }
    let claim = registry.claim(ALL, 0);
    assert_eq!(claim.segments.len(), 1);
    assert!(!claim.segments[0].is_partly_taken());
}

#[test]
fn what_was_set_aside_comes_back_when_it_reads_well_and_goes_when_it_has_expired() {
    for comes_back in [true, false] {
        let sim = disk();
        let all = written(&sim, false);
        let newest = *all.keys().last().unwrap();
        let sim = sim.kill();
        let registry = recovered_on(&sim).registry;
        let claim = registry.claim(ALL, 0);
        let id = claim.segments[0].id();
        sim.make_unreadable(&id.to_string(), 4_096..4_097);
        let open = registry.held(id).unwrap().open_to_move().unwrap();
        let unread = (0..open.chunks().len()).filter_map(|index| open.read(index).err());
        let damage: Vec<Damage> = open.damage().iter().cloned().chain(unread).collect();
        let stored = taken_of(&registry, id);
        assert!(registry.set_aside(claim.token, &stored, &damage).unwrap());
        // By the name that it has now.
        let path = registry.held(id).unwrap().path();
        let told = damage.into_iter().map(|damage| Damage { path: path.clone(), ..damage });
        assert_eq!(registry.pin().lost, told.collect::<Vec<_>>());
        // Over restarts, too.
        for found in [registry, recovered_on(&sim).registry, recovered_on(&sim).registry] {
            found.look_again(1);
            assert_eq!(found.list()[0].state, SegmentState::Damaged);
            assert!(!found.pin().lost.is_empty() && found.pin().segments.is_empty());
            assert_eq!(found.expire_unread(newest.ms()).0, Vec::<PathBuf>::new());
        }
        let found = recovered_on(&sim).registry;
        if comes_back {
            sim.make_readable();
            assert_eq!(found.look_again(UNREAD_PAUSE_MS_MAX).returned, [id]);
            assert_eq!((found.pin().lost, read_all(&found)), (vec![], all.clone()));
        } else {
            assert_eq!(found.expire_unread(newest.ms() + 86_400_000).0.len(), 1);
            assert_eq!((found.pin().lost, found.list()), (vec![], vec![]));
        }
    }
}

#[test]
fn a_directory_that_is_elsewhere_for_a_while_costs_nothing() {
    let parent = scratch();
    let (home, away) = (parent.path().join("ingest"), parent.path().join("elsewhere"));
    let registry = recovered(&home).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for round in 0..3 {
        shard.append(&lines(700, 99));
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
        if round == 0 {
            let claim = registry.claim(ALL, 0);
            assert_eq!(claim.segments.len(), 1);
        }
    }
    shard.stop(&registry);
    let all = shard.appended.clone();
    fs::rename(&home, &away).unwrap();
    assert!(check_told(&registry, &all).is_empty());
    let claim = registry.claim(ALL, 0);
    assert!(claim.segments.is_empty() && !claim.errors.is_empty());
    assert!(registry.claim(ALL, 0).errors.is_empty(), "told once");
    assert_eq!(registry.expire(1_000_000).1.len(), 1, "the one that was claimed before");
    for now_ms in [1, UNREAD_PAUSE_MS_MAX] {
        assert_eq!(registry.look_again(now_ms).returned, []);
    }
    assert!(check_told(&registry, &all).is_empty());
    fs::rename(&away, &home).unwrap();
    registry.look_again(3 * UNREAD_PAUSE_MS_MAX);
    assert_eq!((registry.pin().lost, read_all(&registry)), (vec![], all));
    assert!(registry.list().iter().all(|row| row.state == SegmentState::Flushed));
    assert_eq!(registry.claim(ALL, 0).segments.len(), 3);
}

#[test]
fn a_segment_whose_file_was_deleted_stays_told_and_costs_no_other() {
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
    registry.fail(claim.token);
    for now_ms in [1, 10_000, UNREAD_GIVEN_UP_MS, 3 * UNREAD_GIVEN_UP_MS] {
        let look = registry.look_again(now_ms);
        assert!(look.errors.is_empty() && look.returned.is_empty());
        let claim = registry.claim(ALL, 5);
        assert_eq!((claim.segments.len(), claim.errors.len()), (1, 0), "and told once");
        registry.fail(claim.token);
        assert_eq!(registry.pin().lost[0].range, gone.content().range);
    }
    let newest_ms = gone.range().1.ms();
    assert_eq!(registry.expire_unread(newest_ms + 1).0, [gone.path()]);
    assert_eq!(registry.pin().lost, []);
}

#[test]
fn a_segment_that_ended_early_is_whole_after_a_kill() {
    for is_synced in [true, false] {
        let sim = disk();
        let registry = recovered_on(&sim).registry;
        let mut shard = Shard::start(&registry, 0, 5);
        shard.append(&lines(3, 300));
        shard.log.want_durable();
        shard.work(&registry);
        shard.append(&lines(3, 300));
        shard.log.want_durable();
        let mut is_abandoned = false;
        while !is_abandoned {
            match shard.log.next_effect(shard.now).expect("the failure is dealt with") {
                Effect::Write { token, segment, offset_bytes, frame } => {
                    let file = sim.open(&segment.path(), Open::Write).unwrap();
                    // Some of it reaches the disk.
                    file.write_all_at(&frame.as_bytes()[..512], offset_bytes).unwrap();
                    let whole = Ok(frame.as_bytes().len());
                    let result =
                        if is_synced { Err(std::io::ErrorKind::Other.into()) } else { whole };
                    if result.is_ok() {
                        file.write_all_at(frame.as_bytes(), offset_bytes).unwrap();
                    }
                    shard.log.on_written(token, result);
                }
                Effect::Sync { token, .. } => {
                    shard.log.on_synced(token, Err(std::io::ErrorKind::Other.into()));
                }
                Effect::Abandon { segment, len_bytes, .. } => {
                    registry.flush(&segment, len_bytes, 1).unwrap();
                    is_abandoned = true;
                }
                Effect::WantSegment => {
                    let made = registry.prepare(1, 1).unwrap();
                    shard.log.on_segment(made.into_iter().next().unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        shard.advance(6_000_000);
        shard.work(&registry);
        let all = shard.appended.clone();
        for _ in 0..2 {
            let found = recovered_on(&sim.kill());
            let told = [found.report, found.torn, found.registry.pin().lost].concat();
            assert_eq!(told, [], "its name says where it ends");
            let mut left = Records::new();
            for segment in found.registry.snapshot() {
                let (records, damage) = read_part(&*segment);
                assert_eq!(damage, []);
                left.extend(records);
            }
            assert_eq!(left, all);
        }
        let cut = segment_files(&sim).into_iter().filter_map(|path| {
            let name = FileName::parse(path.file_name()?.to_str()?)?;
            name.cut.map(|_| (path, name))
        });
        let [(path, name)] = &cut.collect::<Vec<_>>()[..] else { panic!("one ended early") };
        assert_eq!(check_segment(&sim, path, name.id, name.state).unwrap().damage, []);
    }
}

/// A cut segment, as every kill leaves one, and where its last frame lies.
pub(super) fn cut_by_a_kill() -> (SimStorage, Records, PathBuf, std::ops::Range<u64>) {
    let first = disk();
    let all = written(&first, true);
    let sim = first.kill();
    let registry = recovered_on(&sim).registry;
    let segment = registry.snapshot().remove(0);
    let path = segment.path();
    let name = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
    assert_eq!(name.cut.map(|cut| cut.end), Some(segment.written_len()));
    let open = segment.open().unwrap();
    let before = segment.written_len();
    let bytes = sim.read_file(&path).unwrap();
    let magic = crate::ingest::frame::MAGIC;
    let offset = (0..before)
        .rev()
        .step_by(1)
        .find(|&at| at % 512 == 0 && bytes[at as usize..].starts_with(&magic));
    assert!(open.chunks().len() > 3);
    (sim, all, path, offset.unwrap()..before)
}

/// What gathering takes of a segment: all that can be read.
pub(super) fn taken_of(registry: &Registry, id: Ulid) -> StoredInput {
    let coverage = registry.held(id).unwrap().readable_coverage();
    StoredInput { id: id.0, coverage }
}

/// Does with a claim what gathering does: `true` if the file may go, because all of it was read.
pub(super) fn gathered(registry: &Registry, now_ms: u64) -> Option<bool> {
    let claim = registry.claim(ALL, now_ms);
    let segment = claim.segments.first()?;
    let damage = match segment.open_to_move() {
        Ok(open) => {
            let bad = (0..open.chunks().len()).filter_map(|index| open.read(index).err());
            open.damage().iter().cloned().chain(bad).collect()
        }
        Err(damage) => vec![damage],
    };
    let id = segment.id();
    let stored = taken_of(registry, id);
    if damage.is_empty() {
        drop(claim.segments);
        assert!(registry.commit(claim.token, &[stored], now_ms).kept.is_empty());
        return Some(true);
    }
    if damage.iter().any(|d| d.refusal().is_some()) && !segment.is_partly_taken() {
        registry.note_unread(claim.token, id, &damage, now_ms);
        registry.fail(claim.token);
    } else {
        assert!(registry.set_aside(claim.token, &stored, &damage).unwrap());
    }
    Some(false)
}

#[test]
fn the_last_frame_of_a_segment_that_a_kill_cut_is_never_taken_for_its_end() {
    let (sim, all, path, span) = cut_by_a_kill();
    let id = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap().id;
    sim.make_unreadable(&id.to_string(), span);
    for restart in 0..2 {
        let found = recovered_on(&sim).registry;
        assert_eq!(restart > 0, found.list()[0].state == SegmentState::Damaged);
        for now_ms in (0..2 * UNREAD_GIVEN_UP_MS).step_by(1_000) {
            found.look_again(now_ms);
            assert_ne!(gathered(&found, now_ms), Some(true), "at {now_ms}");
            assert!(!found.pin().lost.is_empty(), "at {now_ms}");
        }
        assert_eq!(found.list().len(), 1, "the file is there");
        assert_eq!(found.list()[0].state, SegmentState::Damaged);
    }
    sim.make_readable();
    let found = recovered_on(&sim).registry;
    found.look_again(UNREAD_PAUSE_MS_MAX);
    assert_eq!((found.pin().lost, read_all(&found)), (vec![], all));
}

#[test]
fn a_segment_that_was_refused_for_long_goes_once_all_of_it_was_read_and_stored() {
    let (sim, _, path, span) = cut_by_a_kill();
    let id = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap().id;
    sim.make_unreadable(&id.to_string(), span);
    let registry = recovered_on(&sim).registry;
    let mut now_ms = 0;
    let is_offered = |registry: &Registry| registry.list()[0].is_offered;
    while !is_offered(&registry) {
        now_ms += 1_000;
        assert!(now_ms < 2 * UNREAD_GIVEN_UP_MS, "it is given up");
        registry.look_again(now_ms);
    }
    // Nobody looks again before it is gathered.
    sim.make_readable();
    assert_eq!(gathered(&registry, now_ms), Some(true));
    assert!(registry.list().is_empty());
}

#[test]
fn a_cut_segment_that_was_set_aside_stays_aside_while_its_last_frame_is_damaged() {
    for is_only_frame in [false, true] {
        let (sim, _, path, span) = cut_by_a_kill();
        let registry = recovered_on(&sim).registry;
        let file = sim.open(&path, Open::Write).unwrap();
        let from = if is_only_frame { 0 } else { span.start };
        for at in (from..span.end).step_by(512) {
            file.write_all_at(&[0x55; 3], at + 200).unwrap();
        }
        drop(file);
        assert_eq!(gathered(&registry, 0), Some(false));
        for found in [registry, recovered_on(&sim).registry, recovered_on(&sim).registry] {
            for now_ms in [1, UNREAD_PAUSE_MS_MAX, UNREAD_GIVEN_UP_MS, 10 * UNREAD_GIVEN_UP_MS] {
                assert_eq!(found.look_again(now_ms).returned, [], "{is_only_frame}");
                assert_eq!(found.list()[0].state, SegmentState::Damaged, "{is_only_frame}");
                assert!(!found.pin().lost.is_empty(), "{is_only_frame}");
            }
        }
    }
}

#[test]
fn a_name_that_was_given_before_a_failed_directory_sync_is_never_believed() {
    let sim = disk();
    sim.forget_names(INGEST);
    let registry = recovered_on(&sim).registry;
    for round in 0..20 {
        // Both new files and those that are used again.
        for unused in registry.prepare(2, round).unwrap() {
            registry.flush(&unused, 0, round).unwrap();
        }
        sim.fail(Fault::next(Call::SyncDir, 1 + round % 2, FaultError::Io));
        assert!(registry.prepare(2, round).is_err());
        sim.clear_faults();
        for made in registry.prepare(2, round).unwrap() {
            let is_there = |seed| sim.crash(seed).files().contains(&made.path());
            assert!((0..20).all(is_there), "{} is durable", made.path().display());
            registry.flush(&made, 0, round).unwrap();
        }
    }
}

#[test]
fn what_was_set_aside_is_not_forgotten_while_another_directory_has_the_name_of_its_own() {
    let directory = scratch();
    let (home, away) = (directory.path().join("ingest"), directory.path().join("away"));
    let registry = recovered(&home).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append(&lines(5, 100));
    shard.work(&registry);
    shard.stop(&registry);
    let path = registry.snapshot()[0].path();
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(gathered(&registry, 0), Some(false));
    assert_eq!(registry.damaged_files(), 1);
    let lost = registry.pin().lost;
    // As it is where a file system goes that was mounted there.
    fs::rename(&home, &away).unwrap();
    fs::create_dir(&home).unwrap();
    assert_eq!(registry.look_again(WORSE_PAUSE_MS).taken_away, Vec::<PathBuf>::new());
    assert_eq!((registry.damaged_files(), registry.pin().lost.is_empty()), (1, false));
    fs::remove_dir(&home).unwrap();
    fs::rename(&away, &home).unwrap();
    registry.look_again(3 * WORSE_PAUSE_MS);
    assert_eq!((registry.damaged_files(), registry.pin().lost), (1, lost));
    let set_aside = registry.held(registry.list()[0].id).unwrap().path();
    fs::remove_file(&set_aside).unwrap();
    assert_eq!(registry.look_again(9 * WORSE_PAUSE_MS).taken_away, [set_aside]);
}
