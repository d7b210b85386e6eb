//! Senders in bulk are received from straight into the log's frame; all others through the ring's
//! buffers, so that a connection without bytes holds no memory.
//!
//! A sender counts as one in bulk once it has filled [`FULL_BUFFERS`] of the ring's buffers in a
//! row, and until it has left [`SHORT_RECEIVES`] receives in a row nearly empty. The ring tells when
//! there is something; the shard then receives itself, as much as the frame has room for. That
//! saves copying every byte from a buffer to the frame.
//!
//! Invariants: bytes of a connection are taken in order, since it is never in the hands of both ways
//! at once; one receive takes at most [`RECEIVE_BYTES_MAX`], then others have their turn.

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::super::intake::Intake;
use super::{Connection, Side};

/// Most bytes of one receive: what is counted and checked afterwards is still in the core's cache.
const RECEIVE_BYTES_MAX: usize = 256 << 10;
/// Free bytes of a frame below which it is closed.
const RECEIVE_BYTES_MIN: usize = 16 << 10;
/// A longer unfinished line is not copied before each receive: it grows in the ring's way, which takes
/// each byte once.
const UNFINISHED_BYTES_MAX: usize = 64 << 10;
/// Fewer bytes are nearly nothing.
const SHORT_BYTES: usize = 16 << 10;
/// Full buffers in a row that make a sender one in bulk.
const FULL_BUFFERS: u8 = 4;
/// Short receives in a row after which it is none any more.
const SHORT_RECEIVES: u8 = 8;

/// How a connection is received from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) struct Pace {
    is_bulk: bool,
    /// Receives in a row that speak against it.
    streak: u8,
}

impl Pace {
    /// A buffer of the ring came; says whether the sender is found to be one in bulk by it.
    pub(in crate::shard) const fn on_buffer(&mut self, is_full: bool) -> bool {
        self.streak = if is_full && !self.is_bulk { self.streak + 1 } else { 0 };
        let is_news = self.streak == FULL_BUFFERS;
        if is_news {
            *self = Self { is_bulk: true, streak: 0 };
        }
        is_news
    }

    const fn on_receive(&mut self, bytes: usize) {
        self.streak = if bytes < SHORT_BYTES { self.streak + 1 } else { 0 };
        if self.streak == SHORT_RECEIVES {
            *self = Self { is_bulk: false, streak: 0 };
        }
    }
}

/// What receiving brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Brought {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer has finished sending.
    End,
    /// The connection failed.
    Failed,
}

impl Connection {
    /// Whether it is to be received from by [`Connection::receive`] next. If not, it counts as slow
    /// until it has shown the contrary.
    pub(in crate::shard) fn is_direct(&mut self, intake: &Intake<'_>) -> bool {
        let is_direct = self.pace.is_bulk && self.may_be_direct(intake);
        if !is_direct {
            self.pace = Pace::default();
        }
        is_direct
    }

    fn may_be_direct(&self, intake: &Intake<'_>) -> bool {
        self.side == Side::Open
            && self.opening.is_none()
            && self.framer.uncut_bytes() >= RECEIVE_BYTES_MIN
            && self.framer.partial_len() <= UNFINISHED_BYTES_MAX
            && intake.topic_of_all(self.topic.as_ref()).is_some()
    }

    /// A buffer of the ring came, full or not; says whether the ring's receive is to be stopped
    /// because the sender is found to be one in bulk.
    pub(in crate::shard) fn note_buffer(&mut self, is_full: bool, intake: &Intake<'_>) -> bool {
        self.pace.on_buffer(is_full) && self.is_direct(intake)
    }

    /// Receives what has come into the log's frame; whole lines become records. Never waits.
    pub(in crate::shard) fn receive(&mut self, intake: &mut Intake<'_>) -> Brought {
        let Some(topic) = intake.topic_of_all(self.topic.as_ref()) else { return Brought::Nothing };
        if !self.may_be_direct(intake) {
            return Brought::Nothing;
        }
        let bytes_max = self.framer.uncut_bytes().min(RECEIVE_BYTES_MAX);
        let lent = intake.log.lend(self.framer.partial(), RECEIVE_BYTES_MIN);
        let Some(free) = lent else { return Brought::Nothing };
        let bytes_max = bytes_max.min(free.len());
        let free = &mut free[..bytes_max];
        let bytes = match rustix::net::recv(&self.socket, &mut *free, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Brought::End,
            Ok((bytes, _)) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Brought::Nothing,
            Err(_) => return Brought::Failed,
        };
        let whole = self.framer.take_behind_partial(&free[..bytes]);
        self.pace.on_receive(bytes);
        self.taken_bytes += bytes as u64;
        self.taken_us = intake.now_us();
        let (pending_before, is_awaited) = (self.pending.len(), self.is_awaited());
        if whole > 0 {
            let stamped = intake.take_lent(whole, topic);
            if is_awaited {
                intake.note_awaited(&stamped);
            }
            self.records += stamped.records;
            self.pending.push_back((stamped.end, self.records));
        }
        self.count_bytes(pending_before);
        self.after_append(intake);
        Brought::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_one_in_bulk_after_full_buffers_in_a_row_and_none_after_short_receives_in_a_row()
    {
        let mut pace = Pace::default();
        let shown: Vec<bool> =
            [true, true, true, false, true, true, true, true].map(|f| pace.on_buffer(f)).to_vec();
        assert_eq!(shown, [false, false, false, false, false, false, false, true]);
        for bytes in [1, 1, 1, 1, 1, 1, 1, SHORT_BYTES, 1, 1, 1, 1, 1, 1, 1] {
            pace.on_receive(bytes);
            assert!(pace.is_bulk, "one that was not short begins the row anew");
        }
        pace.on_receive(1);
        assert_eq!(pace, Pace::default());
    }
}
