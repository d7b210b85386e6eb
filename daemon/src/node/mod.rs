//! The node: shards, keeper, store work, search and HTTP, wired together.
//!
//! - [`data`]: the directories, locked and recovered; [`lock`], [`host`], [`listeners`]: the rest of
//!   what a start needs;
//! - [`shards`]: one thread per core that takes lines; [`keeper`]: their files ([`lent`]: as shards get them);
//! - [`ground`]: whether the directories are those that were locked; [`disks`]: whether the disks do what they are told;
//! - [`store_work`]: gathering and compaction, and [`expiry`];
//! - [`mod@backend`]: the node as HTTP sees it;
//! - [`vitals`]: whether every thread gets on;
//! - [`control`]: the thread of HTTP; [`stop_signals`] and [`ending`]: how it stops; [`notify`]: what the
//!   supervisor is told.
//!
//! Invariants: everything that can fail at a start fails before the first record is taken, with
//! one line that says what to change. On a signal: no new connections, shards write out, the store
//! takes what it can in the time it is given, then the process ends.

mod backend;
mod control;
mod data;
mod disks;
mod ending;
mod expiry;
mod ground;
mod hanging;
mod host;
mod keeper;
mod keeper_words;
mod lent;
pub(crate) mod listeners;
mod notify;
mod read_again;
mod shards;
mod stop_signals;
mod store_work;
mod vitals;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use engine::caches::Caches;
use engine::headroom::HeadroomLimits;
use engine::ingest::stamp_mark::StampKeeper;
use engine::node::compacting::CompactingOptions;
use engine::node::doors::Doors;
use engine::node::draining::Draining;
use engine::node::gathering::GatheringOptions;
use engine::node::keeper::{Keeper, KeeperOptions, SpaceParts};
use engine::node::local_ingest::LocalIngest;
use engine::search::{Overseer, Searcher, SearcherOptions};
use engine::storage::{OsStorage, Storage};
use engine::store::compaction::CompactionLimits;
use engine::store::gather::GatherLimits;
use engine::store::writer::WriterOptions;
use net::follow::Hub;
use net::http::{HttpOptions, Reserve};
use net::metrics::NodeMetrics;
use net::ring::RingRefused;
use net::shard::{Clock, Placement};

use self::backend::NodeBackend;
use self::data::{Data, DataError};
use self::disks::{Disks, Side};
use self::ground::Grounds;
use self::listeners::{ListenError, Listeners};
use self::store_work::{StopFlag, StoreParts};
use self::vitals::{LOOK_EVERY, Role, Vitals};
use crate::config::{NodeConfig, RETAIN_PARTS};
use crate::lock::DirectoryLock;

/// Why a node did not start or had to stop.
#[derive(Debug)]
pub(crate) enum NodeError {
    /// The limit of open files is this low.
    Descriptors(host::TooFew),
    /// No io_uring.
    Ring(RingRefused),
    /// A directory cannot be used.
    Data(DataError),
    /// A port cannot be listened on.
    Listen(ListenError),
    /// The kernel refused a thread or a descriptor.
    Resources(&'static str, io::Error),
    /// A shard's ring failed while running.
    Shard(usize, io::Error),
    /// It was stopped, and so many records that were taken are not on disk.
    NotOnDisk(u64),
    /// It was stopped, and so many records are not in the directories that were taken away.
    TakenAway(u64),
    /// It was stopped, and nobody knows whether all that was taken is there.
    NotLookedUp,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Data(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Resources(what, error) => write!(f, "the system refused {what}: {error}"),
            Self::Descriptors(host::TooFew { have, needed }) => write!(
                f,
                "the limit of open files is {have}, a node needs {needed}: raise it (ulimit -n, or \
                 LimitNOFILE=)"
            ),
            Self::TakenAway(records) => write!(
                f,
                "{records} records cannot be found at the next start: their files, or the \
                 directory that they were in, were taken away while the node ran"
            ),
            Self::NotLookedUp => f.write_str(
                "whether all records that were taken are where the next start looks for them is \
                 not known: the disk did not answer in time",
            ),
            Self::NotOnDisk(records) => write!(
                f,
                "{records} records could not be brought to disk before the end; none of them was \
                 acknowledged as durable"
            ),
            Self::Shard(shard, error) => write!(
                f,
                "shard {shard} cannot go on: {error}; the node stops, and a restart takes up \
                 everything that was written"
            ),
        }
    }
}

impl std::error::Error for NodeError {}

impl From<DataError> for NodeError {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

impl From<ListenError> for NodeError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

/// What makes the main thread end the node.
enum Ending {
    Signal(&'static str),
    ShardFailed(usize, io::Error),
}

/// Runs a node until SIGINT or SIGTERM, or until it cannot go on.
pub(crate) fn run(mut config: NodeConfig) -> Result<(), NodeError> {
    // First of all, for the sake of its number.
    let reserve = Reserve::take();
    crate::signals::survive_others(true).map_err(|e| NodeError::Resources("signal handlers", e))?;
    let cores = host::cores(config.cores);
    let connections = host::Connections {
        ingest: config.ingest.connections_max,
        http: config.http.connections_max,
    };
    let (shards, gathers) = (cores.len(), config.store.segment_consumers);
    let wanted = host::Wanted { connections, shards, gathers };
    let (descriptors, advice) = host::descriptors(&wanted).map_err(NodeError::Descriptors)?;
    if let Some(advice) = advice {
        tracing::warn!("{advice}");
    }
    config.ingest.connections_max = descriptors.connections.ingest;
    config.http.connections_max = descriptors.connections.http;
    net::ring::probe().map_err(NodeError::Ring)?;
    let clock = Clock::start();
    let mut metrics = NodeMetrics::new(cores.len());
    metrics.log = crate::logging::metrics();
    let metrics = Arc::new(metrics);
    let locks = data::lock(&config)?;
    // Before anything is written: a port that is taken leaves nothing behind.
    let listeners = Listeners::bind(&config, cores.len())?;
    let disks = Disks::new(&config.ingest.path, &config.store.path, clock);
    let storage = disks.observe(Arc::new(OsStorage));
    let data = data::open(&config, locks, &storage, &metrics, clock.now().wall_ms)?;
    listeners.listen()?;
    Node::start(Base { config, cores, disks, metrics, data, listeners, reserve })?.run()
}

/// What a node is started on.
struct Base {
    config: NodeConfig,
    cores: Vec<usize>,
    disks: Disks,
    metrics: Arc<NodeMetrics>,
    data: Data,
    listeners: Listeners,
    reserve: Reserve,
}

/// A running node.
struct Node {
    config: NodeConfig,
    placement: Placement,
    stopping: Arc<AtomicBool>,
    hub: Hub,
    follow_thread: JoinHandle<()>,
    control: control::Control,
    shards: Vec<JoinHandle<()>>,
    keeper: Arc<keeper::KeeperHandle>,
    keeper_thread: JoinHandle<()>,
    store: StoreParts,
    store_threads: Vec<JoinHandle<()>>,
    metrics: Arc<NodeMetrics>,
    clock: Clock,
    doors: Arc<Doors>,
    vitals: Arc<Vitals>,
    overseer: Option<Overseer>,
    stamps: Arc<Mutex<StampKeeper>>,
    endings: Receiver<Ending>,
    locks: [DirectoryLock; 2],
    grounds: Grounds,
}

/// Search on as many threads, which let shards go first.
fn searcher(threads: usize, caches: &Arc<Caches>) -> std::io::Result<Searcher> {
    let on_thread_start = Arc::new(|_| host::yield_to_shards());
    let (node, caches) = ("local".into(), Arc::clone(caches));
    Searcher::start(SearcherOptions { threads, node, caches, on_thread_start })
}

impl Node {
    fn start(base: Base) -> Result<Self, NodeError> {
        let Base { config, cores, disks, metrics, mut data, listeners, reserve } = base;
        let (ended, endings) = channel();
        let common = Common::start(cores.len(), disks, metrics)?;
        let (floor_ms, ceiling) = {
            let stamps = data.ingest.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            common.doors.set_unmarked(!stamps.is_started());
            (stamps.floor_ms(), stamps.ceiling())
        };
        let (keeper, keeper_thread) =
            keeper::spawn(keeper_parts(&config, &data, &common)).map_err(refused("a thread"))?;
        let store = store_parts(&config, &data, &common);
        let store_threads = store_work::spawn(config.store.segment_consumers, &store)
            .map_err(refused("a thread"))?;
        let searcher = searcher(cores.len(), &data.store.catalogue.directory().caches)
            .map_err(refused("a thread"))?;
        common.watch(&searcher);
        let overseer = searcher.overseer();
        let metrics = Arc::clone(&common.metrics);
        let follow_thread =
            common.hub.spawn(metrics, host::yield_to_shards).map_err(refused("a thread"))?;
        let backend = backend(&config, &data, &common, searcher, &store.replicas_missing);
        listeners.tell(&config);
        let wiring = shards::Wiring {
            config: &config,
            cores: &cores,
            floor_ms,
            ceiling,
            side: &data.ingest,
            keeper: Arc::clone(&keeper),
            placement: common.placement.clone(),
            gate: common.doors.gate(),
            hub: common.hub.clone(),
            metrics: Arc::clone(&common.metrics),
            clock: common.clock,
            disks: &common.disks,
        };
        // Before anybody can connect: who hears an answer may send a signal.
        stop_signals::spawn(ended.clone()).map_err(refused("the signals thread"))?;
        let shards = shards::spawn(&wiring, listeners.fast, listeners.durable, &ended)
            .map_err(refused("a shard"))?;
        let control =
            control::spawn(listeners.api, Arc::new(backend), http_options(&config, reserve))
                .map_err(refused("the control thread"))?;
        data.locks.iter_mut().for_each(DirectoryLock::keep);
        Ok(Self {
            config,
            placement: common.placement,
            stopping: common.stopping,
            hub: common.hub,
            follow_thread,
            control,
            shards,
            keeper,
            keeper_thread,
            store,
            store_threads,
            metrics: common.metrics,
            clock: common.clock,
            doors: common.doors,
            vitals: common.vitals,
            overseer,
            stamps: data.ingest.stamps,
            endings,
            grounds: Grounds::of(&data.locks),
            locks: data.locks,
        })
    }

    fn run(self) -> Result<(), NodeError> {
        let mut supervisor = notify::Supervisor::from_environment();
        supervisor.tell("READY=1\nSTATUS=Taking records");
        let ending = self.wait(&mut supervisor);
        supervisor.tell("STOPPING=1\nSTATUS=Writing out");
        match ending {
            Ok(Ending::ShardFailed(shard, error)) => Err(NodeError::Shard(shard, error)),
            Ok(Ending::Signal(signal)) => {
                tracing::info!(signal, "stopping");
                self.shut_down()
            }
            Err(_) => self.shut_down(),
        }
    }

    /// Waits for the end; meanwhile looks whether every thread gets on, and the supervisor hears
    /// of it as long as records can be taken.
    fn wait(&self, supervisor: &mut notify::Supervisor) -> Result<Ending, RecvTimeoutError> {
        let interval = supervisor.watchdog_interval();
        let pause = interval.map_or(LOOK_EVERY, |interval| interval.min(LOOK_EVERY));
        let (mut before, mut fed) = (self.metrics.turns(), Instant::now());
        loop {
            match self.endings.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                ended => return ended,
            }
            supervisor.tell_again();
            self.vitals.look(self.clock.now().monotonic_us / 1000, &self.metrics);
            self.overseer.iter().for_each(hanging::look);
            if interval.is_none_or(|interval| fed.elapsed() < interval) {
                continue;
            }
            let now = self.metrics.turns();
            let all_turn = before.iter().zip(&now).all(|(before, now)| before != now);
            if all_turn && !self.vitals.is_failing() {
                supervisor.tell_alive();
            }
            (before, fed) = (now, Instant::now());
        }
    }
}

/// What the parts of a node have in common.
struct Common {
    placement: Placement,
    doors: Arc<Doors>,
    hub: Hub,
    stopping: Arc<AtomicBool>,
    /// No new records until a restart.
    draining: Draining,
    clock: Clock,
    metrics: Arc<NodeMetrics>,
    vitals: Arc<Vitals>,
    disks: Arc<Disks>,
}

/// What the system was asked for when it refused.
fn refused(what: &'static str) -> impl Fn(io::Error) -> NodeError {
    move |error| NodeError::Resources(what, error)
}

impl Common {
    /// With the threads that watch the disks.
    fn start(shards: usize, disks: Disks, metrics: Arc<NodeMetrics>) -> Result<Self, NodeError> {
        let placement = Placement::new(shards).map_err(refused("an event descriptor"))?;
        let common = Self {
            hub: Hub::new(placement.clone()),
            placement,
            doors: Arc::default(),
            stopping: Arc::default(),
            draining: Draining::default(),
            clock: disks.clock(),
            metrics,
            vitals: Arc::default(),
            disks: Arc::new(disks),
        };
        let storage = Arc::new(OsStorage) as Arc<dyn Storage>;
        common
            .disks
            .spawn(&storage, &common.doors, &common.metrics)
            .map_err(refused("a thread"))?;
        Ok(common)
    }

    /// Watches the threads whose pulses are made elsewhere.
    fn watch(&self, searcher: &Searcher) {
        for (number, seat) in self.placement.seats().iter().enumerate() {
            self.vitals.watch(format!("shard-{number}"), Role::Shard, Arc::clone(&seat.pulse));
        }
        for (number, pulse) in searcher.pulses().iter().enumerate() {
            self.vitals.watch(format!("scan-{number}"), Role::Scan, Arc::clone(pulse));
        }
        self.vitals.watch("follow", Role::Follow, self.hub.pulse());
    }
}

fn keeper_parts(config: &NodeConfig, data: &Data, common: &Common) -> keeper::KeeperParts {
    let options = data.ingest.registry.options();
    let directories = [&options.directory, &config.store.path];
    let device = |path: &Path| std::fs::metadata(path).map(|data| data.dev()).ok();
    let is_shared = device(directories[0]) == device(directories[1]);
    let watched = Side::ALL.into_iter().zip(directories.map(PathBuf::clone));
    let space = SpaceParts {
        storage: Arc::clone(&options.storage),
        watched: watched.take(if is_shared { 1 } else { 2 }).collect(),
        limits: HeadroomLimits {
            free_min_bytes: config.disk_free_min_bytes,
            segment_bytes: options.file_bytes(),
        },
    };
    let totals = data.store.catalogue.totals();
    let store_bytes = totals.file_bytes + totals.trash_bytes;
    let ingest_bytes = data.ingest.registry.backlog_bytes() + data.ingest.registry.pool_bytes();
    space.too_small([ingest_bytes, store_bytes]).iter().for_each(keeper_words::tell_too_small);
    let keeper_options = KeeperOptions {
        space,
        backlog_max_bytes: config.ingest.backlog_max_bytes,
        flush_size_bytes: config.ingest.segment_flush_size_bytes,
    };
    keeper::KeeperParts {
        keeper: Keeper::new(&data.ingest, Arc::clone(&common.doors), keeper_options),
        storage: Arc::clone(&options.storage),
        placement: common.placement.clone(),
        clock: common.clock,
        metrics: Arc::clone(&common.metrics),
        stopping: Arc::clone(&common.stopping),
        pulse: common.vitals.pulse("keeper", Role::Keeper),
        disk: common.disks.watch(Side::Ingest),
        grounds: Grounds::of(&data.locks),
    }
}

fn backend(
    config: &NodeConfig,
    data: &Data,
    common: &Common,
    searcher: Searcher,
    replicas_missing: &Arc<AtomicBool>,
) -> NodeBackend {
    let (ingester, floor_ms) = {
        let stamps = data.ingest.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        (stamps.ingester(), stamps.floor_ms())
    };
    NodeBackend {
        placement: common.placement.clone(),
        node: data.node.clone(),
        registry: Arc::clone(&data.ingest.registry),
        catalogue: Arc::clone(&data.store.catalogue),
        ingester,
        searcher,
        hub: common.hub.clone(),
        metrics: Arc::clone(&common.metrics),
        doors: Arc::clone(&common.doors),
        clock: common.clock,
        record_size_max: config.ingest.max_record_size_bytes,
        backlog_max_bytes: config.ingest.backlog_max_bytes,
        newest_at_start_ms: data.node.newest_ms,
        floor_ms,
        replicas_missing: Arc::clone(replicas_missing),
        vitals: Arc::clone(&common.vitals),
        stopping: Arc::clone(&common.stopping),
        draining: common.draining.clone(),
        next_shard: AtomicUsize::new(0),
    }
}

fn http_options(config: &NodeConfig, reserve: Reserve) -> HttpOptions {
    HttpOptions {
        queries_max: config.query.queries_max(),
        query_memory_bytes: config.query.memory_max_bytes,
        query_turn_wait: config.query.wait_max,
        connections_max: config.http.connections_max,
        connections_per_address_max: config.http.of_one_address(),
        idle_timeout: config.http.idle_timeout,
        long_lines_bytes: config.ingest.partial_max_bytes as u64,
        sites: Arc::clone(&config.http.sites),
        reserve,
        ..HttpOptions::default()
    }
}

fn store_parts(config: &NodeConfig, data: &Data, common: &Common) -> StoreParts {
    let descriptors = host::Wanted {
        connections: host::Connections {
            ingest: config.ingest.connections_max,
            http: config.http.connections_max,
        },
        shards: common.placement.seats().len(),
        gathers: config.store.segment_consumers,
    };
    let share = descriptors.segments_now();
    let limits = GatherLimits {
        target_bytes: config.store.segment_target_size_bytes,
        target_age_ms: config.store.segment_target_age.as_millis() as u64,
        replication_factor: config.store.replication_factor,
        claim_count_max: GatherLimits::default().claim_count_max.min(share.gather_inputs),
        ..GatherLimits::default()
    };
    let writer = WriterOptions {
        compression: config.store.compression,
        signature_percent: config.store.signature_percent,
        ..WriterOptions::default()
    };
    let pause_ms = config.store.segment_delay.as_millis() as u64;
    StoreParts {
        node: data.node.clone(),
        descriptors,
        source: Arc::new(LocalIngest::new(
            Arc::clone(&data.ingest.registry),
            common.draining.clone(),
        )),
        catalogue: Arc::clone(&data.store.catalogue),
        gathering: GatheringOptions { limits, writer, pause_ms },
        doors: Arc::clone(&common.doors),
        compaction: CompactingOptions {
            limits: compaction_limits(config, share.compaction_inputs),
            writer,
            held_back_pause_ms: pause_ms,
            cancel: Arc::default(),
        },
        retention: expiry::limits(&config.store),
        backlog_max_bytes: config.ingest.backlog_max_bytes,
        metrics: Arc::clone(&common.metrics),
        clock: common.clock,
        replicas_missing: Arc::new(AtomicBool::new(false)),
        stop: Arc::new(StopFlag::default()),
        cancel: Arc::new(AtomicBool::new(false)),
        vitals: Arc::clone(&common.vitals),
    }
}

/// Segments of which a retention is made at least: an old record stays at most so much longer.
const RETENTION_PARTS: u64 = 8;

/// Segments expire as a whole, so none may hold more than a part of what is kept.
fn compaction_limits(config: &NodeConfig, inputs_max: usize) -> CompactionLimits {
    let by_default = CompactionLimits::default();
    let part = config.store.retain_size_bytes.map_or(u64::MAX, |bytes| bytes / RETAIN_PARTS);
    CompactionLimits {
        segment_bytes_max: by_default.segment_bytes_max.min(part),
        span_ms_max: expiry::limits(&config.store).retain_ms / RETENTION_PARTS,
        inputs_max: by_default.inputs_max.min(inputs_max),
        group_max: by_default.group_max.min(inputs_max),
        small_group_max: by_default.small_group_max.min(inputs_max),
        ..by_default
    }
}

/// How threads tell the main thread that the node has to end.
type Endings = Sender<Ending>;
