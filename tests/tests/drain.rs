//! A node is emptied before it goes.

use std::io::{Read, Write};
use std::net::TcpStream;

use tests::node::Node;
use tests::{http, sender, tools, wait_until};

fn drain(node: &Node, flags: &[&str]) -> (Option<i32>, String) {
    let store = node.api.to_string();
    let mut line = vec!["drain", "--store", &store];
    line.extend_from_slice(flags);
    let output = tools::oklogd(&line);
    let said = tools::text(&output.stdout) + &tools::text(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn a_drained_node_holds_everything_in_the_store_and_takes_nothing_more_until_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing would be flushed or gathered for a day.
    let flags = ["--ingest.segment-flush-age", "1d", "--store.segment-target-age", "1d"];
    let node = Node::start(directory.path(), &flags);
    let text: String = (0..10_000).map(|i| format!("durable {i}\n")).collect();
    sender::send(node.durable, text.as_bytes());
    let mut open = TcpStream::connect(node.fast).unwrap();
    open.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    open.write_all(b"fast\nunfinished").unwrap();
    wait_until("the line is there", || node.query("q=fast").len() == 1);
    let member = || node.get("/_clusterstate").json()["nodes"][0].clone();
    assert_eq!(member()["state"], "up");
    assert!(member()["backlog_bytes"].as_u64() > Some(100_000), "{}", member());

    let (code, said) = drain(&node, &[]);
    assert_eq!(code, Some(0), "{said}\n{}", node.log());
    assert!(said.contains("nothing is left"), "{said}");
    let state = node.get("/_segmentstate").json();
    assert_eq!(state["ingest"]["flushed"]["segments"], 0, "{state}");
    assert_eq!(node.metric("oklog_unindexed_bytes"), 0.0);
    assert_eq!((&member()["state"], &member()["backlog_bytes"]), (&"draining".into(), &0.into()));
    assert!(member()["disk_free_bytes"].as_u64() > Some(0), "{}", member());
    assert_eq!(node.all_lines().len(), 10_002, "the unfinished line is a record");

    let ready = node.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert_eq!(node.get("/health").status, 200);
    let refused = http::post(node.api, "/records", b"x\n");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("draining"), "{}", refused.text());
    assert_eq!(open.read(&mut [0; 8]).unwrap_or(0), 0, "open connections are hung up on");
    for port in [node.fast, node.durable] {
        assert!(TcpStream::connect(port).is_err(), "new ones are refused");
    }
    let again = drain(&node, &["--timeout", "10s"]);
    assert_eq!(again.0, Some(0), "{}", again.1);
    assert!(node.get("/_drain").json()["done"] == true);

    assert!(node.stop().success());
    let node = Node::start(directory.path(), &flags);
    sender::send(node.durable, b"after\n");
    assert_eq!(node.all_lines().len(), 10_003);
    assert_eq!(node.get("/_drain").json()["draining"], false);
}

#[test]
fn what_cannot_be_drained_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--store.segment-replication-factor", "2"]);
    sender::send(node.durable, b"stays\n");
    wait_until("it knows", || node.log().contains("replica"));
    let (code, said) = drain(&node, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("replicas are missing"), "{said}");
    assert_eq!(node.all_lines(), [b"stays".to_vec()]);
    let nobody = tools::oklogd(&["drain", "--store", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
}

#[test]
fn durable_senders_that_are_told_nothing_lose_nothing_when_a_node_drains_under_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut stream = TcpStream::connect(node.durable).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    stream.write_all(b"\0OKLOGD-ACK/1\n").unwrap();
    let mut sent = 0u64;
    let writer = {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            while stream.write_all(format!("line {sent}\n").as_bytes()).is_ok() {
                sent += 1;
            }
        })
    };
    let mut acknowledged = 0;
    let mut count = [0; 8];
    while acknowledged < 100 {
        stream.read_exact(&mut count).unwrap();
        acknowledged = u64::from_le_bytes(count);
    }
    let draining = std::thread::spawn({
        let api = node.api;
        move || http::post(api, "/_drain", b"").status
    });
    while stream.read_exact(&mut count).is_ok() {
        acknowledged = u64::from_le_bytes(count);
    }
    writer.join().unwrap();
    assert_eq!(draining.join().unwrap(), 200);
    assert_eq!(drain(&node, &[]).0, Some(0));
    let found = node.all_lines();
    assert!(found.len() as u64 >= acknowledged, "{} of {acknowledged}", found.len());
    for (number, line) in found.iter().enumerate() {
        assert_eq!(*line, format!("line {number}").into_bytes());
    }
}
