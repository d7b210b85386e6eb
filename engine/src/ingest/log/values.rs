//! What goes into a shard's log and comes out of it: options, effects, answers, sums.

use std::io;
use std::sync::Arc;

#[cfg(doc)]
use super::ShardLog;
use crate::ingest::frame::FrameBuffer;
use crate::ingest::registry::text_capacity;
use crate::ingest::segment::Segment;
use crate::ingest::stamp::Ceiling;
use crate::ingest::topics::TopicSet;
use crate::ulid::Ulid;

/// The moment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// A clock that never steps, microseconds.
    pub monotonic_us: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a shard's log works with.
#[derive(Debug, Clone)]
pub struct ShardLogOptions {
    /// Longest record without its LF, bytes.
    pub record_size_max: usize,
    /// Text of a frame after which it is written, bytes: as the registry has it.
    pub frame_text_target: usize,
    /// Direct-I/O alignment, bytes: a power of two from 512 to 65,536.
    pub alignment_bytes: usize,
    /// How long a record stays in memory only, microseconds.
    pub flush_interval_us: u64,
    /// Size from which a segment is sealed, bytes.
    pub segment_flush_size_bytes: u64,
    /// Age of its first record from which a segment is sealed, microseconds.
    pub segment_flush_age_us: u64,
    /// The node's topics.
    pub topics: Arc<TopicSet>,
    /// Up to where stamps follow the clock.
    pub ceiling: Ceiling,
}

impl ShardLogOptions {
    /// Options with the defaults of the flags.
    pub fn new(topics: Arc<TopicSet>) -> Self {
        Self {
            record_size_max: crate::limits::RECORD_SIZE_MAX,
            frame_text_target: crate::limits::FRAME_TEXT_TARGET,
            alignment_bytes: crate::limits::FRAME_ALIGNMENT,
            flush_interval_us: 20_000,
            segment_flush_size_bytes: crate::limits::SEGMENT_FLUSH_SIZE,
            segment_flush_age_us: 3_000_000,
            topics,
            ceiling: Ceiling::unbounded(),
        }
    }

    /// Text that a frame has room for, bytes.
    pub(super) const fn text_capacity(&self) -> usize {
        text_capacity(self.record_size_max, self.frame_text_target)
    }
}

/// What is not known to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unsynced {
    /// How many records.
    pub records: u64,
    /// The first of them that is in memory.
    pub first: Option<Ulid>,
}

/// Names an effect in its completion.
pub type Token = u64;

/// What the caller has to do.
#[derive(Debug)]
pub enum Effect {
    /// Get a prepared segment and hand it over with [`ShardLog::on_segment`].
    WantSegment,
    /// Write [`FrameBuffer::as_bytes`]; completes with [`ShardLog::on_written`].
    Write {
        /// For the completion.
        token: Token,
        /// Whose file.
        segment: Arc<Segment>,
        /// Where, bytes; aligned.
        offset_bytes: u64,
        /// What; aligned in memory and length.
        frame: Arc<FrameBuffer>,
    },
    /// Write to the shard's tail file, through the page cache; completes with
    /// [`ShardLog::on_tail_written`].
    WriteTail {
        /// For the completion.
        token: Token,
        /// Where, bytes.
        offset_bytes: u64,
        /// What.
        bytes: Arc<Vec<u8>>,
    },
    /// fdatasync the segment's file; completes with [`ShardLog::on_synced`].
    Sync {
        /// For the completion.
        token: Token,
        /// Whose file.
        segment: Arc<Segment>,
    },
    /// The segment is complete and durable: close its file and hand it to the registry
    /// ([`Registry::flush`](crate::ingest::registry::Registry::flush)). Nothing comes back.
    Seal {
        /// Which.
        segment: Arc<Segment>,
        /// Its frames, bytes; 0 if it was not used.
        len_bytes: u64,
    },
    /// As [`Effect::Seal`], after a write or sync failed. What was not acknowledged is rewritten
    /// elsewhere.
    Abandon {
        /// Which.
        segment: Arc<Segment>,
        /// Its good frames, bytes.
        len_bytes: u64,
        /// What failed.
        error: io::Error,
    },
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// First record.
    pub first: Ulid,
    /// Last record.
    pub last: Ulid,
    /// How many.
    pub records: u64,
    /// Records of this log so far: the append is durable when [`ShardLog::durable_end`] reaches it.
    pub end: u64,
    /// Records whose first word was no topic, or one too many.
    pub invalid_topics: u64,
}

/// Sums since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Text taken, bytes.
    pub text_bytes: u64,
    /// Records taken.
    pub records: u64,
    /// Frames that writes were started for, and their bytes with padding.
    pub frames: u64,
    /// See `frames`.
    pub frame_bytes: u64,
    /// Tail chunks and their bytes.
    pub tail_writes: u64,
    /// See `tail_writes`.
    pub tail_bytes: u64,
    /// Syncs started.
    pub syncs: u64,
    /// Writes that failed or were short.
    pub write_errors: u64,
    /// Syncs that failed.
    pub sync_errors: u64,
    /// Tail writes that failed; after one, small flushes are written as frames.
    pub tail_errors: u64,
}
