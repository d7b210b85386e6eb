//! Search without a thread or a clock: whoever has it says what time it is and when the next piece of
//! work is done, on his own thread. For simulators: the same calls give the same answers, at the same
//! steps.
//!
//! Invariants: everything but waiting is what threads do ([`super::pool`]); one piece of work is read and
//! searched at a step, so that whatever else happens can happen between any two of them.
//!
//! Not here: readers that wait ([`super::PipeReader::next_blocking`]), for nobody works meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::places::Place;
use super::pool::{Call, Hand, Outside, Pool};
use super::searcher::Searcher;
use crate::caches::Caches;
use crate::limits::QUERY_HELD_BYTES_MAX;

/// The time that was said.
#[derive(Default)]
struct Said {
    now_ns: AtomicU64,
}

impl Outside for Said {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    /// Work takes no time but what is said.
    fn worked(&self) -> Duration {
        self.now()
    }

    fn wake_one(&self) {}

    fn wake_all(&self) {}
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A piece of work was done; there may be more.
    Worked,
    /// There was nothing to do: until a query comes, a reader reads or goes, or so much time has passed.
    Idle(Option<Duration>),
}

/// See the page of the module.
pub struct Stepped {
    searcher: Searcher,
    pool: Arc<Pool>,
    said: Arc<Said>,
    hand: Hand,
}

impl Stepped {
    /// Search as one thread would do it; `node` is its name in what is told as missing.
    pub fn new(node: &str, caches: Arc<Caches>) -> Self {
        Self::within(node, caches, QUERY_HELD_BYTES_MAX)
    }

    /// The same with another bound on what queries keep between their turns, bytes.
    pub(super) fn within(node: &str, caches: Arc<Caches>, held_bytes_max: usize) -> Self {
        let said = Arc::<Said>::default();
        let pool = Arc::new(Pool::new(1, Arc::clone(&said) as Arc<dyn Outside>, held_bytes_max));
        let hand = pool.hand(Place { index: 0, pulse: Arc::default() });
        let searcher = Searcher::over(Arc::clone(&pool), 1, node.to_owned(), caches);
        Self { searcher, pool, said, hand }
    }

    /// Who is asked.
    pub const fn searcher(&self) -> &Searcher {
        &self.searcher
    }

    /// Does one piece of work at this time, as a [`Duration`] since any moment that stays the same.
    pub fn step(&mut self, now: Duration) -> Step {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.said.now_ns.fetch_max(now_ns, Ordering::Relaxed);
        match self.pool.turn(&mut self.hand) {
            Call::Work => {
                self.hand.work();
                Step::Worked
            }
            Call::Rest(pause) => Step::Idle(pause),
            Call::Go => Step::Idle(None),
        }
    }
}
