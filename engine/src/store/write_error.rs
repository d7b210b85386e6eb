//! Why a segment could not be written.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::damage::Damage;

/// Why a segment could not be written. The temporary file is gone and the inputs are untouched.
#[derive(Debug)]
pub enum WriteError {
    /// The storage refused.
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The records do not follow those already written.
    OutOfOrder,
    /// The text is not as many lines as the run claims. Nothing was taken.
    NotLines,
    /// A slab that was to be copied is damaged, or could not be read. Nothing of it was taken.
    Damaged(Damage),
    /// The segment has as many slabs as a segment may have.
    Full,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, path, error } => {
                write!(f, "cannot {action} {}: {error}", path.display())
            }
            Self::OutOfOrder => f.write_str("records out of order"),
            Self::NotLines => f.write_str("a run's text is not as many lines as it claims"),
            Self::Damaged(damage) => damage.fmt(f),
            Self::Full => f.write_str("too many slabs for one segment"),
        }
    }
}

impl std::error::Error for WriteError {}
