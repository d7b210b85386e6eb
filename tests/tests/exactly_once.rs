//! A query sees each record exactly once while it moves: memory, ingest segment, store, compacted.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;

use tests::node::Node;
use tests::sender::Acknowledged;

/// Small and frequent, so that records move all the time.
const RESTLESS: &[&str] = &[
    "--ingest.segment-flush-size",
    "1MiB",
    "--ingest.segment-flush-age",
    "50ms",
    "--store.segment-target-size",
    "1MiB",
    "--store.segment-target-age",
    "50ms",
    "--store.segment-delay",
    "10ms",
];

/// Whole, in order, without copies; the records are numbered lines of one sender.
fn check(node: &Node, at_least: u64) -> u64 {
    let records = node.query("q=number");
    let mut seen = HashSet::new();
    for (at, (ulid, record)) in records.iter().enumerate() {
        assert!(seen.insert(ulid.clone()), "{ulid} twice");
        let expected = format!("number {at} ");
        assert!(
            record.starts_with(expected.as_bytes()),
            "at {at} of {}: {}",
            records.len(),
            String::from_utf8_lossy(record)
        );
    }
    let found = records.len() as u64;
    assert!(found >= at_least, "found {found}, acknowledged before the query {at_least}");
    found
}

#[test]
fn records_are_found_once_while_they_move() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(directory.path(), RESTLESS);
    let (mut number, mut compactions, padding) = (0u64, 0.0, "x".repeat(120));
    for life in 0..3 {
        let mut sender = Acknowledged::connect(node.durable).unwrap();
        let mut records = 0;
        for _ in 0..120 {
            let mut text = Vec::new();
            for _ in 0..100 {
                writeln!(text, "number {number} {padding}").unwrap();
                number += 1;
                records += 1;
            }
            sender.send(&text).unwrap();
            sender.wait_for(records).unwrap();
            check(&node, number);
        }
        sender.finish().unwrap();
        compactions += node.metric("oklog_store_compact_duration_seconds_count");
        if life % 2 == 0 {
            node.kill();
        } else {
            assert!(node.stop().success());
        }
        node = Node::start(directory.path(), RESTLESS);
        check(&node, number);
    }
    node.settle();
    assert_eq!(check(&node, number), number);
    assert!(compactions > 0.0, "segments were compacted");
    let stats = node.get("/query?from=24h&q=number&stats").json();
    assert_eq!(stats["records"].as_u64(), Some(number), "{stats}");
    let histogram = node.get("/query/histogram?from=24h&buckets=7").json();
    let counts = histogram["counts"].as_array().unwrap();
    assert_eq!(counts.iter().map(|c| c.as_u64().unwrap()).sum::<u64>(), number, "{histogram}");
}

#[test]
fn a_slow_reader_gets_everything_and_slows_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let line = format!("{}\n", "y".repeat(99));
    let count = 300_000;
    tests::sender::send(node.durable, line.repeat(count).as_bytes());
    let mut slow = TcpStream::connect(node.api).unwrap();
    slow.write_all(b"GET /query?from=1h HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    // The slow answer is left in its socket while others are served.
    for _ in 0..20 {
        assert_eq!(node.query("limit=10").len(), 10);
    }
    let answer =
        tests::http::read_answer(&mut std::io::BufReader::with_capacity(4096, slow), "GET")
            .unwrap();
    assert!(answer.complete);
    assert_eq!(answer.body.len(), count * (27 + line.len()));
}

#[test]
fn a_reader_that_leaves_stops_its_scan() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let line = format!("{}\n", "z".repeat(999));
    for _ in 0..5 {
        tests::sender::send(node.durable, line.repeat(40_000).as_bytes());
    }
    node.settle();
    let before = node.metric("oklog_query_bytes_scanned_total");
    for _ in 0..10 {
        let mut leaver = TcpStream::connect(node.api).unwrap();
        leaver.write_all(b"GET /query?from=1h HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut start = [0; 1024];
        std::io::Read::read_exact(&mut leaver, &mut start).unwrap();
    }
    tests::wait_until("no query is running", || node.metric("oklog_queries_running") == 0.0);
    let scanned = node.metric("oklog_query_bytes_scanned_total") - before;
    assert!(scanned < 10.0 * 60e6, "{scanned} bytes for ten answers that nobody read");
}
