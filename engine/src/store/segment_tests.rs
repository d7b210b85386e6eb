//! Segments written and read back, whole, broken in every byte and cut at every length.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;

use super::*;
use crate::chunk::Text;
use crate::store::block::{BLOCK_HEADER_LEN, BlockHeader};
use crate::store::codec::{CODEC_NONE, CODEC_ZSTD};
use crate::store::footer::Inputs;
use crate::store::open;
use crate::store::opened::BlockPlace;
use crate::store::slab::SlabTrailer;
use crate::store::testing::{
    PACKED, Record, SMALL, append_all, directory, read_all, read_open, record, write,
};
use crate::store::writer::{
    Compression, Piece, SegmentWriter, TopicCache, WriteError, WriterOptions,
};
use crate::topic::Topic;

fn records(n: u64) -> Vec<Record> {
    (0..n).map(|n| record(7, n)).collect()
}

fn places(open: &OpenSegment) -> Vec<BlockPlace> {
    (0..open.blocks.chunks.len()).map(|index| open.place(index)).collect()
}

#[test]
fn what_is_written_is_read_back() {
    let temp = tempfile::tempdir().unwrap();
    let directory = directory(temp.path());
    let records = records(60);
    let segment = write(&directory, SMALL, &records);
    let open = segment.open_shared().unwrap();
    assert!(open.slabs().len() >= 3 && open.blocks.chunks.len() > 6, "several slabs and blocks");
    assert!(open.blocks.chunks.iter().all(|c| c.text_len <= 100));
    assert_eq!(read_all(&segment), (records.clone(), Vec::new()));
    let bytes: usize = records.iter().map(|r| r.line.len() + 1).sum();
    assert_eq!((segment.records(), segment.text_bytes()), (60, bytes as u64));
    assert_eq!(segment.range(), (records[0].ulid, records[59].ulid));
    assert_eq!(segment.meta().file_bytes, fs::metadata(segment.path()).unwrap().len());

    let loaded = StoreSegment::load(&directory, segment.path()).unwrap();
    assert_eq!(loaded.segment.meta(), segment.meta());
    assert!(!loaded.misnamed && loaded.damage.is_empty() && !loaded.segment.is_damaged());
    for stats in segment.topic_stats().unwrap() {
        let of: Vec<_> = records.iter().filter(|r| r.topic == stats.topic.as_str()).collect();
        assert_eq!(stats.record_count, of.len() as u64);
        assert_eq!((stats.first_ms, stats.last_ms), (of[0].ulid.ms(), of[of.len() - 1].ulid.ms()));
    }
    for chunk in &open.blocks.chunks {
        let named: HashSet<_> =
            chunk.topics.iter().map(|&t| open.blocks.topics[usize::from(t)].as_str()).collect();
        let inside = |r: &&Record| (chunk.first..=chunk.last).contains(&r.ulid);
        let real: HashSet<_> = records.iter().filter(inside).map(|r| r.topic.as_str()).collect();
        assert_eq!(named, real);
    }
}

#[test]
fn a_record_longer_than_a_block_is_a_block_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let mut records = records(9);
    records[4].line = vec![b'x'; 1000];
    let segment = write(&directory(temp.path()), SMALL, &records);
    let open = segment.open_shared().unwrap();
    let long = open.blocks.chunks.iter().find(|c| c.text_len > 100).unwrap();
    assert_eq!((long.record_count, long.text_len), (1, 1001));
    assert_eq!(read_all(&segment), (records, Vec::new()));
}

#[test]
fn a_run_is_cut_at_line_boundaries_only_where_a_block_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let directory = directory(temp.path());
    let text: Vec<u8> = (0..40u8).flat_map(|i| [vec![i; 8], vec![b'\n']].concat()).collect();
    // Line 10 holds line feeds only.
    assert!(memchr::memchr_iter(b'\n', &text).count() > 40);
    let lines = text.split_inclusive(|&b| b == b'\n').count() as u32;
    let topics = [Topic::new(b"t").unwrap()];
    let first = Ulid::from_parts(5, 5, 100);
    let run = crate::run_table::Run { first, count: lines, text_len: 0, topic: 0 };
    let piece = Piece { run, text: &text, topics: &topics };
    let mut writer = SegmentWriter::new(&directory, SMALL);
    writer.append(&piece, &mut TopicCache::default()).unwrap();
    let segment = writer.finish(Inputs::default()).unwrap().unwrap();
    let open = segment.open_shared().unwrap();
    assert!(
        open.blocks
            .chunks
            .iter()
            .all(|c| c.text_len > 90 || c.last == first.plus(u64::from(lines) - 1))
    );
    assert!(places(&open).iter().all(|p| p.header.run_count == 1));
    let all: Vec<u8> = (0..open.blocks.chunks.len())
        .flat_map(|i| open.read_block(i).unwrap().text.to_vec())
        .collect();
    assert_eq!(all, text);
}

#[test]
fn what_cannot_be_appended_leaves_the_segment_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let directory = directory(temp.path());
    let records = records(5);
    let mut writer = SegmentWriter::new(&directory, WriterOptions::default());
    append_all(&mut writer, &records);
    let topics = [Topic::new(b"a").unwrap()];
    let mut cache = TopicCache::default();
    let mut append = |writer: &mut SegmentWriter, n: u64, text: &[u8]| {
        let first = record(7, n).ulid;
        let run = crate::run_table::Run { first, count: 2, text_len: 0, topic: 0 };
        let piece = Piece { run, text, topics: &topics };
        writer.append(&piece, &mut cache)
    };
    assert!(matches!(append(&mut writer, 4, b"a\nb\n"), Err(WriteError::OutOfOrder)));
    assert!(matches!(append(&mut writer, 9, b"a\n"), Err(WriteError::NotLines)));
    assert!(matches!(append(&mut writer, 9, b"a\nb\nc"), Err(WriteError::NotLines)));
    let segment = writer.finish(Inputs::default()).unwrap().unwrap();
    assert_eq!(read_all(&segment), (records, Vec::new()));
}

#[test]
fn a_segment_without_records_is_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let writer = SegmentWriter::new(&directory(temp.path()), SMALL);
    assert!(writer.finish(Inputs::default()).unwrap().is_none());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn a_segment_that_is_not_published_leaves_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::new(&directory(temp.path()), SMALL);
    append_all(&mut writer, &records(50));
    let sealed = writer.seal(Inputs::default()).unwrap().unwrap();
    assert!(sealed.path().exists());
    drop(sealed);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn what_one_node_closes_stays_open_for_the_node_beside_it() {
    let temps = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let nodes = temps.each_ref().map(|temp| directory(temp.path()));
    let segments = nodes.each_ref().map(|node| write(node, SMALL, &records(30)));
    let open = segments.each_ref().map(|s| Arc::downgrade(&s.open_shared().unwrap()));
    let is_open = || open.each_ref().map(|open| open.strong_count() > 0);
    assert_eq!(is_open(), [true, true], "though nobody reads them");
    nodes[0].caches.set_segments_open_max(0);
    assert_eq!(is_open(), [false, true]);
    let done = nodes[1].caches.with_room(|| {
        let full = std::io::Error::from_raw_os_error(libc::EMFILE);
        if is_open()[1] { Err(Refusal::from(&full)) } else { Ok(()) }
    });
    assert_eq!(done, Ok(()), "where room is short it is closed, and tried again");
}

#[test]
fn a_file_that_changes_is_verified_again() {
    let temp = tempfile::tempdir().unwrap();
    let segment = write(&directory(temp.path()), SMALL, &records(30));
    let first = segment.open_shared().unwrap();
    assert!(Arc::ptr_eq(&first, &segment.open_shared().unwrap()), "shared while it is open");
    assert!(first.read_block(0).is_ok());
    let mut bytes = fs::read(segment.path()).unwrap();
    let (_, text) = first.place(0).spans_in(&bytes).unwrap();
    bytes[text.start] ^= 1;
    // Another file under the same name: what is open stays as it was.
    let path = segment.path().to_owned();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bytes).unwrap();
    assert!(first.read_block(0).is_ok());
    let again = segment.open_shared().unwrap();
    let damage = again.read_block(0).unwrap_err();
    assert_eq!(damage.kind, DamageKind::Checksum("text of a block"));
    assert_eq!(damage.records, Some(u64::from(again.blocks.chunks[0].record_count)));
}

/// Hexadecimal digits at random: zstd halves them, and no more.
fn digits(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"0123456789abcdef"[(state >> 60) as usize]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_file_cut_under_an_open_segment_costs_what_is_gone() {
    for compression in [Compression::None, Compression::Zstd(1)] {
        let temp = tempfile::tempdir().unwrap();
        let options =
            WriterOptions { block_text_target: 16 << 10, compression, ..WriterOptions::default() };
        let mut all = records(64);
        for (n, record) in all.iter_mut().enumerate() {
            record.line = digits(n as u64, 4000);
        }
        let segment = write(&directory(temp.path()), options, &all);
        let open = segment.open().unwrap();
        assert_eq!(read_open(&*open), (all.clone(), Vec::new()));
        let shared = segment.open_shared().unwrap();
        let last = shared.blocks.chunks.len() - 1;
        let old = open.read(last).unwrap().text;
        let keep = shared.place(4).offset;
        fs::OpenOptions::new().write(true).open(segment.path()).unwrap().set_len(keep).unwrap();
        if compression == Compression::None {
            assert!(old.iter().all(|&b| b == 0) && old.is_poisoned(), "told, not invented");
            assert_eq!(old.memory_bytes(), 0);
        } else {
            assert!(open.verify(last).is_err(), "the file is found to be faulty");
            assert!(old.ends_with(&[&all[63].line[..], b"\n"].concat()), "what is decoded stays");
            assert!(!old.is_poisoned() && old.memory_bytes() >= old.len());
        }
        let (kept, damage) = read_open(&*open);
        let whole = all.iter().filter(|r| r.ulid < shared.blocks.chunks[4].first).count();
        assert_eq!(kept, all[..whole]);
        assert_eq!(damage.len(), shared.blocks.chunks.len() - 4);
    }
}

/// What was found whole before may be gone when it is read again: the map answers zeros.
#[test]
fn zeros_in_place_of_bytes_that_are_gone_are_never_decoded_into_records() {
    let temp = tempfile::tempdir().unwrap();
    let mut all = records(64);
    for (n, record) in all.iter_mut().enumerate() {
        record.line = digits(n as u64, 4000);
    }
    let options = WriterOptions { block_text_target: 64 << 10, ..WriterOptions::default() };
    let segment = write(&directory(temp.path()), options, &all);
    let open = segment.open_shared().unwrap();
    assert!(open.read_block(1).is_ok() && open.checked.is_text_verified(1));
    // The second half of the block's bytes goes; none of them is read before it is decoded.
    let place = open.place(1);
    let keep = place.offset + place.header.used_len() / 2;
    fs::OpenOptions::new().write(true).open(segment.path()).unwrap().set_len(keep).unwrap();
    let damage = open.read_block(1).unwrap_err();
    assert!(damage.loses_records(), "{damage}");
    assert!(open.read_block(0).is_ok(), "what is there is read");
}

/// A segment of at least two slabs with several blocks each, and what each block holds.
struct Broken {
    temp: tempfile::TempDir,
    directory: Arc<StoreDirectory>,
    path: PathBuf,
    bytes: Vec<u8>,
    records: Vec<Record>,
    blocks: Vec<(Range<usize>, Ulid, Ulid)>,
}

impl Broken {
    fn new() -> Self {
        Self::of(26, SMALL, CODEC_NONE)
    }

    /// The same with blocks of zstd.
    fn packed() -> Self {
        Self::of(100, PACKED, CODEC_ZSTD)
    }

    fn of(count: u64, options: WriterOptions, codec: u8) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let records = records(count);
        let segment = write(&directory, options, &records);
        let open = segment.open_shared().unwrap();
        assert!(open.slabs().len() >= 2 && open.blocks.chunks.len() >= 5);
        let places = places(&open);
        let last = places.len() - 1;
        assert!(places[..last].iter().all(|place| place.header.codec == codec));
        let span = |p: &BlockPlace| {
            let start = p.offset as usize;
            (start..start + p.header.used_len() as usize, p.header.first, p.header.last)
        };
        let blocks = places.iter().map(span).collect();
        let (path, bytes) = (segment.path().to_owned(), fs::read(segment.path()).unwrap());
        Self { temp, directory, path, bytes, records, blocks }
    }

    /// Reads the file with these bytes instead of its own.
    fn read(&self, bytes: &[u8]) -> (Vec<Record>, Vec<Damage>) {
        let _ = fs::remove_file(&self.path);
        fs::write(&self.path, bytes).unwrap();
        match StoreSegment::load(&self.directory, &self.path) {
            Ok(loaded) => {
                let (records, damage) = read_all(&loaded.segment);
                assert_eq!(loaded.damage, damage[..loaded.damage.len()], "told at once");
                (records, damage)
            }
            Err(damage) => (Vec::new(), vec![damage]),
        }
    }

    /// Checks that exactly the records of blocks that `hurt` says are hurt may be missing.
    fn check(&self, bytes: &[u8], hurt: impl Fn(&Range<usize>) -> bool, what: &str) {
        let (records, damage) = self.read(bytes);
        let mut expected = Vec::new();
        for record in &self.records {
            let block = self.blocks.iter().find(|(_, a, b)| (a..=b).contains(&&record.ulid));
            let is_back = records.contains(record);
            assert!(is_back || hurt(&block.unwrap().0), "{what}: {:?} is missing", record.ulid);
            if is_back {
                expected.push(record.clone());
            }
        }
        assert_eq!(records, expected, "{what}: nothing is invented, and all in order");
        if records.len() < self.records.len() {
            assert!(damage.iter().any(Damage::loses_records), "{what}: a loss that is not told");
        }
    }
}

#[test]
fn every_flipped_byte_costs_at_most_the_block_it_is_in() {
    for (broken, flips) in [(Broken::new(), &[0xff, 0x01][..]), (Broken::packed(), &[0x10])] {
        for at in 0..broken.bytes.len() {
            for flip in flips {
                let mut bytes = broken.bytes.clone();
                bytes[at] ^= flip;
                broken.check(&bytes, |block| block.contains(&at), &format!("byte {at} ^ {flip}"));
            }
        }
        drop(broken.temp);
    }
}

#[test]
fn every_truncation_costs_at_most_the_blocks_that_are_cut() {
    for broken in [Broken::new(), Broken::packed()] {
        for len in 0..broken.bytes.len() {
            broken.check(&broken.bytes[..len], |block| block.end > len, &format!("cut at {len}"));
        }
    }
}

/// Broken before its checksums were made: only decoding can tell.
#[test]
fn a_block_that_verifies_but_does_not_decode_costs_its_records_and_no_memory() {
    let broken = Broken::packed();
    let found = open::find(&broken.path, &mut &broken.bytes[..]).unwrap();
    let (slab, block) = (&found.slabs[0], &found.slabs[0].index.blocks[1]);
    let start = (slab.offset + block.offset) as usize;
    let text_at = start + BLOCK_HEADER_LEN + block.header.table_len as usize;
    let text = text_at..text_at + block.header.encoded_len as usize;
    let replaced = |with: &[u8], text_len: u32| {
        let mut bytes = broken.bytes.clone();
        bytes[text.clone()].fill(0);
        bytes[text.start..text.start + with.len()].copy_from_slice(with);
        let text_crc = crc32fast::hash(&bytes[text.clone()]);
        let header = BlockHeader { text_len, text_crc, ..block.header };
        bytes[start..start + BLOCK_HEADER_LEN].copy_from_slice(&header.encode());
        // Its index still says otherwise: away with it.
        let index = slab.offset + slab.trailer.unwrap().index.offset;
        bytes[index as usize] ^= 1;
        bytes
    };
    let bomb = zstd::bulk::compress(&vec![b'\n'; 17 << 20], 1).unwrap();
    assert!(bomb.len() < text.len() || bomb.len() < 2000, "{}", bomb.len());
    let bomb = &bomb[..bomb.len().min(text.len())];
    for (with, text_len) in
        [(&b"no zstd"[..], block.header.text_len), (bomb, block.header.text_len), (bomb, 17 << 20)]
    {
        let bytes = replaced(with, text_len);
        broken.check(&bytes, |hurt| hurt.contains(&start), "does not decode");
        let (_, damage) = broken.read(&bytes);
        let lost: Vec<_> = damage.iter().filter(|d| d.loses_records()).collect();
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].records, Some(u64::from(block.header.record_count)));
    }
}

#[test]
fn a_segment_that_is_not_to_be_compressed_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let options = WriterOptions { compression: Compression::None, ..PACKED };
    let segment = write(&directory(temp.path()), options, &records(100));
    let open = segment.open_shared().unwrap();
    assert!(places(&open).iter().all(|place| place.header.codec == CODEC_NONE));
    assert!(matches!(open.read_block(0).unwrap().text, Text::Mapped(..)));
    assert_eq!(read_all(&segment), (records(100), Vec::new()));
}

#[test]
fn without_a_footer_a_flipped_byte_still_costs_at_most_its_block() {
    let broken = Broken::new();
    for at in 0..broken.bytes.len() - 1 {
        let mut bytes = broken.bytes[..broken.bytes.len() - 1].to_vec();
        bytes[at] ^= 0xff;
        let what = format!("byte {at}, no footer");
        broken.check(&bytes, |block| block.contains(&at), &what);
    }
}

#[test]
fn only_repairable_damage_is_told_when_an_index_or_the_footer_is_flipped() {
    let broken = Broken::new();
    let opened = open::find(&broken.path, &mut &broken.bytes[..]).unwrap();
    let trailer: SlabTrailer = opened.slabs[0].trailer.unwrap();
    let footer_at = opened.footer.unwrap().offset() as usize;
    for (at, part) in
        [(trailer.index.offset as usize + 9, "block index"), (footer_at + 30, "footer")]
    {
        let mut bytes = broken.bytes.clone();
        bytes[at] ^= 4;
        let (records, damage) = broken.read(&bytes);
        assert_eq!(records, broken.records);
        assert_eq!(damage.len(), 1);
        assert_eq!(damage[0].kind, DamageKind::Repairable(part));
        assert!(damage[0].to_string().contains("no record is lost"));
    }
}

#[test]
fn text_that_looks_like_a_block_is_never_taken_for_one() {
    let temp = tempfile::tempdir().unwrap();
    let directory = directory(temp.path());
    // The fake: a whole segment of somebody else's as lines, at every alignment.
    let others: Vec<Record> = (0..8).map(|n| record(9, 100 + n)).collect();
    let fake = write(&directory, SMALL, &others);
    let fake_bytes = fs::read(fake.path()).unwrap();
    let mut text = Vec::new();
    for shift in 0..64 {
        text.resize((text.len() + 1).next_multiple_of(64) + shift, b'-');
        text.extend_from_slice(&fake_bytes);
    }
    let lines = text.split(|&b| b == b'\n').enumerate();
    let forged: Vec<Record> =
        lines.map(|(n, line)| Record { line: line.to_vec(), ..record(9, n as u64) }).collect();
    let segment = write(&directory, WriterOptions::default(), &forged);
    let bytes = fs::read(segment.path()).unwrap();
    // The block header and all that says where blocks are is gone.
    let path = segment.path().to_owned();
    for cut in [bytes.len(), bytes.len() - 300] {
        let mut bytes = bytes[..cut].to_vec();
        bytes[70] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        if let Ok(loaded) = StoreSegment::load(&directory, &path) {
            let (records, _) = read_all(&loaded.segment);
            assert!(records.iter().all(|r| forged.contains(r)));
        }
    }
}
