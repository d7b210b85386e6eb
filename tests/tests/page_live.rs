//! The web page as it follows live, and what one takes home from it.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use tests::browser::Browser;
use tests::node::Node;
use tests::sender::send;
use tests::{outlet, tools};

const ENTER: char = '\u{e007}';
const ROWS: &str = "[...document.querySelectorAll('.row > .text')].map((e) => e.textContent)";
const COUNTS: &str = "document.getElementById('counts').textContent";
const PILL: &str = "document.getElementById('pill')";

/// A node that is found at the same place after a restart.
fn start(directory: &Path, host: IpAddr) -> Node {
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
    command.args(["--listen", &host.to_string()]);
    command.current_dir(directory).env_clear();
    Node::from_command(command).unwrap_or_else(|log| panic!("the node ended: {log}"))
}

#[test]
fn what_comes_is_shown_as_it_comes_and_nothing_moves_while_one_reads() {
    let name = "what_comes_is_shown_as_it_comes_and_nothing_moves_while_one_reads";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), outlet::own_address(0).ip());
    let some = |from: usize, to: usize| {
        (from..to).fold(String::new(), |all, n| all + &format!("line {n} end\n"))
    };
    send(node.durable, some(0, 200).as_bytes());
    browser.open(node.api, "/ui/?q=line&live");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 199 end'"));
    browser.wait(&format!("{COUNTS}.startsWith('200 rows · live')"));
    send(node.durable, (some(200, 250) + "other\n").as_bytes());
    browser.wait(&format!("{ROWS}.at(-1) === 'line 249 end'"));

    browser.keys("", " ");
    browser.wait(&format!("{COUNTS}.includes('paused')"));
    let shown = browser.text(ROWS);
    send(node.durable, some(250, 1_454).as_bytes());
    browser.wait(&format!("!{PILL}.hidden && {PILL}.textContent === '1,204 new ↓'"));
    assert!(browser.text(ROWS).starts_with(&shown));
    browser.click("#pill");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 1453 end' && {PILL}.hidden"));
    // A row that is chosen stays where it is, too.
    browser.keys("", "kk");
    browser.wait(&format!("{COUNTS}.includes('paused')"));
    let shown = browser.text(ROWS);
    send(node.durable, some(1_454, 1_500).as_bytes());
    browser.wait(&format!("{PILL}.textContent === '46 new ↓'"));
    assert!(browser.text(ROWS).starts_with(&shown));
    browser.keys("", " ");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 1499 end'"));
    assert!(browser.text(COUNTS).starts_with("1,500 rows"), "each of them once");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_tail_goes_on_behind_a_restart_without_gap_or_copy() {
    let name = "the_tail_goes_on_behind_a_restart_without_gap_or_copy";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let host = outlet::own_address(0).ip();
    let node = start(directory.path(), host);
    browser.open(node.api, "/ui/?live");
    browser.wait(&format!("{COUNTS}.startsWith('0 rows · live')"));
    send(node.durable, b"one\ntwo\n");
    browser.wait(&format!("String({ROWS}) === 'one,two'"));
    node.kill();
    browser
        .wait("document.querySelector('.note.amber')?.textContent.startsWith('The node is gone')");
    let node = start(directory.path(), host);
    send(node.durable, b"three\n");
    browser.wait(&format!("String({ROWS}) === 'one,two,three'"));
    browser.wait("!document.querySelector('.note.amber')");
    send(node.durable, b"four\n");
    browser.wait(&format!("String({ROWS}) === 'one,two,three,four'"));
}

#[test]
fn a_query_is_saved_and_all_that_matches_is_downloaded() {
    let Some(browser) = Browser::start("a_query_is_saved_and_all_that_matches_is_downloaded")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), outlet::own_address(0).ip());
    let lines = (0..3_000).fold(String::new(), |all, n| all + &format!("line {n} end\n"));
    send(node.durable, lines.as_bytes());
    browser.open(node.api, "/ui/?q=line&x=7&order=asc");
    browser.wait(&format!("{ROWS}[0] === 'line 0 end'"));
    browser.click("#saved");
    browser.keys("", &format!("without seven{ENTER}"));
    browser.wait("document.querySelector('.saved button').textContent === 'without seven'");
    let link = browser.text("document.getElementById('download').href");
    assert_eq!(browser.text("document.getElementById('download').download"), "oklogd.log");
    let path = link.split_once(&node.api.to_string()).unwrap().1;
    let answer = node.get(path);
    let expected = lines.lines().filter(|line| !line.contains('7')).count();
    assert!(answer.complete && answer.text().lines().count() == expected, "{link}");

    browser.open(node.api, "/ui/?q=2999");
    browser.wait(&format!("String({ROWS}) === 'line 2999 end'"));
    browser.click("#saved");
    browser.click(".saved button");
    browser.wait(&format!("{ROWS}[0] === 'line 0 end' && !{ROWS}.includes('line 7 end')"));
    assert!(browser.text("location.search").contains("x=7"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
