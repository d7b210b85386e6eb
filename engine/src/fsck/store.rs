//! The check of one store segment: all that its bytes say, against each other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::damage::{Damage, DamageKind};
use crate::decoded::Decoders;
use crate::run_table::RunTable;
use crate::storage::{Bytes, Refusal};
use crate::store::block::{BLOCK_HEADER_LEN, BlockHeader};
use crate::store::codec::CODEC_NONE;
use crate::store::coverage::{CoverageBuilder, Interval};
use crate::store::entry_table::EntryTable;
use crate::store::index::{Block, TopicStats};
use crate::store::name::Name;
use crate::store::open::{self, Found, FoundSlab};
use crate::store::slab::{SLAB_HEADER_LEN, SlabTrailer, TRAILER_LEN, decode_slab_header};
use crate::topic::Topic;

/// The check of one store segment's bytes.
pub(super) struct SegmentCheck<'a> {
    path: &'a Path,
    bytes: &'a mut dyn Bytes,
    decoders: Decoders,
    pub(super) record_count: u64,
    pub(super) damage: Vec<Damage>,
    /// What the run tables say per topic, for comparison with indexes and footer.
    slab_topics: BTreeMap<Topic, TopicStats>,
    topics: BTreeMap<Topic, TopicStats>,
    /// Which records they say there are, for comparison with the footer.
    coverage: CoverageBuilder,
}

impl<'a> SegmentCheck<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a mut dyn Bytes) -> Self {
        Self {
            path,
            bytes,
            decoders: Decoders::default(),
            record_count: 0,
            damage: Vec::new(),
            slab_topics: BTreeMap::new(),
            topics: BTreeMap::new(),
            coverage: CoverageBuilder::default(),
        }
    }

    /// Tells of a part that others can replace, or that could not be read.
    fn replaceable(&mut self, span: Range<u64>, part: &'static str, refusal: Option<Refusal>) {
        let kind = refusal.map_or(DamageKind::Repairable(part), DamageKind::Bypassed);
        self.harmless(span, kind);
    }

    /// Tells of a part that others can replace.
    fn repairable(&mut self, span: Range<u64>, part: &'static str) {
        self.harmless(span, DamageKind::Repairable(part));
    }

    /// Tells of damage that costs no record.
    fn harmless(&mut self, span: Range<u64>, kind: DamageKind) {
        self.damage.push(Damage {
            path: self.path.to_owned(),
            offset: span.start,
            len_bytes: span.end - span.start,
            range: None,
            records: Some(0),
            kind,
        });
    }

    pub(super) fn run(&mut self) {
        let Found { footer, slabs, damage } = match open::find(self.path, self.bytes) {
            Ok(found) => found,
            Err(shortage) => return self.damage.push(of_file(self.path, shortage.into())),
        };
        self.damage = damage;
        let mut all_readable = self.damage.iter().all(|damage| !damage.loses_records());
        for slab in &slabs {
            all_readable &= self.slab(slab);
        }
        let Some(footer) = footer else { return };
        let name = self.path.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
        let named = name.and_then(|name| name.segment());
        let named = named.map(|(first, last, id)| (id, Some((first, last))));
        let span = footer.offset()..self.bytes.len();
        if named != Some((footer.id, footer.range())) {
            self.repairable(0..0, "file name");
        }
        let agrees = footer.topics.iter().eq(self.topics.values());
        if all_readable && footer.topics_complete && !agrees {
            self.repairable(span.clone(), "topic list of the footer");
        }
        let found = std::mem::take(&mut self.coverage).finish().of_records(self.record_count);
        if all_readable && footer.coverage.is_known_in_full() && !footer.coverage.is_same(&found) {
            self.repairable(span, "coverage of the footer");
        }
    }

    /// Checks a slab; says whether all its blocks are readable.
    fn slab(&mut self, slab: &FoundSlab) -> bool {
        let start = slab.offset;
        let id = slab.index.blocks.first().map(|block| block.header.slab_id);
        let span = start..start + SLAB_HEADER_LEN as u64;
        match self.bytes.read(span.clone()).map(|bytes| decode_slab_header(bytes).ok()) {
            Ok(found) if found == id => {}
            found => self.replaceable(span, "slab header", found.err()),
        }
        self.slab_topics.clear();
        let mut all_readable = true;
        for block in &slab.index.blocks {
            all_readable &= self.block(slab.offset, block);
        }
        if let Some(trailer) = slab.trailer {
            self.sections(slab, &trailer);
            let mut indexed: Vec<_> = slab.index.topics.iter().collect();
            indexed.sort_by(|a, b| a.topic.cmp(&b.topic));
            if slab.is_indexed && all_readable && !indexed.into_iter().eq(self.slab_topics.values())
            {
                let section = trailer.index;
                let span = start + section.offset..start + section.offset + section.len;
                self.repairable(span, "topic list of the block index");
            }
        }
        for (topic, stats) in std::mem::take(&mut self.slab_topics) {
            let known = self.topics.entry(topic);
            known.and_modify(|known| known.add(&stats)).or_insert(stats);
        }
        all_readable
    }

    /// Checks what lies behind the blocks of a slab.
    fn sections(&mut self, slab: &FoundSlab, trailer: &SlabTrailer) {
        let start = slab.offset;
        let at = start + trailer.len - TRAILER_LEN as u64;
        let stored = at..at + TRAILER_LEN as u64;
        match self.bytes.read(stored.clone()).map(SlabTrailer::decode) {
            Ok(found) if found == Ok(*trailer) => {}
            found => self.replaceable(stored, "slab trailer", found.err()),
        }
        let section = trailer.signatures;
        let span = start + section.offset..start + section.offset + section.len;
        let verified =
            self.bytes.read(span.clone()).map_err(DamageKind::from).and_then(|section| {
                let matrix = open::signatures_of(section, trailer)?;
                matrix.map_or(Ok(()), |matrix| matrix.verify_all())
            });
        self.told_of(span.clone(), "signature matrix", verified);
        let mut end = span.end;
        if trailer.entries.len > 0 {
            let span = start + trailer.entries.offset..start + trailer.entries.offset;
            let span = span.start..span.end + trailer.entries.len;
            let crc = trailer.entries.crc;
            let read = self.bytes.read(span.clone()).map_err(DamageKind::from);
            let verified = read.and_then(|bytes| {
                let count = trailer.block_count as usize;
                EntryTable::decode(bytes, crc, count)?.verify(&slab.index.blocks)
            });
            self.told_of(span.clone(), "entry table", verified);
            self.zeros(end..span.start);
            end = span.end;
        }
        self.zeros(end..at);
        let index_end = trailer.index.offset + trailer.index.len;
        self.zeros(start + index_end..start + section.offset);
    }

    /// Tells what became of checking what queries can do without.
    fn told_of(&mut self, span: Range<u64>, name: &'static str, verified: Result<(), DamageKind>) {
        match verified {
            Ok(()) => {}
            Err(DamageKind::Unread(refusal)) => self.harmless(span, DamageKind::Bypassed(refusal)),
            Err(_) => self.harmless(span, DamageKind::Dispensable(name)),
        }
    }

    /// Checks a block; says whether its records are readable.
    fn block(&mut self, slab_start: u64, block: &Block) -> bool {
        let (start, header) = (slab_start + block.offset, &block.header);
        // All of it at once, so that what is told of header and payload is of the same bytes.
        let read = self.bytes.read(start..start + header.used_len()).map_err(DamageKind::from);
        let (of_header, of_payload) = match read {
            Ok(bytes) => (BlockHeader::decode(bytes), read_block(&self.decoders, bytes, header)),
            Err(refused) => (Ok(*header), Err(refused)),
        };
        if of_header.as_ref() != Ok(header) {
            self.repairable(start..start + BLOCK_HEADER_LEN as u64, "block header");
        }
        match of_payload {
            Ok(table) => {
                self.record_count += u64::from(header.record_count);
                self.count_runs(&table);
                self.zeros(start + header.used_len()..start + header.stored_len());
                true
            }
            Err(kind) => {
                self.damage.push(Damage {
                    path: self.path.to_owned(),
                    offset: start,
                    len_bytes: header.stored_len(),
                    range: Some((header.first, header.last)),
                    records: Some(u64::from(header.record_count)),
                    kind,
                });
                false
            }
        }
    }

    fn count_runs(&mut self, table: &RunTable) {
        for run in &table.runs {
            self.coverage.add(Interval::of_run(run));
            let topic = &table.topics[usize::from(run.topic)];
            let ms = run.first.ms();
            let stats = TopicStats {
                topic: topic.clone(),
                record_count: u64::from(run.count),
                text_bytes: u64::from(run.text_len),
                first_ms: ms,
                last_ms: ms,
            };
            let known = self.slab_topics.entry(topic.clone());
            known.and_modify(|known| known.add(&stats)).or_insert(stats);
        }
    }

    fn zeros(&mut self, span: Range<u64>) {
        match self.bytes.read(span.clone()).map(|bytes| bytes.iter().any(|&b| b != 0)) {
            Ok(false) => {}
            found => self.replaceable(span, "padding", found.err()),
        }
    }
}

/// All of a file.
pub(super) fn of_file(path: &Path, kind: DamageKind) -> Damage {
    let path = path.to_owned();
    Damage { path, offset: 0, len_bytes: 0, range: None, records: None, kind }
}

/// Verifies a block's table and text, and that each run is as many lines as it claims.
fn read_block(
    decoders: &Decoders,
    bytes: &[u8],
    header: &BlockHeader,
) -> Result<RunTable, DamageKind> {
    let payload = bytes
        .get(BLOCK_HEADER_LEN..header.used_len() as usize)
        .ok_or(DamageKind::Truncated("block"))?;
    let (table, text) = payload.split_at(header.table_len as usize);
    header.check_text(text)?;
    let table = header.decode_table(decoders, table)?;
    let decoded;
    let text = if header.codec == CODEC_NONE {
        text
    } else {
        decoded = header.decode_text(decoders, text)?;
        &decoded
    };
    if table.describes(text) { Ok(table) } else { Err(DamageKind::Malformed("text of a block")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Part;
    use crate::entries::LevelCount;
    use crate::storage::{FileBytes, Open, OsStorage, Storage};
    use crate::store::coverage::Coverage;
    use crate::store::testing::{Record, SIGNED, directory, record, write};
    use crate::varint;
    use std::fs;

    fn records(to: u64) -> Vec<Record> {
        (0..to).map(|n| record(1, n)).collect()
    }

    #[test]
    fn every_flipped_byte_is_found_and_every_lost_record_is_counted() {
        let temp = tempfile::tempdir().unwrap();
        let mut records = records(20);
        // So that there is an entry table, too.
        records.extend(entries(26).split_off(20));
        let segment = write(&directory(temp.path()), SIGNED, &records);
        let bytes = fs::read(segment.path()).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let mut bytes = &bytes[..];
            let mut check = SegmentCheck::new(segment.path(), &mut bytes);
            check.run();
            assert!(!check.damage.is_empty(), "byte {at}");
            let lost: u64 = check.damage.iter().filter_map(|damage| damage.records).sum();
            assert_eq!(check.record_count + lost, 26, "byte {at}: {:?}", check.damage);
            let lossy = check.damage.iter().any(Damage::loses_records);
            assert_eq!(lossy, check.record_count < 26, "byte {at}: {:?}", check.damage);
        }
    }

    #[test]
    fn a_coverage_that_names_other_records_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let segment = write(&directory(temp.path()), SIGNED, &records(26));
        let bytes = fs::read(segment.path()).unwrap();
        let mut footer = open::read_footer(&mut &bytes[..]).unwrap();
        let mut interval = footer.coverage.intervals()[0];
        interval.last_ms += 1;
        footer.coverage = Coverage::of(vec![interval]);
        let mut bytes = bytes[..footer.offset() as usize].to_vec();
        bytes.extend(footer.encode());
        let mut bytes = &bytes[..];
        let mut check = SegmentCheck::new(segment.path(), &mut bytes);
        check.run();
        let kinds: Vec<_> = check.damage.iter().map(|damage| damage.kind.clone()).collect();
        assert_eq!(kinds, [DamageKind::Repairable("coverage of the footer")]);
    }

    #[test]
    fn every_truncation_is_found_and_never_called_harmless_when_it_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let segment = write(&directory(temp.path()), SIGNED, &records(26));
        let bytes = fs::read(segment.path()).unwrap();
        for len in 0..bytes.len() {
            let mut bytes = &bytes[..len];
            let mut check = SegmentCheck::new(segment.path(), &mut bytes);
            check.run();
            assert!(!check.damage.is_empty(), "cut at {len}");
            let lossy = check.damage.iter().any(Damage::loses_records);
            assert!(lossy || check.record_count == 26, "cut at {len}: {:?}", check.damage);
            if lossy {
                let reach = check.damage.iter().filter_map(|d| d.range).map(|range| range.1).max();
                assert_eq!(reach, Some(segment.meta().last));
            }
        }
    }

    /// Records, each of which is an entry.
    fn entries(to: u64) -> Vec<Record> {
        let line = |n: u64| {
            format!(
                "{{\"timestamp\":\"2024-05-01T12:00:00Z\",\"level\":\"info\",\"message\":\"{n}\",\
                 \"service\":\"a service of some length\"}}"
            )
        };
        records(to)
            .into_iter()
            .zip(0..)
            .map(|(r, n)| Record { line: line(n).into(), ..r })
            .collect()
    }

    /// What is found in a file of 8 entries after its first slab was changed, with checksums that hold.
    fn found_in_changed(change: impl FnOnce(&mut SlabTrailer, &mut Vec<u8>)) -> (u64, Vec<Damage>) {
        let temp = tempfile::tempdir().unwrap();
        let segment = write(&directory(temp.path()), SIGNED, &entries(8));
        let mut bytes = fs::read(segment.path()).unwrap();
        let mut footer = open::read_footer(&mut &bytes[..]).unwrap();
        let end = footer.offset() as usize;
        bytes.truncate(end);
        let trailer = &mut footer.slabs[0].trailer;
        change(trailer, &mut bytes);
        let at = trailer.len as usize - TRAILER_LEN;
        bytes[at..at + TRAILER_LEN].copy_from_slice(&trailer.encode());
        bytes.extend(footer.encode());
        fs::write(segment.path(), bytes).unwrap();
        let file = OsStorage.open(segment.path(), Open::Read).unwrap();
        let mut bytes = FileBytes::new(file).unwrap();
        let mut check = SegmentCheck::new(segment.path(), &mut bytes);
        check.run();
        if let Ok(part) = segment.open() {
            part.entries(0..part.chunks().len(), &mut |_, rows| {
                let mut count = LevelCount::default();
                for row in rows {
                    count.add(row.count);
                }
                assert!(count.entries <= 8, "{count:?} told of damaged entries");
            });
        }
        (check.record_count, check.damage)
    }

    #[test]
    fn sections_that_are_not_in_their_order_are_found_and_every_record_is_read() {
        type Change = fn(&mut SlabTrailer);
        let (records, damage) = found_in_changed(|_, _| {});
        assert_eq!((records, damage), (8, Vec::new()));
        let changes: [Change; 4] = [
            |trailer| trailer.entries.offset = SLAB_HEADER_LEN as u64,
            |trailer| trailer.signatures.offset = SLAB_HEADER_LEN as u64,
            |trailer| trailer.signatures = trailer.entries,
            |trailer| trailer.index.offset = trailer.entries.offset,
        ];
        for change in changes {
            let (records, damage) = found_in_changed(|trailer, _| change(trailer));
            assert_eq!(records, 8);
            assert!(!damage.is_empty());
        }
    }

    #[test]
    fn a_table_that_tells_of_more_entries_than_there_are_records_is_found_and_not_believed() {
        for (entries, latest) in
            [(u64::MAX, 0), (u64::MAX / 2, 0), (1 << 32, 0), (9, 0), (1, u64::MAX), (1, 9)]
        {
            let (records, damage) = found_in_changed(|trailer, bytes| {
                let mut table = vec![1, 0, 1, 0];
                let mut rows = vec![2];
                for level in 0..2 {
                    for number in [0, 0, level, entries, latest] {
                        varint::put(&mut rows, number);
                    }
                }
                let ends = (0..trailer.block_count).flat_map(|_| (rows.len() as u32).to_le_bytes());
                table.extend(ends);
                table.extend(b"\x03\0web\x01\0s");
                table.extend(rows);
                let section = &mut trailer.entries;
                assert!(
                    table.len() as u64 <= section.len.next_multiple_of(64),
                    "it fits in its place"
                );
                let at = section.offset as usize;
                bytes[at..trailer.len as usize - TRAILER_LEN].fill(0);
                bytes[at..at + table.len()].copy_from_slice(&table);
                (section.len, section.crc) = (table.len() as u64, crc32fast::hash(&table));
            });
            assert_eq!(records, 8);
            let kinds: Vec<_> = damage.into_iter().map(|damage| damage.kind).collect();
            assert_eq!(kinds, [DamageKind::Dispensable("entry table")], "{entries} {latest}");
        }
    }
}
