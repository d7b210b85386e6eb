//! The shard's loop: wait on the driver (a ring, or epoll), hand bytes to connections and their lines to the log, carry
//! the log's effects to the driver, tell senders what is safe.
//!
//! Invariants:
//! - received bytes are taken in the order they came, per connection; what cannot be taken now
//!   (the log or the backlog is full) waits in `deferred`, which holds at most the ring's buffers
//!   and one entry for each sender in bulk: then the kernel's socket buffers fill and senders feel it;
//! - an acknowledgement is sent only for records below the log's durable end (durable port; none while
//!   the gate says that what is synced may be nowhere) or in the log (fast port);
//! - a slot that is used again has a new generation, so that late events of the connection that
//!   had it before are dropped.

mod disk;
mod looks;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use tokio::sync::oneshot;

use super::ShardParts;
use super::accepting::Accepting;
use super::connection::{Brought, Connection, Port};
use super::fetch::Fetching;
use super::hangups::Hangups;
use super::inbox::{Append, Message};
use super::intake::Intake;
use super::tally::Tally;
use super::unfinished::Unfinished;
use crate::budget::{AddressPlace, TooMany};
use crate::driver::{Descriptor, Driver, Event, Receive, Received};
use disk::UnderWay;

/// Receive buffers per shard and their size, bytes.
const BUFFERS: u16 = 64;
const BUFFER_BYTES: usize = 64 << 10;
/// Longest wait: the beat of the watchdog and of everything that has no event of its own.
const WAIT_MAX_US: u64 = 100_000;
/// Wait while reading is stopped or an acknowledgement could not be sent.
const WAIT_STOPPED_US: u64 = 5_000;

/// How long a stopping shard waits for clients to take their last acknowledgement.
const TELL_US_MAX: u64 = 500_000;

const LISTENER_FAST: u32 = 0;
const LISTENER_DURABLE: u32 = 1;

/// Something that waits for room in the log.
enum Deferred {
    Data(Received),
    /// The connection is to be received from.
    Readable,
    End,
    Failed,
}

pub(super) struct Shard {
    parts: ShardParts,
    driver: Driver,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    generation: u32,
    deferred: VecDeque<(u64, Deferred)>,
    /// Connections that the ring is to be asked for again.
    unarmed: Vec<u64>,
    appends: VecDeque<Append>,
    /// Ends of the log that somebody waits for.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
    /// Connections that may be owed an acknowledgement or a close.
    owed: Vec<usize>,
    segments: Vec<(Arc<engine::ingest::segment::Segment>, Descriptor)>,
    under_way: Vec<UnderWay>,
    accepting: Accepting,
    tally: Tally,
    stopped: bool,
    shutting_down: bool,
    /// Goes on after it has written out everything.
    draining: bool,
    fetching: Fetching,
    hangups: Hangups,
    /// Changes of who may write that were looked at.
    changes: u64,
    /// When those who have not said who they are are looked for, microseconds of the monotonic clock.
    next_nameless_us: u64,
    unfinished: Unfinished,
    /// When the last acknowledgements of a stopping shard must have been taken.
    told_until_us: Option<u64>,
}

impl Shard {
    pub(super) fn new(parts: ShardParts) -> io::Result<Self> {
        let wake = parts.placement.seats()[parts.index].inbox.wake_descriptor()?;
        let driver = Driver::new(parts.driver, (BUFFERS, BUFFER_BYTES), wake)?;
        let unfinished = Unfinished::new(parts.unfinished_line_after_us);
        Ok(Self {
            parts,
            driver,
            connections: Vec::new(),
            free: Vec::new(),
            generation: 0,
            deferred: VecDeque::new(),
            unarmed: Vec::new(),
            appends: VecDeque::new(),
            waiters: Vec::new(),
            owed: Vec::new(),
            segments: Vec::new(),
            under_way: Vec::new(),
            accepting: Accepting::new(&[LISTENER_FAST, LISTENER_DURABLE]),
            tally: Tally::default(),
            stopped: false,
            shutting_down: false,
            draining: false,
            fetching: Fetching::default(),
            hangups: Hangups::default(),
            changes: 0,
            next_nameless_us: 0,
            unfinished,
            told_until_us: None,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::new();
        let mut messages = Vec::new();
        let mut now = self.parts.clock.now();
        let pulse = Arc::clone(&self.parts.placement.seats()[self.parts.index].pulse);
        loop {
            pulse.begin();
            self.arm_listeners(now);
            let timeout = Duration::from_micros(self.wait_us(now));
            self.driver.wait(timeout, &mut events)?;
            now = self.parts.clock.now();
            for event in events.drain(..) {
                self.on_event(event, now);
            }
            self.parts.placement.seats()[self.parts.index].inbox.take(&mut messages);
            for message in messages.drain(..) {
                self.on_message(message, now);
            }
            self.take_deferred(now);
            self.end_unfinished(now);
            self.look_for_hangups(now);
            self.look_for_withdrawn(now);
            self.look_for_nameless(now);
            self.parts.hub.after_turn(self.parts.index, &mut self.parts.log, now);
            self.carry_effects(now);
            self.acknowledge();
            self.count_turn(now);
            if self.shutting_down && self.is_done(now) {
                if !self.draining {
                    pulse.rest();
                    return Ok(());
                }
                self.parts.placement.seats()[self.parts.index]
                    .drained
                    .store(true, Ordering::Release);
            }
        }
    }

    /// Whether everything is written and told; a client that does not read is not waited for long.
    fn is_done(&mut self, now: Now) -> bool {
        if self.parts.gate.is_withheld() {
            // Who waits learns that it was not promised.
            self.waiters.clear();
        }
        if !self.parts.log.is_idle() || !self.waiters.is_empty() {
            return false;
        }
        let until_us = *self.told_until_us.get_or_insert(now.monotonic_us + TELL_US_MAX);
        self.owed.is_empty() || now.monotonic_us >= until_us
    }

    fn wait_us(&self, now: Now) -> u64 {
        let mut wait = WAIT_MAX_US;
        if let Some(deadline) = self.parts.log.next_deadline_us() {
            wait = wait.min(deadline.saturating_sub(now.monotonic_us));
        }
        if self.stopped || !self.owed.is_empty() {
            wait = wait.min(WAIT_STOPPED_US);
        }
        wait
    }

    fn arm_listeners(&mut self, now: Now) {
        if self.shutting_down {
            return;
        }
        for id in self.accepting.take_due(now.monotonic_us) {
            let listener = if id == LISTENER_FAST { &self.parts.fast } else { &self.parts.durable };
            self.driver.accept(listener, id);
        }
    }

    fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Accepted { listener, result, more } => {
                match result {
                    Ok(socket) => {
                        self.accepting.works();
                        self.on_accepted(listener, socket, now);
                    }
                    Err(error) if self.accepting.fails(&error) && !self.shutting_down => {
                        let shard = self.parts.index;
                        tracing::warn!(
                            shard,
                            "cannot accept connections: {error}; tried again until it works"
                        );
                    }
                    Err(_) => {}
                }
                if !more && !self.shutting_down {
                    self.accepting.ended(listener, now.monotonic_us);
                }
            }
            Event::Received { key, outcome, more } => self.on_received(key, outcome, more, now),
            Event::Readable { key } => self.take_in_turn(key, Deferred::Readable, now),
            Event::Written { token, result } => self.on_written(token, result, now),
            Event::Synced { token, result } => {
                self.finish(token, now, &result);
                self.tally.syncs += 1;
                self.parts.log.on_synced(token, result);
            }
            Event::Woken => {}
        }
    }

    fn on_accepted(&mut self, listener: u32, socket: OwnedFd, now: Now) {
        let port = if listener == LISTENER_FAST { Port::Fast } else { Port::Durable };
        // A client that is gone already needs no place.
        let Some(address) = peer_of(&socket) else { return };
        let address_place = match self.parts.addresses.enter(address) {
            Ok(place) => place,
            Err(TooMany { is_news }) => {
                self.parts.metrics.connections_refused(port.name()).inc();
                if is_news {
                    tracing::warn!(
                        %address,
                        "has as many ingest connections as it may \
                         (--ingest.connections-per-address-max)"
                    );
                }
                return;
            }
        };
        let place = self.parts.placement.take_place(self.parts.index, self.parts.connections_max);
        match place {
            Some(shard) if shard == self.parts.index => {
                self.adopt(socket, port, address_place, now);
            }
            Some(shard) => {
                let message = Message::Adopt(socket, port, address_place);
                self.parts.placement.seats()[shard].inbox.send(message);
            }
            None => {
                self.parts.metrics.connections_refused(port.name()).inc();
            }
        }
    }

    fn adopt(&mut self, socket: OwnedFd, port: Port, place: AddressPlace, now: Now) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.generation = self.generation.wrapping_add(1);
        let framing = (self.parts.framing, self.parts.record_size_max);
        let connection =
            Connection::new((socket, place), port, self.generation, framing, now.monotonic_us);
        self.parts.metrics.connections(port.name()).inc();
        self.parts.metrics.connected_clients(port.name()).inc();
        self.driver.receive(connection.descriptor(), key_of(index, self.generation));
        self.connections[index] = Some(connection);
    }

    fn on_received(&mut self, key: u64, outcome: Receive, more: bool, now: Now) {
        let deferred = match outcome {
            Receive::Data(received) => {
                if !more {
                    self.unarmed.push(key);
                }
                Deferred::Data(received)
            }
            Receive::Stopped => {
                self.unarmed.push(key);
                return;
            }
            Receive::End => Deferred::End,
            Receive::Failed(_) => Deferred::Failed,
        };
        self.take_in_turn(key, deferred, now);
    }

    /// Takes what a connection has, now or behind what waits already.
    fn take_in_turn(&mut self, key: u64, deferred: Deferred, now: Now) {
        if self.deferred.is_empty() && self.may_read() {
            self.take(key, deferred, now);
        } else {
            self.deferred.push_back((key, deferred));
        }
    }

    /// Whether the log has room; the gate counts for new data, but never while shutting down.
    fn may_read(&self) -> bool {
        self.parts.log.can_accept() && (self.shutting_down || !self.parts.gate.is_closed())
    }

    fn take_deferred(&mut self, now: Now) {
        while self.may_read() {
            if let Some((key, deferred)) = self.deferred.pop_front() {
                self.take(key, deferred, now);
            } else if let Some(append) = self.appends.pop_front() {
                self.append(append, now);
            } else {
                break;
            }
            if !self.parts.log.can_accept() {
                self.carry_effects(now);
            }
        }
        let stopped = !self.may_read();
        if stopped && !self.stopped {
            self.tally.pauses += 1;
        }
        self.stopped = stopped;
        self.tally.deferred = self.deferred.len() + self.appends.len();
        if self.deferred.is_empty() && !self.shutting_down {
            for key in std::mem::take(&mut self.unarmed) {
                self.arm(key, now);
            }
        }
    }

    /// Has the ring tell what comes next on a connection. Nothing of it may wait to be taken.
    fn arm(&mut self, key: u64, now: Now) {
        let (index, generation) = split_key(key);
        let slot = self.connections.get_mut(index).and_then(Option::as_mut);
        let Some(connection) = slot.filter(|c| c.generation() == generation) else { return };
        if !connection.is_open() {
            return;
        }
        if connection.is_direct(&Intake::of(&mut self.parts, &mut self.tally, now)) {
            self.driver.poll(connection.descriptor(), key);
        } else {
            self.driver.receive(connection.descriptor(), key);
        }
    }

    fn take(&mut self, key: u64, deferred: Deferred, now: Now) {
        let (index, generation) = split_key(key);
        let slot = self.connections.get_mut(index).and_then(Option::as_mut);
        let Some(connection) = slot.filter(|c| c.generation() == generation) else {
            if let Deferred::Data(received) = deferred {
                self.driver.recycle(received);
            }
            return;
        };
        let partial_before = connection.partial_len();
        let mut intake = Intake::of(&mut self.parts, &mut self.tally, now);
        match deferred {
            Deferred::Data(received) => {
                let bytes = self.driver.received(&received);
                let is_full = bytes.len() == BUFFER_BYTES;
                intake.tally.taken_bytes += bytes.len() as u64;
                connection.on_bytes(bytes, &mut intake);
                let is_bulk = connection.note_buffer(is_full, &intake);
                self.driver.recycle(received);
                if is_bulk {
                    self.driver.stop_receiving(key);
                }
            }
            Deferred::Readable => match connection.receive(&mut intake) {
                Brought::Bytes(bytes) => {
                    intake.tally.taken_bytes += bytes as u64;
                    intake.tally.direct_bytes += bytes as u64;
                    self.unarmed.push(key);
                }
                Brought::Nothing => self.unarmed.push(key),
                Brought::End => connection.on_end(&mut intake),
                Brought::Failed => connection.on_reset(&mut intake),
            },
            Deferred::End => connection.on_end(&mut intake),
            Deferred::Failed => connection.on_reset(&mut intake),
        }
        let partial_after = connection.partial_len();
        if connection.is_owed() {
            self.owed.push(index);
        }
        self.tally.partial_bytes = self.tally.partial_bytes + partial_after - partial_before;
        if self.tally.partial_bytes > self.parts.partial_bytes_max {
            self.cut_largest_partial(now);
        }
    }

    fn on_message(&mut self, message: Message, now: Now) {
        match message {
            Message::Adopt(socket, _, place) if self.shutting_down => {
                drop((socket, place));
                self.parts.placement.leave(self.parts.index);
            }
            Message::Adopt(socket, port, place) => self.adopt(socket, port, place, now),
            Message::Durable(end, reply) => {
                self.parts.log.want_durable();
                self.waiters.push((end, reply));
            }
            // Its sender learns it from the reply that never comes.
            Message::Append(append) if self.draining => drop(append),
            Message::Append(append) => {
                if self.appends.is_empty() && self.deferred.is_empty() && self.may_read() {
                    self.append(append, now);
                } else {
                    append.line_up(&mut self.appends);
                }
            }
            // The query may have gone meanwhile.
            Message::Snapshot(reply) => {
                self.fetching.asked(now.monotonic_us);
                let _ = reply.send(self.parts.log.memory());
            }
            Message::Segment(segment, file) => {
                self.segments.push((Arc::clone(&segment), Arc::new(file)));
                self.parts.log.on_segment(segment);
            }
            Message::LostSegment(id) => self.parts.log.lose_segment(id),
            Message::LostTail => self.parts.log.lose_tail(),
            Message::Drain => {
                self.draining = true;
                self.shut_down();
                self.refuse_everything();
            }
            Message::ShutDown if self.draining => self.draining = false,
            Message::ShutDown => self.shut_down(),
        }
    }

    fn append(&mut self, append: Append, now: Now) {
        if append.reply.is_closed() {
            return;
        }
        let mut intake = Intake::of(&mut self.parts, &mut self.tally, now);
        let topic = append.topic.clone().map(TopicChoice::Static);
        let stamped = intake.append(&append.lines, topic.as_ref());
        if append.is_awaited {
            intake.note_awaited(&stamped);
        }
        self.tally.taken_bytes += append.lines.len() as u64;
        // The client may have gone meanwhile; its records stay.
        let _ = append.reply.send(stamped);
    }

    /// The time that work kept the loop from waiting is the delay that others see.
    fn count_turn(&mut self, start: Now) {
        let metrics = &self.parts.metrics;
        let spent_us = self.parts.clock.now().monotonic_us - start.monotonic_us;
        metrics.shard_loop_lag[self.parts.index].observe(spent_us as f64 / 1e6);
        metrics.shard_turns[self.parts.index].inc();
        self.tally.memory_bytes = self.parts.log.unpublished_text_bytes();
        let seat = &self.parts.placement.seats()[self.parts.index];
        seat.newest_ms.store(self.tally.newest_ms, Ordering::Release);
        seat.stamped_ms.store(self.parts.log.stamped_ms(), Ordering::Release);
        seat.set_unsynced(self.tally.promises.not_on_disk(&self.parts.log));
        let oldest_ms = self.parts.log.oldest_unpublished_ms().unwrap_or(u64::MAX);
        seat.oldest_ms.store(oldest_ms, Ordering::Release);
        self.tally.publish(metrics);
    }

    fn acknowledge(&mut self) {
        let (durable_end, is_withheld) =
            (self.parts.log.durable_end(), self.parts.gate.is_withheld());
        let durable_end = self.tally.promises.make(durable_end, is_withheld);
        for (_, reply) in self.waiters.extract_if(.., |(end, _)| *end <= durable_end) {
            // The client may have gone meanwhile.
            let _ = reply.send(());
        }
        self.owed.sort_unstable();
        self.owed.dedup();
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|&index| {
            let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
                return false;
            };
            connection.acknowledge(durable_end);
            if connection.is_finished() {
                self.close(index);
                return false;
            }
            connection.is_owed()
        });
        self.owed = owed;
    }

    /// Lets a finished connection go. One that is refused still has its receive under way, which
    /// holds the socket: shutting it down ends both.
    fn close(&mut self, index: usize) {
        if let Some(connection) = self.connections[index].take() {
            // It may have gone by itself.
            let _ = rustix::net::shutdown(connection.socket(), rustix::net::Shutdown::Both);
            self.parts.metrics.connected_clients(connection.port().name()).dec();
            self.parts.placement.leave(self.parts.index);
            self.free.push(index);
        }
    }

    /// Unfinished lines of clients that were not promised anything become records; everything
    /// taken so far is written and synced. What clients have sent but we have not read is theirs.
    fn shut_down(&mut self) {
        self.shutting_down = true;
        let now = self.parts.clock.now();
        self.take_deferred(now);
        self.driver.stop_accepting(&[LISTENER_FAST, LISTENER_DURABLE]);
        for connection in self.connections.iter_mut().flatten() {
            connection.on_shutdown(&mut Intake::of(&mut self.parts, &mut self.tally, now));
        }
        self.owed =
            (0..self.connections.len()).filter(|&i| self.connections[i].is_some()).collect();
        self.parts.log.want_durable();
        self.parts.log.shut_down();
    }

    /// Connections are refused from now on, not left to wait for a node that takes nothing more.
    fn refuse_everything(&mut self) {
        self.appends.clear();
        for listener in [&self.parts.fast, &self.parts.durable] {
            // A listener that cannot be shut stays silent, which is worse and no more than that.
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
    }
}

/// Where a connection comes from.
fn peer_of(socket: &OwnedFd) -> Option<IpAddr> {
    let address = rustix::net::getpeername(socket).ok()??;
    SocketAddr::try_from(address).ok().map(|address| address.ip())
}

/// Connection slot and generation in the 56 bits that travel with a receive.
const fn key_of(index: usize, generation: u32) -> u64 {
    ((index as u64) << 32) | generation as u64
}

const fn split_key(key: u64) -> (usize, u32) {
    ((key >> 32) as usize, key as u32)
}
