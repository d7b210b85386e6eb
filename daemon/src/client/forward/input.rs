//! The thread that reads standard input.
//!
//! Invariants: every byte that was read reaches the queue; the reading ends with the input, or once
//! `stop` can be read and what could be read without waiting was read; a shortage of the system, or
//! an input that another process made non-blocking, is waited out and ends nothing.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::limits::{FORWARD_LAST_READ_BYTES, FORWARD_PIECE_BYTES};
use super::metrics::ForwardMetrics;
use super::piece::LinePieces;
use super::queue::PieceQueue;

/// Pause after a call that the system had no means for, or that had nothing although it was said to.
const PAUSE: Duration = Duration::from_millis(50);

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
enum Ready {
    Input,
    /// It is time to stop.
    Stop,
    /// Nothing, and nothing was waited for.
    Nothing,
}

/// Reads `input` to its end, or until `stop` can be read.
pub(crate) fn read_input(
    input: BorrowedFd<'_>,
    stop: &OwnedFd,
    mut pieces: LinePieces,
    (queue, metrics): (&Arc<PieceQueue>, &ForwardMetrics),
) {
    let mut block = vec![0; FORWARD_PIECE_BYTES];
    let mut sink = |piece| queue.push(piece);
    // What may still be read, once it is time to stop.
    let mut left: Option<usize> = None;
    let (error, has_unread) = loop {
        match ready(input, stop, left.is_some()) {
            Ok(Ready::Stop) => {
                left = Some(FORWARD_LAST_READ_BYTES);
                continue;
            }
            Ok(Ready::Input) if left == Some(0) => break (None, true),
            Ok(Ready::Input) => {}
            Ok(Ready::Nothing) => break (None, false),
            Err(error) => break (Some(error.into()), false),
        }
        let bytes_max = left.map_or(block.len(), |left| left.min(block.len()));
        match rustix::io::read(input, &mut block[..bytes_max]) {
            Ok(0) => break (None, false),
            Ok(len) => {
                metrics.input_bytes.inc_by(len as u64);
                left = left.map(|left| left - len);
                pieces.feed(&block[..len], &mut sink);
            }
            Err(Errno::INTR) => {}
            // Somebody else was faster, or had it made non-blocking: it was said to be readable.
            Err(Errno::AGAIN) if left.is_some() => break (None, false),
            Err(error) if is_passing(error) => std::thread::sleep(PAUSE),
            Err(error) => break (Some(error.into()), false),
        }
    };
    pieces.finish(&mut sink);
    queue.end(error, has_unread);
}

/// Waits for input or for `stop`; `is_stopping`: only looks.
fn ready(input: BorrowedFd<'_>, stop: &OwnedFd, is_stopping: bool) -> Result<Ready, Errno> {
    let mut fds =
        [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut fds, is_stopping.then_some(&at_once)) {
            Ok(_) if !is_stopping && !fds[1].revents().is_empty() => return Ok(Ready::Stop),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Ready::Input),
            Ok(_) if is_stopping => return Ok(Ready::Nothing),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) if is_passing(error) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the same call may work in a moment.
const fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::forward::Waiting;
    use std::io::{self, Write};
    use std::os::fd::AsFd;

    /// A queue, what was asked of standard input, and what stops reading it.
    fn parts() -> (Arc<PieceQueue>, Arc<ForwardMetrics>, OwnedFd) {
        let metrics = Arc::new(ForwardMetrics::default());
        let queue = PieceQueue::new(Waiting::Block { bytes_max: 1 << 30 }, Arc::clone(&metrics));
        let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        (Arc::new(queue), metrics, stop)
    }

    fn read(input: &impl AsFd, stop: &OwnedFd, queue: &Arc<PieceQueue>, metrics: &ForwardMetrics) {
        let pieces = LinePieces::new(Vec::new(), 1 << 20);
        read_input(input.as_fd(), stop, pieces, (queue, metrics));
    }

    fn taken(queue: &PieceQueue) -> Vec<u8> {
        std::iter::from_fn(|| queue.take()).flat_map(|piece| piece.bytes).collect()
    }

    #[test]
    fn what_is_in_the_pipe_when_it_is_time_to_stop_is_read() {
        let (queue, metrics, stop) = parts();
        let (input, mut output) = io::pipe().unwrap();
        output.write_all(b"one\ntwo").unwrap();
        rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
        // The writing end stays open.
        read(&input, &stop, &queue, &metrics);
        assert_eq!(taken(&queue), b"one\ntwo");
        assert!(!queue.has_unread());
    }

    #[test]
    fn an_input_without_end_is_left_when_it_is_time_to_stop_and_that_is_known() {
        let (queue, metrics, stop) = parts();
        rustix::io::write(&stop, &1u64.to_ne_bytes()).unwrap();
        let endless = std::fs::File::open("/dev/zero").unwrap();
        read(&endless, &stop, &queue, &metrics);
        assert_eq!(taken(&queue).len(), FORWARD_LAST_READ_BYTES);
        assert!(queue.has_unread());
    }

    #[test]
    fn an_input_that_others_made_non_blocking_is_waited_for() {
        let (queue, metrics, stop) = parts();
        let (input, mut output) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&input, rustix::fs::OFlags::NONBLOCK).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| read(&input, &stop, &queue, &metrics));
            for line in ["first\n", "second\n"] {
                output.write_all(line.as_bytes()).unwrap();
                while taken(&queue) != line.as_bytes() {
                    std::thread::yield_now();
                }
            }
            drop(output);
        });
        assert!(!queue.has_unread());
    }
}
