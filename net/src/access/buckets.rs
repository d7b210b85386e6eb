//! How often something may be done, by who does it: so many times at once, and then at a steady rate.
//!
//! The generic cell rate algorithm (ITU-T I.371): of each key only the time is kept at which all that was
//! taken is given back.
//!
//! Invariants: time is passed in; memory is bounded. When there are too many keys at a time, further ones are
//! let through and not remembered: who has so many addresses is bounded by other means, and nobody else is to
//! wait for that.

use std::collections::HashMap;
use std::hash::Hash;

/// Keys that are remembered at a time.
const KEYS_MAX: usize = 16 << 10;
/// Time between looks for keys that have all they took back, ms.
const SWEEP_MS: u64 = 1_000;

/// See the module page.
#[derive(Debug)]
pub struct Buckets<K> {
    /// What one costs, nanoseconds.
    cost_ns: u64,
    /// How many may be taken at once, in the same.
    burst_ns: u64,
    /// When all is given back.
    back_ns: HashMap<K, u64>,
    swept_ms: u64,
}

impl<K: Eq + Hash> Buckets<K> {
    /// So many a second, and as many at once as `burst` says; at least one of each.
    pub fn new(per_second: u64, burst: u64) -> Self {
        let cost_ns = (1_000_000_000 / per_second.max(1)).max(1);
        let burst_ns = cost_ns.saturating_mul(burst.max(1));
        Self { cost_ns, burst_ns, back_ns: HashMap::new(), swept_ms: 0 }
    }

    /// Takes one; the error is how long to wait, ms.
    pub fn take(&mut self, key: K, now_ms: u64) -> Result<(), u64> {
        let now_ns = now_ms.saturating_mul(1_000_000);
        if let Some(back_ns) = self.back_ns.get_mut(&key) {
            let after_ns = (*back_ns).max(now_ns) + self.cost_ns;
            let over_ns = after_ns.saturating_sub(now_ns + self.burst_ns);
            if over_ns > 0 {
                return Err(over_ns.div_ceil(1_000_000));
            }
            *back_ns = after_ns;
            return Ok(());
        }
        if self.back_ns.len() >= KEYS_MAX && now_ms >= self.swept_ms.saturating_add(SWEEP_MS) {
            self.swept_ms = now_ms;
            self.back_ns.retain(|_, back_ns| *back_ns > now_ns);
        }
        if self.back_ns.len() < KEYS_MAX {
            self.back_ns.insert(key, now_ns + self.cost_ns);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_goes_through_and_then_the_rate_holds_for_each_key() {
        let mut buckets = Buckets::new(10, 3);
        for _ in 0..3 {
            assert_eq!(buckets.take("a", 5), Ok(()));
        }
        assert_eq!(buckets.take("a", 5), Err(100));
        assert_eq!(buckets.take("a", 104), Err(1));
        assert_eq!(buckets.take("b", 5), Ok(()), "another one is not touched");
        assert_eq!(buckets.take("a", 105), Ok(()));
        assert_eq!(buckets.take("a", 105), Err(100));
        for _ in 0..3 {
            assert_eq!(buckets.take("a", 10_000), Ok(()), "no more than a burst is saved up");
        }
        assert!(buckets.take("a", 10_000).is_err());
    }

    #[test]
    fn memory_is_bounded_and_who_finds_no_room_is_let_through() {
        let mut buckets = Buckets::new(1, 1);
        for key in 0..3 * KEYS_MAX {
            assert_eq!(buckets.take(key, 0), Ok(()));
        }
        assert_eq!(buckets.back_ns.len(), KEYS_MAX);
        assert!(buckets.take(0, 0).is_err());
        assert_eq!(buckets.take(usize::MAX, 2_000), Ok(()));
        assert_eq!(buckets.back_ns.len(), 1, "the others have theirs back");
    }

    proptest! {
        #[test]
        fn no_span_of_time_lets_more_through_than_burst_and_rate(
            (rate, burst) in (1..1_000_u64, 1..50_u64),
            steps in prop::collection::vec(0..300_u64, 1..300),
        ) {
            let mut buckets = Buckets::new(rate, burst);
            let (mut now_ms, mut taken) = (1, 0);
            for step in steps {
                now_ms += step;
                taken += u64::from(buckets.take((), now_ms).is_ok());
                // A rate that does not divide a second is rounded up by less than one in a thousand.
                let max = burst + (now_ms * rate).div_ceil(1_000) + now_ms * rate / 1_000_000 + 1;
                prop_assert!(taken <= max, "{taken} by {now_ms} ms");
            }
        }
    }
}
