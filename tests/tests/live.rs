//! `/ws/live` through the real binary, with a client of another make.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tests::node::Node;
use tests::sender::send;
use tests::{http, wait_until};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Request;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{HandshakeError, Message, WebSocket};

fn node(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), flags);
    (directory, node)
}

/// Opens a WebSocket; the status of the answer where there is none.
fn open(
    api: SocketAddr,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<TcpStream>, u16> {
    let mut request: Request = format!("ws://{api}/ws/live?{query}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    upgraded(TcpStream::connect(api).unwrap(), request)
}

fn upgraded(stream: TcpStream, request: Request) -> Result<WebSocket<TcpStream>, u16> {
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((websocket, _)) => Ok(websocket),
        Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            Err(answer.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

/// The next frame of text.
fn next(websocket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        match websocket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn entry(level: &str, message: &str, service: &str) -> Value {
    let timestamp = "2024-05-01T12:00:00Z";
    json!({ "timestamp": timestamp, "level": level, "message": message, "service": service })
}

fn post(node: &Node, entries: &Value) {
    let answer = http::post(node.api, "/logs", entries.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[test]
fn entries_come_as_they_are_taken_to_those_who_asked_for_them() {
    let (_directory, node) = node(&["--ingest.topic", "log"]);
    let mut all = open(node.api, "", &[]).unwrap();
    let mut errors = open(node.api, "level=error", &[]).unwrap();
    let mut shop = open(node.api, "service=SHOP", &[]).unwrap();
    let mut quoted = open(node.api, "level=info&service=web&q=%22b%22", &[]).unwrap();
    // Under the topic, and no entries.
    send(node.fast, b"plain\n{\"level\":\"error\"}\n");
    let entries = json!([
        entry("info", "a \"b\"\nc", "web"),
        entry("error", "\"level\":\"info\" b", "my-shop"),
        entry("error", &"x".repeat(10_240), "web"),
        entry("info", "last", "shop"),
    ]);
    post(&node, &entries);
    for entry in entries.as_array().unwrap() {
        assert_eq!(&next(&mut all), entry);
    }
    assert_eq!((next(&mut errors), next(&mut errors)), (entries[1].clone(), entries[2].clone()));
    assert_eq!((next(&mut shop), next(&mut shop)), (entries[1].clone(), entries[3].clone()));
    assert_eq!(next(&mut quoted), entries[0]);
    // What clients send is not looked at, but for pings and their going.
    all.send(Message::text("hello")).unwrap();
    all.send(Message::Ping(b"there?".to_vec().into())).unwrap();
    let mut answers = std::iter::from_fn(|| all.read().ok()).filter(|answer| !answer.is_ping());
    assert_eq!(answers.next(), Some(Message::Pong(b"there?".to_vec().into())));
    errors.close(None).unwrap();
    assert!(matches!(errors.read(), Ok(Message::Close(_)) | Err(_)));
    drop(shop);
    wait_until("two are left", || node.metric("oklog_followers") == 2.0);
    assert!(node.stop().success());
    let mut last = std::iter::from_fn(|| all.read().ok()).filter(|answer| !answer.is_ping());
    let Some(Message::Close(Some(frame))) = last.next() else { panic!("it says why it ends") };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "the node is stopping"));
}

#[test]
fn what_is_no_websocket_or_of_another_site_is_refused() {
    let (_directory, node) = node(&["--http.cors-origin", "http://localhost:3000"]);
    let answer = node.get("/ws/live");
    assert_eq!(answer.status, 426);
    assert_eq!(
        (&*answer.headers["upgrade"], &*answer.headers["sec-websocket-version"]),
        ("websocket", "13")
    );
    for (headers, status) in [
        (&[("origin", "http://evil.example")][..], 403),
        (&[("origin", "null")], 403),
        (&[("host", "evil.example")], 403),
        (&[("host", "evil.example"), ("origin", "http://evil.example")], 403),
        (&[("sec-websocket-version", "12")], 426),
        (&[("sec-websocket-key", "short")], 400),
        (&[("upgrade", "h2c")], 426),
    ] {
        assert_eq!(open(node.api, "", headers).unwrap_err(), status, "{headers:?}");
    }
    let (service, text) = ("x".repeat(101), "x".repeat(10_241));
    for query in [
        "level=loud",
        "level=%FF",
        "limit=1",
        "level=info&level=warn",
        &format!("service={service}"),
        &format!("q={text}"),
    ] {
        assert_eq!(open(node.api, query, &[]).unwrap_err(), 400, "{query:.60}");
    }
    let own = format!("http://{}", node.api);
    for origin in [&*own, "http://localhost:3000"] {
        assert!(open(node.api, "", &[("origin", origin)]).is_ok(), "{origin}");
    }
    // What no server should take: frames without a mask, too large ones, no frames at all.
    for bytes in [
        &b"\x81\x01x"[..],
        b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0",
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut websocket = open(node.api, "", &[]).unwrap();
        std::io::Write::write_all(websocket.get_mut(), bytes).unwrap();
        while let Ok(message) = websocket.read() {
            assert!(message.is_close() || message.is_ping(), "{message:?}");
        }
    }
    wait_until("all have gone", || node.metric("oklog_followers") == 0.0);
    post(&node, &json!([entry("info", "m", "s")]));
}

#[test]
fn a_slow_client_is_told_what_it_misses_and_nobody_waits_for_it() {
    let (_directory, node) = node(&[]);
    let before = node.anonymous_bytes();
    let mut slow: Vec<_> = (0..40).map(|_| open(node.api, "", &[]).unwrap()).collect();
    for websocket in &slow[1..] {
        // So that little waits in the system. The first one will read.
        socket2::SockRef::from(websocket.get_ref()).set_recv_buffer_size(16 << 10).unwrap();
    }
    let mut quick = open(node.api, "", &[]).unwrap();
    // Less than there is room for in a queue where all others are full.
    let batch: Value =
        (0..20).map(|n| entry("info", &format!("{n} {}", "x".repeat(10_000)), "s")).collect();
    let (sent, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Until what the system holds for them is full, too.
            while node.metric("oklog_follow_missed_records_total") < 40.0 * 50.0 {
                post(&node, &batch);
                let sent = sent.fetch_add(20, Ordering::AcqRel) + 20;
                wait_until("the quick one has them", || seen.load(Ordering::Acquire) >= sent);
            }
            post(&node, &json!([entry("info", "the end", "s")]));
        });
        loop {
            let entry = next(&mut quick);
            assert_eq!(entry["missed"], Value::Null, "it keeps up");
            if entry["message"] == "the end" {
                break;
            }
            seen.fetch_add(1, Ordering::AcqRel);
        }
    });
    let grown = node.anonymous_bytes().saturating_sub(before) >> 20;
    assert!(grown <= 150, "they hold {grown} MiB");
    // One of them begins to read: all but what it missed is there, and it is told how much that is.
    let (mut came, mut missed) = (0, 0);
    let all = sent.load(Ordering::Acquire) + 1;
    while came + missed < all {
        let entry = next(&mut slow[0]);
        match entry["missed"].as_u64() {
            Some(records) => {
                assert_eq!(
                    (&entry["level"], &entry["service"]),
                    (&json!("warn"), &json!("oklogd"))
                );
                missed += records;
            }
            None => came += 1,
        }
    }
    assert!(came > 0 && missed > 0 && came + missed == all, "{came} + {missed} of {all}");
    post(&node, &json!([entry("info", "again", "s")]));
    assert_eq!(next(&mut slow[0])["message"], "again");
}

/// A connection from another address of this machine, for which little waits in the system.
fn connect_from(address: [u8; 4], api: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&api.into()).unwrap();
    TcpStream::from(socket)
}

#[test]
fn two_thousand_slow_readers_beside_ingest_take_a_bounded_memory_and_are_told_what_they_missed() {
    if !tests::raise_descriptors(12_000) {
        return tests::skipped("two_thousand_slow…", "the limit of open files is below 12,000");
    }
    let (_directory, node) = node(&[]);
    let mut websockets: Vec<_> = (0..1_000)
        .map(|_| {
            let request = format!("ws://{}/ws/live", node.api).into_client_request().unwrap();
            upgraded(connect_from([127, 0, 0, 2], node.api), request).unwrap()
        })
        .collect();
    let mut streams: Vec<_> = (0..1_000)
        .map(|_| {
            let mut stream = connect_from([127, 0, 0, 3], node.api);
            let head = "GET /stream?topic=log HTTP/1.1\r\nHost: localhost\r\n";
            write!(stream, "{head}Accept: text/event-stream\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("all follow", || node.metric("oklog_followers") >= 2_000.0);
    let batch: Value =
        (0..20).map(|n| entry("info", &format!("{n} {}", "x".repeat(10_000)), "s")).collect();
    // Until each has missed more than it was sent.
    wait_until("they miss most", || {
        post(&node, &batch);
        node.metric("oklog_follow_missed_records_total") >= 2_000.0 * 60.0
    });
    let used = node.anonymous_bytes() >> 20;
    eprintln!("2,000 slow readers beside ingest: RssAnon {used} MiB");
    assert!(used <= 300, "they hold {used} MiB");
    let websocket = &mut websockets[999];
    while next(websocket)["missed"].as_u64().is_none_or(|missed| missed == 0) {}
    let stream = &mut streams[999];
    stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
    let lines = BufReader::new(stream).lines();
    let told = lines.map(Result::unwrap).find(|line| line.contains("missed"));
    assert!(told.is_some(), "it is told");
}

#[test]
fn the_load_generator_posts_and_follows() {
    let (_directory, node) = node(&[]);
    let api = node.api.to_string();
    let output = std::process::Command::new(tests::tools::binary("loadgen"))
        .args([
            "--json",
            "post-log",
            "--api",
            &api,
            "--records",
            "500",
            "--connections",
            "8",
            "--live",
        ])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report} {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&report).unwrap();
    for (name, expected) in [
        ("entries_accepted", 500),
        ("entries_refused", 0),
        ("live_sent", 5),
        ("live_seen", 5),
        ("live_missed", 0),
    ] {
        assert_eq!(report[name], expected, "{name}: {report}");
    }
    assert_eq!(node.get("/api/stats").json()["total_logs"], 500);
}

#[test]
fn the_load_generator_fills_a_node_and_asks_for_what_is_there() {
    let (_directory, node) = node(&[]);
    let api = node.api.to_string();
    let output = std::process::Command::new(tests::tools::binary("loadgen"))
        .args(["--json", "ask-logs", "--api", &api, "--fill", "20500", "--runs", "3"])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report} {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&report).unwrap();
    for (name, expected) in [
        ("entries", 20_500),
        ("newest_found", 100),
        ("newest_1000_found", 1_000),
        ("level_found", 100),
        ("service_found", 100),
        ("one_found", 1),
        ("level_absent_found", 0),
        ("service_absent_found", 0),
        ("text_absent_found", 0),
    ] {
        assert_eq!(report[name], expected, "{name}: {report}");
    }
    assert!(report["api_logs_p99_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
    assert_eq!(node.get("/api/stats").json()["total_logs"], 20_500);
}
