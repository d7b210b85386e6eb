//! The web page as it reads on: further pages, what failed, what the live stream says beside records. A gate
//! before the node sees what is asked and answers in its place where a test needs it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tests::browser::Browser;
use tests::gate::Gate;
use tests::node::Node;
use tests::page::{COUNTS, PILL, ROWS};
use tests::sender::send;
use tests::wait_until;

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

/// A reader as the page has one, to which the test says when a batch was taken.
const READER: &str = "
    window.batches = [];
    window.notes = 0;
    window.reader = new Worker(document.querySelector('script').src.replace('app.js', 'reader.js'), { type: 'module' });
    window.follow = (id, q) => reader.postMessage({ id, url: new URL(`../stream?q=${q}`, document.baseURI).href, headers: {}, after: '0'.repeat(26) });
    window.of = (id) => batches.filter((one) => one.id === id);
    window.come = () => of(1).flatMap((one) => one.numbers);
    reader.onmessage = ({ data: { id, note, bytes, ends } }) => {
        if (note) notes++;
        if (!bytes) return;
        const lines = new TextDecoder().decode(bytes).split('\\n');
        const isWhole = lines.pop() === '' && ends.length === lines.length && [...ends].every((end) => bytes[end] === 10);
        batches.push({ id, size: bytes.length, numbers: isWhole ? lines.map((line) => parseInt(JSON.parse(line).record, 10)) : [NaN] });
    };
    follow(1, 'first')";
/// The last records are so many, of so many bytes.
const LONG: (u32, usize) = (4_000, 8 << 10);

/// Streams for it. The first one breaks off in the middle of record 400; each of its parts waits until it is
/// told. Who comes again is given all further ones as fast as they are taken, counted in `written`.
fn stream_in_parts(target: &str, client: &mut TcpStream, on: &Parts) -> bool {
    let some = |from: u32, to: u32| {
        (from..to).fold(String::new(), |all, n| all + &event(n, &format!("{n} é€😀 of many")))
    };
    let next = || {
        let _ = on.told.lock().unwrap_or_else(PoisonError::into_inner).recv();
    };
    // Who hangs up is nobody's fault.
    let mut write = |text: &str| {
        // In pieces that keep to no edge of a record or a letter.
        text.as_bytes().chunks(16_411).all(|piece| client.write_all(piece).is_ok())
    };
    if target.contains("q=second") {
        write(&(EVENTS.to_owned() + &some(0, 1)));
    } else if !target.contains("q=first") {
        return false;
    } else if on.tries.fetch_add(1, Relaxed) == 0 {
        write(&(EVENTS.to_owned() + &some(0, 200)));
        next();
        write(&(some(200, 400) + "event: missed\ndata: {\"records\":7}\n\n"));
        next();
        let half = event(400, &"x".repeat(LONG.1));
        write(&half[..half.len() / 2]);
        return true;
    } else {
        write(EVENTS);
        for n in 400..400 + LONG.0 {
            let one = event(n, &format!("{n} {}", "x".repeat(LONG.1)));
            if !write(&one) {
                break;
            }
            on.written.fetch_add(one.len(), Relaxed);
        }
    }
    // Nothing more, and no end.
    let _ = std::io::copy(client, &mut std::io::sink());
    true
}

/// What the test and those streams share.
struct Parts {
    told: Mutex<mpsc::Receiver<()>>,
    tries: AtomicU32,
    written: AtomicUsize,
}

#[test]
fn what_comes_live_is_handed_over_one_batch_at_a_time_each_record_once_and_in_its_order() {
    let name =
        "what_comes_live_is_handed_over_one_batch_at_a_time_each_record_once_and_in_its_order";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (go_on, told) = mpsc::channel();
    let parts = Arc::new(Parts {
        told: Mutex::new(told),
        tries: AtomicU32::new(0),
        written: AtomicUsize::new(0),
    });
    let own = Arc::clone(&parts);
    let gate =
        Gate::scripted(node.api, move |target, client| stream_in_parts(target, client, &own));
    browser.open(gate.address, "/ui/");
    browser.script(READER);
    browser.wait("of(1).length === 1");
    go_on.send(()).unwrap();
    // What was said behind the next records has come, so they have; and what another stream brings later is
    // handed over. Of the first one nothing is, for its batch has not been taken.
    browser.wait("notes === 1");
    browser.script("follow(2, 'second')");
    browser.wait("of(2).length === 1");
    assert_eq!(browser.text("of(1).length"), "1");
    browser.script("reader.postMessage({ id: 1, taken: true })");
    browser.wait("of(1).length === 2");
    assert_eq!(browser.text("come().length"), "400", "all of it at once");
    // Goes on behind the last whole one, though nobody has taken that yet.
    go_on.send(()).unwrap();
    wait_until("more is held than may be", || parts.written.load(Relaxed) > 5 << 20);
    let mut sizes = Vec::new();
    while browser.text("come().length") != (400 + LONG.0).to_string() {
        let batches = browser.text("of(1).length");
        browser.script("reader.postMessage({ id: 1, taken: true })");
        browser.wait(&format!("of(1).length > {batches}"));
        sizes.push(browser.script("return of(1).at(-1).size").as_u64().unwrap());
    }
    // Four mebibytes, and what came with the one that was too much.
    assert!(sizes.iter().all(|size| *size < 7 << 20), "{sizes:?}");
    assert_eq!(browser.text("come().every((n, k) => n === k)"), "true");
    let seen = gate.take_seen();
    let asked = seen.iter().filter(|one| one.line.contains("q=first"));
    let behind: Vec<_> = asked.map(|one| one.last_event_id.clone().unwrap_or_default()).collect();
    assert_eq!(behind, ["0".repeat(26), format!("01M7Y424B2{:016}", 399)]);
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
