//! A query on its way through the pool: its sweep, who takes what that brings, and what it has cost.
//!
//! Invariants: a query that is over holds nothing any more, pins included, whatever its reader does;
//! its result is delivered once.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::consumer::{Breaker, Consumer};
use super::gate::Account;
use super::spec::Stats;
use super::sweep::Sweep;
use super::work::Done;
use crate::limits::QUERY_HELD_NS_PER_BYTE;

/// See the page of the module.
pub(super) struct Job {
    pub(super) id: u64,
    started: Duration,
    state: Mutex<Option<JobState>>,
    /// What it kept in memory after it was worked on last, bytes.
    pub(super) account: Account,
    /// When that was, as a number.
    pub(super) last_turn: AtomicU64,
    breaker: Breaker,
}

pub(super) struct JobState {
    pub(super) sweep: Sweep,
    pub(super) consumer: Box<dyn Consumer>,
    /// Time that was worked for it.
    pub(super) cpu: Duration,
    /// It has brought all that its reader has room for.
    pub(super) is_ahead: bool,
    /// When what it keeps grew last.
    pub(super) grown: Duration,
}

impl JobState {
    /// For how much longer it may keep what its reader is behind with.
    pub(super) fn patience(&self, now: Duration) -> Duration {
        let bytes = self.sweep.held_bytes() as u64;
        let granted = Duration::from_nanos(bytes.saturating_mul(QUERY_HELD_NS_PER_BYTE));
        granted.saturating_sub(now.saturating_sub(self.grown))
    }
}

impl Job {
    pub(super) fn new(
        (id, now): (u64, Duration),
        account: Account,
        sweep: Sweep,
        consumer: Box<dyn Consumer>,
    ) -> Self {
        let breaker = consumer.breaker();
        let state = JobState { sweep, consumer, cpu: Duration::ZERO, is_ahead: false, grown: now };
        let (state, last_turn) = (Mutex::new(Some(state)), AtomicU64::new(0));
        Self { id, started: now, state, account, last_turn, breaker }
    }

    /// Its answer ends as one that broke off, though somebody works on it who does not come back.
    pub(super) fn break_off(&self) {
        (self.breaker)();
    }

    /// What it is at; `None`: it is over.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<JobState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless somebody works on it just now.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Option<JobState>>> {
        self.state.try_lock().ok()
    }

    /// A hand that was given up has come back: its query has gone on without this, or has not heard of
    /// the loss yet and need not any more.
    pub(super) fn complete_late(&self, done: Done) {
        if let Some(state) = self.lock().as_mut() {
            state.sweep.complete(done);
        }
    }

    /// Lets go of all that the query held, then delivers its result.
    pub(super) fn finish(
        &self,
        mut slot: MutexGuard<'_, Option<JobState>>,
        now: Duration,
        aborted: bool,
    ) {
        if let Some(JobState { sweep, consumer, cpu, .. }) = slot.take() {
            let mut stats: Stats = sweep.into_stats();
            stats.duration = now.saturating_sub(self.started);
            stats.cpu = cpu;
            if aborted {
                stats.complete = false;
            }
            consumer.finish(stats, aborted);
        }
    }

    pub(super) fn finish_early(&self, now: Duration, reason: &str) {
        let mut slot = self.lock();
        if let Some(state) = slot.as_mut() {
            state.sweep.end(reason);
        }
        self.finish(slot, now, true);
    }
}
