//! Answers with context against a model of a few lines, and what they tell when something is in the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::super::testing::{TestPart, TestRecord};
use super::super::tests::{MS, cases, model, searcher, snapshot, spec, test_parts};
use super::super::{Format, Missing, Order, QuerySpec, Snapshot};
use crate::chunk::Part;
use crate::limits::CONTEXT_RECORDS_MAX;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// What is to be shown, and whether it is a hit.
fn with_context(spec: &QuerySpec, parts: &[Vec<TestRecord>]) -> Vec<(TestRecord, bool)> {
    let hits: BTreeSet<TestRecord> = model(spec, parts).into_iter().collect();
    let all: BTreeSet<TestRecord> = parts.concat().into_iter().collect();
    let mut shown = BTreeSet::new();
    for hit in &hits {
        let own: Vec<&TestRecord> = all.iter().filter(|(_, topic, _)| *topic == hit.1).collect();
        let at = own.iter().position(|record| *record == hit).unwrap();
        let from = at.saturating_sub(spec.context as usize);
        shown.extend(own[from..].iter().take(at - from + 1 + spec.context as usize).copied());
    }
    let mut shown: Vec<_> = shown.into_iter().map(|r| (r.clone(), hits.contains(r))).collect();
    if spec.order == Order::Desc {
        shown.reverse();
    }
    shown
}

fn lines(answer: &[u8]) -> Vec<serde_json::Value> {
    let lines = answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_hit_is_shown_among_the_records_of_its_topic_in_order_and_once(
        case in cases(),
        context in 1..4u32,
        threads in 1..3usize,
    ) {
        let (records, parts) = test_parts(&case);
        let searcher = searcher(threads);
        let spec = QuerySpec { context, ..case.spec };
        let expected = with_context(&spec, &records);
        let ask = |format| searcher.query(spec.clone(), snapshot(&parts), format).read_all_blocking();
        let (text, outcome) = ask(Format::Text);
        let wanted: Vec<u8> = expected
            .iter()
            .flat_map(|((id, _, text), _)| [format!("{id} ").as_bytes(), text, b"\n"].concat())
            .collect();
        prop_assert_eq!(text, wanted);
        prop_assert!(outcome.stats.complete && !outcome.aborted);
        let hits = expected.iter().filter(|(_, is_hit)| *is_hit).count() as u64;
        prop_assert_eq!(outcome.stats.records, hits);
        prop_assert_eq!(outcome.stats.context_records, expected.len() as u64 - hits);

        let mut lines = lines(&ask(Format::Ndjson).0);
        let end = lines.pop().unwrap();
        prop_assert_eq!(end["end"]["records"].as_u64(), Some(hits));
        let got: Vec<_> = lines
            .iter()
            .map(|line| {
                let is_hit = line.get("context").is_none_or(|mark| mark != true);
                (line["ulid"].as_str().unwrap().to_owned(), line["topic"].as_str().unwrap().to_owned(), is_hit)
            })
            .collect();
        let wanted: Vec<_> = expected
            .iter()
            .map(|((id, topic, _), is_hit)| (id.to_string(), topic.as_str().to_owned(), *is_hit))
            .collect();
        prop_assert_eq!(got, wanted);
    }
}

fn series(topics: &[&str], count: u64, text: impl Fn(u64) -> String) -> Vec<TestRecord> {
    let topic = |n: u64| Topic::new(topics[n as usize % topics.len()].as_bytes()).unwrap();
    (0..count).map(|n| (Ulid::from_parts(MS + n, 1, n), topic(n), text(n).into_bytes())).collect()
}

#[test]
fn a_stage_that_has_enough_tells_what_it_has_cost() {
    let records =
        series(
            &["a", "b"],
            400,
            |n| {
                if n == 200 { "needle".to_owned() } else { format!("line {n}") }
            },
        );
    let part = TestPart::new(&records, 10);
    let searcher = searcher(1);
    let ask = |limit| {
        let from = records[150].0;
        let spec = QuerySpec { from, context: 1, limit, ..spec("needle") };
        let answer = searcher.query(spec, snapshot(std::slice::from_ref(&part)), Format::Text);
        answer.read_all_blocking().1.stats
    };
    let (all, enough) = (ask(None), ask(Some(1)));
    assert_eq!((all.records, enough.records), (1, 1));
    assert!(all.blocks_skipped.by_time > 0);
    assert_eq!(all.blocks_skipped, enough.blocks_skipped, "found at the end, or before it");
}

#[test]
fn the_neighbours_of_a_rare_topic_are_found_however_far_they_lie_and_little_is_read() {
    let mut records = series(&["busy"], 20_000, |n| format!("line {n}"));
    for (at, name) in [(10, "before"), (10_000, "needle"), (19_990, "behind")] {
        records[at].1 = Topic::new(b"rare").unwrap();
        records[at].2 = name.into();
    }
    let part = TestPart::new(&records, 100);
    let searcher = searcher(2);
    let spec =
        QuerySpec { from: records[9_000].0, to: records[11_000].0, context: 2, ..spec("needle") };
    let answer = searcher.query(spec, snapshot(std::slice::from_ref(&part)), Format::Ndjson);
    let (text, outcome) = answer.read_all_blocking();
    let lines = lines(&text);
    let shown: Vec<_> = lines.iter().filter_map(|line| line["record"].as_str()).collect();
    assert_eq!(shown, ["before", "needle", "behind"]);
    assert_eq!((outcome.stats.records, outcome.stats.context_records), (1, 2));
    // Its range was searched; beyond it, run tables were asked, and three chunks read for what is shown.
    let read = part.texts_read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read <= 21 + 3, "{read} texts");
}

#[test]
fn more_hits_than_context_can_be_shown_of_end_the_answer_early_to_be_resumed() {
    let context = 1_000;
    let bound = CONTEXT_RECORDS_MAX / (2 * u64::from(context) + 1);
    let records = series(&["a", "b"], 2 * bound + 7, |n| format!("{n}"));
    let parts = [TestPart::new(&records, 50)];
    let searcher = searcher(2);
    let ask = |after, limit| {
        let spec = QuerySpec { after, limit, context, ..spec("") };
        searcher.query(spec, snapshot(&parts), Format::Ndjson).read_all_blocking()
    };
    let (mut after, mut hits, mut rounds) = (None, Vec::new(), 0);
    loop {
        let (text, outcome) = ask(after, None);
        let lines = lines(&text);
        let new = lines.iter().filter(|line| line.get("context").is_none());
        let before = hits.len();
        hits.extend(new.filter_map(|line| line["ulid"].as_str()?.parse::<Ulid>().ok()));
        assert_eq!((hits.len() - before) as u64, outcome.stats.records);
        rounds += 1;
        if outcome.stats.complete {
            break;
        }
        assert!(outcome.stats.ended_early && outcome.stats.records == bound);
        let last = hits[hits.len() - 1];
        let missing = &outcome.stats.missing[0];
        assert_eq!((missing.from, missing.to), (Ulid(last.0 + 1), Ulid::MAX));
        assert!(missing.reason.contains(&format!("at most {bound} hits")), "{}", missing.reason);
        after = Some(last);
    }
    assert_eq!(rounds, 3);
    assert_eq!(hits, records.iter().map(|record| record.0).collect::<Vec<_>>());
    // A limit that is not beyond that is no such end.
    let (_, outcome) = ask(None, Some(bound));
    assert!(outcome.stats.complete && outcome.stats.records == bound);
    let (_, outcome) = ask(None, Some(0));
    assert!(outcome.stats.complete && outcome.stats.records == 0);
}

#[test]
fn what_any_stage_misses_the_answer_misses() {
    let records = series(&["a"], 1_000, |n| format!("{n}"));
    let damaged =
        |chunks: Vec<usize>| TestPart { unreadable: chunks, ..TestPart::new(&records, 10) };
    let searcher = searcher(2);
    // One hit in the middle of chunk 50; its neighbours reach over the ends of it.
    let ask = |part: TestPart, missing: Vec<Missing>| {
        let spec = QuerySpec { from: records[505].0, to: records[505].0, context: 15, ..spec("") };
        let parts = vec![Arc::new(part) as Arc<dyn Part>];
        searcher.query(spec, Snapshot { parts, missing }, Format::Ndjson).read_all_blocking()
    };
    let (text, outcome) = ask(damaged(vec![3, 90]), vec![]);
    assert!(outcome.stats.complete, "none of that was needed");
    assert_eq!(lines(&text).len(), 32);
    for chunk in [49, 51] {
        let (text, outcome) = ask(damaged(vec![chunk]), vec![]);
        assert!(!outcome.stats.complete && outcome.stats.missing_count == 1);
        assert_eq!(outcome.stats.missing[0].from, records[10 * chunk].0);
        let lines = lines(&text);
        assert!(lines.iter().any(|line| line["record"] == "505" && line.get("context").is_none()));
        assert_eq!(lines[lines.len() - 1]["end"]["complete"], false);
    }
    let gone = |from: usize, to: usize| Missing {
        from: records[from].0,
        to: records[to].0,
        node: "there".into(),
        reason: "gone".into(),
        damage: None,
    };
    let far = vec![gone(100, 110), gone(900, 910)];
    assert!(ask(damaged(vec![]), far).1.stats.complete, "neighbours lie before that");
    for (from, to) in [(480, 495), (515, 600), (505, 505)] {
        let (_, outcome) = ask(damaged(vec![]), vec![gone(from, to)]);
        assert!(!outcome.stats.complete && outcome.stats.missing[0].reason == "gone");
    }
    let (text, outcome) = ask(damaged(vec![50]), vec![]);
    assert_eq!((lines(&text).len(), outcome.stats.records, outcome.stats.complete), (1, 0, false));
}

#[test]
fn whoever_goes_or_ends_the_query_does_so_in_whatever_stage_it_is() {
    let records = series(&["a", "b"], 2_000, |n| format!("{n}"));
    let part = TestPart::new(&records, 10);
    let searcher = searcher(2);
    let ask = |part: &TestPart| {
        let spec = QuerySpec { context: 3, ..spec("7$") };
        searcher.query(spec, snapshot(std::slice::from_ref(part)), Format::Ndjson)
    };
    for held_up in 0..8 {
        let part = part.clone();
        let hold = part.held_up.lock().unwrap();
        let mut reader = ask(&part);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(reader.poll_next(&mut cx), Poll::Pending));
        if held_up % 2 == 0 {
            drop(reader);
            drop(hold);
        } else {
            reader.ender().end("enough of it");
            drop(hold);
            let (text, outcome) = reader.read_all_blocking();
            let end = lines(&text).pop().unwrap();
            assert!(!outcome.stats.complete && outcome.stats.ended_early);
            assert_eq!(end["end"]["missing"][0]["reason"], "enough of it");
        }
        while searcher.running() > 0 {
            std::thread::yield_now();
        }
    }
    // Those that come after have all of it.
    assert_eq!(ask(&part).read_all_blocking().1.stats.records, 200);
}
