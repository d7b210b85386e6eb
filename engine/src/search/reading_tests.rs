//! What a tally is handed against what a query shows.

use std::sync::Arc;

use proptest::prelude::*;

use super::testing::{TestPart, TestRecord};
use super::tests::{MS, searcher, spec};
use super::*;
use crate::chunk::Part;
use crate::entries::CountedEntries;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// Remembers what it was handed.
#[derive(Default)]
struct Notes(Vec<(Ulid, Vec<u8>)>);

impl RecordTally for Notes {
    fn count_entries(&mut self, entries: &CountedEntries) {
        unreachable!("nobody asked for entries: {entries:?}");
    }

    fn count(&mut self, id: Ulid, record: &[u8]) {
        self.0.push((id, record.to_vec()));
    }
}

fn records(texts: Vec<(u8, &'static str)>) -> Vec<TestRecord> {
    let topic = Topic::new(b"t").unwrap();
    let mut ms = MS;
    let texts = texts.into_iter().enumerate();
    texts
        .map(|(n, (step, text))| {
            ms += u64::from(step / 3);
            (Ulid::from_parts(ms, 1, n as u64), topic.clone(), text.as_bytes().to_vec())
        })
        .collect()
}

fn tallied(parts: Vec<TestPart>, pattern: &str) -> (Vec<(Ulid, Vec<u8>)>, Stats) {
    let parts = parts.into_iter().map(|part| Arc::new(part) as Arc<dyn Part>).collect();
    let snapshot = Snapshot { parts, missing: Vec::new() };
    // Neither is applied.
    let spec = QuerySpec { limit: Some(1), order: Order::Desc, ..spec(pattern) };
    let (notes, stats) =
        searcher(2).tally(Notes::default(), spec, snapshot).wait_blocking().unwrap();
    (notes.0, stats)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn each_record_is_handed_over_once_the_oldest_first(
        texts in prop::collection::vec((0..6u8, prop::sample::select(vec!["", "a", "ba", "c"])), 0..80),
        (chunk, other_chunk) in (1..20usize, 1..20usize),
        (from, to) in (0..80usize, 0..80usize),
        pattern in prop::sample::select(vec!["", "a", "^$"]),
    ) {
        let records = records(texts);
        let copied = records.get(from.min(to)..from.max(to)).unwrap_or_default();
        let parts = vec![TestPart::new(&records, chunk), TestPart::new(copied, other_chunk)];
        let expression = regex::bytes::Regex::new(pattern).unwrap();
        let expected: Vec<(Ulid, Vec<u8>)> = records
            .iter()
            .filter(|(_, _, text)| expression.is_match(text))
            .map(|(id, _, text)| (*id, text.clone()))
            .collect();
        let (found, stats) = tallied(parts, pattern);
        prop_assert_eq!(stats.records, expected.len() as u64);
        prop_assert!(stats.complete);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn what_cannot_be_read_is_not_counted_and_told() {
    let records = records((0..30).map(|_| (3, "a")).collect());
    let damaged = TestPart { corrupt: vec![1], ..TestPart::new(&records, 10) };
    let (found, stats) = tallied(vec![damaged], "a");
    assert_eq!((found.len(), stats.complete), (20, false));
    // A copy stands in.
    let damaged = TestPart { corrupt: vec![1], ..TestPart::new(&records, 10) };
    let (found, _) = tallied(vec![damaged, TestPart::new(&records, 7)], "a");
    assert_eq!(found.len(), 30);
}
