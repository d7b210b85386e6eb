//! The list of members on disk: everybody who was ever met and not forgotten, and who was forgotten.
//! `docs/protocol-cluster.md` has the byte table.
//!
//! Invariants: what is not whole, or of another version, is an error, never a shorter list: a node that
//! forgot a store would call answers complete that are not.

use std::fmt;

use engine::ulid::Ulid;

use crate::bytes_in::BytesIn;
use crate::limits::{MEMBERS_MAX, TOMBSTONES_MAX};
use crate::member::Member;
use crate::message::Tombstone;

const MAGIC: [u8; 4] = *b"OKM1";

/// What a node remembers of its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    pub(crate) members: Vec<(Member, Ulid)>,
    pub(crate) tombstones: Vec<Tombstone>,
}

/// Why a list of members cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedError {
    /// It is of a version that this program does not know.
    OtherVersion,
    /// It is not whole.
    Damaged,
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherVersion => {
                "the list of members is of a version that this program does not know"
            }
            Self::Damaged => "the list of members is damaged",
        })
    }
}

impl std::error::Error for SavedError {}

impl Saved {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([0; 4]);
        out.extend((self.members.len() as u32).to_le_bytes());
        out.extend((self.tombstones.len() as u32).to_le_bytes());
        for (member, watermark) in &self.members {
            member.put(&mut out);
            out.extend(watermark.0.to_le_bytes());
        }
        self.tombstones.iter().for_each(|tombstone| tombstone.put(&mut out));
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The inverse.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let (head, body) = bytes.split_at_checked(8).ok_or(SavedError::Damaged)?;
        let is_ours = head[..3] == MAGIC[..3];
        if head[4..] != crc32fast::hash(body).to_le_bytes() || !is_ours {
            return Err(SavedError::Damaged);
        }
        if head[3] != MAGIC[3] {
            return Err(SavedError::OtherVersion);
        }
        read(body).ok_or(SavedError::Damaged)
    }

    /// How many members are remembered.
    pub fn members(&self) -> usize {
        self.members.len()
    }
}

fn read(body: &[u8]) -> Option<Saved> {
    let mut bytes = BytesIn(body);
    let mut count = |max| bytes.u32().map(|count| count as usize).filter(|count| *count <= max);
    let (members, tombstones) = (count(MEMBERS_MAX)?, count(TOMBSTONES_MAX)?);
    let member = |bytes: &mut BytesIn<'_>| Some((Member::read(bytes)?, Ulid(bytes.u128()?)));
    let members = (0..members).map(|_| member(&mut bytes)).collect::<Option<_>>()?;
    let tombstones = (0..tombstones).map(|_| Tombstone::read(&mut bytes)).collect::<Option<_>>()?;
    bytes.is_empty().then_some(Saved { members, tombstones })
}
