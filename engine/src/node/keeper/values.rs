//! What the keeper is asked, what it asks, and what it has to tell.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::headroom::Judgement;
use crate::ingest::registry::FileError;
use crate::ingest::segment::Segment;
use crate::node::Side;
use crate::node::doors::LowSpace;
use crate::storage::File;
use crate::ulid::Ulid;

/// What shards ask, and answers.
pub enum Event {
    /// A shard needs a segment.
    WantSegment(usize),
    /// A segment is complete up to so many bytes.
    Seal(Arc<Segment>, u64),
    /// Writing a segment failed; what is good ends there.
    Abandon(Arc<Segment>, u64, io::Error),
    /// A shard writes to this tail file, which is this one.
    Tail(usize, PathBuf, u128),
    /// Answers [`Effect::Lend`]: the shard has it.
    Lent {
        /// Which shard.
        shard: usize,
        /// The segment.
        segment: Arc<Segment>,
        /// Its bytes, whoever deletes its name.
        source: Arc<dyn File>,
        /// Which file it is, whatever its name.
        identity: u128,
    },
    /// Answers [`Effect::Lend`]: it cannot be opened. `NotFound`: its name is nobody's, or somebody
    /// else's.
    NotLent {
        /// Which shard.
        shard: usize,
        /// The segment.
        segment: Arc<Segment>,
        /// Why not.
        error: io::Error,
    },
}

/// What others have to do.
pub enum Effect {
    /// Open a segment for writing and give it to a shard.
    Lend {
        /// Which shard.
        shard: usize,
        /// The segment.
        segment: Arc<Segment>,
    },
    /// Somebody has deleted what this shard writes: it goes on in another, and writes anew what is not
    /// synced.
    LostSegment(usize, Ulid),
    /// Somebody has deleted this shard's tail file: it does without.
    LostTail(usize),
}

/// What the keeper looks at when it is turned.
pub trait Surroundings {
    /// What was taken away of each directory, by [`Side`], a sentence each.
    fn ground(&self) -> [Option<String>; 2];
    /// Whether this file has lost this name: nothing or something else has it now. A name that cannot be
    /// looked up is not lost.
    fn has_lost_name(&self, path: &Path, identity: u128) -> bool;
    /// Up to where shards have given or ruled out stamps, milliseconds since 1970.
    fn stamped_ms(&self) -> u64;
}

/// Why a segment was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedFor {
    /// It was large enough.
    Size,
    /// It was old enough, or its shard drains.
    Age,
    /// A stop.
    Stop,
    /// A write or sync of it failed.
    Failure,
}

/// What happened.
#[derive(Debug)]
pub enum Happened {
    /// A segment is complete.
    Sealed {
        /// Why.
        why: SealedFor,
        /// Its frames, bytes.
        len_bytes: u64,
        /// Age of its oldest record, ms.
        age_ms: u64,
    },
    /// Writing failed; the segment is closed after its good bytes.
    WriteFailed {
        /// Its file.
        path: PathBuf,
        /// What is good.
        len_bytes: u64,
        /// Why.
        error: io::Error,
    },
    /// A complete segment's file has no name any more: it is written anew.
    NameLost(PathBuf),
    /// It cannot be marked as flushed; its records stay readable, and it is tried again.
    NotFlushed(FileError),
    /// It cannot be opened for writing; it is tried again. Told once until one can.
    NotOpened(PathBuf, io::Error),
    /// No segment can be made: senders wait. Told once until one can.
    NoSegments(FileError),
    /// They can again.
    HasSegments,
    /// The mark of stamps cannot be moved. Told once until it can.
    MarkNotWritten(PathBuf, io::Error),
    /// It can again.
    MarkWritten,
    /// What the topics are cannot be written. Told once until it can.
    TopicsNotWritten(PathBuf, io::Error),
    /// It can again.
    TopicsWritten,
    /// What was taken away of the directories, by side, has changed.
    Ground([Option<String>; 2]),
    /// A file was deleted while a shard wrote it: what it held is written anew.
    SegmentDeleted(PathBuf),
    /// A tail file was deleted: its shard does without.
    TailDeleted(PathBuf),
    /// A file operation failed; it is tried again. Told once as long as it fails.
    FileFailed(FileError),
    /// It was claimed and not committed in time: it is available again.
    ClaimLapsed(Ulid),
    /// The backlog is full: senders wait.
    BacklogFull {
        /// What waits, bytes.
        backlog_bytes: u64,
    },
    /// It has room again.
    BacklogHasRoom {
        /// What waits, bytes.
        backlog_bytes: u64,
    },
    /// The file systems were measured.
    SpaceMeasured {
        /// What it means.
        judgement: Judgement,
        /// New records are refused.
        is_refusing: bool,
    },
    /// New records are refused from now on.
    LacksSpace {
        /// Where.
        low: LowSpace,
        /// What was measured.
        judgement: Judgement,
    },
    /// They are taken again.
    HasSpace {
        /// Free bytes of the tightest file system.
        free_bytes: u64,
    },
    /// A disk turned out to be full.
    DiskFull {
        /// What could not be written.
        error: String,
        /// Records were taken before.
        is_news: bool,
    },
}

/// A file system on which records that are refused once may be refused for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooSmall {
    /// Whose.
    pub side: Side,
    /// A directory on it.
    pub path: PathBuf,
    /// What must be free before they are taken again, bytes.
    pub wanted_bytes: u64,
    /// What would be free with all data of the node gone, bytes.
    pub most_bytes: u64,
    /// Its reserve, bytes.
    pub free_min_bytes: u64,
    /// A segment's file, bytes.
    pub segment_bytes: u64,
}
