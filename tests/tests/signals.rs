//! Signals and limits that would end a process without a word.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tests::fake_ingester::{FakeIngester, acknowledge};
use tests::forwarder::Forwarder;
use tests::node::Node;
use tests::{http, sender, skipped, tools, wait_until};

/// `oklogd` with these arguments that may write files of so many bytes at most.
fn with_file_limit(bytes: u64, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    // In units of 512 bytes (POSIX).
    let script = format!("ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
    command.args(["-c", &script]).arg(tools::binary("oklogd")).args(arguments);
    command
}

const NODE: [&str; 9] = [
    "ingeststore",
    "--store.segment-replication-factor",
    "1",
    "--api",
    "127.0.0.1:0",
    "--ingest.fast",
    "127.0.0.1:0",
    "--ingest.durable",
    "127.0.0.1:0",
];

#[test]
fn signals_that_mean_nothing_to_a_node_do_it_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for signal in
        [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE, Signal::XFSZ, Signal::ALARM]
    {
        node.signal(signal);
    }
    sender::send(node.durable, b"still there\n");
    assert_eq!(node.all_lines(), [b"still there".to_vec()]);
    assert!(node.stop().success());
}

#[test]
fn a_hangup_ends_a_forwarder_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let address = node.durable.to_string();
    let mut forwarder = Forwarder::start(directory.path(), &["--mode", "durable", &address]);
    let lines: String = (0..1_000).map(|n| format!("last words {n}\n")).collect();
    forwarder.write(lines.as_bytes());
    wait_until("all are there", || node.all_lines().len() == 1_000);
    for signal in [Signal::USR1, Signal::USR2, Signal::XFSZ, Signal::ALARM, Signal::HUP] {
        forwarder.signal(signal);
    }
    forwarder.wait_for_log("SIGHUP");
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn who_asks_a_forwarder_to_end_is_told_what_is_still_to_be_done() {
    let directory = tempfile::tempdir().unwrap();
    let ingester = FakeIngester::start();
    let address = ingester.address.to_string();
    for has_ended in [false, true] {
        let mut forwarder = Forwarder::start(directory.path(), &["--mode", "durable", &address]);
        forwarder.write(b"line\n");
        let mut stream = ingester.take().unwrap();
        if has_ended {
            forwarder.end();
            // It says that nothing more will come.
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 5);
        }
        forwarder.signal(Signal::TERM);
        let words = ["reading on until standard input ends", "standard input has ended"];
        forwarder.wait_for_log(words[usize::from(has_ended)]);
        acknowledge(&mut stream, 5).unwrap();
        let (status, log) = forwarder.finish();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains(words[usize::from(!has_ended)]), "{log}");
    }
}

#[test]
fn a_hangup_is_nothing_to_a_forwarder_that_was_started_with_nohup() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(tools::binary("oklogd"));
    command.args(["forward", "--mode", "durable", &node.durable.to_string()]).env_clear();
    let mut forwarder = Forwarder::from_command(command);
    forwarder.write(b"before\n");
    wait_until("it has begun", || node.all_lines().len() == 1);
    forwarder.signal(Signal::HUP);
    forwarder.write(b"after\n");
    wait_until("it goes on", || node.all_lines().len() == 2);
    let (status, log) = forwarder.finish();
    assert!(status.success() && !log.contains("SIGHUP"), "{log}");
}

/// `oklogd` with these arguments, of a parent that has blocked what ends it.
fn with_signals_blocked(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    // What the parent of the tests ignores is ignored by nobody here.
    command.arg("--default-signal=TERM,INT,HUP").arg("--block-signal=TERM,INT,HUP,XFSZ,BUS");
    command.arg(tools::binary("oklogd"));
    command.args(arguments).env_clear();
    command
}

/// Waits for the end of a process, a little while.
fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[test]
fn signals_that_a_parent_has_blocked_end_a_process_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = with_signals_blocked(&NODE);
    command.current_dir(directory.path());
    let node = Node::from_command(command).unwrap();
    let address = node.durable.to_string();
    let forward = ["forward", "--mode", "durable", &address];
    let mut forwarder = Forwarder::from_command(with_signals_blocked(&forward));
    forwarder.write(b"a line\n");
    wait_until("it is there", || node.all_lines().len() == 1);
    forwarder.signal(Signal::HUP);
    forwarder.wait_for_log("SIGHUP");
    assert_eq!(forwarder.finish().0.code(), Some(0));
    assert!(node.stop().success());

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = silent.local_addr().unwrap().to_string();
    for (command, signal) in [("query", Signal::TERM), ("stream", Signal::INT)] {
        let mut child = with_signals_blocked(&[command, "--store", &api]).spawn().unwrap();
        let _asked = silent.accept().unwrap();
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(ended(&mut child).signal(), Some(signal.as_raw()), "{command}");
    }
}

/// It came before the process could hear it.
#[test]
fn a_signal_during_the_start_ends_a_node_in_good_order() {
    for signal in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("env");
        command.args(["--default-signal=TERM,INT", "--block-signal=TERM,INT", "sh", "-c"]);
        command.arg(format!("kill -{signal} $$; exec \"$0\" \"$@\""));
        command.arg(tools::binary("oklogd")).args(NODE).env_clear().env("PATH", "/usr/bin:/bin");
        command.current_dir(directory.path()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(ended(&mut child).code(), Some(0));
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        // Broken off, or so early that it had begun to take records.
        assert!(log.contains(&format!("signal=\"SIG{signal}\"")), "{log}");
        // Nothing stands in the way of the next one.
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(NODE).current_dir(directory.path()).env_clear();
        assert!(Node::from_command(command).unwrap().stop().success());
    }
}

#[test]
fn the_first_process_of_a_container_ends_as_others_do() {
    let name = "the_first_process_of_a_container_ends_as_others_do";
    if !tools::is_root() {
        return skipped(name, "needs root to make a PID namespace");
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = silent.local_addr().unwrap().to_string();
    let commands: [(&[&str], _); 3] = [
        (&["query", "--store", &api], Signal::TERM),
        (&["stream", "--store", &api], Signal::INT),
        (&["testsvc"], Signal::TERM),
    ];
    for (arguments, signal) in commands {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(tools::binary("oklogd"));
        command.args(arguments).env_clear().stdout(Stdio::piped());
        let mut outer = command.spawn().unwrap();
        // It has begun.
        let mut out = outer.stdout.take().unwrap();
        let asked = arguments.contains(&"--store").then(|| silent.accept().unwrap());
        if asked.is_none() {
            out.read_exact(&mut [0; 10]).unwrap();
        }
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let inner = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(inner).unwrap(), signal).unwrap();
        assert_eq!(ended(&mut outer).code(), Some(128 + signal.as_raw()), "{arguments:?}");
    }
}

#[test]
fn a_limit_of_file_sizes_refuses_records_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let lines: String = (0..1_000).map(|n| format!("before {n}\n")).collect();
    sender::send(node.durable, lines.as_bytes());
    assert!(node.stop().success());

    // No segment fits, and nothing that is there is lost.
    let mut command = with_file_limit(1 << 20, &NODE);
    command.current_dir(directory.path()).env_clear();
    let node = Node::from_command_any(command).unwrap();
    assert_eq!(node.all_lines().len(), 1_000);
    wait_until("it is told", || node.log().contains("File too large"));
    let posted = http::post(node.api, "/records", b"one more\n");
    assert!((400..600).contains(&posted.status), "{} {}", posted.status, posted.text());
    assert!(!posted.text().is_empty());
    assert_eq!(node.get("/health").status, 200);
    assert_eq!(node.all_lines().len(), 1_000);
    let asked = Instant::now();
    assert!(node.stop().success());
    assert!(asked.elapsed() < Duration::from_secs(20));

    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, b"after\n");
    assert_eq!(node.all_lines().len(), 1_001);
}

#[test]
fn a_store_segment_that_may_not_be_written_stays_on_the_ingest_side() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = with_file_limit(8 << 20, &NODE);
    command.args(["--ingest.segment-flush-size", "1MiB", "--store.compression-level", "none"]);
    command.current_dir(directory.path()).env_clear();
    let node = Node::from_command(command).unwrap();
    let line = |n| format!("{n} {}\n", "x".repeat(1_000));
    let lines: String = (0..12_000).map(line).collect();
    sender::send(node.durable, lines.as_bytes());
    wait_until("it is told", || node.log().contains("File too large"));
    assert_eq!(node.all_lines().len(), 12_000);
    assert!(node.stop().success());
    let node = Node::start(directory.path(), &[]);
    assert_eq!(node.all_lines().len(), 12_000);
}

#[test]
fn a_forwarder_whose_spool_may_not_grow_waits_and_tells() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = tests::outlet::own_address(7652).to_string();
    let arguments =
        ["forward", "--mode", "durable", "--on-full", "spool", "--spool.path", "spool", &nobody];
    let mut command = with_file_limit(64 << 10, &arguments);
    command.args(["--shutdown-timeout", "1s"]);
    command.current_dir(directory.path()).env_clear();
    let mut forwarder = Forwarder::from_command(command);
    let mut input = forwarder.take_input();
    let writer = std::thread::spawn(move || {
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        // Until it takes no more, or ends.
        while input.write_all(&line).is_ok() {}
    });
    forwarder.wait_for_log("the spool cannot be written");
    forwarder.signal(Signal::TERM);
    let (status, log) = forwarder.wait();
    assert!(status.code().is_some(), "it ends by itself: {status:?} {log}");
    writer.join().unwrap();
}

#[test]
fn a_supervisor_that_hears_nothing_keeps_nobody_from_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"noise", &path).is_ok() {}
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(NODE).current_dir(directory.path()).env_clear();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let node = Node::from_command(command).unwrap();
    // Once it listens again it hears what it has missed.
    supervisor.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    let mut heard = vec![0; 4096];
    let mut hear = || {
        let len = supervisor.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..len]).into_owned()
    };
    wait_until("it hears that the node is ready", || hear().starts_with("READY=1"));
    while other.send_to(b"noise", &path).is_ok() {}
    let asked = Instant::now();
    assert!(node.stop().success());
    assert!(asked.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_node_starts_right_after_another_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let host = tests::outlet::own_address(0).ip();
    let start = || {
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
        command.args(["--listen", &host.to_string()]);
        command.current_dir(directory.path()).env_clear();
        Node::from_command(command)
    };
    for round in 0..5 {
        let node = start().unwrap_or_else(|log| panic!("round {round}: {log}"));
        // Connections that its ring waits for are what holds the port.
        let _held: Vec<_> =
            (0..20).map(|_| std::net::TcpStream::connect(node.durable).unwrap()).collect();
        sender::send(node.durable, b"a line\n");
        assert_eq!(node.all_lines().len(), round + 1);
        node.kill();
    }
}

#[test]
fn files_are_for_their_user_alone_whatever_the_mask() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 022; exec \"$0\" \"$@\""]).arg(tools::binary("oklogd")).args(NODE);
    command.current_dir(directory.path()).env_clear();
    let node = Node::from_command(command).unwrap();
    sender::send(node.durable, b"a secret\n");
    node.settle();
    sender::send(node.durable, b"another\n");
    let mut open = vec![directory.path().join("data")];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        // It may have moved on meanwhile.
        let Ok(metadata) = path.metadata() else { continue };
        seen += 1;
        let mode = metadata.permissions().mode() & 0o7777;
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, wanted, "{mode:o} {}", path.display());
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = |arguments: &[&str], flag: &str| {
        let output = Command::new(tools::binary("oklogd"))
            .args(arguments)
            .current_dir(directory.path())
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = tools::text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(flag), "{said}");
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    };
    for flag in ["--api", "--ingest.fast", "--ingest.durable"] {
        refused(&[&NODE[..], &[flag, &address]].concat(), flag);
    }
    let spool = ["forward", "--on-full", "spool", "--spool.path", "a/b", "--api", &address, ":1"];
    refused(&spool, "--api");
}
