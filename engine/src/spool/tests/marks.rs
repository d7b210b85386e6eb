//! Up to where lines are handed over: marks that cannot be read or written, and what is missing by them.

use super::*;

#[test]
fn a_mark_that_cannot_be_read_is_told_not_written_to_and_its_lines_are_sent_again() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..6 {
        spool.append(&entry(n, 4), false).unwrap();
    }
    read_all(&mut spool);
    spool.release(2).unwrap();
    spool.release(3).unwrap();
    let disk = disk.kill();
    let path = Path::new(DIRECTORY).join("mark");
    let bytes = disk.read_file(&path).unwrap();
    disk.fail(Fault { path_part: "mark".into(), ..Fault::random(Call::Read, 1.0, FaultError::Io) });
    let mut spool = open(&disk);
    let told = spool.take_damage();
    assert!(told.len() == 1 && told[0].refusal().is_some(), "{told:?}");
    assert_eq!(read_all(&mut spool).len(), 6);
    spool.release(4).unwrap_err();
    assert_eq!(disk.read_file(&path).unwrap(), bytes);
    disk.clear_faults();
    spool.release(5).unwrap();
    assert_eq!(read_all(&mut open(&disk.kill())), [(5, entry(5, 4))]);
}

#[test]
fn a_mark_whose_sync_failed_is_made_anew_before_a_file_goes() {
    for call in [Call::Sync, Call::SyncDir] {
        let disk = SimStorage::new(1);
        let mut spool = open(&disk);
        for n in 0..60 {
            spool.append(&entry(n, 9_000), false).unwrap();
        }
        sync(&mut spool).unwrap();
        for _ in 0..50 {
            spool.read_next().unwrap();
        }
        let files = names(&disk);
        let path_part = if call == Call::Sync { "mark" } else { "" }.to_owned();
        disk.fail(Fault { path_part, call: Some(call), ..Fault::nth(1, FaultError::Io) });
        spool.release(40).unwrap_err();
        let is_there = |name: &&String| names(&disk).contains(name);
        assert!(files.iter().all(|name| is_there(&name)), "no file goes before its mark");
        spool.release(41).unwrap();
        assert!(!files.iter().all(|name| is_there(&name)));
        for seed in 0..20 {
            let mut spool = open(&disk.crash(seed));
            assert_eq!(spool.take_damage(), [], "{call:?}");
            assert_eq!(read_all(&mut spool).len(), 19, "{call:?}");
        }
    }
}

#[test]
fn a_mark_that_could_not_be_written_is_not_believed_and_a_full_disk_gets_room_for_it() {
    for (error, goes_on) in [(FaultError::Io, false), (FaultError::NoSpace, true)] {
        let disk = SimStorage::new(1);
        let mut spool = open(&disk);
        for n in 0..60 {
            spool.append(&entry(n, 9_000), false).unwrap();
        }
        sync(&mut spool).unwrap();
        for _ in 0..50 {
            spool.read_next().unwrap();
        }
        let before = names(&disk);
        for _ in 0..2 {
            let (path_part, call) = ("mark".to_owned(), Some(Call::Write));
            disk.fail(Fault { call, path_part, ..Fault::nth(1, error) });
        }
        spool.release(40).unwrap_err();
        let is_there = |name: &&String| names(&disk).contains(name);
        assert_eq!(before.iter().all(|name| is_there(&name)), !goes_on, "{error:?}");
        spool.release(41).unwrap();
        assert!(!before.iter().all(|name| is_there(&name)));
        let mut spool = open(&disk.crash(1));
        assert_eq!((read_all(&mut spool).len(), spool.take_damage()), (19, Vec::new()));
    }
}

#[test]
fn what_is_missing_is_told_alike_by_forwarder_and_check_and_what_nobody_can_tell_by_neither() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..60 {
        spool.append(&entry(n, 9_000), false).unwrap();
    }
    let last = spool.files.len() as u64 - 1;
    for file in 0..=last {
        for harm in ["cut", "emptied", "cut to its header", "removed"] {
            let disk = disk.kill();
            let path = spool_path(file);
            let len = disk.read_file(&path).unwrap().len() as u64;
            match harm {
                "cut" => disk.truncate(&path, len / 2).unwrap(),
                "emptied" => disk.truncate(&path, 0).unwrap(),
                "cut to its header" => disk.truncate(&path, FILE_HEADER_BYTES).unwrap(),
                _ => disk.remove(&path).unwrap(),
            }
            let directory = Path::new(DIRECTORY);
            let listed = disk.list(directory).unwrap();
            let checked = check::check_spool(&disk, directory, &listed);
            let checked: Vec<Damage> = checked.files.into_iter().flat_map(|f| f.damage).collect();
            let mut spool = open(&disk);
            let got = read_all(&mut spool).len() as u64;
            let told = spool.take_damage();
            assert_eq!(told, checked, "{harm} {file}");
            if harm == "removed" && file == last {
                assert_eq!(told, [], "nothing is left that tells of it");
                continue;
            }
            assert_eq!(told.len(), 1, "{harm} {file}: {told:?}");
            // Before the first file only a mark could tell, and there was none.
            let is_known = file < last && (file > 0 || harm != "removed");
            assert_eq!(told[0].records, is_known.then_some(60 - got), "{harm} {file}: {told:?}");
            assert!(!told[0].to_string().contains("no record is lost"), "{}", told[0]);
            if file < last || harm != "cut" {
                continue;
            }
            // What was not known is not known to later lives either, whatever follows.
            spool.append(&entry(100, 10), false).unwrap();
            assert_eq!(read_all(&mut spool).len(), 1);
            assert_eq!(spool.take_damage(), []);
            let mut later = open(&disk.kill());
            let told = later.take_damage();
            assert_eq!((told.len(), told[0].records), (1, None), "{told:?}");
            assert_eq!(read_all(&mut later).len() as u64, got + 1);
            assert_eq!(later.take_damage(), []);
        }
    }
}

#[test]
fn a_first_file_that_is_gone_is_told_with_what_the_mark_knows() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..60 {
        spool.append(&entry(n, 9_000), false).unwrap();
    }
    for _ in 0..5 {
        spool.read_next().unwrap();
    }
    spool.release(5).unwrap();
    disk.remove(&spool_path(0)).unwrap();
    let mut spool = open(&disk.kill());
    let got = read_all(&mut spool).len() as u64;
    let told = spool.take_damage();
    assert_eq!((told.len(), told[0].records), (1, Some(55 - got)), "{told:?}");
}

#[test]
fn a_damaged_slot_of_the_mark_is_told_and_costs_no_line() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..6 {
        spool.append(&entry(n, 4), false).unwrap();
    }
    read_all(&mut spool);
    for before in 1..=3 {
        spool.release(before).unwrap();
    }
    for slot in 0..2u64 {
        let disk = disk.kill();
        disk.flip(&Path::new(DIRECTORY).join("mark"), slot * 512 + 17, 1).unwrap();
        let mut spool = open(&disk);
        let told = spool.take_damage();
        assert_eq!(told.len(), 1, "slot {slot}: {told:?}");
        assert!(told[0].to_string().contains("lines may be sent twice"), "{}", told[0]);
        // The third write went to slot 1.
        let first = [3, 2][slot as usize];
        let got: Vec<u64> = read_all(&mut spool).iter().map(|(n, _)| *n).collect();
        assert_eq!(got, (first..6).collect::<Vec<_>>());
        // The next marks make it whole again.
        for before in [first + 1, first + 2] {
            spool.release(before).unwrap();
        }
        assert_eq!(open(&disk.kill()).take_damage(), vec![]);
    }
}
