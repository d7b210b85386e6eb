//! Tests of what the check says of whole directories.

use super::*;
use crate::storage::OsStorage;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::store::footer::Inputs;
use crate::store::testing::{Record, SMALL, append_all, directory, record, write};
use crate::store::writer::SegmentWriter;
use crate::ulid::Ulid;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind::NotFound;

fn records(to: u64) -> Vec<Record> {
    (0..to).map(|n| record(1, n)).collect()
}

#[test]
fn a_whole_data_directory_is_clean_and_every_file_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    for path in [&store, &temp.path().join("ingest"), &temp.path().join("else")] {
        fs::create_dir(path).unwrap();
    }
    let directory = directory(&store);
    let segment = write(&directory, SMALL, &records(40));
    let mut writer = SegmentWriter::new(&directory, SMALL);
    append_all(&mut writer, &records(40));
    let sealed = writer.seal(Inputs::default()).unwrap().unwrap();
    fs::write(store.join("LOCK"), "1\n").unwrap();
    fs::write(store.join("notes"), "mine\n").unwrap();

    let report = check(&OsStorage, temp.path()).unwrap();
    assert!(report.is_clean());
    assert_eq!(report.record_count(), 40);
    let mut found: Vec<_> = report.files.iter().map(|f| (f.path.clone(), f.kind)).collect();
    let mut expected = [
        (segment.path().to_owned(), FileKind::StoreSegment),
        (sealed.path().to_owned(), FileKind::StoreUnfinished),
        (store.join("LOCK"), FileKind::Lock),
        (store.join("notes"), FileKind::Unknown),
        (temp.path().join("else"), FileKind::Unknown),
    ];
    found.sort_by(|a, b| a.0.cmp(&b.0));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);

    let one = check(&OsStorage, segment.path()).unwrap();
    assert_eq!((one.files.len(), one.record_count()), (1, 40));
    let name = Name::parse(segment.path().file_name().unwrap().to_str().unwrap()).unwrap();
    let (first, last, id) = name.segment().unwrap();
    let name = Name::Trashed { first, last, id, at_ms: Some(7) };
    let trashed = store.join(name.to_string());
    fs::rename(segment.path(), &trashed).unwrap();
    let one = check(&OsStorage, &trashed).unwrap();
    assert!(one.is_clean());
    assert_eq!((one.files[0].kind, one.record_count()), (FileKind::StoreTrashed, 40));
    assert!(check(&OsStorage, &temp.path().join("nowhere")).is_err());
}

#[test]
fn the_identity_of_a_directory_is_told_and_its_damage_costs_no_record() {
    let disk = SimStorage::new(1);
    let path = Path::new("/data/ingest");
    disk.create_dir_all(path).unwrap();
    let id = identity::NodeId(0xabc);
    let side = identity::Side::Ingest;
    let storage = std::sync::Arc::new(disk.clone());
    let opened = identity::IdentityKeeper::open(storage, path, side, id).unwrap();
    let mut keeper = opened.keeper;
    keeper.start(&|| disk.sync_dir(path)).unwrap();
    let report = check(&disk, path).unwrap();
    assert!(report.is_clean() && report.has_data());
    assert_eq!(report.files[0].kind, FileKind::Identity);
    assert_eq!(report.files[0].identity, Some(keeper.identity()));
    for (flipped, whole) in [(20, Some(keeper.identity())), (4096 + 20, None)] {
        disk.flip(&path.join(IDENTITY_FILE), flipped, 3).unwrap();
        let report = check(&disk, path).unwrap();
        assert_eq!(report.files[0].identity, whole);
        assert!(!report.is_clean() && report.damage().all(|d| d.records == Some(0)));
    }
}

#[test]
fn a_side_under_any_name_is_checked_and_another_directory_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let [store, ingest, other] =
        ["segments", "fresh", "database"].map(|name| temp.path().join(name));
    for path in [&store, &ingest, &other] {
        fs::create_dir(path).unwrap();
    }
    fs::write(other.join("LOCK"), "").unwrap();
    let segment = write(&directory(&store), SMALL, &records(10));
    fs::write(ingest.join("01ARZ3NDEKTSV4RRFFQ69G5FAV.flushed"), "abc").unwrap();
    let whole = check(&OsStorage, temp.path()).unwrap();
    assert_eq!(whole.record_count(), 10);
    assert!(whole.damage().all(|damage| damage.path.starts_with(&ingest)));
    assert!(!whole.is_clean());
    assert_eq!(whole.files.iter().find(|f| f.path == other).unwrap().kind, FileKind::Unknown);
    fs::write(segment.path(), "abc").unwrap();
    let damaged = check(&OsStorage, temp.path()).unwrap();
    assert!(damaged.damage().any(|damage| damage.path == segment.path()));
}

#[test]
fn something_else_under_the_name_of_a_segment_that_had_records_is_its_damage() {
    for name in ["01ARZ3NDEKTSV4RRFFQ69G5FAV.flushed", "01ARZ3NDEKTSV4RRFFQ69G5FAV.512.flushed"] {
        for text in ["", "abc", &"something that somebody keeps here\n".repeat(99)] {
            let temp = tempfile::tempdir().unwrap();
            let ingest = temp.path().join("ingest");
            fs::create_dir(&ingest).unwrap();
            fs::write(ingest.join(name), text).unwrap();
            let report = check(&OsStorage, temp.path()).unwrap();
            let damage: Vec<_> = report.files.iter().flat_map(|f| &f.damage).collect();
            assert!(damage.iter().any(|d| d.loses_records()), "{name}: {text:?}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_told_as_that_and_never_as_damage() {
    let disk = SimStorage::new(1);
    let path = Path::new("/data/store");
    disk.create_dir_all(path).unwrap();
    let ids = crate::store::name::IdSource::seeded(1);
    let storage = std::sync::Arc::new(disk.clone());
    let directory = crate::store::StoreDirectory::new(storage, path.to_owned(), ids);
    write(&std::sync::Arc::new(directory), SMALL, &records(40));
    for nth in 1.. {
        // So many in a row: a single one is made up for by reading another way.
        for _ in 0..6 {
            disk.fail(Fault { call: Some(Call::Read), ..Fault::nth(nth, FaultError::Io) });
        }
        let report = check(&disk, Path::new("/data")).unwrap();
        let is_struck = !disk.has_faults();
        disk.clear_faults();
        assert!(report.damage().all(|damage| damage.refusal().is_some()), "read {nth}");
        let is_whole = report.record_count() == 40;
        assert!(is_whole || report.damage().any(Damage::loses_records), "read {nth}: silent");
        if !is_struck {
            break;
        }
        assert!(!report.is_clean(), "read {nth}: told, whatever was found another way");
    }
}

#[test]
fn a_segment_under_a_wrong_name_and_an_unreadable_one_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let segment = write(&directory(temp.path()), SMALL, &records(10));
    let name = Name::parse(segment.path().file_name().unwrap().to_str().unwrap()).unwrap();
    let Name::Flushed { first, last, id } = name else { panic!() };
    let last = Ulid(last.0 + 1);
    let other = temp.path().join(Name::Flushed { first, last, id }.to_string());
    fs::rename(segment.path(), &other).unwrap();
    let report = check(&OsStorage, &other).unwrap();
    let kinds: Vec<_> = report.damage().map(|d| d.kind.clone()).collect();
    assert_eq!(kinds, [DamageKind::Repairable("file name")]);
    fs::write(&other, "").unwrap();
    let report = check(&OsStorage, &other).unwrap();
    assert!(report.damage().any(Damage::loses_records));
}

#[test]
fn what_a_node_needs_and_is_no_file_is_told_and_what_anybody_may_have_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let needed = [
        "ingest/STAMPS",
        "ingest/TOPICS",
        "ingest/WAITING",
        "ingest/IDENTITY",
        "store/INVENTORY",
        "ingest/shard-0.tail",
    ];
    for path in ["IDENTITY", "notes"].iter().chain(&needed) {
        fs::create_dir_all(temp.path().join(path)).unwrap();
    }
    let report = check(&OsStorage, temp.path()).unwrap();
    let told: BTreeSet<_> = report.damage().map(|damage| damage.path.clone()).collect();
    assert_eq!(told, needed.iter().map(|path| temp.path().join(path)).collect());
    // Only the last one may have held records.
    for damage in report.damage() {
        let lost = if damage.path.ends_with("shard-0.tail") { None } else { Some(0) };
        assert_eq!(damage.records, lost, "{damage}");
    }
}

#[test]
fn an_identity_of_the_other_side_is_told() {
    use crate::identity::{Identity, NodeId};
    let stores = Identity { boot: 1, id: NodeId(7), side: Side::Store };
    let ingesters = Identity { side: Side::Ingest, ..stores };
    let told = |files: &[&str], identity: Identity| {
        let disk = SimStorage::new(1);
        let path = Path::new(files[0]).with_file_name(IDENTITY_FILE);
        for file in files.iter().map(Path::new).chain([&*path]) {
            disk.create_dir_all(file.parent().unwrap()).unwrap();
            let made = disk.open(file, Open::CreateNew).unwrap();
            if file == path {
                let copy = crate::twin::encode(&identity);
                let write = |offset| made.write_all_at(&copy, offset).unwrap();
                crate::twin::COPY_OFFSETS.into_iter().for_each(write);
            }
        }
        let report = check(&disk, Path::new("/data")).unwrap();
        let of_it = report.damage().filter(|damage| damage.path == path);
        of_it.map(|damage| damage.kind.clone()).collect::<Vec<_>>()
    };
    let foreign = |whose| vec![DamageKind::Foreign("identity", whose)];
    assert_eq!(told(&["/data/x/shard-0.tail"], stores), foreign("a store"));
    assert_eq!(told(&["/data/x/shard-0.tail"], ingesters), []);
    assert_eq!(told(&["/data/x/0123456789abcdef.writing"], ingesters), foreign("an ingester"));
    assert_eq!(told(&["/data/store/LOCK"], ingesters), foreign("an ingester"));
    assert_eq!(told(&["/data/store/LOCK"], stores), []);
    // Of a directory of another name that holds nothing it is not known, nor of one that holds both.
    assert_eq!(told(&["/data/LOCK"], ingesters), []);
    assert_eq!(told(&["/data/x/shard-0.tail", "/data/x/0123456789abcdef.writing"], stores), []);
}

#[test]
fn a_directory_that_cannot_be_listed_is_told_and_a_file_that_went_is_not() {
    let disk = SimStorage::new(1);
    for path in ["/data/ingest", "/data/store", "/data/spool"] {
        disk.create_dir_all(Path::new(path)).unwrap();
        disk.open(&Path::new(path).join("notes"), Open::CreateNew).unwrap();
    }
    let whole = check(&disk, Path::new("/data")).unwrap();
    assert_eq!((whole.files.len(), whole.is_clean()), (3, true));
    let path_part = "store".into();
    disk.fail(Fault { path_part, ..Fault::random(Call::List, 1.0, FaultError::Io) });
    let report = check(&disk, Path::new("/data")).unwrap();
    let damage: Vec<_> = report.damage().map(|d| d.path.clone()).collect();
    assert_eq!(damage, [PathBuf::from("/data/store")]);
    assert_eq!(report.files.len(), 3);

    let mut gone = unknown("/data/store/x".into(), 0);
    gone.damage = vec![of_file(&gone.path, DamageKind::Unread(Refusal::of_kind(NotFound)))];
    let report = Report::default();
    let stores = Vec::new();
    let mut check = Check { storage: &disk, on_file: &mut |_| {}, stores, report };
    check.add(gone);
    assert_eq!(check.report, Report::default());
}
