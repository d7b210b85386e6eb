//! A shard: one thread pinned to one core with its own driver, its own listeners on the shared
//! ports, its own log and its own segment files. Shards share nothing but counters.
//!
//! - `connection`: one sender: framing, hello, what it is owed; a sender in bulk is received from
//!   straight into the log's frame (`connection::bulk`);
//! - `run`: the loop that carries events between driver, connections and log;
//! - [`inbox`]: how other threads speak to a shard;
//! - [`placement`]: which shard a connection goes to; the [`Gate`] stops all reading.
//!
//! Invariants: a shard does no file operation but writes and syncs through its driver (the keeper
//! thread opens, renames and removes); it never blocks on another thread; a client that did not
//! ask for acknowledgements is never sent a byte.

pub(crate) mod accepting;
mod connection;
mod fetch;
mod hangups;
pub mod inbox;
mod intake;
pub mod placement;
mod run;
mod tally;
mod unfinished;

use std::net::TcpListener;
use std::sync::Arc;

use engine::ingest::framing::Framing;
use engine::ingest::log::ShardLog;
use engine::ingest::segment::Segment;
use engine::ingest::topics::TopicChoice;
use engine::storage::DiskWatch;

use crate::access::Authority;
use crate::budget::PerAddress;
use crate::driver::{Descriptor, DriverKind};
use crate::follow::Hub;
use crate::metrics::NodeMetrics;
pub use connection::Port;
pub use engine::node::doors::Gate;
pub use placement::Placement;

/// What a shard asks of the thread that looks after segment files. Calls return at once.
pub trait Keeper: Send + Sync {
    /// The shard needs a prepared segment; it comes as [`inbox::Message::Segment`].
    fn want_segment(&self, shard: usize);
    /// The segment is complete up to `len_bytes`.
    fn seal(&self, segment: Arc<Segment>, len_bytes: u64);
    /// The segment failed; what is good ends at `len_bytes`.
    fn abandon(&self, segment: Arc<Segment>, len_bytes: u64, error: std::io::Error);
}

/// Everything a shard is made of.
pub struct ShardParts {
    /// Its number.
    pub index: usize,
    /// The core it is pinned to; `None` leaves that to the kernel.
    pub core: Option<usize>,
    /// What it waits on.
    pub driver: DriverKind,
    /// Listener of the fast port (SO_REUSEPORT).
    pub fast: TcpListener,
    /// Listener of the durable port.
    pub durable: TcpListener,
    /// Its log.
    pub log: ShardLog,
    /// Its tail file, open for buffered writing, if there is one.
    pub tail: Option<Descriptor>,
    /// How lines get their topic.
    pub topics: TopicChoice,
    /// How plain senders mark where their messages end.
    pub framing: Framing,
    /// Longest record without LF, bytes.
    pub record_size_max: usize,
    /// How long an unfinished line of a plain sender waits for its end before it is a record,
    /// microseconds; `None`: as long as it takes.
    pub unfinished_line_after_us: Option<u64>,
    /// Most bytes of unfinished lines.
    pub partial_bytes_max: usize,
    /// Most connections of the whole node.
    pub connections_max: usize,
    /// Connections by address, of the whole node.
    pub addresses: PerAddress,
    /// The thread that looks after files.
    pub keeper: Arc<dyn Keeper>,
    /// All shards.
    pub placement: Placement,
    /// Closed while the backlog is full.
    pub gate: Gate,
    /// Those who follow what is taken.
    pub hub: Hub,
    /// What the node counts.
    pub metrics: Arc<NodeMetrics>,
    /// The node's clock.
    pub clock: Clock,
    /// Who may write.
    pub authority: Authority,
    /// Who hears what becomes of writes and syncs.
    pub disk: Arc<DiskWatch>,
}

/// Wall clock and monotonic clock of the node.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts the monotonic clock at zero.
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Both clocks.
    pub fn now(&self) -> engine::ingest::log::Now {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        engine::ingest::log::Now {
            monotonic_us: self.start.elapsed().as_micros() as u64,
            wall_ms: wall.map_or(0, |d| d.as_millis() as u64),
        }
    }
}

/// Starts a shard's thread. It ends after [`inbox::Message::ShutDown`], or when its ring has become
/// unusable; `on_end` is told which.
pub fn spawn(
    parts: ShardParts,
    on_end: impl FnOnce(std::io::Result<()>) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(format!("shard-{}", parts.index)).spawn(move || {
        if let Some(core) = parts.core {
            pin(core);
        }
        on_end(run::Shard::new(parts).and_then(run::Shard::run));
    })
}

/// Pins the calling thread; a refusal costs speed, not function.
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    if core < rustix::thread::CpuSet::MAX_CPU {
        set.set(core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}
