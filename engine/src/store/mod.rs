//! The store log: immutable segments of slabs of blocks, and what makes, merges and finds them.
//!
//! - what a file looks like: [`block`] and how it is encoded ([`codec`]), [`index`], [`slab`], [`footer`], [`name`];
//! - writing one: [`writer`], fed by [`merge`];
//! - reading one: [`open`], [`segment`];
//! - the set of them: [`catalogue`], opened by [`recover`];
//! - which records a segment holds: [`coverage`]; which segments stay together: [`volume`];
//! - which of all that was published is missing: [`inventory`];
//! - when what is done: [`gather`] (ingest segments become a store segment), [`compaction`] and
//!   [`retention`] (expired segments go to the [`trash`] and from there).
//!
//! Invariants: a published segment never changes; it is written under a temporary name, synced,
//! renamed, the directory synced, and only then anything it replaces is dropped.

pub mod block;
mod blocks;
pub mod catalogue;
pub mod clock_note;
pub mod codec;
pub mod compaction;
pub mod compaction_run;
pub mod coverage;
pub(crate) mod entry_table;
pub mod footer;
pub mod gather;
pub mod gather_run;
pub mod index;
pub mod inventory;
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
pub mod volume;
mod write_error;
pub mod writer;

#[cfg(test)]
mod amplification_tests;
pub(crate) mod fields;
#[cfg(test)]
mod fuzz_tests;
mod gather_error;
#[cfg(test)]
mod golden_tests;
mod open_block;
mod opened;
mod output;
mod put_back;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::caches::Caches;
use crate::identity::{IDENTITY_FILE, Identity, IdentityKeeper, NodeId};
use crate::storage::Storage;

use name::IdSource;
use volume::{Volume, VolumeId};

/// The directory that holds store segments.
pub struct StoreDirectory {
    /// Where it is kept.
    pub storage: Arc<dyn Storage>,
    /// The directory.
    pub path: PathBuf,
    /// Identities for new segments and slabs.
    pub ids: IdSource,
    /// What its node keeps at hand: its own, which the other side and search are given, too.
    pub caches: Arc<Caches>,
    /// Whose turn it is to make names durable, and what came of it.
    names: Names,
    /// Which directory had the path at the start, if that could be told.
    ground: Option<u128>,
    /// Who it is, where a node has it.
    identity: OnceLock<Identity>,
    /// Brings that to disk before the first segment is published.
    identity_keeper: OnceLock<Mutex<IdentityKeeper>>,
}

/// Makes the names of a directory durable.
///
/// A sync of a directory that failed may have dropped what it should have written, names that others
/// made among it, and a later one that succeeds does not bring it back. So a name counts as durable
/// only if, from before it was made until after a sync that succeeded, no sync of the directory failed.
#[derive(Debug, Default)]
struct Names {
    /// Syncs that failed. Held for as long as one takes, so that none is under way unseen.
    failed: Mutex<u64>,
}

/// A moment before a name was made; see [`StoreDirectory::sync_since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeforeName(u64);

impl StoreDirectory {
    /// The directory at `path`.
    pub fn new(storage: Arc<dyn Storage>, path: PathBuf, ids: IdSource) -> Self {
        let ground = storage.identity(&path).ok();
        let (caches, names) = (Arc::default(), Names::default());
        let (identity, identity_keeper) = (OnceLock::new(), OnceLock::new());
        Self { storage, path, ids, caches, names, ground, identity, identity_keeper }
    }

    /// It is in the hands of a node, and this is who it is, as was read from it.
    pub fn is_of(&self, identity: IdentityKeeper) {
        // Read once more it says the same.
        let _ = self.identity.set(identity.identity());
        let _ = self.identity_keeper.set(Mutex::new(identity));
    }

    /// Who it is; `None`: no node has it. Waits for nobody.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.get().copied()
    }

    /// Brings its identity to disk, if it is not yet there: before, nothing is kept here.
    pub fn begin(&self) -> io::Result<()> {
        let Some(keeper) = self.identity_keeper.get() else { return Ok(()) };
        let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.before_name();
        let begun = keeper.start(&|| self.sync_since(before));
        drop(keeper);
        begun.map_err(|e| io::Error::new(e.kind(), format!("{IDENTITY_FILE} beside it: {e}")))
    }

    /// A name for a volume.
    pub fn new_volume_id(&self) -> VolumeId {
        VolumeId(u128::from(self.ids.next_id()) << 64 | u128::from(self.ids.next_id()))
    }

    /// A volume that nobody adds to.
    pub(crate) fn lone_volume(&self) -> Volume {
        Volume { id: self.new_volume_id(), opener: NodeId(0), opened_ms: 0 }
    }

    /// Looks whether it is where it was. An error: another one has its place, or nobody knows: what is
    /// made in it is no promise to anybody.
    pub fn look(&self) -> io::Result<()> {
        let Some(ground) = self.ground else { return Ok(()) };
        if self.storage.identity(&self.path)? == ground {
            return Ok(());
        }
        Err(io::Error::other("the directory was taken away: another one has its name"))
    }

    /// To be asked for before a name is made that is to be durable.
    pub fn before_name(&self) -> BeforeName {
        BeforeName(*self.names.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the names durable that were made since `before`. An error: those may be lost for good,
    /// whatever becomes of later syncs.
    pub fn sync_since(&self, before: BeforeName) -> io::Result<()> {
        let mut failed = self.names.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.storage.sync_dir(&self.path) {
            *failed += 1;
            return Err(error);
        }
        assert!(before.0 <= *failed, "syncs that failed are not forgotten");
        if *failed == before.0 {
            return Ok(());
        }
        Err(io::Error::other(
            "a sync of the directory failed meanwhile, which may have lost the name",
        ))
    }

    /// Makes removals and moves durable that need not last: what comes back is dealt with again.
    pub fn sync(&self) -> io::Result<()> {
        self.sync_since(self.before_name())
    }
}

impl fmt::Debug for StoreDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreDirectory").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Side;
    use crate::storage::OsStorage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::footer::Inputs;
    use crate::store::testing::{SMALL, append_all, read_all, record};
    use crate::store::writer::SegmentWriter;
    use std::path::Path;

    fn on_sim() -> (SimStorage, Arc<StoreDirectory>) {
        let sim = SimStorage::new(1);
        let path = Path::new("/store");
        sim.create_dir_all(path).unwrap();
        let storage = Arc::new(sim.clone());
        let ids = IdSource::seeded(1);
        (sim, Arc::new(StoreDirectory::new(storage, path.to_owned(), ids)))
    }

    #[test]
    fn a_name_is_not_durable_if_any_sync_failed_since_before_it_was_made() {
        let (sim, directory) = on_sim();
        let before = directory.before_name();
        assert!(directory.sync_since(before).is_ok());
        sim.fail(Fault { call: Some(Call::SyncDir), ..Fault::nth(1, FaultError::Io) });
        // Somebody else's, of a file that went to the trash, say.
        assert!(directory.sync().is_err());
        assert!(directory.sync_since(before).is_err(), "the one that failed may have lost it");
        assert!(directory.sync_since(before).is_err(), "for good");
        assert!(directory.sync_since(directory.before_name()).is_ok(), "a name made since is");
    }

    #[test]
    fn nothing_is_published_into_another_directory_that_has_the_name_of_ours() {
        let parent = tempfile::tempdir().unwrap();
        let (home, away) = (parent.path().join("store"), parent.path().join("away"));
        std::fs::create_dir(&home).unwrap();
        let ids = IdSource::seeded(1);
        let directory = Arc::new(StoreDirectory::new(Arc::new(OsStorage), home.clone(), ids));
        let records: Vec<_> = (0..20).map(|n| record(1, n)).collect();
        let sealed = || {
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records);
            writer.seal(Inputs::default()).unwrap().unwrap()
        };
        let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
        std::fs::rename(&home, &away).unwrap();
        std::fs::create_dir(&home).unwrap();
        let error = sealed().publish().err().unwrap().to_string();
        assert!(error.contains("taken away"), "{error}");
        assert_eq!((count(&home), count(&away)), (0, 0));
        std::fs::remove_dir(&home).unwrap();
        std::fs::rename(&away, &home).unwrap();
        assert_eq!(read_all(&sealed().publish().unwrap()).0, records);
    }

    #[test]
    fn nothing_is_published_before_the_identity_of_the_store_is_on_disk() {
        let (sim, directory) = on_sim();
        let opened =
            IdentityKeeper::open(Arc::new(sim.clone()), &directory.path, Side::Store, NodeId(7));
        directory.is_of(opened.unwrap().keeper);
        let records: Vec<_> = (0..20).map(|n| record(1, n)).collect();
        let sealed = || {
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records);
            writer.seal(Inputs::default()).unwrap().unwrap()
        };
        let refused = Fault::random(Call::Write, 1.0, FaultError::NoSpace);
        let unpublished = sealed();
        sim.fail(Fault { path_part: IDENTITY_FILE.into(), ..refused });
        let told = unpublished.publish().err().unwrap().to_string();
        assert!(told.contains(IDENTITY_FILE), "{told}");
        assert!(!sim.files().iter().any(|path| path.extension().is_some_and(|e| e == "flushed")));
        sim.clear_faults();
        let segment = sealed().publish().unwrap();
        assert_eq!(sim.files(), [segment.path().to_owned(), directory.path.join(IDENTITY_FILE)]);
        assert_eq!(directory.identity().unwrap().id, NodeId(7));
    }

    #[test]
    fn a_sync_that_failed_for_the_identity_may_have_lost_other_names_too() {
        let (sim, directory) = on_sim();
        let opened =
            IdentityKeeper::open(Arc::new(sim.clone()), &directory.path, Side::Store, NodeId(7));
        directory.is_of(opened.unwrap().keeper);
        let before = directory.before_name();
        sim.fail(Fault { call: Some(Call::SyncDir), ..Fault::nth(1, FaultError::Io) });
        assert!(directory.begin().is_err());
        assert!(directory.sync_since(before).is_err());
        directory.begin().unwrap();
        assert!(sim.crash(1).files().contains(&directory.path.join(IDENTITY_FILE)));
    }

    #[test]
    fn a_segment_whose_name_may_be_lost_is_written_anew() {
        let (sim, directory) = on_sim();
        let records: Vec<_> = (0..20).map(|n| record(1, n)).collect();
        let sealed = || {
            let mut writer = SegmentWriter::new(&directory, SMALL);
            append_all(&mut writer, &records);
            writer.seal(Inputs::default()).unwrap().unwrap()
        };
        sim.fail(Fault { call: Some(Call::SyncDir), ..Fault::nth(1, FaultError::Io) });
        assert!(sealed().publish().is_err());
        assert_eq!(sim.files(), Vec::<PathBuf>::new(), "no name is left that somebody may believe");
        let segment = sealed().publish().unwrap();
        assert_eq!(read_all(&segment).0, records);
        assert_eq!(sim.files(), [segment.path()]);
    }
}
