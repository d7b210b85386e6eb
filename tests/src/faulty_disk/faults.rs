//! The rules in force, shared by the threads that serve a faulty disk and the test that owns it.
//!
//! Invariants: no call hangs for longer than [`HANG_MAX`], so that nobody waits for ever for a test
//! that failed: a process whose call hangs cannot even be killed.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::rules::{Call, Effect, Errno, Rule};

/// How long a call may hang at most.
pub const HANG_MAX: Duration = Duration::from_secs(120);

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done, with so many bytes at most.
    Go(usize),
    Fail(Errno),
    /// It waits for this rule first.
    Hang(RuleId),
}

/// Names a rule of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId(u64);

#[derive(Debug, Default)]
struct State {
    rules: BTreeMap<RuleId, Rule>,
    made: u64,
    is_read_only: bool,
    hanging: usize,
    recorded: Option<Vec<(Call, String)>>,
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn meet(&self, call: Call, path: &str, is_change: bool) -> Verdict {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(recorded) = &mut state.recorded {
            recorded.push((call, path.to_owned()));
        }
        if state.is_read_only && is_change {
            return Verdict::Fail(Errno::ROFS);
        }
        for (&id, rule) in &mut state.rules {
            match rule.meet(now, call, path) {
                None => {}
                Some(Effect::Fail(errno)) => return Verdict::Fail(errno),
                Some(Effect::Short(bytes)) => return Verdict::Go(bytes),
                Some(Effect::Hang) => {
                    state.hanging += 1;
                    return Verdict::Hang(id);
                }
            }
        }
        Verdict::Go(usize::MAX)
    }

    /// Waits until the rule that a call hangs by is over or removed.
    pub(super) fn hang(&self, id: RuleId) {
        let give_up = Instant::now() + HANG_MAX;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let Some(rule) = state.rules.get(&id) else { break };
            let ends = rule.ends().unwrap_or(give_up).min(give_up);
            if now >= ends {
                break;
            }
            let waited = self.changed.wait_timeout(state, ends - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.hanging -= 1;
    }

    pub(super) fn add(&self, rule: Rule) -> RuleId {
        let mut state = self.lock();
        state.made += 1;
        let id = RuleId(state.made);
        state.rules.insert(id, rule);
        id
    }

    pub(super) fn remove(&self, id: RuleId) -> Option<Rule> {
        let rule = self.lock().rules.remove(&id);
        self.changed.notify_all();
        rule
    }

    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.rules.clear();
        state.is_read_only = false;
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn rule(&self, id: RuleId) -> Option<Rule> {
        self.lock().rules.get(&id).cloned()
    }

    pub(super) fn hanging(&self) -> usize {
        self.lock().hanging
    }

    pub(super) fn set_read_only(&self, is_read_only: bool) {
        self.lock().is_read_only = is_read_only;
    }

    pub(super) fn record(&self) {
        self.lock().recorded = Some(Vec::new());
    }

    pub(super) fn recorded(&self) -> Vec<(Call, String)> {
        self.lock().recorded.take().unwrap_or_default()
    }
}
