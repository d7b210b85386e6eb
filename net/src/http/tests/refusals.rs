//! Bad input on the wire: every answer is a 4xx that says what is valid, or the connection is
//! closed; the server goes on.

use std::io::{Read, Write};
use std::time::Duration;

use engine::limits::EXPRESSION_BYTES_MAX;
use proptest::prelude::*;

use super::fake::Server;
use super::wire::{connect, exchange, get, post, read, request};
use crate::http::HttpOptions;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_QUERY_BYTES_MAX};

#[test]
fn bad_parameters_are_named() {
    let server = Server::start();
    for (target, part) in [
        ("/query?from=yesterday", "from: "),
        ("/query?from=1h&to=2h", "from: "),
        ("/query?q=(&regex", "q: "),
        ("/query?q=%0A", "q: "),
        ("/query?limit=99999999999999999999999", "limit: "),
        (
            "/query?nonsense=1",
            "valid are from, to, regex, i, limit, order, after, partial, stats, context, download, q, x, topic",
        ),
        ("/query?from=1h&from=2h", "from: given twice"),
        ("/query?q=a&x=(&regex", "x: "),
        ("/query?x=%0A", "x: "),
        ("/query?q=%GG", "q: "),
        ("/query?buckets=3", "buckets"),
        ("/query/histogram?buckets=0", "buckets: "),
        ("/query/histogram?limit=1", "limit"),
        ("/topics?x", "takes none"),
        ("/_segmentstate?x=1", "takes none"),
        ("/_clusterstate?x=1", "takes none"),
    ] {
        let answer = get(server.address, target);
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(part), "{target}: {error}");
    }
    let deep = format!("/query?regex&q={}", "(".repeat(5000));
    assert_eq!(get(server.address, &deep).status, 400);
    let wide = "/query?regex&q=(%5CpL%7B1000%7D)%7B1000%7D";
    assert_eq!(get(server.address, wide).status, 400);
}

#[test]
fn unknown_paths_and_wrong_methods_are_told_apart() {
    let server = Server::start();
    for path in ["/ui/nonsense", "/nonsense", "/query/", "//", "/%00", "/store"] {
        let answer = get(server.address, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("/query"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    for (method, path, allow) in [
        ("POST", "/query", "GET,HEAD"),
        ("DELETE", "/records", "POST"),
        ("GET", "/records", "POST"),
        ("PUT", "/health", "GET,HEAD"),
        ("OPTIONS", "/query", "GET,HEAD"),
        ("NONSENSE", "/topics", "GET,HEAD"),
        ("POST", "/stream", "GET,HEAD"),
    ] {
        let answer = request(server.address, method, path, &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[test]
fn what_operators_look_at_is_there() {
    let server = Server::with_lines(&["x"]);
    let health = get(server.address, "/health");
    assert_eq!((health.status, &health.json()["status"]), (200, &"ok".into()));
    assert_eq!(health.json()["service"], "oklogd");
    assert_eq!(get(server.address, "/ready").status, 200);
    server.inner.unready.store(true, std::sync::atomic::Ordering::SeqCst);
    let ready = get(server.address, "/ready");
    assert_eq!((ready.status, &ready.json()["status"]), (503, &"degraded".into()));
    assert_eq!(ready.json()["reasons"][0], "the disk is full");
    let state = get(server.address, "/store/_segmentstate").json();
    assert_eq!(state["ingest"]["flushed"]["segments"], 0);
    let state = get(server.address, "/store/_clusterstate").json();
    assert_eq!(state["nodes"][0]["id"], state["self"], "{state}");
    let metrics = get(server.address, "/metrics");
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let open = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let open = request(server.address, "GET", "/metrics", &open, b"");
    assert!(open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.text().ends_with("# EOF\n"));
    let line = "oklog_api_request_duration_seconds_count\
                {method=\"GET\",path=\"/ready\",status_code=\"503\"} 1";
    assert!(metrics.text().lines().any(|l| l == line), "{}", metrics.text());
}

#[test]
fn names_that_are_not_its_own_are_refused_on_loopback() {
    let server = Server::start();
    let exchange = |head: &str| read(&exchange(server.address, head.as_bytes()), false);
    for (head, status, part) in [
        ("GET /health HTTP/1.1\r\nHost: evil.example\r\n", 403, "--http.host"),
        (
            "POST /records HTTP/1.1\r\nHost: e.example\r\nOrigin: http://e.example\r\n",
            403,
            "Host: ",
        ),
        (
            "POST /_drain HTTP/1.1\r\nHost: localhost\r\nOrigin: http://e.example\r\n",
            403,
            "Origin: ",
        ),
        ("GET /health HTTP/1.1\r\n", 400, "Host: not given"),
        (
            "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
            400,
            "Host: given twice",
        ),
    ] {
        let answer = exchange(&format!("{head}Connection: close\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(part), "{error}");
    }
    assert!(server.inner.records.lock().unwrap().is_empty());
    let old = exchange("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!((old.status, old.header("x-content-type-options")), (200, "nosniff"));
}

#[test]
fn pages_of_named_origins_may_send_and_read() {
    let origin = "https://ui.example";
    let sites = crate::http::Sites::new(&[], &[origin.to_owned()]).unwrap();
    let server = Server::with(HttpOptions { sites: sites.into(), ..Default::default() });
    let from = [("Origin", origin)];
    let taken = request(server.address, "POST", "/records", &from, b"x\n");
    assert_eq!((taken.status, taken.header("access-control-allow-origin")), (200, origin));
    let refused = request(server.address, "POST", "/records", &[("Origin", "https://e")], b"x\n");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, ""));
    let asks = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
    let may = request(server.address, "OPTIONS", "/records", &asks, b"");
    assert_eq!(may.status, 204);
    assert!(may.header("access-control-allow-methods").contains("POST"));
    for name in ["Last-Event-ID", "Cache-Control"] {
        assert!(may.header("access-control-allow-headers").contains(name), "of event sources");
    }
    assert_eq!(may.header("access-control-allow-origin"), origin);
}

#[test]
fn codings_of_the_transfer_that_are_not_undone_are_refused() {
    let server = Server::start();
    for (coding, expected) in [
        ("chunked", 200),
        ("Chunked", 200),
        ("gzip, chunked", 501),
        ("gzip\r\nTransfer-Encoding: chunked", 501),
        ("identity, chunked", 501),
        ("chunked, chunked", 501),
    ] {
        let head = format!(
            "POST /records HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Transfer-Encoding: {coding}\r\n\r\n2\r\nx\n\r\n0\r\n\r\n"
        );
        let answer = read(&exchange(server.address, head.as_bytes()), false);
        assert_eq!(answer.status, expected, "{coding}");
        if expected == 501 {
            let error = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains("Content-Encoding"), "{error}");
        }
    }
    assert_eq!(server.inner.records.lock().unwrap().len(), 2);
}

#[test]
fn oversized_heads_are_refused() {
    let server = Server::start();
    let long = "x".repeat(HTTP_HEAD_BYTES_MAX + 10);
    let answer = request(server.address, "GET", "/query", &[("X-Long", &long)], b"");
    assert_eq!(answer.status, 431);
    let many: Vec<_> = (0..200).map(|_| ("X-Many", "1")).collect();
    assert_eq!(request(server.address, "GET", "/query", &many, b"").status, 431);
    let target = format!("/query?q={}", &long[..HTTP_QUERY_BYTES_MAX]);
    assert_eq!(get(server.address, &target).status, 414);
    // An expression of the promised length fits, also when every third byte is encoded.
    let whole = ["%20aa".repeat(EXPRESSION_BYTES_MAX / 3), "aa".to_owned()].concat();
    for (expression, status) in [
        (whole.as_str(), 200),
        (&long[..EXPRESSION_BYTES_MAX], 200),
        (&long[..=EXPRESSION_BYTES_MAX], 400),
    ] {
        let answer = get(server.address, &format!("/query?from=1h&q={expression}"));
        assert_eq!(answer.status, status, "{} bytes: {}", expression.len(), answer.text());
    }
    let answer = read(&exchange(server.address, b"nonsense\r\n\r\n"), false);
    assert_eq!((answer.status, answer.whole), (400, true));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.json()["error"].as_str().is_some());
}

#[test]
fn a_content_length_that_is_no_number_is_named() {
    let server = Server::start();
    for length in
        ["18446744073709551616", "99999999999999999999999", "-1", "abc", "1\r\nContent-Length: 2"]
    {
        let head = format!(
            "POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        let answer = read(&exchange(server.address, head.as_bytes()), false);
        assert_eq!((answer.status, answer.header("connection")), (400, "close"), "{length}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("content-length"), "{length}: {error}");
    }
}

#[test]
fn a_head_that_stays_incomplete_gets_408_and_an_idle_connection_nothing() {
    let idle_timeout = Duration::from_millis(200);
    let server = Server::with(HttpOptions { idle_timeout, ..Default::default() });
    let answer = read(&exchange(server.address, b"GET /health HTTP/1.1\r\nHos"), false);
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    assert!(answer.whole && answer.json()["error"].as_str().unwrap().contains("head"));
    assert!(exchange(server.address, b"").is_empty());

    let mut kept_alive = connect(server.address);
    kept_alive.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    kept_alive.read_to_end(&mut answer).unwrap();
    let answer = read(&answer, false);
    assert_eq!((answer.status, answer.whole), (200, true), "nothing behind it");
}

#[test]
fn connections_beyond_the_limit_are_told_and_closed() {
    let server = Server::with(HttpOptions { connections_max: 1, ..Default::default() });
    let held = connect(server.address);
    // The first is served once its slot is taken, which the second's refusal shows.
    let answer = read(&exchange(server.address, b""), false);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.whole, "{answer:?}");
    drop(held);
    for _ in 0..1000 {
        let bytes = exchange(
            server.address,
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        );
        if bytes.starts_with(b"HTTP/1.1 200") {
            return;
        }
    }
    panic!("the slot did not come back");
}

#[test]
fn requests_of_one_connection_follow_each_other() {
    let server = Server::with_lines(&["x"]);
    let both = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n\
                 GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = String::from_utf8(exchange(server.address, both)).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_bytes_never_get_a_500(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        shaped in "(GET|POST|HEAD|CONNECT|X) [ -~]{0,40} HTTP/1.[01]\r\n([A-Za-z-]{1,20}: ?[ -~]{0,20}\r\n){0,3}\r\n[ -~]{0,20}",
    ) {
        let server = Server::start();
        for input in [&bytes[..], shaped.as_bytes()] {
            let mut stream = connect(server.address);
            let _ = std::io::Write::write_all(&mut stream, input);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
            prop_assert!(!answer.starts_with(b"HTTP/1.1 5"), "{:?}", String::from_utf8_lossy(&answer));
        }
        prop_assert_eq!(post(server.address, "/records", b"x").status, 200);
    }
}
