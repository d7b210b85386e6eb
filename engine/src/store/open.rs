//! Finds the blocks of a store segment in its bytes, by the shortest way that is whole: footer →
//! slab index → blocks; without the footer by the slabs' trailers; without an index by the block
//! headers.
//!
//! Invariants: never panics, allocates no more than what it found; blocks come out in ULID order
//! without overlap and inside the file; what could not be found is told as [`Damage`], and only a
//! damage that may cost records says so; where the storage refused bytes, that is what is told, and a
//! shortage of the process tells nothing but itself. No text is read and no text checksum verified
//! here.

use std::ops::Range;
use std::path::Path;

use crate::chunk::TopicList;
use crate::damage::{Damage, DamageKind};
use crate::decoded::Decoders;
use crate::limits::BLOCK_ALIGNMENT;
use crate::run_table::RunTable;
use crate::signature::{Matrix, SIGNATURE_SCHEME};
use crate::storage::{Bytes, Refusal};
use crate::ulid::Ulid;

use super::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader};
use super::entry_table::EntryTable;
use super::footer::{Footer, SlabEntry, TAIL_LEN, Tail};
use super::index::{Block, SlabIndex};
use super::name::Name;
use super::slab::{
    SLAB_HEADER_LEN, SLAB_MAGIC, Section, SlabTrailer, TRAILER_LEN, TRAILER_MAGIC,
    decode_slab_header,
};

/// Reads that the storage may refuse while one segment is searched, a page each: a disk that fails
/// takes its time for each.
const REFUSALS_MAX: u32 = 64;
/// What is passed over where a read was refused, bytes: what the storage gives or refuses at a time.
const PAGE_BYTES: u64 = 4 << 10;

/// A slab that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSlab {
    /// Where it starts in the file, bytes.
    pub offset: u64,
    /// What its trailer or the footer says; `None` when both are gone.
    pub trailer: Option<SlabTrailer>,
    /// Its blocks and topics; topics are empty when the index was damaged.
    pub index: SlabIndex,
    /// Whether the index is whole.
    pub is_indexed: bool,
}

/// A segment's structure.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The footer, when it is whole.
    pub footer: Option<Footer>,
    /// Slabs in ULID order.
    pub slabs: Vec<FoundSlab>,
    /// What is damaged, as far as the structure shows it.
    pub damage: Vec<Damage>,
}

/// Reads footer and tail.
pub fn read_footer(bytes: &mut dyn Bytes) -> Result<Footer, DamageKind> {
    let len = bytes.len();
    let tail = bytes.read(len.saturating_sub(TAIL_LEN as u64)..len)?;
    let tail = tail.first_chunk::<TAIL_LEN>().ok_or(DamageKind::Truncated("footer tail"))?;
    let start = Tail::decode(tail, len)?.footer_offset();
    Footer::decode(bytes.read(start..len - TAIL_LEN as u64)?, start)
}

/// Finds all blocks of a segment. `path` names the file in damages, and its name tells what a
/// footer that is gone would have told: the last record. An error: the process ran short of
/// something, which says nothing of the file.
pub fn find(path: &Path, bytes: &mut dyn Bytes) -> Result<Found, Refusal> {
    let len = bytes.len();
    let (found, refused) = (Found::default(), Refused::default());
    let mut finder = Finder { path, bytes, len, found, refused };
    match read_footer(finder.bytes) {
        Ok(footer) => {
            for entry in &footer.slabs {
                finder.known_slab(entry);
            }
            finder.found.footer = Some(footer);
        }
        Err(kind) => {
            finder.refused.note_kind(&kind);
            finder.without_footer(kind);
        }
    }
    finder.refused.shortage.map_or(Ok(finder.found), Err)
}

/// Reads that were refused.
#[derive(Default)]
struct Refused {
    count: u32,
    /// The last one that is not told yet.
    untold: Option<Refusal>,
    /// One that says nothing of the file.
    shortage: Option<Refusal>,
}

impl Refused {
    fn note(&mut self, refusal: Refusal) {
        self.count += 1;
        self.untold = Some(refusal);
        if refusal.is_shortage() {
            self.shortage = Some(refusal);
        }
    }

    fn note_kind(&mut self, kind: &DamageKind) {
        if let DamageKind::Unread(refusal) = kind {
            self.note(*refusal);
        }
    }

    /// Whether nothing more is to be asked of the storage.
    const fn is_enough(&self) -> bool {
        self.shortage.is_some() || self.count >= REFUSALS_MAX
    }
}

struct Finder<'a> {
    path: &'a Path,
    bytes: &'a mut dyn Bytes,
    len: u64,
    found: Found,
    refused: Refused,
}

impl Finder<'_> {
    fn tell(
        &mut self,
        span: Range<u64>,
        kind: DamageKind,
        lost: (Option<u64>, Option<(Ulid, Ulid)>),
    ) {
        // What was not found where a read was refused may be whole.
        let kind = match (self.refused.untold.take(), kind) {
            (Some(refusal), DamageKind::Repairable(_)) => DamageKind::Bypassed(refusal),
            (Some(refusal), _) => DamageKind::Unread(refusal),
            (None, kind) => kind,
        };
        let (records, range) = lost;
        let (offset, len_bytes) = (span.start, span.end - span.start);
        let path = self.path.to_owned();
        self.found.damage.push(Damage { path, offset, len_bytes, range, records, kind });
    }

    fn last(&self) -> Option<Ulid> {
        Some(self.found.slabs.last()?.index.blocks.last()?.header.last)
    }

    /// Takes a slab that comes after those before it.
    fn push(&mut self, slab: FoundSlab) {
        let Some(first) = slab.index.blocks.first().map(|b| b.header.first) else { return };
        if self.last().is_none_or(|last| last < first) {
            self.found.slabs.push(slab);
        } else {
            let span = slab.offset..slab.offset + slab.trailer.map_or(0, |t| t.len);
            self.tell(span, DamageKind::Malformed("order of slabs"), (None, None));
        }
    }

    /// A slab whose trailer is known to be whole and inside the file.
    fn known_slab(&mut self, entry: &SlabEntry) {
        let (start, trailer) = (entry.offset, entry.trailer);
        let known = |index, is_indexed| FoundSlab {
            offset: start,
            trailer: Some(trailer),
            index,
            is_indexed,
        };
        let kind = match read_index(self.bytes, start, &trailer) {
            Ok(index) => return self.push(known(index, true)),
            Err(kind) => kind,
        };
        self.refused.note_kind(&kind);
        let ids = SlabIds { id: Some(trailer.slab_id), after: self.last() };
        let blocks = self.walk(start, SLAB_HEADER_LEN as u64..trailer.index.offset, &ids).blocks;
        let kept: u64 = blocks.iter().map(|b| u64::from(b.header.record_count)).sum();
        let span = start + trailer.index.offset..start + trailer.index.offset + trailer.index.len;
        let range = Some((trailer.first, trailer.last));
        match trailer.record_count.saturating_sub(kept) {
            0 => self.tell(span, DamageKind::Repairable("block index"), (Some(0), None)),
            lost => self.tell(span, kind, (Some(lost), range)),
        }
        self.push(known(SlabIndex { blocks, topics: Vec::new() }, false));
    }

    fn without_footer(&mut self, kind: DamageKind) {
        let end = self.len;
        let least = (SLAB_HEADER_LEN + BLOCK_HEADER_LEN) as u64;
        let mut at = 0;
        let mut complete = true;
        while at + least <= end && !self.refused.is_enough() {
            let Some(id) = self.slab_id_at(at) else {
                let Some(next) = self.next_slab(at + BLOCK_ALIGNMENT as u64) else { break };
                complete = false;
                self.tell(at..next, DamageKind::Malformed("slab header"), (None, None));
                at = next;
                continue;
            };
            let ids = SlabIds { id: Some(id), after: self.last() };
            let walk = self.walk(at, SLAB_HEADER_LEN as u64..end - at, &ids);
            if let Some(trailer) = walk.trailer {
                self.known_slab(&SlabEntry { offset: at, trailer });
                at += trailer.len;
                continue;
            }
            let numbers_fit =
                walk.blocks.iter().enumerate().all(|(i, b)| b.header.number as usize == i);
            let last_end = walk.blocks.last().map_or(at, |b| at + b.offset + b.header.stored_len());
            let index = SlabIndex { blocks: walk.blocks, topics: Vec::new() };
            self.push(FoundSlab { offset: at, trailer: None, index, is_indexed: false });
            let next =
                if walk.ends_inside_block { None } else { self.next_slab(last_end.max(at + 64)) };
            complete &= numbers_fit && next.is_none();
            if next.is_some() || !numbers_fit {
                // A cut inside the padding of the last block ends the file before the block does.
                let span = last_end.min(end)..next.unwrap_or(end);
                self.tell(span, DamageKind::Malformed("slab trailer"), (None, None));
            }
            let Some(next) = next else { break };
            at = next;
        }
        self.tell_footer(kind, complete && !self.refused.is_enough());
    }

    /// Says what the missing footer costs: nothing, if all up to the record that the file's name
    /// gives as its last was found.
    fn tell_footer(&mut self, kind: DamageKind, complete: bool) {
        let name = self.path.file_name().and_then(|n| n.to_str()).and_then(Name::parse);
        let last = self.last();
        let end = self.found.slabs.last().map_or(0, |slab| {
            let blocks_end =
                slab.index.blocks.last().map_or(0, |b| b.offset + b.header.stored_len());
            slab.offset + slab.trailer.map_or(blocks_end, |t| t.len)
        });
        let span = end..self.len.max(end);
        let lost = match name {
            Some(Name::Flushed { last: expected, .. }) if last == Some(expected) => {
                if complete {
                    return self.tell(span, DamageKind::Repairable("footer"), (Some(0), None));
                }
                None
            }
            Some(Name::Flushed { first, last: expected, .. }) => {
                Some((last.map_or(first, |last| Ulid(last.0.saturating_add(1))), expected))
            }
            _ => None,
        };
        self.tell(span, kind, (None, lost));
    }

    /// Some bytes; none where the storage refuses them.
    fn read(&mut self, offset: u64, len: usize) -> Option<&[u8]> {
        match self.bytes.read(offset..offset.saturating_add(len as u64)) {
            Ok(bytes) => Some(bytes),
            Err(refusal) => {
                self.refused.note(refusal);
                None
            }
        }
    }

    /// The id of the slab that starts at `at`, from its header or, where that is damaged, from
    /// its first block, which lies at a known distance.
    fn slab_id_at(&mut self, at: u64) -> Option<u64> {
        if let Some(id) = self.read(at, SLAB_HEADER_LEN).and_then(|b| decode_slab_header(b).ok()) {
            return Some(id);
        }
        let bytes = self.read(at + SLAB_HEADER_LEN as u64, BLOCK_HEADER_LEN)?;
        let block = BlockHeader::decode(bytes).ok()?;
        (block.number == 0).then_some(block.slab_id)
    }

    fn next_slab(&mut self, from: u64) -> Option<u64> {
        let mut at = from.next_multiple_of(BLOCK_ALIGNMENT as u64);
        while at < self.len && !self.refused.is_enough() {
            let Some(bytes) = self.read(at, SLAB_HEADER_LEN) else {
                at = page_after(at);
                continue;
            };
            if bytes.starts_with(&SLAB_MAGIC) && decode_slab_header(bytes).is_ok() {
                return Some(at);
            }
            at += BLOCK_ALIGNMENT as u64;
        }
        None
    }

    /// Walks the block headers of the slab that starts at `start`, over `span` of it, up to its
    /// trailer. After something that is neither, it goes on at the next multiple of the alignment.
    /// A header that names another slab, or a number that was passed, is text that looks like one.
    fn walk(&mut self, start: u64, span: Range<u64>, ids: &SlabIds) -> Walk {
        let mut walk = Walk::default();
        let (mut at, end) = (span.start, span.end.min(self.len.saturating_sub(start)));
        let mut last = ids.after;
        let mut number = 0;
        while at < end && !self.refused.is_enough() {
            // A trailer is the longer of the two; it is not read where a block may do.
            let room = usize::try_from(end - at).unwrap_or(usize::MAX);
            let Some(bytes) = self.read(start + at, room.min(BLOCK_HEADER_LEN)) else {
                at = page_after(start + at) - start;
                continue;
            };
            if bytes.starts_with(&BLOCK_MAGIC)
                && let Ok(header) = BlockHeader::decode(bytes)
                && ids.id == Some(header.slab_id)
                && header.number >= number
                && last.is_none_or(|last| last < header.first)
            {
                if header.used_len() > end - at {
                    walk.ends_inside_block = true;
                    return walk;
                }
                walk.blocks.push(Block { offset: at, header, topics: TopicList::default() });
                last = Some(header.last);
                number = header.number + 1;
                at += header.stored_len();
                continue;
            }
            if bytes.starts_with(&TRAILER_MAGIC)
                && let Some(bytes) = self.read(start + at, room.min(TRAILER_LEN))
                && let Ok(trailer) = SlabTrailer::decode(bytes)
                && ids.id == Some(trailer.slab_id)
                && trailer.len == at + TRAILER_LEN as u64
            {
                walk.trailer = Some(trailer);
                return walk;
            }
            at += BLOCK_ALIGNMENT as u64;
        }
        walk
    }
}

/// Where the page behind this place in the file starts.
const fn page_after(offset: u64) -> u64 {
    (offset / PAGE_BYTES + 1) * PAGE_BYTES
}

/// Verifies and reads the index of the slab that starts at `start`.
pub fn read_index(
    bytes: &mut dyn Bytes,
    start: u64,
    trailer: &SlabTrailer,
) -> Result<SlabIndex, DamageKind> {
    let from = start.saturating_add(trailer.index.offset);
    index_of(bytes.read(from..from.saturating_add(trailer.index.len))?, trailer)
}

/// Verifies and reads an index as it is stored.
fn index_of(bytes: &[u8], trailer: &SlabTrailer) -> Result<SlabIndex, DamageKind> {
    if bytes.len() as u64 != trailer.index.len {
        return Err(DamageKind::Truncated("block index"));
    }
    if crc32fast::hash(bytes) != trailer.index.crc {
        return Err(DamageKind::Checksum("block index"));
    }
    let index = SlabIndex::from_bytes(bytes, &trailer.index_bounds())?;
    let range = index.blocks.first().zip(index.blocks.last());
    if range.map(|(a, b)| (a.header.first, b.header.last)) != Some((trailer.first, trailer.last)) {
        return Err(DamageKind::Malformed("block index"));
    }
    Ok(index)
}

/// The signature matrix of a slab, from its section; `None` where it has none that this program can
/// read.
pub fn signatures_of<'a>(
    section: &'a [u8],
    trailer: &SlabTrailer,
) -> Result<Option<Matrix<'a>>, DamageKind> {
    if trailer.signatures.len == 0 || trailer.signature_scheme != SIGNATURE_SCHEME {
        return Ok(None);
    }
    if section.len() as u64 != trailer.signatures.len {
        return Err(DamageKind::Truncated("signature matrix"));
    }
    let (crc, rows) = (trailer.signatures.crc, trailer.signature_rows);
    Matrix::new(section, crc, rows, trailer.block_count).map(Some)
}

/// Verifies what lies behind the blocks of a slab, every byte that means something: index,
/// signatures, entry table, trailer. `bytes` are those from the index to the end.
pub(super) fn verify_sections(
    bytes: &[u8],
    trailer: &SlabTrailer,
) -> Result<SlabIndex, DamageKind> {
    let section = |section: Section| {
        let from = section.offset.checked_sub(trailer.index.offset)?;
        bytes.get(from as usize..from.checked_add(section.len)? as usize)
    };
    let index = section(trailer.index).ok_or(DamageKind::Truncated("block index"))?;
    let index = index_of(index, trailer)?;
    let signatures =
        section(trailer.signatures).ok_or(DamageKind::Truncated("signature matrix"))?;
    if let Some(matrix) = signatures_of(signatures, trailer)? {
        matrix.verify_all()?;
    }
    if trailer.entries.len > 0 {
        let entries = section(trailer.entries).ok_or(DamageKind::Truncated("entry table"))?;
        EntryTable::decode(entries, trailer.entries.crc, index.blocks.len())?
            .verify(&index.blocks)?;
    }
    let stored = bytes.last_chunk::<TRAILER_LEN>().map_or(&[][..], |stored| stored);
    if SlabTrailer::decode(stored)? != *trailer {
        return Err(DamageKind::Malformed("slab trailer"));
    }
    Ok(index)
}

/// Verifies a block as it is stored: header, table, text.
pub(super) fn verify_block(
    decoders: &Decoders,
    bytes: &[u8],
    header: &BlockHeader,
) -> Result<RunTable, DamageKind> {
    let bytes = bytes.get(..header.used_len() as usize).ok_or(DamageKind::Truncated("block"))?;
    if BlockHeader::decode(bytes)? != *header {
        return Err(DamageKind::Malformed("block header"));
    }
    let (table, text) = bytes[BLOCK_HEADER_LEN..].split_at(header.table_len as usize);
    header.check_text(text)?;
    header.decode_table(decoders, table)
}

struct SlabIds {
    /// Only what carries this id is believed.
    id: Option<u64>,
    /// Blocks must come after this record.
    after: Option<Ulid>,
}

#[derive(Default)]
struct Walk {
    blocks: Vec<Block>,
    trailer: Option<SlabTrailer>,
    /// The bytes end inside a block whose header is whole: nothing behind that header is a slab.
    ends_inside_block: bool,
}
