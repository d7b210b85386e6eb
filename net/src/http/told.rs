//! Gaps of answers in the log: what a query could not search, each gap once, however often it is
//! met.
//!
//! Invariants: memory is bounded; when it is full everything is forgotten, and told again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use engine::search::Missing;
use prometheus_client::metrics::counter::Counter;

/// Gaps remembered at a time.
const TOLD_MAX: usize = 1024;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashSet<String>>);

impl Told {
    /// One line for each gap that was not told before; each is counted.
    pub(super) fn tell(&self, gaps: &[Missing], counter: &Counter) {
        for gap in gaps {
            if self.is_new(&gap.reason) {
                counter.inc();
                tracing::warn!("a query could not search everything: {}", gap.reason);
            }
        }
    }

    fn is_new(&self, reason: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(reason) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ulid::Ulid;

    #[test]
    fn each_gap_is_new_once_and_memory_is_bounded() {
        let told = Told::default();
        let counter = Counter::default();
        let gap = |reason: &str| Missing {
            from: Ulid::MIN,
            to: Ulid::MAX,
            node: "n".into(),
            reason: reason.into(),
        };
        told.tell(&[gap("x"), gap("y"), gap("x")], &counter);
        told.tell(&[gap("y")], &counter);
        assert_eq!(counter.get(), 2);
        assert!(told.is_new("a") && told.is_new("b"));
        assert!(!told.is_new("a") && !told.is_new("b"));
        for i in 0..3 * TOLD_MAX {
            assert!(told.is_new(&i.to_string()));
        }
        assert!(told.0.lock().unwrap().len() <= TOLD_MAX);
        assert!(told.is_new("a"), "forgotten meanwhile");
    }
}
