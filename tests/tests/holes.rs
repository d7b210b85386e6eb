//! A segment that somebody takes away while no node looks, of the store or one that waits to be stored: told
//! by `fsck`, by the start and by every answer over its time, until it is put back.

use std::path::{Path, PathBuf};

use tests::node::Node;
use tests::{sender, tools, wait_until};

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|i| format!("a line of text, number {i}\n")).collect()
}

fn segments(store: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "flushed"));
    paths
}

fn query(node: &Node, flags: &[&str]) -> (Option<i32>, String) {
    let store = node.api.to_string();
    let output = tools::oklogd(&[&["query", "--store", &store], flags].concat());
    (output.status.code(), tools::text(&output.stderr).clone())
}

fn fsck(data: &Path) -> (Option<i32>, String) {
    let output = tools::oklogd(&["fsck", data.to_str().unwrap()]);
    (output.status.code(), tools::text(&output.stdout).clone())
}

#[test]
fn a_segment_that_vanishes_between_two_lives_is_missed_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, lines(0, 700).as_bytes());
    node.settle();
    assert!(node.stop().success());
    let data = directory.path().join("data");
    let fsck = || fsck(&data);
    assert_eq!(fsck().0, Some(0), "{}", fsck().1);

    let (store, away) = (data.join("store"), directory.path().join("away"));
    std::fs::create_dir(&away).unwrap();
    let taken = segments(&store);
    for path in &taken {
        std::fs::rename(path, away.join(path.file_name().unwrap())).unwrap();
    }
    let (code, told) = fsck();
    let hole = "were stored here and are in no file";
    assert!(code == Some(4) && told.contains(hole), "{told}");
    assert!(told.contains("700 are missing") && told.contains("0 files are damaged"), "{told}");

    // Over restarts, whatever comes meanwhile.
    for life in 0..2 {
        let node = Node::start(directory.path(), &[]);
        assert!(node.log().contains(hole), "{}", node.log());
        sender::send(node.durable, lines(700, 800).as_bytes());
        let stats = node.get("/query?from=1h&stats").json();
        assert_eq!(stats["complete"], false);
        let missing = &stats["missing"][0];
        assert!(missing["reason"].as_str().unwrap().contains(hole), "{stats}");
        assert_eq!(missing["node"], node.get("/_clusterstate").json()["nodes"][0]["address"]);
        assert!(missing["from"].as_str() <= missing["to"].as_str(), "{stats}");
        let (code, told) = query(&node, &["--from", "1h"]);
        assert!(code == Some(3) && told.contains("incomplete"), "{told}");
        let text = node.get("/query?from=1h");
        assert_eq!(text.headers["x-oklog-complete"], "false");
        let end = node.get("/query/histogram?from=1h&buckets=2").json();
        assert_eq!(end["complete"], false);
        assert_eq!(node.get("/topics").json()["complete"], false);
        let ready = node.get("/ready");
        assert!(ready.status == 200 && ready.text().contains("700 records"), "{}", ready.text());
        assert_eq!(node.metric("oklog_store_missing_records"), 700.0);
        node.settle();
        assert_eq!(query(&node, &["--from", "10d", "--to", "9d"]).0, Some(0), "another time");
        if life == 0 {
            assert!(node.stop().success());
            continue;
        }
        for path in &taken {
            std::fs::rename(away.join(path.file_name().unwrap()), path).unwrap();
        }
        wait_until("it is found", || node.metric("oklog_store_missing_records") == 0.0);
        let stats = node.get("/query?from=1h&stats").json();
        assert_eq!((&stats["complete"], &stats["records"]), (&true.into(), &900.into()));
        assert!(!node.get("/ready").text().contains("in no file"));
        assert_eq!(query(&node, &["--from", "1h"]).0, Some(0));
        assert!(node.stop().success());
    }
    assert_eq!(fsck().0, Some(0), "{}", fsck().1);
}

#[test]
fn a_segment_that_waits_and_vanishes_between_two_lives_is_missed_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing is stored.
    let waits = ["--store.segment-replication-factor", "2"];
    let node = Node::start(directory.path(), &waits);
    sender::send(node.durable, lines(0, 700).as_bytes());
    assert!(node.stop().success());
    let (data, away) = (directory.path().join("data"), directory.path().join("away"));
    assert_eq!(fsck(&data).0, Some(0), "{}", fsck(&data).1);
    std::fs::create_dir(&away).unwrap();
    let taken = segments(&data.join("ingest"));
    assert!(!taken.is_empty());
    for path in &taken {
        std::fs::rename(path, away.join(path.file_name().unwrap())).unwrap();
    }
    let (code, told) = fsck(&data);
    let hole = "waited here to be stored and are in no file";
    assert!(code == Some(4) && told.contains(hole), "{told}");
    assert!(told.contains("700 are missing") && told.contains("0 files are damaged"), "{told}");

    for life in 0..2 {
        let node = Node::start(directory.path(), &waits);
        assert!(node.log().contains(hole), "{}", node.log());
        sender::send(node.durable, lines(700, 800).as_bytes());
        let stats = node.get("/query?from=1h&stats").json();
        assert_eq!(
            (&stats["complete"], &stats["records"]),
            (&false.into(), &(100 * life + 100).into())
        );
        let missing = &stats["missing"][0];
        assert!(missing["reason"].as_str().unwrap().contains(hole), "{stats}");
        assert!(missing["from"].as_str() <= missing["to"].as_str(), "{stats}");
        let (code, told) = query(&node, &["--from", "1h"]);
        assert!(code == Some(3) && told.contains("incomplete"), "{told}");
        let ready = node.get("/ready");
        assert!(ready.status == 200 && ready.text().contains("700 records"), "{}", ready.text());
        assert_eq!(node.metric("oklog_ingest_missing_records"), 700.0);
        assert_eq!(query(&node, &["--from", "10d", "--to", "9d"]).0, Some(0), "another time");
        if life == 0 {
            node.kill();
        } else {
            assert!(node.stop().success());
        }
    }
    for path in &taken {
        std::fs::rename(away.join(path.file_name().unwrap()), path).unwrap();
    }
    assert_eq!(fsck(&data).0, Some(0), "{}", fsck(&data).1);
    let node = Node::start(directory.path(), &[]);
    assert_eq!(node.metric("oklog_ingest_missing_records"), 0.0);
    node.settle();
    let stats = node.get("/query?from=1h&stats").json();
    assert_eq!((&stats["complete"], &stats["records"]), (&true.into(), &900.into()));
    assert!(node.stop().success());
    assert_eq!(fsck(&data).0, Some(0), "{}", fsck(&data).1);
}
