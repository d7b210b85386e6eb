//! Which path is answered by whom, and what holds for every answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use tower_service::Service;

use super::answer::Refusal;
use super::{App, drain, query, records, status, stream};
use crate::limits::HTTP_QUERY_BYTES_MAX;

/// Prefixes under which the predecessor had what is now at the root.
const ALIASES: [&str; 2] = ["/store", "/ingest"];
const NOSNIFF: (HeaderName, HeaderValue) =
    (hyper::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// The table of paths.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/query", get(query::get).head(query::head))
        .route("/query/histogram", get(query::histogram))
        .route("/topics", get(query::topics))
        .route("/stream", get(stream::get))
        .route("/records", post(records::post))
        .route("/_drain", get(drain::get).post(drain::post))
        .route("/_segmentstate", get(status::segment_state))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), count))
        .with_state(Arc::clone(app))
}

/// Answers one request.
pub(super) async fn answer(mut router: Router, mut request: Request<Body>) -> Response<Body> {
    let mut response = if let Some(refusal) = refuse(&request) {
        refusal.into_response()
    } else {
        strip_alias(request.uri_mut());
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    };
    let (name, value) = NOSNIFF;
    response.headers_mut().insert(name, value);
    response
}

/// What is refused on every path.
fn refuse(request: &Request<Body>) -> Option<Refusal> {
    if request.method() == Method::POST && has_foreign_origin(request.headers()) {
        let words = "Origin: a page of another site may not send records here";
        return Some(Refusal::new(StatusCode::FORBIDDEN, words));
    }
    let query_len = request.uri().query().map_or(0, str::len);
    if query_len > HTTP_QUERY_BYTES_MAX {
        let words = format!(
            "the query string has {query_len} bytes; at most {HTTP_QUERY_BYTES_MAX} are valid"
        );
        return Some(Refusal::new(StatusCode::URI_TOO_LONG, words));
    }
    None
}

/// Whether a browser says that the request comes from a page of another host.
fn has_foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    !authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host))
}

/// `/store/query` is `/query`.
fn strip_alias(uri: &mut Uri) {
    let Some(rest) = ALIASES
        .iter()
        .find_map(|alias| uri.path().strip_prefix(alias).filter(|rest| rest.starts_with('/')))
    else {
        return;
    };
    let path_and_query = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path_and_query.parse().ok();
    if let Ok(stripped) = Uri::from_parts(parts) {
        *uri = stripped;
    }
}

async fn unknown_path(uri: Uri) -> Response<Body> {
    let path: String = uri.path().chars().take(200).collect();
    let words = format!(
        "{path:?} is no path of this version; valid are /query, /query/histogram, /topics, \
         /stream, /records, /_drain, /_segmentstate, /health, /ready, /metrics"
    );
    Refusal::new(StatusCode::NOT_FOUND, words).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response<Body> {
    let method: String = method.as_str().chars().take(40).collect();
    let words = format!("{method} is not valid for {}; see Allow", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words).into_response()
}

/// Counts requests by method, route and status.
async fn count(
    axum::extract::State(app): axum::extract::State<Arc<App>>,
    request: Request<Body>,
    next: axum::middleware::Next,
) -> Response<Body> {
    let start = Instant::now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    };
    let path = known(request.uri().path());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics.observe_request(method, path, status, start.elapsed().as_secs_f64());
    response
}

/// The route as a label: only what the table has.
fn known(path: &str) -> &'static str {
    const ROUTES: [&str; 10] = [
        "/query",
        "/query/histogram",
        "/topics",
        "/stream",
        "/records",
        "/_drain",
        "/_segmentstate",
        "/health",
        "/ready",
        "/metrics",
    ];
    ROUTES.into_iter().find(|route| *route == path).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_whole_path_segments() {
        for (given, expected) in [
            ("/store/query?q=a%20b", "/query?q=a%20b"),
            ("/ingest/records", "/records"),
            ("/query", "/query"),
            ("/storequery", "/storequery"),
            ("/store", "/store"),
            ("/store/", "/"),
            ("/store/ingest/query", "/ingest/query"),
        ] {
            let mut uri: Uri = given.parse().unwrap();
            strip_alias(&mut uri);
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn an_origin_is_foreign_unless_it_is_the_host() {
        let foreign = |origin: Option<&'static str>, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            has_foreign_origin(&headers)
        };
        assert!(!foreign(None, "a:1"));
        assert!(!foreign(Some("http://a:1"), "a:1"));
        assert!(!foreign(Some("https://A"), "a"));
        assert!(foreign(Some("http://a:2"), "a:1"));
        assert!(foreign(Some("http://b"), "a"));
        assert!(foreign(Some("null"), "a"));
        assert!(foreign(Some(""), ""));
    }
}
