//! One sender: its unfinished line, whether it asked for acknowledgements, and what it is owed.
//!
//! Invariants: a client that did not say hello is never sent a byte and loses none; one whose hello
//! cannot be obeyed is told why, and nothing of it is taken; any other one gets cumulative counts,
//! each only when the port's promise holds for all records counted. No event is lost by waiting: what is owed is a pure function of the log's durable end.

mod bulk;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use engine::ingest::framing::{Framer, Framing};
use engine::ingest::hello::{self, Opening, Promise};
use engine::ingest::stranger::{self, Look};
use engine::ingest::topics::TopicChoice;
use engine::limits::{COUNTING_BYTES, STRANGER_LINE_BYTES_MAX};

use super::intake::Intake;
use crate::access::{Access, Authority, Reason};
use crate::budget::AddressPlace;
use crate::driver::Descriptor;
use crate::limits::HELLO_WITHIN_US;
pub(super) use bulk::Brought;
use bulk::Pace;

/// Which promise a port makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The bytes are in this node's hands.
    Fast,
    /// The records are on this node's disk.
    Durable,
}

impl Port {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        self.promise().name()
    }

    const fn promise(self) -> Promise {
        match self {
            Self::Fast => Promise::Fast,
            Self::Durable => Promise::Durable,
        }
    }
}

/// How far the reading side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    /// Nothing more will come; what is owed is still sent.
    Ended,
    /// The connection failed: nothing can be sent.
    Failed,
    /// What the client asked for cannot be obeyed: it was told so and is hung up on.
    Refused,
}

/// A connection of a shard.
pub(super) struct Connection {
    socket: Descriptor,
    /// Among the connections of its address; given back with the connection.
    _place: AddressPlace,
    port: Port,
    generation: u32,
    /// First bytes while they may become a hello; `None` once that is decided.
    opening: Option<Vec<u8>>,
    /// When it came, microseconds of the monotonic clock.
    opened_us: u64,
    /// What its client was let in with, where not everybody may write.
    access: Option<Access>,
    /// Whether it is known if this is somebody who does not belong here.
    is_looked_at: bool,
    /// Whether the client is to be told.
    acknowledges: bool,
    /// It could not be told: it has reset the connection, and that was told to the sending side.
    is_reset: bool,
    topic: Option<TopicChoice>,
    framer: Framer,
    /// When bytes came last, microseconds of the monotonic clock.
    taken_us: u64,
    pace: Pace,
    side: Side,
    /// Whether bytes are counted in place of records.
    counts_bytes: bool,
    /// Bytes behind the hello.
    taken_bytes: u64,
    /// Records of this connection so far, or the bytes that became records.
    records: u64,
    /// Log positions and the connection's count up to them, not promised yet.
    pending: VecDeque<(u64, u64)>,
    /// The count for which the promise holds.
    promised: u64,
    /// The reply under way and how much of it is sent.
    reply: ([u8; 8], usize),
    /// The count of the last whole reply.
    replied: u64,
}

impl Connection {
    pub(super) fn new(
        (socket, place): (OwnedFd, AddressPlace),
        port: Port,
        generation: u32,
        (framing, record_size_max): (Framing, usize),
        opened_us: u64,
    ) -> Self {
        Self {
            socket: Descriptor::new(socket),
            _place: place,
            port,
            generation,
            opening: Some(Vec::new()),
            opened_us,
            access: None,
            is_looked_at: false,
            acknowledges: false,
            is_reset: false,
            topic: None,
            framer: Framer::new(framing, record_size_max),
            taken_us: 0,
            pace: Pace::default(),
            side: Side::Open,
            counts_bytes: false,
            taken_bytes: 0,
            records: 0,
            pending: VecDeque::new(),
            promised: 0,
            reply: ([0; 8], 8),
            replied: 0,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) const fn descriptor(&self) -> &Descriptor {
        &self.socket
    }

    pub(super) const fn port(&self) -> Port {
        self.port
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn partial_len(&self) -> usize {
        self.framer.partial_len()
    }

    /// Takes received bytes; their whole lines go to the log.
    pub(super) fn on_bytes(&mut self, bytes: &[u8], intake: &mut Intake<'_>) {
        if self.side != Side::Open {
            return;
        }
        let Some(mut held) = self.opening.take() else {
            return self.take_lines(bytes, intake);
        };
        if held.is_empty() && bytes.first() != Some(&0) {
            return self.take_plain(bytes, intake);
        }
        held.extend_from_slice(bytes);
        match hello::read(&held) {
            Opening::Undecided => self.opening = Some(held),
            Opening::Plain => self.take_plain(&held, intake),
            Opening::Hello { hello, used } => {
                if let Some(reason) = hello.refusal_by(self.port.promise()) {
                    return self.refuse(reason, intake);
                }
                if !intake.is_open() {
                    let asked = (hello.token.as_ref(), hello.topic.as_ref());
                    match intake.admit(asked, &self.socket) {
                        Ok(access) => self.access = Some(access),
                        Err(reason) => return self.hang_up(Some(words_for(reason))),
                    }
                }
                (self.acknowledges, self.is_looked_at) = (true, true);
                self.framer.expect_lines();
                if hello.counts_bytes {
                    self.counts_bytes = true;
                    self.reply = (COUNTING_BYTES.to_le_bytes(), 0);
                }
                self.topic = hello.topic.map(TopicChoice::Static);
                self.take_lines(&held[used..], intake);
            }
            Opening::Refused(reason) => self.refuse(reason, intake),
        }
    }

    /// Tells client and operator; nothing of the connection is taken.
    fn refuse(&mut self, reason: &'static str, intake: &Intake<'_>) {
        intake.tell_refused(reason);
        self.hang_up(Some(reason));
    }

    /// Takes nothing of the connection any more; a client that has said hello is told why.
    fn hang_up(&mut self, reason: Option<&'static str>) {
        self.side = Side::Refused;
        let Some(reason) = reason else { return };
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        // Nothing was sent before, so there is room; a client that is gone needs no answer.
        let _ = rustix::net::send(&self.socket, &hello::refusal(reason), flags);
    }

    /// The first lines of a client that has not said who it is.
    fn take_plain(&mut self, bytes: &[u8], intake: &mut Intake<'_>) {
        if !intake.is_open() && !bytes.is_empty() {
            match intake.admit((None, None), &self.socket) {
                Ok(access) => self.access = Some(access),
                Err(_) => return self.hang_up(None),
            }
        }
        self.take_lines(bytes, intake);
    }

    /// Hangs up on a client that has not said who it is for as long as that may take, where nobody may write
    /// without a token; says whether it did.
    pub(super) fn end_nameless(&mut self, intake: &mut Intake<'_>) -> bool {
        let waits_us = intake.now_us().saturating_sub(self.opened_us);
        let is_nameless = self.side == Side::Open && self.opening.is_some();
        if !is_nameless || waits_us < HELLO_WITHIN_US {
            return false;
        }
        let is_refused = intake.admit((None, None), &self.socket).is_err();
        if is_refused {
            self.hang_up(None);
        }
        is_refused
    }

    /// What its client was let in with does so no longer.
    pub(super) fn is_withdrawn(&self, authority: &Authority) -> bool {
        self.side == Side::Open
            && self.access.as_ref().is_some_and(|access| !authority.holds(access))
    }

    /// Tells the operator of a client that speaks something else than lines; nobody is told twice.
    fn look(&mut self, bytes: &[u8], intake: &mut Intake<'_>) {
        let look = match self.framer.partial() {
            [] => stranger::look(bytes),
            held => {
                let wanted = STRANGER_LINE_BYTES_MAX.saturating_sub(held.len()).min(bytes.len());
                stranger::look(&[held, &bytes[..wanted]].concat())
            }
        };
        self.is_looked_at = look != Look::Undecided;
        if let Look::Is(stranger) = look {
            intake.tell_stranger(stranger, self.port, &self.socket);
        }
    }

    fn take_lines(&mut self, bytes: &[u8], intake: &mut Intake<'_>) {
        if !self.is_looked_at {
            self.look(bytes, intake);
        }
        let cuts_before = self.framer.cuts();
        let pending_before = self.pending.len();
        self.taken_bytes += bytes.len() as u64;
        self.taken_us = intake.now_us();
        let is_awaited = self.is_awaited();
        let Self { framer, topic, records, pending, .. } = self;
        framer.feed(bytes, &mut append_to(intake, (topic.as_ref(), is_awaited), records, pending));
        intake.tally.cut_records += self.framer.cuts() - cuts_before;
        if self.framer.take_lost_count() {
            intake.tell_lost_count(self.port, &self.socket);
        }
        self.count_bytes(pending_before);
        self.after_append(intake);
    }

    /// Whoever counts bytes is owed all but the unfinished line's, however lines were cut.
    fn count_bytes(&mut self, pending_before: usize) {
        if !self.counts_bytes {
            return;
        }
        self.records = self.taken_bytes - self.framer.partial_len() as u64;
        match self.pending.back().copied() {
            // What was added counts as a whole once the last of it is promised.
            Some((end, _)) if self.pending.len() > pending_before => {
                self.pending.truncate(pending_before);
                self.pending.push_back((end, self.records));
            }
            // An LF right behind an early cut is no record of its own.
            Some((end, _)) => {
                self.pending.pop_back();
                self.pending.push_back((end, self.records));
            }
            None => self.promised = self.records,
        }
    }

    /// Whether its client sends again what it was not told to be durable.
    fn is_awaited(&self) -> bool {
        self.acknowledges && matches!(self.port, Port::Durable)
    }

    fn after_append(&mut self, intake: &mut Intake<'_>) {
        match self.port {
            Port::Fast => {
                self.pending.clear();
                self.promised = self.records;
            }
            Port::Durable if self.pending.is_empty() => {}
            Port::Durable => {
                intake.log.want_durable();
                if !self.acknowledges {
                    // Nobody waits for these but the end of the connection, for the last one.
                    self.pending.drain(..self.pending.len() - 1);
                }
            }
        }
    }

    /// The peer has finished sending: a last line without LF is a record like any other.
    pub(super) fn on_end(&mut self, intake: &mut Intake<'_>) {
        if self.is_reset {
            return self.on_reset(intake);
        }
        if self.side == Side::Open {
            self.side = Side::Ended;
            self.flush_partial(intake);
        }
    }

    /// The connection failed inside a line: the line is kept, unless its sender knows that it was
    /// not acknowledged and will send it again.
    pub(super) fn on_reset(&mut self, intake: &mut Intake<'_>) {
        if self.side != Side::Open {
            return;
        }
        self.side = Side::Failed;
        if self.acknowledges {
            intake.tally.partials_discarded += u64::from(self.framer.discard() > 0);
        } else {
            intake.tally.partials_kept += u64::from(self.flush_partial(intake));
        }
    }

    /// The node stops: an unfinished line ends as with a reset, but what was taken is still
    /// acknowledged, so that its sender need not send it again.
    pub(super) fn on_shutdown(&mut self, intake: &mut Intake<'_>) {
        self.on_reset(intake);
        if self.side == Side::Failed {
            self.side = Side::Ended;
        }
    }

    /// Makes a record of the unfinished line although its end is not known yet. The client is not
    /// told of it: it could not tell such a record from its next line, and would take that one for
    /// safe.
    pub(super) fn cut_partial(&mut self, intake: &mut Intake<'_>) {
        let is_awaited = self.is_awaited();
        let Self { framer, topic, records, pending, .. } = self;
        let (mut uncounted, pending_before) = (*records, pending.len());
        framer.cut_partial(&mut append_to(
            intake,
            (topic.as_ref(), is_awaited),
            &mut uncounted,
            pending,
        ));
        if let Some((_, counted)) = pending.back_mut() {
            *counted = *records;
        }
        self.count_bytes(pending_before);
        self.after_append(intake);
    }

    /// Since when an unfinished line waits for its end, microseconds of the monotonic clock; none of a
    /// client that is acknowledged: it could not tell where its line was cut.
    pub(super) fn unfinished_since_us(&self) -> Option<u64> {
        let is_plain = self.side == Side::Open && self.opening.is_none() && !self.acknowledges;
        (is_plain && self.framer.partial_len() > 0).then_some(self.taken_us)
    }

    /// Whether there was an unfinished line.
    fn flush_partial(&mut self, intake: &mut Intake<'_>) -> bool {
        if let Some(held) = self.opening.take() {
            if hello::may_hold_token(&held) {
                // Tokens become no records.
                intake.tally.partials_discarded += 1;
                return false;
            }
            // An unfinished hello is text like any other.
            self.take_plain(&held, intake);
        }
        let pending_before = self.pending.len();
        let is_awaited = self.is_awaited();
        let Self { framer, topic, records, pending, .. } = self;
        let any =
            framer.finish(&mut append_to(intake, (topic.as_ref(), is_awaited), records, pending));
        self.count_bytes(pending_before);
        self.after_append(intake);
        any
    }

    /// Notes what is durable by now and sends what the client may be told; never blocks.
    pub(super) fn acknowledge(&mut self, durable_end: u64) {
        while let Some(&(end, records)) = self.pending.front()
            && end <= durable_end
        {
            self.promised = records;
            self.pending.pop_front();
        }
        let is_told = !self.acknowledges || self.is_reset;
        if is_told || matches!(self.side, Side::Failed | Side::Refused) {
            return;
        }
        loop {
            if self.reply.1 == 8 {
                if self.promised == self.replied {
                    return;
                }
                self.replied = self.promised;
                self.reply = (self.promised.to_le_bytes(), 0);
            }
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &self.reply.0[self.reply.1..], flags) {
                Ok(sent) => self.reply.1 += sent,
                Err(e) if io::Error::from(e).kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // The receive side will see an end, or nothing.
                    self.is_reset = true;
                    return;
                }
            }
        }
    }

    /// Whether more is taken of it.
    pub(super) fn is_open(&self) -> bool {
        self.side == Side::Open
    }

    /// Whether the client knows, or can no longer be told, what is promised.
    const fn is_told(&self) -> bool {
        let is_up_to_date = self.reply.1 == 8 && self.promised == self.replied;
        !self.acknowledges || self.is_reset || is_up_to_date
    }

    /// Whether something remains to be promised or sent, or the connection to be closed.
    pub(super) fn is_owed(&self) -> bool {
        self.side != Side::Open || !self.pending.is_empty() || !self.is_told()
    }

    /// Whether it can be closed: nothing more comes, and everything is promised and told.
    pub(super) fn is_finished(&self) -> bool {
        match self.side {
            Side::Open => false,
            Side::Ended => self.pending.is_empty() && self.is_told(),
            Side::Failed | Side::Refused => true,
        }
    }
}

/// Why a client that has said hello may not write.
const fn words_for(reason: Reason) -> &'static str {
    match reason {
        Reason::NoToken => "a token is asked for: say token=TOKEN (forward: --token-file)",
        Reason::WrongToken | Reason::Guessing => "nobody has this token",
        Reason::Right => "this token has not the right to write",
        Reason::Topic => "this token writes to certain topics only: name one of them",
        Reason::Rate => "too much comes",
    }
}

/// Hands whole lines to the log and notes where their promise will hold.
fn append_to(
    intake: &mut Intake<'_>,
    (topic, is_awaited): (Option<&TopicChoice>, bool),
    records: &mut u64,
    pending: &mut VecDeque<(u64, u64)>,
) -> impl FnMut(&[u8]) {
    move |lines| {
        let stamped = intake.append(lines, topic);
        if is_awaited {
            intake.note_awaited(&stamped);
        }
        *records += stamped.records;
        pending.push_back((stamped.end, *records));
    }
}
