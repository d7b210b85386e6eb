//! The ingest side of this node, as its gathering sees it.
//!
//! Invariants: what gathering asks for is done by the registry alone; this only adds what is not a
//! segment's own: how long something has waited, and that nothing waits for company any more.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::draining::Draining;
use crate::ingest::registry::{ClaimLimits, FileError, Registry};
use crate::ingest::segment::SegmentState;
use crate::store::gather::Available;
use crate::store::gather_run::{Claimed, ClaimedInput};

/// See the module page. Shared by all who gather.
pub struct LocalIngest {
    /// Its segments.
    pub registry: Arc<Registry>,
    draining: Draining,
    /// Since when something has been waiting to be gathered.
    flushed_since_ms: Mutex<Option<u64>>,
}

impl LocalIngest {
    /// While the node is being emptied nothing waits for company.
    pub fn new(registry: Arc<Registry>, draining: Draining) -> Self {
        Self { registry, draining, flushed_since_ms: Mutex::default() }
    }

    /// What waits to be claimed, now.
    pub fn available(&self, now_ms: u64) -> Available {
        if !self.registry.is_settled() {
            return Available::default();
        }
        let rows = self.registry.list();
        let flushed =
            rows.iter().filter(|row| row.state == SegmentState::Flushed && row.is_offered);
        let (count, bytes) =
            flushed.fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.content.text_bytes));
        let mut since = self.flushed_since_ms.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if count == 0 { None } else { since.or(Some(now_ms)) };
        let oldest_age_ms = match *since {
            Some(_) if self.draining.is_begun() => u64::MAX,
            since => since.map_or(0, |since| now_ms.saturating_sub(since)),
        };
        Available { count, bytes, oldest_age_ms }
    }

    /// Claims the oldest segments; also files that stay where they are.
    pub(super) fn claim(
        &self,
        limits: ClaimLimits,
        now_ms: u64,
    ) -> io::Result<(Claimed, Vec<FileError>)> {
        let claim = self.registry.claim(limits, now_ms);
        *self.flushed_since_ms.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let named = |refused: FileError| io::Error::new(refused.error.kind(), refused.to_string());
        let token = claim.token;
        let (segments, errors) = claim.into_parts().map_err(named)?;
        let inputs = segments.into_iter().map(ClaimedInput::from).collect();
        Ok((Claimed { token, inputs }, errors))
    }
}
