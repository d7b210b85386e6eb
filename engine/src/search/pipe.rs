//! A bounded pipe of bytes from the scan threads to a reader on an asynchronous runtime.
//!
//! Invariants: the writer never blocks: a full pipe says so, and the reader's draining calls the
//! writer's `on_room` hook; dropping the reader closes the pipe, which the hook tells too. The
//! pipe holds at most [`PIPE_BYTES_MAX`] and one piece more. The outcome is known before the
//! reader sees the end.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::spec::Outcome;
use crate::limits::PIPE_BYTES_MAX;

/// What is known when the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Whether nothing was found missing so far.
    pub complete: bool,
    /// Spans found missing so far.
    pub missing_count: u64,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Set with the first bytes or the end.
    head: Option<Head>,
    outcome: Option<Outcome>,
    reader_gone: bool,
    /// The writer found the pipe full and waits for its hook.
    writer_waits: bool,
    end_reason: Option<String>,
    waker: Option<Waker>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    on_room: Hook,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left nothing half done: every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer ends as one that broke off, unless it has ended.
    fn break_off(&self) {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        let mut outcome = Outcome { aborted: true, ..Outcome::default() };
        outcome.stats.complete = false;
        state.head.get_or_insert(Head { complete: false, missing_count: 1 });
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.wake_reader(waker);
    }

    fn wake_reader(&self, waker: Option<Waker>) {
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end that reads. Dropping it cancels the query.
pub struct PipeReader {
    shared: Arc<Shared>,
}

/// The end that writes.
pub(super) struct PipeWriter {
    shared: Arc<Shared>,
}

/// Ends a query from outside, whatever its reader does.
#[derive(Clone)]
pub struct Ender {
    shared: Arc<Shared>,
}

/// Makes a pipe; `on_room` is called, on the reader's thread, when a full pipe has room again and
/// when the reader goes.
pub(super) fn pipe(on_room: Hook) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), on_room });
    (PipeWriter { shared: Arc::clone(&shared) }, PipeReader { shared })
}

/// What the writer has to know before it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room {
    /// Nothing is queued: whoever reads is waiting.
    Empty,
    /// There is room.
    Some,
    /// Full; the hook will be called.
    Full,
    /// Nobody will read what is written.
    Gone,
    /// Somebody ended the query, for this reason.
    Ended(String),
}

impl PipeWriter {
    /// How the pipe stands. `Full` arms the hook.
    pub(super) fn room(&self) -> Room {
        let mut state = self.shared.lock();
        if state.reader_gone || state.outcome.is_some() {
            return Room::Gone;
        }
        if let Some(reason) = &state.end_reason {
            return Room::Ended(reason.clone());
        }
        match state.bytes {
            0 => Room::Empty,
            bytes if bytes < PIPE_BYTES_MAX => Room::Some,
            _ => {
                state.writer_waits = true;
                Room::Full
            }
        }
    }

    /// What ends the answer as one that broke off, from outside; what is written later goes nowhere.
    pub(super) fn breaker(&self) -> Box<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        Box::new(move || shared.break_off())
    }

    /// Queues bytes; `head` is what is known so far, kept from the first call.
    pub(super) fn push(&self, piece: Vec<u8>, head: Head) {
        if piece.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        if state.reader_gone || state.outcome.is_some() {
            return;
        }
        state.bytes += piece.len();
        state.pieces.push_back(piece);
        state.head.get_or_insert(head);
        let waker = state.waker.take();
        drop(state);
        self.shared.wake_reader(waker);
    }

    /// Says how the query ended.
    pub(super) fn finish(self, outcome: Outcome) {
        let mut state = self.shared.lock();
        if state.outcome.is_some() {
            return;
        }
        let head =
            Head { complete: outcome.stats.complete, missing_count: outcome.stats.missing_count };
        state.head.get_or_insert(head);
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.shared.wake_reader(waker);
    }
}

impl Drop for PipeWriter {
    /// A writer that goes without an outcome leaves an aborted one: the reader must not wait.
    fn drop(&mut self) {
        self.shared.break_off();
    }
}

impl PipeReader {
    /// Ready with what is known when the first bytes or the end are: for headers.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Head> {
        let mut state = self.shared.lock();
        if let Some(head) = state.head {
            return Poll::Ready(head);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next bytes; `None` at the end, when [`PipeReader::outcome`] is known.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut state = self.shared.lock();
        match Self::take(&mut state) {
            Some((piece, room)) => {
                drop(state);
                if room {
                    (self.shared.on_room)();
                }
                Poll::Ready(Some(piece))
            }
            None if state.outcome.is_some() => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next piece, and whether the writer has to be told that there is room: when half is.
    fn take(state: &mut State) -> Option<(Vec<u8>, bool)> {
        let piece = state.pieces.pop_front()?;
        state.bytes -= piece.len();
        let room = state.writer_waits && state.bytes <= PIPE_BYTES_MAX / 2;
        if room {
            state.writer_waits = false;
        }
        Some((piece, room))
    }

    /// Like [`PipeReader::poll_next`], waiting on this thread.
    pub fn next_blocking(&mut self) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        loop {
            if let Some((piece, room)) = Self::take(&mut state) {
                drop(state);
                if room {
                    (self.shared.on_room)();
                }
                return Some(piece);
            }
            if state.outcome.is_some() {
                return None;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// All bytes and the outcome, waiting on this thread.
    pub fn read_all_blocking(mut self) -> (Vec<u8>, Outcome) {
        let mut all = Vec::new();
        while let Some(piece) = self.next_blocking() {
            all.extend_from_slice(&piece);
        }
        (all, self.outcome().unwrap_or_default())
    }

    /// How the query ended; known when [`PipeReader::poll_next`] has said `None`.
    pub fn outcome(&self) -> Option<Outcome> {
        self.shared.lock().outcome.clone()
    }

    /// Something that can end this query from elsewhere, to give up pins that are too old.
    pub fn ender(&self) -> Ender {
        Ender { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_gone = true;
        state.pieces.clear();
        state.bytes = 0;
        drop(state);
        (self.shared.on_room)();
    }
}

impl Ender {
    /// Ends the query: what it has not sent yet is told as missing for `reason`.
    pub fn end(&self, reason: &str) {
        self.shared.lock().end_reason.get_or_insert_with(|| reason.to_owned());
        (self.shared.on_room)();
    }
}
