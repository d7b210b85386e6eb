//! Finds the blocks of a store segment in its bytes, by the shortest way that is whole: footer →
//! slab index → blocks; without the footer by the slabs' trailers; without an index by the block
//! headers.
//!
//! Invariants: never panics, allocates no more than what it found; blocks come out in ULID order
//! without overlap and inside the file; what could not be found is told as [`Damage`], and only a
//! damage that may cost records says so. No text is read and no text checksum verified here.

use std::ops::Range;
use std::path::Path;

use crate::chunk::TopicList;
use crate::damage::{Damage, DamageKind};
use crate::limits::BLOCK_ALIGNMENT;
use crate::signature::{Matrix, SIGNATURE_SCHEME};
use crate::ulid::Ulid;

use super::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader};
use super::footer::{Footer, SlabEntry, TAIL_LEN, Tail};
use super::index::{Block, SlabIndex};
use super::name::Name;
use super::slab::{
    SLAB_HEADER_LEN, SLAB_MAGIC, SlabTrailer, TRAILER_LEN, TRAILER_MAGIC, decode_slab_header,
};

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The footer, when it is whole.
    pub footer: Option<Footer>,
    /// Slabs in ULID order.
    pub slabs: Vec<FoundSlab>,
    /// What is damaged, as far as the structure shows it.
    pub damage: Vec<Damage>,
}

/// Reads footer and tail.
pub fn read_footer(bytes: &[u8]) -> Result<Footer, DamageKind> {
    let tail = bytes.last_chunk::<TAIL_LEN>().ok_or(DamageKind::Truncated("footer tail"))?;
    let tail = Tail::decode(tail, bytes.len() as u64)?;
    let start = tail.footer_offset();
    Footer::decode(&bytes[start as usize..bytes.len() - TAIL_LEN], start)
}

/// Finds all blocks of a segment. `path` names the file in damages, and its name tells what a
/// footer that is gone would have told: the last record.
pub fn find(path: &Path, bytes: &[u8]) -> Found {
    let mut finder = Finder { path, bytes, found: Found::default() };
    match read_footer(bytes) {
        Ok(footer) => {
            for entry in &footer.slabs {
                finder.known_slab(entry);
            }
            finder.found.footer = Some(footer);
        }
        Err(kind) => finder.without_footer(kind),
    }
    finder.found
}

struct Finder<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    found: Found,
}

impl Finder<'_> {
    fn tell(
        &mut self,
        span: Range<u64>,
        kind: DamageKind,
        lost: (Option<u64>, Option<(Ulid, Ulid)>),
    ) {
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
        let slab = &self.bytes[start as usize..(start + trailer.len) as usize];
        let known = |index, is_indexed| FoundSlab {
            offset: start,
            trailer: Some(trailer),
            index,
            is_indexed,
        };
        let kind = match read_index(slab, &trailer) {
            Ok(index) => return self.push(known(index, true)),
            Err(kind) => kind,
        };
        let ids = SlabIds { id: Some(trailer.slab_id), after: self.last() };
        let blocks = walk(slab, SLAB_HEADER_LEN..trailer.index.offset as usize, &ids).blocks;
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
        let end = self.bytes.len();
        let mut at = 0;
        let mut complete = true;
        while at + SLAB_HEADER_LEN + BLOCK_HEADER_LEN <= end {
            let Some(id) = self.slab_id_at(at) else {
                let Some(next) = self.next_slab(at + BLOCK_ALIGNMENT) else { break };
                complete = false;
                let lost = (None, None);
                self.tell(at as u64..next as u64, DamageKind::Malformed("slab header"), lost);
                at = next;
                continue;
            };
            let ids = SlabIds { id: Some(id), after: self.last() };
            let walk = walk(&self.bytes[at..], SLAB_HEADER_LEN..end - at, &ids);
            if let Some(trailer) = walk.trailer {
                self.known_slab(&SlabEntry { offset: at as u64, trailer });
                at += trailer.len as usize;
                continue;
            }
            let numbers_fit =
                walk.blocks.iter().enumerate().all(|(i, b)| b.header.number as usize == i);
            let last_end =
                walk.blocks.last().map_or(at, |b| at + (b.offset + b.header.stored_len()) as usize);
            let index = SlabIndex { blocks: walk.blocks, topics: Vec::new() };
            self.push(FoundSlab { offset: at as u64, trailer: None, index, is_indexed: false });
            let next =
                if walk.ends_inside_block { None } else { self.next_slab(last_end.max(at + 64)) };
            complete &= numbers_fit && next.is_none();
            if next.is_some() || !numbers_fit {
                // A cut inside the padding of the last block ends the file before the block does.
                let span = last_end.min(end) as u64..next.unwrap_or(end) as u64;
                self.tell(span, DamageKind::Malformed("slab trailer"), (None, None));
            }
            let Some(next) = next else { break };
            at = next;
        }
        self.tell_footer(kind, complete);
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
        let span = end..(self.bytes.len() as u64).max(end);
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

    /// The id of the slab that starts at `at`, from its header or, where that is damaged, from
    /// its first block, which lies at a known distance.
    fn slab_id_at(&self, at: usize) -> Option<u64> {
        decode_slab_header(&self.bytes[at..]).ok().or_else(|| {
            let block = BlockHeader::decode(self.bytes.get(at + SLAB_HEADER_LEN..)?).ok()?;
            (block.number == 0).then_some(block.slab_id)
        })
    }

    fn next_slab(&self, from: usize) -> Option<usize> {
        (from.next_multiple_of(BLOCK_ALIGNMENT)..self.bytes.len()).step_by(BLOCK_ALIGNMENT).find(
            |&at| {
                let bytes = &self.bytes[at..];
                bytes.starts_with(&SLAB_MAGIC) && decode_slab_header(bytes).is_ok()
            },
        )
    }
}

/// Verifies and reads a slab's index.
pub fn read_index(slab: &[u8], trailer: &SlabTrailer) -> Result<SlabIndex, DamageKind> {
    let section = trailer.index;
    let span = section.offset as usize..section.offset.saturating_add(section.len) as usize;
    let bytes = slab.get(span).ok_or(DamageKind::Truncated("block index"))?;
    if crc32fast::hash(bytes) != section.crc {
        return Err(DamageKind::Checksum("block index"));
    }
    let index = SlabIndex::from_bytes(bytes, &trailer.index_bounds())?;
    let range = index.blocks.first().zip(index.blocks.last());
    if range.map(|(a, b)| (a.header.first, b.header.last)) != Some((trailer.first, trailer.last)) {
        return Err(DamageKind::Malformed("block index"));
    }
    Ok(index)
}

/// The signature matrix of a slab; `None` where it has none that this program can read.
pub fn read_signatures<'a>(
    slab: &'a [u8],
    trailer: &SlabTrailer,
) -> Result<Option<Matrix<'a>>, DamageKind> {
    let section = trailer.signatures;
    if section.len == 0 || trailer.signature_scheme != SIGNATURE_SCHEME {
        return Ok(None);
    }
    let span = section.offset as usize..section.offset.saturating_add(section.len) as usize;
    let bytes = slab.get(span).ok_or(DamageKind::Truncated("signature matrix"))?;
    Matrix::new(bytes, section.crc, trailer.signature_rows, trailer.block_count).map(Some)
}

/// Verifies every byte of a slab that means something: header, index, block headers, tables,
/// text, signatures, trailer.
pub fn verify_slab(slab: &[u8], trailer: &SlabTrailer) -> Result<SlabIndex, DamageKind> {
    if decode_slab_header(slab)? != trailer.slab_id {
        return Err(DamageKind::Malformed("slab header"));
    }
    let at = (trailer.len as usize).saturating_sub(TRAILER_LEN);
    if SlabTrailer::decode(slab.get(at..).unwrap_or_default())? != *trailer {
        return Err(DamageKind::Malformed("slab trailer"));
    }
    let index = read_index(slab, trailer)?;
    for block in &index.blocks {
        verify_block(slab, block)?;
    }
    if let Some(matrix) = read_signatures(slab, trailer)? {
        matrix.verify_all()?;
    }
    Ok(index)
}

/// Verifies a block of a slab: header, table, text.
pub fn verify_block(slab: &[u8], block: &Block) -> Result<(), DamageKind> {
    let start = block.offset as usize;
    let bytes = slab
        .get(start..)
        .and_then(|bytes| bytes.get(..block.header.used_len() as usize))
        .ok_or(DamageKind::Truncated("block"))?;
    if BlockHeader::decode(bytes)? != block.header {
        return Err(DamageKind::Malformed("block header"));
    }
    let (table, text) = bytes[BLOCK_HEADER_LEN..].split_at(block.header.table_len as usize);
    block.header.check_text(text)?;
    block.header.decode_table(table).map(|_| ())
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

/// Walks the block headers of the slab that starts at `slab[0]`, over `span` of it, up to its
/// trailer. After something that is neither, it goes on at the next multiple of the alignment.
/// A header that names another slab, or a number that was passed, is text that looks like one.
fn walk(slab: &[u8], span: Range<usize>, ids: &SlabIds) -> Walk {
    let mut walk = Walk::default();
    let (mut at, end) = (span.start, span.end.min(slab.len()));
    let mut last = ids.after;
    let mut number = 0;
    while at < end {
        let bytes = &slab[at..end];
        if bytes.starts_with(&BLOCK_MAGIC)
            && let Ok(header) = BlockHeader::decode(bytes)
            && ids.id == Some(header.slab_id)
            && header.number >= number
            && last.is_none_or(|last| last < header.first)
        {
            if header.used_len() > bytes.len() as u64 {
                walk.ends_inside_block = true;
                return walk;
            }
            walk.blocks.push(Block { offset: at as u64, header, topics: TopicList::default() });
            last = Some(header.last);
            number = header.number + 1;
            at += header.stored_len() as usize;
            continue;
        }
        if bytes.starts_with(&TRAILER_MAGIC)
            && let Ok(trailer) = SlabTrailer::decode(bytes)
            && ids.id == Some(trailer.slab_id)
            && trailer.len == (at + TRAILER_LEN) as u64
        {
            walk.trailer = Some(trailer);
            return walk;
        }
        at += BLOCK_ALIGNMENT;
    }
    walk
}
