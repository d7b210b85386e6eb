//! Senders that do not end messages with LF, and lines whose end does not come.

use std::io::{Read, Write};
use std::net::TcpStream;

use tests::node::Node;
use tests::sender::{self, Acknowledged};
use tests::{tools, wait_until};

/// What a node keeps, in order of arrival.
fn records(node: &Node) -> Vec<String> {
    node.all_lines().iter().map(|line| tools::text(line)).collect()
}

#[test]
fn counted_messages_are_one_record_each_and_a_sender_that_loses_count_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--ingest.framing", "octet", "--cores", "1"];
    let node = Node::start(directory.path(), &flags);
    let mut syslog = Vec::new();
    for n in 0..20_000 {
        let message = format!("<13>1 message {n}");
        syslog.extend(format!("{} {message}", message.len()).bytes());
    }
    sender::send(node.durable, &syslog);
    let expected: Vec<_> = (0..20_000).map(|n| format!("<13>1 message {n}")).collect();
    assert!(records(&node) == expected);
    assert_eq!(node.metric("oklog_ingest_lost_counts_total"), 0.0);
    sender::send(node.durable, b"5 <1>\na7 no count\nat all\n");
    assert_eq!(records(&node)[20_000..], ["<1>", "a", "no coun", "t", "at all"]);
    assert_eq!(node.metric("oklog_ingest_lost_counts_total"), 1.0);
    assert!(node.log().contains("RFC 6587"), "{}", node.log());
    // Who said hello sends lines, as it has always done.
    let mut lines = Acknowledged::connect(node.durable).unwrap();
    lines.send(b"7 lines\n").unwrap();
    lines.wait_for(1).unwrap();
    assert_eq!(records(&node).last().unwrap(), "7 lines");
}

#[test]
fn messages_that_end_with_nul_are_one_record_each() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.framing", "nul"]);
    sender::send(node.durable, b"one\0two\n\0\0three\nfour\0five");
    assert_eq!(records(&node), ["one", "two", "", "three", "four", "five"]);
}

#[test]
fn lines_and_counted_messages_are_told_apart_by_their_first_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--ingest.framing", "auto", "--cores", "1"];
    let node = Node::start(directory.path(), &flags);
    sender::send(node.durable, b"5 <1>ab6 <1>xyz");
    sender::send(node.durable, b"200 GET /\n404 GET /x\n");
    assert_eq!(records(&node), ["<1>ab", "<1>xyz", "200 GET /", "404 GET /x"]);
    // Lines in bulk are still received straight into frames.
    let bulk = "a line of a sender in bulk\n".repeat(400_000);
    sender::send(node.durable, bulk.as_bytes());
    assert!(node.metric("oklog_ingest_direct_bytes_total") > 0.0);
    assert_eq!(node.metric("oklog_ingest_lost_counts_total"), 0.0);
}

#[test]
fn a_line_whose_end_does_not_come_is_a_record_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--ingest.unfinished-line-after", "200ms", "--cores", "1"];
    let node = Node::start(directory.path(), &flags);
    let mut acknowledged = Acknowledged::connect(node.durable).unwrap();
    acknowledged.send(b"an acknowledged line is ").unwrap();
    let mut console = TcpStream::connect(node.fast).unwrap();
    console.write_all(b"boot\nlogin: ").unwrap();
    wait_until("the prompt is found", || records(&node) == ["boot", "login: "]);
    assert_eq!(node.metric("oklog_ingest_partial_lines_idle_total"), 1.0);
    // Its end is no record of its own; the rest of it would be one.
    console.write_all(b"\nKernel panic").unwrap();
    wait_until("the panic is found", || records(&node)[1..] == ["login: ", "Kernel panic"]);
    // What waited longest was not touched: its sender counts on it.
    acknowledged.send(b"never cut\n").unwrap();
    acknowledged.wait_for(1).unwrap();
    assert_eq!(records(&node).last().unwrap(), "an acknowledged line is never cut");
    let mut durable = TcpStream::connect(node.durable).unwrap();
    durable.write_all(b"half").unwrap();
    wait_until("it is found", || records(&node).last().unwrap() == "half");
    // The end of a connection waits for what was made of its line, too.
    durable.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(durable.read(&mut [0]).unwrap(), 0);
    drop(console);
    node.kill();
    let node = Node::start(directory.path(), &[]);
    assert!(records(&node).contains(&"Kernel panic".to_owned()));
}
