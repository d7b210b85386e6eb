//! SWIM's messages as bytes. Headers name processes by their numbers: whoever gets one was introduced to
//! its sender, so that the usual datagram is small. `docs/protocol-cluster.md` has the byte table.
//!
//! `foca` writes what goes out by [`Wire`]. What comes in is read here first, so that what may not be
//! believed never reaches it; the header is then handed to it in a form with whole members
//! ([`hand_over`]), which never leaves this process.

use std::fmt;

use bytes::{Buf, BufMut};
use foca::{Header, Member as Update, Message, State};

use crate::bytes_in::BytesIn;
use crate::facts::Said;
use crate::member::{Member, ProcessId};

const TURN_UNDEAD: u8 = 10;
/// Where the number of its kind stands behind what the sender says of itself.
const TAG_AT: usize = 18;

/// A message of SWIM, and what its sender says of itself.
#[derive(Debug)]
pub(crate) struct Swim {
    pub(crate) said: Said,
    pub(crate) header: Header<Member>,
    pub(crate) updates: Vec<Update<Member>>,
}

/// Why one is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It makes no sense.
    Garbage,
    /// It names a process that nobody introduced.
    Unknown,
    /// It was sent to what this node was before it came back.
    Stale,
}

/// Finds the member of a process, in the standing that a message names.
pub(crate) trait Lookup {
    /// `None`: nobody knows it.
    fn member(&self, process: ProcessId, standing: u64) -> Option<Member>;
}

impl<F: Fn(ProcessId, u64) -> Option<Member>> Lookup for F {
    fn member(&self, process: ProcessId, standing: u64) -> Option<Member> {
        self(process, standing)
    }
}

/// Reads what `from` sent to `own`.
pub(crate) fn read(
    inside: &[u8],
    own: &Member,
    from: ProcessId,
    lookup: &dyn Lookup,
) -> Result<Swim, Unread> {
    let mut bytes = BytesIn(inside);
    let said = Said::read(&mut bytes).ok_or(Unread::Garbage)?;
    let head =
        |bytes: &mut BytesIn<'_>| Some((bytes.u64()?, bytes.u16()?, bytes.u64()?, bytes.u8()?));
    let (standing, src_incarnation, to, tag) = head(&mut bytes).ok_or(Unread::Garbage)?;
    let message = message(tag, &mut bytes, lookup)?;
    let src = lookup.member(from, standing).ok_or(Unread::Unknown)?;
    // Who wants to bring us back may not know yet that we are.
    if to != own.standing && message != Message::Announce {
        return Err(Unread::Stale);
    }
    let updates = updates(&mut bytes, &message).ok_or(Unread::Garbage)?;
    let header = Header { src, src_incarnation, dst: own.clone(), message };
    Ok(Swim { said, header, updates })
}

/// Whether what [`Wire`] wrote says "you are held to be down".
pub(crate) fn is_turn_undead(written: &[u8]) -> bool {
    written.get(TAG_AT) == Some(&TURN_UNDEAD)
}

/// Every kind of message by its number.
fn message(
    tag: u8,
    bytes: &mut BytesIn<'_>,
    lookup: &dyn Lookup,
) -> Result<Message<Member>, Unread> {
    if let Some(message) = match tag {
        7 => Some(Message::Announce),
        8 => Some(Message::Feed),
        9 => Some(Message::Gossip),
        TURN_UNDEAD => Some(Message::TurnUndead),
        _ => None,
    } {
        return Ok(message);
    }
    let probe_number = bytes.u8().ok_or(Unread::Garbage)?;
    match tag {
        1 => return Ok(Message::Ping(probe_number)),
        2 => return Ok(Message::Ack(probe_number)),
        3..=6 => {}
        _ => return Err(Unread::Garbage),
    }
    let named = |bytes: &mut BytesIn<'_>| Some((ProcessId(bytes.u64()?), bytes.u64()?));
    let (process, standing) = named(bytes).ok_or(Unread::Garbage)?;
    let other = lookup.member(process, standing).ok_or(Unread::Unknown)?;
    Ok(match tag {
        3 => Message::PingReq { target: other, probe_number },
        4 => Message::IndirectPing { origin: other, probe_number },
        5 => Message::IndirectAck { target: other, probe_number },
        _ => Message::ForwardedAck { origin: other, probe_number },
    })
}

fn updates(bytes: &mut BytesIn<'_>, message: &Message<Member>) -> Option<Vec<Update<Member>>> {
    let has_none = matches!(message, Message::Announce | Message::TurnUndead);
    if has_none || bytes.is_empty() {
        return bytes.is_empty().then(Vec::new);
    }
    let count = u16::from_be_bytes(bytes.array()?);
    // Each takes its bytes, of which there are few: the number alone makes nothing grow.
    let updates = (0..count).map(|_| read_update(bytes)).collect::<Option<Vec<_>>>()?;
    bytes.is_empty().then_some(updates)
}

fn read_update(bytes: &mut BytesIn<'_>) -> Option<Update<Member>> {
    let state = match bytes.u8()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return None,
    };
    let incarnation = bytes.u16()?;
    Some(Update::new(Member::read(bytes)?, incarnation, state))
}

fn put_update(update: &Update<Member>, out: &mut Vec<u8>) {
    out.push(match update.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
    out.extend(update.incarnation().to_le_bytes());
    update.id().put(out);
}

/// What a message says beside its kind.
fn parts(message: &Message<Member>) -> Option<(u8, u8, Option<&Member>)> {
    Some(match message {
        Message::Ping(number) => (1, *number, None),
        Message::Ack(number) => (2, *number, None),
        Message::PingReq { target, probe_number } => (3, *probe_number, Some(target)),
        Message::IndirectPing { origin, probe_number } => (4, *probe_number, Some(origin)),
        Message::IndirectAck { target, probe_number } => (5, *probe_number, Some(target)),
        Message::ForwardedAck { origin, probe_number } => (6, *probe_number, Some(origin)),
        Message::Announce => (7, 0, None),
        Message::Feed => (8, 0, None),
        Message::Gossip => (9, 0, None),
        Message::TurnUndead => (TURN_UNDEAD, 0, None),
        // Nothing is ever broadcast so.
        Message::Broadcast => return None,
    })
}

fn put_message(
    message: &Message<Member>,
    out: &mut Vec<u8>,
    put_member: impl Fn(&Member, &mut Vec<u8>),
) -> Result<(), Unspeakable> {
    let (tag, number, other) = parts(message).ok_or(Unspeakable)?;
    out.push(tag);
    if tag <= 6 {
        out.push(number);
    }
    if let Some(other) = other {
        put_member(other, out);
    }
    Ok(())
}

/// The header as `foca` is handed it: with whole members, and without updates.
pub(crate) fn hand_over(header: &Header<Member>) -> Result<Vec<u8>, Unspeakable> {
    let mut out = Vec::new();
    header.src.put(&mut out);
    out.extend(header.src_incarnation.to_le_bytes());
    header.dst.put(&mut out);
    put_message(&header.message, &mut out, Member::put)?;
    Ok(out)
}

fn take_over(bytes: &mut BytesIn<'_>) -> Option<Header<Member>> {
    let src = Member::read(bytes)?;
    let src_incarnation = bytes.u16()?;
    let dst = Member::read(bytes)?;
    let tag = bytes.u8()?;
    let probe_number = if tag <= 6 { bytes.u8()? } else { 0 };
    let mut other = || Member::read(bytes);
    let message = match tag {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq { target: other()?, probe_number },
        4 => Message::IndirectPing { origin: other()?, probe_number },
        5 => Message::IndirectAck { target: other()?, probe_number },
        6 => Message::ForwardedAck { origin: other()?, probe_number },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        TURN_UNDEAD => Message::TurnUndead,
        _ => return None,
    };
    Some(Header { src, src_incarnation, dst, message })
}

/// What cannot be said, or does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such message, or no room for it")
    }
}

impl std::error::Error for Unspeakable {}

/// How `foca` writes.
#[derive(Debug)]
pub(crate) struct Wire;

fn put_whole(bytes: &[u8], mut out: impl BufMut) -> Result<(), Unspeakable> {
    if bytes.len() > out.remaining_mut() {
        return Err(Unspeakable);
    }
    out.put_slice(bytes);
    Ok(())
}

fn take_whole<T>(
    mut buf: impl Buf,
    read: impl Fn(&mut BytesIn<'_>) -> Option<T>,
) -> Result<T, Unspeakable> {
    let mut bytes = BytesIn(buf.chunk());
    let before = bytes.0.len();
    let value = read(&mut bytes).ok_or(Unspeakable)?;
    let used = before - bytes.0.len();
    buf.advance(used);
    Ok(value)
}

/// A message with one update, as `foca` would write it.
pub(crate) fn put_with_update(
    header: &Header<Member>,
    update: &Update<Member>,
    out: &mut Vec<u8>,
) -> Result<(), Unspeakable> {
    foca::Codec::encode_header(&mut Wire, header, &mut *out)?;
    out.extend(1u16.to_be_bytes());
    put_update(update, out);
    Ok(())
}

impl foca::Codec<Member> for Wire {
    type Error = Unspeakable;

    fn encode_header(
        &mut self,
        header: &Header<Member>,
        out: impl BufMut,
    ) -> Result<(), Unspeakable> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(header.src.standing.to_le_bytes());
        bytes.extend(header.src_incarnation.to_le_bytes());
        bytes.extend(header.dst.standing.to_le_bytes());
        put_message(&header.message, &mut bytes, |other, bytes| {
            bytes.extend(other.process.0.to_le_bytes());
            bytes.extend(other.standing.to_le_bytes());
        })?;
        put_whole(&bytes, out)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Member>, Unspeakable> {
        take_whole(buf, take_over)
    }

    fn encode_member(
        &mut self,
        update: &Update<Member>,
        out: impl BufMut,
    ) -> Result<(), Unspeakable> {
        let mut bytes = Vec::with_capacity(128);
        put_update(update, &mut bytes);
        put_whole(&bytes, out)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Update<Member>, Unspeakable> {
        take_whole(buf, read_update)
    }
}
