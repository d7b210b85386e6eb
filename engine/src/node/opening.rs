//! Finding a node's data again after a stop of any kind, before anything else is done with it.
//!
//! Order: who the directories are and the mark of stamps is read, for without them nothing may go on;
//! then the store, which says which ingest segments it has; then what waited in the ingest directory is
//! compared with what is there; then the ingest side is recovered; then stamps go on above
//! the mark and all that the ingest side holds, and a new mark is written, behind the identities of this
//! life. Its topics are those that its own file and its own segments name: what the store holds may be
//! copies of what others have taken.
//!
//! Invariants: may be stopped anywhere and run again. What is damaged, strange or failing is handed to
//! the caller as it is found, also where the opening fails in the end. The directories are the caller's
//! to make and to lock.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::damage::Damage;
use crate::identity::{IDENTITY_FILE, IdentityError, IdentityKeeper, NodeId, Side};
use crate::ingest::known_topics::{KnownTopics, OpenedTopics, TOPICS_FILE, TopicKeeper};
use crate::ingest::recover::Note as IngestNote;
use crate::ingest::registry::{FileError, Registry, RegistryOptions};
use crate::ingest::segment::parse_file_name;
use crate::ingest::stamp_mark::{MarkError, OpenedMark, STAMP_MARK_FILE, StampKeeper};
use crate::ingest::topics::TopicSet;
use crate::ingest::waiting::Missing;
use crate::limits::TOPICS_MAX;
use crate::storage::{Refusal, Storage};
use crate::store::StoreDirectory;
use crate::store::recover::{Note as StoreNote, RecoverError, Recovered as Stored};
use crate::topic::Topic;
use crate::{ingest, store};

use super::{IngestSide, Node, StoreSide};

/// What a node is opened with: the sides that it has.
#[derive(Clone)]
pub struct NodeOptions {
    /// The side that takes records.
    pub ingest: Option<RegistryOptions>,
    /// The topics of the side that takes records.
    pub topics: TopicOptions,
    /// The side that keeps them.
    pub store: Option<Arc<StoreDirectory>>,
    /// Random: who the ingest side is to be if it is new.
    pub new_ingester: NodeId,
    /// The same of the store side.
    pub new_store: NodeId,
}

/// Which topics a node has.
#[derive(Debug, Clone)]
pub struct TopicOptions {
    /// Most of them.
    pub max: usize,
    /// One that it has in any case.
    pub own: Option<Topic>,
    /// How long a record is kept at most, milliseconds, where the node knows that: a topic without any of
    /// that age is forgotten at the start.
    pub retain_ms: Option<u64>,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self { max: TOPICS_MAX, own: None, retain_ms: None }
    }
}

/// A node that was opened.
pub struct Opened {
    /// It.
    pub node: Node,
    /// Records saved from tail files.
    pub tail_records: u64,
    /// Bytes of unfinished frames, as far as their headers told.
    pub torn_bytes: u64,
}

/// Why a node cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// It is not known who a directory is.
    Identity(IdentityError),
    /// It is not known which stamps were given.
    Mark(MarkError),
    /// The list of what waited is not to be given up.
    Waiting(Damage),
    /// The directory of the ingest side cannot be used.
    Ingest(FileError),
    /// The directory of the store side cannot be used.
    Store(RecoverError),
}

impl OpenError {
    /// The disk refused what it may give the next time: no reason not to start.
    pub const fn may_be_over_soon(&self) -> bool {
        match self {
            Self::Identity(error) => error.is_refusal(),
            Self::Mark(error) => error.is_refusal(),
            Self::Waiting(_) | Self::Ingest(_) | Self::Store(_) => false,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => error.fmt(f),
            Self::Mark(error) => error.fmt(f),
            Self::Waiting(damage) => write!(
                f,
                "{damage}; start the later program that wrote it, or delete it: then nobody tells which \
                 segments were taken away since it was written"
            ),
            Self::Ingest(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// Something that should be told once.
#[derive(Debug)]
pub enum Finding {
    /// One copy of the mark of stamps, or of an identity, cannot be read; the other one holds.
    CopyUnread(PathBuf, Refusal),
    /// One copy of the mark of stamps, or of an identity, is damaged; the other one holds.
    CopyDamaged(PathBuf),
    /// The identity of the store cannot be written: nothing is stored until it can.
    StoreNotNamed(PathBuf, io::Error),
    /// The new mark of stamps cannot be written: no record is taken until it can.
    MarkNotWritten(PathBuf, io::Error),
    /// What the topics are cannot be written.
    TopicsNotWritten(PathBuf, io::Error),
    /// So many topics that were known are more than so many that may be.
    TopicsLeftOut(usize, usize),
    /// Damage, or what could not be read ([`Damage::refusal`]).
    Damage(Damage),
    /// An unfinished or damaged last frame, which was cut off.
    Torn(Damage),
    /// Something else in the directory of the ingest side.
    OfIngest(IngestNote),
    /// Something else in the directory of the store side.
    OfStore(StoreNote),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyUnread(path, refusal) => write!(
                f,
                "{}: one of its two copies cannot be read: {refusal}; the other one holds",
                path.display()
            ),
            Self::CopyDamaged(path) => write!(
                f,
                "{}: one of its two copies is damaged; the other one holds, and both are written anew",
                path.display()
            ),
            Self::StoreNotNamed(path, error) => write!(
                f,
                "{} cannot be written: {error}; records wait on the ingest side until it can",
                path.display()
            ),
            Self::MarkNotWritten(path, error) => write!(
                f,
                "{} cannot be written: {error}; no record is taken until it can",
                path.display()
            ),
            Self::TopicsLeftOut(count, max) => write!(
                f,
                "{count} topics that were known are more than the {max} that may be: those used longest \
                 ago are forgotten, and new records of them count as `invalid`; raise \
                 --ingest.topics-max before they come, or take them for gone"
            ),
            Self::TopicsNotWritten(path, error) => write!(
                f,
                "{} cannot be written: {error}; it is tried again, and topics whose records leave \
                 this directory meanwhile are not known after the next start",
                path.display()
            ),
            Self::Damage(damage) | Self::Torn(damage) => damage.fmt(f),
            Self::OfIngest(note) => note.fmt(f),
            Self::OfStore(note) => note.fmt(f),
        }
    }
}

/// Opens the sides of a node; `tell` hears what is found meanwhile. `now_ms`: milliseconds since 1970.
pub fn open(
    options: NodeOptions,
    now_ms: u64,
    tell: &mut dyn FnMut(Finding),
) -> Result<Opened, OpenError> {
    let mark = match &options.ingest {
        Some(ingest) => Some(open_mark(ingest, options.new_ingester, tell)?),
        None => None,
    };
    let mut stored = match &options.store {
        Some(directory) => Some(open_store(directory, options.new_store, now_ms, tell)?),
        None => None,
    };
    let mut opened = Opened {
        node: Node { ingest: None, store: None, newest_ms: newest_ms(stored.as_ref()) },
        tail_records: 0,
        torn_bytes: 0,
    };
    if let (Some(ingest), Some(stamps)) = (options.ingest, mark) {
        let options = (ingest, &options.topics);
        open_ingest(options, stamps, stored.as_mut(), now_ms, tell, &mut opened)?;
    }
    opened.node.store = stored.map(|stored| StoreSide { catalogue: Arc::new(stored.catalogue) });
    Ok(opened)
}

fn newest_ms(stored: Option<&Stored>) -> u64 {
    stored.map_or(0, |stored| stored.newest.ms())
}

/// Tells of a small file that lies there twice, of which one copy is gone.
fn tell_copies(
    path: PathBuf,
    has_damaged_copy: bool,
    unread_copy: Option<Refusal>,
    tell: &mut dyn FnMut(Finding),
) {
    if let Some(refusal) = unread_copy {
        tell(Finding::CopyUnread(path.clone(), refusal));
    }
    if has_damaged_copy {
        tell(Finding::CopyDamaged(path));
    }
}

fn open_identity(
    storage: &Arc<dyn Storage>,
    directory: &Path,
    side: Side,
    new_id: NodeId,
    tell: &mut dyn FnMut(Finding),
) -> Result<IdentityKeeper, OpenError> {
    let opened = IdentityKeeper::open(Arc::clone(storage), directory, side, new_id);
    let opened = opened.map_err(OpenError::Identity)?;
    let path = directory.join(IDENTITY_FILE);
    tell_copies(path, opened.has_damaged_copy, opened.unread_copy, tell);
    Ok(opened.keeper)
}

fn open_mark(
    options: &RegistryOptions,
    new_id: NodeId,
    tell: &mut dyn FnMut(Finding),
) -> Result<StampKeeper, OpenError> {
    let (storage, directory) = (&options.storage, &options.directory);
    let ingester = open_identity(storage, directory, Side::Ingest, new_id, tell)?;
    let opened = OpenedMark::open(Arc::clone(storage), directory).map_err(OpenError::Mark)?;
    let path = directory.join(STAMP_MARK_FILE);
    tell_copies(path, opened.has_damaged_copy, opened.unread_copy, tell);
    Ok(opened.kept_by(ingester))
}

fn open_store(
    directory: &Arc<StoreDirectory>,
    new_id: NodeId,
    now_ms: u64,
    tell: &mut dyn FnMut(Finding),
) -> Result<Stored, OpenError> {
    let (storage, path) = (&directory.storage, &directory.path);
    directory.is_of(open_identity(storage, path, Side::Store, new_id, tell)?);
    let stored = store::recover::recover(directory, now_ms).map_err(OpenError::Store)?;
    stored.damage.iter().for_each(|damage| tell(Finding::Damage(damage.clone())));
    let mut stored = stored;
    stored.notes.drain(..).for_each(|note| tell(Finding::OfStore(note)));
    if let Err(error) = directory.begin() {
        tell(Finding::StoreNotNamed(path.join(IDENTITY_FILE), error));
    }
    Ok(stored)
}

fn open_ingest(
    (options, topics): (RegistryOptions, &TopicOptions),
    mut stamps: StampKeeper,
    stored: Option<&mut Stored>,
    now_ms: u64,
    tell: &mut dyn FnMut(Finding),
    opened: &mut Opened,
) -> Result<(), OpenError> {
    let directory = options.directory.clone();
    let found = segments_in(&options).map_err(OpenError::Ingest)?;
    let own = stamps.ingester().id;
    let mut missing = open_missing(&options, own, tell)?;
    let superfluous = stored.as_deref().map(|stored| stored.superfluous_ingest(&found));
    let superfluous = superfluous.unwrap_or_default();
    // The clock may have been set back: nothing that is found was stamped behind the mark.
    let stamped_ms = now_ms.max(stamps.floor_ms().saturating_sub(1));
    let recovered = ingest::recover::recover(options, &superfluous, stamped_ms);
    let recovered = recovered.map_err(OpenError::Ingest)?;
    opened.torn_bytes = recovered.torn_bytes();
    opened.tail_records = recovered.tail_records;
    recovered.report.into_iter().for_each(|damage| tell(Finding::Damage(damage)));
    recovered.torn.into_iter().for_each(|frame| tell(Finding::Torn(frame)));
    recovered.notes.into_iter().for_each(|note| tell(Finding::OfIngest(note)));
    opened.node.newest_ms = recovered.newest_ms.max(newest_ms(stored.as_deref()));
    // Behind recovery: what it found to be nothing is gone.
    let there = segments_in(recovered.registry.options()).map_err(OpenError::Ingest)?;
    missing.are_there(&there);
    let has_store = stored.is_some();
    if let Some(stored) = stored.filter(|_| !missing.waiting().is_empty()) {
        missing.compare(stored.take_holdings());
    }
    recovered.registry.begin_missing(missing, own, has_store);
    if let Some(retain_ms) = topics.retain_ms {
        // A clock that is ahead makes nothing too old.
        let now_ms = now_ms.min(opened.node.newest_ms);
        recovered.registry.let_go_missing(now_ms.saturating_sub(retain_ms));
    }
    recovered.registry.missing().into_iter().for_each(|hole| tell(Finding::Damage(hole)));
    // What the store holds may be copies of what others have stamped.
    stamps.start_above(recovered.newest_ms);
    if let Err(error) = stamps.keep(now_ms, 0, &|| recovered.registry.sync_names()) {
        tell(Finding::MarkNotWritten(directory.join(STAMP_MARK_FILE), error));
    }
    let registry = Arc::new(recovered.registry);
    let keeper = open_topics(&registry, topics, &recovered.topics, now_ms, tell);
    opened.node.ingest = Some(IngestSide {
        registry,
        stamps: Arc::new(Mutex::new(stamps)),
        topics: Arc::clone(keeper.set()),
        topic_keeper: Arc::new(Mutex::new(keeper)),
    });
    Ok(())
}

/// What waited when the node stopped and somebody took away. The file that says so stays as it is until all
/// of the start has gone well; nothing may go before.
fn open_missing(
    options: &RegistryOptions,
    own: NodeId,
    tell: &mut dyn FnMut(Finding),
) -> Result<Missing, OpenError> {
    let opened = Missing::open(&*options.storage, &options.directory, own);
    let (missing, damage) = opened.map_err(OpenError::Waiting)?;
    if let Some(damage) = damage {
        tell(Finding::Damage(damage));
    }
    Ok(missing)
}

fn open_topics(
    registry: &Registry,
    options: &TopicOptions,
    in_files: &KnownTopics,
    now_ms: u64,
    tell: &mut dyn FnMut(Finding),
) -> TopicKeeper {
    let RegistryOptions { storage, directory, .. } = registry.options();
    let opened = OpenedTopics::open(&**storage, directory);
    opened.damage.iter().for_each(|damage| tell(Finding::Damage(damage.clone())));
    let set = Arc::new(TopicSet::new(options.max));
    options.own.iter().for_each(|own| drop(set.admit(own.as_str().as_bytes())));
    let mut keeper = opened.learned_by(set, in_files, now_ms, options.retain_ms);
    if keeper.left_out() > 0 {
        tell(Finding::TopicsLeftOut(keeper.left_out(), options.max));
    }
    if let Err(error) = keeper.keep(registry) {
        tell(Finding::TopicsNotWritten(directory.join(TOPICS_FILE), error));
    }
    keeper
}

/// Identities of the ingest segments that are there by name.
fn segments_in(options: &RegistryOptions) -> Result<Vec<u128>, FileError> {
    let path: &Path = &options.directory;
    let entries = options.storage.list(path).map_err(|error| FileError {
        operation: "list the directory",
        path: path.to_owned(),
        error,
    })?;
    let id = |name: &str| Some(parse_file_name(name)?.0.0);
    Ok(entries.iter().filter_map(|entry| id(entry.name.as_deref()?)).collect())
}
