//! How many entries there are of each service and level.
//!
//! Invariants: what is held does not depend on how many services there are
//! ([`ENTRY_SERVICES_MAX`]), and those that find no room are counted together.

use std::collections::HashMap;

use engine::entries::{CountedEntries, Kept, LEVELS, LevelCount};
use engine::search::{RecordTally, Stats};
use engine::ulid::Ulid;

use crate::limits::{ENTRY_SERVICE_TEXT_BYTES_MAX, ENTRY_SERVICES_MAX};

/// By level, in the order of [`LEVELS`].
pub type ByLevel = [LevelCount; LEVELS.len()];

/// How many entries there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryCounts {
    /// By service, sorted; at most [`ENTRY_SERVICES_MAX`] of them.
    pub services: Vec<(String, ByLevel)>,
    /// Of all further services together.
    pub others: ByLevel,
    /// What it cost and what is missing.
    pub stats: Stats,
}

/// Counts entries among records.
#[derive(Debug, Default)]
pub struct EntryTally {
    /// By the service's text of JSON.
    services: HashMap<Box<str>, ByLevel>,
    others: ByLevel,
}

impl RecordTally for EntryTally {
    fn count(&mut self, id: Ulid, record: &[u8]) {
        let Some(Kept { level, service, .. }) = Kept::of(record) else { return };
        self.add(service, level, LevelCount { entries: 1, latest_ms: id.ms() });
    }

    fn count_entries(&mut self, entries: &CountedEntries) {
        self.add(&entries.service, entries.level, entries.count);
    }
}

impl EntryTally {
    fn add(&mut self, service: &str, level: usize, count: LevelCount) {
        let counts = if let Some(counts) = self.services.get_mut(service) {
            counts
        } else if self.services.len() < ENTRY_SERVICES_MAX
            && service.len() <= ENTRY_SERVICE_TEXT_BYTES_MAX
        {
            self.services.entry(service.into()).or_default()
        } else {
            &mut self.others
        };
        counts[level].add(count);
    }

    /// What was counted.
    pub fn result(self, stats: Stats) -> EntryCounts {
        let services = self.services.into_iter();
        let mut services: Vec<(String, ByLevel)> =
            services.map(|(text, counts)| (Kept::plain(&text).into_owned(), counts)).collect();
        services.sort();
        EntryCounts { services, others: self.others, stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(level: &str, message: &str, service: &str) -> String {
        format!(
            "{{\"timestamp\":\"2024-05-01T12:00:00.5+02:00\",\"level\":\"{level}\",\
             \"message\":\"{message}\",\"service\":\"{service}\"}}"
        )
    }

    #[test]
    fn services_beyond_a_bound_are_counted_together() {
        let mut tally = EntryTally::default();
        let id = |n: usize| Ulid::from_parts(1_000 + n as u64, 1, n as u64);
        for n in 0..ENTRY_SERVICES_MAX + 5 {
            let service = format!("s{n:05}\\\"");
            tally.count(id(n), entry("info", "m", &service).as_bytes());
            tally.count(id(n), entry("error", "m", &service).as_bytes());
        }
        tally.count(id(0), entry("fatal", "m", &"x".repeat(100_000)).as_bytes());
        tally.count(id(0), b"no entry");
        let counts = tally.result(Stats::default());
        assert_eq!(counts.services.len(), ENTRY_SERVICES_MAX);
        let (name, first) = &counts.services[0];
        assert_eq!(name, "s00000\"");
        assert_eq!(first[1], LevelCount { entries: 1, latest_ms: 1_000 });
        assert_eq!((first[0].entries, first[3].entries), (0, 1));
        assert_eq!(counts.others.map(|of| of.entries), [0, 5, 0, 5, 1]);
    }
}
