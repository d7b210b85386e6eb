//! The spool on the simulated disk: kills, power losses, failing calls, flipped bits.

use super::judge::READ_TRIES;
use super::*;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};

const DIRECTORY: &str = "/spool";
const BYTES_MAX: u64 = 1 << 20;

pub(super) fn entry(n: u64, len: usize) -> Entry {
    let mut bytes = format!("{n} ").into_bytes();
    bytes.resize(bytes.len() + len, b'x');
    bytes.push(b'\n');
    Entry { bytes, lines: 1, starts_line: true, ends_line: true }
}

pub(super) fn try_open(disk: &SimStorage) -> io::Result<Opened> {
    Spool::open(Arc::new(disk.clone()), PathBuf::from(DIRECTORY), BYTES_MAX)
}

pub(super) fn open(disk: &SimStorage) -> Spool {
    try_open(disk).unwrap().spool
}

pub(super) fn sync(spool: &mut Spool) -> io::Result<()> {
    let Some(job) = spool.sync_job()? else { return Ok(()) };
    let outcome = job.run();
    let failed = outcome.is_err();
    spool.on_synced(job, outcome)?;
    if failed { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
}

fn read_all(spool: &mut Spool) -> Vec<(u64, Entry)> {
    let mut all = Vec::new();
    while let Some(next) = spool.read_next().unwrap() {
        all.push(next);
    }
    all
}

fn names(disk: &SimStorage) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    disk.files().iter().map(name).collect()
}

#[test]
fn entries_come_out_in_order_once_and_go_on_after_a_kill_where_they_were_released() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..5 {
        assert_eq!(spool.append(&entry(n, 3), false).unwrap(), n);
    }
    assert_eq!(spool.read_next().unwrap(), Some((0, entry(0, 3))));
    assert_eq!(spool.read_next().unwrap(), Some((1, entry(1, 3))));
    spool.release(1).unwrap();
    let disk = disk.kill();
    let mut spool = open(&disk);
    assert_eq!((spool.pending_entries(), spool.pending_lines()), (4, 4));
    assert_eq!(spool.append(&entry(5, 0), false).unwrap(), 5);
    let numbers: Vec<u64> = read_all(&mut spool).iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    spool.release(6).unwrap();
    spool.finish().unwrap();
    assert_eq!(names(&disk), ["mark"]);
    assert_eq!(spool.take_damage(), []);
    // Numbers go on although no file is left.
    assert_eq!(open(&disk.kill()).append(&entry(6, 0), false).unwrap(), 6);
}

#[test]
fn a_full_spool_refuses_until_something_is_released() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    let mut appended = 0;
    while spool.append(&entry(appended, 10_000), false).is_ok() {
        appended += 1;
    }
    assert!(matches!(spool.append(&entry(0, 10_000), false), Err(AppendError::Full)));
    assert!(spool.disk_bytes() <= BYTES_MAX && spool.disk_bytes() > BYTES_MAX - 20_000);
    assert!(!spool.has_ample_room());
    // At a stop there is room for what was read already.
    spool.append(&entry(appended, 10_000), true).unwrap();
    for _ in 0..40 {
        spool.read_next().unwrap();
    }
    spool.release(40).unwrap();
    assert!(spool.has_ample_room());
    spool.append(&entry(appended, 10_000), false).unwrap();
}

#[test]
fn a_record_larger_than_the_spool_passes_through_an_empty_one() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    spool.append(&entry(0, 2 << 20), false).unwrap();
    assert!(matches!(spool.append(&entry(1, 0), false), Err(AppendError::Full)));
    read_all(&mut spool);
    spool.release(1).unwrap();
    spool.append(&entry(1, 0), false).unwrap();
    assert_eq!(read_all(&mut spool).len(), 1);
}

/// The bytes of `docs/format-spool.md`.
#[test]
fn the_worked_example_of_the_format_page_is_what_is_written() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    let first = Entry { bytes: b"a\nb\n".to_vec(), lines: 2, starts_line: true, ends_line: true };
    spool.append(&first, false).unwrap();
    let last = Entry { bytes: b"end".to_vec(), lines: 1, starts_line: true, ends_line: false };
    spool.append(&last, false).unwrap();
    spool.read_next().unwrap();
    spool.release(1).unwrap();
    let hex = |name: &str| {
        let bytes = disk.read_file(&Path::new(DIRECTORY).join(name)).unwrap();
        bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat()
    };
    let page = include_str!("../../../docs/format-spool.md");
    let block = |title: &str| {
        let text = page.split(title).nth(1).unwrap().split("```").nth(1).unwrap();
        let rows = text.lines().filter_map(|line| line.split("  ").next());
        rows.flat_map(str::split_whitespace).collect::<String>()
    };
    assert_eq!(block("### File 0000000000000000.spool"), hex("0000000000000000.spool"));
    let mark = hex("mark");
    assert_eq!(block("### Mark"), mark[512 * 2..]);
    assert!(mark[..512 * 2].bytes().all(|b| b == b'0'));
}

#[test]
fn every_flipped_bit_is_told_costs_one_entry_at_most_and_its_file_is_set_aside() {
    let written = |seed| {
        let disk = SimStorage::new(seed);
        let mut spool = open(&disk);
        for n in 0..6 {
            spool.append(&entry(n, 4), false).unwrap();
        }
        disk.kill()
    };
    let path = Path::new(DIRECTORY).join("0000000000000000.spool");
    let len = written(1).read_file(&path).unwrap().len() as u64;
    for offset in 0..len {
        let disk = written(1);
        disk.flip(&path, offset, offset as u32).unwrap();
        let mut spool = open(&disk);
        let got = read_all(&mut spool);
        assert!(got.len() >= 5, "{offset}: {}", got.len());
        assert!(got.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(got.iter().all(|(n, e)| *e == entry(*n, 4)), "{offset}");
        let damage = spool.take_damage();
        assert_eq!(damage.len(), 1, "{offset}: {damage:?}");
        spool.release(6).unwrap();
        let lost = damage[0].records;
        assert!(lost.is_none() || lost == Some(6 - got.len() as u64), "{offset}: {damage:?}");
        spool.finish().unwrap();
        if got.len() < 6 {
            assert!(names(&disk).iter().any(|n| n.ends_with(".damaged")), "{offset}");
        }
    }
}

#[test]
fn every_cut_costs_only_what_was_cut_off() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..4 {
        spool.append(&entry(n, 4), false).unwrap();
    }
    let path = Path::new(DIRECTORY).join("0000000000000000.spool");
    let len = disk.read_file(&path).unwrap().len() as u64;
    let each = (len - FILE_HEADER_BYTES) / 4;
    for cut in 0..len {
        let disk = disk.kill();
        disk.truncate(&path, cut).unwrap();
        let mut spool = open(&disk);
        let whole = cut.saturating_sub(FILE_HEADER_BYTES) / each;
        assert_eq!(read_all(&mut spool).len() as u64, whole, "{cut}");
        // What comes next is taken and read, whatever was lost.
        spool.append(&entry(9, 4), false).unwrap();
        assert_eq!(read_all(&mut spool).len(), 1, "{cut}");
    }
}

#[test]
fn a_missing_file_is_told_with_what_it_held() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..60 {
        spool.append(&entry(n, 9_000), false).unwrap();
    }
    let disk = disk.kill();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.remove(&Path::new(DIRECTORY).join("0000000000000001.spool")).unwrap();
    let mut spool = open(&disk);
    let got = read_all(&mut spool).len() as u64;
    let damage = spool.take_damage();
    assert_eq!((damage.len(), damage[0].records), (1, Some(60 - got)), "{damage:?}");
}

#[test]
fn unknown_files_are_told_and_left_and_damaged_ones_counted() {
    let disk = SimStorage::new(1);
    drop(open(&disk));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    for name in ["mine.txt", "0000000000000005.damaged", "LOCK", "xyz.spool"] {
        storage.open(&Path::new(DIRECTORY).join(name), Open::CreateNew).unwrap();
    }
    let opened = try_open(&disk).unwrap();
    let mut unknown = opened.unknown;
    unknown.sort();
    assert_eq!((unknown, opened.set_aside), (vec!["mine.txt".into(), "xyz.spool".into()], 1));
    let mut spool = opened.spool;
    spool.append(&entry(0, 0), false).unwrap();
    assert!(names(&disk).contains(&"0000000000000006.spool".to_owned()), "numbers are not reused");
}

#[test]
fn names_that_others_have_are_passed_over() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    for name in ["0000000000000000.spool", "0000000000000001.spool", "ffffffffffffffff.spool"] {
        storage.open(&Path::new(DIRECTORY).join(name), Open::CreateNew).unwrap();
    }
    spool.append(&entry(0, 0), false).unwrap();
    assert!(names(&disk).contains(&"0000000000000002.spool".to_owned()));
    let opened = try_open(&disk).unwrap();
    assert_eq!(opened.unknown, ["ffffffffffffffff.spool"]);
    let mut spool = opened.spool;
    spool.append(&entry(1, 0), false).unwrap();
    assert_eq!(read_all(&mut spool), [(0, entry(0, 0)), (1, entry(1, 0))]);
}

/// Reads on over refusals, as a forwarder does, until nothing more comes.
fn read_through(spool: &mut Spool) -> Vec<(u64, Entry)> {
    let (mut all, mut refusals) = (Vec::new(), 0);
    loop {
        match spool.read_next() {
            Ok(Some(next)) => all.push(next),
            Ok(None) => return all,
            Err(_) => refusals += 1,
        }
        assert!(refusals < 1000, "it waits for ever");
    }
}

fn spool_path(sequence: u64) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{sequence:016x}.spool"))
}

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

#[test]
fn a_file_that_is_taken_away_is_written_again_where_that_is_noticed_and_told_at_the_end() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    spool.append(&entry(0, 3), false).unwrap();
    sync(&mut spool).unwrap();
    disk.remove(&spool_path(0)).unwrap();
    spool.append(&entry(1, 3), false).unwrap();
    assert!(sync(&mut spool).is_err(), "it is told");
    sync(&mut spool).unwrap();
    spool.finish().unwrap();
    let mut next = open(&disk.crash(1));
    let numbers: Vec<u64> = read_all(&mut next).iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [0, 1], "synced before or not");
    // Nothing is synced any more.
    disk.remove(&spool_path(1)).unwrap();
    let error = spool.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("taken it away"), "{error}");
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

#[test]
fn after_a_failed_sync_a_restart_finds_every_entry_once() {
    for synced in [0, 3] {
        for seed in 0..20 {
            let disk = SimStorage::new(seed);
            let mut spool = open(&disk);
            for n in 0..3 {
                spool.append(&entry(n, 2_000), false).unwrap();
            }
            if synced > 0 {
                sync(&mut spool).unwrap();
            }
            for n in 3..6 {
                spool.append(&entry(n, 2_000), false).unwrap();
            }
            disk.fail(Fault { call: Some(Call::Sync), ..Fault::nth(1, FaultError::Io) });
            sync(&mut spool).unwrap_err();
            spool.append(&entry(6, 2_000), false).unwrap();
            let expected: Vec<(u64, Entry)> = (0..7).map(|n| (n, entry(n, 2_000))).collect();
            let mut killed = open(&disk.kill());
            assert_eq!(read_all(&mut killed), expected, "after a kill");
            assert_eq!(killed.take_damage(), vec![]);
            // The copies are synced by the next job: after it nothing depends on the file that failed.
            sync(&mut spool).unwrap();
            assert_eq!(read_all(&mut open(&disk.crash(seed))), expected, "after a power loss");
        }
    }
}
