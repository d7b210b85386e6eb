//! The forwarder: standard input → ingesters.
//!
//! The way of a line: `input` reads blocks and `piece` makes pieces of whole lines of them; they
//! wait in the `queue` (in memory: `buffer`, or on disk: `engine::spool`); `sender` chooses an
//! ingester (`rotation`, `resolve`, `backoff`), moves them through the `window` onto a `connection`,
//! reads what is acknowledged, and leaves where there is no `progress`. `talk`, `api` and `metrics`
//! are what an operator sees; `command` makes it of flags, and words and an exit code of its end.
//!
//! Invariants: bytes are never altered; a line counts as handed over only when an ingester has
//! acknowledged it for the promise that was asked for; what is not is kept, unless the operator chose
//! to drop the oldest, and then every line is counted; memory is bounded whatever comes. Uses no
//! `io_uring`.

mod address;
mod api;
mod backoff;
mod buffer;
pub(crate) mod command;
mod connection;
mod input;
mod limits;
mod metrics;
mod piece;
mod progress;
mod queue;
mod resolve;
mod rotation;
mod run;
mod sender;
mod talk;
mod window;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

pub(crate) use self::rotation::Target;
pub(crate) use self::run::{Outcome, run};
use engine::ingest::hello::Secret;
use net::metrics::LogMetrics;

/// What is done with lines when no ingester takes them.
pub(crate) enum Waiting {
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
pub(crate) struct ForwardOptions {
    /// Where ingesters are; at least one.
    pub(crate) targets: Vec<Target>,
    /// Whether lines are kept until an ingester has them on its disk, not only in its hands.
    pub(crate) durable: bool,
    /// Topic of all lines, in place of the ingester's choice.
    pub(crate) topic: Option<String>,
    /// What ingesters are shown of who sends.
    pub(crate) token: Option<Secret>,
    /// What comes before each line.
    pub(crate) prefix: Vec<u8>,
    /// Longer lines are held and sent in parts of this size, bytes.
    pub(crate) record_bytes_max: usize,
    /// What is done with lines when no ingester takes them.
    pub(crate) waiting: Waiting,
    /// How long lines may still be read and handed over after a signal.
    pub(crate) shutdown_timeout: Duration,
    /// Longest pause between tries to connect.
    pub(crate) backoff_max: Duration,
    /// Name server in place of the system's.
    pub(crate) dns_server: Option<SocketAddr>,
    /// Where metrics and health are served.
    pub(crate) api: Option<TcpListener>,
    /// What is counted about the log.
    pub(crate) log: LogMetrics,
}
