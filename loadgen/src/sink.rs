//! A TCP server that throws away what it is sent: the limit that machine and client set.
//!
//! One thread per core, each with its own epoll; connections go to the threads in turn, so that
//! no thread holds two while another holds none (as SO_REUSEPORT would allow). A connection that
//! begins with the acknowledgement hello gets the count of its lines after each read.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::epoll;

use crate::failure::{Context, Failure, Result};
use crate::send::HELLO;

/// What one read takes at most.
const RECEIVE_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 64;

/// A thread's share of the connections.
#[derive(Debug)]
struct Share {
    poll: OwnedFd,
    slots: Mutex<Vec<Option<Sunk>>>,
}

#[derive(Debug)]
struct Sunk {
    stream: TcpStream,
    /// Lines so far, where acknowledgements are wanted; the hello's newline is not counted.
    lines: Option<Lines>,
    fresh: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lines {
    /// Newlines, the hello's included.
    newlines: u64,
    inside_line: bool,
}

/// Serves until the process ends. `announce` is told the address.
pub(crate) fn serve(
    address: &str,
    threads: Option<usize>,
    announce: impl FnOnce(String),
) -> Result<()> {
    let listening = || format!("listening on {address}");
    let listener = TcpListener::bind(address).context(listening)?;
    announce(listener.local_addr().context(listening)?.to_string());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut shares = Vec::new();
    for _ in 0..threads.unwrap_or(cores).max(1) {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context(listening)?;
        let share = Arc::new(Share { poll, slots: Mutex::default() });
        shares.push(Arc::clone(&share));
        thread::spawn(move || drain(&share));
    }
    for (index, stream) in listener.incoming().enumerate() {
        let added = stream.and_then(|stream| shares[index % shares.len()].add(stream));
        if let Err(error) = added {
            eprintln!("loadgen sink: a connection was not taken: {error}");
        }
    }
    Err(Failure::run("the listener ended"))
}

impl Share {
    fn add(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        if index == slots.len() {
            slots.push(None);
        }
        epoll::add(
            &self.poll,
            &stream,
            epoll::EventData::new_u64(index as u64),
            epoll::EventFlags::IN,
        )?;
        slots[index] = Some(Sunk { stream, lines: None, fresh: true });
        Ok(())
    }
}

fn drain(share: &Share) {
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        match epoll::wait(&share.poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                eprintln!("loadgen sink: waiting for sockets: {error}");
                return;
            }
        }
        for event in events.drain(..) {
            let index = event.data.u64() as usize;
            let mut slots = share.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = slots.get_mut(index) else { continue };
            // Dropping a connection closes it, which takes it out of the epoll.
            if slot.as_mut().is_some_and(|sunk| sunk.receive(&mut buffer).is_err()) {
                *slot = None;
            }
        }
    }
}

impl Sunk {
    /// One read; an error, and that it ended, ends the connection.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let count = match self.stream.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..count];
        if self.fresh {
            self.fresh = false;
            let acks = bytes.starts_with(HELLO);
            self.lines = acks.then_some(Lines { newlines: 0, inside_line: false });
        }
        if let Some(lines) = &mut self.lines {
            let unfinished = count == 0 && lines.inside_line;
            lines.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
            lines.newlines += u64::from(unfinished);
            lines.inside_line = bytes.last().is_some_and(|&byte| byte != b'\n');
            if count > 0 || unfinished {
                let records = lines.newlines.saturating_sub(1);
                self.stream.write_all(&records.to_le_bytes())?;
            }
        }
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
