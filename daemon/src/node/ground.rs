//! Whether the directories are still those that were locked: somebody may delete them, or put others
//! in their place, under a running node.
//!
//! Invariants: a directory that cannot be looked up is not lost, only one whose name is nobody's or
//! another's; whoever puts it back ends the matter. Looks; what follows is the keeper's, the doors'
//! and the ending's to do.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;

use engine::node::names::{self, NotFound};

use super::common::Common;
use super::data::Locks;
use super::disks::{Side, flag};
use super::read_again::is_lost;
use crate::lock::{DirectoryLock, Ground, Lost};

/// The ground of the sides that there are, by [`Side`].
pub(super) struct Grounds([Option<Ground>; 2]);

impl Grounds {
    pub(super) fn of(locks: &Locks) -> Self {
        Self([&locks.ingest, &locks.store].map(|lock| lock.as_ref().map(DirectoryLock::ground)))
    }

    /// What was taken away of each side, a sentence for the operator.
    pub(super) fn look(&self) -> [Option<String>; 2] {
        Side::ALL.map(|side| {
            let ground = self.0[side as usize].as_ref()?;
            ground.look().map(|lost| words(side, ground, lost))
        })
    }
}

fn words(side: Side, ground: &Ground, lost: Lost) -> String {
    let (path, flag) = (ground.path().display(), flag(side));
    let advice = "put it back, or restart the node";
    match lost {
        Lost::Gone => format!(
            "the directory {path} ({flag}) was taken away: nothing of that name is there; {advice}"
        ),
        Lost::Another => format!(
            "the directory {path} ({flag}) was taken away: another one has its name; {advice}"
        ),
        Lost::Lock => format!(
            "the lock of {path} ({flag}) was taken away: another process could use the directory; \
             restart the node"
        ),
    }
}

/// Records whose files are not where the next start will look for them.
pub(super) fn records_not_found(common: &Common) -> NotFound {
    let is_away = common.grounds.look().map(|words| words.is_some());
    names::records_not_found(&common.node, &common.doors, is_away, &regular_files, &is_lost)
}

/// Names of the regular files in a directory; `None`: it cannot be listed.
fn regular_files(directory: &Path) -> Option<HashSet<OsString>> {
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        // Most file systems say it with the name.
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.insert(entry.file_name());
        }
    }
    Some(names)
}
