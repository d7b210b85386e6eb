//! The life of segment files in the registry.

use super::unread::{disk, recovered_on};
use super::*;
use crate::storage::sim::{Call, Fault, FaultError};

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
    assert_eq!(read_all(&registry), all, "and so are those that are available again");

    let Claim { token, mut segments, .. } = registry.claim(ALL, 80_000);
    let pin = segments.remove(0);
    drop(segments);
    assert!(registry.commit(token, &registry.all_of(&ids), 80_000).errors.is_empty());
    assert!(registry.snapshot().is_empty());
    assert_eq!(registry.backlog_bytes(), 0);
    let (pinned, damage) = read_part(&*pin);
    assert_eq!((pinned, damage), (all, vec![]), "a reader keeps what it holds");
    assert!(registry.tidy(80_000).is_empty());
    assert_eq!(states(directory.path()).iter().filter(|&&s| s == SegmentState::Pending).count(), 1);
    let pooled_before = registry.pool_bytes();
    drop(pin);
    assert!(registry.tidy(80_000).is_empty());
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
    let Claim { token, segments, .. } = registry.claim(ALL, 1);
    assert_eq!(segments.len(), 1);
    drop(segments);
    let pooled = registry.pool_bytes();
    assert!(registry.commit(token, &registry.all_of(&[id]), 1).errors.is_empty());
    assert_eq!(registry.pool_bytes(), pooled);
    assert!(!states(directory.path()).contains(&SegmentState::Pending), "it is gone");
    // The record is rewritten elsewhere.
    shard.advance(6_000_000);
    shard.stop(&registry);
    let found = recovered(directory.path());
    assert_eq!(read_all(&found.registry), shard.appended);
    let ids: Vec<Ulid> = found.registry.list().iter().map(|row| row.id).collect();
    let token = found.registry.claim(ALL, 1).token;
    assert!(found.registry.commit(token, &found.registry.all_of(&ids), 1).errors.is_empty());
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
    let (mut order, mut tokens) = (Vec::new(), Vec::new());
    loop {
        let claim = registry.claim(limits, 5);
        tokens.push(claim.token);
        assert!(claim.segments.len() <= 2);
        if claim.segments.is_empty() {
            break;
        }
        order.extend(claim.segments.iter().map(|s| s.range().0));
    }
    assert_eq!(order.len(), 6);
    assert!(order.is_sorted());
    assert!(tokens.iter().all(|&token| registry.fail(token).errors.is_empty()));
    let tiny = ClaimLimits { segments_max: 9, text_bytes_max: 1 };
    assert_eq!(registry.claim(tiny, 5).segments.len(), 1, "one is always allowed");
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
    registry.tidy(flushed_ms + 9_999);
    assert_eq!(len(), registry.options().file_bytes());
    let token = registry.claim(ALL, 5).token;
    registry.tidy(flushed_ms + 10_000);
    assert_eq!(len(), registry.options().file_bytes(), "somebody is about to store it");
    registry.fail(token);
    registry.tidy(flushed_ms + 20_000);
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
    // A folder in the way of the new name, with something in it, refuses the rename.
    let obstacle = directory.path().join(file_name(segment.id(), SegmentState::Flushed));
    fs::create_dir_all(obstacle.join("x")).unwrap();
    assert!(registry.flush(&segment, len_bytes, 1).is_err());
    assert_eq!(registry.tidy(2).len(), 1);
    assert_eq!(read_all(&registry), shard.appended, "it stays readable meanwhile");
    fs::remove_dir_all(&obstacle).unwrap();
    assert_eq!(registry.tidy(3).len(), 0);
    assert_eq!(segment.state(), SegmentState::Flushed);
    assert_eq!(registry.claim(ALL, 4).segments.len(), 1);
}

#[test]
fn a_segment_whose_file_lost_its_name_while_it_was_written_gets_a_file_of_its_own() {
    for in_its_place in [None, Some("another's"), Some("")] {
        let directory = scratch();
        let registry = recovered(directory.path()).registry;
        let mut shard = Shard::start(&registry, 0, 5);
        shard.append(&lines(50, 999));
        shard.log.want_durable();
        shard.work(&registry);
        let segment = registry.snapshot().remove(0);
        assert_eq!(segment.state(), SegmentState::Active);
        let (path, len_bytes) = (segment.path(), segment.written_len());
        let source = OsStorage.open(&path, Open::Read).unwrap();
        fs::remove_file(&path).unwrap();
        if let Some(text) = in_its_place {
            fs::write(&path, text).unwrap();
        }
        registry.write_anew(&segment, len_bytes, &source, 1).unwrap();
        drop((segment, source));
        assert_eq!(read_all(&registry), shard.appended);
        assert_eq!(registry.claim(ALL, 2).segments.len(), 1);
        drop(registry);
        let found = recovered(directory.path());
        assert_eq!(read_all(&found.registry), shard.appended);
        assert!(found.report.is_empty(), "{:?}", found.report);
        assert_eq!(found.notes.len(), usize::from(in_its_place.is_some()), "{:?}", found.notes);
        let in_it = fs::read_to_string(&path).ok();
        assert_eq!(in_it.as_deref(), in_its_place, "what is not ours stays");
    }
}

#[test]
fn writing_anew_is_tried_again_after_each_step_that_failed() {
    let calls = [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir];
    for (call, is_left) in calls.into_iter().flat_map(|call| [(call, false), (call, true)]) {
        let sim = disk();
        let registry = recovered_on(&sim).registry;
        let mut shard = Shard::start(&registry, 0, 5);
        shard.append(&lines(50, 999));
        shard.log.want_durable();
        shard.work(&registry);
        let segment = registry.snapshot().remove(0);
        assert_eq!(segment.state(), SegmentState::Active);
        let len_bytes = segment.written_len();
        let source = sim.open(&segment.path(), Open::Read).unwrap();
        sim.remove(&segment.path()).unwrap();
        sim.fail(Fault::next(call, 1, FaultError::Io));
        if is_left {
            sim.fail(Fault::next(Call::Remove, 2, FaultError::Io));
        }
        registry.write_anew(&segment, len_bytes, &source, 1).unwrap_err();
        assert_eq!(registry.snapshot()[0].content().records, 50, "{call:?}: it stays known");
        sim.clear_faults();
        registry.write_anew(&segment, len_bytes, &source, 2).unwrap();
        assert_eq!(read_all(&registry), shard.appended, "{call:?}");
        let found = recovered_on(&sim.kill());
        assert_eq!(read_all(&found.registry), shard.appended, "{call:?}");
        assert!(found.report.is_empty(), "{:?}", found.report);
    }
}

#[test]
fn an_unused_segment_whose_name_is_another_s_is_forgotten_and_the_file_stays() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let segment = registry.prepare(1, 1).unwrap().remove(0);
    fs::remove_file(segment.path()).unwrap();
    fs::write(segment.path(), "another's").unwrap();
    registry.forget_unused(&segment);
    assert_eq!(fs::read(segment.path()).unwrap(), b"another's");
    assert_eq!((registry.list().len(), registry.pool_segments()), (0, 0));
}
