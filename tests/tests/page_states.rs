//! The web page on bad days: a token that is asked for, no turn to be had, a node that is gone.

use serde_json::json;
use tests::browser::Browser;
use tests::gate::{Gate, Rule};
use tests::node::Node;
use tests::page::{COUNTS, ENTER, NOTE, ROWS};
use tests::sender::send;
use tests::{outlet, wait_until};

#[test]
fn a_token_is_asked_for_kept_for_this_tab_alone_and_sent_with_every_request() {
    let name = "a_token_is_asked_for_kept_for_this_tab_alone_and_sent_with_every_request";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, b"line one\nline two\nother\n");
    let gate = Gate::open(node.api, "", Rule::Token("tok-right"));
    browser.open(gate.address, "/ui/?q=line&order=asc");
    browser.wait("document.querySelector('.note.bad .token input')");
    let told = browser.text(NOTE);
    assert!(told.contains("A token is asked for") && !told.contains("<h1>"), "{told}");
    browser.click(".token input");
    browser.keys("", &format!("wrong{ENTER}"));
    browser.wait(&format!("{NOTE}.includes('does not give you the right')"));
    browser.wait(&format!("{NOTE}.includes('this token may not')"));
    // The next one can be typed at once.
    browser.wait("document.activeElement.matches('.token input')");
    browser.keys("", &format!("tok-right{ENTER}"));
    browser.wait(&format!("String({ROWS}) === 'line one,line two'"));
    browser.wait("!document.querySelector('.note.bad')");

    // It is there for the whole session of this tab, and nowhere else.
    gate.take_seen();
    let downloads = tempfile::tempdir().unwrap();
    let to = json!({ "behavior": "allow", "downloadPath": downloads.path() });
    browser.devtools("Browser.setDownloadBehavior", &to);
    browser.open(gate.address, "/ui/?q=line&live");
    browser.wait(&format!("{COUNTS}.includes('live')"));
    send(node.durable, b"line three\n");
    browser.wait(&format!("{ROWS}.at(-1) === 'line three'"));
    browser.script("document.querySelector('.row').click()");
    browser.wait("document.querySelector('#side .whole')");
    browser.keys("", "c");
    browser.wait("document.querySelectorAll('#side .around li').length >= 4");
    browser.click("#topics > summary");
    browser.wait("document.querySelector('#topic-list label')");
    browser.click("#downloads > summary");
    browser.click("#download");
    let file = downloads.path().join("oklogd.log");
    wait_until("the download is there", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 3)
    });
    let seen = gate.take_seen();
    for start in
        ["GET /query?", "HEAD /query?", "GET /query/histogram", "GET /stream", "GET /topics"]
    {
        assert!(seen.iter().any(|one| one.line.starts_with(start)), "{start}: {seen:#?}");
    }
    for one in &seen {
        assert_eq!(one.authorization.as_deref(), Some("Bearer tok-right"), "{one:?}");
        assert!(!one.line.contains("tok-right"), "{one:?}");
    }
    let kept = "location.href + document.cookie + JSON.stringify(localStorage)";
    assert!(!browser.text(kept).contains("tok-right"));
    // One that is taken back is told, and asked for again.
    gate.set(Rule::Token("another"));
    browser.open(gate.address, "/ui/?q=line");
    browser.wait("document.querySelector('.note.bad .token input')");
}

#[test]
fn who_gets_no_turn_waits_as_long_as_was_told_and_goes_on_by_itself() {
    let name = "who_gets_no_turn_waits_as_long_as_was_told_and_goes_on_by_itself";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, b"one\n");
    let gate = Gate::open(node.api, "", Rule::Wait(3600));
    browser.open(gate.address, "/ui/");
    browser.wait(&format!("{NOTE}.includes('Too many requests. slow down')"));
    browser.wait(&format!("/Tried again in 3,?[56]\\d\\d s/.test({NOTE})"));
    gate.set(Rule::Wait(1));
    browser.open(gate.address, "/ui/?live");
    browser.wait(&format!("{NOTE}.includes('Tried again in 1 s')"));
    gate.set(Rule::Open);
    browser.wait(&format!("String({ROWS}) === 'one' && {COUNTS}.includes('live')"));
    // So does what comes live, without gap.
    gate.set(Rule::Wait(1));
    gate.cut();
    browser.wait("document.querySelector('.note.amber')?.textContent.includes('slow down')");
    send(node.durable, b"two\n");
    gate.set(Rule::Open);
    browser.wait(&format!("String({ROWS}) === 'one,two'"));
    browser.wait("!document.querySelector('.note')");
}

#[test]
fn a_node_that_is_gone_is_told_and_the_query_answered_once_it_is_back() {
    let name = "a_node_that_is_gone_is_told_and_the_query_answered_once_it_is_back";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let host = outlet::own_address(0).ip();
    let node = Node::start_at(directory.path(), host);
    send(node.durable, b"one\ntwo\n");
    browser.open(node.api, "/ui/?order=asc");
    browser.wait(&format!("String({ROWS}) === 'one,two'"));
    assert!(node.stop().success());
    browser.click("#q");
    browser.keys("", &format!("two{ENTER}"));
    browser.wait(&format!("{NOTE}.includes('cannot be reached')"));
    browser.wait(&format!("{NOTE}.includes('Tried again in')"));
    let _node = Node::start_at(directory.path(), host);
    browser.wait(&format!("String({ROWS}) === 'two'"));
    browser.wait("!document.querySelector('.note')");
}

#[test]
fn a_node_whose_disk_is_full_says_so_and_shows_what_it_has() {
    let name = "a_node_whose_disk_is_full_says_so_and_shows_what_it_has";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, b"kept before\n");
    assert!(node.stop().success());
    // No disk has so much free.
    let node = Node::start_any(directory.path(), &["--disk.free-min", "1000000GB"]);
    browser.open(node.api, "/ui/");
    browser.wait(&format!("String({ROWS}) === 'kept before'"));
    browser.wait("document.querySelector('.note.amber li')");
    let told = browser.text("document.querySelector('.note.amber').textContent");
    assert!(told.starts_with("This node is in trouble") && told.contains("free"), "{told}");
}

#[test]
fn the_table_for_those_who_do_not_see_the_histogram_takes_no_room_from_those_who_do() {
    let name = "the_table_for_those_who_do_not_see_the_histogram_takes_no_room_from_those_who_do";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, b"one\n");
    let from = "2026-11-30T12:00:00Z";
    let counts = json!({
        "from": from, "to": "2026-11-30T12:03:20Z", "interval_ms": 1000, "counts": vec![7; 200],
        "complete": true,
    });
    let answer = vec![("/query/histogram", 200, counts.to_string())];
    let gate = Gate::open(node.api, "", Rule::Answer(answer));
    browser.open(gate.address, "/ui/");
    browser.wait("document.querySelectorAll('#chart-box tbody tr').length === 200");
    assert_eq!(browser.text("document.documentElement.scrollHeight <= innerHeight"), "true");
}
