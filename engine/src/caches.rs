//! What one node keeps at hand so that it need not be made again: segments of both sides that are open
//! between queries, what blocks are decoded with, and what automata have learned of a text.
//!
//! Invariants: everything here belongs to one node: two of them in a process share no budget, and what
//! one of them closes or forgets the other one keeps; each kind is bounded by itself. Nothing here is
//! needed: without it the same is found, and later.
//!
//! How many segments may be open is a share of the process's descriptors
//! ([`Caches::set_segments_open_max`]); where it runs short of them all the same, or of memory, what
//! nobody reads is closed (`Caches::with_room`).

use crate::decoded::Decoders;
use crate::ingest::open::OpenSegment as OpenIngestSegment;
use crate::limits::SEGMENTS_OPEN_MAX;
use crate::open_cache::OpenCache;
use crate::search::AutomatonMemory;
use crate::storage::Refusal;
use crate::store::segment::OpenSegment as OpenStoreSegment;

/// See the page of the module. Both sides of a node and its search are given the same.
#[derive(Default)]
pub struct Caches {
    pub(crate) ingest: OpenCache<OpenIngestSegment>,
    pub(crate) store: OpenCache<OpenStoreSegment>,
    pub(crate) decoders: Decoders,
    pub(crate) automata: AutomatonMemory,
}

/// How often something is tried again for which the process lacks room.
const TRIES_AGAIN: u32 = 3;

impl Caches {
    /// Sets how many segments of store and ingest each may stay open though nobody reads them; those
    /// beyond it are closed. Never more than [`SEGMENTS_OPEN_MAX`].
    pub fn set_segments_open_max(&self, count: usize) {
        let count = count.min(SEGMENTS_OPEN_MAX);
        self.ingest.set_count_max(count);
        self.store.set_count_max(count);
    }

    /// Does what takes descriptors and memory. Where the process is short of them, the segments that are
    /// open though nobody reads them are closed, and it is done again.
    pub(crate) fn with_room<T>(
        &self,
        mut act: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut done = act();
        for _ in 0..TRIES_AGAIN {
            match &done {
                Err(refusal) if refusal.is_shortage() => {
                    self.ingest.close_all();
                    self.store.close_all();
                }
                _ => return done,
            }
            done = act();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_want_of_room_is_done_again_and_nothing_else_is() {
        let of = |errno| Refusal::from(&std::io::Error::from_raw_os_error(errno));
        let tries = |errno, good_at| {
            let mut count = 0;
            let done = Caches::default().with_room(|| {
                count += 1;
                if count == good_at { Ok(()) } else { Err(of(errno)) }
            });
            (done, count)
        };
        assert_eq!(tries(libc::EMFILE, 3), (Ok(()), 3));
        assert_eq!(tries(libc::EMFILE, 9), (Err(of(libc::EMFILE)), 1 + TRIES_AGAIN));
        assert_eq!(tries(libc::EIO, 2), (Err(of(libc::EIO)), 1));
    }
}
