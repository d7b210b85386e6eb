//! Tells and counts what becomes of what has expired.

use std::time::Duration;

use engine::node::expiring::{Expired, News};
use engine::store::retention::RetentionLimits;
use engine::store::trash::Trashed;
use net::metrics::NodeMetrics;

use crate::config::StoreConfig;

/// What the operator allows.
pub(super) fn limits(config: &StoreConfig) -> RetentionLimits {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    RetentionLimits {
        retain_ms: ms(config.segment_retain),
        purge_ms: ms(config.segment_purge),
        size_bytes_max: config.retain_size_bytes,
    }
}

/// What was done. A state is told when it changes, what went for want of size always.
pub(super) fn tell(turn: &Expired, metrics: &NodeMetrics) {
    count(turn, metrics);
    for path in &turn.unreadable {
        let path = path.display();
        tracing::info!("{path} was not readable for as long as records are kept: removed");
    }
    turn.news.iter().for_each(|news| tell_news(*news, turn));
    let (done, bytes) =
        (&turn.done, |files: &[Trashed]| -> u64 { files.iter().map(|file| file.file_bytes).sum() });
    if done.surplus_count > 0 {
        tracing::warn!(
            segments = done.surplus_count,
            "the oldest records go before their time: the store holds more than \
             --store.retain-size"
        );
    }
    if !done.trashed.is_empty() {
        let (segments, bytes) = (done.trashed.len(), bytes(&done.trashed));
        tracing::info!(segments, bytes, "moved expired segments to the trash");
    }
    if !done.purged.is_empty() {
        let (segments, bytes) = (done.purged.len(), bytes(&done.purged));
        tracing::info!(segments, bytes, "purged segments from the trash");
    }
}

fn tell_news(news: News, turn: &Expired) {
    match news {
        News::ClockDistrusted => tracing::warn!(
            "the clock was set, or is far ahead of the newest record: nothing expires by age until \
             an hour has passed (--store.retain-size still counts)"
        ),
        News::ClockTrusted => {
            tracing::info!("the clock is trusted again: records expire by age");
        }
        News::Held => tracing::warn!(
            "records that have expired stay in the store while its INVENTORY can be neither read nor \
             written (a later version reads it, perhaps): for ten minutes, then it is removed"
        ),
        News::InventoryGivenUp => tracing::warn!(
            "the INVENTORY of the store was removed, for it could be neither read nor written and \
             records are to expire: what vanished before is not told as missing any more"
        ),
        News::Failing => {
            for (operation, path, error) in &turn.done.failed {
                tracing::error!(
                    "cannot {operation} {}: {error}; it is tried again with pauses",
                    path.display()
                );
            }
        }
        News::WorksAgain => tracing::info!("retention works again"),
    }
}

fn count(turn: &Expired, metrics: &NodeMetrics) {
    let (done, store) = (&turn.done, &metrics.store);
    store.trashed_segments.inc_by(done.trashed.len() as u64);
    store.purged_segments.inc_by(done.purged.len() as u64);
    store.surplus_segments.inc_by(done.surplus_count);
    let failed = |wanted: &str| done.failed.iter().filter(|(what, ..)| *what == wanted).count();
    store.trash_failures.inc_by(failed("move to the trash") as u64);
    store.purge_failures.inc_by(failed("purge") as u64);
    store.retention_paused.set(i64::from(done.is_paused));
}
