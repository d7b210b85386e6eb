//! The threads that write and sync for a shard, and what has become of it.
//!
//! Invariants: whoever gives work never waits; the bytes and the file of a write stay until it has ended;
//! work may overtake other work, as on a ring. What is under way when the shard ends is brought to its end,
//! and nobody waits for it: a disk may hang.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::Advice;
use rustix::io::Errno;

use super::reset;
use crate::driver::{Descriptor, Event, WriteBytes};

/// As many as a log has under way at most: a sync, three frames, a piece of the tail file, and a fetch. None
/// waits behind another: what a killed process loses is what the tail has not got.
const THREADS: usize = 6;

enum Work {
    Write { file: Descriptor, offset_bytes: u64, bytes: WriteBytes, token: u64 },
    Sync { file: Descriptor, token: u64 },
    Fetch { file: Descriptor, offset_bytes: u64, len_bytes: u32 },
}

/// What threads and shard share.
struct Shared {
    done: Mutex<Vec<Event>>,
    signal: OwnedFd,
    /// A fetch is under way or waits.
    is_fetching: AtomicBool,
}

/// See the module page.
pub(super) struct Files {
    work: Sender<Work>,
    shared: Arc<Shared>,
}

impl Files {
    /// Starts the threads; they end when this is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (is_fetching, done) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { done, signal, is_fetching });
        let (work, given) = channel();
        let given = Arc::new(Mutex::new(given));
        for _ in 0..THREADS {
            let (given, shared) = (Arc::clone(&given), Arc::clone(&shared));
            std::thread::Builder::new().name("shard-disk".into()).spawn(move || {
                while let Some(work) = next(&given) {
                    shared.carry_out(work);
                }
            })?;
        }
        Ok(Self { work, shared })
    }

    /// Is signalled when something has ended.
    pub(super) fn done_descriptor(&self) -> BorrowedFd<'_> {
        self.shared.signal.as_fd()
    }

    /// What has ended, in that order.
    pub(super) fn take_done(&self, events: &mut Vec<Event>) {
        // Before the look: what ends behind it signals anew.
        reset(&self.shared.signal);
        events.append(&mut self.shared.done.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn write(&self, file: Descriptor, offset_bytes: u64, bytes: WriteBytes, token: u64) {
        self.give(Work::Write { file, offset_bytes, bytes, token });
    }

    pub(super) fn sync(&self, file: Descriptor, token: u64) {
        self.give(Work::Sync { file, token });
    }

    /// One at a time: a fetch that the disk does not keep up with helps nobody.
    pub(super) fn fetch(&self, file: Descriptor, offset_bytes: u64, len_bytes: u32) {
        if !self.shared.is_fetching.swap(true, Ordering::AcqRel) {
            self.give(Work::Fetch { file, offset_bytes, len_bytes });
        }
    }

    fn give(&self, work: Work) {
        assert!(self.work.send(work).is_ok(), "the threads live as long as this");
    }
}

fn next(given: &Mutex<Receiver<Work>>) -> Option<Work> {
    given.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

impl Shared {
    fn carry_out(&self, work: Work) {
        let event = match work {
            Work::Write { file, offset_bytes, bytes, token } => {
                let write = || rustix::io::pwrite(&file, (*bytes).as_ref(), offset_bytes);
                Event::Written { token, result: uninterrupted(write) }
            }
            Work::Sync { file, token } => {
                let result = uninterrupted(|| rustix::fs::fdatasync(&file));
                Event::Synced { token, result }
            }
            Work::Fetch { file, offset_bytes, len_bytes } => {
                let len = std::num::NonZeroU64::new(u64::from(len_bytes));
                // Advice: a refusal changes nothing.
                let _ = rustix::fs::fadvise(&file, offset_bytes, len, Advice::WillNeed);
                return self.is_fetching.store(false, Ordering::Release);
            }
        };
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        // A full counter means that the shard is about to wake anyway.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }
}

fn uninterrupted<T>(call: impl Fn() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}
