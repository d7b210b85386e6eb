//! What the keeper does when directories or files are taken away under it.
//!
//! Invariants: the doors hear of it before any shard does, so that nothing is acknowledged of which the
//! file has no name; what a file without a name holds is written anew under a name of its own, for
//! the one that it had may be somebody else's by now.

use crate::ingest::log::Now;

use super::{Effect, Happened, Keeper, Lent, Surroundings};

impl Keeper {
    /// Closes the doors while a directory is not the one that was locked. Files in it that shards
    /// write and that have no name any more are abandoned, and what they hold is written anew.
    pub(super) fn look_at_ground(&mut self, now: Now, around: &dyn Surroundings) {
        let ground = around.ground();
        let is_ours = ground[0].is_none();
        if self.doors.set_taken_away(ground.clone()) {
            self.happened.push(Happened::Ground(ground));
        }
        if !is_ours {
            return;
        }
        let has_lost = |lent: &&mut Lent| !lent.is_lost && lent.has_lost_name(around);
        let lost = self.lent.iter_mut().filter(has_lost).map(|lent| {
            lent.is_lost = true;
            (lent.shard, lent.segment.path(), lent.segment.id())
        });
        let lost: Vec<_> = lost.collect();
        // First: nothing more is acknowledged until all of it is written anew.
        self.doors.set_deleted_files(self.deleted_files());
        for (shard, path, id) in lost {
            self.happened.push(Happened::SegmentDeleted(path));
            self.effects.push_back(Effect::LostSegment(shard, id));
        }
        let is_lost =
            |tail: &mut (usize, _, u128)| around.has_lost_name(AsRef::as_ref(&tail.1), tail.2);
        for (shard, path, _) in self.tails.extract_if(.., is_lost) {
            self.happened.push(Happened::TailDeleted(path));
            self.effects.push_back(Effect::LostTail(shard));
        }
        self.rescue_orphans(now, around);
        self.doors.set_deleted_files(self.deleted_files());
    }

    /// Gives sealed segments without a name their place again.
    fn rescue_orphans(&mut self, now: Now, around: &dyn Surroundings) {
        for (lent, len_bytes) in std::mem::take(&mut self.orphans) {
            let segment = &lent.segment;
            let result = if !lent.has_lost_name(around) {
                // What fails here is tried again when the registry is tidied up.
                let flushed = self.registry.flush(segment, len_bytes, now.wall_ms);
                self.happened.extend(flushed.err().map(Happened::FileFailed));
                Ok(())
            } else if len_bytes == 0 || segment.content().records == 0 {
                self.registry.forget_unused(segment);
                Ok(())
            } else {
                self.registry.write_anew(segment, len_bytes, &lent.source, now.wall_ms)
            };
            let Err(error) = result else {
                self.rescue_failing = false;
                continue;
            };
            if !std::mem::replace(&mut self.rescue_failing, true) {
                self.happened.push(Happened::FileFailed(error));
            }
            self.orphans.push((lent, len_bytes));
        }
    }
}
