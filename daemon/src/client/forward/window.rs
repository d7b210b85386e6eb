//! What was taken from the queue and is not handed over yet: sent or to be sent, in order.
//!
//! Pure: bytes written, counts received and broken connections come in; what to send next and
//! what may be forgotten comes out. Invariants: nothing is forgotten before the ingester has counted
//! it. After a broken connection sending resumes at the start of the first line that is not handed
//! over, or, in a line longer than a record, at the first such part of it.

use std::collections::VecDeque;

use super::piece::{Piece, line_start};

/// What may be forgotten.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(crate) struct HandedOver {
    /// Lines.
    pub(crate) lines: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Spool entries with smaller numbers are done with.
    pub(crate) entries_before: Option<u64>,
}

/// Pieces on their way.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pieces: VecDeque<Piece>,
    /// Bytes and lines of the first piece that are handed over.
    front: (usize, u64),
    /// The next byte to send: piece and offset in it.
    cursor: (usize, usize),
    held_bytes: usize,
    /// The last count of this connection, and what was sent on it in all, bytes.
    counted: u64,
    sent_bytes: u64,
    /// Up to where the ingester has the first piece.
    taken_at: usize,
    handed_over: HandedOver,
}

/// The ingester counted more bytes than were sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CountTooHigh;

impl Window {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a piece behind the others.
    pub(crate) fn push(&mut self, piece: Piece) {
        self.held_bytes += piece.bytes.len();
        self.pieces.push_back(piece);
    }

    /// Bytes that are held.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether everything is handed over.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether everything was written.
    pub(crate) fn is_sent(&self) -> bool {
        self.cursor.0 >= self.pieces.len()
    }

    /// Whether the ingester owes a count: a line was sent to its end and is not handed over; of an
    /// input that is over (`is_finished`) anything that is not.
    pub(crate) fn is_owed(&self, is_finished: bool) -> bool {
        let sent = self.pieces.range(..self.cursor.0.min(self.pieces.len()));
        let mut sent = sent.map(|piece| is_finished || piece.ends_line);
        sent.any(|is_owed| is_owed)
    }

    /// Lines that are not handed over; an unfinished one counts.
    pub(crate) fn lines(&self) -> u64 {
        let all: u64 = self.pieces.iter().map(|p| p.lines).sum();
        let done = self.pieces.front().map_or(0, |p| if p.is_whole() { self.front.1 } else { 0 });
        all - done
    }

    /// What to write next.
    pub(crate) fn next_bytes(&self) -> Option<&[u8]> {
        self.pieces.get(self.cursor.0).map(|piece| &piece.bytes[self.cursor.1..])
    }

    /// The socket took `len` bytes of [`Window::next_bytes`].
    pub(crate) fn on_written(&mut self, len: usize) {
        let Some(piece) = self.pieces.get(self.cursor.0) else { return };
        self.cursor.1 += len;
        self.sent_bytes += len as u64;
        if self.cursor.1 < piece.bytes.len() {
            return;
        }
        self.cursor = (self.cursor.0 + 1, 0);
    }

    /// The ingester has `count` bytes of this connection, however it cuts lines. Says whether that
    /// is more than before.
    pub(crate) fn on_count(&mut self, count: u64) -> Result<bool, CountTooHigh> {
        if count > self.sent_bytes {
            return Err(CountTooHigh);
        }
        let more = count.saturating_sub(self.counted);
        let mut left = usize::try_from(more).unwrap_or(usize::MAX);
        self.counted = self.counted.max(count);
        while let Some(piece) = self.pieces.front() {
            let open = piece.bytes.len() - self.taken_at;
            if open <= left && self.cursor.0 > 0 {
                left -= open;
                self.forget_front();
                continue;
            }
            self.taken_at += left;
            if piece.is_whole() {
                let at = line_start(&piece.bytes, self.taken_at).max(self.front.0);
                let lines = memchr::memchr_iter(b'\n', &piece.bytes[self.front.0..at]).count();
                self.handed_over.bytes += (at - self.front.0) as u64;
                self.handed_over.lines += lines as u64;
                self.front = (at, self.front.1 + lines as u64);
            }
            break;
        }
        Ok(more > 0)
    }

    /// The connection is gone: what was not handed over is sent again on the next one.
    pub(crate) fn on_broken(&mut self) {
        // An LF that ends a line of the connection before has nothing to end on the next.
        while self.pieces.front().is_some_and(Piece::is_joint) {
            self.cursor.0 = self.cursor.0.saturating_sub(1);
            self.forget(0);
        }
        self.cursor = (0, self.front.0);
        self.counted = 0;
        self.sent_bytes = 0;
        self.taken_at = self.front.0;
    }

    /// What was handed over since the last call.
    pub(crate) fn take_handed_over(&mut self) -> HandedOver {
        std::mem::take(&mut self.handed_over)
    }

    fn forget_front(&mut self) {
        self.cursor.0 -= 1;
        let done = self.front;
        self.forget(done.0);
    }

    /// Forgets the first piece, of which `done` bytes were told as handed over before.
    fn forget(&mut self, done: usize) {
        let Some(piece) = self.pieces.pop_front() else { return };
        self.held_bytes -= piece.bytes.len();
        self.handed_over.bytes += (piece.bytes.len() - done) as u64;
        let lines_done = if piece.is_whole() { self.front.1 } else { 0 };
        self.handed_over.lines += piece.lines - lines_done;
        if let Some(entry) = piece.entry {
            self.handed_over.entries_before = Some(entry + 1);
        }
        self.front = (0, 0);
        self.taken_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Piece {
        let lines = text.matches('\n').count() as u64;
        let bytes = text.as_bytes().to_vec();
        Piece { bytes, lines, starts_line: true, ends_line: true, entry: None }
    }

    fn send_all(window: &mut Window) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some(bytes) = window.next_bytes() {
            sent.extend_from_slice(bytes);
            let len = bytes.len();
            window.on_written(len);
        }
        sent
    }

    #[test]
    fn only_what_was_counted_is_not_sent_again() {
        let mut window = Window::new();
        window.push(whole("1\n2\n3\n"));
        window.push(whole("4\n5\n"));
        assert_eq!(send_all(&mut window), b"1\n2\n3\n4\n5\n");
        assert_eq!(window.on_count(4), Ok(true));
        assert_eq!(window.on_count(4), Ok(false));
        assert_eq!(window.lines(), 3);
        window.on_broken();
        assert_eq!(send_all(&mut window), b"3\n4\n5\n");
        window.on_count(2).unwrap();
        window.on_count(4).unwrap();
        window.on_broken();
        assert_eq!(send_all(&mut window), b"5\n");
        window.on_count(2).unwrap();
        assert!(window.is_empty());
        let done = window.take_handed_over();
        assert_eq!((done.lines, done.bytes), (5, 10));
    }

    #[test]
    fn counts_may_come_while_a_piece_is_being_sent() {
        let mut window = Window::new();
        window.push(whole("1\n2\n3\n"));
        window.on_written(4);
        window.on_count(4).unwrap();
        window.on_written(2);
        window.on_count(6).unwrap();
        assert!(window.is_empty());
        window.push(whole("4\n5\n"));
        window.on_written(2);
        assert_eq!(window.on_count(9), Err(CountTooHigh));
        assert_eq!(window.lines(), 2);
    }

    #[test]
    fn a_count_is_owed_for_lines_that_were_sent_to_their_end_and_for_all_once_that_is_over() {
        let mut window = Window::new();
        assert!(!window.is_owed(true));
        let part = Piece { bytes: b"part".to_vec(), starts_line: true, ..Piece::default() };
        window.push(part);
        window.on_written(4);
        assert!(
            !window.is_owed(false),
            "the ingester cannot count the rest of a line before it ends"
        );
        assert!(window.is_owed(true));
        let rest =
            Piece { bytes: b" rest\n".to_vec(), lines: 1, ends_line: true, ..Piece::default() };
        window.push(rest);
        window.on_written(5);
        assert!(!window.is_owed(false));
        window.on_written(1);
        assert!(window.is_owed(false));
        window.on_count(10).unwrap();
        assert!(!window.is_owed(true));
    }

    #[test]
    fn bytes_that_an_ingester_has_are_sent_again_from_the_start_of_their_line() {
        let mut window = Window::new();
        window.push(whole("one\ntwo\nthree\n"));
        send_all(&mut window);
        window.on_count(9).unwrap();
        assert_eq!(window.take_handed_over().lines, 2);
        window.on_broken();
        assert_eq!(send_all(&mut window), b"three\n");
        assert_eq!(window.on_count(7), Err(CountTooHigh));
        window.on_count(6).unwrap();
        assert!(window.is_empty());
        assert_eq!(
            window.take_handed_over(),
            HandedOver { lines: 1, bytes: 6, entries_before: None }
        );
    }

    #[test]
    fn a_joint_is_not_sent_at_the_start_of_a_connection() {
        let mut window = Window::new();
        window.push(Piece { bytes: b"torn".to_vec(), starts_line: true, ..Piece::default() });
        window.push(Piece::joint());
        window.push(whole("next\n"));
        window.on_written(4);
        window.on_count(4).unwrap();
        window.on_broken();
        assert_eq!(send_all(&mut window), b"next\n");
    }

    proptest! {
        /// Whatever the two sizes are and whatever breaks when, nothing is forgotten too early.
        #[test]
        fn both_sides_may_cut_lines_as_they_like(
            steps in proptest::collection::vec((0..4u8, 1..60usize), 0..120),
            lengths in proptest::collection::vec(0..70usize, 1..20),
            (mine, its) in (12..40usize, 1..50usize),
        ) {
            use engine::ingest::lines::LineSplitter;
            let mut window = Window::new();
            let mut pieces = Vec::new();
            let mut splitter = super::super::piece::LinePieces::new(Vec::new(), mine);
            for (n, len) in lengths.iter().enumerate() {
                let words: Vec<String> = (0..=*len).map(|i| format!("{n}.{i};")).collect();
                let line = words.concat() + "\n";
                splitter.feed(line.as_bytes(), &mut |piece| pieces.push(piece));
            }
            for piece in &pieces {
                window.push(piece.clone());
            }
            let mut kept: Vec<Vec<u8>> = vec![Vec::new()];
            let (mut node, mut taken, mut told) = (LineSplitter::new(its), 0, 0);
            let take = |node: &mut LineSplitter, bytes: &[u8], kept: &mut Vec<Vec<u8>>| {
                let last = kept.last_mut().unwrap();
                node.feed(bytes, &mut |records| {
                    last.extend(records.iter().filter(|b| **b != b'\n'));
                });
            };
            for (what, size) in steps {
                match what {
                    0 | 1 => if let Some(bytes) = window.next_bytes() {
                        let bytes = bytes[..size.min(bytes.len())].to_vec();
                        take(&mut node, &bytes, &mut kept);
                        window.on_written(bytes.len());
                        taken += bytes.len();
                    },
                    2 => {
                        told = (taken - node.partial_len()).min(told + size).max(told);
                        window.on_count(told as u64).unwrap();
                    }
                    _ => {
                        window.on_broken();
                        (node, taken, told) = (LineSplitter::new(its), 0, 0);
                        kept.push(Vec::new());
                    }
                }
            }
            let rest = send_all(&mut window);
            take(&mut node, &rest, &mut kept);
            prop_assert_eq!(node.partial_len(), 0);
            window.on_count((taken + rest.len()) as u64).unwrap();
            prop_assert!(window.is_empty());
            let done = window.take_handed_over();
            let bytes: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
            prop_assert_eq!((done.lines, done.bytes), (lengths.len() as u64, bytes as u64));
            for piece in &pieces {
                for line in piece.bytes.split(|b| *b == b'\n') {
                    let is_kept = kept.iter().any(|k| memchr::memmem::find(k, line).is_some());
                    prop_assert!(is_kept, "{} is missing", String::from_utf8_lossy(line));
                }
            }
        }

        /// Whatever breaks when, each line is delivered, and only what was not counted twice.
        #[test]
        fn every_line_arrives_at_least_once_and_counted_ones_exactly_once(
            steps in proptest::collection::vec((0..4u8, 1..9usize), 0..80),
            lines in 1..40usize,
        ) {
            let mut window = Window::new();
            let texts: Vec<String> = (0..lines).map(|n| format!("line {n}")).collect();
            for pair in texts.chunks(3) {
                window.push(whole(&(pair.join("\n") + "\n")));
            }
            let (mut node, mut kept): (Vec<u8>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
            let (mut on_connection, mut told) = (0, 0);
            let mut taken = Vec::new();
            let mut absorb = |node: &mut Vec<u8>, on_connection: &mut u64| {
                while let Some(lf) = memchr::memchr(b'\n', node) {
                    taken.push(node.drain(..=lf).collect::<Vec<u8>>());
                    *on_connection += lf as u64 + 1;
                }
            };
            for (what, size) in steps {
                match what {
                    0 | 1 => if let Some(bytes) = window.next_bytes() {
                        let len = size.min(bytes.len());
                        node.extend_from_slice(&bytes[..len]);
                        window.on_written(len);
                        absorb(&mut node, &mut on_connection);
                    },
                    2 => { told = on_connection.min(told + size as u64); window.on_count(told).unwrap(); }
                    _ => { window.on_broken(); node.clear(); on_connection = 0; told = 0; }
                }
            }
            node.extend(send_all(&mut window));
            absorb(&mut node, &mut on_connection);
            window.on_count(on_connection).unwrap();
            prop_assert!(window.is_empty());
            prop_assert_eq!(window.held_bytes(), 0);
            prop_assert_eq!(window.take_handed_over().lines, lines as u64);
            kept.extend(taken);
            for text in &texts {
                let line = format!("{text}\n").into_bytes();
                prop_assert!(kept.contains(&line), "{} is missing", text);
            }
        }
    }
}
