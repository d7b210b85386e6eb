//! The last gathering of a node that stops: everything that is flushed goes to the store.
//!
//! Invariants: nothing is begun behind the deadline, or in a directory that was taken away; what is under
//! way comes to its end, unless it is cancelled.

use std::sync::Arc;

use super::super::doors::Doors;
use super::super::gathering::{Gathering, GatheringOptions, Happened};
use super::super::local_ingest::LocalIngest;
use super::super::pressure::Load;
use crate::ingest::log::Now;
use crate::store::catalogue::Catalogue;
use crate::store::gather::GatherLimits;

/// See the module page.
pub struct Rest {
    gathering: Gathering,
    doors: Arc<Doors>,
    deadline_ms: u64,
    is_over: bool,
}

impl Rest {
    /// With the options of all gathering, until the deadline; milliseconds of the monotonic clock.
    pub fn start(
        ingest: Arc<LocalIngest>,
        catalogue: Arc<Catalogue>,
        doors: Arc<Doors>,
        options: GatheringOptions,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Self {
        // Nothing waits for company.
        let limits = GatherLimits { target_bytes: 1, target_age_ms: 0, ..options.limits };
        let options = GatheringOptions { limits, ..options };
        let gathering = Gathering::start(ingest, catalogue, options, now_ms);
        Self { gathering, doors, deadline_ms, is_over: false }
    }

    /// Whether there is nothing more to do.
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Ends what is under way.
    pub const fn cancel(&mut self) {
        self.gathering.cancel();
    }

    /// Does a piece of the work; says what happened, in order.
    pub fn turn(&mut self, now: Now) -> Vec<Happened> {
        let now_ms = now.monotonic_us / 1000;
        let may_begin = now_ms < self.deadline_ms && !self.doors.is_ground_lost();
        let mut happened = Vec::new();
        if self.is_over {
            return happened;
        }
        if self.gathering.is_busy() || may_begin {
            // No shard needs the disk any more.
            happened = self.gathering.turn(now, &Load::default);
            self.is_over = self.gathering.next_ms() > now_ms;
        } else {
            self.is_over = true;
        }
        happened
    }
}
