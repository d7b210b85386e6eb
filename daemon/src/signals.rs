//! Signals that would end the process without a word, and must not; and those that must end it.
//!
//! Invariants: what a parent had blocked arrives, what it had ignored stays ignored (`nohup`); the
//! first process of a container ends as any other does; a limit on file sizes (`ulimit -f`) is met as an error of the call that would pass it
//! (EFBIG); a terminal that goes, or a signal that means something to other
//! programs, is no reason for a node to end. SIGPIPE is ignored by the runtime library already.
//! Does not know what INT and TERM mean to who can stop in order: they listen to them, and until they do the
//! two wait.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

/// For every command, before it has threads: what it is ended by or has a handler for arrives. A mask of
/// blocked signals is inherited, from a parent that waits for its own with `sigwait`, say.
pub(crate) fn unblock() -> io::Result<()> {
    const RELIED_ON: [Signal; 6] = [
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGABRT,
        // Of a mapped file that is cut: blocked, it kills.
        Signal::SIGBUS,
        Signal::SIGSEGV,
        Signal::SIGXFSZ,
    ];
    let all = RELIED_ON.into_iter().collect::<SigSet>();
    all.thread_unblock().map_err(io::Error::from)
}

/// INT and TERM wait from now on, for whoever knows what they mean to this command.
pub(crate) fn hold_ends() -> io::Result<()> {
    ends().thread_block().map_err(io::Error::from)
}

/// They arrive, also those that came before.
pub(crate) fn let_ends_arrive() -> io::Result<()> {
    ends().thread_unblock().map_err(io::Error::from)
}

fn ends() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// For a command that INT and TERM end at once, as is their way: not with the first process of a
/// container or other PID namespace, to which a signal without a handler is none (pid_namespaces(7)).
/// That one exits as a shell tells of others that a signal ended: with 128 and its number.
pub(crate) fn end_as_first_process() -> io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let hear = async move {
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
        };
        std::process::exit(128 + kind.as_raw_value())
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(hear))?;
    Ok(())
}

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
