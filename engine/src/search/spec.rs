//! What is asked, of what, and what became of it. Values only.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::chain::Chain;
use crate::chunk::Part;
use crate::damage::Damage;
use crate::entries::EntriesWanted;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// The pinned view that a query reads: pinned parts stay readable while it lives.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Every part that may hold matching records, in any order. Copies of a record in several
    /// parts are shown once.
    pub parts: Vec<Arc<dyn Part>>,
    /// What is known to be unreadable before the query starts.
    pub missing: Vec<Missing>,
}

/// A span of the answer that could not be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its first ULID.
    pub from: Ulid,
    /// Its last ULID.
    pub to: Ulid,
    /// The node that should have it.
    pub node: String,
    /// Why it could not be searched.
    pub reason: String,
    /// The damage that is why, where this query or an earlier one came upon it in a file; absent
    /// for any other reason, and for what was counted as damage when it was set aside.
    pub damage: Option<Damage>,
}

/// Which end of the time range comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Asc,
    /// Newest first.
    Desc,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `ULID SP record LF`.
    #[default]
    Text,
    /// The same, and `# end ` with a JSON object as the last line: no ULID begins with `#`.
    EndedText,
    /// One JSON object a line, and an `end` object as the last line.
    Ndjson,
}

impl Format {
    /// Whether records are lines of text.
    pub fn is_text(self) -> bool {
        self != Self::Ndjson
    }

    /// Whether an answer says how it ended in a last line.
    pub fn has_end(self) -> bool {
        self != Self::Text
    }

    /// A line that is no record: shows that a search which has found nothing of late is there. Answers
    /// without an end of their own have none.
    pub const fn sign_of_life(self) -> Option<&'static [u8]> {
        match self {
            Self::Text => None,
            Self::EndedText => Some(b"# alive {}\n"),
            Self::Ndjson => Some(b"{\"alive\":{}}\n"),
        }
    }
}

/// A query: every condition must hold.
#[derive(Debug, Clone)]
pub struct QuerySpec {
    /// First ULID, inclusive.
    pub from: Ulid,
    /// Last ULID, inclusive.
    pub to: Ulid,
    /// Resume behind this ULID, exclusive: later ones in ascending, earlier ones in descending
    /// order.
    pub after: Option<Ulid>,
    /// What the record must match.
    pub chain: Chain,
    /// Topics of which the record must have one; empty: any.
    pub topics: Vec<Topic>,
    /// Which end comes first.
    pub order: Order,
    /// Most records to show. Counts (stats, histogram) take no notice of it.
    pub limit: Option<u64>,
    /// Records of the same topic to show before and after each one that matches, wherever they lie; the
    /// limit does not count them. Counts take no notice of it.
    pub context: u32,
    /// Every record that matches is an entry of one of these levels and services.
    pub entries: Option<EntriesWanted>,
    /// Who asks may know of no other records: see [`Stats::shown`].
    pub is_discreet: bool,
}

impl QuerySpec {
    /// Asks for every record.
    pub fn everything() -> Self {
        Self {
            from: Ulid::MIN,
            to: Ulid::MAX,
            after: None,
            chain: Chain::default(),
            topics: Vec::new(),
            order: Order::Asc,
            limit: None,
            context: 0,
            entries: None,
            is_discreet: false,
        }
    }

    /// First and last ULID that can be in the answer, `after` applied; `None` when none can.
    pub fn bounds(&self) -> Option<(Ulid, Ulid)> {
        let (mut low, mut high) = (self.from, self.to);
        match (self.after, self.order) {
            (Some(after), Order::Asc) => low = low.max(Ulid(after.0.checked_add(1)?)),
            (Some(after), Order::Desc) => high = high.min(Ulid(after.0.checked_sub(1)?)),
            (None, _) => {}
        }
        (low <= high).then_some((low, high))
    }

    /// What is known to be damaged before anything is read, each with the range of its part. Of
    /// queries that may leave something out (topics, a limit) only what they meet counts.
    pub(super) fn known_damage(&self, snapshot: &Snapshot) -> Vec<(Damage, (Ulid, Ulid))> {
        let Some((low, high)) = self.bounds() else { return Vec::new() };
        if self.limit.is_some() || !self.topics.is_empty() {
            return Vec::new();
        }
        let overlaps = |(first, last): (Ulid, Ulid)| first <= high && last >= low;
        let parts = snapshot.parts.iter().filter(|part| overlaps(part.range()));
        let found = parts.flat_map(|part| {
            let range = part.range();
            part.known_damage().into_iter().map(move |damage| (damage, range))
        });
        found.filter(|(damage, range)| overlaps(damage.range.unwrap_or(*range))).collect()
    }
}

/// Chunks that were not read, by what ruled them out: time is asked first, then topics, then
/// signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Outside the time range.
    pub by_time: u64,
    /// Without a record of a wanted topic.
    pub by_topic: u64,
    /// Without something that each matching record has.
    pub by_signature: u64,
}

impl Skipped {
    /// Whatever ruled them out.
    pub const fn all(&self) -> u64 {
        self.by_time + self.by_topic + self.by_signature
    }
}

/// What a query found and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Matching records, each counted once.
    pub records: u64,
    /// Records that were shown around those.
    pub context_records: u64,
    /// Text of what was counted or shown, with LFs, bytes.
    pub bytes: u64,
    /// Of the parts that a [`super::Plan`] counts those that were opened: all, unless a limit or the
    /// end of the reader came first.
    pub segments: u64,
    /// Chunks of which text or run table were read (some are counted from indexes alone).
    pub blocks_read: u64,
    /// Chunks of opened parts that need not be read.
    pub blocks_skipped: Skipped,
    /// Text that was read, bytes.
    pub bytes_scanned: u64,
    /// Text that had to be decoded to be read, bytes; more than was scanned where a query whose
    /// reader is slow had to give decoded text back.
    pub bytes_decoded: u64,
    /// Time that scan threads worked for it.
    pub cpu: Duration,
    /// From the start of the query to its end.
    pub duration: Duration,
    /// Whether everything in the range could be searched.
    pub complete: bool,
    /// Whether somebody ended it before its time: all behind the last record shown is missing, and a
    /// query that resumes behind it finds it.
    pub ended_early: bool,
    /// What could not; at most [`crate::limits::QUERY_MISSING_MAX`] entries.
    pub missing: Vec<Missing>,
    /// How many spans could not, listed or not.
    pub missing_count: u64,
    /// Damaged signatures that were met: nothing is missing for them, but blocks may have been read
    /// in vain. One for each part; at most [`crate::limits::QUERY_MISSING_MAX`].
    pub damaged_signatures: Vec<Damage>,
    /// What is not of the records that were asked for is not for who asks: see [`Stats::shown`].
    pub is_discreet: bool,
}

/// What stands in place of a reason that may tell of records that were not asked for.
const DISCREET_REASON: &str = "part of what is held cannot be searched";

impl Default for Stats {
    fn default() -> Self {
        Self {
            records: 0,
            context_records: 0,
            bytes: 0,
            segments: 0,
            blocks_read: 0,
            blocks_skipped: Skipped::default(),
            bytes_scanned: 0,
            bytes_decoded: 0,
            cpu: Duration::ZERO,
            duration: Duration::ZERO,
            ended_early: false,
            complete: true,
            missing: Vec::new(),
            missing_count: 0,
            damaged_signatures: Vec::new(),
            is_discreet: false,
        }
    }
}

impl Stats {
    /// As who asked may see it. What a search costs depends on all records that lie beside those asked for,
    /// and why something is missing may tell how many: of a discreet query both are left out, and that
    /// something is missing, and where, is told.
    pub fn shown(&self) -> Cow<'_, Self> {
        if !self.is_discreet {
            return Cow::Borrowed(self);
        }
        let discreet = |missing: &Missing| Missing {
            reason: DISCREET_REASON.to_owned(),
            damage: None,
            ..missing.clone()
        };
        Cow::Owned(Self {
            records: self.records,
            context_records: self.context_records,
            bytes: self.bytes,
            complete: self.complete,
            ended_early: self.ended_early,
            missing: self.missing.iter().map(discreet).collect(),
            missing_count: self.missing_count,
            is_discreet: true,
            ..Self::default()
        })
    }

    /// Adds what it cost to look again, and what could not be looked at then.
    pub(super) fn add_cost(&mut self, again: &Self) {
        self.blocks_read += again.blocks_read;
        self.bytes_scanned += again.bytes_scanned;
        self.bytes_decoded += again.bytes_decoded;
        self.cpu += again.cpu;
        self.duration += again.duration;
        if self.complete && !again.complete {
            self.complete = false;
            (self.missing_count, self.missing) = (again.missing_count, again.missing.clone());
        }
    }

    /// Adds what an earlier or later stage of the same query has cost and missed; what it counted is its
    /// own.
    pub(super) fn add_stage(&mut self, other: &Self) {
        self.segments = self.segments.max(other.segments);
        self.blocks_read += other.blocks_read;
        self.blocks_skipped.by_time += other.blocks_skipped.by_time;
        self.blocks_skipped.by_topic += other.blocks_skipped.by_topic;
        self.blocks_skipped.by_signature += other.blocks_skipped.by_signature;
        self.bytes_scanned += other.bytes_scanned;
        self.bytes_decoded += other.bytes_decoded;
        self.cpu += other.cpu;
        self.duration += other.duration;
        self.ended_early |= other.ended_early;
        self.is_discreet |= other.is_discreet;
        let unlisted = other.missing_count - other.missing.len() as u64;
        other.missing.iter().for_each(|missing| self.miss(missing.clone()));
        self.missing_count += unlisted;
        self.complete &= other.complete;
        let room = crate::limits::QUERY_MISSING_MAX.saturating_sub(self.damaged_signatures.len());
        let known = self.damaged_signatures.clone();
        let new = other.damaged_signatures.iter().filter(|damage| !known.contains(damage));
        self.damaged_signatures.extend(new.take(room).cloned());
    }

    /// Notes a span that could not be searched, unless that is noted already.
    pub(super) fn miss(&mut self, missing: Missing) {
        if self.missing.contains(&missing) {
            return;
        }
        self.complete = false;
        self.missing_count += 1;
        if self.missing.len() < crate::limits::QUERY_MISSING_MAX {
            self.missing.push(missing);
        }
    }
}

/// How a query ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What it found and cost.
    pub stats: Stats,
    /// The output stops inside a record, because its file became unreadable while it was being
    /// sent: the answer must not be ended as if it were whole.
    pub aborted: bool,
}
