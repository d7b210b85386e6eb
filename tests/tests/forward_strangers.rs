//! `oklogd forward` and what is no ingester, or one that does not get on: nobody's silence, bytes or
//! open socket is taken for success.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::fake_ingester::{FakeIngester, acknowledge};
use tests::forwarder::Forwarder;
use tests::node::Node;
use tests::wait_until;

/// Does the same with every connection, on a port of its own.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let (count, handle) = (Arc::clone(&connections), Arc::new(handle));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::Relaxed);
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(stream));
        }
    });
    (address, connections)
}

/// Forwards so many lines until the forwarder ends by itself; its exit code and log.
fn forward(directory: &Path, flags: &[&str], lines: u32) -> (Option<i32>, String) {
    let mut forwarder = Forwarder::start(directory, flags);
    let text: String = (0..lines).map(|n| format!("line {n}\n")).collect();
    forwarder.write(text.as_bytes());
    let (status, log) = forwarder.finish();
    (status.code(), log)
}

#[test]
fn lines_for_a_server_of_another_kind_are_not_handed_over_and_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (echo, _) = serve(|mut stream| {
        let mut copy = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut stream, &mut copy);
    });
    let (talker, _) = serve(|mut stream| {
        let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for (address, said) in [(node.api, "HTTP/1.1 400"), (echo, "OKLOGD-ACK"), (talker, "ESMTP")] {
        for mode in ["fast", "durable"] {
            let address = address.to_string();
            let flags = ["--mode", mode, "--backoff-max", "100ms", &address];
            let (code, log) = forward(directory.path(), &flags, 1000);
            assert_eq!(code, Some(1), "{mode}: {log}");
            assert!(log.contains("no ingester's port") && log.contains(said), "{mode}: {log}");
            assert!(log.contains("records=1000"), "{mode}: {log}");
            assert_eq!(log.lines().count(), 2, "{mode}: {log}");
            assert!(log.lines().last().unwrap().contains("given up"), "{mode}: {log}");
            assert_eq!(log.matches(&address).count(), 1, "{mode}: {log}");
        }
    }
    assert!(node.all_lines().is_empty());
}

#[test]
fn a_port_with_another_promise_refuses_and_the_next_address_takes_the_lines() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (fast, durable) = (node.fast.to_string(), node.durable.to_string());
    for (mode, wrong) in [("durable", &fast), ("fast", &durable)] {
        let flags = ["--mode", mode, "--backoff-max", "100ms", wrong];
        let (code, log) = forward(directory.path(), &flags, 3);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&format!("{mode} was asked for")), "{log}");
        assert!(log.contains("records=3"), "{log}");
        assert!(node.all_lines().is_empty());
    }
    let flags = ["--mode", "durable", "--backoff-max", "100ms", &fast, &durable];
    let (code, log) = forward(directory.path(), &flags, 3);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(node.all_lines().len(), 3);
}

#[test]
fn what_nobody_takes_stays_in_the_spool_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (fast, durable) = (node.fast.to_string(), node.durable.to_string());
    let flags = ["--mode", "durable", "--on-full", "spool", "--backoff-max", "100ms"];
    let (code, log) = forward(directory.path(), &[&flags[..], &[&fast]].concat(), 3);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("spooled=3"), "{log}");
    let (code, log) = forward(directory.path(), &[&flags[..], &[&durable]].concat(), 0);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(node.all_lines().len(), 3);
}

/// One at a time would take three times as long.
#[test]
fn who_gets_no_further_is_left_and_who_is_only_slow_is_not() {
    std::thread::scope(|scope| {
        scope.spawn(who_says_nothing_is_left_in_twenty_seconds);
        for mode in ["fast", "durable"] {
            scope.spawn(move || a_frozen_node_is_left_in_forty_seconds(mode));
        }
        scope.spawn(a_slow_ingester_is_not_left);
        scope.spawn(who_takes_lines_and_hangs_up_all_the_time_fills_no_log);
    });
}

fn who_says_nothing_is_left_in_twenty_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (silent, tries) = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (silent, fast) = (silent.to_string(), node.fast.to_string());
    // The order is shuffled; a refused connection makes it go round.
    let begun = Instant::now();
    while tries.load(Ordering::Relaxed) == 0 {
        let flags = ["--backoff-max", "50ms", &silent, &fast];
        let mut forwarder = Forwarder::start(directory.path(), &flags);
        forwarder.write(b"line\n");
        let (status, log) = forwarder.finish();
        assert_eq!(status.code(), Some(0), "{log}");
        if log.contains("does not answer") {
            assert_eq!(log.lines().count(), 2, "{log}");
        }
        assert!(begun.elapsed() < tests::DEADLINE, "the silent one was never tried");
    }
    assert!(tries.load(Ordering::Relaxed) == 1 && !node.all_lines().is_empty());
}

fn a_frozen_node_is_left_in_forty_seconds(mode: &str) {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let nodes = directories.each_ref().map(|d| Node::start(d.path(), &[]));
    let port = |node: &Node| if mode == "fast" { node.fast } else { node.durable }.to_string();
    let addresses = nodes.each_ref().map(port);
    let flags = ["--mode", mode, "--backoff-max", "50ms", "--api", "127.0.0.1:0"];
    let flags = [&flags[..], &[&addresses[0], &addresses[1]]].concat();
    let mut forwarder = Forwarder::start(directories[0].path(), &flags);
    forwarder.write(b"before\n");
    wait_until("it arrived", || forwarder.metric("oklog_forward_records_total") == 1.0);
    let used = nodes.iter().position(|node| !node.all_lines().is_empty()).unwrap();
    nodes[used].signal(Signal::STOP);
    // More than the kernel holds for a process that does not read.
    let lines = 200_000u32;
    let text: String = (0..lines).map(|n| format!("line {n} {}\n", "x".repeat(60))).collect();
    let mut input = forwarder.take_input();
    let writer = std::thread::spawn(move || {
        input.write_all(text.as_bytes()).unwrap();
        input
    });
    let begun = Instant::now();
    let other = &nodes[1 - used];
    wait_until("the other has all", || {
        forwarder.metric("oklog_forward_records_total") >= f64::from(lines) + 1.0
    });
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    drop(writer.join().unwrap());
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let told = log.lines().filter(|line| line.contains("WARN")).count();
    assert!(told == 1 && log.contains("it took nothing for 30 s"), "{log}");
    assert_eq!(other.get("/query?from=1h&stats").json()["records"], lines);
    nodes[used].signal(Signal::CONT);
}

/// Reads 1 KB/s, longer than any limit on progress is.
fn a_slow_ingester_is_not_left() {
    let directory = tempfile::tempdir().unwrap();
    let ingester = FakeIngester::start();
    let address = ingester.address.to_string();
    let mut forwarder = Forwarder::start(directory.path(), &["--mode", "durable", &address]);
    let text = format!("{}\n", "z".repeat(999)).repeat(36);
    forwarder.write(text.as_bytes());
    forwarder.end();
    let mut stream = ingester.take().unwrap();
    // Small, so that the sender's side sees how slow it is.
    socket2::SockRef::from(&stream).set_recv_buffer_size(2048).unwrap();
    let mut got = Vec::new();
    let mut kilobyte = [0; 1000];
    let tick = Instant::now();
    loop {
        let due = tick + Duration::from_secs(got.len() as u64 / 1000);
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let len = stream.read(&mut kilobyte).unwrap();
        if len == 0 {
            break;
        }
        got.extend_from_slice(&kilobyte[..len]);
        let counted = got.iter().rposition(|b| *b == b'\n').map_or(0, |at| at as u64 + 1);
        acknowledge(&mut stream, counted).unwrap();
    }
    assert!(got == text.as_bytes());
    drop(stream);
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("WARN"), "{log}");
}

/// For 8 s, of which nothing may fill a log.
fn who_takes_lines_and_hangs_up_all_the_time_fills_no_log() {
    let marker = u64::MAX.to_le_bytes();
    let states: [fn(TcpStream); 4] = [
        // Closes at once; answers and closes; takes a line and closes; refuses.
        drop,
        |mut stream| drop(stream.write_all(&u64::MAX.to_le_bytes())),
        |mut stream| {
            let mut hello = Vec::new();
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|len| len > 0) && byte != *b"\n" {
                hello.push(byte[0]);
            }
            let _ = stream.write_all(&u64::MAX.to_le_bytes());
            let _ = stream.read_exact(&mut [0; 2]);
            let _ = acknowledge(&mut stream, 2);
        },
        |mut stream| drop(stream.write_all(b"\0OKLOGD-NO/1 not today\n")),
    ];
    assert_eq!(marker, [0xff; 8]);
    let directory = tempfile::tempdir().unwrap();
    let started = states.map(|state| {
        let (address, connections) = serve(state);
        let flags = ["--mode", "durable", "--api", "127.0.0.1:0", &address.to_string()];
        let mut forwarder = Forwarder::start(directory.path(), &flags);
        forwarder.write("1\n".repeat(10_000).as_bytes());
        (forwarder, connections)
    });
    let begun = Instant::now();
    wait_until("8 s are over", || begun.elapsed() > Duration::from_secs(8));
    for (number, (forwarder, connections)) in started.into_iter().enumerate() {
        let log = forwarder.log();
        assert!(log.lines().count() <= 25, "{number}: {log}");
        let tries = connections.load(Ordering::Relaxed);
        // Who takes a line each time makes progress.
        assert!(tries <= if number == 2 { 500 } else { 30 }, "{number}: {tries} in 8 s");
    }
}
