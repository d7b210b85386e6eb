//! The counters of a node: plain atomics that any thread updates without a lock, written as
//! OpenMetrics text when scraped.
//!
//! Names of the predecessor are kept (prefix `oklog_`; counters end in `_total`); the table old →
//! new is in `docs/metrics.md`. Invariants: label values come from fixed sets or from the number
//! of shards, never from input.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use engine::damage::Damage;

use crate::access::Reason;

use self::damage_seen::DamageSeen;
pub use self::distribution::Distribution;
pub use self::exposition::Exposition;

mod damage_seen;
mod distribution;
mod export;
mod exposition;

/// One label: its name and its value.
pub(crate) type Label = [(&'static str, String); 1];
pub(crate) type Labels = Vec<(&'static str, String)>;

/// Log lines that were not written.
#[derive(Debug, Default, Clone)]
pub struct LogMetrics {
    /// Lines that standard error did not take, or not fast enough.
    pub left_out: Counter,
    /// Lines that were counted, because the same place had said enough.
    pub more_like_it: Counter,
}

impl LogMetrics {
    /// Name without prefix, what it counts, and the counter.
    pub const fn counters(&self) -> [(&'static str, &'static str, &Counter); 2] {
        [
            ("log_lines_left_out", "Log lines that standard error did not take.", &self.left_out),
            (
                "log_lines_more_like_it",
                "Log lines that were only counted, as too many.",
                &self.more_like_it,
            ),
        ]
    }
}

/// Metrics of taking records in.
#[derive(Debug, Default, Clone)]
pub struct IngestMetrics {
    /// Bytes of records written to segments, LFs included.
    pub bytes_written: Counter,
    /// Records written to segments.
    pub records_written: Counter,
    /// Bytes taken from clients.
    pub taken_bytes: Counter,
    /// Bytes of them that were received straight into a frame.
    pub direct_bytes: Counter,
    /// Syncs of segments.
    pub syncs: Counter,
    /// How long writing a frame took.
    pub flush_seconds: Distribution,
    /// How long a sync took.
    pub sync_seconds: Distribution,
    /// Segments that were flushed because of their size.
    pub flushes_by_size: Counter,
    /// Segments that were flushed because of their age.
    pub flushes_by_age: Counter,
    /// Segments that were flushed because the node stopped.
    pub flushes_by_shutdown: Counter,
    /// Segments that were given up after a failed write or sync.
    pub flushes_by_failure: Counter,
    /// Age of segments when flushed.
    pub flush_age_seconds: Distribution,
    /// Size of segments when flushed.
    pub flush_size_bytes: Distribution,
    /// Claimed segments that went back to flushed.
    pub failed_segments: Counter,
    /// Segments of which the store has everything.
    pub committed_segments: Counter,
    /// Their text, bytes.
    pub committed_bytes: Counter,
    /// Bytes that wait for the store.
    pub backlog_bytes: Gauge,
    /// Bytes that may wait before senders are slowed down.
    pub backlog_limit_bytes: Gauge,
    /// Whether the backlog is full: 1 or 0.
    pub backlog_full: Gauge,
    /// Files that cannot be read at present.
    pub unread_segments: Gauge,
    /// Files that are set aside.
    pub damaged_segments: Gauge,
    /// Records that waited to be stored and are in no file.
    pub missing_records: Gauge,
    /// Age of the oldest record that is not in the store yet, seconds.
    pub unstored_age_seconds: Gauge<f64, AtomicU64>,
    /// Bytes that no index covers yet: in shard memory and in ingest segments.
    pub unindexed_bytes: Gauge,
    /// Records that were cut from longer lines.
    pub cut_records: Counter,
    /// Lines that were cut early because partial lines had used up their budget.
    pub partial_lines_cut: Counter,
    /// Unfinished lines that were made records because nothing came for a while.
    pub partial_lines_idle: Counter,
    /// Connections that were to count octets and did not.
    pub lost_counts: Counter,
    /// Unfinished lines that were kept as records when their connection ended.
    pub partial_lines_kept: Counter,
    /// Unfinished lines of acknowledged connections that were discarded.
    pub partial_lines_discarded: Counter,
    /// Partial lines in memory, bytes.
    pub partial_line_bytes: Gauge,
    /// Records whose topic is missing, malformed or one too many.
    pub invalid_topic_records: Counter,
    /// Topics that count against the limit.
    pub topics: Gauge,
    /// Connections to ingest ports that began with an HTTP request.
    pub http_strangers: Counter,
    /// The same, with a TLS handshake.
    pub tls_strangers: Counter,
    /// Times that reading from clients was stopped because the backlog or the buffers were full.
    pub pauses: Counter,
}

/// Metrics of keeping records.
#[derive(Debug, Default, Clone)]
pub struct StoreMetrics {
    /// Ingest segments that were gathered.
    pub consumed_segments: Counter,
    /// Their text, bytes.
    pub consumed_bytes: Counter,
    /// Store segments published.
    pub replicated_segments: Counter,
    /// Their text, bytes.
    pub replicated_bytes: Counter,
    /// How long compactions of overlapping segments took.
    pub compact_overlapping_seconds: Distribution,
    /// How long compactions of segments in sequence took.
    pub compact_sequential_seconds: Distribution,
    /// Compactions that failed.
    pub compact_failures: Counter,
    /// Room that a compaction waits for, bytes.
    pub compact_wanted_bytes: Gauge,
    /// Published segments.
    pub segments: Gauge,
    /// Their files, bytes.
    pub bytes: Gauge,
    /// Their text before it is compressed, bytes.
    pub text_bytes: Gauge,
    /// Published segments that cannot be read for now, in part at least.
    pub unread_segments: Gauge,
    /// Records that were published and are in no file.
    pub missing_records: Gauge,
    /// Segments moved to the trash.
    pub trashed_segments: Counter,
    /// Tries to move one that failed.
    pub trash_failures: Counter,
    /// Files purged from the trash.
    pub purged_segments: Counter,
    /// Tries to purge one that failed.
    pub purge_failures: Counter,
    /// Segments that left before their time, because the store may not hold as much.
    pub surplus_segments: Counter,
    /// Segments in the trash.
    pub trash_segments: Gauge,
    /// Their files, bytes.
    pub trash_bytes: Gauge,
    /// Whether nothing expires because the clock was set: 1 or 0.
    pub retention_paused: Gauge,
    /// Copies that segments lack because there are not enough stores.
    pub replicas_missing: Gauge,
}

/// Metrics of finding records.
#[derive(Debug, Default, Clone)]
pub struct QueryMetrics {
    /// Queries by kind: records, head, stats, histogram, topics.
    pub queries: Family<Label, Counter>,
    /// How long they took to their last byte, by kind.
    pub seconds: Family<Label, Distribution>,
    /// Queries that run.
    pub running: Gauge,
    /// Queries that wait for their turn.
    pub waiting: Gauge,
    /// Queries that were refused because too many ran.
    pub refused: Counter,
    /// Queries of which some part could not be searched.
    pub incomplete: Counter,
    /// Parts that could not be searched, each once however many queries met it.
    pub gaps: Counter,
    /// Records found.
    pub records: Counter,
    /// Text searched, bytes.
    pub bytes_scanned: Counter,
    /// Text searched for clients that had left, bytes.
    pub abandoned_bytes: Counter,
}

/// Metrics of live followers.
#[derive(Debug, Default, Clone)]
pub struct FollowMetrics {
    /// Followers.
    pub followers: Gauge,
    /// Records put into their queues.
    pub records: Counter,
    /// Their bytes, as they are sent.
    pub bytes: Counter,
    /// Records that did not fit there.
    pub missed: Counter,
}

/// Metrics of who may do what.
#[derive(Debug, Default, Clone)]
pub struct AccessMetrics {
    refused: [Counter; Reason::ALL.len()],
    /// Answers, streams and connections that ended because what they were let in with does so no longer.
    pub withdrawn: Counter,
    /// Times that another table was taken from the file.
    pub changes: Counter,
    /// Whether the file cannot be used, and what was read before holds: 1 or 0.
    pub file_failing: Gauge,
    /// Tokens that are known.
    pub tokens: Gauge,
}

impl AccessMetrics {
    /// Those who were refused for this reason.
    pub const fn refused(&self, reason: Reason) -> &Counter {
        &self.refused[reason as usize]
    }
}

/// What is told of a budget; the default is nothing.
#[derive(Debug, Default, Clone)]
pub struct BudgetMeter {
    used: Vec<Gauge>,
    refused: Vec<Counter>,
}

impl BudgetMeter {
    /// The same told under names of their own, too.
    #[must_use]
    pub fn and_as(mut self, used: Option<Gauge>, refused: Option<Counter>) -> Self {
        self.used.extend(used);
        self.refused.extend(refused);
        self
    }

    /// Of several budgets whose refusals are counted together, one.
    pub(crate) fn of_refusals(&self) -> Self {
        Self { used: Vec::new(), refused: self.refused.clone() }
    }

    pub(crate) fn took(&self, amount: u64) {
        for gauge in &self.used {
            gauge.inc_by(amount as i64);
        }
    }

    pub(crate) fn gave_back(&self, amount: u64) {
        for gauge in &self.used {
            gauge.dec_by(amount as i64);
        }
    }

    /// What is out, where that is not what was taken and given back.
    pub(crate) fn set(&self, used: impl FnOnce() -> u64) {
        if let [gauge, ..] = &self.used[..] {
            gauge.set(used() as i64);
        }
    }

    pub(crate) fn refused(&self) {
        for counter in &self.refused {
            counter.inc();
        }
    }
}

/// Everything that a node counts.
#[derive(Debug)]
pub struct NodeMetrics {
    /// Taking records in.
    pub ingest: IngestMetrics,
    /// Keeping them.
    pub store: StoreMetrics,
    /// Finding them.
    pub query: QueryMetrics,
    /// Following them live.
    pub follow: FollowMetrics,
    /// Who may do so.
    pub access: AccessMetrics,
    /// Telling of it.
    pub log: LogMetrics,
    /// Bytes handed to the disk as frames of ingest segments.
    pub disk_written_frames: Counter,
    /// Bytes handed to the page cache as tail chunks.
    pub disk_written_tail: Counter,
    /// Bytes handed to the disk as store segments made of ingest segments.
    pub disk_written_gather: Counter,
    /// Bytes handed to the disk as store segments made of others.
    pub disk_written_compaction: Counter,
    /// Free bytes of the file system that holds the data; of two the tighter one's.
    pub disk_free_bytes: Gauge,
    /// Bytes that ingest may take before new records are refused.
    pub disk_until_refusal_bytes: Gauge,
    /// Whether new records are refused for want of space: 1 or 0.
    pub disk_refusing: Gauge,
    /// Damaged spans found; see [`NodeMetrics::count_damage`].
    pub damage: Counter,
    /// Records known to be lost in them.
    pub damage_records_lost: Counter,
    damage_seen: DamageSeen,
    /// Unfinished or damaged last frames found at the start.
    pub torn_frames: Counter,
    /// Their length where it is known, bytes.
    pub torn_bytes: Counter,
    /// How far stamps are ahead of the wall clock, seconds.
    pub clock_ahead_seconds: Gauge<f64, AtomicU64>,
    /// By shard: how long a turn of its loop took, waiting excluded.
    pub shard_loop_lag: Vec<Distribution>,
    /// By shard: turns of its loop. One that stands still has stopped.
    pub shard_turns: Vec<Counter>,
    /// Received buffers and appends that wait for room in a shard's log.
    pub shard_deferred: Gauge,
    /// Text in shard memory that no segment holds yet, bytes.
    pub shard_memory_bytes: Gauge,
    pub(crate) connected: Family<Label, Gauge>,
    pub(crate) connections: Family<Label, Counter>,
    pub(crate) connections_refused: Family<Label, Counter>,
    pub(crate) queue_depth: Family<Label, Gauge>,
    pub(crate) api_seconds: Family<Labels, Distribution>,
    pub(crate) thread_busy: Family<Label, Gauge<f64, AtomicU64>>,
    pub(crate) disk_failing: Family<Label, Gauge>,
    pub(crate) budget_used: Family<Label, Gauge>,
    pub(crate) budget_limit: Family<Label, Gauge>,
    pub(crate) budget_refused: Family<Label, Counter>,
    /// Whether the process lacks descriptors or memory.
    pub process_short: Gauge,
}

/// Kinds of connections.
const MODALITIES: [&str; 3] = ["fast", "durable", "http"];

/// Kinds of queries.
const QUERY_KINDS: [&str; 5] = ["records", "head", "stats", "histogram", "topics"];

impl NodeMetrics {
    /// All at zero, for a node of so many shards.
    pub fn new(shards: usize) -> Self {
        let metrics = Self::without_series(shards);
        // What comes only with its first use cannot be told from what is not there, and its first
        // increase is lost to those who take rates.
        for modality in MODALITIES {
            metrics.connected_clients(modality);
            metrics.connections(modality);
            metrics.connections_refused(modality);
        }
        for kind in QUERY_KINDS {
            metrics.query.queries.get_or_create_owned(&label("kind", kind));
            metrics.query.seconds.get_or_create_owned(&label("kind", kind));
        }
        metrics
    }

    fn without_series(shards: usize) -> Self {
        Self {
            ingest: IngestMetrics {
                flush_size_bytes: Distribution::of_bytes(),
                ..IngestMetrics::default()
            },
            store: StoreMetrics::default(),
            query: QueryMetrics::default(),
            follow: FollowMetrics::default(),
            access: AccessMetrics::default(),
            log: LogMetrics::default(),
            disk_written_frames: Counter::default(),
            disk_written_tail: Counter::default(),
            disk_written_gather: Counter::default(),
            disk_written_compaction: Counter::default(),
            disk_free_bytes: Gauge::default(),
            disk_until_refusal_bytes: Gauge::default(),
            disk_refusing: Gauge::default(),
            damage: Counter::default(),
            damage_records_lost: Counter::default(),
            damage_seen: DamageSeen::default(),
            torn_frames: Counter::default(),
            torn_bytes: Counter::default(),
            clock_ahead_seconds: Gauge::default(),
            shard_loop_lag: (0..shards).map(|_| Distribution::default()).collect(),
            shard_turns: (0..shards).map(|_| Counter::default()).collect(),
            shard_deferred: Gauge::default(),
            shard_memory_bytes: Gauge::default(),
            connected: Family::default(),
            connections: Family::default(),
            connections_refused: Family::default(),
            queue_depth: Family::default(),
            api_seconds: Family::default(),
            thread_busy: Family::default(),
            disk_failing: Family::default(),
            budget_used: Family::default(),
            budget_limit: Family::default(),
            budget_refused: Family::default(),
            process_short: Gauge::default(),
        }
    }

    /// The gauge of open connections of a kind: `fast`, `durable` or `http`. Kept by the caller.
    pub fn connected_clients(&self, modality: &'static str) -> Gauge {
        self.connected.get_or_create_owned(&label("modality", modality))
    }

    /// The counter of connections of a kind.
    pub fn connections(&self, modality: &'static str) -> Counter {
        self.connections.get_or_create_owned(&label("modality", modality))
    }

    /// The counter of connections of a kind that were refused because there are too many.
    pub fn connections_refused(&self, modality: &'static str) -> Counter {
        self.connections_refused.get_or_create_owned(&label("modality", modality))
    }

    /// How often each shard's loop has turned.
    pub fn turns(&self) -> Vec<u64> {
        self.shard_turns.iter().map(Counter::get).collect()
    }

    /// The gauge of how long a thread has been at one piece of work.
    pub fn thread_busy_seconds(&self, thread: &str) -> Gauge<f64, AtomicU64> {
        self.thread_busy.get_or_create_owned(&label("thread", thread))
    }

    /// The gauge of whether the disk of a directory, `ingest` or `store`, refuses or hangs: 1 or 0.
    pub fn disk_failing(&self, directory: &'static str) -> Gauge {
        self.disk_failing.get_or_create_owned(&label("directory", directory))
    }

    /// The gauge of what waits in a queue.
    pub fn queue_depth(&self, queue: &'static str) -> Gauge {
        self.queue_depth.get_or_create_owned(&label("queue", queue))
    }

    /// What is out of a budget of HTTP.
    #[cfg(test)]
    pub(crate) fn budget_used(&self, name: &'static str) -> i64 {
        self.budget_used.get_or_create_owned(&label("budget", name)).get()
    }

    /// What is told of a budget of HTTP with this much in it.
    pub fn budget(&self, name: &'static str, limit: u64) -> BudgetMeter {
        let name = label("budget", name);
        let limit_told = self.budget_limit.get_or_create_owned(&name);
        limit_told.set(i64::try_from(limit).unwrap_or(i64::MAX));
        BudgetMeter {
            used: vec![self.budget_used.get_or_create_owned(&name)],
            refused: vec![self.budget_refused.get_or_create_owned(&name)],
        }
    }

    /// Counts an answered request; `path` is a route, not what the client wrote.
    pub fn observe_request(
        &self,
        method: &'static str,
        path: &'static str,
        status: u16,
        seconds: f64,
    ) {
        let labels = vec![
            ("method", method.to_owned()),
            ("path", path.to_owned()),
            ("status_code", status.to_string()),
        ];
        self.api_seconds.get_or_create_owned(&labels).observe(seconds);
    }

    /// Counts the beginning of a query.
    pub fn count_query(&self, kind: &'static str) {
        self.query.queries.get_or_create_owned(&label("kind", kind)).inc();
    }

    /// Counts a damaged span, unless it was counted before: a start, a gather and queries may all
    /// come upon it. What the storage did not give is no damage.
    pub fn count_damage(&self, damage: &Damage) {
        if damage.refusal().is_none() && self.damage_seen.is_new(damage) {
            self.damage.inc();
            self.damage_records_lost.inc_by(damage.records.unwrap_or(0));
        }
    }

    /// Counts the end of a query.
    pub fn observe_query(&self, kind: &'static str, seconds: f64) {
        self.query.seconds.get_or_create_owned(&label("kind", kind)).observe(seconds);
    }

    /// OpenMetrics text of everything.
    pub fn encode(self: &Arc<Self>) -> String {
        let mut registry = Registry::with_prefix("oklog");
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

fn label(name: &'static str, value: &str) -> Label {
    [(name, value.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Arc<NodeMetrics> {
        Arc::new(NodeMetrics::new(2))
    }

    #[test]
    fn every_name_of_the_predecessor_is_there() {
        let metrics = metrics();
        metrics.connected_clients("fast").inc();
        metrics.observe_request("GET", "/query", 200, 0.02);
        let text = metrics.encode();
        for line in [
            "oklog_connected_clients{modality=\"fast\"} 1",
            "oklog_connected_clients{modality=\"durable\"} 0",
            "oklog_connections_total{modality=\"http\"} 0",
            "oklog_connections_refused_total{modality=\"durable\"} 0",
            "oklog_queries_total{kind=\"histogram\"} 0",
            "oklog_query_duration_seconds_count{kind=\"topics\"} 0",
            "oklog_ingest_writer_bytes_written_total 0",
            "oklog_ingest_writer_records_written_total 0",
            "oklog_ingest_writer_syncs_total 0",
            "oklog_ingest_writer_flushes_total{reason=\"age\"} 0",
            "oklog_ingest_segment_flush_age_seconds_count 0",
            "oklog_ingest_segment_flush_size_bytes_count 0",
            "oklog_ingest_failed_segments_total 0",
            "oklog_ingest_committed_segments_total 0",
            "oklog_ingest_committed_bytes_total 0",
            "oklog_store_compact_duration_seconds_count{kind=\"Overlapping\"} 0",
            "oklog_store_consumed_segments_total 0",
            "oklog_store_consumed_bytes_total 0",
            "oklog_store_replicated_segments_total{direction=\"egress\"} 0",
            "oklog_store_replicated_bytes_total{direction=\"egress\"} 0",
            "oklog_store_trashed_segments_total{success=\"true\"} 0",
            "oklog_store_purged_segments_total{success=\"true\"} 0",
            "oklog_cluster_size 1",
            "oklog_api_request_duration_seconds_count{method=\"GET\",path=\"/query\",status_code=\"200\"} 1",
            "oklog_shard_loop_lag_seconds_count{shard=\"1\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn written_bytes_are_set_against_taken_ones() {
        let metrics = metrics();
        metrics.ingest.taken_bytes.inc_by(100);
        metrics.disk_written_frames.inc_by(110);
        metrics.disk_written_gather.inc_by(60);
        metrics.disk_written_compaction.inc_by(45);
        metrics.disk_written_tail.inc_by(1_000);
        let text = metrics.encode();
        assert!(text.contains("oklog_bytes_written_per_byte_taken 2.15\n"), "{text}");
    }

    #[test]
    fn each_family_is_described_once() {
        let text = metrics().encode();
        let mut names: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE ")).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 50, "{count}");
    }
}
