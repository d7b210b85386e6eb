//! Answers to what did not become a request: bytes that are no HTTP/1.1, heads that are too long
//! or too slow in coming. The HTTP library closes such connections with a bare status, or none.

use hyper::StatusCode;

use super::answer::Refusal;

/// Why a connection ended, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    /// There was no room for a head.
    pub(super) refusal: Option<&'a Refusal>,
    /// The library's own answer, which was held back: its status.
    pub(super) status: Option<[u8; 3]>,
    /// What the library says of it.
    pub(super) error: Option<&'a str>,
    /// The time for a head was over, and some of one had come.
    pub(super) head_is_late: bool,
}

/// The answer as it goes over the wire; none where the connection ended for another reason.
pub(super) fn answer(ending: Ending<'_>) -> Option<String> {
    let Ending { refusal, status, error, head_is_late } = ending;
    if let Some(refusal) = refusal {
        return Some(refusal.closing());
    }
    let (status, words) = match status.as_ref() {
        Some(b"431") => {
            let words = "the request head is too long".to_owned();
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words)
        }
        Some(b"414") => (StatusCode::URI_TOO_LONG, "the request target is too long".to_owned()),
        Some(_) => {
            let why = error.map(|error| format!(": {error}")).unwrap_or_default();
            (StatusCode::BAD_REQUEST, format!("this is no HTTP/1.1 request{why}"))
        }
        None if head_is_late => {
            let words = "the request head did not come to its end in time".to_owned();
            (StatusCode::REQUEST_TIMEOUT, words)
        }
        None => return None,
    };
    Some(Refusal::new(status, words).closing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_refused_or_waited_for_is_answered() {
        let told = |status: Option<&[u8; 3]>, error, head_is_late| {
            answer(Ending { refusal: None, status: status.copied(), error, head_is_late })
        };
        assert_eq!(told(None, Some("connection reset"), false), None);
        let late = told(None, Some("read header from client timeout"), true).unwrap();
        assert!(late.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{late}");
        let bad = told(Some(b"400"), Some("invalid \"x\""), false).unwrap();
        assert!(bad.contains(r#"HTTP/1.1 request: invalid \"x\""#), "{bad}");
        assert!(told(Some(b"431"), None, false).unwrap().starts_with("HTTP/1.1 431 "));
        assert!(told(Some(b"414"), None, true).unwrap().starts_with("HTTP/1.1 414 "));
    }
}
