//! Checks a spool offline and read-only: every entry with its lines, and whether entries are
//! missing between them. What that means is `judge`'s business.
//!
//! Invariants: nothing is written, not even the mark; memory holds one entry and what the judge
//! keeps.

use std::path::{Path, PathBuf};

use super::judge::{Depth, judge, judge_file};
use super::mark::{self, MARK_FILE};
use super::{DAMAGED_SUFFIX, is_set_aside, passed_over, sequence_of};
use crate::damage::Damage;
use crate::storage::{Entry, Storage};

/// What a file of a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolFileKind {
    /// Entries.
    Entries,
    /// Entries of a file that was passed over because it could not be read: those from this number
    /// on wait.
    PassedOver {
        /// The first of them.
        from: u64,
    },
    /// Entries of a file that was set aside because something in it is damaged.
    SetAside,
    /// The mark: up to where everything is handed over.
    Mark,
}

impl SpoolFileKind {
    /// What this name promises in a spool's directory.
    pub fn of(name: &str) -> Option<Self> {
        if sequence_of(name).is_some() {
            return Some(Self::Entries);
        }
        if let Some((_, from)) = passed_over(name) {
            return Some(Self::PassedOver { from });
        }
        let stem = name.strip_suffix(DAMAGED_SUFFIX).filter(|_| is_set_aside(name));
        if stem.is_some_and(|stem| sequence_of(&format!("{stem}spool")).is_some()) {
            return Some(Self::SetAside);
        }
        (name == MARK_FILE).then_some(Self::Mark)
    }
}

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub kind: SpoolFileKind,
    /// Its length, bytes.
    pub file_bytes: u64,
    /// Lines in its whole entries.
    pub line_count: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// What was found out about a spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedSpool {
    /// Its files, in no particular order.
    pub files: Vec<CheckedFile>,
    /// Whole entries that are not handed over.
    pub waiting_entries: u64,
    /// Lines in them.
    pub waiting_lines: u64,
}

/// Whether this is the listing of a spool's directory.
pub fn is_spool(storage: &dyn Storage, directory: &Path, entries: &[Entry]) -> bool {
    let files = entries.iter().filter(|entry| entry.is_file);
    let kinds: Vec<_> = files.filter_map(|e| SpoolFileKind::of(e.name.as_deref()?)).collect();
    // A file named `mark` may be anybody's; one that says so is left of a spool that was sent.
    kinds.iter().any(|kind| *kind != SpoolFileKind::Mark)
        || (!kinds.is_empty() && mark::find(storage, &directory.join(MARK_FILE)).slot().is_some())
}

/// Checks the files of a spool that are among these entries of its directory.
pub fn check_spool(storage: &dyn Storage, directory: &Path, entries: &[Entry]) -> CheckedSpool {
    judge(storage, directory, entries, Depth::Payloads).checked
}

/// Checks one file by itself: what it should join on to is not known.
pub fn check_spool_file(storage: &dyn Storage, path: &Path, file_bytes: u64) -> CheckedSpool {
    judge_file(storage, path, file_bytes)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
