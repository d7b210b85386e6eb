//! Fuzz targets of ingest segments, frames and tail files. See [`crate::fuzz`].

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::fuzz::{assert_little_was_allocated, cases, changed, changes};
use crate::ingest::tail::{ChunkPlace, EndMark, Slot, SlotContent, encode_chunk};

/// A segment and its records, made once.
struct Seeds {
    files: Vec<Vec<u8>>,
    name: Ulid,
    records: Records,
}

fn seeds() -> &'static Seeds {
    static SEEDS: OnceLock<Seeds> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let directory = scratch();
        let specimen = specimen(directory.path());
        let name = specimen.path.file_name().unwrap().to_str().unwrap();
        let records = specimen.frames.iter().flat_map(|(_, _, own)| own.clone()).collect();
        let name = parse_file_name(name).unwrap().0;
        // With the zeros of a prepared file behind it, too.
        let mut prepared = specimen.bytes.clone();
        prepared.resize(prepared.len() + 8192, 0);
        Seeds { files: vec![specimen.bytes, prepared], name, records }
    })
}

fn slots() -> &'static (Vec<Vec<u8>>, SlotContent) {
    static SLOTS: OnceLock<(Vec<Vec<u8>>, SlotContent)> = OnceLock::new();
    SLOTS.get_or_init(|| {
        let mut slot = Vec::new();
        let mut all = RunTable::default();
        let mut texts = Vec::new();
        for chunk_number in 0..3u32 {
            let mut table = RunTable::default();
            for topic in ["web", "db"] {
                let topic = Topic::new(topic.as_bytes()).unwrap();
                let counter = u64::from(chunk_number) * 10 + all.runs.len() as u64 * 3;
                let first = Ulid::from_parts(1_000 + counter, 5, counter);
                let index = table.topic_index(&topic).unwrap();
                table.push(Run { first, count: 2, text_len: 8, topic: index });
                let index = all.topic_index(&topic).unwrap();
                all.push(Run { first, count: 2, text_len: 8, topic: index });
            }
            let text =
                format!("a {chunk_number}\nbc{chunk_number}\na {chunk_number}\nbc{chunk_number}\n");
            texts.extend_from_slice(text.as_bytes());
            let place = ChunkPlace { incarnation: 9, frame_number: 4, chunk_number };
            slot.extend(encode_chunk(&place, &table, text.as_bytes()));
        }
        let end = EndMark { incarnation: 9, frame_number: 4, chunk_count: 3 };
        slot.extend_from_slice(&end.encode());
        let mut whole = slot.clone();
        whole.resize(TAIL_SLOT_BYTES, 0);
        let read = Slot::decode(&whole);
        assert!(read.is_whole(), "{read:?}");
        let content = read.content.expect("the seed is valid");
        assert_eq!(content.text, texts);
        (vec![slot, whole], content)
    })
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn fuzz_ingest_segments(plan in changes(), state in 0..3usize) {
        let seeds = seeds();
        let bytes = changed(&seeds.files, &plan);
        let directory = scratch();
        let state = [SegmentState::Active, SegmentState::Flushed, SegmentState::Pending][state];
        let path = directory.path().join(file_name(seeds.name, state));
        fs::write(&path, &bytes).unwrap();
        let checked = check_segment(&OsStorage, &path, seeds.name, state).unwrap();
        let found = recovered(directory.path());
        let mut left = Records::new();
        for segment in found.registry.snapshot() {
            left.extend(read_part(&*segment).0);
        }
        prop_assert!(checked.record_count <= seeds.records.len() as u64);
        for (ulid, record) in &left {
            prop_assert_eq!(Some(record), seeds.records.get(ulid), "invented");
        }
        if seeds.files.contains(&bytes) {
            prop_assert_eq!(left.len(), seeds.records.len());
        }
        assert_little_was_allocated();
    }

    #[test]
    fn fuzz_frames(plan in changes(), at in any::<prop::sample::Index>()) {
        let seeds = seeds();
        let bytes = changed(&seeds.files, &plan);
        let rest = &bytes[at.index(bytes.len() + 1) / ALIGNMENT_MIN * ALIGNMENT_MIN..];
        if let Ok(header) = FrameHeader::decode(rest) {
            prop_assert!(header.table_span().end <= header.len_bytes as usize);
            if let Ok(table) = header.check_payload(rest) {
                let text = &rest[header.text_span()];
                prop_assert_eq!(table.record_count(), u64::from(header.record_count));
                for (run, span) in table.spans() {
                    let lines = text[span].split_inclusive(|&b| b == b'\n');
                    for (i, line) in lines.enumerate() {
                        let ulid = run.first.plus(i as u64);
                        prop_assert_eq!(seeds.records.get(&ulid).map(Vec::as_slice), Some(line));
                    }
                }
            }
        }
        assert_little_was_allocated();
    }

    #[test]
    fn fuzz_tail_slots(plan in changes()) {
        let (seeds, whole) = slots();
        let bytes = changed(seeds, &plan);
        let slot = Slot::decode(&bytes);
        let written = records_of(whole);
        let left = slot.content.as_ref().map(records_of).unwrap_or_default();
        for (ulid, line) in &left {
            prop_assert_eq!(Some(line), written.get(ulid), "invented");
        }
        if let Some(content) = &slot.content {
            prop_assert!(content.table.describes(&content.text));
        }
        let told: Vec<_> = slot.bad.iter().chain(&slot.torn).map(|bad| bad.range).collect();
        for ulid in written.keys().filter(|ulid| !left.contains_key(ulid)) {
            let is_told = told.iter().any(|(from, to)| (from..=to).contains(&ulid));
            prop_assert!(is_told, "{ulid:?} is lost and not told: {:?}", told);
        }
        if bytes == seeds[1] {
            prop_assert!(told.is_empty(), "{told:?}");
        }
        assert_little_was_allocated();
    }
}

fn records_of(content: &SlotContent) -> Records {
    let mut records = Records::new();
    for (run, span) in content.table.spans() {
        for (i, line) in content.text[span].split_inclusive(|&b| b == b'\n').enumerate() {
            records.insert(run.first.plus(i as u64), line.to_vec());
        }
    }
    records
}
