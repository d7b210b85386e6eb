//! What waits for one follower.
//!
//! Invariants: the writer never waits; a queue holds at most its share and all queues together at most
//! what is their own and the budget that they share; what is a queue's own it gets whatever the
//! others hold, so that those who take nothing cost those who do no record that fits in there; once
//! something was missed nothing is added until the reader has taken what was there and was told how
//! many records it missed; what the reader takes at a time is bounded, however much waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::limits::FOLLOW_PIECE_BYTES;
use crate::search::Format;
use crate::search::format::RecordWriter;
use crate::ulid::Ulid;

/// How records are sent to a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// `ULID SP record LF`; notes start with `#`, which no ULID does.
    Text,
    /// An object a line.
    Ndjson,
    /// Server-sent events (WHATWG HTML, 9.2), whose data are those objects.
    Sse,
}

impl StreamFormat {
    /// Appends a record to `out`.
    pub fn write(self, out: &mut Vec<u8>, id: Ulid, topic: &str, record: &[u8]) {
        let format = if self == Self::Text { Format::Text } else { Format::Ndjson };
        if self == Self::Sse {
            out.extend_from_slice(format!("id: {id}\ndata: ").as_bytes());
        }
        RecordWriter::new(format).write(out, usize::MAX, (id, topic, record));
        if self == Self::Sse {
            out.push(b'\n');
        }
    }

    /// A note that is no record: its name, and an object of JSON.
    pub fn note(self, name: &str, object: &str) -> Vec<u8> {
        match self {
            Self::Text => format!("# {name} {object}\n"),
            Self::Ndjson => format!("{{\"{name}\":{object}}}\n"),
            Self::Sse => format!("event: {name}\ndata: {object}\n\n"),
        }
        .into_bytes()
    }
}

/// What all queues may hold together beyond what is their own, bytes.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    /// None of it used.
    pub const fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that are free.
    fn free(&self) -> usize {
        self.max.saturating_sub(self.used())
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first piece was taken.
    taken: usize,
    /// Of all pieces, what was taken of the first included: it is in memory until all of it is.
    bytes: usize,
    missed: u64,
    waker: Option<Waker>,
    is_ended: bool,
    is_abandoned: bool,
}

/// How much one queue may hold.
#[derive(Debug, Clone, Copy)]
pub struct QueueShare {
    /// Kept for it whatever the others hold, bytes: nothing of the budget.
    pub own_bytes: usize,
    /// What it holds at most, bytes, if it is not a single record.
    pub bytes_max: usize,
}

/// See the page of the module.
#[derive(Debug)]
pub struct FollowerQueue {
    state: Mutex<State>,
    format: StreamFormat,
    share: QueueShare,
    budget: Arc<Budget>,
}

impl FollowerQueue {
    /// An empty one.
    pub fn new(format: StreamFormat, share: QueueShare, budget: Arc<Budget>) -> Self {
        Self { state: Mutex::default(), format, share, budget }
    }

    /// How its records are written.
    pub const fn format(&self) -> StreamFormat {
        self.format
    }

    /// Adds bytes that are so many records, or counts them as missed; says how many were.
    ///
    /// Beyond what is its own a queue may grow for as long as it is no longer than what the budget
    /// then has left (the dynamic threshold of Choudhury and Hahne 1998, with a reserve for each
    /// queue as in their section V): any number of readers that take nothing settle at equal
    /// lengths. An empty queue takes as much at once, so that a record larger than a share gets
    /// through.
    pub fn push(&self, bytes: &[u8], records: u64) -> u64 {
        let mut state = self.lock();
        let len_bytes = state.bytes + bytes.len();
        let shared_bytes = self.shared(len_bytes);
        let more_bytes = shared_bytes - self.shared(state.bytes);
        let is_short = state.bytes == 0 || len_bytes <= self.share.bytes_max;
        let has_room =
            more_bytes == 0 || shared_bytes <= self.budget.free().saturating_sub(more_bytes);
        let fits = state.missed == 0 && is_short && has_room;
        let missed = if fits && !state.is_abandoned && self.budget.take(more_bytes) {
            state.bytes = len_bytes;
            match state.pieces.back_mut() {
                Some(last) if last.len() + bytes.len() <= FOLLOW_PIECE_BYTES => {
                    // Not a byte more than is counted.
                    last.reserve_exact(bytes.len());
                    last.extend_from_slice(bytes);
                }
                _ => state.pieces.push_back(bytes.to_vec()),
            }
            0
        } else {
            state.missed += records;
            records
        };
        wake(state);
        missed
    }

    /// What a queue of this length has of the budget, bytes.
    const fn shared(&self, len_bytes: usize) -> usize {
        len_bytes.saturating_sub(self.share.own_bytes)
    }

    /// Records were missed that may have been for this follower.
    pub fn miss(&self, records: u64) {
        let mut state = self.lock();
        state.missed += records;
        wake(state);
    }

    /// Whether the reader has yet to be told that it missed something: until then it gets nothing.
    pub fn is_behind(&self) -> bool {
        self.lock().missed > 0
    }

    /// Nothing more will come.
    pub fn end(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        wake(state);
    }

    /// The follower has gone.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        self.clear(&mut state);
    }

    /// Whether records were missed. Then what waits is let go, too, and nothing is added any more:
    /// for a reader that fetches all of it elsewhere and follows anew.
    pub fn is_missing(&self) -> bool {
        let mut state = self.lock();
        if state.missed > 0 {
            self.clear(&mut state);
        }
        state.missed > 0
    }

    fn clear(&self, state: &mut State) {
        self.budget.give(self.shared(std::mem::take(&mut state.bytes)));
        state.taken = 0;
        state.pieces.clear();
    }

    /// Whether nothing more will come; if not, the reader is woken when that changes.
    pub fn poll_ended(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if !state.is_ended {
            state.waker = Some(cx.waker().clone());
        }
        state.is_ended
    }

    /// Whether the follower has gone.
    pub fn is_abandoned(&self) -> bool {
        self.lock().is_abandoned
    }

    /// What comes next, at most [`FOLLOW_PIECE_BYTES`] of it; `None` at the end.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut state = self.lock();
        if let Some(piece) = self.take_piece(&mut state) {
            return Poll::Ready(Some(piece));
        }
        if state.missed > 0 {
            let records = std::mem::take(&mut state.missed);
            let note = self.format.note("missed", &format!("{{\"records\":{records}}}"));
            return Poll::Ready(Some(note));
        }
        if state.is_ended {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take_piece(&self, state: &mut State) -> Option<Vec<u8>> {
        let first = state.pieces.front()?;
        let rest = &first[state.taken..];
        if rest.len() > FOLLOW_PIECE_BYTES {
            let piece = rest[..FOLLOW_PIECE_BYTES].to_vec();
            state.taken += FOLLOW_PIECE_BYTES;
            return Some(piece);
        }
        let first = state.pieces.pop_front()?;
        let before_bytes = self.shared(state.bytes);
        state.bytes -= first.len();
        self.budget.give(before_bytes - self.shared(state.bytes));
        Some(match std::mem::take(&mut state.taken) {
            0 => first,
            taken => first[taken..].to_vec(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Drop for FollowerQueue {
    fn drop(&mut self) {
        self.abandon();
    }
}
