//! What is wrong with a file, where, and what it costs. Damage is a value: readers return it or
//! collect it beside what they could read, and the daemon turns it into words and metrics.

use std::fmt;
use std::path::PathBuf;

use crate::identity::Side;
use crate::search::format::rfc3339;
use crate::storage::Refusal;
use crate::store::coverage::Gap;
use crate::ulid::Ulid;

/// One damaged span of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the span starts, bytes.
    pub offset: u64,
    /// How long it is, bytes; 0 when unknown.
    pub len_bytes: u64,
    /// The records that may be lost lie between these two, where that is known.
    pub range: Option<(Ulid, Ulid)>,
    /// How many records are lost, where that is known.
    pub records: Option<u64>,
    /// What was found.
    pub kind: DamageKind,
}

/// The kinds of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageKind {
    /// A checksum does not match; names the part.
    Checksum(&'static str),
    /// A field has an impossible value; names the part.
    Malformed(&'static str),
    /// The file ends too early; names the part.
    Truncated(&'static str),
    /// The part can be rebuilt from others: nothing is lost; names the part.
    Repairable(&'static str),
    /// The part only saves work: nothing is lost; names the part.
    Dispensable(&'static str),
    /// The last frame of a segment that was being written is not whole: its process or the power
    /// ended first, or it was damaged.
    Unfinished,
    /// Bytes of a known kind but of a version that this program does not read.
    Version(u16),
    /// Whole, but it uses what this program does not read (a codec of a later version).
    Unsupported(&'static str),
    /// Something else than a file has its name.
    NotAFile,
    /// A whole part that belongs elsewhere and is not believed here; names the part, and whose it is.
    Foreign(&'static str, &'static str),
    /// These records were published in the directory of a store, or waited in that of an ingester, and no
    /// file that is there holds them.
    Missing(Side, Gap),
    /// The storage did not give the bytes. They may be whole: the file is left as it is, and read
    /// again.
    Unread(Refusal),
    /// The same of a part that others replace or that only saves work: nothing is lost.
    Bypassed(Refusal),
}

impl Damage {
    /// Why the storage did not give the bytes, where that is what was found.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self.kind {
            DamageKind::Unread(refusal) | DamageKind::Bypassed(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether records are lost (or cannot be read), as opposed to a part that others can replace.
    pub const fn loses_records(&self) -> bool {
        !matches!(
            self.kind,
            DamageKind::Repairable(_)
                | DamageKind::Dispensable(_)
                | DamageKind::Foreign(..)
                | DamageKind::Bypassed(_)
        )
    }
}

impl From<Refusal> for DamageKind {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_no_file() { Self::NotAFile } else { Self::Unread(refusal) }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum(part) => write!(f, "checksum of the {part} does not match"),
            Self::Malformed(part) => write!(f, "the {part} is malformed"),
            Self::Truncated(part) => write!(f, "the file ends inside the {part}"),
            Self::Repairable(part) => write!(f, "the {part} is damaged and was rebuilt"),
            Self::Dispensable(part) => write!(f, "the {part} is damaged and is not used"),
            Self::Foreign(part, whose) => {
                write!(f, "the {part} is that of {whose}, not of this directory")
            }
            Self::NotAFile => f.write_str("something else than a file has its name"),
            Self::Missing(side, gap) => {
                let (were, what) = match side {
                    Side::Store => ("were stored here", "a store segment"),
                    Side::Ingest => ("waited here to be stored", "the ingest segment"),
                };
                let (from, to) = (rfc3339(gap.from_ms), rfc3339(gap.to_ms));
                write!(
                    f,
                    "records {} to {} of stream {:010x} {were} and are in no file (stamped {from} to \
                     {to}): {what} was taken away",
                    gap.from, gap.to, gap.stream,
                )
            }
            Self::Unfinished => f.write_str("the last frame is unfinished or damaged"),
            Self::Version(v) => write!(f, "version {v} is not known to this program"),
            Self::Unsupported(what) => {
                write!(f, "uses {what}, which this program does not read: use a later version")
            }
            Self::Unread(refusal) if refusal.is_shortage() => {
                write!(f, "cannot be read for a shortage of this process: {refusal}")
            }
            Self::Unread(refusal) => write!(f, "cannot be read: {refusal}"),
            Self::Bypassed(refusal) => write!(f, "cannot be read and is not needed: {refusal}"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let DamageKind::Missing(_, gap) = &self.kind {
            let (path, count) = (self.path.display(), gap.record_count());
            return write!(f, "{path}: {}; {count} records are missing", self.kind);
        }
        write!(f, "{}: offset {}", self.path.display(), self.offset)?;
        if self.len_bytes > 0 {
            write!(f, ", {} bytes", self.len_bytes)?;
        }
        write!(f, ": {}", self.kind)?;
        match self.records {
            Some(0) => write!(f, "; no record is lost")?,
            // Nobody may have been promised them.
            Some(n) if self.kind == DamageKind::Unfinished => {
                write!(f, "; {n} records may be lost")?;
            }
            Some(n) if self.refusal().is_some() => write!(f, "; it has {n} records")?,
            None if self.refusal().is_some() => {}
            Some(n) => write!(f, "; {n} records are lost")?,
            None if self.loses_records() => write!(f, "; records may be lost")?,
            None => {}
        }
        if let Some((first, last)) = self.range {
            write!(f, " between {first} and {last}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Damage {}
