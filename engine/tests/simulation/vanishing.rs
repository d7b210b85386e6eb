//! Somebody takes ingest segments away while a node is stopped, and puts them back or not: a hole is told
//! if and only if what waited at an orderly stop is nowhere, by the node, its answers and `fsck`, over kills
//! and power losses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::chunk::Part;
use engine::damage::{Damage, DamageKind};
use engine::fsck;
use engine::identity::Side;
use engine::ingest::log::Now;
use engine::ingest::segment::{SegmentState, parse_file_name};
use engine::ingest::topics::TopicChoice;
use engine::ingest::waiting::{WAITING_FILE, Waiting};
use engine::storage::sim::{Call, Fault, FaultError, Random, SimStorage};
use engine::storage::{Open, Storage};
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::model::{Death, Found, Model, Record, lines};
use crate::node::Node;
use crate::seeds::for_seeds;
use crate::settings::{INGEST, Settings, empty_disk};
use crate::told::Trace;

/// Seeds of a plain test run.
const SEEDS: u64 = 60;

const START: Now = Now { monotonic_us: 0, wall_ms: 1_700_000_000_000 };

type Records = BTreeMap<Ulid, Record>;

/// What somebody took away.
struct Away {
    path: PathBuf,
    bytes: Vec<u8>,
    records: Records,
    /// What of them the file surely held.
    safe: BTreeSet<Ulid>,
}

/// One disk through many lives of a node.
struct Story {
    random: Random,
    sim: SimStorage,
    model: Model,
    now: Now,
    lives: u64,
    death: Death,
    /// A sync of the directory may have failed since it was last read from the disk.
    has_doubtful_names: bool,
    /// What was taken away.
    away: Vec<Away>,
    /// What of it waited at an orderly stop.
    claimed: BTreeSet<Ulid>,
    /// The same with what was found elsewhere since.
    claimed_once: BTreeSet<Ulid>,
    trace: Trace,
}

fn counters(ulids: impl Iterator<Item = Ulid>) -> BTreeSet<(u64, u64)> {
    ulids.map(|ulid| (ulid.stream(), ulid.counter())).collect()
}

fn counters_of(holes: &[Damage]) -> BTreeSet<(u64, u64)> {
    let gaps = holes.iter().filter_map(|hole| match hole.kind {
        DamageKind::Missing(Side::Ingest, gap) => Some(gap),
        _ => None,
    });
    gaps.flat_map(|gap| (gap.from..=gap.to).map(move |counter| (gap.stream, counter))).collect()
}

impl Story {
    fn new(seed: u64) -> Self {
        let sim = empty_disk(seed);
        sim.forget_names(INGEST);
        Self {
            random: Random::new(seed),
            sim,
            model: Model::default(),
            now: START,
            lives: 0,
            death: Death::PowerLoss,
            has_doubtful_names: false,
            away: Vec::new(),
            claimed: BTreeSet::new(),
            claimed_once: BTreeSet::new(),
            trace: Trace::default(),
        }
    }

    fn start(&mut self) -> Node {
        let report = fsck::check(&self.sim, Path::new("/data")).unwrap();
        let told: Vec<Damage> = report.damage().cloned().collect();
        self.lives += 1;
        let settings = Settings::small(self.lives);
        let node = Node::start_anywhere(&self.sim, settings, self.now).unwrap();
        assert_eq!(node.told.failed, Vec::<String>::new());
        let found = node.found();
        let is_missing = |ulid: &&Ulid| !found.records.contains_key(ulid);
        let missing: Vec<Ulid> = self.claimed.iter().filter(is_missing).copied().collect();
        let expected = counters(missing.iter().copied());
        let holes = counters_of(&node.registry.missing());
        assert!(holes.is_superset(&expected), "the node does not tell all of {expected:?}");
        // What was found by the life before it may have died before it wrote that down.
        let possible = self.claimed_once.iter().filter(is_missing).copied();
        assert!(holes.is_subset(&counters(possible)), "the node tells holes that are none");
        assert_eq!(counters_of(&node.told.holes), holes, "the start tells");
        assert_eq!(counters_of(&told), holes, "fsck tells");
        for ulid in &missing {
            let is_in =
                |missing: &engine::search::Missing| (missing.from..=missing.to).contains(ulid);
            assert!(found.missing.iter().any(is_in), "{ulid:?} is missing in silence");
        }
        self.claimed.retain(|ulid| !found.records.contains_key(ulid));
        let away = self.away.iter().flat_map(|away| away.records.keys());
        // What else is found of them, the power may take.
        for ulid in away {
            self.model.durable.remove(ulid);
            self.model.written.remove(ulid);
        }
        self.model.recovered(self.death, &found);
        node
    }

    fn live(&mut self, node: &mut Node) {
        let choice = TopicChoice::Static(Topic::new(b"default").unwrap());
        if self.random.chance(0.3) {
            for call in [Call::Write, Call::Sync, Call::Rename, Call::SyncDir, Call::Create] {
                node.sim.fail(Fault::random(call, 0.05, FaultError::Io));
            }
        }
        for _ in 0..self.random.below(150) {
            let shard = self.random.below(node.shard_count() as u64) as usize;
            if self.random.chance(0.4) && node.can_accept(shard) {
                let lines = lines(&mut self.random);
                node.append(&mut self.model, shard, &lines, &choice, self.random.chance(0.5));
            }
            node.advance_us(self.random.below(9_000));
            node.step(&mut self.model, &mut self.random);
            if self.random.chance(0.1) {
                node.gather_on();
            }
        }
    }

    /// Ends a life, in good order or not; says what was noted of what waits.
    fn die(&mut self, node: &mut Node) -> Waiting {
        let mut must_be_noted = Vec::new();
        if self.random.chance(0.7) {
            let timeout_ms = [1, 50, 60_000][self.random.below(3) as usize];
            let word = node.end(timeout_ms, &mut self.model, &mut self.random);
            if word.is_whole && !node.sim.has_faults() {
                must_be_noted = waiting(node);
            }
        }
        self.now = node.now;
        let has_faults = node.sim.has_faults();
        if self.random.chance(0.5) {
            self.death = Death::Kill;
            self.has_doubtful_names |= has_faults;
            self.sim = node.sim.kill();
        } else {
            self.death = Death::PowerLoss;
            self.has_doubtful_names = false;
            self.sim = node.sim.crash(self.random.next_u64());
        }
        let bytes = self.sim.read_file(&Path::new(INGEST).join(WAITING_FILE));
        let noted = bytes.map_or_else(|_| Waiting::default(), |b| Waiting::decode(&b).unwrap().1);
        assert!(must_be_noted.iter().all(|(path, _)| noted.names(id_of(path))));
        noted
    }

    /// Somebody takes files away of those that waited, or puts back what he took.
    fn meddle(&mut self, waited: Vec<(PathBuf, Records)>, noted: &Waiting) {
        for (path, records) in waited {
            // Of what is noted nothing is lost by itself.
            let file = self.file_of(id_of(&path));
            assert!(file.is_some() || !noted.names(id_of(&path)), "{} is noted", path.display());
            // Of a file whose name is not durable an earlier one may come back with the power.
            let may_be_taken = !self.has_doubtful_names && self.random.chance(0.3);
            // Under an earlier name it may hold more than was shown.
            let Some(path) = file.filter(|file| may_be_taken && *file == path) else { continue };
            if noted.names(id_of(&path)) {
                self.claimed.extend(records.keys());
                self.claimed_once.extend(records.keys());
            }
            let bytes = self.sim.read_file(&path).unwrap();
            self.sim.remove(&path).unwrap();
            let safe = match self.death {
                Death::Kill => &self.model.written,
                Death::PowerLoss => &self.model.durable,
            };
            let safe = safe.iter().filter(|ulid| records.contains_key(ulid)).copied().collect();
            self.away.push(Away { path, bytes, records, safe });
        }
        if self.random.chance(0.2) {
            while let Some(Away { path, bytes, records, safe }) = self.away.pop() {
                let file = self.sim.open(&path, Open::CreateNew).unwrap();
                file.write_all_at(&bytes, 0).unwrap();
                file.sync().unwrap();
                self.model.durable.extend(safe);
                self.is_back(records);
            }
        }
        self.sim.sync_dir(Path::new(INGEST)).unwrap();
    }

    fn file_of(&self, id: Ulid) -> Option<PathBuf> {
        let mut files = self.sim.files().into_iter().filter(|path| path.starts_with(INGEST));
        files.find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(parse_file_name).is_some_and(|(found, _)| found == id)
        })
    }

    fn is_back(&mut self, records: Records) {
        self.claimed.retain(|ulid| !records.contains_key(ulid));
        self.claimed_once.retain(|ulid| !records.contains_key(ulid));
        self.model.sent.extend(records);
    }
}

fn id_of(path: &Path) -> Ulid {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap();
    parse_file_name(name).unwrap().0
}

/// Files of complete segments that are whole, and what is in them.
fn waiting(node: &Node) -> Vec<(PathBuf, Records)> {
    let mut waiting = Vec::new();
    for segment in node.registry.snapshot() {
        let path = segment.path();
        let is_whole = segment.open().is_ok_and(|open| {
            let mut chunks = 0..open.chunks().len();
            open.damage().is_empty() && chunks.all(|index| open.read(index).is_ok())
        });
        if is_whole && segment.state() != SegmentState::Active {
            let part: Arc<dyn Part> = segment;
            waiting.push((path, Found::in_parts(&[part]).records));
        }
    }
    waiting
}

fn simulate(seed: u64) -> u64 {
    let mut story = Story::new(seed);
    for _ in 0..3 + story.random.below(5) {
        let mut node = story.start();
        story.live(&mut node);
        let noted = story.die(&mut node);
        let waited = waiting(&node);
        story.trace.note(node.trace.digest());
        drop(node);
        story.meddle(waited, &noted);
    }
    story.start();
    story.trace.note(story.sim.trace_digest());
    story.trace.digest()
}

#[test]
fn what_waited_and_was_taken_away_is_told_and_nothing_else_is() {
    for_seeds("segments that vanish", SEEDS, simulate);
}
