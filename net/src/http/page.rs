//! The web page at `/ui/` and its second page, the overview: files of the binary (`net/ui`, made ready by
//! `build.rs`).
//!
//! Invariants: the pages are asked for anew each time and name their set of files; a file of a set never
//! changes and may be kept for good. No script, style or frame of anybody else runs in the page, and
//! none of its own stands in markup, so that what a record says can never become one.

use axum::body::Body;
use axum::extract::Path;
use bytes::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, VARY, X_FRAME_OPTIONS,
};
use hyper::{HeaderMap, Response, StatusCode, Uri};

use super::answer::{self, Refusal};

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    plain: Form,
    gzip: Form,
}

/// A file as it goes over the wire.
struct Form {
    bytes: &'static [u8],
    /// With its quotes.
    tag: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// `GET /`.
pub(super) async fn root() -> Response<Body> {
    moved(StatusCode::SEE_OTHER, "/ui/")
}

/// `GET /ui`: a link keeps what it asks for.
pub(super) async fn without_slash(uri: Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    moved(StatusCode::PERMANENT_REDIRECT, &format!("/ui/{query}"))
}

/// `GET /ui/`.
pub(super) async fn index(headers: HeaderMap) -> Response<Body> {
    serve("index.html", "no-cache", &headers)
}

/// `GET /ui/overview`.
pub(super) async fn overview(headers: HeaderMap) -> Response<Body> {
    serve("overview.html", "no-cache", &headers)
}

/// `GET /ui/SET/NAME`.
pub(super) async fn file(
    Path((set, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    if set != SET {
        return unknown("this set of files is another version's: load the page anew");
    }
    serve(&name, "public, max-age=31536000, immutable", &headers)
}

fn moved(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn unknown(words: &str) -> Response<Body> {
    Refusal::new(StatusCode::NOT_FOUND, words).into_response()
}

fn serve(name: &str, keep: &'static str, headers: &HeaderMap) -> Response<Body> {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return unknown("the page has no file of this name");
    };
    let is_gzip = takes_gzip(headers);
    let form = if is_gzip { &file.gzip } else { &file.plain };
    let mut response = if is_known(headers, form.tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = answer::bytes(StatusCode::OK, file.kind, Bytes::from_static(form.bytes));
        if is_gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    for (name, value) in always(keep, form.tag) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What every answer with a file says, and every one that says it has not changed.
const fn always(keep: &'static str, tag: &'static str) -> [(HeaderName, &'static str); 6] {
    [
        (CACHE_CONTROL, keep),
        (CONTENT_SECURITY_POLICY, POLICY),
        (ETAG, tag),
        (REFERRER_POLICY, "no-referrer"),
        (VARY, "Accept-Encoding"),
        // For what is older than `frame-ancestors`.
        (X_FRAME_OPTIONS, "DENY"),
    ]
}

/// Whether a client asks for gzip; a quality of 0 declines it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let quality = quality.trim().strip_prefix("q=").unwrap_or("1");
        name.trim().eq_ignore_ascii_case("gzip") && quality.parse().is_ok_and(|q: f32| q > 0.0)
    })
}

/// Whether the client has this form already.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_stays_within_its_budget() {
        let plain: usize = FILES.iter().map(|file| file.plain.bytes.len()).sum();
        let gzip: usize = FILES.iter().map(|file| file.gzip.bytes.len()).sum();
        println!("{} files, {plain} bytes, {gzip} compressed", FILES.len());
        assert!(plain <= 150_000, "{plain} bytes");
        assert!(gzip <= 60_000, "{gzip} bytes compressed");
    }

    #[test]
    fn every_file_that_is_named_is_there() {
        for file in &FILES {
            let text = std::str::from_utf8(file.plain.bytes).unwrap();
            let quoted = text.split(['"', '\'']);
            for name in
                quoted.filter_map(|part| part.strip_prefix("./")).filter(|name| !name.is_empty())
            {
                assert!(FILES.iter().any(|file| file.name == name), "{}: {name}", file.name);
            }
        }
    }

    #[test]
    fn compression_is_used_where_it_is_asked_for() {
        let asks = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, value)]))
        };
        assert!(asks("gzip, deflate, br") && asks("br;q=1.0, GZIP;q=0.8") && asks("gzip"));
        assert!(!asks("br") && !asks("gzip;q=0, br") && !asks("") && !asks("identity"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
