//! How other threads speak to a shard: a queue and an event descriptor that the shard's ring
//! watches.
//!
//! Invariants: a sender never waits for the shard and holds the queue's lock for a push only; the
//! shard takes everything at once. The queue is bounded by its senders: one snapshot per running
//! query, appended bytes by budgets of the HTTP side, which the lines carry with them, connections by the connection limit.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use engine::ingest::log::Stamped;
use engine::ingest::memory::MemoryPart;
use engine::ingest::segment::Segment;
use engine::topic::Topic;
use engine::ulid::Ulid;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::connection::Port;
use crate::budget::AddressPlace;

/// What a shard can be asked to do.
pub enum Message {
    /// Take over an accepted connection.
    Adopt(OwnedFd, Port, AddressPlace),
    /// Append records that came over HTTP.
    Append(Append),
    /// Sync what was appended up to this end ([`Stamped::end`]), and say so.
    Durable(u64, oneshot::Sender<()>),
    /// Say what is in memory.
    Snapshot(oneshot::Sender<MemoryPart>),
    /// The segment that was asked for, open for direct writing.
    Segment(Arc<Segment>, OwnedFd),
    /// Somebody has deleted this segment's file: write on in another, and anew what is not synced.
    LostSegment(Ulid),
    /// Somebody has deleted the tail file: do without.
    LostTail,
    /// Stop accepting, hang up, write out what is there, and go on answering
    /// [`Message::Snapshot`].
    Drain,
    /// Stop accepting, write out what is there, end.
    ShutDown,
}

/// Whole lines to be appended.
pub struct Append {
    /// Records, each with its LF.
    pub lines: Bytes,
    /// Their topic; `None` for the node's own choice.
    pub topic: Option<Topic>,
    /// The sender waits until they are durable.
    pub is_awaited: bool,
    /// Where the answer goes once they are numbered; a receiver that is gone takes the request
    /// back.
    pub reply: oneshot::Sender<Stamped>,
}

impl Append {
    /// Lines up behind others; those whose requests have given up need not be kept any longer.
    pub(super) fn line_up(self, waiting: &mut VecDeque<Self>) {
        waiting.retain(|append| !append.reply.is_closed());
        waiting.push_back(self);
    }
}

/// A shard's inbox.
pub struct Inbox {
    queue: Mutex<Vec<Message>>,
    wake: OwnedFd,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::new(Vec::new()), wake })
    }

    /// Leaves a message and wakes the shard.
    pub fn send(&self, message: Message) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        // A full counter means that the shard is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Has the shard take a turn.
    pub fn nudge(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes all messages, oldest first.
    pub(super) fn take(&self, into: &mut Vec<Message>) {
        into.append(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The descriptor that a ring watches.
    pub(super) fn wake_descriptor(&self) -> std::io::Result<OwnedFd> {
        self.wake.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_requests_that_have_given_up_are_not_kept() {
        let append = |text: &'static str| {
            let (reply, stamped) = oneshot::channel();
            let lines = Bytes::from_static(text.as_bytes());
            (Append { lines, topic: None, is_awaited: false, reply }, stamped)
        };
        let mut waiting = VecDeque::new();
        let (first, _first) = append("first\n");
        let (second, gives_up) = append("second\n");
        let (third, _third) = append("third\n");
        first.line_up(&mut waiting);
        second.line_up(&mut waiting);
        drop(gives_up);
        third.line_up(&mut waiting);
        let left: Vec<_> = waiting.iter().map(|append| &append.lines[..]).collect();
        assert_eq!(left, [&b"first\n"[..], b"third\n"]);
    }
}
