//! Times that lie ahead: after a restart with the clock set back new records still come behind old
//! ones, for queries, for `after=` and for those who follow.

use std::path::Path;

use engine::ingest::stamp_mark::{STAMP_MARK_FILE, StampMark};
use engine::twin::encode;
use engine::ulid::Ulid;
use tests::follower::Follower;
use tests::node::Node;
use tests::sender;

/// The mark that a node has left whose clock was a day ahead of ours.
fn leave_mark(directory: &Path, mark_ms: u64) {
    let mut bytes = vec![0; 4096];
    bytes[..16].copy_from_slice(&encode(&StampMark(mark_ms)));
    bytes.extend(encode(&StampMark(mark_ms)));
    std::fs::create_dir_all(directory.join("data/ingest")).unwrap();
    std::fs::write(directory.join("data/ingest").join(STAMP_MARK_FILE), bytes).unwrap();
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

fn ulid_of(node: &Node, line: &str) -> Ulid {
    let found = node.query(&format!("q={line}"));
    assert_eq!(found.len(), 1, "{line}: {found:?}");
    found[0].0.parse().unwrap()
}

#[test]
fn after_a_restart_with_the_clock_set_back_records_come_behind_all_before() {
    let directory = tempfile::tempdir().unwrap();
    // All records of that day have been drained or have expired.
    let mark_ms = now_ms() + 86_400_000;
    leave_mark(directory.path(), mark_ms);
    let mut last = Ulid::last_of_ms(mark_ms);
    for life in 0..3 {
        let node = Node::start(directory.path(), &["--cores", "2"]);
        let following = Follower::start(node.api, &format!("after={last}"), "");
        for number in 0..4 {
            // On whichever shard.
            let line = format!("life{life}-{number}");
            sender::send(node.durable, format!("{line}\n").as_bytes());
            let ulid = ulid_of(&node, &line);
            assert!(ulid > last, "{ulid} follows {last}");
            assert!(ulid.ms() > mark_ms && ulid.ms() < mark_ms + 60_000, "{ulid}");
        }
        let behind = node.get(&format!("/query?from=1h&after={last}")).text();
        assert_eq!(behind.lines().count(), 4, "{behind}");
        let to_now = node.get("/query?from=1h&to=now").text();
        assert_eq!(to_now.lines().count(), 4 * (life + 1), "{to_now}");
        following.wait_for("all of this life", |text| text.lines().count() == 4);
        let newest = node.query("").pop().unwrap().0;
        last = newest.parse().unwrap();
        if life == 1 { node.kill() } else { assert!(node.stop().success()) }
    }
}

#[test]
fn copies_from_a_node_whose_clock_was_ahead_do_not_take_stamps_ahead() {
    const DAY_MS: u64 = 86_400_000;
    let ahead = tempfile::tempdir().unwrap();
    leave_mark(ahead.path(), now_ms() + DAY_MS);
    let node = Node::start(ahead.path(), &[]);
    sender::send(node.durable, b"copied\n");
    assert!(node.stop().success());
    let own = tempfile::tempdir().unwrap();
    let store = own.path().join("data/store");
    std::fs::create_dir_all(&store).unwrap();
    for entry in std::fs::read_dir(ahead.path().join("data/store")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "flushed") {
            std::fs::copy(&path, store.join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut last = Ulid::MIN;
    for life in 0..2 {
        let node = Node::start(own.path(), &[]);
        assert!(ulid_of(&node, "copied").ms() > now_ms() + DAY_MS / 2);
        let line = format!("own{life}");
        sender::send(node.durable, format!("{line}\n").as_bytes());
        let ulid = ulid_of(&node, &line);
        assert!(ulid > last && ulid.ms() <= now_ms(), "{ulid} is of {} ms", ulid.ms());
        assert!(node.metric("oklog_clock_ahead_seconds") < 1.0);
        last = ulid;
        assert!(node.stop().success());
    }
}

#[test]
fn a_node_does_not_start_with_a_mark_of_stamps_that_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, b"kept\n");
    assert!(node.stop().success());
    let path = directory.path().join("data/ingest").join(STAMP_MARK_FILE);
    let good = std::fs::read(&path).unwrap();
    let check = tests::tools::oklogd(&["fsck", directory.path().join("data").to_str().unwrap()]);
    assert!(check.status.success(), "{}", tests::tools::text(&check.stdout));
    std::fs::write(&path, vec![7; good.len()]).unwrap();
    let check = tests::tools::oklogd(&["fsck", directory.path().join("data").to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(4));
    let log = Node::try_start(directory.path(), &[]).err().expect("it does not start");
    assert!(log.contains("STAMPS is damaged, in both of its copies"), "{log}");
    std::fs::write(&path, &good[..4096]).unwrap();
    let node = Node::start(directory.path(), &[]);
    assert!(node.log().contains("one of its two copies is damaged"), "{}", node.log());
    assert_eq!(node.all_lines(), [b"kept".to_vec()]);
    assert!(node.stop().success());
    assert_eq!(std::fs::read(&path).unwrap().len(), good.len());
}

#[test]
fn after_an_orderly_restart_records_have_the_clocks_time() {
    let directory = tempfile::tempdir().unwrap();
    for line in ["first", "second", "third"] {
        let node = Node::start(directory.path(), &[]);
        sender::send(node.durable, format!("{line}\n").as_bytes());
        assert!(ulid_of(&node, line).ms() <= now_ms());
        assert!(node.stop().success());
    }
}
