//! Volumes: groups of store segments that stay together. Compaction never crosses one; so all that is
//! decided of a volume later (who keeps a copy, when it goes) is decided of whole segments.
//!
//! A store opens a volume and alone adds to it, until it is large or old; then it opens the next one.
//! Which one is open is not written anywhere: it is the last one that this store has opened, as the
//! footers of its segments say, unless that is full. So it survives a restart, and an unreadable
//! segment costs nothing but a volume that is smaller than it might be.
//!
//! Invariants: a store adds to no volume that another one has opened; each that it opens says a later time
//! than those before, whatever the clock does, so that their order is known; a volume that was closed
//! stays closed, as far as footers tell. A plain state machine over sizes and the time.

use std::fmt;

use crate::identity::NodeId;
use crate::limits::VOLUME_BYTES_MAX;
use crate::ulid::Ulid;

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
    /// When, milliseconds since 1970; later than the store's volumes before, whatever its clock said.
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
    /// Since when it counts as open, milliseconds since 1970.
    since_ms: u64,
    /// What the last one that was opened says.
    last_opened_ms: Option<u64>,
    now_ms: u64,
}

impl Volumes {
    /// Of the store `own`, in which these segments were found: the volume of each, if it is known, and its
    /// newest record. `now_ms` is the wall clock, milliseconds since 1970.
    pub fn found(
        own: NodeId,
        segments: impl Iterator<Item = (Option<Volume>, Ulid)>,
        now_ms: u64,
    ) -> Self {
        let (mut last, mut unknown): (Option<(Volume, Ulid)>, Option<Ulid>) = (None, None);
        for (volume, newest) in segments {
            let Some(volume) = volume else {
                unknown = unknown.max(Some(newest));
                continue;
            };
            let order = |volume: &Volume| (volume.opened_ms, volume.id);
            match &mut last {
                _ if volume.opener != own => {}
                Some((known, reach)) if known.id == volume.id => *reach = newest.max(*reach),
                Some((known, _)) if order(known) > order(&volume) => {}
                _ => last = Some((volume, newest)),
            }
        }
        // A segment with newer records may be of one that was opened later.
        let open = last.filter(|(_, reach)| unknown <= Some(*reach)).map(|(volume, _)| volume);
        let last_opened_ms = last.map(|(volume, _)| volume.opened_ms);
        // How old it is is not known if it says a time that is to come.
        let since_ms = open.map_or(now_ms, |volume| volume.opened_ms.min(now_ms));
        Self { own, open, since_ms, last_opened_ms, now_ms }
    }

    /// The volume that the next segment goes to, if one is open.
    pub const fn open(&self) -> Option<Volume> {
        self.open
    }

    /// The volume that the next segment goes to; a new one gets this id.
    pub fn open_or_new(&mut self, new_id: impl FnOnce() -> VolumeId) -> Volume {
        if let Some(open) = self.open {
            return open;
        }
        let later_ms = self.last_opened_ms.map_or(0, |last_ms| last_ms.saturating_add(1));
        let opened_ms = self.now_ms.max(later_ms);
        let volume = Volume { id: new_id(), opener: self.own, opened_ms };
        (self.open, self.since_ms) = (Some(volume), self.now_ms);
        self.last_opened_ms = Some(opened_ms);
        volume
    }

    /// Time has passed: closes the open volume, of which the files have `stored_bytes`, if that is due.
    pub fn tick(&mut self, now_ms: u64, stored_bytes: u64, limits: &VolumeLimits) {
        self.now_ms = now_ms;
        // A clock that was ahead and was set right does not keep a volume open for as long.
        let is_old = self.since_ms.abs_diff(now_ms) >= limits.age_ms_max.max(1);
        if stored_bytes >= limits.bytes_max || is_old {
            self.open = None;
        }
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

    /// What a start makes of segments of these volumes.
    fn found_in(own: NodeId, volumes: &[Volume], now_ms: u64) -> Volumes {
        let segments = volumes.iter().map(|volume| (Some(*volume), Ulid::MIN));
        Volumes::found(own, segments, now_ms)
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
        let mut again = found_in(OWN, &found, 5_120);
        assert_eq!(again.open_or_new(&mut new_id), open);
        again.tick(5_199, 0, &LIMITS);
        assert_eq!(again.open(), Some(open), "it counts from when it was opened");
        again.tick(5_200, 0, &LIMITS);
        assert_eq!(again.open(), None);
        let mut nobodys = found_in(NodeId(3), &found, 5_120);
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

    #[test]
    fn one_that_was_closed_stays_closed_though_its_clock_was_ahead() {
        let (mut volumes, mut new_id) = volumes();
        volumes.tick(90_000, 0, &LIMITS);
        let ahead = volumes.open_or_new(&mut new_id);
        volumes.tick(5_000, 0, &LIMITS);
        let open = volumes.open_or_new(&mut new_id);
        volumes.tick(5_099, 0, &LIMITS);
        assert_eq!(volumes.open(), Some(open), "its age is that of the clock");

        let mut again = found_in(OWN, &[open, ahead], 5_020);
        assert_eq!(again.open_or_new(&mut new_id), open);
        again.tick(5_119, 0, &LIMITS);
        assert_eq!(again.open(), Some(open));
        again.tick(5_120, 0, &LIMITS);
        assert_eq!(again.open(), None);
        let next = again.open_or_new(&mut new_id);
        assert_eq!(found_in(OWN, &[next, open, ahead], 5_121).open(), Some(next));
    }

    #[test]
    fn nothing_is_added_to_where_a_later_volume_may_be_one_that_is_not_known() {
        let (mut volumes, mut new_id) = volumes();
        let volume = volumes.open_or_new(&mut new_id);
        let at = |ms| Ulid::from_parts(ms, 1, 1);
        let found = |newest_unknown| {
            let segments = [(Some(volume), at(20)), (None, newest_unknown), (Some(volume), at(10))];
            Volumes::found(OWN, segments.into_iter(), 5_000)
        };
        assert_eq!(found(at(20)).open(), Some(volume));
        let mut later = found(at(21));
        assert_eq!(later.open(), None);
        let next = later.open_or_new(&mut new_id);
        assert!(next.opened_ms > volume.opened_ms && next.id != volume.id);
    }
}
