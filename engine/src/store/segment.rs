//! A published store segment: what is kept in memory of it while it is not in use, and how it is
//! opened.
//!
//! Invariants: nothing of a segment that is not open stays in memory but its totals, three bits
//! per block, one per page of signatures and what is known of its damage, and a bounded number stays
//! open (`OpenCache`); a file that could not be read is no damaged one: it is told as missing by its
//! name until it is read, and every use of it tries again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::caches::Caches;
use crate::chunk::{OpenPart, Part};
use crate::damage::{Damage, DamageKind};
use crate::known_damage::KnownDamage;
use crate::open_cache::Slot;
use crate::storage::{File, Open, Refusal, Storage};
use crate::ulid::Ulid;

use super::StoreDirectory;
use super::coverage::Coverage;
use super::footer::{Footer, Inputs};
use super::index::TopicStats;
use super::name::{Name, SegmentId};
pub use super::opened::{OpenSegment, SegmentView};
use super::volume::Volume;

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
    /// The volume that it belongs to; `None`: its footer cannot be read.
    pub volume: Option<Volume>,
}

/// A published segment.
pub struct StoreSegment {
    storage: Arc<dyn Storage>,
    caches: Arc<Caches>,
    path: PathBuf,
    meta: SegmentMeta,
    is_damaged: AtomicBool,
    /// Its totals are not those of its file, of which not everything could be read.
    is_provisional: bool,
    known: Arc<KnownDamage>,
    slot: Arc<Slot<OpenSegment>>,
    shunned: Shunned,
    /// One for all handles of the file.
    file: Arc<()>,
    /// Which records it holds, until the catalogue has taken that.
    fresh: Mutex<Option<Coverage>>,
}

/// How long compaction leaves a segment alone of which it was refused a read: for so many plans, twice
/// as many each time.
#[derive(Default)]
struct Shunned {
    plans_left: AtomicU32,
    plans_next: AtomicU32,
}

/// Plans for which a segment is left alone at first, and at most: some seconds, half an hour.
const SHUNNED_PLANS: std::ops::RangeInclusive<u32> = 16..=4096;

/// A segment as it was found when the store was opened.
pub struct Loaded {
    /// The segment.
    pub segment: Arc<StoreSegment>,
    /// Which records it holds; `None`: its footer cannot be read.
    pub coverage: Option<Coverage>,
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
            volume: Some(footer.volume),
        };
        let this = Self::new(directory, path, meta, Arc::default(), [false; 2]);
        this.set_fresh(Some(&footer.coverage));
        this
    }

    /// Which records it holds: said once, to the catalogue that publishes it.
    pub(super) fn take_fresh(&self) -> Option<Coverage> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set_fresh(&self, coverage: Option<&Coverage>) {
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = coverage.cloned();
    }

    fn new(
        directory: &StoreDirectory,
        path: PathBuf,
        meta: SegmentMeta,
        known: Arc<KnownDamage>,
        [is_damaged, is_provisional]: [bool; 2],
    ) -> Arc<Self> {
        let is_damaged = AtomicBool::new(is_damaged);
        let (slot, shunned) = (Arc::default(), Shunned::default());
        Arc::new(Self {
            storage: Arc::clone(&directory.storage),
            caches: Arc::clone(&directory.caches),
            path,
            meta,
            is_damaged,
            is_provisional,
            known,
            slot,
            shunned,
            file: Arc::default(),
            fresh: Mutex::default(),
        })
    }

    /// Opens a file that was found, named as a segment of ours. An error: none of it is readable.
    pub fn load(directory: &StoreDirectory, path: &Path) -> Result<Loaded, Damage> {
        let known = Arc::default();
        let caches = &directory.caches;
        let found = caches.with_room(|| {
            let file = open_file(&directory.storage, path)?;
            OpenSegment::find(path, file, &known, caches)
        });
        let (open, footer) = found.map_err(|refusal| unread(path, refusal))?;
        let whole = |kind| damage_of_file(path, kind);
        let (Some(first), Some(last)) = (open.blocks.chunks.first(), open.blocks.chunks.last())
        else {
            let refusal = open.damage.iter().find_map(Damage::refusal);
            let none = DamageKind::Malformed("store segment");
            return Err(whole(refusal.map_or(none, DamageKind::Unread)));
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
            volume: footer.as_ref().map(|footer| footer.volume),
        };
        let misnamed = footer.as_ref().is_some_and(|footer| {
            footer.id != id || footer.range() != Some((named_first, named_last))
        });
        let (coverage, inputs) = match footer {
            Some(footer) if misnamed => (Some(footer.coverage), Inputs::default()),
            Some(footer) => (Some(footer.coverage), footer.inputs),
            None => (None, Inputs::default()),
        };
        let damage = open.damage.clone();
        known.begin(&damage);
        let lossy = damage.iter().any(|d| d.loses_records() && d.refusal().is_none());
        let state = [lossy, known.is_refused()];
        let segment = Self::new(directory, path.to_owned(), meta, known, state);
        segment.set_fresh(coverage.as_ref());
        Ok(Loaded { segment, coverage, inputs, misnamed, damage })
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
        let (record_count, text_bytes, volume) = (0, 0, None);
        let meta = SegmentMeta { id, first, last, record_count, text_bytes, file_bytes, volume };
        let known = Arc::new(KnownDamage::default());
        known.begin(&[Damage { range: Some((first, last)), ..damage.clone() }]);
        let is_unread = damage.refusal().is_some();
        Some(Self::new(directory, path.to_owned(), meta, known, [!is_unread, is_unread]))
    }

    /// Its newest record. One that was cut, or of which a part could not be read, held records up to the
    /// one that its name gives.
    pub(super) fn reach(&self) -> Ulid {
        let name = self.path.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
        let named_last = name.and_then(|name| name.segment()).map(|(_, last, _)| last);
        let is_short = self.is_damaged() || self.is_unread();
        named_last.filter(|_| is_short).map_or(self.meta.last, |named| named.max(self.meta.last))
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

    /// Whether it, or a part of it, could not be read when it was opened last, or when its totals were
    /// taken: what it holds is not known, and may be whole.
    pub fn is_unread(&self) -> bool {
        self.is_provisional || self.known.is_refused()
    }

    /// Tries once more to read what could not be read of it. What comes back takes its place, if
    /// anything does; `None`: it goes on as it is, and knows better by now.
    pub(super) fn read_again(&self, directory: &StoreDirectory) -> Option<Arc<Self>> {
        if !self.is_provisional {
            if let Ok(open) = self.open_alone() {
                self.known.opened_again(&open.damage);
            }
            return None;
        }
        let instead = match Self::load(directory, &self.path) {
            Ok(loaded) => Some(loaded.segment),
            Err(damage) => match damage.refusal() {
                Some(refusal) => {
                    self.refused(refusal);
                    None
                }
                None => Self::unreadable(directory, &self.path, self.meta.file_bytes, &damage),
            },
        };
        let mut instead = instead?;
        let new = Arc::get_mut(&mut instead).expect("nobody else has it yet");
        new.file = Arc::clone(&self.file);
        Some(instead)
    }

    /// Whether somebody beside the one who asks has a handle of its file: this one, or one in whose place
    /// it came.
    pub(super) fn is_held_elsewhere(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || Arc::strong_count(&self.file) > 1
    }

    /// Whether compaction is to leave it alone in this plan, as told by [`StoreSegment::shun`].
    pub(super) fn is_shunned(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.shunned.plans_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// A read of it was refused: compaction leaves it alone for some plans, so that others get their
    /// turn, and then tries again.
    pub(super) fn shun(&self) {
        let next = self.shunned.plans_next.load(Ordering::Relaxed).max(*SHUNNED_PLANS.start());
        self.shunned.plans_left.store(next, Ordering::Relaxed);
        let later = next.saturating_mul(2).min(*SHUNNED_PLANS.end());
        self.shunned.plans_next.store(later, Ordering::Relaxed);
    }

    /// Opens it, or shares it with those who have it open. What a refusal says is told until it is
    /// opened again; of a shortage of this process nothing is remembered.
    pub fn open_shared(&self) -> Result<Arc<OpenSegment>, Damage> {
        let opened = self.caches.with_room(|| self.open_or_share());
        opened.map_err(|refusal| self.refused(refusal))
    }

    /// Opens it for nobody else, who writes its records anew: nothing that was verified before is
    /// believed, and it is read through no map.
    pub fn open_alone(&self) -> Result<Arc<OpenSegment>, Damage> {
        self.open_with_coverage().map(|(open, _)| open)
    }

    /// The same, and which records its footer says it holds, if that can be read.
    pub(super) fn open_with_coverage(
        &self,
    ) -> Result<(Arc<OpenSegment>, Option<Coverage>), Damage> {
        let found = self.caches.with_room(|| {
            let file = open_file(&self.storage, &self.path)?;
            OpenSegment::find(&self.path, file, &self.known, &self.caches)
        });
        let found = found.map_err(|refusal| self.refused(refusal))?;
        Ok((Arc::new(found.0), found.1.map(|footer| footer.coverage)))
    }

    fn open_or_share(&self) -> Result<Arc<OpenSegment>, Refusal> {
        let file = open_file(&self.storage, &self.path)?;
        let stamp = file.version_stamp().map_err(|e| Refusal::from(&e))?;
        self.caches.store.share(&self.slot, stamp, || {
            let (mut this, _) = OpenSegment::find(&self.path, file, &self.known, &self.caches)?;
            this.map();
            Ok(this)
        })
    }

    /// None of it could be read.
    fn refused(&self, refusal: Refusal) -> Damage {
        let count = self.meta.record_count;
        let damage = Damage {
            range: Some((self.meta.first, self.meta.last)),
            records: (count > 0).then_some(count),
            ..unread(&self.path, refusal)
        };
        if !refusal.is_shortage() {
            self.known.refused(&damage);
        }
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

    fn file_path(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn is_stored(&self) -> bool {
        true
    }

    fn known_damage(&self) -> Vec<Damage> {
        self.known.list()
    }
}

fn open_file(storage: &Arc<dyn Storage>, path: &Path) -> Result<Arc<dyn File>, Refusal> {
    storage.open(path, Open::Read).map_err(|e| Refusal::from(&e))
}

fn unread(path: &Path, refusal: Refusal) -> Damage {
    damage_of_file(path, refusal.into())
}

fn damage_of_file(path: &Path, kind: DamageKind) -> Damage {
    Damage { path: path.to_owned(), offset: 0, len_bytes: 0, range: None, records: None, kind }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
