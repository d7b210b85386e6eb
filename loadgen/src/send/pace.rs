//! When a unit (byte or record) may be sent: a pure function of the time since the start.
//!
//! Invariants: unit `n` is due at `start + n / rate`; a sender that was held up catches up, so
//! that the rate holds on average and latency counts from the time a record was due.

/// The schedule of one connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    units_per_second: f64,
    start_us: u64,
}

impl Pace {
    /// A share of a rate. Connections start one after the other within one unit's time, so that
    /// slow ones do not send all at once.
    pub(crate) fn share(units_per_second: f64, index: u64, shares: u64, unit_max: u64) -> Self {
        let own = units_per_second / shares as f64;
        let period_us = unit_max as f64 * 1e6 / own;
        Self { units_per_second: own, start_us: (period_us * index as f64 / shares as f64) as u64 }
    }

    /// When the unit behind the first `units` may go, in microseconds.
    pub(crate) fn due_us(&self, units: u64) -> u64 {
        self.start_us.saturating_add((units as f64 * 1e6 / self.units_per_second) as u64)
    }

    /// Units that may have gone by now.
    pub(crate) fn allowance(&self, now_us: u64) -> u64 {
        match now_us.checked_sub(self.start_us) {
            None => 0,
            Some(elapsed_us) => (elapsed_us as f64 * self.units_per_second / 1e6) as u64 + 1,
        }
    }
}

/// What paces a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pacing {
    None,
    Bytes(Pace),
    Records(Pace),
}

impl Pacing {
    /// When the next piece is due, and how many records it may hold (at least one), if that is
    /// what counts.
    pub(crate) fn next(&self, bytes: u64, records: u64, now_us: u64) -> (u64, Option<u64>) {
        match self {
            Self::None => (now_us, None),
            Self::Bytes(pace) => (pace.due_us(bytes), None),
            Self::Records(pace) => {
                let allowed = pace.allowance(now_us).saturating_sub(records);
                (pace.due_us(records), Some(allowed.max(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_due_evenly() {
        let pace = Pace::share(1000.0, 0, 1, 1);
        assert_eq!([0, 1, 500, 1000].map(|unit| pace.due_us(unit)), [0, 1000, 500_000, 1_000_000]);
        assert_eq!([0, 999, 1000, 10_000].map(|now| pace.allowance(now)), [1, 1, 2, 11]);
    }

    #[test]
    fn connections_start_one_after_the_other() {
        let starts: Vec<u64> =
            (0..4).map(|index| Pace::share(100.0, index, 4, 1).due_us(0)).collect();
        assert_eq!(starts, [0, 10_000, 20_000, 30_000]);
        assert_eq!(Pace::share(100.0, 3, 4, 1).allowance(29_999), 0);
    }

    proptest! {
        #[test]
        fn what_is_allowed_is_due(rate in 0.1f64..1e9, now_us in 0u64..10_000_000_000) {
            let pace = Pace::share(rate, 0, 1, 1);
            let allowed = pace.allowance(now_us);
            // One microsecond and one part in 10^9 for rounding.
            let slack = 2 + now_us / 1_000_000_000;
            prop_assert!(pace.due_us(allowed - 1) <= now_us + slack);
            prop_assert!(pace.due_us(allowed) + slack >= now_us);
        }
    }
}
