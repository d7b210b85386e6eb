//! How long to wait before the next try: exponential with full jitter, capped.
//!
//! Pure: randomness is passed in. The formula is that of "Exponential Backoff And Jitter" (AWS
//! Architecture Blog, 2015): a random time between nothing and `base · 2^failures`, so that many
//! forwarders that lost the same ingester do not come back at the same moment.

use std::time::Duration;

/// Failures in a row and what follows from them.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits grow from `base` to `cap`.
    pub(crate) const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// It worked.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait, given any `random` number.
    pub(crate) fn next_wait(&mut self, random: u64) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = (self.failures + 1).min(31);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        let ceiling_us = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(random % (ceiling_us + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_starts_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let ceilings: Vec<_> = [100_000, 200_000, 400_000, 800_000, 1_000_000, 1_000_000]
            .map(Duration::from_micros)
            .into();
        for expected in ceilings {
            // A random number that is the ceiling itself passes through.
            assert_eq!(backoff.next_wait(expected.as_micros() as u64), expected);
        }
        for _ in 0..100 {
            assert!(backoff.next_wait(u64::MAX) <= Duration::from_secs(1));
        }
        backoff.reset();
        assert!(backoff.next_wait(u64::MAX) <= Duration::from_millis(100));
    }

    #[test]
    fn waits_are_spread_over_all_of_the_span() {
        let wait = |random| {
            Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).next_wait(random)
        };
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(50_000), Duration::from_millis(50));
    }
}
