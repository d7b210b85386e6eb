//! An open part that is held for as long as it is read.
//!
//! Invariants: the part's handle lives as long as what was opened of it. The ingest side writes new
//! records over the file of a segment that nobody holds any more, so an open part without its
//! handle would show them in place of its own.

use std::ops::Deref;
use std::sync::Arc;

use crate::chunk::{OpenPart, Part};
use crate::damage::Damage;

/// See the page of the module.
pub(super) struct PinnedPart {
    open: Box<dyn OpenPart>,
    _pin: Arc<dyn Part>,
}

impl PinnedPart {
    /// Opens a part. May read and map.
    pub(super) fn open(part: Arc<dyn Part>) -> Result<Self, Damage> {
        Ok(Self { open: part.open()?, _pin: part })
    }
}

impl Deref for PinnedPart {
    type Target = dyn OpenPart;

    fn deref(&self) -> &Self::Target {
        &*self.open
    }
}
