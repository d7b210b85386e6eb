//! One chunk on its way through a sweep: what its scan has brought and nobody has taken.
//!
//! Invariants: hits are in ULID order; what it still brings is at or behind its bound.

use std::collections::VecDeque;
use std::sync::Arc;

use super::feed::first_key;
use super::pinned::PinnedPart;
use super::scan::{Hit, Known, Rest, cut, decoded_bytes, malformed};
use super::spec::Order;
use crate::chunk::Text;
use crate::damage::Damage;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// See the page of the module.
pub(super) struct Track {
    pub(super) id: u64,
    /// Nothing it still brings has a smaller key, hits that are here aside.
    pub(super) bound: u128,
    /// Its scan or opening is handed out.
    pub(super) running: bool,
    /// ULIDs it may hold: what is missing if it fails.
    pub(super) range: (Ulid, Ulid),
    /// `None` while a part is being opened.
    pub(super) chunk: Option<(Arc<PinnedPart>, usize)>,
    pub(super) hits: VecDeque<Hit>,
    pub(super) topics: Vec<Topic>,
    pub(super) text: Option<Text>,
    pub(super) rest: Option<Rest>,
    /// How often the text was read again because its map turned out faulty.
    pub(super) rereads: u8,
    /// The text was in memory when it was looked at last, a moment ago.
    pub(super) is_at_hand: bool,
}

impl Track {
    /// The rest of its chunk is to be scanned; with a window of 0: which is in memory.
    pub(super) fn wants_scan_within(&self, window: usize) -> bool {
        let is_admitted = |rest: &Rest| window > 0 || rest.known.is_some();
        !self.running && self.hits.is_empty() && self.rest.as_ref().is_some_and(is_admitted)
    }

    pub(super) fn is_spent(&self) -> bool {
        !self.running && self.hits.is_empty() && self.rest.is_none()
    }

    pub(super) fn head_key(&self, order: Order) -> Option<u128> {
        self.hits.front_in(order).map(|hit| first_key(order, hit.first, hit.last()))
    }

    /// What it keeps in memory, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let known = self.rest.as_ref().and_then(|rest| rest.known.as_ref());
        known.map_or_else(|| self.text.as_ref().map_or(0, decoded_bytes), Known::memory_bytes)
    }

    /// Gives back what it keeps in memory; its chunk is read and scanned again from where it stands.
    /// The bounds are those of the query.
    pub(super) fn shed(&mut self, order: Order, (low, high): (Ulid, Ulid)) {
        if self.held_bytes() > 0 {
            self.give_back(order, (low, high));
        }
    }

    /// Whether its text can be used without waiting for a disk. One that cannot is given back, and read
    /// again by who may wait.
    pub(super) fn is_at_hand(&mut self, order: Order, bounds: (Ulid, Ulid)) -> bool {
        // Asked once, not for each hit: it is a call into the kernel.
        if !self.is_at_hand {
            self.is_at_hand = self.text.as_ref().is_none_or(Text::is_at_hand);
        }
        if !self.is_at_hand {
            self.give_back(order, bounds);
        }
        self.is_at_hand
    }

    fn give_back(&mut self, order: Order, (low, high): (Ulid, Ulid)) {
        if let Some(head) = self.hits.front_in(order) {
            let (low, high) = match order {
                Order::Asc => (head.first, high),
                Order::Desc => (low, head.last()),
            };
            self.bound = first_key(order, low, high);
            self.rest = Some(Rest { low, high, known: None });
        } else if let Some(rest) = &mut self.rest {
            rest.known = None;
        }
        (self.hits, self.topics, self.text) = Default::default();
    }

    /// Cuts a hit; the text is read for it where only counts were wanted.
    pub(super) fn cut(&self, hit: Hit, skip: u32, count: u32) -> Result<Hit, Damage> {
        let Some((part, index)) = &self.chunk else { return Ok(hit) };
        let read;
        let text = if let Some(text) = &self.text {
            text
        } else {
            read = part.read(*index)?.text;
            &read
        };
        let own = text.get(hit.span()).unwrap_or_default();
        cut(hit, own, skip, count).ok_or_else(|| malformed(&***part, *index))
    }
}

/// A queue of hits in ULID order, seen from the end that comes first in the query's order.
pub(super) trait FrontIn {
    fn front_in(&self, order: Order) -> Option<&Hit>;
    fn pop_front_in(&mut self, order: Order) -> Option<Hit>;
    fn push_front_in(&mut self, order: Order, hit: Hit);
    fn replace_front_in(&mut self, order: Order, hit: Hit) {
        self.pop_front_in(order);
        self.push_front_in(order, hit);
    }
}

impl FrontIn for VecDeque<Hit> {
    fn front_in(&self, order: Order) -> Option<&Hit> {
        match order {
            Order::Asc => self.front(),
            Order::Desc => self.back(),
        }
    }

    fn pop_front_in(&mut self, order: Order) -> Option<Hit> {
        match order {
            Order::Asc => self.pop_front(),
            Order::Desc => self.pop_back(),
        }
    }

    fn push_front_in(&mut self, order: Order, hit: Hit) {
        match order {
            Order::Asc => self.push_front(hit),
            Order::Desc => self.push_back(hit),
        }
    }
}
