//! Thousands of connections fit a fixed memory budget, idle or full of half a line.

use std::io::Write;
use std::net::TcpStream;

use tests::node::Node;
use tests::{sender, wait_until};

const BUDGET_BYTES: u64 = 256 << 20;

#[test]
fn five_thousand_idle_and_sixty_four_busy_connections_fit() {
    if !tests::raise_descriptors(12_000) {
        return tests::skipped("five_thousand_idle…", "the limit of open files is below 12,000");
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut idle: Vec<TcpStream> =
        (0..5_000).map(|_| TcpStream::connect(node.fast).unwrap()).collect();
    wait_until("all are accepted", || {
        node.metric("oklog_connected_clients{modality=\"fast\"}") >= 5_000.0
    });
    let busy: Vec<_> = (0..64)
        .map(|s| {
            let port = node.fast;
            std::thread::spawn(move || {
                let text: String = (0..5_000).map(|i| format!("busy {s} line {i}\n")).collect();
                sender::send(port, text.as_bytes());
            })
        })
        .collect();
    for sender in busy {
        sender.join().unwrap();
    }
    for stream in &mut idle {
        stream.write_all(b"awake\n").unwrap();
    }
    wait_until("idle ones are heard", || node.query("q=awake").len() == 5_000);
    let used = node.anonymous_bytes();
    assert!(used <= BUDGET_BYTES, "{used} bytes");
    let stats = node.get("/query?from=1h&q=busy&stats").json();
    assert_eq!(stats["records"].as_u64(), Some(320_000), "{stats}");
    drop(idle);
    wait_until("their places are free again", || {
        node.metric("oklog_connected_clients{modality=\"fast\"}") == 0.0
    });
}

#[test]
fn two_thousand_half_lines_fit() {
    if !tests::raise_descriptors(12_000) {
        return tests::skipped("two_thousand_half_lines_fit", "too few open files are allowed");
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let half = vec![b'h'; 900_000];
    let mut connections = Vec::new();
    let mut peak = 0;
    for number in 0..2_000 {
        let mut stream = TcpStream::connect(node.fast).unwrap();
        stream.write_all(&half).unwrap();
        connections.push(stream);
        if number % 100 == 0 {
            peak = peak.max(node.anonymous_bytes());
        }
    }
    wait_until("all bytes are read", || {
        node.metric("oklog_ingest_taken_bytes_total") == 2_000.0 * 900_000.0
    });
    peak = peak.max(node.anonymous_bytes());
    assert!(peak <= BUDGET_BYTES, "{peak} bytes");
    assert!(node.metric("oklog_ingest_partial_lines_cut_total") > 0.0, "early cuts are counted");
    for stream in &mut connections {
        stream.write_all(b"\n").unwrap();
    }
    drop(connections);
    wait_until("nothing is unfinished", || node.metric("oklog_ingest_partial_line_bytes") == 0.0);
    let stats = node.get("/query?from=1h&q=h&stats").json();
    let bytes = stats["bytes"].as_u64().unwrap() - stats["records"].as_u64().unwrap();
    assert_eq!(bytes, 2_000 * 900_000, "every byte is kept: {stats}");
}

#[test]
fn connections_that_are_reset_right_behind_their_bytes_are_let_go_and_their_half_lines_are_not_kept()
 {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    // Rare for one of them: bytes and reset have to come together.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..8_000 {
                    let mut stream = TcpStream::connect(node.durable).unwrap();
                    let socket = socket2::SockRef::from(&stream);
                    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                    // The node may be done with it already.
                    let _ = stream.write_all(b"\0OKLOGD-ACK/1\nwhole\nhalf");
                }
            });
        }
    });
    wait_until("none is left", || {
        node.metric("oklog_connected_clients{modality=\"durable\"}") == 0.0
    });
    assert!(node.stop().success());
    let node = Node::start(directory.path(), &[]);
    assert!(node.query("q=half").is_empty());
}
