//! What queries keep in memory while their readers are slow.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::testing::{Decoded, TestPart, TestRecord};
use super::tests::{MS, series, spec};
use super::*;
use crate::chunk::Part;
use crate::limits::SCAN_SLICE_BYTES;
use crate::topic::Topic;
use crate::ulid::Ulid;

const CHUNK_BYTES: usize = 64 << 10;
const THREADS: usize = 2;

fn searcher_within(held_bytes_max: usize) -> Searcher {
    let options = SearcherOptions {
        threads: THREADS,
        node: "here".into(),
        caches: Arc::default(),
        on_thread_start: Arc::new(|_| {}),
    };
    Searcher::start_within(options, held_bytes_max).unwrap()
}

/// Chunks of 64 KiB whose texts are decoded when they are read, a record in the middle that needs
/// several pieces of output, and copies of some of it.
fn parts() -> (Vec<Arc<dyn Part>>, Arc<Decoded>) {
    let text = |i: u64| {
        let len = if i == 400 { 3 * CHUNK_BYTES } else { 1_000 };
        let mut text = format!("record {i} ").into_bytes();
        text.resize(len, b'a' + (i % 26) as u8);
        text
    };
    let decoded = Arc::new(Decoded::default());
    let part = |first, count| {
        let part = TestPart::new(&series(first, count, text), CHUNK_BYTES / 1_000);
        Arc::new(TestPart { decoded: Some(Arc::clone(&decoded)), ..part }) as Arc<dyn Part>
    };
    let parts = vec![part(0, 1_000), part(150, 70), part(399, 2)];
    (parts, decoded)
}

#[test]
fn two_hundred_stalled_readers_keep_no_more_than_the_budget_and_read_every_byte() {
    const READERS: usize = 200;
    const BUDGET: usize = 1 << 20;
    for order in [Order::Asc, Order::Desc] {
        let (parts, decoded) = parts();
        let searcher = searcher_within(BUDGET);
        let ask = || {
            let snapshot = Snapshot { parts: parts.clone(), missing: Vec::new() };
            searcher.query(QuerySpec { order, ..spec("") }, snapshot, Format::Text)
        };
        let (whole, outcome) = ask().read_all_blocking();
        assert_eq!(outcome.stats.records, 1_000);
        let mut readers: Vec<_> = (0..READERS).map(|_| (ask(), 0)).collect();
        // Each takes a piece, then has to wait for all others.
        while !readers.is_empty() {
            readers.retain_mut(|(reader, at)| {
                let Some(piece) = reader.next_blocking() else {
                    let outcome = reader.outcome().unwrap();
                    assert_eq!(*at, whole.len());
                    assert!(outcome.stats.complete && !outcome.aborted);
                    return false;
                };
                assert!(whole[*at..].starts_with(&piece), "after {at} bytes");
                *at += piece.len();
                true
            });
        }
        // Beyond the budget there is only what the threads have at hand: what one query overlaps.
        let at_hand = THREADS * (4 * CHUNK_BYTES + 4 * CHUNK_BYTES);
        let bytes_max = decoded.bytes_max();
        assert!(bytes_max <= BUDGET + at_hand, "{bytes_max} bytes of decoded text");
        assert!(bytes_max > BUDGET / 4, "the budget is used");
    }
}

/// Records of which each is a block of its own and larger than what a thread searches at a time.
fn long_records(first: u64, count: u64, len: usize) -> Vec<TestRecord> {
    series(first, count, |i| {
        let mut text = format!("record {i} ").into_bytes();
        text.resize(len, b'a' + (i % 26) as u8);
        text
    })
}

/// Many queries over parts, each with a reader that takes what comes: the answers are whole, and what is
/// in memory at a time is returned, in blocks beyond the budget.
fn blocks_beyond_the_budget(budget: usize, len: usize, parts: &[Vec<TestRecord>]) -> usize {
    const QUERIES: usize = 20;
    let decoded = Arc::new(Decoded::default());
    let part = |records: &Vec<TestRecord>| {
        let part = TestPart { decoded: Some(Arc::clone(&decoded)), ..TestPart::new(records, 1) };
        Arc::new(part) as Arc<dyn Part>
    };
    let parts: Vec<_> = parts.iter().map(part).collect();
    let searcher = searcher_within(budget);
    let ask = || {
        let snapshot = Snapshot { parts: parts.clone(), missing: Vec::new() };
        searcher.query(spec(""), snapshot, Format::Text)
    };
    let (whole, _) = ask().read_all_blocking();
    std::thread::scope(|scope| {
        for mut reader in (0..QUERIES).map(|_| ask()).collect::<Vec<_>>() {
            let whole = &whole;
            scope.spawn(move || {
                let mut at = 0;
                while let Some(piece) = reader.next_blocking() {
                    assert!(whole[at..].starts_with(&piece), "after {at} bytes");
                    at += piece.len();
                }
                let outcome = reader.outcome().unwrap();
                assert_eq!(at, whole.len());
                assert!(outcome.stats.complete && !outcome.aborted);
            });
        }
    });
    decoded.bytes_max().saturating_sub(budget).div_ceil(len)
}

#[test]
fn queries_over_long_records_keep_no_more_than_the_budget_between_their_turns() {
    let len = SCAN_SLICE_BYTES as usize + 1_000;
    let beyond = blocks_beyond_the_budget(3 * len, len, &[long_records(0, 5, len)]);
    // What each thread took when there was room, and what each has at hand.
    assert!(beyond <= 2 * THREADS, "{beyond} blocks");
}

#[test]
fn queries_that_need_several_long_records_at_once_go_on_one_after_the_other() {
    let len = SCAN_SLICE_BYTES as usize + 1_000;
    // Copies all over: the first record of each part comes before what is taken of any.
    let parts: Vec<_> = (0..4).map(|_| long_records(0, 3, len)).collect();
    for budget in [0, 2 * len] {
        let beyond = blocks_beyond_the_budget(budget, len, &parts);
        assert!(beyond <= 2 * THREADS + parts.len(), "{beyond} blocks");
    }
}

#[test]
fn what_was_given_back_and_cannot_be_read_again_breaks_off_the_record_it_was_in() {
    let decoded = Arc::new(Decoded::default());
    let id = |i| Ulid::from_parts(MS + i, 1, i);
    let topic = Topic::new(b"a").unwrap();
    let records =
        [(id(0), topic.clone(), vec![b'x'; 8 * CHUNK_BYTES]), (id(1), topic, b"behind".to_vec())];
    let part = TestPart { decoded: Some(Arc::clone(&decoded)), ..TestPart::new(&records, 1) };
    let searcher = searcher_within(0);
    let snapshot = Snapshot { parts: vec![Arc::new(part)], missing: Vec::new() };
    let mut reader = searcher.query(spec(""), snapshot, Format::Text);
    let mut text = reader.next_blocking().unwrap();
    while decoded.bytes() > 0 {
        std::thread::yield_now();
    }
    decoded.is_gone.store(true, Ordering::Relaxed);
    while let Some(piece) = reader.next_blocking() {
        text.extend(piece);
    }
    assert!(reader.outcome().unwrap().aborted);
    assert!(text.ends_with(b"x"), "nothing follows what was cut");
}
