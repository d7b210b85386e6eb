//! `POST /log` and `POST /logs`, over the wire.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering::SeqCst;

use engine::topic::Topic;
use serde_json::{Value, json};

use super::fake::Server;
use super::wire::{connect, post, read, request, until};
use crate::backend::AppendError;
use crate::http::HttpOptions;
use crate::limits::{ENTRIES_BODY_BYTES_MAX, ENTRIES_BODY_HELD_BYTES, ENTRY_BODY_BYTES_MAX};

/// What is held: topics and records.
fn held(server: &Server) -> Vec<(String, Value)> {
    let records = server.inner.records.lock().unwrap();
    let of = |topic: &Topic, record: &[u8]| {
        (topic.as_str().to_owned(), serde_json::from_slice(record).unwrap())
    };
    records.iter().map(|(_, topic, record)| of(topic, record)).collect()
}

fn entry(message: &str) -> Value {
    json!({ "level": "INFO", "message": message, "service": "web" })
}

#[test]
fn an_entry_is_kept_durably_before_it_is_accepted() {
    let server = Server::start();
    let answer = post(server.address, "/log", entry("one\ntwo").to_string().as_bytes());
    assert_eq!(answer.status, 202);
    assert_eq!(server.inner.syncs.load(SeqCst), 1);
    let (topic, kept) = held(&server).remove(0);
    let arrival = &answer.json()["timestamp"];
    assert_eq!(answer.json(), json!({ "status": "accepted", "timestamp": arrival }));
    let expected = json!({
        "timestamp": arrival, "level": "info", "message": "one\ntwo", "service": "web"
    });
    assert_eq!((topic.as_str(), kept), ("log", expected));

    let mut timed = entry("x");
    timed["timestamp"] = json!("2024-05-01T12:00:00+02:00");
    let answer = post(server.address, "/ingest/log", timed.to_string().as_bytes());
    assert_eq!(answer.json()["timestamp"], "2024-05-01T12:00:00+02:00");
    assert_eq!(held(&server)[1].1["timestamp"], "2024-05-01T12:00:00+02:00");
}

#[test]
fn the_topic_of_entries_may_be_another() {
    let log_topic = Topic::new(b"apps").unwrap();
    let server = Server::with(HttpOptions { log_topic, ..HttpOptions::default() });
    assert_eq!(post(server.address, "/log", entry("x").to_string().as_bytes()).status, 202);
    assert_eq!(held(&server)[0].0, "apps");
}

#[test]
fn of_several_entries_all_are_kept_or_none() {
    let server = Server::start();
    let array = json!([entry("a"), entry("b")]).to_string();
    let lines = format!("{}\n{}\n", entry("c"), entry("d"));
    for body in [&array, &lines] {
        let answer = post(server.address, "/logs", body.as_bytes());
        assert_eq!((answer.status, &answer.json()["records"]), (202, &json!(2)));
        assert_eq!(answer.json()["status"], "accepted");
    }
    let messages = |server: &Server| -> Vec<Value> {
        held(server).into_iter().map(|(_, kept)| kept["message"].clone()).collect()
    };
    assert_eq!(messages(&server), ["a", "b", "c", "d"]);
    // One append and one sync each.
    let counted = (server.inner.batches.lock().unwrap().len(), server.inner.syncs.load(SeqCst));
    assert_eq!(counted, (2, 2));
    assert_eq!(post(server.address, "/logs", b"[]").json()["records"], 0);
    let many: Vec<_> = (0..50_000).map(|n| entry(&format!("{n}"))).collect();
    let (good, mut bad) = (json!(many).to_string(), many);
    bad[49_999]["level"] = json!("loud");
    let answer = post(server.address, "/logs", json!(bad).to_string().as_bytes());
    assert_eq!(answer.status, 400);
    let reason = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("entry 50000: level: \"loud\""), "{reason}");
    assert_eq!(messages(&server).len(), 4);
    assert_eq!(post(server.address, "/logs", good.as_bytes()).json()["records"], 50_000);
    assert_eq!(messages(&server).len(), 50_004);
}

#[test]
fn bodies_that_are_too_long_are_refused_as_soon_as_that_is_known() {
    let server = Server::start();
    for (path, max) in [("/log", ENTRY_BODY_BYTES_MAX), ("/logs", ENTRIES_BODY_BYTES_MAX)] {
        let mut stream = connect(server.address);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            max + 1
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(read(&answer, false).status, 413, "{path}");
        // Chunks do not say it beforehand.
        let chunk = format!("{max:x}\r\n{}\r\n1\r\n \r\n0\r\n\r\n", " ".repeat(max));
        let headers = [("Transfer-Encoding", "chunked")];
        let answer = request(server.address, "POST", path, &headers, chunk.as_bytes());
        assert_eq!(answer.status, 413, "{path}");
        // As long as it may be, it is read.
        let mut body = entry("x").to_string();
        body.push_str(&" ".repeat(max - body.len()));
        assert_eq!(post(server.address, path, body.as_bytes()).status, 202, "{path}");
        let headers = [("Content-Encoding", "gzip")];
        let answer = request(server.address, "POST", path, &headers, b"x");
        assert_eq!(answer.status, 415, "{path}");
        assert_eq!(post(server.address, &format!("{path}?topic=a"), b"{}").status, 400, "{path}");
        assert_eq!(request(server.address, "GET", path, &[], b"").status, 405, "{path}");
    }
    assert_eq!(held(&server).len(), 2);
    let ledger = server.metrics.encode();
    for name in ["entry_bodies_bytes", "entries_bodies_bytes", "lines_on_their_way_bytes"] {
        let line = format!("oklog_http_budget_used{{budget=\"{name}\"}} 0\n");
        assert!(ledger.contains(&line), "{name}: {ledger}");
    }
}

#[test]
fn a_node_that_cannot_keep_them_says_so() {
    let server = Server::start();
    for (error, status, retry) in [
        (AppendError::DiskFull, 503, true),
        (AppendError::Overloaded, 503, true),
        (AppendError::Storage("it hangs".into()), 503, true),
        (AppendError::ShuttingDown, 503, true),
        (AppendError::Draining, 503, false),
        (AppendError::NoIngester, 421, false),
    ] {
        *server.inner.fail_at.lock().unwrap() = Some((0, error.clone()));
        for (path, body) in [("/log", entry("x")), ("/logs", json!([entry("x")]))] {
            let answer = post(server.address, path, body.to_string().as_bytes());
            let has_retry = answer.headers.contains_key("retry-after");
            assert_eq!((answer.status, has_retry), (status, retry), "{error:?}");
        }
    }
    *server.inner.fail_at.lock().unwrap() = None;
    *server.inner.fail_durable.lock().unwrap() = Some(AppendError::DiskFull);
    assert_eq!(post(server.address, "/log", entry("x").to_string().as_bytes()).status, 503);
}

#[test]
fn who_sends_a_long_body_slowly_holds_room_for_it_and_gives_it_back() {
    let server = Server::start();
    let used = |server: &Server| {
        let name = "oklog_http_budget_used{budget=\"entries_bodies_bytes\"} ";
        let metrics = server.metrics.encode();
        // It is not there before the server is.
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |used| used.parse::<u64>().unwrap())
    };
    let head = format!(
        "POST /logs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {ENTRIES_BODY_BYTES_MAX}\r\n\r\n["
    );
    let mut sender = connect(server.address);
    sender.write_all(head.as_bytes()).unwrap();
    until("it holds room", || used(&server) == ENTRIES_BODY_HELD_BYTES as u64);
    // Short ones are served meanwhile, and so are single ones.
    let body = json!([entry("x")]).to_string();
    assert_eq!(post(server.address, "/logs", body.as_bytes()).status, 202);
    assert_eq!(post(server.address, "/log", entry("x").to_string().as_bytes()).status, 202);
    drop(sender);
    until("it is given back", || used(&server) == 0);
}

#[test]
fn pages_of_other_sites_send_no_entries() {
    let server = Server::start();
    let headers = [("Origin", "https://evil.example")];
    for path in ["/log", "/logs"] {
        let answer =
            request(server.address, "POST", path, &headers, entry("x").to_string().as_bytes());
        assert_eq!(answer.status, 403, "{path}");
    }
    assert!(held(&server).is_empty());
}
