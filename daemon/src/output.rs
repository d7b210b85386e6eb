//! Standard output and standard error of commands that end.
//!
//! Invariants: a descriptor that takes nothing right now is waited for and then written on, byte for
//! byte, also where whoever shares it has made it non-blocking; words on standard error never end a
//! command, and wait for a non-blocking one for [`TELL_WAIT`] at most; a closed pipe ends a command
//! silently. Nodes and forwarders log elsewhere.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::exit::Exit;

/// Longest wait for a non-blocking standard error before its words are dropped.
const TELL_WAIT: Duration = Duration::from_secs(1);

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
    Patient { descriptor: io::stderr(), wait_max: Some(TELL_WAIT) }
}

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match rustix::io::write(&self.descriptor, bytes) {
                Err(Errno::AGAIN) => {
                    let left = self.wait_max.map(|max| max.saturating_sub(start.elapsed()));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.wait(left)?;
                }
                Err(Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: AsFd> Patient<F> {
    /// Waits until the descriptor takes something, or says why it never will.
    fn wait(&self, at_most: Option<Duration>) -> io::Result<()> {
        let at_most = at_most.and_then(|time| Timespec::try_from(time).ok());
        let mut watched = [PollFd::new(&self.descriptor, PollFlags::OUT)];
        match rustix::event::poll(&mut watched, at_most.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
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
    fn a_pipe_that_nobody_reads_is_waited_for_no_longer_than_it_may() {
        let (reader, mut writer) = pipe();
        writer.wait_max = Some(Duration::from_millis(1));
        let error = writer.write_all(&vec![b'x'; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(reader);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
