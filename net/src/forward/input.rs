//! The thread that reads standard input.
//!
//! Invariants: every byte that was read reaches the queue, also when a signal ends the reading; a
//! signal is seen while it waits for input.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};

use super::metrics::ForwardMetrics;
use super::piece::LinePieces;
use super::queue::Queue;
use crate::limits::FORWARD_PIECE_BYTES;

/// Reads `input` to its end, or until `stop` can be read.
pub(crate) fn read_input(
    input: BorrowedFd<'_>,
    stop: &OwnedFd,
    mut pieces: LinePieces,
    (queue, metrics): (&Arc<Queue>, &ForwardMetrics),
) {
    let mut block = vec![0; FORWARD_PIECE_BYTES];
    let mut sink = |piece| queue.push(piece);
    let error = loop {
        match wait_for_input(input, stop) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
        match rustix::io::read(input, &mut block[..]) {
            Ok(0) => break None,
            Ok(len) => {
                metrics.input_bytes.inc_by(len as u64);
                pieces.feed(&block[..len], &mut sink);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => break Some(error.into()),
        }
    };
    pieces.finish(&mut sink);
    queue.end(error);
}

/// `false`: it is time to stop.
fn wait_for_input(input: BorrowedFd<'_>, stop: &OwnedFd) -> io::Result<bool> {
    let mut fds =
        [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
