//! The worked example of `docs/format-store.md` is exactly what the writer makes today, and what
//! the reader reads: a change of the format cannot go unnoticed.

use std::fmt::Write;
use std::fs;

use super::fields::aligned;
use super::footer::Inputs;
use super::name::{IdSource, Name, SegmentId};
use super::testing::{Record, append_all, directory, read_all};
use super::writer::{SegmentWriter, WriterOptions};
use super::{StoreDirectory, open};
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

fn write_example(path: &Path) -> Vec<u8> {
    let ids = IdSource::seeded(42);
    let directory =
        Arc::new(StoreDirectory { storage: Arc::new(OsStorage), path: path.to_owned(), ids });
    let mut writer = SegmentWriter::new(&directory, WriterOptions::default());
    append_all(&mut writer, &example());
    let inputs = Inputs { ingest: vec![0x018b_cfe5_6800_1111_2222_3333_4444_5555], store: vec![] };
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

/// The dump between the page's markers.
fn on_the_page() -> &'static str {
    let (_, rest) = PAGE.split_once("```hexdump\n").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_on_the_page_is_what_is_written_and_read() {
    let temp = tempfile::tempdir().unwrap();
    let written = write_example(temp.path());
    let shown = on_the_page();
    assert!(dump(&written) == shown, "the page should show:\n{}", dump(&written));

    let temp = tempfile::tempdir().unwrap();
    let bytes = parse(shown, written.len());
    let footer = open::read_footer(&bytes).unwrap();
    let (first, last) = footer.range().unwrap();
    let name = Name::Flushed { first, last, id: footer.id }.to_string();
    assert!(PAGE.contains(&name), "the page should name {name}");
    let path = temp.path().join(name);
    fs::write(&path, &bytes).unwrap();
    let directory = directory(temp.path());
    let loaded = super::segment::StoreSegment::load(&directory, &path).unwrap();
    assert_eq!(read_all(&loaded.segment), (example(), Vec::new()));
    assert_eq!(loaded.inputs.ingest, [0x018b_cfe5_6800_1111_2222_3333_4444_5555]);
    assert_eq!(aligned(footer.offset()), footer.offset());
    assert_ne!(footer.id, SegmentId(0));
}
