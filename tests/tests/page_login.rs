//! The web page before a node that asks for tokens: it logs in, keeps no token that a script could read, and is
//! told when it may not.

use tests::browser::Browser;
use tests::http;
use tests::node::Node;
use tests::page::{ENTER, NOTE, wait_for_rows};

/// SHA-256 of "abc".
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

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

/// SHA-256 of "limited".
const LIMITED: &str = "7b508dace774f8adc1b121c1812b740904be6dfd37e3b5e3579bc81fbf6f5553";

#[test]
fn who_logs_out_in_one_page_is_out_in_the_other_which_says_so_and_goes_on_with_a_new_token() {
    let name =
        "who_logs_out_in_one_page_is_out_in_the_other_which_says_so_and_goes_on_with_a_new_token";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = format!(
        "[[token]]\nname = \"page\"\nsha256 = \"{ABC}\"\nrights = [\"read\", \"write\"]\n\
         [[token]]\nname = \"limited\"\nsha256 = \"{LIMITED}\"\nrights = [\"read\"]\ntopics = [\"web\"]\n"
    );
    std::fs::write(directory.path().join("auth.toml"), file).unwrap();
    let node = Node::start(directory.path(), &["--auth.file", "auth.toml"]);
    let bearer = [("Authorization", "Bearer abc")];
    for (topic, body) in [("web", &b"one\ntwo\n"[..]), ("db", b"three\n")] {
        let path = format!("/records?mode=durable&topic={topic}");
        assert_eq!(http::request(node.api, "POST", &path, &bearer, body).status, 200);
    }
    let first = browser.here();
    browser.open(node.api, "/ui/");
    browser.wait("document.querySelector('.token input')");
    browser.click(".token input");
    browser.keys("", &format!("limited{ENTER}"));
    wait_for_rows(&browser, "2");
    let second = browser.tab();
    browser.turn_to(&second);
    // It may not ask for this, is told so, and gives its token back: nothing stands in the field.
    browser.open(node.api, "/ui/?topic=db");
    browser.wait(&format!("{NOTE}.includes('does not give you the right')"));
    browser.click(".token input");
    browser.keys("", &ENTER.to_string());
    browser.wait(&format!("{NOTE}.includes('A token is asked for')"));
    let out = browser.script("return fetch('../api/v1/whoami').then((answer) => answer.status)");
    assert_eq!(out, 401, "nothing of it is left in the browser");

    browser.turn_to(&first);
    assert_eq!(
        browser.text("document.querySelectorAll('#pane .row').length"),
        "2",
        "what it has stays"
    );
    browser.click("#q");
    browser.keys("", &format!("o{ENTER}"));
    browser.wait(&format!("{NOTE}.includes('A token is asked for')"));
    browser.click(".token input");
    browser.keys("", &format!("abc{ENTER}"));
    wait_for_rows(&browser, "2");
    browser.wait("!document.querySelector('.note.bad')");
    let kept = browser
        .text("JSON.stringify(sessionStorage) + JSON.stringify(localStorage) + document.cookie");
    assert!(!kept.contains("abc") && !kept.contains("limited"), "{kept}");
    // Who comes back to the other one has what this token may see.
    browser.turn_to(&second);
    browser.open(node.api, "/ui/?topic=db");
    wait_for_rows(&browser, "1");
    browser.wait("!document.querySelector('.note.bad')");
}
