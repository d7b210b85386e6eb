//! Retention, turn by turn: store segments expire, and with them what of the ingest side could not be
//! read for as long as records are kept.
//!
//! Invariants: as those of [`crate::store::retention`]; nothing of the ingest side goes while the clock
//! is not trusted. A failure makes it wait; a change of state is news once.

use std::path::PathBuf;
use std::sync::Arc;

use crate::ingest::log::Now;
use crate::ingest::registry::Registry;
use crate::store::catalogue::Catalogue;
use crate::store::retention::{ClockWatch, RetentionLimits};
use crate::store::retention_run::{Retention, RetentionTurn};

use super::Node;

/// Time between looks at what has expired, ms.
const BEAT_MS: u64 = 1_000;
/// The same after a failure.
const BACK_OFF_MS: u64 = 10_000;

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The clock was set, or is far ahead of the newest record: nothing expires by age.
    ClockDistrusted,
    /// Records expire by age again.
    ClockTrusted,
    /// Something failed.
    Failing,
    /// Nothing fails any more.
    WorksAgain,
}

/// What a turn did.
#[derive(Debug, Default)]
pub struct Turn {
    /// What became of store segments, and what failed on either side.
    pub done: RetentionTurn,
    /// Files of the ingest side that are gone: they could not be read for too long.
    pub unreadable: Vec<PathBuf>,
    /// What is otherwise than it was.
    pub news: Vec<News>,
}

/// See the module page.
pub struct Expiring {
    retention: Retention,
    retain_ms: u64,
    catalogue: Arc<Catalogue>,
    ingest: Option<Arc<Registry>>,
    next_ms: u64,
    is_paused: bool,
    is_failing: bool,
}

impl Expiring {
    /// Of a node that keeps records, from now on; `None` for one that does not.
    pub fn start(node: &Node, limits: RetentionLimits, now: Now) -> Option<Self> {
        let catalogue = Arc::clone(&node.store.as_ref()?.catalogue);
        let watch = ClockWatch::start(now.monotonic_us / 1000, now.wall_ms, node.newest_ms);
        Some(Self {
            retention: Retention::new(limits, watch),
            retain_ms: limits.retain_ms,
            catalogue,
            ingest: node.ingest.as_ref().map(|ingest| Arc::clone(&ingest.registry)),
            next_ms: 0,
            is_paused: false,
            is_failing: false,
        })
    }

    /// When it is to be turned again, milliseconds of the monotonic clock.
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Does what is due; `None`: nothing was yet.
    pub fn turn(&mut self, now: Now) -> Option<Turn> {
        let now_ms = now.monotonic_us / 1000;
        if now_ms < self.next_ms {
            return None;
        }
        let mut turn = Turn {
            done: self.retention.turn(&self.catalogue, now_ms, now.wall_ms),
            ..Turn::default()
        };
        if let Some(ingest) = self.ingest.as_ref().filter(|_| !turn.done.is_paused) {
            let horizon_ms = now.wall_ms.saturating_sub(self.retain_ms);
            let (gone, errors) = ingest.expire_unread(horizon_ms);
            turn.unreadable = gone;
            let errors = errors.into_iter().map(|e| (e.operation, e.path, e.error));
            turn.done.failed.extend(errors);
        }
        let is_failing = !turn.done.failed.is_empty();
        self.next_ms = now_ms + if is_failing { BACK_OFF_MS } else { BEAT_MS };
        let is_paused = turn.done.is_paused;
        if std::mem::replace(&mut self.is_paused, is_paused) != is_paused {
            turn.news.push(if is_paused { News::ClockDistrusted } else { News::ClockTrusted });
        }
        if std::mem::replace(&mut self.is_failing, is_failing) != is_failing {
            turn.news.push(if is_failing { News::Failing } else { News::WorksAgain });
        }
        Some(turn)
    }
}
