//! The data directories: made, locked, recovered. Blocking, before anything else starts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::damage::Damage;
use engine::ingest::registry::{Registry, RegistryOptions};
use engine::ingest::segment::parse_file_name;
use engine::ingest::stamp_mark::{MarkError, STAMP_MARK_FILE, StampKeeper};
use engine::limits::FRAME_ALIGNMENT;
use engine::storage::Storage;
use engine::store::StoreDirectory;
use engine::store::catalogue::Catalogue;
use engine::store::name::IdSource;
use engine::topic::Topic;
use engine::{ingest, store};
use net::metrics::NodeMetrics;

use super::lock::{DirectoryLock, LOCK_FILE, LockError};
use crate::config::NodeConfig;

/// Both sides' data, locked for this process.
pub(super) struct Data {
    pub(super) registry: Arc<Registry>,
    pub(super) catalogue: Arc<Catalogue>,
    /// Topics in the store.
    pub(super) known_topics: Vec<Topic>,
    /// The newest record's stamp on disk, ms.
    pub(super) newest_ms: u64,
    /// What was stamped, and what may be.
    pub(super) stamps: Arc<Mutex<StampKeeper>>,
    /// What direct I/O asks of the ingest directory, bytes.
    pub(super) alignment_bytes: usize,
    pub(super) locks: [DirectoryLock; 2],
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
    /// It is not known which stamps were given.
    Stamps(MarkError),
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
            Self::Stamps(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DataError {}

/// Makes and locks the directories of both sides.
pub(super) fn lock(config: &NodeConfig) -> Result<[DirectoryLock; 2], DataError> {
    let ingest = prepare("--ingest.path", &config.ingest.path)?;
    let store = prepare("--store.path", &config.store.path)?;
    // What was made last goes first, should the start fail.
    Ok([store, ingest])
}

/// Opens both directories; what is found damaged or strange is told, once.
pub(super) fn open(
    config: &NodeConfig,
    locks: [DirectoryLock; 2],
    storage: Arc<dyn Storage>,
    metrics: &NodeMetrics,
    now_ms: u64,
) -> Result<Data, DataError> {
    let mut stamps = open_stamps(&storage, &config.ingest.path)?;
    let store = open_store(&config.store.path, &storage, metrics, now_ms)?;
    let segments = store.catalogue.snapshot();
    let stats = segments.iter().filter_map(|segment| segment.topic_stats().ok());
    let known_topics = stats.flatten().map(|stats| stats.topic).collect();
    let ingest = open_ingest(config, storage, &store, metrics, now_ms)?;
    tracing::info!(
        tail_records = ingest.tail_records,
        torn_bytes = ingest.torn_bytes(),
        store_segments = segments.len(),
        ingest_segments = ingest.registry.snapshot().len(),
        "opened"
    );
    let newest_ms = ingest.newest_ms.max(store.newest.ms());
    stamps.start_above(newest_ms);
    if let Err(error) = stamps.keep(now_ms, 0) {
        tracing::error!(
            "{} cannot be written: {error}; no record is taken until it can",
            config.ingest.path.join(STAMP_MARK_FILE).display()
        );
    }
    Ok(Data {
        alignment_bytes: ingest.registry.options().alignment_bytes,
        registry: Arc::new(ingest.registry),
        newest_ms,
        stamps: Arc::new(Mutex::new(stamps)),
        catalogue: Arc::new(store.catalogue),
        known_topics,
        locks,
    })
}

fn failed(flag: &'static str, path: &Path, error: io::Error) -> DataError {
    DataError::Directory { flag, path: path.to_owned(), error }
}

fn open_store(
    path: &Path,
    storage: &Arc<dyn Storage>,
    metrics: &NodeMetrics,
    now_ms: u64,
) -> Result<store::recover::Recovered, DataError> {
    let (storage, ids) = (Arc::clone(storage), IdSource::random());
    let directory = Arc::new(StoreDirectory::new(storage, path.to_owned(), ids));
    let recovered = store::recover::recover(&directory, now_ms)
        .map_err(|e| failed("--store.path", path, e.error))?;
    tell_damage(&recovered.damage, metrics);
    for note in &recovered.notes {
        tracing::warn!("{note}");
    }
    Ok(recovered)
}

fn open_ingest(
    config: &NodeConfig,
    storage: Arc<dyn Storage>,
    store: &store::recover::Recovered,
    metrics: &NodeMetrics,
    now_ms: u64,
) -> Result<ingest::recover::Recovered, DataError> {
    let path = &config.ingest.path;
    let entries = storage.list(path).map_err(|e| failed("--ingest.path", path, e))?;
    let found: Vec<u128> = entries
        .iter()
        .filter_map(|entry| Some(parse_file_name(entry.name.as_deref()?)?.0.0))
        .collect();
    let options = RegistryOptions {
        alignment_bytes: direct_alignment(path),
        flush_size_bytes: config.ingest.segment_flush_size_bytes,
        pending_timeout_ms: config.ingest.segment_pending_timeout.as_millis() as u64,
        record_size_max: config.ingest.max_record_size_bytes,
        caches: Arc::clone(&store.catalogue.directory().caches),
        ..RegistryOptions::new(storage, path.clone(), random_seed())
    };
    let recovered = ingest::recover::recover(options, &store.superfluous_ingest(&found), now_ms)
        .map_err(|e| failed("--ingest.path", path, e.error))?;
    tell_damage(&recovered.report, metrics);
    tell_torn(&recovered.torn, metrics);
    for note in &recovered.notes {
        tracing::warn!("{note}");
    }
    Ok(recovered)
}

fn prepare(flag: &'static str, path: &Path) -> Result<DirectoryLock, DataError> {
    DirectoryLock::make(path).map_err(|error| match error {
        LockError::Directory(path, error) => DataError::Directory { flag, path, error },
        error => DataError::Lock(error),
    })
}

/// How often a mark of stamps that the disk does not give is asked for at a start, and the time between.
const MARK_TRIES: u32 = 5;
const MARK_PAUSE: Duration = Duration::from_millis(200);

fn open_stamps(storage: &Arc<dyn Storage>, directory: &Path) -> Result<StampKeeper, DataError> {
    let mut tries = MARK_TRIES;
    let opened = loop {
        tries -= 1;
        match StampKeeper::open(Arc::clone(storage), directory) {
            // A refusal of a moment is no reason not to start.
            Err(MarkError::Unread(..)) if tries > 0 => std::thread::sleep(MARK_PAUSE),
            opened => break opened.map_err(DataError::Stamps)?,
        }
    };
    if let Some(refusal) = opened.unread_copy {
        tracing::warn!(
            "{}: one of its two copies cannot be read: {refusal}; the other one holds",
            directory.join(STAMP_MARK_FILE).display()
        );
    }
    if opened.has_damaged_copy {
        tracing::warn!(
            "{}: one of its two copies is damaged; the other one holds, and both are written anew",
            directory.join(STAMP_MARK_FILE).display()
        );
    }
    Ok(opened.keeper)
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

/// Tells each unfinished or damaged last frame, and counts it: apart from damage, for the end of a
/// process or of power may have cut it, and then nobody was promised what is in it.
fn tell_torn(torn: &[Damage], metrics: &NodeMetrics) {
    for frame in torn {
        tracing::warn!("{frame}");
        metrics.torn_frames.inc();
        metrics.torn_bytes.inc_by(frame.len_bytes);
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
