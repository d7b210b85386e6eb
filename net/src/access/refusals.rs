//! What is told of those who may not do what they ask for, and how long those wait who guess.
//!
//! Invariants: pure; time is passed in; each reason is told once and then once a minute at most, with how many
//! there were; memory is bounded. A right token never waits for wrong ones of the same address: many may
//! share it.

use std::net::IpAddr;

use super::Buckets;
use crate::budget::host_of;
use crate::limits::{REFUSAL_TOLD_EVERY_MS, WRONG_TOKENS_AT_ONCE, WRONG_TOKENS_PER_SECOND};

/// Why somebody is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No token, and none is taken for what anybody may do.
    NoToken,
    /// A token that nobody has.
    WrongToken,
    /// Wrong tokens came too often.
    Guessing,
    /// A right is lacking.
    Right,
    /// The topic is not among those of the token.
    Topic,
    /// Requests came too often.
    Rate,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NoToken, Self::WrongToken, Self::Guessing, Self::Right, Self::Topic, Self::Rate];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::Guessing => "guessing",
            Self::Right => "right",
            Self::Topic => "topic",
            Self::Rate => "rate",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::NoToken => "came without a token (--auth.file)",
            Self::WrongToken => "brought a token that is not in --auth.file",
            Self::Guessing => "brought wrong tokens so often that it has to wait",
            Self::Right => "asked for what its token has no right to",
            Self::Topic => "asked for a topic that is not for its token",
            Self::Rate => {
                "asks more often, itself or with others who have its token, than --http.rate-limit lets it"
            }
        }
    }
}

/// A line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Why.
    pub reason: Reason,
    /// Who was the last.
    pub address: Option<IpAddr>,
    /// How many there were since the last line, this one included.
    pub count: u64,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address} {}", self.reason.words())?,
            None => write!(f, "somebody {}", self.reason.words())?,
        }
        if self.count > 1 {
            write!(f, "; {} were refused so since this was last told", self.count)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Untold {
    count: u64,
    next_ms: u64,
}

/// See the module page.
#[derive(Debug)]
pub struct Refusals {
    untold: [Untold; Reason::ALL.len()],
    wrong: Buckets<IpAddr>,
}

impl Default for Refusals {
    fn default() -> Self {
        let wrong = Buckets::new(WRONG_TOKENS_PER_SECOND, WRONG_TOKENS_AT_ONCE);
        Self { untold: [Untold::default(); Reason::ALL.len()], wrong }
    }
}

impl Refusals {
    /// Counts one. `Some`: it is time to tell.
    pub fn note(&mut self, reason: Reason, address: Option<IpAddr>, now_ms: u64) -> Option<Line> {
        let untold = &mut self.untold[reason as usize];
        untold.count += 1;
        if now_ms < untold.next_ms {
            return None;
        }
        untold.next_ms = now_ms + REFUSAL_TOLD_EVERY_MS;
        Some(Line { reason, address, count: std::mem::take(&mut untold.count) })
    }

    /// Notes a wrong token; how long its address has to wait if these are too many, ms.
    pub fn wrong_token(&mut self, address: IpAddr, now_ms: u64) -> Option<u64> {
        self.wrong.take(host_of(address), now_ms).err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_and_then_once_a_minute_with_how_many_there_were() {
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let mut refusals = Refusals::default();
        let line = refusals.note(Reason::WrongToken, address, 0).unwrap();
        assert_eq!((line.count, line.address), (1, address));
        let told = (1..600_000_u64).filter_map(|n| refusals.note(Reason::WrongToken, None, n / 10));
        assert_eq!(told.count(), 0, "ten thousand a second for a minute");
        assert!(refusals.note(Reason::Right, None, 100).is_some(), "another reason is news");
        let line = refusals.note(Reason::WrongToken, None, 60_000).unwrap();
        assert_eq!(line.count, 600_000);
        assert!(line.to_string().contains("600000 were refused"), "{line}");
    }

    #[test]
    fn who_guesses_waits_and_nobody_else_does() {
        let mut refusals = Refusals::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..WRONG_TOKENS_AT_ONCE {
            assert_eq!(refusals.wrong_token(one, 0), None);
        }
        assert!(refusals.wrong_token(one, 0).is_some_and(|ms| ms > 0));
        assert_eq!(refusals.wrong_token(other, 0), None);
    }

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
