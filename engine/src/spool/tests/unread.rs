//! Files of a spool that cannot be read, for a while or in part: passed over, and back when they can.

use super::judge::READ_TRIES;
use super::*;

#[test]
fn a_file_that_cannot_be_read_is_passed_over_keeps_its_bytes_and_comes_back_when_it_can() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..60 {
        spool.append(&entry(n, 9_000), false).unwrap();
    }
    for (call, file) in [(Call::Open, 1), (Call::Read, 1), (Call::Read, 4), (Call::Len, 4)] {
        for restarts in [false, true] {
            let mut disk = disk.kill();
            let bytes = disk.read_file(&spool_path(file)).unwrap();
            let path_part = format!("{file:016x}");
            disk.fail(Fault { path_part, ..Fault::random(call, 1.0, FaultError::Io) });
            let mut spool = open(&disk);
            let told = spool.take_damage();
            assert!(told.iter().all(|d| d.refusal().is_some()), "{call:?}: {told:?}");
            assert!(told[0].path == spool_path(file) && told.len() == 1, "{call:?}: {told:?}");
            let number = spool.append(&entry(60, 0), false).unwrap();
            let mut got = read_through(&mut spool);
            assert!(got.len() > 40 && got.windows(2).all(|w| w[0].0 < w[1].0), "{}", got.len());
            assert_eq!(got.last().unwrap(), &(number, entry(60, 0)));
            let told = spool.take_damage();
            assert!(told.iter().all(|d| d.refusal().is_some() && d.records.is_none()), "{told:?}");
            assert_eq!(spool.unread_files(), 1);
            spool.release(number + 1).unwrap();
            spool.finish().unwrap();
            assert!(!spool.read_again(), "it still cannot be read");
            let left = names(&disk).into_iter().find(|name| name.ends_with(".unread")).unwrap();
            assert_eq!(disk.read_file(&Path::new(DIRECTORY).join(&left)).unwrap(), bytes);
            assert!(names(&disk).iter().all(|name| sequence_of(name).is_none()));

            if restarts {
                disk = disk.kill();
                spool = open(&disk);
            } else {
                disk.clear_faults();
                assert!(spool.read_again());
            }
            let back = read_through(&mut spool);
            assert_eq!(spool.take_damage(), []);
            assert!(!names(&disk).contains(&left));
            got.extend(back);
            let mut got: Vec<Entry> = got.into_iter().map(|(_, entry)| entry).collect();
            got.sort_by_key(|entry| {
                let text = String::from_utf8_lossy(&entry.bytes).into_owned();
                text.split(' ').next().unwrap().parse::<u64>().unwrap()
            });
            let mut expected: Vec<Entry> = (0..60).map(|n| entry(n, 9_000)).collect();
            expected.push(entry(60, 0));
            assert!(got == expected, "{call:?} {file}: each once");
        }
    }
}

/// What a life appends has numbers of its own, although nobody can tell what those before it gave.

#[test]
fn lives_that_could_read_nothing_of_the_earlier_ones_do_not_hide_each_others_entries() {
    for was_sent in [false, true] {
        let mut disk = SimStorage::new(1);
        if was_sent {
            // Numbers go on where files begin anew.
            let mut spool = open(&disk);
            let number = spool.append(&entry(999, 3), false).unwrap();
            read_all(&mut spool);
            spool.release(number + 1).unwrap();
            spool.finish().unwrap();
            assert_eq!(names(&disk), ["mark"]);
        }
        for life in 0..4_u64 {
            // Of the last two lives those before it could be read.
            disk.clear_faults();
            if life > 0 && life < 3 {
                let path_part = ".spool".to_owned();
                disk.fail(Fault { path_part, ..Fault::random(Call::Read, 1.0, FaultError::Io) });
            }
            let mut spool = open(&disk);
            for n in life * 20..(life + 1) * 20 {
                spool.append(&entry(n, 9_000), false).unwrap();
            }
            disk = disk.kill();
        }
        disk.clear_faults();
        let mut spool = open(&disk);
        let got = read_all(&mut spool);
        assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0), "{was_sent}");
        let got: Vec<Entry> = got.into_iter().map(|(_, entry)| entry).collect();
        assert!(
            got == (0..80).map(|n| entry(n, 9_000)).collect::<Vec<_>>(),
            "{was_sent}: {}",
            got.len()
        );
        let told = spool.take_damage();
        assert!(
            told.iter().all(|damage| damage.records.is_none()),
            "unknown is not zero: {told:?}"
        );
    }
}

#[test]
fn no_call_that_fails_for_a_while_makes_anything_of_a_file_go() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..60 {
        spool.append(&entry(n, 9_000), false).unwrap();
    }
    let sizes = |disk: &SimStorage| -> u64 {
        disk.files().iter().map(|f| disk.read_file(f).unwrap().len() as u64).sum()
    };
    let whole = sizes(&disk);
    for call in [Call::Open, Call::Len, Call::Read, Call::List, Call::Rename, Call::Sync] {
        for skip in [0, 1, 5, 40] {
            let disk = disk.kill();
            let mut spool = (skip > 0).then(|| open(&disk));
            if let Some(spool) = &mut spool {
                for _ in 0..skip {
                    spool.read_next().unwrap();
                }
            }
            disk.fail(Fault::random(call, 1.0, FaultError::Io));
            if let Some(spool) = &mut spool {
                for _ in 0..500 {
                    let _ = spool.read_next();
                }
                let _ = sync(spool);
            } else {
                drop(try_open(&disk));
            }
            disk.clear_faults();
            assert!(sizes(&disk) >= whole, "{call:?} {skip}");
            let mut spool = open(&disk.kill());
            let got = read_through(&mut spool).len();
            assert_eq!((got, spool.take_damage()), (60, vec![]), "{call:?} {skip}");
        }
    }
}

#[test]
fn a_file_that_is_read_only_in_part_gives_the_rest_when_it_can() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..10 {
        spool.append(&entry(n, 9_000), false).unwrap();
    }
    let disk = disk.kill();
    // Its header and some entries are read, then nothing more while the spool is opened.
    for nth in 4..4 + READ_TRIES {
        let path_part = format!("{:016x}.spool", 0);
        disk.fail(Fault {
            call: Some(Call::Read),
            path_part,
            ..Fault::nth(nth.into(), FaultError::Io)
        });
    }
    let mut spool = open(&disk);
    disk.clear_faults();
    assert_eq!(spool.take_damage().len(), 1);
    let number = spool.append(&entry(10, 9_000), false).unwrap();
    assert!(number >= 10, "{number} may be in what was not read");
    let got: Vec<Entry> = read_all(&mut spool).into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(got, (0..=10).map(|n| entry(n, 9_000)).collect::<Vec<_>>());
}
