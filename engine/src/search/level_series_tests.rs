//! Histograms by level against a count of few lines, over records that are read and such as are told of.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::stored_tests::{PLAIN_TEXT, stored_as};
use super::testing::{TestPart, TestRecord};
use super::tests::{MS, searcher, spec};
use super::*;
use crate::chunk::Part;
use crate::entries::LEVELS;
use crate::levels::level;
use crate::limits::TIME_TEXT_BYTES_MAX;
use crate::store::writer::WriterOptions;
use crate::topic::Topic;
use crate::ulid::Ulid;

fn topic(name: &str) -> Topic {
    Topic::new(name.as_bytes()).unwrap()
}

fn entry(level: usize) -> Vec<u8> {
    entry_of("2024-05-01T12:00:00Z", level)
}

/// What begins like an entry and has as long a time as one may be sent over TCP.
fn entry_of(time: &str, level: usize) -> Vec<u8> {
    let level = LEVELS[level];
    format!(
        "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"message\":\"m\",\"service\":\"s\"}}"
    )
    .into_bytes()
}

/// Each level's counts, the worst first, and those of none.
fn model<'a>(
    records: impl Iterator<Item = &'a TestRecord> + Clone,
    all: &Histogram,
) -> Vec<LevelSeries> {
    let levels = (0..LEVELS.len()).rev().map(Some).chain([None]);
    let series = levels.map(|of| {
        let mut counts = vec![0; all.counts.len()];
        for (id, _, _) in records.clone().filter(|(_, _, record)| level(record) == of) {
            counts[((id.ms() - all.from_ms) / all.interval_ms) as usize] += 1;
        }
        LevelSeries { level: of, counts }
    });
    series.filter(|one| one.counts.iter().any(|&count| count > 0)).collect()
}

/// What is held twice is stored, and part of it in memory, too.
fn parts(
    directory: &Path,
    records: &[TestRecord],
    block: usize,
    chunk: usize,
) -> Vec<Arc<dyn Part>> {
    let options = WriterOptions { block_text_target: block, slab_blocks_max: 3, ..PLAIN_TEXT };
    let (stored, young) = records.split_at(records.len() * 2 / 3);
    let mut parts: Vec<Arc<dyn Part>> = Vec::new();
    if !stored.is_empty() {
        parts.push(stored_as(directory, stored, options));
    }
    let young = [&stored[stored.len() * 3 / 4..], young].concat();
    if !young.is_empty() {
        parts.push(Arc::new(TestPart::new(&young, chunk)));
    }
    parts
}

fn counted(spec: &QuerySpec, parts: &[Arc<dyn Part>], buckets: usize) -> LevelHistogram {
    let snapshot = || Snapshot { parts: parts.to_vec(), missing: Vec::new() };
    let searcher = searcher(2);
    let (tally, stats) =
        searcher.histogram_by_level(spec.clone(), snapshot(), buckets).wait_blocking().unwrap();
    let found = tally.result(stats);
    let plain = searcher.histogram(spec.clone(), snapshot(), buckets).wait_blocking().unwrap();
    assert_eq!(found.all.counts, plain.counts);
    assert_eq!(found.all.stats.records, plain.stats.records);
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn each_level_is_counted_and_those_without_together(
        lines in prop::collection::vec((0..3u64, 0..11usize, 0..9u8), 0..150),
        (block, chunk, buckets) in (100..900usize, 1..20usize, 1..9usize),
        (from, to) in (0..150u64, 0..200u64),
        pattern in prop::sample::select(vec!["", "level|it"]),
        is_log_only: bool,
    ) {
        let mut ms = MS;
        let lines = lines.into_iter().enumerate();
        let records: Vec<TestRecord> = lines.map(|(n, (step, kind, odd))| {
            ms += step;
            let name = if odd == 0 { "other" } else { "log" };
            let text = match kind {
                0..5 => entry(kind),
                5 => b"it WARNS: warning".to_vec(),
                6 => b"level=error msg=debug".to_vec(),
                7 => b"nothing of the kind".to_vec(),
                8 => entry_of(&"7".repeat(TIME_TEXT_BYTES_MAX + n % 2), 3),
                9 => entry_of(&"7".repeat(1_950 + 17 * n), 3),
                _ => Vec::new(),
            };
            (Ulid::from_parts(ms, 1, n as u64), topic(name), text)
        }).collect();
        let directory = tempfile::tempdir().unwrap();
        let parts = parts(directory.path(), &records, block, chunk);
        let (from, to) = (MS + from, MS + to.max(from));
        let topics = if is_log_only { vec![topic("log")] } else { Vec::new() };
        let spec = QuerySpec {
            from: Ulid::first_of_ms(from),
            to: Ulid::last_of_ms(to),
            topics,
            ..spec(pattern)
        };
        let expression = regex::bytes::Regex::new(pattern).unwrap();
        let asked = records.iter().filter(|(id, topic, text)| {
            (from..=to).contains(&id.ms())
                && (!is_log_only || topic.as_str() == "log")
                && expression.is_match(text)
        });
        let found = counted(&spec, &parts, buckets);
        prop_assert_eq!(&found.series, &model(asked, &found.all));
        prop_assert!(found.all.stats.complete);
    }
}

#[test]
fn a_time_of_thousands_of_digits_counts_the_same_whether_it_is_told_or_read() {
    let directory = tempfile::tempdir().unwrap();
    let records: Vec<TestRecord> = (0..40)
        .map(|n| (Ulid::from_parts(MS + n, 1, n), topic("log"), entry_of(&"7".repeat(3_000), 3)))
        .collect();
    let options = WriterOptions { block_text_target: 10_000, ..PLAIN_TEXT };
    let parts: Vec<Arc<dyn Part>> = vec![stored_as(directory.path(), &records, options)];
    let spec = QuerySpec { from: Ulid::first_of_ms(MS), ..spec("") };
    // All of a block in one bucket, and each record in one of its own.
    for buckets in [1, 40] {
        let found = counted(&spec, &parts, buckets);
        assert_eq!(found.series, model(records.iter(), &found.all), "{buckets}");
    }
}

#[test]
fn entries_of_blocks_that_lie_in_one_bucket_are_counted_without_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let records: Vec<TestRecord> = (0..4_000)
        .map(|n| (Ulid::from_parts(MS + n, 1, n), topic("log"), entry(n as usize % 5)))
        .collect();
    let options = WriterOptions { block_text_target: 2_000, ..PLAIN_TEXT };
    let parts: Vec<Arc<dyn Part>> = vec![stored_as(directory.path(), &records, options)];
    let text: usize = records.iter().map(|(_, _, text)| text.len() + 1).sum();
    let ask = |pattern: &str, buckets| {
        let spec = QuerySpec { from: Ulid::first_of_ms(MS), ..spec(pattern) };
        let found = counted(&spec, &parts, buckets);
        assert_eq!(found.series, model(records.iter(), &found.all));
        found.all.stats.bytes_scanned as usize
    };
    assert_eq!(ask("", 1), 0);
    // Those over an edge are read: of ten buckets nine have one.
    let some = ask("", 10);
    assert!(some > 0 && some <= 9 * 2_200, "{some}");
    assert_eq!(ask("service", 1), text, "with an expression all that may match is read");
}
