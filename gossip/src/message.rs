//! The insides of datagrams by which nodes get to know each other: questions, answers, who was forgotten.
//! `docs/protocol-cluster.md` has the byte tables.
//!
//! The first bytes of an introduction, versions and name, keep their places in every version to come, so
//! that nodes that do not understand each other can say why.

use std::net::SocketAddr;

use engine::identity::NodeId;

use crate::bytes_in::{BytesIn, put_address};
use crate::limits::{ASK_BYTES, NAME_BYTES_MAX, TOMBSTONES_AT_ONCE};
use crate::member::{Member, ProcessId, Protocol};
use crate::refusal::Verdict;
use crate::seal::OUTSIDE_BYTES;

/// Most ids that a node has.
const CLAIMS_MAX: usize = 2;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) protocol: Protocol,
    /// The cluster that it belongs to.
    pub(crate) cluster: String,
    /// What only those can read who speak a version of it.
    pub(crate) rest: Option<Introduced>,
}

/// The part of an introduction that may change with versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Introduced {
    /// Whether it is in the cluster, so that its word counts.
    pub(crate) is_in: bool,
    /// How long its process has lived, milliseconds.
    pub(crate) lived_ms: u64,
    pub(crate) member: Member,
}

impl Introduction {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend([self.protocol.oldest, self.protocol.newest, self.cluster.len() as u8]);
        out.extend(self.cluster.as_bytes());
        if let Some(rest) = &self.rest {
            out.push(u8::from(rest.is_in));
            out.extend(rest.lived_ms.to_le_bytes());
            rest.member.put(out);
        }
    }

    fn read(bytes: &mut BytesIn<'_>) -> Option<Self> {
        let protocol = Protocol { oldest: bytes.u8()?, newest: bytes.u8()? };
        let len = bytes.u8().map(usize::from).filter(|len| (1..=NAME_BYTES_MAX).contains(len))?;
        let cluster = std::str::from_utf8(bytes.take(len)?).ok()?.to_owned();
        if !protocol.overlaps(Protocol::OURS) {
            return Some(Self { protocol, cluster, rest: None });
        }
        let is_in = bytes.u8().filter(|flag| *flag <= 1)? == 1;
        let lived_ms = bytes.u64()?;
        let member = Member::read(bytes).filter(|member| member.protocol == protocol)?;
        Some(Self { protocol, cluster, rest: Some(Introduced { is_in, lived_ms, member }) })
    }
}

/// A question: padded, so that no answer is longer.
pub(crate) fn put_ask(introduction: &Introduction) -> Vec<u8> {
    let mut out = Vec::with_capacity(ASK_BYTES);
    introduction.put(&mut out);
    out.resize(ASK_BYTES - OUTSIDE_BYTES, 0);
    out
}

/// Reads a question. One that is shorter than it has to be is none.
pub(crate) fn read_ask(inside: &[u8]) -> Option<Introduction> {
    let is_long = inside.len() >= ASK_BYTES - OUTSIDE_BYTES;
    Introduction::read(&mut BytesIn(inside)).filter(|_| is_long)
}

/// Who is known under an id of the one who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: NodeId,
    pub(crate) process: ProcessId,
    pub(crate) standing: u64,
    pub(crate) boot: u64,
    /// Whether it is held to live.
    pub(crate) is_up: bool,
    pub(crate) address: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) introduction: Introduction,
    /// The number of the question.
    pub(crate) asked: u64,
    pub(crate) verdict: Verdict,
    pub(crate) claims: Vec<Claim>,
}

impl Answer {
    pub(crate) fn put(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ASK_BYTES);
        self.introduction.put(&mut out);
        out.extend(self.asked.to_le_bytes());
        out.extend([self.verdict.number(), self.claims.len() as u8]);
        for claim in &self.claims {
            let is_v6 = claim.address.is_ipv6();
            out.push(u8::from(claim.is_up) | u8::from(is_v6) << 1);
            out.extend(claim.id.0.to_be_bytes());
            out.extend(claim.process.0.to_le_bytes());
            out.extend(claim.standing.to_le_bytes());
            out.extend(claim.boot.to_le_bytes());
            put_address(&claim.address, &mut out);
        }
        assert!(out.len() <= ASK_BYTES - OUTSIDE_BYTES, "no answer is longer than its question");
        out
    }

    /// Reads an answer; of one in a version that is not spoken here, the versions and the name.
    pub(crate) fn read(inside: &[u8]) -> Option<Self> {
        let mut bytes = BytesIn(inside);
        let introduction = Introduction::read(&mut bytes)?;
        if introduction.rest.is_none() {
            let (asked, verdict, claims) = (0, Verdict::OtherVersion, Vec::new());
            return Some(Self { introduction, asked, verdict, claims });
        }
        let asked = bytes.u64()?;
        let verdict = Verdict::of_number(bytes.u8()?)?;
        let count = bytes.u8().map(usize::from).filter(|count| *count <= CLAIMS_MAX)?;
        let claims = (0..count).map(|_| read_claim(&mut bytes)).collect::<Option<_>>()?;
        bytes.is_empty().then_some(Self { introduction, asked, verdict, claims })
    }
}

fn read_claim(bytes: &mut BytesIn<'_>) -> Option<Claim> {
    let flags = bytes.u8().filter(|flags| *flags < 4)?;
    Some(Claim {
        is_up: flags & 1 != 0,
        id: NodeId(u128::from_be_bytes(bytes.array()?)),
        process: ProcessId(bytes.u64()?),
        standing: bytes.u64()?,
        boot: bytes.u64()?,
        address: bytes.address(flags & 2 != 0)?,
    })
}

/// An identity that was forgotten, with all boots up to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tombstone {
    pub(crate) id: NodeId,
    pub(crate) boot: u64,
}

impl Tombstone {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.id.0.to_be_bytes());
        out.extend(self.boot.to_le_bytes());
    }

    pub(crate) fn read(bytes: &mut BytesIn<'_>) -> Option<Self> {
        let id = NodeId(u128::from_be_bytes(bytes.array()?));
        Some(Self { id, boot: bytes.u64()? })
    }
}

pub(crate) fn put_tombstones(tombstones: &[Tombstone]) -> Vec<u8> {
    assert!(tombstones.len() <= TOMBSTONES_AT_ONCE);
    let mut out = vec![tombstones.len() as u8];
    for tombstone in tombstones {
        tombstone.put(&mut out);
    }
    out
}

pub(crate) fn read_tombstones(inside: &[u8]) -> Option<Vec<Tombstone>> {
    let mut bytes = BytesIn(inside);
    let count = bytes.u8().map(usize::from).filter(|count| *count <= TOMBSTONES_AT_ONCE)?;
    let read = (0..count).map(|_| Tombstone::read(&mut bytes)).collect::<Option<_>>()?;
    bytes.is_empty().then_some(read)
}
