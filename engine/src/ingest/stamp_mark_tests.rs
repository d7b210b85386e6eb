//! The mark of stamps on a disk that fails, tears and forgets.

use super::*;
use crate::damage::DamageKind;
use crate::identity::{NodeId, Side};
use crate::storage::Open;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::twin::{COPY_OFFSETS, ReadTwin, encode, read};
use std::path::PathBuf;

/// Length of a copy.
const COPY_BYTES: u64 = 16;
const NOW_MS: u64 = 1_700_000_000_000;

fn disk() -> SimStorage {
    let sim = SimStorage::new(1);
    sim.create_dir_all(Path::new("/ingest")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

struct Opened {
    keeper: StampKeeper,
    has_damaged_copy: bool,
    unread_copy: Option<Refusal>,
}

fn open(sim: &SimStorage) -> Result<Opened, MarkError> {
    let (storage, path) = (Arc::new(sim.clone()), Path::new("/ingest"));
    let mark = OpenedMark::open(storage.clone(), path)?;
    let ingester = IdentityKeeper::open(storage, path, Side::Ingest, NodeId(1));
    // What is refused of the identity has tests of its own.
    let refused = |error| MarkError(TwinError::Unread(path.into(), io::Error::other(error)));
    let (has_damaged_copy, unread_copy) = (mark.has_damaged_copy, mark.unread_copy);
    let keeper = mark.kept_by(ingester.map_err(refused)?.keeper);
    Ok(Opened { keeper, has_damaged_copy, unread_copy })
}

fn sync_dir(sim: &SimStorage) -> io::Result<()> {
    sim.sync_dir(Path::new("/ingest"))
}

fn path() -> PathBuf {
    Path::new("/ingest").join(STAMP_MARK_FILE)
}

/// The example of the format page.
#[test]
fn the_bytes_are_those_of_the_format_page() {
    assert_eq!(
        encode(&StampMark(NOW_MS)),
        *b"OKS1\xdd\x73\x2d\xcb\x00\x68\xe5\xcf\x8b\x01\x00\x00"
    );
    let sim = disk();
    let mut keeper = open(&sim).unwrap().keeper;
    keeper.keep(NOW_MS - STAMPS_AHEAD_MS, 0, &|| sync_dir(&sim)).unwrap();
    let file = sim.open(&path(), Open::Read).unwrap();
    assert_eq!(file.len().unwrap(), 4096 + COPY_BYTES);
    let whole = Some(ReadTwin { value: StampMark(NOW_MS), whole: [true; 2], unread: [None; 2] });
    assert_eq!(read::<StampMark>(&*file).unwrap(), whole);
}

#[test]
fn it_is_moved_before_it_is_reached_and_not_more_often() {
    assert_eq!(next_mark(None, 10_000, 0), Some(14_000));
    assert_eq!(next_mark(Some(14_000), 12_000, 12_000), None);
    assert_eq!(next_mark(Some(14_000), 12_001, 12_001), Some(16_001));
    // Stamps ahead of the clock need no more room than they rise.
    assert_eq!(next_mark(Some(14_000), 1_000, 13_750), None);
    assert_eq!(next_mark(Some(14_000), 1_000, 13_751), Some(14_251));
    assert_eq!(next_mark(Some(MS_MAX), MS_MAX, MS_MAX), None);
}

#[test]
fn restarts_in_a_row_do_not_take_stamps_further_and_further_ahead() {
    let sim = disk();
    let mut wall_ms = NOW_MS;
    for _ in 0..100 {
        let mut keeper = open(&sim).unwrap().keeper;
        keeper.keep(wall_ms, 0, &|| sync_dir(&sim)).unwrap();
        assert!(keeper.floor_ms() <= wall_ms + STAMPS_AHEAD_MS + 1, "{}", keeper.floor_ms());
        wall_ms += STAMPS_ROOM_MS + 1;
    }
}

#[test]
fn nothing_is_stamped_above_what_a_power_loss_leaves() {
    for seed in 0..40 {
        let sim = disk();
        let mut keeper = open(&sim).unwrap().keeper;
        keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
        let ceiling = keeper.ceiling();
        let mut stamper = crate::ingest::stamp::Stamper::new(1, keeper.floor_ms(), ceiling);
        let mut newest = stamper.stamp(1, NOW_MS);
        for step in 0..seed {
            let now_ms = NOW_MS + 3_000 * step;
            // The last move fails at one of its calls, and power with it.
            if step + 1 == seed {
                sim.fail(Fault::nth(seed % 5, FaultError::Io));
            }
            let _ = keeper.keep(now_ms, newest.ms(), &|| sync_dir(&sim));
            newest = stamper.stamp(1, now_ms);
        }
        let found = open(&sim.crash(seed)).unwrap();
        assert!(found.keeper.floor_ms() > newest.ms(), "seed {seed}");
    }
}

#[test]
fn one_whole_copy_is_enough_and_the_other_is_written_first() {
    for broken in [0, 1] {
        let sim = disk();
        open(&sim).unwrap().keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
        sim.flip(&path(), COPY_OFFSETS[broken] + 9, 3).unwrap();
        let damage = check_mark(&sim, &path()).unwrap();
        assert_eq!((damage.len(), damage[0].offset), (1, COPY_OFFSETS[broken]));
        assert!(!damage[0].loses_records());
        let found = open(&sim).unwrap();
        assert!(found.has_damaged_copy);
        let mut keeper = found.keeper;
        assert_eq!(keeper.floor_ms(), NOW_MS + STAMPS_AHEAD_MS + 1);
        // The whole one is still there if the other cannot be written.
        sim.fail(Fault::random(Call::Sync, 1.0, FaultError::Io));
        assert!(
            keeper.keep(NOW_MS + 60_000, 0, &|| sync_dir(&sim)).is_err() && !keeper.is_started()
        );
        sim.clear_faults();
        assert!(open(&sim).unwrap().keeper.floor_ms() > NOW_MS + STAMPS_AHEAD_MS);
        keeper.keep(NOW_MS + 60_000, 0, &|| sync_dir(&sim)).unwrap();
        assert!(!open(&sim).unwrap().has_damaged_copy);
        assert_eq!(check_mark(&sim, &path()).unwrap(), []);
    }
}

#[test]
fn a_copy_that_cannot_be_read_is_not_called_damaged() {
    for unread in [0, 1] {
        let sim = disk();
        open(&sim).unwrap().keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
        let start = COPY_OFFSETS[unread];
        sim.make_unreadable("STAMPS", start..start + COPY_BYTES);
        let damage = check_mark(&sim, &path()).unwrap();
        assert_eq!((damage.len(), damage[0].offset), (1, start));
        assert!(damage[0].refusal().is_some() && !damage[0].loses_records());
        assert!(damage[0].to_string().contains("cannot be read"), "{}", damage[0]);
        let found = open(&sim).unwrap();
        assert!(!found.has_damaged_copy && found.unread_copy.is_some());
        sim.make_readable();
        assert_eq!(check_mark(&sim, &path()).unwrap(), []);
    }
}

#[test]
fn a_mark_that_was_never_whole_was_never_there() {
    for call in 1..20 {
        let sim = disk();
        sim.fail(Fault::nth(call, FaultError::Io));
        let mut keeper = match open(&sim) {
            Ok(opened) => opened.keeper,
            Err(error) => {
                assert!(error.is_refusal());
                continue;
            }
        };
        let failed = keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).is_err();
        assert_eq!(keeper.is_started(), !failed, "call {call}");
        let crashed = sim.crash(call);
        assert!(!failed || open(&crashed).is_ok(), "call {call}");
        sim.clear_faults();
        keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
        assert!(open(&sim.crash(call)).unwrap().keeper.floor_ms() > NOW_MS, "call {call}");
    }
}

#[test]
fn a_sync_that_failed_for_the_mark_may_have_lost_names_of_segments_too() {
    use crate::ingest::registry::{Registry, RegistryOptions};
    let sim = disk();
    let registry = Registry::new(RegistryOptions::new(Arc::new(sim.clone()), "/ingest".into(), 1));
    let segments = registry.prepare(1, 0).unwrap();
    let mut keeper = open(&sim).unwrap().keeper;
    sim.fail(Fault { call: Some(Call::SyncDir), ..Fault::nth(1, FaultError::Io) });
    assert!(segments[0].is_reusable());
    assert!(keeper.keep(NOW_MS, 0, &|| registry.sync_names()).is_err());
    assert!(!segments[0].is_reusable(), "its name may be another one");
    keeper.keep(NOW_MS, 0, &|| registry.sync_names()).unwrap();
    assert!(open(&sim.crash(1)).unwrap().keeper.floor_ms() > NOW_MS);
}

#[test]
fn closing_leaves_what_was_stamped_and_no_less() {
    let sim = disk();
    let mut keeper = open(&sim).unwrap().keeper;
    keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
    keeper.close(NOW_MS + 7).unwrap();
    let mut keeper = open(&sim).unwrap().keeper;
    assert_eq!(keeper.floor_ms(), NOW_MS + 8);
    keeper.start_above(NOW_MS + 20);
    keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
    keeper.close(0).unwrap();
    assert_eq!(open(&sim).unwrap().keeper.floor_ms(), NOW_MS + 21);
}

#[test]
fn a_mark_of_another_version_is_told_as_that_and_left_alone() {
    let sim = disk();
    open(&sim).unwrap().keeper.keep(NOW_MS, 0, &|| sync_dir(&sim)).unwrap();
    let file = sim.open(&path(), Open::Write).unwrap();
    file.write_all_at(b"OKS2", COPY_OFFSETS[0]).unwrap();
    assert!(open(&sim).unwrap().has_damaged_copy, "one of two may be damaged");
    file.write_all_at(b"OKS2", COPY_OFFSETS[1]).unwrap();
    let before = sim.read_file(&path()).unwrap();
    let error = open(&sim).err().unwrap();
    assert!(error.to_string().contains("version 2") && !error.is_refusal(), "{error}");
    let told = check_mark(&sim, &path()).unwrap();
    assert!(told.iter().all(|damage| damage.kind == DamageKind::Version(2)), "{told:?}");
    assert_eq!((told.len(), sim.read_file(&path()).unwrap()), (2, before));
    file.write_all_at(b"OKX2", COPY_OFFSETS[0]).unwrap();
    assert!(!open(&sim).err().unwrap().to_string().contains("version"), "that is none of it");
}
