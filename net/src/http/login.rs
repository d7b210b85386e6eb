//! `POST /ui/login`, `POST /ui/logout` and `GET /api/v1/whoami`: how the page comes by what it may do.
//!
//! A token that is right becomes a cookie that no script can read and that no other site's page can send
//! along. It holds the token itself: so every node that knows the token knows the page, a restart logs nobody
//! out, and nothing is kept here.
//!
//! Invariants: a token comes in a body, which is bounded and has a bounded time; a node without tokens has
//! nothing to log in to (404), so that the page leaves the token to what stands before it.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use engine::ingest::hello::Secret;
use engine::topic::Topic;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::App;
use super::admission::{Client, Peer, TOKEN_COOKIE, cookie_value};
use super::answer::{self, Refusal};
use crate::access::Access;
use crate::limits::{LOGIN_BODY_BYTES_MAX, LOGIN_BODY_WITHIN};

/// `POST /ui/login` with `{"token":TOKEN}`.
pub(super) async fn login(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let answer = async {
        let Some(Extension(Peer { address, .. })) =
            peer.filter(|_| !app.options.authority.is_none())
        else {
            return Err(no_tokens());
        };
        let token = read(&headers, body).await?;
        let access = app.known(Some(token.as_bytes()), address)?;
        let mut response = answer::json(StatusCode::OK, &shown(&access));
        set(&mut response, &cookie_value(token.as_bytes()), &headers);
        Ok(response)
    };
    answer.await.unwrap_or_else(Refusal::into_response)
}

/// `POST /ui/logout`.
pub(super) async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    if app.options.authority.is_none() {
        return no_tokens().into_response();
    }
    let mut response = answer::json(StatusCode::OK, &json!({}));
    set(&mut response, "", &headers);
    response
}

/// `GET /api/v1/whoami`.
pub(super) async fn whoami(Extension(client): Extension<Client>) -> Response<Body> {
    answer::json(StatusCode::OK, &shown(&client.access))
}

fn shown(access: &Access) -> Value {
    let topics = access.topics().map(|all| all.iter().map(Topic::as_str).collect::<Vec<_>>());
    json!({ "name": access.name(), "rights": access.rights().names(), "topics": topics })
}

fn no_tokens() -> Refusal {
    let words = "this node asks for no token: there is nothing to log in to (--auth.file)";
    Refusal::new(StatusCode::NOT_FOUND, words)
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Secret, Refusal> {
    let bad = |words: &str| Refusal::new(StatusCode::BAD_REQUEST, words);
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let too_long = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "a token has 256 bytes at most");
    if declared.is_some_and(|bytes: usize| bytes > LOGIN_BODY_BYTES_MAX) {
        return Err(too_long());
    }
    let read = tokio::time::timeout(LOGIN_BODY_WITHIN, to_bytes(body, LOGIN_BODY_BYTES_MAX)).await;
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "the token did not come in time");
    let bytes = read.map_err(|_| late())?.map_err(|_| too_long())?;
    let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let token = object["token"].as_str().and_then(|token| Secret::new(token.as_bytes()));
    token.ok_or_else(|| bad("valid is {\"token\":TOKEN}, of 1 to 256 visible ASCII characters"))
}

/// Sets the cookie, or, with nothing in it, takes it away.
fn set(response: &mut Response<Body>, value: &str, request: &HeaderMap) {
    let ends = if value.is_empty() { "; Max-Age=0" } else { "" };
    // A proxy says so that speaks TLS for us; who claims it in vain keeps his cookie to himself.
    let is_https = request.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{TOKEN_COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{ends}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}
