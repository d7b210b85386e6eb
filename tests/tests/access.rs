//! Tokens through the real binary: every way in and out, what becomes of those that are taken away, and of a
//! file that cannot be used.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tests::forwarder::Forwarder;
use tests::http::{self, Answer};
use tests::node::Node;
use tests::sender::Acknowledged;
use tests::{tools, wait_until};
use tungstenite::client::IntoClientRequest;

/// As the documentation says: `printf %s TOKEN | sha256sum`.
fn sha256(token: &str) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils are there");
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    tools::text(&output.stdout).split(' ').next().unwrap().to_owned()
}

/// A table of the file; the token is its name and `-secret`.
fn table(name: &str, rights: &str, topics: Option<&str>) -> String {
    let hash = sha256(&format!("{name}-secret"));
    let topics = topics.map_or_else(String::new, |topics| format!("topics = [{topics}]\n"));
    format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nrights = [{rights}]\n{topics}")
}

fn tables() -> String {
    [
        table("all", "\"read\", \"write\", \"admin\"", None),
        table("web", "\"read\", \"write\"", Some("\"web\"")),
        table("gone", "\"read\", \"write\"", None),
    ]
    .concat()
}

/// Writes the file and a file for each token.
fn prepare(directory: &Path) {
    fs::write(directory.join("auth.toml"), tables()).unwrap();
    for name in ["all", "web", "gone", "wrong"] {
        fs::write(directory.join(name), format!("{name}-secret\n")).unwrap();
    }
}

fn start(directory: &Path) -> Node {
    prepare(directory);
    Node::start(directory, &["--auth.file", "auth.toml"])
}

fn ask(node: &Node, method: &str, path: &str, name: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {name}-secret");
    http::request(node.api, method, path, &[("Authorization", &bearer)], body)
}

fn metric(node: &Node, series: &str) -> u64 {
    let page = ask(node, "GET", "/metrics", "all", b"").text();
    let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
    page.lines().find_map(value).unwrap_or_else(|| panic!("no {series} in {page}"))
}

/// Shards count for themselves and tell of it in turns of their own.
fn until_counted(node: &Node, series: &str, count: u64) {
    wait_until(series, || metric(node, series) >= count);
    assert_eq!(metric(node, series), count, "{series}");
}

fn run(directory: &Path, node: &Node, arguments: &[&str]) -> Output {
    let store = node.api.to_string();
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(arguments).args(["--store", &store]).current_dir(directory).env_clear();
    command.output().unwrap()
}

/// What the node sends until it closes; the bytes that are sent before.
fn exchange(port: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn a_token_opens_every_way_in_and_out_that_it_is_for_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let node = start(directory);
    // Senders.
    for port in [node.fast, node.durable] {
        assert_eq!(exchange(port, b"nobody knows me\n"), b"", "never sent a byte");
        for (hello, why) in [
            ("", "a token is asked for"),
            ("token=wrong-secret ", "nobody has this token"),
            ("token=web-secret ", "name one of them"),
            ("token=web-secret topic=db ", "name one of them"),
        ] {
            let answer = exchange(port, format!("\0OKLOGD-ACK/1 {hello}\nrefused\n").as_bytes());
            let answer = tools::text(&answer);
            assert!(answer.starts_with("\0OKLOGD-NO/1 ") && answer.contains(why), "{answer}");
            assert!(!answer.contains("secret"), "{answer}");
        }
        let hello = b"\0OKLOGD-ACK/1 topic=web token=web-secret\n";
        let mut sender = Acknowledged::connect_with(port, hello).unwrap();
        sender.send(b"web by hello\n").unwrap();
        sender.wait_for(1).unwrap();
    }
    until_counted(&node, "oklog_access_refused_total{reason=\"no_token\"}", 4);
    // Who says nothing, or half of it, keeps no place.
    for said in [&b""[..], b"\0OKLOGD-ACK/1 token=all-sec"] {
        let mut silent = TcpStream::connect(node.fast).unwrap();
        silent.set_read_timeout(Some(tests::DEADLINE)).unwrap();
        silent.write_all(said).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "hung up on");
    }
    until_counted(&node, "oklog_access_refused_total{reason=\"no_token\"}", 6);
    let mode = ["--mode", "durable", "--token-file", "web", "--topic", "web"];
    let durable = node.durable.to_string();
    let mut forwarder = Forwarder::start(directory, &[&mode[..], &[&durable]].concat());
    forwarder.write(b"web by forward\n");
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    let fast = node.fast.to_string();
    let mut wrong = Forwarder::start(directory, &["--token-file", "wrong", &fast]);
    wrong.write(b"lost\n");
    let (status, log) = wrong.finish();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("nobody has this token") && !log.contains("secret"), "{log}");
    assert_eq!(
        ask(&node, "POST", "/records?topic=db&mode=durable", "all", b"db hush\n").status,
        200
    );
    assert_eq!(ask(&node, "POST", "/records?topic=db", "web", b"x\n").status, 403);
    // Readers.
    let shown = |name: &str, flags: &[&str]| {
        run(directory, &node, &[&["query", "--token-file", name, "-c"], flags].concat())
    };
    assert_eq!(tools::text(&shown("all", &[]).stdout).trim(), "4");
    assert_eq!(tools::text(&shown("web", &[]).stdout).trim(), "3");
    let beyond = shown("web", &["--topic", "db"]);
    assert_eq!(beyond.status.code(), Some(1));
    assert!(tools::text(&beyond.stderr).contains("403"), "{beyond:?}");
    for (name, code, words) in
        [("wrong", 1, "401"), ("nowhere", 2, "--token-file nowhere: cannot be read")]
    {
        let refused = shown(name, &[]);
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
        let stderr = tools::text(&refused.stderr);
        assert!(stderr.contains(words) && !stderr.contains("secret"), "{stderr}");
    }
    let topics = run(directory, &node, &["topics", "--json", "--token-file", "web"]);
    let topics: Value = serde_json::from_slice(&topics.stdout).unwrap();
    assert_eq!(topics["topics"].as_array().unwrap().len(), 1, "{topics}");
    let all = ["histogram", "--json", "--token-file", "web", "--by", "topic"];
    let text = tools::text(&run(directory, &node, &all).stdout);
    assert!(text.contains("web") && !text.contains("db"), "{text}");
    assert_eq!(run(directory, &node, &["status", "--token-file", "all"]).status.code(), Some(0));
    assert_eq!(run(directory, &node, &["status", "--token-file", "web"]).status.code(), Some(1));
    assert_eq!(run(directory, &node, &["drain", "--token-file", "web"]).status.code(), Some(1));
    assert_eq!(run(directory, &node, &["drain", "--token-file", "all"]).status.code(), Some(0));
    assert!(!node.log().contains("-secret"), "{}", node.log());
}

/// What comes on a stream until it ends.
struct Live(TcpStream);

impl Live {
    fn open(node: &Node, target: &str, name: &str, accept: &str) -> Self {
        let mut stream = TcpStream::connect(node.api).unwrap();
        stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nAuthorization: Bearer \
             {name}-secret\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut live = Self(stream);
        assert!(live.until("\r\n\r\n").starts_with("HTTP/1.1 200"));
        live
    }

    fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "{}", tools::text(&text));
            text.push(byte[0]);
        }
        tools::text(&text)
    }

    fn read_out(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}

#[test]
fn a_token_that_is_meant_for_the_api_is_not_sent_to_an_ingest_port() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    prepare(directory);
    // Everybody may write here, and read.
    let node = Node::start(directory, &[]);
    for port in [node.fast, node.durable] {
        let store = port.to_string();
        let output = Command::new(tools::binary("oklogd"))
            .args(["query", "--token-file", "all", "--store", &store])
            .current_dir(directory)
            .env_clear()
            .output()
            .unwrap();
        let told = tools::text(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains("HTTP port of a node"), "{told}");
    }
    wait_until("what it said is kept", || !node.all_lines().is_empty());
    let kept = node.all_lines().concat();
    let kept = String::from_utf8_lossy(&kept).to_lowercase();
    assert!(kept.contains("/health") && !kept.contains("secret"), "{kept}");
    assert!(!kept.contains("authorization"), "{kept}");
}

#[test]
fn a_live_stream_shows_what_its_token_may_see_and_one_that_resumes_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let send = |topic: &str, text: &str| {
        let target = format!("/records?topic={topic}&mode=durable");
        assert_eq!(ask(&node, "POST", &target, "all", text.as_bytes()).status, 200);
    };
    let mut live = Live::open(&node, "/stream", "web", "text/plain");
    for n in 0..20 {
        send("db", &format!("hush {n}\n"));
        send("web", &format!("seen {n}\n"));
    }
    let text = live.until("seen 19\n");
    assert!(text.contains("seen 0\n") && !text.contains("hush"), "{text}");
    let target = "/stream?after=00000000000000000000000000";
    let mut again = Live::open(&node, target, "web", "text/event-stream");
    let text = again.until("seen 19\"}\n\n");
    assert_eq!((text.matches("seen").count(), text.matches("hush").count()), (20, 0), "{text}");
}

#[test]
fn a_token_that_is_taken_away_ends_what_it_let_in_and_a_broken_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let node = start(directory);
    let streams = ["text/plain", "application/x-ndjson", "text/event-stream"]
        .map(|kind| Live::open(&node, "/stream", "gone", kind));
    let mut stays = Live::open(&node, "/stream", "all", "text/plain");
    let mut request = format!("ws://{}/ws/live", node.api).into_client_request().unwrap();
    request.headers_mut().insert("Authorization", "Bearer gone-secret".parse().unwrap());
    let socket = TcpStream::connect(node.api).unwrap();
    socket.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    let (mut websocket, _) = tungstenite::client(request, socket).unwrap();
    let connect = |name: &str| {
        let hello = format!("\0OKLOGD-ACK/1 token={name}-secret\n");
        let mut sender = Acknowledged::connect_with(node.durable, hello.as_bytes()).unwrap();
        sender.send(b"one\n").unwrap();
        sender.wait_for(1).unwrap();
        sender
    };
    let (mut ends, mut goes_on) = (connect("gone"), connect("all"));

    // Half of a file, and one that is gone, change nothing, and are told.
    let reasons = || http::get(node.api, "/ready").json()["reasons"].to_string();
    let path = directory.join("auth.toml");
    let half = tables();
    fs::write(&path, &half[..half.len() / 2]).unwrap();
    wait_until("it is told", || reasons().contains("--auth.file"));
    assert_eq!(http::get(node.api, "/ready").status, 200, "records are taken");
    until_counted(&node, "oklog_access_file_failing", 1);
    assert_eq!(ask(&node, "GET", "/topics", "gone", b"").status, 200, "what was before holds");
    fs::remove_file(&path).unwrap();
    wait_until("it is told", || node.log().contains("cannot be read"));
    assert!(!reasons().contains("auth.toml"), "everybody may read those: {}", reasons());
    fs::write(&path, tables()).unwrap();
    wait_until("it is over", || reasons() == "[]");
    until_counted(&node, "oklog_access_withdrawn_total", 0);

    let without = tables().split("[[token]]\nname = \"gone\"").next().unwrap().to_owned();
    fs::write(&path, without).unwrap();
    for stream in streams {
        assert!(!stream.read_out().ends_with(b"0\r\n\r\n"), "nobody takes it for whole");
    }
    let reason = loop {
        match websocket.read() {
            Ok(tungstenite::Message::Close(Some(frame))) => break frame.reason.to_string(),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!(reason.contains("taken away"), "{reason}");
    wait_until("the sender is hung up on", || ends.send(b"two\n").is_err());
    assert_eq!(ask(&node, "GET", "/topics", "gone", b"").status, 401);
    until_counted(&node, "oklog_access_withdrawn_total", 5);
    goes_on.send(b"still here\n").unwrap();
    goes_on.wait_for(2).unwrap();
    stays.until("still here\n");
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_with_2_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    prepare(directory);
    for (text, words) in [
        (None, "cannot be read"),
        (Some(String::new()), "holds no [[token]]"),
        (Some(tables().replace("\"admin\"", "\"root\"")), "one of its rights is none"),
        (Some(tables().replace("topics", "topic")), "unknown field `topic`"),
    ] {
        let path = directory.join("bad.toml");
        let _ = fs::remove_file(&path);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(["ingeststore", "--auth.file", "bad.toml", "--api", ":0"]);
        command.args(["--ingest.fast", ":0", "--ingest.durable", ":0"]);
        let output = command.current_dir(directory).env_clear().output().unwrap();
        let stderr = tools::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let told: Vec<_> = stderr.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(told.len() == 1 && told[0].contains(words), "{stderr}");
        assert!(told[0].contains("--auth.file bad.toml: "), "{stderr}");
    }
    assert!(!directory.join("data").exists(), "nothing was made");
}
