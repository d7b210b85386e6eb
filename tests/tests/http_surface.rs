//! What clients, scrapers and browsers meet at the HTTP port of the real binary.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::follower::Follower;
use tests::forwarder::Forwarder;
use tests::http::{self, Answer};
use tests::metrics_page::{Page, read_open_metrics, read_prometheus};
use tests::node::Node;
use tests::{sender, skipped, tools, wait_until};

const OPEN_METRICS: (&str, &str) = ("Accept", "application/openmetrics-text;version=1.0.0");

fn open(api: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// What is read up to the end, and whether that was a reset.
fn rest(mut stream: TcpStream) -> (Vec<u8>, bool) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    (rest, end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset))
}

/// Both forms, read strictly: they tell of the same families.
fn pages(api: SocketAddr) -> (Page, Page, String) {
    let text = |answer: Answer| {
        assert_eq!(answer.status, 200);
        (answer.headers["content-type"].clone(), String::from_utf8(answer.body).unwrap())
    };
    let (kind, plain) = text(http::get(api, "/metrics"));
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let (kind, open) = text(http::request(api, "GET", "/metrics", &[OPEN_METRICS], b""));
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let prometheus = read_prometheus(&plain).unwrap_or_else(|why| panic!("{why}\n{plain}"));
    let open_metrics = read_open_metrics(&open).unwrap_or_else(|why| panic!("{why}\n{open}"));
    let names = prometheus.keys().map(|name| name.strip_suffix("_total").unwrap_or(name));
    let names: BTreeSet<&str> = names.collect();
    assert_eq!(names, open_metrics.keys().map(String::as_str).collect());
    (prometheus, open_metrics, plain)
}

/// Whether `promtool` finds nothing wrong; what it says if not.
fn lint(promtool: &std::path::Path, page: &str) -> Result<(), String> {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = tools::text(&output.stdout) + &tools::text(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn scrapers_can_read_every_page_of_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, b"one\ntwo\n");
    let _ = (node.get("/query?from=1h"), node.get("/query?stats&from=1h"), node.get("/nonsense"));
    wait_until("the watchdog has looked", || {
        node.get("/metrics").text().contains("oklog_thread_busy_seconds{")
    });
    let (prometheus, open_metrics, plain) = pages(node.api);
    for (name, family) in &prometheus {
        assert!(!family.samples.is_empty() || name.contains("refused"), "{name} has no samples");
    }
    let seconds = &open_metrics["oklog_api_request_duration_seconds"];
    assert_eq!((&*seconds.kind, seconds.unit.as_deref()), ("histogram", Some("seconds")));
    let address = node.durable.to_string();
    let forwarder = Forwarder::start(directory.path(), &["--api", "127.0.0.1:0", &address]);
    let (_, _, forwarded) = pages(forwarder.api());
    let Some(promtool) = tools::promtool() else {
        let why = "no target/tools/bin/promtool: tests/run installs it where it can";
        return skipped("scrapers_can_read_every_page_of_metrics", why);
    };
    assert_eq!(lint(&promtool, &plain), Ok(()));
    assert_eq!(lint(&promtool, &forwarded), Ok(()));
}

#[test]
fn whoever_closes_its_side_gets_its_answer_and_whoever_is_gone_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for n in 0..3 {
        let head = "POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nline\n";
        let stream = open(node.api, head);
        stream.shutdown(Shutdown::Write).unwrap();
        let (answer, is_reset) = rest(stream);
        let answer = tools::text(&answer);
        assert!(answer.contains("200 OK") && answer.contains("\"records\":1"), "{n}: {answer}");
        assert!(!is_reset);
    }
    assert_eq!(node.all_lines().len(), 3);
    let kinds = ["text/plain", "application/x-ndjson", "text/event-stream"];
    let follow = |kind: &str| {
        let head = format!("GET /stream HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\n\r\n");
        let mut stream = open(node.api, &head);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(0);
            let at = head.len() - 1;
            stream.read_exact(&mut head[at..]).unwrap();
        }
        let head = tools::text(&head).to_ascii_lowercase();
        assert!(head.contains("x-accel-buffering: no"), "{head}");
        stream
    };
    // They have closed their side, and go on to follow.
    let mut there = kinds.map(follow);
    for stream in &there {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    // These are gone.
    drop(kinds.map(follow));
    wait_until("those who are gone are noticed", || node.metric("oklog_followers") == 3.0);
    sender::send(node.durable, b"for those who are there\n");
    for stream in &mut there {
        let mut came = Vec::new();
        wait_until("the record comes", || {
            let mut some = [0; 1000];
            let len = stream.read(&mut some).unwrap();
            came.extend_from_slice(&some[..len]);
            tools::text(&came).contains("for those who are there")
        });
    }
    assert_eq!(node.metric("oklog_followers"), 3.0);
}

#[test]
fn an_answer_that_its_node_does_not_live_to_end_is_reset_for_http_1_0() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, &[&[b'x'; 1000][..], b"\n"].concat().repeat(20_000));
    let mut stream = open(node.api, "GET /query?from=1h HTTP/1.0\r\n\r\n");
    stream.read_exact(&mut [0; 1000]).unwrap();
    node.kill();
    assert!(rest(stream).1, "what came looks whole");
}

#[test]
fn names_and_origins_are_those_that_flags_allow() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--http.host", "logs.example", "--http.cors-origin", "https://ui.example"];
    let node = Node::start(directory.path(), &flags);
    for (host, origin, status) in [
        ("localhost", "", 200),
        ("logs.example:80", "", 200),
        ("other.example", "", 403),
        ("localhost", "https://ui.example", 200),
        ("localhost", "https://other.example", 403),
        ("other.example", "https://other.example", 403),
    ] {
        let origin =
            if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        let head = format!(
            "POST /records HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: close\r\n\
             Content-Length: 2\r\n\r\nx\n"
        );
        let answer = tools::text(&rest(open(node.api, &head)).0);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}{answer}");
        assert!(answer.to_ascii_lowercase().contains("x-content-type-options: nosniff"));
    }
    assert_eq!(node.all_lines().len(), 3);
    for bad in [["--http.host", "a b"], ["--http.cors-origin", "ui.example"]] {
        let output = tools::oklogd(&["ingeststore", bad[0], bad[1]]);
        assert_eq!(output.status.code(), Some(2));
        assert!(tools::text(&output.stderr).contains(bad[0]), "{}", tools::text(&output.stderr));
    }
}

/// Anonymous memory of the node, MiB, at most, while this runs.
fn peak_mib(node: &Node, mut until: impl FnMut() -> bool) -> u64 {
    let mut peak = 0;
    wait_until("it is done", || {
        peak = peak.max(node.anonymous_bytes() >> 20);
        until()
    });
    peak
}

#[test]
fn many_who_ask_for_many_topics_cost_little_memory_and_hold_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--ingest.topic-mode", "dynamic", "--ingest.topics-max", "65534"];
    let node = Node::start(directory.path(), &flags);
    let lines: Vec<u8> = (0..65_000).flat_map(|n| format!("topic-{n} x\n").into_bytes()).collect();
    sender::send(node.durable, &lines);
    let first = node.get("/topics");
    assert_eq!(first.json()["topics"].as_array().unwrap().len(), 65_000);
    let before = node.anonymous_bytes() >> 20;
    let api = node.api;
    let asking: Vec<_> =
        (0..100).map(|_| std::thread::spawn(move || http::get(api, "/topics"))).collect();
    let mut slowest = Duration::ZERO;
    let peak = peak_mib(&node, || {
        let start = Instant::now();
        assert_eq!(node.get("/health").status, 200);
        slowest = slowest.max(start.elapsed());
        asking.iter().all(std::thread::JoinHandle::is_finished)
    });
    for answer in asking {
        let answer = answer.join().unwrap();
        assert_eq!((answer.status, answer.complete), (200, true));
        assert_eq!(answer.body.len(), first.body.len());
    }
    assert!(slowest < Duration::from_secs(5), "/health took {slowest:?}");
    assert!(peak <= before + 150, "{before} MiB before, {peak} MiB at most");
}

#[test]
fn replays_of_long_records_hold_none_of_them() {
    const FOLLOWERS: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.max-record-size", "16MiB"]);
    // Text that nothing compresses, so that it lies in maps and what is counted is the stream's.
    let mut random = tests::lines::Random::new(3);
    let mut record: Vec<u8> =
        (0..(16 << 20) / 8).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    record.pop();
    record.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'x');
    for _ in 0..4 {
        sender::send(node.durable, &[&record[..], b"\n"].concat());
    }
    node.settle();
    let before = node.anonymous_bytes() >> 20;
    let after = "00000000000000000000000000";
    let mut followers: Vec<_> = ["text/plain", "application/x-ndjson", "text/event-stream"]
        .iter()
        .cycle()
        .take(FOLLOWERS)
        .map(|kind| {
            let accept = format!("Accept: {kind}\r\n");
            Follower::open(node.api, &format!("after={after}"), &accept)
        })
        .collect();
    // Long enough that those who take nothing have given up their queries and begin them anew.
    let start = Instant::now();
    let peak = peak_mib(&node, || start.elapsed() > Duration::from_secs(3));
    assert!(peak <= before + 100, "{before} MiB before, {peak} MiB at most");
    let text = &mut followers[0];
    text.read();
    let line = 26 + 1 + record.len() + 1;
    wait_until("the one that reads has all of it", || text.received_bytes() >= 4 * line);
    let body = text.body();
    assert_eq!(body.len(), 4 * line);
    for got in body.chunks(line) {
        assert!(got[27..27 + record.len()] == record[..] && got[line - 1] == b'\n');
    }
}
