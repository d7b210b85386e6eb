//! The web page as it follows live, and what one takes home from it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use tests::browser::Browser;
use tests::node::Node;
use tests::outlet;
use tests::page::{COUNTS, ENTER, PILL, ROWS};
use tests::sender::send;

/// A way to a node on which the first connection that brings `needle` ends before it, once it is told to.
fn cut_once(node: SocketAddr, needle: &'static [u8]) -> (SocketAddr, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (cut, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(Some(told)));
    // It ends with the process: there is no more to it than an address.
    thread::spawn(move || {
        for from in listener.incoming() {
            let (mut from, mut to) = (from.unwrap(), TcpStream::connect(node).unwrap());
            let (mut asked, mut asks) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut asked, &mut asks);
                let _ = asks.shutdown(Shutdown::Write);
            });
            let told = Arc::clone(&told);
            thread::spawn(move || {
                let mut room = vec![0; 1 << 16];
                while let Ok(got @ 1..) = to.read(&mut room) {
                    let here = room[..got].windows(needle.len()).position(|at| at == needle);
                    let wait = here.and_then(|at| Some((at, told.lock().unwrap().take()?)));
                    let end = wait.as_ref().map_or(got, |(at, _)| *at);
                    if from.write_all(&room[..end]).is_err() {
                        break;
                    }
                    if let Some((_, told)) = wait {
                        let _ = told.recv();
                        break;
                    }
                }
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    (address, cut)
}

#[test]
fn a_record_whose_connection_breaks_in_the_middle_of_it_is_shown_once() {
    let name = "a_record_whose_connection_breaks_in_the_middle_of_it_is_shown_once";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_at(directory.path(), outlet::own_address(0).ip());
    let (way, cut) = cut_once(node.api, b"in the middle");
    browser.open(way, "/ui/?live");
    browser.wait(&format!("{COUNTS}.startsWith('0 rows · live')"));
    send(node.durable, b"one\ntwo, cut in the middle\n");
    // What stands before it has been read, and with it the beginning of the one that is cut.
    browser.wait(&format!("String({ROWS}) === 'one'"));
    cut.send(()).unwrap();
    send(node.durable, b"three\n");
    browser.wait(&format!("{ROWS}.at(-1) === 'three'"));
    assert_eq!(browser.text(&format!("{ROWS}.join('|')")), "one|two, cut in the middle|three");
}

#[test]
fn what_comes_is_shown_as_it_comes_and_nothing_moves_while_one_reads() {
    let name = "what_comes_is_shown_as_it_comes_and_nothing_moves_while_one_reads";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_at(directory.path(), outlet::own_address(0).ip());
    let some = |from: usize, to: usize| {
        (from..to).fold(String::new(), |all, n| all + &format!("line {n} end\n"))
    };
    send(node.durable, some(0, 200).as_bytes());
    browser.open(node.api, "/ui/?q=line&live");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 199 end'"));
    browser.wait(&format!("{COUNTS}.startsWith('200 rows · live')"));
    send(node.durable, (some(200, 250) + "other\n").as_bytes());
    browser.wait(&format!("{ROWS}.at(-1) === 'line 249 end'"));

    browser.keys("", " ");
    browser.wait(&format!("{COUNTS}.includes('paused')"));
    let shown = browser.text(ROWS);
    send(node.durable, some(250, 1_454).as_bytes());
    browser.wait(&format!("!{PILL}.hidden && {PILL}.textContent === '1,204 new ↓'"));
    assert!(browser.text(ROWS).starts_with(&shown));
    browser.click("#pill");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 1453 end' && {PILL}.hidden"));
    // A row that is chosen stays where it is, too.
    browser.keys("", "kk");
    browser.wait(&format!("{COUNTS}.includes('paused')"));
    let shown = browser.text(ROWS);
    send(node.durable, some(1_454, 1_500).as_bytes());
    browser.wait(&format!("{PILL}.textContent === '46 new ↓'"));
    assert!(browser.text(ROWS).starts_with(&shown));
    browser.keys("", " ");
    browser.wait(&format!("{ROWS}.at(-1) === 'line 1499 end'"));
    assert!(browser.text(COUNTS).starts_with("1,500 rows"), "each of them once");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_tail_goes_on_behind_a_restart_without_gap_or_copy() {
    let name = "the_tail_goes_on_behind_a_restart_without_gap_or_copy";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let host = outlet::own_address(0).ip();
    let node = Node::start_at(directory.path(), host);
    browser.open(node.api, "/ui/?live");
    browser.wait(&format!("{COUNTS}.startsWith('0 rows · live')"));
    send(node.durable, b"one\ntwo\n");
    browser.wait(&format!("String({ROWS}) === 'one,two'"));
    node.kill();
    browser
        .wait("document.querySelector('.note.amber')?.textContent.startsWith('The node is gone')");
    let node = Node::start_at(directory.path(), host);
    send(node.durable, b"three\n");
    browser.wait(&format!("String({ROWS}) === 'one,two,three'"));
    browser.wait("!document.querySelector('.note.amber')");
    send(node.durable, b"four\n");
    browser.wait(&format!("String({ROWS}) === 'one,two,three,four'"));
}

#[test]
fn a_query_is_saved_and_all_that_matches_is_downloaded() {
    let Some(browser) = Browser::start("a_query_is_saved_and_all_that_matches_is_downloaded")
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_at(directory.path(), outlet::own_address(0).ip());
    let lines = (0..3_000).fold(String::new(), |all, n| all + &format!("line {n} end\n"));
    send(node.durable, lines.as_bytes());
    browser.open(node.api, "/ui/?q=line&x=7&order=asc");
    browser.wait(&format!("{ROWS}[0] === 'line 0 end'"));
    browser.click("#saved");
    browser.keys("", &format!("without seven{ENTER}"));
    browser.wait("document.querySelector('.saved button').textContent === 'without seven'");
    let link = browser.text("document.getElementById('download').href");
    assert_eq!(browser.text("document.getElementById('download').download"), "oklogd.log");
    let path = link.split_once(&node.api.to_string()).unwrap().1;
    let answer = node.get(path);
    let expected = lines.lines().filter(|line| !line.contains('7')).count();
    assert!(answer.complete && answer.text().lines().count() == expected, "{link}");

    browser.open(node.api, "/ui/?q=2999");
    browser.wait(&format!("String({ROWS}) === 'line 2999 end'"));
    browser.click("#saved");
    browser.click(".saved button");
    browser.wait(&format!("{ROWS}[0] === 'line 0 end' && !{ROWS}.includes('line 7 end')"));
    assert!(browser.text("location.search").contains("x=7"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
