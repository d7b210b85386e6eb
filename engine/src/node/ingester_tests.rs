//! A node that only takes records, and of which nobody takes them: it lets nothing go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::doors::{Doors, Reason};
use super::draining::{Left, Stuck};
use super::expiring::Expiring;
use super::keeper::{
    Effect as KeeperEffect, Event, Keeper, KeeperOptions, SpaceParts, Surroundings,
};
use super::opening::{NodeOptions, TopicOptions, open};
use super::reading_again::{Happened, ReadingAgain};
use super::{IngestSide, Node, Side};
use crate::headroom::HeadroomLimits;
use crate::identity::NodeId;
use crate::ingest::log::{Effect, Now, ShardLog, ShardLogOptions};
use crate::ingest::registry::RegistryOptions;
use crate::ingest::topics::TopicChoice;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::storage::{Open, Storage};
use crate::store::retention::RetentionLimits;
use crate::topic::Topic;

const INGEST: &str = "/ingest";
const SEGMENT_BYTES: u64 = 8 << 10;
const BACKLOG_MAX_BYTES: u64 = 64 << 10;
const START_MS: u64 = 1_700_000_000_000;
const YEAR_MS: u64 = 365 * 86_400_000;

struct Around;

impl Surroundings for Around {
    fn ground(&self) -> [Option<String>; 2] {
        [None, None]
    }

    fn has_lost_name(&self, _: &Path, _: u128) -> bool {
        false
    }

    fn stamped_ms(&self) -> u64 {
        0
    }
}

/// A node with one shard, which writes every record durably.
struct Ingester {
    sim: SimStorage,
    node: Node,
    side: IngestSide,
    doors: Arc<Doors>,
    keeper: Keeper,
    reading: ReadingAgain,
    log: ShardLog,
    now: Now,
}

impl Ingester {
    fn start(sim: &SimStorage, now: Now) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let ingest = RegistryOptions {
            flush_size_bytes: SEGMENT_BYTES,
            ..RegistryOptions::new(Arc::clone(&storage), INGEST.into(), now.wall_ms)
        };
        let limits = HeadroomLimits { free_min_bytes: Some(0), segment_bytes: ingest.file_bytes() };
        let (topics, new_ingester, new_store) = (TopicOptions::default(), NodeId(1), NodeId(2));
        let options =
            NodeOptions { ingest: Some(ingest), topics, store: None, new_ingester, new_store };
        let node = open(options, now.wall_ms, &mut |_| {}).unwrap().node;
        let (side, doors) = (node.ingest.clone().unwrap(), Arc::new(Doors::default()));
        let space = SpaceParts { storage, watched: vec![(Side::Ingest, INGEST.into())], limits };
        let options = KeeperOptions {
            space,
            backlog_max_bytes: BACKLOG_MAX_BYTES,
            flush_size_bytes: SEGMENT_BYTES,
        };
        let log = ShardLogOptions {
            segment_flush_size_bytes: SEGMENT_BYTES,
            ..ShardLogOptions::new(Arc::clone(&side.topics))
        };
        let floor_ms = side.stamps.lock().unwrap().floor_ms();
        Self {
            sim: sim.clone(),
            keeper: Keeper::new(&side, Arc::clone(&doors), options),
            reading: ReadingAgain::start(&node, Arc::clone(&doors), now.monotonic_us / 1000),
            log: ShardLog::new(log, now.wall_ms & 0xffff, floor_ms),
            node,
            side,
            doors,
            now,
        }
    }

    /// Takes a record of a kibibyte, and does all work that follows at once.
    fn take(&mut self) {
        let topic = TopicChoice::Static(Topic::new(b"web").unwrap());
        self.log.append(&[&[b'x'; 1023][..], b"\n"].concat(), &topic, self.now);
        self.log.want_durable();
        while let Some(effect) = self.log.next_effect(self.now) {
            match effect {
                Effect::WantSegment => {
                    self.keeper.take(Event::WantSegment(0), self.now, &Around);
                    self.turn();
                }
                Effect::Write { token, segment, offset_bytes, frame } => {
                    let file = self.sim.open(&segment.path(), Open::Write).unwrap();
                    file.write_all_at(frame.as_bytes(), offset_bytes).unwrap();
                    file.sync().unwrap();
                    self.log.on_written(token, Ok(frame.as_bytes().len()));
                }
                Effect::WriteTail { token, bytes, .. } => {
                    self.log.on_tail_written(token, Ok(bytes.len()));
                }
                Effect::Sync { token, .. } => self.log.on_synced(token, Ok(())),
                Effect::Seal { segment, len_bytes } => {
                    self.keeper.take(Event::Seal(segment, len_bytes), self.now, &Around);
                }
                Effect::Abandon { .. } => panic!("nothing fails"),
            }
        }
        self.turn();
    }

    fn turn(&mut self) {
        self.keeper.turn(self.now, &Around);
        while let Some(effect) = self.keeper.next_effect() {
            let KeeperEffect::Lend { shard, segment } = effect else { panic!("nothing is lost") };
            let source = self.sim.open(&segment.path(), Open::Read).unwrap();
            self.log.on_segment(Arc::clone(&segment));
            let lent = Event::Lent { shard, segment, source, identity: 0 };
            self.keeper.take(lent, self.now, &Around);
            self.keeper.turn(self.now, &Around);
        }
    }

    /// So much time passes, with all its work done now and then.
    fn pass(&mut self, ms: u64) -> Vec<Happened> {
        let mut happened = Vec::new();
        for _ in 0..100 {
            self.now.wall_ms += ms / 100;
            self.now.monotonic_us += 10 * ms;
            self.turn();
            happened.extend(self.reading.turn(self.now, &|_, _| false));
        }
        happened
    }

    fn flushed(&self) -> Vec<PathBuf> {
        let is_flushed = |path: &PathBuf| path.extension().is_some_and(|end| end == "flushed");
        self.sim.files().into_iter().filter(is_flushed).collect()
    }

    fn records(&self) -> u64 {
        self.side.registry.snapshot().iter().map(|segment| segment.content().records).sum()
    }
}

fn disk() -> SimStorage {
    let sim = SimStorage::new(1);
    sim.create_dir_all(Path::new(INGEST)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

#[test]
fn what_nobody_takes_stays_for_years_and_senders_wait_when_it_is_as_much_as_may_wait() {
    let mut node = Ingester::start(&disk(), Now { monotonic_us: 0, wall_ms: START_MS });
    node.turn();
    let mut taken = 0;
    while !node.doors.gate().is_closed() {
        node.take();
        taken += 1;
        node.now.monotonic_us += 20_000;
        assert!(taken < 200, "the backlog is never full");
    }
    assert_eq!(node.doors.reasons(), [Reason::BacklogFull]);
    let files = node.flushed();
    assert!(files.len() > 3);
    let no_retention = RetentionLimits { retain_ms: 1, purge_ms: 1, size_bytes_max: Some(1) };
    assert!(Expiring::start(&node.node, no_retention, node.now).is_none(), "it keeps nothing");
    node.pass(10 * YEAR_MS);
    assert_eq!((node.flushed(), node.records()), (files.clone(), taken));
    assert!(node.doors.gate().is_closed(), "nothing made room");
    assert_eq!(Left::of(&node.node, 1, false).stuck, None, "a shard may write out still");
    assert_eq!(Left::of(&node.node, 0, false).stuck, Some(Stuck::NoStore));
    // Nor does a start.
    let node = Ingester::start(&node.sim.kill(), node.now);
    assert!(files.iter().all(|file| node.flushed().contains(file)));
    assert_eq!(node.records(), taken);
}

#[test]
fn what_cannot_be_read_is_told_and_read_again_for_years_and_comes_back() {
    let sim = disk();
    let mut node = Ingester::start(&sim, Now { monotonic_us: 0, wall_ms: START_MS });
    node.turn();
    (0..30).for_each(|_| node.take());
    let (files, now) = (node.flushed(), node.now);
    drop(node);
    let name = files[0].file_name().unwrap().to_str().unwrap();
    sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(name));
    let mut node = Ingester::start(&sim, now);
    let (unread, readable) = (node.side.registry.unread_files(), node.records());
    assert_eq!((unread, node.side.registry.pin().lost.len()), (1, 1));
    assert!(readable > 0 && readable < 30);
    node.pass(10 * YEAR_MS);
    assert!(node.flushed().contains(&files[0]));
    assert_eq!(node.side.registry.pin().lost.len(), 1, "it is still told");
    sim.clear_faults();
    let happened = node.pass(YEAR_MS);
    assert!(happened.iter().any(|h| matches!(h, Happened::SegmentBack(_))), "{happened:?}");
    assert_eq!((node.records(), node.side.registry.pin().lost.len()), (30, 0));
}
