//! Nodes of each role, with real sockets, in this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::channel;

use engine::ulid::Ulid;
use serde_json::Value;

use super::data::topic_options;
use super::{Base, Host, Node, compaction_limits};
use crate::cli::{Command, parse};
use crate::config::NodeConfig;
use crate::lock::DirectoryLock;

/// What a node is.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    Both,
    Ingester,
    Store,
}

/// A node over the directories `ingest` and `store` of another one, with these flags beside its own.
fn config(directory: &Path, is: Is, flags: &[&str]) -> NodeConfig {
    let path = |name: &str| format!("--{name}.path={}", directory.join(name).display());
    let mut line: Vec<String> = vec!["ingeststore".into(), path("ingest"), path("store")];
    line.extend(
        [
            "--api=127.0.0.1:0",
            "--ingest.fast=127.0.0.1:0",
            "--ingest.durable=127.0.0.1:0",
            "--store.segment-replication-factor=1",
            "--disk.free-min=1MiB",
            "--cores=1",
        ]
        .map(str::to_owned),
    );
    line.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let (command, _) = parse(&line, &[]).unwrap_or_else(|stop| panic!("{}", stop.text));
    let Command::Node { config, .. } = command else { panic!("not a node") };
    let mut config = *config;
    if is == Is::Ingester {
        config.store = None;
    }
    if is == Is::Store {
        config.ingest = None;
    }
    config
}

struct Running {
    node: Node,
    api: SocketAddr,
    ingest_ports: usize,
}

impl Running {
    fn start(directory: &Path, is: Is) -> Self {
        Self::start_with(directory, is, &[])
    }

    fn start_with(directory: &Path, is: Is, flags: &[&str]) -> Self {
        let (config, reserve) = (config(directory, is, flags), net::http::Reserve::take());
        let host = Host::of(&config).unwrap();
        let base = Base::of(config, host, reserve).unwrap();
        let api = base.listeners.api.local_addr().unwrap();
        let ingest_ports = base.listeners.fast.len() + base.listeners.durable.len();
        let (ended, endings) = channel();
        let node = Node::start(base, &ended, endings).unwrap();
        Self { node, api, ingest_ports }
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.api).unwrap();
        let len = body.len();
        write!(
            stream,
            "{method} {target} HTTP/1.0\r\nHost: localhost\r\n\
             Content-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self, method: &str, target: &str, body: &str) -> Value {
        let (status, answer) = self.ask(method, target, body);
        assert_eq!(status, 200, "{target}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Takes two records durably; the first and the last ULID.
    fn take(&self, word: &str) -> [Ulid; 2] {
        let body = format!("{word} one\n{word} two\n");
        let answer = self.json("POST", "/records?mode=durable", &body);
        assert_eq!(answer["records"], 2);
        ["first", "last"].map(|at| answer[at].as_str().unwrap().parse().unwrap())
    }

    /// Takes a line, which begins with its topic; says which topic it has.
    fn topic_of(&self, line: &str) -> String {
        self.json("POST", "/records?mode=durable", &format!("{line}\n"));
        let topics = self.json("GET", "/topics", "");
        let topics = topics["topics"].as_array().unwrap().clone();
        let names = topics.into_iter().map(|topic| topic["topic"].as_str().unwrap().to_owned());
        let word = line.split(' ').next().unwrap();
        names.into_iter().find(|name| name == word).unwrap_or_else(|| "invalid".into())
    }

    /// What a metric without labels says, which is a whole number.
    fn metric(&self, name: &str) -> u64 {
        let (_, metrics) = self.ask("GET", "/metrics", "");
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        metrics.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {metrics}"))
    }

    /// Has all that it holds go to its store.
    fn drain(&self) {
        while self.json("POST", "/_drain", "")["done"] != true {
            std::thread::yield_now();
        }
    }

    fn found(&self, word: &str) -> Vec<String> {
        let (status, answer) = self.ask("GET", &format!("/query?q={word}"), "");
        assert_eq!(status, 200, "{answer}");
        let text = |line: &str| line.split_once(' ').map(|(_, text)| text.to_owned());
        let is_record = |line: &&str| line.contains(word);
        answer.lines().filter(is_record).filter_map(text).collect()
    }

    fn stop(self) {
        self.node.shut_down().unwrap();
    }
}

#[test]
fn an_ingester_alone_takes_records_answers_and_keeps_records_and_stamps_over_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let before = root.path().join("before");
    let node = Running::start(&before, Is::Ingester);
    let [first, last] = node.take("apple");
    assert!(first < last);
    assert_eq!(node.found("apple"), ["apple one", "apple two"]);
    let state = node.json("GET", "/_segmentstate", "");
    assert_eq!(state["store"]["id"], "", "it keeps nothing");
    assert_eq!(state["store"]["flushed"]["segments"], 0);
    assert_eq!(state["store"]["gather"], "");
    let ingester = state["ingest"]["id"].as_str().unwrap().to_owned();
    assert_eq!(state["ingest"]["boot"], 1);
    assert_eq!(node.ask("GET", "/ready", "").0, 200);
    node.stop();
    assert!(!before.join("store").exists(), "nobody asked for it");
    // Threads of the first life that end with the process only know the old name.
    let after = root.path().join("after");
    std::fs::rename(&before, &after).unwrap();
    let node = Running::start(&after, Is::Ingester);
    assert_eq!(node.found("apple"), ["apple one", "apple two"]);
    let cluster = node.json("GET", "/_clusterstate", "");
    assert_eq!(
        (&cluster["self"], &cluster["nodes"][0]["id"]),
        (&ingester.as_str().into(), &cluster["self"])
    );
    assert_eq!(
        (&cluster["nodes"][0]["boot"], &cluster["nodes"][0]["roles"]),
        (&2.into(), &serde_json::json!(["ingest"]))
    );
    assert!(cluster["nodes"][0]["backlog_bytes"].as_u64() > Some(0), "{cluster}");
    let state = node.json("GET", "/_segmentstate", "");
    assert_eq!(state["ingest"]["id"], ingester);
    assert_eq!(state["ingest"]["boot"], 2);
    assert!(state["ingest"]["flushed"]["segments"].as_u64() > Some(0), "{state}");
    let [later, _] = node.take("pear");
    assert!(later > last, "stamps go on above what was given");
    node.stop();
}

#[test]
fn a_store_alone_answers_from_its_segments_takes_no_records_and_leaves_the_ingest_side_alone() {
    let root = tempfile::tempdir().unwrap();
    let before = root.path().join("before");
    let node = Running::start(&before, Is::Both);
    let [first, _] = node.take("apple");
    node.stop();
    let after = root.path().join("after");
    std::fs::rename(&before, &after).unwrap();
    let node = Running::start(&after, Is::Store);
    assert_eq!(node.ingest_ports, 0);
    assert_eq!(node.found("apple"), ["apple one", "apple two"]);
    let state = node.json("GET", "/_segmentstate", "");
    assert_eq!(state["store"]["records"], 2);
    assert_eq!(state["store"]["boot"], 2);
    assert_eq!(state["ingest"]["id"], "", "it takes nothing");
    let cluster = node.json("GET", "/_clusterstate", "");
    let member = &cluster["nodes"][0];
    assert_eq!((&member["id"], &member["roles"][0]), (&state["store"]["id"], &"store".into()));
    assert_eq!((&cluster["volumes"]["total"], &member["backlog_bytes"]), (&1.into(), &0.into()));
    assert_eq!(state["ingest"]["active"]["segments"], 0);
    let (status, words) = node.ask("POST", "/records", "pear\n");
    assert_eq!(status, 421, "{words}");
    assert!(words.contains("takes no records"), "{words}");
    for target in ["/stream", &format!("/stream?after={first}")] {
        let (status, words) = node.ask("GET", target, "");
        assert_eq!(status, 421, "{target}: {words}");
        assert!(words.contains("follow one that takes them"), "{words}");
    }
    assert!(node.node.follow_thread.is_none(), "nobody waits for what does not come");
    assert_eq!(node.ask("GET", "/ready", "").0, 200);
    assert_eq!(node.json("POST", "/_drain", "")["done"], true, "it holds nothing to hand over");
    let lock = DirectoryLock::make(&after.join("ingest"));
    assert!(lock.is_ok(), "another may use the ingest side meanwhile");
    node.stop();
}

#[test]
fn an_ingester_that_holds_nothing_any_more_goes_on_above_its_stamps_and_knows_its_topics() {
    const FLAGS: [&str; 2] = ["--ingest.topic-mode=dynamic", "--ingest.topics-max=2"];
    let root = tempfile::tempdir().unwrap();
    let [before, after] = ["before", "after"].map(|name| root.path().join(name));
    let node = Running::start_with(&before, Is::Both, &FLAGS);
    assert_eq!(node.topic_of("web one"), "web");
    let [_, last] = node.take("api");
    node.drain();
    node.stop();
    std::fs::remove_dir_all(before.join("store")).unwrap();
    std::fs::rename(&before, &after).unwrap();
    let node = Running::start_with(&after, Is::Ingester, &FLAGS);
    assert_eq!(node.json("GET", "/topics", "")["topics"].as_array().unwrap().len(), 0);
    assert_eq!(node.metric("oklog_ingest_topics"), 2);
    assert_eq!(node.topic_of("db one"), "invalid", "there is no room for a third one");
    assert_eq!(node.topic_of("web two"), "web");
    let [first, _] = node.take("api");
    assert!(first > last);
    node.stop();
}

#[test]
fn a_topic_is_known_for_as_long_as_a_merged_segment_keeps_a_record_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let of = |is| config(directory.path(), is, &["--store.segment-retain=8d"]);
    let both = of(Is::Both);
    let span_ms = compaction_limits(both.store.as_ref().unwrap(), 9).span_ms_max;
    assert_eq!(span_ms, 86_400_000);
    assert_eq!(topic_options(&both).retain_ms, Some(8 * 86_400_000 + span_ms));
    assert_eq!(
        topic_options(&of(Is::Ingester)).retain_ms,
        None,
        "who does not know it forgets nothing"
    );
}
