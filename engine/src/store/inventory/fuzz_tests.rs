//! Fuzz target of inventories. See [`crate::fuzz`].

use std::sync::OnceLock;

use proptest::prelude::*;

use super::look::check;
use super::*;
use crate::fuzz::{assert_little_was_allocated, cases, changed, changes};
use crate::storage::sim::SimStorage;
use crate::storage::{Open, Storage};
use crate::store::testing::{coverage_of_records, record};

/// Files as nodes write them.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let coverage = |stream, counters: std::ops::Range<u64>| {
            coverage_of_records(&counters.map(|n| record(stream, n)).collect::<Vec<_>>())
        };
        let mut inventory = Inventory::default();
        let mut seeds = vec![inventory.encode(NodeId(0))];
        inventory.add(&[coverage(1, 0..40)]);
        seeds.push(inventory.encode(NodeId(1)));
        inventory.add(&[coverage(1, 60..90), coverage(2, 0..5), coverage(3, 7..9)]);
        inventory.let_go(&coverage(1, 0..20));
        inventory.let_go(&coverage(3, 7..8));
        inventory.let_go_unknown(1_600_000_000_000);
        inventory.set_horizon(1_500_000_000_000);
        seeds.push(inventory.encode(NodeId(1 << 100)));
        seeds
    })
}

proptest! {
    #![proptest_config(cases(400))]

    /// What it says is possible and means the same everywhere, also behind a checksum that holds.
    #[test]
    fn fuzz_inventories(plan in changes(), is_sealed: bool) {
        let mut bytes = changed(seeds(), &plan);
        if is_sealed && let Some(end) = bytes.len().checked_sub(4) {
            let crc = crc32fast::hash(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
        let (disk, path) = (SimStorage::new(1), Path::new("/store").join(INVENTORY_FILE));
        disk.create_dir_all(Path::new("/store")).unwrap();
        disk.open(&path, Open::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
        let told = check(&disk, &path).unwrap();
        let Ok((store, inventory)) = Inventory::decode(&bytes) else {
            prop_assert!(told.len() == 1 && !seeds().contains(&bytes), "what cannot be read is told");
            return Ok(());
        };
        prop_assert!(is_sealed || seeds().contains(&bytes), "a change was not noticed");
        let (again, same) = Inventory::decode(&inventory.encode(store)).unwrap();
        prop_assert!(again == store && same.is_same(&inventory));

        let holes = inventory.holes(&mut Present::default());
        prop_assert_eq!(told.len(), holes.len(), "nothing is there");
        for hole in &holes {
            let held = inventory.held.of_stream(hole.stream);
            prop_assert!(held.map(Interval::record_count).sum::<u64>() >= hole.record_count());
            prop_assert!(hole.from <= hole.to && hole.from_ms <= hole.to_ms);
        }
        let mut present = Present::default();
        present.add(Some(&inventory.held), (Ulid::MIN, Ulid::MAX));
        prop_assert_eq!(inventory.holes(&mut present), []);
        let mut emptied = inventory.clone();
        emptied.let_go(&inventory.held);
        prop_assert!(emptied.holes(&mut Present::default()).is_empty());
        assert_little_was_allocated();
    }
}
