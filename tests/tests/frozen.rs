//! Servers that fall silent: every client of the binary that asks over HTTP gives them up within 20 s,
//! in whatever phase they do, and says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::follower::Follower;
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

/// A server whose `/health` is well and that answers everything else with a right head, or with nothing,
/// and then nothing more. It ends with the process.
fn dead_behind(gives_heads: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            let lines = lines.take_while(|line| !line.is_empty());
            let accept = lines.filter_map(|line| line.strip_prefix("accept: ").map(str::to_owned));
            let accept = accept.last().unwrap_or_default();
            let answer = match (request.starts_with("GET /health "), gives_heads) {
                (true, _) => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
                (false, false) => String::new(),
                (false, true) => format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {accept}\r\nTransfer-Encoding: chunked\r\n\r\n"
                ),
            };
            // A client that has ended asks no more.
            let _ = (&stream).write_all(answer.as_bytes());
            held.push(stream);
        }
    });
    address
}

#[test]
fn an_answer_that_never_comes_is_given_up_in_time_though_the_server_is_well_otherwise() {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (gives_heads, line, expected) in [
            (true, &["query"][..], 3),
            (true, &["query", "--json"], 3),
            (true, &["query", "--stats"], 1),
            (true, &["drain"], 1),
            (false, &["query"], 1),
            (false, &["query", "--stats"], 1),
            (false, &["stream"], 1),
            (false, &["drain"], 1),
        ] {
            let child = client(line, dead_behind(gives_heads));
            scope.spawn(move || {
                let (code, said, took) = end(child, start);
                assert_eq!(code, Some(expected), "{line:?}: {said}");
                assert!(said.contains("does not answer"), "{line:?}: {said}");
                assert!(took < GIVEN_UP, "{line:?}: {took:?}");
            });
        }
        let mut following = client(&["stream"], dead_behind(true));
        scope.spawn(move || {
            let mut said = String::new();
            BufReader::new(following.stderr.take().unwrap()).read_line(&mut said).unwrap();
            let took = start.elapsed();
            let _ = following.kill();
            let _ = following.wait();
            assert!(said.contains("lost") && said.contains("does not answer any more"), "{said}");
            assert!(took < GIVEN_UP, "{took:?}");
        });
    });
}

#[test]
fn a_stream_on_which_nothing_comes_shows_those_who_ask_that_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let asks = "X-Oklog-Alive: true\r\n";
    let text = Follower::start(node.api, "", asks);
    let objects = Follower::start(node.api, "", &format!("Accept: application/x-ndjson\r\n{asks}"));
    let unasked = Follower::start(node.api, "", "");
    text.wait_for("a sign of life", |text| text.starts_with("# alive {}\n# alive {}\n"));
    objects.wait_for("a sign of life", |text| text.starts_with("{\"alive\":{}}\n"));
    assert_eq!(unasked.text(), "");
}
