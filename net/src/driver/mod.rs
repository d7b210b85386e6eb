//! What a shard waits on: accept, receive, write, sync and a wake-up as calls and events, behind which is
//! an io_uring ([`crate::ring`]) or, where that is refused, epoll and writing threads ([`crate::poller`]).
//!
//! Invariants: both give the same events, in an order of their own: those of one connection come in the
//! order of its bytes, and what was written is synced only by a sync that begins later. A call never
//! waits; [`Driver::wait`] does. Which connection to read, what to write where and when to sync is decided
//! by [`crate::shard`] and `engine::ingest`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::poller::Poller;
use crate::ring::{Ring, RingRefused, probe};

/// A socket or a file, kept open by whoever still works on it.
pub type Descriptor = Arc<OwnedFd>;

/// Bytes to be written, kept alive by the driver until the kernel is done with them.
pub type WriteBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A listener has a new connection. `more` is false when the listener must be armed again.
    Accepted {
        /// As given to [`Driver::accept`].
        listener: u32,
        /// The connection.
        result: io::Result<OwnedFd>,
        /// Whether further ones will follow by themselves.
        more: bool,
    },
    /// A connection has bytes, or came to its end.
    Received {
        /// As given to [`Driver::receive`].
        key: u64,
        /// What came.
        outcome: Receive,
        /// Whether more will follow by itself; otherwise [`Driver::receive`] arms it again.
        more: bool,
    },
    /// A connection that was asked for with [`Driver::poll`] has bytes, or came to its end.
    Readable {
        /// As given to [`Driver::poll`].
        key: u64,
    },
    /// A write is complete.
    Written {
        /// As given to [`Driver::write`].
        token: u64,
        /// Bytes written.
        result: io::Result<usize>,
    },
    /// A sync is complete.
    Synced {
        /// As given to [`Driver::sync`].
        token: u64,
        /// Whether the data is on the disk.
        result: io::Result<()>,
    },
    /// Somebody signalled the event descriptor.
    Woken,
}

/// What a receive brought.
#[derive(Debug)]
pub enum Receive {
    /// Bytes; hand them back with [`Driver::recycle`].
    Data(Received),
    /// The peer has finished sending.
    End,
    /// No buffer was free, or the receive was cancelled: arm again.
    Stopped,
    /// The connection failed.
    Failed(io::Error),
}

/// A filled buffer: hand it back with [`Driver::recycle`].
#[derive(Debug)]
pub struct Received {
    pub(crate) id: u16,
    pub(crate) len: usize,
}

/// What drives shards, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// A ring, if that is not refused.
    #[default]
    Auto,
    /// A ring.
    Uring,
    /// Epoll and writing threads.
    Posix,
}

/// What drives shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// A ring.
    Uring,
    /// Epoll and writing threads.
    Posix,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Posix => "posix",
        })
    }
}

/// Decides what drives shards; says why it is not a ring, where one was asked for.
///
/// # Errors
/// Nothing but a ring is wanted, and there is none.
pub fn choose(wanted: Wanted) -> Result<(DriverKind, Option<RingRefused>), RingRefused> {
    if wanted == Wanted::Posix {
        return Ok((DriverKind::Posix, None));
    }
    match probe() {
        Ok(()) => Ok((DriverKind::Uring, None)),
        Err(refused) if wanted == Wanted::Auto => Ok((DriverKind::Posix, Some(refused))),
        Err(refused) => Err(refused),
    }
}

/// See the module page.
pub enum Driver {
    /// On a ring.
    Ring(Ring),
    /// On epoll.
    Poller(Poller),
}

impl Driver {
    /// Makes one whose receives fill `buffer_count` (a power of two) buffers of `buffer_bytes`, and which
    /// reports [`Event::Woken`] when `wake` (an eventfd) is signalled.
    ///
    /// # Errors
    /// Those of the system: descriptors, memory or threads are lacking.
    pub fn new(
        kind: DriverKind,
        (buffer_count, buffer_bytes): (u16, usize),
        wake: OwnedFd,
    ) -> io::Result<Self> {
        Ok(match kind {
            DriverKind::Uring => Self::Ring(Ring::new(buffer_count, buffer_bytes, wake)?),
            DriverKind::Posix => Self::Poller(Poller::new(buffer_count, buffer_bytes, wake)?),
        })
    }

    /// Accepts on `listener` until told otherwise. The descriptor must stay open meanwhile.
    pub fn accept(&mut self, listener: impl AsFd, id: u32) {
        match self {
            Self::Ring(ring) => ring.accept(listener.as_fd(), id),
            Self::Poller(poller) => poller.accept(listener.as_fd(), id),
        }
    }

    /// Receives from a connection until it ends or buffers run out. `key` has at most 56 bits.
    pub fn receive(&mut self, connection: &Descriptor, key: u64) {
        match self {
            Self::Ring(ring) => ring.receive(connection.as_fd(), key),
            Self::Poller(poller) => poller.receive(connection, key),
        }
    }

    /// Ends a receive early: its last event is [`Receive::Stopped`], unless it ends by itself.
    pub fn stop_receiving(&mut self, key: u64) {
        match self {
            Self::Ring(ring) => ring.stop_receiving(key),
            Self::Poller(poller) => poller.stop_receiving(key),
        }
    }

    /// Tells once, by [`Event::Readable`], that a connection can be received from without waiting.
    /// `key` has at most 56 bits.
    pub fn poll(&mut self, connection: &Descriptor, key: u64) {
        match self {
            Self::Ring(ring) => ring.poll(connection.as_fd(), key),
            Self::Poller(poller) => poller.poll(connection, key),
        }
    }

    /// The bytes of a receive.
    pub fn received(&self, received: &Received) -> &[u8] {
        match self {
            Self::Ring(ring) => ring.received(received),
            Self::Poller(poller) => poller.received(received),
        }
    }

    /// Gives a buffer back.
    pub fn recycle(&mut self, received: Received) {
        match self {
            Self::Ring(ring) => ring.recycle(received),
            Self::Poller(poller) => poller.recycle(received),
        }
    }

    /// Writes `bytes` at `offset_bytes`; `token` (56 bits) comes back with [`Event::Written`], up to which
    /// the file is to be kept open.
    pub fn write(&mut self, file: &Descriptor, offset_bytes: u64, bytes: WriteBytes, token: u64) {
        match self {
            Self::Ring(ring) => ring.write(file.as_fd(), offset_bytes, bytes, token),
            Self::Poller(poller) => poller.write(file, offset_bytes, bytes, token),
        }
    }

    /// Makes a file's data durable (fdatasync); `token` (56 bits) comes with [`Event::Synced`], up to which
    /// the file is to be kept open.
    pub fn sync(&mut self, file: &Descriptor, token: u64) {
        match self {
            Self::Ring(ring) => ring.sync(file.as_fd(), token),
            Self::Poller(poller) => poller.sync(file, token),
        }
    }

    /// Has a span of a file brought into the page cache, by and by; the file may be closed at once.
    pub fn fetch(&mut self, file: &Descriptor, offset_bytes: u64, len_bytes: u32) {
        match self {
            Self::Ring(ring) => ring.fetch(file.as_fd(), offset_bytes, len_bytes),
            Self::Poller(poller) => poller.fetch(file, offset_bytes, len_bytes),
        }
    }

    /// Stops accepting on these listeners; everything else runs to its end.
    pub fn stop_accepting(&mut self, listeners: &[u32]) {
        match self {
            Self::Ring(ring) => ring.stop_accepting(listeners),
            Self::Poller(poller) => poller.stop_accepting(listeners),
        }
    }

    /// Waits until something happens or the time is over; what has happened is appended to `events`.
    ///
    /// # Errors
    /// It has become unusable.
    pub fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.wait(timeout, events),
            Self::Poller(poller) => poller.wait(timeout, events),
        }
    }
}

#[cfg(test)]
mod tests;
