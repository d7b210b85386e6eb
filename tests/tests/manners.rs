//! `oklogd query` and `stream` as people who know `rg`, `journalctl`, `stern` and `kubectl logs` expect them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::ulid::Ulid;
use tests::node::Node;
use tests::sender::send;
use tests::terminal::OnTerminal;
use tests::tools::{self, text};
use tests::wait_until;

/// A node that holds these lines.
fn node_with(directory: &std::path::Path, lines: &[u8]) -> Node {
    let node = Node::start(directory, &[]);
    send(node.durable, lines);
    node
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Exit code, standard output, standard error of `oklogd query`.
fn query(node: &Node, line: &[&str]) -> (i32, String, String) {
    let api = node.api.to_string();
    let output = tools::oklogd(&[&["query", "--store", &api], line].concat());
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// What it prints where nothing is wrong.
fn found(node: &Node, line: &[&str]) -> String {
    let (code, out, err) = query(node, line);
    assert_eq!((code, err.as_str()), (0, ""), "{line:?}");
    out
}

#[test]
fn times_are_given_as_people_write_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with(directory.path(), b"one\n");
    let now = unix_time().as_secs();
    let (before, behind) = ((now - 100).to_string(), format!("@{}.5", now + 100));
    for (line, is_found) in [
        (&["--since", "yesterday", "--until", "tomorrow"][..], true),
        (&["--until", "yesterday", "--since", "2020-01-01"], false),
        (&["-since=-1h"], true),
        (&["--from", "1.5h", "--to", "-1h"], false),
        (&["--from", "1w"], true),
        (&["--from", &before, "--to", &behind], true),
        (&["--from", "1700000000", "--to", "1700000001"], false),
        (&["--from", "2020-11-29 17:00:00", "--to", "2099-01-01T00:00"], true),
        (&["--from", "2020-11-29", "--to", "2020-11-30", "--tz", "-0530"], false),
        (&["--from", "2 d"], false),
    ] {
        let (code, out, err) = query(&node, line);
        if line.contains(&"2 d") {
            assert_eq!((code, err.lines().count()), (2, 1), "{err}");
            assert!(err.contains("--from") && err.contains("yesterday"), "{err}");
            continue;
        }
        assert_eq!(
            (code, out.as_str()),
            (0, if is_found { "one\n" } else { "" }),
            "{line:?}: {err}"
        );
    }
    let (code, _, err) = query(&node, &["--from", "17:00", "--tz", "Mars/Olympus"]);
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
    assert!(err.contains("Mars/Olympus"), "{err}");
}

#[test]
fn the_clock_of_a_client_is_that_of_its_zone() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with(directory.path(), b"one\n");
    let api = node.api.to_string();
    let ask = |line: &[&str], zone: &str| {
        let output = Command::new(tools::binary("oklogd"))
            .args(["query", "--store", &api, "-v", "--nocopy"])
            .args(line)
            .env_clear()
            .env("TZ", zone)
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for (line, zone, told) in [
        (
            &["--from", "2026-07-01 12:00"][..],
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "2026-07-01T10:00:00.000Z",
        ),
        (&["--from", "2026-01-01 12:00"], "CET-1CEST,M3.5.0,M10.5.0/3", "2026-01-01T11:00:00.000Z"),
        (&["--from", "2026-01-01 12:00", "--tz", "UTC"], "CET-1CEST", "2026-01-01T12:00:00.000Z"),
        // Shown twice, or never: nothing is left out.
        (&["--from", "2025-10-26 02:30"], "CET-1CEST,M3.5.0,M10.5.0/3", "2025-10-26T00:30:00.000Z"),
        (&["--from", "2025-03-30 02:30"], "CET-1CEST,M3.5.0,M10.5.0/3", "2025-03-30T01:00:00.000Z"),
    ] {
        let (code, err) = ask(line, zone);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains(&format!("Queried from {told}\n")), "{line:?} in {zone}: {err}");
    }
    // Only who needs a zone is told that there is none.
    assert_eq!(ask(&["--from", "1h"], "Mars").0, Some(0));
    let (code, err) = ask(&["--from", "12:00"], "Mars");
    assert!(code == Some(2) && err.contains("TZ: \"Mars\""), "{code:?} {err}");
}

#[test]
fn counts_words_and_matches_are_those_of_ripgrep() {
    let directory = tempfile::tempdir().unwrap();
    let lines = "error 1\nterror 2\nan error: id=7 id=88\nERROR\nerr\n";
    let node = node_with(directory.path(), lines.as_bytes());
    for (line, expected) in [
        (&["-c"][..], "5\n"),
        (&["-c", "error"], "3\n"),
        (&["-ci", "error"], "4\n"),
        (&["-c", "-n", "2"], "2\n"),
        (&["-c", "absent"], "0\n"),
        (&["-w", "error"], "error 1\nan error: id=7 id=88\n"),
        (&["-iw", "error"], "error 1\nan error: id=7 id=88\nERROR\n"),
        (&["-w", "err|id", "-regex"], "an error: id=7 id=88\nerr\n"),
        (&["-w", "err", "-x", "error"], "err\n"),
        (&["-wx", "error"], "terror 2\nERROR\nerr\n"),
        (&["-w", "-o", "id=[0-9]", "--regex"], "id=7\n"),
        (&["-o", "id=[0-9]+", "--regex"], "id=7\nid=88\n"),
        (&["-o", "-q", "id=[0-9]+", "-q", "an|e.r", "--regex"], "an\nerr\nid=7\nid=88\n"),
    ] {
        assert_eq!(found(&node, line), expected, "{line:?}");
    }
    let with_ulid = found(&node, &["-o", "7", "--ulid"]);
    assert!(with_ulid.len() == 29 && with_ulid.ends_with(" 7\n"), "{with_ulid}");
    assert_eq!(query(&node, &["-c", "absent", "--fail-empty"]).0, 5);
    for (line, part) in [
        (&["-o"][..], "-o prints what matched"),
        (&["-o", "(", "--regex"], "-o: what matched cannot be found"),
        (&["-c", "--json"], "without -c"),
        (&["-o", "x", "--json"], "without -o"),
        (&["-c", "--stats"], "-c prints how many"),
        (&["-C", "3", "x"], "-A, -B and -C are not available in this version"),
        (&["-A2", "x"], "not available"),
        (&["-n", "3", "--limit", "4"], "give one of them"),
    ] {
        let (code, out, err) = query(&node, line);
        assert_eq!((code, out.as_str()), (2, ""), "{line:?}: {err}");
        assert!(err.contains(part), "{line:?}: {err}");
    }
}

#[test]
fn the_newest_records_come_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let lines: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    let node = node_with(directory.path(), lines.as_bytes());
    let all = found(&node, &[]);
    let lines: Vec<&str> = all.lines().collect();
    for count in [0, 1, 3, 1999, 5000] {
        let newest = found(&node, &["-n", &count.to_string()]);
        let expected = &lines[lines.len().saturating_sub(count)..];
        assert_eq!(newest.lines().collect::<Vec<_>>(), expected, "{count}");
    }
    let newest_first = found(&node, &["-n2", "--order", "desc"]);
    assert_eq!(newest_first.lines().collect::<Vec<_>>(), [lines[1999], lines[1998]]);
    let json = found(&node, &["-n", "2", "--json"]);
    let records: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&records[0]["record"], &records[1]["record"]),
        (&lines[1998].into(), &lines[1999].into())
    );
    assert_eq!(records[2]["end"]["records"], 2);
    let with_ulid = found(&node, &["--ulid"]);
    let (ulid, _) = with_ulid.lines().nth(1997).unwrap().split_once(' ').unwrap();
    assert_eq!(found(&node, &["--after", ulid]).lines().collect::<Vec<_>>(), lines[1998..]);
    let (code, _, err) = query(&node, &["--after", "x"]);
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
}

#[test]
fn times_and_topics_are_shown_as_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.topic-mode", "dynamic"]);
    let record = b"web a\xff\x1b[1m\x00b";
    send(node.durable, &[&record[..], b"\n"].concat());
    let api = node.api.to_string();
    let ask = |line: &[&str]| {
        let output = tools::oklogd(&[&["query", "--store", &api], line].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        output.stdout
    };
    assert_eq!(ask(&["--show-topic"]), [b"web ", &record[..], b"\n"].concat());
    let ulid = ask(&["--ulid"])[..26].to_vec();
    let time = |line: &[&str]| text(&ask(line)).split(' ').next().unwrap().to_owned();
    let (utc, east) = (time(&["--time"]), time(&["--time", "--tz", "+05:30"]));
    assert!(
        utc.ends_with('Z') && east.ends_with("+05:30") && utc[17..23] == east[17..23],
        "{east}"
    );
    let all = ask(&["--show-topic", "--ulid", "--time-format", "at_%H_%s", "--tz", "UTC"]);
    let seconds = time(&["--time-format", "%s"]);
    let head = format!("{} at_{}_{seconds} web ", text(&ulid), &utc[11..13]);
    assert_eq!(all, [head.as_bytes(), record, b"\n"].concat());
    let (code, _, err) = query(&node, &["--time-format", "%"]);
    assert!(code == 2 && err.contains("strftime") && err.lines().count() == 1, "{err}");
}

#[test]
fn an_answer_in_part_can_be_refused() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with(directory.path(), b"one\n");
    node.settle();
    assert_eq!(found(&node, &["--partial", "deny"]), "one\n");
    assert!(node.stop().success());
    let store = directory.path().join("data/store");
    for entry in std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "flushed") {
            std::fs::remove_file(entry).unwrap();
        }
    }
    let node = Node::start_any(directory.path(), &[]);
    assert_eq!(query(&node, &[]).0, 3);
    for line in [&["--partial", "deny"][..], &["--partial=deny", "-c"]] {
        let (code, out, err) = query(&node, line);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(err.contains("partial: denied"), "{err}");
    }
}

#[test]
fn a_time_for_all_of_it_ends_a_query_that_hangs() {
    // Takes connections and answers nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for line in [&["query"][..], &["query", "-c"], &["status"]] {
        let output = tools::oklogd(&[line, &["--store", &address, "--timeout", "200ms"]].concat());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("--timeout 200ms"), "{said}");
    }
}

/// What a query prints on a terminal.
fn on_terminal(node: &Node, line: &[&str], variables: &[(&str, &str)]) -> String {
    let api = node.api.to_string();
    let (status, said) =
        OnTerminal::start(&[&["query", "--store", &api], line].concat(), variables).finish();
    assert_eq!(status.code(), Some(0), "{said}");
    said
}

#[test]
fn a_terminal_is_sent_colours_and_no_control_characters_unless_that_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with(directory.path(), "a\x1b[7mmatch\u{9b}2J\x7f\n".as_bytes());
    let (raw, escaped) = ("a\x1b[7mmatch\u{9b}2J\x7f\n", "a\\x1b[7mmatch\\x9b2J\\x7f\n");
    let coloured = |text: &str| text.replace("match", "\x1b[1;31mmatch\x1b[0m");
    let q: &[&str] = &["match"];
    let with = |flags: &[&'static str]| [q, flags].concat();
    for (flags, variables, expected) in [
        (&[][..], &[][..], coloured(escaped)),
        (&[], &[("NO_COLOR", "1")], escaped.to_owned()),
        (&[], &[("TERM", "dumb")], escaped.to_owned()),
        (&["--color", "never"], &[], escaped.to_owned()),
        (&["--color=always"], &[("NO_COLOR", "1"), ("TERM", "dumb")], coloured(escaped)),
        (&["--raw"], &[], raw.to_owned()),
        (&["--raw", "--color=always"], &[], coloured(raw)),
        (&["-o"], &[], coloured("match\n")),
        (&["-c"], &[], "1\n".to_owned()),
    ] {
        assert_eq!(
            on_terminal(&node, &with(flags), variables),
            expected,
            "{flags:?} {variables:?}"
        );
    }
    let json = on_terminal(&node, &["--json", "match"], &[]);
    assert!(!json.replace('\n', "").chars().any(char::is_control), "{json:?}");
    let object: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(object["record"], raw.trim_end_matches('\n'));
    // In a pipe bytes are as they came, and colours only where they are asked for.
    assert_eq!(found(&node, &with(&[])), raw);
    assert_eq!(found(&node, &with(&["--color", "auto"])), raw);
    assert_eq!(found(&node, &with(&["--color", "always"])), coloured(raw));
}

/// A follower on the command line.
struct Follower {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Follower {
    fn start(node: &Node, line: &[&str]) -> Self {
        let mut child = Command::new(tools::binary("oklogd"))
            .args(["stream", "--store", &node.api.to_string()])
            .args(line)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended: {line:?}");
        line.trim_end().to_owned()
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next()).collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stream_begins_with_what_is_kept_and_goes_on_without_gap_or_copy() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with(directory.path(), b"kept 1\nother\nkept 2\nkept 3\n");
    let mut newest = Follower::start(&node, &["kept", "-n", "2"]);
    assert_eq!(newest.take(2), ["kept 2", "kept 3"]);
    let mut since = Follower::start(&node, &["kept", "--since", "-1h"]);
    assert_eq!(since.take(3), ["kept 1", "kept 2", "kept 3"]);
    let mut both = Follower::start(&node, &["--from", "yesterday", "-n1", "--show-topic"]);
    assert_eq!(both.next(), "default kept 3");
    let mut future = Follower::start(&node, &["--from", "now", "-n", "0", "-o", "kept 4"]);
    let mut json = Follower::start(&node, &["-n", "1", "--json"]);
    assert!(json.next().ends_with("\"record\":\"kept 3\"}"));
    wait_until("all follow", || node.metric("oklog_followers") == 5.0);
    send(node.durable, b"kept 4\n");
    for follower in [&mut newest, &mut since, &mut future] {
        assert_eq!(follower.next(), "kept 4");
    }
    assert_eq!(both.next(), "default kept 4");
    assert!(
        json.next().ends_with("\"record\":\"kept 4\"}"),
        "a query's last line is none of a stream's"
    );
}

#[test]
fn history_that_is_asked_for_while_records_come_has_each_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let count = 4_000;
    let (durable, fast) = (node.durable, node.fast);
    let writers = [durable, fast].map(|port| {
        std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(port).unwrap();
            for n in 0..count {
                stream.write_all(format!("{} {n}\n", port.port()).as_bytes()).unwrap();
            }
        })
    });
    wait_until("some have come", || {
        node.metric("oklog_ingest_writer_records_written_total") > 100.0
    });
    let mut followers =
        ["100000", "10"].map(|newest| Follower::start(&node, &["-n", newest, "--ulid"]));
    let mut whole = Follower::start(&node, &["--from", "1h", "--ulid"]);
    for writer in writers {
        writer.join().unwrap();
    }
    let written = "oklog_ingest_writer_records_written_total";
    wait_until("all have come", || node.metric(written) == 2.0 * f64::from(count));
    // What comes in another millisecond is behind them all.
    let newest: Ulid = node.query("order=desc&limit=1")[0].0.parse().unwrap();
    wait_until("it is later", || unix_time().as_millis() > u128::from(newest.ms()));
    send(durable, b"the last\n");
    let read = |follower: &mut Follower| {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.ends_with("the last")) {
            lines.push(follower.next());
        }
        lines
    };
    let streamed = read(&mut whole);
    let suffixes = followers.each_mut().map(read);
    // What a stream has shown is known to every query behind it.
    let all: Vec<String> = node
        .query("")
        .into_iter()
        .map(|(ulid, record)| format!("{ulid} {}", text(&record)))
        .collect();
    let upto = all.iter().position(|line| line.ends_with("the last")).unwrap() + 1;
    assert_eq!(streamed, all[..upto]);
    for lines in suffixes {
        assert_eq!(lines, all[upto - lines.len()..upto], "a suffix of all, {} long", lines.len());
        assert!(lines.len() >= 10);
    }
}

#[test]
fn a_stream_on_a_terminal_is_coloured_and_escaped_as_a_query_is() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with(directory.path(), b"a match\x07\n");
    let api = node.api.to_string();
    for (flags, variables, expected) in [
        (&[][..], &[][..], "a \x1b[1;31mmatch\x1b[0m\\x07\r\n"),
        (&["--raw"], &[], "a match\x07\r\n"),
        (&[], &[("NO_COLOR", "1")], "a match\\x07\r\n"),
        (&["--color", "always"], &[("TERM", "dumb")], "a \x1b[1;31mmatch\x1b[0m\\x07\r\n"),
    ] {
        let line = [&["stream", "--store", &api, "match", "-n", "1"], flags].concat();
        assert_eq!(OnTerminal::start(&line, variables).read_until("\n"), expected, "{flags:?}");
    }
}
