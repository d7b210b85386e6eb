//! The log of one shard: a state machine that stamps lines, collects them into frames and says
//! what to write where and when to sync. It does no I/O: it emits [`Effect`]s and takes their
//! completions, so a ring, a blocking loop or a simulator can drive it.
//!
//! Invariants:
//!
//! - A record that was appended is at every moment in memory (staging or a held frame) or in whole
//!   frames below its segment's published length.
//! - ULIDs strictly grow over all appends. Inside one segment frames are in ULID order: a frame
//!   that has to be rewritten after a failure never goes behind a younger one.
//! - [`ShardLog::durable_end`] never passes a record whose frame was not covered by a sync that was
//!   started after the frame, and all before it in its segment, were written, and that succeeded.
//! - A failed write or sync ends its segment at the last good length; the sync is never retried.
//!   Frames that somebody wants durable stay in memory until they are synced, and are rewritten.
//!   Frames that nobody had asked to be durable are let go once written.
//! - A slot of the tail file is reused only when the frame that it backs, and all before it in its
//!   segment, are written.
//! - A segment is sealed only complete: its last frame says so, everything is written and synced.
//! - At most [`FRAMES_IN_FLIGHT_MAX`] frames are being written, and the caller keeps to
//!   [`ShardLog::can_accept`], so at most [`FRAMES_HELD_MAX`] frames (and those of one append) are
//!   in memory.
//!
//! The caller calls [`ShardLog::next_effect`] until it says `None` after every append, every
//! completion and every deadline. Where an append is to be durable, it calls
//! [`ShardLog::want_durable`] before the next [`ShardLog::next_effect`].

mod complete;
mod flush;
mod lend;
mod tap;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use memchr::{memchr_iter, memrchr};

use super::frame::FrameBuffer;
use super::memory::MemoryPart;
use super::segment::{Content, Segment};
use super::stamp::Stamper;
use super::tail::Mark;
use super::topics::{INVALID_NUMBER, TopicCache, TopicChoice, first_word};
use crate::limits::{FRAMES_HELD_MAX, FRAMES_IN_FLIGHT_MAX};
use crate::run_table::Run;
use crate::topic::INVALID_TOPIC;
use crate::ulid::Ulid;

pub use tap::{Tapped, TappedRun};
pub use values::{Effect, LogStats, Now, ShardLogOptions, Stamped, Token, Unsynced};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlightState {
    /// Waits for a place in a segment.
    Queued,
    /// Is being written.
    Writing,
    /// Is written, but one before it in its segment is not.
    Written,
    /// Is readable in its segment, not synced.
    Published,
}

/// A frame on its way from staging to durability.
#[derive(Debug)]
struct Flight {
    /// Its records: `start..end` of all records of this log. Empty for an end mark.
    start: u64,
    end: u64,
    /// When its first record came.
    first_us: u64,
    /// Its bytes, for as long as they may be needed.
    frame: Option<Arc<FrameBuffer>>,
    state: FlightState,
    offset: u64,
    len: u64,
    /// Which slot of the tail file may back it.
    slot: Option<usize>,
}

/// A segment that this log writes.
#[derive(Debug)]
struct Work {
    segment: Arc<Segment>,
    next_offset: u64,
    next_number: u32,
    /// When the first record in it came.
    first_us: Option<u64>,
    /// The last frame that was placed here.
    last_sequence: Option<u64>,
    /// Frames being written.
    writing: usize,
    /// Placed, not published; by sequence, which is their order in the file.
    unpublished: VecDeque<u64>,
    /// Published, not synced.
    unsynced: VecDeque<u64>,
    /// Whether the last frame was placed.
    is_ended: bool,
    failure: Option<io::Error>,
}

/// What is known of the tail file.
#[derive(Debug, Default)]
struct TailState {
    in_flight: Option<(Token, usize)>,
    /// Whose chunks are being cleared.
    clearing: Option<u64>,
    /// The staging's slot; each frame takes the next.
    slot: usize,
    /// Incarnation and number of the frame that the staging's chunks carry.
    bound: Option<(u64, u32)>,
    next_chunk: u32,
    /// Bytes used of the staging's slot.
    used: usize,
    /// How much of the staging the slot holds.
    mark: Mark,
    /// Whose chunks each slot holds, as far as they are to be cleared when it is sealed.
    owners: [Option<u64>; super::tail::SLOTS],
    /// The next chunk does not fit: the staging is to be written as a frame.
    is_full: bool,
    is_broken: bool,
}

/// The log of one shard; see the module page.
#[derive(Debug)]
pub struct ShardLog {
    options: ShardLogOptions,
    stamper: Stamper,
    topics: TopicCache,
    /// Dictionary index in the staging frame of each cached topic.
    frame_topics: Vec<u16>,
    /// Pieces of a batch by topic; kept for its memory.
    pieces: Vec<(u32, std::ops::Range<usize>)>,

    /// Records taken so far.
    position: u64,
    staging: FrameBuffer,
    /// When the staging got its first record.
    staging_first_us: Option<u64>,
    /// When it got its first record that the tail file does not hold.
    untailed_since_us: Option<u64>,
    /// Number of the staging frame; grows with every frame.
    sequence: u64,

    flights: BTreeMap<u64, Flight>,
    queued: BTreeSet<u64>,
    /// Flights with bytes in memory.
    held: usize,
    writes: Vec<(Token, u64)>,
    spare: Vec<FrameBuffer>,
    /// Let go, but perhaps still held by a reader or the driver.
    retired: Vec<Arc<FrameBuffer>>,

    current: Option<Work>,
    next: Option<Arc<Segment>>,
    is_segment_asked: bool,
    closing: Vec<Work>,
    /// The current segment is to be ended.
    is_rolling: bool,

    /// Records below it are to be synced.
    durable_wanted: u64,
    sync: Option<SyncInFlight>,
    tail: TailState,

    next_token: Token,
    last_now_us: u64,
    /// Failures since the last sync that succeeded; writing pauses after each.
    failures: u32,
    resume_us: u64,
    is_shutting_down: bool,
    /// Written, let go by those who took them, and not synced when everything was to be.
    let_go_records: u64,
    stats: LogStats,
    /// Copies of what was appended, and for whom.
    tap: Option<(u64, Tapped)>,
}

#[derive(Debug)]
struct SyncInFlight {
    token: Token,
    segment: Ulid,
    /// How many of the segment's unsynced flights it covers.
    covers: usize,
}

const NO_TOPIC: u16 = u16::MAX;

impl ShardLog {
    /// An empty log. `stream` is random, new for each shard and start; no stamp is below `floor_ms`.
    pub fn new(options: ShardLogOptions, stream: u64, floor_ms: u64) -> Self {
        let staging = FrameBuffer::new(options.text_capacity());
        Self {
            stamper: Stamper::new(stream, floor_ms, options.ceiling.clone()),
            topics: TopicCache::new(Arc::clone(&options.topics)),
            options,
            frame_topics: Vec::new(),
            pieces: Vec::new(),
            position: 0,
            staging,
            staging_first_us: None,
            untailed_since_us: None,
            sequence: 0,
            flights: BTreeMap::new(),
            queued: BTreeSet::new(),
            held: 0,
            writes: Vec::with_capacity(FRAMES_IN_FLIGHT_MAX),
            spare: Vec::new(),
            retired: Vec::new(),
            current: None,
            next: None,
            is_segment_asked: false,
            closing: Vec::new(),
            is_rolling: false,
            durable_wanted: 0,
            sync: None,
            tail: TailState::default(),
            next_token: 0,
            last_now_us: 0,
            failures: 0,
            resume_us: 0,
            is_shutting_down: false,
            let_go_records: 0,
            stats: LogStats::default(),
            tap: None,
        }
    }

    /// Whether there is memory for another batch; if not the caller stops reading until a
    /// completion has come.
    pub const fn can_accept(&self) -> bool {
        self.held < FRAMES_HELD_MAX
    }

    /// Takes whole lines (at least one, each ended by LF, none longer than the record size).
    pub fn append(&mut self, lines: &[u8], topic: &TopicChoice, now: Now) -> Stamped {
        assert!(lines.last() == Some(&b'\n'), "whole lines are appended");
        let start = self.position;
        let mut span = None;
        let mut invalid_topics = 0;
        match topic {
            TopicChoice::Static(topic) => {
                let number = self.topics.number_of(topic.as_str().as_bytes());
                self.append_of_topic(lines, number, now, &mut span);
                if number == INVALID_NUMBER && topic.as_str() != INVALID_TOPIC {
                    invalid_topics = self.position - start;
                }
            }
            TopicChoice::FirstWord => {
                invalid_topics = self.sort_by_topic(lines);
                let pieces = std::mem::take(&mut self.pieces);
                for (number, piece) in &pieces {
                    self.append_of_topic(&lines[piece.clone()], *number, now, &mut span);
                }
                self.pieces = pieces;
            }
        }
        let (first, last) = span.expect("there is at least one line");
        let records = self.position - start;
        self.stats.records += records;
        self.stats.text_bytes += lines.len() as u64;
        Stamped { first, last, records, end: self.position, invalid_topics }
    }

    /// Lists the lines by the topic of their first word, in order within each; says how many lines
    /// have none. Neighbours of one topic stay one piece.
    fn sort_by_topic(&mut self, lines: &[u8]) -> u64 {
        self.pieces.clear();
        let mut invalid = 0;
        let mut start = 0;
        for lf in memchr_iter(b'\n', lines) {
            let end = lf + 1;
            let word = first_word(&lines[start..end]);
            let number = self.topics.number_of(word);
            if number == INVALID_NUMBER && word != INVALID_TOPIC.as_bytes() {
                invalid += 1;
            }
            match self.pieces.last_mut() {
                Some((last, piece)) if *last == number => piece.end = end,
                _ => self.pieces.push((number, start..end)),
            }
            start = end;
        }
        self.pieces.sort_by_key(|(number, _)| *number);
        invalid
    }

    /// Stages lines of one topic, in as many frames as they need.
    fn append_of_topic(
        &mut self,
        lines: &[u8],
        number: u32,
        now: Now,
        span: &mut Option<(Ulid, Ulid)>,
    ) {
        let mut rest = lines;
        while !rest.is_empty() {
            let room = self.staging.room();
            let len = if rest.len() <= room {
                rest.len()
            } else {
                memrchr(b'\n', &rest[..room]).map_or(0, |at| at + 1)
            };
            if len == 0 {
                assert!(!self.staging.is_empty(), "a record fits an empty frame");
                self.queue_staging();
                continue;
            }
            let (piece, behind) = rest.split_at(len);
            let (first, last) = self.stage(piece, number, now);
            *span = Some((span.map_or(first, |(first, _)| first), last));
            rest = behind;
        }
    }

    fn stage(&mut self, piece: &[u8], number: u32, now: Now) -> (Ulid, Ulid) {
        self.staging.spare()[..piece.len()].copy_from_slice(piece);
        self.stage_spare(piece.len(), number, now)
    }

    /// Makes records of the lines that are the first `len` bytes of the staging frame's spare memory.
    fn stage_spare(&mut self, len: usize, number: u32, now: Now) -> (Ulid, Ulid) {
        let count = memchr_iter(b'\n', &self.staging.spare()[..len]).count() as u64;
        let first = self.stamper.stamp(count, now.wall_ms);
        let topic = self.frame_topic(number, first.ms());
        let run = Run { first, count: count as u32, text_len: len as u32, topic };
        let text = self.staging.take_spare(run);
        if let Some((_, tap)) = &mut self.tap {
            tap.push(first, run.count, self.topics.topic(number), text);
        }
        self.position += count;
        self.staging_first_us.get_or_insert(now.monotonic_us);
        self.untailed_since_us.get_or_insert(now.monotonic_us);
        (first, run.last())
    }

    /// Index of a topic in the staging frame's dictionary; a record of it was stamped then, ms.
    fn frame_topic(&mut self, number: u32, ms: u64) -> u16 {
        let number = number as usize;
        if self.frame_topics.len() <= number {
            self.frame_topics.resize(self.topics.len().max(number + 1), NO_TOPIC);
        }
        if self.frame_topics[number] == NO_TOPIC {
            // Once a frame: that is exact enough for a day.
            self.topics.note_used(number as u32, ms);
            let topic = self.topics.topic(number as u32);
            self.frame_topics[number] = self.staging.add_topic(topic);
        }
        self.frame_topics[number]
    }

    /// Closes the staging frame: it waits for its place, and an empty one takes over.
    fn queue_staging(&mut self) {
        let records = self.staging.record_count();
        assert!(records > 0, "a frame of records has some: without any it would end its segment");
        let fresh = self.take_buffer();
        let full = std::mem::replace(&mut self.staging, fresh);
        let flight = Flight {
            start: self.position - records,
            end: self.position,
            first_us: self.staging_first_us.unwrap_or(self.last_now_us),
            frame: Some(Arc::new(full)),
            state: FlightState::Queued,
            offset: 0,
            len: 0,
            slot: Some(self.tail.slot),
        };
        self.flights.insert(self.sequence, flight);
        self.queued.insert(self.sequence);
        self.held += 1;
        self.sequence += 1;
        self.staging_first_us = None;
        self.untailed_since_us = None;
        self.frame_topics.clear();
        self.tail.restart_slot();
        self.tail.slot = (self.tail.slot + 1) % super::tail::SLOTS;
    }

    fn take_buffer(&mut self) -> FrameBuffer {
        let mut at = 0;
        while at < self.retired.len() {
            if Arc::get_mut(&mut self.retired[at]).is_some_and(FrameBuffer::is_unshared) {
                let frame = self.retired.swap_remove(at);
                self.spare.extend(Arc::into_inner(frame));
            } else {
                at += 1;
            }
        }
        let mut buffer =
            self.spare.pop().unwrap_or_else(|| FrameBuffer::new(self.options.text_capacity()));
        buffer.clear();
        buffer
    }

    /// Lets a frame's memory go, for reuse when nobody holds it any more.
    fn retire(&mut self, frame: Arc<FrameBuffer>) {
        assert!(self.held > 0, "frames that are let go were held, else the bound on them is none");
        self.held -= 1;
        let is_reusable = frame.text_capacity() == self.staging.text_capacity();
        if is_reusable && self.retired.len() + self.spare.len() < FRAMES_HELD_MAX {
            self.retired.push(frame);
        }
    }

    /// Everything appended so far is to be synced soon.
    pub const fn want_durable(&mut self) {
        self.durable_wanted = self.position;
    }

    /// Records of this log (counted from its start) below it are durable.
    pub fn durable_end(&self) -> u64 {
        let first = self.flights.values().find(|flight| flight.start < flight.end);
        first.map_or(self.position - self.staging.record_count(), |flight| flight.start)
    }

    /// What was taken and is not known to be on the disk. Once nothing is written any more this is what
    /// only a tail file may still have.
    pub fn unsynced(&self) -> Unsynced {
        let flights = self.flights.values().filter_map(|flight| flight.frame.as_deref());
        let mut frames = flights.chain([&self.staging]);
        Unsynced {
            records: self.position - self.durable_end() + self.let_go_records,
            first: frames.find_map(|frame| Some(frame.table().range()?.0)),
        }
    }

    /// Records taken so far.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// What is in memory and in no segment that a registry's snapshot, taken later, shows.
    pub fn memory(&self) -> MemoryPart {
        let flights = self.flights.values().filter(|f| f.state != FlightState::Published);
        MemoryPart::new(flights.filter_map(|f| f.frame.as_deref()), &self.staging)
    }

    /// Text that is in memory and in no segment that a registry's snapshot shows, bytes.
    pub fn unpublished_text_bytes(&self) -> u64 {
        let flights = self.flights.values().filter(|f| f.state != FlightState::Published);
        let frames = flights.filter_map(|f| f.frame.as_deref()).map(|f| f.text().len());
        (frames.sum::<usize>() + self.staging.text().len()) as u64
    }

    /// Stamp of the oldest record among those, milliseconds since 1970.
    pub fn oldest_unpublished_ms(&self) -> Option<u64> {
        let flights = self.flights.values().filter(|f| f.state != FlightState::Published);
        let frames = flights.filter_map(|f| f.frame.as_deref()).chain([&self.staging]);
        // Runs are in the order of their stamps.
        frames.filter_map(|frame| Some(frame.table().runs.first()?.first.ms())).min()
    }

    /// Write out and seal everything; nothing is appended any more.
    pub const fn shut_down(&mut self) {
        self.is_shutting_down = true;
        self.durable_wanted = self.position;
    }

    /// Whether nothing is left to do after [`ShardLog::shut_down`].
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.staging.is_empty()
            && self.current.is_none()
            && self.next.is_none()
            && self.closing.is_empty()
            && self.tail.in_flight.is_none()
    }

    /// How far stamps are ahead of the clock, milliseconds: after the clock was set back.
    pub const fn ahead_ms(&self, wall_ms: u64) -> u64 {
        self.stamper.ahead_ms(wall_ms)
    }

    /// Up to where stamps were given or ruled out, milliseconds since 1970.
    pub const fn stamped_ms(&self) -> u64 {
        self.stamper.newest_ms()
    }

    /// Sums since start.
    pub const fn stats(&self) -> LogStats {
        self.stats
    }

    /// Memory of frames, bytes.
    pub fn memory_bytes(&self) -> usize {
        let frames = 1 + self.held + self.spare.len() + self.retired.len();
        frames * FrameBuffer::memory_bytes(self.options.text_capacity())
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }
}

impl TailState {
    /// What comes next is written to the start of the slot.
    fn restart_slot(&mut self) {
        self.bound = None;
        self.next_chunk = 0;
        self.used = 0;
        self.mark = Mark::default();
        self.is_full = false;
    }
}

fn content_of(frame: &FrameBuffer) -> Content {
    Content {
        records: frame.record_count(),
        text_bytes: frame.text().len() as u64,
        range: frame.table().range(),
    }
}
