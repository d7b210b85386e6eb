//! Limits of rate and trusted proxies through the real binary.

use std::process::Command;

use tests::http::{self, Answer};
use tests::node::Node;
use tests::tools;

fn ask(node: &Node, method: &str, path: &str, client: &str) -> Answer {
    http::request(node.api, method, path, &[("X-Forwarded-For", client)], b"")
}

#[test]
fn a_client_behind_a_proxy_has_a_rate_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--http.rate-limit", "1/s", "--http.trusted-proxy", "127.0.0.0/8"];
    let node = Node::start(directory.path(), &flags);
    // Fifty take less than fifty seconds.
    let statuses: Vec<_> =
        (0..50).map(|_| ask(&node, "GET", "/topics", "192.0.2.1").status).collect();
    assert!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask(&node, "GET", "/topics", "192.0.2.2").status, 200);
    let page = ask(&node, "GET", "/metrics", "192.0.2.3").text();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    let line = format!("oklog_access_refused_total{{reason=\"rate\"}} {refused}\n");
    assert!(page.contains(&line), "{page}");
    // The proxy is on this host, its client is not.
    let answer = ask(&node, "POST", "/_drain", "192.0.2.4");
    assert_eq!(answer.status, 403, "{}", answer.text());
    let log = node.log();
    let told = log.lines().filter(|line| line.contains("192.0.2.1 asks more often")).count();
    assert_eq!(told, 1, "{log}");
}

#[test]
fn what_is_no_rate_and_no_network_ends_a_start_with_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for (flag, value) in
        [("rate-limit", "fast"), ("rate-limit", "0/s"), ("trusted-proxy", "10.0.0/8")]
    {
        let given = format!("--http.{flag}={value}");
        let output = Command::new(tools::binary("oklogd"))
            .args(["ingeststore", &given])
            .current_dir(directory.path())
            .env_clear()
            .output()
            .unwrap();
        let words = tools::text(&output.stderr);
        assert_eq!((output.status.code(), words.lines().count()), (Some(2), 1), "{words}");
        assert!(words.contains(&format!("--http.{flag}")), "{words}");
    }
}
