//! Scans one chunk: which of its records match. Runs on scan threads, without a lock, and is a
//! pure function of the chunk and the spec.
//!
//! Invariants: hits are in ULID order and at most `hits_max`; where there would be more, `rest`
//! says where to go on; a hit of a chunk whose text is going to be shown is returned only after
//! the chunk's checksum was verified; time and topics are settled on run tables before any text is
//! looked at.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::chain::{Chain, ChainMatcher};
use super::consumer::Telling;
use super::context::Selection;
use super::pinned::PinnedPart;
use super::spec::Order;
use crate::chunk::{Chunk, OpenPart, Text};
use crate::damage::{Damage, DamageKind};
use crate::entries::{CountedEntries, EntriesWanted, EntryRow};
use crate::run_table::{Run, RunTable, offset_after};
use crate::storage::Refusal;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// How often a chunk is read at most while the map underneath turns out faulty.
pub(super) const READS_MAX: u8 = 3;

/// What all scans of a query have in common.
#[derive(Debug)]
pub(super) struct ScanSpec {
    pub(super) chain: Chain,
    /// Sorted.
    pub(super) topics: Vec<Topic>,
    pub(super) order: Order,
    /// Only counts are wanted: with a chain that matches all, run tables tell them.
    pub(super) counts_only: bool,
    /// Of what matches, only these records are wanted.
    pub(super) only: Option<Arc<Selection>>,
    /// What matches are entries of these.
    pub(super) entries: Option<EntriesWanted>,
    /// When what is told of entries is enough for this query.
    pub(super) telling: Telling,
}

impl ScanSpec {
    /// Whether no text has to be looked at.
    pub(super) fn tables_suffice(&self) -> bool {
        self.counts_only && self.chain.matches_all()
    }

    pub(super) fn wants_entries(&self, row: &EntryRow<'_>) -> bool {
        self.wants(row.topic)
            && self.entries.as_ref().is_none_or(|wanted| wanted.admits(row.level, row.service))
    }

    pub(super) fn wants(&self, topic: &Topic) -> bool {
        self.topics.is_empty() || self.topics.binary_search(topic).is_ok()
    }
}

/// Matching records that follow each other in one run: their ULIDs count up, their text is one
/// span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) first: Ulid,
    pub(super) count: u32,
    /// Where their text starts and ends in the chunk's text, bytes.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Index into the chunk's topics.
    pub(super) topic: u16,
}

impl Hit {
    pub(super) const fn last(&self) -> Ulid {
        self.first.plus(self.count as u64 - 1)
    }

    pub(super) const fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Takes the first `records` off, which are `bytes` long.
    pub(super) const fn cut_front(&mut self, records: u32, bytes: u32) {
        self.first = self.first.plus(records as u64);
        self.count -= records;
        self.start += bytes;
    }
}

/// One scan.
pub(super) struct Scan {
    pub(super) part: Arc<PinnedPart>,
    pub(super) index: usize,
    /// Chunks of the part that are wanted soon.
    pub(super) ahead: Range<usize>,
    /// Records outside these two are not wanted.
    pub(super) low: Ulid,
    pub(super) high: Ulid,
    pub(super) hits_max: usize,
    /// Its entries may be counted by what is told of them: all of it is asked for, and nothing overlaps it.
    pub(super) may_be_told: bool,
    /// What an earlier scan has read and verified.
    pub(super) known: Option<Known>,
}

/// What a scan found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) hits: VecDeque<Hit>,
    pub(super) topics: Vec<Topic>,
    /// Absent where only counts are wanted.
    pub(super) text: Option<Text>,
    pub(super) rest: Option<Rest>,
    pub(super) cost: Cost,
    /// In place of all that: what is told of its entries.
    pub(super) told: Option<Vec<CountedEntries>>,
}

/// What a scan cost, bytes of text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) scanned: u64,
    pub(super) decoded: u64,
}

/// Where the next scan of the same chunk goes on.
pub(super) struct Rest {
    pub(super) low: Ulid,
    pub(super) high: Ulid,
    /// What was read, if it is still held; else it is read and verified again.
    pub(super) known: Option<Known>,
}

/// A chunk that was read; without its text where only counts are wanted.
pub(super) struct Known {
    table: RunTable,
    text: Option<Text>,
}

impl Known {
    /// What it keeps in memory, bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, decoded_bytes);
        text + self.table.runs.capacity() * size_of::<Run>()
    }
}

/// What a text keeps in memory, bytes: nothing where it lies in a map or in a shard's memory.
pub(super) fn decoded_bytes(text: &Text) -> usize {
    match text {
        Text::Mapped(..) | Text::Shared(..) => 0,
        Text::Owned(_) | Text::Decoded(_) => text.memory_bytes(),
    }
}

impl Scan {
    /// Scans; an error costs the whole chunk.
    pub(super) fn run(mut self, spec: &ScanSpec) -> Result<Found, Damage> {
        if let Some(told) = self.told(spec) {
            return Ok(Found { told: Some(told), ..Found::default() });
        }
        for index in self.ahead.clone().filter(|&index| self.part.is_candidate(index)) {
            self.part.will_read(index);
        }
        let verified = self.known.is_some();
        let mut known = match self.known.take() {
            Some(known) => known,
            None => self.read(spec)?,
        };
        let decoded = |known: &Known| {
            let text = known.text.as_ref().filter(|text| matches!(text, Text::Decoded(_)));
            text.map_or(0, |text| text.len() as u64)
        };
        let mut cost = Cost { decoded: if verified { 0 } else { decoded(&known) }, scanned: 0 };
        for _ in 0..READS_MAX {
            let mut collector = Collector::new(self.hits_max, spec.order);
            cost.scanned += self.collect(&known, spec, &mut collector)?;
            let Some(text) = &known.text else {
                return Ok(self.found(collector, known, spec, Cost::default()));
            };
            // Zeros may have been searched in place of text.
            if let Some(fresh) = reread_if_poisoned(&**self.part, self.index, text)? {
                known = Known { table: fresh.table, text: Some(fresh.text) };
                cost.decoded += decoded(&known);
                continue;
            }
            if !collector.hits.is_empty() && !verified {
                self.verify(&known.table, text)?;
            }
            return Ok(self.found(collector, known, spec, cost));
        }
        Err(unreadable(&**self.part, self.index))
    }

    /// Its entries, where they need not be read to be counted.
    fn told(&self, spec: &ScanSpec) -> Option<Vec<CountedEntries>> {
        if !self.may_be_told || self.part.is_bad(self.index) {
            return None;
        }
        let chunk = &self.part.chunks()[self.index];
        let needs_all = match spec.telling {
            Telling::Spans(spans) if spans.of(chunk.first.ms()) != spans.of(chunk.last.ms()) => {
                return None;
            }
            Telling::Spans(_) => true,
            Telling::Nothing | Telling::Entries => false,
        };
        let mut told = None;
        self.part.entries(self.index..self.index + 1, &mut |_, rows| {
            let entries = rows.iter().map(|row| row.count.entries).sum::<u64>();
            if needs_all && entries != u64::from(chunk.record_count) {
                return;
            }
            let wanted = rows.iter().filter(|row| spec.wants_entries(row));
            let counted = |row: &EntryRow<'_>| CountedEntries {
                service: row.service.into(),
                level: row.level,
                count: row.count,
            };
            told = Some(wanted.map(counted).collect());
        });
        told
    }

    /// Collects the hits of a chunk that was read; says how many bytes of text that took.
    fn collect(&self, known: &Known, spec: &ScanSpec, out: &mut Collector) -> Result<u64, Damage> {
        let pieces = self.pieces(&known.table, known.text.as_deref(), spec)?;
        if let Some(text) = known.text.as_ref().filter(|_| !spec.chain.matches_all()) {
            return Ok(search(text, &pieces, &spec.chain, out));
        }
        let mut bytes = 0;
        for piece in pieces {
            if !out.add(piece) {
                break;
            }
            bytes += u64::from(piece.end - piece.start);
        }
        Ok(bytes)
    }

    fn found(&self, collector: Collector, known: Known, spec: &ScanSpec, cost: Cost) -> Found {
        let Collector { hits, more, .. } = collector;
        let (Some(first), Some(last)) = (hits.front(), hits.back()) else {
            return Found { cost, ..Found::default() };
        };
        let (low, high) = match spec.order {
            Order::Asc => (Ulid(last.last().0.saturating_add(1)), self.high),
            Order::Desc => (self.low, Ulid(first.first.0.saturating_sub(1))),
        };
        let topics = known.table.topics.clone();
        let text = known.text.clone().filter(|_| !spec.counts_only);
        let rest = more.then_some(Rest { low, high, known: Some(known) });
        Found { hits, topics, text, rest, cost, told: None }
    }

    /// Checks that the text is what was written and has the lines that the table claims.
    fn verify(&self, table: &RunTable, text: &[u8]) -> Result<(), Damage> {
        self.part.verify(self.index)?;
        let lines = memchr::memchr_iter(b'\n', text).count() as u64;
        if lines == table.record_count() {
            Ok(())
        } else {
            Err(malformed(&**self.part, self.index))
        }
    }

    /// The table, and the text unless the table alone answers.
    fn read(&self, spec: &ScanSpec) -> Result<Known, Damage> {
        if spec.tables_suffice() && !self.part.is_bad(self.index) {
            let table = self.part.read_table(self.index)?;
            let cut = |first: Ulid, last: Ulid| {
                (first < self.low && last >= self.low) || (last > self.high && first <= self.high)
            };
            if !table.runs.iter().any(|run| cut(run.first, run.last())) {
                return Ok(Known { table, text: None });
            }
        }
        let chunk = self.part.read(self.index)?;
        Ok(Known { table: chunk.table, text: Some(chunk.text) })
    }

    /// Runs that time and topics admit, cut to the bounds; in order of ULID and of text.
    fn pieces(
        &self,
        table: &RunTable,
        text: Option<&[u8]>,
        spec: &ScanSpec,
    ) -> Result<Vec<Hit>, Damage> {
        let wanted: Vec<bool> = table.topics.iter().map(|topic| spec.wants(topic)).collect();
        let mut pieces = Vec::new();
        for (run, span) in table.spans() {
            if run.last() < self.low || !wanted.get(usize::from(run.topic)).is_some_and(|&w| w) {
                continue;
            }
            if run.first > self.high {
                break;
            }
            let mut piece = Hit {
                first: run.first,
                count: run.count,
                start: span.start as u32,
                end: span.end as u32,
                topic: run.topic,
            };
            let keep_to = run.last().min(self.high);
            let skip = self.low.0.saturating_sub(run.first.0) as u32;
            if skip > 0 || keep_to < run.last() {
                let text = text.and_then(|text| text.get(span)).unwrap_or_default();
                let count = (keep_to.0 - run.first.0 + 1) as u32 - skip;
                piece = cut(piece, text, skip, count)
                    .ok_or_else(|| malformed(&**self.part, self.index))?;
            }
            let Some(only) = &spec.only else {
                pieces.push(piece);
                continue;
            };
            for chosen in only.within(piece.first, piece.last()) {
                let skip = (chosen.first.0 - piece.first.0) as u32;
                let (hit, left) = split(piece, text.unwrap_or_default(), skip, chosen.count)
                    .ok_or_else(|| malformed(&**self.part, self.index))?;
                pieces.push(hit);
                let Some(left) = left else { break };
                piece = left;
            }
        }
        Ok(pieces)
    }
}

/// `count` records of a hit, behind the first `skip`, and what of it lies behind those; `text` is the
/// chunk's. `None` if the text has fewer lines.
fn split(hit: Hit, text: &[u8], skip: u32, count: u32) -> Option<(Hit, Option<Hit>)> {
    let chosen = cut(hit, text.get(hit.span())?, skip, count)?;
    let left = hit.count - skip - count;
    let rest =
        Hit { first: chosen.first.plus(u64::from(count)), count: left, start: chosen.end, ..hit };
    Some((chosen, (left > 0).then_some(rest)))
}

/// After `text` of a chunk was used: `None` if what was read of it is what was written; otherwise
/// the chunk read again, to be used in its place; an error if it cannot be.
///
/// The poison mark is on a whole map, whichever page is gone. Where the part has mapped its file
/// anew, the new map has to be read; where it has not, pages that are gone stay gone, so that the
/// checksum of the same map tells whether this chunk has lost any.
pub(super) fn reread_if_poisoned(
    part: &dyn OpenPart,
    index: usize,
    text: &Text,
) -> Result<Option<Chunk>, Damage> {
    if !text.is_poisoned() {
        return Ok(None);
    }
    let fresh = part.read(index)?;
    part.verify(index)?;
    match (text, &fresh.text) {
        (Text::Mapped(old, _), Text::Mapped(new, _)) if Arc::ptr_eq(old, new) => Ok(None),
        _ => Ok(Some(fresh)),
    }
}

/// The run table of a chunk and its text contradict each other.
pub(super) fn malformed(part: &dyn OpenPart, index: usize) -> Damage {
    damage(part, index, DamageKind::Malformed("run table"))
}

/// A chunk faults each time it is read.
pub(super) fn unreadable(part: &dyn OpenPart, index: usize) -> Damage {
    damage(part, index, DamageKind::Unread(Refusal::of_kind(std::io::ErrorKind::Other)))
}

fn damage(part: &dyn OpenPart, index: usize, kind: DamageKind) -> Damage {
    Damage {
        path: std::path::PathBuf::from(format!("chunk {index}")),
        offset: 0,
        len_bytes: 0,
        range: part.chunks().get(index).map(|meta| (meta.first, meta.last)),
        records: None,
        kind,
    }
}

/// `count` records of a hit, behind the first `skip`; `text` is the hit's own. `None` if the text
/// has fewer lines.
pub(super) fn cut(hit: Hit, text: &[u8], skip: u32, count: u32) -> Option<Hit> {
    let skip_bytes = offset_after(text, u64::from(skip))?;
    let len = if skip + count == hit.count {
        text.len() - skip_bytes
    } else {
        offset_after(&text[skip_bytes..], u64::from(count))?
    };
    let start = hit.start + skip_bytes as u32;
    Some(Hit {
        first: hit.first.plus(u64::from(skip)),
        count,
        start,
        end: start + len as u32,
        ..hit
    })
}

/// Takes hits in ULID order and keeps the `max` that come first in the query's order.
struct Collector {
    hits: VecDeque<Hit>,
    max: usize,
    order: Order,
    /// Whether hits were left out.
    more: bool,
}

impl Collector {
    fn new(max: usize, order: Order) -> Self {
        Self { hits: VecDeque::new(), max: max.max(1), order, more: false }
    }

    /// Whether further hits are of use.
    fn add(&mut self, hit: Hit) -> bool {
        if let Some(last) = self.hits.back_mut() {
            let follows = last.last().0 + 1 == hit.first.0 && last.end == hit.start;
            if follows && last.topic == hit.topic && last.first.ms() == hit.first.ms() {
                last.count += hit.count;
                last.end = hit.end;
                return true;
            }
        }
        if self.hits.len() >= self.max {
            self.more = true;
            if self.order == Order::Asc {
                return false;
            }
            self.hits.pop_front();
        }
        self.hits.push_back(hit);
        true
    }
}

/// Searches the text of the pieces, neighbouring ones as one buffer; says how many bytes.
fn search(text: &[u8], pieces: &[Hit], chain: &Chain, out: &mut Collector) -> u64 {
    let mut matcher = ChainMatcher::new(chain);
    let mut bytes_scanned = 0;
    let mut at = 0;
    while at < pieces.len() {
        let start = pieces[at].start as usize;
        let mut behind = at + 1;
        while behind < pieces.len() && pieces[behind].start == pieces[behind - 1].end {
            behind += 1;
        }
        let end = pieces[behind - 1].end as usize;
        let Some(buffer) = text.get(start..end) else { return bytes_scanned };
        let mut locator =
            Locator { text, pieces: &pieces[at..behind], counted_to: start, records: 0 };
        let mut stopped_at = None;
        matcher.each(buffer, |record| {
            match locator.locate(start + record.start..start + record.end) {
                None => stopped_at = Some(0),
                Some(hit) => stopped_at = (!out.add(hit)).then_some(record.end),
            }
            stopped_at.is_none()
        });
        if let Some(bytes) = stopped_at {
            return bytes_scanned + bytes as u64;
        }
        bytes_scanned += (end - start) as u64;
        at = behind;
    }
    bytes_scanned
}

/// Numbers records: counts line feeds from hit to hit, and only in pieces that have hits.
struct Locator<'a> {
    text: &'a [u8],
    /// The first one is where the last hit was.
    pieces: &'a [Hit],
    counted_to: usize,
    /// Records of the first piece before `counted_to`.
    records: u32,
}

impl Locator<'_> {
    /// The hit that is this record; records are asked for in order. `None` where the run table
    /// and the text contradict each other.
    fn locate(&mut self, record: Range<usize>) -> Option<Hit> {
        let mut piece = self.pieces.first()?;
        while piece.end as usize <= record.start {
            self.pieces = &self.pieces[1..];
            piece = self.pieces.first()?;
            self.counted_to = piece.start as usize;
            self.records = 0;
        }
        let between = self.text.get(self.counted_to..record.start)?;
        self.records += memchr::memchr_iter(b'\n', between).count() as u32;
        self.counted_to = record.start;
        (self.records < piece.count).then(|| Hit {
            first: piece.first.plus(u64::from(self.records)),
            count: 1,
            start: record.start as u32,
            end: record.end as u32,
            topic: piece.topic,
        })
    }
}
