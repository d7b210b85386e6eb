//! What becomes of the hits that a sweep brings: text into a pipe, or counts into a ticket.
//!
//! Invariants: runs under the lock of its query, on a scan thread; never blocks; text that turned
//! out unreadable is taken back before it reaches the pipe, or, where its beginning is sent
//! already, the output is aborted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Selection;
use super::format::RecordWriter;
use super::pipe::{Head as PipeHead, PipeWriter, Room};
use super::scan::Hit;
use super::spec::{Format, Order, Outcome, Stats};
use super::sweep::{Head, HeadText, Sweep};
use super::ticket::TicketSender;
use crate::chunk::ChunkMeta;
use crate::limits::{OUTPUT_CAPACITY_BYTES, OUTPUT_PIECE_BYTES};
use crate::topic::Topic;
use crate::ulid::Ulid;

/// How a consumer stands after it took what there was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Drained {
    /// It has taken all; more is welcome.
    All,
    /// Its reader has to take something first; the hook will be called.
    Full,
    /// Nobody wants the result.
    Unwanted,
    /// It has all it wants.
    Enough,
    /// Somebody ended the query, for this reason.
    Ended(String),
    /// The output broke inside a record.
    Aborted,
}

/// When what is told of a chunk's entries may stand for its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Never.
    Nothing,
    /// Where what matches are entries, and all of those that are asked for do: no notice is taken of
    /// anything else.
    Entries,
    /// Where every record matches, and those of the chunk are entries of one of these spans.
    Spans(Spans),
}

/// Spans of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spans {
    /// First millisecond of the first.
    pub(super) from_ms: u64,
    /// Their length, milliseconds, at least 1.
    pub(super) interval_ms: u64,
}

impl Spans {
    /// The number of the one that holds a millisecond.
    pub(super) const fn of(self, ms: u64) -> u64 {
        ms.saturating_sub(self.from_ms) / self.interval_ms
    }
}

/// Ends an answer from outside.
pub(super) type Breaker = Box<dyn Fn() + Send + Sync>;

/// Takes hits.
pub(super) trait Consumer: Send {
    /// Takes what the sweep has.
    fn drain(&mut self, sweep: &mut Sweep) -> Drained;
    /// Whether a consumer that was full could go on.
    fn has_room(&self) -> bool;
    /// Whether it takes no notice of text.
    fn counts_only(&self) -> bool;
    /// What it takes of a chunk's entries in place of its records.
    fn telling(&self) -> Telling {
        Telling::Nothing
    }
    /// What ends its answer from outside, as one that broke off, whatever it is at.
    fn breaker(&self) -> Breaker;
    /// Delivers the result.
    fn finish(self: Box<Self>, stats: Stats, aborted: bool);
}

/// Writes records into a pipe.
pub(super) struct Output {
    pipe: PipeWriter,
    writer: RecordWriter,
    order: Order,
    out: Vec<u8>,
    /// Part of the record being written has left `out`.
    record_is_sent: bool,
    /// Where the record being written starts in `out`, if that is all of it.
    record_start: usize,
    /// The record being written.
    record: Ulid,
    /// Which of the records are hits, where others are shown around them.
    selection: Option<Arc<Selection>>,
    /// What the stages before have cost and missed.
    before: Stats,
    /// Records written that are no hits.
    context_records: u64,
}

impl Output {
    pub(super) fn new(pipe: PipeWriter, format: Format, order: Order) -> Self {
        let writer = RecordWriter::new(format);
        let (record_is_sent, record_start, record) = (false, 0, Ulid::MIN);
        let (selection, before, context_records) = (None, Stats::default(), 0);
        let out = Vec::new();
        Self {
            pipe,
            writer,
            order,
            out,
            record_is_sent,
            record_start,
            record,
            selection,
            before,
            context_records,
        }
    }

    /// The last stage of a query with context.
    pub(super) fn of_selection(
        pipe: PipeWriter,
        format: Format,
        order: Order,
        (selection, before): (Arc<Selection>, Stats),
    ) -> Self {
        Self { selection: Some(selection), before, ..Self::new(pipe, format, order) }
    }

    /// Ends it as one that broke off.
    pub(super) fn abort(self, stats: Stats) {
        self.pipe.finish(Outcome { stats, aborted: true });
    }

    /// Takes back the beginning of a record of which the rest is gone; `false`: it is sent.
    fn take_back(&mut self) -> bool {
        if self.writer.is_inside_a_record() {
            self.out.truncate(self.record_start);
            self.writer.reset();
        }
        !self.record_is_sent
    }

    /// Whether the record being written is not the one that the head goes on with: what was read
    /// of it was given back, and could not be read again.
    fn is_orphan(&self, head: &Head<'_>) -> bool {
        let next = match self.order {
            Order::Asc => head.hit.first,
            Order::Desc => head.hit.last(),
        };
        self.writer.is_inside_a_record() && self.record != next
    }

    /// Hands what is written to the pipe.
    fn push(&mut self, stats: &Stats) {
        let head = PipeHead {
            complete: stats.complete && self.before.complete,
            missing_count: stats.missing_count + self.before.missing_count,
        };
        // Room that is not used is not carried along.
        if self.out.len() < OUTPUT_PIECE_BYTES {
            self.out.shrink_to_fit();
        }
        self.pipe.push(std::mem::take(&mut self.out), head);
        self.record_is_sent = self.writer.is_inside_a_record();
    }

    /// Writes records of the head until they end or the buffer is full; how many, and their bytes.
    fn write(&mut self, head: &Head<'_>) -> (u32, u64) {
        // Sweeps for output always bring text.
        let Some(text) = head.text else { return (head.records_max as u32, 0) };
        let mut left = text.get(head.hit.span()).unwrap_or_default();
        if self.out.capacity() == 0 {
            self.out.reserve(OUTPUT_CAPACITY_BYTES);
        }
        let (mut records, mut bytes) = (0, 0);
        if self.order == Order::Asc {
            let room = (OUTPUT_PIECE_BYTES, head.records_max);
            let (written, len) =
                self.writer.write_lines(&mut self.out, room, (head.hit.first, left));
            (records, bytes, left) = (written, len as u64, &left[len..]);
        }
        while u64::from(records) < head.records_max && self.out.len() < OUTPUT_PIECE_BYTES {
            let (record, id) = match self.order {
                Order::Asc => {
                    let len = memchr::memchr(b'\n', left).map_or(left.len(), |lf| lf + 1);
                    let (record, rest) = left.split_at(len);
                    left = rest;
                    (record, head.hit.first.plus(u64::from(records)))
                }
                Order::Desc => {
                    let body = &left[..left.len().saturating_sub(1)];
                    let start = memchr::memrchr(b'\n', body).map_or(0, |lf| lf + 1);
                    let (rest, record) = left.split_at(start);
                    left = rest;
                    (record, head.hit.first.plus(u64::from(head.hit.count - 1 - records)))
                }
            };
            let line = record.strip_suffix(b"\n").unwrap_or(record);
            let is_context = self.selection.as_ref().is_some_and(|chosen| !chosen.is_hit(id));
            self.writer.is_context = is_context;
            let written = (id, head.topic.as_str(), line);
            let start = self.out.len();
            let is_new = !self.writer.is_inside_a_record();
            if !self.writer.write(&mut self.out, OUTPUT_PIECE_BYTES, written) {
                if is_new {
                    (self.record_start, self.record) = (start, id);
                }
                break;
            }
            records += 1;
            bytes += record.len() as u64;
        }
        (records, bytes)
    }
}

impl Consumer for Output {
    fn drain(&mut self, sweep: &mut Sweep) -> Drained {
        loop {
            let full = self.out.len() >= OUTPUT_PIECE_BYTES;
            match self.pipe.room() {
                Room::Gone => return Drained::Unwanted,
                Room::Ended(_) if !self.take_back() => return Drained::Aborted,
                Room::Ended(reason) => return Drained::Ended(reason),
                Room::Full if full => {
                    sweep.wait_for_reader();
                    return Drained::Full;
                }
                Room::Some | Room::Empty if full => self.push(&sweep.stats),
                Room::Full | Room::Some | Room::Empty => {}
            }
            while self.out.len() < OUTPUT_PIECE_BYTES && sweep.prepare() {
                let Some(head) = sweep.head() else { break };
                if self.is_orphan(&head) {
                    if !self.take_back() {
                        return Drained::Aborted;
                    }
                    continue;
                }
                let (mark, stage) = (self.out.len(), self.writer.stage());
                let (head_first, head_count) = (head.hit.first, head.hit.count);
                let (records, bytes) = self.write(&head);
                match sweep.check_head() {
                    HeadText::Intact => {}
                    text => {
                        self.out.truncate(mark);
                        self.writer.restore(stage);
                        if text == HeadText::Lost && self.record_is_sent {
                            return Drained::Aborted;
                        }
                        continue;
                    }
                }
                if records > 0 {
                    self.record_is_sent = false;
                }
                if let Some(selection) = &self.selection {
                    let first = match self.order {
                        Order::Asc => head_first,
                        Order::Desc => head_first.plus(u64::from(head_count - records)),
                    };
                    self.context_records += u64::from(records) - selection.hits_of(first, records);
                }
                sweep.advance(records, bytes);
            }
            if self.out.len() < OUTPUT_PIECE_BYTES {
                break;
            }
        }
        if sweep.is_over() && self.writer.is_inside_a_record() && !self.take_back() {
            return Drained::Aborted;
        }
        // A reader that waits gets what there is; one that is busy gets whole pieces.
        if !self.out.is_empty() && (sweep.is_over() || self.pipe.room() == Room::Empty) {
            self.push(&sweep.stats);
        }
        Drained::All
    }

    fn has_room(&self) -> bool {
        self.pipe.room() != Room::Full
    }

    fn counts_only(&self) -> bool {
        false
    }

    fn breaker(&self) -> Breaker {
        self.pipe.breaker()
    }

    fn finish(mut self: Box<Self>, mut stats: Stats, aborted: bool) {
        if self.selection.is_some() {
            let of_stage = std::mem::replace(&mut stats, std::mem::take(&mut self.before));
            stats.add_stage(&of_stage);
            stats.records = of_stage.records - self.context_records;
            stats.context_records = self.context_records;
            stats.bytes = of_stage.bytes;
        }
        if !aborted {
            self.writer.end(&mut self.out, &stats);
        }
        self.push(&stats);
        self.pipe.finish(Outcome { stats, aborted });
    }
}

/// Counts hits without looking at their text.
pub(super) trait Tally: Send {
    /// What it becomes.
    type Result: Send + 'static;
    /// Counts one hit.
    fn count(&mut self, topic: &Topic, hit: &Hit);
    /// Counts a whole chunk from its index entry, if that says enough; `topic` is its only one.
    fn count_chunk(&mut self, topic: Option<&Topic>, chunk: &ChunkMeta) -> bool;
    /// The result.
    fn result(self, stats: Stats) -> Self::Result;
}

/// A tally and the ticket that waits for it.
pub(super) struct Counting<T: Tally> {
    pub(super) tally: T,
    pub(super) sender: TicketSender<T::Result>,
}

impl<T: Tally> Consumer for Counting<T> {
    fn drain(&mut self, sweep: &mut Sweep) -> Drained {
        if self.sender.is_cancelled() {
            return Drained::Unwanted;
        }
        while sweep.prepare() {
            let Some(head) = sweep.head() else { break };
            let hit = head.hit;
            self.tally.count(head.topic, &hit);
            sweep.advance(hit.count, u64::from(hit.end - hit.start));
        }
        sweep.count_lone_chunks(&mut |chunk, topic| self.tally.count_chunk(topic, chunk));
        Drained::All
    }

    fn has_room(&self) -> bool {
        true
    }

    fn counts_only(&self) -> bool {
        true
    }

    fn breaker(&self) -> Breaker {
        self.sender.breaker()
    }

    fn finish(self: Box<Self>, stats: Stats, _aborted: bool) {
        let Self { tally, sender } = *self;
        sender.send(tally.result(stats));
    }
}

/// Counts nothing beyond what the sweep counts itself.
pub(super) struct StatsTally;

impl Tally for StatsTally {
    type Result = Stats;

    fn count(&mut self, _topic: &Topic, _hit: &Hit) {}

    fn count_chunk(&mut self, _topic: Option<&Topic>, _chunk: &ChunkMeta) -> bool {
        true
    }

    fn result(self, stats: Stats) -> Stats {
        stats
    }
}

/// Matching records over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// First millisecond of the first bucket.
    pub from_ms: u64,
    /// Last millisecond that was asked for.
    pub to_ms: u64,
    /// Width of a bucket, milliseconds, at least 1; the last bucket may reach beyond `to_ms`.
    pub interval_ms: u64,
    /// Matching records of each bucket.
    pub counts: Vec<u64>,
    /// What it cost and what is missing.
    pub stats: Stats,
}

impl Histogram {
    /// An empty one of `buckets` buckets, at least 1.
    pub(super) fn new(from_ms: u64, to_ms: u64, buckets: usize) -> Self {
        let buckets = buckets.max(1);
        let to_ms = to_ms.max(from_ms);
        let interval_ms = (to_ms - from_ms + 1).div_ceil(buckets as u64);
        Self { from_ms, to_ms, interval_ms, counts: vec![0; buckets], stats: Stats::default() }
    }

    pub(super) const fn spans(&self) -> Spans {
        Spans { from_ms: self.from_ms, interval_ms: self.interval_ms }
    }

    pub(super) const fn bucket(&self, ms: u64) -> usize {
        self.spans().of(ms) as usize
    }
}

impl Tally for Histogram {
    type Result = Self;

    fn count(&mut self, _topic: &Topic, hit: &Hit) {
        // A run never spans milliseconds, so a hit has one.
        let bucket = self.bucket(hit.first.ms());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += u64::from(hit.count);
        }
    }

    fn count_chunk(&mut self, _topic: Option<&Topic>, chunk: &ChunkMeta) -> bool {
        let bucket = self.bucket(chunk.first.ms());
        if bucket != self.bucket(chunk.last.ms()) {
            return false;
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += u64::from(chunk.record_count);
        }
        true
    }

    fn result(mut self, stats: Stats) -> Self {
        self.stats = stats;
        self
    }
}

/// What is held of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub topic: Topic,
    /// Its records, each counted once.
    pub records: u64,
    /// Their text with LFs, bytes.
    pub bytes: u64,
    /// Millisecond of its first record.
    pub first_ms: u64,
    /// Millisecond of its last record.
    pub last_ms: u64,
}

/// What is held of every topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// By name.
    pub topics: Vec<TopicSummary>,
    /// What it cost and what is missing.
    pub stats: Stats,
}

/// Sums hits up by topic.
#[derive(Default)]
pub(super) struct TopicTally {
    topics: BTreeMap<Topic, TopicSummary>,
}

impl TopicTally {
    fn add(&mut self, topic: &Topic, records: u64, bytes: u64, (first_ms, last_ms): (u64, u64)) {
        if let Some(summary) = self.topics.get_mut(topic) {
            summary.records += records;
            summary.bytes += bytes;
            summary.first_ms = summary.first_ms.min(first_ms);
            summary.last_ms = summary.last_ms.max(last_ms);
        } else {
            let topic = topic.clone();
            let summary = TopicSummary { topic: topic.clone(), records, bytes, first_ms, last_ms };
            self.topics.insert(topic, summary);
        }
    }
}

impl Tally for TopicTally {
    type Result = Topics;

    fn count(&mut self, topic: &Topic, hit: &Hit) {
        let span = (hit.first.ms(), hit.last().ms());
        self.add(topic, u64::from(hit.count), u64::from(hit.end - hit.start), span);
    }

    fn count_chunk(&mut self, topic: Option<&Topic>, chunk: &ChunkMeta) -> bool {
        let Some(topic) = topic else { return false };
        let span = (chunk.first.ms(), chunk.last.ms());
        self.add(topic, u64::from(chunk.record_count), u64::from(chunk.text_len), span);
        true
    }

    fn result(self, stats: Stats) -> Topics {
        Topics { topics: self.topics.into_values().collect(), stats }
    }
}
