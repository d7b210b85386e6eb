//! What goes into the registry and comes out of it: options, limits, errors, listings.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::claims::ClaimToken;
use crate::caches::Caches;
use crate::ingest::frame;
use crate::ingest::segment::{Content, Segment, SegmentState};
use crate::limits::{FRAME_TEXT_TARGET, RECYCLE_POOL_BYTES_MAX};
use crate::storage::{Refusal, Storage};
use crate::ulid::Ulid;

/// What a registry works with.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Where the files are.
    pub storage: Arc<dyn Storage>,
    /// The ingest directory.
    pub directory: PathBuf,
    /// What its node keeps at hand: that of the store side, where the node has one.
    pub caches: Arc<Caches>,
    /// Size from which a shard seals a segment, bytes.
    pub flush_size_bytes: u64,
    /// Longest record, bytes, without LF.
    pub record_size_max: usize,
    /// Text of a frame after which it is written, bytes.
    pub frame_text_target: usize,
    /// Direct-I/O alignment, bytes.
    pub alignment_bytes: usize,
    /// How long a claim stands without its consumer getting on, milliseconds.
    pub pending_timeout_ms: u64,
    /// Most bytes of recycled files that wait for their next life.
    pub pool_bytes_max: u64,
    /// Random, new for every start: segment ids come from it.
    pub seed: u64,
}

impl RegistryOptions {
    /// Options with the defaults of the flags.
    pub fn new(storage: Arc<dyn Storage>, directory: PathBuf, seed: u64) -> Self {
        Self {
            storage,
            directory,
            caches: Arc::default(),
            flush_size_bytes: crate::limits::SEGMENT_FLUSH_SIZE,
            record_size_max: crate::limits::RECORD_SIZE_MAX,
            frame_text_target: FRAME_TEXT_TARGET,
            alignment_bytes: crate::limits::FRAME_ALIGNMENT,
            pending_timeout_ms: 60_000,
            pool_bytes_max: RECYCLE_POOL_BYTES_MAX,
            seed,
        }
    }

    /// Length of a prepared file: the last frame may begin right below the flush size, and an end
    /// mark may follow it.
    pub fn file_bytes(&self) -> u64 {
        let text_capacity = text_capacity(self.record_size_max, self.frame_text_target);
        let slack = frame::frame_len_max(text_capacity, self.alignment_bytes) as u64;
        (self.flush_size_bytes + slack + self.alignment_bytes as u64).next_multiple_of(4096)
    }
}

/// Text that a frame has room for: the target, or one longest record with its LF.
pub const fn text_capacity(record_size_max: usize, frame_text_target: usize) -> usize {
    if record_size_max + 1 > frame_text_target { record_size_max + 1 } else { frame_text_target }
}

/// A file operation of the registry failed. State and name are as they were before.
#[derive(Debug)]
pub struct FileError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

impl FileError {
    /// Whether the disk (or quota) is full: it can be tried again when space returns.
    pub fn is_full_disk(&self) -> bool {
        Refusal::from(&self.error).is_no_room()
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.path.display(), self.error)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// How much a consumer takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimits {
    /// Most segments.
    pub segments_max: usize,
    /// Most bytes of text; one segment is always allowed.
    pub text_bytes_max: u64,
}

/// What a claim brought.
#[derive(Debug)]
pub struct Claim {
    /// Names it.
    pub token: ClaimToken,
    /// Claimed, oldest records first.
    pub segments: Vec<Arc<Segment>>,
    /// Files that could not be claimed; they stay flushed.
    pub errors: Vec<FileError>,
}

impl Claim {
    /// What was claimed and the errors beside it; an error alone where nothing could be claimed
    /// that should have been.
    pub fn into_parts(mut self) -> Result<(Vec<Arc<Segment>>, Vec<FileError>), FileError> {
        match self.errors.pop() {
            Some(error) if self.segments.is_empty() => Err(error),
            error => {
                self.errors.extend(error);
                Ok((self.segments, self.errors))
            }
        }
    }
}

/// What a renewal found.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Segments of the claim that are not stored yet, by it or anybody else; 0: it is void, there is
    /// nothing to go on for.
    pub open: usize,
    /// Files that could not be claimed again after the claim had lapsed; they stay flushed.
    pub errors: Vec<FileError>,
}

/// What a commit did.
#[derive(Debug, Default)]
pub struct Committed {
    /// What it committed; not what was committed before.
    pub segments: u64,
    /// Their text, bytes.
    pub text_bytes: u64,
    /// Those that hold other records than were stored: they stay claimed.
    pub kept: Vec<Ulid>,
    /// Files that stay until they are tidied up.
    pub errors: Vec<FileError>,
}

/// What a failure returned.
#[derive(Debug, Default)]
pub struct Failed {
    /// Segments that are available again, or will be; not those that others have claimed or stored.
    pub segments: u64,
    /// Files that stay as they are until a later look.
    pub errors: Vec<FileError>,
}

/// A row of the state listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Id.
    pub id: Ulid,
    /// State.
    pub state: SegmentState,
    /// Bytes of frames.
    pub len_bytes: u64,
    /// Records and text.
    pub content: Content,
    /// When the consumer that has claimed it was last known to get on, milliseconds of its clock.
    pub progress_ms: Option<u64>,
    /// Whether a consumer may have it: not one that is set aside or waits to be read again.
    pub is_offered: bool,
}

/// Segments that wait for a consumer or are held by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Segments flushed or pending.
    pub segments: u64,
    /// Frames of all segments that are not gone, active ones included, bytes.
    pub len_bytes: u64,
    /// Stamp of the oldest record, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}
