//! What the machine wants done, and what it has to tell.

use std::fmt;
use std::net::SocketAddr;

use engine::identity::Identity;

use crate::member::{Member, ProcessId};
use crate::refusal::Refusal;

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Its bytes.
        datagram: Vec<u8>,
    },
    /// Look a seed up and say what was found: [`crate::Gossip::resolved`].
    Resolve {
        /// Which seed, by its place.
        seed: usize,
        /// Its name as it was given.
        name: String,
    },
    /// What [`crate::Gossip::saved`] says has changed and is to be kept.
    Save,
    /// Tell people.
    Tell(Event),
    /// This node must not go on: end it.
    Stop(Stop),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This node is in: alone, or with the others.
    In {
        /// Whether it met nobody.
        is_alone: bool,
    },
    /// A member is up.
    Up(Member),
    /// A member is down.
    Down(Member),
    /// This node was held to be down, and came back.
    CameBack,
    /// Somebody is not let in.
    Refused(Refusal),
    /// Another process uses the id of this node; which of them goes on is being found out.
    Rival {
        /// Where it says to be.
        address: SocketAddr,
        /// What both claim.
        identity: Identity,
    },
    /// Others know a later boot of a directory of this node than this one is.
    BootWentBack {
        /// What this node has.
        ours: Identity,
        /// The boot that others know.
        known: u64,
    },
    /// Two members say to be at one address.
    SameAddress {
        /// The one that is known there.
        known: Member,
        /// The other one.
        other: Member,
    },
    /// An identity was forgotten.
    Forgotten(Identity),
    /// The clock of this node is off by so much, milliseconds: those of the others are ahead of it.
    ClockOff(i64),
    /// It is right again.
    ClockRight,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In { is_alone: true } => f.write_str("this node is the first of its cluster"),
            Self::In { is_alone: false } => f.write_str("this node has joined the cluster"),
            Self::Up(member) => write!(f, "{} ({}) is up", member.address, member.id()),
            Self::Down(member) => write!(f, "{} ({}) is down", member.address, member.id()),
            Self::CameBack => f.write_str("the cluster held this node to be down; it is back"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Rival { address, identity } => write!(
                f,
                "{address} says to be {identity} as well: a data directory was copied; the node that \
                 has lived longer goes on, the other one ends"
            ),
            Self::BootWentBack { ours, known } => write!(
                f,
                "the cluster knows this node as {} {} with boot {known}, its directory says boot {}: was \
                 it restored from a copy?",
                ours.side, ours.id, ours.boot
            ),
            Self::SameAddress { known, other } => write!(
                f,
                "{} ({}) and {} ({}) say to be at one address: give each its own \
                 --cluster.advertise-addr",
                known.id(),
                known.address,
                other.id(),
                other.address
            ),
            Self::Forgotten(identity) => {
                write!(f, "{} {} is forgotten", identity.side, identity.id)
            }
            Self::ClockOff(by_ms) => {
                let direction = if *by_ms > 0 { "behind" } else { "ahead of" };
                let by_ms = by_ms.unsigned_abs();
                write!(f, "this node's clock is {by_ms} ms {direction} those of the other nodes")
            }
            Self::ClockRight => f.write_str("this node's clock agrees with the others again"),
        }
    }
}

/// Why a node must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Another process lives with the id of one of its directories.
    Copied {
        /// What both claim.
        identity: Identity,
        /// Where this node is.
        ours: SocketAddr,
        /// Where the other one is.
        theirs: SocketAddr,
        /// Its process.
        process: ProcessId,
    },
    /// The cluster has forgotten it.
    Forgotten {
        /// This node.
        ours: SocketAddr,
        /// Who said so.
        by: SocketAddr,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copied { identity, ours, theirs, .. } => write!(
                f,
                "the {} {} of this node ({ours}) lives at {theirs} already: the data directory was \
                 copied. Start with an empty directory, or remove IDENTITY from the copy to make it a \
                 node of its own",
                identity.side, identity.id
            ),
            Self::Forgotten { ours, by } => write!(
                f,
                "{by} says that this node ({ours}) was forgotten by the cluster; it comes back when it \
                 is started again"
            ),
        }
    }
}
