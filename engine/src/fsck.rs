//! Checks every byte that means something in a data directory, offline and read-only.
//!
//! Each kind of file has one function here that lists what it holds and what is damaged, with the
//! offset and what is lost. Redundant parts (a block header that the index repeats, say) are
//! checked too: their damage costs no record yet, and says so.
//!
//! Invariants: nothing is ever written; a file that is no file of ours is listed as unknown and
//! is not an error; one unreadable file does not stop the check of the others.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::damage::{Damage, DamageKind};
use crate::run_table::RunTable;
use crate::storage::{Open, Storage};
use crate::store::block::{BLOCK_HEADER_LEN, BlockHeader};
use crate::store::index::{Block, TopicStats};
use crate::store::name::Name;
use crate::store::open::{self, Found, FoundSlab};
use crate::store::slab::{SlabTrailer, TRAILER_LEN, decode_slab_header};
use crate::topic::Topic;
use crate::ulid::Ulid;

/// Directories that a data directory holds.
const SUBDIRECTORIES: [&str; 2] = ["ingest", "store"];

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A published store segment.
    StoreSegment,
    /// A store segment that was being written: the next start removes it.
    StoreUnfinished,
    /// The lock of a directory.
    Lock,
    /// Not a file of ours.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoreSegment => "store segment",
            Self::StoreUnfinished => "unfinished store segment",
            Self::Lock => "lock",
            Self::Unknown => "unknown",
        })
    }
}

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Its length, bytes.
    pub file_bytes: u64,
    /// Records in it that are whole.
    pub record_count: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// What was found out about all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Per file, by path.
    pub files: Vec<FileReport>,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.files.iter().all(|file| file.damage.is_empty())
    }

    /// All damages.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.files.iter().flat_map(|file| &file.damage)
    }

    /// Whole records in all files; copies count each.
    pub fn record_count(&self) -> u64 {
        self.files.iter().map(|file| file.record_count).sum()
    }
}

/// Checks a data directory, one of its directories, or one file. An error: there is no such path
/// or it cannot be listed.
pub fn check(storage: &dyn Storage, path: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    match storage.list(path) {
        Ok(_) => check_directory(storage, path, &SUBDIRECTORIES, &mut report)?,
        Err(not_a_directory) => match storage.open(path, Open::Read).and_then(|f| f.len()) {
            Ok(len_bytes) => report.files.push(check_file(storage, path.to_owned(), len_bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
            Err(_) => return Err(not_a_directory),
        },
    }
    report.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

fn check_directory(
    storage: &dyn Storage,
    path: &Path,
    subdirectories: &[&str],
    report: &mut Report,
) -> io::Result<()> {
    for entry in storage.list(path)? {
        let Some(name) = entry.name else {
            let path = path.join("(a name that is not UTF-8)");
            report.files.push(unknown(path, entry.len_bytes));
            continue;
        };
        let path = path.join(&name);
        if entry.is_file {
            report.files.push(check_file(storage, path, entry.len_bytes));
        } else if subdirectories.contains(&name.as_str()) {
            check_directory(storage, &path, &[], report)?;
        } else {
            report.files.push(unknown(path, entry.len_bytes));
        }
    }
    Ok(())
}

const fn unknown(path: PathBuf, file_bytes: u64) -> FileReport {
    let damage = Vec::new();
    FileReport { path, kind: FileKind::Unknown, file_bytes, record_count: 0, damage }
}

fn check_file(storage: &dyn Storage, path: PathBuf, file_bytes: u64) -> FileReport {
    match path.file_name().and_then(|name| name.to_str()).and_then(Name::parse) {
        Some(Name::Flushed { .. }) => check_store_segment(storage, path, file_bytes),
        Some(Name::Writing(_)) => {
            FileReport { kind: FileKind::StoreUnfinished, ..unknown(path, file_bytes) }
        }
        Some(Name::Lock) => FileReport { kind: FileKind::Lock, ..unknown(path, file_bytes) },
        None => unknown(path, file_bytes),
    }
}

/// Checks a published store segment.
fn check_store_segment(storage: &dyn Storage, path: PathBuf, file_bytes: u64) -> FileReport {
    let mut report =
        FileReport { kind: FileKind::StoreSegment, ..unknown(path.clone(), file_bytes) };
    let map = match storage.open(&path, Open::Read).and_then(|file| file.map()) {
        Ok(map) => map,
        Err(e) => {
            report.damage.push(SegmentCheck::new(&path, &[]).whole(DamageKind::Io(e.kind())));
            return report;
        }
    };
    let mut check = SegmentCheck::new(&path, &map);
    check.run();
    if map.is_poisoned() {
        check.damage.push(check.whole(DamageKind::Io(io::ErrorKind::Other)));
    }
    (report.record_count, report.damage) = (check.record_count, check.damage);
    report
}

/// The check of one store segment's bytes.
struct SegmentCheck<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    record_count: u64,
    damage: Vec<Damage>,
    /// What the run tables say per topic, for comparison with indexes and footer.
    slab_topics: BTreeMap<Topic, TopicStats>,
    topics: BTreeMap<Topic, TopicStats>,
}

impl<'a> SegmentCheck<'a> {
    const fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self {
            path,
            bytes,
            record_count: 0,
            damage: Vec::new(),
            slab_topics: BTreeMap::new(),
            topics: BTreeMap::new(),
        }
    }

    fn whole(&self, kind: DamageKind) -> Damage {
        let path = self.path.to_owned();
        let len_bytes = self.bytes.len() as u64;
        Damage { path, offset: 0, len_bytes, range: None, records: None, kind }
    }

    /// Tells of a part that others can replace.
    fn repairable(&mut self, span: Range<u64>, part: &'static str) {
        self.damage.push(Damage {
            path: self.path.to_owned(),
            offset: span.start,
            len_bytes: span.end - span.start,
            range: None,
            records: Some(0),
            kind: DamageKind::Repairable(part),
        });
    }

    fn run(&mut self) {
        let Found { footer, slabs, damage } = open::find(self.path, self.bytes);
        self.damage = damage;
        let mut all_readable = self.damage.iter().all(|damage| !damage.loses_records());
        for slab in &slabs {
            all_readable &= self.slab(slab);
        }
        let Some(footer) = footer else { return };
        let name = self.path.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
        let named = match name {
            Some(Name::Flushed { first, last, id }) => Some((id, Some((first, last)))),
            _ => None,
        };
        let span = footer.offset()..self.bytes.len() as u64;
        if named != Some((footer.id, footer.range())) {
            self.repairable(0..0, "file name");
        }
        let agrees = footer.topics.iter().eq(self.topics.values());
        if all_readable && footer.topics_complete && !agrees {
            self.repairable(span, "topic list of the footer");
        }
    }

    /// Checks a slab; says whether all its blocks are readable.
    fn slab(&mut self, slab: &FoundSlab) -> bool {
        let start = slab.offset;
        let bytes = &self.bytes[start as usize..];
        let id = slab.index.blocks.first().map(|block| block.header.slab_id);
        if decode_slab_header(bytes).ok() != id {
            self.repairable(start..start + 64, "slab header");
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
        let stored = self.bytes.get(at as usize..).map(SlabTrailer::decode);
        if stored != Some(Ok(*trailer)) {
            self.repairable(at..at + TRAILER_LEN as u64, "slab trailer");
        }
        let section = trailer.signatures;
        let span = start + section.offset..start + section.offset + section.len;
        let bytes = self.bytes.get(span.start as usize..span.end as usize);
        if bytes.map(crc32fast::hash) != Some(section.crc) {
            self.repairable(span, "signature matrix");
        }
        let index_end = trailer.index.offset + trailer.index.len;
        self.zeros(start + index_end..start + section.offset);
    }

    /// Checks a block; says whether its records are readable.
    fn block(&mut self, slab_start: u64, block: &Block) -> bool {
        let (start, header) = (slab_start + block.offset, &block.header);
        let bytes = &self.bytes[start as usize..];
        if BlockHeader::decode(bytes).as_ref() != Ok(header) {
            self.repairable(start..start + BLOCK_HEADER_LEN as u64, "block header");
        }
        match read_block(bytes, header) {
            Ok(table) => {
                self.record_count += u64::from(header.record_count);
                self.count_topics(&table);
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

    fn count_topics(&mut self, table: &RunTable) {
        for run in &table.runs {
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
        let end = span.end.min(self.bytes.len() as u64);
        let bytes = self.bytes.get(span.start as usize..end as usize);
        if bytes.is_some_and(|bytes| bytes.iter().any(|&b| b != 0)) {
            self.repairable(span, "padding");
        }
    }
}

/// Verifies a block's table and text, and that each run is as many lines as it claims.
fn read_block(bytes: &[u8], header: &BlockHeader) -> Result<RunTable, DamageKind> {
    let payload = bytes
        .get(BLOCK_HEADER_LEN..header.used_len() as usize)
        .ok_or(DamageKind::Truncated("block"))?;
    let (table, text) = payload.split_at(header.table_len as usize);
    header.check_text(text)?;
    let table = header.decode_table(table)?;
    let is_lines = |(run, span): (&crate::run_table::Run, Range<usize>)| {
        text.get(span).is_some_and(|text| {
            text.last() == Some(&b'\n')
                && memchr::memchr_iter(b'\n', text).count() == run.count as usize
        })
    };
    if table.spans().all(is_lines) {
        Ok(table)
    } else {
        Err(DamageKind::Malformed("text of a block"))
    }
}

/// The ULID ranges in which records are lost, as far as they are known, merged and in order.
pub fn lost_ranges<'a>(damage: impl Iterator<Item = &'a Damage>) -> Vec<(Ulid, Ulid)> {
    let mut ranges: Vec<_> = damage.filter(|d| d.loses_records()).filter_map(|d| d.range).collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::OsStorage;
    use crate::store::footer::Inputs;
    use crate::store::testing::{Record, SMALL, append_all, directory, record, write};
    use crate::store::writer::SegmentWriter;
    use std::fs;

    fn records(to: u64) -> Vec<Record> {
        (0..to).map(|n| record(1, n)).collect()
    }

    #[test]
    fn a_whole_data_directory_is_clean_and_every_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let store = temp.path().join("store");
        for path in [&store, &temp.path().join("ingest"), &temp.path().join("else")] {
            fs::create_dir(path).unwrap();
        }
        let directory = directory(&store);
        let segment = write(&directory, SMALL, &records(40));
        let mut writer = SegmentWriter::new(&directory, SMALL);
        append_all(&mut writer, &records(40));
        let sealed = writer.seal(Inputs::default()).unwrap().unwrap();
        fs::write(store.join("LOCK"), "1\n").unwrap();
        fs::write(store.join("notes"), "mine\n").unwrap();

        let report = check(&OsStorage, temp.path()).unwrap();
        assert!(report.is_clean());
        assert_eq!(report.record_count(), 40);
        let mut found: Vec<_> = report.files.iter().map(|f| (f.path.clone(), f.kind)).collect();
        let mut expected = vec![
            (segment.path().to_owned(), FileKind::StoreSegment),
            (sealed.path().to_owned(), FileKind::StoreUnfinished),
            (store.join("LOCK"), FileKind::Lock),
            (store.join("notes"), FileKind::Unknown),
            (temp.path().join("else"), FileKind::Unknown),
        ];
        found.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found, expected);

        let one = check(&OsStorage, segment.path()).unwrap();
        assert_eq!((one.files.len(), one.record_count()), (1, 40));
        assert!(check(&OsStorage, &temp.path().join("nowhere")).is_err());
    }

    #[test]
    fn every_flipped_byte_is_found_and_every_lost_record_is_counted() {
        let temp = tempfile::tempdir().unwrap();
        let segment = write(&directory(temp.path()), SMALL, &records(26));
        let bytes = fs::read(segment.path()).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let mut check = SegmentCheck::new(segment.path(), &bytes);
            check.run();
            assert!(!check.damage.is_empty(), "byte {at}");
            let lost: u64 = check.damage.iter().filter_map(|damage| damage.records).sum();
            assert_eq!(check.record_count + lost, 26, "byte {at}: {:?}", check.damage);
            let lossy = check.damage.iter().any(Damage::loses_records);
            assert_eq!(lossy, check.record_count < 26, "byte {at}: {:?}", check.damage);
        }
    }

    #[test]
    fn every_truncation_is_found_and_never_called_harmless_when_it_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let segment = write(&directory(temp.path()), SMALL, &records(26));
        let bytes = fs::read(segment.path()).unwrap();
        for len in 0..bytes.len() {
            let mut check = SegmentCheck::new(segment.path(), &bytes[..len]);
            check.run();
            assert!(!check.damage.is_empty(), "cut at {len}");
            let lossy = check.damage.iter().any(Damage::loses_records);
            assert!(lossy || check.record_count == 26, "cut at {len}: {:?}", check.damage);
            if lossy {
                let last = segment.meta().last;
                assert_eq!(lost_ranges(check.damage.iter()).last().map(|r| r.1), Some(last));
            }
        }
    }

    #[test]
    fn a_segment_under_a_wrong_name_and_an_unreadable_one_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let segment = write(&directory(temp.path()), SMALL, &records(10));
        let name = Name::parse(segment.path().file_name().unwrap().to_str().unwrap()).unwrap();
        let Name::Flushed { first, last, id } = name else { panic!() };
        let last = Ulid(last.0 + 1);
        let other = temp.path().join(Name::Flushed { first, last, id }.to_string());
        fs::rename(segment.path(), &other).unwrap();
        let report = check(&OsStorage, &other).unwrap();
        let kinds: Vec<_> = report.damage().map(|d| d.kind.clone()).collect();
        assert_eq!(kinds, [DamageKind::Repairable("file name")]);
        fs::write(&other, "").unwrap();
        let report = check(&OsStorage, &other).unwrap();
        assert!(report.damage().any(Damage::loses_records));
    }
}
