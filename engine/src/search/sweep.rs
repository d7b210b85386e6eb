//! Merges the hits of many chunks, which are scanned out of order, into one stream by ULID.
//!
//! A *track* is a part being opened or a chunk from the moment its scan is handed out until its
//! last hit is taken. The frontier is the smallest key that an unfinished track or a chunk not
//! handed out may still bring: hits up to there can be taken. A hit whose ULIDs were taken before
//! is a copy and dropped, in part or whole. Since a hit's ULIDs count up without a gap, nothing
//! can belong between them, so a hit may be taken whole once its first record may.
//!
//! Invariants: single-threaded and free of effects, but that the text of a copy may have to be
//! read to cut it; a mapped text that has left memory while the reader was behind is not touched here but
//! read again as work, for the disk may hang; [`Work`] is handed out and its result handed back; at most `window` tracks are
//! alive, and more only while none of them can go on otherwise (more parts overlap than that), so
//! that a sweep always moves; results may come back in any order.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::consumer::Telling;
use super::context::Selection;
use super::feed::{Feed, Next, first_key, key, last_key};
use super::pinned::PinnedPart;
use super::scan::{Found, Hit, READS_MAX, Scan, ScanSpec, reread_if_poisoned, unreadable};
use super::spec::{Missing, Order, QuerySpec, Snapshot, Stats};
use super::track::{FrontIn, Track};
use super::work::{Done, DoneKind, Work, WorkKind};
use crate::chunk::{ChunkMeta, Text};
use crate::damage::{Damage, DamageKind};
use crate::entries::CountedEntries;
use crate::limits::{BATCH_HITS_MIN, QUERY_MISSING_MAX};
use crate::storage::Refusal;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// The hit to take next.
pub(super) struct Head<'a> {
    pub(super) hit: Hit,
    /// Most of its records that are wanted.
    pub(super) records_max: u64,
    pub(super) topic: &'a Topic,
    /// Its chunk's text; absent where only counts are wanted.
    pub(super) text: Option<&'a Text>,
}

/// What has become of the head's text while it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadText {
    /// It was what was written.
    Intact,
    /// It was not, but was read again: what was made of it must be made again.
    Replaced,
    /// It is gone, and the head with it: what was made of it must be thrown away.
    Lost,
}

/// See the page of the module.
pub(super) struct Sweep {
    scan_spec: Arc<ScanSpec>,
    low: Ulid,
    high: Ulid,
    limit: Option<u64>,
    node: String,
    feed: Feed,
    tracks: Vec<Track>,
    window: usize,
    hits_max: usize,
    next_track: u64,
    /// Key of the last record taken.
    taken: Option<u128>,
    /// Track that is being taken from, and the key up to which no other comes first.
    current: Option<(u64, u128)>,
    over: bool,
    /// Of chunks that were not read.
    told: Vec<CountedEntries>,
    pub(super) stats: Stats,
}

/// How a query is to be swept.
pub(super) struct SweepOptions {
    /// Tracks alive at a time.
    pub(super) window: usize,
    /// Name of this node, for what is missing.
    pub(super) node: String,
    /// Hits in memory over all tracks, at least 1.
    pub(super) hits_max: usize,
    /// No text is wanted and no limit holds.
    pub(super) counts_only: bool,
    /// When what is told of entries is enough.
    pub(super) telling: Telling,
    /// Of what matches, only these records are wanted.
    pub(super) only: Option<Arc<Selection>>,
}

impl Sweep {
    pub(super) fn new(mut spec: QuerySpec, snapshot: Snapshot, options: SweepOptions) -> Self {
        spec.topics.sort_unstable();
        let bounds = spec.bounds();
        let (low, high) = bounds.unwrap_or((Ulid::MAX, Ulid::MIN));
        let known = spec.known_damage(&snapshot);
        let parts = if bounds.is_some() { snapshot.parts } else { Vec::new() };
        let is_enough = match options.telling {
            Telling::Nothing => false,
            Telling::Entries => spec.entries.as_ref().is_some_and(|entries| entries.is_all),
            Telling::Spans(_) => spec.chain.matches_all() && spec.entries.is_none(),
        };
        let telling = if is_enough { options.telling } else { Telling::Nothing };
        let scan_spec = ScanSpec {
            chain: spec.chain,
            topics: spec.topics,
            order: spec.order,
            counts_only: options.counts_only,
            only: options.only,
            telling,
            entries: spec.entries,
        };
        let only = scan_spec.only.clone();
        let mut sweep = Self {
            scan_spec: Arc::new(scan_spec),
            low,
            high,
            limit: spec.limit.filter(|_| !options.counts_only),
            node: options.node,
            feed: Feed::new(spec.order, (low, high), only, parts),
            tracks: Vec::new(),
            window: options.window.max(1),
            hits_max: options.hits_max,
            next_track: 0,
            taken: None,
            current: None,
            over: false,
            told: Vec::new(),
            stats: Stats { is_discreet: spec.is_discreet, ..Stats::default() },
        };
        for missing in snapshot.missing {
            if missing.from <= high && missing.to >= low {
                sweep.stats.miss(missing);
            }
        }
        // What could not be read may be read by now: that is met.
        for (damage, range) in known.into_iter().filter(|(known, _)| known.refusal().is_none()) {
            sweep.miss_damage(&damage, range);
        }
        sweep
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.over
            || self.records_left() == 0
            || (self.tracks.is_empty() && self.feed.next_key().is_none())
    }

    /// Ends the sweep early: what was not taken is told as missing.
    pub(super) fn end(&mut self, reason: &str) {
        let (low, high) = match (self.taken, self.scan_spec.order) {
            (None, _) => (self.low, self.high),
            (Some(taken), Order::Asc) => (Ulid(taken.saturating_add(1)), self.high),
            (Some(taken), Order::Desc) => (self.low, Ulid((!taken).saturating_sub(1))),
        };
        self.miss((low, high), reason.to_owned(), None);
        self.stats.ended_early = true;
        self.over = true;
        self.tracks.clear();
    }

    /// What was found and what it cost; `duration` is the caller's.
    pub(super) fn into_stats(mut self) -> Stats {
        self.stats.blocks_skipped = self.feed.blocks_skipped;
        self.stats
    }

    fn records_left(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.stats.records))
    }

    /// Whether [`Sweep::next_work`] would find work inside the window.
    pub(super) fn has_work(&self, window: usize) -> bool {
        let window = window.min(self.window);
        !self.is_over()
            && (self.tracks.iter().any(|track| track.wants_scan_within(window))
                || (self.tracks.len() < window && self.feed.next_key().is_some()))
    }

    /// Whether work of it is handed out.
    pub(super) fn is_worked_on(&self) -> bool {
        self.tracks.iter().any(|track| track.running)
    }

    /// What its tracks keep in memory, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.tracks.iter().map(Track::held_bytes).sum()
    }

    /// Gives back what its tracks keep in memory, to be read again when it is their turn;
    /// `but_head`: not what comes next.
    pub(super) fn shed(&mut self, but_head: bool) {
        let order = self.scan_spec.order;
        let keys = self.tracks.iter().filter_map(|track| track.head_key(order));
        let head = keys.min().filter(|_| but_head);
        for track in &mut self.tracks {
            if !track.running && (head.is_none() || track.head_key(order) != head) {
                track.shed(order, (self.low, self.high));
            }
        }
    }

    /// Work for one thread, if there is some now, with at most `window` tracks alive; 0: only work on
    /// what is in memory. `may_take`: the caller takes hits as they come, so that what is here and was
    /// not taken cannot be taken before more was scanned.
    pub(super) fn next_work(&mut self, may_take: bool, window: usize) -> Option<Work> {
        if self.is_over() {
            return None;
        }
        if let Some(at) = self.tracks.iter().position(|track| track.wants_scan_within(window)) {
            return self.rescan(at);
        }
        let stuck = may_take && window > 0 && !self.is_worked_on();
        if self.tracks.len() >= window.min(self.window) && !stuck {
            return None;
        }
        let (bound, next) = self.feed.next()?;
        let id = self.next_track;
        self.next_track += 1;
        let (range, chunk, job) = match next {
            Next::Open(part) => (part.range(), None, WorkKind::Open(part, (self.low, self.high))),
            Next::Chunk(part, index, ahead) => {
                let meta = &part.chunks()[index];
                let range = (meta.first, meta.last);
                let scan = Scan {
                    part: Arc::clone(&part),
                    index,
                    ahead,
                    low: self.low,
                    high: self.high,
                    hits_max: self.batch_max(),
                    may_be_told: self.scan_spec.telling != Telling::Nothing && self.is_lone(range),
                    known: None,
                };
                self.stats.blocks_read += 1;
                (range, Some((part, index)), WorkKind::Scan(scan))
            }
        };
        self.tracks.push(Track {
            id,
            bound,
            running: true,
            range,
            chunk,
            hits: VecDeque::new(),
            topics: Vec::new(),
            text: None,
            rest: None,
            rereads: 0,
            is_at_hand: false,
        });
        Some(Work { track: id, scan_spec: Arc::clone(&self.scan_spec), job })
    }

    /// Work for the rest of a chunk.
    fn rescan(&mut self, at: usize) -> Option<Work> {
        let hits_max = self.batch_max();
        let track = &mut self.tracks[at];
        let (rest, (part, index)) = (track.rest.take()?, track.chunk.clone()?);
        track.running = true;
        track.text = None;
        let (low, high, known) = (rest.low, rest.high, rest.known);
        let may_be_told = false;
        let scan = Scan { part, index, ahead: 0..0, low, high, hits_max, may_be_told, known };
        let scan_spec = Arc::clone(&self.scan_spec);
        Some(Work { track: track.id, scan_spec, job: WorkKind::Scan(scan) })
    }

    fn batch_max(&self) -> usize {
        let share = self.hits_max / self.window.max(self.tracks.len());
        let wanted = usize::try_from(self.records_left()).unwrap_or(usize::MAX);
        share.max(BATCH_HITS_MIN.min(self.hits_max)).min(wanted)
    }

    /// Counts chunks that overlap no other from what indexes tell of them, where `count` agrees.
    /// In any order: nothing else can hold copies of their records.
    pub(super) fn count_lone_chunks(
        &mut self,
        count: &mut dyn FnMut(&ChunkMeta, Option<&Topic>) -> bool,
    ) {
        let order = self.scan_spec.order;
        if !self.scan_spec.tables_suffice() || self.over {
            return;
        }
        // What is being read, and what was taken: a chunk behind all of it overlaps none of it.
        let ends = self.tracks.iter().map(|track| last_key(order, track.range.0, track.range.1));
        let known_to = ends.max().max(self.taken);
        let stats = &mut self.stats;
        let mut checked = |meta: &ChunkMeta, topic: Option<&Topic>| {
            let first = first_key(order, meta.first, meta.last);
            if known_to.is_some_and(|known_to| known_to >= first) || !count(meta, topic) {
                return false;
            }
            stats.records += u64::from(meta.record_count);
            stats.bytes += u64::from(meta.text_len);
            true
        };
        while self.feed.take_lone(&mut checked) {}
    }

    /// Whether all of a chunk that was just taken off the feed is asked for, and nothing else can hold
    /// copies of its records.
    fn is_lone(&self, (first, last): (Ulid, Ulid)) -> bool {
        let order = self.scan_spec.order;
        let (starts, ends) = (first_key(order, first, last), last_key(order, first, last));
        first >= self.low
            && last <= self.high
            && self.tracks.iter().all(|track| track.range.1 < first || track.range.0 > last)
            && self.taken.is_none_or(|taken| taken < starts)
            && self.feed.next_key().is_none_or(|next| next > ends)
    }

    /// Entries of chunks that were not read, since this was asked last.
    pub(super) fn take_told(&mut self) -> Vec<CountedEntries> {
        std::mem::take(&mut self.told)
    }

    /// What a thread was at does not come back: goes on without the file.
    pub(super) fn give_up(&mut self, track: u64, path: &Path) {
        let Some(at) = self.tracks.iter().position(|other| other.id == track) else { return };
        let Track { range: (mut first, mut last), chunk, .. } = self.tracks.swap_remove(at);
        if let Some((behind_first, behind_last)) =
            chunk.and_then(|(part, _)| self.feed.give_up(&part))
        {
            (first, last) = (first.min(behind_first), last.max(behind_last));
        }
        let damage = Damage {
            path: path.to_owned(),
            offset: 0,
            len_bytes: 0,
            range: Some((first, last)),
            records: None,
            kind: DamageKind::Unread(Refusal::of_kind(ErrorKind::TimedOut)),
        };
        self.miss_damage(&damage, (first, last));
    }

    /// Takes a result in.
    pub(super) fn complete(&mut self, done: Done) {
        let order = self.scan_spec.order;
        let Some(at) = self.tracks.iter().position(|track| track.id == done.track) else { return };
        match done.result {
            DoneKind::Hangs(path) => self.give_up(done.track, &path),
            DoneKind::Opened(result) => {
                let track = self.tracks.swap_remove(at);
                match result {
                    Ok(part) => self.opened(Arc::new(part), track.range),
                    Err(damage) => self.miss_damage(&damage, track.range),
                }
            }
            DoneKind::Scanned(Ok(Found { told: Some(told), .. })) => {
                self.tracks.swap_remove(at);
                self.stats.blocks_read -= 1;
                self.stats.records += told.iter().map(|told| told.count.entries).sum::<u64>();
                self.told.extend(told);
            }
            DoneKind::Scanned(Ok(found)) => {
                self.stats.bytes_scanned += found.cost.scanned;
                self.stats.bytes_decoded += found.cost.decoded;
                let track = &mut self.tracks[at];
                track.running = false;
                track.hits = found.hits;
                track.topics = found.topics;
                track.text = found.text;
                // It was just searched.
                track.is_at_hand = true;
                if let Some(rest) = &found.rest {
                    track.bound = first_key(order, rest.low, rest.high);
                }
                track.rest = found.rest;
                if track.is_spent() {
                    self.tracks.swap_remove(at);
                }
            }
            DoneKind::Scanned(Err(damage)) => {
                let track = self.tracks.swap_remove(at);
                self.miss_damage(&damage, track.range);
            }
        }
    }

    fn opened(&mut self, part: Arc<PinnedPart>, range: (Ulid, Ulid)) {
        self.stats.segments += u64::from(part.has_text);
        for damage in part.damage().iter().filter(|damage| damage.loses_records()) {
            self.miss_damage(damage, range);
        }
        let signatures = &mut self.stats.damaged_signatures;
        if signatures.len() < QUERY_MISSING_MAX {
            signatures.extend(part.signature_damage().cloned());
        }
        self.feed.opened(part, &self.scan_spec);
    }

    fn miss_damage(&mut self, damage: &Damage, range: (Ulid, Ulid)) {
        let span = damage.range.unwrap_or(range);
        self.miss(span, damage.to_string(), Some(damage.clone()));
    }

    /// Tells that a span is missing, as far as it was asked for.
    fn miss(&mut self, (from, to): (Ulid, Ulid), reason: String, damage: Option<Damage>) {
        let (from, to) = (from.max(self.low), to.min(self.high));
        if from <= to {
            self.stats.miss(Missing { from, to, node: self.node.clone(), reason, damage });
        }
    }

    /// Finds the hit that is to be taken next; `false` if none can be now.
    pub(super) fn prepare(&mut self) -> bool {
        while !self.over && self.records_left() > 0 {
            let Some(at) = self.select() else { return false };
            let bounds = (self.low, self.high);
            if !self.tracks[at].is_at_hand(self.scan_spec.order, bounds) {
                self.current = None;
            } else if self.drop_copies(at) {
                return true;
            }
        }
        false
    }

    /// Time passes before more is taken: mapped texts may leave memory meanwhile.
    pub(super) fn wait_for_reader(&mut self) {
        self.tracks.iter_mut().for_each(|track| track.is_at_hand = false);
    }

    /// The track whose first hit comes before all else, if it is certain which.
    fn select(&mut self) -> Option<usize> {
        let order = self.scan_spec.order;
        if let Some((id, bound)) = self.current {
            let at = self.tracks.iter().position(|track| track.id == id);
            let first = |at: usize| self.tracks[at].head_key(order).is_some_and(|key| key <= bound);
            if let Some(at) = at.filter(|&at| first(at)) {
                return Some(at);
            }
        }
        self.current = None;
        let mut best: Option<(u128, usize)> = None;
        let mut bound = self.feed.next_key().unwrap_or(u128::MAX);
        for (at, track) in self.tracks.iter().enumerate() {
            match (track.head_key(order), best) {
                (None, _) => bound = bound.min(track.bound),
                (Some(head), Some((key, _))) if head >= key => bound = bound.min(head),
                (Some(head), _) => {
                    bound = bound.min(best.map_or(u128::MAX, |(key, _)| key));
                    best = Some((head, at));
                }
            }
        }
        let (_, at) = best.filter(|&(head, _)| head <= bound)?;
        self.current = Some((self.tracks[at].id, bound));
        Some(at)
    }

    /// Takes records off the track's first hit that were taken from another; whether one is left.
    fn drop_copies(&mut self, at: usize) -> bool {
        let order = self.scan_spec.order;
        let track = &mut self.tracks[at];
        let Some(hit) = track.hits.front_in(order) else {
            self.current = None;
            return false;
        };
        let Some(taken) = self.taken else { return true };
        // `taken` is a key: in descending order the complement of the lowest ULID taken.
        let copies = match order {
            Order::Asc => taken.saturating_add(1).saturating_sub(hit.first.0),
            Order::Desc => hit.last().0.saturating_add(1).saturating_sub(!taken),
        };
        if copies == 0 {
            return true;
        }
        if copies >= u128::from(hit.count) {
            track.hits.pop_front_in(order);
            self.retire(at);
            return false;
        }
        let left = hit.count - copies as u32;
        let skip = if order == Order::Asc { copies as u32 } else { 0 };
        match track.cut(*hit, skip, left) {
            Ok(hit) => {
                track.hits.replace_front_in(order, hit);
                true
            }
            Err(damage) => {
                let track = self.tracks.swap_remove(at);
                self.current = None;
                self.miss_damage(&damage, track.range);
                false
            }
        }
    }

    /// Lets go of a track that has brought all it had.
    fn retire(&mut self, at: usize) {
        if self.tracks[at].is_spent() {
            self.tracks.swap_remove(at);
            self.current = None;
        }
    }

    /// The hit that [`Sweep::prepare`] found.
    pub(super) fn head(&self) -> Option<Head<'_>> {
        let (id, _) = self.current?;
        let track = self.tracks.iter().find(|track| track.id == id)?;
        let hit = *track.hits.front_in(self.scan_spec.order)?;
        let topic = track.topics.get(usize::from(hit.topic))?;
        let records_max = u64::from(hit.count).min(self.records_left());
        Some(Head { hit, records_max, topic, text: track.text.as_ref() })
    }

    /// The head's first `records` (in the query's order) are taken; they were `bytes` long.
    pub(super) fn advance(&mut self, records: u32, bytes: u64) {
        let order = self.scan_spec.order;
        let Some((id, _)) = self.current.filter(|_| records > 0) else { return };
        let Some(at) = self.tracks.iter().position(|track| track.id == id) else { return };
        let track = &mut self.tracks[at];
        let Some(mut hit) = track.hits.pop_front_in(order) else { return };
        let last = match order {
            Order::Asc => hit.first.plus(u64::from(records) - 1),
            Order::Desc => hit.first.plus(u64::from(hit.count - records)),
        };
        self.taken = Some(key(order, last));
        self.stats.records += u64::from(records);
        self.stats.bytes += bytes;
        if records < hit.count {
            match order {
                Order::Asc => hit.cut_front(records, bytes as u32),
                Order::Desc => {
                    hit.count -= records;
                    hit.end -= bytes as u32;
                }
            }
            track.hits.push_front_in(order, hit);
        }
        self.retire(at);
    }

    /// To be asked after the head's text was used.
    pub(super) fn check_head(&mut self) -> HeadText {
        let Some((id, _)) = self.current else { return HeadText::Intact };
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == id) else {
            return HeadText::Intact;
        };
        let (Some(text), Some((part, index))) = (&track.text, &track.chunk) else {
            return HeadText::Intact;
        };
        match reread_if_poisoned(&***part, *index, text) {
            Ok(None) => HeadText::Intact,
            Ok(Some(fresh)) if track.rereads < READS_MAX => {
                track.rereads += 1;
                track.text = Some(fresh.text);
                HeadText::Replaced
            }
            Ok(Some(_)) => {
                let damage = unreadable(&***part, *index);
                self.drop_head(&damage);
                HeadText::Lost
            }
            Err(damage) => {
                self.drop_head(&damage);
                HeadText::Lost
            }
        }
    }

    /// Gives up the head's chunk.
    fn drop_head(&mut self, damage: &Damage) {
        let Some((id, _)) = self.current.take() else { return };
        let Some(at) = self.tracks.iter().position(|track| track.id == id) else { return };
        let track = self.tracks.swap_remove(at);
        self.miss_damage(damage, track.range);
    }
}
