//! A shortage of the process (descriptors, memory) is no damage: nothing is set aside because of it, and
//! when it is over everything is found.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

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
