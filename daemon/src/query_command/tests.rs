//! The command against answers that are written by hand.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;
use crate::cli::{Command, parse};

/// A node that answers one request with these bytes; yields the request.
fn node(answer: &'static [u8]) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !request.ends_with(b"\r\n\r\n") {
            let len = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..len]);
        }
        stream.write_all(answer).unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, thread)
}

struct Ran {
    exit: Exit,
    out: String,
    err: String,
    request: String,
}

fn config(line: &[&str]) -> QueryConfig {
    let arguments: Vec<_> = ["query"].iter().chain(line).map(|&s| s.to_owned()).collect();
    match parse(&arguments, &[]) {
        Ok((Command::Query(config), _)) => config,
        other => panic!("{other:?}"),
    }
}

fn run(line: &[&str], answer: &'static [u8]) -> Ran {
    let (address, thread) = node(answer);
    let config = config(&[&["--store", &address], line].concat());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams =
        Streams { out: &mut out, err: &mut err, out_is_terminal: false, patience: PATIENCE };
    let exit = run_with(&config, &mut streams);
    let request = thread.join().unwrap();
    Ran {
        exit,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
        request,
    }
}

const TWO: &[u8] = b"HTTP/1.1 200 OK\r\nX-Oklog-Complete: true\r\nX-Oklog-Q: o\r\n\
    Transfer-Encoding: chunked\r\n\r\n\
    20\r\n01HF7YAT00000000000000000A one\n0\r\n1e\r\n1HF7YAT00000000000000000B two\n\r\n0\r\n\r\n";

#[test]
fn records_are_printed_without_their_ulids() {
    let ran = run(&["-q", "o"], TWO);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "one\ntwo\n", ""));
    assert!(ran.request.starts_with("GET /query?from=1h&q=o HTTP/1.1\r\n"), "{}", ran.request);
    let ran = run(&["--ulid"], TWO);
    let expected = "01HF7YAT00000000000000000A one\n01HF7YAT00000000000000000B two\n";
    assert_eq!(ran.out, expected);
}

#[test]
fn nocopy_prints_nothing_and_verbose_tells_how_it_went() {
    let ran = run(&["--nocopy", "-v"], TWO);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, ""));
    for part in ["Response in", "normal string \"o\"", "2 record(s)"] {
        assert!(ran.err.contains(part), "{}", ran.err);
    }
}

#[test]
fn nothing_found_is_an_error_only_where_it_is_asked_for() {
    let empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(run(&[], empty).exit, Exit::Done);
    assert_eq!(run(&["--fail-empty"], empty).exit, Exit::Empty);
    assert_eq!(run(&["--fail-empty"], TWO).exit, Exit::Done);
}

#[test]
fn incomplete_answers_are_printed_and_told() {
    let told = b"HTTP/1.1 200 OK\r\nX-Oklog-Complete: false\r\nContent-Length: 31\r\n\r\n\
        01HF7YAT00000000000000000A one\n";
    let cut = b"HTTP/1.1 200 OK\r\nX-Oklog-Complete: true\r\nTransfer-Encoding: chunked\r\n\r\n\
        1f\r\n01HF7YAT00000000000000000A one\n\r\n";
    for answer in [&told[..], &cut[..]] {
        let ran = run(&["--fail-empty"], answer);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Incomplete, "one\n"));
        assert!(ran.err.contains("incomplete"), "{}", ran.err);
    }
    let ndjson = b"HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n\
        {\"ulid\":\"1\"}\n{\"end\":{\"complete\":false,\"n\":1}}\n";
    let ran = run(&["--json"], ndjson);
    assert_eq!(ran.exit, Exit::Incomplete);
    assert!(ran.out.starts_with("{\"ulid\":\"1\"}\n"));
    assert!(ran.request.contains("accept: application/x-ndjson"), "{}", ran.request);
}

#[test]
fn stats_are_a_table() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n\
        {\"records\":2,\"complete\":true,\"missing\":[]}";
    let ran = run(&["--stats"], answer);
    assert_eq!(ran.exit, Exit::Done);
    let mut lines: Vec<Vec<&str>> =
        ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    lines.sort();
    assert_eq!(lines, [["complete", "true"], ["records", "2"]]);
    assert!(ran.request.contains("stats=true"));
    assert!(run(&["--stats", "--json"], answer).out.starts_with("{\"records\":2"));
}

#[test]
fn refusals_are_one_line() {
    let bad =
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 24\r\n\r\n{\"error\":\"from: \\u001b\"}";
    let ran = run(&["--from", "x"], bad);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.lines().count()), (Exit::Usage, "", 1));
    assert!(ran.err.contains("400 Bad Request: from: \\x1b"), "{}", ran.err);
    let busy = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 3\r\n\r\nno\n";
    assert_eq!(run(&[], busy).exit, Exit::Error);
    assert_eq!(run(&[], b"220 smtp.example ESMTP\r\n").exit, Exit::Error);
}

#[test]
fn a_node_that_is_not_there_is_one_clear_line() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = config(&["--store", &format!("127.0.0.1:{port}")]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams =
        Streams { out: &mut out, err: &mut err, out_is_terminal: false, patience: PATIENCE };
    assert_eq!(run_with(&config, &mut streams), Exit::Error);
    let err = String::from_utf8(err).unwrap();
    assert!(err.contains("cannot connect to 127.0.0.1:") && err.lines().count() == 1, "{err}");
}

#[test]
fn a_closed_pipe_ends_silently() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (address, thread) = node(TWO);
    let config = config(&["--store", &address]);
    let mut err = Vec::new();
    let mut streams =
        Streams { out: &mut Closed, err: &mut err, out_is_terminal: false, patience: PATIENCE };
    assert_eq!(run_with(&config, &mut streams), Exit::Done);
    assert!(err.is_empty());
    thread.join().unwrap();
}

/// Standard error that tells when something is written to it.
struct Heard(Vec<u8>, std::sync::mpsc::Sender<()>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        let _ = self.1.send(());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_waits_for_long_is_told_for_what_and_goes_on_waiting() {
    let (told, heard) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The answer comes once the operator was told, or never.
        heard.recv_timeout(Duration::from_secs(20)).unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(TWO).unwrap();
    });
    let config = config(&["--store", &address, "-q", "o"]);
    let (mut out, mut err) = (Vec::new(), Heard(Vec::new(), told));
    let patience = Duration::from_millis(1);
    let mut streams = Streams { out: &mut out, err: &mut err, out_is_terminal: false, patience };
    assert_eq!(run_with(&config, &mut streams), Exit::Done);
    thread.join().unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\n");
    let err = String::from_utf8(err.0).unwrap();
    assert!(err.contains("still waiting") && err.contains(&address), "{err}");
}
