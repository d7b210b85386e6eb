//! The sweep against a ten-line model, and the searcher with its threads on top.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::consumer::Telling;
use super::sweep::{Sweep, SweepOptions};
use super::testing::{TestPart, TestRecord};
use super::work::Done;
use super::*;
use crate::chunk::Part;
use crate::storage::OsStorage;
use crate::topic::Topic;
use crate::ulid::Ulid;

pub(super) const MS: u64 = 1_700_000_000_000;

fn topic(name: &str) -> Topic {
    Topic::new(name.as_bytes()).unwrap()
}

pub(crate) fn spec(pattern: &str) -> QuerySpec {
    QuerySpec {
        from: Ulid::MIN,
        to: Ulid::MAX,
        after: None,
        chain: Expression::new(pattern, true, false).unwrap().into(),
        topics: Vec::new(),
        order: Order::Asc,
        limit: None,
        context: 0,
        entries: None,
        is_discreet: false,
    }
}

pub(super) fn snapshot(parts: &[TestPart]) -> Snapshot {
    let parts = parts.iter().map(|part| Arc::new(part.clone()) as Arc<dyn Part>).collect();
    Snapshot { parts, missing: Vec::new() }
}

/// Everything, filtered, sorted, deduplicated, limited.
pub(super) fn model(spec: &QuerySpec, parts: &[Vec<TestRecord>]) -> Vec<TestRecord> {
    let pattern = |e: &Expression| regex::bytes::Regex::new(e.text()).unwrap();
    let (must, must_not) = spec.chain.expressions();
    let must: Vec<_> = must.iter().map(pattern).collect();
    let must_not: Vec<_> = must_not.iter().map(pattern).collect();
    let after = |id: Ulid| match (spec.after, spec.order) {
        (None, _) => true,
        (Some(after), Order::Asc) => id > after,
        (Some(after), Order::Desc) => id < after,
    };
    let mut all: Vec<TestRecord> = parts.concat();
    all.retain(|(id, topic, text)| {
        (spec.from..=spec.to).contains(id)
            && after(*id)
            && (spec.topics.is_empty() || spec.topics.contains(topic))
            && must.iter().all(|pattern| pattern.is_match(text))
            && !must_not.iter().any(|pattern| pattern.is_match(text))
    });
    all.sort();
    all.dedup();
    if spec.order == Order::Desc {
        all.reverse();
    }
    all.truncate(spec.limit.unwrap_or(u64::MAX) as usize);
    all
}

/// Runs a sweep with results that come back in an order chosen by `dice`, and takes hits in
/// portions chosen by it.
fn sweep(mut sweep: Sweep, order: Order, dice: &[u8]) -> (Vec<TestRecord>, Stats) {
    let mut dice = dice.iter().cycle().map(|&d| usize::from(d));
    let mut waiting: Vec<Done> = Vec::new();
    let mut all = Vec::new();
    loop {
        while sweep.prepare() {
            let head = sweep.head().unwrap();
            let portion = (dice.next().unwrap() as u64 % 3 + 1).min(head.records_max) as u32;
            let bytes = match head.text {
                None => (0..portion).map(|_| 0).sum::<u64>(),
                Some(text) => {
                    let lines: Vec<&[u8]> =
                        text[head.hit.span()].split_inclusive(|&b| b == b'\n').collect();
                    assert_eq!(lines.len(), head.hit.count as usize);
                    let ids = (0..u64::from(head.hit.count)).map(|i| head.hit.first.plus(i));
                    let mut taken: Vec<(Ulid, &[u8])> = ids.zip(lines).collect();
                    if order == Order::Desc {
                        taken.reverse();
                    }
                    taken.truncate(portion as usize);
                    let record = |&(id, line): &(Ulid, &[u8])| {
                        (id, head.topic.clone(), line[..line.len() - 1].to_vec())
                    };
                    all.extend(taken.iter().map(record));
                    taken.iter().map(|(_, line)| line.len() as u64).sum()
                }
            };
            let whole = head
                .text
                .is_none()
                .then_some((head.hit.count, u64::from(head.hit.end - head.hit.start)));
            let (records, bytes) = whole.unwrap_or((portion, bytes));
            sweep.advance(records, bytes);
            // Its reader is slow, and others want the memory.
            if dice.next().unwrap() % 5 == 0 {
                sweep.shed(dice.next().unwrap() % 2 == 0);
            }
        }
        if sweep.is_over() {
            return (all, sweep.into_stats());
        }
        let window = [1, 2, usize::MAX][dice.next().unwrap() % 3];
        match sweep.next_work(true, window) {
            Some(work) if dice.next().unwrap() % 4 > 0 => waiting.push(work.run()),
            Some(work) => sweep.complete(work.run()),
            None => {
                assert!(!waiting.is_empty(), "the sweep is stuck");
                let at = dice.next().unwrap() % waiting.len();
                sweep.complete(waiting.swap_remove(at));
            }
        }
    }
}

fn options(window: usize, hits_max: usize, counts_only: bool) -> SweepOptions {
    SweepOptions {
        window,
        node: "n".into(),
        hits_max,
        counts_only,
        telling: Telling::Nothing,
        only: None,
    }
}

/// Distinct records in ULID order: few milliseconds, two streams, consecutive counters.
fn records() -> impl Strategy<Value = Vec<TestRecord>> {
    let text = prop::sample::select(vec!["", "x", "ax", "b", "\r", "xx", "y\0", "ü"]);
    prop::collection::vec((0..2u64, 0..8u8, 0..2usize, text), 0..60).prop_map(|parts| {
        let (mut ms, mut counters) = (MS, [0u64, 9]);
        let mut all: Vec<TestRecord> = Vec::new();
        for (stream, step, topic_index, text) in parts {
            ms += u64::from(step / 6);
            let counter = &mut counters[stream as usize];
            *counter += 1;
            let id = Ulid::from_parts(ms, stream, *counter);
            all.push((id, topic(["a", "b"][topic_index]), text.as_bytes().to_vec()));
        }
        all.sort();
        all
    })
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Records, how many of them a chunk holds, whether the part hides its topics.
    pub(super) parts: Vec<(Vec<TestRecord>, usize, bool)>,
    pub(super) spec: QuerySpec,
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let masks = prop::collection::vec((any::<u64>(), any::<u64>(), 1..20usize), 0..6);
    let bounds = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..6u8);
    let pattern = || prop::sample::select(vec!["", "x", "^$", "^x", "z", "[^x]", "x.?$", "b"]);
    let expressions = |len| prop::collection::vec(pattern(), len);
    let chain = prop_oneof![
        2 => (expressions(1..2), expressions(0..1)),
        2 => (expressions(0..4), expressions(0..3)),
    ];
    let rest = (chain, any::<bool>(), prop::option::of(0..20u64), 0..4u8);
    (records(), masks, bounds, rest).prop_map(|(records, masks, (low, high, kind), rest)| {
        let ((must, must_not), desc, limit, topics) = rest;
        let parts = masks
            .into_iter()
            .map(|(mask, other, chunk)| {
                // Half of the parts are dense, so that copies overlap in long runs.
                let mask = if chunk % 2 == 0 { mask | other } else { mask & other };
                let chosen = |i: usize| mask >> (i % 64) & 1 == 1;
                let some = records.iter().enumerate().filter(|(i, _)| chosen(*i));
                (some.map(|(_, record)| record.clone()).collect(), chunk, other % 3 == 0)
            })
            .collect();
        let compiled = |patterns: Vec<&str>| {
            patterns.iter().map(|pattern| Expression::new(pattern, true, false).unwrap()).collect()
        };
        let chain = Chain::new(compiled(must), compiled(must_not));
        let mut spec = QuerySpec { chain, ..spec("") };
        if !records.is_empty() {
            let (low, high) =
                (records[low.index(records.len())].0, records[high.index(records.len())].0);
            match kind {
                0 => (spec.from, spec.to) = (low, high),
                1 => {
                    let ms = low.ms();
                    (spec.from, spec.to) = (Ulid::first_of_ms(ms), Ulid::last_of_ms(ms));
                }
                2 => spec.after = Some(low),
                3 => (spec.from, spec.after) = (low, Some(high)),
                4 => (spec.to, spec.after) = (high, Some(low)),
                _ => {}
            }
        }
        spec.order = if desc { Order::Desc } else { Order::Asc };
        spec.limit = limit;
        spec.topics = match topics {
            0 => vec![topic("a")],
            1 => vec![topic("b"), topic("nowhere")],
            _ => Vec::new(),
        };
        Case { parts, spec }
    })
}

pub(super) fn test_parts(case: &Case) -> (Vec<Vec<TestRecord>>, Vec<TestPart>) {
    let part = |(records, chunk, hides_topics): &(Vec<TestRecord>, usize, bool)| TestPart {
        hides_topics: *hides_topics,
        ..TestPart::new(records, *chunk)
    };
    let records = case.parts.iter().map(|(records, ..)| records.clone()).collect();
    (records, case.parts.iter().map(part).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_sweep_equals_filtering_sorting_and_deduplicating_everything(
        case in cases(),
        window in 1..6usize,
        hits_max in 1..20usize,
        dice in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let (records, parts) = test_parts(&case);
        let expected = model(&case.spec, &records);
        let swept = Sweep::new(case.spec.clone(), snapshot(&parts), options(window, hits_max, false));
        let (got, stats) = sweep(swept, case.spec.order, &dice);
        prop_assert_eq!(stats.records, expected.len() as u64);
        prop_assert_eq!(stats.bytes, expected.iter().map(|r| r.2.len() as u64 + 1).sum::<u64>());
        prop_assert!(stats.complete);
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn counts_are_those_of_the_records_that_would_be_shown(
        case in cases(),
        window in 1..6usize,
        dice in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let (records, parts) = test_parts(&case);
        let spec = QuerySpec { limit: None, ..case.spec };
        let expected = model(&spec, &records);
        let swept = Sweep::new(spec.clone(), snapshot(&parts), options(window, 8, true));
        let (_, stats) = sweep(swept, spec.order, &dice);
        prop_assert_eq!(stats.records, expected.len() as u64);
        prop_assert_eq!(stats.bytes, expected.iter().map(|r| r.2.len() as u64 + 1).sum::<u64>());
    }

    #[test]
    fn answers_counts_histograms_and_topics_agree_on_threads(case in cases(), buckets in 1..9usize) {
        let (records, parts) = test_parts(&case);
        let searcher = searcher(2);
        let expected = model(&case.spec, &records);
        let text: Vec<u8> = expected
            .iter()
            .flat_map(|(id, _, text)| [format!("{id} ").as_bytes(), text, b"\n"].concat())
            .collect();
        let reader = searcher.query(case.spec.clone(), snapshot(&parts), Format::Text);
        let (got, outcome) = reader.read_all_blocking();
        prop_assert_eq!(got, text);
        prop_assert_eq!(outcome.stats.records, expected.len() as u64);
        prop_assert!(outcome.stats.complete && !outcome.aborted);

        let spec = QuerySpec { limit: None, ..case.spec };
        let expected = model(&spec, &records);
        let histogram = searcher.histogram(spec.clone(), snapshot(&parts), buckets);
        let histogram = histogram.wait_blocking().unwrap();
        prop_assert_eq!(histogram.counts.len(), buckets);
        let stats = searcher.stats(spec.clone(), snapshot(&parts)).wait_blocking().unwrap();
        let bytes = expected.iter().map(|r| r.2.len() as u64 + 1).sum::<u64>();
        prop_assert_eq!((stats.records, stats.bytes), (expected.len() as u64, bytes));
        for (i, &count) in histogram.counts.iter().enumerate() {
            let start = histogram.from_ms + i as u64 * histogram.interval_ms;
            let span = start..start + histogram.interval_ms;
            let inside = expected.iter().filter(|(id, ..)| span.contains(&id.ms())).count();
            prop_assert_eq!(count, inside as u64);
        }
        prop_assert_eq!(histogram.counts.iter().sum::<u64>(), expected.len() as u64);

        let topics = searcher.topics(snapshot(&parts)).wait_blocking().unwrap();
        let mut all: Vec<TestRecord> = records.concat();
        all.sort();
        all.dedup();
        prop_assert_eq!(topics.stats.records, all.len() as u64);
        for summary in &topics.topics {
            let own: Vec<_> = all.iter().filter(|(_, t, _)| *t == summary.topic).collect();
            prop_assert_eq!(summary.records, own.len() as u64);
            prop_assert_eq!(summary.bytes, own.iter().map(|r| r.2.len() as u64 + 1).sum::<u64>());
            prop_assert_eq!(summary.first_ms, own[0].0.ms());
            prop_assert_eq!(summary.last_ms, own[own.len() - 1].0.ms());
        }
    }
}

pub(crate) fn searcher(threads: usize) -> Searcher {
    let on_thread_start: ThreadHook = Arc::new(|_| {});
    let (node, caches) = ("here".into(), Arc::default());
    Searcher::start(SearcherOptions { threads, node, caches, on_thread_start }).unwrap()
}

#[test]
fn a_histogram_reads_only_the_chunks_that_buckets_divide() {
    let part = TestPart::new(&series(0, 1000, |_| b"x".to_vec()), 10);
    for threads in [1, 3] {
        let searcher = searcher(threads);
        let spec = QuerySpec { from: Ulid::first_of_ms(MS), ..spec("") };
        let histogram = searcher.histogram(spec, snapshot(std::slice::from_ref(&part)), 7);
        let histogram = histogram.wait_blocking().unwrap();
        assert_eq!(histogram.counts, [143, 143, 143, 143, 143, 143, 142]);
        assert_eq!(histogram.stats.blocks_read, 6, "of 100");
    }
}

/// `count` records, one a millisecond.
pub(super) fn series(first: u64, count: u64, text: impl Fn(u64) -> Vec<u8>) -> Vec<TestRecord> {
    (first..first + count).map(|i| (Ulid::from_parts(MS + i, 1, i), topic("a"), text(i))).collect()
}

#[test]
fn parts_are_opened_only_when_it_is_their_turn() {
    for order in [Order::Asc, Order::Desc] {
        let parts: Vec<TestPart> =
            (0..100).map(|i| TestPart::new(&series(i * 10, 10, |_| b"x".to_vec()), 5)).collect();
        let spec = QuerySpec { order, limit: Some(3), ..spec("x") };
        let searcher = searcher(2);
        let reader = searcher.query(spec, snapshot(&parts), Format::Text);
        let (_, outcome) = reader.read_all_blocking();
        assert_eq!(outcome.stats.records, 3);
        let opened: usize = parts.iter().map(|part| part.opened.load(Ordering::Relaxed)).sum();
        assert!(opened <= 8, "{opened} parts were opened for three records");
    }
}

#[test]
fn counting_everything_reads_no_text() {
    let part = TestPart::new(&series(0, 100, |_| b"x".to_vec()), 7);
    let searcher = searcher(1);
    let stats =
        searcher.stats(spec(""), snapshot(std::slice::from_ref(&part))).wait_blocking().unwrap();
    assert_eq!((stats.records, stats.bytes, stats.bytes_scanned), (100, 200, 0));
    assert_eq!(stats.blocks_read, 0, "chunks that overlap nothing are counted from the index");
    let copies = [part.clone(), part.clone()];
    let stats = searcher.stats(spec(""), snapshot(&copies)).wait_blocking().unwrap();
    assert_eq!((stats.records, stats.bytes, stats.bytes_scanned), (100, 200, 0));
    assert_eq!(part.texts_read.load(Ordering::Relaxed), 0);
}

#[test]
fn damage_costs_its_chunk_and_is_told() {
    let searcher = searcher(2);
    let whole = TestPart::new(&series(0, 30, |i| format!("x{i}").into_bytes()), 10);
    for (unreadable, corrupt) in [(vec![1], vec![]), (vec![], vec![1])] {
        let part = TestPart { unreadable, corrupt, ..whole.clone() };
        let reader = searcher.query(spec("x"), snapshot(&[part]), Format::Ndjson);
        let (text, outcome) = reader.read_all_blocking();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 20 + 1);
        assert!(!text.contains("\"x15\"") && text.contains("\"x20\""));
        assert!(!outcome.stats.complete && !outcome.aborted);
        let missing = &outcome.stats.missing[0];
        assert_eq!((missing.from.ms(), missing.to.ms()), (MS + 10, MS + 19));
        assert_eq!(missing.node, "here");
        assert!(missing.reason.contains("checksum"), "{}", missing.reason);
        assert_eq!(missing.damage.as_ref().map(ToString::to_string), Some(missing.reason.clone()));
        let end: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(end["end"]["complete"], false);
        assert_eq!(end["end"]["records"], 20);
    }
    let part = TestPart { refuses_to_open: true, ..whole.clone() };
    let (text, outcome) =
        searcher.query(spec("x"), snapshot(&[part]), Format::Text).read_all_blocking();
    assert!(text.is_empty() && !outcome.stats.complete);

    // What was not asked for is not missing.
    let part = TestPart { unreadable: vec![2], ..whole };
    let spec = QuerySpec { to: Ulid::last_of_ms(MS + 19), ..spec("x") };
    let (_, outcome) = searcher.query(spec, snapshot(&[part]), Format::Text).read_all_blocking();
    assert!(outcome.stats.complete);
}

#[test]
fn a_record_longer_than_the_pipe_comes_through_whole() {
    let long = |i: u64| if i == 1 { vec![b'l'; 3 << 20] } else { b"short".to_vec() };
    let part = TestPart::new(&series(0, 3, long), 3);
    let searcher = searcher(2);
    for (format, order) in [(Format::Text, Order::Asc), (Format::Ndjson, Order::Desc)] {
        let spec = QuerySpec { order, ..spec("") };
        let mut reader = searcher.query(spec, snapshot(std::slice::from_ref(&part)), format);
        let mut all = Vec::new();
        while let Some(piece) = reader.next_blocking() {
            assert!(piece.len() <= 128 << 10, "{} bytes at once", piece.len());
            all.extend_from_slice(&piece);
        }
        assert_eq!(memchr::memchr_iter(b'l', &all).count() >> 20, 3);
        assert_eq!(reader.outcome().unwrap().stats.records, 3);
    }
}

/// The same part with its text in a mapped file.
fn mapped(part: &TestPart, file: &tempfile::NamedTempFile) -> TestPart {
    use crate::chunk::Text;
    use crate::storage::{Open, Storage};
    let texts: Vec<u8> = part.chunks.iter().flat_map(|chunk| chunk.text.to_vec()).collect();
    std::fs::write(file.path(), texts).unwrap();
    let map = Arc::new(OsStorage.open(file.path(), Open::Read).unwrap().map().unwrap());
    let mut chunks = part.chunks.to_vec();
    let mut start = 0;
    for chunk in &mut chunks {
        let span = start..start + chunk.text.len();
        start = span.end;
        chunk.text = Text::Mapped(Arc::clone(&map), span);
    }
    TestPart { chunks: Arc::new(chunks), ..part.clone() }
}

#[test]
fn a_file_that_is_cut_before_or_while_it_is_read_costs_what_was_cut() {
    let text = |i: u64| format!("{i:0100}").into_bytes();
    let whole = TestPart::new(&series(0, 20_000, text), 500);
    for (pattern, stalled) in [("", false), ("7$", false), ("", true)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let part = mapped(&whole, &file);
        let searcher = searcher(2);
        let cut = || file.as_file().set_len(1 << 20).unwrap();
        let mut all = Vec::new();
        if !stalled {
            cut();
        }
        let mut reader = searcher.query(spec(pattern), snapshot(&[part]), Format::Text);
        if stalled {
            all = reader.next_blocking().unwrap();
            cut();
        }
        while let Some(piece) = reader.next_blocking() {
            all.extend_from_slice(&piece);
        }
        let outcome = reader.outcome().unwrap();
        assert!(!outcome.stats.complete);
        assert!(!all.contains(&0), "zeros in place of what was cut");
        if !outcome.aborted {
            let lines = memchr::memchr_iter(b'\n', &all).count() as u64;
            assert_eq!(outcome.stats.records, lines);
            let per_record = if pattern.is_empty() { 1 } else { 10 };
            // Whole chunks of 500 records of 101 bytes that lie before the cut.
            assert_eq!(lines, 20 * 500 / per_record);
        }
    }
}

#[test]
fn a_record_that_is_cut_while_it_is_sent_aborts_the_answer() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let part = mapped(&TestPart::new(&series(0, 1, |_| vec![b'l'; 3 << 20]), 1), &file);
    let searcher = searcher(1);
    let mut reader = searcher.query(spec(""), snapshot(&[part]), Format::Text);
    let mut all = reader.next_blocking().unwrap();
    file.as_file().set_len(0).unwrap();
    while let Some(piece) = reader.next_blocking() {
        all.extend_from_slice(&piece);
    }
    let outcome = reader.outcome().unwrap();
    assert!(outcome.aborted && !outcome.stats.complete);
    assert!(!all.contains(&0) && all.len() < 1 << 20);
}

/// Parks the only thread's query on a reader that does not read, then asks another.
#[test]
fn a_stalled_reader_holds_no_thread_and_goes_on_when_it_reads() {
    let part = TestPart::new(&series(0, 20_000, |i| format!("{i:0100}").into_bytes()), 1000);
    let searcher = searcher(1);
    let mut stalled = searcher.query(spec(""), snapshot(std::slice::from_ref(&part)), Format::Text);
    let first = stalled.next_blocking().unwrap();
    for _ in 0..3 {
        let other = searcher.stats(spec("7$"), snapshot(std::slice::from_ref(&part)));
        assert_eq!(other.wait_blocking().unwrap().records, 2000);
    }
    let read = part.texts_read.load(Ordering::Relaxed) - 3 * 20;
    assert!(read <= 12, "{read} of 20 chunks were read for nobody");
    let (rest, outcome) = stalled.read_all_blocking();
    assert_eq!(first.len() + rest.len(), 20_000 * (27 + 101));
    assert_eq!(outcome.stats.records, 20_000);
}

#[test]
fn a_reader_that_leaves_ends_its_scan_and_frees_its_pins() {
    let part = TestPart::new(&series(0, 20_000, |i| format!("{i:0100}").into_bytes()), 100);
    let pin = Arc::new(part.clone());
    let searcher = searcher(1);
    let parts: Vec<Arc<dyn Part>> = vec![pin.clone()];
    let mut reader =
        searcher.query(spec(""), Snapshot { parts, missing: Vec::new() }, Format::Text);
    reader.next_blocking().unwrap();
    drop(reader);
    while searcher.running() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(Arc::strong_count(&pin), 1);
    assert!(part.texts_read.load(Ordering::Relaxed) < 40);
}

/// A part's owner writes over its file once nobody holds it.
#[test]
fn a_part_is_pinned_until_its_last_record_is_sent() {
    let part = TestPart::new(&series(0, 20_000, |i| format!("{i:0100}").into_bytes()), 100);
    let pin = Arc::new(part);
    let searcher = searcher(1);
    let parts: Vec<Arc<dyn Part>> = vec![pin.clone()];
    let mut reader =
        searcher.query(spec(""), Snapshot { parts, missing: Vec::new() }, Format::Text);
    let mut len = 0;
    while let Some(piece) = reader.next_blocking() {
        len += piece.len();
        if len < 2_000_000 {
            assert!(Arc::strong_count(&pin) > 1, "let go of after {len} bytes");
        }
    }
    assert_eq!(len, 20_000 * (27 + 101));
    // The single thread has turned to this one after it has let go of the other.
    searcher.stats(spec(""), snapshot(&[])).wait_blocking().unwrap();
    assert_eq!(Arc::strong_count(&pin), 1);
}

#[test]
fn a_query_that_is_ended_tells_what_it_did_not_send() {
    let part = TestPart::new(&series(0, 20_000, |i| format!("{i:0100}").into_bytes()), 100);
    let searcher = searcher(2);
    let mut reader = searcher.query(spec(""), snapshot(&[part]), Format::EndedText);
    let mut all = reader.next_blocking().unwrap();
    reader.ender().end("pinned for too long");
    while let Some(piece) = reader.next_blocking() {
        all.extend_from_slice(&piece);
    }
    let outcome = reader.outcome().unwrap();
    assert!(!outcome.stats.complete);
    let mut lines = memchr::memchr_iter(b'\n', &all).count() as u64;
    assert!(lines < 20_000);
    if !outcome.aborted {
        lines -= 1;
        let end = all.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap();
        let end = serde_json::from_slice::<serde_json::Value>(end.strip_prefix(b"# end ").unwrap());
        let end = end.unwrap();
        assert_eq!((&end["ended_early"], &end["records"]), (&true.into(), &lines.into()));
        let last = Ulid::from_parts(MS + lines - 1, 1, lines - 1);
        assert_eq!(outcome.stats.missing[0].from, last.plus(1));
        assert_eq!(outcome.stats.missing[0].reason, "pinned for too long");
        assert_eq!(outcome.stats.missing[0].damage, None);
    }
}

#[test]
fn dropping_the_searcher_ends_everything() {
    let part = TestPart::new(&series(0, 20_000, |i| format!("{i:0100}").into_bytes()), 100);
    let searcher = searcher(2);
    let reader = searcher.query(spec(""), snapshot(std::slice::from_ref(&part)), Format::Text);
    drop(searcher);
    let (_, outcome) = reader.read_all_blocking();
    assert!(outcome.aborted && !outcome.stats.complete);
}

#[test]
fn what_is_missing_before_the_first_byte_is_known_with_it() {
    struct Nobody;
    impl std::task::Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let part = TestPart::new(&series(0, 10, |_| b"x".to_vec()), 5);
    let mut snapshot = snapshot(&[part]);
    let (from, to) = (Ulid::first_of_ms(MS), Ulid::last_of_ms(MS));
    snapshot.missing.push(Missing {
        from,
        to,
        node: "n".into(),
        reason: "down".into(),
        damage: None,
    });
    let waker = std::task::Waker::from(Arc::new(Nobody));
    let mut context = std::task::Context::from_waker(&waker);
    let searcher = searcher(1);
    let mut reader = searcher.query(spec("x"), snapshot, Format::Text);
    assert!(reader.next_blocking().is_some());
    let head = reader.poll_head(&mut context);
    assert_eq!(head, std::task::Poll::Ready(Head { complete: false, missing_count: 1 }));
}

#[test]
fn threads_say_who_they_are_before_they_work() {
    let started = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&started);
    let on_thread_start: ThreadHook = Arc::new(move |index| {
        assert_eq!(std::thread::current().name(), Some(format!("scan-{index}").as_str()));
        seen.fetch_add(1 << (8 * index), Ordering::Relaxed);
    });
    let (node, caches) = (String::new(), Arc::default());
    let options = SearcherOptions { threads: 3, node, caches, on_thread_start };
    drop(Searcher::start(options).unwrap());
    assert_eq!(started.load(Ordering::Relaxed), 0x01_01_01);
}
