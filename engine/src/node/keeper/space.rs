//! Watches the space of the file systems that hold the data, and closes the doors before it is used
//! up.
//!
//! Invariants: what cannot be asked stays as it was known; a change of state is news once. What follows
//! from what was measured is [`crate::headroom`]'s to say.

use std::path::PathBuf;
use std::sync::Arc;

use crate::headroom::{Headroom, HeadroomLimits, Judgement, Room};
use crate::ingest::registry::FileError;
use crate::node::Side;
use crate::node::doors::{Doors, LowSpace};
use crate::storage::Storage;

use super::values::{Happened, TooSmall};

/// What is watched, and for whom.
pub struct SpaceParts {
    /// What measures.
    pub storage: Arc<dyn Storage>,
    /// A directory on each file system: the ingest side's first, the store's where it is another.
    pub watched: Vec<(Side, PathBuf)>,
    /// What is to stay free.
    pub limits: HeadroomLimits,
}

/// See the module page.
pub(super) struct SpaceWatch {
    parts: SpaceParts,
    doors: Arc<Doors>,
    headroom: Headroom,
    rooms: Vec<Room>,
}

impl SpaceParts {
    /// File systems on which records that are refused once may be refused for ever. `own_bytes`: data
    /// of the ingest and of the store side.
    pub fn too_small(&self, own_bytes: [u64; 2]) -> Vec<TooSmall> {
        let headroom = Headroom::new(self.limits);
        let is_shared = self.watched.len() == 1;
        let of_file_system = |(at, (side, path)): (usize, &(Side, PathBuf))| {
            let own_bytes = if is_shared { own_bytes.iter().sum() } else { own_bytes[at] };
            let space = self.storage.space(path).ok()?;
            let room = Room { space, reclaimable_bytes: 0 };
            Some(TooSmall {
                side: *side,
                path: path.clone(),
                wanted_bytes: headroom.unreachable_bytes(&room, own_bytes)?,
                most_bytes: space.free_bytes.saturating_add(own_bytes),
                free_min_bytes: headroom.free_min_bytes(space.total_bytes),
                segment_bytes: self.limits.segment_bytes,
            })
        };
        self.watched.iter().enumerate().filter_map(of_file_system).collect()
    }
}

impl SpaceWatch {
    pub(super) fn new(parts: SpaceParts, doors: Arc<Doors>) -> Self {
        let headroom = Headroom::new(parts.limits);
        Self { parts, doors, headroom, rooms: Vec::new() }
    }

    /// Measures; `reclaimable_bytes` of prepared files wait unused on the ingest side. Says
    /// whether new records are refused.
    pub(super) fn look(&mut self, reclaimable_bytes: u64, happened: &mut Vec<Happened>) -> bool {
        let mut rooms = Vec::with_capacity(self.parts.watched.len());
        for (at, (_, path)) in self.parts.watched.iter().enumerate() {
            let reclaimable_bytes = if at == 0 { reclaimable_bytes } else { 0 };
            match self.parts.storage.space(path) {
                Ok(space) => rooms.push(Room { space, reclaimable_bytes }),
                // It cannot be asked: what was known stays.
                Err(_) => return self.headroom.is_refusing(),
            }
        }
        self.rooms = rooms;
        if let Some(judgement) = self.headroom.look(&self.rooms) {
            self.note(&judgement, happened);
        }
        self.headroom.is_refusing()
    }

    fn note(&self, judgement: &Judgement, happened: &mut Vec<Happened>) {
        let is_refusing = self.headroom.is_refusing();
        if let Some(store) = self.rooms.last() {
            self.doors.set_compaction_bytes(self.headroom.compaction_bytes(store));
        }
        happened.push(Happened::SpaceMeasured { judgement: *judgement, is_refusing });
        if !judgement.has_changed {
            return;
        }
        if !is_refusing {
            self.doors.set_low_space(None);
            happened.push(Happened::HasSpace { free_bytes: judgement.free_bytes });
            return;
        }
        let (side, path) = self.parts.watched[judgement.tightest].clone();
        let total_bytes = self.rooms[judgement.tightest].space.total_bytes;
        let free_min_bytes = self.headroom.free_min_bytes(total_bytes);
        let low = LowSpace::BelowReserve { side, path, free_min_bytes };
        self.doors.set_low_space(Some(low.clone()));
        happened.push(Happened::LacksSpace { low, judgement: *judgement });
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
    pub(super) fn note_full(&mut self, error: &FileError) -> Happened {
        let is_news = self.headroom.note_full();
        let words = error.to_string();
        self.doors.set_low_space(Some(LowSpace::Full(words.clone())));
        Happened::DiskFull { error: words, is_news }
    }
}
