//! Whether a connection gets on: a node that takes nothing more is left, one that is only slow is not.
//!
//! Pure: time is passed in. What counts as getting on depends on what is waited for. While the
//! ingester owes a count, only a count does: a frozen host's kernel goes on taking bytes. While
//! nothing is owed (a long line is on its way) a byte that the socket takes does.

use tokio::time::Instant;

use super::limits::FORWARD_STALL;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing: there is nothing to send, or only the rest of a line.
    Nothing,
    /// That the socket takes bytes.
    Room,
    /// That the ingester counts what it was sent.
    Count,
}

/// Since when nothing has moved.
#[derive(Debug)]
pub(crate) struct Progress {
    awaited: Awaited,
    since: Instant,
}

impl Progress {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { awaited: Awaited::Nothing, since: now }
    }

    /// Says what is waited for now; when that has taken too long, if it can.
    pub(crate) fn on_awaited(&mut self, awaited: Awaited, now: Instant) -> Option<Instant> {
        if self.awaited != awaited {
            (self.awaited, self.since) = (awaited, now);
        }
        (awaited != Awaited::Nothing).then(|| self.since + FORWARD_STALL)
    }

    /// The ingester counted more than before.
    pub(crate) const fn on_counted(&mut self, now: Instant) {
        self.since = now;
    }

    /// The socket took bytes.
    pub(crate) fn on_written(&mut self, now: Instant) {
        if self.awaited == Awaited::Room {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_count_that_is_owed_is_not_put_off_by_bytes_that_a_kernel_takes() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        assert_eq!(progress.on_awaited(Awaited::Nothing, start), None);
        let at = |s| start + Duration::from_secs(s);
        let due = progress.on_awaited(Awaited::Count, at(100)).unwrap();
        assert_eq!(due, at(100) + FORWARD_STALL);
        progress.on_written(at(110));
        assert_eq!(progress.on_awaited(Awaited::Count, at(111)), Some(due));
        progress.on_counted(at(112));
        assert_eq!(progress.on_awaited(Awaited::Count, at(113)), Some(at(112) + FORWARD_STALL));
    }

    #[test]
    fn a_long_line_gets_on_with_every_byte() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let at = |s| start + Duration::from_secs(s);
        progress.on_awaited(Awaited::Room, start);
        progress.on_written(at(20));
        assert_eq!(progress.on_awaited(Awaited::Room, at(21)), Some(at(20) + FORWARD_STALL));
    }
}
