//! Accepting connections and seeing them through.
//!
//! Invariants: at most so many connections at a time, each with a bounded head, head time and
//! buffers; told to stop, it accepts nothing more, lets open requests end, and drops what is left
//! after [`HTTP_DRAIN`]. An error of one connection never reaches another.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::router::{answer, router};
use super::{App, HttpOptions};
use crate::backend::Backend;
use crate::limits::{
    ACCEPT_PAUSE, HTTP_DRAIN, HTTP_HEADERS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_TIMEOUT,
};

/// Said to a connection too many.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
    Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nRetry-After: 1\r\n\
    Content-Length: 34\r\n\r\n{\"error\":\"too many connections\"}\r\n";

/// Serves until `stop` resolves and open requests have ended. To be run on a single-threaded
/// tokio runtime.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    options: HttpOptions,
    stop: impl Future<Output = ()>,
) {
    let app = Arc::new(App::new(backend, options));
    let router = router(&app);
    let metrics = Arc::clone(app.backend.metrics());
    let (connected, accepted, refused) = (
        metrics.connected_clients("http"),
        metrics.connections("http"),
        metrics.connections_refused("http"),
    );
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let (stop_connections, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        accepted.inc();
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            refused.inc();
            // A send buffer that is still empty takes it; otherwise closing says enough.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let (connected, router, stopping) = (connected.clone(), router.clone(), stopping.clone());
        connections.spawn(async move {
            connected.inc();
            connection(stream, router, stopping).await;
            connected.dec();
            drop(slot);
        });
    }
    drop(listener);
    drop(stop_connections);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(HTTP_DRAIN, drained).await.is_err() {
        tracing::warn!(left = connections.len(), "HTTP requests were cut off at shutdown");
    }
}

/// Accepting fails for want of descriptors or memory, or because a client is gone already: the
/// next try is not made at once.
async fn pause_after(error: &io::Error) {
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !gone.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept HTTP connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn connection(stream: TcpStream, router: axum::Router, mut stopping: watch::Receiver<()>) {
    // Answers are written in large pieces; the last must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            Ok::<Response<Body>, Infallible>(answer(router, request.map(Body::new)).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Some(HTTP_HEAD_TIMEOUT))
        .max_headers(HTTP_HEADERS_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended early");
    }
}
