//! Entries over `POST /log` from connections that stay open, each with one request on its way; and, if that
//! is asked for, how long until one comes out of `/ws/live`.
//!
//! One thread and epoll for all senders; another one follows. Each message says when it was handed over, so
//! nothing is remembered of it. Every hundredth entry is of the service that is followed.

mod entries;
mod live;
mod sender;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

pub(crate) use self::entries::Entries;
use self::live::{Follower, Seen};
use self::sender::Sender;
use crate::failure::{Context, Failure, Result};
use crate::send::new_histogram;

/// Longest sleep, so that stop times and stalls are noticed.
const SLEEP_MAX: Duration = Duration::from_millis(100);
const EVENTS_MAX: usize = 256;

/// What to do.
#[derive(Debug)]
pub(crate) struct Posting {
    pub(crate) api: String,
    pub(crate) connections: usize,
    /// Entries in all, unless the time is over before.
    pub(crate) records: u64,
    pub(crate) seconds: Option<Duration>,
    /// Entries a second over all connections, where they are not sent as fast as they are answered.
    pub(crate) rate: Option<f64>,
    pub(crate) message_bytes: usize,
    pub(crate) services: u64,
    /// Follow one of the services.
    pub(crate) live: bool,
    /// Longest time without an answer.
    pub(crate) patience: Duration,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) accepted: u64,
    /// Answered with something else than 202.
    pub(crate) refused: u64,
    pub(crate) elapsed: Duration,
    /// From before an entry was handed over to its answer, microseconds.
    pub(crate) acceptance: Histogram<u64>,
    /// Entries of the service that is followed, and what came of them.
    pub(crate) live: Option<(u64, Seen)>,
    /// What the first refusal said.
    pub(crate) error: Option<String>,
}

impl Posted {
    /// All was accepted, and all that was to come live came, but for what was told as missed.
    pub(crate) fn holds(&self) -> bool {
        let is_seen = |(sent, seen): &(u64, Seen)| seen.entries + seen.missed >= *sent;
        self.accepted > 0 && self.refused == 0 && self.live.as_ref().is_none_or(is_seen)
    }
}

/// Sends them.
pub(crate) fn run(posting: &Posting) -> Result<Posted> {
    let start = Instant::now();
    let follower = posting.live.then(|| Follower::start(&posting.api, start)).transpose()?;
    let mut senders = (0..posting.connections)
        .map(|_| Sender::connect(&posting.api))
        .collect::<Result<Vec<_>>>()?;
    let mut posted = Posted {
        accepted: 0,
        refused: 0,
        elapsed: Duration::ZERO,
        acceptance: new_histogram(),
        live: None,
        error: None,
    };
    let entries = Entries::new(posting.services, posting.message_bytes);
    let begun = Instant::now();
    let sent = post(posting, &mut senders, (&entries, start, begun), &mut posted)?;
    posted.elapsed = begun.elapsed();
    let followed = entries::followed(sent);
    posted.live = follower.map(|follower| (followed, follower.end(followed)));
    Ok(posted)
}

/// How many were sent.
fn post(
    posting: &Posting,
    senders: &mut [Sender],
    (entries, start, begun): (&Entries, Instant, Instant),
    posted: &mut Posted,
) -> Result<u64> {
    let polling = || "waiting for sockets".to_owned();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context(polling)?;
    for (index, sender) in senders.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, sender.stream(), data, epoll::EventFlags::IN).context(polling)?;
    }
    let mut free: Vec<usize> = (0..senders.len()).rev().collect();
    let (mut sent, mut heard) = (0, Instant::now());
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        let is_over = sent >= posting.records
            || posting.seconds.is_some_and(|seconds| begun.elapsed() >= seconds);
        let due = |number: u64| {
            posting.rate.map_or(begun, |rate| begun + Duration::from_secs_f64(number as f64 / rate))
        };
        while !is_over && sent < posting.records && due(sent) <= Instant::now() {
            let Some(index) = free.pop() else { break };
            senders[index].send(&entries.body(sent, start.elapsed()))?;
            sent += 1;
        }
        if is_over && free.len() == senders.len() {
            return Ok(sent);
        }
        let sleep = due(sent).saturating_duration_since(Instant::now());
        let sleep =
            if free.is_empty() || sleep.is_zero() { SLEEP_MAX } else { sleep.min(SLEEP_MAX) };
        let timeout = Timespec { tv_sec: 0, tv_nsec: sleep.as_nanos().try_into().unwrap_or(0) };
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context(polling),
        }
        if free.len() < senders.len() && events.is_empty() && heard.elapsed() > posting.patience {
            return Err(Failure::run(format!("no answer for {:?}", posting.patience)));
        }
        for event in events.drain(..) {
            heard = Instant::now();
            let index = event.data.u64() as usize;
            let Some(answer) = senders[index].receive()? else { continue };
            free.push(index);
            let us = u64::try_from(answer.after.as_micros()).unwrap_or(u64::MAX);
            posted.acceptance.saturating_record(us.max(1));
            if answer.status == 202 {
                posted.accepted += 1;
            } else {
                posted.refused += 1;
                let words = || format!("status {}: {}", answer.status, answer.text.trim());
                posted.error.get_or_insert_with(words);
            }
        }
    }
}
