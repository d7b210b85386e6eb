//! Accepting connections and seeing them through.
//!
//! Invariants: at most so many connections at a time, each with a bounded head, head time and
//! buffers; told to stop, it accepts nothing more, lets open requests end, and drops what is left
//! after [`HTTP_DRAIN`]. An error of one connection never reaches another. An answer whose only end
//! is that of its connection (to HTTP/1.0, of unknown length) is either whole or ends with a reset,
//! also where the process does not live to see its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::{HttpService, service_fn};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::TokioTimer;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admission::{Client as Asking, LetIn, Peer, until_withdrawn};
use super::bad_head::{self, Ending};
use super::client_stream::{ClientStream, Flushes, until_gone};
use super::entries::SessionSlot;
use super::head_bytes::HeadAccount;
use super::proxies::Proxies;
use super::reserve::{Reserve, ReservePlace};
use super::router::{Front, router};
use super::{App, HttpOptions};
use crate::access::Access;
use crate::backend::Backend;
use crate::limits::{
    ACCEPT_PAUSE, HTTP_BUFFER_BYTES_MAX, HTTP_DRAIN, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, LINGER,
    LINGER_BYTES_MAX, RESERVE_SERVES,
};
use crate::metrics::NodeMetrics;
use crate::shard::accepting::is_accept_refused;

/// Serves until `stop` resolves and open requests have ended. To be run on a single-threaded
/// tokio runtime. Requests and connections are counted in `metrics`.
pub async fn serve(
    listener: TcpListener,
    (backend, metrics): (Arc<dyn Backend>, Arc<NodeMetrics>),
    options: HttpOptions,
    stop: impl Future<Output = ()>,
) {
    let is_loopback =
        listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let app = Arc::new(App::new(backend, metrics, options.clone()));
    let front = Front::new(router(&app), Arc::clone(&options.sites), is_loopback);
    let accepted = app.metrics.connections("http");
    let (stop_connections, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    // Refused for want of descriptors or memory: told once, until it works again.
    let mut is_refused = false;
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, address, reserve_place) = match stream {
            Ok((stream, address)) => {
                is_refused = false;
                (stream, address, None)
            }
            Err(error) if is_accept_refused(&error) => {
                if !std::mem::replace(&mut is_refused, true) {
                    tracing::warn!(
                        "cannot accept HTTP connections: {error}; tried again until it works, and \
                         one at a time is answered meanwhile"
                    );
                }
                match accept_on(&options.reserve, &listener).await {
                    Some((stream, address, place)) => (stream, address, Some(place)),
                    None => continue,
                }
            }
            Err(_) => continue,
        };
        accepted.inc();
        let place = match app.ledger.connection(address.ip()) {
            Ok(place) => place,
            Err(refusal) => {
                // A send buffer that is still empty takes it; otherwise closing says enough.
                let _ = stream.try_write(refusal.closing().as_bytes());
                continue;
            }
        };
        let (front, stopping) = (front.clone(), stopping.clone());
        let heads = HeadAccount::new(&app.ledger);
        let client = Client {
            address: address.ip(),
            idle_timeout: options.idle_timeout,
            heads,
            may_stay: reserve_place.is_none(),
            app: Arc::clone(&app),
        };
        connections.spawn(async move {
            let patience = if client.may_stay { Duration::MAX } else { RESERVE_SERVES };
            // Cut off: the answer has no end, and its client sees that.
            let _ =
                tokio::time::timeout(patience, connection(stream, client, front, stopping)).await;
            drop((place, reserve_place));
        });
    }
    drop(listener);
    drop(stop_connections);
    let_end(connections).await;
}

/// Waits for open requests, as long as they may take.
async fn let_end(mut connections: JoinSet<()>) {
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(HTTP_DRAIN, drained).await.is_err() {
        tracing::warn!(left = connections.len(), "HTTP requests were cut off at shutdown");
    }
}

/// Accepts a connection in place of the reserved descriptor. `None`: there is nobody, or nothing to
/// accept with, which is waited for.
async fn accept_on(
    reserve: &Reserve,
    listener: &TcpListener,
) -> Option<(TcpStream, SocketAddr, ReservePlace)> {
    if let Some(place) = reserve.give() {
        // At once: what is free is anybody's.
        let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        });
        match accepted.await {
            Some(Ok((stream, address))) => return Some((stream, address, place)),
            None => return None,
            Some(Err(_)) => {}
        }
    } else {
        reserve.refill_if_lost();
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
    None
}

/// Who is at the other end, and how long it may be silent.
struct Client {
    address: IpAddr,
    idle_timeout: Duration,
    heads: HeadAccount,
    /// Whether it may ask for more than one thing.
    may_stay: bool,
    app: Arc<App>,
}

/// What the requests of one connection share. Clones are the same.
#[derive(Clone)]
struct Requests {
    front: Front,
    /// Of the other end, be it a proxy.
    address: IpAddr,
    proxies: Arc<Proxies>,
    heads: Arc<HeadAccount>,
    socket: Arc<TcpStream>,
    flushes: Arc<Flushes>,
    session: Arc<SessionSlot>,
    /// Where it is noted what a request was let in with; `None`: everybody may do everything.
    let_in: Option<Arc<LetIn>>,
}

impl Requests {
    /// Answers one of them, whose head is whole.
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let address = self.proxies.client(self.address, request.headers());
        let peer = self.address;
        request.extensions_mut().insert(self.flushes);
        request.extensions_mut().insert(self.session);
        if let Some(let_in) = &self.let_in {
            request.extensions_mut().insert(Peer { address, peer });
            request.extensions_mut().insert(Arc::clone(let_in));
        } else {
            let access = Access::everything();
            request.extensions_mut().insert(Asking { address, peer, access });
        }
        let asks_head = request.method() == Method::HEAD;
        let is_old = request.version() < Version::HTTP_11 && !asks_head;
        let response = self.front.answer(request.map(Body::new)).await;
        if is_old && response.body().size_hint().exact().is_none() {
            reset_at_close(&self.socket, true);
        }
        self.heads.served();
        Ok(response)
    }
}

async fn connection(
    stream: TcpStream,
    client: Client,
    front: Front,
    stopping: watch::Receiver<()>,
) {
    // Answers are written in large pieces; the last must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let flushes = Arc::new(Flushes::default());
    let session = Arc::new(SessionSlot::default());
    let heads = Arc::new(client.heads);
    let authority = &client.app.options.authority;
    let let_in = Arc::new(LetIn::default());
    let socket = Arc::new(stream);
    let stream = ClientStream::new(Arc::clone(&socket), Arc::clone(&flushes), Arc::clone(&heads));
    let requests = Requests {
        front,
        address: client.address,
        proxies: Arc::clone(&client.app.options.proxies),
        heads,
        socket: Arc::clone(&socket),
        flushes: Arc::clone(&flushes),
        session: Arc::clone(&session),
        let_in: (!client.app.is_open()).then(|| Arc::clone(&let_in)),
    };
    let service = service_fn(move |request| {
        requests.flushes.serve();
        requests.heads.serve();
        Box::pin(requests.clone().answer(request))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(client.may_stay)
        .header_read_timeout(Some(client.idle_timeout))
        .max_headers(HTTP_HEADERS_MAX)
        .max_header_size(HTTP_HEAD_BYTES_MAX)
        .max_buf_size(HTTP_BUFFER_BYTES_MAX)
        // A client that has closed its side may still wait for its answer.
        .half_close(true)
        .serve_connection(stream, service);
    let ended = tokio::select! {
        biased;
        ended = see_through(connection, stopping.clone()) => ended,
        // With it goes the query behind its answer.
        () = until_gone(&socket, &flushes) => return,
        // What was sent of an answer has no end, so nobody takes it for whole.
        () = until_withdrawn(authority, &let_in) => {
            client.app.metrics.access.withdrawn.inc();
            return;
        }
    };
    if ended.error.is_none()
        && let Some(session) = session.take()
    {
        let withdrawn = async {
            until_withdrawn(authority, &let_in).await;
            client.app.metrics.access.withdrawn.inc();
        };
        return session.run(socket, ended.read.into(), stopping, withdrawn).await;
    }
    if let Some(answer) = last_words(ended, &socket) {
        // Nothing is unsent before it, so it finds room; if not, closing says enough.
        let _ = socket.try_write(answer.as_bytes());
    }
    if !resets_at_close(&socket) {
        linger(&socket).await;
    }
}

/// How HTTP on a connection ended, and what stands in its buffer.
struct Ended {
    error: Option<hyper::Error>,
    stream: ClientStream,
    read: Bytes,
}

/// Serves a connection to its end; told to stop, it ends with the request under way.
async fn see_through<S>(
    mut connection: http1::Connection<ClientStream, S>,
    mut stopping: watch::Receiver<()>,
) -> Ended
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible> + Unpin,
    S::Future: Unpin,
{
    let mut told = false;
    let mut stop = std::pin::pin!(stopping.changed());
    let ended = poll_fn(|cx| {
        if !told && stop.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    // Drops what is left of the answer, and with it the query behind it.
    let Parts { io, read_buf, .. } = connection.into_parts();
    Ended { error: ended.err(), stream: io, read: read_buf }
}

/// What is still to be said on a connection.
fn last_words(ended: Ended, socket: &TcpStream) -> Option<String> {
    let Ended { error, stream, read } = ended;
    match &error {
        Some(error) => tracing::debug!(%error, "HTTP connection ended early"),
        None => reset_at_close(socket, false),
    }
    let words = error.as_ref().map(ToString::to_string);
    let is_late = error.is_some_and(|error| error.is_timeout());
    bad_head::answer(Ending {
        refusal: stream.refusal(),
        status: stream.held_back(),
        error: words.as_deref(),
        // An idle connection is closed without a word; behind half an answer nothing can be said.
        head_is_late: is_late && !read.is_empty() && !stream.is_stalled(),
    })
}

/// Whether closing the connection, be it by the end of the process, is to be a reset.
fn reset_at_close(socket: &TcpStream, resets: bool) {
    // A socket that refuses it is gone.
    let _ = SockRef::from(socket).set_linger(resets.then_some(Duration::ZERO));
}

fn resets_at_close(socket: &TcpStream) -> bool {
    SockRef::from(socket).linger().is_ok_and(|linger| linger.is_some())
}

/// Closes a connection whose client may still be sending, so that it can read the answer: closed
/// at once, the system would answer what comes with a reset, and that discards the answer.
async fn linger(socket: &TcpStream) {
    let read_out = async {
        SockRef::from(socket).shutdown(Shutdown::Write)?;
        let (mut left, mut sink) = (LINGER_BYTES_MAX, vec![0; 16 << 10]);
        while left > 0 {
            socket.readable().await?;
            match socket.try_read(&mut sink) {
                Ok(0) => break,
                Ok(bytes) => {
                    left = left.saturating_sub(bytes as u64);
                    // However fast it sends, others have their turns.
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok::<(), io::Error>(())
    };
    // A client that is gone, or that goes on sending, has had its chance.
    let _ = tokio::time::timeout(LINGER, read_out).await;
}
