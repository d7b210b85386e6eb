//! Run tables: which records a chunk's text holds, without touching the text.
//!
//! A *run* is consecutive records of one stream, one topic and one millisecond. A table is a topic
//! dictionary, a stream dictionary and one small entry per run, all as variable-length integers
//! with deltas; `docs/format-ingest.md` §2 has the grammar and a worked example. Stamping a batch of
//! lines costs one run, not one ULID per line.
//!
//! Invariants: runs are in ULID order and do not overlap; `count` ≥ 1; record and text totals are
//! those that the chunk's header claims (checked on decoding).

use std::ops::Range;

use crate::limits::{DICTIONARY_TOPICS_MAX, RUN_TABLE_BYTES_MAX};
use crate::topic::Topic;
use crate::ulid::{MS_MAX, PART_MAX, Ulid};
use crate::varint::{self, Reader};

/// Consecutive records of one stream, topic and millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// ULID of the first record; the others follow by counting up.
    pub first: Ulid,
    /// Records, at least 1.
    pub count: u32,
    /// Bytes of text, LFs included.
    pub text_len: u32,
    /// Index into the table's topics.
    pub topic: u16,
}

impl Run {
    /// ULID of the last record.
    pub const fn last(&self) -> Ulid {
        self.first.plus(self.count as u64 - 1)
    }
}

/// The runs of one chunk with their topic dictionary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunTable {
    /// Topic dictionary; runs point into it.
    pub topics: Vec<Topic>,
    /// Runs in ULID order.
    pub runs: Vec<Run>,
}

/// Why bytes are not a run table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotARunTable(pub &'static str);

impl RunTable {
    /// Index of `topic` in the dictionary, added if it is new. `None` when the dictionary is full:
    /// the chunk has to end first.
    pub fn topic_index(&mut self, topic: &Topic) -> Option<u16> {
        if let Some(found) = self.topics.iter().position(|t| t == topic) {
            return Some(found as u16);
        }
        if self.topics.len() >= DICTIONARY_TOPICS_MAX {
            return None;
        }
        self.topics.push(topic.clone());
        Some((self.topics.len() - 1) as u16)
    }

    /// Appends a run, joined to the last one when it continues it.
    pub fn push(&mut self, run: Run) {
        if let Some(last) = self.runs.last_mut() {
            assert!(last.last() < run.first, "runs are pushed in ULID order");
            let joined = u64::from(last.text_len) + u64::from(run.text_len);
            if last.topic == run.topic
                && last.last().0 + 1 == run.first.0
                && last.first.ms() == run.first.ms()
                && u32::try_from(joined).is_ok()
            {
                last.count += run.count;
                last.text_len = joined as u32;
                return;
            }
        }
        self.runs.push(run);
    }

    /// Records of all runs.
    pub fn record_count(&self) -> u64 {
        self.runs.iter().map(|r| u64::from(r.count)).sum()
    }

    /// Text of all runs, bytes.
    pub fn text_len(&self) -> u64 {
        self.runs.iter().map(|r| u64::from(r.text_len)).sum()
    }

    /// First and last ULID, unless there are no runs.
    pub fn range(&self) -> Option<(Ulid, Ulid)> {
        Some((self.runs.first()?.first, self.runs.last()?.last()))
    }

    /// Each run with the span of its text.
    pub fn spans(&self) -> impl Iterator<Item = (&Run, Range<usize>)> {
        let mut start = 0;
        self.runs.iter().map(move |run| {
            let end = start + run.text_len as usize;
            let span = start..end;
            start = end;
            (run, span)
        })
    }

    /// Whether `text` is made of as many lines per run as the runs count.
    pub fn describes(&self, text: &[u8]) -> bool {
        self.text_len() == text.len() as u64
            && self.spans().all(|(run, span)| {
                let text = &text[span];
                text.last() == Some(&b'\n')
                    && memchr::memchr_iter(b'\n', text).count() == run.count as usize
            })
    }

    /// Appends the encoded table to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.topics.len() as u64);
        for topic in &self.topics {
            varint::put(out, topic.as_str().len() as u64);
            out.extend_from_slice(topic.as_str().as_bytes());
        }
        let mut streams: Vec<(u64, u64)> = Vec::new(); // (stream, expected next counter)
        for run in &self.runs {
            let stream = run.first.stream();
            if !streams.iter().any(|&(s, _)| s == stream) {
                streams.push((stream, run.first.counter()));
            }
        }
        varint::put(out, streams.len() as u64);
        for &(stream, counter) in &streams {
            varint::put(out, stream);
            varint::put(out, counter);
        }
        varint::put(out, self.runs.len() as u64);
        let mut ms = 0;
        for run in &self.runs {
            let index = streams.iter().position(|&(s, _)| s == run.first.stream());
            let index = index.expect("every stream was entered above");
            varint::put(out, index as u64);
            varint::put(out, u64::from(run.topic));
            varint::put(out, run.first.ms() - ms);
            let expected = &mut streams[index].1;
            varint::put_signed(out, run.first.counter() as i64 - *expected as i64);
            varint::put(out, u64::from(run.count));
            varint::put(out, u64::from(run.text_len));
            ms = run.first.ms();
            *expected = run.first.counter() + u64::from(run.count);
        }
    }

    /// Reads a table that must hold exactly these totals; every byte must be used.
    pub fn decode(bytes: &[u8], record_count: u64, text_len: u64) -> Result<Self, NotARunTable> {
        if bytes.len() > RUN_TABLE_BYTES_MAX {
            return Err(NotARunTable("table is too long"));
        }
        let mut reader = Reader::new(bytes);
        let topics = decode_topics(&mut reader).ok_or(NotARunTable("topic dictionary"))?;
        let mut streams = decode_streams(&mut reader).ok_or(NotARunTable("stream dictionary"))?;
        let runs = decode_runs(&mut reader, topics.len(), &mut streams)?;
        let table = Self { topics, runs };
        if !reader.is_empty() {
            return Err(NotARunTable("bytes after the last run"));
        }
        if table.record_count() != record_count || table.text_len() != text_len {
            return Err(NotARunTable("totals"));
        }
        Ok(table)
    }
}

fn decode_topics(reader: &mut Reader<'_>) -> Option<Vec<Topic>> {
    let count = reader.varint()?;
    if count > DICTIONARY_TOPICS_MAX as u64 {
        return None;
    }
    let mut topics = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(reader.varint()?).ok()?;
        topics.push(Topic::new(reader.bytes(len)?).ok()?);
    }
    Some(topics)
}

fn decode_streams(reader: &mut Reader<'_>) -> Option<Vec<(u64, u64)>> {
    let count = reader.varint()?;
    let mut streams = Vec::new();
    for _ in 0..count {
        let (stream, counter) = (reader.varint()?, reader.varint()?);
        if stream > PART_MAX || counter > PART_MAX {
            return None;
        }
        streams.push((stream, counter));
    }
    Some(streams)
}

fn decode_runs(
    reader: &mut Reader<'_>,
    topic_count: usize,
    streams: &mut [(u64, u64)],
) -> Result<Vec<Run>, NotARunTable> {
    const SHORT: NotARunTable = NotARunTable("run list ends early");
    let count = reader.varint().ok_or(SHORT)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut ms = 0u64;
    for _ in 0..count {
        let stream = reader.varint().ok_or(SHORT)?;
        let topic = reader.varint().ok_or(SHORT)?;
        let ms_delta = reader.varint().ok_or(SHORT)?;
        let counter_delta = reader.signed().ok_or(SHORT)?;
        let records = reader.varint().ok_or(SHORT)?;
        let text_len = reader.varint().ok_or(SHORT)?;
        let slot = usize::try_from(stream).ok().and_then(|i| streams.get_mut(i));
        let (stream, expected) = slot.ok_or(NotARunTable("stream of a run"))?;
        if topic >= topic_count as u64 {
            return Err(NotARunTable("topic of a run"));
        }
        ms = ms.checked_add(ms_delta).filter(|&m| m <= MS_MAX).ok_or(NotARunTable("time"))?;
        let counter = expected
            .checked_add_signed(counter_delta)
            .filter(|c| c.checked_add(records).is_some_and(|end| end <= PART_MAX + 1))
            .ok_or(NotARunTable("counter"))?;
        // Each record has at least its LF.
        if records == 0 || text_len < records || u32::try_from(text_len).is_err() {
            return Err(NotARunTable("size of a run"));
        }
        let run = Run {
            first: Ulid::from_parts(ms, *stream, counter),
            count: records as u32,
            text_len: text_len as u32,
            topic: topic as u16,
        };
        if runs.last().is_some_and(|last| last.last() >= run.first) {
            return Err(NotARunTable("order of runs"));
        }
        *expected = counter + records;
        runs.push(run);
    }
    Ok(runs)
}

/// Byte offset behind record number `count` of a run's text (each record ends in LF): where the
/// text is cut when the first `count` records are taken off. `None` if there are fewer.
pub fn offset_after(text: &[u8], count: u64) -> Option<usize> {
    match count {
        0 => Some(0),
        n => memchr::memchr_iter(b'\n', text).nth((n - 1) as usize).map(|at| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Random runs in order, with several streams and topics.
    fn tables() -> impl Strategy<Value = RunTable> {
        let run = (0..3u64, 0..3u16, 0..4u64, 1..50u32, 0..500u32);
        proptest::collection::vec(run, 0..60).prop_map(|parts| {
            let mut table = RunTable::default();
            for name in ["a", "web-1", "Z_9"] {
                table.topic_index(&Topic::new(name.as_bytes()).unwrap());
            }
            let (mut ms, mut counters) = (1_700_000_000_000, [5u64, 70_000, PART_MAX / 2]);
            for (stream, topic, ms_delta, count, text) in parts {
                ms += ms_delta;
                let counter = &mut counters[stream as usize];
                let first = Ulid::from_parts(ms, stream + 9, *counter);
                if table.runs.last().is_some_and(|last| last.last() >= first) {
                    continue;
                }
                *counter += u64::from(count) + u64::from(text % 2);
                table.push(Run { first, count, text_len: count + text, topic });
            }
            table
        })
    }

    proptest! {
        #[test]
        fn tables_round_trip(table in tables()) {
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            let back = RunTable::decode(&bytes, table.record_count(), table.text_len());
            prop_assert_eq!(back, Ok(table));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>, records in 0..9u64, text in 0..99u64) {
            let _ = RunTable::decode(&bytes, records, text);
        }

        #[test]
        fn a_flipped_byte_is_never_a_panic(table in tables(), at: usize, bit in 0..8u32) {
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = RunTable::decode(&bytes, table.record_count(), table.text_len());
        }
    }

    #[test]
    fn a_batch_of_lines_in_one_millisecond_is_one_run() {
        let mut table = RunTable::default();
        let topic = table.topic_index(&Topic::new(b"t").unwrap()).unwrap();
        for i in 0..1000 {
            table.push(Run { first: Ulid::from_parts(7, 1, i), count: 1, text_len: 10, topic });
        }
        assert_eq!(table.runs.len(), 1);
        assert_eq!((table.record_count(), table.text_len()), (1000, 10_000));
    }

    #[test]
    fn a_thousand_interleaved_topics_cost_at_most_a_tenth() {
        let mut table = RunTable::default();
        let topics: Vec<u16> = (0..1000)
            .map(|i| table.topic_index(&Topic::new(format!("topic-{i}").as_bytes()).unwrap()))
            .map(|i| i.unwrap())
            .collect();
        let records = (crate::limits::BLOCK_TEXT_TARGET / 143) as u64;
        for i in 0..records {
            let topic = topics[i as usize % topics.len()];
            let first = Ulid::from_parts(1_700_000_000_000, 1, i);
            table.push(Run { first, count: 1, text_len: 143, topic });
        }
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert!(bytes.len() as u64 * 10 <= table.text_len(), "{} bytes", bytes.len());
    }

    #[test]
    fn a_table_describes_only_text_with_its_lines() {
        let mut table = RunTable::default();
        let topic = table.topic_index(&Topic::new(b"t").unwrap()).unwrap();
        table.push(Run { first: Ulid::from_parts(7, 1, 0), count: 2, text_len: 4, topic });
        table.push(Run { first: Ulid::from_parts(8, 1, 2), count: 1, text_len: 2, topic });
        assert!(table.describes(b"a\nb\nc\n"));
        for other in [&b"a\nb\nc"[..], b"a\nb\nc\n\n", b"a\nbc\n\n", b"a\n\n\nc\n", b""] {
            assert!(!table.describes(other), "{other:?}");
        }
    }

    #[test]
    fn cutting_behind_a_record_counts_line_feeds() {
        assert_eq!(offset_after(b"a\n\nbc\n", 0), Some(0));
        assert_eq!(offset_after(b"a\n\nbc\n", 2), Some(3));
        assert_eq!(offset_after(b"a\n\nbc\n", 3), Some(6));
        assert_eq!(offset_after(b"a\n", 2), None);
    }
}
