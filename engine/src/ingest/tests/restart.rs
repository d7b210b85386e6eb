//! What a start finds after a kill, after a stop, and beside the files of others.

use super::*;

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
fn a_damaged_segment_is_set_aside_and_stays_through_restarts() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("one\n");
    shard.stop(&registry);
    let claim = registry.claim(ALL, 5);
    let id = claim.segments[0].id();
    let path = registry.held(id).unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damage = read_part(&*registry.snapshot()[0]).1;
    assert!(registry.set_aside(claim.token, &unread::taken_of(&registry, id), &damage).unwrap());
    let path = registry.held(id).unwrap().path();
    let told = vec![Damage { path, ..damage[0].clone() }];
    assert_eq!((registry.snapshot().len(), registry.pin().lost), (0, told));
    for _ in 0..3 {
        let found = recovered(directory.path());
        assert!(found.registry.snapshot().is_empty(), "it is not offered and not read");
        let [lost] = &found.registry.pin().lost[..] else { panic!("it stays told") };
        assert_eq!((lost.range, lost.records), (damage[0].range, Some(1)));
        assert_eq!(found.registry.list()[0].state, SegmentState::Damaged);
        assert_eq!(found.registry.claim(ALL, 1).segments.len(), 0);
    }
    let path = directory.path().join(file_name(id, SegmentState::Damaged));
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = recovered(directory.path()).registry;
    assert_eq!((found.pin().lost, read_all(&found)), (vec![], shard.appended), "it came back");
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
    ];
    // The name of a segment that had records, or may have: what stands there is its damage.
    let damaged = [
        at(&file_name(id, SegmentState::Active)),
        at(&file_name(id.plus(1), SegmentState::Flushed)),
        at(&file_name(id.plus(4), SegmentState::Pending)),
    ];
    fs::write(&damaged[0], b"something that somebody keeps here\n".repeat(9)).unwrap();
    fs::write(&damaged[1], b"something else").unwrap();
    fs::create_dir(&damaged[2]).unwrap();
    for name in &foreign {
        fs::write(at(name), b"something that somebody keeps here\n".repeat(9)).unwrap();
    }
    let empty = [file_name(id.plus(2), SegmentState::Active), "empty".to_owned()];
    for name in &empty {
        fs::write(at(name), b"").unwrap();
    }
    let folder = "shard-0.tail".to_owned();
    fs::create_dir(at(&folder)).unwrap();
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
    let expected: HashSet<PathBuf> = foreign.iter().chain(&empty).map(|name| at(name)).collect();
    assert_eq!(told, expected);
    assert_eq!(found.notes.len(), expected.len());
    let lost: Vec<PathBuf> = found.registry.pin().lost.into_iter().map(|d| d.path).collect();
    let is_tail = |path: &PathBuf| *path == at(&folder);
    assert_eq!(lost.iter().filter(|path| is_tail(path)).count(), 1, "a shard's, too");
    let lost: Vec<PathBuf> = lost.into_iter().filter(|path| !is_tail(path)).collect();
    assert_eq!(lost, damaged, "and told in answers");
    assert!(found.registry.look_again(1).errors.is_empty());
    let (gone, errors) = found.registry.expire_unread(u64::MAX);
    assert!(errors.is_empty() && gone == [damaged[1].clone()], "{gone:?} {errors:?}");
    fs::remove_dir(&damaged[2]).unwrap();
    let look = found.registry.look_again(u64::MAX);
    assert_eq!(look.taken_away, [damaged[2].clone()]);
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
    let digest = |id| registry.held(id).unwrap().coverage().digest().unwrap();
    let ids: Vec<Ulid> = registry.list().iter().map(|row| row.id).collect();
    let holds = |id| Arc::new(registry.held(id).unwrap().coverage());
    let taken = |id| Taken { digest: digest(id), holds: holds(id) };
    let stored: AlreadyStored = ids.iter().map(|&id| (id.0, vec![taken(id)])).collect();
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
fn names_that_claim_more_than_their_files_have_keep_no_node_from_starting() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..2 {
        shard.append(&lines(900, 99));
        shard.stop(&registry);
        shard = Shard::start(&registry, 0, 5);
    }
    drop(shard);
    drop(registry);
    let mut files_bytes = 0;
    for row in fs::read_dir(directory.path()).unwrap().flatten() {
        files_bytes += row.metadata().unwrap().len();
        let name = row.file_name().into_string().unwrap();
        if let Some(id) = name.strip_suffix(".flushed") {
            let far = format!("{id}.{}-{}.flushed", u64::MAX, u64::MAX);
            fs::rename(row.path(), directory.path().join(far)).unwrap();
        }
    }
    let found = recover(options(directory.path()), &AlreadyStored::new(), 5).unwrap();
    let backlog = found.registry.backlog();
    assert!(backlog.segments >= 2 && backlog.len_bytes <= files_bytes, "{backlog:?}");
}

#[test]
fn a_segment_that_holds_other_records_than_the_store_has_of_it_is_kept() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append(&lines(900, 99));
    shard.stop(&registry);
    let segment = registry.snapshot().pop().unwrap();
    let (id, own) = (segment.id().0, segment.coverage());
    let one = Ulid::from_parts(5, 5, 5);
    let other = Coverage::of(Interval::of_range(one, one, 1).into_iter().collect());
    assert_eq!(own.record_count(), 900);
    let of = |digest: &Coverage, holds: &Coverage| Taken {
        digest: digest.digest().unwrap(),
        holds: Arc::new(holds.clone()),
    };
    // Other records were taken, and it says that these were but does not have them.
    let all = own.union(&other);
    for taken in [vec![of(&other, &all)], vec![of(&own, &other)], vec![]] {
        let found = recover(options(directory.path()), &[(id, taken)].into(), 5).unwrap();
        assert_eq!(read_all(&found.registry), shard.appended);
        assert!(matches!(found.notes[..], [Note::HoldsOthers(_)]), "{:?}", found.notes);
    }
    // Taken twice, the first time not all of it.
    let taken = vec![of(&other, &other), of(&own, &all)];
    let found = recover(options(directory.path()), &[(id, taken)].into(), 5).unwrap();
    assert!(found.registry.snapshot().is_empty());
    assert!(matches!(found.notes[..], [Note::AlreadyStored(_)]), "{:?}", found.notes);
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
