//! Whether every thread gets on with its work. A panic ends the process; what this is for is a
//! thread that hangs: in a call to a disk that does not answer, or by a defect of ours.
//!
//! Invariants: looking takes no lock that a watched thread takes; a change of state is told once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::pulse::Pulse;
use net::metrics::NodeMetrics;

/// Time between looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a turn of a shard, the keeper or the follow thread may take: they do small things.
const SMALL_WORK: Duration = Duration::from_secs(30);
/// How long a scan thread may take to read and search one block.
const SCAN_WORK: Duration = Duration::from_secs(5 * 60);
/// How long a gather may take: the target size at less than a mebibyte a second.
const GATHER_WORK: Duration = Duration::from_secs(10 * 60);
/// How long a compaction may take: the largest segment at a little over a mebibyte a second.
const COMPACTION_WORK: Duration = Duration::from_secs(30 * 60);

/// What a thread is to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Shard,
    Keeper,
    StoreKeeper,
    Follow,
    Scan,
    Gather,
    Compaction,
}

impl Role {
    const fn patience(self) -> Duration {
        match self {
            Self::Shard | Self::Keeper | Self::StoreKeeper | Self::Follow => SMALL_WORK,
            Self::Scan => SCAN_WORK,
            Self::Gather => GATHER_WORK,
            Self::Compaction => COMPACTION_WORK,
        }
    }

    /// Whether a node can take no records without it, so that a restart is the better choice.
    const fn is_vital(self) -> bool {
        matches!(self, Self::Shard | Self::Keeper)
    }
}

/// A thread under watch.
#[derive(Debug)]
struct Watched {
    name: String,
    role: Role,
    pulse: Arc<Pulse>,
    /// The piece of work that was last seen under way, and since when, ms.
    seen: Option<(u64, u64)>,
    is_stuck: bool,
}

impl Watched {
    /// How long it has been at the same piece of work, ms.
    fn look(&mut self, now_ms: u64, reading: Option<u64>) -> u64 {
        let Some(reading) = reading else {
            self.seen = None;
            return 0;
        };
        match self.seen {
            Some((before, since_ms)) if before == reading => now_ms.saturating_sub(since_ms),
            _ => {
                self.seen = Some((reading, now_ms));
                0
            }
        }
    }
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct Vitals(Mutex<Vec<Watched>>);

impl Vitals {
    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches one more thread, which moves this pulse.
    pub(super) fn watch(&self, name: impl Into<String>, role: Role, pulse: Arc<Pulse>) {
        let (name, seen, is_stuck) = (name.into(), None, false);
        self.lock().push(Watched { name, role, pulse, seen, is_stuck });
    }

    /// The same with a pulse of its own.
    pub(super) fn pulse(&self, name: impl Into<String>, role: Role) -> Arc<Pulse> {
        let pulse = Arc::default();
        self.watch(name, role, Arc::clone(&pulse));
        pulse
    }

    /// Looks at all of them, `now_ms` by a clock that never steps.
    pub(super) fn look(&self, now_ms: u64, metrics: &NodeMetrics) {
        for watched in self.lock().iter_mut() {
            let busy_ms = watched.look(now_ms, watched.pulse.reading());
            let busy = Duration::from_millis(busy_ms);
            let Watched { name, role, .. } = &*watched;
            metrics.thread_busy_seconds(name).set(busy.as_secs_f64());
            let is_stuck = busy >= role.patience();
            if is_stuck != watched.is_stuck {
                let seconds = busy.as_secs();
                if is_stuck {
                    tracing::error!(thread = %name, seconds, "a thread does not get on: {}", advice(*role));
                } else {
                    tracing::info!(thread = %name, "the thread gets on again");
                }
                watched.is_stuck = is_stuck;
            }
        }
    }

    /// What is stuck, a sentence each.
    pub(super) fn reasons(&self) -> Vec<String> {
        let threads = self.lock();
        let stuck = threads.iter().filter(|watched| watched.is_stuck);
        stuck
            .map(|w| format!("the thread {} does not get on: {}", w.name, advice(w.role)))
            .collect()
    }

    /// Whether something is stuck without which no records are taken.
    pub(super) fn is_failing(&self) -> bool {
        self.lock().iter().any(|watched| watched.is_stuck && watched.role.is_vital())
    }
}

const fn advice(role: Role) -> &'static str {
    match role {
        Role::Shard => "its connections are not served; restart the node",
        Role::Keeper => {
            "no ingest segment is made or sealed; see whether the disk of --ingest.path answers, \
             then restart the node"
        }
        Role::StoreKeeper => {
            "nobody looks whether --store.path is where it was and has room; see whether its disk \
             answers, then restart the node"
        }
        Role::Follow => "live followers get nothing; restart the node",
        Role::Scan => "queries are slow; see whether the disks answer, then restart the node",
        Role::Gather => {
            "the backlog grows; see whether the disk of --store.path answers, then restart the node"
        }
        Role::Compaction => {
            "nothing is compacted and nothing expires; see whether the disk of --store.path \
             answers, then restart the node"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(vitals: &Vitals, now_ms: u64) -> (usize, bool) {
        let metrics = Arc::new(NodeMetrics::new(1));
        vitals.look(now_ms, &metrics);
        let text = metrics.encode();
        assert!(text.contains("oklog_thread_busy_seconds{thread=\"keeper\"}"), "{text}");
        (vitals.reasons().len(), vitals.is_failing())
    }

    #[test]
    fn who_is_too_long_at_one_piece_of_work_is_stuck_until_it_gets_on() {
        let vitals = Vitals::default();
        let keeper = vitals.pulse("keeper", Role::Keeper);
        let scan = vitals.pulse("scan-0", Role::Scan);
        assert_eq!(look(&vitals, 0), (0, false));
        assert_eq!(look(&vitals, 1_000_000), (0, false), "who rests may rest for ever");
        keeper.begin();
        scan.begin();
        assert_eq!(look(&vitals, 1_001_000), (0, false));
        assert_eq!(look(&vitals, 1_030_999), (0, false));
        assert_eq!(look(&vitals, 1_031_000), (1, true));
        assert!(vitals.reasons()[0].contains("keeper"));
        keeper.begin();
        assert_eq!(look(&vitals, 1_032_000), (0, false), "that is the next piece of work");
        keeper.rest();
        assert_eq!(look(&vitals, 1_400_000), (1, false), "a scan thread, but records are taken");
        scan.rest();
        assert_eq!(look(&vitals, 1_401_000), (0, false));
    }
}
