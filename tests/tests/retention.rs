//! Records expire: by age through the trash, by the size of the store at once; and a full backlog
//! stops its senders.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tests::node::Node;
use tests::sender::{Acknowledged, send};
use tests::{http, tools, wait_until};

/// Small segments, gathered and compacted soon.
const RESTLESS: &[&str] = &[
    "--ingest.segment-flush-size",
    "1MiB",
    "--ingest.segment-flush-age",
    "100ms",
    "--store.segment-target-size",
    "1MiB",
    "--store.segment-target-age",
    "100ms",
    "--store.segment-delay",
    "10ms",
];

fn with(flags: &[&'static str]) -> Vec<&'static str> {
    [RESTLESS, flags].concat()
}

/// Files of the store with this extension: how many, and their bytes.
fn stored(directory: &Path, extension: &str) -> (usize, u64) {
    let entries = std::fs::read_dir(directory.join("data/store")).unwrap().flatten();
    let ours = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == extension));
    let sizes: Vec<u64> = ours.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect();
    (sizes.len(), sizes.iter().sum())
}

#[test]
fn records_expire_through_the_trash_and_are_found_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let flags = with(&["--store.segment-retain", "2s", "--store.segment-purge", "1h"]);
    let node = Node::start(directory.path(), &flags);
    send(node.durable, b"one\ntwo\n");
    assert_eq!(node.all_lines().len(), 2);
    wait_until("they are found no more", || node.all_lines().is_empty());
    wait_until("they are in the trash", || stored(directory.path(), "trashed").0 > 0);
    assert_eq!(stored(directory.path(), "flushed"), (0, 0));
    wait_until("that is counted", || node.metric("oklog_store_trashed_segments_total") >= 1.0);
    assert!(node.metric("oklog_store_trash_bytes") > 0.0);
    assert_eq!(node.metric("oklog_store_purged_segments_total"), 0.0, "not yet");
    let state = node.get("/_segmentstate").json();
    assert!(state["store"]["trashed"]["segments"].as_u64().unwrap() >= 1, "{state}");
    assert!(node.stop().success());

    // fsck knows the trash, and a restart keeps it.
    let store = directory.path().join("data/store");
    let checked = tools::oklogd(&["fsck", store.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", tools::text(&checked.stdout));
    let flags = with(&["--store.segment-retain", "2s", "--store.segment-purge", "1s"]);
    let node = Node::start(directory.path(), &flags);
    assert!(node.all_lines().is_empty(), "a restart brings nothing back");
    wait_until("the trash is purged", || stored(directory.path(), "trashed").0 == 0);
    wait_until("that is counted", || node.metric("oklog_store_purged_segments_total") >= 1.0);
    send(node.durable, b"three\n");
    assert_eq!(node.all_lines(), [b"three"]);
}

#[test]
fn a_store_of_bounded_size_keeps_the_newest() {
    const MAX: u64 = 12 << 20;
    let directory = tempfile::tempdir().unwrap();
    // As they are, records take the bytes that they have.
    let flags = ["--store.retain-size", "12MiB", "--store.compression-level", "none"];
    let node = Node::start(directory.path(), &with(&flags));
    let mut connection = Acknowledged::connect(node.durable).unwrap();
    let padding = "p".repeat(1000);
    for first in (0..30_000).step_by(500) {
        let lines = first..first + 500;
        let text: String = lines.map(|n| format!("{n:08} {padding}\n")).collect();
        connection.send(text.as_bytes()).unwrap();
        connection.wait_for(first + 500).unwrap();
    }
    node.settle();
    let bytes = || stored(directory.path(), "flushed").1 + stored(directory.path(), "trashed").1;
    wait_until("the store is within its bound", || bytes() <= MAX);
    let mut numbers = Vec::new();
    wait_until("queries have seen it", || {
        numbers = node
            .all_lines()
            .iter()
            .map(|line| String::from_utf8_lossy(&line[..8]).parse::<u64>().unwrap())
            .collect();
        !numbers.is_empty()
    });
    let kept = numbers.len() as u64;
    let expected: Vec<u64> = (30_000 - kept..30_000).collect();
    assert_eq!(numbers, expected, "the newest are kept, without a gap");
    assert!(kept * 1_009 > MAX / 2, "no more went than had to: {kept}");
    assert!(node.metric("oklog_store_surplus_segments_total") > 0.0);
    assert!(node.log().contains("--store.retain-size"), "{}", node.log());
}

#[test]
fn a_full_backlog_stops_senders_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    // No second store: nothing leaves the ingest side.
    let flags = ["--store.segment-replication-factor", "2", "--ingest.backlog-max-size", "64MiB"];
    let node = Node::start(directory.path(), &flags);
    let mut fast = std::net::TcpStream::connect(node.fast).unwrap();
    fast.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let text = "a line that waits for the store\n".repeat(1 << 15);
    let is_stuck = (0..300).any(|_| fast.write_all(text.as_bytes()).is_err());
    assert!(is_stuck, "the sender is stopped");
    assert_eq!(node.metric("oklog_ingest_backlog_full"), 1.0);
    let backlog_bytes = node.metric("oklog_ingest_backlog_bytes");
    assert!((64e6..110e6).contains(&backlog_bytes), "{backlog_bytes}");
    assert!(node.metric("oklog_ingest_pauses_total") > 0.0);
    assert!(node.metric("oklog_unstored_age_seconds") > 0.5);
    assert_eq!(node.log().matches("the backlog is full").count(), 1, "told once");
    let ready = node.get("/ready").text();
    assert!(ready.contains("the backlog is full"), "{ready}");
    let refused = http::post(node.api, "/records", b"no\n");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.headers.contains_key("retry-after"));
    drop(fast);
    node.kill();

    let node = Node::start(directory.path(), &[]);
    node.settle();
    assert_eq!(node.metric("oklog_ingest_backlog_full"), 0.0);
    let stats = node.get("/query?stats&from=24h").json();
    assert!(stats["records"].as_u64().unwrap() > 64_000_000 / 33, "{stats}");
}
