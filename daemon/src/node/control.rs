//! The control thread: HTTP on a single-threaded runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use net::backend::Backend;
use net::http::{HttpOptions, serve};
use net::metrics::NodeMetrics;
use tokio::sync::watch;

/// Threads that compile expressions and plan queries, so that the control thread never does.
const BLOCKING_THREADS: usize = 4;

/// The running control thread.
pub(super) struct Control {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Stops accepting, and lets open requests end: the thread ends with the last of them.
    pub(super) fn stop(&mut self) -> Option<JoinHandle<()>> {
        // The receiver lives as long as the thread.
        let _ = self.stop.send(true);
        self.thread.take()
    }
}

/// Starts the thread.
pub(super) fn spawn(
    listener: TcpListener,
    answers: (Arc<dyn Backend>, Arc<NodeMetrics>),
    options: HttpOptions,
) -> io::Result<Control> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let (stop, mut stopped) = watch::channel(false);
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let stop_asked = async move {
        // An error means that the sender is gone, which is a reason to stop, too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(serve(listener, answers, options, stop_asked));
    })?;
    Ok(Control { stop, thread: Some(thread) })
}
