//! What the registry does with files while space is short.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Registry, RegistryOptions};
use crate::storage::Storage;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};

fn registry(sim: &SimStorage) -> Registry {
    sim.create_dir_all(Path::new("/ingest")).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let flush_size_bytes = 1 << 16;
    let options = RegistryOptions::new(storage, PathBuf::from("/ingest"), 1);
    Registry::new(RegistryOptions { flush_size_bytes, ..options })
}

#[test]
fn while_space_is_short_no_file_waits_unused() {
    let sim = SimStorage::new(1);
    let registry = registry(&sim);
    let made = registry.prepare(3, 0).unwrap();
    registry.flush(&made[0], 0, 0).unwrap();
    assert_eq!(registry.pool_segments(), 1, "an unused file waits for its next life");
    assert!(registry.set_frugal(true).is_empty());
    assert_eq!((registry.pool_segments(), sim.files().len()), (0, 2));
    registry.flush(&made[1], 0, 0).unwrap();
    assert_eq!((registry.pool_segments(), sim.files().len()), (0, 1));
    assert!(registry.set_frugal(false).is_empty());
    registry.flush(&made[2], 0, 0).unwrap();
    assert_eq!((registry.pool_segments(), sim.files().len()), (1, 1));
}

#[test]
fn a_file_that_cannot_be_removed_stays_in_the_pool_and_is_told() {
    let sim = SimStorage::new(1);
    let registry = registry(&sim);
    let made = registry.prepare(1, 0).unwrap();
    registry.flush(&made[0], 0, 0).unwrap();
    sim.fail(Fault::random(Call::Remove, 1.0, FaultError::Io));
    let errors = registry.set_frugal(true);
    assert_eq!((errors.len(), errors[0].operation), (1, "remove"));
    assert_eq!(registry.pool_segments(), 1);
    sim.clear_faults();
    assert!(registry.set_frugal(true).is_empty());
    assert!(sim.files().is_empty());
}
