//! The web page at `/ui/`, as it is served and as a real browser shows it.

use std::fmt::Write as _;

use serde_json::json;
use tests::browser::Browser;
use tests::http;
use tests::node::Node;
use tests::page::{ALT, COUNTS, ENTER, ESCAPE, ROWS, SHIFT, TEXT, start, wait_for_rows};
use tests::sender::send;

/// Texts of the rows that are shown, one a line.
fn lines() -> String {
    format!("{ROWS}.join('\\n')")
}

/// Ninety requests of a shop, of which thirty are of users and nine failed, and ten lines of a database.
fn shop(node: &Node) {
    let mut lines = String::new();
    for n in 0..90 {
        let status = if n % 10 == 0 { 500 } else { 200 };
        let path = ["users", "orders", "cart"][n % 3];
        writeln!(lines, "web GET /{path}/{n} status={status} took={n}ms").unwrap();
    }
    for n in 0..10 {
        writeln!(lines, "db statement {n}").unwrap();
    }
    send(node.durable, lines.as_bytes());
}

#[test]
fn the_page_comes_out_of_the_binary_with_everything_that_keeps_it_safe() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let root = node.get("/");
    assert_eq!((root.status, root.headers["location"].as_str()), (303, "/ui/"));
    let slash = node.get("/ui?q=a%20b");
    assert_eq!((slash.status, slash.headers["location"].as_str()), (308, "/ui/?q=a%20b"));

    let page = node.get("/ui/?q=anything");
    assert_eq!(
        (page.status, page.headers["content-type"].as_str()),
        (200, "text/html; charset=utf-8")
    );
    assert_eq!(page.headers["cache-control"], "no-cache");
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-frame-options"], "DENY");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    let text = page.text();
    assert!(
        !text.contains("<script>") && !text.contains("style=") && !text.contains(" on"),
        "{text}"
    );
    assert!(!text.contains("//"), "nothing comes from elsewhere: {text}");

    let at = text.find("src=\"").unwrap() + 5;
    let script = format!("/ui/{}", text[at..].split('"').next().unwrap());
    let plain = node.get(&script);
    assert_eq!(plain.headers["content-type"], "text/javascript; charset=utf-8");
    assert!(plain.headers["cache-control"].contains("immutable"));
    let asks =
        |name: &str, value: &str| http::request(node.api, "GET", &script, &[(name, value)], b"");
    let packed = asks("Accept-Encoding", "gzip, deflate");
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.starts_with(b"\x1f\x8b") && packed.body.len() < plain.body.len());
    assert_ne!(packed.headers["etag"], plain.headers["etag"]);
    let same = asks("If-None-Match", &plain.headers["etag"]);
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(asks("If-None-Match", "\"another\"").status, 200);

    for path in ["/ui/nothing", "/ui/0000000000000000/app.js", &script.replace("app", "../app")] {
        assert_eq!(node.get(path).status, 404, "{path}");
    }
    assert_eq!(http::post(node.api, "/ui/", b"x").status, 405);
}

#[test]
fn a_search_narrows_down_and_its_link_brings_it_back() {
    let Some(browser) = Browser::start("a_search_narrows_down_and_its_link_brings_it_back") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    browser.open(node.api, "/ui/");
    wait_for_rows(&browser, "100");
    browser.wait("document.getElementById('plan').textContent.startsWith('1 segment on 1 node')");

    browser.click("#q");
    browser.keys("", "GET");
    browser.wait("document.getElementById('rows').classList.contains('stale')");
    browser.keys("", &ENTER.to_string());
    wait_for_rows(&browser, "90");
    assert_eq!(browser.text("document.querySelector('mark').textContent"), "GET");
    // As one more term, and as one that must not be there.
    browser.keys(SHIFT, &ENTER.to_string());
    browser.keys("", "users");
    browser.keys(SHIFT, &ENTER.to_string());
    wait_for_rows(&browser, "30");
    browser.keys("", "status=500");
    browser.keys(ALT, &ENTER.to_string());
    wait_for_rows(&browser, "27");
    let terms = "new URLSearchParams(location.search)";
    assert_eq!(browser.text(&format!("{terms}.getAll('q')")), "GET,users");
    assert_eq!(browser.text(&format!("{terms}.getAll('x')")), "status=500");
    let link = browser.text("location.pathname + location.search");
    browser.wait(&format!("{ROWS}.length > 20 && !String({ROWS}).includes('status=500')"));
    let shown = browser.text(&lines());
    assert!(shown.lines().all(|line| line.contains("users") && !line.contains("status=500")));

    browser.open(node.api, "/ui/?topic=db&order=asc");
    wait_for_rows(&browser, "10");
    assert!(browser.text(&lines()).starts_with("db statement 0\n"));
    browser.open(node.api, &link);
    wait_for_rows(&browser, "27");
    browser.wait(&format!("{} === {}", lines(), json!(shown)));
    assert_eq!(browser.text("document.querySelector('.chip.out').textContent"), "status=500");
    // A chip goes with a click, and comes back with the browser's way back.
    browser.click(".chip.out");
    wait_for_rows(&browser, "30");
    browser.script("history.back()");
    wait_for_rows(&browser, "27");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_link_to_a_row_lands_on_it_among_those_around() {
    let Some(browser) = Browser::start("a_link_to_a_row_lands_on_it_among_those_around") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let text: String = (0..5000).fold(String::new(), |all, n| all + &format!("web line {n}\n"));
    send(node.durable, text.as_bytes());
    let (ulid, record) = node.query("q=line")[2500].clone();
    for order in ["desc", "asc"] {
        browser.open(node.api, &format!("/ui/?order={order}&at={ulid}"));
        browser.wait("document.querySelector('.row.chosen')");
        let chosen = browser.text("document.querySelector('.row.chosen > .text').textContent");
        assert_eq!(chosen.as_bytes(), record);
        wait_for_rows(&browser, "1,000");
        let at = chosen.trim_start_matches("web line ").parse::<i32>().unwrap();
        let before = if order == "desc" { at + 1 } else { at - 1 };
        browser.wait(&format!("{}.includes('web line {before}\\nweb line {at}\\n')", lines()));
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_span_of_the_histogram_becomes_the_range() {
    let Some(browser) = Browser::start("a_span_of_the_histogram_becomes_the_range") else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    browser.open(node.api, "/ui/?from=1h");
    wait_for_rows(&browser, "100");
    browser.wait("document.querySelectorAll('#chart-box .bars').length === 2");
    let place = "document.getElementById('chart-box').getBoundingClientRect()";
    let at = |what: &str| {
        browser.script(&format!("return Math.round({place}.{what})")).as_i64().unwrap()
    };
    let (left, right, y) = (at("left"), at("right"), at("top") + 30);
    // Everything came just now: nothing is in the first half, all of it in the last bars.
    browser.drag((left + 20, y), (left + 400, y));
    wait_for_rows(&browser, "0");
    browser.wait("!document.getElementById('empty').hidden");
    assert!(browser.text("location.search").contains("to=2"));
    browser.script("history.back()");
    wait_for_rows(&browser, "100");
    browser.wait("document.querySelectorAll('#chart-box .bars').length === 2");
    browser.drag((right - 100, y), (right - 1, y));
    wait_for_rows(&browser, "100");
    let minutes = "['to', 'from'].map((n) => Date.parse(new URLSearchParams(location.search).get(n)) / 60000).reduce((a, b) => a - b)";
    let minutes: f64 = browser.text(minutes).parse().unwrap();
    assert!(minutes > 0.0 && minutes < 10.0, "{minutes} minutes");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn everything_is_done_with_keys_alone() {
    let Some(browser) = Browser::start("everything_is_done_with_keys_alone") else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    browser.open(node.api, "/ui/");
    wait_for_rows(&browser, "100");
    browser.keys("", &format!("/users{ENTER}"));
    wait_for_rows(&browser, "30");
    browser.keys("", &format!("{ESCAPE}jjj{ENTER}"));
    browser.wait("document.querySelector('#side .whole')?.textContent.includes('/users/81')");
    browser.wait("document.querySelector('#side .fields').textContent.includes('took81ms')");
    browser.keys("", "c");
    // Whatever was asked: the neighbours are no users.
    browser.wait("document.querySelectorAll('#side .around li').length === 19");
    let around = browser.text("document.querySelector('#side .around').textContent");
    assert!(around.contains("/cart/80") && around.contains("/orders/82"), "{around}");
    browser.keys("", &ESCAPE.to_string());
    browser.wait("document.getElementById('side').hidden");
    browser.keys("", "G");
    browser.wait("document.querySelector('.row.chosen > .text').textContent.includes('/users/0 ')");
    browser.keys("", "gw");
    browser.wait("document.querySelector('.row.chosen > .text').textContent.includes('/users/87')");
    browser.wait("document.body.classList.contains('wrap')");
    browser.keys("", "?");
    browser.wait("document.getElementById('keys').open");
    browser.keys("", &ESCAPE.to_string());
    browser.wait("!document.getElementById('keys').open");
    browser.keys("", "t");
    browser.wait("document.activeElement.id === 'from'");
    browser.keys("", &format!("30m{ENTER}"));
    browser.wait("location.search.includes('from=30m')");
    wait_for_rows(&browser, "30");
    browser.keys("", &format!("{ESCAPE}["));
    wait_for_rows(&browser, "0");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_query_is_told_and_the_next_one_works() {
    let Some(browser) = Browser::start("what_is_wrong_with_a_query_is_told_and_the_next_one_works")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    browser.open(node.api, "/ui/");
    browser.wait("document.getElementById('empty').textContent.includes('nc -N 127.0.0.1')");
    shop(&node);
    browser.open(node.api, "/ui/?q=GET+(&regex");
    browser
        .wait("document.querySelector('.note.bad')?.textContent.includes('q: regex parse error')");
    browser.wait("document.querySelector('.chart-fail') && document.getElementById('plan').textContent.startsWith('no plan')");
    browser.click("#regex");
    wait_for_rows(&browser, "0");
    browser.wait("!document.querySelector('.note.bad') && document.getElementById('empty').textContent.includes('Nothing matches')");
    browser.click("#q");
    browser.keys("", &format!("{}{ENTER}", "\u{e003}".repeat(2)));
    wait_for_rows(&browser, "90");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|one| one.contains("400 (Bad Request)")), "{complaints:#?}");
    browser.open(node.api, "/ui/?from=soon");
    browser.wait("document.querySelector('.note.bad')?.textContent.startsWith('from')");
}

#[test]
fn an_incomplete_answer_says_what_is_missing_and_why() {
    let Some(browser) = Browser::start("an_incomplete_answer_says_what_is_missing_and_why") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let text: String = (0..50_000).fold(String::new(), |all, n| all + &format!("web line {n}\n"));
    send(node.durable, text.as_bytes());
    node.settle();
    assert!(node.stop().success());
    let files = std::fs::read_dir(directory.path().join("data/store")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let segment = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xaa);
    std::fs::write(&segment, bytes).unwrap();

    let node = start(directory.path());
    browser.open(node.api, "/ui/?q=line");
    wait_for_rows(&browser, "1,000");
    browser.click("#all");
    browser.wait("document.querySelector('.note.amber li')");
    let told = browser.text("document.querySelector('.note.amber').textContent");
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(told.starts_with("Incomplete") && told.contains(&node.api.to_string()), "{told}");
    assert!(told.contains(&name), "{told}");
    browser.wait(&format!("{COUNTS}.endsWith('incomplete')"));
    browser.wait("document.querySelector('#chart.incomplete .gap')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn records_that_are_scripts_colours_or_no_text_are_shown_and_never_run() {
    let Some(browser) =
        Browser::start("records_that_are_scripts_colours_or_no_text_are_shown_and_never_run")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let scripts = [
        "evil <script>window.ran = 1</script>",
        "evil <img src=x onerror='window.ran = 2'>",
        "evil </div></main><svg onload='window.ran = 3'>",
        "evil {\"<b onclick=1>\":\"<img src=x onerror=window.ran=4>\",\"__proto__\":\"x\"}",
    ];
    send(node.durable, (scripts.join("\n") + "\n").as_bytes());
    send(node.durable, b"evil nul\0 bell\x07 \x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07 rtl \xe2\x80\xae bad \xff\xc3 end\r\n");
    let long = [b"evil ".as_slice(), &vec![b'y'; 1 << 20][..1_000_000], b"\n"].concat();
    send(node.durable, &long);
    browser.open(node.api, "/ui/?order=asc&q=evil");
    wait_for_rows(&browser, "6");
    browser.wait("document.querySelectorAll('.row').length === 6");
    let shown = browser.text(&lines());
    let shown: Vec<&str> = shown.lines().collect();
    assert_eq!(shown[..4], scripts);
    assert_eq!(
        shown[4],
        "evil nul\u{2400} bell\u{2407} red  rtl \\u{202e} bad \\xff\\xc3 end\u{240d}"
    );
    assert_eq!(browser.text("document.querySelector('.row .f1').textContent"), "red");
    assert!(shown[5].ends_with(" +996 kB") && shown[5].len() < 5_000, "{}", shown[5].len());
    // In full, too, and in the fields.
    for _ in 0..4 {
        browser.keys("", "j");
    }
    browser.keys("", &ENTER.to_string());
    browser.wait("document.querySelector('#side .fields')?.textContent.includes('<b onclick=1>')");
    browser.keys("", &format!("j{ENTER}"));
    let whole = "document.querySelector('#side .whole').textContent";
    browser.wait(&format!("{whole}.includes('\\u241b[2J\\u241b]0;title\\u2407')"));
    browser.keys("", &format!("j{ENTER}"));
    browser.wait(&format!("{whole}.length === 1000005"));
    let intact = "document.querySelectorAll('main img, main script, main b, main svg').length + String(window.ran) + document.title";
    assert_eq!(browser.text(intact), "0undefinedevil · oklogd");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_record_of_control_and_invalid_bytes_takes_few_elements_and_is_drawn_on_when_asked() {
    let name =
        "a_record_of_control_and_invalid_bytes_takes_few_elements_and_is_drawn_on_when_asked";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let long = 1_000_000;
    for one in [b"\x01".as_slice(), b"\xff", b"\x01a", b"a\xff"] {
        send(node.durable, &[one.repeat(long / one.len()).as_slice(), b"\n"].concat());
    }
    browser.open(node.api, "/ui/?order=asc");
    wait_for_rows(&browser, "4");
    let elements = || browser.text("document.querySelectorAll('*').length").parse::<u32>().unwrap();
    assert!(elements() < 2_000, "{} elements", elements());
    assert_eq!(
        browser.text(&format!("String({ROWS}).split('+').length - 1")),
        "4",
        "told in each row"
    );
    let whole = "document.querySelector('#side .whole')";
    let rest = "document.querySelector('#side .rest')";
    // Of one kind it is one element, and of many kinds the first ones are drawn, which is said.
    let all = [("\u{2401}", 2_000), ("\\xff", 2_000), ("\u{2401}a", 8_000), ("a\\xff", 8_000)];
    for (start, most) in all {
        browser.keys("", &format!("j{ENTER}"));
        browser.wait(&format!("{whole}?.textContent.startsWith({})", json!(start.repeat(2))));
        assert!(elements() < most, "{} elements", elements());
        let told = browser.text(&format!("{rest}.textContent"));
        assert!(told.contains("of 1,000,000 characters are drawn"), "{told}");
        let drawn = browser.text(&format!("{whole}.textContent"));
        browser.click("#side .rest button");
        let more = browser.text(&format!("{whole}.textContent"));
        assert!(more.len() > 2 * drawn.len() && more.starts_with(&drawn));
        assert!(start.repeat(long).starts_with(&more), "nothing left out between them");
        assert!(elements() < 2 * most + 4_096, "{} elements", elements());
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn an_expression_that_would_run_away_in_a_browser_marks_nothing_and_the_page_answers() {
    let name = "an_expression_that_would_run_away_in_a_browser_marks_nothing_and_the_page_answers";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    send(node.durable, format!("{}\n", "-".repeat(40)).as_bytes());
    let optional = "-?".repeat(35) + &"-".repeat(35);
    browser.open(node.api, &format!("/ui/?regex&q={}", optional.replace('?', "%3F")));
    wait_for_rows(&browser, "1");
    browser.keys("", "j");
    browser.wait("document.querySelector('.row.chosen')");
    assert_eq!(browser.text("document.querySelectorAll('mark').length"), "0");

    let is_tame = |pattern: &str| {
        let body = format!("return {TEXT}.then((text) => text.isTame({}))", json!(pattern));
        browser.script(&body) == json!(true)
    };
    let choices = "(-|-)".repeat(60);
    let wild = [
        optional.as_str(),
        &choices,
        &choices[..50],
        "-*-*x",
        "-+-+-+x",
        "-*?-*x",
        "(-*)*x",
        "(-+)+x",
        "(-?){60}x",
        "-{0,60}-{0,60}x",
        "-{3,}-{3,}x",
        "[-?]*[*]*x",
        "(-)\\1",
        "(-*|x)y",
        "-*-{900}x",
    ];
    for pattern in wild {
        assert!(!is_tame(pattern), "{pattern}");
    }
    let plain = [
        "GET",
        "GET .*500",
        "error|warn|panic",
        "(error|warn): ",
        "https?://",
        r"\d+ ms",
        "[*+?|]{3}",
        r"\*\*\?\?\|",
        r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}",
        "^(?:a|b)c$",
    ];
    for pattern in plain {
        assert!(is_tame(pattern), "{pattern}");
    }
    // The worst that is let through, on many screens of rows, comes to its end: what runs away never does.
    let worst = format!("-*{}x", "-".repeat(190));
    assert!(is_tame(&worst));
    let rows = format!(
        "return {TEXT}.then((text) => {{
            const marks = text.matcher({{ q: [{worst:?}], regex: true, i: false }});
            const before = performance.now();
            for (let n = 0; n < 500; n++) marks('-'.repeat(4096));
            return performance.now() - before;
        }})"
    );
    let took = browser.script(&rows).as_f64().unwrap();
    assert!(took < 20_000.0, "{took} ms");
    browser.open(node.api, "/ui/?regex&q=-%2B");
    browser.wait("document.querySelector('mark')?.textContent.length === 40");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_is_dark_where_the_system_is_and_fits_the_narrowest_screen() {
    let Some(browser) =
        Browser::start("it_is_dark_where_the_system_is_and_fits_the_narrowest_screen")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    shop(&node);
    let long = format!("web {}\n", "x".repeat(3000));
    send(node.durable, long.as_bytes());
    let background = "getComputedStyle(document.body).backgroundColor";
    for (scheme, expected) in [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")] {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", &features);
        browser.open(node.api, "/ui/");
        wait_for_rows(&browser, "101");
        assert_eq!(browser.text(background), expected);
    }
    browser.click("#theme");
    browser.click("#theme");
    assert_eq!(browser.text(background), "rgb(255, 255, 255)", "chosen, whatever the system has");
    browser.open(node.api, "/ui/");
    assert_eq!(browser.text(background), "rgb(255, 255, 255)", "and remembered");
    browser.resize(320, 640);
    browser.open(node.api, "/ui/?q=web&x=cart");
    wait_for_rows(&browser, "61");
    assert_eq!(browser.text("document.documentElement.scrollWidth <= 320"), "true");
    let small = "[...document.querySelectorAll('button, select, summary, a')].filter((e) => e.checkVisibility() && Math.min(e.offsetHeight, e.offsetWidth) < 20).map((e) => e.id || e.className)";
    assert_eq!(browser.text(small), "");
    browser.script("document.querySelector('.row').click()");
    browser.wait("document.querySelector('#side .whole')");
    assert_eq!(browser.text("document.documentElement.scrollWidth <= 320"), "true");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn two_hundred_thousand_rows_take_the_elements_of_one_window() {
    let Some(browser) = Browser::start("two_hundred_thousand_rows_take_the_elements_of_one_window")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let mut lines = String::new();
    for n in 0..200_000 {
        writeln!(lines, "web line {n} of many, as long as lines of a log are").unwrap();
    }
    send(node.durable, lines.as_bytes());
    browser.open(node.api, "/ui/?q=line");
    wait_for_rows(&browser, "1,000");
    browser.click("#all");
    wait_for_rows(&browser, "200,000");
    println!(
        "loaded: {}, {}",
        browser.text(COUNTS),
        browser.text("document.getElementById('meter').textContent")
    );
    browser.keys("", "G");
    browser.wait(
        "document.querySelector('.row.chosen > .text')?.textContent.startsWith('web line 0 ')",
    );
    // Scrolled by a wheel and by the bar: never an empty window, never more elements than fit.
    let frames = "const done = arguments[arguments.length - 1], rows = document.getElementById('rows');
        const took = []; let n = 0, most = 0, before = performance.now();
        const step = (now) => {
            took.push(now - before); before = now;
            most = Math.max(most, document.querySelectorAll('.row').length);
            rows.dispatchEvent(new WheelEvent('wheel', { deltaY: n % 3 ? -900 : 400, cancelable: true }));
            if (++n < 100) requestAnimationFrame(step);
            else { took.sort((a, b) => a - b); window.frames = [took[50], took[95]]; window.most = most; }
        };
        requestAnimationFrame(step);";
    browser.script(frames);
    browser.wait("window.most");
    println!("frames, median and p95: {} ms", browser.text("window.frames"));
    let most: u32 = browser.text("window.most").parse().unwrap();
    assert!((20..=60).contains(&most), "{most} row elements");
    let median: f64 = browser.text("window.frames[0]").parse().unwrap();
    assert!(median <= 160.0, "a frame takes {median} ms");
    let track = "document.getElementById('track').getBoundingClientRect()";
    let at = |what: &str| {
        browser.script(&format!("return Math.round({track}.{what})")).as_i64().unwrap()
    };
    let x = at("left") + 5;
    browser.drag((x, at("top") + 20), (x, (at("top") + at("bottom")) / 2));
    browser.wait("/^web line (9[0-9]|10[0-9])\\d{3} /.test(document.querySelector('.row > .text').textContent)");
    browser.drag((x, at("top") + 50), (x, at("top") + 1));
    browser
        .wait("document.querySelector('.row > .text').textContent.startsWith('web line 199999 ')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
