//! Clients that mean harm, or are merely broken: bounded, told, others unharmed, and everything is
//! given back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::lines::Random;
use tests::node::Node;
use tests::{http, sender, wait_until};

/// What a node holds that must come back to where it was.
struct Held {
    descriptors: usize,
    anonymous_bytes: u64,
}

/// Memory that may stay with the allocator.
const SLACK_BYTES: u64 = 48 << 20;

impl Held {
    /// After everything was used once.
    fn of(node: &Node) -> Self {
        unharmed(node, "warm");
        node.settle();
        wait_until("only this request is open", || node.metric("oklog_connected_clients") == 1.0);
        Self { descriptors: node.descriptors(), anonymous_bytes: node.anonymous_bytes() }
    }

    fn wait_for_return(&self, node: &Node) {
        wait_until("connections are gone", || node.metric("oklog_connected_clients") == 1.0);
        node.settle();
        // Files of segments come and go: two shards hold some, and so does whoever reads them.
        wait_until("descriptors are back", || node.descriptors() <= self.descriptors + 16);
        let most = self.anonymous_bytes + SLACK_BYTES;
        let mut now = 0;
        wait_until("memory is back", || {
            now = node.anonymous_bytes();
            now <= most
        });
        eprintln!("RssAnon {} MiB before, {} MiB after", self.anonymous_bytes >> 20, now >> 20);
    }
}

/// An honest client sends, asks and is served.
fn unharmed(node: &Node, what: &str) {
    let line = format!("honest {what}\n");
    sender::send(node.durable, line.as_bytes());
    let posted = http::post(node.api, "/records", line.as_bytes());
    assert_eq!(posted.status, 200, "{}", posted.text());
    assert_eq!(node.query(&format!("q=honest+{what}")).len(), 2, "{what}");
    assert_eq!(node.get("/ready").status, 200);
}

fn connect(port: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    stream
}

#[test]
fn slow_loris_headers_are_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--http.idle-timeout", "500ms"]);
    let held = Held::of(&node);
    let mut loris: Vec<_> = (0..400).map(|_| connect(node.api)).collect();
    for stream in &mut loris {
        stream.write_all(b"GET /query HTTP/1.1\r\nX-A: ").unwrap();
    }
    unharmed(&node, "beside-loris");
    let start = Instant::now();
    let mut open = loris.len();
    while open > 0 {
        assert!(start.elapsed() < tests::DEADLINE, "{open} still dribble");
        for stream in &mut loris {
            // One byte more, again and again: the head is never complete.
            let _ = stream.write_all(b"a");
        }
        open = node.metric("oklog_connected_clients{modality=\"http\"}") as usize - 1;
    }
    drop(loris);
    held.wait_for_return(&node);
}

#[test]
fn large_heads_that_never_end_share_little_memory() {
    if !tests::raise_descriptors(5_000) {
        return tests::skipped("large_heads…", "the limit of open files is too low");
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--http.idle-timeout", "20s"]);
    let held = Held::of(&node);
    let head = format!("GET /query HTTP/1.1\r\nX-A: {}", "a".repeat(60_000));
    let mut peak = 0;
    let mut loris = Vec::new();
    for number in 0..1_000 {
        let mut stream = connect(node.api);
        // It may be closed before all is sent.
        let _ = stream.write_all(head.as_bytes());
        loris.push(stream);
        if number % 50 == 0 {
            peak = peak.max(node.anonymous_bytes());
        }
    }
    unharmed(&node, "beside-large-heads");
    peak = peak.max(node.anonymous_bytes());
    eprintln!("RssAnon {} MiB before, {} MiB at most", held.anonymous_bytes >> 20, peak >> 20);
    assert!(peak <= held.anonymous_bytes + (64 << 20), "{} MiB", peak >> 20);
    drop(loris);
    held.wait_for_return(&node);
}

#[test]
fn ten_thousand_connections_are_bounded_and_given_back() {
    if !tests::raise_descriptors(10_500) {
        return tests::skipped("ten_thousand_connections…", "the limit of open files is too low");
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.connections-per-address-max", "6000"]);
    let held = Held::of(&node);
    let mut all: Vec<TcpStream> = Vec::new();
    for number in 0..10_000 {
        all.push(connect(if number % 2 == 0 { node.fast } else { node.durable }));
    }
    wait_until("the surplus is refused", || {
        node.metric("oklog_connections_refused_total") >= 4_000.0
    });
    let clients = node.metric("oklog_connected_clients");
    assert!(clients <= 6_001.0, "{clients} of one address");
    // HTTP has places of its own; what others hold on the ingest ports does not touch it.
    assert_eq!(node.get("/ready").status, 200);
    let posted = http::post(node.api, "/records", b"honest over HTTP\n");
    assert_eq!(posted.status, 200, "{}", posted.text());
    assert!(node.log().contains("--ingest.connections-per-address-max"), "it is told");
    for (number, stream) in all.into_iter().enumerate() {
        if number % 3 == 0 {
            sender::reset(stream);
        }
    }
    held.wait_for_return(&node);
    unharmed(&node, "after-the-crowd");
}

#[test]
fn a_billion_bytes_without_a_newline_are_cut_and_kept_in_little_memory() {
    const BYTES: usize = 1_000_000_000;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let held = Held::of(&node);
    let mut stream = connect(node.api);
    write!(
        stream,
        "POST /records?mode=fast&topic=blob HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {BYTES}\r\n\r\n"
    )
    .unwrap();
    let piece = vec![b'x'; 1_000_000];
    let mut peak = 0;
    for number in 0..BYTES / piece.len() {
        stream.write_all(&piece).unwrap();
        if number % 50 == 0 {
            peak = peak.max(node.anonymous_bytes());
        }
        if number == 500 {
            unharmed(&node, "beside-the-blob");
        }
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let cuts = BYTES.div_ceil(1 << 20);
    assert!(answer.contains(&format!("\"records\":{cuts}")), "{answer}");
    assert!(node.metric("oklog_ingest_cut_records_total") >= cuts as f64 - 1.0, "cuts are counted");
    assert!(peak <= held.anonymous_bytes + (96 << 20), "{} MiB", peak >> 20);
    drop(stream);
    let stats = node.get("/query?from=1h&topic=blob&stats").json();
    assert_eq!(stats["bytes"].as_u64().unwrap(), (BYTES + cuts) as u64, "{stats}");
    held.wait_for_return(&node);
}

#[test]
fn half_open_sockets_and_half_requests_hold_nothing_when_they_go() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--http.idle-timeout", "1s"]);
    let held = Held::of(&node);
    let mut halves = Vec::new();
    for number in 0..600 {
        let mut stream = connect([node.fast, node.durable, node.api][number % 3]);
        match number % 3 {
            0 => stream.write_all(b"half a line").unwrap(),
            1 => stream.write_all(b"\0OKLOGD-ACK/1\nhalf").unwrap(),
            // A body that never comes.
            _ => stream
                .write_all(
                    b"POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
                )
                .unwrap(),
        }
        if number % 2 == 0 {
            // It will not read what it is told.
            stream.shutdown(std::net::Shutdown::Read).unwrap();
        }
        halves.push(stream);
    }
    wait_until("all are there", || node.metric("oklog_connected_clients") >= 600.0);
    unharmed(&node, "beside-halves");
    for (number, stream) in halves.into_iter().enumerate() {
        if number % 2 == 0 { sender::reset(stream) } else { drop(stream) }
    }
    held.wait_for_return(&node);
}

#[test]
fn garbage_is_answered_with_400_or_taken_as_lines_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--http.idle-timeout", "1s"]);
    let held = Held::of(&node);
    let mut random = Random::new(99);
    for round in 0..60 {
        let mut garbage: Vec<u8> = Vec::new();
        if round % 2 == 0 {
            // Requests in a row whose answers nobody reads, before it turns bad.
            garbage.extend(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200));
        }
        garbage.extend((0..20_000).flat_map(|_| random.next_u64().to_le_bytes()));
        let mut stream = connect(node.api);
        // It may hang up before all is sent.
        let _ = stream.write_all(&garbage);
        let mut said = Vec::new();
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = stream.read_to_end(&mut said);
        let text = String::from_utf8_lossy(&said);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
        let mut stream = connect(if round % 3 == 0 { node.durable } else { node.fast });
        let _ = stream.write_all(&garbage);
    }
    unharmed(&node, "beside-garbage");
    held.wait_for_return(&node);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
