//! Which chunk is to be scanned next: the chunks of all parts by their first key, parts opened
//! only when it is their turn.
//!
//! A *key* is a ULID such that the query's order is ascending: the ULID itself, or its complement
//! for a descending query. All merging is done on keys, so that both orders are one code.
//!
//! Invariants: what comes from here is at or behind [`Feed::next_key`], which never goes back
//! except through [`Feed::opened`] of a part whose key the caller has kept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use super::context::Selection;
use super::pinned::{PinnedPart, within};
use super::scan::ScanSpec;
use super::spec::{Order, Skipped};
use crate::chunk::{ChunkMeta, Part};
use crate::limits::READ_AHEAD_CHUNKS;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// The key of a ULID.
pub(super) const fn key(order: Order, id: Ulid) -> u128 {
    match order {
        Order::Asc => id.0,
        Order::Desc => !id.0,
    }
}

/// The key of the record that comes first of those between two ULIDs.
pub(super) const fn first_key(order: Order, first: Ulid, last: Ulid) -> u128 {
    match order {
        Order::Asc => first.0,
        Order::Desc => !last.0,
    }
}

/// The key of the record that comes last of those between two ULIDs.
pub(super) const fn last_key(order: Order, first: Ulid, last: Ulid) -> u128 {
    match order {
        Order::Asc => last.0,
        Order::Desc => !first.0,
    }
}

/// Chunks of an open part that have not been handed out.
struct Cursor {
    part: Arc<PinnedPart>,
    left: Range<usize>,
    /// Which of the part's topics are wanted; none where all are. A part that does not know its
    /// topics has an empty list: each of its chunks has to be read.
    wanted: Option<Vec<bool>>,
    /// Chunks before this one (behind it in descending order) are being fetched.
    fetched_to: usize,
}

impl Cursor {
    /// What is to be fetched when this chunk is handed out: so that half of what is fetched at a
    /// time is always ahead.
    fn ahead(&mut self, order: Order, index: usize) -> Range<usize> {
        let far = READ_AHEAD_CHUNKS;
        match order {
            Order::Asc if self.fetched_to <= index + far / 2 => {
                let start = self.fetched_to.max(index);
                self.fetched_to = (index + far).min(self.left.end).max(start);
                start..self.fetched_to
            }
            Order::Desc if self.fetched_to + far / 2 > index => {
                let end = self.fetched_to.min(index + 1);
                self.fetched_to = (index + 1).saturating_sub(far).max(self.left.start).min(end);
                self.fetched_to..end
            }
            Order::Asc | Order::Desc => 0..0,
        }
    }

    /// Which chunk is next in the query's order.
    fn next(&self, order: Order) -> Option<usize> {
        let mut left = self.left.clone();
        match order {
            Order::Asc => left.next(),
            Order::Desc => left.next_back(),
        }
    }

    /// The next chunk in the query's order.
    fn peek(&self, order: Order) -> Option<&ChunkMeta> {
        self.part.chunks().get(self.next(order)?)
    }

    /// Goes on to the one behind it.
    fn skip(&mut self, order: Order) -> Option<usize> {
        match order {
            Order::Asc => self.left.next(),
            Order::Desc => self.left.next_back(),
        }
    }
}

/// What to do next.
pub(super) enum Next {
    /// Open this part, then say so with [`Feed::opened`].
    Open(Arc<dyn Part>),
    /// Scan this chunk; those of the range will be wanted soon.
    Chunk(Arc<PinnedPart>, usize, Range<usize>),
}

/// See the page of the module.
pub(super) struct Feed {
    order: Order,
    low: Ulid,
    high: Ulid,
    /// Chunks and parts without any of these need not be read.
    only: Option<Arc<Selection>>,
    /// By key, the next one last. The keys are those of the beginning: a part that is still being
    /// written grows, and what it grows by is not asked for.
    unopened: Vec<(u128, Arc<dyn Part>)>,
    cursors: Vec<Option<Cursor>>,
    /// Next key of each cursor that has chunks left.
    heads: BinaryHeap<Reverse<(u128, usize)>>,
    /// Chunks that were passed over so far.
    pub(super) blocks_skipped: Skipped,
}

impl Feed {
    pub(super) fn new(
        order: Order,
        (low, high): (Ulid, Ulid),
        only: Option<Arc<Selection>>,
        parts: Vec<Arc<dyn Part>>,
    ) -> Self {
        let is_wanted = |first, last| only.as_ref().is_none_or(|only| only.meets(first, last));
        let keyed = parts.into_iter().filter_map(|part| {
            let (first, last) = part.range();
            let is_wanted = first <= high && last >= low && is_wanted(first, last);
            is_wanted.then(|| (first_key(order, first, last), part))
        });
        let mut unopened: Vec<_> = keyed.collect();
        unopened.sort_by_key(|(key, _)| Reverse(*key));
        let (cursors, heads) = (Vec::new(), BinaryHeap::new());
        let blocks_skipped = Skipped::default();
        Self { order, low, high, only, unopened, cursors, heads, blocks_skipped }
    }

    /// Nothing that is still to come has a smaller key; `None` when nothing is.
    pub(super) fn next_key(&self) -> Option<u128> {
        let part = self.unopened.last().map(|(key, _)| *key);
        let chunk = self.heads.peek().map(|Reverse((key, _))| *key);
        match (part, chunk) {
            (Some(part), Some(chunk)) => Some(part.min(chunk)),
            (part, chunk) => part.or(chunk),
        }
    }

    /// Takes what is next, with its key.
    pub(super) fn next(&mut self) -> Option<(u128, Next)> {
        let next_key = self.next_key()?;
        if let Some((_, part)) = self.unopened.pop_if(|(key, _)| *key == next_key) {
            return Some((next_key, Next::Open(part)));
        }
        let Reverse((_, slot)) = self.heads.pop()?;
        let cursor = self.cursors.get_mut(slot)?.as_mut()?;
        let index = cursor.skip(self.order)?;
        let part = Arc::clone(&cursor.part);
        let ahead = cursor.ahead(self.order, index);
        self.requeue(slot);
        Some((next_key, Next::Chunk(part, index, ahead)))
    }

    /// Takes the next chunk without its being read, if nothing that is still to come overlaps it,
    /// all of it is asked for, and `count` agrees; `count` is told the chunk's only topic, where it
    /// has but one.
    pub(super) fn take_lone(
        &mut self,
        count: &mut dyn FnMut(&ChunkMeta, Option<&Topic>) -> bool,
    ) -> bool {
        let Some(Reverse((first, slot))) = self.heads.pop() else { return false };
        let other = self.next_key();
        if self.is_lone(slot, other, count) {
            if let Some(Some(cursor)) = self.cursors.get_mut(slot) {
                cursor.skip(self.order);
            }
            self.requeue(slot);
            return true;
        }
        self.heads.push(Reverse((first, slot)));
        false
    }

    fn is_lone(
        &self,
        slot: usize,
        other: Option<u128>,
        count: &mut dyn FnMut(&ChunkMeta, Option<&Topic>) -> bool,
    ) -> bool {
        let Some(Some(cursor)) = self.cursors.get(slot) else { return false };
        let (Some(index), Some(meta)) = (cursor.next(self.order), cursor.peek(self.order)) else {
            return false;
        };
        let topic = match meta.topics[..] {
            [topic] => cursor.part.topics().get(usize::from(topic)),
            _ => None,
        };
        other.is_none_or(|other| other > last_key(self.order, meta.first, meta.last))
            && meta.first >= self.low
            && meta.last <= self.high
            // A chunk with but one topic is here because that one is wanted.
            && (cursor.wanted.is_none() || topic.is_some())
            && cursor.part.may_be_counted(index)
            && count(meta, topic)
    }

    /// No more of this part; what it would still have brought lies between the two.
    pub(super) fn give_up(&mut self, part: &Arc<PinnedPart>) -> Option<(Ulid, Ulid)> {
        let is_its = |cursor: &Option<Cursor>| {
            cursor.as_ref().is_some_and(|cursor| Arc::ptr_eq(&cursor.part, part))
        };
        let slot = self.cursors.iter().position(is_its)?;
        let cursor = self.cursors[slot].take()?;
        self.heads.retain(|Reverse((_, of))| *of != slot);
        let left = cursor.part.chunks().get(cursor.left)?;
        Some((left.first()?.first, left.last()?.last))
    }

    /// A part that was taken is open: its chunks are merged in.
    pub(super) fn opened(&mut self, part: Arc<PinnedPart>, spec: &ScanSpec) {
        let chunks = part.chunks();
        let Range { start, end } = within(chunks, (self.low, self.high));
        self.blocks_skipped.by_time += (chunks.len() - (end - start)) as u64;
        let wanted = (!spec.topics.is_empty())
            .then(|| part.topics().iter().map(|topic| spec.wants(topic)).collect());
        let fetched_to = if self.order == Order::Asc { start } else { end };
        let cursor = Cursor { part, left: start..end, wanted, fetched_to };
        let slot = self.cursors.iter().position(Option::is_none).unwrap_or(self.cursors.len());
        if slot == self.cursors.len() {
            self.cursors.push(None);
        }
        self.cursors[slot] = Some(cursor);
        self.requeue(slot);
    }

    /// Enters the cursor's next chunk that can hold a match; lets go of the part behind its last.
    fn requeue(&mut self, slot: usize) {
        let Some(Some(cursor)) = self.cursors.get_mut(slot) else { return };
        if cursor.wanted.is_none() {
            // Most of them may be ruled out: past them at once.
            let before = std::mem::take(&mut cursor.left);
            cursor.left = cursor.part.narrowed(before.clone());
            self.blocks_skipped.by_signature += (before.len() - cursor.left.len()) as u64;
        }
        while let (Some(index), Some(meta)) = (cursor.next(self.order), cursor.peek(self.order)) {
            let is_selected =
                self.only.as_ref().is_none_or(|only| only.meets(meta.first, meta.last));
            let has_topic = cursor.wanted.as_ref().is_none_or(|wanted| may_match(meta, wanted));
            if is_selected && has_topic && cursor.part.is_candidate(index) {
                let key = first_key(self.order, meta.first, meta.last);
                self.heads.push(Reverse((key, slot)));
                return;
            }
            let skipped = &mut self.blocks_skipped;
            *(match (is_selected, has_topic) {
                (false, _) => &mut skipped.by_time,
                (true, false) => &mut skipped.by_topic,
                (true, true) => &mut skipped.by_signature,
            }) += 1;
            cursor.skip(self.order);
        }
        self.cursors[slot] = None;
    }
}

fn may_match(meta: &ChunkMeta, wanted: &[bool]) -> bool {
    meta.topics.is_empty()
        || meta.topics.iter().any(|&topic| wanted.get(usize::from(topic)).is_none_or(|&w| w))
}
