//! Against models of few lines: order, who gets what, and what waits.

use std::fmt::Write;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::fanout::{Fanout, Wanted};
use super::order::Ordered;
use super::queue::{Budget, FollowerQueue, QueueShare, StreamFormat};
use crate::chunk::Part;
use crate::ingest::log::Tapped;
use crate::limits::FOLLOW_PIECE_BYTES;
use crate::search::testing::TestPart;
use crate::search::{
    ChainText, Expression, Format, QuerySpec, Searcher, SearcherOptions, Snapshot,
};
use crate::topic::Topic;
use crate::ulid::Ulid;

fn topic(name: &str) -> Topic {
    Topic::new(name.as_bytes()).unwrap()
}

/// One record.
fn batch(id: Ulid, text: &str) -> Tapped {
    let mut batch = Tapped::default();
    batch.push(id, 1, &topic("t"), format!("{text}\n").as_bytes());
    batch
}

fn ids(batch: &Tapped) -> Vec<Ulid> {
    batch.runs.iter().map(|run| run.first).collect()
}

#[test]
fn records_come_in_order_once_every_shard_is_past_them() {
    let id = Ulid::from_parts;
    let mut ordered = Ordered::new(2, 1 << 20);
    ordered.push(0, batch(id(10, 2, 0), "b"), 10);
    ordered.push(1, Tapped::default(), 10);
    assert!(ordered.take(99).runs.is_empty(), "shard 1 may still stamp in millisecond 10");
    ordered.push(1, batch(id(10, 1, 0), "a"), 12);
    ordered.push(0, batch(id(11, 2, 1), "c"), 11);
    let out = ordered.take(99);
    assert_eq!((ids(&out), &out.text[..]), (vec![id(10, 1, 0), id(10, 2, 0)], &b"a\nb\n"[..]));
    assert!(ordered.is_holding() && ordered.take(99).runs.is_empty());
    ordered.push(0, Tapped::default(), 13);
    assert_eq!(ids(&ordered.take(99)), [id(11, 2, 1)]);
    assert!(!ordered.is_holding());
    assert_eq!((ordered.complete_ms(), ordered.newest_ms()), (12, 13));
}

#[test]
fn what_does_not_fit_is_lost_and_counted() {
    let held_bytes = batch(Ulid::MIN, "x").held_bytes();
    let mut ordered = Ordered::new(1, 2 * held_bytes + 1);
    for n in 0..3 {
        ordered.push(0, batch(Ulid::from_parts(n, 1, n), "x"), n);
    }
    assert_eq!((ordered.take_lost(), ordered.take_lost()), (3, 0), "what waited, too");
    assert!(!ordered.is_holding());
    ordered.push(0, batch(Ulid::from_parts(3, 1, 3), "x"), 4);
    assert_eq!((ordered.take(99).record_count(), ordered.take_lost()), (1, 0));
}

#[test]
fn what_is_lost_lies_between_what_came_out_before_and_after() {
    let id = Ulid::from_parts;
    let mut ordered = Ordered::new(2, 1 << 20);
    ordered.push(0, batch(id(10, 1, 0), "x"), 20);
    ordered.push(1, batch(id(10, 2, 0), "x"), 11);
    assert_eq!(ordered.take(99).record_count(), 2);
    // Shard 0 took a record in millisecond 15 that never came here.
    ordered.lose(1);
    let mut late = batch(id(14, 2, 1), "x");
    late.push(id(21, 2, 2), 1, &topic("t"), b"y\n");
    ordered.push(1, late, 30);
    ordered.push(0, Tapped::default(), 30);
    assert_eq!(ordered.take_lost(), 2, "what is late would come behind it");
    let out = ordered.take(99);
    assert_eq!((ids(&out), &out.text[..]), (vec![id(21, 2, 2)], &b"y\n"[..]));
    assert!(!ordered.is_holding());
}

proptest! {
    #[test]
    fn whatever_comes_when_it_comes_out_in_order_and_whole(
        steps in prop::collection::vec((0..3usize, 0..3u64, 0..3u8), 1..60),
        bytes_max in 1..9usize,
    ) {
        let mut clocks = [1u64; 3];
        let mut ordered = Ordered::new(3, 1 << 20);
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        for (n, (shard, step, count)) in steps.into_iter().enumerate() {
            clocks[shard] += step;
            let first = Ulid::from_parts(clocks[shard], shard as u64, n as u64 * 10);
            let mut tapped = Tapped::default();
            if count > 0 {
                tapped.push(first, u32::from(count), &topic("t"), &b"x\n".repeat(count.into()));
                given.push(first);
            }
            ordered.push(shard, tapped, clocks[shard]);
            taken.extend(ids(&ordered.take(bytes_max)));
        }
        for shard in 0..3 {
            ordered.push(shard, Tapped::default(), u64::MAX);
        }
        while ordered.is_holding() {
            taken.extend(ids(&ordered.take(bytes_max)));
        }
        prop_assert!(taken.is_sorted());
        given.sort();
        prop_assert_eq!(taken, given);
    }

    #[test]
    fn everybody_gets_what_a_query_would_find(
        records in prop::collection::vec(
            (prop::sample::select(vec!["", "a", "ab", "bab", "AB", "aba\u{e9}"]), 0..2usize),
            1..20,
        ),
        wanted in prop::collection::vec(
            (
                prop::sample::select(vec!["", "a", "b", "ab", "ba", "aba", "^a", "b$", "."]),
                any::<bool>(),
                any::<bool>(),
                0..3usize,
            ),
            0..12,
        ),
    ) {
        let topics = [topic("one"), topic("two")];
        let mut batch = Tapped::default();
        for (n, (text, at)) in records.iter().enumerate() {
            let id = Ulid::from_parts(5, 5, n as u64);
            batch.push(id, 1, &topics[*at], format!("{text}\n").as_bytes());
        }
        let all: Vec<Wanted> = wanted
            .iter()
            .map(|&(text, regex, ignore_case, topic)| Wanted {
                chain: Expression::new(text, regex, ignore_case).unwrap().into(),
                topics: topics.get(topic).cloned().into_iter().collect(),
                is_discreet: false,
            })
            .collect();
        let mut got = vec![Vec::new(); wanted.len()];
        Fanout::new(all).matches(&batch, &mut |hit| {
            let text = String::from_utf8(hit.record.to_vec()).unwrap();
            got[hit.follower].push((hit.id, hit.topic.clone(), text));
        });
        for (&(text, regex, ignore_case, topic), got) in wanted.iter().zip(got) {
            let pattern = if regex { text.to_owned() } else { regex::escape(text) };
            let pattern = format!("{}{pattern}", if ignore_case { "(?i)" } else { "" });
            let pattern = regex::bytes::Regex::new(&pattern).unwrap();
            let expected: Vec<_> = records
                .iter()
                .enumerate()
                .filter(|(_, (text, at))| {
                    pattern.is_match(text.as_bytes()) && (topic == 2 || topic == *at)
                })
                .map(|(n, (text, at))| {
                    (Ulid::from_parts(5, 5, n as u64), topics[*at].clone(), (*text).to_owned())
                })
                .collect();
            prop_assert_eq!(got, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn live_and_history_show_the_same_records(
        records in prop::collection::vec(
            (prop::sample::select(vec!["", "a", "ab", "bab", "AB c", "aba\u{e9}", "c"]), 0..2usize),
            1..20,
        ),
        chains in prop::collection::vec(
            (
                prop::collection::vec(prop::sample::select(vec!["", "a", "ab", "^a", "c$"]), 0..4),
                prop::collection::vec(prop::sample::select(vec!["b", "c", "ba", "^$", "[c]"]), 0..3),
                any::<bool>(),
                any::<bool>(),
                0..3usize,
            ),
            1..8,
        ),
    ) {
        let topics = [topic("one"), topic("two")];
        let mut batch = Tapped::default();
        let mut kept = Vec::new();
        for (n, (text, at)) in records.iter().enumerate() {
            let id = Ulid::from_parts(5, 5, n as u64);
            batch.push(id, 1, &topics[*at], format!("{text}\n").as_bytes());
            kept.push((id, topics[*at].clone(), text.as_bytes().to_vec()));
        }
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let wanted: Vec<Wanted> = chains
            .iter()
            .map(|(all, none, regex, ignore_case, topic)| Wanted {
                chain: ChainText::new((owned(all), owned(none)), *regex, *ignore_case)
                    .and_then(|chain| chain.compile(1 << 20))
                    .unwrap(),
                topics: topics.get(*topic).cloned().into_iter().collect(),
                is_discreet: false,
            })
            .collect();
        let mut live = vec![String::new(); wanted.len()];
        Fanout::new(wanted.clone()).matches(&batch, &mut |hit| {
            let record = std::str::from_utf8(hit.record).unwrap();
            writeln!(live[hit.follower], "{} {record}", hit.id).unwrap();
        });
        let searcher = Searcher::start(SearcherOptions {
            threads: 1,
            node: "n".into(),
            caches: Arc::default(),
            on_thread_start: Arc::new(|_| {}),
        }).unwrap();
        for (Wanted { chain, topics, .. }, live) in wanted.into_iter().zip(live) {
            let spec = QuerySpec { chain, topics, ..QuerySpec::everything() };
            let parts = vec![Arc::new(TestPart::new(&kept, 3)) as Arc<dyn Part>];
            let snapshot = Snapshot { parts, missing: Vec::new() };
            let (history, _) = searcher.query(spec, snapshot, Format::Text).read_all_blocking();
            prop_assert_eq!(String::from_utf8(history).unwrap(), live);
        }
    }
}

/// A share of which nothing is a queue's own.
fn at_most(bytes_max: usize) -> QueueShare {
    QueueShare { own_bytes: 0, bytes_max }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn next(queue: &FollowerQueue) -> Option<String> {
    let waker = Waker::from(Arc::new(Nobody));
    match queue.poll_next(&Context::from_waker(&waker)) {
        Poll::Ready(Some(bytes)) => Some(String::from_utf8(bytes).unwrap()),
        Poll::Ready(None) => Some("end".to_owned()),
        Poll::Pending => None,
    }
}

#[test]
fn a_slow_follower_is_told_what_it_missed_between_what_it_got() {
    let budget = Arc::new(Budget::new(100));
    let queue = FollowerQueue::new(StreamFormat::Ndjson, at_most(4), Arc::clone(&budget));
    assert_eq!(next(&queue), None);
    assert_eq!(queue.push(b"aaa", 1), 0);
    assert_eq!(queue.push(b"bb", 2), 2);
    assert_eq!(queue.push(b"c", 1), 1, "nothing overtakes what was missed");
    assert_eq!(budget.used(), 3);
    assert_eq!(next(&queue).as_deref(), Some("aaa"));
    assert_eq!(next(&queue).as_deref(), Some("{\"missed\":{\"records\":3}}\n"));
    assert_eq!(queue.push(b"d", 1), 0);
    queue.end();
    assert_eq!(next(&queue).as_deref(), Some("d"));
    assert_eq!(next(&queue).as_deref(), Some("end"));
    assert_eq!(budget.used(), 0);
}

#[test]
fn the_budget_is_shared_and_given_back() {
    let budget = Arc::new(Budget::new(10));
    let queue = || FollowerQueue::new(StreamFormat::Text, at_most(8), Arc::clone(&budget));
    let (first, second) = (queue(), queue());
    assert_eq!(first.push(&[b'x'; 5], 1), 0);
    assert_eq!(second.push(&[b'x'; 5], 1), 1);
    drop(first);
    assert_eq!(budget.used(), 0);
    assert!(second.is_behind());
    assert_eq!(next(&second).as_deref(), Some("# missed {\"records\":1}\n"));
    assert!(!second.is_behind());
    assert_eq!(second.push(&[b'x'; 5], 1), 0);
    second.abandon();
    assert_eq!(budget.used(), 0);
}

#[test]
fn readers_that_take_nothing_leave_room_for_one_that_does() {
    let budget = Arc::new(Budget::new(10_000));
    let queue = || FollowerQueue::new(StreamFormat::Text, at_most(2_000), Arc::clone(&budget));
    let stalled: Vec<FollowerQueue> = (0..99).map(|_| queue()).collect();
    for _ in 0..300 {
        for queue in &stalled {
            queue.push(&[b'x'; 10], 1);
        }
    }
    assert!(budget.used() < 10_000, "{} bytes", budget.used());
    let reader = queue();
    for _ in 0..1_000 {
        assert_eq!(reader.push(&[b'y'; 10], 1), 0);
        assert_eq!(next(&reader).as_deref(), Some("yyyyyyyyyy"));
    }
}

proptest! {
    #[test]
    fn readers_that_take_nothing_cost_no_record_that_fits_in_what_is_a_readers_own(
        rounds in prop::collection::vec((1_usize..200, 1_usize..=16, any::<bool>()), 1..400),
    ) {
        let budget = Arc::new(Budget::new(1_000));
        let share = QueueShare { own_bytes: 16, bytes_max: 500 };
        let queue = || FollowerQueue::new(StreamFormat::Text, share, Arc::clone(&budget));
        let (stalled, reader): (Vec<FollowerQueue>, FollowerQueue) = ((0..20).map(|_| queue()).collect(), queue());
        for (stalled_bytes, bytes, takes_notes) in rounds {
            for queue in &stalled {
                queue.push(&vec![b'x'; stalled_bytes], 1);
                // It is told what it missed for as long as its socket has room.
                while takes_notes && queue.is_behind() {
                    next(queue);
                }
            }
            prop_assert_eq!(reader.push(&vec![b'y'; bytes], 1), 0);
            prop_assert_eq!(next(&reader).map(|got| got.len()), Some(bytes));
            prop_assert!(budget.used() <= 1_000);
        }
        drop(stalled);
        prop_assert_eq!(budget.used(), 0);
    }
}

#[test]
fn readers_that_take_no_large_record_leave_room_for_small_ones() {
    let budget = Arc::new(Budget::new(10_000));
    let queue = || FollowerQueue::new(StreamFormat::Text, at_most(2_000), Arc::clone(&budget));
    let stalled: Vec<FollowerQueue> = (0..99).map(|_| queue()).collect();
    for queue in &stalled {
        queue.push(&[b'x'; 1_000], 1);
    }
    let reader = queue();
    assert_eq!(reader.push(&[b'y'; 10], 1), 0);
    assert_eq!(reader.push(&[b'y'; 10], 1), 0);
}

#[test]
fn a_record_larger_than_a_share_comes_in_pieces() {
    let budget = Arc::new(Budget::new(1 << 20));
    let queue = FollowerQueue::new(StreamFormat::Text, at_most(100), Arc::clone(&budget));
    let large: Vec<u8> = (0..FOLLOW_PIECE_BYTES * 2 + 7).map(|n| b'a' + (n % 26) as u8).collect();
    assert_eq!(queue.push(&large, 1), 0, "nothing else waits");
    assert_eq!(queue.push(b"z", 1), 1);
    let mut got = String::new();
    for _ in 0..3 {
        let piece = next(&queue).unwrap();
        assert!(piece.len() <= FOLLOW_PIECE_BYTES);
        got += &piece;
    }
    assert_eq!(got.as_bytes(), large);
    assert_eq!(budget.used(), 0);
    assert_eq!(next(&queue).as_deref(), Some("# missed {\"records\":1}\n"));
}

#[test]
fn who_fetches_elsewhere_what_it_missed_holds_nothing_meanwhile() {
    let budget = Arc::new(Budget::new(100));
    let queue = FollowerQueue::new(StreamFormat::Text, at_most(4), Arc::clone(&budget));
    queue.push(b"aaa", 1);
    assert!(!queue.is_missing() && budget.used() == 3);
    queue.push(b"bbb", 1);
    assert!(queue.is_missing() && budget.used() == 0);
    assert_eq!(queue.push(b"c", 1), 1);
    let waker = Waker::from(Arc::new(Nobody));
    assert!(!queue.poll_ended(&Context::from_waker(&waker)));
    queue.end();
    assert!(queue.poll_ended(&Context::from_waker(&waker)));
}

#[test]
fn records_are_written_in_every_format() {
    let id = Ulid::from_parts(0, 0, 1);
    let written = |format: StreamFormat| {
        let mut out = Vec::new();
        format.write(&mut out, id, "web", b"a\"\xFF");
        String::from_utf8_lossy(&out).into_owned()
    };
    assert_eq!(written(StreamFormat::Text), format!("{id} a\"\u{fffd}\n"));
    let object = written(StreamFormat::Ndjson);
    assert!(object.contains("\"topic\":\"web\",\"record_b64\":\"YSL/\"}\n"), "{object}");
    assert_eq!(written(StreamFormat::Sse), format!("id: {id}\ndata: {object}\n"));
    let note = StreamFormat::Sse.note("missed", "{}");
    assert_eq!(note, b"event: missed\ndata: {}\n\n");
}
