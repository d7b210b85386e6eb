//! The interface of OgLogStream: what is accepted is safe and found, and what is not valid leaves nothing.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tests::http;
use tests::node::Node;

fn node(flags: &[&str]) -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), flags);
    (directory, node)
}

fn entry(level: &str, message: &str, service: &str) -> Value {
    json!({ "level": level, "message": message, "service": service })
}

fn post(node: &Node, path: &str, body: &Value) -> http::Answer {
    http::post(node.api, path, body.to_string().as_bytes())
}

/// The messages that are kept, sorted.
fn messages(node: &Node) -> Vec<String> {
    let kept = node.query("topic=log").into_iter().map(|(_, record)| {
        let entry: Value = serde_json::from_slice(&record).unwrap();
        entry["message"].as_str().unwrap().to_owned()
    });
    let mut messages: Vec<String> = kept.collect();
    messages.sort();
    messages
}

#[test]
fn what_was_accepted_outlives_a_kill() {
    let (directory, node) = node(&["--ingest.topic", "other"]);
    let sent = entry("Error", "card declined: \"limit\"\nüber", "payments");
    let answer = post(&node, "/log", &sent);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let several = json!([entry("info", "second", "web"), entry("debug", "third", "web")]);
    assert_eq!(post(&node, "/logs", &several).json()["records"], 2);
    node.kill();
    let node = Node::start(directory.path(), &[]);
    assert_eq!(messages(&node), ["card declined: \"limit\"\nüber", "second", "third"]);
    let kept = String::from_utf8(node.query("topic=log&q=payments").remove(0).1).unwrap();
    let timestamp = answer.json()["timestamp"].as_str().unwrap().to_owned();
    let expected = format!(
        "{{\"timestamp\":\"{timestamp}\",\"level\":\"error\",\"message\":\"card declined: \
         \\\"limit\\\"\\nüber\",\"service\":\"payments\"}}"
    );
    assert_eq!(kept, expected);
}

#[test]
fn each_of_many_that_come_at_the_same_time_is_kept_once() {
    let (_directory, node) = node(&["--http.log-topic", "apps", "--cores", "2"]);
    let (senders, each) = (64, 20);
    std::thread::scope(|scope| {
        for sender in 0..senders {
            let api = node.api;
            scope.spawn(move || {
                let stream = TcpStream::connect(api).unwrap();
                stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
                let mut answers = BufReader::new(stream.try_clone().unwrap());
                for n in 0..each {
                    let body = entry("info", &format!("{sender} {n}"), "load").to_string();
                    let head = format!(
                        "POST /log HTTP/1.1\r\nHost: {api}\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    (&stream).write_all((head + &body).as_bytes()).unwrap();
                    let answer = http::read_answer(&mut answers, "POST").unwrap();
                    assert_eq!(answer.status, 202, "{}", answer.text());
                    // Found at once, since it is acknowledged.
                    if n == each / 2 {
                        let found =
                            http::get(api, &format!("/query?topic=apps&q=%22{sender}+{n}%22"));
                        assert_eq!(found.text().lines().count(), 1, "{}", found.text());
                    }
                }
            });
        }
    });
    let kept = node.query("topic=apps");
    let distinct: HashSet<_> = kept.iter().map(|(_, record)| record.clone()).collect();
    let all = senders * each;
    assert_eq!((kept.len(), distinct.len()), (all, all));
}

#[test]
fn what_is_not_valid_names_the_field_and_leaves_nothing() {
    let (_directory, node) = node(&[]);
    let with = |field: &str, value: Value| {
        let mut entry = entry("info", "m", "s");
        entry[field] = value;
        entry.to_string()
    };
    let keys = |count: usize| {
        let keys: Vec<_> = (0..count).map(|n| format!("\"k{n}\":0")).collect();
        format!("{{{}}}", keys.join(","))
    };
    for (body, field) in [
        (with("level", json!("loud")), "level"),
        (with("level", json!(1)), "level"),
        (with("message", json!("")), "message"),
        (with("message", json!("x".repeat(10_241))), "message"),
        (with("message", json!({ "deep": [] })), "message"),
        (with("service", json!("s".repeat(101))), "service"),
        (with("service", json!(null)), "service"),
        (with("timestamp", json!("today")), "timestamp"),
        (with("timestamp", json!(0)), "timestamp"),
        (with("host", json!("x")), "host"),
        (r#"{"level":"info","message":"a","message":"b","service":"s"}"#.into(), "message"),
        (format!("{{\"message\":{}", "[".repeat(40_000)), "message"),
        (format!("{{\"level\":{}", "{\"level\":".repeat(5_000)), "level"),
        (keys(5_000), "k0"),
        ("{}".into(), "level"),
        (String::new(), "JSON"),
        ("level=info".into(), "JSON"),
    ] {
        for (path, body) in [("/log", body.clone()), ("/logs", format!("[{body}]"))] {
            if path == "/logs" && body == "[]" {
                continue;
            }
            let answer = http::post(node.api, path, body.as_bytes());
            let reason = answer.text();
            assert_eq!(answer.status, 400, "{path} {body:.60}: {reason}");
            let is_named = reason.contains(field) || (path == "/logs" && field == "JSON");
            assert!(is_named, "{path} {body:.60}: {reason}");
        }
    }
    for bytes in
        [&b"{\"level\":\"info\",\"message\":\"\xC3(\",\"service\":\"s\"}"[..], b"\xFF", b"\0"]
    {
        assert_eq!(http::post(node.api, "/log", bytes).status, 400);
    }
    assert_eq!(http::post(node.api, "/log", &[b' '; (50 << 10) + 1]).status, 413);
    let before = node.anonymous_bytes();
    // A million keys, nested as deep as fits, and texts that never end: as large as a body may be.
    for body in [
        keys(600_000),
        "[".repeat(8 << 20),
        "{\"level\":".repeat(900_000),
        format!("[{{\"message\":\"{}", "\\u0041".repeat(1_300_000)),
        format!("[{}{{}}]", format!("{},", entry("info", "m", "s")).repeat(150_000)),
    ] {
        let answer = http::post(node.api, "/logs", body.as_bytes());
        assert_eq!(answer.status, 400, "{body:.60}: {:.200}", answer.text());
    }
    assert_eq!(http::post(node.api, "/logs", &vec![b' '; (8 << 20) + 1]).status, 413);
    let grown = node.anonymous_bytes().saturating_sub(before) >> 20;
    assert!(grown <= 100, "it holds {grown} MiB more");
    assert!(node.query("").is_empty());
}

#[test]
fn pages_of_other_sites_and_other_names_are_refused() {
    let (_directory, node) = node(&["--http.cors-origin", "http://localhost:3000"]);
    let body = entry("info", "m", "s").to_string();
    let send = |headers: &[(&str, &str)]| {
        http::request(node.api, "POST", "/log", headers, body.as_bytes()).status
    };
    assert_eq!(send(&[("Origin", "https://evil.example")]), 403);
    assert_eq!(send(&[("Origin", "null")]), 403);
    assert!(node.query("").is_empty());
    assert_eq!(send(&[("Origin", "http://localhost:3000")]), 202);
    let mut stream = TcpStream::connect(node.api).unwrap();
    let head = "POST /log HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    let answer = http::read_answer(&mut BufReader::new(stream), "POST").unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(node.query("").len(), 1);
}

#[test]
fn entries_are_shown_and_counted_wherever_they_are() {
    let (directory, node) = node(&[]);
    let levels = ["debug", "info", "warn", "error"];
    let many = |from: usize, to: usize| -> Value {
        let one = |n: usize| {
            entry(levels[n % 4], &format!("entry {n} of many"), &format!("app-{}", n % 3))
        };
        (from..to).map(one).collect()
    };
    assert_eq!(post(&node, "/logs", &many(0, 600)).status, 202);
    node.settle();
    assert_eq!(post(&node, "/logs", &many(600, 1_000)).status, 202);
    let shown = |node: &Node, query: &str| -> Vec<String> {
        let answer = node.get(&format!("/api/logs?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let entries = answer.json();
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        entries.as_array().unwrap().iter().map(message).collect()
    };
    let expected = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<String> {
        numbers.map(|n| format!("entry {n} of many")).collect()
    };
    let check = |node: &Node| {
        assert_eq!(shown(node, ""), expected(&mut (900..1_000).rev()));
        let numbers = &mut (0..1_000).rev().filter(|n| n % 4 == 3 && n % 3 == 1).skip(40).take(50);
        assert_eq!(shown(node, "level=error&service=APP-1&offset=40&limit=50"), expected(numbers));
        assert_eq!(shown(node, "q=entry+17+of"), ["entry 17 of many"]);
        let stats = node.get("/api/stats?by=level").json();
        assert_eq!(stats["total_logs"], 1_000);
        assert_eq!(
            stats["logs_by_level"],
            json!({ "debug": 250, "info": 250, "warn": 250, "error": 250 })
        );
        assert_eq!(stats["logs_by_service"], json!({ "app-0": 334, "app-1": 333, "app-2": 333 }));
        assert_eq!(stats["rows"].as_array().unwrap().len(), 4);
        assert_eq!(node.get("/api/stats?level=warn&service=app-2").json()["total_logs"], 84);
    };
    check(&node);
    assert!(node.stop().success());
    check(&Node::start(directory.path(), &[]));
}

#[test]
fn a_node_that_is_told_so_counts_levels_in_the_array_of_oglogstream() {
    let (_directory, node) = node(&["--http.api-stats", "array"]);
    let stats = |query: &str| {
        let answer = node.get(&format!("/api/stats{query}"));
        assert_eq!((answer.status, &*answer.headers["x-oklog-complete"]), (200, "true"));
        answer.text()
    };
    assert_eq!(stats(""), "[]\n");
    let sent =
        json!([entry("warn", "a", "web"), entry("fatal", "b", "web"), entry("WARN", "c", "db")]);
    assert_eq!(post(&node, "/logs", &sent).status, 202);
    let expected = "[{\"level\":\"warn\",\"count\":2},{\"level\":\"fatal\",\"count\":1}]\n";
    assert_eq!(stats(""), expected);
    node.settle();
    assert_eq!(stats(""), expected, "and as the store tells");
    assert_eq!(stats("?service=DB&from=1h"), "[{\"level\":\"warn\",\"count\":1}]\n");
    let rows: Value = serde_json::from_str(&stats("?by=level")).unwrap();
    assert_eq!((&rows["total_logs"], &rows["logs_by_level"]["warn"]), (&json!(3), &json!(2)));
}

#[test]
fn a_level_that_is_rare_is_found_without_a_look_at_everything() {
    // As good as may be: what passes by chance is the signature's affair, not that of the question.
    let (_directory, node) = node(&["--store.signature-percent", "100", "--cores", "2"]);
    // As varied as logs are: some thousand words.
    let mut random = 1_u64;
    let mut word = || {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = (random >> 40) as usize % 4_096;
        let syllables = ["ka", "lo", "mi", "ne", "pu", "ra", "so", "ti"];
        (0..4).map(|at| syllables[number >> (3 * at) & 7]).collect::<String>()
    };
    let many: Value = (0..25_000)
        .map(|n| {
            let level = if n == 12_000 { "fatal" } else { "info" };
            let service = if n == 3_000 { "rare-service" } else { "web" };
            let words: Vec<String> = (0..20).map(|_| word()).collect();
            entry(level, &words.join(" "), service)
        })
        .collect();
    assert_eq!(post(&node, "/logs", &many).status, 202);
    node.settle();
    // There is only one of each rare kind, so all of the range is asked for another one.
    for query in ["limit=2&level=fatal", "limit=2&service=RARE-SERV", "limit=1"] {
        let path = format!("/api/logs?{query}");
        let answer = http::request(node.api, "GET", &path, &[("TE", "trailers")], b"");
        assert_eq!(answer.json().as_array().unwrap().len(), 1, "{query}");
        let count = |name: &str| answer.headers[name].parse::<u64>().unwrap();
        if query == "limit=1" {
            // Two threads look at a few blocks ahead of what is shown.
            assert!(count("x-oklog-bytes-scanned") < 4 << 20, "{:?}", answer.headers);
        } else {
            // Of some thirteen blocks.
            assert!(count("x-oklog-blocks-skipped") >= 6, "{query}: {:?}", answer.headers);
        }
    }
}

#[test]
fn what_is_asked_of_entries_beyond_its_bounds_is_named() {
    let (_directory, node) = node(&[]);
    let long = |count: usize| "x".repeat(count);
    for (query, field) in [
        ("level=loud".into(), "level"),
        ("level=%FF".into(), "level"),
        (format!("service={}", long(101)), "service"),
        (format!("q={}", long(10_241)), "q"),
        ("from=yesterday".into(), "from"),
        ("to=%00".into(), "to"),
        ("level=info&level=warn".into(), "level"),
        ("host=x".into(), "host"),
    ] {
        for path in ["/api/logs", "/api/stats"] {
            let answer = node.get(&format!("{path}?{query}"));
            let reason = answer.text();
            assert_eq!(answer.status, 400, "{path} {query:.60}: {reason}");
            assert!(reason.contains(field), "{path} {query:.60}: {reason}");
        }
    }
    for (request, field) in [
        ("/api/logs?limit=1001", "limit"),
        ("/api/logs?limit=-1", "limit"),
        ("/api/logs?limit=1e3", "limit"),
        ("/api/logs?offset=1000001", "offset"),
        ("/api/stats?by=host", "by"),
        ("/api/stats?by=level,level", "by"),
        ("/api/stats?limit=1", "limit"),
    ] {
        let answer = node.get(request);
        assert_eq!(answer.status, 400, "{request}: {}", answer.text());
        assert!(answer.text().contains(field), "{request}: {}", answer.text());
    }
}

#[test]
fn bodies_that_hardly_come_give_way_to_one_that_comes() {
    let (_directory, node) = node(&[]);
    // Each says that it will be as long as any, so that the two have all the room that is their address's.
    let slow = [(); 2].map(|()| {
        let mut stream = TcpStream::connect(node.api).unwrap();
        let head = format!("POST /logs HTTP/1.1\r\nHost: {}\r\n", node.api);
        let length = 8 << 20;
        write!(stream, "{head}Content-Length: {length}\r\n\r\n[").unwrap();
        stream
    });
    let budget = |name: &str| {
        node.metric(&format!("oklog_http_budget_used{{budget=\"entries_bodies_bytes{name}\"}}"))
    };
    tests::wait_until("both have their room", || budget("") >= f64::from(48 << 20));
    assert!(budget("_of_address") >= f64::from(48 << 20));
    let many: Value = (0..10_000).map(|n| entry("info", &format!("entry {n}"), "quick")).collect();
    let answer = post(&node, "/logs", &many);
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["records"], 10_000);
    // One of them was enough.
    let told = slow.into_iter().filter(|stream| {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let answer = http::read_answer(&mut BufReader::new(stream), "POST");
        answer.is_ok_and(|answer| answer.status == 408)
    });
    assert!(told.count() >= 1, "who gives way is told");
}
