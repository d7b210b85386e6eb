//! Queries share a node: they wait for their turn, take no more than their share, cost little once
//! their client has left, and slow readers cost memory within a budget.

use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::node::Node;
use tests::{http, sender, wait_until};

/// Lines that no index helps with: about `megabytes`.
fn fill(node: &Node, megabytes: usize) {
    let mut text = String::new();
    for number in 0..megabytes * 10_000 {
        text.push_str(&format!(
            "{number:08} a line of text that is about a hundred bytes long, as "
        ));
        text.push_str("lines of logs tend to be, give or take\n");
    }
    sender::send(node.durable, text.as_bytes());
}

/// Asks and reads nothing but the first bytes.
fn stalled(api: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    stream
}

#[test]
fn queries_beyond_the_limit_wait_for_their_turn_and_are_told_to_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--query.max-concurrent", "1", "--query.wait-max", "200ms"];
    let node = Node::start(directory.path(), &flags);
    fill(&node, 20);
    let first = stalled(node.api, "/query?from=1h");
    let refused = node.get("/query?from=1h&limit=1");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.text().contains("--query.max-concurrent"), "{}", refused.text());
    assert_eq!(node.metric("oklog_queries_refused_total"), 1.0);
    drop(first);
    wait_until("the first is over", || node.metric("oklog_queries_running") == 0.0);
    assert_eq!(node.get("/query?from=1h&limit=1").status, 200);
    assert!(node.stop().success());

    let node =
        Node::start(directory.path(), &["--query.max-concurrent", "1", "--query.wait-max", "1m"]);
    let first = stalled(node.api, "/query?from=1h");
    let api = node.api;
    let waiting: Vec<_> = (0..5)
        .map(|_| std::thread::spawn(move || http::get(api, "/query?from=1h&limit=3").status))
        .collect();
    wait_until("five wait", || node.metric("oklog_queries_waiting") == 5.0);
    drop(first);
    for query in waiting {
        assert_eq!(query.join().unwrap(), 200);
    }
    assert_eq!(node.metric("oklog_queries_waiting"), 0.0);
}

#[test]
fn large_expressions_count_against_the_memory_of_queries_and_followers() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--query.memory-max", "32MiB", "--query.wait-max", "100ms"];
    let node = Node::start(directory.path(), &flags);
    fill(&node, 20);
    assert_eq!(node.get("/query?from=1h&q=00000007").status, 200);
    let before = node.anonymous_bytes();
    // A few megabytes each once compiled. Some match and stall in their output, all are unlike.
    let path = |kind: &str, n| {
        let q = http::encode(&format!(r"(\pL{{150}}|line|{n}) of"));
        format!("/{kind}from=1h&regex&q={q}").replace("/stream?from=1h&", "/stream?")
    };
    let mut peak = 0;
    let mut held = Vec::new();
    let mut refused = 0;
    for n in 0..60 {
        for kind in ["query?", "stream?"] {
            let mut stream = TcpStream::connect(node.api).unwrap();
            stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
            write!(stream, "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path(kind, n)).unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            match &status {
                b"HTTP/1.1 200" => held.push(stream),
                b"HTTP/1.1 429" => refused += 1,
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
        }
        peak = peak.max(node.anonymous_bytes());
    }
    eprintln!(
        "{} held, {refused} refused; {} MiB before, {} MiB at most",
        held.len(),
        before >> 20,
        peak >> 20
    );
    assert!(held.len() > 5 && refused > 5, "{} held, {refused} refused", held.len());
    // 32 MiB of queries, 64 MiB of followers, automata in use and kept, and what the allocator
    // keeps of compiling.
    assert!(peak <= before + (160 << 20), "{} MiB", peak >> 20);
    drop(held);
    wait_until("all of it is free again", || {
        node.metric("oklog_queries_running") == 0.0 && node.metric("oklog_followers") == 0.0
    });
    assert_eq!(node.get(&path("query?", 0).replace("/query?", "/query?limit=1&")).status, 200);
}

#[test]
fn a_client_that_leaves_ends_its_scan_within_a_few_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--cores", "2"]);
    fill(&node, 60);
    let path = format!("/query?from=1h&regex&i&q={}", http::encode("(a|b).*[0-9]{3}x{9}.*absent"));
    for _ in 0..10 {
        let mut stream = TcpStream::connect(node.api).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        wait_until("it runs", || node.metric("oklog_queries_running") >= 1.0);
        drop(stream);
        wait_until("it is over", || node.metric("oklog_queries_running") == 0.0);
    }
    let abandoned = node.metric("oklog_query_abandoned_bytes_total");
    // Each of two threads may be in the middle of a block of 1 MiB at most, ten times.
    assert!(abandoned <= f64::from(10 * 2 * (1 << 20)), "{abandoned} bytes");
    let answer = node.get("/query?from=1h&q=00000007");
    assert_eq!(tests::lines::records(&answer.body).len(), 1);
}

#[test]
fn a_needle_is_found_while_heavy_scans_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    fill(&node, 40);
    let heavy = format!("/query?from=1h&stats&regex&i&q={}", http::encode("(a|b).*[0-9]{3}x{9}"));
    let ended = Arc::new(AtomicUsize::new(0));
    let scans: Vec<_> = (0..40)
        .map(|_| {
            let (api, heavy, ended) = (node.api, heavy.clone(), Arc::clone(&ended));
            std::thread::spawn(move || {
                assert_eq!(http::get(api, &heavy).status, 200);
                ended.fetch_add(1, Ordering::AcqRel);
            })
        })
        .collect();
    wait_until("the scans run", || node.metric("oklog_queries_running") >= 30.0);
    http::post(node.api, "/records?topic=needle", b"found in time\n");
    let answer = node.get("/query?from=1h&topic=needle&q=found");
    assert_eq!(tests::lines::records(&answer.body).len(), 1, "{}", answer.text());
    let before = ended.load(Ordering::Acquire);
    assert!(before < 40, "the needle waited for every scan");
    for scan in scans {
        scan.join().unwrap();
    }
}

#[test]
fn silent_connections_are_closed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--http.idle-timeout", "300ms"]);
    let mut slow = TcpStream::connect(node.api).unwrap();
    slow.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nHo").unwrap();
    let mut said = Vec::new();
    slow.read_to_end(&mut said).unwrap();
    let mut idle = TcpStream::connect(node.api).unwrap();
    idle.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reader = BufReader::new(idle);
    assert_eq!(http::read_answer(&mut reader, "GET").unwrap().status, 200);
    assert_eq!(reader.read_to_end(&mut said).unwrap(), 0, "closed without another byte");
}

fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    stream
}

#[test]
fn one_address_cannot_take_the_places_of_all() {
    let directory = tempfile::tempdir().unwrap();
    let flags =
        ["--http.connections-per-address-max", "3", "--ingest.connections-per-address-max", "3"];
    let node = Node::start(directory.path(), &flags);
    let greedy = Ipv4Addr::new(127, 0, 0, 9);
    let mut held: Vec<_> = (0..3).map(|_| connect_from(greedy, node.api)).collect();
    let mut said = String::new();
    connect_from(greedy, node.api).read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("Retry-After"), "{said}");
    assert_eq!(node.get("/health").status, 200, "another address is served");

    for port in [node.fast, node.durable] {
        let senders: Vec<_> = (0..3).map(|_| connect_from(greedy, port)).collect();
        // Several shards accept: the fourth has to come after the third was taken.
        let modality = if port == node.fast { "fast" } else { "durable" };
        let clients = format!("oklog_connected_clients{{modality=\"{modality}\"}}");
        wait_until("three are there", || node.metric(&clients) == 3.0);
        let mut surplus = connect_from(greedy, port);
        match surplus.read(&mut [0; 1]) {
            Ok(len) => assert_eq!(len, 0, "closed at once"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        wait_until("it is told", || node.log().contains("--ingest.connections-per-address-max"));
        sender::send(port, b"from another address\n");
        drop(senders);
        wait_until("the places are free again", || node.metric(&clients) == 0.0);
    }
    assert!(node.metric("oklog_connections_refused_total") >= 3.0);
    held.pop();
    wait_until("an HTTP place is free again", || {
        let mut stream = connect_from(greedy, node.api);
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok()
            && http::read_answer(&mut BufReader::new(stream), "GET").is_ok_and(|a| a.status == 200)
    });
}

#[test]
fn two_hundred_slow_readers_and_three_thousand_idle_senders_fit_the_budget() {
    if !tests::raise_descriptors(8_000) {
        return tests::skipped("two_hundred_slow_readers…", "the limit of open files is too low");
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    fill(&node, 60);
    let idle: Vec<_> = (0..3_000).map(|_| TcpStream::connect(node.fast).unwrap()).collect();
    // Every second line of half of them: as many hits as a query may hold.
    let sparse = format!("/query?from=1h&regex&q={}", http::encode("[02468] a line"));
    let slow: Vec<_> = (0..200)
        .map(|n| stalled(node.api, if n % 2 == 0 { "/query?from=1h" } else { &sparse }))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let readers = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            // A kilobyte of each a second.
            let mut slow = slow;
            while !stop.load(Ordering::Acquire) {
                for stream in &mut slow {
                    stream.read_exact(&mut [0; 1_000]).unwrap();
                }
                std::thread::park_timeout(Duration::from_secs(1));
            }
        }
    });
    let ingest = std::thread::spawn({
        let (stop, port) = (Arc::clone(&stop), node.fast);
        move || {
            let text = "ingest that runs beside all of this\n".repeat(20_000);
            while !stop.load(Ordering::Acquire) {
                sender::send(port, text.as_bytes());
            }
        }
    });
    assert!(node.metric("oklog_queries_running") >= 200.0);
    let mut peak = 0;
    for probe in 0..30 {
        let line = format!("probe number {probe}\n");
        sender::send(node.durable, line.as_bytes());
        // Newest first: what was just acknowledged is found at once, however much lies before.
        let path = format!("/query?from=1m&order=desc&limit=1&q={}", http::encode(line.trim_end()));
        let answer = node.get(&path);
        assert_eq!(tests::lines::records(&answer.body).len(), 1, "probe {probe}");
        peak = peak.max(node.anonymous_bytes());
    }
    stop.store(true, Ordering::Release);
    ingest.join().unwrap();
    readers.join().unwrap();
    eprintln!("RssAnon at most {} MiB", peak >> 20);
    assert!(peak <= 300 << 20, "{} MiB", peak >> 20);
    drop(idle);
    wait_until("the queries of readers that left are over", || {
        node.metric("oklog_queries_running") == 0.0
    });
}
