//! Carries out what [`Gather`] decides, piece by piece: it merges, seals and publishes by itself. What
//! the ingest side and other stores have to do are effects, which whoever turns it carries out and
//! answers, at once or much later: meanwhile it renews its claim, and it can be cancelled at any time.
//!
//! Invariants: the segment is published into the catalogue before the inputs are committed, so
//! that a query that looks at the ingest side first sees each record at least once; an input of
//! which records are damaged is set aside after what could be read was published; where the storage
//! refused to read, the ingest side is told, which offers the input again when it can be read, and the
//! others are gathered without it. A claim is renewed for as long as there is work for it, so that
//! none expires under a gather that is slow; a gather whose inputs somebody else has stored ends. A commit
//! names which records of each input are in the segment, as they were written; an input that holds others
//! is the ingest side's to keep.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::chunk::Part;
use crate::damage::Damage;
use crate::ingest::registry::ClaimToken;
use crate::ingest::segment::Segment;
use crate::storage::Refusal;

use super::catalogue::Catalogue;
use super::coverage::Coverage;
use super::footer::{IngestInput, Inputs};
use super::gather::{
    Action, Available, Event, Gather, GatherLimits, GatherNumber, GatherState, StoreId,
};
pub use super::gather_error::GatherError;
use super::merge::{Merge, MergeInput};
use super::segment::SegmentMeta;
use super::writer::{SealedSegment, SegmentWriter, WriterOptions};

/// Time between renewals of a claim, milliseconds: a fraction of the shortest time that a claim may
/// be let stand for, and rare enough that small chunks do not pay for it.
const RENEW_EVERY_MS: u64 = 20;

/// What a claim brought.
pub struct Claimed {
    /// Names it.
    pub token: ClaimToken,
    /// Oldest records first; none if others were faster.
    pub inputs: Vec<ClaimedInput>,
}

/// An ingest segment that was claimed.
#[derive(Clone)]
pub struct ClaimedInput {
    /// Its identity.
    pub id: u128,
    /// Its file.
    pub path: PathBuf,
    /// Its records.
    pub part: Arc<dyn Part>,
    /// The storage has refused some of it for long: what can be read is taken, and it is set aside.
    pub is_partly_taken: bool,
}

impl From<Arc<Segment>> for ClaimedInput {
    fn from(segment: Arc<Segment>) -> Self {
        let is_partly_taken = segment.is_partly_taken();
        Self { id: segment.id().0, path: segment.path(), part: segment, is_partly_taken }
    }
}

/// An input of which some was not read, and what.
pub type NotRead = (u128, Vec<Damage>);

/// What is in the store of an ingest segment.
#[derive(Debug, Clone)]
pub struct StoredInput {
    /// Its identity.
    pub id: u128,
    /// Which of its records.
    pub coverage: Coverage,
}

/// What others have to do.
#[derive(Debug)]
pub enum Effect {
    /// Claim the oldest segments: at most so many bytes and segments, but at least one if there is
    /// one. Answered by [`GatherRun::on_claimed`].
    Claim {
        /// Which gather.
        gather: GatherNumber,
        /// Most bytes.
        bytes_max: u64,
        /// Most segments.
        count_max: usize,
    },
    /// Storing what was claimed gets on. Answered by [`GatherRun::on_renewed`].
    Renew(ClaimToken),
    /// Copy the segment to another store, durably. Answered by [`GatherRun::on_replicated`].
    Replicate(GatherNumber, StoreId),
    /// All is stored that could be read. Answered by [`GatherRun::on_committed`].
    Commit {
        /// Which gather.
        gather: GatherNumber,
        /// Its claim.
        token: ClaimToken,
        /// Inputs that may go if these are all records that they hold. What somebody else has
        /// committed before is to be left alone.
        whole: Vec<StoredInput>,
        /// Inputs whose files are to be kept under another name, unless more of them can be read than
        /// this; and what could not.
        damaged: Vec<(StoredInput, Vec<Damage>)>,
    },
    /// What was claimed is free to be claimed again. Answered by [`GatherRun::on_failed`].
    Fail {
        /// Which gather.
        gather: GatherNumber,
        /// Its claim.
        token: ClaimToken,
        /// Inputs of which the storage did not give some bytes, which may be whole: they are not to be
        /// offered before they could be read.
        unread: Vec<NotRead>,
    },
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// Somebody else has to do this.
    Ask(Effect),
    /// A piece of work was done: turn again at once.
    GoOn,
    /// Nothing until then, milliseconds; `None`: until there is news.
    Wait(Option<u64>),
}

/// What came of a gather, for logs and metrics.
#[derive(Debug)]
pub enum Outcome {
    /// A segment can be found from now on.
    Published {
        /// It.
        segment: SegmentMeta,
        /// Of how many inputs it was made.
        inputs: usize,
        /// Records that were there more than once.
        duplicate_count: u64,
    },
    /// What of the inputs could not be read.
    Damaged(Vec<Damage>),
    /// It failed; it is tried again.
    Failed(GatherError),
}

/// A claim and what of it is known.
struct Held {
    token: ClaimToken,
    inputs: Vec<ClaimedInput>,
    /// When it was renewed last.
    renewed_ms: u64,
    /// The answer is to come.
    is_renewing: bool,
    /// It got on since it was renewed: however slow a piece of work is, one is done for each renewal.
    has_got_on: bool,
    /// Somebody else has stored all of it.
    is_void: bool,
}

impl Held {
    const fn renew(&mut self, now_ms: u64) {
        (self.renewed_ms, self.is_renewing, self.has_got_on) = (now_ms, true, false);
    }
}

struct Merging {
    merge: Merge,
    writer: SegmentWriter,
    /// Identities of the inputs, by their place in the merge.
    ids: Vec<u128>,
}

enum Phase {
    /// The machine knows what is next.
    Next,
    /// An answer is to come that ends a claim or begins one.
    Asked(GatherNumber),
    Merging(GatherNumber, Box<Merging>),
    /// Once the claim is known to stand.
    Publishing(GatherNumber),
}

/// See the module page.
pub struct GatherRun {
    machine: Gather,
    catalogue: Arc<Catalogue>,
    options: WriterOptions,
    phase: Phase,
    claim: Option<Held>,
    sealed: Option<SealedSegment>,
    duplicate_count: u64,
    damage: BTreeMap<u128, Vec<Damage>>,
    /// What was taken of each input.
    covered: BTreeMap<u128, Coverage>,
    unread: Vec<NotRead>,
    outcomes: Vec<Outcome>,
    is_cancelled: bool,
}

impl GatherRun {
    /// Ready to turn.
    pub fn new(limits: GatherLimits, catalogue: Arc<Catalogue>, options: WriterOptions) -> Self {
        Self {
            machine: Gather::new(limits),
            catalogue,
            options,
            phase: Phase::Next,
            claim: None,
            sealed: None,
            duplicate_count: 0,
            damage: BTreeMap::new(),
            covered: BTreeMap::new(),
            unread: Vec::new(),
            outcomes: Vec::new(),
            is_cancelled: false,
        }
    }

    /// What it is doing.
    pub const fn state(&self) -> GatherState {
        self.machine.state()
    }

    /// Ends what is under way, and begins nothing any more.
    pub const fn cancel(&mut self) {
        self.is_cancelled = true;
    }

    /// What waits to be claimed, now.
    pub fn set_available(&mut self, now_ms: u64, available: Available) {
        self.machine.handle(now_ms, Event::Available(available));
    }

    /// The other stores that are alive, now.
    pub fn set_other_stores(&mut self, now_ms: u64, others: Vec<StoreId>) {
        self.machine.handle(now_ms, Event::OtherStores(others));
    }

    /// What came of it since this was asked last.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Does a piece of the work, or says who has to do the next one.
    pub fn turn(&mut self, now_ms: u64) -> Step {
        if let Some(token) = self.due_renewal(now_ms) {
            return Step::Ask(Effect::Renew(token));
        }
        match std::mem::replace(&mut self.phase, Phase::Next) {
            Phase::Next => self.next(now_ms),
            Phase::Asked(gather) => {
                self.phase = Phase::Asked(gather);
                Step::Wait(None)
            }
            Phase::Merging(gather, merging) => self.merge_on(gather, merging, now_ms),
            Phase::Publishing(gather) => self.publish(gather, now_ms),
        }
    }

    /// The claim that is to be renewed now.
    fn due_renewal(&mut self, now_ms: u64) -> Option<ClaimToken> {
        if matches!(self.phase, Phase::Asked(_) | Phase::Publishing(_)) {
            return None;
        }
        let can_renew =
            |claim: &&mut Held| !claim.is_renewing && !claim.is_void && claim.has_got_on;
        let claim = self.claim.as_mut().filter(can_renew)?;
        if now_ms < claim.renewed_ms.saturating_add(RENEW_EVERY_MS) {
            return None;
        }
        claim.renew(now_ms);
        Some(claim.token)
    }

    fn note_getting_on(&mut self) {
        if let Some(claim) = &mut self.claim {
            claim.has_got_on = true;
        }
    }

    /// Why what is under way is to end.
    fn reason_to_end(&self) -> Option<GatherError> {
        if self.is_cancelled {
            return Some(GatherError::Cancelled);
        }
        self.claim.as_ref().filter(|claim| claim.is_void).map(|_| GatherError::StoredByOthers)
    }

    fn fail(&mut self, error: GatherError) {
        self.outcomes.push(Outcome::Failed(error));
    }

    fn next(&mut self, now_ms: u64) -> Step {
        self.note_getting_on();
        match self.reason_to_end() {
            Some(error) if self.machine.cancel(now_ms) => self.fail(error),
            Some(_) if self.machine.state() != GatherState::Busy => return Step::Wait(None),
            _ => {}
        }
        self.machine.handle(now_ms, Event::Tick);
        match self.machine.next_action(now_ms) {
            Action::Wait(until_ms) => Step::Wait(self.earliest(until_ms)),
            Action::Claim { gather, bytes_max, count_max } => {
                self.phase = Phase::Asked(gather);
                Step::Ask(Effect::Claim { gather, bytes_max, count_max })
            }
            Action::Merge(gather, _) => self.begin_merge(gather),
            Action::Replicate(gather, store) => Step::Ask(Effect::Replicate(gather, store)),
            Action::Publish(gather) => self.confirm_claim(gather, now_ms),
            Action::Commit { gather, whole, damaged } => {
                self.commit(gather, whole, damaged, now_ms)
            }
            Action::Fail(gather, _) => self.give_back(gather, now_ms),
        }
    }

    /// The earlier of the machine's next time and the next renewal's.
    fn earliest(&self, until_ms: Option<u64>) -> Option<u64> {
        let claim = self.claim.as_ref().filter(|claim| !claim.is_renewing && !claim.is_void);
        let renewal_ms = claim.map(|claim| claim.renewed_ms.saturating_add(RENEW_EVERY_MS));
        until_ms.into_iter().chain(renewal_ms).min()
    }

    fn clear(&mut self) -> Option<ClaimToken> {
        self.sealed = None;
        self.damage.clear();
        self.covered.clear();
        self.claim.take().map(|claim| claim.token)
    }

    /// Answers [`Effect::Claim`].
    pub fn on_claimed(&mut self, now_ms: u64, gather: GatherNumber, claimed: io::Result<Claimed>) {
        if !self.is_asked(gather) {
            return;
        }
        match claimed {
            Ok(Claimed { token, inputs }) => {
                let ids: Vec<u128> = inputs.iter().map(|input| input.id).collect();
                if !ids.is_empty() {
                    self.claim = Some(Held {
                        token,
                        inputs,
                        renewed_ms: now_ms,
                        is_renewing: false,
                        has_got_on: false,
                        is_void: false,
                    });
                }
                self.machine.handle(now_ms, Event::Claimed(gather, ids));
            }
            Err(error) => {
                self.fail(GatherError::Claim(error));
                self.machine.handle(now_ms, Event::ClaimFailed(gather));
            }
        }
    }

    /// Answers [`Effect::Renew`]: how many inputs of the claim nobody has stored yet. Where there are
    /// none, there is nothing to go on for.
    pub fn on_renewed(&mut self, token: ClaimToken, open: usize) {
        if let Some(claim) = self.claim.as_mut().filter(|claim| claim.token == token) {
            claim.is_renewing = false;
            claim.is_void |= open == 0;
        }
    }

    /// Answers [`Effect::Replicate`]: whether the other store has its copy, durably.
    pub fn on_replicated(
        &mut self,
        now_ms: u64,
        gather: GatherNumber,
        store: StoreId,
        is_done: bool,
    ) {
        let event = if is_done { Event::Replicated } else { Event::ReplicateFailed };
        self.machine.handle(now_ms, event(gather, store));
    }

    /// Answers [`Effect::Commit`]: how many of the inputs that might go hold other records. They are free
    /// to be claimed again.
    pub fn on_committed(&mut self, now_ms: u64, gather: GatherNumber, kept: usize) {
        if !self.is_asked(gather) {
            return;
        }
        if kept == 0 {
            return self.machine.handle(now_ms, Event::Committed(gather));
        }
        self.fail(GatherError::OtherRecords(kept));
        self.machine.handle(now_ms, Event::CommitRefused(gather));
    }

    /// Answers [`Effect::Fail`].
    pub fn on_failed(&mut self, now_ms: u64, gather: GatherNumber) {
        if self.is_asked(gather) {
            self.machine.handle(now_ms, Event::Failed(gather));
        }
    }

    /// Whether an answer to this gather is waited for; from now on it is not.
    fn is_asked(&mut self, gather: GatherNumber) -> bool {
        let is_asked = matches!(self.phase, Phase::Asked(asked) if asked == gather);
        if is_asked {
            self.phase = Phase::Next;
        }
        is_asked
    }

    fn commit(
        &mut self,
        gather: GatherNumber,
        whole: Vec<u128>,
        damaged: Vec<u128>,
        now_ms: u64,
    ) -> Step {
        assert!(self.sealed.is_none(), "what was merged is published before its inputs may go");
        let mut damage = std::mem::take(&mut self.damage);
        let mut covered = std::mem::take(&mut self.covered);
        let Some(token) = self.clear() else {
            self.machine.handle(now_ms, Event::Committed(gather));
            return Step::GoOn;
        };
        // Of one that is whole it is known; of one that could not be opened nothing was taken.
        let whole = whole.into_iter().map(|id| {
            let coverage = covered.remove(&id).unwrap_or_else(Coverage::unknown);
            StoredInput { id, coverage }
        });
        let whole = whole.collect();
        let damaged = damaged.into_iter().map(|id| {
            let coverage = covered.remove(&id).unwrap_or_default();
            (StoredInput { id, coverage }, damage.remove(&id).unwrap_or_default())
        });
        let damaged = damaged.collect();
        self.phase = Phase::Asked(gather);
        Step::Ask(Effect::Commit { gather, token, whole, damaged })
    }

    fn give_back(&mut self, gather: GatherNumber, now_ms: u64) -> Step {
        let unread = std::mem::take(&mut self.unread);
        // Before the inputs are free: nobody holds them then.
        let Some(token) = self.clear() else {
            self.machine.handle(now_ms, Event::Failed(gather));
            return Step::GoOn;
        };
        self.phase = Phase::Asked(gather);
        Step::Ask(Effect::Fail { gather, token, unread })
    }

    fn begin_merge(&mut self, gather: GatherNumber) -> Step {
        let (mut inputs, mut ids) = (Vec::new(), Vec::new());
        for claimed in self.claim.iter().flat_map(|claim| &claim.inputs) {
            match claimed.part.open_to_move() {
                Ok(part) => {
                    inputs.push(MergeInput { part, path: claimed.path.clone() });
                    ids.push(claimed.id);
                }
                Err(damage) => self.damage.entry(claimed.id).or_default().push(damage),
            }
        }
        let writer = SegmentWriter::new(self.catalogue.directory(), self.options);
        let writer = writer.in_volume(self.catalogue.volume());
        let merging = Merging { merge: Merge::new(inputs), writer, ids };
        self.phase = Phase::Merging(gather, Box::new(merging));
        Step::GoOn
    }

    fn merge_on(&mut self, gather: GatherNumber, mut merging: Box<Merging>, now_ms: u64) -> Step {
        self.note_getting_on();
        let result = match self.reason_to_end() {
            Some(error) => Err(error),
            None => merging.merge.step(&mut merging.writer).map_err(GatherError::Write),
        };
        match result {
            Ok(true) => self.phase = Phase::Merging(gather, merging),
            Ok(false) => self.end_merge(gather, *merging, now_ms),
            Err(error) => {
                self.note_unread();
                self.merge_failed(gather, error, now_ms);
            }
        }
        Step::GoOn
    }

    fn merge_failed(&mut self, gather: GatherNumber, error: GatherError, now_ms: u64) {
        self.fail(error);
        self.machine.handle(now_ms, Event::MergeFailed(gather));
    }

    fn end_merge(&mut self, gather: GatherNumber, merging: Merging, now_ms: u64) {
        let Merging { merge, writer, ids } = merging;
        let report = merge.into_report();
        for (number, damage) in report.damage {
            self.damage.entry(ids[number]).or_default().push(damage);
        }
        assert_eq!(ids.len(), report.covered.len(), "it is known of each input what was taken");
        self.covered = ids.into_iter().zip(report.covered).collect();
        if let Some(damage) = self.note_unread() {
            return self.merge_failed(gather, GatherError::Read(damage), now_ms);
        }
        // An input that lost records is not replaced: after a crash before it is set aside recovery
        // would delete it.
        let has_lost = |id: &u128| {
            self.damage.get(id).is_some_and(|damage| damage.iter().any(Damage::loses_records))
        };
        let inputs = self.claim.iter().flat_map(|claim| &claim.inputs);
        let named = |id: u128| {
            let digest = self.covered.get(&id)?.digest()?;
            Some(IngestInput { id, digest })
        };
        let whole = inputs.map(|input| input.id).filter(|id| !has_lost(id));
        let ingest = whole.filter_map(named).collect();
        let sealed = match writer.seal(Inputs { ingest, store: Vec::new() }) {
            Ok(sealed) => sealed,
            Err(error) => return self.merge_failed(gather, GatherError::Write(error), now_ms),
        };
        self.duplicate_count = report.duplicate_count;
        if !self.damage.is_empty() {
            let damage = self.damage.values().flatten().cloned().collect();
            self.outcomes.push(Outcome::Damaged(damage));
        }
        // A damage that costs no record is told, but the input is whole.
        self.damage.retain(|_, damage| damage.iter().any(Damage::loses_records));
        let (damaged, is_empty) = (self.damage.keys().copied().collect(), sealed.is_none());
        self.sealed = sealed;
        self.machine.handle(now_ms, Event::Merged { gather, damaged, is_empty });
    }

    /// Notes inputs that the storage refused to read, for their source; one refusal, if there was any. It
    /// says nothing about the bytes, so nothing is concluded from it, unless it has lasted for long.
    fn note_unread(&mut self) -> Option<Damage> {
        let mut found = None;
        for input in self.claim.iter().flat_map(|claim| &claim.inputs) {
            let Some(damage) = self.damage.get(&input.id) else { continue };
            let is_worth_waiting = |damage: &&Damage| {
                let of_disk = |r: Refusal| !r.is_shortage() && !r.is_absence();
                damage.refusal().is_some_and(|r| !input.is_partly_taken || !of_disk(r))
            };
            if let Some(refused) = damage.iter().find(is_worth_waiting) {
                self.unread.push((input.id, damage.clone()));
                found = Some(refused.clone());
            }
        }
        found
    }

    /// Asks whether the claim still stands, right before the segment is published.
    fn confirm_claim(&mut self, gather: GatherNumber, now_ms: u64) -> Step {
        self.phase = Phase::Publishing(gather);
        match &mut self.claim {
            Some(claim) if !claim.is_renewing => {
                claim.renew(now_ms);
                Step::Ask(Effect::Renew(claim.token))
            }
            _ => Step::GoOn,
        }
    }

    fn publish(&mut self, gather: GatherNumber, now_ms: u64) -> Step {
        if self.claim.as_ref().is_some_and(|claim| claim.is_renewing) && !self.is_cancelled {
            self.phase = Phase::Publishing(gather);
            return Step::Wait(None);
        }
        let event = match self.try_publish() {
            Ok(outcome) => {
                self.outcomes.push(outcome);
                Event::Published(gather)
            }
            Err(error) => {
                self.fail(error);
                Event::PublishFailed(gather)
            }
        };
        self.machine.handle(now_ms, event);
        Step::GoOn
    }

    fn try_publish(&mut self) -> Result<Outcome, GatherError> {
        if let Some(error) = self.reason_to_end() {
            return Err(error);
        }
        let (Some(sealed), Some(claim)) = (self.sealed.take(), &self.claim) else {
            return Err(GatherError::Cancelled);
        };
        let (inputs, duplicate_count) = (claim.inputs.len(), self.duplicate_count);
        let segment = sealed.publish().map_err(GatherError::Write)?;
        let meta = *segment.meta();
        self.catalogue.publish(vec![segment], &[]);
        Ok(Outcome::Published { segment: meta, inputs, duplicate_count })
    }
}

#[cfg(test)]
#[path = "gather_run_tests.rs"]
mod tests;
