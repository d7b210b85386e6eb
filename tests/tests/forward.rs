//! `oklogd forward`: every byte of standard input arrives, exit code 0 means that it did.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use rustix::process::Signal;
use tests::fake_ingester::{FakeIngester, acknowledge};
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

/// What arrives at an ingester, byte for byte.
fn received(flags: &[&str], input: &[u8]) -> Vec<u8> {
    let ingester = FakeIngester::start();
    let address = ingester.address;
    let reader = std::thread::spawn(move || ingester.take_all().unwrap());
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
    assert_eq!(received(&["--prefix", ""], b"1\n2"), b"1\n2");
    assert_eq!(received(&["--prefix", "a", "--prefix", ""], b"1\n2"), b"a 1\na 2");
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
    // More than the buffer holds: the rest is in the pipe.
    let lines = 3_000;
    let text =
        format!("{}the last", "a line of forty bytes, its newline too..\n".repeat(lines - 1));
    for (size, timeout, signals) in
        [("16MiB", "200ms", 1), ("64KiB", "200ms", 1), ("64KiB", "1h", 2)]
    {
        let flags = ["--shutdown-timeout", timeout, "--buffer-size", size, &address];
        let mut forwarder = Forwarder::start(directory.path(), &flags);
        forwarder.write(text.as_bytes());
        forwarder.wait_for_log("trying again");
        for _ in 0..signals {
            forwarder.signal(Signal::TERM);
            forwarder.wait_for_log("stopping");
        }
        let (status, log) = forwarder.wait();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(&format!("records={lines}")), "{size} {timeout}: {log}");
    }
}

#[test]
fn after_a_signal_the_last_words_of_the_application_are_handed_over() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let address = node.durable.to_string();
    let mut expected = Vec::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        for on_full in ["block", "spool"] {
            let flags = ["--mode", "durable", "--on-full", on_full, &address];
            let mut forwarder = Forwarder::start(directory.path(), &flags);
            forwarder.write(b"at work\n");
            forwarder.wait_for_log("connected");
            forwarder.signal(signal);
            forwarder.wait_for_log("stopping");
            forwarder.write(b"last words\nunfin");
            let (status, log) = forwarder.finish();
            assert_eq!(status.code(), Some(0), "{signal:?}: {log}");
            expected.extend([b"at work".to_vec(), b"last words".to_vec(), b"unfin".to_vec()]);
        }
    }
    // What the spool kept is sent at its next start.
    let flags = ["--mode", "durable", "--on-full", "spool", &address];
    assert_eq!(Forwarder::start(directory.path(), &flags).finish().0.code(), Some(0));
    assert_eq!(tests::lines::sorted(node.all_lines()), tests::lines::sorted(expected));
}

#[test]
fn an_input_that_does_not_end_is_read_until_the_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for (mode, port) in [("fast", node.fast), ("durable", node.durable)] {
        let (timeout, address) = ("300ms", port.to_string());
        let flags = ["--mode", mode, "--shutdown-timeout", timeout, &address];
        let mut forwarder = Forwarder::start(directory.path(), &flags);
        forwarder.write(b"whole\nbegun");
        forwarder.wait_for_log("connected");
        forwarder.signal(Signal::TERM);
        let (status, log) = forwarder.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    let twice = [b"begun".to_vec(), b"begun".to_vec(), b"whole".to_vec(), b"whole".to_vec()];
    assert_eq!(tests::lines::sorted(node.all_lines()), twice);
}

#[test]
fn an_input_that_others_made_non_blocking_ends_nothing_and_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (input, mut output) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&input, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut command = Command::new(tools::binary("oklogd"));
    let address = node.durable.to_string();
    command.args(["forward", "--mode", "durable", "--api", "127.0.0.1:0", &address]);
    command.current_dir(directory.path()).env_clear();
    let forwarder = Forwarder::with_input(command, input.into());
    for number in 1..=3 {
        output.write_all(b"a line\n").unwrap();
        let count = f64::from(number);
        wait_until("it arrived", || forwarder.metric("oklog_forward_records_total") == count);
    }
    let (before, begun) = (forwarder.cpu_ticks(), std::time::Instant::now());
    wait_until("a second is over", || begun.elapsed().as_millis() > 1000);
    // Of a hundred in a second.
    assert!(forwarder.cpu_ticks() - before < 20, "it spins");
    drop(output);
    assert_eq!(forwarder.wait().0.code(), Some(0));
    assert_eq!(node.all_lines().len(), 3);
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
    for (address, what) in
        [("tcp+dns://nowhere.test:7652", "address"), ("tcp+dnssrv://nowhere.test", "SRV record")]
    {
        let forwarder = Forwarder::start(directory.path(), &["--dns-server", &server, address]);
        forwarder.wait_for_log(&format!("knows no {what} of this name"));
        assert_eq!(forwarder.log().matches("nowhere.test").count(), 1, "{}", forwarder.log());
    }
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

/// An ingester whose counts the test makes up: only what is not counted is sent again.
#[test]
fn only_what_was_not_acknowledged_is_sent_again() {
    let ingester = FakeIngester::start();
    let address = ingester.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    let mut forwarder = Forwarder::start(
        directory.path(),
        &["--mode", "durable", "--topic", "web", "--backoff-max", "20ms", &address],
    );
    forwarder.write(b"1\n2\n3\n4\n");
    let take = |expected: &[u8]| {
        let mut stream = ingester.take().unwrap();
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        stream
    };
    let mut first = take(b"1\n2\n3\n4\n");
    acknowledge(&mut first, 6).unwrap();
    // Half a count is none.
    first.write_all(&8u64.to_le_bytes()[..4]).unwrap();
    drop(first);
    let mut second = take(b"4\n");
    forwarder.write(b"5\n");
    second.read_exact(&mut [0; 2]).unwrap();
    acknowledge(&mut second, 2).unwrap();
    drop(second);
    // Nothing is sent before the hello is answered, and it says what is wanted.
    let (mut third, hello) = ingester.accept().unwrap();
    assert_eq!(hello, "\0OKLOGD-ACK/1 promise=durable topic=web count=bytes");
    third.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    assert!(third.read(&mut [0; 2]).is_err());
    third.write_all(&u64::MAX.to_le_bytes()).unwrap();
    third.read_exact(&mut [0; 2]).unwrap();
    acknowledge(&mut third, 2).unwrap();
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
}
