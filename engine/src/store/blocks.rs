//! What is kept in memory of an open segment's blocks, slabs and topics.
//!
//! Invariants: nothing is kept twice: a block's header is put together again from what planning
//! needs of it ([`ChunkMeta`]), what only reading needs ([`Place`]) and its slab; blocks with
//! the same topics share one list; vectors are as long as what is in them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::chunk::{ChunkMeta, TopicList};
use crate::limits::DICTIONARY_TOPICS_MAX;
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::block::BlockHeader;
use super::index::{Block, TopicStats};
use super::open::FoundSlab;
use super::slab::SlabTrailer;

/// What of a block's header and place its [`ChunkMeta`] and its slab do not say.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Where its header starts in the file, bytes.
    offset: u64,
    number: u32,
    run_count: u32,
    topic_count: u32,
    encoded_len: u32,
    table_len: u32,
    text_crc: u32,
    table_crc: u32,
    flags: u16,
    codec: u8,
    table_codec: u8,
}

/// A slab of an open segment.
#[derive(Debug, Clone)]
pub struct OpenSlab {
    /// Its random id.
    pub id: u64,
    /// Where it starts in the file, bytes.
    pub offset: u64,
    /// What its trailer says; `None` when trailer and footer are damaged.
    pub trailer: Option<SlabTrailer>,
    /// Which of the segment's chunks it holds.
    pub blocks: Range<usize>,
    /// Whether its index is whole.
    pub is_indexed: bool,
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// In ULID order.
    pub(super) chunks: Vec<ChunkMeta>,
    /// Beside the chunks, one each.
    places: Vec<Place>,
    /// In ULID order.
    pub(super) slabs: Vec<OpenSlab>,
    /// The topic dictionary.
    pub(super) topics: Vec<Topic>,
    /// Totals of those topics.
    pub(super) stats: Vec<TopicStats>,
    /// Distinct lists of topics, bytes.
    lists_bytes: usize,
}

/// Of a topic beside its entries in dictionary and totals, and of a list in the set of those known,
/// bytes, about: its name and the allocator's headers.
const TOPIC_NAME_BYTES: usize = 128;

impl Blocks {
    /// Those of slabs that were found, in their order.
    pub(super) fn of(found: Vec<FoundSlab>) -> Self {
        let block_count = found.iter().map(|slab| slab.index.blocks.len()).sum();
        let mut this = Self {
            chunks: Vec::with_capacity(block_count),
            places: Vec::with_capacity(block_count),
            slabs: Vec::with_capacity(found.len()),
            ..Self::default()
        };
        let mut dictionary = Dictionary::default();
        for slab in found {
            this.push(slab, &mut dictionary);
        }
        this.topics.shrink_to_fit();
        this.stats.shrink_to_fit();
        this.lists_bytes = dictionary.lists.iter().map(TopicList::memory_bytes).sum();
        this
    }

    fn push(&mut self, slab: FoundSlab, dictionary: &mut Dictionary) {
        let known = self.numbers(&slab.index.topics, dictionary);
        let start = self.chunks.len();
        let id = slab.index.blocks.first().map_or(0, |block| block.header.slab_id);
        let mut before = (TopicList::default(), TopicList::default());
        for Block { offset, header, topics } in slab.index.blocks {
            if !topics.is_shared_with(&before.0) {
                before = (topics.clone(), dictionary.list(&topics, &known));
            }
            self.chunks.push(ChunkMeta {
                first: header.first,
                last: header.last,
                record_count: header.record_count,
                text_len: header.text_len,
                topics: before.1.clone(),
            });
            self.places.push(Place::of(slab.offset + offset, &header));
        }
        self.slabs.push(OpenSlab {
            id,
            offset: slab.offset,
            trailer: slab.trailer,
            blocks: start..self.chunks.len(),
            is_indexed: slab.is_indexed,
        });
    }

    /// A slab's dictionary in terms of the segment's; `None` when that is full.
    fn numbers(&mut self, topics: &[TopicStats], of: &mut Dictionary) -> Vec<Option<u16>> {
        let mut known = Vec::with_capacity(topics.len());
        for stats in topics {
            let next = self.topics.len();
            let number = *of.numbers.entry(stats.topic.clone()).or_insert(next);
            if number == next {
                self.topics.push(stats.topic.clone());
                self.stats.push(stats.clone());
            } else {
                self.stats[number].add(stats);
            }
            known.push((number < DICTIONARY_TOPICS_MAX).then_some(number as u16));
        }
        known
    }

    /// What a block's header says.
    pub(super) fn header(&self, index: usize) -> BlockHeader {
        let (chunk, place) = (&self.chunks[index], &self.places[index]);
        let slab = self.slabs.partition_point(|slab| slab.blocks.end <= index);
        BlockHeader {
            slab_id: self.slabs[slab].id,
            number: place.number,
            codec: place.codec,
            table_codec: place.table_codec,
            flags: place.flags,
            record_count: chunk.record_count,
            run_count: place.run_count,
            topic_count: place.topic_count,
            text_len: chunk.text_len,
            encoded_len: place.encoded_len,
            table_len: place.table_len,
            first: chunk.first,
            last: chunk.last,
            text_crc: place.text_crc,
            table_crc: place.table_crc,
        }
    }

    /// Where a block's header starts in the file, bytes.
    pub(super) fn offset(&self, index: usize) -> u64 {
        self.places[index].offset
    }

    /// The flags of all blocks.
    pub(super) fn flags(&self) -> impl ExactSizeIterator<Item = u16> {
        self.places.iter().map(|place| place.flags)
    }

    /// First and last record of a slab; `None` if it has no block.
    pub(super) fn range_of(&self, slab: &OpenSlab) -> Option<(Ulid, Ulid)> {
        let chunks = &self.chunks[slab.blocks.clone()];
        Some((chunks.first()?.first, chunks.last()?.last))
    }

    /// What it takes in memory, bytes, about.
    pub(super) const fn memory_bytes(&self) -> usize {
        let topic = size_of::<Topic>() + size_of::<TopicStats>() + TOPIC_NAME_BYTES;
        self.chunks.capacity() * size_of::<ChunkMeta>()
            + self.places.capacity() * size_of::<Place>()
            + self.slabs.capacity() * size_of::<OpenSlab>()
            + self.topics.capacity() * topic
            + self.lists_bytes
    }
}

impl Place {
    const fn of(offset: u64, header: &BlockHeader) -> Self {
        Self {
            offset,
            number: header.number,
            run_count: header.run_count,
            topic_count: header.topic_count,
            encoded_len: header.encoded_len,
            table_len: header.table_len,
            text_crc: header.text_crc,
            table_crc: header.table_crc,
            flags: header.flags,
            codec: header.codec,
            table_codec: header.table_codec,
        }
    }
}

/// What is known while slabs are taken in.
#[derive(Default)]
struct Dictionary {
    /// Topics by their place in the segment's dictionary.
    numbers: HashMap<Topic, usize>,
    /// Distinct lists, in the segment's terms.
    lists: HashSet<TopicList>,
    scratch: Vec<u16>,
}

impl Dictionary {
    /// A block's list of its slab's topics in terms of the segment's: empty, which says nothing of
    /// the block, if one of them has no number.
    fn list(&mut self, topics: &[u16], known: &[Option<u16>]) -> TopicList {
        self.scratch.clear();
        for &topic in topics {
            let Some(number) = known[usize::from(topic)] else { return TopicList::default() };
            self.scratch.push(number);
        }
        if let Some(list) = self.lists.get(self.scratch.as_slice()) {
            return list.clone();
        }
        let list = TopicList::from(self.scratch.clone());
        self.lists.insert(list.clone());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::SlabIndex;

    fn topic(name: &str) -> TopicStats {
        let topic = Topic::new(name.as_bytes()).unwrap();
        TopicStats { topic, record_count: 1, text_bytes: 10, first_ms: 5, last_ms: 5 }
    }

    /// Each value but the codecs another, so that none can stand for another.
    fn header(slab_id: u64, number: u32) -> BlockHeader {
        let base = slab_id as u32 * 1000 + number * 100;
        BlockHeader {
            slab_id,
            number: number * 2,
            codec: 1,
            table_codec: 0,
            flags: number as u16 + 8,
            record_count: base + 1,
            run_count: base + 2,
            topic_count: base + 3,
            text_len: base + 4,
            encoded_len: base + 5,
            table_len: base + 6,
            first: Ulid(u128::from(base) + 7),
            last: Ulid(u128::from(base) + 8),
            text_crc: base + 9,
            table_crc: base + 10,
        }
    }

    fn slab(id: u64, topics: &[&str], lists: &[&[u16]]) -> FoundSlab {
        let block = |(number, list): (usize, &&[u16])| Block {
            offset: 64 + 128 * number as u64,
            header: header(id, number as u32),
            topics: list.to_vec().into(),
        };
        let blocks = lists.iter().enumerate().map(block).collect();
        let index = SlabIndex { blocks, topics: topics.iter().map(|name| topic(name)).collect() };
        FoundSlab { offset: id << 20, trailer: None, index, is_indexed: true }
    }

    #[test]
    fn every_header_is_put_together_again_as_it_was_found() {
        let found = vec![slab(1, &["a"], &[&[0], &[0], &[0]]), slab(2, &["a"], &[&[0], &[]])];
        let expected: Vec<(u64, BlockHeader)> = found
            .iter()
            .flat_map(|slab| slab.index.blocks.iter().map(|b| (slab.offset + b.offset, b.header)))
            .collect();
        let blocks = Blocks::of(found);
        let kept: Vec<_> = (0..5).map(|i| (blocks.offset(i), blocks.header(i))).collect();
        assert_eq!(kept, expected);
        assert_eq!(blocks.flags().collect::<Vec<_>>(), [8, 9, 10, 8, 9]);
        assert_eq!(blocks.range_of(&blocks.slabs[1]), Some((Ulid(2007), Ulid(2108))));
    }

    #[test]
    fn lists_of_topics_are_those_of_the_segment_and_equal_ones_are_one() {
        // The same two topics, numbered the other way round in the second slab.
        let found = vec![
            slab(1, &["a", "b"], &[&[0, 1], &[0], &[0, 1]]),
            slab(2, &["a", "b", "c"], &[&[0, 1], &[2], &[]]),
            slab(3, &["c", "a"], &[&[0], &[1]]),
        ];
        let blocks = Blocks::of(found);
        let lists: Vec<_> = blocks.chunks.iter().map(|c| c.topics.to_vec()).collect();
        assert_eq!(lists, [&[0, 1][..], &[0], &[0, 1], &[0, 1], &[2], &[], &[2], &[0]]);
        let shared =
            |a: usize, b: usize| blocks.chunks[a].topics.is_shared_with(&blocks.chunks[b].topics);
        assert!(shared(0, 2) && shared(0, 3) && shared(4, 6) && shared(1, 7) && !shared(0, 1));
        let of_c = blocks.stats.iter().find(|stats| stats.topic.as_str() == "c").unwrap();
        assert_eq!(of_c.record_count, 2, "totals are added up over slabs");
    }

    #[test]
    fn a_block_takes_88_bytes_and_its_share_of_its_slab() {
        let lists = vec![&[0, 1][..]; 1000];
        let one = Blocks::of(vec![slab(1, &["a", "b"], &lists[..1])]).memory_bytes();
        let all = Blocks::of(vec![slab(1, &["a", "b"], &lists)]);
        assert_eq!(all.memory_bytes() - one, 999 * 88);
        assert_eq!((all.chunks.capacity(), all.places.capacity()), (1000, 1000));
        assert!(size_of::<OpenSlab>() <= 32 * 8, "8 bytes a block where slabs have 32");
    }
}
