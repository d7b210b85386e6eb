//! Why a node is not let in: one line that names both sides.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU8;

use crate::limits::MEMBERS_MAX;
use crate::member::Protocol;

/// Why two nodes are not members of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// They belong to different clusters.
    OtherCluster {
        /// The other node's.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// Their stores want different numbers of copies.
    OtherCopies {
        /// The other node's.
        theirs: NonZeroU8,
        /// This node's, or that of the stores it knows.
        ours: NonZeroU8,
    },
    /// No version of the protocol is spoken by both.
    OtherVersion {
        /// The other node's.
        theirs: Protocol,
        /// This node's.
        ours: Protocol,
    },
    /// The layout of its datagrams is of another version.
    OtherLayout(u8),
    /// The other node has a secret that is none of this node's.
    OtherSecret,
    /// The other node has no secret, this one has.
    NoSecret,
    /// The other node has a secret, this one has none.
    NoSecretHere,
    /// The other node was forgotten; only a later boot comes back.
    Forgotten,
    /// There are as many members as can be.
    Full,
    /// The other node refuses this one, for a reason that is seen only there.
    RefusedThere(Verdict),
}

/// A node that is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The other node.
    pub theirs: SocketAddr,
    /// This node.
    pub ours: SocketAddr,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { theirs: peer, ours: own, why } = self;
        match why {
            Why::OtherCluster { theirs, ours } => write!(
                f,
                "{peer} is of the cluster {theirs:?}, this node ({own}) of {ours:?}: they do not join; \
                 --cluster.name is the same on all nodes of a cluster"
            ),
            Why::OtherCopies { theirs, ours } => write!(
                f,
                "{peer} keeps {theirs} copies, this node ({own}) {ours}: they do not join; \
                 --store.segment-replication-factor is the same on all stores of a cluster"
            ),
            Why::OtherVersion { theirs, ours } => write!(
                f,
                "{peer} speaks version {theirs} of the cluster's protocol, this node ({own}) version \
                 {ours}: they do not join; upgrade one release at a time"
            ),
            Why::OtherLayout(theirs) => write!(
                f,
                "{peer} sends datagrams of layout {theirs}, this node ({own}) reads layout 1: they do \
                 not join; upgrade one release at a time"
            ),
            Why::OtherSecret => write!(
                f,
                "{peer} uses a secret that this node ({own}) does not have: they do not join; a line of \
                 --cluster.secret-file has to be the same on both"
            ),
            Why::NoSecret => write!(
                f,
                "{peer} has no secret, this node ({own}) has one: they do not join; give both the same \
                 --cluster.secret-file"
            ),
            Why::NoSecretHere => write!(
                f,
                "{peer} has a secret, this node ({own}) has none: they do not join; give both the same \
                 --cluster.secret-file"
            ),
            Why::Forgotten => write!(
                f,
                "{peer} was forgotten by the cluster of this node ({own}): it comes back when it is \
                 started again"
            ),
            Why::Full => write!(
                f,
                "{peer} is not let in by this node ({own}): {MEMBERS_MAX} members are known, those that \
                 are down included; forget some that will not return"
            ),
            Why::RefusedThere(verdict) => {
                write!(f, "{peer} does not let this node ({own}) in: {verdict}")
            }
        }
    }
}

/// What a node that was asked thinks of the one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may join.
    Welcome,
    /// The name of its cluster is another one.
    OtherCluster,
    /// It wants another number of copies.
    OtherCopies,
    /// It speaks no version that is spoken there.
    OtherVersion,
    /// It was forgotten.
    Forgotten,
    /// There are enough members.
    Full,
    /// Its datagrams cannot be read there for want of a secret, or of the right one.
    Secret,
}

impl Verdict {
    const ALL: [Self; 7] = [
        Self::Welcome,
        Self::OtherCluster,
        Self::OtherCopies,
        Self::OtherVersion,
        Self::Forgotten,
        Self::Full,
        Self::Secret,
    ];

    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub(crate) const fn of(why: &Why) -> Self {
        match why {
            Why::OtherCluster { .. } => Self::OtherCluster,
            Why::OtherCopies { .. } => Self::OtherCopies,
            Why::OtherVersion { .. } | Why::OtherLayout(_) => Self::OtherVersion,
            Why::OtherSecret | Why::NoSecret | Why::NoSecretHere => Self::Secret,
            Why::Forgotten => Self::Forgotten,
            Why::Full => Self::Full,
            Why::RefusedThere(verdict) => *verdict,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Welcome => "it is welcome",
            Self::OtherCluster => "the --cluster.name is another one there",
            Self::OtherCopies => {
                "the --store.segment-replication-factor of the stores is another one there"
            }
            Self::OtherVersion => "no version of the cluster's protocol is spoken by both",
            Self::Forgotten => "it was forgotten by the cluster; start it again to come back",
            Self::Full => {
                "as many members as can be are known there; forget some that will not return"
            }
            Self::Secret => "no line of --cluster.secret-file is the same on both",
        })
    }
}
