//! Signs of life of an answer that has nothing to say, for clients that ask for them (`X-Oklog-Alive`).
//!
//! Whoever waits for a search that finds nothing cannot tell it from a server that is no more. So the
//! head of such an answer goes out early, and from then on something comes at least this often.
//!
//! Invariants: nothing is sent that was not asked for; a sign never stands inside a record.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use tokio::time::{Instant, Sleep};

use super::HttpOptions;
use super::answer::Refusal;
use super::pipe_body::Incomplete;
use crate::limits::PIN_WITHIN;

/// Asks for signs of life; in an answer: seconds within which one comes.
pub(super) const ALIVE: HeaderName = HeaderName::from_static("x-oklog-alive");

/// In the answer of `/health`: seconds within which the head of any answer comes that has signs of life.
pub(super) const HEAD_WITHIN: HeaderName = HeaderName::from_static("x-oklog-head-within");

/// What a head takes beside the waits that are known: time to compile and to plan.
const HEAD_MARGIN: Duration = Duration::from_secs(2);

/// Within which time a head comes: a query waits for its turn, for memory, for those who hold records
/// in memory, then for its first result.
pub(super) fn head_within(options: &HttpOptions) -> HeaderValue {
    let waits = 2 * options.query_turn_wait + PIN_WITHIN + options.alive_interval;
    let within = waits + HEAD_MARGIN;
    seconds(within)
}

/// Full ones, and no fewer than it is.
fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_millis().div_ceil(1000) as u64)
}

/// Tells when a silent answer has to show that it is there.
pub(super) struct Alive {
    every: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Alive {
    /// So often, from now on.
    pub(super) fn every(every: Duration) -> Self {
        Self { every, timer: Box::pin(tokio::time::sleep(every)) }
    }

    /// If the request asks for it: by the header as it is, or as a switch that is on.
    pub(super) fn asked_for(headers: &HeaderMap, options: &HttpOptions) -> Option<Self> {
        let value = headers.get(ALIVE)?.as_bytes();
        [&b""[..], b"1", b"true"].contains(&value).then(|| Self::every(options.alive_interval))
    }

    /// The same, and the first one at once.
    pub(super) fn at_once(self) -> Self {
        Self { timer: Box::pin(tokio::time::sleep(Duration::ZERO)), ..self }
    }

    /// How often a sign comes.
    pub(super) const fn interval(&self) -> Duration {
        self.every
    }

    /// Says in the head what the client may rely on. What stands between must not hold signs back.
    pub(super) fn promise(&self, head: &mut HeaderMap) {
        head.insert(ALIVE, seconds(self.every));
        head.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }

    /// Something else was sent.
    pub(super) fn spoke(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.every);
    }

    /// Ready when a sign is to be sent, which is then taken as sent.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.timer.as_mut().poll(cx));
        self.spoke();
        Poll::Ready(())
    }
}

/// Awaits an answer of one JSON object. Where it takes its time, and signs of life are asked for, its head
/// goes out early; what would be refused then breaks off.
pub(super) async fn object(
    alive: Option<Alive>,
    answer: impl Future<Output = Result<Response<Body>, Refusal>> + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let Some(alive) = alive else { return answer.await };
    let mut answer = Box::pin(answer);
    if let Ok(answered) = tokio::time::timeout(alive.interval(), &mut answer).await {
        return answered;
    }
    let mut response = Response::new(Body::empty());
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    alive.promise(head);
    let later = async move { answer.await.ok().map(Response::into_body) };
    *response.body_mut() = Body::new(Awaited::new(alive, later));
    Ok(response)
}

/// The body of an object of JSON whose head went out before the object was there: until then newlines,
/// which mean nothing before it.
pub(super) struct Awaited<F> {
    alive: Alive,
    object: Pin<Box<F>>,
    body: Option<Body>,
}

impl<F: Future<Output = Option<Body>>> Awaited<F> {
    /// `object` becomes what follows; `None`: nothing can.
    pub(super) fn new(alive: Alive, object: F) -> Self {
        Self { alive, object: Box::pin(object), body: None }
    }
}

impl<F: Future<Output = Option<Body>>> http_body::Body for Awaited<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.body.is_none() {
            match this.object.as_mut().poll(cx) {
                Poll::Ready(Some(body)) => this.body = Some(body),
                Poll::Ready(None) => {
                    return Poll::Ready(Some(Err(axum::Error::new(Incomplete))));
                }
                Poll::Pending => {
                    ready!(this.alive.poll_due(cx));
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\n")))));
                }
            }
        }
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sign_is_due_when_nothing_was_said_for_the_time() {
        let start = Instant::now();
        let every = Duration::from_secs(3);
        let mut alive = Alive::every(every);
        tokio::time::advance(Duration::from_secs(2)).await;
        alive.spoke();
        for signs in 1..4 {
            std::future::poll_fn(|cx| alive.poll_due(cx)).await;
            assert_eq!(start.elapsed().as_secs(), 2 + 3 * signs);
        }
        let mut alive = Alive::every(every).at_once();
        let start = Instant::now();
        std::future::poll_fn(|cx| alive.poll_due(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 0);
    }

    #[test]
    fn only_who_asks_is_told() {
        let options = HttpOptions::default();
        let asked = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            value.map(|value| headers.insert(ALIVE, HeaderValue::from_static(value)));
            headers.get(ALIVE).is_some() && {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                runtime.unwrap().block_on(async { Alive::asked_for(&headers, &options).is_some() })
            }
        };
        for (value, expected) in [
            (None, false),
            (Some("0"), false),
            (Some("false"), false),
            (Some(""), true),
            (Some("1"), true),
            (Some("true"), true),
        ] {
            assert_eq!(asked(value), expected, "{value:?}");
        }
    }
}
