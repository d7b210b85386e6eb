//! Whose turn it is among the requests that bring records.
//!
//! A request holds a turn while it holds memory worth counting: while a piece of its body is taken
//! apart and appended, while it waits inside a long line, and for all of a compressed body, whose
//! decoder has a window. Between pieces a request of short lines holds none, so that any number of
//! senders may trickle.
//!
//! Invariants: at most as many turns as permits are held; no turn is held for ever while its
//! request waits for its client.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::answer::Refusal;
use super::ledger::Entry;
use crate::budget::Taken;
use crate::limits::{ENCODED_BODY_MAX, LONG_LINE_MAX, RECORDS_REQUEST_WAIT};

/// The turn of one request.
pub(super) struct Turn<'a> {
    turns: &'a Entry,
    held: Option<Taken>,
    /// Held for all of the body.
    is_encoded: bool,
    /// Since when it has held a turn without ending a line.
    since: Instant,
}

impl<'a> Turn<'a> {
    /// None held yet.
    pub(super) fn new(turns: &'a Entry, is_encoded: bool) -> Self {
        Self { turns, held: None, is_encoded, since: Instant::now() }
    }

    /// Waits for a turn, unless it is held. An error: there were too many before this one.
    pub(super) async fn take(&mut self) -> Result<(), Refusal> {
        if self.held.is_some() {
            return Ok(());
        }
        let until = Some(Instant::now() + RECORDS_REQUEST_WAIT);
        let turn = self.turns.take(1, until).await;
        self.held = Some(turn.map_err(|_| self.turns.refusal())?);
        self.since = Instant::now();
        Ok(())
    }

    /// A line has ended: what is held is young again. A compressed body has all its time at once.
    pub(super) fn line_ended(&mut self) {
        if !self.is_encoded {
            self.since = Instant::now();
        }
    }

    /// Whether it is given back while the request waits; what it still holds is small.
    pub(super) const fn may_pass(&self) -> bool {
        !self.is_encoded
    }

    /// Lets another request have it.
    pub(super) fn pass(&mut self) {
        self.held = None;
    }

    /// How long the request may still wait for its client; `None` without a turn: as long as any.
    pub(super) fn wait_max(&self) -> Option<Duration> {
        self.held.as_ref()?;
        Some(self.max().saturating_sub(self.since.elapsed()))
    }

    /// It has waited that long.
    pub(super) fn overdue(&self) -> Refusal {
        let what = if self.is_encoded { "a compressed body" } else { "a line over 64 KiB" };
        let seconds = self.max().as_secs();
        let words = format!("{what} has to come within {seconds} s, others wait for their turn");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, words)
    }

    const fn max(&self) -> Duration {
        if self.is_encoded { ENCODED_BODY_MAX } else { LONG_LINE_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HttpOptions;
    use super::super::ledger::Ledger;
    use super::*;
    use crate::metrics::NodeMetrics;

    fn ledger(records_requests_max: usize) -> Ledger {
        let options = HttpOptions { records_requests_max, ..HttpOptions::default() };
        Ledger::new(&options, &NodeMetrics::new(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_and_then_refused() {
        let ledger = ledger(1);
        let turns = &ledger.records_turns;
        let mut first = Turn::new(turns, false);
        first.take().await.unwrap();
        first.take().await.unwrap();
        let mut second = Turn::new(turns, false);
        let refusal = second.take().await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        first.pass();
        second.take().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_with_a_turn() {
        let ledger = ledger(2);
        let turns = &ledger.records_turns;
        let (mut plain, mut encoded) = (Turn::new(turns, false), Turn::new(turns, true));
        assert_eq!(plain.wait_max(), None, "without a turn nobody else waits");
        plain.take().await.unwrap();
        encoded.take().await.unwrap();
        assert!(plain.may_pass() && !encoded.may_pass());
        let a_while = Duration::from_secs(20);
        tokio::time::advance(a_while).await;
        assert_eq!(plain.wait_max().map(|left| left + a_while), Some(LONG_LINE_MAX));
        plain.line_ended();
        encoded.line_ended();
        assert_eq!(plain.wait_max(), Some(LONG_LINE_MAX));
        assert_eq!(encoded.wait_max().map(|left| left + a_while), Some(ENCODED_BODY_MAX));
        assert!(encoded.overdue().reason.contains("600 s"));
    }
}
