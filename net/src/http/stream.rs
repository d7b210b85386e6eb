//! `GET /stream`: what is kept behind a ULID, then what is taken, as it is taken.
//!
//! Invariants: no gap and no copy between the two, because the replay ends right before the
//! follower's boundary (see [`crate::follow`]); where more came during the replay than the
//! follower's queue holds, another replay follows, up to another boundary. A reader that follows
//! live and is too slow is told what it missed and delays nobody; a stream ends with the node, or
//! with its client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Extension, State};
use bytes::Bytes;
use engine::follow::{StreamFormat, Wanted};
use engine::search::{Expression, ExpressionError};
use engine::ulid::Ulid;
use http_body::Frame;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, Uri};
use tokio::sync::oneshot;

use super::App;
use super::alive::Alive;
use super::answer::Refusal;
use super::client_stream::Flushes;
use super::compile::{compile, tries};
use super::drain::ClientAddress;
use super::ledger::Place;
use super::pipe_body::Incomplete;
use super::query::{patience, stopping};
use super::query_request::{ExpressionSource, QueryRequest};
use super::replay::{Replay, Step};
use crate::budget::Taken;
use crate::follow::Subscription;
use crate::limits::FOLLOW_KEEP_ALIVE;

/// `GET /stream`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<ClientAddress>,
    Extension(flushes): Extension<Arc<Flushes>>,
) -> Response<Body> {
    follow(&app, &uri, &headers, (client, flushes)).await.unwrap_or_else(Refusal::into_response)
}

async fn follow(
    app: &Arc<App>,
    uri: &Uri,
    headers: &HeaderMap,
    (client, flushes): (ClientAddress, Arc<Flushes>),
) -> Result<Response<Body>, Refusal> {
    // What is no text is no ULID either, and is refused as such.
    let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let request = QueryRequest::parse_stream(uri.query(), last_event, app.now())?;
    let format = format(headers);
    let place = app.ledger.lasting(client.0)?;
    let permit = app.ledger.followers.try_take(1)?;
    let (expression, memory) = compiled(app, &request.source).await?;
    let wanted = Wanted { expression, topics: request.topics };
    let (subscription, boundary) = app.backend.hub().subscribe(wanted.clone(), format);
    let boundary_ms = boundary.await.map_err(|_| stopping())?;
    let boundary_id = Ulid::last_of_ms(boundary_ms - 1).to_string();
    // Sets what a browser resumes behind, and is no event.
    let first = (format == StreamFormat::Sse && request.after.is_none())
        .then(|| format!("id: {boundary_id}\n\n").into_bytes());
    let phase = match request.after {
        None => Phase::Live,
        Some(after) => Phase::Replay(Replay::new(app, (wanted, format), after, boundary_ms)),
    };
    let asked = Alive::asked_for(headers, &app.options);
    let mut response = Response::new(Body::empty());
    if let Some(alive) = &asked {
        alive.promise(response.headers_mut());
    }
    let unasked = (format == StreamFormat::Sse).then(|| Alive::every(FOLLOW_KEEP_ALIVE));
    let alive = asked.or(unasked);
    let body = StreamBody {
        app: Arc::clone(app),
        format,
        first,
        phase,
        subscription,
        alive,
        half_closed: Some(Box::pin(async move { flushes.until_half_closed_for_long().await })),
        _held: (permit, memory, place),
    };
    *response.body_mut() = Body::new(body);
    let kind = match format {
        StreamFormat::Text => "text/plain; charset=utf-8",
        StreamFormat::Ndjson => "application/x-ndjson",
        StreamFormat::Sse => "text/event-stream",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // What a client that has seen no record yet resumes behind.
    if let Ok(boundary) = HeaderValue::try_from(boundary_id) {
        response.headers_mut().insert("x-oklog-after", boundary);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx, and what understands it, would hold back what comes until a buffer is full.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The expression and its memory.
async fn compiled(app: &App, source: &ExpressionSource) -> Result<(Expression, Taken), Refusal> {
    let until = patience(app).map(Into::into);
    let entry = &app.ledger.follower_expressions;
    for (size_max, cost) in tries(source) {
        // Others may be compiling, who give most of theirs back.
        let memory = entry.take(cost, until).await.map_err(|_| entry.refusal())?;
        let (memory, compiled) =
            compile((&app.ledger, until), source, size_max, Some(memory)).await;
        if let (Some(expression), Some(mut memory)) = (compiled?, memory) {
            memory.shrink_to(expression.memory_bytes() as u64);
            return Ok((app.backend.searcher().adopt(expression), memory));
        }
    }
    Err(source.refused(&ExpressionError::TooLarge).into())
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

/// Where a stream stands.
enum Phase {
    /// What is kept is sent first.
    Replay(Replay),
    /// It follows anew, because too much came meanwhile.
    Joining(Replay, oneshot::Receiver<u64>),
    /// What comes is sent.
    Live,
    /// Nothing is.
    Ended,
}

/// See the module page.
struct StreamBody {
    app: Arc<App>,
    format: StreamFormat,
    /// What is sent before anything else.
    first: Option<Vec<u8>>,
    phase: Phase,
    subscription: Subscription,
    alive: Option<Alive>,
    /// Ready when a client that has closed its side has to show whether it is gone.
    half_closed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _held: (Taken, Taken, Place),
}

impl StreamBody {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, Incomplete>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let queue = self.subscription.queue();
            match &mut self.phase {
                Phase::Replay(replay) => {
                    if queue.poll_ended(cx) {
                        return self.end();
                    }
                    // What was missed will be replayed, so what is queued is let go early.
                    let is_missing = queue.is_missing();
                    match replay.poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Step::Records(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                        Poll::Ready(Step::Broken) => {
                            self.phase = Phase::Ended;
                            return Poll::Ready(Some(Err(Incomplete)));
                        }
                        Poll::Ready(Step::End(note)) => {
                            self.leave_replay(is_missing);
                            if let Some(note) = note {
                                return Poll::Ready(Some(Ok(note)));
                            }
                        }
                    }
                }
                Phase::Joining(_, boundary) => match Pin::new(boundary).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return self.end(),
                    Poll::Ready(Ok(boundary_ms)) => self.replay_up_to(boundary_ms),
                },
                Phase::Live => match queue.poll_next(cx) {
                    Poll::Ready(None) => return self.end(),
                    Poll::Ready(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Poll::Pending => return Poll::Pending,
                },
                Phase::Ended => return Poll::Ready(None),
            }
        }
    }

    /// The replay is over: what was queued meanwhile comes next, unless it is not all there.
    fn leave_replay(&mut self, is_missing: bool) {
        let Phase::Replay(replay) = std::mem::replace(&mut self.phase, Phase::Live) else { return };
        if is_missing {
            let hub = self.app.backend.hub();
            let (subscription, boundary) = hub.subscribe(replay.wanted().clone(), self.format);
            self.subscription = subscription;
            self.phase = Phase::Joining(replay, boundary);
        }
    }

    fn replay_up_to(&mut self, boundary_ms: u64) {
        if let Phase::Joining(mut replay, _) = std::mem::replace(&mut self.phase, Phase::Live) {
            replay.go_on(boundary_ms);
            self.phase = Phase::Replay(replay);
        }
    }

    /// Notes may not stand inside a record.
    fn is_inside_a_record(&self) -> bool {
        matches!(&self.phase, Phase::Replay(replay) if replay.is_inside_a_record())
    }

    fn end(&mut self) -> Poll<Option<Result<Vec<u8>, Incomplete>>> {
        let is_broken = self.is_inside_a_record();
        self.phase = Phase::Ended;
        let note = self.format.note("end", "{\"reason\":\"the node is stopping\"}");
        Poll::Ready(Some(if is_broken { Err(Incomplete) } else { Ok(note) }))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        let polled = self.poll_bytes(cx);
        let is_asked =
            self.half_closed.as_mut().is_some_and(|closed| closed.as_mut().poll(cx).is_ready());
        if is_asked {
            self.half_closed = None;
            // Shows that it is alive at once, and from then on.
            let alive = self.alive.take().unwrap_or_else(|| Alive::every(FOLLOW_KEEP_ALIVE));
            self.alive = Some(alive.at_once());
        }
        let (format, may_speak) = (self.format, !self.is_inside_a_record());
        if let Some(alive) = self.alive.as_mut().filter(|_| may_speak) {
            if polled.is_ready() {
                alive.spoke();
            } else if alive.poll_due(cx).is_ready() {
                let sign = match format {
                    StreamFormat::Sse => b": alive\n\n".to_vec(),
                    StreamFormat::Text | StreamFormat::Ndjson => format.note("alive", "{}"),
                };
                return Poll::Ready(Some(Ok(Frame::data(sign.into()))));
            }
        }
        polled.map(|bytes| bytes.map(|bytes| bytes.map(|bytes| Frame::data(bytes.into()))))
    }
}
