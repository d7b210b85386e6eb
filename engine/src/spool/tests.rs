//! The spool on the simulated disk: kills, power losses, flipped bits; what cannot be read, and what the
//! mark knows, in rooms of their own.

mod marks;
mod unread;

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
fn on_a_full_disk_what_is_handed_over_makes_room_whenever_it_was() {
    for extra in (20_000..200_000).step_by(3_001) {
        for at_once in [false, true] {
            let disk = SimStorage::new(1);
            let mut spool = open(&disk);
            disk.set_capacity(disk.used_bytes() + extra);
            let mut given = 0;
            let mut hand_over = |spool: &mut Spool| {
                given += read_all(spool).len() as u64;
                // Without room for the mark, a file makes it.
                let _ = spool.release(given);
            };
            for n in 0..60 {
                match spool.append(&entry(n, 9_000), false) {
                    Ok(number) => assert_eq!(number, n),
                    Err(AppendError::Full) => panic!("it may hold more than the disk"),
                    Err(AppendError::Io(_)) => {
                        assert!(
                            !at_once,
                            "{extra}: nothing waits, and what does not is in the way"
                        );
                        hand_over(&mut spool);
                        let number = spool.append(&entry(n, 9_000), false).unwrap();
                        assert_eq!(number, n, "{extra}");
                    }
                }
                if at_once {
                    hand_over(&mut spool);
                }
            }
        }
    }
}

#[test]
fn a_file_that_was_handed_over_while_it_was_synced_was_not_taken_away() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    disk.set_capacity(disk.used_bytes() + 50_000);
    let mut given = 0;
    while spool.append(&entry(given, 9_000), false).is_ok() {
        given += 1;
        read_all(&mut spool);
        spool.release(given).unwrap();
        if given == 4 {
            break;
        }
    }
    let job = spool.sync_job().unwrap().unwrap();
    assert!(!spool.has_let_go_of(&job));
    // Makes room of the only file, which is there only when nobody has it open any more.
    spool.append(&entry(given, 20_000), false).unwrap_err();
    assert_eq!(job.run().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(spool.has_let_go_of(&job));
    drop(job);
    spool.append(&entry(given, 20_000), false).unwrap();
    let job = spool.sync_job().unwrap().unwrap();
    let outcome = job.run();
    assert!(outcome.is_ok() && !spool.has_let_go_of(&job));
    spool.on_synced(job, outcome).unwrap();
    assert_eq!((read_all(&mut spool).len(), spool.take_damage()), (1, Vec::new()));
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
