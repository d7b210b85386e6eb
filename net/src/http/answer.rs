//! Answers that are not streams: JSON objects and refusals.

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::admission;
use super::parameters::BadParameter;
use crate::access::Reason;
use crate::limits::RETRY_AFTER_SECONDS;

/// A refusal: its status and its reason, which names what is wrong and what is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
    /// Records of the request for which its promise holds nevertheless.
    pub(super) kept: Option<u64>,
    /// Whether the same request may succeed later.
    pub(super) retry: bool,
    /// Why whoever asks may not, if it is that.
    pub(super) denied: Option<Reason>,
}

impl Refusal {
    /// Without anything kept and without hope of success later.
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), kept: None, retry: false, denied: None }
    }

    /// Says that waiting helps.
    pub(super) fn retry_later(self) -> Self {
        Self { retry: true, ..self }
    }

    /// As the last bytes of a connection on which nothing else can say it.
    pub(super) fn closing(&self) -> String {
        let body = format!("{}\n", json!({ "error": self.reason }));
        let retry = if self.retry {
            format!("Retry-After: {RETRY_AFTER_SECONDS}\r\n")
        } else {
            String::new()
        };
        format!(
            "HTTP/1.1 {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             X-Content-Type-Options: nosniff\r\n{retry}Content-Length: {}\r\n\r\n{body}",
            self.status,
            body.len()
        )
    }

    /// As an answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut object = json!({ "error": self.reason });
        if let Some(kept) = self.kept {
            object["kept"] = kept.into();
        }
        let mut response = json(self.status, &object);
        if self.retry {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if let Some(reason) = self.denied {
            admission::mark(&mut response, reason);
        }
        response
    }
}

impl From<BadParameter> for Refusal {
    fn from(bad: BadParameter) -> Self {
        Self::new(StatusCode::BAD_REQUEST, bad.0)
    }
}

/// One JSON object and a newline.
pub(super) fn json(status: StatusCode, object: &Value) -> Response<Body> {
    bytes(status, "application/json", format!("{object}\n"))
}

/// Bytes of a known kind.
pub(super) fn bytes(
    status: StatusCode,
    kind: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
