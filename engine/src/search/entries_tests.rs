//! Entries that are counted, or passed over, by what store segments tell of them, against those that are
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::stored_tests::{PLAIN_TEXT, stored_as};
use super::testing::TestRecord;
use super::tests::{MS, searcher, spec};
use super::*;
use crate::chunk::Part;
use crate::entries::{CountedEntries, EntriesWanted, Kept, LEVELS, LevelCount};
use crate::store::open::read_footer;
use crate::store::writer::WriterOptions;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// By service and level.
type Counts = BTreeMap<(String, usize), LevelCount>;

#[derive(Default)]
struct Entries {
    counts: Counts,
    /// Records that were handed over.
    read: usize,
}

impl Entries {
    fn add(&mut self, service: &str, level: usize, count: LevelCount) {
        self.counts.entry((service.to_owned(), level)).or_default().add(count);
    }
}

impl RecordTally for Entries {
    fn count(&mut self, id: Ulid, record: &[u8]) {
        self.read += 1;
        let Some(Kept { level, service, .. }) = Kept::of(record) else { return };
        self.add(service, level, LevelCount { entries: 1, latest_ms: id.ms() });
    }

    fn count_entries(&mut self, entries: &CountedEntries) {
        self.add(&entries.service, entries.level, entries.count);
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name.as_bytes()).unwrap()
}

fn entry(level: usize, service: &str) -> Vec<u8> {
    let level = LEVELS[level];
    format!(
        "{{\"timestamp\":\"2024-05-01T12:00:00Z\",\"level\":\"{level}\",\"message\":\"m\",\"service\":\"{service}\"}}"
    )
    .into_bytes()
}

/// An expression for entries of a level and a service.
fn expression(level: Option<usize>, service: &str) -> String {
    let level = level.map_or("[a-z]+", |level| LEVELS[level]);
    format!(
        r#"^\{{"timestamp":"[^"]+","level":"{level}","message":"m","service":"(?i:{service})[a-z]*"\}}$"#
    )
}

fn model(records: &[TestRecord], wanted: &EntriesWanted, bounds: (u64, u64)) -> Counts {
    let mut entries = Entries::default();
    for (id, of, record) in records {
        let is_asked = (bounds.0..=bounds.1).contains(&id.ms()) && *of == topic("log");
        let kept = Kept::of(record).filter(|kept| wanted.admits(kept.level, kept.service));
        if kept.is_some() && is_asked {
            entries.count(*id, record);
        }
    }
    entries.counts
}

fn segments(directory: &Path, parts: &[Vec<TestRecord>], block: usize) -> Vec<Arc<dyn Part>> {
    let options = WriterOptions { block_text_target: block, slab_blocks_max: 3, ..PLAIN_TEXT };
    let stored = parts.iter().enumerate().filter(|(_, part)| !part.is_empty()).map(|(at, part)| {
        let directory = directory.join(at.to_string());
        std::fs::create_dir(&directory).unwrap();
        stored_as(&directory, part, options) as Arc<dyn Part>
    });
    stored.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_is_told_of_entries_is_what_would_be_read(
        lines in prop::collection::vec(
            (0..3u64, 0..5usize, prop::sample::select(vec!["web", "db", "webdb"]), 0..8u8, 1..8u8), 0..120
        ),
        (block, limit) in (100..900usize, 0..20u64),
        (from, to) in (0..120u64, 0..120u64),
        (level, service) in (prop::option::of(0..5usize), prop::sample::select(vec!["", "web", "d", "x"])),
    ) {
        let mut ms = MS;
        let lines = lines.into_iter().enumerate();
        // Of each record: in which segments it is.
        let records: Vec<(TestRecord, u8)> = lines.map(|(n, (step, level, service, odd, held))| {
            ms += step;
            let name = if odd == 0 { "other" } else { "log" };
            let line = if odd == 1 { b"no entry".to_vec() } else { entry(level, service) };
            ((Ulid::from_parts(ms, 1, n as u64), topic(name), line), held)
        }).collect();
        let all: Vec<TestRecord> = records.iter().map(|(record, _)| record.clone()).collect();
        let held = |part: u8| {
            let held = records.iter().filter(|(_, held)| held >> part & 1 == 1);
            held.map(|(record, _)| record.clone()).collect::<Vec<_>>()
        };
        let directory = tempfile::tempdir().unwrap();
        let parts = segments(directory.path(), &[held(0), held(1), held(2)], block);
        let snapshot = || Snapshot { parts: parts.clone(), missing: Vec::new() };
        let (from, to) = (MS + from.min(to), MS + from.max(to));
        let wanted = EntriesWanted::new(level, service, true);
        let asked = |entries: Option<EntriesWanted>| QuerySpec {
            from: Ulid::first_of_ms(from),
            to: Ulid::last_of_ms(to),
            topics: vec![topic("log")],
            order: Order::Desc,
            limit: Some(limit),
            entries,
            ..spec(&expression(level, if service.is_empty() { "[a-z]*" } else { service }))
        };
        let searcher = searcher(2);
        let spec_told = asked(Some(EntriesWanted::new(level, service, true)));
        // As entries are asked for a part of a service, and this expression for how it begins.
        let is_part = service == "d";
        let (found, stats) =
            searcher.tally(Entries::default(), spec_told.clone(), snapshot()).wait_blocking().unwrap();
        if !is_part {
            prop_assert_eq!(&found.counts, &model(&all, &wanted, (from, to)));
            prop_assert!(stats.complete && stats.damaged_signatures.is_empty());
        }
        let show = |spec| searcher.query(spec, snapshot(), Format::Text).read_all_blocking().0;
        prop_assert_eq!(show(spec_told), show(asked(None)), "passing over chunks hides nothing");
    }
}

#[test]
fn entries_of_segments_that_overlap_nothing_are_counted_without_being_read() {
    let directory = tempfile::tempdir().unwrap();
    let records: Vec<TestRecord> = (0..400)
        .map(|n| {
            let service = if n == 250 { "rare" } else { "web" };
            (Ulid::from_parts(MS + n, 1, n), topic("log"), entry(n as usize % 4, service))
        })
        .collect();
    let parts =
        segments(directory.path(), &[records[..200].to_vec(), records[200..].to_vec()], 2_000);
    let snapshot = || Snapshot { parts: parts.clone(), missing: Vec::new() };
    let searcher = searcher(2);
    let ask = |level, service: &str| {
        let entries = Some(EntriesWanted::new(level, service, true));
        let pattern = expression(level, if service.is_empty() { "[a-z]*" } else { service });
        let spec = QuerySpec { topics: vec![topic("log")], entries, ..spec(&pattern) };
        let counted = searcher.tally(Entries::default(), spec.clone(), snapshot());
        let (counted, stats) = counted.wait_blocking().unwrap();
        assert_eq!((counted.read, stats.bytes_scanned), (0, 0), "{level:?} {service}");
        let shown = searcher.query(QuerySpec { limit: Some(1), ..spec }, snapshot(), Format::Text);
        (counted.counts, shown.read_all_blocking().1.stats)
    };
    let (counts, _) = ask(None, "");
    assert_eq!(counts.values().map(|count| count.entries).sum::<u64>(), 400);
    let (counts, shown) = ask(Some(2), "Rare");
    let latest = BTreeSet::from([(MS + 250, 1)]);
    let found = counts.values().map(|count| (count.latest_ms, count.entries));
    assert_eq!(found.collect::<BTreeSet<_>>(), latest);
    assert_eq!((shown.records, shown.blocks_read), (1, 1), "the one block that holds it");
    for (level, service) in [(Some(4), ""), (None, "absent"), (Some(1), "rare")] {
        let (counts, shown) = ask(level, service);
        assert_eq!(
            (counts.len(), shown.records, shown.blocks_read),
            (0, 0, 0),
            "{level:?} {service}"
        );
    }
}

#[test]
fn a_service_is_found_in_the_store_by_whatever_letters_an_expression_takes_for_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let records = [(Ulid::from_parts(MS, 1, 0), topic("log"), entry(1, "ϐεtaµ\u{212A}"))];
    let parts = segments(directory.path(), &[records.to_vec()], 2_000);
    let searcher = searcher(2);
    for service in ["Βϵ", "β", "ΜK", "μk", "\u{212A}"] {
        let snapshot = Snapshot { parts: parts.clone(), missing: Vec::new() };
        let entries = Some(EntriesWanted::new(None, service, true));
        let pattern = format!("(?i:{service})");
        let spec = QuerySpec { topics: vec![topic("log")], entries, ..spec(&pattern) };
        let (_, shown) = searcher.query(spec, snapshot, Format::Text).read_all_blocking();
        assert_eq!(shown.stats.records, 1, "{service}");
    }
}

#[test]
fn tables_of_slabs_that_are_not_asked_for_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let records: Vec<TestRecord> =
        (0..60).map(|n| (Ulid::from_parts(MS + n, 1, n), topic("log"), entry(1, "web"))).collect();
    let options = WriterOptions { block_text_target: 300, slab_blocks_max: 3, ..PLAIN_TEXT };
    let segment = stored_as(directory.path(), &records, options);
    let mut bytes = std::fs::read(segment.path()).unwrap();
    let footer = read_footer(&mut &bytes[..]).unwrap();
    let [first, .., last] = &footer.slabs[..] else { panic!("several slabs") };
    bytes[(first.offset + first.trailer.entries.offset) as usize] ^= 1;
    std::fs::write(segment.path(), bytes).unwrap();
    let searcher = searcher(2);
    let damages = |from: Ulid, to: Ulid| {
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        let entries = Some(EntriesWanted::new(None, "web", false));
        let spec = QuerySpec { from, to, topics: vec![topic("log")], entries, ..spec("web") };
        let snapshot = Snapshot { parts, missing: Vec::new() };
        let shown = searcher.query(spec, snapshot, Format::Text).read_all_blocking().1;
        assert!(shown.stats.complete && shown.stats.records > 0);
        shown.stats.damaged_signatures.len()
    };
    assert_eq!(damages(last.trailer.first, last.trailer.last), 0);
    assert_eq!(damages(first.trailer.first, last.trailer.last), 1);
}
