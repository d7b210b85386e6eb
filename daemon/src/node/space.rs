//! Watches the space of the disks that hold the data, and closes the doors before it is used up.
//!
//! Invariants: told once per change of state; what was taken is never given up. Decides nothing
//! itself: see [`engine::headroom`].

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::headroom::{Headroom, HeadroomLimits, Judgement, Room};
use engine::ingest::registry::FileError;
use engine::storage::Storage;
use net::metrics::NodeMetrics;

use super::doors::Doors;

/// What the watch is made of.
pub(super) struct SpaceParts {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) ingest_path: PathBuf,
    pub(super) store_path: PathBuf,
    pub(super) limits: HeadroomLimits,
    pub(super) doors: Arc<Doors>,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// See the module page.
pub(super) struct SpaceWatch {
    parts: SpaceParts,
    headroom: Headroom,
    /// The ingest directory's file system first; the store's where it is another one.
    watched: Vec<(&'static str, PathBuf)>,
    rooms: Vec<Room>,
}

impl SpaceWatch {
    /// Looks at both directories, or at one where they share a file system.
    pub(super) fn new(parts: SpaceParts) -> Self {
        let device = |path: &Path| std::fs::metadata(path).map(|data| data.dev()).ok();
        let mut watched = vec![("--ingest.path", parts.ingest_path.clone())];
        if device(&parts.ingest_path) != device(&parts.store_path) {
            watched.push(("--store.path", parts.store_path.clone()));
        }
        let headroom = Headroom::new(parts.limits);
        Self { parts, headroom, watched, rooms: Vec::new() }
    }

    /// Tells of a file system on which records that are refused once may be refused for ever.
    /// `own_bytes`: data of the ingest and of the store side.
    pub(super) fn tell_too_small(&self, own_bytes: [u64; 2]) {
        let is_shared = self.watched.len() == 1;
        for (at, (flag, path)) in self.watched.iter().enumerate() {
            let own_bytes = if is_shared { own_bytes.iter().sum() } else { own_bytes[at] };
            let Ok(space) = self.parts.storage.space(path) else { continue };
            let room = Room { space, reclaimable_bytes: 0 };
            let Some(wanted_bytes) = self.headroom.unreachable_bytes(&room, own_bytes) else {
                continue;
            };
            let most_bytes = space.free_bytes.saturating_add(own_bytes);
            let free_min_bytes = self.headroom.free_min_bytes(space.total_bytes);
            let segment_bytes = self.parts.limits.segment_bytes;
            let path = path.display();
            tracing::warn!(
                most_bytes,
                wanted_bytes,
                free_min_bytes,
                segment_bytes,
                "the file system of {path} ({flag}) is too small: once new records are refused they \
                 are taken again only from wanted_bytes of free space on, and all data of the node \
                 gone would make most_bytes; use a larger disk, or lower \
                 --ingest.segment-flush-size or --disk.free-min"
            );
        }
    }

    /// Measures; `reclaimable_bytes` of prepared files wait unused on the ingest side. Says
    /// whether new records are refused.
    pub(super) fn look(&mut self, reclaimable_bytes: u64) -> bool {
        let mut rooms = Vec::with_capacity(self.watched.len());
        for (at, (_, path)) in self.watched.iter().enumerate() {
            let reclaimable_bytes = if at == 0 { reclaimable_bytes } else { 0 };
            match self.parts.storage.space(path) {
                Ok(space) => rooms.push(Room { space, reclaimable_bytes }),
                // It cannot be asked: what was known stays.
                Err(_) => return self.is_refusing(),
            }
        }
        self.rooms = rooms;
        if let Some(judgement) = self.headroom.look(&self.rooms) {
            self.tell(&judgement);
        }
        self.is_refusing()
    }

    pub(super) const fn is_refusing(&self) -> bool {
        self.headroom.is_refusing()
    }

    /// Whether there seems to be room again after the disk was full: making one segment proves it.
    pub(super) fn should_try(&self) -> bool {
        self.headroom.should_try(&self.rooms)
    }

    /// How many new segments may be made without touching the reserve.
    pub(super) fn segments_allowed(&self) -> usize {
        let allowed = self.rooms.first().map_or(u64::MAX, |r| self.headroom.segments_allowed(r));
        usize::try_from(allowed).unwrap_or(usize::MAX)
    }

    /// Segments were made.
    pub(super) const fn note_made(&mut self) {
        self.headroom.note_made();
    }

    /// Something could not be written because the disk is full.
    pub(super) fn note_full(&mut self, error: &FileError) {
        let is_news = self.headroom.note_full();
        self.parts.doors.set_disk_low(Some(format!("the disk is full: {error}")));
        self.parts.metrics.disk_refusing.set(1);
        self.parts.metrics.disk_until_refusal_bytes.set(0);
        if is_news {
            tracing::error!(
                "the disk is full: {error}; new records are refused and senders wait until there \
                 is room again (free disk space, or let less be kept: --store.segment-retain, \
                 --store.retain-size); what was taken is kept"
            );
        }
    }

    fn tell(&self, judgement: &Judgement) {
        let metrics = &self.parts.metrics;
        metrics.disk_free_bytes.set(judgement.free_bytes as i64);
        metrics.disk_until_refusal_bytes.set(judgement.until_refusal_bytes as i64);
        let refusing = self.is_refusing();
        metrics.disk_refusing.set(i64::from(refusing));
        if let Some(store) = self.rooms.last() {
            self.parts.doors.set_compaction_bytes(self.headroom.compaction_bytes(store));
        }
        if !judgement.has_changed {
            return;
        }
        let Judgement { free_bytes, resume_bytes, .. } = *judgement;
        if !refusing {
            self.parts.doors.set_disk_low(None);
            tracing::info!(free_bytes, "there is room on the disk again: new records are taken");
            return;
        }
        let (flag, path) = &self.watched[judgement.tightest];
        let total_bytes = self.rooms[judgement.tightest].space.total_bytes;
        let free_min_bytes = self.headroom.free_min_bytes(total_bytes);
        let path = path.display();
        self.parts.doors.set_disk_low(Some(format!(
            "new records are refused: the file system of {path} ({flag}) has no room for them \
             above the {free_min_bytes} bytes of --disk.free-min"
        )));
        tracing::warn!(
            free_bytes,
            free_min_bytes,
            resume_bytes,
            "new records are refused: the file system of {path} ({flag}) has no room for them \
             above --disk.free-min; senders wait, what was taken is kept, and queries, gathering \
             and retention go on"
        );
    }
}
