//! What does not belong on an ingest port, by its first bytes: an HTTP request, a TLS handshake.
//!
//! Invariants: recognises and nothing else: the bytes are records whatever they look like, for they may
//! be somebody's log. An answer does not change with more bytes; almost all senders are known by their
//! first byte.

use crate::limits::STRANGER_LINE_BYTES_MAX;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// An HTTP client: its first line is a request line.
    Http,
    /// A TLS client.
    Tls,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Too few to tell.
    Undecided,
    /// Nothing strange.
    Lines,
    /// Strange.
    Is(Stranger),
}

impl Stranger {
    /// The protocol's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }
}

/// Methods of RFC 9110 and RFC 5789, and the preface of HTTP/2 (RFC 9113, 3.4).
const METHODS: [&[u8]; 10] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
];

/// Judges the first bytes of a connection.
pub fn look(bytes: &[u8]) -> Look {
    match bytes.first() {
        None => Look::Undecided,
        Some(0x16) => look_for_tls(bytes),
        Some(b'A'..=b'Z') => look_for_http(bytes),
        Some(_) => Look::Lines,
    }
}

/// A handshake record of version 3.0 to 3.4 that begins with a ClientHello (RFC 8446, 4 and 5.1).
fn look_for_tls(bytes: &[u8]) -> Look {
    let is_expected = |(at, byte): (usize, &u8)| match at {
        1 => *byte == 3,
        2 => *byte <= 4,
        5 => *byte == 1,
        _ => true,
    };
    match bytes.iter().take(6).enumerate().all(is_expected) {
        false => Look::Lines,
        true if bytes.len() < 6 => Look::Undecided,
        true => Look::Is(Stranger::Tls),
    }
}

/// A request line (RFC 9112, 3): method, target and version, one space between them.
fn look_for_http(bytes: &[u8]) -> Look {
    let head = &bytes[..bytes.len().min(STRANGER_LINE_BYTES_MAX)];
    let may_begin = |method: &&[u8]| {
        let len = method.len().min(head.len());
        head[..len] == method[..len] && head.get(method.len()).is_none_or(|&byte| byte == b' ')
    };
    if !METHODS.iter().any(may_begin) {
        return Look::Lines;
    }
    let Some(end) = memchr::memchr(b'\n', head) else {
        let is_whole = head.len() == STRANGER_LINE_BYTES_MAX;
        return if is_whole { Look::Lines } else { Look::Undecided };
    };
    let line = head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]);
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [_, target, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
            if !target.is_empty() && major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Look::Is(Stranger::Http)
        }
        _ => Look::Lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_handshakes_are_recognised() {
        for request in [
            &b"GET /query?from=1h HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"POST /records HTTP/1.0\r\n",
            b"OPTIONS * HTTP/1.1\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert_eq!(look(request), Look::Is(Stranger::Http), "{request:?}");
        }
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        assert_eq!(look(&hello), Look::Is(Stranger::Tls));
        for lines in [
            &b"\n"[..],
            b"get / HTTP/1.1\r\n",
            b"GETTING / HTTP/1.1\r\n",
            b"GET  HTTP/1.1\r\n",
            b"GET / HTTP/1.1 200 OK\n",
            b"10.0.0.1 \"GET / HTTP/1.1\" 200\n",
            b"POST mortem of the night\n",
            b"ERROR x\n",
            b"{\"a\":1}\n",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x05\x02",
        ] {
            assert_eq!(look(lines), Look::Lines, "{lines:?}");
        }
        let mut endless = b"GET /".to_vec();
        endless.resize(STRANGER_LINE_BYTES_MAX - 1, b'x');
        assert_eq!(look(&endless), Look::Undecided);
        endless.push(b'x');
        assert_eq!(look(&endless), Look::Lines);
    }

    proptest! {
        /// More bytes never change an answer.
        #[test]
        fn fuzz_strangers(
            start in "(GET|POST|PRI|P|\\x16)? ?[*/]?[a-z]{0,3}( HTTP/[12]\\.[01])?\r?\n?",
            tail: Vec<u8>,
            cut in 0..40usize,
        ) {
            let mut bytes = start.into_bytes();
            bytes.extend_from_slice(&tail);
            let before = look(&bytes[..cut.min(bytes.len())]);
            if before != Look::Undecided {
                prop_assert_eq!(look(&bytes), before);
            }
        }
    }
}
