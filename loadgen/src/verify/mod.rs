//! Proves by query that every record that was sent is there exactly once.
//!
//! First the digests of both sides are compared, which needs no memory. Where they differ, or
//! where some records were sent but not acknowledged (a connection broke), hashes are compared in
//! partitions, each of which fits in memory, and the records that differ are shown.

mod differences;

use std::collections::HashMap;

use crate::corpus::Plan;
use crate::digest::{Digest, hash};
use crate::failure::Result;
use crate::query::Query;
use crate::report::Report;
use differences::{Difference, Sides};

/// Records per partition; a partition's hashes take at most 32 bytes of memory each, twice that
/// while they grow.
const PARTITION_RECORDS_MAX: u64 = 4_000_000;
/// Differing hashes that are kept in order to show their records.
const SHOWN_MAX: usize = 1000;
/// Bytes of a record that are shown.
const SHOWN_BYTES: usize = 200;

/// The records that must be there, or may be.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) plan: &'a Plan,
    /// Of each connection; empty: everything was sent, and must be there.
    pub(crate) sent: Vec<SentRecords>,
    pub(crate) record_bytes_max: usize,
}

/// What one connection sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentRecords {
    pub(crate) bytes: u64,
    /// Records from the first on that must be there; those behind them may be.
    pub(crate) promised: u64,
}

impl Expected<'_> {
    /// Hands out each record and whether it was promised.
    fn each_record(&self, each: &mut dyn FnMut(&[u8], bool)) -> Result<()> {
        for connection in 0..self.plan.connections() {
            let sent = self.sent.get(connection as usize).copied();
            let sent = sent.unwrap_or(SentRecords { bytes: u64::MAX, promised: u64::MAX });
            let mut index = 0;
            self.plan.each_record(
                connection,
                sent.bytes,
                self.record_bytes_max,
                &mut |record| {
                    each(record, index < sent.promised);
                    index += 1;
                },
            )?;
        }
        Ok(())
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) promised: Digest,
    pub(crate) unpromised: u64,
    pub(crate) found: Digest,
    /// Promised records that are not there (so many times).
    pub(crate) missing: u64,
    /// Records that are there more often than they were sent.
    pub(crate) duplicated: u64,
    /// Records that were never sent: altered, or somebody else's.
    pub(crate) unknown: u64,
    /// Some of the differing records, in words.
    pub(crate) shown: Vec<String>,
}

impl Verdict {
    /// Whether every promised record is there once, and nothing else but unpromised ones.
    pub(crate) const fn holds(&self) -> bool {
        self.missing == 0 && self.duplicated == 0 && self.unknown == 0
    }

    /// Adds the verdict to a report.
    pub(crate) fn report(&self, report: &mut Report) {
        report.flag("verified", self.holds());
        report.count("verify_records_expected", self.promised.records);
        if self.unpromised > 0 {
            report.count("verify_records_sent_but_not_acknowledged", self.unpromised);
        }
        report.count("verify_records_found", self.found.records);
        report.text("verify_fingerprint_expected", self.promised.fingerprint());
        report.text("verify_fingerprint_found", self.found.fingerprint());
        report.count("verify_missing", self.missing);
        report.count("verify_duplicated", self.duplicated);
        report.count("verify_unknown", self.unknown);
        for (index, shown) in self.shown.iter().enumerate() {
            report.text(&format!("verify_difference_{}", index + 1), shown.as_str());
        }
    }
}

/// Compares what was sent with what the query finds; shows at most `show` differing records.
pub(crate) fn verify(expected: &Expected<'_>, query: &Query, show: usize) -> Result<Verdict> {
    compare(
        &|each| expected.each_record(each),
        &|each| query.each_record(each),
        PARTITION_RECORDS_MAX,
        show,
    )
}

type EachSent<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8], bool)) -> Result<()>;
type EachFound<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8], &[u8])) -> Result<()>;

/// The comparison, over anything that can be gone through several times.
fn compare(
    sent: EachSent<'_>,
    found: EachFound<'_>,
    partition_records_max: u64,
    show: usize,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    sent(&mut |record, promised| {
        if promised {
            verdict.promised.add(record);
        } else {
            verdict.unpromised += 1;
        }
    })?;
    found(&mut |_, record| verdict.found.add(record))?;
    if verdict.unpromised == 0 && verdict.promised == verdict.found {
        return Ok(verdict);
    }
    let records = verdict.found.records.max(verdict.promised.records + verdict.unpromised);
    let partitions = records.div_ceil(partition_records_max).max(1);
    let mut differing: HashMap<u128, Difference> = HashMap::new();
    for partition in 0..partitions {
        let mut sides = Sides::default();
        let belongs =
            |hash: u128| ((hash >> 64) * u128::from(partitions)) >> 64 == u128::from(partition);
        sent(&mut |record, promised| {
            let hash = hash(record);
            if belongs(hash) {
                if promised { &mut sides.promised } else { &mut sides.unpromised }.push(hash);
            }
        })?;
        found(&mut |_, record| {
            let hash = hash(record);
            if belongs(hash) {
                sides.found.push(hash);
            }
        })?;
        sides.differences(&mut |hash, difference| {
            match difference {
                Difference::Missing(times) => verdict.missing += times,
                Difference::Duplicated(times) => verdict.duplicated += times,
                Difference::Unknown(times) => verdict.unknown += times,
            }
            if differing.len() < SHOWN_MAX {
                differing.insert(hash, difference);
            }
        });
    }
    show_differing(sent, found, differing, show, &mut verdict)?;
    Ok(verdict)
}

/// Goes through both sides once more for the text of the records that differ.
fn show_differing(
    sent: EachSent<'_>,
    found: EachFound<'_>,
    mut differing: HashMap<u128, Difference>,
    show: usize,
    verdict: &mut Verdict,
) -> Result<()> {
    if differing.is_empty() {
        return Ok(());
    }
    let mut shown = Vec::new();
    sent(&mut |record, _| {
        let hash = hash(record);
        if let Some(Difference::Missing(times)) = differing.get(&hash)
            && shown.len() < show
        {
            shown.push(format!("missing {times}×: {}", printable(record)));
            differing.remove(&hash);
        }
    })?;
    let missing_shown = shown.len();
    found(&mut |ulid, record| {
        let word = match differing.get(&hash(record)) {
            Some(Difference::Duplicated(_)) => "duplicated",
            Some(Difference::Unknown(_)) => "never sent",
            _ => return,
        };
        if shown.len() < missing_shown + show {
            shown.push(format!("{word}, {}: {}", printable(ulid), printable(record)));
        }
    })?;
    verdict.shown = shown;
    Ok(())
}

fn printable(bytes: &[u8]) -> String {
    let more = if bytes.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{more}", bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn compared(sent: &[(u8, bool)], found: &[u8], partition_records_max: u64) -> Verdict {
        compare(
            &|each| {
                for (record, promised) in sent {
                    each(&[*record], *promised);
                }
                Ok(())
            },
            &|each| {
                for record in found {
                    each(b"ULID", &[*record]);
                }
                Ok(())
            },
            partition_records_max,
            3,
        )
        .unwrap()
    }

    #[test]
    fn a_missing_a_duplicated_and_an_altered_record_are_named() {
        let sent = [(b'a', true), (b'b', true), (b'b', true), (b'c', true)];
        assert!(compared(&sent, b"cbab", 100).holds());
        let missing = compared(&sent, b"bac", 100);
        assert_eq!((missing.missing, missing.duplicated, missing.unknown), (1, 0, 0));
        assert_eq!(missing.shown, ["missing 1×: b"]);
        let duplicated = compared(&sent, b"abbcc", 100);
        assert_eq!((duplicated.missing, duplicated.duplicated, duplicated.unknown), (0, 1, 0));
        assert_eq!(duplicated.shown, ["duplicated, ULID: c", "duplicated, ULID: c"]);
        let altered = compared(&sent, b"abbX", 100);
        assert_eq!((altered.missing, altered.duplicated, altered.unknown), (1, 0, 1));
        assert_eq!(altered.shown, ["missing 1×: c", "never sent, ULID: X"]);
    }

    #[test]
    fn records_without_a_promise_may_be_there_or_not() {
        let sent = [(b'a', true), (b'b', false), (b'a', false)];
        for found in [&b"a"[..], b"ab", b"aab"] {
            assert!(compared(&sent, found, 100).holds(), "{found:?}");
        }
        assert_eq!(compared(&sent, b"b", 100).missing, 1);
        assert_eq!(compared(&sent, b"aaab", 100).duplicated, 1);
    }

    proptest! {
        #[test]
        fn counts_agree_with_a_map_whatever_the_partitions(
            sent in prop::collection::vec((0u8..12, any::<bool>()), 0..60),
            found in prop::collection::vec(0u8..14, 0..60),
            partition_records_max in 1u64..100,
        ) {
            let mut counts: BTreeMap<u8, (u64, u64, u64)> = BTreeMap::new();
            for (record, promised) in &sent {
                let count = counts.entry(*record).or_default();
                count.0 += u64::from(*promised);
                count.1 += 1;
            }
            for record in &found {
                counts.entry(*record).or_default().2 += 1;
            }
            let missing: u64 =
                counts.values().map(|(promised, _, found)| promised.saturating_sub(*found)).sum();
            let extra: u64 =
                counts.values().map(|(_, sent, found)| found.saturating_sub(*sent)).sum();
            let unknown: u64 =
                counts.values().filter(|count| count.1 == 0).map(|count| count.2).sum();
            let verdict = compared(&sent, &found, partition_records_max);
            prop_assert_eq!(verdict.missing, missing);
            prop_assert_eq!(verdict.duplicated + verdict.unknown, extra);
            prop_assert_eq!(verdict.unknown, unknown);
        }
    }
}
