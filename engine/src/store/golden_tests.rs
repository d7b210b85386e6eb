//! The worked example of `docs/format-store.md` is exactly what the writer makes today, and what
//! the reader reads: a change of the format cannot go unnoticed.

use std::fmt::Write;
use std::fs;

use super::block::BlockHeader;
use super::codec::{CODEC_NONE, CODEC_ZSTD};
use super::fields::aligned;
use super::footer::{IngestInput, Inputs};
use super::name::{IdSource, Name, SegmentId};
use super::testing::{Record, append_all, coverage_of_records, directory, read_all};
use super::volume::{Volume, VolumeId};
use super::writer::{SegmentWriter, WriterOptions};
use super::{StoreDirectory, open};
use crate::decoded::Decoders;
use crate::identity::NodeId;
use crate::storage::OsStorage;
use crate::ulid::Ulid;
use std::path::Path;
use std::sync::Arc;

const PAGE: &str = include_str!("../../../docs/format-store.md");

/// Three records of two topics, as the page tells them.
fn example() -> Vec<Record> {
    let record = |ms: u64, counter: u64, topic: &str, line: &[u8]| Record {
        ulid: Ulid::from_parts(1_700_000_000_000 + ms, 0x0a_bbcc_ddee, counter),
        topic: topic.to_owned(),
        line: line.to_vec(),
    };
    vec![
        record(0, 7, "web", b"GET / 200"),
        record(0, 8, "web", b""),
        record(5, 9, "db-1", b"connection \x00 lost"),
    ]
}

/// The ingest segment that they came from held the first two of them.
fn example_input() -> IngestInput {
    let digest = coverage_of_records(&example()[..2]).digest().unwrap();
    IngestInput { id: 0x018b_cfe5_6800_1111_2222_3333_4444_5555, digest }
}

fn write_example(path: &Path) -> Vec<u8> {
    let ids = IdSource::seeded(42);
    let directory = Arc::new(StoreDirectory::new(Arc::new(OsStorage), path.to_owned(), ids));
    let opener = NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let volume = Volume { id: VolumeId(0x5 << 124 | 0xabc), opener, opened_ms: 1_700_000_000_000 };
    let writer = SegmentWriter::new(&directory, WriterOptions::default());
    let mut writer = writer.in_volume(volume);
    append_all(&mut writer, &example());
    let inputs = Inputs { ingest: vec![example_input()], store: vec![] };
    let segment = writer.finish(inputs).unwrap().unwrap();
    fs::read(segment.path()).unwrap()
}

/// Sixteen bytes a line: offset, bytes; lines of zeros only are left out.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        if line.iter().any(|&b| b != 0) {
            write!(out, "{:04x} ", number * 16).unwrap();
            for byte in line {
                write!(out, " {byte:02x}").unwrap();
            }
            out.push('\n');
        }
    }
    out
}

/// The bytes of a dump.
fn parse(dump: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for line in dump.lines() {
        let (offset, rest) = line.split_once("  ").unwrap();
        let start = usize::from_str_radix(offset, 16).unwrap();
        for (i, byte) in rest.split(' ').enumerate() {
            bytes[start + i] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}

/// The dump between the page's markers, of several the one with this number.
fn on_the_page(number: usize) -> &'static str {
    let rest = PAGE.split("```hexdump\n").nth(number + 1).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_on_the_page_is_what_is_written_and_read() {
    let temp = tempfile::tempdir().unwrap();
    let written = write_example(temp.path());
    let shown = on_the_page(0);
    assert!(dump(&written) == shown, "the page should show:\n{}", dump(&written));

    let temp = tempfile::tempdir().unwrap();
    let bytes = parse(shown, written.len());
    let footer = open::read_footer(&mut &bytes[..]).unwrap();
    let (first, last) = footer.range().unwrap();
    let name = Name::Flushed { first, last, id: footer.id }.to_string();
    assert!(PAGE.contains(&name), "the page should name {name}");
    let path = temp.path().join(name);
    fs::write(&path, &bytes).unwrap();
    let directory = directory(temp.path());
    let loaded = super::segment::StoreSegment::load(&directory, &path).unwrap();
    assert_eq!(read_all(&loaded.segment), (example(), Vec::new()));
    assert_eq!(loaded.inputs.ingest, [example_input()]);
    assert!(loaded.coverage.unwrap().is_same(&coverage_of_records(&example())));
    assert_eq!(loaded.segment.meta().volume, Some(footer.volume));
    assert_eq!(aligned(footer.offset()), footer.offset());
    assert_ne!(footer.id, SegmentId(0));
}

/// What the page's compressed block holds.
fn compressed_example() -> Vec<Record> {
    let record = |n: u64| Record {
        ulid: Ulid::from_parts(1_700_000_000_000, 0x0a_bbcc_ddee, n),
        topic: "web".to_owned(),
        line: format!("GET /health 200 host-{n}").into_bytes(),
    };
    (0..8).map(record).collect()
}

/// Another zstd may write other bytes, which then belong on the page; reading these has to go on.
#[test]
fn the_compressed_block_on_the_page_is_what_is_written_and_read() {
    let temp = tempfile::tempdir().unwrap();
    let ids = IdSource::seeded(42);
    let directory = Arc::new(StoreDirectory::new(Arc::new(OsStorage), temp.path().into(), ids));
    let segment =
        super::testing::write(&directory, WriterOptions::default(), &compressed_example());
    assert_eq!(read_all(&segment), (compressed_example(), Vec::new()));
    let written = fs::read(segment.path()).unwrap()[64..].to_vec();
    let header = BlockHeader::decode(&written).unwrap();
    let written = &written[..header.stored_len() as usize];
    let shown = on_the_page(1);
    assert!(dump(written) == shown, "the page should show:\n{}", dump(written));

    let bytes = parse(shown, written.len());
    let (table, text) = bytes[96..].split_at(header.table_len as usize);
    let text = &text[..header.encoded_len as usize];
    assert_eq!((header.codec, header.table_codec), (CODEC_ZSTD, CODEC_NONE));
    assert_eq!(header.check_text(text), Ok(()));
    let table = header.decode_table(&Decoders::default(), table).unwrap();
    let lines: Vec<_> =
        compressed_example().into_iter().flat_map(|r| [r.line, vec![b'\n']].concat()).collect();
    assert_eq!(*header.decode_text(&Decoders::default(), text).unwrap(), *lines);
    assert!(table.describes(&lines));
}
