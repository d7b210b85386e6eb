//! How often somebody may ask (`--http.rate-limit`): so many requests a second of each address, and of each
//! token.
//!
//! Invariants: pure; time is passed in; memory is bounded, as that of [`Buckets`] is. A request that an address
//! may no longer make costs its token nothing.

use std::net::IpAddr;

use super::{Buckets, Digest, Line, Reason, Refusals};
use crate::budget::host_of;

/// See the module page.
#[derive(Debug)]
pub struct Rates {
    addresses: Buckets<IpAddr>,
    tokens: Buckets<Digest>,
    refusals: Refusals,
}

impl Rates {
    /// So many requests a second, and as many at once.
    pub fn new(per_second: u64) -> Self {
        let (addresses, tokens) =
            (Buckets::new(per_second, per_second), Buckets::new(per_second, per_second));
        Self { addresses, tokens, refusals: Refusals::default() }
    }

    /// One more request of an address (IPv6: of its /64); the error is how long to wait, ms.
    pub fn of_address(&mut self, address: IpAddr, now_ms: u64) -> Result<(), u64> {
        self.addresses.take(host_of(address), now_ms)
    }

    /// One more request with a token; the error is how long to wait, ms.
    pub fn of_token(&mut self, token: Digest, now_ms: u64) -> Result<(), u64> {
        self.tokens.take(token, now_ms)
    }

    /// Notes that one had to wait. `Some`: that is to be told to the operator.
    pub fn refused(&mut self, address: Option<IpAddr>, now_ms: u64) -> Option<Line> {
        self.refusals.note(Reason::Rate, address, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::digest;

    #[test]
    fn ten_times_the_rate_is_let_through_at_the_rate_and_harms_nobody_else() {
        let mut rates = Rates::new(50);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        // 500 a second for ten seconds.
        let through = (0..5_000_u64).filter(|n| rates.of_address(one, 2 * n).is_ok()).count();
        assert_eq!(through, 50 + 10 * 50 - 1);
        assert_eq!(rates.of_address(other, 10_000), Ok(()));
        let (a, b) = (digest(b"a"), digest(b"b"));
        let through = (0..5_000_u64).filter(|n| rates.of_token(a, 2 * n).is_ok()).count();
        assert_eq!(through, 50 + 10 * 50 - 1);
        assert_eq!(rates.of_token(b, 10_000), Ok(()));
        assert!(rates.refused(Some(one), 0).is_some());
        assert!(rates.refused(Some(one), 1).is_none(), "once a minute");
    }

    #[test]
    fn one_host_is_one_address() {
        let mut rates = Rates::new(1);
        assert_eq!(rates.of_address("2001:db8::1".parse().unwrap(), 0), Ok(()));
        assert!(rates.of_address("2001:db8::2".parse().unwrap(), 0).is_err());
        assert_eq!(rates.of_address("10.0.0.1".parse().unwrap(), 0), Ok(()));
        assert!(rates.of_address("::ffff:10.0.0.1".parse().unwrap(), 0).is_err());
    }
}
