//! The block that a segment writer is filling: runs, their text and the block's own dictionary.

use std::collections::HashMap;

use crate::run_table::{Run, RunTable};
use crate::topic::Topic;
use crate::ulid::Ulid;

use super::block::{BLOCK_FOLD_EXTRAS, BlockHeader};
use super::codec::{Encoded, Encoder};
use super::index::TopicStats;
use crate::signature::grams::has_fold_extras;

/// Remembers what a source's topic indexes are in the block being filled. One cache serves one
/// topic list.
#[derive(Debug, Default)]
pub struct TopicCache {
    block_serial: u64,
    indexes: Vec<Option<u16>>,
}

#[derive(Debug, Default)]
pub(super) struct OpenBlock {
    pub(super) table: RunTable,
    pub(super) text: Vec<u8>,
    indexes: HashMap<Topic, u16>,
    /// Counts the blocks, so that caches of an earlier block are not believed. Starts at 1.
    serial: u64,
}

impl OpenBlock {
    pub(super) fn new() -> Self {
        Self { serial: 1, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.runs.is_empty()
    }

    /// The block's index of topic `number` of a source; `None` when the dictionary is full.
    pub(super) fn topic_index(
        &mut self,
        topics: &[Topic],
        number: u16,
        cache: &mut TopicCache,
    ) -> Option<u16> {
        if cache.block_serial != self.serial {
            cache.block_serial = self.serial;
            cache.indexes.clear();
            cache.indexes.resize(topics.len(), None);
        }
        let slot = &mut cache.indexes[usize::from(number)];
        if slot.is_none() {
            let topic = &topics[usize::from(number)];
            *slot = match self.indexes.get(topic) {
                Some(&index) => Some(index),
                None if self.table.topics.len() >= crate::limits::DICTIONARY_TOPICS_MAX => None,
                None => {
                    let index = self.table.topics.len() as u16;
                    self.table.topics.push(topic.clone());
                    self.indexes.insert(topic.clone(), index);
                    Some(index)
                }
            };
        }
        *slot
    }

    /// Takes a run over.
    pub(super) fn push(&mut self, run: Run, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.table.push(run);
    }

    /// What the block holds of each topic of its dictionary, in the dictionary's order.
    pub(super) fn topic_stats(&self) -> Vec<TopicStats> {
        let empty = |topic: &Topic| TopicStats {
            topic: topic.clone(),
            record_count: 0,
            text_bytes: 0,
            first_ms: u64::MAX,
            last_ms: 0,
        };
        let mut stats: Vec<TopicStats> = self.table.topics.iter().map(empty).collect();
        for run in &self.table.runs {
            let of = &mut stats[usize::from(run.topic)];
            of.record_count += u64::from(run.count);
            of.text_bytes += u64::from(run.text_len);
            of.first_ms = of.first_ms.min(run.first.ms());
            of.last_ms = run.first.ms();
        }
        stats
    }

    /// Header, run table and text as they are stored. The block is not empty.
    pub(super) fn seal<'a>(
        &'a self,
        slab_id: u64,
        number: u32,
        encoder: &'a mut Encoder,
    ) -> (BlockHeader, Encoded<'a>) {
        let encoded = encoder.encode(&self.table, &self.text);
        let (first, last) = self.table.range().unwrap_or((Ulid::MAX, Ulid::MIN));
        let header = BlockHeader {
            slab_id,
            number,
            codec: encoded.codec,
            table_codec: encoded.table_codec,
            flags: if has_fold_extras(&self.text) { BLOCK_FOLD_EXTRAS } else { 0 },
            record_count: self.table.record_count() as u32,
            run_count: self.table.runs.len() as u32,
            topic_count: self.table.topics.len() as u32,
            text_len: self.text.len() as u32,
            encoded_len: encoded.text.len() as u32,
            table_len: encoded.table.len() as u32,
            first,
            last,
            text_crc: crc32fast::hash(encoded.text),
            table_crc: crc32fast::hash(encoded.table),
        };
        (header, encoded)
    }

    /// Empties it for the next block; the buffers stay.
    pub(super) fn clear(&mut self) {
        self.table.topics.clear();
        self.table.runs.clear();
        self.text.clear();
        self.indexes.clear();
        self.serial += 1;
    }
}
