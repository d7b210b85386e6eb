//! Fuzz targets of store segments: whole files, footers, blocks, indexes. See [`crate::fuzz`].

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::block::BlockHeader;
use super::coverage::Digest;
use super::footer::{Footer, IngestInput, Inputs};
use super::index::SlabIndex;
use super::name::SegmentId;
use super::open;
use super::segment::StoreSegment;
use super::slab::{SlabTrailer, decode_slab_header};
use super::testing::{PACKED, Record, SMALL, append_all, directory, read_all, record, write};
use super::writer::{SegmentWriter, WriterOptions};
use crate::decoded::Decoders;
use crate::fuzz::{assert_little_was_allocated, cases, changed, changes};
use crate::run_table::RunTable;
use crate::ulid::Ulid;

/// Valid segments, and every record in them.
struct Seeds {
    files: Vec<Vec<u8>>,
    names: Vec<PathBuf>,
    records: BTreeMap<Ulid, Record>,
    footers: Vec<Vec<u8>>,
    indexes: Vec<(Vec<u8>, SlabTrailer)>,
}

fn seeds() -> &'static Seeds {
    static SEEDS: OnceLock<Seeds> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let temp = tempfile::tempdir().unwrap();
        let store = directory(temp.path());
        let all: Vec<Record> = (0..60).map(|n| record(1, n)).collect();
        let mut writer = SegmentWriter::new(&store, WriterOptions::default());
        append_all(&mut writer, &all[..30]);
        let input = |id| IngestInput { id, digest: Digest(id + 1) };
        let inputs = Inputs { ingest: vec![input(7), input(1 << 90)], store: vec![SegmentId(5)] };
        let big_blocks = writer.finish(inputs).unwrap().unwrap();
        let segments = [big_blocks, write(&store, SMALL, &all), write(&store, PACKED, &all)];
        let mut seeds = Seeds {
            files: Vec::new(),
            names: Vec::new(),
            records: all.into_iter().map(|record| (record.ulid, record)).collect(),
            footers: Vec::new(),
            indexes: Vec::new(),
        };
        for segment in segments {
            let bytes = fs::read(segment.path()).unwrap();
            let footer = open::read_footer(&mut &bytes[..]).unwrap();
            seeds.footers.push(bytes[footer.offset() as usize..].to_vec());
            for slab in &footer.slabs {
                let start = (slab.offset + slab.trailer.index.offset) as usize;
                let index = bytes[start..start + slab.trailer.index.len as usize].to_vec();
                seeds.indexes.push((index, slab.trailer));
            }
            seeds.files.push(bytes);
            seeds.names.push(segment.path().file_name().unwrap().into());
        }
        seeds
    })
}

const LINE: &[u8] = b"2026-01-01T00:00:00Z host-1 service: a line like any other\n";

/// What zstd makes of lines, and bombs.
fn packed() -> &'static [Vec<u8>] {
    static PACKED: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PACKED.get_or_init(|| {
        let seeds = [LINE.repeat(500), vec![b'\n'; 64 << 20], LINE.to_vec()];
        seeds.iter().map(|seed| zstd::bulk::compress(seed, 1).unwrap()).collect()
    })
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn fuzz_store_segments(plan in changes()) {
        let seeds = seeds();
        let bytes = changed(&seeds.files, &plan);
        let temp = tempfile::tempdir_in(scratch()).unwrap();
        let path = temp.path().join(&seeds.names[plan.0.index(seeds.names.len())]);
        fs::write(&path, &bytes).unwrap();
        let report = crate::fsck::check(&crate::storage::OsStorage, &path).unwrap();
        let Ok(loaded) = StoreSegment::load(&directory(temp.path()), &path) else {
            prop_assert!(!report.is_clean(), "what cannot be opened is told");
            return Ok(());
        };
        let (records, damage) = read_all(&loaded.segment);
        for found in &records {
            prop_assert_eq!(Some(found), seeds.records.get(&found.ulid), "invented");
        }
        prop_assert!(records.windows(2).all(|two| two[0].ulid < two[1].ulid));
        let whole = seeds.files.contains(&bytes);
        if whole {
            prop_assert!(report.is_clean() && damage.is_empty() && !records.is_empty());
        }
        assert_little_was_allocated();
    }

    #[test]
    fn fuzz_footers(plan in changes(), offset: u64) {
        let seeds = seeds();
        let bytes = changed(&seeds.footers, &plan);
        // Behind the changed file's own start, and anywhere.
        for offset in [offset, 0, 1024] {
            if let Ok(footer) = Footer::decode(&bytes, offset) {
                prop_assert!(footer.slabs.iter().all(|slab| slab.offset < offset));
            }
        }
        let _ = open::read_footer(&mut &bytes[..]);
        assert_little_was_allocated();
    }

    #[test]
    fn fuzz_blocks_and_slabs(plan in changes(), at in any::<prop::sample::Index>()) {
        let bytes = changed(&seeds().files, &plan);
        let rest = &bytes[at.index(bytes.len() + 1) & !63..];
        let _ = decode_slab_header(rest);
        let _ = SlabTrailer::decode(rest);
        if let Ok(header) = BlockHeader::decode(rest) {
            prop_assert!(header.validate().is_ok(), "decoding validates");
            let used = usize::try_from(header.used_len()).unwrap();
            if let Some(block) = rest.get(..used) {
                let text = &block[used - header.encoded_len as usize..];
                let _ = header.check_text(text);
                if let Ok(decoded) = header.decode_text(&Decoders::default(), text) {
                    prop_assert_eq!(decoded.len(), header.text_len as usize);
                }
            }
        }
        let _ = RunTable::decode(rest, 3, 40);
        assert_little_was_allocated();
    }

    /// Behind checksums that hold: zstd frames, bombs among them, may still hold anything.
    #[test]
    fn fuzz_decoding(
        plan in changes(),
        len in prop_oneof![0..40_000u32, Just(17 << 20), any::<u32>()],
    ) {
        let packed = packed();
        let stored = changed(packed, &plan);
        let len = if len == 0 { LINE.len() as u32 * 500 } else { len };
        let first = Ulid::from_parts(1, 1, 1);
        let header = BlockHeader {
            slab_id: 1, number: 0, codec: 1, table_codec: 1, flags: 0, record_count: 1, run_count: 1,
            topic_count: 1, text_len: len, encoded_len: stored.len() as u32,
            table_len: stored.len() as u32, first, last: first,
            text_crc: crc32fast::hash(&stored), table_crc: crc32fast::hash(&stored),
        };
        if header.validate().is_ok() {
            prop_assert!(header.check_text(&stored).is_ok());
            if let Ok(decoded) = header.decode_text(&Decoders::default(), &stored) {
                prop_assert_eq!(decoded.len(), len as usize);
            }
            let _ = header.decode_table(&Decoders::default(), &stored);
        }
        assert_little_was_allocated();
    }

    /// Behind a checksum that holds: an index may still say anything.
    #[test]
    fn fuzz_indexes(plan in changes()) {
        let seeds = seeds();
        let bytes: Vec<Vec<u8>> = seeds.indexes.iter().map(|(bytes, _)| bytes.clone()).collect();
        let trailer = seeds.indexes[plan.0.index(bytes.len())].1;
        let changed = changed(&bytes, &plan);
        if let Ok(index) = SlabIndex::from_bytes(&changed, &trailer.index_bounds()) {
            prop_assert_eq!(index.blocks.len(), trailer.block_count as usize);
            let mut end = 0;
            for block in &index.blocks {
                prop_assert!(block.offset >= end && block.offset < trailer.len);
                end = block.offset + block.header.stored_len();
                prop_assert!(block.topics.iter().all(|&t| usize::from(t) < index.topics.len()));
            }
        }
        assert_little_was_allocated();
    }
}

/// In memory where the machine has such a place.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
