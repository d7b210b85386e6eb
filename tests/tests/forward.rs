//! `oklogd forward`: every byte of standard input arrives, exit code 0 means that it did.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use rustix::process::Signal;
use tests::forwarder::{Answer, Forwarder, Names};
use tests::lines::split;
use tests::node::Node;
use tests::{tools, wait_until};

const LOCALHOST: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;

/// A port on which nobody listens.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn forward(flags: &[&str], address: SocketAddr, input: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let address = address.to_string();
    let arguments: Vec<&str> = flags.iter().copied().chain([address.as_str()]).collect();
    let mut forwarder = Forwarder::start(directory.path(), &arguments);
    forwarder.write(input);
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{flags:?}: {log}");
    log
}

/// What arrives at a plain listener, byte for byte.
fn received(flags: &[&str], input: &[u8]) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes
    });
    forward(flags, address, input);
    reader.join().unwrap()
}

#[test]
fn lines_are_sent_as_they_are() {
    let long = vec![b'%'; 3 << 20];
    let mut input = b"100%d %s %n\n\0nul\0\nCRLF\r\n\xff\xfe not UTF-8\n\n".to_vec();
    input.extend_from_slice(&long);
    input.extend_from_slice(b"\nthe last has no newline");
    assert!(received(&[], &input) == input);
    assert_eq!(received(&["--prefix", "a", "-prefix=b%"], b"1\n2"), b"a b% 1\na b% 2");
}

#[test]
fn every_mode_brings_every_record_to_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.max-record-size", "4MiB"]);
    let mut expected = Vec::new();
    let size = ["--ingest.max-record-size", "4MiB"];
    for (n, (mode, port)) in [("fast", node.fast), ("durable", node.durable)].iter().enumerate() {
        for on_full in ["block", "drop-oldest", "spool"] {
            let mut input = format!("{n}{on_full} 100%d\n\0\n\r\n\n").into_bytes();
            input.extend_from_slice(b"\xff\n");
            input.resize(input.len() + (3 << 20), b'z');
            input.extend_from_slice(format!("\n{n}{on_full} last").as_bytes());
            let flags = [&["--mode", *mode, "--on-full", on_full][..], &size].concat();
            forward(&flags, *port, &input);
            expected.extend(split(&input));
        }
    }
    assert_eq!(tests::lines::sorted(node.all_lines()), tests::lines::sorted(expected));
}

#[test]
fn a_topic_goes_with_the_lines_in_both_modes() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    forward(&["--topic", "shop"], node.fast, b"fast\n");
    forward(&["--topic", "shop", "--mode", "durable"], node.durable, b"durable\n");
    forward(&[], node.fast, b"other\n");
    let found: Vec<_> = node.query("topic=shop").into_iter().map(|(_, line)| line).collect();
    assert_eq!(found, [b"fast".to_vec(), b"durable".to_vec()]);
}

#[test]
fn lines_that_the_node_cuts_are_acknowledged_and_sent_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.max-record-size", "1000B"]);
    let lines: Vec<String> = [999, 1000, 1001, 2000, 2001, 5, 12_345].map(|n| "y".repeat(n)).into();
    let input = lines.join("\n") + "\n";
    let flags = ["--mode", "durable", "--ingest.max-record-size", "1000B"];
    let log = forward(&flags, node.durable, input.as_bytes());
    assert!(!log.contains("acknowledges"), "{log}");
    let kept = node.all_lines().concat();
    assert_eq!(kept.len(), lines.concat().len());
}

#[test]
fn node_and_forwarder_may_cut_lines_at_different_sizes() {
    let lines: Vec<Vec<u8>> = [999, 1000, 1001, 2000, 2001, 5, 0, 12_345, 3 << 20, 7, 1024, 1500]
        .into_iter()
        .map(|len| (0..len).map(|n: u64| b'a' + (n * n % 23) as u8).collect())
        .collect();
    for (its, mine) in [("1000B", "1MiB"), ("1MiB", "1000B"), ("1000B", "700B"), ("64B", "16MiB")] {
        for last in [&b"\n"[..], b""] {
            let directory = tempfile::tempdir().unwrap();
            let node = Node::start(directory.path(), &["--ingest.max-record-size", its]);
            let input = [&lines.join(&b'\n')[..], last].concat();
            let flags = ["--mode", "durable", "--ingest.max-record-size", mine];
            let log = forward(&flags, node.durable, &input);
            // One connection: nothing was sent twice.
            assert_eq!(log.lines().count(), 1, "{its} {mine}: {log}");
            assert!(node.all_lines().concat() == lines.concat(), "{its} {mine}");
        }
    }
}

#[test]
fn an_ingester_that_hangs_up_on_what_it_does_not_know_is_asked_for_less() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--mode", "durable", "--backoff-max", "20ms", &address];
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    forwarder.write(b"1\n");
    let plain = b"\0OKLOGD-ACK/1\n1\n";
    let mut stream = loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = vec![0; plain.len()];
        stream.read_exact(&mut got).unwrap();
        if got == plain {
            break stream;
        }
        assert!(got.starts_with(b"\0OKLOGD-ACK/1 "));
    };
    stream.write_all(&1u64.to_le_bytes()).unwrap();
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(log.lines().count(), 2, "one line per change, not per try: {log}");
}

#[test]
fn nothing_to_forward_is_done_at_once() {
    for mode in ["fast", "durable"] {
        let log = forward(&["--mode", mode], free_port(), b"");
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn what_cannot_be_handed_over_in_time_is_counted_and_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_port().to_string();
    let mut forwarder =
        Forwarder::start(directory.path(), &["--shutdown-timeout", "200ms", &address]);
    forwarder.write(b"one\ntwo\nthree");
    forwarder.wait_for_log("trying again");
    forwarder.signal(Signal::TERM);
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("records=3"), "{log}");
}

#[test]
fn a_signal_lets_what_was_read_be_handed_over() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for signal in [Signal::TERM, Signal::INT] {
        let address = node.durable.to_string();
        let mut forwarder = Forwarder::start(
            directory.path(),
            &["--mode", "durable", "--api", "127.0.0.1:0", &address],
        );
        forwarder.write(b"whole\nbegun");
        wait_until("it was read", || forwarder.metric("oklog_forward_input_bytes_total") == 11.0);
        forwarder.signal(signal);
        let (status, log) = forwarder.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    let twice = [b"whole".to_vec(), b"begun".to_vec(), b"whole".to_vec(), b"begun".to_vec()];
    assert_eq!(node.all_lines(), twice);
}

#[test]
fn metrics_and_health_tell_how_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let address = node.durable.to_string();
    let mut forwarder =
        Forwarder::start(directory.path(), &["--mode=durable", "--api", "127.0.0.1:0", &address]);
    forwarder.write(b"1\n22\n");
    wait_until("it is counted", || forwarder.metric("oklog_forward_records_total") == 2.0);
    assert_eq!(forwarder.metric("oklog_forward_bytes_total"), 5.0);
    assert_eq!(forwarder.metric("oklog_forward_connected"), 1.0);
    let health = tests::http::get(forwarder.api(), "/health");
    assert!(health.status == 200 && health.text().contains("\"ok\""), "{}", health.text());
    assert_eq!(tests::http::get(forwarder.api(), "/query").status, 404);
    drop(node);
    wait_until("it says so", || {
        let health = tests::http::get(forwarder.api(), "/health").text();
        health.contains("degraded") && health.contains("no connection")
    });
}

#[test]
fn it_runs_where_io_uring_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut command = Command::new(tools::binary("oklogd"));
    let address = node.durable.to_string();
    command.args(["forward", "--mode", "durable", "--on-full", "spool", &address]);
    command.current_dir(directory.path());
    tests::seccomp::without_io_uring(&mut command);
    let mut forwarder = Forwarder::from_command(command);
    forwarder.write(b"no ring\n");
    assert_eq!(forwarder.finish().0.code(), Some(0));
    assert_eq!(node.all_lines(), [b"no ring".to_vec()]);
}

#[test]
fn names_are_looked_up_and_the_port_of_an_srv_record_counts() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let names = Names::start();
    names.set("logs.test", Answer::Addresses(vec![LOCALHOST]));
    let host = |priority, port| (priority, 1, port, "logs.test".to_owned());
    let services = vec![host(20, free_port().port()), host(10, node.durable.port())];
    names.set("_oklog._tcp.test", Answer::Services(services));
    let server = names.address.to_string();
    for address in [
        format!("tcp+dns://logs.test:{}", node.durable.port()),
        "tcp+dnssrv://_oklog._tcp.test".into(),
    ] {
        let mut forwarder = Forwarder::start(
            directory.path(),
            &["--mode", "durable", "--dns-server", &server, &address],
        );
        forwarder.write(address.as_bytes());
        let (status, log) = forwarder.finish();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("WARN"), "the first by priority is the right one: {log}");
    }
    assert_eq!(node.all_lines().len(), 2);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for (arguments, part) in [
        (&["forward"][..], "ADDR"),
        (&["forward", "--mode", "bulk", "x"], "network part"),
        (&["forward", "udp://x"], "tcp+dnssrv://NAME"),
        (&["forward", "--on-full", "explode", "x"], "drop-oldest"),
        (&["forward", "--topic", "a b", "x"], "--topic"),
        (&["forward", "--prefix", "a\nb", "x"], "--prefix"),
    ] {
        let output = tools::oklogd(arguments);
        let said = tools::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

/// A node whose counts the test makes up: only what is not counted is sent again.
#[test]
fn only_what_was_not_acknowledged_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let mut forwarder = Forwarder::start(
        directory.path(),
        &["--mode", "durable", "--topic", "web", "--backoff-max", "20ms", &address],
    );
    forwarder.write(b"1\n2\n3\n4\n");
    let hello = b"\0OKLOGD-ACK/1 topic=web count=bytes\n";
    let accept = |expected: &[u8]| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = vec![0; hello.len() + expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, [&hello[..], expected].concat());
        stream
    };
    let mut first = accept(b"1\n2\n3\n4\n");
    first.write_all(&3u64.to_le_bytes()).unwrap();
    // Half a count is none.
    first.write_all(&4u64.to_le_bytes()[..4]).unwrap();
    drop(first);
    let mut second = accept(b"4\n");
    forwarder.write(b"5\n");
    // This one counts bytes, and says so first.
    let mut five = [0; 2];
    second.read_exact(&mut five).unwrap();
    second.write_all(&u64::MAX.to_le_bytes()).unwrap();
    second.write_all(&2u64.to_le_bytes()).unwrap();
    drop(second);
    let mut third = accept(b"5\n");
    third.write_all(&u64::MAX.to_le_bytes()).unwrap();
    third.write_all(&2u64.to_le_bytes()).unwrap();
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
}
