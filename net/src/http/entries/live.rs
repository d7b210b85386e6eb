//! `GET /ws/live`: entries as they are taken, one in each text frame of a WebSocket (RFC 6455).
//!
//! The request is answered like any other; the session that it asks for is left with the connection, which
//! turns to it once the answer is out. A session takes from its follower's queue only when all that it wrote
//! before has been handed to the system, so what a slow client does not take waits there, bounded, and what
//! does not fit is counted and told to it in a frame of its own.
//!
//! Invariants: nobody waits for a client; a client that takes nothing for as long as an answer may wait, or
//! does not answer pings, is let go of; what it sends is not looked at; the exact form of an entry and what
//! the client asked of it are checked here, for followers share one search for what leads to them.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Extension, State};
use engine::follow::{StreamFormat, Wanted};
use engine::search::format::rfc3339;
use engine::ulid::ULID_TEXT_LEN;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::json;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::wanted::WantedEntries;
use crate::backend::{Following, Live};
use crate::budget::Taken;
use crate::http::App;
use crate::http::answer::Refusal;
use crate::http::drain::ClientAddress;
use crate::http::ledger::Place;
use crate::http::parameters::{Known, Parameters};
use crate::http::query::stopping;
use crate::http::sites::asks_for_websocket;
use crate::http::stream::{compiled, refused};
use crate::limits::{
    ENTRY_RECORD_BYTES_MAX, FOLLOW_KEEP_ALIVE, HTTP_WRITE_STALL_MAX, LINGER,
    WEBSOCKET_BUFFER_BYTES, WEBSOCKET_MESSAGE_BYTES_MAX, WEBSOCKET_READS_MAX,
    WEBSOCKET_SILENCE_MAX,
};
use crate::wall_clock::now_ms;

const LIVE: Known = Known { single: &["level", "service", "q"], repeated: &[] };

/// Where a request leaves the session that its connection is to turn to.
#[derive(Default)]
pub(in crate::http) struct SessionSlot(Mutex<Option<Session>>);

impl SessionSlot {
    /// What was left there.
    pub(in crate::http) fn take(&self) -> Option<Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn leave(&self, session: Session) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}

/// A WebSocket that is agreed on.
pub(in crate::http) struct Session {
    live: Box<dyn Live>,
    lines: Lines,
    /// Given back with it.
    _held: (Taken, Taken, Place),
}

/// `GET /ws/live`.
pub(in crate::http) async fn live(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<ClientAddress>,
    Extension(slot): Extension<Arc<SessionSlot>>,
) -> Response<Body> {
    let answer = async {
        let accept = accept_key(&method, &headers)?;
        let wanted = WantedEntries::read(&Parameters::parse(uri.query(), LIVE)?)?;
        let place = app.ledger.lasting(client.0)?;
        let permit = app.ledger.followers.try_take(1)?;
        let (chain, memory) = compiled(&app, &wanted.leading()?).await?;
        let topics = vec![app.options.log_topic.clone()];
        let following = app.backend.follow(Wanted { chain, topics }, StreamFormat::Text);
        let Following { live, boundary_ms } = following.map_err(refused)?;
        // What is sent once the client knows of its connection comes.
        boundary_ms.await.ok_or_else(stopping)?;
        slot.leave(Session { live, lines: Lines::new(wanted), _held: (permit, memory, place) });
        Ok::<_, Refusal>(accept)
    };
    match answer.await {
        Ok(accept) => upgraded(accept),
        Err(refusal) => {
            let is_no_websocket = refusal.status == StatusCode::UPGRADE_REQUIRED;
            let mut response = Refusal::into_response(refusal);
            if is_no_websocket {
                let fields = response.headers_mut();
                fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
                fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            response
        }
    }
}

fn upgraded(accept: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// What shows the client that its request for a WebSocket was understood (RFC 6455, 4.2.2).
fn accept_key(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if *method != Method::GET || !asks_for_websocket(headers) || version != Some(b"13") {
        let words = "this is a WebSocket; valid is a GET with Upgrade: websocket, Connection: Upgrade \
                     and Sec-WebSocket-Version: 13 (/stream follows without one)";
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, words));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    // Sixteen bytes in base64.
    let key = keys.next().filter(|key| key.len() == 24 && key.as_bytes().ends_with(b"=="));
    let (Some(key), None) = (key, keys.next()) else {
        let words = "Sec-WebSocket-Key: not valid; valid are 16 bytes in base64, once";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
    };
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| stopping())
}

impl Session {
    /// Serves it to its end, on a connection from which `read` was read already. Told to stop, it says so
    /// and ends.
    pub(in crate::http) async fn run(
        mut self,
        socket: Arc<TcpStream>,
        read: Vec<u8>,
        mut stopping: watch::Receiver<()>,
    ) {
        let config = WebSocketConfig::default()
            .read_buffer_size(WEBSOCKET_BUFFER_BYTES)
            .write_buffer_size(WEBSOCKET_BUFFER_BYTES)
            .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX));
        let stream = Unblocked(Arc::clone(&socket));
        let mut websocket =
            WebSocket::from_partially_read(stream, read, Role::Server, Some(config));
        let reason = tokio::select! {
            biased;
            _ = stopping.changed() => "the node is stopping",
            ended = self.serve(&mut websocket, &socket) => match ended {
                Some(reason) => reason,
                None => return,
            },
        };
        let frame = CloseFrame { code: CloseCode::Away, reason: reason.into() };
        let _ = tokio::time::timeout(LINGER, close(&mut websocket, &socket, frame)).await;
    }

    /// Until it is over; `None`: there is nobody left to be told why.
    async fn serve(
        &mut self,
        websocket: &mut WebSocket<Unblocked>,
        socket: &TcpStream,
    ) -> Option<&'static str> {
        let first_ping = Instant::now() + FOLLOW_KEEP_ALIVE;
        let mut pings = tokio::time::interval_at(first_ping, FOLLOW_KEEP_ALIVE);
        let mut heard = Instant::now();
        let mut took = Instant::now();
        loop {
            let has_read = read(websocket)?;
            if has_read {
                heard = Instant::now();
            }
            let is_flushed = flush(websocket)?;
            if is_flushed {
                took = Instant::now();
            }
            let live = &mut self.live;
            let wanted = if is_flushed {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            tokio::select! {
                ready = socket.ready(wanted) => drop(ready.ok()?),
                piece = poll_fn(move |cx| live.poll_next(cx)), if is_flushed => {
                    let Some(piece) = piece else { return Some("the node is stopping") };
                    let mut hand_on = |frame: &str| queue(websocket, Message::text(frame));
                    if !self.lines.take(&piece, &mut hand_on) {
                        return None;
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > WEBSOCKET_SILENCE_MAX {
                        return None;
                    }
                    if is_flushed && !queue(websocket, Message::Ping(Vec::new().into())) {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(took + HTTP_WRITE_STALL_MAX), if !is_flushed => return None,
            }
        }
    }
}

/// Writes as much as there is room for, and keeps the rest for the next flush; `false`: the client is gone.
fn queue(websocket: &mut WebSocket<Unblocked>, message: Message) -> bool {
    match websocket.write(message) {
        Err(tungstenite::Error::Io(error)) => error.kind() == io::ErrorKind::WouldBlock,
        written => written.is_ok(),
    }
}

/// Takes what has come, a little at a time; whether there was something. `None`: the client is gone.
fn read(websocket: &mut WebSocket<Unblocked>) -> Option<bool> {
    for turn in 0..WEBSOCKET_READS_MAX {
        match websocket.read() {
            Ok(Message::Close(_)) => return None,
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Some(turn > 0);
            }
            Err(_) => return None,
        }
    }
    Some(true)
}

/// Whether all that was written is handed to the system. `None`: the client is gone.
fn flush(websocket: &mut WebSocket<Unblocked>) -> Option<bool> {
    match websocket.flush() {
        Ok(()) => Some(true),
        Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            Some(false)
        }
        Err(_) => None,
    }
}

/// Says that it is over, and waits for the client to say so too.
async fn close(websocket: &mut WebSocket<Unblocked>, socket: &TcpStream, frame: CloseFrame) {
    let mut closing = websocket.close(Some(frame));
    loop {
        let is_waiting = matches!(&closing, Err(tungstenite::Error::Io(error))
            if error.kind() == io::ErrorKind::WouldBlock);
        if !is_waiting && closing.is_err() {
            return;
        }
        let wanted =
            Interest::READABLE | if is_waiting { Interest::WRITABLE } else { Interest::READABLE };
        if socket.ready(wanted).await.is_err() {
            return;
        }
        if read(websocket).is_none() {
            let _ = websocket.flush();
            return;
        }
        closing = websocket.flush();
    }
}

/// A socket that never waits, as the library takes it.
struct Unblocked(Arc<TcpStream>);

impl io::Read for Unblocked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Unblocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From the lines of a follower to the texts of frames.
struct Lines {
    wanted: WantedEntries,
    /// The beginning of a line.
    begun: Vec<u8>,
    /// It is too long for an entry: what follows up to its end is passed over.
    is_passed: bool,
}

impl Lines {
    const fn new(wanted: WantedEntries) -> Self {
        Self { wanted, begun: Vec::new(), is_passed: false }
    }

    /// Takes a piece and hands on what is whole, until that is not wanted any longer: then `false`.
    fn take(&mut self, mut piece: &[u8], hand_on: &mut dyn FnMut(&str) -> bool) -> bool {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let begun = std::mem::take(&mut self.begun);
            let line = [&begun, &piece[..end]];
            piece = &piece[end + 1..];
            if std::mem::take(&mut self.is_passed) {
                continue;
            }
            let joined;
            let line = if begun.is_empty() {
                line[1]
            } else {
                joined = line.concat();
                &joined
            };
            if let Some(text) = self.text(line)
                && !hand_on(&text)
            {
                return false;
            }
        }
        if !self.is_passed {
            self.begun.extend_from_slice(piece);
        }
        if self.begun.len() > ENTRY_RECORD_BYTES_MAX {
            self.begun = Vec::new();
            self.is_passed = true;
        }
        true
    }

    /// What of a line the client gets.
    fn text<'a>(&self, line: &'a [u8]) -> Option<std::borrow::Cow<'a, str>> {
        if let Some(note) = line.strip_prefix(b"# missed ") {
            let note: serde_json::Value = serde_json::from_slice(note).ok()?;
            return Some(missed(&note["records"]).into());
        }
        let record = line.get(ULID_TEXT_LEN + 1..)?;
        self.wanted.admit(record).then(|| String::from_utf8_lossy(record))
    }
}

/// Tells how many were missed, in the form of an entry, so that it is shown where those are.
fn missed(records: &serde_json::Value) -> String {
    let words = format!("{records} entries were left out: this connection is too slow for them");
    let told = json!({
        "timestamp": rfc3339(now_ms()),
        "level": "warn",
        "message": words,
        "service": "oklogd",
        "missed": records,
    });
    told.to_string()
}
