//! One node in one thread: shards whose effects are carried out one by one in an order that a
//! seed chooses, the registry, gathering and compaction; as the daemon does it with threads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::chunk::Part;
use engine::damage::Damage;
use engine::ingest::frame::FrameBuffer;
use engine::ingest::log::{Effect, Now, ShardLog, ShardLogOptions, Token};
use engine::ingest::recover::Note;
use engine::ingest::registry::{Registry, RegistryOptions, SegmentInfo};
use engine::ingest::segment::{Segment, SegmentState, parse_file_name};
use engine::ingest::stamp_mark::{STAMP_MARK_FILE, StampKeeper};
use engine::ingest::topics::{TopicChoice, TopicSet};
use engine::storage::sim::{Random, SimStorage};
use engine::storage::{File, Open, Storage};
use engine::store::StoreDirectory;
use engine::store::catalogue::Catalogue;
use engine::store::compaction::CompactionLimits;
use engine::store::compaction_run::{CompactionError, compact};
use engine::store::gather::GatherLimits;
use engine::store::gather_run::{GatherRun, IngestSource};
use engine::store::name::IdSource;
use engine::store::recover::NoteKind;
use engine::store::writer::WriterOptions;
use engine::ulid::Ulid;

use crate::model::{Found, Model, note_written};
use crate::source::Source;

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

/// What is set apart from node to node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) shards: usize,
    pub(crate) flush_size_bytes: u64,
    pub(crate) pool_bytes_max: u64,
    /// Longest time that a compacted segment spans.
    pub(crate) compaction_span_ms: u64,
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

/// An effect under way: first it is carried out, later its completion is delivered.
enum Job {
    Segment {
        shard: usize,
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
    Seal {
        segment: Arc<Segment>,
        len_bytes: u64,
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
    settings: Settings,
    stamps: StampKeeper,
    source: Arc<Source>,
    gather: GatherRun,
    shards: Vec<Shard>,
    jobs: Vec<Job>,
}

impl Node {
    /// Recovers both directories and starts the shards. An error: a directory cannot be used.
    pub(crate) fn start(sim: &SimStorage, settings: Settings, now: Now) -> Result<Self, String> {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let mark = StampKeeper::open(Arc::clone(&storage), Path::new(INGEST));
        let mut stamps = mark.map_err(|e| e.to_string())?.keeper;
        let store = Arc::new(StoreDirectory::new(
            Arc::clone(&storage),
            PathBuf::from(STORE),
            IdSource::seeded(settings.seed << 20),
        ));
        let caches = Arc::clone(&store.caches);
        let stored =
            engine::store::recover::recover(&store, now.wall_ms).map_err(|e| e.to_string())?;
        let entries = storage.list(Path::new(INGEST)).map_err(|e| format!("{INGEST}: {e}"))?;
        let found: Vec<u128> = entries
            .iter()
            .filter_map(|entry| Some(parse_file_name(entry.name.as_deref()?)?.0.0))
            .collect();
        let options = RegistryOptions {
            flush_size_bytes: settings.flush_size_bytes,
            pool_bytes_max: settings.pool_bytes_max,
            caches,
            ..RegistryOptions::new(Arc::clone(&storage), PathBuf::from(INGEST), settings.seed)
        };
        let superfluous = stored.superfluous_ingest(&found);
        let ingest = engine::ingest::recover::recover(options, &superfluous, now.wall_ms)
            .map_err(|e| e.to_string())?;
        let mut told = Told { damage: stored.damage.clone(), ..Told::default() };
        told.damage.extend(ingest.report.iter().cloned());
        for note in &ingest.notes {
            match note {
                Note::Failed(error) => told.failed.push(error.to_string()),
                Note::Unknown(path) => told.left_alone.push(path.clone()),
                Note::AlreadyStored(_) => {}
            }
        }
        for note in &stored.notes {
            match note.kind {
                NoteKind::NotRemoved(_) => told.failed.push(note.to_string()),
                NoteKind::NotOurs => told.left_alone.push(note.path.clone()),
                _ => {}
            }
        }
        told.left_alone.extend(told.damage.iter().map(|damage| damage.path.clone()));
        stamps.start_above(ingest.newest_ms.max(stored.newest.ms()));
        if let Err(error) = stamps.keep(now.wall_ms, 0) {
            told.failed.push(format!("{INGEST}/{STAMP_MARK_FILE}: {error}"));
        }
        let registry = Arc::new(ingest.registry);
        let catalogue = Arc::new(stored.catalogue);
        let topics = Arc::new(TopicSet::new(8));
        topics.admit(b"default");
        let shards = (0..settings.shards)
            .map(|number| {
                let options = ShardLogOptions {
                    segment_flush_size_bytes: settings.flush_size_bytes,
                    segment_flush_age_us: 60_000,
                    ceiling: stamps.ceiling(),
                    ..ShardLogOptions::new(Arc::clone(&topics))
                };
                let stream = settings.seed << 4 | number as u64;
                let tail =
                    registry.prepare_tail(number).and_then(|path| storage.open(&path, Open::Write));
                if let Err(error) = &tail {
                    told.failed.push(format!("{INGEST}: no tail file: {error}"));
                }
                Shard {
                    log: ShardLog::new(options, stream, stamps.floor_ms()),
                    tail: tail.ok(),
                    files: BTreeMap::new(),
                    unacknowledged: Vec::new(),
                }
            })
            .collect();
        let limits = GatherLimits { replication_factor: 1, ..GatherLimits::default() };
        let source = Arc::new(Source::new(Arc::clone(&registry)));
        let cancel = Arc::new(AtomicBool::new(false));
        let carried = Arc::clone(&source) as Arc<dyn IngestSource>;
        let gather = GatherRun::new(limits, carried, Arc::clone(&catalogue), cancel);
        Ok(Self {
            sim: sim.clone(),
            registry,
            catalogue,
            now,
            told,
            errors: RefCell::default(),
            settings,
            stamps,
            source,
            gather,
            shards,
            jobs: Vec::new(),
        })
    }

    pub(crate) fn can_accept(&self, shard: usize) -> bool {
        self.stamps.is_started() && self.shards[shard].log.can_accept()
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
        self.keep_stamps();
        assert!(self.stamps.is_started(), "the doors are closed until a mark is on disk");
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
        self.keep_stamps();
        for shard in 0..self.shards.len() {
            self.turn_shard(shard);
        }
    }

    /// As the keeper does in each of its turns.
    fn keep_stamps(&mut self) {
        let stamped_ms = self.shards.iter().map(|shard| shard.log.stamped_ms()).max();
        if let Err(error) = self.stamps.keep(self.now.wall_ms, stamped_ms.unwrap_or(0)) {
            self.tell(format!("{INGEST}/{STAMP_MARK_FILE}: {error}"));
        }
    }

    /// Nothing is stamped any more.
    pub(crate) fn stop(mut self) {
        let stamped_ms = self.shards.iter().map(|shard| shard.log.stamped_ms()).max();
        self.stamps.close(stamped_ms.unwrap_or(0)).unwrap();
    }

    fn turn_shard(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].log.next_effect(self.now) {
            self.jobs.push(match effect {
                Effect::WantSegment => Job::Segment { shard },
                Effect::Write { token, segment, offset_bytes, frame } => {
                    Job::Write { shard, token, segment, offset: offset_bytes, frame }
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    Job::Tail { shard, token, offset: offset_bytes, bytes }
                }
                Effect::Sync { token, segment } => Job::Sync { shard, token, segment },
                Effect::Seal { segment, len_bytes } => {
                    self.shards[shard].files.remove(&segment.id());
                    Job::Seal { segment, len_bytes }
                }
                Effect::Abandon { segment, len_bytes, error } => {
                    self.tell(format!("{}: {error}", segment.path().display()));
                    self.shards[shard].files.remove(&segment.id());
                    Job::Seal { segment, len_bytes }
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
            Job::Segment { shard } => return self.hand_segment(shard),
            Job::Seal { segment, len_bytes } => {
                let failed = self.registry.flush(&segment, len_bytes, self.now.wall_ms).err()?;
                self.tell(&failed);
                let is_gone = failed.error.kind() == io::ErrorKind::NotFound;
                return (!is_gone).then_some(Job::Seal { segment, len_bytes });
            }
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

    fn hand_segment(&mut self, shard: usize) -> Option<Job> {
        let again = Some(Job::Segment { shard });
        let made = self.registry.prepare(1, self.now.wall_ms).map_err(|error| self.tell(error));
        let segment = made.unwrap_or_default().pop();
        let Some(segment) = segment else { return again };
        let file = match self.sim.open(&segment.path(), Open::Write) {
            Ok(file) => file,
            Err(error) => {
                self.tell(format!("{}: {error}", segment.path().display()));
                // As an unused one it goes back to the pool.
                self.jobs.push(Job::Seal { segment, len_bytes: 0 });
                return again;
            }
        };
        let shard_state = &mut self.shards[shard];
        shard_state.files.insert(segment.id(), file);
        shard_state.log.on_segment(segment);
        self.turn_shard(shard);
        None
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

    /// Gathers what is flushed.
    pub(crate) fn gather(&mut self) {
        let now_ms = self.now.monotonic_us / 1000;
        let mut goes_on = true;
        while goes_on {
            let turn = self.gather.turn(&|| now_ms);
            turn.error.iter().for_each(|error| self.tell(error));
            turn.damage.iter().for_each(|damage| self.tell(damage));
            goes_on = turn.goes_on;
        }
        self.errors.borrow_mut().append(&mut self.source.take_errors());
        let (_, late) = self.registry.expire(now_ms);
        let swept = self.registry.sweep(self.now.wall_ms);
        let look = self.registry.look_again(now_ms);
        late.iter().chain(&swept).chain(&look.errors).for_each(|error| self.tell(error));
    }

    /// Gathers once, so slowly that each look at the clock is `step_ms` after the one before, while the
    /// keeper looks after claims as often; says how many segments were published and how many times
    /// one became available again meanwhile.
    pub(crate) fn gather_slowly(&mut self, step_ms: u64) -> (usize, usize) {
        let (now_ms, lapses) = (Cell::new(self.now.monotonic_us / 1000), Cell::new(0));
        let turn = self.gather.turn(&|| {
            now_ms.set(now_ms.get() + step_ms);
            let (late, errors) = self.registry.expire(now_ms.get());
            assert!(errors.is_empty());
            lapses.set(lapses.get() + late.len());
            now_ms.get()
        });
        turn.error.iter().for_each(|error| self.tell(error));
        self.advance_us(now_ms.get() * 1000 - self.now.monotonic_us);
        (turn.published.len(), lapses.get())
    }

    /// Does one compaction; says whether there was something to do.
    pub(crate) fn compact(&self) -> bool {
        let limits = CompactionLimits {
            group_max: 4,
            small_group_max: 4,
            group_min: 2,
            depth_max: 2,
            span_ms_max: self.settings.compaction_span_ms,
            ..CompactionLimits::default()
        };
        let never = AtomicBool::new(false);
        self.catalogue.read_again();
        let done = compact(&self.catalogue, &limits, WriterOptions::default(), &never);
        for (path, error) in self.catalogue.sweep().failed {
            self.tell(format!("{}: {error}", path.display()));
        }
        done.as_ref().err().into_iter().for_each(|error| self.tell(error));
        assert!(!matches!(done, Err(CompactionError::CountsDiffer)), "{done:?}");
        matches!(done, Ok(Some(_)))
    }

    /// What a query pins, in its order.
    pub(crate) fn parts(&self) -> Vec<Arc<dyn Part>> {
        let mut parts: Vec<Arc<dyn Part>> = Vec::new();
        parts.extend(self.shards.iter().map(|s| Arc::new(s.log.memory()) as Arc<dyn Part>));
        parts.extend(self.registry.snapshot().into_iter().map(|s| s as Arc<dyn Part>));
        parts.extend(self.catalogue.snapshot().iter().map(|s| Arc::clone(s) as Arc<dyn Part>));
        parts
    }

    /// Everything that a query finds.
    pub(crate) fn found(&self) -> Found {
        let mut found = Found::in_parts(&self.parts());
        found.damage.extend(self.registry.pin().lost);
        found
    }

    /// Ends in good order: everything goes to the store. Panics if that takes for ever.
    pub(crate) fn settle(&mut self, model: &mut Model, random: &mut Random) {
        for shard in 0..self.shards.len() {
            self.shards[shard].log.shut_down();
        }
        for _ in 0..2_000 {
            self.advance_us(50_000);
            for _ in 0..1_000 {
                if self.jobs.is_empty() {
                    break;
                }
                self.step(model, random);
            }
            self.gather();
            let is_idle = self.shards.iter().all(|shard| shard.log.is_idle());
            // What is damaged stays, and is told; what could not be read comes back.
            let is_unread = self.registry.pin().lost.iter().any(|d| d.refusal().is_some());
            let rows = self.registry.list();
            let is_hopeless = |row: &SegmentInfo| {
                row.state == SegmentState::Damaged || (!row.is_offered && row.content.records == 0)
            };
            let is_taken = !is_unread && rows.iter().all(is_hopeless);
            if is_idle && self.jobs.is_empty() && is_taken {
                let mut compactions = 0;
                while self.compact() {
                    compactions += 1;
                    assert!(compactions < 1_000, "compaction ends");
                }
                return;
            }
        }
        let rows = self.registry.list();
        panic!("work does not end: {} jobs, {rows:?}", self.jobs.len());
    }

    /// Both directories hold nothing but what belongs there when all work is done, and files that
    /// recovery told of: those stay as they are.
    pub(crate) fn check_tidy(&self) {
        for path in self.sim.files() {
            if self.told.left_alone.contains(&path) || path.ends_with(STAMP_MARK_FILE) {
                continue;
            }
            let extension = path.extension().and_then(|e| e.to_str());
            let expected: &[&str] =
                if path.starts_with(STORE) { &["flushed"] } else { &["active", "tail", "damaged"] };
            assert!(extension.is_some_and(|e| expected.contains(&e)), "{} stays", path.display());
        }
    }
}
