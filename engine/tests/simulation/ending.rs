//! How a simulated node is emptied and stopped: the real decisions, turned; and that the last word of a
//! stop is true, however it went.

use std::sync::Arc;
use std::time::Duration;

use engine::chunk::Part;
use engine::identity::IDENTITY_FILE;
use engine::ingest::known_topics::TOPICS_FILE;
use engine::ingest::log::Now;
use engine::ingest::promises::NotOnDisk;
use engine::ingest::stamp_mark::STAMP_MARK_FILE;
use engine::node::draining::{Left, Stuck};
use engine::node::ending::{Done, Effect, Ending, LastWord, Lost, Rest, Shards, Work};
use engine::node::names::records_not_found;
use engine::search::Step;
use engine::storage::sim::{Call, Fault, FaultError, Random};
use engine::store::inventory::INVENTORY_FILE;
use engine::topic::Topic;

use crate::coverage;
use crate::effects::Shard;
use crate::model::{Found, Model, lines};
use crate::node::Node;
use crate::seeds::for_seeds;
use crate::settings::{INGEST, STORE, Settings, empty_disk, gathering};

/// What shards say of themselves.
struct Said {
    held_bytes: u64,
    not_on_disk: Vec<NotOnDisk>,
}

impl Shards for Said {
    fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    fn not_on_disk(&self) -> Vec<NotOnDisk> {
        self.not_on_disk.clone()
    }
}

impl Node {
    /// Takes nothing more, and has all that it holds go to the store, as `/drain` asks of a node.
    fn drain(&mut self) {
        if self.draining.begin() {
            self.shards.iter_mut().for_each(Shard::shut_down);
        }
    }

    /// What of it is still to go to the store.
    fn left(&self) -> Left {
        let shards = self.shards.iter().filter(|shard| !shard.log.is_idle()).count();
        Left::of(&self.sides, shards as u64, false)
    }

    /// Drains it, and does all other work that there is. Panics if that takes for ever.
    pub(crate) fn settle(&mut self, model: &mut Model, random: &mut Random) {
        self.drain();
        for _ in 0..2_000 {
            self.advance_us(50_000);
            // Queries whose readers have gone let go of what they pin.
            let now = Duration::from_micros(self.now.monotonic_us);
            while self.search.borrow_mut().step(now) == Step::Worked {}
            for _ in 0..1_000 {
                if self.jobs.is_empty() {
                    break;
                }
                self.step(model, random);
            }
            self.gather();
            // What is damaged from its first byte stays, and is told.
            let is_unread = self.registry.pin().lost.iter().any(|d| d.refusal().is_some());
            let left = self.left();
            let is_stuck = matches!(left.stuck, Some(Stuck::Unread(_))) && left.segments == 0;
            let is_over = left.is_done() || is_stuck && !is_unread;
            if is_over && self.jobs.is_empty() {
                // What has failed is tried again by now.
                self.advance_us(10_000_000);
                let mut compactions = 0;
                while self.compact() {
                    compactions += 1;
                    assert!(compactions < 1_000, "compaction ends");
                }
                coverage::check(&self.catalogue);
                return;
            }
        }
        panic!("work does not end: {} jobs, {:?}", self.jobs.len(), self.left());
    }

    /// Both directories hold nothing but what belongs there when all work is done, and files that
    /// recovery told of: those stay as they are.
    pub(crate) fn check_tidy(&self) {
        for path in self.sim.files() {
            let is_named = |name| path.ends_with(name);
            if self.told.left_alone.contains(&path)
                || is_named(STAMP_MARK_FILE)
                || is_named(IDENTITY_FILE)
                || is_named(INVENTORY_FILE)
                || is_named(TOPICS_FILE)
            {
                continue;
            }
            let extension = path.extension().and_then(|e| e.to_str());
            let expected: &[&str] =
                if path.starts_with(STORE) { &["flushed"] } else { &["active", "tail", "damaged"] };
            assert!(extension.is_some_and(|e| expected.contains(&e)), "{} stays", path.display());
        }
    }

    /// Stops in good order; says when that was done.
    pub(crate) fn stop(mut self) -> Now {
        let word = self.end(10_000, &mut Model::default(), &mut Random::new(1));
        assert!(word.is_all_stored() && word.failure().is_none(), "{word:?}");
        self.now
    }

    /// Stops as the daemon does when it is told to, within so much time: what hangs is left.
    pub(crate) fn end(
        &mut self,
        timeout_ms: u64,
        model: &mut Model,
        random: &mut Random,
    ) -> LastWord {
        let doors = Arc::clone(&self.doors);
        let mut ending = Ending::start(&self.sides, doors, timeout_ms, self.now_ms());
        let (mut under_way, mut rest) = (None, None);
        loop {
            while let Some(effect) = ending.next_effect() {
                match effect {
                    Effect::CancelCompaction => {}
                    Effect::CancelStore => rest.iter_mut().for_each(Rest::cancel),
                    Effect::Begin(work) => {
                        self.begin_ending(work);
                        rest = (work == Work::Store).then(|| self.rest(ending.deadline_ms()));
                        under_way = Some(work);
                    }
                }
            }
            if let Some(done) = under_way.and_then(|work| self.done(work, rest.as_mut())) {
                ending.take(done, self.now_ms());
            }
            self.advance_us(random.below(5_000));
            for _ in 0..random.below(20) {
                self.step(model, random);
            }
            let said = self.said();
            ending.turn(&said, self.now_ms());
            self.trace.note(format!("{:?}", ending.take_not_in_time()));
            if let Some(word) = ending.last_word() {
                self.trace.note(format!("{word:?}"));
                return word;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.now.monotonic_us / 1000
    }

    fn said(&mut self) -> Said {
        let held = self.shards.iter().map(|shard| shard.log.unpublished_text_bytes());
        let held_bytes = held.sum();
        let shards = self.shards.iter_mut();
        let not_on_disk = shards.map(|shard| shard.promises.not_on_disk(&shard.log)).collect();
        Said { held_bytes, not_on_disk }
    }

    fn rest(&self, deadline_ms: u64) -> Rest {
        let (source, catalogue) = (Arc::clone(&self.source), Arc::clone(&self.catalogue));
        let doors = Arc::clone(&self.doors);
        Rest::start(source, catalogue, doors, gathering(), deadline_ms, self.now_ms())
    }

    fn begin_ending(&mut self, work: Work) {
        if work == Work::Shards {
            self.shards.iter_mut().for_each(Shard::shut_down);
        }
    }

    /// Does a piece of it; what is done, if it is.
    fn done(&mut self, work: Work, rest: Option<&mut Rest>) -> Option<Done> {
        let is_done = match work {
            Work::Followers | Work::Requests | Work::Ground => true,
            Work::Shards => {
                self.jobs.is_empty() && self.shards.iter().all(|shard| shard.log.is_idle())
            }
            Work::Keeper => {
                self.keeper.end(self.now, &self.around());
                for happened in self.keeper.take_happened() {
                    self.hear_keeper(happened);
                }
                self.is_keeper_gone = true;
                true
            }
            Work::Stamps => {
                let stamped_ms = self.shards.iter().map(|shard| shard.log.stamped_ms()).max();
                let closed = self.stamps.lock().unwrap().close(stamped_ms.unwrap_or(0));
                closed.err().iter().for_each(|error| self.tell(error));
                true
            }
            Work::Store => {
                let rest = rest.expect("it has begun");
                for happened in rest.turn(self.now) {
                    self.hear_gathering(&happened);
                }
                // What others had begun comes to its end.
                rest.is_over() && !self.finish_gathering()
            }
            Work::Tidy => {
                let failed = self.registry.tidy(self.now.wall_ms);
                for error in &failed {
                    self.tell(error);
                }
                self.catalogue.remove_replaced();
                if let Err(error) = self.catalogue.save_inventory() {
                    self.tell(format!("{STORE}: {error}"));
                }
                true
            }
            Work::Waiting => {
                self.registry.note_waiting().err().iter().for_each(|error| self.tell(error));
                true
            }
            Work::Unsynced => {
                let shards = self.said().not_on_disk;
                return Some(Done::Unsynced(Lost::count(&self.sim, INGEST.as_ref(), &shards)));
            }
            Work::Names => {
                let files = self.sim.files();
                let is_lost = |path: &std::path::Path, _| files.iter().all(|file| file != path);
                let listing = |directory: &std::path::Path| {
                    let here = files.iter().filter(|file| file.parent() == Some(directory));
                    Some(here.filter_map(|file| Some(file.file_name()?.to_owned())).collect())
                };
                let missing =
                    records_not_found(&self.sides, &self.doors, [false; 2], &listing, &is_lost);
                return Some(Done::Names(missing.look_on(&is_lost, &|| true)));
            }
        };
        is_done.then_some(Done::Work(work))
    }
}

/// Seeds of a plain test run.
const SEEDS: u64 = 100;

/// What a node does before it is stopped.
const STEPS: u64 = 150;

const START: Now = Now { monotonic_us: 0, wall_ms: 1_700_000_000_000 };

/// A node takes records, perhaps on a disk that fails or is full, and is stopped with more or less time;
/// then the machine loses power, or the process is gone.
fn simulate(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let sim = empty_disk(seed);
    let mut model = Model::default();
    let mut node = Node::start(&sim, Settings::small(1), START).unwrap();
    let choice = engine::ingest::topics::TopicChoice::Static(Topic::new(b"default").unwrap());
    let error = if random.chance(0.5) { FaultError::Io } else { FaultError::NoSpace };
    let probability = [0.0, 0.0, 0.1, 1.0][random.below(4) as usize];
    let fails_from = random.below(2 * STEPS);
    for step in 0..STEPS {
        if step == fails_from.min(STEPS - 1) {
            for call in [Call::Write, Call::Sync, Call::Create, Call::Rename] {
                sim.fail(Fault::random(call, probability, error));
            }
        }
        let shard = random.below(node.shard_count() as u64) as usize;
        if random.chance(0.4) && node.can_accept(shard) {
            let lines = lines(&mut random);
            node.append(&mut model, shard, &lines, &choice, random.chance(0.5));
        }
        node.advance_us(random.below(5_000));
        node.step(&mut model, &mut random);
        if random.chance(0.05) {
            node.gather_on();
        }
    }
    let timeout_ms = [0, 20, 200, 60_000][random.below(4) as usize];
    let word = node.end(timeout_ms, &mut model, &mut random);
    let now = node.now;
    // What was written, and to be synced by nobody, when writing failed is safe from a kill alone.
    let is_killed = probability > 0.0 || random.chance(0.5);
    let disk = if is_killed { sim.kill() } else { sim.crash(random.next_u64()) };
    let trace = node.trace.digest();
    drop(node);
    let node = Node::start(&disk, Settings::small(2), now).unwrap();
    let found = node.found();
    let is_missing = |ulid: &&engine::ulid::Ulid| !found.records.contains_key(ulid);
    let missing = model.sent.keys().filter(is_missing).count() as u64;
    let told = word.lost.records + word.lost.awaited_records;
    assert!(missing <= told, "{missing} records are lost, {told} are told: {word:?}");
    model.check(&found, &model.durable);
    if word.is_all_stored() && word.failure().is_none() && told == 0 {
        let stored: Vec<Arc<dyn Part>> =
            node.catalogue.snapshot().iter().map(|s| Arc::clone(s) as Arc<dyn Part>).collect();
        let stored = Found::in_parts(&stored).records;
        assert!(found.records.keys().eq(stored.keys()), "all is in the store, as was said");
    }
    if probability == 0.0 && timeout_ms >= 60_000 {
        assert!(word.is_all_stored() && word.failure().is_none() && told == 0, "{word:?}");
    }
    trace
}

#[test]
fn the_last_word_of_a_stop_tells_all_that_is_lost_however_it_went() {
    for_seeds("stops", SEEDS, simulate);
}
