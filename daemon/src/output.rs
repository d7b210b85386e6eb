//! Standard output and standard error of commands that end.
//!
//! Invariants: a descriptor that takes nothing right now is waited for and then written on, byte for
//! byte, also where whoever shares it has made it non-blocking; words on standard error never end a
//! command, and wait for a reader for [`TELL_WAIT`] at most, once; a closed pipe ends a command
//! silently. Nodes and forwarders log elsewhere.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::exit::Exit;

/// Longest wait for a standard error that takes nothing before its words are dropped.
const TELL_WAIT: Duration = Duration::from_secs(1);

/// What a pipe that can be written to takes without waiting (pipe(7)), bytes.
const PIPE_BYTES: usize = 4096;

/// Standard error took nothing the last time: it is not waited for again until it does.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);

/// A descriptor that is written to in the size of what is given, without a buffer, and waited for.
pub(crate) struct Patient<F> {
    descriptor: F,
    /// Longest wait of one write; `None`: as long as it takes.
    wait_max: Option<Duration>,
}

/// Standard output.
pub(crate) fn stdout() -> Patient<io::Stdout> {
    Patient { descriptor: io::stdout(), wait_max: None }
}

/// Standard error.
pub(crate) fn stderr() -> Patient<io::Stderr> {
    let wait = if IS_UNREAD.load(Ordering::Relaxed) { Duration::ZERO } else { TELL_WAIT };
    Patient { descriptor: io::stderr(), wait_max: Some(wait) }
}

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(wait_max) = self.wait_max else { return self.write_waiting(bytes) };
        let bytes = &bytes[..bytes.len().min(PIPE_BYTES)];
        let start = Instant::now();
        loop {
            let left = wait_max.saturating_sub(start.elapsed());
            let is_ready = self.wait(Some(left))?;
            if !is_ready && left.is_zero() {
                IS_UNREAD.store(true, Ordering::Relaxed);
                return Err(io::ErrorKind::TimedOut.into());
            }
            match is_ready.then(|| rustix::io::write(&self.descriptor, bytes)) {
                None | Some(Err(Errno::AGAIN | Errno::INTR)) => {}
                Some(written) => {
                    IS_UNREAD.store(false, Ordering::Relaxed);
                    return Ok(written?);
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: AsFd> Patient<F> {
    /// Writes, however long it takes.
    fn write_waiting(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.descriptor, bytes) {
                Err(Errno::AGAIN) => drop(self.wait(None)?),
                Err(Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    /// Waits until the descriptor takes something, or says why it never will; whether it does.
    fn wait(&self, at_most: Option<Duration>) -> io::Result<bool> {
        let at_most = at_most.and_then(|time| Timespec::try_from(time).ok());
        let mut watched = [PollFd::new(&self.descriptor, PollFlags::OUT)];
        match rustix::event::poll(&mut watched, at_most.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// One line on standard error. Where it cannot be told, the exit code still says it.
pub(crate) fn tell(words: impl Display) {
    let _ = stderr().write_all(format!("{words}\n").as_bytes());
}

/// Tells what went wrong.
pub(crate) fn fail(exit: Exit, words: impl Display) -> Exit {
    tell(format_args!("error: {words}"));
    exit
}

/// Prints all of it and exits with `exit`, unless standard output fails.
pub(crate) fn print(bytes: &[u8], exit: Exit) -> Exit {
    match stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(Exit::Error, format_args!("standard output: {error}"))
        }
        _ => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A pipe whose writing end does not block.
    fn pipe() -> (io::PipeReader, Patient<io::PipeWriter>) {
        let (reader, descriptor) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&descriptor, true).unwrap();
        (reader, Patient { descriptor, wait_max: None })
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for_and_gets_every_byte() {
        let (mut reader, mut writer) = pipe();
        let all: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = all.clone();
        let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_waited_for_no_longer_than_it_may_also_one_that_blocks() {
        let (reader, mut writer) = pipe();
        rustix::io::ioctl_fionbio(&writer.descriptor, false).unwrap();
        writer.wait_max = Some(Duration::from_millis(1));
        let error = writer.write_all(&vec![b'x'; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(reader);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
