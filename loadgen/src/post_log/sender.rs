//! A connection that stays open, with one request on its way.
//!
//! Invariants: an answer is read to its end before the next request; memory is one answer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Result};
use crate::send;

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// See the module page.
#[derive(Debug)]
pub(super) struct Sender {
    stream: TcpStream,
    host: String,
    came: Vec<u8>,
    sent: Instant,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) after: Duration,
}

impl Sender {
    pub(super) fn connect(api: &str) -> Result<Self> {
        let stream = send::open(api)?;
        Ok(Self { stream, host: api.to_owned(), came: Vec::new(), sent: Instant::now() })
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Hands a request over. It is short, and nothing is before it, so there is room for it.
    pub(super) fn send(&mut self, body: &str) -> Result<()> {
        let request = format!(
            "POST /log HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.sent = Instant::now();
        self.stream.write_all(request.as_bytes()).context(|| format!("sending to {}", self.host))
    }

    /// Reads what is there; the answer once it is whole.
    pub(super) fn receive(&mut self) -> Result<Option<Answer>> {
        let receiving = || format!("reading from {}", self.host);
        let mut piece = [0; 4 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => return Err(Failure::run(format!("{} has closed a connection", self.host))),
            Ok(len) => self.came.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context(receiving),
        }
        if self.came.len() > ANSWER_BYTES_MAX {
            return Err(Failure::run("an answer is too long"));
        }
        let Some((status, body)) = whole(&self.came) else { return Ok(None) };
        let text = String::from_utf8_lossy(body).into_owned();
        self.came.clear();
        Ok(Some(Answer { status, text, after: self.sent.elapsed() }))
    }
}

/// Status and body of an answer of known length, if all of it is there.
fn whole(came: &[u8]) -> Option<(u16, &[u8])> {
    let end = memchr::memmem::find(came, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&came[..end]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = &came[end..];
    (body.len() >= length).then(|| (status, &body[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nhello";
        for cut in 0..answer.len() {
            assert_eq!(whole(&answer[..cut]), None);
        }
        assert_eq!(whole(answer), Some((202, &b"hello"[..])));
    }
}
