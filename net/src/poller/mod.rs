//! A shard's driver where io_uring is refused: epoll for sockets, and a few threads that write and sync.
//!
//! Epoll is level-triggered: what was not received is told again. A connection that nobody waits for is
//! not watched at all, so that its bytes stay in the kernel and its sender feels it.
//!
//! Invariants: who watches a connection keeps it open, so that a key never means another's descriptor; a
//! call never waits for the disk; of one connection at most one buffer is filled a turn, then others have
//! their turn; a connection is watched in one way at a time.

mod files;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};

use crate::driver::{Descriptor, Event, Receive, Received, WriteBytes};
use files::Files;

/// Most descriptors that are told ready in a turn.
const READY_MAX: usize = 256;
/// Most connections accepted from a listener in a turn.
const ACCEPTS_MAX: usize = 64;

/// Most connections whose turn is remembered.
const UNSERVED_MAX: usize = 4096;
/// Pause before what could not be watched is tried again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// What a number that epoll gives back is of: in its highest byte.
const KIND_SHIFT: u32 = 56;
const CONNECTION: u64 = 0;
const LISTENER: u64 = 1;
const WAKE: u64 = 2;
const FILES: u64 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Its bytes are wanted.
    Bytes,
    /// It is to be told once that there are some.
    Readable,
}

/// See the module page.
pub struct Poller {
    epoll: OwnedFd,
    wake: OwnedFd,
    listeners: HashMap<u32, OwnedFd>,
    /// By key.
    connections: HashMap<u64, (Descriptor, Watch)>,
    buffers: Vec<Box<[u8]>>,
    /// Those that nobody has.
    free: Vec<u16>,
    files: Files,
    ready: Vec<epoll::Event>,
    /// What happened without waiting.
    pending: Vec<Event>,
    /// What could not be watched, to be tried again.
    refused: Vec<Event>,
    /// Those for whom no buffer was left: they come first the next time.
    unserved: HashSet<u64>,
}

impl Poller {
    /// As [`crate::driver::Driver::new`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(buffer_count: u16, buffer_bytes: usize, wake: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let files = Files::start()?;
        let tag = |kind: u64| epoll::EventData::new_u64(kind << KIND_SHIFT);
        epoll::add(&epoll, &wake, tag(WAKE), epoll::EventFlags::IN)?;
        epoll::add(&epoll, files.done_descriptor(), tag(FILES), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            wake,
            listeners: HashMap::new(),
            connections: HashMap::new(),
            buffers: (0..buffer_count).map(|_| vec![0; buffer_bytes].into_boxed_slice()).collect(),
            free: (0..buffer_count).collect(),
            files,
            ready: Vec::with_capacity(READY_MAX),
            pending: Vec::new(),
            refused: Vec::new(),
            unserved: HashSet::new(),
        })
    }

    /// As [`crate::driver::Driver::accept`].
    pub fn accept(&mut self, listener: BorrowedFd<'_>, id: u32) {
        if let Err(error) = self.watch_listener(listener, id) {
            self.pending.push(Event::Accepted { listener: id, result: Err(error), more: false });
        }
    }

    fn watch_listener(&mut self, listener: BorrowedFd<'_>, id: u32) -> io::Result<()> {
        // Who connected may be gone again before it is accepted: that is not to be waited for.
        rustix::io::ioctl_fionbio(listener, true)?;
        let listener = listener.try_clone_to_owned()?;
        let data = epoll::EventData::new_u64((LISTENER << KIND_SHIFT) | u64::from(id));
        epoll::add(&self.epoll, &listener, data, epoll::EventFlags::IN)?;
        self.listeners.insert(id, listener);
        Ok(())
    }

    /// As [`crate::driver::Driver::stop_accepting`].
    pub fn stop_accepting(&mut self, listeners: &[u32]) {
        for id in listeners {
            self.forget_listener(*id);
        }
    }

    fn forget_listener(&mut self, id: u32) {
        if let Some(listener) = self.listeners.remove(&id) {
            // The node has the same one open elsewhere: closing it here would not end the watch.
            let _ = epoll::delete(&self.epoll, &listener);
        }
    }

    /// As [`crate::driver::Driver::receive`].
    pub fn receive(&mut self, connection: &Descriptor, key: u64) {
        if self.watch(connection, key, Watch::Bytes).is_err() {
            // A shortage of ours, none of the connection's.
            let outcome = Receive::Stopped;
            self.refused.push(Event::Received { key, outcome, more: false });
        }
    }

    /// As [`crate::driver::Driver::poll`].
    pub fn poll(&mut self, connection: &Descriptor, key: u64) {
        if self.watch(connection, key, Watch::Readable).is_err() {
            self.refused.push(Event::Readable { key });
        }
    }

    fn watch(&mut self, connection: &Descriptor, key: u64, watch: Watch) -> Result<(), Errno> {
        // In one way at a time.
        self.unwatch(key);
        let data = epoll::EventData::new_u64((CONNECTION << KIND_SHIFT) | key);
        epoll::add(&self.epoll, connection, data, epoll::EventFlags::IN)?;
        self.connections.insert(key, (Descriptor::clone(connection), watch));
        Ok(())
    }

    fn forget(&mut self, key: u64) {
        self.unserved.remove(&key);
        self.unwatch(key);
    }

    fn unwatch(&mut self, key: u64) {
        if let Some((connection, _)) = self.connections.remove(&key) {
            // The shard has the same one open: closing it here would not end the watch.
            let _ = epoll::delete(&self.epoll, &connection);
        }
    }

    /// As [`crate::driver::Driver::stop_receiving`].
    pub fn stop_receiving(&mut self, key: u64) {
        if self.connections.get(&key).is_some_and(|(_, watch)| *watch == Watch::Bytes) {
            self.forget(key);
            let outcome = Receive::Stopped;
            self.pending.push(Event::Received { key, outcome, more: false });
        }
    }

    /// As [`crate::driver::Driver::received`].
    pub fn received(&self, received: &Received) -> &[u8] {
        &self.buffers[usize::from(received.id)][..received.len]
    }

    /// As [`crate::driver::Driver::recycle`].
    #[expect(clippy::needless_pass_by_value, reason = "a buffer is handed back once")]
    pub fn recycle(&mut self, received: Received) {
        self.free.push(received.id);
    }

    /// As [`crate::driver::Driver::write`].
    pub fn write(&self, file: &Descriptor, offset_bytes: u64, bytes: WriteBytes, token: u64) {
        self.files.write(Descriptor::clone(file), offset_bytes, bytes, token);
    }

    /// As [`crate::driver::Driver::sync`].
    pub fn sync(&self, file: &Descriptor, token: u64) {
        self.files.sync(Descriptor::clone(file), token);
    }

    /// As [`crate::driver::Driver::fetch`].
    pub fn fetch(&self, file: &Descriptor, offset_bytes: u64, len_bytes: u32) {
        self.files.fetch(Descriptor::clone(file), offset_bytes, len_bytes);
    }

    /// As [`crate::driver::Driver::wait`].
    ///
    /// # Errors
    /// Epoll has become unusable.
    pub fn wait(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        let timeout = match (self.pending.is_empty(), self.refused.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, false) => timeout.min(SHORTAGE_PAUSE),
            (true, true) => timeout,
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        events.append(&mut self.pending);
        events.append(&mut self.refused);
        let connection_of = |event: &epoll::Event| {
            let data = event.data.u64();
            (data >> KIND_SHIFT == CONNECTION).then_some(data)
        };
        let is_first = |event: &epoll::Event| {
            connection_of(event).is_some_and(|key| self.unserved.contains(&key))
        };
        if !self.unserved.is_empty() {
            ready.sort_by_key(|event| !is_first(event));
        }
        for event in &ready {
            let data = event.data.u64();
            let value = data & ((1 << KIND_SHIFT) - 1);
            match data >> KIND_SHIFT {
                CONNECTION => self.on_ready(value, events),
                LISTENER => self.accept_from(value as u32, events),
                WAKE => {
                    reset(&self.wake);
                    events.push(Event::Woken);
                }
                _ => self.files.take_done(events),
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn accept_from(&mut self, id: u32, events: &mut Vec<Event>) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get(&id) else { return };
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    events.push(Event::Accepted { listener: id, result: Ok(socket), more: true });
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.forget_listener(id);
                    let result = Err(error.into());
                    events.push(Event::Accepted { listener: id, result, more: false });
                }
            }
        }
    }

    fn on_ready(&mut self, key: u64, events: &mut Vec<Event>) {
        let Some((connection, watch)) = self.connections.get(&key) else { return };
        if *watch == Watch::Readable {
            self.forget(key);
            return events.push(Event::Readable { key });
        }
        let Some(id) = self.free.pop() else {
            self.unwatch(key);
            // Who goes before it is served is not taken out: it is a matter of order, and bounded.
            if self.unserved.len() >= UNSERVED_MAX {
                self.unserved.clear();
            }
            self.unserved.insert(key);
            let outcome = Receive::Stopped;
            return events.push(Event::Received { key, outcome, more: false });
        };
        self.unserved.remove(&key);
        let buffer = &mut *self.buffers[usize::from(id)];
        let outcome = match rustix::net::recv(connection, buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) if len > 0 => {
                let outcome = Receive::Data(Received { id, len });
                return events.push(Event::Received { key, outcome, more: true });
            }
            Ok(_) => Some(Receive::End),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => Some(Receive::Failed(error.into())),
        };
        self.free.push(id);
        if let Some(outcome) = outcome {
            self.forget(key);
            events.push(Event::Received { key, outcome, more: false });
        }
    }
}

/// Sets the counter of an eventfd back; nothing to read is as good.
fn reset(counter: impl AsFd) {
    let mut count = [0; 8];
    let _ = rustix::io::read(counter, &mut count);
}
