//! Flags that several subcommands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::units::{Rate, Window, parse_duration, parse_rate, parse_size, parse_window};

/// Where lines come from: one of --file, --corpus, --vary, --templates (the default).
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Send this file, byte for byte, shared among the connections at line boundaries.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vary", "templates", "corpus"])]
    pub(crate) file: Option<PathBuf>,
    /// Like --file; a file that does not exist is first written from --vary or --templates, of
    /// --bytes or --records, which then say the corpus' size and not what is sent.
    #[arg(long, value_name = "FILE")]
    pub(crate) corpus: Option<PathBuf>,
    /// Vary numbers, hexadecimal ids, UUIDs, IPv4 addresses and times of day in the lines of these
    /// files (of a directory: *.log and *.txt); lines keep their shape and length.
    #[arg(long, visible_alias = "loghub", value_name = "PATH", num_args = 1.., conflicts_with = "templates")]
    pub(crate) vary: Vec<PathBuf>,
    /// Draw lines from templates of our own: web, sshd, kernel, database, kubernetes, json, java,
    /// proxy, systemd, mail; without a list all of them.
    #[arg(long, value_name = "LIST", num_args = 0.., value_delimiter = ',')]
    pub(crate) templates: Option<Vec<String>>,
    /// Keep a carriage return at the end of a sample's line (--vary).
    #[arg(long)]
    pub(crate) keep_cr: bool,
    /// Bytes to send, over all connections; each ends behind the line that reaches its share.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bytes: Option<u64>,
    /// Records to send, over all connections.
    #[arg(long, value_name = "N")]
    pub(crate) records: Option<u64>,
    /// The same seed draws the same lines.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Port 7651; no acknowledgement is asked for.
    Fast,
    /// Port 7652, with acknowledgements.
    Durable,
}

/// How to send.
#[derive(Debug, Clone, Args)]
pub(crate) struct SendingArgs {
    /// The node: HOST, HOST:PORT or :PORT; the port defaults to the mode's.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1")]
    pub(crate) to: String,
    /// The promise to ask for.
    #[arg(long, value_enum, default_value_t = Mode::Fast)]
    pub(crate) mode: Mode,
    /// Ask for acknowledgements in fast mode too.
    #[arg(long)]
    pub(crate) ack: bool,
    /// Topic of the records; asks for acknowledgements, because the hello carries it.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Connections, spread over --threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) connections: u64,
    /// Sending threads; default: one per core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Over all connections: 100MB/s or 100records/s; default: as fast as the node takes it.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) rate: Option<Rate>,
    /// Bytes per write; chunks may split lines. Default: what was drawn (256 KiB), 64 KiB with
    /// acknowledgements, a hundredth of a second's bytes with a byte rate.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) chunk: Option<u64>,
    /// Chunks end behind a newline.
    #[arg(long)]
    pub(crate) whole_lines: bool,
    /// What may wait for its acknowledgement on each connection: 1MiB, 1record.
    #[arg(long, value_name = "WINDOW", default_value = "1MiB", value_parser = parse_window)]
    pub(crate) window: Window,
    /// Stop after this time, each connection behind a line; a file without --bytes is repeated.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) seconds: Option<Duration>,
    /// Fail a connection on which nothing moves for this long.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) stall: Duration,
    /// The node's --ingest.max-record-size: longer lines count as several records.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(crate) max_record_size: u64,
}

/// Looking at the node's process and asking its API.
#[derive(Debug, Clone, Args)]
pub(crate) struct WatchArgs {
    /// Process to report: CPU seconds per GB, peak of RssAnon, bytes written per byte sent.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Wait this long behind the sending before the process is looked at for the last time, so
    /// that gathering and compaction are counted too.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) settle: Option<Duration>,
    /// Tell the rate on standard error every so often.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) progress: Option<Duration>,
    /// Check afterwards by query that every record is there exactly once.
    #[arg(long)]
    pub(crate) verify: bool,
    /// The node's API; default: port 7650 of --to.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api: Option<String>,
    /// Start of the time range that is verified: RFC 3339, ULID or a duration ago; default: when
    /// sending began, by this machine's clock.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Differing records to show of each kind.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) show: usize,
}
