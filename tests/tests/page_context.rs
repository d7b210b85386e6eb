//! The records around one within the list of the web page.

use std::fmt::Write as _;

use tests::browser::Browser;
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

/// Where the line of the chosen row stands.
const PLACE: &str =
    "Math.round(document.querySelector('.row.chosen > .time').getBoundingClientRect().top)";

#[test]
fn records_around_one_open_within_the_list_and_the_row_stays_while_they_grow() {
    let name = "records_around_one_open_within_the_list_and_the_row_stays_while_they_grow";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    lines(&node);
    // Two hundred rows, so that there are some above and below.
    browser.open(node.api, "/ui/?q=line&order=asc");
    wait_for_rows(&browser, "200");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", &format!("{}{ENTER}c", "j".repeat(102)));
    browser.wait("document.querySelectorAll('#side .around li').length === 21");
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
