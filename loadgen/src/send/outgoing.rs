//! The bytes that one connection is about to send: drawn ahead, cut into pieces to write.
//!
//! Invariants: a piece is as long as asked for unless the stream ends; nothing is allocated once
//! the buffer has its size.

use std::io;

use memchr::{memchr, memchr_iter};

use crate::corpus::{Source, whole_lines_len};

/// How a stream is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Bytes of a piece; `None`: whatever was drawn.
    pub(crate) chunk_bytes: Option<usize>,
    /// Bytes to draw at a time.
    pub(crate) fill_bytes: usize,
    /// Pieces end behind a newline where they hold one.
    pub(crate) whole_lines: bool,
}

/// A source and what was drawn from it but not yet sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    source: Source,
    cut: Cut,
    bytes: Vec<u8>,
    at: usize,
    exhausted: bool,
    stopping: bool,
}

impl Outgoing {
    pub(crate) fn new(source: Source, cut: Cut) -> Self {
        Self { source, cut, bytes: Vec::new(), at: 0, exhausted: false, stopping: false }
    }

    /// Makes sure that a whole piece is at hand, unless the stream ends first.
    pub(crate) fn refill(&mut self) -> io::Result<()> {
        let wanted = self.cut.chunk_bytes.unwrap_or(1);
        if self.exhausted || self.pending().len() >= wanted {
            return Ok(());
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        let limit = self.cut.fill_bytes.max(wanted);
        self.exhausted = !self.source.fill(&mut self.bytes, limit)?;
        if self.stopping {
            self.end_at_line();
        }
        Ok(())
    }

    /// Ends the stream behind the line that is being sent. `inside_line`: the last byte sent was
    /// not a newline.
    pub(crate) fn stop(&mut self, inside_line: bool) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        if inside_line {
            self.end_at_line();
        } else {
            self.bytes.truncate(self.at);
            self.exhausted = true;
        }
    }

    fn end_at_line(&mut self) {
        if let Some(newline) = memchr(b'\n', self.pending()) {
            self.bytes.truncate(self.at + newline + 1);
            self.exhausted = true;
        }
    }

    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// The next piece to write, of at most `records` whole records if that is given.
    pub(crate) fn piece_len(&self, records: Option<u64>) -> usize {
        let pending = self.pending();
        let mut len = pending.len().min(self.cut.chunk_bytes.unwrap_or(usize::MAX));
        if let Some(records) = records {
            let nth = usize::try_from(records).unwrap_or(usize::MAX).saturating_sub(1);
            if let Some(newline) = memchr_iter(b'\n', &pending[..len]).nth(nth) {
                len = newline + 1;
            }
        }
        if self.cut.whole_lines {
            let whole = whole_lines_len(&pending[..len]);
            if whole > 0 {
                len = whole;
            }
        }
        len
    }

    /// The first `len` pending bytes were written.
    pub(crate) fn advance(&mut self, len: usize) {
        self.at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Budget, Origin, Plan};

    fn outgoing(text: &str, chunk_bytes: Option<usize>, whole_lines: bool) -> Outgoing {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, text).unwrap();
        let plan = Plan::new(&Origin::File(path), Budget::default(), 0, 1, false).unwrap();
        Outgoing::new(plan.source(0).unwrap(), Cut { chunk_bytes, fill_bytes: 16, whole_lines })
    }

    fn pieces(outgoing: &mut Outgoing, records: Option<u64>) -> Vec<String> {
        let mut pieces = Vec::new();
        loop {
            outgoing.refill().unwrap();
            let len = outgoing.piece_len(records);
            if len == 0 {
                return pieces;
            }
            pieces.push(String::from_utf8(outgoing.pending()[..len].to_vec()).unwrap());
            outgoing.advance(len);
        }
    }

    #[test]
    fn chunks_split_lines_unless_lines_are_to_stay_whole() {
        let text = "first\nsecond\nthird\nlast";
        let cut = pieces(&mut outgoing(text, Some(10), false), None);
        assert_eq!(cut, ["first\nseco", "nd\nthird\nl", "ast"]);
        let whole = pieces(&mut outgoing(text, Some(10), true), None);
        assert_eq!(whole, ["first\n", "second\n", "third\n", "last"]);
    }

    #[test]
    fn pieces_can_be_single_records() {
        let cut = pieces(&mut outgoing("a\nbb\n\nccc", Some(100), false), Some(1));
        assert_eq!(cut, ["a\n", "bb\n", "\n", "ccc"]);
    }

    #[test]
    fn a_stopped_stream_ends_behind_its_line() {
        let mut stream =
            outgoing("first\nsecond is much longer than a fill\nthird\n", Some(8), false);
        stream.refill().unwrap();
        stream.advance(8);
        stream.stop(true);
        assert_eq!(pieces(&mut stream, None).concat(), "cond is much longer than a fill\n");
        let mut stream = outgoing("first\nsecond\n", Some(6), false);
        stream.refill().unwrap();
        stream.advance(6);
        stream.stop(false);
        assert!(pieces(&mut stream, None).is_empty());
    }
}
