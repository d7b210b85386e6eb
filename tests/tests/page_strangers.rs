//! Pages of other sites in the browser of somebody who reaches a node: what they may not do to it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::json;
use tests::browser::Browser;
use tests::node::Node;
use tests::sender::send;

/// A site that serves one empty page, until the process ends.
fn stranger() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut head = BufReader::new(client.try_clone().unwrap()).lines();
                // A browser may connect ahead and send nothing.
                if head.any(|line| line.is_ok_and(|line| line.is_empty())) {
                    let page = "<!doctype html><title>stranger</title><link rel=icon href=data:,>";
                    let length = page.len();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n"
                    );
                    let _ = client.write_all((head + page).as_bytes());
                }
            });
        }
    });
    address
}

#[test]
fn a_page_of_another_site_shows_none_of_ours_in_a_frame() {
    let name = "a_page_of_another_site_shows_none_of_ours_in_a_frame";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let elsewhere = stranger();
    for path in ["/ui/", "/ui/overview"] {
        browser.open(elsewhere, "/");
        browser.script(&format!(
            "const frame = document.createElement('iframe');
            frame.onload = () => {{ window.loaded = true; }};
            frame.src = {};
            document.body.append(frame);",
            json!(format!("http://{}{path}", node.api))
        ));
        browser.wait("window.loaded");
        let complaints = browser.complaints();
        assert!(complaints.iter().any(|one| one.contains("frame-ancestors")), "{complaints:?}");
    }
}

#[test]
fn a_page_of_another_site_sends_nothing_reads_nothing_and_follows_nothing() {
    let name = "a_page_of_another_site_sends_nothing_reads_nothing_and_follows_nothing";
    let Some(browser) = Browser::start(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, b"a secret\n");
    let entry = json!({ "level": "info", "service": "s", "message": "forged" }).to_string();
    // What browsers let any page send without asking first, and what they ask for.
    let script = format!(
        "window.told = null;
        const [entry, node] = [{entry:?}, 'http://{api}'];
        const tried = (all) => all.then(() => 'done', () => 'refused');
        const simple = {{ method: 'POST', mode: 'no-cors', credentials: 'include' }};
        const form = new Promise((done) => {{
            const [frame, form] = ['iframe', 'form'].map((tag) => document.createElement(tag));
            frame.name = 'into';
            document.body.append(frame, form);
            Object.assign(form, {{ action: node + '/records', method: 'post', enctype: 'text/plain', target: 'into' }});
            form.append(Object.assign(document.createElement('input'), {{ name: 'forged', value: 'forged' }}));
            frame.onload = done;
            form.submit();
        }});
        const socket = new Promise((opened, refused) => {{
            const socket = new WebSocket(node.replace('http', 'ws') + '/ws/live');
            [socket.onopen, socket.onerror] = [opened, refused];
        }});
        Promise.all([
            tried(fetch(node + '/records', {{ ...simple, body: 'forged' }})),
            tried(fetch(node + '/log', {{ ...simple, body: entry }})),
            tried(fetch(node + '/_drain', simple)),
            tried(form),
            tried(fetch(node + '/log', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: entry }})),
            tried(fetch(node + '/query?from=1h').then((answer) => answer.text())),
            tried(fetch(node + '/stream', {{ headers: {{ accept: 'text/event-stream' }} }})),
            tried(socket),
        ]).then((all) => {{ window.told = all.join(' '); }});",
        api = node.api,
    );
    browser.open(stranger(), "/");
    browser.script(&script);
    browser.wait("window.told");
    // The first four are sent blindly, and nobody learns what became of them.
    let told = "done done done done refused refused refused refused";
    assert_eq!(browser.text("window.told"), told);
    assert_eq!(node.all_lines(), [b"a secret"]);
    assert_eq!(node.get("/_clusterstate").json()["nodes"][0]["state"], "up");
    // A page of its own may.
    browser.open(node.api, "/ui/overview");
    browser.script(&format!(
        "window.told = null;
        const socket = new WebSocket('ws://{api}/ws/live');
        Promise.all([
            fetch('/records', {{ method: 'POST', body: 'its own' }}).then((answer) => answer.status),
            fetch('/log', {{ method: 'POST', body: {entry:?} }}).then((answer) => answer.status),
            new Promise((opened, refused) => {{ [socket.onopen, socket.onerror] = [() => opened('open'), refused]; }}),
        ]).then((all) => {{ window.told = String(all); }});",
        api = node.api,
    ));
    browser.wait("window.told === '200,202,open'");
    assert_eq!(node.query("q=its+own").len(), 1);
}

#[test]
fn a_name_that_was_pointed_at_this_host_shows_nothing() {
    let name = "a_name_that_was_pointed_at_this_host_shows_nothing";
    let rules = ["host-resolver-rules=MAP rebound.example 127.0.0.1"];
    let Some(browser) = Browser::start_with(name, &rules) else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    send(node.durable, b"a secret\n");
    let port = node.api.port();
    for path in ["/ui/", "/ui/overview", "/query?from=1h"] {
        browser.open_url(&format!("http://rebound.example:{port}{path}"));
        let told = browser.text("document.body.textContent");
        assert!(told.contains("is no name of this node") && !told.contains("secret"), "{told}");
        assert_eq!(browser.text("document.scripts.length"), "0");
    }
    // Nor to a script that the name has brought along.
    let ask = "window.told = null;
        Promise.all(['/query?from=1h', '/topics', '/_clusterstate'].map((path) => fetch(path).then((answer) => answer.status)))
            .then((all) => { window.told = String(all); });";
    browser.script(ask);
    browser.wait("window.told === '403,403,403'");
    let socket = "window.socket = null;
        const socket = new WebSocket(`ws://${location.host}/ws/live`);
        socket.onopen = () => { window.socket = 'open'; };
        socket.onerror = () => { window.socket = 'refused'; };";
    browser.script(socket);
    browser.wait("window.socket === 'refused'");
    // The same page under its own name.
    browser.open_url(&format!("http://localhost:{port}/ui/"));
    browser.wait("document.querySelector('.row > .text')?.textContent === 'a secret'");
}
