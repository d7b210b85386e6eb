//! Whether the clock was set not long ago, noted in the store directory by a file's name alone: a node
//! that starts meanwhile trusts its clock no more than the one before did.
//!
//! Invariants: the note is durable before it counts as made; what could not be looked up is not known to
//! be absent. One that a power loss brings back costs one pause.

use std::io;
use std::sync::Arc;

use super::StoreDirectory;
use crate::storage::{Open, Refusal};

/// The note.
pub const CLOCK_NOTE_FILE: &str = "CLOCK-SET";

/// See the page of the module.
#[derive(Debug)]
pub struct ClockNote {
    directory: Arc<StoreDirectory>,
    /// `None` before it was looked up.
    is_there: Option<bool>,
}

impl ClockNote {
    /// That of a directory, as an earlier node left it.
    pub const fn of(directory: Arc<StoreDirectory>) -> Self {
        Self { directory, is_there: None }
    }

    /// Looks it up, the first time: whether the clock was set not long before the start.
    ///
    /// # Errors
    /// Those of the disk: it is to be called again, and nothing is known before.
    pub fn find(&mut self) -> io::Result<Option<bool>> {
        if self.is_there.is_some() {
            return Ok(None);
        }
        let path = self.directory.path.join(CLOCK_NOTE_FILE);
        self.is_there = Some(match self.directory.storage.open(&path, Open::Read) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            // Whatever has the name says it.
            Err(e) if Refusal::from(&e).is_no_file() => true,
            Err(e) => return Err(e),
        });
        Ok(self.is_there)
    }

    /// Notes that the clock was set, or that it is trusted again; nothing if that is known.
    ///
    /// # Errors
    /// Those of the disk: it is to be called again.
    pub fn keep(&mut self, is_set: bool) -> io::Result<()> {
        if self.is_there == Some(is_set) {
            return Ok(());
        }
        let StoreDirectory { storage, path, .. } = &*self.directory;
        let (file, before) = (path.join(CLOCK_NOTE_FILE), self.directory.before_name());
        let (done, expected) = if is_set {
            (storage.open(&file, Open::CreateNew).map(drop), io::ErrorKind::AlreadyExists)
        } else {
            (storage.remove(&file), io::ErrorKind::NotFound)
        };
        match done {
            Err(e) if e.kind() != expected => return Err(e),
            _ => {}
        }
        if is_set {
            self.directory.sync_since(before)?;
        }
        self.is_there = Some(is_set);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::name::IdSource;
    use std::path::{Path, PathBuf};

    fn note(sim: &SimStorage) -> ClockNote {
        let storage = Arc::new(sim.clone()) as Arc<dyn Storage>;
        let directory = StoreDirectory::new(storage, PathBuf::from("/store"), IdSource::seeded(1));
        ClockNote::of(Arc::new(directory))
    }

    fn is_found(sim: &SimStorage) -> bool {
        note(sim).find().unwrap().expect("it is the first time")
    }

    fn disk() -> SimStorage {
        let sim = SimStorage::new(1);
        sim.create_dir_all(Path::new("/store")).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        sim
    }

    #[test]
    fn what_was_noted_outlives_the_power_and_what_was_taken_back_a_kill() {
        let sim = disk();
        let mut note = note(&sim);
        assert_eq!(note.find().unwrap(), Some(false));
        assert_eq!(note.find().unwrap(), None, "once");
        note.keep(true).unwrap();
        for seed in 0..20 {
            assert!(is_found(&sim.crash(seed)));
        }
        note.keep(true).unwrap();
        note.keep(false).unwrap();
        assert!(!is_found(&sim.kill()));
    }

    #[test]
    fn whatever_has_the_name_of_the_note_is_one() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join(CLOCK_NOTE_FILE)).unwrap();
        let directory = crate::store::testing::directory(temp.path());
        let mut note = ClockNote::of(directory);
        assert_eq!(note.find().unwrap(), Some(true));
        note.keep(true).unwrap();
        note.keep(false).unwrap_err();
    }

    #[test]
    fn a_note_that_could_not_be_made_is_made_again_and_one_that_could_not_be_looked_up_looked_up() {
        for call in [Call::Create, Call::SyncDir] {
            let sim = disk();
            let mut note = note(&sim);
            sim.fail(Fault::next(call, 1, FaultError::Io));
            note.keep(true).unwrap_err();
            note.keep(true).unwrap();
            assert!(is_found(&sim.crash(7)), "{call:?}");
            let mut again = self::note(&sim);
            sim.fail(Fault::next(Call::Open, 1, FaultError::TooManyFiles));
            again.find().unwrap_err();
            assert_eq!(again.find().unwrap(), Some(true));
        }
    }
}
