//! What the disk or the process cannot read for a while is missing from no complete answer, and is
//! back when the cause is over; what is damaged stays told over restarts.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::node::Node;
use tests::{sender, tools, wait_until};

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("a line of text, number {i}\n")).collect()
}

fn is_complete(node: &Node) -> bool {
    node.get("/query?from=24h&stats").json()["complete"] == true
}

/// A line is there again, in answers that say that nothing is missing.
fn wait_until_whole(node: &Node, count: usize) {
    wait_until("nothing is missing", || {
        let stats = node.get("/query?from=24h&stats").json();
        stats["complete"] == true && stats["records"] == count
    });
    assert_eq!(node.query("").len(), count);
}

fn ingest_files(directory: &Path, part: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("data/ingest")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains(part)).collect()
}

#[test]
fn an_ingest_directory_that_is_elsewhere_for_a_while_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (home, away) = (directory.path().join("data/ingest"), directory.path().join("elsewhere"));
    let node = Node::start(directory.path(), &["--store.segment-replication-factor", "2"]);
    sender::send(node.durable, lines(500).as_bytes());
    wait_until("it is flushed", || !ingest_files(directory.path(), ".flushed").is_empty());
    sender::send(node.durable, lines(500).as_bytes());
    std::fs::rename(&home, &away).unwrap();
    wait_until("the flush fails", || node.log().contains("cannot be marked as flushed"));
    assert!(!is_complete(&node));
    std::fs::rename(&away, &home).unwrap();
    wait_until_whole(&node, 1000);
    node.kill();
    // With a store that takes them.
    let node = Node::start(directory.path(), &[]);
    wait_until_whole(&node, 1000);
    node.settle();
    wait_until_whole(&node, 1000);
}

#[test]
fn a_process_without_descriptors_sets_nothing_aside() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, lines(2000).as_bytes());
    let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap());
    node.until_all_turn();
    let whole = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(4), maximum: whole.maximum };
    let before = prlimit(pid, Resource::Nofile, none).unwrap();
    wait_until("it is told", || node.log().contains("Too many open files"));
    prlimit(pid, Resource::Nofile, before).unwrap();
    wait_until_whole(&node, 2000);
    node.settle();
    wait_until_whole(&node, 2000);
    assert_eq!(ingest_files(directory.path(), ".damaged"), Vec::<PathBuf>::new());
    assert!(!node.log().contains("records are lost"), "{}", node.log());
}

#[test]
fn what_was_set_aside_as_damaged_is_told_over_restarts_and_comes_back_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--store.segment-replication-factor", "2"]);
    sender::send(node.durable, lines(2000).as_bytes());
    assert!(node.stop().success());
    let flip = |extension: &str| {
        let path = ingest_files(directory.path(), extension).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[200] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    flip(".flushed");
    let node = Node::start(directory.path(), &[]);
    wait_until("it is set aside", || !ingest_files(directory.path(), ".damaged").is_empty());
    let told = |node: &Node| {
        assert!(!is_complete(node));
        let head = tests::http::request(node.api, "HEAD", "/query?from=24h", &[], b"");
        assert_eq!(head.headers["x-oklog-complete"], "false");
        let state = node.get("/_segmentstate").json();
        assert_eq!(state["ingest"]["damaged"]["segments"], 1, "{state}");
        let ready = node.get("/ready");
        assert!(ready.text().contains("kept as .damaged: 1;"), "{}", ready.text());
        assert_eq!(ready.status, 200);
        assert!((node.metric("oklog_ingest_damaged_segments") - 1.0).abs() < f64::EPSILON);
    };
    wait_until("answers tell it", || !is_complete(&node));
    told(&node);
    assert!(node.stop().success());
    for _ in 0..2 {
        let data = directory.path().join("data");
        assert_eq!(tools::oklogd(&["fsck", data.to_str().unwrap()]).status.code(), Some(4));
        let node = Node::start(directory.path(), &[]);
        told(&node);
        assert!(node.stop().success());
    }
    flip(".damaged");
    let node = Node::start(directory.path(), &[]);
    wait_until_whole(&node, 2000);
    assert!(!node.get("/ready").text().contains(".damaged"));
    assert_eq!(ingest_files(directory.path(), ".damaged"), Vec::<PathBuf>::new());
}

#[test]
fn what_has_a_segments_name_and_is_no_file_is_told_by_ready_from_the_start_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, lines(10).as_bytes());
    node.settle();
    // Of a time that does not expire.
    let ulid = node.get("/query?from=24h").text().split(' ').next().unwrap().to_owned();
    assert!(node.stop().success());
    for side in ["ingest", "store"] {
        let name = match side {
            "ingest" => format!("{ulid}.flushed"),
            _ => format!("{ulid}-{ulid}-0123456789abcdef.flushed"),
        };
        let stranger = directory.path().join("data").join(side).join(&name);
        std::fs::create_dir(&stranger).unwrap();
        let node = Node::start(directory.path(), &[]);
        wait_until("/ready tells it", || {
            let ready = node.get("/ready");
            ready.status == 503 && ready.text().contains(&name)
        });
        std::fs::remove_dir(&stranger).unwrap();
        if side == "ingest" {
            wait_until("/ready is well again", || node.get("/ready").status == 200);
        }
        let _ = node.stop();
        let node = Node::start(directory.path(), &[]);
        wait_until_whole(&node, 10);
        assert_eq!(node.get("/ready").status, 200);
        let _ = node.stop();
    }
}
