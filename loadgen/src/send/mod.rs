//! Sends the streams of a plan over many connections and says how it went.
//!
//! The clock starts when all connections stand and stops when the node has closed the last of
//! them, so that the time holds everything the node had to take. Connections are spread over a
//! few threads; nothing is allocated per record.

mod acks;
mod connection;
mod outgoing;
mod pace;
mod worker;

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::corpus::{FILL_BYTES, Plan};
use crate::failure::{Context, Failure, Result};
use crate::units::{Rate, Window};
use acks::Acks;
pub(crate) use acks::new_histogram;
use connection::{Connection, Parts};
use outgoing::{Cut, Outgoing};
use pace::{Pace, Pacing};
use worker::Rules;

/// Memory for lines that are drawn ahead, over all connections.
const DRAWN_BYTES_MAX: usize = 128 << 20;
const FILL_BYTES_MIN: usize = 4 << 10;
/// Drawn at a time where latency is measured: drawing more would hold up other connections.
const FILL_BYTES_WITH_ACKS: usize = 32 << 10;
/// Pieces that acknowledgements are counted for, where no chunk size is given.
const CHUNK_BYTES_WITH_ACKS: usize = 64 << 10;
/// A paced connection without a chunk size sends this many times per second.
const PACED_CHUNKS_PER_SECOND: f64 = 100.0;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First bytes of a connection that wants acknowledgements; the version is part of it.
pub(crate) const HELLO: &[u8] = b"\0OKLOGD-ACK/1";

/// How to send.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) address: String,
    pub(crate) acks: bool,
    pub(crate) topic: Option<String>,
    pub(crate) rate: Option<Rate>,
    pub(crate) chunk_bytes: Option<usize>,
    pub(crate) whole_lines: bool,
    pub(crate) window: Window,
    pub(crate) seconds: Option<Duration>,
    pub(crate) stall: Duration,
    pub(crate) threads: Option<usize>,
    pub(crate) record_bytes_max: usize,
}

/// What became of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) acked_records: Option<u64>,
    pub(crate) error: Option<String>,
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    /// In the order of the plan's connections.
    pub(crate) connections: Vec<Sent>,
    /// Microseconds; present where acknowledgements were asked for.
    pub(crate) latency_us: Option<Histogram<u64>>,
}

impl Outcome {
    pub(crate) fn bytes(&self) -> u64 {
        self.connections.iter().map(|sent| sent.bytes).sum()
    }

    pub(crate) fn records(&self) -> u64 {
        self.connections.iter().map(|sent| sent.records).sum()
    }

    pub(crate) fn errors(&self) -> impl Iterator<Item = (usize, &str)> {
        let connections = self.connections.iter().enumerate();
        connections.filter_map(|(index, sent)| Some((index, sent.error.as_deref()?)))
    }
}

/// Runs a plan to its end. Failing connections are told in the outcome.
pub(crate) fn run(plan: &Plan, sending: &Sending, progress: &AtomicU64) -> Result<Outcome> {
    let threads = thread_count(sending, plan.connections());
    let mut shares: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..plan.connections() {
        shares[index as usize % threads].push(connect(plan, sending, index)?);
    }
    let rules = Rules {
        start: Instant::now(),
        stop_after: sending.seconds,
        stall: sending.stall,
        progress_bytes: progress,
    };
    let finished: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || worker::run(share, rules)))
            .collect();
        workers.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let elapsed = rules.start.elapsed();
    let mut shares = Vec::with_capacity(threads);
    for share in finished {
        let share = share.map_err(|_| Failure::run("a sending thread panicked"))?;
        shares.push(share.context(|| "waiting for sockets".into())?.into_iter());
    }
    let mut outcome = Outcome { elapsed, connections: Vec::new(), latency_us: None };
    for index in 0..plan.connections() as usize {
        let connection = shares[index % threads].next();
        collect(&mut outcome, connection.ok_or_else(|| Failure::run("a connection got lost"))?);
    }
    Ok(outcome)
}

fn thread_count(sending: &Sending, connections: u64) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    sending.threads.unwrap_or(cores).clamp(1, connections as usize)
}

fn collect(outcome: &mut Outcome, connection: Connection) {
    if let Some(acks) = &connection.acks {
        let latency = outcome.latency_us.get_or_insert_with(new_histogram);
        latency.add(acks.latency()).expect("both histograms have the same bounds");
    }
    outcome.connections.push(Sent {
        bytes: connection.sent_bytes,
        records: connection.sent_records,
        acked_records: connection.acks.as_ref().map(Acks::acked_records),
        error: connection.error,
    });
}

fn connect(plan: &Plan, sending: &Sending, index: u64) -> Result<Connection> {
    let stream = open(&sending.address)?;
    let connections = plan.connections();
    let hello = sending.acks.then(|| hello(sending.topic.as_deref()));
    Ok(Connection::new(Parts {
        stream,
        outgoing: Outgoing::new(plan.source(index)?, cut(sending, connections)),
        pacing: pacing(sending, index, connections),
        window: sending.window,
        hello,
        record_bytes_max: sending.record_bytes_max as u64,
    }))
}

/// Opens a non-blocking connection that sends small pieces at once.
pub(crate) fn open(address: &str) -> Result<TcpStream> {
    let connecting = || format!("connecting to {address}");
    let mut last = None;
    for resolved in address.to_socket_addrs().context(connecting)? {
        match TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true).context(connecting)?;
                stream.set_nonblocking(true).context(connecting)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or_else(|| "the name has no address".into(), |error| error.to_string());
    Err(Failure::run(format!("connecting to {address}: {reason}")))
}

/// The first bytes of a connection that wants acknowledgements.
pub(crate) fn hello(topic: Option<&str>) -> Vec<u8> {
    let mut hello = HELLO.to_vec();
    if let Some(topic) = topic {
        hello.extend_from_slice(b" topic=");
        hello.extend_from_slice(topic.as_bytes());
    }
    hello.push(b'\n');
    hello
}

fn cut(sending: &Sending, connections: u64) -> Cut {
    let share = (DRAWN_BYTES_MAX / connections as usize).clamp(FILL_BYTES_MIN, FILL_BYTES);
    let fill_bytes = if sending.acks { share.min(FILL_BYTES_WITH_ACKS) } else { share };
    let by_default = match (sending.rate, sending.acks) {
        (Some(Rate::BytesPerSecond(rate)), _) => {
            let piece = rate / connections as f64 / PACED_CHUNKS_PER_SECOND;
            Some((piece as usize).clamp(256, CHUNK_BYTES_WITH_ACKS))
        }
        (_, true) => Some(CHUNK_BYTES_WITH_ACKS),
        _ => None,
    };
    // A piece of more than a quarter of the window would wait for the one before it.
    let quarter = match sending.window {
        Window::Bytes(bytes) if sending.acks => (bytes as usize / 4).max(1),
        _ => usize::MAX,
    };
    let chunk_bytes = sending.chunk_bytes.or(by_default.map(|bytes| bytes.min(quarter)));
    Cut { chunk_bytes, fill_bytes, whole_lines: sending.whole_lines }
}

fn pacing(sending: &Sending, index: u64, connections: u64) -> Pacing {
    match sending.rate {
        None => Pacing::None,
        Some(Rate::BytesPerSecond(rate)) => {
            let chunk = cut(sending, connections).chunk_bytes.unwrap_or(1);
            Pacing::Bytes(Pace::share(rate, index, connections, chunk as u64))
        }
        Some(Rate::RecordsPerSecond(rate)) => {
            Pacing::Records(Pace::share(rate, index, connections, 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_names_the_topic() {
        assert_eq!(hello(None), b"\0OKLOGD-ACK/1\n");
        assert_eq!(hello(Some("web")), b"\0OKLOGD-ACK/1 topic=web\n");
    }
}
