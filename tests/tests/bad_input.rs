//! Bad input gets an answer that names what is wrong; never a 500, a panic or a hang.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use tests::http;
use tests::lines::Random;
use tests::node::Node;

fn node() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    (directory, node)
}

#[test]
fn bad_parameters_are_named() {
    let (_directory, node) = node();
    for (path, needle) in [
        ("/query?q=(&regex", "q"),
        ("/query?q=a%0Ab", "q"),
        ("/query?q=(a{1000}){1000}&regex", "q"),
        ("/query?from=1h&to=2h", "from"),
        ("/query?from=yesterday", "from"),
        ("/query?from=5", "from"),
        ("/query?to=2024-13-01T00:00:00Z", "to"),
        ("/query?from=99999999999999999999d", "from"),
        ("/query?limit=-1", "limit"),
        ("/query?limit=99999999999999999999999", "limit"),
        ("/query?order=up", "order"),
        ("/query?regex=maybe", "regex"),
        ("/query?i=2", "i"),
        ("/query?topic=no%20topic", "topic"),
        ("/query?after=xyz", "after"),
        ("/query?partial=perhaps", "partial"),
        ("/query?nonsense=1", "nonsense"),
        ("/query/histogram?buckets=0", "buckets"),
        ("/query/histogram?buckets=10001", "buckets"),
        ("/query/histogram?buckets=x", "buckets"),
        ("/query/histogram?by=host", "by"),
        ("/query/histogram?by=level&by=topic", "by"),
        ("/query?context=1001", "context"),
        ("/query/histogram?context=1", "context"),
    ] {
        let answer = node.get(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains(needle), "{path}: {}", answer.text());
    }
    for path in ["/records?mode=slow", "/records?topic=-x", "/records?mode=bulk"] {
        assert_eq!(http::post(node.api, path, b"x\n").status, 400, "{path}");
    }
    for (path, allow) in [("/query", "GET"), ("/records", "POST"), ("/health", "GET")] {
        let answer = http::request(node.api, "DELETE", path, &[], b"");
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.headers["allow"].contains(allow), "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    for path in ["/index.html", "/nothing", "/query/", "/ui/nothing", "/..%2f"] {
        assert_eq!(node.get(path).status, 404, "{path}");
    }
    assert_eq!(node.get("/store/query").status, 200);
    assert_eq!(node.get("/health").json()["status"], "ok");
}

#[test]
fn foreign_origins_and_broken_bodies_are_refused() {
    let (_directory, node) = node();
    let foreign = [("Origin", "http://elsewhere.example")];
    let answer = http::request(node.api, "POST", "/records", &foreign, b"x\n");
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    for encoding in ["gzip", "zstd", "br"] {
        let broken = [("Content-Encoding", encoding)];
        let answer = http::request(node.api, "POST", "/records", &broken, b"not compressed");
        assert!((400..=415).contains(&answer.status), "{encoding}: {}", answer.status);
    }
    let oversized = "x".repeat(200_000);
    let headers = [("X-Large", &oversized[..])];
    if let Ok(answer) = http::try_request(node.api, "GET", "/query", &headers, b"") {
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    assert!(node.all_lines().is_empty());
}

#[test]
fn random_bytes_on_every_port_harm_nobody() {
    let (_directory, node) = node();
    let mut random = Random::new(99);
    for round in 0..60 {
        let len = 1 + random.below(3000) as usize;
        let garbage: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
        let hello = b"\0OKLOGD-ACK/1 ".iter().chain(&garbage).copied().collect::<Vec<u8>>();
        for port in [node.api, node.fast, node.durable] {
            let bytes = if round % 3 == 0 { &hello } else { &garbage };
            let mut stream = TcpStream::connect(port).unwrap();
            stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
            // The node may hang up at any byte.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            if port == node.api && !answer.is_empty() {
                assert!(
                    answer.starts_with(b"HTTP/1.1 4"),
                    "{:?}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
    }
    assert_eq!(node.get("/health").status, 200);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
