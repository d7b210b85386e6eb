//! Which shard a new connection goes to.
//!
//! SO_REUSEPORT spreads connections by hash, so that four of them meet on one of two shards one
//! time in eight; each accepted connection therefore goes to the shard that has the fewest.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use engine::ingest::promises::NotOnDisk;
use engine::pulse::Pulse;

use super::inbox::Inbox;

/// One shard as the others see it.
pub struct Seat {
    /// Its inbox.
    pub inbox: Inbox,
    /// Connections that it has or was promised.
    pub connections: AtomicUsize,
    /// Newest stamp it has given, ms; 0 before the first.
    pub newest_ms: AtomicU64,
    /// Up to where it has given or ruled out stamps, ms.
    pub stamped_ms: AtomicU64,
    /// What of its records is not known to be on the disk.
    unsynced: Mutex<NotOnDisk>,
    /// Stamp of the oldest record that only its memory shows, ms; `u64::MAX` where there is none.
    pub oldest_ms: AtomicU64,
    /// Moves with every turn.
    pub pulse: Arc<Pulse>,
    /// It was told to drain, and holds nothing any more.
    pub drained: AtomicBool,
}

impl Seat {
    /// What of its records was not known to be on the disk after its last turn.
    pub fn unsynced(&self) -> NotOnDisk {
        *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_unsynced(&self, unsynced: NotOnDisk) {
        *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner) = unsynced;
    }
}

/// All shards of a node.
#[derive(Clone)]
pub struct Placement {
    seats: Arc<[Seat]>,
}

impl Placement {
    /// Room for `count` shards.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let seats: std::io::Result<Vec<Seat>> = (0..count)
            .map(|_| {
                Ok(Seat {
                    inbox: Inbox::new()?,
                    connections: AtomicUsize::new(0),
                    newest_ms: AtomicU64::new(0),
                    stamped_ms: AtomicU64::new(0),
                    unsynced: Mutex::default(),
                    oldest_ms: AtomicU64::new(u64::MAX),
                    pulse: Arc::default(),
                    drained: AtomicBool::new(false),
                })
            })
            .collect();
        Ok(Self { seats: seats?.into() })
    }

    /// All seats, by shard.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Takes a place for one more connection on the least loaded shard (`own` where it is as good
    /// as any). `None` when the node has `connections_max` already.
    pub(super) fn take_place(&self, own: usize, connections_max: usize) -> Option<usize> {
        let loads: Vec<usize> =
            self.seats.iter().map(|s| s.connections.load(Ordering::Relaxed)).collect();
        if loads.iter().sum::<usize>() >= connections_max {
            return None;
        }
        let chosen = least_loaded(&loads, own);
        self.seats[chosen].connections.fetch_add(1, Ordering::Relaxed);
        Some(chosen)
    }

    /// Gives the place of a closed connection back.
    pub(super) fn leave(&self, shard: usize) {
        self.seats[shard].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn least_loaded(loads: &[usize], own: usize) -> usize {
    let best = (0..loads.len()).min_by_key(|&i| (loads[i], i != own));
    best.unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptiest_shard_is_chosen_and_its_own_among_equals() {
        assert_eq!(least_loaded(&[2, 1, 1], 2), 2);
        assert_eq!(least_loaded(&[2, 1, 1], 0), 1);
        assert_eq!(least_loaded(&[0], 0), 0);
    }

    #[test]
    fn four_connections_on_two_shards_are_two_each() {
        let placement = Placement::new(2).unwrap();
        let mut counts = [0; 2];
        for _ in 0..4 {
            counts[placement.take_place(0, 100).unwrap()] += 1;
        }
        assert_eq!(counts, [2, 2]);
    }

    #[test]
    fn there_is_no_place_beyond_the_limit() {
        let placement = Placement::new(2).unwrap();
        assert!(placement.take_place(0, 1).is_some());
        assert!(placement.take_place(0, 1).is_none());
        placement.leave(0);
        assert!(placement.take_place(0, 1).is_some());
    }
}
