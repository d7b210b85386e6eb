//! The data directories: made, locked, recovered. Blocking, before anything else starts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use engine::damage::Damage;
use engine::identity::NodeId;
use engine::ingest::registry::{FileError, RegistryOptions};
use engine::limits::FRAME_ALIGNMENT;
use engine::node::opening::{self, Finding, NodeOptions, OpenError, TopicOptions};
use engine::node::{IngestSide, Node};
use engine::storage::Storage;
use engine::store::StoreDirectory;
use engine::store::name::IdSource;
use engine::store::recover::RecoverError;
use net::metrics::NodeMetrics;

use super::{expiry, longest_span_ms};
use crate::config::{NodeConfig, TopicMode};
use crate::lock::{DirectoryLock, LOCK_FILE, LockError};

/// The data of the sides that a node has, locked for this process.
pub(super) struct Data {
    pub(super) node: Node,
    pub(super) locks: Locks,
}

/// Locks of the directories of the sides that a node has. What was made last goes first, should the
/// start fail.
pub(super) struct Locks {
    pub(super) store: Option<DirectoryLock>,
    pub(super) ingest: Option<DirectoryLock>,
}

impl Locks {
    /// What was made for them stays.
    pub(super) fn keep(&mut self) {
        self.store.iter_mut().chain(&mut self.ingest).for_each(DirectoryLock::keep);
    }
}

/// Why the data cannot be used.
#[derive(Debug)]
pub(crate) enum DataError {
    /// A directory cannot be made or read.
    Directory {
        /// Which flag names it.
        flag: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another process uses it, or it cannot be locked.
    Lock(LockError),
    /// A file without which nothing may go on.
    Open(OpenError),
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { flag, path, error } => write!(
                f,
                "{} cannot be used ({flag}): {error}; it must be a directory that this user may \
                 write",
                path.display()
            ),
            Self::Lock(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DataError {}

impl From<OpenError> for DataError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Identity(_) | OpenError::Mark(_) | OpenError::Waiting(_) => {
                Self::Open(error)
            }
            OpenError::Ingest(FileError { path, error, .. }) => {
                Self::Directory { flag: "--ingest.path", path, error }
            }
            OpenError::Store(RecoverError { path, error }) => {
                Self::Directory { flag: "--store.path", path, error }
            }
        }
    }
}

/// Makes and locks the directories of the sides that there are.
pub(super) fn lock(config: &NodeConfig) -> Result<Locks, DataError> {
    let ingest = config.ingest.as_ref().map(|side| prepare("--ingest.path", &side.path));
    let ingest = ingest.transpose()?;
    let store = config.store.as_ref().map(|side| prepare("--store.path", &side.path));
    Ok(Locks { store: store.transpose()?, ingest })
}

/// How often an identity or a mark of stamps that the disk does not give is asked for at a start, and the
/// time between.
const MARK_TRIES: u32 = 5;
const MARK_PAUSE: Duration = Duration::from_millis(200);

/// Opens the directories; what is found damaged or strange is told, once.
pub(super) fn open(
    config: &NodeConfig,
    locks: Locks,
    storage: &Arc<dyn Storage>,
    metrics: &NodeMetrics,
    now_ms: u64,
) -> Result<Data, DataError> {
    let options = options(config, storage);
    let mut tries = MARK_TRIES;
    let opened = loop {
        tries -= 1;
        match opening::open(options.clone(), now_ms, &mut |found| tell(&found, metrics)) {
            Err(error) if error.may_be_over_soon() && tries > 0 => std::thread::sleep(MARK_PAUSE),
            opened => break opened.map_err(DataError::from)?,
        }
    };
    let node = opened.node;
    let identity =
        |side: &IngestSide| side.stamps.lock().unwrap_or_else(PoisonError::into_inner).ingester();
    let ingester = node.ingest.as_ref().map(identity);
    let of_store = node.store.as_ref().and_then(|side| side.catalogue.directory().identity());
    tracing::info!(
        tail_records = opened.tail_records,
        torn_bytes = opened.torn_bytes,
        store_segments = node.store.as_ref().map(|side| side.catalogue.snapshot().len()),
        ingest_segments = node.ingest.as_ref().map(|side| side.registry.snapshot().len()),
        ingester = ingester.map(|ingester| tracing::field::display(ingester.id)),
        ingester_boot = ingester.map(|ingester| ingester.boot),
        store = of_store.map(|store| tracing::field::display(store.id)),
        store_boot = of_store.map(|store| store.boot),
        "opened"
    );
    Ok(Data { node, locks })
}

fn options(config: &NodeConfig, storage: &Arc<dyn Storage>) -> NodeOptions {
    let store = config.store.as_ref().map(|side| {
        StoreDirectory::new(Arc::clone(storage), side.path.clone(), IdSource::random())
    });
    let ingest = config.ingest.as_ref().map(|side| {
        let path = side.path.clone();
        let options = RegistryOptions {
            alignment_bytes: direct_alignment(&path),
            flush_size_bytes: side.segment_flush_size_bytes,
            pending_timeout_ms: side.segment_pending_timeout.as_millis() as u64,
            record_size_max: side.max_record_size_bytes,
            ..RegistryOptions::new(Arc::clone(storage), path, random_seed())
        };
        match &store {
            Some(store) => RegistryOptions { caches: Arc::clone(&store.caches), ..options },
            None => options,
        }
    });
    let new_id = || NodeId(u128::from(random_seed()) << 64 | u128::from(random_seed()));
    NodeOptions {
        ingest,
        topics: topic_options(config),
        store: store.map(Arc::new),
        new_ingester: new_id(),
        new_store: new_id(),
    }
}

/// A node that only takes records does not know how long others keep them.
pub(super) fn topic_options(config: &NodeConfig) -> TopicOptions {
    let Some(side) = &config.ingest else { return TopicOptions::default() };
    let own = match &side.topic_mode {
        TopicMode::Static(topic) => Some(topic.clone()),
        TopicMode::Dynamic => None,
    };
    let retain_ms = config.store.as_ref().map(|side| {
        let retain_ms = expiry::limits(side).retain_ms;
        // An old record of a segment that was merged stays until the newest one expires.
        retain_ms.saturating_add(longest_span_ms(side))
    });
    TopicOptions { max: side.topics_max, own, retain_ms }
}

/// Tells and counts what a start came upon.
fn tell(found: &Finding, metrics: &NodeMetrics) {
    match found {
        Finding::Damage(damage) => tell_damage(std::slice::from_ref(damage), metrics),
        // Apart from damage, for the end of a process or of power may have cut it, and then nobody was
        // promised what is in it.
        Finding::Torn(frame) => {
            tracing::warn!("{frame}");
            metrics.torn_frames.inc();
            metrics.torn_bytes.inc_by(frame.len_bytes);
        }
        Finding::MarkNotWritten(..)
        | Finding::TopicsNotWritten(..)
        | Finding::StoreNotNamed(..) => tracing::error!("{found}"),
        _ => tracing::warn!("{found}"),
    }
}

fn prepare(flag: &'static str, path: &Path) -> Result<DirectoryLock, DataError> {
    DirectoryLock::make(path).map_err(|error| match error {
        LockError::Directory(path, error) => DataError::Directory { flag, path, error },
        error => DataError::Lock(error),
    })
}

/// Alignment where the file system does not say: enough for any disk.
const UNKNOWN_ALIGNMENT: usize = 4096;

/// Alignment that the file system reports for direct I/O (`statx(2)`, Linux 6.1), where it does.
fn direct_alignment(directory: &Path) -> usize {
    let Ok(lock) = std::fs::File::open(directory.join(LOCK_FILE)) else {
        return UNKNOWN_ALIGNMENT;
    };
    let wanted = rustix::fs::StatxFlags::DIOALIGN;
    let found = rustix::fs::statx(&lock, "", rustix::fs::AtFlags::EMPTY_PATH, wanted);
    let alignment = found.map_or(0, |stat| stat.stx_dio_offset_align as usize);
    if alignment.is_power_of_two() { alignment.max(FRAME_ALIGNMENT) } else { UNKNOWN_ALIGNMENT }
}

/// Tells each damaged span, and counts it unless it was met before.
pub(super) fn tell_damage(damages: &[Damage], metrics: &NodeMetrics) {
    for damage in damages {
        if damage.refusal().is_some() {
            tracing::warn!("{damage}; it is left as it is and read again");
        } else {
            tracing::error!("{damage}");
        }
        metrics.count_damage(damage);
    }
}

/// Random bits of the operating system's, for names and streams.
pub(super) fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled == Ok(bytes.len()) {
        return u64::from_ne_bytes(bytes);
    }
    // Only before the kernel's generator is ready: still unlike any other process.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_nanos() as u64) ^ (u64::from(std::process::id()) << 48)
}
