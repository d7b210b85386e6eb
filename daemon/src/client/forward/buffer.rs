//! Lines that wait in memory for the window.
//!
//! Pure. Invariants: bounded, whatever comes; lines come out in the order they came in. When it
//! makes room by dropping the oldest, it drops whole lines and counts each; of a line of which a
//! part is already on its way the rest is dropped but for its LF, so that the next line is not
//! glued to it.

use std::collections::VecDeque;

use super::limits::{FORWARD_PIECE_BYTES, FORWARD_PIECE_OVERHEAD_BYTES};
use super::piece::Piece;

/// What happened to a piece that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is kept.
    Kept,
    /// There is no room: here it is again.
    Full(Piece),
}

/// Lines and bytes that were dropped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Lines.
    pub(crate) lines: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// The buffer.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes_max: usize,
    pieces: VecDeque<Piece>,
    held_bytes: usize,
    /// Whether the last piece that was taken left its line unfinished.
    torn: bool,
    /// Whether the rest of the newest line is to be dropped as it comes, and whether the LF at
    /// its end is to be kept.
    discarding: Option<bool>,
    dropped: Dropped,
}

impl Buffer {
    /// Holds at most `bytes_max`, or one piece.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            pieces: VecDeque::new(),
            held_bytes: 0,
            torn: false,
            discarding: None,
            dropped: Dropped::default(),
        }
    }

    /// Bytes held, their bookkeeping included.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Lines held; an unfinished one is not counted.
    pub(crate) fn lines(&self) -> u64 {
        self.pieces.iter().map(|p| p.lines).sum()
    }

    /// Adds a piece if there is room.
    pub(crate) fn push(&mut self, piece: Piece) -> Pushed {
        if !self.pieces.is_empty() && self.held_bytes + cost(&piece) > self.bytes_max {
            return Pushed::Full(piece);
        }
        self.keep(piece);
        Pushed::Kept
    }

    /// Adds a piece and drops the oldest lines until there is room.
    pub(crate) fn push_dropping(&mut self, piece: Piece) {
        match self.discarding {
            Some(keep_lf) if !piece.starts_line => self.discard(&piece, keep_lf),
            _ => self.keep(piece),
        }
        while self.held_bytes > self.bytes_max && self.drop_oldest() {}
    }

    /// Adds a piece whatever room there is: the input has ended, nothing more comes.
    pub(crate) fn keep(&mut self, piece: Piece) {
        self.discarding = None;
        if let Some(last) = self.pieces.back_mut()
            && last.is_whole()
            && piece.is_whole()
            && last.bytes.len() + piece.bytes.len() <= FORWARD_PIECE_BYTES
        {
            self.held_bytes += piece.bytes.len();
            last.bytes.extend_from_slice(&piece.bytes);
            last.lines += piece.lines;
            return;
        }
        self.held_bytes += cost(&piece);
        self.pieces.push_back(piece);
    }

    /// The oldest piece.
    pub(crate) fn take(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.held_bytes -= cost(&piece);
        self.torn = !piece.ends_line;
        Some(piece)
    }

    /// What was dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// Drops the oldest line, or all lines of the oldest piece; `false` if nothing can be dropped.
    fn drop_oldest(&mut self) -> bool {
        // Behind the LF of a torn line that was dropped come droppable lines.
        let keeps_lf = self.pieces.front().is_some_and(Piece::is_joint);
        let lf = if keeps_lf { self.pieces.pop_front() } else { None };
        let Some(first) = self.pieces.pop_front() else {
            self.pieces.extend(lf);
            return false;
        };
        let torn = !first.starts_line;
        let mut last = first;
        loop {
            self.held_bytes -= cost(&last);
            self.dropped.lines += last.lines;
            self.dropped.bytes += last.bytes.len() as u64;
            if last.ends_line || last.lines > 0 {
                if torn && last.ends_line {
                    self.dropped.bytes -= 1;
                    self.held_bytes += cost(&Piece::joint());
                    self.pieces.push_front(Piece::joint());
                }
                break;
            }
            let Some(next) = self.pieces.pop_front() else {
                self.discarding = Some(torn && self.torn);
                break;
            };
            last = next;
        }
        if let Some(lf) = lf {
            self.pieces.push_front(lf);
        }
        true
    }

    fn discard(&mut self, piece: &Piece, keep_lf: bool) {
        self.dropped.lines += piece.lines;
        self.dropped.bytes += piece.bytes.len() as u64;
        if piece.ends_line {
            self.discarding = None;
            if keep_lf {
                self.dropped.bytes -= 1;
                self.held_bytes += cost(&Piece::joint());
                self.pieces.push_back(Piece::joint());
            }
        }
    }
}

/// Memory that a piece takes.
fn cost(piece: &Piece) -> usize {
    piece.bytes.len() + FORWARD_PIECE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::forward::piece::LinePieces;
    use proptest::prelude::*;

    fn pieces(text: &str, max: usize) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut splitter = LinePieces::new(Vec::new(), max);
        for line in text.split_inclusive('\n') {
            splitter.feed(line.as_bytes(), &mut |p| out.push(p));
        }
        splitter.finish(&mut |p| out.push(p));
        out
    }

    fn drain(buffer: &mut Buffer) -> String {
        let mut out = Vec::new();
        while let Some(piece) = buffer.take() {
            out.extend(piece.bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_full_buffer_gives_the_piece_back() {
        let mut buffer = Buffer::new(FORWARD_PIECE_OVERHEAD_BYTES + 4);
        let [a, b] = &pieces("a\nbcdefgh\n", 99)[..] else { panic!() };
        assert_eq!(buffer.push(a.clone()), Pushed::Kept);
        assert_eq!(buffer.push(b.clone()), Pushed::Full(b.clone()));
        assert_eq!(drain(&mut buffer), "a\n");
        assert_eq!(buffer.push(b.clone()), Pushed::Kept);
    }

    #[test]
    fn short_lines_share_a_piece() {
        let mut buffer = Buffer::new(1 << 20);
        for piece in pieces("a\nb\nc\n", 99) {
            buffer.push(piece);
        }
        assert_eq!(buffer.take().unwrap().lines, 3);
    }

    #[test]
    fn of_a_line_that_is_on_its_way_only_the_end_is_kept() {
        let room = 2 * FORWARD_PIECE_OVERHEAD_BYTES + 12;
        let mut buffer = Buffer::new(room);
        let all = pieces("0123456789abcdefghijklmnopqrstuvwxyz\nnext\n", 8);
        buffer.push_dropping(all[0].clone());
        assert_eq!(buffer.take().unwrap().bytes, b"01234567");
        for piece in &all[1..] {
            buffer.push_dropping(piece.clone());
        }
        assert_eq!(drain(&mut buffer), "\nnext\n");
        assert_eq!(buffer.take_dropped(), Dropped { lines: 1, bytes: 28 });
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_came_in_without_the_dropped_lines(
            lengths in proptest::collection::vec(0..30usize, 0..40),
            takes in proptest::collection::vec(any::<bool>(), 0..200),
            room in 1..6usize,
        ) {
            let lines: Vec<String> = lengths
                .iter()
                .enumerate()
                .map(|(n, len)| format!("<{n}{}>\n", "x".repeat(*len)))
                .collect();
            let text = lines.concat();
            let mut buffer = Buffer::new(room * (FORWARD_PIECE_OVERHEAD_BYTES + 8));
            let mut out = Vec::new();
            let mut takes = takes.into_iter();
            for piece in pieces(&text, 8) {
                buffer.push_dropping(piece);
                let bound = room * (FORWARD_PIECE_OVERHEAD_BYTES + 8) + 2 * FORWARD_PIECE_OVERHEAD_BYTES + 16;
                prop_assert!(buffer.held_bytes() <= bound);
                if takes.next().unwrap_or(false) && let Some(piece) = buffer.take() {
                    out.extend(piece.bytes);
                }
            }
            out.extend(drain(&mut buffer).into_bytes());
            let out = String::from_utf8(out).unwrap();
            let sent: Vec<&str> = text.lines().collect();
            let mut cut = 0;
            let mut at = 0;
            for line in out.lines() {
                // Whole, or the beginning of one whose rest was dropped; in order.
                let found = sent[at..].iter().position(|s| *s == line);
                let found = found.or_else(|| { cut += 1; sent[at..].iter().position(|s| s.starts_with(line)) });
                at += found.unwrap() + 1;
            }
            let dropped = buffer.take_dropped();
            prop_assert_eq!(dropped.lines as usize + out.lines().count() - cut, sent.len());
            prop_assert_eq!(dropped.bytes as usize + out.len(), text.len());
        }
    }
}
