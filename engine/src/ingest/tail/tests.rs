//! Slots as their writer leaves them, as a kill leaves them, and with bytes that went bad later, against
//! a plain model of what has to be found and told.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::topic::Topic;

const STREAM: u64 = 5;

fn ulid(counter: u64) -> Ulid {
    Ulid::from_parts(1_000 + counter / 3, STREAM, counter)
}

/// A chunk of so many records from this counter on, each in a run of its own.
fn chunk(place: &ChunkPlace, from: u64, count: u64) -> Vec<u8> {
    let mut table = RunTable::default();
    let mut text = Vec::new();
    for counter in from..from + count {
        let topic = Topic::new([&b"web"[..], b"db"][counter as usize % 2]).unwrap();
        let topic = table.topic_index(&topic).unwrap();
        let line = format!("record {counter}\n");
        let (first, text_len) = (ulid(counter), line.len() as u32);
        table.push(Run { first, count: 1, text_len, topic });
        text.extend_from_slice(line.as_bytes());
    }
    encode_chunk(place, &table, &text)
}

/// A chunk in a slot, and the counters of its records.
type Written = (Range<usize>, Range<u64>);

/// A slot as its writer sees it.
struct Writer {
    bytes: Vec<u8>,
    /// Chunks of the last use.
    chunks: Vec<Written>,
    uses: u32,
    next: u64,
    /// The slot before the last write, and where that was.
    before: (Vec<u8>, Range<usize>),
}

impl Writer {
    fn new() -> Self {
        let mut bytes = EndMark::EMPTY.encode().to_vec();
        bytes.resize(TAIL_SLOT_BYTES, 0);
        let before = (bytes.clone(), 0..0);
        Self { bytes, chunks: Vec::new(), uses: 0, next: 0, before }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.before = (self.bytes.clone(), at..at + bytes.len());
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The next frame, with chunks of so many records.
    fn use_again(&mut self, counts: &[u64]) {
        self.uses += 1;
        self.chunks.clear();
        for (number, &count) in counts.iter().enumerate() {
            let (incarnation, frame_number) = (7 + u64::from(self.uses / 3), self.uses);
            let chunk_number = number as u32;
            let place = ChunkPlace { incarnation, frame_number, chunk_number };
            let mut bytes = chunk(&place, self.next, count);
            let at = self.chunks.last().map_or(0, |(span, _)| span.end);
            self.chunks.push((at..at + bytes.len(), self.next..self.next + count));
            let end = EndMark { incarnation, frame_number, chunk_count: chunk_number + 1 };
            bytes.extend_from_slice(&end.encode());
            self.put(at, &bytes);
            self.next += count;
        }
        // Those of the next frame are in the other slot.
        self.next += 10;
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.put(0, &EndMark::EMPTY.encode());
    }
}

fn counters(slot: &Slot) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let Some(content) = &slot.content else { return found };
    assert!(content.table.describes(&content.text));
    for (run, span) in content.table.spans() {
        let lines = content.text[span].split_inclusive(|&b| b == b'\n');
        for (i, line) in lines.enumerate() {
            let counter = run.first.counter() + i as u64;
            assert_eq!(line, format!("record {counter}\n").as_bytes(), "nothing is altered");
            found.insert(counter);
        }
    }
    found
}

fn is_told(slot: &Slot, counter: u64) -> bool {
    let told = slot.bad.iter().chain(&slot.torn);
    told.into_iter().any(|bad| (bad.range.0..=bad.range.1).contains(&ulid(counter)))
}

fn uses() -> impl Strategy<Value = Vec<Vec<u64>>> {
    proptest::collection::vec(proptest::collection::vec(1..6u64, 1..6), 1..4)
}

fn written(uses: &[Vec<u64>]) -> Writer {
    let mut writer = Writer::new();
    for counts in uses {
        writer.use_again(counts);
    }
    writer
}

fn all_of(chunks: &[Written]) -> BTreeSet<u64> {
    chunks.iter().flat_map(|(_, counters)| counters.clone()).collect()
}

proptest! {
    #![proptest_config(crate::fuzz::cases(300))]

    #[test]
    fn what_is_intact_is_found_and_what_is_not_is_told(
        uses in uses(),
        damage in proptest::collection::vec((any::<Index>(), 1..200usize, 1..255u8), 1..4),
    ) {
        let writer = written(&uses);
        let used = writer.chunks.last().unwrap().0.end + END_BYTES;
        let mut bytes = writer.bytes.clone();
        for (at, len, flip) in damage {
            let at = at.index(used);
            let end = (at + len).min(used);
            bytes[at..end].iter_mut().for_each(|byte| *byte ^= flip);
        }
        let slot = Slot::decode(&bytes);
        let found = counters(&slot);
        let same = |span: &Range<usize>| bytes[span.clone()] == writer.bytes[span.clone()];
        let intact: Vec<Written> =
            writer.chunks.iter().filter(|(span, _)| same(span)).cloned().collect();
        if !intact.is_empty() {
            prop_assert_eq!(&found, &all_of(&intact));
        }
        // Of bad chunks with nothing behind them the first may be all that ever was there.
        let has_end = same(&(used - END_BYTES..used));
        let rest = writer.chunks.iter().rposition(|chunk| intact.contains(chunk));
        let sure = rest.map_or(0, |last| last + 1) + 1;
        let sure = if has_end { writer.chunks.len() } else { sure.min(writer.chunks.len()) };
        for counter in all_of(&writer.chunks[..sure]).difference(&found) {
            prop_assert!(is_told(&slot, *counter), "{counter}: {slot:?}");
        }
        let is_whole = intact.len() == writer.chunks.len();
        prop_assert!(!is_whole || slot.bad.is_empty(), "only the end mark went bad: {slot:?}");
        // What is not the last chunk was whole once, and is damage.
        let is_last = |written: &Written| writer.chunks.last() == Some(written);
        let lacks_more = writer.chunks.iter().any(|w| !intact.contains(w) && !is_last(w));
        let is_behind = intact.iter().any(is_last) || has_end;
        if lacks_more && is_behind {
            prop_assert!(!slot.bad.is_empty(), "{slot:?}");
        }
    }

    #[test]
    fn a_write_that_was_cut_short_is_a_torn_end_and_nothing_else(
        uses in uses(),
        at in any::<Index>(),
    ) {
        let writer = written(&uses);
        let (before, write) = &writer.before;
        let (last, earlier) = writer.chunks.split_last().unwrap();
        // The start of a slot is a sector's: it is written or is not.
        let cuts: Vec<usize> =
            (0..write.len()).filter(|&n| n == 0 || write.start + n >= HEADER_BYTES).collect();
        let cut = cuts[at.index(cuts.len())];
        let mut bytes = before.clone();
        let end = write.start + cut;
        bytes[write.start..end].copy_from_slice(&writer.bytes[write.start..end]);
        let slot = Slot::decode(&bytes);
        prop_assert_eq!(&slot.bad, &[]);
        // What was not written may be what stood there before.
        let has_last = bytes[last.0.clone()] == writer.bytes[last.0.clone()];
        let expected = if has_last { &writer.chunks[..] } else { earlier };
        // The first bytes may be those of the end mark before.
        let is_untouched = bytes == *before;
        if !is_untouched || !earlier.is_empty() {
            prop_assert_eq!(counters(&slot), all_of(expected));
        }
        let has_header = !has_last && cut >= HEADER_BYTES;
        match &slot.torn {
            // The rest of the end mark may be what stood there before.
            None => prop_assert!(is_untouched || bytes == writer.bytes),
            Some(torn) if has_header => {
                prop_assert_eq!(torn.records, Some(last.1.end - last.1.start));
            }
            Some(torn) => prop_assert_eq!(torn.records, None),
        }
        prop_assert!(has_last || is_untouched || is_told(&slot, last.1.start));
    }

    #[test]
    fn what_an_earlier_use_left_behind_is_nothing(uses in uses(), is_cleared: bool) {
        let mut writer = written(&uses);
        if is_cleared {
            writer.clear();
            let slot = Slot::decode(&writer.bytes);
            prop_assert!(slot.is_empty(), "{slot:?}");
        }
        let slot = Slot::decode(&writer.bytes);
        prop_assert!(slot.is_whole(), "{slot:?}");
        prop_assert_eq!(counters(&slot), all_of(&writer.chunks));
        // Where the file was cut behind the end nothing is lost either.
        let used = writer.chunks.last().map_or(0, |(span, _)| span.end) + END_BYTES;
        prop_assert_eq!(Slot::decode(&writer.bytes[..used]), slot);
    }

    #[test]
    fn a_file_that_was_cut_is_damaged_where_a_slot_has_no_end(uses in uses(), at in any::<Index>()) {
        let writer = written(&uses);
        let used = writer.chunks.last().unwrap().0.end + END_BYTES;
        let cut = at.index(used);
        let slot = Slot::decode(&writer.bytes[..cut]);
        prop_assert!(!slot.bad.is_empty() && slot.torn.is_none(), "{slot:?}");
        let whole: Vec<Written> =
            writer.chunks.iter().filter(|(span, _)| span.end <= cut).cloned().collect();
        prop_assert_eq!(counters(&slot), all_of(&whole));
        for (_, lost) in writer.chunks.iter().filter(|(span, _)| span.end > cut) {
            prop_assert!(lost.clone().all(|counter| is_told(&slot, counter)), "{slot:?}");
        }
    }
}

#[test]
fn a_slot_of_zeros_or_of_strangers_is_not_an_empty_one() {
    for bytes in [vec![0; TAIL_SLOT_BYTES], vec![0x5a; TAIL_SLOT_BYTES], b"OKLF".to_vec(), vec![]] {
        let slot = Slot::decode(&bytes);
        assert_eq!((slot.bad.len(), &slot.content, &slot.torn), (1, &None, &None));
        assert_eq!(slot.bad[0].range, (Ulid::MIN, Ulid::MAX));
    }
}

#[test]
fn of_a_slot_whose_start_is_lost_the_youngest_life_is_found_and_any_record_may_be_missing() {
    let writer = written(&[vec![2, 2, 2, 2], vec![3, 2]]);
    let mut bytes = writer.bytes.clone();
    bytes[..HEADER_BYTES].fill(0);
    let slot = Slot::decode(&bytes);
    assert_eq!(counters(&slot), all_of(&writer.chunks[1..]));
    assert_eq!((slot.bad.len(), slot.bad[0].range), (1, (Ulid::MIN, Ulid::MAX)));
    // Most of what it must begin with is there: it is the first chunk.
    let mut bytes = writer.bytes.clone();
    bytes[30] ^= 1;
    let slot = Slot::decode(&bytes);
    let lost = &writer.chunks[0].1;
    assert_eq!((slot.bad.len(), slot.bad[0].range.0), (1, Ulid::MIN));
    assert!(slot.bad[0].range.1 < ulid(lost.end) && is_told(&slot, lost.start));
}

#[test]
fn a_bad_chunk_between_two_others_is_told_with_what_it_had() {
    let writer = written(&[vec![2, 3, 2]]);
    let (span, lost) = &writer.chunks[1];
    for (at, kind) in [(HEADER_BYTES, "payload"), (30, "header")] {
        let mut bytes = writer.bytes.clone();
        bytes[span.start + at] ^= 1;
        let slot = Slot::decode(&bytes);
        let [bad] = &slot.bad[..] else { panic!("{slot:?}") };
        assert_eq!((bad.offset, bad.len, bad.records), (span.start, span.len(), Some(3)), "{kind}");
        assert!(is_told(&slot, lost.start) && is_told(&slot, lost.end - 1));
        assert!(!is_told(&slot, lost.start - 1) && !is_told(&slot, lost.end));
    }
}

#[test]
fn text_that_looks_like_a_chunk_is_text() {
    let place = ChunkPlace { incarnation: 8, frame_number: 1, chunk_number: 1 };
    let forged = [chunk(&place, 900, 2), b"\n".to_vec()].concat();
    let lines = memchr::memchr_iter(b'\n', &forged).count() as u32;
    let mut table = RunTable::default();
    let topic = table.topic_index(&Topic::new(b"web").unwrap()).unwrap();
    table.push(Run { first: ulid(1), count: lines, text_len: forged.len() as u32, topic });
    let honest = ChunkPlace { chunk_number: 0, ..place };
    let mut bytes = encode_chunk(&honest, &table, &forged);
    let len = bytes.len();
    bytes.resize(TAIL_SLOT_BYTES, 0);
    for flipped in [None, Some(len - 1)] {
        let mut bytes = bytes.clone();
        if let Some(at) = flipped {
            bytes[at] ^= 1;
        }
        let slot = Slot::decode(&bytes);
        let records = slot.content.map_or(0, |content| content.table.record_count());
        assert_eq!(records, if flipped.is_none() { u64::from(lines) } else { 0 });
        assert!(slot.bad.is_empty() && slot.torn.is_some());
    }
}

#[test]
fn names_of_tail_files_are_told_apart() {
    let id = Ulid::from_parts(1_700_000_000_000, 6, 7);
    let aside = aside_file_name(&file_name(3), id);
    assert_eq!(aside, format!("shard-3.tail.{id}.damaged"));
    assert_eq!(parse_aside_file_name(&aside), Some(id));
    assert!(!is_file_name(&aside) && !is_new_file_name(&aside));
    assert!(is_new_file_name(&new_file_name(3)) && !is_file_name(&new_file_name(3)));
    for other in [aside.to_lowercase(), format!("x.{aside}"), aside.replace("-3", "-03")] {
        assert_eq!(parse_aside_file_name(&other), None, "{other}");
    }
}
