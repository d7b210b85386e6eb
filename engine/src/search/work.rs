//! What a sweep hands out to be done, and its result.
//!
//! Invariants: whoever does it needs nothing of the sweep; it names the file that is read for it before
//! anything is read, so that work on a file that hangs can be left undone.
//!
//! Not here: what is handed out when, and what a result means: [`super::sweep`].

use std::path::PathBuf;
use std::sync::Arc;

use super::pinned::PinnedPart;
use super::scan::{Found, Scan, ScanSpec};
use crate::chunk::Part;
use crate::damage::Damage;
use crate::ulid::Ulid;

/// Work for a scan thread.
pub(super) struct Work {
    pub(super) track: u64,
    pub(super) scan_spec: Arc<ScanSpec>,
    pub(super) job: WorkKind,
}

/// What there is to do.
pub(super) enum WorkKind {
    /// For records between these two.
    Open(Arc<dyn Part>, (Ulid, Ulid)),
    Scan(Scan),
}

/// The result of [`Work`].
pub(super) struct Done {
    pub(super) track: u64,
    pub(super) result: DoneKind,
}

/// What became of it.
pub(super) enum DoneKind {
    Opened(Result<PinnedPart, Damage>),
    Scanned(Result<Found, Damage>),
    /// Not done, for this file hangs.
    Hangs(PathBuf),
}

impl Work {
    /// Does it. Opens, reads and searches: for scan threads only.
    pub(super) fn run(self) -> Done {
        let result = match self.job {
            WorkKind::Open(part, bounds) => {
                DoneKind::Opened(PinnedPart::open(part, &self.scan_spec, bounds))
            }
            WorkKind::Scan(scan) => DoneKind::Scanned(scan.run(&self.scan_spec)),
        };
        Done { track: self.track, result }
    }

    /// The track that it is for, and the file that has to be read for it.
    pub(super) fn file(&self) -> Option<(u64, PathBuf)> {
        let path = match &self.job {
            WorkKind::Open(part, _) => part.file_path(),
            WorkKind::Scan(scan) => scan.part.file_path(),
        };
        Some((self.track, path?))
    }

    /// Leaves it undone, because its file hangs.
    pub(super) fn refuse(self, path: PathBuf) -> Done {
        Done { track: self.track, result: DoneKind::Hangs(path) }
    }
}

impl Done {
    /// Text that was searched, bytes.
    pub(super) fn bytes_scanned(&self) -> u64 {
        match &self.result {
            DoneKind::Scanned(Ok(found)) => found.cost.scanned,
            _ => 0,
        }
    }
}
