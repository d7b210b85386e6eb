//! The live stream through the real binary: at once, in order, without gap or copy.

use std::collections::HashSet;

use tests::follower::Follower;
use tests::node::Node;
use tests::sender::{Acknowledged, send};
use tests::{tools, wait_until};

const SSE: &str = "Accept: text/event-stream\r\n";
const NDJSON: &str = "Accept: application/x-ndjson\r\n";

/// The records of a text stream without ULIDs.
fn lines(text: &str) -> Vec<String> {
    let records = text.lines().filter(|line| !line.starts_with('#'));
    records.map(|line| line[27..].to_owned()).collect()
}

/// The ULID of a record's line in any format.
fn ulid(line: &str) -> Option<&str> {
    let line = line.strip_prefix("data: ").unwrap_or(line);
    let line = line.strip_prefix("{\"ulid\":\"").unwrap_or(line);
    line.get(..26).filter(|id| id.starts_with("01"))
}

/// Tests with a thousand followers take turns: side by side they are slower than a condition may take.
static HEAVY: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_record_reaches_its_followers_before_it_is_anywhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(
        directory.path(),
        &["--ingest.flush-interval", "10s", "--ingest.segment-flush-age", "1h"],
    );
    let text = Follower::start(node.api, "q=l", "");
    let objects = Follower::start(node.api, "q=WORLD&i", NDJSON);
    let events = Follower::start(node.api, "q=%5Eh.*o%24&regex", SSE);
    let other = Follower::start(node.api, "topic=other", "");
    send(node.fast, b"hello\nworld\nnobody\n");
    let got = text.wait_for("both records", |text| lines(text).len() == 2);
    assert_eq!(lines(&got), ["hello", "world"]);
    let got = objects.wait_for("an object", |text| text.ends_with("}\n"));
    assert!(got.contains("\"topic\":\"default\",\"record\":\"world\"}"), "{got}");
    let got = events.wait_for("an event", |text| text.ends_with("}\n\n"));
    let first = got.split("\n\n").next().unwrap();
    assert!(first.starts_with("id: 01") && first.len() == 30, "what to resume behind: {got}");
    assert!(got.contains("\n\nid: 01") && got.contains("\ndata: {\"ulid\":\""), "{got}");
    assert_eq!(node.metric("oklog_disk_written_bytes_total"), 0.0, "nothing is written yet");
    assert_eq!(node.metric("oklog_followers"), 4.0);
    assert_eq!(other.text(), "");
    drop((text, objects, events, other));
    wait_until("they are forgotten", || node.metric("oklog_followers") == 0.0);
}

#[test]
fn what_is_kept_comes_first_and_then_what_comes_without_gap_or_copy() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let text: String = (0..5000).map(|n| format!("kept {n}\n")).collect();
    send(node.durable, text.as_bytes());
    let ids = node.query("q=kept");
    let (durable, after) = (node.durable, &ids[999].0);
    let sending = std::thread::spawn(move || {
        for n in 0..200 {
            send(durable, format!("live {n}\n").as_bytes());
        }
    });
    let followers = [
        Follower::start(node.api, &format!("after={after}"), ""),
        Follower::start(node.api, "", &format!("Last-Event-ID: {after}\r\n")),
        Follower::start(node.api, &format!("after={after}"), NDJSON),
        Follower::start(node.api, &format!("after={after}"), SSE),
    ];
    sending.join().unwrap();
    for (at, follower) in followers.iter().enumerate() {
        let got = follower.wait_for("all of it", |text| text.contains("live 199"));
        assert!(!got.contains("\"end\""), "a query's last line is none of a stream's");
        // What several shards took in one millisecond comes by ULID, not as it was sent.
        let ids: Vec<&str> = got.lines().filter_map(ulid).collect();
        assert!(ids.is_sorted(), "by ULID, for {at}");
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "each once, for {at}");
        assert_eq!(ids.len(), 4000 + 200, "all of it, for {at}");
        for n in 0..200 {
            assert!(got.contains(&format!("live {n}")), "{n} for {at}");
        }
    }
}

#[test]
fn a_stream_goes_on_behind_a_kill_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (mut after, mut got) = ("0".repeat(26), Vec::new());
    let mut acknowledged = Vec::new();
    for life in 0..4 {
        let node = Node::start(directory.path(), &[]);
        let follower = Follower::start(node.api, &format!("after={after}"), "");
        let mut sender = Acknowledged::connect(node.durable).unwrap();
        for n in 0..50 {
            let line = format!("life {life} record {n}");
            sender.send(format!("{line}\n").as_bytes()).unwrap();
            sender.wait_for(n + 1).unwrap();
            acknowledged.push(line);
        }
        let last = acknowledged.last().unwrap().clone();
        let text = follower.wait_for("the last record", |text| text.contains(&last));
        after = text.lines().last().unwrap()[..26].to_owned();
        got.extend(lines(&text));
        node.kill();
    }
    assert_eq!(got, acknowledged);
}

#[test]
fn a_slow_follower_is_told_what_it_missed_and_nobody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut slow = Follower::open(node.api, "", "");
    let other = Follower::start(node.api, "q=needle", "");
    let line = "x".repeat(999) + "\n";
    let mut sent = 0;
    while node.metric("oklog_follow_missed_records_total") == 0.0 {
        send(node.fast, format!("{}needle\n", line.repeat(2000)).as_bytes());
        sent += 1;
        assert!(sent < 100, "{sent} times 2 MB were not too much");
    }
    other.wait_for("every needle", |text| lines(text).len() == sent);
    slow.read();
    // It may fall behind once more while it reads: then there is more than one note.
    let missed = |text: &str| -> usize {
        let notes = text.lines().filter_map(|line| line.strip_prefix("# missed {\"records\":"));
        notes.map(|rest| rest.trim_end_matches('}').parse::<usize>().unwrap()).sum()
    };
    slow.wait_for("the note", |text| missed(text) > 0);
    let whole = |text: &str| lines(text).len() + missed(text) == sent * 2001;
    slow.wait_for("what was queued, and no more", whole);
}

#[test]
fn a_thousand_followers_each_get_exactly_theirs() {
    let _turn = HEAVY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let followers: Vec<Follower> =
        (0..1000).map(|n| Follower::open(node.api, &format!("q=%3Cid-{n}%3E"), "")).collect();
    let text: String = (0..20_000).map(|n| format!("record {n} <id-{}>\n", n % 2000)).collect();
    send(node.fast, text.as_bytes());
    let mut followers = followers;
    for (n, follower) in followers.iter_mut().enumerate() {
        follower.read();
        let got = follower.wait_for("ten records", |text| text.lines().count() == 10);
        let expected: HashSet<String> =
            (0..10).map(|i| format!("record {} <id-{n}>", n + i * 2000)).collect();
        assert_eq!(lines(&got).into_iter().collect::<HashSet<_>>(), expected);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib <= 300 << 10, "{kib} KiB");
}

#[test]
fn a_stream_ends_with_its_node_and_bad_parameters_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for (parameters, part) in [
        ("q=%28&regex", "q: "),
        ("after=x", "after: "),
        ("window=x", "window: "),
        ("limit=3", "limit"),
        ("topic=-", "topic: "),
    ] {
        let answer = node.get(&format!("/stream?{parameters}"));
        assert_eq!(answer.status, 400, "{parameters}");
        assert!(answer.text().contains(part), "{parameters}: {}", answer.text());
    }
    let follower = Follower::start(node.api, "", SSE);
    assert!(node.stop().success());
    follower.wait_for("its end", |text| text.contains("event: end\ndata: {"));
}

#[test]
fn the_command_line_follows_over_a_restart() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let api = node.api.to_string();
    let mut command = std::process::Command::new(tools::binary("oklogd"))
        .args(["stream", "--store", &api, "-q", "wanted"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(command.stdout.take().unwrap()).lines();
    wait_until("it follows", || node.metric("oklog_followers") == 1.0);
    send(node.durable, b"wanted 1\nnot this\nwanted 2\n");
    assert_eq!(out.next().unwrap().unwrap(), "wanted 1");
    assert_eq!(out.next().unwrap().unwrap(), "wanted 2");
    node.kill();
    let node = Node::start(directory.path(), &["--api", &api]);
    send(node.durable, b"wanted 3\n");
    assert_eq!(out.next().unwrap().unwrap(), "wanted 3");
    command.kill().unwrap();
    command.wait().unwrap();
}

/// Records of a thousand bytes, numbered.
fn thousands(name: &str, count: usize) -> String {
    let fill = "x".repeat(980);
    (0..count).map(|n| format!("{name} {n:08} {fill}\n")).collect()
}

#[test]
fn replays_that_nobody_reads_leave_room_for_queries_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--query.max-concurrent", "2"]);
    const KEPT: usize = 16_000;
    send(node.durable, thousands("kept", KEPT).as_bytes());
    let all = "0".repeat(26);
    let mut followers: Vec<Follower> = ["", NDJSON, SSE, ""]
        .iter()
        .map(|headers| Follower::open(node.api, &format!("after={all}"), headers))
        .collect();
    assert_eq!(node.query("q=kept&limit=3").len(), 3, "at once, whoever replays");
    wait_until("no replay that nobody reads holds a place", || {
        node.metric("oklog_queries_running") == 0.0
    });
    // More than their queues hold: what comes during a replay is replayed, too.
    while node.metric("oklog_follow_missed_records_total") == 0.0 {
        send(node.durable, thousands("more", 2_000).as_bytes());
    }
    send(node.durable, b"the last\n");
    let expected = node.query("").len();
    for (at, follower) in followers.iter_mut().enumerate() {
        follower.read();
        let got = follower.wait_for("the last record", |text| text.contains("the last"));
        let ids: Vec<&str> = got.lines().filter_map(ulid).collect();
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{at}");
        assert_eq!(ids.len(), expected, "all of it, for {at}");
        assert!(!got.contains("missed"), "for {at}");
    }
}

#[test]
fn a_thousand_followers_that_read_nothing_cost_the_others_little() {
    let _turn = HEAVY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let _stalled: Vec<Follower> =
        (0..1000).map(|n| Follower::open(node.api, "", [NDJSON, SSE, ""][n % 3])).collect();
    let reader = Follower::start(node.api, "q=needle", "");
    let mut sender = Acknowledged::connect(node.durable).unwrap();
    // A mebibyte is the longest record there may be.
    send(node.fast, &[&[b'y'; 1 << 20][..], b"\n"].concat());
    let mut slowest = std::time::Duration::ZERO;
    for round in 0..20 {
        send(node.fast, thousands("fill", 10_000).as_bytes());
        sender.send(format!("needle {round}\n").as_bytes()).unwrap();
        let start = std::time::Instant::now();
        sender.wait_for(round + 1).unwrap();
        slowest = slowest.max(start.elapsed());
        reader.wait_for("a needle", |text| text.contains(&format!("needle {round}\n")));
    }
    assert!(!reader.text().contains("missed"), "{}", reader.text());
    let mib = node.anonymous_bytes() >> 20;
    eprintln!("{mib} MiB anonymous, {slowest:?} at most until a record was durable");
    assert!(mib <= 300, "{mib} MiB");
    assert!(node.stop().success(), "nobody waits for them");
}

#[test]
fn what_asks_for_a_stream_wrongly_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let head = tests::http::try_request(node.api, "HEAD", "/stream", &[], b"").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    wait_until("it does not follow", || node.metric("oklog_followers") == 0.0);
    let post = tests::http::try_request(node.api, "POST", "/stream", &[], b"").unwrap();
    assert_eq!(post.status, 405);
    for id in ["x", "\u{e9}"] {
        let headers = [("Last-Event-ID", id)];
        let answer = tests::http::try_request(node.api, "GET", "/stream", &headers, b"").unwrap();
        assert_eq!(answer.status, 400, "{id}: {}", answer.text());
        assert!(answer.text().contains("Last-Event-ID"), "{}", answer.text());
    }
    // Nothing is kept behind the future; what comes is sent all the same.
    let future = Follower::start(node.api, &format!("after=7{}", "Z".repeat(25)), "");
    send(node.fast, b"now\n");
    future.wait_for("a record", |text| lines(text) == ["now"]);
    // Gone without a record that would have told.
    drop(future);
    wait_until("it is forgotten", || node.metric("oklog_followers") == 0.0);
}

#[test]
fn the_command_line_ends_with_its_reader_though_nothing_comes() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut command = std::process::Command::new(tools::binary("oklogd"))
        .args(["stream", "--store", &node.api.to_string()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it follows", || node.metric("oklog_followers") == 1.0);
    drop(command.stdout.take());
    wait_until("it ends", || command.try_wait().unwrap().is_some());
    let ended = command.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn what_the_command_line_missed_is_said_on_standard_error() {
    use std::io::{BufRead, BufReader, Read};
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut command = std::process::Command::new(tools::binary("oklogd"))
        .args(["stream", "--store", &node.api.to_string()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it follows", || node.metric("oklog_followers") == 1.0);
    while node.metric("oklog_follow_missed_records_total") == 0.0 {
        send(node.fast, thousands("\x1b[31m", 2_000).as_bytes());
    }
    let mut out = command.stdout.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut first = [0; 5];
        out.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"\x1b[31m", "no terminal, so nothing is escaped");
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    });
    let mut said = String::new();
    BufReader::new(command.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("# missed {\"records\":"), "{said}");
    command.kill().unwrap();
    command.wait().unwrap();
    reading.join().unwrap();
}
