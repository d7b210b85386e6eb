//! An open store segment: where its blocks are, and reading them.
//!
//! Invariants: what is found of it is read with pread, so that what the storage refuses is told as
//! that; a query reads texts and signatures through a map, and what a map turns out not to give is
//! read once more with pread, which says why; who writes records anew reads through no map at all; a
//! block's or a page's checksums are verified before its first use and again whenever the file may
//! have changed (its version stamp differs); an open segment stays readable after its file's name is
//! gone; a file that is cut underneath costs the blocks that are gone; a refusal is not remembered.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::caches::Caches;
use crate::checked::Checked;
use crate::chunk::{Candidates, Chunk, ChunkMeta, OpenPart, Text};
use crate::damage::{Damage, DamageKind};
use crate::decoded::{DecodedText, Decoders};
use crate::entries::EntryRow;
use crate::known_damage::KnownDamage;
use crate::limits::SEGMENT_OPEN_BYTES;
use crate::open_cache::Opened;
use crate::run_table::RunTable;
use crate::search::required::Required;
use crate::storage::{File, FileBytes, Map, Refusal, read_into};
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::block::{BLOCK_HEADER_LEN, BlockHeader};
use super::blocks::{Blocks, OpenSlab};
use super::codec::CODEC_NONE;
use super::entry_table::{EntryTable, KnownBlock};
use super::footer::Footer;
use super::index::TopicStats;
use super::open;
use super::signatures::Signatures;
use super::slab::Section;

/// A block where it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockPlace {
    /// Where its header starts in the file, bytes.
    pub(super) offset: u64,
    pub(super) header: BlockHeader,
}

impl BlockPlace {
    /// Where table and text lie in the file, bytes.
    fn spans(&self) -> (Range<u64>, Range<u64>) {
        let start = self.offset + BLOCK_HEADER_LEN as u64;
        let text_start = start + u64::from(self.header.table_len);
        (start..text_start, text_start..text_start + u64::from(self.header.encoded_len))
    }

    /// The same in bytes that are there, if there are enough.
    pub(super) fn spans_in(
        &self,
        bytes: &[u8],
    ) -> Result<(Range<usize>, Range<usize>), DamageKind> {
        let (table, text) = self.spans();
        if text.end > bytes.len() as u64 {
            return Err(DamageKind::Truncated("block"));
        }
        let here = |span: Range<u64>| span.start as usize..span.end as usize;
        Ok((here(table), here(text)))
    }
}

/// An open segment, shared by those who read it.
pub struct OpenSegment {
    path: PathBuf,
    file: Arc<dyn File>,
    pub(super) file_bytes: u64,
    /// `None`: it is not opened for a query, or there is no room for a map.
    map: Option<Arc<Map>>,
    pub(super) checked: Arc<Checked>,
    known: Arc<KnownDamage>,
    decoders: Decoders,
    pub(super) blocks: Blocks,
    signatures: Signatures,
    pub(super) damage: Vec<Damage>,
}

impl OpenSegment {
    /// Finds the blocks of a file; nothing of them is verified yet. Says what its footer says, where
    /// that is whole, too.
    pub(super) fn find(
        path: &Path,
        file: Arc<dyn File>,
        known: &Arc<KnownDamage>,
        caches: &Caches,
    ) -> Result<(Self, Option<Footer>), Refusal> {
        let mut bytes = FileBytes::new(Arc::clone(&file))?;
        let found = open::find(path, &mut bytes)?;
        let blocks = Blocks::of(found.slabs);
        let signatures = Signatures::of(&blocks.slabs, blocks.flags());
        let checked = Arc::new(Checked::new(blocks.chunks.len(), signatures.verified_bits()));
        let this = Self {
            path: path.to_owned(),
            file,
            file_bytes: crate::storage::Bytes::len(&bytes),
            map: None,
            checked,
            known: Arc::clone(known),
            decoders: caches.decoders.clone(),
            signatures,
            blocks,
            damage: found.damage,
        };
        Ok((this, found.footer))
    }

    /// Maps it for queries. Where that is refused, they read it without.
    pub(super) fn map(&mut self) {
        self.map = self.file.map().ok().map(Arc::new);
        if let Some(map) = &self.map {
            map.expect_random_reads();
        }
    }

    /// Its slabs in ULID order.
    pub fn slabs(&self) -> &[OpenSlab] {
        &self.blocks.slabs
    }

    /// First and last record of a slab; `None` if it has no block.
    pub fn range_of(&self, slab: &OpenSlab) -> Option<(Ulid, Ulid)> {
        self.blocks.range_of(slab)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found damaged while opening.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Totals per topic, from the indexes that are whole.
    pub fn topic_stats(&self) -> Vec<TopicStats> {
        self.blocks.stats.clone()
    }

    /// Its bytes, to be read anew.
    pub fn bytes(&self) -> Result<FileBytes, Refusal> {
        FileBytes::new(Arc::clone(&self.file))
    }

    pub(super) fn place(&self, index: usize) -> BlockPlace {
        BlockPlace { offset: self.blocks.offset(index), header: self.blocks.header(index) }
    }

    fn damage_of(&self, place: &BlockPlace, kind: DamageKind) -> Damage {
        Damage {
            path: self.path.clone(),
            offset: place.offset,
            len_bytes: place.header.stored_len(),
            range: Some((place.header.first, place.header.last)),
            records: Some(u64::from(place.header.record_count)),
            kind,
        }
    }

    /// What `read` makes of the map; `None` where there is none, or it did not give all the bytes.
    fn mapped<T>(
        &self,
        read: impl FnOnce(&Arc<Map>) -> Result<T, DamageKind>,
    ) -> Option<Result<T, DamageKind>> {
        let map = self.map.as_ref().filter(|map| !map.is_poisoned())?;
        let result = read(map);
        (!map.is_poisoned()).then_some(result)
    }

    /// Reads a part of a block from the file.
    fn part(&self, span: Range<u64>) -> Result<DecodedText, DamageKind> {
        const SHORT: DamageKind = DamageKind::Truncated("block");
        if span.end > self.file_bytes {
            return Err(SHORT);
        }
        let len = (span.end - span.start) as usize;
        let read = |buffer: &mut Vec<u8>| read_into(&*self.file, buffer, &span);
        let part = self.decoders.text(len, read).map_err(|e: io::Error| Refusal::from(&e))?;
        if part.len() == len { Ok(part) } else { Err(SHORT) }
    }

    /// Tells what became of reading a block, and remembers it if it says something of the file.
    fn told<T>(
        &self,
        index: usize,
        place: &BlockPlace,
        result: Result<T, DamageKind>,
    ) -> Result<T, Damage> {
        result.map_err(|kind| {
            let damage = self.damage_of(place, kind);
            if damage.refusal().is_none() {
                self.checked.block_is_bad(index);
                self.known.add(index, &damage, place.header.text_len);
            }
            damage
        })
    }

    /// Which of the blocks may hold what is required, as their slabs' signatures tell; nothing where
    /// none of them tells anything.
    fn candidates(&self, blocks: Range<usize>, required: &Required) -> Candidates {
        if *required == Required::Anything || self.signatures.slabs.is_empty() {
            return Candidates::default();
        }
        // Of rows that are gone zeros may have been read, which would rule everything out.
        let asked = self
            .mapped(|map| Ok(self.signatures.candidates(map, &self.checked, (&blocks, required))));
        let Some(Ok((found, bad))) = asked else { return Candidates::default() };
        let damage = bad.map(|span| self.checked.signature_is_bad(|| self.signature_damage(span)));
        Candidates { blocks: Some(found), damage: damage.cloned() }
    }

    fn signature_damage(&self, span: Range<u64>) -> Damage {
        self.dispensable(span, "signature matrix")
    }

    /// Of what queries can do without.
    fn dispensable(&self, span: Range<u64>, name: &'static str) -> Damage {
        Damage {
            path: self.path.clone(),
            offset: span.start,
            len_bytes: span.end - span.start,
            range: None,
            records: Some(0),
            kind: DamageKind::Dispensable(name),
        }
    }

    /// Shows what slabs tell of the entries in some blocks. What cannot be read, or is damaged, tells
    /// nothing.
    fn entries(
        &self,
        blocks: &Range<usize>,
        see: &mut dyn FnMut(usize, &[EntryRow<'_>]),
    ) -> Option<Damage> {
        let mut bad = None;
        let first = self.blocks.slabs.partition_point(|slab| slab.blocks.end <= blocks.start);
        let slabs = self.blocks.slabs[first..].iter();
        for slab in slabs.take_while(|slab| slab.blocks.start < blocks.end) {
            let Some(trailer) = slab.trailer.filter(|_| slab.is_indexed) else { continue };
            let Section { offset, len, crc } = trailer.entries;
            if len == 0 {
                continue;
            }
            let start = slab.offset.saturating_add(offset);
            let span = start..start.saturating_add(len);
            let Ok(bytes) = self.part(span.clone()) else { continue };
            let wanted = blocks.start.max(slab.blocks.start)..blocks.end.min(slab.blocks.end);
            let shown = EntryTable::decode(&bytes, crc, slab.blocks.len()).and_then(|table| {
                wanted.clone().try_for_each(|block| {
                    let known = KnownBlock::from(&self.blocks.chunks[block]);
                    let rows = table.block(block - slab.blocks.start, &known)?;
                    if let Some(rows) = rows {
                        see(block, &rows);
                    }
                    Ok(())
                })
            });
            if shown.is_err() {
                bad.get_or_insert_with(|| self.dispensable(span, "entry table"));
            }
        }
        bad
    }

    pub(super) fn read_block(&self, index: usize) -> Result<Chunk, Damage> {
        let place = self.place(index);
        let is_verified = self.checked.is_text_verified(index);
        if !is_verified {
            self.will_read(index);
        }
        let mapped = self.mapped(|map| {
            let (table, text) = place.spans_in(map)?;
            let table = place.header.decode_table(&self.decoders, &map[table])?;
            if !is_verified {
                place.header.check_text(&map[text.clone()])?;
            }
            let text = match place.header.codec {
                CODEC_NONE => Text::Mapped(Arc::clone(map), text),
                _ => Text::Decoded(Arc::new(place.header.decode_text(&self.decoders, &map[text])?)),
            };
            Ok(Chunk { table, text })
        });
        let chunk = mapped.unwrap_or_else(|| self.read_unmapped(&place));
        let chunk = self.told(index, &place, chunk)?;
        // Of what was verified before somebody else may know better by now.
        if !is_verified {
            self.is_whole(index);
        }
        Ok(chunk)
    }

    fn read_unmapped(&self, place: &BlockPlace) -> Result<Chunk, DamageKind> {
        let (table, text) = place.spans();
        let table = place.header.decode_table(&self.decoders, &self.part(table)?)?;
        let stored = self.part(text)?;
        place.header.check_text(&stored)?;
        let text = match place.header.codec {
            CODEC_NONE => stored,
            _ => place.header.decode_text(&self.decoders, &stored)?,
        };
        Ok(Chunk { table, text: Text::Decoded(Arc::new(text)) })
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        let place = self.place(index);
        let mapped = self.mapped(|map| {
            let (table, _) = place.spans_in(map)?;
            place.header.decode_table(&self.decoders, &map[table])
        });
        let table = mapped.unwrap_or_else(|| {
            let (table, _) = place.spans();
            place.header.decode_table(&self.decoders, &self.part(table)?)
        });
        let table = self.told(index, &place, table)?;
        self.checked.table_is_whole(index);
        Ok(table)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        let place = self.place(index);
        let mapped = self.mapped(|map| {
            let (table, text) = place.spans_in(map)?;
            place.header.decode_table(&self.decoders, &map[table])?;
            place.header.check_text(&map[text])
        });
        let verified = mapped.unwrap_or_else(|| {
            let (table, text) = place.spans();
            place.header.decode_table(&self.decoders, &self.part(table)?)?;
            place.header.check_text(&self.part(text)?)
        });
        self.told(index, &place, verified)?;
        self.is_whole(index);
        Ok(())
    }

    /// A block was verified, table and text.
    fn is_whole(&self, index: usize) {
        self.checked.block_is_whole(index);
        self.known.forget(index);
    }

    fn will_read(&self, index: usize) {
        let Some(map) = &self.map else { return };
        let place = self.place(index);
        let (start, len) = (place.offset as usize, place.header.stored_len() as usize);
        if start < map.len() {
            map.will_need(start, len.min(map.len() - start));
        }
    }
}

impl Opened for OpenSegment {
    fn checked(&self) -> &Arc<Checked> {
        &self.checked
    }

    fn begin(&mut self, before: Option<&Arc<Checked>>) {
        if let Some(before) = before {
            self.checked = Arc::clone(before);
            self.known.opened_again(&self.damage);
        } else {
            self.known.begin(&self.damage);
        }
    }

    /// A part of it could not be read.
    fn is_faulty(&self) -> bool {
        self.map.as_ref().is_some_and(|map| map.is_poisoned())
            || self.damage.iter().any(|damage| damage.refusal().is_some())
    }

    fn memory_bytes(&self) -> usize {
        SEGMENT_OPEN_BYTES + self.blocks.memory_bytes() + self.signatures.memory_bytes()
    }
}

/// Consecutive blocks of an open segment: all of them, or those of one slab.
pub struct SegmentView {
    segment: Arc<OpenSegment>,
    blocks: Range<usize>,
}

impl SegmentView {
    pub(super) fn of_all(segment: Arc<OpenSegment>) -> Self {
        let blocks = 0..segment.blocks.chunks.len();
        Self { segment, blocks }
    }

    /// The blocks of one slab.
    pub fn of_slab(segment: &Arc<OpenSegment>, slab: &OpenSlab) -> Self {
        Self { segment: Arc::clone(segment), blocks: slab.blocks.clone() }
    }
}

impl OpenPart for SegmentView {
    fn chunks(&self) -> &[ChunkMeta] {
        &self.segment.blocks.chunks[self.blocks.clone()]
    }

    fn topics(&self) -> &[Topic] {
        &self.segment.blocks.topics
    }

    fn damage(&self) -> &[Damage] {
        &self.segment.damage
    }

    fn candidates(&self, required: &Required) -> Candidates {
        self.segment.candidates(self.blocks.clone(), required)
    }

    fn entries(
        &self,
        chunks: Range<usize>,
        see: &mut dyn FnMut(usize, &[EntryRow<'_>]),
    ) -> Option<Damage> {
        let start = self.blocks.start;
        let end = (start + chunks.end).min(self.blocks.end);
        let blocks = start + chunks.start..end;
        self.segment.entries(&blocks, &mut |block, rows| see(block - start, rows))
    }

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        self.segment.read_block(self.blocks.start + index)
    }

    fn will_read(&self, index: usize) {
        let index = self.blocks.start + index;
        if index < self.blocks.end {
            self.segment.will_read(index);
        }
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        self.segment.read_table(self.blocks.start + index)
    }

    fn is_bad(&self, index: usize) -> bool {
        self.segment.checked.is_bad(self.blocks.start + index)
    }

    fn may_be_counted(&self, index: usize) -> bool {
        self.segment.checked.is_countable(self.blocks.start + index)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        self.segment.verify(self.blocks.start + index)
    }
}
