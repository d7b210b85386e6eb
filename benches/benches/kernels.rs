//! The loops that a node spends its time in, each alone, on text like an access log's.
//!
//! `-- --quick` is for a first look. Files lie in memory where the machine has such a place: no disk
//! is measured here.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::chunk::Part;
use engine::follow::{Fanout, Wanted};
use engine::ingest::frame::{FrameBuffer, FrameHeader, FramePlace};
use engine::ingest::log::{Effect, Now, ShardLog, ShardLogOptions, Tapped};
use engine::ingest::registry::{Registry, RegistryOptions};
use engine::ingest::topics::{TopicChoice, TopicSet};
use engine::run_table::{Run, RunTable};
use engine::search::required::Required;
use engine::search::{Expression, Format, Order, QuerySpec, Searcher, SearcherOptions, Snapshot};
use engine::signature::{self, BlockSignature, Matrix, MatrixBuilder, Rows};
use engine::storage::OsStorage;
use engine::store::StoreDirectory;
use engine::store::footer::Inputs;
use engine::store::merge::{MergeInput, merge};
use engine::store::name::IdSource;
use engine::store::segment::StoreSegment;
use engine::store::writer::{Compression, Piece, SegmentWriter, TopicCache, WriterOptions};
use engine::topic::Topic;
use engine::ulid::Ulid;
use tempfile::TempDir;

const START_MS: u64 = 1_700_000_000_000;
/// Records of one millisecond: a run.
const RUN_RECORDS: usize = 50;
/// About 55 KB of text.
const BATCH_RECORDS: u64 = 600;
/// About 20 MB of text.
const SEGMENT_RUNS: u64 = 4_000;

/// Lines of about 90 bytes. Every 5,000th has the word that searches look for.
fn lines(from: u64, count: u64) -> Vec<u8> {
    let line = |n: u64| {
        let (host, mixed) = (n % 16, n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20);
        let word = if n % 5_000 == 4_999 { "Timeout" } else { "ok" };
        let (status, len, request) = (200 + n % 4, mixed % 40_000, mixed.rotate_left(17));
        format!(
            "host-{host:02} 10.0.7.{host} \"GET /api/v2/items/{mixed:x} HTTP/1.1\" \
             {status} {len} {word} request={request:016x}\n"
        )
    };
    (from..from + count).map(line).collect::<String>().into_bytes()
}

fn topics(count: usize) -> Vec<Topic> {
    let topic = |i| Topic::new(format!("topic-{i}").as_bytes()).expect("a valid name");
    (0..count).map(topic).collect()
}

/// A directory for the run, and as a store's.
fn scratch() -> (TempDir, Arc<StoreDirectory>) {
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let temp = temp.expect("a directory can be made");
    let (storage, path, ids) = (Arc::new(OsStorage), temp.path().into(), IdSource::seeded(1));
    (temp, Arc::new(StoreDirectory::new(storage, path, ids)))
}

/// A shard's log whose writes succeed at once and go nowhere.
struct Sink {
    log: ShardLog,
    registry: Registry,
    now: Now,
}

impl Sink {
    /// Takes a batch, a millisecond later, and does what the log asks for.
    fn append(&mut self, lines: &[u8], topic: &TopicChoice) {
        self.now.monotonic_us += 1_000;
        self.now.wall_ms += 1;
        black_box(self.log.append(lines, topic, self.now));
        while let Some(effect) = self.log.next_effect(self.now) {
            match effect {
                Effect::WantSegment => {
                    let mut made = self.registry.prepare(1, self.now.wall_ms).expect("room");
                    self.log.on_segment(made.remove(0));
                }
                Effect::Write { token, frame, .. } => {
                    self.log.on_written(token, Ok(frame.as_bytes().len()));
                }
                Effect::WriteTail { token, bytes, .. } => {
                    self.log.on_tail_written(token, Ok(bytes.len()));
                }
                Effect::Sync { token, .. } => self.log.on_synced(token, Ok(())),
                // Nothing was written: the file goes back to the pool.
                Effect::Seal { segment, .. } => {
                    self.registry.flush(&segment, 0, self.now.wall_ms).expect("it is renamed");
                }
                Effect::Abandon { error, .. } => panic!("{error}"),
            }
        }
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append to ShardLog");
    let batch = lines(0, BATCH_RECORDS);
    group.throughput(Throughput::Bytes(batch.len() as u64));
    for (name, choice) in [
        ("one topic", TopicChoice::Static(topics(1).remove(0))),
        ("first word", TopicChoice::FirstWord),
    ] {
        let (temp, _) = scratch();
        let options = RegistryOptions::new(Arc::new(OsStorage), temp.path().into(), 1);
        let registry = Registry::new(options);
        let log = ShardLog::new(ShardLogOptions::new(Arc::new(TopicSet::new(99))), 1, START_MS);
        let mut sink = Sink { log, registry, now: Now { monotonic_us: 0, wall_ms: START_MS } };
        group.bench_function(name, |b| b.iter(|| sink.append(&batch, &choice)));
    }
}

/// Runs of `RUN_RECORDS` lines, one a millisecond, their topics in turn.
fn table(topics: usize, text: &[u8], stream: u64) -> RunTable {
    let mut table = RunTable { topics: self::topics(topics), runs: Vec::new() };
    let lines: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').collect();
    for (i, run) in lines.chunks(RUN_RECORDS).enumerate() {
        table.push(Run {
            first: Ulid::from_parts(START_MS + i as u64, stream, (i * RUN_RECORDS) as u64),
            count: run.len() as u32,
            text_len: run.iter().map(|line| line.len() as u32).sum(),
            topic: (i % topics) as u16,
        });
    }
    table
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let text = lines(0, BATCH_RECORDS);
    let table = table(1, &text, 1);
    let place = FramePlace { incarnation: 1, number: 0, is_last: false, alignment_bytes: 4096 };
    let encode = |mut frame: FrameBuffer| {
        frame.finish(place);
        frame
    };
    group.throughput(Throughput::Bytes(text.len() as u64));
    let filled = || FrameBuffer::of(&table, &text);
    group.bench_function("encode", |b| b.iter_batched(filled, encode, BatchSize::SmallInput));
    let frame = encode(filled());
    group.bench_function("verify", |b| {
        b.iter(|| {
            let bytes = black_box(frame.as_bytes());
            FrameHeader::decode(bytes).and_then(|h| h.check_payload(bytes)).expect("whole")
        });
    });
}

fn run_tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("run table");
    let text = lines(0, SEGMENT_RUNS * RUN_RECORDS as u64);
    for topics in [1, 1_000] {
        let table = table(topics, &text, 1);
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        group.throughput(Throughput::Elements(table.runs.len() as u64));
        group.bench_function(format!("encode, {topics} topics"), |b| {
            b.iter(|| {
                encoded.clear();
                table.encode(&mut encoded);
            });
        });
        let (records, text_len) = (table.record_count(), table.text_len());
        group.bench_function(format!("decode, {topics} topics"), |b| {
            b.iter(|| RunTable::decode(black_box(&encoded), records, text_len).expect("valid"));
        });
    }
}

/// A store segment of `runs` runs of a stream.
fn segment(directory: &Arc<StoreDirectory>, runs: u64, stream: u64) -> Arc<StoreSegment> {
    let mut writer = SegmentWriter::new(directory, WriterOptions::default());
    let text = lines(stream, runs * RUN_RECORDS as u64);
    let table = table(8, &text, stream);
    let mut topics = TopicCache::default();
    for (run, span) in table.spans() {
        let piece = Piece { run: *run, text: &text[span], topics: &table.topics };
        writer.append(&piece, &mut topics).expect("runs are in order");
    }
    writer.finish(Inputs::default()).expect("it can be written").expect("it has records")
}

/// Every run of one input lies between runs of the others: nothing can be taken in long stretches.
fn merges(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    for inputs in [2, 16] {
        let (_temp, directory) = scratch();
        let parts: Vec<_> =
            (0..inputs).map(|i| segment(&directory, SEGMENT_RUNS / inputs, i)).collect();
        group.throughput(Throughput::Bytes(parts.iter().map(|part| part.text_bytes()).sum()));
        let open = |part: &Arc<StoreSegment>| MergeInput {
            part: part.open_to_move().expect("it was just written"),
            path: part.path().to_path_buf(),
        };
        group.bench_function(format!("{inputs} segments"), |b| {
            b.iter(|| {
                let mut writer = SegmentWriter::new(&directory, WriterOptions::default());
                let opened = parts.iter().map(open).collect();
                let report = merge(opened, &mut writer, &|| true);
                assert_eq!(report.expect("it can be written").duplicate_count, 0);
                // Dropped unpublished, its file goes.
                writer.seal(Inputs::default()).expect("it can be written")
            });
        });
    }
}

/// Blocks as they are written and read; what merging and scanning do beside it is in their groups.
fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    let text = lines(0, 40 * BATCH_RECORDS);
    let table = table(8, &text, 1);
    group.throughput(Throughput::Bytes(text.len() as u64));
    for (name, compression) in [
        ("none", Compression::None),
        ("zstd 1", Compression::Zstd(1)),
        ("zstd 3", Compression::Zstd(3)),
    ] {
        let (_temp, directory) = scratch();
        // Signatures have a group of their own.
        let options =
            WriterOptions { compression, signature_percent: 0, ..WriterOptions::default() };
        let write = || {
            let mut writer = SegmentWriter::new(&directory, options);
            let mut topics = TopicCache::default();
            for (run, span) in table.spans() {
                let piece = Piece { run: *run, text: &text[span], topics: &table.topics };
                writer.append(&piece, &mut topics).expect("runs are in order");
            }
            writer
        };
        group.bench_function(format!("encode blocks, {name}"), |b| {
            b.iter(|| write().seal(Inputs::default()).expect("it can be written"));
        });
        let segment = write().finish(Inputs::default()).expect("written").expect("records");
        let open = segment.open().expect("it was just written");
        group.bench_function(format!("decode blocks, {name}"), |b| {
            b.iter(|| {
                for index in 0..open.chunks().len() {
                    black_box(open.read(index).expect("whole"));
                }
            });
        });
    }
}

const TEN_WORDS: &str =
    "refused|denied|aborted|Timeout|unreachable|overflow|corrupt|exhausted|panicked|rejected";

fn searches(c: &mut Criterion) {
    let (_temp, directory) = scratch();
    let part = segment(&directory, SEGMENT_RUNS, 1);
    let (threads, node, on_thread_start) = (1, String::new(), Arc::new(|_| {}));
    let caches = Arc::clone(&directory.caches);
    let searcher = Searcher::start(SearcherOptions { threads, node, caches, on_thread_start })
        .expect("a thread can be started");
    let mut group = c.benchmark_group("search");
    group.throughput(Throughput::Bytes(part.text_bytes()));
    let records = SEGMENT_RUNS * RUN_RECORDS as u64;
    for (name, text, regex, case_insensitive, found) in [
        ("literal", "Timeout", false, false, records / 5_000),
        ("case-insensitive", "timeout", false, true, records / 5_000),
        ("regex", "(Timeout|Refused) request=[0-9a-f]+$", true, false, records / 5_000),
        ("empty, all records", "", false, false, records),
        ("absent literal", "transmutation", false, false, 0),
        ("absent literal, case-insensitive", "transmutation", false, true, 0),
        ("absent literal of k and s, case-insensitive", "sleepwalkers", false, true, 0),
        ("one word, then another", "items.*Timeout", true, false, records / 5_000),
        ("every fourth record", "\" 200 ", false, false, records / 4),
        ("every fourth record, case-insensitive", "http/1.1\" 200 ", false, true, records / 4),
        ("ten words", TEN_WORDS, true, false, records / 5_000),
        ("ten words, case-insensitive", TEN_WORDS, true, true, records / 5_000),
        ("words within", "[a-z]+-.*time(less|worn|table)", true, false, 0),
    ] {
        let spec = QuerySpec {
            from: Ulid::MIN,
            to: Ulid::MAX,
            after: None,
            chain: Expression::new(text, regex, case_insensitive).expect("a valid one").into(),
            topics: Vec::new(),
            order: Order::Asc,
            limit: None,
            context: 0,
            entries: None,
            is_discreet: false,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let snapshot = Snapshot { parts: vec![Arc::clone(&part) as _], missing: vec![] };
                let mut answer = searcher.query(spec.clone(), snapshot, Format::Text);
                while answer.next_blocking().map(black_box).is_some() {}
                assert_eq!(answer.outcome().map(|outcome| outcome.stats.records), Some(found));
            });
        });
    }
}

/// Signatures: what a block costs to sign, a slab's matrix to lay out, a needle to be asked for.
fn signatures(c: &mut Criterion) {
    const BLOCKS: u64 = 256;
    let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|n| lines(n * 100_000, 5_500)).collect();
    let text_bytes: usize = blocks.iter().map(Vec::len).sum();
    let mut group = c.benchmark_group("signature");
    group.throughput(Throughput::Bytes(blocks[0].len() as u64));
    group.bench_function("sign a block", |b| {
        b.iter(|| BlockSignature::of_text(black_box(&blocks[0])));
    });
    let signed = || {
        let mut builder = MatrixBuilder::default();
        for text in &blocks {
            builder.push(text);
        }
        builder
    };
    let finish = |builder: MatrixBuilder| builder.finish(text_bytes as u64 / 4, 14).expect("fits");
    group.throughput(Throughput::Bytes(text_bytes as u64));
    group.bench_function("lay out 256 blocks", |b| {
        b.iter_batched(signed, finish, BatchSize::PerIteration);
    });
    let stored = finish(signed());
    let required = Required::of_literal(b"7f3a9c2e-1b4d-4e8f-a6c0-5d9e2b7f1a3c");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ask for an absent UUID", |b| {
        b.iter(|| {
            let matrix = Matrix::new(&stored.bytes, stored.crc, stored.rows, BLOCKS as u32);
            let mut filter = signature::Filter::new(matrix.expect("whole"));
            let rows = Rows::of(black_box(&required));
            for from in (0..BLOCKS as usize).step_by(64) {
                assert_eq!(filter.candidates(&rows, from, 0), 0);
            }
        });
    });
}

/// What live followers cost: one pass for all whose expressions are literals.
fn followers(c: &mut Criterion) {
    let text = lines(0, 5 * BATCH_RECORDS);
    let mut batch = Tapped::default();
    batch.push(Ulid::from_parts(START_MS, 1, 0), 5 * BATCH_RECORDS as u32, &topics(1)[0], &text);
    let mut group = c.benchmark_group("follow");
    group.throughput(Throughput::Bytes(text.len() as u64));
    for count in [1, 1000] {
        let filter = |n: u64| Wanted {
            chain: Expression::new(&format!("request-id-{n:08}"), false, false)
                .expect("a valid one")
                .into(),
            topics: Vec::new(),
            is_discreet: false,
        };
        let fanout = Fanout::new((0..count).map(filter).collect());
        group.bench_function(format!("{count} followers"), |b| {
            b.iter(|| fanout.matches(black_box(&batch), &mut |hit| panic!("{hit:?}")));
        });
    }
}

criterion_group!(
    kernels, append, frames, run_tables, blocks, merges, searches, signatures, followers
);
criterion_main!(kernels);
