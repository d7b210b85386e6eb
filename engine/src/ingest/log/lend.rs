//! Receiving into the frame: a sender in bulk is read straight to where its text is written from,
//! which saves the copy that [`ShardLog::append`] makes.
//!
//! Invariants: what is put into lent memory is no record, and nobody sees it, until
//! [`ShardLog::take_lent`] makes records of it; whatever else the log is asked to do meanwhile may
//! write over it.

use super::{Now, ShardLog, Stamped};
use crate::ingest::topics::INVALID_NUMBER;
use crate::topic::{INVALID_TOPIC, Topic};

impl ShardLog {
    /// Lends the memory behind the staged text, as far as it goes: first a copy of `held`, the start
    /// of a line, then at least `bytes_min` free bytes, which are returned. A staging frame with
    /// less room is closed; `None` if even an empty one has less.
    pub fn lend(&mut self, held: &[u8], bytes_min: usize) -> Option<&mut [u8]> {
        let wanted = held.len() + bytes_min;
        if self.staging.room() < wanted && !self.staging.is_empty() {
            self.queue_staging();
        }
        let room = self.staging.room();
        if room < wanted {
            return None;
        }
        let (line_start, free) = self.staging.spare()[..room].split_at_mut(held.len());
        line_start.copy_from_slice(held);
        Some(free)
    }

    /// Makes records of the first `len` bytes of what was lent last, `held` included: whole lines,
    /// none longer than the record size.
    pub fn take_lent(&mut self, len: usize, topic: &Topic, now: Now) -> Stamped {
        let lent = &self.staging.spare()[..len];
        assert!(lent.last() == Some(&b'\n'), "whole lines are taken");
        let start = self.position;
        let number = self.topics.number_of(topic.as_str().as_bytes());
        let (first, last) = self.stage_spare(len, number, now);
        let records = self.position - start;
        let is_invalid = number == INVALID_NUMBER && topic.as_str() != INVALID_TOPIC;
        self.stats.records += records;
        self.stats.text_bytes += len as u64;
        Stamped {
            first,
            last,
            records,
            end: self.position,
            invalid_topics: if is_invalid { records } else { 0 },
        }
    }
}
