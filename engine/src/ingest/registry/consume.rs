//! Claim, renew, commit, fail, expire: what consumers do with flushed segments, on their files.
//!
//! Invariants: a claim that is renewed keeps its segments; one that lapses returns them. Whoever
//! names a segment that it once claimed commits it, unless that was done before: the first commit
//! wins, whether or not its claim has lapsed and whoever has claimed the segment since, because a
//! flushed segment never changes. A late commit, failure or renewal changes nothing. A segment goes
//! only if what was stored of it is all that it holds, as the ingester itself knows.

use std::sync::Arc;

use super::{
    Claim, ClaimLimits, ClaimToken, Committed, Failed, FileError, Registry, Renewed, is_offered,
    queue_key,
};
use crate::ingest::segment::{Segment, SegmentState};
use crate::store::coverage::Coverage;
use crate::store::gather_run::StoredInput;
use crate::ulid::Ulid;

impl Registry {
    /// Claims flushed segments for a consumer, oldest records first.
    pub fn claim(&self, limits: ClaimLimits, now_ms: u64) -> Claim {
        let _operation = self.lock_operation();
        let token = self.lock().claims.next_token();
        let (segments, errors) = self.take(token, self.choose(limits), now_ms);
        Claim { token, segments, errors }
    }

    fn choose(&self, limits: ClaimLimits) -> Vec<Arc<Segment>> {
        let inner = self.lock();
        let mut chosen: Vec<Arc<Segment>> = Vec::new();
        let mut text_bytes = 0;
        if !inner.missed.is_settled() {
            return chosen;
        }
        for (_, id) in &inner.queue {
            let Some(held) = inner.segments.get(id) else { continue };
            let size = held.segment.content().text_bytes;
            let fits = chosen.is_empty() || text_bytes + size <= limits.text_bytes_max;
            if chosen.len() >= limits.segments_max || !fits {
                break;
            }
            text_bytes += size;
            chosen.push(Arc::clone(&held.segment));
        }
        chosen
    }

    /// Gives flushed segments to a claim; says which it got.
    fn take(
        &self,
        token: ClaimToken,
        segments: Vec<Arc<Segment>>,
        now_ms: u64,
    ) -> (Vec<Arc<Segment>>, Vec<FileError>) {
        let (mut taken, mut errors) = (Vec::new(), Vec::new());
        for segment in segments {
            if let Err(error) = self.move_segment(&segment, SegmentState::Pending, "claim") {
                errors.push(error);
                continue;
            }
            let mut inner = self.lock();
            if let Some(held) = inner.segments.get_mut(&segment.id()) {
                held.claim = Some(token);
                inner.claims.add(token, segment.id(), now_ms);
            }
            taken.push(segment);
        }
        (taken, errors)
    }

    /// The consumer of a claim gets on: the claim stands for as long again. After it has lapsed it
    /// takes back what nobody else has claimed meanwhile.
    pub fn renew(&self, token: ClaimToken, now_ms: u64) -> Renewed {
        let mut errors = Vec::new();
        // A live claim costs no file operation, and waits for none.
        let has_lapsed = !self.lock().claims.renew(token, now_ms);
        if has_lapsed {
            let _operation = self.lock_operation();
            let free = self.flushed_of(token);
            errors = self.take(token, free, now_ms).1;
        }
        let inner = self.lock();
        let claimed = inner.claims.segments(token);
        let open = claimed.iter().filter(|id| inner.segments.contains_key(id)).count();
        Renewed { open, errors }
    }

    /// What a claim named and nobody has claimed now.
    fn flushed_of(&self, token: ClaimToken) -> Vec<Arc<Segment>> {
        let inner = self.lock();
        let claimed = inner.claims.segments(token);
        let held = claimed.iter().filter_map(|id| inner.segments.get(id));
        let segments = held.map(|held| Arc::clone(&held.segment));
        let is_free = |segment: &Arc<Segment>| {
            segment.state() == SegmentState::Flushed && is_offered(&inner, segment.id())
        };
        segments.filter(is_free).collect()
    }

    /// The consumer has stored and published these records of segments that it claimed under this token:
    /// the files of those that hold no others are recycled or removed as soon as no reader holds them.
    /// Those that hold others stay as they are. What was committed before is left alone. An error leaves
    /// its segment to a later [`Registry::tidy`].
    pub fn commit(&self, token: ClaimToken, stored: &[StoredInput], now_ms: u64) -> Committed {
        let _operation = self.lock_operation();
        let mut committed = Committed::default();
        for input in stored {
            let id = Ulid(input.id);
            let Some(segment) = self.claimed_ever(token, id) else { continue };
            let is_all = |own: Coverage| own.is_same(&input.coverage);
            if !is_all(segment.coverage()) && !is_all(segment.coverage_now()) {
                committed.kept.push(id);
                continue;
            }
            drop(segment);
            let mut inner = self.lock();
            inner.claims.remove(token, id);
            if let Some(held) = inner.segments.remove(&id) {
                let is_complete = held.segment.state() != SegmentState::Active;
                assert!(is_complete, "{:?} is committed, and is being written", held.segment);
                inner.queue.remove(&queue_key(&held.segment));
                committed.segments += 1;
                committed.text_bytes += held.segment.content().text_bytes;
                inner.leaving.push(held.segment);
            }
        }
        committed.errors = self.retire_committed(now_ms);
        committed
    }

    /// What was claimed under this token and is not stored, whoever has claimed it since.
    fn claimed_ever(&self, token: ClaimToken, id: Ulid) -> Option<Arc<Segment>> {
        let mut inner = self.lock();
        if !inner.claims.holds(token, id) {
            return None;
        }
        let segment = inner.segments.get(&id).map(|held| Arc::clone(&held.segment));
        if segment.is_none() {
            inner.claims.remove(token, id);
        }
        segment
    }

    /// The consumer could not store what it claimed: it is available again, unless the claim has
    /// lapsed before.
    pub fn fail(&self, token: ClaimToken) -> Failed {
        let _operation = self.lock_operation();
        let freed = self.free(token);
        self.lock().claims.end(token);
        Failed { segments: freed.len() as u64, errors: self.release(&freed) }
    }

    /// Makes segments available again whose consumer has not got on for too long; says which.
    pub fn expire(&self, now_ms: u64) -> (Vec<Ulid>, Vec<FileError>) {
        let _operation = self.lock_operation();
        let late = self.lock().claims.lapse(now_ms, self.options.pending_timeout_ms);
        let late: Vec<Ulid> = late.into_iter().flat_map(|token| self.free(token)).collect();
        let inner = self.lock();
        let pending = inner.segments.iter().filter(|(_, held)| {
            // What is not there, or was not read, is released when it can be read.
            let is_well = held.trouble.is_none();
            is_well && held.claim.is_none() && held.segment.state() == SegmentState::Pending
        });
        // Those too whose release failed before.
        let nobodys: Vec<Ulid> = pending.map(|(&id, _)| id).collect();
        drop(inner);
        let errors = self.release(&nobodys);
        (late, errors)
    }

    /// Takes from a claim what it has; says what that was.
    fn free(&self, token: ClaimToken) -> Vec<Ulid> {
        let mut inner = self.lock();
        let mut freed = inner.claims.segments(token);
        freed.retain(|id| {
            let held = inner.segments.get_mut(id).filter(|held| held.claim == Some(token));
            held.is_some_and(|held| held.claim.take().is_some())
        });
        freed
    }

    /// Makes pending segments that are nobody's available again.
    fn release(&self, ids: &[Ulid]) -> Vec<FileError> {
        let mut errors = Vec::new();
        for id in ids {
            let segment = self.lock().segments.get(id).map(|held| Arc::clone(&held.segment));
            let pending = segment.filter(|s| s.state() == SegmentState::Pending);
            let moved = pending.map(|s| self.move_segment(&s, SegmentState::Flushed, "release"));
            errors.extend(moved.and_then(Result::err));
        }
        errors
    }
}
