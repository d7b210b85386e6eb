//! Coverage: which records a segment holds, as intervals of the counters of their streams. It is what
//! segments are compared by, wherever they end and whoever merged them.
//!
//! Invariants: an interval claims every record of its counters, and the milliseconds of its first and
//! its last one exactly. Streams are 40 random bits, so two of them may have the same ones: intervals
//! speak of the same records only if their milliseconds agree, too, and whatever is ambiguous counts as
//! not covered. What is not claimed may be there; what is claimed is. A coverage is normalised: intervals
//! in order, none that touches the next one, so that equal sets of records have equal coverages and
//! equal digests, whatever they were made of. Two lives of one stream id are told apart as long as they
//! do not lie at the same time.
//!
//! Bounded: beyond [`COVERAGE_INTERVALS_MAX`] intervals further ones are left out and it says so; it then
//! equals nothing.

use std::collections::BTreeMap;

use crate::limits::COVERAGE_INTERVALS_MAX;
use crate::run_table::{Run, RunTable};
use crate::ulid::{MS_MAX, PART_MAX, Ulid};

use super::fields::{Put, Take};

/// Consecutive records of a stream.
///
/// Ordered by stream, then by time: of one life of a stream that is the order of counters, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// The stream.
    pub stream: u64,
    /// When its first record was stamped, milliseconds since 1970.
    pub first_ms: u64,
    /// Counter of its first record.
    pub from: u64,
    /// Counter of its last record.
    pub to: u64,
    /// When its last record was stamped, milliseconds since 1970.
    pub last_ms: u64,
}

impl Interval {
    /// The records of a run.
    pub const fn of_run(run: &Run) -> Self {
        let (first, last) = (run.first, run.last());
        Self::between(first, last)
    }

    /// All records from one to another of the same stream.
    const fn between(first: Ulid, last: Ulid) -> Self {
        Self {
            stream: first.stream(),
            first_ms: first.ms(),
            from: first.counter(),
            to: last.counter(),
            last_ms: last.ms(),
        }
    }

    /// The records of a chunk of which first, last and number are known, if they can only be
    /// consecutive ones.
    pub fn of_range(first: Ulid, last: Ulid, count: u64) -> Option<Self> {
        let interval = Self::between(first, last);
        let is_one = first.stream() == last.stream() && interval.is_possible();
        (is_one && interval.record_count() == count).then_some(interval)
    }

    /// Its records.
    pub const fn record_count(&self) -> u64 {
        self.to - self.from + 1
    }

    const fn is_possible(&self) -> bool {
        self.stream <= PART_MAX
            && self.from <= self.to
            && self.to <= PART_MAX
            && self.first_ms <= self.last_ms
            && self.last_ms <= MS_MAX
            // One record was stamped once.
            && (self.from < self.to || self.first_ms == self.last_ms)
    }

    /// Whether the records that both claim by their counters can be the same ones.
    fn agrees_with(&self, other: &Self) -> bool {
        let (low, high) = if self.from <= other.from { (self, other) } else { (other, self) };
        // The first common record: exact on the side that begins with it, bounded on the other.
        let is_first = |ms: u64| {
            low.first_ms <= ms
                && ms <= low.last_ms
                && (low.from != high.from || ms == low.first_ms)
                && (low.to != high.from || ms == low.last_ms)
        };
        let (short, long) = if self.to <= other.to { (self, other) } else { (other, self) };
        let is_last = |ms: u64| {
            long.first_ms <= ms
                && ms <= long.last_ms
                && (long.to != short.to || ms == long.last_ms)
                && (long.from != short.to || ms == long.first_ms)
        };
        is_first(high.first_ms) && is_last(short.last_ms)
    }

    /// The records that both surely hold.
    fn common(&self, other: &Self) -> Option<Self> {
        let is_shared = self.stream == other.stream
            && self.from <= other.to
            && other.from <= self.to
            && self.agrees_with(other);
        let high = if self.from >= other.from { self } else { other };
        let short = if self.to <= other.to { self } else { other };
        let (first_ms, from) = (high.first_ms, high.from);
        let common = Self { first_ms, from, to: short.to, last_ms: short.last_ms, ..*self };
        is_shared.then_some(common)
    }

    /// Takes in what follows it without a gap or overlaps its end; says whether it did. `next` does not
    /// begin before it.
    fn extend(&mut self, next: &Self) -> bool {
        let is_next = next.stream == self.stream && next.from >= self.from;
        let is_behind = next.from.checked_sub(1) == Some(self.to) && next.first_ms >= self.last_ms;
        let is_over = next.from <= self.to && self.agrees_with(next);
        if !is_next || !(is_behind || is_over) {
            return false;
        }
        if next.to > self.to {
            (self.to, self.last_ms) = (next.to, next.last_ms);
        }
        true
    }
}

/// Records of a stream that are not covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: u64,
    /// Counter of the first one.
    pub from: u64,
    /// Counter of the last one.
    pub to: u64,
    /// None of them was stamped before, milliseconds since 1970.
    pub from_ms: u64,
    /// None of them was stamped later.
    pub to_ms: u64,
}

impl Gap {
    /// All of an interval.
    pub const fn of_interval(interval: &Interval) -> Self {
        let Interval { stream, first_ms: from_ms, from, to, last_ms: to_ms } = *interval;
        Self { stream, from, to, from_ms, to_ms }
    }

    /// Its records.
    pub const fn record_count(&self) -> u64 {
        self.to - self.from + 1
    }

    /// What of it cannot be among these: where counters and times agree, they may be the same records.
    pub fn outside(self, held: &Coverage) -> Vec<Self> {
        let left =
            |left: Vec<Self>, held| left.into_iter().flat_map(|gap| gap.without(held)).collect();
        held.of_stream(self.stream).fold(vec![self], left)
    }

    /// What is left of it before and behind an interval of its stream.
    fn without(self, held: &Interval) -> impl Iterator<Item = Self> {
        let is_apart = held.to < self.from
            || self.to < held.from
            || held.last_ms < self.from_ms
            || self.to_ms < held.first_ms;
        let before = (!is_apart && self.from < held.from).then(|| {
            let (to, to_ms) = (held.from - 1, self.to_ms.min(held.first_ms));
            Self { to, to_ms, ..self }
        });
        let behind = (!is_apart && held.to < self.to).then(|| {
            let (from, from_ms) = (held.to + 1, self.from_ms.max(held.last_ms));
            Self { from, from_ms, ..self }
        });
        let parts = [is_apart.then_some(self), before, behind].into_iter().flatten();
        parts.filter(|part| part.from_ms <= part.to_ms)
    }
}

/// Names a coverage: equal ones have equal digests, others do not but by chance (128-bit FNV-1a over
/// its intervals, <http://www.isthe.com/chongo/tech/comp/fnv/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

/// See the module page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    intervals: Vec<Interval>,
    /// More were left out.
    is_partial: bool,
}

impl Coverage {
    /// The union of intervals, which may overlap and come in any order.
    pub fn of(intervals: Vec<Interval>) -> Self {
        let mut intervals = united(intervals);
        let is_partial = intervals.len() > COVERAGE_INTERVALS_MAX;
        intervals.truncate(COVERAGE_INTERVALS_MAX);
        Self { intervals, is_partial }
    }

    /// The same, but where there are too many, those are left out that ended first.
    pub fn of_newest(intervals: Vec<Interval>) -> Self {
        let mut intervals = united(intervals);
        let is_partial = intervals.len() > COVERAGE_INTERVALS_MAX;
        if is_partial {
            intervals.sort_unstable_by_key(|interval| std::cmp::Reverse(interval.last_ms));
            intervals.truncate(COVERAGE_INTERVALS_MAX);
            intervals.sort_unstable();
        }
        Self { intervals, is_partial }
    }

    /// That of something of which it is not known what it holds: equals nothing, and nothing has all of it.
    pub const fn unknown() -> Self {
        Self { intervals: Vec::new(), is_partial: true }
    }

    /// What a run table describes.
    pub fn of_table(table: &RunTable) -> Self {
        let mut builder = CoverageBuilder::default();
        table.runs.iter().for_each(|run| builder.add(Interval::of_run(run)));
        builder.finish()
    }

    /// What one of both holds.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = Self::of([&self.intervals[..], &other.intervals[..]].concat());
        both.is_partial |= self.is_partial | other.is_partial;
        both
    }

    /// What both surely hold.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let own = self.intervals.iter();
        let common = own.flat_map(|a| other.of_stream(a.stream).filter_map(|b| b.common(a)));
        Self::of(common.collect())
    }

    /// What this holds and the other one does not surely hold.
    pub fn difference(&self, other: &Self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for own in &self.intervals {
            let mut held: Vec<Interval> =
                other.of_stream(own.stream).filter_map(|b| b.common(own)).collect();
            held.sort_unstable_by_key(|interval| interval.from);
            let (mut from, mut from_ms) = (own.from, own.first_ms);
            for common in held {
                if common.from > from {
                    let (to, to_ms) = (common.from - 1, common.first_ms);
                    gaps.push(Gap { stream: own.stream, from, to, from_ms, to_ms });
                }
                if common.to >= from {
                    (from, from_ms) = (common.to + 1, common.last_ms);
                }
            }
            if from <= own.to {
                let (to, to_ms) = (own.to, own.last_ms);
                gaps.push(Gap { stream: own.stream, from, to, from_ms, to_ms });
            }
        }
        gaps
    }

    /// Leaves out intervals.
    pub(super) fn retain(&mut self, is_kept: impl FnMut(&Interval) -> bool) {
        self.intervals.retain(is_kept);
    }

    /// Whether it is known in full, and the other one surely holds all of it.
    pub fn is_within(&self, other: &Self) -> bool {
        !self.is_partial && self.difference(other).is_empty()
    }

    /// Whether both are known in full and hold the same records.
    pub fn is_same(&self, other: &Self) -> bool {
        !self.is_partial && !other.is_partial && self.intervals == other.intervals
    }

    /// What names it; `None`: it is not known in full.
    pub fn digest(&self) -> Option<Digest> {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        let mut put = Put::default();
        self.intervals.iter().for_each(|interval| put_interval(&mut put, interval));
        let add = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        (!self.is_partial).then(|| Digest(put.0.iter().fold(BASIS, add)))
    }

    /// Its intervals, in order.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Whether it claims all that there is.
    pub const fn is_known_in_full(&self) -> bool {
        !self.is_partial
    }

    /// Records that it claims.
    pub fn record_count(&self) -> u64 {
        self.intervals.iter().map(Interval::record_count).sum()
    }

    /// The coverage of so many records: where it claims another number, two of them cannot be told
    /// apart, and it is not known in full.
    #[must_use]
    pub fn of_records(mut self, record_count: u64) -> Self {
        self.is_partial |= self.record_count() != record_count;
        self
    }

    /// Whether a segment of so many records may have it.
    pub(super) fn may_be_of(&self, record_count: u64) -> bool {
        self.is_partial || self.record_count() == record_count
    }

    /// Its intervals of a stream, in order.
    pub(super) fn of_stream(&self, stream: u64) -> impl Iterator<Item = &Interval> {
        let start = self.intervals.partition_point(|interval| interval.stream < stream);
        self.intervals[start..].iter().take_while(move |interval| interval.stream == stream)
    }

    /// Appends it as footers have it.
    pub(super) fn put(&self, put: &mut Put) {
        put.u32(self.intervals.len() as u32).u8(u8::from(!self.is_partial)).bytes(&[0; 3]);
        self.intervals.iter().for_each(|interval| put_interval(put, interval));
    }

    /// The inverse; `None`: it is none that we would write.
    pub(super) fn take(take: &mut Take<'_>) -> Option<Self> {
        let count = take.u32().filter(|&n| n as usize <= COVERAGE_INTERVALS_MAX)?;
        let is_partial = take.u8()? != 1;
        take.bytes(3)?;
        let mut intervals = Vec::new();
        for _ in 0..count {
            let interval = Interval {
                stream: take.u64()?,
                from: take.u64()?,
                to: take.u64()?,
                first_ms: take.u64()?,
                last_ms: take.u64()?,
            };
            intervals.push(Some(interval).filter(Interval::is_possible)?);
        }
        let taken = Self::of(intervals.clone());
        (taken.intervals == intervals).then_some(Self { intervals, is_partial })
    }
}

/// Intervals in order, none of which touches the next one.
fn united(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    intervals.dedup_by(|next, kept| kept.extend(next));
    intervals
}

fn put_interval(put: &mut Put, interval: &Interval) {
    put.u64(interval.stream).u64(interval.from).u64(interval.to);
    put.u64(interval.first_ms).u64(interval.last_ms);
}

/// Collects runs in ULID order, one after the other, at little cost for each.
#[derive(Debug, Clone, Default)]
pub struct CoverageBuilder {
    /// By stream; what comes next of it may belong to it.
    open: BTreeMap<u64, Interval>,
    closed: Vec<Interval>,
    is_partial: bool,
}

impl CoverageBuilder {
    /// Adds what follows.
    pub fn add(&mut self, next: Interval) {
        let open = self.open.entry(next.stream).or_insert(next);
        if open.extend(&next) {
            return;
        }
        let before = std::mem::replace(open, next);
        if self.closed.len() < COVERAGE_INTERVALS_MAX {
            self.closed.push(before);
        } else {
            self.is_partial = true;
        }
    }

    /// What was added.
    pub fn finish(self) -> Coverage {
        let mut intervals = self.closed;
        intervals.extend(self.open.into_values());
        let mut coverage = Coverage::of(intervals);
        coverage.is_partial |= self.is_partial;
        coverage
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
