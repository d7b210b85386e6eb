//! One node in one thread: shards whose effects are carried out one by one in an order that a
//! seed chooses, the registry, gathering and compaction; as the daemon does it with threads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::chunk::Part;
use engine::damage::{Damage, DamageKind};
use engine::headroom::HeadroomLimits;
use engine::identity::{IDENTITY_FILE, NodeId};
use engine::ingest::frame::FrameBuffer;
use engine::ingest::log::{Effect, Now, ShardLog, ShardLogOptions, Token};
use engine::ingest::recover::Note as IngestNote;
use engine::ingest::registry::{Registry, RegistryOptions};
use engine::ingest::segment::Segment;
use engine::ingest::stamp_mark::{STAMP_MARK_FILE, StampKeeper};
use engine::ingest::topics::TopicChoice;
use engine::node::Side;
use engine::node::compacting::{Compacting, CompactingOptions, Happened};
use engine::node::doors::Doors;
use engine::node::draining::{Draining, Left, Stuck};
use engine::node::expiring::{Expired, Expiring};
use engine::node::gathering::{Gathering, GatheringOptions, Happened as Gathered};
use engine::node::keeper::{
    Effect as KeeperEffect, Event, Happened as Kept, Keeper, KeeperOptions, SpaceParts,
    Surroundings,
};
use engine::node::local_ingest::LocalIngest;
use engine::node::opening::{self, Finding, NodeOptions};
use engine::node::pinning::{Memories, Pinned};
use engine::node::pressure::Load;
use engine::node::reading_again::{Happened as Read, ReadingAgain};
use engine::search::{QuerySpec, Step, Stepped};
use engine::storage::sim::{Random, SimStorage};
use engine::storage::{File, Open, Storage};
use engine::store::StoreDirectory;
use engine::store::catalogue::Catalogue;
use engine::store::compaction::CompactionLimits;
use engine::store::compaction_run::CompactionError;
use engine::store::gather::GatherLimits;
use engine::store::inventory::INVENTORY_FILE;
use engine::store::name::IdSource;
use engine::store::recover::NoteKind;
use engine::store::retention::RetentionLimits;
use engine::store::writer::WriterOptions;
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::asking::{Asked, everything};
use crate::coverage;
use crate::model::{Found, Model, note_written};

pub(crate) const INGEST: &str = "/data/ingest";
pub(crate) const STORE: &str = "/data/store";

/// A disk with durable, empty data directories.
pub(crate) fn empty_disk(seed: u64) -> SimStorage {
    let sim = SimStorage::new(seed);
    for directory in [INGEST, STORE] {
        sim.create_dir_all(Path::new(directory)).unwrap();
    }
    sim.sync_dir(Path::new("/")).unwrap();
    sim.sync_dir(Path::new("/data")).unwrap();
    sim
}

/// Nothing expires.
const FOR_EVER: RetentionLimits =
    RetentionLimits { retain_ms: u64::MAX, purge_ms: u64::MAX, size_bytes_max: None };

/// What is set apart from node to node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) shards: usize,
    pub(crate) flush_size_bytes: u64,
    pub(crate) pool_bytes_max: u64,
    /// Longest time that a compacted segment spans.
    pub(crate) compaction_span_ms: u64,
    pub(crate) retention: RetentionLimits,
    /// New for every start: streams and file names come from it.
    pub(crate) seed: u64,
}

impl Settings {
    pub(crate) const fn small(seed: u64) -> Self {
        Self {
            shards: 2,
            flush_size_bytes: 8 << 10,
            pool_bytes_max: 4 << 20,
            compaction_span_ms: u64::MAX,
            retention: FOR_EVER,
            seed,
        }
    }
}

/// What recovery told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) damage: Vec<Damage>,
    pub(crate) failed: Vec<String>,
    /// Files that stay as they are: damaged, or without any content of ours.
    pub(crate) left_alone: Vec<PathBuf>,
}

impl Told {
    fn hear(&mut self, found: Finding) {
        match found {
            Finding::Damage(damage) => {
                let is_hole = matches!(damage.kind, DamageKind::Missing(_));
                assert!(!is_hole, "nobody takes a segment away: {damage}");
                self.left_alone.push(damage.path.clone());
                self.damage.push(damage);
            }
            Finding::OfIngest(IngestNote::Failed(error)) => self.failed.push(error.to_string()),
            Finding::OfIngest(IngestNote::Unknown(path)) => self.left_alone.push(path),
            Finding::OfStore(note) => match note.kind {
                NoteKind::NotRemoved(_) => self.failed.push(note.to_string()),
                NoteKind::NotOurs => self.left_alone.push(note.path),
                _ => {}
            },
            Finding::MarkNotWritten(..) | Finding::StoreNotNamed(..) => {
                self.failed.push(found.to_string());
            }
            _ => {}
        }
    }
}

/// Both sides, as small as the settings say.
fn options(storage: &Arc<dyn Storage>, settings: Settings) -> NodeOptions {
    let ids = IdSource::seeded(settings.seed << 20);
    let store = StoreDirectory::new(Arc::clone(storage), PathBuf::from(STORE), ids);
    let ingest = RegistryOptions {
        flush_size_bytes: settings.flush_size_bytes,
        pool_bytes_max: settings.pool_bytes_max,
        caches: Arc::clone(&store.caches),
        ..RegistryOptions::new(Arc::clone(storage), PathBuf::from(INGEST), settings.seed)
    };
    let new_id = |side| NodeId(u128::from(settings.seed) << 8 | side);
    NodeOptions {
        ingest: Some(ingest),
        store: Some(Arc::new(store)),
        new_ingester: new_id(1),
        new_store: new_id(2),
    }
}

/// What the keeper looks at; nobody takes anything away.
struct Around {
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

/// Records are refused when the next segment does not fit.
fn keeper_options(registry: &Registry) -> KeeperOptions {
    let options = registry.options();
    let limits = HeadroomLimits { free_min_bytes: Some(0), segment_bytes: options.file_bytes() };
    let watched = vec![(Side::Ingest, options.directory.clone())];
    KeeperOptions {
        space: SpaceParts { storage: Arc::clone(&options.storage), watched, limits },
        backlog_max_bytes: u64::MAX,
        flush_size_bytes: options.flush_size_bytes,
    }
}

/// Whatever is flushed is gathered at once.
fn gathering() -> GatheringOptions {
    let limits =
        GatherLimits { target_age_ms: 0, replication_factor: 1, ..GatherLimits::default() };
    GatheringOptions { limits, writer: WriterOptions::default(), pause_ms: 100 }
}

/// Few segments are worth a compaction.
fn compacting(settings: Settings) -> CompactingOptions {
    let limits = CompactionLimits {
        group_max: 4,
        small_group_max: 4,
        group_min: 2,
        depth_max: 2,
        span_ms_max: settings.compaction_span_ms,
        ..CompactionLimits::default()
    };
    let writer = WriterOptions::default();
    CompactingOptions { limits, writer, held_back_pause_ms: 100, cancel: Arc::default() }
}

/// An effect under way: first it is carried out, later its completion is delivered.
enum Job {
    /// A shard asks the keeper.
    Ask(Event),
    Lend {
        shard: usize,
        segment: Arc<Segment>,
    },
    Write {
        shard: usize,
        token: Token,
        segment: Arc<Segment>,
        offset: u64,
        frame: Arc<FrameBuffer>,
    },
    Written {
        shard: usize,
        token: Token,
        result: io::Result<usize>,
    },
    Tail {
        shard: usize,
        token: Token,
        offset: u64,
        bytes: Arc<Vec<u8>>,
    },
    TailWritten {
        shard: usize,
        token: Token,
        result: io::Result<usize>,
    },
    Sync {
        shard: usize,
        token: Token,
        segment: Arc<Segment>,
    },
    Synced {
        shard: usize,
        token: Token,
        result: io::Result<()>,
    },
}

struct Shard {
    log: ShardLog,
    tail: Option<Arc<dyn File>>,
    files: BTreeMap<Ulid, Arc<dyn File>>,
    /// Durable appends that are not acknowledged: end and records.
    unacknowledged: Vec<(u64, Vec<Ulid>)>,
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
    sides: engine::node::Node,
    stamps: Arc<Mutex<StampKeeper>>,
    search: RefCell<Stepped>,
    keeper: Keeper,
    doors: Arc<Doors>,
    draining: Draining,
    /// Segments whose claims have lapsed.
    lapses: Cell<usize>,
    gathering: Gathering,
    compacting: Compacting,
    expiring: Expiring,
    reading: ReadingAgain,
    shards: Vec<Shard>,
    jobs: Vec<Job>,
}

impl Node {
    /// Recovers both directories and starts the shards. An error: a directory cannot be used.
    pub(crate) fn start(sim: &SimStorage, settings: Settings, now: Now) -> Result<Self, String> {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let mut told = Told::default();
        let options = options(&storage, settings);
        let opened = opening::open(options, now.wall_ms, &mut |found| told.hear(found));
        let node = opened.map_err(|e| e.to_string())?.node;
        let ingest = node.ingest.clone().expect("a side that takes records");
        let store = node.store.clone().expect("a side that keeps them");
        let (registry, catalogue) = (Arc::clone(&ingest.registry), store.catalogue);
        let caches = Arc::clone(&catalogue.directory().caches);
        let topics = ingest.topics(8, Some(&Topic::new(b"default").unwrap()));
        let stamps = Arc::clone(&ingest.stamps);
        let (floor_ms, ceiling) = {
            let stamps = stamps.lock().unwrap();
            (stamps.floor_ms(), stamps.ceiling())
        };
        let shards = (0..settings.shards)
            .map(|number| {
                let options = ShardLogOptions {
                    segment_flush_size_bytes: settings.flush_size_bytes,
                    segment_flush_age_us: 60_000,
                    ceiling: ceiling.clone(),
                    ..ShardLogOptions::new(Arc::clone(&topics))
                };
                let stream = settings.seed << 4 | number as u64;
                let tail =
                    registry.prepare_tail(number).and_then(|path| storage.open(&path, Open::Write));
                if let Err(error) = &tail {
                    told.failed.push(format!("{INGEST}: no tail file: {error}"));
                }
                Shard {
                    log: ShardLog::new(options, stream, floor_ms),
                    tail: tail.ok(),
                    files: BTreeMap::new(),
                    unacknowledged: Vec::new(),
                }
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
        let gathering = Gathering::start(source, Arc::clone(&catalogue), gathering(), now_ms);
        let reading = ReadingAgain::start(&node, Arc::clone(&doors), now_ms);
        Ok(Self {
            sim: sim.clone(),
            sides: node,
            registry,
            catalogue,
            now,
            told,
            errors: RefCell::default(),
            stamps,
            search: RefCell::new(Stepped::new("sim", caches)),
            keeper: Keeper::new(&ingest, Arc::clone(&doors), keeper_options),
            doors,
            draining,
            lapses: Cell::new(0),
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

    fn tell(&self, words: impl std::fmt::Display) {
        self.errors.borrow_mut().push(words.to_string());
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
        let log = &mut self.shards[shard].log;
        let stamped = log.append(&text, choice, self.now);
        assert!(model.floor < Some(stamped.first), "stamps of a life lie above all before it");
        assert_eq!(stamped.records, lines.len() as u64);
        assert_eq!(stamped.first.plus(stamped.records - 1), stamped.last, "one batch, one run");
        let ulids: Vec<Ulid> = (0..stamped.records).map(|n| stamped.first.plus(n)).collect();
        // Lines of different topics were sorted by topic: memory says which became which.
        let memory: Vec<Arc<dyn Part>> = vec![Arc::new(log.memory())];
        let found = Found::in_parts(&memory);
        let mut sorted: Vec<&[u8]> = Vec::new();
        for ulid in &ulids {
            let record = found.records.get(ulid).expect("what was accepted can be found at once");
            sorted.push(&record.line);
            let before = model.sent.insert(*ulid, record.clone());
            assert_eq!(before, None, "{ulid:?} was given out before");
        }
        let mut expected: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        if let TopicChoice::Static(topic) = choice {
            let is_its = |u: &Ulid| found.records[u].topic == topic.as_str();
            assert!(ulids.iter().all(is_its));
        } else {
            sorted.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(sorted, expected);
        if is_durable {
            log.want_durable();
            self.shards[shard].unacknowledged.push((stamped.end, ulids));
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

    /// Nothing is stamped any more.
    pub(crate) fn stop(self) {
        let stamped_ms = self.shards.iter().map(|shard| shard.log.stamped_ms()).max();
        self.stamps.lock().unwrap().close(stamped_ms.unwrap_or(0)).unwrap();
    }

    fn turn_shard(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].log.next_effect(self.now) {
            self.jobs.push(match effect {
                Effect::WantSegment => Job::Ask(Event::WantSegment(shard)),
                Effect::Write { token, segment, offset_bytes, frame } => {
                    Job::Write { shard, token, segment, offset: offset_bytes, frame }
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    Job::Tail { shard, token, offset: offset_bytes, bytes }
                }
                Effect::Sync { token, segment } => Job::Sync { shard, token, segment },
                Effect::Seal { segment, len_bytes } => {
                    self.shards[shard].files.remove(&segment.id());
                    Job::Ask(Event::Seal(segment, len_bytes))
                }
                Effect::Abandon { segment, len_bytes, error } => {
                    self.shards[shard].files.remove(&segment.id());
                    Job::Ask(Event::Abandon(segment, len_bytes, error))
                }
            });
        }
    }

    /// Does one step of some effect under way.
    pub(crate) fn step(&mut self, model: &mut Model, random: &mut Random) {
        if self.jobs.is_empty() {
            return;
        }
        let at = random.below(self.jobs.len() as u64) as usize;
        let job = self.jobs.swap_remove(at);
        if let Some(next) = self.work(job, model) {
            self.jobs.push(next);
        }
    }

    /// Carries a job a step further; what comes back is still to be done.
    fn work(&mut self, job: Job, model: &mut Model) -> Option<Job> {
        match job {
            Job::Ask(event) => {
                self.keeper.take(event, self.now, &self.around());
                self.turn_keeper();
            }
            Job::Lend { shard, segment } => self.lend(shard, segment),
            Job::Write { shard, token, segment, offset, frame } => {
                let bytes = frame.as_bytes();
                let file = &self.shards[shard].files[&segment.id()];
                let result = file.write_at(bytes, offset);
                // Behind a failed frame of its segment it is cut off again, and waits in memory.
                let is_whole = matches!(result, Ok(count) if count == bytes.len());
                if is_whole && !self.sim.has_faults() {
                    note_written(model, bytes);
                }
                return Some(Job::Written { shard, token, result });
            }
            Job::Tail { shard, token, offset, bytes } => {
                let result = match &self.shards[shard].tail {
                    Some(file) => file.write_at(&bytes, offset),
                    None => Err(io::ErrorKind::NotFound.into()),
                };
                if matches!(result, Ok(count) if count == bytes.len()) {
                    note_written(model, &bytes);
                }
                return Some(Job::TailWritten { shard, token, result });
            }
            Job::Sync { shard, token, segment } => {
                let result = self.shards[shard].files[&segment.id()].sync();
                return Some(Job::Synced { shard, token, result });
            }
            Job::Written { shard, token, result } => {
                self.shards[shard].log.on_written(token, result);
                self.turn_shard(shard);
            }
            Job::TailWritten { shard, token, result } => {
                self.shards[shard].log.on_tail_written(token, result);
                self.turn_shard(shard);
            }
            Job::Synced { shard, token, result } => {
                self.shards[shard].log.on_synced(token, result);
                self.acknowledge(shard, model);
                self.turn_shard(shard);
            }
        }
        None
    }

    /// Opens a segment for its shard.
    fn lend(&mut self, shard: usize, segment: Arc<Segment>) {
        let event = match self.sim.open(&segment.path(), Open::Write) {
            Ok(file) => {
                let state = &mut self.shards[shard];
                state.files.insert(segment.id(), Arc::clone(&file));
                state.log.on_segment(Arc::clone(&segment));
                Event::Lent { shard, segment, source: file, identity: 0 }
            }
            Err(error) => Event::NotLent { shard, segment, error },
        };
        self.keeper.take(event, self.now, &self.around());
        self.turn_keeper();
        self.turn_shard(shard);
    }

    fn around(&self) -> Around {
        let stamped_ms = self.shards.iter().map(|shard| shard.log.stamped_ms()).max();
        Around { stamped_ms: stamped_ms.unwrap_or(0) }
    }

    /// Turns the keeper if it is time.
    fn turn_keeper(&mut self) {
        if self.keeper.next_us() > self.now.monotonic_us {
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

    fn hear_keeper(&self, happened: Kept) {
        match happened {
            Kept::WriteFailed { path, error, .. }
            | Kept::NotOpened(path, error)
            | Kept::MarkNotWritten(path, error) => {
                self.tell(format!("{}: {error}", path.display()));
            }
            Kept::NotFlushed(error) | Kept::NoSegments(error) | Kept::FileFailed(error) => {
                self.tell(error);
            }
            Kept::DiskFull { error, .. } => self.tell(error),
            Kept::NameLost(path) | Kept::SegmentDeleted(path) | Kept::TailDeleted(path) => {
                panic!("nobody has taken {} away", path.display());
            }
            Kept::Ground(ground) => panic!("{ground:?}"),
            Kept::ClaimLapsed(_) => self.lapses.set(self.lapses.get() + 1),
            Kept::Sealed { .. }
            | Kept::HasSegments
            | Kept::MarkWritten
            | Kept::BacklogFull { .. }
            | Kept::BacklogHasRoom { .. }
            | Kept::SpaceMeasured { .. }
            | Kept::LacksSpace { .. }
            | Kept::HasSpace { .. } => {}
        }
    }

    fn acknowledge(&mut self, shard: usize, model: &mut Model) {
        let shard = &mut self.shards[shard];
        let end = shard.log.durable_end();
        shard.unacknowledged.retain(|(wanted, ulids)| {
            if *wanted <= end {
                model.durable.extend(ulids);
                model.written.extend(ulids);
            }
            *wanted > end
        });
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
            match happened {
                Read::NamesLost(lost) => panic!("nobody has taken {lost:?} away"),
                Read::NamesBack(path, _) | Read::Forgotten(path) => {
                    panic!("nobody had taken {} away", path.display());
                }
                Read::Damaged(damage) => damage.iter().for_each(|damage| self.tell(damage)),
                Read::FileFailed(error) => self.tell(error),
                Read::SegmentBack(_) | Read::TailBack(_) | Read::StoreSegmentBack(_) => {}
            }
        }
    }

    /// Does a piece of gathering; says whether there is more to do at once.
    pub(crate) fn gather_on(&mut self) -> bool {
        for happened in self.gathering.turn(self.now, &Load::default) {
            self.hear(&happened);
        }
        self.gathering.next_ms() <= self.now.monotonic_us / 1000
    }

    fn hear(&self, happened: &Gathered) {
        match happened {
            Gathered::Damaged(damage) => damage.iter().for_each(|damage| self.tell(damage)),
            Gathered::Unread(damage) => self.tell(damage),
            Gathered::SetAside { spans, .. } => assert!(*spans > 0),
            Gathered::FileFailed(error) => self.tell(error),
            Gathered::Failed { error, .. } => self.tell(error),
            Gathered::Published { .. }
            | Gathered::Committed { .. }
            | Gathered::Returned { .. }
            | Gathered::WorksAgain => {}
        }
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
                self.hear(happened);
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
        let mut is_found = false;
        for happened in self.compacting.turn(&|| now, u64::MAX, Load::default()) {
            match happened {
                Happened::NotRemoved(path, error) => {
                    self.tell(format!("{}: {error}", path.display()));
                }
                Happened::Failed { error, .. } => {
                    assert!(!matches!(
                        error,
                        CompactionError::CountsDiffer | CompactionError::RecordsDiffer
                    ));
                    self.tell(error);
                }
                Happened::Compacted { .. } => is_found = true,
                Happened::WorksAgain | Happened::HasRoom => {}
                Happened::LacksRoom { .. } => panic!("there is room for everything"),
            }
        }
        is_found
    }

    /// Lets expire what is due; `None`: it is not time to look.
    pub(crate) fn expire(&mut self) -> Option<Expired> {
        let turn = self.expiring.turn(self.now)?;
        for (operation, path, error) in &turn.done.failed {
            self.tell(format!("{operation} {}: {error}", path.display()));
        }
        Some(turn)
    }

    /// Keeps records for another time from now on.
    pub(crate) fn retain(&mut self, limits: RetentionLimits) {
        self.expiring = Expiring::start(&self.sides, limits, self.now).unwrap();
    }

    /// What a query pins.
    fn pin(&self) -> Pinned {
        let mut memories = Memories::default();
        self.shards.iter().for_each(|shard| memories.add(shard.log.memory()));
        memories.pin(&self.sides)
    }

    /// What a query searches.
    pub(crate) fn parts(&self) -> Vec<Arc<dyn Part>> {
        self.pin().parts
    }

    /// Everything that a query finds.
    pub(crate) fn found(&self) -> Found {
        self.answer(self.ask(everything()))
    }

    /// Asks what there is now.
    pub(crate) fn ask(&self, spec: QuerySpec) -> Asked {
        Asked::of(&self.search.borrow(), spec, self.pin())
    }

    /// Does a piece of the work of some query, and reads what has come of this one.
    pub(crate) fn step_search(&self, asked: &mut Asked) {
        self.search.borrow_mut().step(Duration::from_micros(self.now.monotonic_us));
        asked.read();
    }

    /// The whole answer.
    pub(crate) fn answer(&self, asked: Asked) -> Found {
        asked.answer(&mut self.search.borrow_mut(), Duration::from_micros(self.now.monotonic_us))
    }

    /// Takes nothing more, and has all that it holds go to the store, as `/drain` asks of a node.
    fn drain(&mut self) {
        if self.draining.begin() {
            self.shards.iter_mut().for_each(|shard| shard.log.shut_down());
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
            {
                continue;
            }
            let extension = path.extension().and_then(|e| e.to_str());
            let expected: &[&str] =
                if path.starts_with(STORE) { &["flushed"] } else { &["active", "tail", "damaged"] };
            assert!(extension.is_some_and(|e| expected.contains(&e)), "{} stays", path.display());
        }
    }
}
