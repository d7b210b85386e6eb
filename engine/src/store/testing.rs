//! Shared by the store's tests: directories, records and segments with known contents.

use std::path::Path;
use std::sync::Arc;

use crate::chunk::{OpenPart, Part};
use crate::damage::Damage;
use crate::identity::NodeId;
use crate::run_table::Run;
use crate::storage::OsStorage;
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::StoreDirectory;
use super::coverage::{Coverage, Interval};
use super::footer::Inputs;
use super::name::IdSource;
use super::segment::StoreSegment;
use super::volume::{Volume, VolumeId};
use super::writer::{Compression, Piece, SegmentWriter, TopicCache, WriterOptions};

/// A record as tests see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) ulid: Ulid,
    pub(crate) topic: String,
    pub(crate) line: Vec<u8>,
}

pub(crate) const SMALL: WriterOptions = WriterOptions {
    block_text_target: 100,
    slab_blocks_max: 3,
    compression: Compression::None,
    signature_percent: 0,
};

/// The same with signatures, however small the blocks.
pub(crate) const SIGNED: WriterOptions = WriterOptions { signature_percent: 1_000, ..SMALL };

/// The same with blocks that zstd makes smaller.
pub(crate) const PACKED: WriterOptions =
    WriterOptions { block_text_target: 400, compression: Compression::Zstd(1), ..SMALL };

/// Record `n` of a stream: a few topics, a line that names its ULID and is of varied length.
pub(crate) fn record(stream: u64, n: u64) -> Record {
    let ulid = Ulid::from_parts(1_700_000_000_000 + n / 4, stream, n);
    let topic = ["a", "web", "db-1"][(n / 4 % 3) as usize].to_owned();
    let mut line = format!("{stream}.{n}:").into_bytes();
    line.resize(line.len() + (n * 7 % 23) as usize, b'a' + (n % 26) as u8);
    Record { ulid, topic, line }
}

pub(crate) fn coverage_of_records(records: &[Record]) -> Coverage {
    let run = |r: &Record| Run { first: r.ulid, count: 1, text_len: 1, topic: 0 };
    Coverage::of(records.iter().map(|record| Interval::of_run(&run(record))).collect())
}

/// The volume of every segment that is written here.
const VOLUME: Volume = Volume { id: VolumeId(1), opener: NodeId(1), opened_ms: 1 };

pub(crate) fn directory(path: &Path) -> Arc<StoreDirectory> {
    let (storage, ids) = (Arc::new(OsStorage), IdSource::seeded(path.as_os_str().len() as u64));
    Arc::new(StoreDirectory::new(storage, path.to_owned(), ids))
}

/// Appends records one by one.
pub(crate) fn append_all(writer: &mut SegmentWriter, records: &[Record]) {
    let mut cache = TopicCache::default();
    let names = ["a", "web", "db-1"];
    let topics: Vec<Topic> = names.iter().map(|t| Topic::new(t.as_bytes()).unwrap()).collect();
    for record in records {
        let mut text = record.line.clone();
        text.push(b'\n');
        let topic = names.iter().position(|t| *t == record.topic).unwrap() as u16;
        let run = Run { first: record.ulid, count: 1, text_len: 0, topic };
        let piece = Piece { run, text: &text, topics: &topics };
        writer.append(&piece, &mut cache).unwrap();
    }
}

pub(crate) fn write(
    directory: &Arc<StoreDirectory>,
    options: WriterOptions,
    records: &[Record],
) -> Arc<StoreSegment> {
    let mut writer = SegmentWriter::new(directory, options).in_volume(VOLUME);
    append_all(&mut writer, records);
    writer.finish(Inputs::default()).unwrap().unwrap()
}

/// All records that can be read, and the damages.
pub(crate) fn read_open(open: &dyn OpenPart) -> (Vec<Record>, Vec<Damage>) {
    let (mut records, mut damage) = (Vec::new(), open.damage().to_vec());
    for index in 0..open.chunks().len() {
        match open.read(index) {
            Ok(chunk) => {
                assert_eq!(open.read_table(index).as_ref(), Ok(&chunk.table));
                assert_eq!(open.verify(index), Ok(()));
                for (run, span) in chunk.table.spans() {
                    let lines = chunk.text[span].split_inclusive(|&b| b == b'\n');
                    for (i, line) in lines.enumerate() {
                        records.push(Record {
                            ulid: run.first.plus(i as u64),
                            topic: chunk.table.topics[usize::from(run.topic)].to_string(),
                            line: line[..line.len() - 1].to_vec(),
                        });
                    }
                }
            }
            Err(d) => damage.push(d),
        }
    }
    (records, damage)
}

pub(crate) fn read_all(segment: &StoreSegment) -> (Vec<Record>, Vec<Damage>) {
    match segment.open() {
        Ok(open) => read_open(&*open),
        Err(damage) => (Vec::new(), vec![damage]),
    }
}
