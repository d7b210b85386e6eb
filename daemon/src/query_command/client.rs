//! One request to a node and its streamed answer.
//!
//! Invariants: bounded buffers whatever the answer's size; an answer that is cut short is told
//! from one that is whole.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, HeaderValue, TE};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::units::Endpoint;

/// Time to wait for one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that is silent for this long is asked whether it is there: a live stream may be.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why there is no answer. Each is one line for the operator.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The name has no address.
    Resolve(Endpoint, io::Error),
    /// Nobody answers there.
    Connect(Endpoint, io::Error),
    /// What answers does not speak HTTP, or broke off before its answer.
    Protocol(Endpoint, hyper::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(endpoint, error) => {
                write!(f, "--store {endpoint}: the host name cannot be resolved: {error}")
            }
            Self::Connect(endpoint, error) => {
                write!(f, "cannot connect to {endpoint}: {error}; --store names the node to ask")
            }
            Self::Protocol(endpoint, error) => write!(f, "no answer from {endpoint}: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Sends a `GET`; resolves with the head of its answer.
pub(crate) async fn ask(
    endpoint: &Endpoint,
    target: &str,
    accept: &'static str,
) -> Result<Response<Incoming>, ClientError> {
    send(endpoint, Method::GET, target, accept).await
}

/// Sends a request without a body; resolves with the head of its answer.
pub(crate) async fn send(
    endpoint: &Endpoint,
    method: Method,
    target: &str,
    accept: &'static str,
) -> Result<Response<Incoming>, ClientError> {
    let addresses =
        endpoint.resolve().map_err(|error| ClientError::Resolve(endpoint.clone(), error))?;
    let stream =
        connect(&addresses).await.map_err(|error| ClientError::Connect(endpoint.clone(), error))?;
    let broken = |error| ClientError::Protocol(endpoint.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Its failure is the body's failure too.
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    // The target is made of characters that every URI may hold.
    *request.uri_mut() = target.parse().unwrap_or_default();
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(endpoint.to_string());
    headers.insert(HOST, host.unwrap_or_else(|_| HeaderValue::from_static("oklogd")));
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    sender.send_request(request).await.map_err(broken)
}

/// The first address that answers.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
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

/// The next bytes of an answer; `None` at its proper end.
pub(crate) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A short answer as a whole; what is beyond `bytes_max` is left out.
pub(crate) async fn read_short(body: &mut Incoming, bytes_max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(Some(piece)) = next(body).await {
        all.extend_from_slice(&piece);
        if all.len() > bytes_max {
            all.truncate(bytes_max);
            break;
        }
    }
    all
}
