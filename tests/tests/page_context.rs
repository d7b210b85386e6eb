//! The records around one within the list of the web page, and beside it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, mpsc};

use tests::browser::Browser;
use tests::gate::Gate;
use tests::node::Node;
use tests::page::{ENTER, ESCAPE, ROWS, start, wait_for_rows};
use tests::sender::send;

/// Lines of two topics by turns; one of them is a script.
fn lines(node: &Node) {
    let mut lines = String::new();
    for n in 0..200 {
        let more = if n == 103 { "<img src=x onerror=window.ran=1>" } else { "" };
        writeln!(lines, "web line {n} {more}\ndb other {n}").unwrap();
    }
    send(node.durable, lines.as_bytes());
}

fn around(part: &str) -> String {
    format!("[...document.querySelectorAll('.inset{part} li > .text')].map((e) => e.textContent)")
}

/// Shows two hundred rows, and beside them what is around this one.
fn open_around(browser: &Browser, node: &Node, row: usize) {
    lines(node);
    browser.open(node.api, "/ui/?q=line&order=asc");
    wait_for_rows(browser, "200");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", &format!("{}{ENTER}c", "j".repeat(row)));
    browser.wait("document.querySelectorAll('#side .around li').length === 21");
}

/// Where the line of the chosen row stands.
const PLACE: &str =
    "Math.round(document.querySelector('.row.chosen > .time').getBoundingClientRect().top)";

#[test]
fn records_around_one_open_within_the_list_and_the_row_stays_while_they_grow() {
    let name = "records_around_one_open_within_the_list_and_the_row_stays_while_they_grow";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    open_around(&browser, &node, 102);
    browser.click("#side .in-list");
    browser.wait(&format!(
        "{}.length === 10 && {}.length === 10",
        around(".above"),
        around(".below")
    ));
    assert_eq!(browser.text(&format!("{}[0]", around(".above"))), "web line 91 ");
    assert_eq!(browser.text(&format!("{}.at(-1)", around(".above"))), "web line 100 ");
    assert_eq!(browser.text(&format!("{}[0]", around(".below"))), "web line 102 ");
    assert_eq!(
        browser.text(&format!("{}[1]", around(".below"))),
        "web line 103 <img src=x onerror=window.ran=1>"
    );
    assert_eq!(browser.text("document.getElementById('side').hidden"), "true");
    // In the middle, so that both sides are seen.
    let list = "document.getElementById('rows').getBoundingClientRect()";
    browser.wait(&format!("Math.abs({PLACE} - ({list}.top + {list}.bottom) / 2) <= 20"));
    let place = browser.text(PLACE);
    let query =
        |name: &str| browser.text(&format!("new URLSearchParams(location.search).get('{name}')"));
    assert_eq!((query("context"), query("inline")), ("10".into(), "1".into()));

    // More of them, on one side, of all topics; the row does not move.
    browser.script("document.querySelector('.inset .more-before').click()");
    browser.wait(&format!(
        "{}[0] === 'web line 41 ' && {}.length === 10",
        around(".above"),
        around(".below")
    ));
    browser.wait(&format!("String({PLACE}) === '{place}'"));
    browser.script("document.querySelector('.inset .every input').click()");
    browser.wait("document.querySelectorAll('.inset li > .topic').length === 70");
    browser.wait(&format!("String({PLACE}) === '{place}'"));
    browser.script("document.querySelector('.inset .every input').click()");
    browser.wait("!document.querySelector('.inset li > .topic')");

    // The link brings them back.
    let link = browser.text("location.pathname + location.search");
    assert!(link.contains("&at=") && link.contains("&context=60&inline=1"), "{link}");
    browser.open(node.api, &link);
    browser.wait(&format!(
        "{}.length === 60 && {}.length === 60",
        around(".above"),
        around(".below")
    ));
    browser.wait("document.querySelector('.row.chosen > .text').textContent === 'web line 101 '");
    // All of the list is reached behind them, and nothing of it is lost.
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", "G");
    browser.wait(&format!("{ROWS}.at(-1) === 'web line 199 '"));
    browser.keys("", "g");
    browser.wait(&format!("{ROWS}[0] === 'web line 0 '"));

    // Escape takes them away; from now on they open in the list at once, and go with the same key.
    browser.keys("", &ESCAPE.to_string());
    browser.wait("!document.querySelector('.inset') && !location.search.includes('context')");
    browser.keys("", "jc");
    browser.wait(&format!(
        "{}.length === 10 && {}[0] === 'web line 2 '",
        around(".below"),
        around(".below")
    ));
    assert_eq!(browser.text("document.getElementById('side').hidden"), "true");
    browser.keys("", "c");
    browser.wait("!document.querySelector('.inset')");
    // And beside the list again.
    browser.keys("", "c");
    browser.wait("document.querySelector('.inset .in-panel')");
    browser.click(".inset .in-panel");
    browser.wait("document.querySelectorAll('#side .around li').length > 10 && !document.querySelector('.inset')");
    assert_eq!(query("inline"), "null");
    // In a list that goes from the newest on, they do, too.
    browser.script("localStorage.setItem('context', 'list')");
    browser.open(node.api, "/ui/?q=line+101");
    wait_for_rows(&browser, "1");
    browser.keys("", "jc");
    browser.wait(&format!("{}[0] === 'web line 111 '", around(".above")));
    assert_eq!(browser.text(&format!("{}.at(-1)", around(".below"))), "web line 91 ");
    assert_eq!(browser.text("String(window.ran)"), "undefined");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_opens_in_the_list_or_beside_it_is_the_record_that_was_shown() {
    let name = "what_opens_in_the_list_or_beside_it_is_the_record_that_was_shown";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    open_around(&browser, &node, 20);
    // Another row is chosen meanwhile.
    browser.keys("", "jj");
    browser.click("#side .in-list");
    browser.wait(&format!("{}.at(-1) === 'web line 18 '", around(".above")));
    assert_eq!(browser.text(&format!("{}[0]", around(".below"))), "web line 20 ");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", "jj");
    browser.script("document.querySelector('.inset .in-panel').click()");
    browser.wait("document.querySelector('#side .whole')?.textContent === 'web line 19 '");
    browser.wait("document.querySelector('#side .around .own')?.textContent.endsWith('line 19 ')");
    assert_eq!(
        browser.text("document.querySelector('.row.chosen > .text').textContent"),
        "web line 19 "
    );

    // It looks as the rows do.
    browser.click("#side .in-list");
    browser.wait(&format!("{}.length === 10", around(".above")));
    let minutes = "document.querySelector('.inset.above time').textContent.slice(3, 5)";
    let before = browser.text(minutes);
    browser.script("const tz = document.getElementById('tz'); tz.append(new Option('Asia/Kathmandu')); tz.value = 'Asia/Kathmandu'; tz.dispatchEvent(new Event('change'))");
    browser.wait(&format!("{minutes} !== '{before}' && {}.length === 10", around(".above")));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn rows_are_whole_where_columns_come_while_records_stand_in_the_list() {
    let name = "rows_are_whole_where_columns_come_while_records_stand_in_the_list";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    lines(&node);
    browser.open(node.api, "/ui/");
    browser.script("localStorage.setItem('context', 'list')");
    browser.open(node.api, "/ui/?q=line&order=asc");
    wait_for_rows(&browser, "200");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", "jc");
    browser.wait(&format!("{}[0] === 'web line 1 '", around(".below")));
    // As many cells more as there are parts of it.
    browser.script(
        "history.pushState(null, '', '?q=line&order=asc&cols=a,b'); dispatchEvent(new PopStateEvent('popstate'))",
    );
    wait_for_rows(&browser, "200");
    let whole = "[...document.querySelectorAll('#pane .row')].every((row) => [...row.children].map((e) => e.classList[0]).join() === 'time,level,topic,col,col,text')";
    browser.wait(&format!("{whole} && {ROWS}[0] === 'web line 0 '"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn of_two_answers_about_one_record_the_last_that_was_asked_for_is_shown() {
    let name = "of_two_answers_about_one_record_the_last_that_was_asked_for_is_shown";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    lines(&node);
    let (go_on, told) = mpsc::channel::<()>();
    let (told, is_held) = (Mutex::new(told), AtomicBool::new(false));
    let gate = Gate::scripted(node.api, move |target, _| {
        // The first answer of sixty waits until it is told, each time.
        if target.contains("context=60") && !is_held.fetch_not(Relaxed) {
            let _ = told.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        false
    });
    for place in ["#side", ".inset"] {
        browser.open(gate.address, "/ui/?q=line&order=asc");
        browser.script(&format!(
            "localStorage.setItem('context', '{}')",
            if place == ".inset" { "list" } else { "" }
        ));
        wait_for_rows(&browser, "200");
        browser.script("document.getElementById('rows').focus()");
        let open = if place == ".inset" { "c" } else { "\u{e007}c" };
        browser.keys("", &format!("{}{open}", "j".repeat(102)));
        let shown = format!("document.querySelectorAll('{place} .around li').length");
        let expected = if place == ".inset" { 20 } else { 21 };
        browser.wait(&format!("{shown} === {expected}"));
        let every = format!("document.querySelector('{place} .every input')");
        // Asked for one after the other, and answered the other way round.
        let answers = "performance.getEntriesByType('resource').filter((e) => e.name.includes('context=60')).length";
        browser.script(&format!(
            "document.querySelector('{place} .more-before').click(); {every}.click()"
        ));
        browser.wait(&format!("document.querySelector('{place} .around .topic')"));
        assert_eq!(browser.text(answers), "0");
        go_on.send(()).unwrap();
        browser.wait(&format!("{answers} === 1"));
        browser
            .script("return new Promise((done) => setTimeout(() => requestAnimationFrame(done)))");
        assert_eq!(browser.text(&shown), expected.to_string(), "{place}");
        assert_eq!(browser.text(&format!("{every}.checked")), "true");
        browser.wait(&format!("document.querySelector('{place} .around .topic')"));
        // The next one of sixty is let through.
        browser.script(&format!("{every}.click()"));
        browser.wait(&format!("!document.querySelector('{place} .around .topic')"));
        browser.script(&format!("document.querySelector('{place} .more-before').click()"));
        browser.wait(&format!("{shown} === {}", expected + 50));
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
