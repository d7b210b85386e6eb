//! What tests of the web page have in common: keys, what is read off it, and nodes that have one.
//!
//! Expressions are those of the page's own language, for [`Browser::wait`] and [`Browser::text`].

use std::path::Path;

use crate::browser::Browser;
use crate::node::Node;

/// Keys as the WebDriver protocol names them.
pub const ENTER: char = '\u{e007}';
/// Held.
pub const SHIFT: &str = "\u{e008}";
/// Held.
pub const ALT: &str = "\u{e00a}";
/// Back.
pub const ESCAPE: char = '\u{e00c}';

/// Texts of the records that are shown, an array.
pub const ROWS: &str =
    "[...document.querySelectorAll('#pane .row > .text')].map((e) => e.textContent)";
/// What the page says of its answer.
pub const COUNTS: &str = "document.getElementById('counts').textContent";
/// What has failed.
pub const NOTE: &str = "document.querySelector('.note.bad')?.textContent";
/// What came while one reads.
pub const PILL: &str = "document.getElementById('pill')";
/// The module of the page that makes text of records.
pub const TEXT: &str = "import(document.querySelector('script').src.replace('app.js', 'text.js'))";

/// A node that takes the first word of a line for its topic.
pub fn start(directory: &Path) -> Node {
    Node::start(directory, &["--ingest.topic-mode", "dynamic"])
}

/// Waits until an answer with so many rows has come to its end.
pub fn wait_for_rows(browser: &Browser, rows: &str) {
    let word = if rows == "1" { "row" } else { "rows" };
    browser
        .wait(&format!("{COUNTS}.startsWith('{rows} {word} ') && !{COUNTS}.includes('searching')"));
    // They are drawn with the next frame: all, or a window full.
    let rows: u32 = rows.replace(',', "").parse().expect("it is a number");
    browser.wait(&format!("document.querySelectorAll('#pane .row').length >= {}", rows.min(20)));
}
