//! SIGINT and SIGTERM: the first one ends the node in good order, the second one at once.
//!
//! Invariants: they are heard until the process ends, on a thread that does nothing else: whatever
//! the node waits for while it stops, a second signal does not wait for it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::{Ending, Endings};

/// Starts the thread. The first signal is sent to `endings`; a second one ends the process, as one
/// that is killed.
pub(super) fn spawn(endings: Endings) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let hear = async move {
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
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(hear))?;
    Ok(())
}
