//! An open part that is held for as long as it is read.
//!
//! Invariants: the part's handle lives as long as what was opened of it. The ingest side writes new
//! records over the file of a segment that nobody holds any more, so an open part without its
//! handle would show them in place of its own.

use std::ops::Deref;
use std::sync::Arc;

use super::required::Required;
use crate::chunk::{OpenPart, Part};
use crate::damage::Damage;
use crate::signature::Bits;

/// See the page of the module.
pub(super) struct PinnedPart {
    open: Box<dyn OpenPart>,
    /// Chunks that may hold a match; `None`: all of them.
    candidates: Option<Bits>,
    _pin: Arc<dyn Part>,
}

impl PinnedPart {
    /// Opens a part for records that have what is required. May read and map.
    pub(super) fn open(part: Arc<dyn Part>, required: &Required) -> Result<Self, Damage> {
        let open = part.open()?;
        let candidates = open.candidates(required);
        Ok(Self { open, candidates, _pin: part })
    }

    /// Whether a chunk may hold a record that has what is required.
    pub(super) fn is_candidate(&self, index: usize) -> bool {
        self.candidates.as_ref().is_none_or(|bits| bits.contains(index))
    }
}

impl Deref for PinnedPart {
    type Target = dyn OpenPart;

    fn deref(&self) -> &Self::Target {
        &*self.open
    }
}
