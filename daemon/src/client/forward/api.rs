//! `/metrics` and `/health` of a forwarder.
//!
//! Invariants: a bounded number of connections, each with a bounded head and time for it; nothing
//! else is answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::search::format::rfc3339;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use net::limits::{ACCEPT_PAUSE, HTTP_BUFFER_BYTES_MAX, HTTP_HEAD_TIMEOUT, HTTP_HEADERS_MAX};
use net::metrics::Exposition;
use net::wall_clock::now_ms;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::limits::FORWARD_HTTP_CONNECTIONS_MAX;
use super::metrics::ForwardMetrics;
use super::queue::PieceQueue;

/// Longest life of a connection: nothing that is served takes long.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);

/// Serves for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    queue: Arc<PieceQueue>,
    metrics: Arc<ForwardMetrics>,
) {
    let slots = Arc::new(Semaphore::new(FORWARD_HTTP_CONNECTIONS_MAX));
    let mut is_failing = false;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Told once: the next connection shows whether it is over.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the listener of --api cannot accept: trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut is_failing) {
            tracing::info!("the listener of --api accepts again");
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (queue, metrics) = (Arc::clone(&queue), Arc::clone(&metrics));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(&request, &queue, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .half_close(true)
                .header_read_timeout(Some(HTTP_HEAD_TIMEOUT))
                .max_headers(HTTP_HEADERS_MAX)
                .max_buf_size(HTTP_BUFFER_BYTES_MAX)
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service);
            // How a scraper's connection ends is its own business.
            let _ = tokio::time::timeout(CONNECTION_AGE_MAX, connection).await;
            drop(slot);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    queue: &PieceQueue,
    metrics: &ForwardMetrics,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let is_known = matches!(path, "/metrics" | "/health");
    let (status, kind, body) = if is_known
        && !matches!(*request.method(), Method::GET | Method::HEAD)
    {
        (StatusCode::METHOD_NOT_ALLOWED, "application/json", json!({"error": "method"}).to_string())
    } else if path == "/metrics" {
        let accept = request.headers().get_all(ACCEPT).iter();
        let form = Exposition::asked_for(accept.filter_map(|value| value.to_str().ok()));
        (StatusCode::OK, form.content_type(), form.of(metrics.encode()))
    } else if path == "/health" {
        (StatusCode::OK, "application/json", health(queue, metrics))
    } else {
        (StatusCode::NOT_FOUND, "application/json", json!({"error": "not found"}).to_string())
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn health(queue: &PieceQueue, metrics: &ForwardMetrics) -> String {
    let mut reasons = queue.reasons();
    if metrics.connected.get() == 0 {
        reasons.push("there is no connection to an ingester".to_owned());
    }
    let status = if reasons.is_empty() { "ok" } else { "degraded" };
    json!({
        "status": status,
        "service": "oklogd",
        "timestamp": rfc3339(now_ms()),
        "reasons": reasons,
    })
    .to_string()
}
