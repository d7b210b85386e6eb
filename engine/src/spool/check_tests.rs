//! The check of a spool against what a forwarder would read from it.

use super::*;
use crate::damage::DamageKind;
use crate::spool::entry::FILE_HEADER_BYTES;
use crate::spool::{Entry as Lines, Spool};
use crate::storage::Open;
use crate::storage::sim::SimStorage;
use std::sync::Arc;

const DIRECTORY: &str = "/spool";

fn spool(disk: &SimStorage) -> Spool {
    Spool::open(Arc::new(disk.clone()), PathBuf::from(DIRECTORY), 1 << 20).unwrap().spool
}

/// `entries` entries of two lines each, so long; nothing is released.
fn written(entries: u64, len: usize) -> SimStorage {
    let disk = SimStorage::new(1);
    let mut spool = spool(&disk);
    for n in 0..entries {
        let bytes = format!("{n}\n{}\n", "x".repeat(len)).into_bytes();
        let lines = Lines { bytes, lines: 2, starts_line: true, ends_line: true };
        spool.append(&lines, false).unwrap();
    }
    disk.kill()
}

fn check(disk: &SimStorage) -> CheckedSpool {
    let directory = Path::new(DIRECTORY);
    check_spool(disk, directory, &disk.list(directory).unwrap())
}

fn damage(checked: &CheckedSpool) -> Vec<Damage> {
    checked.files.iter().flat_map(|file| file.damage.clone()).collect()
}

fn file(sequence: u64) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{sequence:016x}.spool"))
}

/// Lines that a forwarder would still send.
fn readable_lines(disk: &SimStorage) -> u64 {
    let mut spool = spool(disk);
    let mut lines = 0;
    while let Some((_, entry)) = spool.read_next().unwrap() {
        lines += entry.lines;
    }
    lines
}

#[test]
fn a_whole_spool_is_clean_says_what_waits_and_is_not_touched() {
    let disk = written(60, 9_000);
    let before: Vec<_> = disk.files().iter().map(|f| disk.read_file(f).unwrap()).collect();
    let checked = check(&disk);
    assert_eq!(damage(&checked), []);
    assert_eq!((checked.waiting_entries, checked.waiting_lines), (60, 120));
    assert!(checked.files.len() > 3);
    let after: Vec<_> = disk.files().iter().map(|f| disk.read_file(f).unwrap()).collect();
    assert_eq!(before, after);

    let mut spool = spool(&disk);
    for _ in 0..25 {
        spool.read_next().unwrap();
    }
    spool.release(25).unwrap();
    let checked = check(&disk);
    assert_eq!((damage(&checked), checked.waiting_lines), (vec![], 70));
    let names: Vec<_> = checked.files.iter().map(|file| file.kind).collect();
    assert!(names.contains(&SpoolFileKind::Mark));
}

#[test]
fn every_flipped_bit_is_told_with_what_it_costs() {
    let len = written(6, 4).read_file(&file(0)).unwrap().len() as u64;
    for offset in 0..len {
        let disk = written(6, 4);
        disk.flip(&file(0), offset, offset as u32).unwrap();
        let checked = check(&disk);
        let damage = damage(&checked);
        assert_eq!(damage.len(), 1, "{offset}: {damage:?}");
        let lines = readable_lines(&disk.kill());
        assert_eq!(checked.waiting_lines, lines, "{offset}");
        let at = damage[0].offset..damage[0].offset + damage[0].len_bytes;
        assert!(at.contains(&offset), "{offset}: {damage:?}");
        // At the end of all nobody can tell what there was.
        let expected =
            if damage[0].kind == DamageKind::Unfinished { None } else { Some(12 - lines) };
        assert_eq!(damage[0].records, expected, "{offset}: {damage:?}");
        let alone = check_spool_file(&disk, &file(0), len);
        assert_eq!(alone.files[0].damage.len(), 1, "{offset}");
    }
}

#[test]
fn a_missing_file_is_told_with_the_lines_it_held() {
    let disk = written(60, 9_000);
    disk.remove(&file(1)).unwrap();
    let checked = check(&disk);
    let lines = readable_lines(&disk.kill());
    assert_eq!(checked.waiting_lines, lines);
    let damage = damage(&checked);
    assert_eq!((damage.len(), damage[0].records), (1, Some(120 - lines)), "{damage:?}");
    assert_eq!(damage[0].path, file(2));
    disk.remove(&file(0)).unwrap();
    // The mark may be behind: whether something is missing before the first nobody can tell.
    assert_eq!(check(&disk).waiting_lines, readable_lines(&disk.kill()));
}

#[test]
fn a_damaged_entry_with_a_whole_copy_costs_nothing() {
    let disk = written(6, 4);
    let copy = disk.read_file(&file(0)).unwrap();
    let target = disk.open(&file(1), Open::CreateNew).unwrap();
    target.write_all_at(&copy, 0).unwrap();
    disk.flip(&file(0), 100, 1).unwrap();
    let checked = check(&disk);
    assert_eq!(checked.waiting_lines, 12);
    let damage = damage(&checked);
    assert!(damage.iter().all(|d| d.records == Some(0)), "{damage:?}");
    // The copy of the header names the other file.
    assert_eq!(damage.iter().filter(|d| d.loses_records()).count(), 1, "{damage:?}");
}

#[test]
fn every_cut_leaves_what_a_forwarder_reads() {
    let len = written(4, 4).read_file(&file(0)).unwrap().len() as u64;
    let each = (len - FILE_HEADER_BYTES) / 4;
    for cut in 0..len {
        let disk = written(4, 4);
        disk.truncate(&file(0), cut).unwrap();
        let checked = check(&disk);
        // A file without a single entry is told: one is written with the file.
        let is_between = cut > FILE_HEADER_BYTES && (cut - FILE_HEADER_BYTES).is_multiple_of(each);
        assert_eq!(damage(&checked).is_empty(), is_between, "{cut}");
        assert_eq!(checked.waiting_lines, readable_lines(&disk.kill()), "{cut}");
    }
}

#[test]
fn a_damaged_mark_is_told_and_everything_waits() {
    let disk = written(6, 4);
    let mut opened = spool(&disk);
    for _ in 0..3 {
        opened.read_next().unwrap();
    }
    opened.release(3).unwrap();
    let disk = disk.kill();
    assert_eq!(check(&disk).waiting_lines, 6);
    disk.flip(&Path::new(DIRECTORY).join(MARK_FILE), 512 + 9, 1).unwrap();
    let checked = check(&disk);
    assert_eq!((checked.waiting_lines, damage(&checked).len()), (12, 1));
    assert_eq!(damage(&checked)[0].records, Some(0));
}

#[test]
fn a_damaged_slot_of_the_mark_is_told_and_the_other_one_counts() {
    let disk = written(6, 4);
    let mut opened = spool(&disk);
    for before in 1..=3 {
        opened.read_next().unwrap();
        opened.release(before).unwrap();
    }
    let disk = disk.kill();
    assert_eq!((check(&disk).waiting_lines, damage(&check(&disk)).len()), (6, 0));
    // The third write went to the second slot: the first is one behind.
    disk.flip(&Path::new(DIRECTORY).join(MARK_FILE), 512 + 9, 1).unwrap();
    let checked = check(&disk);
    assert_eq!((checked.waiting_lines, damage(&checked).len()), (8, 1));
    assert!(damage(&checked)[0].to_string().contains("sent twice"));
}

#[test]
fn what_was_set_aside_does_not_wait_and_its_damage_is_told() {
    let disk = written(6, 4);
    disk.flip(&file(0), 100, 1).unwrap();
    disk.rename(&file(0), &file(0).with_extension("damaged")).unwrap();
    let checked = check(&disk);
    assert_eq!(checked.files[0].kind, SpoolFileKind::SetAside);
    assert_eq!((checked.waiting_lines, checked.files[0].line_count), (0, 10));
    assert_eq!(damage(&checked)[0].records, Some(2));
}

#[test]
fn names_and_listings_of_a_spool_are_known() {
    let of = SpoolFileKind::of;
    assert_eq!(of("0000000000000005.spool"), Some(SpoolFileKind::Entries));
    assert_eq!(of("0000000000000005.damaged"), Some(SpoolFileKind::SetAside));
    assert_eq!(of("mark"), Some(SpoolFileKind::Mark));
    for name in ["5.spool", "x.damaged", "01ARZ3NDEKTSV4RRFFQ69G5FAV.damaged", "LOCK", "damaged"] {
        assert_eq!(of(name), None, "{name}");
    }
    let entry = |name: &str| Entry { name: Some(name.into()), is_file: true, len_bytes: 0 };
    let directory = Path::new(DIRECTORY);
    let disk = written(1, 10);
    assert!(is_spool(&disk, directory, &[entry("x"), entry("0000000000000005.spool")]));
    assert!(!is_spool(&disk, directory, &[entry("mark"), entry("notes")]), "anybody's");
    let mut sent = spool(&disk);
    let number = sent.read_next().unwrap().unwrap().0;
    sent.release(number + 1).unwrap();
    assert!(is_spool(&disk, directory, &[entry("mark"), entry("notes")]), "one of ours");
}
