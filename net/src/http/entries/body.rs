//! The body of a request that brings entries, as a whole.
//!
//! Invariants: a body that has come with its head, as those of single entries do, is taken where it lies; any
//! other takes room in the ledger for all that it may become before a byte of it is kept, and has a bounded
//! time to come, so that nobody holds that room for long. What is longer than it may be is refused as soon as
//! that is known.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use hyper::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::budget::Taken;
use crate::http::answer::Refusal;
use crate::http::ledger::Entry;
use crate::http::records::next_piece;
use crate::limits::{ENTRIES_BODY_MAX, RECORDS_REQUEST_WAIT};

/// Which bodies are taken.
pub(super) struct Bounds<'a> {
    /// The longest, bytes.
    pub(super) bytes_max: usize,
    /// What is held for one, in lengths of it.
    pub(super) factor: usize,
    /// Where that is taken from.
    pub(super) room: &'a Entry,
}

/// A body, and what is held for it and what is made of it, if that was taken.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) held: Option<Taken>,
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
    let amount = (bounds.factor * bytes_max) as u64;
    let wait_until = Instant::now() + RECORDS_REQUEST_WAIT;
    let held = bounds.room.take(amount, Some(wait_until)).await;
    // Who waits for room has had no time to send.
    let until = Instant::now() + ENTRIES_BODY_MAX;
    let held = held.map_err(|_| bounds.room.refusal())?;
    let mut bytes = BytesMut::with_capacity(declared.map_or(first.len(), |_| bytes_max));
    bytes.extend_from_slice(&first);
    while let Some(piece) = in_time(&mut body, until).await? {
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
    tokio::time::timeout_at(until, next_piece(body)).await.unwrap_or_else(|_| {
        let seconds = ENTRIES_BODY_MAX.as_secs();
        let words = format!("the body did not come to its end within {seconds} s");
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, words))
    })
}

fn too_large(bytes_max: usize) -> Refusal {
    let words = format!("the body is longer than {bytes_max} bytes; send it in several requests");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)
}
