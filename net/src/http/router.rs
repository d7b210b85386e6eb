//! Which path is answered by whom, and what holds for every answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{MethodRouter, get, post};
use hyper::header::{HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use tower_service::Service;

use super::admission::{self, Door, Need};
use super::answer::Refusal;
use super::sites::{self, Sites};
use super::{App, drain, entries, login, page, query, records, status, stream, topics};
use crate::access::Right;
use crate::limits::HTTP_QUERY_BYTES_MAX;

/// Prefixes under which the predecessor had what is now at the root.
const ALIASES: [&str; 2] = ["/store", "/ingest"];
const NOSNIFF: (HeaderName, HeaderValue) =
    (hyper::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// The table of paths. A route gets into it with what it takes, and in no other way.
struct Routes<'a> {
    app: &'a Arc<App>,
    router: Router<Arc<App>>,
    /// Each path with what it takes.
    declared: Vec<(&'static str, Need)>,
}

impl Routes<'_> {
    /// Adds a route, behind a door unless everybody may do everything.
    fn at(mut self, path: &'static str, need: Need, methods: MethodRouter<Arc<App>>) -> Self {
        self.declared.push((path, need));
        let methods = if self.app.is_open() {
            methods
        } else {
            let door = Door { app: Arc::clone(self.app), need };
            methods.route_layer(axum::middleware::from_fn_with_state(door, admission::enter))
        };
        Self { router: self.router.route(path, methods), ..self }
    }
}

/// Every route.
fn routes(app: &Arc<App>) -> Routes<'_> {
    let read = Need::Right(Right::Read);
    let write = Need::Right(Right::Write);
    let admin = Need::Right(Right::Admin);
    Routes { app, router: Router::new(), declared: Vec::new() }
        .at("/", Need::Nothing, get(page::root))
        .at("/ui", Need::Nothing, get(page::without_slash))
        .at("/ui/", Need::Nothing, get(page::index))
        .at("/ui/overview", Need::Nothing, get(page::overview))
        .at("/ui/{set}/{name}", Need::Nothing, get(page::file))
        .at("/ui/login", Need::Nothing, post(login::login))
        .at("/ui/logout", Need::Nothing, post(login::logout))
        .at("/api/v1/whoami", Need::Somebody, get(login::whoami))
        .at("/query", read, get(query::get).head(query::head))
        .at("/query/histogram", read, get(query::histogram))
        .at("/topics", read, get(topics::get))
        .at("/stream", read, get(stream::get))
        .at("/records", write, post(records::post))
        .at("/log", write, post(entries::log))
        .at("/logs", write, post(entries::logs))
        .at("/api/logs", read, get(entries::shown))
        .at("/api/stats", read, get(entries::stats))
        .at("/ws/live", read, get(entries::live))
        .at("/_drain", admin, get(drain::get).post(drain::post))
        .at("/_segmentstate", Need::Everything, get(status::segment_state))
        .at("/_clusterstate", Need::Everything, get(status::cluster_state))
        .at("/health", Need::Nothing, get(status::health))
        .at("/ready", Need::Nothing, get(status::ready))
        .at("/metrics", Need::Everything, get(status::metrics))
}

/// Every path, with what it takes.
#[cfg(test)]
pub(super) fn declared(app: &Arc<App>) -> Vec<(&'static str, Need)> {
    routes(app).declared
}

/// The table of paths, with what is answered beside it.
pub(super) fn router(app: &Arc<App>) -> Router {
    routes(app)
        .router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), count))
        .with_state(Arc::clone(app))
}

/// What every request meets first. Clones share it.
#[derive(Clone)]
pub(super) struct Front {
    router: Router,
    sites: Arc<Sites>,
    /// Only this host reaches the listener.
    is_loopback: bool,
}

impl Front {
    pub(super) fn new(router: Router, sites: Arc<Sites>, is_loopback: bool) -> Self {
        Self { router, sites, is_loopback }
    }

    /// Answers one request.
    pub(super) async fn answer(mut self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let mut for_browsers = HeaderMap::new();
        sites::allow_reading(&parts.headers, &self.sites, &mut for_browsers);
        let mut response = if let Some(refusal) = self.refuse(&parts) {
            refusal.into_response()
        } else if let Some(allowed) = sites::preflight(&parts, &self.sites) {
            for_browsers.extend(allowed);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        } else {
            strip_alias(&mut parts.uri);
            match self.router.call(Request::from_parts(parts, body)).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        let (name, value) = NOSNIFF;
        response.headers_mut().insert(name, value);
        for (name, value) in for_browsers {
            // Each name once, so each is there.
            name.map(|name| response.headers_mut().append(name, value));
        }
        response
    }

    /// What is refused on every path.
    fn refuse(&self, request: &Parts) -> Option<Refusal> {
        if let Some(refusal) = sites::refuse(request, &self.sites, self.is_loopback) {
            return Some(refusal);
        }
        if let Some(coding) = foreign_coding(&request.headers) {
            let words = format!(
                "Transfer-Encoding: {coding:?} is not known here; valid is chunked alone, with \
                 Content-Encoding for what is compressed"
            );
            return Some(Refusal::new(StatusCode::NOT_IMPLEMENTED, words));
        }
        let query_len = request.uri.query().map_or(0, str::len);
        if query_len > HTTP_QUERY_BYTES_MAX {
            let words = format!(
                "the query string has {query_len} bytes; at most {HTTP_QUERY_BYTES_MAX} are valid"
            );
            return Some(Refusal::new(StatusCode::URI_TOO_LONG, words));
        }
        None
    }
}

/// A transfer coding beyond the chunks that the library takes apart: it hands those on as they are.
fn foreign_coding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let values: Vec<_> = values.map(|value| value.to_str().unwrap_or("?").trim()).collect();
    let all = values.join(", ");
    let is_known = all.is_empty() || all.eq_ignore_ascii_case("chunked");
    (!is_known).then(|| all.chars().take(80).collect())
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
        "{path:?} is no path of this version; valid are /ui/, /query, /query/histogram, /topics, \
         /stream, /records, /log, /logs, /api/logs, /api/stats, /api/v1/whoami, /ws/live, /_drain, \
         /_segmentstate, /_clusterstate, /health, /ready, /metrics"
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
    const PAGE: &str = "/ui/";
    const ROUTES: [&str; 17] = [
        "/query",
        "/query/histogram",
        "/topics",
        "/stream",
        "/records",
        "/log",
        "/logs",
        "/api/logs",
        "/api/stats",
        "/api/v1/whoami",
        "/ws/live",
        "/_drain",
        "/_segmentstate",
        "/_clusterstate",
        "/health",
        "/ready",
        "/metrics",
    ];
    if path.starts_with(PAGE) {
        return PAGE;
    }
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
}
