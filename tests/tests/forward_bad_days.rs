//! `oklogd forward` when things go wrong around it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tests::forwarder::{Answer, Forwarder, Names};
use tests::node::Node;
use tests::wait_until;

fn counts(lines: Vec<Vec<u8>>) -> HashMap<Vec<u8>, u32> {
    let mut counts = HashMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

/// A node on ports that stay the same over its lives.
fn node_on(directory: &Path, ports: &[String; 2]) -> Node {
    Node::start(directory, &["--ingest.fast", &ports[0], "--ingest.durable", &ports[1]])
}

fn two_ports() -> [String; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().to_string())
}

fn spool_files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("data/spool")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

#[test]
fn twenty_kills_of_the_ingester_lose_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let mut node = node_on(directory.path(), &ports);
    let flags = ["--mode", "durable", "--backoff-max", "100ms", "--api", "127.0.0.1:0", &ports[1]];
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    let mut input = forwarder.take_input();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        let mut number = 0u64;
        while stopped.try_recv().is_err() {
            let lines: String = (0..50).map(|i| format!("line {}\n", number + i)).collect();
            input.write_all(lines.as_bytes()).unwrap();
            number += 50;
            std::thread::park_timeout(Duration::from_millis(1));
        }
        (number, input)
    });
    for _ in 0..20 {
        let before = forwarder.metric("oklog_forward_records_total");
        wait_until("some lines were acknowledged", || {
            forwarder.metric("oklog_forward_records_total") > before + 200.0
        });
        node.kill();
        node = node_on(directory.path(), &ports);
    }
    stop.send(()).unwrap();
    // Its input stays open until the metric is read: it would end.
    let (written, input) = writer.join().unwrap();
    let resent = forwarder.metric("oklog_forward_resent_bytes_total");
    drop(input);
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    let counts = counts(node.all_lines());
    for number in 0..written {
        assert!(counts.contains_key(format!("line {number}").as_bytes()), "{number} is missing");
    }
    assert_eq!(counts.len() as u64, written, "nothing is invented");
    let surplus: usize = counts.iter().map(|(line, n)| (line.len() + 1) * (*n as usize - 1)).sum();
    assert!(surplus as f64 <= resent, "{surplus} bytes twice, {resent} sent again");
}

#[test]
fn a_killed_forwarder_sends_what_its_full_spool_holds() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let flags = ["--mode", "durable", "--on-full", "spool", "--spool.max-size", "1MiB"];
    let flags =
        [&flags[..], &["--backoff-max", "100ms", "--api", "127.0.0.1:0", &ports[1]]].concat();
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    let mut input = forwarder.take_input();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        for number in 0u64.. {
            if input.write_all(format!("line {number:06} {}\n", "x".repeat(80)).as_bytes()).is_err()
            {
                break;
            }
        }
    });
    forwarder.wait_for_log("the spool is full");
    assert_eq!(forwarder.metric("oklog_forward_input_blocked"), 1.0);
    assert!(forwarder.metric("oklog_forward_spool_bytes") <= f64::from(1 << 20));
    assert_eq!(forwarder.count("the spool is full"), 1);
    let spooled = forwarder.metric("oklog_forward_spool_records") as u64;
    forwarder.kill();
    writer.join().unwrap();
    let node = node_on(directory.path(), &ports);
    let (status, log) = Forwarder::start(directory.path(), &flags).finish();
    assert_eq!(status.code(), Some(0), "{log}");
    let lines = node.all_lines();
    assert_eq!(lines.len() as u64, spooled);
    for (number, line) in lines.iter().enumerate() {
        assert!(line.starts_with(format!("line {number:06} ").as_bytes()), "in order");
    }
    assert!(spool_files(directory.path(), "spool").is_empty());
}

#[test]
fn damage_in_the_spool_is_told_and_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let flags = ["--mode", "durable", "--on-full", "spool", "--shutdown-timeout", "200ms"];
    let flags = [&flags[..], &["--api", "127.0.0.1:0", &ports[1]]].concat();
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    for number in 0..40u32 {
        // Each in an entry of its own.
        forwarder.write(format!("line {number} {}\n", "x".repeat(500)).as_bytes());
        wait_until("it is in the spool", || {
            forwarder.metric("oklog_forward_spool_records") == f64::from(number + 1)
        });
    }
    forwarder.signal(Signal::TERM);
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "what is left is safe in the spool: {log}");
    assert!(log.contains("records=40"), "{log}");
    let file = &spool_files(directory.path(), "spool")[0];
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
    let node = node_on(directory.path(), &ports);
    let (status, log) = Forwarder::start(directory.path(), &flags).finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the spool is damaged") && log.contains("1 records are lost"), "{log}");
    assert_eq!(node.all_lines().len(), 39);
    assert_eq!(spool_files(directory.path(), "damaged").len(), 1);
}

#[test]
fn two_forwarders_do_not_share_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--on-full", "spool", "--api", "127.0.0.1:0", "127.0.0.1:1"];
    let first = Forwarder::start(directory.path(), &flags);
    first.wait_for_log("trying again");
    let (status, log) = Forwarder::start(directory.path(), &flags).wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains(&format!("pid {}", first.pid())), "{log}");
}

#[test]
fn lines_that_end_without_newline_are_not_glued_to_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let flags = ["--mode", "durable", "--on-full", "spool", "--shutdown-timeout", "100ms"];
    let flags = [&flags[..], &["--api", "127.0.0.1:0", &ports[1]]].concat();
    for text in ["first", "second"] {
        let mut forwarder = Forwarder::start(directory.path(), &flags);
        forwarder.write(text.as_bytes());
        wait_until("it was read", || forwarder.metric("oklog_forward_input_bytes_total") > 0.0);
        forwarder.signal(Signal::TERM);
        let (status, log) = forwarder.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    let node = node_on(directory.path(), &ports);
    assert_eq!(Forwarder::start(directory.path(), &flags).finish().0.code(), Some(0));
    assert_eq!(node.all_lines(), [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn every_dropped_line_is_counted_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let flags = ["--mode", "durable", "--on-full", "drop-oldest", "--buffer-size", "64KiB"];
    let flags =
        [&flags[..], &["--backoff-max", "100ms", "--api", "127.0.0.1:0", &ports[1]]].concat();
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    forwarder.wait_for_log("trying again");
    let total = 20_000u32;
    for number in 0..total {
        forwarder.write(format!("line {number:06} {}\n", "x".repeat(30)).as_bytes());
    }
    wait_until("it was read", || {
        forwarder.metric("oklog_forward_input_bytes_total") == f64::from(total) * 43.0
    });
    let dropped = forwarder.metric("oklog_forward_dropped_records_total") as usize;
    let node = node_on(directory.path(), &ports);
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    let lines = node.all_lines();
    assert!(dropped > 0 && lines.len() + dropped == total as usize, "{dropped} {}", lines.len());
    // The newest are there, in order.
    for (line, number) in lines.iter().zip(dropped..) {
        assert!(line.starts_with(format!("line {number:06} ").as_bytes()));
    }
    let last = log.lines().rfind(|l| l.contains("dropped the oldest")).unwrap();
    assert!(last.contains(&format!("total={dropped}")), "{last}: {dropped}");
    assert!(log.matches("dropped the oldest").count() <= 3, "{log}");
}

#[test]
fn a_name_that_is_gone_and_comes_back_elsewhere_is_followed_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (node, next) = (Node::start(directory.path(), &[]), Node::start(other.path(), &[]));
    let names = Names::start();
    let service =
        |node: &Node| Answer::Services(vec![(1, 1, node.durable.port(), "a.test".into())]);
    names.set("a.test", Answer::Addresses(vec![Ipv4Addr::LOCALHOST]));
    names.set("_oklog._tcp.test", service(&node));
    let server = names.address.to_string();
    let flags = ["--mode", "durable", "--dns-server", &server, "--backoff-max", "50ms"];
    let flags = [&flags[..], &["--api", "127.0.0.1:0", "tcp+dnssrv://_oklog._tcp.test"]].concat();
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    forwarder.write(b"before\n");
    wait_until("it arrived", || forwarder.metric("oklog_forward_records_total") == 1.0);
    // The name is gone, then its ingester.
    names.set("_oklog._tcp.test", Answer::Services(Vec::new()));
    assert_eq!(node.all_lines(), [b"before".to_vec()]);
    node.kill();
    forwarder.write(b"meanwhile\n");
    let asked = names.asked();
    wait_until("it asks again and again", || names.asked() > asked + 10);
    assert!(forwarder.metric("oklog_forward_connect_failures_total") > 3.0);
    names.set("_oklog._tcp.test", service(&next));
    wait_until("it arrived", || forwarder.metric("oklog_forward_records_total") == 2.0);
    forwarder.write(b"after\n");
    let log = forwarder.log();
    let (lost, connected) = (forwarder.count("is lost"), forwarder.count(" connected"));
    assert_eq!((lost, connected, log.lines().count()), (1, 2, 4), "one line per change: {log}");
    assert_eq!(forwarder.finish().0.code(), Some(0));
    assert_eq!(next.all_lines(), [b"meanwhile".to_vec(), b"after".to_vec()]);
}

#[test]
fn a_name_service_that_is_silent_and_an_address_that_refuses_are_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let names = Names::start();
    names.set("a.test", Answer::Silence);
    let server = names.address.to_string();
    let flags = ["--mode", "durable", "--dns-server", &server, "--backoff-max", "50ms", &ports[1]];
    let flags = [&flags[..], &["tcp+dns://a.test"]].concat();
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    forwarder.write(b"patience\n");
    forwarder.wait_for_log("no ingester can be reached");
    let node = node_on(directory.path(), &ports);
    let (status, log) = forwarder.finish();
    assert_eq!((status.code(), log.lines().count()), (Some(0), 2), "{log}");
    assert_eq!(node.all_lines(), [b"patience".to_vec()]);
}

#[test]
fn after_a_lost_connection_the_next_address_is_used() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut nodes: Vec<Node> = directories.iter().map(|d| Node::start(d.path(), &[])).collect();
    let addresses: Vec<String> = nodes.iter().map(|n| n.durable.to_string()).collect();
    let flags = ["--mode", "durable", "--backoff-max", "50ms", "--api", "127.0.0.1:0"];
    let flags = [&flags[..], &[&addresses[0], &addresses[1]]].concat();
    let mut forwarder = Forwarder::start(directories[0].path(), &flags);
    forwarder.write(b"one\n");
    wait_until("it arrived", || forwarder.metric("oklog_forward_records_total") == 1.0);
    let used = nodes.iter().position(|n| !n.all_lines().is_empty()).unwrap();
    nodes.remove(used).kill();
    forwarder.write(b"two\n");
    wait_until("it arrived", || forwarder.metric("oklog_forward_records_total") == 2.0);
    assert_eq!(nodes[0].all_lines(), [b"two".to_vec()]);
    assert_eq!(forwarder.finish().0.code(), Some(0));
}

#[test]
fn a_full_buffer_makes_standard_input_wait_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ports = two_ports();
    let flags =
        ["--buffer-size", "128KiB", "--backoff-max", "50ms", "--api", "127.0.0.1:0", &ports[0]];
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    let mut input = forwarder.take_input();
    let lines: Vec<Vec<u8>> = (0..20_000).map(|n| format!("line {n:06}").into_bytes()).collect();
    let text = lines.join(&b'\n');
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, &text).unwrap());
    wait_until("it waits", || forwarder.metric("oklog_forward_input_blocked") == 1.0);
    assert!(!writer.is_finished());
    assert!(forwarder.metric("oklog_forward_buffer_bytes") <= f64::from(128 << 10));
    let node = node_on(directory.path(), &ports);
    writer.join().unwrap();
    assert_eq!(forwarder.finish().0.code(), Some(0));
    wait_until("all is there", || node.all_lines().len() == lines.len());
    assert_eq!(node.all_lines(), lines);
}
