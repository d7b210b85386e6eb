//! Levels in the web page: the bars of the histogram by level, and that they are the levels of the rows.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use engine::entries::LEVELS;
use engine::levels::level;
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::gate::{Gate, Rule};
use tests::http;
use tests::node::Node;
use tests::page::{COUNTS, TEXT, start, wait_for_rows};
use tests::sender::send;

/// Of what texts are made that are levels, nearly are, or stand between them.
const PARTS: [&str; 34] = [
    "level",
    "\"level\"",
    "\"LVL\"",
    "\"severity\"",
    "\"",
    ":",
    "=",
    " ",
    "\t",
    "\u{a0}",
    "_",
    "error",
    "Err",
    "failed",
    "warn",
    "WARNING",
    "info",
    "notice",
    "debug",
    "trace",
    "fatal",
    "panic",
    "crit",
    "emerg",
    "ſ",
    "\u{212A}",
    "é",
    "\u{1F600}",
    "x x x x x x x x x x x x x x x x x ",
    "7",
    "\x1b",
    "[",
    "\x1b[31m",
    "\x1b[0;1m",
];

/// Texts of these, the same ones each time.
fn texts(count: usize) -> Vec<String> {
    let mut state = 7_u64;
    let mut next = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut text = || {
        let parts: Vec<_> = (0..next(12))
            .map(|_| PARTS[next(PARTS.len())].repeat(1 + next(40) / 39 * 60))
            .collect();
        parts.concat()
    };
    (0..count).map(|_| text()).collect()
}

#[test]
fn the_page_and_the_node_see_the_same_level_in_every_text() {
    let Some(browser) = Browser::start("the_page_and_the_node_see_the_same_level_in_every_text")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    browser.open(node.api, "/ui/");
    let texts = texts(4_000);
    let body = format!("return {TEXT}.then((text) => {}.map(text.level))", json!(texts));
    let found = browser.script(&body);
    let found = found.as_array().unwrap();
    let mut levels = 0;
    for (text, found) in texts.iter().zip(found) {
        let expected = level(text.as_bytes()).map_or("", |level| LEVELS[level]);
        levels += usize::from(!expected.is_empty());
        assert_eq!(found, expected, "{text:?}");
    }
    assert!((400..3_600).contains(&levels), "{levels} have one");
    // Bytes that are no text, as the page has them.
    let bytes = [&b"\xff\xe2\x82 ".repeat(37)[..], b"\xf0\x9f\x98\x80 failed"].concat();
    let body = format!(
        "return {TEXT}.then((text) => text.level(text.lossless(Uint8Array.from({}))))",
        json!(bytes)
    );
    assert_eq!(browser.script(&body), level(&bytes).map_or("", |level| LEVELS[level]));
}

/// Entries of all levels but debug, lines that say their level in their own ways, and such as say none.
fn records(node: &Node) {
    let entries: Vec<Value> = (0..12)
        .map(|n| json!({ "level": (["fatal", "error", "info"])[n % 3], "service": "s", "message": "debug" }))
        .collect();
    let answer = http::post(node.api, "/logs", json!(entries).to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let lines =
        "web WARN it is late\nweb level=error msg=debug\nweb {\"lvl\":\"Warning\"}\nweb nothing\n";
    send(node.durable, lines.as_bytes());
}

const LEGEND: &str =
    "[...document.querySelectorAll('.legend > [class^=lv-]')].map((e) => e.textContent).join('|')";

#[test]
fn bars_are_divided_by_level_with_signs_a_table_and_a_link() {
    let name = "bars_are_divided_by_level_with_signs_a_table_and_a_link";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    records(&node);
    browser.open(node.api, "/ui/");
    wait_for_rows(&browser, "16");
    browser.wait("[...document.querySelectorAll('.legend > [class^=c]')].map((e) => e.textContent).sort().join() === 'log,web'");
    browser.script("const by = document.getElementById('by'); by.value = 'level'; by.dispatchEvent(new Event('change'))");
    browser.wait(&format!("{LEGEND} === '✖ fatal|● error|▲ warn|· info|no level'"));
    assert_eq!(browser.text("new URLSearchParams(location.search).get('by')"), "level");
    assert_eq!(
        browser.text(
            "[...document.querySelectorAll('#chart-box .bars')].map((e) => e.classList[1]).join()"
        ),
        "lv-fatal,lv-error,lv-warn,lv-info,lv-none"
    );
    // The rows have the same levels.
    let shown = "Object.entries(Object.groupBy(document.querySelectorAll('#pane .row'), (e) => e.classList[1] ?? ''))
        .map(([level, all]) => `${level} ${all.length}`).sort().join()";
    assert_eq!(browser.text(shown), " 1,error 5,fatal 4,info 4,warn 2");
    let table = "document.querySelector('#chart-box table')";
    let heads = format!("[...{table}.tHead.rows[0].cells].map((e) => e.textContent).join()");
    assert_eq!(browser.text(&heads), "From,Records,fatal,error,warn,info,no level");
    let sums = format!(
        "[1, 2, 3, 4, 5, 6].map((k) => [...{table}.tBodies[0].rows].reduce((sum, row) => sum + Number(row.cells[k].textContent), 0)).join()"
    );
    assert_eq!(browser.text(&sums), "16,4,5,2,4,1");
    // With keys one hears and sees how many there are of each.
    browser.script("document.getElementById('chart-box').focus()");
    browser.keys("", "\u{e014}");
    browser.keys("\u{e008}", &"\u{e014}".repeat(260));
    browser.wait(&format!("{LEGEND} === '✖ fatal 4|● error 5|▲ warn 2|· info 4|no level 1'"));
    browser.wait("document.querySelector('.told').textContent.endsWith('16 records, 4 fatal, 5 error, 2 warn, 4 info, 1 no level')");
    // It is in the link, is how bars look and no other query, and is remembered.
    let link = browser.text("location.pathname + location.search");
    browser.open(node.api, &link);
    browser.wait(&format!("{LEGEND}.startsWith('✖ fatal')"));
    browser.open(node.api, "/ui/?q=WARN");
    browser.wait(&format!("{LEGEND} === '▲ warn'"));
    browser.wait(&format!("{COUNTS}.startsWith('1 row ')"));
    browser.script("const by = document.getElementById('by'); by.value = ''; by.dispatchEvent(new Event('change'))");
    browser.wait("document.querySelector('.legend > [class^=c]')?.textContent === 'web'");
    assert_eq!(browser.text("new URLSearchParams(location.search).get('by')"), "topic");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// What is said of the bars.
const TOLD: &str = "document.querySelector('#chart-box .told')?.textContent";

#[test]
fn what_a_link_says_of_bars_holds_and_what_is_folded_is_asked_for_when_it_unfolds() {
    let name = "what_a_link_says_of_bars_holds_and_what_is_folded_is_asked_for_when_it_unfolds";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    records(&node);
    browser.open(node.api, "/ui/");
    browser.script("localStorage.setItem('by', 'level')");
    let topics = "[...document.querySelectorAll('.legend > [class^=c]')].map((e) => e.textContent).sort().join() === 'log,web'";
    let by = "document.getElementById('by').value";
    // Somebody else's link, whatever one likes oneself; a query that follows keeps to it.
    browser.open(node.api, "/ui/?by=topic");
    browser.wait(topics);
    assert_eq!(browser.text(by), "");
    browser.click("#q");
    browser.keys("", "e\u{e007}");
    browser.wait("location.search.includes('q=e')");
    browser.wait(topics);
    assert!(browser.text("location.search").contains("by=topic"));
    browser.open(node.api, "/ui/");
    browser.wait(&format!("{LEGEND}.startsWith('✖ fatal')"));
    assert_eq!(browser.text(by), "level");
    // What nobody can have chosen is nothing.
    browser.script("localStorage.setItem('by', 'nonsense')");
    for link in ["/ui/", "/ui/?by=nonsense"] {
        browser.open(node.api, link);
        browser.wait(topics);
        assert_eq!(browser.text(by), "", "{link}");
    }

    browser.wait(&format!("{TOLD}.startsWith('16 records')"));
    browser.click("#chart > summary");
    browser.wait("!document.getElementById('chart').open");
    browser.click("#q");
    browser.keys("", "WARN\u{e007}");
    browser.wait(&format!("{COUNTS}.startsWith('1 row ')"));
    browser.click("#chart > summary");
    browser.wait(&format!("{TOLD}.startsWith('1 record ')"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn bars_that_were_asked_for_before_a_failure_do_not_come_behind_it() {
    let name = "bars_that_were_asked_for_before_a_failure_do_not_come_behind_it";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    records(&node);
    let (go_on, told) = mpsc::channel::<()>();
    let (told, is_failing) = (Mutex::new(told), AtomicBool::new(true));
    let asked = Arc::new(AtomicU32::new(0));
    let own = Arc::clone(&asked);
    let gate = Gate::scripted(node.api, move |target, client| {
        let refuse = |client: &mut std::net::TcpStream, status: &str, body: &str| {
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nRetry-After: 1\r\nConnection: close\r\n");
            let _ = write!(client, "{head}Content-Length: {length}\r\n\r\n{body}");
            true
        };
        if target.starts_with("GET /query/histogram") && own.fetch_add(1, Relaxed) == 0 {
            let _ = told.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let old = json!({
                "from": "2026-11-30T12:00:00Z", "to": "2026-11-30T12:00:01Z", "interval_ms": 1000,
                "counts": [999], "complete": true,
            });
            return refuse(client, "200 OK", &old.to_string());
        }
        // The rows fail once the bars have been asked for, and are asked for again.
        target.starts_with("GET /query?")
            && is_failing.swap(false, Relaxed)
            && refuse(client, "503 Busy", "not now")
    });
    browser.open(gate.address, "/ui/");
    browser.wait(&format!("{COUNTS}.startsWith('16 rows ')"));
    browser.wait(&format!("{TOLD}.startsWith('16 records')"));
    assert_eq!(asked.load(Relaxed), 2);
    go_on.send(()).unwrap();
    // Whatever has come by now has been seen to.
    browser.script("return fetch('../health').then(() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 50)))");
    assert!(browser.text(TOLD).starts_with("16 records"));
    // Bars that are not to be had leave no names that somebody could point at.
    gate.set(Rule::Answer(vec![("/query/histogram", 500, "broken by hand".into())]));
    browser.complaints();
    browser.click("#q");
    browser.keys("", "e\u{e007}");
    browser.wait("document.querySelector('.chart-fail')");
    browser.script(
        "document.getElementById('chart-box').dispatchEvent(new PointerEvent('pointerleave'))",
    );
    browser.keys("", "x");
    let complaints = browser.complaints();
    assert!(!complaints.iter().any(|told| told.contains("TypeError")), "{complaints:?}");
}
