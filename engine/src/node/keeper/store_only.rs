//! What a keeper does on a node that takes no records: it looks whether the store's directory is where it
//! was, and how much room its disk has, for compaction and for who asks whether the node is ready.
//!
//! Invariants: as those of the keeper; a disk that cannot be asked stays as it was known.

use std::sync::Arc;

use crate::ingest::log::Now;
use crate::node::doors::Doors;

use super::space::{SpaceParts, SpaceWatch};
use super::values::Happened;
use super::{GROUND_BEAT_US, SPACE_BEAT_US};

/// See the module page.
pub struct StoreKeeper {
    doors: Arc<Doors>,
    space: SpaceWatch,
    next_us: u64,
}

impl StoreKeeper {
    /// The first turn looks at both.
    pub fn new(doors: Arc<Doors>, space: SpaceParts) -> Self {
        Self { space: SpaceWatch::new(space, Arc::clone(&doors)), doors, next_us: 0 }
    }

    /// When it is to be turned again, microseconds of the monotonic clock.
    pub const fn next_us(&self) -> u64 {
        self.next_us
    }

    /// Looks; `ground` is what was taken away of each side, by [`crate::node::Side`]. Says what happened.
    pub fn turn(&mut self, now: Now, ground: [Option<String>; 2]) -> Vec<Happened> {
        self.next_us = now.monotonic_us + GROUND_BEAT_US.min(SPACE_BEAT_US);
        let mut happened = Vec::new();
        if self.doors.set_taken_away(ground.clone()) {
            happened.push(Happened::Ground(ground));
        }
        if !self.doors.is_ground_lost() {
            self.space.look(0, &mut happened);
        }
        happened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headroom::HeadroomLimits;
    use crate::node::Side;
    use crate::storage::Storage;
    use crate::storage::sim::SimStorage;

    #[test]
    fn a_store_alone_is_not_ready_while_its_directory_is_away_and_compaction_has_the_room_there_is()
    {
        let storage: Arc<dyn Storage> = Arc::new(SimStorage::new(1));
        storage.create_dir_all("/store".as_ref()).unwrap();
        let doors = Arc::new(Doors::default());
        let limits = HeadroomLimits { free_min_bytes: Some(1), segment_bytes: 0 };
        let watched = vec![(Side::Store, "/store".into())];
        let space = SpaceParts { storage, watched, limits };
        let mut keeper = StoreKeeper::new(Arc::clone(&doors), space);
        let at = |monotonic_us| Now { monotonic_us, wall_ms: 1 };
        let away = || [None, Some("gone".to_owned())];
        let before = doors.compaction_bytes();
        let happened = keeper.turn(at(0), away());
        assert!(matches!(&happened[..], [Happened::Ground(_)]), "{happened:?}");
        assert!(
            !doors.is_ready() && doors.compaction_bytes() == before,
            "nothing is measured there"
        );
        assert!(keeper.next_us() > 0);
        let happened = keeper.turn(at(1_000_000), [None, None]);
        assert!(matches!(happened[0], Happened::Ground(_)), "{happened:?}");
        assert!(doors.is_ready() && doors.compaction_bytes() < before);
    }
}
