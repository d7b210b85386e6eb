//! The spool on the simulated disk.

use super::*;
use crate::storage::sim::SimStorage;

fn first(n: u64) -> Entry {
    Entry {
        bytes: format!("line {n}\n").into_bytes(),
        lines: 1,
        starts_line: true,
        ends_line: true,
    }
}

fn open(disk: &SimStorage) -> Spool {
    Spool::open(Arc::new(disk.clone()), PathBuf::from("/spool"), 1 << 20).unwrap().spool
}

#[test]
fn smoke() {
    let disk = SimStorage::new(1);
    let mut spool = open(&disk);
    for n in 0..3 {
        assert_eq!(spool.append(&first(n), false).unwrap(), n);
    }
    assert_eq!(spool.next().unwrap(), Some((0, first(0))));
    spool.release(1).unwrap();
    let mut spool = open(&disk.kill());
    assert_eq!(spool.pending_lines(), 2);
    assert_eq!(spool.next().unwrap(), Some((1, first(1))));
    assert_eq!(spool.next().unwrap(), Some((2, first(2))));
    assert_eq!(spool.next().unwrap(), None);
}
