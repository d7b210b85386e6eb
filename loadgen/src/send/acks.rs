//! Acknowledgements of one connection: which bytes wait for theirs, and how long each waited.
//!
//! A reply is a little-endian u64: the records of the connection so far for which the port's
//! promise holds. Invariants: replies never go back and never exceed what was sent; a piece is
//! acknowledged when all records that end in it are, and its records share its latency.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

/// Highest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;
const REPLY_BYTES: usize = 8;

/// Bytes that were written together and wait for their acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Piece {
    records_end: u64,
    bytes_end: u64,
    sent_us: u64,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Acks {
    waiting: VecDeque<Piece>,
    acked_records: u64,
    acked_bytes: u64,
    sent_records: u64,
    /// Records of the pieces that are acknowledged.
    settled_records: u64,
    partial: [u8; REPLY_BYTES],
    partial_len: usize,
    /// Microseconds from sending (or being due) to acknowledgement, one count per record.
    latency: Histogram<u64>,
}

impl Acks {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            acked_records: 0,
            acked_bytes: 0,
            sent_records: 0,
            settled_records: 0,
            partial: [0; REPLY_BYTES],
            partial_len: 0,
            latency: new_histogram(),
        }
    }

    /// Bytes were written: the records of the connection that ended so far.
    pub(crate) const fn wrote(&mut self, records_end: u64) {
        self.sent_records = records_end;
    }

    /// A piece was written whole: totals of the connection behind it, and when it was sent.
    pub(crate) fn sent(&mut self, records_end: u64, bytes_end: u64, sent_us: u64, now_us: u64) {
        self.sent_records = records_end;
        self.waiting.push_back(Piece { records_end, bytes_end, sent_us });
        // Its records may be acknowledged already, if it ends inside a line.
        self.settle(now_us);
    }

    /// Records that were sent whole and are not acknowledged.
    pub(crate) const fn waiting_records(&self) -> u64 {
        self.sent_records - self.acked_records
    }

    /// Bytes up to which everything is acknowledged.
    pub(crate) const fn acked_bytes(&self) -> u64 {
        self.acked_bytes
    }

    /// Records that are acknowledged.
    pub(crate) const fn acked_records(&self) -> u64 {
        self.acked_records
    }

    pub(crate) const fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// Takes bytes from the node.
    pub(crate) fn received(&mut self, mut bytes: &[u8], now_us: u64) -> Result<(), String> {
        while !bytes.is_empty() {
            let take = bytes.len().min(REPLY_BYTES - self.partial_len);
            self.partial[self.partial_len..self.partial_len + take].copy_from_slice(&bytes[..take]);
            self.partial_len += take;
            bytes = &bytes[take..];
            if self.partial_len == REPLY_BYTES {
                self.partial_len = 0;
                self.acknowledged(u64::from_le_bytes(self.partial), now_us)?;
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, records: u64, now_us: u64) -> Result<(), String> {
        if records < self.acked_records {
            let before = self.acked_records;
            return Err(format!("acknowledgements went back from {before} to {records} records"));
        }
        if records > self.sent_records {
            let sent = self.sent_records;
            return Err(format!("{records} records acknowledged, but only {sent} were sent"));
        }
        self.acked_records = records;
        self.settle(now_us);
        Ok(())
    }

    fn settle(&mut self, now_us: u64) {
        let acked = self.acked_records;
        while let Some(piece) = self.waiting.front().filter(|piece| piece.records_end <= acked) {
            let records = piece.records_end - self.settled_records;
            if records > 0 {
                let latency_us = now_us.saturating_sub(piece.sent_us).max(1);
                self.latency.saturating_record_n(latency_us, records);
            }
            self.settled_records = piece.records_end;
            self.acked_bytes = piece.bytes_end;
            self.waiting.pop_front();
        }
    }
}

/// An empty histogram of microseconds, three digits precise.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are constants and valid")
}

/// Counts records in a stream of bytes, as a node cuts them.
#[derive(Debug)]
pub(crate) struct RecordCounter {
    line_bytes: u64,
    record_bytes_max: u64,
}

impl RecordCounter {
    pub(crate) const fn new(record_bytes_max: u64) -> Self {
        Self { line_bytes: 0, record_bytes_max }
    }

    /// Records that end in the next bytes: lines, more for one that is longer than a record.
    pub(crate) fn count(&mut self, bytes: &[u8]) -> u64 {
        let (mut records, mut start) = (0, 0);
        for newline in memchr::memchr_iter(b'\n', bytes) {
            self.line_bytes += (newline - start) as u64;
            records += self.line_bytes.div_ceil(self.record_bytes_max).max(1);
            self.line_bytes = 0;
            start = newline + 1;
        }
        self.line_bytes += (bytes.len() - start) as u64;
        records
    }

    /// Records in an unfinished last line.
    pub(crate) const fn finish(&mut self) -> u64 {
        let records = self.line_bytes.div_ceil(self.record_bytes_max);
        self.line_bytes = 0;
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_each_record_from_the_sending_of_its_piece() {
        let mut acks = Acks::new();
        acks.sent(3, 300, 1000, 1000);
        acks.sent(5, 500, 2000, 2000);
        acks.received(&3u64.to_le_bytes(), 1500).unwrap();
        assert_eq!((acks.acked_bytes(), acks.waiting_records()), (300, 2));
        acks.received(&4u64.to_le_bytes(), 2500).unwrap();
        assert_eq!((acks.acked_bytes(), acks.waiting_records()), (300, 1));
        acks.received(&5u64.to_le_bytes(), 3000).unwrap();
        assert_eq!((acks.acked_bytes(), acks.waiting_records()), (500, 0));
        assert_eq!((acks.latency().count_at(500), acks.latency().count_at(1000)), (3, 2));
    }

    #[test]
    fn replies_may_arrive_in_pieces() {
        let mut acks = Acks::new();
        acks.sent(2, 20, 0, 0);
        let mut bytes = 1u64.to_le_bytes().to_vec();
        bytes.extend(2u64.to_le_bytes());
        for (now_us, byte) in bytes.iter().enumerate() {
            acks.received(&[*byte], now_us as u64).unwrap();
        }
        assert_eq!(acks.acked_records(), 2);
    }

    #[test]
    fn a_piece_whose_records_are_acknowledged_before_it_is_written_whole_is_settled() {
        let mut acks = Acks::new();
        acks.wrote(2);
        acks.received(&2u64.to_le_bytes(), 10).unwrap();
        acks.sent(2, 25, 0, 20);
        assert_eq!((acks.acked_bytes(), acks.latency().len()), (25, 2));
    }

    #[test]
    fn replies_that_cannot_be_true_are_errors() {
        let mut acks = Acks::new();
        acks.sent(2, 20, 0, 0);
        assert!(acks.received(&3u64.to_le_bytes(), 1).unwrap_err().contains("only 2"));
        acks.received(&2u64.to_le_bytes(), 1).unwrap();
        assert!(acks.received(&1u64.to_le_bytes(), 1).unwrap_err().contains("went back"));
    }

    #[test]
    fn long_lines_are_several_records() {
        let mut counter = RecordCounter::new(4);
        assert_eq!(counter.count(b"\nabcd\nabcde\nabc"), 1 + 1 + 2);
        assert_eq!(counter.count(b"defghi\nx"), 3);
        assert_eq!((counter.finish(), counter.finish()), (1, 0));
    }
}
