//! What a slot of a tail file holds: records that can be read, and what is missing of them.
//!
//! A slot is written chunk by chunk, one write at a time, each with the end mark behind it. So bad bytes
//! with anything of the same frame behind them (a chunk, a header, an end mark that counts more chunks)
//! were whole once: they are damage. With nothing behind them they are the end of a write that a kill or
//! a power loss cut short, and nobody knows better: told once, as the torn last frame of a segment.
//!
//! Invariants: what is intact is found, whatever stands before it; what is missing is told; what an
//! earlier use of the slot left behind is neither. The work is linear in the bytes: nothing is searched
//! or checked twice.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use memchr::memmem;

use super::{END_BYTES, EndMark, slot_offset};
use crate::damage::DamageKind;
use crate::ingest::frame::{FrameHeader, HEADER_BYTES, MAGIC, NotAFrame};
use crate::ingest::torn::behind;
use crate::limits::{DICTIONARY_TOPICS_MAX, TAIL_SLOT_BYTES};
use crate::run_table::{Run, RunTable};
use crate::storage::File;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// What chunks and end marks begin with.
const PIECE_START: &[u8] = b"OK";

/// Records of one frame, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct SlotContent {
    pub(in crate::ingest) incarnation: u64,
    pub(in crate::ingest) frame_number: u32,
    pub(in crate::ingest) table: RunTable,
    pub(in crate::ingest) text: Vec<u8>,
}

/// The frame that a slot backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) struct BackedFrame {
    pub(in crate::ingest) incarnation: u64,
    pub(in crate::ingest) number: u32,
    /// The first and the last record that intact headers tell of.
    pub(in crate::ingest) range: (Ulid, Ulid),
}

/// Bytes of a slot that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct Bad {
    /// Where in the slot.
    pub(in crate::ingest) offset: usize,
    /// 0: nobody knows.
    pub(in crate::ingest) len: usize,
    /// What is missing lies between these two.
    pub(in crate::ingest) range: (Ulid, Ulid),
    pub(in crate::ingest) records: Option<u64>,
    pub(in crate::ingest) kind: DamageKind,
    /// Whether what is missing is of the frame that was found, as opposed to anybody's.
    pub(in crate::ingest) is_of_frame: bool,
}

/// See the module page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Slot {
    pub(in crate::ingest) frame: Option<BackedFrame>,
    /// What can be read.
    pub(in crate::ingest) content: Option<SlotContent>,
    /// Damage.
    pub(in crate::ingest) bad: Vec<Bad>,
    /// A bad end.
    pub(in crate::ingest) torn: Option<Bad>,
}

/// Reads a slot; a file that is shorter has fewer bytes in it.
pub(in crate::ingest) fn read_slot(file: &dyn File, slot: usize) -> io::Result<Slot> {
    let len = file.len()?.saturating_sub(slot_offset(slot)).min(TAIL_SLOT_BYTES as u64);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, slot_offset(slot))?;
    Ok(Slot::decode(&bytes))
}

impl Slot {
    /// Whether it was emptied, or never used, and says so.
    pub(in crate::ingest) const fn is_empty(&self) -> bool {
        self.content.is_none() && self.is_whole()
    }

    /// Whether nothing is missing of it.
    pub(in crate::ingest) const fn is_whole(&self) -> bool {
        self.bad.is_empty() && self.torn.is_none()
    }

    /// Without what is missing, or can be read, of a frame that is whole elsewhere.
    pub(in crate::ingest) fn without_frame(mut self) -> Self {
        self.bad.retain(|bad| !bad.is_of_frame);
        Self { bad: self.bad, ..Self::default() }
    }

    /// Reads the bytes of a slot; fewer than it has: its file was cut.
    pub(in crate::ingest) fn decode(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(TAIL_SLOT_BYTES)];
        if EndMark::decode(bytes) == Some(EndMark::EMPTY) {
            return Self::default();
        }
        if let Some(header) = chunk_at(bytes, 0) {
            return Reading::of(bytes, &header).read();
        }
        let lost = Bad {
            offset: 0,
            len: 0,
            range: (Ulid::MIN, Ulid::MAX),
            records: None,
            kind: kind_of_start(bytes),
            is_of_frame: false,
        };
        let Some(header) = newest_chunk(bytes) else {
            return Self { bad: vec![Bad { len: bytes.len(), ..lost }], ..Self::default() };
        };
        let mut slot = Reading::of(bytes, &header).read();
        // What stands there may have been of a younger frame than what is behind it.
        if let Some(start) = slot.bad.first_mut().filter(|bad| bad.offset == 0)
            && !(is_likely(bytes, &header) && is_before(bytes, start.range.1))
        {
            *start = Bad { len: start.len, ..lost };
        }
        slot
    }
}

fn kind_of_start(bytes: &[u8]) -> DamageKind {
    match FrameHeader::decode(bytes) {
        Err(NotAFrame::Version(version)) => DamageKind::Version(version),
        Err(NotAFrame::Truncated(_)) => DamageKind::Truncated("tail file"),
        Err(NotAFrame::Checksum(_)) => DamageKind::Checksum("tail chunk"),
        _ => DamageKind::Malformed("tail slot"),
    }
}

fn kind_of_chunk(error: NotAFrame) -> DamageKind {
    match error {
        NotAFrame::Truncated(_) => DamageKind::Truncated("tail file"),
        NotAFrame::Malformed(_) => DamageKind::Malformed("tail chunk"),
        _ => DamageKind::Checksum("tail chunk"),
    }
}

/// The header of a chunk that has its place there; of a file that was cut its end may be missing.
fn chunk_at(bytes: &[u8], at: usize) -> Option<FrameHeader> {
    let header = FrameHeader::decode(&bytes[at..]).ok()?;
    let end = at + header.len_bytes as usize + END_BYTES;
    (header.chunk.is_some() && header.record_count > 0 && end <= TAIL_SLOT_BYTES).then_some(header)
}

/// Whether bytes that are no header may have been one of the same frame. Those of another frame of its
/// segment differ in the number alone.
fn is_likely(bytes: &[u8], header: &FrameHeader) -> bool {
    let (incarnation, number) = (header.incarnation, header.number);
    FrameHeader::is_likely(bytes, incarnation, number)
        && bytes.get(16..20).is_some_and(|found| found == number.to_le_bytes())
}

/// Whether a header that is not whole tells of a last record that is before another one of its stream.
fn is_before(bytes: &[u8], after: Ulid) -> bool {
    let last = bytes.get(56..72).and_then(|last| last.first_chunk());
    let last = last.map(|last| Ulid::from_bytes(*last));
    last.is_some_and(|last| last <= after && last.stream() == after.stream())
}

/// Of the lives of a slot whose start is lost the youngest. What a whole chunk carries is text, and not
/// looked at.
fn newest_chunk(bytes: &[u8]) -> Option<FrameHeader> {
    let mut newest: Option<FrameHeader> = None;
    let mut from = 0;
    for at in memmem::find_iter(bytes, &MAGIC) {
        let Some(header) = chunk_at(bytes, at).filter(|_| at >= from) else { continue };
        from = at + header.len_bytes as usize;
        if newest.is_none_or(|newest| newest.last < header.last) {
            newest = Some(header);
        }
    }
    newest
}

/// Something of the frame that is read.
enum Piece {
    Chunk(FrameHeader),
    End(EndMark),
}

struct Reading<'a> {
    bytes: &'a [u8],
    incarnation: u64,
    frame_number: u32,
    /// One of its chunks.
    header: FrameHeader,
    /// Up to where it is read.
    at: usize,
    /// Of the chunk that comes next.
    chunk_number: u32,
    last: Option<Ulid>,
    /// A chunk whose header is intact, and the rest is not: what it is is known by what follows.
    unsure: Option<Bad>,
    /// Where each topic is in the dictionary of the content.
    topics: HashMap<Topic, u16>,
    slot: Slot,
}

impl<'a> Reading<'a> {
    fn of(bytes: &'a [u8], header: &FrameHeader) -> Self {
        Self {
            bytes,
            incarnation: header.incarnation,
            frame_number: header.number,
            header: *header,
            at: 0,
            chunk_number: 0,
            last: None,
            unsure: None,
            topics: HashMap::new(),
            slot: Slot::default(),
        }
    }

    fn read(mut self) -> Slot {
        while let Some((at, piece)) = self.find() {
            self.slot.bad.extend(self.unsure.take());
            let number = match &piece {
                Piece::Chunk(header) => header.chunk.unwrap_or_default(),
                Piece::End(end) => end.chunk_count,
            };
            if at > self.at || number > self.chunk_number {
                let gap = self.gap(at, &piece);
                self.slot.bad.push(gap);
            }
            match piece {
                Piece::Chunk(header) => self.take(at, number, &header),
                Piece::End(_) => return self.slot,
            }
        }
        self.end_badly();
        self.slot
    }

    /// The next piece of the frame.
    fn find(&self) -> Option<(usize, Piece)> {
        let starts = memmem::find_iter(&self.bytes[self.at..], PIECE_START);
        starts.map(|at| self.at + at).find_map(|at| Some((at, self.piece_at(at)?)))
    }

    fn piece_at(&self, at: usize) -> Option<Piece> {
        if let Some(end) = EndMark::decode(&self.bytes[at..]) {
            let is_ours = end.incarnation == self.incarnation
                && end.frame_number == self.frame_number
                && end.chunk_count >= self.chunk_number.max(1);
            return is_ours.then_some(Piece::End(end));
        }
        let header = chunk_at(self.bytes, at)?;
        let is_ours = header.incarnation == self.incarnation
            && header.number == self.frame_number
            && header.chunk >= Some(self.chunk_number)
            && self.last.is_none_or(|last| last < header.first);
        is_ours.then_some(Piece::Chunk(header))
    }

    /// What is missing between what was read and a piece. Records of a stream are numbered without
    /// gaps.
    fn gap(&self, at: usize, piece: &Piece) -> Bad {
        let from = self.last.map_or(Ulid::MIN, behind);
        let (to, records) = match (piece, self.last) {
            (Piece::Chunk(header), last) => {
                let (first, to) = (header.first, Ulid(header.first.0.saturating_sub(1)));
                let same = last.filter(|last| last.stream() == first.stream());
                (to, same.map(|l| first.counter().saturating_sub(l.counter().saturating_add(1))))
            }
            (Piece::End(_), _) => (Ulid::MAX, None),
        };
        Bad {
            offset: self.at,
            len: at - self.at,
            range: (from, to),
            records,
            kind: DamageKind::Checksum("tail chunk"),
            is_of_frame: true,
        }
    }

    fn take(&mut self, at: usize, number: u32, header: &FrameHeader) {
        let taken = match header.check_payload(&self.bytes[at..]) {
            Ok(table) => self.append(&table, at + HEADER_BYTES..at + header.text_span().end),
            Err(error) => Err(kind_of_chunk(error)),
        };
        self.unsure = taken.err().map(|kind| Bad {
            offset: at,
            len: header.len_bytes as usize,
            range: (header.first, header.last),
            records: Some(u64::from(header.record_count)),
            kind,
            is_of_frame: true,
        });
        let first = self.slot.frame.map_or(header.first, |frame| frame.range.0);
        self.slot.frame = Some(BackedFrame {
            incarnation: self.incarnation,
            number: self.frame_number,
            range: (first, header.last),
        });
        self.last = Some(header.last);
        self.at = (at + header.len_bytes as usize).min(self.bytes.len());
        self.chunk_number = number.saturating_add(1);
    }

    fn append(&mut self, table: &RunTable, text: Range<usize>) -> Result<(), DamageKind> {
        let text = &self.bytes[text];
        let new = table.topics.iter().filter(|topic| !self.topics.contains_key(topic)).count();
        let has_room = self.topics.len() + new <= DICTIONARY_TOPICS_MAX;
        if !has_room || !table.describes(text) {
            return Err(DamageKind::Malformed("tail chunk"));
        }
        let content = self.slot.content.get_or_insert_with(|| SlotContent {
            incarnation: self.incarnation,
            frame_number: self.frame_number,
            table: RunTable::default(),
            text: Vec::new(),
        });
        for run in &table.runs {
            let topic = &table.topics[usize::from(run.topic)];
            let topics = &mut content.table.topics;
            let index = *self.topics.entry(topic.clone()).or_insert_with(|| {
                topics.push(topic.clone());
                (topics.len() - 1) as u16
            });
            content.table.push(Run { topic: index, ..*run });
        }
        content.text.extend_from_slice(text);
        Ok(())
    }

    /// Nothing more of the frame was found, and no end of it.
    fn end_badly(&mut self) {
        let rest = Bad {
            offset: self.at,
            len: 0,
            range: (self.last.map_or(Ulid::MIN, behind), Ulid::MAX),
            records: None,
            kind: DamageKind::Truncated("tail file"),
            is_of_frame: true,
        };
        if self.bytes.len() < TAIL_SLOT_BYTES {
            self.slot.bad.extend(self.unsure.take());
            self.slot.bad.push(rest);
        } else {
            // A write that was cut short has no other behind it.
            let next = &self.bytes[self.at..];
            let number = self.chunk_number.to_le_bytes();
            let goes_on = is_likely(next, &self.header) && next.get(20..24) == Some(&number[..]);
            if goes_on {
                self.slot.bad.extend(self.unsure.take());
            }
            let torn = self.unsure.take().unwrap_or(rest);
            self.slot.torn = Some(Bad { kind: DamageKind::Unfinished, ..torn });
        }
    }
}
