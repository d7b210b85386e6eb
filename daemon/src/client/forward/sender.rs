//! The task that connects, sends and reads acknowledgements: the shell around [`Window`],
//! [`Rotation`], [`Backoff`] and [`Talk`].
//!
//! Invariants: one connection at a time; what the window has not forgotten is sent again on the next
//! connection; a connection on which nothing moves is left; only counts, and connections that last,
//! make the next tries come soon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::ingest::hello::{Promise, Secret};
use engine::random::Random;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::connection::{Connection, Failure, Verdict, hello};
use super::limits::{
    FORWARD_BACKOFF_BASE, FORWARD_STALL, FORWARD_STEADY, FORWARD_WINDOW_BYTES_MAX,
};
use super::metrics::ForwardMetrics;
use super::progress::Awaited;
use super::queue::PieceQueue;
use super::resolve::resolve;
use super::rotation::{Rotation, Target};
use super::talk::{Line, Talk};
use super::window::Window;

/// Pause before a spool that could not be read is asked again.
const READ_RETRY: Duration = Duration::from_millis(500);

/// So often all targets have to refuse before that is the end, once there is no more input.
const REFUSALS_EACH: usize = 2;

/// What a sender needs to know.
pub(crate) struct SenderOptions {
    pub(crate) targets: Vec<Target>,
    pub(crate) durable: bool,
    pub(crate) topic: Option<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) backoff_max: Duration,
    pub(crate) dns_server: Option<SocketAddr>,
    pub(crate) seed: u64,
}

/// How sending ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Ended {
    /// Everything is handed over, or left to the spool.
    Done,
    /// The input is over, and every address refuses its lines.
    Refused,
}

/// The sender.
pub(crate) struct Sender {
    queue: Arc<PieceQueue>,
    metrics: Arc<ForwardMetrics>,
    hello: Vec<u8>,
    dns_server: Option<SocketAddr>,
    rotation: Rotation,
    backoff: Backoff,
    window: Window,
    last_used: Option<SocketAddr>,
    random: Random,
    talk: Talk,
    /// Tries in a row that ended in a refusal.
    refusals: usize,
    /// So many in a row are all that there is to try.
    refusals_max: usize,
}

impl Sender {
    pub(crate) fn new(
        options: SenderOptions,
        queue: Arc<PieceQueue>,
        metrics: Arc<ForwardMetrics>,
    ) -> Self {
        let mut random = Random::new(options.seed);
        let refusals_max = options.targets.len() * REFUSALS_EACH;
        let rotation = Rotation::new(options.targets, &mut || random.next_u64());
        let promise = if options.durable { Promise::Durable } else { Promise::Fast };
        Self {
            queue,
            metrics,
            hello: hello(promise, options.topic.as_deref(), options.token.as_ref()),
            dns_server: options.dns_server,
            rotation,
            backoff: Backoff::new(FORWARD_BACKOFF_BASE, options.backoff_max),
            window: Window::new(),
            last_used: None,
            random,
            talk: Talk::new(Instant::now()),
            refusals: 0,
            refusals_max,
        }
    }

    /// Lines that were taken from the queue and are not handed over.
    pub(crate) fn lines_on_their_way(&self) -> u64 {
        self.window.lines()
    }

    /// Sends until nothing is left. May be dropped at any point.
    pub(crate) async fn run(&mut self) -> Ended {
        let queue = Arc::clone(&self.queue);
        loop {
            let is_idle = self.window.is_empty();
            let connected = tokio::select! {
                biased;
                () = until_nothing_is_left(&queue, is_idle) => return Ended::Done,
                connected = self.connect() => connected,
            };
            if let Some((connection, address)) = connected {
                let since = Instant::now();
                let served = self.serve(connection, address).await;
                self.metrics.connected.set(0);
                self.note_handed_over();
                let Err(failure) = served else { return Ended::Done };
                self.metrics.disconnects.inc();
                self.window.on_broken();
                self.note_handed_over();
                if since.elapsed() >= FORWARD_STEADY {
                    self.backoff.reset();
                }
                self.tell_failure(&address.to_string(), &failure);
            } else {
                self.metrics.connect_failures.inc();
                if self.refusals >= self.refusals_max && queue.has_ended() {
                    return Ended::Refused;
                }
            }
            let wait = self.backoff.next_wait(self.random.next_u64());
            let is_idle = self.window.is_empty();
            tokio::select! {
                () = until_nothing_is_left(&queue, is_idle) => return Ended::Done,
                () = sleep(wait) => {}
            }
        }
    }

    /// Tries the addresses of the next target, one after the other.
    async fn connect(&mut self) -> Option<(Connection, SocketAddr)> {
        let target = self.rotation.next_target();
        let stream = &mut self.random;
        let mut random = || stream.next_u64();
        let addresses = match resolve(&target, self.dns_server, self.last_used, &mut random).await {
            Ok(addresses) => addresses,
            Err(error) => {
                self.refusals = 0;
                self.tell_failure(&target.to_string(), &Failure::passing(error));
                return None;
            }
        };
        let mut is_refused = true;
        for address in addresses {
            match Connection::make(address, &self.hello).await {
                Ok(connection) => {
                    self.last_used = Some(address);
                    self.refusals = 0;
                    return Some((connection, address));
                }
                Err(failure) => {
                    is_refused &= failure.verdict == Verdict::Refusal;
                    self.tell_failure(&place(&target, address), &failure);
                }
            }
        }
        self.refusals = if is_refused { self.refusals + 1 } else { 0 };
        None
    }

    /// Uses a connection until everything is handed over, or it fails.
    async fn serve(
        &mut self,
        mut connection: Connection,
        address: SocketAddr,
    ) -> Result<(), Failure> {
        let sent_again = self.window.held_bytes();
        self.metrics.connected.set(1);
        self.metrics.resent_bytes.inc_by(sent_again as u64);
        self.tell_connected(address, sent_again);
        let queue = Arc::clone(&self.queue);
        loop {
            self.fill_window();
            let is_sent = self.window.is_sent();
            if is_sent && queue.is_finished() && !connection.is_finished {
                connection.finish()?;
            }
            if self.window.is_empty() && connection.is_finished {
                return Ok(());
            }
            let is_full = self.window.held_bytes() >= FORWARD_WINDOW_BYTES_MAX;
            let awaited = match (self.window.is_owed(connection.is_finished), is_sent) {
                (true, _) => Awaited::Count,
                (false, true) => Awaited::Nothing,
                (false, false) => Awaited::Room,
            };
            let now = Instant::now();
            let left_at = connection.progress.on_awaited(awaited, now);
            tokio::select! {
                ready = connection.stream.readable() => {
                    ready.map_err(Failure::passing)?;
                    self.on_readable(&mut connection)?;
                    self.tell_connected(address, sent_again);
                }
                ready = connection.stream.writable(), if !is_sent => {
                    ready.map_err(Failure::passing)?;
                    if let Some(bytes) = self.window.next_bytes() {
                        let sent = connection.write(bytes)?;
                        self.window.on_written(sent);
                    }
                }
                () = queue.news.notified(), if !is_full && !connection.is_finished => {}
                () = sleep(READ_RETRY), if is_sent && queue.is_failing_to_read() => {}
                () = sleep_until(left_at.unwrap_or(now)), if left_at.is_some() => {
                    return Err(Failure::silent(format!(
                        "it took nothing for {} s: it is stuck or full", FORWARD_STALL.as_secs()
                    )));
                }
            }
        }
    }

    fn fill_window(&mut self) {
        while self.window.held_bytes() < FORWARD_WINDOW_BYTES_MAX {
            let Some(piece) = self.queue.take() else { break };
            self.window.push(piece);
        }
        self.metrics.window_bytes.set(self.window.held_bytes() as i64);
    }

    fn on_readable(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        for count in connection.read_counts()? {
            let is_more = self.window.on_count(count).map_err(|_| {
                Failure::passing("it counts more than it was sent: its counts cannot be relied on")
            })?;
            if is_more {
                self.backoff.reset();
                connection.progress.on_counted(Instant::now());
            }
        }
        self.note_handed_over();
        Ok(())
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

    fn tell_connected(&mut self, address: SocketAddr, bytes_sent_again: usize) {
        match self.talk.on_connected(Instant::now()) {
            Some(0) => tracing::info!(%address, bytes_sent_again, "connected"),
            Some(untold) => tracing::info!(%address, bytes_sent_again, untold, "connected"),
            None => {}
        }
    }

    fn tell_failure(&mut self, place: &str, failure: &Failure) {
        tracing::debug!(place, "a try failed: {failure}");
        let why = failure.to_string();
        let is_its_answer = failure.verdict != Verdict::Passing;
        let Some(line) = self.talk.on_failed(place, &why, is_its_answer, Instant::now()) else {
            return;
        };
        let (words, untold) = match line {
            Line::Lost(untold) => ("the connection is lost: trying again", untold),
            Line::Unreachable(untold) => ("no ingester can be reached: trying again", untold),
            Line::Unusable(untold) => (self.words_of_no_use(failure), untold),
        };
        if untold > 0 {
            tracing::warn!(address = place, reason = why, untold, "{words}");
        } else {
            tracing::warn!(address = place, reason = why, "{words}");
        }
    }

    /// What comes of an address that does not take the lines: said so that it is true.
    fn words_of_no_use(&self, failure: &Failure) -> &'static str {
        if failure.verdict != Verdict::Refusal || !self.queue.has_ended() {
            "an address is of no use: trying again"
        } else if self.refusals + 1 < self.refusals_max {
            "an address is of no use: trying each once more, for standard input has ended"
        } else {
            "an address is of no use"
        }
    }
}

/// An address, with the target that it was found for where that is called otherwise.
fn place(target: &Target, address: SocketAddr) -> String {
    let (name, address) = (target.to_string(), address.to_string());
    if name == address { name } else { format!("{name} ({address})") }
}

/// Resolves once nothing is left to be sent; never while something is on its way.
async fn until_nothing_is_left(queue: &PieceQueue, is_idle: bool) {
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
