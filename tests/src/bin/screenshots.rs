//! Pictures of the web page in its main states, light and dark:
//! `cargo run -p tests --bin screenshots [-- DIRECTORY [NAME…]]`, by default all of them into
//! `target/screenshots`. Those of the README: `-- docs search-light overview-dark`.
//!
//! Invariants: what they show was made here, the same lines each time; times, ports and ids of nodes are those
//! of the run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::prelude::*;
use serde_json::json;
use tests::browser::Browser;
use tests::http;
use tests::node::Node;
use tests::sender::send;

/// So many times some lines are sent, so long one after the other: that is what the histogram shows.
const ROUNDS: usize = 24;
const SIZE: (u32, u32) = (1120, 640);
const PAUSE: Duration = Duration::from_millis(250);

/// A picture: its name, where it is seen, what is done there first, and what is waited for.
struct Picture {
    name: &'static str,
    path: String,
    act: &'static str,
    until: &'static str,
    size: (u32, u32),
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "target/screenshots".into()));
    let names: Vec<String> = arguments.collect();
    build();
    let Some(browser) = Browser::start("screenshots") else { std::process::exit(1) };
    std::fs::create_dir_all(&directory).expect("the directory can be made");
    let data = tempfile::tempdir().expect("a directory can be made");
    let node = Node::start(data.path(), &["--ingest.topic-mode", "dynamic"]);
    let take = |picture: &Picture| take(&browser, &node, picture, &directory, &names);

    take(&first_visit());
    for round in 0..ROUNDS {
        send(node.durable, lines(round).as_bytes());
        for entry in entries(round) {
            let answer = http::post(node.api, "/log", entry.to_string().as_bytes());
            assert_eq!(answer.status, 202, "{}", answer.text());
        }
        std::thread::sleep(PAUSE);
    }
    for picture in pictures() {
        take(&picture);
    }
}

/// The node that is shown is that of the sources.
fn build() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--quiet", "-p", "daemon", "--bins"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the node could not be built");
}

const ROWS: &str = "document.querySelectorAll('.row').length > 5 && !document.getElementById('counts').textContent.includes('searching') && document.querySelector('#chart-box .bars')";

fn first_visit() -> Picture {
    Picture {
        name: "first-visit",
        path: "/ui/".into(),
        act: "",
        until: "!document.getElementById('empty').hidden",
        size: SIZE,
    }
}

/// All but that of the first visit.
fn pictures() -> Vec<Picture> {
    let of =
        |name, path: &str, act, until| Picture { name, path: path.into(), act, until, size: SIZE };
    // A little more than the sending took.
    let range = "from=9s&tz=UTC";
    let at = |query: &str| format!("/ui/?{range}&{query}");
    let details = "document.querySelectorAll('.row')[4].click()";
    let context = "document.querySelectorAll('.row')[4].click(); [...document.querySelectorAll('#side .acts button')].find((e) => e.textContent === 'Context').click()";
    vec![
        Picture { size: (1140, 480), ..of("search", &at("q=took&x=healthz"), "", ROWS) },
        of("details", &at("topic=log"), details, "document.querySelector('#side .fields')"),
        of("context", &at("q=status%3D500"), context, "document.querySelector('#side .around li')"),
        of(
            "live",
            &at("live"),
            "",
            "document.getElementById('counts').textContent.includes('live')",
        ),
        of("no-match", &at("q=nowhere"), "", "!document.getElementById('empty').hidden"),
        of("refused", "/ui/?regex&q=GET+(", "", "document.querySelector('.note.bad')"),
        Picture {
            size: (1060, 640),
            ..of(
                "overview",
                "/ui/overview",
                "",
                "document.querySelectorAll('.card .big').length === 3 && document.querySelector('.nodes tbody tr') && document.querySelectorAll('.feed .row').length === 15",
            )
        },
        Picture { size: (320, 640), ..of("narrow", &at("q=GET"), "", ROWS) },
    ]
}

/// Takes a picture, light and dark, if it is one of those that are wanted.
fn take(browser: &Browser, node: &Node, picture: &Picture, to: &Path, names: &[String]) {
    for scheme in ["light", "dark"] {
        let name = format!("{}-{scheme}", picture.name);
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", &features);
        browser.resize(picture.size.0, picture.size.1);
        browser.open(node.api, &picture.path);
        if !picture.act.is_empty() {
            browser.wait(ROWS);
            browser.script(picture.act);
        }
        browser.wait(picture.until);
        let path = to.join(format!("{name}.png"));
        let png = BASE64_STANDARD.decode(browser.screenshot()).expect("a driver sends base64");
        std::fs::write(&path, &png).expect("a picture can be written");
        println!("{} {} bytes", path.display(), png.len());
    }
}

/// Numbers that look like none of an order, the same ones each time (Steele and Vigna's SplitMix64).
fn dice(seed: usize) -> impl FnMut(usize) -> usize {
    let mut state = seed as u64;
    move |sides| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % sides
    }
}

/// What a shop says in a quarter of a second: its first word is the topic.
fn lines(round: usize) -> String {
    let mut roll = dice(round);
    let mut out = String::new();
    for _ in 0..12 + roll(30) + if round == 15 { 60 } else { 0 } {
        let path = ["/cart", "/orders", "/users/42", "/search?q=tea", "/healthz", "/pay"][roll(6)];
        let status = [200, 200, 200, 200, 304, 404, 500][roll(7)];
        let took = 2 + roll(90);
        let level =
            ["INFO ", "WARN ", "ERROR"][usize::from(status > 400) + usize::from(status > 499)];
        let id = roll(1 << 24);
        out += &match roll(5) {
            0 => format!(
                "db {level} slow query took={}ms table=orders rows={}\n",
                took * 9,
                roll(900)
            ),
            1 => format!(
                "worker {level} job={id:06x} kind=mail attempt={} left={}\n",
                1 + roll(3),
                roll(40)
            ),
            _ => format!("web {level} GET {path} status={status} took={took}ms request={id:06x}\n"),
        };
    }
    out
}

/// Entries of its services.
fn entries(round: usize) -> Vec<serde_json::Value> {
    let mut roll = dice(1_000 + round);
    let all = [
        ("info", "checkout", "order 4711 was paid"),
        ("info", "auth", "user 42 has signed in"),
        ("warn", "payments", "the bank answers slowly: 2.1 s"),
        ("error", "payments", "card was declined, order 4712 waits"),
        ("debug", "stock", "17 bags of tea are left"),
    ];
    let one = |(level, service, message)| json!({ "level": level, "service": service, "message": message });
    (0..1 + roll(3)).map(|_| one(all[roll(all.len())])).collect()
}
