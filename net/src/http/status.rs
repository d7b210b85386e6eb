//! `/health`, `/ready`, `/metrics`, `/_segmentstate` and `/_clusterstate`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use hyper::header::{ACCEPT, HeaderValue, VARY};
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde_json::json;

use super::admission::Client;
use super::alive::{self, HEAD_WITHIN};
use super::answer::{self, Refusal};
use super::held::{self, With};
use super::parameters::{Known, Parameters};
use engine::search::format::rfc3339;

use super::App;
use crate::backend::Health;
use crate::metrics::Exposition;
use crate::wall_clock::now_ms;

const NONE: Known = Known { single: &[], repeated: &[] };

/// The process turns.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = tell(&app.backend.health());
    response.headers_mut().insert(HEAD_WITHIN, alive::head_within(&app.options));
    response
}

/// It can take its role's work.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    tell(&app.backend.readiness())
}

fn tell(health: &Health) -> Response<Body> {
    let status = if health.failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let word = if health.failing || !health.reasons.is_empty() { "degraded" } else { "ok" };
    let object = json!({
        "status": word,
        "service": "oklogd",
        "timestamp": rfc3339(now_ms()),
        "reasons": health.reasons,
    });
    answer::json(status, &object)
}

/// Everything that is counted.
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response<Body> {
    let text = match app.backend.whole(&client.access) {
        Ok(node) => node.metrics_text(),
        Err(beyond) => return Refusal::from(beyond).into_response(),
    };
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let form = Exposition::asked_for(accept);
    let page = form.of(text).into_bytes();
    let memory = match app.ledger.metrics_pages.try_take(page.len() as u64) {
        Ok(memory) => memory,
        Err(refusal) => return refusal.into_response(),
    };
    let mut response = held::answer(StatusCode::OK, form.content_type(), With(page, memory));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// How many segments there are in which state.
pub(super) async fn segment_state(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    uri: Uri,
) -> Response<Body> {
    if let Err(bad) = Parameters::parse(uri.query(), NONE) {
        return Refusal::from(bad).into_response();
    }
    match app.backend.whole(&client.access) {
        Ok(node) => {
            let state = node.segment_state();
            let object = json!({ "ingest": state.ingest, "store": state.store });
            answer::json(StatusCode::OK, &object)
        }
        Err(beyond) => Refusal::from(beyond).into_response(),
    }
}

/// Who is there.
pub(super) async fn cluster_state(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    uri: Uri,
) -> Response<Body> {
    if let Err(bad) = Parameters::parse(uri.query(), NONE) {
        return Refusal::from(bad).into_response();
    }
    match app.backend.whole(&client.access) {
        Ok(node) => answer::json(StatusCode::OK, &json!(node.cluster_state())),
        Err(beyond) => Refusal::from(beyond).into_response(),
    }
}
