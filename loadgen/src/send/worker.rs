//! One thread and its connections: waits for sockets and due times, gives each its turn.
//!
//! Edge-triggered epoll; a connection's flags say what its socket would take, and only a refusal
//! clears them. Invariants: a thread sleeps in epoll only; a connection without progress for
//! longer than the timeout, and not by its own pace, is failed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::connection::{Connection, Wait};

/// Longest sleep, so that stop times and stalls are noticed.
const SLEEP_US_MAX: u64 = 200_000;
const EVENTS_MAX: usize = 256;

/// What all workers of a run share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) start: Instant,
    /// No line is begun after this.
    pub(crate) stop_after: Option<Duration>,
    /// Longest time without progress.
    pub(crate) stall: Duration,
    /// Bytes sent by all, for whoever watches.
    pub(crate) progress_bytes: &'a AtomicU64,
}

/// Drives the connections until each is finished or failed.
pub(crate) fn run(
    mut connections: Vec<Connection>,
    rules: Rules<'_>,
) -> io::Result<Vec<Connection>> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, connection) in connections.iter().enumerate() {
        epoll::add(
            &poll,
            connection.stream(),
            epoll::EventData::new_u64(index as u64),
            epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET,
        )?;
    }
    let mut waits = vec![Wait::Nothing; connections.len()];
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        let sleep_us = turns(&mut connections, &mut waits, rules);
        let Some(sleep_us) = sleep_us else { return Ok(connections) };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: (sleep_us.min(SLEEP_US_MAX) * 1000).try_into().unwrap_or(0),
        };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let index = event.data.u64() as usize;
            let flags = event.flags;
            let broken = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
            let connection = &mut connections[index];
            connection.writable |= flags.intersects(epoll::EventFlags::OUT | broken);
            connection.readable |=
                flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | broken);
            if waits[index] == Wait::Socket || connection.readable {
                waits[index] = Wait::Nothing;
            }
        }
    }
}

/// Gives every connection that can go on its turn; says how long all of them can sleep, `None`
/// when all are finished.
fn turns(connections: &mut [Connection], waits: &mut [Wait], rules: Rules<'_>) -> Option<u64> {
    let mut sleep_us = None;
    let mut now_us = rules.start.elapsed().as_micros() as u64;
    let stop = rules.stop_after.is_some_and(|limit| now_us >= limit.as_micros() as u64);
    for (connection, wait) in connections.iter_mut().zip(waits) {
        let due = match *wait {
            Wait::Finished => continue,
            Wait::Nothing => true,
            Wait::Until(at_us) => at_us <= now_us || stop,
            Wait::Socket => stop,
        };
        if due {
            if stop {
                connection.stop();
            }
            let before = connection.sent_bytes;
            *wait = connection.turn(now_us);
            now_us = rules.start.elapsed().as_micros() as u64;
            let sent = connection.sent_bytes - before;
            rules.progress_bytes.fetch_add(sent, Ordering::Relaxed);
        }
        if matches!(*wait, Wait::Until(_)) {
            connection.progress_us = now_us;
        }
        let stalled_us = now_us.saturating_sub(connection.progress_us);
        if *wait == Wait::Socket && stalled_us > rules.stall.as_micros() as u64 {
            let seconds = rules.stall.as_secs_f64();
            connection.fail(format!("the node took and sent nothing for {seconds} s"));
            *wait = Wait::Finished;
        }
        let own_us = match *wait {
            Wait::Finished => continue,
            Wait::Nothing => 0,
            Wait::Until(at_us) => at_us.saturating_sub(now_us),
            Wait::Socket => SLEEP_US_MAX,
        };
        sleep_us = Some(sleep_us.map_or(own_us, |least: u64| least.min(own_us)));
    }
    sleep_us
}
