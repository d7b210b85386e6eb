//! What request heads that have not come to their end hold, over all connections.
//!
//! A head may have 64 KiB, and a client may take its time over it; thousands of clients that do both
//! would hold hundreds of megabytes. So what a head has beyond a little comes out of a budget of
//! all, and a head that finds none left is refused.
//!
//! Invariants: an account gives back what it took when its head is whole, and when it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answer::Refusal;
use super::ledger::Ledger;
use crate::budget::Taken;
use crate::limits::HTTP_HEAD_BYTES_FREE;

/// One connection's part in it.
pub(super) struct HeadAccount {
    of: Arc<Ledger>,
    head: Mutex<Head>,
}

#[derive(Default)]
struct Head {
    /// Bytes of the head that is being read.
    read: usize,
    taken: Option<Taken>,
    /// A request is being answered: what is read belongs to its body.
    is_serving: bool,
}

impl HeadAccount {
    pub(super) fn new(of: &Arc<Ledger>) -> Self {
        Self { of: Arc::clone(of), head: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes were read; whether they may be kept.
    pub(super) fn read(&self, bytes: usize) -> bool {
        let mut head = self.lock();
        if head.is_serving {
            return true;
        }
        head.read += bytes;
        let taken = head.taken.as_ref().map_or(0, Taken::amount);
        let more = (head.read.saturating_sub(HTTP_HEAD_BYTES_FREE) as u64).saturating_sub(taken);
        if more == 0 {
            return true;
        }
        let Ok(more) = self.of.heads.try_take(more) else { return false };
        match &mut head.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        true
    }

    /// The head is whole.
    pub(super) fn serve(&self) {
        *self.lock() = Head { is_serving: true, ..Head::default() };
    }

    /// The next bytes are those of the next head.
    pub(super) fn served(&self) {
        self.lock().is_serving = false;
    }

    /// What one is told whose head found no room.
    pub(super) fn refusal(&self) -> Refusal {
        self.of.heads.refusal()
    }
}

#[cfg(test)]
mod tests {
    use super::super::HttpOptions;
    use super::*;
    use crate::limits::HTTP_HEADS_BYTES_MAX;
    use crate::metrics::NodeMetrics;

    #[test]
    fn small_heads_are_free_and_large_ones_share() {
        let all = Arc::new(Ledger::new(&HttpOptions::default(), 1 << 20, &NodeMetrics::new(1)));
        let used = || all.heads.used();
        let (one, two) = (HeadAccount::new(&all), HeadAccount::new(&all));
        assert!(one.read(HTTP_HEAD_BYTES_FREE) && two.read(HTTP_HEAD_BYTES_FREE));
        assert_eq!(used(), 0);
        let most = HTTP_HEADS_BYTES_MAX - 400;
        assert!(one.read(most) && !two.read(600), "no room for both");
        one.serve();
        assert!(one.read(1 << 30), "a body is no head");
        one.served();
        let three = HeadAccount::new(&all);
        assert!(three.read(HTTP_HEAD_BYTES_FREE + most) && three.read(400) && !three.read(1));
        drop((one, two, three));
        assert_eq!(used(), 0);
    }
}
