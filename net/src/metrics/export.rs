//! Which metric is told under which name.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Unit;

use crate::access::Reason;

use super::{
    AccessMetrics, Distribution, FollowMetrics, IngestMetrics, LogMetrics, NodeMetrics,
    QueryMetrics, StoreMetrics, label,
};

/// Writes families one after the other.
struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> Result<(), Error> {
        let (stem, unit) = unit_of(name);
        metric.encode(self.encoder.encode_descriptor(stem, help, unit, metric.metric_type())?)
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) -> Result<(), Error> {
        self.one(name, help, counter)
    }

    fn gauge(&mut self, name: &str, help: &str, gauge: &Gauge) -> Result<(), Error> {
        self.one(name, help, gauge)
    }

    /// A family of fixed label values.
    fn labelled<M: EncodeMetric>(
        &mut self,
        (name, help): (&str, &str),
        label_name: &'static str,
        members: &[(String, &M)],
    ) -> Result<(), Error> {
        let kind = members.first().map_or(MetricType::Unknown, |(_, metric)| metric.metric_type());
        let (stem, unit) = unit_of(name);
        let mut encoder = self.encoder.encode_descriptor(stem, help, unit, kind)?;
        for (value, metric) in members {
            metric.encode(encoder.encode_family(&label(label_name, value))?)?;
        }
        Ok(())
    }
}

/// A name that ends in a unit, without it, and the unit.
fn unit_of(name: &str) -> (&str, Option<&'static Unit>) {
    const UNITS: [(&str, &Unit); 2] = [("_seconds", &Unit::Seconds), ("_bytes", &Unit::Bytes)];
    let found = UNITS.iter().find_map(|(end, unit)| Some((name.strip_suffix(end)?, Some(*unit))));
    found.unwrap_or((name, None))
}

impl Collector for NodeMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut writer = Writer { encoder };
        ingest_totals(&mut writer, &self.ingest)?;
        ingest_lines(&mut writer, &self.ingest)?;
        store(&mut writer, &self.store)?;
        query(&mut writer, &self.query)?;
        follow(&mut writer, &self.follow)?;
        access(&mut writer, &self.access)?;
        node(&mut writer, self)?;
        shards_and_connections(&mut writer, self)
    }
}

fn ingest_totals(w: &mut Writer<'_>, m: &IngestMetrics) -> Result<(), Error> {
    w.counter(
        "ingest_writer_bytes_written",
        "Bytes of records written to segments.",
        &m.bytes_written,
    )?;
    w.counter("ingest_writer_records_written", "Records written to segments.", &m.records_written)?;
    w.counter("ingest_writer_syncs", "Syncs of segments.", &m.syncs)?;
    w.labelled(
        ("ingest_writer_flushes", "Segments flushed, by reason."),
        "reason",
        &[
            ("size".to_owned(), &m.flushes_by_size),
            ("age".to_owned(), &m.flushes_by_age),
            ("shutdown".to_owned(), &m.flushes_by_shutdown),
            ("failure".to_owned(), &m.flushes_by_failure),
        ],
    )?;
    w.one(
        "ingest_segment_flush_age_seconds",
        "Age of segments when flushed.",
        &m.flush_age_seconds,
    )?;
    w.one(
        "ingest_segment_flush_size_bytes",
        "Size of segments when flushed.",
        &m.flush_size_bytes,
    )?;
    w.one("ingest_flush_duration_seconds", "Time to write a frame.", &m.flush_seconds)?;
    w.one("ingest_sync_duration_seconds", "Time to sync a segment.", &m.sync_seconds)?;
    w.counter(
        "ingest_failed_segments",
        "Claimed segments that went back to flushed.",
        &m.failed_segments,
    )?;
    w.counter(
        "ingest_committed_segments",
        "Segments of which the store has everything.",
        &m.committed_segments,
    )?;
    w.counter("ingest_committed_bytes", "Text of committed segments.", &m.committed_bytes)
}

fn ingest_lines(w: &mut Writer<'_>, m: &IngestMetrics) -> Result<(), Error> {
    w.counter("ingest_taken_bytes", "Bytes taken from clients.", &m.taken_bytes)?;
    let help = "Bytes of them received straight into a frame: from senders in bulk.";
    w.counter("ingest_direct_bytes", help, &m.direct_bytes)?;
    w.counter("ingest_cut_records", "Records cut from longer lines.", &m.cut_records)?;
    w.counter(
        "ingest_partial_lines_cut",
        "Lines cut early for want of memory for partial lines.",
        &m.partial_lines_cut,
    )?;
    w.counter(
        "ingest_partial_lines_idle",
        "Unfinished lines made records because nothing came for a while.",
        &m.partial_lines_idle,
    )?;
    w.counter(
        "ingest_lost_counts",
        "Connections that were to count octets and did not.",
        &m.lost_counts,
    )?;
    w.counter(
        "ingest_partial_lines_kept",
        "Unfinished lines kept when their connection ended.",
        &m.partial_lines_kept,
    )?;
    w.counter(
        "ingest_partial_lines_discarded",
        "Unfinished lines of acknowledged connections discarded.",
        &m.partial_lines_discarded,
    )?;
    w.counter(
        "ingest_invalid_topic_records",
        "Records whose topic is missing, malformed or one too many.",
        &m.invalid_topic_records,
    )?;
    w.labelled(
        ("ingest_strangers", "Connections to ingest ports that spoke another protocol."),
        "protocol",
        &[("http".to_owned(), &m.http_strangers), ("tls".to_owned(), &m.tls_strangers)],
    )?;
    w.counter("ingest_pauses", "Times that reading from clients was stopped.", &m.pauses)?;
    w.gauge("ingest_partial_line_bytes", "Partial lines in memory.", &m.partial_line_bytes)?;
    w.gauge("ingest_topics", "Topics that count against the limit.", &m.topics)?;
    w.gauge("ingest_backlog_bytes", "Bytes that wait for the store.", &m.backlog_bytes)?;
    w.gauge(
        "ingest_backlog_limit_bytes",
        "Bytes that may wait before senders are slowed down.",
        &m.backlog_limit_bytes,
    )?;
    w.gauge("ingest_backlog_full", "Whether the backlog is full.", &m.backlog_full)?;
    w.gauge("ingest_unread_segments", "Files that cannot be read now.", &m.unread_segments)?;
    w.gauge("ingest_damaged_segments", "Files that are set aside.", &m.damaged_segments)?;
    w.gauge(
        "ingest_missing_records",
        "Records that waited to be stored and are in no file.",
        &m.missing_records,
    )?;
    w.one(
        "unstored_age_seconds",
        "Age of the oldest record that is not in the store yet.",
        &m.unstored_age_seconds,
    )?;
    w.gauge("unindexed_bytes", "Bytes that no index covers yet.", &m.unindexed_bytes)
}

fn store(w: &mut Writer<'_>, m: &StoreMetrics) -> Result<(), Error> {
    w.counter("store_consumed_segments", "Ingest segments gathered.", &m.consumed_segments)?;
    w.counter("store_consumed_bytes", "Text of gathered segments.", &m.consumed_bytes)?;
    let egress = |counter| [("egress".to_owned(), counter)];
    w.labelled(
        ("store_replicated_segments", "Store segments published, by direction."),
        "direction",
        &egress(&m.replicated_segments),
    )?;
    w.labelled(
        ("store_replicated_bytes", "Text of published segments, by direction."),
        "direction",
        &egress(&m.replicated_bytes),
    )?;
    w.labelled::<Distribution>(
        ("store_compact_duration_seconds", "Time of compactions, by kind."),
        "kind",
        &[
            ("Overlapping".to_owned(), &m.compact_overlapping_seconds),
            ("Sequential".to_owned(), &m.compact_sequential_seconds),
        ],
    )?;
    w.counter("store_compact_failures", "Compactions that failed.", &m.compact_failures)?;
    w.gauge(
        "store_compact_wanted_bytes",
        "Room that a compaction waits for.",
        &m.compact_wanted_bytes,
    )?;
    expiry(w, m)?;
    w.gauge("store_segments", "Published segments.", &m.segments)?;
    w.gauge("store_bytes", "Files of published segments.", &m.bytes)?;
    w.gauge("store_text_bytes", "Text of published segments, not compressed.", &m.text_bytes)?;
    w.gauge(
        "store_unread_segments",
        "Published segments that cannot be read for now.",
        &m.unread_segments,
    )?;
    w.gauge(
        "store_missing_records",
        "Records that were stored and are in no file.",
        &m.missing_records,
    )?;
    w.gauge("store_replicas_missing", "Copies that segments lack.", &m.replicas_missing)
}

fn expiry(w: &mut Writer<'_>, m: &StoreMetrics) -> Result<(), Error> {
    let both = |good, bad| [("true".to_owned(), good), ("false".to_owned(), bad)];
    w.labelled::<Counter>(
        ("store_trashed_segments", "Segments moved to trash."),
        "success",
        &both(&m.trashed_segments, &m.trash_failures),
    )?;
    w.labelled::<Counter>(
        ("store_purged_segments", "Segments purged from trash."),
        "success",
        &both(&m.purged_segments, &m.purge_failures),
    )?;
    w.counter(
        "store_surplus_segments",
        "Segments that left before their time, for the size of the store.",
        &m.surplus_segments,
    )?;
    w.gauge("store_trash_segments", "Segments in the trash.", &m.trash_segments)?;
    w.gauge("store_trash_bytes", "Files in the trash.", &m.trash_bytes)?;
    w.gauge(
        "store_retention_paused",
        "Whether nothing expires because the clock was set.",
        &m.retention_paused,
    )
}

fn query(w: &mut Writer<'_>, m: &QueryMetrics) -> Result<(), Error> {
    w.one("queries", "Queries, by kind.", &m.queries)?;
    w.one("query_duration_seconds", "Time of queries to their last byte, by kind.", &m.seconds)?;
    w.gauge("queries_running", "Queries that run.", &m.running)?;
    w.gauge("queries_waiting", "Queries that wait for their turn.", &m.waiting)?;
    w.counter("queries_refused", "Queries refused because too many ran.", &m.refused)?;
    w.counter(
        "queries_incomplete",
        "Queries of which some part could not be searched.",
        &m.incomplete,
    )?;
    w.counter(
        "query_gaps",
        "Parts that could not be searched, each once however many queries met it.",
        &m.gaps,
    )?;
    w.counter("query_records", "Records found.", &m.records)?;
    w.counter("query_bytes_scanned", "Text searched.", &m.bytes_scanned)?;
    w.counter(
        "query_abandoned_bytes",
        "Text searched for clients that had left.",
        &m.abandoned_bytes,
    )
}

fn access(w: &mut Writer<'_>, m: &AccessMetrics) -> Result<(), Error> {
    let refused = Reason::ALL.map(|reason| (reason.name().to_owned(), m.refused(reason)));
    w.labelled(
        (
            "access_refused",
            "Requests and connections refused by --auth.file and --http.rate-limit, by reason.",
        ),
        "reason",
        &refused,
    )?;
    w.counter(
        "access_withdrawn",
        "Answers and connections ended because their token does no longer what it did.",
        &m.withdrawn,
    )?;
    w.counter("access_changes", "Times that --auth.file was taken anew.", &m.changes)?;
    w.gauge(
        "access_file_failing",
        "Whether --auth.file cannot be used, and what was read before holds.",
        &m.file_failing,
    )?;
    w.gauge("access_tokens", "Tokens that are known.", &m.tokens)
}

fn follow(w: &mut Writer<'_>, m: &FollowMetrics) -> Result<(), Error> {
    w.gauge("followers", "Live followers.", &m.followers)?;
    w.counter("follow_records", "Records handed to live followers.", &m.records)?;
    w.counter("follow_bytes", "Bytes handed to live followers, as they are sent.", &m.bytes)?;
    w.counter(
        "follow_missed_records",
        "Records that live followers missed because they were too slow.",
        &m.missed,
    )
}

fn node(w: &mut Writer<'_>, m: &NodeMetrics) -> Result<(), Error> {
    w.labelled(
        (
            "disk_written_bytes",
            "Bytes written: frames and store segments to the disk, tail chunks to the page cache.",
        ),
        "kind",
        &[
            ("frames".to_owned(), &m.disk_written_frames),
            ("tail".to_owned(), &m.disk_written_tail),
            ("gather".to_owned(), &m.disk_written_gather),
            ("compaction".to_owned(), &m.disk_written_compaction),
        ],
    )?;
    let taken = m.ingest.taken_bytes.get();
    let store = m.disk_written_gather.get() + m.disk_written_compaction.get();
    let written = m.disk_written_frames.get() + store;
    let ratio = if taken == 0 { 0.0 } else { written as f64 / taken as f64 };
    w.one(
        "bytes_written_per_byte_taken",
        "Bytes written to the disk for each byte taken, since start.",
        &ConstGauge::new(ratio),
    )?;
    w.gauge("disk_free_bytes", "Free bytes of the file system of the data.", &m.disk_free_bytes)?;
    w.gauge(
        "disk_until_refusal_bytes",
        "Bytes that may be taken before new records are refused.",
        &m.disk_until_refusal_bytes,
    )?;
    w.gauge(
        "disk_refusing",
        "Whether new records are refused for want of space.",
        &m.disk_refusing,
    )?;
    w.gauge(
        "process_short",
        "Whether no file can be opened for want of descriptors or memory.",
        &m.process_short,
    )?;
    w.one("disk_failing", "Whether the disk of a directory refuses or hangs.", &m.disk_failing)?;
    w.counter("damage", "Damaged spans found in files.", &m.damage)?;
    w.counter("damage_records_lost", "Records known to be lost in them.", &m.damage_records_lost)?;
    w.counter("torn_frames", "Unfinished or damaged last frames found.", &m.torn_frames)?;
    w.counter("torn_bytes", "Their length where it is known.", &m.torn_bytes)?;
    w.one("clock_ahead_seconds", "How far stamps are ahead of the clock.", &m.clock_ahead_seconds)?;
    log(w, &m.log)?;
    w.one("cluster_size", "Nodes known, this one included.", &ConstGauge::new(1_i64))?;
    w.one("queue_depth", "What waits in a queue.", &m.queue_depth)
}

fn log(w: &mut Writer<'_>, m: &LogMetrics) -> Result<(), Error> {
    m.counters().into_iter().try_for_each(|(name, help, counter)| w.counter(name, help, counter))
}

fn shards_and_connections(w: &mut Writer<'_>, m: &NodeMetrics) -> Result<(), Error> {
    fn numbered<M>(members: &[M]) -> Vec<(String, &M)> {
        members.iter().enumerate().map(|(shard, metric)| (shard.to_string(), metric)).collect()
    }
    w.labelled(
        ("shard_loop_lag_seconds", "Time of a turn of a shard's loop, waiting excluded."),
        "shard",
        &numbered(&m.shard_loop_lag),
    )?;
    w.labelled(("shard_turns", "Turns of a shard's loop."), "shard", &numbered(&m.shard_turns))?;
    w.gauge("shard_memory_bytes", "Text that no segment holds yet.", &m.shard_memory_bytes)?;
    w.one(
        "thread_busy_seconds",
        "How long a thread has been at one piece of work.",
        &m.thread_busy,
    )?;
    w.one("connected_clients", "Open connections, by modality.", &m.connected)?;
    w.one("connections", "Connections accepted, by modality.", &m.connections)?;
    w.one("connections_refused", "Connections refused, by modality.", &m.connections_refused)?;
    let help = "What is out of a budget of HTTP; of one by address, the most that one has.";
    w.one("http_budget_used", help, &m.budget_used)?;
    w.one("http_budget_limit", "What there is in a budget of HTTP.", &m.budget_limit)?;
    let help = "Requests that found a budget of HTTP empty.";
    w.one("http_budget_refused", help, &m.budget_refused)?;
    w.one("api_request_duration_seconds", "Time of HTTP requests.", &m.api_seconds)
}
