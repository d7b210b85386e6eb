//! Random lives of a spool on the simulated disk, and one life in which every call fails in turn.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{entry, open, sync, try_open};
use super::*;
use crate::storage::sim::{Fault, FaultError, Random, SimStorage};

/// What must be there.
#[derive(Default)]
struct Model {
    appended: BTreeMap<u64, Entry>,
    /// Numbers below are durable.
    synced: u64,
    released: u64,
    read: u64,
    /// Not durable when the power went.
    at_risk: BTreeSet<u64>,
}

impl Model {
    fn check(&mut self, got: (u64, Entry), seed: u64) {
        let (number, entry) = got;
        assert!(number >= self.read, "seed {seed}: {number} came twice or out of order");
        assert_eq!(self.appended.get(&number), Some(&entry), "seed {seed}: {number}");
        for lost in self.read..number {
            let was_at_risk = lost >= self.synced || self.at_risk.contains(&lost);
            let may_be = was_at_risk || lost < self.released;
            assert!(may_be, "seed {seed}: {lost} was durable and is lost");
        }
        self.read = number + 1;
    }
}

/// A random life with kills and power losses.
struct Life {
    seed: u64,
    disk: SimStorage,
    random: Random,
    model: Model,
    spool: Spool,
}

impl Life {
    fn begin(seed: u64) -> Self {
        let disk = SimStorage::new(seed);
        let spool = open(&disk);
        Self { seed, disk, random: Random::new(seed), model: Model::default(), spool }
    }

    /// One of the next calls will fail.
    fn fail_one(&mut self) {
        let error = if self.random.below(2) == 0 { FaultError::Io } else { FaultError::NoSpace };
        self.disk.fail(Fault::nth(1 + self.random.below(4), error));
    }

    fn append(&mut self) {
        let next = entry(self.random.below(1000), self.random.below(30_000) as usize);
        if let Ok(number) = self.spool.append(&next, false) {
            self.model.appended.insert(number, next);
        }
    }

    fn read(&mut self) {
        if let Ok(Some(got)) = self.spool.read_next() {
            self.model.check(got, self.seed);
        }
    }

    fn release(&mut self) {
        let before = self.model.read;
        // A mark that cannot be written is written with the next.
        let _ = self.spool.release(before);
        self.model.released = self.model.released.max(before);
    }

    /// Number behind the last one that was appended.
    fn appended_end(&self) -> u64 {
        self.model.appended.keys().next_back().map_or(0, |n| n + 1)
    }

    fn sync(&mut self) {
        let end = self.appended_end();
        if sync(&mut self.spool).is_ok() {
            self.model.synced = end;
        }
    }

    fn kill(&mut self) {
        let model = &mut self.model;
        if self.spool.rewrite_from.is_some() {
            // The next life cannot know of the failed sync: its own will succeed.
            model.at_risk.extend(model.synced..self.spool.number_next);
        }
        self.disk = self.disk.kill();
        self.spool = open(&self.disk);
        // Numbers that are left out where nobody can tell what was there.
        let end = self.appended_end();
        self.model.at_risk.extend(end..self.spool.number_next.max(end));
        self.model.read = self.spool.mark.released;
    }

    fn lose_power(&mut self) {
        self.disk = self.disk.crash(self.random.next_u64());
        self.spool = open(&self.disk);
        let (spool, model, seed) = (&self.spool, &mut self.model, self.seed);
        model.read = spool.mark.released;
        // Behind what is left a number may be left out.
        let next = spool.number_next;
        let end = spool.files.iter().map(|file| file.entries_end).max().unwrap_or(0);
        let end = end.max(spool.mark.released);
        model.at_risk.extend(model.synced..next);
        model.appended.retain(|number, _| *number < end);
        // Where all was released, nothing need be left, not even the numbers.
        assert!(end >= model.synced || model.released >= model.synced, "seed {seed}");
        model.at_risk.retain(|number| *number < next);
        (model.synced, model.released) = (model.synced.min(end), model.released.min(end));
    }

    /// Everything that was durable comes.
    fn end(mut self) {
        self.disk.clear_faults();
        let seed = self.seed;
        while let Some(got) = self.spool.read_next().unwrap_or_default() {
            self.model.check(got, seed);
        }
        let model = &self.model;
        // The last ones may be known by their headers only.
        let is_lost = |n: &u64| !model.at_risk.contains(n) && *n >= model.released;
        assert_eq!((model.read..model.synced).find(is_lost), None, "seed {seed}");
        self.spool.release(model.read).unwrap();
    }
}

/// With `faults`, calls fail as well.
fn live(seed: u64, faults: bool) {
    let mut life = Life::begin(seed);
    for _ in 0..120 {
        if faults && life.random.below(10) == 0 {
            life.fail_one();
        }
        match life.random.below(20) {
            0..=8 => life.append(),
            9..=12 => life.read(),
            13..=14 => life.release(),
            15..=17 => life.sync(),
            18 => life.kill(),
            _ => life.lose_power(),
        }
    }
    life.end();
}

fn seeds() -> u64 {
    std::env::var("OKLOGD_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300)
}

/// `OKLOGD_SEED` repeats one.
fn one_or_all() -> std::ops::Range<u64> {
    match std::env::var("OKLOGD_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..seeds(),
    }
}

#[test]
fn what_was_synced_survives_any_sequence_of_kills_and_power_losses() {
    for seed in one_or_all() {
        live(seed, false);
    }
}

#[test]
fn failing_calls_lose_nothing_that_was_reported_as_kept() {
    for seed in one_or_all() {
        live(seed, true);
    }
}

/// Appends, syncs, reads and releases, trying again what failed.
fn script(disk: &SimStorage) -> Vec<u64> {
    let mut opened = try_open(disk);
    if opened.is_err() {
        opened = try_open(disk);
    }
    let mut spool = opened.unwrap().spool;
    let mut read = Vec::new();
    let take = |spool: &mut Spool, read: &mut Vec<u64>| {
        for _ in 0..4 {
            while let Ok(Some((number, _))) = spool.read_next() {
                read.push(number);
            }
        }
    };
    for n in 0..30 {
        while spool.append(&entry(n, 12_000), false).is_err() {}
        if n % 4 == 0 {
            let _ = sync(&mut spool);
        }
        if n % 7 == 0 {
            take(&mut spool, &mut read);
            let _ = spool.release(n + 1);
        }
    }
    take(&mut spool, &mut read);
    let _ = spool.release(30);
    let _ = spool.finish();
    read
}

#[test]
fn any_single_call_may_fail_and_every_entry_still_comes_once_in_order() {
    let disk = SimStorage::new(1);
    let expected: Vec<u64> = (0..30).collect();
    assert_eq!(script(&disk), expected);
    for call in 1..=disk.calls() {
        for error in [FaultError::Io, FaultError::NoSpace] {
            let disk = SimStorage::new(1);
            disk.fail(Fault::nth(call, error));
            assert_eq!(script(&disk), expected, "call {call} {error:?}");
        }
    }
}
