//! The bad day: slow readers, idle senders, followers and ingest, all at once. Memory stays within
//! its budget, and a record that is sent meanwhile is accepted and found.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tests::follower::Follower;
use tests::node::Node;
use tests::{http, sender, tools, wait_until};

const BUDGET_BYTES: u64 = 300 << 20;
const SLOW_READERS: usize = 200;
const IDLE_SENDERS: usize = 3_000;
const FOLLOWERS: usize = 1_000;
/// How long probes go on: long enough that a reader takes what its socket buffers held.
const PROBES: &str = "200";

/// Lines of about a hundred bytes that no index helps with.
fn fill(port: SocketAddr, megabytes: usize) {
    let line = |number| {
        format!(
            "{number:08} a line of text that is about a hundred bytes long, as lines of logs tend \
             to be, give or take\n"
        )
    };
    let text: String = (0..megabytes * 10_000).map(line).collect();
    sender::send(port, text.as_bytes());
}

/// A query for everything, of whose answer nothing but the first bytes is read. A small window
/// keeps what the kernel takes in its reader's place small.
fn match_all(api: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&api.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    stream.write_all(b"GET /query?from=1h HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    stream
}

/// A thread that does something again and again until it is stopped.
struct Beside {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Beside {
    fn start(mut turn: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                turn();
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().unwrap();
    }
}

/// Until the next turn of a thread that does something every so often.
fn pause(from: Instant, every: Duration) {
    std::thread::park_timeout(every.saturating_sub(from.elapsed()));
}

/// The most anonymous memory that was seen.
fn watch_memory(pid: u32) -> (Beside, Arc<AtomicU64>) {
    let peak = Arc::new(AtomicU64::new(0));
    let most = Arc::clone(&peak);
    let watch = Beside::start(move || {
        let start = Instant::now();
        most.fetch_max(tests::node::anonymous_bytes(pid), Ordering::AcqRel);
        pause(start, Duration::from_millis(20));
    });
    (watch, peak)
}

/// `loadgen probe`; its report.
fn probe(node: &Node, way: &[&str]) -> serde_json::Value {
    let output = Command::new(tools::binary("loadgen"))
        .args(["probe", "--json", "--records", PROBES, "--interval", "20ms", "--patience", "60s"])
        .args(["--api", &node.api.to_string()])
        .args(way)
        .output()
        .unwrap();
    let said = tools::text(&output.stdout);
    assert!(output.status.success(), "{way:?}: {said}{}", tools::text(&output.stderr));
    serde_json::from_str(&said).unwrap()
}

fn tell(way: &str, report: &serde_json::Value) {
    let figure = |name: &str| report[name].as_u64().unwrap() as f64 / 1000.0;
    eprintln!(
        "{way}: accepted p50 {} ms, p99 {} ms, max {} ms; found p50 {} ms, p99 {} ms, max {} ms",
        figure("accept_p50_us"),
        figure("accept_p99_us"),
        figure("accept_max_us"),
        figure("find_p50_us"),
        figure("find_p99_us"),
        figure("find_max_us"),
    );
}

#[test]
fn on_a_bad_day_memory_stays_in_its_budget_and_every_probe_is_accepted_and_found() {
    if !tests::raise_descriptors(12_000) {
        return tests::skipped("on_a_bad_day…", "the limit of open files is below 12,000");
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    fill(node.durable, 60);
    let (memory, peak) = watch_memory(node.pid());

    let idle: Vec<_> = (0..IDLE_SENDERS).map(|_| TcpStream::connect(node.fast).unwrap()).collect();
    let followers: Vec<_> =
        (0..FOLLOWERS).map(|n| Follower::open(node.api, &format!("q=%3Cid-{n}%3E"), "")).collect();
    let mut slow: Vec<_> = (0..SLOW_READERS).map(|_| match_all(node.api)).collect();
    let readers = Beside::start(move || {
        let start = Instant::now();
        for stream in &mut slow {
            stream.read_exact(&mut [0; 1_000]).unwrap();
        }
        pause(start, Duration::from_secs(1));
    });
    // Lines that each concern one follower, 10 MB/s of them.
    let port = node.fast;
    let mut sent = 0;
    let ingest = Beside::start(move || {
        let start = Instant::now();
        let line = |n| format!("ingest beside it all, for <id-{}>, number {n}\n", n % 2_000);
        let text: String = (sent..sent + 20_000).map(line).collect();
        sender::send(port, text.as_bytes());
        sent += 20_000;
        pause(start, Duration::from_millis(100));
    });
    wait_until("all are there", || {
        node.metric("oklog_connected_clients{modality=\"fast\"}") >= IDLE_SENDERS as f64
            && node.metric("oklog_followers") == FOLLOWERS as f64
    });

    let (durable, fast) = (node.durable.to_string(), node.fast.to_string());
    tell("durable port", &probe(&node, &["--mode", "durable", "--to", &durable]));
    tell("fast port", &probe(&node, &["--mode", "fast", "--to", &fast]));
    tell("POST /records", &probe(&node, &["--post"]));
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    assert!(node.metric("oklog_queries_running") >= SLOW_READERS as f64, "they are all open");
    assert_eq!(node.metric("oklog_followers"), FOLLOWERS as f64);

    ingest.stop();
    readers.stop();
    memory.stop();
    let peak = peak.load(Ordering::Acquire);
    eprintln!("RssAnon at most {} MiB", peak >> 20);
    assert!(peak <= BUDGET_BYTES, "{} MiB", peak >> 20);
    drop((idle, followers));
    wait_until("all have left", || node.metric("oklog_connected_clients") == 1.0);
    assert_eq!(node.metric("oklog_queries_running"), 0.0);
}

#[test]
fn followers_and_slow_queries_leave_room_for_short_requests() {
    let directory = tempfile::tempdir().unwrap();
    // 28 connections for one address, of which 21 may last.
    let node = Node::start(directory.path(), &["--http.connections-max", "32"]);
    fill(node.durable, 5);
    let slow: Vec<_> = (0..5).map(|_| match_all(node.api)).collect();
    let followers: Vec<_> = (0..16).map(|_| Follower::open(node.api, "", "")).collect();
    for path in ["/stream", "/query?from=1h", "/topics"] {
        let answer = node.get(path);
        assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (429, "1"), "{path}");
        assert!(answer.text().contains("--http.connections-per-address-max"), "{}", answer.text());
    }
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    let posted = http::post(node.api, "/records", b"room for one\n");
    assert_eq!(posted.status, 200, "{}", posted.text());
    drop((slow, followers));
    wait_until("queries are answered again", || {
        node.get("/query?from=1h&q=room+for+one").status == 200
    });

    let idle: Vec<_> = (0..30).map(|_| TcpStream::connect(node.api).unwrap()).collect();
    wait_until("it is told which limit was reached", || {
        node.log().contains("--http.connections-per-address-max")
    });
    drop(idle);
}
