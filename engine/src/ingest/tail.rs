//! The tail file of a shard: young records in the page cache, where they survive a kill of the
//! process (not of the machine) at next to no disk write.
//!
//! Two slots, used in turn by the frames that a shard fills; a slot holds *tail chunks*: what each
//! flush added to the frame, in frame format without padding (`docs/format-ingest.md` §4).
//!
//! Invariants: a slot is reused only when the frame it backs is completely written (the log sees to
//! it); a slot's chunks count only as an unbroken sequence 0, 1, 2 … of one incarnation and frame,
//! with ULIDs that grow.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{FrameHeader, HEADER_BYTES};
use crate::limits::TAIL_SLOT_BYTES;
use crate::run_table::{Run, RunTable};
use crate::storage::{File, Open, Storage};

/// Slots of a tail file.
pub const SLOTS: usize = 2;
/// Length of a tail file, bytes.
pub const FILE_BYTES: u64 = (SLOTS * TAIL_SLOT_BYTES) as u64;

/// Name of a shard's tail file.
pub fn file_name(shard: usize) -> String {
    format!("shard-{shard}.tail")
}

/// Whether this is the name of a tail file.
pub fn is_file_name(name: &str) -> bool {
    let number = name.strip_prefix("shard-").and_then(|rest| rest.strip_suffix(".tail"));
    number.is_some_and(|n| n.parse::<usize>().is_ok_and(|i| file_name(i) == name))
}

/// Where slot `index` starts, bytes.
pub const fn slot_offset(index: usize) -> u64 {
    (index * TAIL_SLOT_BYTES) as u64
}

/// Makes the tail file of a shard, at its full length so that writing to it needs no space later,
/// and empties it. Only after recovery. An error: the shard has to do without; so it has when the
/// file still holds records that recovery could not save.
pub fn prepare(storage: &dyn Storage, directory: &Path, shard: usize) -> io::Result<PathBuf> {
    let path = directory.join(file_name(shard));
    let file = match storage.open(&path, Open::CreateNew) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => storage.open(&path, Open::Write)?,
        other => other?,
    };
    for slot in 0..SLOTS {
        // What cannot be read is not empty.
        if read_slot(&*file, slot)?.is_ok() {
            let what = format!("{} holds records that could not be saved", path.display());
            return Err(io::Error::other(what));
        }
    }
    file.allocate(FILE_BYTES)?;
    for slot in 0..SLOTS {
        file.write_all_at(&[0; HEADER_BYTES], slot_offset(slot))?;
    }
    Ok(path)
}

/// What a chunk backs and carries.
pub(super) struct ChunkPlace {
    pub(super) incarnation: u64,
    pub(super) frame_number: u32,
    pub(super) chunk_number: u32,
}

/// Encodes the chunk of some records of a frame.
pub(super) fn encode_chunk(place: &ChunkPlace, table: &RunTable, text: &[u8]) -> Vec<u8> {
    let mut table_bytes = Vec::new();
    table.encode(&mut table_bytes);
    let (first, last) = table.range().unwrap_or_default();
    let len = HEADER_BYTES + text.len() + table_bytes.len();
    let header = FrameHeader {
        incarnation: place.incarnation,
        number: place.frame_number,
        chunk: Some(place.chunk_number),
        is_last: false,
        text_len: text.len() as u32,
        table_len: table_bytes.len() as u32,
        record_count: table.record_count() as u32,
        len_bytes: len as u32,
        first,
        last,
        text_crc: crc32fast::hash(text),
        table_crc: crc32fast::hash(&table_bytes),
    };
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(text);
    out.extend_from_slice(&table_bytes);
    out
}

/// How much of a frame's runs a tail file holds already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Runs that were begun.
    runs: usize,
    /// Records and text of the last of them, which may have grown since.
    count: u32,
    run_text_len: u32,
    /// Text in all, bytes.
    pub(super) text_len: usize,
}

impl Mark {
    /// Everything that the table holds now.
    pub(super) fn of(table: &RunTable, text_len: usize) -> Self {
        let last = table.runs.last();
        Self {
            runs: table.runs.len(),
            count: last.map_or(0, |r| r.count),
            run_text_len: last.map_or(0, |r| r.text_len),
            text_len,
        }
    }

    /// The runs behind the mark, with a dictionary of their own.
    pub(super) fn rest_of(&self, table: &RunTable) -> RunTable {
        let mut rest = RunTable::default();
        let grown = self.runs.checked_sub(1).map(|i| {
            let run = table.runs[i];
            Run {
                first: run.first.plus(u64::from(self.count)),
                count: run.count - self.count,
                text_len: run.text_len - self.run_text_len,
                topic: run.topic,
            }
        });
        let new = table.runs[self.runs..].iter().copied();
        for mut run in grown.filter(|r| r.count > 0).into_iter().chain(new) {
            let topic = &table.topics[usize::from(run.topic)];
            run.topic = rest.topic_index(topic).expect("a frame's dictionary fits a chunk's");
            rest.push(run);
        }
        rest
    }
}

/// What a slot holds of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotContent {
    pub(super) incarnation: u64,
    pub(super) frame_number: u32,
    pub(super) table: RunTable,
    pub(super) text: Vec<u8>,
}

/// Why a slot holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// It was never used, or cleared.
    Empty,
    /// Its first chunk cannot be read.
    Unreadable,
}

/// Reads a slot; a file that is shorter has fewer bytes in it.
pub(super) fn read_slot(
    file: &dyn File,
    slot: usize,
) -> io::Result<Result<SlotContent, SlotState>> {
    let len = file.len()?.saturating_sub(slot_offset(slot)).min(TAIL_SLOT_BYTES as u64);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, slot_offset(slot))?;
    Ok(decode_slot(&bytes))
}

/// Reads the chunks of a slot up to the first that does not belong.
pub(super) fn decode_slot(bytes: &[u8]) -> Result<SlotContent, SlotState> {
    let mut content: Option<SlotContent> = None;
    let mut rest = bytes;
    let mut next_chunk = 0;
    while let Some((header, table, text)) = decode_chunk(rest) {
        if header.chunk != Some(next_chunk) {
            break;
        }
        match &mut content {
            None => {
                content = Some(SlotContent {
                    incarnation: header.incarnation,
                    frame_number: header.number,
                    table,
                    text: text.to_vec(),
                });
            }
            Some(before) if before.continues_with(&header) => {
                if !before.append(&table, text) {
                    break;
                }
            }
            Some(_) => break,
        }
        next_chunk += 1;
        rest = &rest[header.len_bytes as usize..];
    }
    content.ok_or_else(|| {
        let start = &bytes[..bytes.len().min(HEADER_BYTES)];
        if start.iter().all(|&b| b == 0) { SlotState::Empty } else { SlotState::Unreadable }
    })
}

fn decode_chunk(bytes: &[u8]) -> Option<(FrameHeader, RunTable, &[u8])> {
    let header = FrameHeader::decode(bytes).ok()?;
    if header.chunk.is_none() || header.record_count == 0 {
        return None;
    }
    let table = header.check_payload(bytes).ok()?;
    Some((header, table, bytes.get(header.text_span())?))
}

impl SlotContent {
    fn continues_with(&self, header: &FrameHeader) -> bool {
        self.incarnation == header.incarnation
            && self.frame_number == header.number
            && self.table.range().is_some_and(|(_, last)| last < header.first)
    }

    fn append(&mut self, table: &RunTable, text: &[u8]) -> bool {
        for run in &table.runs {
            let Some(topic) = self.table.topic_index(&table.topics[usize::from(run.topic)]) else {
                return false;
            };
            self.table.push(Run { topic, ..*run });
        }
        self.text.extend_from_slice(text);
        true
    }
}
