//! The command against answers that are written by hand.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::*;
use crate::cli::{Command, parse};

/// A node that answers requests with these bytes, one after the other; yields the requests.
fn nodes(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let answer = |answer: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_request(&mut stream);
            stream.write_all(&answer).unwrap();
            request
        };
        answers.into_iter().map(answer).collect()
    });
    (address, thread)
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "the client hung up");
        request.extend_from_slice(&piece[..len]);
    }
    String::from_utf8(request).unwrap()
}

/// An answer as an HTTP/1.0 proxy passes it on: its end is the end of the connection.
fn plain(kind: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n{headers}\r\n{body}").into_bytes()
}

fn text(body: &str) -> Vec<u8> {
    plain(LINES, "X-Oklog-From: F\r\nX-Oklog-To: T\r\n", body)
}

const LINES: &str = "application/x-oklog-lines";
const ONE: &str = "01HF7YAT00000000000000000A one\n";
const END_OF_ONE: &str = "# end {\"records\":1,\"complete\":true}\n";

struct Ran {
    exit: Exit,
    out: String,
    err: String,
    requests: Vec<String>,
}

fn config(line: &[&str]) -> QueryConfig {
    let arguments: Vec<_> = ["query"].iter().chain(line).map(|&s| s.to_owned()).collect();
    match parse(&arguments, &[]) {
        Ok((Command::Query(config), _)) => config,
        other => panic!("{other:?}"),
    }
}

fn run(line: &[&str], answer: impl Into<Vec<u8>>) -> Ran {
    run_stalled(line, vec![answer.into()], STALL)
}

/// With an output that counts as stalled after this time.
fn run_stalled(line: &[&str], answers: Vec<Vec<u8>>, stall: Duration) -> Ran {
    let (address, thread) = nodes(answers);
    let config = config(&[&["--store", &address], line].concat());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams { stall, ..streams(&mut out, &mut err) };
    let exit = run_with(&config, &mut streams);
    let requests = thread.join().unwrap();
    Ran {
        exit,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
        requests,
    }
}

fn streams<'a>(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Streams<'a> {
    let output = Output { is_terminal: false, shows_colours: false };
    Streams { out, err, output, is_part: false, patience: Patience::USUAL, stall: STALL }
}

const TWO: &[u8] = b"HTTP/1.1 200 OK\r\nX-Oklog-Complete: true\r\nX-Oklog-Q: o\r\n\
    Content-Type: application/x-oklog-lines\r\nTransfer-Encoding: chunked\r\n\r\n\
    20\r\n01HF7YAT00000000000000000A one\n0\r\n1e\r\n1HF7YAT00000000000000000B two\n\r\n\
    24\r\n# end {\"records\":2,\"complete\":true}\n\r\n0\r\n\r\n";

#[test]
fn records_are_printed_without_their_ulids() {
    let ran = run(&["-q", "o"], TWO);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "one\ntwo\n", ""));
    assert!(ran.requests[0].starts_with("GET /query?from=1h&q=o HTTP/1.1\r\n"));
    assert!(ran.requests[0].contains(LINES));
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
    let empty = || text("# end {\"records\":0,\"complete\":true}\n");
    assert_eq!(run(&[], empty()).exit, Exit::Done);
    assert_eq!(run(&["--fail-empty"], empty()).exit, Exit::Empty);
    assert_eq!(run(&["--fail-empty"], TWO).exit, Exit::Done);
}

#[test]
fn a_person_who_sees_nothing_is_told_where_nothing_is_and_a_program_is_not() {
    let empty = || text("# end {\"records\":0,\"complete\":true}\n");
    assert_eq!(run(&["a.*b"], empty()).err, "");
    for (line, words) in [
        (
            &["a.*b"][..],
            "no record matches from F to T (--since, --until); \"a.*b\" is searched as plain text",
        ),
        (&["a.*b", "--regex"], "no record matches from F to T (--since, --until)\n"),
        (&["--regex", "id=\\d"], "no record matches from F to T"),
        (&["id=\\d"], "\"id=\\d\" is searched"),
        (&["-x", "a"], "no record matches from F to T"),
        (&["--topic", "web"], "no record of topic web is there from F to T"),
        (&[], "no record is there from F to T"),
    ] {
        let (address, thread) = nodes(vec![empty()]);
        let config = config(&[&["--store", &address], line].concat());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let output = Output { is_terminal: true, shows_colours: false };
        let exit = run_with(&config, &mut Streams { output, ..streams(&mut out, &mut err) });
        thread.join().unwrap();
        let err = String::from_utf8(err).unwrap();
        assert_eq!((exit, out.len()), (Exit::Done, 0));
        assert!(err.contains(words) && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn incomplete_answers_are_printed_and_told() {
    let end = "# end {\"records\":1,\"complete\":false,\"missing_count\":1}\n";
    let ran = run(&["--fail-empty"], text(&[ONE, end].concat()));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Incomplete, "one\n"));
    assert!(ran.err.contains("incomplete: part of the range"), "{}", ran.err);
    let ndjson = "{\"ulid\":\"1\"}\n{\"end\":{\"records\":1,\"complete\":false,\"n\":1}}\n";
    let ran = run(&["--json"], plain("application/x-ndjson", "", ndjson));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Incomplete, ndjson));
    assert!(ran.requests[0].contains("accept: application/x-ndjson"), "{}", ran.requests[0]);
}

#[test]
fn an_answer_without_its_end_is_never_whole_wherever_it_is_cut() {
    let answer = [ONE, "01HF7YAT00000000000000000B two\n"].concat();
    let whole = [&answer, "# end {\"records\":2,\"complete\":true}\n"].concat();
    for len in 0..whole.len() {
        let ran = run(&["--fail-empty"], text(&whole[..len]));
        let records = answer[..len.min(answer.len())].matches('\n').count();
        let expected = &"one\ntwo\n"[..4 * records];
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Incomplete, expected), "{len}");
        assert!(ran.err.contains("breaks off"), "{}", ran.err);
    }
    assert_eq!(run(&[], text(&whole)).exit, Exit::Done);
    // Chunks that miss their last one, and lines that were lost on the way.
    let chunks = &TWO[..TWO.len() - 5];
    assert_eq!(run(&[], chunks).exit, Exit::Done, "its last line is its end");
    assert_eq!(run(&[], &chunks[..chunks.len() - 50]).exit, Exit::Incomplete);
    let ran = run(&[], text(&[ONE, "# end {\"records\":2,\"complete\":true}\n"].concat()));
    assert_eq!(ran.exit, Exit::Incomplete);
    assert!(ran.err.contains("counts 2 records, and 1 came"), "{}", ran.err);
}

#[test]
fn what_answers_in_another_form_is_no_node() {
    for answer in [
        plain("text/html", "", "<h1>It works</h1>\n"),
        plain("text/plain; charset=utf-8", "", ONE),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ] {
        for line in [&[][..], &["--json"], &["--stats"]] {
            let ran = run(line, answer.clone());
            assert_eq!((ran.exit, ran.out.as_str()), (Exit::Error, ""));
            assert!(ran.err.contains("HTTP port"), "{}", ran.err);
        }
    }
}

/// How an answer ends whose reader was too slow, behind so many records.
fn early(records: u64) -> String {
    format!(
        "# end {{\"records\":{records},\"complete\":false,\"ended_early\":true,\
         \"missing_count\":1,\"missing\":[{{}}]}}\n"
    )
}

#[test]
fn an_answer_that_was_ended_for_its_slow_reader_is_gone_on_with() {
    let second = "01HF7YAT00000000000000000B two\n";
    let answers = vec![text(&[ONE, &early(1)].concat()), text(&[second, END_OF_ONE].concat())];
    let line = ["--limit", "7", "--order", "desc", "--from", "2h", "-q", "o"];
    let ran = run_stalled(&line, answers, STALL);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "one\ntwo\n", ""));
    let expected =
        "GET /query?from=F&to=T&q=o&limit=6&after=01HF7YAT00000000000000000A&order=desc ";
    assert!(ran.requests[1].starts_with(expected), "{}", ran.requests[1]);
    // One that had nothing would end in the same way again.
    let ran = run(&[], text(&early(0)));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Incomplete, ""));
    // What cannot be gone on with is told.
    let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec();
    let ran = run_stalled(&[], vec![text(&[ONE, &early(1)].concat()), refusal], STALL);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Incomplete, "one\n"));
}

#[test]
fn an_answer_that_was_cut_off_while_the_output_stalled_is_gone_on_with() {
    let known = |count: u64| {
        let headers = format!("X-Oklog-Error-Count: {count}\r\n");
        plain(LINES, &headers, "")
    };
    let rest = || text(&["01HF7YAT00000000000000000B two\n", END_OF_ONE].concat());
    let cut = || text(&[ONE, "01HF7YAT00000000000000000B tw"].concat());
    for (gaps, exit) in [(0, Exit::Done), (1, Exit::Incomplete)] {
        let answers = vec![cut(), known(gaps), rest()];
        let ran = run_stalled(&["--topic", "x"], answers, Duration::ZERO);
        assert_eq!((ran.exit, ran.out.as_str()), (exit, "one\ntwo\n"), "{}", ran.err);
        // Nothing of what was printed may be missing, either.
        let head = "HEAD /query?from=F&to=01HF7YAT00000000000000000A HTTP";
        assert!(ran.requests[1].starts_with(head), "{}", ran.requests[1]);
        let next = "GET /query?from=F&to=T&topic=x&after=01HF7YAT00000000000000000A HTTP";
        assert!(ran.requests[2].starts_with(next), "{}", ran.requests[2]);
    }
}

#[test]
fn a_node_that_fell_silent_behind_a_stalled_output_is_not_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let (mut asked, _) = listener.accept().unwrap();
        read_request(&mut asked);
        asked.write_all(&text(ONE)).unwrap();
        // Whoever asks again waits in the queue; the answer never ends.
        let _ = is_over.recv();
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    });
    let config = config(&["--store", &address]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    // Long enough for the thread above to answer on a busy machine.
    let silence = Duration::from_secs(3);
    let sign_of_life = Duration::from_millis(50);
    let patience = Patience { silence, sign_of_life, head: silence, body: sign_of_life };
    let stall = Duration::ZERO;
    let mut streams = Streams { patience, stall, ..streams(&mut out, &mut err) };
    assert_eq!(run_with(&config, &mut streams), Exit::Incomplete);
    let err = String::from_utf8(err).unwrap();
    assert!(err.contains("does not answer any more") && err.lines().count() == 1, "{err}");
    drop(over);
    assert_eq!(thread.join().unwrap(), 0, "no further question");
}

#[test]
fn the_last_object_of_json_tells_of_all_answers_together() {
    let kind = "application/x-ndjson";
    let record = |letter: char| format!("{{\"ulid\":\"01HF7YAT00000000000000000{letter}\"}}\n");
    let first = record('A')
        + "{\"end\":{\"records\":1,\"complete\":false,\"ended_early\":true,\"missing_count\":2,\
           \"missing\":[{\"reason\":\"damage\"},{\"reason\":\"slow\"}]}}\n";
    let second = record('B') + "{\"end\":{\"records\":1,\"complete\":true,\"missing\":[]}}\n";
    let answers = vec![plain(kind, "", &first), plain(kind, "", &second)];
    let ran = run_stalled(&["--json"], answers, STALL);
    assert_eq!(ran.exit, Exit::Incomplete);
    let lines: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let end = &lines[2]["end"];
    assert_eq!((&end["records"], &end["complete"]), (&2.into(), &false.into()));
    assert_eq!(end["missing"], serde_json::json!([{"reason": "damage"}]));
}

#[test]
fn stats_are_a_table() {
    let object = "{\"records\":2,\"complete\":true,\"missing\":[]}";
    let answer = || plain("application/json", "", object);
    let ran = run(&["--stats"], answer());
    assert_eq!(ran.exit, Exit::Done);
    let mut lines: Vec<Vec<&str>> =
        ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    lines.sort();
    assert_eq!(lines, [["complete", "true"], ["records", "2"]]);
    assert!(ran.requests[0].contains("stats=true"));
    assert!(run(&["--stats", "--json"], answer()).out.starts_with("{\"records\":2"));
    for line in [&["--stats"][..], &["--stats", "--json"]] {
        let ran = run(line, plain("application/json", "", &object[..30]));
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Error, ""));
        assert!(ran.err.contains("breaks off"), "{}", ran.err);
    }
}

#[test]
fn refusals_are_one_line() {
    let bad =
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 24\r\n\r\n{\"error\":\"from: \\u001b\"}";
    let ran = run(&["--from", "now"], bad);
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
    assert_eq!(run_with(&config, &mut streams(&mut out, &mut err)), Exit::Error);
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
    let (address, thread) = nodes(vec![TWO.to_vec()]);
    let config = config(&["--store", &address]);
    let mut err = Vec::new();
    assert_eq!(run_with(&config, &mut streams(&mut Closed, &mut err)), Exit::Done);
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

/// Silence counts early.
const BRIEF: Patience = Patience {
    silence: Duration::from_millis(1),
    sign_of_life: Duration::from_secs(20),
    head: Duration::from_secs(60),
    body: Duration::from_secs(60),
};

#[test]
fn who_waits_for_a_node_that_is_there_is_told_for_what_and_goes_on_waiting() {
    wait_for_a_head(BRIEF.head, "");
}

#[test]
fn a_node_says_for_how_long_a_head_may_be_waited_for() {
    wait_for_a_head(Duration::ZERO, "X-Oklog-Head-Within: 60\r\n");
}

/// A node whose head comes once the operator was told that it takes its time.
fn wait_for_a_head(head: Duration, of_health: &'static str) {
    let (told, heard) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut asked, _) = listener.accept().unwrap();
        let healths = std::thread::spawn(move || {
            // Until the listener is shut.
            while let Ok((mut stream, _)) = listener.accept() {
                let request = read_request(&mut stream);
                assert!(request.starts_with("GET /health "), "{request}");
                let answer =
                    format!("HTTP/1.1 503 Degraded\r\n{of_health}Content-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
                if heard.try_recv().is_ok() {
                    return;
                }
            }
        });
        // The answer comes once the operator was told, or never.
        healths.join().unwrap();
        read_request(&mut asked);
        asked.write_all(TWO).unwrap();
    });
    let config = config(&["--store", &address, "-q", "o"]);
    let (mut out, mut err) = (Vec::new(), Heard(Vec::new(), told));
    let brief = Patience { silence: Duration::from_millis(50), head, ..BRIEF };
    let mut streams = Streams { patience: brief, ..streams(&mut out, &mut err) };
    assert_eq!(run_with(&config, &mut streams), Exit::Done);
    thread.join().unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\n");
    let err = String::from_utf8(err.0).unwrap();
    assert!(err.contains("still waiting") && err.contains(&address), "{err}");
    assert_eq!(err.lines().count(), 1, "once is enough: {err}");
}

#[test]
fn what_answers_nothing_at_all_is_given_up() {
    // Connections wait in its queue, as they do where an ingest port takes and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let patience = Patience { sign_of_life: Duration::from_millis(1), ..BRIEF };
    for line in [&[][..], &["--json"], &["--stats"]] {
        let config = config(&[&["--store", &address], line].concat());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams { patience, ..streams(&mut out, &mut err) };
        assert_eq!(run_with(&config, &mut streams), Exit::Error);
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("answers nothing: is this the HTTP port"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

/// A server of whose answers this is all that ever comes; its `/health` is well. Ends with its client.
fn dead_behind(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let request = read_request(&mut stream);
            let health = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let is_health = request.starts_with("GET /health ");
            stream.write_all(if is_health { health } else { answer }.as_bytes()).unwrap();
            held.push(stream);
        }
    });
    address
}

#[test]
fn an_answer_without_signs_of_life_is_given_up_whatever_else_the_server_answers() {
    let brief = Duration::from_millis(60);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: ";
    let cases = [
        (&[][..], String::new(), Exit::Error),
        (&["--stats"], String::new(), Exit::Error),
        (&[], format!("{head}application/x-oklog-lines\r\n\r\n"), Exit::Incomplete),
        (&["--json"], format!("{head}application/x-ndjson\r\n\r\n"), Exit::Incomplete),
        (&["--stats"], format!("{head}application/json\r\n\r\n1\r\n\n\r\n"), Exit::Error),
    ];
    for (line, answer, exit) in cases {
        // Where there is a head it may take its time on a busy machine.
        let time_for_head = if answer.is_empty() { brief } else { BRIEF.head };
        let patience = Patience { silence: brief / 3, head: time_for_head, body: brief, ..BRIEF };
        let address = dead_behind(answer.leak());
        let config = config(&[&["--store", &address], line].concat());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams { patience, ..streams(&mut out, &mut err) };
        assert_eq!(run_with(&config, &mut streams), exit);
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("does not answer"), "{err}");
    }
}

#[test]
fn signs_of_life_are_not_printed_and_somebody_who_sees_nothing_is_told_once() {
    let sign = "# alive {}\n";
    let answer = [sign, sign, sign, ONE, sign, END_OF_ONE].concat();
    let ran = run(&[], text(&answer));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "one\n"), "{}", ran.err);
    assert!(ran.requests[0].contains("x-oklog-alive: true"), "{}", ran.requests[0]);
    let object = "\n\n\n{\"records\":2,\"complete\":true,\"missing\":[]}\n";
    let ran = run(&["--stats", "--json"], plain("application/json", "", object));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, object.trim_start()), "{}", ran.err);
}
