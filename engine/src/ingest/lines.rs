//! From a connection's bytes to whole lines.
//!
//! Invariants: every byte comes out exactly once, in order; each batch that is handed out consists
//! of whole records, each ended by LF. A line longer than the record size is cut into records of
//! exactly that size (the rest is a record of its own) and each cut is counted. Whole lines are
//! handed out where they lie; only what straddles two chunks is copied. The memory held is at most
//! one record; a long line costs time linear in its length however it is chunked.

use memchr::{memchr, memchr_iter, memrchr};

const LF: u8 = b'\n';

/// Splits the bytes of one connection.
#[derive(Debug)]
pub struct LineSplitter {
    record_size_max: usize,
    /// A line whose LF has not come, without it; shorter than `record_size_max` between calls.
    partial: Vec<u8>,
    /// Whether the partial line continues one that was cut exactly at the record size, so that an
    /// LF right behind the cut ends that line and is no empty record.
    after_cut: bool,
    cuts: u64,
}

impl LineSplitter {
    /// `record_size_max` in bytes, without LF; at least 1.
    pub fn new(record_size_max: usize) -> Self {
        assert!(record_size_max > 0, "a record has room for a byte");
        Self { record_size_max, partial: Vec::new(), after_cut: false, cuts: 0 }
    }

    /// Takes the next bytes; hands whole records to `sink`, in batches.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = bytes;
        if !self.partial.is_empty() || self.after_cut {
            rest = self.complete_partial(rest, sink);
        }
        let Some(end) = memrchr(LF, rest) else {
            self.keep(rest, sink);
            return;
        };
        let (whole, tail) = rest.split_at(end + 1);
        self.hand_out(whole, sink);
        self.keep(tail, sink);
    }

    /// Ends the partial line with what has come of it; says what is behind its LF.
    fn complete_partial<'a>(&mut self, bytes: &'a [u8], sink: &mut impl FnMut(&[u8])) -> &'a [u8] {
        let Some(end) = memchr(LF, bytes) else { return bytes };
        self.keep(&bytes[..end], sink);
        if self.partial.is_empty() && self.after_cut {
            // The line ended where it was cut: its last record is out.
            self.after_cut = false;
        } else {
            self.flush_partial(sink);
        }
        &bytes[end + 1..]
    }

    /// Whole lines: as one batch, unless one of them is too long.
    fn hand_out(&mut self, whole: &[u8], sink: &mut impl FnMut(&[u8])) {
        if whole.len() <= self.record_size_max + 1 {
            sink(whole);
            return;
        }
        let mut batch_start = 0;
        let mut line_start = 0;
        for line_end in memchr_iter(LF, whole) {
            if line_end - line_start > self.record_size_max {
                if batch_start < line_start {
                    sink(&whole[batch_start..line_start]);
                }
                self.keep(&whole[line_start..line_end], sink);
                if self.partial.is_empty() {
                    self.after_cut = false;
                } else {
                    self.flush_partial(sink);
                }
                batch_start = line_end + 1;
            }
            line_start = line_end + 1;
        }
        if batch_start < whole.len() {
            sink(&whole[batch_start..]);
        }
    }

    /// Adds bytes without LF to the partial line, cut into records whenever more than one fills.
    fn keep(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.partial.len() == self.record_size_max {
                self.cuts += 1;
                self.flush_partial(sink);
                self.after_cut = true;
            }
            let room = self.record_size_max - self.partial.len();
            let (head, tail) = rest.split_at(room.min(rest.len()));
            self.partial.extend_from_slice(head);
            rest = tail;
        }
    }

    fn flush_partial(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.partial.push(LF);
        sink(&self.partial);
        self.after_cut = false;
        self.partial.clear();
        // A long line must not pin its memory for the rest of the connection.
        self.partial.shrink_to(PARTIAL_KEPT_BYTES);
    }

    /// The connection ended: what has come of an unfinished line is a record. Says whether there
    /// was one.
    pub fn finish(&mut self, sink: &mut impl FnMut(&[u8])) -> bool {
        let any = !self.partial.is_empty();
        if any {
            self.flush_partial(sink);
        }
        self.after_cut = false;
        any
    }

    /// Throws the unfinished line away: its sender will send it again. Says its length, bytes.
    pub fn discard(&mut self) -> usize {
        self.after_cut = false;
        std::mem::take(&mut self.partial).len()
    }

    /// The memory budget is used up: hands the unfinished line out as a record and counts the cut.
    pub fn cut_partial(&mut self, sink: &mut impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            self.cuts += 1;
            self.flush_partial(sink);
            self.partial = Vec::new();
            self.after_cut = true;
        }
    }

    /// The unfinished line, without LF.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// How many bytes may come before any line can be longer than a record; 0 right behind a cut,
    /// where an LF means something else.
    pub const fn uncut_bytes(&self) -> usize {
        if self.after_cut { 0 } else { self.record_size_max - self.partial.len() }
    }

    /// Takes the next bytes, at most [`LineSplitter::uncut_bytes`], which lie right behind a copy of
    /// the unfinished line. Says how many bytes, that copy included, are whole records now; what is
    /// behind them is the unfinished line.
    pub fn take_behind_partial(&mut self, bytes: &[u8]) -> usize {
        debug_assert!(bytes.len() <= self.uncut_bytes());
        let Some(end) = memrchr(LF, bytes) else {
            self.partial.extend_from_slice(bytes);
            return 0;
        };
        let whole = self.partial.len() + end + 1;
        self.partial.clear();
        self.partial.shrink_to(PARTIAL_KEPT_BYTES);
        self.partial.extend_from_slice(&bytes[end + 1..]);
        whole
    }

    /// Bytes of the unfinished line.
    pub const fn partial_len(&self) -> usize {
        self.partial.len()
    }

    /// Memory held, bytes.
    pub const fn memory_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Cuts so far: a line cut into three records counts two.
    pub const fn cuts(&self) -> u64 {
        self.cuts
    }
}

/// Memory that a connection keeps for its next partial line, bytes.
const PARTIAL_KEPT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The records of whole input, by definition.
    fn model(bytes: &[u8], max: usize) -> (Vec<Vec<u8>>, u64) {
        let (mut records, mut cuts) = (Vec::new(), 0);
        let mut lines: Vec<&[u8]> = bytes.split(|&b| b == LF).collect();
        if lines.last().is_some_and(|l| l.is_empty()) {
            lines.pop();
        }
        for line in lines {
            if line.is_empty() {
                records.push(Vec::new());
            }
            let pieces: Vec<&[u8]> = line.chunks(max).collect();
            cuts += pieces.len().saturating_sub(1) as u64;
            records.extend(pieces.into_iter().map(<[u8]>::to_vec));
        }
        (records, cuts)
    }

    fn records_of(batch: &[u8]) -> Vec<Vec<u8>> {
        let body = batch.strip_suffix(b"\n").expect("a batch ends in LF");
        body.split(|&b| b == LF).map(<[u8]>::to_vec).collect()
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_records_of_the_whole(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..300),
            cuts in proptest::collection::vec(0..40usize, 1..30),
            max in 1..20usize,
            in_place in 0..3usize,
        ) {
            let mut splitter = LineSplitter::new(max);
            let mut records = Vec::new();
            let mut sink = |batch: &[u8]| records.extend(records_of(batch));
            let mut rest = &bytes[..];
            for (at, len) in cuts.iter().cycle().take(10_000).enumerate() {
                let (head, tail) = rest.split_at((*len).min(rest.len()));
                if at % 2 == in_place && head.len() <= splitter.uncut_bytes() {
                    let lent = [splitter.partial(), head].concat();
                    let whole = splitter.take_behind_partial(head);
                    prop_assert_eq!(splitter.partial(), &lent[whole..]);
                    if whole > 0 {
                        sink(&lent[..whole]);
                    }
                } else {
                    splitter.feed(head, &mut sink);
                }
                rest = tail;
            }
            splitter.feed(rest, &mut sink);
            splitter.finish(&mut sink);
            let (expected, cut_count) = model(&bytes, max);
            prop_assert_eq!(records, expected);
            prop_assert_eq!(splitter.cuts(), cut_count);
        }
    }

    #[test]
    fn whole_lines_are_handed_out_where_they_lie() {
        let mut splitter = LineSplitter::new(100);
        let bytes = b"one\ntwo\n\nthree";
        let mut batches = Vec::new();
        splitter.feed(bytes, &mut |batch| batches.push((batch.as_ptr(), batch.len())));
        assert_eq!(batches, [(bytes.as_ptr(), 9)]);
        assert_eq!(splitter.partial_len(), 5);
        assert_eq!(splitter.discard(), 5);
        assert!(!splitter.finish(&mut |_| panic!("nothing is left")));
    }

    #[test]
    fn a_line_of_100_megabytes_in_small_chunks_takes_linear_time() {
        let mut splitter = LineSplitter::new(1 << 20);
        let chunk = [b'x'; 1500];
        let (mut records, mut bytes) = (0u64, 0u64);
        let mut fed = 0;
        while fed < 100_000_000 {
            splitter.feed(&chunk, &mut |batch| {
                records += 1;
                bytes += batch.len() as u64 - 1;
            });
            fed += chunk.len();
        }
        assert!(splitter.memory_bytes() <= 4 << 20);
        splitter.feed(b"\n", &mut |batch| {
            records += 1;
            bytes += batch.len() as u64 - 1;
        });
        assert_eq!((records, bytes), ((fed as u64).div_ceil(1 << 20), fed as u64));
    }

    #[test]
    fn a_partial_line_that_is_cut_for_memory_goes_on_as_another_record() {
        let mut splitter = LineSplitter::new(100);
        let mut out = Vec::new();
        splitter.feed(b"abc", &mut |b| out.extend_from_slice(b));
        splitter.cut_partial(&mut |b| out.extend_from_slice(b));
        assert_eq!((splitter.memory_bytes(), splitter.cuts()), (0, 1));
        splitter.feed(b"\nnext\n", &mut |b| out.extend_from_slice(b));
        assert_eq!(out, b"abc\nnext\n", "an LF right behind the cut makes no empty record");
    }
}
