//! Queries over store segments on a real file system, whole and damaged.

use std::sync::Arc;

use super::required::Required;
use super::testing::TestRecord;
use super::tests::{searcher, series, spec};
use super::*;
use crate::chunk::Part;
use crate::run_table::Run;
use crate::storage::OsStorage;
use crate::store::StoreDirectory;
use crate::store::footer::Inputs;
use crate::store::name::IdSource;
use crate::store::segment::StoreSegment;
use crate::store::writer::{Compression, Piece, SegmentWriter, TopicCache, WriterOptions};
use crate::topic::Topic;
use crate::ulid::Ulid;

/// A store segment on disk, in small blocks that hold text as it is.
fn stored(directory: &std::path::Path, records: &[TestRecord]) -> Arc<StoreSegment> {
    stored_as(directory, records, PLAIN_TEXT)
}

/// Text as it is, and room for signatures however small the blocks.
pub(super) const PLAIN_TEXT: WriterOptions = WriterOptions {
    block_text_target: 300,
    slab_blocks_max: 5,
    compression: Compression::None,
    signature_percent: 1_000,
};

pub(super) fn stored_as(
    directory: &std::path::Path,
    records: &[TestRecord],
    options: WriterOptions,
) -> Arc<StoreSegment> {
    let directory = Arc::new(StoreDirectory::new(
        Arc::new(OsStorage),
        directory.to_owned(),
        IdSource::seeded(7),
    ));
    let mut writer = SegmentWriter::new(&directory, options);
    for (id, topic, record) in records {
        // Each has a dictionary of its own.
        let mut cache = TopicCache::default();
        let mut text = record.clone();
        text.push(b'\n');
        let run = Run { first: *id, count: 1, text_len: text.len() as u32, topic: 0 };
        let topics = std::slice::from_ref(topic);
        writer.append(&Piece { run, text: &text, topics }, &mut cache).unwrap();
    }
    writer.finish(Inputs::default()).unwrap().unwrap()
}

#[test]
fn a_damaged_store_segment_never_shows_what_was_not_written_and_tells_what_it_lost() {
    never_shows_what_was_not_written(Compression::None);
}

#[test]
fn the_same_holds_for_compressed_blocks() {
    never_shows_what_was_not_written(Compression::Zstd(1));
}

fn never_shows_what_was_not_written(compression: Compression) {
    let directory = tempfile::tempdir().unwrap();
    let records = series(0, 300, |i| format!("record {i} {}", i * i).into_bytes());
    let options = WriterOptions { compression, ..PLAIN_TEXT };
    let segment = stored_as(directory.path(), &records, options);
    let ask = |searcher: &Searcher, pattern: &str| {
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        let snapshot = Snapshot { parts, missing: Vec::new() };
        let reader = searcher.query(spec(pattern), snapshot, Format::Text);
        let (text, outcome) = reader.read_all_blocking();
        let lines = text.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec);
        (lines.collect::<Vec<_>>(), outcome.stats)
    };
    let searcher = searcher(2);
    let (whole, stats) = ask(&searcher, "");
    assert_eq!((whole.len(), stats.complete), (300, true));
    let bytes = std::fs::read(segment.path()).unwrap();
    let step = bytes.len() / 150;
    for at in (0..bytes.len()).step_by(step) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x20;
        std::fs::write(segment.path(), &flipped).unwrap();
        for pattern in ["", "record [0-9]*7 "] {
            let (lines, stats) = ask(&searcher, pattern);
            let pattern = regex::bytes::Regex::new(pattern).unwrap();
            let mut expected = whole.iter().filter(|line| pattern.is_match(line));
            let count = expected.clone().count();
            assert!(lines.iter().all(|line| expected.any(|e| e == line)), "invented, byte {at}");
            assert!(lines.len() == count || !stats.complete, "untold, byte {at}");
        }
    }
    for cut in (0..bytes.len()).step_by(step * 5) {
        std::fs::write(segment.path(), &bytes[..cut]).unwrap();
        let (lines, stats) = ask(&searcher, "");
        assert!(lines.len() == whole.len() || !stats.complete, "cut at {cut}");
        assert!(lines.iter().all(|line| whole.contains(line)));
    }
}

/// What was met once is known: also by those who read no text, and before the first byte.
#[test]
fn damage_that_was_met_is_told_by_counts_and_plans_until_the_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let records = series(0, 300, |i| format!("record {i} {}", i * i).into_bytes());
    let segment = stored(directory.path(), &records);
    let snapshot = || {
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        Snapshot { parts, missing: Vec::new() }
    };
    let searcher = searcher(1);
    let count = |spec| searcher.stats(spec, snapshot()).wait_blocking().unwrap();
    let whole = std::fs::read(segment.path()).unwrap();
    let mut flipped = whole.clone();
    let at = memchr::memmem::find(&whole, b"record 200").unwrap();
    flipped[at] ^= 0x20;
    std::fs::write(segment.path(), &flipped).unwrap();

    assert!(count(spec("")).complete, "counted from the index: nobody has looked at the text");
    let met = count(spec("record"));
    assert_eq!((met.complete, met.missing_count), (false, 1));
    let counted = count(spec(""));
    assert_eq!((counted.records, counted.missing), (met.records, met.missing.clone()));
    let plan = searcher.plan(&spec(""), &snapshot());
    assert_eq!((plan.complete, plan.missing_count), (false, 1));

    // Beside it, or where only some records are wanted, nothing is missing.
    let (from, to) = (met.missing[0].from, met.missing[0].to);
    let before = QuerySpec { to: Ulid(from.0 - 1), ..spec("") };
    assert!(count(before.clone()).complete && searcher.plan(&before, &snapshot()).complete);
    let first = QuerySpec { limit: Some(1), ..spec("") };
    assert!(searcher.plan(&first, &snapshot()).complete);
    let inside = QuerySpec { from, to, topics: vec![Topic::new(b"a").unwrap()], ..spec("") };
    assert!(!count(inside).complete);

    std::fs::write(segment.path(), &whole).unwrap();
    // The first one to open it again notices.
    assert_eq!(count(spec("record")).records, 300);
    let mended = count(spec("record"));
    assert_eq!((mended.records, mended.complete), (300, true));
    assert!(count(spec("")).complete && searcher.plan(&spec(""), &snapshot()).complete);
}

/// An index may be whole where the run table that it sums up is not.
#[test]
fn a_block_is_counted_from_the_index_only_after_its_run_table_was_verified() {
    let directory = tempfile::tempdir().unwrap();
    let records = series(0, 300, |i| format!("record {i} {}", i * i).into_bytes());
    let segment = stored(directory.path(), &records);
    let searcher = searcher(1);
    let count = || {
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        let stats = searcher.stats(spec(""), Snapshot { parts, missing: Vec::new() });
        stats.wait_blocking().unwrap()
    };
    let (first, second) = (count(), count());
    assert!(first.blocks_read > 10 && first.bytes_scanned == 0);
    assert_eq!((second.records, second.complete, second.blocks_read), (300, true, 0));

    let mut bytes = std::fs::read(segment.path()).unwrap();
    let at = memchr::memmem::find(&bytes, b"record 0 0\n").unwrap();
    bytes[at - 1] ^= 0x20; // The table lies before the text.
    std::fs::write(segment.path(), &bytes).unwrap();
    for _ in 0..2 {
        let stats = count();
        assert_eq!((stats.complete, stats.missing_count), (false, 1));
        assert!(stats.missing[0].reason.contains("checksum of the run table"));
        assert!(stats.records < 300);
    }
}

#[test]
fn plans_leave_out_what_is_known_to_be_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let records = series(0, 300, |i| format!("record {i} {}", i * i).into_bytes());
    let segment = stored(directory.path(), &records);
    let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
    let snapshot = Snapshot { parts, missing: Vec::new() };
    let searcher = searcher(1);
    let whole = searcher.plan(&spec(""), &snapshot);
    let bytes = std::fs::read(segment.path()).unwrap();
    let break_and_meet = |needle: &[u8]| {
        let mut bytes = bytes.clone();
        for at in memchr::memmem::find_iter(&bytes.clone(), needle) {
            bytes[at] ^= 0x20;
        }
        std::fs::write(segment.path(), &bytes).unwrap();
        searcher.stats(spec("record"), snapshot.clone()).wait_blocking().unwrap()
    };
    let met = break_and_meet(b"record 200 ");
    let plan = searcher.plan(&spec(""), &snapshot);
    assert_eq!((plan.complete, plan.segments), (false, 1));
    assert_eq!(plan.data_set_bytes_max, met.bytes);
    assert!(met.bytes < whole.data_set_bytes_max);

    let met = break_and_meet(b"record ");
    let plan = searcher.plan(&spec(""), &snapshot);
    assert_eq!((met.records, plan.segments, plan.data_set_bytes_max), (0, 0, 0));
    let counted = searcher.stats(spec(""), snapshot.clone()).wait_blocking().unwrap();
    assert_eq!(counted.segments, plan.segments, "one count, wherever it is shown");
    assert_eq!((plan.complete, plan.missing_count), (false, met.missing_count));
}

/// Lines of which each holds a few words of its own and shares others.
fn signed_series() -> Vec<TestRecord> {
    series(0, 400, |i| {
        let kelvin = if i % 97 == 5 { "20 \u{212A}elvin" } else { "" };
        format!("Request {:08x} user=name{i} {kelvin}", i.wrapping_mul(0x9E37_79B9)).into_bytes()
    })
}

#[test]
fn signatures_change_what_a_search_costs_and_nothing_else() {
    let [signed, plain] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let records = signed_series();
    let signed = stored_as(signed.path(), &records, PLAIN_TEXT);
    let unsigned = WriterOptions { signature_percent: 0, ..PLAIN_TEXT };
    let plain = stored_as(plain.path(), &records, unsigned);
    let searcher = searcher(2);
    let ask = |segment: &Arc<StoreSegment>, spec: QuerySpec| {
        let parts = vec![Arc::clone(segment) as Arc<dyn Part>];
        let snapshot = Snapshot { parts, missing: Vec::new() };
        let (text, outcome) = searcher.query(spec, snapshot, Format::Text).read_all_blocking();
        (text, outcome.stats)
    };
    for (pattern, regex, case_insensitive, rules_out) in [
        ("user=name123 ", false, false, true),
        ("USER=NAME123 ", false, true, true),
        ("absent-needle", false, false, true),
        ("name(12|34)5", true, false, true),
        ("kelvin", true, true, true),
        ("request.*user", true, true, false),
        ("user", false, false, false),
        ("", false, false, false),
    ] {
        for order in [Order::Asc, Order::Desc] {
            let chain = Chain::from(Expression::new(pattern, regex, case_insensitive).unwrap());
            let spec = QuerySpec { chain, order, ..spec("") };
            let (expected, all) = ask(&plain, spec.clone());
            let (found, stats) = ask(&signed, spec);
            assert_eq!(found, expected, "{pattern}");
            assert_eq!((stats.records, stats.complete), (all.records, true), "{pattern}");
            let skipped = stats.blocks_skipped.by_signature;
            assert_eq!(stats.blocks_read + skipped, all.blocks_read, "{pattern}");
            assert_eq!(skipped * 10 > all.blocks_read * 7, rules_out, "{pattern}: {skipped}");
        }
    }
}

#[test]
fn blocks_are_skipped_that_lack_any_of_what_a_chain_requires() {
    let directory = tempfile::tempdir().unwrap();
    let segment = stored(directory.path(), &signed_series());
    let searcher = searcher(1);
    let ask = |all: &[&str], none: &[&str]| {
        let compiled = |texts: &[&str]| {
            texts.iter().map(|text| Expression::new(text, false, false).unwrap()).collect()
        };
        let chain = Chain::new(compiled(all), compiled(none));
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        let (spec, snapshot) =
            (QuerySpec { chain, ..spec("") }, Snapshot { parts, missing: vec![] });
        searcher.stats(spec, snapshot).wait_blocking().unwrap()
    };
    let all = ask(&["user"], &[]);
    let one = ask(&["user=name123 "], &[]);
    assert!(one.records > 0 && one.blocks_read * 3 < all.blocks_read);
    for of_many in [["user", "user=name123 "], ["user=name123 ", "user"]] {
        let found = ask(&of_many, &["absent-needle"]);
        let counts = (found.records, found.blocks_read, found.blocks_skipped);
        assert_eq!(counts, (one.records, one.blocks_read, one.blocks_skipped), "{of_many:?}");
    }
    let two = ask(&["user=name123 ", "user=name7 "], &[]);
    assert!(two.records == 0 && two.blocks_read <= one.blocks_read);
    let without = ask(&["user"], &["user=name123 "]);
    assert_eq!(without.records, all.records - one.records);
    assert_eq!(without.blocks_read, all.blocks_read, "what may not be there rules no block out");
    let only_without = ask(&[], &["user=name123 "]);
    assert_eq!(only_without.records, all.records - one.records);
    let nothing = ask(&["user"], &[""]);
    assert_eq!((nothing.records, nothing.blocks_read), (0, 0));
}

#[test]
fn a_damaged_signature_rules_nothing_out() {
    let directory = tempfile::tempdir().unwrap();
    let segment = stored(directory.path(), &signed_series());
    let searcher = searcher(1);
    let ask = |pattern: &str| {
        let parts = vec![Arc::clone(&segment) as Arc<dyn Part>];
        let reader =
            searcher.query(spec(pattern), Snapshot { parts, missing: Vec::new() }, Format::Text);
        let (text, outcome) = reader.read_all_blocking();
        (text, outcome.stats)
    };
    let (whole, before) = ask("user=name123 ");
    let mut bytes = std::fs::read(segment.path()).unwrap();
    for slab in segment.open_shared().unwrap().slabs() {
        let section = slab.trailer.unwrap().signatures;
        let start = (slab.offset + section.offset) as usize;
        bytes[start..start + section.len as usize].fill(0);
    }
    std::fs::write(segment.path(), &bytes).unwrap();
    let (found, stats) = ask("user=name123 ");
    assert_eq!((found, stats.complete, stats.blocks_skipped.all()), (whole, true, 0));
    assert!(before.blocks_skipped.by_signature > 0 && before.damaged_signatures.is_empty());
    let [told] = &stats.damaged_signatures[..] else { panic!("{:?}", stats.damaged_signatures) };
    assert_eq!((&*told.path, told.loses_records()), (segment.path(), false));
    assert_eq!(
        ask("absent-needle").1.damaged_signatures,
        std::slice::from_ref(told),
        "each answer tells it"
    );
    assert!(ask("").1.damaged_signatures.is_empty(), "no signature was asked");
}

#[test]
fn a_page_that_was_verified_is_believed_until_the_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let segment = stored(directory.path(), &signed_series());
    let required = Required::of_literal(b"user=name123 ");
    let asked = || {
        let found = segment.open().unwrap().candidates(&required);
        (found.blocks.unwrap().iter().count(), found.damage)
    };
    let first = asked();
    assert_eq!(first.1, None);
    assert_eq!(asked(), first, "the same from what is remembered");
    let whole = std::fs::read(segment.path()).unwrap();
    let mut bytes = whole.clone();
    for slab in segment.open_shared().unwrap().slabs() {
        let section = slab.trailer.unwrap().signatures;
        let start = (slab.offset + section.offset) as usize;
        bytes[start..start + section.len as usize].fill(0);
    }
    std::fs::write(segment.path(), &bytes).unwrap();
    let (blocks, damage) = asked();
    assert_eq!(blocks, segment.open().unwrap().chunks().len());
    assert!(damage.is_some() && blocks > first.0);
    std::fs::write(segment.path(), &whole).unwrap();
    assert_eq!(asked(), first, "whole again");
}
