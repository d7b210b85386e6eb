//! `POST /records`, over the wire.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering::SeqCst;

use super::fake::Server;
use super::wire::{connect, post, request, until};
use crate::backend::AppendError;
use crate::http::HttpOptions;
use crate::limits::{APPEND_BATCH_BYTES_MAX, LINES_ON_THEIR_WAY_BYTES_MAX};

fn held(server: &Server) -> Vec<String> {
    let records = server.inner.records.lock().unwrap();
    records.iter().map(|(_, _, text)| String::from_utf8_lossy(text).into_owned()).collect()
}

#[test]
fn records_are_taken_byte_for_byte_and_told_once_they_are_safe() {
    let server = Server::start();
    let answer = post(server.address, "/records?topic=web&mode=durable", b"a\r\n\nb\0\xFFc");
    assert_eq!(answer.status, 200);
    let (records, ids) = {
        let records = server.inner.records.lock().unwrap();
        let ids: Vec<_> = records.iter().map(|(id, ..)| id.to_string()).collect();
        (records.iter().map(|(_, _, text)| text.clone()).collect::<Vec<_>>(), ids)
    };
    assert_eq!(records, [&b"a\r"[..], b"", b"b\0\xFFc"]);
    let expected = serde_json::json!({ "records": 3, "first": ids[0], "last": ids[2] });
    assert_eq!(answer.json(), expected);
    assert_eq!(server.inner.syncs.load(SeqCst), 1);
    assert_eq!(server.inner.records.lock().unwrap()[0].1.as_str(), "web");

    assert_eq!(post(server.address, "/ingest/records?mode=fast", b"d").json()["records"], 1);
    assert_eq!(server.inner.syncs.load(SeqCst), 1);
    // Without a mode the stronger promise holds.
    assert_eq!(post(server.address, "/records", b"e\n").status, 200);
    assert_eq!(server.inner.syncs.load(SeqCst), 2);
}

#[test]
fn an_empty_body_is_no_record() {
    let server = Server::start();
    let answer = post(server.address, "/records", b"").json();
    assert_eq!(answer, serde_json::json!({ "records": 0, "first": null, "last": null }));
    assert!(held(&server).is_empty());
}

#[test]
fn bodies_may_be_chunked_and_compressed() {
    let server = Server::start();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"from gzip\n").unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&b"from zstd\n"[..], 1).unwrap();
    for (coding, body) in [("gzip", &gzip[..]), ("zstd", &zstd), ("identity", b"plain")] {
        let headers = [("Content-Encoding", coding)];
        let answer = request(server.address, "POST", "/records", &headers, body);
        assert_eq!(answer.json()["records"], 1, "{coding}: {answer:?}");
    }
    let headers = [("Transfer-Encoding", "chunked")];
    let body = b"5\r\nchu\nn\r\n4\r\nked\n\r\n0\r\n\r\n";
    let answer = request(server.address, "POST", "/records", &headers, body);
    assert_eq!(answer.json()["records"], 2);
    assert_eq!(held(&server), ["from gzip", "from zstd", "plain", "chu", "nked"]);
}

#[test]
fn long_bodies_go_in_batches_of_whole_lines_and_long_lines_are_cut() {
    let server = Server::start();
    let line = "x".repeat(999) + "\n";
    let body = line.repeat(2000) + &"y".repeat((2 << 20) + 5);
    assert_eq!(post(server.address, "/records", body.as_bytes()).json()["records"], 2003);
    let batches = server.inner.batches.lock().unwrap();
    let (small, large): (Vec<_>, Vec<_>) =
        batches.iter().partition(|&&len| len <= APPEND_BATCH_BYTES_MAX);
    // Pieces are put together, unless the sender has paused.
    assert!(small.iter().any(|&&len| len > APPEND_BATCH_BYTES_MAX / 2));
    assert_eq!(large, [&((1 << 20) + 1), &((1 << 20) + 1)]);
    assert_eq!(held(&server).last().unwrap().len(), 5);
    assert_eq!(server.metrics.ingest.cut_records.get(), 2);
}

#[test]
fn a_body_that_is_too_long_is_refused_and_what_was_kept_is_told() {
    let server = Server::with(HttpOptions { body_bytes_max: 1_000_000, ..Default::default() });
    let body = vec![b'\n'; 1_000_001];
    let answer = post(server.address, "/records", &body);
    assert_eq!((answer.status, &answer.json()["kept"]), (413, &0.into()));

    // A long body is refused before it has come, and its sender reads that nevertheless.
    let answer = post(server.address, "/records", &vec![b'x'; 20 << 20]);
    assert_eq!((answer.status, answer.whole), (413, true));

    // Where the length is not announced, it is found out on the way.
    let packed = zstd::encode_all(&vec![b'\n'; 50 << 20][..], 1).unwrap();
    let headers = [("Content-Encoding", "zstd")];
    let answer = request(server.address, "POST", "/records", &headers, &packed);
    assert_eq!(answer.status, 413);
    let kept = answer.json()["kept"].as_u64().unwrap() as usize;
    assert_eq!(kept, held(&server).len());
    assert!(kept > 0 && kept <= 1_000_000);
}

#[test]
fn refusals_name_what_is_wrong() {
    let server = Server::start();
    for (target, headers, body, status, part) in [
        ("/records?mode=bulk", &[][..], &b"x"[..], 400, "replicate"),
        ("/records?mode=x", &[], b"x", 400, "; valid is durable or fast."),
        ("/records?topic=-", &[], b"x", 400, "topic: "),
        ("/records?nonsense", &[], b"x", 400, "topic, mode"),
        ("/records", &[("Content-Encoding", "br")], b"x", 415, "gzip or zstd"),
        ("/records", &[("Content-Encoding", "gzip")], b"not gzip", 400, "gzip"),
        ("/records", &[("Content-Encoding", "zstd")], b"not zstd at all", 400, "zstd"),
        ("/records", &[("Transfer-Encoding", "chunked")], b"zz\r\n", 400, "body"),
        ("/records", &[("Origin", "http://elsewhere")], b"x", 403, "Origin"),
    ] {
        let answer = request(server.address, "POST", target, headers, body);
        assert_eq!(answer.status, status, "{target} {headers:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned() + ".";
        assert!(error.contains(part), "{target}: {error}");
    }
    assert!(held(&server).is_empty());
}

#[test]
fn a_failure_of_the_node_tells_for_how_many_the_promise_holds() {
    for (error, status, retry) in [
        (AppendError::DiskFull, 503, "1"),
        (AppendError::Overloaded, 429, "1"),
        (AppendError::ShuttingDown, 503, "1"),
        (AppendError::Storage("EIO".to_owned()), 503, "1"),
    ] {
        let server = Server::start();
        *server.inner.fail_at.lock().unwrap() = Some((300, error.clone()));
        let line = "x".repeat(999) + "\n";
        let answer = post(server.address, "/records", line.repeat(1000).as_bytes());
        assert_eq!((answer.status, answer.header("retry-after")), (status, retry), "{error:?}");
        // Whole batches came through, and nothing behind them.
        let kept = answer.json()["kept"].as_u64().unwrap() as usize;
        assert!(kept > 0 && kept <= 300, "{kept}");
        assert_eq!(server.inner.syncs.load(SeqCst), 1);

        let server = Server::start();
        *server.inner.fail_durable.lock().unwrap() = Some(error);
        let answer = post(server.address, "/records", b"x\n");
        assert_eq!((answer.status, &answer.json()["kept"]), (status, &0.into()));
        assert_eq!(post(server.address, "/records?mode=fast", b"x\n").status, 200);
    }
}

#[test]
fn a_connection_that_breaks_keeps_the_whole_lines_and_drops_the_partial_one() {
    let server = Server::start();
    let mut stream = connect(server.address);
    let head =
        "POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nwhole\npart";
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream);
    // The next request on the same thread is answered behind the broken one, or soon after.
    for _ in 0..1000 {
        if held(&server) == ["whole"] {
            return;
        }
        let _ = super::wire::get(server.address, "/health");
    }
    panic!("{:?}", held(&server));
}

/// Opens a request whose body goes on with every piece that is written.
fn open_request(server: &Server, headers: &str) -> TcpStream {
    let mut stream = connect(server.address);
    let head = format!(
        "POST /records HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn chunk(stream: &mut TcpStream, bytes: &[u8]) {
    let head = format!("{:x}\r\n", bytes.len());
    stream.write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).unwrap();
}

/// Waits until the node holds these records; each look is a request that is answered.
fn until_held(server: &Server, expected: &[&str]) {
    for _ in 0..10_000 {
        if held(server) == expected {
            return;
        }
        let _ = super::wire::get(server.address, "/health");
    }
    panic!("{:?}", held(server));
}

#[test]
fn whole_lines_do_not_wait_for_a_sender_that_thinks() {
    let server = Server::start();
    let mut stream = open_request(&server, "");
    chunk(&mut stream, b"one\ntw");
    until_held(&server, &["one"]);
    chunk(&mut stream, b"o\nthree");
    until_held(&server, &["one", "two"]);
    chunk(&mut stream, b"");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"records\":3"), "{answer}");
    assert_eq!(held(&server), ["one", "two", "three"]);
}

#[test]
fn senders_that_trickle_leave_the_turn_to_others() {
    let options = HttpOptions { records_requests_max: 1, ..Default::default() };
    let server = Server::with(options);
    let mut open: Vec<_> = (0..5).map(|_| open_request(&server, "")).collect();
    for stream in &mut open {
        chunk(stream, b"x\npartial");
    }
    until_held(&server, &["x"; 5]);
    assert_eq!(post(server.address, "/records", b"between\n").status, 200);
    for mut stream in open {
        chunk(&mut stream, b"");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"records\":2"), "{answer}");
    }
    assert_eq!(held(&server).len(), 11);
}

#[test]
fn nothing_behind_refused_records_is_taken() {
    let server = Server::start();
    let mut stream = open_request(&server, "");
    chunk(&mut stream, b"taken\n");
    until_held(&server, &["taken"]);
    *server.inner.fail_at.lock().unwrap() = Some((1, AppendError::Overloaded));
    let line = "x".repeat(999) + "\n";
    chunk(&mut stream, line.repeat(300).as_bytes());
    chunk(&mut stream, b"");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("429") && answer.contains("\"kept\":1"), "{answer}");
    assert_eq!(held(&server), ["taken"]);
}

/// Leaves in a way that shows.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn lines_count_until_the_shard_lets_go_of_them_also_when_their_request_has_gone() {
    let server = Server::start();
    *server.inner.kept.lock().unwrap() = Some(Vec::new());
    let used = || server.metrics.budget_used("lines_on_their_way_bytes");
    let long_lines = || server.metrics.budget_used("long_lines_bytes");
    let mut stream = open_request(&server, "");
    chunk(&mut stream, b"waits for the backlog\n");
    until("the shard has it", || server.inner.kept.lock().unwrap().iter().flatten().count() == 1);
    assert_eq!(used(), 22);
    reset(stream);
    let connected = server.metrics.connected_clients("http");
    until("the request has gone", || connected.get() == 0);
    assert_eq!(used(), 22, "its memory has not");
    *server.inner.kept.lock().unwrap() = None;
    assert_eq!(used(), 0);
    // A long line goes with the room that it had.
    *server.inner.kept.lock().unwrap() = Some(Vec::new());
    let mut stream = open_request(&server, "");
    chunk(&mut stream, &vec![b'x'; 100_000]);
    until("it has room", || long_lines() > 100_000);
    chunk(&mut stream, &[&vec![b'x'; 300_000][..], b"\nshort"].concat());
    until("the shard has it", || server.inner.kept.lock().unwrap().iter().flatten().count() == 1);
    assert!(long_lines() > 400_000 && used() == 0);
    reset(stream);
    until("the request has gone", || connected.get() == 0);
    assert!(long_lines() > 400_000);
    *server.inner.kept.lock().unwrap() = None;
    assert_eq!(long_lines(), 0);
}

#[test]
fn who_waits_behind_lines_that_are_stuck_hears_of_the_disk_at_once() {
    let server = Server::start();
    *server.inner.kept.lock().unwrap() = Some(Vec::new());
    let kept = || server.inner.kept.lock().unwrap().iter().flatten().count();
    let used = || server.metrics.budget_used("lines_on_their_way_bytes");
    // Requests give up, their lines stay with the shard. One line each: it goes whole or not at all.
    let line = [&vec![b'x'; 60_000][..], b"\n"].concat();
    let most = LINES_ON_THEIR_WAY_BYTES_MAX as i64;
    while used() + line.len() as i64 <= most {
        let (before, mut stream) = (kept(), open_request(&server, ""));
        chunk(&mut stream, &line);
        until("the shard has it", || kept() > before);
        reset(stream);
    }
    let connected = server.metrics.connected_clients("http");
    until("all have gone", || connected.get() == 0);
    let (used_before, kept_before) = (used(), kept());
    let mut stream = open_request(&server, "");
    chunk(&mut stream, &line);
    // Its turn is taken, so it is there; what it wants is not.
    until("it waits", || server.metrics.budget_used("records_turns") == 1);
    server.inner.trouble.send_replace(Some(AppendError::Storage("sync: hangs".to_owned())));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("sync: hangs"), "{answer}");
    assert_eq!((used(), kept()), (used_before, kept_before));
}
