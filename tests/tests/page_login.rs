//! The web page before a node that asks for tokens: it logs in, keeps no token that a script could read, and is
//! told when it may not.

use tests::browser::Browser;
use tests::http;
use tests::node::Node;

/// SHA-256 of "abc".
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ENTER: char = '\u{e007}';

#[test]
fn a_token_that_is_typed_in_logs_the_page_in_and_no_script_can_read_it() {
    let name = "a_token_that_is_typed_in_logs_the_page_in_and_no_script_can_read_it";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let file =
        format!("[[token]]\nname = \"page\"\nsha256 = \"{ABC}\"\nrights = [\"read\", \"write\"]\n");
    std::fs::write(directory.path().join("auth.toml"), file).unwrap();
    let node = Node::start(directory.path(), &["--auth.file", "auth.toml"]);
    let bearer = [("Authorization", "Bearer abc")];
    let sent = http::request(node.api, "POST", "/records?mode=durable", &bearer, b"one of them\n");
    assert_eq!(sent.status, 200);
    browser.open(node.api, "/ui/");
    browser.wait("document.querySelector('.token input')");
    browser.click(".token input");
    browser.keys("", &format!("wrong{ENTER}"));
    browser.wait("document.activeElement.matches('.token input')");
    browser.keys("", &format!("abc{ENTER}"));
    browser.wait("document.querySelector('.row')");
    assert_eq!(browser.text("document.cookie"), "", "it is not for scripts");
    let stored = browser.text("JSON.stringify(sessionStorage) + JSON.stringify(localStorage)");
    assert!(!stored.contains("abc"), "{stored}");
    // Another page of the same browser has it, too.
    browser.open(node.api, "/ui/overview");
    browser.wait("document.querySelectorAll('.card .big').length >= 3");
    assert!(!node.log().contains("Bearer"), "{}", node.log());
}
