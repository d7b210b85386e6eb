//! What a shard counts in one turn of its loop, handed to the node's metrics at the end of the
//! turn: no record and no received chunk costs an atomic operation.

use engine::ingest::promises::Promises;

use crate::access::Reason;
use crate::metrics::NodeMetrics;

/// Counts since the last [`Tally::publish`], and levels as they are now.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Bytes received on TCP or handed over by HTTP.
    pub(super) taken_bytes: u64,
    /// Of them, received straight into a frame.
    pub(super) direct_bytes: u64,
    pub(super) records: u64,
    /// Their text, LFs included.
    pub(super) text_bytes: u64,
    /// Bytes of frames written.
    pub(super) frame_bytes: u64,
    /// Bytes of tail chunks written.
    pub(super) tail_bytes: u64,
    pub(super) syncs: u64,
    pub(super) cut_records: u64,
    pub(super) partials_kept: u64,
    pub(super) partials_cut: u64,
    pub(super) partials_discarded: u64,
    pub(super) invalid_topics: u64,
    pub(super) partials_idle: u64,
    pub(super) lost_counts: u64,
    pub(super) http_strangers: u64,
    pub(super) tls_strangers: u64,
    pub(super) pauses: u64,
    /// By reason.
    pub(super) denied: [u64; Reason::ALL.len()],
    pub(super) withdrawn: u64,
    /// Bytes of unfinished lines now.
    pub(super) partial_bytes: usize,
    /// Received buffers and appends that wait now.
    pub(super) deferred: usize,
    /// Text in memory that no segment holds yet.
    pub(super) memory_bytes: u64,
    /// Newest stamp given, ms.
    pub(super) newest_ms: u64,
    /// What senders were told, and what they wait for.
    pub(super) promises: Promises,
    published: Levels,
}

#[derive(Debug, Default, Clone, Copy)]
struct Levels {
    partial_bytes: i64,
    deferred: i64,
    memory_bytes: i64,
}

impl Tally {
    /// Adds the counts to the node's and moves its gauges by what has changed.
    pub(super) fn publish(&mut self, metrics: &NodeMetrics) {
        let ingest = &metrics.ingest;
        for (counter, count) in [
            (&ingest.taken_bytes, &mut self.taken_bytes),
            (&ingest.direct_bytes, &mut self.direct_bytes),
            (&ingest.records_written, &mut self.records),
            (&ingest.bytes_written, &mut self.text_bytes),
            (&ingest.syncs, &mut self.syncs),
            (&ingest.cut_records, &mut self.cut_records),
            (&ingest.partial_lines_kept, &mut self.partials_kept),
            (&ingest.partial_lines_cut, &mut self.partials_cut),
            (&ingest.partial_lines_discarded, &mut self.partials_discarded),
            (&ingest.invalid_topic_records, &mut self.invalid_topics),
            (&ingest.partial_lines_idle, &mut self.partials_idle),
            (&ingest.lost_counts, &mut self.lost_counts),
            (&ingest.http_strangers, &mut self.http_strangers),
            (&ingest.tls_strangers, &mut self.tls_strangers),
            (&ingest.pauses, &mut self.pauses),
            (&metrics.access.withdrawn, &mut self.withdrawn),
            (&metrics.disk_written_frames, &mut self.frame_bytes),
            (&metrics.disk_written_tail, &mut self.tail_bytes),
        ] {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
        for reason in Reason::ALL {
            let count = std::mem::take(&mut self.denied[reason as usize]);
            if count > 0 {
                metrics.access.refused(reason).inc_by(count);
            }
        }
        let now = Levels {
            partial_bytes: self.partial_bytes as i64,
            deferred: self.deferred as i64,
            memory_bytes: self.memory_bytes as i64,
        };
        ingest.partial_line_bytes.inc_by(now.partial_bytes - self.published.partial_bytes);
        metrics.shard_deferred.inc_by(now.deferred - self.published.deferred);
        metrics.shard_memory_bytes.inc_by(now.memory_bytes - self.published.memory_bytes);
        self.published = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_levels_follow() {
        let metrics = NodeMetrics::new(1);
        let mut tally = Tally { records: 2, partial_bytes: 7, ..Tally::default() };
        tally.publish(&metrics);
        tally.records += 3;
        tally.partial_bytes = 4;
        tally.publish(&metrics);
        assert_eq!(metrics.ingest.records_written.get(), 5);
        assert_eq!(metrics.ingest.partial_line_bytes.get(), 4);
    }
}
