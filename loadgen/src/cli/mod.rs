//! The command line. Help texts are the manual of this program.

mod compare;
mod shared;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::units::{parse_duration, parse_size};
pub(crate) use compare::{CompareAllArgs, Part};
pub(crate) use shared::{Mode, SendingArgs, SourceArgs, WatchArgs};

const EXAMPLES: &str = "\
Examples:
  A corpus of 2 GiB, varied from sample logs, the same for the same seed:
    loadgen corpus --out corpus.log --bytes 2GiB --vary samples/ --seed 1
  How fast a node takes it, what that costs it, and whether every record is there once:
    loadgen send --to :7651 --corpus corpus.log --connections 4 --server-pid $(pidof oklogd) --verify
  Latency of durable acknowledgements, one record at a time, from templates:
    loadgen send --to :7652 --mode durable --window 1record --records 10000
  The same bytes into a discard sink and into the node, in turn:
    loadgen compare-sink --to :7651 --corpus corpus.log --connections 4
  How a busy node treats a single record: until it is accepted, until a query finds it:
    loadgen probe --to :7652 --mode durable --records 500 --interval 20ms
  Entries of OgLogStream from 64 connections, and how soon its WebSocket brings them:
    loadgen post-log --connections 64 --records 500000 --live
  Ten million entries, and how long it takes to find some of them:
    loadgen ask-logs --fill 10000000
  A needle against ripgrep on the raw file:
    loadgen query-bench --raw corpus.log -q deadbeefcafe
  All of it in one run, on one corpus, as a Markdown table:
    loadgen compare --oklogd target/release/oklogd --loghub samples/ --bytes 2GiB

Sizes: bytes, or kB MB GB (10^3), KiB MiB GiB (2^10). Durations: 500ms, 60s, 10m.
Exit codes: 0 done and verified, 1 failed or not verified, 2 usage.";

/// Sends log lines to a node, measures what that costs, and proves that each is there once.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the figures as one JSON object instead of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send lines to a node; report MB/s, records/s, latency, the node's CPU, memory and writes.
    Send(Box<SendArgs>),
    /// Write a corpus of lines to a file.
    Corpus(CorpusArgs),
    /// Check by query that every record of a corpus is there exactly once.
    Verify(VerifyArgs),
    /// Take bytes over TCP and throw them away (and acknowledge them, if a client asks for it).
    Sink(SinkArgs),
    /// Send the same to a discard sink and to a node, in turn, and compare.
    CompareSink(CompareArgs),
    /// Measure a node side by side with a discard sink, bare syncs and ripgrep: one Markdown table.
    Compare(Box<CompareAllArgs>),
    /// Time a query against ripgrep on the raw file, in turn.
    QueryBench(QueryBenchArgs),
    /// Send few records per second over several connections; report the disk writes they cause.
    Trickle(TrickleArgs),
    /// Send one record at a time beside other load; report the time to its acceptance and until a
    /// query finds it. Exit code 1 if one is not accepted or not found.
    Probe(ProbeArgs),
    /// Send entries as `POST /log` over connections that stay open; report entries/s, the time to the
    /// answer and, with --live, until /ws/live brings them. Exit code 1 if one is refused or does not come.
    PostLog(PostLogArgs),
    /// Put entries in as `POST /logs`, then ask `/api/logs` and `/api/stats` for them; report how long
    /// each question takes. Exit code 1 if fewer are there than were put in.
    AskLogs(AskLogsArgs),
    /// Hold many connections that send little or nothing; report the node's memory.
    Idle(IdleArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sending: SendingArgs,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CorpusArgs {
    /// The file to write; replaced if it exists.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Connections that the lines were drawn for (--vary, --templates).
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: u64,
    /// The node's API.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7650")]
    pub(crate) api: String,
    /// Start of the time range; default: the beginning of time.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// End of the time range; default: none.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Only records of this topic.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// The node's --ingest.max-record-size.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(crate) max_record_size: u64,
    /// Differing records to show of each kind.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) show: usize,
}

#[derive(Debug, Args)]
pub(crate) struct SinkArgs {
    /// Port to listen on; 0: a free one, which is told on standard output.
    #[arg(long, default_value_t = 7654)]
    pub(crate) port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Receiving threads; default: one per core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) sending: SendingArgs,
    /// Process of the node, for its CPU seconds per GB.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Times that each of the two is sent to.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) rounds: usize,
}

#[derive(Debug, Args)]
pub(crate) struct QueryBenchArgs {
    /// The node's API.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7650")]
    pub(crate) api: String,
    /// The lines that the node holds, as one file.
    #[arg(long, value_name = "FILE")]
    pub(crate) raw: PathBuf,
    /// The expression.
    #[arg(short = 'q', long = "query", value_name = "EXPR", allow_hyphen_values = true)]
    pub(crate) expression: String,
    /// The expression is a regular expression.
    #[arg(long)]
    pub(crate) regex: bool,
    /// Let ripgrep print its matches, not count them.
    #[arg(long)]
    pub(crate) print: bool,
    /// Measured runs of each.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) runs: usize,
    /// The ripgrep to run.
    #[arg(long, value_name = "PATH", default_value = "rg")]
    pub(crate) rg: String,
    /// Start of the time range; default: the beginning of time.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only records of this topic.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TrickleArgs {
    /// The node: HOST, HOST:PORT or :PORT; the port defaults to the mode's.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1")]
    pub(crate) to: String,
    /// The promise to ask for.
    #[arg(long, value_enum, default_value_t = Mode::Fast)]
    pub(crate) mode: Mode,
    /// Records per second, over all connections.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) connections: u64,
    /// How long.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) seconds: Duration,
    /// A path on the disk whose writes are reported; default: the working directory of
    /// --server-pid, or of this program.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// The same seed draws the same lines.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The node: HOST, HOST:PORT or :PORT; the port defaults to the mode's.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1")]
    pub(crate) to: String,
    /// The promise to ask for; acknowledgements are asked for in both modes.
    #[arg(long, value_enum, default_value_t = Mode::Durable)]
    pub(crate) mode: Mode,
    /// Hand records over as POST /records, not over a port.
    #[arg(long)]
    pub(crate) post: bool,
    /// The node's API; default: port 7650 of --to.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api: Option<String>,
    /// Topic of the records.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Records, one at a time.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) records: u64,
    /// Stop after this time, however many records were sent.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) seconds: Option<Duration>,
    /// Between the beginning of one record and of the next; a slow one delays the next.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// A record that is not accepted, or then not found, within this time has failed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) patience: Duration,
    /// Do not look for the records.
    #[arg(long)]
    pub(crate) no_find: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PostLogArgs {
    /// The node's API.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7650")]
    pub(crate) api: String,
    /// Connections, each with one request on its way.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) connections: u64,
    /// Entries in all.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) records: u64,
    /// Stop after this time, however many were sent.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) seconds: Option<Duration>,
    /// Entries a second over all connections; default: as fast as they are answered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Length of a message, bytes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(32..=10_240))]
    pub(crate) message_bytes: u64,
    /// Services that they come from.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) services: u64,
    /// Follow one service over /ws/live: every hundredth entry is of it.
    #[arg(long)]
    pub(crate) live: bool,
    /// Longest time without an answer.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) patience: Duration,
    /// Process to report: CPU seconds, peak of RssAnon.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct AskLogsArgs {
    /// The node's API.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7650")]
    pub(crate) api: String,
    /// Entries to put in before; 0: ask for what is there.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fill: u64,
    /// Length of a message, bytes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(32..=500))]
    pub(crate) message_bytes: u64,
    /// Services that they come from.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) services: u64,
    /// Times that each question is asked.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) runs: u64,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// The node: HOST, HOST:PORT or :PORT; the port defaults to 7651.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1")]
    pub(crate) to: String,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub(crate) connections: u64,
    /// Bytes that each sends, without a newline.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    pub(crate) hold_bytes: u64,
    /// How long they are held.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) seconds: Duration,
    /// Process of the node, for its memory.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_that_the_pages_show_is_read() {
        let mut shown = 0;
        for page in ["README.md", "docs/figures.md"] {
            let path = format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            for line in text.lines().filter(|line| line.starts_with("target/release/loadgen ")) {
                let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
                // Help is an error that is none.
                let error = Cli::try_parse_from(words).err().filter(clap::Error::use_stderr);
                assert!(error.is_none(), "{page}: {line}: {error:?}");
                shown += 1;
            }
        }
        assert!(shown > 5, "{shown}");
    }
}
