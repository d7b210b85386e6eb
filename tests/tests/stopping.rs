//! How a node stops: in the time that it is given, at the second signal at once, and with a true word
//! about what could not be brought to disk.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::faulty_disk::{Call, Effect, Errno, FaultyDisk, Rule};
use tests::lines::Random;
use tests::node::Node;
use tests::sender::Acknowledged;
use tests::{sender, skipped, wait_until};

/// Compresses so slowly that what waits takes much longer to store than a test may.
const SLOW: [&str; 6] = [
    "--store.compression-level",
    "19",
    "--store.segment-target-age",
    "1h",
    "--store.segment-target-size",
    "256MiB",
];
const LINES: usize = 200_000;

/// A node with a backlog of 26 MB that nobody gathers before it stops, all of it synced.
fn with_a_backlog(directory: &Path, flags: &[&str]) -> Node {
    let node = Node::start(directory, &[&SLOW, flags].concat());
    let mut random = Random::new(7);
    let mut text = String::new();
    for number in 0..LINES {
        let words: Vec<String> =
            (0..12).map(|_| format!("word{:x}", random.below(50_000))).collect();
        text.push_str(&format!("{number} {} {:x}\n", words.join(" "), random.next_u64()));
    }
    sender::send(node.durable, text.as_bytes());
    wait_until("some of it is flushed", || {
        let state = node.get("/_segmentstate").json();
        state["ingest"]["flushed"]["segments"].as_u64() >= Some(1)
    });
    node
}

fn count(node: &Node) -> u64 {
    node.get("/query?from=24h&stats").json()["records"].as_u64().expect("a number")
}

#[test]
fn a_merge_is_cancelled_when_the_time_to_stop_is_over_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let node = with_a_backlog(directory.path(), &["--shutdown-timeout", "1s"]);
    let start = Instant::now();
    assert!(node.stop().success());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let left: Vec<String> = std::fs::read_dir(directory.path().join("data/store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let node = Node::start(directory.path(), &[]);
    assert_eq!(count(&node), LINES as u64, "{left:?}");
    node.settle();
    assert_eq!(count(&node), LINES as u64);
}

#[test]
fn a_second_signal_ends_a_node_at_once_also_late_in_its_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = with_a_backlog(directory.path(), &[]);
    node.signal(Signal::TERM);
    // HTTP and the shards have ended; what waits is being stored.
    let is_gathering = || {
        let mut entries = std::fs::read_dir(directory.path().join("data/ingest")).unwrap();
        entries.any(|entry| entry.unwrap().file_name().to_str().unwrap().ends_with(".pending"))
    };
    let gone = |port| std::net::TcpStream::connect(port).is_err();
    wait_until("the store takes what it can", || {
        gone(node.api) && gone(node.durable) && is_gathering()
    });
    assert_eq!(node.ended(), None);
    let start = Instant::now();
    node.signal(Signal::INT);
    let mut status = None;
    wait_until("it ends", || {
        status = node.ended();
        status.is_some()
    });
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(status.unwrap().code(), Some(1));
    assert!(node.log().contains("a second signal"), "{}", node.log());
    assert_eq!(count(&Node::start(directory.path(), &[])), LINES as u64);
}

#[test]
fn records_that_could_not_be_brought_to_disk_are_counted_and_the_exit_code_says_so() {
    let test = "records_that_could_not_be_brought_to_disk_are_counted_and_the_exit_code_says_so";
    let disk = match FaultyDisk::new() {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let mut node = Node::start(disk.path(), &["--shutdown-timeout", "2s"]);
    sender::send(node.durable, b"one that is safe\n");
    let rule = Rule::new(&[Call::Write, Call::Sync], "data/ingest/*", Effect::Fail(Errno::IO));
    disk.add(rule);
    sender::send(node.fast, b"lost 1\nlost 2\nlost 3\n");
    // Who counts acknowledgements sends them again: these are not lost.
    let mut waiting = Acknowledged::connect(node.durable).unwrap();
    waiting.send(b"awaited 1\nawaited 2\n").unwrap();
    wait_until("they were taken", || node.all_lines().len() == 6);
    node.signal(Signal::TERM);
    let mut status = None;
    wait_until("it ends", || {
        status = node.ended();
        status.is_some()
    });
    let log = node.log();
    assert_eq!(status.unwrap().code(), Some(1), "{log}");
    assert!(log.contains("3 records could not be brought to disk"), "{log}");
    assert!(!log.contains("what waits is on disk"), "{log}");
    disk.heal();
    let node = Node::start(disk.path(), &[]);
    assert!(node.all_lines().contains(&b"one that is safe".to_vec()));
    assert!(node.stop().success());
}
