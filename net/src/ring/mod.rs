//! One io_uring per shard: accept, receive, write, sync and a wake-up, as safe calls and events.
//!
//! This is the crate's one home of `unsafe`. It carries no policy: which connection to read, what
//! to write where and when to sync is decided by [`crate::shard`] and `engine::ingest`.
//!
//! Invariants:
//! - memory that the kernel reads or fills stays put until its completion is seen: bytes being
//!   written are kept alive in `Ring::writes`, received bytes land in `buffers::Buffers`,
//!   which live as long as the ring;
//! - a ring that is dropped with operations under way gives their memory up for good rather than
//!   hand it to somebody else;
//! - the ring is used by the one thread that made it.

#![allow(unsafe_code)]

mod buffers;
mod probe;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use buffers::Buffers;
pub use probe::{RingRefused, probe};

use crate::driver::{Event, Receive, Received, WriteBytes};

/// Submission entries; further ones are submitted in rounds.
const SUBMISSION_ENTRIES: u32 = 256;
/// Completion entries; more wait in the kernel.
const COMPLETION_ENTRIES: u32 = 4096;
/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Receive,
    Write,
    Sync,
    Wake,
    Cancel,
    Poll,
    Fetch,
}

const KIND_SHIFT: u32 = 56;
const VALUE_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// A shard's ring. See the module page.
pub struct Ring {
    uring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    /// Bytes under way to a file, by slot; the token travels beside them.
    writes: ManuallyDrop<Vec<Option<(u64, WriteBytes)>>>,
    wake: OwnedFd,
    under_way: usize,
}

impl Ring {
    /// Makes a ring whose receives fill `buffer_count` (a power of two) buffers of
    /// `buffer_bytes`, and which reports [`Event::Woken`] when `wake` (an eventfd) is signalled.
    pub fn new(buffer_count: u16, buffer_bytes: usize, wake: OwnedFd) -> io::Result<Self> {
        let uring = build()?;
        let buffers = Buffers::new(buffer_count, buffer_bytes);
        // SAFETY: the entries are page-aligned, hold `buffer_count` elements and live in
        // `buffers`, which is kept until the ring is gone.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                buffers.ring_address(),
                buffer_count,
                BUFFER_GROUP,
                0,
            )?;
        }
        let mut ring = Self {
            uring: ManuallyDrop::new(uring),
            buffers: ManuallyDrop::new(buffers),
            writes: ManuallyDrop::new(Vec::new()),
            wake,
            under_way: 0,
        };
        ring.arm_wake();
        Ok(ring)
    }

    /// Accepts on `listener` until told otherwise. The descriptor must stay open meanwhile.
    pub fn accept(&mut self, listener: BorrowedFd<'_>, id: u32) {
        let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry, Kind::Accept, u64::from(id));
    }

    /// Receives from a connection until it ends or buffers run out. `key` has at most 56 bits.
    pub fn receive(&mut self, connection: BorrowedFd<'_>, key: u64) {
        let entry = opcode::RecvMulti::new(types::Fd(connection.as_raw_fd()), BUFFER_GROUP).build();
        self.push(entry, Kind::Receive, key);
    }

    /// Ends a receive early: its last event is [`Receive::Stopped`], unless it ends by itself.
    pub fn stop_receiving(&mut self, key: u64) {
        let entry = opcode::AsyncCancel::new(user_data(Kind::Receive, key)).build();
        self.push(entry, Kind::Cancel, 0);
    }

    /// Tells once, by [`Event::Readable`], that a connection can be received from without waiting.
    /// `key` has at most 56 bits.
    pub fn poll(&mut self, connection: BorrowedFd<'_>, key: u64) {
        let entry =
            opcode::PollAdd::new(types::Fd(connection.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(entry, Kind::Poll, key);
    }

    /// The bytes of a receive.
    pub fn received(&self, received: &Received) -> &[u8] {
        self.buffers.bytes(received)
    }

    /// Gives a buffer back to the kernel.
    pub fn recycle(&mut self, received: Received) {
        self.buffers.recycle(received);
    }

    /// Writes `bytes` at `offset_bytes`; `token` comes back with [`Event::Written`].
    pub fn write(
        &mut self,
        file: BorrowedFd<'_>,
        offset_bytes: u64,
        bytes: WriteBytes,
        token: u64,
    ) {
        let span: &[u8] = (*bytes).as_ref();
        let len = u32::try_from(span.len()).expect("a frame is far below 4 GiB");
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), span.as_ptr(), len)
            .offset(offset_bytes)
            .build();
        let slot = self.writes.iter().position(Option::is_none).unwrap_or_else(|| {
            self.writes.push(None);
            self.writes.len() - 1
        });
        self.writes[slot] = Some((token, bytes));
        self.push(entry, Kind::Write, slot as u64);
    }

    /// Makes a file's data durable (fdatasync); `token` (56 bits) comes with [`Event::Synced`].
    pub fn sync(&mut self, file: BorrowedFd<'_>, token: u64) {
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.push(entry, Kind::Sync, token);
    }

    /// Has a span of a file brought into the page cache, by and by; the file may be closed at once.
    pub fn fetch(&mut self, file: BorrowedFd<'_>, offset_bytes: u64, len_bytes: u32) {
        let entry = opcode::Fadvise::new(
            types::Fd(file.as_raw_fd()),
            libc::off_t::from(len_bytes),
            libc::POSIX_FADV_WILLNEED,
        )
        .offset(offset_bytes)
        .build();
        self.push(entry, Kind::Fetch, 0);
        // From here on the kernel holds the file. A failure repeats itself in `wait`, which tells.
        let _ = self.uring.submit();
    }

    /// Stops accepting on these listeners; everything else runs to its end.
    pub fn stop_accepting(&mut self, listeners: &[u32]) {
        for &id in listeners {
            let entry = opcode::AsyncCancel::new(user_data(Kind::Accept, u64::from(id))).build();
            self.push(entry, Kind::Cancel, 0);
        }
    }

    /// Submits what was pushed and waits until something happens or the time is over; what has
    /// happened is appended to `events`.
    pub fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        let time = types::Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let args = types::SubmitArgs::new().timespec(&time);
        match self.uring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {
            }
            Err(e) => return Err(e),
        }
        self.collect(events);
        Ok(())
    }

    /// Operations whose completion was not seen yet, the wake-up included.
    pub const fn under_way(&self) -> usize {
        self.under_way
    }

    fn push(&mut self, entry: squeue::Entry, kind: Kind, value: u64) {
        let entry = entry.user_data(user_data(kind, value));
        self.under_way += 1;
        loop {
            // SAFETY: what the entry points to outlives the operation (see the module page), and
            // descriptors are kept open by the shard until their last event.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: make room. A failure here repeats itself in `wait`, which tells.
            let _ = self.uring.submit();
        }
    }

    fn arm_wake(&mut self) {
        let entry = opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(entry, Kind::Wake, 0);
    }

    fn collect(&mut self, events: &mut Vec<Event>) {
        loop {
            let Some(entry) = self.uring.completion().next() else { return };
            let more = cqueue::more(entry.flags());
            if !more {
                self.under_way -= 1;
            }
            let value = entry.user_data() & VALUE_MASK;
            let result = entry.result();
            match kind_of(entry.user_data()) {
                Some(Kind::Accept) => events.push(Event::Accepted {
                    listener: value as u32,
                    // SAFETY: a fresh descriptor that nobody else owns.
                    result: outcome(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
                    more,
                }),
                Some(Kind::Receive) => {
                    let outcome = self.receive_outcome(result, entry.flags());
                    events.push(Event::Received { key: value, outcome, more });
                }
                Some(Kind::Write) => {
                    let slot = self.writes.get_mut(value as usize).and_then(Option::take);
                    if let Some((token, _bytes)) = slot {
                        events.push(Event::Written { token, result: outcome(result) });
                    }
                }
                Some(Kind::Sync) => {
                    events.push(Event::Synced { token: value, result: outcome(result).map(drop) });
                }
                Some(Kind::Wake) => {
                    let mut count = [0; 8];
                    // Only resets the counter; nothing to read is as good.
                    let _ = rustix::io::read(&self.wake, &mut count);
                    if !more {
                        self.arm_wake();
                    }
                    events.push(Event::Woken);
                }
                // A failed poll is no news of its own: receiving tells what is wrong.
                Some(Kind::Poll) => events.push(Event::Readable { key: value }),
                // Advice: a refusal changes nothing.
                Some(Kind::Cancel | Kind::Fetch) | None => {}
            }
        }
    }

    fn receive_outcome(&self, result: i32, flags: u32) -> Receive {
        match (outcome(result), cqueue::buffer_select(flags)) {
            (Ok(0), Some(id)) => {
                // An empty buffer came back with the end of the stream.
                self.buffers.give_back(id);
                Receive::End
            }
            (Ok(0), None) => Receive::End,
            (Ok(len), Some(id)) => Receive::Data(Received { id, len }),
            (Ok(_), None) => Receive::Failed(io::Error::other("receive without a buffer")),
            (Err(e), _) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {
                Receive::Stopped
            }
            (Err(e), _) => Receive::Failed(e),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The wake-up poll uses no memory of ours; anything else might.
        let idle = self.under_way <= 1;
        // SAFETY: each is dropped once, the ring before the memory it refers to, and never used
        // again.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            if idle {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.writes);
            }
        }
    }
}

fn build() -> io::Result<IoUring> {
    let newest = IoUring::builder()
        .setup_clamp()
        .setup_cqsize(COMPLETION_ENTRIES)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(SUBMISSION_ENTRIES);
    match newest {
        // Before Linux 6.1.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder()
            .setup_clamp()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES),
        other => other,
    }
}

const fn user_data(kind: Kind, value: u64) -> u64 {
    ((kind as u64) << KIND_SHIFT) | (value & VALUE_MASK)
}

const fn kind_of(user_data: u64) -> Option<Kind> {
    Some(match (user_data >> KIND_SHIFT) as u8 {
        1 => Kind::Accept,
        2 => Kind::Receive,
        3 => Kind::Write,
        4 => Kind::Sync,
        5 => Kind::Wake,
        6 => Kind::Cancel,
        7 => Kind::Poll,
        8 => Kind::Fetch,
        _ => return None,
    })
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_fetch_is_no_event_and_needs_the_descriptor_no_longer() {
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let mut ring = Ring::new(2, 4096, wake).unwrap();
        let idle = ring.under_way();
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        ring.fetch(file.as_fd(), 4096, 1 << 20);
        drop(file);
        let (no_file, _other_end) = std::io::pipe().unwrap();
        ring.fetch(no_file.as_fd(), 0, 1);
        let mut events = Vec::new();
        for _ in 0..100 {
            if ring.under_way() > idle {
                ring.wait(Duration::from_millis(100), &mut events).unwrap();
            }
        }
        assert_eq!(ring.under_way(), idle, "both have ended");
        assert!(events.is_empty(), "{events:?}");
    }
}
