//! Whether everybody can use the web page: axe-core's rules for WCAG 2.2 AA in the states that it has, targets
//! that can be hit, and what is asked of the system (less motion, colours of one's own).

use serde_json::{Value, json};
use tests::browser::Browser;
use tests::node::Node;
use tests::page::{COUNTS, ENTER, ESCAPE, start};
use tests::sender::send;
use tests::{skipped, tools};

/// Lines of every level, with fields, colours, what matches, and what is no text.
fn lines(node: &Node) {
    let levels = ["fatal", "error", "warn", "info", "debug"];
    let mut all = Vec::new();
    for n in 0..60 {
        let (topic, level) = (["web", "db", "mail"][n % 3], levels[n % 5]);
        all.extend(format!("{topic} level={level} n={n} \x1b[3{}mcolour\x1b[0m \x1b[9{}mbright\x1b[0m \x1b[2mdim\x1b[0m\n", n % 8, n % 8).bytes());
    }
    all.extend(b"web no text \xff\x01 end\n");
    all.extend(b"web {\"level\":\"info\",\"path\":\"/users\",\"n\":1}\n");
    send(node.durable, &all);
}

struct Axe {
    browser: Browser,
    source: Option<String>,
    /// What was found wrong, with the state.
    wrong: Vec<String>,
}

impl Axe {
    /// What WCAG 2.2 AA asks for and the page lacks as it stands.
    fn look(&mut self, state: &str) {
        let Some(source) = &self.source else { return };
        if self.browser.text("typeof window.axe") == "undefined" {
            self.browser.script(source);
        }
        let run = "return axe.run(document, {
                runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
                rules: { 'target-size': { enabled: true } },
            }).then(({ violations }) => violations.flatMap((rule) =>
                rule.nodes.slice(0, 5).map((node) => `${rule.id}: ${node.target} ${node.failureSummary}`)))";
        let found = self.browser.script(run);
        let found = found.as_array().expect("axe answers").iter();
        self.wrong
            .extend(found.map(|one| format!("{state}: {}", one.as_str().unwrap_or_default())));
        self.targets(state);
    }

    /// What can be clicked and is too small to hit.
    fn targets(&mut self, state: &str) {
        let small = "[...document.querySelectorAll('button, select, summary, a, input')]
            .filter((e) => e.checkVisibility() && !e.closest('label') && !e.closest('.unseen'))
            .map((e) => [e, e.getBoundingClientRect()])
            .filter(([, box]) => box.width > 0 && Math.min(box.width, box.height) < 24)
            .map(([e, box]) => `${e.tagName} ${e.id} ${e.className} ${e.textContent.slice(0, 20)} ${box.width} x ${box.height}`).join('; ')";
        let small = self.browser.text(small);
        if !small.is_empty() {
            self.wrong.push(format!("{state}: small: {small}"));
        }
    }

    fn scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.browser.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Every state that one gets to.
    fn walk(&mut self, node: &Node, name: &str) {
        let api = node.api;
        let at = |state: &str| format!("{name}, {state}");
        self.browser.open(api, "/ui/?order=asc&q=level&x=nothing&regex");
        self.browser.wait(&format!("{COUNTS}.includes('complete')"));
        self.browser
            .wait("document.querySelector('#chart-box .bars') && document.querySelector('.row')");
        self.look(&at("rows"));
        self.browser.script(
            "const by = document.getElementById('by'); by.value = 'level'; by.dispatchEvent(new Event('change'))",
        );
        self.browser.wait("document.querySelector('.legend > .lv-error')");
        self.look(&at("bars by level"));
        self.browser.script("document.getElementById('rows').focus()");
        self.browser.keys("", &format!("j{ENTER}c"));
        self.browser.wait("document.querySelector('#side .around li')");
        self.look(&at("details and context"));
        self.browser.click("#side .in-list");
        self.browser.wait("document.querySelector('.inset .around li')");
        self.look(&at("context in the list"));
        self.browser.script("localStorage.removeItem('context')");
        self.browser.keys("", &ESCAPE.to_string());
        self.browser.keys("", "f");
        self.browser.wait("document.querySelector('#side .field')");
        self.browser.script("document.querySelector('#side .field').open = true");
        self.browser.wait("document.querySelector('#side .field .value')");
        self.browser.click("#side .field-line .column");
        self.browser.wait("!document.getElementById('heads').hidden");
        self.look(&at("fields and a column"));
        self.browser.script("localStorage.removeItem('by')");
        self.browser.keys("", &format!("{ESCAPE}?"));
        self.browser.wait("document.getElementById('keys').open");
        self.look(&at("keys"));
        self.browser.keys("", &ESCAPE.to_string());
        self.browser.wait("!document.getElementById('keys').open");
        self.browser.click("#saved");
        self.browser.keys("", &format!("mine{ENTER}"));
        self.browser.wait("document.querySelector('.saved button').textContent === 'mine'");
        self.look(&at("saved queries"));
        self.browser.open(api, "/ui/?q=nothing+is+like+it");
        self.browser.wait("document.querySelector('#empty button')");
        self.browser.click("#topics > summary");
        self.browser.wait("document.querySelector('#topic-list label')");
        self.look(&at("no match, and topics"));
        self.browser.open(api, "/ui/?q=(&regex");
        self.browser.wait("document.querySelector('.note.bad')");
        self.look(&at("a refused query"));
        self.browser.open(api, "/ui/?live");
        self.browser.wait(&format!("{COUNTS}.includes('live')"));
        self.browser.keys("", " ");
        send(node.durable, b"web one more\n");
        self.browser.wait("!document.getElementById('pill').hidden");
        self.browser.click("#q");
        self.browser.keys("", "edited");
        self.browser.wait("document.querySelector('.note.quiet')");
        self.look(&at("live, paused, edited"));
        self.browser.open(api, "/ui/overview");
        self.browser.wait("document.querySelectorAll('.card .big').length >= 3");
        self.look(&at("overview"));
    }
}

#[test]
fn no_rule_of_wcag_is_broken_in_any_state_light_dark_or_narrow() {
    let name = "no_rule_of_wcag_is_broken_in_any_state_light_dark_or_narrow";
    let Some(browser) = Browser::start(name) else { return };
    let source = tools::npm("axe-core", "axe.min.js");
    let source = source.map(|path| std::fs::read_to_string(path).expect("it is text"));
    if source.is_none() {
        skipped(
            name,
            "no axe-core: tests/run installs it where npm is there; only targets are looked at",
        );
    }
    let mut axe = Axe { browser, source, wrong: Vec::new() };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    axe.browser.open(node.api, "/ui/");
    axe.browser.wait("document.querySelector('#empty dl')");
    axe.look("first visit");
    lines(&node);
    for scheme in ["light", "dark"] {
        axe.scheme(scheme);
        axe.walk(&node, scheme);
    }
    axe.browser.resize(320, 640);
    axe.walk(&node, "narrow");
    assert!(axe.wrong.is_empty(), "{:#?}", axe.wrong);
}

#[test]
fn what_is_seen_is_there_for_those_who_do_not_see_it() {
    let name = "what_is_seen_is_there_for_those_who_do_not_see_it";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    lines(&node);
    browser.open(node.api, "/ui/?order=asc");
    browser.wait(&format!("{COUNTS}.startsWith('62 rows') && {COUNTS}.includes('complete')"));
    let rows = "document.getElementById('rows')";
    browser.wait(&format!("{rows}.getAttribute('aria-rowcount') === '62'"));
    browser.wait("document.querySelector('#pane .row').getAttribute('aria-rowindex') === '1'");
    // The end of a search is said, and where one stands.
    browser.wait("document.getElementById('said').textContent.startsWith('62 rows')");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", "j");
    let active = format!("document.getElementById({rows}.getAttribute('aria-activedescendant'))");
    browser.wait(&format!("{active}.getAttribute('aria-selected') === 'true'"));
    // The histogram is a table, too, and its bars are reached with keys.
    browser.wait("document.querySelector('#chart-box table')");
    let table = "document.querySelector('#chart-box table')";
    assert_eq!(browser.text(&format!("{table}.querySelectorAll('th[scope=col]').length")), "5");
    let sum = format!(
        "[...{table}.tBodies[0].rows].reduce((sum, row) => sum + Number(row.cells[1].textContent), 0)"
    );
    assert_eq!(browser.text(&sum), "62");
    // So is what they are divided by.
    let parts = sum.replace("row.cells[1].textContent", "row.cells[2].textContent");
    assert_eq!(browser.text(&parts), "22");
    let media = |name: &str, value: &str| {
        let features = json!({ "features": [{ "name": name, "value": value }] });
        browser.devtools("Emulation.setEmulatedMedia", &features)
    };
    let moves = "getComputedStyle(document.getElementById('pane')).transitionDuration";
    assert_ne!(media("prefers-reduced-motion", "no-preference"), Value::Bool(false));
    assert_ne!(browser.text(moves), "0s");
    media("prefers-reduced-motion", "reduce");
    assert_eq!(browser.text(moves), "0s");
    // With the system's colours what is chosen and what matches can still be told.
    media("forced-colors", "active");
    let chosen = "getComputedStyle(document.querySelector('.row.chosen')).outlineStyle";
    assert_eq!(browser.text(chosen), "solid");
}
