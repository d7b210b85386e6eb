//! `/_drain`: empties the node before it goes.
//!
//! Invariants: only the node's own host may ask for it, or whoever has a token with that right; asking
//! twice changes nothing; only a restart takes it back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

use super::App;
use super::admission::Client;
use super::answer::{self, Refusal};
use super::proxies::is_local;
use crate::access::Beyond;
use crate::backend::DrainState;

/// `POST /_drain`: no new records from now on.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response<Body> {
    if client.access.is_anonymous() && !is_local(client.peer, &headers) {
        let words = "a node is drained from its own host: run `oklogd drain` there";
        return Refusal::new(StatusCode::FORBIDDEN, words).into_response();
    }
    tell(app.backend.drain(&client.access).map(Some))
}

/// `GET /_drain`: how far it is.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
) -> Response<Body> {
    tell(app.backend.drain_state(&client.access))
}

fn tell(state: Result<Option<DrainState>, Beyond>) -> Response<Body> {
    let state = match state {
        Ok(state) => state,
        Err(beyond) => return Refusal::from(beyond).into_response(),
    };
    let draining = state.is_some();
    let DrainState { done, shards, segments, bytes, stuck } = state.unwrap_or_default();
    let left = json!({ "shards": shards, "segments": segments, "bytes": bytes });
    let object = json!({ "draining": draining, "done": done, "left": left, "stuck": stuck });
    answer::json(StatusCode::OK, &object)
}
