//! A day of a node in moments, by simulated time: records trickle in, are gathered, compacted,
//! expire, go to the trash and are purged, while calls of the disk fail and the node is killed or
//! loses its power.
//!
//! What holds throughout: what was acknowledged and has not expired is found, unless the size of
//! the store took it, and then only what is oldest; what has expired comes back at most until the
//! next look. At the end: nothing is there twice, the store is within its size, what has expired
//! is gone from the disk, and there is nothing left to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use engine::identity::IDENTITY_FILE;
use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::storage::sim::{Call, Fault, FaultError, Random, SimStorage};
use engine::store::inventory::INVENTORY_FILE;
use engine::store::retention::RetentionLimits;
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::model::{Death, Found, Model};
use crate::node::Node;
use crate::seeds::for_seeds;
use crate::settings::{STORE, Settings, empty_disk};
use crate::told::Trace;

/// Seeds of a plain test run.
const SEEDS: u64 = 1_000;

const START_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// The longest time between looks at what has expired.
const PAUSE_MS: u64 = 10_000;
/// Simulated time of one run.
const DAY_MS: u64 = 24 * HOUR_MS;

struct Day {
    random: Random,
    sim: SimStorage,
    model: Model,
    settings: Settings,
    limits: RetentionLimits,
    now: Now,
    /// Records that left because the store may not hold more: everything up to here may be gone.
    surplus_to: Ulid,
    /// What happened to all nodes.
    trace: Trace,
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let limits = RetentionLimits {
            retain_ms: HOUR_MS * (1 + random.below(8)),
            purge_ms: HOUR_MS / 2 * random.below(6),
            size_bytes_max: random.chance(0.4).then(|| 20_000 + random.below(60_000)),
        };
        Self {
            random,
            sim: empty_disk(seed),
            model: Model::default(),
            settings: Settings { shards: 1, ..Settings::small(0) },
            limits,
            now: Now { monotonic_us: 0, wall_ms: START_MS },
            surplus_to: Ulid::MIN,
            trace: Trace::default(),
        }
    }

    fn start(&mut self) -> Node {
        self.settings.seed += 1;
        self.settings.retention = self.limits;
        Node::start(&self.sim, self.settings, self.now).expect("recovery succeeds")
    }

    /// Nothing that has to be there is missing; what is gone for good is forgotten.
    fn check(&mut self, found: &Found, required: &BTreeSet<Ulid>) {
        let horizon_ms = self.now.wall_ms.saturating_sub(self.limits.retain_ms);
        // A segment goes as a whole, with its newest record: up to then older ones may stay.
        let must_stay = |ulid: &&Ulid| ulid.ms() > horizon_ms && **ulid > self.surplus_to;
        self.model.check(found, &required.iter().filter(must_stay).copied().collect());
    }

    /// Some records, and time for them to be written.
    fn take_in(&mut self, node: &mut Node) {
        if node.can_accept(0) {
            let len = 20 + self.random.below(600) as usize;
            let count = 1 + self.random.below(4) as usize;
            let noise = self.random.next_u64();
            let line = |n| {
                let mut line = format!("{n} {noise} ").into_bytes();
                line.resize(line.len() + len, b'x');
                line
            };
            let lines: Vec<Vec<u8>> = (0..count).map(line).collect();
            let choice = TopicChoice::Static(Topic::new(b"default").expect("a topic"));
            let is_durable = self.random.chance(0.7);
            node.append(&mut self.model, 0, &lines, &choice, is_durable);
        }
        for _ in 0..4 {
            node.advance_us(30_000);
            for _ in 0..6 {
                node.step(&mut self.model, &mut self.random);
            }
        }
    }

    /// What is on the disk beside what its limits bound: an output that is being written, and
    /// inputs that it has replaced and somebody still reads.
    fn check_disk(&self, node: &Node) {
        if let Some(max) = self.limits.size_bytes_max {
            let used = self.sim.used_bytes();
            // Files of full length on the ingest side: the pool, the tail file, those in use.
            let ingest = self.settings.pool_bytes_max + 12 * node.registry.options().file_bytes();
            let backlog = node.registry.backlog_bytes();
            // Gathered since retention last looked, compacted, and read under another name.
            let store = 3 * max + (1 << 20);
            assert!(used <= ingest + backlog + store, "{used} bytes on the disk");
        }
    }

    /// Retention's turn. What it takes for want of size has to be the oldest of what there is.
    fn expire(&mut self, node: &mut Node) {
        let before = node.catalogue.snapshot();
        let had: Vec<_> = before.iter().map(|segment| *segment.meta()).collect();
        // A reader may still hold all of it: then files wait.
        let pinned = self.random.chance(0.1).then_some(before);
        let wall_ms = node.now.wall_ms;
        let turn = node.expire().expect("it is time to look").done;
        assert!(!turn.is_paused, "nobody set the clock");
        let is_pinned = pinned.is_some();
        drop(pinned);
        if let Some(max) = self.limits.size_bytes_max
            && turn.failed.is_empty()
            && !is_pinned
        {
            let totals = node.catalogue.totals();
            assert!(totals.file_bytes + totals.trash_bytes <= max, "over its size: {totals:?}");
        }
        let left = node.catalogue.snapshot();
        let is_gone = |id| left.iter().all(|segment| segment.meta().id != id);
        let horizon_ms = wall_ms.saturating_sub(self.limits.retain_ms);
        let surplus = had.iter().filter(|meta| is_gone(meta.id) && meta.last.ms() > horizon_ms);
        let newest_surplus = surplus.map(|meta| meta.last).max();
        assert_eq!(newest_surplus.is_some(), turn.surplus_count > 0);
        if let Some(newest) = newest_surplus {
            let max = self.limits.size_bytes_max.expect("only a bound on the size takes those");
            let bytes: u64 = had.iter().map(|meta| meta.file_bytes).sum();
            assert!(bytes + node.catalogue.totals().trash_bytes > max || !turn.purged.is_empty());
            assert!(left.iter().all(|segment| segment.meta().last > newest), "not the oldest");
            self.surplus_to = self.surplus_to.max(newest);
        }
        if turn.failed.is_empty() {
            let is_kept = |s: &engine::store::segment::SegmentMeta| s.last.ms() > horizon_ms;
            assert!(left.iter().all(|segment| is_kept(segment.meta())), "expired, but found");
        }
    }

    /// A stretch of time in one life of a node.
    fn live(&mut self, until_ms: u64) {
        let mut node = self.start();
        if self.random.chance(0.3) {
            self.break_some_calls();
        }
        while node.now.wall_ms < until_ms {
            node.advance_us(1000 * (10 + self.random.below(60)) * 60_000);
            self.take_in(&mut node);
            if self.random.chance(0.8) {
                node.gather();
            }
            self.expire(&mut node);
            while self.random.chance(0.7) && node.compact() {}
            self.now = node.now;
            self.check_disk(&node);
            if self.random.chance(0.1) {
                let found = node.found();
                self.check(&found, &self.model.sent.keys().copied().collect());
            }
        }
        let found = node.found();
        self.check(&found, &self.model.sent.keys().copied().collect());
        // The node dies; the next one finds what it had promised.
        let death = if self.random.chance(0.5) { Death::Kill } else { Death::PowerLoss };
        self.sim = match death {
            Death::Kill => self.sim.kill(),
            Death::PowerLoss => self.sim.crash(self.random.next_u64()),
        };
        drop(node);
        let node = self.start();
        let found = node.found();
        match death {
            Death::Kill => self.check(&found, &self.model.written.clone()),
            Death::PowerLoss => self.check(&found, &self.model.durable.clone()),
        }
        self.model.sent.retain(|ulid, _| found.records.contains_key(ulid));
        self.model.written = found.records.keys().copied().collect();
        if death == Death::PowerLoss {
            self.model.durable.clone_from(&self.model.written);
        }
        self.trace.note(node.trace.digest());
        drop(node);
        self.sim = self.sim.kill();
    }

    fn break_some_calls(&mut self) {
        for call in [Call::Write, Call::Sync, Call::Rename, Call::Remove, Call::SyncDir] {
            let error = if self.random.chance(0.5) { FaultError::Io } else { FaultError::NoSpace };
            let probability = [0.0, 0.02, 0.2][self.random.below(3) as usize];
            self.sim.fail(Fault::random(call, probability, error));
        }
    }

    /// The last life, without faults: all work comes to an end.
    fn end(&mut self) {
        self.sim.clear_faults();
        let mut node = self.start();
        self.take_in(&mut node);
        node.settle(&mut self.model, &mut self.random);
        for _ in 0..5 {
            node.advance_us(PAUSE_MS * 1000);
            self.expire(&mut node);
            while node.compact() {}
            self.now = node.now;
        }
        let found = node.found();
        self.check(&found, &self.model.sent.keys().copied().collect());
        assert_eq!(Found::in_parts(&node.parts()).records, found.records, "as it lies there");
        let totals = node.catalogue.totals();
        assert_eq!(totals.obsolete_count, 0);
        if let Some(max) = self.limits.size_bytes_max {
            assert!(totals.file_bytes + totals.trash_bytes <= max, "over its size: {totals:?}");
        }
        let distinct = found.records.len() as u64;
        let copies = totals.record_count - distinct;
        assert!(copies == 0 || node.catalogue.snapshot().len() > 1, "a segment holds no copies");

        // Everything expires (a reader may hold some for a turn), then everything is purged.
        // Stamps may be a little ahead of the clock after a kill.
        let ahead_ms = node.log(0).ahead_ms(node.now.wall_ms);
        for ms in [self.limits.retain_ms + ahead_ms, 0, self.limits.purge_ms, 0] {
            node.advance_us(1000 * (ms + PAUSE_MS));
            self.now = node.now;
            self.expire(&mut node);
        }
        assert_eq!(node.found().records.len(), 0);
        let is_kept =
            |path: &Path| [IDENTITY_FILE, INVENTORY_FILE].iter().any(|name| path.ends_with(name));
        let is_of_store = |path: &PathBuf| path.starts_with(STORE) && !is_kept(path);
        let left = self.sim.files().into_iter().filter(is_of_store);
        let left: Vec<_> = left.filter(|path| !node.told.left_alone.contains(path)).collect();
        assert!(left.is_empty(), "{left:?} stay for ever");
        self.trace.note((node.trace.digest(), self.sim.trace_digest()));
    }
}

fn simulate(seed: u64) -> u64 {
    let mut day = Day::new(seed);
    let mut lives = 1 + day.random.below(4);
    while day.now.wall_ms < START_MS + DAY_MS && lives > 0 {
        let left_ms = START_MS + DAY_MS - day.now.wall_ms;
        let until_ms = if lives == 1 { left_ms } else { day.random.below(left_ms) };
        day.live(day.now.wall_ms + until_ms);
        lives -= 1;
    }
    day.end();
    day.trace.digest()
}

#[test]
fn a_day_of_retention_loses_nothing_that_is_due_and_leaves_nothing_behind() {
    for_seeds("days of retention", SEEDS, simulate);
}

/// Records of three hours in three segments; the first two expire and are purged, with one call
/// failing; then whatever is left to do is done.
fn expire_with(fault: Option<Fault>) -> u64 {
    let mut day = Day::new(7);
    day.limits = RetentionLimits { retain_ms: HOUR_MS, purge_ms: HOUR_MS, size_bytes_max: None };
    let mut node = day.start();
    let mut ends = Vec::new();
    for _ in 0..3 {
        node.advance_us(1000 * HOUR_MS / 4);
        day.take_in(&mut node);
        for _ in 0..20 {
            node.advance_us(30_000);
            for _ in 0..20 {
                node.step(&mut day.model, &mut day.random);
            }
            node.gather();
        }
        ends.push(*day.model.sent.keys().next_back().expect("records were taken"));
    }
    assert_eq!(node.catalogue.totals().segment_count, 3);
    let unexpired: BTreeSet<Ulid> =
        day.model.sent.keys().copied().filter(|ulid| *ulid > ends[1]).collect();
    assert!(!unexpired.is_empty());

    let calls = day.sim.calls();
    let is_faulty = fault.is_some();
    if let Some(fault) = fault {
        day.sim.fail(fault);
    }
    // Both expire; an hour later, when the third has not yet, they are purged.
    let due_ms = ends[1].ms() + HOUR_MS - node.now.wall_ms + 1;
    for (round, ms) in [due_ms, PAUSE_MS, HOUR_MS / 8, PAUSE_MS].into_iter().enumerate() {
        node.advance_us(1000 * ms);
        if round == 2 {
            node.retain(RetentionLimits { purge_ms: 0, ..day.limits });
        }
        let turn = node.expire().expect("it is time to look").done;
        assert!(is_faulty || turn.failed.is_empty());
        for (operation, path, _) in &turn.failed {
            assert!(!operation.is_empty() && path.starts_with(STORE), "it names the file");
        }
        let found = node.found();
        // A part that cannot be read just now is told, and read the next time.
        if found.missing.is_empty() {
            day.model.check(&found, &unexpired);
        }
        // While it is not known whether the clock was set nothing goes.
        let is_clock_known = turn.failed.iter().all(|(what, ..)| *what != "look for");
        let is_left = found.records.keys().all(|ulid| unexpired.contains(ulid));
        assert!(is_left || !is_clock_known && turn.is_paused, "expired, but found");
    }
    let calls_made = day.sim.calls() - calls;
    day.sim.clear_faults();
    node.advance_us(PAUSE_MS * 1000);
    let turn = node.expire().expect("it is time to look").done;
    assert!(turn.failed.is_empty());
    assert!(node.catalogue.trash().is_empty(), "work goes on");
    day.now = node.now;
    for sim in [day.sim.kill(), day.sim.crash(3)] {
        day.sim = sim;
        let mut node = day.start();
        // What a power loss brought back expires again at once.
        node.expire().expect("it is time to look");
        let found = node.found();
        day.model.check(&found, &unexpired);
        assert_eq!(found.records.len(), unexpired.len());
    }
    calls_made
}

#[test]
fn any_single_call_may_fail_while_records_expire() {
    let calls = expire_with(None);
    assert!(calls >= 6, "two renames, two removals, two syncs: {calls}");
    for error in [FaultError::Io, FaultError::NoSpace] {
        for call in 1..=calls {
            let result = std::panic::catch_unwind(|| expire_with(Some(Fault::nth(call, error))));
            assert!(result.is_ok(), "{error:?} from call {call} breaks it");
        }
    }
}
