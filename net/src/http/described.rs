//! What the `X-Oklog-…` headers of an answer say of its request.
//!
//! Invariants: together they take no more room than proxies give to heads, whatever was asked; what
//! stands in them can be read back. Expressions stand in one field each.

use std::time::Instant;

use engine::search::format::rfc3339;
use engine::search::{Head, Plan};
use engine::ulid::Ulid;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::query_request::QueryRequest;
use crate::limits::HTTP_ECHO_BYTES_MAX;

/// What the `X-Oklog-…` headers say of a request.
pub(super) struct Described {
    from: String,
    to: String,
    q: Vec<String>,
    x: Vec<String>,
    regex: bool,
    segments: u64,
    data_set_bytes_max: u64,
}

impl Described {
    /// Of a request and what was planned for it.
    pub(super) fn of(request: &QueryRequest, plan: &Plan) -> Self {
        let QueryRequest { window, source, .. } = request;
        let mut room = HTTP_ECHO_BYTES_MAX;
        let q = match source.all() {
            [] => vec![String::new()],
            all => echoes(all, &mut room),
        };
        Self {
            from: edge(window.from, Ulid::first_of_ms(window.from.ms())),
            to: edge(window.to, Ulid::last_of_ms(window.to.ms())),
            q,
            x: echoes(source.none(), &mut room),
            regex: source.is_regex(),
            segments: plan.segments,
            data_set_bytes_max: plan.data_set_bytes_max,
        }
    }

    /// Without what was searched for.
    pub(super) fn without_expressions(self) -> Self {
        Self { q: Vec::new(), x: Vec::new(), ..self }
    }

    /// Puts them into a head; `start` is when the query began.
    pub(super) fn write(&self, headers: &mut HeaderMap, head: Head, start: Instant) {
        let duration = format!("{:.6}s", start.elapsed().as_secs_f64());
        for (name, value) in [
            ("x-oklog-from", self.from.clone()),
            ("x-oklog-to", self.to.clone()),
            ("x-oklog-regex", self.regex.to_string()),
            ("x-oklog-nodes-queried", "1".to_owned()),
            ("x-oklog-segments-queried", self.segments.to_string()),
            ("x-oklog-max-data-set-size", self.data_set_bytes_max.to_string()),
            ("x-oklog-error-count", head.missing_count.to_string()),
            ("x-oklog-complete", head.complete.to_string()),
            ("x-oklog-duration", duration),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        for (name, texts) in [("x-oklog-q", &self.q), ("x-oklog-x", &self.x)] {
            for text in texts.iter().filter_map(|text| HeaderValue::try_from(text).ok()) {
                headers.append(name, text);
            }
        }
    }
}

/// Expressions as headers can carry them, one each, as far as there is room for them.
fn echoes(texts: &[String], room: &mut usize) -> Vec<String> {
    let echo = |text: &String| {
        let shown = visible(text, *room);
        *room -= shown.len();
        (!shown.is_empty() || text.is_empty()).then_some(shown)
    };
    texts.iter().map_while(echo).collect()
}

/// An end of the range as `from` and `to` would take it: its time where it is a whole
/// millisecond that can be written as one, else its ULID.
fn edge(id: Ulid, of_ms: Ulid) -> String {
    let has_text = jiff::Timestamp::MAX.as_millisecond().cast_unsigned();
    if id == of_ms && id.ms() <= has_text { rfc3339(id.ms()) } else { id.to_string() }
}

/// The expression as a header can carry it, or as many whole characters of its beginning as may stand in
/// one: bytes that are not visible ASCII become `%XX`, and so do `%` and a space at either end.
fn visible(q: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(q.len().min(bytes_max));
    for character in q.chars() {
        let is_plain = matches!(character, '!'..='~') && character != '%';
        let is_inside = character == ' ' && !out.is_empty();
        let len = if is_plain || is_inside { 1 } else { 3 * character.len_utf8() };
        // A space that becomes the last one takes two more.
        if out.len() + len > bytes_max.saturating_sub(2) {
            break;
        }
        if len == 1 {
            out.push(character);
        } else {
            percent_encode(&mut out, character);
        }
    }
    if out.ends_with(' ') {
        out.pop();
        percent_encode(&mut out, ' ');
    }
    out
}

fn percent_encode(out: &mut String, character: char) {
    use std::fmt::Write as _;
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(shown: &str) -> String {
        let mut parts = shown.split('%');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_expression_in_a_head_is_bounded_and_can_be_read_back() {
        for (q, expected) in [
            ("", ""),
            ("GET /x?y=1", "GET /x?y=1"),
            ("100%", "100%25"),
            ("%41", "%2541"),
            (" a b  ", "%20a b %20"),
            (" ", "%20"),
            ("\tä\u{7f}", "%09%C3%A4%7F"),
        ] {
            let shown = visible(q, HTTP_ECHO_BYTES_MAX);
            assert_eq!((shown.as_str(), read_back(expected).as_str()), (expected, q));
        }
        for long in ["x", "é", "a é", "€", " ", "😀", "%"] {
            let shown = visible(&long.repeat(32 << 10), HTTP_ECHO_BYTES_MAX);
            assert!((HTTP_ECHO_BYTES_MAX - 16..=HTTP_ECHO_BYTES_MAX).contains(&shown.len()));
            assert_eq!(shown.trim(), shown);
            assert!(long.repeat(32 << 10).starts_with(&read_back(&shown)), "{long:?}");
        }
    }

    #[test]
    fn all_expressions_in_a_head_share_its_room() {
        let [short, long, empty] = ["a b", &*"y".repeat(600), ""].map(str::to_owned);
        let mut room = HTTP_ECHO_BYTES_MAX;
        let all = [short.clone(), long.clone(), empty.clone()];
        assert_eq!(echoes(&all, &mut room), all);
        let none = echoes(&[long, short], &mut room);
        assert!(none.len() == 1 && none[0].starts_with("yyy") && room < 3, "{none:?}");
    }
}
