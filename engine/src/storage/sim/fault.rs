//! Which calls of the simulated disk fail, and how.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// The calls of [`crate::storage::Storage`] and [`crate::storage::File`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is named after its call
pub enum Call {
    Open,
    Create,
    Len,
    Read,
    Write,
    Allocate,
    SetLen,
    Sync,
    Map,
    /// A page that is read through a map.
    MapRead,
    VersionStamp,
    Rename,
    Remove,
    List,
    CreateDir,
    SyncDir,
    Space,
}

impl Call {
    /// Whether the call changes what is found after a crash: the crash points worth trying.
    pub const fn changes_disk(self) -> bool {
        use Call::{Allocate, Create, CreateDir, Remove, Rename, SetLen, Sync, SyncDir, Write};
        matches!(
            self,
            Create | Write | Allocate | SetLen | Sync | Rename | Remove | CreateDir | SyncDir
        )
    }
}

/// What a failing call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// EIO: the medium failed.
    Io,
    /// ENOSPC: no room. A write leaves a part of its bytes behind.
    NoSpace,
    /// EMFILE: the process has no descriptor left.
    TooManyFiles,
    /// ENOMEM: no memory.
    NoMemory,
    /// EINTR: a signal came meanwhile; nothing was done.
    Interrupted,
    /// No error: a read or write does a part of what it was asked for. Other calls are done whole.
    Short,
}

impl FaultError {
    /// What the system returns in this case.
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io => libc::EIO,
            Self::NoSpace => libc::ENOSPC,
            Self::TooManyFiles => libc::EMFILE,
            Self::NoMemory => libc::ENOMEM,
            Self::Interrupted | Self::Short => libc::EINTR,
        })
    }
}

/// When a fault strikes, among the calls that it matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// The n-th from now (the first is 1), once.
    Nth(u64),
    /// So many from now, one after the other: a fault that lasts for a while.
    Next(u64),
    /// Each with this probability.
    Probability(f64),
}

/// A rule by which calls fail.
#[derive(Debug, Clone)]
pub struct Fault {
    /// When it strikes.
    pub when: When,
    /// Which call it matches; `None`: every one.
    pub call: Option<Call>,
    /// What the path has to contain; for a file the path it was opened under. Empty: anything.
    pub path_part: String,
    /// What the call returns.
    pub error: FaultError,
}

impl Fault {
    /// The n-th call from now fails, whatever it is.
    pub const fn nth(n: u64, error: FaultError) -> Self {
        Self { when: When::Nth(n), call: None, path_part: String::new(), error }
    }

    /// The next `count` calls of a kind fail.
    pub const fn next(call: Call, count: u64, error: FaultError) -> Self {
        let when = When::Next(count);
        Self { when, call: Some(call), path_part: String::new(), error }
    }

    /// Of files whose path contains this only.
    #[must_use]
    pub fn of(self, path_part: &str) -> Self {
        Self { path_part: path_part.to_owned(), ..self }
    }

    /// Every call of a kind fails with this probability.
    pub const fn random(call: Call, probability: f64, error: FaultError) -> Self {
        let when = When::Probability(probability);
        Self { when, call: Some(call), path_part: String::new(), error }
    }

    fn strikes(&mut self, call: Call, path: &Path, random: &mut Random) -> bool {
        let matches = self.call.is_none_or(|wanted| wanted == call)
            && path.to_string_lossy().contains(&self.path_part);
        match &mut self.when {
            _ if !matches => false,
            When::Probability(probability) => random.chance(*probability),
            When::Next(left) => {
                let strikes = *left > 0;
                *left = left.saturating_sub(1);
                strikes
            }
            When::Nth(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
        }
    }
}

/// The rules in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) rules: Vec<Fault>,
    /// Bytes that cannot be read, of files whose path contains the text.
    pub(super) unreadable: Vec<(String, Range<u64>)>,
    /// The machine stops at this call.
    pub(super) stop_at: Option<u64>,
    /// Every call so far.
    pub(super) trace: Vec<Call>,
    /// Of every call and path since the disk was made, through all its lives.
    pub(super) digest: u64,
    /// Calls that a rule made fail.
    pub(super) struck: Vec<(Call, PathBuf)>,
}

impl Faults {
    pub(super) fn has_stopped(&self) -> bool {
        self.stop_at.is_some_and(|at| self.trace.len() as u64 >= at)
    }

    /// Where the first byte at or behind `offset` lies that cannot be read.
    pub(super) fn unreadable_from(&self, path: &Path, offset: u64) -> Option<u64> {
        let path = path.to_string_lossy();
        let spans = self.unreadable.iter().filter(|(part, _)| path.contains(part));
        spans.filter(|(_, span)| span.end > offset).map(|(_, span)| span.start.max(offset)).min()
    }

    /// Whether a rule is for this kind of call alone.
    pub(super) fn has_rule_for(&self, call: Call) -> bool {
        self.rules.iter().any(|rule| rule.call == Some(call))
    }

    /// Counts a call and says whether it may go on.
    pub(super) fn admit(
        &mut self,
        call: Call,
        path: &Path,
        random: &mut Random,
    ) -> Result<(), Refusal> {
        self.trace.push(call);
        let mut hasher = DefaultHasher::new();
        (self.digest, call, path).hash(&mut hasher);
        self.digest = hasher.finish();
        if self.has_stopped() {
            return Err(Refusal::Stopped);
        }
        for index in 0..self.rules.len() {
            let is_of_bytes = matches!(call, Call::Read | Call::Write);
            if self.rules[index].error == FaultError::Short && !is_of_bytes {
                continue;
            }
            if self.rules[index].strikes(call, path, random) {
                let error = self.rules[index].error;
                self.struck.push((call, path.to_owned()));
                if matches!(self.rules[index].when, When::Nth(_)) {
                    self.rules.remove(index);
                }
                return Err(Refusal::Fault(error));
            }
        }
        Ok(())
    }
}

/// Why a call fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    Stopped,
    Fault(FaultError),
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Stopped => Self::other("the simulated machine has stopped"),
            Refusal::Fault(error) => error.error(),
        }
    }
}
