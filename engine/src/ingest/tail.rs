//! The tail file of a shard: young records in the page cache, where they survive a kill of the
//! process (not of the machine) at next to no disk write.
//!
//! Two slots, used in turn by the frames that a shard fills; a slot holds *tail chunks*: what each
//! flush added to the frame, in frame format without padding, and an *end mark* behind the last of them
//! (`docs/format-ingest.md` §4). `slot` reads what that became.
//!
//! Invariants: a slot is reused only when the frame it backs is completely written (the log sees to
//! it); under its own name a tail file has its full length and says of each slot where it ends, so
//! that zeros and a file that was cut are never taken for an empty one.

pub(in crate::ingest) mod slot;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{FrameHeader, HEADER_BYTES};
use crate::damage::{Damage, DamageKind};
use crate::limits::TAIL_SLOT_BYTES;
use crate::run_table::{Run, RunTable};
use crate::storage::{File, Open, Storage};
use crate::ulid::Ulid;

pub(in crate::ingest) use slot::{Slot, SlotContent, read_slot};

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

/// Name of a shard's tail file while it is made: under its own it is never unfinished.
fn new_file_name(shard: usize) -> String {
    format!("shard-{shard}.tail.new")
}

/// Whether this is the name of a tail file that was not finished: it holds nothing.
pub fn is_new_file_name(name: &str) -> bool {
    name.strip_suffix(".new").is_some_and(is_file_name)
}

/// Name of a tail file that is put aside because it is damaged: nothing in it is newer than `id`.
pub(super) fn aside_file_name(name: &str, id: Ulid) -> String {
    format!("{name}.{id}.damaged")
}

/// The id in the name of a tail file that was put aside.
pub fn parse_aside_file_name(name: &str) -> Option<Ulid> {
    let (tail, id) = name.strip_suffix(".damaged")?.rsplit_once('.')?;
    let id: Ulid = id.parse().ok()?;
    (is_file_name(tail) && aside_file_name(tail, id) == name).then_some(id)
}

/// Sees to it that a shard has a tail file, at its full length so that writing to it needs no space
/// later, and empty. Only after recovery, which empties what is there. An error: the shard has to do
/// without; so it has when the file still holds records that recovery could not save. The name of one
/// that was made is not durable yet.
pub fn prepare(storage: &dyn Storage, directory: &Path, shard: usize) -> io::Result<PathBuf> {
    let path = directory.join(file_name(shard));
    match storage.open(&path, Open::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(storage, directory, shard, &path)?,
        Err(error) => return Err(error),
        Ok(file) => {
            let is_empty = |slot| Ok::<_, io::Error>(read_slot(&*file, slot)?.is_empty());
            // What cannot be read is not empty.
            for slot in 0..SLOTS {
                if !is_empty(slot)? {
                    let what = format!("{} holds records that could not be saved", path.display());
                    return Err(io::Error::other(what));
                }
            }
            file.allocate(FILE_BYTES)?;
        }
    }
    Ok(path)
}

fn make(storage: &dyn Storage, directory: &Path, shard: usize, path: &Path) -> io::Result<()> {
    let new = directory.join(new_file_name(shard));
    match storage.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = storage.open(&new, Open::CreateNew).and_then(|file| {
        file.allocate(FILE_BYTES)?;
        empty(&*file)
    });
    made.and_then(|()| storage.rename_new(&new, path)).inspect_err(|_| {
        // Best effort: the next start removes it.
        let _ = storage.remove(&new);
    })
}

/// Makes the slots empty, durably: a loss of power does not bring back what was there before.
pub(super) fn empty(file: &dyn File) -> io::Result<()> {
    match file.len()? {
        ..FILE_BYTES => file.allocate(FILE_BYTES)?,
        FILE_BYTES => {}
        // What is behind was told, and is nobody's.
        _ => file.set_len(FILE_BYTES)?,
    }
    for slot in 0..SLOTS {
        file.write_all_at(&EndMark::EMPTY.encode(), slot_offset(slot))?;
    }
    file.sync()
}

/// What is wrong with a tail file whose slots are whole: it is longer or shorter than one should be.
pub(super) fn odd_length(path: &Path, file: &dyn File) -> io::Result<Option<Damage>> {
    let len = file.len()?;
    Ok((len != FILE_BYTES).then(|| Damage {
        path: path.to_path_buf(),
        offset: len.min(FILE_BYTES),
        len_bytes: len.abs_diff(FILE_BYTES),
        range: None,
        records: Some(0),
        kind: DamageKind::Dispensable("end of the tail file"),
    }))
}

/// Bytes of an end mark.
pub const END_BYTES: usize = 24;
/// First bytes of an end mark, its version among them.
const END_MAGIC: [u8; 4] = *b"OKE1";

/// What stands behind the last chunk of a slot, or at the start of one that is empty. It goes out with
/// the chunk before it, and the next one is written over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndMark {
    pub(super) incarnation: u64,
    pub(super) frame_number: u32,
    /// How many chunks of that frame are before it.
    pub(super) chunk_count: u32,
}

impl EndMark {
    /// That of an empty slot.
    pub(super) const EMPTY: Self = Self { incarnation: 0, frame_number: 0, chunk_count: 0 };

    pub(super) fn encode(self) -> [u8; END_BYTES] {
        let mut out = [0; END_BYTES];
        out[..4].copy_from_slice(&END_MAGIC);
        out[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        out[16..20].copy_from_slice(&self.frame_number.to_le_bytes());
        out[20..].copy_from_slice(&self.chunk_count.to_le_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The one at the start of `bytes`, if that is whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; END_BYTES] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let found = Self {
            incarnation: u64::from_le_bytes(std::array::from_fn(|i| bytes[8 + i])),
            frame_number: u32_at(16),
            chunk_count: u32_at(20),
        };
        (found.encode() == *bytes).then_some(found)
    }
}

/// What a chunk backs and carries.
pub(super) struct ChunkPlace {
    pub(super) incarnation: u64,
    pub(super) frame_number: u32,
    pub(super) chunk_number: u32,
}

/// Encodes the chunk of some records of a frame, without the end mark that goes out with it.
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
