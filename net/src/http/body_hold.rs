//! What a request that brings records holds, and for how long.
//!
//! It holds a turn while a piece of its body is taken apart and appended, and while the next one comes at
//! once; while it waits for its client it holds none, so that any number of senders may trickle: what it
//! keeps of an unfinished line beyond a little is counted. A line beyond [`PARTIAL_BYTES_MAX`] takes,
//! in place of the turn, all that the longest one needs, so that nobody holds a part of a line while he
//! waits for its rest. A compressed body holds what its decoder needs from its first byte to its last.
//!
//! Of all that but the turn an address has a share, so that one with many slow bodies leaves room to others.
//!
//! Invariants: what is held is taken before; in the order decoder, turn, long line, so that no two wait
//! for each other: who waits for a turn holds no long line. None of it is held for ever while its
//! request waits for its client, however close its pieces come.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::answer::Refusal;
use super::ledger::Ledger;
use crate::budget::{Share, Taken};
use crate::limits::{
    ENCODED_BODY_MAX, GZIP_DECODER_BYTES, LONG_LINE_MAX, LONG_LINE_OVERHEAD_BYTES,
    RECORDS_REQUEST_WAIT, UNFINISHED_LINE_BYTES_FREE,
};

/// What a body is, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// It is compressed.
    pub(super) is_encoded: bool,
    /// What its decoder holds beside a turn's part, bytes.
    pub(super) window_bytes: usize,
    /// Longest record, bytes.
    pub(super) record_bytes_max: usize,
}

/// The turn of one request.
pub(super) struct BodyHold<'a> {
    ledger: &'a Ledger,
    kind: Kind,
    /// Whose it is.
    address: IpAddr,
    window: Option<Share>,
    held: Option<Taken>,
    /// Room for a long line.
    line: Option<Share>,
    /// What an unfinished line holds that waits without either.
    unfinished: Option<Share>,
    /// Since when its line has been a long one.
    line_since: Instant,
    /// Since when it has held what its decoder needs.
    decodes_since: Option<Instant>,
}

impl<'a> BodyHold<'a> {
    /// None held yet.
    pub(super) fn new(ledger: &'a Ledger, kind: Kind, address: IpAddr) -> Self {
        let (window, held, line, unfinished) = (None, None, None, None);
        let (line_since, decodes_since) = (Instant::now(), None);
        Self { ledger, kind, address, window, held, line, unfinished, line_since, decodes_since }
    }

    /// Waits for a turn, unless it is held, or room for a long line in its place. An error: there
    /// were too many before this one.
    pub(super) async fn take(&mut self) -> Result<(), Refusal> {
        if self.held.is_some() || self.line.is_some() {
            return Ok(());
        }
        if self.kind.window_bytes > 0 && self.window.is_none() {
            let bytes = self.kind.window_bytes as u64;
            let is_small = self.kind.window_bytes <= GZIP_DECODER_BYTES;
            let Ledger { gzip_decoders, decoder_windows, .. } = self.ledger;
            let decoders = if is_small { gzip_decoders } else { decoder_windows };
            self.window = Some(decoders.take(self.address, bytes, Some(patience())).await?);
        }
        if self.kind.is_encoded && self.decodes_since.is_none() {
            self.decodes_since = Some(Instant::now());
        }
        let turns = &self.ledger.records_turns;
        self.held = Some(turns.take(1, Some(patience())).await.map_err(|_| turns.refusal())?);
        self.unfinished = None;
        Ok(())
    }

    /// Whether there is room for a long line.
    pub(super) const fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// A line has become long, so many bytes until now: takes room for all that it may become.
    pub(super) async fn take_line(&mut self, unfinished_bytes: usize) -> Result<(), Refusal> {
        let Ledger { unfinished_lines, long_lines, .. } = self.ledger;
        self.unfinished = Some(unfinished_lines.try_take(self.address, unfinished_bytes as u64)?);
        self.held = None;
        let bytes = long_line_bytes(self.kind.record_bytes_max);
        self.line = Some(long_lines.take(self.address, bytes, Some(patience())).await?);
        self.unfinished = None;
        self.line_since = Instant::now();
        Ok(())
    }

    /// The room of a long line that has ended: goes with it.
    pub(super) const fn give_line(&mut self) -> Option<Share> {
        self.line.take()
    }

    /// A line has ended: if the next one is long, it has all its time.
    pub(super) fn line_ended(&mut self) {
        self.line_since = Instant::now();
    }

    /// Lets another request have it while this one waits, if what this one holds of an unfinished
    /// line is little; an error: there is no room for even that.
    pub(super) fn pause(&mut self, unfinished_bytes: usize) -> Result<(), Refusal> {
        if self.line.is_some() {
            return Ok(());
        }
        let bytes = unfinished_bytes.saturating_sub(UNFINISHED_LINE_BYTES_FREE) as u64;
        // What was counted before is counted anew.
        self.unfinished = None;
        if bytes > 0 {
            self.unfinished = Some(self.ledger.unfinished_lines.try_take(self.address, bytes)?);
        }
        self.held = None;
        Ok(())
    }

    /// Whether neither a turn nor room for a long line is held.
    pub(super) const fn is_paused(&self) -> bool {
        self.held.is_none() && self.line.is_none()
    }

    /// Nothing of the body is held any longer.
    pub(super) fn end(&mut self) {
        *self = Self::new(self.ledger, self.kind, self.address);
    }

    /// How long the request may still wait for its client; `None` while it holds nothing that
    /// others wait for: as long as any.
    pub(super) fn wait_max(&self) -> Option<Duration> {
        [self.line_wait_max(), self.decoder_wait_max()].into_iter().flatten().min()
    }

    /// Whether it has waited that long.
    pub(super) fn is_overdue(&self) -> bool {
        self.wait_max().is_some_and(|left| left.is_zero())
    }

    /// It has waited that long.
    pub(super) fn overdue(&self) -> Refusal {
        let (what, max) = if self.decoder_wait_max() == self.wait_max() {
            ("a compressed body", ENCODED_BODY_MAX)
        } else {
            ("a line over 64 KiB", LONG_LINE_MAX)
        };
        let seconds = max.as_secs();
        let words = format!("{what} has to come within {seconds} s, others wait for their turn");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, words)
    }

    fn line_wait_max(&self) -> Option<Duration> {
        self.line.as_ref().map(|_| LONG_LINE_MAX.saturating_sub(self.line_since.elapsed()))
    }

    fn decoder_wait_max(&self) -> Option<Duration> {
        self.decodes_since.map(|since| ENCODED_BODY_MAX.saturating_sub(since.elapsed()))
    }
}

/// What a long line takes where records have at most so many bytes.
pub(super) const fn long_line_bytes(record_bytes_max: usize) -> u64 {
    (record_bytes_max + LONG_LINE_OVERHEAD_BYTES) as u64
}

/// Until when one waits who asks now.
fn patience() -> Instant {
    Instant::now() + RECORDS_REQUEST_WAIT
}

#[cfg(test)]
mod tests {
    use super::super::HttpOptions;
    use super::*;
    use crate::limits::{DECODER_WINDOW_BYTES_MAX, PARTIAL_BYTES_MAX, UNFINISHED_LINES_BYTES_MAX};
    use crate::metrics::NodeMetrics;

    const RECORD_BYTES: usize = 1 << 20;
    const PLAIN: Kind = Kind { is_encoded: false, window_bytes: 0, record_bytes_max: RECORD_BYTES };
    const ENCODED: Kind = Kind { is_encoded: true, ..PLAIN };

    /// The sender of that number.
    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn hold(ledger: &Ledger, kind: Kind) -> BodyHold<'_> {
        BodyHold::new(ledger, kind, ip(1))
    }

    /// With room for so many turns, and for two long lines.
    fn ledger(records_requests_max: usize) -> Ledger {
        let long_lines_bytes = 2 * long_line_bytes(RECORD_BYTES);
        let options =
            HttpOptions { records_requests_max, long_lines_bytes, ..HttpOptions::default() };
        Ledger::new(&options, RECORD_BYTES, &NodeMetrics::new(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_and_then_refused() {
        let ledger = ledger(1);
        let mut first = hold(&ledger, PLAIN);
        first.take().await.unwrap();
        first.take().await.unwrap();
        let mut second = hold(&ledger, PLAIN);
        let refusal = second.take().await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        first.pause(0).unwrap();
        second.take().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_with_what_others_want() {
        let ledger = ledger(1);
        let (mut plain, mut encoded) =
            (hold(&ledger, PLAIN), BodyHold::new(&ledger, ENCODED, ip(2)));
        plain.take().await.unwrap();
        plain.pause(0).unwrap();
        assert_eq!(plain.wait_max(), None, "without a turn nobody else waits");
        encoded.take().await.unwrap();
        encoded.pause(0).unwrap();
        plain.take().await.unwrap();
        plain.take_line(100_000).await.unwrap();
        let a_while = Duration::from_secs(20);
        tokio::time::advance(a_while).await;
        assert_eq!(plain.wait_max().map(|left| left + a_while), Some(LONG_LINE_MAX));
        plain.line_ended();
        encoded.line_ended();
        assert_eq!(plain.wait_max(), Some(LONG_LINE_MAX));
        assert_eq!(encoded.wait_max().map(|left| left + a_while), Some(ENCODED_BODY_MAX));
        assert!(encoded.overdue().reason.contains("600 s"));
        tokio::time::advance(LONG_LINE_MAX).await;
        assert!(plain.is_overdue() && !encoded.is_overdue());
        assert!(plain.overdue().reason.contains("64 KiB"));
        // Those in a compressed body have no more time than others.
        encoded.take().await.unwrap();
        encoded.take_line(100_000).await.unwrap();
        assert_eq!(encoded.wait_max(), Some(LONG_LINE_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn long_lines_have_a_share_of_their_own_and_leave_turns_to_others() {
        let ledger = ledger(1);
        let mut long = Vec::new();
        for n in 1..3 {
            let mut turn = BodyHold::new(&ledger, PLAIN, ip(n));
            turn.take().await.unwrap();
            turn.take_line(100_000).await.unwrap();
            assert_eq!(turn.wait_max(), Some(LONG_LINE_MAX));
            long.push(turn);
        }
        let mut third = BodyHold::new(&ledger, PLAIN, ip(3));
        third.take().await.unwrap();
        let mut waits = Box::pin(third.take_line(100_000));
        assert!(tokio::time::timeout(RECORDS_REQUEST_WAIT / 2, &mut waits).await.is_err());
        // Others are served meanwhile.
        let mut short = hold(&ledger, PLAIN);
        short.take().await.unwrap();
        short.end();
        let refusal = waits.await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        assert!(refusal.reason.contains("--ingest.partial-max-size"), "{}", refusal.reason);
        // Room goes with the line, and comes back with it.
        let way = long[0].give_line();
        long[0].take().await.unwrap();
        let mut fourth = BodyHold::new(&ledger, ENCODED, ip(4));
        fourth.kind.record_bytes_max = RECORD_BYTES;
        assert!(ledger.long_lines.try_take(ip(4), 1).is_err(), "it is on its way");
        drop(way);
        long[0].end();
        fourth.take().await.unwrap();
        fourth.take_line(100_000).await.unwrap();
        drop((long, fourth));
        assert_eq!((ledger.long_lines.used(), ledger.records_turns.used()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waiting_requests_keep_is_counted_beyond_a_little() {
        let ledger = ledger(1);
        let keep = UNFINISHED_LINES_BYTES_MAX as usize / 2 + UNFINISHED_LINE_BYTES_FREE;
        let mut large = [1, 2].map(|n| BodyHold::new(&ledger, PLAIN, ip(n)));
        let mut small = BodyHold::new(&ledger, PLAIN, ip(3));
        for large in &mut large {
            large.pause(keep).unwrap();
        }
        small.pause(UNFINISHED_LINE_BYTES_FREE).unwrap();
        let refusal = small.pause(UNFINISHED_LINE_BYTES_FREE + 1).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        large[0].pause(keep).unwrap();
        large[0].take().await.unwrap();
        small.pause(keep).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_with_many_slow_bodies_leaves_room_to_others() {
        let ledger = ledger(64);
        let zstd = Kind { window_bytes: DECODER_WINDOW_BYTES_MAX, ..ENCODED };
        let gzip = Kind { window_bytes: GZIP_DECODER_BYTES, ..ENCODED };
        for kind in [zstd, gzip] {
            let mut held = Vec::new();
            let refusal = loop {
                let mut body = hold(&ledger, kind);
                match body.take().await {
                    Ok(()) => body.pause(0).unwrap(),
                    Err(refusal) => break refusal,
                }
                held.push(body);
            };
            assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
            assert!(refusal.reason.contains("this address"), "{}", refusal.reason);
            BodyHold::new(&ledger, kind, ip(2)).take().await.unwrap();
            // Once one of them is over, the next one has its turn.
            held.pop();
            hold(&ledger, kind).take().await.unwrap();
        }
        // The same of what waits inside of lines, and of long ones.
        let keep = PARTIAL_BYTES_MAX;
        let mut held = Vec::new();
        let refusal = loop {
            let mut body = hold(&ledger, PLAIN);
            match body.pause(keep) {
                Ok(()) => held.push(body),
                Err(refusal) => break refusal,
            }
        };
        assert!(refusal.reason.contains("of this address"), "{}", refusal.reason);
        let mut other = BodyHold::new(&ledger, PLAIN, ip(2));
        other.pause(keep).unwrap();
        held.clear();
        let mut long = [1, 1, 2].map(|n| BodyHold::new(&ledger, PLAIN, ip(n)));
        long[0].take_line(keep).await.unwrap();
        let refusal = long[1].take_line(keep).await.unwrap_err();
        assert!(refusal.reason.contains("--ingest.partial-max-size"), "{}", refusal.reason);
        long[2].take_line(keep).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn windows_of_decoders_are_shared_out() {
        let ledger = ledger(usize::MAX >> 1);
        let kind = Kind { window_bytes: 8 << 20, ..ENCODED };
        let mut turns = Vec::new();
        let refusal = loop {
            // Each of another sender.
            let mut turn = BodyHold::new(&ledger, kind, ip(turns.len() as u8));
            if let Err(refusal) = turn.take().await {
                break refusal;
            }
            turns.push(turn);
        };
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        assert_eq!(turns.len(), 16);
        let gzip = Kind { window_bytes: GZIP_DECODER_BYTES, ..ENCODED };
        hold(&ledger, gzip).take().await.unwrap();
        turns.pop();
        hold(&ledger, kind).take().await.unwrap();
    }
}
