//! One simulated file: what processes see of it, what the disk has of it, and the changes in
//! between.
//!
//! A change is remembered as whole sectors with the content they had right after it, because that
//! is what a cache writes back: a kept later write brings along what an earlier one put into the
//! same sector.

use std::sync::Arc;

use crate::random::Random;

/// The unit that a disk writes whole, bytes.
pub const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    /// Content from `start` (a multiple of the sector size) on; ends at the file's end or at a
    /// sector's.
    Sectors {
        start: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
}

/// Which unsynced changes a disk kept when the power went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    Everything,
    /// Whole changes, any of them.
    SomeChanges,
    /// Sectors, any of them.
    SomeSectors,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// Shared with maps and with other disks until somebody writes.
    pub(super) live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    unsynced: Vec<Change>,
    /// Changes with every change of the live bytes.
    pub(super) version: u64,
    /// Handles of the running process.
    pub(super) opens: u32,
}

impl Inode {
    /// An empty file.
    pub(super) fn new(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.live.len() {
            self.set_len(end);
        }
        let live = Arc::make_mut(&mut self.live);
        live[offset..end].copy_from_slice(bytes);
        let start = offset / SECTOR_BYTES * SECTOR_BYTES;
        let end = end.next_multiple_of(SECTOR_BYTES).min(live.len());
        self.unsynced.push(Change::Sectors { start, bytes: live[start..end].to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        resize(Arc::make_mut(&mut self.live), len);
        self.unsynced.push(Change::Length(len));
    }

    /// A sync that succeeded: every change since the last sync (failed or not) is on the disk.
    pub(super) fn sync(&mut self) {
        self.reach_disk(Fate::Everything, &mut Random::new(0));
    }

    /// A sync that failed: some of the bytes are on the disk, and the others never will be, because
    /// the kernel has marked them clean. The live image still shows them. A length is metadata: it
    /// stays to be written.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        let fate = match random.below(3) {
            0 => Fate::Nothing,
            1 => Fate::SomeChanges,
            _ => Fate::SomeSectors,
        };
        let is_length = |change: &&Change| matches!(change, Change::Length(_));
        let lengths: Vec<Change> = self.unsynced.iter().filter(is_length).cloned().collect();
        self.reach_disk(fate, random);
        self.unsynced = lengths;
    }

    /// What is found after the power came back.
    pub(super) fn after_crash(&self, random: &mut Random) -> Self {
        let fate = match random.below(4) {
            0 => Fate::Nothing,
            1 => Fate::Everything,
            2 => Fate::SomeChanges,
            _ => Fate::SomeSectors,
        };
        let mut after = self.clone();
        after.reach_disk(fate, random);
        after.live.clone_from(&after.durable);
        after.opens = 0;
        after
    }

    /// Changes the stored bytes behind everybody's back, as a failing medium does.
    pub(super) fn corrupt(&mut self, change: impl Fn(&mut Vec<u8>)) {
        change(Arc::make_mut(&mut self.live));
        change(Arc::make_mut(&mut self.durable));
    }

    fn reach_disk(&mut self, fate: Fate, random: &mut Random) {
        let changes = std::mem::take(&mut self.unsynced);
        // Lengths are metadata: they reach the disk in order, data does not have to.
        let lengths = match fate {
            Fate::Nothing => 0,
            Fate::Everything => changes.len(),
            _ => random.below(changes.len() as u64 + 1) as usize,
        };
        if changes.is_empty() {
            return;
        }
        let disk = Arc::make_mut(&mut self.durable);
        let mut len = disk.len();
        for (index, change) in changes.into_iter().enumerate() {
            match change {
                Change::Length(new) if index < lengths => {
                    disk.truncate(new);
                    len = new;
                }
                Change::Length(_) => {}
                Change::Sectors { start, bytes } => {
                    let whole = fate == Fate::SomeChanges && random.chance(0.5);
                    for (sector, bytes) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        let kept = match fate {
                            Fate::Nothing => false,
                            Fate::Everything => true,
                            Fate::SomeChanges => whole,
                            Fate::SomeSectors => random.chance(0.5),
                        };
                        if kept {
                            put(disk, start + sector * SECTOR_BYTES, bytes);
                        }
                    }
                }
            }
        }
        resize(disk, len);
    }
}

/// Zeros that nobody has touched cost nothing: most of a prepared file.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    if len > 2 * bytes.len() {
        let mut grown = vec![0; len];
        grown[..bytes.len()].copy_from_slice(bytes);
        *bytes = grown;
    } else {
        bytes.resize(len, 0);
    }
}

fn put(disk: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    let end = start + bytes.len();
    if disk.len() < end {
        disk.resize(end, 0);
    }
    disk[start..end].copy_from_slice(bytes);
}
