//! Flags of `compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::SourceArgs;
use crate::units::{parse_duration, parse_size};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Bursts into a node that only ingests, against a discard sink.
    Ingest,
    /// Acknowledgements of durable records, against bare syncs.
    Durable,
    /// Everything into the store: time, cost, size; needed by `queries` and `skips`.
    Store,
    /// Blocks that are passed over for needles of many kinds that occur nowhere.
    Skips,
    /// Queries against ripgrep.
    Queries,
    /// From arrival to being found.
    Arrival,
    /// As fast as the node takes it for --sustain.
    Sustained,
    /// Bytes written per byte at a low rate; takes --trickle-warm-up and --trickle-for, so it is
    /// measured only if it is named.
    Trickle,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareAllArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The node's program. It runs as `nobody` where loadgen runs as root.
    #[arg(long, value_name = "PATH", default_value = "oklogd")]
    pub(crate) oklogd: PathBuf,
    /// Keep data here, in a directory of its own that is removed at the end; default: the system's
    /// directory for temporary files. Needs about five times the corpus.
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Times that each figure is measured; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
    /// Bytes of a burst; at most the corpus.
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    pub(crate) burst: u64,
    /// Records of a round of single acknowledgements, and bare syncs.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) singles: u64,
    /// How long to send as fast as the node takes it.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) sustain: Duration,
    /// How long to look for records that just arrived.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) arrival: Duration,
    /// Bytes per second of `trickle`.
    #[arg(long, value_name = "SIZE", default_value = "1MB", value_parser = parse_trickle)]
    pub(crate) trickle_rate: u64,
    /// How long `trickle` sends before it measures.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) trickle_warm_up: Duration,
    /// How long `trickle` measures.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_duration)]
    pub(crate) trickle_for: Duration,
    /// Measure only these; default: all but `trickle`.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// The ripgrep to compare with; without it that column stays empty.
    #[arg(long, value_name = "PATH", default_value = "rg")]
    pub(crate) rg: String,
    /// The zstd that feeds ripgrep from the compressed corpus; without it that column stays empty.
    #[arg(long, value_name = "PATH", default_value = "zstd")]
    pub(crate) zstd: String,
    /// A word that many lines hold, for the newest 100 lines with it and for counting.
    #[arg(long, value_name = "WORD", default_value = "INFO")]
    pub(crate) common_word: String,
}

impl CompareAllArgs {
    pub(crate) fn wants(&self, part: Part) -> bool {
        (self.only.is_empty() && part != Part::Trickle) || self.only.contains(&part)
    }
}

fn parse_trickle(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("a trickle needs at least one byte per second".into()),
        bytes => Ok(bytes),
    }
}
