//! Volumes: groups of store segments that stay together. Compaction never crosses one; so all that is
//! decided of a volume later (who keeps a copy, when it goes) is decided of whole segments.
//!
//! A store opens a volume and alone adds to it, until it is large or old; then it opens the next one.
//! Which one is open is not written anywhere: it is the last one that this store has opened, as the
//! footers of its segments say, unless that is full. So it survives a restart, and a lost or unreadable
//! segment costs nothing but a volume that is smaller than it might be.
//!
//! Invariants: a store adds to no volume that another one has opened; a volume that was closed stays
//! closed. A plain state machine over sizes and the time.

use std::fmt;

use crate::identity::NodeId;
use crate::limits::VOLUME_BYTES_MAX;

/// Names a volume among all that ever were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u128);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What the footers of its segments say of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Random.
    pub id: VolumeId,
    /// The store that opened it; 0: none, a restore made it, and nobody adds to it.
    pub opener: NodeId,
    /// When, milliseconds since 1970.
    pub opened_ms: u64,
}

/// What a volume may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeLimits {
    /// Files of its segments after which it is closed, bytes.
    pub bytes_max: u64,
    /// Time after which it is closed, milliseconds.
    pub age_ms_max: u64,
}

impl VolumeLimits {
    /// Those of a store that keeps records for so long: an eighth of that, so that a volume that
    /// expires as a whole keeps none much longer.
    pub const fn of_retention(retain_ms: u64) -> Self {
        Self { bytes_max: VOLUME_BYTES_MAX, age_ms_max: retain_ms / 8 }
    }
}

/// The volumes that a store opens.
#[derive(Debug)]
pub struct Volumes {
    own: NodeId,
    open: Option<Volume>,
    now_ms: u64,
}

impl Volumes {
    /// Of the store `own`, in whose segments these volumes were found. `now_ms` is the wall clock,
    /// milliseconds since 1970.
    pub fn found(own: NodeId, volumes: impl Iterator<Item = Volume>, now_ms: u64) -> Self {
        let own_ones = volumes.filter(|volume| volume.opener == own);
        Self { own, open: own_ones.max_by_key(|volume| (volume.opened_ms, volume.id)), now_ms }
    }

    /// The volume that the next segment goes to, if one is open.
    pub const fn open(&self) -> Option<Volume> {
        self.open
    }

    /// The volume that the next segment goes to; a new one gets this id.
    pub fn open_or_new(&mut self, new_id: impl FnOnce() -> VolumeId) -> Volume {
        let (opener, opened_ms) = (self.own, self.now_ms);
        *self.open.get_or_insert_with(|| Volume { id: new_id(), opener, opened_ms })
    }

    /// Time has passed: closes the open volume, of which the files have `stored_bytes`, if that is due.
    pub fn tick(&mut self, now_ms: u64, stored_bytes: u64, limits: &VolumeLimits) {
        self.now_ms = now_ms;
        // A clock that was ahead and was set right does not keep a volume open for as long.
        let is_due = |volume: &mut Volume| {
            stored_bytes >= limits.bytes_max
                || volume.opened_ms.abs_diff(now_ms) >= limits.age_ms_max.max(1)
        };
        self.open.take_if(is_due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NodeId = NodeId(1);
    const LIMITS: VolumeLimits = VolumeLimits { bytes_max: 1_000, age_ms_max: 100 };

    fn volumes() -> (Volumes, impl FnMut() -> VolumeId) {
        let mut next = 0;
        let new_id = move || {
            next += 1;
            VolumeId(next)
        };
        (Volumes::found(OWN, std::iter::empty(), 5_000), new_id)
    }

    #[test]
    fn a_volume_is_added_to_until_it_is_large_or_old() {
        let (mut volumes, mut new_id) = volumes();
        let first = volumes.open_or_new(&mut new_id);
        assert_eq!(first, Volume { id: VolumeId(1), opener: OWN, opened_ms: 5_000 });
        volumes.tick(5_099, 999, &LIMITS);
        assert_eq!(volumes.open_or_new(&mut new_id), first);
        volumes.tick(5_099, 1_000, &LIMITS);
        let second = volumes.open_or_new(&mut new_id);
        assert_eq!((second.id, second.opened_ms), (VolumeId(2), 5_099));
        volumes.tick(5_199, 0, &LIMITS);
        assert_eq!(volumes.open(), None);
        volumes.tick(5_199, 0, &LIMITS);
        assert_eq!(volumes.open_or_new(&mut new_id).id, VolumeId(3));
    }

    #[test]
    fn the_open_one_survives_a_restart_and_those_of_others_are_never_added_to() {
        let (mut volumes, mut new_id) = volumes();
        let older = volumes.open_or_new(&mut new_id);
        volumes.tick(5_100, 0, &LIMITS);
        let open = volumes.open_or_new(&mut new_id);
        let others = Volume { id: VolumeId(77), opener: NodeId(2), opened_ms: 6_000 };
        let found = [open, others, older, open];
        let mut again = Volumes::found(OWN, found.into_iter(), 5_120);
        assert_eq!(again.open_or_new(&mut new_id), open);
        let mut nobodys = Volumes::found(NodeId(3), found.into_iter(), 5_120);
        assert_eq!(nobodys.open_or_new(&mut new_id).id, VolumeId(3));
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_no_volume_open() {
        let (mut volumes, mut new_id) = volumes();
        volumes.tick(90_000, 0, &LIMITS);
        volumes.open_or_new(&mut new_id);
        volumes.tick(5_000, 0, &LIMITS);
        assert_eq!(volumes.open(), None);
    }
}
