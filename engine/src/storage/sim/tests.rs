//! What the simulated disk promises to those who test with it.

use std::collections::BTreeSet;

use super::*;

const DIR: &str = "/data";

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A disk with a durable directory.
fn disk(seed: u64) -> SimStorage {
    let sim = SimStorage::new(seed);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

fn create(sim: &SimStorage, name: &str) -> Arc<dyn File> {
    sim.open(&path(name), Open::CreateNew).unwrap()
}

/// A file with durable bytes under a durable name.
fn durable(sim: &SimStorage, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(sim, name);
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    sim.sync_dir(Path::new(DIR)).unwrap();
    file
}

fn names(sim: &SimStorage) -> BTreeSet<String> {
    sim.list(Path::new(DIR)).unwrap().into_iter().filter_map(|e| e.name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// What is found under a name after each of many crashes.
fn outcomes(sim: &SimStorage, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..300).map(|seed| sim.crash(seed).read_file(&path(name)).ok()).collect()
}

#[test]
fn what_was_synced_never_vanishes() {
    let sim = disk(1);
    let file = durable(&sim, "a", b"kept");
    assert_eq!(outcomes(&sim, "a"), BTreeSet::from([Some(b"kept".to_vec())]));
    drop(file);
    assert_eq!(names(&sim.crash(5)), set(&["a"]));
}

#[test]
fn what_was_not_synced_may_vanish_and_may_stay() {
    let sim = disk(1);
    let file = durable(&sim, "a", b"old");
    file.write_all_at(b"new", 0).unwrap();
    let expected = BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]);
    assert_eq!(outcomes(&sim, "a"), expected);
    assert_eq!(sim.kill().read_file(&path("a")).unwrap(), b"new", "a kill loses nothing");
    assert!(
        (0..50).any(|seed| sim.kill().crash(seed).read_file(&path("a")).unwrap() == b"old"),
        "but what a kill left is still at risk"
    );
}

#[test]
fn a_write_is_torn_at_sectors_and_nowhere_else() {
    let sim = disk(1);
    let file = durable(&sim, "a", &[0; 4 * SECTOR_BYTES]);
    file.write_all_at(&[1; 4 * SECTOR_BYTES], 0).unwrap();
    let outcomes = outcomes(&sim, "a");
    assert_eq!(outcomes.len(), 16, "every subset of four sectors");
    for bytes in outcomes.into_iter().flatten() {
        assert!(bytes.chunks(SECTOR_BYTES).all(|s| s.iter().all(|b| *b == s[0])));
    }
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let sim = disk(1);
    let file = durable(&sim, "a", &[0; 2 * SECTOR_BYTES]);
    file.write_all_at(&[1], 0).unwrap();
    file.write_all_at(&[2], SECTOR_BYTES as u64).unwrap();
    let seen: BTreeSet<(u8, u8)> =
        outcomes(&sim, "a").into_iter().flatten().map(|b| (b[0], b[SECTOR_BYTES])).collect();
    assert_eq!(seen, BTreeSet::from([(0, 0), (1, 0), (0, 2), (1, 2)]));
}

#[test]
fn a_sector_brings_along_what_was_written_to_it_before() {
    let sim = disk(1);
    let file = durable(&sim, "a", &[0; 2]);
    file.write_all_at(&[1], 0).unwrap();
    file.write_all_at(&[2], 1).unwrap();
    let expected = [[0, 0], [1, 0], [1, 2]].map(|b| Some(b.to_vec()));
    assert_eq!(outcomes(&sim, "a"), BTreeSet::from(expected));
}

#[test]
fn lengths_and_bytes_reach_the_disk_apart() {
    let sim = disk(1);
    let file = durable(&sim, "a", b"x");
    file.write_all_at(b"y", 1023).unwrap();
    let outcomes = outcomes(&sim, "a");
    assert!(outcomes.contains(&Some(b"x".to_vec())), "neither");
    let mut zeros = vec![0; 1024];
    zeros[0] = b'x';
    assert!(outcomes.contains(&Some(zeros)), "the length alone");
}

#[test]
fn a_cut_does_not_bring_old_bytes_back() {
    let sim = disk(1);
    let file = durable(&sim, "a", b"secret");
    file.set_len(0).unwrap();
    file.allocate(6).unwrap();
    for bytes in outcomes(&sim, "a").into_iter().flatten() {
        assert!([&b"secret"[..], b"", &[0; 6]].contains(&&*bytes), "{bytes:?}");
    }
    assert_eq!(sim.read_file(&path("a")).unwrap(), [0; 6]);
}

#[test]
fn a_name_is_durable_only_after_its_directory_was_synced() {
    let sim = disk(1);
    let file = create(&sim, "new");
    file.write_all_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&sim, "new"), BTreeSet::from([None, Some(b"x".to_vec())]));
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(outcomes(&sim, "new"), BTreeSet::from([Some(b"x".to_vec())]));
}

#[test]
fn a_rename_without_directory_sync_may_revert() {
    let sim = disk(1);
    drop(durable(&sim, "a", b"x"));
    sim.rename(&path("a"), &path("b")).unwrap();
    let seen: BTreeSet<_> = (0..100).map(|seed| names(&sim.crash(seed))).collect();
    assert_eq!(seen, BTreeSet::from([set(&["a"]), set(&["b"])]));
    assert_eq!(names(&sim.kill()), set(&["b"]));
    sim.sync_dir(Path::new(DIR)).unwrap();
    assert!((0..100).all(|seed| names(&sim.crash(seed)) == set(&["b"])));
}

#[test]
fn changes_of_one_directory_reach_the_disk_in_order() {
    let sim = disk(1);
    for name in ["1", "2", "3"] {
        create(&sim, name);
    }
    sim.remove(&path("1")).unwrap();
    let seen: BTreeSet<_> = (0..300).map(|seed| names(&sim.crash(seed))).collect();
    let prefixes: [&[&str]; 5] = [&[], &["1"], &["1", "2"], &["1", "2", "3"], &["2", "3"]];
    assert_eq!(seen, prefixes.into_iter().map(set).collect());
}

#[test]
fn changes_of_different_directories_reach_the_disk_in_any_order() {
    let sim = disk(1);
    for directory in ["/data/x", "/data/y"] {
        sim.create_dir_all(Path::new(directory)).unwrap();
    }
    sim.sync_dir(Path::new(DIR)).unwrap();
    for name in ["x/1", "y/2"] {
        create(&sim, name);
    }
    let seen: BTreeSet<_> = (0..300).map(|seed| sim.crash(seed).files()).collect();
    assert_eq!(seen.len(), 4);
    sim.sync_dir(&path("y")).unwrap();
    let seen: BTreeSet<_> = (0..300).map(|seed| sim.crash(seed).files()).collect();
    assert_eq!(seen, BTreeSet::from([vec![path("y/2")], vec![path("x/1"), path("y/2")]]));
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_along() {
    let sim = SimStorage::new(1);
    sim.create_dir_all(Path::new(DIR)).unwrap();
    drop(durable(&sim, "a", b"x"));
    let seen: BTreeSet<_> = (0..100).map(|seed| sim.crash(seed).files()).collect();
    assert_eq!(seen, BTreeSet::from([vec![], vec![path("a")]]));
}

#[test]
fn a_failed_sync_loses_its_bytes_even_when_the_next_succeeds() {
    let mut lost = false;
    for seed in 0..50 {
        let sim = disk(seed);
        let file = durable(&sim, "a", b"old");
        file.write_all_at(b"new", 0).unwrap();
        sim.fail(Fault::nth(1, FaultError::Io));
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        file.sync().unwrap();
        assert_eq!(sim.read_file(&path("a")).unwrap(), b"new", "the cache still shows it");
        let outcomes = outcomes(&sim, "a");
        assert_eq!(outcomes.len(), 1, "its fate is settled");
        lost |= outcomes.contains(&Some(b"old".to_vec()));
    }
    assert!(lost);
}

#[test]
fn a_failed_sync_does_not_lose_the_length() {
    for seed in 0..50 {
        let sim = disk(seed);
        let file = durable(&sim, "a", b"");
        file.allocate(2_000).unwrap();
        sim.fail(Fault::nth(1, FaultError::Io));
        file.sync().unwrap_err();
        file.write_all_at(b"x", 1_500).unwrap();
        file.sync().unwrap();
        let mut expected = vec![0; 2_000];
        expected[1_500] = b'x';
        assert_eq!(outcomes(&sim, "a"), BTreeSet::from([Some(expected)]));
    }
}

#[test]
fn a_full_disk_takes_a_prefix_and_room_comes_back() {
    let sim = disk(1);
    sim.set_capacity(1000);
    let file = create(&sim, "a");
    let error = file.write_all_at(&[7; 1200], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 1000);
    assert_eq!(sim.space(Path::new(DIR)).unwrap().free_bytes, 0);
    assert_eq!(file.allocate(1001).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[8; 500], 0).unwrap();
    sim.remove(&path("a")).unwrap();
    assert_eq!(sim.used_bytes(), 1000, "an open file keeps its room");
    assert_eq!(file.len().unwrap(), 1000, "and stays readable");
    drop(file);
    assert_eq!(sim.used_bytes(), 0);
}

#[test]
fn faults_strike_by_count_kind_path_and_chance() {
    let sim = disk(1);
    let a = create(&sim, "a.active");
    let b = create(&sim, "b.flushed");
    sim.fail(Fault {
        when: When::Nth(2),
        call: Some(Call::Write),
        path_part: ".active".into(),
        error: FaultError::NoSpace,
    });
    b.write_all_at(b"x", 0).unwrap();
    a.write_all_at(b"x", 0).unwrap();
    b.write_all_at(b"x", 0).unwrap();
    let error = a.write_all_at(b"abc", 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    a.write_all_at(b"x", 0).unwrap();
    sim.fail(Fault::random(Call::Sync, 0.5, FaultError::Io));
    let failed = (0..100).filter(|_| a.sync().is_err()).count();
    assert!((25..75).contains(&failed), "{failed}");
    sim.clear_faults();
    assert!((0..100).all(|_| a.sync().is_ok()));
}

#[test]
fn reads_and_writes_that_are_cut_short_or_interrupted_go_on_until_all_is_done() {
    for error in [FaultError::Short, FaultError::Interrupted] {
        let sim = disk(1);
        let file = create(&sim, "a");
        let bytes: Vec<u8> = (0..3_000u32).map(|n| n as u8).collect();
        let mut buffer = vec![0; bytes.len()];
        for call in [Call::Write, Call::Read] {
            sim.fail(Fault::next(call, 4, error));
        }
        let part = file.write_at(&bytes, 0);
        if error == FaultError::Short {
            assert!(part.is_ok_and(|count| (1..bytes.len()).contains(&count)));
        } else {
            assert_eq!(part.unwrap_err().kind(), io::ErrorKind::Interrupted);
            assert_eq!(file.len().unwrap(), 0, "nothing was done");
        }
        file.write_all_at(&bytes, 0).unwrap();
        file.read_exact_at(&mut buffer, 0).unwrap();
        assert_eq!((buffer, sim.struck().len()), (bytes, 8));
    }
}

#[test]
fn calls_that_move_no_bytes_cannot_come_short() {
    let sim = disk(1);
    sim.fail(Fault { call: None, ..Fault::random(Call::Sync, 1.0, FaultError::Short) });
    let file = durable(&sim, "a", b"abc");
    assert_eq!(&*file.map().unwrap(), b"abc");
    sim.remove(&path("a")).unwrap();
}

#[test]
fn from_the_crash_call_on_everything_fails() {
    let sim = disk(1);
    let file = create(&sim, "a");
    sim.crash_at(sim.calls() + 2);
    file.write_all_at(b"x", 0).unwrap();
    assert!(!sim.has_stopped());
    assert!(file.sync().is_err());
    assert!(sim.list(Path::new(DIR)).is_err());
    assert!(sim.has_stopped());
    assert_eq!(&sim.trace()[..4], [Call::CreateDir, Call::SyncDir, Call::Create, Call::Write]);
    assert!(names(&sim.kill()).contains("a"), "the next life starts without faults");
}

#[test]
fn flips_and_cuts_are_durable_and_change_the_stamp() {
    let sim = disk(1);
    let file = durable(&sim, "a", &[0; 8]);
    let stamp = file.version_stamp().unwrap();
    sim.flip(&path("a"), 3, 5).unwrap();
    sim.truncate(&path("a"), 4).unwrap();
    assert_ne!(file.version_stamp().unwrap(), stamp);
    assert_eq!(outcomes(&sim, "a"), BTreeSet::from([Some(vec![0, 0, 0, 32])]));
    assert_eq!(&*file.map().unwrap(), [0, 0, 0, 32]);
}

#[test]
fn files_are_opened_as_on_a_real_disk() {
    let sim = disk(1);
    let file = create(&sim, "a");
    let kind = |result: io::Result<Arc<dyn File>>| result.map(|_| ()).unwrap_err().kind();
    assert_eq!(kind(sim.open(&path("a"), Open::CreateNew)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(sim.open(&path("b"), Open::Write)), io::ErrorKind::NotFound);
    assert_eq!(kind(sim.open(&path("b/c"), Open::CreateNew)), io::ErrorKind::NotFound);
    assert_eq!(kind(sim.open(Path::new(DIR), Open::Read)), io::ErrorKind::IsADirectory);
    let reader = sim.open(&path("a"), Open::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
    file.write_all_at(&[9; 3000], 0).unwrap();
    let mut buffer = [0; 3000];
    for _ in 0..100 {
        reader.read_exact_at(&mut buffer, 0).unwrap();
        assert_eq!(buffer, [9; 3000]);
    }
    assert!((0..100).any(|_| reader.read_at(&mut buffer, 0).unwrap() < 3000), "short reads");
    assert_eq!(reader.read_at(&mut buffer, 3000).unwrap(), 0);
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let sim = disk(seed);
        let file = create(&sim, "a");
        sim.fail(Fault::random(Call::Write, 0.3, FaultError::NoSpace));
        let results: Vec<bool> =
            (0..20).map(|i| file.write_all_at(&[i; 700], u64::from(i) * 700).is_ok()).collect();
        (results, sim.crash(seed).read_file(&path("a")).ok())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}
