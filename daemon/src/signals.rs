//! Signals that would end the process without a word, and must not.
//!
//! Invariants: a limit on file sizes (`ulimit -f`) is met as an error of the call that would pass it
//! (EFBIG), as a full disk is; a terminal that goes, or a signal that means something to other
//! programs, is no reason for a node to end. SIGPIPE is ignored by the runtime library already.
//! Does not know what INT and TERM mean: who can stop in order listens to them.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// For every command: has writing beyond the limit of file sizes fail in place of killing.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    survive(&[SignalKind::from_raw(libc::SIGXFSZ)])
}

/// For a process that runs for ever: further signals do no harm. `hangup` says whether SIGHUP is
/// one of them.
pub(crate) fn survive_others(hangup: bool) -> io::Result<()> {
    survive(&[SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::alarm()])?;
    if hangup { survive(&[SignalKind::hangup()]) } else { Ok(()) }
}

/// A handler stays for as long as the process does, also when nobody listens to it any more.
fn survive(kinds: &[SignalKind]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _context = runtime.enter();
    kinds.iter().try_for_each(|kind| signal(*kind).map(drop))
}
