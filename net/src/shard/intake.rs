//! The way from a connection (or an HTTP body) into the log, counted.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use engine::ingest::hello::Secret;
use engine::ingest::log::{Now, ShardLog, Stamped};
use engine::ingest::stranger::Stranger;
use engine::ingest::topics::TopicChoice;
use engine::topic::Topic;

use super::ShardParts;
use super::connection::Port;
use super::tally::Tally;
use crate::access::{Access, Authority, Reason, Unknown};

/// What a connection needs in order to hand its lines over.
pub(super) struct Intake<'a> {
    pub(super) log: &'a mut ShardLog,
    pub(super) tally: &'a mut Tally,
    topics: &'a TopicChoice,
    authority: &'a Authority,
    now: Now,
}

impl<'a> Intake<'a> {
    pub(super) fn of(parts: &'a mut ShardParts, tally: &'a mut Tally, now: Now) -> Self {
        let ShardParts { log, topics, authority, .. } = parts;
        Self { log, tally, topics, authority, now }
    }

    /// Appends whole lines under `topic`, or under the node's own choice.
    pub(super) fn append(&mut self, lines: &[u8], topic: Option<&TopicChoice>) -> Stamped {
        let stamped = self.log.append(lines, topic.unwrap_or(self.topics), self.now);
        self.count(&stamped, lines.len());
        stamped
    }

    /// The sender of these waits until they are durable.
    pub(super) fn note_awaited(&mut self, stamped: &Stamped) {
        self.tally.promises.note_awaited(stamped);
    }

    /// The one topic of all lines of a connection, unless each line has its own.
    pub(super) fn topic_of_all<'b>(&self, topic: Option<&'b TopicChoice>) -> Option<&'b Topic>
    where
        'a: 'b,
    {
        match topic.unwrap_or(self.topics) {
            TopicChoice::Static(topic) => Some(topic),
            TopicChoice::FirstWord => None,
        }
    }

    /// Takes the first `len` bytes of the memory that the log lent last: whole lines.
    pub(super) fn take_lent(&mut self, len: usize, topic: &Topic) -> Stamped {
        let stamped = self.log.take_lent(len, topic, self.now);
        self.count(&stamped, len);
        stamped
    }

    /// Whether everybody may write.
    pub(super) const fn is_open(&self) -> bool {
        self.authority.is_none()
    }

    /// What a sender may do who brings this token and names this topic, if that lets him write; otherwise
    /// that is counted, and told once a minute.
    pub(super) fn admit(
        &mut self,
        (token, topic): (Option<&Secret>, Option<&Topic>),
        socket: &OwnedFd,
    ) -> Result<Access, Reason> {
        let admitted = self.authority.admit(token.map(Secret::as_bytes));
        let access = admitted.map_err(|unknown| match unknown {
            Unknown::NoToken => Reason::NoToken,
            Unknown::WrongToken => Reason::WrongToken,
        });
        let access = access.and_then(|access| {
            access.require_writing(topic).map_err(|beyond| beyond.reason)?;
            Ok(access)
        });
        access.inspect_err(|reason| {
            self.tally.denied[*reason as usize] += 1;
            let address = peer_of(socket).map(|address| address.ip());
            let now_ms = self.now.monotonic_us / 1_000;
            if let Some(line) = self.authority.refused(*reason, address, now_ms) {
                tracing::warn!("{line}");
            }
        })
    }

    /// The monotonic clock, microseconds.
    pub(super) const fn now_us(&self) -> u64 {
        self.now.monotonic_us
    }

    fn count(&mut self, stamped: &Stamped, text_bytes: usize) {
        self.tally.records += stamped.records;
        self.tally.text_bytes += text_bytes as u64;
        self.tally.newest_ms = stamped.last.ms();
        self.tally.invalid_topics += stamped.invalid_topics;
    }

    /// Tells the operator of a client whose hello cannot be obeyed.
    #[expect(clippy::unused_self, reason = "connections tell what they have to tell through it")]
    pub(super) fn tell_refused(&self, reason: &str) {
        tracing::warn!("a sender was hung up on: {reason}");
    }

    /// Tells the operator of a sender that does not count octets although it should.
    pub(super) fn tell_lost_count(&mut self, port: Port, socket: &OwnedFd) {
        self.tally.lost_counts += 1;
        tracing::warn!(
            address = %address_of(socket), port = port.name(),
            "a sender does not count octets (RFC 6587) as --ingest.framing says: what it sends from \
             there on is taken as lines"
        );
    }

    /// Tells the operator of a client that does not speak lines, but will be waiting for an answer.
    pub(super) fn tell_stranger(&mut self, stranger: Stranger, port: Port, socket: &OwnedFd) {
        let (address, port) = (address_of(socket), port.name());
        match stranger {
            Stranger::Http => {
                self.tally.http_strangers += 1;
                tracing::warn!(
                    %address, port,
                    "an HTTP request came to an ingest port, which keeps its lines as records and \
                     never answers; HTTP is spoken at --api"
                );
            }
            Stranger::Tls => {
                self.tally.tls_strangers += 1;
                tracing::warn!(
                    %address, port,
                    "a TLS handshake came to an ingest port, which keeps its bytes as records; this \
                     version speaks no TLS"
                );
            }
        }
    }
}

/// Who is at the other end.
fn address_of(socket: &OwnedFd) -> String {
    peer_of(socket).map_or_else(|| "?".to_owned(), |address| address.to_string())
}

fn peer_of(socket: &OwnedFd) -> Option<SocketAddr> {
    let address = rustix::net::getpeername(socket).ok().flatten();
    address.and_then(|address| SocketAddr::try_from(address).ok())
}
