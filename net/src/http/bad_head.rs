//! Answers to what did not become a request: bytes that are no HTTP/1.1, heads that are too long
//! or too slow in coming. The HTTP library closes such connections with a bare status, or none.

/// Why a connection ended, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    /// The library's own answer, which was held back: its status.
    pub(super) status: Option<[u8; 3]>,
    /// What the library says of it.
    pub(super) error: Option<&'a str>,
    /// The time for a head was over, and some of one had come.
    pub(super) head_is_late: bool,
}

/// The answer as it goes over the wire; none where the connection ended for another reason.
pub(super) fn answer(ending: Ending<'_>) -> Option<String> {
    let Ending { status, error, head_is_late } = ending;
    let (status, words) = match status.as_ref() {
        Some(b"431") => {
            ("431 Request Header Fields Too Large", "the request head is too long".to_owned())
        }
        Some(b"503") => {
            ("503 Service Unavailable", "too many large request heads are open".to_owned())
        }
        Some(b"414") => ("414 URI Too Long", "the request target is too long".to_owned()),
        Some(_) => {
            let why = error.map(|error| format!(": {error}")).unwrap_or_default();
            ("400 Bad Request", format!("this is no HTTP/1.1 request{why}"))
        }
        None if head_is_late => {
            ("408 Request Timeout", "the request head did not come to its end in time".to_owned())
        }
        None => return None,
    };
    let body = format!("{}\n", serde_json::json!({ "error": words }));
    Some(format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_refused_or_waited_for_is_answered() {
        let told = |status: Option<&[u8; 3]>, error, head_is_late| {
            answer(Ending { status: status.copied(), error, head_is_late })
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
