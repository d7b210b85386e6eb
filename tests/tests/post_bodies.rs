//! What the bodies of `POST /records` hold together is bounded, whatever their senders do: whoever
//! gets no share is told what is full, others are served, and what was acknowledged is there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::node::Node;
use tests::{http, wait_until};

/// What many stalling senders do until they may go on.
#[derive(Default)]
struct Crowd {
    may_end: AtomicBool,
    refused: AtomicUsize,
}

impl Crowd {
    /// Sends a body but for its last bytes, and those once all may end; the answer.
    fn send(&self, api: SocketAddr, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(api).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let head = format!(
            "POST /records?topic=crowd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             {headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let (mut sent, mut answer) = (0, Vec::new());
        while !answer.ends_with(b"}\n") {
            let last = if self.may_end.load(Ordering::Acquire) { 0 } else { 10 };
            // Neither is an error: the node takes nothing for now, or has said all it had to say.
            if let Ok(bytes) = stream.write(&body[sent..body.len().max(last) - last]) {
                sent += bytes;
            }
            let mut piece = [0; 1_000];
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(bytes) => answer.extend_from_slice(&piece[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // It has closed the connection, and was not listened to in time.
                Err(_) => break,
            }
        }
        let answer = String::from_utf8(answer).unwrap();
        if !answer.starts_with("HTTP/1.1 200") {
            self.refused.fetch_add(1, Ordering::AcqRel);
        }
        answer
    }
}

/// Bodies of one kind, which all stall before their ends.
struct Stalling {
    senders: usize,
    headers: &'static str,
    /// One record.
    body: Vec<u8>,
    /// As many are refused in the first ten seconds.
    refused: usize,
    /// What they may hold together, MiB.
    bound_mib: u64,
    /// Some of it is in every refusal.
    full: &'static [&'static str],
}

const LINE_BYTES: usize = (16 << 20) - 1;

fn share_little_memory_and_hold_nobody_up(stalling: Stalling) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.max-record-size", "16MiB"]);
    let short = |number: usize| {
        let line = format!("short line {number}\n");
        http::post(node.api, "/records?topic=short", line.as_bytes())
    };
    assert_eq!(short(0).status, 200);
    let before = node.anonymous_bytes() >> 20;
    let Stalling { senders, headers, body, refused, bound_mib, full } = stalling;
    let (crowd, body) = (Arc::new(Crowd::default()), Arc::new(body));
    let sending: Vec<_> = (0..senders)
        .map(|_| {
            let (crowd, body, api) = (Arc::clone(&crowd), Arc::clone(&body), node.api);
            std::thread::spawn(move || crowd.send(api, headers, &body))
        })
        .collect();
    let long_lines = "oklog_http_budget_used{budget=\"long_lines_bytes\"}";
    let (mut peak, mut shorts, mut most_used) = (0, 1, 0.0_f64);
    wait_until("those who find no room are told", || {
        peak = peak.max(node.anonymous_bytes() >> 20);
        assert!(peak <= before + bound_mib, "{before} MiB before, {peak} MiB now");
        most_used = most_used.max(node.metric(long_lines));
        let answer = short(shorts);
        assert_eq!(answer.status, 200, "{}", answer.text());
        shorts += 1;
        crowd.refused.load(Ordering::Acquire) >= refused
    });
    eprintln!("RssAnon {before} MiB before, {peak} MiB at most, {shorts} short requests");
    assert!(most_used > LINE_BYTES as f64, "{most_used}");
    crowd.may_end.store(true, Ordering::Release);
    let (mut kept, mut told) = (0, 0);
    for sender in sending {
        let answer = sender.join().unwrap();
        if answer.starts_with("HTTP/1.1 200") {
            assert!(answer.contains("\"records\":1"), "{answer}");
            kept += 1;
        } else if !answer.is_empty() {
            told += 1;
            assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
            assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
            assert!(full.iter().any(|words| answer.contains(words)), "{answer}");
            assert!(answer.contains("\"kept\":0"), "{answer}");
        }
    }
    assert!(kept >= 1 && told >= refused / 2, "{kept} kept, {told} told");
    let records = |topic: &str| {
        node.get(&format!("/query?from=1h&topic={topic}&stats")).json()["records"].as_u64()
    };
    assert_eq!(records("crowd"), Some(kept));
    assert_eq!(records("short"), Some(shorts as u64));
    wait_until("everything is given back", || node.metric(long_lines) == 0.0);
}

#[test]
fn long_lines_that_do_not_end_share_little_memory_and_hold_nobody_up() {
    share_little_memory_and_hold_nobody_up(Stalling {
        senders: 60,
        headers: "",
        body: [&vec![b'x'; LINE_BYTES][..], b"\n"].concat(),
        refused: 56,
        // As much as long lines may hold, and a little for each who has to wait.
        bound_mib: 64 + 64,
        full: &["--ingest.partial-max-size"],
    });
}

#[test]
fn compressed_bodies_that_do_not_end_share_little_memory_and_hold_nobody_up() {
    // A few kilobytes that unpack to a long line, through the largest window there may be.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(23).unwrap();
    encoder.write_all(&vec![b'x'; LINE_BYTES]).unwrap();
    encoder.flush().unwrap();
    share_little_memory_and_hold_nobody_up(Stalling {
        senders: 40,
        headers: "Content-Encoding: zstd\r\n",
        body: encoder.finish().unwrap(),
        refused: 10,
        // As much as windows and long lines may hold, and a little for each who has to wait.
        bound_mib: 128 + 64 + 64,
        full: &["--ingest.partial-max-size", "decoders"],
    });
}
