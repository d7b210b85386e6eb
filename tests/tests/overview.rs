//! `oklogd topics`, `histogram` and `status`: what a node answers over HTTP, for people and programs.

use serde_json::Value;
use tests::node::Node;
use tests::sender::send;
use tests::terminal::OnTerminal;
use tests::tools::{self, text};

/// Exit code, standard output, standard error of a command that asks this node.
fn run(node: &Node, line: &[&str]) -> (i32, String, String) {
    let api = node.api.to_string();
    let output = tools::oklogd(&[line, &["--store", &api]].concat());
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn object(node: &Node, line: &[&str]) -> Value {
    let (code, out, err) = run(node, line);
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1), "{line:?}");
    serde_json::from_str(&out).unwrap()
}

/// A node with three records of one topic and one of another.
fn node_with_topics(directory: &std::path::Path) -> Node {
    let node = Node::start(directory, &["--ingest.topic-mode", "dynamic"]);
    send(node.durable, b"web one\nweb two\ndb two\nweb three\n");
    node
}

#[test]
fn topics_are_shown_as_the_node_answers_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with_topics(directory.path());
    assert_eq!(object(&node, &["topics", "--json"]), node.get("/topics").json());
    let (code, out, err) = run(&node, &["topics", "--tz", "+03:00"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TOPIC", "RECORDS", "SIZE", "OLDEST", "NEWEST"]);
    assert_eq!(
        (&rows[1][..4], &rows[2][..4]),
        (&["db", "1", "7", "B"][..], &["web", "3", "26", "B"][..])
    );
    assert!(rows[2][4].ends_with("+03:00"), "{out}");
}

#[test]
fn a_histogram_has_a_bar_for_each_span_and_adds_up() {
    let directory = tempfile::tempdir().unwrap();
    let node = node_with_topics(directory.path());
    let line = ["histogram", "--since", "10m", "--until", "now", "--buckets", "5", "--by", "topic"];
    let counted = object(&node, &[&line[..], &["--json"]].concat());
    let sum = |counts: &Value| -> u64 {
        counts.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
    };
    assert_eq!((sum(&counted["counts"]), counted["counts"].as_array().unwrap().len()), (4, 5));
    assert_eq!(sum(&counted["series"][0]["counts"]), 3);
    let (code, out, err) = run(&node, &line);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[4].contains("  4  ####"), "{out}");
    assert!(lines[5].starts_with("4 record(s), 5 bucket(s) of 2m"), "{out}");
    assert!(lines[7].starts_with("web  3  |") && lines[8].starts_with("db   1  |"), "{out}");
    let counted = object(&node, &["histogram", "--since", "10m", "--by", "level", "--json"]);
    assert_eq!(
        (sum(&counted["series"][0]["counts"]), &counted["series"][0]["level"]),
        (4, &Value::Null)
    );
    let found = object(&node, &["histogram", "two", "-x", "db", "--json"]);
    assert_eq!(sum(&found["counts"]), 1);
    assert_eq!(sum(&object(&node, &["histogram", "-w", "tw", "--json"])["counts"]), 0);
    assert_eq!(run(&node, &["histogram", "absent", "--fail-empty"]).0, 5);
    // As wide as the terminal, of blocks where the locale has them.
    let api = node.api.to_string();
    let line = ["histogram", "--since", "10m", "--until", "now", "--store", &api];
    let (_, said) = OnTerminal::start(&line, &[("LC_ALL", "C.UTF-8")]).finish();
    assert!(said.contains('█'), "{said}");
    for (flags, part) in [
        (&["--buckets", "0"][..], "from 1 to 10000"),
        (&["--by", "colour"], "topic"),
        (&["--from", "x"], "yesterday"),
    ] {
        let (code, out, err) = run(&node, &[&["histogram"], flags].concat());
        assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
        assert!(err.contains(flags[0]) && err.contains(part), "{err}");
    }
}

#[test]
fn status_is_a_health_check() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (code, out, err) = run(&node, &["status"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in
        ["  healthy  ready\n", "NODE", "ingest+store", env!("CARGO_PKG_VERSION"), "volumes: "]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    let told = object(&node, &["status", "--json"]);
    assert_eq!((&told["well"], &told["health"]["status"]), (&true.into(), &"ok".into()));
    assert_eq!(told["cluster"]["self"], node.get("/_clusterstate").json()["self"]);
    let drained = tools::oklogd(&["drain", "--store", &node.api.to_string()]);
    assert!(drained.status.success());
    let (code, out, _) = run(&node, &["status"]);
    assert_eq!(code, 1);
    assert!(out.contains("healthy  not ready") && out.contains("draining"), "{out}");
    let (code, out, _) = run(&node, &["status", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["well"], &told["healthy"]), (1, &false.into(), &true.into()));
    let api = node.api.to_string();
    node.kill();
    for command in ["status", "topics", "histogram"] {
        let output = tools::oklogd(&[command, "--store", &api]);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(&api) && output.stdout.is_empty(), "{said}");
    }
}
