//! The handshake of a connection that wants acknowledgements:
//! `\0OKLOGD-ACK/1 [topic=T] [session=ID seq=N] [count=bytes] [promise=fast|durable] [token=TOKEN]\n` as
//! its very first bytes, and the answer to one that is refused: `\0OKLOGD-NO/1 REASON\n`.
//!
//! Invariants: a connection whose first bytes differ is a plain one and keeps every byte; a
//! handshake is at most [`HELLO_BYTES_MAX`] bytes; the first eight bytes of a refusal are a number
//! that no count reaches, so whoever expects counts is not deceived. This only reads it; what
//! session and sequence mean is not decided here (they are reserved).

use crate::limits::{COUNTING_BYTES, HELLO_BYTES_MAX, SESSION_LEN_MAX, TOKEN_BYTES_MAX};
use crate::topic::Topic;

use std::fmt;

const PREFIX: &[u8] = b"\0OKLOGD-ACK/";
const VERSION: &[u8] = b"1";
/// How the answer to a refused handshake begins.
const REFUSAL_PREFIX: &[u8] = b"\0OKLOGD-NO/1 ";

/// What holds for a record that is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// It is in the node's hands.
    Fast,
    /// It is on the node's disk, synced.
    Durable,
}

impl Promise {
    /// As the handshake and metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Durable => "durable",
        }
    }
}

/// A secret that says who somebody is; it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Of visible ASCII, at least one byte and at most [`TOKEN_BYTES_MAX`].
    pub fn new(text: &[u8]) -> Option<Self> {
        let is_valid =
            (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(text).ok().filter(|_| is_valid)?;
        Some(Self(text.to_owned()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As it stands in a handshake or a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Topic of the connection's records in place of the node's.
    pub topic: Option<Topic>,
    /// Session name and sequence number of its first record.
    pub session: Option<(String, u64)>,
    /// Whether acknowledgements count bytes in place of records.
    pub counts_bytes: bool,
    /// The promise that acknowledgements have to make; a port that makes another one refuses.
    pub promise: Option<Promise>,
    /// Who it is.
    pub token: Option<Secret>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Too few to tell. At the end of the connection they are plain data.
    Undecided,
    /// Plain data from the first byte on.
    Plain,
    /// A handshake; data starts behind `used` bytes.
    Hello {
        /// What it says.
        hello: Hello,
        /// Bytes that it takes.
        used: usize,
    },
    /// A handshake that cannot be obeyed: the connection is closed. Says what is wrong.
    Refused(&'static str),
}

impl Hello {
    /// Why a port that makes this promise cannot obey.
    pub fn refusal_by(&self, promise: Promise) -> Option<&'static str> {
        match (self.promise?, promise) {
            (Promise::Fast, Promise::Durable) => {
                Some("this port promises durable, and fast was asked for: use the fast port (7651)")
            }
            (Promise::Durable, Promise::Fast) => Some(
                "this port promises fast, and durable was asked for: use the durable port (7652)",
            ),
            _ => None,
        }
    }
}

/// The answer to a handshake that is refused.
pub fn refusal(reason: &str) -> Vec<u8> {
    [REFUSAL_PREFIX, reason.as_bytes(), b"\n"].concat()
}

/// What a client makes of the first bytes that answer its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Too few to tell.
    Undecided,
    /// It is obeyed: acknowledgements that count bytes follow.
    Taken,
    /// It is refused, for this reason.
    Refused(String),
    /// No answer of an ingester.
    Foreign,
}

/// Judges the first bytes that answer a handshake with `count=bytes`; at most
/// [`HELLO_BYTES_MAX`] of them are looked at.
pub fn read_answer(bytes: &[u8]) -> Answer {
    let taken = COUNTING_BYTES.to_le_bytes();
    if bytes.starts_with(&taken) {
        return Answer::Taken;
    }
    let begins = |whole: &[u8]| {
        let common = bytes.len().min(whole.len());
        bytes[..common] == whole[..common]
    };
    if !begins(REFUSAL_PREFIX) {
        return if begins(&taken) { Answer::Undecided } else { Answer::Foreign };
    }
    let head = &bytes[..bytes.len().min(HELLO_BYTES_MAX)];
    match memchr::memchr(b'\n', head) {
        Some(end) => {
            Answer::Refused(String::from_utf8_lossy(&head[REFUSAL_PREFIX.len()..end]).into())
        }
        None if bytes.len() < HELLO_BYTES_MAX => Answer::Undecided,
        None => Answer::Foreign,
    }
}

/// Judges the first bytes of a connection.
pub fn read(bytes: &[u8]) -> Opening {
    let common = bytes.len().min(PREFIX.len());
    if bytes[..common] != PREFIX[..common] {
        return Opening::Plain;
    }
    if bytes.len() < PREFIX.len() {
        return Opening::Undecided;
    }
    let head = &bytes[..bytes.len().min(HELLO_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', head) else {
        return if bytes.len() < HELLO_BYTES_MAX {
            Opening::Undecided
        } else {
            Opening::Refused("the handshake is too long")
        };
    };
    match read_fields(&head[PREFIX.len()..end]) {
        Ok(hello) => Opening::Hello { hello, used: end + 1 },
        Err(reason) => Opening::Refused(reason),
    }
}

/// Whether these first bytes of a connection, of which no more come, are of a hello that says who sends.
pub fn may_hold_token(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFIX) && memchr::memmem::find(bytes, b"token=").is_some()
}

fn read_fields(line: &[u8]) -> Result<Hello, &'static str> {
    let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty());
    if words.next() != Some(VERSION) {
        return Err("the version of the handshake is not 1");
    }
    let mut hello = Hello::default();
    let (mut session, mut sequence) = (None, None);
    for word in words {
        if let Some(name) = word.strip_prefix(b"topic=") {
            let topic = Topic::new(name).map_err(|_| "the topic of the handshake is not valid")?;
            if hello.topic.replace(topic).is_some() {
                return Err("the handshake names two topics");
            }
        } else if let Some(name) = word.strip_prefix(b"session=") {
            let name = std::str::from_utf8(name).ok().filter(|n| {
                (1..=SESSION_LEN_MAX).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_graphic())
            });
            let name = name.ok_or("the session of the handshake is not valid")?;
            if session.replace(name.to_owned()).is_some() {
                return Err("the handshake names two sessions");
            }
        } else if let Some(number) = word.strip_prefix(b"seq=") {
            let digits = std::str::from_utf8(number).ok();
            let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            let number = digits.and_then(|d| d.parse::<u64>().ok());
            let number = number.ok_or("the sequence number of the handshake is not valid")?;
            if sequence.replace(number).is_some() {
                return Err("the handshake names two sequence numbers");
            }
        } else if word == b"count=bytes" {
            if std::mem::replace(&mut hello.counts_bytes, true) {
                return Err("the handshake asks for a count twice");
            }
        } else if let Some(promise) = word.strip_prefix(b"promise=") {
            let promise = match promise {
                b"fast" => Promise::Fast,
                b"durable" => Promise::Durable,
                _ => return Err("the promise of the handshake is neither fast nor durable"),
            };
            if hello.promise.replace(promise).is_some() {
                return Err("the handshake asks for two promises");
            }
        } else if let Some(token) = word.strip_prefix(b"token=") {
            let token = Secret::new(token).ok_or("the token of the handshake is not valid")?;
            if hello.token.replace(token).is_some() {
                return Err("the handshake has two tokens");
            }
        } else {
            return Err("the handshake has an unknown field");
        }
    }
    hello.session = match (session, sequence) {
        (Some(name), Some(number)) => Some((name, number)),
        (None, None) => None,
        _ => return Err("session and seq of the handshake come together"),
    };
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hello_is_read_and_its_length_told() {
        let bytes = b"\0OKLOGD-ACK/1 topic=web session=a-1 seq=42\nfirst line\n";
        let Opening::Hello { hello, used } = read(bytes) else { panic!("{:?}", read(bytes)) };
        assert_eq!(&bytes[used..], b"first line\n");
        assert_eq!(hello.topic.unwrap().as_str(), "web");
        assert_eq!(hello.session, Some(("a-1".to_owned(), 42)));
        let plain = read(b"\0OKLOGD-ACK/1\n");
        assert_eq!(plain, Opening::Hello { hello: Hello::default(), used: 14 });
        let bytes = read(b"\0OKLOGD-ACK/1 count=bytes\n");
        let hello = Hello { counts_bytes: true, ..Hello::default() };
        assert_eq!(bytes, Opening::Hello { hello, used: 26 });
        let Opening::Hello { hello, .. } = read(b"\0OKLOGD-ACK/1 promise=durable\n") else {
            panic!()
        };
        assert_eq!(hello.promise, Some(Promise::Durable));
        let Opening::Hello { hello, .. } = read(b"\0OKLOGD-ACK/1 token=s3=cret topic=a\n") else {
            panic!()
        };
        assert_eq!(hello.token.as_ref().map(Secret::as_str), Some("s3=cret"));
        assert!(!format!("{hello:?}").contains("s3"), "a secret is never shown");
        assert!(
            may_hold_token(b"\0OKLOGD-ACK/1 token=s3"),
            "nor kept where the rest does not come"
        );
        assert!(!may_hold_token(b"\0OKLOGD-ACK/1 topic=a") && !may_hold_token(b"a token=s3"));
        let longest = format!("\0OKLOGD-ACK/1 token={}", "t".repeat(TOKEN_BYTES_MAX));
        assert!(matches!(read(format!("{longest}\n").as_bytes()), Opening::Hello { .. }));
        assert!(matches!(read(format!("{longest}t\n").as_bytes()), Opening::Refused(_)));
        let trailing_space = read(b"\0OKLOGD-ACK/1 \n");
        assert_eq!(trailing_space, Opening::Hello { hello: Hello::default(), used: 15 });
    }

    #[test]
    fn anything_else_is_plain_data_as_soon_as_it_differs() {
        assert_eq!(read(b""), Opening::Undecided);
        assert_eq!(read(b"\0OKL"), Opening::Undecided);
        for plain in [&b"a"[..], b"\0\n", b"\0OKLOGD-ACK 1\n", b"OKLOGD-ACK/1\n"] {
            assert_eq!(read(plain), Opening::Plain, "{plain:?}");
        }
    }

    #[test]
    fn a_hello_that_cannot_be_obeyed_is_refused() {
        for bad in [
            "2",
            "",
            "1x",
            "1 topic=",
            "1 topic=a/b",
            "1 topic=a topic=b",
            "1 session=x",
            "1 seq=1",
            "1 session= seq=1",
            "1 session=x seq=-1",
            "1 session=x seq=+1",
            "1 session=x seq=18446744073709551616",
            "1 color=red",
            "1 count=words",
            "1 count=bytes count=bytes",
            "1 promise=bulk",
            "1 promise=",
            "1 promise=fast promise=fast",
            "1 token=",
            "1 token=a token=a",
            "1 token=\u{e9}",
            "1 token=a\x7f",
            "1\r",
        ] {
            let bytes = format!("\0OKLOGD-ACK/{bad}\n");
            assert!(matches!(read(bytes.as_bytes()), Opening::Refused(_)), "{bad}");
        }
    }

    #[test]
    fn an_endless_hello_is_refused() {
        let mut bytes = b"\0OKLOGD-ACK/1 ".to_vec();
        bytes.resize(HELLO_BYTES_MAX - 1, b'x');
        assert_eq!(read(&bytes), Opening::Undecided);
        bytes.push(b'x');
        assert!(matches!(read(&bytes), Opening::Refused(_)));
    }

    #[test]
    fn a_promise_is_refused_by_a_port_that_makes_another_one() {
        let asking = |promise| Hello { promise, ..Hello::default() };
        for port in [Promise::Fast, Promise::Durable] {
            assert_eq!(asking(None).refusal_by(port), None);
            assert_eq!(asking(Some(port)).refusal_by(port), None);
        }
        assert!(asking(Some(Promise::Durable)).refusal_by(Promise::Fast).is_some());
        assert!(asking(Some(Promise::Fast)).refusal_by(Promise::Durable).is_some());
    }

    #[test]
    fn an_answer_is_told_from_a_refusal_and_from_what_others_send() {
        let refused = refusal("no such thing");
        for len in 0..refused.len() {
            assert_eq!(read_answer(&refused[..len]), Answer::Undecided);
        }
        assert_eq!(read_answer(&refused), Answer::Refused("no such thing".to_owned()));
        let number = u64::from_le_bytes(*refused.first_chunk().unwrap());
        assert!(number > 1 << 60, "whoever expects a count takes it for none");
        let taken = COUNTING_BYTES.to_le_bytes();
        assert_eq!(read_answer(&taken[..7]), Answer::Undecided);
        assert_eq!(read_answer(&[&taken[..], b"\x07"].concat()), Answer::Taken);
        let endless = [REFUSAL_PREFIX, &[b'x'; HELLO_BYTES_MAX]].concat();
        for foreign in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\0OKLOGD-ACK/1 count=bytes\n",
            b"\x01\0\0\0\0\0\0\0",
            b"S",
            &endless,
        ] {
            assert_eq!(read_answer(foreign), Answer::Foreign, "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_decision(tail: Vec<u8>, cut in 0..80usize, topic in "[a-z]{1,9}") {
            let mut bytes = format!("\0OKLOGD-ACK/1 topic={topic}\n").into_bytes();
            bytes.truncate(cut);
            let before = read(&bytes);
            bytes.extend_from_slice(&tail);
            if before != Opening::Undecided {
                prop_assert_eq!(read(&bytes), before);
            }
        }
    }
}
