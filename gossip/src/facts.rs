//! What a node says of itself with everything it sends: fresh, first-hand, never passed on. A hint for
//! people and for choices, never a proof.

use engine::ulid::Ulid;

use crate::bytes_in::BytesIn;

/// Bytes of them in a datagram.
pub(crate) const FACTS_BYTES: usize = 48;
const DRAINING: u8 = 1;

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Below it everything that its ingester acknowledged is in stores; the smallest ULID: it says nothing.
    pub watermark: Ulid,
    /// Free space of its fullest disk, bytes.
    pub disk_free_bytes: u64,
    /// Text of records that are not in stores yet, bytes.
    pub backlog_bytes: u64,
    /// It is being emptied, to go.
    pub is_draining: bool,
}

/// With what the protocol adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) facts: Facts,
    /// The sender's clock, milliseconds since 1970.
    pub(crate) wall_ms: u64,
    /// Of all that it knows to be forgotten.
    pub(crate) tombstones: u32,
}

impl Said {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.wall_ms.to_le_bytes());
        out.extend(self.facts.watermark.0.to_le_bytes());
        out.extend(self.facts.disk_free_bytes.to_le_bytes());
        out.extend(self.facts.backlog_bytes.to_le_bytes());
        out.extend(self.tombstones.to_le_bytes());
        out.extend([if self.facts.is_draining { DRAINING } else { 0 }, 0, 0, 0]);
    }

    pub(crate) fn read(bytes: &mut BytesIn<'_>) -> Option<Self> {
        let wall_ms = bytes.u64()?;
        let watermark = Ulid(bytes.u128()?);
        let (disk_free_bytes, backlog_bytes) = (bytes.u64()?, bytes.u64()?);
        let tombstones = bytes.u32()?;
        let flags = bytes.u8().filter(|flags| *flags <= DRAINING)?;
        bytes.array::<3>().filter(|reserved| *reserved == [0; 3])?;
        let is_draining = flags == DRAINING;
        let facts = Facts { watermark, disk_free_bytes, backlog_bytes, is_draining };
        Some(Self { facts, wall_ms, tombstones })
    }
}
