//! The body of a request that brings entries, as a whole.
//!
//! Invariants: a body that has come with its head, as those of single entries do, is taken where it lies; any
//! other takes room in the ledger for all that it may become before a byte of it is kept, and has a bounded
//! time to come, so that nobody holds that room for long; one that hardly comes gives way as soon as others
//! wait for room, and is told so. An address has a share of the room, so that one with many slow bodies leaves
//! some to others. What is longer than it may be is refused as soon as
//! that is known.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use hyper::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::budget::Share;
use crate::http::answer::Refusal;
use crate::http::ledger::Shared;
use crate::http::records::next_piece;
use crate::limits::{
    ENTRIES_BODY_GRACE, ENTRIES_BODY_MAX, ENTRIES_BODY_RATE_MIN, ENTRIES_HELD_FACTOR,
    RECORDS_REQUEST_WAIT,
};

/// Which bodies are taken.
pub(super) struct Bounds<'a> {
    /// The longest, bytes.
    pub(super) bytes_max: usize,
    /// Where what is held for one is taken from.
    pub(super) room: &'a Shared,
    /// Who sends it.
    pub(super) address: IpAddr,
}

/// A body, and what is held for it and what is made of it, if that was taken.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) held: Option<Share>,
}

/// All of a body.
pub(super) async fn whole(
    headers: &HeaderMap,
    mut body: Body,
    bounds: &Bounds<'_>,
) -> Result<Whole, Refusal> {
    let declared = declared_bytes(headers)?;
    if declared.is_some_and(|bytes| bytes > bounds.bytes_max as u64) {
        return Err(too_large(bounds.bytes_max));
    }
    let until = Instant::now() + ENTRIES_BODY_MAX;
    let first = in_time(&mut body, until).await?.unwrap_or_default();
    if first.len() > bounds.bytes_max {
        return Err(too_large(bounds.bytes_max));
    }
    if body.is_end_stream() {
        return Ok(Whole { bytes: first, held: None });
    }
    let bytes_max = declared.map_or(bounds.bytes_max, |bytes| bytes as usize);
    let amount = (ENTRIES_HELD_FACTOR * bytes_max) as u64;
    let wait_until = Instant::now() + RECORDS_REQUEST_WAIT;
    let held = bounds.room.take(bounds.address, amount, Some(wait_until)).await?;
    // Who waits for room has had no time to send.
    let pace = Pace::from_now();
    let mut bytes = BytesMut::with_capacity(declared.map_or(first.len(), |_| bytes_max));
    bytes.extend_from_slice(&first);
    while let Some(piece) = pace.next(&mut body, bytes.len(), &held).await? {
        if bytes.len() + piece.len() > bounds.bytes_max {
            return Err(too_large(bounds.bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: bytes.freeze(), held: Some(held) })
}

/// How long it says it is. An error: it is compressed.
fn declared_bytes(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    for coding in codings.map(|value| value.to_str().unwrap_or("?").trim()) {
        if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
            let coding: String = coding.chars().take(40).collect();
            let words = format!(
                "Content-Encoding: {coding:?} is not valid for entries; valid is identity, or none"
            );
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
        }
    }
    Ok(headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()))
}

async fn in_time(body: &mut Body, until: Instant) -> Result<Option<Bytes>, Refusal> {
    timeout_at(until, next_piece(body)).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> Refusal {
    let seconds = ENTRIES_BODY_MAX.as_secs();
    let words = format!("the body did not come to its end within {seconds} s");
    Refusal::new(StatusCode::REQUEST_TIMEOUT, words)
}

/// How a body comes for which room is held.
struct Pace {
    since: Instant,
}

impl Pace {
    fn from_now() -> Self {
        Self { since: Instant::now() }
    }

    /// The next piece, behind so many bytes.
    async fn next(
        &self,
        body: &mut Body,
        bytes: usize,
        held: &Share,
    ) -> Result<Option<Bytes>, Refusal> {
        let until = self.since + ENTRIES_BODY_MAX;
        loop {
            let now = Instant::now();
            if is_behind(bytes, now - self.since) && held.is_waited_for() {
                let rate = ENTRIES_BODY_RATE_MIN;
                let words = format!(
                    "the body came at less than {rate} bytes a second, and others wait for its room: \
                     send it again, in smaller ones"
                );
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, words).retry_later());
            }
            match timeout_at(until.min(now + ENTRIES_BODY_GRACE), next_piece(body)).await {
                Ok(piece) => return piece,
                Err(_) if Instant::now() >= until => return Err(late()),
                Err(_) => {}
            }
        }
    }
}

/// Whether so many bytes in this time are too few for one for whom others wait.
fn is_behind(bytes: usize, time: Duration) -> bool {
    time >= ENTRIES_BODY_GRACE
        && (bytes as u128) < u128::from(ENTRIES_BODY_RATE_MIN) * time.as_millis() / 1_000
}

fn too_large(bytes_max: usize) -> Refusal {
    let words = format!("the body is longer than {bytes_max} bytes; send it in several requests");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;
    use crate::http::HttpOptions;
    use crate::http::ledger::Ledger;
    use crate::limits::{ENTRIES_BODY_BYTES_MAX, ENTRIES_BODY_HELD_BYTES};
    use crate::metrics::NodeMetrics;

    /// Brings its pieces at once, and then its end or nothing more.
    struct Pieces {
        left: Vec<Bytes>,
        ends: bool,
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.left.pop() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    /// A body in two pieces.
    fn body(ends: bool) -> Body {
        Body::new(Pieces { left: vec![Bytes::from_static(b"1"), Bytes::from_static(b"[")], ends })
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_with_many_slow_bodies_leaves_room_to_others() {
        let ledger = Ledger::new(&HttpOptions::default(), 1 << 20, &NodeMetrics::new(1));
        let bounds = |n| Bounds {
            bytes_max: ENTRIES_BODY_BYTES_MAX,
            room: &ledger.entries_bodies,
            address: IpAddr::from([10, 0, 0, n]),
        };
        let (headers, one, other) = (HeaderMap::new(), bounds(1), bounds(2));
        let mut slow: Vec<_> =
            (0..3).map(|_| Box::pin(whole(&headers, body(false), &one))).collect();
        for slow in &mut slow {
            assert!(tokio::time::timeout(Duration::from_millis(1), slow).await.is_err());
        }
        assert_eq!(ledger.entries_bodies.used(), 2 * ENTRIES_BODY_HELD_BYTES as u64);
        // Another one's finds room at once.
        let before = Instant::now();
        let quick = whole(&headers, body(true), &other).await.unwrap();
        assert_eq!((&quick.bytes[..], Instant::now()), (&b"[1"[..], before));
        // Of its own, those that wait are waited for.
        let first = tokio::time::timeout(2 * ENTRIES_BODY_GRACE, &mut slow[0]).await.unwrap();
        assert_eq!(first.map(|_| ()).unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
        drop((slow, quick));
        assert_eq!(ledger.entries_bodies.used(), 0);
    }

    #[test]
    fn a_body_is_behind_once_it_had_its_time_and_came_at_less_than_the_rate() {
        let rate = ENTRIES_BODY_RATE_MIN as usize;
        let seconds = Duration::from_secs_f64;
        assert!(!is_behind(0, seconds(0.9)) && is_behind(0, seconds(1.0)));
        assert!(!is_behind(rate, seconds(1.0)) && is_behind(rate - 1, seconds(1.0)));
        assert!(!is_behind(30 * rate, seconds(30.0)) && is_behind(29 * rate, seconds(30.0)));
    }
}
