//! From the bytes of a request body to batches of whole lines.
//!
//! Invariants: batches concatenated are the body, with an LF added where a line is longer than
//! the maximum (it is cut into records of that size) and behind a last line without one; no
//! record inside a batch is longer than the maximum; a batch is at most the target size, or one
//! single line. Holds at most one batch.

use bytes::{Bytes, BytesMut};

/// Cuts a body into batches.
#[derive(Debug)]
pub(super) struct LineBatches {
    record_bytes_max: usize,
    batch_bytes_max: usize,
    /// Everything that is not handed out yet; no batch can be made of it.
    held: BytesMut,
    /// Bytes of `held` that form whole lines.
    whole: usize,
    /// Records that were cut from longer lines.
    pub(super) cut_records: u64,
}

impl LineBatches {
    /// Nothing yet. Both sizes in bytes, the first without LF.
    pub(super) fn new(record_bytes_max: usize, batch_bytes_max: usize) -> Self {
        Self { record_bytes_max, batch_bytes_max, held: BytesMut::new(), whole: 0, cut_records: 0 }
    }

    /// Takes bytes, as many as make the next batch, and removes them from `input`. Called until
    /// `input` is empty.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Option<Bytes> {
        while !input.is_empty() {
            let partial = self.held.len() - self.whole;
            // One byte more than a record may have tells whether the line ends there.
            let room = self.record_bytes_max + 1 - partial;
            let window = &input[..input.len().min(room)];
            let line_end = memchr(window);
            let line_len = partial + line_end.map_or(window.len() + 1, |at| at + 1);
            if self.whole > 0 && self.whole + line_len > self.batch_bytes_max {
                return Some(self.hand_out());
            }
            match line_end {
                Some(at) => {
                    self.held.extend_from_slice(&window[..=at]);
                    *input = &input[at + 1..];
                    self.whole = self.held.len();
                }
                None if window.len() < room => {
                    self.held.extend_from_slice(window);
                    *input = &[];
                }
                None => {
                    // The line goes on: a record ends here, without its last byte seen.
                    self.held.extend_from_slice(&window[..room - 1]);
                    self.held.extend_from_slice(b"\n");
                    *input = &input[room - 1..];
                    self.whole = self.held.len();
                    self.cut_records += 1;
                }
            }
            if self.whole >= self.batch_bytes_max {
                return Some(self.hand_out());
            }
        }
        None
    }

    /// The whole lines that wait for more, as a batch.
    pub(super) fn take_waiting(&mut self) -> Option<Bytes> {
        (self.whole > 0).then(|| self.hand_out())
    }

    /// Length of the unfinished line, bytes.
    pub(super) fn partial_bytes(&self) -> usize {
        self.held.len() - self.whole
    }

    /// The unfinished line is a long one: has room for all that it may become, and for its LF, so
    /// that it need not grow.
    pub(super) fn reserve_line(&mut self) {
        let room = self.whole + self.record_bytes_max + 2;
        self.held.reserve(room.saturating_sub(self.held.len()));
    }

    /// Holds no more memory than what is in it.
    pub(super) fn shrink(&mut self) {
        self.held = BytesMut::from(&self.held[..]);
    }

    /// The whole lines that are left, and with `keep_partial` a last one without LF.
    pub(super) fn finish(&mut self, keep_partial: bool) -> Option<Bytes> {
        if keep_partial && self.held.len() > self.whole {
            self.held.extend_from_slice(b"\n");
            self.whole = self.held.len();
        }
        (self.whole > 0).then(|| self.hand_out())
    }

    fn hand_out(&mut self) -> Bytes {
        let batch = self.held.split_to(self.whole).freeze();
        self.whole = 0;
        if batch.len() > self.batch_bytes_max {
            // What follows must not keep a long line's memory.
            self.shrink();
        }
        batch
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(pieces: &[Vec<u8>], record_max: usize, batch_max: usize) -> (Vec<Bytes>, u64) {
        let mut batches = LineBatches::new(record_max, batch_max);
        let mut out = Vec::new();
        for piece in pieces {
            let mut input = piece.as_slice();
            while let Some(batch) = batches.take(&mut input) {
                out.push(batch);
            }
            assert!(input.is_empty());
        }
        let cut = batches.cut_records;
        out.extend(batches.finish(true));
        (out, cut)
    }

    /// Ten lines that say what should come out.
    fn model(body: &[u8], record_max: usize) -> (Vec<u8>, u64) {
        let (mut out, mut cut) = (Vec::new(), 0);
        let mut lines: Vec<_> = body.split(|&b| b == b'\n').collect();
        if lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        for line in lines {
            let records: Vec<_> = line.chunks(record_max).collect();
            cut += records.len().saturating_sub(1) as u64;
            out.extend(records.join(&b'\n'));
            out.push(b'\n');
        }
        (out, cut)
    }

    proptest! {
        #[test]
        fn batches_are_the_lines_of_the_body(
            pieces in prop::collection::vec(prop::collection::vec(
                prop_oneof![3 => Just(b'a'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..40), 0..8),
            record_max in 1_usize..12,
            batch_max in 1_usize..30,
        ) {
            let (batches, cut) = run(&pieces, record_max, batch_max);
            prop_assert_eq!((batches.concat(), cut), model(&pieces.concat(), record_max));
            for batch in batches {
                prop_assert!(batch.ends_with(b"\n"));
                let lines = memchr::memchr_iter(b'\n', &batch).count();
                prop_assert!(batch.len() <= batch_max || lines == 1, "{:?}", batch);
            }
        }
    }

    #[test]
    fn a_partial_line_is_dropped_where_it_is_not_to_be_kept() {
        let mut batches = LineBatches::new(100, 100);
        let mut input = &b"whole\npart"[..];
        assert_eq!(batches.take(&mut input), None);
        assert_eq!(batches.finish(false), Some(Bytes::from_static(b"whole\n")));
    }
}
