//! Which names the server answers to, and whose pages may change something through a browser.
//!
//! A page that somebody visits may send requests wherever the visitor's browser gets to. Two things
//! give it away: `Origin`, where it comes from, and `Host`, the name that the browser believes it
//! speaks to, which is the page's own where its name was pointed at this host (DNS rebinding).
//!
//! Invariants: nobody is authenticated by this; a request without `Origin` is no page's; decided
//! from heads alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, UPGRADE, VARY};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode, Version, header};

use super::answer::Refusal;

/// Names and origins beyond those that are always allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sites {
    /// In lower case, without port.
    hosts: Vec<String>,
    /// In lower case: scheme, host and port, as browsers send them.
    origins: Vec<String>,
}

impl Sites {
    /// Of `--http.host` and `--http.cors-origin`. An error names the value and what is valid.
    pub fn new(hosts: &[String], origins: &[String]) -> Result<Self, String> {
        let host = |text: &String| {
            let name = text.to_ascii_lowercase();
            let is_name = !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
                && name_of(&name) == name;
            is_name.then_some(name).ok_or_else(|| {
                format!(
                    "--http.host: {text:?} is no name of a host; valid is logs.example.com, say"
                )
            })
        };
        let origin = |text: &String| {
            let origin = text.to_ascii_lowercase();
            let authority = authority_of(&origin);
            let is_origin = authority.is_some_and(|authority| {
                !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' ', '*'])
            });
            is_origin.then_some(origin).ok_or_else(|| {
                format!(
                    "--http.cors-origin: {text:?} is no origin; valid is a scheme, a host and a \
                     port as browsers send them: https://logs.example.com, say"
                )
            })
        };
        Ok(Self {
            hosts: hosts.iter().map(host).collect::<Result<_, _>>()?,
            origins: origins.iter().map(origin).collect::<Result<_, _>>()?,
        })
    }

    fn allows_host(&self, host: &str) -> bool {
        let name = name_of(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        name == "localhost"
            || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
            || inner
                .and_then(|inner| inner.parse().ok())
                .is_some_and(|address: Ipv6Addr| address.to_canonical().is_loopback())
            || self.hosts.iter().any(|known| known == name)
    }

    /// The origin of a request, if it is one of those that are named.
    fn named_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.contains(&text).then_some(origin)
    }
}

/// What of a request is refused, on a listener that only this host reaches or not.
pub(super) fn refuse(request: &Parts, sites: &Sites, is_loopback: bool) -> Option<Refusal> {
    let bad = |words: &str| Some(Refusal::new(StatusCode::BAD_REQUEST, words));
    let mut given = request.headers.get_all(HOST).iter();
    let (host, another) = (given.next(), given.next());
    if another.is_some() {
        return bad("Host: given twice; valid is once");
    }
    if host.is_none() && request.version >= Version::HTTP_11 {
        return bad("Host: not given, and HTTP/1.1 asks for it");
    }
    let host = match host.map(HeaderValue::to_str) {
        Some(Err(_)) => return bad("Host: is no text"),
        Some(Ok(host)) => Some(host),
        None => None,
    };
    // Where the target has a host, too, that is the one that counts (RFC 9112, 3.2.2).
    let names = request.uri.authority().map(Authority::as_str).into_iter().chain(host);
    let mut foreign = names.filter(|name| !sites.allows_host(name));
    if is_loopback && let Some(name) = foreign.next() {
        let name: String = name.chars().take(80).collect();
        let words = format!(
            "Host: {name:?} is no name of this node, which listens for its own host only; valid \
             are localhost, 127.0.0.0/8, [::1] and what --http.host names"
        );
        return Some(Refusal::new(StatusCode::FORBIDDEN, words));
    }
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&request.method);
    if (!is_safe || asks_for_websocket(&request.headers))
        && has_foreign_origin(&request.headers, host)
        && sites.named_origin(&request.headers).is_none()
    {
        let words = "Origin: a page of another site may not do this here, unless \
                     --http.cors-origin names that site";
        return Some(Refusal::new(StatusCode::FORBIDDEN, words));
    }
    None
}

/// What a browser has to be told so that a page of a named origin may read the answer.
pub(super) fn allow_reading(request: &HeaderMap, sites: &Sites, answer: &mut HeaderMap) {
    if sites.origins.is_empty() {
        return;
    }
    answer.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = sites.named_origin(request) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let all = HeaderValue::from_static("*");
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, all);
    }
}

/// What is answered to a browser that asks whether a page of a named origin may send a request.
pub(super) fn preflight(request: &Parts, sites: &Sites) -> Option<[(HeaderName, HeaderValue); 3]> {
    let asks = request.method == Method::OPTIONS
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && sites.named_origin(&request.headers).is_some();
    asks.then(|| {
        [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "Accept, Authorization, Cache-Control, Content-Encoding, Content-Type, Last-Event-ID",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ]
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
    })
}

pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let says = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    says(UPGRADE, "websocket") && says(CONNECTION, "upgrade")
}

/// Whether a browser says that the request comes from a page of another host.
fn has_foreign_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let host = host.unwrap_or_default();
    let is_foreign = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(authority_of);
        !authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host))
    };
    headers.get_all(ORIGIN).iter().any(is_foreign)
}

/// Host and port of an origin.
fn authority_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "0"));
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':');
    // An IPv6 address outside of brackets has no port.
    if is_port && (!name.contains(':') || name.ends_with(']')) { name } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn sites() -> Sites {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        Sites::new(&list(&["Logs.example"]), &list(&["https://ui.example", "http://a:81"])).unwrap()
    }

    /// The status of the refusal, 0 for none.
    fn status(method: &str, headers: &[(&str, &str)], is_loopback: bool) -> u16 {
        let mut request = Request::builder().method(method).uri("/records");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        refuse(&parts, &sites(), is_loopback).map_or(0, |refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_loopback_listener_answers_to_its_own_names_alone() {
        for (host, expected) in [
            ("localhost", 0),
            ("LocalHost:7650", 0),
            ("localhost.:1", 0),
            ("127.0.0.1", 0),
            ("127.9.8.7:80", 0),
            ("[::1]", 0),
            ("[::1]:7650", 0),
            ("[::ffff:127.0.0.1]:7650", 0),
            ("logs.example:7650", 0),
            ("LOGS.EXAMPLE", 0),
            ("evil.example", 403),
            ("evil.example:7650", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost:evil", 403),
            ("x.logs.example", 403),
            ("0.0.0.0:7650", 403),
            ("[::]:7650", 403),
            ("128.0.0.1", 403),
            ("0177.0.0.1", 403),
            ("::1", 403),
            ("", 403),
        ] {
            assert_eq!(status("GET", &[("host", host)], true), expected, "{host}");
            assert_eq!(status("GET", &[("host", host)], false), 0, "{host}");
        }
    }

    #[test]
    fn http_1_1_names_one_host() {
        assert_eq!(status("GET", &[], true), 400);
        assert_eq!(status("GET", &[], false), 400);
        assert_eq!(status("GET", &[("host", "localhost"), ("host", "localhost")], true), 400);
        let old = Request::builder().version(Version::HTTP_10).uri("/query").body(()).unwrap();
        assert_eq!(refuse(&old.into_parts().0, &sites(), true), None);
        let target = Request::builder().uri("http://evil/query").header("host", "localhost");
        let refused = refuse(&target.body(()).unwrap().into_parts().0, &sites(), true);
        assert_eq!(refused.unwrap().status, 403);
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let websocket = [("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")];
        for (origin, host, expected) in [
            ("http://a:1", "a:1", 0),
            ("https://A", "a", 0),
            ("https://ui.example", "a:1", 0),
            ("HTTPS://UI.example", "a:1", 0),
            ("http://a:81", "a:1", 0),
            ("http://ui.example", "a:1", 403),
            ("https://ui.example:444", "a:1", 403),
            ("http://a:2", "a:1", 403),
            ("http://b", "a", 403),
            ("null", "a", 403),
            ("", "a", 403),
        ] {
            let headers = [("host", host), ("origin", origin)];
            for method in ["POST", "PUT", "DELETE", "PATCH"] {
                assert_eq!(status(method, &headers, false), expected, "{method} {origin} {host}");
            }
            assert_eq!(status("GET", &headers, false), 0, "reading is the browser's to forbid");
            let all = [&headers[..], &websocket[..]].concat();
            assert_eq!(status("GET", &all, false), expected, "a socket of {origin} to {host}");
        }
        assert_eq!(status("POST", &[("host", "a")], false), 0, "no page");
        // Pointed at this host by its own name server, a page's origin is its host.
        let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
        assert_eq!(status("POST", &rebound, true), 403);
        let two = [("host", "a"), ("origin", "http://a"), ("origin", "http://b")];
        assert_eq!(status("POST", &two, false), 403);
    }

    #[test]
    fn named_origins_are_told_to_browsers_and_others_are_not() {
        let asked = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            let mut answer = HeaderMap::new();
            allow_reading(&headers, &sites(), &mut answer);
            assert_eq!(answer[VARY], "Origin");
            let preflight = Request::options("/records")
                .header(ORIGIN, origin)
                .header("access-control-request-method", "POST");
            let preflight = preflight.body(()).unwrap().into_parts().0;
            let answered = super::preflight(&preflight, &sites()).is_some();
            (answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), answered)
        };
        assert_eq!(asked("https://ui.example"), (true, true));
        assert_eq!(asked("https://evil.example"), (false, false));
        let mut answer = HeaderMap::new();
        allow_reading(&HeaderMap::new(), &Sites::default(), &mut answer);
        assert!(answer.is_empty());
    }

    #[test]
    fn values_that_are_no_names_are_refused() {
        let one = |text: &str| vec![text.to_owned()];
        for bad in ["", "a b", "http://a", "a:80", "a/b", "*"] {
            let error = Sites::new(&one(bad), &[]).unwrap_err();
            assert!(error.starts_with("--http.host: "), "{error}");
        }
        for bad in ["", "*", "null", "a.example", "ftp://a", "http://", "http://a/", "http://u@a"] {
            let error = Sites::new(&[], &one(bad)).unwrap_err();
            assert!(error.starts_with("--http.cors-origin: "), "{error}");
        }
    }
}
