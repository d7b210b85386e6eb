//! A plain HTTP/1.1 client: whole answers in memory, and whether they ended as they should.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers and trailers, names in lower case; of a name that comes again all values, by commas.
    pub headers: HashMap<String, String>,
    /// The body as far as it came.
    pub body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub complete: bool,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// `GET` of a path with its query string, already encoded.
pub fn get(api: SocketAddr, path: &str) -> Answer {
    request(api, "GET", path, &[], b"")
}

/// `POST` with a body of known length.
pub fn post(api: SocketAddr, path: &str, body: &[u8]) -> Answer {
    request(api, "POST", path, &[], body)
}

/// Any request; an answer must come.
pub fn request(
    api: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_request(api, method, path, headers, body)
        .unwrap_or_else(|e| panic!("{method} {path} on {api}: {e}"))
}

/// Any request; fails where the node is not there or hangs up before its headers.
pub fn try_request(
    api: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_read_timeout(Some(crate::DEADLINE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    read_answer(&mut BufReader::with_capacity(1 << 16, stream), method)
}

/// Reads one answer.
pub fn read_answer(reader: &mut impl BufRead, method: &str) -> std::io::Result<Answer> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {line:?}")))?;
    let mut answer =
        Answer { status, headers: read_headers(reader)?, body: Vec::new(), complete: true };
    if method == "HEAD" {
        return Ok(answer);
    }
    if answer.headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        answer.complete = read_chunks(reader, &mut answer).is_ok();
    } else if let Some(len) = answer.headers.get("content-length") {
        let len: u64 = len.parse().map_err(std::io::Error::other)?;
        reader.take(len).read_to_end(&mut answer.body)?;
        answer.complete = answer.body.len() as u64 == len;
    } else {
        reader.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

fn read_headers(reader: &mut impl BufRead) -> std::io::Result<HashMap<String, String>> {
    let mut headers: HashMap<String, String> = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(headers) };
        let value = value.trim().to_owned();
        let entry = headers.entry(name.to_ascii_lowercase());
        entry.and_modify(|all| *all = format!("{all}, {value}")).or_insert(value);
    }
}

fn read_chunks(reader: &mut impl BufRead, answer: &mut Answer) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let len = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        if len == 0 {
            answer.headers.extend(read_headers(reader)?);
            return Ok(());
        }
        let before = answer.body.len() as u64;
        reader.take(len).read_to_end(&mut answer.body)?;
        if answer.body.len() as u64 != before + len {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        reader.read_line(&mut String::new())?;
    }
}

/// Percent-encodes everything but letters, digits and `-_.~`.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
