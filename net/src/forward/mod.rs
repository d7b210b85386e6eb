//! The forwarder: standard input → ingesters.
//!
//! The way of a line: `input` reads blocks and `piece` makes pieces of whole lines of them; they
//! wait in the `queue` (in memory: `buffer`, or on disk: `engine::spool`); `sender` connects
//! (`rotation`, `resolve`, `backoff`), moves them through the `window` onto a socket and reads
//! what the ingester acknowledges. `api` and `metrics` are what an operator sees.
//!
//! Invariants: bytes are never altered; what is not handed over is kept, unless the operator chose
//! to drop the oldest, and then every line is counted; memory is bounded whatever comes. Uses no
//! `io_uring`. What flags mean and what is printed is not decided here.

mod api;
mod backoff;
mod buffer;
mod input;
mod metrics;
mod piece;
mod queue;
mod resolve;
mod rotation;
mod run;
mod sender;
mod window;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

pub use self::rotation::Target;
pub use self::run::{Outcome, run};
use crate::metrics::LogMetrics;

/// What is done with lines when no ingester takes them.
pub enum Waiting {
    /// They wait in memory; when it is full, standard input waits.
    Block {
        /// Memory, bytes.
        bytes_max: usize,
    },
    /// They wait in memory; when it is full, the oldest are dropped and counted.
    DropOldest {
        /// Memory, bytes.
        bytes_max: usize,
    },
    /// They wait on disk.
    Spool(Box<engine::spool::Spool>),
}

/// How a forwarder runs.
pub struct ForwardOptions {
    /// Where ingesters are; at least one.
    pub targets: Vec<Target>,
    /// Whether lines are kept until an ingester has them on its disk.
    pub durable: bool,
    /// Topic of all lines, in place of the ingester's choice. Ingesters are then asked to
    /// acknowledge, in fast mode as well.
    pub topic: Option<String>,
    /// What comes before each line.
    pub prefix: Vec<u8>,
    /// Record size that the ingesters cut longer lines at, bytes.
    pub record_bytes_max: usize,
    /// What is done with lines when no ingester takes them.
    pub waiting: Waiting,
    /// How long lines may still be handed over after a signal, and how long an ingester may take
    /// to end a connection.
    pub shutdown_timeout: Duration,
    /// Longest pause between tries to connect.
    pub backoff_max: Duration,
    /// Name server in place of the system's.
    pub dns_server: Option<SocketAddr>,
    /// Where metrics and health are served.
    pub api: Option<TcpListener>,
    /// What is counted about the log.
    pub log: LogMetrics,
}
