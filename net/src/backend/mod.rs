//! What the servers ask of the node behind them.
//!
//! Invariants: nothing here blocks its caller's thread; a future may be dropped at any time and
//! leaves nothing behind but records that were already taken. Knows neither HTTP nor rings, and asks
//! for what is answered, not for who answers: the node implements [`Backend`] over what it holds
//! itself, tests over memory, and whoever has to ask others may stand here as well.

mod asking;
mod cluster;
mod entry_counts;
mod guarded;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use engine::follow::{StreamFormat, Wanted};
use engine::topic::Topic;
use engine::ulid::Ulid;

#[cfg(doc)]
use crate::limits::PIN_WITHIN;

pub use self::asking::{End, Following, Live, LocalView, Records, View};
pub use self::cluster::{ClusterState, Member, MemberState, NodeRole, VolumeCounts};
pub use self::entry_counts::{ByLevel, EntryCounts, EntryTally};
pub use self::guarded::{Guarded, Reader, Writer};

/// A future that the control thread polls.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A node, as its servers see it.
pub trait Backend: Send + Sync + 'static {
    /// Pins everything that a query which starts now may have to search, in the order in which
    /// records move, so that each is seen; takes [`PIN_WITHIN`] at most.
    fn pin(&self) -> Pending<Box<dyn View>>;

    /// Follows what is taken from now on.
    ///
    /// # Errors
    /// Nothing is ever taken here.
    fn follow(&self, wanted: Wanted, format: StreamFormat) -> Result<Following, FollowError>;

    /// Milliseconds of the newest ULID held, 0 when there is none. With the wall clock it makes
    /// `now`.
    fn newest_ms(&self) -> u64;

    /// Begins to take the records of one request; all of them go to one shard. `None` leaves the
    /// topic to the node's configuration; `is_awaited`: its client waits until they are durable.
    fn appender(
        &self,
        topic: Option<Topic>,
        is_awaited: bool,
    ) -> Result<Box<dyn Appender>, AppendError>;

    /// Longest record without its LF, bytes; longer lines are cut before they are appended.
    fn max_record_size_bytes(&self) -> usize;

    /// Whether the process turns; what is wrong otherwise.
    fn health(&self) -> Health;

    /// Whether it can take its role's work; what is missing otherwise.
    fn readiness(&self) -> Health;

    /// What `/_segmentstate` shows.
    fn segment_state(&self) -> SegmentOverview;

    /// What `/_clusterstate` shows.
    fn cluster_state(&self) -> ClusterState;

    /// Takes no new records from now on and hands everything to the store; says how far that is.
    /// Asked again, it only says.
    fn drain(&self) -> DrainState;

    /// How far draining is; `None` when nobody asked for it.
    fn drain_state(&self) -> Option<DrainState>;

    /// What is counted, in the `OpenMetrics` text format, gauges brought up to date: called at each
    /// scrape.
    fn metrics_text(&self) -> String;
}

/// Takes the records of one request.
pub trait Appender: Send {
    /// Takes whole lines, each with its LF and none longer than the maximum; resolves once they
    /// are numbered, which is the promise of fast mode. Waits while the backlog is full. What comes
    /// with the lines is held until they are in the log, or nobody wants them there any longer.
    fn append(&mut self, lines: Bytes) -> Pending<Result<Appended, AppendError>>;

    /// Resolves as soon as it is known that nothing can be taken, for whatever waits before it
    /// appends.
    fn trouble(&self) -> Pending<AppendError>;

    /// Resolves once everything that was appended is on disk and synced.
    fn durable(&mut self) -> Pending<Result<(), AppendError>>;
}

/// What became of one batch of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// How many records it made.
    pub records: u64,
    /// Its first record.
    pub first: Ulid,
    /// Its last record.
    pub last: Ulid,
}

/// Why records were not taken, or their promise cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// No segment can be made, most often for want of room; waiting may help.
    DiskFull,
    /// The backlog did not drain in time; waiting helps.
    Overloaded,
    /// The node only keeps records, and takes none.
    NoIngester,
    /// The node is being emptied; a restart ends that.
    Draining,
    /// The node is stopping.
    ShuttingDown,
    /// The disk refuses or hangs, or the process lacks descriptors; names what failed. Waiting may help.
    Storage(String),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str(
                "the disk of the node is full (less is free than --disk.free-min asks for) or \
                 failing; /ready and its log say which",
            ),
            Self::Overloaded => f.write_str("the node has more waiting than it may hold"),
            Self::NoIngester => f.write_str(
                "this node takes no records, it only keeps them: send them to one that does",
            ),
            Self::Draining => f.write_str("the node is draining: it takes no new records"),
            Self::ShuttingDown => f.write_str("the node is stopping"),
            Self::Storage(what) => write!(f, "the node takes no records: {what}"),
        }
    }
}

impl std::error::Error for AppendError {}

/// Why nothing can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowError {
    /// The node only keeps records, and takes none.
    NoIngester,
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIngester => f.write_str(
                "this node takes no records, it only keeps them: follow one that takes them (/query \
                 finds what is kept here)",
            ),
        }
    }
}

impl std::error::Error for FollowError {}

/// `ok` when there is no reason not to be; each reason is a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether requests that rely on it are to be sent elsewhere (503).
    pub failing: bool,
    /// What is not as it should be.
    pub reasons: Vec<String>,
}

/// How far a node that drains has got.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct DrainState {
    /// Nothing is left on the ingest side.
    pub done: bool,
    /// Shards that still write out.
    pub shards: u64,
    /// Ingest segments with records that are not in the store.
    pub segments: u64,
    /// Their text, bytes.
    pub bytes: u64,
    /// Why it cannot go on by itself, if it cannot.
    pub stuck: Option<String>,
}

/// How many segments of one kind there are, and their size on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct SegmentCount {
    /// Files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What `/_segmentstate` shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct SegmentOverview {
    /// The ingest side, by state.
    pub ingest: IngestSegments,
    /// The store side.
    pub store: StoreSegments,
}

/// The ingest side of [`SegmentOverview`].
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct IngestSegments {
    /// Who the ingester is: 32 hexadecimal digits.
    pub id: String,
    /// How often its directory was taken into use.
    pub boot: u64,
    /// Being written.
    pub active: SegmentCount,
    /// Complete and available.
    pub flushed: SegmentCount,
    /// Claimed by a consumer.
    pub pending: SegmentCount,
    /// Set aside because part of them is damaged, or could not be read for long.
    pub damaged: SegmentCount,
    /// Cannot be read at present, whatever their state: they are read again.
    pub unread: SegmentCount,
    /// Prepared or recycled, waiting for their next life.
    pub prepared: SegmentCount,
}

/// The store side of [`SegmentOverview`].
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct StoreSegments {
    /// Who the store is: 32 hexadecimal digits.
    pub id: String,
    /// How often its directory was taken into use.
    pub boot: u64,
    /// Published.
    pub flushed: SegmentCount,
    /// Expired, waiting to be purged.
    pub trashed: SegmentCount,
    /// Published ones of which records are known to be lost.
    pub damaged: u64,
    /// Published ones that cannot be read for now, in part at least.
    pub unread: u64,
    /// Records in the published ones.
    pub records: u64,
    /// What the gather is doing, in words.
    pub gather: String,
}
