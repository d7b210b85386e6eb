//! The merge against a ten-line model, with copies that overlap and are cut differently.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::chunk::{ChunkMeta, Text, TopicList};
use crate::run_table::RunTable;
use crate::store::footer::Inputs;
use crate::store::testing::{Record, SMALL, directory, read_all, record};
use crate::store::writer::WriterOptions;
use crate::topic::Topic;

/// Chunks in memory; some of them cannot be read the first so many times.
struct MemoryPart {
    metas: Vec<ChunkMeta>,
    chunks: Vec<Chunk>,
    broken: Vec<usize>,
    open_now: Arc<AtomicUsize>,
}

impl OpenPart for MemoryPart {
    fn chunks(&self) -> &[ChunkMeta] {
        &self.metas
    }
    fn topics(&self) -> &[Topic] {
        &[]
    }
    fn damage(&self) -> &[Damage] {
        &[]
    }
    fn read(&self, index: usize) -> Result<Chunk, Damage> {
        self.open_now.fetch_add(1, Ordering::Relaxed);
        if self.broken.contains(&index) {
            return Err(Damage {
                path: PathBuf::new(),
                offset: 0,
                len_bytes: 0,
                range: None,
                records: Some(u64::from(self.metas[index].record_count)),
                kind: DamageKind::Checksum("chunk"),
            });
        }
        Ok(self.chunks[index].clone())
    }
    fn read_table(&self, index: usize) -> Result<RunTable, Damage> {
        self.read(index).map(|chunk| chunk.table)
    }
    fn verify(&self, index: usize) -> Result<(), Damage> {
        self.read(index).map(|_| ())
    }
}

/// A part of these records, a chunk per `chunk_len` of them.
fn part(records: &[Record], chunk_len: usize) -> MemoryPart {
    let (mut metas, mut chunks) = (Vec::new(), Vec::new());
    for records in records.chunks(chunk_len.max(1)) {
        let (mut table, mut text) = (RunTable::default(), Vec::new());
        for record in records {
            let topic = table.topic_index(&Topic::new(record.topic.as_bytes()).unwrap()).unwrap();
            let text_len = record.line.len() as u32 + 1;
            table.push(Run { first: record.ulid, count: 1, text_len, topic });
            text.extend_from_slice(&record.line);
            text.push(b'\n');
        }
        let (first, last) = table.range().unwrap();
        metas.push(ChunkMeta {
            first,
            last,
            record_count: records.len() as u32,
            text_len: text.len() as u32,
            topics: TopicList::default(),
        });
        chunks.push(Chunk { table, text: Text::Owned(Arc::new(text)) });
    }
    MemoryPart { metas, chunks, broken: Vec::new(), open_now: Arc::default() }
}

fn input(part: MemoryPart) -> MergeInput {
    MergeInput { part: Box::new(part), path: PathBuf::from("input") }
}

fn merged(inputs: Vec<MergeInput>) -> (Vec<Record>, MergeReport) {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::new(&directory(temp.path()), SMALL);
    let report = merge(inputs, &mut writer, &|| true).unwrap();
    let Some(segment) = writer.finish(Inputs::default()).unwrap() else {
        return (Vec::new(), report);
    };
    let (records, damage) = read_all(&segment);
    assert_eq!(damage, Vec::new());
    (records, report)
}

/// Spans of records of a few streams, each span cut into chunks in its own way.
fn spans() -> impl Strategy<Value = Vec<(u64, u64, u64, usize)>> {
    proptest::collection::vec((0..3u64, 0..60u64, 1..50u64, 1..20usize), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_merge_is_a_sort_without_duplicates(spans in spans()) {
        let mut model = Vec::new();
        let mut inputs = Vec::new();
        for (stream, first, len, chunk_len) in spans {
            let records: Vec<Record> = (first..first + len).map(|n| record(stream, n)).collect();
            inputs.push(input(part(&records, chunk_len)));
            model.extend(records);
        }
        let total = model.len();
        model.sort();
        model.dedup();
        let (records, report) = merged(inputs);
        prop_assert_eq!(report.record_count, model.len() as u64);
        prop_assert_eq!(report.duplicate_count, (total - model.len()) as u64);
        prop_assert_eq!(records, model);
    }

    #[test]
    fn a_broken_chunk_costs_what_no_other_input_has(
        spans in spans(), broken in proptest::collection::vec(0..4usize, 8),
    ) {
        let mut model = Vec::new();
        let mut inputs = Vec::new();
        let mut told = 0;
        for ((stream, first, len, chunk_len), broken) in spans.into_iter().zip(broken) {
            let records: Vec<Record> = (first..first + len).map(|n| record(stream, n)).collect();
            let mut part = part(&records, chunk_len);
            let chunks = records.chunks(chunk_len).enumerate();
            model.extend(chunks.filter(|(i, _)| *i != broken).flat_map(|(_, c)| c.to_vec()));
            told += usize::from(broken < part.chunks.len());
            part.broken.push(broken);
            inputs.push(input(part));
        }
        model.sort();
        model.dedup();
        let (records, report) = merged(inputs);
        prop_assert_eq!(records, model);
        prop_assert_eq!(report.damage.len(), told);
    }
}

#[test]
fn a_run_without_a_copy_is_moved_whole() {
    let temp = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (RunTable::default(), RunTable::default());
    for (table, ms) in [(&mut a, 1), (&mut b, 2)] {
        table.topics.push(Topic::new(b"t").unwrap());
        let first = Ulid::from_parts(ms, ms, 0);
        table.push(Run { first, count: 500, text_len: 5_000, topic: 0 });
    }
    let text: Vec<u8> = (0..500).flat_map(|_| *b"123456789\n").collect();
    let inputs = [a, b].map(|table| {
        let (first, last) = table.range().unwrap();
        let meta = ChunkMeta {
            first,
            last,
            record_count: 500,
            text_len: 5_000,
            topics: TopicList::default(),
        };
        let chunk = Chunk { table, text: Text::Owned(Arc::new(text.clone())) };
        let (metas, chunks) = (vec![meta], vec![chunk]);
        input(MemoryPart { metas, chunks, broken: Vec::new(), open_now: Arc::default() })
    });
    let mut writer = SegmentWriter::new(&directory(temp.path()), WriterOptions::default());
    merge(inputs.into(), &mut writer, &|| true).unwrap();
    let segment = writer.finish(Inputs::default()).unwrap().unwrap();
    let open = crate::chunk::Part::open(&*segment).unwrap();
    assert_eq!(open.read_table(0).unwrap().runs.len(), 2);
}

#[test]
fn text_that_is_not_what_its_table_says_is_told_and_passed_over() {
    let records: Vec<Record> = (0..10).map(|n| record(1, n)).collect();
    let mut bad = part(&records, 5);
    let text = bad.chunks[0].text.iter().map(|&b| if b == b'\n' { b' ' } else { b }).collect();
    bad.chunks[0].text = Text::Owned(Arc::new(text));
    let (out, report) = merged(vec![input(bad)]);
    assert_eq!(out, records[5..]);
    assert_eq!(report.damage.len(), 1);
    let (number, damage) = &report.damage[0];
    assert_eq!((*number, damage.records), (0, Some(5)));
    assert_eq!(damage.path, PathBuf::from("input"));
}

#[test]
fn a_chunk_that_is_not_where_it_claims_to_be_is_told() {
    let records: Vec<Record> = (0..10).map(|n| record(1, n)).collect();
    let mut bad = part(&records, 5);
    bad.metas[0].first = records[3].ulid;
    let (out, report) = merged(vec![input(bad)]);
    assert_eq!(out, records[5..]);
    assert_eq!(report.damage.len(), 1);
}

#[test]
fn chunks_out_of_order_are_told_and_not_mistaken_for_copies() {
    let records: Vec<Record> = (0..10).map(|n| record(1, n)).collect();
    let mut bad = part(&records, 5);
    bad.metas.swap(0, 1);
    bad.chunks.swap(0, 1);
    let (out, report) = merged(vec![input(bad)]);
    assert_eq!(out, records[5..]);
    assert_eq!((report.damage.len(), report.duplicate_count), (1, 0));
}

#[test]
fn a_cancelled_merge_reads_no_further_chunk() {
    let temp = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (0..10).map(|n| record(1, n)).collect();
    let part = part(&records, 5);
    let reads = Arc::clone(&part.open_now);
    let mut writer = SegmentWriter::new(&directory(temp.path()), SMALL);
    let result = merge(vec![input(part)], &mut writer, &|| false);
    assert!(matches!(result, Err(MergeError::Cancelled)));
    assert_eq!(reads.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_cut_while_it_is_merged_gives_no_invented_record() {
    let temp = tempfile::tempdir().unwrap();
    let directory = directory(temp.path());
    let mut records: Vec<Record> = (0..64).map(|n| record(1, n)).collect();
    for record in &mut records {
        record.line.resize(4000, b'z');
    }
    let options = WriterOptions { block_text_target: 16 << 10, ..WriterOptions::default() };
    let segment = crate::store::testing::write(&directory, options, &records);
    let shared = segment.open_shared().unwrap();
    let all_read = read_all(&segment).0;
    assert_eq!(all_read, records, "every block is remembered as verified");
    drop(all_read);
    let file = std::fs::OpenOptions::new().write(true).open(segment.path()).unwrap();
    file.set_len(100_000).unwrap();
    let part = Box::new(super::super::segment::SegmentView::of_slab(&shared, &shared.slabs()[0]));
    let (out, report) = merged(vec![MergeInput { part, path: segment.path().to_owned() }]);
    assert!(out.len() > 10, "{}", out.len());
    assert_eq!(out, records[..out.len()]);
    let lost: u64 = report.damage.iter().map(|(_, d)| d.records.unwrap()).sum();
    assert_eq!(lost as usize, records.len() - out.len());
}
