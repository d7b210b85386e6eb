//! What readers of a complete segment share, and when it is verified again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{OnceLock, Weak, mpsc};
use std::time::{Duration, SystemTime};

use super::super::segment::Segment;
use super::*;
use crate::caches::Caches;
use crate::search::spec::{QuerySpec, Snapshot};
use crate::search::tests::{searcher, spec};
use crate::storage::watched::Watched;

/// The only segment of a directory that was stopped cleanly, and its records.
fn flushed(directory: &Path) -> (Registry, Arc<Segment>, Records) {
    let registry = recovered(directory).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("one\ntwo\nthree\n");
    shard.work(&registry);
    shard.stop(&registry);
    let segment = registry.snapshot().remove(0);
    assert_eq!(segment.state(), SegmentState::Flushed);
    (registry, segment, shard.appended)
}

/// Changes a byte of the first frame's text, or back again.
fn flip(segment: &Segment) {
    let file = File::options().read(true).write(true).open(segment.path()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, HEADER_BYTES as u64).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, HEADER_BYTES as u64).unwrap();
}

/// As time does that passes between two changes.
fn age(segment: &Segment, seconds: u64) {
    let file = File::options().write(true).open(segment.path()).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn a_frame_is_verified_once_for_all_queries_and_again_before_it_is_shown() {
    let directory = scratch();
    let (_registry, segment, _) = flushed(directory.path());
    let (first, second) = (segment.open().unwrap(), segment.open().unwrap());
    assert!(first.read(0).is_ok());
    flip(&segment);
    assert!(second.read(0).is_ok(), "the other query has verified it");
    assert!(second.verify(0).is_err(), "what is shown is looked at again");
    assert!(first.read(0).is_err() && second.read(0).is_err(), "and what was found is remembered");
    flip(&segment);
    assert!(first.read(0).is_ok(), "for as long as it is so");
}

/// What was met once is known also to those who read no text, and before the first byte.
#[test]
fn damage_that_was_met_is_told_by_counts_and_plans_while_the_file_is_so() {
    let directory = scratch();
    let (registry, segment, _) = flushed(directory.path());
    let searcher = searcher(1);
    let snapshot = || {
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        Snapshot { parts, missing: Vec::new() }
    };
    let count = |spec: QuerySpec| searcher.stats(spec, snapshot()).wait_blocking().unwrap();
    let (all, some) = (spec(""), spec("t"));
    flip(&segment);
    assert_eq!(count(all.clone()).records, 3, "nobody has looked at the text");
    let met = count(some.clone());
    assert_eq!((met.complete, met.missing_count), (false, 1));
    let counted = count(all.clone());
    assert_eq!((counted.records, counted.missing), (0, met.missing.clone()));
    let plan = searcher.plan(&all, &snapshot());
    assert_eq!((plan.complete, plan.missing_count, plan.data_set_bytes_max), (false, 1, 0));
    // A consumer claims it, and gives it back.
    let claim = registry.claim(ALL, 0);
    registry.fail(claim.token);
    assert!(!searcher.plan(&all, &snapshot()).complete);
    assert_eq!(count(some.clone()).missing_count, 1, "told once");
    assert!(!count(all.clone()).complete);
    flip(&segment);
    age(&segment, 1);
    assert_eq!(count(some).records, 2);
    assert_eq!((count(all.clone()).records, count(all.clone()).complete), (3, true));
    assert!(searcher.plan(&all, &snapshot()).complete);
}

#[test]
fn whoever_moves_records_relies_on_nothing_that_was_verified_before() {
    let directory = scratch();
    let (_registry, segment, _) = flushed(directory.path());
    let (asking, moving) = (segment.open().unwrap(), segment.open_to_move().unwrap());
    assert!(asking.read(0).is_ok());
    flip(&segment);
    assert!(moving.read(0).is_err());
}

#[test]
fn a_file_that_was_changed_is_opened_and_verified_anew() {
    let directory = scratch();
    let (_registry, segment, records) = flushed(directory.path());
    assert_eq!(read_part(&*segment), (records.clone(), vec![]));
    flip(&segment);
    age(&segment, 1);
    let (left, damage) = read_part(&*segment);
    assert_eq!((left.len(), damage.len()), (0, 1), "told, not passed over");
    flip(&segment);
    age(&segment, 2);
    assert_eq!(read_part(&*segment), (records.clone(), vec![]));

    let open = segment.open().unwrap();
    let whole = fs::read(segment.path()).unwrap();
    File::options().write(true).open(segment.path()).unwrap().set_len(0).unwrap();
    assert!(open.read(0).is_err(), "its map has lost its pages");
    fs::write(segment.path(), whole).unwrap();
    age(&segment, 3);
    assert_eq!(read_part(&*segment), (records, vec![]));
}

#[test]
fn a_fault_that_one_reader_meets_costs_the_others_nothing() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..3 {
        shard.append(&lines(10, 2000));
        shard.log.want_durable();
        shard.work(&registry);
    }
    shard.stop(&registry);
    let segment = registry.snapshot().remove(0);
    let (asking, other) = (segment.open().unwrap(), segment.open().unwrap());
    let moving = segment.open_to_move().unwrap();
    assert_eq!(moving.chunks().len(), 3);
    assert!(other.read(1).is_ok());
    File::options().write(true).open(segment.path()).unwrap().set_len(45_000).unwrap();
    assert!(asking.read(2).is_err() && asking.verify(2).is_err(), "the last frame is gone");
    for part in [&asking, &other, &moving, &segment.open().unwrap()] {
        for frame in [0, 1] {
            part.verify(frame).unwrap();
            let text = part.read(frame).unwrap().text;
            assert!(text.len() > 20_000 && !text.is_poisoned());
        }
        assert!(part.read(2).is_err());
    }
}

#[test]
fn who_waits_for_the_disk_holds_nobody_up() {
    let directory = scratch();
    let registry = Arc::<OnceLock<Weak<Registry>>>::default();
    let seen = Arc::clone(&registry);
    let asks = move || {
        let Some(registry) = seen.get().and_then(Weak::upgrade) else { return };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            tell.send((registry.backlog_bytes(), registry.snapshot().len()))
        });
        let others = told.recv_timeout(Duration::from_secs(30));
        assert!(others.is_ok_and(|(_, segments)| segments == 1), "they wait for this read");
    };
    let storage = Watched { before_read: Arc::new(asks), rots: false };
    let options = RegistryOptions { storage: Arc::new(storage), ..options(directory.path()) };
    let node = Arc::new(Registry::new(options));
    let mut shard = Shard::start(&node, 0, 5);
    shard.append("one\n");
    shard.log.want_durable();
    shard.work(&node);
    let segment = node.snapshot().remove(0);
    assert_eq!(segment.state(), SegmentState::Active);
    registry.set(Arc::downgrade(&node)).unwrap();
    assert_eq!(segment.open().unwrap().chunks().len(), 1);
}

#[test]
fn what_was_verified_is_remembered_though_more_segments_wait_than_may_be_open() {
    let directory = scratch();
    let storage = Watched { before_read: Arc::new(|| ()), rots: true };
    let caches = Arc::<Caches>::default();
    caches.set_segments_open_max(0);
    let options =
        RegistryOptions { storage: Arc::new(storage), caches, ..options(directory.path()) };
    let registry = Registry::new(options);
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("whole\n");
    shard.stop(&registry);
    let segment = registry.snapshot().remove(0);
    let read = || segment.open().unwrap().read(0);
    read().unwrap();
    // The disk's fault, of which the file shows no sign: who verifies again meets it.
    let mut bytes = std::fs::read(segment.path()).unwrap();
    let at = bytes.windows(5).position(|w| w == b"whole").unwrap();
    bytes[at] = b'W';
    std::fs::write(segment.path(), bytes).unwrap();
    assert!(read().is_ok(), "the frame was not verified again");
    assert!(segment.open_to_move().unwrap().read(0).is_err());
}

#[test]
fn who_reads_frame_after_frame_reads_into_one_buffer_and_takes_it_from_nobody() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for line in ["start\n", "three3\n", "one\n", "22\n"] {
        shard.append(line);
        shard.log.want_durable();
        shard.work(&registry);
    }
    shard.stop(&registry);
    let moving = registry.snapshot().remove(0).open_to_move().unwrap();
    assert_eq!(moving.chunks().len(), 4);
    let text = |index: usize| moving.read(index).unwrap().text;
    let first = text(0);
    let second = text(1);
    assert_eq!((&*first, &*second), (&b"start\n"[..], &b"three3\n"[..]), "both are held");
    let place = second.as_ptr();
    drop(second);
    let third = text(2);
    assert_eq!((&*third, third.as_ptr()), (&b"one\n"[..], place), "nobody held it any more");
    assert_eq!(&*text(3), b"22\n");
    assert_eq!((&*first, &*third), (&b"start\n"[..], &b"one\n"[..]));
}
