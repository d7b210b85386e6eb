//! `/query` and its relatives, over the wire.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::damage::{Damage, DamageKind};
use engine::search::Missing;
use engine::search::testing::TestPart;
use engine::storage::Refusal;
use engine::ulid::Ulid;

use super::fake::{BASE_MS, Server, topic};
use super::wire::{connect, get, request, until};

const FROM: &str = "from=2023-11-14T00:00:00Z";

#[test]
fn records_come_in_order_with_their_ulids_and_headers() {
    let server = Server::with_lines(&["one", "two three", "three"]);
    let answer = get(server.address, &format!("/query?{FROM}&q=three"));
    assert_eq!((answer.status, answer.whole), (200, true));
    let expected: Vec<_> = [(1, "two three"), (2, "three")]
        .map(|(n, line)| format!("{} {line}\n", Ulid::from_parts(BASE_MS + n, 1, n)))
        .into();
    assert_eq!(answer.text(), expected.concat());
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("x-oklog-from", "2023-11-14T00:00:00.000Z"),
        ("x-oklog-q", "three"),
        ("x-oklog-regex", "false"),
        ("x-oklog-nodes-queried", "1"),
        ("x-oklog-segments-queried", "1"),
        ("x-oklog-max-data-set-size", "20"),
        ("x-oklog-error-count", "0"),
        ("x-oklog-complete", "true"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("x-oklog-duration").ends_with('s'));
    assert_eq!(answer.header("x-oklog-to"), Ulid::MAX.to_string());
}

#[test]
fn the_last_days_of_9999_are_a_bound_like_any_other() {
    let server = Server::with_lines(&["one"]);
    for (to, shown) in [
        ("9999-12-30T22:00:00.999Z", "9999-12-30T22:00:00.999Z".to_owned()),
        ("9999-12-31T23:59:59Z", Ulid::last_of_ms(253_402_300_799_000).to_string()),
    ] {
        let answer = get(server.address, &format!("/query?{FROM}&to={to}"));
        assert_eq!((answer.status, answer.records().concat()), (200, "one".to_owned()));
        assert_eq!(answer.header("x-oklog-to"), shown);
    }
}

#[test]
fn every_parameter_has_its_effect() {
    let server = Server::with_lines(&["Alpha", "beta", "alphabet"]);
    server.inner.push(topic("web"), b"gamma").unwrap();
    let after = Ulid::from_parts(BASE_MS + 1, 1, 1);
    for (parameters, expected) in [
        (String::new(), &["Alpha", "beta", "alphabet", "gamma"][..]),
        ("&q=alpha".into(), &["alphabet"]),
        ("&q=alpha&i".into(), &["Alpha", "alphabet"]),
        ("&q=alpha&i=0".into(), &["alphabet"]),
        ("&q=^a.*t$&regex=true".into(), &["alphabet"]),
        ("&q=a.%2Aa".into(), &[]),
        ("&q=a&q=p&x=A".into(), &["alphabet"]),
        ("&x=alpha&x=mm".into(), &["Alpha", "beta"]),
        ("&q=^.....$&q=a&x=^[A-Z]&regex".into(), &["gamma"]),
        ("&topic=web".into(), &["gamma"]),
        ("&topic=web&topic=default&limit=2".into(), &["Alpha", "beta"]),
        ("&order=desc&limit=3".into(), &["gamma", "alphabet", "beta"]),
        (format!("&after={after}"), &["alphabet", "gamma"]),
        (format!("&after={after}&order=desc"), &["Alpha"]),
        ("&limit=0".into(), &[]),
        ("&to=2023-11-14T22:13:20Z".into(), &["Alpha"]),
    ] {
        let answer = get(server.address, &format!("/query?{FROM}{parameters}"));
        assert_eq!(answer.status, 200, "{parameters}");
        assert_eq!(answer.records(), expected, "{parameters}");
    }
    for alias in ["/store/query", "/ingest/query"] {
        assert_eq!(get(server.address, &format!("{alias}?{FROM}&q=beta")).records(), ["beta"]);
    }
    // The default begins an hour ago.
    assert!(get(server.address, "/query").records().is_empty());
}

#[test]
fn ndjson_ends_with_a_line_about_the_whole() {
    let server = Server::with_lines(&["a \"quoted\" line"]);
    server.inner.push(topic("default"), b"\xFF").unwrap();
    let accept = [("Accept", "text/html, application/x-ndjson;q=0.9")];
    let answer = request(server.address, "GET", &format!("/query?{FROM}"), &accept, b"");
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines: Vec<serde_json::Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["record"], "a \"quoted\" line");
    assert_eq!(lines[0]["time"], "2023-11-14T22:13:20.000Z");
    assert_eq!(lines[1]["record_b64"], "/w==");
    assert_eq!(lines[2]["end"]["records"], 2);
    assert_eq!(lines[2]["end"]["complete"], true);
}

#[test]
fn text_ends_with_a_line_about_the_whole_for_those_who_ask() {
    let ask = |server: &Server| {
        let accept = [("Accept", "application/x-oklog-lines")];
        let answer = request(server.address, "GET", &format!("/query?{FROM}"), &accept, b"");
        assert_eq!(answer.header("content-type"), "application/x-oklog-lines");
        assert!(answer.whole);
        let text = answer.text();
        let (records, end) = text.trim_end().rsplit_once('\n').unwrap();
        let end: serde_json::Value =
            serde_json::from_str(end.strip_prefix("# end ").unwrap()).unwrap();
        (records.lines().map(|line| line[27..].to_owned()).collect::<Vec<_>>(), end)
    };
    let (records, end) = ask(&Server::with_lines(&["a", "# end {}"]));
    assert_eq!(records, ["a", "# end {}"]);
    assert_eq!((&end["records"], &end["complete"]), (&2.into(), &true.into()));
    assert_eq!(end["ended_early"], false);
    // A gap that shows up behind the headers breaks nothing off: the last line tells it.
    let (records, end) = ask(&server_with_late_damage());
    assert_eq!((records.len(), &end["records"]), (3900, &3900.into()));
    assert_eq!((&end["complete"], &end["missing_count"]), (&false.into(), &1.into()));
}

#[test]
fn trailers_are_sent_to_those_who_ask() {
    let server = Server::with_lines(&["x", "xy"]);
    let target = format!("/query?{FROM}&q=y");
    let asked = [("TE", "trailers"), ("Connection", "close, TE")];
    let answer = request(server.address, "GET", &target, &asked, b"");
    assert_eq!(answer.trailers["x-oklog-records"], "1");
    assert_eq!(answer.trailers["x-oklog-bytes-scanned"], "5");
    assert!(answer.trailers.contains_key("x-oklog-blocks-skipped"));
    assert!(get(server.address, &target).trailers.is_empty());
}

#[test]
fn head_reads_no_text() {
    let server = Server::start();
    let records: Vec<_> = (0..50)
        .map(|n| (Ulid::from_parts(BASE_MS + n, 1, n), topic("default"), b"line".to_vec()))
        .collect();
    let part = TestPart::new(&records, 10);
    server.inner.parts.lock().unwrap().push(part.clone());
    let answer = request(server.address, "HEAD", &format!("/query?{FROM}&q=line"), &[], b"");
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key("content-length"));
    assert_eq!(answer.header("x-oklog-segments-queried"), "1");
    assert_eq!(answer.header("x-oklog-max-data-set-size"), "250");
    assert_eq!((part.opened.load(SeqCst), part.texts_read.load(SeqCst)), (0, 0));
}

#[test]
fn a_histogram_by_topic_has_rows_for_the_largest_and_one_for_the_rest() {
    let server = Server::start();
    for n in 1..=25 {
        for _ in 0..n {
            server.inner.push(topic(&format!("t{n:02}")), b"x").unwrap();
        }
    }
    let ask = |parameters: &str| {
        get(server.address, &format!("/query/histogram?{FROM}&buckets=4{parameters}")).json()
    };
    let sum = |counts: &serde_json::Value| -> u64 {
        counts.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
    };
    let (found, plain) = (ask("&by=topic"), ask(""));
    assert_eq!((&found["counts"], &found["from"]), (&plain["counts"], &plain["from"]));
    assert_eq!((&found["to"], &found["interval_ms"]), (&plain["to"], &plain["interval_ms"]));
    let series = found["series"].as_array().unwrap();
    assert_eq!(series.len(), 21);
    assert_eq!((&series[0]["topic"], sum(&series[0]["counts"])), (&"t25".into(), 25));
    assert_eq!((&series[19]["topic"], sum(&series[19]["counts"])), (&"t06".into(), 6));
    assert_eq!((&series[20]["topic"], sum(&series[20]["counts"])), (&().into(), 1 + 2 + 3 + 4 + 5));
    for bucket in 0..4 {
        let all: u64 = series.iter().map(|row| row["counts"][bucket].as_u64().unwrap()).sum();
        assert_eq!(found["counts"][bucket], all);
    }
    let two = ask("&by=topic&topic=t07&topic=t03&topic=nowhere&q=x");
    let names: Vec<_> = two["series"].as_array().unwrap().iter().map(|row| &row["topic"]).collect();
    assert_eq!(names, ["t07", "t03"], "without a rest");
    assert!(plain.get("series").is_none());
    assert_eq!(ask("&by=topic&q=nothing")["series"], serde_json::json!([]));
}

#[test]
fn a_histogram_by_level_has_rows_for_each_that_there_is_and_one_for_none() {
    let entry =
        r#"{"timestamp":"2023-11-14T22:13:20Z","level":"debug","message":"error","service":"s"}"#;
    let server =
        Server::with_lines(&["level=error", entry, "plain", "[WARN] x", "level=error", "error"]);
    let ask = |parameters: &str| {
        let range = "from=2023-11-14T22:13:20Z&to=2023-11-14T22:13:20.005Z";
        get(server.address, &format!("/query/histogram?{range}&buckets=2{parameters}")).json()
    };
    let (mut found, plain) = (ask("&by=level"), ask(""));
    let series = found.as_object_mut().unwrap().remove("series").unwrap();
    assert_eq!(found, plain);
    assert_eq!(
        series,
        serde_json::json!([
            { "level": "error", "counts": [1, 2] },
            { "level": "warn", "counts": [0, 1] },
            { "level": "debug", "counts": [1, 0] },
            { "level": null, "counts": [1, 0] },
        ])
    );
    let some = ask("&by=level&q=level%3D");
    assert_eq!(some["series"], serde_json::json!([{ "level": "error", "counts": [1, 1] }]));
    assert_eq!(ask("&by=level&q=nothing")["series"], serde_json::json!([]));
}

#[test]
fn stats_histogram_and_topics_are_objects() {
    let server = Server::with_lines(&["a", "b", "a"]);
    server.inner.push(topic("web"), b"a").unwrap();
    let stats = get(server.address, &format!("/query?stats&{FROM}&q=a")).json();
    assert_eq!((&stats["records"], &stats["nodes"]), (&3.into(), &1.into()));
    assert_eq!((&stats["bytes"], &stats["complete"]), (&6.into(), &true.into()));

    let range = "from=2023-11-14T22:13:20Z&to=2023-11-14T22:13:20.003Z";
    let answer = get(server.address, &format!("/query/histogram?{range}&q=a&buckets=2")).json();
    assert_eq!(answer["counts"], serde_json::json!([1, 2]));
    assert_eq!(answer["interval_ms"], 2);
    assert_eq!(answer["from"], "2023-11-14T22:13:20.000Z");

    let topics = get(server.address, "/topics").json();
    let names: Vec<_> = topics["topics"].as_array().unwrap().iter().map(|t| &t["topic"]).collect();
    assert_eq!(names, ["default", "web"]);
    assert_eq!(topics["topics"][0]["records"], 3);
    assert_eq!(topics["topics"][1]["from"], "2023-11-14T22:13:20.003Z");
}

#[test]
fn what_is_known_to_be_missing_is_told_before_the_records() {
    let server = Server::with_lines(&["here"]);
    server.inner.missing.lock().unwrap().push(Missing {
        from: Ulid::first_of_ms(BASE_MS),
        to: Ulid::last_of_ms(BASE_MS),
        node: "other".to_owned(),
        reason: "gone".to_owned(),
        damage: None,
    });
    let target = format!("/query?{FROM}");
    let answer = get(server.address, &target);
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(answer.header("x-oklog-complete"), "false");
    assert_eq!(answer.header("x-oklog-error-count"), "1");
    assert_eq!(answer.records(), ["here"]);
    for path in ["/query", "/query/histogram"] {
        let denied = get(server.address, &format!("{path}?{FROM}&partial=deny"));
        assert_eq!(denied.status, 503);
        assert!(denied.json()["error"].as_str().unwrap().contains("partial"));
    }
    let head = request(server.address, "HEAD", &target, &[], b"");
    assert_eq!(head.header("x-oklog-complete"), "false");
}

/// Many records, of which the last chunk cannot be read.
fn server_with_late_damage() -> Server {
    let server = Server::start();
    let records: Vec<_> = (0..4000)
        .map(|n| (Ulid::from_parts(BASE_MS + n, 1, n), topic("default"), vec![b'x'; 4000]))
        .collect();
    // More than the buffers of a connection hold.
    let mut part = TestPart::new(&records, 100);
    part.unreadable = vec![39];
    server.inner.parts.lock().unwrap().push(part);
    server
}

#[test]
fn what_could_not_be_read_before_is_told_before_the_search_comes_to_it() {
    let server = server_with_late_damage();
    let kind = DamageKind::Unread(Refusal::of_kind(std::io::ErrorKind::NotFound));
    let (path, offset, len_bytes) = ("store/x.flushed".into(), 0, 0);
    let known = Damage { path, offset, len_bytes, range: None, records: None, kind };
    server.inner.parts.lock().unwrap()[0].known.push(known);
    let target = format!("/query?{FROM}");
    for method in ["HEAD", "GET"] {
        let answer = request(server.address, method, &target, &[], b"");
        assert_eq!((answer.status, answer.whole), (200, true), "{method}");
        assert_eq!(answer.header("x-oklog-complete"), "false", "{method}");
        assert_eq!(answer.header("x-oklog-error-count"), "1", "{method}");
    }
    assert_eq!(get(server.address, &target).records().len(), 3900);
}

#[test]
fn what_turns_out_missing_later_leaves_the_text_without_its_end() {
    let server = server_with_late_damage();
    let answer = get(server.address, &format!("/query?{FROM}"));
    assert_eq!((answer.status, answer.whole), (200, false));
    assert_eq!(answer.header("x-oklog-complete"), "true");
    assert_eq!(answer.records().len(), 3900);

    let accept = [("Accept", "application/x-ndjson")];
    let answer = request(server.address, "GET", &format!("/query?{FROM}"), &accept, b"");
    assert!(answer.whole);
    let last: serde_json::Value =
        serde_json::from_str(answer.text().lines().last().unwrap()).unwrap();
    assert_eq!(last["end"]["complete"], false);
    assert_eq!(last["end"]["missing"].as_array().unwrap().len(), 1);
}

/// Sends a request, closes the client's side, and reads all that comes.
fn half_closed(server: &Server, request: &str) -> (Vec<u8>, std::io::Result<usize>) {
    let mut stream = connect(server.address);
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    (answer, end)
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_whole_answer() {
    let server = Server::with_lines(&["one", "two"]);
    for (request, part) in [
        (format!("GET /query?{FROM} HTTP/1.1\r\nHost: localhost\r\n\r\n"), "two\n\r\n0\r\n\r\n"),
        (format!("GET /query?{FROM} HTTP/1.0\r\n\r\n"), " two\n"),
        (format!("GET /query?stats&{FROM} HTTP/1.0\r\n\r\n"), "\"records\":2"),
        ("GET /metrics HTTP/1.0\r\n\r\n".to_owned(), "oklog_queries_running 0\n"),
        ("POST /records HTTP/1.0\r\nContent-Length: 6\r\n\r\nthree\n".to_owned(), "\"records\":1"),
        (
            "POST /records HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nfour\r\n0\r\n\r\n"
                .to_owned(),
            "\"records\":1",
        ),
    ] {
        let (answer, end) = half_closed(&server, &request);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(" 200 OK\r\n") && text.contains(part), "{request}: {text}");
        assert!(end.is_ok(), "{request}: {end:?}");
    }
    assert_eq!(server.inner.records.lock().unwrap().len(), 4);
}

#[test]
fn half_a_request_is_none() {
    let server = Server::start();
    let half =
        "POST /records HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nwhole\nhalf";
    let (answer, _) = half_closed(&server, half);
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{answer:?}");
    let (answer, _) = half_closed(&server, "GET /health HTTP/1.1\r\nHost: loc");
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{answer:?}");
}

#[test]
fn an_answer_that_breaks_off_is_no_whole_one_to_http_1_0_either() {
    let server = server_with_late_damage();
    for accept in ["text/plain", "application/x-ndjson"] {
        let request = format!("GET /query?{FROM} HTTP/1.0\r\nAccept: {accept}\r\n\r\n");
        let (answer, end) = half_closed(&server, &request);
        assert!(answer.starts_with(b"HTTP/1.0 200 OK\r\n"));
        // NDJSON says it in its last line.
        assert_eq!(end.is_err(), accept == "text/plain", "{end:?}");
        assert_eq!(answer.ends_with(b"}}\n"), accept != "text/plain");
    }
    // What the server's end cuts off.
    let server = server_with_late_damage();
    let mut stream = connect(server.address);
    stream.write_all(format!("GET /query?{FROM} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    drop(server);
    assert!(stream.read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn a_client_that_leaves_ends_its_query_and_a_slow_one_holds_nobody_up() {
    let server = server_with_late_damage();
    let mut slow = connect(server.address);
    slow.write_all(format!("GET /query?{FROM} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
        .unwrap();
    let mut some = [0; 1000];
    slow.read_exact(&mut some).unwrap();
    assert_eq!(server.metrics.query.running.get(), 1);
    // It takes no more; others are answered meanwhile.
    let stats = get(server.address, &format!("/query?stats&q=x&{FROM}")).json();
    assert_eq!(stats["records"], 3900);
    drop(slow);
    until("the query has ended", || server.metrics.query.running.get() == 0);
}

#[test]
fn queries_beyond_the_limit_are_told_to_come_again() {
    let options = super::super::HttpOptions {
        queries_max: 0,
        query_turn_wait: Duration::from_millis(1),
        ..Default::default()
    };
    let server = Server::with(options);
    let answer = get(server.address, "/query");
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
}

#[test]
fn stalled_queries_count_until_they_are_read() {
    let server = server_with_late_damage();
    let options = super::super::HttpOptions {
        queries_max: 2,
        query_turn_wait: Duration::from_millis(1),
        ..Default::default()
    };
    let small = Server::with(options);
    small.inner.parts.lock().unwrap().clone_from(&server.inner.parts.lock().unwrap());
    let stalled: Vec<_> = (0..2)
        .map(|_| {
            let mut slow = connect(small.address);
            let request = format!("GET /query?{FROM} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            slow.write_all(request.as_bytes()).unwrap();
            slow.read_exact(&mut [0; 1000]).unwrap();
            slow
        })
        .collect();
    assert_eq!(get(small.address, "/query").status, 429);
    assert_eq!(small.metrics.query.refused.get(), 1);
    drop(stalled);
}

#[test]
fn what_an_expression_may_hold_is_taken_before_it_is_compiled_and_literals_hold_little() {
    let full = server_with_late_damage();
    let options = super::super::HttpOptions {
        queries_max: 3,
        query_memory_bytes: (2 * crate::limits::QUERY_BYTES_MAX + 4096) as u64,
        query_turn_wait: Duration::from_millis(1),
        ..Default::default()
    };
    let server = Server::with(options);
    server.inner.parts.lock().unwrap().clone_from(&full.inner.parts.lock().unwrap());
    let mut stalled = connect(server.address);
    let request = format!("GET /query?{FROM} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stalled.write_all(request.as_bytes()).unwrap();
    stalled.read_exact(&mut [0; 1000]).unwrap();
    let literal = format!("/query?{FROM}&q=absent&stats");
    assert_eq!(get(server.address, &literal).status, 200);
    let regex = format!("/query?{FROM}&q=[0-9]absent&regex&stats");
    let answer = get(server.address, &regex);
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
    assert!(answer.text().contains("compiled, may hold"), "{}", answer.text());
    drop(stalled);
    let used = || server.metrics.budget_used("query_memory_bytes");
    until("the stalled one has gone", || used() == 0);
    // Alone it gets all there is, and gives back what it does not need.
    assert_eq!(get(server.address, &regex).status, 200);
    let answer = get(server.address, &format!("/query?{FROM}&q=%5CpL%7B150%7D&regex&stats"));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("--query.memory-max"), "{}", answer.text());
    until("all of it is given back", || used() == 0);
}

/// A server whose search stands still while the lock is held; signs of life come in quick succession.
fn held_up_server() -> (Server, Arc<Mutex<()>>) {
    let server = Server::with(super::super::HttpOptions {
        alive_interval: Duration::from_millis(10),
        ..Default::default()
    });
    let record = (Ulid::from_parts(BASE_MS, 1, 0), topic("default"), b"one".to_vec());
    let part = TestPart::new(&[record], 1);
    let held_up = Arc::clone(&part.held_up);
    server.inner.parts.lock().unwrap().push(part);
    (server, held_up)
}

#[test]
fn whoever_asks_hears_that_a_search_which_finds_nothing_is_there() {
    let (server, held_up) = held_up_server();
    let ask = |target: &str, fields: &str| {
        let mut stream = connect(server.address);
        let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        write!(stream, "GET {target} {head}{fields}\r\n").unwrap();
        stream
    };
    let asks = "X-Oklog-Alive: true\r\n";
    for (target, accept, sign) in [
        ("/query?", "application/x-oklog-lines", "# alive {}\n"),
        ("/query?", "application/x-ndjson", "{\"alive\":{}}\n"),
        ("/query?stats&q=one&", "application/json", "\n"),
        ("/query/histogram?q=one&", "application/json", "\n"),
        ("/query/histogram?q=one&by=topic&", "application/json", "\n"),
    ] {
        let accept = format!("Accept: {accept}\r\n");
        let held = held_up.lock().unwrap();
        let whole = format!("{target}{FROM}");
        let unasked = ask(&whole, &accept);
        let mut stream = ask(&whole, &(accept + asks));
        let chunk = format!("{:X}\r\n{sign}\r\n", sign.len());
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while String::from_utf8_lossy(&bytes).matches(&chunk).count() < 3 {
            let len = stream.read(&mut piece).unwrap();
            assert!(len > 0, "it ended");
            bytes.extend_from_slice(&piece[..len]);
        }
        drop(held);
        stream.read_to_end(&mut bytes).unwrap();
        let lively = super::wire::read(&bytes, false);
        assert!(lively.whole && lively.status == 200);
        assert_eq!(lively.header("x-oklog-alive"), "1");
        assert_eq!(lively.header("x-accel-buffering"), "no");
        // Who did not ask gets the same, and nothing of that.
        let mut bytes = Vec::new();
        (&unasked).read_to_end(&mut bytes).unwrap();
        let plain = super::wire::read(&bytes, false);
        assert_eq!(plain.header("x-oklog-alive"), "");
        if target == "/query?" {
            assert_eq!(lively.text().replace(sign, ""), plain.text());
            assert!(plain.text().contains("one"));
        } else if target.contains("stats") {
            assert_eq!(
                (&lively.json()["records"], &plain.json()["records"]),
                (&1.into(), &1.into())
            );
        } else {
            assert_eq!(lively.json()["counts"], plain.json()["counts"]);
            assert_eq!(lively.json()["complete"], true);
        }
    }
}

#[test]
fn plain_text_and_counts_that_may_be_denied_have_no_signs_of_life() {
    let server = Server::with_lines(&["one"]);
    for (target, accept, alive) in [
        ("", "text/plain", ""),
        ("&stats&partial=deny", "application/json", ""),
        // Once it is known that it is not denied.
        ("&partial=deny", "application/x-ndjson", "3"),
    ] {
        let asks = [("Accept", accept), ("X-Oklog-Alive", "true")];
        let answer = request(server.address, "GET", &format!("/query?{FROM}{target}"), &asks, b"");
        assert_eq!((answer.status, answer.header("x-oklog-alive")), (200, alive), "{accept}");
    }
}

#[test]
fn health_says_within_which_time_the_head_of_an_answer_comes() {
    let server = Server::with(super::super::HttpOptions {
        query_turn_wait: Duration::from_secs(60),
        ..Default::default()
    });
    assert_eq!(get(server.address, "/health").header("x-oklog-head-within"), "130");
}
