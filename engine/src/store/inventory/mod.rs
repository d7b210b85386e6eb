//! The inventory of a store: which records were published in its directory and were not let go since, so
//! that what is missing of them is known. A segment that somebody moved away or deleted while no node
//! looked leaves a hole. `docs/format-store.md` has the byte table.
//!
//! - [`Inventory`]: what is claimed, and what is missing of it, as values;
//! - [`look`]: what lies in a directory, without a node, for `fsck`;
//! - `keeper`: the one of a directory that a node has.
//!
//! Invariants: a hole is told only if it is one. The inventory claims what was published and durable and
//! no more; on disk it may lag behind, and then claims less. What retention takes is not claimed any
//! more, durably so before a file moves. What lies near a segment of which the footer cannot be read is
//! told as that segment's damage. Where it is not known what retention took, and where the bounds of
//! memory are reached, less is claimed. A directory without an inventory has no holes, nor has one with
//! that of another store, which is not believed.

mod keeper;
pub mod look;

use std::collections::BTreeMap;
use std::path::Path;

use crate::damage::{Damage, DamageKind};
use crate::identity::{NodeId, Side};
use crate::ingest::waiting::Waiting;
use crate::limits::COVERAGE_INTERVALS_MAX;
use crate::ulid::{MS_MAX, PART_MAX, Ulid};

use super::coverage::{Coverage, Gap, Interval};
use super::fields::{Put, Take, decode_small};

pub(super) use keeper::InventoryKeeper;

/// Name of the file.
pub const INVENTORY_FILE: &str = "INVENTORY";
/// Its name until it is whole.
pub const INVENTORY_NEW_FILE: &str = "INVENTORY.new";
/// First bytes.
pub const INVENTORY_MAGIC: [u8; 8] = *b"\x89OKLINV\n";
/// Version.
pub const INVENTORY_VERSION: u16 = 2;

/// The longest that is read, bytes: as many intervals and cuts as there may be.
const BYTES_MAX: u64 = 80 + COVERAGE_INTERVALS_MAX as u64 * (40 + 24);

/// Up to where the records of a stream were let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// Counter of the last one.
    to: u64,
    /// When it was stamped, milliseconds since 1970.
    ms: u64,
}

/// See the module page.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    held: Coverage,
    /// By stream; only of those that `held` has.
    cuts: BTreeMap<u64, Cut>,
    /// Nothing is claimed that was not stamped later, milliseconds since 1970: it is too old.
    horizon_ms: u64,
    /// Of what was stamped up to then it is not known whether it was let go.
    unsure_ms: u64,
}

/// What lies in a store directory, as footers and names say.
#[derive(Debug, Default)]
pub struct Present {
    intervals: Vec<Interval>,
    /// First and last millisecond of segments of which it is not known in full what they hold.
    unknown: Vec<(u64, u64)>,
}

impl Present {
    /// A segment, published or in the trash, that its name says to hold records from one to another.
    pub fn add(&mut self, coverage: Option<&Coverage>, (first, last): (Ulid, Ulid)) {
        if !coverage.is_some_and(Coverage::is_known_in_full) {
            self.unknown.push((first.ms(), last.ms()));
        }
        self.intervals.extend(coverage.into_iter().flat_map(Coverage::intervals));
        if self.intervals.len() > 2 * COVERAGE_INTERVALS_MAX {
            self.intervals = self.union().intervals().to_vec();
        }
    }

    /// Whether something of which it is not known what it holds is of the time of these records.
    fn may_hold(&self, gap: &Gap) -> bool {
        self.unknown.iter().any(|&(from, to)| from <= gap.to_ms && gap.from_ms <= to)
    }

    /// All of it. Where it is too much to tell apart, it is not known what there is.
    fn union(&mut self) -> Coverage {
        let union = Coverage::of(self.intervals.clone());
        if !union.is_known_in_full() {
            self.unknown.push((0, MS_MAX));
        }
        union
    }
}

/// What a store says of records that are missing elsewhere: that it has them, or had; or that it may have
/// them.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    held: Coverage,
    /// First and last millisecond of what cannot be read.
    unknown: Vec<(u64, u64)>,
    inventory: Inventory,
}

impl Holdings {
    /// What lies there, and the inventory; `None`: there is one that cannot be read now.
    pub(super) fn of(mut present: Present, inventory: Option<Inventory>) -> Self {
        let held = present.union();
        let mut unknown = present.unknown;
        if inventory.is_none() {
            // All may have been let go.
            unknown.push((0, MS_MAX));
        }
        Self { held, unknown, inventory: inventory.unwrap_or_default() }
    }

    /// Leaves out of what waited on an ingest side what is here, or was let go.
    pub(crate) fn leave_out_of(&self, waiting: &mut Waiting) {
        waiting.leave_out(&self.held);
        waiting.leave_out_if(|span| self.inventory.may_have_let_go(span));
    }

    /// Where it is not known what is here, milliseconds since 1970, both ends belong to it.
    pub(crate) fn into_unknown(self) -> Vec<(u64, u64)> {
        self.unknown
    }
}

impl Inventory {
    /// These records are published.
    pub fn add(&mut self, coverages: &[Coverage]) {
        let new = coverages.iter().flat_map(|one| one.intervals().iter().copied());
        let all = self.held.intervals().iter().copied().chain(new).collect();
        self.held = Coverage::of_newest(all);
        self.trim();
    }

    /// What another one says, too.
    fn join(&mut self, other: Self) {
        let all = [self.held.intervals(), other.held.intervals()].concat();
        self.held = Coverage::of_newest(all);
        for (stream, cut) in other.cuts {
            let known = self.cuts.entry(stream).or_insert(cut);
            if known.to < cut.to {
                *known = cut;
            }
        }
        self.unsure_ms = self.unsure_ms.max(other.unsure_ms);
        self.trim();
    }

    /// Whether both say the same.
    fn is_same(&self, other: &Self) -> bool {
        self.held.intervals() == other.held.intervals()
            && self.cuts == other.cuts
            && (self.horizon_ms, self.unsure_ms) == (other.horizon_ms, other.unsure_ms)
    }

    /// Files with these records are to go: they are claimed no more, nor is what their streams had before.
    pub fn let_go(&mut self, coverage: &Coverage) {
        for gone in coverage.intervals() {
            let new = Cut { to: gone.to, ms: gone.last_ms };
            let cut = self.cuts.entry(gone.stream).or_insert(new);
            if cut.to < new.to {
                *cut = new;
            }
        }
        self.trim();
    }

    /// A file is to go of which only this is known: it holds nothing that was stamped later; milliseconds
    /// since 1970.
    pub fn let_go_unknown(&mut self, last_ms: u64) {
        self.unsure_ms = self.unsure_ms.max(last_ms);
    }

    /// What was not stamped later than this is too old to be missed; milliseconds since 1970.
    pub fn set_horizon(&mut self, horizon_ms: u64) {
        self.horizon_ms = horizon_ms;
        self.trim();
    }

    fn trim(&mut self) {
        let (cuts, horizon_ms) = (&self.cuts, self.horizon_ms);
        let is_cut = |i: &Interval| cuts.get(&i.stream).is_some_and(|cut| i.to <= cut.to);
        self.held.retain(|interval| interval.last_ms > horizon_ms && !is_cut(interval));
        let held = &self.held;
        self.cuts.retain(|stream, _| held.of_stream(*stream).next().is_some());
    }

    /// What is claimed and not there.
    pub fn holes(&self, present: &mut Present) -> Vec<Gap> {
        self.gaps(present).into_iter().filter_map(|gap| self.clip(gap)).collect()
    }

    /// What was published and is not there, let go or not.
    fn gaps(&self, present: &mut Present) -> Vec<Gap> {
        let mut gaps = self.held.difference(&present.union());
        gaps.retain(|gap| !present.may_hold(gap));
        gaps
    }

    /// What of it is claimed.
    fn clip(&self, mut gap: Gap) -> Option<Gap> {
        if let Some(cut) = self.cuts.get(&gap.stream)
            && gap.from <= cut.to
        {
            (gap.from, gap.from_ms) = (cut.to + 1, gap.from_ms.max(cut.ms));
        }
        let is_of = |held: &Interval| held.from <= gap.to && gap.from <= held.to;
        let is_held = self.held.of_stream(gap.stream).any(is_of);
        let is_open = gap.from <= gap.to && gap.from_ms <= gap.to_ms;
        let is_claimed = gap.to_ms > self.horizon_ms && gap.from_ms > self.unsure_ms;
        (is_held && is_open && is_claimed).then_some(gap)
    }

    /// Whether records that were here, as this says, may not be here any more.
    pub(crate) fn may_have_let_go(&self, gap: &Gap) -> bool {
        let cut = self.cuts.get(&gap.stream);
        let is_old = gap.to_ms <= self.horizon_ms || gap.from_ms <= self.unsure_ms;
        is_old || cut.is_some_and(|cut| gap.from <= cut.to)
    }

    /// As it is stored, by this store; 0: nobody knows by which.
    pub fn encode(&self, store: NodeId) -> Vec<u8> {
        let mut put = Put::default();
        put.bytes(&INVENTORY_MAGIC).u16(INVENTORY_VERSION).bytes(&[0; 6]);
        put.u128(store.0).u64(self.horizon_ms).u64(self.unsure_ms);
        self.held.put(&mut put);
        put.u32(self.cuts.len() as u32).bytes(&[0; 4]);
        for (stream, cut) in &self.cuts {
            put.u64(*stream).u64(cut.to).u64(cut.ms);
        }
        put.checksum();
        put.0
    }

    /// The inverse, and whose it is.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<(NodeId, Self), DamageKind> {
        const PART: &str = "inventory";
        decode_small(bytes, (&INVENTORY_MAGIC, INVENTORY_VERSION), PART, Self::take_fields)
    }

    fn take_fields(take: &mut Take<'_>) -> Option<(NodeId, Self)> {
        take.bytes(6)?;
        let store = NodeId(take.u128()?);
        let (horizon_ms, unsure_ms) = (take.u64()?, take.u64()?);
        let held = Coverage::take(take)?;
        let count = take.u32()?;
        take.bytes(4)?;
        let mut cuts = BTreeMap::new();
        for _ in 0..count {
            let stream = take.u64()?;
            let cut = Cut { to: take.u64()?, ms: take.u64()? };
            let is_possible = cut.to <= PART_MAX && cut.ms <= MS_MAX;
            let is_next = cuts.last_key_value().is_none_or(|(last, _)| *last < stream);
            let is_held = held.of_stream(stream).next().is_some();
            if !is_possible || !is_next || !is_held {
                return None;
            }
            cuts.insert(stream, cut);
        }
        Some((store, Self { held, cuts, horizon_ms, unsure_ms }))
    }
}

/// Whether that is an inventory of a later program's.
const fn is_later(kind: &DamageKind) -> bool {
    matches!(kind, DamageKind::Version(version) if *version > INVENTORY_VERSION)
}

/// A hole as what it is to those who look for records.
fn damage_of(hole: &Gap, directory: &Path) -> Damage {
    Damage {
        path: directory.join(INVENTORY_FILE),
        offset: 0,
        len_bytes: 0,
        range: Some((Ulid::first_of_ms(hole.from_ms), Ulid::last_of_ms(hole.to_ms))),
        records: Some(hole.record_count()),
        kind: DamageKind::Missing(Side::Store, *hole),
    }
}

/// The inventory itself is damaged or cannot be read. It holds no record.
fn damage_of_file(path: &Path, kind: DamageKind) -> Damage {
    let records = Some(0);
    Damage { path: path.to_owned(), offset: 0, len_bytes: 0, range: None, records, kind }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
