//! Tests of what is adopted, and what is not.

use super::*;
use crate::store::testing::{Record, SMALL, directory, read_all, record, write};
use std::fs;

pub(super) fn records(from: u64, to: u64) -> Vec<Record> {
    (from..to).map(|n| record(1, n)).collect()
}

pub(super) struct Fixture {
    _temp: tempfile::TempDir,
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
}

pub(super) fn fixture() -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    let (source, target) = (temp.path().join("source"), temp.path().join("target"));
    for path in [&source, &target] {
        fs::create_dir(path).unwrap();
    }
    Fixture { _temp: temp, source, target }
}

impl Fixture {
    pub(super) fn open(&self) -> Restore {
        Restore::open(directory(&self.target), 0).unwrap()
    }

    pub(super) fn stored(&self) -> Vec<Record> {
        let recovered = crate::store::recover::recover(&directory(&self.target), 0).unwrap();
        let mut all: Vec<Record> =
            recovered.catalogue.snapshot().iter().flat_map(|s| read_all(s).0).collect();
        all.sort();
        all
    }
}

#[test]
fn a_whole_store_segment_is_adopted_once() {
    let f = fixture();
    let segment = write(&directory(&f.source), SMALL, &records(0, 40));
    let mut restore = f.open();
    assert!(matches!(restore.store_segment(segment.path()), Verdict::Adopted(40)));
    assert!(matches!(restore.store_segment(segment.path()), Verdict::AlreadyThere));
    assert!(matches!(f.open().store_segment(segment.path()), Verdict::AlreadyThere));
    assert_eq!(f.stored(), records(0, 40));
    assert_eq!(fs::read_dir(&f.target).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_segment_from_the_trash_is_published_again() {
    let f = fixture();
    let segment = write(&directory(&f.source), SMALL, &records(0, 40));
    let (first, last, id) = Name::parse(name_of(segment.path())).unwrap().segment().unwrap();
    for at_ms in [Some(7), None] {
        let trashed = f.source.join(Name::Trashed { first, last, id, at_ms }.to_string());
        fs::copy(segment.path(), &trashed).unwrap();
        assert_eq!(Given::of(&trashed), Given::Store);
        let mut restore = f.open();
        assert!(matches!(restore.store_segment(&trashed), Verdict::Adopted(40)));
        assert_eq!(restore.adopted(), [last]);
        assert!(matches!(f.open().store_segment(&trashed), Verdict::AlreadyThere));
        assert_eq!(f.stored(), records(0, 40));
        fs::remove_file(f.target.join(segment.path().file_name().unwrap())).unwrap();
    }
    assert_eq!(fs::read_dir(&f.target).unwrap().count(), 0, "it was the only file");
}

#[test]
fn any_damage_refuses_the_segment_and_leaves_nothing_behind() {
    let f = fixture();
    let segment = write(&directory(&f.source), SMALL, &records(0, 40));
    let whole = fs::read(segment.path()).unwrap();
    for at in [0, 70, 230, whole.len() / 2, whole.len() - 3] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(segment.path(), bytes).unwrap();
        let verdict = f.open().store_segment(segment.path());
        let Verdict::Damaged(damage) = verdict else { panic!("{at}: {verdict:?}") };
        assert!(damage.iter().all(|d| d.path == segment.path()), "{damage:?}");
    }
    fs::write(segment.path(), &whole[..whole.len() - 100]).unwrap();
    assert!(matches!(f.open().store_segment(segment.path()), Verdict::Damaged(_)));
    assert_eq!(fs::read_dir(&f.target).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_opened_has_failed_and_is_not_called_damaged() {
    let f = fixture();
    let segment = write(&directory(&f.source), SMALL, &records(0, 40));
    fs::remove_file(segment.path()).unwrap();
    assert!(matches!(f.open().store_segment(segment.path()), Verdict::Failed(_)));
    fs::create_dir(segment.path()).unwrap();
    assert!(matches!(f.open().store_segment(segment.path()), Verdict::Failed(_)));
}

#[test]
fn a_whole_copy_takes_the_place_of_a_damaged_one_which_is_kept() {
    let f = fixture();
    let segment = write(&directory(&f.source), SMALL, &records(0, 40));
    let here = f.target.join(segment.path().file_name().unwrap());
    let mut bytes = fs::read(segment.path()).unwrap();
    bytes[230] ^= 1;
    fs::write(&here, &bytes).unwrap();
    assert!(matches!(f.open().store_segment(segment.path()), Verdict::Adopted(40)));
    assert_eq!(f.stored(), records(0, 40));
    let aside = f.target.join(format!("{}.damaged", name_of(&here)));
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

#[test]
fn records_that_the_store_has_under_other_names_are_already_there() {
    let f = fixture();
    let part = write(&directory(&f.source), SMALL, &records(10, 20));
    write(&directory(&f.target), SMALL, &records(0, 15));
    let mut restore = f.open();
    assert!(matches!(restore.store_segment(part.path()), Verdict::Adopted(10)));
    let inside = write(&directory(&f.source), SMALL, &records(12, 18));
    assert!(matches!(restore.store_segment(inside.path()), Verdict::AlreadyThere));
}

#[test]
fn of_damaged_copies_of_an_ingest_segment_none_is_called_there_already() {
    let f = fixture();
    let id = Ulid::from_parts(5, 6, 7);
    let paths = [SegmentState::Flushed, SegmentState::Pending]
        .map(|state| f.source.join(crate::ingest::segment::file_name(id, state)));
    for path in &paths {
        fs::write(path, vec![7; 5000]).unwrap();
    }
    let mut verdicts = Vec::new();
    f.open().ingest_segments(&paths, &f.target, &mut |_, verdict| verdicts.push(verdict));
    let are_damaged = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Damaged(_)));
    assert!(verdicts.len() == 2 && are_damaged, "{verdicts:?}");
}

#[test]
fn names_promise_what_a_file_is() {
    let id = Ulid::from_parts(5, 6, 7);
    let name = crate::ingest::segment::file_name(id, SegmentState::Pending);
    assert_eq!(Given::of(Path::new(&name)), Given::Ingest(id, SegmentState::Pending));
    assert_eq!(Given::of(Path::new("a/shard-3.tail")), Given::Tail);
    let aside = format!("a/shard-3.tail.{id}.damaged");
    assert_eq!(Given::of(Path::new(&aside)), Given::TailAside);
    assert_eq!(Given::of(Path::new(&aside.replace("-3", "-03"))), Given::Unknown);
    let of_another = ["a/STAMPS", "a/STAMPS.new", "a/TOPICS", "a/IDENTITY", "a/IDENTITY.new"];
    for name in of_another.into_iter().chain(["a/LOCK"]) {
        assert_eq!(Given::of(Path::new(name)), Given::Nothing);
    }
    assert_eq!(Given::of(Path::new("a/notes")), Given::Unknown);
}
