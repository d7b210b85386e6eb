//! The web page beside its rows: fields of what is loaded, columns, the records around one, downloads and
//! commands of what is asked.

use std::fmt::Write as _;
use std::process::Command;

use tests::browser::Browser;
use tests::gate::Gate;
use tests::node::Node;
use tests::page::{COUNTS, ENTER, ESCAPE, ROWS, start};
use tests::sender::send;
use tests::tools;

const CHIPS: &str =
    "[...document.querySelectorAll('.chip')].map((e) => e.className + e.textContent).join()";

/// Thirty requests as JSON and ten as logfmt; statuses that are beginnings of others, and one that is a script.
fn requests(node: &Node) {
    let mut lines = String::new();
    for n in 0..30 {
        let status = [50, 500, 503][n % 3];
        let path = if n == 7 { "<img src=x onerror=window.ran=1>" } else { "/users" };
        writeln!(
            lines,
            r#"web {{"status":{status},"http":{{"path":"{path}","n":{n}}},"ok":{}}}"#,
            n % 2 == 0
        )
        .unwrap();
    }
    for n in 0..10 {
        writeln!(lines, "job level=warn took={n} name=\"a b\"").unwrap();
    }
    send(node.durable, lines.as_bytes());
}

#[test]
fn fields_of_what_is_loaded_are_counted_and_their_values_narrow_the_search() {
    let name = "fields_of_what_is_loaded_are_counted_and_their_values_narrow_the_search";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    requests(&node);
    browser.open(node.api, "/ui/");
    browser.wait(&format!("{COUNTS}.startsWith('40 rows') && {COUNTS}.endsWith('complete')"));
    browser.keys("", "f");
    let panel = "document.querySelector('#side .all-fields')";
    browser.wait(&format!("{panel}?.textContent.startsWith('Of 40 records loaded.')"));
    let names = format!(
        "[...{panel}.querySelectorAll('summary')].map((e) => e.textContent).sort().join('|')"
    );
    assert_eq!(
        browser.text(&names),
        "http.n30 · 75 %|http.path30 · 75 %|level10 · 25 %|name10 · 25 %|ok30 · 75 %|\
         status30 · 75 %|took10 · 25 %"
    );
    let field = |name: &str| {
        format!(
            "[...{panel}.querySelectorAll('details')].find((e) => e.textContent.startsWith('{name}'))"
        )
    };
    browser.script(&format!("{}.open = true; {}.open = true", field("status"), field("http.path")));
    let values = format!("[...{}.querySelectorAll('.value')]", field("status"));
    browser.wait(&format!("{values}.map((e) => e.textContent).sort().join() === '50,500,503'"));
    browser.wait(&format!("{}.textContent.includes('<img src=x')", field("http.path")));
    // Of that field that value, not the ones that begin like it; the panel then tells of what is left.
    let click = |value: &str, with: &str| {
        browser.script(&format!(
            "{values}.find((e) => e.textContent === '{value}').dispatchEvent(new MouseEvent('click', {{ bubbles: true{with} }}))"
        ));
    };
    click("50", "");
    browser.wait(&format!("{COUNTS}.startsWith('10 rows')"));
    browser.wait(&format!("{panel}.textContent.startsWith('Of 10 records loaded.')"));
    assert_eq!(browser.text("document.getElementById('q').value"), "\"status\":50,");
    browser.script("history.back()");
    browser.wait(&format!("{panel}.textContent.startsWith('Of 40 records loaded.')"));
    browser.wait(&format!("{values}.length === 3"));
    click("50", ", altKey: true");
    browser.wait(&format!("{COUNTS}.startsWith('30 rows')"));
    assert_eq!(browser.text(CHIPS), "chip out\"status\":50,");
    assert_eq!(browser.text("String(window.ran)"), "undefined");
    browser.keys("", &ESCAPE.to_string());
    browser.wait("document.getElementById('side').hidden");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_field_becomes_a_column_that_stands_in_the_url() {
    let Some(browser) = Browser::start("a_field_becomes_a_column_that_stands_in_the_url") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    requests(&node);
    browser.open(node.api, "/ui/?topic=web&order=asc&cols=http.n");
    let column = |k: usize| {
        format!(
            "[...document.querySelectorAll('#pane .row')].map((row) => row.querySelectorAll('.col')[{k}]?.textContent).slice(0, 4).join()"
        )
    };
    browser.wait(&format!("{} === '0,1,2,3'", column(0)));
    browser.keys("", &format!("j{ENTER}"));
    browser.wait("document.querySelector('#side .fields .column')");
    browser.click("#side .fields tr:first-child .column");
    browser.wait(&format!("{} === '50,500,503,50'", column(1)));
    assert_eq!(browser.text("new URLSearchParams(location.search).get('cols')"), "http.n,status");
    let heads = "[...document.querySelectorAll('#heads .col')].map((e) => e.textContent).join()";
    assert_eq!(browser.text(heads), "http.n ×,status ×");
    // The first row stands below the names, and the last one can be reached.
    let is_below = "document.querySelector('#pane .row').getBoundingClientRect().top >= document.getElementById('heads').getBoundingClientRect().bottom - 1";
    assert_eq!(browser.text(is_below), "true");
    browser.script("document.getElementById('rows').focus()");
    browser.keys("", "G");
    browser.wait("document.querySelector('.row.chosen .col')?.textContent === '29'");
    let is_shown = "document.querySelector('.row.chosen').getBoundingClientRect().bottom <= document.getElementById('rows').getBoundingClientRect().bottom + 1";
    browser.wait(is_shown);
    browser.open(node.api, &browser.text("location.pathname + location.search"));
    browser.wait(&format!("{} === '50,500,503,50'", column(1)));
    browser.click("#heads .col:nth-child(4) button");
    browser.wait(&format!("{} === '50,500,503,50'", column(0)));
    assert_eq!(browser.text("new URLSearchParams(location.search).get('cols')"), "status");
    // How rows look is no other query.
    browser.click("#q");
    browser.keys("", "x\u{e003}");
    browser.wait("!document.getElementById('rows').classList.contains('stale')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn records_around_one_are_asked_for_at_once_have_a_link_and_grow_either_way() {
    let name = "records_around_one_are_asked_for_at_once_have_a_link_and_grow_either_way";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    let mut lines = String::new();
    for n in 0..200 {
        let long = if n == 99 { "y".repeat(5_096) } else { String::new() };
        writeln!(lines, "web line {n} {long}\ndb other {n}").unwrap();
    }
    send(node.durable, lines.as_bytes());
    let gate = Gate::scripted(node.api, |_, _| false);
    browser.open(gate.address, "/ui/?q=line+100");
    browser.wait(&format!("{ROWS}[0] === 'web line 100 '"));
    gate.take_seen();
    browser.keys("", "jc");
    let around =
        "[...document.querySelectorAll('#side .around li > .text')].map((e) => e.textContent)";
    browser.wait(&format!("{around}.length === 21"));
    let asked: Vec<String> = gate.take_seen().into_iter().map(|seen| seen.line).collect();
    assert!(asked.len() == 1 && asked[0].contains("context=10"), "{asked:#?}");
    assert_eq!(
        browser.text(&format!("{around}[0] + {around}[10] + {around}[20]")),
        "web line 90 web line 100 web line 110 "
    );
    // One that is cut says so, as in the rows.
    assert!(browser.text(&format!("{around}[9]")).ends_with("yyy +1.0 kB"));
    browser.click(".more-before");
    browser.wait(&format!("{around}[0] === 'web line 40 ' && {around}.at(-1) === 'web line 110 '"));
    browser.click(".more-after");
    browser.wait(&format!("{around}[0] === 'web line 40 ' && {around}.at(-1) === 'web line 160 '"));
    browser.click(".more-before");
    browser
        .wait(&format!("{around}[0] === 'web line 0 ' && !document.querySelector('.more-before')"));

    // The link brings them back, around the row.
    let link = browser.text("location.pathname + location.search");
    assert!(link.contains("&at=") && link.contains("&context=110"), "{link}");
    browser.open(gate.address, &link);
    browser.wait(&format!("{around}.length === 200"));
    browser.wait("document.querySelector('.row.chosen > .text').textContent === 'web line 100 '");
    // Those of every topic, and as rows of their own.
    browser.click(".every input");
    browser.wait(&format!("{around}.some((e) => e.startsWith('db other'))"));
    browser.click(".every input");
    browser.wait(&format!("!{around}.some((e) => e.startsWith('db other'))"));
    browser.click("#side .acts a");
    browser.wait(&format!(
        "{ROWS}.includes('web line 101 ') && !{ROWS}.some((e) => e.startsWith('db'))"
    ));
    browser.wait("document.querySelector('.row.chosen > .text').textContent === 'web line 100 '");
    browser.keys("", &ESCAPE.to_string());
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_is_asked_is_taken_home_as_ndjson_and_as_commands_that_answer_the_same() {
    let name = "what_is_asked_is_taken_home_as_ndjson_and_as_commands_that_answer_the_same";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    send(node.durable, b"web it's $HOME -one\nweb it's -two\nweb three\ndb it's -four\n");
    browser.open(node.api, "/ui/?q=it's+&x=%24HOME&i&topic=web&topic=db&order=asc");
    browser.wait(&format!("{COUNTS}.startsWith('2 rows')"));
    let link = browser.text("document.getElementById('download-json').href");
    assert_eq!(browser.text("document.getElementById('download-json').download"), "oklogd.ndjson");
    let answer = node.get(link.split_once(&node.api.to_string()).unwrap().1);
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"oklogd.ndjson\"");
    let text = answer.text();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["record"], "web it's -two");
    assert_eq!(lines[2]["end"]["complete"], true);

    browser.script("navigator.clipboard.writeText = async (text) => { window.copied = text }");
    for (button, program) in [("#as-oklogd", "oklogd"), ("#as-curl", "curl")] {
        browser.click("#copy-as > summary");
        browser.click(button);
        browser.wait(&format!("window.copied?.startsWith('{program} ')"));
        let command = browser.text("window.copied");
        if program == "curl" && Command::new("curl").arg("--version").output().is_err() {
            tests::skipped(name, "no curl");
            continue;
        }
        let binary = tools::binary("oklogd");
        let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
        let run = Command::new("sh").args(["-c", &command]).env_clear().env("PATH", path).output();
        let run = run.unwrap();
        let found = tools::text(&run.stdout);
        assert!(run.status.success(), "{command}: {}", tools::text(&run.stderr));
        let ends = ["web it's -two", "db it's -four"];
        assert_eq!(found.lines().count(), 2, "{command}: {found}");
        assert!(found.lines().zip(ends).all(|(line, end)| line.ends_with(end)), "{found}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn times_are_shown_in_any_zone_and_as_how_long_ago() {
    let Some(browser) = Browser::start("times_are_shown_in_any_zone_and_as_how_long_ago") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    requests(&node);
    browser.open(node.api, "/ui/?tz=UTC");
    browser.wait("/^\\d\\d:\\d\\d:\\d\\d\\.\\d{3}$/.test(document.querySelector('.row > .time').textContent)");
    let time = || browser.text("document.querySelector('.row > .time').textContent.slice(-12)");
    let utc = time();
    browser.script("const zones = document.getElementById('tz'); zones.focus(); zones.value = 'Australia/Eucla'; zones.dispatchEvent(new Event('change'))");
    browser.wait("location.search.includes('tz=Australia%2FEucla')");
    browser.wait(&format!(
        "document.querySelector('.row > .time').textContent.slice(-12) !== '{utc}'"
    ));
    // Eight hours and three quarters ahead: no other zone of today is a quarter off like it.
    let minute = |text: &str| text[3..5].parse::<u32>().unwrap();
    assert_eq!((minute(&utc) + 45) % 60, minute(&time()));
    assert_eq!(utc[6..], time()[6..]);
    browser.script("document.querySelector('.row > .time').dispatchEvent(new PointerEvent('pointerover', { bubbles: true }))");
    browser.wait("/(now|ago)/.test(document.querySelector('.row > .time').title)");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn further_keys_copy_shift_the_range_and_find_matches() {
    let Some(browser) = Browser::start("further_keys_copy_shift_the_range_and_find_matches") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path());
    requests(&node);
    browser.open(node.api, "/ui/?order=asc&from=1h&q=web");
    browser.wait(&format!("{COUNTS}.startsWith('30 rows')"));
    browser.wait(&format!("{ROWS}.length > 10"));
    browser.script("navigator.clipboard.writeText = async (text) => { window.copied = text }");
    browser.script("document.getElementById('rows').focus()");
    let chosen = "document.querySelector('.row.chosen > .text').textContent";
    browser.keys("", "nn");
    browser.wait(&format!("{chosen}.includes('\"n\":1}}')"));
    browser.keys("", "N");
    browser.wait(&format!("{chosen}.includes('\"n\":0}}')"));
    browser.keys("", "y");
    browser.wait(&format!("window.copied === {chosen}"));
    browser.keys("", "l");
    browser.wait("window.copied.startsWith('http')");
    let link = "new URL(window.copied).searchParams";
    browser.wait(&format!("{link}.get('from').endsWith('Z') && {link}.get('to').endsWith('Z')"));
    browser.wait(&format!("{link}.get('at').length === 26"));
    // Away from what there is, and back.
    browser.keys("", "[[[");
    browser.wait(&format!("{COUNTS}.startsWith('0 rows')"));
    browser
        .wait("document.getElementById('empty').textContent.includes('The newest record came at')");
    browser.keys("", "]]]");
    browser.wait(&format!("{COUNTS}.startsWith('30 rows')"));
    // A query that was saved is there as JSON.
    browser.click("#saved");
    browser.keys("", &format!("mine{ENTER}"));
    browser.wait("document.querySelector('.saved button').textContent === 'mine'");
    let kept = "JSON.parse(decodeURIComponent(document.querySelector('#saved-list a').href.split(',').slice(1).join()))";
    assert_eq!(browser.text(&format!("{kept}[0].name")), "mine");
    assert!(browser.text(&format!("{kept}[0].search")).contains("q=web"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
