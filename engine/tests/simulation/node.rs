//! One node in one thread: turns the real one's workers, and has shards' effects carried out one by one,
//! in an order that a seed chooses; as the daemon does it with threads.
//!
//! It decides nothing but whose turn it is: effects are carried out by [`crate::effects`], what happened
//! is heard by [`crate::told`], what has to be there is known to [`crate::model`].

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Arc, Mutex};

use engine::ingest::log::{Now, ShardLog};
use engine::ingest::registry::Registry;
use engine::ingest::segment::Segment;
use engine::ingest::stamp_mark::StampKeeper;
use engine::ingest::topics::TopicChoice;
use engine::node::compacting::Compacting;
use engine::node::doors::Doors;
use engine::node::draining::Draining;
use engine::node::expiring::{Expired, Expiring};
use engine::node::gathering::{Gathering, Happened as Gathered};
use engine::node::keeper::{Effect as KeeperEffect, Event, Keeper, Surroundings};
use engine::node::local_ingest::LocalIngest;
use engine::node::opening;
use engine::node::pressure::Load;
use engine::node::reading_again::ReadingAgain;
use engine::search::Stepped;
use engine::storage::sim::{Random, SimStorage};
use engine::storage::{Open, Storage};
use engine::store::catalogue::Catalogue;
use engine::store::retention::RetentionLimits;

use crate::effects::{Job, Shard};
use crate::model::Model;
use crate::settings::{
    INGEST, STORE, Settings, compacting, gathering, keeper_options, log_options, options,
};
use crate::told::{Told, Trace};

/// What the keeper looks at; nobody takes anything away.
pub(crate) struct Around {
    stamped_ms: u64,
}

impl Surroundings for Around {
    fn ground(&self) -> [Option<String>; 2] {
        [None, None]
    }

    fn has_lost_name(&self, _: &Path, _: u128) -> bool {
        false
    }

    fn stamped_ms(&self) -> u64 {
        self.stamped_ms
    }
}

pub(crate) struct Node {
    pub(crate) sim: SimStorage,
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) now: Now,
    /// By recovery.
    pub(crate) told: Told,
    /// What went wrong since, in the words that an operator reads.
    pub(crate) errors: RefCell<Vec<String>>,
    pub(crate) trace: Trace,
    pub(crate) sides: engine::node::Node,
    pub(crate) stamps: Arc<Mutex<StampKeeper>>,
    pub(crate) search: RefCell<Stepped>,
    pub(crate) keeper: Keeper,
    /// Nobody turns it any more.
    pub(crate) is_keeper_gone: bool,
    pub(crate) doors: Arc<Doors>,
    pub(crate) draining: Draining,
    /// The disk refuses to take which topics there are.
    pub(crate) has_unkept_topics: Cell<bool>,
    /// Segments whose claims have lapsed.
    pub(crate) lapses: Cell<usize>,
    pub(crate) source: Arc<LocalIngest>,
    gathering: Gathering,
    compacting: Compacting,
    expiring: Expiring,
    reading: ReadingAgain,
    pub(crate) shards: Vec<Shard>,
    pub(crate) jobs: Vec<Job>,
}

impl Node {
    /// Recovers both directories and starts the shards; nobody has taken anything away. An error: a
    /// directory cannot be used.
    pub(crate) fn start(sim: &SimStorage, settings: Settings, now: Now) -> Result<Self, String> {
        let node = Self::start_anywhere(sim, settings, now)?;
        assert_eq!(node.told.holes, [], "nobody takes a segment away");
        Ok(node)
    }

    /// The same where somebody may have.
    pub(crate) fn start_anywhere(
        sim: &SimStorage,
        settings: Settings,
        now: Now,
    ) -> Result<Self, String> {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let mut told = Told::default();
        let options = options(&storage, settings);
        let opened = opening::open(options, now.wall_ms, &mut |found| told.hear(found));
        let node = opened.map_err(|e| e.to_string())?.node;
        let ingest = node.ingest.clone().expect("a side that takes records");
        let store = node.store.clone().expect("a side that keeps them");
        let (registry, catalogue) = (Arc::clone(&ingest.registry), store.catalogue);
        let caches = Arc::clone(&catalogue.directory().caches);
        let topics = Arc::clone(&ingest.topics);
        let stamps = Arc::clone(&ingest.stamps);
        let (floor_ms, ceiling) = {
            let stamps = stamps.lock().unwrap();
            (stamps.floor_ms(), stamps.ceiling())
        };
        let shards = (0..settings.shards)
            .map(|number| {
                let options = log_options(settings, &topics, ceiling.clone());
                let stream = settings.seed << 4 | number as u64;
                let tail =
                    registry.prepare_tail(number).and_then(|path| storage.open(&path, Open::Write));
                if let Err(error) = &tail {
                    told.failed.push(format!("{INGEST}: no tail file: {error}"));
                }
                Shard::new(number, ShardLog::new(options, stream, floor_ms), tail.ok())
            })
            .collect();
        let compacting = compacting(settings);
        let compacting =
            Compacting::start(Arc::clone(&catalogue), compacting, now.monotonic_us / 1000);
        let expiring = Expiring::start(&node, settings.retention, now).unwrap();
        let doors = Arc::new(Doors::default());
        doors.set_unmarked(!ingest.stamps.lock().unwrap().is_started());
        let keeper_options = keeper_options(&registry);
        let draining = Draining::default();
        let source = Arc::new(LocalIngest::new(Arc::clone(&registry), draining.clone()));
        let now_ms = now.monotonic_us / 1000;
        let gathering =
            Gathering::start(Arc::clone(&source), Arc::clone(&catalogue), gathering(), now_ms);
        let reading = ReadingAgain::start(&node, Arc::clone(&doors), now_ms);
        Ok(Self {
            sim: sim.clone(),
            sides: node,
            registry,
            catalogue,
            now,
            told,
            errors: RefCell::default(),
            trace: Trace::default(),
            stamps,
            search: RefCell::new(Stepped::new("sim", caches)),
            keeper: Keeper::new(&ingest, Arc::clone(&doors), keeper_options),
            is_keeper_gone: false,
            doors,
            draining,
            has_unkept_topics: Cell::new(false),
            lapses: Cell::new(0),
            source,
            gathering,
            compacting,
            expiring,
            reading,
            shards,
            jobs: Vec::new(),
        })
    }

    pub(crate) fn can_accept(&self, shard: usize) -> bool {
        !self.doors.gate().is_closed() && self.shards[shard].log.can_accept()
    }

    pub(crate) const fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub(crate) fn log(&self, shard: usize) -> &ShardLog {
        &self.shards[shard].log
    }

    /// Appends lines and enters them in the model.
    pub(crate) fn append(
        &mut self,
        model: &mut Model,
        shard: usize,
        lines: &[Vec<u8>],
        choice: &TopicChoice,
        is_durable: bool,
    ) {
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        self.turn_keeper();
        assert!(
            self.stamps.lock().unwrap().is_started(),
            "the doors are closed until a mark is on disk"
        );
        let taker = &mut self.shards[shard];
        let stamped = taker.log.append(&text, choice, self.now);
        let ulids = model.taken(&stamped, lines, choice, taker.log.memory());
        if is_durable {
            taker.want_durable(&stamped, ulids);
        }
        self.turn_shard(shard);
    }

    /// Lets time pass.
    pub(crate) fn advance_us(&mut self, us: u64) {
        let before_ms = self.now.monotonic_us / 1000;
        self.now.monotonic_us += us;
        self.now.wall_ms += self.now.monotonic_us / 1000 - before_ms;
        self.turn_keeper();
        for shard in 0..self.shards.len() {
            self.turn_shard(shard);
        }
    }

    fn turn_shard(&mut self, shard: usize) {
        self.shards[shard].begin(self.now, &mut self.jobs);
    }

    /// Does one step of some effect under way.
    pub(crate) fn step(&mut self, model: &mut Model, random: &mut Random) {
        if self.jobs.is_empty() {
            return;
        }
        let at = random.below(self.jobs.len() as u64) as usize;
        match self.jobs.swap_remove(at) {
            Job::Ask(event) => self.tell_keeper(event),
            Job::Lend { shard, segment } => self.lend(shard, segment),
            Job::Do { shard, token, what } => {
                let may_be_cut = self.sim.has_faults();
                let what = self.shards[shard].carry_out(&what, may_be_cut, model);
                self.trace.note((shard, token, format!("{what:?}")));
                self.jobs.push(Job::Complete { shard, token, what });
            }
            Job::Complete { shard, token, what } => {
                self.shards[shard].complete(token, what);
                self.shards[shard].acknowledge(self.doors.gate().is_withheld(), model);
                self.turn_shard(shard);
            }
        }
    }

    fn tell_keeper(&mut self, event: Event) {
        if self.is_keeper_gone {
            return;
        }
        self.keeper.take(event, self.now, &self.around());
        self.turn_keeper();
    }

    /// Opens a segment for its shard.
    fn lend(&mut self, shard: usize, segment: Arc<Segment>) {
        let event = match self.sim.open(&segment.path(), Open::Write) {
            Ok(file) => {
                self.shards[shard].on_segment(Arc::clone(&segment), Arc::clone(&file));
                Event::Lent { shard, segment, source: file, identity: 0 }
            }
            Err(error) => Event::NotLent { shard, segment, error },
        };
        self.tell_keeper(event);
        self.turn_shard(shard);
    }

    pub(crate) fn around(&self) -> Around {
        let stamped_ms = self.shards.iter().map(|shard| shard.log.stamped_ms()).max();
        Around { stamped_ms: stamped_ms.unwrap_or(0) }
    }

    /// Turns the keeper if it is time.
    fn turn_keeper(&mut self) {
        if self.is_keeper_gone || self.keeper.next_us() > self.now.monotonic_us {
            return;
        }
        self.keeper.turn(self.now, &self.around());
        for happened in self.keeper.take_happened() {
            self.hear_keeper(happened);
        }
        while let Some(effect) = self.keeper.next_effect() {
            match effect {
                KeeperEffect::Lend { shard, segment } => {
                    self.jobs.push(Job::Lend { shard, segment });
                }
                KeeperEffect::LostSegment(..) | KeeperEffect::LostTail(_) => {
                    panic!("nobody takes files away")
                }
            }
        }
    }

    /// Gathers what is flushed, and looks after what is not.
    pub(crate) fn gather(&mut self) {
        while self.gather_on() {}
        self.read_again();
    }

    /// Reads again what could not be read, if it is time to.
    fn read_again(&mut self) {
        let files = self.sim.files();
        let is_lost = |path: &Path, _| files.iter().all(|file| file != path);
        for happened in self.reading.turn(self.now, &is_lost) {
            self.hear_reading(happened);
        }
    }

    /// Does a piece of gathering; says whether there is more to do at once.
    pub(crate) fn gather_on(&mut self) -> bool {
        for happened in self.gathering.turn(self.now, &Load::default) {
            self.hear_gathering(&happened);
        }
        self.gathering.next_ms() <= self.now.monotonic_us / 1000
    }

    /// Does a piece of what gathering has begun; says whether there is more.
    pub(crate) fn finish_gathering(&mut self) -> bool {
        if self.gathering.is_busy() {
            self.gather_on();
        }
        self.gathering.is_busy()
    }

    /// Gathers once, so slowly that each piece of it takes `step_ms`, while the keeper looks after
    /// claims as often; says how many segments were published and how many times one became available
    /// again meanwhile.
    pub(crate) fn gather_slowly(&mut self, step_ms: u64) -> (usize, usize) {
        let (mut published, lapses) = (0, self.lapses.get());
        loop {
            self.advance_us(step_ms * 1000);
            let happened = self.gathering.turn(self.now, &Load::default);
            for happened in &happened {
                self.hear_gathering(happened);
            }
            let count =
                |wanted: fn(&Gathered) -> bool| happened.iter().filter(|h| wanted(h)).count();
            published += count(|happened| matches!(happened, Gathered::Published { .. }));
            let is_over = count(|happened| matches!(happened, Gathered::Committed { .. })) > 0;
            if is_over || !self.gathering.is_busy() {
                return (published, self.lapses.get() - lapses);
            }
        }
    }

    /// Turns compaction; says whether there was something to do.
    pub(crate) fn compact(&mut self) -> bool {
        self.read_again();
        if let Err(error) = self.catalogue.save_inventory() {
            self.tell(format!("{STORE}: {error}"));
        }
        assert_eq!(*self.catalogue.holes(), [], "nobody takes a segment away");
        let now = self.now;
        let happened = self.compacting.turn(&|| now, u64::MAX, Load::default());
        let found =
            happened.into_iter().filter_map(|what| self.hear_compacting(what).then_some(()));
        found.count() > 0
    }

    /// Lets expire what is due; `None`: it is not time to look.
    pub(crate) fn expire(&mut self) -> Option<Expired> {
        let turn = self.expiring.turn(self.now)?;
        self.hear_expiring(&turn);
        Some(turn)
    }

    /// Keeps records for another time from now on.
    pub(crate) fn retain(&mut self, limits: RetentionLimits) {
        self.expiring = Expiring::start(&self.sides, limits, self.now).unwrap();
    }
}
