//! What a forwarder counts.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use net::metrics::LogMetrics;

/// Counters and gauges of a forwarder, plain atomics.
#[derive(Debug, Default)]
pub(crate) struct ForwardMetrics {
    /// Bytes read from standard input.
    pub(crate) input_bytes: Counter,
    /// Bytes that were handed over.
    pub(crate) bytes: Counter,
    /// Lines that were handed over.
    pub(crate) records: Counter,
    /// Connections that were lost.
    pub(crate) disconnects: Counter,
    /// Tries to find or reach an ingester that failed.
    pub(crate) connect_failures: Counter,
    /// Bytes that were sent more than once.
    pub(crate) resent_bytes: Counter,
    /// Whether there is a connection.
    pub(crate) connected: Gauge,
    /// Lines dropped because the buffer was full.
    pub(crate) dropped_records: Counter,
    /// Their bytes.
    pub(crate) dropped_bytes: Counter,
    /// Bytes that wait in memory.
    pub(crate) buffer_bytes: Gauge,
    /// Bytes on their way.
    pub(crate) window_bytes: Gauge,
    /// Whether standard input waits for room.
    pub(crate) input_blocked: Gauge,
    /// Bytes of the spool's files.
    pub(crate) spool_bytes: Gauge,
    /// Lines in the spool that are not handed over.
    pub(crate) spool_records: Gauge,
    /// Damaged spans of the spool.
    pub(crate) spool_damage: Counter,
    /// Failed writes and syncs of the spool.
    pub(crate) spool_errors: Counter,
    /// Log lines that were not written.
    pub(crate) log: LogMetrics,
}

impl ForwardMetrics {
    /// As OpenMetrics text.
    pub(crate) fn encode(&self) -> String {
        let mut registry = Registry::with_prefix("oklog");
        let counters = [
            ("forward_input_bytes", "Bytes read from standard input.", &self.input_bytes),
            ("forward_bytes", "Bytes forwarded.", &self.bytes),
            ("forward_records", "Records forwarded.", &self.records),
            ("forward_disconnects", "Connections to ingesters lost.", &self.disconnects),
            (
                "forward_connect_failures",
                "Failed tries to reach an ingester.",
                &self.connect_failures,
            ),
            (
                "forward_resent_bytes",
                "Bytes sent again after a lost connection.",
                &self.resent_bytes,
            ),
            (
                "forward_dropped_records",
                "Records dropped by --on-full drop-oldest.",
                &self.dropped_records,
            ),
            (
                "forward_dropped_bytes",
                "Bytes dropped by --on-full drop-oldest.",
                &self.dropped_bytes,
            ),
            ("forward_spool_damage", "Damaged spans of the spool.", &self.spool_damage),
            ("forward_spool_errors", "Failed writes and syncs of the spool.", &self.spool_errors),
        ];
        for (name, help, counter) in counters.into_iter().chain(self.log.counters()) {
            registry.register(name, help.trim_end_matches('.'), counter.clone());
        }
        let gauges = [
            ("forward_connected", "1 while there is a connection to an ingester.", &self.connected),
            ("forward_buffer_bytes", "Bytes that wait in memory.", &self.buffer_bytes),
            (
                "forward_unacknowledged_bytes",
                "Bytes on their way to an ingester.",
                &self.window_bytes,
            ),
            (
                "forward_input_blocked",
                "1 while standard input waits for room.",
                &self.input_blocked,
            ),
            ("forward_spool_bytes", "Bytes of the spool's files.", &self.spool_bytes),
            ("forward_spool_records", "Records in the spool not handed over.", &self.spool_records),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help.trim_end_matches('.'), gauge.clone());
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
