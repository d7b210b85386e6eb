//! The keeper on a simulated disk; what it asks for is done by hand.

use std::cell::{Cell, RefCell};
use std::path::Path;

use super::*;
use crate::headroom::HeadroomLimits;
use crate::identity::NodeId;
use crate::ingest::known_topics::KnownTopics;
use crate::ingest::registry::RegistryOptions;
use crate::node::opening::{NodeOptions, TopicOptions, open};
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::storage::{Open, Storage};
use crate::topic::Topic;

const INGEST: &str = "/ingest";
const SEGMENT_BYTES: u64 = 8 << 10;

#[derive(Default)]
struct Around {
    ground: RefCell<[Option<String>; 2]>,
    /// Files have no names.
    is_deleted: Cell<bool>,
}

impl Surroundings for Around {
    fn ground(&self) -> [Option<String>; 2] {
        self.ground.borrow().clone()
    }

    fn has_lost_name(&self, _: &Path, _: u128) -> bool {
        self.is_deleted.get()
    }

    fn stamped_ms(&self) -> u64 {
        0
    }
}

struct Fixture {
    sim: SimStorage,
    side: IngestSide,
    doors: Arc<Doors>,
    keeper: Keeper,
    around: Around,
    now: Now,
}

fn fixture() -> Fixture {
    let sim = SimStorage::new(1);
    sim.create_dir_all(Path::new(INGEST)).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let ingest = RegistryOptions {
        flush_size_bytes: SEGMENT_BYTES,
        ..RegistryOptions::new(Arc::clone(&storage), INGEST.into(), 7)
    };
    let segment_bytes = ingest.file_bytes();
    let (new_ingester, new_store) = (NodeId(1), NodeId(2));
    let topics = TopicOptions::default();
    let options =
        NodeOptions { ingest: Some(ingest), topics, store: None, new_ingester, new_store };
    let node = open(options, 1_000, &mut |found| panic!("{found}")).unwrap().node;
    assert!(node.store.is_none(), "it keeps nothing");
    let side = node.ingest.unwrap();
    let space = SpaceParts {
        storage,
        watched: vec![(Side::Ingest, INGEST.into())],
        limits: HeadroomLimits { free_min_bytes: Some(2 * segment_bytes), segment_bytes },
    };
    let doors = Arc::new(Doors::default());
    let options =
        KeeperOptions { space, backlog_max_bytes: 1 << 20, flush_size_bytes: SEGMENT_BYTES };
    let keeper = Keeper::new(&side, Arc::clone(&doors), options);
    let now = Now { monotonic_us: 0, wall_ms: 1_000 };
    Fixture { sim, side, doors, keeper, around: Around::default(), now }
}

impl Fixture {
    fn take(&mut self, event: Event) {
        self.keeper.take(event, self.now, &self.around);
    }

    /// Turns after so many milliseconds; what is to be done then.
    fn turn(&mut self, after_ms: u64) -> Vec<Effect> {
        self.now.monotonic_us += after_ms * 1000;
        self.now.wall_ms += after_ms;
        self.keeper.turn(self.now, &self.around);
        std::iter::from_fn(|| self.keeper.next_effect()).collect()
    }

    /// Gives a segment to a shard.
    fn lend(&mut self, shard: usize) -> Arc<Segment> {
        self.take(Event::WantSegment(shard));
        let effects = self.turn(0);
        let [Effect::Lend { shard: to, segment }] = &effects[..] else { panic!("one segment") };
        assert_eq!(*to, shard);
        let source = self.sim.open(&segment.path(), Open::Read).unwrap();
        let segment = Arc::clone(segment);
        self.take(Event::Lent { shard, segment: Arc::clone(&segment), source, identity: 9 });
        segment
    }

    fn happened(&mut self) -> Vec<Happened> {
        let told = |happened: &Happened| !matches!(happened, Happened::SpaceMeasured { .. });
        self.keeper.take_happened().into_iter().filter(told).collect()
    }
}

#[test]
fn segments_are_ready_ahead_of_need_and_a_shard_gets_one_at_once() {
    let mut f = fixture();
    assert!(f.turn(0).is_empty());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "active");
    assert_eq!(f.sim.files().iter().filter(|path| is_segment(path)).count(), 2);
    let calls = f.sim.calls();
    f.take(Event::WantSegment(3));
    let effects = f.turn(0);
    assert!(matches!(effects[..], [Effect::Lend { shard: 3, .. }]));
    assert_eq!(f.sim.calls(), calls, "for which nothing was done on the disk");
    assert_eq!(f.keeper.next_us(), f.now.monotonic_us, "the rest is done right after it");
}

#[test]
fn a_segment_that_cannot_be_opened_is_tried_again_after_a_pause_and_told_once() {
    let mut f = fixture();
    f.turn(0);
    f.take(Event::WantSegment(0));
    for is_first in [true, false] {
        let mut effects = f.turn(0);
        let Some(Effect::Lend { shard, segment }) = effects.pop() else { panic!("it is tried") };
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        f.take(Event::NotLent { shard, segment, error });
        assert!(f.turn(0).is_empty(), "no further try before the pause is over");
        let told = f.happened();
        let is_told = matches!(told[..], [Happened::NotOpened(..)]);
        assert_eq!(is_told, is_first, "{told:?}");
        f.now.monotonic_us += RETRY_US;
    }
    let effects = f.turn(0);
    assert!(matches!(effects[..], [Effect::Lend { shard: 0, .. }]), "the shard still waits");
}

#[test]
fn while_no_segment_can_be_made_shards_wait_and_the_doors_say_so() {
    let mut f = fixture();
    f.sim.fail(Fault::random(Call::Create, 1.0, FaultError::Io));
    f.take(Event::WantSegment(0));
    assert!(f.turn(0).is_empty());
    assert!(matches!(f.happened()[..], [Happened::NoSegments(_)]));
    assert!(f.doors.is_disk_failing() && !f.doors.is_ready());
    assert!(f.turn(400).is_empty(), "not before its time");
    f.sim.clear_faults();
    assert!(matches!(f.turn(100)[..], [Effect::Lend { shard: 0, .. }]));
    assert!(matches!(f.happened()[..], [Happened::HasSegments]));
    assert!(f.doors.is_ready());
}

#[test]
fn a_file_that_is_deleted_under_a_shard_withholds_promises_until_it_is_sealed() {
    let mut f = fixture();
    f.turn(0);
    let segment = f.lend(0);
    f.turn(0);
    f.around.is_deleted.set(true);
    let effects = f.turn(GROUND_BEAT_US / 1000);
    assert!(matches!(effects[..], [Effect::LostSegment(0, id)] if id == segment.id()));
    assert!(f.doors.gate().is_withheld() && !f.doors.is_ready());
    assert!(f.turn(GROUND_BEAT_US / 1000).is_empty(), "the shard is told once");
    f.take(Event::Seal(Arc::clone(&segment), 0));
    assert!(!f.doors.gate().is_withheld(), "nothing was in it");
    let told = f.happened();
    let is_told = told.iter().any(|happened| matches!(happened, Happened::NameLost(_)));
    assert!(is_told, "{told:?}");
}

#[test]
fn nothing_is_done_in_a_directory_that_was_taken_away() {
    let mut f = fixture();
    f.turn(0);
    *f.around.ground.borrow_mut() = [Some("taken away".into()), None];
    f.turn(GROUND_BEAT_US / 1000);
    assert!(matches!(f.happened()[..], [Happened::Ground(_)]));
    assert!(f.doors.gate().is_closed() && f.doors.gate().is_withheld());
    let calls = f.sim.calls();
    f.take(Event::WantSegment(0));
    for _ in 0..50 {
        assert!(f.turn(100).is_empty());
    }
    assert_eq!(f.sim.calls(), calls, "not one call");
    *f.around.ground.borrow_mut() = [None, None];
    f.turn(GROUND_BEAT_US / 1000);
    assert!(matches!(f.turn(20)[..], [Effect::Lend { shard: 0, .. }]), "it goes on");
    assert!(!f.doors.gate().is_closed());
}

#[test]
fn records_are_refused_before_the_disk_is_full_and_files_that_wait_unused_are_given_back() {
    let mut f = fixture();
    f.turn(0);
    let segment_bytes = f.side.registry.options().file_bytes();
    let used_bytes = f.sim.used_bytes();
    f.sim.set_capacity(used_bytes + segment_bytes / 2);
    f.turn(SPACE_BEAT_US / 1000);
    assert!(matches!(f.happened()[..], [Happened::LacksSpace { .. }]));
    assert!(f.doors.gate().is_closed() && f.doors.is_disk_failing());
    assert!(f.sim.used_bytes() < segment_bytes, "{}", f.sim.used_bytes());
    f.sim.set_capacity(1 << 30);
    f.turn(SPACE_BEAT_US / 1000);
    assert!(matches!(f.happened()[..], [Happened::HasSpace { .. }]));
    assert!(!f.doors.gate().is_closed());
}

/// Where the list of topics stands in what the disk did, and where the segment's new name.
fn renames_since(sim: &SimStorage, calls: u64) -> usize {
    sim.trace()[calls as usize..].iter().filter(|call| **call == Call::Rename).count()
}

#[test]
fn topics_are_on_disk_before_a_segment_is_sealed_and_are_not_written_again_without_need() {
    let mut f = fixture();
    f.turn(0);
    let list = Path::new(INGEST).join(TOPICS_FILE);
    let seal = |f: &mut Fixture| {
        let segment = f.lend(0);
        let calls = f.sim.calls();
        f.take(Event::Seal(segment, 0));
        renames_since(&f.sim, calls)
    };
    let before = seal(&mut f);
    assert!(!f.sim.files().contains(&list), "there is no topic yet");
    f.side.topics.learn(&KnownTopics::decode(&one_topic()).unwrap());
    let with_topic = seal(&mut f);
    assert_eq!(f.sim.read_file(&list).unwrap(), one_topic());
    assert_eq!((with_topic, seal(&mut f)), (before + 1, before), "once");
    assert!(f.happened().iter().all(|happened| matches!(happened, Happened::Sealed { .. })));
}

#[test]
fn a_disk_that_does_not_take_the_topics_keeps_no_segment_from_being_sealed() {
    let mut f = fixture();
    f.turn(0);
    f.side.topics.learn(&KnownTopics::decode(&one_topic()).unwrap());
    f.sim.fail(Fault::random(Call::Create, 1.0, FaultError::NoSpace).of(TOPICS_FILE));
    for is_first in [true, false] {
        let segment = f.lend(0);
        f.take(Event::Seal(Arc::clone(&segment), 0));
        let told = f.happened();
        let is_failing = |happened: &Happened| matches!(happened, Happened::TopicsNotWritten(..));
        assert_eq!(told.iter().any(is_failing), is_first, "told once: {told:?}");
        let is_sealed = |happened: &Happened| matches!(happened, Happened::Sealed { .. });
        assert!(told.iter().any(is_sealed));
    }
    f.sim.clear_faults();
    f.turn(RETRY_US / 1000);
    assert!(matches!(f.happened()[..], [Happened::TopicsWritten]), "with nothing sealed since");
    assert_eq!(f.sim.read_file(&Path::new(INGEST).join(TOPICS_FILE)).unwrap(), one_topic());
}

/// A list of the topic `web`.
fn one_topic() -> Vec<u8> {
    let mut known = KnownTopics::default();
    known.add_record(Topic::new(b"web").unwrap(), 86_400_000);
    known.encode()
}
