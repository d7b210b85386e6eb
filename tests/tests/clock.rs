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
