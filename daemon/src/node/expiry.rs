//! Lets store segments expire, and ingest files that could not be read for as long, beside compaction
//! on its thread, and tells what went.
//!
//! Invariants: a state is told when it changes, what went for want of size always.

use std::time::Duration;

use engine::ingest::registry::Registry;
use engine::store::catalogue::Catalogue;
use engine::store::retention::{ClockWatch, RetentionLimits};
use engine::store::retention_run::{Retention, RetentionTurn};
use net::metrics::NodeMetrics;
use net::shard::Clock;

use crate::config::StoreConfig;

/// Time between looks at what has expired, milliseconds.
const BEAT_MS: u64 = 1_000;
/// The same after a failure.
const BACK_OFF_MS: u64 = 10_000;

/// What the operator allows.
pub(super) fn limits(config: &StoreConfig) -> RetentionLimits {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    RetentionLimits {
        retain_ms: ms(config.segment_retain),
        purge_ms: ms(config.segment_purge),
        size_bytes_max: config.retain_size_bytes,
    }
}

/// See the module page.
pub(super) struct Expiry {
    retention: Retention,
    retain_ms: u64,
    next_ms: u64,
    is_paused: bool,
    is_failing: bool,
}

impl Expiry {
    /// From now on; `newest_ms` is the newest stamp that was found on disk.
    pub(super) fn start(limits: RetentionLimits, clock: Clock, newest_ms: u64) -> Self {
        let now = clock.now();
        let watch = ClockWatch::start(now.monotonic_us / 1000, now.wall_ms, newest_ms);
        let retention = Retention::new(limits, watch);
        let retain_ms = limits.retain_ms;
        Self { retention, retain_ms, next_ms: 0, is_paused: false, is_failing: false }
    }

    /// Does what is due.
    pub(super) fn turn(
        &mut self,
        catalogue: &Catalogue,
        ingest: &Registry,
        clock: Clock,
        metrics: &NodeMetrics,
    ) {
        let now = clock.now();
        let now_ms = now.monotonic_us / 1000;
        if now_ms < self.next_ms {
            return;
        }
        let mut turn = self.retention.turn(catalogue, now_ms, now.wall_ms);
        if !turn.is_paused {
            let (gone, errors) = ingest.expire_unread(now.wall_ms.saturating_sub(self.retain_ms));
            for path in gone {
                let path = path.display();
                tracing::info!("{path} was not readable for as long as records are kept: removed");
            }
            turn.failed.extend(errors.into_iter().map(|e| (e.operation, e.path, e.error)));
        }
        self.next_ms = now_ms + if turn.failed.is_empty() { BEAT_MS } else { BACK_OFF_MS };
        count(&turn, metrics);
        self.tell(&turn);
    }

    fn tell(&mut self, turn: &RetentionTurn) {
        let bytes = |files: &[engine::store::trash::Trashed]| -> u64 {
            files.iter().map(|file| file.file_bytes).sum()
        };
        if turn.is_paused != std::mem::replace(&mut self.is_paused, turn.is_paused) {
            if turn.is_paused {
                tracing::warn!(
                    "the clock was set, or is far ahead of the newest record: nothing expires by \
                     age until an hour has passed (--store.retain-size still counts)"
                );
            } else {
                tracing::info!("the clock is trusted again: records expire by age");
            }
        }
        if turn.surplus_count > 0 {
            tracing::warn!(
                segments = turn.surplus_count,
                "the oldest records go before their time: the store holds more than \
                 --store.retain-size"
            );
        }
        if !turn.trashed.is_empty() {
            let (segments, bytes) = (turn.trashed.len(), bytes(&turn.trashed));
            tracing::info!(segments, bytes, "moved expired segments to the trash");
        }
        if !turn.purged.is_empty() {
            let (segments, bytes) = (turn.purged.len(), bytes(&turn.purged));
            tracing::info!(segments, bytes, "purged segments from the trash");
        }
        let is_failing = !turn.failed.is_empty();
        if is_failing && !self.is_failing {
            for (operation, path, error) in &turn.failed {
                tracing::error!(
                    "cannot {operation} {}: {error}; it is tried again with pauses",
                    path.display()
                );
            }
        } else if self.is_failing && !is_failing {
            tracing::info!("retention works again");
        }
        self.is_failing = is_failing;
    }
}

fn count(turn: &RetentionTurn, metrics: &NodeMetrics) {
    let store = &metrics.store;
    store.trashed_segments.inc_by(turn.trashed.len() as u64);
    store.purged_segments.inc_by(turn.purged.len() as u64);
    store.surplus_segments.inc_by(turn.surplus_count);
    let failed = |wanted: &str| turn.failed.iter().filter(|(what, ..)| *what == wanted).count();
    store.trash_failures.inc_by(failed("move to the trash") as u64);
    store.purge_failures.inc_by(failed("purge") as u64);
    store.retention_paused.set(i64::from(turn.is_paused));
}
