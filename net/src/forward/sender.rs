//! The task that connects, sends and reads acknowledgements: the shell around [`Window`],
//! [`Rotation`] and [`Backoff`].
//!
//! Invariants: one connection at a time; one log line when a connection is made or lost, none per
//! try; what the window has not forgotten is sent again on the next connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::limits::COUNTING_BYTES;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::metrics::ForwardMetrics;
use super::queue::Queue;
use super::resolve::resolve;
use super::rotation::{Rotation, Target};
use super::window::Window;
use crate::limits::{
    FORWARD_BACKOFF_BASE, FORWARD_CONNECT_TIMEOUT, FORWARD_STALL, FORWARD_STEADY,
    FORWARD_USER_TIMEOUT, FORWARD_WINDOW_BYTES_MAX,
};

/// Pause before a spool that could not be read is asked again.
const READ_RETRY: Duration = Duration::from_millis(500);

/// After so many connections without a reply the hello is the shortest that asks for counts.
const UNANSWERED_MAX: u32 = 3;

/// What a sender needs to know.
pub(crate) struct SenderOptions {
    pub(crate) targets: Vec<Target>,
    pub(crate) durable: bool,
    pub(crate) topic: Option<String>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) dns_server: Option<SocketAddr>,
    pub(crate) seed: u64,
}

/// How sending ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Ended {
    /// Everything is handed over, or left to the spool.
    Done,
    /// Everything was written, but the ingester did not end the connection in order.
    Unconfirmed,
}

/// How a connection ended.
enum Close {
    Done,
    Unconfirmed,
    /// It broke, or was ended to find out what the ingester has.
    Lost(String),
}

/// What an ingester's replies count.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Counts {
    Bytes,
    /// An ingester of another kind, which counts records as it cuts them.
    Records,
}

/// The state of one connection.
struct Connection {
    stream: TcpStream,
    /// What of the hello is to be sent.
    hello: Vec<u8>,
    /// Bytes of a count that is not whole.
    reply: Vec<u8>,
    /// What the ingester counts; `None` before its first reply.
    counts: Option<Counts>,
    finished: Option<Instant>,
    progress: Instant,
    is_settling: bool,
}

/// The sender.
pub(crate) struct Sender {
    queue: Arc<Queue>,
    metrics: Arc<ForwardMetrics>,
    acknowledged: bool,
    options: SenderOptions,
    rotation: Rotation,
    backoff: Backoff,
    window: Window,
    last_used: Option<SocketAddr>,
    random_state: u64,
    /// Whether the last state that was told is "connected"; `None` before the first.
    told_connected: Option<bool>,
    /// The connection that was not told yet: address, bytes sent again on it.
    to_tell: Option<(SocketAddr, usize)>,
    told_counts: bool,
    /// Connections in a row that were closed without a reply.
    unanswered: u32,
}

impl Sender {
    pub(crate) fn new(
        mut options: SenderOptions,
        queue: Arc<Queue>,
        metrics: Arc<ForwardMetrics>,
    ) -> Self {
        let mut random_state = options.seed;
        let targets = std::mem::take(&mut options.targets);
        let rotation = Rotation::new(targets, &mut || next_random(&mut random_state));
        let acknowledged = options.durable || options.topic.is_some();
        Self {
            queue,
            metrics,
            acknowledged,
            rotation,
            backoff: Backoff::new(FORWARD_BACKOFF_BASE, options.backoff_max),
            options,
            window: Window::new(acknowledged),
            last_used: None,
            random_state,
            told_connected: None,
            to_tell: None,
            told_counts: false,
            unanswered: 0,
        }
    }

    /// Lines that were taken from the queue and are not handed over.
    pub(crate) fn lines_on_their_way(&self) -> u64 {
        self.window.lines()
    }

    /// Sends until nothing is left. May be dropped at any point.
    pub(crate) async fn run(&mut self) -> Ended {
        loop {
            let queue = Arc::clone(&self.queue);
            let is_idle = self.window.is_empty();
            let connected = tokio::select! {
                biased;
                () = until_nothing_is_left(&queue, is_idle) => return Ended::Done,
                connected = self.connect() => connected,
            };
            let lost = match connected {
                Ok((stream, address)) => {
                    self.on_connected(address);
                    let since = Instant::now();
                    self.unanswered += 1;
                    let close = self.serve(stream).await;
                    self.metrics.connected.set(0);
                    self.note_handed_over();
                    match close {
                        Close::Done => return Ended::Done,
                        Close::Unconfirmed => return Ended::Unconfirmed,
                        Close::Lost(why) => {
                            self.metrics.disconnects.inc();
                            self.window.on_broken();
                            self.note_handed_over();
                            if since.elapsed() >= FORWARD_STEADY {
                                self.backoff.reset();
                            }
                            why
                        }
                    }
                }
                Err(why) => {
                    self.metrics.connect_failures.inc();
                    tracing::debug!("a try failed: {why}");
                    why
                }
            };
            self.tell_lost(&lost);
            let wait = self.backoff.next_wait(next_random(&mut self.random_state));
            let is_idle = self.window.is_empty();
            tokio::select! {
                () = until_nothing_is_left(&queue, is_idle) => return Ended::Done,
                () = sleep(wait) => {}
            }
        }
    }

    /// Tries the addresses of the next target, one after the other.
    async fn connect(&mut self) -> Result<(TcpStream, SocketAddr), String> {
        let target = self.rotation.next_target();
        let state = &mut self.random_state;
        let mut random = || next_random(state);
        let server = self.options.dns_server;
        let found = resolve(&target, server, self.last_used, &mut random).await;
        let mut why = format!("{target} has no address");
        for address in found.map_err(|e| e.to_string())? {
            match timeout(FORWARD_CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    self.last_used = Some(address);
                    set_options(&stream);
                    return Ok((stream, address));
                }
                Ok(Err(e)) => why = format!("{target} ({address}): {e}"),
                Err(_) => why = format!("{target} ({address}): connecting took too long"),
            }
        }
        Err(why)
    }

    /// Uses a connection until its end.
    async fn serve(&mut self, stream: TcpStream) -> Close {
        let mut connection = Connection {
            stream,
            hello: self.hello(),
            reply: Vec::new(),
            counts: None,
            finished: None,
            progress: Instant::now(),
            is_settling: false,
        };
        let queue = Arc::clone(&self.queue);
        loop {
            self.fill_window();
            let is_sent = connection.hello.is_empty() && self.window.is_sent();
            let ends = queue.is_finished() || connection.is_settling;
            if is_sent && ends && connection.finished.is_none() {
                if let Err(e) =
                    SockRef::from(&connection.stream).shutdown(std::net::Shutdown::Write)
                {
                    return Close::Lost(e.to_string());
                }
                connection.finished = Some(Instant::now());
            }
            if self.acknowledged && self.window.is_empty() && connection.finished.is_some() {
                return if connection.is_settling {
                    Close::Lost("everything on it was acknowledged".to_owned())
                } else {
                    Close::Done
                };
            }
            let is_full = self.window.held_bytes() >= FORWARD_WINDOW_BYTES_MAX;
            // Who counts bytes may take its time: its disk may be full.
            let may_differ = is_full && is_sent && connection.counts == Some(Counts::Records);
            let settle_at = connection.progress + FORWARD_STALL;
            let close_at = connection.finished.map(|at| at + self.options.shutdown_timeout);
            tokio::select! {
                ready = connection.stream.readable() => {
                    if let Some(close) = self.read(ready, &mut connection) {
                        return close;
                    }
                }
                ready = connection.stream.writable(), if !is_sent && connection.finished.is_none() => {
                    if let Err(e) = ready.and_then(|()| self.write(&mut connection)) {
                        return Close::Lost(e.to_string());
                    }
                }
                () = queue.news.notified(), if !is_full => {}
                () = sleep(READ_RETRY), if is_sent && queue.is_failing_to_read() => {}
                () = sleep_until(settle_at), if may_differ && connection.finished.is_none() => {
                    self.tell_counts("the ingester acknowledges less than was sent");
                    connection.is_settling = true;
                }
                () = sleep_until(close_at.unwrap_or(settle_at)), if close_at.is_some() && !self.acknowledged => {
                    return Close::Unconfirmed;
                }
            }
        }
    }

    /// Asks for counts of bytes: those of records depend on where the ingester cuts long lines. One
    /// that hangs up on that is asked without.
    fn hello(&self) -> Vec<u8> {
        if !self.acknowledged {
            return Vec::new();
        }
        let mut hello = b"\0OKLOGD-ACK/1".to_vec();
        if let Some(topic) = &self.options.topic {
            hello.extend_from_slice(format!(" topic={topic}").as_bytes());
        }
        if self.unanswered <= UNANSWERED_MAX {
            hello.extend_from_slice(b" count=bytes");
        }
        hello.push(b'\n');
        hello
    }

    fn fill_window(&mut self) {
        // Without acknowledgements the window is what the socket has not taken.
        while self.window.held_bytes() < FORWARD_WINDOW_BYTES_MAX
            && (self.acknowledged || self.window.is_sent())
        {
            let Some(piece) = self.queue.take() else { break };
            self.window.push(piece);
        }
        self.metrics.window_bytes.set(self.window.held_bytes() as i64);
    }

    fn write(&mut self, connection: &mut Connection) -> io::Result<()> {
        if !connection.hello.is_empty() {
            let sent = ok_or_zero(connection.stream.try_write(&connection.hello))?;
            connection.hello.drain(..sent);
            return Ok(());
        }
        if let Some(bytes) = self.window.next_bytes() {
            let sent = ok_or_zero(connection.stream.try_write(bytes))?;
            self.window.on_written(sent);
            if sent > 0 {
                connection.progress = Instant::now();
            }
            self.note_handed_over();
        }
        Ok(())
    }

    /// `Some`: the connection is over.
    fn read(&mut self, ready: io::Result<()>, connection: &mut Connection) -> Option<Close> {
        let mut bytes = [0; 4096];
        let len = match ready.and_then(|()| connection.stream.try_read(&mut bytes)) {
            Ok(0) if self.acknowledged => {
                return Some(Close::Lost("the ingester closed the connection".to_owned()));
            }
            Ok(0) if connection.finished.is_some() => return Some(Close::Done),
            Ok(0) => return Some(Close::Lost("the ingester closed the connection".to_owned())),
            Ok(len) => len,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
            Err(_) if connection.finished.is_some() && !self.acknowledged => {
                return Some(Close::Unconfirmed);
            }
            Err(e) => return Some(Close::Lost(e.to_string())),
        };
        if !self.acknowledged {
            // Nobody was asked to say anything.
            return None;
        }
        connection.reply.extend_from_slice(&bytes[..len]);
        let whole = connection.reply.len() / 8 * 8;
        for count in connection.reply.drain(..whole).collect::<Vec<u8>>().chunks_exact(8) {
            let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
            let counts = if let Some(counts) = connection.counts {
                counts
            } else {
                self.unanswered = 0;
                self.tell_connected();
                let is_marker = count == COUNTING_BYTES;
                let counts = if is_marker { Counts::Bytes } else { Counts::Records };
                connection.counts = Some(counts);
                if is_marker {
                    continue;
                }
                counts
            };
            let outcome = match counts {
                Counts::Bytes => self.window.on_bytes_count(count),
                Counts::Records => self.window.on_count(count),
            };
            self.backoff.reset();
            if outcome.is_err() {
                self.tell_counts("the ingester acknowledges more than was sent");
                return Some(Close::Lost("its acknowledgements cannot be relied on".to_owned()));
            }
        }
        connection.progress = Instant::now();
        self.note_handed_over();
        None
    }

    fn note_handed_over(&mut self) {
        let done = self.window.take_handed_over();
        self.metrics.records.inc_by(done.lines);
        self.metrics.bytes.inc_by(done.bytes);
        self.metrics.window_bytes.set(self.window.held_bytes() as i64);
        if let Some(before) = done.entries_before {
            self.queue.release(before);
        }
    }

    fn on_connected(&mut self, address: SocketAddr) {
        self.metrics.connected.set(1);
        let again = self.window.held_bytes();
        self.metrics.resent_bytes.inc_by(again as u64);
        self.to_tell = Some((address, again));
        if !self.acknowledged {
            self.tell_connected();
        }
    }

    /// With acknowledgements only once there was one: who accepts and hangs up is no ingester.
    fn tell_connected(&mut self) {
        if let Some((address, again)) = self.to_tell.take()
            && self.told_connected.replace(true) != Some(true)
        {
            tracing::info!(%address, bytes_sent_again = again, "connected");
        }
    }

    fn tell_lost(&mut self, why: &str) {
        match self.told_connected.replace(false) {
            Some(true) => tracing::warn!(reason = why, "the connection is lost: trying again"),
            None => tracing::warn!(reason = why, "no ingester can be reached: trying again"),
            Some(false) => {}
        }
    }

    /// Once: it will not change by itself.
    fn tell_counts(&mut self, what: &str) {
        if !std::mem::replace(&mut self.told_counts, true) {
            tracing::warn!(
                "{what}: its --ingest.max-record-size differs from the forwarder's; set both alike, \
                 or lines that are longer may be lost or sent twice"
            );
        }
    }
}

/// Resolves once nothing is left to be sent; never while something is on its way.
async fn until_nothing_is_left(queue: &Queue, is_idle: bool) {
    if !is_idle && !queue.is_leaving_it_to_the_spool() {
        // A signal may still come.
        while !queue.is_leaving_it_to_the_spool() {
            queue.news.notified().await;
        }
        return;
    }
    while !queue.is_finished() {
        queue.news.notified().await;
    }
}

fn ok_or_zero(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// A host that is gone is noticed; small writes are not held back. Where an option cannot be set
/// the connection works without it.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(FORWARD_USER_TIMEOUT));
}

/// splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
