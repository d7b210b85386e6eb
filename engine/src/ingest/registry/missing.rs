//! What is missing of the segments that waited when the node stopped: somebody took their files away.
//!
//! Invariants: nothing is claimed or removed before the file that says what waited claims no more than what
//! is missing. What is missing is told in every answer until it is too old, or found by a later start.

use std::io;
use std::path::Path;

use super::{FileError, Registry};
use crate::damage::Damage;
use crate::identity::NodeId;
use crate::ingest::segment::SegmentState;
use crate::ingest::waiting::{Missing, WAITING_FILE};
use crate::store::coverage::Gap;

/// Time between tries to write the file that says what is missing, milliseconds.
const RETRY_MS: u64 = 500;

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Missed {
    missing: Missing,
    /// As answers are told it.
    pub(super) told: Vec<Damage>,
    /// Whose file it is.
    own: Option<NodeId>,
    next_try_ms: u64,
}

impl Missed {
    /// Whether segments may be claimed, and files be removed.
    pub(super) const fn is_settled(&self) -> bool {
        !self.missing.is_owed()
    }

    fn tell(&mut self, directory: &Path) {
        self.told = self.missing.waiting().damage(directory);
    }
}

impl Registry {
    /// This is missing, as far as the disk says; what was found by recovery after all is not.
    pub(crate) fn begin_missing(&self, mut missing: Missing, own: NodeId) {
        if !missing.waiting().is_empty() {
            for segment in self.snapshot() {
                missing.change(|waiting| waiting.leave_out(&segment.coverage()));
            }
        }
        let mut inner = self.lock();
        inner.missed = Missed { missing, own: Some(own), ..Missed::default() };
        inner.missed.tell(&self.options.directory);
    }

    /// What is missing, a hole each.
    pub fn missing(&self) -> Vec<Damage> {
        self.lock().missed.told.clone()
    }

    /// Records that are missing.
    pub fn missing_records(&self) -> u64 {
        self.lock().missed.missing.waiting().record_count()
    }

    /// Whether segments can be claimed: not before what the last life has left is settled.
    pub fn is_settled(&self) -> bool {
        self.lock().missed.is_settled()
    }

    /// What was stamped up to then, milliseconds since 1970, is too old to be missed.
    pub fn let_go_missing(&self, until_ms: u64) {
        let mut inner = self.lock();
        if inner.missed.told.is_empty() {
            return;
        }
        let is_old = |span: &Gap| span.to_ms <= until_ms;
        if inner.missed.missing.change(|waiting| waiting.leave_out_if(is_old)) {
            inner.missed.tell(&self.options.directory);
        }
    }

    /// Brings what is missing to disk, if it is not there as it is; by whoever holds the lock on
    /// operations.
    pub(super) fn keep_missing(&self, now_ms: u64) -> Result<(), FileError> {
        let (mut missing, own) = {
            let inner = self.lock();
            let missed = &inner.missed;
            if missed.missing.is_saved() || now_ms < missed.next_try_ms {
                return Ok(());
            }
            (missed.missing.clone(), missed.own)
        };
        let saved = self.save(&mut missing, own.unwrap_or(NodeId(0)));
        let mut inner = self.lock();
        let missed = &mut inner.missed;
        if saved.is_err() {
            missed.next_try_ms = now_ms.saturating_add(RETRY_MS);
        }
        // What became too old meanwhile is written the next time.
        missed.missing.was_saved_as(&missing);
        saved.map_err(|error| self.waiting_error(error))
    }

    /// To be called when nobody is left who could claim anything, or write: says on disk which segments
    /// wait for the next start, and what was missing before.
    pub fn note_waiting(&self) -> Result<(), FileError> {
        let _operation = self.lock_operation();
        let mut waiting = self.snapshot();
        // What could not be given its state yet may end anywhere.
        waiting.retain(|segment| segment.state() != SegmentState::Active);
        let (mut missing, own) = {
            let inner = self.lock();
            (inner.missed.missing.clone(), inner.missed.own)
        };
        missing.change(|all| {
            for segment in &waiting {
                all.add(segment.id(), &segment.coverage());
            }
        });
        self.save(&mut missing, own.unwrap_or(NodeId(0))).map_err(|error| self.waiting_error(error))
    }

    fn save(&self, missing: &mut Missing, own: NodeId) -> io::Result<()> {
        let storage = &*self.options.storage;
        missing.save(storage, &self.options.directory, own, &|| self.sync_directory())
    }

    fn waiting_error(&self, error: io::Error) -> FileError {
        FileError { operation: "write", path: self.options.directory.join(WAITING_FILE), error }
    }
}
