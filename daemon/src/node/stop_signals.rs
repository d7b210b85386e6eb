//! SIGINT and SIGTERM: the first one ends the node in good order, the second one at once.
//!
//! Invariants: they are heard until the process ends, on a thread that does nothing else: whatever
//! the node waits for while it stops, a second signal does not wait for it. A start is broken off by the
//! first one, for as long as nothing can have been taken: it may be stopped anywhere and run again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use super::{Ending, Endings};

/// Whether a start may still be broken off, decided once.
#[derive(Default)]
pub(super) struct StartGate(AtomicU8);

const UNDECIDED: u8 = 0;
const GOES_ON: u8 = 1;
const BROKEN_OFF: u8 = 2;

impl StartGate {
    fn decide(&self, what: u8) -> bool {
        let decided = self.0.compare_exchange(UNDECIDED, what, Ordering::AcqRel, Ordering::Acquire);
        decided.is_ok()
    }

    /// What follows is ended in good order only. Does not return if it was broken off: the process ends.
    pub(super) fn go_on(&self) {
        while !self.decide(GOES_ON) {
            std::thread::park();
        }
    }

    /// Says whether it is: nothing follows.
    fn break_off(&self) -> bool {
        self.decide(BROKEN_OFF)
    }
}

/// Starts the thread. The first signal is sent to `endings`, or breaks the start off; a second one ends the
/// process, as one that is killed.
pub(super) fn spawn(endings: Endings, start: Arc<StartGate>) -> io::Result<()> {
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
            if start.break_off() {
                tracing::info!(
                    signal = name,
                    "stopped before anything was taken: the start is broken off"
                );
                crate::logging::finish();
                std::process::exit(0);
            }
            // The main thread waits for this until the end.
            let _ = endings.send(Ending::Signal(name));
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        // They wait on all other threads: one that hangs in a call to a disk would be given them, and not
        // take them.
        if let Err(error) = crate::signals::let_ends_arrive() {
            tracing::error!("SIGINT and SIGTERM will not end this in good order: {error}");
        }
        runtime.block_on(hear);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_broken_off_or_goes_on_and_that_is_decided_once() {
        let start = StartGate::default();
        start.go_on();
        assert!(!start.break_off(), "what it took is to be kept");

        let start = Arc::new(StartGate::default());
        assert!(start.break_off());
        let (came, comes) = std::sync::mpsc::channel::<()>();
        let copy = Arc::clone(&start);
        let waits = std::thread::spawn(move || {
            let _came = came;
            copy.go_on();
        });
        waits.thread().unpark();
        // It never ends: the process does.
        assert_eq!(comes.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        assert!(!start.break_off(), "once");
    }
}
