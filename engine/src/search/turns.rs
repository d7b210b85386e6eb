//! Whose turn it is on the scan threads: fair by text searched, not by number of turns.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996): each query has a *tag*, the text that was
//! searched for it since it came; a thread takes the query with the smallest tag. A query that
//! comes, or comes back from waiting for its reader, starts at the tag of whoever was served last,
//! so that it neither has to catch up nor earns credit by waiting. Among equals the one that has
//! cost least in all comes first: a needle is found while heavy scans go on.
//!
//! Invariants: pure, no clock and no threads; a query is ready at most once.

use std::collections::HashMap;

/// What a query has cost.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// Where it stands among the others, bytes.
    tag: u64,
    /// All that was searched for it, bytes.
    total: u64,
    /// When it became ready, as a number; `None` while it is not.
    ready: Option<u64>,
}

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Turns {
    accounts: HashMap<u64, Account>,
    /// Tag of the query that was served last.
    now: u64,
    next_ready: u64,
}

impl Turns {
    /// A query comes; it is not ready yet.
    pub(super) fn join(&mut self, id: u64) {
        self.accounts.insert(id, Account { tag: self.now, ..Account::default() });
    }

    /// A query is over.
    pub(super) fn leave(&mut self, id: u64) {
        self.accounts.remove(&id);
    }

    /// It has work; says whether that is news.
    pub(super) fn ready(&mut self, id: u64) -> bool {
        let Some(account) = self.accounts.get_mut(&id) else { return false };
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
            account.ready = None;
        }
    }

    /// The query to serve, which is ready no more.
    pub(super) fn take(&mut self) -> Option<u64> {
        let ready = self
            .accounts
            .iter()
            .filter_map(|(&id, account)| Some((account.tag, account.total, account.ready?, id)));
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
    fn serve(turns: &mut Turns, bytes: u64) -> u64 {
        let id = turns.take().unwrap();
        turns.charge(id, bytes);
        turns.ready(id);
        id
    }

    fn with_scans(count: u64) -> Turns {
        let mut turns = Turns::default();
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
            let id = turns.take().unwrap();
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
        assert_eq!(turns.take(), Some(0));
        assert_eq!(turns.take(), None);
    }
}
