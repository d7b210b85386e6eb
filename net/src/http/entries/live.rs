//! `GET /ws/live`: entries as they are taken, one in each text frame of a WebSocket (RFC 6455).
//!
//! The request is answered like any other; the session that it asks for is left with the connection, which
//! turns to it once the answer is out. A session takes from its follower's queue only when all that it wrote
//! before has been handed to the system, so what a slow client does not take waits there, bounded, and what
//! does not fit is counted and told to it in a frame of its own.
//!
//! Invariants: nobody waits for a client; a client that takes nothing for as long as an answer may wait, or
//! does not answer pings, or sends more than nothing at all needs, is let go of; what it sends is not looked at; the exact form of an entry and what
//! the client asked of it are checked here, for followers share one search for what leads to them.

use std::future::poll_fn;
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
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use super::wanted::WantedEntries;
use super::websocket::{
    Next, Turn, Unblocked, close, count_anew, is_flooded, opened, queue, turn, wait,
};
use crate::backend::{Following, Live};
use crate::http::App;
use crate::http::admission::Client;
use crate::http::answer::Refusal;
use crate::http::parameters::{Known, Parameters};
use crate::http::query::stopping;
use crate::http::sites::asks_for_websocket;
use crate::http::stream::{compiled, refused};
use crate::limits::{
    ENTRY_RECORD_BYTES_MAX, FOLLOW_KEEP_ALIVE, HTTP_WRITE_STALL_MAX, LINGER, WEBSOCKET_SILENCE_MAX,
};
use crate::wall_clock::now_ms;

/// Why a session ends, as its client is told.
type Reason = (CloseCode, &'static str);

const STOPPING: Reason = (CloseCode::Away, "the node is stopping");
const WITHDRAWN: Reason =
    (CloseCode::Policy, "the token of this connection was changed or taken away");
const FLOODED: Reason =
    (CloseCode::Policy, "more than 64 KiB were sent within 15 s; nothing is looked at here");

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
    _held: Box<dyn Send>,
}

/// `GET /ws/live`.
pub(in crate::http) async fn live(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
    Extension(slot): Extension<Arc<SessionSlot>>,
) -> Response<Body> {
    let answer = async {
        let accept = accept_key(&method, &headers)?;
        let wanted = WantedEntries::read(&Parameters::parse(uri.query(), LIVE)?)?;
        let topics = vec![app.options.log_topic.clone()];
        let reader = app.backend.reader(&client.access)?;
        client.access.require_reading(&topics)?;
        let place = app.ledger.lasting(client.address)?;
        let permit = app.ledger.followers.try_take(1)?;
        let (chain, memory) = compiled(&app, &wanted.leading()?).await?;
        let followed = Wanted { chain, topics, is_discreet: false };
        let following = reader.follow(followed, StreamFormat::Text);
        let Following { live, boundary_ms } = following.map_err(refused)?;
        // What is sent once the client knows of its connection comes.
        boundary_ms.await.ok_or_else(stopping)?;
        slot.leave(Session {
            live,
            lines: Lines::new(wanted),
            _held: Box::new((permit, memory, place)),
        });
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
    /// Serves it to its end, on a connection from which `read` was read already. Told to stop, or once what it
    /// was let in with is withdrawn, it says so and ends.
    pub(in crate::http) async fn run(
        mut self,
        socket: Arc<TcpStream>,
        read: Vec<u8>,
        mut stopping: watch::Receiver<()>,
        withdrawn: impl Future<Output = ()>,
    ) {
        let mut websocket = opened(Arc::clone(&socket), read);
        let reason = tokio::select! {
            biased;
            _ = stopping.changed() => STOPPING,
            () = withdrawn => WITHDRAWN,
            ended = self.serve(&mut websocket, &socket) => match ended {
                Some(reason) => reason,
                None => return,
            },
        };
        let frame = CloseFrame { code: reason.0, reason: reason.1.into() };
        let _ = tokio::time::timeout(LINGER, close(&mut websocket, &socket, frame)).await;
    }

    /// Until it is over; `None`: there is nobody left to be told why.
    async fn serve(
        &mut self,
        websocket: &mut WebSocket<Unblocked>,
        socket: &TcpStream,
    ) -> Option<Reason> {
        let first_ping = Instant::now() + FOLLOW_KEEP_ALIVE;
        let mut pings = tokio::time::interval_at(first_ping, FOLLOW_KEEP_ALIVE);
        let mut heard = Instant::now();
        let mut took = Instant::now();
        let mut is_flushed = true;
        loop {
            let Turn { has_taken, has_sent, next } = turn(websocket).await?;
            if is_flooded(websocket) {
                return Some(FLOODED);
            }
            // While it took nothing it was not read from: that it takes shows as well that it is there.
            if has_sent || (has_taken && !is_flushed) {
                heard = Instant::now();
            }
            if has_taken {
                took = Instant::now();
            }
            is_flushed = next != Next::Room;
            let live = &mut self.live;
            tokio::select! {
                ready = wait(socket, next) => ready.ok()?,
                piece = poll_fn(move |cx| live.poll_next(cx)), if is_flushed => {
                    let Some(piece) = piece else { return Some(STOPPING) };
                    let mut hand_on = |frame: &str| queue(websocket, Message::text(frame));
                    if !self.lines.take(&piece, &mut hand_on) {
                        return None;
                    }
                }
                _ = pings.tick() => {
                    count_anew(websocket);
                    if is_flushed && heard.elapsed() > WEBSOCKET_SILENCE_MAX {
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::task::{Context, Poll};

    use super::*;
    use crate::limits::{WEBSOCKET_SENT_BYTES_MAX, WEBSOCKET_TURN_BYTES};

    /// Of a log to which nothing comes.
    struct Silent;

    impl Live for Silent {
        fn poll_next(&self, _: &Context<'_>) -> Poll<Option<Vec<u8>>> {
            Poll::Pending
        }

        fn poll_ended(&self, _: &Context<'_>) -> bool {
            false
        }

        fn is_missing(&self) -> bool {
            false
        }
    }

    fn session() -> Session {
        let lines = Lines::new(WantedEntries::default());
        Session { live: Box::new(Silent), lines, _held: Box::new(()) }
    }

    /// The beginning of a text that goes on.
    const BEGUN: &[u8] = &[0x01, 0x80, 0, 0, 0, 0];
    /// A piece of it with nothing in it.
    const EMPTY: &[u8] = &[0x00, 0x80, 0, 0, 0, 0];

    fn ping() -> Vec<u8> {
        [&[0x89, 0x80 | 0x7D, 0, 0, 0, 0][..], &[b'p'; 125]].concat()
    }

    /// Sends the frame over and over until that is as much or it is hung up on; how much it was.
    fn flood(stream: &mut std::net::TcpStream, frame: &[u8], bytes: usize) -> usize {
        let (piece, mut sent) = (frame.repeat(600), 0);
        if frame == EMPTY {
            stream.write_all(BEGUN).unwrap();
        }
        while sent < bytes && stream.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        sent
    }

    /// Serves a client to its end; how often another had its turn meanwhile, and what the client saw.
    async fn served<T: Send + 'static>(
        is_stopping: bool,
        client: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
    ) -> (usize, T) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Arc::new(listener.accept().await.unwrap().0);
        let client = std::thread::spawn(move || client(stream));
        let (stop, stopping) = watch::channel(());
        if is_stopping {
            stop.send_replace(());
        }
        let mut turns = 0;
        let other = poll_fn(|cx| {
            turns += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        tokio::select! {
            biased;
            () = other => {}
            () = session().run(socket, Vec::new(), stopping, std::future::pending()) => {}
        }
        (turns, client.join().unwrap())
    }

    #[tokio::test]
    async fn a_client_that_floods_is_hung_up_on_and_others_have_their_turns() {
        for frame in [EMPTY.to_vec(), ping()] {
            for is_stopping in [false, true] {
                let bytes = 32 << 20;
                let frame = frame.clone();
                let client = move |mut stream| flood(&mut stream, &frame, bytes);
                let (turns, sent) = served(is_stopping, client).await;
                assert!(sent < bytes, "{sent} bytes were taken, stopping: {is_stopping}");
                let least = WEBSOCKET_SENT_BYTES_MAX / WEBSOCKET_TURN_BYTES;
                assert!(turns >= least, "{turns} turns, stopping: {is_stopping}");
            }
        }
    }

    #[tokio::test]
    async fn who_sends_too_much_is_told_so() {
        // A frame of its closing, unmasked: the code and the words.
        let close =
            [&[0x88, 2 + u8::try_from(FLOODED.1.len()).unwrap(), 0x03, 0xF0], FLOODED.1.as_bytes()]
                .concat();
        let mut told = vec![0; close.len()];
        let client = move |mut stream: std::net::TcpStream| {
            flood(&mut stream, EMPTY, WEBSOCKET_SENT_BYTES_MAX);
            stream.read_exact(&mut told).unwrap();
            told
        };
        let (_, told) = served(false, client).await;
        assert_eq!(told, close);
    }
}
