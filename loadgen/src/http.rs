//! As much of an HTTP/1.1 client as a query needs: one request per connection, the body as a stream.
//!
//! Invariants: memory is one read buffer and one head, both bounded; a body that ends before its
//! announced end (length, or final chunk) is an error, because that is how a node says that an
//! answer is incomplete. No redirects, no keep-alive, no TLS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::failure::{Context, Failure, Result};

const READ_BYTES: usize = 256 << 10;
const HEAD_LINE_BYTES_MAX: u64 = 16 << 10;
const HEAD_LINES_MAX: usize = 200;
/// Longest silence of a node.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Of an error's body, what is shown.
const ERROR_BYTES_MAX: u64 = 2000;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Debug)]
struct Body {
    stream: BufReader<TcpStream>,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Bytes left of the current chunk; the final chunk is still to come.
    Chunk(u64),
    Length(u64),
    UntilClose,
    Ended,
}

/// `GET path` from `host:port`; any status that is no success is an error that shows the body.
pub(crate) fn get(address: &str, path: &str) -> Result<Answer> {
    get_within(address, path, READ_TIMEOUT)
}

/// The same; a node that is silent for so long is an error.
pub(crate) fn get_within(address: &str, path: &str, silence_max: Duration) -> Result<Answer> {
    request("GET", address, path, (b"", silence_max))
}

/// `POST` of a body, otherwise as [`get_within`].
pub(crate) fn post(
    address: &str,
    path: &str,
    body: &[u8],
    silence_max: Duration,
) -> Result<Answer> {
    request("POST", address, path, (body, silence_max))
}

fn request(
    method: &str,
    address: &str,
    path: &str,
    (body, silence_max): (&[u8], Duration),
) -> Result<Answer> {
    let asking = || format!("{method} http://{address}{path}");
    let mut stream = TcpStream::connect(address).context(asking)?;
    stream.set_read_timeout(Some(silence_max)).context(asking)?;
    stream.set_nodelay(true).context(asking)?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n")
            .into_bytes();
    if method == "POST" {
        request.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    request.extend(b"\r\n");
    request.extend(body);
    stream.write_all(&request).context(asking)?;
    let mut stream = BufReader::with_capacity(READ_BYTES, stream);
    let (status, headers) = read_head(&mut stream).context(asking)?;
    let framing = framing(&headers);
    let mut answer = Answer { headers, body: Body { stream, framing } };
    if !(200..300).contains(&status) {
        let mut text = Vec::new();
        // What can be read of the reason is shown.
        let _ = (&mut answer.body).take(ERROR_BYTES_MAX).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        return Err(Failure::run(format!("{}: status {status}: {}", asking(), text.trim())));
    }
    Ok(answer)
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Hands out the body as it arrives.
    pub(crate) fn read_body(mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.body.read(&mut buffer)? {
                0 => return Ok(()),
                count => each(&buffer[..count]),
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::Chunk(0) {
            self.framing = next_chunk(&mut self.stream)?;
        }
        let left = match self.framing {
            Framing::Ended | Framing::Length(0) => return Ok(0),
            Framing::Chunk(left) | Framing::Length(left) => left,
            Framing::UntilClose => u64::MAX,
        };
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let count = self.stream.read(&mut out[..want])?;
        let left = left - count as u64;
        match &mut self.framing {
            Framing::UntilClose | Framing::Ended => return Ok(count),
            Framing::Chunk(rest) | Framing::Length(rest) => *rest = left,
        }
        if count == 0 && want > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off"));
        }
        if self.framing == Framing::Chunk(0) {
            read_line(&mut self.stream)?;
        }
        Ok(count)
    }
}

/// Reads a chunk's size line; behind the final one, the trailers.
fn next_chunk(stream: &mut BufReader<TcpStream>) -> io::Result<Framing> {
    let line = read_line(stream)?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(digits, 16)
        .map_err(|_| io::Error::other(format!("`{line}` is no chunk size")))?;
    if size > 0 {
        return Ok(Framing::Chunk(size));
    }
    for _ in 0..HEAD_LINES_MAX {
        if read_line(stream)?.is_empty() {
            return Ok(Framing::Ended);
        }
    }
    Err(io::Error::other("too many trailers"))
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, Vec<(String, String)>)> {
    let status_line = read_line(stream)?;
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("`{status_line}` is no HTTP answer")))?;
    let mut headers = Vec::new();
    for _ in 0..HEAD_LINES_MAX {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    Err(io::Error::other("too many headers"))
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(HEAD_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        let message = "the answer was cut off, or a line of its head is too long";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| io::Error::other("a line of the head is not UTF-8"))
}

fn framing(headers: &[(String, String)]) -> Framing {
    let header = |name: &str| headers.iter().find(|(known, _)| known == name);
    if header("transfer-encoding").is_some_and(|(_, value)| value.contains("chunked")) {
        return Framing::Chunk(0);
    }
    match header("content-length").and_then(|(_, value)| value.parse().ok()) {
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    }
}

/// Escapes a value for the query part of a URL.
pub(crate) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Serves one raw answer; returns what `get` made of it.
    fn answer(raw: &'static [u8]) -> Result<(io::Result<()>, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while head.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            stream.write_all(raw).unwrap();
        });
        let result = get(&address, "/query?q=x").map(|answer| {
            let mut body = Vec::new();
            (answer.read_body(&mut |part| body.extend_from_slice(part)), body)
        });
        server.join().unwrap();
        result
    }

    #[test]
    fn bodies_of_every_framing_are_read() {
        for raw in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            let (end, body) = answer(raw).unwrap();
            assert!(end.is_ok(), "{end:?}");
            assert_eq!(body, b"hello");
        }
    }

    #[test]
    fn a_body_that_is_cut_off_is_an_error() {
        for raw in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        ] {
            let (end, body) = answer(raw).unwrap();
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(body, b"hel");
        }
    }

    #[test]
    fn other_statuses_show_their_reason() {
        let failure = answer(b"HTTP/1.1 400 Bad\r\nContent-Length: 7\r\n\r\nno `q`\n").unwrap_err();
        assert!(failure.message.contains("status 400: no `q`"), "{failure}");
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escape("a b&c=%+ü"), "a%20b%26c%3D%25%2B%C3%BC");
    }
}
