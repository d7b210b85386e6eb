//! Histograms by topic against a count of few lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::testing::{TestPart, TestRecord};
use super::tests::{MS, searcher, spec};
use super::*;
use crate::chunk::Part;
use crate::limits::SERIES_TOPICS_MAX;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// Counts, and again where that is asked for; says whether it was.
fn by_topic(records: &[TestRecord], chunk: usize, buckets: usize) -> (TopicHistogram, bool) {
    let parts = vec![Arc::new(TestPart::new(records, chunk)) as Arc<dyn Part>];
    let snapshot = Snapshot { parts, missing: Vec::new() };
    let (searcher, spec) = (searcher(2), QuerySpec { from: Ulid::first_of_ms(MS), ..spec("") });
    let count = |spec| {
        let ticket = searcher.histogram_by_topic(spec, snapshot.clone(), buckets);
        ticket.wait_blocking().unwrap()
    };
    let found = count(spec.clone());
    let topics = found.to_count_again().map(<[Topic]>::to_vec);
    let again = topics.clone().map(|topics| count(QuerySpec { topics, ..spec.clone() }));
    let found = found.with(again);
    let plain = searcher.histogram(spec, snapshot.clone(), buckets).wait_blocking().unwrap();
    assert_eq!(found.all.counts, plain.counts);
    (found, topics.is_some())
}

/// Topic `n` of some thousands.
fn topic(n: usize) -> Topic {
    Topic::new(format!("topic-{n:05}").as_bytes()).unwrap()
}

/// The largest topics and the rest, each bucket of them.
fn model(records: &[TestRecord], all: &Histogram) -> Vec<Series> {
    let bucket = |id: Ulid| ((id.ms() - all.from_ms) / all.interval_ms) as usize;
    let mut topics: BTreeMap<Topic, Vec<u64>> = BTreeMap::new();
    for (id, topic, _) in records {
        let counts = topics.entry(topic.clone()).or_insert_with(|| vec![0; all.counts.len()]);
        counts[bucket(*id)] += 1;
    }
    let mut topics: Vec<_> = topics.into_iter().collect();
    topics.sort_by_key(|(name, counts)| (u64::MAX - counts.iter().sum::<u64>(), name.clone()));
    let rest = topics.split_off(SERIES_TOPICS_MAX.min(topics.len()));
    let sum = |at: usize| rest.iter().map(|(_, counts)| counts[at]).sum();
    let rest = Series { topic: None, counts: (0..all.counts.len()).map(sum).collect() };
    let one = |(topic, counts)| Series { topic: Some(topic), counts };
    let is_some = rest.counts.iter().any(|&count| count > 0);
    topics.into_iter().map(one).chain(is_some.then_some(rest)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_largest_topics_are_counted_each_and_the_rest_together(
        records in prop::collection::vec((0..3u64, 0..6usize, 0..6usize), 0..150),
        chunk in 1..20usize,
        buckets in 1..9usize,
    ) {
        let mut ms = MS;
        let records: Vec<TestRecord> = records
            .into_iter()
            .enumerate()
            .map(|(n, (step, a, b))| {
                ms += step;
                // Some of these topics have many more records than others.
                (Ulid::from_parts(ms, 1, n as u64), topic(a * b), vec![b'x'])
            })
            .collect();
        let (found, is_again) = by_topic(&records, chunk, buckets);
        prop_assert!(!is_again);
        let expected = model(&records, &found.all);
        prop_assert_eq!(found.series, expected);
    }
}

#[test]
fn topics_that_are_too_many_to_be_counted_at_once_are_counted_again() {
    let of = |n: u64| topic(if n.is_multiple_of(3) { n as usize % 25 } else { n as usize % 700 });
    let records: Vec<TestRecord> =
        (0..3_000).map(|n| (Ulid::from_parts(MS + n, 1, n), of(n), vec![b'x'])).collect();
    let (found, is_again) = by_topic(&records, 50, 1_000);
    assert!(is_again, "700 topics in 1,000 buckets");
    assert_eq!(found.series, model(&records, &found.all));
    assert_eq!((found.series.len(), &found.series[20].topic), (21, &None));
}
