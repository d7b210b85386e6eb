//! The least of an HTTP client: what goes over the wire is written by hand and read as it is.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// By lower-case name.
    pub(super) headers: HashMap<String, String>,
    /// Chunks joined.
    pub(super) body: Vec<u8>,
    /// By lower-case name.
    pub(super) trailers: HashMap<String, String>,
    /// Whether the body ended as its framing said.
    pub(super) whole: bool,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The records of a text answer, their ULIDs taken off.
    pub(super) fn records(&self) -> Vec<String> {
        self.text().lines().map(|line| line[27..].to_owned()).collect()
    }
}

/// A connection that gives up after ten seconds.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends bytes, reads until the server closes. A server that closes early is not an error.
pub(super) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// One request with a body on a connection of its own.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !headers.iter().any(|(name, _)| *name == "Connection") {
        bytes.extend(b"Connection: close\r\n");
    }
    let chunked = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
    if !chunked && (!body.is_empty() || method == "POST") {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    read(&exchange(address, &bytes), method == "HEAD")
}

pub(super) fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], b"")
}

pub(super) fn post(address: SocketAddr, target: &str, body: &[u8]) -> Answer {
    request(address, "POST", target, &[], body)
}

/// Takes one answer apart.
pub(super) fn read(bytes: &[u8], of_head: bool) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = fields(lines);
    let rest = &bytes[end + 4..];
    let mut answer =
        Answer { status, headers, body: Vec::new(), trailers: HashMap::new(), whole: true };
    if of_head {
        assert!(rest.is_empty(), "a body behind the answer to HEAD");
    } else if answer.header("transfer-encoding") == "chunked" {
        read_chunks(&mut answer, rest);
    } else {
        answer.whole = answer.header("content-length") == rest.len().to_string();
        answer.body = rest.to_vec();
    }
    answer
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> HashMap<String, String> {
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

fn read_chunks(answer: &mut Answer, mut rest: &[u8]) {
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else {
            answer.whole = false;
            return;
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            answer.trailers = fields(std::str::from_utf8(rest).unwrap().split("\r\n"));
            return;
        }
        let Some(chunk) = rest.get(..size + 2) else {
            answer.whole = false;
            return;
        };
        answer.body.extend_from_slice(&chunk[..size]);
        rest = &rest[size + 2..];
    }
}

/// Waits for a condition.
pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::yield_now();
    }
}
