//! What queries keep in memory between their turns: who may take more, and who gives back.
//!
//! Invariants: what is kept is known after each turn, and the gate is closed while that is more than it
//! may be; only those give back that their readers keep waiting, the ones that were not worked on for
//! longest first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::job::{Job, JobState};
use super::pool::Pool;

/// How long a hand rests at most while the gate is closed.
const GATE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// What one job keeps of what all may, bytes: it gives that back in the end, however it ends.
pub(super) struct Account {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Account {
    /// Of one that keeps nothing.
    pub(super) fn of(all: &Arc<AtomicUsize>) -> Self {
        Self { own: AtomicUsize::new(0), all: Arc::clone(all) }
    }

    fn bytes(&self) -> usize {
        self.own.load(Ordering::Relaxed)
    }

    /// It is so much now; what all kept before and keep now, if that is something else.
    fn set(&self, bytes: usize) -> Option<(usize, usize)> {
        let before = self.own.swap(bytes, Ordering::Relaxed);
        // Wraps where it shrinks.
        let change = bytes.wrapping_sub(before);
        (change != 0).then(|| {
            let all_before = self.all.fetch_add(change, Ordering::Relaxed);
            (all_before, all_before.wrapping_add(change))
        })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Hands that wait at the gate look again by themselves.
        self.set(0);
    }
}

impl Pool {
    /// A job keeps so much now.
    pub(super) fn hold(&self, job: &Job, state: &mut JobState) {
        let bytes = state.sweep.held_bytes();
        if bytes > job.account.bytes() {
            state.grown = self.outside.now();
        }
        self.account(job, bytes);
    }

    pub(super) fn account(&self, job: &Job, bytes: usize) {
        let Some((before, now)) = job.account.set(bytes) else { return };
        if bytes == 0 {
            self.lock().turns.keeps_nothing(job.id);
        }
        let opens = before > self.held_bytes_max && now <= self.held_bytes_max;
        if opens {
            self.outside.wake_all();
        }
    }

    /// Whether memory may be taken.
    pub(super) fn is_open(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) <= self.held_bytes_max
    }

    /// How far a job may read ahead, chunks; 0: it may read none.
    pub(super) fn window(&self, id: u64) -> usize {
        let is_scarce = self.held_bytes.load(Ordering::Relaxed) > self.held_bytes_max / 2;
        let is_open = self.is_open();
        if !is_open && !self.lock().turns.may_take_memory(id, is_open) {
            0
        } else if is_scarce {
            1
        } else {
            usize::MAX
        }
    }

    /// Where jobs keep too much, those that have kept it for long enough and whose readers are behind,
    /// the ones that were not worked on for longest first, give back what they have read ahead, and if
    /// that is not enough, what their readers are at. Others do not: they keep only what they cannot go
    /// on without, and would start over again and again. Says when that is to be done again, unless
    /// something happens before.
    pub(super) fn relieve(&self) -> Duration {
        let mut pause = GATE_PAUSE_MAX;
        let is_over = |max: usize| self.held_bytes.load(Ordering::Relaxed) > max;
        if !is_over(self.held_bytes_max) {
            return pause;
        }
        let now = self.outside.now();
        let mut jobs: Vec<Arc<Job>> = self.lock().live.values().map(Arc::clone).collect();
        // Looked at once each: they are worked on meanwhile.
        jobs.sort_by_cached_key(|job| job.last_turn.load(Ordering::Relaxed));
        for but_head in [true, false] {
            for job in &jobs {
                if !is_over(self.held_bytes_max / 4 * 3) {
                    return pause;
                }
                // One that is locked is being worked on, and gives back when that is done.
                let Some(mut slot) = job.try_lock() else { continue };
                let Some(state) = slot.as_mut().filter(|state| state.is_ahead) else { continue };
                let patience = state.patience(now);
                if !patience.is_zero() {
                    pause = pause.min(patience);
                    continue;
                }
                state.sweep.shed(but_head);
                self.hold(job, state);
            }
        }
        pause
    }
}
