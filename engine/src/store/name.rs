//! Names and identities of store segments: `<FIRST>-<LAST>-<ID>.flushed`,
//! `<FIRST>-<LAST>-<ID>-<AT>.trashed` in the trash, and `<ID>.writing` while one is being written.
//! FIRST and LAST are ULIDs as text, ID is 16 hexadecimal digits, AT is when it was trashed,
//! milliseconds since 1970 in decimal.
//!
//! The time of trashing is in the name because nothing else moves with the file: a copy or a
//! restored backup has new times, and not every file system changes one on a rename. A name
//! without AT (somebody trashed the file by hand) is taken, too.
//!
//! Invariants: parsing accepts exactly what formatting makes, so that a file with a name that is
//! nearly one of ours is never taken for ours.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::identity::{IDENTITY_FILE, IDENTITY_NEW_FILE};
use crate::random::at_place;
use crate::store::clock_note::CLOCK_NOTE_FILE;
use crate::store::inventory::{INVENTORY_FILE, INVENTORY_NEW_FILE};
use crate::ulid::Ulid;

/// Extension of a published segment.
pub const FLUSHED: &str = "flushed";
/// Extension of a segment that has expired.
pub const TRASHED: &str = "trashed";
/// Extension of a segment that is being written.
pub const WRITING: &str = "writing";
/// The lock file of a data directory.
pub const LOCK_NAME: &str = "LOCK";
/// What a node tries the disk with, in either data directory; gone as soon as it was tried.
pub const PROBE_NAME: &str = "PROBE";
/// The same after it was renamed.
pub const PROBE_RENAMED_NAME: &str = "PROBE.renamed";

/// A store segment's random identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SegmentId {
    fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(hex) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

/// A file name of the store directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A published segment.
    Flushed {
        /// Its first record.
        first: Ulid,
        /// Its last record.
        last: Ulid,
        /// Its identity.
        id: SegmentId,
    },
    /// A segment in the trash.
    Trashed {
        /// Its first record.
        first: Ulid,
        /// Its last record.
        last: Ulid,
        /// Its identity.
        id: SegmentId,
        /// When it was trashed, milliseconds since 1970.
        at_ms: Option<u64>,
    },
    /// A segment that was being written.
    Writing(SegmentId),
    /// The directory's lock.
    Lock,
    /// What a node tried the disk with when it ended.
    Probe,
    /// Who the directory is, whole or not finished.
    Identity,
    /// That the clock was set.
    ClockNote,
    /// What was published in the directory, whole or not finished.
    Inventory,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flushed { first, last, id } => write!(f, "{first}-{last}-{id}.{FLUSHED}"),
            Self::Trashed { first, last, id, at_ms: Some(at_ms) } => {
                write!(f, "{first}-{last}-{id}-{at_ms}.{TRASHED}")
            }
            Self::Trashed { first, last, id, at_ms: None } => {
                write!(f, "{first}-{last}-{id}.{TRASHED}")
            }
            Self::Writing(id) => write!(f, "{id}.{WRITING}"),
            Self::Lock => f.write_str(LOCK_NAME),
            Self::Probe => f.write_str(PROBE_NAME),
            Self::Identity => f.write_str(IDENTITY_FILE),
            Self::ClockNote => f.write_str(CLOCK_NOTE_FILE),
            Self::Inventory => f.write_str(INVENTORY_FILE),
        }
    }
}

impl Name {
    /// What this name means here; `None` when it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        if name == LOCK_NAME {
            return Some(Self::Lock);
        }
        if [PROBE_NAME, PROBE_RENAMED_NAME].contains(&name) {
            return Some(Self::Probe);
        }
        if [IDENTITY_FILE, IDENTITY_NEW_FILE].contains(&name) {
            return Some(Self::Identity);
        }
        if name == CLOCK_NOTE_FILE {
            return Some(Self::ClockNote);
        }
        if [INVENTORY_FILE, INVENTORY_NEW_FILE].contains(&name) {
            return Some(Self::Inventory);
        }
        let parsed = match name.rsplit_once('.')? {
            (id, WRITING) => Self::Writing(SegmentId::parse(id)?),
            (stem, extension @ (FLUSHED | TRASHED)) => {
                let mut parts = stem.split('-');
                let (first, last, id) = (parts.next()?, parts.next()?, parts.next()?);
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                let id = SegmentId::parse(id)?;
                if extension == FLUSHED {
                    Self::Flushed { first, last, id }
                } else {
                    let at_ms = parts.next().map(str::parse).transpose().ok()?;
                    Self::Trashed { first, last, id, at_ms }
                }
            }
            _ => return None,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl Name {
    /// The records and the identity that the name of a segment gives, wherever it is in its life.
    pub const fn segment(&self) -> Option<(Ulid, Ulid, SegmentId)> {
        match *self {
            Self::Flushed { first, last, id } | Self::Trashed { first, last, id, .. } => {
                Some((first, last, id))
            }
            Self::Writing(_)
            | Self::Lock
            | Self::Probe
            | Self::Identity
            | Self::ClockNote
            | Self::Inventory => None,
        }
    }
}

/// Where new identities come from.
#[derive(Debug)]
pub struct IdSource {
    next: AtomicU64,
    key: Option<RandomState>,
}

impl IdSource {
    /// Identities that nobody can foresee (keyed by what the operating system gives).
    pub fn random() -> Self {
        Self { next: AtomicU64::new(0), key: Some(RandomState::new()) }
    }

    /// The same identities for the same seed, for tests.
    pub const fn seeded(seed: u64) -> Self {
        Self { next: AtomicU64::new(seed), key: None }
    }

    /// The next identity.
    pub fn next_id(&self) -> u64 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = &self.key {
            return key.hash_one(n);
        }
        at_place(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_near_names_are_not_ours() {
        let (first, last) = (Ulid::from_parts(5, 0xfff, 1), Ulid::from_parts(9, 1, 7));
        let flushed = Name::Flushed { first, last, id: SegmentId(0xabc) };
        let trashed = |at_ms| Name::Trashed { first, last, id: SegmentId(0xabc), at_ms };
        for name in [
            flushed,
            trashed(None),
            trashed(Some(0)),
            trashed(Some(u64::MAX)),
            Name::Writing(SegmentId(1)),
            Name::Lock,
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        let text = flushed.to_string();
        let near = [
            text.to_lowercase(),
            text.replace("flushed", "Flushed"),
            text.replace("abc", "ABC"),
            format!("{text}~"),
            format!(".{text}"),
            text.replace(".flushed", "-1.flushed"),
            text.replace(".flushed", "-01.trashed"),
            text.replace(".flushed", "-+1.trashed"),
            text.replace(".flushed", "-.trashed"),
            text.replace(".flushed", "-1-2.trashed"),
            text.replace(".flushed", "-18446744073709551616.trashed"),
            "abc.writing".into(),
            "x.flushed".into(),
            "-00000000000000000000000000000abc.writing".into(),
            String::new(),
        ];
        for name in near {
            assert_eq!(Name::parse(&name), None, "{name}");
        }
    }

    #[test]
    fn random_sources_differ_and_seeded_ones_repeat() {
        assert_ne!(IdSource::random().next_id(), IdSource::random().next_id());
        assert_eq!(IdSource::seeded(7).next_id(), IdSource::seeded(7).next_id());
    }
}
