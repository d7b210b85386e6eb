//! Several expressions that have to match and several that may not mean the same wherever they are
//! asked: history and live, records and counts, HTTP and the command line.

use tests::follower::Follower;
use tests::http::{encode, request};
use tests::node::Node;
use tests::sender::send;
use tests::tools::{self, text};

/// What has to match, what may not, further parameters.
type Chain = (&'static [&'static str], &'static [&'static str], &'static str);

const CHAINS: &[Chain] = &[
    (&["timeout"], &[], ""),
    (&["timeout", "db1"], &[], ""),
    (&["db1", "timeout", "07"], &["retried"], ""),
    (&["timeout"], &["db1", "retried"], ""),
    (&["TIMEOUT", "DB1"], &["RETRIED"], "&i"),
    (&["time.ut$", "^[0-9]+5 "], &["db[13]"], "&regex"),
    (&[], &["timeout", "db2"], ""),
    (&[], &["T.MEOUT"], "&regex&i"),
    (&["", "db3"], &[], ""),
    (&["db3"], &[""], ""),
    (&["db3"], &["db3"], ""),
];

fn lines() -> Vec<String> {
    let line = |n: usize| {
        let end = ["done", "timeout", "timeout retried"][n % 3];
        format!("{n:04} db{} {end}", n % 4)
    };
    (0..1200).map(line).collect()
}

/// The model: what each line says by itself.
fn expected(&(all, none, flags): &Chain) -> Vec<String> {
    let pattern = |text: &&str| {
        let text = if flags.contains("regex") { (*text).to_owned() } else { regex::escape(text) };
        regex::RegexBuilder::new(&text).case_insensitive(flags.contains("&i")).build().unwrap()
    };
    let (all, none): (Vec<_>, Vec<_>) =
        (all.iter().map(pattern).collect(), none.iter().map(pattern).collect());
    let mut lines = lines();
    lines.retain(|line| {
        all.iter().all(|q| q.is_match(line)) && !none.iter().any(|x| x.is_match(line))
    });
    lines
}

fn parameters((all, none, flags): &Chain) -> String {
    let all = all.iter().map(|q| format!("q={}", encode(q)));
    let none = none.iter().map(|x| format!("x={}", encode(x)));
    all.chain(none).collect::<Vec<_>>().join("&") + flags
}

fn command_line((all, none, flags): &Chain) -> Vec<String> {
    let all = all.iter().map(|q| format!("-q={q}"));
    let none = none.iter().map(|x| format!("-x={x}"));
    let flags = flags.split('&').filter(|flag| !flag.is_empty()).map(|flag| format!("-{flag}"));
    all.chain(none).chain(flags).collect()
}

#[test]
fn a_chain_means_the_same_wherever_it_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let followers: Vec<Follower> =
        CHAINS.iter().map(|chain| Follower::start(node.api, &parameters(chain), "")).collect();
    let lines = lines();
    send(node.durable, (lines.join("\n") + "\n").as_bytes());
    let first = node.query("limit=1")[0].0.clone();
    let before = "00000000000000000000000000";
    for (chain, live) in CHAINS.iter().zip(&followers) {
        let (expected, parameters) = (expected(chain), parameters(chain));
        let found = |answer: Vec<(String, Vec<u8>)>| -> Vec<String> {
            answer.into_iter().map(|(_, record)| String::from_utf8(record).unwrap()).collect()
        };
        assert_eq!(found(node.query(&parameters)), expected, "{parameters}");
        let mut newest_first = found(node.query(&format!("{parameters}&order=desc")));
        newest_first.reverse();
        assert_eq!(newest_first, expected, "{parameters}");

        let stats = node.get(&format!("/query?stats&{parameters}")).json();
        let bytes: usize = expected.iter().map(|line| line.len() + 1).sum();
        assert_eq!((&stats["records"], &stats["bytes"]), (&expected.len().into(), &bytes.into()));
        let histogram = node.get(&format!("/query/histogram?buckets=3&{parameters}")).json();
        let counts = histogram["counts"].as_array().unwrap().iter();
        assert_eq!(counts.map(|n| n.as_u64().unwrap()).sum::<u64>(), expected.len() as u64);

        let shown = |follower: &Follower| {
            let text = follower.wait_for("what matches", |text| {
                text.lines().filter(|line| line.starts_with("01")).count() >= expected.len()
            });
            let records = text.lines().filter(|line| line.starts_with("01"));
            records.map(|line| line[27..].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(shown(live), expected, "live: {parameters}");
        let replayed = Follower::start(node.api, &format!("after={before}&{parameters}"), "");
        assert_eq!(shown(&replayed), expected, "replayed: {parameters}");

        let (store, own) = (node.api.to_string(), command_line(chain));
        let mut line = vec!["query", "--store", &store];
        line.extend(own.iter().map(String::as_str));
        let output = tools::oklogd(&line);
        let printed: String = expected.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), printed), "{line:?}");
    }
    assert!(!first.is_empty());
}

#[test]
fn the_head_of_an_answer_repeats_what_was_asked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    for (parameters, all, none) in [
        ("q=a&x=%C3%A4&q=b+c&x=d", Some("a, b c"), Some("%C3%A4, d")),
        ("x=d", Some(""), Some("d")),
        ("q=a", Some("a"), None),
    ] {
        for method in ["HEAD", "GET"] {
            let answer = request(node.api, method, &format!("/query?{parameters}"), &[], b"");
            let field = |name: &str| answer.headers.get(name).map(String::as_str);
            let told = (answer.status, field("x-oklog-q"), field("x-oklog-x"));
            assert_eq!(told, (200, all, none), "{method} {parameters}");
        }
    }
}

#[test]
fn what_is_beyond_its_bounds_is_refused_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let many = |name: &str, count: usize| vec![format!("{name}=a"); count].join("&");
    for path in ["/query", "/query/histogram", "/stream"] {
        for (parameters, part) in [
            (many("q", 33), "q: given 33 times; valid is at most 32 times"),
            (many("x", 33), "x: given 33 times; valid is at most 32 times"),
            (format!("q={0}&x={0}", "a".repeat(20_000)), "x: expressions of 40000 bytes together"),
            (format!("x={}", "a".repeat(40_000)), "x: expression of 40000 bytes"),
            ("q=a&x=(&regex".to_owned(), "x: "),
            ("q=a&q=b%0A".to_owned(), "q: "),
            (r"q=a&x=\pL{1000}{9}&regex".to_owned(), "x: "),
            ("x=%FF".to_owned(), "x: "),
        ] {
            let answer = node.get(&format!("{path}?{parameters}"));
            let words = answer.json()["error"].as_str().unwrap_or_default().to_owned();
            assert_eq!(answer.status, 400, "{path} {part}: {words}");
            assert!(words.starts_with(part) && words.contains("valid"), "{path} {part}: {words}");
        }
    }
    let most = [many("q", 32), many("x", 32)].join("&");
    assert_eq!(node.get(&format!("/query?{most}&regex&i")).status, 200);
}

#[test]
fn blocks_that_lack_any_of_what_has_to_match_are_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let mut lines = String::new();
    for n in 0..60_000_u64 {
        let noise = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        lines += &format!("request {noise:016x}{:016x} of a service\n", noise.rotate_left(17));
    }
    lines.insert_str(lines.len() / 2, "\nrequest needle-in-the-middle of a service\n");
    send(node.durable, lines.as_bytes());
    node.settle();
    let stats = |parameters: &str| node.get(&format!("/query?stats&{parameters}")).json();
    let one = stats("q=needle-in-the-middle");
    assert!(one["blocks_skipped_signature"].as_u64() > one["blocks_read"].as_u64(), "{one}");
    for parameters in [
        "q=needle-in-the-middle&q=request",
        "q=request&q=needle-in-the-middle&x=absent",
        "q=of+a+service&q=needle-in-the-middle&x=absent&x=nowhere",
    ] {
        let found = stats(parameters);
        for field in ["records", "blocks_read", "blocks_skipped_signature", "bytes_scanned"] {
            assert_eq!(found[field], one[field], "{parameters} {field}");
        }
    }
    let without = stats("x=needle-in-the-middle");
    assert_eq!(without["blocks_skipped_signature"], 0, "what may not be there rules nothing out");
}

#[test]
fn records_around_a_hit_are_those_of_its_topic_in_order_and_marked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.topic-mode", "dynamic"]);
    let line = |n: usize| format!("{} line {n:03}", if n % 50 == 7 { "rare" } else { "busy" });
    let lines: Vec<String> = (0..300).map(line).collect();
    send(node.durable, (lines.join("\n") + "\n").as_bytes());
    // Lines of one batch come topic by topic: what is around a line is asked of the node's own order.
    let all = node.query("");
    let topic = |record: &[u8]| record[..4].to_vec();
    let around = |hits: &[usize], reach: usize| -> Vec<(String, Vec<u8>)> {
        let is_near = |at: usize| {
            hits.iter().any(|&hit| {
                let hit = line(hit).into_bytes();
                let own: Vec<_> =
                    (0..all.len()).filter(|&n| topic(&all[n].1) == topic(&hit)).collect();
                let place = |n: usize| own.iter().position(|&other| other == n);
                let of_hit = own.iter().position(|&n| all[n].1 == hit).unwrap();
                place(at).is_some_and(|place| place.abs_diff(of_hit) <= reach)
            })
        };
        (0..all.len()).filter(|&at| is_near(at)).map(|at| all[at].clone()).collect()
    };
    let asked = "q=line%201(57|60)&regex&context=2";
    let wanted = around(&[157, 160], 2);
    assert_eq!(wanted.len(), 10);
    assert_eq!(node.query(asked), wanted);
    let mut newest_first = node.query(&format!("{asked}&order=desc"));
    newest_first.reverse();
    assert_eq!(newest_first, wanted);
    // Wherever the range ends; behind the limit a hit is shown for the sake of the one before.
    let id = |n: usize| &all.iter().find(|(_, record)| *record == line(n).into_bytes()).unwrap().0;
    let narrow = format!("context=1&from={}&to={}&limit=1", id(160), id(161));
    let shown: String =
        around(&[160], 1).iter().map(|(id, record)| format!("{id} {}\n", text(record))).collect();
    assert_eq!(node.get(&format!("/query?{narrow}")).text(), shown);

    let accept = [("Accept", "application/x-ndjson")];
    let answer = request(node.api, "GET", "/query?q=line%20160&context=1", &accept, b"");
    let text = String::from_utf8(answer.body).unwrap();
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let marks: Vec<_> = objects.iter().map(|object| object["context"] == true).collect();
    assert_eq!(marks, [true, false, true, false]);
    assert_eq!(objects[3]["end"]["records"], 1);
    assert_eq!(objects[3]["end"]["context_records"], 2);
    for refused in ["/query?context=1001", "/query?context=x", "/query?stats&context=1"] {
        let answer = node.get(refused);
        assert!(answer.status == 400 && answer.text().contains("context: "), "{refused}");
    }
    assert_eq!(node.get("/query/histogram?context=1").status, 400);
}
