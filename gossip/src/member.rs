//! Who a member is: the ids of its directories, each with its boot, the process that uses them, where it is
//! reached, and what has to agree for it to be a member at all.
//!
//! A member is known by the id of its ingest directory, or of its store directory where it takes no
//! records. Of two that claim the same id the one with the higher standing counts: a standing begins with
//! the boot, so that a restarted node replaces its former life at once, and grows by one each time that
//! the node has to come back after it was held to be down.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU8;

use engine::identity::{Identity, NodeId, Side};

use crate::bytes_in::{BytesIn, put_address};

/// A process of a node: random, new for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Standings that belong to one boot.
const STANDINGS_A_BOOT: u64 = 1 << 32;

/// The versions of the protocol that a node speaks, from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The oldest.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
}

impl Protocol {
    /// What this program speaks.
    pub const OURS: Self = Self { oldest: 1, newest: 1 };

    /// Whether two nodes find a version that both speak.
    pub const fn overlaps(self, other: Self) -> bool {
        self.oldest <= other.newest && other.oldest <= self.newest
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "{}", self.newest)
        } else {
            write!(f, "{} to {}", self.oldest, self.newest)
        }
    }
}

/// The directories of a node; one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    ingester: Option<Identity>,
    store: Option<Identity>,
}

impl Sides {
    /// The identities of a node's directories: one, or one of each side.
    pub fn new(identities: &[Identity]) -> Option<Self> {
        let of = |side| identities.iter().copied().find(|identity| identity.side == side);
        let sides = Self { ingester: of(Side::Ingest), store: of(Side::Store) };
        (sides.iter().count() == identities.len() && !identities.is_empty()).then_some(sides)
    }

    /// Both, the ingester first.
    pub fn iter(&self) -> impl Iterator<Item = Identity> + use<> {
        [self.ingester, self.store].into_iter().flatten()
    }

    /// What the member is known by.
    pub fn first(&self) -> Identity {
        self.ingester.or(self.store).expect("a node has a directory: `new` and `read` see to it")
    }

    /// Whether it takes records.
    pub const fn is_ingester(&self) -> bool {
        self.ingester.is_some()
    }

    /// Whether it keeps records.
    pub const fn is_store(&self) -> bool {
        self.store.is_some()
    }

    /// An id that both have.
    pub fn shared_with(&self, other: &Self) -> Option<Identity> {
        self.iter().find(|mine| other.iter().any(|theirs| theirs.id == mine.id))
    }
}

/// A node of a cluster, in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its directories.
    pub sides: Sides,
    /// Its process.
    pub process: ProcessId,
    /// Its place among those who claim the same id; the highest counts.
    pub standing: u64,
    /// Where it is reached by other nodes.
    pub address: SocketAddr,
    /// The port of its HTTP interface, at the same host.
    pub api_port: u16,
    /// How many copies its store wants of everything; `None`: it has no store.
    pub copies: Option<NonZeroU8>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The release of its program.
    pub release: [u16; 3],
}

const FLAG_INGESTER: u8 = 1;
const FLAG_STORE: u8 = 2;
const FLAG_V6: u8 = 4;

impl Member {
    /// No standing that others may name is as high: there is room to come back from any number of deaths
    /// that were none.
    pub(crate) const STANDING_END: u64 = u64::MAX - STANDINGS_A_BOOT;

    /// What it is known by.
    pub fn id(&self) -> NodeId {
        self.sides.first().id
    }

    /// The first standing of a boot.
    pub fn first_standing(sides: &Sides) -> u64 {
        sides.first().boot.saturating_mul(STANDINGS_A_BOOT)
    }

    /// Where its HTTP interface is.
    pub fn api(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.api_port)
    }

    /// The same with another standing.
    pub(crate) fn at(&self, standing: u64) -> Self {
        Self { standing, ..self.clone() }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        out.push(
            flag(self.sides.is_ingester(), FLAG_INGESTER)
                | flag(self.sides.is_store(), FLAG_STORE)
                | flag(self.address.is_ipv6(), FLAG_V6),
        );
        out.push(self.copies.map_or(0, NonZeroU8::get));
        out.extend([self.protocol.oldest, self.protocol.newest]);
        out.extend(self.process.0.to_le_bytes());
        out.extend(self.standing.to_le_bytes());
        out.extend(self.release.iter().flat_map(|part| part.to_le_bytes()));
        out.extend(self.api_port.to_le_bytes());
        put_address(&self.address, out);
        for side in self.sides.iter() {
            out.extend(side.id.0.to_be_bytes());
            out.extend(side.boot.to_le_bytes());
        }
    }

    pub(crate) fn read(bytes: &mut BytesIn<'_>) -> Option<Self> {
        let flags = bytes.u8()?;
        let copies = NonZeroU8::new(bytes.u8()?);
        let protocol = Protocol { oldest: bytes.u8()?, newest: bytes.u8()? };
        let process = ProcessId(bytes.u64()?);
        let standing = bytes.u64()?;
        let release = [bytes.u16()?, bytes.u16()?, bytes.u16()?];
        let api_port = bytes.u16()?;
        let address = bytes.address(flags & FLAG_V6 != 0)?;
        let mut side = |flag, side| {
            if flags & flag == 0 {
                return Some(None);
            }
            let id = NodeId(u128::from_be_bytes(bytes.array()?));
            let boot = bytes.u64().filter(|boot| (1..STANDINGS_A_BOOT).contains(boot))?;
            Some(Some(Identity { boot, id, side }))
        };
        let sides = Sides {
            ingester: side(FLAG_INGESTER, Side::Ingest)?,
            store: side(FLAG_STORE, Side::Store)?,
        };
        let is_sound = sides.iter().next().is_some()
            && flags < 2 * FLAG_V6
            && sides.is_store() == copies.is_some()
            && protocol.oldest <= protocol.newest
            && standing < Self::STANDING_END;
        let member =
            Self { sides, process, standing, address, api_port, copies, protocol, release };
        is_sound.then_some(member)
    }
}

impl foca::Identity for Member {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.standing.checked_add(1).map(|standing| self.at(standing))
    }

    fn addr(&self) -> NodeId {
        self.id()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // What is known stays where nothing tells them apart.
        (self.standing, self.process) >= (adversary.standing, adversary.process)
    }
}
