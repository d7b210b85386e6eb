//! A shortage of the process (descriptors, memory) is no damage: nothing is set aside because of it, and
//! when it is over everything is found.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::http::{Answer, read_answer};
use tests::node::Node;
use tests::{sender, tools, wait_until};

/// Sets the limit of open files of a running node; says what it was.
fn limit_descriptors(node: &Node, current: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(node.pid() as i32).unwrap();
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).unwrap().current
}

/// One connection, on which a node without descriptors can still be asked.
struct Asking(BufReader<TcpStream>);

impl Asking {
    fn get(&mut self, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        read_answer(&mut self.0, "GET").unwrap()
    }

    fn post(&mut self, path: &str, body: &str) -> Answer {
        let len = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n");
        self.0.get_mut().write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        read_answer(&mut self.0, "POST").unwrap()
    }
}

fn lines(round: usize) -> String {
    (0..5_000).map(|i| format!("round {round} line {i}\n")).collect()
}

fn set_aside(data: &std::path::Path) -> usize {
    let list = |side: &str| std::fs::read_dir(data.join(side)).unwrap();
    let names = list("ingest").chain(list("store")).map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".damaged")).count()
}

/// Everything that was sent is found, nothing was set aside, and `fsck` finds nothing wrong.
fn is_whole(node: Node, directory: &std::path::Path, expected: usize) {
    node.settle();
    let stats = node.get("/query?from=24h&stats").json();
    assert_eq!(
        (&stats["records"], &stats["complete"]),
        (&expected.into(), &true.into()),
        "{stats}"
    );
    let found = node.all_lines();
    assert_eq!(found.len(), expected);
    assert_eq!(found.iter().collect::<std::collections::HashSet<_>>().len(), expected);
    assert_eq!(node.metric("oklog_damage_total"), 0.0);
    assert_eq!(node.metric("oklog_store_unread_segments"), 0.0);
    assert!(node.stop().success());
    let data = directory.join("data");
    assert_eq!(set_aside(&data), 0);
    let fsck = tools::oklogd(&["fsck", data.to_str().unwrap()]);
    assert_eq!(fsck.status.code(), Some(0), "{}", tools::text(&fsck.stdout));
}

#[test]
fn a_while_without_descriptors_hides_nothing_once_it_is_over() {
    let directory = tempfile::tempdir().unwrap();
    // Seldom gathered: the while meets segments of both sides.
    let node = Node::start(directory.path(), &["--ingest.segment-flush-age", "200ms"]);
    node.until_all_turn();
    sender::send(node.durable, lines(0).as_bytes());
    node.settle();
    let mut connected = sender::Acknowledged::connect(node.durable).unwrap();
    connected.send(lines(1).as_bytes()).unwrap();
    connected.wait_for(5_000).unwrap();
    let mut asking = Asking(BufReader::new(TcpStream::connect(node.api).unwrap()));
    asking.get("/health");
    // No file can be opened; what is open stays so.
    let before = limit_descriptors(&node, Some(3));
    connected.send(lines(2).as_bytes()).unwrap();
    wait_until("something was refused", || {
        let stats = asking.get("/query?from=24h&stats").json();
        let is_whole = stats["records"].as_u64().unwrap() >= 10_000;
        assert!(is_whole || stats["complete"] == false, "{stats}");
        let missing = stats["missing"].to_string();
        assert!(!missing.contains("lost"), "{missing}");
        assert!(is_whole || missing.contains("a shortage of this process"), "{missing}");
        node.log().contains("os error 24") || node.log().contains("open files")
    });
    limit_descriptors(&node, before);
    connected.wait_for(10_000).unwrap();
    drop(connected);
    is_whole(node, directory.path(), 15_000);
}

/// What a sender was told, and when it is to end.
#[derive(Default)]
struct Sending {
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

impl Sending {
    /// Sends batches, each when the one before is acknowledged; says how many lines that were.
    fn run(&self, mut sender: sender::Acknowledged) -> usize {
        let mut round = 100;
        while !self.is_over.load(Ordering::Acquire) {
            sender.send(lines(round).as_bytes()).unwrap();
            sender.wait_for(sender.acknowledged + 5_000).unwrap();
            self.acknowledged.store(sender.acknowledged, Ordering::Release);
            round += 1;
            // About 5 MB/s.
            std::thread::sleep(Duration::from_millis(25));
        }
        sender.acknowledged as usize
    }
}

/// The least time that the shortage lasts.
const WHILE: Duration = Duration::from_secs(16);

#[test]
fn a_node_without_descriptors_says_so_to_everybody_and_goes_on_when_it_has_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.segment-flush-age", "200ms"]);
    node.until_all_turn();
    let mut asking = Asking(BufReader::new(TcpStream::connect(node.api).unwrap()));
    let sender = sender::Acknowledged::connect(node.durable).unwrap();
    let sending = Sending::default();
    let mut before = None;
    let sent = std::thread::scope(|scope| {
        let sent = scope.spawn(|| sending.run(sender));
        wait_until("lines come", || sending.acknowledged.load(Ordering::Acquire) > 20_000);
        before = limit_descriptors(&node, Some(20));
        let lowered = Instant::now();
        let is_told = |answer: &Answer| {
            let said = answer.text();
            let words = ["Too many open files", "ulimit -n"];
            answer.status == 503 && words.iter().all(|word| said.contains(word))
        };
        wait_until("/ready tells", || is_told(&asking.get("/ready")));
        assert!(lowered.elapsed() < Duration::from_secs(10), "{:?}", lowered.elapsed());
        while lowered.elapsed() < WHILE {
            let acknowledged = sending.acknowledged.load(Ordering::Acquire);
            let stats = asking.get("/query?from=24h&stats").json();
            let is_whole = stats["records"].as_u64().unwrap() >= acknowledged;
            assert!(is_whole || stats["complete"] == false, "of {acknowledged}: {stats}");
            let asked = Instant::now();
            let posted = asking.post("/records?mode=durable", "refused\n");
            assert!(is_told(&posted), "{} {}", posted.status, posted.text());
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            for path in ["/ready", "/health"] {
                let told = node.get(path);
                assert_eq!(told.status, if path == "/ready" { 503 } else { 200 });
                assert!(told.text().contains("Too many open files"), "{}", told.text());
                assert!(!told.text().contains("the disk"), "{}", told.text());
            }
        }
        limit_descriptors(&node, before);
        let lifted = Instant::now();
        wait_until("it is ready", || node.get("/ready").status == 200);
        let posted = tests::http::post(node.api, "/records?mode=durable", b"taken\n");
        assert_eq!(posted.status, 200, "{}", posted.text());
        let acknowledged = sending.acknowledged.load(Ordering::Acquire);
        wait_until("lines come", || sending.acknowledged.load(Ordering::Acquire) > acknowledged);
        assert!(lifted.elapsed() < Duration::from_secs(10), "{:?}", lifted.elapsed());
        sending.is_over.store(true, Ordering::Release);
        sent.join().unwrap()
    });
    let log = node.log();
    for words in ["the disk fails", "disk is failing", "mend the disk"] {
        assert!(!log.contains(words), "{log}");
    }
    let told = log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).count();
    assert!(told < 20, "told per change of state, not per try: {log}");
    is_whole(node, directory.path(), sent + 1);
    is_whole(Node::start(directory.path(), &[]), directory.path(), sent + 1);
}

#[test]
fn at_the_lowest_limit_of_open_files_everything_works() {
    let directory = tempfile::tempdir().unwrap();
    let at_limit = |limit: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
        command.arg(tools::binary("oklogd"));
        command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
        command.args(["--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"]);
        command.args(["--ingest.durable", "127.0.0.1:0", "--ingest.segment-flush-age", "20ms"]);
        command.current_dir(directory.path()).env_clear();
        Node::from_command(command)
    };
    let refused = at_limit("100").err().expect("too few");
    let needed = refused.split("a node needs ").nth(1).expect("it says how many");
    let needed: String = needed.chars().take_while(char::is_ascii_digit).collect();
    let node = at_limit(&needed).unwrap();
    for round in 0..20 {
        sender::send(node.durable, lines(round).as_bytes());
        assert_eq!(node.all_lines().len(), 5_000 * (round + 1));
    }
    assert!(!node.log().contains("os error 24"), "{}", node.log());
    is_whole(node, directory.path(), 100_000);
}

/// Whether it starts or not: nothing is called damaged because there was no memory to read it.
#[test]
fn a_start_without_memory_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let line = "x".repeat(4_000);
    let text: String = (0..10_000).map(|i| format!("line {i} {line}\n")).collect();
    sender::send(node.durable, text.as_bytes());
    node.settle();
    sender::send(node.durable, lines(0).as_bytes());
    node.kill();
    // KiB of addresses: from too few for anything to too few for maps of what there is.
    for kib in [60_000, 200_000, 400_000, 700_000] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {kib}; exec timeout -s KILL 2 \"$0\" \"$@\"")]);
        command.arg(tools::binary("oklogd"));
        command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
        command.args(["--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"]);
        command.args(["--ingest.durable", "127.0.0.1:0"]);
        let output = command.current_dir(directory.path()).env_clear().output().unwrap();
        let said = tools::text(&output.stderr);
        assert!(!said.contains("are lost"), "with {kib} KiB: {said}");
        assert_eq!(set_aside(&directory.path().join("data")), 0, "with {kib} KiB: {said}");
    }
    is_whole(Node::start(directory.path(), &[]), directory.path(), 15_000);
}
