//! What went wrong, in words, and the exit code that goes with it.
//!
//! A load generator has one reader of its errors: the person who runs it. So there is one type,
//! made of a sentence; nothing matches on it but `main`.

use std::fmt;

/// Exit code of a run that failed or whose check did not hold.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code of a command line that makes no sense.
pub(crate) const EXIT_USAGE: u8 = 2;

/// A sentence for the operator and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) exit_code: u8,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: EXIT_USAGE }
    }

    pub(crate) fn run(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: EXIT_FAILED }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Says what an operation was about to do, when it fails.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::run(format!("{}: {error}", what())))
    }
}
