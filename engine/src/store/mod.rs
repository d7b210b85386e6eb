//! The store log: immutable segments of slabs of blocks, and what makes, merges and finds them.
//!
//! - what a file looks like: [`block`] and how it is encoded ([`codec`]), [`index`], [`slab`], [`footer`], [`name`];
//! - writing one: [`writer`], fed by [`merge`];
//! - reading one: [`open`], [`segment`];
//! - the set of them: [`catalogue`], opened by [`recover`];
//! - when what is done: [`gather`] (ingest segments become a store segment), [`compaction`] and
//!   [`retention`] (expired segments go to the [`trash`] and from there).
//!
//! Invariants: a published segment never changes; it is written under a temporary name, synced,
//! renamed, the directory synced, and only then anything it replaces is dropped.

pub mod block;
mod blocks;
pub mod catalogue;
pub mod codec;
pub mod compaction;
pub mod compaction_run;
pub mod footer;
pub mod gather;
pub mod gather_run;
pub mod index;
pub mod merge;
pub mod name;
pub mod open;
pub mod recover;
pub mod retention;
pub mod retention_run;
pub mod segment;
mod signatures;
pub mod slab;
pub mod trash;
mod write_error;
pub mod writer;

#[cfg(test)]
mod amplification_tests;
mod fields;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod golden_tests;
mod known_damage;
mod open_block;
mod output;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::storage::Storage;

use name::IdSource;

/// The directory that holds store segments.
pub struct StoreDirectory {
    /// Where it is kept.
    pub storage: Arc<dyn Storage>,
    /// The directory.
    pub path: PathBuf,
    /// Identities for new segments and slabs.
    pub ids: IdSource,
}

impl fmt::Debug for StoreDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreDirectory").field("path", &self.path).finish_non_exhaustive()
    }
}
