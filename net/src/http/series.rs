//! `/query/histogram?by=topic` and `by=level`: the object of a histogram, and one row of counts for each of
//! the largest topics and the rest, or for each level and what has none.
//!
//! Invariants: an answer may take megabytes, so it is made off the control thread, number by number; what
//! it holds was taken before the search began, and is held until its client has taken it.

use axum::body::Body;
use engine::entries::LEVELS;
use engine::search::format::rfc3339;
use engine::search::{Histogram, LevelSeries, Series};
use engine::topic::Topic;
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::answer::Refusal;
use super::held::{self, With};
use super::pipe_body::QueryWatch;
use super::query::{Prepared, missing, stopping};

#[derive(Serialize)]
struct Object<'a, R> {
    complete: bool,
    counts: &'a [u64],
    from: String,
    interval_ms: u64,
    missing: Value,
    series: Vec<R>,
    to: String,
}

/// One of the rows; of the rest the topic is null.
#[derive(Serialize)]
struct OfTopic<'a> {
    topic: Option<&'a str>,
    counts: &'a [u64],
}

impl<'a> From<&'a Series> for OfTopic<'a> {
    fn from(one: &'a Series) -> Self {
        Self { topic: one.topic.as_ref().map(Topic::as_str), counts: &one.counts }
    }
}

/// One of the rows; of records without a level it is null.
#[derive(Serialize)]
struct OfLevel<'a> {
    level: Option<&'a str>,
    counts: &'a [u64],
}

impl<'a> From<&'a LevelSeries> for OfLevel<'a> {
    fn from(one: &'a LevelSeries) -> Self {
        let level = one.level.and_then(|level| LEVELS.get(level).copied());
        Self { level, counts: &one.counts }
    }
}

/// Counts by topic, and says what was found.
pub(super) async fn by_topic(prepared: Prepared) -> Result<Response<Body>, Refusal> {
    let Prepared { request, spec, view, watch, .. } = prepared;
    let found = view.histogram_by_topic(spec, request.buckets).await.ok_or_else(stopping)?;
    watch.count(&found.all.stats);
    let encoded = move || encode::<_, OfTopic<'_>>(&found.all, &found.series);
    answer(encoded, watch).await
}

/// Counts by level, and says what was found.
pub(super) async fn by_level(prepared: Prepared) -> Result<Response<Body>, Refusal> {
    let Prepared { request, spec, view, watch, .. } = prepared;
    let found = view.histogram_by_level(spec, request.buckets).await.ok_or_else(stopping)?;
    watch.count(&found.all.stats);
    let encoded = move || encode::<_, OfLevel<'_>>(&found.all, &found.series);
    answer(encoded, watch).await
}

async fn answer(
    encoded: impl FnOnce() -> Vec<u8> + Send + 'static,
    watch: QueryWatch,
) -> Result<Response<Body>, Refusal> {
    let bytes = tokio::task::spawn_blocking(encoded).await.map_err(|_| stopping())?;
    Ok(held::answer(StatusCode::OK, "application/json", With(bytes, watch)))
}

fn encode<'a, S, R: From<&'a S> + Serialize>(all: &'a Histogram, series: &'a [S]) -> Vec<u8> {
    let object = Object {
        complete: all.stats.complete,
        counts: &all.counts,
        from: rfc3339(all.from_ms),
        interval_ms: all.interval_ms,
        missing: missing(&all.stats),
        series: series.iter().map(R::from).collect(),
        to: rfc3339(all.to_ms),
    };
    let mut out = Vec::new();
    // Neither text nor numbers can fail, nor can memory.
    let _ = serde_json::to_writer(&mut out, &object);
    out.push(b'\n');
    out
}
