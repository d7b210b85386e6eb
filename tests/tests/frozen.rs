//! Servers that fall silent: every client of the binary that asks over HTTP gives them up within 20 s,
//! in whatever phase they do, and says so.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::node::Node;
use tests::{sender, tools};

/// How long a client may take.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// A client that was started.
fn client(line: &[&str], api: SocketAddr) -> Child {
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(line).args(["--store", &api.to_string()]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("oklogd can be started")
}

/// Reads what a client has to say until its end; how it ended, its errors, and how long it took.
fn end(mut child: Child, from: Instant) -> (Option<i32>, String, Duration) {
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        out.map(|mut out| std::io::copy(&mut out, &mut std::io::sink()).unwrap())
    });
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let code = child.wait().unwrap().code();
    reader.join().unwrap();
    (code, said, from.elapsed())
}

#[test]
fn every_client_gives_a_frozen_node_up_in_time_whatever_it_was_doing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    // More than pipes and sockets hold.
    sender::send(
        node.durable,
        "a line of some length, and there are many\n".repeat(800_000).as_bytes(),
    );

    let mut answered = client(&["query"], node.api);
    let mut out = BufReader::new(answered.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let mut following = client(&["stream"], node.api);
    let mut followed = BufReader::new(following.stdout.take().unwrap());
    tests::wait_until("it follows", || node.metric("oklog_followers") == 1.0);
    sender::send(node.durable, b"live\n");
    line.clear();
    followed.read_line(&mut line).unwrap();
    assert_eq!(line, "live\n");

    node.signal(Signal::STOP);
    let frozen = Instant::now();
    let asking =
        [&["query"][..], &["query", "--json"], &["query", "--stats"], &["stream"], &["drain"]];
    std::thread::scope(|scope| {
        for line in asking {
            let child = client(line, node.api);
            scope.spawn(move || {
                let (code, said, took) = end(child, frozen);
                assert_eq!(code, Some(1), "{line:?}: {said}");
                assert!(said.contains("answers nothing"), "{line:?}: {said}");
                assert!(took < GIVEN_UP, "{line:?}: {took:?}");
            });
        }
        scope.spawn(move || {
            std::io::copy(&mut out, &mut std::io::sink()).unwrap();
            let (code, said, took) = end(answered, frozen);
            assert_eq!(code, Some(3), "{said}");
            assert!(said.contains("does not answer any more"), "{said}");
            assert!(took < GIVEN_UP, "{took:?}");
        });
        scope.spawn(move || {
            let mut said = String::new();
            BufReader::new(following.stderr.take().unwrap()).read_line(&mut said).unwrap();
            let took = frozen.elapsed();
            let _ = following.kill();
            let _ = following.wait();
            assert!(said.contains("lost") && said.contains("does not answer any more"), "{said}");
            assert_eq!(said.matches(&node.api.to_string()).count(), 1, "{said}");
            assert!(took < GIVEN_UP, "{took:?}");
        });
    });
}

#[test]
fn a_connection_that_is_never_taken_is_given_up_in_time() {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Its queue is full once a further connection waits.
    let brief = Duration::from_millis(500);
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, brief) {
        held.push(stream);
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        for line in [&["query"][..], &["stream"], &["drain"]] {
            let child = client(line, address);
            scope.spawn(move || {
                let (code, said, took) = end(child, start);
                assert_eq!(code, Some(1), "{line:?}: {said}");
                assert!(said.contains("cannot connect"), "{line:?}: {said}");
                assert!(took < GIVEN_UP, "{line:?}: {took:?}");
            });
        }
    });
}
