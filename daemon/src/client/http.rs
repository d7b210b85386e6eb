//! One request to a node and its streamed answer.
//!
//! Invariants: bounded buffers whatever the answer's size; an answer that is cut short is told
//! from one that is whole. A search may take as long as it does: a node is asked for signs of life
//! inside its answer. What does not give them is given up within 20 s of its last byte, in whatever
//! phase it falls silent (name, connection, head, body) and whatever else it answers; only for the head
//! a node may ask for more time, since queries wait for their turn. What answers otherwise than a node
//! is none. Who got no sign of life asks no further question.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use engine::ingest::hello::Secret;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, TE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::printer::escape;
use super::store::Store;
use crate::exit::Exit;
use crate::units::Endpoint;

/// Time to look a name up and for one of its addresses to take a connection. With all of a
/// [`Patience`] behind it, it is less than 20 s.
const REACH_TIMEOUT: Duration = Duration::from_secs(7);

/// A node that is silent for this long is asked whether it is there: a live stream may be.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Longest request target, bytes: what the library can hold (`http::Uri`).
const TARGET_BYTES_MAX: usize = (u16::MAX - 1) as usize;

/// How silence is borne.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While there is no head the node is asked after this long whether it is there, again and again.
    pub(crate) silence: Duration,
    /// Time for its answer to that.
    pub(crate) sign_of_life: Duration,
    /// Time for the head, unless the node says that it may take longer.
    pub(crate) head: Duration,
    /// Longest silence behind the head: several signs of life.
    pub(crate) body: Duration,
}

impl Patience {
    /// Of everybody who waits for an answer, a follower's quiet stream included.
    pub(crate) const USUAL: Self = Self {
        silence: Duration::from_secs(6),
        sign_of_life: Duration::from_secs(6),
        head: Duration::from_secs(18),
        body: Duration::from_secs(13),
    };
}

/// Asks for signs of life inside the answer.
const ALIVE: &str = "x-oklog-alive";
/// In the answer of `/health`: seconds that a head may take.
const HEAD_WITHIN: &str = "x-oklog-head-within";
/// Parts in which silence is measured: of a wait in which this process itself stood still only one is
/// taken for the node's.
const SILENCE_PARTS: u32 = 4;

/// Runs what asks a node. The error: the system refuses a runtime.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A name service that does not answer keeps nobody from ending.
    runtime.shutdown_background();
    Ok(done)
}

/// Why there is no answer. Each is one line for the operator.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The name has no address.
    Resolve(Endpoint, io::Error),
    /// What is asked for makes a longer request than there can be: so many bytes.
    TooLong(usize),
    /// Nobody answers there.
    Connect(Endpoint, io::Error),
    /// What answers does not speak HTTP, or broke off before its answer.
    Protocol(Endpoint, hyper::Error),
    /// It takes connections, and answers nothing.
    Silent(Endpoint),
    /// It answers, but not what was asked.
    Late(Endpoint),
    /// It answers in a form that was not asked for: it is something else.
    Stranger(Endpoint, String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(endpoint, error) => {
                write!(f, "--store {endpoint}: the host name cannot be resolved: {error}")
            }
            Self::TooLong(len) => write!(
                f,
                "the request would have {len} bytes (what is no ASCII letter or digit counts three times \
                 a byte); at most {TARGET_BYTES_MAX} are valid: shorten -q, or name fewer topics"
            ),
            Self::Connect(endpoint, error) => {
                write!(f, "cannot connect to {endpoint}: {error}; --store names the node to ask")
            }
            Self::Protocol(endpoint, error) => {
                write!(f, "no answer from {endpoint}: {error}; is this the HTTP port of a node?")
            }
            Self::Silent(endpoint) => write!(
                f,
                "{endpoint} takes connections and answers nothing: is this the HTTP port of a node? \
                 (--api, by default {})",
                crate::config::API_PORT
            ),
            Self::Late(endpoint) => write!(
                f,
                "{endpoint} is there and does not answer: its /health does, this request had no answer \
                 in time"
            ),
            Self::Stranger(endpoint, kind) => write!(
                f,
                "{endpoint} answers with {kind:?}, as no node of this version does: is this the HTTP \
                 port of a node? (--api, by default {})",
                crate::config::API_PORT
            ),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// The exit code for it.
    pub(crate) const fn exit(&self) -> Exit {
        if matches!(self, Self::TooLong(_)) { Exit::Usage } else { Exit::Error }
    }
}

/// The exit code for an answer other than 200: a bad value is the user's, whoever found it.
pub(crate) fn exit_of(status: StatusCode) -> Exit {
    const BAD_VALUE: [StatusCode; 3] = [
        StatusCode::BAD_REQUEST,
        StatusCode::URI_TOO_LONG,
        // A request of ours has nothing else that may be long.
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    ];
    if BAD_VALUE.contains(&status) { Exit::Usage } else { Exit::Error }
}

/// Why an answer ends before its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Its connection did.
    Cut(hyper::Error),
    /// Nothing comes any more, no sign of life either.
    Silent,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(error) => error.fmt(f),
            Self::Silent => f.write_str("it does not answer any more"),
        }
    }
}

/// Sends a request without a body; resolves with the head of its answer. `on_silence` is called
/// whenever the node has been silent and showed that it is there.
pub(crate) async fn send(
    store: &Store,
    (method, target, accept): (Method, &str, &'static str),
    patience: Patience,
    on_silence: &mut dyn FnMut(),
) -> Result<Response<Incoming>, ClientError> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(ClientError::TooLong(target.len()));
    }
    if store.is_unknown() {
        // An ingest port answers nothing, and keeps what it is sent.
        let sign = timeout(patience.sign_of_life, sign_of_life(store)).await;
        sign.unwrap_or_else(|_| Err(ClientError::Silent(store.endpoint())))?;
        store.note_http();
    }
    let stream = reach(store).await?;
    let answer = send_over(stream, store, store.token(), (method, target, accept));
    in_time(store, patience, answer, on_silence).await?
}

/// Awaits the head of an answer until the node does not show that it is there, or takes longer than it
/// may.
async fn in_time<T>(
    endpoint: &Endpoint,
    patience: Patience,
    head: impl Future<Output = T>,
    on_silence: &mut dyn FnMut(),
) -> Result<T, ClientError> {
    let mut head = pin!(head);
    let start = Instant::now();
    let mut deadline = start + patience.head;
    loop {
        let until = deadline.min(Instant::now() + patience.silence);
        if let Ok(done) = timeout_at(until, &mut head).await {
            return Ok(done);
        }
        let sign = sign_of_life(endpoint);
        tokio::select! {
            done = &mut head => return Ok(done),
            // Whatever it says: it turns.
            sign = timeout(patience.sign_of_life, sign) => match sign {
                Ok(Ok(sign)) => deadline = deadline.max(start + wanted(&sign)),
                Ok(Err(_)) | Err(_) => return Err(ClientError::Silent(endpoint.clone())),
            },
        }
        if Instant::now() >= deadline {
            return Err(ClientError::Late(endpoint.clone()));
        }
        on_silence();
    }
}

/// Asks whether somebody is there who speaks HTTP. That needs no token.
async fn sign_of_life(endpoint: &Endpoint) -> Result<Response<Incoming>, ClientError> {
    let stream = reach(endpoint).await?;
    send_over(stream, endpoint, None, (Method::GET, "/health", "application/json")).await
}

/// How long a node says that it may take for the head of an answer.
fn wanted(sign: &Response<Incoming>) -> Duration {
    let seconds = sign.headers().get(HEAD_WITHIN).and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|seconds| seconds.parse::<u32>().ok());
    // An hour is more than it gives a whole query.
    Duration::from_secs(seconds.unwrap_or(0).min(3600).into())
}

/// A connection to one of the addresses of a name.
async fn reach(endpoint: &Endpoint) -> Result<TcpStream, ClientError> {
    let deadline = Instant::now() + REACH_TIMEOUT;
    let name = (endpoint.host.as_str(), endpoint.port);
    let unresolved = |error| ClientError::Resolve(endpoint.clone(), error);
    let addresses: Vec<_> = timeout_at(deadline, tokio::net::lookup_host(name))
        .await
        .unwrap_or_else(|_| Err(io::Error::other("no name server answers")))
        .map_err(unresolved)?
        .collect();
    if addresses.is_empty() {
        return Err(unresolved(io::Error::other("it has no address")));
    }
    let connected = connect(&addresses, deadline).await;
    connected.map_err(|error| ClientError::Connect(endpoint.clone(), error))
}

async fn send_over(
    stream: TcpStream,
    endpoint: &Endpoint,
    token: Option<&Secret>,
    (method, target, accept): (Method, &str, &'static str),
) -> Result<Response<Incoming>, ClientError> {
    let broken = |error| ClientError::Protocol(endpoint.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Its failure is the body's failure too.
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().expect("no longer than it may be, and percent-encoded");
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(without_zone(endpoint).to_string());
    headers.insert(HOST, host.expect("a host is read as visible ASCII"));
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(ALIVE, HeaderValue::from_static("true"));
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {}", token.as_str()));
        let mut value = value.expect("a token is visible ASCII");
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    sender.send_request(request).await.map_err(broken)
}

/// The zone of an address means something on this host alone, and is not sent (RFC 6874, 4).
fn without_zone(endpoint: &Endpoint) -> Endpoint {
    let is_address = endpoint.host.contains(':');
    let host = endpoint.host.split_once('%').filter(|_| is_address);
    let host = host.map_or(endpoint.host.as_str(), |(address, _zone)| address);
    Endpoint { host: host.to_owned(), port: endpoint.port }
}

/// Refuses an answer that is not in this form, its parameters aside.
pub(crate) fn require(
    endpoint: &Endpoint,
    response: &Response<Incoming>,
    content_type: &str,
) -> Result<(), ClientError> {
    let given = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let given = given.unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(content_type) {
        Ok(())
    } else {
        Err(ClientError::Stranger(endpoint.clone(), given.to_owned()))
    }
}

/// The first address that answers.
async fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (at, address) in addresses.iter().enumerate() {
        // Each one has its share of what is left.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                SockRef::from(&stream).set_tcp_keepalive(
                    &TcpKeepalive::new()
                        .with_time(KEEPALIVE)
                        .with_interval(KEEPALIVE / 3)
                        .with_retries(3),
                )?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

/// Longest reason for a refusal that is read, bytes.
const REASON_BYTES_MAX: usize = 64 << 10;
/// Of one that is no node's, so much is shown.
const FOREIGN_BYTES_SHOWN: usize = 200;

/// What an answer other than 200 says, for people: fit for a terminal; lines stay, for what is wrong with
/// a regular expression is shown by several.
pub(crate) async fn refusal(
    endpoint: &Endpoint,
    patience: Patience,
    response: Response<Incoming>,
) -> String {
    let status = response.status();
    let mut body = response.into_body();
    let body = read_short(patience, &mut body, REASON_BYTES_MAX, &mut || ()).await;
    let body = body.unwrap_or_else(|why| format!("(no reason: {why})").into_bytes());
    let object: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = match object["error"].as_str() {
        Some(words) => words.as_bytes(),
        None => &body[..body.len().min(FOREIGN_BYTES_SHOWN)],
    };
    let mut reason = Vec::new();
    for line in words.trim_ascii_end().split_inclusive(|&byte| byte == b'\n') {
        let (line, end) = line.strip_suffix(b"\n").map_or((line, &[][..]), |line| (line, b"\n"));
        escape(&mut reason, line);
        reason.extend_from_slice(end);
    }
    format!("{endpoint} answers {status}: {}", String::from_utf8_lossy(&reason))
}

/// The next bytes of an answer, signs of life among them; `None` at its end.
pub(crate) async fn next(patience: Patience, body: &mut Incoming) -> Result<Option<Bytes>, Broken> {
    let mut next = pin!(next_data(body));
    for _ in 0..SILENCE_PARTS {
        if let Ok(next) = timeout(patience.body / SILENCE_PARTS, &mut next).await {
            return next.map_err(Broken::Cut);
        }
    }
    Err(Broken::Silent)
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A short answer as a whole; what is beyond `bytes_max` is left out. White space before it, which JSON
/// takes for nothing, is a sign of life: `on_sign` is told.
pub(crate) async fn read_short(
    patience: Patience,
    body: &mut Incoming,
    bytes_max: usize,
    on_sign: &mut dyn FnMut(),
) -> Result<Vec<u8>, Broken> {
    let mut all = Vec::new();
    while let Some(piece) = next(patience, body).await? {
        let piece = if all.is_empty() { piece.trim_ascii_start() } else { &piece[..] };
        if piece.is_empty() {
            on_sign();
        }
        all.extend_from_slice(piece);
        if all.len() > bytes_max {
            all.truncate(bytes_max);
            break;
        }
    }
    Ok(all)
}

/// Path and query string of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target(String);

impl Target {
    /// A path without parameters.
    pub(crate) fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Adds a parameter.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        encode(&mut self.0, value);
    }

    /// Adds a switch that is on.
    pub(crate) fn add_switch(&mut self, name: &str, is_on: bool) {
        if is_on {
            self.add(name, "true");
        }
    }

    /// As it is sent.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Appends `text`; everything but RFC 3986's unreserved characters becomes `%XX`.
fn encode(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Address;

    #[test]
    fn the_zone_of_an_address_is_this_hosts_business() {
        for (store, named) in [
            ("[fe80::1%eth0]:80", "[fe80::1]:80"),
            ("fe80::1%25", "[fe80::1]:7650"),
            ("[::1]", "[::1]:7650"),
            ("logs.example:80", "logs.example:80"),
            ("a%b", "a%b:7650"),
        ] {
            let endpoint = Address::parse(store).unwrap().or("localhost", 7650);
            assert_eq!(without_zone(&endpoint).to_string(), named, "{store}");
        }
    }
}
