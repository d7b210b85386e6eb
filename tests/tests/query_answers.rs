//! What `oklogd query` and its relatives take for an answer: one that says that it is all of it, from
//! something that is a node.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::time::{Duration, Instant};

use tests::node::Node;
use tests::tools::{self, text};

/// A proxy that speaks HTTP/1.0 to the node: its answers have no other end than that of the
/// connection. It breaks off behind so many bytes of each. Ends with the test's process.
fn proxy(node: SocketAddr, bytes_max: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap().replace("HTTP/1.1", "HTTP/1.0");
                let mut node = TcpStream::connect(node).unwrap();
                node.write_all(request.as_bytes()).unwrap();
                // The client may have what it wanted.
                let _ = std::io::copy(&mut node.take(bytes_max), &mut client);
            });
        }
    });
    address
}

#[test]
fn an_answer_that_breaks_off_behind_an_old_proxy_is_never_taken_for_whole() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let lines: String = (0..20_000).map(|n| format!("{n} a line of an answer\n")).collect();
    tests::sender::send(node.durable, lines.as_bytes());
    let query = |address: &str, flags: &[&str]| -> Output {
        tools::oklogd(&[&["query", "--store", address], flags].concat())
    };
    let whole = query(&proxy(node.api, u64::MAX), &[]);
    assert_eq!((whole.status.code(), text(&whole.stderr)), (Some(0), String::new()));
    assert!(text(&whole.stdout) == lines);
    let json = query(&proxy(node.api, u64::MAX), &["--json"]);
    assert_eq!(text(&json.stdout).lines().count(), 20_001);
    for bytes_max in [2_000, 500_000, 900_001] {
        let address = proxy(node.api, bytes_max);
        let cut = query(&address, &[]);
        let (printed, said) = (text(&cut.stdout), text(&cut.stderr));
        assert_eq!(cut.status.code(), Some(3), "{said}");
        assert!(said.contains("breaks off") && said.lines().count() == 1, "{said}");
        assert!(printed.ends_with('\n') && lines.starts_with(&printed), "half a record is none");
        let cut = query(&address, &["--json"]);
        assert_eq!(cut.status.code(), Some(3), "{}", text(&cut.stderr));
        for line in text(&cut.stdout).lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("whole objects");
        }
    }
}

#[test]
fn an_ingest_port_is_given_up_within_twenty_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (fast, durable) = (node.fast.to_string(), node.durable.to_string());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for line in [
            ["query", "--store", &fast],
            ["stream", "--store", &durable],
            ["drain", "--store", &fast],
        ] {
            scope.spawn(move || {
                let output = tools::oklogd(&line);
                let said = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{said}");
                assert!(said.contains("is this the HTTP port of a node?"), "{said}");
            });
        }
    });
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // Each of the three asked, and then asked for a sign of life.
    let strangers = "oklog_ingest_strangers_total{protocol=\"http\"}";
    tests::wait_until("they are counted", || node.metric(strangers) == 6.0);
    assert!(node.log().contains("an HTTP request came to an ingest port"), "{}", node.log());
    let lines = node.all_lines();
    assert!(lines.iter().any(|line| line.starts_with(b"GET /query?")), "what came is kept");
    let mut tls = TcpStream::connect(node.fast).unwrap();
    // In two pieces, with newlines in it.
    for piece in [&b"\x16\x03\x01"[..], b"\x00\x0a\x01\n\n\n\n\n\n\n\n\n\n"] {
        tls.write_all(piece).unwrap();
        tests::wait_until("it is taken", || node.metric("oklog_ingest_partial_line_bytes") >= 0.0);
    }
    let strangers = "oklog_ingest_strangers_total{protocol=\"tls\"}";
    tests::wait_until("it is counted", || node.metric(strangers) == 1.0);
}
