//! Starting a forwarder's threads, and how it ends.
//!
//! Threads: one reads standard input, one syncs the spool, and the caller's runs everything else
//! on a single-threaded runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::ForwardOptions;
use super::api;
use super::input::read_input;
use super::metrics::ForwardMetrics;
use super::piece::LinePieces;
use super::queue::Queue;
use super::sender::{Ended, Sender, SenderOptions};

/// What is in the spool for longer than this is durable.
const SPOOL_SYNC_INTERVAL: Duration = Duration::from_millis(200);

/// How long lines on their way are waited for when what is left stays in the spool.
const SPOOL_LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
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
    },
    /// Everything was written, but the ingester did not end the connection in order: the last
    /// lines may be lost.
    Unconfirmed,
    /// Standard input could not be read to its end; what was read is handed over.
    InputFailed(io::Error),
}

/// Forwards standard input until it is handed over, or a signal ends it.
pub fn run(options: ForwardOptions) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = Arc::new(ForwardMetrics { log: options.log, ..ForwardMetrics::default() });
    let ForwardOptions { waiting, prefix, record_bytes_max, shutdown_timeout, .. } = options;
    let queue = Arc::new(Queue::new(waiting, Arc::clone(&metrics)));
    let sender = SenderOptions {
        targets: options.targets,
        durable: options.durable,
        topic: options.topic,
        shutdown_timeout,
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
    let outcome = runtime.block_on(async {
        if let Some(listener) = options.api {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(api::serve(listener, Arc::clone(&queue), Arc::clone(&metrics)));
        }
        drive(sender, &queue, &stop, shutdown_timeout).await
    });
    if let Some(syncer) = syncer {
        syncer.stop();
    }
    let is_safe = queue.close();
    let (ended, on_their_way) = outcome?;
    let (lost, spooled) = queue.left();
    let in_memory = if queue.is_spool() { 0 } else { on_their_way };
    Ok(if lost + in_memory > 0 || (queue.has_spooled() && !is_safe) {
        Outcome::NotHandedOver {
            lines: lost + in_memory + if is_safe { 0 } else { spooled },
            spooled,
        }
    } else if let Some(error) = queue.take_input_error() {
        Outcome::InputFailed(error)
    } else if queue.has_spooled() {
        Outcome::Spooled { lines: spooled }
    } else if ended != Some(Ended::Done) {
        // Perhaps out of time with nothing left but the ingester's own end.
        Outcome::Unconfirmed
    } else {
        Outcome::HandedOver
    })
}

/// Sends until the end, or until the time after a signal is over: then `None`. Says also how many
/// lines are on their way.
async fn drive(
    mut sender: Sender,
    queue: &Arc<Queue>,
    stop: &Arc<OwnedFd>,
    shutdown_timeout: Duration,
) -> io::Result<(Option<Ended>, u64)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Who hangs up on an application with its forwarder wants its last words kept.
    let mut hangup = signal(SignalKind::hangup())?;
    let out_of_time = async {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        };
        tracing::info!(signal = name, "stopping: handing over what was read");
        queue.stop();
        // The counter of an eventfd takes a 1 at any time.
        let _ = rustix::io::write(&**stop, &1u64.to_ne_bytes());
        let time = if queue.is_spool() {
            SPOOL_LAST_ACKNOWLEDGEMENTS.min(shutdown_timeout)
        } else {
            shutdown_timeout
        };
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let ended = tokio::select! {
        ended = sender.run() => Some(ended),
        () = out_of_time => None,
    };
    Ok((ended, sender.lines_on_their_way()))
}

fn spawn_reader(
    pieces: LinePieces,
    queue: &Arc<Queue>,
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
    fn spawn(queue: Arc<Queue>) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("spool-sync".into()).spawn(move || {
            let (flag, wake) = &*stopped;
            let mut is_over = flag.lock().unwrap_or_else(PoisonError::into_inner);
            while !*is_over {
                let waited = wake.wait_timeout(is_over, SPOOL_SYNC_INTERVAL);
                drop(waited.unwrap_or_else(PoisonError::into_inner).0);
                queue.sync_spool();
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
