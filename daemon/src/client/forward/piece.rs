//! Standard input as pieces: whole lines, or parts of a line that is longer than a record.
//!
//! Invariants: the pieces one after the other are the input, with the prefix before each line and
//! nothing else changed. A piece holds whole lines (the last of the input may lack its LF), or
//! exactly one record's size of a longer line. At most one record is held between calls.

use memchr::memchr_iter;

const LF: u8 = b'\n';

/// Some consecutive bytes of the input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Piece {
    /// The bytes, prefixes included.
    pub(crate) bytes: Vec<u8>,
    /// Lines that end in them.
    pub(crate) lines: u64,
    /// Whether the first byte begins a line.
    pub(crate) starts_line: bool,
    /// Whether the last byte is an LF.
    pub(crate) ends_line: bool,
    /// Its number in the spool, where it came from there.
    pub(crate) entry: Option<u64>,
}

impl Piece {
    /// Whole lines and nothing else.
    pub(crate) const fn is_whole(&self) -> bool {
        self.starts_line && self.ends_line
    }

    /// The LF between the unfinished line of an earlier input and what comes next. It completes
    /// the record of the piece before.
    pub(crate) fn joint() -> Self {
        Self { bytes: vec![LF], ends_line: true, ..Self::default() }
    }

    /// Whether it is a [`Piece::joint`].
    pub(crate) fn is_joint(&self) -> bool {
        self.ends_line && self.lines == 0
    }
}

/// Makes pieces of blocks of input.
#[derive(Debug)]
pub(crate) struct LinePieces {
    prefix: Vec<u8>,
    record_bytes_max: usize,
    /// A line whose end has not come, or what of it is not handed out yet; prefix included.
    partial: Vec<u8>,
    /// Whether the line that `partial` belongs to has begun.
    in_line: bool,
    /// Whether a part of that line was handed out.
    was_cut: bool,
}

impl LinePieces {
    /// `prefix` comes before each line; `record_bytes_max` is what the ingesters cut at.
    pub(crate) fn new(prefix: Vec<u8>, record_bytes_max: usize) -> Self {
        assert!(record_bytes_max > 0, "a record has room for a byte");
        Self { prefix, record_bytes_max, partial: Vec::new(), in_line: false, was_cut: false }
    }

    /// Takes the next bytes of the input; hands pieces to `sink`.
    pub(crate) fn feed(&mut self, block: &[u8], sink: &mut impl FnMut(Piece)) {
        let mut whole = Piece { starts_line: true, ends_line: true, ..Piece::default() };
        let mut start = 0;
        for end in memchr_iter(LF, block) {
            let line = &block[start..end];
            start = end + 1;
            let fits = self.prefix.len() + line.len() <= self.record_bytes_max;
            if !self.in_line && fits {
                whole.bytes.extend_from_slice(&self.prefix);
                whole.bytes.extend_from_slice(line);
                whole.bytes.push(LF);
                whole.lines += 1;
                continue;
            }
            // Only the first line of a block, or a very long one, comes here.
            hand_out(&mut whole, sink);
            self.extend(line, sink);
            self.end_line(true, sink);
        }
        hand_out(&mut whole, sink);
        if start < block.len() {
            self.extend(&block[start..], sink);
        }
    }

    /// The input has ended: an unfinished line is handed out as it is.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Piece)) {
        if self.in_line {
            self.end_line(false, sink);
        }
    }

    /// Adds bytes of one line; whatever exceeds a record is handed out.
    fn extend(&mut self, line: &[u8], sink: &mut impl FnMut(Piece)) {
        if !self.in_line {
            self.in_line = true;
            let prefix = std::mem::take(&mut self.prefix);
            self.fill(&prefix, sink);
            self.prefix = prefix;
        }
        self.fill(line, sink);
    }

    fn fill(&mut self, mut rest: &[u8], sink: &mut impl FnMut(Piece)) {
        while !rest.is_empty() {
            if self.partial.len() == self.record_bytes_max {
                sink(Piece {
                    bytes: std::mem::take(&mut self.partial),
                    starts_line: !self.was_cut,
                    ..Piece::default()
                });
                self.was_cut = true;
            }
            let room = self.record_bytes_max - self.partial.len();
            let (head, tail) = rest.split_at(room.min(rest.len()));
            self.partial.extend_from_slice(head);
            rest = tail;
        }
    }

    fn end_line(&mut self, with_lf: bool, sink: &mut impl FnMut(Piece)) {
        let mut bytes = std::mem::take(&mut self.partial);
        if with_lf {
            bytes.push(LF);
        }
        sink(Piece {
            bytes,
            lines: 1,
            starts_line: !self.was_cut,
            ends_line: with_lf,
            entry: None,
        });
        self.in_line = false;
        self.was_cut = false;
    }
}

fn hand_out(whole: &mut Piece, sink: &mut impl FnMut(Piece)) {
    if whole.lines > 0 {
        sink(std::mem::replace(
            whole,
            Piece { starts_line: true, ends_line: true, ..Piece::default() },
        ));
    }
}

/// Where the line begins that holds byte `at` of whole lines; behind an LF that is the next line.
pub(crate) fn line_start(bytes: &[u8], at: usize) -> usize {
    memchr::memrchr(LF, &bytes[..at]).map_or(0, |lf| lf + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(prefix: &str, max: usize, blocks: &[&[u8]]) -> Vec<Piece> {
        let mut splitter = LinePieces::new(prefix.as_bytes().to_vec(), max);
        let mut out = Vec::new();
        for block in blocks {
            splitter.feed(block, &mut |piece| out.push(piece));
        }
        splitter.finish(&mut |piece| out.push(piece));
        out
    }

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        pieces.iter().flat_map(|p| p.bytes.clone()).collect()
    }

    #[test]
    fn every_line_gets_the_prefix_and_nothing_else_changes() {
        let got = pieces("a b ", 100, &[b"100%\n\0\r\n\n", b"un", b"finished"]);
        assert_eq!(joined(&got), b"a b 100%\na b \0\r\na b \na b unfinished");
        assert!(!got.last().unwrap().ends_line);
    }

    #[test]
    fn no_input_is_no_piece_not_even_a_prefix() {
        assert_eq!(pieces("a ", 100, &[]), []);
        assert_eq!(pieces("a ", 100, &[b""]), []);
    }

    #[test]
    fn a_long_line_comes_in_records_and_is_one_line() {
        let got = pieces("", 4, &[b"0123456", b"789\nx\n"]);
        let parts: Vec<_> = got.iter().map(|p| (&p.bytes[..], p.lines, p.starts_line)).collect();
        assert_eq!(
            parts,
            [(&b"0123"[..], 0, true), (b"4567", 0, false), (b"89\n", 1, false), (b"x\n", 1, true)]
        );
    }

    proptest! {
        #[test]
        fn pieces_are_the_input_and_no_part_of_a_line_is_longer_than_a_record(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(0u8)], 0..200),
            cuts in proptest::collection::vec(0..200usize, 0..6),
            max in 1..12usize,
            prefix in "[xy]{0,3}",
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let blocks: Vec<&[u8]> = cuts.windows(2).map(|w| &input[w[0]..w[1]]).collect();
            let got = pieces(&prefix, max, &blocks);
            let mut model = Vec::new();
            for line in input.split_inclusive(|&b| b == b'\n') {
                model.extend_from_slice(prefix.as_bytes());
                model.extend_from_slice(line);
            }
            prop_assert_eq!(joined(&got), &model[..]);
            let lines = input.split_inclusive(|&b| b == b'\n').count() as u64;
            prop_assert_eq!(got.iter().map(|p| p.lines).sum::<u64>(), lines);
            for piece in &got {
                prop_assert!(piece.is_whole() || piece.bytes.len() <= max + 1);
                prop_assert!(!piece.is_joint());
            }
        }
    }
}
