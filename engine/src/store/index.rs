//! The block index of a slab: per block what its header says and where it lies, per topic what
//! the slab holds of it. Archived with rkyv; `docs/format-store.md` §7 has the layout.
//!
//! Invariants: bytes are checked three times before they are believed: checksum (by the slab),
//! structure (bytecheck), meaning ([`SlabIndex::from_bytes`]: offsets inside the slab and in
//! order, ULID ranges in order, totals). What comes out is plain owned data.

use rkyv::rancor::Error as ArchiveError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::chunk::TopicList;
use crate::damage::DamageKind;
use crate::limits::{
    BLOCK_ALIGNMENT, DICTIONARY_TOPICS_MAX, SLAB_BLOCK_TOPICS_MAX, SLAB_BLOCKS_MAX,
    SLAB_INDEX_BYTES_MAX,
};
use crate::topic::Topic;
use crate::ulid::{MS_MAX, Ulid};

use super::block::BlockHeader;

const MALFORMED: DamageKind = DamageKind::Malformed("block index");

/// Records of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStats {
    /// The topic.
    pub topic: Topic,
    /// Its records.
    pub record_count: u64,
    /// Their text, LFs included, bytes.
    pub text_bytes: u64,
    /// Time of the first, milliseconds.
    pub first_ms: u64,
    /// Time of the last, milliseconds.
    pub last_ms: u64,
}

impl TopicStats {
    /// Adds what another part holds of the same topic.
    pub fn add(&mut self, other: &Self) {
        self.record_count += other.record_count;
        self.text_bytes += other.text_bytes;
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

/// A block and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Offset of its header from the start of the slab, bytes.
    pub offset: u64,
    /// What its header says.
    pub header: BlockHeader,
    /// Indexes into the slab's topics, ascending; empty where only the header is known.
    pub topics: TopicList,
}

/// The index of one slab.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlabIndex {
    /// Blocks in ULID order.
    pub blocks: Vec<Block>,
    /// The slab's topic dictionary with totals.
    pub topics: Vec<TopicStats>,
}

/// The archived form: the root object of the section.
#[derive(Archive, Serialize, Deserialize)]
struct StoredIndex {
    slab_id: u64,
    blocks: Vec<StoredBlock>,
    topics: Vec<StoredTopic>,
    /// Topic lists of all blocks, one after the other.
    block_topics: Vec<u16>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredBlock {
    offset: u64,
    first: [u8; 16],
    last: [u8; 16],
    record_count: u32,
    run_count: u32,
    topic_count: u32,
    text_len: u32,
    encoded_len: u32,
    table_len: u32,
    text_crc: u32,
    table_crc: u32,
    codec: u8,
    table_codec: u8,
    flags: u16,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredTopic {
    name: String,
    record_count: u64,
    text_bytes: u64,
    first_ms: u64,
    last_ms: u64,
}

/// What an index must agree with.
#[derive(Debug, Clone, Copy)]
pub struct IndexBounds {
    /// The slab's id.
    pub slab_id: u64,
    /// Blocks in the slab.
    pub block_count: u32,
    /// The first block begins at this offset in the slab.
    pub blocks_start: u64,
    /// Blocks end at or before this one.
    pub blocks_end: u64,
    /// Records in the slab.
    pub record_count: u64,
}

impl SlabIndex {
    /// The section's bytes.
    pub fn to_bytes(&self, slab_id: u64) -> AlignedVec {
        let block = |b: &Block| StoredBlock {
            offset: b.offset,
            first: b.header.first.to_bytes(),
            last: b.header.last.to_bytes(),
            record_count: b.header.record_count,
            run_count: b.header.run_count,
            topic_count: b.header.topic_count,
            text_len: b.header.text_len,
            encoded_len: b.header.encoded_len,
            table_len: b.header.table_len,
            text_crc: b.header.text_crc,
            table_crc: b.header.table_crc,
            codec: b.header.codec,
            table_codec: b.header.table_codec,
            flags: b.header.flags,
        };
        let topic = |t: &TopicStats| StoredTopic {
            name: t.topic.as_str().to_owned(),
            record_count: t.record_count,
            text_bytes: t.text_bytes,
            first_ms: t.first_ms,
            last_ms: t.last_ms,
        };
        let stored = StoredIndex {
            slab_id,
            blocks: self.blocks.iter().map(block).collect(),
            topics: self.topics.iter().map(topic).collect(),
            block_topics: self.blocks.iter().flat_map(|b| b.topics.iter().copied()).collect(),
        };
        rkyv::to_bytes::<ArchiveError>(&stored).expect("vectors and strings serialize to memory")
    }

    /// Reads a section whose checksum was verified; everything else is checked here.
    pub fn from_bytes(bytes: &[u8], bounds: &IndexBounds) -> Result<Self, DamageKind> {
        if bytes.len() > SLAB_INDEX_BYTES_MAX {
            return Err(MALFORMED);
        }
        let mut copy: AlignedVec = AlignedVec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        let stored =
            rkyv::access::<ArchivedStoredIndex, ArchiveError>(&copy).map_err(|_| MALFORMED)?;
        Self::believe(stored, bounds).ok_or(MALFORMED)
    }

    fn believe(stored: &ArchivedStoredIndex, bounds: &IndexBounds) -> Option<Self> {
        let possible = stored.slab_id == bounds.slab_id
            && stored.blocks.len() == bounds.block_count as usize
            && stored.blocks.len() <= SLAB_BLOCKS_MAX
            && stored.topics.len() <= DICTIONARY_TOPICS_MAX
            && stored.block_topics.len() <= SLAB_BLOCK_TOPICS_MAX;
        if !possible {
            return None;
        }
        let topics = stored.topics.iter().map(topic_of).collect::<Option<Vec<_>>>()?;
        let mut lists: &[_] = &stored.block_topics;
        let mut blocks: Vec<Block> = Vec::with_capacity(stored.blocks.len());
        let mut end = bounds.blocks_start;
        for (number, stored) in stored.blocks.iter().enumerate() {
            let header = header_of(stored, bounds.slab_id, number as u32);
            let offset = stored.offset.to_native();
            header.validate().ok()?;
            let after = blocks.last().is_none_or(|b| b.header.last < header.first);
            if offset != end || !offset.is_multiple_of(BLOCK_ALIGNMENT as u64) || !after {
                return None;
            }
            end = offset.checked_add(header.stored_len()).filter(|&e| e <= bounds.blocks_end)?;
            let (list, rest) = lists.split_at_checked(header.topic_count as usize)?;
            lists = rest;
            let list = list_of(list, blocks.last());
            let ascending = list.is_sorted_by(|a, b| a < b);
            if !ascending || list.last().is_some_and(|&t| usize::from(t) >= topics.len()) {
                return None;
            }
            blocks.push(Block { offset, header, topics: list });
        }
        let records: u64 = blocks.iter().map(|b| u64::from(b.header.record_count)).sum();
        (records == bounds.record_count && lists.is_empty()).then_some(Self { blocks, topics })
    }
}

/// A block's topics: most often those of the block before it, and then they share one list.
fn list_of(stored: &[rkyv::rend::u16_le], before: Option<&Block>) -> TopicList {
    let list = stored.iter().map(|t| t.to_native());
    match before {
        Some(before) if list.clone().eq(before.topics.iter().copied()) => before.topics.clone(),
        _ => list.collect::<Vec<_>>().into(),
    }
}

fn header_of(stored: &ArchivedStoredBlock, slab_id: u64, number: u32) -> BlockHeader {
    BlockHeader {
        slab_id,
        number,
        codec: stored.codec,
        table_codec: stored.table_codec,
        flags: stored.flags.to_native(),
        record_count: stored.record_count.to_native(),
        run_count: stored.run_count.to_native(),
        topic_count: stored.topic_count.to_native(),
        text_len: stored.text_len.to_native(),
        encoded_len: stored.encoded_len.to_native(),
        table_len: stored.table_len.to_native(),
        first: Ulid::from_bytes(stored.first),
        last: Ulid::from_bytes(stored.last),
        text_crc: stored.text_crc.to_native(),
        table_crc: stored.table_crc.to_native(),
    }
}

fn topic_of(stored: &ArchivedStoredTopic) -> Option<TopicStats> {
    let stats = TopicStats {
        topic: Topic::new(stored.name.as_bytes()).ok()?,
        record_count: stored.record_count.to_native(),
        text_bytes: stored.text_bytes.to_native(),
        first_ms: stored.first_ms.to_native(),
        last_ms: stored.last_ms.to_native(),
    };
    stats.is_possible().then_some(stats)
}

impl TopicStats {
    /// Whether the fields can be true together.
    pub(super) const fn is_possible(&self) -> bool {
        self.record_count > 0
            && self.text_bytes >= self.record_count
            && self.first_ms <= self.last_ms
            && self.last_ms <= MS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(block_count: u32) -> (SlabIndex, IndexBounds) {
        let mut blocks = Vec::new();
        let blocks_start = 64;
        let mut offset = blocks_start;
        for number in 0..block_count {
            let header = BlockHeader {
                slab_id: 9,
                number,
                codec: 0,
                table_codec: 0,
                flags: 0,
                record_count: 3,
                run_count: 1,
                topic_count: 2,
                text_len: 30,
                encoded_len: 30,
                table_len: 20,
                first: Ulid::from_parts(100, 1, u64::from(number) * 3),
                last: Ulid::from_parts(100, 1, u64::from(number) * 3 + 2),
                text_crc: 1,
                table_crc: 2,
            };
            blocks.push(Block { offset, header, topics: vec![0, 2].into() });
            offset += header.stored_len();
        }
        let topic = |name: &str| TopicStats {
            topic: Topic::new(name.as_bytes()).unwrap(),
            record_count: 1,
            text_bytes: 10,
            first_ms: 100,
            last_ms: 100,
        };
        let topics = vec![topic("a"), topic("a-rather-long-topic-name"), topic("c")];
        let record_count = u64::from(block_count) * 3;
        let blocks_end = offset;
        let bounds =
            IndexBounds { slab_id: 9, block_count, blocks_start, blocks_end, record_count };
        (SlabIndex { blocks, topics }, bounds)
    }

    #[test]
    fn an_index_round_trips() {
        for count in [0, 1, 5, 1024] {
            let (index, bounds) = index(count);
            assert_eq!(SlabIndex::from_bytes(&index.to_bytes(9), &bounds), Ok(index));
        }
    }

    #[test]
    fn an_index_that_disagrees_with_its_slab_is_refused() {
        let (good, bounds) = index(3);
        let refused = |index: &SlabIndex, bounds: &IndexBounds| {
            SlabIndex::from_bytes(&index.to_bytes(9), bounds) == Err(MALFORMED)
        };
        assert!(refused(&good, &IndexBounds { slab_id: 8, ..bounds }));
        assert!(refused(&good, &IndexBounds { block_count: 2, ..bounds }));
        assert!(refused(&good, &IndexBounds { blocks_end: bounds.blocks_end - 1, ..bounds }));
        assert!(refused(&good, &IndexBounds { record_count: 10, ..bounds }));
        let mut bad = good.clone();
        bad.blocks[1].offset += 64;
        assert!(refused(&bad, &bounds), "a gap");
        let mut bad = good.clone();
        bad.blocks[2].header.first = bad.blocks[1].header.last;
        assert!(refused(&bad, &bounds), "overlapping ranges");
        let mut bad = good.clone();
        bad.blocks[0].topics = vec![0, 3].into();
        assert!(refused(&bad, &bounds), "a topic outside the dictionary");
        assert!(!refused(&good, &bounds));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes: Vec<u8>) {
            let (_, bounds) = index(3);
            let _ = SlabIndex::from_bytes(&bytes, &bounds);
        }

        #[test]
        fn no_flipped_byte_makes_reading_panic(at: usize, to: u8) {
            let (good, bounds) = index(3);
            let mut bytes = good.to_bytes(9).to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = SlabIndex::from_bytes(&bytes, &bounds);
        }
    }
}
