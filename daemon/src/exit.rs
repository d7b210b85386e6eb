//! How a command ends by itself; [`crate::signals`] has another way for containers.

use std::process::ExitCode;

/// The exit codes, each with one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, also when nothing matched.
    Done = 0,
    /// Something failed; it was told.
    Error = 1,
    /// The command line, environment or configuration file is wrong.
    Usage = 2,
    /// Results were printed, but not all of the range could be searched.
    Incomplete = 3,
    /// `fsck` found damage.
    Damage = 4,
    /// Nothing matched and `--fail-empty` was given.
    Empty = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
