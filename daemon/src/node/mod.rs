//! The node: shards, keeper, store work, search and HTTP, wired together.
//!
//! - [`common`]: what all parts share;
//! - [`data`]: the directories, locked ([`crate::lock`]) and recovered; [`host`], [`listeners`]: the rest of
//!   what a start needs;
//! - [`shards`]: one thread per core that takes lines; [`keeper`]: their files ([`lent`]: as shards get them),
//!   or [`store_keeper`] where none are taken;
//! - [`auth_file`]: who may do what;
//! - [`ground`]: whether the directories are those that were locked; [`disks`]: whether the disks do what they are told;
//! - [`store_work`]: gathering and compaction, and [`expiry`];
//! - [`mod@backend`]: the node as HTTP sees it;
//! - [`vitals`]: whether every thread gets on;
//! - [`control`]: the thread of HTTP; [`stop_signals`] and [`ending`]: how it stops; [`notify`]: what the
//!   supervisor is told.
//!
//! Invariants: a node has the threads, ports and directories of the sides that it has, and no others.
//! Everything that can fail at a start fails before the first record is taken, with one line that says
//! what to change. On a signal: no new connections, shards write out, the store takes what it can in the
//! time it is given, then the process ends.

mod auth_file;
mod backend;
mod cluster;
mod common;
mod control;
mod data;
mod disks;
mod ending;
mod error;
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
mod store_keeper;
mod store_work;
mod vitals;

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use engine::caches::Caches;
use engine::headroom::HeadroomLimits;
use engine::limits::RECORD_SIZE_CEILING;
use engine::node::IngestSide;
use engine::node::compacting::CompactingOptions;
use engine::node::gathering::GatheringOptions;
use engine::node::keeper::{Keeper, KeeperOptions, SpaceParts};
use engine::node::local_ingest::LocalIngest;
use engine::search::{Overseer, Searcher, SearcherOptions};
use engine::storage::OsStorage;
use engine::store::compaction::CompactionLimits;
use engine::store::gather::GatherLimits;
use engine::store::writer::WriterOptions;
use net::backend::Backend;
use net::driver::DriverKind;
use net::follow::Hub;
use net::http::{HttpOptions, Reserve};
use net::metrics::NodeMetrics;
use net::shard::Clock;

use self::auth_file::AuthFile;
use self::backend::NodeBackend;
use self::common::{Common, Foundation};
use self::data::{Data, Locks};
use self::disks::{Disks, Side};
use self::error::NodeError;
use self::ground::Grounds;
use self::listeners::Listeners;
use self::stop_signals::StartGate;
use self::store_work::StoreParts;
use self::vitals::{LOOK_EVERY, Role};
use crate::config::{IngestConfig, NodeConfig, RETAIN_PARTS, StoreConfig};

/// What makes the main thread end the node.
enum Ending {
    Signal(&'static str),
    ShardFailed(usize, io::Error),
}

/// Runs a node until SIGINT or SIGTERM, or until it cannot go on.
pub(crate) fn run(config: NodeConfig) -> Result<(), NodeError> {
    // First of all, for the sake of its number.
    let reserve = Reserve::take();
    // For what follows there are descriptors.
    let host = Host::of(&config)?;
    let (ended, endings) = channel();
    let start = Arc::new(StartGate::default());
    stop_signals::spawn(ended.clone(), Arc::clone(&start))
        .map_err(refused("the signals thread"))?;
    let base = Base::of(config, host, reserve)?;
    // Before anybody can connect: who hears an answer may send a signal.
    start.go_on();
    Node::start(base, &ended, endings)?.run()
}

impl Base {
    /// Everything that can be had before a thread is started.
    fn of(mut config: NodeConfig, host: Host, reserve: Reserve) -> Result<Self, NodeError> {
        crate::signals::survive_others(true)
            .map_err(|e| NodeError::Resources("signal handlers", e))?;
        let Host { cores, shards, descriptors, advice } = host;
        if let Some(advice) = advice {
            tracing::warn!("{advice}");
        }
        if let Some(ingest) = &mut config.ingest {
            ingest.connections_max = descriptors.connections.ingest;
        }
        config.http.connections_max = descriptors.connections.http;
        let driver = driver(&config)?;
        let clock = Clock::start();
        let mut metrics = NodeMetrics::new(shards);
        metrics.log = crate::logging::metrics();
        let metrics = Arc::new(metrics);
        let auth_file = AuthFile::open(config.auth_file.as_deref(), &metrics);
        let auth_file = auth_file.map_err(NodeError::AuthFile)?;
        let locks = data::lock(&config)?;
        // Before anything is written: a port that is taken leaves nothing behind.
        let listeners = Listeners::bind(&config, shards)?;
        let paths = [
            (Side::Ingest, config.ingest.as_ref().map(|side| side.path.clone())),
            (Side::Store, config.store.as_ref().map(|side| side.path.clone())),
        ];
        let paths: Vec<_> =
            paths.into_iter().filter_map(|(side, path)| Some((side, path?))).collect();
        let disks = Disks::new(&paths, clock);
        let storage = disks.observe(Arc::new(OsStorage));
        let data = data::open(&config, locks, &storage, &metrics, clock.now().wall_ms)?;
        Ok(Self {
            config,
            cores,
            shards,
            driver,
            disks,
            auth_file,
            metrics,
            data,
            listeners,
            reserve,
        })
    }
}

/// What shards wait on, told in one line; nothing that a node without them uses.
fn driver(config: &NodeConfig) -> Result<DriverKind, NodeError> {
    let Some(ingest) = &config.ingest else { return Ok(DriverKind::Posix) };
    let (kind, refused) = net::driver::choose(ingest.io).map_err(NodeError::Ring)?;
    if let Some(refused) = refused {
        tracing::warn!(
            io = %kind,
            "{refused}; until then shards wait on epoll and write with threads, at more cost"
        );
    } else {
        tracing::info!(io = %kind, "shards");
    }
    Ok(kind)
}

/// What the host allows.
struct Host {
    cores: Vec<usize>,
    /// One a core, on a node that takes records.
    shards: usize,
    descriptors: host::Descriptors,
    advice: Option<String>,
}

impl Host {
    fn of(config: &NodeConfig) -> Result<Self, NodeError> {
        let cores = host::cores(config.cores);
        let shards = if config.ingest.is_some() { cores.len() } else { 0 };
        let (descriptors, advice) =
            host::descriptors(&wanted(config, shards)).map_err(NodeError::Descriptors)?;
        Ok(Self { cores, shards, descriptors, advice })
    }
}

/// Who shares the process's descriptors.
fn wanted(config: &NodeConfig, shards: usize) -> host::Wanted {
    let connections = host::Connections {
        ingest: config.ingest.as_ref().map_or(0, |side| side.connections_max),
        http: config.http.connections_max,
    };
    let gathers = config.store.as_ref().filter(|_| config.ingest.is_some());
    host::Wanted { connections, shards, gathers: gathers.map_or(0, |side| side.segment_consumers) }
}

/// What a node is started on.
struct Base {
    config: NodeConfig,
    cores: Vec<usize>,
    /// One a core, on a node that takes records.
    shards: usize,
    driver: DriverKind,
    disks: Disks,
    auth_file: AuthFile,
    metrics: Arc<NodeMetrics>,
    data: Data,
    listeners: Listeners,
    reserve: Reserve,
}

/// A running node.
struct Node {
    config: NodeConfig,
    common: Arc<Common>,
    /// Where records are taken.
    follow_thread: Option<JoinHandle<()>>,
    control: control::Control,
    taking: Option<Taking>,
    store: Option<StoreParts>,
    /// Who works on files in the background.
    work_threads: Vec<JoinHandle<()>>,
    overseer: Option<Overseer>,
    endings: Receiver<Ending>,
    locks: Locks,
}

/// Who takes records, on a node that does.
struct Taking {
    shards: Vec<JoinHandle<()>>,
    keeper: Arc<keeper::KeeperHandle>,
    keeper_thread: Option<JoinHandle<()>>,
}

/// Search on as many threads, which let shards go first.
fn searcher(threads: usize, node: String, caches: &Arc<Caches>) -> std::io::Result<Searcher> {
    let on_thread_start = Arc::new(|_| host::yield_to_shards());
    let caches = Arc::clone(caches);
    Searcher::start(SearcherOptions { threads, node, caches, on_thread_start })
}

impl Node {
    fn start(base: Base, ended: &Endings, endings: Receiver<Ending>) -> Result<Self, NodeError> {
        let Base { config, cores, shards, driver, metrics, mut data, listeners, reserve, .. } =
            base;
        listeners.listen()?;
        let foundation = Foundation {
            node: data.node.clone(),
            address: listeners.api_address(&config),
            grounds: Grounds::of(&data.locks),
            disks: base.disks,
            auth_file: base.auth_file,
            metrics,
            backlog_max_bytes: config.ingest.as_ref().map_or(0, |side| side.backlog_max_bytes),
            descriptors: wanted(&config, shards),
        };
        let common = Arc::new(Common::start(shards, foundation)?);
        let store = store_parts(&config, &common);
        let mut work_threads = Vec::new();
        if let Some((parts, side)) = store.as_ref().zip(config.store.as_ref()) {
            work_threads =
                store_work::spawn(side.segment_consumers, parts).map_err(refused("a thread"))?;
        }
        let caches = caches(&common.node);
        read_again::spawn(Arc::clone(&common), Arc::clone(&caches)).map_err(refused("a thread"))?;
        auth_file::spawn(Arc::clone(&common)).map_err(refused("a thread"))?;
        let searcher =
            searcher(cores.len(), common.address.clone(), &caches).map_err(refused("a thread"))?;
        common.watch(&searcher);
        let overseer = searcher.overseer();
        let follow = |hub: &Hub| hub.spawn(Arc::clone(&common.metrics), host::yield_to_shards);
        let follow_thread = common.hub.as_ref().map(follow).transpose();
        let follow_thread = follow_thread.map_err(refused("a thread"))?;
        let backend = backend(&config, &common, searcher);
        listeners.tell(&config);
        let api = listeners.api;
        let ports = (listeners.fast, listeners.durable);
        let taking = if let (Some(ingest), Some(side)) = (&config.ingest, &common.node.ingest) {
            let cores = (&cores[..], driver);
            Some(Taking::start((ingest, &config), side, &common, cores, ports, ended)?)
        } else {
            let space = space_parts(&config, &common);
            let watching = store_keeper::spawn(Arc::clone(&common), space);
            work_threads.push(watching.map_err(refused("a thread"))?);
            None
        };
        let answers = (Arc::new(backend) as Arc<dyn Backend>, Arc::clone(&common.metrics));
        let control = control::spawn(api, answers, http_options(&config, &common, reserve))
            .map_err(refused("the control thread"))?;
        data.locks.keep();
        Ok(Self {
            config,
            common,
            follow_thread,
            control,
            taking,
            store,
            work_threads,
            overseer,
            endings,
            locks: data.locks,
        })
    }

    fn run(self) -> Result<(), NodeError> {
        let mut supervisor = notify::Supervisor::from_environment();
        supervisor.tell(match &self.taking {
            Some(_) => "READY=1\nSTATUS=Taking records",
            None => "READY=1\nSTATUS=Keeping records",
        });
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
        let (mut before, mut fed) = (self.common.metrics.turns(), Instant::now());
        loop {
            match self.endings.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                ended => return ended,
            }
            supervisor.tell_again();
            self.common.vitals.look(self.common.now_ms(), &self.common.metrics);
            self.overseer.iter().for_each(hanging::look);
            if interval.is_none_or(|interval| fed.elapsed() < interval) {
                continue;
            }
            let now = self.common.metrics.turns();
            let all_turn = before.iter().zip(&now).all(|(before, now)| before != now);
            if all_turn && !self.common.vitals.is_failing() {
                supervisor.tell_alive();
            }
            (before, fed) = (now, Instant::now());
        }
    }
}

/// What the system was asked for when it refused.
fn refused(what: &'static str) -> impl Fn(io::Error) -> NodeError {
    move |error| NodeError::Resources(what, error)
}

impl Taking {
    fn start(
        (ingest, config): (&IngestConfig, &NodeConfig),
        side: &IngestSide,
        common: &Arc<Common>,
        (cores, driver): (&[usize], DriverKind),
        (fast, durable): (Vec<TcpListener>, Vec<TcpListener>),
        ended: &Endings,
    ) -> Result<Self, NodeError> {
        let (floor_ms, ceiling) = {
            let stamps = side.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            common.doors.set_unmarked(!stamps.is_started());
            (stamps.floor_ms(), stamps.ceiling())
        };
        let options = KeeperOptions {
            space: space_parts(config, common),
            backlog_max_bytes: ingest.backlog_max_bytes,
            flush_size_bytes: ingest.segment_flush_size_bytes,
        };
        let parts = keeper::KeeperParts {
            keeper: Keeper::new(side, Arc::clone(&common.doors), options),
            storage: Arc::clone(&side.registry.options().storage),
            common: Arc::clone(common),
            pulse: common.vitals.pulse("keeper", Role::Keeper),
            disk: common.disks.watch(Side::Ingest),
        };
        let (keeper, keeper_thread) = keeper::spawn(parts).map_err(refused("a thread"))?;
        let keeper_of_shards = Arc::clone(&keeper);
        let wiring = shards::Wiring {
            common,
            config: ingest,
            cores,
            driver,
            floor_ms,
            ceiling,
            side,
            keeper: keeper_of_shards,
        };
        let shards = shards::spawn(&wiring, fast, durable, ended).map_err(refused("a shard"))?;
        Ok(Self { shards, keeper, keeper_thread: Some(keeper_thread) })
    }
}

/// What both sides know of their segments: one where there are both.
fn caches(node: &engine::node::Node) -> Arc<Caches> {
    let of_store = node.store.as_ref().map(|side| &side.catalogue.directory().caches);
    let of_ingest = node.ingest.as_ref().map(|side| &side.registry.options().caches);
    of_store.or(of_ingest).map_or_else(Arc::default, Arc::clone)
}

/// The file systems of the sides that there are.
fn space_parts(config: &NodeConfig, common: &Common) -> SpaceParts {
    let (ingest, store) = (common.node.ingest.as_ref(), common.node.store.as_ref());
    let directories = [
        ingest.map(|side| (Side::Ingest, side.registry.options().directory.clone())),
        store.map(|side| (Side::Store, side.catalogue.directory().path.clone())),
    ];
    let mut watched: Vec<(Side, PathBuf)> = directories.into_iter().flatten().collect();
    let device = |path: &Path| std::fs::metadata(path).map(|data| data.dev()).ok();
    // One file system is watched once.
    watched.dedup_by(|(_, store), (_, ingest)| device(store) == device(ingest));
    let space = SpaceParts {
        storage: ingest.map_or_else(
            || {
                store.map_or_else(
                    || Arc::new(OsStorage) as _,
                    |side| Arc::clone(&side.catalogue.directory().storage),
                )
            },
            |side| Arc::clone(&side.registry.options().storage),
        ),
        watched,
        limits: HeadroomLimits {
            free_min_bytes: config.disk_free_min_bytes,
            segment_bytes: ingest.map_or(0, |side| side.registry.options().file_bytes()),
        },
    };
    let totals = store.map(|side| side.catalogue.totals());
    let store_bytes = totals.map_or(0, |totals| totals.file_bytes + totals.trash_bytes);
    let ingest_bytes =
        ingest.map_or(0, |side| side.registry.backlog_bytes() + side.registry.pool_bytes());
    for found in space.too_small([ingest_bytes, store_bytes]) {
        keeper_words::tell_too_small(&found, common.is());
    }
    space
}

fn backend(config: &NodeConfig, common: &Arc<Common>, searcher: Searcher) -> NodeBackend {
    let stamps = common.node.ingest.as_ref().map(|side| {
        let stamps = side.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        (stamps.ingester(), stamps.floor_ms())
    });
    let record_size_max = config.ingest.as_ref().map(|side| side.max_record_size_bytes);
    NodeBackend {
        common: Arc::clone(common),
        ingester: stamps.map(|(ingester, _)| ingester),
        searcher: Arc::new(searcher),
        record_size_max: record_size_max.unwrap_or(RECORD_SIZE_CEILING),
        floor_ms: stamps.map_or(0, |(_, floor_ms)| floor_ms),
        next_shard: AtomicUsize::new(0),
    }
}

fn http_options(config: &NodeConfig, common: &Common, reserve: Reserve) -> HttpOptions {
    HttpOptions {
        queries_max: config.query.queries_max(),
        query_memory_bytes: config.query.memory_max_bytes,
        query_turn_wait: config.query.wait_max,
        connections_max: config.http.connections_max,
        connections_per_address_max: config.http.of_one_address(),
        idle_timeout: config.http.idle_timeout,
        long_lines_bytes: config.ingest.as_ref().map_or(0, |side| side.partial_max_bytes as u64),
        log_topic: config.http.log_topic.clone(),
        api_stats: config.http.api_stats,
        sites: Arc::clone(&config.http.sites),
        rate_limit: config.http.rate_limit,
        proxies: Arc::clone(&config.http.proxies),
        authority: common.auth_file.authority().clone(),
        reserve,
        ..HttpOptions::default()
    }
}

fn store_parts(config: &NodeConfig, common: &Arc<Common>) -> Option<StoreParts> {
    let (config, catalogue) =
        (config.store.as_ref()?, Arc::clone(&common.node.store.as_ref()?.catalogue));
    let share = common.descriptors.segments_now();
    let limits = GatherLimits {
        target_bytes: config.segment_target_size_bytes,
        target_age_ms: config.segment_target_age.as_millis() as u64,
        replication_factor: config.replication_factor,
        claim_count_max: GatherLimits::default().claim_count_max.min(share.gather_inputs),
        ..GatherLimits::default()
    };
    let writer = WriterOptions {
        compression: config.compression,
        signature_percent: config.signature_percent,
        ..WriterOptions::default()
    };
    let pause_ms = config.segment_delay.as_millis() as u64;
    let source = common.node.ingest.as_ref().map(|side| {
        Arc::new(LocalIngest::new(Arc::clone(&side.registry), common.draining.clone()))
    });
    Some(StoreParts {
        common: Arc::clone(common),
        source,
        catalogue,
        gathering: GatheringOptions { limits, writer, pause_ms },
        compaction: CompactingOptions {
            limits: compaction_limits(config, share.compaction_inputs),
            writer,
            held_back_pause_ms: pause_ms,
            cancel: Arc::default(),
        },
        retention: expiry::limits(config),
        cancel: Arc::new(AtomicBool::new(false)),
    })
}

/// Segments of which a retention is made at least: an old record stays at most so much longer.
const RETENTION_PARTS: u64 = 8;

/// The longest time that a merged segment spans.
fn longest_span_ms(config: &StoreConfig) -> u64 {
    expiry::limits(config).retain_ms / RETENTION_PARTS
}

/// Segments expire as a whole, so none may hold more than a part of what is kept.
fn compaction_limits(config: &StoreConfig, inputs_max: usize) -> CompactionLimits {
    let by_default = CompactionLimits::default();
    let part = config.retain_size_bytes.map_or(u64::MAX, |bytes| bytes / RETAIN_PARTS);
    CompactionLimits {
        segment_bytes_max: by_default.segment_bytes_max.min(part),
        span_ms_max: longest_span_ms(config),
        inputs_max: by_default.inputs_max.min(inputs_max),
        group_max: by_default.group_max.min(inputs_max),
        small_group_max: by_default.small_group_max.min(inputs_max),
        ..by_default
    }
}

/// How threads tell the main thread that the node has to end.
type Endings = Sender<Ending>;

#[cfg(test)]
mod tests;
