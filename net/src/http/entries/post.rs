//! `POST /log` and `POST /logs`.
//!
//! Invariants: 202 is said once what was sent is on disk, synced; of what is refused nothing was kept, unless
//! the node could not keep its promise for it (503): then it may be there, and come twice if it is sent again.
//! Large bodies are not taken apart on this thread.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use bytes::Bytes;
use engine::search::format::rfc3339;
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde_json::json;
use tokio::time::Instant;

use super::batch::Batch;
use super::body::{Bounds, Whole, whole};
use super::desk::{Goal, keep};
use super::entry::Entry;
use crate::backend::{AppendError, Appender};
use crate::budget::{Share, Taken};
use crate::http::App;
use crate::http::admission::Client;
use crate::http::answer::{self, Refusal};
use crate::http::parameters::{Known, Parameters};
use crate::http::query::stopping;
use crate::http::records::OnTheirWay;
use crate::limits::{
    ENTRIES_BODY_BYTES_MAX, ENTRIES_SHORT_BYTES, ENTRY_BODY_BYTES_MAX,
    LINES_ON_THEIR_WAY_BYTES_MAX, RECORDS_REQUEST_WAIT,
};
use crate::wall_clock::now_ms;

const NONE: Known = Known { single: &[], repeated: &[] };

/// `POST /log`: one entry.
pub(in crate::http) async fn log(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let answer = async {
        Parameters::parse(uri.query(), NONE)?;
        let goal = goal(&app, &client)?;
        let room = &app.ledger.entry_bodies;
        let bounds = Bounds { bytes_max: ENTRY_BODY_BYTES_MAX, room, address: client.address };
        let Whole { bytes, held } = whole(&headers, body, &bounds).await?;
        let entry = Entry::parse(&bytes).map_err(bad)?;
        let arrival = rfc3339(now_ms());
        let mut batch = Batch::default();
        batch.push(&entry, &arrival);
        fit(&app, &batch)?;
        let timestamp = entry.timestamp().unwrap_or(&arrival);
        let accepted = json!({ "status": "accepted", "timestamp": timestamp });
        drop(entry);
        drop(bytes);
        let way = way_for(&app, &goal, batch.lines.len()).await?;
        drop(held);
        let kept = app.entries.keep(&goal, batch.lines, way).await;
        kept.unwrap_or_else(|| Err(stopping()))?;
        Ok(answer::json(StatusCode::ACCEPTED, &accepted))
    };
    answer.await.unwrap_or_else(Refusal::into_response)
}

/// `POST /logs`: several, all or none of them.
pub(in crate::http) async fn logs(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let answer = async {
        Parameters::parse(uri.query(), NONE)?;
        let goal = goal(&app, &client)?;
        let room = &app.ledger.entries_bodies;
        let bounds = Bounds { bytes_max: ENTRIES_BODY_BYTES_MAX, room, address: client.address };
        let Whole { bytes, held } = whole(&headers, body, &bounds).await?;
        let arrival = rfc3339(now_ms());
        let (batch, held) = take_apart(bytes, &arrival, held).await?;
        fit(&app, &batch)?;
        let accepted =
            json!({ "status": "accepted", "timestamp": arrival, "records": batch.entries });
        if batch.entries > 0 {
            let way = way_for(&app, &goal, batch.lines.len()).await?;
            drop(held);
            keep(&goal, OnTheirWay::new(batch.lines.into(), way)).await?;
        }
        Ok(answer::json(StatusCode::ACCEPTED, &accepted))
    };
    answer.await.unwrap_or_else(Refusal::into_response)
}

/// The entries of a body, and what is held for them.
async fn take_apart(
    bytes: Bytes,
    arrival: &str,
    held: Option<Share>,
) -> Result<(Batch, Option<Share>), Refusal> {
    if bytes.len() <= ENTRIES_SHORT_BYTES {
        return Ok((Batch::parse(&bytes, arrival).map_err(bad)?, held));
    }
    let arrival = arrival.to_owned();
    let work = move || (Batch::parse(&bytes, &arrival), held);
    // What is held stays so until that is done, whether somebody waits for it or not.
    let (batch, held) = tokio::task::spawn_blocking(work).await.map_err(|_| stopping())?;
    Ok((batch.map_err(bad)?, held))
}

/// Refuses what would be cut into several records.
fn fit(app: &App, batch: &Batch) -> Result<(), Refusal> {
    let bytes_max = app.backend.max_record_size_bytes();
    if batch.longest_bytes <= bytes_max {
        return Ok(());
    }
    let words = format!(
        "message: makes a record of {} bytes; this node takes at most {bytes_max} \
         (--ingest.max-record-size)",
        batch.longest_bytes
    );
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words))
}

/// Room for lines on their way into the log.
async fn way_for(app: &App, goal: &Goal, bytes: usize) -> Result<Taken, Refusal> {
    let ways = &app.ledger.lines_on_their_way;
    let bytes = (bytes as u64).min(LINES_ON_THEIR_WAY_BYTES_MAX);
    if let Some(way) = ways.take_if_free(bytes) {
        return Ok(way);
    }
    let unavailable = || Refusal { status: StatusCode::SERVICE_UNAVAILABLE, ..ways.refusal() };
    let appender = goal.appender();
    let appender: Box<dyn Appender> = appender.map_err(|error| refused(&error))?;
    let until = Some(Instant::now() + RECORDS_REQUEST_WAIT);
    tokio::select! {
        biased;
        way = ways.take(bytes, until) => way.map_err(|_| unavailable()),
        error = appender.trouble() => Err(refused(&error)),
    }
}

/// Where entries go, for one who may send them there.
fn goal(app: &App, client: &Client) -> Result<Goal, Refusal> {
    let topic = Some(app.options.log_topic.clone());
    Ok(Goal(app.backend.writer(&client.access, topic)?))
}

fn bad(words: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, words)
}

/// Why entries are not kept: whoever sends them knows one word for what passes.
pub(super) fn refused(error: &AppendError) -> Refusal {
    let refusal = |status| Refusal::new(status, error.to_string());
    match error {
        AppendError::Overloaded
        | AppendError::DiskFull
        | AppendError::Storage(_)
        | AppendError::ShuttingDown => refusal(StatusCode::SERVICE_UNAVAILABLE).retry_later(),
        // Waiting does not help: another node does.
        AppendError::Draining => refusal(StatusCode::SERVICE_UNAVAILABLE),
        AppendError::NoIngester => refusal(StatusCode::MISDIRECTED_REQUEST),
    }
}
