//! Scripts, markup, escapes, characters that turn text and NUL, wherever the web page shows what others have
//! written: they are shown, and nothing of them is done.

use serde_json::json;
use tests::browser::Browser;
use tests::gate::{Gate, Rule};
use tests::node::Node;
use tests::page::{ENTER, ESCAPE, NOTE, start, wait_for_rows};
use tests::sender::send;

const NAME: &str = "<img src=x onerror=window.ran=1>";
const VALUE: &str = "</pre><script>window.ran=2</script>";

/// JSON with a name and a value that are markup, and text that would turn, colour or end other text.
fn records(node: &Node) {
    let object = json!({ NAME: VALUE, "turned": "\u{202e}abc", "escape": "a\u{1b}[31mb\u{0}c" });
    send(node.durable, format!("web {object}\n").as_bytes());
    send(
        node.durable,
        format!("web \x1b[31mred\x1b[0m \0 \u{202e}turned {VALUE} {NAME}\n").as_bytes(),
    );
}

/// Nothing that came with text is an element, has run, or is a character that does something.
fn is_unharmed(browser: &Browser, state: &str) {
    let harm = "document.querySelectorAll('img, body script, svg:not(#chart svg)').length + String(window.ran)";
    assert_eq!(browser.text(harm), "0undefined", "{state}");
    let loose = "(() => {
            const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
            const bad = [];
            while (walk.nextNode()) if (/[\\0-\\x08\\x1b\\u202e]/.test(walk.currentNode.data)) bad.push(walk.currentNode.parentElement.className);
            return bad;
        })()";
    assert_eq!(browser.text(loose), "", "{state}");
}

#[test]
fn records_are_shown_and_never_run_in_every_place_that_shows_them() {
    let name = "records_are_shown_and_never_run_in_every_place_that_shows_them";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    records(&node);
    let columns = "%3Cimg+src%3Dx+onerror%3Dwindow.ran%3D1%3E,turned,escape";
    browser.open(node.api, &format!("/ui/?order=asc&cols={columns}"));
    wait_for_rows(&browser, "2");
    let cells = "[...document.querySelector('#pane .row').querySelectorAll('.col')].map((e) => e.textContent).join('|')";
    browser.wait(&format!("{cells} === {}", json!(format!("{VALUE}|\\u{{202e}}abc|ab\u{2400}c"))));
    is_unharmed(&browser, "rows and columns");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", &format!("j{ENTER}"));
    browser.wait(&format!(
        "document.querySelector('#side .fields')?.textContent.includes({})",
        json!(NAME)
    ));
    is_unharmed(&browser, "details and their fields");
    browser.keys("", "c");
    browser.wait(&format!(
        "document.querySelector('#side .around')?.textContent.includes({})",
        json!(VALUE)
    ));
    is_unharmed(&browser, "context");
    browser.click("#side .in-list");
    browser.wait(&format!(
        "document.querySelector('.inset .around li')?.textContent.includes({})",
        json!(VALUE)
    ));
    is_unharmed(&browser, "context in the list");
    browser.keys("", &format!("{ESCAPE}f"));
    browser.wait("document.querySelectorAll('#side .field').length >= 3");
    browser.script("document.querySelectorAll('#side .field').forEach((e) => { e.open = true; })");
    let value = format!(
        "[...document.querySelectorAll('#side .value')].find((e) => e.textContent === {})",
        json!(VALUE)
    );
    browser.wait(&value);
    is_unharmed(&browser, "fields of all");
    browser.script(&format!(
        "{value}.dispatchEvent(new MouseEvent('click', {{ bubbles: true, altKey: true }}))"
    ));
    browser.wait(&format!(
        "document.querySelector('.chip.out').textContent.includes({})",
        json!("<script>")
    ));
    is_unharmed(&browser, "a chip");
    browser.click("#saved");
    browser.keys("", &format!("{NAME}{ENTER}"));
    browser
        .wait(&format!("document.querySelector('.saved button').textContent === {}", json!(NAME)));
    is_unharmed(&browser, "a saved query");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_a_node_says_of_itself_and_of_a_query_is_shown_and_never_run() {
    let name = "what_a_node_says_of_itself_and_of_a_query_is_shown_and_never_run";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    records(&node);
    let time = "2026-11-30T12:00:00Z";
    let topics = json!({ "topics": [{ "topic": NAME, "records": 1, "bytes": 1, "from": time, "to": time }] });
    let counts = json!({
        "from": time, "to": "2026-11-30T12:00:10Z", "interval_ms": 1000, "counts": vec![2; 10], "complete": false,
        "missing": [], "series": [{ "topic": NAME, "counts": vec![1; 10] }, { "topic": VALUE, "counts": vec![1; 10] }],
    });
    let ready = json!({ "status": "degraded", "reasons": [VALUE, NAME] });
    let said = vec![
        ("/topics", 200, topics.to_string()),
        ("/query/histogram", 200, counts.to_string()),
        ("/ready", 503, ready.to_string()),
    ];
    let gate = Gate::open(node.api, "", Rule::Answer(said.clone()));
    browser.open(gate.address, "/ui/");
    browser.wait(&format!(
        "document.querySelector('.note.amber li')?.textContent === {}",
        json!(VALUE)
    ));
    browser
        .wait(&format!("document.querySelector('.legend').textContent.includes({})", json!(NAME)));
    browser.click("#topics > summary");
    browser.wait(&format!(
        "document.querySelector('#topic-list label')?.textContent.includes({})",
        json!(NAME)
    ));
    is_unharmed(&browser, "topics, bars and troubles");
    // What is missing, by whom and why, and why a query is refused.
    let gap = json!({ "end": { "complete": false, "missing": [{
        "from": "01M7Y424B20000000000000000", "to": "01M7Y424B20000000000000001", "node": NAME, "reason": VALUE,
    }] } });
    let query = |status, body: String| {
        let mut said = said.clone();
        said.push(("/query", status, body));
        Rule::Answer(said)
    };
    gate.set(query(200, format!("{gap}\n")));
    browser.open(gate.address, "/ui/");
    browser.wait(&format!(
        "document.querySelector('.note.amber[data-name=incomplete] li')?.textContent.endsWith({})",
        json!(format!("{NAME}: {VALUE}"))
    ));
    is_unharmed(&browser, "an incomplete answer");
    gate.set(query(400, format!("q: {VALUE} {NAME}")));
    browser.open(gate.address, "/ui/?q=x");
    browser.wait(&format!("{NOTE}?.includes({})", json!(VALUE)));
    is_unharmed(&browser, "a refused query");
}
