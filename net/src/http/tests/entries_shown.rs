//! `/api/logs` and `/api/stats`, over the wire.

use serde_json::{Value, json};

use super::fake::{BASE_MS, Server, topic};
use super::wire::{Answer, get, post, request};
use crate::http::{HttpOptions, StatsShape};
use engine::search::Missing;
use engine::ulid::Ulid;

const TIME: &str = "from=2023-11-14T22:13:20Z";

fn post_all(server: &Server, entries: &[(&str, &str, &str)]) {
    let entries: Vec<Value> = entries
        .iter()
        .map(|(level, message, service)| {
            let timestamp = "2024-05-01T12:00:00Z";
            json!({ "timestamp": timestamp, "level": level, "message": message, "service": service })
        })
        .collect();
    assert_eq!(post(server.address, "/logs", json!(entries).to_string().as_bytes()).status, 202);
}

fn messages(answer: &Answer) -> Vec<String> {
    assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let entries = answer.json();
    let of = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
    entries.as_array().unwrap().iter().map(of).collect()
}

fn server() -> Server {
    filled(HttpOptions::default())
}

fn filled(options: HttpOptions) -> Server {
    let server = Server::with(options);
    post_all(
        &server,
        &[
            ("info", "a 1", "web"),
            ("error", "b \"2\"", "Shop"),
            ("warn", "c\n3", "workshop"),
            ("error", "d ü", "web.eu"),
        ],
    );
    // What is under the topic and no entry, and an entry under another topic.
    server.inner.push(topic("log"), b"{\"level\":\"error\",\"message\":\"x\"}").unwrap();
    server.inner.push(topic("log"), b"plain").unwrap();
    let entry = b"{\"timestamp\":\"1\",\"level\":\"info\",\"message\":\"x\",\"service\":\"web\"}";
    server.inner.push(topic("other"), entry).unwrap();
    server
}

#[test]
fn entries_are_shown_newest_first_and_as_they_were_kept() {
    let server = server();
    for (query, expected) in [
        ("", &["d ü", "c\n3", "b \"2\"", "a 1"][..]),
        ("&level=error", &["d ü", "b \"2\""]),
        ("&level=ERROR&service=shop", &["b \"2\""]),
        ("&service=SHOP", &["c\n3", "b \"2\""]),
        ("&service=.", &["d ü"]),
        ("&service=*", &[]),
        ("&q=%222%22", &["b \"2\""]),
        ("&q=%0A", &["c\n3"]),
        ("&q=D", &[]),
        ("&level=&service=&q=&limit=2", &["d ü", "c\n3"]),
        ("&limit=2&offset=1", &["c\n3", "b \"2\""]),
        ("&offset=3", &["a 1"]),
        ("&offset=4", &[]),
        ("&limit=0", &[]),
        ("&level=fatal", &[]),
        ("&to=2023-11-14T22:13:20.001Z", &["b \"2\"", "a 1"]),
    ] {
        let answer = get(server.address, &format!("/api/logs?{TIME}{query}"));
        assert_eq!(messages(&answer), expected, "{query}");
    }
    let answer = get(server.address, &format!("/api/logs?{TIME}&limit=1&offset=3"));
    let expected = "[{\"timestamp\":\"2024-05-01T12:00:00Z\",\"level\":\"info\",\"message\":\"a 1\",\
                    \"service\":\"web\"}]\n";
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("x-oklog-complete"), "true");
    assert_eq!(answer.header("x-oklog-q"), "");
    // They are older than a day.
    assert_eq!(get(server.address, "/api/logs").text(), "[]\n");
}

#[test]
fn a_hundred_are_shown_unless_it_is_said_how_many() {
    let server = Server::start();
    let entries: Vec<(&str, String, &str)> =
        (0..1_200).map(|n| ("info", format!("{n} {}", "x".repeat(300)), "web")).collect();
    let entries: Vec<_> = entries.iter().map(|(l, m, s)| (*l, m.as_str(), *s)).collect();
    post_all(&server, &entries);
    let first = |query: &str| {
        let shown = messages(&get(server.address, &format!("/api/logs?{TIME}{query}")));
        let number = |text: &String| text.split(' ').next().unwrap().parse::<u32>().unwrap();
        (shown.len(), shown.first().map(number), shown.last().map(number))
    };
    assert_eq!(first(""), (100, Some(1_199), Some(1_100)));
    assert_eq!(first("&limit=1000"), (1_000, Some(1_199), Some(200)));
    assert_eq!(first("&limit=1000&offset=900"), (300, Some(299), Some(0)));
}

#[test]
fn entries_are_counted_by_level_and_service() {
    let server = server();
    let stats = |query: &str| {
        let answer = get(server.address, &format!("/api/stats?{TIME}{query}"));
        assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
        answer.json()
    };
    let found = stats("");
    let expected = json!({
        "total_logs": 4,
        "logs_by_level": { "info": 1, "warn": 1, "error": 2 },
        "logs_by_service": { "web": 1, "Shop": 1, "workshop": 1, "web.eu": 1 },
        "topic": "log",
        "complete": true,
        "missing": [],
    });
    assert_eq!(found, expected);
    post_all(&server, &[("error", "e", "Shop")]);
    let latest = |n: u64| format!("2023-11-14T22:13:20.{n:03}Z");
    for by in ["service,level", "level,service"] {
        let rows = stats(&format!("&by={by}&level=error"))["rows"].clone();
        let expected = json!([
            { "service": "Shop", "level": "error", "count": 2, "latest": latest(7) },
            { "service": "web.eu", "level": "error", "count": 1, "latest": latest(3) },
        ]);
        assert_eq!(rows, expected);
    }
    let rows = stats("&by=level")["rows"].clone();
    assert_eq!(rows[0], json!({ "level": "error", "count": 3, "latest": latest(7) }));
    assert_eq!(rows.as_array().unwrap().len(), 3);
    let found = stats("&service=shop&q=e");
    assert_eq!(
        (&found["total_logs"], &found["logs_by_service"]),
        (&json!(1), &json!({ "Shop": 1 }))
    );
    assert_eq!(stats("&level=debug")["logs_by_level"], json!({}));
    assert_eq!(get(server.address, "/api/stats").json()["total_logs"], 0);
}

fn of_missing(answer: &Answer) -> (&str, &str) {
    (answer.header("x-oklog-complete"), answer.header("x-oklog-error-count"))
}

#[test]
fn a_node_that_is_told_so_counts_as_the_server_of_oglogstream_does() {
    let server = filled(HttpOptions { api_stats: StatsShape::Array, ..HttpOptions::default() });
    let ask = |query: &str| {
        let answer = get(server.address, &format!("/api/stats?{query}"));
        assert_eq!((answer.status, answer.whole), (200, true), "{query}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(of_missing(&answer), ("true", "0"), "{query}");
        answer
    };
    let text = "[{\"level\":\"info\",\"count\":1},{\"level\":\"warn\",\"count\":1},\
                {\"level\":\"error\",\"count\":2}]\n";
    assert_eq!(ask(TIME).text(), text);
    for (query, expected) in [
        ("level=error", json!([{ "level": "error", "count": 2 }])),
        (
            "service=SHOP",
            json!([{ "level": "warn", "count": 1 }, { "level": "error", "count": 1 }]),
        ),
        ("level=ERROR&q=d", json!([{ "level": "error", "count": 1 }])),
        ("to=2023-11-14T22:13:20.000Z", json!([{ "level": "info", "count": 1 }])),
        ("by=&level=info", json!([{ "level": "info", "count": 1 }])),
        ("level=fatal", json!([])),
    ] {
        assert_eq!(ask(&format!("{TIME}&{query}")).json(), expected, "{query}");
    }
    // They are older than a day.
    assert_eq!(ask("").text(), "[]\n");
    // Who asks for rows reads the object.
    let rows = ask(&format!("{TIME}&by=level")).json();
    assert_eq!((&rows["total_logs"], rows["rows"].as_array().unwrap().len()), (&json!(4), 3));
    for (query, name) in [("limit=1", "\\\"limit\\\""), ("level=loud", "level"), ("by=host", "by")]
    {
        let answer = get(server.address, &format!("/api/stats?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(name), "{query}: {}", answer.text());
    }
    server.inner.missing.lock().unwrap().push(gone());
    let path = format!("/api/stats?{TIME}");
    for method in ["GET", "HEAD"] {
        let answer = request(server.address, method, &path, &[], b"");
        assert_eq!((answer.status, of_missing(&answer)), (200, ("false", "1")), "{method}");
        let body = if method == "HEAD" { "" } else { text };
        assert_eq!(answer.text(), body, "{method}");
    }
}

fn gone() -> Missing {
    Missing {
        from: Ulid::first_of_ms(BASE_MS),
        to: Ulid::last_of_ms(BASE_MS),
        node: "test".into(),
        reason: "gone".into(),
        damage: None,
    }
}

#[test]
fn parameters_out_of_bounds_are_named() {
    let server = server();
    for (path, name) in [
        ("/api/logs?level=loud", "level"),
        ("/api/logs?limit=1001", "limit"),
        ("/api/logs?limit=-1", "limit"),
        ("/api/logs?offset=1000001", "offset"),
        ("/api/logs?offset=x", "offset"),
        ("/api/logs?from=yesterday", "from"),
        ("/api/logs?from=1h&to=2h", "from"),
        ("/api/logs?level=info&level=warn", "level"),
        ("/api/logs?service=%FF", "service"),
        ("/api/logs?by=level", "\\\"by\\\""),
        ("/api/stats?by=host", "by"),
        ("/api/stats?by=level,level", "by"),
        ("/api/stats?limit=1", "\\\"limit\\\""),
    ] {
        let answer = get(server.address, path);
        let begin = format!("{{\"error\":\"{name}");
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().starts_with(&begin), "{path}: {}", answer.text());
    }
    let long = format!("/api/logs?service={}", "x".repeat(101));
    assert_eq!(get(server.address, &long).status, 400);
    let long = format!("/api/logs?q={}", "x".repeat(20_000));
    assert!(get(server.address, &long).text().starts_with("{\"error\":\"q"));
    assert_eq!(post(server.address, "/api/logs", b"").status, 405);
}

#[test]
fn what_is_missing_is_told() {
    let server = server();
    server.inner.missing.lock().unwrap().push(gone());
    let answer = get(server.address, &format!("/api/logs?{TIME}"));
    assert_eq!(messages(&answer).len(), 4);
    assert_eq!(answer.header("x-oklog-complete"), "false");
    let answer = get(server.address, &format!("/api/stats?{TIME}"));
    let stats = answer.json();
    assert_eq!(
        (&stats["complete"], &stats["missing"][0]["reason"]),
        (&json!(false), &json!("gone"))
    );
    assert_eq!(of_missing(&answer), ("false", "1"));
}
