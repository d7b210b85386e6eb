//! Why a gather did not succeed, in words.

use std::fmt;
use std::io;

use crate::damage::Damage;

use super::write_error::WriteError;

/// Why a gather did not succeed.
#[derive(Debug)]
pub enum GatherError {
    /// The inputs could not be claimed.
    Claim(io::Error),
    /// The storage refused a read of an input.
    Read(Damage),
    /// The segment could not be written.
    Write(WriteError),
    /// It was cancelled.
    Cancelled,
    /// Somebody else has stored every input meanwhile.
    StoredByOthers,
    /// So many inputs hold other records than were stored: a defect of ours, or of a disk.
    OtherRecords(usize),
}

impl fmt::Display for GatherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(error) => write!(f, "cannot claim ingest segments: {error}"),
            Self::Read(damage) => damage.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
            Self::StoredByOthers => {
                f.write_str("all that was claimed has been stored under another claim")
            }
            Self::OtherRecords(count) => write!(
                f,
                "{count} ingest segments hold other records than were read from them; they are kept"
            ),
        }
    }
}

impl std::error::Error for GatherError {}
