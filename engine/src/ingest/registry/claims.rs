//! Claims: who is storing which segments, and whether that gets on.
//!
//! Invariants: a claim is named by its token alone; a token of another start of the process, of a
//! claim that has ended, or of one that is forgotten changes nothing. A claim that is renewed does
//! not lapse. One that lapses gives its segments back to be claimed by others, but is remembered: a
//! segment never changes once it is flushed, so whoever stored it first commits it, and everybody
//! else finds it gone.
//!
//! Plain bookkeeping over segment ids and the time; the registry moves the files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::limits::CLAIMS_LAPSED_MAX;
use crate::ulid::Ulid;

/// Names a claim, of this start of the process and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimToken {
    /// Random, new for every start.
    start: u64,
    number: u64,
}

impl ClaimToken {
    /// The claim of this number, of the start that this random value stands for.
    pub const fn new(start: u64, number: u64) -> Self {
        Self { start, number }
    }
}

impl fmt::Display for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.start, self.number)
    }
}

struct Holding {
    /// What was claimed and is not committed, failed or set aside.
    segments: BTreeSet<Ulid>,
    /// When its consumer was last known to get on; `None`: it has lapsed.
    progress_ms: Option<u64>,
}

/// Every claim that may still be heard of.
pub(super) struct Claims {
    next: ClaimToken,
    known: BTreeMap<ClaimToken, Holding>,
    /// Those that have lapsed, oldest first.
    lapsed: VecDeque<ClaimToken>,
}

impl Claims {
    pub(super) fn new(start: u64) -> Self {
        let next = ClaimToken::new(start, 0);
        Self { next, known: BTreeMap::new(), lapsed: VecDeque::new() }
    }

    /// A token for a claim to come.
    pub(super) const fn next_token(&mut self) -> ClaimToken {
        let token = self.next;
        self.next = ClaimToken::new(token.start, token.number + 1);
        token
    }

    /// Enters a segment into a claim that begins or goes on now.
    pub(super) fn add(&mut self, token: ClaimToken, segment: Ulid, now_ms: u64) {
        let new = || Holding { segments: BTreeSet::new(), progress_ms: None };
        let holding = self.known.entry(token).or_insert_with(new);
        holding.segments.insert(segment);
        holding.progress_ms = Some(now_ms);
        self.lapsed.retain(|lapsed| *lapsed != token);
    }

    /// What was claimed under it and is not dealt with; nothing where the token is void.
    pub(super) fn segments(&self, token: ClaimToken) -> Vec<Ulid> {
        let known = self.known.get(&token);
        known.map_or_else(Vec::new, |holding| holding.segments.iter().copied().collect())
    }

    pub(super) fn holds(&self, token: ClaimToken, segment: Ulid) -> bool {
        self.known.get(&token).is_some_and(|holding| holding.segments.contains(&segment))
    }

    /// When its consumer was last known to get on.
    pub(super) fn progress_ms(&self, token: ClaimToken) -> Option<u64> {
        self.known.get(&token)?.progress_ms
    }

    /// The consumer gets on; says whether the claim has not lapsed.
    pub(super) fn renew(&mut self, token: ClaimToken, now_ms: u64) -> bool {
        let progress = self.known.get_mut(&token).and_then(|holding| holding.progress_ms.as_mut());
        progress.is_some_and(|progress| {
            *progress = now_ms.max(*progress);
            true
        })
    }

    /// The claim has nothing to do with this segment any more.
    pub(super) fn remove(&mut self, token: ClaimToken, segment: Ulid) {
        if let Some(holding) = self.known.get_mut(&token) {
            holding.segments.remove(&segment);
            if holding.segments.is_empty() {
                self.end(token);
            }
        }
    }

    /// The claim is over.
    pub(super) fn end(&mut self, token: ClaimToken) {
        self.known.remove(&token);
        self.lapsed.retain(|lapsed| *lapsed != token);
    }

    /// Lets every claim lapse that has not got on for so long; says which.
    pub(super) fn lapse(&mut self, now_ms: u64, timeout_ms: u64) -> Vec<ClaimToken> {
        let mut late = Vec::new();
        for (token, holding) in &mut self.known {
            let is_late = |at: u64| now_ms >= at.saturating_add(timeout_ms);
            if holding.progress_ms.is_some_and(is_late) {
                holding.progress_ms = None;
                late.push(*token);
            }
        }
        self.lapsed.extend(&late);
        while self.lapsed.len() > CLAIMS_LAPSED_MAX {
            if let Some(token) = self.lapsed.pop_front() {
                self.known.remove(&token);
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> Ulid {
        Ulid::from_parts(number, 1, 1)
    }

    #[test]
    fn a_claim_that_is_renewed_does_not_lapse_and_one_that_is_not_does() {
        let mut claims = Claims::new(7);
        let (slow, stuck) = (claims.next_token(), claims.next_token());
        claims.add(slow, id(1), 0);
        claims.add(stuck, id(2), 0);
        for now_ms in (1_000..600_000).step_by(30_000) {
            assert!(claims.renew(slow, now_ms));
            let late = claims.lapse(now_ms + 29_999, 60_000);
            assert!(!late.contains(&slow), "at {now_ms}");
        }
        assert!(!claims.renew(stuck, 600_000), "it has lapsed");
        assert!(claims.holds(stuck, id(2)), "and is remembered");
        assert!(!claims.renew(ClaimToken::new(8, 0), 0), "of another start");
    }

    #[test]
    fn lapsed_claims_are_remembered_up_to_a_bound() {
        let mut claims = Claims::new(7);
        let tokens: Vec<ClaimToken> =
            (0..CLAIMS_LAPSED_MAX as u64 + 5).map(|_| claims.next_token()).collect();
        for (number, &token) in tokens.iter().enumerate() {
            claims.add(token, id(number as u64), 0);
        }
        assert_eq!(claims.lapse(1, 1), tokens);
        assert!(!claims.holds(tokens[4], id(4)) && claims.holds(tokens[5], id(5)));
        assert_eq!(
            (claims.known.len(), claims.lapsed.len()),
            (CLAIMS_LAPSED_MAX, CLAIMS_LAPSED_MAX)
        );
        claims.add(tokens[5], id(5), 2);
        claims.remove(tokens[6], id(6));
        assert_eq!((claims.known.len(), claims.lapsed.len()), (255, 254));
    }
}
