//! A passthrough file system that fails, delays or shortens calls on demand, so that the real binary
//! meets disks that refuse or hang, at any call. Linux's FUSE, mounted by this process; needs root
//! and `/dev/fuse`.
//!
//! Invariants: what a rule does not name behaves as on the directory beneath; one hanging call keeps
//! no other waiting; the file system is unmounted when its value is dropped, and calls that still
//! hang then fail. Reads through maps are reads like others (the kernel's page cache asks once for a
//! page, so what it has is met by no rule). Direct I/O is taken, at any alignment.
//!
//! As on any disk, a call that hangs may keep others waiting in the kernel (a hanging `create` holds
//! its directory), and who waits cannot be killed. A test never makes such a call in its own process:
//! that one would have to answer itself.

mod faults;
mod inodes;
mod passthrough;
mod rules;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use faults::{HANG_MAX, RuleId};
pub use rules::{Call, Effect, Errno, Rule, fits};

use crate::tools;
use faults::Faults;
use passthrough::Passthrough;

/// Threads that serve one file system. What hangs gets one of its own.
const THREADS: usize = 4;

/// See the page of the module.
#[derive(Debug)]
pub struct FaultyDisk {
    faults: Arc<Faults>,
    at: PathBuf,
    beneath: PathBuf,
    session: Option<fuser::BackgroundSession>,
    _directory: tempfile::TempDir,
}

impl FaultyDisk {
    /// An empty one. An error: it cannot be had here, and why.
    pub fn new() -> Result<Self, String> {
        if !tools::is_root() {
            return Err("needs root to mount a FUSE file system".to_owned());
        }
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (at, beneath) = (directory.path().join("disk"), directory.path().join("beneath"));
        for path in [&at, &beneath] {
            std::fs::create_dir(path).map_err(|e| e.to_string())?;
        }
        let faults = Arc::new(Faults::default());
        let served = Passthrough::new(&beneath, Arc::clone(&faults)).map_err(|e| e.to_string())?;
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("faulty".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::Session::new(served, &at, &config);
        let session = session.map_err(|e| format!("no FUSE file system can be mounted: {e}"))?;
        let session = Some(session.spawn().map_err(|e| e.to_string())?);
        Ok(Self { faults, at, beneath, session, _directory: directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The healthy directory with the same files.
    pub fn beneath(&self) -> &Path {
        &self.beneath
    }

    /// From now on this rule holds, behind those that are there.
    pub fn add(&self, rule: Rule) -> RuleId {
        self.faults.add(rule)
    }

    /// Ends a rule: calls that hang by it are answered now.
    pub fn remove(&self, id: RuleId) {
        self.faults.remove(id);
    }

    /// Ends all rules: the disk is healthy.
    pub fn heal(&self) {
        self.faults.clear();
    }

    /// How many calls a rule has met.
    pub fn met(&self, id: RuleId) -> u64 {
        self.faults.rule(id).map_or(0, |rule| rule.met())
    }

    /// Whether a rule met a call and will meet no other; true for one that was removed.
    pub fn is_over(&self, id: RuleId) -> bool {
        self.faults.rule(id).is_none_or(|rule| rule.is_over(Instant::now()))
    }

    /// How many calls hang now.
    pub fn hanging(&self) -> usize {
        self.faults.hanging()
    }

    /// Whether every change fails with `EROFS`, as after the kernel met an error and remounted it.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.faults.set_read_only(is_read_only);
    }

    /// From now on every call is written down.
    pub fn record(&self) {
        self.faults.record();
    }

    /// What was recorded, in order; ends the recording.
    pub fn recorded(&self) -> Vec<(Call, String)> {
        self.faults.recorded()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        use rustix::mount::{UnmountFlags, unmount};
        self.heal();
        // By force: what still waits for an answer fails.
        let _ = unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH);
        if let Some(session) = self.session.take() {
            let _ = session.join();
        }
    }
}
