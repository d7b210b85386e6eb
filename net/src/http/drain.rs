//! `/_drain`: empties the node before it goes.
//!
//! Invariants: only the node's own host may ask for it, since nobody is authenticated; asking
//! twice changes nothing; only a restart takes it back.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::App;
use super::answer::{self, Refusal};
use crate::backend::DrainState;

/// Where the client of a request is.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// `POST /_drain`: no new records from now on.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
) -> Response<Body> {
    if !address.to_canonical().is_loopback() {
        let words = "a node is drained from its own host: run `oklogd drain` there";
        return Refusal::new(StatusCode::FORBIDDEN, words).into_response();
    }
    tell(Some(app.backend.drain()))
}

/// `GET /_drain`: how far it is.
pub(super) async fn get(State(app): State<Arc<App>>) -> Response<Body> {
    tell(app.backend.drain_state())
}

fn tell(state: Option<DrainState>) -> Response<Body> {
    let draining = state.is_some();
    let DrainState { done, shards, segments, bytes, stuck } = state.unwrap_or_default();
    let left = json!({ "shards": shards, "segments": segments, "bytes": bytes });
    let object = json!({ "draining": draining, "done": done, "left": left, "stuck": stuck });
    answer::json(StatusCode::OK, &object)
}
