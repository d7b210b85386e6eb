//! What is missing of the segments that waited when the node stopped: somebody took their files away.
//!
//! Invariants: nothing is claimed or removed before the file that says what waited claims no more than what
//! is missing, and that file is as it was before everything else of a start has gone well. What is missing
//! is told in every answer until it is too old, or found. What the store may hold in what it cannot read is
//! claimed on, and told once the store can read that, if it does not hold it.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{FileError, Registry, RegistryOptions};
use crate::damage::{Damage, DamageKind};
use crate::identity::NodeId;
use crate::ingest::segment::{Segment, SegmentState};
use crate::ingest::waiting::{Missing, TRIES, WAITING_FILE};
use crate::store::coverage::{Coverage, Gap};
use crate::store::inventory::Holdings;
use crate::ulid::Ulid;

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
    /// There is a store that may hold it.
    has_store: bool,
    next_try_ms: u64,
    /// Tries to write it, since the last one that did not fail.
    failed_tries: u32,
}

impl Missed {
    /// Whether segments may be claimed, and files be removed.
    pub(super) const fn is_settled(&self) -> bool {
        !self.missing.is_owed()
    }

    fn tell(&mut self, directory: &Path) {
        self.told = self.missing.holes(directory);
    }
}

impl Registry {
    /// This is missing, as far as the disk says, and the store, where the node has one; what was found by
    /// recovery after all is not.
    pub(crate) fn begin_missing(&self, mut missing: Missing, own: NodeId, has_store: bool) {
        leave_out(&mut missing, &self.snapshot());
        let mut inner = self.lock();
        inner.missed = Missed { missing, own: Some(own), has_store, ..Missed::default() };
        inner.missed.tell(&self.options.directory);
    }

    /// More was found here than at the start.
    pub(super) fn found_more(&self) {
        let found = self.snapshot();
        let mut inner = self.lock();
        if leave_out(&mut inner.missed.missing, &found) {
            inner.missed.tell(&self.options.directory);
        }
    }

    /// The store can read more than before: what it may have held is to be compared with it anew.
    pub(crate) fn set_missing_stale(&self) {
        self.lock().missed.missing.set_stale();
    }

    /// Whether the store is to be asked about what is missing.
    pub(crate) fn is_missing_stale(&self) -> bool {
        self.lock().missed.missing.is_stale()
    }

    /// What the store says of what is missing; returns the holes that are told now and were not before.
    pub(crate) fn compare_missing(&self, holdings: Holdings) -> Vec<Damage> {
        let mut inner = self.lock();
        let before = std::mem::take(&mut inner.missed.told);
        inner.missed.missing.compare(holdings);
        inner.missed.tell(&self.options.directory);
        let before: HashSet<_> = before.iter().map(identity).collect();
        let told = inner.missed.told.iter();
        told.filter(|hole| !before.contains(&identity(hole))).cloned().collect()
    }

    /// What is missing, a hole each.
    pub fn missing(&self) -> Vec<Damage> {
        self.lock().missed.told.clone()
    }

    /// Records that are missing.
    pub fn missing_records(&self) -> u64 {
        self.lock().missed.told.iter().filter_map(|hole| hole.records).sum()
    }

    /// Whether segments can be claimed: not before what the last life has left is settled.
    pub fn is_settled(&self) -> bool {
        self.lock().missed.is_settled()
    }

    /// What was stamped up to then, milliseconds since 1970, is too old to be missed.
    pub fn let_go_missing(&self, until_ms: u64) {
        let mut inner = self.lock();
        if inner.missed.missing.waiting().is_empty() {
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
        let is_due = {
            let missed = &self.lock().missed;
            !missed.missing.is_saved() && now_ms >= missed.next_try_ms
        };
        if !is_due {
            return Ok(());
        }
        let (mut missing, own) = self.missing_read_late(now_ms)?;
        if missing.is_unread() {
            return Ok(());
        }
        let saved = self.save(&mut missing, own);
        let failed_tries = self.lock().missed.failed_tries + 1;
        let given_up = saved.is_err() && missing.is_owed() && failed_tries >= TRIES;
        if given_up {
            let RegistryOptions { storage, directory, .. } = &self.options;
            missing.give_up(&**storage, directory, &|| self.sync_directory());
        }
        let mut inner = self.lock();
        let missed = &mut inner.missed;
        if saved.is_err() {
            missed.next_try_ms = now_ms.saturating_add(RETRY_MS);
        }
        missed.failed_tries = if saved.is_err() { failed_tries } else { 0 };
        // What became too old meanwhile is written the next time.
        missed.missing.was_saved_as(&missing);
        let operation = if given_up {
            "write (so it is given up: what is missing is told on, and forgotten after a kill)"
        } else {
            "write"
        };
        saved.map_err(|error| self.waiting_error(operation, error))
    }

    /// What is missing, and whose file says so; what could not be read of it is tried now. An error: it is
    /// given up.
    fn missing_read_late(&self, now_ms: u64) -> Result<(Missing, NodeId), FileError> {
        let (mut missing, own) = self.missing_now();
        if !missing.is_unread() {
            return Ok((missing, own));
        }
        let RegistryOptions { storage, directory, .. } = &self.options;
        let read = missing.read_late(&**storage, directory, own);
        let next_try_ms = now_ms.saturating_add(RETRY_MS);
        if !missing.is_unread() {
            if self.lock().missed.has_store {
                missing.hide();
            }
            leave_out(&mut missing, &self.snapshot());
        }
        let mut inner = self.lock();
        (inner.missed.missing, inner.missed.next_try_ms) = (missing.clone(), next_try_ms);
        inner.missed.tell(directory);
        drop(inner);
        let failed = |damage: Damage| {
            self.waiting_error("read, and give up,", io::Error::other(damage.kind.to_string()))
        };
        read.map(|()| (missing, own)).map_err(failed)
    }

    fn missing_now(&self) -> (Missing, NodeId) {
        let missed = &self.lock().missed;
        (missed.missing.clone(), missed.own.unwrap_or(NodeId(0)))
    }

    /// To be called when nobody is left who could claim anything, or write: says on disk which segments
    /// wait for the next start, and what was missing before.
    pub fn note_waiting(&self) -> Result<(), FileError> {
        let _operation = self.lock_operation();
        let mut waiting = self.snapshot();
        // What could not be given its state yet may end anywhere.
        waiting.retain(|segment| segment.state() != SegmentState::Active);
        let read = self.missing_read_late(0);
        let (mut missing, own) = self.missing_now();
        if missing.is_unread() {
            // It stays as it is: nothing of what it claims has gone.
            let error = io::Error::other("it could not be read yet");
            return Err(self.waiting_error("write", error));
        }
        missing.change(|all| {
            for segment in &waiting {
                all.add(segment.id(), &segment.coverage());
            }
        });
        self.save(&mut missing, own).map_err(|error| self.waiting_error("write", error))?;
        read.map(|_| ())
    }

    fn save(&self, missing: &mut Missing, own: NodeId) -> io::Result<()> {
        let storage = &*self.options.storage;
        missing.save(storage, &self.options.directory, own, &|| self.sync_directory())
    }

    fn waiting_error(&self, operation: &'static str, error: io::Error) -> FileError {
        FileError { operation, path: self.options.directory.join(WAITING_FILE), error }
    }
}

/// Which hole that is.
fn identity(hole: &Damage) -> (&Path, Option<(Ulid, Ulid)>, Option<(u64, u64)>) {
    let counters = match &hole.kind {
        DamageKind::Missing(_, gap) => Some((gap.stream, gap.from)),
        _ => None,
    };
    (&hole.path, hole.range, counters)
}

/// What these hold is not missing; says whether it was.
fn leave_out(missing: &mut Missing, found: &[Arc<Segment>]) -> bool {
    if missing.waiting().is_empty() {
        return false;
    }
    // Of most nothing waited: each life has streams of its own.
    let streams = missing.waiting().streams();
    let is_of = |held: &Coverage| held.intervals().iter().any(|i| streams.contains(&i.stream));
    let found: Vec<_> = found.iter().map(|segment| segment.coverage()).filter(is_of).collect();
    !found.is_empty()
        && missing.change(|waiting| {
            for held in &found {
                waiting.leave_out(held);
            }
        })
}
