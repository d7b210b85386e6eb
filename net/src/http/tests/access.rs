//! Who may do what, on every route of the table.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;

use engine::search::Missing;
use engine::ulid::Ulid;
use serde_json::{Value, json};

use super::fake::{self, BASE_MS, Inner, Server, topic};
use super::wire::{Answer, connect, request, until};
use crate::access::{Authority, Entry, Grant, Reason, Right, Rights, Table, digest};
use crate::http::admission::Need;
use crate::http::router::declared;
use crate::http::{App, HttpOptions};
use crate::metrics::NodeMetrics;

/// What no answer may tell.
const HIDDEN_TOPIC: &str = "hidden";
const HIDDEN_TEXT: &str = "hush";

fn entry(name: &str, token: Option<&str>, rights: &[Right], topics: Option<&[&str]>) -> Entry {
    let rights = rights.iter().fold(Rights::default(), |all, right| all.and(*right));
    let topics = topics.map(|topics| topics.iter().map(|name| topic(name)).collect());
    let grant = Grant { name: name.into(), rights, topics };
    Entry { key: token.map(|token| digest(token.as_bytes())), grant }
}

/// A token for each right, one for all of them, and one for the topic `shown`.
fn entries() -> Vec<Entry> {
    let mut all = vec![
        entry("all", Some("all"), &Right::ALL, None),
        entry("shown", Some("shown"), &[Right::Read, Right::Write], Some(&["shown"])),
        entry("log", Some("log"), &[Right::Read, Right::Write], Some(&["log", "shown"])),
    ];
    all.extend(Right::ALL.map(|right| entry(right.name(), Some(right.name()), &[right], None)));
    all
}

fn options() -> HttpOptions {
    let authority = Authority::of(Table::new(entries()).unwrap());
    HttpOptions { authority, ..HttpOptions::default() }
}

fn ask(server: &Server, method: &str, target: &str, token: Option<&str>, body: &[u8]) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|value| ("Authorization", &**value)).collect();
    request(server.address, method, target, &headers, body)
}

fn get(server: &Server, target: &str, token: &str) -> Answer {
    ask(server, "GET", target, Some(token), b"")
}

fn error(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

/// Records of three topics between each other; of the hidden one unless it is left out.
fn fill(server: &Server, has_hidden: bool) {
    let entry = "{\"timestamp\":\"2024-05-01T12:00:00Z\",\"level\":\"info\",\"message\":\"m\",\"service\":\"s\"}";
    let mut records = Vec::new();
    for n in 0..40 {
        let (name, text) = match n % 4 {
            0 => ("shown", format!("seen {n}")),
            1 => ("log", entry.to_owned()),
            _ => (HIDDEN_TOPIC, format!("{HIDDEN_TEXT} {n} seen")),
        };
        if has_hidden || name != HIDDEN_TOPIC {
            records.push((Ulid::from_parts(BASE_MS + n, 1, n), topic(name), text.into_bytes()));
        }
    }
    *server.inner.records.lock().unwrap() = records;
    let reason = if has_hidden { "13 records of the file hush are lost" } else { "other" };
    let (from, to) = (Ulid::first_of_ms(BASE_MS + 50), Ulid::last_of_ms(BASE_MS + 60));
    let missing = Missing { from, to, node: "test".into(), reason: reason.into(), damage: None };
    *server.inner.missing.lock().unwrap() = vec![missing];
}

fn paths() -> Vec<(&'static str, Need)> {
    let backend = fake::backend(&Arc::new(Inner::default()));
    let app = App::new(backend, Arc::new(NodeMetrics::new(1)), options());
    declared(&Arc::new(app))
}

#[test]
fn every_route_refuses_those_who_may_not() {
    let server = Server::with(options());
    fill(&server, true);
    for (path, need) in paths() {
        let target = path.replace("{set}", "x").replace("{name}", "y");
        let may_not: &[Option<&str>] = match need {
            Need::Nothing => &[],
            Need::Somebody => &[None, Some("nobody's")],
            Need::Right(Right::Read) => &[None, Some("nobody's"), Some("write"), Some("admin")],
            Need::Right(Right::Write) => &[None, Some("nobody's"), Some("read"), Some("admin")],
            Need::Right(Right::Admin) => &[None, Some("nobody's"), Some("read"), Some("shown")],
            Need::Everything => &[None, Some("nobody's"), Some("write"), Some("shown")],
        };
        for method in ["GET", "HEAD", "POST", "PUT"] {
            for token in may_not {
                let answer = ask(&server, method, &target, *token, b"x");
                let is_known = token.is_some_and(|token| token != "nobody's");
                let expected = if is_known { 403 } else { 401 };
                let what = format!("{method} {target} with {token:?}");
                assert!([expected, 405].contains(&answer.status), "{what}: {}", answer.status);
                if answer.status == 401 {
                    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"oklogd\"");
                }
                let body = String::from_utf8_lossy(&answer.body);
                let text = format!("{:?} {body}", answer.headers);
                assert!(!text.contains(HIDDEN_TEXT), "{what}");
            }
            let answer = ask(&server, method, &target, None, b"{}");
            if need == Need::Nothing {
                assert!(![401, 403].contains(&answer.status), "{method} {target}");
            }
        }
    }
    let metrics = &server.metrics.access;
    assert!(metrics.refused(Reason::NoToken).get() > 10);
    assert!(metrics.refused(Reason::WrongToken).get() > 10);
    assert!(metrics.refused(Reason::Right).get() > 10);
}

/// What an answer says, without what time it took, and without what time it was.
fn said(answer: &Answer) -> String {
    let mut headers: Vec<String> =
        answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    headers.retain(|field| !field.starts_with("x-oklog-duration") && !field.starts_with("date"));
    headers.sort();
    let mut trailers: Vec<_> = answer.trailers.iter().collect();
    trailers.sort();
    let mut body = String::from_utf8_lossy(&answer.body).into_owned();
    if let Ok(mut object) = serde_json::from_slice::<Value>(&answer.body) {
        for name in ["seconds", "cpu_seconds", "timestamp"] {
            if object.get(name).is_some() {
                object[name] = 0.into();
            }
        }
        body = object.to_string();
        headers.retain(|field| !field.starts_with("content-length"));
    }
    format!("{} {headers:?} {body} {trailers:?} {}", answer.status, answer.whole)
}

#[test]
fn whoever_may_see_a_topic_is_told_the_same_whether_there_are_others_or_not() {
    let (with, without) = (Server::with(options()), Server::with(options()));
    fill(&with, true);
    fill(&without, false);
    let span = "from=2023-11-14T22:00:00Z&to=2023-11-14T23:00:00Z";
    let asked = [
        ("GET", format!("/query?{span}")),
        ("GET", format!("/query?{span}&q=seen&order=desc&limit=3")),
        ("GET", format!("/query?{span}&q=seen+4&context=2")),
        ("GET", format!("/query?{span}&topic=shown")),
        ("GET", format!("/query?{span}&topic=hidden")),
        ("GET", format!("/query?{span}&topic=nowhere")),
        ("GET", format!("/query?{span}&stats")),
        ("GET", format!("/query?{span}&stats&x=seen")),
        ("HEAD", format!("/query?{span}")),
        ("GET", format!("/query/histogram?{span}&buckets=7")),
        ("GET", format!("/query/histogram?{span}&buckets=7&by=topic")),
        ("GET", "/topics".into()),
        ("GET", "/stream?topic=hidden".into()),
        ("GET", "/api/v1/whoami".into()),
        ("GET", format!("/api/logs?{span}")),
        ("GET", format!("/api/stats?{span}")),
        ("GET", format!("/api/stats?{span}&by=service,level")),
        ("GET", "/ws/live".into()),
        ("POST", "/records?topic=hidden".into()),
        ("POST", "/records".into()),
        ("POST", "/log".into()),
        ("POST", "/logs".into()),
        ("GET", "/_segmentstate".into()),
        ("GET", "/_clusterstate".into()),
        ("GET", "/_drain".into()),
        ("GET", "/metrics".into()),
        ("GET", "/store/topics".into()),
    ];
    let mut walked = BTreeSet::new();
    for (method, target) in &asked {
        walked.insert(target.split('?').next().unwrap().to_owned());
        for token in ["shown", "log"] {
            for accept in ["text/plain", "application/x-ndjson", "application/x-oklog-lines"] {
                let bearer = format!("Bearer {token}");
                let headers = [("Authorization", &*bearer), ("Accept", accept), ("TE", "trailers")];
                let ask = |server: &Server| request(server.address, method, target, &headers, b"");
                let (one, other) = (said(&ask(&with)), said(&ask(&without)));
                assert_eq!(one, other, "{method} {target} with {token}");
                assert!(!one.contains(HIDDEN_TEXT), "{method} {target} with {token}: {one}");
            }
        }
    }
    for (path, need) in paths() {
        let is_asked = need == Need::Nothing || walked.contains(path);
        assert!(is_asked, "{path} is no part of this walk: what may it tell of other topics?");
    }
    // There is something to be told.
    let counted = get(&with, &format!("/query?{span}&stats"), "shown").json();
    assert_eq!((&counted["records"], &counted["segments"]), (&json!(10), &json!(0)));
    assert_eq!(counted["missing"][0]["reason"], "part of what is held cannot be searched");
    let counted = get(&with, &format!("/query?{span}&stats"), "all").json();
    assert_eq!((&counted["records"], &counted["segments"]), (&json!(40), &json!(1)));
    assert!(counted["missing"][0]["reason"].as_str().unwrap().contains("hush"));
    let topics = get(&with, "/topics", "log").json();
    let names: Vec<_> =
        topics["topics"].as_array().unwrap().iter().map(|row| row["topic"].clone()).collect();
    assert_eq!(names, ["log", "shown"]);
    assert_eq!(get(&with, "/api/logs?from=2023-11-14T22:00:00Z", "log").json()[0]["message"], "m");
    let refused = get(&with, "/query?topic=hidden", "shown");
    assert_eq!(refused.status, 403);
    assert_eq!(
        error(&refused),
        "topic: \"hidden\" is not for the token \"shown\", which is for shown only"
    );
    // Without an end it ends now, not with the newest record of anybody.
    let histogram = get(&with, "/query/histogram?from=2023-11-14T22:00:00Z&buckets=1", "shown");
    assert!(histogram.json()["to"].as_str().unwrap() > "2024", "{}", histogram.text());
}

#[test]
fn who_writes_names_a_topic_of_his_token() {
    let server = Server::with(options());
    for (target, token, status) in [
        ("/records", "all", 200),
        ("/records?topic=any", "write", 200),
        ("/records?topic=shown", "shown", 200),
        ("/records?topic=hidden", "shown", 403),
        ("/records", "shown", 403),
        ("/log", "shown", 403),
        ("/log", "log", 202),
        ("/logs", "shown", 403),
        ("/logs", "log", 202),
    ] {
        let body: &[u8] = if target.starts_with("/log") {
            b"{\"level\":\"info\",\"message\":\"m\",\"service\":\"s\"}"
        } else {
            b"x\n"
        };
        let answer = ask(&server, "POST", target, Some(token), body);
        assert_eq!(answer.status, status, "{target} with {token}: {}", answer.text());
    }
    let records = server.inner.records.lock().unwrap();
    let topics: Vec<_> = records.iter().map(|(_, topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["default", "any", "shown", "log", "log"]);
}

#[test]
fn those_without_a_token_may_what_anonymous_may() {
    let anonymous = entry("anonymous", None, &[Right::Read, Right::Admin], Some(&["shown"]));
    let table = Table::new([entries(), vec![anonymous]].concat()).unwrap();
    let authority = Authority::of(table);
    let server = Server::with(HttpOptions { authority, ..HttpOptions::default() });
    fill(&server, true);
    let anybody = |method: &str, target: &str| ask(&server, method, target, None, b"x\n");
    let answer = anybody("GET", "/query?from=2023-11-14T22:00:00Z");
    assert_eq!((answer.status, answer.records().len()), (200, 10));
    let whoami = anybody("GET", "/api/v1/whoami").json();
    assert_eq!(
        whoami,
        json!({ "name": "anonymous", "rights": ["read", "admin"], "topics": ["shown"] })
    );
    // Who has no token may have one that may more.
    assert_eq!(anybody("POST", "/records").status, 401);
    assert_eq!(anybody("GET", "/query?topic=hidden").status, 401);
    assert_eq!(anybody("GET", "/_drain").status, 200);
    assert_eq!(ask(&server, "GET", "/query", Some("nobody's"), b"").status, 401);
}

#[test]
fn a_page_logs_in_with_a_token_and_out_again() {
    let server = Server::with(options());
    fill(&server, true);
    let login = |body: &str, headers: &[(&str, &str)]| {
        request(server.address, "POST", "/ui/login", headers, body.as_bytes())
    };
    let answer = login("{\"token\":\"shown\"}", &[]);
    assert_eq!(answer.status, 200);
    let topics = json!(["shown"]);
    assert_eq!(
        answer.json(),
        json!({ "name": "shown", "rights": ["read", "write"], "topics": topics })
    );
    let cookie = answer.header("set-cookie");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("=shown"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let with = |target| request(server.address, "GET", target, &[("Cookie", cookie)], b"");
    assert_eq!(with("/api/v1/whoami").json()["name"], "shown");
    assert_eq!(with("/query?from=2023-11-14T22:00:00Z").records().len(), 10);
    assert_eq!(with("/metrics").status, 403);
    let secure = login("{\"token\":\"shown\"}", &[("X-Forwarded-Proto", "https")]);
    assert!(secure.header("set-cookie").contains("; Secure"));
    for (body, status) in [
        ("{\"token\":\"nobody's\"}", 401),
        ("{\"token\":\"\"}", 400),
        ("{\"token\":7}", 400),
        ("token=shown", 400),
        ("", 400),
    ] {
        let answer = login(body, &[]);
        assert_eq!((answer.status, answer.header("set-cookie")), (status, ""), "{body}");
    }
    assert_eq!(login(&"x".repeat(5_000), &[]).status, 413);
    let foreign = login("{\"token\":\"shown\"}", &[("Origin", "https://evil.example")]);
    assert_eq!(foreign.status, 403);
    let out = request(server.address, "POST", "/ui/logout", &[("Cookie", cookie)], b"");
    assert!(out.header("set-cookie").starts_with("oklogd_token=; "), "{out:?}");
    assert!(out.header("set-cookie").ends_with("; Max-Age=0"), "{out:?}");
}

#[test]
fn a_node_without_tokens_lets_everybody_in_and_has_no_log_in() {
    let server = Server::with_lines(&["x"]);
    let whoami = request(server.address, "GET", "/api/v1/whoami", &[], b"");
    let all = json!({ "name": "anonymous", "rights": ["read", "write", "admin"], "topics": null });
    assert_eq!((whoami.status, whoami.json()), (200, all));
    let any = [("Authorization", "Bearer any")];
    assert_eq!(request(server.address, "GET", "/topics", &any, b"").status, 200);
    for path in ["/ui/login", "/ui/logout"] {
        let answer = request(server.address, "POST", path, &[], b"{\"token\":\"x\"}");
        assert_eq!((answer.status, answer.header("set-cookie")), (404, ""));
    }
}

#[test]
fn who_guesses_is_told_to_wait_and_who_knows_is_let_in_from_the_same_address() {
    let server = Server::with(options());
    let mut statuses = BTreeSet::new();
    for n in 0..100 {
        let answer = get(&server, "/topics", &format!("guess-{n}"));
        statuses.insert(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.header("connection"), "close");
        }
        assert_eq!(get(&server, "/topics", "all").status, 200);
    }
    assert_eq!(statuses, BTreeSet::from([401, 429]));
}

#[test]
fn what_is_under_way_ends_when_its_token_is_taken_away_and_nothing_else_does() {
    let options = options();
    let authority = options.authority.clone();
    let server = Server::with(options);
    let begin = |token: &str| {
        let mut stream = connect(server.address);
        write!(
            stream,
            "POST /records HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nx\n\r\n"
        )
        .unwrap();
        stream
    };
    let (mut ends, mut stays) = (begin("write"), begin("all"));
    until("both are under way", || server.inner.records.lock().unwrap().len() == 2);
    let kept = entries().into_iter().filter(|one| one.grant.name != "write").collect();
    assert!(authority.set(Table::new(kept).unwrap()));
    let mut rest = Vec::new();
    let _ = ends.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(server.metrics.access.withdrawn.get(), 1);
    assert_eq!(ask(&server, "POST", "/records", Some("write"), b"x").status, 401);
    stays.write_all(b"0\r\n\r\n").unwrap();
    stays.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
}
