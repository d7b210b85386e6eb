//! Many connections that send little or nothing: what they cost the node's memory.
//!
//! Each connection sends so many bytes without a newline, as far as the node takes them, and is
//! then held open. One thread, epoll; memory is one buffer and the sockets.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::failure::{Context, Result};
use crate::send;

const WRITE_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 256;
const SLEEP_NS: i64 = 100_000_000;

/// What became of the connections.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) opened: u64,
    /// Still open at the end.
    pub(crate) open: u64,
    /// That sent all they had to.
    pub(crate) complete: u64,
    pub(crate) sent_bytes: u64,
}

struct Connection {
    stream: TcpStream,
    left: u64,
    open: bool,
}

/// Opens connections, sends, and holds them until `hold` has passed since the last was opened.
pub(crate) fn hold(
    address: &str,
    connections: u64,
    bytes_each: u64,
    hold: Duration,
) -> Result<Held> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context(|| "epoll_create".into())?;
    let mut all = Vec::new();
    for index in 0..connections {
        let stream = send::open(address)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&poll, &stream, epoll::EventData::new_u64(index), flags)
            .context(|| "epoll_ctl".into())?;
        all.push(Connection { stream, left: bytes_each, open: true });
    }
    let filler = vec![b'x'; WRITE_BYTES];
    let until = Instant::now() + hold;
    let mut events = Vec::with_capacity(EVENTS_MAX);
    while Instant::now() < until {
        let timeout = Timespec { tv_sec: 0, tv_nsec: SLEEP_NS };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "epoll_wait".into()),
        }
        for event in events.drain(..) {
            let connection = &mut all[event.data.u64() as usize];
            connection.open = connection.open && connection.turn(&filler).is_ok();
        }
    }
    Ok(Held {
        opened: connections,
        open: all.iter().filter(|connection| connection.open).count() as u64,
        complete: all.iter().filter(|connection| connection.left == 0).count() as u64,
        sent_bytes: all.iter().map(|connection| bytes_each - connection.left).sum(),
    })
}

impl Connection {
    /// Sends until the socket takes no more; an error when the node has closed.
    fn turn(&mut self, filler: &[u8]) -> io::Result<()> {
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while self.left > 0 {
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(filler.len());
            match self.stream.write(&filler[..len]) {
                Ok(count) => self.left -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
