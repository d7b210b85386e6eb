//! The web page as it reads on: further pages, what failed, what the live stream says beside records. A gate
//! before the node sees what is asked and answers in its place where a test needs it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, mpsc};

use tests::browser::Browser;
use tests::gate::Gate;
use tests::node::Node;
use tests::page::{COUNTS, PILL, ROWS};
use tests::sender::send;

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

fn lines(from: u32, to: u32) -> String {
    (from..to).fold(String::new(), |all, n| all + &format!("line {n} end\n"))
}

/// A record as an event of a stream.
fn event(n: u32, record: &str) -> String {
    let ulid = format!("01M7Y424B2{n:016}");
    format!(
        "id: {ulid}\ndata: {{\"ulid\":\"{ulid}\",\"time\":\"\",\"topic\":\"t\",\"record\":\"{record}\"}}\n\n"
    )
}

fn refused(status: &str, fields: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 9\r\n{fields}\r\nnot so at"
    )
}

/// A value of one query parameter of a target.
fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let query = target.split_once('?')?.1;
    query.split('&').find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn what_fails_is_read_on_from_where_it_failed_and_what_was_typed_stays() {
    let name = "what_fails_is_read_on_from_where_it_failed_and_what_was_typed_stays";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, lines(0, 3_000).as_bytes());
    let tries = AtomicU32::new(0);
    let gate = Gate::scripted(node.api, move |target, client| {
        // The second page is refused twice.
        let is_refused = target.starts_with("GET /query?")
            && target.contains("&after=")
            && tries.fetch_add(1, Relaxed) < 2;
        if is_refused {
            let _ = client.write_all(refused("503 Busy", "Retry-After: 1\r\n").as_bytes());
        }
        is_refused
    });
    browser.open(gate.address, "/ui/?q=line&order=asc");
    browser.wait(&format!("{COUNTS}.startsWith('1,000 rows')"));
    browser.click("#q");
    browser.keys("", "s typed meanwhile");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", "G");
    browser.wait("document.querySelector('.note.bad')");
    // No row is lost, and in the end all are there, each once.
    browser.wait(&format!("{COUNTS}.startsWith('3,000 rows') && {COUNTS}.endsWith('complete')"));
    assert_eq!(browser.text("document.querySelector('.note.bad')"), "null");
    assert_eq!(browser.text("document.getElementById('q').value"), "lines typed meanwhile");
    browser.keys("", "G");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 2999 end'"));
    let first_pages = gate.take_seen();
    let first = |one: &&tests::gate::Seen| {
        one.line.starts_with("GET /query?") && !one.line.contains("after=")
    };
    assert_eq!(first_pages.iter().filter(first).count(), 1, "{first_pages:#?}");
}

#[test]
fn further_pages_are_of_the_range_that_the_first_one_had() {
    let Some(browser) = Browser::start("further_pages_are_of_the_range_that_the_first_one_had")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, lines(0, 6_000).as_bytes());
    let gate = Gate::scripted(node.api, |_, _| false);
    // One bound that goes on with the clock, and one that goes on with what comes.
    for to in ["1ms", "now"] {
        browser.open(gate.address, &format!("/ui/?q=line&from=1h&to={to}"));
        browser.wait(&format!("{COUNTS}.startsWith('1,000 rows')"));
        browser.script("document.getElementById('rows').focus()");
        browser.keys("", "G");
        browser.wait(&format!("{COUNTS}.startsWith('5,000 rows')"));
        browser.keys("", "G");
        browser.wait(&format!("{COUNTS}.startsWith('6,000 rows')"));
        let seen = gate.take_seen();
        let pages: Vec<&str> = seen
            .iter()
            .map(|one| one.line.as_str())
            .filter(|line| line.starts_with("GET /query?"))
            .collect();
        assert_eq!(pages.len(), 3, "{pages:#?}");
        assert_eq!(parameter(pages[0], "to"), Some(to));
        for name in ["from", "to"] {
            let pinned = parameter(pages[1], name).unwrap();
            assert!(pinned.starts_with("20") && pinned.ends_with('Z'), "{name}={pinned}");
            assert_eq!(parameter(pages[2], name), Some(pinned));
        }
    }
}

#[test]
fn what_the_live_stream_says_beside_records_is_told() {
    let Some(browser) = Browser::start("what_the_live_stream_says_beside_records_is_told") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (go_on, told) = mpsc::channel::<()>();
    let (told, tries) = (Mutex::new(told), AtomicU32::new(0));
    let gate = Gate::scripted(node.api, move |target, client| {
        if !target.starts_with("GET /stream") {
            return false;
        }
        let told = told.lock().unwrap();
        match tries.fetch_add(1, Relaxed) {
            0 => {
                let mut text = EVENTS.to_owned() + &event(1, "one");
                text += "event: incomplete\ndata: {\"missing_count\":2}\n\n";
                text += "event: missed\ndata: {\"records\":1234}\n\n";
                let _ = client.write_all(text.as_bytes());
                let _ = told.recv();
                let end = "event: end\ndata: {\"reason\":\"the node is stopping\"}\n\n";
                let _ = client.write_all(end.as_bytes());
                true
            }
            // It is away until the test has seen what is told.
            1 => {
                let _ = told.recv();
                false
            }
            _ => false,
        }
    });
    browser.open(gate.address, "/ui/?live");
    browser.wait(&format!("String({ROWS}) === 'one'"));
    let note = |name: &str| format!("document.querySelector('.note.amber[data-name={name}]')");
    browser.wait(&format!("{}.textContent.includes('2 spans could not be searched')", note("gap")));
    browser.wait(&format!("{}.textContent.startsWith('1,234 came too fast')", note("missed")));
    browser.wait(&format!("{COUNTS}.includes('incomplete')"));
    go_on.send(()).unwrap();
    browser.wait(&format!("{}.textContent.includes('the node is stopping')", note("live")));
    go_on.send(()).unwrap();
    browser.wait(&format!("!{}", note("live")));
    send(node.durable, b"two\n");
    browser.wait(&format!("String({ROWS}) === 'one,two'"));
}

#[test]
fn what_one_reads_stays_when_more_comes_than_is_kept() {
    let Some(browser) = Browser::start("what_one_reads_stays_when_more_comes_than_is_kept") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let gate = Gate::scripted(node.api, move |target, client| {
        if !target.starts_with("GET /stream") {
            return false;
        }
        let some = |from, to| {
            (from..to).fold(String::new(), |mut all, n| {
                let _ = write!(all, "{}", event(n, &format!("line {n}")));
                all
            })
        };
        let _ = client.write_all((EVENTS.to_owned() + &some(0, 500)).as_bytes());
        let told = told.lock().unwrap();
        let _ = told.recv();
        for n in 0..30 {
            let from = 500 + n * 10_000;
            if client.write_all(some(from, from + 10_000).as_bytes()).is_err() {
                break;
            }
        }
        // The page has hung up, or the test has ended.
        let _ = told.recv();
        true
    });
    browser.open(gate.address, "/ui/?live");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 499'"));
    browser.keys("", "g");
    browser.wait(&format!("{ROWS}[0] === 'line 0' && {COUNTS}.includes('paused')"));
    let shown = browser.text(ROWS);
    go_on.send(()).unwrap();
    // More than are kept, so no more is taken; and that is said.
    browser.wait(&format!("/^2\\d\\d,\\d\\d\\d\\+ new/.test({PILL}.textContent)"));
    assert_eq!(browser.text(ROWS), shown);
    browser.wait("!document.querySelector('.note.amber')");
    send(node.durable, b"newest\n");
    go_on.send(()).unwrap();
    browser.click("#pill");
    browser.wait(&format!("{ROWS}.at(-1) === 'newest' || {ROWS}.at(-1) === 'line 499'"));
    browser.wait(&format!("{COUNTS}.includes('live') && {PILL}.hidden"));
}
