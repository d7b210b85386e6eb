//! How many entries each block of a slab holds, by topic, level and service: what is asked about them is
//! answered, or known not to be in a block, without its text.
//!
//! Invariants: what is told of a block is exact; of a block that holds more kinds of them than there is
//! room for, or a service of which the text is too long, nothing is told, and it has to be read. Bytes from
//! a disk are verified before anything in them is believed: nor are they where they tell of more entries than
//! the block has records, or of later ones.

use std::collections::{BTreeMap, HashMap};

use memchr::{memchr, memmem};

use crate::chunk::ChunkMeta;
use crate::damage::DamageKind;
use crate::entries::{EntryRow, Kept, LEVELS, LevelCount};
use crate::limits::{ENTRY_TABLE_BYTES_MAX, ENTRY_TABLE_SERVICE_BYTES_MAX, SLAB_BLOCKS_MAX};
use crate::run_table::RunTable;
use crate::topic::Topic;
use crate::varint::{self, Reader};

use super::index::Block;

/// What every entry begins with.
const START: &[u8] = b"{\"timestamp\":\"";
/// Counts of topics and services, and the length of a topic's name or a service's text, bytes.
const COUNT_BYTES: usize = 2;
/// Where a block's rows end.
const END_BYTES: usize = 4;
/// What the counts and the ends of all blocks that a slab may have, also of those still to come, leave.
const NAMES_AND_ROWS_BYTES_MAX: usize =
    ENTRY_TABLE_BYTES_MAX - 2 * COUNT_BYTES - SLAB_BLOCKS_MAX * END_BYTES;
const BAD: DamageKind = DamageKind::Malformed("entry table");

/// Names by the order in which they came.
#[derive(Default)]
struct Names {
    numbers: HashMap<Box<str>, u16>,
    /// As they are written.
    bytes: Vec<u8>,
}

impl Names {
    /// What one that is new takes, bytes; `None`: one more cannot be numbered.
    fn cost(&self, name: &str) -> Option<usize> {
        if self.numbers.contains_key(name) {
            return Some(0);
        }
        (self.numbers.len() < usize::from(u16::MAX)).then(|| COUNT_BYTES + name.len())
    }

    fn number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len() as u16;
        self.numbers.insert(name.into(), number);
        self.bytes.extend((name.len() as u16).to_le_bytes());
        self.bytes.extend(name.as_bytes());
        number
    }
}

/// A slab's, block by block.
#[derive(Default)]
pub(super) struct EntryTableBuilder {
    topics: Names,
    services: Names,
    ends: Vec<u32>,
    rows: Vec<u8>,
    has_entries: bool,
}

impl EntryTableBuilder {
    /// Adds the next block; the table describes its text.
    pub(super) fn push(&mut self, table: &RunTable, text: &[u8]) {
        if let Some(counts) = counts(table, text) {
            self.add(table, &counts);
        }
        self.ends.push(self.rows.len() as u32);
    }

    fn add(&mut self, table: &RunTable, counts: &Counts<'_>) {
        let topic = |index: u16| table.topics.get(usize::from(index)).map_or("", Topic::as_str);
        let first_ms = table.runs.first().map_or(0, |run| run.first.ms());
        let start = self.rows.len();
        varint::put(&mut self.rows, counts.len() as u64);
        let mut new = 0;
        let mut seen = (None, None);
        for (index, service, _) in counts.keys() {
            // Sorted, so that each topic is met once, and a service once in each of them.
            for (names, name, seen) in [
                (&self.topics, topic(*index), &mut seen.0),
                (&self.services, *service, &mut seen.1),
            ] {
                if *seen != Some(name) {
                    *seen = Some(name);
                    new += names.cost(name).unwrap_or(ENTRY_TABLE_BYTES_MAX);
                }
            }
        }
        let used = self.topics.bytes.len() + self.services.bytes.len() + start + new;
        // Four numbers of ten bytes at most, and a level.
        let most = used + counts.len() * 41 + 10;
        if most > NAMES_AND_ROWS_BYTES_MAX {
            self.rows.truncate(start);
            return;
        }
        for (&(index, service, level), count) in counts {
            let numbers = [
                u64::from(self.topics.number(topic(index))),
                u64::from(self.services.number(service)),
                level as u64,
                count.entries,
                count.latest_ms.saturating_sub(first_ms),
            ];
            for number in numbers {
                varint::put(&mut self.rows, number);
            }
        }
        self.has_entries |= !counts.is_empty();
    }

    /// As it is stored; empty where no block holds an entry, or where nobody would believe it.
    pub(super) fn finish(self) -> Vec<u8> {
        if !self.has_entries {
            return Vec::new();
        }
        let counts = [&self.topics, &self.services].map(|names| names.numbers.len() as u16);
        let mut out: Vec<u8> = counts.into_iter().flat_map(u16::to_le_bytes).collect();
        out.extend(self.ends.into_iter().flat_map(u32::to_le_bytes));
        for part in [self.topics.bytes, self.services.bytes, self.rows] {
            out.extend(part);
        }
        if out.len() > ENTRY_TABLE_BYTES_MAX {
            return Vec::new();
        }
        out
    }
}

/// By topic's index, service and level.
type Counts<'a> = BTreeMap<(u16, &'a str, usize), LevelCount>;

/// The entries of a block; `None`: a service is too long.
fn counts<'a>(table: &RunTable, text: &'a [u8]) -> Option<Counts<'a>> {
    let mut counts = Counts::new();
    let mut spans = table.spans().peekable();
    // What begins like one is looked for, not each line looked at: most have nothing of the kind.
    for at in memmem::find_iter(text, START) {
        if at > 0 && text[at - 1] != b'\n' {
            continue;
        }
        while spans.next_if(|(_, span)| span.end <= at).is_some() {}
        let Some((run, span)) = spans.peek() else { break };
        let line = &text[at..span.end.min(text.len())];
        let line = &line[..memchr(b'\n', line).unwrap_or(line.len())];
        let Some(Kept { level, service, .. }) = Kept::of(line) else { continue };
        if service.len() > ENTRY_TABLE_SERVICE_BYTES_MAX {
            return None;
        }
        let one = LevelCount { entries: 1, latest_ms: run.first.ms() };
        counts.entry((run.topic, service, level)).or_default().add(one);
    }
    Some(counts)
}

/// What is known of a block without the table, which must agree with it.
pub(crate) struct KnownBlock {
    /// Of its first record, milliseconds since 1970.
    pub(crate) first_ms: u64,
    /// Of its last record.
    pub(crate) last_ms: u64,
    /// Its records.
    pub(crate) record_count: u32,
}

impl From<&ChunkMeta> for KnownBlock {
    fn from(chunk: &ChunkMeta) -> Self {
        let (first_ms, last_ms) = (chunk.first.ms(), chunk.last.ms());
        Self { first_ms, last_ms, record_count: chunk.record_count }
    }
}

/// One that was read.
pub(crate) struct EntryTable<'a> {
    topics: Vec<Topic>,
    services: Vec<&'a str>,
    ends: &'a [u8],
    rows: &'a [u8],
}

impl<'a> EntryTable<'a> {
    /// Of a slab with so many blocks.
    pub(crate) fn decode(
        bytes: &'a [u8],
        crc: u32,
        block_count: usize,
    ) -> Result<Self, DamageKind> {
        if crc32fast::hash(bytes) != crc {
            return Err(DamageKind::Checksum("entry table"));
        }
        Self::of(bytes, block_count).ok_or(BAD)
    }

    fn of(bytes: &'a [u8], block_count: usize) -> Option<Self> {
        let mut rest = bytes;
        let mut count = || {
            let (count, left) = rest.split_first_chunk()?;
            rest = left;
            Some(u16::from_le_bytes(*count))
        };
        let (topic_count, service_count) = (count()?, count()?);
        let (ends, mut rest) = rest.split_at_checked(block_count * END_BYTES)?;
        let mut name = || {
            let (len, left) = rest.split_first_chunk()?;
            let (name, left) = left.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            rest = left;
            Some(name)
        };
        let topic = |name: &[u8]| Topic::new(name).ok();
        let topics =
            (0..topic_count).map(|_| name().and_then(topic)).collect::<Option<Vec<_>>>()?;
        let text = |name: &'a [u8]| std::str::from_utf8(name).ok();
        let services =
            (0..service_count).map(|_| name().and_then(text)).collect::<Option<Vec<_>>>()?;
        Some(Self { topics, services, ends, rows: rest })
    }

    /// The entries of a block; `None`: they are not told.
    pub(crate) fn block(
        &self,
        block: usize,
        known: &KnownBlock,
    ) -> Result<Option<Vec<EntryRow<'_>>>, DamageKind> {
        let end = |block: usize| {
            let end = self.ends.get(block * END_BYTES..)?.first_chunk()?;
            Some(u32::from_le_bytes(*end) as usize)
        };
        let start = block.checked_sub(1).map_or(Some(0), end);
        let rows = start.zip(end(block)).and_then(|(start, end)| self.rows.get(start..end));
        let rows = rows.ok_or(BAD)?;
        if rows.is_empty() {
            return Ok(None);
        }
        self.read(rows, known).map(Some).ok_or(BAD)
    }

    fn read(&self, rows: &[u8], known: &KnownBlock) -> Option<Vec<EntryRow<'_>>> {
        let mut rows = Reader::new(rows);
        let mut found = Vec::new();
        let mut left = u64::from(known.record_count);
        for _ in 0..rows.varint()? {
            let index = |number: u64| usize::try_from(number).ok();
            let topic = self.topics.get(index(rows.varint()?)?)?;
            let service = *self.services.get(index(rows.varint()?)?)?;
            let level = index(rows.varint()?).filter(|&level| level < LEVELS.len())?;
            let (entries, latest) = (rows.varint()?, rows.varint()?);
            left = left.checked_sub(entries)?;
            let latest_ms = known.first_ms.checked_add(latest)?;
            if latest_ms > known.last_ms {
                return None;
            }
            let count = LevelCount { entries, latest_ms };
            found.push(EntryRow { topic, level, service, count });
        }
        rows.is_empty().then_some(found)
    }

    /// Reads all that it tells of these blocks of its slab.
    pub(crate) fn verify(&self, blocks: &[Block]) -> Result<(), DamageKind> {
        blocks.iter().try_for_each(|Block { header, .. }| {
            let (first_ms, last_ms) = (header.first.ms(), header.last.ms());
            let known = KnownBlock { first_ms, last_ms, record_count: header.record_count };
            self.block(header.number as usize, &known).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Part;
    use crate::run_table::Run;
    use crate::store::open;
    use crate::store::testing::{self, Record};
    use crate::store::writer::WriterOptions;
    use crate::ulid::Ulid;
    use proptest::prelude::*;

    fn entry(level: usize, service: &str) -> String {
        format!(
            "{{\"timestamp\":\"2024-05-01T12:00:00Z\",\"level\":\"{}\",\"message\":\"m\",\
             \"service\":\"{service}\"}}\n",
            LEVELS[level]
        )
    }

    /// A block of runs, each with a time and a topic.
    fn block(runs: &[(u64, u16, String)]) -> (RunTable, String) {
        let topics = ["log", "web"].map(|name| Topic::new(name.as_bytes()).unwrap());
        let mut table = RunTable { topics: topics.to_vec(), ..RunTable::default() };
        let mut text = String::new();
        for (at, (ms, topic, lines)) in runs.iter().enumerate() {
            let first = Ulid::from_parts(*ms, 1, at as u64 * 1_000);
            let count = lines.matches('\n').count() as u32;
            table.runs.push(Run { first, count, text_len: lines.len() as u32, topic: *topic });
            text.push_str(lines);
        }
        (table, text)
    }

    fn stored(blocks: &[(RunTable, String)]) -> Vec<u8> {
        let mut builder = EntryTableBuilder::default();
        for (table, text) in blocks {
            builder.push(table, text.as_bytes());
        }
        builder.finish()
    }

    fn told(bytes: &[u8], blocks: usize, block: usize, first_ms: u64) -> Option<Vec<String>> {
        let table = EntryTable::decode(bytes, crc32fast::hash(bytes), blocks).unwrap();
        let known = KnownBlock { first_ms, last_ms: first_ms + 5, record_count: 5 };
        let rows = table.block(block, &known).unwrap()?;
        let shown = |row: EntryRow<'_>| {
            let LevelCount { entries, latest_ms } = row.count;
            format!("{} {} {} {entries} {latest_ms}", row.topic, row.service, LEVELS[row.level])
        };
        Some(rows.into_iter().map(shown).collect())
    }

    #[test]
    fn what_is_told_of_a_block_is_what_stands_in_it() {
        let mixed = entry(1, "a") + "no entry\n" + &entry(1, "a") + &entry(3, "b");
        let blocks = [
            block(&[(10, 0, mixed), (12, 1, entry(1, "a")), (15, 0, entry(1, "a"))]),
            block(&[(20, 0, "plain\n".into())]),
            block(&[(30, 1, entry(4, "ü\\\""))]),
        ];
        let bytes = stored(&blocks);
        assert_eq!(
            told(&bytes, 3, 0, 10).unwrap(),
            ["log a info 3 15", "log b error 1 10", "web a info 1 12"]
        );
        assert_eq!(told(&bytes, 3, 1, 20).unwrap(), [""; 0], "that there is none is told, too");
        assert_eq!(told(&bytes, 3, 2, 30).unwrap(), ["web ü\\\" fatal 1 30"]);
        assert_eq!(stored(&blocks[1..2]), [0_u8; 0], "nothing is stored where there is none");
    }

    #[test]
    fn the_example_on_the_page_is_what_is_written() {
        const PAGE: &str = include_str!("../../../docs/format-store.md");
        let web = entry(1, "web");
        let blocks =
            [block(&[(10, 0, web.clone()), (15, 0, web)]), block(&[(20, 0, "no entry\n".into())])];
        let bytes = stored(&blocks);
        let line = |(at, bytes): (usize, &[u8])| {
            let bytes: Vec<_> = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
            format!("{:04x} {}\n", at * 16, bytes.concat())
        };
        let dump: String = bytes.chunks(16).enumerate().map(line).collect();
        assert!(PAGE.contains(&format!("```hexdump\n{dump}```")), "the page should show:\n{dump}");
    }

    #[test]
    fn of_a_block_that_finds_no_room_nothing_is_told() {
        let many = |from: usize| {
            let lines: String =
                (from..from + 6_000).map(|n| entry(1, &format!("s{n:060}"))).collect();
            block(&[(10, 0, lines)])
        };
        let long = block(&[(10, 0, entry(1, &"x".repeat(ENTRY_TABLE_SERVICE_BYTES_MAX + 1)))]);
        let few = block(&[(10, 0, entry(1, "s"))]);
        let bytes = stored(&[few.clone(), many(0), long, few]);
        assert!(bytes.len() <= ENTRY_TABLE_BYTES_MAX);
        assert_eq!(told(&bytes, 4, 0, 10).unwrap(), ["log s info 1 10"]);
        assert_eq!((told(&bytes, 4, 1, 10), told(&bytes, 4, 2, 10)), (None, None));
        assert_eq!(told(&bytes, 4, 3, 10).unwrap(), ["log s info 1 10"]);
    }

    #[test]
    fn a_table_that_is_full_has_room_for_all_blocks_that_follow() {
        let names = 460;
        let lines = (0..SLAB_BLOCKS_MAX).map(|n| match n {
            n if n < names => entry(1, &format!("{n:0>590}")).trim_end().as_bytes().to_vec(),
            _ => vec![b'x'; 600],
        });
        let records: Vec<Record> = lines
            .enumerate()
            .map(|(n, line)| Record {
                ulid: Ulid::from_parts(10, 1, n as u64),
                topic: "web".into(),
                line,
            })
            .collect();
        let options = WriterOptions {
            block_text_target: 500,
            slab_blocks_max: SLAB_BLOCKS_MAX,
            ..testing::SMALL
        };
        let temp = tempfile::tempdir().unwrap();
        let segment = testing::write(&testing::directory(temp.path()), options, &records);
        let bytes = std::fs::read(segment.path()).unwrap();
        let footer = open::read_footer(&mut &bytes[..]).expect("it is believed by who reads it");
        let slabs: Vec<_> = footer.slabs.iter().map(|slab| slab.trailer).collect();
        assert_eq!((slabs.len(), slabs[0].block_count as usize), (1, SLAB_BLOCKS_MAX));
        let table_len = slabs[0].entries.len as usize;
        assert!((ENTRY_TABLE_BYTES_MAX - 1_400..=ENTRY_TABLE_BYTES_MAX).contains(&table_len));

        let part = segment.open().unwrap();
        let mut told = vec![None; SLAB_BLOCKS_MAX];
        let damage = part.entries(0..SLAB_BLOCKS_MAX, &mut |block, rows| {
            told[block] = Some(rows.iter().map(|row| row.count.entries).sum::<u64>());
        });
        assert_eq!(damage, None);
        let full = told.iter().position(Option::is_none).unwrap();
        assert!((400..names).contains(&full), "{full}");
        assert!(told[..full].iter().all(|told| *told == Some(1)));
        assert!(told[full..].iter().all(|told| told.is_none_or(|entries| entries == 0)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(
            bytes in prop::collection::vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..80),
            blocks in 0usize..4,
        ) {
            if let Ok(table) = EntryTable::decode(&bytes, crc32fast::hash(&bytes), blocks) {
                let known = KnownBlock { first_ms: 0, last_ms: 200, record_count: 100 };
                for block in 0..blocks {
                    let rows = table.block(block, &known).ok().flatten().unwrap_or_default();
                    prop_assert!(rows.iter().map(|row| row.count.entries).sum::<u64>() <= 100);
                    prop_assert!(rows.iter().all(|row| row.count.latest_ms <= 200));
                }
            }
        }

        #[test]
        fn every_flipped_bit_is_noticed(bit in 0usize..8 * 60) {
            let mut bytes = stored(&[block(&[(10, 0, entry(1, "a") + &entry(2, "b"))])]);
            let crc = crc32fast::hash(&bytes);
            let at = bit % (8 * bytes.len());
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(EntryTable::decode(&bytes, crc, 1).is_err());
        }
    }
}
