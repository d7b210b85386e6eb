//! Kills and power losses at any point: what was acknowledged is there afterwards, once and
//! unaltered, restarts succeed, and in the end everything is in the store.

use std::collections::BTreeSet;

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::search::QuerySpec;
use engine::storage::sim::{Call, Fault, FaultError, Random, SimStorage};
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::asking::{Asked, some_query};
use crate::model::{Death, Found, Model, lines};
use crate::node::Node;
use crate::seeds::for_seeds;
use crate::settings::{INGEST, Settings, empty_disk};
use crate::told::Trace;
use crate::topics::Topics;

/// Seeds of a plain test run.
const SEEDS: u64 = 300;

/// A directory sync of the ingest side that fails loses names for good.
fn disk_that_forgets_names(seed: u64) -> SimStorage {
    let sim = empty_disk(seed);
    sim.forget_names(INGEST);
    sim
}

const START_MS: u64 = 1_700_000_000_000;

/// A query under way, and what there was when it was asked.
type Pinned = (Asked, BTreeSet<Ulid>);

/// One disk through many lives of a node.
struct History {
    random: Random,
    sim: SimStorage,
    model: Model,
    settings: Settings,
    now: Now,
    death: Death,
    /// What happened to all nodes, and what they answered.
    trace: Trace,
    topics: Topics,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings {
            shards: 1 + random.below(2) as usize,
            flush_size_bytes: 1 << (10 + random.below(8)),
            pool_bytes_max: random.below(2) * (4 << 20),
            ..Settings::small(0)
        };
        Self {
            random,
            settings,
            sim: disk_that_forgets_names(seed),
            model: Model::default(),
            now: Now { monotonic_us: 0, wall_ms: START_MS },
            death: Death::PowerLoss,
            trace: Trace::default(),
            topics: Topics::default(),
        }
    }

    fn next_settings(&mut self) -> Settings {
        self.settings.seed += 1;
        self.settings
    }

    /// The node is gone; the disk as the next one finds it.
    fn die(&mut self) {
        if self.random.chance(0.5) {
            self.death = Death::Kill;
            self.sim = self.sim.kill();
        } else {
            self.death = Death::PowerLoss;
            self.sim = self.sim.crash(self.random.next_u64());
        }
    }

    /// A node ends with all that it has told.
    fn bury(&mut self, node: Node) {
        self.trace.note(node.trace.digest());
        self.topics.died(&node);
        drop(node);
    }

    /// Starts a node, perhaps after dying in recovery a few times, and checks what it found.
    fn start(&mut self) -> Node {
        let mut worst = self.death;
        while self.random.chance(0.3) {
            self.sim.crash_at(1 + self.random.below(60));
            let settings = self.next_settings();
            let started = Node::start(&self.sim, settings, self.now);
            let has_stopped = self.sim.has_stopped();
            assert!(started.is_ok() || has_stopped, "recovery fails: {:?}", started.err());
            // A kill runs no destructor: the disk is taken first.
            self.die();
            drop(started);
            if self.death == Death::PowerLoss {
                worst = Death::PowerLoss;
            }
        }
        let settings = self.next_settings();
        let node = Node::start(&self.sim, settings, self.now).expect("recovery succeeds");
        assert_eq!(node.told.failed, Vec::<String>::new());
        self.topics.check(&node, &self.model, worst);
        self.model.recovered(worst, &node.found());
        self.topics.started(&node, &self.model);
        node
    }

    /// Recovering what was just recovered changes nothing.
    fn check_recovery_is_idempotent(&mut self, first: &Found) {
        let settings = self.next_settings();
        let twice = self.sim.kill();
        let node = Node::start(&twice, settings, self.now).expect("recovery succeeds");
        assert_eq!(node.found().records, first.records, "a second recovery finds the same");
        if self.death == Death::PowerLoss {
            let settings = self.next_settings();
            let crashed = self.sim.crash(self.random.next_u64());
            let node = Node::start(&crashed, settings, self.now).expect("recovery succeeds");
            assert_eq!(node.found().records, first.records, "what was found is durable");
        }
    }

    /// A node works until its steps are over or the machine stops.
    fn live(&mut self, node: &mut Node) {
        let steps = self.random.below(250);
        if self.random.chance(0.5) {
            let call = self.sim.calls() + 1 + self.random.below(300);
            self.sim.crash_at(call);
        }
        if self.random.chance(0.3) {
            self.break_some_calls();
        }
        let mut pinned = None;
        for _ in 0..steps {
            self.step(node, &mut pinned);
            if self.sim.has_stopped() {
                return;
            }
        }
        let found = node.found();
        if !self.sim.has_stopped() {
            self.model.check_all(&found);
        }
    }

    fn break_some_calls(&self) {
        let mut random = self.random.clone();
        for call in [Call::Write, Call::Sync, Call::Rename, Call::SyncDir, Call::Create] {
            let error = if random.chance(0.5) { FaultError::Io } else { FaultError::NoSpace };
            let probability = [0.0, 0.02, 0.2][random.below(3) as usize];
            self.sim.fail(Fault::random(call, probability, error));
        }
    }

    fn step(&mut self, node: &mut Node, pinned: &mut Option<Pinned>) {
        match self.random.below(100) {
            0..30 => self.append(node),
            30..50 => node.advance_us(self.random.below(25_000)),
            50..80 => node.step(&mut self.model, &mut self.random),
            80..90 => match pinned {
                Some((asked, _)) => node.step_search(asked),
                None => node.step(&mut self.model, &mut self.random),
            },
            90..92 => node.gather(),
            92..94 => {
                for _ in 0..self.random.below(20) {
                    node.gather_on();
                }
            }
            94..96 => {
                node.compact();
            }
            96..98 => {
                let shown = self.model.sent.keys().copied().collect();
                *pinned = Some((node.ask(QuerySpec::everything()), shown));
            }
            _ => {
                // A query still shows what there was when it was asked, wherever that went meanwhile
                // (and what a segment that was being written got since).
                let Some((asked, shown)) = pinned.take() else { return };
                let found = node.answer(asked);
                if !self.sim.has_stopped() {
                    self.model.check(&found, &shown);
                }
            }
        }
        self.now = node.now;
    }

    fn append(&mut self, node: &mut Node) {
        let shard = self.random.below(node.shard_count() as u64) as usize;
        if !node.can_accept(shard) {
            return;
        }
        let lines = lines(&mut self.random);
        let choice = if self.random.chance(0.5) {
            TopicChoice::FirstWord
        } else {
            TopicChoice::Static(Topic::new(b"default").unwrap())
        };
        let is_durable = self.random.chance(0.5);
        node.append(&mut self.model, shard, &lines, &choice, is_durable);
    }
}

/// What a seed does, as a number: every call to the disk, every effect of a shard and how it went, every
/// value that a worker told, and every answer.
fn digest_of(seed: u64) -> u64 {
    let mut history = History::new(seed);
    for _ in 0..=history.random.below(4) {
        let mut node = history.start();
        if history.random.chance(0.3) {
            history.check_recovery_is_idempotent(&node.found());
        }
        history.live(&mut node);
        history.die();
        history.bury(node);
    }
    let mut node = history.start();
    history.live(&mut node);
    if history.sim.has_stopped() {
        history.die();
        history.bury(node);
        node = history.start();
    }
    history.sim.clear_faults();
    history.sim.crash_at(u64::MAX);
    node.settle(&mut history.model, &mut history.random);
    assert!(node.registry.snapshot().is_empty(), "everything is in the store");
    let found = node.found();
    history.model.check_all(&found);
    assert_eq!(Found::in_parts(&node.parts()).records, found.records, "as it lies there");
    for _ in 0..3 {
        let (spec, wanted) = some_query(&mut history.random, &found);
        let some = node.answer(node.ask(spec.clone()));
        assert!(some.records.keys().eq(&wanted), "{spec:?}");
        assert!(some.records.iter().all(|(ulid, record)| found.records[ulid] == *record));
    }
    node.check_tidy();
    history.bury(node);
    // An orderly stop loses nothing, not even with the power.
    history.model.durable = found.records.keys().copied().collect();
    history.die();
    let node = history.start();
    let found_again = node.found().records;
    assert_eq!(found_again, found.records);
    history.bury(node);
    history.trace.note(history.sim.trace_digest());
    history.trace.digest()
}

#[test]
fn whatever_was_acknowledged_is_found_after_any_kill_or_power_loss() {
    for_seeds("kills and power losses", SEEDS, digest_of);
}
