//! The inventory of a directory: what was moved away is a hole, and nothing else is.

use std::path::PathBuf;
use std::sync::Arc;

use super::look::check;
use super::*;
use crate::identity::{IDENTITY_FILE, IdentityKeeper, Side};
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::storage::{Open, Storage};
use crate::store::StoreDirectory;
use crate::store::catalogue::Catalogue;
use crate::store::name::IdSource;
use crate::store::recover::{Recovered, recover};
use crate::store::retention::{ClockWatch, RetentionLimits};
use crate::store::retention_run::Retention;
use crate::store::testing::{Record, SMALL, record, write};

const STORE: &str = "/store";

fn records(from: u64, to: u64) -> Vec<Record> {
    (from..to).map(|n| record(1, n)).collect()
}

/// Three segments, and the inventory that an orderly stop leaves.
fn disk() -> SimStorage {
    let sim = SimStorage::new(1);
    sim.create_dir_all(Path::new(STORE)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    let directory = directory(&sim);
    for part in [records(0, 40), records(40, 80), records(80, 120)] {
        write(&directory, SMALL, &part);
    }
    let recovered = start(&sim);
    assert_eq!(recovered.damage, []);
    recovered.catalogue.save_inventory().unwrap();
    sim
}

fn directory(sim: &SimStorage) -> Arc<StoreDirectory> {
    let storage = Arc::new(sim.clone());
    Arc::new(StoreDirectory::new(storage, PathBuf::from(STORE), IdSource::seeded(9)))
}

fn start(sim: &SimStorage) -> Recovered {
    recover(&directory(sim), 0).unwrap()
}

/// It gives ids that no file has: those of a start begin anew.
fn catalogue_directory_with_new_ids(catalogue: &Catalogue) -> Arc<StoreDirectory> {
    for _ in 0..9 {
        catalogue.directory().ids.next_id();
    }
    Arc::clone(catalogue.directory())
}

fn inventory_file() -> PathBuf {
    Path::new(STORE).join(INVENTORY_FILE)
}

fn segments(sim: &SimStorage) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "flushed");
    sim.files().into_iter().filter(|path| path.starts_with(STORE) && is_segment(path)).collect()
}

fn fsck(sim: &SimStorage) -> Vec<Damage> {
    check(sim, &inventory_file()).unwrap()
}

/// Nothing is told by a start nor by fsck.
fn assert_whole(sim: &SimStorage) {
    assert_eq!((start(sim).damage, fsck(sim)), (vec![], vec![]));
}

/// The one hole that is told, everywhere.
fn hole(sim: &SimStorage, recovered: &Recovered) -> Gap {
    assert_eq!(recovered.damage, *recovered.catalogue.holes());
    assert_eq!(fsck(sim), recovered.damage);
    let [Damage { kind: DamageKind::Missing(_, gap), .. }] = recovered.damage[..] else {
        panic!("{:?}", recovered.damage);
    };
    gap
}

/// Retention by size that leaves so many segments, from now on.
fn shrink(catalogue: &Catalogue, left: usize) -> Retention {
    let bytes: Vec<u64> = catalogue.snapshot().iter().map(|s| s.meta().file_bytes).collect();
    let max = bytes[bytes.len() - left..].iter().sum();
    let (retain_ms, purge_ms) = (u64::MAX, u64::MAX);
    let limits = RetentionLimits { retain_ms, purge_ms, size_bytes_max: Some(max) };
    Retention::new(limits, ClockWatch::default())
}

#[test]
fn what_was_moved_away_is_a_hole_until_it_is_back() {
    let sim = disk();
    for number in 0..3 {
        let path = segments(&sim)[number].clone();
        sim.rename(&path, Path::new("/away")).unwrap();
        // Over restarts, too, and whatever is saved meanwhile.
        for _ in 0..3 {
            let recovered = start(&sim);
            let gap = hole(&sim, &recovered);
            let from = number as u64 * 40;
            assert_eq!((gap.stream, gap.from, gap.to), (1, from, from + 39));
            let told = &recovered.damage[0];
            assert!(told.loses_records() && told.records == Some(40), "{told}");
            let (first, last) = told.range.unwrap();
            assert!(first <= record(1, from).ulid && record(1, from + 39).ulid <= last);
            recovered.catalogue.save_inventory().unwrap();
        }
        sim.rename(Path::new("/away"), &path).unwrap();
        assert_whole(&sim);
    }
}

#[test]
fn what_is_missing_and_stored_once_more_is_missed_no_more() {
    let sim = disk();
    sim.remove(&segments(&sim)[1]).unwrap();
    let Recovered { catalogue, damage, .. } = start(&sim);
    assert_eq!(damage.len(), 1);
    // The ingest side still had it, as after a kill.
    let again = write(catalogue.directory(), SMALL, &records(40, 80));
    catalogue.publish(vec![again], &[]);
    catalogue.read_again();
    assert_eq!(*catalogue.holes(), []);
    assert_eq!(fsck(&sim), []);
}

#[test]
fn what_was_missing_and_is_merged_by_now_does_not_come_back_while_it_is_on_its_way_out() {
    let sim = disk();
    sim.remove(&segments(&sim)[1]).unwrap();
    let Recovered { catalogue, damage, .. } = start(&sim);
    assert_eq!(damage.len(), 1);
    let again = write(&catalogue_directory_with_new_ids(&catalogue), SMALL, &records(40, 80));
    let id = again.meta().id;
    catalogue.publish(vec![again], &[]);
    // A query holds it, and it is merged before anybody has looked again what is missing.
    let pinned = catalogue.snapshot();
    let merged = write(catalogue.directory(), SMALL, &records(40, 80));
    let old = pinned.iter().find(|segment| segment.meta().id == id).unwrap();
    catalogue.publish(vec![merged], &[Arc::clone(old)]);
    assert_eq!(catalogue.read_again().back, Vec::<PathBuf>::new());
    assert_eq!((catalogue.snapshot().len(), catalogue.holes().len()), (3, 0));
    drop(pinned);
    assert_eq!(catalogue.remove_replaced().removed_count, 1);
    assert_whole(&sim);
}

#[test]
fn what_is_put_back_is_missing_until_it_is_published_whatever_comes_meanwhile() {
    let sim = disk();
    let path = segments(&sim)[1].clone();
    sim.rename(&path, Path::new("/away")).unwrap();
    let Recovered { catalogue, .. } = start(&sim);
    let more = write(&catalogue_directory_with_new_ids(&catalogue), SMALL, &records(120, 140));
    catalogue.publish(vec![more], &[]);
    sim.rename(Path::new("/away"), &path).unwrap();
    // It is there when it is looked what is missing, but was not when it was looked what is back.
    sim.fail(Fault { call: Some(Call::List), ..Fault::nth(1, FaultError::Io) });
    assert_eq!(catalogue.read_again().back, Vec::<PathBuf>::new());
    assert_eq!(catalogue.missing_records(), 40);
    assert_eq!(catalogue.read_again().back, [path]);
    assert_eq!((catalogue.snapshot().len(), catalogue.missing_records()), (4, 0));
    assert_whole(&sim);
}

#[test]
fn what_is_put_back_under_a_running_node_is_found_and_missed_no_more() {
    let sim = disk();
    let [first, second, _] = &segments(&sim)[..] else { panic!() };
    let away = [Path::new("/away/1"), Path::new("/away/2")];
    sim.create_dir_all(Path::new("/away")).unwrap();
    sim.rename(first, away[0]).unwrap();
    sim.rename(second, away[1]).unwrap();
    let recovered = start(&sim);
    assert_eq!(hole(&sim, &recovered).record_count(), 80);
    let catalogue = &recovered.catalogue;
    assert_eq!(catalogue.read_again().back, Vec::<PathBuf>::new());
    sim.rename(away[1], second).unwrap();
    let list = Fault::random(Call::List, 1.0, FaultError::Io);
    sim.fail(list.clone());
    assert_eq!(catalogue.read_again().back, Vec::<PathBuf>::new());
    sim.clear_faults();
    assert_eq!(catalogue.read_again().back, std::slice::from_ref(second));
    assert_eq!((catalogue.snapshot().len(), catalogue.holes()[0].records), (2, Some(40)));
    // A part of a copy is none.
    let whole = sim.open(away[0], Open::Read).unwrap();
    let mut bytes = vec![0; whole.len().unwrap() as usize];
    whole.read_exact_at(&mut bytes, 0).unwrap();
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let copy = sim.open(first, Open::CreateNew).unwrap();
    copy.write_all_at(half, 0).unwrap();
    assert_eq!(catalogue.read_again().back, Vec::<PathBuf>::new());
    copy.write_all_at(rest, half.len() as u64).unwrap();
    assert_eq!(catalogue.read_again().back, std::slice::from_ref(first));
    assert_eq!((catalogue.snapshot().len(), catalogue.holes().len()), (3, 0));
    assert_eq!(catalogue.read_again().back, Vec::<PathBuf>::new());
    assert_whole(&sim);
}

#[test]
fn what_has_expired_and_what_is_in_the_trash_is_no_hole() {
    let sim = disk();
    let catalogue = start(&sim).catalogue;
    let last_ms = record(1, 39).ulid.ms();
    let limits = RetentionLimits { retain_ms: 1_000, purge_ms: 1_000, size_bytes_max: None };
    let mut retention = Retention::new(limits, ClockWatch::start(0, last_ms, last_ms));
    for (ms, left) in [(1_000, 2), (3_000, 0)] {
        retention.turn(&catalogue, ms, last_ms + ms);
        assert_eq!(segments(&sim).len(), left);
        assert_whole(&sim);
    }
    retention.turn(&catalogue, 9_000, last_ms + 9_000);
    assert_eq!(sim.files(), [inventory_file()], "all of it was purged");
    assert_whole(&sim);
}

#[test]
fn a_hole_stays_told_while_its_neighbours_expire_and_goes_with_its_time() {
    let sim = disk();
    sim.remove(&segments(&sim)[1]).unwrap();
    let catalogue = start(&sim).catalogue;
    let limits = RetentionLimits { retain_ms: 1_000, purge_ms: 1_000, size_bytes_max: None };
    let first_ms = record(1, 39).ulid.ms();
    let mut retention = Retention::new(limits, ClockWatch::start(0, first_ms, first_ms));
    retention.turn(&catalogue, 1_000, first_ms + 1_000);
    assert_eq!(segments(&sim).len(), 1, "the first has expired");
    let left = start(&sim);
    let gap = hole(&sim, &left);
    assert_eq!((gap.from, gap.to, gap.from_ms), (40, 79, first_ms));
    // Where the next one begins it was over.
    let over_ms = record(1, 80).ulid.ms() - first_ms + 1_000;
    retention.turn(&catalogue, over_ms - 1, first_ms + over_ms - 1);
    assert_eq!(catalogue.holes().len(), 1);
    retention.turn(&catalogue, over_ms, first_ms + over_ms);
    assert_eq!((segments(&sim).len(), catalogue.holes().len()), (1, 0));
    retention.turn(&catalogue, over_ms + 10_000, first_ms + over_ms);
    assert_whole(&sim);
}

#[test]
fn nothing_goes_before_it_is_let_go_on_disk_but_for_want_of_space_or_patience() {
    for (error, waits_ms) in [(FaultError::NoSpace, 0), (FaultError::Io, 600_000)] {
        let sim = disk();
        let catalogue = start(&sim).catalogue;
        let mut retention = shrink(&catalogue, 1);
        let path_part = INVENTORY_NEW_FILE.into();
        sim.fail(Fault { path_part, ..Fault::random(Call::Write, 1.0, error) });
        for ms in (0..waits_ms).step_by(50_000) {
            let turn = retention.turn(&catalogue, ms, 0);
            assert_eq!((turn.failed.len(), segments(&sim).len()), (1, 3), "{error:?} {ms}");
            assert_whole(&sim);
        }
        retention.turn(&catalogue, waits_ms, 0);
        assert_eq!(segments(&sim).len(), 1, "{error:?}");
        assert_whole(&sim);
        sim.clear_faults();
        retention.turn(&catalogue, waits_ms + 20_000, 0);
        sim.remove(&segments(&sim)[0]).unwrap();
        assert_eq!(hole(&sim, &start(&sim)).from, 80, "it is kept again");
    }
}

#[test]
fn what_is_no_inventory_or_one_of_later_on_a_full_disk_keeps_no_file_from_going() {
    // A directory of its name.
    let temp = tempfile::tempdir().unwrap();
    let directory = crate::store::testing::directory(temp.path());
    for part in [records(0, 40), records(40, 80), records(80, 120)] {
        write(&directory, SMALL, &part);
    }
    std::fs::create_dir(temp.path().join(INVENTORY_FILE)).unwrap();
    let catalogue = recover(&directory, 0).unwrap().catalogue;
    shrink(&catalogue, 1).turn(&catalogue, 0, 0);
    let left = std::fs::read_dir(temp.path()).unwrap().flatten();
    let is_segment = |e: &std::fs::DirEntry| e.path().extension().is_some_and(|e| e == "flushed");
    assert_eq!(left.filter(is_segment).count(), 1);

    // One that is in the way of the next one is no reason to give this one up.
    let temp = tempfile::tempdir().unwrap();
    let directory = crate::store::testing::directory(temp.path());
    for part in [records(0, 40), records(40, 80), records(80, 120)] {
        write(&directory, SMALL, &part);
    }
    let catalogue = recover(&directory, 0).unwrap().catalogue;
    catalogue.save_inventory().unwrap();
    std::fs::create_dir(temp.path().join(INVENTORY_NEW_FILE)).unwrap();
    let turn = shrink(&catalogue, 1).turn(&catalogue, 0, 0);
    assert_eq!((turn.trashed.len(), turn.failed.len()), (0, 1));
    assert!(temp.path().join(INVENTORY_FILE).is_file());

    // A later version, with room and without.
    for (is_full, left) in [(false, 3), (true, 1)] {
        let sim = disk();
        let mut bytes = sim.read_file(&inventory_file()).unwrap();
        bytes[INVENTORY_MAGIC.len()] = 9;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        sim.open(&inventory_file(), Open::Write).unwrap().write_all_at(&bytes, 0).unwrap();
        let catalogue = start(&sim).catalogue;
        let files: u64 = sim.files().iter().map(|f| sim.read_file(f).unwrap().len() as u64).sum();
        if is_full {
            sim.set_capacity(files);
        }
        let turn = shrink(&catalogue, 1).turn(&catalogue, 0, 0);
        assert_eq!((turn.is_held, turn.has_given_up), (!is_full, is_full));
        assert_eq!(segments(&sim).len(), left, "{is_full}");
    }
}

#[test]
fn a_stop_of_any_kind_while_segments_expire_makes_no_hole() {
    for is_power_loss in [false, true] {
        for nth in 0..60 {
            let sim = disk();
            let catalogue = start(&sim).catalogue;
            sim.fail(Fault::nth(nth, FaultError::Io));
            shrink(&catalogue, 1).turn(&catalogue, 0, 0);
            let is_struck = !sim.has_faults();
            let after = if is_power_loss { sim.crash(nth) } else { sim.kill() };
            assert_whole(&after);
            if !is_struck {
                break;
            }
            assert!(nth < 59, "all calls were struck");
        }
    }
}

#[test]
fn what_somebody_put_into_the_trash_is_missed_neither_there_nor_afterwards() {
    let sim = disk();
    let path = segments(&sim)[1].clone();
    sim.rename(&path, &path.with_extension("trashed")).unwrap();
    assert_whole(&sim);
    let catalogue = start(&sim).catalogue;
    let limits = RetentionLimits { retain_ms: u64::MAX, purge_ms: 10, size_bytes_max: None };
    let mut retention = Retention::new(limits, ClockWatch::default());
    let last_ms = record(1, 119).ulid.ms();
    for ms in [0, 20] {
        retention.turn(&catalogue, ms, last_ms + ms);
    }
    assert_eq!(sim.files().len(), 3, "purged");
    assert_whole(&sim);
    sim.remove(&segments(&sim)[1]).unwrap();
    assert_eq!(hole(&sim, &start(&sim)).from, 80, "later ones are missed");
}

#[test]
fn what_cannot_be_read_and_what_is_compacted_is_no_hole() {
    let sim = disk();
    let catalogue = start(&sim).catalogue;
    let middle = catalogue.snapshot()[1].clone();
    // A copy that was merged with others is the same records.
    catalogue.publish(vec![write(&directory(&sim), SMALL, &records(30, 90))], &[]);
    sim.remove(middle.path()).unwrap();
    catalogue.save_inventory().unwrap();
    assert_whole(&sim);

    let sim = disk();
    let path = segments(&sim)[1].clone();
    let end = sim.open(&path, Open::Read).unwrap().len().unwrap();
    sim.flip(&path, end - 1, 3).unwrap();
    let is_hole = |damage: &Damage| matches!(damage.kind, DamageKind::Missing(..));
    assert!(!start(&sim).damage.iter().any(is_hole), "its footer is damaged");
    sim.open(&path, Open::Write).unwrap().set_len(0).unwrap();
    let damage = start(&sim).damage;
    assert!(damage.iter().any(Damage::loses_records) && !damage.iter().any(is_hole));
    assert_eq!(fsck(&sim), []);
}

#[test]
fn what_expires_of_which_only_the_name_is_known_is_no_hole() {
    let sim = disk();
    let path = segments(&sim)[1].clone();
    let end = sim.open(&path, Open::Read).unwrap().len().unwrap();
    sim.flip(&path, end - 1, 3).unwrap();
    let catalogue = start(&sim).catalogue;
    shrink(&catalogue, 1).turn(&catalogue, 0, 0);
    assert_eq!(segments(&sim).len(), 1);
    assert_whole(&sim);
}

#[test]
fn an_inventory_that_cannot_be_read_is_read_later_and_a_damaged_one_costs_no_record() {
    let sim = disk();
    sim.remove(&segments(&sim)[1]).unwrap();
    let refused = Fault::random(Call::Read, 1.0, FaultError::Io);
    sim.fail(Fault { path_part: INVENTORY_FILE.into(), ..refused });
    let recovered = start(&sim);
    let told = &recovered.damage[0];
    assert!(told.refusal().is_some() && told.records == Some(0), "{told}");
    assert!(recovered.catalogue.save_inventory().is_err(), "nothing is written over it");
    sim.clear_faults();
    recovered.catalogue.save_inventory().unwrap();
    let gap = hole(&sim, &start(&sim));
    let told = recovered.catalogue.holes();
    assert!(
        matches!(told[..], [Damage { kind: DamageKind::Missing(_, found), .. }] if found == gap)
    );

    sim.flip(&inventory_file(), 30, 1).unwrap();
    let again = start(&sim);
    assert_eq!((again.damage.len(), again.damage[0].records), (1, Some(0)));
    assert_eq!(fsck(&sim), again.damage);
    again.catalogue.save_inventory().unwrap();
    assert_whole(&sim);
    sim.remove(&segments(&sim)[1]).unwrap();
    assert_eq!(hole(&sim, &start(&sim)).from, 80, "it was made anew of what there was");
    sim.remove(&inventory_file()).unwrap();
    assert_whole(&sim);
}

#[test]
fn what_expires_before_an_unread_inventory_is_read_is_no_hole() {
    let sim = disk();
    let refused = Fault::random(Call::Read, 1.0, FaultError::Io);
    sim.fail(Fault { path_part: INVENTORY_FILE.into(), ..refused });
    let catalogue = start(&sim).catalogue;
    let mut retention = shrink(&catalogue, 1);
    assert_eq!(retention.turn(&catalogue, 0, 0).failed.len(), 1);
    assert_eq!(segments(&sim).len(), 3, "nothing goes meanwhile");
    sim.clear_faults();
    retention.turn(&catalogue, 1_000, 0);
    assert_eq!(segments(&sim).len(), 1);
    assert_whole(&sim);
}

#[test]
fn a_power_loss_at_any_call_of_saving_it_makes_no_hole() {
    for nth in 0..12 {
        let sim = disk();
        let recovered = start(&sim);
        let more = write(&directory(&sim), SMALL, &records(120, 160));
        recovered.catalogue.publish(vec![more], &[]);
        sim.fail(Fault::nth(nth, FaultError::Io));
        let _ = recovered.catalogue.save_inventory();
        assert_whole(&sim.crash(nth));
        sim.clear_faults();
        recovered.catalogue.save_inventory().unwrap();
        sim.remove(&segments(&sim)[3]).unwrap();
        assert_eq!(hole(&sim, &start(&sim)).from, 120, "call {nth}");
    }
}

/// The directory in the hands of the node whose store has this id.
fn directory_of(sim: &SimStorage, id: u128) -> Arc<StoreDirectory> {
    let directory = directory(sim);
    let storage = Arc::new(sim.clone());
    let opened = IdentityKeeper::open(storage, Path::new(STORE), Side::Store, NodeId(id));
    directory.is_of(opened.unwrap().keeper);
    directory
}

#[test]
fn an_inventory_of_another_store_is_told_and_not_believed_and_its_own_is() {
    let sim = disk();
    let own = recover(&directory_of(&sim, 7), 0).unwrap();
    // One that says nothing of its store is none of its own.
    let foreign = DamageKind::Foreign("inventory", "another store");
    let kinds = |damage: &[Damage]| damage.iter().map(|d| d.kind.clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&own.damage), std::slice::from_ref(&foreign));
    own.catalogue.save_inventory().unwrap();
    assert_eq!(fsck(&sim), []);
    let lost = segments(&sim)[1].clone();
    sim.rename(&lost, Path::new("/away")).unwrap();
    let again = recover(&directory_of(&sim, 7), 0).unwrap();
    assert_eq!(hole(&sim, &again).from, 40);

    // The same file beside another identity.
    sim.remove(&Path::new(STORE).join(IDENTITY_FILE)).unwrap();
    let other = recover(&directory_of(&sim, 8), 0).unwrap();
    assert_eq!(
        (kinds(&other.damage), other.catalogue.missing_records()),
        (vec![foreign.clone()], 0)
    );
    other.catalogue.directory().begin().unwrap();
    assert_eq!(kinds(&fsck(&sim)), [foreign]);
    other.catalogue.save_inventory().unwrap();
    assert_eq!(fsck(&sim), []);
    assert_eq!(recover(&directory_of(&sim, 8), 0).unwrap().damage, []);
}

#[test]
fn one_of_an_earlier_version_is_told_and_made_anew_and_one_of_a_later_version_stays() {
    for (version, is_kept) in [(INVENTORY_VERSION - 1, false), (INVENTORY_VERSION + 1, true)] {
        let sim = disk();
        let mut bytes = sim.read_file(&inventory_file()).unwrap();
        let end = bytes.len() - 4;
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        sim.open(&inventory_file(), Open::Write).unwrap().write_all_at(&bytes, 0).unwrap();
        let recovered = start(&sim);
        assert_eq!(recovered.damage[0].kind, DamageKind::Version(version));
        assert_eq!(recovered.catalogue.save_inventory().is_err(), is_kept);
        assert_eq!(sim.read_file(&inventory_file()).unwrap() == bytes, is_kept);
    }
}

/// The example of the format page.
#[test]
fn the_bytes_are_those_of_the_format_page() {
    let stream = 0x0a_bbcc_ddee;
    let at = |ms: u64, counter| Ulid::from_parts(1_700_000_000_000 + ms, stream, counter);
    let mut inventory = Inventory::default();
    let coverage = |first, last, count| {
        Coverage::of(Interval::of_range(first, last, count).into_iter().collect())
    };
    inventory.add(&[coverage(at(0, 7), at(5, 9), 3)]);
    inventory.let_go(&coverage(at(0, 7), at(0, 7), 1));
    inventory.let_go_unknown(1_600_000_000_000);
    inventory.set_horizon(1_699_999_999_999);
    let bytes = inventory.encode(NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
    let shown: Vec<u8> = include_str!("../../../../docs/format-store.md")
        .split("**Inventory** (`INVENTORY`).")
        .nth(1)
        .and_then(|rest| rest.split("```").nth(1))
        .unwrap()
        .lines()
        .flat_map(|line| line.split_once("  ").map_or("", |(_, bytes)| bytes).split(' '))
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    assert!(bytes == shown, "the page should show {bytes:02x?}");
}

#[test]
fn every_flipped_bit_is_noticed_and_what_it_says_comes_back() {
    let mut inventory = Inventory::default();
    let coverage = crate::store::testing::coverage_of_records;
    inventory.add(&[coverage(&[records(0, 10), records(20, 30)].concat())]);
    inventory.let_go(&coverage(&records(0, 5)));
    inventory.let_go_unknown(3);
    let bytes = inventory.encode(NodeId(5));
    let (store, back) = Inventory::decode(&bytes).unwrap();
    assert!(store == NodeId(5) && back.is_same(&inventory));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Inventory::decode(&bytes).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(Inventory::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
}

#[test]
fn beyond_its_bounds_it_claims_less_and_what_ended_first_is_left_out() {
    let alone = |stream: u64| {
        Interval::of_range(
            Ulid::from_parts(stream + 1, stream, 1),
            Ulid::from_parts(stream + 1, stream, 1),
            1,
        )
    };
    let max = COVERAGE_INTERVALS_MAX as u64;
    let mut inventory = Inventory::default();
    let all: Vec<Interval> = (0..max + 2).rev().filter_map(alone).collect();
    for half in all.chunks(all.len() / 2 + 1) {
        inventory.add(&[Coverage::of(half.to_vec())]);
    }
    let holes = inventory.holes(&mut Present::default());
    assert_eq!((holes.len(), holes[0].stream), (COVERAGE_INTERVALS_MAX, 2));
    assert!(Inventory::decode(&inventory.encode(NodeId(5))).unwrap().1.is_same(&inventory));
    // Of too much that lies there nothing is concluded.
    let mut present = Present::default();
    for interval in all {
        let (first, last) = (Ulid::from_parts(1, 1, 1), Ulid::from_parts(2, 1, 1));
        present.add(Some(&Coverage::of(vec![interval])), (first, last));
    }
    assert_eq!(inventory.holes(&mut present), []);
}
