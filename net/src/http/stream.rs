//! `GET /stream`: what is kept behind a ULID, then what is taken, as it is taken.
//!
//! Invariants: no gap and no copy between the two, because the replay ends right before the
//! follower's boundary (see [`crate::follow`]); a reader that is too slow is told what it missed
//! and delays nobody; a stream ends with the node, or with its client.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Extension, State};
use bytes::Bytes;
use engine::follow::{Filter, StreamFormat};
use engine::search::{Format, Order, PipeReader, QuerySpec};
use engine::ulid::Ulid;
use http_body::Frame;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode, Uri};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::App;
use super::answer::Refusal;
use super::drain::ClientAddress;
use super::lasting::LastingPlace;
use super::pipe_body::QueryWatch;
use super::query::{begin, compile, stopping};
use super::query_request::QueryRequest;
use crate::follow::Subscription;
use crate::limits::{FOLLOW_KEEP_ALIVE, FOLLOWERS_MAX};

/// `GET /stream`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<ClientAddress>,
) -> Response<Body> {
    follow(&app, &uri, &headers, client).await.unwrap_or_else(Refusal::into_response)
}

async fn follow(
    app: &App,
    uri: &Uri,
    headers: &HeaderMap,
    client: ClientAddress,
) -> Result<Response<Body>, Refusal> {
    let last_event = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let request = QueryRequest::parse_stream(uri.query(), last_event, app.now_ms())?;
    let format = format(headers);
    let place = app.lasting.enter(client.0)?;
    let Ok(permit) = Arc::clone(&app.followers).try_acquire_owned() else {
        let words = format!("{FOLLOWERS_MAX} followers are here, which is as many as may");
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, words).retry_later());
    };
    let expression = compile(&request).await?;
    let memory = app.follow_memory.try_take(expression.memory_bytes()).map_err(|_| {
        let words = "q: the expressions of followers hold as much memory as they may";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, words).retry_later()
    })?;
    let filter = Filter { expression: expression.clone(), topics: request.topics.clone() };
    let (subscription, boundary) = app.backend.hub().subscribe(filter, format);
    let boundary_ms = boundary.await.map_err(|_| stopping())?;
    let replay = match request.after {
        None => None,
        Some(after) => {
            let watch = begin(app, "replay").await?;
            let spec = QuerySpec {
                from: Ulid::MIN,
                to: Ulid::last_of_ms(boundary_ms - 1),
                after: Some(after),
                expression,
                topics: request.topics.clone(),
                order: Order::Asc,
                limit: None,
            };
            // Pinned behind the boundary: everything before it is in here.
            let snapshot = app.backend.pin().await;
            let kind = if format == StreamFormat::Text { Format::Text } else { Format::Ndjson };
            let reader = app.backend.searcher().query(spec, snapshot, kind);
            Some(Replay { reader, watch, line: Vec::new() })
        }
    };
    let keep_alive =
        (format == StreamFormat::Sse).then(|| Box::pin(tokio::time::sleep(FOLLOW_KEEP_ALIVE)));
    let body = StreamBody {
        format,
        replay,
        subscription,
        keep_alive,
        ended: false,
        _held: (permit, memory, place),
    };
    let mut response = Response::new(Body::new(body));
    let kind = match format {
        StreamFormat::Text => "text/plain; charset=utf-8",
        StreamFormat::Ndjson => "application/x-ndjson",
        StreamFormat::Sse => "text/event-stream",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // What a client that has seen no record yet resumes behind.
    if let Ok(boundary) = HeaderValue::try_from(Ulid::last_of_ms(boundary_ms - 1).to_string()) {
        response.headers_mut().insert("x-oklog-after", boundary);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn format(headers: &HeaderMap) -> StreamFormat {
    let kinds = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = kinds.flat_map(|text| text.split(','));
    for kind in kinds {
        match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/event-stream" => return StreamFormat::Sse,
            "application/x-ndjson" => return StreamFormat::Ndjson,
            _ => {}
        }
    }
    StreamFormat::Text
}

/// What was kept before.
struct Replay {
    reader: PipeReader,
    watch: QueryWatch,
    /// A line of NDJSON that has not ended.
    line: Vec<u8>,
}

impl Replay {
    /// The next bytes, or the end with what is to be told about it.
    fn poll(
        &mut self,
        format: StreamFormat,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<u8>, Option<Vec<u8>>>> {
        let Poll::Ready(piece) = self.reader.poll_next(cx) else { return Poll::Pending };
        let Some(piece) = piece else {
            let outcome = self.reader.outcome().unwrap_or_default();
            self.watch.count(&outcome.stats);
            let is_whole = outcome.stats.complete && !outcome.aborted;
            let object = format!("{{\"missing_count\":{}}}", outcome.stats.missing_count);
            return Poll::Ready(Err((!is_whole).then(|| format.note("incomplete", &object))));
        };
        if format == StreamFormat::Text {
            return Poll::Ready(Ok(piece));
        }
        self.line.extend_from_slice(&piece);
        let mut out = Vec::with_capacity(self.line.len());
        let mut done = 0;
        for lf in memchr::memchr_iter(b'\n', &self.line) {
            let line = &self.line[done..=lf];
            done = lf + 1;
            // The query's own last line: the stream goes on.
            let Some(id) = line.strip_prefix(b"{\"ulid\":\"") else { continue };
            if format == StreamFormat::Sse {
                let id = id.get(..26).unwrap_or_default();
                out.extend_from_slice(&[b"id: ", id, b"\ndata: "].concat());
            }
            out.extend_from_slice(line);
            if format == StreamFormat::Sse {
                out.push(b'\n');
            }
        }
        self.line.drain(..done);
        Poll::Ready(Ok(out))
    }
}

/// See the module page.
struct StreamBody {
    format: StreamFormat,
    replay: Option<Replay>,
    subscription: Subscription,
    keep_alive: Option<Pin<Box<Sleep>>>,
    ended: bool,
    _held: (OwnedSemaphorePermit, OwnedSemaphorePermit, LastingPlace),
}

impl StreamBody {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        while let Some(replay) = &mut self.replay {
            match replay.poll(self.format, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => {}
                Poll::Ready(Ok(bytes)) => return Poll::Ready(Some(bytes)),
                Poll::Ready(Err(note)) => {
                    self.replay = None;
                    if note.is_some() {
                        return Poll::Ready(note);
                    }
                }
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match self.subscription.queue().poll_next(cx) {
            Poll::Ready(None) => {
                self.ended = true;
                let end = self.format.note("end", "{\"reason\":\"the node is stopping\"}");
                Poll::Ready(Some(end))
            }
            other => other,
        }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = self.poll_bytes(cx);
        let Some(keep_alive) = &mut self.keep_alive else {
            return polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes.into()))));
        };
        if polled.is_ready() {
            keep_alive.as_mut().reset(Instant::now() + FOLLOW_KEEP_ALIVE);
        } else if keep_alive.as_mut().poll(cx).is_ready() {
            keep_alive.as_mut().reset(Instant::now() + FOLLOW_KEEP_ALIVE);
            // To be polled again for the new deadline.
            cx.waker().wake_by_ref();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": alive\n\n")))));
        }
        polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes.into()))))
    }
}
