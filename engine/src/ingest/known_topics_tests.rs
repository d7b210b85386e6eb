//! The list of topics on a disk that fails, tears and forgets.

use super::*;
use crate::ingest::registry::RegistryOptions;
use crate::storage::Open;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use std::path::PathBuf;

const DIRECTORY: &str = "/ingest";
const NOW_MS: u64 = 1_700_000_000_000;

fn disk() -> SimStorage {
    let sim = SimStorage::new(1);
    sim.create_dir_all(Path::new(DIRECTORY)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

fn path() -> PathBuf {
    Path::new(DIRECTORY).join(TOPICS_FILE)
}

fn known(topics: &[(&str, u32)]) -> KnownTopics {
    let mut known = KnownTopics::default();
    for (name, day) in topics {
        known.add(Topic::new(name.as_bytes()).unwrap(), *day);
    }
    known
}

/// A node of these topics that starts on a disk.
struct Started {
    registry: Registry,
    keeper: TopicKeeper,
    damage: Option<DamageKind>,
}

fn start(sim: &SimStorage, in_files: &[(&str, u32)], retain_ms: Option<u64>) -> Started {
    let options = RegistryOptions::new(Arc::new(sim.clone()), DIRECTORY.into(), 1);
    let opened = OpenedTopics::open(sim, Path::new(DIRECTORY));
    let damage = opened.damage.clone().map(|damage| damage.kind);
    let set = Arc::new(TopicSet::new(100));
    let keeper = opened.learned_by(set, &known(in_files), NOW_MS, retain_ms);
    Started { registry: Registry::new(options), keeper, damage }
}

impl Started {
    fn keep(&mut self) -> io::Result<()> {
        self.keeper.keep(&self.registry)
    }

    fn names(&self) -> Vec<String> {
        self.keeper.set.known().names().map(ToString::to_string).collect()
    }
}

fn names_on(sim: &SimStorage) -> Vec<String> {
    start(sim, &[], None).names()
}

fn put(sim: &SimStorage, bytes: &[u8]) {
    let file = sim.open(&path(), Open::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// The example of the format page.
#[test]
fn the_bytes_are_those_of_the_format_page() {
    let page = include_str!("../../../docs/format-ingest.md");
    let list = known(&[("web", day_of(NOW_MS)), ("api-2", day_of(NOW_MS) - 1)]);
    let bytes = list.encode();
    let rows = bytes.chunks(16).enumerate().map(|(row, bytes)| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}\n", row * 16, hex.join(" "))
    });
    let rows: String = rows.collect();
    assert!(page.contains(&rows), "the page has not:\n{rows}");
    assert_eq!(KnownTopics::decode(&bytes), Ok(list));
}

#[test]
fn what_was_kept_is_known_after_a_power_loss_at_any_call_or_is_as_it_was_before() {
    let sim = disk();
    start(&sim, &[("old", 3)], None).keep().unwrap();
    let first = sim.calls();
    let mut both = start(&sim, &[("new", 9)], None);
    both.keep().unwrap();
    assert_eq!(names_on(&sim.crash(1)), ["new", "old"]);
    let calls = sim.calls() - first;
    for call in 1..=calls {
        for seed in 0..10 {
            let sim = disk();
            start(&sim, &[("old", 3)], None).keep().unwrap();
            sim.crash_at(sim.calls() + call);
            let mut both = start(&sim, &[("new", 9)], None);
            let is_kept = both.keep().is_ok() && !sim.has_stopped();
            let names = names_on(&sim.crash(seed));
            assert!(names == ["new", "old"] || !is_kept && names == ["old"], "{call}: {names:?}");
        }
    }
}

#[test]
fn nothing_is_written_while_nothing_has_changed_and_a_failure_is_tried_again() {
    for call in [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::SyncDir] {
        let sim = disk();
        let mut started = start(&sim, &[], None);
        let calls = sim.calls();
        started.keep().unwrap();
        assert_eq!(sim.calls(), calls, "a new node has no topic");
        started.keeper.set.learn(&known(&[("web", 7)]));
        sim.fail(Fault::next(call, 1, FaultError::NoSpace));
        started.keep().unwrap_err();
        assert!(!started.keeper.is_kept());
        assert_eq!(sim.files(), if call == Call::SyncDir { vec![path()] } else { vec![] });
        started.keep().unwrap();
        assert!(started.keeper.is_kept());
        let calls = sim.calls();
        started.keep().unwrap();
        assert_eq!(sim.calls(), calls);
        assert_eq!(names_on(&sim.crash(1)), ["web"], "{call:?}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_told_and_the_list_made_anew_of_what_there_is() {
    let whole = known(&[("web", 7), ("api", 8)]).encode();
    let cut = (0..whole.len()).map(|len| whole[..len].to_vec());
    let flipped = (0..8 * whole.len()).map(|bit| {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    for bytes in cut.chain(flipped) {
        let sim = disk();
        put(&sim, &bytes);
        assert_eq!(check(&sim, &path()).unwrap().len(), 1);
        let mut started = start(&sim, &[("held", 9)], None);
        assert!(started.damage.is_some(), "{bytes:02x?}");
        started.keep().unwrap();
        assert_eq!(check(&sim, &path()).unwrap(), []);
        assert_eq!(names_on(&sim), ["held"]);
    }
}

#[test]
fn bytes_with_a_right_checksum_that_mean_nothing_are_refused() {
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = known(&[("api", 8), ("web", 7)]).encode();
        bytes.truncate(bytes.len() - 4);
        change(&mut bytes);
        let mut put = Put(bytes);
        put.checksum();
        KnownTopics::decode(&put.0)
    };
    let malformed = Err(DamageKind::Malformed(PART));
    assert!(sealed(&|_| {}).is_ok());
    assert_eq!(sealed(&|bytes| bytes[8] = 2), Err(DamageKind::Version(2)));
    assert_eq!(sealed(&|bytes| bytes[12] = 3), malformed, "fewer than it says");
    assert_eq!(sealed(&|bytes| bytes[12] = 1), malformed, "more than it says");
    assert_eq!(sealed(&|bytes| bytes[12..16].fill(0xff)), malformed, "no memory for that");
    assert_eq!(sealed(&|bytes| bytes[16..20].fill(0)), malformed, "no day");
    assert_eq!(sealed(&|bytes| bytes[20] = 255), malformed, "a length beyond the end");
    assert_eq!(sealed(&|bytes| bytes[21] = b'.'), malformed, "no topic");
    assert_eq!(sealed(&|bytes| bytes[21] = b'z'), malformed, "out of order");
}

#[test]
fn a_list_of_a_later_version_or_one_that_cannot_be_read_is_not_written_over() {
    let mut later = known(&[("web", 7)]).encode();
    later[8] = 2;
    later.truncate(later.len() - 4);
    let mut later = Put(later);
    later.checksum();
    let sim = disk();
    put(&sim, &later.0);
    let mut started = start(&sim, &[("held", 9)], None);
    assert_eq!(started.damage, Some(DamageKind::Version(2)));
    let error = started.keep().unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    assert_eq!(sim.read_file(&path()).unwrap(), later.0);

    let sim = disk();
    put(&sim, &known(&[("web", 7)]).encode());
    sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(TOPICS_FILE));
    let mut started = start(&sim, &[("held", 9)], None);
    assert!(matches!(started.damage, Some(DamageKind::Unread(_))), "{:?}", started.damage);
    started.keep().unwrap_err();
    sim.clear_faults();
    started.keep().unwrap();
    assert_eq!(started.names(), ["held", "web"], "it was read late");
    assert_eq!(names_on(&sim), ["held", "web"]);
}

#[test]
fn what_is_no_file_is_told_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join(TOPICS_FILE)).unwrap();
    let storage = Arc::new(crate::storage::OsStorage);
    let opened = OpenedTopics::open(&*storage, temp.path());
    assert_eq!(opened.damage.as_ref().unwrap().kind, DamageKind::NotAFile);
    let set = Arc::new(TopicSet::new(9));
    let mut keeper = opened.learned_by(set, &known(&[("held", 9)]), NOW_MS, None);
    let registry = Registry::new(RegistryOptions::new(storage, temp.path().into(), 1));
    keeper.keep(&registry).unwrap_err();
    assert!(temp.path().join(TOPICS_FILE).is_dir());
}

#[test]
fn a_topic_is_forgotten_when_none_of_its_records_can_be_kept_any_more() {
    let today = day_of(NOW_MS);
    let names = |days: &[u32], retain_ms| {
        let topics: Vec<(String, u32)> =
            days.iter().map(|day| (format!("d{}", today - day), *day)).collect();
        let topics: Vec<(&str, u32)> = topics.iter().map(|(n, day)| (n.as_str(), *day)).collect();
        let sim = disk();
        start(&sim, &topics, None).keep().unwrap();
        start(&sim, &[], retain_ms).names()
    };
    let days = [today, today - 8, today - 9];
    assert_eq!(names(&days, Some(7 * DAY_MS)), ["d0", "d8"], "a day for the turns of retention");
    assert_eq!(names(&days, Some(7 * DAY_MS - 1)), ["d0", "d8"], "some hours of it, perhaps");
    assert_eq!(names(&days, Some(6 * DAY_MS)), ["d0"]);
    assert_eq!(names(&days, None), ["d0", "d8", "d9"], "who does not know it forgets nothing");
    // The clock is days ahead of all records, or some record is ahead of the clock.
    let days = [today - 20, today - 26];
    assert_eq!(names(&days, Some(7 * DAY_MS)), ["d20", "d26"]);
    let mut ahead = known(&[("ahead", today + 300)]);
    ahead.add(Topic::new(b"now").unwrap(), today - 1);
    ahead.forget(NOW_MS, 7 * DAY_MS);
    assert_eq!(ahead.names().count(), 2);
}

#[test]
fn a_topic_of_which_records_wait_here_is_not_forgotten_however_old_they_are() {
    let (sim, today) = (disk(), day_of(NOW_MS));
    start(&sim, &[("gone", today - 300), ("new", today), ("waits", today - 300)], None)
        .keep()
        .unwrap();
    let mut started = start(&sim, &[("waits", today - 300)], Some(7 * DAY_MS));
    assert_eq!(started.names(), ["new", "waits"]);
    started.keep().unwrap();
    assert_eq!(names_on(&sim), ["new", "waits"]);
}
