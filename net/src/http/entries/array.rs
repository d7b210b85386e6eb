//! Records of JSON on their way out of a search, as one array.
//!
//! Invariants: what comes is lines of `ULID SP record LF`; a record is handed on as its bytes come, whatever
//! its length; nothing is held but where the reading stands. An answer that breaks off lacks its closing
//! bracket.

use std::task::{Context, Poll, ready};

use engine::search::{Head, Outcome};
use engine::ulid::ULID_TEXT_LEN;

use crate::backend::{End, Records};

/// See the module page.
pub(super) struct JsonArray {
    inner: Box<dyn Records>,
    reading: Reading,
    is_ended: bool,
}

/// Where the reading of lines stands.
#[derive(Debug)]
struct Reading {
    /// Records that are passed over before the first one that is shown.
    passed: u64,
    /// Bytes of the line that stand before its record.
    before: usize,
    is_begun: bool,
}

const BEFORE: usize = ULID_TEXT_LEN + 1;

impl JsonArray {
    /// Of all records behind the first so many.
    pub(super) fn new(inner: Box<dyn Records>, passed: u64) -> Self {
        let reading = Reading { passed, before: BEFORE, is_begun: false };
        Self { inner, reading, is_ended: false }
    }
}

impl Reading {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.push(if std::mem::replace(&mut self.is_begun, true) { b',' } else { b'[' });
    }

    /// Takes a piece of the lines.
    fn take(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while !piece.is_empty() {
            if self.before > 0 {
                let len = self.before.min(piece.len());
                self.before -= len;
                piece = &piece[len..];
                if self.before == 0 && self.passed == 0 {
                    self.begin(out);
                }
                continue;
            }
            let end = memchr::memchr(b'\n', piece);
            if self.passed == 0 {
                out.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            }
            let Some(end) = end else { return };
            piece = &piece[end + 1..];
            self.before = BEFORE;
            self.passed = self.passed.saturating_sub(1);
        }
    }
}

impl Records for JsonArray {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Head> {
        self.inner.poll_head(cx)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        while !self.is_ended {
            let mut out = Vec::new();
            if let Some(piece) = ready!(self.inner.poll_next(cx)) {
                out.reserve(piece.len());
                self.reading.take(&piece, &mut out);
            } else {
                self.is_ended = true;
                if !self.inner.outcome().is_some_and(|outcome| outcome.aborted) {
                    if !self.reading.is_begun {
                        self.reading.begin(&mut out);
                    }
                    out.extend_from_slice(b"]\n");
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Some(out));
            }
        }
        Poll::Ready(None)
    }

    fn outcome(&self) -> Option<Outcome> {
        self.inner.outcome()
    }

    fn ender(&self) -> End {
        self.inner.ender()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    struct Pieces(VecDeque<Vec<u8>>, bool);

    impl Records for Pieces {
        fn poll_head(&mut self, _: &mut Context<'_>) -> Poll<Head> {
            Poll::Ready(Head { complete: true, missing_count: 0 })
        }

        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
            Poll::Ready(self.0.pop_front())
        }

        fn outcome(&self) -> Option<Outcome> {
            Some(Outcome { aborted: self.1, ..Outcome::default() })
        }

        fn ender(&self) -> End {
            Box::new(|_| {})
        }
    }

    /// What comes out of these lines, cut into pieces of that length.
    fn array(lines: &str, piece: usize, passed: u64, aborted: bool) -> String {
        let pieces = lines.as_bytes().chunks(piece).map(<[u8]>::to_vec).collect();
        let mut array = JsonArray::new(Box::new(Pieces(pieces, aborted)), passed);
        let mut out = Vec::new();
        while let Poll::Ready(Some(bytes)) =
            array.poll_next(&mut Context::from_waker(Waker::noop()))
        {
            out.extend(bytes);
        }
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn lines_become_an_array_however_they_are_cut(
            records in prop::collection::vec("[0-9]{1,40}", 0..12),
            piece in 1_usize..70,
            passed in 0_u64..14,
        ) {
            let id = "0".repeat(ULID_TEXT_LEN);
            let lines: Vec<String> =
                records.iter().map(|record| format!("{id} {record}\n")).collect();
            let lines = lines.concat();
            let shown: Vec<&str> =
                records.iter().skip(passed as usize).map(String::as_str).collect();
            let expected = format!("[{}]\n", shown.join(","));
            prop_assert_eq!(array(&lines, piece, passed, false), expected);
        }
    }

    #[test]
    fn what_breaks_off_has_no_end() {
        let lines = format!("{} 17\n{} 1", "0".repeat(ULID_TEXT_LEN), "0".repeat(ULID_TEXT_LEN));
        assert_eq!(array(&lines, 10, 0, true), "[17,1");
        assert_eq!(array("", 1, 0, true), "");
    }
}
