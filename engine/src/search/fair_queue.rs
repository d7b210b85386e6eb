//! Whose turn it is on the scan threads: fair by text searched, not by number of turns.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): each query has a *tag*, the text that was
//! searched for it since it came; a thread takes the query with the smallest tag. A query that
//! comes, or comes back from waiting for its reader, starts at the tag of whoever was served last,
//! so that it neither has to catch up nor earns credit by waiting. Among equals the one that has
//! cost least in all comes first: a needle is found while heavy scans go on.
//!
//! # The gate
//!
//! While queries keep more in memory than they may, the gate is closed: who needs more memory to go on
//! says so ([`FairQueue::wait`]) and is passed over until it is open again. All others have their turns: they
//! hand out what they have, which gives memory back. Of those that wait and *keep* something (copies of
//! a record lie in several blocks: one of them alone decides nothing) one at a time has leave to go on
//! all the same, until it keeps nothing or is over.
//!
//! Nobody waits for ever. The gate is closed because somebody keeps something, and that one either has
//! turns and brings its text to its reader; or waits for its reader, and gives back what it keeps after
//! a while (the pool sees to that); or waits at the gate. If all who keep something wait at the gate one
//! of them has leave, so that it has turns. Whoever keeps nothing waits for the others, each of which
//! comes to an end. So what is kept is never more than what is allowed, a block for each thread that
//! was at work when the gate closed, and what the one with leave needs at a time.
//!
//! Invariants: pure, no clock and no threads; a query is ready at most once; who has leave is known.

use std::collections::BTreeMap;

/// What a query has cost.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// Where it stands among the others, bytes.
    tag: u64,
    /// All that was searched for it, bytes.
    total: u64,
    /// When it became ready, as a number; `None` while it is not.
    ready: Option<u64>,
    /// What it waits at the gate with.
    gate: Gate,
}

/// Whether a query needs the gate to be open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Gate {
    /// It does not.
    #[default]
    Away,
    /// It does, and keeps nothing.
    Empty,
    /// It does, and keeps what it cannot go on with.
    Keeping,
}

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    accounts: BTreeMap<u64, Account>,
    /// Tag of the query that was served last.
    now: u64,
    next_ready: u64,
    /// Who may take memory while the gate is closed.
    leave: Option<u64>,
}

impl FairQueue {
    /// A query comes; it is not ready yet.
    pub(super) fn join(&mut self, id: u64) {
        self.accounts.insert(id, Account { tag: self.now, ..Account::default() });
    }

    /// A query is over.
    pub(super) fn leave(&mut self, id: u64) {
        self.accounts.remove(&id);
        self.keeps_nothing(id);
    }

    /// It waits at the gate, ready to go on when it may.
    pub(super) fn wait(&mut self, id: u64, keeps: bool) {
        // What made it ready meanwhile has to be looked at first.
        if !self.ready(id) {
            return;
        }
        if let Some(account) = self.accounts.get_mut(&id) {
            account.gate = if keeps { Gate::Keeping } else { Gate::Empty };
        }
    }

    /// Whether it may take memory.
    pub(super) fn may_take_memory(&self, id: u64, is_open: bool) -> bool {
        is_open || self.leave == Some(id)
    }

    /// It has given back all that it kept; leave that it had is over.
    pub(super) fn keeps_nothing(&mut self, id: u64) {
        self.leave.take_if(|leave| *leave == id);
    }

    /// It has work; says whether that is news.
    pub(super) fn ready(&mut self, id: u64) -> bool {
        let Some(account) = self.accounts.get_mut(&id) else { return false };
        // Something happened to it: it may be over, or have something to hand out.
        let was_waiting = std::mem::take(&mut account.gate) != Gate::Away;
        if was_waiting {
            return true;
        }
        if account.ready.is_some() {
            return false;
        }
        account.tag = account.tag.max(self.now);
        account.ready = Some(self.next_ready);
        self.next_ready += 1;
        true
    }

    /// It has none for now.
    pub(super) fn park(&mut self, id: u64) {
        if let Some(account) = self.accounts.get_mut(&id) {
            (account.ready, account.gate) = (None, Gate::Away);
        }
    }

    /// The query to serve, which is ready no more. `is_open`: the gate is.
    pub(super) fn take(&mut self, is_open: bool) -> Option<u64> {
        if is_open {
            self.leave = None;
        } else if self.leave.is_none() {
            let keeping = self.accounts.iter().filter(|(_, account)| account.gate == Gate::Keeping);
            self.leave = keeping.map(|(&id, _)| id).min();
        }
        let may =
            |id, account: &Account| account.gate == Gate::Away || self.may_take_memory(id, is_open);
        let ready =
            self.accounts.iter().filter(|&(&id, account)| may(id, account)).filter_map(
                |(&id, account)| Some((account.tag, account.total, account.ready?, id)),
            );
        let (tag, _, _, id) = ready.min()?;
        self.now = self.now.max(tag);
        self.park(id);
        Some(id)
    }

    /// So much was searched for it.
    pub(super) fn charge(&mut self, id: u64, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.tag = account.tag.saturating_add(bytes);
            account.total = account.total.saturating_add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: u64 = 4 << 20;

    /// Serves one slice; says who got it.
    fn serve(turns: &mut FairQueue, bytes: u64) -> u64 {
        let id = turns.take(true).unwrap();
        turns.charge(id, bytes);
        turns.ready(id);
        id
    }

    fn with_scans(count: u64) -> FairQueue {
        let mut turns = FairQueue::default();
        for id in 0..count {
            turns.join(id);
            assert!(turns.ready(id));
        }
        turns
    }

    #[test]
    fn a_needle_that_comes_among_a_hundred_heavy_scans_is_served_next() {
        let mut turns = with_scans(100);
        for _ in 0..777 {
            serve(&mut turns, SLICE);
        }
        turns.join(1000);
        turns.ready(1000);
        let waited = (0..200).take_while(|_| serve(&mut turns, SLICE) != 1000).count();
        assert_eq!(waited, 0, "slices of others before its first");
        // Then it has its share, not more: once per round.
        let round: Vec<u64> = (0..101).map(|_| serve(&mut turns, SLICE)).collect();
        assert_eq!(round.iter().filter(|&&id| id == 1000).count(), 1);
    }

    #[test]
    fn shares_are_equal_by_bytes_however_large_the_slices_are() {
        let mut turns = with_scans(3);
        let mut bytes = [0; 3];
        for _ in 0..30_000 {
            let id = turns.take(true).unwrap();
            // The second one's blocks cost sixteen times as much as those of the others.
            let cost = if id == 1 { SLICE } else { SLICE / 16 };
            bytes[id as usize] += cost;
            turns.charge(id, cost);
            turns.ready(id);
        }
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        assert!(most - least <= 2 * SLICE, "{bytes:?}");
    }

    #[test]
    fn waiting_for_a_reader_earns_no_credit() {
        let mut turns = with_scans(2);
        turns.park(0);
        for _ in 0..1_000 {
            assert_eq!(serve(&mut turns, SLICE), 1);
        }
        turns.ready(0);
        let served: Vec<u64> = (0..10).map(|_| serve(&mut turns, SLICE)).collect();
        let first = served.iter().filter(|&&id| id == 0).count();
        assert!((5..=6).contains(&first), "{served:?}");
    }

    #[test]
    fn who_is_ready_twice_is_served_once_and_who_left_never() {
        let mut turns = with_scans(2);
        assert!(!turns.ready(0));
        turns.leave(1);
        assert!(!turns.ready(1));
        assert_eq!(turns.take(true), Some(0));
        assert_eq!(turns.take(true), None);
    }
}
