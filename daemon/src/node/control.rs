//! The control thread: HTTP and signals on one single-threaded runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use net::backend::Backend;
use net::http::{HttpOptions, serve};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Ending, Endings};

/// Threads that compile expressions and plan queries, so that the control thread never does.
const BLOCKING_THREADS: usize = 4;

/// The running control thread.
pub(super) struct Control {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Stops accepting, lets open requests end, and waits for that.
    pub(super) fn stop(self) {
        // The receiver lives as long as the thread.
        let _ = self.stop.send(true);
        // It bounds its own draining; a panic would have ended the process.
        let _ = self.thread.join();
    }
}

/// Starts the thread. The first SIGINT or SIGTERM is sent to `endings`; a second one ends the
/// process at once, as one that is killed.
pub(super) fn spawn(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    options: HttpOptions,
    endings: Endings,
) -> io::Result<Control> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let (stop, mut stopped) = watch::channel(false);
    let (listener, mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (
            tokio::net::TcpListener::from_std(listener)?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let signals = async move {
        for count in 0.. {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if count > 0 {
                tracing::warn!(signal = name, "a second signal: ending at once");
                crate::logging::finish();
                std::process::exit(1);
            }
            // The main thread waits for this until the end.
            let _ = endings.send(Ending::Signal(name));
        }
    };
    let stop_asked = async move {
        // An error means that the sender is gone, which is a reason to stop, too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(async {
            tokio::spawn(signals);
            serve(listener, backend, options, stop_asked).await;
        });
    })?;
    Ok(Control { stop, thread })
}
