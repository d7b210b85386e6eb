//! A body that is in memory as a whole, and stays counted until its client has taken it.
//!
//! Invariants: what it holds goes when its last piece does, or when it is dropped; a piece is a copy,
//! so that no piece that waits in the connection keeps the whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::limits::HELD_PIECE_BYTES;

/// Bytes, and what is held for them: a place among queries, say, and a part of their memory.
pub(super) struct With<T>(pub(super) Vec<u8>, pub(super) T);

impl<T> AsRef<[u8]> for With<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// See the module page.
struct Held<S> {
    source: Option<S>,
    taken: usize,
}

/// An answer whose body is `source`, which is dropped once it is taken.
pub(super) fn answer<S>(status: StatusCode, kind: &'static str, source: S) -> Response<Body>
where
    S: AsRef<[u8]> + Unpin + Send + 'static,
{
    let mut response = Response::new(Body::new(Held { source: Some(source), taken: 0 }));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// One JSON object and a newline, with 200.
pub(super) fn json<T>(object: &serde_json::Value, held: T) -> Response<Body>
where
    T: Unpin + Send + 'static,
{
    let bytes = format!("{object}\n").into_bytes();
    answer(StatusCode::OK, "application/json", With(bytes, held))
}

impl<S: AsRef<[u8]>> Held<S> {
    fn left(&self) -> &[u8] {
        self.source.as_ref().map_or(&[], |source| &source.as_ref()[self.taken..])
    }
}

impl<S: AsRef<[u8]> + Unpin> http_body::Body for Held<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.left();
        let len = left.len().min(HELD_PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&left[..len]);
        let is_last = len == left.len();
        self.taken += len;
        if is_last {
            self.source = None;
        }
        Poll::Ready((len > 0).then_some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left().len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use std::sync::Arc;
    use std::task::Waker;

    #[test]
    fn what_is_held_goes_with_the_last_piece() {
        let held = Arc::new(());
        let bytes: Vec<u8> = (0..3 * HELD_PIECE_BYTES - 5).map(|n| n as u8).collect();
        let source = Some(With(bytes.clone(), Arc::clone(&held)));
        let mut body = Held { source, taken: 0 };
        let mut got = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while !body.is_end_stream() {
            assert_eq!(Arc::strong_count(&held), 2);
            assert_eq!(body.size_hint().exact(), Some((bytes.len() - got.len()) as u64));
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
                panic!("a piece is there");
            };
            got.extend_from_slice(frame.data_ref().unwrap());
        }
        assert_eq!((Arc::strong_count(&held), got), (1, bytes));
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut context), Poll::Ready(None)));
    }
}
