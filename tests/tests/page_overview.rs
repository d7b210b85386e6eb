//! The overview, second page of the web page: what its boxes show, how each fails for itself, what is sent.

use serde_json::{Value, json};
use tests::browser::Browser;
use tests::gate::{Gate, Rule};
use tests::http;
use tests::node::Node;
use tests::page::{COUNTS, ENTER, ROWS, start};
use tests::sender::send;
use tests::{outlet, wait_until};

const FEED: &str = "[...document.querySelectorAll('.feed .text')].map((e) => e.textContent)";
/// Boxes that say why they have no answer.
const FAILING: &str = "String([...document.querySelectorAll('.card > .why:not([hidden])')].map((e) => e.parentElement.id))";
/// Somebody looks at the page again.
const LOOK: &str = "document.dispatchEvent(new Event('visibilitychange'))";
const WELL: &str = "[...document.querySelectorAll('.card .big')].length >= 3 && document.querySelector('.nodes tbody tr')";

/// Sixty lines of the web, thirty of a database, and twelve entries of two services, four of them errors.
fn shop(node: &Node) {
    let lines = (0..90).fold(String::new(), |all, n| {
        let topic = if n % 3 == 0 { "db" } else { "web" };
        all + &format!("{topic} line {n}\n")
    });
    send(node.durable, lines.as_bytes());
    let (levels, services) = (["info", "warn", "error"], ["auth", "pay \"x\""]);
    for n in 0..12 {
        let entry = json!({
            "level": levels[n % 3],
            "service": services[n % 2],
            "message": format!("entry {n} says \"level\":\"error\""),
        });
        let answer = http::post(node.api, "/log", entry.to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

#[test]
fn the_overview_is_served_with_everything_that_keeps_a_page_safe() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let (first, second) = (node.get("/ui/"), node.get("/ui/overview"));
    assert_eq!((first.status, second.status), (200, 200));
    for name in ["content-type", "content-security-policy", "x-frame-options", "cache-control"] {
        assert_eq!(second.headers[name], first.headers[name], "{name}");
    }
    let text = second.text();
    assert!(!text.contains("<script>") && !text.contains("style=") && !text.contains(" on"));
    assert!(!text.contains("//"), "nothing comes from elsewhere: {text}");
    assert_eq!(http::post(node.api, "/ui/overview", b"x").status, 405);
}

/// Follows the link of the overview whose text begins so, to so many rows of the first page, and comes back.
fn follow(browser: &Browser, within: &str, text: &str, rows: usize) {
    browser.wait(&format!(
        "window.one = [...document.querySelectorAll('{within} a')].find((e) => e.textContent.startsWith({}))",
        json!(text)
    ));
    browser.script("window.one.click()");
    browser.wait(&format!("{COUNTS}.startsWith('{rows} rows ') && {COUNTS}.includes('scanned')"));
    browser.script("history.back()");
    browser.wait(WELL);
}

#[test]
fn every_number_of_lines_and_entries_leads_to_the_records_that_it_counts() {
    let name = "every_number_of_lines_and_entries_leads_to_the_records_that_it_counts";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    browser.open(node.api, "/ui/");
    browser.click("#overview");
    browser.wait("location.pathname === '/ui/overview'");
    browser.wait("document.querySelector('#topics .body').textContent.includes('Nothing is kept')");
    browser.wait("document.querySelector('#entries .big')?.textContent === '0'");
    shop(&node);
    browser.open(node.api, "/ui/overview");
    follow(&browser, "#topics", "102", 102);
    follow(&browser, "#topics", "web", 60);
    follow(&browser, "#topics", "db", 30);
    follow(&browser, "#entries", "12", 12);
    follow(&browser, "#entries", "error", 4);
    follow(&browser, "#entries", "pay \"x\"", 6);
    let facts = browser.text("document.querySelector('#nodes').innerText");
    assert!(facts.contains(&node.api.to_string()) && facts.contains("up"), "{facts}");
    browser
        .wait("document.querySelector('#ready .big.good') && !document.querySelector('#ready li')");
    // One of the newest is shown among those around it.
    browser.wait("document.querySelector('.feed .time')");
    let text = browser.text(&format!("{FEED}[3]"));
    browser.script("document.querySelectorAll('.feed .time')[3].click()");
    browser.wait(&format!(
        "document.querySelector('.row.chosen > .text')?.textContent === {}",
        json!(text)
    ));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_newest_records_come_as_they_come_a_few_at_a_time_and_rest_when_one_says_so() {
    let name = "the_newest_records_come_as_they_come_a_few_at_a_time_and_rest_when_one_says_so";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    browser.open(node.api, "/ui/overview");
    browser.wait("document.querySelector('#newest header').textContent.includes('live')");
    send(node.durable, b"web one\n");
    browser.wait(&format!("String({FEED}) === 'web one'"));
    let many = (0..20_000).fold(String::new(), |all, n| all + &format!("web {n} of many\n"));
    send(node.durable, (many + "web the last\n").as_bytes());
    browser.wait(&format!("{FEED}[0] === 'web the last' && {FEED}.length === 15"));
    browser
        .wait("/ [1-9][0-9,]* rows.s/.test(document.querySelector('#newest header').textContent)");
    browser.keys("", " ");
    browser.wait("document.querySelector('#newest header').textContent.includes('paused')");
    send(node.durable, b"web behind\n");
    browser.wait("document.querySelector('#newest header').textContent.includes('· 1 new')");
    assert_eq!(browser.text(&format!("{FEED}[0]")), "web the last");
    browser.click("#newest header button");
    browser.wait(&format!("{FEED}[0] === 'web behind'"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn an_entry_is_sent_and_what_the_node_refuses_stands_at_its_field() {
    let name = "an_entry_is_sent_and_what_the_node_refuses_stands_at_its_field";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    browser.open(node.api, "/ui/overview");
    browser.wait(WELL);
    let at = |field: &str| {
        let told = format!("document.getElementById('send-{field}-why')");
        browser.wait(&format!("!{told}.hidden"));
        browser.wait(&format!(
            "document.activeElement.id === 'send-{field}' && document.activeElement.getAttribute('aria-invalid')"
        ));
        assert_eq!(browser.text("document.querySelectorAll('#send [aria-invalid]').length"), "1");
        browser.text(&format!("{told}.textContent"))
    };
    // By keys alone.
    browser.keys("", "s");
    browser.keys("", &ENTER.to_string());
    assert!(at("message").contains("1 to 10240 bytes"));
    browser.keys("", "hello <b>there</b>");
    browser.click("#send button");
    assert!(at("service").contains("1 to 100 characters"));
    browser.keys("", &format!("shop{ENTER}"));
    browser.wait("document.querySelector('#send form').textContent.includes('Accepted')");
    browser.wait("document.getElementById('said').textContent.startsWith('Accepted')");
    browser.wait("!document.querySelector('#send [aria-invalid]')");
    browser.wait(&format!("{FEED}[0].includes('hello <b>there</b>')"));
    browser.script("document.querySelector('#send form p a').click()");
    browser.wait(&format!("{ROWS}.length === 1 && {ROWS}[0].includes('\"service\":\"shop\"')"));
    drop(node);

    // A full disk: no disk has so much free.
    let flags = ["--disk.free-min", "1000000GB", "--http.api-stats", "array"];
    let node = Node::start_any(directory.path(), &flags);
    browser.open(node.api, "/ui/overview");
    browser.wait("document.querySelector('#ready .big.bad')?.textContent.includes('in trouble')");
    // What is answered to others in another shape is counted here as ever.
    browser.wait("document.querySelector('#entries .big')?.textContent === '1'");
    browser.wait("document.querySelector('#ready li').textContent.includes('free')");
    browser.keys("", "s");
    browser.keys("", "shop\u{e004}kept by the form");
    browser.click("#send button");
    let told = "document.querySelector('#send form').textContent";
    browser.wait(&format!("{told}.includes('Not accepted.') && {told}.includes('free')"));
    assert_eq!(browser.text("document.getElementById('send-message').value"), "kept by the form");
}

#[test]
fn each_box_fails_for_itself_says_so_and_comes_back() {
    let Some(browser) = Browser::start("each_box_fails_for_itself_says_so_and_comes_back") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    let gate = Gate::open(node.api, "", Rule::Open);
    let boxes = [
        ("/ready", "ready"),
        ("/topics", "topics"),
        ("/api/stats", "entries"),
        ("/_clusterstate", "nodes"),
        ("/query", "newest"),
    ];
    for (path, name) in boxes {
        let broken = if path == "/topics" { "{\"no\":\"sense\"}" } else { "broken by hand" };
        let status = if path == "/topics" { 200 } else { 500 };
        gate.set(Rule::Answer(vec![(path, status, broken.to_owned())]));
        browser.open(gate.address, "/ui/overview");
        browser.wait(&format!("{FAILING} === '{name}'"));
        let others = if name == "nodes" { 4 } else { 5 } - 1 - usize::from(name == "newest");
        browser.wait(&format!("document.querySelectorAll('.card .body .big, .card .body .nodes tbody, .feed .row:first-child').length >= {others}"));
        let told = browser.text(&format!("document.querySelector('#{name} .why').textContent"));
        assert!(told.contains("broken by hand") || told.contains("makes no sense"), "{told}");
        assert!(told.contains("Tried again in"), "{told}");
        gate.set(Rule::Open);
        if path == "/topics" {
            // Nobody has said when.
            browser.script(LOOK);
        }
        browser.wait(&format!("{FAILING} === '' && {WELL} && {FEED}.length"));
    }
    // No turn: as long as was told.
    gate.set(Rule::Wait(1));
    browser.open(gate.address, "/ui/overview");
    browser.wait(&format!("{FAILING} === 'ready,topics,entries,nodes,newest'"));
    browser.wait("document.querySelector('#topics .why').textContent.includes('Too many requests. slow down Tried again in 1 s')");
    gate.set(Rule::Open);
    browser.wait(&format!("{FAILING} === '' && {WELL} && {FEED}.length"));
}

#[test]
fn a_token_is_asked_for_once_for_all_boxes() {
    let Some(browser) = Browser::start("a_token_is_asked_for_once_for_all_boxes") else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    let gate = Gate::open(node.api, "/logs", Rule::Token("tok-right"));
    browser.open(gate.address, "/logs/ui/overview");
    browser.wait(&format!("{FAILING} === 'ready,topics,entries,nodes,newest'"));
    assert_eq!(browser.text("document.querySelectorAll('.token input').length"), "1");
    browser.click(".token input");
    browser.keys("", &format!("wrong{ENTER}"));
    browser.wait("document.querySelector('.note.bad').textContent.includes('does not give you')");
    browser.wait("document.activeElement.matches('.token input')");
    gate.take_seen();
    browser.keys("", &format!("tok-right{ENTER}"));
    browser.wait(&format!("{FAILING} === '' && {WELL} && {FEED}.length"));
    browser.wait("!document.querySelector('.note')");
    browser.keys("", "s");
    browser.keys("", "shop\u{e004}by token");
    browser.click("#send button");
    browser.wait(&format!("{FEED}[0].includes('by token')"));
    let seen = gate.take_seen();
    for line in ["GET /stream", "POST /log", "GET /topics", "GET /api/stats", "GET /_clusterstate"]
    {
        let all: Vec<_> = seen.iter().filter(|one| one.line.starts_with(line)).collect();
        assert!(!all.is_empty(), "{line}: {seen:#?}");
        for one in all {
            assert_eq!(one.authorization.as_deref(), Some("Bearer tok-right"), "{one:?}");
        }
    }
    // Below its prefix it leads to the first page, which has the token, too, and back.
    browser.keys("", "/");
    browser.wait("location.pathname === '/logs/ui/'");
    browser.wait(&format!("{COUNTS}.startsWith('103 rows ')"));
    browser.click("#overview");
    browser.wait("location.pathname === '/logs/ui/overview'");
    browser.wait(WELL);
}

#[test]
fn a_node_that_goes_is_told_and_one_that_comes_back_is_shown_without_a_hand() {
    let name = "a_node_that_goes_is_told_and_one_that_comes_back_is_shown_without_a_hand";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let host = outlet::own_address(0).ip();
    let node = Node::start_at(directory.path(), host);
    send(node.durable, b"one\n");
    browser.open(node.api, "/ui/overview");
    browser.wait(&format!("{FEED}.length === 1 && {WELL}"));
    node.kill();
    browser.wait("document.querySelectorAll('.card.old').length === 4");
    browser
        .wait("document.querySelector('#newest .why').textContent.startsWith('The node is gone')");
    browser.wait("document.getElementById('said').textContent.startsWith('A part')");
    assert_eq!(browser.text("document.querySelector('#topics .big').textContent"), "1", "stays");
    let node = Node::start_at(directory.path(), host);
    send(node.durable, b"two\n");
    browser.wait(&format!("String({FEED}) === 'two,one'"));
    browser.wait(&format!("{FAILING} === '' && !document.querySelector('.card.old')"));
    browser.wait("document.getElementById('said').textContent.startsWith('Every part')");
    browser.wait("document.querySelector('#topics .big').textContent === '2'");
}

#[test]
fn while_nobody_looks_nothing_is_asked() {
    let Some(browser) = Browser::start("while_nobody_looks_nothing_is_asked") else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    // Whatever waits for its time is seen.
    let watch = "window.waiting = new Set(); window.hide = (is) => {
            Object.defineProperty(document, 'hidden', { value: is, configurable: true });
            document.dispatchEvent(new Event('visibilitychange'));
        };
        for (const [set, clear] of [['setTimeout', 'clearTimeout'], ['setInterval', 'clearInterval']]) {
            const [begin, end] = [window[set], window[clear]];
            window[set] = (act, ...rest) => {
                const id = begin((...all) => { if (set === 'setTimeout') waiting.delete(id); act(...all); }, ...rest);
                waiting.add(id);
                return id;
            };
            window[clear] = (id) => { waiting.delete(id); end(id); };
        }";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": watch }));
    let gate = Gate::open(node.api, "", Rule::Open);
    browser.open(gate.address, "/ui/overview");
    browser.wait(&format!(
        "{WELL} && document.querySelector('#newest header').textContent.includes('live')"
    ));
    browser.wait("window.waiting.size === 5");
    let follows = || node.metric("oklog_followers") > 0.0;
    wait_until("the page follows", follows);
    browser.script("window.hide(true)");
    browser.wait("window.waiting.size === 0");
    wait_until("nobody follows", || !follows());
    gate.take_seen();
    assert_eq!(browser.text("window.waiting.size"), "0");
    assert!(gate.take_seen().is_empty());
    send(node.durable, b"web meanwhile\n");
    browser.script("window.hide(false)");
    browser.wait(&format!("String({FEED}) === 'web meanwhile'"));
    browser.wait("document.querySelector('#topics .big')?.textContent === '1'");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Names as nobody should give them.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror='window.ran = 1'>",
    "\u{202e}turned\u{2066}",
    "</bdi></section><script>window.ran = 2</script>",
    "javascript:window.ran=3//",
];

#[test]
fn many_nodes_are_drawn_and_names_that_are_scripts_or_turn_text_are_names() {
    let name = "many_nodes_are_drawn_and_names_that_are_scripts_or_turn_text_are_names";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let states = ["up", "suspect", "down", HOSTILE[0]];
    let nodes: Vec<Value> = (0..300)
        .map(|n| {
            json!({
                "id": format!("{n:032x}"), "address": format!("{}{n}", HOSTILE[n % 4]),
                "api": HOSTILE[3], "roles": ["store", HOSTILE[2]], "state": states[n % 4],
                "boot": 1, "version": HOSTILE[1], "backlog_bytes": 1_000, "disk_free_bytes": 5_000 + n,
                "watermark": null,
            })
        })
        .collect();
    let cluster = json!({
        "self": nodes[0]["id"], "name": HOSTILE[0], "insecure": true, "nodes": nodes,
        "volumes": { "total": 12, "under": 2, "over": 1, "moving": 3 },
    });
    let time = "2026-11-30T12:00:00Z";
    let topic = |name| json!({ "topic": name, "records": 7, "bytes": 9, "from": time, "to": time });
    let topics = json!({ "topics": HOSTILE.map(topic), "complete": false, "missing": [] });
    let stats = json!({
        "total_logs": 3, "logs_by_level": { "error": 2, HOSTILE[0]: 1 },
        "logs_by_service": { HOSTILE[2]: 2, HOSTILE[1]: 1 }, "topic": HOSTILE[3], "complete": true,
    });
    let ready = json!({ "status": "degraded", "reasons": HOSTILE });
    let all = [("/_clusterstate", cluster), ("/topics", topics), ("/api/stats", stats)];
    let mut all = all.map(|(path, body)| (path, 200, body.to_string())).to_vec();
    all.push(("/ready", 503, ready.to_string()));
    let gate = Gate::open(node.api, "", Rule::Answer(all));
    send(node.durable, format!("{}\n", HOSTILE.join(" ")).as_bytes());
    browser.open(gate.address, "/ui/overview");
    browser.wait("document.querySelectorAll('.nodes tbody tr').length === 200");
    browser.wait(&format!(
        "{FEED}.length === 1 && document.querySelectorAll('#ready li').length === 4"
    ));
    let facts = browser.text("document.querySelector('.facts').innerText.replace(/\\s+/g, ' ')");
    assert!(
        facts.contains("nodes 300, 225 not up") && facts.contains("below their copies 2"),
        "{facts}"
    );
    // Of those that are there: two in four, and one in four whose state is nobody's.
    assert!(facts.contains("not in stores yet 225 kB"), "{facts}");
    assert!(facts.contains("free on the fullest disk 5.0 kB"), "{facts}");
    let shown = browser.text("document.querySelector('main').textContent");
    for name in HOSTILE {
        assert!(shown.contains(name), "{name}");
    }
    assert!(browser.text("document.querySelector('#topics').textContent").contains("Incomplete"));
    let intact = "document.querySelectorAll('main img, main script').length + String(window.ran)
        + [...document.querySelectorAll('main a')].filter((e) => !e.href.startsWith(location.origin)).length";
    assert_eq!(browser.text(intact), "0undefined0");
    let loose = "[...document.querySelectorAll('main *')].filter((e) => !e.children.length
        && e.textContent.includes('\\u202e') && getComputedStyle(e).unicodeBidi !== 'isolate').length";
    assert_eq!(browser.text(loose), "0");
}

#[test]
fn the_overview_is_dark_where_the_system_is_fits_the_narrowest_screen_and_keeps_the_focus() {
    let name =
        "the_overview_is_dark_where_the_system_is_fits_the_narrowest_screen_and_keeps_the_focus";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    send(node.durable, format!("web {}\n", "x".repeat(3_000)).as_bytes());
    let background = "getComputedStyle(document.body).backgroundColor";
    for (scheme, expected) in [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")] {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", &features);
        browser.open(node.api, "/ui/overview");
        browser.wait(WELL);
        assert_eq!(browser.text(background), expected);
    }
    browser.resize(320, 640);
    browser.open(node.api, "/ui/overview");
    browser.wait(&format!("{WELL} && {FEED}.length === 15"));
    assert_eq!(browser.text("document.documentElement.scrollWidth <= 320"), "true");
    let small = "[...document.querySelectorAll('button, select, input, textarea, a')].filter((e) => e.checkVisibility() && Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width) < 18).map((e) => e.id || e.className || e.textContent)";
    assert_eq!(browser.text(small), "");
    // A box that is drawn anew takes the focus from nobody.
    browser.script(
        "[...document.querySelectorAll('#topics a')].find((e) => e.textContent === 'db').focus()",
    );
    send(node.durable, b"db one more\n");
    browser.script(LOOK);
    browser.wait("document.querySelector('#topics .big').textContent === '104'");
    assert_eq!(browser.text("document.activeElement.textContent"), "db");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
