//! Fuzz target of spool files: a spool directory with one changed file is opened and read.
//!
//! See `docs/fuzzing.md`.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::fuzz::{assert_little_was_allocated, cases, changed, changes};
use crate::storage::sim::SimStorage;

const DIRECTORY: &str = "/spool";
const BYTES_MAX: u64 = 1 << 20;

/// Names and bytes of a spool with entries, and the entries.
struct Seeds {
    names: Vec<PathBuf>,
    files: Vec<Vec<u8>>,
    entries: Vec<Entry>,
}

fn open(disk: &SimStorage) -> Spool {
    let opened = Spool::open(Arc::new(disk.clone()), PathBuf::from(DIRECTORY), BYTES_MAX);
    opened.unwrap().spool
}

fn seeds() -> &'static Seeds {
    static SEEDS: LazyLock<Seeds> = LazyLock::new(|| {
        let disk = SimStorage::new(1);
        let mut entries = Vec::new();
        // Two lives: two files and a mark.
        for _ in 0..2 {
            let mut spool = open(&disk);
            for n in 0..6usize {
                let mut bytes = format!("{} ", entries.len()).into_bytes();
                bytes.resize(bytes.len() + n * 37, b'x');
                bytes.push(b'\n');
                let entry = Entry { bytes, lines: 1, starts_line: true, ends_line: true };
                spool.append(&entry, false).unwrap();
                entries.push(entry);
            }
            if entries.len() == 6 {
                spool.read_next().unwrap();
                spool.release(1).unwrap();
            }
        }
        let names: Vec<PathBuf> = disk.files();
        let read = |path: &PathBuf| {
            let file = disk.open(path, Open::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let files = names.iter().map(read).collect();
        Seeds { names, files, entries }
    });
    &SEEDS
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn fuzz_spool_files(plan in changes()) {
        let seeds = seeds();
        let which = plan.0.index(seeds.names.len());
        let bytes = changed(&seeds.files, &plan);
        let disk = SimStorage::new(2);
        drop(open(&disk));
        for (at, name) in seeds.names.iter().enumerate() {
            let file = disk.open(name, Open::CreateNew).unwrap();
            file.write_all_at(if at == which { &bytes } else { &seeds.files[at] }, 0).unwrap();
        }
        let mut spool = open(&disk);
        let mut last = None;
        let mut read = 0;
        while let Some((number, entry)) = spool.read_next().unwrap() {
            prop_assert!(last < Some(number), "out of order");
            let written = usize::try_from(number).ok().and_then(|n| seeds.entries.get(n));
            prop_assert_eq!(Some(&entry), written, "invented");
            last = Some(number);
            read += 1;
        }
        if bytes == seeds.files[which] {
            prop_assert_eq!((read, spool.take_damage()), (11, vec![]));
        }
        assert_little_was_allocated();
    }
}
