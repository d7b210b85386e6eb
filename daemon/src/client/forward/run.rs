//! Starting a forwarder's threads, and how it ends.
//!
//! Threads: the caller's waits for signals and for the end; `sender` runs connections and HTTP on a
//! single-threaded runtime; `input` reads standard input; `spool-sync` syncs the spool. Invariant:
//! whatever disk or network do, a second signal ends it at once, and the first one in its time: the
//! caller's thread touches neither.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ForwardOptions;
use super::api;
use super::input::read_input;
use super::limits::{FORWARD_LAST_ACKNOWLEDGEMENTS, FORWARD_LAST_READ, FORWARD_STUCK};
use super::metrics::ForwardMetrics;
use super::piece::LinePieces;
use super::queue::PieceQueue;
use super::sender::{Ended, Sender, SenderOptions};

/// What is in the spool for longer than this is durable.
const SPOOL_SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// What could not be read of the spool is read again after so many of these.
const READ_AGAIN_INTERVALS: u32 = 25;

/// Names of files in the spool are looked up after so many of these, also while nothing is written.
const LOOK_INTERVALS: u32 = 5;

/// How it ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All of standard input is handed over.
    HandedOver,
    /// A signal came; what is not handed over is safe in the spool.
    Spooled {
        /// Lines in the spool.
        lines: u64,
    },
    /// A signal came, and not everything could be handed over in time.
    NotHandedOver {
        /// Lines that are lost.
        lines: u64,
        /// Lines in the spool.
        spooled: u64,
        /// Whether standard input holds more, which was not read.
        has_unread: bool,
    },
    /// No ingester takes the lines: every address refuses them, or is none.
    Refused {
        /// Lines that are lost.
        lines: u64,
        /// Lines in the spool.
        spooled: u64,
    },
    /// Standard input could not be read to its end; what was read is handed over.
    InputFailed(io::Error),
    /// Disk or network did not let it end in time; how much is not handed over is not known.
    Stuck,
}

/// Forwards standard input until it is handed over, or a signal ends it.
pub(crate) fn run(options: ForwardOptions) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shutdown_timeout = options.shutdown_timeout;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (to_sender, from_here) = mpsc::unbounded_channel();
        let (tell, mut told) = oneshot::channel();
        // Not joined: it may hang in a call of the system, and the process ends without it.
        std::thread::Builder::new().name("sender".into()).spawn(move || {
            // Nobody waits any more if the time was over.
            let _ = tell.send(forward(options, from_here));
        })?;
        let last = FORWARD_LAST_READ + FORWARD_LAST_ACKNOWLEDGEMENTS;
        let mut give_up_at: Option<Instant> = None;
        loop {
            tokio::select! {
                outcome = &mut told => {
                    return outcome.unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
                }
                // Who hangs up on an application with its forwarder wants its last words kept, and
                // may do so twice.
                name = signals.next() => {
                    if name != HANGUP || give_up_at.is_none() {
                        let now = Instant::now();
                        give_up_at = Some(match give_up_at {
                            None => now + shutdown_timeout + last + FORWARD_STUCK,
                            Some(at) => at.min(now + FORWARD_STUCK),
                        });
                        // It may have ended just now.
                        let _ = to_sender.send(name);
                    }
                }
                () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => {
                    return Ok(Outcome::Stuck);
                }
            }
        }
    })
}

const HANGUP: &str = "SIGHUP";

/// Signals that ask for the end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where whoever started us had it ignored, as nohup(1) does.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: (!is_ignored(SignalKind::hangup()))
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
        })
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hangup => HANGUP,
        }
    }
}

/// Whether this process ignores a signal, as far as proc_pid_status(5) tells.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Names of signals as they come.
type SignalNames = mpsc::UnboundedReceiver<&'static str>;

/// Everything but signals; runs on the thread `sender`.
fn forward(options: ForwardOptions, mut signals: SignalNames) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = Arc::new(ForwardMetrics { log: options.log, ..ForwardMetrics::default() });
    let ForwardOptions { waiting, prefix, record_bytes_max, shutdown_timeout, .. } = options;
    let queue = Arc::new(PieceQueue::new(waiting, Arc::clone(&metrics)));
    let sender = SenderOptions {
        targets: options.targets,
        durable: options.durable,
        topic: options.topic,
        token: options.token,
        backoff_max: options.backoff_max,
        dns_server: options.dns_server,
        seed: seed()?,
    };
    let sender = Sender::new(sender, Arc::clone(&queue), Arc::clone(&metrics));
    let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let stop = Arc::new(stop);
    let pieces = LinePieces::new(prefix, record_bytes_max);
    spawn_reader(pieces, &queue, &metrics, &stop)?;
    let syncer = queue.is_spool().then(|| Syncer::spawn(Arc::clone(&queue))).transpose()?;
    let (ended, on_their_way) = runtime.block_on(async {
        if let Some(listener) = options.api {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(api::serve(listener, Arc::clone(&queue), Arc::clone(&metrics)));
        }
        let ended = drive(sender, &queue, &stop, shutdown_timeout, &mut signals).await;
        io::Result::Ok(ended)
    })?;
    // A look-up that is under way is nobody's business any more.
    runtime.shutdown_background();
    if let Some(syncer) = syncer {
        syncer.stop();
    }
    let is_safe = queue.close();
    Ok(outcome(ended, on_their_way, is_safe, &queue))
}

fn outcome(ended: Option<Ended>, on_their_way: u64, is_safe: bool, queue: &PieceQueue) -> Outcome {
    let (waiting, spooled) = queue.left();
    let in_memory = if queue.is_spool() { 0 } else { on_their_way };
    let lost = waiting + in_memory + if is_safe { 0 } else { spooled };
    let has_unread = queue.has_unread();
    if ended == Some(Ended::Refused) {
        Outcome::Refused { lines: lost, spooled }
    } else if lost > 0 || has_unread || (queue.has_spooled() && !is_safe) {
        Outcome::NotHandedOver { lines: lost, spooled, has_unread }
    } else if let Some(error) = queue.take_input_error() {
        Outcome::InputFailed(error)
    } else if queue.has_spooled() {
        Outcome::Spooled { lines: spooled }
    } else {
        Outcome::HandedOver
    }
}

/// Sends until the end, or until the time after a signal is over: then `None`. Says also how many
/// lines are on their way.
async fn drive(
    mut sender: Sender,
    queue: &Arc<PieceQueue>,
    stop: &Arc<OwnedFd>,
    shutdown_timeout: Duration,
    signals: &mut SignalNames,
) -> (Option<Ended>, u64) {
    let ended = tokio::select! {
        ended = sender.run() => Some(ended),
        () = out_of_time(queue, stop, shutdown_timeout, signals) => None,
    };
    (ended, sender.lines_on_their_way())
}

/// Resolves when the time after a signal is over. Until then reading and sending go on; then what
/// can be read without waiting is read, and acknowledged if that is a matter of a moment.
async fn out_of_time(
    queue: &PieceQueue,
    stop: &OwnedFd,
    shutdown_timeout: Duration,
    signals: &mut SignalNames,
) {
    let Some(signal) = signals.recv().await else { return };
    let words = if queue.has_ended() {
        "stopping: standard input has ended; handing over what waits, for --shutdown-timeout at most"
    } else {
        "stopping: reading on until standard input ends, for --shutdown-timeout at most"
    };
    tracing::info!(signal, "{words}");
    queue.stop();
    let left_to_the_spool = async {
        if queue.is_spool() {
            queue.until_ended().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let is_urgent = tokio::select! {
        () = sleep(shutdown_timeout) => false,
        () = left_to_the_spool => false,
        _ = signals.recv() => true,
    };
    let was_read = queue.has_ended();
    queue.close_input();
    // The counter of an eventfd takes a 1 at any time.
    let _ = rustix::io::write(stop, &1u64.to_ne_bytes());
    let _ = timeout(FORWARD_LAST_READ, queue.until_ended()).await;
    if !is_urgent && (!was_read || queue.is_spool()) {
        tokio::select! {
            () = sleep(FORWARD_LAST_ACKNOWLEDGEMENTS) => {}
            _ = signals.recv() => {}
        }
    }
}

fn spawn_reader(
    pieces: LinePieces,
    queue: &Arc<PieceQueue>,
    metrics: &Arc<ForwardMetrics>,
    stop: &Arc<OwnedFd>,
) -> io::Result<()> {
    let (queue, metrics, stop) = (Arc::clone(queue), Arc::clone(metrics), Arc::clone(stop));
    // Not joined: it may wait for input, and the process ends without it.
    std::thread::Builder::new().name("input".into()).spawn(move || {
        read_input(rustix::stdio::stdin(), &stop, pieces, (&queue, &metrics));
    })?;
    Ok(())
}

/// The thread that makes the spool durable.
struct Syncer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: std::thread::JoinHandle<()>,
}

impl Syncer {
    fn spawn(queue: Arc<PieceQueue>) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("spool-sync".into()).spawn(move || {
            let (flag, wake) = &*stopped;
            let mut is_over = flag.lock().unwrap_or_else(PoisonError::into_inner);
            let mut rounds = 0;
            while !*is_over {
                let waited = wake.wait_timeout(is_over, SPOOL_SYNC_INTERVAL);
                drop(waited.unwrap_or_else(PoisonError::into_inner).0);
                queue.sync_spool();
                rounds = (rounds + 1) % READ_AGAIN_INTERVALS;
                if rounds % LOOK_INTERVALS == 0 {
                    queue.look_at_names();
                }
                if rounds == 0 {
                    queue.read_again();
                }
                is_over = flag.lock().unwrap_or_else(PoisonError::into_inner);
            }
        })?;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        // A panic would have ended the process.
        let _ = self.thread.join();
    }
}

fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}
