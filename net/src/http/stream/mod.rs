//! `GET /stream`: what is asked, and how it is answered. The way of a record to here is told by
//! [`crate::follow`]; `body` is what is sent, of it `replay` and `replay_lines` what is kept already.
//!
//! Invariants: what a follower may hold is taken before he follows, and given back with his stream.

mod body;
mod replay;
mod replay_lines;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use engine::follow::{StreamFormat, Wanted};
use engine::search::{Chain, ChainText};
use engine::ulid::Ulid;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode, Uri};

use self::body::{Phase, StreamBody};
use self::replay::Replay;
use super::App;
use super::admission::Client;
use super::alive::Alive;
use super::answer::Refusal;
use super::client_stream::Flushes;
use super::compile::{compile, too_large, tries};
use super::query::{patience, stopping};
use super::query_request::QueryRequest;
use crate::backend::{FollowError, Following};
use crate::budget::Taken;
use crate::limits::FOLLOW_KEEP_ALIVE;

/// `GET /stream`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
    Extension(flushes): Extension<Arc<Flushes>>,
) -> Response<Body> {
    follow(&app, &uri, &headers, (client, flushes)).await.unwrap_or_else(Refusal::into_response)
}

async fn follow(
    app: &Arc<App>,
    uri: &Uri,
    headers: &HeaderMap,
    (client, flushes): (Client, Arc<Flushes>),
) -> Result<Response<Body>, Refusal> {
    // What is no text is no ULID either, and is refused as such.
    let last_event = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
    let request = QueryRequest::parse_stream(uri.query(), last_event, app.now())?;
    let format = format(headers);
    let reader = app.backend.reader(&client.access)?;
    client.access.require_reading(&request.topics)?;
    let place = app.ledger.lasting(client.address)?;
    let permit = app.ledger.followers.try_take(1)?;
    let (chain, memory) = compiled(app, &request.source).await?;
    let wanted = Wanted { chain, topics: request.topics, is_discreet: false };
    let following = reader.follow(wanted.clone(), format);
    let Following { live, boundary_ms } = following.map_err(refused)?;
    let boundary_ms = boundary_ms.await.ok_or_else(stopping)?;
    let boundary_id = Ulid::last_of_ms(boundary_ms - 1).to_string();
    // Sets what a browser resumes behind, and is no event.
    let first = (format == StreamFormat::Sse && request.after.is_none())
        .then(|| format!("id: {boundary_id}\n\n").into_bytes());
    let phase = match request.after {
        None => Phase::Live,
        Some(after) => {
            let of = (app, reader.clone());
            Phase::Replay(Replay::new(of, (wanted, format), after, boundary_ms))
        }
    };
    let asked = Alive::asked_for(headers, &app.options);
    let mut response = Response::new(Body::empty());
    if let Some(alive) = &asked {
        alive.promise(response.headers_mut());
    }
    let unasked = (format == StreamFormat::Sse).then(|| Alive::every(FOLLOW_KEEP_ALIVE));
    let alive = asked.or(unasked);
    let body = StreamBody {
        reader,
        format,
        first,
        phase,
        live,
        alive,
        half_closed: Some(Box::pin(async move { flushes.until_half_closed_for_long().await })),
        held: (permit, memory, place),
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

/// Why nothing can be followed.
pub(in crate::http) fn refused(error: FollowError) -> Refusal {
    match error {
        FollowError::NoIngester => Refusal::new(StatusCode::MISDIRECTED_REQUEST, error.to_string()),
    }
}

/// The expressions and their memory.
pub(in crate::http) async fn compiled(
    app: &App,
    source: &ChainText,
) -> Result<(Chain, Taken), Refusal> {
    let until = patience(app).map(Into::into);
    let entry = &app.ledger.follower_expressions;
    for (size_max, cost) in tries(source) {
        // Others may be compiling, who give most of theirs back.
        let memory = entry.take(cost, until).await.map_err(|_| entry.refusal())?;
        let (memory, compiled) =
            compile((&app.ledger, until), source, size_max, Some(memory)).await;
        if let (Some(chain), Some(mut memory)) = (compiled?, memory) {
            memory.shrink_to(chain.memory_bytes() as u64);
            return Ok((chain, memory));
        }
    }
    Err(too_large(source))
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
