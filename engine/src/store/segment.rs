//! A published store segment: what is kept in memory of it while it is not in use, and how it is
//! read.
//!
//! Invariants: nothing of a segment that is not open stays in memory but its totals, three bits
//! per block, one per page of signatures and what is known to be damaged, and a bounded number stays
//! open (`OpenCache`); a block's or a page's checksums are verified before its first use
//! and again whenever the file may have changed (its version stamp differs); an open segment stays
//! readable after its file's name is gone; a file that is cut underneath costs the blocks that are
//! gone.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::checked::Checked;
use crate::chunk::{Candidates, Chunk, ChunkMeta, OpenPart, Part, Text};
use crate::damage::{Damage, DamageKind};
use crate::limits::SEGMENT_OPEN_BYTES;
use crate::open_cache::{OpenCache, Slot};
use crate::run_table::RunTable;
use crate::search::required::Required;
use crate::storage::Refusal;
use crate::storage::{File, Map, Open, Storage};
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::StoreDirectory;
use super::block::{BLOCK_HEADER_LEN, BlockHeader};
use super::blocks::{Blocks, OpenSlab};
use super::codec::CODEC_NONE;
use super::footer::{Footer, Inputs};
use super::index::TopicStats;
use super::known_damage::KnownDamage;
use super::name::{Name, SegmentId};
use super::open;
use super::signatures::Signatures;

/// What planning needs to know of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Its identity.
    pub id: SegmentId,
    /// Its first record.
    pub first: Ulid,
    /// Its last record.
    pub last: Ulid,
    /// Its records.
    pub record_count: u64,
    /// Their text, LFs included, bytes.
    pub text_bytes: u64,
    /// Its file, bytes.
    pub file_bytes: u64,
}

/// A published segment.
pub struct StoreSegment {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    meta: SegmentMeta,
    is_damaged: AtomicBool,
    known: Arc<KnownDamage>,
    cached: Mutex<Cached>,
    kept: Arc<Slot<OpenSegment>>,
}

/// Segments that are open though nobody reads them.
static KEPT: OpenCache<OpenSegment> = OpenCache::new();

#[derive(Default)]
struct Cached {
    stamp: u128,
    checked: Arc<Checked>,
    open: Weak<OpenSegment>,
}

/// A segment as it was found when the store was opened.
pub struct Loaded {
    /// The segment.
    pub segment: Arc<StoreSegment>,
    /// What it replaces; nothing when the footer is damaged.
    pub inputs: Inputs,
    /// What its footer or name says of it that is not so, in words.
    pub misnamed: bool,
    /// What is damaged, as far as its structure shows it.
    pub damage: Vec<Damage>,
}

impl StoreSegment {
    /// A segment that was just written.
    pub(super) fn of_footer(
        directory: &StoreDirectory,
        path: PathBuf,
        footer: &Footer,
        file_bytes: u64,
    ) -> Arc<Self> {
        let (first, last) = footer.range().unwrap_or((Ulid::MAX, Ulid::MIN));
        let meta = SegmentMeta {
            id: footer.id,
            first,
            last,
            record_count: footer.record_count(),
            text_bytes: footer.text_bytes(),
            file_bytes,
        };
        Self::new(Arc::clone(&directory.storage), path, meta, Arc::default(), false)
    }

    fn new(
        storage: Arc<dyn Storage>,
        path: PathBuf,
        meta: SegmentMeta,
        known: Arc<KnownDamage>,
        is_damaged: bool,
    ) -> Arc<Self> {
        let is_damaged = AtomicBool::new(is_damaged);
        let (cached, kept) = (Mutex::default(), Arc::default());
        Arc::new(Self { storage, path, meta, is_damaged, known, cached, kept })
    }

    /// Opens a file that was found, named as a segment of ours. An error: none of it is readable.
    pub fn load(directory: &StoreDirectory, path: &Path) -> Result<Loaded, Damage> {
        let known = Arc::default();
        let open = OpenSegment::open(&directory.storage, path, &Mutex::default(), &known)?;
        let whole = |kind| damage_of_file(path, kind, None);
        let (Some(first), Some(last)) = (open.blocks.chunks.first(), open.blocks.chunks.last())
        else {
            return Err(whole(DamageKind::Malformed("store segment")));
        };
        let name = path.file_name().and_then(|n| n.to_str()).and_then(Name::parse);
        let Some((named_first, named_last, id)) = name.and_then(|name| name.segment()) else {
            return Err(whole(DamageKind::Malformed("file name")));
        };
        let meta = SegmentMeta {
            id,
            first: first.first,
            last: last.last,
            record_count: open.blocks.chunks.iter().map(|c| u64::from(c.record_count)).sum(),
            text_bytes: open.blocks.chunks.iter().map(|c| u64::from(c.text_len)).sum(),
            file_bytes: open.file_bytes,
        };
        let footer = open.footer();
        let misnamed = footer.as_ref().is_some_and(|footer| {
            footer.id != id || footer.range() != Some((named_first, named_last))
        });
        let inputs = footer.filter(|_| !misnamed).map(|f| f.inputs).unwrap_or_default();
        let damage = open.damage.clone();
        let lossy = damage.iter().any(Damage::loses_records);
        let storage = Arc::clone(&directory.storage);
        let segment = Self::new(storage, path.to_owned(), meta, known, lossy);
        Ok(Loaded { segment, inputs, misnamed, damage })
    }

    /// A file of `file_bytes` of which nothing could be read: its name says which records it held
    /// and when they expire. Whoever opens it tries again. `None`: its name does not say.
    pub(super) fn unreadable(
        directory: &StoreDirectory,
        path: &Path,
        file_bytes: u64,
        damage: &Damage,
    ) -> Option<Arc<Self>> {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(Name::parse)?;
        let (first, last, id) = name.segment().filter(|(first, last, _)| first <= last)?;
        let meta = SegmentMeta { id, first, last, record_count: 0, text_bytes: 0, file_bytes };
        let known = Arc::new(KnownDamage::default());
        known.begin(&[Damage { range: Some((first, last)), ..damage.clone() }]);
        let storage = Arc::clone(&directory.storage);
        Some(Self::new(storage, path.to_owned(), meta, known, true))
    }

    /// Its totals.
    pub const fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether records of it are known to be lost: it is kept as it is and never compacted.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Remembers that records of it are lost.
    pub fn mark_damaged(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// Opens it, or shares it with those who have it open.
    pub fn open_shared(&self) -> Result<Arc<OpenSegment>, Damage> {
        let open = OpenSegment::open(&self.storage, &self.path, &self.cached, &self.known);
        let open = open.map_err(|damage| self.all_lost(damage))?;
        KEPT.keep(&self.kept, &open, open.memory_bytes());
        Ok(open)
    }

    /// Opens it for nobody else, who writes its records anew: nothing that was verified before is
    /// believed, and a fault that another reader meets is none of its map's.
    pub fn open_alone(&self) -> Result<Arc<OpenSegment>, Damage> {
        let opened = self.storage.open(&self.path, Open::Read);
        let found = opened.and_then(|file| OpenSegment::find(&self.path, file, &self.known));
        found.map(Arc::new).map_err(|e| self.all_lost(unreadable(&self.path, &e)))
    }

    fn all_lost(&self, mut damage: Damage) -> Damage {
        damage.range = Some((self.meta.first, self.meta.last));
        damage.records = Some(self.meta.record_count);
        damage
    }

    /// Totals per topic, from the footer or, where that is damaged, from the indexes.
    pub fn topic_stats(&self) -> Result<Vec<TopicStats>, Damage> {
        Ok(self.open_shared()?.topic_stats())
    }
}

impl Part for StoreSegment {
    fn range(&self) -> (Ulid, Ulid) {
        (self.meta.first, self.meta.last)
    }

    fn records(&self) -> u64 {
        self.meta.record_count
    }

    fn text_bytes(&self) -> u64 {
        self.meta.text_bytes.saturating_sub(self.known.lost_text_bytes())
    }

    fn open(&self) -> Result<Box<dyn OpenPart>, Damage> {
        Ok(Box::new(SegmentView::of_all(self.open_shared()?)))
    }

    fn open_to_move(&self) -> Result<Box<dyn OpenPart>, Damage> {
        Ok(Box::new(SegmentView::of_all(self.open_alone()?)))
    }

    fn is_stored(&self) -> bool {
        true
    }

    fn known_damage(&self) -> Vec<Damage> {
        self.known.list()
    }
}

/// A block where it is read.
#[derive(Debug, Clone, Copy)]
struct BlockPlace {
    /// Where its header starts in the file, bytes.
    offset: u64,
    header: BlockHeader,
}

/// An open segment, shared by those who read it.
pub struct OpenSegment {
    path: PathBuf,
    file: Arc<dyn File>,
    file_bytes: u64,
    map: Mutex<Arc<Map>>,
    checked: Arc<Checked>,
    known: Arc<KnownDamage>,
    blocks: Blocks,
    signatures: Signatures,
    damage: Vec<Damage>,
}

impl OpenSegment {
    fn open(
        storage: &Arc<dyn Storage>,
        path: &Path,
        cached: &Mutex<Cached>,
        known: &Arc<KnownDamage>,
    ) -> Result<Arc<Self>, Damage> {
        let unreadable = |e| unreadable(path, &e);
        let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
        let file = storage.open(path, Open::Read).map_err(unreadable)?;
        let stamp = file.version_stamp().map_err(unreadable)?;
        if stamp == cached.stamp
            && let Some(open) = cached.open.upgrade()
        {
            return Ok(open);
        }
        let mut this = Self::find(path, file, known).map_err(unreadable)?;
        if stamp == cached.stamp && cached.checked.is_like(&this.checked) {
            this.checked = Arc::clone(&cached.checked);
        } else {
            known.begin(&this.damage);
        }
        let this = Arc::new(this);
        *cached = Cached { stamp, checked: Arc::clone(&this.checked), open: Arc::downgrade(&this) };
        Ok(this)
    }

    /// Of its blocks nothing is verified yet.
    fn find(path: &Path, file: Arc<dyn File>, known: &Arc<KnownDamage>) -> io::Result<Self> {
        let map = Arc::new(file.map()?);
        let found = open::find(path, &map);
        let blocks = Blocks::of(found.slabs);
        let mut this = Self {
            path: path.to_owned(),
            file,
            file_bytes: map.len() as u64,
            map: Mutex::new(map),
            checked: Arc::default(),
            known: Arc::clone(known),
            signatures: Signatures::of(&blocks.slabs, blocks.flags()),
            blocks,
            damage: found.damage,
        };
        let checked = Checked::new(this.blocks.chunks.len(), this.signatures.verified_bits());
        this.checked = Arc::new(checked);
        Ok(this)
    }

    /// What it keeps in memory, bytes, about.
    fn memory_bytes(&self) -> usize {
        SEGMENT_OPEN_BYTES + self.blocks.memory_bytes() + self.signatures.memory_bytes()
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

    fn footer(&self) -> Option<Footer> {
        open::read_footer(&self.map().ok()?).ok()
    }

    /// The mapped file; mapped anew after a fault, so that a part that is gone or unreadable
    /// costs nobody else.
    pub fn map(&self) -> Result<Arc<Map>, Damage> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.is_poisoned() {
            *map = Arc::new(self.file.map().map_err(|e| unreadable(&self.path, &e))?);
        }
        Ok(Arc::clone(&map))
    }

    fn place(&self, index: usize) -> BlockPlace {
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

    /// Runs `read` on the mapped file, once more if the map was found to be faulty meanwhile.
    fn with_map<T>(
        &self,
        index: usize,
        read: impl Fn(&Arc<Map>, &BlockPlace) -> Result<T, DamageKind>,
    ) -> Result<T, Damage> {
        let place = self.place(index);
        let mut map = self.map()?;
        let mut result = read(&map, &place);
        if map.is_poisoned() {
            map = self.map()?;
            result = read(&map, &place);
        }
        result.map_err(|kind| {
            let damage = self.damage_of(&place, kind);
            self.checked.block_is_bad(index);
            self.known.add(index, &damage, place.header.text_len);
            damage
        })
    }

    /// Which of the blocks may hold what is required, as their slabs' signatures tell; nothing where
    /// none of them tells anything.
    fn candidates(&self, blocks: Range<usize>, required: &Required) -> Candidates {
        if *required == Required::Anything || self.signatures.slabs.is_empty() {
            return Candidates::default();
        }
        let Ok(map) = self.map() else { return Candidates::default() };
        let (found, bad) = self.signatures.candidates(&map, &self.checked, (&blocks, required));
        // Of rows that are gone zeros may have been read, which would rule everything out.
        if map.is_poisoned() {
            return Candidates::default();
        }
        let damage = bad.map(|span| self.checked.signature_is_bad(|| self.signature_damage(span)));
        Candidates { blocks: Some(found), damage: damage.cloned() }
    }

    fn signature_damage(&self, span: Range<u64>) -> Damage {
        Damage {
            path: self.path.clone(),
            offset: span.start,
            len_bytes: span.end - span.start,
            range: None,
            records: Some(0),
            kind: DamageKind::Dispensable("signature matrix"),
        }
    }

    fn read_block(&self, index: usize) -> Result<Chunk, Damage> {
        let is_verified = self.checked.is_text_verified(index);
        let chunk = self.with_map(index, |map, place| {
            let (table, text) = spans(map, place)?;
            let table = place.header.decode_table(&map[table])?;
            if !is_verified {
                place.header.check_text(&map[text.clone()])?;
            }
            let text = text_of(map, &place.header, text)?;
            Ok(Chunk { table, text })
        })?;
        // Of what was verified before somebody else may know better by now.
        if !is_verified {
            self.is_whole(index);
        }
        Ok(chunk)
    }

    /// A block was verified, table and text.
    fn is_whole(&self, index: usize) {
        self.checked.block_is_whole(index);
        self.known.forget(index);
    }
}

/// A block's text: where it lies, or decoded.
fn text_of(map: &Arc<Map>, header: &BlockHeader, span: Range<usize>) -> Result<Text, DamageKind> {
    if header.codec == CODEC_NONE {
        return Ok(Text::Mapped(Arc::clone(map), span));
    }
    let text = header.decode_text(&map[span.clone()])?;
    // Zeros may have been decoded in place of bytes that are gone. Gone they stay, so that the
    // checksum tells.
    if map.is_poisoned() {
        header.check_text(&map[span])?;
    }
    Ok(Text::Decoded(Arc::new(text)))
}

/// Where table and text lie in the file, if it is long enough.
fn spans(bytes: &[u8], place: &BlockPlace) -> Result<(Range<usize>, Range<usize>), DamageKind> {
    let start = place.offset as usize + BLOCK_HEADER_LEN;
    let text_start = start + place.header.table_len as usize;
    let end = text_start + place.header.encoded_len as usize;
    if end > bytes.len() {
        return Err(DamageKind::Truncated("block"));
    }
    Ok((start..text_start, text_start..end))
}

fn unreadable(path: &Path, error: &io::Error) -> Damage {
    damage_of_file(path, DamageKind::Unread(Refusal::from(error)), None)
}

fn damage_of_file(path: &Path, kind: DamageKind, records: Option<u64>) -> Damage {
    Damage { path: path.to_owned(), offset: 0, len_bytes: 0, range: None, records, kind }
}

/// Consecutive blocks of an open segment: all of them, or those of one slab.
pub struct SegmentView {
    segment: Arc<OpenSegment>,
    blocks: Range<usize>,
}

impl SegmentView {
    fn of_all(segment: Arc<OpenSegment>) -> Self {
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

    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        self.segment.read_block(self.blocks.start + index)
    }

    fn will_read(&self, index: usize) {
        let index = self.blocks.start + index;
        if index >= self.blocks.end {
            return;
        }
        let place = self.segment.place(index);
        let Ok(map) = self.segment.map() else { return };
        let (start, len) = (place.offset as usize, place.header.stored_len() as usize);
        if start < map.len() {
            map.will_need(start, len.min(map.len() - start));
        }
    }

    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        let index = self.blocks.start + index;
        let table = self.segment.with_map(index, |map, place| {
            let (table, _) = spans(map, place)?;
            place.header.decode_table(&map[table])
        })?;
        self.segment.checked.table_is_whole(index);
        Ok(table)
    }

    fn is_bad(&self, index: usize) -> bool {
        self.segment.checked.is_bad(self.blocks.start + index)
    }

    fn may_be_counted(&self, index: usize) -> bool {
        self.segment.checked.is_countable(self.blocks.start + index)
    }

    fn verify(&self, index: usize) -> Result<(), Damage> {
        let index = self.blocks.start + index;
        self.segment.with_map(index, |map, place| {
            let (table, text) = spans(map, place)?;
            place.header.decode_table(&map[table])?;
            place.header.check_text(&map[text])
        })?;
        self.segment.is_whole(index);
        Ok(())
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
