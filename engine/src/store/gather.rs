//! Gather → replicate → commit: decides when flushed ingest segments are claimed, merged into a
//! store segment, copied to other stores, published and only then deleted on the ingest side.
//!
//! A plain state machine: events and the time go in, actions come out; whoever carries them (a
//! thread of this process, or messages between nodes) answers each action with one event.
//!
//! Invariants: one gather at a time; inputs are committed only after the segment that holds their
//! records is durable here and on all other stores that the replication factor asks for, and is
//! published; on any failure they are failed, that is, returned to be claimed again, as are those that
//! turn out to hold other records. With fewer
//! stores than the factor nothing is claimed. Answers to an earlier gather are ignored. Each
//! failure halves what is claimed next and each success doubles it again: on a disk with little
//! room a smaller segment may still fit, and what it frees makes room for the next.

use std::collections::VecDeque;

/// What bounds gathering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherLimits {
    /// Waiting bytes from which on a segment is made at once, and most bytes per claim.
    pub target_bytes: u64,
    /// How long the oldest input waits otherwise, milliseconds.
    pub target_age_ms: u64,
    /// Most inputs per claim: each is open during the merge.
    pub claim_count_max: usize,
    /// Wait after a first failure, milliseconds; it doubles with each further one.
    pub back_off_min_ms: u64,
    /// Longest such wait, milliseconds.
    pub back_off_max_ms: u64,
    /// How long another store may take to take its copy, milliseconds.
    pub replicate_timeout_ms: u64,
    /// Stores that have to hold each record, this one included.
    pub replication_factor: usize,
}

impl Default for GatherLimits {
    fn default() -> Self {
        Self {
            target_bytes: 128 << 20,
            target_age_ms: 3_000,
            claim_count_max: 64,
            back_off_min_ms: 250,
            back_off_max_ms: 30_000,
            replicate_timeout_ms: 60_000,
            replication_factor: 2,
        }
    }
}

/// Halvings after which a claim is one segment, whatever the limits: there are at most 2^16.
const HALVINGS_MAX: u32 = 16;

/// A store node, as this machine tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// Numbers gathers, so that late answers are known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherNumber(pub u64);

/// Flushed ingest segments that nobody has claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Available {
    /// How many.
    pub count: usize,
    /// Their files, bytes.
    pub bytes: u64,
    /// How long the oldest has waited, milliseconds.
    pub oldest_age_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What there is to gather, now.
    Available(Available),
    /// The other stores that are alive, now.
    OtherStores(Vec<StoreId>),
    /// Answers [`Action::Claim`]; no inputs if others were faster.
    Claimed(GatherNumber, Vec<u128>),
    /// Answers [`Action::Claim`].
    ClaimFailed(GatherNumber),
    /// Answers [`Action::Merge`]: a durable, unpublished segment.
    Merged {
        /// Which gather.
        gather: GatherNumber,
        /// Inputs that could not be read in full: they are set aside instead of committed.
        damaged: Vec<u128>,
        /// No record was left: there is no segment to publish.
        is_empty: bool,
    },
    /// Answers [`Action::Merge`].
    MergeFailed(GatherNumber),
    /// Answers [`Action::Replicate`].
    Replicated(GatherNumber, StoreId),
    /// Answers [`Action::Replicate`].
    ReplicateFailed(GatherNumber, StoreId),
    /// Answers [`Action::Publish`].
    Published(GatherNumber),
    /// Answers [`Action::Publish`].
    PublishFailed(GatherNumber),
    /// Answers [`Action::Commit`].
    Committed(GatherNumber),
    /// Answers [`Action::Commit`]: some inputs hold other records than the segment, and were returned.
    CommitRefused(GatherNumber),
    /// Answers [`Action::Fail`].
    Failed(GatherNumber),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Claim flushed segments: as many of the oldest as stay below both bounds, but at least one.
    Claim {
        /// Which gather.
        gather: GatherNumber,
        /// Most bytes.
        bytes_max: u64,
        /// Most segments.
        count_max: usize,
    },
    /// Merge the claimed inputs into a segment and sync it.
    Merge(GatherNumber, Vec<u128>),
    /// Copy the segment to another store, durably.
    Replicate(GatherNumber, StoreId),
    /// Rename the segment, make the name durable, put it into the catalogue.
    Publish(GatherNumber),
    /// Delete `whole` inputs; set `damaged` ones aside.
    Commit {
        /// Which gather.
        gather: GatherNumber,
        /// Their records are all in the segment.
        whole: Vec<u128>,
        /// Some of their records could not be read.
        damaged: Vec<u128>,
    },
    /// Drop the segment, if there is one, and return the inputs.
    Fail(GatherNumber, Vec<u128>),
    /// Nothing until then (milliseconds), or until an event when `None`.
    Wait(Option<u64>),
}

/// What the machine is doing, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherState {
    /// Waiting for input.
    Idle,
    /// A gather is going on.
    Busy,
    /// The last one failed.
    BackingOff,
    /// There are fewer stores than the replication factor: inputs stay where they are.
    ReplicasMissing,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Claiming,
    Merging,
    Replicating { asked: Option<StoreId>, deadline_ms: u64, tried: Vec<StoreId>, copies: usize },
    Publishing,
    Ending,
}

/// See the module page.
#[derive(Debug)]
pub struct Gather {
    limits: GatherLimits,
    phase: Phase,
    number: GatherNumber,
    inputs: Vec<u128>,
    damaged: Vec<u128>,
    others: Vec<StoreId>,
    available: Available,
    available_at_ms: u64,
    failures: u32,
    /// How often what is claimed was halved.
    halvings: u32,
    not_before_ms: u64,
    actions: VecDeque<Action>,
}

impl Gather {
    /// A machine that has nothing to do and knows of no other store.
    pub const fn new(limits: GatherLimits) -> Self {
        Self {
            limits,
            phase: Phase::Idle,
            number: GatherNumber(0),
            inputs: Vec::new(),
            damaged: Vec::new(),
            others: Vec::new(),
            available: Available { count: 0, bytes: 0, oldest_age_ms: 0 },
            available_at_ms: 0,
            failures: 0,
            halvings: 0,
            not_before_ms: 0,
            actions: VecDeque::new(),
        }
    }

    /// What it is doing.
    pub const fn state(&self) -> GatherState {
        match self.phase {
            Phase::Idle if self.replicas_missing() => GatherState::ReplicasMissing,
            Phase::Idle if self.failures > 0 => GatherState::BackingOff,
            Phase::Idle => GatherState::Idle,
            _ => GatherState::Busy,
        }
    }

    const fn replicas_missing(&self) -> bool {
        self.limits.replication_factor > self.others.len() + 1
    }

    /// Takes an event.
    pub fn handle(&mut self, now_ms: u64, event: Event) {
        let current = self.number;
        match (&mut self.phase, event) {
            (_, Event::Available(available)) => {
                self.available = available;
                self.available_at_ms = now_ms;
            }
            (_, Event::OtherStores(others)) => self.others = others,
            (Phase::Claiming, Event::Claimed(number, inputs)) if number == current => {
                self.claimed(now_ms, inputs);
            }
            (Phase::Claiming, Event::ClaimFailed(number)) if number == current => {
                self.back_off(now_ms);
                self.phase = Phase::Idle;
            }
            (Phase::Merging, Event::Merged { gather, damaged, is_empty }) if gather == current => {
                self.damaged = damaged;
                if is_empty {
                    self.commit();
                } else {
                    let (tried, copies) = (Vec::new(), 1);
                    self.phase = Phase::Replicating { asked: None, deadline_ms: 0, tried, copies };
                    self.replicate(now_ms);
                }
            }
            (Phase::Merging, Event::MergeFailed(number)) if number == current => self.fail(now_ms),
            (Phase::Replicating { asked, copies, .. }, Event::Replicated(number, store))
                if number == current && *asked == Some(store) =>
            {
                *copies += 1;
                *asked = None;
                self.replicate(now_ms);
            }
            (Phase::Replicating { asked, .. }, Event::ReplicateFailed(number, store))
                if number == current && *asked == Some(store) =>
            {
                *asked = None;
                self.replicate(now_ms);
            }
            (Phase::Replicating { asked, deadline_ms, .. }, Event::Tick)
                if asked.is_some() && now_ms >= *deadline_ms =>
            {
                *asked = None;
                self.replicate(now_ms);
            }
            (Phase::Publishing, Event::Published(number)) if number == current => self.commit(),
            (Phase::Publishing, Event::PublishFailed(number)) if number == current => {
                self.fail(now_ms);
            }
            (Phase::Ending, Event::Committed(number)) if number == current => {
                self.failures = 0;
                self.halvings = self.halvings.saturating_sub(1);
                self.phase = Phase::Idle;
            }
            (Phase::Ending, Event::CommitRefused(number)) if number == current => {
                self.back_off(now_ms);
                self.phase = Phase::Idle;
            }
            (Phase::Ending, Event::Failed(number)) if number == current => {
                self.phase = Phase::Idle;
            }
            // A tick with nothing due, or an answer that comes too late.
            _ => {}
        }
    }

    fn claimed(&mut self, now_ms: u64, inputs: Vec<u128>) {
        // What is available has to be asked for again.
        self.available = Available::default();
        if inputs.is_empty() {
            // Others were faster, or what was announced cannot be had: not at once again.
            self.not_before_ms = now_ms + self.limits.back_off_min_ms;
            self.phase = Phase::Idle;
        } else {
            self.inputs.clone_from(&inputs);
            self.phase = Phase::Merging;
            self.actions.push_back(Action::Merge(self.number, inputs));
        }
    }

    /// Ends the gather that is under way before its end: its inputs are returned. Says whether there was
    /// one that can still end so.
    pub fn cancel(&mut self, now_ms: u64) -> bool {
        let can_end =
            matches!(self.phase, Phase::Merging | Phase::Replicating { .. } | Phase::Publishing);
        if can_end {
            self.actions.clear();
            self.fail(now_ms);
        }
        can_end
    }

    /// The next thing to do.
    pub fn next_action(&mut self, now_ms: u64) -> Action {
        if let Some(action) = self.actions.pop_front() {
            return action;
        }
        match &self.phase {
            Phase::Idle => self.claim_or_wait(now_ms),
            Phase::Replicating { deadline_ms, .. } => Action::Wait(Some(*deadline_ms)),
            _ => Action::Wait(None),
        }
    }

    fn claim_or_wait(&mut self, now_ms: u64) -> Action {
        if self.available.count == 0 || self.replicas_missing() {
            return Action::Wait(None);
        }
        let waited_ms = self.available.oldest_age_ms + now_ms.saturating_sub(self.available_at_ms);
        let is_enough = self.available.bytes >= self.limits.target_bytes
            || self.available.count >= self.limits.claim_count_max;
        let due_ms = if is_enough {
            now_ms
        } else {
            now_ms + self.limits.target_age_ms.saturating_sub(waited_ms)
        };
        let due_ms = due_ms.max(self.not_before_ms);
        if due_ms > now_ms {
            return Action::Wait(Some(due_ms));
        }
        self.number.0 += 1;
        self.inputs.clear();
        self.damaged.clear();
        self.phase = Phase::Claiming;
        let bytes_max = self.limits.target_bytes >> self.halvings;
        let count_max = (self.limits.claim_count_max >> self.halvings).max(1);
        Action::Claim { gather: self.number, bytes_max, count_max }
    }

    /// Asks the next store for a copy, publishes when there are enough, gives up when nobody is
    /// left to ask.
    fn replicate(&mut self, now_ms: u64) {
        let Phase::Replicating { asked, deadline_ms, tried, copies } = &mut self.phase else {
            return;
        };
        if *copies >= self.limits.replication_factor {
            self.phase = Phase::Publishing;
            self.actions.push_back(Action::Publish(self.number));
            return;
        }
        // Each gather starts with another store, so that copies spread.
        let turn = self.number.0 as usize % self.others.len().max(1);
        let next = self.others.iter().cycle().skip(turn).take(self.others.len());
        let Some(&store) = next.clone().find(|store| !tried.contains(store)) else {
            return self.fail(now_ms);
        };
        tried.push(store);
        *asked = Some(store);
        *deadline_ms = now_ms + self.limits.replicate_timeout_ms;
        self.actions.push_back(Action::Replicate(self.number, store));
    }

    fn commit(&mut self) {
        let damaged = std::mem::take(&mut self.damaged);
        let mut whole = std::mem::take(&mut self.inputs);
        whole.retain(|input| !damaged.contains(input));
        self.phase = Phase::Ending;
        self.actions.push_back(Action::Commit { gather: self.number, whole, damaged });
    }

    fn fail(&mut self, now_ms: u64) {
        self.halvings = (self.halvings + 1).min(HALVINGS_MAX);
        self.back_off(now_ms);
        self.phase = Phase::Ending;
        let inputs = std::mem::take(&mut self.inputs);
        self.actions.push_back(Action::Fail(self.number, inputs));
    }

    fn back_off(&mut self, now_ms: u64) {
        let factor = 1u64 << self.failures.min(20);
        let wait_ms = self.limits.back_off_min_ms.saturating_mul(factor);
        self.not_before_ms = now_ms + wait_ms.min(self.limits.back_off_max_ms);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
