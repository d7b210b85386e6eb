//! Telling never stops, slows or ends the work: whatever standard error is connected to, and however
//! much strangers give reason to tell.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::node::Node;
use tests::outlet::{Outlet, own_address};
use tests::{http, sender, tools, wait_until};

/// What api.md promises for the end of a node whose log is blocked.
const END_MAX: Duration = Duration::from_secs(20);
/// What a stranger may have written to the log with 3,000 tries, bytes.
const FLOOD_BYTES_MAX: usize = 100_000;

/// Says a hello that is refused, and waits until the node hangs up.
fn bad_hello(port: SocketAddr) {
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    // It may have hung up before everything was read.
    let _ = stream.write_all(b"\0OKLOGD-ACK/1 topic=!\n");
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_node_whose_log_goes_nowhere_works_and_ends_as_any_other() {
    for outlet in Outlet::ALL {
        let directory = tempfile::tempdir().unwrap();
        let (stderr, _reader) = outlet.open();
        let node = Node::start_unheard(directory.path(), stderr, &[]);
        for _ in 0..20 {
            bad_hello(node.fast);
        }
        sender::send(node.durable, b"kept by the durable port\n");
        assert_eq!(http::post(node.api, "/records", b"kept by HTTP\n").status, 200, "{outlet:?}");
        assert_eq!(node.all_lines().len(), 2, "{outlet:?}");
        // What cannot be written waits in memory while somebody may still read it.
        if outlet != Outlet::FullPipe {
            wait_until("what nobody took is counted", || {
                node.metric("oklog_log_lines_left_out_total") > 20.0
            });
        }
        let asked = Instant::now();
        assert!(node.stop().success(), "{outlet:?}");
        assert!(asked.elapsed() < END_MAX, "{outlet:?}: {:?}", asked.elapsed());

        let (stderr, _reader) = outlet.open();
        let again = Node::start_unheard(directory.path(), stderr, &[]);
        assert_eq!(again.all_lines().len(), 2, "{outlet:?}, after a restart");
    }
}

fn forwarder(stderr: Stdio, arguments: &[&str]) -> Child {
    Command::new(tools::binary("oklogd"))
        .arg("forward")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

#[test]
fn a_forwarder_whose_log_goes_nowhere_hands_over_everything() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let nobody = own_address(7651).to_string();
    for (number, outlet) in (1..).zip(Outlet::ALL) {
        let (stderr, _reader) = outlet.open();
        let address = node.durable.to_string();
        // The first address gives it something to tell.
        let mut child = forwarder(stderr, &["--mode", "durable", &nobody, &address]);
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "through {outlet:?}").unwrap();
        wait_until("the line is there", || node.all_lines().len() == number);
        let asked = Instant::now();
        if outlet != Outlet::FullPipe {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success(), "{outlet:?}");
        assert!(asked.elapsed() < END_MAX, "{outlet:?}: {:?}", asked.elapsed());
    }
}

#[test]
fn commands_that_print_end_with_their_exit_code_whoever_reads() {
    let nobody = own_address(7650).to_string();
    for outlet in Outlet::ALL {
        for (arguments, code) in [
            (&["query", "--store", &nobody][..], 1),
            (&["stream", "--store", &nobody], 1),
            (&["drain", "--store", &nobody], 1),
            (&["fsck", "/nowhere"], 1),
            (&["nonsense"], 2),
        ] {
            let (stderr, _reader) = outlet.open();
            let status = Command::new(tools::binary("oklogd"))
                .args(arguments)
                .env_clear()
                .stdout(Stdio::null())
                .stderr(stderr)
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(code), "{outlet:?} {arguments:?}: {status:?}");
        }
    }
    let (closed, _) = Outlet::ClosedPipe.open();
    let version = Command::new(tools::binary("oklogd")).arg("version").stdout(closed).status();
    assert_eq!(version.unwrap().signal(), None, "a closed standard output");
}

#[test]
fn a_stranger_cannot_fill_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for _ in 0..1_500 {
        bad_hello(node.fast);
        bad_hello(node.durable);
    }
    let refused = |log: &str| log.lines().filter(|line| line.contains("hung up on")).count();
    let counted = node.metric("oklog_log_lines_more_like_it_total") as usize;
    assert!(counted > 2_000, "{counted} are only counted");
    node.signal(rustix::process::Signal::TERM);
    wait_until("how many were left out is told at the end", || {
        node.log().contains("more like it in the last")
    });
    let log = node.log();
    assert!(log.len() <= FLOOD_BYTES_MAX, "{} bytes", log.len());
    let told: usize = log
        .lines()
        .filter_map(|line| line.split_once(" more like it")?.0.rsplit(' ').next()?.parse().ok())
        .map(|more: usize| more)
        .sum();
    let counts = log.lines().filter(|line| line.contains(" more like it")).count();
    assert!(refused(&log) - counts + told >= 3_000, "each is said or counted: {log}");
}

/// A running node has no descriptor left: who connects waits, at no cost, until there is one.
#[test]
fn accepting_pauses_while_there_is_no_descriptor_and_goes_on_by_itself() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--cores", "2"]);
    let pid = Pid::from_raw(node.pid() as i32);
    let limit = |descriptors| {
        let limit = Rlimit { current: Some(descriptors), maximum: Some(4096) };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    node.until_all_turn();
    limit(3);
    let start = Instant::now();
    let mut waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(node.api).unwrap()).collect();
    wait_until("it is told", || node.log().contains("cannot accept HTTP connections"));
    let spent = || cpu_ticks(node.pid());
    let before = spent();
    // Long enough for thousands of tries without pauses.
    wait_until("some time has passed", || start.elapsed() > Duration::from_secs(2));
    assert!(spent() - before < 100, "half of the time is spent on it");
    limit(4096);
    for stream in &mut waiting {
        stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    let told = |words: &str| node.log().lines().filter(|line| line.contains(words)).count();
    assert_eq!(told("cannot accept HTTP connections"), 1, "{}", node.log());
    assert!(told("cannot accept connections") <= 2, "once per shard: {}", node.log());
}

/// What a process has used of processors, in hundredths of a second (proc_pid_stat(5)).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    behind_name[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
