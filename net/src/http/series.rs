//! `/query/histogram?by=topic`: the object of a histogram, and one row of counts for each of the largest
//! topics and the rest.
//!
//! Invariants: an answer may take megabytes, so it is made off the control thread, number by number; what
//! it holds was taken before the search began, and is held until its client has taken it.

use axum::body::Body;
use engine::search::format::rfc3339;
use engine::search::{Series, TopicHistogram};
use engine::topic::Topic;
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::answer::Refusal;
use super::held::{self, With};
use super::query::{Prepared, missing, stopping};

#[derive(Serialize)]
struct Object<'a> {
    complete: bool,
    counts: &'a [u64],
    from: String,
    interval_ms: u64,
    missing: Value,
    series: Vec<Row<'a>>,
    to: String,
}

/// One of the rows; of the rest the topic is null.
#[derive(Serialize)]
struct Row<'a> {
    topic: Option<&'a str>,
    counts: &'a [u64],
}

impl<'a> From<&'a Series> for Row<'a> {
    fn from(one: &'a Series) -> Self {
        Self { topic: one.topic.as_ref().map(Topic::as_str), counts: &one.counts }
    }
}

/// Counts, and says what was found.
pub(super) async fn answer(prepared: Prepared) -> Result<Response<Body>, Refusal> {
    let Prepared { request, spec, view, watch, .. } = prepared;
    let found = view.histogram_by_topic(spec, request.buckets).await.ok_or_else(stopping)?;
    watch.count(&found.all.stats);
    let encoded = tokio::task::spawn_blocking(move || encode(&found)).await;
    let bytes = encoded.map_err(|_| stopping())?;
    Ok(held::answer(StatusCode::OK, "application/json", With(bytes, watch)))
}

fn encode(found: &TopicHistogram) -> Vec<u8> {
    let TopicHistogram { all, series } = found;
    let object = Object {
        complete: all.stats.complete,
        counts: &all.counts,
        from: rfc3339(all.from_ms),
        interval_ms: all.interval_ms,
        missing: missing(&all.stats),
        series: series.iter().map(Row::from).collect(),
        to: rfc3339(all.to_ms),
    };
    let mut out = Vec::new();
    // Neither text nor numbers can fail, nor can memory.
    let _ = serde_json::to_writer(&mut out, &object);
    out.push(b'\n');
    out
}
