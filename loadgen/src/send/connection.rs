//! One connection: a state machine that writes what is allowed, reads replies, and ends with FIN.
//!
//! Invariants: sockets are non-blocking and never waited for here; a turn ends after a bounded
//! number of writes; a connection is finished only when the node has closed its side.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::acks::{Acks, RecordCounter};
use super::outgoing::Outgoing;
use super::pace::Pacing;
use crate::units::Window;

/// Writes of one connection before the others get their turn.
const WRITES_PER_TURN: usize = 4;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Its socket.
    Socket,
    /// A time, in microseconds since the start.
    Until(u64),
    /// Nothing: it could go on at once.
    Nothing,
    /// Nothing ever again.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    /// FIN is sent; the node's is awaited.
    Closing,
    Finished,
}

/// The piece that is being written.
#[derive(Debug, Clone, Copy)]
struct Piece {
    left: usize,
    started_us: u64,
}

/// One connection to the node.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    outgoing: Outgoing,
    hello: Vec<u8>,
    pacing: Pacing,
    window: Window,
    pub(crate) acks: Option<Acks>,
    counter: RecordCounter,
    state: State,
    piece: Option<Piece>,
    /// It would have sent, but window or socket were full.
    held_up: bool,
    inside_line: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) sent_bytes: u64,
    pub(crate) sent_records: u64,
    pub(crate) progress_us: u64,
    pub(crate) error: Option<String>,
}

/// What a connection is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Connected and non-blocking.
    pub(crate) stream: TcpStream,
    pub(crate) outgoing: Outgoing,
    pub(crate) pacing: Pacing,
    pub(crate) window: Window,
    /// The first bytes, if acknowledgements are wanted.
    pub(crate) hello: Option<Vec<u8>>,
    pub(crate) record_bytes_max: u64,
}

impl Connection {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            stream: parts.stream,
            outgoing: parts.outgoing,
            pacing: parts.pacing,
            window: parts.window,
            acks: parts.hello.is_some().then(Acks::new),
            hello: parts.hello.unwrap_or_default(),
            counter: RecordCounter::new(parts.record_bytes_max),
            state: State::Sending,
            piece: None,
            held_up: false,
            inside_line: false,
            readable: true,
            writable: true,
            sent_bytes: 0,
            sent_records: 0,
            progress_us: 0,
            error: None,
        }
    }

    pub(crate) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ends the stream behind the line that is being sent.
    pub(crate) fn stop(&mut self) {
        if self.piece.is_none() {
            self.outgoing.stop(self.inside_line);
        }
    }

    /// Ends the connection with an error.
    pub(crate) fn fail(&mut self, error: String) {
        self.error = Some(error);
        self.state = State::Finished;
        // The peer may be gone already; there is nobody to tell.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Does what can be done now.
    pub(crate) fn turn(&mut self, now_us: u64) -> Wait {
        if self.state == State::Finished {
            return Wait::Finished;
        }
        match self.try_turn(now_us) {
            Ok(wait) => wait,
            Err(error) => {
                self.fail(format!("after {} bytes: {error}", self.sent_bytes));
                Wait::Finished
            }
        }
    }

    fn try_turn(&mut self, now_us: u64) -> io::Result<Wait> {
        self.receive(now_us)?;
        if self.state == State::Finished {
            return Ok(Wait::Finished);
        }
        for _ in 0..WRITES_PER_TURN {
            if self.state == State::Closing {
                return Ok(Wait::Socket);
            }
            if let Some(wait) = self.write_some(now_us)? {
                return Ok(wait);
            }
        }
        Ok(Wait::Nothing)
    }

    /// One write, or the reason why there is none.
    fn write_some(&mut self, now_us: u64) -> io::Result<Option<Wait>> {
        if !self.hello.is_empty() {
            let Some(written) = self.write(None)? else { return Ok(Some(Wait::Socket)) };
            self.hello.drain(..written);
            return Ok(None);
        }
        let piece = match self.piece {
            Some(piece) => piece,
            None => match self.next_piece(now_us)? {
                Ok(piece) => piece,
                Err(wait) => return Ok(wait),
            },
        };
        self.piece = Some(piece);
        let Some(written) = self.write(Some(piece.left))? else {
            self.held_up = true;
            return Ok(Some(Wait::Socket));
        };
        let bytes = &self.outgoing.pending()[..written];
        self.inside_line = bytes.last().is_some_and(|&byte| byte != b'\n');
        self.sent_records += if self.acks.is_some() || matches!(self.pacing, Pacing::Records(_)) {
            self.counter.count(bytes)
        } else {
            memchr::memchr_iter(b'\n', bytes).count() as u64
        };
        self.outgoing.advance(written);
        self.sent_bytes += written as u64;
        self.progress_us = now_us;
        let left = piece.left - written;
        self.piece = (left > 0).then_some(Piece { left, ..piece });
        if let Some(acks) = &mut self.acks {
            acks.wrote(self.sent_records);
            if left == 0 {
                acks.sent(self.sent_records, self.sent_bytes, piece.started_us, now_us);
            }
        }
        Ok(None)
    }

    /// The next piece to write; else what to wait for, `None` when FIN was just sent.
    fn next_piece(&mut self, now_us: u64) -> io::Result<Result<Piece, Option<Wait>>> {
        self.outgoing.refill()?;
        if self.outgoing.pending().is_empty() {
            self.finish_sending(now_us)?;
            return Ok(Err(None));
        }
        let (due_us, mut records) = self.pacing.next(self.sent_bytes, self.sent_records, now_us);
        if due_us > now_us {
            return Ok(Err(Some(Wait::Until(due_us))));
        }
        if let (Some(acks), Window::Records(window)) = (&self.acks, self.window) {
            let room = window.saturating_sub(acks.waiting_records());
            records = Some(records.map_or(room, |records| records.min(room)));
        }
        let len = self.outgoing.piece_len(records.filter(|&records| records > 0));
        if self.window_is_full(records, len) {
            self.held_up = true;
            return Ok(Err(Some(Wait::Socket)));
        }
        let started_us = if self.held_up { due_us } else { now_us };
        self.held_up = false;
        Ok(Ok(Piece { left: len, started_us }))
    }

    fn window_is_full(&self, records: Option<u64>, len: usize) -> bool {
        let Some(acks) = &self.acks else { return false };
        match self.window {
            Window::Records(_) => records == Some(0),
            // A line longer than the window must be sent whole before it can be acknowledged.
            Window::Bytes(window) => {
                acks.waiting_records() > 0
                    && self.sent_bytes - acks.acked_bytes() + len as u64 > window
            }
        }
    }

    fn finish_sending(&mut self, now_us: u64) -> io::Result<()> {
        self.sent_records += u64::from(self.inside_line && self.acks.is_none());
        if let Some(acks) = &mut self.acks {
            let last = self.counter.finish();
            if last > 0 {
                self.sent_records += last;
                acks.sent(self.sent_records, self.sent_bytes, now_us, now_us);
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.state = State::Closing;
        self.progress_us = now_us;
        Ok(())
    }

    /// Writes the hello or `len` pending bytes; `None` if the socket takes nothing.
    fn write(&mut self, len: Option<usize>) -> io::Result<Option<usize>> {
        if !self.writable {
            return Ok(None);
        }
        let bytes = len.map_or(&self.hello[..], |len| &self.outgoing.pending()[..len]);
        loop {
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(Some(written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what the node sent: replies, or its FIN.
    fn receive(&mut self, now_us: u64) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while self.readable {
            match self.stream.read(&mut buffer) {
                Ok(0) => return self.closed_by_node(),
                Ok(count) => {
                    self.progress_us = now_us;
                    let Some(acks) = &mut self.acks else {
                        return Err(io::Error::other("the node sent bytes that nobody asked for"));
                    };
                    acks.received(&buffer[..count], now_us).map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn closed_by_node(&mut self) -> io::Result<()> {
        if self.state == State::Sending {
            return Err(io::Error::other("the node closed the connection"));
        }
        let waiting = self.acks.as_ref().map_or(0, Acks::waiting_records);
        if waiting > 0 {
            let message = format!("closed with {waiting} records not acknowledged");
            return Err(io::Error::other(message));
        }
        self.state = State::Finished;
        Ok(())
    }
}
